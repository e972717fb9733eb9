"""From the state of the ground at one date to its colours and heights."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.ndimage as ndi

from bitemporal.synthetic.buildings import Building, stamp_building
from bitemporal.synthetic.cars import Car, stamp_car
from bitemporal.synthetic.conditions import Conditions, leaned, lit, sensed
from bitemporal.synthetic.ground import Grid, Mask, Noise, Parcels, Plane, Use, Ways, smoothstep
from bitemporal.synthetic.layers import Layer
from bitemporal.synthetic.surfaces import (
    Surface,
    SurfaceTable,
    asphalt_colour,
    leaf_colours,
    make_surface,
)
from bitemporal.synthetic.trees import Canopy, Trees, stamp_trees


@dataclass
class Ground:
    """What both dates share and need for drawing.

    Attributes:
        grid: The canvas.
        noise: Its noise planes.
        parcels: The plan.
        ways: Its roads, tracks and edges.
        tracks: The same as drawn, colours premultiplied.
        roofs: The buildings that stand at both dates.
        canopy: The trees that stand at both dates.
        seed: Seed for the appearance of surfaces.
    """

    grid: Grid
    noise: Noise
    parcels: Parcels
    ways: Ways
    tracks: Layer
    roofs: Layer
    canopy: Canopy
    seed: int


@dataclass
class State:
    """The ground at one date.

    Attributes:
        ids: Number of the piece of ground at every pixel, H x W: first the parcels, then the patches of changes.
        uses: Use of every piece.
        buildings: Buildings that exist at this date only.
        trees: Trees that exist at this date only.
        cars: Cars of this date.
    """

    ids: npt.NDArray[np.int32]
    uses: list[Use]
    buildings: list[Building]
    trees: Trees
    cars: list[Car]


def _paint(colour: Plane, alpha: Plane, paint: Plane) -> None:
    """Paint one colour, or one colour per pixel, over the pixels with an alpha above 0."""
    on = np.flatnonzero(alpha)
    flat = colour.reshape(-1, 3)
    below = flat[on]
    own = paint.reshape(-1, 3)[on] if paint.ndim == 3 else paint
    flat[on] = below + (own - below) * alpha.ravel()[on, None]


def _surfaces(ground: Ground, state: State, conditions: Conditions, date: int) -> SurfaceTable:
    surfaces: list[Surface] = []
    for number, use in enumerate(state.uses):
        stable = np.random.default_rng([ground.seed, number])
        dated = np.random.default_rng([ground.seed, number, date])
        surfaces.append(make_surface(use, conditions.season, stable, dated))
    return SurfaceTable.of(surfaces)


def _base(ground: Ground, state: State, table: SurfaceTable, date: int) -> Plane:
    """Colours of bare ground, crops and water: two tones in patches, rows and strips of work, and grain."""
    noise, ids, parcels = ground.noise, state.ids.astype(np.intp), ground.parcels
    mixing = 0.85 * noise.plane("patchy") + 0.5 * noise.plane("broad") + 0.5 * noise.plane("patchy", 3 + date)
    share = smoothstep(mixing * 0.8 + (table.patches[ids] * 2 - 1) * 1.2, -0.9, 0.9)
    colour = np.take(table.first, ids, axis=0)
    colour += (np.take(table.second, ids, axis=0) - colour) * share[..., None]
    shade = 1 + table.broad[ids] * noise.plane("broad", 1 + date) + table.patchy[ids] * noise.plane("patchy", 1)
    shade += table.fine[ids] * (0.7 * noise.plane("fine") + 0.7 * noise.plane("fine", 1 + date))
    worked = np.array([use == "crop" for use in state.uses])
    if worked.any():
        on = np.flatnonzero(worked[ids])
        piece = ids.ravel()[on]
        axis = np.where(table.across[piece], parcels.u.ravel()[on], parcels.v.ravel()[on])
        axis += 0.35 * noise.plane("broad", 4).ravel()[on]
        rows = np.sin(axis * (2 * np.pi / table.period[piece]))
        strip = (axis / (3.1 * table.period[piece]) + 37.0 * piece).astype(np.int64) % len(noise.line)
        texture = table.rows[piece] * rows + table.strips[piece] * noise.line[(strip + 977 * date) % len(noise.line)]
        shade.ravel()[on] += texture.astype(np.float32)
    colour *= np.clip(shade, 0.3, 1.8)[..., None]
    return colour


def _banks(ground: Ground, state: State, colour: Plane, height: Plane) -> None:
    """Lower water below its banks, and make the banks bare."""
    water = np.array([use == "water" for use in state.uses])
    if not water.any():
        return
    ponds = water[state.ids]
    dug = ponds & (state.ids >= len(ground.parcels.uses))
    wet = ponds & (ground.ways.edge + 0.5 * ground.noise.plane("broad", 2) > 2.2)
    wet &= (ground.ways.road > 3.0) & (ground.ways.track > 2.0) & ~dug
    if dug.any():
        wet |= ndi.binary_erosion(dug, iterations=max(1, round(1.0 / ground.grid.gsd)), border_value=1)
    height[wet] -= 1.0
    bank = ponds & ~wet
    fine = 1 + 0.08 * ground.noise.plane("patchy", 2)
    colour[bank] = (np.array([0.46, 0.43, 0.32], np.float32) * fine[..., None])[bank]


def draw_ways(rng: np.random.Generator, grid: Grid, noise: Noise, ways: Ways) -> Layer:
    """Field edges, dirt tracks, and paved roads with their lanes, before lighting.

    Args:
        rng: Source of their colours.
        grid: The canvas.
        noise: Its noise planes.
        ways: Where they run.
    """
    layer = Layer.empty(grid.shape)
    gsd = np.float32(grid.gsd)
    grain = (1 + 0.05 * noise.plane("fine") + 0.05 * noise.plane("patchy", 1)).astype(np.float32)

    def lay(alpha: Plane, paint: Plane, texture: Plane) -> None:
        on = np.flatnonzero(alpha > 0)
        share = alpha.ravel()[on]
        flat, cover = layer.colour.reshape(-1, 3), layer.alpha.ravel()
        # colours are premultiplied by the cover so far
        flat[on] += (texture.ravel()[on, None] * paint - flat[on]) * share[:, None]
        cover[on] += (1 - cover[on]) * share

    def within(distance: Plane) -> Plane:
        alpha: Plane = np.clip(0.5 - distance / gsd, 0, 1)
        return alpha

    soil, asphalt = (np.float32(value) for value in rng.uniform(0.9, 1.1, 2))
    lay(np.float32(0.75) * within(ways.edge), np.array([0.40, 0.40, 0.28], np.float32) * soil, grain)
    dirt = np.array([0.64, 0.56, 0.44], np.float32) * soil
    if (ways.track < 2).any():
        lay(np.float32(0.9) * within(ways.track + np.float32(0.3) * noise.plane("patchy", 2)), dirt, grain)
    if (ways.road < 4).any():
        tar = np.array(asphalt_colour(rng), np.float32) * asphalt
        verge = np.float32(rng.uniform(0.6, 2.0))
        lay(np.float32(0.8) * within(ways.road - verge), np.float32(0.5) * dirt + np.float32(0.62) * tar, grain)
        wear = 1 + 0.02 * noise.plane("fine") + 0.03 * noise.plane("broad", 1)
        wear += np.float32(0.03) * np.cos(ways.centre * np.float32(2 * np.pi / 1.75))
        lay(within(ways.road), tar, wear.astype(np.float32))
        if rng.random() < 0.75:
            line = within(ways.centre - np.float32(0.1)) * (np.mod(ways.along, np.float32(9)) < 4.5)
            line += within(np.abs(ways.road + np.float32(0.5)) - np.float32(0.08))
            lay(
                np.float32(0.5) * np.clip(line, 0, 1) * ~ways.crossing,
                np.array([0.86, 0.86, 0.82], np.float32),
                np.ones_like(line),
            )
    return layer


def _lay_ways(ground: Ground, state: State, colour: Plane) -> None:
    """Lay the ways over the ground where no change has replaced them."""
    on = np.flatnonzero((ground.tracks.alpha > 0) & (state.ids < len(ground.parcels.uses)))
    flat = colour.reshape(-1, 3)
    flat[on] = flat[on] * (1 - ground.tracks.alpha.ravel()[on, None]) + ground.tracks.colour.reshape(-1, 3)[on]


def _hash(values: npt.NDArray[np.int64], noise: Noise) -> Plane:
    return noise.line[np.mod(values * 7919, len(noise.line))]


def _straight(ground: Ground, on: npt.NDArray[np.int64], turned: Mask) -> tuple[Plane, Plane]:
    """Coordinates along and across the plan's axes without its bend, for straight structures."""
    grid, angle = ground.grid, ground.parcels.angle
    row, col = np.divmod(on, grid.shape[1])
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = grid.x[col], grid.y[row]
    u, v = cos * x + sin * y, -sin * x + cos * y
    return np.where(turned, v, u), np.where(turned, u, v)


