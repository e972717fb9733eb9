"""Unpacking of archives that are not to be trusted."""

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import IO, Any, BinaryIO, cast

from bitemporal.errors import BitemporalError, DownloadError
from bitemporal.files import not_there
from bitemporal.outputs import NEW_FOLDER, Output, check_outputs, replacing_folder

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
"""Endings of the archives that ``safe_extract`` can read."""

_OPENERS: dict[bytes, Callable[[Path, str], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"": open,
}


@dataclass(frozen=True)
class ExtractLimits:
    """Limits on what an archive may expand to.

    Attributes:
        max_bytes: Largest number of bytes written in all.
        max_files: Largest number of files and folders.
        max_ratio: Largest number of bytes written per byte of archive; images, already compressed, have about 1.
        ratio_from: Number of bytes below which the ratio is ignored.
    """

    max_bytes: int = 256 << 30
    max_files: int = 1_000_000
    max_ratio: float = 100.0
    ratio_from: int = 64 << 20


def archive_stem(path: str | os.PathLike[str]) -> str:
    """The name of an archive without the ending that makes it one; the whole name of any other file."""
    name = Path(path).name
    suffix = next((suffix for suffix in ARCHIVE_SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Whether a file's name is that of an archive which ``safe_extract`` can read."""
    return archive_stem(path) != Path(path).name


def check_space(path: Path, size: int, folder: Path) -> None:
    """Refuse what does not fit on the disk.

    Args:
        path: The file that needs space, for the message.
        size: Bytes that it needs.
        folder: Where it needs them.

    Raises:
        DownloadError: When fewer bytes are free there.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DownloadError(
            f"{path}: needs {size:,} bytes, but {folder} has {free:,} free; free some space, or choose a folder on "
            "another disk"
        )


def safe_extract(
    archive: str | os.PathLike[str], target: str | os.PathLike[str], limits: ExtractLimits | None = None
) -> None:
    """Unpack a zip or tar archive (plain, gzip, bzip2 or xz) into a folder that does not exist yet.

    The files appear all at once, or not at all on any failure. Absolute names, ``..``, links of any kind, devices and
    pipes, names given twice, names that are not UTF-8, encrypted members, and archives that grow beyond ``limits`` or
    the free disk space are refused. Permissions and owners stated in the archive are ignored.

    Args:
        archive: The file; its content, not its name, decides which kind it is.
        target: Folder to make; it may exist when empty.
        limits: What the archive may expand to; ``ExtractLimits()`` when ``None``.

    Raises:
        DownloadError: When the archive is missing, refused, damaged or of another kind.
        OutputError: When ``target`` holds something.
    """
    source, folder = Path(archive), Path(target)
    if not source.is_file():
        raise DownloadError(f"{not_there(source, 'file')}; expected an archive")
    check_outputs([Output("target", folder, NEW_FOLDER, "choose another one")], [source])
    with replacing_folder(folder) as temporary:
        try:
            _extract(source, _Writer(source, temporary, limits or ExtractLimits()))
        except BitemporalError:
            raise
        except Exception as error:  # a damaged archive can raise anything
            raise DownloadError(
                f"{source}: cannot be unpacked ({type(error).__name__}: {error}); if the archive is damaged, remove it "
                "and download it again"
            ) from error


_DEEPEST = 100
"""So many folders may lie within each other."""


def _extract(source: Path, writer: "_Writer") -> None:
    with source.open("rb") as stream:
        head = stream.read(6)
    if head.startswith((b"Rar!", b"7z\xbc\xaf")):
        raise DownloadError(f"{source}: is a RAR or 7-Zip archive, which Python cannot read; unpack it with 7-Zip")
    if head.startswith(b"PK"):
        with zipfile.ZipFile(source) as archive:
            _extract_zip(archive, writer)
    else:
        opener = next(opener for magic, opener in _OPENERS.items() if head.startswith(magic))
        with opener(source, "rb") as stream:
            _extract_tar(stream, writer)


def _extract_zip(archive: zipfile.ZipFile, writer: "_Writer") -> None:
    members = archive.infolist()
    writer.expect(sum(member.file_size for member in members), len(members))
    for member in members:
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise writer.refusal(member.filename, "is a link or a device")
        if "\0" in member.orig_filename:
            raise writer.refusal(member.orig_filename, "has a zero byte in its name")
        if member.is_dir():
            writer.folder(member.filename)
        else:
            with archive.open(member) as content:
                writer.file(member.filename, member.file_size, content)


def _extract_tar(stream: BinaryIO, writer: "_Writer") -> None:
    # the meter sees headers too, so that a huge header cannot get past the limits
    metered = cast("IO[bytes]", _Meter(stream, writer))
    with tarfile.open(fileobj=metered, mode="r|", encoding="utf-8", errors="surrogateescape") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            if content is not None:
                writer.file(member.name, member.size, content)
            elif member.isdir():
                writer.folder(member.name)
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
    """Writes members into one folder and enforces names and limits."""

    def __init__(self, source: Path, root: Path, limits: ExtractLimits) -> None:
        self._source = source
        self._root = root
        self._limits = limits
        self._written = 0
        self._is_folder: dict[Path, bool] = {}

    def refusal(self, name: str, reason: str) -> DownloadError:
        return DownloadError(
            f"{self._source}: refused, member {name!r} {reason}; nothing was unpacked. Take the archive from its "
            "authors, or unpack it with another tool if you trust it"
        )

    def check_bytes(self, size: int) -> None:
        limits, packed = self._limits, self._source.stat().st_size
        if size > limits.max_bytes:
            excess = f"more than {limits.max_bytes:,} bytes"
        elif size > limits.ratio_from and size > limits.max_ratio * packed:
            excess = f"more than {limits.max_ratio:g} times its {packed:,} bytes, like a decompression bomb"
        else:
            return
        raise DownloadError(f"{self._source}: refused, because it unpacks to {excess}; nothing was unpacked")

    def expect(self, size: int, members: int) -> None:
        """Check what is announced, before any of it is written."""
        self.check_bytes(self._written + size)
        check_space(self._source, size, self._root.parent)
        if len(self._is_folder) + members > self._limits.max_files:
            raise DownloadError(
                f"{self._source}: refused, because it holds more than {self._limits.max_files:,} files; nothing "
                f"was unpacked"
            )

    def folder(self, name: str) -> None:
        self._admit(name, 0, is_folder=True).mkdir(parents=True, exist_ok=True)

    def file(self, name: str, size: int, content: IO[bytes]) -> None:
        path = self._admit(name, size, is_folder=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        # "x" makes a new file, so that nothing that exists is ever written through; both readers stop at `size` bytes
        with path.open("xb") as out:
            shutil.copyfileobj(content, out, 1 << 20)
        self._written += size

    def _admit(self, name: str, size: int, is_folder: bool) -> Path:
        """Where to write a member, once it has passed every check."""
        parts = PureWindowsPath(name)  # understands both slashes, and drives
        categories = set(map(unicodedata.category, name))
        if "Cs" in categories:  # a surrogate stands for a byte that could not be decoded
            raise self.refusal(name, "has a name that is not UTF-8")
        if "Cc" in categories:
            raise self.refusal(name, "has a control character in its name")
        if parts.anchor:
            raise self.refusal(name, "has an absolute name")
        if len(parts.parts) > _DEEPEST:
            raise self.refusal(name[:100], f"is more than {_DEEPEST} folders deep")
        if ".." in parts.parts:
            raise self.refusal(name, "leads out of the folder by '..'")
        path = self._root / parts.as_posix()
        if path in self._is_folder and not (is_folder and self._is_folder[path]):
            raise self.refusal(name, "appears twice")
        self._is_folder[path] = is_folder
        self.expect(size, members=0)
        return path
