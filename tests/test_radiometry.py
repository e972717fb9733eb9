"""Values and pixels of scenes whose files say how they are to be read: tags, names of bands, geometry, borders."""

import json
import re
import shlex
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.warp import Resampling, reproject

from bitemporal.cli.main import main
from bitemporal.errors import DataError, OptionError
from bitemporal.imagery import colours, read_image
from bitemporal.imagery.borders import zero_border
from bitemporal.imagery.scale import mostly_clipped
from bitemporal.imagery.scale import scale as as_channels
from bitemporal.inference import NetworkDetector, predict_files
from bitemporal.inference.bundle import save_bundle
from bitemporal.models import create_model
from bitemporal.pairs import PairFolder, check_pairs, resolve_decoding
from bitemporal.scenes import predict_scene, read_manifest
from bitemporal.scenes.bands import StatedBand
from bitemporal.scenes.grids import DateOnGrid
from bitemporal.scenes.sources import open_source
from bitemporal.scenes.values import look, scale_channels, value_range
from remedies import follow_commands, follow_keywords, follow_options, follow_tools
from scene_files import LEFT, TOP, UTM, ground, read, write_raster
from stub_networks import convolutional, pointwise

NORTH_UP = Affine(0.5, 0.0, LEFT, 0.0, -0.5, TOP)


pytestmark = pytest.mark.usefixtures("stubs")


def tag(path, scale=0.0001, offset=0.0):
    """Write scale and offset into the bands of a file."""
    with rasterio.open(path, "r+") as target:
        target.scales, target.offsets = (scale,) * target.count, (offset,) * target.count
    return path


def reflectances(seed, height=90, width=120):
    return ground(seed, height, width).astype(np.uint16) * 12 + 200


def network_input(before, after, image_range=None):
    """What a network would see of two files, C x H x W each, and the range."""
    sources = open_source(before, "before"), open_source(after, "after")
    ranges = value_range(*sources, tuple(map(look, sources)), image_range)
    inputs = []
    for source in sources:
        with DateOnGrid(source, source.grid) as date:
            inputs.append(scale_channels(date.read_overview(10_000)[0], ranges))
    return inputs, ranges


