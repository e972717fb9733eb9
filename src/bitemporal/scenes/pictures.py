"""The quick look: both dates and what changed, small and side by side."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image
from rasterio.enums import Resampling
from rasterio.windows import Window

from bitemporal.files import replacing
from bitemporal.scenes.grids import DateOnGrid
from bitemporal.scenes.journal import CHANGED, NO_DATA
from bitemporal.scenes.sources import Grid
from bitemporal.scenes.values import ValueRange, scale

_SIDE = 1024
"""Most pixels of a picture's longer side."""

_COLOUR = (227, 26, 28)
_GAP = 8


def write_quicklook(
    path: Path, dates: tuple[DateOnGrid, DateOnGrid], ranges: ValueRange, mask: Path, grid: Grid
) -> None:
    """Write before, after, and after with what changed in red.

    Args:
        path: PNG; replaced when it is whole.
        dates: Both, open.
        ranges: Values of each channel that become 0 and 255.
        mask: The mask that has been written, with its overviews.
        grid: Of the scene.

    Raises:
        DataError: When it cannot be written.
    """
    shrink = max(1.0, max(grid.height, grid.width) / _SIDE)
    shape = max(1, round(grid.height / shrink)), max(1, round(grid.width / shrink))
    window = Window(0, 0, grid.width, grid.height)
    panels: list[npt.NDArray[np.uint8]] = []
    for date in dates:
        samples, valid = date.read(window, shape)
        picture = np.rint(scale(samples, ranges)).astype(np.uint8).transpose(1, 2, 0)
        picture[~valid] = 255
        panels.append(picture)
    with rasterio.open(mask) as source:
        # the largest value of what becomes one pixel: small changes stay to be seen
        values = source.read(1, out_shape=shape, resampling=Resampling.max, masked=True)
    changed = (values.filled(0) == CHANGED) & (values.filled(0) != NO_DATA)
    grey = panels[1].mean(axis=2, keepdims=True).astype(np.uint8).repeat(3, axis=2)
    panels.append(np.where(changed[..., None], np.array(_COLOUR, np.uint8), grey // 2 + 120))
    gap = np.full((shape[0], _GAP, 3), 255, np.uint8)
    joined = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)
    with replacing(path) as temporary:
        Image.fromarray(joined).save(temporary, format="PNG", optimize=True)
