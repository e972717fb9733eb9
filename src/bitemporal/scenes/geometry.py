"""Where the pixels of a raster lie: its grid, and the north-up grid that it is warped to where it has none."""

import math
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT

from bitemporal.errors import DataError
from bitemporal.reading import reading
from bitemporal.remedies import as_typed, free_name

_WGS84 = CRS.from_epsg(4326)
"""The CRS of rational polynomial coefficients."""

_PIXELS = CRS.from_epsg(3857)
"""Stands in where neither date has a place: GDAL's warper needs a CRS, and the same on both sides changes nothing."""


_NEAR_180 = 170.0
"""Degrees from Greenwich beyond which longitudes are counted from the other side of the Earth."""


@dataclass(frozen=True)
class Grid:
    """Pixels on the ground.

    Attributes:
        crs: Coordinate reference system, ``None`` for images without a place.
        transform: Affine map from column and row to coordinates.
        width: Columns.
        height: Rows.
    """

    crs: CRS | None
    transform: Affine
    width: int
    height: int

    def summary(self) -> dict[str, Any]:
        """The pixels in JSON types."""
        return {
            "crs": None if self.crs is None else self.crs.to_string(),
            "transform": list(self.transform)[:6],
            "height": self.height,
            "width": self.width,
        }

    def describe(self) -> str:
        """Size, pixel size and CRS in words."""
        if self.crs is None:
            return f"{self.height} x {self.width} (no CRS)"
        pixel = f"{self.transform.a:g} x {-self.transform.e:g}"
        return f"{self.height} x {self.width} ({self.crs.to_string()}, pixels of {pixel})"

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top of what it covers, however its pixels are turned."""
        corners = [self.transform @ corner for corner in ((0, 0), (self.width, 0), (0, self.height))]
        corners.append(self.transform @ (self.width, self.height))
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def is_on(self, other: "Grid") -> bool:
        """Whether both have the same pixels."""
        return (self.width, self.height, self.crs) == (other.width, other.height, other.crs) and (
            self.transform.almost_equals(other.transform, precision=1e-6 * abs(other.transform.a))
        )

    def covers_the_same(self, other: "Grid") -> bool:
        """Whether both cover one area, to half of the larger pixel."""
        if self.crs != other.crs or self.crs is None:
            return False
        steps = (max(self.transform.a, other.transform.a), max(-self.transform.e, -other.transform.e))
        sides = enumerate(zip(self.bounds, other.bounds, strict=True))
        return all(abs(a - b) <= 0.5 * steps[i % 2] for i, (a, b) in sides)


def side_by_side(first: Grid, second: Grid) -> tuple[Grid, Grid]:
    """Two grids, whose longitudes are counted from 180 degrees where one of them lies there.

    Longitudes jump from 180 to -180 in the middle of what may be one place, or are those of 0 to 360 on one side.
    """
    within = all(-180 <= grid.bounds[0] and grid.bounds[2] <= 180 for grid in (first, second))
    if first.crs == second.crs and within:
        return first, second
    return _from_180(first), _from_180(second)


def _from_180(grid: Grid) -> Grid:
    left, _, right, _ = grid.bounds
    if grid.crs is None or not grid.crs.is_geographic or right - left > 180 or max(-left, right) < _NEAR_180:
        return grid
    turn = -180 if (left + right) / 2 > 0 else 180
    crs = CRS.from_string(f"{grid.crs.to_proj4()} +pm=180")
    return Grid(crs, Affine.translation(turn, 0) @ grid.transform, grid.width, grid.height)


def place(dataset: DatasetReader, path: str) -> tuple[Grid, str]:
    """The north-up grid of a raster, and why it has to be warped to lie on it; empty where it lies on it already.

    Raises:
        DataError: When it is said in part only, or impossible, or cannot be read.
    """
    with reading(
        path, DataError, "expected georeferenced pixels, or no georeference at all; restore or download it again"
    ):
        return _place(dataset, path)


def _place(dataset: DatasetReader, path: str) -> tuple[Grid, str]:
    transform, crs = dataset.transform, dataset.crs
    placed = transform != Affine.identity()
    points, points_crs = dataset.gcps
    if not placed and points and (points_crs or crs):
        return _suggested(dataset, path, points_crs or crs), "ground control points"
    if not placed and crs is None and dataset.rpcs:
        return _suggested(dataset, path, _WGS84), "rational polynomial coefficients"
    if not placed and crs is None:
        return Grid(None, Affine.identity(), dataset.width, dataset.height), ""
    if crs is None:
        degrees = max(abs(transform.c), abs(transform.f)) <= 180
        raise DataError(
            f"{path}: has a transform but no CRS; expected both: set the CRS, with its own code, as in "
            f"`rio edit-info {as_typed(path)} --crs EPSG:{4326 if degrees else 3857}`"
        )
    if not placed:
        raise DataError(
            f"{path}: has the CRS {crs.to_string()} but no transform; expected both: set the transform (pixel width, "
            f"0, left edge, 0, minus pixel height, top edge), with its own numbers, as in {_example(path, crs)}"
        )
    values = tuple(transform[:6])
    across, down = math.hypot(transform.a, transform.d), math.hypot(transform.b, transform.e)
    if not np.isfinite(values).all() or not 1e-3 * down < across < 1e3 * down or transform.determinant == 0:
        raise DataError(
            f"{path}: its transform {values} is impossible; set it (pixel width, 0, left edge, 0, minus pixel height, "
            f"top edge), with its own numbers, as in {_example(path, crs)}"
        )
    grid, reason = _upright(crs, transform, dataset.width, dataset.height)
    left, bottom, right, top = grid.bounds
    if crs.is_geographic and not (-90.1 <= bottom and top <= 90.1 and -540 <= left and right <= 540):
        raise DataError(
            f"{path}: reaches from {left:g}, {bottom:g} to {right:g}, {top:g} in {crs.to_string()}, which are not "
            "degrees of longitude and latitude; set the CRS that these coordinates are in, with its own code, as in "
            f"`rio edit-info {as_typed(path)} --crs EPSG:3857`"
        )
    return grid, reason


def _example(path: str, crs: CRS) -> str:
    """A command that sets a transform."""
    numbers = "0.0001, 0, 10, 0, -0.0001, 50" if crs.is_geographic else "10, 0, 300000, 0, -10, 4000000"
    return f"`rio edit-info {as_typed(path)} --transform '[{numbers}]'`"


def grid_of(dataset: DatasetReader, path: str) -> Grid:
    """The pixels of a raster as they are stored, south up or rotated too.

    Raises:
        DataError: When they are placed by points or coefficients, or their place is said in part only, or impossible.
    """
    grid, reason = place(dataset, path)
    if reason and is_placed_by_points(dataset):
        upright = free_name(Path(path).with_name(f"{Path(path).stem}-north-up.tif"))
        raise DataError(
            f"{path}: has {reason}; expected pixels with a transform: warp it, as in "
            f"`rio warp {as_typed(path)} {as_typed(upright)} --dst-crs {shlex.quote(str(grid.crs))}`, and use that file"
        )
    return Grid(grid.crs, dataset.transform, dataset.width, dataset.height)


def _upright(crs: CRS, transform: Affine, width: int, height: int) -> tuple[Grid, str]:
    """The north-up grid around pixels, of pixels of the same size, and how these lie otherwise."""
    across, down = math.hypot(transform.a, transform.d), math.hypot(transform.b, transform.e)
    if abs(transform.b) <= 1e-6 * down and abs(transform.d) <= 1e-6 * across:
        if transform.a > 0 > transform.e:
            return Grid(crs, transform, width, height), ""
        reason = "south-up or mirrored pixels"
    else:
        reason = "rotated pixels"
    if abs(transform.d) > abs(transform.a):  # turned by more than 45 degrees: its columns run down
        across, down = down, across
    left, bottom, right, top = Grid(crs, transform, width, height).bounds
    columns, rows = (math.ceil(length - 1e-3) for length in ((right - left) / across, (top - bottom) / down))
    return Grid(crs, Affine(across, 0.0, left, 0.0, -down, top), columns, rows), reason


def _suggested(dataset: DatasetReader, path: str, crs: CRS) -> Grid:
    """The grid that GDAL suggests for a raster that is placed by points or coefficients."""
    try:
        with closing(WarpedVRT(dataset, src_crs=crs)) as warped:
            return Grid(warped.crs, warped.transform, warped.width, warped.height)
    except RasterioError as error:
        raise DataError(
            f"{path}: its ground control points or coefficients give no usable georeference ({error}); correct them, "
            "or give a raster that is rectified"
        ) from error


@contextmanager
def north_up(
    dataset: DatasetReader, path: str, nodata: float | None, nearest: bool = False
) -> Iterator[DatasetReader | WarpedVRT]:
    """A raster on its north-up grid: itself, or warped while it is read.

    Args:
        dataset: The raster.
        path: Its path.
        nodata: Value that stands for no data, instead of what the file says.
        nearest: See ``warped_to``.

    Raises:
        DataError: See ``place``.
    """
    grid, reason = place(dataset, path)
    if not reason:
        yield dataset
    elif is_placed_by_points(dataset):  # GDAL takes points and coefficients for its own grid only
        with closing(WarpedVRT(dataset, src_crs=grid.crs, **_warping(dataset, nodata, nearest))) as warped:
            yield warped
    else:
        # pixels keep their size, but GDAL would compare the sides of turned images, and blur.
        # closed, not left as a context: that would end GDAL's settings in the thread in which it was not entered
        with closing(warped_to(grid, dataset, nodata, nearest=nearest, XSCALE=1, YSCALE=1)) as warped:
            yield warped


def is_placed_by_points(dataset: DatasetReader) -> bool:
    """Whether a raster that has a place has it from ground control points or coefficients."""
    return bool(dataset.transform == Affine.identity())


def warped_to(
    grid: Grid,
    dataset: DatasetReader | WarpedVRT,
    nodata: float | None = None,
    shift: tuple[float, float] = (0.0, 0.0),
    nearest: bool = False,
    **settings: Any,  # noqa: ANN401  GDAL's options of warping
) -> WarpedVRT:
    """A raster with a transform on a grid, warped while it is read.

    Args:
        grid: The grid.
        dataset: The raster.
        nodata: Value that stands for no data, instead of what the raster says.
        shift: Columns and rows of the grid by which it is read from further on.
        nearest: Take the nearest pixel, and values that stand for no data like any other; else pixels are interpolated
            (bilinear), and what has no data stays apart.
        **settings: Options of GDAL's warping.
    """
    own = target = grid
    if grid.crs is not None:
        own, target = side_by_side(Grid(dataset.crs, dataset.transform, dataset.width, dataset.height), grid)
    return WarpedVRT(
        dataset,
        src_crs=own.crs or _PIXELS,
        src_transform=own.transform,
        crs=target.crs or _PIXELS,
        transform=target.transform @ Affine.translation(*shift),
        width=grid.width,
        height=grid.height,
        **_warping(dataset, nodata, nearest),
        **settings,
    )


def _warping(dataset: DatasetReader | WarpedVRT, nodata: float | None, nearest: bool) -> dict[str, Any]:
    """How pixels are resampled, and what becomes of those without data: an alpha band says where pixels are."""
    has_alpha = any(kind.name == "alpha" for kind in dataset.colorinterp)
    marks: dict[str, Any] = {} if has_alpha else {"add_alpha": True}
    if nearest:
        return {"resampling": Resampling.nearest, "tolerance": 1e-3, "src_nodata": None, "nodata": None, **marks}
    nodata = dataset.nodata if nodata is None else nodata
    if nodata is not None:
        marks = {"src_nodata": nodata, "nodata": nodata}
    return {"resampling": Resampling.bilinear, "tolerance": 0.05, **marks}


@contextmanager
def on_grid(grid: Grid, dataset: DatasetReader, path: str, nodata: float | None) -> Iterator[DatasetReader | WarpedVRT]:
    """A raster on the grid of its date: as it is, north up, or resampled to the date's finest pixels."""
    with ExitStack() as stack:
        upright = stack.enter_context(north_up(dataset, path, nodata))
        own = Grid(upright.crs, upright.transform, upright.width, upright.height)
        if grid.crs is None or own.is_on(grid):
            yield upright
        else:
            yield stack.enter_context(closing(warped_to(grid, upright, nodata)))
