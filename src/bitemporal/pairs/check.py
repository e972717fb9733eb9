"""Checking a folder of pairs: every file is read once, in several processes, and no pixels are kept."""

import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import track

from bitemporal.errors import DataError, LabelError
from bitemporal.imagery.borders import LEAST_BORDER, zero_border
from bitemporal.imagery.decode import decode
from bitemporal.imagery.decoded import SUFFIXES, Decoded, FileFault
from bitemporal.imagery.label_rules import LabelDecoding
from bitemporal.imagery.labels import LabelObservation, LabelSummary, observe
from bitemporal.imagery.places import place_of
from bitemporal.imagery.scale import check_usable, image_notes
from bitemporal.pairs.folder import Pair, PairFolder, size_fault, unit_fault
from bitemporal.pairs.listing import shared_stem
from bitemporal.pairs.names import DATES, LABEL, LABEL_AFTER, SPLITS, normal
from bitemporal.pairs.partition import PartitionRow
from bitemporal.pairs.repeated import SAME_DATES, digest_of, in_several_splits
from bitemporal.remedies import as_typed, free_name
from bitemporal.texts import few_of, harmless
from bitemporal.workers import check_workers, cpus, map_in_processes, processes_available, processes_unasked

_SMALL = 2000  # pairs below which starting processes costs more than it saves
_MOST_WORKERS = 8  # reading from one disk gains nothing beyond
_CHUNK = 32
_TILE = 256  # pixels of the side of proposed tiles
_BORDER_PIXELS = 256
_NAMED = 3  # files named of those with the same fault

FaultKind = Literal["folder", "partner", "duplicate", "unlabelled", "file", "size", "label", "list"]
"""What is wrong: folder, no images in it; partner, a file without its counterparts; duplicate, several files of one
stem; unlabelled, a split without any label; file, unreadable; size, dates or label differ; label, values that cannot be
decoded; list, a list of splits that does not fit the files."""


@dataclass(frozen=True)
class PairRecord:
    """What a check knows of one pair.

    Attributes:
        split: Split.
        stem: Stem.
        height: Height of the image before in pixels (of the label when only labels were read); 0 when unreadable.
        width: Likewise.
        car: Change area ratio in [0, 1]; NaN when there is no label, or none that can be decoded.
        labelled: Whether there is a label file.
    """

    split: str
    stem: str
    height: int
    width: int
    car: float
    labelled: bool


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where it is, what was found there, what to do about it, its kind, and its split.

    The split is empty where the fault is one file's.
    """

    path: Path
    what: str
    remedy: str
    kind: FaultKind
    split: str = ""

    @classmethod
    def of(cls, fault: FileFault, kind: FaultKind) -> "Fault":
        """What a file's error says, without the frames that an exception holds on to."""
        return cls(fault.path, fault.what, fault.remedy, kind)


