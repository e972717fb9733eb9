"""Loaders of training and validation pairs.

Every training sample is a function of the seed and its running number alone: which pair it is, and how it is
augmented. A run that is started again therefore sees the very samples that it would have seen, whatever the number of
loading processes.
"""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import count
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import signal_handling

from bitemporal.errors import BitemporalError, OptionError
from bitemporal.pairs import Pair, PairFolder
from bitemporal.pairs.batch import Batch
from bitemporal.run.augmentation import augment
from bitemporal.workers import SPAN, Watch, check_processes, end_with_parent, hanging

T = TypeVar("T")


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any values, the same on every machine and in every process."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _tensors(folder: PairFolder, pair: Pair) -> tuple[Tensor, Tensor]:
    images = folder.load(pair)
    assert images.label is not None, f"{pair.stem} has no label"  # the caller chooses labelled pairs
    return (
        torch.from_numpy(np.stack([images.before, images.after])).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(np.ascontiguousarray(images.label)),
    )


@dataclass(frozen=True)
class TrainingSamples(Dataset[tuple[Tensor, Tensor]]):
    """Augmented training samples by running number: sample ``n`` belongs to pass ``n // len(pairs)``.

    Attributes:
        folder: Where the pairs are.
        pairs: Labelled pairs, at least one.
        augmentation: See ``bitemporal.run.augmentation.augment``.
        crop_size: Height and width of a sample.
        seed: Decides order and augmentation.
    """

    folder: PairFolder
    pairs: Sequence[Pair]
    augmentation: Literal["standard", "changer", "none"]
    crop_size: int
    seed: int

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Sample of a running number: dates, 2 x C x crop x crop uint8, and mask, crop x crop uint8."""
        turn, position = divmod(number, len(self.pairs))
        pair = self.pairs[_order(self.seed, turn, len(self.pairs))[position]]
        dates, mask = _tensors(self.folder, pair)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "sample", number))
            return augment(dates, mask, self.augmentation, self.crop_size)


@lru_cache(maxsize=4)
def _order(seed: int, turn: int, count: int) -> list[int]:
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", turn))
    return torch.randperm(count, generator=generator).tolist()


def _running_numbers(first_step: int, steps: int, batch_size: int, rank: int, world_size: int) -> Iterator[list[int]]:
    """Sample numbers of every step from ``first_step`` on, this process's share of each batch."""
    share = batch_size // world_size
    for step in range(first_step, steps):
        start = step * batch_size + rank * share
        yield list(range(start, start + share))


@dataclass(frozen=True)
class _Items(Dataset[Any]):
    """What is made of the samples of given numbers.

    A fault of the user's files is an item too: raised in a loading process, it would arrive as a traceback.
    """

    samples: Dataset[tuple[Tensor, Tensor]]
    make: Callable[[list[tuple[Tensor, Tensor]]], object]

    def __getitem__(self, numbers: list[int]) -> object:
        try:
            return self.make([self.samples[number] for number in numbers])
        except BitemporalError as fault:
            return fault


def _lost(workers: int, error: Exception) -> OptionError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return OptionError(
        f"workers: {workers} loading processes cannot be kept running ({reason.strip()}), most often for lack of "
        "memory; use fewer (--workers 0 needs none)"
    )


