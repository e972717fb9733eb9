"""The common grid of both dates, and windows of a date on it."""

import math
import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader
from rasterio.transform import array_bounds
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from bitemporal.errors import DataError
from bitemporal.imagery.physical import to_physical
from bitemporal.reading import reading
from bitemporal.remedies import as_typed, free_name
from bitemporal.scenes.geometry import Grid, on_grid, side_by_side, warped_to
from bitemporal.scenes.options import GridChoice
from bitemporal.scenes.sources import Source, is_remote, open_image, reading_pixels

_ALIGNED = 1e-3
"""Grids that lie less than this part of a pixel apart count as aligned."""

_MOST_TIMES = 50.0
"""Ratio of the dates' pixel sizes above which something must be wrong."""


class Shift(NamedTuple):
    """How far date 2 lies off date 1, in pixels of date 1: where date 1 shows a thing, date 2 shows it this far on."""

    columns: float
    rows: float


def common_grid(before: Source, after: Source, choice: GridChoice = "before") -> Grid:
    """The grid on which both dates are compared: the pixels of date 1, over the area that is asked for.

    Args:
        before: Date 1.
        after: Date 2.
        choice: All of date 1, what both dates cover, or what either covers.

    Raises:
        DataError: When the dates do not overlap, or only one of them has a place on the ground.
    """
    first, second = before.grid, after.grid
    if (first.crs is None) != (second.crs is None):
        lost, kept = (before, after) if first.crs is None else (after, before)
        raise DataError(
            f"{lost.describe()}: has no CRS, but {kept.describe()} has {kept.grid.crs}; expected both or neither"
            + _same_area(lost, kept.grid)
        )
    if first.crs is None:
        if (first.height, first.width) != (second.height, second.width):
            raise DataError(
                f"{before.describe()} is {first.describe()}, {after.describe()} {second.describe()}; images without a "
                "georeference must have the same size: crop or resample one, or give both a CRS and a transform"
            )
        return first
    left, top, right, bottom = _extent_on(first, after)
    if min(right, first.width) <= max(left, 0) or min(bottom, first.height) <= max(top, 0):
        raise DataError(
            f"{before.describe()} and {after.describe()} do not overlap: {first.describe()} against "
            f"{second.describe()}, which is {abs(left):.0f} columns and {abs(top):.0f} rows away; check that they "
            "show the same place and that their CRS are right"
        )
    if choice == "before":
        return first
    inner = choice == "intersection"
    low, high, down, up = (max, min, math.ceil, math.floor) if inner else (min, max, math.floor, math.ceil)
    x0, y0 = low(0, _whole(left, down)), low(0, _whole(top, down))
    x1, y1 = high(first.width, _whole(right, up)), high(first.height, _whole(bottom, up))
    if x1 <= x0 or y1 <= y0:
        raise DataError(
            f"{before.describe()} and {after.describe()}: their overlap is less than a pixel of {first.describe()}; "
            "check that they show the same place"
        )
    return Grid(first.crs, first.transform @ Affine.translation(x0, y0), x1 - x0, y1 - y0)


def _same_area(source: Source, grid: Grid) -> str:
    """What gives a date without a place the area of a grid; empty where its files cannot be written."""
    if is_remote(source.files):
        return ""
    across, down = grid.width / source.grid.width, grid.height / source.grid.height
    transform = list(grid.transform @ Affine.scale(across, down))[:6]
    commands = " and ".join(
        f"`rio edit-info {as_typed(file)} --crs {shlex.quote(str(grid.crs))} --transform '{transform}'`"
        for file in source.files
    )
    return f": if both show exactly the same area, {commands}"


def _whole(value: float, rounding: Callable[[float], int]) -> int:
    """Round a pixel edge, unless it is one already."""
    nearest = round(value)
    return nearest if abs(value - nearest) < _ALIGNED else rounding(value)


def _extent_on(grid: Grid, source: Source) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a date in pixels of a grid."""
    with reading(source.describe(), DataError, f"its extent cannot be converted to {grid.crs}: check its CRS"):
        grid, other = side_by_side(grid, source.grid)
        bounds = other.bounds
        if other.crs != grid.crs:
            bounds = transform_bounds(other.crs, grid.crs, *bounds, densify_pts=21)
    if not np.isfinite(bounds).all():
        raise DataError(
            f"{source.describe()}: its extent cannot be expressed in {grid.crs}; check its CRS and transform"
        )
    inverse = ~grid.transform
    left, top = inverse @ (bounds[0], bounds[3])
    right, bottom = inverse @ (bounds[2], bounds[1])
    times = max((right - left) / other.width, other.width / max(right - left, 1e-9))
    if times > _MOST_TIMES:
        raise DataError(
            f"{source.describe()}: its pixels are {times:.0f} times larger or smaller than those of date 1; check the "
            f"CRS and transforms, or resample it to pixels of a similar size{_like_size(source, grid)}"
        )
    return left, top, right, bottom


def _like_size(source: Source, grid: Grid) -> str:
    """What gives a date the pixels of a grid, as the end of a sentence; empty where its files are out of reach."""
    if is_remote(source.files):
        return ""
    crs, bounds = shlex.quote(str(grid.crs)), " ".join(map(repr, array_bounds(grid.height, grid.width, grid.transform)))
    copies = [free_name(Path(file).with_name(f"{Path(file).stem}-like.tif")) for file in source.files]
    commands = " and ".join(
        f"`rio warp {as_typed(file)} {as_typed(copy)} --dst-crs {crs} --dst-bounds {bounds} "
        f"--res {grid.transform.a!r} --res {-grid.transform.e!r} --resampling average`"
        for file, copy in zip(source.files, copies, strict=True)
    )
    return f": {commands}, and use what it writes"


def _alignment(source: Grid, grid: Grid) -> tuple[int, int] | None:
    """Column and row of the common grid's corner in a file; ``None`` where resampling is needed."""
    if source.crs != grid.crs:
        return None
    source, grid = side_by_side(source, grid)
    inverse = ~source.transform
    left, top = inverse @ (grid.transform.c, grid.transform.f)
    right, bottom = inverse @ (grid.transform @ (grid.width, grid.height))
    column, row = round(left), round(top)
    off = (left - column, top - row, right - (column + grid.width), bottom - (row + grid.height))
    return (column, row) if max(map(abs, off)) < _ALIGNED else None


