"""Pairs on disk: folders of images before and after with their change masks.

``PairFolder`` finds the pairs of a folder. ``check_pairs`` reads them all and reports every fault. ``resolve_decoding``
finds out what the label values mean, after which ``PairFolder.load`` gives one pair decoded.
"""

from bitemporal.pairs.check import Fault, FolderCheck, PairRecord, check_pairs, resolve_decoding
from bitemporal.pairs.folder import Pair, PairFolder, PairImages
from bitemporal.pairs.options import PairOptions

__all__ = [
    "Fault",
    "FolderCheck",
    "Pair",
    "PairFolder",
    "PairImages",
    "PairOptions",
    "PairRecord",
    "check_pairs",
    "resolve_decoding",
]