def _greenhouses(ground: Ground, on: npt.NDArray[np.int64], piece: npt.NDArray[np.int32], colour: Plane) -> Plane:
    """Rows of film tunnels; returns their heights and paints their colours over those of the ground."""
    noise = ground.noise
    along, across = _straight(ground, on, _hash(piece.astype(np.int64), noise) > 0)
    period = np.float32(8.4) + np.float32(1.2) * _hash(piece.astype(np.int64) + 5, noise).clip(-1, 1)
    tunnel, run = np.floor(across / period), np.floor(along / 52.0)
    offset = np.abs(across - (tunnel + 0.5) * period)
    half = 0.41 * period
    inside = np.clip(0.5 + (half - offset) / np.float32(ground.grid.gsd), 0, 1)
    inside *= np.clip(0.5 + (25.0 - np.abs(along - (run + 0.5) * 52.0)) / np.float32(ground.grid.gsd), 0, 1)
    number = tunnel.astype(np.int64) * 31 + run.astype(np.int64) * 101
    tone = 1 + 0.06 * _hash(number, noise) + 0.03 * np.sin(along * np.float32(2 * np.pi / 2.0))
    open_film = (_hash(number + 3, noise) > 1.1)[:, None]
    film = np.where(open_film, np.array([0.47, 0.52, 0.44], np.float32), np.array([0.73, 0.76, 0.76], np.float32))
    colour += (film * tone[:, None] - colour) * (0.92 * inside)[:, None]
    height: Plane = np.where(inside > 0.5, 0.8 + 2.0 * np.sqrt(np.clip(1 - (offset / half) ** 2, 0, 1)), 0)
    return height.astype(np.float32)


