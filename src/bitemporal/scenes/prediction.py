"""One scene: two rasters in, a georeferenced change map out, in memory that does not grow with the scene."""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import Progress, TaskID

from bitemporal import __version__
from bitemporal.errors import BitemporalError, DataError, RecipeError
from bitemporal.files import unwritable, write_json
from bitemporal.inference import Detector, OriginPartition
from bitemporal.method.origin_partition import route_car
from bitemporal.scenes.geography import changed_hectares, has_areas
from bitemporal.scenes.grids import DateOnGrid, Shift, common_grid
from bitemporal.scenes.journal import Journal, fingerprint
from bitemporal.scenes.options import SceneOptions
from bitemporal.scenes.outputs import Outputs, check_outputs, make_outputs, publish
from bitemporal.scenes.pictures import write_quicklook
from bitemporal.scenes.reading import Tile, TileReader
from bitemporal.scenes.registration import estimate_shift
from bitemporal.scenes.sources import Files, gdal_settings, open_raster, open_source
from bitemporal.scenes.tiling import Blend, Tiling, axis
from bitemporal.scenes.values import ValueRange, value_range

try:
    import fcntl
except ModuleNotFoundError:  # Windows; runs are not kept apart there
    fcntl = None  # type: ignore[assignment]  # None stands for a missing module

_ROWS = 256
"""Of the probabilities that are looked at at once."""

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


def predict_unless_finished(
    detector: Detector,
    before: Files,
    after: Files,
    outputs: Outputs,
    options: SceneOptions,
) -> tuple[bool, dict[str, Any]]:
    """As ``predict_scene``, but leave alone what an earlier run has finished in the very same way.

    Args:
        detector: Any detector.
        before: Date 1.
        after: Date 2.
        outputs: Files; the summary among them, which tells what is finished.
        options: How the scene is read, predicted and drawn.

    Returns:
        Whether it was finished before, and the summary.

    Raises:
        DataError: As ``predict_scene``.
        RecipeError: As ``predict_scene``.
    """
    assert outputs.summary is not None
    with gdal_settings():
        scene = _Scene(detector, before, after, outputs, options)
        found = _read_summary(outputs.summary)
        finished = found.get("fingerprint") == fingerprint(scene.settings)
        if finished and all(path.is_file() for path in outputs.named().values()):
            return True, found
        scene.run(progress=False)
    return False, _read_summary(outputs.summary)


