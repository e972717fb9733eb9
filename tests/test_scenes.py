"""Whole scenes: no seams, the right pixels, nodata, files, interruption, inputs that are not what they should be."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.warp import reproject
from rasterio.windows import Window
from rio_cogeo.cogeo import cog_validate

from bitemporal.errors import DataError, OptionError, OutputError
from bitemporal.inference import Ensemble, NetworkDetector, OriginPartition, TestTimeAugmentation
from bitemporal.method.car import CarPartition
from bitemporal.models import create_model
from bitemporal.scenes import (
    Outputs,
    SceneOptions,
    grids,
    journal,
    outputs,
    polygons,
    predict_scene,
    prediction,
    sources,
    values,
)
from bitemporal.scenes.journal import Journal
from bitemporal.scenes.outputs import RED
from bitemporal.scenes.sources import open_source
from bitemporal.scenes.tiling import BLEND, Blend, Tiling, axis
from conftest import SHARED
from scene_files import LEFT, TOP, UTM, ground, read, write_raster
from stub_networks import BRIGHTER, Passes, convolutional, pointwise, register_stubs

pytestmark = pytest.mark.usefixtures("stubs")


@pytest.fixture
def pair(tmp_path):
    """Two dates of one grid, of which a rectangle and a frame with a hole brighten by 60."""
    before = ground(0, 300, 420)
    after = before.copy()
    changed = np.zeros(before.shape[1:], bool)
    changed[40:80, 100:180] = True
    changed[150:230, 250:350] = True
    changed[180:200, 280:310] = False
    after[:, changed] += 35
    return write_raster(tmp_path / "before.tif", before), write_raster(tmp_path / "after.tif", after), changed


def whole_image(model, before, after):
    """The network's probability for whole images C x H x W, by itself."""
    mean, std = (np.array(v)[:, None, None] for v in (model.card.normalisation.mean, model.card.normalisation.std))
    height, width = model.padded_size(*before.shape[-2:])
    dates = []
    for image in (before, after):
        padded = np.zeros((3, height, width))
        padded[:, : image.shape[1], : image.shape[2]] = (image - mean) / std
        dates.append(torch.from_numpy(padded).float()[None])
    with torch.no_grad():
        found = model.probability(model(*dates))[0, 0].numpy()
    return found[: before.shape[1], : before.shape[2]]


# --- tiles


@given(
    length=st.integers(1, 3000),
    tile=st.integers(128, 600),
    overlap=st.integers(0, 40),
    multiple=st.sampled_from([1, 4, 8]),
)
def test_weights_of_all_tiles_add_up_to_one_at_every_pixel(length, tile, overlap, multiple):
    tiles = axis(length, tile, overlap, multiple)
    total = np.zeros(length)
    for index in range(tiles.count):
        low, high = tiles.answered(index)
        total[low:high] += tiles.weights(index)
        # what is answered is at least half the overlap away from the tile's own edge, unless that is the scene's
        assert low == 0 or low - tiles.start(index) >= overlap / 2
        assert high == length or tiles.start(index) + tiles.tile - high >= overlap / 2
    assert np.allclose(total, 1.0, atol=1e-6)
    assert tiles.tile <= tile
    assert tiles.tile % multiple == tiles.start(0) % multiple == tiles.core % multiple == 0


@pytest.mark.parametrize("shape", [(500, 300), (300, 500), (20, 700), (1, 1)])
def test_strips_of_either_direction_put_tiles_where_they_belong(shape):
    tiling = Tiling(*(axis(side, 96, 16, 8) for side in shape))
    truth = np.random.default_rng(0).random(shape).astype(np.float32)
    found = np.full(shape, np.nan, np.float32)
    blend = Blend(tiling)
    for strip in range(tiling.across.count):
        for index, (row, column) in enumerate(tiling.tiles(strip)):
            y, x = tiling.rows.start(row), tiling.columns.start(column)
            tile = np.zeros((tiling.rows.tile, tiling.columns.tile), np.float32)
            inside = truth[max(y, 0) : y + tiling.rows.tile, max(x, 0) : x + tiling.columns.tile]
            tile[max(-y, 0) :, max(-x, 0) :][: inside.shape[0], : inside.shape[1]] = inside
            blend.add(index, tile)
        start, done = blend.finish()
        if tiling.strips_are_rows:
            found[start : start + len(done)] = done
        else:
            found[:, start : start + len(done)] = done.T
    assert np.allclose(found, truth, atol=1e-6)


@pytest.mark.parametrize("tile", [64, 104, 512])
@pytest.mark.parametrize("transposed", [False, True])
def test_tiles_leave_no_seam(tile, transposed, tmp_path):
    """Against the whole image at once; the stub sees 19 pixels, and the image's own edge is padded differently."""
    before, after = (ground(seed, 230, 410) for seed in (1, 2))
    if transposed:
        before, after = (date.transpose(0, 2, 1).copy() for date in (before, after))
    model = convolutional(0)
    files = [write_raster(tmp_path / f"{name}.tif", date) for name, date in (("b", before), ("a", after))]
    predict_scene(
        NetworkDetector(model), *files, tmp_path / "c.tif", probability=tmp_path / "p.tif", tile=tile, overlap=20
    )
    found, expected = read(tmp_path / "p.tif"), whole_image(model, before, after)
    inner = (slice(12, -12), slice(12, -12))
    assert expected[inner].std() > 0.05
    assert np.abs(found - expected)[inner].max() < 1e-5
    assert np.array_equal(read(tmp_path / "c.tif"), (found > 0.5).astype(np.uint8))


def test_a_tile_too_small_for_its_overlap_is_refused(pair, tmp_path):
    with pytest.raises(OptionError, match=r"tile: is 64, too small for an overlap of 64 .* expected at least 96"):
        predict_scene(NetworkDetector(pointwise()), *pair[:2], tmp_path / "c.tif", tile=64, overlap=64)


@given(length=st.integers(1, 400), tile=st.integers(32, 64), multiple=st.sampled_from([1, 4, 8]))
def test_weights_of_the_smallest_tiles_add_up_to_one_too(length, tile, multiple):
    tiles = axis(length, tile, 0, multiple)
    total = np.zeros(length)
    for index in range(tiles.count):
        low, high = tiles.answered(index)
        total[low:high] += tiles.weights(index)
    assert np.allclose(total, 1.0, atol=1e-6)


@pytest.mark.parametrize("tile", [64, 104])
def test_what_lies_outside_a_scene_is_its_mirror_image(tile, tmp_path):
    before, after = (ground(seed, 230, 410) for seed in (1, 2))
    model = convolutional(0)
    files = [write_raster(tmp_path / f"{name}.tif", date) for name, date in (("b", before), ("a", after))]
    predict_scene(
        NetworkDetector(model), *files, tmp_path / "c.tif", probability=tmp_path / "p.tif", tile=tile, overlap=20
    )
    around = ((0, 0), (24, 24), (24, 24))
    expected = whole_image(model, *(np.pad(date, around, mode="reflect") for date in (before, after)))
    assert np.abs(read(tmp_path / "p.tif") - expected[24:-24, 24:-24]).max() < 1e-5


# --- what is written


def test_all_products_of_a_scene(pair, tmp_path):
    before, after, changed = pair
    names = {"probability": "p.tif", "polygons": "areas.gpkg", "quicklook": "q.png", "summary": "s.json"}
    files = {name: tmp_path / "out" / file for name, file in names.items()}
    detector = NetworkDetector(pointwise(**BRIGHTER))
    result = predict_scene(detector, before, after, tmp_path / "out" / "change.tif", tile=128, overlap=32, **files)
    with rasterio.open(tmp_path / "out" / "change.tif") as source:
        mask = source.read(1)
        assert (source.crs, source.transform, source.nodata) == (UTM, from_origin(LEFT, TOP, 0.5, 0.5), 255)
        assert source.colormap(1)[1] == (227, 26, 28, 255)
        tags = source.tags()
    assert np.array_equal(mask, changed.astype(np.uint8))
    assert json.loads(tags["DETECTOR"])["model"] == "stub_pointwise"
    assert json.loads(tags["VALUE_RANGE"]) == [[0, 255]] * 3
    assert tags["BEFORE"] == "before.tif:1, before.tif:2, before.tif:3"
    assert (tags["THRESHOLD"], tags["GRID"]) == ("0.5", "before")
    for name, kind in (("change.tif", "paletted"), ("p.tif", "singlebandpseudocolor")):
        assert cog_validate(tmp_path / "out" / name, strict=True, quiet=True)[0]
        style = (tmp_path / "out" / name).with_suffix(".qml").read_text()
        assert style.startswith("<!DOCTYPE qgis")
        assert f'<rasterrenderer type="{kind}"' in style
    with rasterio.open(files["probability"]) as source:
        assert np.isnan(source.nodata)
    assert read(files["probability"])[60, 140] == pytest.approx(1 / (1 + np.exp(-15)), abs=1e-5)
    table = geopandas.read_file(files["polygons"])
    assert table.crs == UTM
    assert sorted(table.area_m2) == pytest.approx([40 * 80 / 4, (80 * 100 - 20 * 30) / 4])
    assert list(table.area_m2) == pytest.approx(list(table.geometry.area))
    assert sorted(len(polygon.interiors) for polygon in table.geometry) == [0, 1]
    assert list(table.mean_probability) == pytest.approx([1.0, 1.0], abs=1e-4)
    assert sorted(table.pixels) == [40 * 80, 80 * 100 - 20 * 30]
    summary = json.loads(files["summary"].read_text())
    assert summary["car"] == result.car == changed.mean()
    assert summary["changed_hectares"] == pytest.approx(changed.sum() * 0.25 / 1e4)
    assert summary["valid_hectares"] == pytest.approx(300 * 420 * 0.25 / 1e4)
    assert summary["polygons"] == 2
    assert result.tiles == summary["tiles"] == 4 * 6
    assert not list((tmp_path / "out").glob(".*"))


