"""Which colour a band shows, where its name says so."""

import re
from collections.abc import Sequence

RED_GREEN_BLUE = ("red", "green", "blue")
"""Colours in the order in which networks take them."""

_WIDE = {"b02": "blue", "b03": "green", "b04": "red"}
"""Bands of Sentinel-2 and of Harmonised Landsat and Sentinel-2."""

_LANDSAT = {"b2": "blue", "b3": "green", "b4": "red"}
"""Bands of Landsat 8 and 9, whose names begin with LC08 or LC09; earlier ones count otherwise."""


def colour(name: str) -> str | None:
    """The colour that the name of a band or of its file clearly says: red, green, blue, or ``None``."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    numbered = _LANDSAT if words[:1] in (["lc08"], ["lc09"]) else _WIDE
    found = {numbered[word] for word in words if word in numbered}
    if not found and "edge" not in words:  # of "red edge"
        found = {word for word in words if word in RED_GREEN_BLUE}
    return found.pop() if len(found) == 1 else None


def places_of_colours(names: Sequence[str]) -> list[int] | None:
    """Places of red, green and blue among bands; ``None`` where their names do not say each of them once."""
    colours = [colour(name) for name in names]
    if any(colours.count(wanted) != 1 for wanted in RED_GREEN_BLUE):
        return None
    return [colours.index(wanted) for wanted in RED_GREEN_BLUE]
