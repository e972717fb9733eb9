"""Where the pixels of a TIFF lie, by its header alone."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt


class Incomplete(ValueError):
    """A file lacks pixels, or what it holds was changed; the text says what was found."""


_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _ROWS, _PLANAR = 256, 257, 258, 259, 262, 277, 278, 284
_STRIPS, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 273, 279, 322, 323, 324, 325
_HEADER = 8  # bytes; BigTIFF has 16
_YCBCR = 6
_MOST_TAGS = 4
"""Tags of a file that claim more than so many times its size are an attack: they repeat the same bytes."""


@dataclass(frozen=True)
class TiffLayout:
    """Where the pixels of a TIFF's first page lie.

    Attributes:
        compression: Number of the compression; 1 for none.
        offsets: First byte of each strip or tile.
        counts: Bytes of each; none where the file does not say it.
        needed: Bytes of each before compression; none where they depend on more than the header.
        blocks: Strips or tiles that the size of the image needs.
        size: Bytes of the file.
    """

    compression: int
    offsets: npt.NDArray[np.float64]
    counts: npt.NDArray[np.float64]
    needed: npt.NDArray[np.float64]
    blocks: int
    size: int

    @property
    def is_sparse(self) -> bool:
        """Whether blocks are left out, which GeoTIFFs may do: GDAL takes them for no data, or 0."""
        return bool(len(self.counts) == len(self.offsets) and ((self.offsets == 0) & (self.counts == 0)).any())

    def check(self) -> None:
        """Refuse a file that lacks blocks, or parts of them.

        Raises:
            Incomplete: Saying how many.
        """
        if len(self.offsets) < self.blocks:
            raise Incomplete(f"it holds {len(self.offsets)} of {self.blocks} blocks of pixels")
        offsets, counts = self.offsets[: self.blocks], self.counts[: self.blocks]
        needed = self.needed[: self.blocks] if self.compression == 1 else self.needed[:0]
        if len(counts) < len(offsets):
            if len(self.counts):
                raise Incomplete(f"it holds the sizes of {len(counts)} of {self.blocks} blocks of pixels")
            counts = needed if len(needed) else np.zeros_like(offsets)
        present = (offsets != 0) | (counts != 0)
        if len(needed):
            counts = np.minimum(counts, needed)  # some writers count the rows below the image
        if (present & (offsets < _HEADER)).any():
            raise Incomplete("some of its blocks of pixels overlap its header")
        cut = present & (offsets + counts > self.size)
        if cut.any():
            raise Incomplete(f"{int(cut.sum())} of {self.blocks} blocks of pixels are beyond its end")
        short = present & (counts < needed) if len(needed) else present & (counts == 0) & (len(self.counts) > 0)
        if short.any():
            raise Incomplete(f"{int(short.sum())} of {self.blocks} blocks of pixels are too short")


def tiff_layout(path: Path) -> TiffLayout | None:
    """Read where the pixels of a TIFF lie, without decoding them.

    Returns:
        The layout; ``None`` where the file has no such header, which decoders refuse.

    Raises:
        Incomplete: When its tags claim far more bytes than the file has.
        OSError: When it cannot be read.
    """
    with path.open("rb") as stream:
        tags = _tags(stream, size := path.stat().st_size)
    if tags is None or not {_WIDTH, _HEIGHT} <= tags.keys():
        return None

    def one(tag: int, default: float) -> int:
        return int(tags[tag][0]) if len(tags.get(tag, ())) else int(default)

    width, height, samples = one(_WIDTH, 0), one(_HEIGHT, 0), one(_SAMPLES, 1)
    tiled = _TILES in tags
    across, down = (one(_TILE_WIDTH, 0), one(_TILE_HEIGHT, 0)) if tiled else (width, min(one(_ROWS, height), height))
    if not (0 < width and 0 < height and 0 < across and 0 < down and 0 < samples):
        return None
    columns, rows = -(-width // across), -(-height // down)
    separate = one(_PLANAR, 1) == 2
    blocks = columns * rows * (samples if separate else 1)
    offsets, counts = (
        tags.get(tag, np.zeros(0)) for tag in ((_TILES, _TILE_BYTES) if tiled else (_STRIPS, _STRIP_BYTES))
    )
    needed = np.zeros(0)
    if one(_COMPRESSION, 1) == 1 and one(_PHOTOMETRIC, 1) != _YCBCR and len(offsets) >= blocks:
        bits = one(_BITS, 1) * (1 if separate else samples)
        row = (across * bits + 7) // 8
        lines = np.full(rows, float(down))
        if not tiled:
            lines[-1] = height - (rows - 1) * down
        needed = np.tile(np.repeat(lines * row, columns), samples if separate else 1)
    return TiffLayout(one(_COMPRESSION, 1), offsets, counts, needed, blocks, size)


def _tags(stream: BinaryIO, size: int) -> dict[int, npt.NDArray[np.float64]] | None:
    """Values of the tags of a TIFF's first page that are whole numbers, as far as the file holds them."""
    start = stream.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None or len(start) < 8:
        return None
    big = start[2:4] in (b"\x2b\0", b"\0\x2b")
    if big and len(start) < 16:
        return None
    (position,) = struct.unpack(f"{order}Q", start[8:]) if big else struct.unpack(f"{order}I", start[4:8])
    if position >= size:
        return None
    stream.seek(position)
    word, long, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
    raw = stream.read(8 if big else 2)
    if len(raw) < struct.calcsize(word):
        return None
    (count,) = struct.unpack(order + word, raw)
    entries = stream.read(min(count * entry, size))
    tags: dict[int, npt.NDArray[np.float64]] = {}
    claimed = 0
    for place in range(0, len(entries) - entry + 1, entry):
        tag, kind, number = struct.unpack(
            f"{order}HH{'Q' if big else 'I'}", entries[place : place + (12 if big else 8)]
        )
        length, inline = number * _SIZES.get(kind, 0), entries[place + (12 if big else 8) : place + entry]
        if length > len(inline):
            claimed += min(length, size)
            if claimed > _MOST_TAGS * size:
                raise Incomplete(f"its tags claim more than {_MOST_TAGS} times the size of the file")
        if kind not in _INTEGERS or tag not in _READ:
            continue
        value = inline[:length]
        if length > len(inline):
            (where,) = struct.unpack(order + long, inline)
            if where > size or length > size - where:
                continue
            stream.seek(where)
            value = stream.read(length)
        tags.setdefault(tag, np.frombuffer(value, f"{order}{_INTEGERS[kind]}").astype(np.float64))
    return tags


_READ = {
    *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _ROWS, _PLANAR),
    *(_STRIPS, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES),
}
