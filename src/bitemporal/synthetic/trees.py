"""Trees: where they stand, and their crowns."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bitemporal.synthetic.ground import Grid, Mask, Parcels, Plane, Use, Ways


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
