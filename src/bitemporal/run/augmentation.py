"""Augmentation of a pair and its mask together, as in the paper's recipes.

``standard`` and ``changer`` are the two pipelines of the reference configurations (Open-CD; JL1-CD paper). Both dates
move together with the mask in every geometric step; photometric steps act on each date alone. What rotation or
padding uncovers is black in the images and 255 (ignore) in the mask, and counts nowhere afterwards.

Images may have any number of channels. Three of them are taken for red, green and blue; others have no saturation and
no hue, so that photometric steps change their brightness and contrast alone.
"""

from typing import Literal

import torch
from torch import Tensor

from bitemporal._torchvision import tv_tensors, tvf, v2
from bitemporal.imagery.masks import IGNORE
from bitemporal.imagery.scale import RGB

_FILL: dict[type, int] = {tv_tensors.Image: 0, tv_tensors.Mask: IGNORE}
_MAX_CLASS_SHARE = 0.75
_CROP_TRIES = 10


def _chance(probability: float) -> bool:
    return bool(torch.rand(()) < probability)


def _uniform(low: float, high: float) -> float:
    return float(torch.empty(()).uniform_(low, high))


def _pad_to(dates: Tensor, mask: Tensor, size: int) -> tuple[Tensor, Tensor]:
    height, width = mask.shape[-2:]
    padding = [0, 0, max(0, size - width), max(0, size - height)]
    if not any(padding):
        return dates, mask
    return tvf.pad(dates, padding, fill=_FILL[tv_tensors.Image]), tvf.pad(mask, padding, fill=IGNORE)


def random_crop(dates: Tensor, mask: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Crop to size x size at random, preferring crops in which each class fills less than 75 % of the valid pixels.

    Ten places are tried, the last is taken (``cat_max_ratio`` of mmseg). Smaller images are padded right and bottom.

    Args:
        dates: 2 x C x H x W.
        mask: 1 x H x W.
        size: Height and width of the crop.
    """
    dates, mask = _pad_to(dates, mask, size)
    height, width = mask.shape[-2:]
    if (height, width) == (size, size):
        return dates, mask
    top = left = 0
    for _ in range(_CROP_TRIES):
        top = int(torch.randint(height - size + 1, ()))
        left = int(torch.randint(width - size + 1, ()))
        window = mask[..., top : top + size, left : left + size]
        changed, unchanged = int((window == 1).sum()), int((window == 0).sum())
        if 0 < max(changed, unchanged) < _MAX_CLASS_SHARE * (changed + unchanged):
            break
    return tvf.crop(dates, top, left, size, size), tvf.crop(mask, top, left, size, size)


def random_rotation(dates: Tensor, mask: Tensor, degrees: float) -> tuple[Tensor, Tensor]:
    """Rotate by an angle drawn from -degrees..degrees, on the same canvas; uncovered mask pixels become 255."""
    rotation = v2.RandomRotation(degrees, interpolation=v2.InterpolationMode.BILINEAR, fill=_FILL)
    turned: tuple[Tensor, Tensor] = rotation(dates, mask)
    return turned


def random_quarter_turn_and_flip(dates: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate by 0, 90, 180 or 270 degrees, then flip along one axis."""
    turns, axis = int(torch.randint(4, ())), -1 - int(torch.randint(2, ()))

    def turned(images: Tensor) -> Tensor:
        return type(images)(torch.rot90(images.as_subclass(Tensor), turns, (-2, -1)).flip(axis))

    return turned(dates), turned(mask)


def photometric_distortion(image: Tensor) -> Tensor:
    """Distort one date's brightness (+-10 of 255), contrast, saturation (0.8..1.2) and hue (+-20 degrees).

    Each step is taken with probability 0.5; contrast comes before or after saturation and hue, by chance. Images of
    other than three channels have neither saturation nor hue.

    Args:
        image: C x H x W uint8.
    """

    def contrast(values: Tensor) -> Tensor:
        if not _chance(0.5):
            return values
        return (values.float() * _uniform(0.8, 1.2)).clamp(0, 255).to(torch.uint8)

    if _chance(0.5):
        image = (image.float() + _uniform(-10, 10)).clamp(0, 255).to(torch.uint8)
    contrast_first = _chance(0.5)
    if contrast_first:
        image = contrast(image)
    if len(image) == RGB:
        if _chance(0.5):
            image = tvf.adjust_saturation(image, _uniform(0.8, 1.2))
        if _chance(0.5):
            image = tvf.adjust_hue(image, _uniform(-20 / 360, 20 / 360))
    return image if contrast_first else contrast(image)


def augment(
    dates: Tensor, mask: Tensor, recipe: Literal["standard", "changer", "none"], size: int
) -> tuple[Tensor, Tensor]:
    """Augment a pair and its mask.

    Args:
        dates: Before and after, 2 x C x H x W uint8.
        mask: Decoded change mask, H x W uint8: 0, 1, and 255 for ignored pixels.
        recipe: ``standard``: rotation (p 0.5, +-180 degrees), crop, flips, photometric distortion. ``changer``:
            rotation (p 0.5, +-20 degrees), else quarter turn and flip (p 0.5), crop, exchange of the dates (p 0.5),
            photometric distortion. ``none``: crop alone.
        size: Height and width of the crop.

    Returns:
        Dates, 2 x C x size x size uint8, and mask, size x size uint8. Randomness comes from torch's global generator.
    """
    dates, mask = tv_tensors.Image(dates), tv_tensors.Mask(mask[None])
    if recipe == "standard" and _chance(0.5):
        dates, mask = random_rotation(dates, mask, 180)
    elif recipe == "changer":
        if _chance(0.5):
            dates, mask = random_rotation(dates, mask, 20)
        elif _chance(0.5):
            dates, mask = random_quarter_turn_and_flip(dates, mask)
    dates, mask = random_crop(dates, mask, size)
    if recipe == "standard":
        dates, mask = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()])(dates, mask)
    if recipe == "changer" and _chance(0.5):
        dates = dates.flip(0)
    dates, mask = dates.as_subclass(Tensor), mask.as_subclass(Tensor)[0]
    if recipe != "none":
        dates = torch.stack([photometric_distortion(date) for date in dates])
    return dates, mask
