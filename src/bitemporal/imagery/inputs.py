"""The inputs of a detector: paths, arrays and tensors, converted to one form and checked."""

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from torch import Tensor

from bitemporal.errors import DataError
from bitemporal.imagery.scale import RGB, check_bands, check_image_range, read_image

Image = str | os.PathLike[str] | PIL.Image.Image | npt.NDArray[Any] | Tensor
"""One image of one date: a path, an image of Pillow, an array H x W x C or a tensor C x H x W, uint8 or float, in
0..255. C is the number of channels that the detector takes, 3 for most."""

Images = Image | Sequence[Image]
"""One image, or a batch: a sequence of images, an array N x H x W x C or a tensor N x C x H x W."""


@dataclass(frozen=True)
class Reading:
    """How the images that a network sees are read from files.

    Attributes:
        channels: Channels of the network.
        bands: Bands that become the channels, counted from 1; red, green and blue by default.
        image_range: Values that become 0 and 255 in images of more than 8 bits, or such a pair for each channel.

    Raises:
        OptionError: When bands or range cannot be used.
    """

    channels: int = RGB
    bands: tuple[int, ...] | None = None
    image_range: tuple[float, ...] | None = None

    def __str__(self) -> str:
        """What messages call it."""
        bands = "red, green and blue" if self.bands is None else f"bands {','.join(map(str, self.bands))}"
        values = (
            "" if self.image_range is None else f" of values {','.join(f'{value:g}' for value in self.image_range)}"
        )
        return f"{self.channels} {'channel' if self.channels == 1 else 'channels'}, {bands}{values}"

    def __post_init__(self) -> None:
        """Check bands and range."""
        check_bands(self.bands)
        check_image_range(self.image_range, self.bands)


def check_images(images: Tensor, name: str, channels: int = RGB) -> Tensor:
    """Refuse a tensor that cannot be images.

    Args:
        images: ... x C x H x W.
        name: What the message calls them.
        channels: The C that is expected.

    Returns:
        The same tensor.

    Raises:
        DataError: When it has other channels or no pixel, is neither uint8 nor float, or leaves 0..255.
    """
    shape = tuple(images.shape)
    if images.ndim >= 3 and 0 in shape[-2:]:
        raise DataError(f"{name}: has no pixel, as it is {shape[-2]} x {shape[-1]} (height x width); give an image")
    if images.ndim < 3 or shape[-3] != channels:
        raise DataError(
            f"{name}: found a tensor of shape {shape}, expected {_channels(channels)} first, {channels} x H x W or "
            f"N x {channels} x H x W; {_channel_remedy(channels)}, permute channels that come last"
        )
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise _wrong_type(name, images.dtype, "values.to(torch.uint8)")
    if images.numel() == 0:
        return images
    low, high = (float(value) for value in torch.aminmax(images))
    if not math.isfinite(low + high):  # aminmax passes NaN on
        raise DataError(
            f"{name}: found NaN or infinity, expected finite values in 0..255; replace such pixels, for "
            "example with nan_to_num(values, posinf=0, neginf=0) of numpy or torch"
        )
    if not (low >= 0.0 and high <= 255.0):
        raise DataError(
            f"{name}: found values from {low:g} to {high:g}, expected finite values in 0..255, neither normalised nor "
            "of more than 8 bits; rescale the image"
        )
    if 0.0 < high <= 1.0:
        warnings.warn(
            f"{name}: float values reach only {high:g}; 0..255 is expected, so this image would be read as almost "
            "black; multiply by 255 if it is scaled to 0..1",
            stacklevel=2,
        )
    return images


def _channels(count: int) -> str:
    return {1: "one channel", 3: "three channels"}.get(count, f"{count} channels")


def _channel_remedy(channels: int) -> str:
    if channels == RGB:
        return "repeat a grey band three times, drop alpha"
    return f"give the {channels} bands that the detector was trained on, in their order"


def _wrong_type(name: str, found: object, conversion: str) -> DataError:
    """The error for values that are neither uint8 nor float; ``conversion`` is code that makes them uint8."""
    return DataError(
        f"{name}: found {found}, expected uint8 or float values in 0..255; if all are in 0..255, give {conversion}; "
        "otherwise scale them, as in (values / 3000 * 255).clip(0, 255) for values of 0..3000"
    )


