"""Outputs: which file may be replaced, who writes it, and how it appears whole or not at all.

One rule holds for every output of the package (``check_outputs``): it replaces an earlier output of the same kind,
known by what is in it, or nothing. It never replaces a file that the same run reads.
"""

import ctypes
import hashlib
import json
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from bitemporal.errors import OutputError
from bitemporal.files import without_links, without_nan

try:
    import fcntl
except ModuleNotFoundError:  # Windows; runs are not kept apart there, and leftovers stay
    fcntl = None  # type: ignore[assignment]  # None stands for a missing module

_LONGEST_NAME = 200
"""Bytes of a target's name that its temporary name repeats: file systems allow 255 in all."""


def unwritable(path: Path, error: Exception) -> OutputError:
    """The error for a file or folder that cannot be written."""
    return OutputError(
        f"{path}: cannot be written ({error}); choose another place, or correct its permissions or free space"
    )


@dataclass(frozen=True)
class Kind:
    """A kind of output.

    Attributes:
        name: What it is called, with its article: ``a result of an evaluation``.
        is_ours: Whether an existing file, or folder, is an earlier output of this kind, from its content; one that
            it cannot read is not one.
        endings: Ends that its name may have, such as ``.json``; of a folder none.
        members: Of a folder, which is replaced as a whole: patterns of the files in it, such as ``*/bundle.json``. A
            folder with any other file in it is never replaced, as that file would be lost.
    """

    name: str
    is_ours: Callable[[Path], bool]
    endings: tuple[str, ...] = ()
    members: tuple[str, ...] = ()

    def stands_at(self, path: Path) -> bool:
        """Whether an earlier output of this kind stands there."""
        try:
            return (path.is_file() or path.is_dir()) and self.is_ours(path)  # a pipe would be waited for
        except Exception:  # the bytes of another file can make a reader raise anything
            return False

    def may_replace(self, path: Path) -> bool:
        """Whether what stands there may be replaced when the user says so: any file, but no folder of other files."""
        if self.endings:
            return path.is_file() or not path.exists()
        return self.holds_no_other(path)

    def holds_no_other(self, folder: Path) -> bool:
        """Whether a folder has files of the members' names alone."""
        if not folder.is_dir():
            return False
        below = [path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
        return all(any(_matches(path, pattern) for pattern in self.members) for path in below)


def _matches(path: Path, pattern: str) -> bool:
    """Whether a relative path is one of a pattern's, part by part; before Python 3.13, ``Path`` matches ends alone."""
    return len(path.parts) == pattern.count("/") + 1 and path.match(pattern)


NEW_FOLDER = Kind("an empty folder", lambda path: path.is_dir() and not path.is_symlink() and not any(path.iterdir()))
"""A folder that must be new, or empty."""

_READ_BY_COMMAND: ContextVar[tuple[Path, ...]] = ContextVar("_READ_BY_COMMAND", default=())


@contextmanager
def also_read(paths: Iterable[str | os.PathLike[str]]) -> Iterator[None]:
    """Let every ``check_outputs`` of the block know of files that the command itself reads, such as ``--config``."""
    before = _READ_BY_COMMAND.set((*_READ_BY_COMMAND.get(), *map(Path, paths)))
    try:
        yield
    finally:
        _READ_BY_COMMAND.reset(before)


@dataclass(frozen=True)
class Output:
    """An output that a run will write.

    Attributes:
        option: The option or argument that names it.
        path: Where.
        kind: Its kind.
        remedy: What to do instead where it cannot be written.
    """

    option: str
    path: Path
    kind: Kind
    remedy: str = "choose another name"


def check_outputs(outputs: Iterable[Output], reads: Iterable[str | os.PathLike[str]], overwrite: bool = False) -> None:
    """Refuse outputs that would lose something of the user's, or cannot be written, before any work.

    Args:
        outputs: All that the run writes.
        reads: Every file that it reads, and folders of which it reads everything (bundles, data): nothing is written
            into these. Links are followed.
        overwrite: Whether files of another kind are replaced too. What the run reads is not, even then.

    What killed runs left of the same outputs is removed.

    Raises:
        OutputError: Naming the option and the remedy.
    """
    planned = list(outputs)
    read = [*map(Path, reads), *_READ_BY_COMMAND.get()]
    standing = any(os.path.lexists(output.path) for output in planned)
    files = {identity for path in read if (identity := _identity(path)) is not None} if standing else set()
    folders = [without_links(path) for path in read if path.is_dir()]
    seen: dict[Path, str] = {}
    for output in planned:
        option, path, kind = output.option, output.path, output.kind
        real = without_links(path)
        _check_name(output)
        if _identity(path) in files:
            raise OutputError(f"{option}: {path} is one of the inputs, which are never changed; {output.remedy}")
        for folder in folders:
            if real.is_relative_to(folder):
                raise OutputError(
                    f"{option}: {path} is inside {folder}, which is read and never written to; {output.remedy}"
                )
        if not kind.endings and (
            inside := next((file for file in read if without_links(file).is_relative_to(real)), None)
        ):
            raise OutputError(f"{option}: {path} holds {inside}, which is read; {output.remedy}")
        if (other := seen.setdefault(real, option)) != option:
            raise OutputError(f"{option}: {path} is also the place of the {other}; choose another name")
        _check_parent(option, path)
        if os.path.lexists(path) and not kind.stands_at(path):
            _check_replaceable(output, overwrite)
    clear_leftovers(output.path for output in planned)


def _check_name(output: Output) -> None:
    option, path, kind = output.option, output.path, output.kind
    endings = " or ".join(kind.endings)
    if kind.endings and path.is_dir():
        raise OutputError(f"{option}: {path} is a folder, expected the name of {kind.name}, which ends in {endings}")
    if kind.endings and path.suffix.lower() not in kind.endings:
        raise OutputError(f"{option}: found {path}, expected a name that ends in {endings}")


def _check_replaceable(output: Output, overwrite: bool) -> None:
    """Refuse to replace what is there, and no earlier output, unless the user says so and nothing else is lost."""
    option, path, kind = output.option, output.path, output.kind
    if kind is NEW_FOLDER:
        raise OutputError(f"{option}: {path} exists and is not an empty folder; remove it, or {output.remedy}")
    if not kind.may_replace(path):
        raise OutputError(
            f"{option}: {path} exists and is not {kind.name} by bitemporal, or holds other files as well; it is not "
            f"replaced: {output.remedy}, or move it"
        )
    if not overwrite:
        raise OutputError(
            f"{option}: {path} exists and is not {kind.name} by bitemporal; it is not replaced: "
            f"{output.remedy}, move it, or add --overwrite (overwrite=True in Python)"
        )


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode, which also reveal links, and names that differ only in case."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _check_parent(option: str, path: Path) -> None:
    parent = without_links(path).parent
    existing = next(folder for folder in (parent, *parent.parents) if os.path.lexists(folder))
    if not existing.is_dir():
        raise OutputError(
            f"{option}: {path} cannot be written, because {existing} is not a folder; choose another place"
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(
            f"{option}: {path} cannot be written in {existing}; choose another place, or correct its permissions"
        )


_unfinished: set[Path] = set()
"""Temporary files and folders that this process is writing, and its locks."""
_publishing = threading.Lock()


def remove_unfinished() -> None:
    """Remove what this process is writing, as it ends now; none of its threads puts an output in place any more."""
    _publishing.acquire(timeout=1)
    for path in sorted(_unfinished, key=lambda path: path.name.endswith(".lock")):
        _remove(path)


@contextmanager
def locked(target: Path, pause: Callable[[], object] | None = None, again: bool = True) -> Iterator[None]:
    """Keep other processes and threads from writing the same output; the lock ends with the process that holds it.

    Args:
        target: The output. A hidden file next to it is the lock, made when missing and removed at the end, unless it
            has content: then it is the user's.
        pause: Called again and again while another run holds the lock, to wait for it.
        again: Whether the block that holds the lock may take it once more.

    Raises:
        OutputError: When another run holds the lock, or it cannot be made.
    """
    lock = Path(os.path.realpath(target.parent)) / f".{_shortened(target.name)}.lock"
    if again and lock in _LOCKS.get():
        yield
        return
    missing = [folder for folder in (lock.parent, *lock.parent.parents) if not os.path.lexists(folder)]
    try:
        while (held := _try_lock(lock)) is None and pause is not None:
            pause()
    except OSError as error:
        raise unwritable(target, error) from error
    if held is None:
        raise OutputError(f"{target}: another run is writing it; wait until it ends, or choose another output")
    is_ours = os.fstat(held).st_size == 0
    before = _LOCKS.set(_LOCKS.get() | {lock})
    try:
        if is_ours:
            _unfinished.add(lock)
        yield
    finally:
        _LOCKS.reset(before)
        with suppress(OSError):  # while it is held: who comes next makes a new one
            if is_ours:
                lock.unlink()
        _unfinished.discard(lock)
        _close(held)
        for folder in missing:  # and nothing has come of them
            with suppress(OSError):
                folder.rmdir()


_LOCKS: ContextVar[frozenset[Path]] = ContextVar("_LOCKS", default=frozenset())
"""Locks that the running block holds: it may take one again."""

_HELD: set[int] = set()
"""Descriptors with a lock. Forked processes, as those that load data, must not keep it when this one is killed."""


def _let_go() -> None:
    for descriptor in _HELD:
        with suppress(OSError):
            os.close(descriptor)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _close(descriptor: int) -> None:
    if descriptor in _HELD:
        _HELD.remove(descriptor)
        os.close(descriptor)


_TRIES = 100
"""How often the folder of a lock may vanish; some folders, such as ``/proc``, take no other at all."""


def _try_lock(lock: Path) -> int | None:
    """A descriptor that holds the lock; ``None`` when someone else does."""
    tries = 0
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # who had made the folder removed it between the two steps
            if (tries := tries + 1) < _TRIES:
                continue
            raise
        if not _flock(held):
            os.close(held)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(held), lock.stat()):
                _HELD.add(held)
                return held
        os.close(held)  # its holder removed it between the two steps: that file locks nothing any more


def _flock(descriptor: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _temporary_name(target: Path, ending: str) -> Path:
    number = secrets.token_hex(4)
    return target.with_name(f".{_shortened(target.name)}.{number}{_check_digits(target.name, number)}.{ending}")


def _check_digits(name: str, number: str) -> str:
    """Digits that tell a temporary name of this package from a similar name that a user has chosen."""
    return hashlib.sha256(os.fsencode(f"bitemporal {_shortened(name)} {number}")).hexdigest()[:8]


def _shortened(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_LONGEST_NAME])


@contextmanager
def _abandoned(path: Path) -> Iterator[bool]:
    """Whether the process that wrote a temporary file or folder has ended, for the block: it held a lock on it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        yield fcntl is not None and _flock(descriptor)
    finally:
        os.close(descriptor)


def _make_temporary(target: Path, make: Callable[[Path], int]) -> tuple[Path, int]:
    """A new temporary file or folder next to a target, and a descriptor that holds its lock.

    Args:
        target: The target.
        make: Makes it, and opens it.
    """
    while True:
        temporary = _temporary_name(target, "tmp")
        _unfinished.add(temporary)
        held = make(temporary)
        # another process may have found it before it was locked, and taken it for a leftover
        with suppress(FileNotFoundError):
            if _flock(held) and os.path.samestat(os.fstat(held), temporary.stat()):
                _HELD.add(held)
                return temporary, held
        _unfinished.discard(temporary)
        os.close(held)


def _make_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def _make_folder(path: Path) -> int:
    path.mkdir()
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


_LEFTOVER = re.compile(
    r"\.(?P<target>.+)\.(?P<number>[0-9a-f]{8})(?P<digits>[0-9a-f]{8})\.(?P<ending>tmp|old)", re.DOTALL
)


def clear_leftovers(targets: Iterable[Path]) -> None:
    """Remove what killed runs left of outputs, and put back an earlier folder that one had moved aside.

    Args:
        targets: The outputs. Each of their folders is listed once.
    """
    names: dict[Path, set[str]] = {}
    for target in targets:
        real = Path(os.path.realpath(target))
        names.setdefault(real.parent, set()).add(_shortened(real.name))
    for folder, expected in names.items():
        try:
            found = [(path, match) for path in folder.iterdir() if (match := _LEFTOVER.fullmatch(path.name))]
        except OSError:
            continue
        for path, match in found:
            if match["target"] not in expected or match["digits"] != _check_digits(match["target"], match["number"]):
                continue
            with _abandoned(path) as abandoned:
                target = folder / match["target"]
                if abandoned and match["ending"] == "old" and not os.path.lexists(target):
                    with suppress(OSError):
                        path.rename(target)
                elif abandoned:
                    _remove(path)


@contextmanager
def replacing(path: str | os.PathLike[str], *failures: type[Exception]) -> Iterator[Path]:
    """Give a temporary file next to the target to write, and rename it to the target when the block ends well.

    The file gets the permissions that the umask grants, whatever those are that its writer chooses. A target that is a
    link is followed.

    Args:
        path: The target; its folder is made when missing. What stood there stays until it is replaced, durably.
        *failures: What the writer raises in place of an ``OSError``.

    Raises:
        OutputError: When it cannot be written; nothing is left behind then.
    """
    target = Path(os.path.realpath(path))
    refusals: tuple[type[Exception], ...] = (OSError, *failures)
    temporary, held = None, -1
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary, held = _make_temporary(target, _make_file)
        granted = os.fstat(held).st_mode
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        if temporary.stat().st_mode != granted:
            temporary.chmod(granted)
        with _publishing:
            temporary.replace(target)
        _sync_folder(target.parent)
    except refusals as error:
        raise unwritable(target, error) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            _unfinished.discard(temporary)
            _close(held)


def _sync_folder(folder: Path) -> None:
    """Put the names of a folder on the disk, where the system allows it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def replacing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder next to the target to fill, and put it in the target's place when the block ends well.

    Args:
        path: The target; an existing folder there is replaced, in one step where the system has one.

    Raises:
        OutputError: When it cannot be written; nothing is left behind then.
    """
    target = Path(os.path.realpath(path))
    old = _temporary_name(target, "old")
    temporary, held = None, -1
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers([target])
        temporary, held = _make_temporary(target, _make_folder)
        yield temporary
        with _publishing:
            if not target.exists():
                temporary.rename(target)
            elif not _exchange(temporary, target):
                target.rename(old)  # and back below, where the next step fails
                temporary.rename(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise unwritable(target, error) from error
    except OutputError as error:  # of a file in the temporary folder, which no one can find
        raise OutputError(str(error).replace(str(temporary), str(target))) from error
    finally:
        if temporary is not None:
            if not os.path.lexists(target):  # failed, or interrupted, between two renames
                with suppress(OSError):
                    old.rename(target)
            shutil.rmtree(temporary, ignore_errors=True)  # after an exchange: what stood there before
            if os.path.lexists(target):  # else it is all that there is, and the next run puts it back
                shutil.rmtree(old, ignore_errors=True)
            _unfinished.discard(temporary)
            _close(held)


_RENAME_EXCHANGE, _AT_FDCWD = 2, -100


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step (Linux, ``renameat2``); false where that does not exist."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return bool(call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def write_json(path: str | os.PathLike[str], content: object) -> None:
    """Write JSON; NaN and infinity, which JSON does not know, become null.

    Raises:
        OutputError: When it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(without_nan(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")
