"""A folder of pairs: its layout, its pairs, and the pixels of one pair."""

import copy
import glob
import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bitemporal.errors import DataError, LabelError, OptionError
from bitemporal.imagery.decode import decode
from bitemporal.imagery.decoded import Decoded, FileFault
from bitemporal.imagery.label_rules import LabelDecoding, LabelOptions
from bitemporal.imagery.labels import read_mask
from bitemporal.imagery.masks import IGNORE
from bitemporal.imagery.scale import check_bands, check_image_range, to_channels
from bitemporal.pairs.layout import find_layout
from bitemporal.pairs.listing import Listing
from bitemporal.pairs.names import DATES, LABEL, LABEL_AFTER
from bitemporal.pairs.split_lists import SPLITS_CSV


@dataclass(frozen=True)
class Pair:
    """One pair on disk.

    Attributes:
        split: Its split.
        stem: The stem that its files share.
        before: Image before.
        after: Image after.
        label: Change mask, if any.
        label_after: Where there is no mask of changes but one of classes for each date (``label1``, ``label2``): that
            of the date after, while ``label`` is that of the date before. A pixel is changed where the two differ.
    """

    split: str
    stem: str
    before: Path
    after: Path
    label: Path | None
    label_after: Path | None = None


@dataclass(frozen=True)
class PairImages:
    """A pair in memory.

    Attributes:
        before: uint8, H x W x C; RGB unless bands are chosen.
        after: uint8, H x W x C.
        label: uint8, H x W: 0 unchanged, 1 changed, 255 ignore; ``None`` unlabelled.
    """

    before: npt.NDArray[np.uint8]
    after: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8] | None

    def __repr__(self) -> str:
        """Height, width, bands, and share of changed pixels."""
        changed = "no label"
        if self.label is not None:
            counted = self.label[self.label != IGNORE]
            changed = f"{np.mean(counted == 1):.1%} changed" if counted.size else "all ignored"
        return f"PairImages({' x '.join(map(str, self.before.shape))}, {changed})"