def said(call):
    """Texts of the warnings of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        call()
    return [str(warning.message) for warning in caught if warning.category is UserWarning]


# --- scale and offset


def test_an_offset_of_one_date_is_no_change(tmp_path):
    """Sentinel-2 stores larger values by 1000 since baseline 04.00, and says so."""
    first, second = reflectances(1), reflectances(2)
    old = tag(write_raster(tmp_path / "old.tif", first))
    new = tag(write_raster(tmp_path / "new.tif", second + 1000), offset=-0.1)
    same = tag(write_raster(tmp_path / "same.tif", second))
    with_offset, ranges = network_input(old, new)
    without, _ = network_input(old, same)
    assert np.array_equal(with_offset, without)
    physical = np.concatenate((first.reshape(3, -1), second.reshape(3, -1)), axis=1) * 0.0001
    assert np.allclose(ranges, np.percentile(physical, (1, 99), axis=1).T)
    low, high = (np.array(side)[:, None, None] for side in zip(*ranges, strict=True))
    expected = np.rint(np.clip((second * 0.0001 - low) * 255 / (high - low), 0, 255))
    assert np.abs(with_offset[1] - expected).max() <= 1  # 1 where a value lies on the edge of two roundings
    assert (with_offset[1] == expected).mean() > 0.999
    maps = []
    for i, after in enumerate((new, same)):
        predict_scene(
            NetworkDetector(convolutional(0)), old, after, tmp_path / "c.tif", probability=tmp_path / f"{i}.tif"
        )
        maps.append(read(tmp_path / f"{i}.tif"))
    assert np.array_equal(*maps)
    with rasterio.open(tmp_path / "c.tif") as source:
        assert json.loads(source.tags()["SCALE_OFFSET"])[0] == [[0.0001, 0.0]] * 3


def test_a_range_that_is_stated_is_of_values_after_scale_and_offset(tmp_path):
    first, second = reflectances(1), reflectances(2)
    tagged = [tag(write_raster(tmp_path / f"t{i}.tif", date)) for i, date in enumerate((first, second))]
    plain = [write_raster(tmp_path / f"p{i}.tif", date) for i, date in enumerate((first, second))]
    assert np.array_equal(network_input(*tagged, (0.0, 0.255))[0], network_input(*plain, (0.0, 2550.0))[0])


def test_an_offset_of_one_date_alone_is_applied_to_it(tmp_path):
    """Sentinel-2 of baseline 04.00, whose tag says -1000, against an older date without tags: both raw values."""
    first, second = reflectances(1), reflectances(2)
    old, plain = (write_raster(tmp_path / f"{n}.tif", values) for n, values in (("old", first), ("plain", second)))
    new = tag(write_raster(tmp_path / "new.tif", second + 1000), 1.0, -1000.0)
    for dates, same in (((old, new), (old, plain)), ((new, old), (plain, old))):
        found, ranges = network_input(*dates)
        expected, _ = network_input(*same)
        assert all(np.array_equal(*inputs) for inputs in zip(found, expected, strict=True))
    physical = np.concatenate((first.reshape(3, -1), second.reshape(3, -1)), axis=1)
    assert np.allclose(ranges, np.percentile(physical, (1, 99), axis=1).T)
    detector = NetworkDetector(convolutional(0))
    (text,) = said(lambda: predict_scene(detector, old, new, tmp_path / "c.tif", probability=tmp_path / "p.tif"))
    predict_scene(detector, old, plain, tmp_path / "c.tif", probability=tmp_path / "q.tif")
    assert np.array_equal(read(tmp_path / "p.tif"), read(tmp_path / "q.tif"))
    assert "x 1 -1000" in text and str(old) in text and "--before-scaling 1,-1000" in text
    # where both are stored in the same way, the option that the warning names says so
    raw = write_raster(tmp_path / "raw.tif", first + 1000)
    options = follow_keywords(
        text,
        lambda **more: predict_scene(detector, raw, new, tmp_path / "c.tif", probability=tmp_path / "r.tif", **more),
    )
    assert options == [{"before_scaling": (1, -1000)}]
    assert np.array_equal(read(tmp_path / "r.tif"), read(tmp_path / "q.tif"))


def test_a_scale_of_one_date_alone_is_refused_with_options_that_decide(tmp_path, monkeypatch, capsys):
    first, second = reflectances(1), reflectances(2)
    old = write_raster(tmp_path / "old.tif", first)
    new = tag(write_raster(tmp_path / "new.tif", second + 1000), 0.0001, -0.1)
    detector = NetworkDetector(convolutional(0))

    def run(before=old, **options):
        predict_scene(detector, before, new, tmp_path / "c.tif", probability=tmp_path / "p.tif", **options)

    with pytest.raises(
        DataError, match=r"new.tif\) has scale and offset \(x 0.0001 -0.1\), and before .*old.tif"
    ) as caught:
        run()
    named = follow_keywords(str(caught.value), run)
    assert named == [{"before_scaling": (0.0001, 0)}, {"before_scaling": (0.0001, -0.1)}, {"before_scaling": (1, 0)}]
    tagged = [tag(write_raster(tmp_path / f"t{i}.tif", values)) for i, values in enumerate((first, second))]
    predict_scene(detector, *tagged, tmp_path / "c.tif", probability=tmp_path / "expected.tif")
    run(**named[0])
    assert np.array_equal(read(tmp_path / "p.tif"), read(tmp_path / "expected.tif"))
    run(write_raster(tmp_path / "raw.tif", first + 1000), **named[1])
    assert np.array_equal(read(tmp_path / "p.tif"), read(tmp_path / "expected.tif"))
    floats = write_raster(tmp_path / "floats.tif", first * 0.0001)
    for options in ({}, named[2]):  # floats are physical
        run(floats, **options)
        difference = np.abs(read(tmp_path / "p.tif") - read(tmp_path / "expected.tif"))
        assert np.median(difference) == 0 and difference.mean() < 1e-3  # 1e-4 is no binary fraction: some roundings
    # on the command line, in a picture made anew too
    save_bundle(tmp_path / "bundle", create_model("test_fc").eval())
    words = ["predict-scene", str(old), str(new), "--bundle", str(tmp_path / "bundle"), "-o", str(tmp_path / "c.tif")]
    words += ["--probability", str(tmp_path / "p.tif"), "--quicklook", str(tmp_path / "look.png")]
    assert main(words) == 1
    assert len(follow_options(capsys.readouterr().err, words)) == 3
    assert main([*words, "--before-scaling", "0.0001,0"]) == 0
    again = [
        "threshold",
        str(tmp_path / "p.tif"),
        "-o",
        str(tmp_path / "d.tif"),
        "--quicklook",
        str(tmp_path / "d.png"),
    ]
    assert main([*again, "--before", str(old), "--after", str(new)]) == 0
    assert (tmp_path / "d.png").read_bytes() == (tmp_path / "look.png").read_bytes()


@pytest.mark.parametrize("numbers", [(0.1,), (0.0, 1.0), (1.0, 0.0, 1.0, 0.0), (float("nan"), 0.0)])
def test_a_scaling_that_is_none_is_refused(numbers, tmp_path):
    files = [write_raster(tmp_path / f"{i}.tif", reflectances(i)) for i in range(2)]
    with pytest.raises(OptionError, match=r"after_scaling: .*--after-scaling 0.0001,-0.1"):
        predict_scene(NetworkDetector(pointwise()), *files, tmp_path / "c.tif", after_scaling=numbers)


def test_dates_of_two_types_need_a_range_unless_both_are_physical(tmp_path):
    values = reflectances(1)
    integers = write_raster(tmp_path / "i.tif", values)
    floats = write_raster(tmp_path / "f.tif", (reflectances(2) * 0.0001).astype(np.float32))
    with pytest.raises(DataError, match=r"holds uint16, .* float32, .*--image-range") as caught:
        predict_scene(NetworkDetector(pointwise()), integers, floats, tmp_path / "c.tif")
    given = re.search(r"--image-range (\S+) ", str(caught.value))[1]
    predict_scene(
        NetworkDetector(pointwise()),
        integers,
        floats,
        tmp_path / "c.tif",
        image_range=tuple(map(float, given.split(","))),
    )
    tag(integers)
    _, ranges = network_input(integers, floats)
    both = np.concatenate((values.reshape(3, -1) * 0.0001, reflectances(2).reshape(3, -1) * 0.0001), axis=1)
    assert np.allclose(ranges, np.percentile(both, (1, 99), axis=1).T)


# --- STAC


def item(name, date, assets, **properties):
    return {"id": name, "properties": {"grid:code": "T1", "datetime": date, **properties}, "assets": assets}


def manifest(tmp_path, *items):
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


OFFSET = {"raster:bands": [{"scale": 0.0001, "offset": -0.1, "nodata": 0}]}
NEW_OFFSET = {"bands": [{"raster:scale": 0.0001, "raster:offset": -0.1, "nodata": 0}]}
LIFTED = {"raster:scale": 0.0001, "raster:offset": -0.1, "nodata": 0}


@pytest.mark.parametrize("extra", [OFFSET, NEW_OFFSET, LIFTED])
def test_what_stac_says_of_bands_is_kept(extra, tmp_path):
    assets = {colour: {"href": f"{colour}.tif", **extra} for colour in ("blue", "green", "red")}
    path = manifest(tmp_path, *(item(d, f"202{d}-01-01", assets) for d in "13"))
    (scene,) = read_manifest(path)
    assert scene.before == tuple(str(tmp_path / f"{colour}.tif") for colour in ("red", "green", "blue"))
    assert scene.stated[scene.before[0]] == (StatedBand(name="", scale=0.0001, offset=-0.1, nodata=0.0),)


def test_an_offset_that_is_in_the_pixels_already_is_not_applied_again(tmp_path):
    assets = {colour: {"href": f"{colour}.tif", **OFFSET} for colour in ("blue", "green", "red")}
    applied = {"earthsearch:boa_offset_applied": True}
    (scene,) = read_manifest(manifest(tmp_path, *(item(d, f"202{d}-01-01", assets, **applied) for d in "13")))
    assert {band.offset for bands in scene.stated.values() for band in bands} == {0.0}


def test_stated_offsets_reach_the_map_of_an_archive(tmp_path):
    first, second = reflectances(1), reflectances(2)
    first[:, :, :30] = 0
    features = []
    for date, values, add, offset in (("2020", first, 0, 0.0), ("2023", second, 1000, -0.1)):
        assets = {}
        for i, colour in enumerate(("red", "green", "blue")):
            write_raster(tmp_path / f"{colour}{date}.tif", values[i : i + 1] + add)
            bands = [{"scale": 0.0001, "offset": offset, "nodata": 0}]
            named = [{"name": f"B{i}", "common_name": colour}]
            assets[f"asset{i}"] = {"href": f"{colour}{date}.tif", "eo:bands": named, "raster:bands": bands}
        features.append(item(date, f"{date}-01-01", assets))
    (scene,) = read_manifest(manifest(tmp_path, *features))
    sources = [open_source(files, "date", stated=scene.stated) for files in (scene.before, scene.after)]
    expected = (first * 0.0001, second * 0.0001)
    for source, values, empty in zip(sources, expected, (30, 0), strict=True):
        with DateOnGrid(source, source.grid) as date:
            samples, valid = date.read_overview(10_000)
        assert np.array_equal(valid, np.arange(120) >= np.full((90, 1), empty))
        assert np.allclose(samples[:, valid], values[:, valid], atol=1e-12)


def test_baselines_that_differ_without_a_stated_offset_are_a_warning(tmp_path):
    assets = {name: {"href": f"{name}.tif"} for name in ("B04", "B03", "B02")}

    def warned(first, second, extra):
        described = {name: asset | extra for name, asset in assets.items()}
        items = [
            item(d, f"202{d}-01-01", described, **{"s2:processing_baseline": b})
            for d, b in (("1", first), ("3", second))
        ]
        return read_manifest(manifest(tmp_path, *items))[0].warnings

    (text,) = warned("02.14", "05.09", {})
    assert "02.14 and 05.09" in text
    remedy = json.loads("{" + re.search(r'add ("raster:bands": \[.*?\])', text)[1] + "}")
    assert warned("02.14", "05.09", remedy) == ()
    assert warned("04.00", "05.09", {}) == ()


# --- bands


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("T50_20200101_B04_10m", "red"),
        ("B02", "blue"),
        ("LC08_L2SP_SR_B4", "red"),
        ("LE07_SR_B4", None),
        ("Green", "green"),
        ("Red Edge 1", None),
        ("B08", None),
        ("greenland", None),
        ("red or blue", None),
    ],
)
def test_the_colour_that_a_name_says(name, expected):
    assert colours.colour(name) == expected


@pytest.mark.parametrize("by", ["file", "description", "colour", "stac"])
def test_bands_whose_names_say_so_are_put_in_order(by, tmp_path):
    bands = reflectances(1)  # red, green, blue
    stated = None
    if by in ("file", "stac"):
        names = ("B02", "B03", "B04") if by == "file" else ("x", "y", "z")
        files = [write_raster(tmp_path / f"{n}.tif", bands[2 - i : 3 - i]) for i, n in enumerate(names)]
        stated = {str(file): (StatedBand(name=n),) for file, n in zip(files, ("blue", "green", "red"), strict=True)}
        source = open_source(files, "before", stated=stated if by == "stac" else None)
    else:
        path = write_raster(tmp_path / "bgr.tif", bands[::-1])
        with rasterio.open(path, "r+") as target:
            if by == "description":
                target.descriptions = ("B2 blue", "B3 green", "B4 red")
            else:
                target.colorinterp = [rasterio.enums.ColorInterp[name] for name in ("blue", "green", "red")]
        source = open_source(path, "before")
        assert open_source(path, "before", (1, 2, 3)).channels[0][1] == 1  # what is stated stays
    with DateOnGrid(source, source.grid) as date:
        assert np.array_equal(date.read_overview(10_000)[0], bands)
    assert len(source.notes) == 1 and "put in the order red, green, blue" in source.notes[0]


def test_bands_of_several_pixel_sizes_are_resampled_to_the_finest(tmp_path):
    fine = ground(1, 80, 120)
    coarse = ground(2, 40, 60)[:1]
    files = [
        write_raster(tmp_path / "red.tif", fine[:1]),
        write_raster(tmp_path / "green.tif", fine[1:2]),
        write_raster(tmp_path / "blue.tif", coarse, pixel=1.0),
    ]
    source = open_source(files, "before")
    assert (source.grid.width, source.grid.height, source.grid.transform) == (120, 80, NORTH_UP)
    assert [note for note in source.notes if "blue.tif" in note and "is resampled" in note]
    with DateOnGrid(source, source.grid) as date:
        samples, valid = date.read_overview(10_000)
    expected = np.zeros((80, 120), np.uint8)
    reproject(
        coarse[0], expected, src_transform=Affine(1, 0, LEFT, 0, -1, TOP), src_crs=UTM, dst_transform=NORTH_UP,
        dst_crs=UTM, resampling=Resampling.bilinear,
    )  # fmt: skip
    assert valid.all()
    assert np.array_equal(samples[:2], fine[:2])
    assert np.abs(samples[2].astype(int) - expected).max() <= 1


def test_bands_of_several_areas_are_refused_with_a_remedy_that_works(tmp_path):
    bands = ground(1, 80, 120)
    files = [write_raster(tmp_path / f"{i}.tif", bands[i : i + 1], left=LEFT + (3 if i == 2 else 0)) for i in range(3)]
    with pytest.raises(DataError, match="do not cover the same area") as caught:
        open_source(files, "before")
    (command,) = follow_tools(str(caught.value))
    cut = Path(command[3])
    assert open_source([*files[:2], cut], "before").grid.width == 120


# --- geometry


def turned(path, array, kind):
    """A copy of a north-up raster that is stored in another way."""
    count, height, width = array.shape
    profile = {"driver": "GTiff", "count": count, "dtype": array.dtype}
    place, stored = {"crs": UTM}, array
    match kind:
        case "south up":
            place["transform"] = NORTH_UP @ Affine.translation(0, height) @ Affine.scale(1, -1)
            stored = array[:, ::-1]
        case "mirrored":
            place["transform"] = NORTH_UP @ Affine.translation(width, 0) @ Affine.scale(-1, 1)
            stored = array[:, :, ::-1]
        case "quarter turn":  # its columns run down
            place["transform"] = Affine(0, 0.5, LEFT, -0.5, 0, TOP)
            stored = array.transpose(0, 2, 1)
        case "points":
            corners = [(row, column) for row in (0, height / 2, height) for column in (0, width / 2, width)]
            ground_points = [NORTH_UP @ (column, row) for row, column in corners]
            place["gcps"] = [
                GroundControlPoint(row=row, col=column, x=x, y=y)
                for (row, column), (x, y) in zip(corners, ground_points, strict=True)
            ]
    with rasterio.open(path, "w", height=stored.shape[1], width=stored.shape[2], **profile, **place) as target:
        target.write(stored)
    return path


@pytest.mark.parametrize("kind", ["south up", "mirrored", "quarter turn", "points"])
def test_pixels_that_are_not_north_up_are_read_as_if_they_were(kind, tmp_path):
    before, after = ground(1, 90, 120), ground(2, 90, 120)
    plain = [write_raster(tmp_path / f"{n}.tif", date) for n, date in (("b", before), ("a", after))]
    other = [turned(tmp_path / f"{n}-other.tif", date, kind) for n, date in (("b", before), ("a", after))]
    maps = []
    for name, files in (("plain", plain), ("other", other), ("mixed", (plain[0], other[1]))):
        predict_scene(
            NetworkDetector(convolutional(0)), *files, tmp_path / "c.tif", probability=tmp_path / f"{name}.tif"
        )
        with rasterio.open(tmp_path / f"{name}.tif") as source:
            assert source.transform.almost_equals(NORTH_UP, 1e-6)
        maps.append(read(tmp_path / f"{name}.tif"))
    assert maps[0].std() > 0.05
    assert np.allclose(maps[0], maps[1], atol=1e-6)
    assert np.allclose(maps[0], maps[2], atol=1e-6)


def test_a_rotated_scene_gives_the_map_of_the_scene_that_it_was_made_from(tmp_path):
    before, after = ground(1, 160, 160), ground(2, 160, 160)
    plain = [write_raster(tmp_path / f"{n}.tif", date) for n, date in (("b", before), ("a", after))]
    rotation = NORTH_UP @ Affine.translation(20, 60) @ Affine.rotation(-30)
    rotated = []
    for path in plain:
        with rasterio.open(path) as source:
            array = source.read()
        turned_array = np.zeros((3, 90, 90), np.uint8)
        reproject(
            array, turned_array, src_transform=NORTH_UP, src_crs=UTM, dst_transform=rotation, dst_crs=UTM,
            resampling=Resampling.cubic,
        )  # fmt: skip
        name = path.with_name(f"r-{path.name}")
        with rasterio.open(
            name, "w", driver="GTiff", count=3, height=90, width=90, dtype="uint8", crs=UTM, transform=rotation
        ) as target:
            target.write(turned_array)
        rotated.append(name)
    notes = said(
        lambda: predict_scene(
            NetworkDetector(pointwise(0.1, 0.0)), *rotated, tmp_path / "c.tif", probability=tmp_path / "r.tif"
        )
    )
    assert sum("rotated pixels" in note for note in notes) == 2
    with rasterio.open(tmp_path / "r.tif") as source:
        found, transform = source.read(1), source.transform
    assert (transform.a, transform.e, transform.b) == (pytest.approx(0.5), pytest.approx(-0.5), 0)
    # every pixel of the result lies somewhere among those of the scene that was rotated
    expected = np.full(found.shape, np.nan)
    predict_scene(NetworkDetector(pointwise(0.1, 0.0)), *plain, tmp_path / "c.tif", probability=tmp_path / "p.tif")
    reproject(
        read(tmp_path / "p.tif"), expected, src_transform=NORTH_UP, src_crs=UTM, dst_transform=transform, dst_crs=UTM,
        resampling=Resampling.bilinear, dst_nodata=np.nan,
    )  # fmt: skip
    both = np.isfinite(found) & np.isfinite(expected)
    assert both.mean() > 0.4 and 0.1 < np.isnan(found).mean() < 0.6
    assert np.abs(found - expected)[both].mean() < 0.02
    assert np.nanstd(expected) > 0.2


def test_rational_polynomial_coefficients_place_a_scene(tmp_path):
    array = ground(1, 60, 80)
    unit = [1.0] + [0.0] * 19
    across, down = [0.0, 1.0] + [0.0] * 18, [0.0, 0.0, -1.0] + [0.0] * 17
    rpc = RPC(
        height_off=0, height_scale=100, lat_off=36.0, lat_scale=0.001, long_off=117.0, long_scale=0.001, line_off=30,
        line_scale=30, samp_off=40, samp_scale=40, line_num_coeff=down, line_den_coeff=unit, samp_num_coeff=across,
        samp_den_coeff=unit, err_bias=0, err_rand=0,
    )  # fmt: skip
    path = tmp_path / "rpc.tif"
    with rasterio.open(path, "w", driver="GTiff", height=60, width=80, count=3, dtype="uint8", rpcs=rpc) as target:
        target.write(array)
    source = open_source(path, "before")
    assert source.grid.crs.to_epsg() == 4326
    left, top = source.grid.transform.c, source.grid.transform.f
    assert (left, top) == (pytest.approx(116.999, abs=5e-5), pytest.approx(36.001, abs=5e-5))
    with DateOnGrid(source, source.grid) as date:
        samples, valid = date.read_overview(10_000)
    assert valid.mean() > 0.9
    assert samples[:, valid].mean() == pytest.approx(array.mean(), rel=0.02)


# --- borders of zeros


def test_the_border_is_what_hangs_together_with_the_edge():
    zero = np.zeros((10, 20), bool)
    zero[:, :4] = True
    zero[5:7, 10:12] = True  # a lake
    assert zero_border(zero) == 40 / 200
    valid = np.ones_like(zero)
    valid[:, 16:] = False
    zero[2, 15] = True
    assert zero_border(zero, valid) == 41 / 160


@pytest.mark.parametrize("kind", ["8 bits", "scaled", "large"])
def test_an_undeclared_border_is_named_with_an_option_that_works(kind, tmp_path):
    side = 1400 if kind == "large" else 100
    before, after = (np.maximum(ground(seed, side, side), 1) for seed in (1, 2))
    after[:, :, : side * 2 // 5] = 0
    if kind == "scaled":
        before, after = before.astype(np.uint16), after.astype(np.uint16)
    files = [write_raster(tmp_path / f"{n}.tif", date) for n, date in (("b", before), ("a", after))]
    if kind == "scaled":
        for file in files:
            tag(file, offset=-0.1)
    detector = NetworkDetector(pointwise())
    (text,) = said(lambda: predict_scene(detector, *files, tmp_path / "c.tif"))
    share = re.search(re.escape(f"after ({files[1]}): ") + r"(\d+)% of its pixels are a border of exact zeros", text)[1]
    assert int(share) == pytest.approx(40, abs=1)  # windows show a part of a large scene
    assert "--nodata 0 (nodata=0)" in text
    assert said(lambda: predict_scene(detector, *files, tmp_path / "c.tif", nodata=0)) == []
    assert np.array_equal(read(tmp_path / "c.tif") == 255, (after == 0).all(axis=0))


# --- remedies of rasters that cannot be placed


def test_remedies_of_places_work_as_they_are_printed(tmp_path):
    good = write_raster(tmp_path / "good one.tif", ground(1, 60, 80))
    for name, profile in (
        ("none", {"crs": None}),
        ("transform alone", {"crs": None, "transform": NORTH_UP}),
        ("crs alone", {"transform": Affine.identity()}),
        ("not degrees", {"crs": "EPSG:4326"}),
    ):
        path = tmp_path / f"{name}.tif"
        array = ground(2, 60, 80)
        if name == "crs alone":
            with rasterio.open(
                path, "w", driver="GTiff", height=60, width=80, count=3, dtype="uint8", crs=UTM
            ) as target:
                target.write(array)
        else:
            write_raster(path, array, **profile)
        with pytest.raises(DataError) as caught:
            predict_scene(NetworkDetector(pointwise()), path, good, tmp_path / "c.tif")
        follow_tools(str(caught.value))
        open_source(path, "before")
        if name == "none":
            predict_scene(NetworkDetector(pointwise()), path, good, tmp_path / "c.tif")
            with rasterio.open(path) as source:
                assert source.transform == NORTH_UP


# ---------------------------------------------------------------- folders of pairs


def folder_of_pairs(root, dates, label=None):
    """One pair of GeoTIFFs as a folder."""
    for name, array in zip("AB", dates, strict=True):
        (root / name).mkdir(parents=True)
        write_raster(root / name / "0.tif", array)
    (root / "label").mkdir()
    write_raster(root / "label/0.tif", np.zeros((1, *dates[0].shape[1:]), np.uint8) if label is None else label)
    return root


@pytest.mark.parametrize("bands", [3, 1])
def test_offsets_of_bands_make_no_difference_in_pairs(tmp_path, bands):
    """As Sentinel-2 since baseline 04.00: 1000 more in the file, and a tag that says so."""
    dates = [reflectances(seed, 40, 50)[:bands] for seed in (1, 2)]
    plain = folder_of_pairs(tmp_path / "plain", dates)
    moved = folder_of_pairs(tmp_path / "moved", [dates[0], dates[1] + np.uint16(1000)])
    for root, offsets in ((plain, (0.0, 0.0)), (moved, (0.0, -0.1))):
        for name, offset in zip("AB", offsets, strict=True):
            tag(root / name / "0.tif", 0.0001, offset)
    pairs = [PairFolder(root, image_range=(0.02, 0.3)) for root in (plain, moved)]
    one, other = (resolve_decoding(folder).load(folder.pairs()[0]) for folder in pairs)
    assert (one.before == other.before).all()
    assert (one.after == other.after).all()
    expected = np.rint(np.clip((dates[1] * 0.0001 - 0.02) / 0.28, 0, 1) * 255).transpose(1, 2, 0)
    assert np.abs(one.after - np.broadcast_to(expected, one.after.shape)).max() <= 1  # of rounding
    assert any("scale and offset of its bands applied" in warning for warning in check_pairs(pairs[1]).warnings)


def test_a_border_of_zeros_in_pairs_is_named_with_a_remedy_that_works(tmp_path, monkeypatch, capsys):
    dates = [ground(seed, 64, 64) for seed in (1, 2)]
    label = np.zeros((1, 64, 64), np.uint8)
    label[:, 30:40, 30:40] = 255
    root = folder_of_pairs(tmp_path / "whole", dates, label)
    assert not any("border" in warning for warning in check_pairs(PairFolder(root)).warnings)
    dates[1][:, :, :20] = 0
    dates[1][:, 40, 40] = 0  # dark, and no border
    root = folder_of_pairs(tmp_path / "part", dates, label)
    monkeypatch.chdir(tmp_path)
    (warning,) = (text for text in check_pairs(PairFolder(root)).warnings if "border of exact zeros" in text)
    assert "1 file" in warning and "B/0.tif" in warning
    follow_commands(warning)
    assert (read(tmp_path / "tiles/label/0_0000_0000.tif")[:, :20] == 127).all()
    capsys.readouterr()


# --- 180 degrees of longitude


@pytest.mark.parametrize("left", [179.9952, -180.0048])
def test_dates_on_both_sides_of_180_degrees_are_one_place(left, tmp_path):
    """Longitudes of 0 to 360 on one date, or pixels that run across 180 degrees."""
    first, second = ground(1, 60, 96), ground(2, 60, 96)
    place = {"crs": "EPSG:4326", "pixel": 1e-4, "top": 10.0}
    before = write_raster(tmp_path / "a.tif", first, left=left, **place)
    after = write_raster(tmp_path / "b.tif", second, left=left - 360 if left > 0 else left + 360, **place)
    same = write_raster(tmp_path / "c.tif", second, left=left, **place)
    detector, maps = NetworkDetector(convolutional(0)), []
    for other in (after, same):
        predict_scene(detector, before, other, tmp_path / "m.tif", probability=tmp_path / "p.tif")
        maps.append(read(tmp_path / "p.tif"))
    assert np.array_equal(*maps)


def test_a_projected_date_meets_longitudes_across_180_degrees(tmp_path):
    """Both halves are there, as GDAL warps each of them by itself."""
    from rasterio.warp import transform

    (x,), (y,) = transform("EPSG:4326", "EPSG:32660", [180.0], [10.0])
    projected = write_raster(tmp_path / "utm.tif", ground(1, 64, 96), crs="EPSG:32660", pixel=10, left=x - 480, top=y)
    array = ground(2, 90, 140)
    left = 180 - 0.007
    across = write_raster(tmp_path / "lon.tif", array, crs="EPSG:4326", pixel=1e-4, left=left, top=10.001)
    source, grid = open_source(across, "after"), open_source(projected, "before").grid
    with DateOnGrid(source, grid) as date:
        samples, valid = date.read_overview(1000)
    assert valid.all()
    for columns, offset in ((slice(0, 70), 0), (slice(70, 140), -360)):
        half, weight = np.zeros((64, 96)), np.zeros((64, 96))
        place = {"src_crs": "EPSG:4326", "dst_crs": grid.crs, "dst_transform": grid.transform}
        here = Affine(1e-4, 0, left + offset + 1e-4 * columns.start, 0, -1e-4, 10.001)
        for target, values in ((half, array[0, :, columns].astype(float)), (weight, np.ones((90, 70)))):
            reproject(
                values, target, src_transform=here, resampling=Resampling.bilinear, init_dest_nodata=True, **place
            )
        known = weight > 0.99
        known &= np.roll(known, 2, axis=1) & np.roll(known, -2, axis=1)  # not the seam
        assert known.sum() > 2000
        assert np.abs(samples[0][known] - half[known]).max() <= 1


# --- how samples are stored


def network_values(path):
    """What a network would see of a file against itself, C x H x W."""
    return network_input(path, path)[0][0]


def test_palettes_and_few_bits_are_seen_as_pillow_shows_them(tmp_path):
    rng = np.random.default_rng(0)
    colours = {i: (*map(int, rgb), 255) for i, rgb in enumerate(rng.integers(0, 256, (256, 3)))}
    place = {"crs": UTM, "transform": NORTH_UP, "driver": "GTiff", "height": 40, "width": 50, "dtype": "uint8"}
    indices = rng.integers(0, 200, (1, 40, 50)).astype(np.uint8)
    with rasterio.open(tmp_path / "p.tif", "w", count=1, photometric="palette", nodata=7, **place) as target:
        target.write_colormap(1, colours)
        target.write(indices)
    files = [tmp_path / "p.tif"]
    for bits in (1, 2, 4):
        values = rng.integers(0, 2**bits, (1, 40, 50)).astype(np.uint8)
        files.append(write_raster(tmp_path / f"{bits}.tif", values, nbits=bits))
    for path in files:
        expected = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)
        seen = network_values(path)
        known = indices[0] != 7 if path.stem == "p" else np.ones((40, 50), bool)
        assert (seen[:, known] == expected[:, known]).all(), path
    source = open_source(tmp_path / "p.tif", "before")
    with DateOnGrid(source, source.grid) as date:
        assert (date.read_overview(1000)[1] == (indices[0] != 7)).all()
    # colours are interpolated, and not indices
    shifted = Affine(0.5, 0, LEFT + 0.25, 0, -0.5, TOP)
    with DateOnGrid(source, replace(source.grid, transform=shifted)) as date:
        samples, valid = date.read_overview(1000)
    exact = np.array([colours[i][:3] for i in range(256)])[indices[0]].astype(float)
    middle = (exact[:, :-1] + exact[:, 1:]) / 2
    inner = valid[:, :-1] & (indices[0][:, :-1] != 7) & (indices[0][:, 1:] != 7)
    assert np.abs(samples[:, :, :-1].transpose(1, 2, 0) - middle)[inner].max() <= 1


@pytest.mark.parametrize("dtype", ["complex64", "complex_int16"])
def test_complex_samples_are_refused_with_a_remedy_that_works(dtype, tmp_path):
    values = (ground(1, 40, 50) * (0.6 + 0.8j)).astype(np.complex64)
    path = write_raster(tmp_path / "a b.tif", values, dtype=dtype)
    with pytest.raises(DataError, match=rf"holds {dtype} values") as caught:
        predict_scene(NetworkDetector(pointwise()), path, path, tmp_path / "c.tif")
    words = shlex.split(re.search(r"`python (.*)`", str(caught.value))[1])
    subprocess.run([sys.executable, *words], check=True)
    with rasterio.open(tmp_path / "a b-magnitude.tif") as source, rasterio.open(path) as stored:
        assert np.allclose(source.read(), np.abs(stored.read()))
        assert source.transform == NORTH_UP
    open_source(tmp_path / "a b-magnitude.tif", "before")


def test_the_first_three_of_more_bands_are_taken_where_they_are_named_red_green_blue(tmp_path):
    array = ground(1, 40, 50, 4)
    path = write_raster(tmp_path / "a.tif", array, photometric="rgb", alpha="no")
    (text,) = open_source(path, "before").notes
    assert "more bands than red, green and blue" in text
    assert (network_values(path) == array[:3]).all()


# --- ranges that clip


def test_a_range_is_named_when_it_clips_more_than_half_of_what_counts():
    samples = np.array([[[5.0], [50.0], [-1.0], [101.0]]])  # of 0,100: two inside, two clipped
    assert mostly_clipped(samples, (0, 100)) == ""
    more = np.concatenate([samples, [[[200.0], [0.0], [100.0], [np.nan]]]])  # one more; the ends and NaN do not count
    assert "the range 0,100 turns more than half" in mostly_clipped(more, (0, 100))
    assert mostly_clipped(more, (0, 100), more[..., 0] != 200) == ""
    hidden = np.array([[[5.0], [50.0], [60.0], [200.0]]])
    assert mostly_clipped(hidden, (0, 100)) == ""
    assert mostly_clipped(hidden, (0, 100), hidden[..., 0] > 100)


def test_values_are_scaled_clipped_and_rounded_to_the_nearest():
    samples = np.array([-1e9, -1, 0, 1, 2, 99.8, 100, 1e9, np.nan, np.inf])
    assert as_channels(samples, 0, 100).tolist() == [0, 0, 0, 3, 5, 254, 255, 255, 0, 255]  # 2.55, 5.1, 254.49


def test_a_range_that_clips_most_of_a_date_is_named_with_one_that_works(tmp_path):
    files = [write_raster(tmp_path / f"{i}.tif", reflectances(i)) for i in range(2)]
    detector = NetworkDetector(pointwise())

    def run(**options):
        predict_scene(detector, *files, tmp_path / "c.tif", **options)

    for low, high in ((0, 1), (0, 1e6), (-500, 100)):
        texts = said(partial(run, image_range=(low, high)))
        assert len(texts) == 2
        for text in texts:
            assert "more than half" in text and f"{low:g},{high:g}" in text
            follow_keywords(text.split("such as")[1], run, {}, lambda options: assert_silent(lambda: run(**options)))
    assert said(lambda: run(image_range=(0, 3000))) == []
    dark = [write_raster(tmp_path / f"d{i}.tif", np.zeros((3, 30, 30), np.uint16)) for i in range(2)]
    texts = said(lambda: predict_scene(detector, *dark, tmp_path / "c.tif", image_range=(0, 3000), nodata=9))
    assert texts == []  # exact ends are not clipped


def assert_silent(call):
    assert said(call) == []


@pytest.mark.parametrize("bands", [None, (2, 1)])
def test_a_range_that_clips_most_of_the_pairs_is_one_line(bands, tmp_path, capsys):
    for i in range(3):
        for j, name in enumerate("AB"):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            write_raster(tmp_path / "data" / name / f"{i}.tif", reflectances(10 * j + i, 40, 40))
    for image_range, lines in (((0, 1), 1), ((0, 3000), 0)):
        folder = PairFolder(tmp_path / "data", image_range=image_range, bands=bands)
        texts = [text for text in check_pairs(folder).warnings if "more than half" in text]
        assert len(texts) == lines and all("6 files" in text and "0,1" in text for text in texts)
    detector = NetworkDetector(pointwise())
    report = predict_files(detector, tmp_path / "data/A", tmp_path / "data/B", tmp_path / "out", image_range=(0, 1))
    assert len([note for note in report.notes if "more than half" in note]) == 1
    assert any("more than half" in text for text in said(lambda: read_image(tmp_path / "data/A/0.tif", (0, 1))))
    assert not said(lambda: read_image(tmp_path / "data/A/0.tif", (0, 3000)))


# --- places and units within pairs


def pair_of_tiles(root, **after):
    """One pair with its label, of which the date after has other tags of its place."""
    root.mkdir(exist_ok=True)
    for name in ("A", "B", "label"):
        (root / name).mkdir(parents=True)
        array = 255 * (ground(3, 64, 64, 1) > 120).astype(np.uint8) if name == "label" else ground(ord(name), 64, 64)
        write_raster(root / name / "x y.tif", array, **(after if name == "B" else {}))
    return root


@pytest.mark.parametrize(
    "after",
    [
        {"transform": Affine(0.5, 0, LEFT, 0, 0.5, TOP - 32)},
        {"transform": NORTH_UP @ Affine.rotation(20)},
        {"pixel": 1.0},
        {"left": LEFT + 24},
    ],
    ids=["south-up", "rotated", "pixel size", "moved"],
)
def test_dates_of_unlike_pixels_are_a_fault_of_the_pair_with_a_command_that_works(after, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = pair_of_tiles(tmp_path / "my data", **after)
    assert main(["data", "check", str(root)]) == 1
    text = capsys.readouterr().out
    assert "B/x y.tif" in text and "rotated or offset" in text
    follow_commands(text)
    assert (tmp_path / "x y-tiles/A").is_dir()
    assert not check_pairs(PairFolder(tmp_path / "x y-tiles", label_values=(0, 255, 127))).faults


def test_dates_of_other_places_are_a_fault_and_small_differences_a_warning(tmp_path):
    far = check_pairs(PairFolder(pair_of_tiles(tmp_path / "far", left=LEFT + 1000)))
    assert ["a different place" in fault.what for fault in far.faults] == [True]
    zone = check_pairs(PairFolder(pair_of_tiles(tmp_path / "zone", crs="EPSG:32651")))
    assert ["a different place" in fault.what for fault in zone.faults] == [True]
    near = check_pairs(PairFolder(pair_of_tiles(tmp_path / "near", left=LEFT + 1.3)))
    assert not near.faults and any("slightly offset" in text for text in near.warnings)
    bare = check_pairs(PairFolder(pair_of_tiles(tmp_path / "bare", crs=None)))
    same = check_pairs(PairFolder(pair_of_tiles(tmp_path / "same")))
    assert not (bare.faults or bare.warnings or same.faults or same.warnings)


def test_tags_of_one_date_of_a_pair(tmp_path, capsys):
    """An offset is applied; a scale is a fault with a command that works."""
    first, second = reflectances(1, 40, 40), reflectances(2, 40, 40)
    expected = [np.rint(np.clip(values / 3000 * 255, 0, 255)) for values in (first, second)]
    for name, scale, offset, image_range in (("o", 1.0, -1000.0, (0, 3000)), ("s", 0.0001, -0.1, (0, 0.3))):
        root = tmp_path / f"{name} [1]"
        for date, values in (("A", first), ("B", second + 1000)):
            (root / date).mkdir(parents=True)
            for i in range(2):
                write_raster(root / date / f"{i}.tif", values)
                if date == "B":
                    tag(root / date / f"{i}.tif", scale, offset)
        folder = PairFolder(root, image_range=image_range)
        check = check_pairs(folder)
        if name == "s":
            with pytest.raises(DataError, match="different units"):
                folder.load(folder.pairs()[0])
            remedies = [fault.remedy for fault in check.faults if fault.kind == "file"]
            assert len(remedies) == 2 and len({*remedies}) == 1
            words = shlex.split(re.search(r"`python (.*)`", remedies[0])[1])
            subprocess.run([sys.executable, *words], check=True)
            check = check_pairs(folder)
        assert [fault for fault in check.faults if fault.kind != "unlabelled"] == []
        images = folder.load(folder.pairs()[0])
        for image, values in zip((images.before, images.after), expected, strict=True):
            assert np.abs(image.transpose(2, 0, 1) - values).max() <= 1
            assert (image.transpose(2, 0, 1) == values).mean() > 0.99


@pytest.mark.parametrize("how", ["alpha", "mask"])
def test_what_a_mask_or_alpha_hides_is_no_data_in_predicted_tiles(how, tmp_path):
    known = np.full((1, 40, 50), 255, np.uint8)
    known[:, :, :9] = 0
    for name in "AB":
        (tmp_path / name).mkdir()
        array = ground(ord(name), 40, 50)
        path = tmp_path / name / "x.tif"
        if name == "A" and how == "alpha":
            write_raster(path, np.concatenate((array, known)), alpha="unassociated")
        else:
            write_raster(path, array)
            if name == "A":
                with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as target:
                    target.write_mask(known[0])
    predict_files(NetworkDetector(pointwise()), tmp_path / "A", tmp_path / "B", tmp_path / "out")
    assert ((read(tmp_path / "out/x.tif") == 255) == (known[0] == 0)).all()
