"""What is known of the images that a detector was trained on, and whether others are far outside of it."""

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitemporal.errors import DataError, OptionError
from bitemporal.imagery.band_files import band_files
from bitemporal.imagery.decode import decode
from bitemporal.imagery.label_rules import LabelDecoding, LabelOptions
from bitemporal.imagery.opening import open_dataset, rasterio_is_installed
from bitemporal.imagery.quiet import ignore_missing_places, open_image
from bitemporal.reading import reading

if TYPE_CHECKING:  # rasterio is an extra
    from affine import Affine
    from rasterio.crs import CRS

SYNTHETIC = "synthetic.json"
"""File in the folder of synthetic pairs and scenes that holds how they were made."""

SOURCE = "source.json"
"""File in the folder of a downloaded data set that holds where it is from."""

SYNTHETIC_SCENE = "synthetic scene by bitemporal"
"""Description in the header of the rasters of synthetic scenes."""

_IMAGE_DESCRIPTION = 270  # TIFF tag

_FAR = 4.0
"""Ratio of pixel sizes from which on images count as far outside; augmentation and pyramids of features bridge less."""

_EARTH_RADIUS = 6_371_008.8


@dataclass(frozen=True, kw_only=True)
class SeenImages:
    """What is known of images.

    Attributes:
        value_type: Type of their samples, as numpy names it, such as ``uint8``.
        pixel_size: Metres on the ground; ``None`` where files do not say it.
        synthetic: Whether this package made them.
        bands: Bands that became channels; red, green and blue by default.
    """

    value_type: str | None = None
    pixel_size: float | None = None
    synthetic: bool = False
    bands: tuple[int, ...] | None = None


@dataclass(frozen=True)
class TrainingLabels:
    """How the labels were read that a detector was trained on.

    Attributes:
        options: What was stated.
        seen: The values of the label files, in words; see ``LabelDecoding``.
    """

    options: LabelOptions
    seen: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields in JSON types; JSON has no NaN and no infinity, so they are text."""
        options = {
            name: [_finite(one) for one in value] if isinstance(value, tuple) else value
            for name, value in self.options.stated().items()
        }
        return {"options": options, "seen": list(self.seen)}

    @classmethod
    def of_json(cls, stored: dict[str, Any]) -> "TrainingLabels":
        """Read what ``to_json`` gave; options of later versions are passed over.

        Raises:
            TypeError: When a field is of another type.
            ValueError: When it holds no number, or options that contradict each other.
        """
        given: dict[str, Any] = {
            name: tuple(map(_number, value)) if isinstance(value, list) else _number(value)
            for name, value in stored["options"].items()
            if name in {field.name for field in fields(LabelOptions)}
        }
        options = LabelOptions(**given)
        try:
            options.decoding()
        except OptionError as error:
            raise ValueError(str(error)) from error
        return cls(options, tuple(map(str, stored["seen"])))

    def are_like(self, decoding: LabelDecoding) -> bool:
        """Whether other labels are of the same kind: they hold nothing that those of the training did not hold."""
        return {*decoding.seen} <= {*self.seen}

    def contradict(self, decoding: LabelDecoding) -> bool:
        """Whether labels of the same kind were read in another way than others are now."""
        values = np.array([*(decoding.unchanged or ()), *((decoding.changed or ()) if decoding.changed_seen else ())])
        own = self.options.decoding()
        return (
            own.source != "found"
            and own.colours == decoding.colours
            and self.are_like(decoding)
            and bool((own.meanings(values) != decoding.meanings(values)).any())
        )


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _number(value: float | str) -> float:
    number = float(value)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number  # as numpy compares them


_STORED: dict[str, type] = {"value_type": str, "synthetic": bool, "data": str, "data_hash": str, "labels": dict}
"""Types of fields of ``TrainingImages`` as JSON has them."""


@dataclass(frozen=True, kw_only=True)
class TrainingImages(SeenImages):
    """What is known of the images that a detector was trained on, and of their labels.

    Attributes:
        image_range: Values that became 0 and 255 in images of more than 8 bits, or such a pair for each channel.
        data: Name of the folder of pairs.
        data_hash: SHA-256 of the stems and label files of the training pairs.
        labels: How their labels were read.
    """

    image_range: tuple[float, ...] | None = None
    data: str = ""
    data_hash: str = ""
    labels: TrainingLabels | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields in JSON types."""
        content = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return content | {"labels": None if self.labels is None else self.labels.to_json()}

    @classmethod
    def of_json(cls, stored: dict[str, Any]) -> "TrainingImages":
        """Read what ``to_json`` gave; fields of later versions are passed over.

        Raises:
            TypeError: When a field is of another type.
            ValueError: When it holds no number, or options that contradict each other.
        """
        known = {field.name for field in fields(cls)}
        given = {name: value for name, value in stored.items() if name in known and value is not None}
        for name, wanted in _STORED.items():
            if name in given and not isinstance(given[name], wanted):
                raise TypeError(f"{name} holds {repr(given[name])[:50]}, expected {wanted.__name__}")
        if "value_type" in given:
            np.dtype(given["value_type"])
        for name, kind in (("bands", int), ("image_range", float)):
            if name in given:
                given[name] = tuple(kind(value) for value in given[name])
        if "pixel_size" in given:
            given["pixel_size"] = float(given["pixel_size"])
            if not 0.0 <= given["pixel_size"] < math.inf:
                raise ValueError(f"pixel_size holds {given['pixel_size']}, expected metres")
        if "labels" in given:
            given["labels"] = TrainingLabels.of_json(given["labels"])
        return cls(**given)

    def far_from(self, seen: SeenImages) -> str:
        """One line that says in what images are far outside of those of the training; empty where they are not."""
        differences = []
        sizes = self.pixel_size, seen.pixel_size
        if sizes[0] and sizes[1] and not 1 / _FAR < sizes[1] / sizes[0] < _FAR:
            differences.append(f"pixels of {_metres(sizes[1])}, trained on {_metres(sizes[0])}")
        if seen.value_type and self.value_type and _kind(seen.value_type) != _kind(self.value_type):
            differences.append(f"{seen.value_type} values, trained on {self.value_type}")
        if seen.bands != self.bands:
            differences.append(f"{_bands(seen.bands)}, trained on {_bands(self.bands)}")
        if self.synthetic and not seen.synthetic:
            differences.append("images not marked as synthetic, trained on synthetic pairs alone")
        if not differences:
            return ""
        data = f" (pairs {self.data})" if self.data else ""
        return f"these images are unlike the training data{data}: {'; '.join(differences)}; expect worse masks"


