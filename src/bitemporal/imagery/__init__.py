"""How pixels come in, by one door.

``decode`` opens a file with every check, ``scale`` makes 8-bit channels of its bands, ``labels`` reads change masks,
``masks`` those of other programs, and ``inputs`` brings whatever a detector is given to tensors.
"""

from bitemporal.imagery.decoded import MAX_PIXELS, SUFFIXES
from bitemporal.imagery.label_rules import LabelDecoding, LabelOptions
from bitemporal.imagery.labels import read_mask
from bitemporal.imagery.masks import IGNORE
from bitemporal.imagery.scale import read_image

__all__ = ["IGNORE", "MAX_PIXELS", "SUFFIXES", "LabelDecoding", "LabelOptions", "read_image", "read_mask"]
