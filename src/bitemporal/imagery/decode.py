"""Image files: opened with every check, and decoded to the samples that they hold."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bitemporal.imagery.band_files import band_files, band_name
from bitemporal.imagery.colours import places_of_colours
from bitemporal.imagery.decoded import BANDS, RESTORE, Decoded, FileFault, check_bands, check_size
from bitemporal.imagery.jpeg2000 import JPEG2000, begins_as_jpeg2000
from bitemporal.imagery.tiff_layout import Incomplete, tiff_layout
from bitemporal.imagery.whole import check_whole
from bitemporal.imagery.with_pillow import decode_with_pillow, depth_of, open_with_pillow, pillow_keeps_all, stored_as
from bitemporal.imagery.with_rasterio import decode_with_rasterio, needs_rasterio


def decode(path: Path, bands: Sequence[int] | None = None) -> Decoded:
    """Open and fully decode one file.

    A folder of files that hold one band each (see ``band_files``) is one image.

    Pillow reads the file. JPEG 2000, and what Pillow cannot represent (several bands of more than 8 bits, more than
    four bands, some sample types, layouts and compressions of TIFF, scales and offsets of bands), is read through
    rasterio, where that is installed. Scale and offset of a band, where a TIFF has them, are applied.

    Args:
        path: The file, or the folder.
        bands: Bands to read, counted from 1, in this order; one may be repeated. All of them by default. The bands of
            a palette image are red, green and blue.

    Raises:
        FileFault: When the file is missing, no image, larger than ``MAX_PIXELS`` or ``MAX_BYTES``, damaged or
            truncated, or has no such band; or when files of bands differ in size, or hold several.
    """
    if files := band_files(path) if path.is_dir() else []:
        return _decode_bands(path, files, bands)
    image = open_with_pillow(path)
    if image is None:
        _refuse_incomplete(path)
        if begins_as_jpeg2000(path):
            return decode_with_rasterio(
                path, bands, JPEG2000, needs_rasterio(path, "is JPEG 2000, which cannot be read")
            )
        return decode_with_rasterio(path, bands, "TIFF", needs_rasterio(path, "is a TIFF that cannot be read"))
    with image:
        check_size(path, image.height, image.width, len(image.getbands()) * (depth_of(image) + 7) // 8)
        _refuse_incomplete(path)
        try:
            if pillow_keeps_all(image) and not (image.format == "TIFF" and _is_sparse(path)):
                return decode_with_pillow(path, bands, image)
            fault = needs_rasterio(path, f"holds {stored_as(image)}, which cannot be read")
        except FileFault:
            raise
        except Exception as error:  # decoders raise anything on damaged data
            if image.format != "TIFF":
                raise FileFault(path, f"is damaged or truncated ({error})", RESTORE) from None
            # a TIFF may only use a compression that Pillow lacks
            fault = needs_rasterio(path, f"is damaged or truncated, or cannot be read ({error})")
    return decode_with_rasterio(path, bands, image.format or "", fault)


def _refuse_incomplete(path: Path) -> None:
    """Refuse a file that lacks pixels, before it is decoded.

    Raises:
        FileFault: Saying what is missing.
    """
    try:
        check_whole(path)
    except Incomplete as error:
        raise FileFault(path, f"is damaged or truncated ({error})", RESTORE) from None
    except OSError as error:
        raise FileFault(path, f"cannot be opened ({error.strerror or error})", "make the file readable") from None


def _is_sparse(path: Path) -> bool:
    """Whether a TIFF leaves blocks out; Pillow would read the beginning of the file in their place."""
    layout = tiff_layout(path)
    return layout is not None and layout.is_sparse


def _decode_bands(folder: Path, files: Sequence[Path], bands: Sequence[int] | None) -> Decoded:
    """Decode an image whose bands are files of their own.

    Raises:
        FileFault: When a file cannot be read or holds several bands, or the files differ in size.
    """
    if bands is not None:
        check_bands(folder, bands, len(files))
    colours = places_of_colours([file.stem for file in files]) if bands is None else None
    numbers = bands or [place + 1 for place in colours or range(len(files))]
    read = {number: decode(files[number - 1]) for number in dict.fromkeys(numbers)}
    for one in read.values():
        if one.samples.ndim != 2:
            what = f"has {one.samples.shape[-1]} bands, expected one, as {folder.name} has a file for each band"
            raise FileFault(one.path, what, "move it elsewhere")
    largest = max((one.size for one in read.values()), key=lambda size: size[0] * size[1])
    if odd := [one for one in read.values() if one.size != largest]:
        same = tuple(number for number, one in read.items() if one.size == largest)
        tiles = "; data tiles brings all of them to one size" if odd[0].georeferenced else ""
        raise FileFault(
            odd[0].path,
            f"is {odd[0].size[0]} x {odd[0].size[1]} (height x width), but other bands of {folder.name} are "
            f"{largest[0]} x {largest[1]}",
            f"read those alone, --bands {','.join(map(str, same))} (bands={same}){tiles}",
        )
    samples = np.stack([read[number].samples for number in numbers], axis=-1)
    notes = dict.fromkeys(note for one in read.values() for note in one.notes)
    if colours:
        named = ", ".join(band_name(read[number].path) for number in numbers)
        used = f"{len(files)} bands in separate files; {named} are used"
        notes[f"{used}; choose others as in --bands 1,2,3"] = None
    mode = "RGB" if colours else BANDS
    depth, placed = max(one.depth for one in read.values()), any(one.georeferenced for one in read.values())
    return Decoded(folder, samples, mode, "TIFF", depth, placed, (*notes,), None if bands is None else tuple(bands))
