"""Image files: opened with every check, and decoded to the samples that they hold."""

import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from bitemporal.errors import DataError
from bitemporal.files import not_there
from bitemporal.imagery.band_files import band_files
from bitemporal.imagery.colours import places_of_colours
from bitemporal.imagery.opening import open_dataset
from bitemporal.imagery.physical import UNSCALED, Scaling, to_physical
from bitemporal.imagery.quiet import ignore_missing_places, open_image
from bitemporal.imagery.tiff_layout import Incomplete, tiff_layout
from bitemporal.imagery.whole import check_whole

BANDS = "bands"
"""Mode of images whose bands are no known colours."""

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

MAX_BYTES = 3 * MAX_PIXELS
"""Most bytes of one image after decoding: as many as the largest in colours of 8 bits has."""

DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of grey images with more than 8 bits per sample."""

_FORMATS = tuple(dict.fromkeys(SUFFIXES.values()))
_SUBFILE, _BITS, _COMPRESSION, _ORIENTATION, _SAMPLES, _SAMPLE_FORMAT = 254, 258, 259, 274, 277, 339  # TIFF tags
_REDUCED_OR_MASK = 5  # bits of _SUBFILE: the page is an overview, or a mask
_PAGES = 64  # of a TIFF that are looked at; each overview halves the image
_GDAL_METADATA, _GDAL_NODATA = 42112, 42113  # TIFF tags
_SCALED = re.compile(r'role="(scale|offset)"')  # in the tag above
_WEBP = 50001  # a compression that Pillow's wheels lack, and complain of on standard error
_GEOREFERENCE = 33550, 33922, 34264, 50844
"""GeoTIFF tags ModelPixelScale, ModelTiepoint (control points), ModelTransformation, and the coefficients of GDAL."""
_CONVERT = "keep what counts of them, such as the amplitude of complex numbers, in a file of integers or floats"
_RESTORE = "restore the file from its source, or remove its pair"
_NO_DECODER = re.compile(r"codec|compression scheme|not supported|unsupported|not configured", re.IGNORECASE)


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
        pixels: Fully decoded: Pillow's image; or, where Pillow has no mode for them or bands were chosen, samples,
            H x W or H x W x C.
        mode: Pillow's mode, or the one that comes closest; ``BANDS`` where bands were chosen, or the file does not say
            which of them are colours.
        format: Format of the file's content, as Pillow names it.
        depth: Bits per sample.
        georeferenced: Whether the file says where on the ground it lies.
        notes: What the user should know about the file, in words that do not name it.
        bands: The bands that were chosen, counted from 1; ``None`` for all.
        nodata: Value of samples that stands for no data, where a TIFF says so; ``None`` where it does not.
        scaling: Scale and offset of each channel, where a TIFF has them; the samples are after them.
    """

    path: Path
    pixels: Image.Image | npt.NDArray[Any]
    mode: str
    format: str
    depth: int
    georeferenced: bool
    notes: tuple[str, ...]
    bands: tuple[int, ...] | None = None
    nodata: float | None = None
    scaling: Scaling | None = None

    @property
    def samples(self) -> npt.NDArray[Any]:
        """As stored, H x W or H x W x C; indices for a palette image."""
        return np.asarray(self.pixels)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        if isinstance(self.pixels, Image.Image):
            return self.pixels.height, self.pixels.width
        return self.pixels.shape[0], self.pixels.shape[1]


