"""The polygons of an archive's scenes in one file, with the scene and the dates of each."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import geopandas
import pandas
from pyogrio.errors import DataSourceError, FeatureError

from bitemporal.errors import DataError, OptionError, OutputError
from bitemporal.files import without_links
from bitemporal.outputs import Output, check_outputs, unwritable
from bitemporal.reading import reading
from bitemporal.scenes.journal import work_folder
from bitemporal.scenes.kinds import FIELDS, MERGED, OF_SCENES, style
from bitemporal.scenes.manifest import SceneFiles
from bitemporal.scenes.outputs import locked_together, planned, publish, style_of
from bitemporal.scenes.polygons import write_table
from bitemporal.scenes.vector_files import check_vector


def merged_outputs(
    merge: str | os.PathLike[str], polygons: str | None, scenes: Sequence[SceneFiles], out: Path
) -> list[Output]:
    """The merged file as an output, refused where it cannot be made.

    Args:
        merge: The file.
        polygons: Name of each scene's file of polygons.
        scenes: The scenes.
        out: Folder of their folders.

    Raises:
        OptionError: When the scenes have no polygons.
        OutputError: When it would lie in the folder of a scene.
    """
    target = Path(merge)
    if polygons is None:
        raise OptionError("merge: the scenes have no polygons that could be merged; add --polygons areas.gpkg")
    if without_links(target).parent in {without_links(out / scene.id) for scene in scenes if not scene.error}:
        raise OutputError(f"merge: {target} is in the folder of a scene; choose another place")
    return planned("merge", target, MERGED)


def merge_polygons(target: Path, polygons: Sequence[tuple[SceneFiles, Path]], overwrite: bool = False) -> int:
    """Write the polygons of all scenes into one file, which appears whole.

    The fields are those of a scene's polygons (``id`` counts within a scene), after ``scene``, ``before_date`` and
    ``after_date``, as the manifest has them. Scenes of one CRS keep it; others are brought to longitude and latitude.

    Args:
        target: File to write; its ending chooses the format.
        polygons: The scenes, each with its file of polygons.
        overwrite: Whether another file in its place is replaced too.

    Returns:
        The number of polygons.

    Raises:
        DataError: When a file cannot be read, or only some scenes have a place on the ground.
        OutputError: When it cannot be written, or would replace something else.
    """
    tables = [_read(scene, path) for scene, path in polygons]
    systems = list({table.crs.to_wkt(): table.crs for table in tables if table.crs is not None}.values())
    bare = [scene.id for (scene, _), table in zip(polygons, tables, strict=True) if table.crs is None]
    if bare and systems:
        raise DataError(
            f"merge: the scene {bare[0]} has no georeference, others have one; expected all or none: leave it "
            "out of the manifest, or set its CRS and transform"
        )
    if len(systems) > 1:
        tables = [table.to_crs(4326) for table in tables]
    # columns of empty tables have no type
    merged = pandas.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
    with locked_together([target], wait=True), work_folder(target) as folder:
        check_outputs(planned("merge", target, MERGED), [path for _, path in polygons], overwrite)
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
    with reading(f"merge: {path}", DataError, "remove it and run the same again"):
        if path.suffix.lower() == ".parquet":
            table = geopandas.read_parquet(path)
        else:
            check_vector(path)
            table = geopandas.read_file(path, engine="pyogrio", layer=path.stem if path.suffix == ".gpkg" else 0)
    for position, name in enumerate(OF_SCENES):
        table.insert(position, name, (scene.id, scene.before_date, scene.after_date)[position])
    for name in FIELDS:
        if name not in table:  # GeoJSON without a polygon has no field
            table.insert(len(table.columns) - 1, name, None)
    return table
