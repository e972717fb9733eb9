"""Paths and text: what to say of a path that is not there, what a file is and holds, what JSON does not know."""

import codecs
import difflib
import functools
import hashlib
import math
import os
import stat
import time
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

T = TypeVar("T")

_NAMES_SEEN = 10_000
"""So many names of a folder are compared with the one that is missing."""


def not_there(path: str | os.PathLike[str], kind: Literal["file", "folder", "file or folder"]) -> str:
    """What to say of a path that is not there, or is not what it should be: its absolute form, and names like it.

    Args:
        path: The path; not one of many in a folder, which would be listed each time.
        kind: What was looked for.
    """
    absolute = Path(os.path.abspath(path))
    if os.path.islink(absolute) and not os.path.exists(absolute):
        return f"{absolute}: is a broken link"
    if os.path.isdir(absolute):
        return f"{absolute}: is a folder, not a {kind}"
    if os.path.isfile(absolute):
        return f"{absolute}: is a file, not a {kind}"
    if special := special_file(absolute):
        return f"{absolute}: is {special}, not a {kind}"
    folder = next(parent for parent in absolute.parents if os.path.isdir(parent))
    name, *below = absolute.relative_to(folder).parts
    near = [str(folder.joinpath(other, *below)) for other in _near_names(folder, name)]
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    if below and not near:
        hint = f" ({folder} has no {name})"
    return f"{absolute}: no such {kind}{hint}"


def _near_names(folder: Path, name: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            names = {entry.name.casefold(): entry.name for entry in islice(entries, _NAMES_SEEN)}
    except OSError:
        return []
    return [names[near] for near in difflib.get_close_matches(name.casefold(), names)]


def without_links(path: str | os.PathLike[str]) -> Path:
    """An absolute path without links; one that leads to itself stays, where ``Path.resolve`` raises an error."""
    return Path(os.path.realpath(path))


def special_file(path: str | os.PathLike[str]) -> str:
    """What a path is that is neither file nor folder, such as ``a pipe``; empty where it is one, or is not there.

    Opening a pipe would block, and a device may never end.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return ""
    names = (
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for is_one, name in names if is_one(mode)), "")


_SETTLED = 2.0
"""Seconds after which a file that is changed again shows it by its time: file systems count in steps."""


def once_a_state(function: Callable[..., T]) -> Callable[..., T]:
    """Remember what a function says of a file until its size, time or inode change; errors are not remembered.

    Args:
        function: Takes a path, and other arguments that can be keys.
    """

    @functools.lru_cache(maxsize=2**16)
    def remembered(state: tuple[int, ...], path: Path, *others: object) -> T:
        return function(path, *others)

    @functools.wraps(function)
    def asked(path: Path, *others: object) -> T:
        found = os.stat(path)
        if abs(time.time() - max(found.st_mtime, found.st_ctime)) < _SETTLED:
            return function(path, *others)
        state = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
        return remembered(state, path, *others)

    return asked


@once_a_state
def sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits; the file is read once while it stays as it is.

    Raises:
        OSError: When it cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def from_folder(value: object, folder: Path) -> object:
    """The path, or the list of paths, that a file in a folder names: relative ones start at that folder.

    Addresses (``https://``, ``s3://``) and values that are no text stay as they are.
    """
    if isinstance(value, list):
        return [from_folder(item, folder) for item in value]
    if not isinstance(value, str) or "://" in value or value.startswith("/vsi"):
        return value
    return os.path.abspath(folder / value)


_WEIGHTS = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
"""Endings of files of weights."""


def options_from_folder(options: object, folder: Path) -> object:
    """Options of a network that a file in a folder states: relative paths among them start at that folder.

    Which options are paths is the network's own affair. A text is taken for one where it ends like a file of weights,
    or has an ending and names a file of that folder.
    """
    if not isinstance(options, Mapping):
        return options

    def is_path(value: object) -> bool:
        ending = Path(value).suffix if isinstance(value, str) else ""
        return ending.lower() in _WEIGHTS or (ending != "" and (folder / str(value)).is_file())

    return {name: from_folder(value, folder) if is_path(value) else value for name, value in options.items()}


def text_of(raw: bytes) -> str:
    """Text as editors and spreadsheets save it: UTF-8 or UTF-16, with or without a mark at its beginning.

    Bytes that are neither stand in it as ``surrogateescape`` has them.
    """
    if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return raw.decode("utf-16", "replace")
    zeros = raw[::2].count(0), raw[1::2].count(0)
    if max(zeros) > len(raw) // 4:  # every other byte, without a mark
        return raw.decode("utf-16-be" if zeros[0] > zeros[1] else "utf-16-le", "replace")
    return raw.decode("utf-8-sig", "surrogateescape")


def without_nan(value: object) -> object:
    """JSON types with null in place of NaN and infinity, which JSON does not know."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
