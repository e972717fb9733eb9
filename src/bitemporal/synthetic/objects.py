"""Things that stand on the ground: buildings, trees, cars. Each is stamped into colour and height planes."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np

from bitemporal.synthetic.ground import Grid, Mask, Parcels, Plane, Use, Ways
from bitemporal.synthetic.surfaces import Colour, roof_colour

Roof = Literal["gable", "hip", "flat", "metal"]

WING = 0.52
"""Length of a wing relative to its house; above one half, so that a house enlarged about its centre covers itself."""


@dataclass(frozen=True)
class Building:
    """A house or hall.

    Attributes:
        x: Centre, metres east.
        y: Centre, metres south.
        length: Length along its own axis, metres.
        width: Width across that axis, metres.
        angle: Angle between its axis and x, radians.
        height: Height of the eaves, metres.
        roof: Shape of the roof.
        colour: Colour of the roof.
        wing: How far a wing at one end projects, relative to the width; it makes the building an L. 0 for none.
        variant: Number that selects details.
    """

    x: float
    y: float
    length: float
    width: float
    angle: float
    height: float
    roof: Roof
    colour: Colour
    wing: float = 0.0
    variant: int = 0

    @property
    def radius(self) -> float:
        """Radius in metres of a circle around the centre that holds the building."""
        return float(np.hypot(self.length, self.width * (1 + 2 * self.wing)) / 2)


@dataclass
class Trees:
    """Trees as arrays of equal length N: place and crown radius and height in metres, tone, species in [0, 1]."""

    x: Plane
    y: Plane
    radius: Plane
    height: Plane
    tone: Plane
    evergreen: Plane

    def __len__(self) -> int:
        """The number of trees."""
        return len(self.x)

    def select(self, keep: Mask) -> "Trees":
        """The trees that ``keep`` marks."""
        return Trees(*(values[keep] for values in vars(self).values()))

    def join(self, other: "Trees") -> "Trees":
        """These trees and others."""
        return Trees(*(np.concatenate(both) for both in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass
class Layer:
    """Things seen from above, over transparent ground.

    Attributes:
        colour: Colours before lighting, H x W x 3.
        alpha: Cover in [0, 1], H x W.
        height: Metres above ground, H x W.
    """

    colour: Plane
    alpha: Plane
    height: Plane

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> "Layer":
        """A layer with nothing on it."""
        return cls(np.zeros((*shape, 3), np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.float32))

    def copy(self) -> "Layer":
        """An independent copy."""
        return Layer(self.colour.copy(), self.alpha.copy(), self.height.copy())


def local(grid: Grid, window: tuple[slice, slice], x: float, y: float, angle: float) -> tuple[Plane, Plane]:
    """Coordinates along and across an axis through (x, y), in metres, of the pixels of a window."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    dx, dy = grid.x[None, window[1]] - np.float32(x), grid.y[window[0], None] - np.float32(y)
    return cos * dx + sin * dy, -sin * dx + cos * dy


def _box(a: Plane, b: Plane, length: float, width: float) -> Plane:
    """Signed distance to the rim of a rectangle: negative inside."""
    return np.maximum(np.abs(a) - np.float32(length / 2), np.abs(b) - np.float32(width / 2))


