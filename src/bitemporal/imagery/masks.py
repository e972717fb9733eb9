"""Change masks on disk: labels, decoded to 0 / 1 / 255, and the masks of other programs.

The value coding of labels is found from all files of a set together (``LabelSummary``), or stated by an option
(``LabelDecoding.of_options``). Pixels to ignore are never found, only stated: on the disk 255 usually means changed, in
a decoded mask 255 means ignored. Masks of other programs are read one by one, and strictly: what could mean two things
is refused.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from bitemporal.errors import LabelError, OptionError
from bitemporal.imagery.decode import BANDS, Decoded, FileFault, decode

IGNORE = 255
"""Value of a decoded mask's pixels that count nowhere (rotation padding, nodata)."""

Kind = Literal["grey", "colour", "palette", "inverted"]
"""What the samples of a label file are: values; colours; indices of a palette with colours; values of a
black-and-white palette in which index 0 is white and index 1 black, so that index and colour contradict each other."""

Value = int | float | tuple[int, ...]

_JPEG = ("JPEG", "MPO")
_COLOUR_MODES = ("RGB", "RGBX", "RGBA", "LA")
_UNKNOWN = 254  # among 0, 1 and 255: a value without a meaning
_SHOWN = 8  # values listed before "and N more"
_KEPT = 256  # values kept of one file; as many as 8 bits can hold
_FEW = 3  # a coding has at most three values: unchanged, changed, ignored
_ONE_CHANNEL = "write the mask as one grey channel, 0 unchanged and 255 changed, as PNG"
_STATE_VALUES = (
    "correct the file, or state the values of all files: label_values=UNCHANGED,CHANGED,IGNORE or "
    "label_threshold=LOWEST (--label-values, --label-threshold)"
)


class LabelFault(FileFault, LabelError):
    """One label whose values cannot be decoded."""


