"""Rasters for the tests of scenes."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import from_origin

UTM = "EPSG:32650"
LEFT, TOP = 500000.0, 4000000.0


def write_raster(
    path: Path,
    array: npt.NDArray,
    crs: str | None = UTM,
    pixel: float = 0.5,
    left: float = LEFT,
    top: float = TOP,
    **profile: object,
) -> Path:
    """Write C x H x W as GeoTIFF; without a CRS it has no place."""
    place = {} if crs is None else {"crs": crs, "transform": from_origin(left, top, pixel, pixel)}
    count, height, width = array.shape
    with rasterio.open(
        path, "w", **{"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": array.dtype}
        | place | profile
    ) as target:  # fmt: skip
        target.write(array)
    return path


def ground(seed: int, height: int, width: int, channels: int = 3) -> npt.NDArray[np.uint8]:
    """Something smooth to look at, C x H x W in 0..255."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((channels, height, width)), (0, 2.5, 2.5))
    low, high = noise.min(), noise.max()
    return np.rint((noise - low) / (high - low) * 200 + 20).astype(np.uint8)


def read(path: Path, band: int = 1) -> npt.NDArray:
    with rasterio.open(path) as source:
        return source.read(band)
