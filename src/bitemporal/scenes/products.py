"""The products of a scene, made from its probabilities: mask, rasters to keep, polygons, a picture."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pyogrio.errors import DataSourceError, FeatureError
from rasterio.errors import RasterioError

from bitemporal.files import unwritable
from bitemporal.scenes.mask import PixelCounts, write_mask
from bitemporal.scenes.outputs import style, style_of
from bitemporal.scenes.pictures import write_quicklook
from bitemporal.scenes.polygons import write_polygons
from bitemporal.scenes.rasters import write_cog
from bitemporal.scenes.scene import Scene


@dataclass
class Products:
    """Finished files of a scene, still in its work folder.

    Attributes:
        counts: Changed and valid pixels of every row.
        polygons: Number of polygons, if they are asked for.
        files: Target of every file.
    """

    counts: PixelCounts
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
            self.files[file] = target
            if kind is not None and (style_target := style_of(target)) is not None:
                style_file = file.with_suffix(".qml")
                style_file.write_text(style(kind), encoding="utf-8")
                self.files[style_file] = style_target
        except (OSError, RasterioError, DataSourceError, FeatureError) as error:
            file.unlink(missing_ok=True)
            raise unwritable(target, error) from error


def make_products(scene: Scene, probability: Path) -> Products:
    """Make the files that are asked for, all but the summary, next to the raster of the probabilities.

    Args:
        scene: The scene.
        probability: Raster of its probabilities, NaN where there is no data.

    Raises:
        DataError: When pixels for the picture cannot be read.
        OSError: When the mask cannot be written.
        OutputError: When another file cannot be written.
    """
    outputs = scene.outputs
    folder = probability.parent
    mask = folder / "mask.tif"
    products = Products(write_mask(mask, probability, scene))
    if outputs.polygons is not None:
        file = folder / "polygons" / outputs.polygons.name  # a GeoPackage's layer is named after the file
        with products.writing(file, outputs.polygons, "polygons"):
            products.polygons = write_polygons(file, mask, probability, scene)
    if outputs.probability is not None:
        # floats hardly shrink further at the usual level 6, which takes twice as long
        settings = {"PREDICTOR": "YES", "LEVEL": "1", "OVERVIEW_RESAMPLING": "AVERAGE"}
        with products.writing(folder / "probability-cog.tif", outputs.probability, "probability") as file:
            write_cog(probability, file, settings)
    with products.writing(folder / "mask-cog.tif", outputs.mask, "mask") as file:
        write_cog(mask, file, {"OVERVIEW_RESAMPLING": "MODE"})
    if outputs.quicklook is not None:
        with products.writing(folder / "quicklook.png", outputs.quicklook) as file:
            write_quicklook(file, mask, scene)
    return products