def decode(path: Path, bands: Sequence[int] | None = None) -> Decoded:
    """Open and fully decode one file.

    A folder of files that hold one band each (see ``band_files``) is one image.

    Pillow reads the file. What Pillow cannot represent (several bands of more than 8 bits, more than four bands, some
    sample types, layouts and compressions of TIFF, scales and offsets of bands) is read through rasterio, where that is
    installed. Scale and offset of a band, where a TIFF has them, are applied.

    Args:
        path: The file, or the folder.
        bands: Bands to read, counted from 1, in this order; one may be repeated. All of them by default. The bands of
            a palette image are red, green and blue.

    Raises:
        FileFault: When the file is missing, no image, larger than ``MAX_PIXELS`` or ``MAX_BYTES``, damaged or
            truncated, or has no such band; or when files of bands differ in size, or hold several.
    """
    if files := band_files(path) if path.is_dir() else []:
        return _decode_bands(path, files, bands)
    image = _open(path)
    if image is None:
        _refuse_incomplete(path)
        return _decode_with_rasterio(path, bands, "TIFF", _needs_rasterio(path, "is a TIFF that cannot be read"))
    with image:
        _check_size(path, image.height, image.width, len(image.getbands()) * (_depth(image) + 7) // 8)
        _refuse_incomplete(path)
        try:
            if _pillow_keeps_all(image) and not (image.format == "TIFF" and _is_sparse(path)):
                return _decode_with_pillow(path, bands, image)
            fault = _needs_rasterio(path, f"holds {_stored(image)}, which cannot be read")
        except FileFault:
            raise
        except Exception as error:  # decoders raise anything on damaged data
            if image.format != "TIFF":
                raise FileFault(path, f"is damaged or truncated ({error})", _RESTORE) from None
            # a TIFF may only use a compression that Pillow lacks
            fault = _needs_rasterio(path, f"is damaged or truncated, or cannot be read ({error})")
    return _decode_with_rasterio(path, bands, image.format or "", fault)


def _refuse_incomplete(path: Path) -> None:
    """Refuse a file that lacks pixels, before it is decoded.

    Raises:
        FileFault: Saying what is missing.
    """
    try:
        check_whole(path)
    except Incomplete as error:
        raise FileFault(path, f"is damaged or truncated ({error})", _RESTORE) from None
    except OSError as error:
        raise FileFault(path, f"cannot be opened ({error.strerror or error})", "make the file readable") from None


def _is_sparse(path: Path) -> bool:
    """Whether a TIFF leaves blocks out; Pillow would read the beginning of the file in their place."""
    layout = tiff_layout(path)
    return layout is not None and layout.is_sparse


def _decode_bands(folder: Path, files: Sequence[Path], bands: Sequence[int] | None) -> Decoded:
    """Decode an image whose bands are files of their own.

    Raises:
        FileFault: When a file cannot be read or holds several bands, or the files differ in size.
    """
    if bands is not None:
        _check_bands(folder, bands, len(files))
    colours = places_of_colours([file.stem for file in files]) if bands is None else None
    numbers = bands or [place + 1 for place in colours or range(len(files))]
    read = {number: decode(files[number - 1]) for number in dict.fromkeys(numbers)}
    for one in read.values():
        if one.samples.ndim != 2:
            what = f"has {one.samples.shape[-1]} bands, expected one, as {folder.name} has a file for each band"
            raise FileFault(one.path, what, "move it elsewhere")
    largest = max((one.size for one in read.values()), key=lambda size: size[0] * size[1])
    if odd := [one for one in read.values() if one.size != largest]:
        same = tuple(number for number, one in read.items() if one.size == largest)
        tiles = "; data tiles brings all of them to one size" if odd[0].georeferenced else ""
        raise FileFault(
            odd[0].path,
            f"is {odd[0].size[0]} x {odd[0].size[1]} (height x width), but other bands of {folder.name} are "
            f"{largest[0]} x {largest[1]}",
            f"read those alone, --bands {','.join(map(str, same))} (bands={same}){tiles}",
        )
    samples = np.stack([read[number].samples for number in numbers], axis=-1)
    notes = dict.fromkeys(note for one in read.values() for note in one.notes)
    if colours:
        named = ", ".join(read[number].path.stem.rpartition("_")[2] for number in numbers)
        used = f"{len(files)} bands in files of their own, of which {named} are used"
        notes[f"{used}; others are chosen as in --bands 1,2,3"] = None
    mode = "RGB" if colours else BANDS
    depth, placed = max(one.depth for one in read.values()), any(one.georeferenced for one in read.values())
    return Decoded(folder, samples, mode, "TIFF", depth, placed, (*notes,), None if bands is None else tuple(bands))


def _pillow_keeps_all(image: Image.Image) -> bool:
    """Whether Pillow gives all samples of an image as they are stored.

    Else it would drop the lower half of each sample, or bands, or take numbers with a sign for numbers without one.
    """
    tags = getattr(image, "tag_v2", {})
    depth, bands = _depth(image), tags.get(_SAMPLES, len(image.getbands()))
    signed = 2 in tags.get(_SAMPLE_FORMAT, ())
    return (
        (depth <= 8 or (bands == 1 and len(image.getbands()) == 1))
        and bands <= len(image.getbands())
        and not (depth <= 8 and signed)
        and not (depth == 32 and image.mode == "I" and not signed)
        and tags.get(_COMPRESSION) != _WEBP
        and not _SCALED.search(str(tags.get(_GDAL_METADATA, "")))
    )


def _stored(image: Image.Image) -> str:
    """What an image stores, in words."""
    tags = getattr(image, "tag_v2", {})
    bands = tags.get(_SAMPLES, len(image.getbands()))
    webp = " in WebP compression" if tags.get(_COMPRESSION) == _WEBP else ""
    return f"{bands} {'band' if bands == 1 else 'bands'} of {_depth(image)} bits per sample{webp}"


def _decode_with_pillow(path: Path, bands: Sequence[int] | None, image: Image.Image) -> Decoded:
    tags = getattr(image, "tag_v2", {})
    depth = _depth(image)
    notes = _notes(image, path)  # before Pillow turns a TIFF and drops its tag
    image.load()
    kind, georeferenced = image.format or "", any(tag in tags for tag in _GEOREFERENCE)
    if bands is None:
        return Decoded(path, image, image.mode, kind, depth, georeferenced, notes, nodata=_nodata(tags))
    if image.mode not in ("L", "LA", "RGB", "RGBA", "RGBX", *DEEP_MODES):
        image = image.convert("L" if image.mode == "1" else "RGB")
    samples = np.asarray(image).reshape(image.height, image.width, -1)
    _check_bands(path, bands, samples.shape[-1])
    chosen = samples[..., [band - 1 for band in bands]]
    return Decoded(path, chosen, BANDS, kind, depth, georeferenced, notes, tuple(bands), _nodata(tags))


def _nodata(tags: Mapping[int, Any]) -> float | None:
    try:
        return float(str(tags.get(_GDAL_NODATA, "")).strip(" \0"))
    except ValueError:  # no such tag, or one that GDAL did not write
        return None


def _check_bands(path: Path, bands: Sequence[int], count: int) -> None:
    """Refuse bands that a file does not have.

    Raises:
        FileFault: Naming the first of them.
    """
    if missing := [band for band in bands if not 1 <= band <= count]:
        what = f"has no band {missing[0]}, but {count}, counted from 1"
        raise FileFault(path, what, choose_channels(count, len(bands)))


def choose_channels(count: int, channels: int) -> str:
    """The remedy that names bands for so many channels, of a file that has so many bands."""
    if channels > count:
        return f"give files of at least {channels} bands, or use a network of fewer channels"
    first = tuple(range(1, channels + 1))
    return f"choose among them, as in --bands {','.join(map(str, first))} (bands={first})"


def choose_bands(count: int) -> str:
    """The remedy that names bands of a file that has so many."""
    if count < 3:
        return "choose among them, one repeated: --bands 1,1,1 (bands=(1, 1, 1))"
    first, which = ("4,3,2", "as in Sentinel-2") if count >= 10 else ("3,2,1", "where blue comes first")
    example = f"--bands {first} (bands=({first.replace(',', ', ')}))"
    return f"say which of them become the network's channels, {example} for red, green and blue {which}"


def _open(path: Path) -> Image.Image | None:
    """The file as Pillow opens it, or ``None`` for a TIFF that Pillow does not know.

    Raises:
        FileFault: When it is no image, or cannot be opened.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise FileFault(path, "is a folder, expected an image", "give the image file itself, or remove its pair")
        if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
            raise FileFault(path, "is no regular file", "put the image file itself there, or remove its pair")
        return open_image(path, _FORMATS)
    except UnidentifiedImageError:
        if not path.stat().st_size:
            raise FileFault(path, "is empty (0 bytes)", _RESTORE) from None
        if _begins_as_tiff(path):
            return None
        raise FileFault(path, f"holds no image of a known format ({', '.join(_FORMATS)})", _RESTORE) from None
    except FileFault:
        raise
    except FileNotFoundError:
        absolute, _, what = not_there(path, "file").partition(": ")
        raise FileFault(Path(absolute), what, f"correct its path, or {_RESTORE}") from None
    except Exception as error:  # a damaged header makes Pillow's parsers raise anything
        if isinstance(error, OSError) and error.errno is not None:
            raise FileFault(path, f"cannot be opened ({error.strerror})", "make the file readable") from None
        if _begins_as_tiff(path):
            return None
        raise FileFault(path, f"is damaged or truncated ({error})", _RESTORE) from None


def _begins_as_tiff(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) in (b"II", b"MM")


def _check_size(path: Path, height: int, width: int, bytes_per_pixel: int) -> None:
    """Refuse images that are too large to be decoded whole, by their header.

    Raises:
        FileFault: Saying what the header claims.
    """
    pixels, size = height * width, height * width * bytes_per_pixel
    found, most = f"{pixels / 1e6:.0f} Mpx", f"{MAX_PIXELS // 10**6} Mpx"
    if pixels <= MAX_PIXELS:
        if size <= MAX_BYTES:
            return
        found, most = f"{size / 1e9:.1f} GB when decoded", f"{MAX_BYTES / 1e9:.1f} GB"
    raise FileFault(
        path,
        f"claims {height} x {width} pixels ({found}), more than the {most} that are accepted (a decompression bomb?)",
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
    tags = getattr(image, "tag_v2", None)
    if _has_several(image):
        notes.append("several frames or pages, of which the first is used")
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


def _content_notes(path: Path, content: str) -> list[str]:
    promised = SUFFIXES.get(path.suffix.lower(), content)
    return [] if content == promised else [f"content is {content}, although the extension says {promised}"]


def _needs_rasterio(path: Path, what: str) -> FileFault:
    remedy = "install it with `pip install 'bitemporal[geo]'`, or convert the file to 8-bit RGB or a single band"
    return FileFault(path, f"{what} without rasterio", remedy)


def _decode_with_rasterio(path: Path, bands: Sequence[int] | None, kind: str, without: FileFault) -> Decoded:
    """Decode one file through GDAL.

    Args:
        path: Path of the file.
        bands: Bands to read; all of them by default.
        kind: TIFF or PNG.
        without: What to raise when rasterio is not installed.

    Raises:
        FileFault: When the file is larger than ``MAX_PIXELS``, damaged, has no such band, or holds no real numbers.
    """
    try:
        import rasterio  # noqa: F401  only whether it is there
    except ImportError:
        raise without from None
    ignore_missing_places()
    try:
        with open_dataset(path, formats=["GTiff" if kind == "TIFF" else kind]) as source:
            if bands is not None:
                _check_bands(path, bands, source.count)
            dtypes = [source.dtypes[band - 1] for band in bands or source.indexes]
            types = sorted({*dtypes})
            _check_size(path, source.height, source.width, len(dtypes) * max(map(_bytes, types)))
            samples: npt.NDArray[Any] = source.read(None if bands is None else list(bands))
            scaling = tuple((source.scales[band - 1], source.offsets[band - 1]) for band in bands or source.indexes)
            mode = BANDS if bands is not None else _mode([colour.name for colour in source.colorinterp])
            georeferenced, nodata = source.crs is not None, source.nodata
    except FileFault:
        raise
    except DataError as error:  # it names other files
        what, _, remedy = str(error).removeprefix(f"{path}: ").partition("; ")
        raise FileFault(path, what, remedy) from None
    except Exception as error:  # as Pillow's, GDAL's errors on damaged data are of many types
        reason = str(error.__cause__ or error)
        if _NO_DECODER.search(reason):
            what = f"is stored in a way that the installed GDAL cannot decode ({reason})"
            raise FileFault(path, what, "write it again where it was made, in a compression such as DEFLATE") from None
        raise FileFault(path, f"is damaged or truncated ({reason})", _RESTORE) from None
    if samples.dtype.kind not in "uif":
        raise FileFault(path, f"holds samples of type {', '.join(types)}", _CONVERT)
    notes = _content_notes(path, kind)
    is_scaled = any(band != UNSCALED for band in scaling)
    if is_scaled:
        samples = to_physical(samples, scaling, axis=0)
        nodata = None  # it is a stored value
        notes.append("scale and offset of its bands applied")
    depth = 8 if samples.dtype == np.uint8 else max(16, 8 * samples.itemsize)
    pixels: Image.Image | npt.NDArray[Any] = np.ascontiguousarray(samples.transpose(1, 2, 0))
    if bands is None and samples.shape[0] == 1:
        pixels = samples[0]
    if depth == 8 and mode in ("F", "LA", "RGB", "RGBA"):
        pixels = Image.fromarray(pixels)
        mode = pixels.mode
    chosen = None if bands is None else tuple(bands)
    return Decoded(
        path,
        pixels,
        mode,
        kind,
        depth,
        georeferenced,
        tuple(notes),
        chosen,
        nodata,
        tuple(scaling) if is_scaled else None,
    )


def _bytes(dtype: str) -> int:
    """Bytes of a sample; numpy has no complex integers."""
    return 8 if dtype.startswith("complex_") else np.dtype(dtype).itemsize


def _mode(colours: Sequence[str]) -> str:
    """The mode of Pillow that comes closest to the colours of a file's bands."""
    alpha = len(colours) > 1 and colours[-1] == "alpha"
    others = len(colours) - alpha
    if others == 1:
        return "LA" if alpha else "F"
    if others == 3:
        return "RGBA" if alpha else "RGB"
    return "RGBX" if list(colours[:3]) == ["red", "green", "blue"] else BANDS
