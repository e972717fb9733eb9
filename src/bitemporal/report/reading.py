"""What a report needs from the folder of a run."""

import csv
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitemporal.errors import DataError, RecipeError
from bitemporal.evaluation import Comparison, Result, compare, read_result
from bitemporal.files import not_there
from bitemporal.inference.bundle import read_description, read_origin_partition
from bitemporal.pairs.partition import read_partition
from bitemporal.run.folder import CONTROL, DETECTORS, O_P, STUDENT, RunFolder
from bitemporal.run.recipe import read_yaml

_CURVES = ("step", "loss", "val_miou")


@dataclass(frozen=True)
class FinishedRun:
    """A run with its verdict.

    Attributes:
        folder: Its folder.
        recipe: The fields of its recipe, unchecked but for the model.
        split: The split that was scored.
        results: The result of each detector on that split.
        validation: Results on val, which thresholds are chosen on.
        summaries: All metrics of each detector, with intervals.
        comparison: The detectors compared.
        teachers: Parts that have a teacher in Origin-Partition; ``None`` where no bundle is left to tell.
    """

    folder: RunFolder
    recipe: dict[str, Any]
    split: str
    results: dict[str, Result]
    validation: dict[str, Result]
    summaries: dict[str, dict[str, Any]]
    comparison: Comparison
    teachers: tuple[str, ...] | None

    @property
    def any_result(self) -> Result:
        """The first result, for what all have in common."""
        return next(iter(self.results.values()))


def read_run(path: str | os.PathLike[str]) -> FinishedRun:
    """Read the results of a run.

    Args:
        path: Folder of a run.

    Raises:
        DataError: When the folder holds no run, or a run without its verdict.
        RecipeError: When the recipe cannot be read, or names no network.
    """
    folder = RunFolder(path)
    if not folder.path.is_dir():
        raise DataError(f"{not_there(path, 'folder')}; expected the folder of a run")
    if not folder.recipe.is_file():
        raise DataError(f"{folder.path}: has no recipe.yaml; expected the folder of a run of `bitemporal distill`")
    recipe = read_yaml(folder.recipe)
    if not isinstance(recipe.get("model"), str):
        raise RecipeError(
            f"{folder.recipe}: model: found {recipe.get('model')!r}, expected a network's name; restore it from a copy"
        )
    test, validation = (
        {name: read_result(file) for name in DETECTORS if (file := folder.scores(split, name)).is_file()}
        for split in ("test", "val")
    )
    results = test or validation
    if not results:
        raise DataError(f"{folder.path}: has no scores; finish the run: `bitemporal distill` with the stage verdict")
    return FinishedRun(
        folder,
        recipe,
        "test" if test else "val",
        results,
        validation,
        {name: result.summary(intervals=True) for name, result in results.items()},
        compare(list(results.values()), results[CONTROL].name if CONTROL in results else None),
        _teachers(folder, next(iter(results.values())).evaluation.partition.names),
    )


def _teachers(folder: RunFolder, parts: tuple[str, ...]) -> tuple[str, ...] | None:
    if folder.stage(O_P).finished:
        return read_origin_partition(folder.stage(O_P).bundle)[1]
    return tuple(part for part in parts if folder.teacher(part).finished) or None


def read_cars(folder: RunFolder) -> dict[str, list[float]]:
    """CARs of all pairs by split; none where ``partition.csv`` is missing."""
    cars: dict[str, list[float]] = {}
    for row in read_partition(folder.partition) if folder.partition.is_file() else ():
        cars.setdefault(row.split, []).append(row.car)
    return cars


def read_student(folder: RunFolder) -> dict[str, str]:
    """Which checkpoint became the student, and its size, in words; nothing where its bundle is missing.

    Raises:
        DataError: When its metadata are not named values.
    """
    bundle = folder.stage(STUDENT).bundle
    if not folder.stage(STUDENT).finished:
        return {}
    metadata = read_description(bundle).get("metadata", {})
    if not isinstance(metadata, dict):
        raise DataError(
            f"{bundle / 'bundle.json'}: metadata: found {metadata!r}, expected named values; restore it from a copy"
        )
    steps, best, chosen_by = (metadata.get(name) for name in ("steps", "best_step", "selected_by"))
    weights = bundle / "weights.safetensors"
    return {
        "student": f"best of {steps} steps at step {best}, by {chosen_by}",
        "size of its bundle": f"{weights.stat().st_size / 1e6:.1f} MB"
        if weights.is_file()
        else f"{weights.name} is no longer there",
    }


def read_curve(path: Path) -> list[tuple[int, float, float]]:
    """Step, loss and validation mIoU of each row of a stage's metrics; NaN where nothing was validated.

    Raises:
        DataError: Naming the line that holds something else.
    """
    remedy = "restore it from a copy, or remove the file and do without its curve"
    rows = []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            if missing := [name for name in _CURVES if name not in (reader.fieldnames or ())]:
                raise DataError(
                    f"{path}: column(s) {', '.join(missing)} missing, expected {','.join(_CURVES)}; {remedy}"
                )
            for row in reader:
                try:
                    rows.append((int(row["step"]), float(row["loss"]), float(row["val_miou"] or math.nan)))
                except (TypeError, ValueError):
                    values = ", ".join(f"{name} {row[name]!r}" for name in _CURVES)
                    raise DataError(
                        f"{path}, line {reader.line_num}: found {values}, expected numbers; {remedy}"
                    ) from None
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}), expected a table in CSV; {remedy}") from error
    return rows
