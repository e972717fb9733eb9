"""One date of a scene, opened through GDAL: one file with several bands, or one file per band."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from bitemporal.errors import DataError, OptionError
from bitemporal.files import not_there
from bitemporal.imagery.decode import choose_bands, choose_channels
from bitemporal.imagery.scale import RGB

Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""One raster, or one for each band; paths, or addresses that GDAL opens (``https://``, ``s3://``)."""

_CACHE = 256 * 2**20
"""Size of GDAL's cache of blocks in bytes; its default grows with the machine's memory."""


@contextmanager
def gdal_settings() -> Iterator[None]:
    """What every use of GDAL here needs: a bounded cache, and patience with remote files."""
    with (
        rasterio.Env(GDAL_CACHEMAX=_CACHE, GDAL_HTTP_MAX_RETRY=4, VSI_CACHE=True),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # images without a place are allowed
        yield


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


@dataclass(frozen=True)
class Source:
    """One date, checked.

    Attributes:
        name: ``before`` or ``after``, for messages.
        files: One, or one a band.
        channels: File and band (from 1) of every channel.
        grid: Its own pixels.
        dtype: Data type of all bands.
        nodata: Value that stands for no data, instead of what the files say.
    """

    name: str
    files: tuple[str, ...]
    channels: tuple[tuple[str, int], ...]
    grid: Grid
    dtype: str
    nodata: float | None = None

    def describe(self) -> str:
        """Files in words."""
        return f"{self.name} ({', '.join(self.files)})"


def is_remote(files: Sequence[str]) -> bool:
    """Whether any of the files is read over a network."""
    return any("://" in file or file.startswith("/vsi") for file in files)


def open_raster(path: str) -> DatasetReader:
    """Open a raster for reading.

    Raises:
        DataError: When GDAL cannot.
    """
    try:
        return rasterio.open(path)
    except RasterioError as error:
        if not is_remote([path]) and not Path(path).is_file():
            raise DataError(
                f"{not_there(path, 'file')}; expected a raster that GDAL reads, such as a GeoTIFF"
            ) from None
        raise DataError(
            f"{path}: cannot be opened as a raster ({str(error).splitlines()[0]}); expected a file that GDAL reads, "
            "such as a GeoTIFF: restore or fetch it again"
        ) from error


def file_state(file: str) -> list[Any]:
    """A file, with those that it names (VRT) or that belong to it, and what shows that they have changed."""
    with open_raster(file) as dataset:
        parts = [file, *sorted(dataset.files)]
    states = [(path, path.stat()) for path in map(Path, dict.fromkeys(parts)) if path.is_file()]
    return [file, *([str(path.resolve()), state.st_size, state.st_mtime_ns] for path, state in states)]


def open_source(
    files: Files,
    name: str,
    bands: Sequence[int] | None = None,
    nodata: float | None = None,
    channels: int = RGB,
    usual: Sequence[int] | None = None,
) -> Source:
    """Open one date and check that it can be used.

    Args:
        files: One raster, or one for each band.
        name: ``before`` or ``after``.
        bands: Bands of a single raster to use, counted from 1, one for each channel. By default all but alpha, where
            that leaves as many, or one, which is repeated.
        nodata: Value that stands for no data, instead of what the files say.
        channels: Channels of the detector.
        usual: Bands of a single raster where none are chosen: those that the detector was trained on.

    Raises:
        DataError: When a file cannot be used, or the files of one date do not belong together.
        OptionError: When the bands do not exist, or are not named where there is a choice.
    """
    paths = [os.fspath(file) for file in ([files] if isinstance(files, str | os.PathLike) else files)]
    if not paths:
        raise OptionError(f"{name}: found no file, expected a raster, or one for each band")
    if len(paths) > 1 and bands is not None:
        raise OptionError(f"bands: are chosen, but {name} has a file for each band; list its files in order instead")
    if len(paths) not in (1, channels):
        raise OptionError(f"{name}: found {len(paths)} files, expected one raster, or {channels} of one band each")
    if len(paths) == 1 and bands is None:
        bands = usual
    grids: list[Grid] = []
    dtypes: list[tuple[str, str]] = []
    used: list[tuple[str, int]] = []
    for path in paths:
        with open_raster(path) as dataset:
            chosen = _bands(dataset, path, bands, channels, alone=len(paths) == 1)
            dtypes += [(path, dataset.dtypes[band - 1]) for band in chosen]
            grids.append(grid_of(dataset, path))
            used += [(path, band) for band in chosen]
    for path, grid in zip(paths[1:], grids[1:], strict=True):
        if (grid.width, grid.height, grid.crs) != (grids[0].width, grids[0].height, grids[0].crs) or not (
            grid.transform.almost_equals(grids[0].transform, precision=1e-6 * abs(grids[0].transform.a))
        ):
            raise DataError(
                f"{path}: is {grid.describe()}, but {paths[0]} is {grids[0].describe()}; expected one grid for all "
                f"bands of {name}: resample them with gdalwarp"
            )
    dtype = dtypes[0][1]
    if any(other != dtype for _, other in dtypes):
        listed = ", ".join(f"{path} {other}" for path, other in dict.fromkeys(dtypes))
        raise DataError(
            f"{name}: the bands are of several types ({listed}); expected one: convert them with `gdal_translate -ot`, "
            "or choose other bands"
        )
    if np.dtype(dtype).kind not in "uif":
        raise DataError(f"{paths[0]}: holds {dtype} values; expected integers or floats")
    if len(used) == 1:
        used *= channels
    return Source(name, tuple(paths), tuple(used), grids[0], dtype, nodata)


def _bands(dataset: DatasetReader, path: str, bands: Sequence[int] | None, channels: int, alone: bool) -> list[int]:
    """Bands of a file to use: the chosen ones, or all but alpha where that leaves no choice."""
    if dataset.count == 0:
        inside = dataset.subdatasets
        hint = f"give one of the {len(inside)} rasters in it, such as {inside[0]}" if inside else "give another file"
        raise DataError(f"{path}: has no band; expected a raster with some: {hint}")
    colours = [band for band, kind in enumerate(dataset.colorinterp, start=1) if kind != ColorInterp.alpha]
    if not alone:
        if len(colours) != 1:
            raise DataError(f"{path}: has {len(colours)} bands; expected one, because every band has its own file")
        return colours
    if bands is not None:
        missing = [band for band in bands if not 1 <= band <= dataset.count]
        if missing:
            raise OptionError(
                f"bands: {path} has no band {missing[0]}; it has {dataset.count}, counted from 1; "
                + choose_channels(dataset.count, len(bands))
            )
        return list(bands)
    if len(colours) not in (1, channels):
        raise OptionError(
            f"bands: {path} has {len(colours)}, and the network takes {channels}; "
            + (choose_bands(dataset.count) if dataset.count >= channels else choose_channels(dataset.count, channels))
        )
    return colours


def grid_of(dataset: DatasetReader, path: str) -> Grid:
    """The grid of a raster.

    Raises:
        DataError: When it is rotated, upside down, or impossible.
    """
    transform, crs = dataset.transform, dataset.crs
    gcps, _ = dataset.gcps
    placed = transform != Affine.identity()
    if not placed and (gcps or dataset.rpcs) and crs is None:
        raise DataError(
            f"{path}: has ground control points and no transform; expected rectified pixels: run gdalwarp on it first"
        )
    if not placed and crs is None:
        return Grid(None, Affine.identity(), dataset.width, dataset.height)
    if crs is None or not placed:
        part = "a transform but no CRS" if crs is None else f"the CRS {crs.to_string()} but no transform"
        raise DataError(
            f"{path}: has {part}; expected both: set them with "
            "`gdal_edit.py -a_srs EPSG:CODE -a_ullr LEFT TOP RIGHT BOTTOM`"
        )
    values, width, height = tuple(transform[:6]), abs(transform.a), abs(transform.e)
    if not np.isfinite(values).all() or not 1e-3 * height < width < 1e3 * height:
        raise DataError(f"{path}: its transform {values} is impossible; set it with `gdal_edit.py -a_ullr`")
    if abs(transform.b) > 1e-6 * width or abs(transform.d) > 1e-6 * height:
        raise DataError(f"{path}: its pixels are rotated against the axes; expected north up: run gdalwarp on it first")
    if transform.a < 0 or transform.e > 0:
        raise DataError(f"{path}: is stored mirrored or south up; expected north up: run gdalwarp on it first")
    left, bottom, right, top = dataset.bounds
    if crs.is_geographic and not (-90.1 <= bottom and top <= 90.1 and -540 <= left and right <= 540):
        raise DataError(
            f"{path}: reaches from {left:g}, {bottom:g} to {right:g}, {top:g} in {crs.to_string()}, which are no "
            "degrees of longitude and latitude; correct its CRS or transform with gdal_edit.py"
        )
    return Grid(crs, transform, dataset.width, dataset.height)
