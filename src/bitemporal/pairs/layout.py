"""Where a data set keeps its pairs: splits, folders of dates and labels, lists, and what is not used.

Every layout comes down to the same: for each split, the files before, after and of labels, by the stems of pairs.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bitemporal.errors import DataError, OptionError
from bitemporal.files import not_there
from bitemporal.imagery.decoded import FileFault
from bitemporal.pairs.assignment import assign
from bitemporal.pairs.listing import Listing, has_images, is_image
from bitemporal.pairs.names import (
    DATES,
    LABEL,
    LABEL_AFTER,
    SPLITS,
    in_split_order,
    split_name,
)
from bitemporal.pairs.one_pair import files_of_pair
from bitemporal.pairs.one_split import (
    Found,
    Level,
    ReadingOptions,
    SplitFiles,
    in_folders,
    loose,
    read_roles,
    split_at,
)
from bitemporal.pairs.side_by_side import how_to_cut
from bitemporal.pairs.split_lists import SPLITS_CSV, SplitList, find_lists, is_surely_list, read_lists, read_stated
from bitemporal.pairs.suffixes import Suffixes
from bitemporal.pairs.trees import date_trees, label_trees, of_stems, split_trees
from bitemporal.pairs.unused import EXPECTED, half_a_split, is_paper, nothing_found, unused
from bitemporal.texts import few_of

_DEPTH = 3  # of folders around the data that are looked through


@dataclass
class Layout:
    """What is where in a folder of pairs.

    Attributes:
        place: The folder that holds the splits, or the folders of the only one.
        splits: The splits in their order.
        notes: How the folder is read, where that is not as in ``ROOT/{train,val,test}/{A,B,label}``.
        warnings: What is there and not used, and what to do about it.
        faults: What is wrong with lists, with the split concerned.
        lists: Files next to the pairs that say which is in which split.
    """

    place: Path
    splits: dict[str, SplitFiles]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    faults: list[tuple[str, FileFault]] = field(default_factory=list)
    lists: list[Path] = field(default_factory=list)


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
        splits: CSV, or folder of text files, that says which pair is in which split; ``None`` takes those next to the
            folders of images.

    Raises:
        DataError: When there are no pairs, or it is not clear which folders are meant.
        OptionError: When an option has an unusable value.
    """
    if not root.is_dir():
        raise DataError(f"{not_there(root, 'folder')}; {EXPECTED}")
    if folders is not None and len(folders) not in (2, 3):
        raise OptionError(
            f"folders: found {','.join(folders)}, expected BEFORE,AFTER or BEFORE,AFTER,LABEL, for example "
            "folders=('A', 'B', 'label') (--folders A,B,label)"
        )
    options = ReadingOptions(folders, Suffixes.of_option(suffixes), None if splits is None else Path(splits))
    try:
        layout = _find(Level.of(root), options, _DEPTH)
    except _HalfError as error:
        raise DataError(f"{error}{how_to_cut(Level.of(root))}") from error
    if layout is None:
        raise DataError(nothing_found(Level.of(root), options) + _above(root, options) + how_to_cut(Level.of(root)))
    lists = read_lists(layout.lists) if splits is None else read_stated(splits)
    layout = _listed(layout, root, lists, stated=splits is not None)
    layout.notes = [*_described(layout), *layout.notes]
    if papers := [name for name in Level.of(root).files if is_paper(name)]:
        layout.notes.append(f"{few_of(papers)} ignored, as read-me, licence or similar")
    return layout


def _above(folder: Path, options: ReadingOptions) -> str:
    """The folder around one that holds one date, or the labels; empty where it is not such a folder."""
    around = Path(os.path.abspath(folder)).parent
    try:
        found = in_folders(Level.of(around), options)
    except DataError:
        return ""
    own = found is not None and folder.absolute().name in found.used
    return f"; {folder.absolute().name} is a part of the pairs in {around}: name that folder" if own else ""


