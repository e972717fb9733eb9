"""Tiles of both dates, read ahead of the network by threads."""

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from bitemporal.scenes.grids import DateOnGrid
from bitemporal.scenes.scene import Scene
from bitemporal.scenes.values import scale_channels

FILL = 127
"""Value of both dates where either has no data: nothing to see, and no difference."""


@dataclass(frozen=True)
class Tile:
    """One tile of both dates.

    Attributes:
        before: Date 1, 3 x h x w, uint8.
        after: Date 2, likewise.
        valid: Pixels with data on both dates, h x w; none outside the scene.
    """

    before: npt.NDArray[np.uint8]
    after: npt.NDArray[np.uint8]
    valid: npt.NDArray[np.bool_]


@contextmanager
def read_tiles(scene: Scene, places: Iterable[tuple[int, int]]) -> Iterator[Iterator[Tile]]:
    """Tiles of a scene in the order of their places; threads read a few of them ahead.

    Args:
        scene: The scene.
        places: Rows and columns of tiles.
    """
    # as few threads as keep up with the network: each opens the files anew, and decodes blocks that others decode too
    threads = 4 if scene.is_remote else min(4, max(1, (os.cpu_count() or 1) // 2))
    opened = threading.local()

    with ExitStack() as files, ThreadPoolExecutor(threads, thread_name_prefix="tiles") as pool:

        def read(row: int, column: int) -> Tile:
            if not hasattr(opened, "dates"):
                opened.dates = [files.enter_context(date) for date in scene.open_dates()]
            return _read_tile(scene, opened.dates, row, column)

        def tiles() -> Iterator[Tile]:
            waiting: deque[Future[Tile]] = deque()
            for place in places:
                waiting.append(pool.submit(read, *place))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

        try:
            yield tiles()
        finally:
            pool.shutdown(cancel_futures=True)


def _read_tile(scene: Scene, dates: Sequence[DateOnGrid], row: int, column: int) -> Tile:
    """Read the tile of a row and a column of tiles; what lies outside the scene is reflected at its edge."""
    rows, columns = scene.tiling.rows, scene.tiling.columns
    top, left = rows.start(row), columns.start(column)
    y0, y1 = max(top, 0), min(top + rows.tile, rows.length)
    x0, x1 = max(left, 0), min(left + columns.tile, columns.length)
    window = Window(x0, y0, x1 - x0, y1 - y0)
    (before, valid_before), (after, valid_after) = (date.read(window) for date in dates)
    valid = valid_before & valid_after
    images = [scale_channels(samples, scene.ranges) for samples in (before, after)]
    for image in images:
        image[:, ~valid] = FILL
    around = (y0 - top, top + rows.tile - y1), (x0 - left, left + columns.tile - x1)
    if any(map(any, around)):
        images = [np.pad(image, ((0, 0), *around), mode="reflect") for image in images]
        valid = np.pad(valid, around)
    return Tile(images[0], images[1], valid)
