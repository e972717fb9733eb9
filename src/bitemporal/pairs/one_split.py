"""The pairs of one split: which folders or names are before, after and label."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bitemporal.errors import DataError
from bitemporal.imagery.band_files import band_files, refuse_other_bands
from bitemporal.pairs.listing import Listing, entries, is_image, is_litter, list_images
from bitemporal.pairs.names import (
    DATES,
    LABEL,
    LABEL_AFTER,
    YEARS,
    dates_among,
    images_among,
    is_label,
    labels_among,
    labels_of_dates,
    normal,
)
from bitemporal.pairs.one_pair import files_of_pair, images_in, label_among, label_below
from bitemporal.pairs.stems import match_labels
from bitemporal.pairs.suffixes import Suffixes, label_suffix, match_folders, part_folder, without_suffix
from bitemporal.remedies import as_option


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


@dataclass(frozen=True)
class ReadingOptions:
    """How a folder is to be read.

    Attributes:
        folders: Names of the folders before, after and of labels, where they are stated.
        suffixes: Suffixes of stems, where they are stated.
        lists: Where the lists are that are stated to say which pair is in which split.
    """

    folders: tuple[str, ...] | None
    suffixes: Suffixes | None
    lists: Path | None

    @property
    def stems(self) -> tuple[str, ...] | None:
        """The suffixes before, after and, if any, of labels, which may be whole stems where each pair has a folder."""
        if self.suffixes is None:
            return None
        label = () if self.suffixes.label is None else (self.suffixes.label,)
        return (self.suffixes.before, self.suffixes.after, *label)


@dataclass
class Level:
    """What a folder holds, without hidden files."""

    path: Path
    folders: list[str]
    files: list[str]

    @classmethod
    def of(cls, path: Path) -> "Level":
        """List a folder."""
        listed = [(name, is_folder) for name, is_folder in entries(path) if not is_litter(name)]
        return cls(path, *([name for name, is_folder in listed if is_folder == wanted] for wanted in (True, False)))


@dataclass
class Found:
    """One split, and the entries of its folder that make it."""

    files: SplitFiles
    used: set[str]


def split_at(level: Level, options: ReadingOptions) -> Found | None:
    """The pairs of one split in a folder."""
    return in_folders(level, options) or loose(level, options)


def in_folders(level: Level, options: ReadingOptions) -> Found | None:
    """The pairs whose images are in folders of dates, or in one folder for both."""
    roles = _roles(level, options)
    if roles is not None:
        return read_roles(level.path, roles, options.suffixes)
    one = options.folders[:1] if options.folders else images_among(level.folders)
    for name in (name for name in one if name in level.folders):
        inner = Level.of(level.path / name)
        dates = [] if options.folders else dates_among(inner.folders)
        by_years = None if options.folders or dates else _years(level, inner)
        if by_years is not None:
            return read_roles(level.path, by_years, options.suffixes)
        if len(dates) == 1:
            labels_inside = _label_roles(inner, dates[0])
            places = dict(zip(DATES, dates[0], strict=True)) | labels_inside
            places = {role: f"{name}/{own}" for role, own in places.items()}
            beside = {} if labels_inside else _label_roles(level, [*places.values()])
            return read_roles(level.path, places | beside, options.suffixes)
        labels = list(options.folders[2:]) if options.folders else _label_names(level)
        found = read_parted(level, name, labels, options.suffixes)
        if found is not None:
            return found
    return None


def _years(level: Level, images: Level) -> dict[str, str] | None:
    """Folders of images of three or more years, of which labels name two: ``image/2017``, ``mask/2017_2018`` (Hi-UCD).

    Raises:
        DataError: When there are labels of several such two.
    """
    found = []
    for label in _label_names(level):
        for name in Level.of(level.path / label).folders:
            years = YEARS.fullmatch(name)
            if years and {*years.groups()} <= {*images.folders}:
                found.append((*(f"{images.path.name}/{year}" for year in years.groups()), f"{label}/{name}"))
    if len(found) > 1:
        raise DataError(
            f"{level.path}: found labels of several two years, {' and '.join(label for *_, label in found)}; say which "
            f"to read by {folders_option(found[0])}"
        )
    return dict(zip((*DATES, LABEL), found[0], strict=True)) if found else None


def loose(level: Level, options: ReadingOptions) -> Found | None:
    """The pairs each of which has a folder of its own, or whose images are in the folder itself."""
    if options.folders is not None:
        return pair_per_folder(level, options)
    return pair_per_folder(level, options) or read_parted(level, "", _label_names(level), options.suffixes)


def _roles(level: Level, options: ReadingOptions) -> dict[str, str] | None:
    """Names of the folders before, after and of labels."""
    if options.folders is not None:
        named = dict(zip((*DATES, LABEL), options.folders, strict=False))
        there = {role: name for role, name in named.items() if (level.path / name).is_dir()}
        others = [name for name in level.folders if name not in there.values()]
        if {*DATES} <= there.keys() and LABEL in named and LABEL not in there:
            for near in difflib.get_close_matches(named[LABEL], others, n=1):  # a split may well have no labels
                raise DataError(
                    f"folders: found no folder {named[LABEL]} in {level.path}, but {near}; expected the folder of "
                    f"labels: {folders_option((*options.folders[:2], near))}"
                )
        return there if {*DATES} <= there.keys() and options.folders[0] != options.folders[1] else None
    dates = dates_among(level.folders)
    if len(dates) > 1:
        shown = " and ".join(",".join(pair) for pair in dates)
        raise DataError(
            f"{level.path}: found {shown}, and either can be the images before and after; say which by "
            f"{folders_option((*dates[0], *_label_names(level)[:1]))}"
        )
    if not dates:
        return None
    return dict(zip(DATES, dates[0], strict=True)) | _label_roles(level, dates[0])


def _label_names(level: Level) -> list[str]:
    """The folders of labels; of several, those that hold images (xBD has polygons in ``labels``)."""
    names = labels_among(level.folders)
    return names if len(names) < 2 else [n for n in names if list_images(level.path / n, below=True).files] or names[:1]


def _label_roles(level: Level, dates: Sequence[str]) -> dict[str, str]:
    names = _label_names(level)
    if len(names) > 1:
        raise DataError(
            f"{level.path}: found the folders {' and '.join(names)}, and each can hold the labels; say which by "
            f"{folders_option((*dates, names[0]))}"
        )
    if names:
        labels = Level.of(level.path / names[0])
        inner = [] if any(map(is_image, labels.files)) else labels_among(labels.folders)
        return {LABEL: f"{names[0]}/{inner[0]}" if len(inner) == 1 else names[0]}  # HRSCD: labels/change, labels/2006
    two = labels_of_dates(level.folders)
    return {} if two is None else {LABEL: two[0], LABEL_AFTER: two[1]}


def folders_option(names: Iterable[str]) -> str:
    """Names of folders as the keyword and the option that state them."""
    given = tuple(names)
    return f"folders={given!r} ({as_option('folders', given)})"


def other_dates(level: Level, dates: Sequence[str], labels: Sequence[str]) -> Iterator[str]:
    """What is said of folders that hold images of further dates, of the same stems as those that are read.

    Args:
        level: The folder that holds them.
        dates: Names of the folders before and after that are read.
        labels: Names of the folders of labels, if any.
    """
    stems = images_in(level.path / dates[0]).keys()
    for name in (name for name in level.folders if name not in {*dates, *labels}):
        if stems & images_in(level.path / name).keys():
            option = another_date(name, dates, labels)
            yield f"{level.path / name}: images of another date, which are not used; {option}"


def another_date(name: str, dates: Sequence[str], labels: Sequence[str]) -> str:
    """The option that reads a folder of images instead of those after."""
    return f"{folders_option((dates[0], name, *labels[:1]))} reads them as the images after"


def read_roles(place: Path, roles: dict[str, str], stated: Suffixes | None) -> Found:
    """The pairs of folders of dates, and of labels.

    Args:
        place: Folder of the split.
        roles: Folders in there, by ``A``, ``B``, ``label`` and ``label_after``.
        stated: Suffixes that decide which files belong together.
    """
    if all(band_files(place / roles[date]) for date in DATES):
        return _pair_of_bands(place, roles)
    listings = {role: list_images(place / name, below=True) for role, name in roles.items()}
    before, after, suffixes = match_folders(listings[DATES[0]], listings[DATES[1]], stated)
    listings |= {DATES[0]: before, DATES[1]: after}
    if suffixes is not None:
        suffixes = _match_labels(listings, suffixes)
    elif named := None if before.files.keys() & after.files.keys() else _named_after_dates(listings, roles):
        listings = named
    else:
        for role in (role for role in (LABEL, LABEL_AFTER) if role in listings):
            listings[role] = match_labels(listings[role], before.files.keys() | after.files.keys())
    files = SplitFiles(place, listings, roles, suffixes)
    return Found(files, {Path(name).parts[0] for name in roles.values()})


def _pair_of_bands(place: Path, roles: dict[str, str]) -> Found:
    """The only pair of a folder whose dates are folders of files with one band each; its stem is the folder's name."""
    stem = place.absolute().name
    files = {date: place / roles[date] for date in DATES}
    refuse_other_bands(files.values())
    label = label_below(place / roles[LABEL]) if LABEL in roles else label_among(images_in(place))
    if label is not None:
        files[LABEL] = label
        roles = {LABEL: label.name} | roles
    listings = {role: Listing({stem: path}) for role, path in files.items()}
    return Found(SplitFiles(place, listings, {role: roles[role] for role in files}), {*roles.values()})


