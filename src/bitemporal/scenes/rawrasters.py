"""Raw files as rasters of GDAL's."""

from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from bitemporal.scenes.sources import Grid


def raw_raster(
    file: Path,
    grid: Grid,
    dtype: str,
    nodata: str,
    tags: Mapping[str, str],
    colours: Mapping[int, tuple[int, int, int, int]] | None = None,
) -> str:
    """A raw file beside this text as a raster of GDAL's, with its place, tags and colours."""
    size = {"Byte": 1, "Float32": 4}[dtype]
    lines = [f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}">']
    if grid.crs is not None:
        lines.append(f"<SRS>{escape(grid.crs.to_wkt())}</SRS>")
        place = ", ".join(repr(float(value)) for value in grid.transform.to_gdal())
        lines.append(f"<GeoTransform>{place}</GeoTransform>")
    lines.append("<Metadata>")
    lines += [f"<MDI key={quoteattr(key)}>{escape(value)}</MDI>" for key, value in tags.items()]
    lines.append("</Metadata>")
    lines.append(f'<VRTRasterBand dataType="{dtype}" band="1" subClass="VRTRawRasterBand">')
    lines.append(f"<NoDataValue>{nodata}</NoDataValue>")
    if colours is not None:
        lines.append("<ColorInterp>Palette</ColorInterp><ColorTable>")
        for value in range(256):
            red, green, blue, alpha = colours.get(value, (0, 0, 0, 0))
            lines.append(f'<Entry c1="{red}" c2="{green}" c3="{blue}" c4="{alpha}"/>')
        lines.append("</ColorTable>")
    lines += [
        f'<SourceFilename relativeToVRT="1">{escape(file.name)}</SourceFilename>',
        f"<ImageOffset>0</ImageOffset><PixelOffset>{size}</PixelOffset><LineOffset>{size * grid.width}</LineOffset>",
        "<ByteOrder>LSB</ByteOrder></VRTRasterBand></VRTDataset>",
    ]
    return "\n".join(lines)
