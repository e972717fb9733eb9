"""Files and folders that appear whole or not at all: written under a temporary name, then renamed."""

import difflib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Literal

from bitemporal.errors import OutputError

_LEFTOVER = re.compile(r"\..+\.\d+\.(tmp|old)")


def unwritable(path: Path, error: Exception) -> OutputError:
    """The error for a file or folder that cannot be written."""
    return OutputError(
        f"{path}: cannot be written ({error}); choose another place, or correct its permissions or free space"
    )


_NAMES_SEEN = 10_000
"""So many names of a folder are compared with the one that is missing."""


def not_there(path: str | os.PathLike[str], kind: Literal["file", "folder", "file or folder"]) -> str:
    """What to say of a path that is not there, or is not what it should be: its absolute form, and names like it.

    Args:
        path: The path; not one of many in a folder, which would be listed each time.
        kind: What was looked for.
    """
    absolute = Path(os.path.abspath(path))
    if absolute.is_symlink() and not absolute.exists():
        return f"{absolute}: is a link to nothing"
    if absolute.is_dir():
        return f"{absolute}: is a folder, not a {kind}"
    if absolute.is_file():
        return f"{absolute}: is a file, not a {kind}"
    folder = next(parent for parent in absolute.parents if parent.is_dir())
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


def from_folder(value: object, folder: Path) -> object:
    """The path, or the list of paths, that a file in a folder names: relative ones start at that folder.

    Addresses (``https://``, ``s3://``) and values that are no text stay as they are.
    """
    if isinstance(value, list):
        return [from_folder(item, folder) for item in value]
    if not isinstance(value, str) or "://" in value or value.startswith("/vsi"):
        return value
    return os.path.abspath(folder / value)


@contextmanager
def replacing(path: str | os.PathLike[str], *failures: type[Exception]) -> Iterator[Path]:
    """Give a temporary file next to the target to write, and rename it to the target when the block ends well.

    The file gets the permissions that the umask grants, whatever those are that its writer chooses.

    Args:
        path: The target; its folder is made when missing. What stood there stays until it is replaced, durably.
        *failures: What the writer raises in place of an ``OSError``.

    Raises:
        OutputError: When it cannot be written; nothing is left behind then.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    refusals: tuple[type[Exception], ...] = (OSError, *failures)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        granted = temporary.stat().st_mode
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        if temporary.stat().st_mode != granted:
            temporary.chmod(granted)
        temporary.replace(target)
    except refusals as error:
        raise unwritable(target, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder next to the target to fill, and put it in the target's place when the block ends well.

    Args:
        path: The target; an existing folder there is replaced.

    Raises:
        OutputError: When it cannot be written; nothing is left behind then.
    """
    target = Path(path)
    temporary, old = (target.with_name(f".{target.name}.{os.getpid()}.{kind}") for kind in ("tmp", "old"))
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        if target.exists():
            target.rename(old)
        temporary.rename(target)
    except OSError as error:
        raise unwritable(target, error) from error
    except OutputError as error:  # of a file in the temporary folder, which no one can find
        raise OutputError(str(error).replace(str(temporary), str(target))) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(old, ignore_errors=True)


def check_new_folder(path: str | os.PathLike[str]) -> None:
    """Refuse an output folder that is not new or empty.

    Raises:
        OutputError: When it holds something, or is a file or a link.
    """
    target = Path(path)
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise OutputError(f"{target}: exists and is not an empty folder; remove it, or choose another one")


def check_output_folder(option: str, folder: Path, data: Path) -> None:
    """Refuse an output folder that is a file, or lies inside the folder of the data.

    Args:
        option: Name of the option that names the folder.
        folder: The folder, new or existing.
        data: Folder of pairs, which is never written to.

    Raises:
        OutputError: Naming the option.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{option}: {folder} is a file, expected a folder or a new name")
    if folder.resolve().is_relative_to(data.resolve()):
        raise OutputError(
            f"{option}: {folder} lies inside the data folder {data}, which is never written to; name another folder"
        )


def check_output(path: str | os.PathLike[str], ending: str, ours: Callable[[Path], bool], what: str) -> None:
    """Refuse an output file that would replace something else than an earlier output of the same kind.

    Args:
        path: The file to be written.
        ending: Extension that its name must have, such as ``.json``.
        ours: Whether an existing file is such an output; a file that it cannot read (``OSError``, ``ValueError``) is
            none.
        what: What such an output is called.

    Raises:
        OutputError: When it is a folder, ends otherwise, or holds something else.
    """
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"output: found the folder {target}, expected the name of a file that ends in {ending}")
    if not target.name.lower().endswith(ending):
        raise OutputError(f"output: found {target}, expected a name that ends in {ending}")
    if not target.exists():
        return
    try:
        known = ours(target)
    except (OSError, ValueError):
        known = False
    if not known:
        raise OutputError(
            f"output: {target} exists and is no {what}; it is not overwritten: choose another name, or move it"
        )


def json_keys(path: Path) -> set[str]:
    """Names of the values of a JSON file, none where it holds no object.

    Raises:
        OSError: When it cannot be read.
        ValueError: When it is no JSON.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    return set(content) if isinstance(content, dict) else set()


def clear_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove what a process that was killed while writing left in a folder under a temporary name.

    Args:
        folder: Its own entries alone, not those of sub-folders; it need not exist. No one else may be writing there.
    """
    for path in Path(folder).glob(".*"):
        if _LEFTOVER.fullmatch(path.name) is None:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def without_nan(value: object) -> object:
    """JSON types with null in place of NaN and infinity, which JSON does not know."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: str | os.PathLike[str], content: object) -> None:
    """Write JSON; NaN and infinity, which JSON does not know, become null.

    Raises:
        OutputError: When it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(without_nan(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")
