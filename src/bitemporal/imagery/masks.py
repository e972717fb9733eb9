"""Change masks on disk: their values, what the values mean, and the decoding to 0 / 1 / 255."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bitemporal.errors import DataError, LabelError
from bitemporal.imagery.decode import Decoded, FileFault, decode

IGNORE = 255
"""Value of a decoded mask's pixels that count nowhere (rotation padding, nodata)."""

Kind = Literal["grey", "colour", "palette", "inverted"]
"""How the samples of a mask file are to be taken: as values; as colours; as indices of a palette with colours;
as values of a black-and-white palette whose index says the opposite (0 white, 1 black)."""

Value = int | float | tuple[int, ...]

_SHOWN = 8  # values listed before "and N more"
_MEND = (
    "mend the file, or state the values of all files: label_values=UNCHANGED,CHANGED,IGNORE or label_threshold=LOWEST "
    "(--label-values, --label-threshold)"
)
_KEPT = 256  # values kept of one file; as many as 8 bits can hold


@dataclass(frozen=True)
class LabelDecoding:
    """What the values of change masks mean.

    Attributes:
        unchanged: Value of unchanged pixels.
        changed: Value of changed pixels.
        ignore: Value of pixels that count nowhere; ``None`` when there are none.
        threshold: When set, the three values above do not apply: a value at or above it is changed, below it
            unchanged.
        source: Whether the values were found in the files or stated by an option.
        files: Number of files that it was found in or checked against.
        changed_seen: Whether a changed pixel stands in any of them.
    """

    unchanged: float = 0
    changed: float = 255
    ignore: float | None = None
    threshold: float | None = None
    source: Literal["found", "label_values", "label_threshold"] = "found"
    files: int = 0
    changed_seen: bool = True

    @classmethod
    def of_options(
        cls, label_values: tuple[int, ...] | None = None, label_threshold: float | None = None
    ) -> "LabelDecoding | None":
        """The decoding that options state; ``None`` when neither is given.

        Args:
            label_values: UNCHANGED,CHANGED or UNCHANGED,CHANGED,IGNORE.
            label_threshold: Values at or above it are changed.

        Raises:
            DataError: When both are given, or one makes no sense.
        """
        if label_values is not None and label_threshold is not None:
            raise DataError(
                f"label_values={_join(label_values)} and label_threshold={label_threshold:g} are both given; "
                "one of them decides, leave the other out"
            )
        if label_threshold is not None:
            if not np.isfinite(label_threshold):
                raise DataError(f"label_threshold: found {label_threshold}, expected a finite number, for example 128")
            return cls(threshold=float(label_threshold), source="label_threshold")
        if label_values is None:
            return None
        if len(label_values) not in (2, 3) or len(set(label_values)) != len(label_values):
            raise DataError(
                f"label_values: found {_join(label_values)}, expected two or three different values "
                "UNCHANGED,CHANGED or UNCHANGED,CHANGED,IGNORE, for example 0,255"
            )
        unchanged, changed, *ignore = label_values
        return cls(unchanged, changed, ignore[0] if ignore else None, source="label_values")

    def decode(self, values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Decoded mask of the values of one file.

        Args:
            values: H x W, as ``read_values`` gives them.

        Returns:
            uint8, H x W: 0 unchanged, 1 changed, 255 ignore.

        Raises:
            LabelError: When a value has no meaning; the text lists such values with their counts.
        """
        if self.threshold is not None:
            if np.isnan(values).any():
                raise self._meaningless(values)
            above: npt.NDArray[np.bool_] = values >= self.threshold
            return above.astype(np.uint8)
        mask: npt.NDArray[np.uint8] = (values == self.changed).astype(np.uint8)
        known = mask.view(np.bool_) | (values == self.unchanged)
        if self.ignore is not None:
            ignored = values == self.ignore
            known |= ignored
            mask[ignored] = IGNORE
        if not known.all():
            raise self._meaningless(values)
        return mask

    def _meaningless(self, values: npt.NDArray[Any]) -> LabelError:
        strange = self.strange(_count(values))
        return LabelError(f"holds {listed(dict(strange), len(strange))}, but {self.rule()}; {_MEND}")

    def tally(self, counts: Iterable[tuple[Value, int]]) -> tuple[int, int]:
        """Changed and valid pixels among counted values.

        Args:
            counts: Values with their number of pixels.
        """
        changed = valid = 0
        for value, number in counts:
            if isinstance(value, tuple) or (self.threshold is None and value == self.ignore):
                continue
            valid += number
            if value == self.changed if self.threshold is None else value >= self.threshold:
                changed += number
        return changed, valid

    def strange(self, counts: Iterable[tuple[Value, int]]) -> list[tuple[Value, int]]:
        """The counted values that have no meaning."""
        if self.threshold is not None:
            return [(value, number) for value, number in counts if value != value]
        known = (self.unchanged, self.changed, self.ignore)
        return [(value, number) for value, number in counts if value not in known]

    def rule(self) -> str:
        """The decoding in one clause, as in ``0 = unchanged, 255 = changed``."""
        if self.threshold is not None:
            return f"below {self.threshold:g} = unchanged, {self.threshold:g} and above = changed"
        ignored = "" if self.ignore is None else f", {self.ignore:g} = ignored"
        return f"{self.unchanged:g} = unchanged, {self.changed:g} = changed{ignored}"

    def describe(self) -> str:
        """The decoding in one line, as in ``labels: 0 = unchanged, 255 = changed (found in 532 files)``."""
        files = f"{self.files:,} {'file' if self.files == 1 else 'files'}"
        if self.source != "found":
            return f"labels: {self.rule()} (by {self.source}; {files})"
        if not self.changed_seen:
            return f"labels: {self.unchanged:g} = unchanged, and nothing else (found in {files})"
        return f"labels: {self.rule()} (found in {files})"


@dataclass(frozen=True, slots=True)
class LabelValues:
    """The samples of one mask file.

    Attributes:
        kind: How to take them.
        values: H x W; for ``colour`` H x W x C.
        palette: Colour of every palette index; empty unless the kind is ``palette``.
        notes: What the user should know about the file.
    """

    kind: Kind
    values: npt.NDArray[Any]
    palette: dict[int, tuple[int, ...]]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelObservation:
    """What a scan keeps of one mask: its size and the pixels of every value.

    Attributes:
        height: In pixels.
        width: In pixels.
        kind: How the values are to be taken.
        counts: Values and their pixels, most frequent first, at most 256 of them.
        distinct: Number of different values in the file.
        palette: Colour of every palette index that occurs; empty unless the kind is ``palette``.
        jpeg: Whether the file is compressed as JPEG.
        notes: What the user should know about the file.
        fault: What contradicts the stated decoding, and the remedy.
    """

    height: int
    width: int
    kind: Kind
    counts: tuple[tuple[Value, int], ...]
    distinct: int
    palette: dict[int, tuple[int, ...]]
    jpeg: bool = False
    notes: tuple[str, ...] = ()
    fault: tuple[str, str] | None = None


def _join(values: Iterable[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _count(values: npt.NDArray[Any]) -> list[tuple[Value, int]]:
    """Values with their pixels, most frequent first."""
    if values.ndim == 3:
        found, numbers = np.unique(values.reshape(-1, values.shape[-1]), axis=0, return_counts=True)
        pairs: list[tuple[Value, int]] = [(tuple(map(int, v)), int(n)) for v, n in zip(found, numbers, strict=True)]
    elif values.dtype == np.uint8:
        histogram = np.bincount(values.ravel(), minlength=256)
        pairs = [(int(v), int(histogram[v])) for v in np.flatnonzero(histogram)]
    else:
        found, numbers = np.unique(values, return_counts=True)
        pairs = [(_plain(v), int(n)) for v, n in zip(found.tolist(), numbers, strict=True)]
    return sorted(pairs, key=lambda pair: -pair[1])


def _plain(value: float) -> int | float:
    return int(value) if value == value and float(value).is_integer() else value


def listed(counts: dict[Value, int], distinct: int, palette: dict[int, tuple[int, ...]] | None = None) -> str:
    """Values with their counts in words, the most frequent ones first, as in ``0 (120 pixels), 255 (3), and 2 more``.

    Args:
        counts: Pixels by value.
        distinct: Number of different values, which may exceed those in ``counts``.
        palette: Colours to show beside palette indices.
    """
    shown = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))[:_SHOWN]
    pieces = []
    for position, (value, number) in enumerate(shown):
        name = str(value) if isinstance(value, tuple) else f"{value:g}"
        if palette and isinstance(value, int) and value in palette:
            name = f"index {value} = colour {palette[value]}"
        pieces.append(f"{name} ({number:,} pixels)" if position == 0 else f"{name} ({number:,})")
    rest = f", and {distinct - len(shown):,} more" if distinct > len(shown) else ""
    return ", ".join(pieces) + rest


def _palette_values(decoded: Decoded) -> LabelValues:
    """Black-and-white palettes give the grey value that one sees, others the index."""
    indices = np.asarray(decoded.image)
    colours = (decoded.image.getpalette("RGB") or [])[: 3 * 256]
    table = np.zeros((256, 3), dtype=np.uint8)
    table.reshape(-1)[: len(colours)] = colours
    used = np.flatnonzero(np.bincount(indices.ravel(), minlength=256))
    shown = table[used]
    if np.isin(shown, (0, 255)).all() and (shown == shown[:, :1]).all():
        contradicts = all(i in (0, 1) and table[i, 0] == (255 if i == 0 else 0) for i in used) and len(used) == 2
        return LabelValues("inverted" if contradicts else "grey", table[:, 0][indices], {}, ())
    return LabelValues("palette", indices, {int(i): tuple(map(int, table[i])) for i in used}, ())


def read_values(path: Path, white: int = 255) -> LabelValues:
    """The samples of one mask file.

    Args:
        path: Of the file.
        white: Value that the set pixels of a 1-bit image get.

    Raises:
        FileFault: When the file cannot be read.
    """
    return _values(decode(path), white)


def _values(decoded: Decoded, white: int) -> LabelValues:
    image, notes = decoded.image, decoded.notes
    if image.mode == "P":
        return replace(_palette_values(decoded), notes=notes)
    if image.mode == "1":
        return LabelValues("grey", np.asarray(image).astype(np.uint8) * np.uint8(white), {}, notes)
    if decoded.depth > 8 and len(image.getbands()) > 1:
        raise FileFault(
            f"is a colour image of {decoded.depth} bits a sample", "write the mask as one channel of 8 bits"
        )
    samples = np.asarray(image)
    if samples.ndim == 2:
        return LabelValues("grey", samples, {}, notes)
    bands = image.getbands()
    opaque = bands[-1] != "A" or bool((samples[..., -1] == 255).all())
    colours = samples[..., :-1] if bands[-1] == "A" else samples
    if opaque and image.mode in ("RGB", "RGBA", "RGBX", "LA") and (colours == colours[..., :1]).all():
        note = f"{image.mode} label with equal channels, taken as grey"
        return LabelValues("grey", np.ascontiguousarray(colours[..., 0]), {}, (*notes, note))
    return LabelValues("colour", samples if bands[-1] == "A" and not opaque else colours, {}, notes)


def white_of(stated: LabelDecoding | None) -> int:
    """Value that the set pixels of a 1-bit mask take: 255, or 1 where stated values know no 255."""
    if stated is None or stated.threshold is not None:
        return 255
    return 255 if 255 in (stated.unchanged, stated.changed, stated.ignore) else 1


def observe(path: Path, stated: LabelDecoding | None = None) -> LabelObservation:
    """Read one mask for a scan.

    Args:
        path: Of the file.
        stated: Decoding that options state.

    Raises:
        FileFault: When the file cannot be read.
    """
    decoded = decode(path)
    label = _values(decoded, white_of(stated))
    counts = _count(label.values)
    fault = None
    if stated is not None:
        fault = _contradiction(label, counts, stated)
        changed, valid = (0, 0) if fault else stated.tally(counts)
        # enough for the CAR, however many values there are
        counts = [pair for pair in ((0, valid - changed), (1, changed), (IGNORE, label.values.size - valid)) if pair[1]]
    jpeg = decoded.image.format in ("JPEG", "MPO")
    kept = tuple(counts[:_KEPT])
    return LabelObservation(*decoded.size, label.kind, kept, len(counts), label.palette, jpeg, label.notes, fault)


def _contradiction(
    label: LabelValues, counts: list[tuple[Value, int]], stated: LabelDecoding
) -> tuple[str, str] | None:
    """What keeps a mask from being decoded as stated, and the remedy."""
    found = listed(dict(counts), len(counts), label.palette)
    if label.kind == "colour":
        return f"is a colour image: {found}", "write the mask as one grey channel"
    if label.kind == "palette" and stated.threshold is not None:
        return (
            f"is a palette image, whose indices know no threshold: {found}",
            "say which index is which with label_values=UNCHANGED,CHANGED (--label-values)",
        )
    strange = stated.strange(counts)
    if strange:
        return f"holds {listed(dict(strange), len(strange), label.palette)}, but {stated.rule()}", _MEND
    return None


@dataclass
class LabelSummary:
    """The values of all masks of a set, gathered file by file.

    Attributes:
        files: Number of masks.
        pixels: Pixels by value, of grey masks and palette indices.
        values_in: Number of files by the values that a file holds; files of more than three values are under
            ``None``.
        example: First file of every entry of ``values_in``.
        further: First files that hold anything but 0 and 1, or 0 and 255.
        odd: Number of such files.
        distinct: Most different values in one file.
        jpeg: Number of JPEG files.
        colours: Pixels by colour in files that are colour images.
        colour_files: Such files: number and the first of them.
        palette: Palette colours by index, in files whose colours do not speak for themselves.
        palette_files: Files whose palette indices are not 0 and 1.
        inverted: Files of kind ``inverted``.
    """

    files: int = 0
    pixels: Counter[Value] = field(default_factory=Counter)
    values_in: Counter[frozenset[Value] | None] = field(default_factory=Counter)
    example: dict[frozenset[Value] | None, Path] = field(default_factory=dict)
    further: list[Path] = field(default_factory=list)
    odd: int = 0
    distinct: int = 0
    jpeg: int = 0
    colours: Counter[Value] = field(default_factory=Counter)
    colour_files: list[Path] = field(default_factory=list)
    palette: dict[int, tuple[int, ...]] = field(default_factory=dict)
    palette_files: list[Path] = field(default_factory=list)
    inverted: list[Path] = field(default_factory=list)

    def add(self, path: Path, seen: LabelObservation) -> None:
        """Take in one mask."""
        self.files += 1
        self.jpeg += seen.jpeg
        if seen.kind == "colour":
            self.colours.update(dict(seen.counts))
            self.colours = Counter(dict(self.colours.most_common(_KEPT)))
            self.colour_files.append(path)
            return
        values = frozenset(value for value, _ in seen.counts)
        if seen.kind == "inverted":
            self.inverted.append(path)
        if seen.kind == "palette":
            self.palette |= seen.palette
            if not values <= {0, 1}:
                self.palette_files.append(path)
        self.pixels.update(dict(seen.counts))
        self.distinct = max(self.distinct, seen.distinct)
        key = values if seen.distinct <= 3 else None
        self.values_in[key] += 1
        self.example.setdefault(key, path)
        if not (values <= {0, 1} or values <= {0, 255}):
            self.odd += 1
            if len(self.further) < 3:
                self.further.append(path)

    def resolve(self) -> "tuple[LabelDecoding | None, list[tuple[Path, FileFault]]]":
        """The decoding that all masks agree on.

        Returns:
            The decoding, ``None`` when there is none, and what stands in its way.
        """
        faults = list(self._colour_faults())
        values = set(self.pixels)
        if values and not self.palette_files and not self.inverted:
            if values <= {0, 255} or values == {0, 1}:
                changed = 1 if 1 in values else 255
                decoding = LabelDecoding(0, changed, files=self.files, changed_seen=changed in values)
                return decoding, faults
            faults.append(self._ambiguity(values))
        return None, faults

    def _colour_faults(self) -> Iterable[tuple[Path, FileFault]]:
        for path in self.colour_files[:1]:
            yield (
                path,
                FileFault(
                    f"{_files(self.colour_files, self.files)} colour images: "
                    f"{listed(dict(self.colours), len(self.colours))}",
                    "write the masks as one grey channel, 0 unchanged and 255 changed",
                ),
            )
        for path in self.palette_files[:1]:
            counts: dict[Value, int] = {index: self.pixels[index] for index in self.palette}
            yield (
                path,
                FileFault(
                    f"{_files(self.palette_files, self.files)} palette images whose colours are not black and white "
                    f"and whose indices are not 0 and 1: {listed(counts, len(counts), self.palette)}",
                    "say which index is which: label_values=UNCHANGED,CHANGED or UNCHANGED,CHANGED,IGNORE "
                    "(--label-values)",
                ),
            )
        for path in self.inverted[:1]:
            yield (
                path,
                FileFault(
                    f"{_files(self.inverted, self.files)} palette images whose index 0 is white and index 1 black: "
                    f"colour and index contradict each other, {listed(dict(self.pixels), len(self.pixels))}",
                    "say which colour is which: label_values=0,255 (--label-values 0,255) if white is changed, 255,0 "
                    "if black is",
                ),
            )

    def _ambiguity(self, values: set[Value]) -> tuple[Path, FileFault]:
        found = listed(dict(self.pixels), len(values))
        first = self.further[0] if self.further else next(iter(self.example.values()))
        where = f"in {self.odd:,} of {self.files:,} files, such as {', '.join(p.name for p in self.further)}"
        if values <= {0, 1, 255}:
            return first, self._of_ones_and_255(found, where)
        if self.jpeg or self.distinct > 3 or len(values) > 3:
            why = f"JPEG compression ({self.jpeg:,} files)" if self.jpeg else "antialiasing, or more than one class"
            return first, FileFault(
                f"the labels hold {len(values)} values ({where}), which points to {why}: {found}",
                "say from which value on a pixel is changed: label_threshold=128 (--label-threshold 128) for masks "
                "made of 0 and 255",
            )
        example = _join(sorted(v for v in values if not isinstance(v, tuple)))
        return first, FileFault(
            f"the labels hold values whose meaning is not known ({where}): {found}",
            f"say which is which: label_values={example} (--label-values {example}) if that is the order UNCHANGED,"
            "CHANGED or UNCHANGED,CHANGED,IGNORE",
        )

    def _of_ones_and_255(self, found: str, where: str) -> FileFault:
        if set(self.pixels) == {1}:
            return FileFault(
                f"every pixel of all {self.files:,} labels is 1: changed (as in 0/1) or unchanged (as in 1/2)? {found}",
                "say which: label_values=0,1 (--label-values 0,1) or label_values=1,2",
            )
        settle = (
            "label_values=0,1,255 (--label-values 0,1,255) if 255 is to be ignored, label_threshold=1 "
            "(--label-threshold 1) if 1 and 255 both mean changed"
        )
        if any(key and {1, 255} <= key for key in self.values_in):
            return FileFault(f"the labels hold 1 and 255 ({where}): {found}", settle)
        ones = sum(n for key, n in self.values_in.items() if key and 1 in key)
        full = sum(n for key, n in self.values_in.items() if key and 255 in key)
        one = next(self.example[key] for key in self.values_in if key and 1 in key)
        white = next(self.example[key] for key in self.values_in if key and 255 in key)
        return FileFault(
            f"the labels mix two codings: {ones:,} files hold 0/1 (such as {one.name}), {full:,} hold 0/255 (such as "
            f"{white.name}): {found}",
            "write one coding everywhere, or say so: " + settle,
        )


def _files(some: list[Path], total: int) -> str:
    return f"{len(some):,} of {total:,} labels {'is' if len(some) == 1 else 'are'}"


def _own_decoding(label: LabelValues, path: Path) -> LabelDecoding:
    """The decoding that a single mask shows by itself.

    Raises:
        LabelError: When it is ambiguous.
    """
    counts = _count(label.values)
    height, width = label.values.shape[:2]
    summary = LabelSummary()
    summary.add(
        path,
        LabelObservation(height, width, label.kind, tuple(counts[:_KEPT]), len(counts), label.palette),
    )
    decoding, faults = summary.resolve()
    if decoding is None:
        raise LabelError("\n".join(f"{path}: {fault.what}; {fault.remedy}" for path, fault in faults))
    return decoding


def read_mask(
    path: str | os.PathLike[str],
    decoding: LabelDecoding | None = None,
    *,
    label_values: tuple[int, ...] | None = None,
    label_threshold: float | None = None,
) -> npt.NDArray[np.uint8]:
    """Read one change mask.

    Args:
        path: A png, jpg, bmp, tif or webp file.
        decoding: What its values mean, such as ``PairFolder.decoding``; found out from this one file, or taken from
            the options, when left out.
        label_values: UNCHANGED,CHANGED or UNCHANGED,CHANGED,IGNORE.
        label_threshold: Values at or above it are changed.

    Returns:
        uint8, H x W: 0 unchanged, 1 changed, 255 ignore.

    Raises:
        DataError: When the file cannot be read.
        LabelError: When its values cannot be decoded.
    """
    known = decoding or LabelDecoding.of_options(label_values, label_threshold)
    source = Path(path)
    try:
        label = read_values(source, white_of(known))
    except FileFault as fault:
        raise DataError(f"{source}: {fault.what}; {fault.remedy}") from None
    if known is None:
        known = _own_decoding(label, source)
    if label.kind in ("colour", "palette"):
        contradiction = _contradiction(label, _count(label.values), known)
        if contradiction:
            raise LabelError(f"{source}: {'; '.join(contradiction)}")
    try:
        return known.decode(label.values)
    except LabelError as error:
        raise LabelError(f"{source}: {error}") from None
