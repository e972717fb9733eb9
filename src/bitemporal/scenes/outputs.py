"""What a scene's prediction leaves behind: mask and probabilities as Cloud Optimised GeoTIFF, polygons, a picture."""

import errno
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import rasterio.shutil

from bitemporal.errors import DataError, RecipeError
from bitemporal.files import replacing, unwritable
from bitemporal.scenes.journal import CHANGED, NO_DATA, UNCHANGED, Journal
from bitemporal.scenes.options import SceneOptions
from bitemporal.scenes.polygons import FORMATS, write_polygons
from bitemporal.scenes.rawrasters import raw_raster
from bitemporal.scenes.sources import Grid
from bitemporal.scenes.styles import RED, mask_style, polygon_style, probability_style

COLOURS = {UNCHANGED: (255, 255, 255, 255), CHANGED: (*RED, 255)}
"""Of the mask's values; in a GeoTIFF's colour table only no data can be transparent."""


@dataclass(frozen=True)
class Outputs:
    """Files to write; what is ``None`` is not written.

    Attributes:
        mask: GeoTIFF, uint8: 0 unchanged, 1 changed, 255 no data.
        probability: GeoTIFF, float32: probability of change, NaN where there is no data.
        polygons: Changed areas: GeoPackage, GeoParquet or GeoJSON, by the name's end.
        quicklook: PNG: both dates, small, and what changed.
        summary: JSON: CAR, hectares, how it was made, timing.
    """

    mask: Path
    probability: Path | None = None
    polygons: Path | None = None
    quicklook: Path | None = None
    summary: Path | None = None

    def named(self) -> dict[str, Path]:
        """Files by what they are."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: path for name, path in found.items() if path is not None}


_ENDINGS = {
    "mask": (".tif", ".tiff"),
    "probability": (".tif", ".tiff"),
    "polygons": tuple(FORMATS),
    "quicklook": (".png",),
    "summary": (".json",),
}


def check_outputs(outputs: Outputs, inputs: tuple[str, ...], has_crs: bool) -> None:
    """Refuse outputs that cannot be written, before anything is computed.

    Raises:
        RecipeError: When a name does not suit, two are one, or one is an input.
        DataError: When a folder cannot be written to.
    """
    named = outputs.named()
    read = {Path(path).resolve() for path in inputs}
    seen: dict[Path, str] = {}
    for name, path in named.items():
        if path.suffix.lower() not in _ENDINGS[name]:
            raise RecipeError(f"{name}: found {path}, expected a name that ends in {' or '.join(_ENDINGS[name])}")
        if "://" in str(path) or ":/" in str(path)[2:] or str(path).startswith("/vsi"):
            raise RecipeError(f"{name}: {path} is no local file; write it here, then copy it there")
        if path.is_dir():
            raise RecipeError(f"{name}: {path} is a folder; expected the name of a file")
        if path.resolve() in read:
            raise RecipeError(f"{name}: {path} is one of the images; choose another name")
        for file in (path, style_of(path)) if name in ("mask", "probability", "polygons") else (path,):
            if file is None:
                continue
            if file.resolve() in seen:
                raise RecipeError(
                    f"{name}: {path} and {seen[file.resolve()]} would both write {file}; choose names that differ "
                    "before the dot"
                )
            seen[file.resolve()] = str(path)
        parent = path.resolve().parent
        existing = next(folder for folder in (parent, *parent.parents) if folder.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise DataError(f"{path}: cannot be written in {existing}; choose another place, or mend its permissions")
    if outputs.polygons is not None and outputs.polygons.suffix.lower() in (".geojson", ".json") and not has_crs:
        raise RecipeError(
            f"polygons: {outputs.polygons} is GeoJSON, whose coordinates are longitude and latitude, and the images "
            "have no CRS; choose .gpkg"
        )


def style_of(path: Path) -> Path | None:
    """The file in which QGIS looks for a layer's style; a GeoPackage holds its own."""
    return None if path.suffix.lower() == ".gpkg" else path.with_suffix(".qml")