def building_distance(building: Building, a: Plane, b: Plane) -> Plane:
    """Signed distance to the rim of a building's footprint in metres, from coordinates of its own axes."""
    distance = _box(a, b, building.length, building.width)
    if building.wing:
        wing_length = building.length * WING
        shift_a = (building.length - wing_length) / 2 * (1 if building.variant % 2 else -1)
        shift_b = building.width * building.wing / 2 * (1 if building.variant // 2 % 2 else -1)
        wing = _box(a - shift_a, b - shift_b, wing_length, building.width * (1 + building.wing))
        distance = np.minimum(distance, wing)
    return distance


def _roof(building: Building, a: Plane, b: Plane, rim: Plane) -> tuple[Plane, Plane]:
    """Brightness and height of a roof at coordinates of its own axes."""
    shade, height = np.ones_like(a), np.full_like(a, building.height)
    half = building.width / 2
    variant = building.variant
    match building.roof:
        case "gable" | "hip":
            slope = 0.35 + 0.25 * (variant % 5) / 4
            rise = half - np.abs(b)
            if building.roof == "hip":
                rise = np.minimum(rise, building.length / 2 - np.abs(a))
            if building.wing:
                rise = np.maximum(rise, np.minimum(-rim, building.length * WING / 2))
            height += np.maximum(rise, 0) * np.float32(slope)
            shade += 0.05 * ((np.abs(b) * 2.2).astype(np.int32) % 2 - 0.5)
            shade = np.where((np.abs(b) < 0.35) & (building.roof == "gable"), shade * 0.9, shade)
        case "metal":
            height += np.maximum(half - np.abs(b), 0) * np.float32(0.10)
            period = 5.0 + 2.0 * (variant % 3)
            phase = np.mod(a, period)
            shade = np.where(phase < 0.5, shade * 0.93, shade)
            if variant % 4 == 1:
                sky = (np.abs(phase - period / 2) < 0.6) & (np.abs(np.abs(b) - half * 0.55) < half * 0.25)
                shade = np.where(sky, shade * 1.16, shade)
            shade = np.where(np.abs(b) < 0.5, shade * 0.9, shade)
        case "flat":
            shade = np.where(rim > -0.7, shade * 1.14, shade)
            height = np.where(rim > -0.5, height + 0.8, height)
            rng = np.random.default_rng(variant)
            for _ in range(int(rng.integers(1, 5))):
                at_a, at_b = rng.uniform(-0.38, 0.38) * building.length, rng.uniform(-0.35, 0.35) * building.width
                unit = _box(a - at_a, b - at_b, rng.uniform(1.2, 4.5), rng.uniform(1.2, 3.5)) < 0
                unit &= rim < -0.8
                shade, height = np.where(unit, rng.uniform(0.75, 1.3), shade), np.where(unit, height + 1.8, height)
            if building.length * building.width > 250:
                panel = np.mod(a + 0.5 * variant, building.length / 3) < 0.4
                shade = np.where(panel & (rim < -0.7), shade * 0.88, shade)
    return shade, height


def stamp_building(layer: Layer, grid: Grid, building: Building) -> None:
    """Draw one building into a layer."""
    window = grid.window(building.x, building.y, building.radius + 1)
    a, b = local(grid, window, building.x, building.y, building.angle)
    if not a.size:
        return
    rim = building_distance(building, a, b)
    alpha = np.clip(0.5 - rim / np.float32(grid.gsd), 0, 1)
    shade, height = _roof(building, a, b, rim)
    paint = shade[..., None] * np.array(building.colour, np.float32)
    layer.colour[window] += (paint - layer.colour[window]) * alpha[..., None]
    layer.alpha[window] = np.maximum(layer.alpha[window], alpha)
    layer.height[window] = np.where(alpha >= 0.5, height, layer.height[window])


@lru_cache(maxsize=512)
def _crown(size: int, variant: int, gsd: float) -> tuple[Plane, Plane]:
    """Height relative to the tree, and brightness, of a crown with a radius of ``size`` half pixels."""
    rng = np.random.default_rng([size, variant, 77])
    radius = size / 2
    reach = int(np.ceil(radius * 1.3))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    turn = np.arctan2(y, x)
    phases = rng.uniform(0, 2 * np.pi, 3)
    outline = (
        1
        + 0.10 * np.sin(2 * turn + phases[0])
        + 0.09 * np.sin(3 * turn + phases[1])
        + 0.07 * np.sin(5 * turn + phases[2])
    )
    distance = np.hypot(x, y) / (radius * outline)
    dome = np.sqrt(np.clip(1 - distance**2, 0, 1))
    clumps = rng.standard_normal((2 * reach + 1, 2 * reach + 1)).astype(np.float32)
    height = np.where(distance < 1, 0.45 + 0.55 * dome + 0.10 * clumps * np.minimum(1, 2 * gsd), 0)
    bright = 0.80 + 0.28 * dome + 0.10 * clumps
    return height.astype(np.float32), bright.astype(np.float32)


@dataclass
class Canopy:
    """Crowns of trees seen from above: height in metres, brightness, share of evergreens; H x W each."""

    height: Plane
    tone: Plane
    evergreen: Plane

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> "Canopy":
        """A canopy without trees."""
        return cls(*(np.zeros(shape, np.float32) for _ in range(3)))

    def copy(self) -> "Canopy":
        """An independent copy."""
        return Canopy(self.height.copy(), self.tone.copy(), self.evergreen.copy())


def stamp_trees(canopy: Canopy, grid: Grid, trees: Trees) -> None:
    """Draw trees into a canopy; higher trees hide lower ones."""
    height, width = grid.shape
    rows = np.floor(trees.y / grid.gsd).astype(int) + grid.pad
    cols = np.floor(trees.x / grid.gsd).astype(int) + grid.pad
    sizes = np.maximum(np.round(2 * trees.radius / grid.gsd).astype(int), 2)
    for k in range(len(trees)):
        crown, bright = _crown(int(sizes[k]), k % 5, grid.gsd)
        reach = crown.shape[0] // 2
        top, left = int(rows[k]) - reach, int(cols[k]) - reach
        if top < 0 or left < 0 or top + crown.shape[0] > height or left + crown.shape[1] > width:
            continue
        window = slice(top, top + crown.shape[0]), slice(left, left + crown.shape[1])
        lifted = crown * trees.height[k]
        below = canopy.height[window]
        higher = lifted > below
        np.copyto(below, lifted, where=higher)
        np.copyto(canopy.tone[window], bright * trees.tone[k], where=higher)
        np.copyto(canopy.evergreen[window], trees.evergreen[k], where=higher)


def scatter_trees(
    rng: np.random.Generator, grid: Grid, where: Mask, spacing: float, radius: tuple[float, float], keep: float = 1.0
) -> Trees:
    """Trees on a jittered grid where a mask allows them.

    Args:
        rng: Source of randomness.
        grid: The canvas.
        where: Pixels on which a trunk may stand, H x W.
        spacing: Mean distance between neighbours in metres.
        radius: Range of crown radii in metres.
        keep: Share of places that have a tree.
    """
    extent_y, extent_x = grid.shape[0] * grid.gsd, grid.shape[1] * grid.gsd
    rows, cols = int(extent_y / spacing) + 1, int(extent_x / spacing) + 1
    shaken = rng.random((3, rows, cols), dtype=np.float32)
    y = ((np.arange(rows)[:, None] + shaken[0]) * spacing).ravel()
    x = ((np.arange(cols)[None, :] + shaken[1]) * spacing).ravel()
    row, col = (y / grid.gsd).astype(int), (x / grid.gsd).astype(int)
    inside = (row < grid.shape[0]) & (col < grid.shape[1]) & (shaken[2].ravel() < keep)
    row, col = np.minimum(row, grid.shape[0] - 1), np.minimum(col, grid.shape[1] - 1)
    inside &= where[row, col]
    offset = grid.pad * grid.gsd
    return grow(rng, x[inside] - offset, y[inside] - offset, radius)


def grow(rng: np.random.Generator, x: Plane, y: Plane, radius: tuple[float, float]) -> Trees:
    """Trees at given places."""
    count = len(x)
    crown = rng.uniform(*radius, count).astype(np.float32)
    return Trees(
        np.asarray(x, np.float32),
        np.asarray(y, np.float32),
        crown,
        (crown * rng.uniform(1.5, 2.5, count)).astype(np.float32),
        np.clip(rng.normal(1.0, 0.13, count), 0.65, 1.4).astype(np.float32),
        (rng.random(count) < rng.uniform(0.2, 0.8)).astype(np.float32),
    )


def make_house(rng: np.random.Generator, x: float, y: float, angle: float, scale: float = 1.0) -> Building:
    """A dwelling house."""
    length, width = rng.uniform(9, 16) * scale, rng.uniform(7, 10.5) * scale
    roof: Roof = ("gable", "hip", "flat")[int(rng.choice(3, p=[0.4, 0.25, 0.35]))]
    wing = float(rng.uniform(0.4, 0.8)) if rng.random() < 0.25 else 0.0
    height = float(rng.choice([3.2, 6.0, 9.0, 14.0], p=[0.4, 0.38, 0.17, 0.05]))
    turn = angle + (np.pi / 2 if rng.random() < 0.3 else 0.0) + rng.normal(0, 0.03)
    colour = roof_colour(rng, large=False)
    return Building(x, y, float(length), float(width), float(turn), height, roof, colour, wing, int(rng.integers(64)))


def make_hall(rng: np.random.Generator, x: float, y: float, length: float, width: float, angle: float) -> Building:
    """A hall, block or large building of given dimensions."""
    roof: Roof = "metal" if rng.random() < 0.65 else "flat"
    height = float(rng.uniform(6, 12)) if roof == "metal" else float(rng.choice([9.0, 15.0, 24.0], p=[0.4, 0.4, 0.2]))
    wing = float(rng.uniform(0.3, 0.6)) if roof == "flat" and rng.random() < 0.4 else 0.0
    colour = roof_colour(rng, large=True)
    return Building(x, y, length, width, angle, height, roof, colour, wing, int(rng.integers(64)))


def _houses(rng: np.random.Generator, parcels: Parcels, grid: Grid, number: int) -> list[Building]:
    u0, v0, u1, v1 = (float(c) for c in parcels.rectangles[number])
    # houses stand close in a village, and apart on an estate of villas
    pitch = rng.uniform(11.5, 20)
    pitch_u, pitch_v = pitch * rng.uniform(0.95, 1.15), pitch * rng.uniform(0.85, 1.05)
    density, scale = rng.uniform(0.55, 0.97), min(1.1, pitch / 16) * rng.uniform(0.85, 1.05)
    houses = []
    for u in np.arange(u0 + pitch_u * 0.6, u1 - pitch_u * 0.4, pitch_u):
        for v in np.arange(v0 + pitch_v * 0.6, v1 - pitch_v * 0.4, pitch_v):
            if rng.random() < density:
                x, y = parcels.place(grid, u + rng.normal(0, 0.9), v + rng.normal(0, 0.9))
                houses.append(make_house(rng, x, y, parcels.angle, scale))
    return houses


def _halls(rng: np.random.Generator, parcels: Parcels, grid: Grid, number: int) -> list[Building]:
    u0, v0, u1, v1 = (float(c) for c in parcels.rectangles[number])
    margin = rng.uniform(5, 9)
    width, depth = u1 - u0 - 2 * margin, v1 - v0 - 2 * margin
    if min(width, depth) < 12:
        return []
    columns, rows = max(1, round(width / rng.uniform(28, 60))), max(1, round(depth / rng.uniform(24, 50)))
    halls = []
    for i in range(columns):
        for j in range(rows):
            if rng.random() < 0.12:
                continue
            u, v = u0 + margin + width * (i + 0.5) / columns, v0 + margin + depth * (j + 0.5) / rows
            x, y = parcels.place(grid, u, v)
            along, across = width / columns - rng.uniform(4, 9), depth / rows - rng.uniform(4, 9)
            turned = across > along
            length, breadth = (across, along) if turned else (along, across)
            if breadth > 8:
                angle = parcels.angle + (np.pi / 2 if turned else 0)
                halls.append(make_hall(rng, x, y, float(length), float(breadth), float(angle)))
    return halls


def _blocks(rng: np.random.Generator, parcels: Parcels, grid: Grid, number: int) -> list[Building]:
    """Rows of identical blocks of flats."""
    u0, v0, u1, v1 = (float(c) for c in parcels.rectangles[number])
    length, width, height = rng.uniform(28, 58), rng.uniform(11, 15), float(rng.choice([12.0, 18.0, 27.0]))
    colour, turned = roof_colour(rng, large=False), rng.random() < 0.5
    pitch_a, pitch_b = length + rng.uniform(8, 14), width + rng.uniform(0.7, 1.1) * height + 6
    pitch_u, pitch_v = (pitch_b, pitch_a) if turned else (pitch_a, pitch_b)
    angle = parcels.angle + (np.pi / 2 if turned else 0)
    blocks = []
    for u in np.arange(u0 + pitch_u * 0.55, u1 - pitch_u * 0.45, pitch_u):
        for v in np.arange(v0 + pitch_v * 0.55, v1 - pitch_v * 0.45, pitch_v):
            x, y = parcels.place(grid, float(u), float(v))
            roof: Roof = "hip" if height < 15 and rng.random() < 0.3 else "flat"
            variant = int(rng.integers(64))
            blocks.append(Building(x, y, float(length), float(width), float(angle), height, roof, colour, 0.0, variant))
    return blocks


def make_buildings(rng: np.random.Generator, grid: Grid, parcels: Parcels, ways: Ways) -> list[Building]:
    """The houses, halls and blocks of flats of all parcels with such a use, as far as they can show on the canvas."""
    buildings: list[Building] = []
    for number, use in enumerate(parcels.uses):
        if use == "houses":
            buildings += _houses(rng, parcels, grid, number)
        elif use == "halls":
            buildings += _halls(rng, parcels, grid, number)
        elif use == "estate":
            buildings += _blocks(rng, parcels, grid, number)
    rim = grid.pad * grid.gsd
    right, bottom = grid.width * grid.gsd + rim, grid.height * grid.gsd + rim
    return [
        b
        for b in buildings
        if -rim - b.radius < b.x < right + b.radius
        and -rim - b.radius < b.y < bottom + b.radius
        and min(ways.road[at := grid.pixel(b.x, b.y)], ways.track[at]) > 0.5 * b.width + 0.5
    ]


_STANDS: dict[Use, tuple[float, tuple[float, float], float]] = {
    # spacing, crown radii, share of places
    "wood": (4.6, (2.2, 4.2), 0.93),
    "scrub": (8.0, (0.9, 3.2), 0.42),
    "grass": (11.0, (1.2, 3.4), 0.16),
    "houses": (8.0, (1.4, 3.4), 0.36),
    "halls": (9.0, (1.2, 2.4), 0.12),
    "estate": (7.0, (1.3, 2.8), 0.35),
}


def make_trees(rng: np.random.Generator, grid: Grid, parcels: Parcels, ways: Ways, clear: Mask) -> Trees:
    """Woods, orchards, lone trees, and rows of trees along some roads and field edges.

    Args:
        rng: Source of randomness.
        grid: The canvas.
        parcels: The plan.
        ways: Its roads.
        clear: Where no tree may stand, H x W: on roads and roofs.
    """
    use_of = np.array(parcels.uses)
    trees = grow(rng, np.empty(0, np.float32), np.empty(0, np.float32), (1.0, 2.0))
    for use, (spacing, radius, keep) in _STANDS.items():
        if use in parcels.uses:
            where = (use_of == use)[parcels.ids] & ~clear
            trees = trees.join(scatter_trees(rng, grid, where, spacing, radius, keep * float(rng.uniform(0.6, 1.1))))
    margin = grid.pad * grid.gsd
    for number in np.flatnonzero(use_of == "orchard"):
        u0, v0, u1, v1 = (float(c) for c in parcels.rectangles[number])
        step = float(rng.uniform(4.2, 6.5))
        places = [
            parcels.place(grid, u, v) for u in np.arange(u0 + 3, u1 - 2, step) for v in np.arange(v0 + 3, v1 - 2, step)
        ]
        if places:
            x, y = np.array(places, np.float32).T
            trees = trees.join(grow(rng, x, y, (1.3, 2.0)))
    hedges = np.zeros(len(parcels.uses), bool)
    hedges[rng.random(len(parcels.uses)) < 0.14] = True
    lined = ((ways.road > 1.0) & (ways.road < 2.2) & (rng.random() < 0.45)) | ((ways.edge < 0.4) & hedges[parcels.ids])
    if lined.any():
        trees = trees.join(scatter_trees(rng, grid, lined & ~clear, 1.6, (1.2, 2.4), 0.45))
    inside = (trees.x > -margin) & (trees.y > -margin)
    return trees.select(inside)


@dataclass(frozen=True)
class Car:
    """A car: centre and axis as for a building, and its colour."""

    x: float
    y: float
    angle: float
    colour: Colour
    length: float = field(default=4.5)


_PAINT: list[Colour] = [(0.85, 0.85, 0.85), (0.15, 0.15, 0.17), (0.5, 0.5, 0.52), (0.6, 0.16, 0.14), (0.2, 0.28, 0.5)]


def make_cars(rng: np.random.Generator, grid: Grid, parcels: Parcels, ways: Ways, paved: Mask) -> list[Car]:
    """The cars of one date: in the lanes of roads, and parked on paved ground.

    Args:
        rng: Source of randomness.
        grid: The canvas.
        parcels: The plan.
        ways: Its roads.
        paved: Where cars may be parked, H x W.
    """
    lanes = np.flatnonzero((ways.road < -1.3) & (ways.centre > 1.2) & ~ways.crossing)
    parks = np.flatnonzero(paved)
    u, v = parcels.u.ravel()[parks], parcels.v.ravel()[parks]
    parks = parks[(np.abs(np.mod(v, 17.0) - 2.5) < 0.3) & (np.abs(np.mod(u, 2.6) - 1.3) < 0.3)]
    cars = []
    density = float(rng.uniform(0.0, 1.0))
    for places, area, aligned in ((lanes, 260.0, True), (parks, 6.0, False)):
        count = int(rng.poisson(density * len(places) * grid.gsd**2 / area)) if len(places) else 0
        for at in rng.choice(places, count):
            row, col = divmod(int(at), grid.shape[1])
            quarter = int(ways.direction[row, col]) if aligned else 1
            angle = parcels.angle + quarter * np.pi / 2 + rng.normal(0, 0.03)
            lorry = aligned and rng.random() < 0.1
            colour = _PAINT[int(rng.choice(5, p=[0.38, 0.22, 0.2, 0.1, 0.1]))]
            cars.append(Car(float(grid.x[col]), float(grid.y[row]), angle, colour, 9.0 if lorry else 4.5))
    return cars


def stamp_car(layer: Layer, grid: Grid, car: Car) -> None:
    """Draw one car into a layer."""
    window = grid.window(car.x, car.y, car.length)
    a, b = local(grid, window, car.x, car.y, car.angle)
    if not a.size:
        return
    lorry = car.length > 6
    alpha = np.clip(0.5 - _box(a, b, car.length, 2.4 if lorry else 1.9) / np.float32(grid.gsd), 0, 1)
    glass = np.abs(np.abs(a) - car.length * 0.22) < 0.35
    paint = np.where(glass & (not lorry), 0.35, 1.0)[..., None].astype(np.float32) * np.array(car.colour, np.float32)
    layer.colour[window] += (paint - layer.colour[window]) * alpha[..., None]
    layer.alpha[window] = np.maximum(layer.alpha[window], alpha)
    layer.height[window] = np.maximum(layer.height[window], np.where(alpha > 0.5, 2.6 if lorry else 1.4, 0))
