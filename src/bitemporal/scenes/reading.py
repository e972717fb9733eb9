"""Tiles of both dates, read ahead of the network by threads."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from bitemporal.scenes.grids import DateOnGrid
from bitemporal.scenes.tiling import Tiling
from bitemporal.scenes.values import ValueRange, scale_channels

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


class TileReader:
    """Reads tiles of a scene; what lies outside it is reflected at its edge."""

    def __init__(
        self, open_dates: Callable[[], tuple[DateOnGrid, DateOnGrid]], tiling: Tiling, ranges: ValueRange, threads: int
    ) -> None:
        """Start the threads.

        Args:
            open_dates: Opens both dates; called once per thread.
            tiling: Tiles of the scene.
            ranges: Values of each channel that become 0 and 255.
            threads: Number of threads that read.
        """
        self.tiling = tiling
        self.ranges = ranges
        self._open_dates = open_dates
        self._local = threading.local()
        self._opened: list[DateOnGrid] = []
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="tiles")
        self._ahead = 2 * threads

    def read(self, row: int, column: int) -> Tile:
        """Read the tile of a row and a column of tiles."""
        if not hasattr(self._local, "dates"):
            self._local.dates = self._open_dates()
            self._opened += self._local.dates
        rows, columns = self.tiling.rows, self.tiling.columns
        top, left = rows.start(row), columns.start(column)
        y0, y1 = max(top, 0), min(top + rows.tile, rows.length)
        x0, x1 = max(left, 0), min(left + columns.tile, columns.length)
        window = Window(x0, y0, x1 - x0, y1 - y0)
        (before, valid_before), (after, valid_after) = (date.read(window) for date in self._local.dates)
        valid = valid_before & valid_after
        images = [scale_channels(samples, self.ranges) for samples in (before, after)]
        if not valid.all():
            for image in images:
                image[:, ~valid] = FILL
        around = (y0 - top, top + rows.tile - y1), (x0 - left, left + columns.tile - x1)
        if any(map(any, around)):
            images = [np.pad(image, ((0, 0), *around), mode="reflect") for image in images]
            valid = np.pad(valid, around)
        return Tile(images[0], images[1], valid)

    def tiles(self, places: Iterable[tuple[int, int]]) -> Iterator[Tile]:
        """Tiles in the order of their places, a few of them read ahead."""
        waiting: deque[Future[Tile]] = deque()
        for place in places:
            waiting.append(self._pool.submit(self.read, *place))
            if len(waiting) > self._ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def __enter__(self) -> Self:
        """Itself; closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the threads and close their files."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for date in self._opened:
            date.close()
