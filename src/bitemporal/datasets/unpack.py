"""Unpacking of archives that are not to be trusted."""

import bz2
import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, Protocol, cast

from bitemporal.errors import DownloadError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
"""Names that ``safe_extract`` takes for archives it can read."""

_CHUNK = 1 << 20
# the last one is what zipfile raises at a compression that it does not know
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError)
_DECOMPRESSORS: dict[bytes, Callable[[Path, str], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}


@dataclass(frozen=True)
class ExtractLimits:
    """What an archive may become.

    Attributes:
        max_bytes: Most bytes written in all.
        max_files: Most files and folders.
        max_ratio: Most bytes written for one byte of archive; images, compressed already, come to about 1.
        ratio_from: Bytes below which the ratio is not looked at.
    """

    max_bytes: int = 256 << 30
    max_files: int = 1_000_000
    max_ratio: float = 100.0
    ratio_from: int = 64 << 20


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Whether a file's name is that of an archive which ``safe_extract`` can read."""
    return Path(path).name.lower().endswith(ARCHIVE_SUFFIXES)


def safe_extract(
    archive: str | os.PathLike[str], target: str | os.PathLike[str], limits: ExtractLimits | None = None
) -> None:
    """Unpack a zip or tar archive (plain, gzip, bzip2 or xz) into a folder that does not exist yet.

    The files appear all at once: they are written to a neighbouring folder that is renamed at the end and removed on
    any failure. Refused are absolute names, ``..``, links of any kind, devices and pipes, names given twice, names that
    are no UTF-8, encrypted members, and archives that grow beyond ``limits`` or the free disk. Permissions and owners
    that the archive states are not taken over.

    Args:
        archive: The file; its content, not its name, says what it is.
        target: Folder to make; it may exist when empty.
        limits: What the archive may become; ``ExtractLimits()`` when ``None``.

    Raises:
        DownloadError: When the archive is refused, damaged or of another kind, or ``target`` holds something.
    """
    source, folder = Path(archive), Path(target)
    if not source.is_file():
        raise DownloadError(f"{source}: no such file, expected an archive to unpack")
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise DownloadError(
            f"{folder}: exists and is not an empty folder; remove it, or name another one to unpack into"
        )
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.part")
    try:
        with _translated(source):
            temporary.mkdir(parents=True)
            _extract(source, _Writer(source, temporary, limits or ExtractLimits()))
            if folder.exists():
                folder.rmdir()
            temporary.rename(folder)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


@contextmanager
def _translated(source: Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise DownloadError(
            f"{source}: cannot be unpacked ({type(error).__name__}: {error}); if the archive is damaged, remove it and "
            "fetch it again"
        ) from error


def _extract(source: Path, writer: "_Writer") -> None:
    with source.open("rb") as stream:
        head = stream.read(6)
    if head.startswith(b"PK"):
        _extract_zip(source, writer)
    elif head.startswith(b"Rar!") or head.startswith(b"7z\xbc\xaf"):
        raise DownloadError(f"{source}: is a RAR or 7-Zip archive; unpack it with 7-Zip, which Python does not bring")
    else:
        opener: Callable[[Path, str], Any] = open
        opener = next((o for magic, o in _DECOMPRESSORS.items() if head.startswith(magic)), opener)
        with opener(source, "rb") as stream:
            _extract_tar(stream, writer)


def _extract_zip(source: Path, writer: "_Writer") -> None:
    with zipfile.ZipFile(source) as archive:
        members = archive.infolist()
        writer.expect(sum(m.file_size for m in members), len(members))
        for member in members:
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise writer.refusal(member.filename, "is a link or a device")
            if member.flag_bits & 1:
                raise writer.refusal(member.filename, "is encrypted")
            if "\0" in member.orig_filename:
                raise writer.refusal(member.orig_filename, "has a zero byte in its name")
            if member.is_dir():
                writer.folder(member.filename)
            else:
                with archive.open(member) as content:
                    writer.file(member.filename, content)


def _extract_tar(stream: BinaryIO, writer: "_Writer") -> None:
    # the meter sees headers too, so that neither a huge header nor a false size gets past the limits
    metered = cast("IO[bytes]", _Meter(stream, writer))
    with tarfile.open(fileobj=metered, mode="r|", encoding="utf-8", errors="surrogateescape") as archive:
        for member in archive:
            if member.isdir():
                writer.folder(member.name)
            elif member.isreg():
                writer.expect(member.size, 1)
                content = archive.extractfile(member)
                if content is None:
                    raise writer.refusal(member.name, "has no content")
                writer.file(member.name, content)
            else:
                raise writer.refusal(member.name, "is a link, a pipe or a device")


class _Meter:
    """A stream that counts what is read from it against the limits."""

    def __init__(self, stream: BinaryIO, writer: "_Writer") -> None:
        self._stream = stream
        self._writer = writer
        self._read = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._read += len(data)
        self._writer.check_bytes(self._read)
        return data


class _Writer:
    """Writes members below one folder and enforces names and limits."""

    def __init__(self, source: Path, root: Path, limits: ExtractLimits) -> None:
        self._source = source
        self._root = root
        self._limits = limits
        self._compressed = max(source.stat().st_size, 1)
        self._written = 0
        self._names: dict[str, bool] = {}

    def refusal(self, name: str, reason: str) -> DownloadError:
        return DownloadError(
            f"{self._source}: refused, member {name!r} {reason}; nothing was unpacked. Take the archive from its "
            "authors, or unpack it with another tool if you trust it"
        )

    def check_bytes(self, size: int) -> None:
        limits = self._limits
        if size > limits.max_bytes:
            raise DownloadError(
                f"{self._source}: refused, unpacks to more than {limits.max_bytes:,} bytes; nothing was unpacked"
            )
        if size > limits.ratio_from and size > limits.max_ratio * self._compressed:
            raise DownloadError(
                f"{self._source}: refused, {self._compressed:,} bytes unpack to more than {limits.max_ratio:g} times "
                "as much, as in a decompression bomb; nothing was unpacked"
            )

    def expect(self, size: int, files: int) -> None:
        """Check what is announced, before any of it is written."""
        self.check_bytes(self._written + size)
        self._check_count(len(self._names) + files)
        free = shutil.disk_usage(self._root).free
        if size > free:
            raise DownloadError(
                f"{self._source}: unpacking needs {size:,} bytes, but {self._root.parent} has {free:,} free; make room "
                "or name a folder on another disk"
            )

    def folder(self, name: str) -> None:
        parts = self._parts(name)
        if parts:
            self._note(parts, is_folder=True)
            self._root.joinpath(*parts).mkdir(parents=True, exist_ok=True)

    def file(self, name: str, content: _Readable) -> None:
        parts = self._parts(name)
        if not parts:
            raise self.refusal(name, "has no name")
        self._note(parts, is_folder=False)
        path = self._root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        # "x" makes a file and follows nothing, so that an existing one, whatever it is, is never written through
        with path.open("xb") as out:
            while chunk := content.read(_CHUNK):
                self._written += len(chunk)
                self.check_bytes(self._written)
                out.write(chunk)

    def _check_count(self, count: int) -> None:
        if count > self._limits.max_files:
            raise DownloadError(
                f"{self._source}: refused, holds more than {self._limits.max_files:,} files; nothing was unpacked"
            )

    def _note(self, parts: tuple[str, ...], is_folder: bool) -> None:
        key = "/".join(parts)
        if key in self._names and not (is_folder and self._names[key]):
            raise self.refusal(key, "is given twice")
        self._names[key] = is_folder
        self._check_count(len(self._names))

    def _parts(self, name: str) -> tuple[str, ...]:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            raise self.refusal(name, "has a name that is no UTF-8") from None
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or re.match(r"[A-Za-z]:", name):
            raise self.refusal(name, "has an absolute name")
        if ".." in path.parts:
            raise self.refusal(name, "leads out of the folder by '..'")
        if any(ord(c) < 32 for c in name):
            raise self.refusal(name, "has a control character in its name")
        return path.parts
