"""What changes between the dates: kinds of change, classes of ground, and the plan of one pair."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from bitemporal.synthetic.buildings import Building, building_distance
from bitemporal.synthetic.ground import Grid, Mask, Parcels, Setting, Use, Ways
from bitemporal.synthetic.layers import local

ChangeKind = Literal["building", "road", "hard-surface", "woodland", "greenhouse", "water", "photovoltaic"]
"""The kinds of change that JL1-CD names (paper, section on the data set)."""
CHANGE_KINDS: tuple[ChangeKind, ...] = get_args(ChangeKind)

Cover = Literal[
    "crop", "grass", "wood", "bare", "paved", "water", "greenhouse", "photovoltaic", "road", "track", "roof"
]
"""Class of land cover. A pixel is changed when its class is."""
COVERS: tuple[Cover, ...] = get_args(Cover)

COVER_OF: dict[Use, Cover] = {
    "crop": "crop",
    "orchard": "wood",
    "grass": "grass",
    "scrub": "grass",
    "wood": "wood",
    "bare": "bare",
    "paved": "paved",
    "water": "water",
    "houses": "grass",
    "estate": "grass",
    "halls": "paved",
    "greenhouse": "greenhouse",
    "photovoltaic": "photovoltaic",
    "asphalt": "road",
    "roof": "roof",
    "cleared": "bare",
}
OPEN: frozenset[Cover] = frozenset({"crop", "grass", "bare"})
RESULT: dict[ChangeKind, Use] = {
    "building": "roof",
    "road": "asphalt",
    "hard-surface": "paved",
    "woodland": "wood",
    "greenhouse": "greenhouse",
    "water": "water",
    "photovoltaic": "photovoltaic",
}
ALIKE: dict[ChangeKind, frozenset[Cover]] = {
    # ground that such a change would leave unchanged
    kind: frozenset({COVER_OF[use]})
    for kind, use in RESULT.items()
} | {"road": frozenset({"road", "paved"}), "hard-surface": frozenset({"paved", "road"})}
_KIND_SHARES: dict[ChangeKind, float] = {
    "building": 0.34,
    "road": 0.10,
    "hard-surface": 0.14,
    "woodland": 0.14,
    "greenhouse": 0.08,
    "water": 0.11,
    "photovoltaic": 0.09,
}
_ZONE_FROM = 0.32
"""CAR from which whole quarters of a tile are converted instead of single objects."""


@dataclass(frozen=True)
class Change:
    """One change of ground, at the date when it shows.

    Attributes:
        kind: What it is.
        date: 0 when it shows at the first date only (something taken away), 1 at the second only (something new).
        window: Canvas rows and columns that hold it.
        mask: Its footprint within the window.
        use: Use of the ground in the footprint at that date; ``None`` where buildings alone are changed.
        buildings: Buildings that stand at that date only.
        traces: Number of the parcel that has lost its crop to building works at that date, which is no change; else -1.
    """

    kind: ChangeKind
    date: int
    window: tuple[slice, slice]
    mask: Mask
    use: Use | None
    buildings: tuple[Building, ...] = ()
    traces: int = -1


@dataclass(frozen=True)
class Plan:
    """What will change, decided before the ground is drawn so that the ground suits it.

    Attributes:
        pixels: Changed pixels wanted in the product.
        kinds: Kinds to choose from, each with its share.
        lead: Most frequent kind of change.
        zone: Kinds to which whole quarters are converted, in order; empty when single objects change.
        cut: Whether a change of woodland is a wood cut down, and not one planted or gone.
        setting: Setting that the ground must have, if any.
        only: Use that all parcels must have, if any.
        avoid: Uses that the ground must not have.
        roads: Whether the ground may have roads.
        straight: Whether its plan must not be bent, because large roofs follow it.
    """

    pixels: int
    kinds: dict[ChangeKind, float]
    lead: ChangeKind
    zone: tuple[ChangeKind, ...] = ()
    cut: bool = False
    setting: Setting | None = None
    only: Use | None = None
    avoid: frozenset[Use] = field(default_factory=frozenset)
    roads: bool = True
    straight: bool = False


def make_plan(rng: np.random.Generator, grid: Grid, car: float, kinds: Sequence[ChangeKind] | None) -> Plan:
    """Decide what will change.

    Args:
        rng: Source of randomness.
        grid: The canvas.
        car: Change area ratio wanted, in [0, 1].
        kinds: Kinds of change allowed; all when ``None``.
    """
    shares = {kind: _KIND_SHARES[kind] for kind in CHANGE_KINDS if kinds is None or kind in kinds}
    pixels = round(car * grid.height * grid.width)
    options, weights = list(shares), np.array(list(shares.values()))
    lead = options[int(rng.choice(len(options), p=weights / weights.sum()))]
    if car < _ZONE_FROM and not (car > 0.2 and rng.random() < 0.4):
        # greenhouses replace cropland, so the scene needs some
        setting: Setting | None = "farmland" if lead == "greenhouse" else None
        return Plan(pixels, shares, lead, setting=setting)
    if len(options) > 1 and "road" in options:
        # nobody paves a whole quarter as a road
        weights[options.index("road")] = 0.0
    count = min(int((weights > 0).sum()), 1 + int(rng.random() < 0.55))
    drawn = rng.choice(len(options), count, replace=False, p=weights / weights.sum())
    zone = tuple(options[int(i)] for i in drawn)
    cut = zone == ("woodland",) and bool(rng.random() < 0.7)
    avoid = frozenset(use for use, cover in COVER_OF.items() for kind in zone if cover in ALIKE[kind])
    if "building" in zone:
        avoid |= {"houses", "halls", "estate"}
    if "woodland" in zone:
        # scattered trees next to a wood would blur the border of the wood
        avoid |= {"scrub"}
    only: Use | None = "wood" if cut else "crop" if "greenhouse" in zone else None
    roads = car < 0.9 and not ({"road", "hard-surface"} & set(zone) and car > 0.7)
    return Plan(
        pixels, shares, lead, zone, cut, "farmland" if only == "crop" else None, only, avoid, roads, "building" in zone
    )


def cover_map(grid: Grid, parcels: Parcels, ways: Ways, buildings: Sequence[Building]) -> npt.NDArray[np.uint8]:
    """Index into ``COVERS`` of every pixel of the canvas, before any change."""
    index = {cover: np.uint8(i) for i, cover in enumerate(COVERS)}
    cover = np.array([index[COVER_OF[use]] for use in parcels.uses], np.uint8)[parcels.ids]
    cover[ways.track < 0] = index["track"]
    cover[ways.road < 1.5] = index["road"]
    for building in buildings:
        window = grid.window(building.x, building.y, building.radius + 3)
        a, b = local(grid, window, building.x, building.y, building.angle)
        if a.size:
            cover[window][building_distance(building, a, b) < 2.0] = index["roof"]
    return cover
