"""The ground of a synthetic scene: pixel grid, noise, and parcels bounded by roads, tracks and field edges.

Lengths are metres, x to the east and y to the south, from the top left corner of the product. Arrays cover the
*canvas*: the product and a margin around it, so that shadows can fall in from outside and a shifted image has no empty
border.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import scipy.fft

Plane = npt.NDArray[np.float32]
"""One value for every pixel, H x W, or for a list of pixels, N."""
Mask = npt.NDArray[np.bool_]

Use = Literal[
    "crop", "orchard", "grass", "scrub", "wood", "bare", "paved", "water", "houses", "halls", "greenhouse",
    "photovoltaic", "estate", "asphalt", "roof", "cleared",
]  # fmt: skip
"""What a parcel, or the patch of ground that a change replaces, is used for."""
USES: tuple[Use, ...] = get_args(Use)

Setting = Literal["farmland", "village", "industrial", "suburb", "woodland", "ponds", "scrubland", "construction"]
"""The mixture of uses in one part of a scene."""

_MIXTURE: dict[Setting, dict[Use, float]] = {
    "farmland": {"crop": 0.72, "greenhouse": 0.04, "water": 0.05, "wood": 0.07, "grass": 0.06, "houses": 0.06},
    "village": {"houses": 0.42, "crop": 0.22, "grass": 0.10, "wood": 0.12, "orchard": 0.08, "water": 0.06},
    "industrial": {"halls": 0.36, "estate": 0.06, "paved": 0.18, "bare": 0.18, "grass": 0.17, "photovoltaic": 0.05},
    "suburb": {"houses": 0.48, "estate": 0.16, "grass": 0.15, "wood": 0.10, "paved": 0.11},
    "woodland": {"wood": 0.60, "grass": 0.15, "scrub": 0.10, "crop": 0.10, "bare": 0.05},
    "ponds": {"water": 0.50, "crop": 0.22, "wood": 0.15, "grass": 0.08, "houses": 0.05},
    "scrubland": {"scrub": 0.72, "wood": 0.12, "houses": 0.08, "bare": 0.08},
    "construction": {"bare": 0.42, "grass": 0.22, "halls": 0.14, "paved": 0.08, "scrub": 0.14},
}
_SETTING_SHARES: dict[Setting, float] = {
    "farmland": 0.27,
    "village": 0.15,
    "industrial": 0.13,
    "suburb": 0.12,
    "woodland": 0.10,
    "ponds": 0.07,
    "scrubland": 0.09,
    "construction": 0.07,
}
_DISTRICT = 280.0
_ROAD_SIDE, _TRACK_SIDE = 150.0, 85.0
EDGE, TRACK, ROAD = 0, 1, 2
_KEPT = 1 << 20
"""Canvas size in pixels from which copies of noise planes are recomputed each time rather than kept."""


@dataclass(frozen=True)
class Grid:
    """The pixels of a canvas: a product of height x width pixels of ``gsd`` metres, and ``pad`` pixels around it."""

    height: int
    width: int
    gsd: float
    pad: int = 20

    @property
    def shape(self) -> tuple[int, int]:
        """Canvas height and width in pixels."""
        return self.height + 2 * self.pad, self.width + 2 * self.pad

    @property
    def product(self) -> tuple[slice, slice]:
        """The part of the canvas that is the product."""
        return slice(self.pad, self.pad + self.height), slice(self.pad, self.pad + self.width)

    @cached_property
    def x(self) -> Plane:
        """Metres east of the corner, for every column of the canvas."""
        return ((np.arange(self.shape[1], dtype=np.float32) - self.pad + 0.5) * self.gsd).astype(np.float32)

    @cached_property
    def y(self) -> Plane:
        """Metres south of the corner, for every row of the canvas."""
        return ((np.arange(self.shape[0], dtype=np.float32) - self.pad + 0.5) * self.gsd).astype(np.float32)

    def pixel(self, x: float, y: float) -> tuple[int, int]:
        """Row and column of the canvas pixel that holds a point, clipped to the canvas."""
        row, col = int(np.floor(y / self.gsd)) + self.pad, int(np.floor(x / self.gsd)) + self.pad
        return min(max(row, 0), self.shape[0] - 1), min(max(col, 0), self.shape[1] - 1)

    def window(self, x: float, y: float, radius: float) -> tuple[slice, slice]:
        """The canvas pixels within ``radius`` metres of a point, as a square clipped to the canvas (maybe empty)."""
        reach = int(np.ceil(radius / self.gsd)) + 1
        row, col = int(np.floor(y / self.gsd)) + self.pad, int(np.floor(x / self.gsd)) + self.pad
        height, width = self.shape
        return (
            slice(min(max(row - reach, 0), height), min(max(row + reach + 1, 0), height)),
            slice(min(max(col - reach, 0), width), min(max(col + reach + 1, 0), width)),
        )


def smoothstep(values: Plane, low: float, high: float) -> Plane:
    """0 below ``low``, 1 above ``high``, and a smooth ramp between."""
    t = np.clip((values - low) / (high - low), 0.0, 1.0)
    ramp: Plane = (t * t * (3 - 2 * t)).astype(np.float32)
    return ramp


def power_noise(
    rng: np.random.Generator, shape: tuple[int, int], gsd: float, longest: float, shortest: float, slope: float
) -> Plane:
    """Noise with mean 0 and standard deviation 1; its amplitude falls with frequency to the power ``slope``.

    Args:
        rng: Source of randomness.
        shape: H x W.
        gsd: Metres per pixel.
        longest: Wavelength in metres above which the spectrum is empty.
        shortest: Wavelength in metres below which the spectrum is cut off softly.
        slope: Exponent of the decay; 1 gives fractal ground, 0 white noise.
    """
    height, width = (scipy.fft.next_fast_len(n, real=True) for n in shape)
    fy = np.fft.fftfreq(height, gsd).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(width, gsd).astype(np.float32)[None, :]
    frequency = np.sqrt(fx * fx + fy * fy)
    amplitude = np.maximum(frequency, 1.0 / longest) ** -slope * np.exp(-((frequency * shortest) ** 2))
    amplitude[0, 0] = 0.0
    spectrum = scipy.fft.rfft2(rng.standard_normal((height, width), dtype=np.float32), workers=1) * amplitude
    plane = scipy.fft.irfft2(spectrum, (height, width), workers=1)[: shape[0], : shape[1]].astype(np.float32)
    even: Plane = ((plane - plane.mean()) / max(float(plane.std()), 1e-6)).astype(np.float32)
    return even


class Noise:
    """The noise planes behind every texture of a scene; rolled copies serve as additional planes."""

    def __init__(self, rng: np.random.Generator, grid: Grid) -> None:
        """Draw the planes.

        Args:
            rng: Source of randomness.
            grid: The canvas.
        """
        self.shape = grid.shape
        self._planes = {
            "broad": power_noise(rng, grid.shape, grid.gsd, 160.0, 12.0, 1.2),
            "patchy": power_noise(rng, grid.shape, grid.gsd, 40.0, 1.2, 1.1),
            "fine": power_noise(rng, grid.shape, grid.gsd, 6.0, 0.6, 0.5),
        }
        self._copies: dict[tuple[str, int], Plane] = {}
        self.line = rng.standard_normal(4096).astype(np.float32)

    def plane(self, name: Literal["broad", "patchy", "fine"], copy: int = 0) -> Plane:
        """One plane; every ``copy`` has other values at a given pixel.

        Args:
            name: ``broad`` varies over tens of metres, ``patchy`` over metres, ``fine`` over single pixels.
            copy: Number of the copy.
        """
        plane = self._planes[name]
        if copy == 0:
            return plane
        if (name, copy) in self._copies:
            return self._copies[name, copy]
        height, width = self.shape
        rolled = np.roll(plane, (height * 7 * copy // 19, width * 5 * copy // 13), (0, 1))
        # every other copy is turned by 180 degrees, so that the same figure rarely shows twice
        turned = rolled[::-1, ::-1].copy() if copy % 2 else rolled
        if plane.size < _KEPT:
            self._copies[name, copy] = turned
        return turned


@dataclass
class Parcels:
    """The plan of a scene's ground.

    Attributes:
        ids: Number of the parcel at every pixel, H x W.
        u: Coordinate along the plan's first axis in metres, H x W; the plan is rotated and gently bent.
        v: Coordinate along its second axis.
        angle: Angle of the u axis against x, in radians.
        uses: Use of every parcel.
        rectangles: Bounds of every parcel, (u0, v0, u1, v1), N x 4.
        boundary: What runs along each of its four sides (EDGE, TRACK or ROAD), N x 4, in the order of the bounds.
        half_width: Half of that boundary's width in metres, N x 4.
    """

    ids: npt.NDArray[np.int32]
    u: Plane
    v: Plane
    angle: float
    uses: list[Use]
    rectangles: Plane
    boundary: npt.NDArray[np.uint8]
    half_width: Plane

    def place(self, grid: Grid, u: float, v: float) -> tuple[float, float]:
        """The point (x, y) in metres whose plan coordinates are about (u, v)."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        x, y = cos * u - sin * v, sin * u + cos * v
        row, col = grid.pixel(x, y)
        straight_u = cos * float(grid.x[col]) + sin * float(grid.y[row])
        straight_v = -sin * float(grid.x[col]) + cos * float(grid.y[row])
        du, dv = float(self.u[row, col]) - straight_u, float(self.v[row, col]) - straight_v
        return float(x - cos * du + sin * dv), float(y - sin * du - cos * dv)


