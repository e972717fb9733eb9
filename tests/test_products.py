"""Products of scenes made anew and from parts of a scene: thresholds, areas of interest, masks, polygons, styles."""

import json
import os
from functools import partial
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio import features
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.warp import reproject
from rasterio.windows import Window

from bitemporal.cli.main import main
from bitemporal.errors import DataError, OptionError, OutputError
from bitemporal.inference import NetworkDetector
from bitemporal.scenes import Shift, polygons, predict_scene, prediction, threshold_scene
from bitemporal.scenes.grids import DateOnGrid
from bitemporal.scenes.journal import Journal
from bitemporal.scenes.sources import open_source
from scene_files import LEFT, TOP, UTM, ground, read, write_raster
from stub_networks import Passes, convolutional, pointwise

pytestmark = pytest.mark.usefixtures("stubs")


@pytest.fixture
def pair(tmp_path):
    """Two dates of one grid with noise, one with a corner of no data: probabilities of all sizes."""
    before = ground(0, 200, 260)
    after = ground(1, 200, 260)
    before[:, :30, :40] = 0
    return [write_raster(tmp_path / f"{n}.tif", date, nodata=0) for n, date in (("before", before), ("after", after))]


TRANSFORM = from_origin(LEFT, TOP, 0.5, 0.5)
SHAPE = (200, 260)


def at(*places):
    """A polygon through places near (column, row), no side of which meets the centre of a pixel."""
    return shapely.Polygon([TRANSFORM @ (column + 0.337, row + 0.119) for column, row in places])


def write_area(path, *polygons, crs=UTM):
    table = geopandas.GeoDataFrame({"name": ["x"] * len(polygons)}, geometry=list(polygons), crs=UTM)
    table = table if crs is None else table.to_crs(crs)
    table = table.set_crs(None, allow_override=True) if crs is None else table
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_file(path)
    return path


HOLED = at((20, 10), (150, 25), (140, 160), (30, 120)).difference(at((60, 50), (90, 50), (90, 90), (60, 90)))
SECOND = at((200, 100), (250, 100), (225, 190))


def test_a_threshold_gives_the_bytes_of_a_prediction_with_it(pair, tmp_path):
    model = convolutional(0)
    detector = NetworkDetector(model)
    outs = {}
    for threshold in (0.5, 0.4):
        out = tmp_path / f"{threshold}"
        kinds = {"polygons": out / "a.gpkg", "quicklook": out / "q.png", "summary": out / "s.json"}
        predict_scene(
            detector, *pair, out / "c.tif", **kinds, probability=out / "p.tif", threshold=threshold, tile=128,
            minimum_area=0.5, smooth=True,
        )  # fmt: skip
        outs[threshold] = out
    passes = Passes(model)
    new = tmp_path / "new"
    words = ["threshold", str(outs[0.5] / "p.tif"), "-o", str(new / "c.tif"), "--threshold", "0.4", "--smooth"]
    words += ["--polygons", str(new / "a.gpkg"), "--minimum-area", "0.5", "--summary", str(new / "s.json")]
    words += ["--quicklook", str(new / "q.png"), "--before", str(pair[0]), "--after", str(pair[1])]
    assert main(words) == 0
    assert not passes.sizes
    for name in ("a.gpkg", "q.png", "c.qml", "c.tif"):
        assert (new / name).read_bytes() == (outs[0.4] / name).read_bytes(), name
    assert (new / "a.gpkg").read_bytes() != (outs[0.5] / "a.gpkg").read_bytes()
    summary, expected = (json.loads((folder / "s.json").read_text()) for folder in (new, outs[0.4]))
    same = ("car", "changed_pixels", "valid_pixels", "changed_hectares", "valid_hectares", "polygons", "grid")
    assert {name: summary[name] for name in same} == {name: expected[name] for name in same}
    assert not list(new.glob(".*"))


