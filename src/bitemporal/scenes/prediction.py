"""One scene: two rasters in, a georeferenced change map out, in memory that does not grow with the scene."""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import Progress, TaskID

from bitemporal import __version__
from bitemporal.car import CarPartition
from bitemporal.errors import BitemporalError, DataError, RecipeError
from bitemporal.files import write_json
from bitemporal.inference import Detector, OriginPartition
from bitemporal.recipe import SceneOptions
from bitemporal.scenes.geography import changed_hectares
from bitemporal.scenes.grids import DateOnGrid, Shift, common_grid
from bitemporal.scenes.journal import Journal, fingerprint
from bitemporal.scenes.outputs import Outputs, check_outputs, write_outputs
from bitemporal.scenes.pictures import write_quicklook
from bitemporal.scenes.polygons import PolygonOptions
from bitemporal.scenes.reading import Tile, TileReader
from bitemporal.scenes.registration import estimate_shift
from bitemporal.scenes.sources import Files, gdal_settings, open_source
from bitemporal.scenes.tiling import Blend, Tiling, axis
from bitemporal.scenes.values import ValueRange, value_range

ANSWERED, SKIPPED = "tiles answered", "tiles skipped"
"""Among the tallies of tiles; the others are CAR parts."""


@dataclass(frozen=True)
class SceneResult:
    """What was found and written.

    Attributes:
        outputs: The files.
        car: Changed pixels divided by valid ones.
        changed_pixels: Their number.
        valid_pixels: Pixels with data on both dates.
        changed_hectares: Their area; ``None`` for images without a place.
        polygons: Their number, if they are written.
        tiles: Tiles that were predicted.
        skipped: Tiles without a valid pixel, which were not.
        parts: Tiles by the CAR part that Origin-Partition sent them to; for ``routing="scene"``, the scene's part.
        shift: How far date 2 lay off date 1 in pixels, if it was registered.
        resumed: Strips of tiles that an earlier, interrupted run had done.
        seconds: Time this run took: ``prediction``, ``writing``, ``total``.
    """

    outputs: Outputs
    car: float
    changed_pixels: int
    valid_pixels: int
    changed_hectares: float | None
    polygons: int | None
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
    progress: bool = False,
    **options: Any,  # noqa: ANN401  fields of SceneOptions, checked by it
) -> SceneResult:
    """Find what changed between two rasters, and write it as a georeferenced map.

    The rasters are read by windows; date 2 is brought to the pixels of date 1 on the way. Pixels that are not valid on
    either date are no data in the result. A killed run goes on where it stopped when it is called again in the same
    way: beside the output stands a hidden folder with what is done, until all is.

    Args:
        detector: Any detector.
        before: Date 1: a raster, or one for each band (red, green, blue); paths, or addresses that GDAL opens.
        after: Date 2, likewise.
        output: Mask to write, a Cloud Optimised GeoTIFF: 0 unchanged, 1 changed, 255 no data.
        probability: Where to write the probability of change too: GeoTIFF, float32, NaN without data.
        polygons: Where to write changed areas: .gpkg, .parquet (GeoParquet) or .geojson.
        quicklook: Where to write a picture of both dates and the changes: .png.
        summary: Where to write CAR, hectares and timing: .json.
        progress: Show a progress bar.
        **options: Fields of ``SceneOptions``.

    Raises:
        DataError: When a raster cannot be used or read, the dates do not fit, or something cannot be written. Nothing
            is left half-written.
        RecipeError: When an option cannot be used.
    """
    with gdal_settings():
        outputs = _outputs(output, probability, polygons, quicklook, summary)
        return _Scene(detector, before, after, outputs, _options(options)).run(progress)


