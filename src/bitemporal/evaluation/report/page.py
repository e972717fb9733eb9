"""Puts the report of a run together."""

import csv
import math
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bitemporal.errors import BitemporalError, DataError, RecipeError
from bitemporal.evaluation.comparison import Comparison, compare, verdict_sentence
from bitemporal.evaluation.curves import calibration, threshold_curve
from bitemporal.evaluation.report.charts import (
    Mark,
    Series,
    bar_chart,
    car_histogram,
    interval_chart,
    line_chart,
)
from bitemporal.evaluation.report.gallery import Card, choose, draw
from bitemporal.evaluation.results import Result, read_result
from bitemporal.evaluation.scores import forward_passes
from bitemporal.files import check_output, replacing
from bitemporal.inference import load
from bitemporal.inference.bundle import read_description, read_origin_partition
from bitemporal.metrics import Averaging, metrics
from bitemporal.models import model_card
from bitemporal.pairs import PairFolder, resolve_decoding
from bitemporal.pairs.partition import read_partition

ORDER = ("origin", "o-p", "control", "student")
_LOOKS = {name: number for number, name in enumerate(ORDER)}
"""A detector's colour, the same in every chart."""
_DRAWN = ("control", "student")
_ASIDE = 0.15
"""From one detector to the next at a decile, in deciles."""
_CURVES = ("step", "loss", "val_miou")
_TABLE: tuple[tuple[str, str, Averaging], ...] = (
    ("mIoU", "miou", "dataset"),
    ("IoU of change", "iou_changed", "dataset"),
    ("F1 of change", "f1_changed", "dataset"),
    ("precision", "precision_changed", "dataset"),
    ("recall", "recall_changed", "dataset"),
    ("mIoU, image mean", "miou", "image_mean"),
    ("mIoU, image mean, empty 0", "miou", "image_mean_empty_0"),
)


@dataclass(frozen=True)
class _Run:
    """What a run folder holds."""

    folder: Path
    recipe: dict[str, Any]
    results: dict[str, Result]
    summaries: dict[str, dict[str, Any]]
    validation: dict[str, Result]
    split: str
    comparison: Comparison
    teachers: tuple[str, ...] | None
    """Parts that have a teacher in Origin-Partition; ``None`` where no bundle is left to tell."""


_TITLE = "bitemporal report</title>"
_HEAD = 2000
"""Characters within which a report has its title."""