def test_any_raster_of_probabilities_will_do(tmp_path, monkeypatch):
    values = np.random.default_rng(0).random((1, 700, 90))
    values[0, :50] = -1
    values[0, 100, 3:9] = np.nan
    path = write_raster(tmp_path / "p.tif", values, nodata=-1)
    result = threshold_scene(path, tmp_path / "c.tif", threshold=0.7)
    mask = read(tmp_path / "c.tif")
    expected = np.where((values[0] == -1) | np.isnan(values[0]), 255, values[0].astype(np.float32) > 0.7)
    assert np.array_equal(mask, expected)
    assert result.valid_pixels == 650 * 90 - 6
    assert result.car == (expected == 1).sum() / result.valid_pixels


def test_rasters_that_hold_no_probabilities_are_refused(tmp_path):
    one = np.full((1, 20, 20), 0.5, np.float32)
    cases = {
        "bytes": (one.astype(np.uint8), r"has 1 band\(s\) of uint8; expected one band of floats in \[0, 1\]"),
        "many": (one.repeat(2, axis=0), r"has 2 band\(s\) of float32"),
        "large": (one + 1, r"holds 1.5; expected values in \[0, 1\]"),
        "empty": (one * np.nan, r"has no pixel with a probability"),
    }
    for name, (values, text) in cases.items():
        path = write_raster(tmp_path / f"{name}.tif", values)
        with pytest.raises(DataError, match=text):
            threshold_scene(path, tmp_path / "out" / "c.tif")
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    good = write_raster(tmp_path / "good.tif", one)
    with pytest.raises(DataError, match=f"{tmp_path}/absent.tif: no such file"):
        threshold_scene(tmp_path / "absent.tif", tmp_path / "c.tif")
    with pytest.raises(OutputError, match=r"good.tif is one of the inputs, which are never changed"):
        threshold_scene(good, good)
    with pytest.raises(OptionError, match="give quicklook, before and after together"):
        threshold_scene(good, tmp_path / "c.tif", quicklook=tmp_path / "q.png")
    assert np.array_equal(read(good), one[0])


# --- areas of interest and masks


@pytest.mark.parametrize("ending", [".gpkg", ".geojson", ".shp", ".parquet"])
def test_pixels_outside_an_area_count_nowhere(ending, pair, tmp_path):
    path = write_area(tmp_path / f"area{ending}", shapely.MultiPolygon([HOLED]), SECOND)
    if ending == ".geojson":  # longitude and latitude, and back
        path = write_area(path, HOLED, SECOND, crs=4326)
    inside = features.geometry_mask([HOLED, SECOND], SHAPE, TRANSFORM, invert=True)
    out = {name: tmp_path / "out" / file for name, file in (("probability", "p.tif"), ("polygons", "a.gpkg"))}
    detector = NetworkDetector(convolutional(0))
    whole = predict_scene(detector, *pair, tmp_path / "whole.tif", probability=tmp_path / "whole-p.tif")
    result = predict_scene(detector, *pair, tmp_path / "out" / "c.tif", within=str(path), **out)
    mask, before = read(tmp_path / "out" / "c.tif"), read(tmp_path / "whole.tif")
    # what the network sees around the area stays as it is
    assert np.array_equal(mask, np.where(inside, before, 255))
    assert np.array_equal(np.isnan(read(out["probability"])), ~inside | (before == 255))
    assert result.valid_pixels == (inside & (before != 255)).sum() < whole.valid_pixels
    assert result.changed_pixels == (mask == 1).sum()
    assert result.changed_hectares == pytest.approx((mask == 1).sum() * 0.25 / 1e4)
    table = geopandas.read_file(out["polygons"], layer="a")
    assert table.pixels.sum() == (mask == 1).sum()
    again = threshold_scene(tmp_path / "whole-p.tif", tmp_path / "again.tif", within=str(path))
    assert np.array_equal(read(tmp_path / "again.tif"), mask)
    assert again.car == result.car


