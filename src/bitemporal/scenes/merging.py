"""The polygons of an archive's scenes in one file, with the scene and the dates of each."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import geopandas
import pandas
import pyarrow.parquet
import pyogrio
from pyogrio.errors import DataSourceError, FeatureError

from bitemporal.errors import DataError, OptionError, OutputError
from bitemporal.outputs import unwritable
from bitemporal.scenes.journal import work_folder
from bitemporal.scenes.manifest import SceneFiles
from bitemporal.scenes.outputs import FORMATS, publish, style, style_of
from bitemporal.scenes.polygons import write_table
from bitemporal.scenes.vector_files import check_vector


def check_merge(merge: str | os.PathLike[str], polygons: str | None, scenes: Sequence[SceneFiles], out: Path) -> Path:
    """Refuse a merged file that cannot be made, before any scene is predicted.

    Args:
        merge: The file.
        polygons: Name of each scene's file of polygons.
        scenes: The scenes.
        out: Folder of their folders.

    Returns:
        The file.

    Raises:
        OptionError: When the scenes have no polygons.
        OutputError: When the name does not suit, or another file than an earlier one of this kind would be replaced.
    """
    target = Path(merge)
    if polygons is None:
        raise OptionError("merge: the scenes have no polygons that could be merged; add --polygons areas.gpkg")
    if target.suffix.lower() not in FORMATS:
        raise OutputError(f"merge: found {target}, expected a name that ends in {' or '.join(FORMATS)}")
    if target.is_dir():
        raise OutputError(f"merge: {target} is a folder; expected the name of a file")
    if target.resolve().parent in {(out / scene.id).resolve() for scene in scenes if not scene.error}:
        raise OutputError(f"merge: {target} lies in the folder of a scene; choose another place")
    if target.exists() and not _is_merged(target):
        raise OutputError(
            f"merge: {target} exists and holds no merged polygons; it is not overwritten: choose another name, or move "
            "it"
        )
    return target


def _is_merged(path: Path) -> bool:
    try:
        if path.suffix.lower() == ".parquet":
            names = set(pyarrow.parquet.read_schema(path).names)
        else:
            check_vector(path)
            names = set(pyogrio.read_info(path, layer=0)["fields"])
    except (DataError, DataSourceError, ValueError, OSError):
        return False
    return {"scene", "before_date", "after_date", "confidence"} <= names


def merge_polygons(target: Path, polygons: Sequence[tuple[SceneFiles, Path]]) -> int:
    """Write the polygons of all scenes into one file, which appears whole.

    The fields are those of a scene's polygons (``id`` counts within a scene), after ``scene``, ``before_date`` and
    ``after_date``, as the manifest has them. Scenes of one CRS keep it; others are brought to longitude and latitude.

    Args:
        target: File to write; its ending chooses the format.
        polygons: The scenes, each with its file of polygons.

    Returns:
        The number of polygons.

    Raises:
        DataError: When a file cannot be read, or only some scenes have a place on the ground.
        OutputError: When it cannot be written.
    """
    tables = [_read(scene, path) for scene, path in polygons]
    systems = list({table.crs.to_wkt(): table.crs for table in tables if table.crs is not None}.values())
    bare = [scene.id for (scene, _), table in zip(polygons, tables, strict=True) if table.crs is None]
    if bare and systems:
        raise DataError(
            f"merge: the scene {bare[0]} has no place on the ground, others have; expected all or none: leave it "
            "out of the manifest, or set its CRS and transform"
        )
    if len(systems) > 1:
        tables = [table.to_crs(4326) for table in tables]
    # columns of empty tables have no type
    merged = pandas.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
    with work_folder(target) as folder:
        shutil.rmtree(folder / "merged", ignore_errors=True)  # of a run that was killed
        file = folder / "merged" / target.name  # a GeoPackage's layer is named after the file
        try:
            file.parent.mkdir()
            write_table(geopandas.GeoDataFrame(merged), file)
            products = {file: target}
            if (style_target := style_of(target)) is not None:
                file.with_suffix(".qml").write_text(style("polygons"), encoding="utf-8")
                products[file.with_suffix(".qml")] = style_target
            publish(products)
        except (OSError, DataSourceError, FeatureError) as error:
            raise unwritable(target, error) from error
        finally:
            shutil.rmtree(folder / "merged", ignore_errors=True)
    return len(merged)


def _read(scene: SceneFiles, path: Path) -> geopandas.GeoDataFrame:
    try:
        if path.suffix.lower() == ".parquet":
            table = geopandas.read_parquet(path)
        else:
            check_vector(path)
            table = geopandas.read_file(path, engine="pyogrio", layer=path.stem if path.suffix == ".gpkg" else 0)
    except (DataSourceError, ValueError, OSError) as error:
        raise DataError(
            f"merge: {path}: cannot be read ({str(error).splitlines()[0]}); remove it and run the same again"
        ) from error
    for position, name in enumerate(("scene", "before_date", "after_date")):
        table.insert(position, name, (scene.id, scene.before_date, scene.after_date)[position])
    return table