def test_the_styles_show_change_in_the_same_red_as_the_rasters():
    folder = Path(outputs.__file__).parent / "qgis"
    for kind in ("mask", "probability"):
        assert "#{:02x}{:02x}{:02x}".format(*RED) in (folder / f"{kind}.qml").read_text()
    assert '"{},{},{},255"'.format(*RED) in (folder / "polygons.qml").read_text()


def test_the_quick_look_shows_both_dates_and_small_changes_in_red(tmp_path):
    from PIL import Image

    before = ground(3, 2100, 1500)
    after = before.copy()
    after[:, 1000:1002, 700:702] += 35
    files = [write_raster(tmp_path / f"{n}.tif", date) for n, date in (("b", before), ("a", after))]
    predict_scene(NetworkDetector(pointwise(**BRIGHTER)), *files, tmp_path / "c.tif", quicklook=tmp_path / "q.png")
    picture = np.array(Image.open(tmp_path / "q.png")).astype(int)
    height, width = 1024, round(1500 * 1024 / 2100)
    assert picture.shape == (height, 3 * width + 16, 3)
    rows, columns = (((np.arange(n) + 0.5) * full / n).astype(int) for n, full in ((height, 2100), (width, 1500)))
    for i, date in enumerate((before, after)):
        shown = picture[:, i * (width + 8) :][:, :width].transpose(2, 0, 1)
        assert np.abs(shown - date[:, rows][:, :, columns]).mean() < 3
    red = (picture == (227, 26, 28)).all(axis=2)
    assert red[:, : 2 * width + 16].sum() == 0
    assert 1 <= red.sum() <= 9


@pytest.mark.parametrize("ending", [".gpkg", ".parquet", ".geojson"])
def test_polygons_of_longitude_and_latitude_have_geodesic_areas(ending, tmp_path):
    before = np.full((3, 60, 80), 50, np.uint8)
    after = before.copy()
    after[:, 10:30, 20:60] = 200
    place = {"crs": "EPSG:4326", "pixel": 1e-4, "left": 2.3, "top": 48.9}
    files = [write_raster(tmp_path / f"{n}.tif", date, **place) for n, date in (("b", before), ("a", after))]
    path = tmp_path / f"areas{ending}"
    result = predict_scene(NetworkDetector(pointwise(**BRIGHTER)), *files, tmp_path / "c.tif", polygons=path)
    table = geopandas.read_parquet(path) if ending == ".parquet" else geopandas.read_file(path)
    (polygon,) = table.geometry
    assert polygon.bounds == pytest.approx((2.302, 48.897, 2.306, 48.899))
    expected = abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(polygon)[0])
    assert expected == pytest.approx(4e-3 * 111_195 * np.cos(np.radians(48.898)) * 2e-3 * 111_195, rel=0.01)
    assert table.area_m2[0] == pytest.approx(expected, rel=1e-6)
    assert result.changed_hectares == pytest.approx(expected / 1e4, rel=1e-5)
    style = path.with_suffix(".qml")
    assert style.exists() == (ending != ".gpkg")
    if ending == ".gpkg":
        assert "fill" in geopandas.read_file(path, layer="layer_styles").styleQML[0]


def test_areas_in_web_mercator_are_those_on_the_ground(tmp_path):
    before = np.full((3, 40, 40), 50, np.uint8)
    place = {"crs": "EPSG:3857", "pixel": 1.0, "left": 256000.0, "top": 6250000.0}
    files = [write_raster(tmp_path / f"{n}.tif", d, **place) for n, d in (("b", before), ("a", before + 100))]
    result = predict_scene(NetworkDetector(pointwise(**BRIGHTER)), *files, tmp_path / "c.tif")
    latitude = pyproj.Transformer.from_crs(3857, 4326, always_xy=True).transform(256020, 6249980)[1]
    assert result.changed_hectares == pytest.approx(0.16 * np.cos(np.radians(latitude)) ** 2, rel=0.01)


def test_small_polygons_are_left_out_and_smooth_ones_stay_near(pair, tmp_path):
    before, after, _ = pair
    detector = NetworkDetector(pointwise(**BRIGHTER))
    few = predict_scene(detector, before, after, tmp_path / "c.tif", polygons=tmp_path / "a.gpkg", minimum_area=1000)
    assert few.polygons == 1
    assert geopandas.read_file(tmp_path / "a.gpkg").area_m2[0] == pytest.approx(1850)
    predict_scene(detector, before, after, tmp_path / "c.tif", polygons=tmp_path / "b.gpkg", smooth=True)
    smooth = geopandas.read_file(tmp_path / "b.gpkg").sort_values("area_m2")
    assert smooth.is_valid.all()
    assert list(smooth.area_m2) == pytest.approx([800, 1850])  # of the pixels
    assert list(smooth.geometry.area) == pytest.approx([800, 1850], rel=0.03)
    assert [len(polygon.interiors) for polygon in smooth.geometry] == [0, 1]


def test_no_change_is_an_empty_layer(pair, tmp_path):
    before, _, _ = pair
    result = predict_scene(
        NetworkDetector(pointwise(**BRIGHTER)), before, before, tmp_path / "c.tif", polygons=tmp_path / "a.gpkg"
    )
    table = geopandas.read_file(tmp_path / "a.gpkg")
    assert (result.polygons, result.car, len(table)) == (0, 0.0, 0)
    assert {"id", "area_m2", "pixels", "mean_probability"} <= set(table.columns)


def test_the_same_images_give_the_same_bytes(pair, tmp_path):
    digests = []
    for folder in ("one", "two"):
        out = tmp_path / folder
        files = {"probability": out / "p.tif", "polygons": out / "a.gpkg", "quicklook": out / "q.png"}
        predict_scene(NetworkDetector(convolutional(0)), *pair[:2], out / "c.tif", tile=96, overlap=16, **files)
        digests.append({path.name: hashlib.sha256(path.read_bytes()).digest() for path in sorted(out.iterdir())})
        time.sleep(1.1)
    assert digests[0] == digests[1]
    assert len(digests[0]) == 6


def test_small_polygons_of_images_without_a_place_are_left_out_by_pixels(pair, tmp_path):
    files = [write_raster(tmp_path / f"{p.stem}_bare.tif", read_all(p), crs=None) for p in pair[:2]]
    options = {"polygons": tmp_path / "a.gpkg", "minimum_area": 40 * 80 + 1}
    result = predict_scene(NetworkDetector(pointwise(**BRIGHTER)), *files, tmp_path / "c.tif", **options)
    assert result.polygons == 1
    assert list(geopandas.read_file(tmp_path / "a.gpkg", layer="a").pixels) == [80 * 100 - 20 * 30]


def test_polygons_are_the_parts_that_hang_together_by_sides_with_the_means_of_their_pixels(tmp_path, monkeypatch):
    """Against SciPy's labels; GDAL and the probabilities are read a few rows at a time."""
    from scipy import ndimage

    monkeypatch.setattr(polygons, "_PIXELS_AT_ONCE", 7 * 150)
    noise = np.random.default_rng(0).integers(100, 140, (2, 1, 90, 150), dtype=np.uint8).repeat(3, axis=1)
    noise[0, :, 20:50, 40:60] = 0
    files = [write_raster(tmp_path / f"{n}.tif", date, nodata=0) for n, date in zip("ba", noise, strict=True)]
    out = {"probability": tmp_path / "p.tif", "polygons": tmp_path / "a.gpkg"}
    predict_scene(NetworkDetector(pointwise(scale=0.1, bias=0.0)), *files, tmp_path / "c.tif", **out)
    mask, probability = read(tmp_path / "c.tif") == 1, read(tmp_path / "p.tif")
    labels, count = ndimage.label(mask)
    table = geopandas.read_file(tmp_path / "a.gpkg", layer="a")
    assert len(table) == count > 500
    inside = table.geometry.representative_point()
    places = [(int((TOP - point.y) / 0.5), int((point.x - LEFT) / 0.5)) for point in inside]
    numbers = np.array([labels[place] for place in places])
    assert sorted(numbers) == list(range(1, count + 1))
    assert list(table.pixels) == list(ndimage.sum(mask, labels, numbers))
    assert np.allclose(table.mean_probability, ndimage.mean(probability, labels, numbers), atol=1e-6)


def test_geojson_is_longitude_and_latitude_whatever_the_scene(pair, tmp_path):
    for ending in (".gpkg", ".geojson"):
        path = tmp_path / f"areas{ending}"
        predict_scene(NetworkDetector(pointwise(**BRIGHTER)), *pair[:2], tmp_path / "c.tif", polygons=path)
    places = json.loads((tmp_path / "areas.geojson").read_text())["features"]
    shapes = geopandas.read_file(tmp_path / "areas.gpkg", layer="areas")
    transformer = pyproj.Transformer.from_crs(UTM, 4326, always_xy=True)
    for place, polygon in zip(places, shapes.geometry, strict=True):
        found = {tuple(np.round(point, 5)) for point in place["geometry"]["coordinates"][0]}
        assert found == {tuple(np.round(transformer.transform(*p), 5)) for p in polygon.exterior.coords}


