"""What one decoded image file is, how large it may be, and the faults that it may have."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from bitemporal.errors import DataError
from bitemporal.imagery.colours import places_of_colours
from bitemporal.imagery.physical import Scaling
from bitemporal.texts import harmless

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
    ".jp2": "JPEG2000",
}
"""Extensions that count as images (in any case), and the format that each of them promises, as Pillow names it."""

MAX_PIXELS = 512_000_000
"""Most pixels of one image; the largest published scene of the field (WHU-CD, 32507 x 15354) has 499 million."""

MAX_BYTES = 3 * MAX_PIXELS
"""Most bytes of one image after decoding: as many as the largest in colours of 8 bits has."""

RESTORE = "restore the file from its source, or remove its pair"
"""The remedy for a file that is damaged or missing."""


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
        return f"{harmless(str(self.path), lines=False)}: {self.what}; {self.remedy}"


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
        names: What the file calls its bands, where all of them were read through rasterio.
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
    names: tuple[str | None, ...] = ()

    @property
    def samples(self) -> npt.NDArray[Any]:
        """As stored, H x W or H x W x C; indices for a palette image."""
        return np.asarray(self.pixels)

    def without_pixels(self) -> "Decoded":
        """What the file is, and the type of its samples, without the memory that its pixels take."""
        pixels = self.pixels.crop((0, 0, 1, 1)) if isinstance(self.pixels, Image.Image) else self.pixels[:0].copy()
        return replace(self, pixels=pixels)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        if isinstance(self.pixels, Image.Image):
            return self.pixels.height, self.pixels.width
        return self.pixels.shape[0], self.pixels.shape[1]


def check_size(path: Path, height: int, width: int, bytes_per_pixel: int) -> None:
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


def check_bands(path: Path, bands: Sequence[int], count: int) -> None:
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


def choose_bands(count: int, names: Sequence[str | None] = ()) -> str:
    """The remedy that names bands of a file that has so many, by what the file calls them where that says colours."""
    if len(names) == count and (places := places_of_colours([name or "" for name in names])):
        bands = tuple(place + 1 for place in places)
        return (
            "choose which of them become the network's channels, "
            f"--bands {','.join(map(str, bands))} (bands={bands}) for red, green and blue by the bands' names"
        )
    if count < 3:
        return "choose among them, one repeated: --bands 1,1,1 (bands=(1, 1, 1))"
    # Sentinel-2 without its bands of 60 m, which leaves ten, begins with blue
    first, which = ("4,3,2", "as in Sentinel-2") if count >= 12 else ("3,2,1", "where blue comes first")
    example = f"--bands {first} (bands=({first.replace(',', ', ')}))"
    return f"choose which of them become the network's channels, {example} for red, green and blue {which}"


def content_notes(path: Path, content: str) -> list[str]:
    """What to say where a file's content is not of the format that its extension promises."""
    promised = SUFFIXES.get(path.suffix.lower(), content)
    return [] if content == promised else [f"content is {content}, although the extension says {promised}"]
