"""From the samples of an image to the 8-bit channels of a network, by one range rule.

Values LOW..HIGH are scaled linearly to 0..255, clipped and rounded to 8 bits. Pairs on disk (training, evaluation,
prediction) and scenes all go through ``scale``, so that a network sees the same pixels everywhere. Rounding keeps
every image in one type, a quarter of the memory of float32, and its error, at most 1/510 of the stated range, is
below what the 8-bit images that most networks were pretrained on hold anyway.
"""

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from bitemporal.errors import OptionError
from bitemporal.imagery.decode import decode
from bitemporal.imagery.decoded import BANDS, Decoded, FileFault, choose_bands
from bitemporal.imagery.masks import without_data
from bitemporal.imagery.with_pillow import DEEP_MODES

RGB = 3
"""Channels of a network, unless bands are chosen."""

ValueRange = tuple[tuple[float, float], ...]
"""Lowest and highest value of each channel, which become 0 and 255."""


def check_bands(bands: Sequence[int] | None) -> None:
    """Refuse bands that no file has.

    Raises:
        OptionError: When there is none, or one is below 1.
    """
    if bands is not None and (not bands or min(bands) < 1):
        raise OptionError(
            f"bands: found {tuple(bands)}, expected at least one band, counted from 1, as in --bands 3,2,1"
        )


def channel_ranges(image_range: Sequence[float], channels: int = RGB) -> ValueRange:
    """The range of each channel.

    Args:
        image_range: LOW, HIGH for all channels, or such a pair for each, one after the other.
        channels: Number of channels.

    Raises:
        OptionError: When it is neither, or some LOW is not below its HIGH.
    """
    values = [float(value) for value in image_range]
    if len(values) == 2:
        values *= channels
    pairs = tuple(zip(values[::2], values[1::2], strict=False))
    if len(values) != 2 * channels or not all(math.isfinite(low) and low < high < math.inf for low, high in pairs):
        raise OptionError(
            f"image_range: found {tuple(image_range)}, expected two finite numbers LOW,HIGH, or such a pair for each "
            f"of {channels} channels, with LOW below HIGH, for example --image-range 0,3000"
        )
    return pairs


def check_image_range(image_range: Sequence[float] | None, bands: Sequence[int] | None = None) -> None:
    """Refuse a range that is no range, or does not fit the bands; see ``channel_ranges``.

    Raises:
        OptionError: When it cannot be used.
    """
    if image_range is not None:
        channel_ranges(image_range, RGB if bands is None else len(bands))


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


def mostly_clipped(
    samples: npt.NDArray[Any], image_range: Sequence[float], valid: npt.NDArray[np.bool_] | None = None
) -> str:
    """A warning where a range leaves most of an image black or white; empty where it does not.

    Values that are exactly the ends of the range are not counted: they are often borders, or masks.

    Args:
        samples: H x W x C.
        image_range: See ``channel_ranges``.
        valid: Pixels with data, H x W; all by default.
    """
    low, high = np.transpose(channel_ranges(image_range, samples.shape[-1]))
    counted = np.isfinite(samples) & (samples != low) & (samples != high)
    if valid is not None:
        counted &= valid[..., None]
    shown = scale(samples, low, high)[counted]
    if 2 * np.count_nonzero((shown == 0) | (shown == 255)) <= shown.size:
        return ""
    listed = ",".join(f"{value:g}" for value in image_range)
    return f"the range {listed} turns more than half of its values black or white; give one that covers most of them"


_AS_MANY = "a network takes as many channels as are named"
_REFLECTANCES = 10_000
"""The most that integers of reflectances usually are."""


def _outwards(low: float, high: float) -> tuple[int, int]:
    """A range of one digit around values, so that similar files are told the same."""
    step = 10 ** max(0, math.floor(math.log10(max(abs(low), abs(high), 1))))
    return min(0, math.floor(low / step) * step), max(0, math.ceil(high / step) * step)


def check_usable(decoded: Decoded, image_range: Sequence[float] | None) -> None:
    """Refuse an image whose channels, or whose range of values, would have to be guessed.

    Raises:
        FileFault: When it has more than 8 bits and no range is stated, or other bands than grey, red, green, blue and
            alpha, and none are chosen; the text names the option.
    """
    if decoded.mode == BANDS and decoded.bands is None:
        count = decoded.samples.shape[-1]
        what = f"has {count} bands, none of which is marked as red, green or blue"
        raise FileFault(decoded.path, what, f"{choose_bands(count, decoded.names)}; {_AS_MANY}")
    if decoded.depth <= 8 or image_range is not None:
        return
    samples = decoded.samples
    finite = samples[np.isfinite(samples)]
    found = f"values {finite.min():g} to {finite.max():g}" if finite.size else "no finite value"
    fitting = "--image-range 0,3000 (image_range=(0, 3000)) for Sentinel-2 reflectances"
    if finite.size and (finite.min() < 0 or finite.max() > _REFLECTANCES):
        low, high = _outwards(float(finite.min()), float(finite.max()))
        fitting = f"--image-range {low},{high} (image_range=({low}, {high})) for the values of this file"
    elif samples.dtype.kind == "f" and finite.size and finite.max() < 10:
        fitting = "--image-range 0,1 (image_range=(0, 1)) for reflectances of 0 to 1"
    raise FileFault(
        decoded.path,
        f"has {decoded.depth} bits per sample ({found})",
        f"state which values become 0 and 255, for example {fitting}; values between are scaled linearly, others "
        "clipped",
    )


