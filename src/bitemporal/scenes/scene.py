"""A scene, ready to be predicted: both dates opened, on a common grid that is cut into tiles."""

import hashlib
import json
import time
import warnings
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bitemporal import __version__
from bitemporal.errors import OptionError
from bitemporal.imagery.scale import ValueRange
from bitemporal.imagery.training_images import SeenImages, is_synthetic, pixel_size
from bitemporal.inference import Detector, OriginPartition
from bitemporal.inference.detector import check_detector
from bitemporal.scenes.bands import Stated
from bitemporal.scenes.drawing import Dates, Drawing
from bitemporal.scenes.exclusion import Exclusion
from bitemporal.scenes.geography import has_areas
from bitemporal.scenes.geometry import Grid
from bitemporal.scenes.grids import DateOnGrid, Shift, common_grid
from bitemporal.scenes.options import SceneOptions
from bitemporal.scenes.outputs import Outputs, check_map
from bitemporal.scenes.radiometry import check_units, warn_of_range, warn_of_values
from bitemporal.scenes.registration import estimate_shift
from bitemporal.scenes.sources import Files, Source, file_state, files_read, is_remote, open_source
from bitemporal.scenes.tiling import Tiling, axis
from bitemporal.scenes.values import look, value_range
from bitemporal.texts import harmless


@dataclass(frozen=True)
class Scene:
    """Everything that the prediction of one scene needs.

    Attributes:
        detector: The detector that answers its tiles.
        outputs: Files to write.
        options: How it is read, predicted and drawn.
        before: Date 1.
        after: Date 2.
        grid: Pixels of the result, on which both dates are compared.
        tiling: Tiles of the grid.
        ranges: Values of each channel that become 0 and 255.
        shift: How far date 2 lies off date 1; ``None`` when it was not registered.
        exclusion: Pixels that are left out.
        started: When the work on it began, by ``time.perf_counter``.
    """

    detector: Detector
    outputs: Outputs
    options: SceneOptions
    before: Source
    after: Source
    grid: Grid
    tiling: Tiling
    ranges: ValueRange
    shift: Shift | None
    exclusion: Exclusion
    started: float

    @property
    def is_remote(self) -> bool:
        """Whether any of its files is read over a network."""
        return is_remote((*self.before.files, *self.after.files))

    def check_outputs(self) -> None:
        """Refuse outputs that would lose something of the user's, or cannot be written.

        Raises:
            OutputError: See ``check_map``.
        """
        files = (*self.before.files, *self.after.files, *self.options.exclusion_files())
        read = [*files_read(files, self.options.allow_vrt), *self.detector.folders]
        check_map(self.outputs, read, has_areas(self.grid.crs))

    @property
    def dates(self) -> Dates:
        """Both dates on the common grid."""
        return Dates(self.before, self.after, self.grid, self.ranges, self.shift)

    @property
    def drawing(self) -> Drawing:
        """What the products are made with, besides the probabilities."""
        return Drawing(self.outputs, self.options, self.grid, self.tags, self.exclusion, self.dates)

    def open_dates(self) -> tuple[DateOnGrid, DateOnGrid]:
        """Open both dates on the common grid, for one thread."""
        return self.dates.open()

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Everything that the result depends on, in JSON types."""
        grid = self.grid
        return {
            "version": __version__,
            "detector": self.detector.identity(),
            "before": [file_state(file, self.options.allow_vrt) for file in self.before.files],
            "after": [file_state(file, self.options.allow_vrt) for file in self.after.files],
            "channels": [[[file, band] for file, band in source.channels] for source in (self.before, self.after)],
            "scaling": [source.scaling for source in (self.before, self.after)],
            "nodata": [source.nodata for source in (self.before, self.after)],
            "ranges": self.ranges,
            "shift": self.shift,
            "grid": [str(grid.crs), tuple(grid.transform), grid.width, grid.height],
            "tiling": asdict(self.tiling),
            "options": asdict(self.options),
            "area": None if self.exclusion.area is None else self.exclusion.area.digest,
            "masks": [file_state(file, self.options.allow_vrt) for file in self.exclusion.masks],
        }

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that the result depends on."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the rasters: how they were made."""
        tags = {
            "SOFTWARE": f"bitemporal {__version__}",
            "DETECTOR": json.dumps(self.settings["detector"]),
            "BEFORE": _named(self.before),
            "AFTER": _named(self.after),
            "SCALE_OFFSET": json.dumps([source.scaling for source in (self.before, self.after)]),
            "VALUE_RANGE": json.dumps(self.ranges),
            "THRESHOLD": f"{self.options.threshold:g}",
            "GRID": self.options.grid,
            "TILE": f"{self.tiling.rows.tile} x {self.tiling.columns.tile}",
            "OVERLAP": f"{self.options.overlap}",
        }
        if isinstance(self.detector, OriginPartition):
            tags["ROUTING"] = self.options.routing
        if self.shift is not None:
            tags["SHIFT"] = f"{self.shift.columns:+.2f} columns, {self.shift.rows:+.2f} rows"
        return tags | self.options.exclusion_tags()