def finished_summary(
    detector: Detector,
    before: Files,
    after: Files,
    output: str | os.PathLike[str],
    *,
    summary: str | os.PathLike[str],
    probability: str | os.PathLike[str] | None = None,
    polygons: str | os.PathLike[str] | None = None,
    quicklook: str | os.PathLike[str] | None = None,
    **options: Any,  # noqa: ANN401  fields of SceneOptions, checked by it
) -> dict[str, Any] | None:
    """The summary of a scene that ``predict_scene`` has finished before in the very same way; ``None`` for others.

    Arguments and errors are those of ``predict_scene``.
    """
    try:
        found: dict[str, Any] = json.loads(Path(summary).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    outputs = _outputs(output, probability, polygons, quicklook, summary)
    if not all(path.is_file() for path in outputs.named().values()):
        return None
    with gdal_settings():
        key = fingerprint(_Scene(detector, before, after, outputs, _options(options)).settings)
    return found if found.get("fingerprint") == key else None


def _options(options: dict[str, Any]) -> SceneOptions:
    try:
        return SceneOptions(**options)
    except TypeError as error:
        raise RecipeError(f"options: {error}; expected fields of SceneOptions") from error


def _outputs(mask: str | os.PathLike[str], *others: str | os.PathLike[str] | None) -> Outputs:
    return Outputs(Path(mask), *(None if path is None else Path(path) for path in others))


class _Scene:
    """One prediction, from the files to the files."""

    def __init__(
        self, detector: Detector, before: Files, after: Files, outputs: Outputs, options: SceneOptions
    ) -> None:
        self.started = time.perf_counter()
        self.detector, self.outputs, self.options = detector, outputs, options
        if options.routing == "scene" and not isinstance(detector, OriginPartition):
            raise RecipeError("routing: by scene is for Origin-Partition; give its bundle, or leave routing out")
        self.before = open_source(before, "before", options.bands, options.nodata)
        self.after = open_source(after, "after", options.bands, options.nodata)
        self.grid = common_grid(self.before, self.after, options.grid)
        check_outputs(outputs, (*self.before.files, *self.after.files), self.grid.crs is not None)
        sides = (self.grid.height, self.grid.width)
        rows, columns = (axis(side, options.tile, options.overlap, detector.multiple) for side in sides)
        self.tiling = Tiling(rows, columns)
        self.ranges: ValueRange = value_range(self.before, self.after, options.image_range)
        self.shift = estimate_shift(self.before, self.after, self.grid) if options.register else None
        self.folder = outputs.mask.with_name(f".{outputs.mask.name}.work")

        self.settings = self._settings()

    def run(self, progress: bool) -> SceneResult:
        """Predict and write."""
        try:
            with Progress(disable=not progress, transient=True) as bar:
                result = self._predict_and_write(self.settings, bar)
        except BitemporalError:
            # what is wrong will not be right the next time, unless it is a connection
            if not any("://" in file for file in (*self.before.files, *self.after.files)):
                shutil.rmtree(self.folder, ignore_errors=True)
            raise
        shutil.rmtree(self.folder, ignore_errors=True)
        return result

    def _settings(self) -> dict[str, Any]:
        """Everything that the result depends on, in JSON types."""
        grid = self.grid
        return {
            "version": __version__,
            "detector": self.detector.identity(),
            "before": [_state(file) for file in self.before.files],
            "after": [_state(file) for file in self.after.files],
            "channels": [[[file, band] for file, band in source.channels] for source in (self.before, self.after)],
            "ranges": self.ranges,
            "shift": self.shift,
            "grid": [str(grid.crs), tuple(grid.transform), grid.width, grid.height],
            "tiling": asdict(self.tiling),
            "options": asdict(self.options),
        }

    def _open_dates(self) -> tuple[DateOnGrid, DateOnGrid]:
        return DateOnGrid(self.before, self.grid), DateOnGrid(self.after, self.grid, self.shift)

    def _predict_and_write(self, settings: dict[str, Any], bar: Progress) -> SceneResult:
        detector, part, resumed = self.detector, None, 0
        strips = self.tiling.across.count
        with ExitStack() as stack:
            if self.options.routing == "scene":
                assert isinstance(detector, OriginPartition)
                journal = self._journal(stack, "origin", settings)
                resumed += journal.strips
                self._fill(journal, detector.origin, bar, bar.add_task("origin", total=strips))
                part = _part(journal, detector.partition)
                chosen = detector.specialists.get(part)
                if chosen is not None:
                    journal = self._journal(stack, part, settings)
                    resumed += journal.strips
                    self._fill(journal, chosen, bar, bar.add_task(part, total=strips))
            else:
                journal = self._journal(stack, "all", settings)
                resumed += journal.strips
                self._fill(journal, detector, bar, bar.add_task("predicting", total=strips))
            predicted = time.perf_counter()
            if not journal.valid.any():
                raise DataError(
                    f"{self.before.describe()} and {self.after.describe()}: have no pixel that is valid on both dates; "
                    "check nodata, and that they show the same place"
                )
            bar.add_task("writing", total=None)
            count = write_outputs(
                self.outputs,
                journal,
                self.grid,
                self._tags(settings),
                PolygonOptions(self.options.minimum_area, self.options.smooth),
            )
            if self.outputs.quicklook is not None:
                dates = self._open_dates()
                for date in dates:
                    stack.callback(date.close)
                write_quicklook(self.outputs.quicklook, dates, self.ranges, self.outputs.mask, self.grid)
            return self._result(journal, settings, count, part, resumed, predicted)

    def _journal(self, stack: ExitStack, name: str, settings: dict[str, Any]) -> Journal:
        key = fingerprint(settings | {"pass": name})
        return stack.enter_context(Journal(self.folder / name, self.tiling, self.options.threshold, key))

    def _fill(self, journal: Journal, detector: Detector, bar: Progress, task: TaskID) -> None:
        """Predict the strips that a journal lacks."""
        tiling = self.tiling
        bar.update(task, completed=journal.strips)
        remaining = range(journal.strips, tiling.across.count)
        reader = TileReader(self._open_dates, tiling, self.ranges, threads=min(4, (os.cpu_count() or 1) + 1))
        writer = ThreadPoolExecutor(1, thread_name_prefix="strips")
        pending: Future[None] | None = None
        blend = Blend(tiling, journal.strips, journal.carried)
        try:
            tiles = reader.tiles(place for strip in remaining for place in tiling.tiles(strip))
            for _ in remaining:
                valid, tallies = self._strip(tiles, blend, detector)
                start, done = blend.finish()
                done[~valid[: len(done)]] = np.nan
                if pending is not None:
                    pending.result()
                pending = writer.submit(journal.write, start, done, blend.carried.copy(), tallies)
                bar.advance(task)
            if pending is not None:
                pending.result()
        finally:
            reader.close()
            writer.shutdown(wait=True, cancel_futures=True)

    def _strip(
        self, tiles: Iterator[Tile], blend: Blend, detector: Detector
    ) -> tuple[npt.NDArray[np.bool_], Counter[str]]:
        """Answer the tiles of a strip: which pixels of it are valid, and what became of the tiles."""
        tiling = self.tiling
        across, along = tiling.across, tiling.along
        top, bottom = across.answered(blend.strip)
        valid = np.zeros((bottom - top, along.length), np.bool_)
        tallies: Counter[str] = Counter()
        waiting: list[Tile] = []
        for index, tile in enumerate(islice(tiles, along.count)):
            left, right = along.answered(index)
            seen = tile.valid if tiling.strips_are_rows else tile.valid.T
            y, x = across.start(blend.strip), along.start(index)
            own = seen[top - y : bottom - y, left - x : right - x]
            valid[:, left:right] |= own
            if own.any():
                waiting.append(tile)
            else:
                tallies[SKIPPED] += 1
            if len(waiting) == self.options.batch_size:
                self._answer(waiting, blend, detector, tallies)
                waiting = []
        self._answer(waiting, blend, detector, tallies)
        return valid, tallies

    def _answer(self, tiles: Sequence[Tile], blend: Blend, detector: Detector, tallies: Counter[str]) -> None:
        """One batch."""
        if not tiles:
            return
        answers = detector.answers(
            [torch.from_numpy(tile.before) for tile in tiles],
            [torch.from_numpy(tile.after) for tile in tiles],
            [torch.from_numpy(tile.valid) for tile in tiles],
        )
        for tile, answer in zip(tiles, answers, strict=True):
            index = tile.column if self.tiling.strips_are_rows else tile.row
            blend.add(index, answer.probability[0].to("cpu", torch.float32).numpy())
            tallies[ANSWERED] += 1
            if answer.part is not None:
                tallies[answer.part] += 1

    def _tags(self, settings: dict[str, Any]) -> dict[str, str]:
        """Of the rasters: how they were made."""
        options = self.options
        tags = {
            "SOFTWARE": f"bitemporal {__version__}",
            "DETECTOR": json.dumps(settings["detector"]),
            "BEFORE": ", ".join(f"{Path(file).name}:{band}" for file, band in self.before.channels),
            "AFTER": ", ".join(f"{Path(file).name}:{band}" for file, band in self.after.channels),
            "VALUE_RANGE": json.dumps(self.ranges),
            "THRESHOLD": f"{options.threshold:g}",
            "GRID": options.grid,
            "TILE": f"{self.tiling.rows.tile} x {self.tiling.columns.tile}",
            "OVERLAP": f"{options.overlap}",
        }
        if isinstance(self.detector, OriginPartition):
            tags["ROUTING"] = options.routing
        if self.shift is not None:
            tags["SHIFT"] = f"{self.shift.columns:+.2f} columns, {self.shift.rows:+.2f} rows"
        return tags

    def _result(
        self,
        journal: Journal,
        settings: dict[str, Any],
        count: int | None,
        part: str | None,
        resumed: int,
        predicted: float,
    ) -> SceneResult:
        """What was found; written as the summary too, if that is asked for."""
        changed, valid = int(journal.changed.sum()), int(journal.valid.sum())
        hectares, valid_hectares = changed_hectares(self.grid, journal.changed, journal.valid)
        tallies = dict(journal.tallies)
        tiles, skipped = tallies.pop(ANSWERED, 0), tallies.pop(SKIPPED, 0)
        now = time.perf_counter()
        result = SceneResult(
            outputs=self.outputs,
            car=changed / valid,
            changed_pixels=changed,
            valid_pixels=valid,
            changed_hectares=hectares,
            polygons=count,
            tiles=tiles,
            skipped=skipped,
            parts=tallies if part is None else {part: tiles},
            shift=self.shift,
            resumed=resumed,
            seconds={
                "prediction": round(predicted - self.started, 3),
                "writing": round(now - predicted, 3),
                "total": round(now - self.started, 3),
            },
        )
        if self.outputs.summary is not None:
            found = asdict(replace(result, outputs=Outputs(Path())))
            del found["outputs"]
            found["shift"] = None if self.shift is None else self.shift._asdict()
            content = {
                "outputs": {name: str(path) for name, path in self.outputs.named().items()},
                **found,
                "valid_hectares": valid_hectares,
                "grid": {
                    "crs": None if self.grid.crs is None else self.grid.crs.to_string(),
                    "transform": list(self.grid.transform)[:6],
                    "height": self.grid.height,
                    "width": self.grid.width,
                },
                "settings": settings,
                "fingerprint": fingerprint(settings),
            }
            write_json(self.outputs.summary, content)
        return result


def _part(journal: Journal, partition: CarPartition) -> str:
    """The part of the whole scene's CAR."""
    valid = int(journal.valid.sum())
    return partition.part(int(journal.changed.sum()) / valid) if valid else partition.names[0]


def _state(file: str) -> list[Any]:
    """A file and what tells that it has changed."""
    path = Path(file)
    if not path.is_file():
        return [file]
    found = path.stat()
    return [str(path.resolve()), found.st_size, found.st_mtime_ns]
