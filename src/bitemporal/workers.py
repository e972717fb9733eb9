"""Other processes of this machine that take a share of the work; which may die, or hang."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, NoReturn, TypeVar

from bitemporal.errors import OptionError

_INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended

Item = TypeVar("Item")
Result = TypeVar("Result")

SPAN = 60.0
"""Seconds to wait for a sign of life at a time."""

SPANS = 30
"""So many spans without a sign of life, and a process hangs. They are counted, as time alone says little: this whole
program may have been suspended for hours, its processes with it."""


_signs: Any = None
"""Counter of this process's signs of life, in memory that it shares with the one that started it; else ``None``."""


def sign_of_life() -> None:
    """Let whoever watches this process know that it gets on; to be called from within long work."""
    if _signs is not None:
        _signs.value += 1


def _count_signs(signs: Any, initializer: Callable[..., object], initargs: tuple[Any, ...]) -> None:  # noqa: ANN401  a C int
    global _signs
    _signs = signs
    initializer(*initargs)


class Process:
    """One process that does one piece of work after another, and tells of its life meanwhile."""

    def __init__(self, remedy: str, initializer: Callable[..., object], *initargs: object) -> None:
        """Prepare to start it, with its first work.

        Args:
            remedy: How to do without it.
            initializer: Called in it first.
            *initargs: Arguments of that call.

        Raises:
            OptionError: When this machine cannot start any.
        """
        self._signs = multiprocessing.get_context("spawn").Value("Q", lock=False)
        self._pool = process_pool(1, remedy, initializer=_count_signs, initargs=(self._signs, initializer, initargs))

    def submit(self, function: Callable[[Item], Result], item: Item) -> Future[Result]:
        """Have it call a function, which calls ``sign_of_life``."""
        return self._pool.submit(function, item)

    def signs(self) -> int:
        """How many signs of life it has given."""
        return int(self._signs.value)

    def stop(self) -> None:
        """End it at once."""
        stop_processes(self._pool)


class Watch:
    """Tells processes that hang from those that take long."""

    def __init__(self, sign: Callable[[], object]) -> None:
        """Begin to watch.

        Args:
            sign: Gives another value after every sign of life.
        """
        self._sign, self._last, self._since, self._silent = sign, sign(), time.monotonic(), 0

    def is_over(self) -> bool:
        """Whether there was no sign for so long that there will be none; to be asked after every span."""
        sign, now = self._sign(), time.monotonic()
        if sign != self._last:
            self._last, self._since, self._silent = sign, now, 0
        elif now - self._since > SPAN / 2:
            self._since, self._silent = now, self._silent + 1
        return self._silent >= SPANS


_LEAST_LIMIT, _PER_CORE = 32, 4

_unasked = False


def allow_processes() -> None:
    """Let work start processes that no one asked for by number: this is a command, not somebody's own script.

    A script without ``if __name__ == "__main__":`` would be run again in each of them.
    """
    global _unasked
    _unasked = True


def processes_unasked() -> bool:
    """Whether work may start processes that no one asked for by number."""
    return _unasked


def cpus() -> int:
    """CPUs that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # what a container or batch system grants; Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def check_workers(workers: int, least: int = 1) -> None:
    """Refuse a number of processes of this machine that cannot be meant, before any work.

    Args:
        workers: The number.
        least: The lowest one that makes sense.

    Raises:
        OptionError: When it is lower, or higher than the machine can be expected to run.
    """
    most = max(_LEAST_LIMIT, _PER_CORE * cpus())
    if not least <= workers <= most:
        raise OptionError(
            f"workers: found {workers}, expected {least} to {most} processes ({_PER_CORE} per core of this machine, or "
            f"{_LEAST_LIMIT}); use --workers {max(least, min(workers, cpus()))}"
        )


_watching: int | None = None
"""The process that watches the one that started it; not those that are forked from it."""


def end_with_parent(*_: object) -> None:
    """From now on this process ends with the one that started it, however that one ends."""
    global _watching
    if _watching != os.getpid():
        _watching = os.getpid()
        threading.Thread(target=_end_after, args=(os.getppid(),), name="end with parent", daemon=True).start()


class _Arrival:
    """What ends a started process with this one as soon as it is read there, before anything is imported."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[()]]:
        return end_with_parent, ()


