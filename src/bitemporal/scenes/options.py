"""How a scene is read, predicted and drawn, and how one is cut into tiles."""

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from bitemporal.errors import OptionError
from bitemporal.inference.options import LARGEST_BATCH, LARGEST_TILE, check_threshold
from bitemporal.texts import harmless

GridChoice = Literal["before", "intersection", "union"]
Routing = Literal["tile", "scene"]

IGNORED = 127
"""Value of pixels that count nowhere in the label of a tile, next to 0 and 255."""


@dataclass(frozen=True, kw_only=True)
class DateOptions:
    """How the dates are read.

    Attributes:
        bands: Bands of a raster that become the detector's channels, counted from 1, as in 3,2,1; by default those
            that it was trained on.
        nodata: Value that means no data, overriding what the files say; as stored, before scale and offset.
        image_range: Values that map to 0 and 255, as in 0,4000, or such a pair for each channel; after scale and
            offset, where bands have such tags. By default 0 and 255 for 8 bits, else those that the detector was
            trained on, else percentiles 1 and 99 of both dates together.
        before_scaling: Scale and offset that turn the stored values of date 1 into physical ones, as in 0.0001,-0.1, or
            such a pair for each channel, overriding what the files say; 1,0 uses values as stored.
        after_scaling: The same for date 2.
    """

    bands: tuple[int, ...] | None = None
    nodata: float | None = None
    image_range: tuple[float, ...] | None = None
    before_scaling: tuple[float, ...] | None = None
    after_scaling: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class PlaceOptions:
    """Pixels that are left out.

    Attributes:
        within: Vector file (.gpkg, .geojson, .shp or .parquet) with the polygons of the area of interest; pixels whose
            centre lies outside are left out.
        mask: Rasters of one band, such as cloud masks, of one date or of each; pixels are left out where any of them
            is not 0.
        allow_vrt: Let VRTs read files outside their own folder and remote addresses, and open formats that may refer to
            other files, such as HDF5. Only for files that you trust.
    """

    within: str | None = None
    mask: list[str] | None = None
    allow_vrt: bool = False

    def __post_init__(self) -> None:
        """Take paths of any kind, and one mask by itself."""
        if self.within is not None:
            object.__setattr__(self, "within", os.fspath(self.within))
        if self.mask is not None:
            masks = [self.mask] if isinstance(self.mask, str | os.PathLike) else self.mask
            object.__setattr__(self, "mask", [os.fspath(mask) for mask in masks])

    def exclusion_files(self) -> tuple[str, ...]:
        """The files that say what is left out."""
        return (*((self.within,) if self.within else ()), *(self.mask or ()))

    def exclusion_tags(self) -> dict[str, str]:
        """Tags of rasters that name these files."""
        named = {"WITHIN": [self.within] if self.within else [], "MASK": self.mask or []}
        return {
            tag: ", ".join(harmless(Path(file).name, lines=False) for file in files)
            for tag, files in named.items()
            if files
        }


@dataclass(frozen=True, kw_only=True)
class MapOptions(PlaceOptions):
    """Map.

    Attributes:
        threshold: Probability above which a pixel is changed.
        minimum_area: Smallest area of a polygon in square metres, or in pixels for images without a georeference.
        smooth: Smooth the pixel steps in the outlines of polygons.
    """

    threshold: float = 0.5
    minimum_area: float = 0.0
    smooth: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            OptionError: When one cannot be used.
        """
        super().__post_init__()
        if not self.minimum_area >= 0:
            raise OptionError(f"minimum_area: found {self.minimum_area}, expected at least 0")
        check_threshold(self.threshold)


@dataclass(frozen=True, kw_only=True)
class SceneOptions(DateOptions, MapOptions):
    """How a scene is read and predicted.

    Attributes:
        grid: Area of the result, in pixels of date 1: all of date 1 (before), what both dates cover (intersection), or
            what either covers (union).
        register: Estimate one shift between the dates, and undo it.
        tile: Maximum side of a tile in pixels; by default 512, or more where the network needs it.
        overlap: Minimum number of pixels that neighbouring tiles share, in addition to the band in which they are
            blended.
        batch_size: Number of tiles predicted at once.
        routing: Whether Origin-Partition chooses a teacher for each tile, or one for the whole scene, by their CAR. A
            whole scene is predicted by the origin first.
    """

    grid: GridChoice = "before"
    register: bool = False
    tile: int | None = None
    overlap: int = 64
    batch_size: int = 4
    routing: Routing = "tile"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            OptionError: When one cannot be used.
        """
        super().__post_init__()
        for name, least, most in (
            ("tile", 1, LARGEST_TILE),
            ("overlap", 0, LARGEST_TILE),
            ("batch_size", 1, LARGEST_BATCH),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise OptionError(f"{name}: found {value}, expected at least {least} and at most {most:,}")
        for name, choices in (("grid", get_args(GridChoice)), ("routing", get_args(Routing))):
            if getattr(self, name) not in choices:
                raise OptionError(f"{name}: found {getattr(self, name)!r}, expected one of {', '.join(choices)}")


@dataclass(frozen=True, kw_only=True)
class TileOptions:
    """Tiles.

    Attributes:
        size: Height and width of the tiles, in pixels.
        stride: Pixels from one tile to the next; the size by default, so that tiles do not overlap.
        minimum_valid: Minimum share of a tile's pixels that have data on both dates and in the label. With 1, tiles
            with any pixel without data are left out, and no pixel of a label has to be ignored.
        allow_vrt: Let VRTs read files outside their own folder and remote addresses, and open formats that may refer to
            other files, such as HDF5. Only for files that you trust.
    """

    size: int = 256
    stride: int | None = None
    minimum_valid: float = 1.0
    allow_vrt: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            OptionError: When one cannot be used.
        """
        for name in ("size", "stride"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"{name}: found {value}, expected at least 1")
        if not 0 <= self.minimum_valid <= 1:
            raise OptionError(f"minimum_valid: found {self.minimum_valid}, expected a share from 0 to 1")


Options = TypeVar("Options", bound=PlaceOptions)


def make_options(kind: type[Options], given: Mapping[str, Any], others: Iterable[str] = ()) -> Options:
    """Options from the keywords of a call.

    Args:
        kind: Dataclass of the options.
        given: Keywords with their values.
        others: Further keywords of the call, which may have been meant.

    Raises:
        OptionError: When there is no such option, or a value cannot be used.
    """
    known = [field.name for field in fields(kind)]
    for name in sorted(given.keys() - set(known)):
        near = difflib.get_close_matches(name, [*known, *others])
        meant = f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(known)}"
        raise OptionError(f"{name}: no such option; {meant}")
    return kind(**given)
