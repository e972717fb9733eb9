"""Intervals: how far a score would move with other images, and with other seeds.

Images are resampled with replacement (Efron 1979). If a detector was trained with several seeds, every resample also
gets an error of the mean over the seeds, drawn from Student's t distribution with the spread of the seeds. Resampling
two or three seeds instead would hardly reach beyond their smallest and largest score. With one seed nothing is known
about others, and the interval is that of the trained network on other images.

Two detectors are compared on the same resamples, so that images which are hard for both make no difference, and seed by
seed if they have the same seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from bitemporal.metrics import METRICS, Averaging, image_metric, metric_of

RESAMPLES = 2000
LEVEL = 0.95
MINIMUM_IMAGES = 5
"""Fewest images for an interval: resamples of fewer are too much alike."""

Floats = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """A score and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Replicates:
    """Confusion counts of one detector, trained with several seeds, on the same images.

    Attributes:
        counts: Seeds x images x 4.
        seeds: The seeds, -1 for an unknown one. Detectors with the same seeds are compared seed by seed.
    """

    counts: npt.NDArray[np.int64]
    seeds: tuple[int, ...] = (0,)

    def of(self, images: npt.NDArray[np.bool_] | None) -> "Replicates":
        """The same for some of the images, or for all."""
        return self if images is None else Replicates(self.counts[:, images], self.seeds)


@dataclass(frozen=True)
class Resampling:
    """How often each image occurs in each resample.

    Attributes:
        images: Resamples x images.
        generator_seed: Equal seeds draw equal resamples.
    """

    images: Floats
    generator_seed: int = 0
    _errors: dict[int, Floats] = field(default_factory=dict)

    @classmethod
    def of(cls, images: int, resamples: int = RESAMPLES, seed: int = 0) -> "Resampling":
        """Draw resamples.

        Args:
            images: Number of images, at least one.
            resamples: Number of resamples.
            seed: Equal seeds draw equal resamples.
        """
        generator = np.random.default_rng(seed)
        drawn = generator.multinomial(images, np.full(images, 1 / images), size=resamples)
        return cls(drawn.astype(np.float64), seed)

    def errors(self, degrees: int) -> Floats:
        """One error per resample: evenly spaced quantiles of Student's t distribution, in random order."""
        if degrees not in self._errors:
            levels = (np.arange(len(self.images)) + 0.5) / len(self.images)
            order = np.random.default_rng([self.generator_seed, degrees]).permutation(len(levels))
            self._errors[degrees] = np.asarray(stdtrit(degrees, levels), np.float64)[order]
        return self._errors[degrees]


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


def _by_seed(replicates: Replicates, metric: str, averaging: Averaging) -> Floats:
    ones = np.ones((1, replicates.counts.shape[1]))
    return np.asarray(_scores(replicates.counts, ones, metric, averaging)[0])


def _resampled(
    replicates: Replicates,
    images: npt.NDArray[np.bool_] | None,
    resampling: Resampling,
    metric: str,
    averaging: Averaging,
) -> Floats:
    weights = resampling.images if images is None else resampling.images[:, images]
    return np.asarray(_scores(replicates.of(images).counts, weights, metric, averaging).mean(1))


def _error_of_mean(values: Floats) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _interval(value: float, resampled: Floats) -> Estimate:
    known = resampled[np.isfinite(resampled)]
    # no interval if the score is undefined for many resamples
    if len(known) < LEVEL * len(resampled) or not np.isfinite(value):
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


def _too_few(replicates: Replicates) -> bool:
    """Whether there are too few images with a valid pixel."""
    return int((replicates.counts[0].sum(1) > 0).sum()) < MINIMUM_IMAGES


def estimate(
    replicates: Replicates,
    metric: str,
    averaging: Averaging,
    resampling: Resampling,
    images: npt.NDArray[np.bool_] | None = None,
) -> Estimate:
    """A metric with its 95 % interval.

    Args:
        replicates: The detector's counts.
        metric: One of ``bitemporal.metrics.METRICS``.
        averaging: See ``bitemporal.metrics``.
        resampling: Resamples of the images.
        images: Which images count, N; all by default.

    Returns:
        The mean over the seeds and the percentile interval; NaN where undefined. There is no interval for fewer than
        ``MINIMUM_IMAGES`` images with valid pixels.
    """
    own = replicates.of(images)
    if not own.counts.shape[1]:
        return Estimate(*[float("nan")] * 3)
    values = _by_seed(own, metric, averaging)
    if _too_few(own):
        return Estimate(float(values.mean()), float("nan"), float("nan"))
    resampled = _resampled(replicates, images, resampling, metric, averaging)
    if error := _error_of_mean(values):
        resampled = resampled + error * resampling.errors(len(values) - 1)
        resampled = np.clip(resampled, METRICS[metric].lowest, 1.0)
    return _interval(float(values.mean()), resampled)


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
        first: Counts of one detector.
        second: Counts of another one, over the same images in the same order.
        metric: One of ``bitemporal.metrics.METRICS``.
        averaging: See ``bitemporal.metrics``.
        resampling: Resamples of the images.
        images: Which images count, N; all by default.

    Returns:
        First minus second. Equal seeds are paired; otherwise the errors of both means add up, with the degrees of
        freedom of Welch and Satterthwaite, rounded down. There is no interval for fewer than ``MINIMUM_IMAGES`` images
        with valid pixels.
    """
    return mean_difference([(first, second)], metric, averaging, resampling, images)


def mean_difference(
    pairs: Sequence[tuple[Replicates, Replicates]],
    metric: str,
    averaging: Averaging,
    resampling: Resampling,
    images: npt.NDArray[np.bool_] | None = None,
) -> Estimate:
    """The mean of several paired differences, such as of one method on several networks, with its 95 % interval.

    Args:
        pairs: Counts of two detectors each, all over the same images in the same order.
        metric: One of ``bitemporal.metrics.METRICS``.
        averaging: See ``bitemporal.metrics``.
        resampling: Resamples of the images.
        images: Which images count, N; all by default.

    Returns:
        The mean of the differences. Its interval covers other images and other seeds, not other networks. Errors of
        the seeds add up, with the degrees of freedom of Welch and Satterthwaite, rounded down.
    """
    values, variances, degrees = [], [], []
    for first, second in pairs:
        one, other = (_by_seed(r.of(images), metric, averaging) for r in (first, second))
        values.append(one.mean() - other.mean())
        for spread in [one - other] if first.seeds == second.seeds else [one, other]:
            if error := _error_of_mean(spread):
                variances.append(error**2 / len(pairs) ** 2)
                degrees.append(len(spread) - 1)
    value = float(np.mean(values))
    if not np.isfinite(value) or _too_few(pairs[0][0].of(images)):
        return Estimate(value, float("nan"), float("nan"))
    resampled = np.mean(
        [
            _resampled(first, images, resampling, metric, averaging)
            - _resampled(second, images, resampling, metric, averaging)
            for first, second in pairs
        ],
        axis=0,
    )
    if variances:
        freedom = sum(variances) ** 2 / sum(v**2 / d for v, d in zip(variances, degrees, strict=True))
        # a whole number must not be rounded down because of floating-point error
        resampled = resampled + np.sqrt(sum(variances)) * resampling.errors(max(1, int(freedom + 1e-9)))
    return _interval(value, resampled)


def significant(interval: Estimate) -> bool:
    """Whether the interval of a difference leaves zero out."""
    return bool(interval.low > 0 or interval.high < 0)
