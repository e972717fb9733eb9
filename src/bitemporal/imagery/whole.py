"""Whether a file holds all of the pixels that its header claims.

Decoders fill what is missing with zeros or grey, and say so in warnings at most, which Pillow drops. Here the pixel
data of each format are followed to their end, without keeping them.
"""

import logging
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitemporal.files import once_a_state
from bitemporal.imagery.jpeg2000 import SIGNATURES, check_jpeg2000
from bitemporal.imagery.quiet import ignore_missing_places
from bitemporal.imagery.tiff_layout import Incomplete, tiff_layout


@once_a_state
def check_whole(path: Path) -> None:
    """Refuse an image file that lacks pixels, or whose checksums are wrong; once, while the file stays as it is.

    Its first bytes say which format it is. WebP is not looked at: its decoder refuses such files. JPEG, also in TIFFs,
    is followed to its end by GDAL, where rasterio is installed.

    Args:
        path: The file.

    Raises:
        Incomplete: Saying what is wrong with it.
        OSError: When it cannot be read.
    """
    with path.open("rb") as stream:
        start = stream.read(_START)
    if start[:8] == b"\x89PNG\r\n\x1a\n":
        _check_png(path)
    elif start[:2] == b"\xff\xd8":
        _check_scans(path)
        _check_with_gdal(path, "JPEG")
    elif start.startswith(SIGNATURES):
        check_jpeg2000(path)
    elif start[:2] == b"BM":
        if (size := path.stat().st_size) < (needed := _bmp_bytes(start)):
            raise Incomplete(f"it has {size} of {needed} bytes")
    elif (layout := tiff_layout(path)) is not None:
        layout.check()
        if layout.compression == _JPEG_IN_TIFF:
            _check_with_gdal(path, "GTiff")


@once_a_state
def check_layout(path: Path) -> None:
    """As ``check_whole``, but blocks of TIFFs in JPEG are not decoded, for scenes; see ``refusing_damage``.

    Raises:
        Incomplete: Saying what is wrong with it.
        OSError: When it cannot be read.
    """
    layout = tiff_layout(path)
    if layout is None:
        check_whole(path)
    else:
        layout.check()


# BMP

_START = 34  # bytes of the header that are looked at


