"""The pass of a detector over a scene: strip after strip, tiles are read, answered, blended and written down."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from bitemporal.inference import Detector
from bitemporal.scenes.journal import Journal
from bitemporal.scenes.reading import Tile, read_tiles
from bitemporal.scenes.scene import Scene
from bitemporal.scenes.tiling import Blend

ANSWERED, SKIPPED = "tiles answered", "tiles skipped"
"""Names among the tallies of tiles; all other names are CAR parts."""


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
    with read_tiles(scene, places) as tiles, ThreadPoolExecutor(1, thread_name_prefix="strips") as writer:
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
    tiles: Iterator[Tile], detector: Detector, blend: Blend, batch_size: int
) -> tuple[npt.NDArray[np.bool_], Counter[str]]:
    """Blend the answers to the tiles of a strip; give its valid pixels, and what became of its tiles."""
    valid = np.zeros(blend.sums.shape, np.bool_)
    tallies: Counter[str] = Counter()
    batch: list[tuple[int, Tile]] = []
    for index, tile in enumerate(tiles):
        columns, own = blend.own(index, tile.valid)
        valid[:, columns] |= own
        if own.any():
            batch.append((index, tile))
        else:
            tallies[SKIPPED] += 1
        if len(batch) == batch_size:
            _answer(batch, detector, blend, tallies)
            batch = []
    if batch:
        _answer(batch, detector, blend, tallies)
    return valid, tallies


def _answer(batch: Sequence[tuple[int, Tile]], detector: Detector, blend: Blend, tallies: Counter[str]) -> None:
    answers = detector.answers(
        [torch.from_numpy(tile.before) for _, tile in batch],
        [torch.from_numpy(tile.after) for _, tile in batch],
        [torch.from_numpy(tile.valid) for _, tile in batch],
    )
    for (index, _), answer in zip(batch, answers, strict=True):
        blend.add(index, answer.probability[0].to("cpu", torch.float32).numpy())
        tallies[ANSWERED] += 1
        if answer.part is not None:
            tallies[answer.part] += 1
