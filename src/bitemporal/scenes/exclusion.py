"""Pixels that are left out of a result: those outside an area of interest, and those that masks mark.

A pixel outside the area (``within``) is seen by the network and left out of what it says. What a mask marks, such as a
cloud, is hidden from the network too, as pixels without data are.
"""

import os
import shlex
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from bitemporal.errors import DataError
from bitemporal.files import not_there
from bitemporal.imagery.label_rules import LabelDecoding
from bitemporal.imagery.masks import without_data
from bitemporal.reading import reading
from bitemporal.remedies import as_typed
from bitemporal.scenes.geometry import Grid, is_placed_by_points, north_up, place, side_by_side, warped_to
from bitemporal.scenes.options import PlaceOptions
from bitemporal.scenes.sources import open_raster, reading_pixels
from bitemporal.scenes.vectors import VECTORS, PolygonsOnGrid


def _without_crs(path: str | os.PathLike[str]) -> str:
    """What takes the CRS from a file, as the end of a sentence; ``rio edit-info --unset-crs`` of rasterio 1.4 fails."""
    code = f"import rasterio as r; d = r.open({os.fspath(path)!r}, 'r+'); d.crs = r.CRS(); d.close()"
    return f": `python -c {shlex.quote(code)}` leaves its pixels alone"


