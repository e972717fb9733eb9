"""Detectors over labelled pairs: metrics by averaging and CAR part, as table and JSON."""

from bitemporal.evaluation.scoring import CONVENTIONS, Evaluation, evaluate
from bitemporal.evaluation.tables import score_tables

__all__ = ["CONVENTIONS", "Evaluation", "evaluate", "score_tables"]
