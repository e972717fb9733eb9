"""Rasters with a palette, seen in the colours that their indices stand for."""

from xml.sax.saxutils import escape, quoteattr

import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader

_COLOURS = ("Red", "Green", "Blue")


def is_palette(dataset: DatasetReader) -> bool:
    """Whether a raster holds the indices of a palette."""
    return bool(dataset.colorinterp == (ColorInterp.palette,))


def in_colours(dataset: DatasetReader, path: str) -> DatasetReader:
    """A raster with a palette as red, green and blue, in the same place, with the same pixels that have no data.

    Args:
        dataset: The raster.
        path: Its path.
    """
    file = f"<SourceFilename>{escape(path)}</SourceFilename>"
    parts = [f'<VRTDataset rasterXSize="{dataset.width}" rasterYSize="{dataset.height}">']
    points, points_crs = dataset.gcps
    if dataset.crs is not None:
        parts.append(f"<SRS>{escape(dataset.crs.to_wkt())}</SRS>")
    if points:
        parts.append(f"<GCPList Projection={quoteattr(points_crs.to_wkt() if points_crs else '')}>")
        parts += [
            f'<GCP Id="" Pixel="{point.col!r}" Line="{point.row!r}" X="{point.x!r}" Y="{point.y!r}"/>'
            for point in points
        ]
        parts.append("</GCPList>")
    if not dataset.transform.is_identity:
        parts.append(f"<GeoTransform>{', '.join(map(repr, dataset.transform.to_gdal()))}</GeoTransform>")
    coefficients = dataset.tags(ns="RPC")
    if coefficients:
        items = "".join(f"<MDI key={quoteattr(key)}>{escape(value)}</MDI>" for key, value in coefficients.items())
        parts.append(f'<Metadata domain="RPC">{items}</Metadata>')
    parts += [
        f'<VRTRasterBand dataType="Byte" band="{number}"><ColorInterp>{colour}</ColorInterp><ComplexSource>{file}'
        f"<SourceBand>1</SourceBand><ColorTableComponent>{number}</ColorTableComponent></ComplexSource></VRTRasterBand>"
        for number, colour in enumerate(_COLOURS, start=1)
    ]
    if MaskFlags.all_valid not in dataset.mask_flag_enums[0]:
        parts.append(
            f'<MaskBand><VRTRasterBand dataType="Byte"><SimpleSource>{file}<SourceBand>mask,1</SourceBand>'
            "</SimpleSource></VRTRasterBand></MaskBand>"
        )
    return rasterio.open("".join([*parts, "</VRTDataset>"]))
