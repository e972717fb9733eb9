"""Scores as tables for people."""

import math
import sys
from typing import Any

import numpy as np
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from bitemporal.evaluation.bootstrap import Resampling, estimate
from bitemporal.evaluation.counting import TOLERANCE
from bitemporal.evaluation.curves import calibration, threshold_curve
from bitemporal.evaluation.scores import Evaluation, boundary_scores, object_counts
from bitemporal.metrics import METRICS, Averaging

_PARTS_A_TABLE = 3
"""CAR parts side by side, beside all pairs, that fit a terminal of 80 columns."""


def score_tables(evaluation: Evaluation, title: str = "") -> list[Table]:
    """The metrics over all pairs and by CAR part, in per cent, dataset and image_mean side by side.

    Args:
        evaluation: What was counted.
        title: Printed above.

    Returns:
        One table; several when there are more parts than fit a terminal of 80 columns.
    """
    summary = evaluation.summary()
    # a pair without a valid pixel is in no metric
    everything = ("all", {"pairs": int(np.isfinite(evaluation.cars).sum()), **summary})
    # a partition of one part only would repeat the first column
    parts = list(summary["by_part"].items()) if len(summary["by_part"]) > 1 else []
    tables = []
    for start in range(0, max(len(parts), 1), _PARTS_A_TABLE):
        groups = [everything, *parts[start : start + _PARTS_A_TABLE]]
        caption = "each cell: dataset / image_mean, in per cent; parts by " + evaluation.partition.describe()
        table = Table(title=title or None, caption=caption, box=None, title_justify="left", caption_justify="left")
        table.add_column("metric", no_wrap=True)
        for name, group in groups:
            table.add_column(f"{name}\n({group['pairs']} pairs)", justify="right", no_wrap=True)
        for metric in SHOWN:
            table.add_row(metric, *(_cell(group, metric) for _, group in groups))
        tables.append(table)
    return tables


def print_table(table: Table) -> None:
    """Print a table whole, also where the terminal is narrower: a wrapped line can be read, a cut number cannot."""
    console = Console(highlight=False, markup=False)
    needed = Measurement.get(console, console.options.update(max_width=sys.maxsize), table).maximum
    Console(highlight=False, markup=False, width=max(console.width, needed)).print(table)


SHOWN = tuple(metric for metric in METRICS if not metric.endswith("_unchanged"))
"""Metrics in tables; those of the unchanged class are in the files."""

INTERVALS: tuple[tuple[str, Averaging], ...] = (
    ("miou", "dataset"),
    ("iou_changed", "dataset"),
    ("f1_changed", "dataset"),
    ("miou", "image_mean"),
    ("miou", "image_mean_empty_0"),
)


def interval_table(evaluation: Evaluation) -> Table:
    """The main scores with their 95 % intervals, and those of boundaries, objects and probabilities, in per cent.

    Args:
        evaluation: What was counted.
    """
    resampling = Resampling.of(len(evaluation.stems))
    table = Table(box=None, show_header=False)
    table.add_column("score", no_wrap=True)
    table.add_column("value", no_wrap=True)
    for metric, averaging in INTERVALS:
        found = estimate(evaluation.replicates, metric, averaging, resampling)
        interval = "" if math.isnan(found.low) else f" (95 % interval {100 * found.low:.2f} to {100 * found.high:.2f})"
        table.add_row(f"{metric}, {averaging}", _per_cent(found.value) + interval)
    table.add_row(f"boundary F1 within {TOLERANCE} pixels", _per_cent(boundary_scores(evaluation.boundary)["f1"]))
    for size, counts in object_counts(evaluation.objects).items():
        told = f"{counts['found']} found, {counts['missed']} missed, {counts['invented']} invented"
        table.add_row(f"{size} objects", told)
    if evaluation.probabilities is not None:
        curve = threshold_curve(evaluation.probabilities)
        best = f"{_per_cent(float(curve.f1[curve.best]))} at {curve.thresholds[curve.best]:.2f}"
        table.add_row("best f1_changed", f"{best} (choose it on val)")
        table.add_row("average precision", _per_cent(curve.average_precision))
        error = calibration(evaluation.probabilities).expected_error
        table.add_row("expected calibration error", _per_cent(error))
    return table


def _per_cent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _cell(group: dict[str, Any], metric: str) -> str:
    values = (group[averaging][metric] for averaging in ("dataset", "image_mean"))
    return " / ".join(map(_per_cent, values))
