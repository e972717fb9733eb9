"""Rasters and vector files that name other files: what they may read, and that nobody is asked over the network."""

import http.server
import json
import os
import sqlite3
import threading
import tracemalloc

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT

from bitemporal.cli.main import main
from bitemporal.errors import DataError
from bitemporal.evaluation.rasters import evaluate_raster
from bitemporal.imagery.decode import decode
from bitemporal.imagery.decoded import FileFault
from bitemporal.imagery.opening import open_dataset
from bitemporal.scenes import cut_scene, threshold_scene
from bitemporal.scenes.exclusion import RasterOnGrid
from bitemporal.scenes.geometry import grid_of
from bitemporal.scenes.options import TileOptions
from bitemporal.scenes.sources import gdal_settings, open_source
from bitemporal.scenes.vectors import PolygonsOnGrid
from remedies import follow_tools
from scene_files import LEFT, TOP, UTM, write_raster

SIDE = 64
SECRET = 213
"""Value of the pixels that nothing may read."""


class Server:
    """A server of this machine that notes what it is asked for."""

    def __init__(self):
        asked = self.asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                self.send_error(404)

            do_HEAD = do_GET

            def log_message(self, *words):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.pages = 0

    def address(self):
        """An address that was not asked for before: GDAL remembers answers."""
        self.pages += 1
        return f"http://127.0.0.1:{self.server.server_port}/{id(self)}-{self.pages}.tif"


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.server.shutdown()
    server.server.server_close()


def plain(path, value=7, dtype=np.uint8, **profile):
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_raster(path, np.full((1, SIDE, SIDE), value, dtype), **profile)


