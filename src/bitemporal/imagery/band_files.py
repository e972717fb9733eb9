"""Images whose bands are files of their own, as in scenes of Sentinel-2: a folder of such files is one image."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from bitemporal.errors import DataError

_BAND = re.compile(
    r"((?:.*[_\-.])?)b(?=\d\d|8a)(\d{1,2})(a?)(?:_\d\dm)?\.(?:tiff?|jp2)|(l[cet]\d\d_.*_)b(\d{1,2})\.tiff?"
)
"""Bands of Sentinel-2, and of Landsat, which has no zero in front; in lower case, behind the name of a scene."""

_PRODUCT = re.compile(r"(?:.*_)?(?:tci|aot|wvp|scl|pvi)(?:_\d\dm)?\.jp2")
"""What Sentinel-2 has next to its bands, in lower case: pictures and products that are made of the bands."""

_PIXELS = re.compile(r"_\d\dm$", re.IGNORECASE)
"""End of a stem that says the side of a pixel, as in B02_10m."""

_ENDINGS = (".tif", ".tiff", ".jp2")


def band_files(folder: Path) -> list[Path]:
    """The files of a folder that each hold one band, in the order of bands: B01, B02, ..., B08, B8A, B09, ...

    Args:
        folder: The folder. Files that are neither TIFF nor JPEG 2000 do not count, nor do other products of Sentinel-2.

    Returns:
        The files; none where one is not named after a band, two are named after the same one or are of two scenes,
        or there are fewer than two; nor where there is no such folder, or it cannot be listed.
    """
    found: dict[tuple[int, str], Path] = {}
    scenes: set[str] = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name.lower()
                if name.startswith(".") or not name.endswith(_ENDINGS) or _PRODUCT.fullmatch(name):
                    continue
                match = _BAND.fullmatch(name)
                if match is None:
                    return []
                band = int(match[2] or match[5]), match[3] or ""
                scenes.add(match[1] or match[4] or "")
                if band in found or len(scenes) > 1:
                    return []
                found[band] = folder / entry.name
    except OSError:
        return []
    return [found[band] for band in sorted(found)] if len(found) > 1 else []


def refuse_other_bands(folders: Iterable[Path]) -> None:
    """Refuse images of which one has other bands: their numbers would mean different bands.

    Args:
        folders: The images; those that are files do not count.

    Raises:
        DataError: When a folder has other bands than the first one.
    """
    first: tuple[Path, list[str]] | None = None
    for folder in folders:
        names = [band_name(path) for path in band_files(folder)]
        if first is None:
            first = (folder, names) if names else None
        elif names and names != first[1]:
            raise DataError(
                f"{folder}: holds the bands {', '.join(names)}, expected {', '.join(first[1])} as in {first[0]}, as "
                "bands are counted; add the missing files, or move those elsewhere that others lack"
            )


def band_name(path: Path) -> str:
    """The name of a file's band, as in B02 and B8A, without that of its scene and the size of its pixels."""
    return re.split(r"[_\-.]", _PIXELS.sub("", path.stem))[-1].upper()
