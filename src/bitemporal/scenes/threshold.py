"""A new map from probabilities that were predicted before: mask, polygons, picture and areas, without a network."""

import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.errors import RasterioError

from bitemporal import __version__
from bitemporal.errors import DataError, OptionError
from bitemporal.files import not_there
from bitemporal.imagery.physical import UNSCALED
from bitemporal.imagery.scale import RGB
from bitemporal.outputs import unwritable, write_json
from bitemporal.reading import parse_json, reading
from bitemporal.scenes.drawing import Dates, Drawing
from bitemporal.scenes.exclusion import Exclusion
from bitemporal.scenes.geography import has_areas, hectares
from bitemporal.scenes.geometry import Grid, grid_of
from bitemporal.scenes.grids import Shift, common_grid
from bitemporal.scenes.journal import work_folder
from bitemporal.scenes.options import DateOptions, MapOptions, make_options
from bitemporal.scenes.outputs import MapResult, check_map, locked_together, make_outputs, publish
from bitemporal.scenes.products import Products, make_products
from bitemporal.scenes.radiometry import check_units
from bitemporal.scenes.rasters import new_raster, row_windows
from bitemporal.scenes.sources import (
    Files,
    Source,
    file_state,
    files_read,
    gdal_settings,
    open_raster,
    open_source,
    reading_pixels,
)
from bitemporal.scenes.values import look, value_range

_STATE = "give the file as predict-scene wrote it, or leave before, after and quicklook out"

_BAND = re.compile(r":(\d+)(?=, |$)")
"""A band in the tags BEFORE and AFTER, as in ``scene.tif:3, scene.tif:2``."""


@dataclass(frozen=True)
class ThresholdResult(MapResult):
    """A new map; valid pixels have a probability and are not left out.

    Attributes:
        seconds: Time it took.
    """

    seconds: float


def threshold_scene(
    probability: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    before: Files | None = None,
    after: Files | None = None,
    polygons: str | os.PathLike[str] | None = None,
    quicklook: str | os.PathLike[str] | None = None,
    summary: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    date_options: DateOptions | None = None,
    **options: Any,  # noqa: ANN401  fields of MapOptions, checked by it
) -> ThresholdResult:
    """Make a new map of a scene from its probabilities, with another threshold or another area.

    The files are those that ``predict_scene`` writes with the same threshold. The raster is read by windows.

    Args:
        probability: Raster of one band with values in [0, 1]; NaN, and what the file calls no data, is left out.
        output: Mask to write, a Cloud Optimised GeoTIFF: 0 unchanged, 1 changed, 255 no data.
        before: Date 1, for the picture alone.
        after: Date 2, likewise.
        polygons: Where to write changed areas: .gpkg, .parquet (GeoParquet) or .geojson.
        quicklook: Where to write a picture of both dates and the changes: .png; needs both dates.
        summary: Where to write CAR and hectares: .json.
        overwrite: Whether files in these places that are no earlier outputs of the same kind are replaced; see
            ``predict_scene``.
        date_options: How the dates are read; by default with the range of values that the probabilities were predicted
            with, if their tags say so.
        **options: Fields of ``MapOptions``.

    Raises:
        DataError: When a raster cannot be used or read, or the files do not fit.
        OptionError: When an option cannot be used.
        OutputError: When something cannot be written, would replace something else, or is being written by another
            run. Nothing is left half-written.
    """
    kinds = {"polygons": polygons, "quicklook": quicklook, "summary": summary}
    if (quicklook is not None) != (before is not None and after is not None) or (before is None) != (after is None):
        raise OptionError(
            "quicklook: a picture needs both dates, and both dates serve the picture alone; give quicklook, before and "
            "after together, or none of them"
        )
    map_options = make_options(MapOptions, options, ("overwrite", *kinds))
    outputs = make_outputs(output, overwrite, **kinds)
    started = time.perf_counter()
    with gdal_settings(), locked_together(outputs.named().values()):
        path = os.fspath(probability)
        grid, tags = _probability_raster(path, map_options.allow_vrt)
        exclusion = Exclusion.of(map_options, grid)
        dates = None
        if before is not None and after is not None:
            dates = _dates(before, after, grid, tags, date_options or DateOptions(), map_options.allow_vrt)
        files = () if dates is None else (*dates.before.files, *dates.after.files)
        read = files_read((path, *files, *map_options.exclusion_files()), map_options.allow_vrt)
        check_map(outputs, read, has_areas(grid.crs))
        drawing = Drawing(outputs, map_options, grid, _new_tags(tags, map_options), exclusion, dates)
        with work_folder(outputs.mask) as folder:
            try:
                checked = folder / "threshold" / "probability.tif"
                shutil.rmtree(checked.parent, ignore_errors=True)  # of a run that was killed
                checked.parent.mkdir()
                _copy(path, checked, grid, map_options.allow_vrt)
                products = make_products(drawing, checked, checked.parent)
                if not products.valid.sum():
                    raise DataError(
                        f"{path}: has no pixel with a probability that is not left out; check nodata, within and mask"
                    )
                check_map(outputs, read, has_areas(grid.crs))  # others may have put files there meanwhile
                if outputs.summary is not None:  # its presence says that everything else is there
                    outputs.summary.unlink(missing_ok=True)
                publish(products.files)
                result = _result(drawing, products, started)
                if outputs.summary is not None:
                    write_json(outputs.summary, _summary(path, tags, drawing, products, result))
            except (OSError, RasterioError) as error:
                raise unwritable(outputs.mask, error) from error
            finally:
                shutil.rmtree(folder / "threshold", ignore_errors=True)
    return result


