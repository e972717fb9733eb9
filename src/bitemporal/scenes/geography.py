"""Areas on the ground."""

import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from pyproj.crs import ProjectedCRS
from pyproj.crs.coordinate_operation import LambertCylindricalEqualAreaConversion
from pyproj.exceptions import ProjError
from rasterio.crs import CRS

from bitemporal.scenes.sources import Grid

_MOST_DISTORTION = 0.01
"""Areas are not taken in a projection that distorts them by a larger fraction."""


def has_areas(crs: CRS | None) -> bool:
    """Whether pixels have a known area: those of local grids, of unknown place and unit, have none."""
    return crs is not None and (crs.is_geographic or crs.is_projected)


class Areas:
    """Areas on the ground of what lies on a scene's grid, in square metres.

    They are taken in the scene's CRS, or in an equal-area projection of the same ellipsoid where that has degrees, or
    does not keep areas, such as Web Mercator.
    """

    def __init__(self, grid: Grid) -> None:
        """Args: grid: Pixels of the scene; ``has_areas`` must hold for their CRS."""
        assert grid.crs is not None
        self.grid = grid
        self._to_equal_area: pyproj.Transformer | None = None
        if grid.crs.is_projected and _keeps_areas(grid):
            self._square_metres = float(grid.crs.linear_units_factor[1]) ** 2
        else:
            own = pyproj.CRS.from_wkt(grid.crs.to_wkt())
            equal_area = ProjectedCRS(LambertCylindricalEqualAreaConversion(), geodetic_crs=own.geodetic_crs)
            self._to_equal_area = pyproj.Transformer.from_crs(own, equal_area, always_xy=True)
            self._square_metres = 1.0

    def of(self, polygons: npt.NDArray[np.object_]) -> npt.NDArray[np.float64]:
        """Areas of polygons in the CRS of the scene, without their holes."""
        if self._to_equal_area is not None:
            project = self._to_equal_area.transform
            polygons = shapely.transform(polygons, lambda points: np.stack(project(*points.T), axis=1))
        return np.asarray(shapely.area(polygons) * self._square_metres, np.float64)

    def of_pixels(self) -> npt.NDArray[np.float64]:
        """Area of one pixel of every row."""
        rows, middle = np.arange(self.grid.height), self.grid.width // 2
        transform = self.grid.transform
        left, right = (transform.a * column + transform.c for column in (middle, middle + 1))
        top, bottom = (transform.e * edge + transform.f for edge in (rows, rows + 1))
        return self.of(shapely.box(*np.stack(np.broadcast_arrays(left, bottom, right, top))))


def _keeps_areas(grid: Grid) -> bool:
    """Whether a projection keeps areas in the middle of a scene."""
    assert grid.crs is not None
    projection = pyproj.Proj(pyproj.CRS.from_wkt(grid.crs.to_wkt()))
    try:
        place = projection(*(grid.transform @ (grid.width / 2, grid.height / 2)), inverse=True)
        scale = projection.get_factors(*place).areal_scale
    except ProjError:  # this projection has no such factors
        return True
    return bool(not np.isfinite(scale) or abs(scale - 1.0) <= _MOST_DISTORTION)


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
    areas = Areas(grid).of_pixels() / 1e4
    return float((changed * areas).sum()), float((valid * areas).sum())
