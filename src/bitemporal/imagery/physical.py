"""Stored values that stand for physical ones, by a scale and an offset of each band."""

from typing import Any

import numpy as np
import numpy.typing as npt

Scaling = tuple[tuple[float, float], ...]
"""Scale and offset of each channel: stored values times the scale, plus the offset, are physical ones."""

UNSCALED = (1.0, 0.0)
"""Scale and offset of a band whose values are physical, or not said to be others."""


def to_physical(samples: npt.NDArray[Any], scaling: Scaling, axis: int) -> npt.NDArray[np.float64]:
    """Stored values times scale plus offset.

    The offset is added in units of the stored values: there it is a whole number as a rule, so that values are the same
    bit for bit whether an offset is stored or not.

    Args:
        samples: As stored.
        scaling: Scale and offset of each channel.
        axis: Axis of the channels.
    """
    shape = [1] * samples.ndim
    shape[axis] = len(scaling)
    scales, offsets = (np.reshape(side, shape) for side in zip(*scaling, strict=True))
    return np.asarray((samples + offsets / scales) * scales, np.float64)
