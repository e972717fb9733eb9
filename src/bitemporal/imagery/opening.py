"""Rasters opened through GDAL: what they hold themselves, and files below their own folder, but nothing else.

GDAL follows what a file names: the sources of a VRT, the server in the description of a tile service, an overview that
is written elsewhere. An untrusted raster could thus read any file of this machine into a picture, or contact a server.
Every raster that was not written a moment ago is therefore opened here.
"""

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from bitemporal.errors import DataError
from bitemporal.remedies import as_typed, free_name

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

_KNOWN_BY_FIRST_BYTES = (
    "GTiff", "PNG", "JPEG", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "JPEGXL", "BMP", "WEBP", "GIF", "BIGGIF",
    "HFA", "NITF",
)  # fmt: skip
"""GDAL's names of formats that hold their pixels themselves, and that no other format of GDAL claims."""

_DRIVERS = (
    *_KNOWN_BY_FIRST_BYTES, "AAIGrid", "GRASSASCIIGrid", "GSAG", "GSBG", "GS7BG", "ENVI", "EHdr", "SAGA", "RST", "PNM",
    "SGI", "TGA", "XPM", "XYZ", "SRTMHGT", "DTED", "USGSDEM", "GRIB", "LCP",
)  # fmt: skip
"""Formats whose files hold their pixels themselves.

HDF5 and netCDF do not: their data may lie in any other file. GeoPackage and MBTiles hold SQL, which is run.
"""

_LARGEST_VRT = 64 * 2**20
_HEAD = 64 * 2**10

_NAMES_FILE = ("sourcefilename", "sourcedataset")
"""Elements of a VRT that name a file, in lower case: GDAL does not tell capitals from others."""

_ELEMENTS = frozenset(
    """
    vrtdataset srs geotransform gcplist gcp metadata mdi maskband vrtrasterband overviewlist description unittype offset
    scale categorynames category colorinterp colortable entry gdalrasterattributetable fielddefn name type usage row f
    nodatavalue hidenodatavalue histograms histitem histmin histmax bucketcount includeoutofrange approximate histcounts
    overview simplesource complexsource averagedsource kernelfilteredsource sourcefilename sourceband sourceproperties
    srcrect dstrect scaleoffset scaleratio nodata usemaskband colortablecomponent lut exponent srcmin srcmax dstmin
    dstmax clamp kernel size coefs blockxsize blockysize pixelfunctiontype pixelfunctionarguments sourcetransfertype
    gdalwarpoptions warpmemorylimit resamplealg workingdatatype option sourcedataset transformer genimgprojtransformer
    approxtransformer maxerror basetransformer srcgeotransform srcinvgeotransform dstgeotransform dstinvgeotransform
    reprojecttransformer reprojectiontransformer sourcesrs targetsrs bandlist bandmapping srcnodatareal srcnodataimag
    dstnodatareal dstnodataimag srcalphaband dstalphaband cutline cutlineblenddist options pansharpeningoptions
    algorithm algorithmoptions weights resampling numthreads bitdepth spatialextentadjustment panchroband spectralband
    """.split()
)
"""Elements of a VRT, in lower case, of which none but the two above name files, and none runs code."""

_ATTRIBUTES = frozenset(
    """
    rasterxsize rasterysize subclass datatype band blockxsize blockysize relativetovrt shared xoff yoff xsize ysize key
    domain id info pixel line x y z projection c1 c2 c3 c4 dataaxistosrsaxismapping coordinateepoch name src dst
    normalized resampling resample index tabletype row0min binsize count dstband
    """.split()
)
_CLASSES = (
    "VRTDataset", "VRTWarpedDataset", "VRTPansharpenedDataset", "VRTSourcedRasterBand", "VRTWarpedRasterBand",
    "VRTDerivedRasterBand", "VRTPansharpenedRasterBand",
)  # fmt: skip
_CONNECTION = re.compile(r"[A-Za-z][\w+.-]+:|/vsi|[<{]|\\\\")
"""Beginnings of names that GDAL takes for more than a path: of formats, file systems, XML, JSON, other machines."""

