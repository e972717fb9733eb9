"""Image files: opened with every check, decoded to 8-bit RGB or to the raw samples of a mask."""

import os
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
"""Extensions that count as images (in any case), and the format each of them promises."""

MAX_PIXELS = 512_000_000
"""Most pixels of one image; the largest published scene of the field (WHU-CD, 32507 x 15354) has 499 million."""

_FORMATS = tuple(dict.fromkeys(SUFFIXES.values()))
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_BITS, _ORIENTATION, _SAMPLES = 258, 274, 277  # TIFF tags
_DAMAGED = "restore the file from its source, or remove its pair"
_pillow_limit = threading.Lock()


class FileFault(Exception):
    """What is wrong with one file, and what to do about it."""

    def __init__(self, what: str, remedy: str) -> None:
        """Keep the two parts of a fault.

        Args:
            what: What was found.
            remedy: What to do.
        """
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Decoded:
    """One decoded file.

    Attributes:
        path: Of the file.
        image: Fully decoded, H x W, in Pillow's own mode.
        depth: Bits a sample.
        notes: What the user should know about the file, in words that do not name it.
    """

    path: Path
    image: Image.Image
    depth: int
    notes: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.height, self.image.width


@contextmanager
def _own_pixel_limit() -> Iterator[None]:
    # Pillow's own limit is lower than scenes of the field and global; ours is checked on the header right after
    with _pillow_limit:
        theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = theirs


def _open(path: Path) -> Image.Image:
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a pipe would wait for ever
            raise FileFault("is no regular file", "put the image file itself there, or remove its pair")
        with _own_pixel_limit():
            return Image.open(path, formats=_FORMATS)
    except UnidentifiedImageError:
        with path.open("rb") as stream:
            start = stream.read(4)
        if not start:
            raise FileFault("is empty (0 bytes)", _DAMAGED) from None
        if start[:2] in (b"II", b"MM"):
            raise FileFault(
                "is a TIFF that is damaged, or whose band layout or sample type cannot be read here",
                "convert it to 8-bit RGB or to a single band of at most 16 bits",
            ) from None
        raise FileFault(f"holds no image of a known format ({', '.join(_FORMATS)})", _DAMAGED) from None
    except FileFault:
        raise
    except FileNotFoundError:
        raise FileFault("does not exist, or is a link to nothing", _DAMAGED) from None
    except Exception as error:  # a damaged header makes Pillow's parsers raise anything
        if isinstance(error, OSError) and error.errno is not None:
            raise FileFault(f"cannot be opened ({error.strerror})", "make the file readable") from None
        raise FileFault(f"is damaged or truncated ({error})", _DAMAGED) from None


def _depth(image: Image.Image) -> int:
    """Bits a sample as stored; Pillow silently drops the lower half of 16-bit colour images."""
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        return int(max(tags.get(_BITS, (1,))))
    tile = getattr(image, "tile", None)  # how the file stores its samples; absent in some formats
    arguments: Any = tile[0].args if tile else ""
    raw_mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return 16 if image.mode in _DEEP_MODES or ";16" in str(raw_mode) else 8


