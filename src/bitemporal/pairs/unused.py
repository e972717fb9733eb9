"""What a data folder holds besides its pairs, and what is wrong if no pairs are found: the messages."""

import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from bitemporal.errors import DataError
from bitemporal.files import without_links
from bitemporal.imagery.band_files import band_files
from bitemporal.imagery.decode import decode
from bitemporal.imagery.training_images import SOURCE, SYNTHETIC
from bitemporal.pairs.listing import entries, is_image, is_litter
from bitemporal.pairs.names import (
    DATE_WORDS,
    DATES,
    LABEL,
    dates_among,
    is_label_name,
    labels_among,
    missing_date,
    normal,
)
from bitemporal.pairs.one_pair import images_in
from bitemporal.pairs.one_split import Found, Level, ReadingOptions, another_date, folders_option, split_at
from bitemporal.pairs.split_lists import LIST_FOLDERS, SPLITS_CSV, find_lists, is_list
from bitemporal.pairs.suffixes import ends_of_one_folder, suffixes_option
from bitemporal.remedies import as_typed, free_name
from bitemporal.texts import few_of

EXPECTED = (
    "expected ROOT/{train,val,test}/{A,B,label} or ROOT/{A,B,label}, A holding the images before, B those after, "
    "label (optional) the change masks"
)
"""The layout that errors give as the expected one."""

_DEPTH = 5  # of folders below the data that are searched for bands
_BAND = re.compile(r"(^|_)B(0\d|1[0-2]|8A)(_\d\dm)?\.(tiff?|jp2)$", re.IGNORECASE)
_MOST_OF_MASKS = 3  # values
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".rar", ".7z")
_PAPERS = ("readme", "read_me", "licen", "citation", "changelog")
_OWN = (SYNTHETIC, SOURCE)  # records of `data synth` and `data download`


def unused(
    level: Level,
    used: Collection[str],
    options: ReadingOptions,
    found: Found | None = None,
    lists: Collection[Path] = (),
) -> Iterator[str]:
    """What a folder holds besides its pairs, and what to do about it.

    Args:
        level: The folder.
        used: Names of what is used of it.
        options: How it is read.
        found: Its pairs, if its own folders hold them.
        lists: Lists of splits that are used.
    """
    folders = [name for name in level.folders if name not in used and not _holds_lists(level.path / name, options)]
    other = _other_dates(level, folders, options, found)
    if other:
        both = " and ".join(other[:2])
        yield f"{level.path}: {both} hold images that are not used; {folders_option(other)} reads them"
    for name in folders:
        path = level.path / name
        if name in other:
            continue
        if name.lower() in LIST_FOLDERS or any(path in one.parents for one in lists):
            inside = [n for n, is_folder in entries(path) if not is_folder and path / n not in lists]
            yield from _unused_lists(path, inside, options)
        elif _holds_pairs(path, options):
            yield (
                f"{path}: holds pairs of its own, which are not used; check them by "
                f"`bitemporal data check {as_typed(path)}`, or move the folder elsewhere"
            )
        else:
            count = len(images_in(path))
            what = f"a folder of {count:,} image(s)" if count else "a folder without images of its own"
            yield f"{path}: {what} that is not used{_of_a_split(level, path) or _as_labels(path, options, found)}"
    files = [name for name in level.files if name not in used and level.path / name not in lists]
    images = [name for name in files if is_image(name)]
    archives = [name for name in files if name.lower().endswith(_ARCHIVES)]
    if images:
        yield (
            f"{level.path}: {len(images):,} image(s) next to the folders are not used, such as {images[0]}; move each "
            "into the folder of its date or of labels, or elsewhere"
        )
    for name in archives:
        yield f"{level.path / name}: an archive that is not used; unpack it if it holds pairs, or move it elsewhere"
    yield from _unused_lists(level.path, [n for n in files if n not in images and n not in archives], options)


def _holds_lists(folder: Path, options: ReadingOptions) -> bool:
    """Whether a folder is, or holds, what is stated to say which pair is in which split."""
    stated = None if options.lists is None else without_links(options.lists)
    return stated is not None and stated.is_relative_to(without_links(folder))


def _other_dates(level: Level, folders: Sequence[str], options: ReadingOptions, found: Found | None) -> tuple[str, ...]:
    """The folders before, after and, if any, of labels that would be read where others are."""
    dates = [] if found is None or options.folders else dates_among(folders)
    if len(dates) != 1 or not all(images_in(level.path / name) for name in dates[0]):
        return ()
    labels = labels_among(folders) or [found.files.names[LABEL]] if found and LABEL in found.files.names else []
    return (*dates[0], *labels[:1])


