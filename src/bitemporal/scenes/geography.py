"""Areas on the ground."""

import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from shapely.geometry.base import BaseGeometry

from bitemporal.scenes.sources import Grid

_MOST_DISTORTION = 0.01
"""Where a projection distorts areas by a larger fraction, they are taken on the ellipsoid instead."""


def has_areas(crs: CRS | None) -> bool:
    """Whether pixels have a known area: those of local grids, of unknown place and unit, have none."""
    return crs is not None and (crs.is_geographic or crs.is_projected)


def is_geodesic(crs: CRS, x: float, y: float) -> bool:
    """Whether areas in a CRS must be taken on the ellipsoid.

    This holds for longitude and latitude, and for projections that do not keep areas, such as Web Mercator.

    Args:
        crs: CRS of the coordinates.
        x: Coordinate of a place in the scene.
        y: Coordinate of the same place.
    """
    if crs.is_geographic:
        return True
    try:
        projection = pyproj.Proj(_projected(crs))
        scale = projection.get_factors(*projection(x, y, inverse=True)).areal_scale
    except ProjError:  # this projection has no such factors
        return False
    return bool(np.isfinite(scale) and abs(scale - 1.0) > _MOST_DISTORTION)


def _projected(crs: CRS) -> pyproj.CRS:
    return pyproj.CRS.from_wkt(crs.to_wkt())


class Areas:
    """Areas of geometries in a CRS, in square metres."""

    def __init__(self, grid: Grid) -> None:
        """Args: grid: Pixels of the scene; ``has_areas`` must hold for their CRS."""
        assert grid.crs is not None
        x, y = grid.transform @ (grid.width / 2, grid.height / 2)
        self.geodesic = is_geodesic(grid.crs, x, y)
        self.geod = _projected(grid.crs).get_geod() or pyproj.Geod(ellps="WGS84")
        self.metres = 1.0 if grid.crs.is_geographic else float(grid.crs.linear_units_factor[1])
        self._to_degrees = None
        if self.geodesic and not grid.crs.is_geographic:
            projected = _projected(grid.crs)
            self._to_degrees = pyproj.Transformer.from_crs(projected, projected.geodetic_crs, always_xy=True)

    def of(self, geometry: BaseGeometry) -> float:
        """Area of a polygon without its holes."""
        if not self.geodesic:
            return float(geometry.area) * self.metres**2
        if self._to_degrees is not None:
            geometry = shapely.transform(geometry, self._degrees)
        area, _ = self.geod.geometry_area_perimeter(geometry)
        return abs(float(area))

    def of_all(self, geometries: npt.NDArray[np.object_]) -> npt.NDArray[np.float64]:
        """Areas of many polygons."""
        if not self.geodesic:
            return np.asarray(shapely.area(geometries) * self.metres**2, np.float64)
        return np.array([self.of(geometry) for geometry in geometries], np.float64)

    def _degrees(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        assert self._to_degrees is not None
        return np.stack(self._to_degrees.transform(*points.T), axis=1)

    def of_pixels(self, grid: Grid) -> npt.NDArray[np.float64]:
        """Area of one pixel of every row."""
        if not self.geodesic:
            return np.full(grid.height, -grid.transform.a * grid.transform.e * self.metres**2)
        middle = grid.width // 2
        # areas change slowly from row to row: some are measured, the others interpolated
        rows = np.unique(np.linspace(0, grid.height - 1, min(grid.height, 257)).round().astype(int))
        areas = []
        for row in rows:
            left, top = grid.transform @ (middle, int(row))
            right, bottom = grid.transform @ (middle + 1, int(row) + 1)
            areas.append(self.of(shapely.box(left, bottom, right, top)))
        return np.interp(np.arange(grid.height), rows, areas)


def changed_hectares(
    grid: Grid, changed: npt.NDArray[np.int64], valid: npt.NDArray[np.int64]
) -> tuple[float | None, float | None]:
    """Area of changed and of valid pixels in hectares; ``None`` for images without a place.

    Args:
        grid: Pixels of the scene.
        changed: Number of changed pixels of every row.
        valid: Number of valid pixels of every row.
    """
    if not has_areas(grid.crs):
        return None, None
    areas = Areas(grid).of_pixels(grid) / 1e4
    return float((changed * areas).sum()), float((valid * areas).sum())