def test_areas_of_a_scene_of_many_latitudes_are_those_on_the_ellipsoid(tmp_path):
    """Against an equal-area projection; the polygon has a hole."""
    before = np.full((3, 120, 40), 50, np.uint8)
    after = before + 100
    after[:, 30:60, 10:30] = 50
    place = {"crs": "EPSG:4326", "pixel": 0.1, "left": 10.0, "top": 70.0}
    files = [write_raster(tmp_path / f"{n}.tif", date, **place) for n, date in (("b", before), ("a", after))]
    out = {"summary": tmp_path / "s.json", "polygons": tmp_path / "a.gpkg"}
    result = predict_scene(NetworkDetector(pointwise(**BRIGHTER)), *files, tmp_path / "c.tif", **out)
    project = pyproj.Transformer.from_crs(4326, 6933, always_xy=True).transform

    def hectares(left, bottom, right, top):
        (x0, y0), (x1, y1) = project(left, bottom), project(right, top)
        return (x1 - x0) * (y1 - y0) / 1e4

    whole, hole = hectares(10, 58, 14, 70), hectares(11, 64, 13, 67)
    assert json.loads((tmp_path / "s.json").read_text())["valid_hectares"] == pytest.approx(whole, rel=1e-4)
    assert result.changed_hectares == pytest.approx(whole - hole, rel=1e-4)
    (area,) = geopandas.read_file(tmp_path / "a.gpkg", layer="a").area_m2
    assert area / 1e4 == pytest.approx(whole - hole, rel=2e-3)  # its edges are the shortest ways, not the parallels


def test_areas_of_a_crs_in_feet_are_square_metres(tmp_path):
    before = np.full((3, 40, 40), 50, np.uint8)
    place = {"crs": "EPSG:2263", "pixel": 2.0, "left": 980000.0, "top": 200000.0}
    files = [write_raster(tmp_path / f"{n}.tif", d, **place) for n, d in (("b", before), ("a", before + 100))]
    result = predict_scene(
        NetworkDetector(pointwise(**BRIGHTER)), *files, tmp_path / "c.tif", polygons=tmp_path / "a.gpkg"
    )
    expected = (80 * 1200 / 3937) ** 2
    assert result.changed_hectares == pytest.approx(expected / 1e4)
    assert list(geopandas.read_file(tmp_path / "a.gpkg", layer="a").area_m2) == pytest.approx([expected])


def test_a_pixel_is_changed_where_its_probability_exceeds_the_threshold(pair, tmp_path):
    result = predict_scene(
        NetworkDetector(convolutional(0)), *pair[:2], tmp_path / "c.tif", probability=tmp_path / "p.tif", threshold=0.3
    )
    probability = read(tmp_path / "p.tif")
    assert ((probability > 0.3) & (probability < 0.5)).any()
    assert np.array_equal(read(tmp_path / "c.tif"), probability > 0.3)
    assert result.car == (probability > 0.3).mean()
    with rasterio.open(tmp_path / "c.tif") as source:
        assert source.tags()["THRESHOLD"] == "0.3"


def test_names_that_are_no_xml_are_kept_in_the_tags(pair, tmp_path):
    folder = tmp_path / 'a & b <"1">'
    folder.mkdir()
    first = (tmp_path / "before.tif").rename(folder / "x & <y>.tif")
    predict_scene(NetworkDetector(pointwise(**BRIGHTER)), first, pair[1], folder / "c & d.tif")
    with rasterio.open(folder / "c & d.tif") as source:
        assert source.tags()["BEFORE"].startswith("x & <y>.tif:1, ")
        assert source.tags()["AFTER"] == "after.tif:1, after.tif:2, after.tif:3"
        assert np.array_equal(source.read(1), pair[2])


def test_the_quick_look_is_white_where_there_is_no_data(tmp_path):
    from PIL import Image

    before = ground(3, 100, 120)
    before[:, :30] = 0
    files = [write_raster(tmp_path / f"{n}.tif", before, nodata=0) for n in ("b", "a")]
    predict_scene(NetworkDetector(pointwise(**BRIGHTER)), *files, tmp_path / "c.tif", quicklook=tmp_path / "q.png")
    picture = np.array(Image.open(tmp_path / "q.png"))
    for panel in (picture[:, :120], picture[:, 128:248]):
        assert (panel[:30] == 255).all()
        assert (panel[30:] < 255).any(axis=2).all()
    assert not (picture == (227, 26, 28)).all(axis=2).any()


# --- grids


def test_date_2_is_brought_to_the_pixels_of_date_1(tmp_path):
    """Another CRS, pixel size and extent; against GDAL's warp of the whole image."""
    before = ground(5, 200, 260)
    fine = ground(6, 900, 900)
    left, bottom, right, top = rasterio.warp.transform_bounds(UTM, "EPSG:4326", LEFT, TOP - 100, LEFT + 130, TOP)
    pixel = max(right - left, top - bottom) / 700
    first = write_raster(tmp_path / "b.tif", before)
    second = write_raster(
        tmp_path / "a.tif", fine, crs="EPSG:4326", pixel=pixel, left=left - 50 * pixel, top=top + 60 * pixel
    )
    warped = np.zeros_like(before)
    with rasterio.open(second) as source:
        reproject(
            rasterio.band(source, (1, 2, 3)), warped, dst_crs=UTM, dst_transform=from_origin(LEFT, TOP, 0.5, 0.5),
            resampling=Resampling.bilinear,
        )  # fmt: skip
    model = convolutional(0)
    predict_scene(
        NetworkDetector(model), first, second, tmp_path / "c.tif", probability=tmp_path / "p.tif", tile=96, overlap=24
    )
    inner = (slice(12, -12), slice(12, -12))
    difference = np.abs(read(tmp_path / "p.tif") - whole_image(model, before, warped))[inner]
    assert (warped != 0).all()
    assert difference.max() < 0.03  # GDAL approximates the transformation differently for windows
    assert difference.mean() < 1e-3


def shifted(tmp_path):
    """Date 2 covers date 1's pixels from row 20 and column 30 on, and reaches 40 and 50 pixels further."""
    scene = ground(7, 240, 250)
    before, after = scene[:, :200, :200], scene[:, 20:, 30:]
    first = write_raster(tmp_path / "b.tif", before)
    second = write_raster(tmp_path / "a.tif", after, left=LEFT + 15, top=TOP - 10)
    return first, second


@pytest.mark.parametrize(
    ("grid", "shape", "corner"),
    [
        ("before", (200, 200), (LEFT, TOP)),
        ("intersection", (180, 170), (LEFT + 15, TOP - 10)),
        ("union", (240, 250), (LEFT, TOP)),
    ],
)
def test_the_grid_is_what_was_asked_for(grid, shape, corner, tmp_path):
    first, second = shifted(tmp_path)
    detector = NetworkDetector(pointwise(**BRIGHTER))
    result = predict_scene(detector, first, second, tmp_path / "c.tif", grid=grid, tile=64, overlap=0)
    with rasterio.open(tmp_path / "c.tif") as source:
        mask = source.read(1)
        assert source.shape == shape
        assert (source.transform.c, source.transform.f) == corner
    both = np.zeros((240, 250), bool)
    both[20:200, 30:200] = True
    top, left = round((TOP - corner[1]) / 0.5), round((corner[0] - LEFT) / 0.5)
    both = both[top : top + shape[0], left : left + shape[1]]
    assert np.array_equal(mask, np.where(both, 0, 255))
    assert result.valid_pixels == 180 * 170
    assert result.car == 0.0


def test_images_without_a_place_are_compared_pixel_by_pixel(pair, tmp_path):
    changed = pair[2]
    files = [write_raster(tmp_path / f"{p.stem}_bare.tif", read_all(p), crs=None) for p in pair[:2]]
    result = predict_scene(
        NetworkDetector(pointwise(**BRIGHTER)), *files, tmp_path / "c.tif", polygons=tmp_path / "a.gpkg"
    )
    assert np.array_equal(read(tmp_path / "c.tif"), changed)
    assert result.changed_hectares is None
    with rasterio.open(tmp_path / "c.tif") as source:
        assert source.crs is None
    assert geopandas.read_file(tmp_path / "a.gpkg").area_m2.isna().all()


def read_all(path):
    with rasterio.open(path) as source:
        return source.read()


@pytest.mark.parametrize("place", [{}, {"crs": None}])
@pytest.mark.parametrize("shift", [(3.0, -2.0), (0.5, 1.25), (-17.0, 40.0)])
def test_a_shift_is_found_and_undone(shift, place, tmp_path):
    from scipy.ndimage import shift as moved

    columns, rows = shift
    scene = ground(8, 700, 800).astype(np.float32)
    before = scene[:, 80:-80, 80:-80]
    after = np.stack([moved(band, (rows, columns), order=3) for band in scene])[:, 80:-80, 80:-80]
    files = [
        write_raster(tmp_path / f"{n}.tif", np.clip(np.rint(date), 0, 255).astype(np.uint8), **place)
        for n, date in (("b", before), ("a", after))
    ]
    detector = NetworkDetector(pointwise(scale=1.0, bias=-6.0))
    crooked = predict_scene(detector, *files, tmp_path / "x.tif")
    result = predict_scene(detector, *files, tmp_path / "c.tif", register=True)
    assert result.shift == pytest.approx(shift, abs=0.15)
    assert result.car < 0.002 < 0.05 < crooked.car
    with rasterio.open(tmp_path / "c.tif") as source:
        assert source.tags()["SHIFT"] == f"{result.shift.columns:+.2f} columns, {result.shift.rows:+.2f} rows"


@pytest.mark.parametrize("side", [200, 400, 1600])
def test_what_cannot_be_registered_is_an_error(side, tmp_path):
    files = [write_raster(tmp_path / f"{seed}.tif", ground(seed, side, side)) for seed in (1, 2)]
    with pytest.raises(DataError, match="cannot be registered by one shift"):
        predict_scene(NetworkDetector(pointwise()), *files, tmp_path / "c.tif", register=True)


