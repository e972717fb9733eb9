"""Scores as tables for people."""

import math

from rich.table import Table

from bitemporal.evaluation.evaluate import Evaluation
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
    groups = {"all": {"pairs": len(evaluation.stems), **summary}} | summary["by_part"]
    names = list(groups)
    tables = []
    for start in range(1, len(names), _PARTS_A_TABLE):
        caption = "each cell: dataset / image_mean, in per cent; parts by " + evaluation.partition.describe()
        table = Table(title=title or None, caption=caption, box=None, title_justify="left", caption_justify="left")
        table.add_column("metric", no_wrap=True)
        shown = ["all", *names[start : start + _PARTS_A_TABLE]]
        for name in shown:
            table.add_column(f"{name}\n({groups[name]['pairs']} pairs)", justify="right", no_wrap=True)
        for metric in METRICS:
            cells = [
                f"{_per_cent(groups[name]['dataset'][metric])} / {_per_cent(groups[name]['image_mean'][metric])}"
                for name in shown
            ]
            table.add_row(metric, *cells)
        tables.append(table)
    return tables


def _per_cent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"
