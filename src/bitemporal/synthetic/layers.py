"""What stands on the ground as layers seen from above: colour, cover and height."""

from dataclasses import dataclass

import numpy as np

from bitemporal.synthetic.ground import Grid, Plane


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


def box(a: Plane, b: Plane, length: float, width: float) -> Plane:
    """Signed distance to the rim of a rectangle: negative inside."""
    return np.maximum(np.abs(a) - np.float32(length / 2), np.abs(b) - np.float32(width / 2))