def _is_report(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as stream:
        return _TITLE in stream.read(_HEAD)


def write_report(
    run: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    imagery: bool = True,
) -> Path:
    """Write the report of a run.

    Args:
        run: Folder of a run of ``bitemporal distill`` with its verdict.
        output: HTML file; ``report.html`` in the run folder by default.
        data: Folder of the pairs, where it is not any more what the recipe says.
        imagery: Show before and after; not for data whose terms forbid passing imagery on.

    Returns:
        The file. Where pairs cannot be shown, it and a warning say why.

    Raises:
        DataError: When the run has no verdict yet, or a file cannot be read or written.
        RecipeError: When its recipe names no network, or the output's name does not end in ``.html`` or is that of a
            file that is no report.
    """
    found = _read(Path(run))
    target = Path(output) if output is not None else found.folder / "report.html"
    check_output(target, ".html", _is_report, "report")
    cards, missing = _gallery(found, data, imagery)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = resources.files("bitemporal.evaluation.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    text = environment.from_string(template).render(_content(found) | {"gallery": cards, "gallery_missing": missing})
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")  # file names need not be valid text
    if missing:
        said = f"{target}: shows no pictures: {missing}".encode(errors="backslashreplace").decode()
        warnings.warn(said, UserWarning, stacklevel=2)
    return target


def _read(folder: Path) -> _Run:
    if not (folder / "recipe.yaml").is_file():
        raise DataError(f"{folder}: has no recipe.yaml; expected the folder of a run of `bitemporal distill`")
    try:
        recipe = dict(yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8")))
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise DataError(f"{folder / 'recipe.yaml'}: not a recipe in YAML ({error}); bring back a copy") from error
    if not isinstance(recipe.get("model"), str):
        found = repr(recipe.get("model"))
        raise RecipeError(
            f"{folder / 'recipe.yaml'}: model: found {found}, expected a network's name; bring back a copy"
        )
    by_split = {
        split: {
            name: read_result(path) for name in ORDER if (path := folder / "scores" / split / f"{name}.json").is_file()
        }
        for split in ("test", "val")
    }
    split = "test" if by_split["test"] else "val"
    results = by_split[split]
    if not results:
        raise DataError(f"{folder}: has no scores; finish the run: `bitemporal distill` with the stage verdict")
    comparison = compare(list(results.values()), results["control"].name if "control" in results else None)
    summaries = {name: result.evaluation.summary(intervals=True) for name, result in results.items()}
    some = next(iter(results.values()))
    teachers = _teachers(folder, some.evaluation.partition.names)
    return _Run(folder, recipe, results, summaries, by_split["val"], split, comparison, teachers)


def _teachers(folder: Path, parts: Sequence[str]) -> tuple[str, ...] | None:
    bundle = folder / "o-p" / "bundle"
    if (bundle / "bundle.json").is_file():
        return read_origin_partition(bundle)[1]
    return tuple(p for p in parts if (folder / f"teacher-{p}" / "bundle" / "bundle.json").is_file()) or None


def _content(run: _Run) -> dict[str, Any]:
    some = next(iter(run.results.values()))
    student = run.results.get("student")
    return {
        "title": f"{run.recipe['model']} on {some.protocol.data}",
        "verdict": verdict_sentence(run.comparison, student.name if student else "student"),
        "optimistic": run.split == "val",
        "protocol": some.protocol,
        "description": run.comparison.description,
        "partition": some.evaluation.partition.describe(),
        "table": _score_table(run),
        "differences": _differences(run),
        "by_part": _by_part(run),
        "by_decile": _by_decile(run),
        "curves": _training_curves(run.folder),
        "histogram": _histogram(run.folder),
        "routing": _routing(run),
        "precision_recall": _precision_recall(run),
        "reliability": _reliability(run),
        "objects": _objects(run),
        "model": _model(run),
        "recipe": yaml.safe_dump(run.recipe, sort_keys=False),
        "program": {key: str(some.origin.get(key) or "") for key in ("bitemporal", "commit")},
    }


def _per_cent(value: float) -> str:
    return f"{100 * value:.2f}" if math.isfinite(value) else "–"


def _score_table(run: _Run) -> list[dict[str, Any]]:
    rows = []
    for label, metric, averaging in _TABLE:
        cells = []
        for result in run.results.values():
            found = run.comparison.scores[result.name][metric, averaging]
            cells.append({"value": _per_cent(found.value), "low": _per_cent(found.low), "high": _per_cent(found.high)})
        rows.append({"label": label, "cells": cells})
    boundary = [summary["boundary"]["f1"] for summary in run.summaries.values()]
    rows.append({"label": "boundary F1", "cells": [{"value": _per_cent(v), "low": "", "high": ""} for v in boundary]})
    passes = [forward_passes(result.evaluation, run.teachers) for result in run.results.values()]
    rows.append({"label": "forward passes a pair", "cells": [{"value": v, "low": "", "high": ""} for v in passes]})
    return [{"label": "", "cells": list(run.results)}, *rows]


def _differences(run: _Run) -> Markup:
    rows: list[tuple[str, float, float, float, int]] = []
    short = {result.name: name for name, result in run.results.items()}
    for name in run.comparison.names[1:]:
        found = run.comparison.differences[name]["miou", "dataset"]
        rows.append((short[name], 100 * found.value, 100 * found.low, 100 * found.high, _LOOKS[short[name]]))
    if not rows:
        return Markup("")
    return interval_chart("Difference in mIoU", rows, f"points of dataset mIoU, minus {short[run.comparison.names[0]]}")


def _by_part(run: _Run) -> Markup:
    names: list[str] = []
    series = []
    for name, summary in run.summaries.items():
        groups = summary["by_part"]
        names = [f"{part} ({group['pairs']})" for part, group in groups.items()]
        low, high = _interval_ends(groups.values())
        values = [100 * group["dataset"]["miou"] for group in groups.values()]
        series.append(Series(name, [], values, low, high, look=_LOOKS[name]))
    return bar_chart("mIoU by CAR part", names, series, "dataset mIoU, per cent")


def _interval_ends(groups: Iterable[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    intervals = [group["intervals"]["dataset"]["miou"] for group in groups]
    return [100 * low for low, _ in intervals], [100 * high for _, high in intervals]


def _by_decile(run: _Run) -> Markup:
    series, shown = [], []
    for i, (name, summary) in enumerate(run.summaries.items()):
        groups = summary["by_decile"]
        shown = [(place + 1.0, f"{group['car'][1]:.3f}".removeprefix("0")) for place, group in enumerate(groups)]
        aside = _ASIDE * (i - (len(run.summaries) - 1) / 2)  # or the intervals would hide each other
        values = [100 * group["dataset"]["miou"] for group in groups]
        low, high = _interval_ends(groups)
        places = [x + aside for x, _ in shown]
        series.append(Series(name, places, values, low, high, marks=True, look=_LOOKS[name]))
    return line_chart(
        "mIoU by CAR decile", series, "largest CAR of the decile", "dataset mIoU, per cent", x_ticks=shown
    )


def _training_curves(folder: Path) -> dict[str, Markup]:
    losses, scores = [], []
    stages = sorted(path.parent for path in folder.glob("*/metrics.csv"))
    rank = {"origin": 0, "control": 2, "student": 3}
    teachers = sorted(path.name for path in stages if path.name not in rank)
    looks = _LOOKS | {name: len(_LOOKS) + number for number, name in enumerate(teachers)}
    for stage in sorted(stages, key=lambda path: (rank.get(path.name, 1), path.name)):
        rows, look = _metrics_rows(stage / "metrics.csv"), looks[stage.name]
        losses.append(Series(stage.name, [row[0] for row in rows], [row[1] for row in rows], look=look))
        validated = [row for row in rows if math.isfinite(row[2])]
        steps, values = [row[0] for row in validated], [100 * row[2] for row in validated]
        scores.append(Series(stage.name, steps, values, marks=True, look=look))
    if not losses:
        return {}
    return {
        "loss": line_chart("Training loss", losses, "step of the stage", "training loss, all terms"),
        "score": line_chart("Validation mIoU", scores, "step of the stage", "dataset mIoU on val, per cent"),
    }


def _metrics_rows(path: Path) -> list[tuple[int, float, float]]:
    """Step, loss and validation mIoU of each row; NaN where nothing was validated."""
    remedy = "bring back a copy, or remove the file and do without its curve"
    found = []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            if missing := [name for name in _CURVES if name not in (reader.fieldnames or ())]:
                raise DataError(
                    f"{path}: column(s) {', '.join(missing)} missing, expected {','.join(_CURVES)}; {remedy}"
                )
            for row in reader:
                try:
                    found.append((int(row["step"]), float(row["loss"]), float(row["val_miou"] or "nan")))
                except (TypeError, ValueError):
                    values = ", ".join(f"{name} {row[name]!r}" for name in _CURVES)
                    raise DataError(
                        f"{path}, line {reader.line_num}: found {values}, expected numbers; {remedy}"
                    ) from None
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}), expected a table in CSV; {remedy}") from error
    return found


def _histogram(folder: Path) -> Markup:
    if not (folder / "partition.csv").is_file():
        return Markup("")
    cars: dict[str, list[float]] = {}
    for row in read_partition(folder / "partition.csv"):
        cars.setdefault(row.split, []).append(row.car)
    return car_histogram(cars, len(_LOOKS))


def _routing(run: _Run) -> dict[str, Any] | None:
    """Which part O-P sent each pair to, against the part of its label, and what that did to the score."""
    if "o-p" not in run.results:
        return None
    evaluation = run.results["o-p"].evaluation
    names = evaluation.partition.names
    routes = list(zip(evaluation.parts, evaluation.sent_to, strict=True))
    counted = Counter(routes)
    # a pair without a valid pixel has no part, and cannot be sent to a wrong one
    known = np.array([bool(part) for part, _ in routes])
    right = np.array([part == sent for part, sent in routes])
    teachers = names if run.teachers is None else run.teachers
    untaught = [name for name in names if name not in teachers]
    answers = dict.fromkeys(names, "" if run.teachers is None else "its teacher")
    answers |= dict.fromkeys(untaught, "origin (no teacher)")
    return {
        "answers": answers,
        "untaught": untaught,
        "by_origin": sum(counted[part, sent] for part in names for sent in untaught),
        "left_out": int((~known).sum()),
        "rows": [{"part": part, "cells": [counted[part, sent] for sent in names]} for part in names],
        "right": int((right & known).sum()),
        "pairs": int(known.sum()),
        "scores": [
            {
                "name": name,
                "right": _per_cent(metrics(result.evaluation.counts[right & known], "dataset")["miou"]),
                "wrong": _per_cent(metrics(result.evaluation.counts[~right & known], "dataset")["miou"]),
            }
            for name, result in run.results.items()
        ],
    }


def _precision_recall(run: _Run) -> dict[str, Any] | None:
    series, marks, rows = [], [], []
    for name, result in run.results.items():
        counts = result.evaluation.probabilities
        if counts is None:
            return None
        curve = threshold_curve(counts)
        series.append(Series(name, curve.recall.tolist(), curve.precision.tolist(), look=_LOOKS[name]))
        chosen_on = run.validation.get(name)
        if chosen_on is None or chosen_on.evaluation.probabilities is None:
            continue
        best = threshold_curve(chosen_on.evaluation.probabilities).best
        threshold = curve.thresholds[best]
        marks.append(
            Mark(
                float(curve.recall[best]),
                float(curve.precision[best]),
                f"{name}: threshold {threshold:.2f}, chosen on val",
                _LOOKS[name],
            )
        )
        at_half = int(np.searchsorted(curve.thresholds, 0.5))
        rows.append(
            {
                "name": name,
                "average_precision": _per_cent(curve.average_precision),
                "half": _per_cent(float(curve.f1[at_half])),
                "threshold": f"{threshold:.2f}",
                "best": _per_cent(float(curve.f1[best])),
            }
        )
    chart = line_chart(
        "Precision over recall", series, "recall of change", "precision of change", (0.0, 1.0), (0.0, 1.0), marks=marks
    )
    return {"chart": chart, "rows": rows}


def _reliability(run: _Run) -> dict[str, Any] | None:
    series, rows = [], []
    for name, result in run.results.items():
        counts = result.evaluation.probabilities
        if counts is None:
            return None
        found = calibration(counts)
        filled = found.pixels > 0
        given, observed = found.predicted[filled].tolist(), found.observed[filled].tolist()
        series.append(Series(name, given, observed, marks=True, look=_LOOKS[name]))
        rows.append({"name": name, "error": _per_cent(found.expected_error)})
    chart = line_chart(
        "Reliability",
        series,
        "probability of change given",
        "share that has changed",
        (0.0, 1.0),
        (0.0, 1.0),
        diagonal=True,
    )
    return {"chart": chart, "rows": rows}


def _objects(run: _Run) -> list[dict[str, Any]]:
    return [{"name": name, "sizes": summary["objects"]} for name, summary in run.summaries.items()]


def _model(run: _Run) -> dict[str, Any]:
    name = run.recipe["model"]
    card = model_card(name)
    facts = {
        "network": f"{name}: {card.title}",
        "paper": card.paper,
        "licence of pretrained weights": card.licence,
        "pretrained": "yes" if run.recipe.get("pretrained") else "no",
    }
    bundle = run.folder / "student" / "bundle"
    if (bundle / "bundle.json").is_file():
        metadata = read_description(bundle).get("metadata", {})
        if not isinstance(metadata, dict):
            raise DataError(
                f"{bundle / 'bundle.json'}: metadata: found {metadata!r}, expected named values; bring back a copy"
            )
        facts["student"] = (
            f"best of {metadata.get('steps')} steps at step {metadata.get('best_step')}, by "
            f"{metadata.get('selected_by')}"
        )
        weights = bundle / "weights.safetensors"
        facts["size of its bundle"] = (
            f"{weights.stat().st_size / 1e6:.1f} MB" if weights.is_file() else f"{weights.name} is not there any more"
        )
    return facts


def _gallery(run: _Run, data: str | os.PathLike[str] | None, imagery: bool) -> tuple[dict[str, list[Card]], str]:
    """Cards by group, or why there are none."""
    bundles = {name: run.folder / name / "bundle" for name in _DRAWN if name in run.results}
    if not bundles:
        bundles = {name: run.folder / name / "bundle" for name in list(run.results)[:1]}
    try:
        folder = resolve_decoding(_folder(run, data))
        pairs = folder.pairs(_split_on_disk(run.split, folder))
        detectors = {name: load(bundle) for name, bundle in bundles.items()}
        evaluations = {name: run.results[name].evaluation for name in bundles}
        chosen = choose(evaluations)
        return {
            group: draw(stems, detectors, evaluations, folder, pairs, imagery) for group, stems in chosen.items()
        }, ""
    except BitemporalError as error:
        return {}, str(error)


def _folder(run: _Run, data: str | os.PathLike[str] | None) -> PairFolder:
    source, recipe = run.folder / "recipe.yaml", run.recipe
    place = data or recipe.get("data")
    if not isinstance(place, str | os.PathLike) or not place:
        raise RecipeError(f"{source}: data: found {place!r}, expected the folder of the pairs; name it with --data")
    threshold = recipe.get("label_threshold")
    if not isinstance(threshold, int | float | None):
        raise RecipeError(f"{source}: label_threshold: found {threshold!r}, expected a number; bring back a copy")
    return PairFolder(
        place,
        label_values=_numbers(source, recipe, "label_values"),
        label_threshold=threshold,
        image_range=_numbers(source, recipe, "image_range"),
    )


def _numbers(source: Path, recipe: Mapping[str, Any], name: str) -> tuple[Any, ...] | None:
    value = recipe.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(number, int | float) for number in value):
        raise RecipeError(f"{source}: {name}: found {value!r}, expected a list of numbers; bring back a copy")
    return tuple(value)


def _split_on_disk(split: str, folder: PairFolder) -> str:
    """Where the pairs of a run's split lie: those set aside for val are still among the others."""
    if split in folder.splits:
        return split
    if split == "val" and "train" in folder.splits:
        return "train"
    if len(folder.splits) > 1:
        raise DataError(
            f"{folder.root}: found the splits {', '.join(folder.splits)}, expected {split}, which was scored; name the "
            "folder that has it with --data"
        )
    return folder.splits[0]