def _bmp_bytes(start: bytes) -> int:
    """Bytes of a BMP without compression; of others those of the header."""
    if len(start) < _START:
        return _START
    offset, header = struct.unpack_from("<II", start, 10)
    if header < 40:  # OS/2
        width, height, _, bits = struct.unpack_from("<HHHH", start, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", start, 18)
    rows = 0 if compression in (1, 2) else abs(height) * ((width * bits + 31) // 32 * 4)
    return int(offset + max(0, rows))


# PNG

_PIECE = 2**18  # bytes that are read, or inflated, at once
_PNG_HEADER = struct.Struct(">IIBBBBB")
_SAMPLES_OF_COLOUR_TYPE = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and steps between columns and rows, of the seven passes of an interlaced PNG."""


def _check_png(path: Path) -> None:
    """Check every chunk's checksum, and that the pixels inflate to as many bytes as the header claims."""
    with path.open("rb") as stream:
        stream.seek(8)
        expected = found = more = 0
        inflater = zlib.decompressobj()
        kind = b""
        while kind != b"IEND":
            start = stream.read(8)
            if len(start) < 8:
                raise Incomplete("its end, the chunk IEND, is missing")
            length, kind = struct.unpack(">I4s", start)
            crc, first = zlib.crc32(kind), b""
            while length:
                piece = stream.read(min(length, _PIECE))
                if not piece:
                    raise Incomplete(f"it ends within the chunk {_name(kind)}")
                length -= len(piece)
                crc = zlib.crc32(piece, crc)
                first = first or piece
                if kind == b"IDAT" and found < expected:
                    found += _inflated(inflater, piece, expected - found)
                    piece = inflater.unconsumed_tail
                if kind == b"IDAT" and found >= expected and not inflater.eof and not more:
                    more = _inflated(inflater, piece, 1)  # the checksum of all pixels, and nothing else
            if stream.read(4) != struct.pack(">I", crc):
                raise Incomplete(f"the checksum of its chunk {_name(kind)} is wrong")
            if kind == b"IHDR" and len(first) >= _PNG_HEADER.size:
                expected = _png_bytes(first)
    if found < expected:
        raise Incomplete(f"it holds {found} of {expected} bytes of pixels")
    if not inflater.eof and not more:
        raise Incomplete("its pixels end before their checksum")


def _name(kind: bytes) -> str:
    return kind.decode("ascii", "replace") if kind.isalpha() else repr(kind)


def _inflated(inflater: Any, piece: bytes, wanted: int) -> int:  # noqa: ANN401  zlib has no public name for its class
    """How many bytes a piece inflates to; counting ends where no more are wanted."""
    total, count = 0, _PIECE
    try:
        while total < wanted and (piece or count == _PIECE):  # a full piece may leave some of its output behind
            count = len(inflater.decompress(piece, _PIECE))
            total += count
            piece = inflater.unconsumed_tail
    except zlib.error as error:
        raise Incomplete(f"its pixels cannot be inflated ({error})") from None
    return total


def _png_bytes(header: bytes) -> int:
    """Bytes of all rows before compression, each with the byte of its filter."""
    width, height, bits, colour, _, _, interlaced = _PNG_HEADER.unpack_from(header)
    depth = bits * _SAMPLES_OF_COLOUR_TYPE.get(colour, 1)

    def of(columns: int, rows: int) -> int:
        return rows * (1 + (columns * depth + 7) // 8) if columns > 0 else 0

    if not interlaced:
        return of(width, height)
    return sum(of(-(-(width - x) // dx), max(0, -(-(height - y) // dy))) for x, y, dx, dy in _PASSES)


# JPEG

_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # neither a stuffed byte nor a restart
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1, 0xC9), (0xC2, 0xCA)
_SCAN, _BEGIN, _END, _EMPTY = 0xDA, 0xD8, 0xD9, 0x01
_JPEG_IN_TIFF = 7  # its compression; there is an older one, which GDAL does not read
_DAMAGE = re.compile(r"corrupt jpeg data|premature end|inconsistent progression", re.IGNORECASE)
_AT_ONCE = 2**24  # samples
_PADDING = "extraneous bytes before marker 0xd9"  # some cameras pad their files


def _check_scans(path: Path) -> None:
    """Check that scans bring every bit of every coefficient: a file cut between two scans decodes without a warning."""
    data = path.read_bytes()
    missing: dict[int, npt.NDArray[np.bool_]] = {}  # by component: coefficients that have not come to their last bit
    position, frame = 0, 0
    while (match := _MARKER.search(data, position)) is None or match[1][0] != _END:
        if match is None:
            raise Incomplete("its end is missing")
        marker, position = match[1][0], match.end()
        if marker in (_BEGIN, _EMPTY):
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        segment = data[position + 2 : position + length]
        position += max(length, 2)
        if marker in (*_SEQUENTIAL, *_PROGRESSIVE) and len(segment) > 6:
            frame, missing = marker, {component: np.ones(64, np.bool_) for component in segment[6::3]}
        elif marker == _SCAN and segment and len(segment) >= 4 + 2 * segment[0]:
            first, last, bits = segment[1 + 2 * segment[0] :][:3]
            for component in segment[1 : 1 + 2 * segment[0] : 2]:
                if component not in missing:
                    continue
                if frame in _SEQUENTIAL:
                    missing[component][:] = False
                elif bits & 15 == 0:
                    missing[component][first : last + 1] = False
    if any(coefficients.any() for coefficients in missing.values()):
        raise Incomplete("some of its scans are missing")


_heard: ContextVar[list[str] | None] = ContextVar("heard", default=None)


def _hear(record: logging.LogRecord) -> bool:
    """Keep warnings of damage for who listens; all others go where they ever go."""
    heard = _heard.get()
    if heard is None or not _DAMAGE.search(text := record.getMessage()):
        return True
    heard.append(text)
    return False


@contextmanager
def refusing_damage() -> Iterator[None]:
    """Refuse what libjpeg warns of while GDAL reads pixels in this block.

    Raises:
        Incomplete: With the first such warning.
    """
    for name in ("rasterio._env", "rasterio._err"):
        logging.getLogger(name).addFilter(_hear)  # adding it again changes nothing
    heard: list[str] = []
    token = _heard.set(heard)
    try:
        yield
    finally:
        _heard.reset(token)
    for text in heard:
        if _PADDING not in text:
            raise Incomplete(text.partition("libjpeg: ")[2].partition(" (this")[0] or text)


def _check_with_gdal(path: Path, driver: str) -> None:
    """Let GDAL decode a file, strip by strip.

    Raises:
        Incomplete: When pixels are missing.
    """
    try:
        import rasterio
        from rasterio.errors import RasterioError
        from rasterio.windows import Window
    except ImportError:
        return
    ignore_missing_places()
    with refusing_damage(), rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        try:
            with rasterio.open(path, driver=driver) as source:
                rows = max(1, _AT_ONCE // (source.width * source.count))
                for row in range(0, source.height, rows):
                    source.read(window=Window(0, row, source.width, min(rows, source.height - row)))
        except RasterioError as error:
            reason = str(error.__cause__ or error)
            if driver == "GTiff" or _DAMAGE.search(reason):  # else a JPEG of a kind that only Pillow knows
                raise Incomplete(reason) from None
