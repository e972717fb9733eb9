"""Large images cut into a folder of pairs that keep their place on the ground, bands and values."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.windows import Window

from bitemporal.errors import DataError, LabelError
from bitemporal.imagery import LabelOptions
from bitemporal.imagery.band_files import band_files, refuse_other_bands
from bitemporal.imagery.labels import LabelSummary, observe
from bitemporal.imagery.masks import IGNORE
from bitemporal.imagery.physical import Scaling
from bitemporal.outputs import NEW_FOLDER, Output, check_outputs, replacing_folder
from bitemporal.pairs import PairFolder
from bitemporal.pairs.names import DATES, LABEL
from bitemporal.remedies import as_option, as_typed
from bitemporal.scenes.exclusion import RasterOnGrid
from bitemporal.scenes.geometry import Grid
from bitemporal.scenes.grids import DateOnGrid, common_grid
from bitemporal.scenes.options import IGNORED, TileOptions
from bitemporal.scenes.outputs import locked_together
from bitemporal.scenes.sources import Source, gdal_settings, open_image, open_source
from bitemporal.scenes.vectors import VECTORS, PolygonsOnGrid

_BLOCK = 8
"""Tiles of a block's side: the name of a tile begins with its block, so that neighbours can stay in one split."""

LabelReader = Callable[[Window], npt.NDArray[np.uint8]]
"""From a window of the grid to its label, H x W: 0 unchanged, 1 changed, 255 ignored."""


@dataclass
class Tiles:
    """What was cut.

    Attributes:
        written: Number of tiles by split.
        without_data: Number of tiles left out because too few of their pixels have data.
        ignores: Whether a label holds ``IGNORED``.
        too_small: Images that are smaller than a tile.
        largest_side: The shorter side of the largest of these, in pixels.
        most_valid: The largest share of valid pixels of a tile that was left out.
    """

    written: dict[str, int]
    without_data: int = 0
    ignores: bool = False
    too_small: int = 0
    largest_side: int = 0
    most_valid: float = 0.0


def cut_scene(
    before: str | os.PathLike[str],
    after: str | os.PathLike[str],
    output: str | os.PathLike[str],
    label: str | os.PathLike[str] | None = None,
    options: TileOptions | None = None,
    label_options: LabelOptions | None = None,
    nodata: float | None = None,
) -> Tiles:
    """Cut two rasters and their label into ``OUTPUT/{A,B,label}``.

    Tiles lie on the pixels of ``before``, to which ``after`` is brought (bilinear). All bands but alpha are kept, with
    their type and values. The name of a tile is that of ``before``, its block of 8 x 8 tiles, row and column.

    Args:
        before: Raster of date 1, or folder of files with one band each; bands are brought to the finest of them.
        after: Raster of date 2, or such a folder.
        output: Folder to make. It appears whole or not at all.
        label: Raster of one band, which is brought to the same pixels (nearest), or a vector file with the polygons of
            what has changed.
        options: How tiles are cut.
        label_options: What the values of a label raster mean; by default that is found.
        nodata: Value of the dates that stands for no data, instead of what the files say.

    Raises:
        DataError: When a file cannot be used, or no tile has enough data.
        LabelError: When it is not clear what the values of the label mean.
        OptionError: When it is said what the values of a label mean that has none.
        OutputError: When the output is no new or empty folder, lies in a folder that is read, or another run makes it.
    """
    options, label_options = options or TileOptions(), label_options or LabelOptions()
    if label is None:
        label_options.refuse("no label is given")
    with gdal_settings(), _new_folder(Path(output), (before, after)) as folder:
        sources, grid = _open_dates(before, after, nodata, options.allow_vrt)
        tiles = Tiles({})
        with ExitStack() as stack:
            reader = None
            if label is not None:
                reader = _label_reader(Path(label), grid, label_options, options.allow_vrt, stack)
            _cut(sources, grid, reader, folder, Path(before).stem, options, tiles, blocks=True)
        _refuse_nothing(tiles, f"{before}: {grid.describe()}", options)
    return tiles


