"""The sections of a report: what the template shows of a run."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from markupsafe import Markup

from bitemporal.evaluation import Comparison, forward_passes, verdict_sentence
from bitemporal.evaluation.bootstrap import Estimate
from bitemporal.evaluation.curves import calibration, threshold_curve
from bitemporal.metrics import MAIN_METRICS, MAIN_SCORES, METRICS, metrics
from bitemporal.models import model_card
from bitemporal.report.charts import Mark, Series, bar_chart, car_histogram, interval_chart, line_chart
from bitemporal.report.reading import FinishedRun, read_cars, read_curve, read_kept, read_metadata
from bitemporal.run.folder import DETECTORS, O_P, ORIGIN, STUDENT
from bitemporal.run.scores import how_to_score, is_distillation
from bitemporal.tables import per_cent

_LOOKS = {name: number for number, name in enumerate(DETECTORS)}
"""A detector's colour, the same in every chart."""

_ASIDE = 0.15
"""From one detector to the next at a decile, in deciles."""


def sections(run: FinishedRun) -> dict[str, Any]:
    """Everything but the gallery, by the names that the template uses."""
    return {**_of_any_run(run), **(_of_scores(run, run.comparison) if run.comparison else _of_training(run))}


def _of_any_run(run: FinishedRun) -> dict[str, Any]:
    return {
        "scored": bool(run.results),
        "curves": _training_curves(run),
        "histogram": car_histogram(cars, len(_LOOKS)) if (cars := read_cars(run.folder)) else "",
        "model": _model(run),
        "recipe": yaml.safe_dump(run.recipe, sort_keys=False),
        "command": "distill" if is_distillation(run.recipe) else "train",
    }


def _of_training(run: FinishedRun) -> dict[str, Any]:
    """A trained network without scores: the validation that chose its checkpoint."""
    stage, found = run.folder.stage(ORIGIN), {}
    verdict = "The network has not been trained to its end."
    if stage.finished:
        metadata = read_metadata(stage)
        verdict = f"Trained, but not scored yet: {how_to_score(run.folder)}, and write the report again."
        validation = metadata.get("validation") or {}
        found = {
            METRICS[name].title: per_cent(math.nan if validation[name] is None else validation[name])
            for name in MAIN_METRICS
            if name in validation
        }
        if "loss" in validation:
            found["loss"] = f"{validation['loss']:.4f}"
    return {
        "title": f"{run.recipe['model']} on {Path(str(run.recipe.get('data'))).name}",
        "verdict": verdict,
        "validation": found,
    }


def _of_scores(run: FinishedRun, comparison: Comparison) -> dict[str, Any]:
    first, student = run.any_result, run.results.get(STUDENT)
    return {
        "title": f"{run.recipe['model']} on {first.protocol.data}",
        "verdict": verdict_sentence(comparison, student.name if student else STUDENT),
        "optimistic": run.split == "val",
        "earlier": run.earlier,
        "protocol": first.protocol,
        "description": comparison.description,
        "partition": first.evaluation.partition.describe(),
        "detectors": list(run.results),
        "scores": dict(_scores(run, comparison)),
        "differences": _differences(run, comparison),
        "by_part": _by_part(run),
        "by_decile": _by_decile(run),
        "routing": _routing(run) if O_P in run.results else None,
        "thresholds": _thresholds(run),
        "calibration": _calibration(run),
        "objects": {name: summary["objects"] for name, summary in run.summaries.items()},
        "program": {key: str(first.origin.get(key) or "") for key in ("bitemporal", "commit")},
    }


def _scores(run: FinishedRun, comparison: Comparison) -> Iterable[tuple[str, list[Estimate | str]]]:
    """A label, and the score of each detector."""
    results = run.results.values()
    for metric, averaging in MAIN_SCORES:
        label = METRICS[metric].title
        if averaging != "dataset":
            label += ", image mean" + (", empty 0" if averaging == "image_mean_empty_0" else "")
        yield label, [comparison.scores[result.name][metric, averaging] for result in results]
    yield "boundary F1", [per_cent(summary["boundary"]["f1"]) for summary in run.summaries.values()]
    yield "forward passes per pair", [forward_passes(result.evaluation, run.teachers) for result in results]


def _differences(run: FinishedRun, comparison: Comparison) -> Markup | str:
    short = {result.name: name for name, result in run.results.items()}
    base, *others = comparison.names
    rows = []
    for name in others:
        value, low, high = (100 * number for number in comparison.differences[name]["miou", "dataset"])
        rows.append((short[name], value, low, high, _LOOKS[short[name]]))
    if not rows:
        return ""
    return interval_chart("Difference in mIoU", rows, f"points of dataset mIoU, minus {short[base]}")


def _miou(groups: Iterable[Mapping[str, Any]]) -> tuple[list[float], list[float], list[float]]:
    """Dataset mIoU of groups of pairs, and the ends of its intervals, in per cent."""
    values, lows, highs = [], [], []
    for group in groups:
        low, high = group["intervals"]["dataset"]["miou"]
        values.append(100 * group["dataset"]["miou"])
        lows.append(100 * low)
        highs.append(100 * high)
    return values, lows, highs


def _by_part(run: FinishedRun) -> Markup:
    parts = next(iter(run.summaries.values()))["by_part"]
    series = [
        Series(name, [], *_miou(summary["by_part"].values()), look=_LOOKS[name])
        for name, summary in run.summaries.items()
    ]
    names = [f"{part} ({group['pairs']})" for part, group in parts.items()]
    return bar_chart("mIoU by CAR part", names, series, "dataset mIoU, per cent")


