"""Polygons of a vector file, seen on the pixels of a grid."""

import hashlib
import os
from pathlib import Path

import geopandas
import numpy as np
import numpy.typing as npt
import pyogrio
import pyproj
import shapely
from affine import Affine
from pyproj.exceptions import CRSError
from rasterio import features
from rasterio.windows import Window

from bitemporal.errors import DataError
from bitemporal.files import not_there
from bitemporal.reading import reading
from bitemporal.scenes.geometry import Grid
from bitemporal.scenes.vector_files import JSON, check_vector, read_geojson

VECTORS = (".gpkg", ".geojson", ".json", ".shp", ".parquet")
"""Endings of the vector files that are read."""

_PARTS = 256
"""Sides of polygons in another CRS are cut so that this many cross the file's extent: they stay where they were."""


class PolygonsOnGrid:
    """The polygons of a vector file, in the CRS of a grid, read once and drawn window by window.

    Attributes:
        polygons: The polygons that meet the grid.
        digest: A hash of these polygons.
    """

    def __init__(self, path: str | os.PathLike[str], grid: Grid, option: str, may_be_empty: bool = False) -> None:
        """Read the file.

        Args:
            path: GeoPackage, GeoJSON, shapefile or GeoParquet.
            grid: Pixels that the polygons are drawn on.
            option: What the file was given as, for messages.
            may_be_empty: Whether a file without a polygon is taken: it covers no pixel.

        Raises:
            DataError: When it cannot be read, holds something else than polygons, has no CRS where the grid has one, or
                lies beside the grid.
        """
        self.grid = grid
        table = _read(Path(path), option)
        with reading(f"{option}: {path}", DataError, "expected georeferenced polygons: write it again"):
            placed = _on_grid(table, grid, f"{option}: {path}")
            found = np.asarray(placed.values, object)
        if not len(found) and not may_be_empty:
            raise DataError(f"{option}: {path} holds no polygon; expected at least one: give a file that has some")
        frame = shapely.box(0, 0, grid.width, grid.height)
        corners = shapely.transform(frame, lambda points: np.stack(grid.transform @ tuple(points.T), axis=1))
        near = np.asarray(shapely.intersects(corners, found), bool)
        if len(found) and not near.any():
            raise DataError(
                f"{option}: {path} does not overlap the pixels: its polygons cover {_extent(found)}, the pixels "
                f"{_extent(np.array([corners]))} ({_name(grid)}); check that it shows the same place and that its CRS "
                "is right"
            )
        self.polygons: npt.NDArray[np.object_] = found[near]
        self.digest = hashlib.sha256(b"".join(shapely.to_wkb(self.polygons))).hexdigest()
        self._tree = shapely.STRtree(self.polygons)

    def covers(self, window: Window, shape: tuple[int, int] | None = None) -> npt.NDArray[np.bool_]:
        """Pixels of a window whose centre lies in a polygon.

        Args:
            window: Columns and rows of the grid.
            shape: Height and width to decimate to; by default those of the window.
        """
        height, width = shape or (int(window.height), int(window.width))
        shrink = Affine.scale(window.width / width, window.height / height)
        transform = self.grid.transform @ Affine.translation(window.col_off, window.row_off) @ shrink
        ends = np.array([transform @ corner for corner in ((0, 0), (width, 0), (0, height), (width, height))])
        here = self._tree.query(shapely.box(*ends.min(axis=0), *ends.max(axis=0)))
        if not len(here):
            return np.zeros((height, width), np.bool_)
        drawn: npt.NDArray[np.uint8] = features.rasterize(
            self.polygons[np.sort(here)], (height, width), transform=transform, dtype=np.uint8
        )
        return drawn.astype(np.bool_)


def _read(path: Path, option: str) -> geopandas.GeoDataFrame:
    """The polygons of a file, whatever else its rows hold."""
    if path.suffix.lower() not in VECTORS:
        raise DataError(f"{option}: found {path}, expected a vector file: {', '.join(VECTORS)}")
    if not path.is_file():
        raise DataError(f"{option}: {not_there(path, 'file')}; expected a vector file: correct the path")
    remedy = "expected GeoPackage, GeoJSON, shapefile or GeoParquet: write it again"
    with reading(f"{option}: {path}", DataError, remedy):
        kind = path.suffix.lower()
        check_vector(path)
        if kind == ".parquet":
            table = geopandas.read_parquet(path)
        elif kind in JSON:
            table = read_geojson(path)
        else:
            layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
            if len(layers) > 1:
                raise DataError(
                    f"{option}: {path} has the layers {', '.join(layers)}; expected one: write it alone, as in "
                    f"`geopandas.read_file({str(path)!r}, layer={layers[0]!r}).to_file('one.gpkg')`"
                )
            # named, as a GeoPackage may hold tables without shapes too, such as the styles of QGIS
            table = geopandas.read_file(path, engine="pyogrio", layer=layers[0] if layers else None, columns=[])
    if not isinstance(table, geopandas.GeoDataFrame):
        raise DataError(f"{option}: {path}: holds a table without shapes; expected polygons: give a file that has some")
    with reading(f"{option}: {path}", DataError, remedy):
        table = table[~(table.geometry.is_empty | table.geometry.isna())]
        kinds = set(table.geometry.geom_type)
    if strange := sorted(kinds - {"Polygon", "MultiPolygon"}):
        raise DataError(
            f"{option}: {path}: holds {', '.join(strange)}; expected polygons, as only these cover pixels: leave the "
            "others out, or give them a width (geopandas: buffer)"
        )
    return table


def _on_grid(table: geopandas.GeoDataFrame, grid: Grid, name: str) -> geopandas.GeoSeries:
    """Shapes in the CRS of a grid."""
    shapes = table.geometry.force_2d()
    if (shapes.crs is None) != (grid.crs is None):
        lost, kept = ("the file", "the pixels have") if shapes.crs is None else ("the raster", "the file has")
        raise DataError(
            f"{name}: {lost} has no CRS, but {kept} {_name(grid) if shapes.crs is None else shapes.crs.to_string()}; "
            "expected both or neither: write it with the CRS of its coordinates (geopandas: set_crs)"
        )
    if grid.crs is None or not len(shapes):
        return shapes
    crs = pyproj.CRS.from_wkt(grid.crs.to_wkt())
    if shapes.crs == crs:
        return shapes
    left, bottom, right, top = shapes.total_bounds
    side = max(right - left, top - bottom) / _PARTS
    try:
        placed = (shapes.segmentize(side) if side > 0 else shapes).to_crs(crs)
    except (CRSError, pyproj.exceptions.ProjError) as error:
        raise DataError(f"{name}: cannot be converted to {_name(grid)} ({error}); check its CRS") from error
    if not np.isfinite(placed.total_bounds).all():
        raise DataError(f"{name}: cannot be expressed in {_name(grid)}; check its CRS")
    return placed


def _name(grid: Grid) -> str:
    return "no CRS" if grid.crs is None else str(grid.crs.to_string())


def _extent(shapes: npt.NDArray[np.object_]) -> str:
    left, bottom, right, top = shapely.total_bounds(shapes)
    return f"{left:.6g} to {right:.6g}, {bottom:.6g} to {top:.6g}"