@dataclass
class FolderCheck:
    """What reading a whole folder found.

    Attributes:
        root: The folder.
        records: One per pair, by split and stem.
        faults: All faults.
        warnings: What is usable but worth knowing; one line for all files that it concerns.
        decoding: What the label values mean; ``None`` without labels, or when they are ambiguous.
    """

    root: Path
    records: list[PairRecord] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    decoding: LabelDecoding | None = None

    def __repr__(self) -> str:
        """The folder, and how many pairs, faults and warnings there are."""
        counts = ((self.records, "pairs"), (self.faults, "faults"), (self.warnings, "warnings"))
        return f"FolderCheck({str(self.root)!r}, {', '.join(f'{len(found):,} {what}' for found, what in counts)})"

    def report(self) -> str:
        """All faults in words, those with one remedy together; of many files with the same fault, the first ones."""
        count = len(self.faults)
        lines = fault_lines(((fault.path, fault.what, fault.remedy, fault.kind) for fault in self.faults), self.root)
        return "\n".join(
            [f"{harmless(str(self.root), lines=False)}: {count} {'fault' if count == 1 else 'faults'}", *lines]
        )

    def raise_for_faults(self) -> None:
        """Refuse a folder that has any fault.

        Raises:
            DataError: When there is any fault; its text is the complete report.
        """
        if self.faults:
            raise DataError(self.report())

    def refuse_label_faults(self) -> None:
        """Refuse a folder whose CAR would be known in part: a distribution with holes misleads.

        Raises:
            DataError: When labels cannot be read or decoded, with a report of all of them, or when there is no label.
        """
        faults = [fault for fault in self.faults if fault.kind in ("file", "label")]
        if faults:
            raise DataError(FolderCheck(self.root, faults=faults).report())
        if all(math.isnan(record.car) for record in self.records):
            raise DataError(
                f"{self.root}: found {len(self.records)} pairs, none of them with a label that has a valid pixel; CAR "
                f"is defined by labels: `bitemporal data check {as_typed(self.root)}` says what is in their place"
            )

    def rows(self, part_of: Callable[[float], str]) -> list[PartitionRow]:
        """Lines of a ``partition.csv``, one per pair; without a label neither CAR nor part is set."""
        return [PartitionRow(r.split, r.stem, r.car, part_of(r.car)) for r in self.records]


