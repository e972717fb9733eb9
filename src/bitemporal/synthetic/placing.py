"""Where changes are placed, and over exactly which area.

Every footprint is defined by a *gauge*: a plane that gives, for each pixel, how far a shape must be enlarged to cover
it. The pixels of smallest gauge form a footprint of any wanted area, exact to the pixel, no matter how much of the
shape lies outside the product or on ground that must not change.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.ndimage as ndi

from bitemporal.synthetic.buildings import WING, Building, building_distance, make_hall, make_house
from bitemporal.synthetic.changes import ALIKE, COVERS, OPEN, RESULT, Change, ChangeKind, Cover, Plan
from bitemporal.synthetic.ground import Grid, Mask, Parcels, Plane, Use
from bitemporal.synthetic.layers import local

_ON: dict[ChangeKind, frozenset[Cover]] = {
    # ground on which a change of this kind may happen
    "building": OPEN | {"paved"},
    "road": OPEN | {"wood", "track"},
    "hard-surface": OPEN | {"wood", "track"},
    "woodland": OPEN,
    "greenhouse": frozenset({"crop"}),
    "water": OPEN | {"wood", "track"},
    "photovoltaic": OPEN | {"wood"},
}
_AREAS: dict[ChangeKind, tuple[float, float]] = {
    # typical area of one change of this kind in square metres
    "building": (25.0, 4200.0),
    "road": (150.0, 1800.0),
    "hard-surface": (60.0, 6000.0),
    "woodland": (80.0, 9000.0),
    "greenhouse": (250.0, 9000.0),
    "water": (80.0, 9000.0),
    "photovoltaic": (120.0, 9000.0),
}
_TRIES = 14


def _within(cover: npt.NDArray[np.uint8], covers: frozenset[Cover]) -> Mask:
    table = np.array([name in covers for name in COVERS])
    return table[cover]


@dataclass(frozen=True)
class _Shape:
    """A shape at unit size: its gauge on the pixels of a window, and the buildings it has at a given size."""

    window: tuple[slice, slice]
    gauge: Plane
    build: Callable[[float], tuple[Building, ...]] | None = None
    whole: bool = False
    """Whether the shape is rejected where ground that must not change cuts into it."""
    sizes: tuple[float, float] = (0.0, np.inf)


class Planner:
    """Places changes on the ground of one scene until the wanted area is reached."""

    def __init__(
        self,
        rng: np.random.Generator,
        grid: Grid,
        parcels: Parcels,
        cover: npt.NDArray[np.uint8],
        plan: Plan,
        rough: Plane,
    ) -> None:
        """Prepare.

        Args:
            rng: Source of randomness.
            grid: The canvas.
            parcels: The ground before any change.
            cover: Its cover, as given by ``cover_map``.
            plan: What is wanted.
            rough: Noise of deviation 1 that roughens natural outlines, H x W.
        """
        self.rng, self.grid, self.parcels, self.cover, self.plan = rng, grid, parcels, cover, plan
        self.rough = rough
        # a tile shows one kind of development, a district many
        self.focus = 0.7 if grid.height * grid.width * grid.gsd**2 < 1e5 else 0.15
        self.free = np.ones(grid.shape, bool)
        self.product = np.zeros(grid.shape, bool)
        self.product[grid.product] = True
        self.changes: list[Change] = []

    def run(self) -> list[Change]:
        """Place everything that was planned.

        Returns:
            Changes; within the product their footprints together have the wanted area.
        """
        if self.plan.pixels == 0:
            return []
        if self.plan.zone:
            self._zone(self.plan.zone, self.plan.pixels)
            return self.changes
        left = sum(self._fill(area) for area in self._portions())
        for _ in range(3):
            left = self._fill(left) if left else 0
        if left > 0.02 * self.plan.pixels:
            # vegetation and water fit ground of any outline; roofs and panels do not
            natural: list[ChangeKind] = ["woodland", "water", "hard-surface"]
            kinds = [kind for kind in natural if kind in self.plan.kinds] or list(self.plan.kinds)
            self._zone((kinds[int(self.rng.integers(len(kinds)))],), left)
        return self.changes

    def _fill(self, pixels: int) -> int:
        """Place one change of this many pixels, or two of half as many, and so on; returns the pixels left over."""
        if self._place(pixels):
            return 0
        if pixels * self.grid.gsd**2 < 50:
            return pixels
        return self._fill(pixels // 2) + self._fill(pixels - pixels // 2)

    def _portions(self) -> list[int]:
        """Areas of single changes in pixels; they sum to the wanted one."""
        pixels, square = self.plan.pixels, self.grid.gsd**2
        most = max(1, int(pixels * square / 60))
        mean = float(self.rng.uniform(500, 2400))
        count = int(np.clip(1 + self.rng.poisson(pixels * square / mean), 1, most))
        shares = self.rng.dirichlet(np.full(count, 2.0))
        areas = np.maximum(np.round(shares * pixels), 1).astype(int)
        areas[-1] = max(1, pixels - int(areas[:-1].sum()))
        return sorted((int(a) for a in areas), reverse=True)

    def _place(self, pixels: int) -> bool:
        """Place one change of this many pixels somewhere; returns whether that was possible."""
        area = pixels * self.grid.gsd**2
        fits = {k: w * (1.0 if _AREAS[k][0] <= area <= _AREAS[k][1] else 0.03) for k, w in self.plan.kinds.items()}
        options, weights = list(fits), np.array(list(fits.values()))
        lead = fits[self.plan.lead] >= self.plan.kinds[self.plan.lead] and self.rng.random() < self.focus
        for attempt in range(_TRIES):
            # a kind that is hard to place gets several attempts before another kind is drawn
            if attempt % 4 == 0:
                drawn = options[int(self.rng.choice(len(options), p=weights / weights.sum()))]
                kind = self.plan.lead if lead and attempt < 8 else drawn
            cut = kind == "woodland" and self.rng.random() < 0.5
            covers: frozenset[Cover] = frozenset({"wood"}) if cut else _ON[kind]
            centre = self._spot(covers)
            if centre is None:
                continue
            shape = self._shape(kind, centre, area)
            if shape is not None and self._settle(kind, shape, covers, pixels, cut):
                return True
        return False

    def _spot(self, covers: frozenset[Cover]) -> tuple[float, float] | None:
        """A random point of the product on free ground of such cover."""
        for _ in range(25):
            row = self.grid.pad + int(self.rng.integers(self.grid.height))
            col = self.grid.pad + int(self.rng.integers(self.grid.width))
            if self.free[row, col] and COVERS[self.cover[row, col]] in covers:
                return float(self.grid.x[col]), float(self.grid.y[row])
        return None

    def _settle(self, kind: ChangeKind, shape: _Shape, covers: frozenset[Cover], pixels: int, cut: bool) -> bool:
        """Enlarge a shape to the wanted area and accept it if the place suits it."""
        window = shape.window
        open_ground = self.free[window] & _within(self.cover[window], covers)
        countable = open_ground & self.product[window] & np.isfinite(shape.gauge)
        values = shape.gauge[countable]
        if len(values) < pixels:
            return False
        size = float(np.partition(values, pixels - 1)[pixels - 1])
        if not shape.sizes[0] <= size <= shape.sizes[1]:
            return False
        covered = shape.gauge <= size
        mask = covered & open_ground
        pieces = np.bincount(ndi.label(mask & self.product[window])[0].ravel())[1:]
        if len(pieces) > 1 and not shape.build and pieces.min() < 40:
            return False
        inside = self.product[window]
        lost = 1 - np.count_nonzero(mask & inside) / np.count_nonzero(covered & inside)
        if lost > (0.0 if shape.build else 0.06 if shape.whole else 0.3):
            return False
        self._take(kind, window, mask, cut, shape.build(size) if shape.build else ())
        return True

    def _take(
        self,
        kind: ChangeKind,
        window: tuple[slice, slice],
        mask: Mask,
        cut: bool,
        buildings: tuple[Building, ...],
    ) -> None:
        """Record a change, and keep later ones away from its ground and its buildings."""
        use: Use | None = None if buildings else "cleared" if cut else RESULT[kind]
        # structures are mostly new; vegetation and water appear and disappear
        forward = self.rng.random() < (0.85 if cut or kind not in ("woodland", "water") else 0.4)
        if kind == "woodland" and not cut:
            forward = bool(self.rng.random() < 0.25)
        traces = -1
        if buildings and self.rng.random() < 0.6:
            traces = int(self.parcels.ids[self.grid.pixel(buildings[0].x, buildings[0].y)])
        self.free[window] &= ~mask
        for building in buildings:
            around = self.grid.window(building.x, building.y, building.radius + 3)
            a, b = local(self.grid, around, building.x, building.y, building.angle)
            self.free[around] &= building_distance(building, a, b) >= 3.0
        self.changes.append(Change(kind, int(forward), window, mask, use, buildings, traces))

    # --- shapes -----------------------------------------------------------------------------------------------------

    def _plan_axes(self, window: tuple[slice, slice], centre: tuple[float, float]) -> tuple[Plane, Plane]:
        """Plan coordinates relative to a point, in random order of the axes, so that a shape follows the parcels."""
        row, col = self.grid.pixel(*centre)
        a, b = self.parcels.u[window] - self.parcels.u[row, col], self.parcels.v[window] - self.parcels.v[row, col]
        return (a, b) if self.rng.random() < 0.5 else (b, a)

    def _shape(self, kind: ChangeKind, centre: tuple[float, float], area: float) -> _Shape | None:
        match kind:
            case "building":
                return self._buildings(centre, area)
            case "road":
                return self._road(centre, area)
            case "woodland" | "water":
                return self._blob(centre, area) if self.rng.random() < 0.7 else self._block(centre, area, 0.25)
            case "hard-surface":
                return self._block(centre, area, 0.10)
            case "greenhouse" | "photovoltaic":
                return replace(self._block(centre, area, 0.0), whole=True)

    def _block(self, centre: tuple[float, float], area: float, roughness: float) -> _Shape:
        """A rectangle, or an L of two, along the axes of the parcels."""
        aspect = float(np.exp(self.rng.uniform(0.0, 0.9)))
        length, width = np.sqrt(area * aspect), np.sqrt(area / aspect)
        window = self.grid.window(*centre, 1.6 * length + 12)
        a, b = self._plan_axes(window, centre)
        gauge = np.maximum(np.abs(a) / np.float32(length / 2), np.abs(b) / np.float32(width / 2))
        if self.rng.random() < 0.3:
            # the wing of an L starts at the same corner
            far = np.maximum(
                np.abs(a + length / 2) / np.float32(length * 0.3), np.abs(b + width / 2) / np.float32(width)
            )
            gauge = np.minimum(gauge, far)
        if roughness:
            gauge = gauge * (1 + np.float32(roughness * 0.25) * self.rough[window])
        return _Shape(window, gauge.astype(np.float32))

    def _blob(self, centre: tuple[float, float], area: float) -> _Shape:
        """A rounded natural outline."""
        aspect = float(np.exp(self.rng.uniform(0.0, 0.8)))
        radius = np.sqrt(area / np.pi)
        window = self.grid.window(*centre, 2.6 * radius + 12)
        a, b = local(self.grid, window, *centre, float(self.rng.uniform(0, np.pi)))
        turn = np.arctan2(b, a)
        lobes = sum(
            self.rng.uniform(0.03, 0.32 / k) * np.cos(k * turn + self.rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4, 5)
        )
        distance = np.hypot(a / np.sqrt(aspect), b * np.sqrt(aspect)) / radius
        gauge = distance / (1 + np.clip(lobes, -0.6, 0.6)) * (1 + 0.06 * self.rough[window])
        return _Shape(window, gauge.astype(np.float32))

    def _road(self, centre: tuple[float, float], area: float) -> _Shape | None:
        """A road right across the product, or a spur off an existing road or the product's rim."""
        rng, grid = self.rng, self.grid
        width = float(rng.choice([4.0, 6.0, 8.0, 12.0], p=[0.3, 0.35, 0.25, 0.1]))
        span = min(grid.height, grid.width) * grid.gsd
        bend = np.float32(rng.choice([0.0, 0.5]) * rng.uniform(-1, 1) / max(span, 120.0))
        if area > 4.0 * span and span < 600:
            window = slice(0, grid.shape[0]), slice(0, grid.shape[1])
            a, b = self._plan_axes(window, centre)
            gauge = np.abs(b + bend * a * a) / np.float32(width / 2)
            return _Shape(window, gauge.astype(np.float32), sizes=(2.5 / width, 16.0 / width))
        start, length = self._junction(), area / width
        if length < 1.5 * width or length > 700 or start is None:
            return None
        window = grid.window(*start, 1.3 * length + 20)
        a, b = self._plan_axes(window, start)
        a = a * np.float32(rng.choice([-1.0, 1.0]))
        on = (np.abs(b + bend * a * a) < width / 2) & (a >= 0)
        return _Shape(window, np.where(on, a / np.float32(length), np.float32(np.inf)))

    def _junction(self) -> tuple[float, float] | None:
        """A random point on an existing road, or on the rim of the product."""
        grid, rng = self.grid, self.rng
        for _ in range(25):
            row, col = int(rng.integers(grid.height)), int(rng.integers(grid.width))
            if COVERS[self.cover[grid.pad + row, grid.pad + col]] in ("road", "track"):
                return float(grid.x[grid.pad + col]), float(grid.y[grid.pad + row])
        if max(grid.height, grid.width) > 1024:
            return None
        along, side = float(rng.uniform(0, 1)), int(rng.integers(4))
        height, width = grid.height * grid.gsd, grid.width * grid.gsd
        return (
            (along * width, 0.0)
            if side == 0
            else (along * width, height)
            if side == 1
            else (0.0, along * height)
            if side == 2
            else (width, along * height)
        )

    def _buildings(self, centre: tuple[float, float], area: float) -> _Shape | None:
        """One house or hall, or a group of them in rows."""
        rng, angle = self.rng, self.parcels.angle + float(self.rng.normal(0, 0.04))
        if area < 70 or (area < 260 and rng.random() < 0.6):
            count = 1
        elif area > 700 and rng.random() < 0.6:
            count = int(np.clip(round(area / rng.uniform(500, 1700)), 1, 9))
        else:
            count = int(np.clip(round(area / rng.uniform(90, 160)), 1, 40))
        each = area / count
        columns = max(1, round(np.sqrt(count * float(np.exp(rng.uniform(-0.7, 0.7))))))
        rows = int(np.ceil(count / columns))
        first = self._measure(make_house(rng, *centre, angle) if each < 240 else self._hall(centre, each, angle), each)
        gap = float(rng.uniform(3.5, 9.0))
        pitch_a, pitch_b = first.length + gap, first.width * (1 + first.wing) + gap
        cos, sin = np.cos(first.angle), np.sin(first.angle)
        group = []
        for k in range(count):
            a = (k % columns - (columns - 1) / 2) * pitch_a
            b = (k // columns - (rows - 1) / 2) * pitch_b
            x, y = centre[0] + cos * a - sin * b, centre[1] + sin * a + cos * b
            same = rng.random() < 0.6
            colour = first.colour if same else make_house(rng, 0, 0, 0).colour
            group.append(replace(first, x=float(x), y=float(y), colour=colour, variant=int(rng.integers(64))))
        reach = max(float(np.hypot(columns * pitch_a, rows * pitch_b)) / 2, 8.0) + first.radius
        window = self.grid.window(*centre, reach)
        gauge = np.full((window[0].stop - window[0].start, window[1].stop - window[1].start), np.inf, np.float32)
        for building in group:
            near = self.grid.window(building.x, building.y, building.radius * 1.6 + 1)
            inner = (
                slice(max(near[0].start, window[0].start), min(near[0].stop, window[0].stop)),
                slice(max(near[1].start, window[1].start), min(near[1].stop, window[1].stop)),
            )
            if inner[0].stop <= inner[0].start or inner[1].stop <= inner[1].start:
                continue
            view = gauge[
                inner[0].start - window[0].start : inner[0].stop - window[0].start,
                inner[1].start - window[1].start : inner[1].stop - window[1].start,
            ]
            np.minimum(view, self._building_gauge(building, inner), out=view)
        members = tuple(group)

        def build(size: float) -> tuple[Building, ...]:
            return tuple(replace(b, length=b.length * size, width=b.width * size) for b in members)

        room = 1 + 0.6 * gap / max(first.width, first.length)
        return _Shape(window, gauge, build, whole=True, sizes=(0.6, room if count > 1 else 1.5))

    def _building_gauge(self, building: Building, window: tuple[slice, slice]) -> Plane:
        """How much a building must grow about its centre to cover each pixel."""
        a, b = local(self.grid, window, building.x, building.y, building.angle)
        gauge = np.maximum(np.abs(a) / np.float32(building.length / 2), np.abs(b) / np.float32(building.width / 2))
        if building.wing:
            # the wing grows with the house, so its gauge is that of a rectangle whose centre moves outwards
            wing_length, wing_width = building.length * WING, building.width * (1 + building.wing)
            side_a, side_b = (1 if building.variant % 2 else -1), (1 if building.variant // 2 % 2 else -1)
            shift_a, shift_b = (building.length - wing_length) / 2 * side_a, building.width * building.wing / 2 * side_b
            gauge = np.minimum(gauge, np.maximum(_edge(a, shift_a, wing_length), _edge(b, shift_b, wing_width)))
        return gauge.astype(np.float32)

    def _measure(self, building: Building, area: float) -> Building:
        """The same building with a footprint of about ``area`` square metres."""
        own = building.length * building.width * (1 + WING * building.wing)
        factor = float(np.sqrt(area / own))
        return replace(building, length=building.length * factor, width=building.width * factor)

    def _hall(self, centre: tuple[float, float], area: float, angle: float) -> Building:
        aspect = float(np.exp(self.rng.uniform(0.1, 1.0)))
        return make_hall(self.rng, *centre, float(np.sqrt(area * aspect)), float(np.sqrt(area / aspect)), angle)

    # --- large conversions ------------------------------------------------------------------------------------------

    def _zone(self, kinds: tuple[ChangeKind, ...], pixels: int) -> None:
        """Convert a whole quarter of the product, one kind of use after another."""
        rng, grid, cover = self.rng, self.grid, self.cover
        everything = slice(0, grid.shape[0]), slice(0, grid.shape[1])
        cut = self.plan.cut
        alike: frozenset[Cover] = frozenset() if cut else frozenset().union(*(ALIKE[kind] for kind in kinds))
        different = self.free & ~_within(cover, alike)
        kept = different & ~_within(cover, frozenset({"road", "roof"}))
        room = int((kept & self.product).sum())
        open_ground = kept if room > 1.05 * pixels else different
        if pixels >= int(self.product.sum()):
            open_ground = np.ones_like(different)
        centre = (
            float(rng.uniform(0, grid.width * grid.gsd)),
            float(rng.uniform(0, grid.height * grid.gsd)),
        )
        a, b = self._plan_axes(everything, centre)
        figure = int(rng.integers(3))
        side = float(rng.choice([-1.0, 1.0]))
        gauge = (
            side * a if figure == 0 else np.maximum(side * a, b) if figure == 1 else np.maximum(np.abs(a), np.abs(b))
        )
        gauge = (gauge + 1.2 * self.rough).astype(np.float32) if kinds[0] in ("woodland", "water") else gauge
        values = gauge[open_ground & self.product]
        size = np.partition(values, pixels - 1)[pixels - 1] if pixels <= len(values) else np.inf
        mask = open_ground & (gauge <= size)
        limits = np.quantile(b[mask & self.product], np.linspace(0, 1, len(kinds) + 1)[1:-1])
        part = np.searchsorted(limits, b)
        forward = bool(rng.random() < 0.75)
        for number, kind in enumerate(kinds):
            own = mask & (part == number)
            if own.any():
                use: Use = ("grass" if rng.random() < 0.3 else "cleared") if cut else RESULT[kind]
                self.changes.append(Change(kind, int(forward), everything, own, use))


def _edge(axis: Plane, shift: float, length: float) -> Plane:
    """Growth at which an interval of ``length`` around ``shift``, when both grow, covers each value of ``axis``.

    The interval runs from shift - length / 2 < 0 to shift + length / 2 > 0.
    """
    above, below = np.float32(shift + length / 2), np.float32(length / 2 - shift)
    return np.where(axis > 0, axis / above, -axis / below)