def _split(
    rng: np.random.Generator, whole: tuple[float, float, float, float], roads: bool, parcel: float
) -> tuple[list[tuple[float, ...]], list[tuple[int, ...]], list[tuple[float, ...]]]:
    """Halve a rectangle repeatedly; long cuts are roads, medium ones tracks, short ones field edges."""
    sides: tuple[tuple[int, ...], tuple[float, ...]] = (EDGE,) * 4, (0.4,) * 4
    stack = [(whole, *sides)]
    rectangles: list[tuple[float, ...]] = []
    boundaries: list[tuple[int, ...]] = []
    halves: list[tuple[float, ...]] = []
    while stack:
        (u0, v0, u1, v1), boundary, half = stack.pop()
        long, axis = max((u1 - u0, 0), (v1 - v0, 1))
        if (u1 - u0) * (v1 - v0) < parcel * rng.uniform(0.5, 1.8) or long < 24.0:
            rectangles.append((u0, v0, u1, v1))
            boundaries.append(boundary)
            halves.append(half)
            continue
        kind, width = EDGE, float(rng.uniform(0.2, 0.8))
        if roads and long > _ROAD_SIDE and rng.random() < 0.72:
            kind, width = ROAD, float(rng.choice([2.8, 3.4, 4.2, 6.5], p=[0.35, 0.3, 0.25, 0.1]))
        elif long > _TRACK_SIDE and rng.random() < 0.5:
            kind, width = TRACK, float(rng.uniform(1.1, 2.0))
        cut = (u0, v0)[axis] + long * float(rng.uniform(0.3, 0.7))
        for side in (0, 1):
            bounds = [u0, v0, u1, v1]
            bounds[axis + 2 * (1 - side)] = cut
            kinds, widths = list(boundary), list(half)
            kinds[axis + 2 * (1 - side)], widths[axis + 2 * (1 - side)] = kind, width
            stack.append(((bounds[0], bounds[1], bounds[2], bounds[3]), tuple(kinds), tuple(widths)))
    return rectangles, boundaries, halves


