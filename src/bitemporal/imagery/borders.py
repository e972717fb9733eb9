"""Borders of exact zeros, which often hold no data although nothing says so."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

LEAST_BORDER = 0.02
"""Share of an image from which a border of zeros is worth a word."""


def zero_border(zero: npt.NDArray[np.bool_], valid: npt.NDArray[np.bool_] | None = None) -> float:
    """The share of an image that is zero and hangs together with its edge, by sides or corners.

    Args:
        zero: Pixels that are exactly zero in every band, H x W.
        valid: Pixels that hold data as far as is known, H x W; others count as outside the image.

    Returns:
        Zeros of the border divided by valid pixels.
    """
    outside = np.zeros_like(zero) if valid is None else ~valid
    zero = zero & ~outside
    # a frame of pixels around the image stands for all that is outside of it
    beyond = np.pad(zero | outside, 1, constant_values=True)
    parts, _ = ndimage.label(beyond, np.ones((3, 3)))
    border = (parts == parts[0, 0])[1:-1, 1:-1]
    # places outside the image may lie apart from its edge, as where a strip of it is missing
    apart = np.unique(parts[1:-1, 1:-1][outside])
    if apart.size:
        border |= np.isin(parts[1:-1, 1:-1], apart)
    total = zero.size - int(outside.sum())
    return float((border & zero).sum() / total) if total else 0.0