@dataclass(frozen=True, slots=True)
class LabelValues:
    """The values of one label file.

    Attributes:
        path: The file.
        kind: What the values are.
        values: H x W; for ``colour`` H x W x C.
        palette: Colour of every palette index that occurs; empty unless the kind is ``palette``.
        jpeg: Whether the file is compressed as JPEG.
        notes: What the user should know about the file.
    """

    path: Path
    kind: Kind
    values: npt.NDArray[Any]
    palette: dict[int, tuple[int, ...]]
    jpeg: bool
    notes: tuple[str, ...]


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
        changed_seen: Whether any of them has a changed pixel.
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
            OptionError: When both are given, or one has an unusable value.
        """
        if label_values is not None and label_threshold is not None:
            raise OptionError(
                f"label_values={_join(label_values)} and label_threshold={label_threshold:g} are both given; "
                "expected at most one of them, leave the other out"
            )
        if label_threshold is not None:
            if not np.isfinite(label_threshold):
                raise OptionError(
                    f"label_threshold: found {label_threshold}, expected a finite number, for example 128"
                )
            return cls(threshold=float(label_threshold), source="label_threshold")
        if label_values is None:
            return None
        if len(label_values) not in (2, 3) or len(set(label_values)) != len(label_values):
            raise OptionError(
                f"label_values: found {_join(label_values)}, expected two or three different values "
                "UNCHANGED,CHANGED or UNCHANGED,CHANGED,IGNORE, for example 0,255"
            )
        unchanged, changed, *ignore = label_values
        return cls(unchanged, changed, ignore[0] if ignore else None, source="label_values")

    @property
    def white(self) -> int:
        """Value of the set pixels of a 1-bit mask: 255, or 1 where the stated values have no 255."""
        return 255 if self.threshold is not None or 255 in (self.unchanged, self.changed, self.ignore) else 1

    def decode(self, label: LabelValues) -> npt.NDArray[np.uint8]:
        """Decoded mask of one file.

        Returns:
            uint8, H x W: 0 unchanged, 1 changed, 255 ignore.

        Raises:
            LabelFault: When a value has no meaning; the text lists such values with their pixel counts.
        """
        mask = None if label.kind in ("colour", "palette") else self._meanings(label.values)
        if mask is None or (mask == _UNKNOWN).any():
            if fault := self.contradiction(label, count_values(label.values)):
                raise fault
            mask = self._meanings(label.values)
        return mask

    def contradiction(self, label: LabelValues, counts: Sequence[tuple[Value, int]]) -> LabelFault | None:
        """What keeps one file from being decoded in this way; ``None`` when nothing does.

        Args:
            label: The file's values.
            counts: Its pixels by value.
        """
        if label.kind == "colour":
            return LabelFault(label.path, f"is a colour image: {listed(counts)}", _ONE_CHANNEL)
        if label.kind == "palette" and self.threshold is not None:
            return LabelFault(
                label.path,
                f"is a palette image, and a threshold does not apply to indices: {listed(counts, label.palette)}",
                "say which index is which with label_values=UNCHANGED,CHANGED (--label-values)",
            )
        meanings = self._meanings(np.array([value for value, _ in counts]))
        strange = [pair for pair, meaning in zip(counts, meanings, strict=True) if meaning == _UNKNOWN]
        if not strange:
            return None
        return LabelFault(label.path, f"holds {listed(strange, label.palette)}, but {self.rule()}", _STATE_VALUES)

    def tally(self, counts: Sequence[tuple[Value, int]]) -> tuple[int, int]:
        """Changed and valid pixels among counted values, all of which have a meaning."""
        if not counts:
            return 0, 0
        meanings = self._meanings(np.array([value for value, _ in counts]))
        pixels = np.array([number for _, number in counts])
        return int(pixels[meanings == 1].sum()), int(pixels[meanings != IGNORE].sum())

    def _meanings(self, values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """0, 1, 255 or ``_UNKNOWN`` for every value."""
        if self.threshold is not None:
            meanings: npt.NDArray[np.uint8] = (values >= self.threshold).astype(np.uint8)
            meanings[values != values] = _UNKNOWN
            return meanings
        meanings = np.full(values.shape, _UNKNOWN, np.uint8)
        meanings[values == self.unchanged] = 0
        meanings[values == self.changed] = 1
        if self.ignore is not None:
            meanings[values == self.ignore] = IGNORE
        return meanings

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
class LabelObservation:
    """What is kept of one label after a check has read it.

    Attributes:
        size: Height and width in pixels.
        kind: What the values are.
        counts: Values and their pixels, most frequent first.
        distinct: Number of different values in the file, which may exceed those in ``counts``.
        palette: Colour of every palette index that occurs; empty unless the kind is ``palette``.
        jpeg: Whether the file is compressed as JPEG.
        notes: What the user should know about the file.
        tally: Changed and valid pixels under the stated decoding; ``None`` when none is stated.
        fault: What contradicts the stated decoding.
    """

    size: tuple[int, int]
    kind: Kind
    counts: tuple[tuple[Value, int], ...]
    distinct: int
    palette: dict[int, tuple[int, ...]]
    jpeg: bool
    notes: tuple[str, ...]
    tally: tuple[int, int] | None = None
    fault: LabelFault | None = None

    def only(self, *values: int) -> bool:
        """Whether the file has no value but these."""
        return self.distinct <= _FEW and all(value in values for value, _ in self.counts)

    def has(self, *values: int) -> bool:
        """Whether the file has few values, these among them."""
        return self.distinct <= _FEW and {*values} <= {value for value, _ in self.counts}


@dataclass
class LabelSummary:
    """The values of all labels of a set, gathered file by file.

    Attributes:
        labels: What is kept of every file; without counts where there are more values than a coding has.
        pixels: Pixels by value, of grey masks and palette indices.
        colours: Pixels by colour in files that are colour images.
    """

    labels: dict[Path, LabelObservation] = field(default_factory=dict)
    pixels: Counter[Value] = field(default_factory=Counter)
    colours: Counter[Value] = field(default_factory=Counter)

    def add(self, path: Path, label: LabelObservation) -> None:
        """Take in one label."""
        if label.kind == "colour":
            self.colours.update(dict(label.counts))
            self.colours = Counter(dict(self.colours.most_common(_KEPT)))
        else:
            self.pixels.update(dict(label.counts))
        # colours are never decoded, and 256 values of every file would fill the memory
        usable = label.kind != "colour" and label.distinct <= _FEW
        self.labels[path] = label if usable else replace(label, counts=())

    def resolve(self) -> tuple[LabelDecoding | None, list[LabelFault]]:
        """The decoding that all labels agree on.

        Returns:
            The decoding, ``None`` when there is none, and what stands in its way.
        """
        colours = [path for path, label in self.labels.items() if label.kind == "colour"]
        inverted = [path for path, label in self.labels.items() if label.kind == "inverted"]
        palettes = [path for path, label in self.labels.items() if label.kind == "palette" and not label.only(0, 1)]
        faults = [
            LabelFault(paths[0], f"{len(paths):,} of {len(self.labels):,} labels {what}", remedy)
            for paths, what, remedy in (
                (colours, f"are colour images: {listed(self.colours.items())}", _ONE_CHANNEL),
                (palettes, *self._unclear_palettes()),
                (
                    inverted,
                    "are palette images where index 0 is white and index 1 black: colour and index contradict each "
                    f"other, {listed(self.pixels.items())}",
                    "say which colour is which: label_values=0,255 (--label-values 0,255) if white is changed, 255,0 "
                    "if black is",
                ),
            )
            if paths
        ]
        values = set(self.pixels)
        if not values or palettes or inverted:
            return None, faults
        if values <= {0, 255} or values == {0, 1}:
            changed = 1 if 1 in values else 255
            return LabelDecoding(0, changed, files=len(self.labels), changed_seen=changed in values), faults
        return None, [*faults, self._ambiguity(values)]

    def _unclear_palettes(self) -> tuple[str, str]:
        palette = {index: colour for label in self.labels.values() for index, colour in label.palette.items()}
        return (
            "are palette images with colours other than black and white and indices other than 0 and 1: "
            f"{listed([(index, self.pixels[index]) for index in palette], palette)}",
            "say which index is which: label_values=UNCHANGED,CHANGED or UNCHANGED,CHANGED,IGNORE (--label-values)",
        )

    def _ambiguity(self, values: set[Value]) -> LabelFault:
        grey = {path: label for path, label in self.labels.items() if label.kind != "colour"}
        odd = [path for path, label in grey.items() if not (label.only(0, 1) or label.only(0, 255))]
        where = f"in {len(odd):,} of {len(grey):,} files, such as {', '.join(path.name for path in odd[:3])}"
        first = next(iter(odd or grey))
        counts = listed(self.pixels.items())
        if values <= {0, 1, 255}:
            return LabelFault(first, *self._ones_and_255(grey, where, counts))
        if (jpegs := sum(label.jpeg for label in grey.values())) or len(values) > _FEW:
            why = f"JPEG compression ({jpegs:,} files)" if jpegs else "antialiasing, or more than one class"
            return LabelFault(
                first,
                f"the labels hold {len(values)} values ({where}), which points to {why}: {counts}",
                "say from which value on a pixel is changed: label_threshold=128 (--label-threshold 128) for masks "
                "made of 0 and 255",
            )
        example = _join(sorted(value for value in values if not isinstance(value, tuple)))
        return LabelFault(
            first,
            f"the labels hold values of unknown meaning ({where}): {counts}",
            f"say which is which: label_values={example} (--label-values {example}) if that is the order UNCHANGED,"
            "CHANGED or UNCHANGED,CHANGED,IGNORE",
        )

    def _ones_and_255(self, grey: dict[Path, LabelObservation], where: str, counts: str) -> tuple[str, str]:
        if set(self.pixels) == {1}:
            return (
                f"every pixel of all {len(grey):,} labels is 1: changed (as in 0/1) or unchanged (as in 1/2)? {counts}",
                "say which: label_values=0,1 (--label-values 0,1) or label_values=1,2",
            )
        settle = (
            "label_values=0,1,255 (--label-values 0,1,255) if 255 is to be ignored, label_threshold=1 "
            "(--label-threshold 1) if 1 and 255 both mean changed"
        )
        if any(label.has(1, 255) for label in grey.values()):
            return f"the labels hold 1 and 255 ({where}): {counts}", settle
        ones, full = ([path for path, label in grey.items() if label.has(value)] for value in (1, 255))
        return (
            f"the labels mix two codings: {len(ones):,} files hold 0/1 (such as {ones[0].name}), {len(full):,} hold "
            f"0/255 (such as {full[0].name}): {counts}",
            "write one coding everywhere, or state it: " + settle,
        )


def _join(values: Iterable[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def count_values(values: npt.NDArray[Any]) -> list[tuple[Value, int]]:
    """Values with their pixels, most frequent first.

    Args:
        values: H x W, or H x W x C for colours.
    """
    pairs: Iterable[tuple[Value, int]]
    if values.ndim == 3:
        colours, numbers = np.unique(values.reshape(-1, values.shape[-1]), axis=0, return_counts=True)
        pairs = zip(map(tuple, colours.tolist()), numbers.tolist(), strict=True)
    elif values.dtype == np.uint8:  # much faster than sorting them
        pairs = ((value, number) for value, number in enumerate(np.bincount(values.ravel()).tolist()) if number)
    else:
        distinct, numbers = np.unique(values, return_counts=True)
        whole = (int(value) if value == value and float(value).is_integer() else value for value in distinct.tolist())
        pairs = zip(whole, numbers.tolist(), strict=True)
    return sorted(pairs, key=lambda pair: -pair[1])


def listed(counts: Iterable[tuple[Value, int]], palette: dict[int, tuple[int, ...]] | None = None) -> str:
    """Values in words, most frequent first, as in ``0 (120 pixels), 255 (3), and 2 more``.

    Args:
        counts: Values with their pixels.
        palette: Colours to show with palette indices.
    """
    ranked = sorted(counts, key=lambda pair: (-pair[1], str(pair[0])))
    pieces: list[str] = []
    for value, number in ranked[:_SHOWN]:
        name = str(value) if isinstance(value, tuple) else f"{value:g}"
        if palette and isinstance(value, int) and value in palette:
            name = f"index {value} = colour {palette[value]}"
        pieces.append(f"{name} ({number:,})" if pieces else f"{name} ({number:,} pixels)")
    return ", ".join(pieces) + (f", and {len(ranked) - _SHOWN:,} more" if len(ranked) > _SHOWN else "")


@dataclass(frozen=True, slots=True)
class _MaskSamples:
    """The samples of a mask file, before anything is made of them.

    Attributes:
        samples: H x W, or H x W x C for colours, without an alpha channel.
        alpha: H x W, the alpha channel, if any.
        palette: Colour of every index, 256 x 3, for a palette image.
        grey: The channel that all others equal, H x W; ``None`` for real colours and palette images.
    """

    samples: npt.NDArray[Any]
    alpha: npt.NDArray[Any] | None
    palette: npt.NDArray[np.uint8] | None
    grey: npt.NDArray[Any] | None

    @classmethod
    def of(cls, decoded: Decoded) -> "_MaskSamples":
        """Take a decoded file apart.

        Raises:
            FileFault: When it has several channels of more than 8 bits, or bands that are no colours.
        """
        samples = decoded.samples
        if decoded.mode == "P" and isinstance(decoded.pixels, Image.Image):
            palette = np.zeros((256, 3), np.uint8)
            colours = (decoded.pixels.getpalette("RGB") or [])[: palette.size]
            palette.reshape(-1)[: len(colours)] = colours
            return cls(samples, None, palette, None)
        if samples.ndim == 2:
            return cls(samples, None, None, samples)
        if decoded.depth > 8 or decoded.mode == BANDS:
            what = f"has {samples.shape[-1]} bands of {decoded.depth} bits per sample"
            raise FileFault(decoded.path, what, _ONE_CHANNEL)
        alpha = None
        if decoded.mode == "RGBX":
            samples = samples[..., :3]
        elif decoded.mode[-1] in "Aa":
            samples, alpha = samples[..., :-1], samples[..., -1]
        equal = decoded.mode in _COLOUR_MODES and (samples == samples[..., :1]).all()
        return cls(samples, alpha, None, np.ascontiguousarray(samples[..., 0]) if equal else None)


def _black_and_white(palette: npt.NDArray[np.uint8], used: npt.NDArray[np.intp]) -> bool:
    colours = palette[used]
    return bool(np.isin(colours, (0, 255)).all() and (colours == colours[:, :1]).all())


def read_values(path: Path, white: int = 255) -> LabelValues:
    """The values of one label file.

    Args:
        path: Path of the file.
        white: Value that the set pixels of a 1-bit image get.

    Raises:
        FileFault: When the file cannot be read.
    """
    decoded = decode(path)
    mask = _MaskSamples.of(decoded)
    kind: Kind = "grey"
    values, palette, notes = mask.grey, {}, decoded.notes
    if mask.palette is not None:
        used = np.flatnonzero(np.bincount(mask.samples.ravel(), minlength=256))
        if _black_and_white(mask.palette, used):  # give the grey value that one sees
            values = mask.palette[:, 0][mask.samples]
            if used.tolist() == [0, 1] and mask.palette[0, 0] > mask.palette[1, 0]:
                kind = "inverted"
        else:
            kind, values = "palette", mask.samples
            palette = {int(index): tuple(mask.palette[index].tolist()) for index in used}
    elif values is None or (mask.alpha is not None and (mask.alpha != 255).any()):
        kind, values = "colour", decoded.samples if mask.alpha is not None else mask.samples
    elif values.dtype == np.bool_:
        values = values * np.uint8(white)
    elif mask.samples.ndim == 3:
        notes = (*notes, f"{decoded.mode} label with equal channels, taken as grey")
    return LabelValues(path, kind, values, palette, decoded.format in _JPEG, notes)


def observe(path: Path, stated: LabelDecoding | None = None) -> LabelObservation:
    """Read one label for a check.

    Args:
        path: Path of the file.
        stated: Decoding that options state.

    Raises:
        FileFault: When the file cannot be read.
    """
    label = read_values(path, stated.white if stated else 255)
    counts = count_values(label.values)
    seen = _observation(label, counts)
    if stated is None:
        return seen
    fault = stated.contradiction(label, counts)
    return replace(seen, tally=(0, 0) if fault else stated.tally(counts), fault=fault)


def _observation(label: LabelValues, counts: Sequence[tuple[Value, int]]) -> LabelObservation:
    height, width = label.values.shape[:2]
    kept = tuple(counts[:_KEPT])
    return LabelObservation((height, width), label.kind, kept, len(counts), label.palette, label.jpeg, label.notes)


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
        decoding: What its values mean, such as ``PairFolder.decoding``; by default as the options state, or else as
            this one file shows.
        label_values: UNCHANGED,CHANGED or UNCHANGED,CHANGED,IGNORE.
        label_threshold: Values at or above it are changed.

    Returns:
        uint8, H x W: 0 unchanged, 1 changed, 255 ignore.

    Raises:
        DataError: When the file cannot be read.
        LabelError: When its values cannot be decoded.
        OptionError: When an option has an unusable value.
    """
    known = decoding or LabelDecoding.of_options(label_values, label_threshold)
    source = Path(path)
    label = read_values(source, known.white if known else 255)
    if known is None:
        summary = LabelSummary()
        summary.add(source, _observation(label, count_values(label.values)))
        known, faults = summary.resolve()
        if known is None:
            raise LabelError("\n".join(map(str, faults)))
    return known.decode(label)