def test_a_shift_is_undone_between_crs_that_are_turned_against_each_other(tmp_path):
    """Date 2 in polar stereographic, whose axes lie across those of UTM there."""
    scene = ground(9, 900, 900).astype(np.float64)
    columns, rows = 6, -4
    before = scene[:, 100:800, 100:800].astype(np.uint8)
    true = from_origin(500000, 4500000, 0.5, 0.5)
    first = write_raster(tmp_path / "b.tif", before, crs="EPSG:32618", left=500000, top=4500000)
    # what date 1 shows at a pixel, date 2 shows 6 columns to the right and 4 rows up
    moved = true @ rasterio.Affine.translation(columns - 100, rows - 100)
    transform, width, height = rasterio.warp.calculate_default_transform(
        "EPSG:32618", "EPSG:3413", 900, 900, *rasterio.transform.array_bounds(900, 900, moved), resolution=0.25
    )
    polar = np.zeros((3, height, width), np.uint8)
    reproject(
        scene.astype(np.uint8), polar, src_crs="EPSG:32618", src_transform=moved, dst_crs="EPSG:3413",
        dst_transform=transform, resampling=Resampling.cubic,
    )  # fmt: skip
    second = write_raster(tmp_path / "a.tif", polar, crs="EPSG:3413", transform=transform, nodata=0)
    detector = NetworkDetector(pointwise(scale=1.0, bias=-12.0))
    crooked = predict_scene(detector, first, second, tmp_path / "x.tif")
    result = predict_scene(detector, first, second, tmp_path / "c.tif", register=True)
    assert result.shift == pytest.approx((columns, rows), abs=0.3)
    assert result.car < 0.01 < 0.1 < crooked.car


def test_date_2_may_cover_a_part_only_and_be_registered(tmp_path):
    scene = ground(10, 700, 700)
    first = write_raster(tmp_path / "b.tif", scene)
    second = write_raster(tmp_path / "a.tif", scene[:, 203:603, 195:595], left=LEFT + 100, top=TOP - 100)
    result = predict_scene(NetworkDetector(pointwise()), first, second, tmp_path / "c.tif", register=True)
    assert result.shift == pytest.approx((5, -3), abs=0.15)


@pytest.mark.parametrize(("grid", "first", "width"), [("before", 0, 30), ("intersection", 11, 19), ("union", 0, 36)])
def test_dates_that_are_a_fraction_of_a_pixel_apart_are_resampled(grid, first, width, tmp_path):
    """A slope, of which date 2 shows the columns from 10.25 to 35.25: intersections lie within both, unions around."""
    before = np.broadcast_to(4 * np.arange(30), (3, 20, 30)).astype(np.uint8)
    after = np.broadcast_to(41 + 4 * np.arange(25), (3, 20, 25)).astype(np.uint8)
    files = [
        write_raster(tmp_path / "b.tif", before), write_raster(tmp_path / "a.tif", after, left=LEFT + 10.25 * 0.5)
    ]  # fmt: skip
    detector = NetworkDetector(pointwise(scale=1.0, bias=0.0))
    predict_scene(detector, *files, tmp_path / "c.tif", probability=tmp_path / "p.tif", grid=grid)
    with rasterio.open(tmp_path / "p.tif") as source:
        assert (source.transform.c, source.width) == (LEFT + first * 0.5, width)
        found = source.read(1)
    assert np.isnan(found[:, : max(10 - first, 0)]).all()
    assert found[:, 11 - first : 30 - first] == pytest.approx(0.5, abs=1e-4)
    assert np.isnan(found[:, 30 - first :]).all()


# --- bands and values


def test_bands_are_chosen_repeated_or_files_of_their_own(pair, tmp_path):
    before, after, changed = pair
    detector = NetworkDetector(pointwise(**BRIGHTER))
    infrared = np.random.default_rng(0).integers(0, 255, (1, *changed.shape), dtype=np.uint8)
    four = [
        write_raster(tmp_path / f"4_{p.name}", np.concatenate((infrared, read_all(p))), photometric="MINISBLACK")
        for p in (before, after)
    ]
    with pytest.raises(OptionError, match=r"bands: .*4_before.tif has 4, and the network takes 3"):
        predict_scene(detector, *four, tmp_path / "c.tif")
    predict_scene(detector, *four, tmp_path / "c.tif", bands=(4, 2, 3))
    assert np.array_equal(read(tmp_path / "c.tif"), changed)
    single = [
        [write_raster(tmp_path / f"{i}_{p.name}", read_all(p)[i : i + 1]) for i in (2, 1, 0)] for p in (before, after)
    ]
    predict_scene(detector, *single, tmp_path / "d.tif")
    assert np.array_equal(read(tmp_path / "d.tif"), changed)
    predict_scene(detector, single[0][0], single[1][0], tmp_path / "e.tif")
    assert np.array_equal(read(tmp_path / "e.tif"), changed)


def test_one_range_serves_both_dates(pair, tmp_path):
    """Reflectances of 16 bits, with a nodata value and outliers, by percentiles and as given."""
    before, after, changed = (
        read_all(pair[0]).astype(np.uint16) * 40 + 7,
        read_all(pair[1]).astype(np.uint16) * 40 + 7,
        pair[2],
    )
    before[:, 0, :50] = 60000
    files = [write_raster(tmp_path / f"{n}.tif", date) for n, date in (("b16", before), ("a16", after))]
    detector = NetworkDetector(pointwise(**BRIGHTER))
    predict_scene(detector, *files, tmp_path / "c.tif", image_range=(7, 7 + 255 * 40), tile=128, overlap=32)
    assert np.array_equal(read(tmp_path / "c.tif"), changed)
    predict_scene(detector, *files, tmp_path / "d.tif", tile=128, overlap=32)
    with rasterio.open(tmp_path / "d.tif") as source:
        ranges = json.loads(source.tags()["VALUE_RANGE"])
    values = np.concatenate((before.reshape(3, -1), after.reshape(3, -1)), axis=1)
    assert np.allclose(ranges, np.percentile(values, (1, 99), axis=1).T)
    assert (read(tmp_path / "d.tif") == changed).mean() > 0.999


def test_the_range_of_a_large_scene_is_taken_from_overviews(tmp_path, monkeypatch):
    scene = (ground(1, 1500, 1300).astype(np.uint16) + 100) * 10
    paths = [write_raster(tmp_path / f"{n}.tif", scene, tiled=True) for n in ("plain", "with")]
    with rasterio.open(paths[1], "r+") as target:
        target.build_overviews([2, 4], Resampling.nearest)
    read_pixels = []
    original = grids.DateOnGrid.read
    monkeypatch.setattr(
        grids.DateOnGrid, "read",
        lambda self, window, shape=None: read_pixels.append((window, shape)) or original(self, window, shape),
    )  # fmt: skip
    expected = np.percentile(scene.reshape(3, -1), (1, 99), axis=1).T
    for path, count in zip(paths, (64, 1), strict=True):
        read_pixels.clear()
        source = open_source(path, "before")
        looks = values.look(source), values.look(source)
        assert np.allclose(values.value_range(source, source, looks), expected, rtol=0.03)
        assert len(read_pixels) == 2 * count


def test_what_is_valid_may_lie_between_the_windows_that_are_looked_at(tmp_path):
    scene = np.zeros((3, 2500, 2500), np.uint16)
    scene[:, 400:600, 420:640] = ground(1, 200, 220).astype(np.uint16) * 20
    path = write_raster(tmp_path / "b.tif", scene, nodata=0)
    source = open_source(path, "before")
    seen = values.look(source)
    low, high = zip(*values.value_range(source, source, (seen, seen)), strict=True)
    inside = scene[:, 400:600, 420:640].reshape(3, -1)
    assert np.allclose(low, np.percentile(inside, 1, axis=1), rtol=0.05)
    assert np.allclose(high, np.percentile(inside, 99, axis=1), rtol=0.05)


def test_bands_are_taken_in_the_order_that_is_said(tmp_path):
    four = [ground(seed, 100, 120, channels=4) for seed in (1, 2)]
    maps = []
    for name, order, bands in (("all", [0, 1, 2, 3], (4, 1, 3)), ("three", [3, 0, 2], None)):
        files = [
            write_raster(tmp_path / f"{name}{i}.tif", date[order], photometric="MINISBLACK")
            for i, date in enumerate(four)
        ]
        out = {"probability": tmp_path / f"{name}_p.tif", "bands": bands}
        predict_scene(NetworkDetector(convolutional(0)), *files, tmp_path / "c.tif", **out)
        maps.append(read(tmp_path / f"{name}_p.tif"))
    assert maps[0].std() > 0.05
    assert np.array_equal(*maps)


def test_a_range_of_each_channel_is_stretched_and_what_lies_beyond_is_clipped(tmp_path):
    dates = [ground(seed, 230, 240).astype(np.uint16) * 10 for seed in (1, 2)]
    files = [write_raster(tmp_path / f"{n}.tif", date) for n, date in zip("ba", dates, strict=True)]
    low, high = (np.array(side)[:, None, None] for side in ((900, 1000, 1100), (1500, 1400, 1700)))
    model = convolutional(0)
    predict_scene(
        NetworkDetector(model), *files, tmp_path / "c.tif", probability=tmp_path / "p.tif",
        image_range=(900, 1500, 1000, 1400, 1100, 1700),
    )  # fmt: skip
    expected = whole_image(model, *(np.rint(np.clip((date - low) * (255.0 / (high - low)), 0, 255)) for date in dates))
    inner = (slice(12, -12), slice(12, -12))
    assert np.abs(read(tmp_path / "p.tif") - expected)[inner].max() < 1e-5


def test_a_channel_that_is_constant_has_a_range(tmp_path):
    dates = ground(1, 60, 80).astype(np.uint16)
    dates[1] = 700
    files = [write_raster(tmp_path / f"{n}.tif", dates) for n in "ba"]
    predict_scene(NetworkDetector(convolutional(0)), *files, tmp_path / "c.tif", probability=tmp_path / "p.tif")
    assert np.isfinite(read(tmp_path / "p.tif")).all()
    with rasterio.open(tmp_path / "c.tif") as source:
        low, high = json.loads(source.tags()["VALUE_RANGE"])[1]
    assert low == 700 < high


