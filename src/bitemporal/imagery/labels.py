"""Change masks of a data set on disk, decoded to 0 / 1 / 255.

What the values of labels mean is found from all files of a set together (``LabelSummary``), or stated by options
(``LabelOptions`` in ``label_rules.py``). Pixels to ignore are never found, only stated: on the disk 255 usually means
changed, in a decoded mask 255 means ignored.
"""

import math
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bitemporal.errors import LabelError
from bitemporal.imagery.label_files import (
    KEPT,
    Kind,
    LabelFault,
    LabelValues,
    count_values,
    listed,
    read_difference,
    read_label,
)
from bitemporal.imagery.label_proposals import (
    BLACK,
    CLASSES,
    INVERTED,
    WHITE,
    Reading,
    proposed,
    readings_of_bands,
    readings_of_colours,
    readings_of_values,
)
from bitemporal.imagery.label_rules import UNKNOWN, Counts, LabelDecoding, LabelOptions, unpacked
from bitemporal.imagery.masks import IGNORE

_FEW = 3  # a coding has at most three values: unchanged, changed, ignored
_TOLD = 8  # values of one file that are kept, to count them once it is known what they mean
_NUMBERS = 31  # bands that hold no more than this hold class numbers, not colours
_EDGE = 32  # how far compression moves a value
_SHARE_IN_MASKS = 0.8  # of the pixels of a mask, those near black or white at least; a photograph has fewer
_NAN_DIFFERS = "holds NaN, which neither equals nor differs from another value"
_IGNORE_NAN = "leave such pixels out: label_ignore=(float('nan'),) (--label-ignore nan)"


@dataclass(frozen=True, slots=True)
class LabelObservation:
    """What is kept of one label after a check has read it.

    Attributes:
        size: Height and width in pixels.
        kind: What the values are; ``difference`` for two masks, one of each date.
        counts: Values and their pixels, most frequent first.
        distinct: Number of different values in the file, which may exceed those in ``counts``.
        palette: Packed colour of every palette index that occurs; empty unless the kind is ``palette``.
        bands: Values of each band with their pixels, where there are several that differ.
        jpeg: Whether the file is compressed as JPEG, JPEG 2000 or WebP.
        notes: What the user should know about the file.
        tally: Changed and valid pixels under the stated decoding; ``None`` when none is stated.
        contradiction: What contradicts the stated decoding, in words.
        no_data: What the file calls no data, with its pixels, where it has any.
    """

    size: tuple[int, int]
    kind: Kind | Literal["difference"]
    counts: tuple[tuple[float, int], ...] = ()
    distinct: int = 0
    palette: dict[int, int] = field(default_factory=dict)
    bands: tuple[Counts, ...] = ()
    jpeg: bool = False
    notes: tuple[str, ...] = ()
    tally: tuple[int, int] | None = None
    contradiction: str | None = None
    no_data: tuple[float, int] | None = None

    def only(self, *values: int) -> bool:
        """Whether the file has no value but these."""
        return self.distinct <= _FEW and all(value in values for value, _ in self.counts)

    def has(self, *values: int) -> bool:
        """Whether the file has few values, these among them."""
        return self.distinct <= _FEW and {*values} <= {value for value, _ in self.counts}

    @property
    def colours(self) -> Counts:
        """The counts by packed colour, as far as the values are colours or shades of 8 bits."""
        if self.kind == "colour":
            return self.counts
        if self.kind == "palette":
            return [(self.palette[int(index)], number) for index, number in self.counts]
        return [(int(value) * 0x010101, number) for value, number in self.counts if value in range(256)]


