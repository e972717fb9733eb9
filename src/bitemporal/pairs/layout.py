"""Where a data set keeps its pairs: splits, folders of dates and labels, lists, and what is not used.

Every layout comes down to the same: for each split, the files before, after and of labels, by the stems of pairs.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bitemporal.errors import DataError, OptionError
from bitemporal.imagery.decode import FileFault
from bitemporal.pairs.listing import Listing, entries, is_image, is_litter, list_images
from bitemporal.pairs.names import (
    DATES,
    LABEL,
    LABEL_AFTER,
    SPLITS,
    dates_among,
    images_among,
    in_split_order,
    labels_among,
    labels_of_dates,
    missing_date,
    normal,
    split_name,
    split_of_list,
)
from bitemporal.pairs.split_lists import (
    LIST_FOLDERS,
    SPLITS_CSV,
    SplitList,
    assign,
    find_lists,
    read_lists,
    read_stated,
)
from bitemporal.pairs.suffixes import Suffixes, label_suffix, match_folders, part_folder, without_suffix

EXPECTED = (
    "expected ROOT/{train,val,test}/{A,B,label} or ROOT/{A,B,label}, A holding the images before, B those after, "
    "label (optional) the change masks"
)
"""The layout that any other is named beside."""

_DEPTH = 3  # of folders around the data that are looked through
_MOST_OF_ONE_PAIR = 12  # images in the folder of one pair
_BAND = re.compile(r"(^|_)B(0\d|1[0-2]|8A)\.(tiff?|jp2)$", re.IGNORECASE)
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".rar", ".7z")
_PAPERS = ("readme", "read_me", "licen", "citation", "changelog", "source.json")


@dataclass
class SplitFiles:
    """The files of one split.

    Attributes:
        folder: Where its folders are.
        listings: Files by stem, under ``A``, ``B`` and, if present, ``label`` and ``label_after``.
        names: What the folder of each is called on disk, for messages.
        suffixes: Suffixes that were taken off the stems.
    """

    folder: Path
    listings: dict[str, Listing]
    names: dict[str, str]
    suffixes: Suffixes | None = None


@dataclass
class Layout:
    """What is where in a folder of pairs.

    Attributes:
        place: The folder that holds the splits, or the folders of the only one.
        splits: The splits in their order.
        notes: How the folder is read, where that is not as in ``ROOT/{train,val,test}/{A,B,label}``.
        warnings: What is there and not used, and what to do about it.
        faults: What is wrong with lists, with the split concerned.
        lists: Files beside the pairs that say which is in which split.
    """

    place: Path
    splits: dict[str, SplitFiles]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    faults: list[tuple[str, FileFault]] = field(default_factory=list)
    lists: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class _Options:
    folders: tuple[str, ...] | None
    suffixes: Suffixes | None
    lists_stated: bool


@dataclass
class _Level:
    """What a folder holds, without hidden files."""

    path: Path
    folders: list[str]
    files: list[str]

    @classmethod
    def of(cls, path: Path) -> "_Level":
        listed = [(name, is_folder) for name, is_folder in entries(path) if not is_litter(name)]
        return cls(path, *([name for name, is_folder in listed if is_folder == wanted] for wanted in (True, False)))


@dataclass
class _Found:
    """One split, and the entries of its folder that make it."""

    files: SplitFiles
    used: set[str]


def find_layout(
    root: Path,
    folders: tuple[str, ...] | None = None,
    suffixes: tuple[str, ...] | None = None,
    splits: str | None = None,
) -> Layout:
    """Find the pairs of a data set.

    Args:
        root: The folder.
        folders: Names of the folders before, after and, if any, of labels; ``None`` knows the names in common use.
        suffixes: Suffixes of the stems before, after and, if any, of labels; ``None`` finds them.
        splits: CSV, or folder of text files, that says which pair is in which split; ``None`` takes those beside the
            folders of images.

    Raises:
        DataError: When there are no pairs, or it is not clear which folders are meant.
        OptionError: When an option has an unusable value.
    """
    if not root.is_dir():
        kind = "a file" if root.exists() else "nothing"
        raise DataError(f"{os.path.abspath(root)}: found {kind}, {EXPECTED}")
    if folders is not None and len(folders) not in (2, 3):
        raise OptionError(
            f"folders: found {','.join(folders)}, expected BEFORE,AFTER or BEFORE,AFTER,LABEL, for example "
            "folders=('A', 'B', 'label') (--folders A,B,label)"
        )
    options = _Options(folders, Suffixes.of_option(suffixes), splits is not None)
    layout = _find(_Level.of(root), options, _DEPTH)
    if layout is None:
        raise DataError(_nothing(_Level.of(root), options))
    layout = _listed(layout, root, read_lists(layout.lists) if splits is None else read_stated(splits))
    layout.notes = [*_described(layout), *layout.notes]
    return layout


def _find(level: _Level, options: _Options, depth: int) -> Layout | None:
    """The layout of a data set whose splits or folders of images are in a folder, or in the only one in there."""
    by_trees = None if options.folders else _label_trees(level, options)
    if by_trees is not None:
        return by_trees
    found = _in_folders(level, options)
    if found is not None:
        _refuse_both(level, found, options)
        return _splits_inside(level, found, options) or _single(level, found, options)
    parts = _split_folders(level, options)
    if parts is not None:
        return parts
    found = _loose(level, options)
    return _looked_through(level, options, depth) if found is None else _single(level, found, options)


def _single(level: _Level, found: _Found, options: _Options) -> Layout:
    """The layout of one split; it keeps the name of its folder where that is the name of a split."""
    lists = [] if options.lists_stated else find_lists(level.path)
    name = split_name(os.path.basename(os.path.abspath(level.path))) or "all"
    return Layout(
        level.path, {name: found.files}, warnings=list(_unused(level, found.used, options, found, lists)), lists=lists
    )


def _looked_through(level: _Level, options: _Options, depth: int) -> Layout | None:
    """The layout of the only folder in a folder that has one.

    Raises:
        DataError: When several have one, or it is not clear which of their folders are meant.
    """
    if depth == 0:
        return None
    layouts: dict[str, Layout] = {}
    unclear: dict[str, DataError] = {}
    for name in level.folders:
        try:
            layout = _find(_Level.of(level.path / name), options, depth - 1)
        except DataError as error:
            unclear[name] = error
            continue
        if layout is not None:
            layouts[name] = layout
    if len(layouts) + len(unclear) > 1:
        places = [layout.place for layout in layouts.values()]
        places += [place for error in unclear.values() if isinstance(error, _SeveralError) for place in error.places]
        raise _SeveralError(level.path, places or [level.path / name for name in unclear])
    for reason in unclear.values():
        raise reason
    for name, layout in layouts.items():
        if layout.place == level.path / name:
            layout.notes.append(f"pairs found in {layout.place}")
        layout.warnings += _unused(level, {name}, options)
        return layout
    return None


class _SeveralError(DataError):
    """Several data sets in one folder; ``places`` are where."""

    def __init__(self, folder: Path, places: Sequence[Path]) -> None:
        names = [str(place.relative_to(folder)) for place in places]
        super().__init__(
            f"{folder}: {_names(names)} hold pairs, each as a data set of its own; name one of them, for example "
            f"{places[0]}"
        )
        self.places = places


def _split_folders(level: _Level, options: _Options) -> Layout | None:
    """Splits in folders of their own: train, val, test, and any other that holds pairs."""
    found: dict[str, tuple[_Level, _Found]] = {}
    for name in level.folders:
        inner = _Level.of(level.path / name)
        if _files_of_pair(inner.path) is not None:
            continue
        one = _split_at(inner, options)
        if one is None and len(inner.folders) == 1:  # train/train/A, as archives of one split unpack
            inner = _Level.of(inner.path / inner.folders[0])
            one = _split_at(inner, options)
        if one is not None:
            found[name] = inner, one
    known = [name for name in level.folders if split_name(name)]
    empty = [name for name in known if name not in found]
    if not known and len(found) < 2:
        return None  # one folder with pairs is a folder around the data, not a split
    for name in empty:
        raise DataError(_half(_Level.of(level.path / name), options))
    table = level.path / SPLITS_CSV
    layout = Layout(level.path, {}, lists=[table] if SPLITS_CSV in level.files and not options.lists_stated else [])
    names: dict[str, str] = {}
    for name in sorted(found, key=lambda name: (name not in SPLITS, name)):
        split = split_name(name) or name
        names[name if split in names.values() else split] = name
    for split in in_split_order(names):
        inner, one = found[names[split]]
        layout.splits[split] = one.files
        layout.warnings += _unused(inner, one.used, options, one)
        if split != names[split]:
            layout.notes.append(f"{names[split]} = split {split}")
    layout.warnings = [*_unused(level, set(found), options, lists=layout.lists), *layout.warnings]
    return layout


def _splits_inside(level: _Level, found: _Found, options: _Options) -> Layout | None:
    """Splits below the folders of dates: ``A/train``, ``B/train``, ``label/train``."""
    inner = {role: _Level.of(level.path / name) for role, name in found.files.names.items()}
    if any(is_image(file) for date in DATES for file in inner[date].files):
        return None
    common = [name for name in inner[DATES[0]].folders if name in inner[DATES[1]].folders]
    if not any(map(split_name, common)):
        return None
    layout = Layout(level.path, {})
    for name in common:
        roles = {role: found.files.names[role] for role, one in inner.items() if name in one.folders}
        split = split_name(name) or name
        split = name if split in layout.splits else split
        places = {role: f"{own}/{name}" for role, own in roles.items()}
        layout.splits[split] = _read_roles(level.path, places, options.suffixes).files
        if split != name:
            layout.notes.append(f"{name} = split {split}")
    layout.splits = {split: layout.splits[split] for split in in_split_order(layout.splits)}
    for role, one in inner.items():
        if rest := [name for name in (*one.folders, *one.files) if name not in common]:
            layout.warnings.append(
                f"{found.files.names[role]}: {', '.join(rest[:3])} not used, as only the splits {', '.join(common)} "
                "are in the folders of both dates"
            )
    layout.lists = [level.path / SPLITS_CSV] if SPLITS_CSV in level.files and not options.lists_stated else []
    layout.warnings += _unused(level, found.used, options, found, layout.lists)
    return layout


def _split_at(level: _Level, options: _Options) -> _Found | None:
    """The pairs of one split in a folder."""
    return _in_folders(level, options) or _loose(level, options)


def _in_folders(level: _Level, options: _Options) -> _Found | None:
    """The pairs whose images are in folders of dates, or in one folder for both."""
    roles = _roles(level, options)
    if roles is not None:
        return _read_roles(level.path, roles, options.suffixes)
    one = options.folders[:1] if options.folders else images_among(level.folders)
    for name in (name for name in one if name in level.folders):
        inner = _Level.of(level.path / name)
        dates = [] if options.folders else dates_among(inner.folders)
        if len(dates) == 1:
            places = {date: f"{name}/{own}" for date, own in zip(DATES, dates[0], strict=True)}
            return _read_roles(level.path, places | _label_roles(level, dates[0]), options.suffixes)
        labels = list(options.folders[2:]) if options.folders else _label_names(level)
        found = _parted(level, name, labels, options.suffixes)
        if found is not None:
            return found
    return None


def _loose(level: _Level, options: _Options) -> _Found | None:
    """The pairs each of which has a folder of its own, or whose images are in the folder itself."""
    if options.folders is not None:
        return None
    return _pair_per_folder(level) or _parted(level, "", _label_names(level), options.suffixes)


def _roles(level: _Level, options: _Options) -> dict[str, str] | None:
    """Names of the folders before, after and of labels."""
    if options.folders is not None:
        named = dict(zip((*DATES, LABEL), options.folders, strict=False))
        there = {role: name for role, name in named.items() if (level.path / name).is_dir()}
        return there if {*DATES} <= there.keys() and options.folders[0] != options.folders[1] else None
    dates = dates_among(level.folders)
    if len(dates) > 1:
        shown = " and ".join(",".join(pair) for pair in dates)
        raise DataError(
            f"{level.path}: found {shown}, and either can be the images before and after; say which by "
            f"{_folders_option((*dates[0], *_label_names(level)[:1]))}"
        )
    if not dates:
        return None
    return dict(zip(DATES, dates[0], strict=True)) | _label_roles(level, dates[0])


def _label_names(level: _Level) -> list[str]:
    """The folders of labels; of several, those that hold images (xBD has polygons in ``labels``)."""
    names = labels_among(level.folders)
    return names if len(names) < 2 else [n for n in names if list_images(level.path / n, below=True).files] or names[:1]


def _label_roles(level: _Level, dates: Sequence[str]) -> dict[str, str]:
    names = _label_names(level)
    if len(names) > 1:
        raise DataError(
            f"{level.path}: found the folders {' and '.join(names)}, and each can hold the labels; say which by "
            f"{_folders_option((*dates, names[0]))}"
        )
    if names:
        return {LABEL: names[0]}
    two = labels_of_dates(level.folders)
    return {} if two is None else {LABEL: two[0], LABEL_AFTER: two[1]}


def _folders_option(names: Iterable[str]) -> str:
    given = tuple(names)
    return f"folders={given!r} (--folders {','.join(given)})"


def _read_roles(place: Path, roles: dict[str, str], stated: Suffixes | None) -> _Found:
    listings = {role: list_images(place / name, below=True) for role, name in roles.items()}
    before, after, suffixes = match_folders(listings[DATES[0]], listings[DATES[1]], stated)
    listings |= {DATES[0]: before, DATES[1]: after}
    if suffixes is not None:
        suffixes = _match_labels(listings, suffixes)
    files = SplitFiles(place, listings, roles, suffixes)
    return _Found(files, {Path(name).parts[0] for name in roles.values()})


def _match_labels(listings: dict[str, Listing], suffixes: Suffixes) -> Suffixes:
    """Bring labels under the stems of pairs whose images have suffixes."""
    pairs = listings[DATES[0]].files.keys() | listings[DATES[1]].files.keys()
    for role in (role for role in (LABEL, LABEL_AFTER) if role in listings):
        stems = listings[role].files.keys()
        known = suffixes.label if suffixes.label is not None else label_suffix(stems, pairs, suffixes)
        listings[role] = without_suffix(listings[role], known)
        if role == LABEL:
            suffixes = replace(suffixes, label=known)
    return suffixes


def _parted(level: _Level, place: str, labels: Sequence[str], stated: Suffixes | None) -> _Found | None:
    """Images of both dates in one folder, told apart by the ends of their stems; labels there, or in another folder.

    Args:
        level: Folder of the split.
        place: Folder of the images in there; empty when they are in the folder itself.
        labels: Folders of labels in there.
        stated: Suffixes that decide.
    """
    listing = list_images(level.path / place)
    parted = part_folder(listing, stated) if listing.files else None
    if parted is None:
        return None
    suffixes, listings = parted
    if labels and LABEL in listings and not listings[LABEL].files:
        del listings[LABEL]  # their folder has them
    names = dict.fromkeys(listings, place or ".")
    used = {place} if place else {path.name for one in listings.values() for path in one.files.values()}
    if not place:
        listings[DATES[0]].ignored = []  # the folder's own, which are named as what it has beside its pairs
    if LABEL not in listings and labels:
        listings[LABEL], names[LABEL] = list_images(level.path / labels[0], below=True), labels[0]
        suffixes = _match_labels(listings, suffixes)
        used.add(labels[0])
    return _Found(SplitFiles(level.path, listings, names, suffixes), used)


def _pair_per_folder(level: _Level) -> _Found | None:
    """A folder for each pair, as in ``SITE/im1.png``, ``SITE/im2.png``, ``SITE/ref.png``; its name is the stem."""
    listings = {role: Listing() for role in (*DATES, LABEL, LABEL_AFTER)}
    names: dict[str, str] = {}
    used = set()
    for name in level.folders:
        files = _files_of_pair(level.path / name)
        if files is None:
            continue
        used.add(name)
        for role, path in files.items():
            listings[role].files[name] = path
            names.setdefault(role, f"*/{path.relative_to(level.path / name)}")
    if not used:
        return None
    return _Found(SplitFiles(level.path, {role: listings[role] for role in names}, names), used)


def _files_of_pair(folder: Path) -> dict[str, Path] | None:
    """The files of a folder that holds one pair, or whose folder ``pair`` does (OSCD)."""
    for place in (folder, folder / "pair"):
        files = list_images(place).files if place.is_dir() else {}
        dates = dates_among(files) if len(files) <= _MOST_OF_ONE_PAIR else []
        if len(dates) != 1:
            continue
        roles = dict(zip(DATES, dates[0], strict=True))
        labels, two = labels_among(files), labels_of_dates(files)
        if len(labels) == 1:
            roles[LABEL] = labels[0]
        elif two is not None:
            roles |= {LABEL: two[0], LABEL_AFTER: two[1]}
        return {role: files[stem] for role, stem in roles.items()}
    return None


def _label_trees(level: _Level, options: _Options) -> Layout | None:
    """Labels in trees of their own, as in OSCD: ``X - Images/CITY/pair``, ``X - Train Labels/CITY/cm/cm.png``."""
    trees = [name for name in level.folders if normal(name).endswith("labels")]
    images = [name for name in level.folders if normal(name).endswith("images")]
    found = _pair_per_folder(_Level.of(level.path / images[0])) if trees and len(images) == 1 else None
    if found is None:
        return None
    listings = {date: found.files.listings[date] for date in DATES}
    left = set(listings[DATES[0]].files)
    layout = Layout(level.path, {})
    for tree in trees:
        labels = {stem: path for stem in left if (path := _label_in(level.path / tree / stem)) is not None}
        split = next((split for split in SPLITS if split in normal(tree)), "all")
        if labels:
            left -= labels.keys()
            layout.splits[split] = _of_stems(level.path, found.files, labels.keys())
            layout.splits[split].listings[LABEL] = Listing(labels)
            layout.splits[split].names[LABEL] = tree
    if not layout.splits:
        return None
    if left:
        rest = "test" if "test" not in layout.splits else "unlabelled"
        layout.splits[rest] = _of_stems(level.path, found.files, left)
    layout.splits = {split: layout.splits[split] for split in in_split_order(layout.splits)}
    layout.warnings += _unused(level, {*trees, images[0]}, options)
    return layout


def _of_stems(place: Path, files: SplitFiles, stems: Iterable[str]) -> SplitFiles:
    own = sorted(stems)
    listings = {
        role: Listing(
            {stem: listing.files[stem] for stem in own if stem in listing.files},
            {stem: listing.duplicates[stem] for stem in own if stem in listing.duplicates},
        )
        for role, listing in files.listings.items()
    }
    return SplitFiles(place, listings, dict(files.names), files.suffixes)


def _label_in(folder: Path) -> Path | None:
    """The only image below a folder whose name says that it is a label."""
    files = list_images(folder, below=True).files if folder.is_dir() else {}
    labels = labels_among(files)
    return files[labels[0]] if len(labels) == 1 else None


def _refuse_both(level: _Level, found: _Found, options: _Options) -> None:
    """Refuse a folder whose own folders of dates stand beside splits that hold pairs."""
    splits = [
        name
        for name in level.folders
        if split_name(name) and name not in found.used and _split_at(_Level.of(level.path / name), options)
    ]
    if splits:
        raise DataError(
            f"{level.path}: holds both splits ({', '.join(splits)}) and a split's folders "
            f"({', '.join(sorted(found.used)[:3])}); {EXPECTED}; move one of them elsewhere, or name a split folder "
            "itself"
        )


def _listed(layout: Layout, root: Path, lists: list[SplitList]) -> Layout:
    """The same pairs in the splits that lists name."""
    if not lists:
        return layout
    stems = {
        split: {stem for listing in files.listings.values() for stem in listing.files}
        for split, files in layout.splits.items()
    }
    suffixes = {
        suffix
        for files in layout.splits.values()
        if files.suffixes
        for suffix in (files.suffixes.before, files.suffixes.after, files.suffixes.label)
        if suffix
    }
    assigned = assign(lists, stems, suffixes)
    splits = {split: _gathered(layout, assigned.sources[split]) for split in in_split_order(assigned.sources)}
    if assigned.left:
        assigned.warnings.append(
            f"{len(assigned.left):,} pair(s) are in no list and left out, such as {assigned.left[0]}; add a line for "
            "each to a list, or move their files elsewhere"
        )
    shown = ", ".join(dict.fromkeys(_shown(one.path, root) for one in lists))
    return Layout(
        layout.place,
        splits,
        [*layout.notes, f"splits by {shown}"],
        [*layout.warnings, *assigned.warnings],
        [*layout.faults, *assigned.faults],
    )


def _gathered(layout: Layout, sources: dict[str, str]) -> SplitFiles:
    """The files of given stems, each from the split in whose folders it is."""
    parts = [
        _of_stems(layout.splits[split].folder, layout.splits[split], (s for s, own in sources.items() if own == split))
        for split in dict.fromkeys(sources.values())
    ] or [_of_stems(files.folder, files, ()) for files in list(layout.splits.values())[:1]]
    first = parts[0]
    for part in parts[1:]:
        for role, listing in part.listings.items():
            mine = first.listings.setdefault(role, Listing())
            mine.files |= listing.files
            mine.duplicates |= listing.duplicates
            first.names.setdefault(role, part.names[role])
    return first


def _described(layout: Layout) -> Iterator[str]:
    """How the files of the splits are told apart; splits where that is alike together."""
    words = {DATES[0]: "before", DATES[1]: "after", LABEL: "label", LABEL_AFTER: "label after"}
    ways: dict[str, list[str]] = {}
    for split, files in layout.splits.items():
        named = [f"{name} = {words[role]}" for role, name in files.names.items() if name not in (role, ".")]
        if len({*files.names.values()}) < len(files.names):
            named = []  # one folder for both dates
        ways.setdefault(", ".join([*named, *([files.suffixes.describe()] if files.suffixes else [])]), []).append(split)
    for way, splits in ways.items():
        if way:
            yield way if len(ways) == 1 else f"{', '.join(splits)}: {way}"


def _shown(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _unused(
    level: _Level, used: Collection[str], options: _Options, found: _Found | None = None, lists: Collection[Path] = ()
) -> Iterator[str]:
    """What a folder holds beside its pairs, and what to do about it.

    Args:
        level: The folder.
        used: Names of what is used of it.
        options: How it is read.
        found: Its pairs, if its own folders hold them.
        lists: Lists of splits that are used.
    """
    for name in level.folders:
        if name in used:
            continue
        path = level.path / name
        if name.lower() in LIST_FOLDERS:
            inside = [n for n, is_folder in entries(path) if not is_folder and path / n not in lists]
            yield from _unused_lists(path, inside, options)
        elif _holds_pairs(path, options):
            yield (
                f"{path}: holds pairs of its own, which are not used; check them by `bitemporal data check {path}`, or "
                "move the folder elsewhere"
            )
        else:
            count = len(list_images(path, below=True).files)
            what = f"a folder of {count:,} image(s)" if count else "a folder without images"
            yield f"{path}: {what} that is not used{_as_labels(name, count, options, found)}"
    files = [name for name in level.files if name not in used and level.path / name not in lists]
    images = [name for name in files if is_image(name)]
    archives = [name for name in files if name.lower().endswith(_ARCHIVES)]
    if images:
        yield (
            f"{level.path}: {len(images):,} image(s) beside the folders are not used, such as {images[0]}; move each "
            "into the folder of its date or of labels, or elsewhere"
        )
    for name in archives:
        yield f"{level.path / name}: an archive that is not used; unpack it if it holds pairs, or move it elsewhere"
    yield from _unused_lists(level.path, [n for n in files if n not in images and n not in archives], options)


def _as_labels(name: str, count: int, options: _Options, found: _Found | None) -> str:
    """How a folder of images would be used as labels, where it can be."""
    dates = [] if found is None else [found.files.names[date] for date in DATES]
    if not count or options.folders or len({*dates}) < 2 or dates[0].startswith("*"):
        return "; move it elsewhere if it does not belong here"
    return f"; {_folders_option((*dates, name))} reads it as the labels"


def _unused_lists(folder: Path, names: Sequence[str], options: _Options) -> Iterator[str]:
    lists = [name for name in names if name == SPLITS_CSV or split_of_list(os.path.splitext(name)[0])]
    if lists and not options.lists_stated:
        yield (
            f"{folder}: {', '.join(lists)} not used, as folders or other lists say which pair is in which split; "
            f"--splits {folder} makes these decide"
        )
    rest = [name for name in names if name not in lists and not is_litter(name) and not _is_paper(name)]
    if rest:
        yield (
            f"{folder}: {', '.join(rest[:3])}{', ...' if rest[3:] else ''} not used, being neither image nor the list "
            f"of a split (train.txt, val.txt, test.txt, {SPLITS_CSV}); move elsewhere what does not belong here"
        )


def _is_paper(name: str) -> bool:
    """Whether a file is what accompanies any data set: read-me, licence, the record of a download."""
    return name.lower().startswith(_PAPERS)


def _holds_pairs(path: Path, options: _Options) -> bool:
    try:
        return _find(_Level.of(path), options, 1) is not None
    except DataError:
        return False


def _half(level: _Level, options: _Options) -> str:
    """What is wrong with the folder of a split in which no pairs are found."""
    there = _names(level.folders) if level.folders else "no folders"
    if options.folders is not None:
        return (
            f"{level.path}: found no folders {' and '.join(options.folders[:2])}, only {there}; name those that hold "
            "the images before, those after, and the labels, by folders (--folders)"
        )
    missing = missing_date(level.folders)
    what = "no pairs" if missing is None else f"folder {missing} missing"
    return f"{level.path}: {what}, found {there}; {EXPECTED}; other folders can be named by folders (--folders)"


def _nothing(level: _Level, options: _Options) -> str:
    """What is wrong with a folder in which no pairs are found."""
    if options.folders is not None or missing_date(level.folders):
        return _half(level, options)
    if (band := _file_of_band(level, _DEPTH)) is not None:
        return (
            f"{level.path}: found {band.relative_to(level.path)}, a file of one band as in scenes of Sentinel-2, "
            f"{EXPECTED}; write all bands of a date into one file, for example by `gdalbuildvrt -separate`, or map the "
            "scene by `bitemporal predict-scene`"
        )
    files = [name for name in level.files if is_image(name)]
    if files:
        return (
            f"{level.path}: found {len(files)} images whose names do not say which are before, after and labels, such "
            f"as {files[0]}; {EXPECTED}. Where the ends of their stems tell them apart, state these by suffixes "
            "(--suffixes)"
        )
    found = f"the folders {_names(level.folders)}" if level.folders else "no folders"
    return f"{level.path}: found {found}, {EXPECTED}; other folders can be named by folders (--folders)"


def _file_of_band(level: _Level, depth: int) -> Path | None:
    """A file that holds one band of a scene, in a folder or below it."""
    for name in level.files:
        if _BAND.search(name):
            return level.path / name
    inner = (_file_of_band(_Level.of(level.path / name), depth - 1) for name in level.folders[: depth and None])
    return next((path for path in inner if path is not None), None)


def _names(names: Sequence[str]) -> str:
    return f"{', '.join(names[:10])}{', ...' if names[10:] else ''}"
