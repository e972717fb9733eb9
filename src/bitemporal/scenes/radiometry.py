"""What a user should know before the values of two dates are compared."""

import itertools
import warnings

import numpy as np

from bitemporal.imagery.borders import LEAST_BORDER, zero_border
from bitemporal.imagery.physical import UNSCALED, Scaling, to_physical
from bitemporal.scenes.sources import Source, is_remote
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


def _scaling_notes(before: Source, after: Source) -> list[str]:
    """A warning where one date alone says how its stored values become physical ones."""
    if (before.scaling is None) == (after.scaling is None):
        return []
    tagged, bare = (before, after) if after.scaling is None else (after, before)
    assert tagged.scaling is not None
    note = (
        f"{tagged.describe()} has tags of scale and offset ({_in_words(tagged.scaling)}), which are applied, and "
        f"{bare.describe()} has none, so that its values are used as stored; if they are no values of the same unit, "
        "the result is wrong"
    )
    if len(bare.files) == 1 and not is_remote(bare.files):
        scale, offset = tagged.scaling[0]
        code = (
            f"import rasterio as r; d = r.open({bare.files[0]!r}, 'r+'); d.scales = ({scale:g},) * d.count; "
            f"d.offsets = ({offset:g},) * d.count; d.close()"
        )
        note += f'. If they are stored in the same way, write the tags: `python -c "{code}"`'
    return [note]


def _in_words(scaling: Scaling) -> str:
    return ", ".join(dict.fromkeys(f"x {scale:g} {offset:+g}" for scale, offset in scaling))


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
        "declares to be without data; if it holds none, add --nodata 0 (nodata=0)"
    ]
