"""Thresholds for parts of equal size, for data whose CARs are spread otherwise than those of the paper's data."""

from decimal import ROUND_CEILING, Decimal

import numpy as np
import numpy.typing as npt


def equal_count_thresholds(values: npt.NDArray[np.float64], parts: int) -> tuple[float, ...]:
    """Thresholds that divide pairs into parts as equal as ties in CAR allow.

    The paper has fixed thresholds (section on O-P). Quantiles would not do: most data sets have many pairs without any
    change, several quantiles then fall on CAR 0, and the other parts become very unequal.

    Args:
        values: CAR of every pair, in [0, 1].
        parts: Number of parts wanted; fewer come out when there are fewer different CARs.

    Returns:
        The shortest decimals that give the least sum of squared counts.
    """
    distinct, counts = np.unique(values, return_counts=True)
    cuts = _even_cuts(np.concatenate([[0], np.cumsum(counts)]), min(parts, distinct.size))
    return tuple(_short_decimal(float(distinct[i - 1]), float(distinct[i])) for i in cuts)


def _even_cuts(bounds: npt.NDArray[np.int64], parts: int) -> list[int]:
    """Indices into ``bounds`` that divide it with the least sum of squared differences.

    Exact dynamic programming: ``cost[end]`` is the least sum for the numbers up to ``end`` in so many parts as yet.

    Args:
        bounds: Rising numbers of pairs, from 0 to all.
        parts: At most ``len(bounds) - 1``.
    """
    cost = bounds.astype(np.float64) ** 2
    layers: list[npt.NDArray[np.int64]] = []
    for part in range(1, parts):
        best, cut = np.full(len(bounds), np.inf), np.zeros(len(bounds), dtype=np.int64)
        for end in range(part + 1, len(bounds)):
            options = cost[:end] + (bounds[end] - bounds[:end]) ** 2.0
            options[:part] = np.inf  # too few pairs for so many parts
            cut[end] = np.argmin(options)
            best[end] = options[cut[end]]
        cost = best
        layers.append(cut)
    cuts = [len(bounds) - 1]
    for cut in reversed(layers):
        cuts.append(int(cut[cuts[-1]]))
    return cuts[:0:-1]


def _short_decimal(low: float, high: float) -> float:
    """The shortest decimal in [low, high)."""
    for digits in range(1, 17):
        candidate = float(Decimal(repr(low)).quantize(Decimal(10) ** -digits, ROUND_CEILING))
        if candidate < high:
            return candidate
    return low
