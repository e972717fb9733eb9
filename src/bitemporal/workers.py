"""Other processes of this machine that take a share of the work."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from bitemporal.errors import OptionError

Item = TypeVar("Item")
Result = TypeVar("Result")


def check_processes(remedy: str) -> None:
    """Refuse to start processes that could not talk to each other: their locks need a little shared memory.

    Args:
        remedy: How to do without processes.

    Raises:
        OptionError: When there is no such memory.
    """
    try:
        multiprocessing.Lock()
    except OSError as error:
        raise OptionError(
            f"processes cannot share a lock ({error.strerror}), most often because /dev/shm is full or "
            f"missing; {remedy}, or make room there (a container gets more by --shm-size=1g)"
        ) from error


def processes_available() -> bool:
    """Whether processes can be started at all."""
    try:
        check_processes("")
    except OptionError:
        return False
    return True


def process_pool(workers: int, remedy: str = "use --workers 1", **settings: Any) -> ProcessPoolExecutor:  # noqa: ANN401  those of the executor
    """Make a pool of processes.

    Args:
        workers: Number of processes.
        remedy: How to do without them.
        **settings: Further arguments of ``ProcessPoolExecutor``, passed on as they are.

    Raises:
        OptionError: When this machine cannot start any.
    """
    check_processes(remedy)
    # forking a process that already runs torch's threads can hang
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), **settings)


def map_in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, chunk: int
) -> Iterator[Result]:
    """Results of a function for every item, in order.

    Args:
        function: The function, of a module's top level.
        items: Its arguments.
        workers: Processes; with 1, this process does the work.
        chunk: Items that a process takes at once.

    Raises:
        OptionError: When processes cannot be started, or one dies.
    """
    if workers == 1 or len(items) < 2:
        yield from map(function, items)
        return
    pool = process_pool(workers)
    try:
        yield from pool.map(function, items, chunksize=chunk)
    except BrokenProcessPool as error:
        raise OptionError(
            f"workers: one of {workers} processes died ({error}), most often for lack of memory; use fewer (workers=1, "
            "--workers 1). A script that asks for several must start under `if __name__ == '__main__':`"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