@dataclass
class LabelSummary:
    """The values of all labels of a set, gathered file by file.

    Attributes:
        stated: What is stated about the labels.
        labels: What is kept of every file; without counts where there are more values than a coding has.
        pixels: Pixels by value, of grey masks and palette indices.
        colours: Pixels by packed colour, of all files.
        bands: Pixels by value of each band, of files that are colour images or have several bands.
        palettes: Packed colours of every palette index.
        no_data: Pixels that files call no data, by their value.
    """

    stated: LabelDecoding
    labels: dict[Path, LabelObservation] = field(default_factory=dict)
    pixels: Counter[float] = field(default_factory=Counter)
    colours: Counter[float] = field(default_factory=Counter)
    bands: list[Counter[float]] = field(default_factory=list)
    palettes: dict[int, set[int]] = field(default_factory=dict)
    no_data: Counter[float] = field(default_factory=Counter)

    def add(self, path: Path, label: LabelObservation) -> None:
        """Take in one label."""
        if label.kind not in ("colour", "bands"):
            for value, number in label.counts:
                self.pixels[math.nan if value != value else value] += number  # one NaN, though none equals another
        if label.no_data is not None:
            self.no_data[label.no_data[0]] += label.no_data[1]
        for colour, number in label.colours:
            self.colours[colour] += number
        if len(self.colours) > 2 * KEPT:
            self.colours = Counter(dict(self.colours.most_common(KEPT)))
        self.bands += [Counter() for _ in label.bands[len(self.bands) :]]
        for band, counts in zip(self.bands, label.bands, strict=False):
            band.update(dict(counts))
        for index, colour in label.palette.items():
            self.palettes.setdefault(index, set()).add(colour)
        # colours are counted when they are stated; many values of every file would fill the memory
        usable = label.kind not in ("colour", "bands") and label.distinct <= _TOLD
        self.labels[path] = replace(label, counts=label.counts if usable else (), bands=())

    def tally(self, path: Path | None, decoding: LabelDecoding | None) -> tuple[int, int]:
        """Changed and valid pixels of one file; none where they cannot be known."""
        label = self.labels.get(path) if path else None
        if label is None or decoding is None:
            return 0, 0
        return label.tally or decoding.tally(label.colours if decoding.colours else label.counts)

    def doubt(self, decoding: LabelDecoding | None, changed: int, valid: int) -> str | None:
        """Why labels may mean something else, with the rules that say so; ``None`` without a doubt.

        A stated rule may leave one answer only, and a rule that was found may be the wrong way round.

        Args:
            decoding: What ``resolve`` gives.
            changed: Changed pixels of all labels.
            valid: Valid pixels of all labels.
        """
        if decoding is not None and decoding.source == "found" and not decoding.differing:
            return _wrong_way_round(decoding, changed / valid) if 2 * changed > valid else None
        values = self.colours if self.stated.colours else self.pixels
        if self.stated.source == "found" or len(values) < 2 or changed not in (0, valid):
            return None
        what = "no pixel" if changed == 0 else "every valid pixel"
        held = listed(values.items(), colours=self.stated.colours)
        return f"by {self.stated.source}, {what} is changed, and all labels hold {held}; {self._remedy('grey')}"

    def resolve(self) -> tuple[LabelDecoding | None, list[LabelFault]]:
        """The decoding that is stated, or else the one that all labels agree on.

        Returns:
            The decoding, ``None`` when there is none, and what stands in its way.
        """
        decoding, faults = self._resolved()
        return None if decoding is None else replace(decoding, seen=self._seen()), faults

    def _seen(self) -> tuple[str, ...]:
        """What the files hold, in words."""
        if self._of("difference"):
            return ("two masks",)
        if self.stated.colours:
            words = [str(unpacked(int(colour))) for colour in sorted(self.colours)]
        else:
            values = sorted(self.pixels, key=lambda value: (value != value, value))
            colours = [sorted(self.palettes.get(int(value), ())) if math.isfinite(value) else [] for value in values]
            words = [
                " ".join([f"{value:g}", *(str(unpacked(colour)) for colour in own)])
                for value, own in zip(values, colours, strict=True)
            ]
        return tuple(words) if len(words) <= CLASSES else (f"{words[0]} to {words[-1]}",)

    def _resolved(self) -> tuple[LabelDecoding | None, list[LabelFault]]:
        of_dates = self._of("difference")
        if of_dates and len(of_dates) < len(self.labels):
            what = f"{len(of_dates):,} of {len(self.labels):,} labels are two masks, one of each date, the others one"
            return None, [LabelFault(of_dates[0], what, "keep pairs of either kind in a folder of their own")]
        if not of_dates and self.stated.source == "found":
            return self._found()
        stated = self.stated.of_dates() if of_dates else self.stated
        faults = [
            LabelFault(path, label.contradiction, self._remedy(label.kind))
            for path, label in self.labels.items()
            if label.contradiction
        ]
        return replace(stated, files=len(self.labels) - len(faults)), faults

    def _of(self, *kinds: str) -> list[Path]:
        return [path for path, label in self.labels.items() if label.kind in kinds]

    def _found(self) -> tuple[LabelDecoding | None, list[LabelFault]]:
        colours, bands, inverted = self._of("colour"), self._of("bands"), self._of("inverted")
        palettes = self._of("palette")
        if (
            palettes
            and not (colours or bands or inverted)
            and {*self.colours} <= {BLACK, WHITE}
            and not self.stated.ignore
        ):
            decoding = LabelDecoding((BLACK,), (WHITE,), colours=True, files=len(self.labels))
            return replace(decoding, changed_seen=WHITE in self.colours), []
        if {*self.palettes} <= {0, 1} and all(len(of_index) == 1 for of_index in self.palettes.values()):
            palettes = []  # 1 is changed, whatever its colour
        faults = [
            LabelFault(paths[0], f"{len(paths):,} of {len(self.labels):,} labels {what}", self._remedy(kind))
            for kind, paths, what in (
                ("colour", colours, f"are colour images: {listed(self.colours.items(), colours=True)}"),
                ("bands", bands, f"have several bands: {self._listed_bands()}"),
                ("palette", palettes, f"are palette images {self._listed_palette()}"),
                (
                    "inverted",
                    inverted,
                    "are palette images where index 0 is white and index 1 black: colour and index contradict each "
                    f"other, {listed(self.pixels.items())}",
                ),
            )
            if paths
        ]
        meanings = self.stated.meanings(np.array([*self.pixels]))
        values = {value for value, meaning in zip(self.pixels, meanings, strict=True) if meaning != IGNORE}
        others = len(colours) + len(bands)
        few = len(values) < 2 or 2 * others > len(self.labels)  # white alone, among colours, says nothing
        if palettes or inverted or (others and few) or not (values or self.pixels or self.no_data):
            return None, faults
        if not values:  # all pixels are ignored
            return replace(self.stated, files=len(self.labels), changed_seen=False), faults
        if len(values) == 1 and (doubtful := {*self.no_data} & {0, 1, 255} - {*self.stated.ignore}):
            return None, [*faults, self._no_data_or_not(min(doubtful), *values)]
        if values <= {0, 255} or values == {0, 1}:
            changed = 1 if 1 in values else 255
            decoded = len(self.labels) - others
            found = replace(self.stated, changed=(changed,), files=decoded, changed_seen=changed in values)
            return found, faults
        return None, [*faults, self._ambiguity(values)]

    def _no_data_or_not(self, nodata: float, value: float) -> LabelFault:
        """The fault of labels that hold one value, and another one that they call no data."""
        path = next(path for path, label in self.labels.items() if label.no_data and label.no_data[0] == nodata)
        what = (
            f"the labels hold {value:g} ({self.pixels[value]:,} pixels), and {nodata:g} ({self.no_data[nodata]:,}), "
            "which this file declares as no data"
        )
        readings: list[Reading] = [({"label_ignore": (nodata,)}, f"if {nodata:g} is no data")] if value != 1 else []
        readings += readings_of_values({value: self.pixels[value], nodata: self.no_data[nodata]}, self.stated.ignore)
        return LabelFault(path, what, proposed(readings, self.stated))

    def _ambiguity(self, values: set[float]) -> LabelFault:
        grey = {path: label for path, label in self.labels.items() if label.kind not in ("colour", "bands")}
        odd = [path for path, label in grey.items() if not (label.only(0, 1) or label.only(0, 255))]
        where = f"in {len(odd):,} of {len(grey):,} files, such as {', '.join(path.name for path in odd[:3])}"
        counts, remedy = listed(self.pixels.items()), self._remedy("grey")
        if values == {1}:
            what = f"every pixel of all {len(grey):,} labels is 1: changed (as in 0/1) or unchanged (as in 1/2)?"
        elif values <= {0, 1, 255} and not any(label.jpeg for label in grey.values()):
            what = f"the labels hold 1 and 255 ({where}):"
            if not any(label.has(1, 255) for label in grey.values()):
                ones, full = ([path for path, label in grey.items() if label.has(value)] for value in (1, 255))
                what = (
                    f"the labels mix two codings: {len(ones):,} files hold 0/1 (such as {ones[0].name}), {len(full):,} "
                    f"hold 0/255 (such as {full[0].name}):"
                )
                remedy = f"write one coding everywhere, or {remedy}"
        elif (jpegs := sum(label.jpeg for label in grey.values())) or len(values) > _FEW:
            blurred = f"JPEG, JPEG 2000 or WebP compression ({jpegs:,} files)"
            why = blurred if jpegs else "antialiasing, or more than one class"
            what = f"the labels hold {len(values)} values ({where}), which suggests {why}:"
        else:
            what = f"the labels hold values of unknown meaning ({where}):"
        return LabelFault(next(iter(odd or grey)), f"{what} {counts}", remedy)

    def _remedy(self, kind: str) -> str:
        """The options that would settle files of one kind, in view of all files."""
        if kind == "difference":
            return _IGNORE_NAN
        of_channels = self._channel_readings() if self._of("colour", "bands") else []
        if of_channels or kind in ("colour", "bands"):
            return proposed(of_channels, self.stated)
        if kind == "inverted" and {*self.pixels} == {0, 255}:
            return proposed(INVERTED, self.stated)
        ignored = self.stated.ignore
        consistent = all(len(of_index) == 1 for of_index in self.palettes.values())
        if not self.palettes:
            blurred = any(label.jpeg for label in self.labels.values())
            return proposed(readings_of_values(self.pixels, ignored, blurred=blurred), self.stated)
        by_index = readings_of_values(self.pixels, ignored, indices=True) if consistent else []
        return proposed(by_index or readings_of_colours(self.colours), self.stated)

    def _channel_readings(self) -> list[Reading]:
        """Readings of colours, or of one band where bands hold numbers, transparency or what compression left."""
        every, ignored = range(1, len(self.bands) + 1), self.stated.ignore
        if not self.bands:  # they are not counted where colours are stated
            return readings_of_colours(self.colours)
        if self._of("bands") or all(value <= _NUMBERS for band in self.bands for value in band):
            return readings_of_bands(self.bands, every, ignored)
        if len(self.colours) > CLASSES:  # blurred, or a photograph
            clearest = max(every, key=lambda number: _share_of_extremes(self.bands[number - 1]))
            is_mask = _share_of_extremes(self.bands[clearest - 1]) > _SHARE_IN_MASKS
            return readings_of_bands(self.bands, [clearest], ignored, blurred=True) if is_mask else []
        alpha = [number for number in every if number in (2, 4)][-1:] if len(self.bands) in (2, 4) else []
        return readings_of_colours(self.colours) + readings_of_bands(self.bands, alpha, ignored)

    def _listed_palette(self) -> str:
        if all(len(colours) == 1 for colours in self.palettes.values()):
            palette = {index: colour for index, (colour,) in self.palettes.items()}
            indices = listed([(index, self.pixels[index]) for index in palette], palette)
            return f"with other indices than 0 and 1: {indices}"
        return f"whose indices have different colours from file to file: {listed(self.colours.items(), colours=True)}"

    def _listed_bands(self) -> str:
        return "; ".join(f"band {number}: {listed(band.items())}" for number, band in enumerate(self.bands, 1))


