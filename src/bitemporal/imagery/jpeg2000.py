"""JPEG 2000: whether a file is one, whether it is whole, and whether GDAL can decode it.

OpenJPEG leaves tiles that a file lacks at 0 without a word, so the lengths of tiles are followed here.
"""

import shlex
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bitemporal.imagery.decoded import FileFault
from bitemporal.imagery.tiff_layout import Incomplete
from bitemporal.remedies import free_name

JPEG2000 = "JPEG2000"
"""Pillow's name of the format."""

SIGNATURES = b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"
"""First bytes of a file, and of a codestream without one."""

_DRIVERS = "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID"
_TILE_PART, _END = 0xFF90, 0xFFD9
_TILE_PART_HEADER = struct.Struct(">HHHIBB")  # marker, length, tile, bytes of the part, its number, parts of the tile


def begins_as_jpeg2000(path: Path) -> bool:
    """Whether a file's first bytes are those of JPEG 2000.

    Raises:
        OSError: When it cannot be read.
    """
    with path.open("rb") as stream:
        return stream.read(12).startswith(SIGNATURES)


def jpeg2000_drivers(path: Path) -> list[str]:
    """GDAL's drivers for the format.

    Args:
        path: The file that is to be read.

    Raises:
        FileFault: When the installed rasterio has none.
    """
    import rasterio

    with rasterio.Env() as settings:
        known = settings.drivers()
    if drivers := [name for name in _DRIVERS if name in known]:
        return drivers
    copy = free_name(path.with_suffix(".tif"))
    code = f"from PIL import Image; Image.open({str(path)!r}).save({str(copy)!r})"
    raise FileFault(
        path,
        "is JPEG 2000, which the installed rasterio was built without",
        "install one that has it: `pip install --force-reinstall --no-deps --only-binary :all: rasterio`; or, for a "
        f"copy without its place on the ground, `python -c {shlex.quote(code)}`, and move the .jp2 file elsewhere",
    )


def check_jpeg2000(path: Path) -> None:
    """Refuse a file that lacks a tile, or a part of one.

    Raises:
        Incomplete: Saying what is missing.
        OSError: When it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start, end = _codestream(stream, size)
        expected, position = _tiles(stream, start, end)
        parts: Counter[int] = Counter()
        wanted: dict[int, int] = {}
        for tile, of in _tile_parts(stream, position, end):
            parts[tile] += 1
            wanted[tile] = max(wanted.get(tile, 1), of)
    if len(parts) < expected:
        raise Incomplete(f"it holds {len(parts)} of {expected} tiles")
    if short := sum(parts[tile] < of for tile, of in wanted.items()):
        raise Incomplete(f"{short} of {expected} tiles lack parts")


def _codestream(stream: BinaryIO, size: int) -> tuple[int, int]:
    """First byte of the pixels in a file, and the one behind them."""
    if stream.read(4) == SIGNATURES[1]:
        return 0, size
    position = 0
    while position + 8 <= size:
        stream.seek(position)
        length, kind = struct.unpack(">I4s", stream.read(8))
        header = 8
        if length == 1:
            raw = stream.read(8)
            length, header = (int.from_bytes(raw, "big") if len(raw) == 8 else 0), 16
        elif length == 0:  # up to the end
            length = size - position
        if length < header:
            raise Incomplete(f"the length of one of its boxes, {kind!r}, is wrong")
        if kind == b"jp2c":
            if position + length > size:
                raise Incomplete(f"its pixels end {position + length - size} bytes beyond its end")
            return position + header, position + length
        position += length
    raise Incomplete("its pixels are missing")


def _tiles(stream: BinaryIO, start: int, end: int) -> tuple[int, int]:
    """How many tiles an image has, and where the first part of one begins."""
    expected, position = 0, start + 2
    while position + 4 <= end:
        stream.seek(position)
        marker, length = struct.unpack(">HH", stream.read(4))
        if marker == _TILE_PART:
            return expected, position
        if marker < 0xFF00 or length < 2:
            break
        if marker == 0xFF51 and length >= 38:
            width, height, _, _, across, down, left, top = struct.unpack(">8I", stream.read(34)[2:])
            if not (across and down and width > left and height > top):
                break
            expected = -(-(width - left) // across) * -(-(height - top) // down)
        position += 2 + length
    raise Incomplete("its header is cut or wrong")


def _tile_parts(stream: BinaryIO, position: int, end: int) -> Iterator[tuple[int, int]]:
    """Tile of each part, and how many parts it has; 0 where that is not said."""
    while position + 2 <= end:
        stream.seek(position)
        raw = stream.read(_TILE_PART_HEADER.size)
        if int.from_bytes(raw[:2], "big") == _END:
            return
        if len(raw) < _TILE_PART_HEADER.size:
            raise Incomplete("it ends within a tile")
        marker, _, tile, length, _, of = _TILE_PART_HEADER.unpack(raw)
        length = length or end - position  # the last one may go up to the end
        if marker != _TILE_PART or length < _TILE_PART_HEADER.size:
            raise Incomplete("what follows one of its tiles is not another")
        if position + length > end:
            raise Incomplete(f"one of its tiles ends {position + length - end} bytes beyond its pixels")
        yield tile, of
        position += length
