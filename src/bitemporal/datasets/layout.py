"""The folders of released data sets: under which names they hold splits, images and masks."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bitemporal.datasets.catalog import DatasetCard
from bitemporal.errors import DownloadError
from bitemporal.imagery.decode import SUFFIXES

FOLDER_NAMES = {
    **dict.fromkeys(("a", "t1", "time1", "im1", "image1", "before"), "A"),
    **dict.fromkeys(("b", "t2", "time2", "im2", "image2", "after"), "B"),
    **dict.fromkeys(("label", "labels", "out", "mask", "gt"), "label"),
}
"""Names under which data sets release their folders, in lower case, and the name of that folder here."""

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names under which data sets release their splits, in lower case, and the name of that split here."""


@dataclass(frozen=True)
class SplitFolders:
    """One split on disk.

    Attributes:
        before: Folder of the earlier images.
        after: Folder of the later images.
        label: Folder of the change masks.
        pairs: Number of stems that all three hold.
        odd: Number of stems that one or two of them lack.
    """

    before: Path
    after: Path
    label: Path
    pairs: int
    odd: int


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or the litter of a Mac's archiver."""
    return name.startswith(".") or name == "__MACOSX"


def find_splits(root: str | os.PathLike[str]) -> dict[str, SplitFolders]:
    """Find the before, after and label folders of every split below a folder.

    Both ``.../SPLIT/.../{A,B,label}`` and ``.../{A,B,label}/SPLIT`` are recognised, with the names in ``FOLDER_NAMES``
    and ``SPLIT_NAMES`` in any case. Hidden folders and ``__MACOSX`` are ignored.

    Returns:
        Folders and counts by split (train, val, test), in that order.

    Raises:
        DownloadError: When two folders fit the same place of a split.
    """
    top = Path(root)
    # folders of images by split and by the place that before, after and label folders share
    groups: dict[tuple[str, tuple[str, ...]], dict[str, Path]] = {}
    for name, folders, files in os.walk(top):
        folders[:] = sorted(folder for folder in folders if not is_hidden(folder))
        place = Path(name)
        parts = tuple(part.lower() for part in place.relative_to(top).parts)
        split, role = _last_known(parts, SPLIT_NAMES), _last_known(parts, FOLDER_NAMES)
        if split is None or role is None or not any(map(_is_image, files)):
            continue
        last = max(index for index, part in enumerate(parts) if FOLDER_NAMES.get(part) == role)
        shared = tuple(part for part in parts[:last] if FOLDER_NAMES.get(part) != role)
        known = groups.setdefault((split, shared), {}).setdefault(role, place)
        if not place.is_relative_to(known):
            raise _two_folders(top, split, known, place)
    splits: dict[str, SplitFolders] = {}
    for (split, _), group in groups.items():
        if group.keys() == {"A", "B", "label"}:
            if split in splits:
                raise _two_folders(top, split, splits[split].before, group["A"])
            splits[split] = _counted(group["A"], group["B"], group["label"])
    return {split: splits[split] for split in ("train", "val", "test") if split in splits}


def _last_known(parts: tuple[str, ...], names: Mapping[str, str]) -> str | None:
    return next((names[part] for part in reversed(parts) if part in names), None)


def _is_image(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def _two_folders(top: Path, split: str, first: Path, second: Path) -> DownloadError:
    return DownloadError(f"{top}: both {first} and {second} look like the same folder of {split}; keep one of them")


def _counted(before: Path, after: Path, label: Path) -> SplitFolders:
    stems = [{path.stem for path in folder.iterdir() if _is_image(path.name)} for folder in (before, after, label)]
    common = len(set.intersection(*stems))
    return SplitFolders(before, after, label, common, len(set.union(*stems)) - common)


def compare_with_card(card: DatasetCard, splits: Mapping[str, SplitFolders]) -> list[str]:
    """The differences between the splits on disk and the card, one sentence each."""
    differences = []
    for split in dict.fromkeys((*card.splits, *splits)):
        pairs = splits[split].pairs if split in splits else 0
        expected = card.splits.get(split)
        if expected is not None and pairs != expected:
            differences.append(f"{split}: found {pairs:,} pairs, expected {expected:,}")
        if expected is None and card.splits:
            differences.append(f"{split}: found {pairs:,} pairs, but {card.title} ships no such split")
        if split in splits and splits[split].odd:
            differences.append(f"{split}: {splits[split].odd:,} stems lack an image or a label")
    return differences