def vrt(path, source, attributes='relativeToVRT="0"', more="", kind="", element="SourceFilename", data="Byte"):
    """A VRT that shows a file, on the ground as ``plain`` is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><SRS>{UTM}</SRS>'
        f"<GeoTransform>{LEFT}, 0.5, 0, {TOP}, 0, -0.5</GeoTransform>"
        f'<VRTRasterBand dataType="{data}" band="1"{kind}>{more}<SimpleSource>'
        f"<{element} {attributes}>{source}</{element}><SourceBand>1</SourceBand></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )
    return path


@pytest.fixture
def secret(tmp_path):
    return plain(tmp_path / "elsewhere" / "secret.tif", SECRET)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    return folder


def shown(path, **options):
    with open_dataset(path, **options) as dataset:
        return int(dataset.read(1).max())


def test_a_vrt_reads_files_below_its_own_folder(folder, monkeypatch):
    plain(folder / "a.tif", 5)
    plain(folder / "below" / "b.tif", 6)
    assert shown(vrt(folder / "before.tif", "a.tif", 'relativeToVRT="1"')) == 5
    assert shown(vrt(folder / "b.vrt", "below/b.tif", 'relativeToVRT="1"')) == 6
    assert shown(vrt(folder / "c.vrt", folder / "below" / "b.tif")) == 6
    assert shown(vrt(folder / "nested.png", "b.vrt", 'relativeToVRT="1"')) == 6
    (folder.parent / "link.vrt").symlink_to(folder / "b.vrt")  # GDAL starts from the file itself, and so does the check
    assert shown(folder.parent / "link.vrt") == 6
    monkeypatch.chdir(folder)
    assert shown("before.tif") == 5


def test_vrts_as_gdal_writes_them_are_read(folder):
    path = plain(folder / "a.tif", 5)
    rasterio.shutil.copy(path, folder / "copy.vrt", driver="VRT")
    with rasterio.open(path) as dataset, WarpedVRT(dataset, crs="EPSG:4326") as warped:
        rasterio.shutil.copy(warped, folder / "warped.vrt", driver="VRT")
    for name in ("copy.vrt", "warped.vrt"):
        with open_dataset(folder / name) as dataset, rasterio.open(folder / name) as usual:
            assert dataset.driver == "VRT"
            np.testing.assert_array_equal(dataset.read(), usual.read())


def outside(secret, folder):
    """VRTs that show the secret, by what they do; each is checked to do so where it is allowed."""
    relative = os.path.relpath(secret, folder)
    yield "absolute", vrt(folder / "absolute.tif", secret)
    yield "upwards", vrt(folder / "upwards.png", relative, 'relativeToVRT="1"')
    yield "capitals", vrt(folder / "capitals.vrt", relative, 'RELATIVETOVRT="1"', element="sourcefilename")
    (folder / "link.tif").symlink_to(secret)
    yield "a link", vrt(folder / "links.vrt", "link.tif", 'relativeToVRT="1"')
    (folder / "linked").symlink_to(secret.parent)
    yield "a link to a folder", vrt(folder / "links2.vrt", "linked/secret.tif", 'relativeToVRT="1"')
    yield "nested", vrt(folder / "nested.vrt", "absolute.tif", 'relativeToVRT="1"')
    yield "an upper VRT", vrt(folder / "below" / "up.vrt", "../upper.tif", 'relativeToVRT="1"')
    yield "a comment within a name", vrt(folder / "comment.vrt", f"{secret}<!-- -->/../../{folder.name}/upper.tif")
    twin = f'relativeToVRT="0">{secret}</SourceFilename><SourceFilename '
    yield "a name given twice", vrt(folder / "two.vrt", "upper.tif", twin + 'relativeToVRT="1"')
    yield "an attribute", vrt(folder / "attribute.vrt", "upper.tif", f'relativeToVRT="1" SourceFilename="{secret}"')
    yield "an escape", vrt(folder / "escape.vrt", "".join(f"&#{ord(letter)};" for letter in str(secret)))
    yield "a VRT within a name", vrt(folder / "within.vrt", _escaped(vrt(folder / "x.vrt", secret).read_text()))
    yield "a subdataset", vrt(folder / "prefix.vrt", f"GTIFF_DIR:1:{secret}")
    yield "vrt://", vrt(folder / "scheme.vrt", f"vrt://{secret}?bands=1")
    yield "a mask", vrt(folder / "mask.vrt", secret, more='<UnknownThing what="else"/>')
    rasterio.shutil.copy(secret, folder / "x.vrt", driver="VRT")
    with rasterio.open(secret) as dataset, WarpedVRT(dataset, crs=UTM) as warped:
        rasterio.shutil.copy(warped, folder / "warped.vrt", driver="VRT")
    yield "a warped VRT", folder / "warped.vrt"
    raw = f"<SourceFilename>{secret}</SourceFilename><ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset>"
    (folder / "raw.vrt").write_text(
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><VRTRasterBand dataType="Byte" band="1" '
        f'subClass="VRTRawRasterBand">{raw}<LineOffset>64</LineOffset></VRTRasterBand></VRTDataset>'
    )
    yield "raw bytes", folder / "raw.vrt"
    beside = plain(folder / "beside.tif")
    vrt(folder / "beside.tif.ovr", secret)
    yield "an overview next to it", beside
    masked = plain(folder / "masked.tif")
    vrt(folder / "masked.tif.msk", secret)
    yield "a mask next to it", masked
    yield "a source with an overview next to it", vrt(folder / "over.vrt", "beside.tif", 'relativeToVRT="1"')
    twice = plain(folder / "twice.tif")
    plain(folder / "twice.tif.ovr")
    vrt(folder / "twice.tif.ovr.ovr", secret)
    yield "an overview of an overview", twice
    named = plain(folder / "named.tif")
    (folder / "named.tif.aux.xml").write_text(
        f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="overview_file">{secret}</MDI></Metadata></PAMDataset>'
    )
    yield "metadata next to it", named
    placed = plain(folder / "placed.tif", crs=None)
    with rasterio.open(placed, "r+") as dataset:
        dataset.update_tags(ns="GEOLOCATION", X_DATASET=str(secret), Y_DATASET=str(secret), X_BAND=1, Y_BAND=1)
    yield "places in another file", placed


def _escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;")


def test_nothing_outside_of_the_folder_is_read(secret, folder):
    plain(folder / "upper.tif")
    refused = {}
    for what, path in outside(secret, folder):
        try:
            open_dataset(path).close()
        except DataError as error:
            refused[what] = "allow_vrt=True" in str(error) and str(folder) in str(error)
        else:
            refused[what] = False
    assert all(refused.values()) and len(refused) == 23, [what for what, is_right in refused.items() if not is_right]


def test_who_trusts_a_vrt_follows_a_remedy(secret, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    path = vrt(folder / "a b.tif", secret)
    assert shown(path, allow_vrt=True) == SECRET
    with pytest.raises(DataError) as error:
        open_dataset(path)
    follow_tools(str(error.value))
    assert shown(folder / "a b-pixels.tif") == SECRET


@pytest.mark.parametrize(
    "content",
    [
        '<!DOCTYPE a [<!ENTITY b "{secret}">]><VRTDataset rasterXSize="8" rasterYSize="8">&b;</VRTDataset>',
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand',
        'GIF89a<VRTDataset rasterXSize="8" rasterYSize="8"></VRTDataset>',
        '\ufeff<?xml version="1.0" encoding="utf-16"?><VRTDataset xmlns="a" rasterXSize="8" rasterYSize="8"/>',
        '<VRTDataset rasterXSize="8" rasterYSize="8">' + "<MDI>" * 100_000,
    ],
    ids=["entities", "cut", "polyglot", "namespace", "deep"],
)
def test_xml_that_is_not_plainly_a_vrt_is_refused(content, secret, folder):
    path = folder / "before.tif"
    path.write_text(content.format(secret=secret))
    with pytest.raises(DataError, match=r"before\.tif"):
        open_dataset(path)


def test_a_vrt_that_names_itself_ends(folder):
    path = vrt(folder / "a.vrt", "a.vrt", 'relativeToVRT="1"')
    with pytest.raises((DataError, RasterioError)), open_dataset(path) as dataset:
        dataset.read()


def test_code_in_a_vrt_is_not_run(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("GDAL_VRT_ENABLE_PYTHON", "YES")
    plain(folder / "a.tif")
    more = (
        "<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>"
        f"<PixelFunctionCode>def f(*words, **more): open({str(tmp_path / 'ran')!r}, 'w')</PixelFunctionCode>"
    )
    path = vrt(folder / "b.vrt", "a.tif", 'relativeToVRT="1"', more, ' subClass="VRTDerivedRasterBand"')
    with pytest.raises(DataError, match="pixelfunctionlanguage"):
        open_dataset(path)
    assert not (tmp_path / "ran").exists()


def _service(address):
    return (
        f'<GDAL_WMS><Service name="TMS"><ServerUrl>{address}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service><DataWindow>'
        "<UpperLeftX>0</UpperLeftX><UpperLeftY>10</UpperLeftY><LowerRightX>10</LowerRightX><LowerRightY>0</LowerRightY>"
        "<TileLevel>1</TileLevel><TileCountX>1</TileCountX><TileCountY>1</TileCountY></DataWindow><Projection>EPSG:4326"
        "</Projection><BlockSizeX>64</BlockSizeX><BlockSizeY>64</BlockSizeY><BandsCount>1</BandsCount></GDAL_WMS>"
    )


def _stac(address):
    return json.dumps(
        {
            "stac_version": "1.0.0",
            "type": "FeatureCollection",
            "features": [{"type": "Feature", "assets": {"a": {"href": address}}, "links": []}],
        }
    )


def _wcs(address):
    inside = f"<ServiceURL>{address}?</ServiceURL><Version>1.0.0</Version><CoverageName>a</CoverageName>"
    return f"<WCS_GDAL>{inside}</WCS_GDAL>"


def _wmts(address):
    return f"<GDAL_WMTS><GetCapabilitiesUrl>{address}</GetCapabilitiesUrl><Layer>a</Layer></GDAL_WMTS>"


def _address_in_a_vrt(address):
    return (
        f'<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>/vsicurl/{address}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )


@pytest.mark.parametrize("write", [_service, _stac, _wcs, _wmts, _address_in_a_vrt])
@pytest.mark.parametrize("name", ["before.tif", "before.png", "before.vrt", "before.xml"])
def test_no_server_is_asked_that_a_file_names(write, name, server, folder):
    path = folder / name
    path.write_text(write(server.address()))
    with pytest.raises((DataError, RasterioError)), open_dataset(path) as dataset:
        dataset.read()
    with pytest.raises(DataError, match=name), gdal_settings():
        open_source(path, "before")
    with pytest.raises(DataError, match=name):
        decode(path)
    with pytest.raises(DataError, match="B"):
        decode(vrt(folder / "B.tif", path.name, 'relativeToVRT="1"'))
    nested = vrt(folder / "nested.vrt", name, 'relativeToVRT="1"')
    with pytest.raises(DataError, match="allow_vrt"):
        open_dataset(nested)
    assert server.asked == []


def test_the_server_of_these_tests_would_be_asked(server, folder):
    path = folder / "before.tif"
    path.write_text(_service(server.address()))
    with pytest.raises(RasterioError), rasterio.open(path) as dataset:
        dataset.read()
    assert server.asked
    server.asked.clear()


def test_only_the_file_of_a_typed_address_is_asked_for(folder, monkeypatch):
    plain(folder / "a.tif", 5)
    vrt(folder / "a.tif.ovr", folder.parent / "secret.tif")
    vrt(folder / "b.tif", folder / "a.tif")
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words):
            super().__init__(*words, directory=str(folder))

        def log_message(self, *words):
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as ours:
        threading.Thread(target=ours.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{ours.server_port}"
        with open_dataset(f"{root}/a.tif") as dataset:
            assert dataset.overviews(1) == []
            assert dataset.read(out_shape=(1, 8, 8)).max() == 5
        with pytest.raises(RasterioError):
            open_dataset(f"{root}/b.tif")
        ours.shutdown()
    assert {*asked} == {"/a.tif", "/b.tif"}


def test_an_image_among_pairs_that_names_files_is_a_fault_of_its_own(secret, folder):
    path = write_raster(folder / "a.tif", np.zeros((5, SIDE, SIDE), np.uint16))  # which Pillow does not read
    vrt(folder / "a.tif.ovr", secret)
    with pytest.raises(FileFault, match="next to it is a VRT; expected"):
        decode(path)


@pytest.mark.parametrize(
    ("driver", "ending", "options"),
    [
        ("netCDF", ".nc", {}),
        ("netCDF", ".nc", {"FORMAT": "NC4"}),  # which is HDF5
        ("GPKG", ".gpkg", {}),
    ],
    ids=["netCDF", "HDF5", "GeoPackage"],
)
@pytest.mark.parametrize("name", ["before.tif", None])
def test_formats_that_may_name_other_files_are_read_where_the_user_says_so(driver, ending, options, name, folder):
    with rasterio.Env() as settings:
        if driver not in settings.drivers():
            pytest.skip(f"this GDAL has no {driver}")
    path = folder / f"a{ending}"
    rasterio.shutil.copy(plain(folder / "pixels.tif", 9), path, driver=driver, **options)
    assert path.read_bytes().startswith({"netCDF": b"CDF", "GPKG": b"SQLite"}[driver] if not options else b"\x89HDF")
    path = path.rename(folder / (name or path.name))
    with pytest.raises(RasterioError):
        open_dataset(path).close()
    with gdal_settings(), pytest.raises(DataError, match="--allow-vrt"):
        open_source(path, "before")
    assert shown(path, allow_vrt=True) == 9


def test_a_part_that_the_user_names_is_read(folder):
    plain(folder / "a.tif", 5)
    with gdal_settings():
        assert open_source(f"GTIFF_DIR:1:{folder / 'a.tif'}", "before").grid.width == SIDE
    with pytest.raises(RasterioError):
        open_dataset(f"vrt:{folder / 'a.tif'}")


def _before(path, place):
    with gdal_settings():
        open_source(path, "before")


def _mask(path, place):
    with gdal_settings(), rasterio.open(place) as dataset:
        RasterOnGrid(path, grid_of(dataset, str(place)), "mask").close()


def _tiles(path, place):
    cut_scene(place, path, place.parent / "tiles", options=TileOptions(size=8))


def _label_of_tiles(path, place):
    cut_scene(place, place, place.parent / "tiles", path, TileOptions(size=8))


def _evaluated(path, place):
    evaluate_raster(path, place)


def _label(path, place):
    evaluate_raster(place, path)


def _probability(path, place):
    threshold_scene(path, place.parent / "change.tif")


def _picture(path, place):
    probability = plain(place.parent / "p.tif", 0.5, np.float32)
    threshold_scene(probability, place.parent / "c.tif", before=path, after=place, quicklook=place.parent / "q.png")


@pytest.mark.parametrize("read", [_before, _mask, _tiles, _label_of_tiles, _evaluated, _label, _probability, _picture])
def test_every_reader_of_rasters_refuses(read, secret, folder, tmp_path):
    ours = plain(tmp_path / "ours" / "a.tif", 1)
    before = sorted(tmp_path.rglob("*"))
    path = vrt(folder / "before.tif", secret)
    with pytest.raises(DataError, match=r"before\.tif.*outside"):
        read(path, ours)
    assert {*tmp_path.rglob("*")} - {*before} <= {path, tmp_path / "ours" / "p.tif"}


def test_commands_have_the_option(secret, folder, tmp_path, capsys):
    ours = plain(tmp_path / "ours" / "a.tif", 1)
    path = vrt(folder / "before.tif", secret)
    command = ["data", "tiles", str(path), str(ours), "--size", "32", "--output", str(tmp_path / "tiles")]
    assert main(command) == 1
    assert "--allow-vrt" in capsys.readouterr().err and not (tmp_path / "tiles").exists()
    assert main([*command, "--allow-vrt"]) == 0
    with rasterio.open(next((tmp_path / "tiles" / "A").iterdir())) as tile:
        assert tile.read().max() == SECRET


def _gdal_pipeline(path, secret, server):
    path.write_text(
        json.dumps(
            {"type": "gdal_streamed_alg", "command_line": f"gdal vector convert {secret} --output-format stream"}
        )
    )


def _ogr_vrt(path, secret, server):
    layer = f'<OGRVRTLayer name="a"><SrcDataSource>{secret}</SrcDataSource></OGRVRTLayer>'
    path.write_text(f"<OGRVRTDataSource>{layer}</OGRVRTDataSource>")


def _url(path, secret, server):
    path.write_text(server.address())


def _wfs(path, secret, server):
    path.write_text(f"<OGRWFSDataSource><URL>{server.address()}?SERVICE=WFS</URL></OGRWFSDataSource>")


@pytest.mark.parametrize("write", [_gdal_pipeline, _ogr_vrt, _url, _wfs])
@pytest.mark.parametrize("ending", [".geojson", ".json", ".gpkg", ".shp", ".parquet"])
def test_vector_files_are_what_their_name_says(write, ending, server, tmp_path):
    place = plain(tmp_path / "a.tif")
    polygon = shapely.box(LEFT, TOP - 9, LEFT + 9, TOP)
    secret = tmp_path / "secret.gpkg"
    geopandas.GeoDataFrame(geometry=[polygon], crs=UTM).to_file(secret)
    path = tmp_path / f"within{ending}"
    write(path, secret, server)
    with rasterio.open(place) as dataset:
        grid = grid_of(dataset, str(place))
    with pytest.raises(DataError, match="within"):
        PolygonsOnGrid(path, grid, "within")
    assert server.asked == []


def test_geojson_that_is_far_too_large_is_refused_by_its_size(tmp_path):
    with rasterio.open(plain(tmp_path / "a.tif")) as dataset:
        grid = grid_of(dataset, "a.tif")
    path = tmp_path / "within.geojson"
    with path.open("wb") as stream:
        stream.write(b'{"type": "FeatureCollection", "features": [')
        stream.truncate(2**29)  # takes no space
    tracemalloc.start()
    with pytest.raises(DataError, match=r"within\.geojson: .*larger than .*KiB"):
        PolygonsOnGrid(path, grid, "within")
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE VIEW v AS SELECT fid, geom, OGR_GEOCODE('secret') FROM a",
        "CREATE VIEW v AS SELECT fid, geom, \"gdal_get_pixel_value\"('/x', 1, 'pixel', 0, 0) FROM a",
    ],
)
def test_sql_in_a_geopackage_that_reaches_out_is_refused(sql, tmp_path):
    place = plain(tmp_path / "a.tif")
    path = tmp_path / "within.gpkg"
    geopandas.GeoDataFrame(geometry=[shapely.box(LEFT, TOP - 9, LEFT + 9, TOP)], crs=UTM).to_file(path, layer="a")
    with rasterio.open(place) as dataset:
        grid = grid_of(dataset, str(place))
    assert len(PolygonsOnGrid(path, grid, "within").polygons) == 1
    with sqlite3.connect(path) as database:
        database.execute(sql)
    with pytest.raises(DataError, match=r"within\.gpkg.*'v'"):
        PolygonsOnGrid(path, grid, "within")