def _named_after_dates(listings: Mapping[str, Listing], roles: Mapping[str, str]) -> dict[str, Listing] | None:
    """The only pair of folders whose images bear the names of their dates, as ``before/before.tif`` (WHU-CD).

    Its stem is that of the image before; masks of one date next to the images, such as ``before_label.tif``, are left
    out.
    """
    paths: dict[str, Path] = {}
    for role, listing in listings.items():
        words = [normal(part) for part in Path(roles[role]).parts if len(part) > 1]
        own = [s for s in listing.files if normal(s).startswith((*words,)) and not is_label(s)]
        if role in DATES and len(own) == 1:
            paths[role] = listing.files[own[0]]
        elif role not in DATES and (label := label_among(listing.files)) is not None:
            paths[role] = label
    if not {*DATES} <= paths.keys():
        return None
    stem = paths[DATES[0]].stem
    pair: dict[str, Listing] = {}
    for role, listing in listings.items():
        left = [path.name for path in listing.files.values() if path != paths.get(role)]
        files = {stem: paths[role]} if role in paths else {}
        pair[role] = Listing(files, ignored=[*listing.ignored, *left])
    return pair


def _match_labels(listings: dict[str, Listing], suffixes: Suffixes) -> Suffixes:
    """Bring labels under the stems of pairs whose images have suffixes."""
    pairs = listings[DATES[0]].files.keys() | listings[DATES[1]].files.keys()
    for role in (role for role in (LABEL, LABEL_AFTER) if role in listings):
        listings[role] = suffixes.at_the_end(listings[role])
        stems = listings[role].files.keys()
        known = suffixes.label if suffixes.label is not None else label_suffix(stems, pairs, suffixes)
        listings[role] = without_suffix(listings[role], known)
        if not known:
            listings[role] = match_labels(listings[role], pairs)
        if role == LABEL:
            suffixes = replace(suffixes, label=known)
    return suffixes


