"""Pixels that are left out of a result: those outside an area of interest, and those that masks mark.

A pixel outside the area (``within``) is seen by the network and left out of what it says. What a mask marks, such as a
cloud, is hidden from the network too, as pixels without data are.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import array_bounds
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from bitemporal.errors import DataError
from bitemporal.files import not_there
from bitemporal.scenes.geometry import Grid
from bitemporal.scenes.options import PlaceOptions
from bitemporal.scenes.sources import open_raster, unreadable_pixels
from bitemporal.scenes.vectors import PolygonsOnGrid

_PIXELS = CRS.from_epsg(3857)
"""Stands in where nothing has a place: GDAL's warper needs a CRS, and the same on both sides changes nothing."""


class RasterOnGrid(ExitStack):
    """One band of a raster on the pixels of a grid, by the nearest pixel. Every thread needs its own."""

    def __init__(self, path: str | os.PathLike[str], grid: Grid, option: str, band: int | None = None) -> None:
        """Open the file.

        Args:
            path: A raster of one band, alpha apart.
            grid: The pixels.
            option: What the file was given as, for messages.
            band: The band that is read, from 1, of a file with several.

        Raises:
            DataError: When it cannot be used.
        """
        super().__init__()
        self.name = f"{option}: {path}"
        if "://" not in str(path) and not str(path).startswith("/vsi") and not Path(path).exists():
            raise DataError(f"{option}: {not_there(path, 'file')}; expected a raster: correct the path")
        dataset = self._file = open_raster(os.fspath(path))
        self.callback(dataset.close)
        bands = [band for band, kind in enumerate(dataset.colorinterp, start=1) if kind != ColorInterp.alpha]
        if band is not None:
            bands = [number for number in bands if number == band] or bands
        if len(bands) != 1:
            raise DataError(f"{self.name} has {len(bands)} bands; expected one: write the band that counts alone")
        self.nodata = dataset.nodata
        if dataset.crs is None and grid.crs is not None:
            raise DataError(
                f"{self.name}: has no CRS, but the other pixels have {grid.crs}; expected a place on the ground: if "
                f"its coordinates are of that CRS, `rio edit-info --crs {grid.crs.to_string()} {path}` says so"
            )
        if dataset.crs is not None and grid.crs is None:
            raise DataError(
                f"{self.name}: has the CRS {dataset.crs}, but the other pixels have none; expected both or neither: "
                f"`rio edit-info --unset-crs {path}` leaves its pixels alone"
            )
        if grid.crs is None and (dataset.height, dataset.width) != (grid.height, grid.width):
            raise DataError(
                f"{self.name}: is {dataset.height} x {dataset.width}, but the other pixels are {grid.height} x "
                f"{grid.width}; without a place on the ground both need one size: crop or resample it"
            )
        place: dict[str, Any] = {} if grid.crs is not None else {"src_crs": _PIXELS, "src_transform": grid.transform}
        marks: dict[str, Any] = {} if ColorInterp.alpha in dataset.colorinterp else {"add_alpha": True}
        try:
            self._warped = self.enter_context(
                WarpedVRT(
                    dataset,
                    crs=grid.crs or _PIXELS,
                    transform=grid.transform,
                    width=grid.width,
                    height=grid.height,
                    resampling=Resampling.nearest,
                    src_nodata=None,  # a mask may well call its 0 no data
                    nodata=None,
                    tolerance=1e-3,  # pixels; rasterio cannot take 0
                    **place,
                    **marks,
                )
            )
        except (CRSError, RasterioError) as error:
            self.close()
            raise DataError(
                f"{self.name}: cannot be brought to {grid.describe()} ({error}); check its CRS and transform"
            ) from error
        self._band, self.grid = bands[0], grid

    def read(
        self, window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Values of a window of the grid, whatever the file calls no data, and where the file has a pixel.

        Args:
            window: Columns and rows of the grid.
            shape: Height and width to decimate to; by default those of the window.

        Raises:
            DataError: When pixels cannot be read.
        """
        shape = shape or (int(window.height), int(window.width))
        try:
            values = self._warped.read(self._band, window=window, out_shape=shape)
            inside = self._warped.dataset_mask(window=window, out_shape=shape) > 0
        except RasterioError as error:
            raise unreadable_pixels(self.name, error) from error
        return values, inside

    def check_overlap(self) -> None:
        """See that the file and the grid overlap.

        Raises:
            DataError: When they do not.
        """
        grid, file = self.grid, self._file
        if grid.crs is None:  # of one size
            return
        # of a file that is stored south up or mirrored, the bounds are turned about
        (west, east), (south, north) = sorted(file.bounds[::2]), sorted(file.bounds[1::2])
        own = transform_bounds(file.crs, grid.crs, west, south, east, north, densify_pts=21)
        left, bottom, right, top = array_bounds(grid.height, grid.width, grid.transform)
        if not (own[0] < right and left < own[2] and own[1] < top and bottom < own[3]):
            lies = "{:.6g} to {:.6g}, {:.6g} to {:.6g}"
            raise DataError(
                f"{self.name} does not overlap the pixels: it lies in {lies.format(own[0], own[2], own[1], own[3])}, "
                f"they in {lies.format(left, right, bottom, top)} ({grid.crs.to_string()}); check that it shows the "
                "same place and that its CRS is right"
            )


@dataclass(frozen=True)
class Exclusion:
    """What is left out of a result on a grid.

    Attributes:
        grid: The pixels.
        area: Area of interest; everything without one.
        masks: Rasters that mark pixels to leave out.
    """

    grid: Grid
    area: PolygonsOnGrid | None = None
    masks: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: PlaceOptions, grid: Grid) -> "Exclusion":
        """Read the area, and check the masks.

        Raises:
            DataError: When a file cannot be used, or lies beside the grid.
        """
        area = None if options.within is None else PolygonsOnGrid(options.within, grid, "within")
        masks = tuple(options.mask or ())
        for mask in masks:
            with RasterOnGrid(mask, grid, "mask") as raster:
                raster.check_overlap()
        return cls(grid, area, masks)

    def __bool__(self) -> bool:
        """Whether anything is left out."""
        return self.area is not None or bool(self.masks)

    def open(self) -> "OpenExclusion":
        """Open the masks, for one thread."""
        return OpenExclusion(self)


class OpenExclusion(ExitStack):
    """What is left out, window by window."""

    def __init__(self, exclusion: Exclusion) -> None:
        """Open the masks."""
        super().__init__()
        self._area = exclusion.area
        self._masks: Sequence[RasterOnGrid] = [
            self.enter_context(RasterOnGrid(mask, exclusion.grid, "mask")) for mask in exclusion.masks
        ]

    def inside(self, window: Window, shape: tuple[int, int] | None = None) -> npt.NDArray[np.bool_]:
        """Pixels of a window that lie in the area; see ``PolygonsOnGrid.covers``."""
        if self._area is None:
            return np.ones(shape or (int(window.height), int(window.width)), np.bool_)
        return self._area.covers(window, shape)

    def clear(self, window: Window, shape: tuple[int, int] | None = None) -> npt.NDArray[np.bool_]:
        """Pixels of a window that no mask marks; NaN marks too, and no pixel beside a mask is marked."""
        clear = np.ones(shape or (int(window.height), int(window.width)), np.bool_)
        for mask in self._masks:
            values, known = mask.read(window, shape)
            clear &= ~(known & (values != 0))
        return clear

    def kept(self, window: Window, shape: tuple[int, int] | None = None) -> npt.NDArray[np.bool_]:
        """Pixels of a window that are not left out."""
        return self.inside(window, shape) & self.clear(window, shape)
