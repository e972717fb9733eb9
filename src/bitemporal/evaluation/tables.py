"""Scores as tables for people."""

from typing import Any

import numpy as np
from rich.table import Table

from bitemporal.evaluation.bootstrap import Estimate, Resampling, estimate, significant
from bitemporal.evaluation.comparison import Comparison, seed_count
from bitemporal.evaluation.counting import TOLERANCE
from bitemporal.evaluation.curves import calibration, threshold_curve
from bitemporal.evaluation.scores import Evaluation, boundary_scores, object_counts
from bitemporal.metrics import MAIN_SCORES, TABLE_METRICS
from bitemporal.tables import make_table, per_cent

_PARTS_PER_TABLE = 3
"""CAR parts side by side, after all pairs, that fit a terminal of 80 columns."""


def score_tables(evaluation: Evaluation) -> list[Table]:
    """The metrics over all pairs and by CAR part, in per cent, dataset and image_mean side by side.

    Args:
        evaluation: The counts of every pair.

    Returns:
        One table, or several if there are more parts than fit a terminal of 80 columns.
    """
    summary = evaluation.summary()
    # a pair without a valid pixel is in no metric
    everything = ("all", {"pairs": int(np.isfinite(evaluation.cars).sum()), **summary})
    # a partition of one part only would repeat the first column
    parts = list(summary["by_part"].items()) if len(summary["by_part"]) > 1 else []
    caption = f"each cell: dataset / image_mean, in per cent; parts by {evaluation.partition.describe()}"
    tables = []
    for start in range(0, max(len(parts), 1), _PARTS_PER_TABLE):
        groups = [everything, *parts[start : start + _PARTS_PER_TABLE]]
        header = ["metric", *(f"{name}\n({group['pairs']} pairs)" for name, group in groups)]
        rows = [[metric, *(_cell(group, metric) for _, group in groups)] for metric in TABLE_METRICS]
        tables.append(make_table(header, rows, caption=caption))
    return tables


def interval_table(evaluation: Evaluation) -> Table:
    """The main scores with their 95 % intervals, then boundaries, objects and probabilities; in per cent.

    Args:
        evaluation: The counts of every pair.
    """
    resampling = Resampling.of(len(evaluation.stems))
    rows = []
    for metric, averaging in MAIN_SCORES:
        value, low, high = estimate(evaluation.replicates, metric, averaging, resampling)
        interval = f" (95 % interval {per_cent(low)} to {per_cent(high)})" if np.isfinite(low) else ""
        rows.append([f"{metric}, {averaging}", per_cent(value) + interval])
    rows.append([f"boundary F1 within {TOLERANCE} pixels", per_cent(boundary_scores(evaluation.boundary)["f1"])])
    for size, counts in object_counts(evaluation.objects).items():
        rows.append([f"{size} objects", ", ".join(f"{count} {fate}" for fate, count in counts.items())])
    if evaluation.probabilities is not None:
        curve = threshold_curve(evaluation.probabilities)
        best, error = curve.best, calibration(evaluation.probabilities).expected_error
        at = "undefined: no label has a changed pixel"
        if best is not None:
            at = f"{per_cent(curve.f1[best])} at {curve.thresholds[best]:.2f} (choose it on val)"
        rows.append(["best f1_changed", at])
        rows.append(["average precision", per_cent(curve.average_precision)])
        rows.append(["expected calibration error", per_cent(error)])
    return make_table(["", ""], rows, text_columns=2)


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Scores and differences to the baseline with intervals, in per cent; one row per detector under each metric.

    Args:
        comparison: The compared detectors.

    Returns:
        A table of scores over all pairs; if there are several detectors, another one of differences by CAR part.
    """
    base, *others = comparison.names
    caption = f"{comparison.description}; per cent [95 % interval]"
    if others:
        caption += (
            f"; difference: minus {base}, in points, on the same pairs; * where the 95 % interval leaves 0 out (each "
            "comparison for itself)"
        )
        if any(len(replicates.seeds) == 1 for replicates in comparison.replicates.values()):
            caption += "; with one seed, a star tells these weights apart, and says nothing about other seeds"
    scores = make_table(["", "score", "difference"] if others else ["", "score"], caption=caption)
    for metric, averaging in MAIN_SCORES:
        scores.add_row(f"{metric}, {averaging}", style="bold")
        for name in comparison.names:
            cells = [_estimate(comparison.scores[name][metric, averaging])]
            if name != base:
                cells.append(_difference(comparison.differences[name][metric, averaging]))
            scores.add_row(f"  {name}, {seed_count(comparison, name)}", *cells)
    if not others:
        return [scores]
    caption = f"parts by {comparison.partition.describe()}; differences as above"
    parts = make_table(["", "difference"], caption=caption)
    for part in comparison.by_part[others[0]]:
        parts.add_row(f"miou, dataset, {part}", style="bold")
        for name in others:
            parts.add_row(f"  {name}", _difference(comparison.by_part[name][part]))
    return [scores, parts]


def _cell(group: dict[str, Any], metric: str) -> str:
    return " / ".join(per_cent(group[averaging][metric]) for averaging in ("dataset", "image_mean"))


def _estimate(estimate: Estimate, sign: bool = False, star: str = "") -> str:
    value, low, high = (per_cent(number, sign) for number in estimate)
    return value if not np.isfinite(estimate.low) else f"{value}{star} [{low}, {high}]"


def _difference(estimate: Estimate) -> str:
    return _estimate(estimate, sign=True, star="*" if significant(estimate) else "")
