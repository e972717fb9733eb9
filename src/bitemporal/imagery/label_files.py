"""The values of one label file, before it is known what they mean."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bitemporal.errors import LabelError
from bitemporal.imagery.decode import decode
from bitemporal.imagery.decoded import Decoded, FileFault
from bitemporal.imagery.label_rules import UNKNOWN, Counts, LabelDecoding, unpacked
from bitemporal.imagery.masks import IGNORE, JPEG, MaskSamples, black_and_white, without_data

Kind = Literal["grey", "palette", "inverted", "colour", "bands"]
"""What the samples of a label file are: grey, values; palette, indices of colours; inverted, values of a palette in
which index 0 is white and index 1 black, so that index and colour contradict each other; colour, packed colours; bands,
several channels that are no colours."""

KEPT = 256
"""Values kept of one file; as many as 8 bits can hold."""

_SHOWN = 8  # values listed before "and N more"


class LabelFault(FileFault, LabelError):
    """One label whose values cannot be decoded."""


@dataclass(frozen=True, slots=True)
class LabelValues:
    """The values of one label file.

    Attributes:
        path: The file.
        kind: What the values are.
        values: H x W; packed colours for ``colour``, the first band for ``bands``.
        palette: Packed colour of every palette index that occurs; empty unless the kind is ``palette``.
        bands: Values of each band with their pixels, where there are several that differ.
        jpeg: Whether the file is compressed as JPEG, JPEG 2000 or WebP.
        notes: What the user should know about the file.
        nodata: What the file calls no data, as stored.
        unknown: H x W, pixels of that value, which are ignored unless the decoding names it; ``None`` without any.
    """

    path: Path
    kind: Kind
    values: npt.NDArray[Any]
    palette: dict[int, int]
    bands: tuple[Counts, ...]
    jpeg: bool
    notes: tuple[str, ...]
    nodata: float | None = None
    unknown: npt.NDArray[np.bool_] | None = None

    def meanings(self, decoding: LabelDecoding) -> npt.NDArray[np.uint8]:
        """0, 1, 255 or ``UNKNOWN`` for every pixel."""
        mask = decoding.meanings(self.values)
        if self.unknown is not None:
            mask[self.unknown] = IGNORE
        return mask

    def known_values(self) -> npt.NDArray[Any]:
        """The values of pixels that are not called no data."""
        return self.values if self.unknown is None else self.values[~self.unknown]


def read_label(path: Path, decoding: LabelDecoding) -> LabelValues:
    """The values of one label file.

    Args:
        path: Path of the file.
        decoding: Says which band is read, whether colours are, and what the set pixels of a 1-bit image are.

    Raises:
        FileFault: When the file cannot be read.
        LabelFault: When it has no such band.
    """
    decoded = decode(path)
    mask = MaskSamples.of(decoded)
    label = _values_of(path, decoded, mask, decoding)
    if decoded.nodata is None or decoding.names(decoded.nodata):
        return label
    unknown = without_data(
        mask.samples if decoding.band is None else _band(path, mask.channels, decoding.band), decoded.nodata
    )
    return replace(label, nodata=decoded.nodata, unknown=unknown) if unknown.any() else label


def _values_of(path: Path, decoded: Decoded, mask: MaskSamples, decoding: LabelDecoding) -> LabelValues:
    jpeg = decoded.format in JPEG
    if decoding.band is not None:
        values = _of_white(_band(path, mask.channels, decoding.band), decoding.white)
        return LabelValues(path, "grey", values, {}, (), jpeg, decoded.notes)
    if decoding.colours and (packed := _colours(mask)) is not None:
        return LabelValues(path, "colour", packed, {}, (), jpeg, decoded.notes)
    if mask.palette is not None:
        return _of_palette(path, mask, mask.palette, decoded.notes)
    varying = mask.alpha is not None and (mask.alpha != 255).any()
    if mask.grey is not None and not varying:
        equal = (f"{decoded.mode} label with equal channels, taken as grey",) if mask.samples.ndim == 3 else ()
        values = _of_white(mask.grey, decoding.white)
        return LabelValues(path, "grey", values, {}, (), jpeg, (*decoded.notes, *equal))
    bands = tuple(tuple(count_values(band)[:KEPT]) for band in np.moveaxis(mask.channels, -1, 0))
    if mask.colour and (packed := _colours(mask)) is not None:
        return LabelValues(path, "colour", packed, {}, bands, jpeg, decoded.notes)
    return LabelValues(path, "bands", mask.channels[..., 0], {}, bands, jpeg, decoded.notes)


def read_difference(
    before: Path, after: Path, decoding: LabelDecoding
) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """Where two masks, one of each date, differ.

    Grey masks are compared by value, all others by colour. Values that ``decoding`` ignores are ignored in both.

    Returns:
        uint8, H x W: 0 equal, 1 different, 255 ignored, ``UNKNOWN`` where a value is NaN; and what the user should know
        about the files.

    Raises:
        FileFault: When a file cannot be read, or the sizes differ.
        LabelFault: When a file has no such band, or neither values nor colours to compare.
    """
    files = [decode(path) for path in (before, after)]
    masks = [MaskSamples.of(decoded) for decoded in files]
    if decoding.band is not None:
        first, second = (
            _band(decoded.path, mask.channels, decoding.band) for decoded, mask in zip(files, masks, strict=True)
        )
    elif all(mask.grey is not None for mask in masks):
        first, second = (_of_white(np.asarray(mask.grey), 255) for mask in masks)
    else:
        first, second = (_comparable(decoded.path, mask) for decoded, mask in zip(files, masks, strict=True))
    if first.shape != second.shape:
        sizes = " and ".join(f"{height} x {width}" for height, width in (first.shape, second.shape))
        raise FileFault(
            after, f"the masks of the two dates are {sizes} (height x width)", "bring both onto one pixel grid"
        )
    differing: npt.NDArray[np.uint8] = (first != second).astype(np.uint8)
    differing[(first != first) | (second != second)] = UNKNOWN
    for value in decoding.ignore:
        for values in (first, second):
            differing[values == value if value == value else values != values] = IGNORE
    for decoded, mask in zip(files, masks, strict=True):
        differing[without_data(mask.samples, decoded.nodata)] = IGNORE
    blurred = (
        ("masks of both dates in JPEG: its compression artefacts differ",)
        if any(f.format in JPEG for f in files)
        else ()
    )
    return differing, (*(note for decoded in files for note in decoded.notes), *blurred)


def _band(path: Path, samples: npt.NDArray[Any], band: int) -> npt.NDArray[Any]:
    bands = samples[..., None] if samples.ndim == 2 else samples
    if band > bands.shape[-1]:
        count = f"{bands.shape[-1]} band{'s' if bands.shape[-1] > 1 else ''}"
        remedy = "name a band that all labels have, label_band=1 (--label-band 1) for the first"
        raise LabelFault(path, f"has {count}, not the band {band} that label_band names", remedy)
    return np.ascontiguousarray(bands[..., band - 1])


def _of_white(values: npt.NDArray[Any], white: int) -> npt.NDArray[Any]:
    return values * np.uint8(white) if values.dtype == np.bool_ else values


def _of_palette(path: Path, mask: MaskSamples, palette: npt.NDArray[np.uint8], notes: tuple[str, ...]) -> LabelValues:
    """By the grey value that one sees where the palette has no colours, else by index."""
    used, shades = mask.used, palette[: mask.stored]
    greys = bool((shades == shades[:, :1]).all())
    if greys or (black_and_white(palette, used) and len({*palette[used, 0].tolist()}) == 2):
        inverted = used.tolist() == [0, 1] and palette[0, 0] == 255 and palette[1, 0] == 0
        kind: Kind = "inverted" if inverted else "grey"
        return LabelValues(path, kind, palette[:, 0][mask.samples], {}, (), False, notes)
    packed = _pack(palette)
    return LabelValues(path, "palette", mask.samples, {int(i): int(packed[i]) for i in used}, (), False, notes)


def _comparable(path: Path, mask: MaskSamples) -> npt.NDArray[np.uint32]:
    colours = _colours(mask)
    if colours is None:
        remedy = "name the band to compare, label_band=1 (--label-band 1) for the first"
        raise LabelFault(path, "has neither one band nor colours of 8 bits, to compare with the other date", remedy)
    return colours


def _colours(mask: MaskSamples) -> npt.NDArray[np.uint32] | None:
    """Packed colours of a mask of 8 bits; ``None`` for others."""
    if mask.palette is not None:
        colours: npt.NDArray[np.uint32] = _pack(mask.palette)[mask.samples]
        return colours
    if mask.grey is not None and mask.grey.dtype in (np.bool_, np.uint8):
        grey = _of_white(mask.grey, 255).astype(np.uint32)
        return grey * np.uint32(0x010101)
    return _pack(mask.samples) if mask.colour and mask.samples.shape[-1] == 3 else None


def _pack(colours: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    red, green, blue = np.moveaxis(colours.astype(np.uint32), -1, 0)
    packed: npt.NDArray[np.uint32] = red << 16 | green << 8 | blue
    return packed


def count_values(values: npt.NDArray[Any]) -> list[tuple[float, int]]:
    """Values of an array with their pixels, most frequent first."""
    pairs: Iterable[tuple[float, int]]
    if values.dtype == np.uint8:  # much faster than sorting them
        pairs = ((value, number) for value, number in enumerate(np.bincount(values.ravel()).tolist()) if number)
    else:
        distinct, numbers = np.unique(values, return_counts=True)
        whole = (
            int(value) if float(value).is_integer() and abs(value) < 2**63 else value for value in distinct.tolist()
        )
        pairs = zip(whole, numbers.tolist(), strict=True)
    return sorted(pairs, key=lambda pair: -pair[1])


def listed(counts: Iterable[tuple[float, int]], palette: dict[int, int] | None = None, colours: bool = False) -> str:
    """Values in words, most frequent first, as in ``0 (120 pixels), 255 (3), and 2 more``.

    Args:
        counts: Values with their pixels.
        palette: Packed colours to show with palette indices.
        colours: Whether the values are packed colours.
    """
    ranked = sorted(counts, key=lambda pair: (-pair[1], str(pair[0])))
    pieces: list[str] = []
    for value, number in ranked[:_SHOWN]:
        name = str(unpacked(int(value))) if colours else f"{value:g}"
        if palette and value in palette:
            name = f"index {name} = colour {unpacked(palette[int(value)])}"
        pieces.append(f"{name} ({number:,})" if pieces else f"{name} ({number:,} pixels)")
    return ", ".join(pieces) + (f", and {len(ranked) - _SHOWN:,} more" if len(ranked) > _SHOWN else "")
