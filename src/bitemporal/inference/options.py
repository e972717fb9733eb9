"""How detectors may be asked to see images."""

from typing import Literal

from bitemporal.errors import OptionError

Augmentation = Literal["flips", "rotations", "flips-rotations"]


LARGEST_TILE = 2**15
"""Sides of larger tiles fit no memory, whatever the network."""

LARGEST_BATCH = 2**16


def check_batch_size(batch_size: int) -> None:
    """Refuse a number of pairs, or tiles, at once that is below 1, or fits no memory.

    Raises:
        OptionError: When it is below 1 or above 65,536.
    """
    if not 1 <= batch_size <= LARGEST_BATCH:
        raise OptionError(f"batch_size: found {batch_size}, expected at least 1 and at most {LARGEST_BATCH:,}")


def check_threshold(threshold: float) -> None:
    """Refuse a threshold above which no probability, or any number, counts as change.

    Raises:
        OptionError: When it is not from 0 to below 1.
    """
    if not 0 <= threshold < 1:
        raise OptionError(f"threshold: found {threshold:g}, expected a probability from 0 to below 1")


def check_tiles(tile: int | None, stride: int | None) -> None:
    """Refuse a tile and a stride that do not go together.

    Args:
        tile: Side of the tiles in pixels; ``None`` for whole images.
        stride: Pixels from one tile to the next; the side of the tiles by default.

    Raises:
        OptionError: When there is a stride without a tile, or the stride is not between 1 and the side of the tiles.
    """
    if tile is None and stride is not None:
        raise OptionError(f"stride: found {stride} without a tile; give tile too")
    if tile is not None and not 1 <= tile <= LARGEST_TILE:
        raise OptionError(f"tile: found {tile}, expected 1 or more, and at most {LARGEST_TILE:,}")
    if tile is not None and stride is not None and not 1 <= stride <= tile:
        raise OptionError(f"stride: found {stride}, expected 1 to the tile's side, {tile}")