@contextmanager
def started_processes_end_with_this_one() -> Iterator[None]:
    """Let processes that a library spawns within the block end with this one, from their first moment on.

    To be told of it by the function that they run is too late: they may import for long before that.
    """
    configuration: Any = multiprocessing.current_process()._config  # type: ignore[attr-defined]  # sent ahead of the work
    configuration["arrival"] = _Arrival()
    try:
        yield
    finally:
        del configuration["arrival"]


def _end_after(number: int) -> NoReturn:
    while (parent := multiprocessing.parent_process()) is None:  # Python has not told this process of it yet
        if os.getppid() != number:
            os._exit(1)
        time.sleep(0.2)
    wait([parent.sentinel])
    os._exit(1)  # no one is left who would read a word of it


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
    beginning = settings.pop("initializer", None), settings.pop("initargs", ())
    return ProcessPoolExecutor(workers, mp_context=_Context(), initializer=_begin, initargs=beginning, **settings)


class _Process(SpawnProcess):
    """A process that Ctrl-C does not reach while it starts, where it would answer with a traceback."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...], dict[str, object]]:
        return _arrive, (type(self),), self.__dict__

    def start(self) -> None:
        resource_tracker.ensure_running()  # starting it would let the signal through again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _arrive(kind: type[SpawnProcess]) -> SpawnProcess:
    """The first that happens in a process; only then it imports what its work needs, which may take long."""
    end_with_parent()
    return kind.__new__(kind)


class _Context(SpawnContext):
    """Processes that are spawned: forking one that already runs torch's threads can hang."""

    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        Process = _Process


def _begin(initializer: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    """From here on Ctrl-C ends a process silently, as the one that started it says what happened."""
    end_with_parent()
    if initializer is not None:
        initializer(*arguments)
    signal.signal(signal.SIGINT, _end)
    if hasattr(signal, "pthread_sigmask"):
        if signal.SIGINT in signal.sigpending():  # raised from here, the executor would print it
            os._exit(_INTERRUPTED)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(_INTERRUPTED)


def stop_processes(pool: ProcessPoolExecutor) -> None:
    """End a pool at once, with all that its processes do: one that hangs would never end by itself."""
    for process in list((pool._processes or {}).values()):  # kill_workers() from Python 3.14 on
        process.kill()
    pool.shutdown(wait=False, cancel_futures=True)


def hanging(processes: str) -> OptionError:
    """The error for processes that are alive, but do nothing.

    Args:
        processes: What they are called.
    """
    return OptionError(
        f"workers: no sign of life for {SPAN * SPANS / 60:.0f} minutes from {processes}; most often they wait for a "
        "network drive that no longer responds, or were stopped from outside. Make sure that the files can be "
        "read, and start the same command again"
    )


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
        OptionError: When processes cannot be started, or one dies, or all hang.
    """
    check_workers(workers)
    if workers == 1 or len(items) < 2:
        yield from map(function, items)
        return
    pool = process_pool(workers)
    try:
        starts = range(0, len(items), chunk)
        try:
            parts = [pool.submit(_results, function, items[start : start + chunk]) for start in starts]
        except OSError as error:  # the system has no room for one more
            raise OptionError(
                f"workers: {workers} processes cannot be started ({error}); use fewer (workers=1, --workers 1)"
            ) from error
        for part in parts:
            yield from _wait_for(part, parts, f"{workers} processes")
        pool.shutdown()
    except BrokenProcessPool as error:
        raise OptionError(
            f"workers: one of {workers} processes died ({error}), most often for lack of memory; use fewer (workers=1, "
            "--workers 1). A script that asks for several must start under `if __name__ == '__main__':`"
        ) from error
    finally:
        stop_processes(pool)


def _results(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [function(item) for item in items]


def _wait_for(part: Future[list[Result]], parts: Sequence[Future[list[Result]]], processes: str) -> list[Result]:
    """Results of a part, unless no part at all ends any more."""
    watch = Watch(lambda: sum(other.done() for other in parts))
    while True:
        try:
            return part.result(SPAN)
        except TimeoutError:
            if part.done():  # raised by the function
                raise
        if watch.is_over():
            raise hanging(processes)