def _as_labels(path: Path, options: ReadingOptions, found: Found | None) -> str:
    """How a folder of images would be used as labels, where its stems are those of pairs."""
    dates = [] if found is None else [found.files.names[date] for date in DATES]
    labels = [found.files.names[LABEL]] if found and LABEL in found.files.names else []
    stems = () if found is None else found.files.listings[DATES[0]].files
    is_date = re.fullmatch(r"(t|time|date|im|img|image)?\d+", normal(path.name)) or normal(path.name) in DATE_WORDS
    is_fit = not options.folders and any(stem in stems for stem in images_in(path))
    if not is_fit or len({*dates}) < 2 or dates[0].startswith("*"):
        return "; move it elsewhere if it does not belong here"
    if labels and is_fit and is_label_name(path.name):
        return f"; if it is to be the label in place of {labels[0]}, {folders_option((*dates, path.name))} reads it"
    if is_date or (labels and not _may_hold_masks(path)):
        return f"; if it holds images of another date, {another_date(path.name, dates, labels)}"
    return f"; if it holds the labels, {folders_option((*dates, path.name))} reads them"


def _of_a_split(level: Level, path: Path) -> str:
    """How a folder of masks next to one of images would be used, as ``train_masks`` next to ``train_images``."""
    images = re.sub(r"(masks?|labels?|gt)$", "images", path.name, flags=re.IGNORECASE)
    if images == path.name or images not in level.folders or not images_in(level.path / images):
        return ""
    move = f"mv {as_typed(path)} {as_typed(free_name(level.path / images / LABEL))}"
    return f"; if it holds the labels of {images}, `{move}` adds them to its pairs"


def _unused_lists(folder: Path, names: Sequence[str], options: ReadingOptions) -> Iterator[str]:
    lists = [name for name in names if is_list(name)]
    if lists and not options.lists:
        decide = {path for path in find_lists(folder) if path.parent == folder and path.name in lists}
        place = folder if decide else folder / lists[0] if len(lists) == 1 else None
        yield (
            f"{folder}: {', '.join(lists)} not used, as folders or other lists say which pair is in which split; "
            + (f"--splits {as_typed(place)} makes these decide" if place else "move them elsewhere")
        )
    known = {*lists, *_OWN}
    rest = [name for name in names if name not in known and not is_litter(name) and not is_paper(name)]
    if rest:
        yield (
            f"{folder}: {', '.join(rest[:3])}{', ...' if rest[3:] else ''} not used, being neither an image nor a list "
            f"of a split (train.txt, val.txt, test.txt, {SPLITS_CSV}); move anything that does not belong here"
        )


def is_paper(name: str) -> bool:
    """Whether a file is what accompanies any data set: read-me, licence or the like."""
    return name.lower().startswith(_PAPERS)


def _holds_pairs(path: Path, options: ReadingOptions) -> bool:
    try:
        level = Level.of(path)
        return split_at(level, options) is not None or any(
            split_at(Level.of(path / name), options) is not None for name in level.folders
        )
    except DataError:
        return False


def half_a_split(level: Level, options: ReadingOptions) -> str:
    """What is wrong with the folder of a split in which no pairs are found."""
    if not level.folders and not level.files:
        return f"{level.path}: is empty, expected the folders A, B and label with images; fill or remove it"
    there = few_of(level.folders) if level.folders else "no folders"
    if options.folders is not None:
        return (
            f"{level.path}: found no folders {' and '.join(options.folders[:2])}, only {there}; name those that hold "
            f"the images before, those after, and the labels{_as_in(level)}"
        )
    missing = missing_date(level.folders)
    what = "no pairs" if missing is None else f"folder {missing} missing"
    return f"{level.path}: {what}, found {there}; {EXPECTED}{_others(level)}"


