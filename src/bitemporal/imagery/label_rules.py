"""What the values of change masks mean: the options that state it, and the rule that follows from them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bitemporal.errors import OptionError
from bitemporal.imagery.masks import IGNORE

UNKNOWN = 254
"""Among 0, 1 and 255: a value without a meaning."""

RULES = ("label_values", "changed", "changed_colours", "unchanged_colours", "label_threshold")
"""Options that each state a whole rule; at most one of them is given."""

Counts = Sequence[tuple[float, int]]
"""Values, or packed colours, with their pixels."""


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Labels.

    Attributes:
        label_values: Values of unchanged, changed and, if any, ignored pixels, as in 1,2 or 0,1,255; any other value
            is a fault.
        changed: Values, or palette indices, of changed pixels, as in 1,2,3,4; every other value is unchanged.
        changed_colours: Colours of changed pixels, three numbers each, as in 255,0,0; every other colour is unchanged.
        unchanged_colours: Colours of unchanged pixels, three numbers each, as in 255,255,255; every other colour is
            changed.
        label_threshold: Label values at or above this are changed, values below unchanged.
        label_ignore: Values of pixels to ignore, as in 255 or -9999 or nan.
        label_band: The band that holds the mask, counted from 1, of labels with several bands.
    """

    label_values: tuple[int, ...] | None = None
    changed: tuple[int, ...] | None = None
    changed_colours: tuple[int, ...] | None = None
    unchanged_colours: tuple[int, ...] | None = None
    label_threshold: float | None = None
    label_ignore: tuple[float, ...] | None = None
    label_band: int | None = None

    def decoding(self) -> "LabelDecoding":
        """What the options state; its source is ``found`` where a rule is still to be found in the files.

        Raises:
            OptionError: When options contradict each other, or one has an unusable value.
        """
        rules = self._rules()
        self._check(rules)
        ignore = self.label_ignore or ()
        more: dict[str, Any] = {"band": self.label_band, "source": rules[0] if rules else "found"}
        if self.label_values is not None:
            unchanged, changed, *ignored = self.label_values
            return LabelDecoding((unchanged,), (changed,), (*ignored, *ignore), **more)
        if self.changed is not None:
            return LabelDecoding(None, self.changed, ignore, **more)
        if self.changed_colours is not None:
            return LabelDecoding(None, packed_colours(self.changed_colours), colours=True, **more)
        if self.unchanged_colours is not None:
            return LabelDecoding(packed_colours(self.unchanged_colours), None, colours=True, **more)
        if self.label_threshold is not None:
            return LabelDecoding(None, None, ignore, threshold=float(self.label_threshold), **more)
        return LabelDecoding(ignore=ignore, **more)

    def stated(self) -> dict[str, Any]:
        """The options that are given, by name."""
        return {field.name: value for field in fields(LabelOptions) if (value := getattr(self, field.name)) is not None}

    def refuse(self, why: str, names: Sequence[str] | None = None) -> None:
        """Refuse options that nothing would read.

        Args:
            why: Why they do not apply.
            names: The options; by default all of those that say something about labels.

        Raises:
            OptionError: Naming those that are given.
        """
        names = [field.name for field in fields(LabelOptions)] if names is None else names
        given = [name for name in names if getattr(self, name) is not None]
        if given:
            options = " and ".join(f"--{name.replace('_', '-')}" for name in given)
            verb = "does" if len(given) == 1 else "do"
            raise OptionError(f"{', '.join(given)}: {verb} not apply, as {why}; leave {options} out")

    def _rules(self) -> list[str]:
        return [name for name in RULES if getattr(self, name) is not None]

    def _check(self, rules: list[str]) -> None:
        if len(rules) > 1:
            both = " and ".join(f"{name}={self._shown(name)}" for name in rules)
            raise OptionError(f"{both} are {'both' if len(rules) == 2 else 'all'} given; expected at most one of them")
        values, threshold = self.label_values, self.label_threshold
        if threshold is not None and not np.isfinite(threshold):
            raise OptionError(f"label_threshold: found {threshold}, expected a finite number, for example 128")
        if values is not None and (len(values) not in (2, 3) or len({*values}) != len(values)):
            raise OptionError(
                f"label_values: found {self._shown('label_values')}, expected two or three different values "
                "UNCHANGED,CHANGED or UNCHANGED,CHANGED,IGNORE, for example 0,255"
            )
        if self.changed is not None and not self.changed:
            raise OptionError("changed: found no value, expected one or more, for example 1,2")
        if self.label_band is not None and self.label_band < 1:
            raise OptionError(f"label_band: found {self.label_band}, expected the number of a band, from 1")
        for name in ("changed_colours", "unchanged_colours"):
            colours = getattr(self, name)
            if colours is None:
                continue
            if not colours or len(colours) % 3 or not all(0 <= part <= 255 for part in colours):
                raise OptionError(
                    f"{name}: found {self._shown(name)}, expected three numbers from 0 to 255 for each colour, for "
                    "example 255,255,255"
                )
            for other in ("label_band", "label_ignore"):
                if getattr(self, other) is not None:
                    raise OptionError(f"{other}: does not apply to colours ({name}); leave one of the two out")
        if twice := {*(values or ()), *(self.changed or ())} & {*(self.label_ignore or ())}:
            raise OptionError(
                f"label_ignore: found {_join(twice)}, which {rules[0]} has as well; remove it from one of them"
            )

    def _shown(self, name: str) -> str:
        value = getattr(self, name)
        return _join(value) if isinstance(value, tuple) else f"{value:g}"