def _wrong_way_round(decoding: LabelDecoding, share: float) -> str:
    """What to say of labels by which most pixels are changed, in words."""
    (changed,), (unchanged,) = decoding.changed or (255,), decoding.unchanged or (0,)
    options: dict[str, Any] = {"label_values": (changed, unchanged)}
    if decoding.colours:
        options = {"changed_colours": unpacked(int(unchanged))}
    if decoding.ignore:
        options["label_ignore"] = decoding.ignore
    if decoding.band is not None:
        options["label_band"] = decoding.band
    condition = f"if {'black' if decoding.colours else format(unchanged, 'g')} is changed, as in inverted masks"
    return f"by all labels, {share:.0%} of the valid pixels are changed; {proposed([(options, condition)], decoding)}"


def _share_of_extremes(band: Counter[float]) -> float:
    """Share of a band's pixels that compression can have made of black and white; 0 without both."""
    if min(band) > _EDGE or max(band) < 255 - _EDGE:
        return 0.0
    extreme = sum(pixels for value, pixels in band.items() if not _EDGE < value < 255 - _EDGE)
    return extreme / band.total()


def observe(path: Path, after: Path | None, stated: LabelDecoding) -> LabelObservation:
    """Read one label for a check.

    Args:
        path: The mask; that of the date before, where there are two.
        after: The mask of the date after, where there are two.
        stated: What the options state.

    Raises:
        FileFault: When a file cannot be read.
    """
    if after is not None:
        decoding = stated.of_dates()
        mask, notes = read_difference(path, after, decoding)
        counts = count_values(mask)
        unknown = _NAN_DIFFERS if (mask == UNKNOWN).any() else None
        height, width = mask.shape
        tally = dict(counts).get(1, 0), mask.size - dict(counts).get(255, 0)
        return LabelObservation((height, width), "difference", notes=notes, tally=tally, contradiction=unknown)
    return _observed(read_label(path, stated), stated)