class PairFolder:
    """A folder of pairs: ``ROOT/{train,val,test}/{A,B,label}``, one split, ``ROOT/{A,B,label}``, or another layout.

    Stems decide which files belong together. Extensions may differ, and ``label`` may be missing. The layouts in which
    data sets are released are known: other names of folders and splits, lists of splits, suffixes. Creating a
    ``PairFolder`` only lists file names. It never changes afterwards, and it can be pickled, for the workers of a
    ``DataLoader``.

    Attributes:
        root: The folder.
        splits: Its splits, in the order train, val, test, others. A single split keeps the folder's own name when that
            is one of these, and is called ``all`` otherwise.
        listings: The files of each split, by split and then by the names ``A``, ``B`` and, if present, ``label`` and
            ``label_after``, whatever their folders are called.
        notes: How the folder is read, where its layout is not the first two above.
        warnings: What is in the folder and not used, and what to do about it.
        list_faults: What is wrong with lists of splits, with the split concerned.
        bands: See ``__init__``.
        image_range: See ``__init__``.
        label_options: The options about the labels.
        stated: What they say.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        folders: tuple[str, ...] | None = None,
        suffixes: tuple[str, ...] | None = None,
        splits: str | None = None,
        label_values: tuple[int, ...] | None = None,
        changed: tuple[int, ...] | None = None,
        changed_colours: tuple[int, ...] | None = None,
        unchanged_colours: tuple[int, ...] | None = None,
        label_threshold: float | None = None,
        label_ignore: tuple[float, ...] | None = None,
        label_band: int | None = None,
        bands: tuple[int, ...] | None = None,
        image_range: tuple[float, ...] | None = None,
    ) -> None:
        """List a folder.

        Args:
            root: The folder.
            folders: Names of the folders before, after and, if any, of labels, in ROOT or ROOT/SPLIT; by default those
                in common use. Twice the same when one folder holds both dates.
            suffixes: Suffixes of the stems before, after and, if any, of labels; by default none, or those found.
            splits: CSV with the columns split and stem, or folder of train.txt, val.txt, test.txt, which say which pair
                is in which split; by default ``splits.csv`` or the text files in ROOT.
            label_values: UNCHANGED,CHANGED or UNCHANGED,CHANGED,IGNORE, for labels whose values are ambiguous; 255
                stands for the set pixels of 1-bit labels.
            changed: Label values, or palette indices, that are changed; every other is unchanged.
            changed_colours: Colours of labels that are changed, three numbers each; every other is unchanged.
            unchanged_colours: Colours of labels that are unchanged, three numbers each; every other is changed.
            label_threshold: Label values at or above it are changed. Of the five rules so far, one at most is stated.
            label_ignore: Label values of pixels that count nowhere.
            label_band: The band of the label files that holds the mask, from 1.
            bands: Bands of the images that become channels, counted from 1; by default red, green and blue, or a
                single grey band for all three.
            image_range: LOW,HIGH values that become 0 and 255 in images of more than 8 bits per sample, or such a pair
                for each channel.

        Raises:
            DataError: When the folder has no such layout.
            OptionError: When an option has an unusable value.
        """
        check_bands(bands)
        check_image_range(image_range, bands)
        self.root = Path(root)
        self.bands = bands
        self.image_range = image_range
        self.label_options = LabelOptions(
            label_values=label_values,
            changed=changed,
            changed_colours=changed_colours,
            unchanged_colours=unchanged_colours,
            label_threshold=label_threshold,
            label_ignore=label_ignore,
            label_band=label_band,
        )
        layout = find_layout(self.root, folders, suffixes, splits)
        self._folders = {split: files.folder for split, files in layout.splits.items()}
        self._names = {split: files.names for split, files in layout.splits.items()}
        self._lists = Path(splits) if splits is not None else self.root / SPLITS_CSV
        self.splits: tuple[str, ...] = tuple(layout.splits)
        self.listings: dict[str, dict[str, Listing]] = {s: files.listings for s, files in layout.splits.items()}
        self.notes, self.warnings = tuple(layout.notes), tuple(layout.warnings)
        self.list_faults = tuple(layout.faults)
        self._pairs = {split: _pairs(split, listings) for split, listings in self.listings.items()}
        self._state()

    def _state(self) -> None:
        """Find out what the options say of these labels, of one mask or of two."""
        self.stated = self.label_options.decoding()
        of_dates = [pair.label_after is not None for pair in self.pairs() if pair.label is not None]
        if any(of_dates):
            self.stated = self.stated.of_dates()
        known = all(of_dates) if self.stated.differing else self.stated.source != "found"
        self._decoding: LabelDecoding | None = replace(self.stated, files=len(of_dates)) if known else None

    def __len__(self) -> int:
        """Number of pairs in all splits."""
        return sum(map(len, self._pairs.values()))

    def __iter__(self) -> Iterator[Pair]:
        """The pairs of all splits, as ``pairs`` gives them."""
        return iter(self.pairs())

    def __repr__(self) -> str:
        """The folder, and the number of pairs of each split."""
        return f"PairFolder({str(self.root)!r}, {', '.join(f'{n} {len(own)}' for n, own in self._pairs.items())})"

    @property
    def decoding(self) -> LabelDecoding | None:
        """What the label values mean; ``None`` until it is stated or resolved (see ``resolve_decoding``)."""
        return self._decoding

    def with_decoding(self, decoding: LabelDecoding | None) -> "PairFolder":
        """The same folder with labels decoded in the given way.

        Args:
            decoding: Usually that of a ``FolderCheck``.
        """
        resolved = copy.copy(self)
        resolved._decoding = decoding
        return resolved

    def with_reading(self, bands: tuple[int, ...] | None, image_range: tuple[float, ...] | None) -> "PairFolder":
        """The same folder, with images read by other bands and another range; see ``__init__``.

        Raises:
            OptionError: When one has an unusable value, or they do not fit each other.
        """
        check_bands(bands)
        check_image_range(image_range, bands)
        changed = copy.copy(self)
        changed.bands, changed.image_range = bands, image_range
        return changed

    def with_labels(self, options: LabelOptions) -> "PairFolder":
        """The same folder, with labels read by other options.

        Raises:
            OptionError: When options have an unusable value, or do not apply to labels that are two masks.
        """
        changed = copy.copy(self)
        changed.label_options = options
        changed._state()
        return changed

    def files(self) -> list[Path]:
        """Every file that is read: images, labels, and the lists that say which pair is in which split."""
        own = (path for pair in self for path in (pair.before, pair.after, pair.label, pair.label_after))
        return [*(path for path in own if path is not None), self._lists]

    def split_folder(self, split: str) -> Path:
        """Where a split's folders of images are."""
        return self._folders[split]

    def folder_names(self, split: str) -> Mapping[str, str]:
        """What the folders of a split are called on disk, by the names that ``listings`` has."""
        return self._names[split]

    def chosen(self, splits: Sequence[str] | None) -> tuple[str, ...]:
        """The given splits in the folder's order; all of them for ``None``.

        Raises:
            DataError: When there is no such split.
            OptionError: When ``splits`` is one name.
        """
        if isinstance(splits, str):
            raise OptionError(f"splits: found {splits!r}, expected several names; give ({splits!r},)")
        for split in splits or ():
            if split not in self.splits:
                raise DataError(f"{self.root}: has no split {split!r}, only {', '.join(self.splits)}")
        return self.splits if splits is None else tuple(s for s in self.splits if s in splits)

    def pairs(self, split: str | None = None) -> list[Pair]:
        """Pairs that have both dates, sorted by stem within their split.

        A stem that several files of one folder share makes no pair.

        Args:
            split: One split; all of them for ``None``.

        Raises:
            DataError: When there is no such split.
        """
        return [pair for name in self.chosen(None if split is None else (split,)) for pair in self._pairs[name]]

    def load(self, pair: Pair) -> PairImages:
        """Read one pair.

        Conversions of grey or RGBA images are silent here; ``check_pairs`` reports them.

        Args:
            pair: One of ``pairs``.

        Raises:
            DataError: When a file cannot be read, or the sizes differ.
            LabelError: When the label values cannot be decoded, or what they mean is not resolved yet.
        """
        label = None if pair.label is None else self.load_label(pair)
        files = [decode(path, self.bands) for path in (pair.before, pair.after)]
        if unlike := unit_fault(*files):
            raise unlike
        before, after = (to_channels(decoded, self.image_range) for decoded in files)
        images = {"before": before, "after": after} | ({} if label is None else {"label": label})
        if fault := size_fault(pair.before, {name: image.shape[:2] for name, image in images.items()}):
            raise fault
        return PairImages(before, after, label)

    def load_image(self, path: Path) -> npt.NDArray[np.uint8]:
        """Read one image of a pair, H x W x C uint8; see ``load``.

        Raises:
            DataError: When the file cannot be read, or what its values or bands mean has to be stated.
        """
        return to_channels(decode(path, self.bands), self.image_range)

    def load_label(self, pair: Pair) -> npt.NDArray[np.uint8]:
        """Read the label of one pair alone, decoded; see ``load``.

        Raises:
            DataError: When the pair has no label, or the file cannot be read.
            LabelError: When the label values cannot be decoded, or what they mean is not resolved yet.
        """
        if pair.label is None:
            raise DataError(f"{pair.before}: has no label; add one to the folder label")
        if self.decoding is None:
            raise LabelError(
                f"{pair.label}: what the label values of {self.root} mean is not resolved yet; call "
                "`folder = bitemporal.pairs.resolve_decoding(folder)` first, or state label_values"
            )
        return read_mask(pair.label, self.decoding, label_after=pair.label_after)