def fault_lines(faults: Iterable[tuple[Path, str, str, str]], root: Path) -> list[str]:
    """Faults in words, those with one remedy together; of many files with the same fault, the first ones.

    Args:
        faults: File, what was found there, what to do about it, and the kind, which is not shown.
        root: Folder that files are named from.
    """
    groups: dict[tuple[str, str], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path, what, remedy, kind in faults:
        groups[kind, remedy][what].append(path)
    lines = []
    for (_, remedy), same in groups.items():
        for what, paths in same.items():
            # a line in place of one file would save nothing
            named = paths if len(paths) <= _NAMED + 1 else paths[:_NAMED]
            lines += [f"  {shown(path, root)}: {what}" for path in named]
            if more := len(paths) - len(named):
                lines.append(f"  and {more:,} more files: {what}")
        lines.append(f"    -> {remedy}")
    return lines


def shown(path: Path, root: Path) -> str:
    """A path relative to the root, printable even if its name is not valid text."""
    text = str(path.relative_to(root)) if path.is_relative_to(root) and path != root else str(path)
    return harmless(os.fsencode(text).decode("utf-8", "replace"), lines=False)


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one worker returns of one pair; no pixels, but a digest of those of both images."""

    size: tuple[int, int]
    label: LabelObservation | None
    faults: list[Fault]
    notes: list[tuple[str, Path]]
    digest: bytes


def _read(
    pair: Pair,
    *,
    stated: LabelDecoding,
    bands: tuple[int, ...] | None,
    image_range: tuple[float, ...] | None,
    images: bool,
    root: Path,
) -> _Reading:
    """Read the files of one pair, one after the other."""
    sizes: dict[str, tuple[int, int]] = {}
    digests: list[bytes] = []
    faults: list[Fault] = []
    notes: list[tuple[str, Path]] = []
    files: list[Decoded] = []
    for name, path in (("before", pair.before), ("after", pair.after)) if images else ():
        try:
            decoded = decode(path, bands)
            sizes[name] = decoded.size
            files.append(decoded)
            check_usable(decoded, image_range)
            notes += [(note, path) for note in image_notes(decoded, image_range)]
            digests.append(digest_of(decoded))
            if _has_zero_border(decoded):
                notes.append((_border_note(root, decoded.size), path))
        except FileFault as fault:
            faults.append(Fault.of(fault, "file"))
    if len(files) == 2 and (unlike := unit_fault(*files)):
        faults.append(Fault.of(unlike, "file"))
    label = None
    if pair.label is not None:
        try:
            label = observe(pair.label, pair.label_after, stated)
            sizes["label"] = label.size
            notes += [(note, pair.label) for note in label.notes]
        except FileFault as fault:
            faults.append(Fault.of(fault, "label" if isinstance(fault, LabelError) else "file"))
    if unequal := size_fault(pair.before, sizes):
        faults.append(Fault.of(unequal, "size"))
    elif any(decoded.georeferenced for decoded in files):
        _compare_places(pair, faults, notes)
    whole = len(digests) == 2 and all(digests)
    if whole and digests[0] == digests[1]:
        notes.append((SAME_DATES, pair.after))
    return _Reading(next(iter(sizes.values()), (0, 0)), label, faults, notes, b"".join(digests) if whole else b"")


def _compare_places(pair: Pair, faults: list[Fault], notes: list[tuple[str, Path]]) -> None:
    """See that files of one size show the same ground, as far as they say: pixels are compared row by row."""
    first = place_of(pair.before)
    for path in (pair.after, pair.label, pair.label_after) if first is not None else ():
        other = None if path is None else place_of(path)
        if first is None or path is None or other is None:
            continue
        found = first.against(other)
        if found == "beside":
            notes.append(("is slightly offset on the ground from its image before; pixels are used as stored", path))
        elif found == "elsewhere":
            what = "shows a different place on the ground from the image before"
            faults.append(Fault(path, what, "correct the georeference that is wrong, or remove the pair", "size"))
        elif found == "unlike":
            output = as_typed(free_name(f"{pair.stem}-tiles"))
            command = (
                f"bitemporal data tiles {as_typed(pair.before)} {as_typed(pair.after)} -o {output} "
                f"--size {min(*first.shape, _TILE)} --minimum-valid 0"
            )
            if pair.label is not None and pair.label_after is None:
                command += f" --label {as_typed(pair.label)}"
            what = "has pixels that are rotated or offset on the ground from those of the image before"
            faults.append(Fault(path, what, f"`{command}` brings all onto the pixels of the image before", "size"))


def _border_note(root: Path, size: tuple[int, int]) -> str:
    output = as_typed(free_name("tiles"))
    tiles = f"bitemporal data tiles {as_typed(root)} -o {output} --size {min(*size, _TILE)} --nodata 0"
    return (
        "a border of exact zeros, which nothing declares as no data; if it is, "
        f"`{tiles} --minimum-valid 0.5` leaves it out"
    )


def _has_zero_border(decoded: Decoded) -> bool:
    """Whether a border of exact zeros, in all bands, is too large to be a shadow at the edge."""
    if decoded.mode == "P":
        return False
    zero = np.asarray(np.atleast_3d(decoded.samples == 0).all(axis=-1), np.bool_)
    share = zero_border(zero)
    return LEAST_BORDER <= share < 1 and share * zero.size >= _BORDER_PIXELS


def _readings(pairs: Sequence[Pair], read: Callable[[Pair], _Reading], workers: int | None) -> Iterator[_Reading]:
    """Readings in the order of the pairs."""
    several = processes_unasked() and len(pairs) >= _SMALL and processes_available()
    count = workers or (min(cpus(), _MOST_WORKERS) if several else 1)
    return map_in_processes(read, pairs, count, _CHUNK)


def _tracked(readings: Iterator[_Reading], total: int, progress: bool) -> Iterable[_Reading]:
    console = Console(stderr=True)
    hidden = not (progress and console.is_terminal)  # elsewhere even a bar that vanishes leaves an empty line
    return track(readings, "reading pairs", total, console=console, transient=True, disable=hidden)


def check_pairs(
    folder: PairFolder,
    workers: int | None = None,
    progress: bool = False,
    images: bool = True,
    splits: Sequence[str] | None = None,
) -> FolderCheck:
    """Read every file once and report all faults, the CAR of every pair, and what the label values mean.

    Args:
        folder: The folder; it is not changed. ``folder.with_decoding(check.decoding)`` decodes labels as found here.
        workers: Processes; the result is the same for any number. ``None`` starts none, except in a
            command: there a large folder takes one per CPU, at most 8. A script that asks for several must start
            under ``if __name__ == "__main__":``.
        progress: Show a progress bar, on a terminal.
        images: Read the images too; otherwise only the labels, which is all that CAR needs.
        splits: Read these splits only.

    Raises:
        DataError: When there is no such split.
        OptionError: When ``workers`` is below 1 or far above the number of CPUs, or processes cannot be started, or
            die.
    """
    if workers is not None:
        check_workers(workers)
    chosen = folder.chosen(splits)
    check = FolderCheck(folder.root, warnings=[*folder.warnings, *_splits_called_otherwise(folder)])
    check.faults += [Fault.of(fault, "list") for split, fault in folder.list_faults if split in chosen]
    for split in chosen:
        check.faults += _listing_faults(folder, split)
        check.warnings += _ignored_files(folder, split)
    pairs = [pair for split in chosen for pair in folder.pairs(split)]
    read = partial(
        _read,
        stated=folder.stated,
        bands=folder.bands,
        image_range=folder.image_range,
        images=images,
        root=folder.root,
    )
    labels = LabelSummary(folder.stated)
    noted: dict[str, list[Path]] = defaultdict(list)
    sizes: list[tuple[int, int]] = []
    digests: list[tuple[str, str, bytes]] = []
    for pair, reading in zip(pairs, _tracked(_readings(pairs, read, workers), len(pairs), progress), strict=True):
        check.faults += reading.faults
        for note, path in reading.notes:
            noted[note].append(path)
        if pair.label is not None and reading.label is not None:
            labels.add(pair.label, reading.label)
        sizes.append(reading.size)
        digests.append((pair.split, pair.stem, reading.digest))
    check.warnings += [
        f"{len(paths):,} {'file' if len(paths) == 1 else 'files'}: {note} (such as {shown(paths[0], check.root)})"
        for note, paths in noted.items()
    ]
    check.decoding, faults = labels.resolve()
    check.faults += [Fault.of(fault, "label") for fault in faults]
    tallies: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for pair, size in zip(pairs, sizes, strict=True):
        changed, valid = labels.tally(pair.label, check.decoding)
        if pair.label is not None:
            tallies[pair.split].append((changed, valid))
        car = changed / valid if valid else float("nan")
        check.records.append(PairRecord(pair.split, pair.stem, *size, car, pair.label is not None))
    check.warnings += in_several_splits(digests)
    check.warnings += _one_sided_splits(tallies)
    all_tallies = [tally for of_split in tallies.values() for tally in of_split]
    changed, valid = (sum(column) for column in zip((0, 0), *all_tallies, strict=True))
    if doubt := labels.doubt(check.decoding, changed, valid):
        check.warnings.append(doubt)
    return check


def resolve_decoding(folder: PairFolder) -> PairFolder:
    """The same folder with the meaning of its label values known, so that labels can be loaded.

    Reads all labels unless the decoding is known already. A folder without labels comes back as it is.

    Args:
        folder: The folder; it is not changed.

    Raises:
        LabelError: When the label values are ambiguous; the text says which option settles them.
    """
    if folder.decoding is not None or not any(pair.label for pair in folder.pairs()):
        return folder
    check = check_pairs(folder, images=False)
    if check.decoding is None:
        texts = [f"{f.path}: {f.what}; {f.remedy}" for f in check.faults if f.kind in ("label", "file")]
        raise LabelError("\n".join(texts))
    return folder.with_decoding(check.decoding)


def _ignored_files(folder: PairFolder, split: str) -> Iterator[str]:
    for role, listing in folder.listings[split].items():
        if listing.ignored:
            yield (
                f"{split}/{folder.folder_names(split)[role]}: {_entries(len(listing.ignored))} left out, being "
                "sub-folders, no images by their extension, or without the suffix, such as "
                f"{', '.join(listing.ignored[:3])}"
            )


def _splits_called_otherwise(folder: PairFolder) -> Iterator[str]:
    """A warning where runs find no split to learn from, but one whose name begins like that, as ``train_512``."""
    like = [split for split in folder.splits if normal(split).startswith(SPLITS[0])]
    if SPLITS[0] in folder.splits or len(folder.splits) < 2 or len(like) != 1:
        return
    place = folder.split_folder(like[0])
    if place.name == like[0]:
        yield (
            f"none of the splits {', '.join(folder.splits)} is called {SPLITS[0]}, from which runs learn; "
            f"`mv {as_typed(place)} {as_typed(free_name(place.with_name(SPLITS[0])))}` renames {like[0]}, and val "
            "and test need those names as well"
        )


def _entries(count: int) -> str:
    return "1 entry is" if count == 1 else f"{count:,} entries are"


def _one_sided_splits(tallies: dict[str, list[tuple[int, int]]]) -> Iterator[str]:
    """Warnings about splits in which no pixel, or every pixel, is changed.

    Args:
        tallies: Changed and valid pixels of every label, by split.
    """
    for split, labels in tallies.items():
        changed, valid = (sum(column) for column in zip(*labels, strict=True))
        if valid and changed in (0, valid):
            what = "no pixel" if changed == 0 else "every valid pixel"
            yield (
                f"split {split}: {what} of its {len(labels):,} labels is changed; training on it teaches only one "
                "answer, and its scores mean little"
            )


_KINDS = f"{', '.join(ending[1:] for ending in SUFFIXES if ending not in ('.jpeg', '.tiff', '.jp2'))} or jp2"
_POLYGONS = (".json", ".geojson", ".gpkg", ".shp")


def _listing_faults(folder: PairFolder, split: str) -> Iterator[Fault]:
    """Faults that names alone show."""
    listings, names, place = folder.listings[split], folder.folder_names(split), folder.split_folder(split)
    before, after = (listings[date] for date in DATES)
    masks = [listings[role] for role in (LABEL, LABEL_AFTER) if role in listings]
    if not before.files and not after.files and not any(of_list == split for of_list, _ in folder.list_faults):
        yield Fault(
            place,
            f"{' and '.join(dict.fromkeys(names[date] for date in DATES))} hold no image of split {split}",
            f"put {_KINDS} files there, or remove split {split}",
            "folder",
            split,
        )
    for listing in listings.values():
        for paths in listing.duplicates.values():
            yield Fault(paths[0], shared_stem(paths), "keep one file per stem and folder", "duplicate")
    complete = before.files.keys() & after.files.keys()
    labelled = [labels for labels in masks if any(other.files for other in masks)]
    unlabelled = {stem for labels in labelled for stem in complete - labels.files.keys()}
    add_partner = "add the file with the same stem, or remove this one"
    add_images = "add the images with the same stem, or remove this label"
    add_label = "add the label with the same stem, or move unlabelled pairs to a folder of their own"
    for listing, stems, what, remedy in (
        (before, before.files.keys() - complete, f"has no partner in {names[DATES[1]]}", add_partner),
        (after, after.files.keys() - complete, f"has no partner in {names[DATES[0]]}", add_partner),
        *(
            (labels, labels.files.keys() - complete, "is a label without its two images", add_images)
            for labels in masks
        ),
        (before, unlabelled, "has no label, although other pairs of its split have one", add_label),
    ):
        for stem in sorted(stems):
            yield Fault(listing.files[stem], what, remedy, "partner")
    if complete and not labelled:
        others = [name for labels in masks for name in labels.ignored]
        told = ""
        if others:
            are_polygons = any(name.lower().endswith(_POLYGONS) for name in others)
            how = "draw their polygons as masks first, as docs/pairs.md#labels-that-are-polygons shows"
            told = f"; {few_of(others)} there are no images that can be read: "
            told += how if are_polygons else "convert them to PNG"
        yield Fault(
            place,
            f"no pair of split {split} has a label: fine for prediction, not for training or evaluation",
            f"add change masks with the images' stems in the folder {names.get(LABEL, LABEL)}{told}",
            "unlabelled",
            split,
        )