def read_parted(level: Level, place: str, labels: Sequence[str], stated: Suffixes | None) -> Found | None:
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
        listings[DATES[0]].ignored = []  # the folder's own, which are reported as what it has besides its pairs
    if LABEL not in listings and labels:
        listings[LABEL], names[LABEL] = list_images(level.path / labels[0], below=True), labels[0]
        suffixes = _match_labels(listings, suffixes)
        used.add(labels[0])
    return Found(SplitFiles(level.path, listings, names, suffixes), used)


def pair_per_folder(level: Level, options: ReadingOptions) -> Found | None:
    """A folder for each pair, as in ``SITE/im1.png``, ``SITE/im2.png``, ``SITE/ref.png``; its name is the stem.

    Args:
        level: What holds these folders.
        options: How they are read: ``folders`` name those of bands in each of them, ``suffixes`` whole stems of images.

    Raises:
        DataError: When images in files of bands have different bands.
    """
    listings = {role: Listing() for role in (*DATES, LABEL, LABEL_AFTER)}
    names: dict[str, str] = {}
    used = set()
    for name in level.folders:
        files = files_of_pair(level.path / name, options.folders, options.stems)
        if files is None:
            continue
        used.add(name)
        for role, path in files.items():
            listings[role].files[name] = path
            names.setdefault(role, f"*/{path.relative_to(level.path / name)}")
    if not used:
        return None
    refuse_other_bands(path for date in DATES for path in listings[date].files.values())
    return Found(SplitFiles(level.path, {role: listings[role] for role in names}, names), used)
