"""The folders of released data sets: where the splits, images and masks of a download are."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bitemporal.datasets.catalog import DatasetCard
from bitemporal.pairs.layout import find_layout
from bitemporal.pairs.names import DATES, LABEL
from bitemporal.pairs.one_split import SplitFiles


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


def find_splits(root: str | os.PathLike[str]) -> dict[str, SplitFolders]:
    """Find the before, after and label folders of every split below a folder.

    Layouts are those that ``PairFolder`` reads. Splits without labels are left out, and so are those that do not have
    three folders of their own, as where lists say which pair is in which split.

    Returns:
        Folders and counts by split, in the order train, val, test, others.

    Raises:
        DataError: When there are no pairs, or it is not clear which folders are meant.
    """
    layout = find_layout(Path(root))
    splits = {split: folders for split, files in layout.splits.items() if (folders := _folders(files)) is not None}
    places = [place for own in splits.values() for place in (own.before, own.after, own.label)]
    return splits if len(set(places)) == len(places) else {}


def _folders(files: SplitFiles) -> SplitFolders | None:
    """The three folders of a split, if all files of each are in one folder."""
    roles = (*DATES, LABEL)
    if files.listings.keys() != {*roles}:
        return None
    parents = [{path.parent for path in files.listings[role].files.values()} for role in roles]
    if any(len(own) != 1 for own in parents):
        return None
    before, after, label = (own.pop() for own in parents)
    stems = [set(files.listings[role].files) for role in roles]
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
            differences.append(f"{split}: found {pairs:,} pairs, but {card.title} has no such split")
        if split in splits and splits[split].odd:
            differences.append(f"{split}: {splits[split].odd:,} stems lack an image or a label")
    return differences
