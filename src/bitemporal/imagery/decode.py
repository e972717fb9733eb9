"""Image files: opened with every check, and decoded to the samples that they hold."""

import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from bitemporal.errors import DataError

SUFFIXES = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
"""Extensions that count as images (in any case), and the format that each of them promises."""

MAX_PIXELS = 512_000_000
"""Most pixels of one image; the largest published scene of the field (WHU-CD, 32507 x 15354) has 499 million."""

DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of grey images with more than 8 bits per sample."""

_FORMATS = tuple(dict.fromkeys(SUFFIXES.values()))
_BITS, _ORIENTATION, _SAMPLES = 258, 274, 277  # TIFF tags
_GEOREFERENCE = 33550, 34264  # GeoTIFF tags ModelPixelScale and ModelTransformation
_CONVERT = "convert it to 8-bit RGB or to a single band of at most 16 bits"
_RESTORE = "restore the file from its source, or remove its pair"
_pillow_limit = threading.Lock()


class FileFault(DataError):
    """One file that cannot be used.

    Attributes:
        path: The file.
        what: What was found.
        remedy: What to do about it.
    """

    def __init__(self, path: Path, what: str, remedy: str) -> None:
        """Keep the three parts of the message."""
        super().__init__(path, what, remedy)
        self.path, self.what, self.remedy = path, what, remedy

    def __str__(self) -> str:
        """All three in one line."""
        return f"{self.path}: {self.what}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Decoded:
    """One decoded file.

    Attributes:
        path: The file.
        pixels: Fully decoded: Pillow's image; or, where Pillow has no mode for them, the samples of a grey or colour
            image, H x W or H x W x 3.
        format: Format of the file's content, as Pillow names it.
        depth: Bits per sample.
        georeferenced: Whether the file says where on the ground it lies.
        notes: What the user should know about the file, in words that do not name it.
    """

    path: Path
    pixels: Image.Image | npt.NDArray[Any]
    format: str
    depth: int
    georeferenced: bool
    notes: tuple[str, ...]

    @property
    def samples(self) -> npt.NDArray[Any]:
        """As stored, H x W or H x W x C; indices for a palette image."""
        return np.asarray(self.pixels)

    @property
    def mode(self) -> str:
        """Pillow's mode, or the one that comes closest."""
        if isinstance(self.pixels, Image.Image):
            return self.pixels.mode
        return "RGB" if self.pixels.ndim == 3 else "F"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        if isinstance(self.pixels, Image.Image):
            return self.pixels.height, self.pixels.width
        return self.pixels.shape[0], self.pixels.shape[1]


def decode(path: Path) -> Decoded:
    """Open and fully decode one file.

    Pillow reads the file. What Pillow cannot represent (several bands of more than 8 bits, some sample types, layouts
    and compressions of TIFF) is read through rasterio, where that is installed.

    Raises:
        FileFault: When the file is missing, no image, larger than ``MAX_PIXELS``, damaged or truncated.
    """
    image = _open(path)
    if image is None:
        return _decode_with_rasterio(path, "TIFF", _needs_rasterio(path, "is a TIFF that cannot be read"))
    with image:
        _check_size(path, image.height, image.width)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # remarks on metadata; damage to pixels raises
                tags = getattr(image, "tag_v2", {})
                depth, bands = _depth(image), max(len(image.getbands()), tags.get(_SAMPLES, 1))
                if depth <= 8 or bands == 1:
                    notes = _notes(image, path)  # before Pillow turns a TIFF and drops its tag
                    image.load()
                    georeferenced = any(tag in tags for tag in _GEOREFERENCE)
                    return Decoded(path, image, image.format or "", depth, georeferenced, notes)
            # Pillow would drop the lower half of each sample, or all bands but one
            fault = _needs_rasterio(path, f"has {bands} bands of {depth} bits per sample, which cannot be read")
        except Exception as error:  # decoders raise anything on damaged data
            fault = FileFault(path, f"is damaged or truncated ({error})", _RESTORE)
            if image.format != "TIFF":  # a TIFF may only use a compression that Pillow lacks
                raise fault from None
    return _decode_with_rasterio(path, image.format or "", fault)


def _open(path: Path) -> Image.Image | None:
    """The file as Pillow opens it, or ``None`` for a TIFF that Pillow does not know.

    Raises:
        FileFault: When it is no image, or cannot be opened.
    """
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a pipe would wait for ever
            raise FileFault(path, "is no regular file", "put the image file itself there, or remove its pair")
        with _own_pixel_limit():
            return Image.open(path, formats=_FORMATS)
    except UnidentifiedImageError:
        with path.open("rb") as stream:
            start = stream.read(4)
        if not start:
            raise FileFault(path, "is empty (0 bytes)", _RESTORE) from None
        if start[:2] in (b"II", b"MM"):
            return None
        raise FileFault(path, f"holds no image of a known format ({', '.join(_FORMATS)})", _RESTORE) from None
    except FileFault:
        raise
    except FileNotFoundError:
        raise FileFault(path, "does not exist, or is a link to nothing", _RESTORE) from None
    except Exception as error:  # a damaged header makes Pillow's parsers raise anything
        if isinstance(error, OSError) and error.errno is not None:
            raise FileFault(path, f"cannot be opened ({error.strerror})", "make the file readable") from None
        raise FileFault(path, f"is damaged or truncated ({error})", _RESTORE) from None


