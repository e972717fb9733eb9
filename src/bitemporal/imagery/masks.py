"""Mask files: their samples, before anything is made of them, and the masks of other programs.

A decoded mask is uint8, H x W: 0 unchanged, 1 changed, ``IGNORE`` for pixels that count nowhere. ``labels.py`` reads
the change masks of a data set. Masks of other programs are read here, one by one and strictly: what could mean two
things is refused.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from bitemporal.errors import DataError
from bitemporal.imagery.decode import decode
from bitemporal.imagery.decoded import BANDS, Decoded, FileFault
from bitemporal.imagery.marks import THRESHOLD, as_threshold
from bitemporal.imagery.opening import open_dataset
from bitemporal.imagery.with_pillow import open_with_pillow
from bitemporal.reading import reading
from bitemporal.remedies import as_typed

IGNORE = 255
"""Value of a decoded mask's pixels that count nowhere (rotation padding, nodata)."""

JPEG = ("JPEG", "MPO", "WEBP", "JPEG2000")
"""Formats whose compression changes values."""

ONE_CHANNEL = "save the mask as one grey channel, 0 unchanged and 255 changed, as PNG"
"""What always helps where no option does."""

_COLOUR_MODES = ("RGB", "RGBX", "RGBA", "LA")
_OTHER_COLOUR_SPACES = ("CMYK", "YCbCr", "LAB", "HSV")


