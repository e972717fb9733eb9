"""Bands of rasters as files and catalogues describe them: names, scale and offset, nodata."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader

from bitemporal.imagery.colours import places_of_colours
from bitemporal.imagery.physical import UNSCALED, Scaling


@dataclass(frozen=True)
class StatedBand:
    """What a catalogue says about a band of a file, for where the file does not say it.

    Attributes:
        name: Common name, such as ``red``.
        scale: Factor that gives physical values.
        offset: Added after the factor.
        nodata: Value that stands for no data.
    """

    name: str = ""
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None


Stated = Mapping[str, Sequence[StatedBand]]
"""What a catalogue says about the bands of files."""


@dataclass(frozen=True)
class Band:
    """One band that is used.

    Attributes:
        path: Its file.
        number: Counted from 1.
        dtype: Its data type.
        names: What it is called by the catalogue, by its file's name (where each band has a file), by its
            description, and by its colour interpretation.
        scaling: Scale and offset.
        nodata: Value that stands for no data by the catalogue, where the file says nothing.
        notes: What the user should know about it.
        bits: Bits of a value, where its type holds more.
    """

    path: str
    number: int
    dtype: str
    names: tuple[str, str, str, str]
    scaling: tuple[float, float]
    nodata: float | None
    notes: tuple[str, ...] = ()
    bits: int | None = None


def describe_band(dataset: DatasetReader, path: str, number: int, stated: Stated, alone: bool) -> Band:
    """What a file, and a catalogue if there is one, say about a band.

    Args:
        dataset: The file.
        path: Its path.
        number: Band, counted from 1.
        stated: What a catalogue says.
        alone: Whether the file holds all bands of its date, so that its name is not the band's.
    """
    index = number - 1
    known = stated.get(path, ())
    catalogue = known[index] if index < len(known) else StatedBand()
    names = (
        catalogue.name,
        "" if alone else PurePath(path).stem,
        dataset.descriptions[index] or "",
        dataset.colorinterp[index].name,
    )
    own = float(dataset.scales[index] or 1.0), float(dataset.offsets[index])
    other = catalogue.scale or 1.0, catalogue.offset
    notes: tuple[str, ...] = ()
    if UNSCALED not in (own, other) and not all(math.isclose(a, b) for a, b in zip(own, other, strict=True)):
        notes = (
            f"{path}: its tags say scale {own[0]:g} and offset {own[1]:g}, its catalogue {other[0]:g} and "
            f"{other[1]:g}; those of the file are used",
        )
    scaling = other if own == UNSCALED else own
    says_nothing = MaskFlags.all_valid in dataset.mask_flag_enums[index]
    nodata = catalogue.nodata if says_nothing else None
    bits = dataset.tags(number, ns="IMAGE_STRUCTURE").get("NBITS")
    return Band(path, number, dataset.dtypes[index], names, scaling, nodata, notes, int(bits) if bits else None)


def in_order(bands: Sequence[Band]) -> list[Band]:
    """Three bands as red, green and blue, where their names clearly say which is which; else as they are."""
    for names in zip(*(band.names for band in bands), strict=True):
        if places := places_of_colours(names):
            return [bands[place] for place in places]
    return list(bands)


def scaling_of(bands: Sequence[Band]) -> Scaling | None:
    """Scale and offset of each band; ``None`` where none of them has any."""
    scaling = tuple(band.scaling for band in bands)
    return None if set(scaling) == {UNSCALED} else scaling
