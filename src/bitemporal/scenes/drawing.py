"""What the products of a scene are made with, besides its probabilities."""

from collections.abc import Mapping
from dataclasses import dataclass

from bitemporal.imagery.scale import ValueRange
from bitemporal.scenes.exclusion import Exclusion
from bitemporal.scenes.geometry import Grid
from bitemporal.scenes.grids import DateOnGrid, Shift
from bitemporal.scenes.options import MapOptions
from bitemporal.scenes.outputs import Outputs
from bitemporal.scenes.sources import Source


@dataclass(frozen=True)
class Dates:
    """Both dates on one grid.

    Attributes:
        before: Date 1.
        after: Date 2.
        grid: Pixels on which they are seen.
        ranges: Values of each channel that become 0 and 255.
        shift: How far date 2 lies off date 1; ``None`` when it was not registered.
    """

    before: Source
    after: Source
    grid: Grid
    ranges: ValueRange
    shift: Shift | None

    def open(self) -> tuple[DateOnGrid, DateOnGrid]:
        """Open both dates, for one thread."""
        return DateOnGrid(self.before, self.grid), DateOnGrid(self.after, self.grid, self.shift)


@dataclass(frozen=True)
class Drawing:
    """What the products are made with, besides the probabilities.

    Attributes:
        outputs: Files to write.
        options: Threshold, and how polygons are drawn.
        grid: Pixels of the map.
        tags: Tags of the rasters.
        exclusion: Pixels that are left out.
        dates: Both dates, for the picture.
    """

    outputs: Outputs
    options: MapOptions
    grid: Grid
    tags: Mapping[str, str]
    exclusion: Exclusion
    dates: Dates | None