class RasterOnGrid(ExitStack):
    """One band of a raster on the pixels of a grid, by the nearest pixel. Every thread needs its own."""

    def __init__(
        self, path: str | os.PathLike[str], grid: Grid, option: str, band: int | None = None, allow_vrt: bool = False
    ) -> None:
        """Open the file.

        Args:
            path: A raster of one band, alpha apart.
            grid: The pixels.
            option: What the file was given as, for messages.
            band: The band that is read, from 1, of a file with several.
            allow_vrt: Whether it may read whatever it names; see ``open_dataset``.

        Raises:
            DataError: When it cannot be used.
        """
        super().__init__()
        self.name = f"{option}: {path}"
        if "://" not in str(path) and not str(path).startswith("/vsi") and not Path(path).exists():
            raise DataError(f"{option}: {not_there(path, 'file')}; expected a raster: correct the path")
        if Path(path).suffix.lower() in VECTORS:
            raise DataError(
                f"{self.name} is a vector file; expected a raster of one band: burn its polygons into one (rasterio: "
                "features.rasterize); those of an area to keep are the option within"
            )
        dataset = self.enter_context(closing(open_raster(os.fspath(path), allow_vrt)))
        bands = [band for band, kind in enumerate(dataset.colorinterp, start=1) if kind != ColorInterp.alpha]
        if band is not None:
            bands = [number for number in bands if number == band] or bands
        if len(bands) != 1:
            raise DataError(f"{self.name} has {len(bands)} bands; expected one: write the band that counts alone")
        self.nodata = dataset.nodata
        placed = dataset.crs is not None or bool(dataset.gcps[0]) or dataset.rpcs is not None
        if not placed and grid.crs is not None:
            crs = shlex.quote(grid.crs.to_string())
            raise DataError(
                f"{self.name}: has no CRS, but the other pixels have {grid.crs}; expected a georeference: if "
                f"its coordinates are of that CRS, `rio edit-info {as_typed(path)} --crs {crs}` declares it"
            )
        if placed and grid.crs is None:
            raise DataError(
                f"{self.name}: has the CRS {dataset.crs or dataset.gcps[1]}, but the other pixels have none; expected "
                f"both or neither{_without_crs(path) if dataset.crs is not None else ''}"
            )
        if grid.crs is None and (dataset.height, dataset.width) != (grid.height, grid.width):
            raise DataError(
                f"{self.name}: is {dataset.height} x {dataset.width}, but the other pixels are {grid.height} x "
                f"{grid.width}; without a georeference both must have the same size: crop or resample it"
            )
        self._place = grid if grid.crs is None else place(dataset, os.fspath(path))[0]
        try:
            with reading(self.name, DataError, f"expected a place on {grid.describe()}: check its CRS and transform"):
                upright: DatasetReader | WarpedVRT = dataset
                if placed and is_placed_by_points(dataset):
                    upright = self.enter_context(north_up(dataset, os.fspath(path), None, nearest=True))
                # a mask may well call its 0 no data
                self._warped = self.enter_context(closing(warped_to(grid, upright, nearest=True)))
        except DataError:
            self.close()
            raise
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
        with reading_pixels(self.name):
            values = self._warped.read(self._band, window=window, out_shape=shape)
            inside = self._warped.dataset_mask(window=window, out_shape=shape) > 0
        return values, inside

    def read_label(
        self, window: Window, decoding: LabelDecoding
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_], int]:
        """Values of a label's window, and where it says something.

        Args:
            window: Columns and rows of the grid.
            decoding: What is stated about the values: one that it names counts, although the file calls it no data.

        Returns:
            The values; where they count; and the number of pixels that do not, as the file calls them no data.

        Raises:
            DataError: When pixels cannot be read.
        """
        values, known = self.read(window)
        if self.nodata is None or decoding.names(self.nodata):
            return values, known, 0
        unknown = known & (without_data(values, self.nodata) | (values != values))
        return values, known & ~unknown, int(unknown.sum())

    def check_overlap(self) -> None:
        """See that the file and the grid overlap.

        Raises:
            DataError: When they do not.
        """
        grid = self.grid
        if grid.crs is None:  # of one size
            return
        file, grid = side_by_side(self._place, self.grid)
        assert file.crs is not None and grid.crs is not None
        own = transform_bounds(file.crs, grid.crs, *file.bounds, densify_pts=21)
        left, bottom, right, top = grid.bounds
        if not (own[0] < right and left < own[2] and own[1] < top and bottom < own[3]):
            lies = "{:.6g} to {:.6g}, {:.6g} to {:.6g}"
            raise DataError(
                f"{self.name} does not overlap the pixels: it covers {lies.format(own[0], own[2], own[1], own[3])}, "
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
        allow_vrt: Whether these may read whatever they name.
    """

    grid: Grid
    area: PolygonsOnGrid | None = None
    masks: tuple[str, ...] = ()
    allow_vrt: bool = False

    @classmethod
    def of(cls, options: PlaceOptions, grid: Grid) -> "Exclusion":
        """Read the area, and check the masks.

        Raises:
            DataError: When a file cannot be used, or does not overlap the grid.
        """
        area = None if options.within is None else PolygonsOnGrid(options.within, grid, "within")
        masks = tuple(options.mask or ())
        for mask in masks:
            with RasterOnGrid(mask, grid, "mask", allow_vrt=options.allow_vrt) as raster:
                raster.check_overlap()
        return cls(grid, area, masks, options.allow_vrt)

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
            self.enter_context(RasterOnGrid(mask, exclusion.grid, "mask", allow_vrt=exclusion.allow_vrt))
            for mask in exclusion.masks
        ]

    def inside(self, window: Window, shape: tuple[int, int] | None = None) -> npt.NDArray[np.bool_]:
        """Pixels of a window that lie in the area; see ``PolygonsOnGrid.covers``."""
        if self._area is None:
            return np.ones(shape or (int(window.height), int(window.width)), np.bool_)
        return self._area.covers(window, shape)

    def clear(self, window: Window, shape: tuple[int, int] | None = None) -> npt.NDArray[np.bool_]:
        """Pixels of a window that no mask marks; NaN marks too, and no pixel outside a mask is marked."""
        clear = np.ones(shape or (int(window.height), int(window.width)), np.bool_)
        for mask in self._masks:
            values, known = mask.read(window, shape)
            clear &= ~(known & (values != 0))
        return clear

    def kept(self, window: Window, shape: tuple[int, int] | None = None) -> npt.NDArray[np.bool_]:
        """Pixels of a window that are not left out."""
        return self.inside(window, shape) & self.clear(window, shape)