@contextmanager
def loading_processes(workers: int) -> Iterator[None]:
    """What is done with items while loading processes make the next ones.

    Raises:
        OptionError: When one of them dies: torch interrupts whatever the main thread is doing then.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise _lost(workers, error) from error


@dataclass(frozen=True)
class Loader(Generic[T]):
    """Items made of samples, in loading processes that start with the first pass and stay.

    Attributes:
        samples: Samples by number.
        numbers: Numbers of the samples of each item.
        make: Makes an item of its samples.
        workers: Loading processes; with 0, items are made as they are asked for.
    """

    samples: Dataset[tuple[Tensor, Tensor]]
    numbers: Iterable[list[int]]
    make: Callable[[list[tuple[Tensor, Tensor]]], T]
    workers: int

    @cached_property
    def _loader(self) -> DataLoader[Any]:
        if self.workers:
            check_processes("use --workers 0")
        return DataLoader(
            _Items(self.samples, self.make),
            batch_size=None,
            sampler=self.numbers,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            worker_init_fn=end_with_parent,
        )

    def __iter__(self) -> Iterator[T]:
        """Give the items of one pass.

        Raises:
            BitemporalError: When the files of a sample cannot be used.
            OptionError: When a loading process cannot be started, dies or hangs.
        """
        try:
            for item in self._watched():
                if isinstance(item, BitemporalError):
                    raise item
                yield item
        # so torch says that a process died, and the system that it has no room for one
        except (RuntimeError, OSError) as error:
            if not self.workers or str(error).startswith("Caught "):  # nothing of the kind: raised by a sample
                raise
            raise _lost(self.workers, error) from error

    def _watched(self) -> Iterator[Any]:
        """Give the items of one pass, unless loading processes hang.

        Another thread watches: this one may wait for the rest of an item whose process stands still.
        """
        if not self.workers:
            yield from self._loader
            return
        waiting, hung, over = False, False, threading.Event()
        given = count()

        def watch() -> None:
            nonlocal hung
            # what is done with an item may take as long as it likes
            silence = Watch(lambda: (items_given, waiting or next(given)))
            while not over.wait(SPAN):
                if silence.is_over() and waiting:
                    hung = True
                    self._kill()  # torch interrupts the wait for a process that has died
                    return

        items_given, items = 0, None
        threading.Thread(target=watch, name="loading", daemon=True).start()
        try:
            while True:
                waiting = True
                items = iter(self._loader) if items is None else items
                item = next(items, over)
                waiting, items_given = False, items_given + 1
                if item is over:
                    return
                yield item
        except RuntimeError as error:
            if not hung:
                raise
            self._stop()
            raise hanging(f"{self.workers} loading processes") from error
        finally:
            over.set()

    def _kill(self) -> None:
        iterator: Any = self._loader._iterator
        for process in [] if iterator is None else iterator._workers:
            process.kill()

    def _stop(self) -> None:
        """End the loading processes at once: torch would wait for each of them, and for locks that they hold."""
        iterator: Any = self._loader._iterator
        signals: Any = signal_handling
        signals._remove_worker_pids(id(iterator))  # their end is no fault
        iterator._worker_pids_set, iterator._shutdown = False, True
        self._kill()
        for queue in iterator._index_queues:
            queue.cancel_join_thread()


def _collate(samples: list[tuple[Tensor, Tensor]]) -> Batch:
    dates = torch.stack([dates for dates, _ in samples])
    return Batch(dates[:, 0], dates[:, 1], torch.stack([mask for _, mask in samples]).long())


def training_loader(
    samples: TrainingSamples,
    *,
    first_step: int,
    steps: int,
    batch_size: int,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
) -> Loader[Batch]:
    """Loader of the batches of steps ``first_step`` to ``steps`` - 1, for a single pass.

    Args:
        samples: Where they come from.
        first_step: Step to begin with.
        steps: Steps of the whole stage.
        batch_size: Pairs per step over all processes, a multiple of ``world_size``.
        workers: Loading processes.
        rank: This process among the training processes.
        world_size: Number of training processes.
    """
    numbers = _running_numbers(first_step, steps, batch_size, rank, world_size)
    return Loader(samples, numbers, _collate, workers)


@dataclass(frozen=True)
class ValidationPairs(Dataset[tuple[Tensor, Tensor]]):
    """Whole labelled pairs of a folder, as they are."""

    folder: PairFolder
    pairs: Sequence[Pair]

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Dates, 2 x C x H x W uint8, and mask, H x W uint8."""
        return _tensors(self.folder, self.pairs[index])


def _collate_by_size(samples: list[tuple[Tensor, Tensor]]) -> list[Batch]:
    groups: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
    for sample in samples:
        groups.setdefault(tuple(sample[1].shape), []).append(sample)
    return [_collate(group) for group in groups.values()]


def validation_loader(
    pairs: ValidationPairs, *, batch_size: int, workers: int, rank: int = 0, world_size: int = 1
) -> Loader[list[Batch]]:
    """Loader of this process's share of the validation pairs, as lists of batches of one size each."""
    own = range(rank, len(pairs), world_size)
    numbers = [list(own[start : start + batch_size]) for start in range(0, len(own), batch_size)]
    return Loader(pairs, numbers, _collate_by_size, workers)
