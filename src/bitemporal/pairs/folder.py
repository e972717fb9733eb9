"""Folders of pairs: what belongs together, and what was read there."""

import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from bitemporal.errors import DataError, LabelError
from bitemporal.imagery.decode import SUFFIXES, FileFault, check_image_range, decode, to_rgb
from bitemporal.imagery.masks import LabelDecoding, read_mask
from bitemporal.pairs.partition import PartitionRow

SPLITS = ("train", "val", "test")
"""Names of split folders."""

DATES = ("A", "B")
"""Names of the image folders: before, after."""

LABEL = "label"
"""Name of the folder of change masks."""

FaultKind = Literal["folder", "partner", "duplicate", "unlabelled", "file", "size", "label"]
"""folder: nothing in it; partner: a file without its counterparts; duplicate: one stem twice; unlabelled: a split
without any label; file: unreadable; size: dates or label differ; label: values that cannot be decoded."""

_LAYOUT = (
    "expected ROOT/{train,val,test}/{A,B,label} or ROOT/{A,B,label}, A holding the images before, B those after, "
    "label (optional) the change masks"
)
_NOT_IMAGES = {"thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class Pair:
    """One pair on disk: its split, the stem that its files share, the image before, the one after, the mask if any."""

    split: str
    stem: str
    before: Path
    after: Path
    label: Path | None


@dataclass(frozen=True)
class PairImages:
    """A pair in memory.

    Attributes:
        before: uint8 RGB, H x W x 3.
        after: uint8 RGB, H x W x 3.
        label: uint8, H x W: 0 unchanged, 1 changed, 255 ignore; ``None`` unlabelled.
    """

    before: npt.NDArray[np.uint8]
    after: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8] | None


@dataclass(frozen=True)
class PairRecord:
    """What a scan knows of one pair.

    Attributes:
        split: Split.
        stem: Stem.
        height: Of the image before in pixels (of the label when only labels were read); 0 when unreadable.
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
    """One thing that is wrong: where, what was found there, what to do about it, and of which kind it is."""

    path: Path
    what: str
    remedy: str
    kind: FaultKind


@dataclass
class FolderScan:
    """Everything that one reading of a folder found out.

    Attributes:
        root: The folder.
        records: One a pair, by split and stem.
        faults: All faults.
        warnings: What works but should be known; few lines, each for all files it concerns.
        decoding: What the label values mean; ``None`` without labels, or when they are ambiguous.
    """

    root: Path
    records: list[PairRecord] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    decoding: LabelDecoding | None = None

    def report(self) -> str:
        """All faults in words, those with one remedy together."""
        groups: dict[tuple[FaultKind, str], list[Fault]] = {}
        for fault in self.faults:
            groups.setdefault((fault.kind, fault.remedy), []).append(fault)
        count = len(self.faults)
        lines = [f"{self.root}: {count} {'fault' if count == 1 else 'faults'}"]
        for (_, remedy), faults in groups.items():
            lines += [f"  {shown(fault.path, self.root)}: {fault.what}" for fault in faults]
            lines.append(f"    -> {remedy}")
        return "\n".join(lines)

    def raise_for_faults(self) -> None:
        """Refuse a folder that has any fault.

        Raises:
            DataError: With the complete report as its text.
        """
        if self.faults:
            raise DataError(self.report())

    def rows(self, part_of: Callable[[float], str]) -> list[PartitionRow]:
        """Lines of a ``partition.csv``, one a pair; without a label neither CAR nor part is set."""
        return [PartitionRow(r.split, r.stem, r.car, part_of(r.car)) for r in self.records]


def shown(path: Path, root: Path) -> str:
    """A path relative to the root, printable even if its name is not valid text."""
    text = str(path.relative_to(root)) if path.is_relative_to(root) and path != root else str(path)
    return os.fsencode(text).decode("utf-8", "replace")


@dataclass
class Listing:
    """Image files of one folder.

    Attributes:
        files: By stem, in Unicode's composed form (NFC); the first one of a stem.
        duplicates: All files of a stem that has several.
        ignored: Names of sub-folders and of files that are no images by their extension.
    """

    files: dict[str, Path] = field(default_factory=dict)
    duplicates: dict[str, list[Path]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)


def _entries(folder: Path) -> list[tuple[str, bool]]:
    """Names in a folder, sorted, and whether each is a folder itself.

    Raises:
        DataError: When the folder may not be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name, _is_folder(entry)) for entry in entries)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed ({error.strerror}), expected a folder that can; mend its permissions"
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself; reading it will be the fault
        return False


def list_images(folder: Path) -> Listing:
    """Which images a folder holds, hidden files left out.

    Raises:
        DataError: When the folder may not be read.
    """
    listing = Listing()
    for name, is_folder in _entries(folder):
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