def make_outputs(
    outputs: Outputs, journal: Journal, grid: Grid, tags: Mapping[str, str], options: SceneOptions
) -> tuple[dict[Path, Path], int | None]:
    """Make the rasters and polygons of a finished journal, in its folder.

    Args:
        outputs: What to make.
        journal: With all strips done.
        grid: Of the scene.
        tags: Of the rasters.
        options: How polygons are made.

    Returns:
        Where each file is to go, by where it is; and the number of polygons, if they are made.

    Raises:
        DataError: When a file cannot be written.
    """
    mask = journal.folder / "mask.vrt"
    mask.write_text(raw_raster(journal.mask_file, grid, "Byte", str(NO_DATA), tags, COLOURS), encoding="utf-8")
    probability = journal.folder / "probability.vrt"
    probability.write_text(raw_raster(journal.probability_file, grid, "Float32", "nan", tags), encoding="utf-8")
    made: dict[Path, Path] = {}

    def styled(target: Path, file: Path, style: str) -> None:
        made[file] = target
        if (beside := style_of(target)) is not None:
            made[file.with_suffix(".qml")] = beside
            file.with_suffix(".qml").write_text(style, encoding="utf-8")

    count = None
    if outputs.polygons is not None:
        # a GeoPackage's layer has the file's name
        file = journal.folder / "polygons" / outputs.polygons.name
        file.parent.mkdir(exist_ok=True)
        file.unlink(missing_ok=True)
        count = write_polygons(file, outputs.polygons, journal, grid, options, polygon_style())
        styled(outputs.polygons, file, polygon_style())
    if outputs.probability is not None:
        # floats hardly shrink further at the usual level 6, which takes twice as long
        settings = {"PREDICTOR": "YES", "LEVEL": "1", "OVERVIEW_RESAMPLING": "AVERAGE"}
        write_cog(probability, journal.folder / "probability.tif", outputs.probability, settings)
        styled(outputs.probability, journal.folder / "probability.tif", probability_style())
    write_cog(mask, journal.folder / "mask.tif", outputs.mask, {"OVERVIEW_RESAMPLING": "MODE"})
    styled(outputs.mask, journal.folder / "mask.tif", mask_style())
    return made, count


def publish(made: Mapping[Path, Path]) -> None:
    """Move finished files to their places; what stood there is replaced, with what GDAL kept beside it.

    Raises:
        DataError: When one cannot be written.
    """
    for file, target in made.items():
        for ending in (".aux.xml", ".ovr", ".msk"):
            target.with_name(target.name + ending).unlink(missing_ok=True)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())
            file.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise unwritable(target, error) from error
            with replacing(target) as temporary:  # another disk
                shutil.copyfile(file, temporary)


def write_cog(source: Path, file: Path, target: Path, options: Mapping[str, str]) -> None:
    """Copy a raster to a Cloud Optimised GeoTIFF: tiles, overviews, deflate.

    Args:
        source: Any raster.
        file: Where to.
        target: What it will be called, for messages.
        options: Of GDAL's driver.

    Raises:
        DataError: When it cannot be written.
    """
    settings = {"COMPRESS": "DEFLATE", "BIGTIFF": "IF_SAFER", "NUM_THREADS": "ALL_CPUS", "BLOCKSIZE": "512"}
    try:
        rasterio.shutil.copy(source, file, driver="COG", **settings | dict(options))
        _check_blocks(file)
    except Exception as error:  # GDAL's failures have several families of classes
        file.unlink(missing_ok=True)
        raise unwritable(target, error) from error


def _check_blocks(path: Path) -> None:
    """See that every block is in the file: GDAL notices a full disk only when it closes a file, and does not say so."""
    size = path.stat().st_size
    with rasterio.open(path) as raster:
        for level in (None, *range(len(raster.overviews(1)))):
            with rasterio.open(path, **({} if level is None else {"overview_level": level})) as overview:
                places = [place for place, _ in overview.block_windows(1)]
            for row, column in places:
                offset, length = (
                    int(raster.get_tag_item(f"BLOCK_{what}_{column}_{row}", "TIFF", bidx=1, ovr=level) or 0)
                    for what in ("OFFSET", "SIZE")
                )
                if not length or offset + length > size:
                    raise OSError(f"a block is missing after {size} bytes; is the disk full?")
