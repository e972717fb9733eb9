"""A predicted raster against a label raster or the polygons of a vector file, block by block.

Blocks of the raster take the place of pairs, so that scores of them, CAR parts and intervals exist. What crosses the
edge of a block is cut there: it is not a boundary, and the parts are separate objects.
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.io import DatasetReader
from rasterio.windows import Window
from rich.progress import track

from bitemporal.errors import DataError, LabelError, OptionError
from bitemporal.evaluation.results import MaskSettings, Protocol, Result, program
from bitemporal.evaluation.scoring import LabelledAnswer, count_answers
from bitemporal.files import not_there
from bitemporal.imagery.label_files import count_values
from bitemporal.imagery.label_rules import UNKNOWN, LabelDecoding, LabelOptions
from bitemporal.imagery.labels import LabelObservation, LabelSummary
from bitemporal.imagery.marks import THRESHOLD, as_threshold
from bitemporal.imagery.masks import IGNORE
from bitemporal.method.car import CarPartition
from bitemporal.remedies import as_typed
from bitemporal.scenes.exclusion import Exclusion, RasterOnGrid
from bitemporal.scenes.geometry import Grid, grid_of
from bitemporal.scenes.options import PlaceOptions
from bitemporal.scenes.sources import gdal_settings, open_raster, reading_pixels
from bitemporal.scenes.vectors import VECTORS, PolygonsOnGrid

BLOCK = 1024
"""Side of a block in pixels."""

_MOST_VALUES = 1000
"""A mask has fewer values."""

_POLYGONS = "polygons = changed, all others unchanged"


def evaluate_raster(
    prediction: str | os.PathLike[str],
    label: str | os.PathLike[str],
    *,
    partition: CarPartition | None = None,
    settings: MaskSettings | None = None,
    block: int = BLOCK,
    within: str | None = None,
    mask: list[str] | None = None,
    labels: LabelOptions | None = None,
    allow_vrt: bool = False,
    progress: bool = False,
) -> Result:
    """Compare a predicted raster with labels on its pixels, window by window.

    Pixels count where both hold data and nothing leaves them out. A label raster is brought to the prediction's pixels
    by the nearest pixel; polygons cover the pixels whose centre lies in them.

    Args:
        prediction: Raster of one band: integers, 0 unchanged and one other value changed, or floats, probabilities of
            change in [0, 1].
        label: Label raster of one band; or polygons of what has changed: GeoPackage, GeoJSON, shapefile or GeoParquet.
        partition: CAR parts to group the blocks by; small <= 0.05 < medium <= 0.20 < large by default.
        settings: How the prediction was made, for the protocol. Probabilities are changed above its threshold; for a
            mask, its tags say the threshold, if they hold one.
        block: Side in pixels of the blocks that take the place of pairs.
        within: Vector file with the area of interest.
        mask: Rasters that mark pixels to leave out where they are not 0.
        labels: What the values of a label raster mean; by default, what they show.
        allow_vrt: Whether rasters may read whatever they name: files outside of their own folder, and addresses.
        progress: Show a progress bar.

    Returns:
        The scores with their protocol. Blocks without a valid pixel are left out.

    Raises:
        DataError: When a file cannot be used, or they do not fit.
        LabelError: When the values of the label raster cannot be decoded.
        OptionError: When an option cannot be used, or the settings state another threshold than the tags of a mask.
    """
    if block < 1:
        raise OptionError(f"block: found {block}, expected at least 1")
    partition, stated, how = partition or CarPartition(), labels or LabelOptions(), settings or MaskSettings()
    path = Path(prediction)
    if not path.exists():
        raise DataError(f"{not_there(path, 'file')}; expected a predicted raster: correct the path")
    with gdal_settings(), ExitStack() as files:
        predicted = files.enter_context(open_raster(os.fspath(prediction), allow_vrt))
        grid = grid_of(predicted, os.fspath(prediction))
        is_probability = _check_bands(predicted, path)
        noted = None if is_probability else as_threshold(predicted.tags().get(THRESHOLD))
        threshold = how.threshold_of(noted, path)
        exclusion = files.enter_context(
            Exclusion.of(PlaceOptions(within=within, mask=mask, allow_vrt=allow_vrt), grid).open()
        )
        truth = _open_label(Path(label), predicted, grid, stated, allow_vrt, files)
        windows = [
            Window(x, y, min(block, grid.width - x), min(block, grid.height - y))
            for y in range(0, grid.height, block)
            for x in range(0, grid.width, block)
        ]

        def pieces() -> Iterator[tuple[Window, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.bool_]]]:
            """Prediction, label and the pixels that count of every block that has any."""
            for window in windows:
                values, valid = _read(predicted, path, window)
                valid &= exclusion.kept(window)
                if valid.any():
                    told, known = truth.read(window)
                    valid &= known
                if valid.any():
                    yield window, values, told, valid

        decoding = _decode(pieces(), path, Path(label), is_probability, truth)

        def answers() -> Iterator[tuple[str, LabelledAnswer]]:
            counted = track(pieces(), "evaluating", total=len(windows), disable=not progress)
            for window, values, told, valid in counted:
                target = told if decoding is None else decoding.meanings(told)
                target = np.where(valid, target, IGNORE).astype(np.uint8)
                name = f"y{window.row_off}_x{window.col_off}"
                if is_probability:
                    probability = np.where(valid, values, 0).astype(np.float32)
                    yield name, LabelledAnswer(target, probability > threshold, probability)
                else:
                    yield name, LabelledAnswer(target, (values != 0) & valid)

        evaluation, digest = count_answers(answers(), partition)
    protocol = Protocol(
        **vars(replace(how, threshold=threshold)),
        data=Path(label).name,
        split="blocks",
        pairs_hash=digest,
        pairs=len(evaluation.stems),
        labels=_POLYGONS if decoding is None else decoding.rule(),
        car_thresholds=partition.thresholds,
        block=block,
    )
    return Result(path.stem, protocol, evaluation, origin=program())


def _check_bands(dataset: DatasetReader, path: Path) -> bool:
    """Whether a prediction holds probabilities; else it is a mask."""
    kind = np.dtype(dataset.dtypes[0]).kind
    if dataset.count != 1 or kind not in "uif":
        raise DataError(
            f"{path}: has {dataset.count} band(s) of {dataset.dtypes[0]}; expected one band: a change mask of "
            "integers, or probabilities of change as floats: give such a raster"
        )
    return bool(kind == "f")


def _read(dataset: DatasetReader, path: Path, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Values of a prediction, and where it has any."""
    with reading_pixels(path):
        values = dataset.read(1, window=window)
        valid = dataset.read_masks(1, window=window) > 0
    return values, valid & np.isfinite(values)


