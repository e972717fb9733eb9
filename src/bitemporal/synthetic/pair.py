"""Synthetic pairs: two images of one place, and the mask of what changed between them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitemporal.errors import OptionError
from bitemporal.imagery.decoded import MAX_PIXELS
from bitemporal.synthetic.buildings import Building, make_buildings, stamp_building
from bitemporal.synthetic.cars import make_cars
from bitemporal.synthetic.changes import CHANGE_KINDS, Change, ChangeKind, Plan, cover_map, make_plan
from bitemporal.synthetic.conditions import draw_conditions
from bitemporal.synthetic.ground import Grid, Mask, Noise, Use, make_parcels, make_ways
from bitemporal.synthetic.layers import Layer
from bitemporal.synthetic.placing import Planner
from bitemporal.synthetic.render import Ground, State, draw, draw_ways
from bitemporal.synthetic.trees import Canopy, Trees, make_trees, scatter_trees, stamp_trees

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class CarDistribution:
    """Shares of pairs by change area ratio (CAR); they need not sum to 1.

    Within a share the CAR is drawn uniformly (small ones on a logarithmic scale). The default fills all three parts of
    the paper's partition.

    Attributes:
        none: Pairs in which nothing changes, CAR 0.
        small: CAR in [0.003, 0.05].
        medium: CAR in (0.05, 0.20].
        large: CAR in (0.20, 0.75], lower values more often.
        full: Pairs in which everything changes, CAR 1.
    """

    none: float = 0.12
    small: float = 0.33
    medium: float = 0.35
    large: float = 0.18
    full: float = 0.02

    def __post_init__(self) -> None:
        """Check the shares.

        Raises:
            OptionError: When one is negative, or all are 0.
        """
        values = vars(self)
        if any(not share >= 0 for share in values.values()) or not sum(values.values()) > 0:
            raise OptionError(
                f"CAR shares: found {values}, expected numbers of at least 0, at least one of them above 0"
            )

    def draw(self, rng: np.random.Generator, at: float | None = None) -> float:
        """One CAR in [0, 1].

        Args:
            rng: Source of randomness.
            at: Point in [0, 1) of the cumulated shares that selects the share; random when ``None``.
        """
        limits = np.cumsum(list(vars(self).values()))
        at = float(rng.random()) if at is None else at
        match int(np.searchsorted(limits / limits[-1], at, side="right")):
            case 0:
                return 0.0
            case 1:
                return float(np.exp(rng.uniform(np.log(0.003), np.log(0.05))))
            case 2:
                return float(rng.uniform(0.05, 0.20))
            case 3:
                return float(0.20 + 0.55 * rng.beta(1.0, 2.2))
            case _:
                return 1.0


@dataclass(frozen=True)
class SyntheticPair:
    """A pair of images of one place, and what changed.

    Attributes:
        before: First date, uint8, H x W x 3.
        after: Second date, uint8, H x W x 3.
        label: uint8, H x W: 1 where the class of land cover changed, else 0; in the grid of ``before``.
        kinds: Kinds of change that occur, sorted.
    """

    before: Image
    after: Image
    label: Image
    kinds: tuple[ChangeKind, ...]


def make_pair(
    seed: int,
    size: int = 256,
    car: float | None = None,
    gsd: float = 0.5,
    kinds: Sequence[ChangeKind] | None = None,
) -> SyntheticPair:
    """Make one square pair.

    Args:
        seed: Number of the pair, at least 0; equal arguments give equal pairs.
        size: Height and width in pixels, at least 32.
        car: Wanted change area ratio, in [0, 1]; drawn from the default ``CarDistribution`` when ``None``.
        gsd: Metres per pixel, in [0.2, 2].
        kinds: Kinds of change allowed; all when ``None``.

    Returns:
        The pair. Its CAR is within 5 % of the wanted one (0 and 1 exactly).

    Raises:
        OptionError: When an argument is outside its range.
    """
    return make_scene(seed, size, size, car, gsd, kinds)


def make_scene(
    seed: int,
    height: int,
    width: int,
    car: float | None = None,
    gsd: float = 0.5,
    kinds: Sequence[ChangeKind] | None = None,
) -> SyntheticPair:
    """Make one pair of any size. Roads run through it, and the mixture of uses varies over a few hundred metres.

    Args:
        seed: Number of the scene, at least 0; equal arguments give equal scenes.
        height: Pixels, at least 32.
        width: Pixels, at least 32. Making a scene of 4,096 x 4,096 pixels needs about 4 GB of memory.
        car: Wanted change area ratio, in [0, 1]; drawn from the default ``CarDistribution`` when ``None``.
        gsd: Metres per pixel, in [0.2, 2].
        kinds: Kinds of change allowed; all when ``None``.

    Returns:
        The scene. Its CAR is within 5 % of the wanted one (0 and 1 exactly).

    Raises:
        OptionError: When an argument is outside its range.
    """
    check_settings(seed, height, width, car, gsd, kinds)
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(8)]
    if car is None:
        car = CarDistribution().draw(streams[0])
    grid = Grid(height, width, gsd)
    plan = make_plan(streams[1], grid, car, kinds)
    ground, buildings, trees, changes = _stage(grid, plan, streams[2], streams[3])
    label = np.zeros(grid.shape, bool)
    for change in changes:
        label[change.window] |= change.mask
    images = []
    for date in (0, 1):
        state = _state(ground, buildings, trees, changes, label, date, streams[4 + date])
        conditions = draw_conditions(streams[6 + date], registered=date == 0)
        images.append(draw(ground, state, conditions, date, streams[6 + date]))
    cropped = label[grid.product]
    shown = {change.kind for change in changes if _in_product(grid, change)}
    return SyntheticPair(images[0], images[1], cropped.astype(np.uint8), tuple(sorted(shown)))


def check_settings(
    seed: int, height: int, width: int, car: float | None, gsd: float, kinds: Sequence[ChangeKind] | None
) -> None:
    """Refuse settings of ``make_scene`` that are outside their range.

    Raises:
        OptionError: Naming the first of them.
    """
    if seed < 0:
        raise OptionError(f"seed: found {seed}, expected an integer of at least 0")
    if not (min(height, width) >= 32 and height * width <= MAX_PIXELS):
        most = f"at most {MAX_PIXELS // 10**6} Mpx, which is what is read"
        raise OptionError(f"size: found {height} x {width} pixels, expected at least 32 x 32 and {most}")
    if car is not None and not 0 <= car <= 1:
        raise OptionError(f"car: found {car}, expected a change area ratio in [0, 1]")
    if not 0.2 <= gsd <= 2:
        raise OptionError(f"gsd: found {gsd} metres, expected a pixel size in [0.2, 2]")
    unknown = sorted(set(kinds or ()) - set(CHANGE_KINDS))
    if unknown or (kinds is not None and not kinds):
        raise OptionError(f"kinds: found {unknown or 'none'}, expected some of {', '.join(CHANGE_KINDS)}")


def _in_product(grid: Grid, change: Change) -> bool:
    rows, cols = change.window
    top, left = max(grid.pad - rows.start, 0), max(grid.pad - cols.start, 0)
    bottom, right = grid.pad + grid.height - rows.start, grid.pad + grid.width - cols.start
    return bool(change.mask[top : max(bottom, 0), left : max(right, 0)].any())


def _stage(
    grid: Grid, plan: Plan, rng: np.random.Generator, change_rng: np.random.Generator
) -> tuple[Ground, list[Building], Trees, list[Change]]:
    """Draw the ground before any change, place the changes, and draw what exists at both dates.

    Returns:
        The ground; the buildings and trees that exist at one date only; the changes.
    """
    noise = Noise(rng, grid)
    parcels = make_parcels(rng, grid, plan.setting, plan.avoid, plan.only, plan.roads, plan.straight)
    ways = make_ways(parcels)
    buildings = make_buildings(rng, grid, parcels, ways)
    cover = cover_map(grid, parcels, ways, buildings)
    changes = Planner(change_rng, grid, parcels, cover, plan, noise.plane("broad", 5)).run()
    replaced = np.zeros(grid.shape, bool)
    for change in changes:
        if change.use is not None:
            replaced[change.window] |= change.mask
    roofs = Layer.empty(grid.shape)
    gone = [b for b in buildings if replaced[grid.pixel(b.x, b.y)]]
    for building in buildings:
        if not replaced[grid.pixel(building.x, building.y)]:
            stamp_building(roofs, grid, building)
    trees = make_trees(rng, grid, parcels, ways, (ways.road < 0.5) | (roofs.alpha > 0))
    there = _at(grid, trees, replaced)
    canopy = Canopy.empty(grid.shape)
    stamp_trees(canopy, grid, trees.select(~there))
    tracks = draw_ways(rng, grid, noise, ways)
    ground = Ground(grid, noise, parcels, ways, tracks, roofs, canopy, int(rng.integers(2**31)))
    return ground, gone, trees.select(there), changes


def _at(grid: Grid, trees: Trees, mask: Mask) -> Mask:
    """Whether each tree stands where a mask is set."""
    rows = np.clip(np.floor(trees.y / grid.gsd).astype(int) + grid.pad, 0, grid.shape[0] - 1)
    cols = np.clip(np.floor(trees.x / grid.gsd).astype(int) + grid.pad, 0, grid.shape[1] - 1)
    standing: Mask = mask[rows, cols]
    return standing


def _state(
    ground: Ground,
    buildings: list[Building],
    trees: Trees,
    changes: list[Change],
    label: Mask,
    date: int,
    rng: np.random.Generator,
) -> State:
    """The ground at one date: what exists at both, and what the changes show or hide."""
    grid, parcels = ground.grid, ground.parcels
    ids, uses = parcels.ids.copy(), list(parcels.uses)
    shown = np.zeros(grid.shape, bool)
    woods = np.zeros(grid.shape, bool)
    for change in changes:
        if change.traces >= 0 and change.date == date and uses[change.traces] == "crop":
            uses[change.traces] = "bare"
    own: list[Building] = []
    added: list[Use] = []
    for change in changes:
        # both dates number the patches alike, so that a parcel keeps its appearance
        number = len(uses) + len(added)
        added.append(change.use or "bare")
        if change.date != date:
            continue
        own += change.buildings
        if change.use is not None:
            ids[change.window][change.mask] = number
            shown[change.window] |= change.mask
            woods[change.window] |= change.mask & (change.use == "wood")
        else:
            shown[change.window] |= change.mask
    uses += added
    kept = [b for b in buildings if not shown[grid.pixel(b.x, b.y)]]
    standing = trees.select(~_at(grid, trees, shown))
    if woods.any():
        standing = standing.join(scatter_trees(rng, grid, woods, 4.6, (2.2, 4.2), 0.93))
    paved = np.array([use in ("paved", "halls") for use in uses])[ids] & (ground.roofs.alpha == 0) & ~label
    cars = [c for c in make_cars(rng, grid, parcels, ground.ways, paved) if not shown[grid.pixel(c.x, c.y)]]
    return State(ids, uses, own + kept, standing, cars)
