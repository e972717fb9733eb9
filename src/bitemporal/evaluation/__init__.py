"""Detectors over labelled pairs: metrics by averaging and CAR part, intervals, protocols, comparisons."""

from typing import TYPE_CHECKING

from bitemporal._lazy import on_first_use

if TYPE_CHECKING:
    from bitemporal.evaluation.comparison import Comparison, compare, verdict_sentence
    from bitemporal.evaluation.pictures import coloured_errors, draw_masks, spread_by_car
    from bitemporal.evaluation.plots import plot_pair
    from bitemporal.evaluation.results import MaskSettings, Protocol, Result, program, read_result
    from bitemporal.evaluation.scores import CONVENTIONS, Evaluation, forward_passes
    from bitemporal.evaluation.scoring import (
        describe_labels,
        evaluate,
        evaluate_masks,
        folder_for,
        hash_pairs,
        labels_as_trained,
    )
    from bitemporal.evaluation.tables import comparison_tables, interval_table, score_tables

_NAMES = {
    "comparison": ("Comparison", "compare", "verdict_sentence"),
    "pictures": ("coloured_errors", "draw_masks", "spread_by_car"),
    "plots": ("plot_pair",),
    "results": ("MaskSettings", "Protocol", "Result", "program", "read_result"),
    "scores": ("CONVENTIONS", "Evaluation", "forward_passes"),
    "scoring": ("describe_labels", "evaluate", "evaluate_masks", "folder_for", "hash_pairs", "labels_as_trained"),
    "tables": ("comparison_tables", "interval_table", "score_tables"),
}

__all__ = [
    "CONVENTIONS",
    "Comparison",
    "Evaluation",
    "MaskSettings",
    "Protocol",
    "Result",
    "coloured_errors",
    "compare",
    "comparison_tables",
    "describe_labels",
    "draw_masks",
    "evaluate",
    "evaluate_masks",
    "folder_for",
    "forward_passes",
    "hash_pairs",
    "interval_table",
    "labels_as_trained",
    "plot_pair",
    "program",
    "read_result",
    "score_tables",
    "spread_by_car",
    "verdict_sentence",
]

__getattr__, __dir__ = on_first_use(__name__, _NAMES)
