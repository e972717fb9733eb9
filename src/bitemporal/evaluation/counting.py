"""What is counted of one pair beside its confusion matrix: boundaries, objects, probabilities.

Counts, not scores: those of several pairs can be added up, and scores with intervals follow from them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bitemporal.imagery.masks import IGNORE

TOLERANCE = 3
"""Pixels that a boundary may lie off and still counts as found."""

OBJECT_SIZES = (64, 1024)
"""Pixels up to which an object is small, and medium; 8 x 8 and 32 x 32."""

SIZE_NAMES = ("small", "medium", "large")
BINS = 100
"""Of probabilities: bin ``k`` holds k/100 < p <= (k+1)/100, the first one 0 too."""

_BOUNDS = np.arange(1, BINS, dtype=np.float32) / np.float32(BINS)
_EIGHT = np.ones((3, 3), np.bool_)

Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shapes:
    """Boundaries and objects of one pair, or sums over several.

    Attributes:
        boundary: Pixels of the predicted boundary, those of them within the tolerance of the label's, pixels of the
            label's boundary, those of them within the tolerance of the predicted one; int64.
        objects: Rows small, medium, large (by ``OBJECT_SIZES``); columns found, missed, invented; int64.
    """

    boundary: Integers
    objects: Integers


def count_shapes(mask: npt.ArrayLike, label: npt.ArrayLike) -> Shapes:
    """Compare the boundaries and the objects of a mask with those of a label.

    A boundary pixel is a changed pixel with an unchanged, valid one above, below, left or right of it; the image's edge
    is none. Objects are changed pixels joined by sides or corners. A label's object is found when at least half of
    its pixels are predicted, else missed; a predicted object is invented when fewer than half of its pixels have
    changed.

    Args:
        mask: Predicted mask, H x W: 0 unchanged, anything else changed.
        label: Decoded change mask, H x W: 0, 1, or 255 to ignore.
    """
    target = np.asarray(label)
    valid = target != IGNORE
    predicted, true = (np.asarray(mask) != 0) & valid, (target != 0) & valid
    boundary, objects = np.zeros(4, np.int64), np.zeros((len(SIZE_NAMES), 3), np.int64)
    box = _bounding_box(predicted | true, TOLERANCE + 1)
    if box is None:
        return Shapes(boundary, objects)
    predicted, true, valid = predicted[box], true[box], valid[box]
    edges = [_boundary(changed, valid) for changed in (predicted, true)]
    for i, (edge, other) in enumerate((edges, edges[::-1])):
        boundary[2 * i] = np.count_nonzero(edge)
        boundary[2 * i + 1] = np.count_nonzero(edge & _dilated(other)) if boundary[2 * i] else 0
    sizes, overlaps = _overlaps(true, predicted)
    found = 2 * overlaps >= sizes
    objects[:, 0], objects[:, 1] = _by_size(sizes[found]), _by_size(sizes[~found])
    sizes, overlaps = _overlaps(predicted, true)
    objects[:, 2] = _by_size(sizes[2 * overlaps < sizes])
    return Shapes(boundary, objects)


def _bounding_box(mask: Mask, margin: int) -> tuple[slice, slice] | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return (
        slice(max(rows[0] - margin, 0), rows[-1] + margin + 1),
        slice(max(columns[0] - margin, 0), columns[-1] + margin + 1),
    )


def _boundary(changed: Mask, valid: Mask) -> Mask:
    unchanged = valid & ~changed
    near = np.zeros_like(changed)
    for step in (-1, 1):
        for axis in (0, 1):
            _or_shifted(near, unchanged, step, axis)
    return changed & near


def _or_shifted(target: Mask, source: Mask, step: int, axis: int) -> None:
    """Add a mask that is moved along an axis to another one."""
    there = [slice(None), slice(None)]
    here = [slice(None), slice(None)]
    there[axis], here[axis] = (
        (slice(step, None), slice(None, -step)) if step > 0 else (slice(None, step), slice(-step, None))
    )
    target[tuple(there)] |= source[tuple(here)]


def _dilated(mask: Mask) -> Mask:
    """Everything within ``TOLERANCE`` of a mask: the rows of a disc, each added at its height."""
    widened: dict[int, Mask] = {}
    result = np.zeros_like(mask)
    for height in range(-TOLERANCE, TOLERANCE + 1):
        width = int((TOLERANCE**2 - height**2) ** 0.5)
        if width not in widened:
            wide = mask.copy()
            for step in range(1, width + 1):
                _or_shifted(wide, mask, step, 1)
                _or_shifted(wide, mask, -step, 1)
            widened[width] = wide
        if height == 0:
            result |= widened[width]
        else:
            _or_shifted(result, widened[width], height, 0)
    return result


def _overlaps(objects: Mask, other: Mask) -> tuple[Integers, Integers]:
    """Pixels of each object, and how many of them are in another mask."""
    numbers, count = ndimage.label(objects, structure=_EIGHT)
    sizes = np.bincount(numbers[objects], minlength=count + 1)[1:]
    return sizes, np.bincount(numbers[objects & other], minlength=count + 1)[1:]


def _by_size(sizes: Integers) -> Integers:
    return np.bincount(np.searchsorted(OBJECT_SIZES, sizes), minlength=len(SIZE_NAMES))


@dataclass(frozen=True)
class ProbabilityCounts:
    """How often each probability of change was given, and how often it was right.

    Attributes:
        unchanged: Valid unchanged pixels by bin of their probability, ``BINS`` int64.
        changed: Changed pixels likewise.
        total: Sum of the probabilities in each bin, ``BINS`` float64.
    """

    unchanged: Integers
    changed: Integers
    total: npt.NDArray[np.float64]

    def __add__(self, other: "ProbabilityCounts") -> "ProbabilityCounts":
        """Counts of both together."""
        return ProbabilityCounts(
            self.unchanged + other.unchanged, self.changed + other.changed, self.total + other.total
        )


def count_probabilities(probability: npt.ArrayLike, label: npt.ArrayLike) -> ProbabilityCounts:
    """Count probabilities of change by what the label says.

    Args:
        probability: H x W in [0, 1].
        label: Decoded change mask, H x W: 0, 1, or 255 to ignore.
    """
    target = np.asarray(label)
    valid = target != IGNORE
    values, changed = np.asarray(probability, np.float32)[valid], target[valid] != 0
    bins = np.searchsorted(_BOUNDS, values, side="left")  # as `probability > threshold` does, in the same arithmetic
    counts = np.bincount(bins + BINS * changed, minlength=2 * BINS)
    total = np.bincount(bins, weights=values, minlength=BINS).astype(np.float64)
    return ProbabilityCounts(counts[:BINS], counts[BINS:], total)