def cut_pairs(
    folder: PairFolder, output: str | os.PathLike[str], options: TileOptions | None = None, nodata: float | None = None
) -> Tiles:
    """Cut every pair of a folder into ``OUTPUT/SPLIT/{A,B,label}``; see ``cut_scene``.

    Args:
        folder: The pairs, with what their labels mean resolved.
        output: Folder to make. It appears whole or not at all.
        options: How tiles are cut.
        nodata: Value of the dates that stands for no data, instead of what the files say.

    Raises:
        DataError: When a file cannot be used, or no tile has enough data.
        LabelError: When it is not clear what the values of a label mean.
        OutputError: When the output is no new or empty folder, lies in a folder that is read, or another run makes it.
    """
    options = options or TileOptions()
    tiles = Tiles({})
    with gdal_settings(), _new_folder(Path(output), (folder.root,)) as target:
        for pair in folder.pairs():
            sources, grid = _open_dates(pair.before, pair.after, nodata, options.allow_vrt)
            reader = None
            if pair.label is not None:
                mask = folder.load_label(pair)
                if mask.shape != (grid.height, grid.width):
                    raise DataError(
                        f"{pair.label}: is {mask.shape[0]} x {mask.shape[1]}, but {pair.before} is {grid.height} x "
                        f"{grid.width}; `bitemporal data check {as_typed(folder.root)}` lists all such pairs"
                    )
                reader = _window_of(mask)
            place = target / pair.split if folder.splits != ("all",) else target
            _cut(sources, grid, reader, place, pair.stem, options, tiles, split=pair.split)
        _refuse_nothing(tiles, f"{folder.root}: {len(folder.pairs())} pairs", options)
    return tiles


@contextmanager
def _new_folder(output: Path, reads: Sequence[str | os.PathLike[str]]) -> Iterator[Path]:
    """A folder to fill, which becomes the output at the end.

    Args:
        output: The output.
        reads: Files, and folders that nothing is written into.

    Raises:
        OutputError: When the output is no new or empty folder, another run makes it, or it cannot be written.
    """
    with locked_together([output]):
        check_outputs([Output("output", output, NEW_FOLDER)], reads)
        with replacing_folder(output) as folder:
            yield folder


def _open_dates(
    before: str | os.PathLike[str], after: str | os.PathLike[str], nodata: float | None, allow_vrt: bool
) -> tuple[list[Source], Grid]:
    """Both dates, and the pixels of the first."""
    refuse_other_bands((Path(before), Path(after)))
    first, second = (_open_date(path, name, nodata, allow_vrt) for path, name in ((before, "before"), (after, "after")))
    return [first, second], common_grid(first, second)


def _open_date(path: str | os.PathLike[str], name: str, nodata: float | None, allow_vrt: bool) -> Source:
    """One date with all its bands but alpha; a folder of files with one band each is one date."""
    if files := band_files(Path(path)):
        return open_source(files, name, None, nodata, len(files), allow_vrt=allow_vrt)
    with open_image(os.fspath(path), allow_vrt) as dataset:
        kept = [band for band, kind in enumerate(dataset.colorinterp, start=1) if kind.name != "alpha"]
    return open_source(path, name, kept, nodata, len(kept), allow_vrt=allow_vrt)


def _label_reader(path: Path, grid: Grid, options: LabelOptions, allow_vrt: bool, stack: ExitStack) -> LabelReader:
    if path.suffix.lower() in VECTORS:
        options.refuse(f"{path} is a vector file, whose polygons are what has changed")
        polygons = PolygonsOnGrid(path, grid, "label", may_be_empty=True)
        return lambda window: polygons.covers(window).astype(np.uint8)
    raster = stack.enter_context(RasterOnGrid(path, grid, "label", options.label_band, allow_vrt))
    raster.check_overlap()
    decoding = options.decoding()
    if decoding.source == "found":
        summary = LabelSummary(decoding)
        summary.add(path, observe(path, None, decoding))
        found, faults = summary.resolve()
        if found is None:
            raise LabelError("\n".join(map(str, faults)))
        decoding = found

    def read(window: Window) -> npt.NDArray[np.uint8]:
        values, known, _ = raster.read_label(window, decoding)
        mask = decoding.meanings(values)
        if (strange := known & ~np.isin(mask, (0, 1, IGNORE))).any():
            raise LabelError(
                f"{path}: holds {values[strange][0]:g}, but {decoding.rule()}; correct the file or the rule"
            )
        return np.where(known, mask, IGNORE).astype(np.uint8)

    return read


