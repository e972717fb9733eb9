"""Vector files that are not to be trusted: known by their content, and read without following what they name."""

import codecs
import mmap
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import geopandas

from bitemporal.errors import DataError
from bitemporal.reading import read_large_json

JSON = (".geojson", ".json")
"""Endings of GeoJSON."""

_FIRST_BYTES = {".gpkg": b"SQLite format 3\0", ".shp": b"\0\0\x27\x0a", ".parquet": b"PAR1"}

_GEOMETRIES = (
    "Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon", "GeometryCollection",
)  # fmt: skip

_REACHES_OUT = re.compile(r"\b(ogr|gdal)_(?!empty_table)|load_extension", re.IGNORECASE)
"""Functions of GDAL in SQL that open other files and ask servers, all by their beginning."""

_VIRTUAL = re.compile(r"\s*create\s+virtual\s+table\b.*\busing\s+(\w+)", re.IGNORECASE | re.DOTALL)
_INDEXES = ("rtree", "fts3", "fts4", "fts5")
"""Virtual tables that hold their rows themselves."""


def check_vector(path: Path) -> None:
    """See that a file is of the format that its name says, and names no other file.

    GDAL would choose a format by the content, whatever the name says: some describe a server, or other files to read.

    Raises:
        DataError: When it is of another format, or SQL in it reaches out.
        OSError: When it cannot be read.
    """
    kind = path.suffix.lower()
    if kind in JSON:
        if not _may_be_geojson(path):
            raise DataError(f"{path}: its content is not GeoJSON; expected a FeatureCollection: write it again")
        return
    with path.open("rb") as stream:
        begin = stream.read(16)
    expected = _FIRST_BYTES[kind]
    if not begin.startswith(expected):
        raise DataError(
            f"{path}: its content is not that of a {kind} file; expected one: write it again in that format"
        )
    if kind == ".gpkg":
        for name, sql in _statements(path):
            virtual = _VIRTUAL.match(sql)
            if _REACHES_OUT.search(sql) or (virtual and virtual[1].lower() not in _INDEXES):
                raise DataError(
                    f"{path}: its table or view {name!r} may read other files ({sql.split()[1].lower()}); expected "
                    "tables that hold their rows: write the layer alone into a new file"
                )


def _may_be_geojson(path: Path) -> bool:
    """Whether a file may be GeoJSON, and names no stream; however large it is, it is not read into memory."""
    with path.open("rb") as stream:
        if not stream.read(2**16).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{"):
            return False
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(b'"type"') >= 0 and content.find(b"gdal_streamed_alg") < 0


def _statements(path: Path) -> list[tuple[str, str]]:
    """The names and the SQL of what a SQLite file holds."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            return [
                (str(name), str(sql)) for name, sql in database.execute("SELECT name, sql FROM sqlite_master") if sql
            ]
    except sqlite3.Error as error:
        raise DataError(
            f"{path}: is damaged ({error}); expected a GeoPackage: restore it, or write it again"
        ) from error


def read_geojson(path: Path) -> geopandas.GeoDataFrame:
    """The shapes of a GeoJSON file, in the CRS that it names, else in longitude and latitude.

    Raises:
        ValueError: When it holds something else.
        OSError: When it cannot be read.
    """
    content: Any = read_large_json(path)
    try:
        kind = content["type"]
        if kind == "FeatureCollection":
            features = content["features"]
        elif kind == "Feature":
            features = [content]
        elif kind in _GEOMETRIES:
            features = [{"type": "Feature", "geometry": content, "properties": {}}]
        else:
            raise ValueError(f"its type is {kind!r}, expected FeatureCollection, Feature or a geometry")
        crs = content["crs"]["properties"]["name"] if content.get("crs") else "OGC:CRS84"
        bare = [{"type": "Feature", "geometry": feature.get("geometry"), "properties": {}} for feature in features]
        return geopandas.GeoDataFrame.from_features(bare, crs=crs) if bare else _no_shapes(crs)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"it is not GeoJSON: {error!r}") from error


def _no_shapes(crs: str) -> geopandas.GeoDataFrame:
    return geopandas.GeoDataFrame(geometry=[], crs=crs)