def _of_array(array: npt.NDArray[Any], name: str, channels: int) -> Tensor:
    if array.ndim not in (3, 4) or array.shape[-1] != channels:
        raise DataError(
            f"{name}: found an array of shape {array.shape}, expected {_channels(channels)} last, H x W x {channels} "
            f"or N x H x W x {channels}; {_channel_remedy(channels)} (tensors are {channels} x H x W)"
        )
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise _wrong_type(name, array.dtype, 'values.astype("uint8")')
    # float32 is what networks take; the cast also converts foreign byte orders
    values = np.ascontiguousarray(array, dtype=np.uint8 if array.dtype == np.uint8 else np.float32)
    return torch.from_numpy(values if values.flags.writeable else values.copy()).movedim(-1, -3)


def _of_pillow(image: PIL.Image.Image, name: str, channels: int) -> Tensor:
    """An image of Pillow: as it is where its bands are the channels; grey, palette and alpha images become RGB."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise _wrong_type(
            name, f"an image of Pillow of mode {image.mode}", 'values.astype("uint8") of values = numpy.asarray(image)'
        )
    fits = len(image.getbands()) == channels and image.mode not in ("1", "P")
    return _of_array(np.asarray(image if fits else image.convert("RGB")), name, channels)


def _tensor(image: object, name: str, reading: Reading) -> Tensor:
    """One image or one stacked batch, checked."""
    channels = reading.channels
    if isinstance(image, str | os.PathLike):
        return _of_array(read_image(image, reading.image_range, reading.bands), str(image), channels)
    if isinstance(image, PIL.Image.Image):
        return _of_pillow(image, name, channels)
    if isinstance(image, np.ndarray):
        return check_images(_of_array(image, name, channels), name, channels)
    if isinstance(image, Tensor):
        if image.ndim > 4:
            raise DataError(
                f"{name}: found a tensor of shape {tuple(image.shape)}, expected {channels} x H x W or "
                f"N x {channels} x H x W"
            )
        return check_images(image.detach(), name, channels)
    raise DataError(f"{name}: found {type(image).__name__}, expected a path, an image of Pillow, an array or a tensor")


def _batch(images: Images, name: str, reading: Reading) -> tuple[list[Tensor], bool]:
    """Images as tensors C x H x W, and whether they were given as one single image."""
    if not isinstance(images, list | tuple):
        tensor = _tensor(images, name, reading)
        return ([tensor], True) if tensor.ndim == 3 else (list(tensor), False)
    batch = [_tensor(image, f"{name}[{index}]", reading) for index, image in enumerate(images)]
    for index, image in enumerate(batch):
        if image.ndim != 3:
            raise DataError(
                f"{name}[{index}]: found a batch of shape {tuple(image.shape)} in a list, expected one image"
            )
    return batch, False


def as_pairs(before: Images, after: Images, reading: Reading = Reading()) -> tuple[list[Tensor], list[Tensor], bool]:
    """Bring both dates to lists of tensors.

    Args:
        before: Image or images of date 1.
        after: Image or images of date 2, as many, each of the size of its counterpart.
        reading: How files are read, and the channels of all images; three by default.

    Returns:
        Images of date 1 and of date 2, each C x H x W uint8 or float in 0..255; whether it is one single pair.

    Raises:
        DataError: When an image is unreadable or unusable, or the dates differ in number or size.
    """
    (first, single), (second, single_second) = (
        _batch(images, name, reading) for images, name in ((before, "before"), (after, "after"))
    )
    if single != single_second or len(first) != len(second):
        one, other = (
            "one image" if alone else f"a batch of {len(batch)}"
            for batch, alone in ((first, single), (second, single_second))
        )
        raise DataError(f"before is {one}, after {other}; expected the same number of images of both dates")
    for index, (a, b) in enumerate(zip(first, second, strict=True)):
        if a.shape != b.shape:
            where = "" if single else f" of pair {index}"
            raise DataError(
                f"sizes{where} differ: before is {a.shape[-2]} x {a.shape[-1]}, after {b.shape[-2]} x {b.shape[-1]} "
                "(height x width); the images of a pair must cover the same pixels: crop or resample one of them"
            )
    return first, second, single
