"""What earlier outputs of scenes are known by: by what is in them, never by their names."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import pyarrow.parquet
import pyogrio
import rasterio
from PIL import Image
from rasterio.errors import RasterioError

from bitemporal.errors import DataError
from bitemporal.files import without_links
from bitemporal.outputs import Kind
from bitemporal.scenes.vector_files import check_vector

FORMATS = {".gpkg": "GPKG", ".parquet": "Parquet", ".geojson": "GeoJSON", ".json": "GeoJSON"}
"""Formats of polygons by the ending of the file's name."""

FIELDS = ("id", "area_m2", "pixels", "mean_probability", "max_probability", "confidence")
"""Fields of the polygons of a scene."""

OF_SCENES = ("scene", "before_date", "after_date")
"""Fields before these in the polygons of several scenes."""

SOFTWARE = "Software"
"""Text of a quicklook that names this package."""

_LARGEST_SUMMARY = 2**24
"""Bytes; real ones have a few thousand."""

_SUMMARY = {"outputs", "car", "changed_pixels", "valid_pixels", "valid_hectares", "grid", "settings"}
_STATUS = ["id", "status", "car", "changed_hectares", "seconds", "attempts", "error", "warning"]

_SIDECARS = {
    ".tif": (".aux.xml", ".ovr", ".msk"),
    ".tiff": (".aux.xml", ".ovr", ".msk"),
    ".png": (".aux.xml", ".ovr", ".msk"),
    ".gpkg": ("-wal", "-shm", "-journal"),
}
"""What GDAL, QGIS and SQLite keep next to a file, by the ending of its name; it would be wrong for another file."""


def style(kind: str) -> str:
    """The QGIS style of a kind of output."""
    return files("bitemporal.scenes").joinpath("qgis", f"{kind}.qml").read_text(encoding="utf-8")


def _of_files(is_ours: Callable[[Path], bool]) -> Callable[[Path], bool]:
    """The same question, which is no for what is no file, such as a pipe, where reading would wait."""
    return lambda path: path.is_file() and is_ours(path)


def _is_raster_of(dtype: str) -> Callable[[Path], bool]:
    def is_ours(path: Path) -> bool:
        try:
            with rasterio.open(path, driver="GTiff") as raster:
                return bool(raster.dtypes == (dtype,) and raster.tags().get("SOFTWARE", "").startswith("bitemporal "))
        except RasterioError:
            return False

    return is_ours


def _are_polygons(fields: tuple[str, ...]) -> Callable[[Path], bool]:
    def is_ours(path: Path) -> bool:
        kind = FORMATS[path.suffix.lower()]
        if kind == "Parquet":
            return bool(pyarrow.parquet.read_schema(path).names == [*fields, "geometry"])
        found = _fields_of_geopackage(path) if kind == "GPKG" else _fields_of_geojson(path)
        if kind == "GeoJSON" and found == ():  # without a polygon it has no field
            content = json.loads(path.read_text(encoding="utf-8"))
            return isinstance(content, dict) and content.get("name") == path.stem and content.get("features") == []
        return found == (("fid", "geom") if kind == "GPKG" else ()) + fields

    return is_ours


def _fields_of_geojson(path: Path) -> tuple[str, ...] | None:
    try:
        check_vector(path)
        return tuple(pyogrio.read_info(path, layer=0)["fields"])
    except (DataError, RuntimeError):  # pyogrio's
        return None


def _fields_of_geopackage(path: Path) -> tuple[str, ...] | None:
    """Fields of the only layer, next to which there may be styles; GDAL would change what is next to the file."""
    try:
        with closing(sqlite3.connect(f"{without_links(path).as_uri()}?immutable=1", uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT table_name FROM gpkg_contents")}
            shapes = [name for (name,) in database.execute("SELECT table_name FROM gpkg_geometry_columns")]
            if len(shapes) != 1 or tables - {*shapes, "layer_styles"}:
                return None
            return tuple(name for (name,) in database.execute("SELECT name FROM pragma_table_info(?)", shapes))
    except sqlite3.Error:
        return None


def _is_quicklook(path: Path) -> bool:
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            return str(picture.info.get(SOFTWARE, "")).startswith("bitemporal ")
    except Image.DecompressionBombError:
        return False


def _is_summary(path: Path) -> bool:
    if path.stat().st_size > _LARGEST_SUMMARY:
        return False
    content = json.loads(path.read_text(encoding="utf-8"))
    return isinstance(content, dict) and content.keys() >= _SUMMARY


def _is_style(path: Path) -> bool:
    return path.read_bytes() in [style(kind).encode() for kind in ("mask", "probability", "polygons")]


def _is_status(path: Path) -> bool:
    with path.open(encoding="utf-8") as stream:
        return stream.readline(1000).strip().split(",") == _STATUS


_RASTERS = (".tif", ".tiff")

MASK = Kind("a change mask", _of_files(_is_raster_of("uint8")), _RASTERS)
PROBABILITY = Kind("a raster of probabilities", _of_files(_is_raster_of("float32")), _RASTERS)
POLYGONS = Kind("a file of changed areas", _of_files(_are_polygons(FIELDS)), tuple(FORMATS))
MERGED = Kind("a file of merged polygons", _of_files(_are_polygons(OF_SCENES + FIELDS)), tuple(FORMATS))
QUICKLOOK = Kind("a quicklook", _of_files(_is_quicklook), (".png",))
SUMMARY = Kind("a summary of a scene", _of_files(_is_summary), (".json",))
STYLE = Kind("a style", _of_files(_is_style), (".qml",))
STATUS = Kind("a table of an archive", _of_files(_is_status), (".csv",))


def sidecars(target: Path) -> list[Path]:
    """Where other programs keep what belongs to an output."""
    return [target.with_name(target.name + ending) for ending in _SIDECARS.get(target.suffix.lower(), ())]


def kind_of_sidecar(sidecar: Path, target: Path, kind: Kind) -> Kind:
    """What is next to an output counts as a part of it if the output exists and is not younger."""

    def belongs(path: Path) -> bool:
        return kind.stands_at(target) and path.stat().st_mtime_ns >= target.stat().st_mtime_ns

    return Kind(f"a file that belongs to {kind.name}", _of_files(belongs), (sidecar.suffix.lower(),))