@dataclass(frozen=True)
class LabelDecoding:
    """What the values of change masks mean.

    Attributes:
        unchanged: Values of unchanged pixels; ``None`` for all that have no other meaning.
        changed: Values of changed pixels; ``None`` for all that have no other meaning.
        ignore: Values of pixels that count nowhere.
        threshold: When set, ``unchanged`` and ``changed`` do not apply: a value at or above it is changed, below it
            unchanged.
        colours: Whether values are packed colours, 65536 red + 256 green + blue.
        differing: Whether each label is two masks, and a pixel is changed where they differ.
        band: The band of the files that is read, from 1; ``None`` where they have one.
        source: Whether it was found in the files; else the name of the option that states it.
        files: Number of files that it was found in or checked against.
        changed_seen: Whether any of them has a changed pixel.
        seen: The values of these files in words, with the colours of palettes; their range, where they are many.
    """

    unchanged: tuple[float, ...] | None = (0,)
    changed: tuple[float, ...] | None = (255,)
    ignore: tuple[float, ...] = ()
    threshold: float | None = None
    colours: bool = False
    differing: bool = False
    band: int | None = None
    source: str = "found"
    files: int = 0
    changed_seen: bool = True
    seen: tuple[str, ...] = field(default=(), compare=False)

    @property
    def white(self) -> int:
        """Value of the set pixels of a 1-bit mask: 255, or 1 where the stated values do not have 255."""
        if self.threshold is not None or self.colours or self.differing:
            return 255
        return 255 if 255 in (*(self.unchanged or ()), *(self.changed or ())) else 1

    def meanings(self, values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """0, 1, 255 or ``UNKNOWN`` for every value."""
        if self.threshold is not None:
            meanings: npt.NDArray[np.uint8] = (values >= self.threshold).astype(np.uint8)
            meanings[values != values] = UNKNOWN
        else:
            others = 0 if self.unchanged is None else 1 if self.changed is None else UNKNOWN
            meanings = np.full(values.shape, others, np.uint8)
        for meaning, stated in ((0, self.unchanged), (1, self.changed), (IGNORE, self.ignore)):
            for value in stated or ():
                meanings[values == value if value == value else values != values] = meaning
        return meanings

    def names(self, value: float) -> bool:
        """Whether a rule that is stated names a value, so that it counts although a file calls it no data."""
        return self.source != "found" and value in (*(self.unchanged or ()), *(self.changed or ()))

    def tally(self, counts: Counts) -> tuple[int, int]:
        """Changed and valid pixels among counted values, all of which have a meaning."""
        if not counts:
            return 0, 0
        meanings = self.meanings(np.array([value for value, _ in counts]))
        pixels = np.array([number for _, number in counts])
        return int(pixels[meanings == 1].sum()), int(pixels[meanings != IGNORE].sum())

    def of_dates(self) -> "LabelDecoding":
        """The decoding of labels that are two masks, one of each date; band and ignored values stay.

        Raises:
            OptionError: When a rule for one mask is stated.
        """
        if self.source != "found":
            raise OptionError(
                f"{self.source}: says what the values of one mask mean, but each pair has two, one of each date, and a "
                f"pixel is changed where they differ; leave {self.source} out"
            )
        return replace(self, unchanged=None, changed=None, differing=True)

    def rule(self) -> str:
        """The decoding in one clause, as in ``0 = unchanged, 255 = changed``."""
        if self.differing:
            clauses = ["changed where the masks of both dates differ"]
        elif self.threshold is not None:
            clauses = [f"below {self.threshold:g} = unchanged", f"{self.threshold:g} and above = changed"]
        else:
            clauses = [
                f"{self._named(values)} = {meaning}"
                for values, meaning in ((self.unchanged, "unchanged"), (self.changed, "changed"))
                if values is not None
            ]
            if self.unchanged is None or self.changed is None:
                clauses.append(f"all others {'unchanged' if self.unchanged is None else 'changed'}")
        if self.ignore:
            clauses.append(f"{self._named(self.ignore)} = ignored")
        return f"{'' if self.band is None else f'band {self.band}: '}{', '.join(clauses)}"

    def _named(self, values: tuple[float, ...]) -> str:
        named = [f"colour {unpacked(int(value))}" if self.colours else f"{value:g}" for value in values]
        return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} or {named[-1]}"

    def describe(self) -> str:
        """The decoding in one line, as in ``labels: 0 = unchanged, 255 = changed (found in 532 files)``."""
        files = f"{self.files:,} {'file' if self.files == 1 else 'files'}"
        if self.source != "found":
            return f"labels: {self.rule()} (by {self.source}; {files})"
        if not self.changed_seen:
            return f"labels: {self._named(self.unchanged or ())} = unchanged, and nothing else (found in {files})"
        return f"labels: {self.rule()} (found in {files})"


def packed_colours(numbers: Sequence[int]) -> tuple[int, ...]:
    """Colours of three numbers each as one number each: 65536 red + 256 green + blue."""
    return tuple(
        65536 * red + 256 * green + blue
        for red, green, blue in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
    )


def unpacked(colour: int) -> tuple[int, int, int]:
    """Red, green and blue of a packed colour."""
    return colour >> 16, colour >> 8 & 255, colour & 255


def _join(values: Iterable[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
