"""Where on the ground an image file lies."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bitemporal.errors import DataError
from bitemporal.imagery.opening import open_dataset, rasterio_is_installed
from bitemporal.imagery.quiet import ignore_missing_places
from bitemporal.reading import reading

_ENDINGS = (".tif", ".tiff", ".jp2")
_SAME = 1e-3  # of a pixel


class _Unreadable(DataError):
    """The place of an image cannot be read."""


@dataclass(frozen=True)
class Place:
    """Where an image lies on the ground.

    Attributes:
        crs: Coordinate reference system as WKT.
        transform: Numbers a, b, c, d, e and f of the affine map from column and row to coordinates.
        shape: Height and width in pixels.
    """

    crs: str
    transform: tuple[float, ...]
    shape: tuple[int, int]

    def is_near(self, other: "Place") -> bool:
        """Whether another image of the same size has the same pixels."""
        pixel = max(abs(value) for value in (*self.transform[:2], *self.transform[3:5]))
        return self.crs == other.crs and all(
            abs(mine - theirs) <= _SAME * pixel for mine, theirs in zip(self.transform, other.transform, strict=True)
        )

    def against(self, other: "Place") -> Literal["same", "beside", "unlike", "elsewhere"]:
        """How the pixels of another image of the same size lie, which are compared row by row.

        Returns:
            ``same``; ``beside``, where most of the ground is shared; ``unlike``, where pixels are turned or of another
            size, or less than half is shared; ``elsewhere``, where nothing is.
        """
        from rasterio.warp import transform_bounds

        if self.is_near(other):
            return "same"
        left, bottom, right, top = self._bounds()
        bounds = other._bounds()
        if other.crs != self.crs:
            try:
                with reading("a place", _Unreadable, ""):
                    bounds = transform_bounds(other.crs, self.crs, *bounds)
            except _Unreadable:  # there is no way from one to the other
                return "elsewhere"
        across = (min(right, bounds[2]) - max(left, bounds[0])) / (right - left)
        down = (min(top, bounds[3]) - max(bottom, bounds[1])) / (top - bottom)
        if not (across > 0 and down > 0):
            return "elsewhere"
        a, b, _, d, e, _ = self.transform
        steps = zip((a, b, d, e), (*other.transform[:2], *other.transform[3:5]), strict=True)
        turned = a * other.transform[0] < 0 or e * other.transform[4] < 0
        other_size = self.crs == other.crs and any(
            abs(mine - theirs) > 0.1 * max(abs(a), abs(b)) for mine, theirs in steps
        )
        return "unlike" if turned or other_size or min(across, down) < 0.5 else "beside"

    def _bounds(self) -> tuple[float, float, float, float]:
        a, b, c, d, e, f = self.transform
        corners = [(x, y) for x in (0, self.shape[1]) for y in (0, self.shape[0])]
        xs, ys = [a * x + b * y + c for x, y in corners], [d * x + e * y + f for x, y in corners]
        return min(xs), min(ys), max(xs), max(ys)


def place_of(path: Path) -> Place | None:
    """The place of a GeoTIFF or JPEG 2000; ``None`` for others, those that cannot be read, and without rasterio."""
    if path.suffix.lower() not in _ENDINGS:
        return None
    if not rasterio_is_installed():
        return None
    ignore_missing_places()
    try:
        with reading(path, _Unreadable, ""), open_dataset(path) as source:
            transform = source.transform
            if source.crs is None or transform.is_identity:
                return None
            if not all(map(math.isfinite, transform)) or transform.determinant == 0:
                return None
            return Place(source.crs.to_wkt(), tuple(transform)[:6], source.shape)
    except _Unreadable:  # reading its pixels will say what is wrong
        return None
