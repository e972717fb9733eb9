"""Intervals: how far a score would move with other images, and with other seeds.

Images are resampled with replacement (Efron 1979). Where a detector was trained with several seeds, every seed has
scored every image: seeds and images are resampled independently of each other (the pigeonhole bootstrap, Owen 2007,
Annals of Applied Statistics 1(2)), which errs on the side of wide intervals. Two detectors are compared on the same
resamples, so that what both find hard does not count as a difference.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bitemporal.metrics import Averaging, image_metric, metric_of

RESAMPLES = 2000
LEVEL = 0.95

Floats = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """A score and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Replicates:
    """Confusion counts of one detector's seeds over the same images.

    Attributes:
        counts: Seeds x images x 4.
        seeds: Their numbers, -1 for an unknown one; what is compared seed by seed has the same ones.
    """

    counts: npt.NDArray[np.int64]
    seeds: tuple[int, ...] = (0,)

    def of(self, images: npt.NDArray[np.bool_] | None) -> "Replicates":
        """The same for some of the images, or for all."""
        return self if images is None else Replicates(self.counts[:, images], self.seeds)


@dataclass(frozen=True)
class Resampling:
    """How often each image, and each seed, stands in each resample.

    Attributes:
        images: Resamples x images.
        generator_seed: Where seeds' resamples come from; the same seeds give the same ones.
    """

    images: Floats
    generator_seed: int = 0
    _seeds: dict[tuple[int, ...], Floats] = field(default_factory=dict)

    @classmethod
    def of(cls, images: int, resamples: int = RESAMPLES, seed: int = 0) -> "Resampling":
        """Draw.

        Args:
            images: Number of images, at least one.
            resamples: Number of resamples.
            seed: The same one draws the same.
        """
        generator = np.random.default_rng(seed)
        drawn = generator.multinomial(images, np.full(images, 1 / images), size=resamples)
        return cls(drawn.astype(np.float64), seed)

    def seeds(self, numbers: tuple[int, ...]) -> Floats:
        """How often each seed stands in each resample, resamples x seeds."""
        if numbers not in self._seeds:
            generator = np.random.default_rng([self.generator_seed, 1, *(number + 1 for number in numbers)])
            share = np.full(len(numbers), 1 / len(numbers))
            self._seeds[numbers] = generator.multinomial(len(numbers), share, size=len(self.images)).astype(np.float64)
        return self._seeds[numbers]


def _scores(counts: npt.NDArray[np.int64], weights: Floats, metric: str, averaging: Averaging) -> Floats:
    """The metric of every seed under every weighting of the images: resamples x seeds."""
    if averaging == "dataset":
        totals = np.einsum("bn,snk->bsk", weights, counts.astype(np.float64), optimize=True)
        return np.asarray(metric_of(metric, totals), np.float64)
    values = image_metric(metric, counts, averaging)
    known = np.isfinite(values)
    total = weights @ np.where(known, values, 0.0).T
    count = weights @ known.astype(np.float64).T
    means: Floats = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return means


def score(replicates: Replicates, metric: str, averaging: Averaging) -> float:
    """A metric, the mean over the seeds."""
    ones = np.ones((1, replicates.counts.shape[1]))
    return float(_scores(replicates.counts, ones, metric, averaging).mean())


def _resampled(
    replicates: Replicates,
    images: npt.NDArray[np.bool_] | None,
    resampling: Resampling,
    metric: str,
    averaging: Averaging,
) -> Floats:
    weights = resampling.images if images is None else resampling.images[:, images]
    found = _scores(replicates.of(images).counts, weights, metric, averaging)
    seeds = resampling.seeds(replicates.seeds)
    return np.asarray((found * seeds).sum(1) / seeds.sum(1))


def _interval(value: float, found: Floats) -> Estimate:
    known = found[np.isfinite(found)]
    # what most resamples cannot tell has no interval
    if len(known) < LEVEL * len(found) or not np.isfinite(value):
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


def estimate(
    replicates: Replicates,
    metric: str,
    averaging: Averaging,
    resampling: Resampling,
    images: npt.NDArray[np.bool_] | None = None,
) -> Estimate:
    """A metric with its 95 % interval.

    Args:
        replicates: Of one detector.
        metric: One of ``bitemporal.metrics.METRICS``.
        averaging: See ``bitemporal.metrics``.
        resampling: Of the images.
        images: Which of them count, N; all by default.

    Returns:
        The mean over the seeds and the percentile interval; NaN where undefined.
    """
    own = replicates.of(images)
    if not own.counts.shape[1]:
        return Estimate(*[float("nan")] * 3)
    return _interval(score(own, metric, averaging), _resampled(replicates, images, resampling, metric, averaging))


def difference(
    first: Replicates,
    second: Replicates,
    metric: str,
    averaging: Averaging,
    resampling: Resampling,
    images: npt.NDArray[np.bool_] | None = None,
) -> Estimate:
    """The paired difference of two detectors with its 95 % interval.

    Args:
        first: Of one detector.
        second: Of another one, over the same images in the same order; with the same seeds, seeds are paired too.
        metric: One of ``bitemporal.metrics.METRICS``.
        averaging: See ``bitemporal.metrics``.
        resampling: Of the images.
        images: Which of them count, N; all by default.

    Returns:
        First minus second.
    """
    values = [score(r.of(images), metric, averaging) for r in (first, second)]
    found = [_resampled(r, images, resampling, metric, averaging) for r in (first, second)]
    return _interval(values[0] - values[1], found[0] - found[1])


def significant(interval: Estimate) -> bool:
    """Whether a difference's interval leaves zero out."""
    return bool(interval.low > 0 or interval.high < 0)