_FOLLOWED = {"OVERVIEWS": "OVERVIEW_FILE", "GEOLOCATION": "X_DATASET"}
"""Metadata in which GDAL follows the name of a file, by their domain."""

_BESIDE = (".ovr", ".msk", ".OVR", ".MSK")
"""Endings of files next to a raster that GDAL opens too, as any format."""


def rasterio_is_installed() -> bool:
    """Whether rasters can be opened; ``rasterio`` is an optional part."""
    return find_spec("rasterio") is not None


def is_address(path: str) -> bool:
    """Whether a path is the address of a file that GDAL reads over a network, or from within another file."""
    return "://" in path or path.startswith("/vsi")


def names_format(path: str) -> bool:
    """Whether a path is no file, and names a format of GDAL and a part of a file, as in ``NETCDF:file.nc:band``."""
    return bool(_CONNECTION.match(path)) and not os.path.lexists(path)


def open_dataset(
    path: str | os.PathLike[str], allow_vrt: bool = False, formats: Sequence[str] = _DRIVERS
) -> "DatasetReader":
    """Open a raster for reading, unless that would read what the user has not named.

    What it is, is seen from its content, whatever its name says. A VRT, and each VRT in it, may read files below its
    own folder, links followed. Formats that name other files in other ways, or servers, are not opened.

    Args:
        path: A file; or an address, or what else GDAL opens, which the user has typed.
        allow_vrt: Let it read whatever it names.
        formats: GDAL's names of the formats of local files, next to VRT.

    Raises:
        DataError: When it names files outside of its folder, or addresses.
        rasterio.errors.RasterioError: When GDAL cannot open it.
    """
    import rasterio

    name = os.fspath(path)
    if allow_vrt:
        return rasterio.open(name)
    if is_address(name):
        # files next to it (.ovr, .msk, .aux.xml) are not asked for: each could be a VRT
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            return _opened(name, _DRIVERS)
    if names_format(name):
        with rasterio.Env() as settings:
            return _opened(name, tuple(settings.drivers().keys() - {"VRT", "GTI"}))
    if not _is_vrt(name):
        return _opened_alone(name, formats)
    state = os.stat(name)
    _check_vrt(name, state.st_mtime_ns, state.st_size)
    return _opened_alone(name, ("VRT",))


def _opened(name: str, drivers: Sequence[str]) -> "DatasetReader":
    """A raster of one of these formats."""
    from rasterio.env import ensure_env_with_credentials
    from rasterio.io import DatasetReader

    # as rasterio.open does, which takes no more than one format
    dataset: DatasetReader = ensure_env_with_credentials(DatasetReader)(name, driver=list(drivers))
    return dataset


def _opened_alone(name: str, drivers: Sequence[str]) -> "DatasetReader":
    """A raster, unless its metadata or files next to it name further files.

    Raises:
        DataError: When they do.
    """
    from rasterio.errors import RasterioError

    for beside in filter(os.path.isfile, (name + ending for ending in _BESIDE)):
        if _is_vrt(beside):
            raise _refusal(name, f"{Path(beside).name} next to it is a VRT")
        try:
            _opened_alone(beside, _KNOWN_BY_FIRST_BYTES).close()
        except RasterioError:
            raise _refusal(name, f"{Path(beside).name} next to it is not an image of a known format") from None
    dataset = _opened(name, drivers)
    for domain, key in _FOLLOWED.items():
        if key in map(str.upper, dataset.tags(ns=domain)):
            dataset.close()
            raise _refusal(name, f"its metadata ({domain}) name another file")
    return dataset