def test_the_range_is_that_of_valid_values(tmp_path):
    scene = ground(1, 100, 120).astype(np.uint16) * 20
    scene[:, :50] = 65535
    files = [write_raster(tmp_path / f"{n}.tif", scene, nodata=65535) for n in "ba"]
    predict_scene(NetworkDetector(pointwise()), *files, tmp_path / "c.tif")
    with rasterio.open(tmp_path / "c.tif") as source:
        ranges = json.loads(source.tags()["VALUE_RANGE"])
    assert np.allclose(ranges, np.percentile(scene[:, 50:].reshape(3, -1), (1, 99), axis=1).T)


# --- nodata


def test_what_is_not_valid_on_both_dates_is_no_data(pair, tmp_path):
    before, after, changed = read_all(pair[0]), read_all(pair[1]), pair[2].copy()
    before[:, :, :60] = 0
    after[:, 280:] = 0
    files = [write_raster(tmp_path / f"{n}.tif", date, nodata=0) for n, date in (("b0", before), ("a0", after))]
    detector = NetworkDetector(pointwise(**BRIGHTER))
    out = {"probability": tmp_path / "p.tif", "polygons": tmp_path / "a.gpkg"}
    result = predict_scene(detector, *files, tmp_path / "c.tif", tile=96, overlap=16, **out)
    invalid = np.zeros(changed.shape, bool)
    invalid[:, :60] = invalid[280:] = True
    expected = np.where(invalid, 255, changed)
    assert np.array_equal(read(tmp_path / "c.tif"), expected)
    assert np.array_equal(np.isnan(read(tmp_path / "p.tif")), invalid)
    assert result.car == changed[~invalid].mean()
    assert result.valid_pixels == (~invalid).sum()
    bare = [write_raster(tmp_path / f"{n}.tif", date) for n, date in (("bn", before), ("an", after))]
    predict_scene(detector, *bare, tmp_path / "d.tif", nodata=0)
    assert np.array_equal(read(tmp_path / "d.tif"), expected)


def test_alpha_masks_and_numbers_that_are_none_are_no_data_too(pair, tmp_path):
    before, after, changed = read_all(pair[0]), read_all(pair[1]), pair[2]
    hole = np.zeros(changed.shape, bool)
    hole[100:200, 200:300] = True
    expected = np.where(hole, 255, changed)
    detector = NetworkDetector(pointwise(**BRIGHTER))
    alpha = np.where(hole, 0, 255).astype(np.uint8)[None]
    rgba = write_raster(tmp_path / "rgba.tif", np.concatenate((before, alpha)), photometric="RGB", alpha="YES")
    predict_scene(detector, rgba, pair[1], tmp_path / "c.tif")
    assert np.array_equal(read(tmp_path / "c.tif"), expected)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        masked = write_raster(tmp_path / "masked.tif", before)
        with rasterio.open(masked, "r+") as target:
            target.write_mask(~hole)
    predict_scene(detector, masked, pair[1], tmp_path / "d.tif")
    assert np.array_equal(read(tmp_path / "d.tif"), expected)
    floats = before.astype(np.float32)
    floats[1, hole] = np.nan
    floats[0, 100:150, 200:300] = np.inf
    first = write_raster(tmp_path / "f.tif", floats)
    second = write_raster(tmp_path / "g.tif", after.astype(np.float32))
    predict_scene(detector, first, second, tmp_path / "e.tif", image_range=(0, 255))
    assert np.array_equal(read(tmp_path / "e.tif"), expected)


@pytest.mark.parametrize("overlap", [0, 32])
def test_tiles_without_data_cost_no_pass(overlap, tmp_path):
    before = ground(0, 300, 600)
    before[:, :, :400] = 0
    files = [write_raster(tmp_path / f"{n}.tif", before, nodata=0) for n in ("b", "a")]
    model = pointwise(**BRIGHTER)
    passes = Passes(model)
    result = predict_scene(NetworkDetector(model), *files, tmp_path / "c.tif", tile=96, overlap=overlap, batch_size=3)
    assert sum(passes.sizes) == result.tiles
    assert max(passes.sizes) <= 3
    columns = axis(600, 96, overlap, 8)
    empty = sum(columns.answered(i)[1] <= 400 for i in range(columns.count))
    assert result.skipped == empty * axis(300, 96, overlap, 8).count > 0


def test_no_valid_pixel_at_all_is_an_error(tmp_path):
    dates = np.zeros((3, 50, 50), np.uint8)
    files = [write_raster(tmp_path / f"{n}.tif", dates, nodata=0) for n in ("b", "a")]
    with pytest.raises(DataError, match="no pixel that is valid on both dates; check nodata"):
        predict_scene(NetworkDetector(pointwise()), *files, tmp_path / "c.tif")
    assert {path.name for path in tmp_path.iterdir()} == {"b.tif", "a.tif"}


def test_a_fourth_band_that_is_chosen_is_no_mask(pair, tmp_path):
    """GDAL calls the fourth of four bands of 8 bits alpha; here it is infrared, and 0 in places."""
    before, after, changed = pair
    infrared = np.zeros((1, *changed.shape), np.uint8)
    infrared[:, 100:] = 9
    files = [write_raster(tmp_path / f"4_{p.name}", np.concatenate((read_all(p), infrared))) for p in (before, after)]
    with rasterio.open(files[0]) as source:
        assert source.colorinterp[3].name == "alpha"
    result = predict_scene(NetworkDetector(pointwise(bias=-12.0)), *files, tmp_path / "c.tif", bands=(4, 1, 2))
    assert result.valid_pixels == changed.size
    assert np.array_equal(read(tmp_path / "c.tif"), changed)


def test_what_one_date_shows_where_the_other_has_no_data_changes_nothing(tmp_path):
    before, after = ground(1, 120, 150), ground(2, 120, 150)
    before[:, 40:80, 50:90] = 0
    first = write_raster(tmp_path / "b.tif", before, nodata=0)
    maps = []
    for i, value in enumerate((1, 200)):
        after[:, 40:80, 50:90] = value
        second = write_raster(tmp_path / f"a{i}.tif", after)
        predict_scene(
            NetworkDetector(convolutional(0)), first, second, tmp_path / "c.tif", probability=tmp_path / f"p{i}.tif"
        )
        maps.append(read(tmp_path / f"p{i}.tif"))
    assert np.array_equal(*maps, equal_nan=True)


# --- Origin-Partition, augmentation, ensembles


def teachers():
    """An origin that sees what is brighter by 20; teachers that call everything changed, or nothing."""
    always, never = pointwise(scale=0.0, bias=5.0), pointwise(scale=0.0, bias=-5.0)
    origin = NetworkDetector(pointwise(**BRIGHTER))
    return OriginPartition(
        origin, {"small": NetworkDetector(never), "large": NetworkDetector(always)}, CarPartition((0.1,))
    )


def busy_scene(tmp_path):
    """Left half: nothing changes; right half: everything but its last ten columns, which are no data."""
    before = ground(0, 64, 256) // 2 + 1
    after = before.copy()
    after[:, :, 128:] += 50
    after[:, :, 246:] = 0
    return [write_raster(tmp_path / f"{n}.tif", date, nodata=0) for n, date in (("b", before), ("a", after))]


def test_origin_partition_chooses_by_tile(tmp_path):
    files = busy_scene(tmp_path)
    result = predict_scene(teachers(), *files, tmp_path / "c.tif", tile=80, overlap=0)
    mask = read(tmp_path / "c.tif")
    assert result.parts == {"small": 2, "large": 2}
    assert (mask[:, :120] == 0).all()
    assert (mask[:, 136:246] == 1).all()
    assert (mask[:, 246:] == 255).all()


def test_origin_partition_chooses_by_scene(tmp_path):
    files = busy_scene(tmp_path)
    result = predict_scene(teachers(), *files, tmp_path / "c.tif", tile=80, overlap=0, routing="scene")
    assert set(result.parts) == {"large"}
    assert (read(tmp_path / "c.tif")[:, :246] == 1).all()
    with pytest.raises(OptionError, match=r"routing: found scene, .*Origin-Partition"):
        predict_scene(NetworkDetector(pointwise()), *files, tmp_path / "d.tif", routing="scene")


def test_pixels_without_data_take_no_part_in_the_car_of_a_tile():
    detector = teachers()
    before = torch.full((3, 10, 10), 50, dtype=torch.uint8)
    after = before.clone()
    after[:, :2] = 150
    assert detector.answers([before], [after])[0].part == "large"
    valid = torch.ones(10, 10, dtype=torch.bool)
    valid[:2] = False
    assert detector.answers([before], [after], [valid])[0].part == "small"


def test_augmented_answers_are_means_over_the_views():
    detector = NetworkDetector(convolutional(0))
    before, after = (torch.from_numpy(ground(seed, 24, 32)) for seed in (1, 2))

    def seen(turns, mirror):
        first, second = ((torch.flip(x, [-1]) if mirror else x).rot90(turns, (-2, -1)) for x in (before, after))
        answer = detector.probabilities(first[None], second[None])[0].rot90(-turns, (-2, -1))
        return torch.flip(answer, [-1]) if mirror else answer

    every = {
        "flips": [(0, False), (2, False), (0, True), (2, True)],
        "rotations": [(n, False) for n in range(4)],
        "flips-rotations": [(n, m) for n in range(4) for m in (False, True)],
    }
    answers = {}
    for name, views in every.items():
        answers[name] = TestTimeAugmentation(detector, name).probabilities(before[None], after[None])[0]
        assert torch.allclose(answers[name], torch.stack([seen(*view) for view in views]).mean(0), atol=1e-6)
    assert not torch.allclose(answers["flips"], answers["rotations"], atol=1e-3)
    mirrored = TestTimeAugmentation(detector, "flips-rotations")
    turned = mirrored.probabilities(before.rot90(1, (-2, -1))[None], after.rot90(1, (-2, -1))[None])[0]
    assert torch.allclose(turned.rot90(-1, (-2, -1)), answers["flips-rotations"], atol=1e-6)