def _panels(ground: Ground, on: npt.NDArray[np.int64], piece: npt.NDArray[np.int32], colour: Plane) -> Plane:
    """Rows of photovoltaic panels that face south."""
    noise, grid = ground.noise, ground.grid
    row, col = np.divmod(on, grid.shape[1])
    x, y = grid.x[col], grid.y[row]
    period = np.float32(6.2) + np.float32(0.9) * _hash(piece.astype(np.int64) + 7, noise).clip(-1, 1)
    depth = 0.60 * period
    tilt = np.float32(0.08) * _hash(piece.astype(np.int64) + 9, noise)
    across, along = y + tilt * x, x - tilt * y
    line = np.floor(across / period)
    at = across - line * period
    table = np.floor(along / 23.0)
    inside = np.clip(0.5 + (depth / 2 - np.abs(at - depth / 2)) / np.float32(grid.gsd), 0, 1)
    inside *= np.clip(0.5 + (11.2 - np.abs(along - (table + 0.5) * 23.0)) / np.float32(grid.gsd), 0, 1)
    frame = 0.10 * (np.mod(along, 2.1) < 0.5) + 0.10 * (np.abs(at - depth / 2) < 0.3)
    tone = 1 + 0.07 * _hash(line.astype(np.int64) * 17 + table.astype(np.int64), noise)
    blue = np.array([0.17, 0.22, 0.34], np.float32) * tone[:, None] + frame[:, None].astype(np.float32)
    colour += (blue - colour) * inside[:, None]
    # higher in the north, so that they face south
    height: Plane = np.where(inside > 0.5, 0.7 + 0.35 * (depth - at), 0)
    return height.astype(np.float32)


def _bays(ground: Ground, on: npt.NDArray[np.int64], piece: npt.NDArray[np.int32], colour: Plane) -> Plane:
    """The roof of a large factory: bay next to bay, each with a low ridge, some with roof lights."""
    noise = ground.noise
    number = piece.astype(np.int64)
    along, across = _straight(ground, on, _hash(number, noise) > 0)
    period = np.float32(26.0) + np.float32(5.0) * _hash(number + 5, noise).clip(-1, 1)
    bay, block = np.floor(across / period), np.floor(along / 74.0)
    offset = np.abs(across - (bay + 0.5) * period)
    tone = 1 + 0.05 * _hash(bay.astype(np.int64) * 13 + block.astype(np.int64) * 29, noise)
    tone -= 0.22 * (offset > period / 2 - 0.5) + 0.10 * (offset < 0.4) + 0.12 * (np.mod(along, 74.0) < 0.8)
    tone -= 0.05 * (np.mod(along, 6.0) < 0.5)
    lights = (np.mod(along, 12.0) > 9.5) & (np.abs(offset - period / 4) < 2.2) & (_hash(number + 2, noise) > 0)
    colour *= (tone + 0.14 * lights)[:, None]
    return (9.0 + 0.10 * (period / 2 - offset)).astype(np.float32)


