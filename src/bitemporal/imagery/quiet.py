"""Pillow and rasterio without the remarks that are expected of them, in any number of threads at once.

``warnings.catch_warnings`` and Pillow's limit of pixels are no way to that: they belong to the whole process, so that
threads put back what others have set. Filters for exactly these remarks are added once instead, and stay.
"""

import logging
import os
import re
import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

_PILLOW_REMARKS = (
    "Palette images with Transparency|Image appears to be a malformed MPO|Invalid APNG|Metadata Warning, tag|"
    "(Possibly c|C)orrupt EXIF|Tag offset too large|Tag data larger than file|Truncated File Read"
)
"""Beginnings of what Pillow says of metadata that nothing here uses; damage to pixels raises."""

_PREFIX = 16  # bytes by which Pillow's plugins know a file
_one_at_a_time = threading.Lock()
_opening: ContextVar[bool] = ContextVar("opening", default=False)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a message says more than that Pillow knows no TIFF of so many bands: rasterio reads them."""
    return not (_opening.get() and str(record.msg).startswith("More samples per pixel"))


logging.getLogger("PIL.TiffImagePlugin").addFilter(_is_news)


def ignore_warnings(category: type[Warning], message: str = "", module: str = "") -> None:
    """Ignore warnings from now on, unless a filter does so already.

    Args:
        category: Class of the warnings.
        message: Regular expression for the beginning of their text.
        module: Regular expression for the whole name of the module that warns.
    """
    patterns = (message and re.compile(message, re.IGNORECASE), module and re.compile(module))
    entry = ("ignore", patterns[0] or None, category, patterns[1] or None, 0)
    if entry not in warnings.filters:  # programs may reset the filters at any time, as test runners do
        with _one_at_a_time:
            warnings.filterwarnings("ignore", message, category, module)


def ignore_missing_places() -> None:
    """Let rasterio open images without a place on the ground, which are allowed everywhere here, without a warning."""
    from rasterio.errors import NotGeoreferencedWarning

    ignore_warnings(NotGeoreferencedWarning)


def ignore_remarks_of_pillow() -> None:
    """Let Pillow read files with odd metadata without a warning."""
    ignore_warnings(UserWarning, _PILLOW_REMARKS, r"PIL\.\w+")


@contextmanager
def _known_to_be_opening() -> Iterator[None]:
    token = _opening.set(True)
    try:
        yield
    finally:
        _opening.reset(token)


def open_image(path: Path, formats: Sequence[str]) -> Image.Image:
    """Open a file as ``PIL.Image.open`` does, without its limit of pixels.

    That limit is global, and lower than scenes of the field: check the size of the image right after.

    Args:
        path: The file.
        formats: Names that Pillow has for the formats to try.

    Raises:
        UnidentifiedImageError: When the file is of none of the formats.
        Exception: Of any kind, when its header is damaged.
    """
    Image.init()
    ignore_remarks_of_pillow()
    with path.open("rb") as stream:
        prefix = stream.read(_PREFIX)
    for name in formats:
        make: Any
        make, accepts = Image.OPEN[name]
        verdict = accepts is None or accepts(prefix)
        if not verdict or isinstance(verdict, str):  # a string says why the format is not supported
            continue
        with suppress(SyntaxError, IndexError, TypeError, struct.error), _known_to_be_opening():
            opened: Image.Image = make(os.fspath(path), "")  # given a name, it opens and closes the file
            return opened
    raise UnidentifiedImageError(f"cannot identify image file {path}")