@contextmanager
def _own_pixel_limit() -> Iterator[None]:
    # Pillow's own limit is global, and lower than scenes of the field; ours is checked on the header right after
    with _pillow_limit:
        theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = theirs


def _check_size(path: Path, height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise FileFault(
            path,
            f"claims {height} x {width} pixels ({height * width / 1e6:.0f} Mpx), more than the "
            f"{MAX_PIXELS // 10**6} Mpx that are accepted (a decompression bomb?)",
            "cut the scene into tiles",
        )


def _depth(image: Image.Image) -> int:
    """Bits per sample as stored; Pillow silently drops the lower half of 16-bit colour images."""
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        return int(max(tags.get(_BITS, (1,))))
    tile = getattr(image, "tile", None)  # how the file stores its samples; absent in some formats
    arguments: Any = tile[0].args if tile else ""
    raw_mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return 16 if image.mode in DEEP_MODES or ";16" in str(raw_mode) else 8


def _notes(image: Image.Image, path: Path) -> tuple[str, ...]:
    """What the header says that a user should know."""
    notes = _content_notes(path, "JPEG" if image.format == "MPO" else image.format or "")  # a JPEG with a preview
    if getattr(image, "n_frames", 1) > 1:
        notes.append("several frames or pages, of which the first is used")
    tags = getattr(image, "tag_v2", None)
    bands = len(image.getbands())
    if tags is not None and tags.get(_SAMPLES, 1) > bands:
        notes.append(_unused_bands(tags[_SAMPLES], bands))
    if (image.getexif() if tags is None else tags).get(_ORIENTATION, 1) not in (0, 1):
        # a label carries no such tag, so following it in photographs alone would misalign the two
        ignored = "EXIF orientation ignored, pixels used as stored"
        notes.append(ignored if tags is None else "orientation tag applied")  # Pillow applies that of TIFF itself
    return tuple(notes)


def _content_notes(path: Path, content: str) -> list[str]:
    promised = SUFFIXES.get(path.suffix.lower(), content)
    return [] if content == promised else [f"content is {content}, although the extension says {promised}"]


def _unused_bands(bands: int, used: int) -> str:
    return f"{bands} bands, of which the first {used} {'is' if used == 1 else 'are'} used"


def _needs_rasterio(path: Path, what: str) -> FileFault:
    return FileFault(path, f"{what} without rasterio", "install it with `pip install bitemporal[geo]`, or " + _CONVERT)


def _decode_with_rasterio(path: Path, kind: str, without: FileFault) -> Decoded:
    """Decode one file through GDAL.

    Args:
        path: Path of the file.
        kind: TIFF or PNG.
        without: What to raise when rasterio is not installed.

    Raises:
        FileFault: When the file is larger than ``MAX_PIXELS``, damaged, or holds other than grey or colour samples.
    """
    try:
        import rasterio
    except ImportError:
        raise without from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # images without a georeference are expected here
            with rasterio.open(path, driver="GTiff" if kind == "TIFF" else kind) as source:
                _check_size(path, source.height, source.width)
                if source.count > 4:
                    raise FileFault(path, f"is a TIFF of {source.count} bands, expected 1, 3 or 4", _CONVERT)
                used = 3 if source.count > 2 else 1
                samples: npt.NDArray[Any] = source.read(list(range(1, used + 1)))
                notes = _content_notes(path, kind)
                if source.count > used:
                    notes.append(_unused_bands(source.count, used))
                georeferenced = source.crs is not None
    except FileFault:
        raise
    except Exception as error:  # as Pillow's, GDAL's errors on damaged data are of many types
        raise FileFault(path, f"is damaged or truncated ({error})", _RESTORE) from None
    if samples.dtype.kind not in "uif":
        raise FileFault(path, f"holds samples of type {samples.dtype}", _CONVERT)
    pixels = samples[0] if used == 1 else samples.transpose(1, 2, 0)
    if pixels.dtype == np.uint8:
        return Decoded(path, Image.fromarray(np.ascontiguousarray(pixels)), kind, 8, georeferenced, tuple(notes))
    return Decoded(path, pixels, kind, max(16, 8 * pixels.itemsize), georeferenced, tuple(notes))
