"""Confusion counts of change masks and the metrics of the field, named by class and averaging.

Every metric exists in three averagings, which must never be mixed up:

- ``dataset``: one confusion matrix summed over all images, as mmseg's ``IoUMetric`` and the LEVIR-CD community do;
- ``image_mean``: the metric of every image, averaged; a class with a ratio 0/0 counts 1, as in the released scorer
  of the JL1-CD paper;
- ``image_mean_empty_0``: the same, but a metric of an image in which a ratio is 0/0 counts 0, as in the later scorer
  of the same authors.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from bitemporal.imagery.masks import IGNORE

Averaging = Literal["dataset", "image_mean", "image_mean_empty_0"]
AVERAGINGS: tuple[Averaging, ...] = ("dataset", "image_mean", "image_mean_empty_0")
METRIC_VERSION = 2
"""Raised whenever the same masks would be counted otherwise; results of different versions are not compared."""

Counts = npt.NDArray[np.int64]
"""Confusion counts ``[..., 4]``: true negatives, false positives, false negatives, true positives."""


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


def _ratio(above: npt.NDArray[np.float64], below: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)
    return result


def _columns(counts: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], ...]:
    values = np.asarray(counts, dtype=np.float64)
    return values[..., 0], values[..., 1], values[..., 2], values[..., 3]


def _of_class(
    counts: npt.ArrayLike, ratio: Callable[..., npt.NDArray[np.float64]], changed: bool
) -> npt.NDArray[np.float64]:
    tn, fp, fn, tp = _columns(counts)
    return ratio(tp, fp, fn) if changed else ratio(tn, fn, fp)


def _iou(
    tp: npt.NDArray[np.float64], fp: npt.NDArray[np.float64], fn: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    return _ratio(tp, tp + fp + fn)


def _f1(
    tp: npt.NDArray[np.float64], fp: npt.NDArray[np.float64], fn: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    return _ratio(2 * tp, 2 * tp + fp + fn)


def _precision(
    tp: npt.NDArray[np.float64], fp: npt.NDArray[np.float64], fn: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    return _ratio(tp, tp + fp)


def _recall(
    tp: npt.NDArray[np.float64], fp: npt.NDArray[np.float64], fn: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    return _ratio(tp, tp + fn)


_RATIOS = {"iou": _iou, "f1": _f1, "precision": _precision, "recall": _recall}


def _kappa(counts: npt.ArrayLike) -> npt.NDArray[np.float64]:
    tn, fp, fn, tp = _columns(counts)
    total = tn + fp + fn + tp
    observed = _ratio(tn + tp, total)
    expected = _ratio((tp + fp) * (tp + fn) + (tn + fn) * (tn + fp), total * total)
    return _ratio(observed - expected, 1 - expected)


def _metric(name: str, counts: npt.ArrayLike, empty: float) -> npt.NDArray[np.float64]:
    """One metric of each confusion matrix; a ratio 0/0 becomes ``empty``."""

    def filled(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.where(np.isnan(values), empty, values)

    def both(ratio: Callable[..., npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        return (filled(_of_class(counts, ratio, True)) + filled(_of_class(counts, ratio, False))) / 2

    kind, _, which = name.partition("_")
    if kind in _RATIOS and which in ("changed", "unchanged"):
        return filled(_of_class(counts, _RATIOS[kind], which == "changed"))
    tn, fp, fn, tp = _columns(counts)
    match name:
        case "miou":
            return both(_iou)
        case "macc":
            return both(_recall)
        case "mprecision":
            return both(_precision)
        case "mfscore":
            return both(_f1)
        case "oa":
            return filled(_ratio(tn + tp, tn + fp + fn + tp))
        case "kappa":
            return filled(_kappa(counts))
        case _:
            raise ValueError(f"unknown metric {name!r}, expected one of {METRICS}")


METRICS = (
    "iou_changed",
    "f1_changed",
    "precision_changed",
    "recall_changed",
    "iou_unchanged",
    "f1_unchanged",
    "precision_unchanged",
    "recall_unchanged",
    "miou",
    "macc",
    "mprecision",
    "mfscore",
    "oa",
    "kappa",
)
"""Names of all metrics: of the changed and the unchanged class, means over both, overall accuracy, Cohen's kappa."""


def selection_score(counts: npt.ArrayLike) -> float:
    """Dataset mIoU over the classes that occur: what checkpoints are chosen by.

    Args:
        counts: Confusion counts, N x 4 or already summed.

    Returns:
        In [0, 1]; NaN when no pixel is valid.
    """
    total = np.asarray(counts, dtype=np.float64).reshape(-1, 4).sum(0)
    ious = np.array([_of_class(total, _iou, True), _of_class(total, _iou, False)])
    return float(np.nanmean(ious)) if total.sum() else float("nan")


def metric_of(name: str, counts: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """One metric of each confusion matrix, ... x 4; NaN where a ratio is 0/0."""
    return _metric(name, counts, empty=float("nan"))


def image_metric(name: str, counts: npt.ArrayLike, averaging: Averaging = "image_mean") -> npt.NDArray[np.float64]:
    """One metric of every image.

    Args:
        name: One of ``METRICS``.
        counts: Confusion counts, ... x 4. Images without a valid pixel give NaN.
        averaging: Says what a ratio 0/0 counts: ``image_mean`` 1 for its class, ``image_mean_empty_0`` 0 for the
            whole metric; with ``dataset`` the metric is NaN.

    Returns:
        A value for each image.
    """
    values = np.asarray(counts, dtype=np.float64)
    found = _metric(name, values, empty=1.0 if averaging == "image_mean" else float("nan"))
    if averaging == "image_mean_empty_0":
        found = np.nan_to_num(found, nan=0.0)
    return np.where(values.sum(-1) > 0, found, np.nan)


def metrics(counts: npt.ArrayLike, averaging: Averaging) -> dict[str, float]:
    """All metrics of a set of images.

    Args:
        counts: Confusion counts of the images, N x 4. Images without a valid pixel do not count.
        averaging: ``dataset`` for one summed matrix (a metric whose class does not occur is NaN), else the mean over
            images.

    Returns:
        Every metric of ``METRICS`` by name, in [0, 1] (kappa in [-1, 1]); all NaN when no pixel is valid.
    """
    values = np.asarray(counts, dtype=np.float64).reshape(-1, 4)
    values = values[values.sum(-1) > 0]
    if not len(values):
        return {name: float("nan") for name in METRICS}
    if averaging == "dataset":
        return {name: float(_metric(name, values.sum(0), empty=float("nan"))) for name in METRICS}
    return {name: float(np.mean(image_metric(name, values, averaging))) for name in METRICS}
