"""Buildings: where they stand, their footprints and their roofs."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bitemporal.synthetic.ground import Grid, Parcels, Plane, Ways
from bitemporal.synthetic.layers import Layer, box, local
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


def building_distance(building: Building, a: Plane, b: Plane) -> Plane:
    """Signed distance to the rim of a building's footprint in metres, from coordinates of its own axes."""
    distance = box(a, b, building.length, building.width)
    if building.wing:
        wing_length = building.length * WING
        shift_a = (building.length - wing_length) / 2 * (1 if building.variant % 2 else -1)
        shift_b = building.width * building.wing / 2 * (1 if building.variant // 2 % 2 else -1)
        wing = box(a - shift_a, b - shift_b, wing_length, building.width * (1 + building.wing))
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
                unit = box(a - at_a, b - at_b, rng.uniform(1.2, 4.5), rng.uniform(1.2, 3.5)) < 0
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
