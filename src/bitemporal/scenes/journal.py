"""What a scene's prediction has done so far, so that a killed run goes on where it stopped.

Beside the output stands a hidden folder with the probabilities of the whole scene (float32, row by row, NaN where not
valid), the mask, and a journal that is replaced after every strip of tiles: what is before it is on the disk already.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from bitemporal.files import replacing, unwritable
from bitemporal.scenes.tiling import Tiling

UNCHANGED, CHANGED, NO_DATA = 0, 1, 255
"""Values of the mask."""

_JOURNAL = "journal.npz"


def fingerprint(settings: Mapping[str, Any]) -> str:
    """A hash of everything that the result depends on."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


class Journal:
    """The strips of one pass over a scene, on the disk.

    Attributes:
        strips: How many are done.
        carried: What the last one left for the next.
        changed: Changed pixels of every row.
        valid: Valid pixels of every row.
        tallies: What became of the tiles.
    """

    def __init__(self, folder: Path, tiling: Tiling, threshold: float, key: str) -> None:
        """Go on with what the folder holds, or begin anew.

        Args:
            folder: Its own; made when missing.
            tiling: Of the scene.
            threshold: Probability above which a pixel is changed.
            key: The fingerprint; what was begun under another one is dropped.

        Raises:
            DataError: When it cannot be written.
        """
        self.folder, self.tiling, self.threshold, self.key = folder, tiling, threshold, key
        self.height, self.width = tiling.rows.length, tiling.columns.length
        self.probability_file, self.mask_file = folder / "probability.raw", folder / "mask.raw"
        self.strips = 0
        self.carried: npt.NDArray[np.float32] | None = None
        self.changed, self.valid = (np.zeros(self.height, np.int64) for _ in range(2))
        self.tallies: Counter[str] = Counter()
        if not self._resume():
            self._begin()
        self._probabilities, self._masks = (
            os.open(file, os.O_RDWR) for file in (self.probability_file, self.mask_file)
        )

    def _resume(self) -> bool:
        try:
            with np.load(self.folder / _JOURNAL, allow_pickle=False) as content:
                if str(content["key"]) != self.key:
                    return False
                self.strips = int(content["strips"])
                self.carried, self.changed, self.valid = (content[name] for name in ("carried", "changed", "valid"))
                self.tallies = Counter(json.loads(str(content["tallies"])))
        # absent, or cut off by a full disk
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return False
        sizes = [file.stat().st_size if file.is_file() else -1 for file in (self.probability_file, self.mask_file)]
        return sizes == [4 * self.height * self.width, self.height * self.width]

    def _begin(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.strips, self.carried, self.tallies = 0, None, Counter()
        self.changed, self.valid = (np.zeros(self.height, np.int64) for _ in range(2))
        try:
            self.folder.mkdir(parents=True)
            free, needed = shutil.disk_usage(self.folder).free, 5 * self.height * self.width
            if free < needed:
                raise OSError(f"{free / 1e9:.2f} GB are free, {needed / 1e9:.2f} GB needed while it is worked on")
            for file, size in ((self.probability_file, 4), (self.mask_file, 1)):
                with file.open("wb") as stream:
                    stream.truncate(size * self.height * self.width)
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise unwritable(self.folder, error) from error

    def write(
        self, start: int, strip: npt.NDArray[np.float32], carried: npt.NDArray[np.float32], tallies: Counter[str]
    ) -> None:
        """Put a finished strip on the disk, then note that it is there.

        Args:
            start: Its first pixel on the axis on which strips follow each other.
            strip: Probabilities, that axis first; NaN where not valid.
            carried: What the next strip goes on with.
            tallies: What became of the strip's tiles.

        Raises:
            DataError: When it cannot be written.
        """
        rows = strip if self.tiling.strips_are_rows else strip.T
        top, left = (start, 0) if self.tiling.strips_are_rows else (0, start)
        valid = ~np.isnan(rows)
        mask = np.where(valid, np.where(rows > self.threshold, CHANGED, UNCHANGED), NO_DATA).astype(np.uint8)
        try:
            for file, values in ((self._probabilities, np.ascontiguousarray(rows)), (self._masks, mask)):
                self._put(file, values, top, left)
                os.fsync(file)
        except OSError as error:
            raise unwritable(self.folder, error) from error
        self.valid[top : top + len(rows)] += valid.sum(axis=1)
        self.changed[top : top + len(rows)] += (mask == CHANGED).sum(axis=1)
        self.tallies += tallies
        self.strips += 1
        with replacing(self.folder / _JOURNAL) as temporary, temporary.open("wb") as stream:
            np.savez(
                stream,
                key=self.key,
                strips=self.strips,
                carried=carried,
                changed=self.changed,
                valid=self.valid,
                tallies=json.dumps(self.tallies),
            )

    def _put(self, file: int, values: npt.NDArray[Any], top: int, left: int) -> None:
        size = values.itemsize
        if values.shape[1] == self.width:
            _put_all(file, values.tobytes(), top * self.width * size)
            return
        for row, line in enumerate(values, start=top):
            _put_all(file, line.tobytes(), (row * self.width + left) * size)

    def probabilities(self, rows: slice, columns: slice) -> npt.NDArray[np.float32]:
        """A window of the probabilities, read from the disk."""
        x0, x1, _ = columns.indices(self.width)
        found = np.empty((rows.stop - rows.start, x1 - x0), np.float32)
        for i, row in enumerate(range(rows.start, rows.stop)):
            found[i] = np.frombuffer(os.pread(self._probabilities, 4 * (x1 - x0), 4 * (row * self.width + x0)), "f4")
        return found

    def close(self) -> None:
        """Close the files; the folder stays."""
        os.close(self._probabilities)
        os.close(self._masks)

    def __enter__(self) -> Self:
        """Itself; closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        self.close()


def _put_all(file: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
