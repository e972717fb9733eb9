"""Changed areas as polygons, with area and mean probability."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import geopandas
import numpy as np
import numpy.typing as npt
import pyogrio
import rasterio
import shapely
from affine import Affine
from pyogrio.errors import DataSourceError, FeatureError
from rasterio import features
from shapely.coords import CoordinateSequence
from shapely.geometry import Polygon, shape

from bitemporal.files import unwritable
from bitemporal.scenes.geography import Areas, has_areas
from bitemporal.scenes.journal import CHANGED, Journal
from bitemporal.scenes.options import SceneOptions
from bitemporal.scenes.rawrasters import raw_raster
from bitemporal.scenes.sources import Grid

FORMATS: Mapping[str, str] = {
    ".gpkg": "GPKG",
    ".parquet": "Parquet",
    ".geojson": "GeoJSON",
    ".json": "GeoJSON",
}
"""Formats by the end of the file's name."""

_PIXELS_AT_ONCE = 4_000_000

_SMALL = 16
"""Pixels below which a polygon's stairs are not straightened."""


def write_polygons(path: Path, target: Path, journal: Journal, grid: Grid, options: SceneOptions, style: str) -> int:
    """Write the changed areas: pixels joined by their sides, holes kept.

    Fields: ``id`` from 1, ``area_m2`` (on the ellipsoid where the CRS does not keep areas; not for images without a
    place), ``pixels``, ``mean_probability``.

    Args:
        path: Whose end chooses the format.
        target: What it will be called, for messages.
        journal: With all strips done.
        grid: Of the scene.
        options: Their ``minimum_area`` and ``smooth``.
        style: QGIS style, for a GeoPackage.

    Returns:
        The number of polygons.

    Raises:
        DataError: When it cannot be written.
    """
    try:
        outlines = np.array(list(_outlines(journal, grid)), dtype=object)
    except OSError as error:
        raise unwritable(target, error) from error
    pixels = np.rint(shapely.area(outlines)).astype(np.int64)  # their sides are those of pixels
    # the area is that of the pixels, whatever the corners look like
    if has_areas(grid.crs):
        areas = Areas(grid).of_all(shapely.transform(outlines, partial(_on_ground, transform=grid.transform)))
        kept = areas >= options.minimum_area
    else:
        areas = np.full(len(outlines), np.nan)
        kept = pixels >= options.minimum_area
    outlines, pixels, areas = outlines[kept], pixels[kept], areas[kept]
    drawn = np.array([_smoothed(outline) for outline in outlines], object) if options.smooth else outlines
    table = geopandas.GeoDataFrame(
        {
            "id": np.arange(1, len(outlines) + 1),
            "area_m2": areas,
            "pixels": pixels,
            "mean_probability": _means(outlines, pixels, journal),
        },
        geometry=list(shapely.transform(drawn, partial(_on_ground, transform=grid.transform))),
        crs=None if grid.crs is None else grid.crs.to_wkt(),
    )
    try:
        _write(table, path, FORMATS[path.suffix.lower()], path.stem, style)
    except (DataSourceError, FeatureError, OSError) as error:
        path.unlink(missing_ok=True)
        raise unwritable(target, error) from error
    return len(table)


def _write(table: geopandas.GeoDataFrame, path: Path, kind: str, layer: str, style: str) -> None:
    if kind == "Parquet":
        table.to_parquet(path, compression="zstd")
        return
    if kind == "GeoJSON":
        table = table.to_crs(4326)  # RFC 7946 knows no other
    # files made from the same images are the same: a fixed date instead of today's
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "1970-01-01T00:00:00.000Z"})
    try:
        options: dict[str, Any] = {"RFC7946": "YES"} if kind == "GeoJSON" else {}
        table.to_file(path, driver=kind, engine="pyogrio", layer=layer, geometry_type="Polygon", **options)
        if kind == "GPKG":
            _keep_style(path, layer, style)
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def _keep_style(path: Path, layer: str, style: str) -> None:
    """Put a style into a GeoPackage, where QGIS looks for it."""
    rows = geopandas.GeoDataFrame(
        {
            "f_table_catalog": [""],
            "f_table_schema": [""],
            "f_table_name": [layer],
            "f_geometry_column": ["geom"],
            "styleName": ["change"],
            "styleQML": [style],
            "styleSLD": [""],
            "useAsDefault": [True],
            "description": ["changed areas"],
            "owner": [""],
            "ui": [""],
            "update_time": ["1970-01-01T00:00:00.000Z"],
        }
    )
    pyogrio.write_dataframe(rows, path, layer="layer_styles", driver="GPKG", append=False)


def _outlines(journal: Journal, grid: Grid) -> Iterator[Polygon]:
    """Polygons of changed pixels, in columns and rows; GDAL reads them line by line."""
    # a raster of its own, without no data, which GDAL would outline too, and without a place, which it would apply
    file = journal.folder / "changed.raw"
    step = max(1, _PIXELS_AT_ONCE // journal.width) * journal.width
    with journal.mask_file.open("rb") as masks, file.open("wb") as changed:
        while values := masks.read(step):
            changed.write((np.frombuffer(values, np.uint8) == CHANGED).tobytes())
    raster = file.with_suffix(".vrt")
    bare = Grid(None, Affine.identity(), grid.width, grid.height)
    raster.write_text(raw_raster(file, bare, "Byte", "0", {}), encoding="utf-8")
    with rasterio.open(raster) as source:
        band = rasterio.band(source, 1)
        for geometry, _ in features.shapes(band, mask=band, connectivity=4):
            yield cast(Polygon, shape(geometry))
    file.unlink()


def _on_ground(points: npt.NDArray[np.float64], transform: Affine) -> npt.NDArray[np.float64]:
    """From columns and rows to coordinates, n x 2."""
    columns, rows = points.T
    return np.stack(
        (
            transform.a * columns + transform.b * rows + transform.c,
            transform.d * columns + transform.e * rows + transform.f,
        ),
        axis=1,
    )


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


def _means(
    outlines: npt.NDArray[np.object_], pixels: npt.NDArray[np.int64], journal: Journal
) -> npt.NDArray[np.float64]:
    """Mean probability of the pixels of every polygon; rows are read once, some at a time."""
    sums = np.zeros(len(outlines))
    _, tops, _, bottoms = shapely.bounds(outlines).T if len(outlines) else np.zeros((4, 0))
    step = max(1, _PIXELS_AT_ONCE // journal.width)
    for top in range(0, journal.height, step):
        bottom = min(top + step, journal.height)
        here = np.flatnonzero((tops < bottom) & (bottoms > top))
        if not len(here):
            continue
        numbers = features.rasterize(
            zip(outlines[here], range(1, len(here) + 1), strict=True),
            out_shape=(bottom - top, journal.width),
            transform=Affine.translation(0, top),
            dtype=np.int32,
        )
        inside = numbers > 0
        values = journal.probabilities(slice(top, bottom), slice(None))[inside]
        sums[here] += np.bincount(numbers[inside], weights=values, minlength=len(here) + 1)[1:]
    return sums / np.maximum(pixels, 1)
