"""The files that a scene's prediction leaves behind, checked before the work and put in place after it."""

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bitemporal.errors import OutputError
from bitemporal.outputs import Kind, Output, check_outputs, locked, replacing
from bitemporal.scenes import kinds
from bitemporal.scenes.rasters import sync
from bitemporal.workers import sign_of_life

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
        overwrite: Whether other files in their places are replaced too.
    """

    mask: Path
    probability: Path | None = None
    polygons: Path | None = None
    quicklook: Path | None = None
    summary: Path | None = None
    overwrite: bool = False

    def named(self) -> dict[str, Path]:
        """The files that are asked for, by their kind."""
        return {name: path for name in _KINDS if (path := getattr(self, name)) is not None}

    def planned(self, where: str = "") -> list[Output]:
        """The files that are asked for, their styles, and what is next to them.

        Args:
            where: What their names in errors end in.
        """
        return [output for name, path in self.named().items() for output in planned(name, path, _KINDS[name], where)]


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


_KINDS = {
    "mask": kinds.MASK,
    "probability": kinds.PROBABILITY,
    "polygons": kinds.POLYGONS,
    "quicklook": kinds.QUICKLOOK,
    "summary": kinds.SUMMARY,
}


_WITH_STYLE = (kinds.MASK, kinds.PROBABILITY, kinds.POLYGONS, kinds.MERGED)


def style_of(path: Path) -> Path | None:
    """Where QGIS looks for the style of a raster or of polygons; ``None`` for a GeoPackage, which holds its own.

    Files that differ after the dot alone share one place.
    """
    return None if path.suffix.lower() == ".gpkg" else path.with_suffix(".qml")


def planned(option: str, path: Path, kind: Kind, where: str = "") -> list[Output]:
    """An output with its style, if it has one, and with what other programs may keep next to it.

    Args:
        option: What names it.
        path: Where it goes.
        kind: Its kind.
        where: What the names of all end in.
    """
    style_path = style_of(path) if kind in _WITH_STYLE else None
    # one name for all, as several outputs may share a style
    styles = [] if style_path is None else [Output(f"style{where}", style_path, kinds.STYLE)]
    parts = ((beside, kinds.kind_of_sidecar(beside, path, kind)) for beside in kinds.sidecars(path))
    return [Output(f"{option}{where}", path, kind), *styles, *(Output(f"{option}{where}", *part) for part in parts)]


def check_map(outputs: Outputs, reads: Iterable[str | os.PathLike[str]], has_place: bool) -> None:
    """Refuse outputs of a map that would lose something of the user's, or cannot be written.

    Args:
        outputs: Files to write.
        reads: Files that are read; see ``files_read``.
        has_place: Whether the scene has a known place on the ground.

    Raises:
        OutputError: See ``bitemporal.outputs.check_outputs``; or when polygons need a place, and there is none.
    """
    check_outputs(outputs.planned(), reads, outputs.overwrite)
    if outputs.polygons is not None and kinds.FORMATS[outputs.polygons.suffix.lower()] == "GeoJSON" and not has_place:
        raise OutputError(
            f"polygons: {outputs.polygons} is GeoJSON, which needs longitude and latitude, and the images have no CRS; "
            "choose .gpkg"
        )


def make_outputs(output: str | os.PathLike[str], overwrite: bool, **others: str | os.PathLike[str] | None) -> Outputs:
    """Outputs from the arguments of a call.

    Args:
        output: The mask.
        overwrite: See ``Outputs``.
        **others: The others, by their kind.

    Raises:
        OutputError: When one is no file of a disk.
    """
    named = {name: Path(path) for name, path in others.items() if path is not None}
    outputs = Outputs(Path(output), overwrite=overwrite, **named)
    for name, path in outputs.named().items():
        if "://" in str(path) or ":/" in str(path)[2:] or str(path).startswith("/vsi"):
            raise OutputError(f"{name}: {path} is not a local file; write it to a local disk, then copy it there")
    return outputs


@contextmanager
def locked_together(paths: Iterable[Path], wait: bool = False) -> Iterator[None]:
    """Keep other runs from all of these outputs, until the end.

    Args:
        paths: The outputs of one run.
        wait: Whether to wait for other runs that write one of them.

    Raises:
        OutputError: When another run writes one of them, or a folder cannot be made.
    """

    def pause() -> None:
        sign_of_life()
        time.sleep(0.2)

    with ExitStack() as stack:
        # in one order, or two that wait would wait for each other
        for path in sorted({Path(os.path.realpath(path)) for path in paths}):
            # nor may one run begin another within itself
            stack.enter_context(locked(path, pause if wait else None, again=False))
        yield


def publish(products: Mapping[Path, Path]) -> None:
    """Move finished files to their places; what stood there is replaced, with what other programs kept next to it.

    Args:
        products: Target of every finished file.

    Raises:
        OutputError: When one cannot be written.
    """
    for file, target in products.items():
        for sidecar in kinds.sidecars(target):
            sidecar.unlink(missing_ok=True)
        with replacing(target) as temporary:
            sync(file)  # before the move: a run that is killed meanwhile leaves nothing next to the target
            shutil.move(file, temporary)
