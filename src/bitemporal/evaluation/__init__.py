"""Detectors over labelled pairs: metrics by averaging and CAR part, as table and JSON."""

from bitemporal.evaluation.pictures import coloured_errors, draw_masks, spread_by_car
from bitemporal.evaluation.scoring import CONVENTIONS, Evaluation, evaluate
from bitemporal.evaluation.tables import score_tables

__all__ = [
    "CONVENTIONS",
    "Evaluation",
    "coloured_errors",
    "draw_masks",
    "evaluate",
    "score_tables",
    "spread_by_car",
]
