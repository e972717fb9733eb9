"""How a scene is read, predicted and drawn."""

from dataclasses import dataclass
from typing import Literal, get_args

from bitemporal.errors import OptionError

GridChoice = Literal["before", "intersection", "union"]
Routing = Literal["tile", "scene"]


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """How a scene is read, predicted and drawn.

    Attributes:
        grid: Area of the result, in pixels of date 1: all of date 1 (before), what both dates cover (intersection), or
            what either covers (union).
        bands: Bands of a raster to use, counted from 1, in the order red, green, blue, as in 3,2,1.
        nodata: Value that stands for no data, instead of what the files say.
        image_range: Values that map to 0 and 255, as in 0,4000, or such a pair for each of three channels; by default
            0 and 255 for 8 bits, else percentiles 1 and 99 of both dates together.
        register: Estimate one shift between the dates, and undo it.
        tile: Largest size of a tile's side in pixels; by default 512, or more where the network needs it.
        overlap: Least number of pixels that neighbouring tiles share, besides the band in which they are blended.
        batch_size: Number of tiles predicted at once.
        threshold: Probability above which a pixel is changed.
        routing: Whether Origin-Partition chooses a teacher for each tile, or one for the whole scene, by their CAR. A
            whole scene is predicted by the origin first.
        minimum_area: Smallest area of a polygon in square metres, or in pixels for images without a place.
        smooth: Smooth the stairs of pixels in the outlines of polygons.
    """

    grid: GridChoice = "before"
    bands: tuple[int, ...] | None = None
    nodata: float | None = None
    image_range: tuple[float, ...] | None = None
    register: bool = False
    tile: int | None = None
    overlap: int = 64
    batch_size: int = 4
    threshold: float = 0.5
    routing: Routing = "tile"
    minimum_area: float = 0.0
    smooth: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            OptionError: When one cannot be used.
        """
        for name, least in (("tile", 1), ("overlap", 0), ("batch_size", 1), ("minimum_area", 0)):
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise OptionError(f"{name}: found {value}, expected at least {least}")
        for name, choices in (("grid", get_args(GridChoice)), ("routing", get_args(Routing))):
            if getattr(self, name) not in choices:
                raise OptionError(f"{name}: found {getattr(self, name)!r}, expected one of {', '.join(choices)}")
        if not 0 <= self.threshold < 1:
            raise OptionError(f"threshold: found {self.threshold:g}, expected a probability from 0 to below 1")
