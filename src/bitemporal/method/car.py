"""Change area ratio (CAR) and the partition of pairs by it.

CAR is changed pixels over valid pixels of a change mask (JL1-CD paper, arXiv 2502.13407, section on O-P).
One rule decides the part of a CAR everywhere, in statistics, teacher training, distillation and O-P alike:
a part ends *at* its threshold, so small <= 0.05 < medium <= 0.20 < large.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bitemporal.errors import OptionError, PartitionError
from bitemporal.imagery.masks import IGNORE
from bitemporal.method.equal_counts import equal_count_thresholds

if TYPE_CHECKING:  # processes that only read files start without torch
    import torch

PAPER_THRESHOLDS = {2: (0.10,), 3: (0.05, 0.20)}
"""Thresholds of the paper, by number of parts (paper, section on O-P and Table V)."""

_PART_NAMES = {1: ("all",), 2: ("small", "large"), 3: ("small", "medium", "large")}


def change_area_ratio(mask: "npt.ArrayLike | torch.Tensor", ignore: int | None = IGNORE) -> float:
    """Share of changed pixels among the valid pixels of one mask (JL1-CD paper, section on O-P).

    Args:
        mask: Decoded change mask of any shape: 0 unchanged, ``ignore`` invalid, anything else changed; or booleans.
        ignore: Value of pixels that do not count; ``None`` when every pixel counts.

    Returns:
        CAR in [0, 1]; NaN when no pixel is valid.
    """
    values = np.asarray(mask.detach().cpu() if hasattr(mask, "detach") else mask)
    valid = values.size if ignore is None or values.dtype == bool else int(np.count_nonzero(values != ignore))
    if valid == 0:
        return float("nan")
    changed = int(np.count_nonzero(values)) - (values.size - valid if ignore else 0)
    return changed / valid


def change_area_ratios(masks: "torch.Tensor", ignore: int = IGNORE) -> "torch.Tensor":
    """CAR of every mask of a batch (JL1-CD paper, section on O-P), counted on its device.

    Args:
        masks: Decoded masks, N x ..., integer: 0 unchanged, ``ignore`` invalid, anything else changed.
        ignore: Value of pixels that do not count.

    Returns:
        N float64 values in [0, 1] on the CPU; NaN where a mask has no valid pixel.
    """
    flat = masks.flatten(1)
    valid = flat != ignore
    changed = valid & (flat != 0)
    # float64, or a CAR exactly at a threshold ends above it; Apple GPUs have none
    return changed.sum(1).cpu().double() / valid.sum(1).cpu().double()


@dataclass(frozen=True)
class CarPartition:
    """Partition of pairs by CAR (JL1-CD paper, section on O-P).

    Attributes:
        thresholds: Upper bounds of all parts but the last, strictly increasing, each in [0, 1). A CAR equal to a
            threshold belongs to the lower part. ``n`` thresholds make ``n + 1`` parts.
    """

    thresholds: tuple[float, ...] = PAPER_THRESHOLDS[3]

    def __post_init__(self) -> None:
        """Check the thresholds.

        Raises:
            PartitionError: When they are not strictly increasing numbers in [0, 1).
        """
        try:
            values = tuple(float(t) for t in self.thresholds)
        except (TypeError, ValueError):
            raise PartitionError(
                f"thresholds: found {self.thresholds!r}, expected numbers such as (0.05, 0.20)"
            ) from None
        if any(not 0.0 <= t < 1.0 for t in values) or any(a >= b for a, b in itertools.pairwise(values)):
            raise PartitionError(
                f"thresholds: found {values}, expected strictly increasing change area ratios in [0, 1), "
                "for example (0.05, 0.20)"
            )
        object.__setattr__(self, "thresholds", values)

    @classmethod
    def of_paper(cls, parts: int) -> "CarPartition":
        """The paper's partition into 2 (at 0.10) or 3 parts (at 0.05 and 0.20).

        Raises:
            PartitionError: For any other number of parts.
        """
        if parts not in PAPER_THRESHOLDS:
            raise PartitionError(
                f"parts: found {parts}, expected {' or '.join(map(str, PAPER_THRESHOLDS))}, for which the paper has "
                "thresholds; another number needs thresholds of its own"
            )
        return cls(PAPER_THRESHOLDS[parts])

    @classmethod
    def of_options(cls, parts: int | None, thresholds: Sequence[float] | None) -> "CarPartition | None":
        """The partition that two options ask for, of which one at most may be given; ``None`` without either.

        Args:
            parts: Number of parts, at the paper's thresholds.
            thresholds: The thresholds themselves.

        Raises:
            OptionError: When both are given.
            PartitionError: When the thresholds are not increasing ratios, or the paper has none for so many parts.
        """
        if parts is not None and thresholds is not None:
            raise OptionError(
                f"parts and thresholds: found {parts} and {thresholds}, expected one of the two; drop one"
            )
        if parts is not None:
            return cls.of_paper(parts)
        return None if thresholds is None else cls(tuple(thresholds))

    @classmethod
    def of_equal_counts(cls, cars: Iterable[float], parts: int) -> "CarPartition":
        """The partition with pair counts as equal as ties in CAR allow.

        Equal means the least sum of squared counts. A threshold is the shortest decimal that parts the same pairs.

        Args:
            cars: CAR of every pair; NaN is left out.
            parts: Number of parts wanted, at least 1. Fewer come out when there are fewer different CARs.

        Raises:
            PartitionError: When ``parts`` is below 1 or no CAR is defined.
        """
        values = np.asarray([c for c in cars if not np.isnan(c)], dtype=np.float64)
        if parts < 1 or values.size == 0:
            raise PartitionError(
                f"parts: found {parts} for {values.size} pairs with a CAR, expected at least 1 part and 1 pair"
            )
        return cls(equal_count_thresholds(values, parts))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parts by rising CAR: small/large, small/medium/large, or part1, part2, ..."""
        count = len(self.thresholds) + 1
        return _PART_NAMES.get(count) or tuple(f"part{i + 1}" for i in range(count))

    def indices(self, cars: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Part number of every CAR, from 0; -1 where the CAR is NaN."""
        values = np.asarray(cars, dtype=np.float64)
        numbers = np.searchsorted(np.asarray(self.thresholds, dtype=np.float64), values, side="left")
        return np.where(np.isnan(values), -1, numbers).astype(np.int64)

    def part(self, car: float) -> str:
        """Name of the part that a CAR belongs to; the empty string when the CAR is NaN."""
        index = int(self.indices(car))
        return "" if index < 0 else self.names[index]

    def describe(self) -> str:
        """The rule in one line, as in ``small <= 0.05 < medium <= 0.2 < large``."""
        pieces = [f"{name} <= {limit}" for name, limit in zip(self.names, self.thresholds, strict=False)]
        return " < ".join([*pieces, self.names[-1]])
