"""Counts of one pair beyond its confusion matrix: boundaries, objects, probabilities.

Counts, not scores: those of several pairs can be added up, and scores with intervals follow from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bitemporal.imagery.masks import IGNORE

TOLERANCE = 3
"""Distance in pixels within which a boundary counts as found."""

OBJECT_SIZES = (64, 1024)
"""Largest small object and largest medium object, in pixels: 8 x 8 and 32 x 32."""

SIZE_NAMES = ("small", "medium", "large")
FATES = ("found", "missed", "invented")
BINS = 100
"""Bins of probabilities: bin ``k`` holds k/100 < p <= (k+1)/100, and the first one also 0."""

_BOUNDS = np.arange(1, BINS, dtype=np.float32) / np.float32(BINS)
_EIGHT = np.ones((3, 3), np.bool_)
_BESIDE = ((-1, 0), (0, -1), (0, 1), (1, 0))
_REACH = range(-TOLERANCE, TOLERANCE + 1)
_DISC = tuple((y, x) for y in _REACH for x in _REACH if x**2 + y**2 <= TOLERANCE**2)

Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shapes:
    """Boundaries and objects of one pair, or sums over several.

    Attributes:
        boundary: Four int64 counts: pixels of the predicted boundary, those within the tolerance of the label's
            boundary, pixels of the label's boundary, and those within the tolerance of the predicted boundary.
        objects: 3 x 3 int64. Rows are ``SIZE_NAMES`` by ``OBJECT_SIZES``, columns ``FATES``.
    """

    boundary: Integers
    objects: Integers


def count_shapes(mask: npt.ArrayLike, label: npt.ArrayLike) -> Shapes:
    """Compare the boundaries and the objects of a mask with those of a label.

    A boundary pixel is a changed pixel with an unchanged, valid one above, below, left or right of it. The edge of the
    image is no boundary. Objects are changed pixels joined by sides or corners. An object of the label is found when
    at least half of its pixels are predicted, else missed. A predicted object is invented when fewer than half of its
    pixels have changed.

    Args:
        mask: Predicted mask, H x W: 0 unchanged, anything else changed.
        label: Decoded change mask, H x W: 0, 1, or 255 to ignore.
    """
    target = np.asarray(label)
    valid = target != IGNORE
    predicted, true = (np.asarray(mask) != 0) & valid, (target != 0) & valid
    boundary, objects = np.zeros(4, np.int64), np.zeros((len(SIZE_NAMES), len(FATES)), np.int64)
    box = _bounding_box(predicted | true, TOLERANCE + 1)
    if box is None:
        return Shapes(boundary, objects)
    predicted, true, valid = predicted[box], true[box], valid[box]
    edges = [changed & _moved(valid & ~changed, _BESIDE) for changed in (predicted, true)]
    for i, (edge, other) in enumerate((edges, edges[::-1])):
        boundary[2 * i] = np.count_nonzero(edge)
        boundary[2 * i + 1] = np.count_nonzero(edge & _moved(other, _DISC)) if boundary[2 * i] else 0
    sizes, overlaps = _overlaps(true, predicted)
    detected = 2 * overlaps >= sizes
    objects[:, 0], objects[:, 1] = _by_size(sizes[detected]), _by_size(sizes[~detected])
    sizes, overlaps = _overlaps(predicted, true)
    objects[:, 2] = _by_size(sizes[2 * overlaps < sizes])
    return Shapes(boundary, objects)


def _bounding_box(mask: Mask, margin: int) -> tuple[slice, ...] | None:
    boxes = ndimage.find_objects(mask.astype(np.uint8))
    return tuple(slice(max(side.start - margin, 0), side.stop + margin) for side in boxes[0]) if boxes else None


def _moved(mask: Mask, offsets: Sequence[tuple[int, int]]) -> Mask:
    """All pixels from which one of the offsets leads into a mask.

    ``ndimage.binary_dilation`` gives the same in ten times as long.
    """
    height, width = mask.shape
    padded = np.pad(mask, TOLERANCE)
    result = np.zeros_like(mask)
    for down, right in offsets:
        top, left = TOLERANCE + down, TOLERANCE + right
        result |= padded[top : top + height, left : left + width]
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
    """How often each probability of change was predicted, and how often it was right.

    Attributes:
        unchanged: Valid unchanged pixels by bin of their probability, ``BINS`` int64.
        changed: Changed pixels by bin of their probability, ``BINS`` int64.
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
