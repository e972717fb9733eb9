"""Confusion counts of change masks and the metrics of the field, named by class and averaging.

Every metric exists in three averagings, which must never be mixed up:

- ``dataset``: one confusion matrix summed over all images, as mmseg's ``IoUMetric`` and the LEVIR-CD community do;
- ``image_mean``: the metric of every image, averaged; a class with a ratio 0/0 counts 1, as in the released scorer
  of the JL1-CD paper;
- ``image_mean_empty_0``: the same, but a metric of an image in which a ratio is 0/0 counts 0, as in the later scorer
  of the same authors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bitemporal.imagery.masks import IGNORE

Averaging = Literal["dataset", "image_mean", "image_mean_empty_0"]
AVERAGINGS: tuple[Averaging, ...] = ("dataset", "image_mean", "image_mean_empty_0")
METRIC_VERSION = 2
"""Raised whenever the same masks would be counted differently; results of different versions are not compared."""

Counts = npt.NDArray[np.int64]
"""Confusion counts ``[..., 4]``: true negatives, false positives, false negatives, true positives."""

Floats = npt.NDArray[np.float64]


def confusion_counts(prediction: npt.ArrayLike, target: npt.ArrayLike, ignore: int = IGNORE) -> Counts:
    """Confusion counts of one image.

    Args:
        prediction: Predicted mask, H x W: 0 unchanged, anything else changed.
        target: Decoded change mask, H x W: 0 unchanged, ``ignore`` invalid, anything else changed.
        ignore: Value of target pixels that do not count.

    Returns:
        Four int64 counts: TN, FP, FN, TP.

    Raises:
        ValueError: When the shapes differ.
    """
    predicted, target = np.asarray(prediction) != 0, np.asarray(target)
    if predicted.shape != target.shape:
        raise ValueError(f"prediction has shape {predicted.shape}, target {target.shape}; they must be equal")
    valid = target != ignore
    true = valid & (target != 0)
    both = int(np.count_nonzero(predicted & true))
    false_positives = int(np.count_nonzero(predicted & valid)) - both
    false_negatives = int(np.count_nonzero(true)) - both
    neither = int(np.count_nonzero(valid)) - both - false_positives - false_negatives
    return np.array([neither, false_positives, false_negatives, both], np.int64)


@dataclass(frozen=True)
class Matrix:
    """Confusion matrices of the changed class, as floats: the squares in kappa are beyond 64-bit integers.

    Attributes:
        tn: True negatives, of any shape.
        fp: False positives.
        fn: False negatives.
        tp: True positives.
        empty: What a ratio 0/0 counts.
    """

    tn: Floats
    fp: Floats
    fn: Floats
    tp: Floats
    empty: float

    @property
    def swapped(self) -> "Matrix":
        """The matrices of the unchanged class."""
        return Matrix(self.tp, self.fn, self.fp, self.tn, self.empty)

    def ratio(self, above: Floats, below: Floats) -> Floats:
        """``above / below``; ``empty`` where both are 0."""
        quotient: Floats = np.divide(above, below, out=np.full(np.shape(below), self.empty), where=below > 0)
        return quotient


def _iou(m: Matrix) -> Floats:
    return m.ratio(m.tp, m.tp + m.fp + m.fn)


def _f1(m: Matrix) -> Floats:
    return m.ratio(2 * m.tp, 2 * m.tp + m.fp + m.fn)


def _precision(m: Matrix) -> Floats:
    return m.ratio(m.tp, m.tp + m.fp)


def _recall(m: Matrix) -> Floats:
    return m.ratio(m.tp, m.tp + m.fn)


def _overall_accuracy(m: Matrix) -> Floats:
    return m.ratio(m.tn + m.tp, m.tn + m.fp + m.fn + m.tp)


def _kappa(m: Matrix) -> Floats:
    """Cohen's kappa: the agreement beyond what chance would give."""
    total = m.tn + m.fp + m.fn + m.tp
    chance = m.ratio((m.tp + m.fp) * (m.tp + m.fn) + (m.tn + m.fn) * (m.tn + m.fp), total * total)
    return m.ratio(_overall_accuracy(m) - chance, 1 - chance)


def _of_unchanged(metric: Callable[[Matrix], Floats]) -> Callable[[Matrix], Floats]:
    return lambda m: metric(m.swapped)