def test_masks_of_either_date_hide_what_they_mark(pair, tmp_path):
    clouds = np.zeros((1, *SHAPE), np.uint8)
    clouds[0, 40:90, 60:120] = 7
    first = write_raster(tmp_path / "first.tif", clouds, nodata=0)
    # coarser, in another CRS, and smaller than the scene
    coarse = np.zeros((1, 30, 30), np.float32)
    coarse[0, 5:20, 5:9] = 1
    coarse[0, 22:25, 22:28] = np.nan
    corner = geopandas.GeoSeries([shapely.Point(TRANSFORM @ (120, 60))], crs=UTM).to_crs(3857)[0]
    second = write_raster(tmp_path / "second.tif", coarse, crs="EPSG:3857", pixel=2.0, left=corner.x, top=corner.y)
    expected = np.zeros(SHAPE, np.uint8)
    reproject(
        (coarse[0] != 0).astype(np.uint8), expected, src_transform=from_origin(corner.x, corner.y, 2.0, 2.0),
        src_crs="EPSG:3857", dst_transform=TRANSFORM, dst_crs=UTM, resampling=Resampling.nearest, tolerance=0.0,
    )  # fmt: skip
    hidden = (clouds[0] != 0) | (expected != 0)
    assert 0 < (expected != 0).sum() < SHAPE[0] * SHAPE[1] / 2
    detector = NetworkDetector(pointwise())
    predict_scene(detector, *pair, tmp_path / "whole.tif")
    masks = [str(first), str(second)]
    result = predict_scene(detector, *pair, tmp_path / "c.tif", mask=masks, probability=tmp_path / "p.tif")
    mask = read(tmp_path / "c.tif")
    assert np.array_equal(mask, np.where(hidden, 255, read(tmp_path / "whole.tif")))
    assert result.valid_pixels == (mask != 255).sum()
    with rasterio.open(tmp_path / "c.tif") as source:
        assert source.tags()["MASK"] == "first.tif, second.tif"


def test_the_network_does_not_see_what_a_mask_hides(pair, tmp_path):
    clouds = np.zeros((1, *SHAPE), np.uint8)
    clouds[0, 100:, 100:] = 1
    mask = str(write_raster(tmp_path / "clouds.tif", clouds))
    after = np.moveaxis(np.stack([read(pair[1], band) for band in (1, 2, 3)]), 0, 0)
    after[:, 100:, 100:] = 255
    bright = write_raster(tmp_path / "bright.tif", after, nodata=0)
    detector = NetworkDetector(convolutional(0))
    found = []
    for date in (pair[1], bright):
        predict_scene(detector, pair[0], date, tmp_path / "c.tif", mask=[mask], probability=tmp_path / "p.tif")
        found.append(read(tmp_path / "p.tif"))
    assert np.array_equal(*found, equal_nan=True)


def test_a_scene_that_was_begun_without_an_area_starts_again_with_it(pair, tmp_path):
    from bitemporal.scenes.options import SceneOptions
    from bitemporal.scenes.outputs import Outputs
    from bitemporal.scenes.scene import open_scene

    path = write_area(tmp_path / "area.gpkg", HOLED)
    mask = str(write_raster(tmp_path / "m.tif", np.zeros((1, *SHAPE), np.uint8)))
    outputs, detector = Outputs(tmp_path / "c.tif"), NetworkDetector(pointwise())

    def fingerprint(**options):
        return open_scene(detector, *pair, outputs, SceneOptions(**options)).fingerprint

    first = fingerprint(within=str(path))
    assert first == fingerprint(within=str(path))
    assert len({first, fingerprint(), fingerprint(mask=[mask])}) == 3
    write_area(path, SECOND)
    assert fingerprint(within=str(path)) != first


