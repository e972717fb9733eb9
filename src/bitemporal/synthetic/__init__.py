"""Synthetic bitemporal pairs and scenes, seeded: the data of the demo and the tests."""

from bitemporal.synthetic.changes import CHANGE_KINDS, ChangeKind
from bitemporal.synthetic.pair import CarDistribution, SyntheticPair, make_pair, make_scene
from bitemporal.synthetic.writing import write_folder, write_scene

__all__ = [
    "CHANGE_KINDS",
    "CarDistribution",
    "ChangeKind",
    "SyntheticPair",
    "make_pair",
    "make_scene",
    "write_folder",
    "write_scene",
]
