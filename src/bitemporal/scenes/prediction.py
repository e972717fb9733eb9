"""One scene: two rasters in, a georeferenced change map out, in memory that does not grow with the scene.

``predict_scene`` opens both dates and finds their common grid and tiles (scene.py), has the tiles answered and the
answers blended, strip by strip (strips.py), makes the products (products.py), and sums up.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import RasterioError
from rich.progress import Progress

from bitemporal.errors import BitemporalError, DataError
from bitemporal.inference import Detector, OriginPartition
from bitemporal.outputs import unwritable, write_json
from bitemporal.reading import read_json, reading
from bitemporal.scenes.bands import Stated
from bitemporal.scenes.geography import hectares
from bitemporal.scenes.grids import Shift
from bitemporal.scenes.journal import Journal, clear_work, work_folder
from bitemporal.scenes.options import SceneOptions, make_options
from bitemporal.scenes.outputs import MapResult, Outputs, locked_together, make_outputs, publish
from bitemporal.scenes.products import Products, make_products
from bitemporal.scenes.rasters import row_windows
from bitemporal.scenes.scene import Scene, open_scene
from bitemporal.scenes.sources import Files, gdal_settings
from bitemporal.scenes.strips import ANSWERED, SKIPPED, predict_strips


@dataclass(frozen=True)
class SceneResult(MapResult):
    """The result of predicting a scene; valid pixels have data on both dates.

    Attributes:
        tiles: Number of tiles that were predicted.
        skipped: Number of tiles without a valid pixel, which were not.
        parts: Tiles by the CAR part that Origin-Partition sent them to; for ``routing="scene"``, the scene's part.
        shift: How far date 2 lay off date 1 in pixels, if it was registered.
        resumed: Strips of tiles that an earlier, interrupted run had done.
        seconds: Time this run took: ``prediction``, ``writing``, ``total``.
    """

    tiles: int
    skipped: int
    parts: dict[str, int]
    shift: Shift | None
    resumed: int
    seconds: dict[str, float]


def predict_scene(
    detector: Detector,
    before: Files,
    after: Files,
    output: str | os.PathLike[str],
    *,
    probability: str | os.PathLike[str] | None = None,
    polygons: str | os.PathLike[str] | None = None,
    quicklook: str | os.PathLike[str] | None = None,
    summary: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool = False,
    **options: Any,  # noqa: ANN401  fields of SceneOptions, checked by it
) -> SceneResult:
    """Find what changed between two rasters, and write it as a georeferenced map.

    The rasters are read by windows; date 2 is brought to the pixels of date 1 on the way. Pixels that are not valid on
    both dates hold no data in the result. A hidden folder next to the output holds what is done until everything is: a
    killed run resumes where it stopped when it is called again in the same way.

    What makes a comparison doubtful is said by warnings (``UserWarning``) before the work begins.

    Args:
        detector: Any detector.
        before: Date 1: a raster, or one for each channel of the detector (red, green, blue); paths, or addresses that
            GDAL opens.
        after: Date 2, likewise.
        output: Mask to write, a Cloud Optimised GeoTIFF: 0 unchanged, 1 changed, 255 no data.
        probability: Where to write the probability of change too: GeoTIFF, float32, NaN without data.
        polygons: Where to write changed areas: .gpkg, .parquet (GeoParquet) or .geojson.
        quicklook: Where to write a picture of both dates and the changes: .png.
        summary: Where to write CAR, hectares and timing: .json.
        overwrite: Whether files in these places that are no earlier outputs of the same kind are replaced. Without it
            they are refused; what is read is refused in any case.
        progress: Show a progress bar.
        **options: Fields of ``SceneOptions``.

    Raises:
        DataError: When a raster cannot be used or read, or the dates do not fit.
        OptionError: When an option cannot be used.
        OutputError: When something cannot be written, would replace something else, or is being written by another
            run. Nothing is left half-written.
    """
    kinds = {"probability": probability, "polygons": polygons, "quicklook": quicklook, "summary": summary}
    scene_options = make_options(SceneOptions, options, ("overwrite", *kinds))
    outputs = make_outputs(output, overwrite, **kinds)
    with gdal_settings(), locked_together(outputs.named().values()):
        return _predict(open_scene(detector, before, after, outputs, scene_options), progress)


def predict_unless_finished(
    detector: Detector,
    before: Files,
    after: Files,
    outputs: Outputs,
    options: SceneOptions,
    stated: Stated | None = None,
) -> tuple[bool, dict[str, Any]]:
    """Predict a scene as ``predict_scene`` does, unless an earlier run has finished it in exactly the same way.

    While another run writes the same outputs, this one waits.

    Args:
        detector: Any detector.
        before: Date 1.
        after: Date 2.
        outputs: Files to write; the summary must be among them, as it tells what is finished.
        options: How the scene is read, predicted and drawn.
        stated: What a catalogue says about bands of the files.

    Returns:
        Whether it was finished before, and the summary.

    Raises:
        DataError: See ``predict_scene``.
        OptionError: See ``predict_scene``.
        OutputError: See ``predict_scene``.
    """
    assert outputs.summary is not None
    with gdal_settings(), locked_together(outputs.named().values(), wait=True):
        scene = open_scene(detector, before, after, outputs, options, stated)
        summary = _read_summary(outputs.summary)
        finished = summary.get("fingerprint") == scene.fingerprint
        if finished and all(path.is_file() for path in outputs.named().values()):
            return True, summary
        _predict(scene, progress=False)
        return False, _read_summary(outputs.summary)


def _read_summary(path: Path) -> dict[str, Any]:
    """A summary; empty where there is none that can be read."""
    try:
        with reading(path, DataError, "expected a summary"):
            content = read_json(path)
    except DataError:
        return {}
    return content if isinstance(content, dict) else {}


def _predict(scene: Scene, progress: bool) -> SceneResult:
    """Answer the tiles, make the products, sum up."""
    outputs = scene.outputs
    with work_folder(outputs.mask) as folder, Progress(disable=not progress, transient=True) as bar:
        try:
            journals, part = _predict_tiles(scene, folder, bar)
        except BitemporalError:
            if not scene.is_remote:  # a connection may be better the next time; nothing else will be
                clear_work(folder)
            raise
        predicted = time.perf_counter()
        bar.add_task("writing", total=None)
        try:
            products = make_products(scene.drawing, journals[-1].raster, journals[-1].folder)
            scene.check_outputs()  # the work may have taken days, in which others may have put files there
            if outputs.summary is not None:  # its presence says that everything else is there
                outputs.summary.unlink(missing_ok=True)
            publish(products.files)
            result = _result(scene, journals, products, part, predicted)
            if outputs.summary is not None:
                write_json(outputs.summary, _summary(scene, result, products))
        except (BitemporalError, OSError, RasterioError) as error:
            problem = error if isinstance(error, BitemporalError) else unwritable(outputs.mask, error)
            kept = f"What was predicted is kept next to {outputs.mask}: run the same again"
            raise type(problem)(f"{problem}. {kept}") from error
        clear_work(folder)
    return result


def _predict_tiles(scene: Scene, folder: Path, bar: Progress) -> tuple[list[Journal], str | None]:
    """Have all tiles answered, by the detector or, with routing by scene, by the origin and then by one teacher.

    Returns:
        The journal of every pass, the last of which counts; and the scene's part with routing by scene.

    Raises:
        DataError: When no pixel is valid, or pixels cannot be read.
        OutputError: When a strip cannot be written.
    """

    def run(name: str, detector: Detector) -> Journal:
        journal = Journal(folder / name, scene)
        task = bar.add_task(name, total=scene.tiling.across.count, completed=journal.strips)
        predict_strips(scene, detector, journal, lambda: bar.advance(task))
        if not journal.tallies[ANSWERED]:
            left_out, options = (
                (" and not left out by within or mask", "within, mask and ") if scene.exclusion else ("", "")
            )
            raise DataError(
                f"{scene.before.describe()} and {scene.after.describe()}: have no pixel that is valid on both dates"
                f"{left_out}; check {options}nodata, and whether they show the same place"
            )
        return journal

    if scene.options.routing == "tile":
        return [run("all", scene.detector)], None
    detector = scene.detector
    assert isinstance(detector, OriginPartition)
    journals = [run("origin", detector.origin)]
    part = detector.partition.part(_car(journals[0].raster))
    if part in detector.teachers:
        journals.append(run(part, detector.teachers[part]))
    return journals, part


def _car(probability: Path) -> float:
    """CAR of a whole scene at the network's own threshold, as ``OriginPartition`` takes it of a tile."""
    changed = unchanged = 0
    with rasterio.open(probability) as raster:
        for window in row_windows(raster):
            values = raster.read(1, window=window)
            changed += int((values > 0.5).sum())
            unchanged += int((values <= 0.5).sum())
    return changed / (changed + unchanged)


