"""Changed areas as polygons, with their area and how probable they are."""

from pathlib import Path
from typing import Any, cast

import geopandas
import numpy as np
import numpy.typing as npt
import pyogrio
import rasterio
import shapely
from affine import Affine
from rasterio import features
from shapely.coords import CoordinateSequence
from shapely.geometry import Polygon, shape

from bitemporal.scenes.drawing import Drawing
from bitemporal.scenes.geography import areas, has_areas
from bitemporal.scenes.geometry import Grid
from bitemporal.scenes.kinds import FIELDS, FORMATS, style
from bitemporal.scenes.outputs import CHANGED
from bitemporal.scenes.rasters import row_windows

_PIXELS_AT_ONCE = 4_000_000

_SMALL = 16
"""Polygons of fewer pixels do not have their stairs straightened."""


def write_polygons(path: Path, mask: Path, probability: Path, drawing: Drawing) -> int:
    """Write the changed areas: pixels joined by their sides, holes kept.

    Fields: ``id`` from 1, ``area_m2`` (on the ellipsoid where the CRS does not keep areas; empty for images without a
    place), ``pixels``, ``mean_probability`` and ``max_probability`` of its pixels, and ``confidence``: where the mean
    lies between the threshold (0) and certainty (1), (mean - threshold) / (1 - threshold).

    Args:
        path: File to write; its ending chooses the format.
        mask: Raster of the change mask.
        probability: Raster of the probabilities.
        drawing: What they are made with, among it the options ``minimum_area`` and ``smooth``.

    Returns:
        The number of polygons.

    Raises:
        OSError: When it cannot be written, or the rasters cannot be read.
        DataSourceError: When GDAL cannot write it.
        FeatureError: When GDAL cannot write a polygon.
    """
    grid, options = drawing.grid, drawing.options
    outlines = _outlines(mask, grid)
    pixels = np.rint(shapely.area(outlines)).astype(np.int64)  # their sides are those of pixels
    # areas are those of the pixels, whatever the corners look like
    placed = has_areas(grid.crs)
    metres = areas(_transformed(outlines, grid.transform), grid) if placed else np.full(len(outlines), np.nan)
    kept = (metres if placed else pixels) >= options.minimum_area
    outlines, pixels, metres = outlines[kept], pixels[kept], metres[kept]
    drawn = np.array([_smoothed(outline) for outline in outlines], object) if options.smooth else outlines
    means, maxima = _probabilities(outlines, pixels, probability)
    numbers = np.arange(1, len(outlines) + 1)
    confidence = np.clip((means - options.threshold) / (1 - options.threshold), 0, 1)
    table = geopandas.GeoDataFrame(
        dict(zip(FIELDS, (numbers, metres, pixels, means, maxima, confidence), strict=True)),
        geometry=list(_transformed(drawn, grid.transform)),
        crs=None if grid.crs is None else grid.crs.to_wkt(),
    )
    write_table(table, path)
    return len(table)


def write_table(table: geopandas.GeoDataFrame, path: Path) -> None:
    """Write polygons in the format of the name's ending; the same polygons give the same bytes.

    Raises:
        OSError: When they cannot be written.
        DataSourceError: When GDAL cannot write them.
        FeatureError: When GDAL cannot write a polygon.
    """
    kind = FORMATS[path.suffix.lower()]
    if kind == "Parquet":
        table.to_parquet(path, compression="zstd")
        return
    if kind == "GeoJSON":
        table = table.to_crs(4326)  # RFC 7946 knows no other
    # files made from the same images are the same: a fixed date instead of today's
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "1970-01-01T00:00:00.000Z"})
    try:
        options: dict[str, Any] = {"RFC7946": "YES"} if kind == "GeoJSON" else {}
        table.to_file(path, driver=kind, engine="pyogrio", layer=path.stem, geometry_type="Polygon", **options)
        if kind == "GPKG":
            _keep_style(path)
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def _keep_style(path: Path) -> None:
    """Put the style into a GeoPackage, where QGIS looks for it."""
    rows = geopandas.GeoDataFrame(
        {
            "f_table_catalog": [""],
            "f_table_schema": [""],
            "f_table_name": [path.stem],
            "f_geometry_column": ["geom"],
            "styleName": ["change"],
            "styleQML": [style("polygons")],
            "styleSLD": [""],
            "useAsDefault": [True],
            "description": ["changed areas"],
            "owner": [""],
            "ui": [""],
            "update_time": ["1970-01-01T00:00:00.000Z"],
        }
    )
    pyogrio.write_dataframe(rows, path, layer="layer_styles", driver="GPKG", append=False)


