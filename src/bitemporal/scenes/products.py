"""The products of a scene, made from its probabilities: mask, rasters to keep, polygons, a picture."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from pyogrio.errors import DataSourceError, FeatureError
from rasterio.errors import RasterioError

from bitemporal.outputs import unwritable
from bitemporal.scenes.drawing import Drawing
from bitemporal.scenes.kinds import style
from bitemporal.scenes.outputs import CHANGED, NO_DATA, RED, UNCHANGED, style_of
from bitemporal.scenes.pictures import write_quicklook
from bitemporal.scenes.polygons import write_polygons
from bitemporal.scenes.rasters import new_raster, row_windows, write_cog
from bitemporal.workers import sign_of_life

_COLOURS = {UNCHANGED: (255, 255, 255, 255), CHANGED: (*RED, 255)}  # GeoTIFF allows only no data to be transparent


@dataclass
class Products:
    """Finished files of a scene, still in its work folder.

    Attributes:
        changed: Number of changed pixels of every row.
        valid: Number of valid pixels of every row.
        polygons: Number of polygons, if they are asked for.
        files: Target of every file.
    """

    changed: npt.NDArray[np.int64]
    valid: npt.NDArray[np.int64]
    polygons: int | None = None
    files: dict[Path, Path] = field(default_factory=dict)

    @contextmanager
    def writing(self, file: Path, target: Path, kind: str | None = None) -> Iterator[Path]:
        """Write a file, and the QGIS style of its kind if it has one.

        Raises:
            OutputError: Naming the target, when the file cannot be written. Nothing is left half-written.
        """
        try:
            file.parent.mkdir(exist_ok=True)
            file.unlink(missing_ok=True)
            yield file
            sign_of_life()
            self.files[file] = target
            # files that differ after the dot alone have one style: polygons', as a mask has its colours in itself
            style_target = style_of(target) if kind else None
            if kind is not None and style_target is not None and style_target not in self.files.values():
                style_file = file.with_suffix(".qml")
                style_file.write_text(style(kind), encoding="utf-8")
                self.files[style_file] = style_target
        except (OSError, RasterioError, DataSourceError, FeatureError) as error:
            file.unlink(missing_ok=True)
            raise unwritable(target, error) from error


def make_products(drawing: Drawing, probability: Path, folder: Path) -> Products:
    """Make the files that are asked for, all but the summary, in a folder.

    Args:
        drawing: What they are made with.
        probability: Raster of the probabilities, NaN where there is no data.
        folder: Where the files are made.

    Raises:
        DataError: When pixels for the picture cannot be read.
        OSError: When the mask cannot be written.
        OutputError: When another file cannot be written.
    """
    outputs = drawing.outputs
    mask = folder / "mask.tif"
    mask.unlink(missing_ok=True)  # GDAL does not replace what a killed run left half-written
    products = _write_mask(mask, probability, drawing)
    if outputs.polygons is not None:
        file = folder / "polygons" / outputs.polygons.name  # a GeoPackage's layer is named after the file
        with products.writing(file, outputs.polygons, "polygons"):
            products.polygons = write_polygons(file, mask, probability, drawing)
    if outputs.probability is not None:
        # floats hardly shrink further at the usual level 6, which takes twice as long
        settings = {"PREDICTOR": "YES", "LEVEL": "1", "OVERVIEW_RESAMPLING": "AVERAGE"}
        with products.writing(folder / "probability-cog.tif", outputs.probability, "probability") as file:
            write_cog(probability, file, settings)
    with products.writing(folder / "mask-cog.tif", outputs.mask, "mask") as file:
        write_cog(mask, file, {"OVERVIEW_RESAMPLING": "MODE"})
    if outputs.quicklook is not None:
        assert drawing.dates is not None
        with products.writing(folder / "quicklook.png", outputs.quicklook) as file:
            write_quicklook(file, mask, drawing.dates, drawing.exclusion)
    return products


def _write_mask(path: Path, probability: Path, drawing: Drawing) -> Products:
    """Write the mask of a scene as a GeoTIFF, some rows at a time.

    Args:
        path: File to write.
        probability: Raster of probabilities, NaN where there is no data.
        drawing: What they are made with.

    Raises:
        OSError: When the file cannot be written.
    """
    products = Products(*np.zeros((2, drawing.grid.height), np.int64))
    with (
        rasterio.open(probability) as source,
        new_raster(path, drawing.grid, "uint8", NO_DATA, drawing.tags) as target,
        drawing.exclusion.open() as exclusion,
    ):
        target.write_colormap(1, _COLOURS)
        for window in row_windows(source):
            probabilities = source.read(1, window=window)
            mask = (probabilities > drawing.options.threshold).astype(np.uint8)
            mask[np.isnan(probabilities) | ~exclusion.kept(window)] = NO_DATA
            target.write(mask, 1, window=window)
            rows = slice(window.row_off, window.row_off + window.height)
            products.changed[rows] = (mask == CHANGED).sum(axis=1)
            products.valid[rows] = (mask != NO_DATA).sum(axis=1)
            sign_of_life()
    return products
