"""Areas on the ground."""

import geopandas
import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from pyproj.crs import ProjectedCRS
from pyproj.crs.coordinate_operation import LambertCylindricalEqualAreaConversion
from pyproj.exceptions import ProjError
from rasterio.crs import CRS

from bitemporal.scenes.geometry import Grid

_MOST_DISTORTION = 0.01
"""Areas are not taken in a projection that distorts them by a larger fraction."""


def has_areas(crs: CRS | None) -> bool:
    """Whether pixels have a known area: those of local grids, of unknown place and unit, have none."""
    return crs is not None and (crs.is_geographic or crs.is_projected)


def areas(polygons: npt.NDArray[np.object_], grid: Grid) -> npt.NDArray[np.float64]:
    """Areas on the ground in square metres.

    They are taken in the scene's CRS, or in an equal-area projection of the same ellipsoid where that has degrees, or
    does not keep areas, such as Web Mercator.

    Args:
        polygons: Polygons in the CRS of the grid.
        grid: Pixels of the scene; ``has_areas`` must hold for their CRS.
    """
    assert grid.crs is not None
    crs = pyproj.CRS.from_wkt(grid.crs.to_wkt())
    placed = geopandas.GeoSeries(polygons, crs=crs)
    if grid.crs.is_projected and _keeps_areas(grid):
        return np.asarray(placed.area, np.float64) * float(grid.crs.linear_units_factor[1]) ** 2
    equal_area = ProjectedCRS(LambertCylindricalEqualAreaConversion(), geodetic_crs=crs.geodetic_crs)
    return np.asarray(placed.to_crs(equal_area).area, np.float64)


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


def hectares(grid: Grid, pixels: npt.NDArray[np.int64]) -> float | None:
    """Area of some pixels in hectares; ``None`` for images without a place.

    Args:
        grid: Pixels of the scene.
        pixels: Number of these pixels in every row.
    """
    if not has_areas(grid.crs):
        return None
    middle, rows = grid.width // 2, range(grid.height)
    corners = ((0, 0), (1, 0), (1, 1), (0, 1))
    outlines = [[grid.transform @ (middle + across, row + down) for across, down in corners] for row in rows]
    areas_of_rows = areas(np.asarray(shapely.polygons(outlines), object), grid)
    return float((pixels * (areas_of_rows / 1e4)).sum())
