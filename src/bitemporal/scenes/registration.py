"""A global shift between both dates, estimated by phase correlation."""

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window
from skimage.registration import phase_cross_correlation

from bitemporal.errors import DataError
from bitemporal.scenes.grids import DateOnGrid, Shift, common_grid, windows_on
from bitemporal.scenes.sources import Source

_COARSE = 1024
_SIDE = 512
_FINE = 5
"""Windows per side in which the shift is refined."""

_SMALLEST, _FEWEST = 48, 4
"""Least size of a window in pixels, and least number of windows that must show a shift."""

_MOST_SPREAD = 2.0
"""The estimate is refused when half of the windows differ by more pixels than this from their median."""


def estimate_shift(before: Source, after: Source) -> Shift:
    """Estimate how far date 2 lies off date 1.

    Phase correlation (Kuglin and Hines 1975; refined to a fraction of a pixel as in Guizar-Sicairos et al. 2008, by
    scikit-image), first of the whole scene decimated, then of windows at full resolution; their median counts.

    Args:
        before: Date 1.
        after: Date 2.

    Raises:
        DataError: When the dates share too few valid pixels, or the windows do not agree.
    """
    grid = common_grid(before, after, "intersection")
    with DateOnGrid(before, grid) as first, DateOnGrid(after, grid) as second:
        overviews = [date.read_overview(_COARSE) for date in (first, second)]
        coarse = _correlate(*(_grey(*overview) for overview in overviews))
        if coarse is None:
            raise DataError(
                f"{before.describe()}, {after.describe()}: share too few valid pixels, or show too little, to be "
                "registered; leave --register out, or check that they show the same place"
            )
        height, width = overviews[0][1].shape
        down, across = round(coarse[0] * grid.height / height), round(coarse[1] * grid.width / width)
        shifts = []
        # small scenes have small windows: at least three per side, or nothing could disagree
        side = min(_SIDE, max(_SMALLEST, min(grid.height, grid.width) // 3))
        for window in windows_on(grid, _FINE, side):
            x0, y0 = max(int(window.col_off), -across, 0), max(int(window.row_off), -down, 0)
            x1 = min(int(window.col_off + window.width), grid.width - max(across, 0))
            y1 = min(int(window.row_off + window.height), grid.height - max(down, 0))
            if x1 - x0 < 16 or y1 - y0 < 16:
                continue
            here = Window(x0, y0, x1 - x0, y1 - y0)
            there = Window(x0 + across, y0 + down, x1 - x0, y1 - y0)
            fine = _correlate(_grey(*first.read(here)), _grey(*second.read(there)))
            if fine is not None:
                shifts.append((down + fine[0], across + fine[1]))
    if len(shifts) < _FEWEST:
        raise DataError(
            f"{before.describe()}, {after.describe()}: share only {len(shifts)} windows of {side} pixels in which a "
            f"shift can be seen, expected {_FEWEST} or more; leave --register out"
        )
    median = np.median(shifts, axis=0)
    spread = float(np.median(np.abs(np.array(shifts) - median).max(axis=1)))
    if spread > _MOST_SPREAD:
        raise DataError(
            f"{before.describe()}, {after.describe()}: cannot be registered by one shift; those of {len(shifts)} "
            f"windows lie {spread:.1f} pixels around their median {median[1]:+.1f}, {median[0]:+.1f}: leave "
            "--register out, or align the dates with a tool that warps"
        )
    return Shift(columns=float(median[1]), rows=float(median[0]))


def _grey(samples: npt.NDArray[np.generic], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64] | None:
    """One band of zero mean, tapered towards the edges; ``None`` where nothing can be seen."""
    if valid.mean() < 0.5:
        return None
    grey = samples.astype(np.float64).mean(axis=0)
    grey = np.where(valid, grey - grey[valid].mean(), 0.0)
    if not grey.any():
        return None
    taper = np.hanning(grey.shape[0] + 2)[1:-1, None] * np.hanning(grey.shape[1] + 2)[1:-1]
    return np.asarray(grey * taper)


def _correlate(
    first: npt.NDArray[np.float64] | None, second: npt.NDArray[np.float64] | None
) -> tuple[float, float] | None:
    """Rows and columns by which the second image lies off the first."""
    if first is None or second is None or min(first.shape) < 8:
        return None
    # its answer moves the second image back onto the first; scikit-image ships no types
    shift, _, _ = phase_cross_correlation(first, second, upsample_factor=20)  # type: ignore[no-untyped-call]  # scikit-image has no types
    return -float(shift[0]), -float(shift[1])