def test_an_interrupted_scene_of_an_area_goes_on_and_ends_with_the_same_bytes(pair, tmp_path, monkeypatch):
    clouds = np.zeros((1, *SHAPE), np.uint8)
    clouds[0, 90:110, 30:200] = 1
    options = {
        "within": str(write_area(tmp_path / "area.gpkg", HOLED, SECOND)),
        "mask": [str(write_raster(tmp_path / "clouds.tif", clouds))],
        "tile": 64,
        "overlap": 16,
    }
    detector = NetworkDetector(convolutional(0))

    def run(folder):
        kinds = {"probability": folder / "p.tif", "polygons": folder / "a.gpkg"}
        return predict_scene(detector, *pair, folder / "c.tif", **kinds, **options)

    assert run(tmp_path / "whole").resumed == 0
    write = Journal.write

    def write_two(journal, *strip):
        if journal.strips == 2:
            raise KeyboardInterrupt
        write(journal, *strip)

    monkeypatch.setattr(Journal, "write", write_two)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped")
    monkeypatch.setattr(Journal, "write", write)
    # a map made meanwhile in the same place leaves what is done alone
    threshold_scene(tmp_path / "whole" / "p.tif", tmp_path / "stopped" / "c.tif")
    assert run(tmp_path / "stopped").resumed == 2
    for name in ("c.tif", "p.tif", "a.gpkg"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_own_polygons_serve_as_an_area_without_a_word(pair, tmp_path, recwarn):
    run = partial(predict_scene, NetworkDetector(pointwise()), *pair)
    made = run(tmp_path / "a.tif", polygons=tmp_path / "a.gpkg")  # beside the polygons stands a table of styles
    again = run(tmp_path / "b.tif", within=tmp_path / "a.gpkg")
    assert again.changed_pixels == again.valid_pixels == made.changed_pixels > 0
    assert not [str(warning.message) for warning in recwarn if "layer" in str(warning.message)]


def test_areas_and_masks_are_taken_as_paths_of_any_kind(pair, tmp_path):
    area = write_area(tmp_path / "area.gpkg", SECOND)
    clouds = np.zeros((1, *SHAPE), np.uint8)
    clouds[0, :9] = 1
    mask = write_raster(tmp_path / "clouds.tif", clouds)
    run = partial(predict_scene, NetworkDetector(pointwise()), *pair)
    run(tmp_path / "a.tif", within=str(area), mask=[str(mask)], summary=tmp_path / "a.json")
    run(tmp_path / "b.tif", within=Path(area), mask=Path(mask), summary=tmp_path / "b.json")
    assert (read(tmp_path / "a.tif") == read(tmp_path / "b.tif")).all()
    first, second = (json.loads((tmp_path / name).read_text())["settings"] for name in ("a.json", "b.json"))
    assert first == second


def test_an_option_that_does_not_exist_is_named_with_the_nearest(pair, tmp_path):
    detector = NetworkDetector(pointwise())
    run = partial(predict_scene, detector, *pair, tmp_path / "a.tif")
    for wrong, meant in (("polygon", "polygons"), ("treshold", "threshold"), ("resume", "expected one of .*overlap")):
        with pytest.raises(OptionError, match=f"^{wrong}: no such option; .*{meant}"):
            run(**{wrong: 1})
    with pytest.raises(OptionError, match="treshold: no such option; did you mean threshold"):
        threshold_scene(tmp_path / "p.tif", tmp_path / "b.tif", treshold=0.4)


def test_areas_and_masks_that_do_not_fit_are_refused_with_the_reason(pair, tmp_path):
    far = shapely.affinity.translate(SECOND, 1e5, 0)
    point = geopandas.GeoDataFrame(geometry=[shapely.Point(TRANSFORM @ (5, 5))], crs=UTM)
    point.to_file(tmp_path / "point.gpkg")
    geopandas.GeoDataFrame(geometry=[SECOND], crs=UTM).to_file(tmp_path / "two.gpkg", layer="one")
    geopandas.GeoDataFrame(geometry=[SECOND], crs=UTM).to_file(tmp_path / "two.gpkg", layer="other")
    (tmp_path / "bad.gpkg").write_text("no GeoPackage")
    two = np.zeros((2, *SHAPE), np.uint8)
    cases = [
        ({"within": write_area(tmp_path / "far.gpkg", far)}, r"within: .*far.gpkg does not overlap the pixels"),
        ({"within": write_area(tmp_path / "bare.gpkg", SECOND, crs=None)}, r"bare.gpkg: the file has no CRS, but"),
        ({"within": write_area(tmp_path / "none.gpkg")}, r"none.gpkg holds no polygon"),
        ({"within": tmp_path / "point.gpkg"}, r"point.gpkg: holds Point; expected polygons"),
        ({"within": tmp_path / "two.gpkg"}, r"two.gpkg has the layers one, other; expected one"),
        ({"within": tmp_path / "bad.gpkg"}, r"bad.gpkg: its content is not that of a .gpkg file"),
        ({"within": tmp_path / "absent.gpkg"}, rf"within: {tmp_path}/absent.gpkg: no such file"),
        ({"within": tmp_path / "area.txt"}, r"within: found .*area.txt, expected a vector file: .gpkg"),
        ({"mask": write_raster(tmp_path / "away.tif", two[:1], left=LEFT + 1e5)}, r"away.tif does not overlap the pix"),
        ({"mask": write_raster(tmp_path / "two.tif", two)}, r"mask: .*two.tif has 2 bands; expected one"),
        ({"mask": write_raster(tmp_path / "nowhere.tif", two[:1], crs=None)}, r"nowhere.tif: has no CRS, but"),
        ({"mask": tmp_path / "absent.tif"}, rf"mask: {tmp_path}/absent.tif: no such file"),
    ]
    model = pointwise()
    passes = Passes(model)
    for case, text in cases:
        options = {name: [str(path)] if name == "mask" else str(path) for name, path in case.items()}
        with pytest.raises(DataError, match=text):
            predict_scene(NetworkDetector(model), *pair, tmp_path / "c.tif", **options)
    assert not passes.sizes
    with pytest.raises(OutputError, match=r"first.tif is one of the inputs"):
        mask = write_raster(tmp_path / "first.tif", two[:1])
        predict_scene(NetworkDetector(model), *pair, mask, mask=[str(mask)])


def test_images_without_a_place_take_masks_of_their_size_and_areas_in_pixels(tmp_path):
    images = [write_raster(tmp_path / f"{n}.tif", ground(n, 40, 60), crs=None) for n in (1, 2)]
    cloud = np.zeros((1, 40, 60), np.uint8)
    cloud[0, 5:10, 7:20] = 1
    mask = write_raster(tmp_path / "m.tif", cloud, crs=None)
    area = geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 30, 20)])
    area.to_parquet(tmp_path / "a.parquet")
    detector = NetworkDetector(pointwise())
    within = str(tmp_path / "a.parquet")
    result = predict_scene(detector, *images, tmp_path / "c.tif", mask=[str(mask)], within=within)
    expected = np.zeros((40, 60), bool)
    expected[:20, :30] = True
    assert np.array_equal(read(tmp_path / "c.tif") != 255, expected & (cloud[0] == 0))
    assert result.changed_hectares is None
    small = write_raster(tmp_path / "small.tif", cloud[:, :20], crs=None)
    with pytest.raises(DataError, match=r"small.tif: is 20 x 60, but the other pixels are 40 x 60"):
        predict_scene(detector, *images, tmp_path / "c.tif", mask=[str(small)])