def _read_summary(path: Path) -> dict[str, Any]:
    """A summary; empty where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


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
            raise RecipeError(
                "routing: by scene is for Origin-Partition by itself, without augmentation or others; give its "
                "bundle alone, or leave routing out"
            )
        self.before = open_source(before, "before", options.bands, options.nodata)
        self.after = open_source(after, "after", options.bands, options.nodata)
        self.grid = common_grid(self.before, self.after, options.grid)
        check_outputs(outputs, (*self.before.files, *self.after.files), has_areas(self.grid.crs))
        sides = (self.grid.height, self.grid.width)
        rows, columns = (axis(side, options.tile, options.overlap, detector.multiple) for side in sides)
        self.tiling = Tiling(rows, columns)
        self.ranges: ValueRange = value_range(self.before, self.after, options.image_range)
        self.shift = estimate_shift(self.before, self.after) if options.register else None
        self.folder = outputs.mask.with_name(f".{outputs.mask.name}.work")
        self.settings = self._settings()
        self.predicted = False

    def run(self, progress: bool) -> SceneResult:
        """Predict and write."""
        with self._alone(), Progress(disable=not progress, transient=True) as bar:
            try:
                result = self._predict_and_write(bar)
            except BitemporalError:
                # what is wrong will not be right the next time, unless all is predicted, or it is a connection
                if not self.predicted and not is_remote((*self.before.files, *self.after.files)):
                    shutil.rmtree(self.folder, ignore_errors=True)
                raise
            shutil.rmtree(self.folder, ignore_errors=True)
        return result

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other runs from writing the same output at the same time."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise unwritable(self.outputs.mask, error) from error
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise DataError(
                f"{self.outputs.mask}: another run is writing it; wait for its end, or choose another output"
            ) from error
        try:
            yield
        finally:
            os.close(lock)
            with suppress(OSError):  # where nothing is kept
                (self.folder / "lock").unlink()
                self.folder.rmdir()

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

    def _predict_and_write(self, bar: Progress) -> SceneResult:
        detector, part, resumed = self.detector, None, 0
        strips = self.tiling.across.count
        with ExitStack() as stack:
            if self.options.routing == "scene":
                assert isinstance(detector, OriginPartition)
                journal = self._journal(stack, "origin")
                resumed += journal.strips
                self._fill(journal, detector.origin, bar, bar.add_task("origin", total=strips))
                part = route_car(_car(journal), detector.partition)
                chosen = detector.teachers.get(part)
                if chosen is not None:
                    journal = self._journal(stack, part)
                    resumed += journal.strips
                    self._fill(journal, chosen, bar, bar.add_task(part, total=strips))
            else:
                journal = self._journal(stack, "all")
                resumed += journal.strips
                self._fill(journal, detector, bar, bar.add_task("predicting", total=strips))
            predicted = time.perf_counter()
            if not journal.valid.any():
                raise DataError(
                    f"{self.before.describe()} and {self.after.describe()}: have no pixel that is valid on both dates; "
                    "check nodata, and that they show the same place"
                )
            self.predicted = True
            bar.add_task("writing", total=None)
            with _told(self.outputs.mask):
                made, count = make_outputs(
                    self.outputs,
                    journal,
                    self.grid,
                    self._tags(),
                    self.options,
                )
                if self.outputs.quicklook is not None:
                    dates = self._open_dates()
                    for date in dates:
                        stack.callback(date.close)
                    picture = journal.folder / "quicklook.png"
                    write_quicklook(picture, dates, self.ranges, journal.folder / "mask.tif", self.grid)
                    made[picture] = self.outputs.quicklook
                if self.outputs.summary is not None:  # whose presence says that all else is there
                    self.outputs.summary.unlink(missing_ok=True)
                publish(made)
            return self._result(journal, count, part, resumed, predicted)

    def _journal(self, stack: ExitStack, name: str) -> Journal:
        key = fingerprint(self.settings | {"pass": name})
        return stack.enter_context(Journal(self.folder / name, self.tiling, self.options.threshold, key))

    def _reading_threads(self) -> int:
        """As few as keep up with the network: each has files of its own, and decodes blocks that others decode too."""
        remote = is_remote((*self.before.files, *self.after.files))
        return 4 if remote else min(4, max(1, (os.cpu_count() or 1) // 2))

    def _fill(self, journal: Journal, detector: Detector, bar: Progress, task: TaskID) -> None:
        """Predict the strips that a journal lacks."""
        tiling = self.tiling
        bar.update(task, completed=journal.strips)
        remaining = range(journal.strips, tiling.across.count)
        if not remaining:  # a run that was stopped later than this
            return
        reader = TileReader(self._open_dates, tiling, self.ranges, self._reading_threads())
        writer = ThreadPoolExecutor(1, thread_name_prefix="strips")
        pending: Future[None] | None = None
        blend = Blend(tiling, journal.strips, journal.carried)
        try:
            tiles = reader.tiles(place for strip in remaining for place in tiling.tiles(strip))
            for _ in remaining:
                valid, tallies = self._strip(tiles, blend, detector)
                start, done = blend.finish()
                np.clip(done, 0.0, 1.0, out=done)  # sums of weights end a hair above one
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

    def _tags(self) -> dict[str, str]:
        """Of the rasters: how they were made."""
        options = self.options
        tags = {
            "SOFTWARE": f"bitemporal {__version__}",
            "DETECTOR": json.dumps(self.settings["detector"]),
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
            found = {field.name: getattr(result, field.name) for field in fields(result)}
            found["shift"] = None if self.shift is None else self.shift._asdict()
            content = {
                **found,
                "outputs": {name: str(path) for name, path in self.outputs.named().items()},
                "valid_hectares": valid_hectares,
                "grid": {
                    "crs": None if self.grid.crs is None else self.grid.crs.to_string(),
                    "transform": list(self.grid.transform)[:6],
                    "height": self.grid.height,
                    "width": self.grid.width,
                },
                "settings": self.settings,
                "fingerprint": fingerprint(self.settings),
            }
            write_json(self.outputs.summary, content)
        return result


def _car(journal: Journal) -> float:
    """CAR of the whole scene by the network's own threshold, as ``OriginPartition`` takes it of a tile."""
    changed = 0
    for top in range(0, journal.height, _ROWS):
        values = journal.probabilities(slice(top, min(top + _ROWS, journal.height)), slice(None))
        changed += int((values > 0.5).sum())
    valid = int(journal.valid.sum())
    return changed / valid if valid else float("nan")


@contextmanager
def _told(output: Path) -> Iterator[None]:
    """Say that nothing is lost when what was predicted cannot be written."""
    kept = f"What was predicted is kept beside {output}: run the same again"
    try:
        yield
    except BitemporalError as error:
        raise type(error)(f"{error}. {kept}") from error
    except OSError as error:
        raise DataError(f"{unwritable(output, error)}. {kept}") from error


def is_remote(files: Sequence[str]) -> bool:
    """Whether any of the files is read over a network."""
    return any("://" in file or file.startswith("/vsi") for file in files)


def _state(file: str) -> list[Any]:
    """A file, with those that it names (VRT) or that belong to it, and what tells that they have changed."""
    with open_raster(file) as dataset:
        parts = [file, *sorted(dataset.files)]
    known = [(path, path.stat()) for path in map(Path, dict.fromkeys(parts)) if path.is_file()]
    return [file, *([str(path.resolve()), found.st_size, found.st_mtime_ns] for path, found in known)]
