"""Image files of one folder, by stem: the same rule for pairs, for images to predict and for masks to evaluate."""

import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from bitemporal.errors import DataError
from bitemporal.imagery.decoded import SUFFIXES

_LITTER = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),  # Windows
    *("__macosx", "icon\r", "@eadir", "__pycache__"),  # macOS, Synology, Python
}


@dataclass
class Listing:
    """Image files of one folder.

    Attributes:
        files: By stem, in Unicode's composed form (NFC); the first file of each stem.
        duplicates: All files of every stem that several files share.
        ignored: Names of sub-folders, and of files whose extension is not that of an image.
        matched: How the stems of files became those of pairs, where they differ other than by suffixes.
    """

    files: dict[str, Path] = field(default_factory=dict)
    duplicates: dict[str, list[Path]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    matched: str = ""


def shared_stem(paths: list[Path]) -> str:
    """Files of one stem in words."""
    return f"one stem, {len(paths)} files: {', '.join(path.name for path in paths)}"


def entries(folder: Path) -> list[tuple[str, bool]]:
    """Names in a folder, sorted, and whether each is a folder itself.

    Raises:
        DataError: When the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as listing:
            return sorted((entry.name, _is_folder(entry)) for entry in listing)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed ({error.strerror}), expected a readable folder; check its permissions"
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; reading it fails later, with its name
        return False


def is_litter(name: str) -> bool:
    """Whether a file or folder is hidden, or what a desktop or an archiver leaves behind."""
    return name.startswith(".") or name.lower() in _LITTER


def is_image(name: str) -> bool:
    """Whether a file's extension is that of an image."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def has_images(folder: Path) -> bool:
    """Whether there is an image in a folder or below it; so it is taken for where a folder cannot be listed."""
    try:
        listed = entries(folder)
    except DataError:
        return True
    return any(is_image(name) for name, is_folder in listed if not is_folder and not is_litter(name)) or any(
        has_images(folder / name) for name, is_folder in listed if is_folder and not (folder / name).is_symlink()
    )


def list_images(folder: Path, below: bool = False) -> Listing:
    """List the images of a folder. Hidden files are left out.

    Args:
        folder: The folder.
        below: Where the folder itself has no image, list those of all folders below it.

    Raises:
        DataError: When the folder cannot be listed.
    """
    listing = Listing()
    folders = []
    for name, is_folder in entries(folder):
        if is_litter(name):
            continue
        if is_folder or not is_image(name):
            listing.ignored.append(name)
            folders += [folder / name] if is_folder and not (folder / name).is_symlink() else []  # no way round
        else:
            _add(listing, folder / name)
    if below and not listing.files and folders:
        listing.ignored = [name for name in listing.ignored if folder / name not in folders]
        for inner in (list_images(one, below=True) for one in folders):
            for path in (*inner.files.values(), *(path for paths in inner.duplicates.values() for path in paths[1:])):
                _add(listing, path)
            listing.ignored += inner.ignored
    return listing


def _add(listing: Listing, path: Path) -> None:
    # file systems write accented letters in one of two ways; both mean the same stem
    stem = unicodedata.normalize("NFC", os.path.splitext(path.name)[0])
    if stem in listing.files:
        listing.duplicates.setdefault(stem, [listing.files[stem]]).append(path)
    else:
        listing.files[stem] = path
