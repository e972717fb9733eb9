"""Images as rasterio reads them: those that Pillow cannot represent."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from bitemporal.errors import DataError
from bitemporal.imagery.decoded import BANDS, RESTORE, Decoded, FileFault, check_bands, check_size, content_notes
from bitemporal.imagery.jpeg2000 import JPEG2000, jpeg2000_drivers
from bitemporal.imagery.opening import open_dataset, rasterio_is_installed
from bitemporal.imagery.physical import UNSCALED, to_physical
from bitemporal.imagery.quiet import ignore_missing_places

_CONVERT = "write the part that matters, such as the amplitude of complex numbers, to a file of integers or floats"
_NO_DECODER = re.compile(r"codec|compression scheme|not supported|unsupported|not configured", re.IGNORECASE)


def needs_rasterio(path: Path, what: str) -> FileFault:
    """The fault of a file that only rasterio could read, where rasterio is not installed."""
    remedy = "install it with `pip install 'bitemporal[geo]'`, or convert the file to 8-bit RGB or a single band"
    return FileFault(path, f"{what} without rasterio", remedy)


def decode_with_rasterio(path: Path, bands: Sequence[int] | None, kind: str, without: FileFault) -> Decoded:
    """Decode one file through GDAL.

    Args:
        path: Path of the file.
        bands: Bands to read; all of them by default.
        kind: TIFF, PNG or JPEG2000.
        without: What to raise when rasterio is not installed.

    Raises:
        FileFault: When the file is larger than ``MAX_PIXELS``, damaged, has no such band, or holds no real numbers.
    """
    if not rasterio_is_installed():
        raise without
    ignore_missing_places()
    try:
        formats = jpeg2000_drivers(path) if kind == JPEG2000 else ["GTiff" if kind == "TIFF" else kind]
        with open_dataset(path, formats=formats) as source:
            if bands is not None:
                check_bands(path, bands, source.count)
            dtypes = [source.dtypes[band - 1] for band in bands or source.indexes]
            types = sorted({*dtypes})
            check_size(path, source.height, source.width, len(dtypes) * max(map(_bytes, types)))
            samples: npt.NDArray[Any] = source.read(None if bands is None else list(bands))
            scaling = tuple((source.scales[band - 1], source.offsets[band - 1]) for band in bands or source.indexes)
            mode = BANDS if bands is not None else _mode([colour.name for colour in source.colorinterp])
            georeferenced, nodata = source.crs is not None, source.nodata
            names = source.descriptions if bands is None else ()
    except FileFault:
        raise
    except DataError as error:  # it names other files
        what, _, remedy = str(error).removeprefix(f"{path}: ").partition("; ")
        raise FileFault(path, what, remedy) from None
    except Exception as error:  # as Pillow's, GDAL's errors on damaged data are of many types
        reason = str(error.__cause__ or error)
        if _NO_DECODER.search(reason):
            what = f"is stored in a way that the installed GDAL cannot decode ({reason})"
            raise FileFault(path, what, "write it again at its source with a compression such as DEFLATE") from None
        raise FileFault(path, f"is damaged or truncated ({reason})", RESTORE) from None
    if samples.dtype.kind not in "uif":
        raise FileFault(path, f"holds samples of type {', '.join(types)}", _CONVERT)
    notes = content_notes(path, kind)
    is_scaled = any(band != UNSCALED for band in scaling)
    if is_scaled:
        samples = to_physical(samples, scaling, axis=0)
        nodata = None  # it is a stored value
        notes.append("scale and offset of its bands applied")
    depth = 8 if samples.dtype == np.uint8 else max(16, 8 * samples.itemsize)
    pixels: Image.Image | npt.NDArray[Any] = np.ascontiguousarray(samples.transpose(1, 2, 0))
    if bands is None and samples.shape[0] == 1:
        pixels = samples[0]
    if depth == 8 and mode in ("F", "LA", "RGB", "RGBA"):
        pixels = Image.fromarray(pixels)
        mode = pixels.mode
    chosen = None if bands is None else tuple(bands)
    return Decoded(
        path,
        pixels,
        mode,
        kind,
        depth,
        georeferenced,
        tuple(notes),
        chosen,
        nodata,
        tuple(scaling) if is_scaled else None,
        names,
    )


def _bytes(dtype: str) -> int:
    """Bytes of a sample; numpy has no complex integers."""
    return 8 if dtype.startswith("complex_") else np.dtype(dtype).itemsize


def _mode(colours: Sequence[str]) -> str:
    """The mode of Pillow that comes closest to the colours of a file's bands."""
    alpha = len(colours) > 1 and colours[-1] == "alpha"
    others = len(colours) - alpha
    if others == 1:
        return "LA" if alpha else "F"
    if others == 3:
        return "RGBA" if alpha else "RGB"
    return "RGBX" if list(colours[:3]) == ["red", "green", "blue"] else BANDS
