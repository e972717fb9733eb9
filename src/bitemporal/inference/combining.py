"""Detectors built from detectors, which average several answers to one pair."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bitemporal.errors import OptionError
from bitemporal.inference.detector import Answer, Detector, check_detector
from bitemporal.inference.options import Augmentation, check_tiles


class Ensemble(Detector):
    """Several detectors; the answer is the mean of their probabilities."""

    def __init__(self, members: Sequence[Detector]) -> None:
        """Combine detectors.

        Args:
            members: The detectors, at least one.

        Raises:
            OptionError: When there is no member, or the members do not take images of the same bands and range.
        """
        if not members:
            raise OptionError("ensemble: found no member, expected at least one detector")
        for index, member in enumerate(members):
            check_detector(member, f"ensemble[{index}]")
        first, *others = [member.reading() for member in members]
        for other in others:
            ranges = {first.image_range, other.image_range} - {None}
            if (first.channels, first.bands) != (other.channels, other.bands) or len(ranges) > 1:
                raise OptionError(
                    f"ensemble: its members take different images ({first}; {other}); expected detectors that were "
                    "trained with the same bands and image_range, because they all see the same pixels"
                )
        self.members = list(members)

    def identity(self) -> dict[str, Any]:
        """The members' identities."""
        return {"ensemble": [member.identity() for member in self.members]}

    def answers(
        self, before: Sequence[Tensor], after: Sequence[Tensor], valid: Sequence[Tensor] | None = None
    ) -> list[Answer]:
        """Mean answers of the members; the part is named where all members agree."""
        return _means([member.answers(before, after, valid) for member in self.members])


class TestTimeAugmentation(Detector):
    """One detector that sees several views of every pair; its answers are transformed back and averaged."""

    __test__ = False  # nothing for pytest to collect

    def __init__(
        self, detector: Detector, augmentation: Augmentation | None = "flips", scales: Sequence[float] = (1.0,)
    ) -> None:
        """Wrap a detector.

        Args:
            detector: Any detector.
            augmentation: ``flips`` (4 views: unchanged, mirrored along each axis, and along both), ``rotations`` (4
                views by quarter turns), ``flips-rotations`` (all 8 symmetries of the square), or ``None``.
            scales: Factors from 0.1 to 10 by which the images are resized; every view is seen at every scale.

        Raises:
            OptionError: When there is no detector, no such augmentation or no scale, or a scale is out of range.
        """
        check_detector(detector)
        if augmentation not in _VIEWS:
            known = ", ".join(repr(name) for name in _VIEWS)
            raise OptionError(f"augmentation: found {augmentation!r}, expected one of {known}")
        if isinstance(scales, int | float):
            raise OptionError(f"scales: found {scales}, expected several numbers; give ({float(scales)},)")
        if not scales or not all(0.1 <= scale <= 10 for scale in scales):
            raise OptionError(f"scales: found {tuple(scales)}, expected at least one, each from 0.1 to 10")
        self.detector = detector
        self.members = [detector]
        self.augmentation = augmentation
        self.scales = tuple(scales)

    @property
    def multiple(self) -> int:
        """The detector's multiple, at every scale that is a simple fraction."""
        steps = [Fraction(scale).limit_denominator(8).denominator for scale in self.scales]
        return super().multiple * math.lcm(*steps)

    def identity(self) -> dict[str, Any]:
        """The detector's identity, and the views."""
        return {
            "augmentation": self.augmentation,
            "scales": list(self.scales),
            "detector": self.detector.identity(),
        }

    def answers(
        self, before: Sequence[Tensor], after: Sequence[Tensor], valid: Sequence[Tensor] | None = None
    ) -> list[Answer]:
        """Mean answers of all views; the part is named where all views agree."""
        answers_of_views = []
        for scale in self.scales:
            for view in _VIEWS[self.augmentation]:
                first, second = (
                    [_view(_resized(image.float(), scale), *view) for image in images] for images in (before, after)
                )
                counted = None
                if valid is not None:
                    counted = [_view(_resized(v[None].float(), scale), *view)[0] > 0.5 for v in valid]
                answers_of_views.append(
                    [
                        Answer(_sized(_view_back(answer.probability, *view), image.shape[-2:]), answer.part)
                        for answer, image in zip(self.detector.answers(first, second, counted), before, strict=True)
                    ]
                )
        return _means(answers_of_views)


