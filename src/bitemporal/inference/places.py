"""Tiles that lie on the ground: where a GeoTIFF lies, and masks that keep its place."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

import bitemporal
from bitemporal.errors import DataError
from bitemporal.imagery.quiet import ignore_missing_places
from bitemporal.outputs import replacing

NO_DATA = 255
"""Value of a georeferenced mask where an image has no data; 0 is unchanged, 1 changed."""

_ENDINGS = (".tif", ".tiff")
_SOFTWARE = "SOFTWARE"
_SAME = 1e-3  # of a pixel


@dataclass(frozen=True)
class Place:
    """Where an image lies on the ground.

    Attributes:
        crs: Coordinate reference system as WKT.
        transform: Numbers a, b, c, d, e and f of the affine map from column and row to coordinates.
    """

    crs: str
    transform: tuple[float, ...]

    def is_near(self, other: "Place") -> bool:
        """Whether another image of the same size has the same pixels."""
        pixel = max(abs(value) for value in (*self.transform[:2], *self.transform[3:5]))
        return self.crs == other.crs and all(
            abs(mine - theirs) <= _SAME * pixel for mine, theirs in zip(self.transform, other.transform, strict=True)
        )


def place_of(path: Path) -> Place | None:
    """The place of a GeoTIFF; ``None`` for other files, for those that cannot be read, and without rasterio."""
    if path.suffix.lower() not in _ENDINGS:
        return None
    try:
        import rasterio
        from rasterio.errors import RasterioError
    except ModuleNotFoundError:
        return None
    ignore_missing_places()
    try:
        with rasterio.open(path) as source:
            if source.crs is None or source.transform.is_identity:
                return None
            return Place(source.crs.to_wkt(), tuple(source.transform)[:6])
    except RasterioError:  # reading it will say what is wrong
        return None


def place_of_pair(before: Path, after: Path) -> Place | None:
    """The place that both images of a pair share, or that one of them has.

    Raises:
        DataError: When they lie in different places.
    """
    places = [place for place in map(place_of, (before, after)) if place is not None]
    if len(places) == 2 and not places[0].is_near(places[1]):
        raise DataError(
            f"{before} and {after}: lie on different pixels of the ground, expected the same; "
            "predict-scene maps such a pair: it brings date 2 to the pixels of date 1"
        )
    return places[0] if places else None


def write_placed(
    values: npt.NDArray[Any], path: str | os.PathLike[str], place: Place, images: tuple[Path, Path], no_data: float
) -> None:
    """Write one band as a GeoTIFF in the place of a pair's images, with no data where one of them says so.

    Args:
        values: H x W, uint8 or float32.
        path: File to write.
        place: Where the images lie.
        images: The pair's images.
        no_data: Value where an image has no data.

    Raises:
        OutputError: When it cannot be written.
    """
    import rasterio
    from affine import Affine
    from rasterio.errors import RasterioError

    filled = values.copy()
    for image in images:
        if place_of(image) is None:
            continue
        with rasterio.open(image) as source:
            if source.nodata is not None:
                filled[source.dataset_mask() == 0] = no_data
    height, width = values.shape
    with (
        replacing(path, RasterioError) as temporary,
        rasterio.open(
            temporary,
            "w",
            driver="GTiff",
            height=height,
            width=width,
            count=1,
            dtype=values.dtype,
            nodata=no_data,
            crs=place.crs,
            transform=Affine(*place.transform),
            compress="deflate",
        ) as target,
    ):
        target.update_tags(**{_SOFTWARE: f"bitemporal {bitemporal.__version__}"})
        target.write(filled, 1)


def is_placed_mask(path: Path) -> bool:
    """Whether a GeoTIFF was written by this package.

    Raises:
        OSError: When it cannot be read.
    """
    import rasterio

    with rasterio.open(path) as source:
        return str(source.tags().get(_SOFTWARE, "")).startswith("bitemporal")