def _metres(size: float) -> str:
    return f"{float(f'{size:.2g}'):g} m"


def _kind(value_type: str) -> str:
    """Kinds of values that networks see differently: of 8 bits, of more, and broken numbers."""
    dtype = np.dtype(value_type)
    return "8 bits" if dtype == np.uint8 else dtype.kind.replace("u", "i")


def _bands(bands: tuple[int, ...] | None) -> str:
    return "red, green and blue" if bands is None else f"bands {','.join(map(str, bands))}"


def look_at(path: Path, bands: tuple[int, ...] | None = None) -> SeenImages:
    """What one image file tells.

    Args:
        path: An image file.
        bands: Bands that become channels.

    Raises:
        FileFault: When it cannot be read.
    """
    decoded = decode(path, bands)
    value_type = decoded.samples.dtype.name if decoded.depth > 8 else "uint8"
    size = file_pixel_size(next(iter(band_files(path)), path)) if decoded.georeferenced else None
    return SeenImages(value_type=value_type, pixel_size=size, synthetic=is_synthetic(path), bands=bands)


def is_synthetic(path: Path) -> bool:
    """Whether this package made a file: it lies in a folder of synthetic pairs, ROOT/SPLIT/A, or its header says so."""
    if any((folder / SYNTHETIC).is_file() for folder in list(path.absolute().parents)[:3]):
        return True
    try:
        with open_image(path, ("TIFF",)) as image:
            return str(getattr(image, "tag_v2", {}).get(_IMAGE_DESCRIPTION)) == SYNTHETIC_SCENE
    except Exception:  # no TIFF, or one that Pillow does not know: not one of ours
        return False


def file_pixel_size(path: Path) -> float | None:
    """Metres of a pixel on the ground, of a GeoTIFF; ``None`` where it does not say, or without rasterio."""
    if not rasterio_is_installed():
        return None
    ignore_missing_places()
    with reading(path, DataError, "expected a raster with a place on the ground: restore or fetch it again"):
        with open_dataset(path) as source:
            return pixel_size(source.crs, source.transform, source.width, source.height)


def pixel_size(crs: "CRS | None", transform: "Affine", width: int, height: int) -> float | None:
    """Metres of a pixel in the middle of a raster: the mean of its sides, along a sphere.

    Args:
        crs: CRS of rasterio; ``None`` for images without a place.
        transform: Affine map from column and row to coordinates.
        width: Columns.
        height: Rows.

    Returns:
        The size; ``None`` where the CRS has no place on the Earth.
    """
    if crs is None:
        return None
    from rasterio.errors import CRSError, RasterioError
    from rasterio.warp import transform as project

    column, row = width / 2, height / 2
    xs, ys = zip(*(transform @ place for place in ((column, row), (column + 1, row), (column, row + 1))), strict=True)
    try:
        degrees = np.radians(np.array(project(crs, "EPSG:4326", xs, ys)[:2]))
    except (CRSError, RasterioError):
        return None
    (east, south), latitude = np.diff(degrees[:, [[0, 0], [1, 2]]], axis=1)[:, 0].T, degrees[1, 0]
    sides = [math.hypot(side[0] * math.cos(latitude), side[1]) * _EARTH_RADIUS for side in (east, south)]
    size = math.sqrt(sides[0] * sides[1])
    return size if math.isfinite(size) and size > 0 else None
