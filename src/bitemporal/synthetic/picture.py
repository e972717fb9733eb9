"""Contact sheets of synthetic pairs: ``python -m bitemporal.synthetic.picture SHEET.jpg``."""

import os
import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from bitemporal.synthetic.pair import SyntheticPair, make_pair

_GAP = 6


def contact_sheet(pairs: Sequence[SyntheticPair], columns: int = 2) -> npt.NDArray[np.uint8]:
    """Pairs side by side: before, after, and after with the change in red.

    Args:
        pairs: Pairs of equal size.
        columns: Pairs in a row.

    Returns:
        A picture, uint8, height x width x 3.
    """
    tiles = []
    for pair in pairs:
        changed = pair.label[..., None].astype(np.float32) * 0.55
        overlay = (pair.after * (1 - changed) + np.array([255, 0, 0], np.float32) * changed).astype(np.uint8)
        row = np.concatenate([pair.before, pair.after, overlay], axis=1)
        tiles.append(np.pad(row, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255))
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[k : k + columns], axis=1) for k in range(0, len(tiles), columns)]
    return np.concatenate(rows)[:-_GAP, :-_GAP]


def main(path: str | os.PathLike[str], first: int = 300, count: int = 10) -> None:
    """Write a sheet of pairs with successive seeds.

    Args:
        path: Picture to write; its ending gives the format.
        first: Seed of the first pair.
        count: Number of pairs.
    """
    Image.fromarray(contact_sheet([make_pair(first + k) for k in range(count)])).save(path, quality=80)


if __name__ == "__main__":
    main(sys.argv[1], *(int(number) for number in sys.argv[2:4]))