def read_predicted_mask(path: Path) -> npt.NDArray[np.bool_]:
    """Read one mask that another program has predicted: 0 unchanged, one other value changed.

    Of a palette the index counts, of colours any channel, and any value but 0 is changed. A mask that could mean two
    things is refused.

    Returns:
        H x W, where the mask says changed.

    Raises:
        FileFault: When the file cannot be read, or is ambiguous.
    """
    decoded = decode(path)
    mask = _MaskSamples.of(decoded)

    def fault(what: str) -> FileFault:
        return FileFault(path, what, _ONE_CHANNEL)

    changed: npt.NDArray[np.bool_]
    if mask.palette is not None:
        changed = mask.samples != 0
        used = np.unique(mask.samples)
        shown = mask.palette[used, 0] > 0
        if _black_and_white(mask.palette, used) and shown.any() and (shown != (used != 0)).any():
            raise fault("is a palette image in which 0 is drawn white, or another index black")
        return changed
    if decoded.format in _JPEG and (number := len(np.unique(mask.samples))) > 2:
        raise fault(f"holds {number} values, as JPEG compression blurs 0 and others")
    if mask.grey is not None:
        changed = mask.grey != 0
        others = mask.grey[changed]
        if np.isnan(others).any():
            raise fault("holds NaN, which is neither changed nor unchanged")
        if others.size and (least := others.min()) != (most := others.max()):
            among = "" if changed.all() else " and 0"
            raise fault(f"holds values from {least:g} to {most:g}{among}, as probabilities or class numbers do")
    elif decoded.mode in _COLOUR_MODES:
        changed = (mask.samples != 0).any(axis=-1)
    else:
        raise fault(f"is a {decoded.mode} image")
    if mask.alpha is not None and mask.alpha.min() != mask.alpha.max() and ((mask.alpha > 0) != changed).any():
        raise fault("is an image in which transparency and colours mark different pixels as changed")
    return changed