def _by_decile(run: FinishedRun) -> Markup:
    deciles = next(iter(run.summaries.values()))["by_decile"]
    ticks = {place + 1.0: f"{group['car'][1]:.3f}".removeprefix("0") for place, group in enumerate(deciles)}
    series = []
    for i, (name, summary) in enumerate(run.summaries.items()):
        aside = _ASIDE * (i - (len(run.summaries) - 1) / 2)  # or the intervals would hide each other
        values = _miou(summary["by_decile"])
        series.append(Series(name, [x + aside for x in ticks], *values, marks=True, look=_LOOKS[name]))
    return line_chart(
        "mIoU by CAR decile", series, "largest CAR of the decile", "dataset mIoU, per cent", x_ticks=ticks
    )


def _training_curves(run: FinishedRun) -> list[Markup]:
    stages = run.folder.stages()
    others = sorted(stage for stage in stages if stage not in _LOOKS)
    looks = _LOOKS | {name: len(_LOOKS) + number for number, name in enumerate(others)}
    losses, scores, validation_losses = list[Series](), list[Series](), list[Series]()
    for stage in stages:
        steps, loss, miou, val_loss = np.array(read_curve(run.folder.stage(stage).metrics), np.float64).reshape(-1, 4).T
        losses.append(Series(stage, steps.tolist(), loss.tolist(), look=looks[stage]))
        for series, values in ((scores, 100 * miou), (validation_losses, val_loss)):
            known = np.isfinite(values)
            series.append(Series(stage, steps[known].tolist(), values[known].tolist(), marks=True, look=looks[stage]))
    if not stages:
        return []
    step = "step of the stage"
    charts = [
        line_chart("Training loss", losses, step, "training loss, all terms"),
        line_chart("Validation mIoU", scores, step, "dataset mIoU on val, per cent"),
    ]
    if by_loss := [series for series in validation_losses if series.x]:  # stages whose labels of val have one class
        charts.append(line_chart("Validation loss", by_loss, step, "loss on val, which chose the checkpoint"))
    return charts


def _routing(run: FinishedRun) -> dict[str, Any]:
    """Which part O-P sent each pair to, against the part of its label, and what that did to the score."""
    evaluation = run.results[O_P].evaluation
    names = evaluation.partition.names
    counted = Counter(zip(evaluation.parts, evaluation.sent_to, strict=True))
    # a pair without a valid pixel has no part, and cannot be sent to a wrong one
    known = np.array([bool(part) for part in evaluation.parts])
    right = np.array(evaluation.parts) == np.array(evaluation.sent_to)
    untaught = [] if run.teachers is None else [name for name in names if name not in run.teachers]
    answers = dict.fromkeys(names, "" if run.teachers is None else "its teacher")
    answers |= dict.fromkeys(untaught, "origin (no teacher)")
    return {
        "answers": answers,
        "untaught": untaught,
        "by_origin": sum(counted[part, sent] for part in names for sent in untaught),
        "left_out": int((~known).sum()),
        "rows": {part: {sent: counted[part, sent] for sent in names} for part in names},
        "right": int((right & known).sum()),
        "pairs": int(known.sum()),
        "scores": {
            name: [metrics(result.evaluation.counts[chosen & known], "dataset")["miou"] for chosen in (right, ~right)]
            for name, result in run.results.items()
        },
    }


def _thresholds(run: FinishedRun) -> dict[str, Any] | None:
    """Precision over recall, and the threshold of the best F1, chosen on val."""
    series, marks, rows = [], [], {}
    for name, result in run.results.items():
        if result.evaluation.probabilities is None:
            return None
        curve = threshold_curve(result.evaluation.probabilities)
        series.append(Series(name, curve.recall.tolist(), curve.precision.tolist(), look=_LOOKS[name]))
        chosen_on = run.validation.get(name)
        if chosen_on is None or chosen_on.evaluation.probabilities is None:
            continue
        best = threshold_curve(chosen_on.evaluation.probabilities).best
        at_half = int(np.searchsorted(curve.thresholds, 0.5))
        shown = [per_cent(curve.average_precision), per_cent(curve.f1[at_half])]
        if best is None:
            rows[name] = [*shown, "none: the labels of val have no change", "-"]
            continue
        threshold = f"{curve.thresholds[best]:.2f}"
        text = f"{name}: threshold {threshold}, chosen on val"
        marks.append(Mark(float(curve.recall[best]), float(curve.precision[best]), text, _LOOKS[name]))
        rows[name] = [*shown, threshold, per_cent(curve.f1[best])]
    chart = line_chart(
        "Precision over recall", series, "recall of change", "precision of change", unit_square=True, marks=marks
    )
    return {"chart": chart, "rows": rows}


def _calibration(run: FinishedRun) -> dict[str, Any] | None:
    series, rows = [], {}
    for name, result in run.results.items():
        if result.evaluation.probabilities is None:
            return None
        found = calibration(result.evaluation.probabilities)
        filled = found.pixels > 0
        predicted, observed = found.predicted[filled].tolist(), found.observed[filled].tolist()
        series.append(Series(name, predicted, observed, marks=True, look=_LOOKS[name]))
        rows[name] = [per_cent(found.expected_error)]
    chart = line_chart(
        "Reliability",
        series,
        "predicted probability of change",
        "share that has changed",
        unit_square=True,
        diagonal=True,
    )
    return {"chart": chart, "rows": rows}


def _model(run: FinishedRun) -> dict[str, str]:
    name = run.recipe["model"]
    card = model_card(name)
    return {
        "network": f"{name}: {card.title}",
        "paper": card.paper,
        "licence of pretrained weights": card.licence,
        "pretrained": "yes" if run.recipe.get("pretrained") else "no",
        **read_kept(run.folder, STUDENT if is_distillation(run.recipe) else ORIGIN),
    }