def _pairs(split: str, listings: dict[str, Listing]) -> list[Pair]:
    before, after = (listings[date].files for date in DATES)
    labels, labels_after = (listings.get(role, Listing()).files for role in (LABEL, LABEL_AFTER))
    if LABEL_AFTER in listings:  # one of two masks says nothing
        labels = {stem: path for stem, path in labels.items() if stem in labels_after}
    shared = {stem for listing in listings.values() for stem in listing.duplicates}
    return [
        Pair(
            split, stem, before[stem], after[stem], labels.get(stem), labels_after.get(stem) if stem in labels else None
        )
        for stem in sorted(before.keys() & after.keys() - shared)
    ]


def unit_fault(before: Decoded, after: Decoded) -> FileFault | None:
    """What is wrong where tags of scale and offset of one date alone give the values of a pair two units.

    An offset alone is applied, as the other date has none; floats are taken for physical.
    """
    if (before.scaling is None) == (after.scaling is None):
        return None
    tagged, bare = (before, after) if after.scaling is None else (after, before)
    scaling = tagged.scaling or ()
    if all(scale == 1 for scale, _ in scaling) or bare.samples.dtype.kind == "f":
        return None
    words = f"x {scaling[0][0]:g} {scaling[0][1]:+g}"
    what = f"has no scale and offset, but {tagged.path} has them ({words}), so their values are in different units"
    if bare.format != "TIFF" or not bare.path.is_file():
        return FileFault(bare.path, what, "store both dates in the same unit")
    files = json.dumps(f"{glob.escape(str(bare.path.parent.absolute()))}/*{bare.path.suffix}")
    code = (
        "import glob, rasterio as r; "
        f'[(setattr(d, "scales", ({scaling[0][0]!r},) * d.count), setattr(d, "offsets", (0,) * d.count), d.close()) '
        f'for d in (r.open(f, "r+") for f in glob.glob({files}))]'
    )
    return FileFault(
        bare.path,
        what,
        f"if all files there have the same scale and no offset, `python -c {shlex.quote(code)}` writes that into "
        f"their tags",
    )


def size_fault(path: Path, sizes: Mapping[str, tuple[int, ...]]) -> FileFault | None:
    """What is wrong with a pair whose files differ in size; ``None`` when they do not.

    Args:
        path: File that names the pair in the fault.
        sizes: Height and width by ``before``, ``after`` and ``label``, as far as they are known.
    """
    if len(set(sizes.values())) <= 1:
        return None
    described = ", ".join(f"{name} is {height} x {width}" for name, (height, width) in sizes.items())
    return FileFault(
        path,
        f"{described} (height x width)",
        "bring both dates and the label onto one pixel grid (resample or crop), or remove the pair",
    )