class PairFolder:
    """A folder of pairs: ``ROOT/{train,val,test}/{A,B,label}``, or one split, ``ROOT/{A,B,label}``.

    Stems decide which files belong together, extensions may differ; ``label`` may be missing. Making one only lists
    file names. It can be pickled, so it serves in the workers of a ``DataLoader``; scan before that, lest every worker
    scans the labels by itself.

    Attributes:
        root: The folder.
        splits: Its splits, in the order train, val, test. A single split takes the folder's own name when that is
            one of these, else it is called ``all``.
        decoding: What the label values mean, as options or a scan determined it; ``None`` until then.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        label_values: tuple[int, ...] | None = None,
        label_threshold: float | None = None,
        image_range: tuple[float, float] | None = None,
    ) -> None:
        """List a folder.

        Args:
            root: The folder.
            label_values: UNCHANGED,CHANGED or UNCHANGED,CHANGED,IGNORE, for labels whose values do not speak for
                themselves; 255 stands for the set pixels of 1-bit labels.
            label_threshold: Label values at or above it are changed; instead of ``label_values``.
            image_range: LOW,HIGH values that become 0 and 255 in images of more than 8 bits a sample.

        Raises:
            DataError: When the folder has no such layout, or an option makes no sense.
        """
        self.root = Path(root)
        self.image_range = image_range
        check_image_range(image_range)
        self.stated = LabelDecoding.of_options(label_values, label_threshold)
        self.decoding: LabelDecoding | None = self.stated
        self._folders = self._find_splits()
        self.splits: tuple[str, ...] = tuple(self._folders)
        self._pairs: dict[str, list[Pair]] = {}
        self._faults: dict[str, list[Fault]] = {}
        self._warnings: dict[str, list[str]] = {}
        for split, folder in self._folders.items():
            self._list_split(split, folder)

    def _find_splits(self) -> dict[str, Path]:
        if not self.root.is_dir():
            kind = "a file" if self.root.exists() else "nothing"
            raise DataError(f"{self.root}: found {kind}, {_LAYOUT}")
        names = [name for name, is_folder in _entries(self.root) if is_folder and name[0] != "."]
        known = [split for split in SPLITS if split in names]
        single = [name for name in (*DATES, LABEL) if name in names]
        if known and single:
            raise DataError(
                f"{self.root}: holds both splits ({', '.join(known)}) and a split's folders ({', '.join(single)}); "
                f"{_LAYOUT}; move one of them elsewhere, or name a split folder itself"
            )
        if not known and not single:
            files = "no folders" if not names else f"the folders {', '.join(names[:10])}{', ...' if names[10:] else ''}"
            raise DataError(f"{self.root}: found {files}, {_LAYOUT}")
        own = Path(os.path.abspath(self.root)).name
        folders = {split: self.root / split for split in known} or {own if own in SPLITS else "all": self.root}
        for folder in folders.values():
            missing = [date for date in DATES if not (folder / date).is_dir()]
            if missing:
                found = [name for name, is_folder in _entries(folder) if is_folder]
                raise DataError(
                    f"{folder}: folder {' and '.join(missing)} missing, found {', '.join(found) or 'no folders'}; "
                    f"{_LAYOUT}"
                )
        return folders

    def _list_split(self, split: str, folder: Path) -> None:
        listings = {name: list_images(folder / name) for name in (*DATES, LABEL) if (folder / name).is_dir()}
        before, after = (listings[date] for date in DATES)
        labels = listings.get(LABEL, Listing())
        twice = before.duplicates.keys() | after.duplicates.keys() | labels.duplicates.keys()
        self._pairs[split] = [
            Pair(split, stem, before.files[stem], after.files[stem], labels.files.get(stem))
            for stem in sorted(before.files.keys() & after.files.keys() - twice)
        ]
        self._faults[split] = list(_listing_faults(split, folder, listings))
        self._warnings[split] = []
        for name, listing in listings.items():
            if listing.ignored:
                more = f", such as {', '.join(listing.ignored[:3])}"
                self._warnings[split].append(
                    f"{split}/{name}: {len(listing.ignored)} entries are sub-folders or no images by their extension "
                    f"and are left out{more}"
                )

    def pairs(self, split: str | None = None) -> list[Pair]:
        """Pairs that have both dates, sorted by stem within their split.

        A stem that one folder holds twice makes no pair.

        Args:
            split: One split; all of them when ``None``.

        Raises:
            DataError: When there is no such split.
        """
        return [pair for name in self._chosen(None if split is None else (split,)) for pair in self._pairs[name]]

    def _chosen(self, splits: Sequence[str] | None) -> tuple[str, ...]:
        for split in splits or ():
            if split not in self.splits:
                raise DataError(f"{self.root}: has no split {split!r}, only {', '.join(self.splits)}")
        return self.splits if splits is None else tuple(s for s in self.splits if s in splits)

    def scan(
        self,
        workers: int | None = None,
        progress: bool = False,
        images: bool = True,
        splits: Sequence[str] | None = None,
    ) -> FolderScan:
        """Read every file once and report everything found; also sets ``decoding``.

        Args:
            workers: Processes; the result is the same for any number. ``None`` takes one for a small folder, else as
                many as there are CPUs, at most 8. Scripts that ask for several need the usual
                ``if __name__ == "__main__"``.
            progress: Show a progress bar, on a terminal.
            images: Decode the images too; else only the labels are read, which is all that CAR needs.
            splits: Read these splits only.

        Raises:
            DataError: When there is no such split, or a worker process dies.
        """
        from bitemporal.pairs.check import scan_pairs

        chosen = self._chosen(splits)
        scan = FolderScan(self.root)
        for split in chosen:
            scan.faults += self._faults[split]
            scan.warnings += self._warnings[split]
        pairs = [pair for split in chosen for pair in self._pairs[split]]
        scan_pairs(scan, pairs, self.stated, self.image_range, workers, progress, images)
        self.decoding = scan.decoding
        return scan

    def load(self, pair: Pair) -> PairImages:
        """Read one pair.

        The labels of the whole folder are scanned first when the decoding is not known yet. Conversions of grey or
        RGBA images are silent here; a scan reports them.

        Args:
            pair: From ``pairs``.

        Raises:
            DataError: When a file cannot be read, or the sizes differ.
            LabelError: When the label values cannot be decoded.
        """
        label = None if pair.label is None else self.load_label(pair)
        images = []
        for path in (pair.before, pair.after):
            try:
                images.append(to_rgb(decode(path), self.image_range))
            except FileFault as fault:
                raise DataError(f"{path}: {fault.what}; {fault.remedy}") from None
        before, after = images
        sizes = [image.shape[:2] for image in (before, after, label) if image is not None]
        if len(set(sizes)) > 1:
            raise DataError(f"{pair.before}: {describe_sizes(sizes)}; {SIZE_REMEDY}")
        return PairImages(before, after, label)

    def load_label(self, pair: Pair) -> npt.NDArray[np.uint8]:
        """Read the label of one pair alone, decoded; see ``load``.

        Raises:
            DataError: When it has none, or it cannot be read.
            LabelError: When its values cannot be decoded.
        """
        if pair.label is None:
            raise DataError(f"{pair.before}: has no label; add one to the folder label")
        return read_mask(pair.label, self._known_decoding())

    def _known_decoding(self) -> LabelDecoding:
        if self.decoding is None:
            scan = self.scan(images=False)
            if scan.decoding is None:
                texts = [f"{f.path}: {f.what}; {f.remedy}" for f in scan.faults if f.kind in ("label", "file")]
                raise LabelError("\n".join(texts))
            return scan.decoding
        return self.decoding


SIZE_REMEDY = "bring both dates and the label onto one pixel grid (resample or crop), or remove the pair"


def describe_sizes(sizes: Sequence[tuple[int, ...] | None]) -> str:
    """Sizes in words, as in ``before is 256 x 256, after is 255 x 256 (height x width)``.

    Args:
        sizes: Height and width of before, after and label, in this order; ``None`` for one not known.
    """
    named = zip(("before", "after", "label"), sizes, strict=False)
    return ", ".join(f"{name} is {size[0]} x {size[1]}" for name, size in named if size) + " (height x width)"


def _listing_faults(split: str, folder: Path, listings: dict[str, Listing]) -> Iterator[Fault]:
    """Faults that names alone show."""
    before, after = (listings[date] for date in DATES)
    labels = listings.get(LABEL, Listing())
    if not before.files and not after.files:
        yield Fault(
            folder,
            "A and B hold no image",
            f"put png, jpg, bmp, tif or webp files there, or remove split {split}",
            "folder",
        )
    for listing in listings.values():
        for paths in listing.duplicates.values():
            names = ", ".join(path.name for path in paths)
            yield Fault(
                paths[0], f"one stem, {len(paths)} files: {names}", "keep one file a stem and folder", "duplicate"
            )
    for own, other, date in ((before, after, "B"), (after, before, "A")):
        for stem in sorted(own.files.keys() - other.files.keys()):
            yield Fault(
                own.files[stem],
                f"has no partner in {date}",
                "add the file with the same stem, or remove this one",
                "partner",
            )
    for stem in sorted(labels.files.keys() - (before.files.keys() & after.files.keys())):
        yield Fault(
            labels.files[stem],
            "is a label without its two images",
            "add the images with the same stem, or remove this label",
            "partner",
        )
    complete = before.files.keys() & after.files.keys()
    if labels.files:
        for stem in sorted(complete - labels.files.keys()):
            yield Fault(
                before.files[stem],
                "has no label, although other pairs of its split have one",
                "add the label with the same stem, or move unlabelled pairs to a folder of their own",
                "partner",
            )
    elif complete:
        yield Fault(
            folder,
            f"no pair of split {split} has a label: fine for prediction, not for training or evaluation",
            "add change masks with the images' stems in the folder label",
            "unlabelled",
        )