def _uses(
    rng: np.random.Generator, centres: Plane, setting: Setting | None, avoid: frozenset[Use], only: Use | None
) -> list[Use]:
    """A use for every parcel; districts of a few hundred metres have a setting each, unless one is given."""
    names, shares = list(_SETTING_SHARES), np.array(list(_SETTING_SHARES.values()))
    cells: dict[tuple[int, int], Setting] = {}
    uses: list[Use] = []
    for u, v in centres:
        cell = int(np.floor(u / _DISTRICT)), int(np.floor(v / _DISTRICT))
        if cell not in cells:
            cells[cell] = setting or names[int(rng.choice(len(names), p=shares))]
        mixture = {use: share for use, share in _MIXTURE[cells[cell]].items() if use not in avoid} or {"grass": 1.0}
        options, weights = list(mixture), np.array(list(mixture.values()))
        drawn = options[int(rng.choice(len(options), p=weights / weights.sum()))]
        uses.append(only or drawn)
    return uses


def make_parcels(
    rng: np.random.Generator,
    grid: Grid,
    setting: Setting | None = None,
    avoid: frozenset[Use] = frozenset(),
    only: Use | None = None,
    roads: bool = True,
    straight: bool = False,
) -> Parcels:
    """Draw the plan of a scene.

    Args:
        rng: Source of randomness.
        grid: The canvas.
        setting: One setting for the whole scene; one for every district when ``None``.
        avoid: Uses that must not occur.
        only: One use for all parcels.
        roads: Whether paved roads may run between parcels.
        straight: Whether the plan must not be bent.
    """
    angle = float(rng.uniform(0, np.pi / 2))
    cos, sin = np.cos(angle), np.sin(angle)
    bend = 0.0 if straight else float(rng.choice([0.5, 2.5, 5.0], p=[0.45, 0.4, 0.15]))
    straight_u = (cos * grid.x[None, :] + sin * grid.y[:, None]).astype(np.float32)
    straight_v = (-sin * grid.x[None, :] + cos * grid.y[:, None]).astype(np.float32)
    u = straight_u + bend * power_noise(rng, grid.shape, grid.gsd, 300.0, 80.0, 1.5)
    v = straight_v + bend * power_noise(rng, grid.shape, grid.gsd, 300.0, 80.0, 1.5)
    u0, v0, u1, v1 = float(u.min()) - 1, float(v.min()) - 1, float(u.max()) + 1, float(v.max()) + 1
    parcel = float(rng.uniform(1300, 5200))
    rectangles, boundaries, halves = _split(rng, (u0, v0, u1, v1), roads, parcel)
    bounds = np.array(rectangles, dtype=np.float32)
    step = grid.gsd
    raster = np.zeros((int((v1 - v0) / step) + 2, int((u1 - u0) / step) + 2), dtype=np.int32)
    cells = np.round((bounds - np.array([u0, v0, u0, v0], dtype=np.float32)) / step).astype(np.int64)
    for number, (left, top, right, bottom) in enumerate(cells):
        raster[top : bottom + 1, left : right + 1] = number
    ids = raster[((v - v0) / step).astype(np.int32), ((u - u0) / step).astype(np.int32)]
    centres = ((bounds[:, :2] + bounds[:, 2:]) / 2).astype(np.float32)
    return Parcels(
        ids=ids,
        u=u,
        v=v,
        angle=angle,
        uses=_uses(rng, centres, setting, avoid, only),
        rectangles=bounds,
        boundary=np.array(boundaries, dtype=np.uint8),
        half_width=np.array(halves, dtype=np.float32),
    )


