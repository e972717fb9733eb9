"""Scores as tables for people."""

import math
from typing import Any

import numpy as np
from rich.table import Table

from bitemporal.evaluation.scoring import Evaluation
from bitemporal.metrics import METRICS

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
        for metric in METRICS:
            table.add_row(metric, *(_cell(group, metric) for _, group in groups))
        tables.append(table)
    return tables


def _cell(group: dict[str, Any], metric: str) -> str:
    values = (group[averaging][metric] for averaging in ("dataset", "image_mean"))
    return " / ".join("-" if math.isnan(value) else f"{100 * value:.2f}" for value in values)