class SlidingWindow(Detector):
    """One detector that sees images in square tiles; where tiles overlap, its answers are averaged.

    Tiles start at multiples of the stride; the last ones are moved back to end at the edge of the image. An image
    smaller than a tile is seen whole. mmsegmentation calls this slide inference.
    """

    def __init__(self, detector: Detector, tile: int, stride: int | None = None) -> None:
        """Wrap a detector.

        Args:
            detector: Any detector.
            tile: Side of the tiles in pixels.
            stride: Pixels from one tile to the next; the side of the tiles by default.

        Raises:
            OptionError: When the stride is not between 1 and the side of the tiles.
        """
        check_tiles(tile, stride)
        self.detector, self.tile, self.stride = detector, tile, tile if stride is None else stride
        self.members = [detector]

    def identity(self) -> dict[str, Any]:
        """The detector's identity, tile and stride."""
        return {"tile": self.tile, "stride": self.stride, "detector": self.detector.identity()}

    def answers(
        self, before: Sequence[Tensor], after: Sequence[Tensor], valid: Sequence[Tensor] | None = None
    ) -> list[Answer]:
        """Answer pairs one by one, all tiles of a pair in one batch; a part is named only for a pair of one tile."""
        answers = []
        for i, (first, second) in enumerate(zip(before, after, strict=True)):
            windows = [
                (..., slice(top, top + self.tile), slice(left, left + self.tile))
                for top in self._starts(first.shape[-2])
                for left in self._starts(first.shape[-1])
            ]
            counted = None if valid is None else [valid[i][window] for window in windows]
            tiles = self.detector.answers([first[w] for w in windows], [second[w] for w in windows], counted)
            total = tiles[0].probability.new_zeros(1, *first.shape[-2:])
            times = torch.zeros_like(total)
            for window, answer in zip(windows, tiles, strict=True):
                total[window] += answer.probability
                times[window] += 1
            answers.append(Answer(total / times, tiles[0].part if len(tiles) == 1 else None))
        return answers

    def _starts(self, length: int) -> list[int]:
        last = max(length - self.tile, 0)
        return [*range(0, last, self.stride), last]


_VIEWS: dict[Augmentation | None, list[tuple[int, bool]]] = {
    None: [(0, False)],
    "flips": [(0, False), (0, True), (2, False), (2, True)],
    "rotations": [(0, False), (1, False), (2, False), (3, False)],
    "flips-rotations": [(turns, mirror) for turns in range(4) for mirror in (False, True)],
}
"""Number of quarter turns, and whether the image is mirrored first."""


def _view(x: Tensor, turns: int, mirror: bool) -> Tensor:
    """A view of images ... x H x W."""
    return torch.rot90(x.flip(-1) if mirror else x, turns, (-2, -1))


def _view_back(x: Tensor, turns: int, mirror: bool) -> Tensor:
    """The inverse of ``_view``."""
    x = torch.rot90(x, -turns, (-2, -1))
    return x.flip(-1) if mirror else x


def _resized(image: Tensor, scale: float) -> Tensor:
    height, width = image.shape[-2:]
    size = max(1, round(scale * height)), max(1, round(scale * width))
    return _sized(image, size).clamp(0.0, 255.0)  # interpolation may leave the range by rounding errors


def _sized(image: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return F.interpolate(image[None], size=tuple(size), mode="bilinear", align_corners=False, antialias=True)[0]


def _means(answers_of_views: Sequence[Sequence[Answer]]) -> list[Answer]:
    """Mean answers of several detectors or views."""
    means = []
    for answers in zip(*answers_of_views, strict=True):
        parts = {answer.part for answer in answers}
        device = answers[0].probability.device
        total = torch.stack([answer.probability.to(device) for answer in answers]).mean(0)
        means.append(Answer(total, parts.pop() if len(parts) == 1 else None))
    return means