def _named(source: Source) -> str:
    """Files and bands for a tag."""
    return ", ".join(f"{harmless(Path(file).name, lines=False)}:{band}" for file, band in source.channels)


def open_scene(
    detector: Detector,
    before: Files,
    after: Files,
    outputs: Outputs,
    options: SceneOptions,
    stated: Stated | None = None,
) -> Scene:
    """Open both dates, find their common grid, and cut it into tiles.

    What makes the comparison doubtful is said by warnings (``UserWarning``).

    Args:
        detector: Any detector.
        before: Date 1.
        after: Date 2.
        outputs: Files to write.
        options: How the scene is read, predicted and drawn.
        stated: What a catalogue says about bands of the files.

    Raises:
        DataError: When a raster cannot be used, or the dates do not fit.
        OptionError: When an option cannot be used.
        OutputError: When an output would lose something of the user's, or cannot be written.
    """
    started = time.perf_counter()
    check_detector(detector)
    if options.routing == "scene" and not isinstance(detector, OriginPartition):
        raise OptionError(
            "routing: found scene, which is for Origin-Partition alone, without augmentation or other bundles; give "
            "the bundle of Origin-Partition only, or leave routing out"
        )
    first, second = (
        _open_date(detector, files, name, options, stated) for files, name in ((before, "before"), (after, "after"))
    )
    check_units(first, second)
    grid = common_grid(first, second, options.grid)
    exclusion = Exclusion.of(options, grid)
    rows, columns = (axis(side, options.tile, options.overlap, detector.multiple) for side in (grid.height, grid.width))
    looks = look(first), look(second)
    warn_of_values(first, second, looks)
    trained = detector.reading(options.bands).image_range
    ranges = value_range(first, second, looks, options.image_range, trained)
    warn_of_range(first, second, looks, ranges)
    scene = Scene(
        detector=detector,
        outputs=outputs,
        options=options,
        before=first,
        after=second,
        grid=grid,
        tiling=Tiling(rows, columns),
        ranges=ranges,
        shift=estimate_shift(first, second) if options.register else None,
        exclusion=exclusion,
        started=started,
    )
    scene.check_outputs()
    return scene


def _open_date(detector: Detector, files: Files, name: str, options: SceneOptions, catalogue: Stated | None) -> Source:
    """Open one date by the bands that are stated, or that the detector was trained on.

    Raises:
        DataError: When a raster cannot be used.
        OptionError: When bands do not fit the raster or the detector.
    """
    bands = detector.reading(options.bands).bands
    stated = None if options.bands is None else bands  # one band that fills all channels is repeated
    scaling = options.before_scaling if name == "before" else options.after_scaling
    source = open_source(
        files, name, stated, options.nodata, detector.channels, bands, catalogue, scaling, options.allow_vrt
    )
    for note in source.notes:
        warnings.warn(note, UserWarning, stacklevel=2)
    if detector.trained_on is not None and name == "before":
        grid = source.grid
        detector.warn_if_far(
            SeenImages(
                value_type=source.dtype if source.scaling is None else "float64",
                pixel_size=pixel_size(grid.crs, grid.transform, grid.width, grid.height),
                synthetic=all(is_synthetic(Path(file)) for file in source.files),
                bands=bands,
            )
        )
    return source
