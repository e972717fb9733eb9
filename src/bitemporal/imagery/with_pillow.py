"""Images as Pillow reads them, and which of them it would not keep whole."""

import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from bitemporal.files import not_there
from bitemporal.imagery.decoded import BANDS, RESTORE, SUFFIXES, Decoded, FileFault, check_bands, content_notes
from bitemporal.imagery.jpeg2000 import JPEG2000, begins_as_jpeg2000
from bitemporal.imagery.quiet import open_image

DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of grey images with more than 8 bits per sample."""

_NAMES = tuple(dict.fromkeys(SUFFIXES.values()))
_FORMATS = tuple(name for name in _NAMES if name != JPEG2000)  # GDAL knows the place and all bands of that
_SUBFILE, _BITS, _COMPRESSION, _ORIENTATION, _SAMPLES, _SAMPLE_FORMAT = 254, 258, 259, 274, 277, 339  # TIFF tags
_REDUCED_OR_MASK = 5  # bits of _SUBFILE: the page is an overview, or a mask
_PAGES = 64  # of a TIFF that are looked at; each overview halves the image
_GDAL_METADATA, _GDAL_NODATA = 42112, 42113  # TIFF tags
_SCALED = re.compile(r'role="(scale|offset)"')  # in the tag above
_WEBP = 50001  # a compression that Pillow's wheels lack, and complain of on standard error
_GEOREFERENCE = 33550, 33922, 34264, 50844
"""GeoTIFF tags ModelPixelScale, ModelTiepoint (control points), ModelTransformation, and the coefficients of GDAL."""


def open_with_pillow(path: Path) -> Image.Image | None:
    """The file as Pillow opens it, or ``None`` for JPEG 2000, and for a TIFF that Pillow does not know.

    Raises:
        FileFault: When it is no image, or cannot be opened.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise FileFault(path, "is a folder, expected an image", "give the image file itself, or remove its pair")
        if not stat.S_ISREG(mode):  # opening a pipe would block
            raise FileFault(path, "is not a regular file", "put the image file itself there, or remove its pair")
        return open_image(path, _FORMATS)
    except UnidentifiedImageError:
        if not path.stat().st_size:
            raise FileFault(path, "is empty (0 bytes)", RESTORE) from None
        if _begins_as_tiff(path) or begins_as_jpeg2000(path):
            return None
        raise FileFault(path, f"holds no image of a known format ({', '.join(_NAMES)})", RESTORE) from None
    except FileFault:
        raise
    except FileNotFoundError:
        absolute, _, what = not_there(path, "file").partition(": ")
        raise FileFault(Path(absolute), what, f"correct its path, or {RESTORE}") from None
    except Exception as error:  # a damaged header makes Pillow's parsers raise anything
        if isinstance(error, OSError) and error.errno is not None:
            raise FileFault(path, f"cannot be opened ({error.strerror})", "make the file readable") from None
        if _begins_as_tiff(path):
            return None
        raise FileFault(path, f"is damaged or truncated ({error})", RESTORE) from None


def _begins_as_tiff(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) in (b"II", b"MM")


def pillow_keeps_all(image: Image.Image) -> bool:
    """Whether Pillow gives all samples of an image as they are stored.

    Else it would drop the lower half of each sample, or bands, or take numbers with a sign for numbers without one.
    """
    tags = getattr(image, "tag_v2", {})
    depth, bands = depth_of(image), tags.get(_SAMPLES, len(image.getbands()))
    signed = 2 in tags.get(_SAMPLE_FORMAT, ())
    return (
        (depth <= 8 or (bands == 1 and len(image.getbands()) == 1))
        and bands <= len(image.getbands())
        and not (depth <= 8 and signed)
        and not (depth == 32 and image.mode == "I" and not signed)
        and tags.get(_COMPRESSION) != _WEBP
        and not _SCALED.search(str(tags.get(_GDAL_METADATA, "")))
    )


def stored_as(image: Image.Image) -> str:
    """What an image stores, in words."""
    tags = getattr(image, "tag_v2", {})
    bands = tags.get(_SAMPLES, len(image.getbands()))
    webp = " in WebP compression" if tags.get(_COMPRESSION) == _WEBP else ""
    return f"{bands} {'band' if bands == 1 else 'bands'} of {depth_of(image)} bits per sample{webp}"


def decode_with_pillow(path: Path, bands: Sequence[int] | None, image: Image.Image) -> Decoded:
    """Decode an open image.

    Raises:
        FileFault: When it has no such band. Pillow itself raises anything on damaged data.
    """
    tags = getattr(image, "tag_v2", {})
    depth = depth_of(image)
    notes = _notes(image, path)  # before Pillow turns a TIFF and drops its tag
    image.load()
    kind, georeferenced = image.format or "", any(tag in tags for tag in _GEOREFERENCE)
    if bands is None:
        return Decoded(path, image, image.mode, kind, depth, georeferenced, notes, nodata=_nodata(tags))
    if image.mode not in ("L", "LA", "RGB", "RGBA", "RGBX", *DEEP_MODES):
        image = image.convert("L" if image.mode == "1" else "RGB")
    samples = np.asarray(image).reshape(image.height, image.width, -1)
    check_bands(path, bands, samples.shape[-1])
    chosen = samples[..., [band - 1 for band in bands]]
    return Decoded(path, chosen, BANDS, kind, depth, georeferenced, notes, tuple(bands), _nodata(tags))


def depth_of(image: Image.Image) -> int:
    """Bits per sample as stored; Pillow silently drops the lower half of 16-bit colour images."""
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        return int(max(tags.get(_BITS, (1,))))
    tile = getattr(image, "tile", None)  # how the file stores its samples; absent in some formats
    arguments: Any = tile[0].args if tile else ""
    raw_mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return 16 if image.mode in DEEP_MODES or ";16" in str(raw_mode) else 8


def _nodata(tags: Mapping[int, Any]) -> float | None:
    try:
        return float(str(tags.get(_GDAL_NODATA, "")).strip(" \0"))
    except ValueError:  # no such tag, or one that GDAL did not write
        return None


def _notes(image: Image.Image, path: Path) -> tuple[str, ...]:
    """What the header says that a user should know."""
    notes = content_notes(path, "JPEG" if image.format == "MPO" else image.format or "")  # a JPEG with a preview
    tags = getattr(image, "tag_v2", None)
    if _has_several(image):
        notes.append("several frames or pages; the first is used")
    if (image.getexif() if tags is None else tags).get(_ORIENTATION, 1) not in (0, 1):
        # a label carries no such tag, so following it in photographs alone would misalign the two
        ignored = "EXIF orientation ignored, pixels used as stored"
        notes.append(ignored if tags is None else "orientation tag applied")  # Pillow applies that of TIFF itself
    return tuple(notes)


def _has_several(image: Image.Image) -> bool:
    """Whether there are several frames or pages with pixels of their own; overviews and masks in a TIFF have none."""
    if not isinstance(image, TiffImageFile):
        return getattr(image, "n_frames", 1) > 1
    own = 0
    try:
        for page in range(_PAGES):
            image.seek(page)
            own += not image.tag_v2.get(_SUBFILE, 0) & _REDUCED_OR_MASK
            if own > 1:
                break
    except EOFError:  # there are no more
        pass
    image.seek(0)
    return own > 1
