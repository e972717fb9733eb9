"""Image files of one folder, by stem: the same rule for pairs, for images to predict and for masks to evaluate."""

import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from bitemporal.errors import DataError
from bitemporal.imagery.decode import SUFFIXES

_NOT_IMAGES = {"thumbs.db", "desktop.ini"}


@dataclass
class Listing:
    """Image files of one folder.

    Attributes:
        files: By stem, in Unicode's composed form (NFC); the first file of each stem.
        duplicates: All files of every stem that several files share.
        ignored: Names of sub-folders, and of files whose extension is not that of an image.
    """

    files: dict[str, Path] = field(default_factory=dict)
    duplicates: dict[str, list[Path]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)


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


def list_images(folder: Path) -> Listing:
    """List the images of a folder. Hidden files are left out.

    Raises:
        DataError: When the folder cannot be listed.
    """
    listing = Listing()
    for name, is_folder in entries(folder):
        base, suffix = os.path.splitext(name)
        if name.startswith(".") or name.lower() in _NOT_IMAGES:
            continue
        if is_folder or suffix.lower() not in SUFFIXES:
            listing.ignored.append(name)
            continue
        # file systems write accented letters in one of two ways; both mean the same stem
        stem = unicodedata.normalize("NFC", base)
        path = folder / name
        if stem in listing.files:
            listing.duplicates.setdefault(stem, [listing.files[stem]]).append(path)
        else:
            listing.files[stem] = path
    return listing