def test_scales_see_images_of_other_sizes_and_answer_at_their_own():
    model = convolutional(0)
    sizes = []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[-2:])))
    before, after = (torch.from_numpy(ground(seed, 32, 48))[None] for seed in (1, 2))
    both = TestTimeAugmentation(NetworkDetector(model), None, (1.0, 0.5)).probabilities(before, after)
    assert both.shape == (1, 1, 32, 48)
    assert sizes == [(32, 48), (16, 24)]
    alone = NetworkDetector(model).probabilities(before, after)
    half = TestTimeAugmentation(NetworkDetector(model), None, (0.5,)).probabilities(before, after)
    assert torch.allclose(both, (alone + half) / 2, atol=1e-6)
    with pytest.raises(OptionError, match="scales: found"):
        TestTimeAugmentation(NetworkDetector(model), None, (0.0,))


def test_ensembles_and_augmentation_work_on_scenes(pair, tmp_path):
    members = [NetworkDetector(convolutional(seed)) for seed in (0, 1)]
    maps = []
    for i, detector in enumerate([*members, Ensemble(members), TestTimeAugmentation(Ensemble(members), "flips")]):
        path = tmp_path / f"p{i}.tif"
        predict_scene(detector, *pair[:2], tmp_path / f"c{i}.tif", probability=path, tile=96, overlap=24)
        maps.append(read(path))
    assert np.allclose(maps[2], (maps[0] + maps[1]) / 2, atol=1e-5)
    assert not np.allclose(maps[3], maps[2], atol=1e-3)
    with pytest.raises(OptionError, match="ensemble: found no member"):
        Ensemble([])


def test_pixels_outside_the_scene_take_no_part_in_the_car_of_a_tile(tmp_path):
    """A scene of 9 columns, of which one changes, is a tile of 16; its reflection holds the change but once."""
    before = np.full((3, 8, 9), 50, np.uint8)
    after = before.copy()
    after[:, :, 0] = 150
    files = [write_raster(tmp_path / f"{n}.tif", date) for n, date in (("b", before), ("a", after))]
    assert predict_scene(teachers(), *files, tmp_path / "c.tif").parts == {"large": 1}


def test_pixels_without_data_take_no_part_in_the_car_of_a_scene(tmp_path):
    before = np.full((3, 64, 200), 50, np.uint8)
    before[:, :, 40:] = 0
    after = before.copy()
    after[:, :, :6] = 150
    files = [write_raster(tmp_path / f"{n}.tif", date, nodata=0) for n, date in (("b", before), ("a", after))]
    result = predict_scene(teachers(), *files, tmp_path / "c.tif", routing="scene")
    assert set(result.parts) == {"large"}


@pytest.mark.parametrize("combined", [TestTimeAugmentation, lambda part: Ensemble([part])], ids=["views", "members"])
def test_combinations_look_at_the_same_pixels_as_what_they_combine(combined):
    detector = combined(teachers())
    before = torch.full((3, 10, 20), 50, dtype=torch.uint8)
    after = before.clone()
    after[:, :2, :15] = 150
    valid = torch.ones(10, 20, dtype=torch.bool)
    assert detector.answers([before], [after], [valid])[0].part == "large"
    valid[:2, :15] = False
    assert detector.answers([before], [after], [valid])[0].part == "small"


def test_no_part_is_named_where_members_disagree():
    blind = OriginPartition(NetworkDetector(pointwise(scale=0.0, bias=-5.0)), {}, CarPartition((0.1,)))
    before = torch.full((3, 10, 10), 50, dtype=torch.uint8)
    (answer,) = Ensemble([teachers(), blind]).answers([before], [before + 100])
    assert answer.part is None


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.25, 2.0])
def test_tiles_suit_every_member_at_every_scale(scale):
    members = [NetworkDetector(convolutional(0)), NetworkDetector(pointwise())]
    detector = TestTimeAugmentation(Ensemble(members), "flips", (1.0, scale))
    for member in members:
        assert detector.multiple % member.multiple == 0
        assert detector.multiple * scale % member.multiple == 0


# --- interruption


SCRIPT = """
import os, sys, time
sys.path.insert(0, {tests!r})
import pytest, torch
from bitemporal.inference import NetworkDetector
from bitemporal.scenes import predict_scene
from stub_networks import convolutional, register_stubs
register_stubs(pytest.MonkeyPatch())
torch.set_num_threads(1)
class Slow(NetworkDetector):
    def answers(self, *args):
        time.sleep({delay})
        return super().answers(*args)
found = predict_scene(
    Slow(convolutional(0)), {before!r}, {after!r}, {output!r}, probability={probability!r}, tile=64, overlap=16)
print(found.resumed)
"""


def run_slowly(files, folder, delay):
    text = SCRIPT.format(
        tests=str(Path(__file__).parent), delay=delay, before=str(files[0]), after=str(files[1]),
        output=str(folder / "c.tif"), probability=str(folder / "p.tif"),
    )  # fmt: skip
    return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(pair, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_slowly(pair, whole, 0).communicate(timeout=120)[0].strip() == "0"
    process = run_slowly(pair, killed, 0.05)
    noted = killed / ".c.tif.work" / "all" / "journal.npz"
    deadline = time.monotonic() + 60
    while not noted.exists() or int(np.load(noted)["strips"]) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "c.tif").exists()
    assert int(run_slowly(pair, killed, 0).communicate(timeout=120)[0]) >= 2
    for name in ("c.tif", "p.tif"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert not list(killed.glob(".*"))


def test_what_was_begun_with_other_images_or_options_is_not_gone_on_with(pair, tmp_path, monkeypatch):
    before, after, _ = pair
    detector = NetworkDetector(convolutional(0))
    monkeypatch.setattr(
        "bitemporal.scenes.prediction.make_products", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    options = {"tile": 64, "overlap": 16}
    with pytest.raises(KeyboardInterrupt):
        predict_scene(detector, before, after, tmp_path / "c.tif", **options)
    monkeypatch.undo()
    register_stubs(monkeypatch)
    work = tmp_path / ".c.tif.work"
    assert work.is_dir()
    result = predict_scene(NetworkDetector(convolutional(1)), before, after, tmp_path / "c.tif", **options)
    assert result.resumed == 0
    assert not work.exists()


def test_a_summary_never_outlives_the_products_it_is_about(pair, tmp_path, monkeypatch):
    detectors = [NetworkDetector(pointwise(**BRIGHTER)), NetworkDetector(pointwise(scale=0.0, bias=-9.0))]
    outputs = Outputs(tmp_path / "c.tif", summary=tmp_path / "s.json")

    def run(detector):
        return prediction.predict_unless_finished(detector, *pair[:2], outputs, SceneOptions())

    assert [run(detectors[0])[0] for _ in range(2)] == [False, True]
    monkeypatch.setattr(prediction, "_result", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(detectors[1])
    monkeypatch.undo()
    register_stubs(monkeypatch)
    assert (read(tmp_path / "c.tif") == 0).all()
    finished, summary = run(detectors[0])
    assert not finished
    assert summary["changed_pixels"] == read(tmp_path / "c.tif").sum() > 0


def test_two_runs_never_write_the_same_output(pair, tmp_path):
    class Nested(NetworkDetector):
        def answers(self, *words):
            with ThreadPoolExecutor(1) as other:
                run = other.submit(predict_scene, NetworkDetector(pointwise()), *pair[:2], tmp_path / "c.tif")
                with pytest.raises(OutputError, match=r"c.tif: another run is writing it"):
                    run.result()
            return super().answers(*words)

    predict_scene(Nested(pointwise(**BRIGHTER)), *pair[:2], tmp_path / "c.tif")
    assert np.array_equal(read(tmp_path / "c.tif"), pair[2])


def test_a_journal_that_is_damaged_is_begun_anew(pair, tmp_path):
    folder = tmp_path / ".c.tif.work" / "all"
    folder.mkdir(parents=True)
    (folder.parent / "bitemporal").touch()
    (folder / "journal.npz").write_bytes(b"PK\x03\x04 damaged")
    predict_scene(NetworkDetector(pointwise(**BRIGHTER)), *pair[:2], tmp_path / "c.tif")
    assert np.array_equal(read(tmp_path / "c.tif"), pair[2])
    assert not list(tmp_path.glob(".*"))


def test_a_folder_of_the_users_in_the_place_of_unfinished_work_stays(pair, tmp_path):
    mine = tmp_path / ".c.tif.work" / "all" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(OutputError, match=r"c.tif: .*\.c\.tif\.work.* was not made by bitemporal; move that folder"):
        predict_scene(NetworkDetector(pointwise(**BRIGHTER)), *pair[:2], tmp_path / "c.tif")
    assert mine.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] == ".") == [".c.tif.work"]
    mine.parent.parent.rename(tmp_path / "elsewhere")
    predict_scene(NetworkDetector(pointwise(**BRIGHTER)), *pair[:2], tmp_path / "c.tif")
    assert np.array_equal(read(tmp_path / "c.tif"), pair[2])


def test_what_gdal_kept_beside_an_old_map_goes_with_it(pair, tmp_path):
    predict_scene(NetworkDetector(pointwise(**BRIGHTER)), *pair[:2], tmp_path / "c.tif")
    (tmp_path / "c.tif.aux.xml").write_text("<PAMDataset><Metadata><MDI key='OLD'>1</MDI></Metadata></PAMDataset>")
    predict_scene(NetworkDetector(pointwise(**BRIGHTER)), *pair[:2], tmp_path / "c.tif")
    with rasterio.open(tmp_path / "c.tif") as source:
        assert "OLD" not in source.tags()


def test_a_local_crs_has_no_areas(pair, tmp_path):
    wkt = 'LOCAL_CS["site",UNIT["metre",1]]'
    files = [write_raster(tmp_path / f"local_{p.name}", read_all(p), crs=wkt) for p in pair[:2]]
    detector = NetworkDetector(pointwise(**BRIGHTER))
    result = predict_scene(detector, *files, tmp_path / "c.tif", polygons=tmp_path / "a.gpkg")
    assert result.changed_hectares is None
    assert geopandas.read_file(tmp_path / "a.gpkg", layer="a").area_m2.isna().all()


@pytest.mark.parametrize("name", ["fc_ef", "fc_siam_diff"])
def test_tiles_lie_on_the_lattice_of_networks_that_pad_themselves(name, tmp_path):
    torch.manual_seed(0)
    model = create_model(name).eval()
    with torch.no_grad():  # spread the answers
        before, after = (ground(seed, 700, 640) for seed in (1, 2))
        list(model.modules())[-1].weight.mul_(50)
    files = [write_raster(tmp_path / f"{n}.tif", date) for n, date in (("b", before), ("a", after))]
    maps = []
    for tile in (320, 368):
        path = tmp_path / f"p{tile}.tif"
        predict_scene(NetworkDetector(model), *files, tmp_path / "c.tif", probability=path, tile=tile, overlap=190)
        maps.append(read(path))
    inner = (slice(100, -100), slice(100, -100))
    assert np.abs(maps[0] - maps[1])[inner].max() < 1e-3


@pytest.fixture
def interrupt(monkeypatch):
    """Makes a run of ``predict_scene`` end in its third strip, none, half, or all of which is in the raster by then."""

    def run(written, *words, **options):
        strips = []
        original = Journal.write

        def write(self, start, strip, *rest):
            strips.append(start)
            if len(strips) <= 2:
                original(self, start, strip, *rest)
                return
            if written == "half":
                torn = np.where(np.arange(strip.shape[1]) % 2, 0.9, 0.1) * np.ones_like(strip)
                rows = torn if self.tiling.strips_are_rows else torn.T
                left, top = (0, start) if self.tiling.strips_are_rows else (start, 0)
                with rasterio.open(self.raster, "r+") as raster:
                    raster.write(rows.astype(np.float32), 1, window=Window(left, top, *rows.shape[::-1]))
            if written == "all":
                with monkeypatch.context() as patch:
                    patch.setattr(journal, "replacing", Mock(side_effect=KeyboardInterrupt))
                    original(self, start, strip, *rest)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Journal, "write", write)
            predict_scene(*words, **options)

    return run


