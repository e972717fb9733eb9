"""What a user should know before the values of two dates are compared."""

import itertools
import warnings
from collections.abc import Sequence

import numpy as np

from bitemporal.errors import DataError
from bitemporal.imagery.borders import LEAST_BORDER, zero_border
from bitemporal.imagery.physical import UNSCALED, Scaling, to_physical
from bitemporal.imagery.scale import ValueRange, mostly_clipped
from bitemporal.scenes.sources import Source
from bitemporal.scenes.values import Look


def warn_of_values(before: Source, after: Source, looks: tuple[Look, Look]) -> None:
    """Warn (``UserWarning``) of what makes a comparison of the values of two dates doubtful.

    Args:
        before: Date 1.
        after: Date 2.
        looks: A look at each of them.
    """
    borders = map(_border_notes, (before, after), looks)
    for note in (*_scaling_notes(before, after), *itertools.chain.from_iterable(borders)):
        warnings.warn(note, UserWarning, stacklevel=3)


def warn_of_range(before: Source, after: Source, looks: tuple[Look, Look], ranges: ValueRange) -> None:
    """Warn (``UserWarning``) of a range that leaves most of a date black or white.

    Args:
        before: Date 1.
        after: Date 2.
        looks: A look at each of them.
        ranges: Values of each channel that become 0 and 255.
    """
    numbers = [number for pair in (ranges if len({*ranges}) > 1 else ranges[:1]) for number in pair]
    for source, seen in zip((before, after), looks, strict=True):
        if note := mostly_clipped(np.moveaxis(seen.samples, 0, -1), numbers, seen.valid):
            low, high = (f"{value:.4g}" for value in np.percentile(seen.samples[:, seen.valid], (1, 99)))
            most = f", such as --image-range {low},{high} (image_range=({low}, {high}))" if low != high else ""
            warnings.warn(f"{source.describe()}: {note}{most}", UserWarning, stacklevel=3)


def check_units(before: Source, after: Source) -> None:
    """See that the values of both dates are of one unit, as far as tags of scale and offset tell.

    Where one date alone has such tags, an offset is applied to it, as the other one has none: Sentinel-2 stores larger
    values by 1000 since baseline 04.00. Integers are not compared with values after a scale.

    Raises:
        DataError: When they are not, or may be of several; the text names the options that state it.
    """
    if (before.scaling is None) == (after.scaling is None):
        return
    tagged, bare = (before, after) if after.scaling is None else (after, before)
    if bare.is_physical or all(scale == 1 for scale, _ in tagged.scaling or ()):
        return
    readings = (
        ([(scale, 0.0) for scale, _ in tagged.scaling or ()], "if they have the same scale and no offset"),
        (tagged.scaling or (), "if they are stored in the same way"),
        ([UNSCALED], "if they are physical values already"),
    )
    options = {_option(bare.name, scaling): condition for scaling, condition in reversed(readings)}
    raise DataError(
        f"{tagged.describe()} has scale and offset ({_in_words(tagged.scaling)}), and {bare.describe()} holds "
        f"{bare.value_type} values and has none, so they are in different units; state those of {bare.name}: "
        + ", or ".join(f"{option} {condition}" for option, condition in reversed(options.items()))
    )


def _option(name: str, scaling: Sequence[tuple[float, float]]) -> str:
    """An option that states scale and offset, for all channels where they agree."""
    pairs = scaling if len({*scaling}) > 1 else scaling[:1]
    numbers = [
        f"{number:.17g}" if float(f"{number:g}") != number else f"{number:g}" for pair in pairs for number in pair
    ]
    return f"--{name}-scaling {','.join(numbers)} ({name}_scaling=({', '.join(numbers)}))"


def _scaling_notes(before: Source, after: Source) -> list[str]:
    """A warning where one date alone says how its stored values become physical ones."""
    if (before.scaling is None) == (after.scaling is None):
        return []
    tagged, bare = (before, after) if after.scaling is None else (after, before)
    if tagged.is_stated or bare.is_stated:
        return []
    return [
        f"{tagged.describe()} has scale and offset ({_in_words(tagged.scaling)}), which are applied; "
        f"{bare.describe()} has none and is used as stored; if both are stored in the same way, add "
        f"{_option(bare.name, tagged.scaling or ())}"
    ]


def _in_words(scaling: Scaling | None) -> str:
    return ", ".join(dict.fromkeys(f"x {scale:g} {offset:+g}" for scale, offset in scaling or ()))


def _border_notes(source: Source, seen: Look) -> list[str]:
    """A warning where a date has a border of exact zeros that nothing declares to be without data."""
    if source.nodata is not None:
        return []
    scaling = source.scaling or (UNSCALED,) * len(source.channels)
    zeros = to_physical(np.zeros((len(scaling), 1, 1)), scaling, axis=0)
    share = zero_border((seen.samples == zeros).all(axis=0), seen.valid)
    if share < LEAST_BORDER:
        return []
    return [
        f"{source.describe()}: {share:.0%} of its pixels are a border of exact zeros in all bands, which nothing "
        "declares as no data; if it is, add --nodata 0 (nodata=0)"
    ]