def _observed(label: LabelValues, stated: LabelDecoding) -> LabelObservation:
    counts = count_values(label.known_values())
    height, width = label.values.shape
    unknown = 0 if label.unknown is None else int(label.unknown.sum())
    seen = LabelObservation(
        size=(height, width),
        kind=label.kind,
        counts=_kept(counts),
        distinct=len(counts),
        palette={index: colour for index, colour in label.palette.items() if index in dict(counts)},
        bands=label.bands,
        jpeg=label.jpeg,
        notes=label.notes,
        no_data=None if label.nodata is None else (label.nodata, unknown),
    )
    if stated.source == "found":
        return seen
    contradiction = _contradiction(label, counts, stated)
    return replace(seen, tally=(0, 0) if contradiction else stated.tally(counts), contradiction=contradiction)


def _kept(counts: Counts) -> tuple[tuple[float, int], ...]:
    """The most frequent values, and the least and the greatest one, between which a threshold may lie."""
    if len(counts) <= KEPT:
        return tuple(counts)
    numbers = [pair for pair in counts if pair[0] == pair[0]]
    least, greatest = min(numbers), max(numbers)
    most = tuple(counts[: KEPT - 2])
    return (*most, *(pair for pair in (least, greatest) if pair not in most))


def _readable(label: LabelValues, decoding: LabelDecoding) -> bool:
    """Whether the values of a file are of the kind that a decoding is about."""
    if decoding.colours or label.kind in ("colour", "bands"):
        return decoding.colours and label.kind == "colour"
    return label.kind != "palette" or decoding.threshold is None