def decode(path: Path) -> Decoded:
    """Open and fully decode one file.

    Raises:
        FileFault: When it is missing, no image, larger than ``MAX_PIXELS``, damaged or truncated.
    """
    image = _open(path)
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise FileFault(
                f"claims {image.height} x {image.width} pixels ({image.width * image.height / 1e6:.0f} Mpx), more than "
                f"the {MAX_PIXELS // 10**6} Mpx that are taken for real (a decompression bomb?)",
                "cut the scene into tiles",
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # remarks on metadata; damage to pixels raises
                depth, notes = _depth(image), _notes(image, path)  # before Pillow turns a TIFF and drops its tag
                image.load()
        except Exception as error:  # decoders raise anything on damaged data
            raise FileFault(f"is damaged or truncated ({error})", _DAMAGED) from None
        return Decoded(path, image, depth, tuple(notes))


def _notes(image: Image.Image, path: Path) -> list[str]:
    """What the header says that a user should know."""
    notes = []
    promised = SUFFIXES.get(path.suffix.lower())
    found = "JPEG" if image.format == "MPO" else image.format  # a JPEG with a preview
    if promised and found != promised:
        notes.append(f"content is {found}, although the extension says {promised}")
    if getattr(image, "n_frames", 1) > 1:
        notes.append("several frames or pages, of which the first is used")
    bands = int(getattr(image, "tag_v2", {}).get(_SAMPLES, 0))
    if bands > len(image.getbands()):
        notes.append(f"{bands} bands, of which the first {len(image.getbands())} are used")
    return notes + _orientation(image)


def _orientation(image: Image.Image) -> list[str]:
    tags = getattr(image, "tag_v2", None)
    if (image.getexif() if tags is None else tags).get(_ORIENTATION, 1) in (0, 1):
        return []
    # a label carries no such tag, so turning the photographs alone would part them from it; Pillow turns TIFF itself
    return ["EXIF orientation ignored, pixels used as stored" if tags is None else "orientation tag applied"]


def _deep_colour(decoded: Decoded) -> npt.NDArray[Any]:
    """All bits of a colour image of more than 8 bits a sample, H x W x 3."""
    try:
        import rasterio
    except ImportError:
        raise FileFault(
            f"is a colour image of {decoded.depth} bits a sample, which needs rasterio",
            "install it with `pip install bitemporal[geo]`, or convert the image to 8 bits",
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a picture without georeference is meant here
            with rasterio.open(decoded.path) as source:
                samples: npt.NDArray[Any] = source.read([1, 2, 3] if source.count >= 3 else [1, 1, 1])
    except rasterio.errors.RasterioError as error:
        raise FileFault(f"cannot be read ({error})", "convert the image to 8 bits") from None
    return samples.transpose(1, 2, 0)


def _of_range(samples: npt.NDArray[Any], image_range: tuple[float, float]) -> npt.NDArray[np.uint8]:
    low, high = image_range
    scaled = (samples.astype(np.float64) - low) * (255.0 / (high - low))
    return np.rint(np.clip(np.nan_to_num(scaled, nan=0.0), 0.0, 255.0)).astype(np.uint8)


def check_range(decoded: Decoded, image_range: tuple[float, float] | None) -> None:
    """Refuse an image of more than 8 bits whose range nobody stated.

    Raises:
        FileFault: Naming the option.
    """
    if decoded.depth <= 8 or image_range is not None:
        return
    found = f"has {decoded.depth} bits a sample"
    if decoded.image.mode in _DEEP_MODES:
        samples = np.asarray(decoded.image)
        found += f" (values {samples.min():g} to {samples.max():g})"
    raise FileFault(
        found,
        "state the range of values to show: image_range=LOW,HIGH (--image-range LOW,HIGH), for example 0,65535 or, "
        "for Sentinel-2 reflectances, 0,3000; it is scaled linearly to 0..255 and clipped",
    )


def to_rgb(decoded: Decoded, image_range: tuple[float, float] | None = None) -> npt.NDArray[np.uint8]:
    """8-bit RGB of a decoded image.

    Args:
        decoded: From ``decode``.
        image_range: Values that become 0 and 255, for images of more than 8 bits a sample; others are left alone.

    Returns:
        H x W x 3.

    Raises:
        FileFault: When the image has more than 8 bits and no range is given.
    """
    check_range(decoded, image_range)
    image = decoded.image
    if decoded.depth <= 8 or image_range is None:
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    if image.mode in _DEEP_MODES:
        return np.repeat(_of_range(np.asarray(image), image_range)[..., None], 3, axis=-1)
    return _of_range(_deep_colour(decoded), image_range)


def conversion(image: Image.Image) -> tuple[str, ...]:
    """What turning an image into RGB does to it, in words; nothing for RGB."""
    match image.mode:
        case "RGB":
            return ()
        case "RGBA" | "RGBX" | "RGBa":
            return ("RGBA image, of which the alpha channel is dropped",)
        case "P" | "PA":
            return ("palette image, converted to RGB",)
        case "1" | "L" | "LA" | "La" | "I" | "F" | "I;16" | "I;16L" | "I;16B" | "I;16N":
            return ("grey image, repeated to three channels",)
        case mode:
            return (f"{mode} image, converted to RGB",)


def check_image_range(image_range: tuple[float, float] | None) -> None:
    """Refuse a range that is no range.

    Raises:
        DataError: When it is not two finite numbers, the first below the second.
    """
    if image_range is None:
        return
    if len(image_range) != 2 or not np.isfinite(image_range).all() or not image_range[0] < image_range[1]:
        raise DataError(
            f"image_range: found {tuple(image_range)}, expected two finite numbers LOW,HIGH with LOW below HIGH, "
            "for example 0,65535"
        )


def read_image(path: str | os.PathLike[str], image_range: tuple[float, float] | None = None) -> npt.NDArray[np.uint8]:
    """Read one image as 8-bit RGB.

    Grey, palette and RGBA images are converted with a warning (``UserWarning``). Orientation tags are not followed,
    except in TIFF, whose reader applies them.

    Args:
        path: A png, jpg, bmp, tif or webp file; the content decides, not the extension.
        image_range: LOW and HIGH values that become 0 and 255, needed by images of more than 8 bits a sample and
            without effect on others. Values between are scaled linearly, values outside clipped, NaN becomes 0.

    Returns:
        uint8, H x W x 3.

    Raises:
        DataError: When the file is missing, no image, damaged, truncated, above 512 megapixels, or has more than
            8 bits a sample and no range is given.
    """
    check_image_range(image_range)
    source = Path(path)
    try:
        decoded = decode(source)
        pixels = to_rgb(decoded, image_range)
    except FileFault as fault:
        raise DataError(f"{source}: {fault.what}; {fault.remedy}") from None
    for note in (*decoded.notes, *conversion(decoded.image)):
        warnings.warn(f"{source}: {note}", UserWarning, stacklevel=2)
    return pixels
