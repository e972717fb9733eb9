"""Synthetic bitemporal pairs and scenes, seeded."""

from bitemporal.data.synthetic.changes import CHANGE_KINDS, ChangeKind
from bitemporal.data.synthetic.pair import CarDistribution, SyntheticPair, make_pair, make_scene

__all__ = ["CHANGE_KINDS", "CarDistribution", "ChangeKind", "SyntheticPair", "make_pair", "make_scene"]
