"""What a pair on disk is: folders, label decoding, checks.

``PairFolder`` finds the pairs of a folder, ``PairFolder.scan`` reads them all and reports every fault, and
``PairFolder.load`` gives one pair decoded. ``read_image`` and ``read_mask`` read single files.
"""

from bitemporal.imagery.decode import MAX_PIXELS, SUFFIXES, read_image
from bitemporal.imagery.masks import LabelDecoding, read_mask
from bitemporal.pairs.folder import Fault, FolderScan, Pair, PairFolder, PairImages, PairRecord

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "Fault",
    "FolderScan",
    "LabelDecoding",
    "Pair",
    "PairFolder",
    "PairImages",
    "PairRecord",
    "read_image",
    "read_mask",
]
