"""Pairs whose images and labels are in trees of their own.

OSCD has ``X - Images/CITY/pair`` and ``X - Train Labels/CITY/cm``, WHU-CD ``2012/whole_image/train/image`` and
``change_label/train``. Trainers' own layouts have ``img_dir/train/A`` and ``ann_dir/train``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bitemporal.pairs.listing import Listing
from bitemporal.pairs.names import (
    DATES,
    LABEL,
    SPLITS,
    dates_among,
    images_among,
    in_split_order,
    labels_among,
    normal,
    split_name,
)
from bitemporal.pairs.one_pair import bands_of_pair, label_below
from bitemporal.pairs.one_split import (
    Level,
    ReadingOptions,
    SplitFiles,
    folders_option,
    other_dates,
    pair_per_folder,
    read_parted,
    read_roles,
)


@dataclass
class Trees:
    """What was found.

    Attributes:
        splits: The splits in their order.
        used: Names of the folders that are used.
        warnings: What is there and not used, and what to do about it.
    """

    splits: dict[str, SplitFiles]
    used: set[str]
    warnings: list[str]


def label_trees(level: Level, options: ReadingOptions) -> Trees | None:
    """The splits of a folder that holds a tree of images, and one of labels for each split that has any."""
    trees = [name for name in level.folders if normal(name).endswith("labels")]
    images = [name for name in level.folders if normal(name).endswith("images")]
    if not trees or len(images) != 1:
        return None
    places = (Level.of(place) for place in _outer_and_inner(level.path / images[0]))
    found = next(filter(None, (pair_per_folder(place, options) for place in places)), None)
    if found is None:
        return None
    listings = {date: found.files.listings[date] for date in DATES}
    left = set(listings[DATES[0]].files)
    splits: dict[str, SplitFiles] = {}
    for tree in trees:
        labels = next(filter(None, (_labels_in(place, left) for place in _outer_and_inner(level.path / tree))), {})
        split = next((split for split in SPLITS if split in normal(tree)), "all")
        if labels:
            left -= labels.keys()
            splits[split] = of_stems(level.path, found.files, labels.keys())
            splits[split].listings[LABEL] = Listing(labels)
            splits[split].names[LABEL] = tree
    if not splits:
        return None
    if left:
        rest = "test" if "test" not in splits else "unlabelled"
        splits[rest] = of_stems(level.path, found.files, left)
    return Trees(
        {split: splits[split] for split in in_split_order(splits)}, {*trees, images[0]}, list(_bands_beside(listings))
    )


def date_trees(level: Level, options: ReadingOptions) -> Trees | None:
    """The splits of a folder that holds a tree for each date, ``DATE/KIND/SPLIT/image``, and one of labels.

    Of several kinds of images (whole ones and tiles of them), those are taken that the labels belong to.
    """
    dates = [] if options.folders else dates_among(level.folders)
    labels = labels_among(level.folders)
    if len(dates) != 1 or len(labels) != 1:
        return None
    first, second = (Level.of(level.path / date) for date in dates[0])
    kinds = {
        kind: _splits_of_kind(level, dates[0], labels[0], kind) for kind in first.folders if kind in second.folders
    }
    labelled = [kind for kind, splits in kinds.items() if splits and all(map(_all_labelled, splits.values()))]
    if len(labelled) != 1:
        return None
    splits = kinds.pop(labelled[0])
    warnings = [
        f"{level.path / date / kind}: not used, as the labels in {labels[0]} are those of {labelled[0]}"
        for kind in kinds
        for date in dates[0]
    ]
    return Trees({split: splits[split] for split in in_split_order(splits)}, {*dates[0], labels[0]}, warnings)


def split_trees(level: Level, options: ReadingOptions) -> Trees | None:
    """The splits of a folder that holds a tree of images, ``IMAGES/SPLIT/DATE``, and one of labels, ``LABELS/SPLIT``.

    Instead of folders for the dates, stems may have suffixes: ``IMAGES/SPLIT/x_A.png``.
    """
    images = images_among(level.folders)
    labels = [options.folders[2]] if options.folders and len(options.folders) > 2 else labels_among(level.folders)
    if len(images) != 1 or len(labels) > 1:
        return None
    splits: dict[str, SplitFiles] = {}
    warnings: list[str] = []
    for name in filter(split_name, Level.of(level.path / images[0]).folders):
        place = f"{images[0]}/{name}"
        inner = Level.of(level.path / place)
        own = [f"{label}/{name}" for label in labels if (level.path / label / name).is_dir()]
        dates = dates_among(inner.folders) if options.folders is None else [options.folders[:2]]
        if len(dates) == 1 and {*dates[0]} <= {*inner.folders}:
            roles = {role: f"{place}/{date}" for role, date in zip(DATES, dates[0], strict=True)}
            found = read_roles(level.path, roles | dict(zip([LABEL], own, strict=False)), options.suffixes)
            warnings += other_dates(inner, dates[0], labels)
        else:
            parted = read_parted(level, place, own, options.suffixes)
            if parted is None:
                return None
            found = parted
        splits[str(split_name(name))] = found.files
    if not splits:
        return None
    return Trees({split: splits[split] for split in in_split_order(splits)}, {images[0], *labels}, warnings)


def _splits_of_kind(level: Level, dates: tuple[str, str], label: str, kind: str) -> dict[str, SplitFiles]:
    splits: dict[str, SplitFiles] = {}
    for name in Level.of(level.path / dates[0] / kind).folders:
        split = split_name(name)
        image = images_among(Level.of(level.path / dates[0] / kind / name).folders)
        if split is None or len(image) != 1:
            continue
        roles = {role: f"{date}/{kind}/{name}/{image[0]}" for role, date in zip(DATES, dates, strict=True)}
        roles[LABEL] = f"{label}/{name}"
        if all((level.path / place).is_dir() for place in roles.values()):
            splits[split] = read_roles(level.path, roles, None).files
    return splits


def _all_labelled(files: SplitFiles) -> bool:
    stems = files.listings[DATES[0]].files.keys() & files.listings[DATES[1]].files.keys()
    return bool(stems) and stems <= files.listings[LABEL].files.keys()


def _labels_in(tree: Path, stems: Iterable[str]) -> dict[str, Path]:
    return {stem: path for stem in stems if (path := label_below(tree / stem)) is not None}


def _outer_and_inner(folder: Path) -> list[Path]:
    """A folder and the only one in there, if there is one, as archives unpack that hold a folder."""
    inner = Level.of(folder).folders
    return [folder, folder / inner[0]] if len(inner) == 1 else [folder]


def _bands_beside(listings: dict[str, Listing]) -> Iterable[str]:
    """What is reported if pictures are read and the bands that they were made of are next to them."""
    pictures = [path for path in listings[DATES[0]].files.values() if path.is_file()]
    names = bands_of_pair(pictures[0].parent.parent) if pictures else None
    if names is not None:
        yield (
            f"{pictures[0].parent.parent}: {' and '.join(names)} hold bands in files of their own, which are not used, "
            f"as there are pictures; {folders_option(names)} reads the bands"
        )


def of_stems(place: Path, files: SplitFiles, stems: Iterable[str]) -> SplitFiles:
    """The files of some pairs of a split."""
    own = sorted(stems)
    listings = {
        role: Listing(
            {stem: listing.files[stem] for stem in own if stem in listing.files},
            {stem: listing.duplicates[stem] for stem in own if stem in listing.duplicates},
            matched=listing.matched,
        )
        for role, listing in files.listings.items()
    }
    return SplitFiles(place, listings, dict(files.names), files.suffixes)
