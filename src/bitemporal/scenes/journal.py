"""The probabilities of a scene on the disk, strip by strip, so that a killed run resumes where it stopped.

A hidden folder next to the output holds ``probability.tif``, written in full before the first strip, and
``journal.npz``, replaced after every strip. A strip is noted in the journal only once its pixels are on the disk.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window

from bitemporal.errors import DataError, OutputError
from bitemporal.outputs import replacing, unwritable
from bitemporal.reading import parse_json, reading
from bitemporal.scenes.rasters import check_blocks, new_raster, sync
from bitemporal.scenes.scene import Scene

_MARK = "bitemporal"
"""An empty file that tells a folder of unfinished work from one of the user's."""


class Journal:
    """The finished strips of one pass of a detector over a scene.

    Attributes:
        raster: GeoTIFF of the probabilities, float32, NaN where there is no data.
        strips: Number of strips that are done.
        resumed: Number of those that an earlier run had done.
        carried: What the last of them left to be blended with the next; ``None`` before the first.
        tallies: Number of tiles by what became of them.
    """

    def __init__(self, folder: Path, scene: Scene) -> None:
        """Resume what the folder holds, or start again.

        Args:
            folder: The journal's own folder, made when missing.
            scene: The scene; what was begun with other settings is dropped.

        Raises:
            OutputError: When it cannot be written.
        """
        self.folder, self.tiling, self.key = folder, scene.tiling, scene.fingerprint
        self.raster = folder / "probability.tif"
        self.strips = 0
        self.carried: npt.NDArray[np.float32] | None = None
        self.tallies: Counter[str] = Counter()
        if not self._resume():
            self._begin(scene)
        self.resumed = self.strips

    def _resume(self) -> bool:
        """Take over what an earlier run noted; false where there is nothing that fits."""
        notes = self.folder / "journal.npz"
        try:
            with reading(notes, DataError, "expected the journal of a scene"):
                check_blocks(self.raster)
                with np.load(notes, allow_pickle=False) as content:
                    if str(content["key"]) != self.key:
                        return False
                    strips, carried, tallies = int(content["strips"]), content["carried"], str(content["tallies"])
                self.strips, self.carried, self.tallies = strips, carried, Counter(parse_json(tallies))
        except DataError:  # absent, or damaged
            return False
        return True

    def _begin(self, scene: Scene) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.folder.mkdir(parents=True)
            free, needed = (
                shutil.disk_usage(self.folder).free,
                5 * scene.grid.height * scene.grid.width,
            )  # with the mask
            if free < needed:
                raise OSError(f"{free / 1e9:.2f} GB are free, a scene of this size needs {needed / 1e9:.2f} GB")
            with new_raster(self.raster, scene.grid, "float32", np.nan, scene.tags):
                pass
            sync(self.raster)
        except (OSError, RasterioError) as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise unwritable(self.folder, error) from error

    def write(
        self, start: int, strip: npt.NDArray[np.float32], carried: npt.NDArray[np.float32], tallies: Counter[str]
    ) -> None:
        """Put a finished strip on the disk, then note that it is there.

        Args:
            start: Its first pixel on the axis on which strips follow each other.
            strip: Probabilities, that axis first; NaN where there is no data.
            carried: What it leaves to be blended with the next strip.
            tallies: What became of its tiles.

        Raises:
            OutputError: When it cannot be written.
        """
        rows, left, top = (strip, 0, start) if self.tiling.strips_are_rows else (strip.T, start, 0)
        try:
            with rasterio.open(self.raster, "r+") as raster:
                raster.write(rows, 1, window=Window(left, top, rows.shape[1], rows.shape[0]))
            sync(self.raster)
        except (OSError, RasterioError) as error:
            raise unwritable(self.folder, error) from error
        self.strips, self.carried, self.tallies = self.strips + 1, carried, self.tallies + tallies
        with replacing(self.folder / "journal.npz") as temporary, temporary.open("wb") as stream:
            np.savez(stream, key=self.key, strips=self.strips, carried=self.carried, tallies=json.dumps(self.tallies))


@contextmanager
def work_folder(output: Path) -> Iterator[Path]:
    """Give the hidden folder next to an output, which this run has locked.

    An empty folder is removed at the end; one with content stays, for the run that resumes.

    Raises:
        OutputError: When it cannot be made, or a folder of the user's has its name.
    """
    real = Path(os.path.realpath(output))
    folder = real.with_name(f".{real.name}.work")
    try:
        folder.mkdir(exist_ok=True)
        mark = folder / _MARK
        if not mark.exists():
            if any(folder.iterdir()):
                raise OutputError(
                    f"{output}: {folder}, where unfinished work on it is kept, exists and was not made by bitemporal; "
                    "move that folder, or choose another name"
                )
            mark.touch()
    except OSError as error:
        raise unwritable(output, error) from error
    try:
        yield folder
    finally:
        with suppress(OSError):
            if os.listdir(folder) == [_MARK]:
                mark.unlink()
                folder.rmdir()


def clear_work(folder: Path) -> None:
    """Remove unfinished work, but its mark, which goes last: a run that is killed here leaves a folder of ours."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name != _MARK:
                shutil.rmtree(path, ignore_errors=True)
