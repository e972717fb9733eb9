"""The files that a scene's prediction leaves behind, checked before the work and put in place after it."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path

from bitemporal.errors import OutputError
from bitemporal.outputs import replacing
from bitemporal.scenes.rasters import sync

UNCHANGED, CHANGED, NO_DATA = 0, 1, 255

RED = (227, 26, 28)
"""Colour of change. The QGIS styles in ``qgis/*.qml`` use it too, as #e31a1c."""


@dataclass(frozen=True)
class Outputs:
    """Files to write; what is ``None`` is not written.

    Attributes:
        mask: GeoTIFF, uint8: 0 unchanged, 1 changed, 255 no data.
        probability: GeoTIFF, float32: probability of change, NaN where there is no data.
        polygons: Changed areas: GeoPackage, GeoParquet or GeoJSON, by the end of the name.
        quicklook: PNG: both dates, small, and what changed.
        summary: JSON: CAR, hectares, settings, timing.
    """

    mask: Path
    probability: Path | None = None
    polygons: Path | None = None
    quicklook: Path | None = None
    summary: Path | None = None

    def named(self) -> dict[str, Path]:
        """The files that are asked for, by their kind."""
        paths = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: path for name, path in paths.items() if path is not None}


@dataclass(frozen=True)
class MapResult:
    """A map of change: its files and measurements.

    Attributes:
        outputs: The files.
        car: Changed pixels divided by valid ones.
        changed_pixels: Number of changed pixels.
        valid_pixels: Number of valid pixels.
        changed_hectares: Area of the changed pixels; ``None`` for images without a place.
        polygons: Number of polygons, if they are written.
    """

    outputs: Outputs
    car: float
    changed_pixels: int
    valid_pixels: int
    changed_hectares: float | None
    polygons: int | None


FORMATS = {".gpkg": "GPKG", ".parquet": "Parquet", ".geojson": "GeoJSON", ".json": "GeoJSON"}
"""Formats of polygons by the ending of the file's name."""

_ENDINGS = {
    "mask": (".tif", ".tiff"),
    "probability": (".tif", ".tiff"),
    "polygons": tuple(FORMATS),
    "quicklook": (".png",),
    "summary": (".json",),
}


def style_of(path: Path) -> Path | None:
    """Where QGIS looks for the style of a raster or of polygons; ``None`` for a GeoPackage, which holds its own.

    Files that differ after the dot alone share one place.
    """
    return None if path.suffix.lower() == ".gpkg" else path.with_suffix(".qml")


def style(kind: str) -> str:
    """The QGIS style of a kind of output."""
    return files("bitemporal.scenes").joinpath("qgis", f"{kind}.qml").read_text(encoding="utf-8")


def check_outputs(outputs: Outputs, inputs: tuple[str, ...], has_place: bool) -> None:
    """Refuse outputs that cannot be written, before anything is computed.

    Args:
        outputs: Files to write.
        inputs: Files that are read.
        has_place: Whether the scene has a known place on the ground.

    Raises:
        OutputError: When a name does not suit, two are the same, one is an input, or a folder cannot be written to.
    """
    read = {Path(path).resolve() for path in inputs}
    written: dict[Path, str] = {}
    for name, path in outputs.named().items():
        if path.suffix.lower() not in _ENDINGS[name]:
            raise OutputError(f"{name}: found {path}, expected a name that ends in {' or '.join(_ENDINGS[name])}")
        if "://" in str(path) or ":/" in str(path)[2:] or str(path).startswith("/vsi"):
            raise OutputError(f"{name}: {path} is not a local file; write it to a local disk, then copy it there")
        if path.is_dir():
            raise OutputError(f"{name}: {path} is a folder; expected the name of a file")
        if path.resolve() in read:
            raise OutputError(f"{name}: {path} is one of the files that are read; choose another name")
        if (other := written.setdefault(path.resolve(), name)) != name:
            raise OutputError(f"{name}: {path} is where the {other} goes; choose another name")
        parent = path.resolve().parent
        existing = next(folder for folder in (parent, *parent.parents) if folder.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise OutputError(
                f"{path}: cannot be written in {existing}; choose another place, or correct its permissions"
            )
    if outputs.polygons is not None and FORMATS[outputs.polygons.suffix.lower()] == "GeoJSON" and not has_place:
        raise OutputError(
            f"polygons: {outputs.polygons} is GeoJSON, which needs longitude and latitude, and the images have no CRS; "
            "choose .gpkg"
        )


def publish(products: Mapping[Path, Path]) -> None:
    """Move finished files to their places; what stood there is replaced, with what GDAL kept next to it.

    Args:
        products: Target of every finished file.

    Raises:
        OutputError: When one cannot be written.
    """
    for file, target in products.items():
        for ending in (".aux.xml", ".ovr", ".msk"):
            target.with_name(target.name + ending).unlink(missing_ok=True)
        with replacing(target) as temporary:
            sync(file)  # before the move: a run that is killed meanwhile leaves nothing next to the target
            shutil.move(file, temporary)
