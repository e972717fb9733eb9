"""From the samples of an image to 8-bit RGB, by one range rule.

Values LOW..HIGH are scaled linearly to 0..255, clipped and rounded to 8 bits. Pairs on disk (training, evaluation,
prediction) and scenes all go through ``scale``, so that a network sees the same pixels everywhere. Rounding keeps
every image in one type, a quarter of the memory of float32, and its error, at most 1/510 of the stated range, is
below what the 8-bit images that most networks were pretrained on hold anyway.
"""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitemporal.errors import OptionError
from bitemporal.imagery.decode import DEEP_MODES, Decoded, FileFault, decode


def check_image_range(image_range: tuple[float, float] | None) -> None:
    """Refuse a range that is no range.

    Raises:
        OptionError: When it is not two finite numbers, the first below the second.
    """
    if image_range is None:
        return
    if len(image_range) != 2 or not np.isfinite(image_range).all() or not image_range[0] < image_range[1]:
        raise OptionError(
            f"image_range: found {tuple(image_range)}, expected two finite numbers LOW,HIGH with LOW below HIGH, "
            "for example 0,65535"
        )


def scale(samples: npt.NDArray[Any], low: npt.ArrayLike, high: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Scale LOW..HIGH linearly to 0..255, clip, and round; NaN becomes 0.

    Args:
        samples: Array of any shape.
        low: Values that become 0, broadcast against the samples.
        high: Values that become 255, above ``low``.
    """
    lowest = np.asarray(low, np.float64)
    scaled = (samples - lowest) * (255.0 / (np.asarray(high, np.float64) - lowest))
    return np.rint(np.clip(np.nan_to_num(scaled, copy=False, nan=0.0), 0.0, 255.0)).astype(np.uint8)


def check_has_range(decoded: Decoded, image_range: tuple[float, float] | None) -> None:
    """Refuse an image of more than 8 bits without a stated range.

    Raises:
        FileFault: Naming the option.
    """
    if decoded.depth <= 8 or image_range is not None:
        return
    samples = decoded.samples
    raise FileFault(
        decoded.path,
        f"has {decoded.depth} bits per sample (values {np.nanmin(samples):g} to {np.nanmax(samples):g})",
        "state the range of values to show: image_range=LOW,HIGH (--image-range LOW,HIGH), for example 0,65535 or, "
        "for Sentinel-2 reflectances, 0,3000; it is scaled linearly to 0..255 and clipped",
    )


def to_rgb(decoded: Decoded, image_range: tuple[float, float] | None = None) -> npt.NDArray[np.uint8]:
    """8-bit RGB of a decoded image.

    Args:
        decoded: Result of ``decode``.
        image_range: Values that become 0 and 255 in images of more than 8 bits per sample; other images stay as they
            are.

    Returns:
        H x W x 3.

    Raises:
        FileFault: When the image has more than 8 bits and no range is given.
    """
    check_has_range(decoded, image_range)
    if decoded.depth > 8 and image_range is not None:
        pixels = scale(decoded.samples, *image_range)
        return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)
    assert not isinstance(decoded.pixels, np.ndarray)  # of at most 8 bits
    return np.asarray(decoded.pixels if decoded.mode == "RGB" else decoded.pixels.convert("RGB"))


def image_notes(decoded: Decoded) -> tuple[str, ...]:
    """What the user should know about an image, including what turning it into RGB does to it."""
    match decoded.mode:
        case "RGB":
            conversion = ""
        case "RGBA" | "RGBX" | "RGBa":
            conversion = "RGBA image, of which the alpha channel is dropped"
        case "P" | "PA":
            conversion = "palette image, converted to RGB"
        case "1" | "L" | "LA" | "La":
            conversion = "grey image, repeated to three channels"
        case mode if mode in DEEP_MODES:
            conversion = "grey image, repeated to three channels"
        case mode:
            conversion = f"{mode} image, converted to RGB"
    return (*decoded.notes, conversion) if conversion else decoded.notes


def read_image(path: str | os.PathLike[str], image_range: tuple[float, float] | None = None) -> npt.NDArray[np.uint8]:
    """Read one image as 8-bit RGB.

    Grey, palette and RGBA images are converted with a warning (``UserWarning``). Orientation tags are ignored, except
    in TIFF, whose reader applies them.

    Args:
        path: A png, jpg, bmp, tif or webp file; the content decides, not the extension.
        image_range: LOW and HIGH values that become 0 and 255, required for images of more than 8 bits per sample and
            without effect on others. Values between are scaled linearly, values outside clipped, NaN becomes 0.

    Returns:
        uint8, H x W x 3.

    Raises:
        DataError: When the file is missing, no image, damaged, truncated, above 512 megapixels, or has more than
            8 bits per sample and no range is given.
        OptionError: When ``image_range`` is no range.
    """
    check_image_range(image_range)
    decoded = decode(Path(path))
    pixels = to_rgb(decoded, image_range)
    for note in image_notes(decoded):
        warnings.warn(f"{decoded.path}: {note}", UserWarning, stacklevel=2)
    return pixels