class _Polygons:
    """Labels of a vector file: changed within its polygons."""

    def __init__(self, polygons: PolygonsOnGrid) -> None:
        self.polygons = polygons

    def read(self, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        covered = self.polygons.covers(window)
        return covered.astype(np.uint8), np.ones(covered.shape, np.bool_)


class _Raster:
    """Labels of a raster on the pixels of the prediction."""

    def __init__(self, raster: RasterOnGrid, stated: LabelDecoding) -> None:
        self.raster, self.stated = raster, stated
        self.unknown = 0  # pixels that the file calls no data

    def read(self, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        values, known, unknown = self.raster.read_label(window, self.stated)
        self.unknown += unknown
        return values, known


def _open_label(
    path: Path,
    predicted: DatasetReader,
    grid: Grid,
    stated: LabelOptions,
    allow_vrt: bool,
    files: ExitStack,
) -> _Polygons | _Raster:
    if path.is_dir():
        raise DataError(
            f"label: {path} is a folder, but {predicted.name} a raster; expected a label raster or a vector file "
            f"({', '.join(VECTORS)}): give one"
        )
    if path.suffix.lower() in VECTORS:
        stated.refuse(f"{path} is a vector file, whose polygons are what has changed")
        return _Polygons(PolygonsOnGrid(path, grid, "label", may_be_empty=True))
    for name in ("changed_colours", "unchanged_colours"):
        if getattr(stated, name) is not None:
            raise OptionError(f"{name}: does not apply to a label raster, whose one band holds numbers; leave it out")
    raster = files.enter_context(RasterOnGrid(path, grid, "label", stated.label_band, allow_vrt))
    raster.check_overlap()
    return _Raster(raster, stated.decoding())


def _decode(
    pieces: Iterator[tuple[Window, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.bool_]]],
    path: Path,
    label: Path,
    is_probability: bool,
    truth: _Polygons | _Raster,
) -> LabelDecoding | None:
    """Read everything once: check the prediction's values, and find out what those of the label mean.

    Returns:
        What they mean; ``None`` for polygons.

    Raises:
        DataError: When no pixel counts, or the prediction is not one.
        LabelError: When the label's values cannot be decoded.
    """
    found: Counter[float] = Counter()
    told: Counter[float] = Counter()
    for _, values, labels, valid in pieces:
        if is_probability:
            strange = values[valid & ((values < 0) | (values > 1))]
            if strange.size:
                raise DataError(f"{path}: holds {strange[0]:g}; expected probabilities in [0, 1]: give such a raster")
        else:
            found.update(dict(count_values(values[valid])))
        told.update(dict(count_values(labels[valid])))
        if len(found) > 2 and {*found} == {0, 1, 255}:
            raise DataError(
                f"{path}: holds 0, 1 and 255, and does not declare 255 as no data; if it is, "
                f"`rio edit-info {as_typed(path)} --nodata 255` declares it"
            )
        if len({*found} - {0}) > 1:
            listed = ", ".join(f"{value:g}" for value in sorted(found)[:10])
            raise DataError(
                f"{path}: holds {listed}; expected 0 for unchanged and one other value for changed: write such a mask"
            )
        if len(told) > _MOST_VALUES:
            raise DataError(f"{label}: holds more than {_MOST_VALUES} values; expected a change mask: give one")
    if not told:
        raise DataError(
            f"{path} and {label}: have no pixel that is valid in both and not left out; check that they show the same "
            "place, and their no-data values"
        )
    if isinstance(truth, _Polygons):
        return None
    no_data = (truth.raster.nodata, truth.unknown) if truth.raster.nodata is not None and truth.unknown else None
    counts = tuple(sorted(told.items(), key=lambda pair: -pair[1]))
    summary = LabelSummary(truth.stated)
    summary.add(label, LabelObservation((1, sum(told.values())), "grey", counts, len(counts), no_data=no_data))
    decoding, faults = summary.resolve()
    if decoding is None:
        raise LabelError("\n".join(map(str, faults)))
    meanings = decoding.meanings(np.array([value for value, _ in counts]))
    if (meanings == UNKNOWN).any():
        unknown = ", ".join(
            f"{value:g}" for (value, _), meaning in zip(counts, meanings, strict=True) if meaning == UNKNOWN
        )
        raise LabelError(f"{label}: holds {unknown}, but {decoding.rule()}; say what each value means")
    return decoding