def test_the_picture_is_white_where_pixels_are_left_out(pair, tmp_path):
    from PIL import Image

    area = write_area(tmp_path / "a.gpkg", SECOND)
    predict_scene(
        NetworkDetector(pointwise()), *pair, tmp_path / "c.tif", within=str(area), quicklook=tmp_path / "q.png"
    )
    picture = np.array(Image.open(tmp_path / "q.png"))[:, : SHAPE[1]]
    inside = features.geometry_mask([SECOND], SHAPE, TRANSFORM, invert=True)
    assert np.array_equal((picture != 255).any(axis=2), inside)


# --- polygons and styles


def test_polygons_carry_their_largest_probability_and_a_confidence(tmp_path):
    values = np.zeros((1, 40, 60), np.float32)
    values[0, 5:15, 5:15] = 0.6
    values[0, 7, 7] = 0.9
    values[0, 20:30, 30:50] = 1.0
    path = write_raster(tmp_path / "p.tif", values)
    threshold_scene(path, tmp_path / "c.tif", polygons=tmp_path / "a.geojson", threshold=0.2)
    table = geopandas.read_file(tmp_path / "a.geojson").sort_values("pixels")
    mean = (99 * 0.6 + 0.9) / 100
    assert list(table.mean_probability) == pytest.approx([mean, 1.0])
    assert list(table.max_probability) == pytest.approx([0.9, 1.0])
    assert list(table.confidence) == pytest.approx([(mean - 0.2) / 0.8, 1.0])