def test_a_strip_is_noted_only_when_it_is_on_the_disk(pair, tmp_path, monkeypatch):
    events = []
    for name in ("sync", "replacing"):
        original = getattr(journal, name)
        monkeypatch.setattr(
            journal, name, lambda path, name=name, original=original: events.append((name, path.name)) or original(path)
        )
    result = predict_scene(NetworkDetector(pointwise()), *pair[:2], tmp_path / "c.tif", tile=96, overlap=16)
    strip = [("sync", "probability.tif"), ("replacing", "journal.npz")]
    assert events == strip[:1] + strip * axis(420, 96, 16, 8).count
    assert result.resumed == 0


@pytest.mark.parametrize("written", ["none", "half", "all"])
def test_an_interrupted_run_counts_nothing_twice_and_forgets_nothing(written, interrupt, tmp_path):
    before, after = ground(1, 150, 420), ground(2, 150, 420)
    before[:, :, 20:90] = 0
    files = [write_raster(tmp_path / f"{n}.tif", date, nodata=0) for n, date in (("b", before), ("a", after))]
    detector = NetworkDetector(convolutional(0))
    options = {"tile": 64, "overlap": 16}
    whole = predict_scene(detector, *files, tmp_path / "whole.tif", probability=tmp_path / "whole_p.tif", **options)
    options["probability"] = tmp_path / "p.tif"
    interrupt(written, detector, *files, tmp_path / "c.tif", **options)
    result = predict_scene(detector, *files, tmp_path / "c.tif", **options)
    assert (result.resumed, whole.resumed) == (2, 0)
    for name in ("car", "changed_pixels", "valid_pixels", "changed_hectares", "tiles", "skipped"):
        assert getattr(result, name) == getattr(whole, name)
    assert result.skipped > 0
    for name in ("c.tif", "p.tif"):
        expected = tmp_path / name.replace("c.", "whole.").replace("p.", "whole_p.")
        assert np.array_equal(read(tmp_path / name), read(expected), equal_nan=True)


@pytest.mark.parametrize("length", [416, 420])
def test_a_run_interrupted_as_it_writes_its_products_only_writes_them(length, tmp_path, monkeypatch):
    """With a last tile that is full, and with one that reaches beyond the scene."""
    files = [write_raster(tmp_path / f"{n}.tif", ground(i, 150, length)) for i, n in enumerate("ba")]
    detector = NetworkDetector(convolutional(0))
    options = {"tile": 64, "overlap": 16}
    whole = predict_scene(detector, *files, tmp_path / "whole.tif", **options)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("bitemporal.scenes.prediction.make_products", Mock(side_effect=KeyboardInterrupt))
        predict_scene(detector, *files, tmp_path / "c.tif", **options)
    for name in ("mask.tif", "mask-cog.tif"):  # half-written by a run that was killed
        # a TIFF whose directory would begin at its end
        (tmp_path / ".c.tif.work" / "all" / name).write_bytes(b"II*\0\xe8\x03\0\0".ljust(1000, b"\0"))
    with monkeypatch.context() as patch:
        patch.setattr(detector, "answers", Mock(side_effect=AssertionError("predicted again")))
        result = predict_scene(detector, *files, tmp_path / "c.tif", **options)
    assert result.resumed == 13 + (length > 416)
    assert (result.car, result.tiles) == (whole.car, whole.tiles)
    assert np.array_equal(read(tmp_path / "c.tif"), read(tmp_path / "whole.tif"))


@pytest.mark.parametrize("change", ["threshold", "overlap", "image", "cut off"])
def test_an_interrupted_run_is_begun_anew_under_other_conditions(change, interrupt, pair, tmp_path):
    before, after, changed = pair
    detector = NetworkDetector(pointwise(**BRIGHTER))
    options = {"tile": 96, "overlap": 16}
    interrupt("none", detector, before, after, tmp_path / "c.tif", **options)
    match change:
        case "threshold":
            options["threshold"] = 0.6
        case "overlap":
            options["overlap"] = 24
        case "image":
            write_raster(after, read_all(before))
            changed = np.zeros_like(changed)
        case "cut off":
            os.truncate(tmp_path / ".c.tif.work" / "all" / "probability.tif", 1000)
    result = predict_scene(detector, before, after, tmp_path / "c.tif", **options)
    assert result.resumed == 0
    assert np.array_equal(read(tmp_path / "c.tif"), changed)


def test_what_is_finished_is_done_again_with_other_options_or_images(pair, tmp_path):
    before, after, _ = pair
    detector = NetworkDetector(pointwise(**BRIGHTER))
    outputs = Outputs(tmp_path / "c.tif", polygons=tmp_path / "a.gpkg", summary=tmp_path / "s.json")

    def run(**options):
        finished, summary = prediction.predict_unless_finished(
            detector, before, after, outputs, SceneOptions(**options)
        )
        return finished, summary["polygons"]

    assert [run(), run(), run(minimum_area=1000), run(minimum_area=1000)] == [
        (False, 2), (True, 2), (False, 1), (True, 1),
    ]  # fmt: skip
    write_raster(after, read_all(before))
    assert run(minimum_area=1000) == (False, 0)


# --- inputs and outputs that cannot be used


def broken(tmp_path, kind):
    """A first date with something wrong."""
    good = ground(0, 60, 80)
    path = tmp_path / "wrong.tif"
    match kind:
        case "no raster":
            path.write_text("hello")
        case "empty":
            path.write_bytes(b"")
        case "missing":
            pass
        case "folder":
            path.mkdir()
        case "truncated":
            write_raster(
                path, np.random.default_rng(0).integers(0, 255, (3, 600, 800), dtype=np.uint8), compress="deflate"
            )
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        case "complex":
            write_raster(path, good.astype(np.complex64))
        case "two bands":
            write_raster(path, good[:2])
        case "no crs":
            write_raster(path, good, crs=None)
        case "half placed":
            write_raster(path, good, crs=None, transform=from_origin(LEFT, TOP, 0.5, 0.5))
        case "crs alone":
            write_raster(path, good, transform=rasterio.Affine.identity())
        case "impossible":
            write_raster(path, good, transform=rasterio.Affine(0.5, 0, LEFT, 0, -5000, TOP))
        case "absurd":
            write_raster(path, good, crs="EPSG:4326", pixel=0.5, left=5e5, top=4e6)
        case "elsewhere":
            write_raster(path, good, left=LEFT + 5000)
        case "far smaller":
            write_raster(path, good, pixel=0.001)
        case "other type":
            write_raster(path, good.astype(np.uint16))
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no raster", r"wrong.tif: cannot be read"),
        ("empty", r"wrong.tif: cannot be read"),
        ("missing", r"wrong.tif: no such file; expected a raster"),
        ("folder", r"wrong.tif: is a folder, .*expected a raster"),
        ("truncated", r"wrong.tif: cannot be read"),
        ("complex", r"wrong.tif: holds complex64 values"),
        ("two bands", r"bands: .*wrong.tif has 2, and the network takes 3"),
        ("no crs", r"before \(.*wrong.tif\): has no CRS, but after .* has EPSG:32650; .*rio edit-info"),
        ("half placed", r"wrong.tif: has a transform but no CRS"),
        ("crs alone", r"wrong.tif: has the CRS EPSG:32650 but no transform; .*rio edit-info"),
        ("impossible", r"wrong.tif: its transform .* is impossible; .*rio edit-info"),
        ("absurd", r"wrong.tif: reaches from 500000, .* not degrees of longitude and latitude"),
        ("elsewhere", r"before .*wrong.tif.* and after .*good.tif.* do not overlap"),
        ("far smaller", r"after .*: its pixels are 500 times larger or smaller"),
        ("other type", r"wrong.tif\) holds uint16, after .* uint8, .*--image-range"),
    ],
)
def test_rasters_that_cannot_be_used_are_errors_in_words_and_leave_nothing(kind, words, tmp_path):
    good = write_raster(tmp_path / "good.tif", ground(1, 60, 80))
    wrong = broken(tmp_path, kind)
    there = sorted(tmp_path.iterdir())
    with pytest.raises((DataError, OptionError), match=words):
        predict_scene(
            NetworkDetector(pointwise()), wrong, good, tmp_path / "out" / "c.tif", probability=tmp_path / "p.tif"
        )
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != "out"] == there
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_bands_of_one_date_that_lie_on_different_grids_are_refused(pair, tmp_path):
    bands = read_all(pair[0])
    files = [write_raster(tmp_path / f"{i}.tif", bands[i : i + 1], left=LEFT + (5 if i == 2 else 0)) for i in range(3)]
    with pytest.raises(DataError, match=r"2.tif: is .* but .*0.tif is .*, and they do not cover the same area"):
        predict_scene(NetworkDetector(pointwise()), files, pair[1], tmp_path / "c.tif")


