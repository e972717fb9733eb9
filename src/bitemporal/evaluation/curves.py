"""Scores at every threshold, and calibration, from the counts of probabilities."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bitemporal.evaluation.counting import BINS, ProbabilityCounts
from bitemporal.metrics import metric_of

RELIABILITY_BINS = 10
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ThresholdCurve:
    """Dataset scores of the changed class where ``probability > threshold`` is changed; at 0, everything is.

    Attributes:
        thresholds: 0, 0.01, ..., 0.99.
        precision: In [0, 1]; NaN where nothing is predicted.
        recall: In [0, 1]; NaN where nothing has changed.
        f1: In [0, 1]; NaN where nothing has changed.
    """

    thresholds: Floats
    precision: Floats
    recall: Floats
    f1: Floats

    @property
    def best(self) -> int | None:
        """Position of the largest F1; of several, the one nearest to the threshold 0.5. None where nothing changed."""
        if np.isnan(self.f1).all():
            return None
        values = np.nan_to_num(self.f1, nan=-1.0)
        candidates = np.flatnonzero(values == values.max())
        return int(candidates[np.argmin(np.abs(self.thresholds[candidates] - 0.5))])

    @property
    def average_precision(self) -> float:
        """Area under precision over recall, by steps: sum of (R_n - R_(n-1)) P_n from the highest threshold down.

        Thresholds are a hundredth apart, so the area is rough where all probabilities lie close together.
        """
        recall, precision = self.recall[::-1], np.nan_to_num(self.precision[::-1])
        return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def threshold_curve(counts: ProbabilityCounts) -> ThresholdCurve:
    """Scores at every threshold, over all counted pixels."""
    false_positives, true_positives = (np.cumsum(v[::-1])[::-1] for v in (counts.unchanged, counts.changed))
    true_negatives = counts.unchanged.sum() - false_positives
    false_negatives = counts.changed.sum() - true_positives
    matrices = np.stack([true_negatives, false_positives, false_negatives, true_positives], axis=-1)
    precision, recall, f1 = (
        metric_of(name, matrices) for name in ("precision_changed", "recall_changed", "f1_changed")
    )
    if not counts.changed.any():
        f1 = np.full(BINS, np.nan)  # whatever is predicted
    return ThresholdCurve(np.arange(BINS) / BINS, precision, recall, f1)


@dataclass(frozen=True)
class Calibration:
    """How often pixels with a given probability of change have changed.

    Attributes:
        predicted: Mean probability of change in each bin of a tenth; NaN where empty.
        observed: Share of changed pixels in each bin; NaN where empty.
        pixels: Pixels in each bin.
        expected_error: Expected calibration error: mean distance of the two, weighted by pixels (Guo et al. 2017,
            equation 3).
    """

    predicted: Floats
    observed: Floats
    pixels: npt.NDArray[np.int64]
    expected_error: float


def calibration(counts: ProbabilityCounts) -> Calibration:
    """Calibration over all counted pixels."""
    shape = (RELIABILITY_BINS, BINS // RELIABILITY_BINS)
    changed = counts.changed.reshape(shape).sum(1)
    pixels = changed + counts.unchanged.reshape(shape).sum(1)
    total = counts.total.reshape(shape).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        predicted, observed = total / pixels, changed / pixels
    error = np.nansum(np.abs(predicted - observed) * pixels) / max(int(pixels.sum()), 1)
    return Calibration(predicted, observed, pixels, float(error))


def describe_curves(counts: ProbabilityCounts) -> dict[str, Any]:
    """Threshold curve and calibration in JSON types, with the counts that they follow from."""
    curve, reliability = threshold_curve(counts), calibration(counts)
    best = curve.best
    return {
        "best_f1": {
            "threshold": None if best is None else float(curve.thresholds[best]),
            "f1_changed": None if best is None else float(curve.f1[best]),
        },
        "average_precision": curve.average_precision,
        "expected_calibration_error": reliability.expected_error,
        "reliability": {name: getattr(reliability, name).tolist() for name in ("predicted", "observed", "pixels")},
        "counts": {name: values.tolist() for name, values in vars(counts).items()},
    }
