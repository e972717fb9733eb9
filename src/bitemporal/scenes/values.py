"""The range of values that becomes 0..255, per channel, and the same for both dates."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bitemporal.errors import DataError
from bitemporal.imagery.scale import ValueRange, channel_ranges, scale
from bitemporal.scenes.grids import DateOnGrid, windows_on
from bitemporal.scenes.sources import Source, open_raster

_PERCENTILES = (1.0, 99.0)
_FEW = 10_000
"""Percentiles of fewer values are not trusted."""

_SIDE = 1024
"""Pixels of the longer side of the overview that is read."""


def value_range(
    before: Source, after: Source, given: Sequence[float] | None = None, of_training: Sequence[float] | None = None
) -> ValueRange:
    """The values of each channel that become 0 and 255.

    Args:
        before: Date 1.
        after: Date 2.
        given: A lowest and a highest value for all channels, or such a pair for each.
        of_training: Likewise, what the detector was trained on.

    Returns:
        What is given; 0 and 255 for 8 bits; else what the detector was trained on; where that is unknown, the 1st and
        the 99th percentile of both dates' valid values together, from overviews, or from windows spread over the scene
        where a file has none.

    Raises:
        DataError: When the dates differ in type, or no value is valid.
        OptionError: When what is given is not a range.
    """
    if before.dtype != after.dtype:
        raise DataError(
            f"{before.describe()} holds {before.dtype}, {after.describe()} {after.dtype}; expected one type, as one "
            "range of values serves both dates: convert one with `gdal_translate -ot`"
        )
    if given is not None:
        return channel_ranges(given, len(before.channels))
    if before.dtype == "uint8":
        return ((0.0, 255.0),) * len(before.channels)
    if of_training is not None:
        return channel_ranges(of_training, len(before.channels))
    samples = np.concatenate([_samples(source) for source in (before, after)], axis=1)
    if samples.shape[1] == 0:
        raise DataError(f"{before.describe()}, {after.describe()}: hold no valid pixel; expected some: check nodata")
    low, high = np.percentile(samples, _PERCENTILES, axis=1)
    # a channel that is constant: any width will do
    return tuple((float(a), float(b) if b > a else float(a) + 1.0) for a, b in zip(low, high, strict=True))


def _samples(source: Source) -> npt.NDArray[np.float64]:
    """Valid values of a date, C x n."""
    grid = source.grid
    with DateOnGrid(source, grid) as date:
        reads = []
        if max(grid.width, grid.height) > _SIDE and not all(map(_has_overviews, source.files)):
            reads = [date.read(window) for window in windows_on(grid, 8, _SIDE // 8)]
        if sum(int(valid.sum()) for _, valid in reads) < _FEW:  # no windows, or what is valid lies between them
            reads = [date.read_overview(_SIDE)]
    return np.concatenate([values[:, valid] for values, valid in reads], axis=1).astype(np.float64)


def _has_overviews(path: str) -> bool:
    with open_raster(path) as dataset:
        return bool(dataset.overviews(1))


def scale_channels(samples: npt.NDArray[np.generic], ranges: ValueRange) -> npt.NDArray[np.uint8]:
    """Values C x H x W as 0..255; as they are where 8 bits need no scaling."""
    if samples.dtype == np.uint8 and all(pair == (0.0, 255.0) for pair in ranges):
        return samples.astype(np.uint8, copy=False)
    low, high = (np.array(side)[:, None, None] for side in zip(*ranges, strict=True))
    return scale(samples, low, high)