def test_a_mask_and_polygons_of_one_name_share_a_folder(tmp_path):
    path = write_raster(tmp_path / "p.tif", np.random.default_rng(0).random((1, 30, 30)).astype(np.float32))
    for ending in (".geojson", ".gpkg", ".parquet"):
        out = tmp_path / ending
        threshold_scene(path, out / "change.tif", polygons=out / f"change{ending}")
        assert {file.name for file in out.iterdir()} == {"change.tif", "change.qml", f"change{ending}"}
        style = (out / "change.qml").read_text()
        # the mask has its colours in itself
        assert ("<renderer-v2" in style) == (ending != ".gpkg")
        with rasterio.open(out / "change.tif") as source:
            assert source.colormap(1)[1] == (227, 26, 28, 255)


@pytest.mark.parametrize(
    "turn", [Affine.rotation(30), Affine.rotation(100), Affine.translation(0, 40) @ Affine.scale(1, -1)]
)
def test_probabilities_whose_pixels_are_turned_give_a_map_on_the_same_pixels(turn, tmp_path):
    transform = TRANSFORM @ turn
    values = np.zeros((1, 40, 60), np.float32)
    values[0, 5:15, 10:30], values[0, 30:35, 50:58], values[0, :, :3] = 0.9, 0.7, np.nan
    path = write_raster(tmp_path / "p.tif", values, transform=transform)
    cloud = np.zeros((1, 40, 60), np.uint8)
    cloud[0, :7] = 1
    clouds = write_raster(tmp_path / "clouds.tif", cloud, transform=transform)
    area = tmp_path / "area.gpkg"
    corners = ((8.2, 3.3), (32.4, 3.3), (32.4, 20.2), (8.2, 20.2))
    geopandas.GeoDataFrame(geometry=[shapely.Polygon([transform @ c for c in corners])], crs=UTM).to_file(area)
    expected = np.where(np.isnan(values), 255, values > 0.5)[0]
    result = threshold_scene(path, tmp_path / "c.tif", polygons=tmp_path / "c.gpkg")
    with rasterio.open(tmp_path / "c.tif") as source:
        assert source.transform.almost_equals(transform, 1e-6)
        assert (source.read(1) == expected).all()
    assert result.changed_hectares == pytest.approx(240 * 0.25 / 1e4, rel=1e-6)
    table = geopandas.read_file(tmp_path / "c.gpkg", layer="c")
    assert table.pixels.tolist() == [200, 40] and table.area_m2.tolist() == pytest.approx([50, 10], rel=1e-6)
    outline = shapely.Polygon([transform @ corner for corner in ((10, 5), (30, 5), (30, 15), (10, 15))])
    assert table.geometry.iloc[0].symmetric_difference(outline).area < 1e-3
    part = threshold_scene(path, tmp_path / "d.tif", within=str(area), mask=[str(clouds)])
    inside = np.zeros((40, 60), bool)
    inside[7:20, 8:32] = True
    assert (read(tmp_path / "d.tif") == np.where(inside, expected, 255)).all()
    assert part.valid_pixels == inside.sum()


def test_nothing_that_is_left_names_what_leaves_it_out(pair, tmp_path):
    everything = write_raster(tmp_path / "m.tif", np.ones((1, *SHAPE), np.uint8))
    between = write_area(tmp_path / "t.gpkg", at((1, 1), (1.1, 1), (1.1, 1.1)))
    for options in ({"mask": [str(everything)]}, {"within": str(between)}):
        with pytest.raises(DataError, match="left out by within or mask"):
            predict_scene(NetworkDetector(pointwise()), *pair, tmp_path / "c.tif", **options)
    with pytest.raises(DataError, match=r"t.gpkg is a vector file.*within"):
        predict_scene(NetworkDetector(pointwise()), *pair, tmp_path / "c.tif", mask=[str(between)])