@dataclass(frozen=True)
class Ways:
    """Roads and tracks between the parcels, and the edges of fields.

    Attributes:
        road: Signed distance to the rim of the nearest road in metres, H x W: negative on the road, large far from it.
        track: The same for tracks.
        edge: The same for edges of fields.
        centre: Distance to the centre line of the nearest road in metres.
        along: Coordinate along that road in metres.
        direction: Angle between that road and the plan's u axis, in quarter turns: 0 or 1.
        crossing: Whether two roads cross there.
    """

    road: Plane
    track: Plane
    edge: Plane
    centre: Plane
    along: Plane
    direction: npt.NDArray[np.uint8]
    crossing: Mask


def make_ways(parcels: Parcels) -> Ways:
    """Where the boundaries of parcels run."""
    far = np.float32(1e3)
    rims = {kind: np.full(parcels.ids.shape, far, np.float32) for kind in (EDGE, TRACK, ROAD)}
    centre = np.full(parcels.ids.shape, far, np.float32)
    direction = np.zeros(parcels.ids.shape, np.uint8)
    crossing = np.zeros(parcels.ids.shape, np.uint8)
    for side in range(4):
        axis = parcels.u if side % 2 == 0 else parcels.v
        bound = parcels.rectangles[:, side][parcels.ids]
        distance = np.abs(axis - bound)
        kinds, half = parcels.boundary[:, side], parcels.half_width[:, side]
        for kind, nearest in rims.items():
            if not (kinds == kind).any():
                continue
            # an infinite distance excludes parcels with another kind of side
            reach = np.where(kinds == kind, half, -far).astype(np.float32)[parcels.ids]
            rim = distance - reach
            if kind == ROAD:
                closer = rim < nearest
                crossing += rim < 0
                centre = np.where(closer, distance, centre)
                direction = np.where(closer, np.uint8(1 - side % 2), direction)
            np.minimum(nearest, rim, out=nearest)
    along = np.where(direction == 1, parcels.v, parcels.u)
    return Ways(rims[ROAD], rims[TRACK], rims[EDGE], centre, along, direction, crossing > 1)