class DateOnGrid(ExitStack):
    """A date seen on the common grid. Every thread needs its own, as open files are not shared."""

    def __init__(self, source: Source, grid: Grid, shift: Shift | None = None) -> None:
        """Open the files.

        Args:
            source: The date.
            grid: The common grid.
            shift: How far the date lies off; it is undone.
        """
        super().__init__()
        self.source = source
        self.grid = grid
        self._files: dict[str, DatasetReader | WarpedVRT] = {}
        self._aligned = None if shift or source.nodata is not None else _alignment(source.grid, grid)
        for path in source.files:
            with reading_pixels(path):
                opened = self.enter_context(open_image(path, source.allow_vrt))
                dataset = self.enter_context(on_grid(source.grid, opened, path, source.nodata))
                self._files[path] = dataset if self._aligned else self._warped(dataset, shift)

    def _warped(self, dataset: DatasetReader | WarpedVRT, shift: Shift | None) -> WarpedVRT:
        """The file on the common grid, warped while it is read."""
        # what belongs to a pixel of the grid lies off by the shift, and is read from there
        return self.enter_context(closing(warped_to(self.grid, dataset, self.source.nodata, shift or Shift(0.0, 0.0))))

    def read(
        self, window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Values and validity of a window of the common grid, which lies within it.

        Args:
            window: Columns and rows of the grid.
            shape: Height and width to decimate to; by default those of the window.

        Returns:
            C x h x w after scale and offset, zero where not valid, and h x w. Without scale and offset they have the
            files' type, else float64.

        Raises:
            DataError: When pixels cannot be read.
        """
        shape = shape or (int(window.height), int(window.width))
        samples = np.zeros((len(self.source.channels), *shape), dtype=self.source.dtype)
        valid = np.zeros(shape, dtype=np.bool_)
        target, inside, size = self._clip(window, shape)
        if 0 in size:
            return samples, valid
        valid[target] = True
        for path, dataset in self._files.items():
            indices = [i for i, (file, _) in enumerate(self.source.channels) if file == path]
            bands = [self.source.channels[i][1] for i in indices]
            with reading_pixels(path):
                values = dataset.read(bands, window=inside, out_shape=(len(bands), *size))
                if self._aligned is None or _marks_nodata(dataset, bands):
                    valid[target] &= dataset.dataset_mask(window=inside, out_shape=size) > 0
            samples[(indices, *target)] = values
        valid &= np.isfinite(samples).all(axis=0)
        if self.source.scaling is not None:
            samples = to_physical(samples, self.source.scaling, axis=0)
        samples[:, ~valid] = 0
        return samples, valid

    def _clip(self, window: Window, shape: tuple[int, int]) -> tuple[tuple[slice, slice], Window, tuple[int, int]]:
        """The part of a window that lies in the file: where it goes, where it comes from, and its shape."""
        if self._aligned is None:  # warped files cover the whole grid
            return (slice(None), slice(None)), window, shape
        own, (column, row) = self.source.grid, self._aligned
        left, top = int(window.col_off) + column, int(window.row_off) + row
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + int(window.width), own.width), min(top + int(window.height), own.height)
        x1, y1 = max(x0, x1), max(y0, y1)
        across, down = shape[1] / window.width, shape[0] / window.height
        rows = slice(round((y0 - top) * down), round((y1 - top) * down))
        columns = slice(round((x0 - left) * across), round((x1 - left) * across))
        return (rows, columns), Window(x0, y0, x1 - x0, y1 - y0), (rows.stop - rows.start, columns.stop - columns.start)

    def read_overview(self, side: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Values and validity of the whole grid, decimated to at most so many pixels on its longer side."""
        height, width = self.grid.height, self.grid.width
        shrink = max(1.0, max(height, width) / side)
        shape = max(1, round(height / shrink)), max(1, round(width / shrink))
        return self.read(Window(0, 0, width, height), shape)


def _marks_nodata(dataset: DatasetReader, bands: Sequence[int]) -> bool:
    """Whether a file marks pixels without data itself, by a value, a mask, or alpha that is not used as data."""
    # GDAL takes the fourth of four bands for alpha, whatever it holds
    is_alpha_data = any(dataset.colorinterp[band - 1] == ColorInterp.alpha for band in bands)
    return not is_alpha_data and any(MaskFlags.all_valid not in flags for flags in dataset.mask_flag_enums)


def windows_on(grid: Grid, count: int, side: int) -> Sequence[Window]:
    """At most count x count windows of a size, spread evenly over a grid."""

    def starts(length: int) -> list[int]:
        last = max(length - side, 0)
        number = min(count, max(1, length // side))
        return [round(last * i / max(number - 1, 1)) for i in range(number)]

    return [
        Window(x, y, min(side, grid.width), min(side, grid.height))
        for y in starts(grid.height)
        for x in starts(grid.width)
    ]