def test_areas_with_holes_and_of_several_parts_keep_the_pixels_whose_centre_they_cover(pair, tmp_path):
    outer, hole = ((35, 15), (70, 15), (70, 40), (35, 40)), ((45, 22), (55, 22), (55, 27), (45, 27))
    part = ((100, 60), (110, 60), (110, 70), (100, 70))
    ring, inner, other = ([TRANSFORM @ corner for corner in corners] for corners in (outer, hole, part))
    area = write_area(
        tmp_path / "a.gpkg", shapely.MultiPolygon([shapely.Polygon(ring, [inner]), shapely.Polygon(other)])
    )
    predict_scene(NetworkDetector(pointwise()), *pair, tmp_path / "c.tif", within=str(area))
    expected = np.zeros(SHAPE, bool)
    expected[15:40, 35:70], expected[22:27, 45:55], expected[60:70, 100:110] = True, False, True
    assert ((read(tmp_path / "c.tif") != 255) == (expected & (read(pair[0]) != 0) & (read(pair[1]) != 0))).all()


# --- ties, outlines, open files, and what is on the disk first


def test_a_pixel_at_the_threshold_is_unchanged(tmp_path):
    values = np.array([[0.25, 0.5, np.nextafter(np.float32(0.5), np.float32(1)), 0.75, np.nan]], np.float32)
    path = write_raster(tmp_path / "p.tif", values[None])
    threshold_scene(path, tmp_path / "c.tif", threshold=0.5)
    assert read(tmp_path / "c.tif").tolist() == [[0, 0, 1, 1, 255]]
    assert prediction._car(path) == 2 / 4  # of the pixels with data


@pytest.mark.parametrize("side", [2, 10])
def test_corners_are_cut_off_twice_by_the_lengths_that_are_stated(side):
    """Triangles come off a square: first with legs of 0.7 pixels at most, then of 0.2, or a quarter of the side."""
    smooth = polygons._smoothed(shapely.box(0, 0, side, side))
    first = min(0.7, side / 4)
    along, slanted = side - 2 * first, first * 2**0.5
    legs = min(0.2, along / 4), min(0.2, slanted / 4)
    area = side**2 - 4 * first**2 / 2 - 8 * legs[0] * legs[1] * np.sin(np.pi / 4) / 2
    assert smooth.area == pytest.approx(area)
    assert len(smooth.exterior.coords) == 17
    assert smooth.bounds == (0, 0, side, side)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs the list of a process's open files")
@pytest.mark.parametrize("shift", [None, Shift(0.5, 0.5)])
def test_no_raster_stays_open(shift, tmp_path):
    path = write_raster(tmp_path / "date.tif", np.zeros((3, 20, 20), np.uint8))
    source = open_source(path, "before")

    def open_files() -> int:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return sum(os.path.realpath(link) == os.path.realpath(path) for link in links)

    with DateOnGrid(source, source.grid, shift) as date:
        date.read(Window(0, 0, 5, 5))
        assert open_files()
    assert not open_files()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs the names of open files")
def test_every_file_is_on_the_disk_before_its_name_says_so(pair, tmp_path, monkeypatch):
    """The journal follows its strip, and no file takes its place before its content is on the disk."""
    events = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor):
        events.append(("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def renamed(path, target):
        events.append(("rename", path.name, Path(target).name))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    out = {"output": tmp_path / "out" / "c.tif", "probability": tmp_path / "out" / "p.tif"}
    predict_scene(
        NetworkDetector(pointwise()), *pair, **out, summary=tmp_path / "out" / "s.json", tile=48, overlap=4
    )  # fmt: skip
    places = [place for place, event in enumerate(events) if event[0] == "rename"]
    assert {events[place][2] for place in places} == {"journal.npz", "c.tif", "c.qml", "p.tif", "p.qml", "s.json"}
    strips = [place for place in places if events[place][2] == "journal.npz"]
    assert len(strips) > 2
    for place, begin in zip(places, [0, *places], strict=False):
        since = events[begin:place]
        assert ("fsync", events[place][1]) in since
        if place in strips:
            assert since.index(("fsync", "probability.tif")) < since.index(("fsync", events[place][1]))
    assert events[places[-1]][2] == "s.json"  # it says that all others are there