def _paving(ground: Ground, on: npt.NDArray[np.int64], piece: npt.NDArray[np.int32], colour: Plane) -> None:
    """Joints between slabs, and on some the lines of parking bays."""
    parcels, noise = ground.parcels, ground.noise
    u, v = parcels.u.ravel()[on], parcels.v.ravel()[on]
    joint = (np.mod(u, 5.0) < 0.5) | (np.mod(v, 5.0) < 0.5)
    tone = 1 - 0.05 * joint
    parking = (_hash(piece.astype(np.int64) + 11, noise) > -0.3) & (np.mod(v, 17.0) < 5.0)
    colour *= tone[:, None]
    marks = parking & (np.mod(u, 2.6) < 0.5)
    colour += (0.86 - colour) * (0.45 * marks[:, None]).astype(np.float32)


def _lanes(ground: Ground, on: npt.NDArray[np.int64], colour: Plane) -> None:
    """Wear of a new road's surface."""
    fine = ground.noise.plane("broad", 3).ravel()[on]
    colour *= (1 + 0.03 * fine)[:, None]


def draw(
    ground: Ground, state: State, conditions: Conditions, date: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Draw the image of one date.

    Args:
        ground: What both dates share.
        state: The ground at this date.
        conditions: How the image is taken.
        date: 0 or 1.
        rng: Source of the haze and the sensor's noise.

    Returns:
        Height x width x 3 of the product.
    """
    grid = ground.grid
    table = _surfaces(ground, state, conditions, date)
    colour = _base(ground, state, table, date)
    height = np.zeros(grid.shape, np.float32)
    _banks(ground, state, colour, height)
    _lay_ways(ground, state, colour)
    flat, high = colour.reshape(-1, 3), height.reshape(-1)
    off_road = _off_ways(ground, state)
    for use in dict.fromkeys(state.uses):
        if use not in ("greenhouse", "photovoltaic", "roof", "paved", "asphalt"):
            continue
        wanted = np.array([u == use for u in state.uses])
        on = np.flatnonzero(wanted[state.ids] & off_road)
        piece = state.ids.ravel()[on]
        own = flat[on]
        match use:
            case "greenhouse":
                high[on] = _greenhouses(ground, on, piece, own)
            case "photovoltaic":
                high[on] = _panels(ground, on, piece, own)
            case "roof":
                high[on] = _bays(ground, on, piece, own)
            case "paved":
                _paving(ground, on, piece, own)
            case "asphalt":
                _lanes(ground, on, own)
        flat[on] = own
    solid = _stand(ground, state, conditions, date, colour, height)
    view = leaned(lit(colour, height, grid, conditions), height, solid, grid, conditions)
    return sensed(view, grid, conditions, rng)


def _off_ways(ground: Ground, state: State) -> Mask:
    ways = ground.ways
    off: Mask = (ways.road > 0.5) & (ways.track > 0.3) & (ways.edge > 1.5)
    return off | (state.ids >= len(ground.parcels.uses))


def _stand(ground: Ground, state: State, conditions: Conditions, date: int, colour: Plane, height: Plane) -> Mask:
    """Put buildings, cars and trees on the ground; returns where buildings and cars show."""
    grid = ground.grid
    things = ground.roofs.copy()
    for building in state.buildings:
        stamp_building(things, grid, building)
    for car in state.cars:
        stamp_car(things, grid, car)
    grain = 1 + 0.025 * ground.noise.plane("fine", 2) + 0.025 * ground.noise.plane("patchy", 4)
    _paint(colour, things.alpha, things.colour * grain[..., None])
    np.copyto(height, things.height, where=things.alpha >= 0.5)
    canopy = ground.canopy.copy()
    stamp_trees(canopy, grid, state.trees)
    seen = canopy.height > np.maximum(height, 0.3)
    deciduous, evergreen = leaf_colours(np.random.default_rng([ground.seed, 2, date]), conditions.season)
    share = canopy.evergreen[seen][:, None]
    leaves = np.array(deciduous, np.float32) * (1 - share) + np.array(evergreen, np.float32) * share
    grain = 1 + 0.10 * ground.noise.plane("fine", 1)
    colour[seen] = leaves * (canopy.tone * grain)[seen][:, None]
    height[seen] = canopy.height[seen]
    return (things.alpha >= 0.5) & ~seen
