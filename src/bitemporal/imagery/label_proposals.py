"""Options that would settle what label values mean: every plausible reading of the values found.

A reading under which no pixel, or every pixel, is changed is not proposed; only where all labels hold one and the same
value are there no others.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bitemporal.imagery.label_rules import UNKNOWN, LabelDecoding, LabelOptions, unpacked
from bitemporal.imagery.masks import ONE_CHANNEL

Reading = tuple[dict[str, Any], str]
"""Options, and the condition under which they are right, as in ``if 2 is changed``."""

CLASSES = 32
"""Most classes, or colours, of a mask of classes; more are shades, or a photograph."""

_MOST = 4
"""Readings that a text lists."""

BLACK, WHITE = 0, 0xFFFFFF
"""Packed colours."""

INVERTED: tuple[Reading, ...] = (
    ({"label_values": (0, 255)}, "if white is changed"),
    ({"label_values": (255, 0)}, "if black is changed"),
)
"""Readings of palettes in which index 0 is white and index 1 black."""

PLAIN = ({0, 1}, {0, 255})
"""Codings that need no option."""


def proposed(readings: Sequence[Reading], stated: LabelDecoding) -> str:
    """Readings as a remedy: each with its keywords of Python and its options of the command line.

    Args:
        readings: The readings.
        stated: What is stated already; a rule has to go.
    """
    alternatives = []
    for options, condition in readings[:_MOST]:
        keywords = ", ".join(f"{name}={_literal(value)}" for name, value in options.items())
        alternatives.append(f"{keywords} ({as_words(options)}) {condition}")
    if not alternatives:
        return ONE_CHANNEL
    replaced = [] if stated.source == "found" else [stated.source]
    if stated.ignore and any("unchanged_colours" in options for options, _ in readings):
        replaced.append("label_ignore")
    instead = "".join(f"instead of {name} (--{name.replace('_', '-')}), " for name in replaced)
    return f"{instead}say what the values mean: {', or '.join(alternatives)}"


def as_words(options: Mapping[str, Any]) -> str:
    """Options about labels as they are typed on the command line."""
    return " ".join(f"--{name.replace('_', '-')} {_typed(value)}" for name, value in options.items())


def readings_of_values(
    counts: Mapping[float, int], ignored: tuple[float, ...], indices: bool = False, blurred: bool = False
) -> list[Reading]:
    """Readings of grey values or palette indices.

    Args:
        counts: Pixels of all labels by value.
        ignored: Values that are stated to be ignored.
        indices: Whether the values are indices, so that more is not lighter.
        blurred: Whether compression has changed values.
    """
    values = sorted(value for value in counts if value == value and value not in ignored)
    nodata = [value for value in values if value < 0] if values and values[-1] >= 0 else []
    nodata += [value for value in values if value == math.inf]
    rest = [value for value in values if value not in nodata]
    if any(math.isnan(value) for value in counts) and not any(map(math.isnan, ignored)):
        nodata.append(math.nan)
    if not nodata:
        if len(rest) == 1:
            return list(_one_value(rest[0]))
        return _tenable(_readings(rest, indices, blurred), counts, ignored)
    names = _series(nodata)
    plain = any({*rest} <= coding for coding in PLAIN)
    without = [({}, "")] if plain else list(_readings(rest, indices, blurred))
    readings = [
        (options | {"label_ignore": (*nodata,)}, f"if {names} is no data" + condition.replace("if ", ", ", 1))
        for options, condition in without
    ]
    if len(values) == 2 and len(rest) == 1:
        readings += _readings(values, indices, blurred)
    elif len(values) <= CLASSES and all(float(value).is_integer() for value in rest):
        positive = tuple(value for value in rest if value > 0)
        others = tuple(value for value in values if value != 0 and math.isfinite(value))
        if positive:
            readings.append(({"changed": positive}, f"if {_series(positive)} is changed and {names} is not"))
        if others != positive and values[0] > -CLASSES:
            readings.append(({"changed": others}, f"if {_series(others)} is changed"))
    return _tenable(readings, counts, ignored)


def readings_of_colours(counts: Mapping[float, int]) -> list[Reading]:
    """Readings of packed colours: black, white or else the most frequent one is unchanged.

    Args:
        counts: Pixels of all labels by colour.
    """
    if len(counts) > CLASSES:
        return []
    present = {int(colour) for colour in counts}
    backgrounds = [colour for colour in (BLACK, WHITE) if colour in present]
    readings: list[Reading] = [
        ({"unchanged_colours": unpacked(colour)}, f"if colour {unpacked(colour)} is unchanged and every other changed")
        for colour in backgrounds or sorted(present, key=lambda colour: -counts[colour])[:1]
    ]
    return _tenable(readings, counts)


def readings_of_bands(
    bands: Sequence[Mapping[float, int]], numbers: Iterable[int], ignored: tuple[float, ...], blurred: bool = False
) -> list[Reading]:
    """Readings in which one band holds the mask; first the bands of the fewest values, which masks have.

    Args:
        bands: Pixels of all labels by value, of each band.
        numbers: Bands to choose from, counted from 1.
        ignored: Values that are stated to be ignored.
        blurred: Whether compression has changed values.
    """
    readings: list[Reading] = []
    for number in sorted(numbers, key=lambda number: (len(bands[number - 1]), -number)):
        counts, of_band = bands[number - 1], {"label_band": number} | ({"label_ignore": ignored} if ignored else {})
        if len(counts) > 1 and any({*counts} - {*ignored} <= coding for coding in PLAIN):
            readings.append((of_band, f"if band {number} is the mask"))
        elif len(counts) > 1:
            readings += [
                (of_band | options, f"if band {number} is the mask and {condition.removeprefix('if ')}")
                for options, condition in readings_of_values(counts, ignored, blurred=blurred)
            ]
    return readings


def _readings(values: Sequence[float], indices: bool, blurred: bool) -> Iterator[Reading]:
    """All readings of sorted values; none of a single one."""
    if len(values) < 2:
        return
    lowest, *others = values
    whole = all(float(value).is_integer() for value in values)
    if blurred and len(values) > 2 and {*values} <= {0, 1, 255}:
        yield _threshold(values)
    elif {1, 255} < {*values} <= {0, 1, 255}:
        yield {"label_values": (0, 1, 255)}, "if 255 is to be ignored"
        yield {"label_threshold": 1}, "if 1 and 255 both mean changed"
    elif len(values) == 2 and whole:
        highest = others[0]
        yield {"label_values": (lowest, highest)}, f"if {lowest:g} is unchanged and {highest:g} changed"
        if lowest != 0:
            yield {"label_values": (highest, lowest)}, f"if {lowest:g} is changed and {highest:g} unchanged"
    elif whole and not blurred and len(values) <= CLASSES:
        shades = [_threshold(values)] if len(values) > 3 and values[-2] >= CLASSES and not indices else []
        if values[-1] == 255:
            yield from shades
        yield from _classes(values)
        if values[-1] != 255:
            yield from shades
    elif not indices:
        if whole and not blurred:
            yield {"label_threshold": int(lowest) + 1}, f"if every value but {lowest:g} is a change"
        yield _threshold(values)


def _classes(values: Sequence[float]) -> Iterator[Reading]:
    """Readings of three or more class numbers."""
    lowest, *others = values
    border = values[-1] >= 127 and values[-2] < CLASSES  # such as 255 after classes 0 to 4
    if len(values) > 3 and border:
        outside = {"label_ignore": (values[-1],)}
        yield (
            {"changed": (*others[:-1],)} | outside,
            f"if every value but {lowest:g} is a change and {values[-1]:g} no data",
        )
    yield {"changed": (*others,)}, f"if every value but {lowest:g} is a change"
    if len(values) == 3 or (lowest, others[0]) == (0, 1):
        yield {"changed": (*others[1:],)}, f"if {others[0]:g} is no change either"
    if len(values) == 3:
        middle, highest = others
        if lowest == 0 and highest < CLASSES:
            yield {"label_values": (middle, highest, lowest)}, f"if {lowest:g} is no data and {middle:g} unchanged"
        if middle >= CLASSES:
            yield {"label_values": (lowest, highest, middle)}, f"if {middle:g} is to be ignored"
        yield {"label_values": (lowest, middle, highest)}, f"if {highest:g} is to be ignored"


def _threshold(values: Sequence[float]) -> Reading:
    """A threshold between the least and the greatest value; 128 where they are those of 8-bit masks."""
    lowest, highest = values[0], values[-1]
    middle = (lowest + highest) / 2
    if lowest < 128 <= highest <= 255:
        middle = 128
    elif all(float(value).is_integer() for value in values):
        middle = math.ceil(middle)
    else:
        middle = next(
            rounded for digits in range(1, 17) if lowest < (rounded := float(f"{middle:.{digits}g}")) <= highest
        )
    return {"label_threshold": middle}, f"if values shade from unchanged {lowest:g} to changed {highest:g}"


def _one_value(value: float) -> Iterator[Reading]:
    if not float(value).is_integer():
        return
    other = 2 if value == 1 else 255
    yield {"label_values": (0, value)}, f"if {value:g} is changed"
    yield {"label_values": (value, other)}, f"if {value:g} is unchanged"


def _tenable(
    readings: Iterable[Reading], counts: Mapping[float, int], ignored: tuple[float, ...] = ()
) -> list[Reading]:
    """The readings that fit all values and leave both changed and unchanged pixels."""
    tenable: list[Reading] = []
    for options, condition in readings:
        if every := (*ignored, *options.get("label_ignore", ())):
            options = options | {"label_ignore": every}
        decoding = LabelOptions(**options).decoding()
        if decoding.source == "found":  # a plain coding, once some values are ignored
            decoding = replace(decoding, changed=(1, 255))
        if (decoding.meanings(np.array([*counts])) == UNKNOWN).any():
            continue
        changed, valid = decoding.tally([*counts.items()])
        if 0 < changed < valid:
            tenable.append((options, condition))
    return tenable


def _series(values: Sequence[float]) -> str:
    named = [f"{value:g}" for value in values]
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} or {named[-1]}"


def _literal(value: float | tuple[float, ...]) -> str:
    """A value as Python writes it."""
    if isinstance(value, tuple):
        items = ", ".join(map(_literal, value))
        return f"({items},)" if len(value) == 1 else f"({items})"
    return _typed(value) if math.isfinite(value) else f"float('{value}')"


def _typed(value: float | tuple[float, ...]) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, tuple):
        return ",".join(map(_typed, value))
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**63 else str(value)