def _probability_raster(path: str, allow_vrt: bool) -> tuple[Grid, dict[str, str]]:
    """The pixels and the tags of a raster of probabilities."""
    if "://" not in path and not path.startswith("/vsi") and not Path(path).exists():
        raise DataError(f"probability: {not_there(path, 'file')}; expected a raster: correct the path")
    with open_raster(path, allow_vrt) as dataset:
        if dataset.count != 1 or np.dtype(dataset.dtypes[0]).kind != "f":
            found = f"{dataset.count} band(s) of {dataset.dtypes[0]}"
            raise DataError(
                f"probability: {path} has {found}; expected one band of floats in [0, 1], as predict-scene writes "
                "it: give that file"
            )
        return grid_of(dataset, path), dataset.tags()


def _copy(source: str, target: Path, grid: Grid, allow_vrt: bool) -> None:
    """Write probabilities as a plain float32 raster with NaN where there are none, and check them on the way.

    Raises:
        DataError: When one lies outside [0, 1], or cannot be read.
        OSError: When the copy cannot be written.
    """
    with open_raster(source, allow_vrt) as raster, new_raster(target, grid, "float32", np.nan, {}) as copy:
        for window in row_windows(raster):
            with reading_pixels(f"probability: {source}"):
                values = raster.read(1, window=window)
                values[raster.read_masks(1, window=window) == 0] = np.nan
            strange = values[(values < 0) | (values > 1)]
            if strange.size:
                raise DataError(
                    f"probability: {source} holds {strange[0]:g}; expected values in [0, 1], or NaN or the file's "
                    "no-data value: give the raster of probabilities that predict-scene writes"
                )
            copy.write(values.astype(np.float32), 1, window=window)


def _dates(
    before: Files, after: Files, grid: Grid, tags: Mapping[str, str], options: DateOptions, allow_vrt: bool
) -> Dates:
    """Both dates, for the picture: with the bands, the range and the shift that the probabilities' tags name."""
    noted_bands = [[int(band) for band in _BAND.findall(tags.get(date, ""))] or None for date in ("BEFORE", "AFTER")]
    channels = len(noted_bands[0] or range(RGB))
    first, second = (
        open_source(files, name, options.bands, options.nodata, channels, usual, scaling=scaling, allow_vrt=allow_vrt)
        for files, name, usual, scaling in zip(
            (before, after),
            ("before", "after"),
            noted_bands,
            _noted_scaling(tags, (options.before_scaling, options.after_scaling)),
            strict=True,
        )
    )
    check_units(first, second)
    common_grid(first, Source("probability", (), (), grid, "float32"))  # they overlap
    given = options.image_range
    with reading("probability: its tag VALUE_RANGE", DataError, f"expected pairs of numbers; {_STATE}"):
        if given is None and (noted := parse_json(tags.get("VALUE_RANGE", "null"))):
            given = tuple(float(value) for pair in noted for value in pair)
    looks = look(first), look(second)
    shift = [float(number) for number in re.findall(r"[-+][\d.]+", tags.get("SHIFT", ""))]
    return Dates(
        first, second, grid, value_range(first, second, looks, given), Shift(*shift) if len(shift) == 2 else None
    )


def _noted_scaling(
    tags: Mapping[str, str], stated: tuple[tuple[float, ...] | None, ...]
) -> list[tuple[float, ...] | None]:
    """Scale and offset of each date, as stated, or else as the probabilities' tags note them."""
    with reading("probability: its tag SCALE_OFFSET", DataError, f"expected pairs of numbers or null; {_STATE}"):
        noted = parse_json(tags.get("SCALE_OFFSET", "[null, null]"))
        known = [None if pairs is None else tuple(float(n) for pair in pairs for n in pair) for pairs in noted]
        if any(known):
            known = [numbers or UNSCALED for numbers in known]
        return [numbers or own for numbers, own in zip(stated, known, strict=True)]


def _new_tags(tags: Mapping[str, str], options: MapOptions) -> dict[str, str]:
    """The tags that the probabilities had, with what is new."""
    kept = {name: value for name, value in tags.items() if name != "AREA_OR_POINT"} if "DETECTOR" in tags else {}
    left_out = {
        name: f"{kept[name]}, {value}" if name in kept else value for name, value in options.exclusion_tags().items()
    }
    return kept | {"SOFTWARE": f"bitemporal {__version__}", "THRESHOLD": f"{options.threshold:g}"} | left_out


def _result(drawing: Drawing, products: Products, started: float) -> ThresholdResult:
    changed, valid = int(products.changed.sum()), int(products.valid.sum())
    return ThresholdResult(
        outputs=drawing.outputs,
        car=changed / valid,
        changed_pixels=changed,
        valid_pixels=valid,
        changed_hectares=hectares(drawing.grid, products.changed),
        polygons=products.polygons,
        seconds=round(time.perf_counter() - started, 3),
    )


def _summary(
    path: str, tags: Mapping[str, str], drawing: Drawing, products: Products, result: ThresholdResult
) -> dict[str, Any]:
    """The result in JSON types, with every setting, under the names of ``predict_scene``'s summary."""
    return {
        **{field.name: getattr(result, field.name) for field in fields(result)},
        "outputs": {name: str(file) for name, file in drawing.outputs.named().items()},
        "valid_hectares": hectares(drawing.grid, products.valid),
        "grid": drawing.grid.summary(),
        "settings": {
            "version": __version__,
            "probability": file_state(path, drawing.options.allow_vrt),
            "tags": dict(tags),
            "options": asdict(drawing.options),
            "area": None if drawing.exclusion.area is None else drawing.exclusion.area.digest,
            "masks": [file_state(file, drawing.options.allow_vrt) for file in drawing.exclusion.masks],
        },
    }
