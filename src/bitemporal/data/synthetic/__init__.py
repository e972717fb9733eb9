"""Synthetic bitemporal pairs and scenes, seeded: the data of the demo and the tests."""

from bitemporal.data.synthetic.changes import CHANGE_KINDS, ChangeKind
from bitemporal.data.synthetic.pair import CarDistribution, SyntheticPair, make_pair, make_scene
from bitemporal.data.synthetic.writing import write_folder, write_scene

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
