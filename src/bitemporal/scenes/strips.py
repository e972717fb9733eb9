"""The pass of a detector over a scene: strip after strip, tiles are read, answered, blended and written down."""

import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from rasterio.windows import Window

from bitemporal.inference import Detector
from bitemporal.scenes.exclusion import OpenExclusion
from bitemporal.scenes.grids import DateOnGrid
from bitemporal.scenes.journal import Journal
from bitemporal.scenes.scene import Scene
from bitemporal.scenes.tiling import Blend
from bitemporal.scenes.values import scale_channels
from bitemporal.workers import sign_of_life

ANSWERED, SKIPPED = "tiles answered", "tiles skipped"
"""Names among the tallies of tiles; all other names are CAR parts."""

_FILL = 127
"""Value of both dates where either has no data, or a mask hides it: nothing to see, and no difference."""


@dataclass(frozen=True)
class _Tile:
    """One tile of both dates.

    Attributes:
        before: Date 1, 3 x h x w, uint8.
        after: Date 2, likewise.
        valid: Pixels with data on both dates that are not left out, h x w; none outside the scene.
    """

    before: npt.NDArray[np.uint8]
    after: npt.NDArray[np.uint8]
    valid: npt.NDArray[np.bool_]


def predict_strips(scene: Scene, detector: Detector, journal: Journal, advance: Callable[[], None]) -> None:
    """Predict the strips of tiles that a journal lacks.

    The next tiles are read, and the last strip is written, while the detector answers.

    Args:
        scene: The scene.
        detector: The detector of this pass.
        journal: Takes the probabilities.
        advance: Called after every strip.

    Raises:
        DataError: When pixels cannot be read.
        OutputError: When a strip cannot be written.
    """
    tiling = scene.tiling
    remaining = range(journal.strips, tiling.across.count)
    if not remaining:  # an earlier run stopped after its prediction
        return
    blend = Blend(tiling, journal.strips, journal.carried)
    pending: Future[None] | None = None
    places = (place for strip in remaining for place in tiling.tiles(strip))
    with _read_tiles(scene, places) as tiles, ThreadPoolExecutor(1, thread_name_prefix="strips") as writer:
        for _ in remaining:
            valid, tallies = _answer_strip(islice(tiles, tiling.along.count), detector, blend, scene.options.batch_size)
            start, probabilities = blend.finish()
            np.clip(probabilities, 0.0, 1.0, out=probabilities)  # sums of weights end a hair above one
            probabilities[~valid[: len(probabilities)]] = np.nan
            if pending is not None:
                pending.result()
            pending = writer.submit(journal.write, start, probabilities, blend.carried.copy(), tallies)
            advance()
        if pending is not None:
            pending.result()


def _answer_strip(
    tiles: Iterator[_Tile], detector: Detector, blend: Blend, batch_size: int
) -> tuple[npt.NDArray[np.bool_], Counter[str]]:
    """Blend the answers to the tiles of a strip; give its valid pixels, and what became of its tiles."""
    valid = np.zeros(blend.sums.shape, np.bool_)
    tallies: Counter[str] = Counter()

    def with_data() -> Iterator[tuple[int, _Tile]]:
        for index, tile in enumerate(tiles):
            columns, own = blend.own(index, tile.valid)
            valid[:, columns] |= own
            if own.any():
                yield index, tile
            else:
                tallies[SKIPPED] += 1

    remaining = with_data()
    while batch := list(islice(remaining, batch_size)):
        answers = detector.answers(
            [torch.from_numpy(tile.before) for _, tile in batch],
            [torch.from_numpy(tile.after) for _, tile in batch],
            [torch.from_numpy(tile.valid) for _, tile in batch],
        )
        sign_of_life()
        for (index, _), answer in zip(batch, answers, strict=True):
            blend.add(index, answer.probability[0].to("cpu", torch.float32).numpy())
            tallies[ANSWERED] += 1
            if answer.part is not None:
                tallies[answer.part] += 1
    return valid, tallies


@contextmanager
def _read_tiles(scene: Scene, places: Iterable[tuple[int, int]]) -> Iterator[Iterator[_Tile]]:
    """Tiles of a scene in the order of their places; threads read a few of them ahead.

    Args:
        scene: The scene.
        places: Rows and columns of tiles.
    """
    # as few threads as keep up with the network: each opens the files again, and decodes blocks that others decode too
    threads = 4 if scene.is_remote else min(4, max(1, (os.cpu_count() or 1) // 2))
    opened = threading.local()

    with ExitStack() as files, ThreadPoolExecutor(threads, thread_name_prefix="tiles") as pool:

        def read(row: int, column: int) -> _Tile:
            if not hasattr(opened, "dates"):
                opened.exclusion = files.enter_context(scene.exclusion.open())
                opened.dates = [files.enter_context(date) for date in scene.open_dates()]
            return _read_tile(scene, opened.dates, opened.exclusion, row, column)

        def tiles() -> Iterator[_Tile]:
            waiting: deque[Future[_Tile]] = deque()
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


def _read_tile(scene: Scene, dates: Sequence[DateOnGrid], exclusion: OpenExclusion, row: int, column: int) -> _Tile:
    """Read the tile of a row and a column of tiles; what lies outside the scene is reflected at its edge."""
    rows, columns = scene.tiling.rows, scene.tiling.columns
    top, left = rows.start(row), columns.start(column)
    y0, y1 = max(top, 0), min(top + rows.tile, rows.length)
    x0, x1 = max(left, 0), min(left + columns.tile, columns.length)
    window = Window(x0, y0, x1 - x0, y1 - y0)
    (before, valid_before), (after, valid_after) = (date.read(window) for date in dates)
    valid = valid_before & valid_after & exclusion.clear(window)
    images = [scale_channels(samples, scene.ranges) for samples in (before, after)]
    for image in images:
        image[:, ~valid] = _FILL
    valid &= exclusion.inside(window)  # the surroundings of an area help the network to see its edge
    around = (y0 - top, top + rows.tile - y1), (x0 - left, left + columns.tile - x1)
    if any(map(any, around)):
        images = [np.pad(image, ((0, 0), *around), mode="reflect") for image in images]
        valid = np.pad(valid, around)
    return _Tile(images[0], images[1], valid)
