"""Tiles that lie on the ground: masks that keep the place of a pair's images."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy.typing as npt

import bitemporal
from bitemporal.imagery.decoded import FileFault
from bitemporal.imagery.opening import open_dataset
from bitemporal.imagery.places import Place, place_of
from bitemporal.outputs import replacing

NO_DATA = 255
"""Value of a georeferenced mask where an image has no data; 0 is unchanged, 1 changed."""

_SOFTWARE = "SOFTWARE"


def place_of_pair(before: Path, after: Path) -> Place | None:
    """The place that both images of a pair share, or that one of them has.

    Raises:
        FileFault: When they lie in different places.
    """
    places = [place for place in map(place_of, (before, after)) if place is not None]
    if len(places) == 2 and not places[0].is_near(places[1]):
        raise FileFault(
            before,
            "and its image after cover different pixels on the ground, expected the same",
            "predict-scene maps such a pair: it brings date 2 to the pixels of date 1",
        )
    return places[0] if places else None


def write_placed(
    values: npt.NDArray[Any],
    path: str | os.PathLike[str],
    place: Place,
    images: tuple[Path, Path],
    no_data: float,
    bands: Sequence[int] | None = None,
    tags: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write one band as a GeoTIFF in the place of a pair's images, with no data where one of them says so.

    Args:
        values: H x W, uint8 or float32.
        path: File to write.
        place: Where the images lie.
        images: The pair's images.
        no_data: Value where an image has no data, by a value, a mask or an alpha band.
        bands: Bands that are used; an alpha band among them marks nothing.
        tags: Tags of the file, besides the software.

    Raises:
        OutputError: When it cannot be written.
    """
    import rasterio
    from affine import Affine
    from rasterio.enums import ColorInterp, MaskFlags
    from rasterio.errors import RasterioError

    filled = values.copy()
    for image in images:
        if place_of(image) is None:
            continue
        with open_dataset(image) as source:
            used = source.indexes if bands is None else bands
            # GDAL takes the fourth of four bands for alpha, whatever it holds
            alpha_used = bands is not None and any(source.colorinterp[band - 1] == ColorInterp.alpha for band in used)
            if not alpha_used and any(MaskFlags.all_valid not in source.mask_flag_enums[band - 1] for band in used):
                filled[source.dataset_mask() == 0] = no_data
    height, width = values.shape
    # in memory first: GDAL says nothing of a disk that is full
    with replacing(path, RasterioError) as temporary, rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            height=height,
            width=width,
            count=1,
            dtype=values.dtype,
            nodata=no_data,
            crs=place.crs,
            transform=Affine(*place.transform),
            compress="deflate",
        ) as target:
            target.update_tags(**{_SOFTWARE: f"bitemporal {bitemporal.__version__}"}, **tags)
            target.write(filled, 1)
        temporary.write_bytes(memory.getbuffer())


def is_placed_mask(path: Path) -> bool:
    """Whether a GeoTIFF was written by this package.

    Raises:
        OSError: When it cannot be read.
    """
    with open_dataset(path) as source:
        return str(source.tags().get(_SOFTWARE, "")).startswith("bitemporal")
