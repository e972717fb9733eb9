"""GeoTIFFs written by this package: plain ones to work on, Cloud Optimised ones to keep."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import rasterio
import rasterio.shutil
from rasterio.io import DatasetReader, DatasetWriter
from rasterio.windows import Window

from bitemporal.scenes.geometry import Grid

_BLOCK = 512


@contextmanager
def new_raster(path: Path, grid: Grid, dtype: str, nodata: float, tags: Mapping[str, str]) -> Iterator[DatasetWriter]:
    """Write an uncompressed GeoTIFF of one band; pixels that are not written hold no data.

    All blocks are in the file at the end, so that later writes change it in place and need no further space.

    Args:
        path: File to write.
        grid: Its pixels.
        dtype: Type of the values.
        nodata: Value that stands for no data.
        tags: Tags of the file.

    Raises:
        OSError: When it cannot be written.
    """
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=grid.width,
        height=grid.height,
        count=1,
        dtype=dtype,
        nodata=nodata,
        crs=grid.crs,
        transform=grid.transform,
        tiled=True,
        blockxsize=_BLOCK,
        blockysize=_BLOCK,
        bigtiff="IF_SAFER",
    ) as raster:
        raster.update_tags(**tags)
        yield raster
    check_blocks(path)


_threads = "ALL_CPUS"


def _use_one_thread() -> None:
    """GDAL keeps its threads for the whole process. A forked process has none of them, and would wait forever."""
    global _threads
    _threads = "1"


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_use_one_thread)


def write_cog(source: Path, target: Path, options: Mapping[str, str]) -> None:
    """Copy a raster to a Cloud Optimised GeoTIFF: tiles, overviews, deflate.

    Args:
        source: Any raster.
        target: File to write.
        options: Further options of GDAL's driver.

    Raises:
        OSError: When it cannot be written.
    """
    settings = {"COMPRESS": "DEFLATE", "BIGTIFF": "IF_SAFER", "NUM_THREADS": _threads, "BLOCKSIZE": str(_BLOCK)}
    try:
        rasterio.shutil.copy(source, target, driver="COG", **settings | dict(options))
    except Exception as error:  # GDAL's failures have several families of classes
        raise OSError(str(error)) from error
    check_blocks(target)


def row_windows(raster: DatasetReader, pixels: int | None = None) -> Iterator[Window]:
    """Windows of whole rows that cover a raster from top to bottom.

    Args:
        raster: An open raster.
        pixels: Pixels of a window at most, but at least a row; by default a row of blocks.
    """
    step = _BLOCK if pixels is None else max(1, pixels // raster.width)
    for top in range(0, raster.height, step):
        yield Window(0, top, raster.width, min(step, raster.height - top))


def sync(path: Path) -> None:
    """Wait until a file's content is on the disk.

    Raises:
        OSError: When the disk refuses it.
    """
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def check_blocks(path: Path) -> None:
    """See that every block is in a GeoTIFF: GDAL meets a full disk only when it closes a new file, and stays silent.

    Raises:
        OSError: When one is missing, or the file is no GeoTIFF.
    """
    size = path.stat().st_size
    with rasterio.open(path) as raster:
        for level in (None, *range(len(raster.overviews(1)))):
            with rasterio.open(path, **({} if level is None else {"overview_level": level})) as overview:
                places = [place for place, _ in overview.block_windows(1)]
            for row, column in places:
                offset, length = (
                    int(raster.get_tag_item(f"BLOCK_{what}_{column}_{row}", "TIFF", bidx=1, ovr=level) or 0)
                    for what in ("OFFSET", "SIZE")
                )
                if not length or offset + length > size:
                    raise OSError(f"a block is missing after {size} bytes; is the disk full?")