def to_channels(decoded: Decoded, image_range: Sequence[float] | None = None) -> npt.NDArray[np.uint8]:
    """The channels of a network, of the bands that were chosen, else 8-bit RGB.

    Args:
        decoded: Result of ``decode``.
        image_range: Values that become 0 and 255 in images of more than 8 bits per sample, for all channels or a pair
            for each; other images stay as they are.

    Returns:
        H x W x C, writable: one channel for each chosen band; else three, of which a grey image fills all.

    Raises:
        FileFault: When the image has more than 8 bits and no range is given, or more bands than colours and none are
            chosen.
        OptionError: When the range does not fit the channels.
    """
    check_usable(decoded, image_range)
    if isinstance(decoded.pixels, np.ndarray) or decoded.depth > 8:
        samples = decoded.samples
        if decoded.bands is None:
            samples = samples[..., :RGB] if decoded.mode in ("RGB", "RGBA", "RGBX") else _grey(samples)
        if decoded.depth <= 8 or image_range is None:
            return np.require(samples, requirements=["C", "W"])  # torch warns of arrays that cannot be written to
        return scale(samples, *np.transpose(channel_ranges(image_range, samples.shape[-1])))
    return _rgb(decoded.pixels)


_PIXELS_AT_ONCE = 2**22


def _rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    """An image of Pillow as H x W x 3, some rows at a time: Pillow makes several copies of what it hands over."""
    pixels = np.empty((image.height, image.width, RGB), np.uint8)
    rows = max(1, _PIXELS_AT_ONCE // image.width)
    for row in range(0, image.height, rows):
        strip = image.crop((0, row, image.width, min(row + rows, image.height)))
        pixels[row : row + rows] = np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))
    return pixels


def to_picture(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Channels as a picture for people, H x W x 3: the first three as red, green and blue, or the first alone as grey.

    Args:
        pixels: H x W x C.
    """
    return pixels[..., :RGB] if pixels.shape[-1] >= RGB else _grey(pixels[..., 0])


def _grey(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A grey image, H x W, or H x W x 2 with alpha, repeated to three channels."""
    return np.repeat((samples if samples.ndim == 2 else samples[..., 0])[..., None], RGB, axis=-1)


def image_notes(decoded: Decoded, image_range: Sequence[float] | None = None) -> tuple[str, ...]:
    """What the user should know about an image, including what turning it into channels does to it.

    Args:
        decoded: Result of ``decode``.
        image_range: See ``to_channels``.
    """
    match decoded.mode:
        case "RGB" | "bands":
            conversion = ""
        case "RGBX":
            conversion = (
                "more bands than red, green and blue, and only these are used; choose others as in --bands 4,3,2"
            )
        case "RGBA" | "RGBa":
            conversion = "RGBA image; its alpha channel is dropped"
            if decoded.format == "TIFF":  # GDAL takes any fourth band of 8 bits for alpha
                conversion += "; if these are other bands, name those to use, as in --bands 3,2,1"
        case "P" | "PA":
            conversion = "palette image, converted to RGB"
        case "1" | "L" | "LA" | "La":
            conversion = "grey image, repeated to three channels"
        case mode if mode in DEEP_MODES:
            conversion = "grey image, repeated to three channels"
        case mode:
            conversion = f"{mode} image, converted to RGB"
    clipped = ""
    if image_range is not None and decoded.depth > 8:
        samples = np.atleast_3d(decoded.samples)
        used = (
            samples if decoded.bands is not None else samples[..., :RGB] if decoded.mode != "LA" else samples[..., :1]
        )
        if used.shape[-1] == 1:  # repeated to three channels, perhaps of a range each
            used = np.repeat(used, len(image_range) // 2, axis=-1)
        clipped = mostly_clipped(used, image_range, ~without_data(used, decoded.nodata))
    return (*decoded.notes, *filter(None, (conversion, clipped)))


def read_image(
    path: str | os.PathLike[str],
    image_range: Sequence[float] | None = None,
    bands: Sequence[int] | None = None,
) -> npt.NDArray[np.uint8]:
    """Read one image as the 8-bit channels of a network, RGB by default.

    Without ``bands``, grey, palette and RGBA images are converted with a warning (``UserWarning``). Orientation tags
    are ignored, except in TIFF, whose reader applies them.

    Args:
        path: A png, jpg, bmp, tif or webp file; the content decides, not the extension.
        image_range: LOW and HIGH values that become 0 and 255, or such a pair for each channel, required for images of
            more than 8 bits per sample and without effect on others. Values between are scaled linearly, values
            outside clipped, NaN becomes 0.
        bands: Bands that become the channels, counted from 1.

    Returns:
        uint8, H x W x C: C is 3, or the number of chosen bands.

    Raises:
        DataError: When the file is missing, no image, damaged, truncated, above 512 megapixels, has more than 8 bits
            per sample and no range is given, or bands that have to be chosen.
        OptionError: When ``image_range`` is no range, or ``bands`` are no bands.
    """
    check_bands(bands)
    check_image_range(image_range, bands)
    decoded = decode(Path(path), bands)
    pixels = to_channels(decoded, image_range)
    for note in image_notes(decoded, image_range):
        warnings.warn(f"{decoded.path}: {note}", UserWarning, stacklevel=2)
    return pixels