def _outlines(mask: Path, grid: Grid) -> npt.NDArray[np.object_]:
    """Polygons of changed pixels, in columns and rows; GDAL reads the mask line by line."""
    with rasterio.open(mask) as source:
        band = rasterio.band(source, 1)
        # the mask of itself: unchanged pixels, which are 0, are not outlined
        outlines = [
            shape(geometry) for geometry, value in features.shapes(band, mask=band, connectivity=4) if value == CHANGED
        ]
    # GDAL gives places on the ground; corners of pixels are whole columns and rows
    return shapely.transform(_transformed(np.array(outlines, dtype=object), ~grid.transform), np.rint)


def _transformed(geometries: npt.NDArray[np.object_], transform: Affine) -> npt.NDArray[np.object_]:
    """Geometries with every point transformed."""
    turn = np.array([[transform.a, transform.d], [transform.b, transform.e]])
    return shapely.transform(geometries, lambda points: points @ turn + (transform.c, transform.f))


def _smoothed(polygon: Polygon) -> Polygon:
    """Stairs of a pixel straightened, then corners cut twice (Chaikin 1974); the shape itself where that breaks it."""
    # shapes of a few pixels would lose too much of themselves
    simple = cast(Polygon, polygon.simplify(0.75)) if polygon.area >= _SMALL else polygon
    smooth = Polygon(_cut(simple.exterior.coords), [_cut(ring.coords) for ring in simple.interiors])
    if not smooth.is_valid or smooth.is_empty or not isinstance(smooth, Polygon):
        return polygon
    return smooth


def _cut(coordinates: CoordinateSequence) -> npt.NDArray[np.float64]:
    ring = np.asarray(coordinates)[:-1]
    for most in (0.7, 0.2):  # pixels that are cut off at a corner at most, where the sides are long
        side = np.roll(ring, -1, axis=0) - ring
        length = np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-9)
        off = side * np.minimum(0.25, most / length)
        ring = np.stack((ring + off, ring + side - off), axis=1).reshape(-1, 2)
    return np.concatenate((ring, ring[:1]))


def _probabilities(
    outlines: npt.NDArray[np.object_], pixels: npt.NDArray[np.int64], probability: Path
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and largest probability of the pixels of every polygon; every row is read once, some rows at a time."""
    sums, maxima = np.zeros((2, len(outlines)))
    _, tops, _, bottoms = shapely.bounds(outlines).T if len(outlines) else np.zeros((4, 0))
    with rasterio.open(probability) as source:
        for window in row_windows(source, _PIXELS_AT_ONCE):
            here = np.flatnonzero((tops < window.row_off + window.height) & (bottoms > window.row_off))
            if not len(here):
                continue
            numbers = features.rasterize(
                zip(outlines[here], range(1, len(here) + 1), strict=True),
                out_shape=(window.height, window.width),
                transform=Affine.translation(0, window.row_off),
                dtype=np.int32,
            )
            inside = numbers > 0
            values = source.read(1, window=window)[inside]
            sums[here] += np.bincount(numbers[inside], weights=values, minlength=len(here) + 1)[1:]
            np.maximum.at(maxima, here[numbers[inside] - 1], values)
    return sums / np.maximum(pixels, 1), maxima
