"""Cars in the lanes of roads and on paved ground."""

from dataclasses import dataclass, field

import numpy as np

from bitemporal.synthetic.ground import Grid, Mask, Parcels, Ways
from bitemporal.synthetic.layers import Layer, box, local
from bitemporal.synthetic.surfaces import Colour


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
    alpha = np.clip(0.5 - box(a, b, car.length, 2.4 if lorry else 1.9) / np.float32(grid.gsd), 0, 1)
    glass = np.abs(np.abs(a) - car.length * 0.22) < 0.35
    paint = np.where(glass & (not lorry), 0.35, 1.0)[..., None].astype(np.float32) * np.array(car.colour, np.float32)
    layer.colour[window] += (paint - layer.colour[window]) * alpha[..., None]
    layer.alpha[window] = np.maximum(layer.alpha[window], alpha)
    layer.height[window] = np.maximum(layer.height[window], np.where(alpha > 0.5, 2.6 if lorry else 1.4, 0))