@dataclass(frozen=True, slots=True)
class MaskSamples:
    """The samples of a mask file.

    Attributes:
        channels: H x W, or H x W x C, all that the file holds; red, green and blue of other colour spaces.
        samples: The same without an alpha channel.
        alpha: H x W, the alpha channel, if any.
        palette: Colour of every index, 256 x 3, for a palette image.
        stored: Number of colours that the palette has.
        grey: The channel that all others equal, H x W; ``None`` for colours and palette images.
        colour: Whether several channels are colours of 8 bits, and not bands of another meaning.
    """

    channels: npt.NDArray[Any]
    samples: npt.NDArray[Any]
    alpha: npt.NDArray[Any] | None = None
    palette: npt.NDArray[np.uint8] | None = None
    stored: int = 0
    grey: npt.NDArray[Any] | None = None
    colour: bool = False

    @classmethod
    def of(cls, decoded: Decoded) -> "MaskSamples":
        """Take a decoded file apart."""
        channels = samples = decoded.samples
        if decoded.mode == "P" and isinstance(decoded.pixels, Image.Image):
            palette = np.zeros((256, 3), np.uint8)
            colours = (decoded.pixels.getpalette("RGB") or [])[: palette.size]
            palette.reshape(-1)[: len(colours)] = colours
            return cls(channels, samples, palette=palette, stored=len(colours) // 3)
        if samples.ndim == 2:
            return cls(channels, samples, grey=samples)
        if decoded.mode in _OTHER_COLOUR_SPACES and isinstance(decoded.pixels, Image.Image):
            samples = np.asarray(decoded.pixels.convert("RGB"))
            return cls(samples, samples, colour=True)
        alpha = None
        if decoded.mode == "RGBX" and (samples[..., 3:] == samples[:1, :1, 3:]).all():
            samples = samples[..., :3]  # what more there is says nothing
        elif decoded.mode[-1] in "Aa":
            samples, alpha = samples[..., :-1], samples[..., -1]
        colour = decoded.depth == 8 and decoded.mode in _COLOUR_MODES and samples.shape[-1] in (1, 3)
        equal = decoded.mode in (*_COLOUR_MODES, BANDS) and (samples == samples[..., :1]).all()
        return cls(
            channels, samples, alpha, grey=np.ascontiguousarray(samples[..., 0]) if equal else None, colour=colour
        )

    @property
    def used(self) -> npt.NDArray[np.intp]:
        """Indices of the palette that occur, sorted."""
        return np.flatnonzero(np.bincount(self.samples.ravel(), minlength=256))


def black_and_white(palette: npt.NDArray[np.uint8], used: npt.NDArray[np.intp]) -> bool:
    """Whether all used colours of a palette are black or white."""
    colours = palette[used]
    return bool(np.isin(colours, (0, 255)).all() and (colours == colours[:, :1]).all())


def without_data(samples: npt.NDArray[Any], nodata: float | None) -> npt.NDArray[np.bool_]:
    """Pixels that hold a file's no-data value, in all bands.

    Args:
        samples: H x W, or H x W x C.
        nodata: The value; ``None`` where the file has none.
    """
    if nodata is None:
        return np.zeros(samples.shape[:2], np.bool_)
    is_value = samples == nodata if nodata == nodata else samples != samples
    return np.asarray(is_value if samples.ndim == 2 else is_value.all(axis=-1), np.bool_)


def read_predicted_mask(path: Path) -> npt.NDArray[np.uint8]:
    """Read one mask that another program has predicted: 0 unchanged, one other value changed.

    Of a palette the index counts, of colours any channel, and any value but 0 is changed. What a GeoTIFF calls no data
    is ignored. A mask that could mean two things is refused.

    Returns:
        uint8, H x W: 0 unchanged, 1 changed, 255 ignore.

    Raises:
        FileFault: When the file cannot be read, or is ambiguous.
    """
    decoded = decode(path)
    mask = MaskSamples.of(decoded)
    ignored = without_data(mask.samples, decoded.nodata)
    changed = _changed(path, decoded, mask, ignored)
    if decoded.nodata == 0 and ignored.any() and changed.any():
        remedy = f"if 0 is unchanged, `rio edit-info {as_typed(path)} --unset-nodata` makes it count"
        raise FileFault(path, "declares 0 as no data, so that no pixel is unchanged", remedy)
    values: npt.NDArray[np.uint8] = changed.astype(np.uint8)
    values[ignored] = IGNORE
    return values


def noted_threshold(path: Path) -> float | None:
    """The threshold that a mask by this package was made with, as its tags say; ``None`` where they do not.

    Raises:
        DataError: When the file cannot be read.
    """
    if (image := open_with_pillow(path)) is not None:
        with image:
            if image.format == "PNG":
                return as_threshold(str(image.info.get(THRESHOLD, "")))
    with reading(path, DataError, "expected a mask"):
        if path.suffix.lower() in (".tif", ".tiff"):
            with open_dataset(path) as dataset:
                return as_threshold(dataset.tags().get(THRESHOLD))
    return None


def _changed(path: Path, decoded: Decoded, mask: MaskSamples, ignored: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Where a mask by another program says changed, apart from pixels that are ignored.

    Raises:
        FileFault: When it is ambiguous.
    """

    def fault(what: str) -> FileFault:
        return FileFault(path, what, ONE_CHANNEL)

    changed: npt.NDArray[np.bool_]
    if mask.palette is not None:
        changed = (mask.samples != 0) & ~ignored
        shown = mask.palette[mask.used, 0] > 0
        if black_and_white(mask.palette, mask.used) and shown.any() and (shown != (mask.used != 0)).any():
            raise fault("is a palette image in which 0 is drawn white, or another index black")
        return changed
    if decoded.format in JPEG and (number := len(np.unique(mask.samples))) > 2:
        raise fault(f"holds {number} values, as JPEG, JPEG 2000 and WebP compression blur 0 and others")
    if mask.grey is not None:
        changed = (mask.grey != 0) & ~ignored
        others = mask.grey[changed]
        if np.isnan(others).any():
            raise fault("holds NaN, which is neither changed nor unchanged")
        if others.size and (least := others.min()) != (most := others.max()):
            among = "" if changed.all() else " and 0"
            if decoded.format == "TIFF" and (least, most) == (1, IGNORE) and np.isin(others, (1, IGNORE)).all():
                remedy = f"if 255 is no data, `rio edit-info {as_typed(path)} --nodata 255` declares it"
                raise FileFault(path, "holds 0, 1 and 255, and does not declare 255 as no data", remedy)
            raise fault(f"holds values from {least:g} to {most:g}{among}, as probabilities or class numbers do")
    elif mask.colour and decoded.mode in _COLOUR_MODES:
        changed = (mask.samples != 0).any(axis=-1) & ~ignored
    else:
        raise fault(f"is a {decoded.mode} image of {decoded.depth} bits per sample")
    if mask.alpha is not None and mask.alpha.min() != mask.alpha.max() and ((mask.alpha > 0) != changed).any():
        raise fault("is an image in which transparency and colours mark different pixels as changed")
    return changed
