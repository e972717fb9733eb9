"""Pairs on disk: folders of images before and after with their change masks.

``PairFolder`` finds the pairs of a folder. ``check_pairs`` reads them all and reports every fault. ``resolve_decoding``
finds out what the label values mean, after which ``PairFolder.load`` gives one pair decoded.
"""

from bitemporal.imagery.decode import MAX_PIXELS, SUFFIXES, read_image
from bitemporal.imagery.masks import LabelDecoding, read_mask
from bitemporal.pairs.check import Fault, FolderCheck, PairRecord, check_pairs, resolve_decoding
from bitemporal.pairs.folder import Pair, PairFolder, PairImages

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "Fault",
    "FolderCheck",
    "LabelDecoding",
    "Pair",
    "PairFolder",
    "PairImages",
    "PairRecord",
    "check_pairs",
    "read_image",
    "read_mask",
    "resolve_decoding",
]
