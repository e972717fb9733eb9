"""Loaders of training and validation pairs.

Every training sample is a function of the seed and its running number alone: which pair it is, and how it is
augmented. A run that is started again therefore sees the very samples that it would have seen, whatever the number of
loading processes.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bitemporal.pairs import Pair, PairFolder
from bitemporal.pairs.batch import Batch
from bitemporal.run.augmentation import augment


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any values, the same on every machine and in every process."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _tensors(folder: PairFolder, pair: Pair) -> tuple[Tensor, Tensor]:
    images = folder.load(pair)
    if images.label is None:
        raise ValueError(f"{pair.stem} has no label")  # the caller chooses labelled pairs
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
        """Sample of a running number: dates, 2 x 3 x crop x crop uint8, and mask, crop x crop uint8."""
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
) -> DataLoader[Batch]:
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
    dataset: Dataset[Any] = samples  # what the loader gives is made by its collate function
    return DataLoader(
        dataset,
        batch_sampler=_running_numbers(first_step, steps, batch_size, rank, world_size),
        collate_fn=_collate,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


@dataclass(frozen=True)
class ValidationPairs(Dataset[tuple[Tensor, Tensor]]):
    """Whole labelled pairs of a folder, as they are."""

    folder: PairFolder
    pairs: Sequence[Pair]

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Dates, 2 x 3 x H x W uint8, and mask, H x W uint8."""
        return _tensors(self.folder, self.pairs[index])


def _collate_by_size(samples: list[tuple[Tensor, Tensor]]) -> list[Batch]:
    groups: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
    for sample in samples:
        groups.setdefault(tuple(sample[1].shape), []).append(sample)
    return [_collate(group) for group in groups.values()]


def validation_loader(
    pairs: ValidationPairs, *, batch_size: int, workers: int, rank: int = 0, world_size: int = 1
) -> DataLoader[list[Batch]]:
    """Loader of this process's share of the validation pairs, as lists of batches of one size each."""
    # of any type: what the loader gives is made by its collate function
    share: Dataset[Any] = torch.utils.data.Subset(pairs, range(rank, len(pairs), world_size))
    return DataLoader(
        share,
        batch_size=batch_size,
        collate_fn=_collate_by_size,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