def _result(
    scene: Scene, journals: Sequence[Journal], products: Products, part: str | None, predicted: float
) -> SceneResult:
    changed, valid = int(products.changed.sum()), int(products.valid.sum())
    parts = dict(journals[-1].tallies)
    tiles, skipped = parts.pop(ANSWERED), parts.pop(SKIPPED, 0)
    now = time.perf_counter()
    return SceneResult(
        outputs=scene.outputs,
        car=changed / valid,
        changed_pixels=changed,
        valid_pixels=valid,
        changed_hectares=hectares(scene.grid, products.changed),
        polygons=products.polygons,
        tiles=tiles,
        skipped=skipped,
        parts=parts if part is None else {part: tiles},
        shift=scene.shift,
        resumed=sum(journal.resumed for journal in journals),
        seconds={
            "prediction": round(predicted - scene.started, 3),
            "writing": round(now - predicted, 3),
            "total": round(now - scene.started, 3),
        },
    )


def _summary(scene: Scene, result: SceneResult, products: Products) -> dict[str, Any]:
    """The result in JSON types, with every setting."""
    grid = scene.grid
    return {
        **{field.name: getattr(result, field.name) for field in fields(result)},
        "shift": None if scene.shift is None else scene.shift._asdict(),
        "outputs": {name: str(path) for name, path in scene.outputs.named().items()},
        "valid_hectares": hectares(grid, products.valid),
        "grid": grid.summary(),
        "settings": scene.settings,
        "fingerprint": scene.fingerprint,
    }
