"""Colours and textures of ground by use and season.

Colours are red, green, blue in [0, 1], as a display shows flat ground in full sun.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bitemporal.synthetic.ground import Plane, Use

Season = Literal["spring", "summer", "autumn", "winter"]
SEASONS: tuple[Season, ...] = ("spring", "summer", "autumn", "winter")
Colour = tuple[float, float, float]


def _rgb(red: int, green: int, blue: int) -> Colour:
    return red / 255, green / 255, blue / 255


_SOIL = [_rgb(152, 128, 100), _rgb(160, 120, 94), _rgb(176, 156, 126), _rgb(118, 100, 80), _rgb(148, 138, 118)]
_CROPS: dict[str, tuple[Colour, Colour]] = {
    # crop at this stage of growth: its colour, and the colour of its thin patches
    "lush": (_rgb(72, 100, 58), _rgb(92, 112, 70)),
    "dark": (_rgb(58, 84, 58), _rgb(74, 92, 64)),
    "young": (_rgb(108, 118, 78), _rgb(130, 118, 90)),
    "ripe": (_rgb(158, 146, 100), _rgb(134, 130, 86)),
    "stubble": (_rgb(158, 142, 112), _rgb(140, 122, 96)),
    "ploughed": (_rgb(112, 94, 76), _rgb(130, 110, 90)),
    "bare": (_rgb(144, 124, 98), _rgb(124, 106, 84)),
    "paddy": (_rgb(90, 102, 76), _rgb(78, 94, 66)),
}
_CROP_SHARES: dict[Season, dict[str, float]] = {
    "spring": {"young": 0.35, "ploughed": 0.2, "lush": 0.15, "bare": 0.15, "paddy": 0.15},
    "summer": {"lush": 0.35, "dark": 0.3, "ripe": 0.15, "young": 0.1, "bare": 0.1},
    "autumn": {"ripe": 0.25, "stubble": 0.3, "ploughed": 0.2, "lush": 0.1, "young": 0.15},
    "winter": {"ploughed": 0.3, "bare": 0.25, "stubble": 0.2, "young": 0.15, "dark": 0.1},
}
_GRASS: dict[Season, Colour] = {
    "spring": _rgb(98, 112, 72),
    "summer": _rgb(92, 106, 68),
    "autumn": _rgb(126, 118, 82),
    "winter": _rgb(134, 122, 94),
}
_LEAVES: dict[Season, Colour] = {
    "spring": _rgb(88, 112, 64),
    "summer": _rgb(62, 88, 52),
    "autumn": _rgb(116, 94, 58),
    "winter": _rgb(104, 94, 82),
}
EVERGREEN = _rgb(56, 82, 54)
_FLOOR: dict[Season, Colour] = {
    "spring": _rgb(66, 78, 52),
    "summer": _rgb(52, 68, 46),
    "autumn": _rgb(84, 74, 54),
    "winter": _rgb(92, 84, 70),
}
_WATER = [_rgb(48, 66, 60), _rgb(64, 80, 66), _rgb(84, 90, 76), _rgb(42, 56, 64), _rgb(70, 88, 90)]
_PAVING = [_rgb(168, 165, 158), _rgb(150, 148, 144), _rgb(184, 180, 170), _rgb(128, 126, 124), _rgb(170, 158, 140)]
_ASPHALT = [_rgb(112, 110, 108), _rgb(92, 92, 92), _rgb(128, 126, 122), _rgb(140, 136, 128)]
_ROOFS = [
    (_rgb(148, 88, 72), 0.14),
    (_rgb(124, 96, 82), 0.14),
    (_rgb(138, 136, 134), 0.18),
    (_rgb(98, 98, 100), 0.12),
    (_rgb(84, 110, 156), 0.12),
    (_rgb(206, 206, 200), 0.12),
    (_rgb(188, 180, 160), 0.12),
    (_rgb(118, 138, 130), 0.06),
]
_DRY = (1.14, 1.02, 0.88)


@dataclass(frozen=True)
class Surface:
    """How one piece of ground looks at one date.

    Attributes:
        first: Main colour.
        second: Colour of its patches.
        patches: Share of the second colour, about 0 to 1.
        broad: Amplitude of brightness over tens of metres.
        patchy: Amplitude over metres.
        fine: Amplitude over single pixels.
        rows: Amplitude of the rows of a crop.
        period: Distance between the rows in metres.
        across: Whether the rows run along the plan's v axis.
        strips: Amplitude of brightness between strips of tillage.
    """

    first: Colour
    second: Colour
    patches: float = 0.3
    broad: float = 0.05
    patchy: float = 0.06
    fine: float = 0.05
    rows: float = 0.0
    period: float = 2.0
    across: bool = False
    strips: float = 0.0


def _near(rng: np.random.Generator, colour: Colour, spread: float = 0.06) -> Colour:
    """A similar colour: brighter or darker overall, and of a slightly different hue."""
    gain = 1 + spread * rng.standard_normal()
    red, green, blue = (float(c * gain * (1 + 0.25 * spread * rng.standard_normal())) for c in colour)
    return red, green, blue


def _pick(rng: np.random.Generator, options: Sequence[Colour]) -> Colour:
    return options[int(rng.integers(len(options)))]


def _blend(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = (float(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def roof_colour(rng: np.random.Generator, large: bool) -> Colour:
    """Colour of a roof; large roofs are metal or concrete, rarely tiles."""
    colours, shares = zip(*_ROOFS, strict=True)
    weights = np.array(shares) * (np.array([0.1, 0.4, 1.2, 0.8, 1.6, 2.0, 1.4, 1.0]) if large else 1.0)
    return _near(rng, colours[int(rng.choice(len(colours), p=weights / weights.sum()))], 0.08)


def asphalt_colour(rng: np.random.Generator) -> Colour:
    """Colour of a road."""
    return _near(rng, _pick(rng, _ASPHALT))


def leaf_colours(rng: np.random.Generator, season: Season) -> tuple[Colour, Colour]:
    """Colours of a scene's deciduous and evergreen trees at one date."""
    return _near(rng, _LEAVES[season], 0.08), _near(rng, EVERGREEN, 0.08)


