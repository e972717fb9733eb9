"""The range of values that becomes 0..255, per channel, and the same for both dates."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bitemporal.errors import DataError
from bitemporal.imagery.scale import ValueRange, channel_ranges, scale
from bitemporal.scenes.grids import DateOnGrid, windows_on
from bitemporal.scenes.sources import Source, open_raster

_PERCENTILES = (1.0, 99.0)
_FEW = 10_000
"""Percentiles of fewer values are not trusted."""

_OTHER_UNIT = 100.0
"""Values so many times narrower than the range of the training are of another unit."""

_SIDE = 1024
"""Pixels of the longer side of the overview that is read."""


@dataclass(frozen=True)
class Look:
    """A small picture of a date: its overview, or windows spread over it, put side by side.

    Attributes:
        samples: C x h x w, after scale and offset.
        valid: h x w.
    """

    samples: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_]


def look(source: Source) -> Look:
    """Look at a date, on its own grid.

    Raises:
        DataError: When pixels cannot be read.
    """
    grid = source.grid
    with DateOnGrid(source, grid) as date:
        if max(grid.width, grid.height) > _SIDE and not all(
            _has_overviews(file, source.allow_vrt) for file in source.files
        ):
            windows = windows_on(grid, 8, _SIDE // 8)
            reads = [date.read(window) for window in windows]
            if sum(int(valid.sum()) for _, valid in reads) >= _FEW:  # else what is valid lies between them
                across = len({window.col_off for window in windows})
                samples, valid = (
                    np.concatenate(
                        [np.concatenate(parts[i : i + across], axis=-1) for i in range(0, len(parts), across)], axis=-2
                    )
                    for parts in zip(*reads, strict=True)
                )
                return Look(samples, valid)
        return Look(*date.read_overview(_SIDE))


def value_range(
    before: Source,
    after: Source,
    looks: tuple[Look, Look],
    given: Sequence[float] | None = None,
    of_training: Sequence[float] | None = None,
) -> ValueRange:
    """The values of each channel that become 0 and 255.

    Args:
        before: Date 1.
        after: Date 2.
        looks: A look at each of them.
        given: A lowest and a highest value for all channels, or such a pair for each, after scale and offset.
        of_training: Likewise, what the detector was trained on.

    Returns:
        What is given; all values for up to 8 bits without scale and offset; else what the detector was trained on;
        where that is unknown, or is of another unit, the 1st and the 99th percentile of both dates' valid values
        together.

    Raises:
        DataError: When the dates differ in type, are not both physical, and no range is given; or no value is valid.
        OptionError: When what is given is not a range.
    """
    if given is not None:
        return channel_ranges(given, len(before.channels))
    one_type = before.value_type == after.value_type
    if one_type and before.dtype == "uint8" and before.scaling is None and after.scaling is None:
        return ((0.0, 2.0 ** (before.bits or 8) - 1),) * len(before.channels)
    samples = np.concatenate([seen.samples[:, seen.valid] for seen in looks], axis=1).astype(np.float64)
    if samples.shape[1] == 0:
        raise DataError(
            f"{before.describe()}, {after.describe()}: hold no valid pixel; expected at least one: check nodata"
        )
    low, high = np.percentile(samples, _PERCENTILES, axis=1)
    if not one_type and not (before.is_physical and after.is_physical):
        lowest, highest = (f"{value:g}" for value in (low.min(), max(high.max(), low.min() + 1)))
        raise DataError(
            f"{before.describe()} holds {before.value_type}, {after.describe()} {after.value_type}, and nothing states "
            "that both are in the same unit; expected one range of values that serves both: state which values "
            f"become 0 and 255, such as --image-range {lowest},{highest} (image_range=({lowest}, {highest})), which "
            "is what they hold together"
        )
    if of_training is not None:
        trained = channel_ranges(of_training, len(before.channels))
        widths = [(b - a) / max(upper - lower, 1e-12) for (lower, upper), a, b in zip(trained, low, high, strict=True)]
        if (before.scaling is None and after.scaling is None) or max(widths) > 1 / _OTHER_UNIT:
            return trained
        warnings.warn(
            f"{before.describe()}, {after.describe()}: hold {low.min():g} to {high.max():g} after scale and offset, "
            f"but the detector was trained on {trained[0][0]:g} to {trained[0][1]:g}, so the units must differ; the "
            f"percentiles of both dates are used; others are stated as in --image-range {low.min():g},{high.max():g}",
            UserWarning,
            stacklevel=2,
        )
    # a channel that is constant: any width will do
    return tuple((float(a), float(b) if b > a else float(a) + 1.0) for a, b in zip(low, high, strict=True))


def _has_overviews(path: str, allow_vrt: bool) -> bool:
    with open_raster(path, allow_vrt) as dataset:
        return bool(dataset.overviews(1))


def scale_channels(samples: npt.NDArray[np.generic], ranges: ValueRange) -> npt.NDArray[np.uint8]:
    """Values C x H x W as 0..255; as they are where 8 bits need no scaling."""
    if samples.dtype == np.uint8 and all(pair == (0.0, 255.0) for pair in ranges):
        return samples.astype(np.uint8, copy=False)
    low, high = (np.array(side)[:, None, None] for side in zip(*ranges, strict=True))
    return scale(samples, low, high)
