"""What a report needs from the folder of a run."""

import csv
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitemporal.errors import DataError, RecipeError
from bitemporal.evaluation import Comparison, Result, compare
from bitemporal.evaluation.results import counts_file
from bitemporal.inference.bundle import read_description, read_origin_partition
from bitemporal.pairs.partition import read_partition
from bitemporal.reading import open_table, reading
from bitemporal.remedies import as_typed
from bitemporal.run.folder import CONTROL, O_P, ORIGIN, RunFolder, StageFolder
from bitemporal.run.networks import check_registered
from bitemporal.run.scores import check_run, earlier_states, how_to_score, is_distillation, read_scores

_CURVES = ("step", "loss", "val_miou")


@dataclass(frozen=True)
class FinishedRun:
    """A run with its verdict, or a trained network alone.

    Attributes:
        folder: Its folder.
        recipe: The fields of its recipe, unchecked but for the model.
        split: The split that was scored.
        results: The result of each detector on that split; none of a run of ``bitemporal train`` without scores.
        validation: Results on val, which thresholds are chosen on.
        summaries: All metrics of each detector, with intervals.
        comparison: The detectors compared; ``None`` without results.
        teachers: Parts that have a teacher in Origin-Partition; ``None`` where no bundle is left to tell.
        earlier: What is said of scores of an earlier state of the run; empty where all are of the present one.
    """

    folder: RunFolder
    recipe: dict[str, Any]
    split: str
    results: dict[str, Result]
    validation: dict[str, Result]
    summaries: dict[str, dict[str, Any]]
    comparison: Comparison | None
    teachers: tuple[str, ...] | None
    earlier: str = ""

    @property
    def any_result(self) -> Result:
        """The first result, for what all have in common."""
        return next(iter(self.results.values()))


def read_run(path: str | os.PathLike[str]) -> FinishedRun:
    """Read the results of a run.

    Args:
        path: Folder of a run.

    Raises:
        DataError: When the folder holds no run, or one that has not come so far.
        RecipeError: When the recipe cannot be read, or names no network.
        UnknownModelError: When nothing registers its network; the text names the module that did in training.
    """
    folder = RunFolder(path)
    recipe = check_run(folder)
    if not isinstance(recipe.get("model"), str):
        raise RecipeError(
            f"{folder.recipe}: model: found {recipe.get('model')!r}, expected a network's name; restore it "
            "from a backup"
        )
    check_registered([recipe["model"]], [folder])
    scores = read_scores(folder)
    if not scores and is_distillation(recipe):
        raise DataError(f"{folder.path}: has no scores; {how_to_score(folder)}")
    if not scores and not folder.stage(ORIGIN).metrics.exists():
        raise DataError(
            f"{folder.path}: nothing has been trained so far; train it: "
            f"`bitemporal train --config {as_typed(folder.recipe)} --out {as_typed(folder.path)}`"
        )
    split, results = next(iter(scores.items()), ("", {}))
    parts = next(iter(results.values())).evaluation.partition.names if results else ()
    return FinishedRun(
        folder,
        recipe,
        split,
        results,
        scores.get("val", {}),
        {name: result.summary(intervals=True) for name, result in results.items()},
        compare(list(results.values()), results[CONTROL].name if CONTROL in results else None) if results else None,
        _teachers(folder, parts),
        earlier_states(folder, results),
    )


def reads_of_run(run: FinishedRun, data: str | os.PathLike[str] | None) -> list[Path]:
    """What a report of a run is made from.

    Args:
        run: The run.
        data: Folder of the pairs, if it is no longer where the recipe says.
    """
    folder, names = run.folder, [*run.folder.finished_stages(), *run.folder.stages(), O_P]
    results = [result.file for result in (*run.results.values(), *run.validation.values()) if result.file is not None]
    stages = [path for stage in map(folder.stage, names) for path in (stage.bundle, stage.metrics)]
    pairs = Path(data if data is not None else str(run.recipe.get("data")))
    return [folder.recipe, folder.partition, *results, *map(counts_file, results), *stages, pairs]


def _teachers(folder: RunFolder, parts: tuple[str, ...]) -> tuple[str, ...] | None:
    if folder.stage(O_P).finished:
        return read_origin_partition(folder.stage(O_P).bundle)[1]
    return tuple(part for part in parts if folder.teacher(part).finished) or None


def read_cars(folder: RunFolder) -> dict[str, list[float]]:
    """CARs of all pairs by split; none where ``partition.csv`` is missing."""
    cars: dict[str, list[float]] = {}
    for row in read_partition(folder.partition) if folder.partition.exists() else ():
        cars.setdefault(row.split, []).append(row.car)
    return cars


def read_metadata(stage: StageFolder) -> dict[str, Any]:
    """What the bundle of a finished stage says about its training.

    Raises:
        BundleError: When its description is damaged.
    """
    metadata: dict[str, Any] = read_description(stage.bundle).get("metadata", {})
    return metadata


def read_kept(folder: RunFolder, name: str) -> dict[str, str]:
    """Which checkpoint of a stage was kept, and its size, in words; nothing where its bundle is missing.

    Raises:
        BundleError: When its description is damaged.
    """
    stage = folder.stage(name)
    if not stage.finished:
        return {}
    metadata = read_metadata(stage)
    steps, best, chosen_by = (metadata.get(name) for name in ("steps", "best_step", "selected_by"))
    weights = stage.bundle / "weights.safetensors"
    return {
        name: f"best of {steps} steps at step {best}, by {chosen_by}",
        "size of its bundle": f"{weights.stat().st_size / 1e6:.1f} MB"
        if weights.is_file()
        else f"{weights.name} is no longer there",
    }


def read_curve(path: Path) -> list[tuple[int, float, float, float]]:
    """Step, loss, validation mIoU and validation loss of each row of a stage's metrics; NaN where there is none.

    Raises:
        DataError: Naming the line that holds something else.
    """
    remedy = "restore it from a backup, or remove the file, and its curve is left out"
    rows = []
    with reading(path, DataError, f"expected a table in CSV; {remedy}"):
        with open_table(path) as stream:
            reader = csv.DictReader(stream)
            if missing := [name for name in _CURVES if name not in (reader.fieldnames or ())]:
                raise DataError(
                    f"{path}: column(s) {', '.join(missing)} missing, expected {','.join(_CURVES)}; {remedy}"
                )
            for row in reader:
                try:
                    miou, val_loss = (float(row.get(name) or math.nan) for name in ("val_miou", "val_loss"))
                    rows.append((int(row["step"]), float(row["loss"]), miou, val_loss))
                except (TypeError, ValueError, OverflowError):
                    values = ", ".join(f"{name} {row[name]!r}" for name in _CURVES)
                    raise DataError(
                        f"{path}, line {reader.line_num}: found {values}, expected numbers; {remedy}"
                    ) from None
    return rows