def _contradiction(label: LabelValues, counts: Counts, decoding: LabelDecoding) -> str | None:
    """What keeps one file from being decoded as stated, in words; ``None`` when nothing does."""
    if not _readable(label, decoding):
        if label.kind == "palette":
            return f"is a palette image, and a threshold does not apply to indices: {listed(counts, label.palette)}"
        if label.kind == "colour":
            return f"is a colour image: {listed(counts, colours=True)}"
        return f"has {len(label.bands)} bands" if label.kind == "bands" else "has no colours of 8 bits"
    meanings = decoding.meanings(np.array([value for value, _ in counts]))
    strange = [pair for pair, meaning in zip(counts, meanings, strict=True) if meaning == UNKNOWN]
    return f"holds {listed(strange, label.palette)}, but {decoding.rule()}" if strange else None


def read_mask(
    path: str | os.PathLike[str],
    decoding: LabelDecoding | None = None,
    *,
    label_after: str | os.PathLike[str] | None = None,
    **options: Any,  # noqa: ANN401  the fields of LabelOptions, each with its own type
) -> npt.NDArray[np.uint8]:
    """Read one change mask.

    Args:
        path: A png, jpg, bmp, tif or webp file.
        decoding: What its values mean, such as ``PairFolder.decoding``; by default as the options state, or else as
            this one file shows.
        label_after: Where the label is two masks, one of each date: that of the date after. A pixel is changed where
            they differ.
        **options: Fields of ``LabelOptions``, such as ``label_values=(1, 2)``.

    Returns:
        uint8, H x W: 0 unchanged, 1 changed, 255 ignore.

    Raises:
        DataError: When the file cannot be read.
        LabelError: When its values cannot be decoded.
        OptionError: When an option has an unusable value.
    """
    known = decoding or LabelOptions(**options).decoding()
    source = Path(path)
    if label_after is not None:
        mask, _ = read_difference(source, Path(label_after), known if known.differing else known.of_dates())
        if (mask == UNKNOWN).any():
            raise LabelFault(source, _NAN_DIFFERS, _IGNORE_NAN)
        return mask
    label = read_label(source, known)
    if decoding is None and known.source == "found":
        summary = _summary_of(label, known)
        found, faults = summary.resolve()
        if found is None:
            raise LabelError("\n".join(map(str, faults)))
        known = found
    mask = label.meanings(known)
    if not _readable(label, known) or (mask == UNKNOWN).any():
        contradiction = _contradiction(label, count_values(label.known_values()), known) or ""
        raise LabelFault(source, contradiction, _summary_of(label, known)._remedy(label.kind))
    return mask


def _summary_of(label: LabelValues, stated: LabelDecoding) -> "LabelSummary":
    summary = LabelSummary(stated)
    summary.add(label.path, _observed(label, stated))
    return summary