def _refusal(name: str, what: str) -> DataError:
    copy = free_name(Path(name).with_name(f"{Path(name).stem}-pixels.tif"))
    return DataError(
        f"{name}: {what}; expected a raster that reads nothing outside its own folder: if you trust it, "
        f"`rio convert {as_typed(name)} {as_typed(copy)}` writes its pixels into a file of their own, and --allow-vrt "
        "(allow_vrt=True) reads it as it is, where a command has it"
    )


def _is_vrt(name: str) -> bool:
    """Whether GDAL takes a file for a VRT, as it looks for the element's name anywhere in the first bytes."""
    try:
        if not os.path.isfile(name):
            return False
        with open(name, "rb") as stream:
            return b"<VRTDataset" in stream.read(_HEAD).partition(b"\0")[0]
    except OSError:  # opening it will say what is wrong
        return False


@lru_cache(maxsize=256)
def _check_vrt(name: str, changed: int, size: int) -> None:
    """See that a VRT, and all that it names, read files below their own folders alone.

    Args:
        name: The VRT.
        changed: When it was changed; a file that has changed is looked at again.
        size: Its size, likewise.

    Raises:
        DataError: When they do not.
    """
    from rasterio.errors import RasterioError

    waiting, seen = [name], set()
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        if _is_vrt(file):
            waiting += _sources(file)
        else:
            try:
                _opened_alone(file, _KNOWN_BY_FIRST_BYTES).close()
            except RasterioError:
                raise _refusal(name, f"it names {file}, which is not an image of a known format") from None


def _sources(name: str) -> list[str]:
    """The files that a VRT names.

    Raises:
        DataError: When one is outside the VRT's folder, or is not one; or the VRT may name files that are not seen.
    """
    folder = Path(os.path.realpath(name)).parent  # GDAL follows links too before it looks for relative paths
    sources: dict[str, None] = {}
    for element in _elements(name).iter():
        tag = element.tag.lower() if isinstance(element.tag, str) else "a comment"
        strange = sorted({key.lower() for key in element.attrib} - _ATTRIBUTES)
        kind = {key.lower(): value for key, value in element.attrib.items()}.get("subclass", _CLASSES[0])
        if tag not in _ELEMENTS or strange or kind not in _CLASSES:
            raise _refusal(name, f"is a VRT with {strange[0] if strange else tag}{'' if kind in _CLASSES else kind}")
        if tag in _NAMES_FILE:
            sources[_source(element, folder, name)] = None
    return list(sources)


def _source(element: ElementTree.Element, folder: Path, name: str) -> str:
    """The file that an element of a VRT names."""
    text = element.text or ""
    relative = {key.lower(): value for key, value in element.attrib.items()}.get("relativetovrt", "0")
    path = os.path.join(folder, text) if relative == "1" else text
    if (
        len(element)
        or relative not in ("0", "1")
        or not text.isprintable()
        or text != text.strip()
        or "<" in text
        or _CONNECTION.match(text)
        or not os.path.isfile(path)
    ):
        raise _refusal(name, f"is a VRT that names {text!r}, which is not a file below {folder}")
    if not Path(os.path.realpath(path)).is_relative_to(folder):
        raise _refusal(name, f"is a VRT that names {text}, which is outside {folder}")
    return path


def _elements(name: str) -> ElementTree.Element:
    """A VRT as XML, read so strictly that GDAL cannot read it otherwise."""
    try:
        with open(name, "rb") as stream:
            content = stream.read(_LARGEST_VRT + 1)
        if len(content) > _LARGEST_VRT:
            raise ValueError(f"more than {_LARGEST_VRT} bytes")
        text = content.decode("utf-8-sig")
        if "<!DOCTYPE" in text.upper():  # entities may name files, or grow without end
            raise ValueError("it declares a document type")
        parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True, insert_pis=True))
        return ElementTree.fromstring(text, parser)
    except (OSError, ValueError, ElementTree.ParseError, RecursionError) as error:
        raise _refusal(name, f"is a VRT that cannot be read as XML ({error})") from None
