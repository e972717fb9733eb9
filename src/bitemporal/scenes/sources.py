"""One date of a scene, opened through GDAL: one file with several bands, or one file per band."""

import json
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from bitemporal.errors import DataError, OptionError
from bitemporal.files import not_there
from bitemporal.imagery.colours import RED_GREEN_BLUE
from bitemporal.imagery.decoded import choose_bands, choose_channels
from bitemporal.imagery.jpeg2000 import begins_as_jpeg2000, jpeg2000_drivers
from bitemporal.imagery.opening import is_address, names_format, open_dataset
from bitemporal.imagery.physical import UNSCALED, Scaling
from bitemporal.imagery.quiet import ignore_missing_places
from bitemporal.imagery.scale import RGB
from bitemporal.imagery.whole import check_layout, refusing_damage
from bitemporal.reading import reading
from bitemporal.remedies import as_typed, free_name
from bitemporal.scenes.bands import Band, Stated, describe_band, in_order, scaling_of
from bitemporal.scenes.geometry import Grid, north_up, place
from bitemporal.scenes.palettes import in_colours, is_palette

Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""One raster, or one for each band; paths, or addresses that GDAL opens (``https://``, ``s3://``)."""

_CACHE = 256 * 2**20
"""Size of GDAL's cache of blocks in bytes; its default grows with the machine's memory."""


@contextmanager
def gdal_settings() -> Iterator[None]:
    """What every use of GDAL here needs: a bounded cache, and patience with remote files."""
    ignore_missing_places()
    with rasterio.Env(GDAL_CACHEMAX=_CACHE, GDAL_HTTP_MAX_RETRY=4, VSI_CACHE=True):
        yield


@dataclass(frozen=True)
class Source:
    """One date, checked.

    Attributes:
        name: ``before`` or ``after``, for messages.
        files: One, or one a band.
        channels: File and band (from 1) of every channel.
        grid: Its own pixels, north up; the finest where bands differ.
        dtype: Data type that holds the values of all bands.
        nodata: Value that stands for no data, instead of what the files say; before scale and offset.
        scaling: Scale and offset of every channel; ``None`` where values are used as stored.
        notes: What the user should know about how it is read.
        bits: Bits of a value, where its type holds more.
        is_stated: Whether scale and offset are stated by an option.
        allow_vrt: Whether its files may read whatever they name; see ``open_dataset``.
    """

    name: str
    files: tuple[str, ...]
    channels: tuple[tuple[str, int], ...]
    grid: Grid
    dtype: str
    nodata: float | None = None
    scaling: Scaling | None = None
    notes: tuple[str, ...] = ()
    bits: int | None = None
    is_stated: bool = False
    allow_vrt: bool = False

    @property
    def value_type(self) -> str:
        """Type of the values in words."""
        return self.dtype if self.bits is None else f"{self.dtype} of {self.bits} bit{'s' if self.bits > 1 else ''}"

    @property
    def is_physical(self) -> bool:
        """Whether its values have a unit: after scale and offset, as is stated, or as floats."""
        return self.scaling is not None or self.is_stated or np.dtype(self.dtype).kind == "f"

    def describe(self) -> str:
        """Files in words."""
        return f"{self.name} ({', '.join(self.files)})"


def is_remote(files: Sequence[str]) -> bool:
    """Whether any of the files is read over a network."""
    return any(map(is_address, files))


def open_raster(path: str, allow_vrt: bool = False) -> DatasetReader:
    """Open a raster for reading; see ``open_dataset``.

    Raises:
        DataError: When GDAL cannot, it names files outside of its folder, or blocks of pixels are missing.
    """
    if not is_remote([path]) and not names_format(path) and not os.path.isfile(path):  # a name may be too long
        raise DataError(f"{not_there(path, 'file')}; expected a raster that GDAL reads, such as a GeoTIFF")
    if os.path.isfile(path) and begins_as_jpeg2000(Path(path)):
        jpeg2000_drivers(Path(path))
    others = (
        "" if allow_vrt else "; formats that may refer to other files, such as HDF5, are read only with --allow-vrt"
    )
    with reading(path, DataError, _RASTER + others):
        dataset = open_dataset(path, allow_vrt)
    for file in filter(os.path.isfile, dataset.files):  # those that it names (VRT) or that belong to it, too
        try:
            with reading_pixels(file):
                check_layout(Path(file))
        except DataError:
            dataset.close()
            raise
    return dataset


_RASTER = "expected a raster that GDAL reads, such as a GeoTIFF: restore or download it again"


@contextmanager
def open_image(path: str, allow_vrt: bool = False) -> Iterator[DatasetReader]:
    """Open a raster whose values are compared: one with a palette by its colours.

    Raises:
        DataError: See ``open_raster``.
    """
    with closing(open_raster(path, allow_vrt)) as dataset:
        with reading(path, DataError, _RASTER):
            shown = in_colours(dataset, path) if is_palette(dataset) else dataset
        with closing(shown):
            yield shown


@contextmanager
def reading_pixels(name: object) -> Iterator[None]:
    """Read pixels in this block, and refuse what GDAL refuses or libjpeg warns of.

    Args:
        name: What to call the file.

    Raises:
        DataError: When pixels cannot be read, or some of them are missing.
    """
    remedy = "expected pixels, but it is damaged or truncated: restore or download it again"
    with reading(name, DataError, remedy), refusing_damage():
        yield


def file_state(file: str, allow_vrt: bool = False) -> list[Any]:
    """A file, with those that it names (VRT) or that belong to it, and what shows that they have changed."""
    with open_raster(file, allow_vrt) as dataset:
        parts = [file, *sorted(dataset.files)]
    states = [(path, path.stat()) for path in map(Path, dict.fromkeys(parts)) if path.is_file()]
    return [file, *([str(path.resolve()), state.st_size, state.st_mtime_ns] for path, state in states)]


_OVER_NETWORKS = tuple(f"/vsi{name}" for name in ("curl", "s3", "gs", "az", "adls", "oss", "swift", "hdfs", "webhdfs"))


def files_read(paths: Iterable[str | os.PathLike[str]], allow_vrt: bool = False) -> list[Path]:
    """The local files that are read when some files are: these, what belongs to them, and what VRTs name, nested too.

    Args:
        paths: Rasters, vector files, tables or folders; a file that is no raster is read alone.
        allow_vrt: See ``open_dataset``.
    """
    waiting, known = [os.fspath(path) for path in paths], dict[str, None]()
    while waiting:
        path = waiting.pop()
        if path in known or "://" in path or path.startswith(_OVER_NETWORKS):
            continue
        known[path] = None
        if path.startswith("/vsi"):  # an archive, or a part of a file
            inner = Path(path.rpartition(",")[2] if "," in path else "/" + path.partition("/vsi")[2].partition("/")[2])
            known.update((str(folder), None) for folder in (inner, *inner.parents) if folder.is_file())
        elif Path(path).exists() and not Path(path).is_file():
            continue
        with suppress(DataError), closing(open_raster(path, allow_vrt)) as dataset:
            waiting += dataset.files
    return [Path(path) for path in known if not path.startswith("/vsi")]


def open_source(
    files: Files,
    name: str,
    bands: Sequence[int] | None = None,
    nodata: float | None = None,
    channels: int = RGB,
    usual: Sequence[int] | None = None,
    stated: Stated | None = None,
    scaling: Sequence[float] | None = None,
    allow_vrt: bool = False,
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
        stated: What a catalogue says about bands of the files.
        scaling: Scale and offset, or such a pair for each channel, instead of what files and catalogue say.
        allow_vrt: Whether files may read whatever they name; see ``open_dataset``.

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
    used: list[Band] = []
    grids: dict[str, Grid] = {}
    notes: list[str] = []
    for path in paths:
        with reading(path, DataError, _RASTER), open_image(path, allow_vrt) as dataset:
            if dataset.name != path and dataset.driver == "VRT":
                notes.append(f"{path}: has a palette, whose colours are used")
            chosen = _bands(dataset, path, bands, channels, alone=len(paths) == 1)
            used += [describe_band(dataset, path, band, stated or {}, len(paths) == 1) for band in chosen]
            if bands is None and len(chosen) < sum(kind.name != "alpha" for kind in dataset.colorinterp):
                notes.append(
                    f"{path}: has more bands than red, green and blue, and only these are used; choose others as in "
                    "--bands 4,3,2"
                )
            _, reason = place(dataset, path)
            if reason:
                notes.append(f"{path}: has {reason}; it is warped to a north-up grid of its own pixel size on reading")
            with north_up(dataset, path, nodata) as upright:
                grids[path] = Grid(upright.crs, upright.transform, upright.width, upright.height)
    if bands is None and len(used) == channels == RGB and (ordered := in_order(used)) != used:
        used = ordered
        listed = ", ".join(f"{band.path}:{band.number}" for band in used)
        notes.append(f"{name}: its bands are put in the order red, green, blue, following their names: {listed}")
    grid = _finest(grids, name)
    for path in paths:
        if not grids[path].is_on(grid):
            notes.append(
                f"{path}: is resampled from {grids[path].describe()} to {grid.describe()}, the finest of {name}"
            )
    for band in used:
        if band.dtype.startswith("complex"):
            path, magnitude = json.dumps(band.path), json.dumps(_beside(band.path, "magnitude"))
            code = (
                f'import rasterio as r; s = r.open({path}); p = {{**s.profile, "dtype": "float32"}}; '
                f't = r.open({magnitude}, "w", **p); t.write(abs(s.read()).astype("f4")); t.close()'
            )
            raise DataError(
                f"{band.path}: holds {band.dtype} values; expected integers or floats: "
                f"`python -c {shlex.quote(code)}` writes their magnitudes, give that file"
            )
        notes += band.notes
    dtype = np.result_type(*(band.dtype for band in used)).name
    if nodata is None and len({band.nodata for band in used}) == 1:
        nodata = used[0].nodata
    if len(used) == 1:
        used *= channels
    places = tuple((band.path, band.number) for band in used)
    bits = used[0].bits if len({band.bits for band in used}) == 1 else None
    notes = list(dict.fromkeys(notes))
    return Source(
        name,
        tuple(paths),
        places,
        grid,
        dtype,
        nodata,
        scaling_of(used) if scaling is None else _stated_scaling(scaling, len(used), name),
        tuple(notes),
        bits,
        is_stated=scaling is not None,
        allow_vrt=allow_vrt,
    )


def _stated_scaling(numbers: Sequence[float], channels: int, name: str) -> Scaling | None:
    """Scale and offset of each channel as an option states them; ``None`` where values are used as stored."""
    values = [float(number) for number in numbers] * (channels if len(numbers) == 2 else 1)
    pairs = tuple(zip(values[::2], values[1::2], strict=False))
    if len(values) != 2 * channels or not np.isfinite(values).all() or not all(scale for scale, _ in pairs):
        raise OptionError(
            f"{name}_scaling: found {tuple(numbers)}, expected two finite numbers SCALE,OFFSET, or such a pair for "
            f"each of {channels} channels, with scales that are not 0, for example --{name}-scaling 0.0001,-0.1"
        )
    return None if {*pairs} == {UNSCALED} else pairs


def _finest(grids: Mapping[str, Grid], name: str) -> Grid:
    """The grid of the smallest pixels among those of a date's files.

    Raises:
        DataError: When they do not cover one area.
    """
    finest = min(grids, key=lambda path: grids[path].transform.a)
    for path, grid in grids.items():
        if not (grid.is_on(grids[finest]) or grid.covers_the_same(grids[finest])):
            cut = _beside(path, "cut")
            raise DataError(
                f"{path}: is {grid.describe()}, but {finest} is {grids[finest].describe()}, and they do not cover the "
                f"same area; expected one area for all bands of {name}: cut it out, as in "
                f"`rio warp {as_typed(path)} {as_typed(cut)} --like {as_typed(finest)}`, and use that file"
            )
    return grids[finest]


def _beside(path: str, change: str) -> str:
    """A free name for a changed copy of a file."""
    return str(free_name(Path(path).with_name(f"{Path(path).stem}-{change}.tif")))


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
    if channels == RGB and [kind.name for kind in dataset.colorinterp[:RGB]] == list(RED_GREEN_BLUE):
        return [1, 2, 3]
    if len(colours) not in (1, channels):
        raise OptionError(
            f"bands: {path} has {len(colours)}, and the network takes {channels}; "
            + (
                choose_bands(dataset.count, dataset.descriptions)
                if dataset.count >= channels
                else choose_channels(dataset.count, channels)
            )
        )
    return colours
