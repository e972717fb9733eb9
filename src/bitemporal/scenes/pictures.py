"""The quick look: both dates and what changed, small and side by side."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rasterio.windows import Window

from bitemporal import __version__
from bitemporal.imagery.scale import to_picture
from bitemporal.scenes.drawing import Dates
from bitemporal.scenes.exclusion import Exclusion
from bitemporal.scenes.kinds import SOFTWARE
from bitemporal.scenes.outputs import CHANGED, RED
from bitemporal.scenes.values import scale_channels

_SIDE = 1024
"""Largest size in pixels of a picture's longer side."""

_GAP = 8


def write_quicklook(path: Path, mask: Path, dates: Dates, exclusion: Exclusion) -> None:
    """Write before, after, and after in grey with what changed in red, side by side.

    Args:
        path: PNG to write.
        mask: Raster of the change mask.
        dates: Both dates.
        exclusion: Pixels that are left out; they are white.

    Raises:
        DataError: When pixels cannot be read.
        OSError: When it cannot be written.
    """
    panels: list[npt.NDArray[np.uint8]] = []
    for opened in dates.open():
        with opened as date, exclusion.open() as left_out:
            samples, valid = date.read_overview(_SIDE)
            valid &= left_out.kept(Window(0, 0, dates.grid.width, dates.grid.height), valid.shape)
        picture = to_picture(scale_channels(samples, dates.ranges).transpose(1, 2, 0)).copy()
        picture[~valid] = 255
        panels.append(picture)
    changed = _any_changed(mask, valid.shape)
    grey = panels[1].mean(axis=2, keepdims=True).astype(np.uint8).repeat(3, axis=2)
    panels.append(np.where(changed[..., None], np.array(RED, np.uint8), grey // 2 + 120))
    gap = np.full((len(grey), _GAP, 3), 255, np.uint8)
    joined = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)
    made_by = PngInfo()
    made_by.add_text(SOFTWARE, f"bitemporal {__version__}")
    Image.fromarray(joined).save(path, format="PNG", optimize=True, pnginfo=made_by)


def _any_changed(mask: Path, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Where anything changed within the area of a small pixel, so that small changes stay visible."""
    with rasterio.open(mask) as source:
        height, width = source.height, source.width
        rows = np.arange(shape[0] + 1) * height // shape[0]
        columns = np.arange(shape[1]) * width // shape[1]
        changed = np.zeros(shape, np.bool_)
        for row in range(shape[0]):
            values = source.read(1, window=Window(0, rows[row], width, rows[row + 1] - rows[row]))
            changed[row] = np.logical_or.reduceat((values == CHANGED).any(axis=0), columns)
    return changed
