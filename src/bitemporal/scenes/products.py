"""The products of a scene, made from its probabilities: mask, rasters to keep, polygons, a picture."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from pyogrio.errors import DataSourceError, FeatureError
from rasterio.errors import RasterioError

from bitemporal.files import unwritable
from bitemporal.scenes.mask import PixelCounts, write_mask
from bitemporal.scenes.outputs import style_of
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

    def add(self, file: Path, target: Path, kind: str | None = None) -> None:
        """Add a file, with the QGIS style of its kind if it has one."""
        self.files[file] = target
        if kind is not None and (style_target := style_of(target)) is not None:
            style_file = file.with_suffix(".qml")
            style_file.write_text(_style(kind), encoding="utf-8")
            self.files[style_file] = style_target


def make_products(scene: Scene, probability: Path) -> Products:
    """Make the files that are asked for, all but the summary, next to the raster of the probabilities.

    Args:
        scene: The scene.
        probability: Raster of its probabilities, NaN where there is no data.

    Raises:
        DataError: When pixels for the picture cannot be read.
        OutputError: When a file cannot be written.
    """
    outputs = scene.outputs
    folder = probability.parent
    mask = folder / "mask.tif"
    with _writing(mask, outputs.mask):
        products = Products(write_mask(mask, probability, scene))
    if outputs.polygons is not None:
        file = folder / "polygons" / outputs.polygons.name  # a GeoPackage's layer is named after the file
        with _writing(file, outputs.polygons):
            file.parent.mkdir(exist_ok=True)
            file.unlink(missing_ok=True)
            products.polygons = write_polygons(file, mask, probability, scene, _style("polygons"))
            products.add(file, outputs.polygons, "polygons")
    if outputs.probability is not None:
        file = folder / "probability-cog.tif"
        # floats hardly shrink further at the usual level 6, which takes twice as long
        settings = {"PREDICTOR": "YES", "LEVEL": "1", "OVERVIEW_RESAMPLING": "AVERAGE"}
        with _writing(file, outputs.probability):
            write_cog(probability, file, settings)
            products.add(file, outputs.probability, "probability")
    file = folder / "mask-cog.tif"
    with _writing(file, outputs.mask):
        write_cog(mask, file, {"OVERVIEW_RESAMPLING": "MODE"})
        products.add(file, outputs.mask, "mask")
    if outputs.quicklook is not None:
        file = folder / "quicklook.png"
        with _writing(file, outputs.quicklook):
            write_quicklook(file, mask, scene)
            products.add(file, outputs.quicklook)
    return products


def _style(kind: str) -> str:
    """The QGIS style of a kind of file."""
    return files("bitemporal.scenes").joinpath("qgis", f"{kind}.qml").read_text(encoding="utf-8")


@contextmanager
def _writing(file: Path, target: Path) -> Iterator[None]:
    """Name the target when a file cannot be written, and leave nothing half-written."""
    try:
        yield
    except (OSError, RasterioError, DataSourceError, FeatureError) as error:
        file.unlink(missing_ok=True)
        raise unwritable(target, error) from error