def nothing_found(level: Level, options: ReadingOptions) -> str:
    """What is wrong with a folder in which no pairs are found."""
    if options.folders is not None or missing_date(level.folders):
        return half_a_split(level, options)
    if (band := _file_of_band(level, _DEPTH)) is not None:
        found = f"{level.path}: found {band.relative_to(level.path)}, a file of one band as in scenes of Sentinel-2"
        if len(scenes := _safe_folders(level)) == 2:
            tiles = free_name(level.path.with_name(f"{level.path.name}-pairs"))
            before, after = scenes
            return (
                f"{found}, {EXPECTED}; `bitemporal data tiles {as_typed(before)} {as_typed(after)} -o "
                f"{as_typed(tiles)}` cuts the two scenes, the earlier one first, into pairs"
            )
        beside = Level.of(band.parent.parent) if band.parent != level.path else level
        dates = [name for name in beside.folders if band_files(beside.path / name)]
        if len(dates) == 2:
            return (
                f"{found}, and the names of the folders do not say which date is which; a folder of such files is "
                "one image: "
                f"{folders_option((*dates, *labels_among(beside.folders)[:1]))} names those before and after"
            )
        return (
            f"{found}, {EXPECTED}; write all bands of a date into one file, as `rio stack` does, or map the scene by "
            "predict-scene"
        )
    files = [name for name in level.files if is_image(name)]
    if files:
        return (
            f"{level.path}: found {len(files)} images whose names do not say which are before, after and labels, such "
            f"as {files[0]}; {EXPECTED}{_ends(files)}"
        )
    if (stems := _stems_of_pairs(level, _DEPTH)) is not None:
        return (
            f"{level.path}: found folders that hold the same images each, such as {few_of(stems)}, {EXPECTED}; say "
            f"which is before, after and the label by {suffixes_option(stems)}"
        )
    archives = [name for name in level.files if name.lower().endswith(_ARCHIVES)]
    if archives and not level.folders:
        return f"{level.path}: found the archives {few_of(archives)}, {EXPECTED}; unpack them"
    found = f"the folders {few_of(level.folders)}" if level.folders else "no folders"
    return f"{level.path}: found {found}, {EXPECTED}{_others(level)}"


def _as_in(level: Level) -> str:
    """The option that names folders of images as before, after and labels; empty where these are not two or three."""
    names = [name for name in level.folders if images_in(level.path / name)]
    labels = (labels_among(names) or [name for name in names if _may_hold_masks(level.path / name)])[:1]
    dates = [name for name in names if name not in labels]
    if len(dates) > 2 and labels and len({frozenset(images_in(level.path / name)) for name in dates}) == 1:
        return f", of several dates any two, as in {folders_option((*dates[:2], *labels))}"
    if len(dates) == 2 or (len(dates) == 3 and not labels):
        return f", that of the images before first, as in {folders_option((*dates, *labels))}"
    return ""


def _may_hold_masks(folder: Path) -> bool:
    """Whether the first image of a folder has three values at most."""
    try:
        samples = decode(next(iter(images_in(folder).values()))).samples
    except DataError:
        return False
    return samples.ndim == 2 and len(np.unique(samples)) <= _MOST_OF_MASKS


def _others(level: Level) -> str:
    proposed = _as_in(level)
    return f"; other folders can be named{proposed}" if proposed else ""


def _ends(files: Sequence[str]) -> str:
    """The option that tells the images of one folder apart by the ends of their stems, where these may do so."""
    ends = ends_of_one_folder([os.path.splitext(name)[0] for name in files])
    return f". If the ends of their stems tell them apart, name these, as in {suffixes_option(ends)}" if ends else ""


def _stems_of_pairs(level: Level, depth: int) -> tuple[str, ...] | None:
    """Stems before, after and of labels where each of several folders holds images of the same stems.

    Of several kinds of images, ``img1_HR`` and ``img1_MS``, those of the first kind are taken, as GVLM 1.1 has them.
    """
    stems = [frozenset(images_in(level.path / name)) for name in level.folders]
    if len(stems) > 1 and len({*stems}) == 1 and len(stems[0]) > 1:
        kinds: dict[str, list[str]] = {}
        for stem in sorted(stems[0]):
            word, _, kind = stem.partition("_")
            kinds.setdefault(kind, []).append(word)
        labels = labels_among(stems[0])[:1]
        for kind, words in kinds.items():
            for dates in dates_among(words):
                return (*(f"{date}_{kind}" if kind else date for date in dates), *labels)
    for name in level.folders if depth and len(level.folders) == 1 else ():
        return _stems_of_pairs(Level.of(level.path / name), depth - 1)
    return None


def _file_of_band(level: Level, depth: int) -> Path | None:
    """A file that holds one band of a scene, in a folder or below it."""
    for name in level.files:
        if _BAND.search(name):
            return level.path / name
    for name in level.folders if depth else ():
        inner = level.path / name
        if os.access(inner, os.R_OK) and (path := _file_of_band(Level.of(inner), depth - 1)) is not None:
            return path
    return None


def _safe_folders(level: Level) -> list[Path]:
    """The folders of the finest bands in the scenes of Sentinel-2 of a folder, in the order of their dates."""
    found = []
    for name in sorted((name for name in level.folders if name.upper().endswith(".SAFE")), key=_sensing_date):
        places = sorted({path.parent for path in (level.path / name).glob("GRANULE/*/IMG_DATA/**/*.jp2")})
        found += [place for place in places if band_files(place)][:1]  # R10m comes first
    return found


def _sensing_date(name: str) -> str:
    """When a scene of Sentinel-2 was taken, by its name."""
    match = re.search(r"_(20\d{6}T\d{6})_", name)
    return match[1] if match else name
