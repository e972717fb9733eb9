"""How a scene is cut into tiles, and how their answers become one map without seams.

Every tile has a core, and around it a margin that only gives context. Neighbouring answers are blended over a band on
both sides of the border between their cores, with the weights of a Hann window, which add up to one. What is nearer to
a tile's own edge is dropped. Tiles begin at multiples of the network's stride, whatever their size, so that it sees
the scene in the same phase everywhere.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from bitemporal.errors import OptionError

_Value = TypeVar("_Value", bound=np.generic)

USUAL_TILE = 512

BLEND = 16
"""Width in pixels of the band in which neighbouring tiles are blended."""


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis.

    Attributes:
        length: Pixels of the scene.
        core: Pixels that a tile answers for.
        margin: Context on both sides of a core.
    """

    length: int
    core: int
    margin: int

    @property
    def tile(self) -> int:
        """Pixels of a tile."""
        return self.core + 2 * self.margin

    @property
    def count(self) -> int:
        """Number of tiles."""
        return math.ceil(self.length / self.core)

    def start(self, index: int) -> int:
        """Where a tile begins; negative where it begins before the scene."""
        return index * self.core - self.margin

    def answered(self, index: int) -> tuple[int, int]:
        """The first pixel for which a tile's answer has a weight, and the one after the last."""
        low = 0 if index == 0 else index * self.core - BLEND // 2
        high = self.length if index == self.count - 1 else (index + 1) * self.core + BLEND // 2
        return low, min(high, self.length)

    def finished(self, index: int) -> int:
        """The pixel before which nothing changes once this tile and all earlier ones are answered."""
        return self.length if index == self.count - 1 else min(self.length, (index + 1) * self.core - BLEND // 2)

    def weights(self, index: int) -> npt.NDArray[np.float32]:
        """Weights of the pixels of ``answered``; those of all tiles add up to one at every pixel."""
        low, high = self.answered(index)
        weights = np.ones(high - low)
        # a Hann window's flank, sampled between its ends: symmetric, so that both neighbours' add up to one
        flank = np.sin(np.pi / 2 * (np.arange(BLEND) + 0.5) / BLEND) ** 2
        if index > 0:
            weights[:BLEND] *= flank[: len(weights)]
        if index < self.count - 1:
            border = (index + 1) * self.core - BLEND // 2
            weights[border - low :] *= flank[::-1][: high - border]
        return weights.astype(np.float32)


def axis(length: int, tile: int | None, overlap: int, multiple: int) -> Axis:
    """Cut an axis into tiles of equal cores, no larger than asked for.

    A scene that fits into one tile is one tile, without margins.

    Args:
        length: Pixels of the scene.
        tile: Largest size of a tile in pixels; by default 512, or more where the margins take up half of that.
        overlap: Minimum number of pixels that neighbouring tiles share, in addition to the band in which they are
            blended.
        multiple: Tile, core and margin are multiples of this.

    Raises:
        OptionError: When the tile is too small for its margins.
    """
    margin = multiple * math.ceil((overlap + BLEND) / 2 / multiple)
    tile = max(USUAL_TILE, 4 * margin) if tile is None else tile
    whole = multiple * math.ceil(length / multiple)
    if whole <= tile:
        return Axis(length, whole, 0)
    most = tile // multiple * multiple - 2 * margin
    if most < max(multiple, BLEND):
        needed = 2 * margin + multiple * math.ceil(max(multiple, BLEND) / multiple)
        raise OptionError(
            f"tile: is {tile}, too small for an overlap of {overlap} (margins of {margin} on both sides, multiples of "
            f"{multiple}); expected at least {needed}; or choose a smaller overlap"
        )
    number = math.ceil(length / most)
    core = min(most, multiple * math.ceil(max(length / number, BLEND) / multiple))
    return Axis(length, core, margin)


@dataclass(frozen=True)
class Tiling:
    """Tiles of a scene, in strips that run along its shorter side.

    Attributes:
        rows: Tiles from top to bottom.
        columns: Tiles from left to right.
    """

    rows: Axis
    columns: Axis

    @property
    def strips_are_rows(self) -> bool:
        """Whether a strip is a row of tiles; else it is a column."""
        return self.columns.length <= self.rows.length

    @property
    def across(self) -> Axis:
        """The axis on which the strips follow each other, the longer one."""
        return self.rows if self.strips_are_rows else self.columns

    @property
    def along(self) -> Axis:
        """The axis on which the tiles of a strip follow each other."""
        return self.columns if self.strips_are_rows else self.rows

    def tiles(self, strip: int) -> Iterator[tuple[int, int]]:
        """Row and column of the tiles of a strip."""
        for index in range(self.along.count):
            yield (strip, index) if self.strips_are_rows else (index, strip)


class Blend:
    """Sums the weighted answers to a strip's tiles, and keeps what the next strip is blended with.

    Arrays lie as the strips do: the first axis is the one on which strips follow each other.
    """

    def __init__(self, tiling: Tiling, strip: int = 0, carried: npt.NDArray[np.float32] | None = None) -> None:
        """Begin with a strip.

        Args:
            tiling: Tiles of the scene.
            strip: The first strip.
            carried: What the strip before left for it.
        """
        self.tiling = tiling
        self.carried = np.zeros((0, tiling.along.length), np.float32) if carried is None else carried
        self._begin(strip)

    def _begin(self, strip: int) -> None:
        low, high = self.tiling.across.answered(strip)
        self.strip, self.start = strip, low
        self.sums = np.zeros((high - low, self.tiling.along.length), np.float32)
        self.sums[: len(self.carried)] = self.carried

    def own(self, index: int, tile: npt.NDArray[_Value]) -> tuple[slice, npt.NDArray[_Value]]:
        """Cut out the pixels of a tile that have a weight in the strip: their columns along it, and their values."""
        across, along = self.tiling.across, self.tiling.along
        (top, bottom), (left, right) = across.answered(self.strip), along.answered(index)
        y, x = across.start(self.strip), along.start(index)
        tile = tile if self.tiling.strips_are_rows else tile.T
        return slice(left, right), tile[top - y : bottom - y, left - x : right - x]

    def add(self, index: int, answer: npt.NDArray[np.float32]) -> None:
        """Add the answer to one tile of the strip, the whole tile, rows first."""
        columns, own = self.own(index, answer)
        weights = self.tiling.across.weights(self.strip)[:, None] * self.tiling.along.weights(index)
        self.sums[:, columns] += own * weights

    def finish(self) -> tuple[int, npt.NDArray[np.float32]]:
        """End the strip: its first pixel across, and all pixels that are final now; the rest waits for the next one."""
        final = self.tiling.across.finished(self.strip) - self.start
        start, done, self.carried = self.start, self.sums[:final], self.sums[final:].copy()
        if self.strip + 1 < self.tiling.across.count:
            self._begin(self.strip + 1)
        return start, done