def _class_mean(metric: Callable[[Matrix], Floats]) -> Callable[[Matrix], Floats]:
    return lambda m: (metric(m) + metric(m.swapped)) / 2


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        title: Its name for people.
        of: Its value for each confusion matrix.
        lowest: The lowest value; the highest is 1.
    """

    title: str
    of: Callable[[Matrix], Floats]
    lowest: float = 0.0


METRICS = {
    "iou_changed": Metric("IoU of change", _iou),
    "f1_changed": Metric("F1 of change", _f1),
    "precision_changed": Metric("precision", _precision),
    "recall_changed": Metric("recall", _recall),
    "iou_unchanged": Metric("IoU of no change", _of_unchanged(_iou)),
    "f1_unchanged": Metric("F1 of no change", _of_unchanged(_f1)),
    "precision_unchanged": Metric("precision of no change", _of_unchanged(_precision)),
    "recall_unchanged": Metric("recall of no change", _of_unchanged(_recall)),
    "miou": Metric("mIoU", _class_mean(_iou)),
    "macc": Metric("mean accuracy", _class_mean(_recall)),
    "mprecision": Metric("mean precision", _class_mean(_precision)),
    "mfscore": Metric("mean F score", _class_mean(_f1)),
    "oa": Metric("overall accuracy", _overall_accuracy),
    "kappa": Metric("kappa", _kappa, lowest=-1.0),
}
"""All metrics by name. Result files hold every one, in every averaging, with an interval."""

TABLE_METRICS = tuple(name for name in METRICS if not name.endswith("_unchanged"))
"""Metrics that `bitemporal evaluate` prints."""

MAIN_METRICS = ("miou", "iou_changed", "f1_changed", "precision_changed", "recall_changed")
"""Metrics shown of every validation and in the verdict of a run."""

MAIN_SCORES: tuple[tuple[str, Averaging], ...] = (
    *((name, AVERAGINGS[0]) for name in MAIN_METRICS),
    ("miou", "image_mean"),
    ("miou", "image_mean_empty_0"),
)
"""Metrics and averagings shown with their intervals, in comparisons and in reports."""

PAPER_METRICS = ("miou", "macc", "mprecision", "mfscore")
"""Metrics of the JL1-CD paper's tables."""


def metric_of(name: str, counts: npt.ArrayLike, empty: float = float("nan")) -> Floats:
    """One metric of each confusion matrix.

    Args:
        name: One of ``METRICS``.
        counts: Confusion counts, ... x 4.
        empty: What a ratio 0/0 counts.

    Raises:
        ValueError: When there is no such metric.
    """
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}, expected one of {', '.join(METRICS)}")
    tn, fp, fn, tp = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    return METRICS[name].of(Matrix(tn, fp, fn, tp, empty))


def image_metric(name: str, counts: npt.ArrayLike, averaging: Averaging = "image_mean") -> Floats:
    """One metric of every image.

    Args:
        name: One of ``METRICS``.
        counts: Confusion counts, ... x 4. Images without a valid pixel give NaN.
        averaging: Says what a ratio 0/0 counts: ``image_mean`` 1 for its class, ``image_mean_empty_0`` 0 for the
            whole metric; with ``dataset`` the metric is NaN.

    Returns:
        A value for each image.
    """
    values = metric_of(name, counts, empty=1.0 if averaging == "image_mean" else float("nan"))
    if averaging == "image_mean_empty_0":
        values = np.nan_to_num(values, nan=0.0)
    return np.where(np.asarray(counts).sum(-1) > 0, values, np.nan)


def metrics(counts: npt.ArrayLike, averaging: Averaging) -> dict[str, float]:
    """All metrics of a set of images.

    Args:
        counts: Confusion counts of the images, N x 4. Images without a valid pixel do not count.
        averaging: ``dataset`` for one summed matrix (a metric whose class does not occur is NaN), else the mean over
            images.

    Returns:
        Every metric of ``METRICS`` by name; all NaN when no pixel is valid.
    """
    values = np.asarray(counts, dtype=np.float64).reshape(-1, 4)
    values = values[values.sum(-1) > 0]
    if not len(values):
        return dict.fromkeys(METRICS, float("nan"))
    if averaging == "dataset":
        return {name: float(metric_of(name, values.sum(0))) for name in METRICS}
    return {name: float(np.mean(image_metric(name, values, averaging))) for name in METRICS}