def make_surface(use: Use, season: Season, stable: np.random.Generator, dated: np.random.Generator) -> Surface:
    """The look of one piece of ground at one date.

    Args:
        use: Use of the ground.
        season: Season of the date.
        stable: Randomness that is the same at both dates: soil, paving, direction of the rows.
        dated: Randomness of the date: stage of the crop, colour of the water, mowing.
    """
    soil, across = _near(stable, _pick(stable, _SOIL), 0.08), bool(stable.random() < 0.5)
    dryness = float(np.clip(dated.normal(0.35, 0.3), 0, 1))
    grass = _near(dated, _GRASS[season], 0.07)
    grass = _blend(grass, (grass[0] * _DRY[0], grass[1] * _DRY[1], grass[2] * _DRY[2]), dryness)
    match use:
        case "crop":
            stages = _CROP_SHARES[season]
            stage = str(dated.choice(list(stages), p=list(stages.values())))
            first, second = _CROPS[stage]
            open_soil = {"ploughed": 0.6, "bare": 0.7, "stubble": 0.3}.get(stage, 0.0)
            first = _near(dated, _blend(first, soil, open_soil), 0.08)
            return Surface(
                first,
                _near(dated, _blend(second, soil, open_soil), 0.06),
                patches=float(dated.uniform(0.0, 0.6)),
                rows=float(dated.choice([0.0, 0.03, 0.06, 0.10])),
                period=float(stable.choice([1.6, 2.4, 4.0, 6.0])),
                across=across,
                strips=float(dated.uniform(0.01, 0.07)),
                patchy=0.05,
            )
        case "grass" | "orchard" | "houses" | "estate":
            second = _blend(grass, soil, 0.55)
            share = 0.3 if use == "grass" else 0.5
            return Surface(grass, second, patches=share, patchy=0.10, fine=0.07, broad=0.06)
        case "scrub":
            dry = _blend(grass, soil, 0.65)
            return Surface(dry, soil, patches=0.45, patchy=0.09, fine=0.07, broad=0.06)
        case "wood":
            return Surface(
                _near(dated, _FLOOR[season], 0.08), _blend(_FLOOR[season], grass, 0.5), patchy=0.12, fine=0.08
            )
        case "bare" | "cleared":
            second = _blend(soil, grass, 0.55 if use == "bare" else 0.7)
            damp = float(dated.uniform(0.88, 1.06))
            first = (soil[0] * damp, soil[1] * damp, soil[2] * damp)
            return Surface(first, second, patches=float(stable.uniform(0.1, 0.5)), patchy=0.10, fine=0.07, broad=0.07)
        case "paved" | "halls":
            first = _near(stable, _pick(stable, _PAVING), 0.06)
            return Surface(first, _blend(first, soil, 0.45), patches=0.15, patchy=0.035, fine=0.03, broad=0.03)
        case "water":
            first = _near(dated, _blend(_pick(stable, _WATER), _pick(dated, _WATER), 0.5), 0.10)
            return Surface(first, _blend(first, soil, 0.12), patches=0.3, broad=0.05, patchy=0.012, fine=0.012)
        case "asphalt":
            first = asphalt_colour(stable)
            return Surface(first, _blend(first, soil, 0.25), patches=0.1, patchy=0.03, fine=0.03, broad=0.02)
        case "greenhouse":
            return Surface(_blend(soil, grass, 0.3), soil, patchy=0.06)
        case "photovoltaic":
            return Surface(_blend(soil, grass, 0.5), grass, patchy=0.08)
        case "roof":
            first = roof_colour(stable, large=True)
            return Surface(
                first, _blend(first, _rgb(110, 100, 90), 0.3), patches=0.1, patchy=0.02, fine=0.02, broad=0.02
            )


@dataclass(frozen=True)
class SurfaceTable:
    """The surfaces of all pieces of ground as arrays, indexed by the number of the piece."""

    first: Plane
    second: Plane
    patches: Plane
    broad: Plane
    patchy: Plane
    fine: Plane
    rows: Plane
    period: Plane
    across: npt.NDArray[np.bool_]
    strips: Plane

    @classmethod
    def of(cls, surfaces: Sequence[Surface]) -> "SurfaceTable":
        """Gather surfaces into arrays."""

        def column(name: str) -> Plane:
            return np.array([getattr(surface, name) for surface in surfaces], dtype=np.float32)

        numbers = {name: column(name) for name in cls.__dataclass_fields__ if name != "across"}
        return cls(across=np.array([s.across for s in surfaces], dtype=bool), **numbers)
