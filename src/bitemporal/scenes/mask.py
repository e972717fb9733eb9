"""The change mask of a scene: its values and colours, and how it is made from probabilities."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import rasterio

from bitemporal.scenes.rasters import new_raster, row_windows
from bitemporal.scenes.scene import Scene

UNCHANGED, CHANGED, NO_DATA = 0, 1, 255

RED = (227, 26, 28)
"""Colour of change. The QGIS styles in ``qgis/*.qml`` use it too, as #e31a1c."""

_COLOURS = {UNCHANGED: (255, 255, 255, 255), CHANGED: (*RED, 255)}  # GeoTIFF allows only no data to be transparent


class PixelCounts(NamedTuple):
    """Changed and valid pixels of every row, each int64 of the scene's height."""

    changed: npt.NDArray[np.int64]
    valid: npt.NDArray[np.int64]


def write_mask(path: Path, probability: Path, scene: Scene) -> PixelCounts:
    """Write the mask of a scene as a GeoTIFF, some rows at a time.

    Args:
        path: File to write.
        probability: Raster of probabilities, NaN where there is no data.
        scene: The scene.

    Raises:
        OSError: When the file cannot be written.
    """
    counts = PixelCounts(*np.zeros((2, scene.grid.height), np.int64))
    with rasterio.open(probability) as source, new_raster(path, scene.grid, "uint8", NO_DATA, scene.tags) as target:
        target.write_colormap(1, _COLOURS)
        for window in row_windows(source):
            probabilities = source.read(1, window=window)
            mask = (probabilities > scene.options.threshold).astype(np.uint8)
            mask[np.isnan(probabilities)] = NO_DATA
            target.write(mask, 1, window=window)
            rows = slice(window.row_off, window.row_off + window.height)
            counts.changed[rows] = (mask == CHANGED).sum(axis=1)
            counts.valid[rows] = (mask != NO_DATA).sum(axis=1)
    return counts