def test_an_image_by_another_name_is_no_output(pair, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "link.tif").symlink_to(pair[1])
    for output in (tmp_path / "out" / ".." / "before.tif", tmp_path / "link.tif"):
        with pytest.raises(OptionError, match="is one of the inputs"):
            predict_scene(NetworkDetector(pointwise()), *pair[:2], output)


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (1, 5000), (5000, 1)])
def test_scenes_of_a_few_pixels_and_narrow_ones_are_answered(shape, tmp_path):
    before = np.full((3, *shape), 40, np.uint8)
    files = [write_raster(tmp_path / f"{n}.tif", date) for n, date in (("b", before), ("a", before + 90))]
    result = predict_scene(NetworkDetector(pointwise(**BRIGHTER)), *files, tmp_path / "c.tif", tile=256)
    assert (read(tmp_path / "c.tif") == 1).all()
    assert result.car == 1.0


def test_outputs_that_cannot_be_are_refused_before_any_work(pair, tmp_path):
    before, after, _ = pair
    model = pointwise()
    passes = Passes(model)
    detector = NetworkDetector(model)
    cases = [
        ({"output": tmp_path / "c.png"}, r"mask: found .*c.png, expected a name that ends in .tif"),
        ({"output": before}, r"mask: .*before.tif is one of the inputs"),
        ({"output": tmp_path}, r"mask: found|is a folder"),
        ({"polygons": tmp_path / "c.shp"}, r"polygons: found .*c.shp, expected .*.gpkg"),
        ({"probability": tmp_path / "c.tif"}, r"probability: .*c.tif is also the place of the mask; choose"),
        ({"threshold": 1.0}, r"threshold: found 1"),
        ({"tile": 0}, r"tile: found 0"),
        ({"grid": "afterr"}, r"grid: found 'afterr', expected one of before, intersection, union"),
        ({"routing": "sceen"}, r"routing: found 'sceen', expected one of tile, scene"),
        ({"output": "s3://bucket/c.tif"}, r"mask: s3:.*c.tif is not a local file; write it"),
        ({"colour": 1}, r"colour: no such option"),
        ({"bands": (1, 2, 9)}, r"bands: .*before.tif has no band 9"),
        ({"image_range": (5, 5)}, r"image_range: found \(5, 5\)"),
    ]
    for options, words in cases:
        with pytest.raises((OptionError, DataError), match=words):
            predict_scene(detector, before, after, **{"output": tmp_path / "c.tif"} | options)
    assert not passes.sizes
    assert {path.name for path in tmp_path.iterdir()} == {"before.tif", "after.tif"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(pair, tmp_path):
    (tmp_path / "out").mkdir(mode=0o555)
    with pytest.raises(OutputError, match="cannot be written"):
        predict_scene(NetworkDetector(pointwise()), *pair[:2], tmp_path / "out" / "c.tif")


@pytest.mark.parametrize("during", ["prediction", "writing"])
def test_a_disk_that_is_full_leaves_nothing(during, tmp_path):
    """A limit on the size of files stands in for it; when products are written, what was predicted is kept."""
    noise = np.random.default_rng(0).integers(0, 255, (2, 3, 300, 420), dtype=np.uint8)
    pair = [write_raster(tmp_path / f"{n}.tif", date) for n, date in zip("ba", noise, strict=True)]
    script = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import pytest
from bitemporal.errors import OutputError
from bitemporal.inference import NetworkDetector
from bitemporal.scenes import prediction
from stub_networks import pointwise, register_stubs
register_stubs(pytest.MonkeyPatch())
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit, during = int(sys.argv[1]), sys.argv[2]
def set_limit():
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
original = prediction.make_products
def make_products(*words):
    if during == "writing":
        set_limit()
    return original(*words)
prediction.make_products = make_products
if during == "prediction":
    set_limit()
try:
    prediction.predict_scene(
        NetworkDetector(pointwise(scale=0.02, bias=0.0)), {str(pair[0])!r}, {str(pair[1])!r},
        {str(tmp_path / "out/c.tif")!r}, probability={str(tmp_path / "out/p.tif")!r},
    )
except OutputError as error:
    print(error)
"""

    def run(limit):
        words = [sys.executable, "-c", script, str(limit), during]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        return done.stdout + done.stderr

    if during == "prediction":
        for limit in (300_000, 4000):
            assert "cannot be written" in run(limit)
            assert not list((tmp_path / "out").rglob("*"))
        return
    predict_scene(
        NetworkDetector(pointwise(scale=0.02, bias=0.0)), *pair, tmp_path / "c.tif", probability=tmp_path / "p.tif"
    )
    size = (tmp_path / "p.tif").stat().st_size
    for limit in (1000, size // 2, size - 10):
        text = run(limit)
        assert ".tif: cannot be written" in text
        assert "What was predicted is kept next to" in text
        assert not [path for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")]
    assert run(10 * size) == ""
    assert (tmp_path / "out/p.tif").read_bytes() == (tmp_path / "p.tif").read_bytes()
    assert not list((tmp_path / "out").glob(".*"))


SERVER = """
import http.server, pathlib, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self, body=True):
        path = pathlib.Path(sys.argv[1]) / self.path.strip("/")
        if not path.is_file():
            return self.send_error(404)
        content = path.read_bytes()
        start, stop = 0, len(content)
        asked = self.headers.get("Range")
        if asked is not None:
            first, last = asked.removeprefix("bytes=").split("-")
            start, stop = int(first), min(int(last or stop) + 1, stop)
        self.send_response(200 if asked is None else 206)
        if asked is not None:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if body:
            self.wfile.write(content[start:stop])

    def do_HEAD(self):
        self.do_GET(body=False)

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
"""Serves files and parts of them, as object stores do; a process of its own, since GDAL opens files without letting
other threads run."""


def test_remote_files_are_read_through_gdal(pair, tmp_path):
    with subprocess.Popen([sys.executable, "-c", SERVER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as server:
        try:
            address = f"http://127.0.0.1:{int(server.stdout.readline())}"
            files = [f"{address}/{path.name}" for path in pair[:2]]
            detector = NetworkDetector(pointwise(**BRIGHTER))
            predict_scene(detector, *files, tmp_path / "c.tif")
            assert np.array_equal(read(tmp_path / "c.tif"), pair[2])
            with pytest.raises(DataError, match=r"none.tif: cannot be read \(.*404"):
                predict_scene(detector, f"{address}/none.tif", pair[1], tmp_path / "d.tif")
        finally:
            server.kill()


def test_the_cache_of_blocks_is_of_the_size_that_was_meant():
    """Rasterio takes bytes where GDAL's own setting takes megabytes."""
    with sources.gdal_settings():
        assert rasterio.env.getenv()["GDAL_CACHEMAX"] == 256 * 1024**2


@pytest.mark.parametrize("module", ["rasterio", "geopandas", "skimage"])
def test_a_missing_extra_is_an_error_that_names_it(module):
    script = f"import sys; sys.modules[{module!r}] = None\nfrom bitemporal.scenes import predict_scene"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert f"MissingExtraError: bitemporal.scenes.predict_scene needs {module}" in done.stderr
    assert "pip install 'bitemporal[geo]'" in done.stderr


needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the real pairs are not next to this checkout")


@pytest.mark.shared
@needs_shared
@pytest.mark.parametrize("city", ["paris", "hongkong"])
def test_real_scenes_of_sentinel_2(city, tmp_path):
    """Files a band, 16 bits, longitude and latitude; the dates of Hong Kong differ in shape."""
    folder = SHARED / "data/oscd-scenes" / city
    dates = [
        [next((folder / part).glob(f"*{band}.tif")) for band in ("B04", "B03", "B02")] for part in ("imgs_1", "imgs_2")
    ]
    result = predict_scene(
        NetworkDetector(convolutional(0)), *dates, tmp_path / "c.tif", polygons=tmp_path / "a.gpkg", tile=256
    )
    with rasterio.open(dates[0][0]) as source, rasterio.open(tmp_path / "c.tif") as mask:
        assert (mask.shape, mask.crs) == (source.shape, source.crs)
        assert mask.transform.almost_equals(source.transform)
    assert result.valid_pixels > 0.9 * mask.height * mask.width


def test_blend_band_is_even():
    assert BLEND % 2 == 0