def _find(level: Level, options: ReadingOptions, depth: int) -> Layout | None:
    """The layout of a data set whose splits or folders of images are in a folder, or in the only one in there."""
    trees = label_trees(level, options) or date_trees(level, options) or split_trees(level, options)
    if trees is not None:
        return Layout(level.path, trees.splits, warnings=[*unused(level, trees.used, options), *trees.warnings])
    found = in_folders(level, options)
    if found is not None:
        _refuse_both(level, found, options)
        return _splits_inside(level, found, options) or _single(level, found, options)
    parts = _split_folders(level, options)
    if parts is not None:
        return parts
    found = loose(level, options)
    return _looked_through(level, options, depth) if found is None else _single(level, found, options)


def _single(level: Level, found: Found, options: ReadingOptions) -> Layout:
    """The layout of one split; it keeps the name of its folder where that is the name of a split."""
    lists = [] if options.lists else find_lists(level.path, found.used)
    name = split_name(os.path.basename(os.path.abspath(level.path))) or "all"
    return Layout(
        level.path, {name: found.files}, warnings=list(unused(level, found.used, options, found, lists)), lists=lists
    )


def _looked_through(level: Level, options: ReadingOptions, depth: int) -> Layout | None:
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
            layout = _find(Level.of(level.path / name), options, depth - 1)
        except DataError as error:
            unclear[name] = error
            continue
        if layout is not None:
            layouts[name] = layout
    without = {name for name, error in unclear.items() if isinstance(error, _HalfError)}
    if layouts or len(unclear) > 1:  # what holds none is said of the folder as a whole
        unclear = {name: error for name, error in unclear.items() if name not in without}
    if layouts:  # next to pairs, a folder without images explains itself: WHU-CD has one of shape files
        unclear = {name: error for name, error in unclear.items() if has_images(level.path / name)}
    if len(layouts) + len(unclear) > 1:
        places = [layout.place for layout in layouts.values()]
        places += [place for error in unclear.values() if isinstance(error, _SeveralError) for place in error.places]
        raise _SeveralError(level.path, places or [level.path / name for name in unclear])
    for reason in unclear.values():
        raise reason
    for name, layout in layouts.items():
        if layout.place == level.path / name:
            layout.notes.append(f"pairs found in {layout.place}")
        if len(layout.splits) == 1 and not layout.lists and not options.lists:
            layout.lists = find_lists(level.path, {name})
        layout.warnings += unused(level, {name}, options, lists=layout.lists)
        return layout
    return None


class _HalfError(DataError):
    """A folder that is named as a split, and holds no pairs."""


class _SeveralError(DataError):
    """Several data sets in one folder; ``places`` are where."""

    def __init__(self, folder: Path, places: Sequence[Path]) -> None:
        names = [str(place.relative_to(folder)) for place in places]
        super().__init__(
            f"{folder}: {few_of(names)} each hold a data set of pairs; name one of them, for example {places[0]}"
        )
        self.places = places


def _split_folders(level: Level, options: ReadingOptions) -> Layout | None:
    """Splits in folders of their own: train, val, test, and any other that holds pairs."""
    found: dict[str, tuple[Level, Found]] = {}
    for name in level.folders:
        try:
            pair = files_of_pair(level.path / name, options.folders, options.stems)
            split = None if pair is not None else _split_in(level.path / name, options)
        except DataError:
            if split_name(name) is not None:
                raise
            continue  # named as what is not used
        if split is not None:
            found[name] = split
    known = [name for name in level.folders if split_name(name)]
    empty = [name for name in known if name not in found]
    if not known and len(found) < 2:
        return None  # one folder with pairs is a folder around the data, not a split
    for name in empty:
        raise _HalfError(half_a_split(Level.of(level.path / name), options))
    table = level.path / SPLITS_CSV
    layout = Layout(level.path, {}, lists=[table] if SPLITS_CSV in level.files and not options.lists else [])
    names: dict[str, str] = {}
    for name in sorted(found, key=lambda name: (name not in SPLITS, name)):
        known_as = split_name(name) or name
        names[name if known_as in names else known_as] = name
    for known_as in in_split_order(names):
        inner, one = found[names[known_as]]
        layout.splits[known_as] = one.files
        layout.warnings += unused(inner, one.used, options, one)
        if known_as != names[known_as]:
            layout.notes.append(f"{names[known_as]} = split {known_as}")
    layout.warnings = [*unused(level, set(found), options, lists=layout.lists), *layout.warnings]
    return layout