def _window_of(mask: npt.NDArray[np.uint8]) -> LabelReader:
    return lambda window: mask[window.row_off : window.row_off + window.height, window.col_off :][:, : window.width]


def _cut(
    sources: list[Source],
    grid: Grid,
    label: LabelReader | None,
    folder: Path,
    name: str,
    options: TileOptions,
    tiles: Tiles,
    split: str = "all",
    blocks: bool = False,
) -> None:
    """Write the tiles of one pair."""
    if min(grid.height, grid.width) < options.size:
        tiles.too_small += 1
        tiles.largest_side = max(tiles.largest_side, min(grid.height, grid.width))
        return
    with ExitStack() as stack:
        # values as stored: scale and offset go into the tiles
        dates = [stack.enter_context(DateOnGrid(replace(source, scaling=None), grid)) for source in sources]
        for row, column, window in _windows(options, grid):
            read = [date.read(window) for date in dates]
            valid = read[0][1] & read[1][1]
            mask = None
            if label is not None:
                mask = label(window)
                valid &= mask != IGNORE
            if valid.mean() < options.minimum_valid or not valid.any():
                tiles.without_data += 1
                tiles.most_valid = max(tiles.most_valid, float(valid.mean()))
                continue
            block = f"-{row // _BLOCK:02d}-{column // _BLOCK:02d}" if blocks else ""
            stem = f"{name}{block}_{row:04d}_{column:04d}"
            for date, source, (samples, _) in zip(DATES, sources, read, strict=True):
                _write(folder / date / stem, samples, grid, window, source.scaling)
            if mask is not None:
                values = np.where(valid, 255 * (mask == 1), IGNORED).astype(np.uint8)
                tiles.ignores |= not bool(valid.all())
                _write(folder / LABEL / stem, values[None], grid, window)
            tiles.written[split] = tiles.written.get(split, 0) + 1


def _write(
    path: Path, samples: npt.NDArray[np.generic], grid: Grid, window: Window, scaling: Scaling | None = None
) -> None:
    """A tile as GeoTIFF; as PNG where it has no place and PNG can hold it."""
    count, height, width = samples.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    if grid.crs is None and scaling is None and samples.dtype == np.uint8 and count in (1, 3):
        place: dict[str, object] = {"driver": "PNG"}
        target = path.with_name(f"{path.name}.png")
    else:
        place = {"driver": "GTiff", "compress": "deflate", "photometric": "rgb" if count == 3 else "minisblack"}
        target = path.with_name(f"{path.name}.tif")
    if grid.crs is not None:
        transform = grid.transform @ Affine.translation(window.col_off, window.row_off)
        place |= {"crs": grid.crs, "transform": transform}
    with rasterio.MemoryFile() as memory:  # first: GDAL says nothing of a disk that is full
        with memory.open(height=height, width=width, count=count, dtype=samples.dtype, **place) as tile:
            tile.write(samples)
            if scaling is not None:
                tile.scales, tile.offsets = zip(*scaling, strict=True)
        target.write_bytes(memory.getbuffer())


def _refuse_nothing(tiles: Tiles, where: str, options: TileOptions) -> None:
    if not tiles.written:
        reasons = []
        if tiles.too_small:
            smaller = as_option("size", tiles.largest_side)
            reasons.append(f"{tiles.too_small} image(s) are smaller than a tile: give a smaller size, {smaller}")
        if tiles.without_data:
            share = f"{options.minimum_valid:.0%}"
            fewer = as_option("minimum_valid", math.floor(1000 * tiles.most_valid) / 1000)
            remedy = f"accept fewer, {fewer}" if tiles.most_valid else "check nodata, and that the dates overlap"
            reasons.append(f"{tiles.without_data} tile(s) have less than {share} of their pixels valid: {remedy}")
        raise DataError(f"{where} gave no tile of {options.size} x {options.size}; {'; '.join(reasons)}")


def _windows(options: TileOptions, grid: Grid) -> Iterator[tuple[int, int, Window]]:
    """Row, column and pixels of the tiles that lie within a grid, from its top left corner on."""
    step = options.stride or options.size
    for row, top in enumerate(range(0, grid.height - options.size + 1, step)):
        for column, left in enumerate(range(0, grid.width - options.size + 1, step)):
            yield row, column, Window(left, top, options.size, options.size)