def _split_in(folder: Path, options: ReadingOptions) -> tuple[Level, Found] | None:
    """One split in a folder, or in the only folder in there, as archives of one split unpack: ``train/train/A``."""
    level = Level.of(folder)
    found = split_at(level, options)
    if found is None and len(level.folders) == 1:
        level = Level.of(folder / level.folders[0])
        found = split_at(level, options)
    return None if found is None else (level, found)


def _splits_inside(level: Level, found: Found, options: ReadingOptions) -> Layout | None:
    """Splits below the folders of dates: ``A/train``, ``B/train``, ``label/train``."""
    places = {role: level.path / name for role, name in found.files.names.items()}
    inner = {role: Level.of(place) for role, place in places.items() if place.is_dir()}  # a label may be a file
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
        below = {role: f"{own}/{name}" for role, own in roles.items()}
        layout.splits[split] = read_roles(level.path, below, options.suffixes).files
        if split != name:
            layout.notes.append(f"{name} = split {split}")
    layout.splits = {split: layout.splits[split] for split in in_split_order(layout.splits)}
    for role, one in inner.items():
        if rest := [name for name in (*one.folders, *one.files) if name not in common]:
            layout.warnings.append(
                f"{found.files.names[role]}: {', '.join(rest[:3])} not used, as only the splits {', '.join(common)} "
                "are in the folders of both dates"
            )
    layout.lists = [level.path / SPLITS_CSV] if SPLITS_CSV in level.files and not options.lists else []
    layout.warnings += unused(level, found.used, options, found, layout.lists)
    return layout


def _refuse_both(level: Level, found: Found, options: ReadingOptions) -> None:
    """Refuse a folder whose own folders of dates are next to splits that hold pairs."""
    splits = [
        name
        for name in level.folders
        if split_name(name) and name not in found.used and split_at(Level.of(level.path / name), options)
    ]
    if splits:
        raise DataError(
            f"{level.path}: holds both splits ({', '.join(splits)}) and a split's folders "
            f"({', '.join(sorted(found.used)[:3])}); {EXPECTED}; move one of them elsewhere, or name a split folder "
            "itself"
        )


def _listed(layout: Layout, root: Path, lists: list[SplitList], stated: bool) -> Layout:
    """The same pairs in the splits that lists name.

    Tables, and files in folders that are not named after lists, are something else where they are not stated and name
    no pair at all, such as the losses of a training.
    """
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
    file_stems: dict[str, set[str]] = defaultdict(set)
    for files in layout.splits.values():
        for listing in (listing for listing in files.listings.values() if listing.matched):
            for stem, path in listing.files.items():
                file_stems[path.stem].add(stem)
    own = {name: next(iter(known)) for name, known in file_stems.items() if len(known) == 1}
    assigned = assign(lists, stems, suffixes, own)
    shown = ", ".join(dict.fromkeys(_shown(one.path, root) for one in lists))
    if (
        not stated
        and not any(assigned.sources.values())
        and not any(is_surely_list(one.path, layout.place) for one in lists)
    ):
        layout.warnings.append(f"{shown} not used, as no line names a pair; move anything that does not belong here")
        return layout
    splits = {split: _gathered(layout, assigned.sources[split]) for split in in_split_order(assigned.sources)}
    if assigned.left:
        assigned.warnings.append(
            f"{len(assigned.left):,} pair(s) are in no list and left out, such as {assigned.left[0]}; add a line for "
            "each to a list, or move their files elsewhere"
        )
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
        of_stems(layout.splits[split].folder, layout.splits[split], (s for s, own in sources.items() if own == split))
        for split in dict.fromkeys(sources.values())
    ] or [of_stems(files.folder, files, ()) for files in list(layout.splits.values())[:1]]
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
        named += [files.suffixes.describe()] if files.suffixes else []
        matched: dict[str, list[str]] = {}
        for role, listing in files.listings.items():
            if listing.matched:
                matched.setdefault(listing.matched, []).append(files.names[role])
        for how, names in matched.items():
            places = " and ".join(dict.fromkeys(names))
            named.append(how if places == "." else f"in {places} {how}")
        ways.setdefault(", ".join(named), []).append(split)
    for way, splits in ways.items():
        if way:
            yield way if len(ways) == 1 else f"{', '.join(splits)}: {way}"


def _shown(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
