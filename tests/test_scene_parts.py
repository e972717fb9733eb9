"""Parts of scenes by themselves: tiles, journal, rasters, grids, masks, states of files, registration."""

import os
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

from bitemporal.errors import DataError, OptionError, OutputError
from bitemporal.inference import NetworkDetector, OriginPartition
from bitemporal.method.car import CarPartition
from bitemporal.scenes import (
    Outputs,
    SceneOptions,
    TileOptions,
    cut_scene,
    predict_scene,
    prediction,
    strips,
    threshold,
    threshold_scene,
)
from bitemporal.scenes.archive import Plan, SceneWorker
from bitemporal.scenes.bands import StatedBand
from bitemporal.scenes.exclusion import Exclusion
from bitemporal.scenes.geometry import Grid, place
from bitemporal.scenes.grids import DateOnGrid, common_grid, windows_on
from bitemporal.scenes.journal import Journal
from bitemporal.scenes.options import MapOptions
from bitemporal.scenes.prediction import predict_unless_finished
from bitemporal.scenes.rasters import check_blocks, new_raster, row_windows, write_cog
from bitemporal.scenes.registration import estimate_shift
from bitemporal.scenes.scene import Scene, open_scene
from bitemporal.scenes.sources import file_state, open_source
from bitemporal.scenes.tiling import Axis, Tiling, axis
from bitemporal.scenes.values import look, value_range
from forked import run
from scene_files import LEFT, TOP, UTM, ground, read, write_raster
from stub_networks import Passes, convolutional, pointwise, register_stubs


@pytest.fixture(autouse=True)
def _stubs(monkeypatch):
    register_stubs(monkeypatch)


BRIGHTER = {"scale": 10.0, "bias": -200.0}
"""Changed by more than 20: with a probability of exactly 1, else of 0."""


def grid_of(height: int, width: int, pixel: float = 0.5) -> Grid:
    return Grid(CRS.from_string(UTM), Affine(pixel, 0, LEFT, 0, -pixel, TOP), width, height)


@pytest.fixture
def pair(tmp_path):
    """Two dates, of which a rectangle brightens."""
    before = ground(0, 90, 120)
    after = before.copy()
    after[:, 20:50, 30:80] += 35
    return [write_raster(tmp_path / f"{name}.tif", date) for name, date in (("before", before), ("after", after))]


# --- tiles


def test_cores_are_as_equal_as_the_multiple_allows():
    assert axis(600, 512, 16, 8) == Axis(600, 304, 16)  # two of 304, not one of 480 and a rest
    assert axis(3000, None, 400, 1) == Axis(3000, 375, 208)  # margins take up half of the tile
    assert axis(500, None, 64, 8) == Axis(500, 504, 0)


@pytest.mark.parametrize("tile", [64, 88, 120])
def test_a_sum_of_weights_makes_no_probability_above_one(tile, tmp_path):
    before = np.full((3, 200, 330), 40, np.uint8)
    files = [write_raster(tmp_path / f"{n}.tif", date) for n, date in (("b", before), ("a", before + 90))]
    detector = NetworkDetector(pointwise(**BRIGHTER))
    predict_scene(detector, *files, tmp_path / "c.tif", probability=tmp_path / "p.tif", tile=tile, overlap=16)
    assert read(tmp_path / "p.tif").max() == 1.0
    assert threshold_scene(tmp_path / "p.tif", tmp_path / "again.tif").car == 1.0


@pytest.mark.parametrize("size", [1, 3])
def test_as_many_tiles_are_answered_at_once_as_was_asked_for(size, tmp_path):
    files = [write_raster(tmp_path / f"{n}.tif", ground(0, 40, 300)) for n in "ba"]
    model = pointwise()
    passes = Passes(model)
    predict_scene(NetworkDetector(model), *files, tmp_path / "c.tif", tile=64, overlap=0, batch_size=size)
    assert len(passes.sizes) > 4
    assert max(passes.sizes) == 1  # a strip runs along the shorter side: it has one tile
    square = [write_raster(tmp_path / f"{n}2.tif", ground(0, 300, 300)) for n in "ba"]
    passes.sizes.clear()
    predict_scene(NetworkDetector(model), *square, tmp_path / "c2.tif", tile=64, overlap=0, batch_size=size)
    assert max(passes.sizes) == size


@pytest.mark.parametrize("which", [1, 2, -1])
def test_a_strip_that_cannot_be_written_ends_the_run(which, tmp_path, monkeypatch):
    """Strips are written while the next one is answered: an error must not be lost with its thread."""
    files = [write_raster(tmp_path / f"{n}.tif", ground(0, 40, 200)) for n in "ba"]
    count = Tiling(axis(40, 64, 0, 8), axis(200, 64, 0, 8)).across.count
    write, calls = Journal.write, []

    def failing(self, *words):
        calls.append(words[0])
        if len(calls) == which % (count + 1):
            raise OutputError("the disk is gone")
        write(self, *words)

    monkeypatch.setattr(Journal, "write", failing)
    with pytest.raises(OutputError, match="the disk is gone"):
        predict_scene(NetworkDetector(pointwise()), *files, tmp_path / "c.tif", tile=64, overlap=0)
    assert count > 3 and not (tmp_path / "c.tif").exists()


@pytest.mark.parametrize("remote", [True, False])
def test_files_over_a_network_are_read_by_four_threads(remote, pair, tmp_path, monkeypatch):
    threads = {}

    class Noted(ThreadPoolExecutor):
        def __init__(self, most, thread_name_prefix):
            threads[thread_name_prefix] = most
            super().__init__(most, thread_name_prefix)

    monkeypatch.setattr(strips, "ThreadPoolExecutor", Noted)
    monkeypatch.setattr(Scene, "is_remote", property(lambda _: remote))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    predict_scene(NetworkDetector(pointwise(**BRIGHTER)), *pair, tmp_path / "c.tif")
    assert threads == {"tiles": 4 if remote else 2, "strips": 1}


# --- the journal


def begin(folder: Path, height: int = 40, width: int = 60, key: str = "one", tall: bool = False) -> Journal:
    tiling = Tiling(Axis(height, 16, 8), Axis(width, 16, 8))
    return Journal(folder, SimpleNamespace(tiling=tiling, fingerprint=key, grid=grid_of(height, width), tags={}))


@pytest.mark.parametrize("shape", [(40, 60), (60, 40)])
def test_a_journal_takes_over_what_an_earlier_one_noted(shape, tmp_path):
    journal = begin(tmp_path / "j", *shape)
    side = min(shape)
    first, rest = np.full((16, side), 0.25, np.float32), np.full((4, side), 0.5, np.float32)
    journal.write(0, first, rest, Counter({"a": 2}))
    journal.write(16, first + 0.5, rest + 1, Counter({"a": 1, "b": 1}))
    again = begin(tmp_path / "j", *shape)
    assert (again.strips, again.resumed, again.tallies) == (2, 2, Counter({"a": 3, "b": 1}))
    assert np.array_equal(again.carried, rest + 1)
    values = read(again.raster) if shape[0] > shape[1] else read(again.raster).T
    assert (values[:16] == 0.25).all() and (values[16:32] == 0.75).all() and np.isnan(values[32:]).all()
    assert begin(tmp_path / "j", *shape, key="other").strips == 0
    assert np.isnan(read(tmp_path / "j" / "probability.tif")).all()


@pytest.mark.parametrize("damage", ["raster", "notes", "no notes"])
def test_a_journal_whose_files_are_cut_off_is_begun_anew(damage, tmp_path):
    journal = begin(tmp_path / "j")
    journal.write(0, np.full((16, 40), 0.25, np.float32), np.zeros((4, 40), np.float32), Counter())
    assert begin(tmp_path / "j").strips == 1
    notes = tmp_path / "j" / "journal.npz"
    if damage == "no notes":
        notes.unlink()
    else:
        path = notes if damage == "notes" else journal.raster
        os.truncate(path, path.stat().st_size - 1)
    assert begin(tmp_path / "j").strips == 0
    assert np.isnan(read(journal.raster)).all()


def test_a_journal_needs_five_bytes_a_pixel(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5 * 40 * 60 - 1))
    with pytest.raises(OutputError, match="GB are free, a scene of this size needs"):
        begin(tmp_path / "j")
    assert not (tmp_path / "j").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5 * 40 * 60))
    begin(tmp_path / "j")


# --- rasters


def test_a_raster_that_lacks_a_byte_or_a_block_is_refused(tmp_path):
    with new_raster(tmp_path / "r.tif", grid_of(600, 700), "float32", np.nan, {}):
        pass
    check_blocks(tmp_path / "r.tif")
    os.truncate(tmp_path / "r.tif", (tmp_path / "r.tif").stat().st_size - 1)
    with pytest.raises(OSError, match="a block is missing"):
        check_blocks(tmp_path / "r.tif")


@pytest.mark.parametrize("writer", ["plain", "cog"])
def test_a_disk_that_gdal_does_not_know_to_be_full_is_an_error(writer, tmp_path, monkeypatch):
    values = np.random.default_rng(0).random((1, 600, 700), np.float32)
    source = write_raster(tmp_path / "s.tif", values)
    copy = rasterio.shutil.copy

    def cut(path: Path) -> None:
        os.truncate(path, path.stat().st_size // 2)

    if writer == "plain":
        opened = rasterio.open

        class Closing:
            def __init__(self, *words, **settings):
                self.path, self.raster = words[0], opened(*words, **settings)

            def __enter__(self):
                return self.raster.__enter__()

            def __exit__(self, *error):
                self.raster.__exit__(*error)
                if self.raster.mode == "w":
                    cut(self.path)

        monkeypatch.setattr(rasterio, "open", Closing)
        with (
            pytest.raises((OSError, RasterioIOError)),
            new_raster(tmp_path / "r.tif", grid_of(600, 700), "uint8", 0, {}),
        ):
            pass
        return
    monkeypatch.setattr(rasterio.shutil, "copy", lambda a, b, **more: copy(a, b, **more) or cut(b))
    with pytest.raises((OSError, RasterioIOError)):
        write_cog(source, tmp_path / "c.tif", {})


def test_windows_of_rows_end_with_the_raster(tmp_path):
    with rasterio.open(write_raster(tmp_path / "r.tif", np.zeros((1, 1030, 20), np.uint8))) as raster:
        assert [(w.row_off, w.height, w.width) for w in row_windows(raster)] == [
            (0, 512, 20),
            (512, 512, 20),
            (1024, 6, 20),
        ]
        assert [(w.row_off, w.height) for w in row_windows(raster, 20 * 400 + 19)] == [(0, 400), (400, 400), (800, 230)]
        assert len(list(row_windows(raster, 1))) == 1030


def test_overviews_are_means_of_probabilities_and_majorities_of_masks(tmp_path):
    before = np.full((3, 560, 1040), 40, np.uint8)
    after = before.copy()
    after[:, ::2, :520:2] = 140  # of each four pixels one
    after[:, :, 520:] = 140  # and three
    after[:, ::2, 520::2] = 40
    files = [write_raster(tmp_path / f"{n}.tif", date) for n, date in (("b", before), ("a", after))]
    detector = NetworkDetector(pointwise(**BRIGHTER))
    predict_scene(detector, *files, tmp_path / "c.tif", probability=tmp_path / "p.tif")
    found = []
    for name in ("c.tif", "p.tif"):
        with rasterio.open(tmp_path / name, overview_level=0) as small:
            assert small.shape == (280, 520)
            found.append(small.read(1))
    assert (found[0][:, :260] == 0).all() and (found[0][:, 260:] == 1).all()
    assert found[1][:, :260] == pytest.approx(0.25) and found[1][:, 260:] == pytest.approx(0.75)


# --- predictions


def test_a_pixel_at_a_half_is_unchanged_in_the_car_of_a_scene(tmp_path):
    values = np.array([[[0.5, 0.5, 0.75, np.nan]]], np.float32)
    assert prediction._car(write_raster(tmp_path / "p.tif", values)) == pytest.approx(1 / 3)


class Meddling(NetworkDetector):
    """Writes a file while it answers, as somebody else might."""

    path: Path

    def answers(self, *images, **more):
        self.path.write_bytes(b"mine")
        return super().answers(*images, **more)


def test_a_file_that_appears_during_the_prediction_stays(pair, tmp_path):
    detector = Meddling(pointwise(**BRIGHTER))
    detector.path = tmp_path / "c.tif"
    with pytest.raises(OutputError, match=r"c\.tif exists and is not .*What was predicted is kept"):
        predict_scene(detector, *pair, tmp_path / "c.tif")
    assert (tmp_path / "c.tif").read_bytes() == b"mine"
    (tmp_path / "c.tif").unlink()
    result = predict_scene(NetworkDetector(pointwise(**BRIGHTER)), *pair, tmp_path / "c.tif")
    assert result.resumed > 0


def test_a_file_that_appears_while_a_map_is_made_anew_stays(tmp_path, monkeypatch):
    path = write_raster(tmp_path / "p.tif", np.full((1, 20, 20), 0.7, np.float32))
    original = threshold._copy

    def copying(*words):
        (tmp_path / "c.tif").write_bytes(b"mine")
        original(*words)

    monkeypatch.setattr(threshold, "_copy", copying)
    with pytest.raises(OutputError, match=r"c\.tif exists and is not"):
        threshold_scene(path, tmp_path / "c.tif")
    assert (tmp_path / "c.tif").read_bytes() == b"mine"


def test_the_map_of_a_scene_is_that_of_the_teacher_and_not_of_the_origin(pair, tmp_path):
    origin, teacher = NetworkDetector(pointwise(**BRIGHTER)), NetworkDetector(pointwise(scale=0.0, bias=-5.0))
    detector = OriginPartition(origin, {"large": teacher}, CarPartition((0.01,)))
    result = predict_scene(detector, *pair, tmp_path / "c.tif", routing="scene")
    assert result.parts == {"large": 1} and result.car == 0.0
    assert not read(tmp_path / "c.tif").any()


AGAIN = {
    "another area": lambda folder: write_area(folder / "area.gpkg", 60),
    "another mask": lambda folder: write_raster(folder / "mask.tif", np.ones((1, 90, 120), np.uint8)),
    "a lost product": lambda folder: (folder / "p.tif").unlink(),
    "another detector": lambda folder: None,
    "nothing": lambda folder: None,
}


def write_area(path: Path, columns: int) -> Path:
    import geopandas
    import shapely

    path.unlink(missing_ok=True)
    shape = shapely.box(LEFT, TOP - 45, LEFT + columns / 2, TOP)
    geopandas.GeoDataFrame(geometry=[shape], crs=UTM).to_file(path)
    return path


@pytest.mark.parametrize("change", AGAIN)
def test_what_a_result_depends_on_makes_it_again(change, pair, tmp_path):
    write_area(tmp_path / "area.gpkg", 100)
    write_raster(tmp_path / "mask.tif", np.zeros((1, 90, 120), np.uint8))
    options = SceneOptions(within=str(tmp_path / "area.gpkg"), mask=[str(tmp_path / "mask.tif")])
    outputs = Outputs(tmp_path / "c.tif", probability=tmp_path / "p.tif", summary=tmp_path / "s.json")
    detector = NetworkDetector(pointwise(**BRIGHTER))
    assert not predict_unless_finished(detector, *pair, outputs, options)[0]
    AGAIN[change](tmp_path)
    if change == "another detector":
        detector = NetworkDetector(pointwise(scale=10.0, bias=-150.0))
    if change == "another mask":
        with pytest.raises(DataError, match="have no pixel that is valid"):
            predict_unless_finished(detector, *pair, outputs, options)
        return
    assert predict_unless_finished(detector, *pair, outputs, options)[0] == (change == "nothing")
    assert (tmp_path / "p.tif").is_file()


# --- a map made anew


def test_a_registered_scene_has_the_same_picture_when_its_map_is_made_anew(tmp_path):
    scene = ground(4, 300, 320).astype(np.uint16) * 11
    first = write_raster(tmp_path / "b.tif", scene[:, 20:280, 20:300])
    second = write_raster(tmp_path / "a.tif", scene[:, 25:285, 13:293])
    out = {"probability": tmp_path / "p.tif", "quicklook": tmp_path / "q.png"}
    result = predict_scene(NetworkDetector(convolutional(0)), first, second, tmp_path / "c.tif", register=True, **out)
    assert result.shift == pytest.approx((7, -5), abs=0.2)
    threshold_scene(
        tmp_path / "p.tif", tmp_path / "new.tif", before=first, after=second, quicklook=tmp_path / "new.png"
    )
    assert (tmp_path / "new.png").read_bytes() == (tmp_path / "q.png").read_bytes()


def test_a_map_made_anew_leaves_out_what_lies_outside_an_area_or_under_a_mask(tmp_path):
    path = write_raster(tmp_path / "p.tif", np.full((1, 90, 120), 0.7, np.float32))
    hidden = np.zeros((1, 90, 120), np.uint8)
    hidden[0, :, :10] = 1
    mask, area = write_raster(tmp_path / "mask.tif", hidden), write_area(tmp_path / "area.gpkg", 50)
    result = threshold_scene(path, tmp_path / "c.tif", within=str(area), mask=[str(mask)])
    expected = np.full((90, 120), 255)
    expected[:, 10:50] = 1
    assert np.array_equal(read(tmp_path / "c.tif"), expected)
    assert result.valid_pixels == 90 * 40


def test_stated_scale_and_offset_come_before_those_of_the_tags():
    noted = {"SCALE_OFFSET": "[[[2, 1]], null]"}
    assert threshold._noted_scaling(noted, (None, (3.0, 1.0))) == [(2.0, 1.0), (3.0, 1.0)]
    assert threshold._noted_scaling(noted, ((5.0, 0.0), None)) == [(5.0, 0.0), (1.0, 0.0)]
    assert threshold._noted_scaling({}, (None, None)) == [None, None]
    with pytest.raises(DataError, match="SCALE_OFFSET"):
        threshold._noted_scaling({"SCALE_OFFSET": "[1, 2]"}, (None, None))


def test_new_tags_say_what_was_left_out_before_and_now():
    kept = threshold._new_tags({"DETECTOR": "x", "MASK": "old", "AREA_OR_POINT": "Area"}, MapOptions(threshold=0.25))
    assert kept["THRESHOLD"] == "0.25" and kept["DETECTOR"] == "x" and "AREA_OR_POINT" not in kept
    assert "MASK" not in threshold._new_tags({"MASK": "old"}, MapOptions())


# --- polygons


def polygons_of(folder: Path, crs: str | None = UTM, **options: object):
    """Of four areas at threshold 0.3: 8 and 2 pixels, and two pixels that meet at a corner."""
    import geopandas

    values = np.zeros((1, 20, 30), np.float32)
    values[0, 2:4, 2:6] = [[0.4, 0.9, 0.5, 0.6], [0.4, 0.5, 0.6, 0.7]]
    values[0, 10, 10:12] = 0.65
    values[0, 15, 20] = values[0, 16, 21] = 0.31
    path = write_raster(folder / "p.tif", values, crs=crs)
    (folder / "a.gpkg").unlink(missing_ok=True)
    options = {"threshold": 0.3} | options
    result = threshold_scene(path, folder / "c.tif", polygons=folder / "a.gpkg", **options)
    table = geopandas.read_file(folder / "a.gpkg", layer="a")
    assert result.polygons == len(table)
    return table


def test_a_polygon_has_the_numbers_of_its_pixels(tmp_path):
    table = polygons_of(tmp_path).sort_values("pixels", ascending=False)
    assert sorted(table.id) == [1, 2, 3, 4]
    assert list(table.pixels) == [8, 2, 1, 1]
    assert list(table.area_m2) == pytest.approx([2.0, 0.5, 0.25, 0.25])
    assert list(table.geometry.area) == pytest.approx(list(table.area_m2))
    means = [0.575, 0.65, 0.31, 0.31]
    assert list(table.mean_probability) == pytest.approx(means)
    assert list(table.max_probability) == pytest.approx([0.9, 0.65, 0.31, 0.31])
    assert list(table.confidence) == pytest.approx([(mean - 0.3) / 0.7 for mean in means], abs=1e-6)
    assert table.geometry[table.pixels == 8].iloc[0].bounds == (LEFT + 1, TOP - 2, LEFT + 3, TOP - 1)


def test_polygons_of_turned_pixels_lie_on_them(tmp_path):
    import geopandas

    transform = Affine.translation(LEFT, TOP) @ Affine.rotation(30) @ Affine.scale(2, -3)
    values = np.zeros((1, 12, 20), np.float32)
    values[0, 3:5, 7:12] = 0.8
    path = write_raster(tmp_path / "p.tif", values, transform=transform)
    threshold_scene(path, tmp_path / "c.tif", polygons=tmp_path / "a.gpkg")
    (polygon,) = geopandas.read_file(tmp_path / "a.gpkg", layer="a").geometry
    corners = {tuple(np.round(transform @ corner, 3)) for corner in ((7, 3), (12, 3), (12, 5), (7, 5))}
    assert {tuple(np.round(point, 3)) for point in polygon.exterior.coords} == corners


@pytest.mark.parametrize(
    ("crs", "area", "kept"),
    [
        (UTM, 0.5, 2),
        (UTM, 0.51, 1),
        (UTM, 2.0, 1),
        (UTM, 2.01, 0),
        (None, 2, 2),
        (None, 2.1, 1),
        (None, 8, 1),
        (None, 9, 0),
    ],
)
def test_the_least_area_is_in_square_metres_or_without_a_place_in_pixels(crs, area, kept, tmp_path):
    assert len(polygons_of(tmp_path, crs, minimum_area=area)) == kept


def test_outlines_follow_the_pixels_unless_they_are_to_be_smooth(tmp_path):
    (plain,), (smooth,) = (polygons_of(tmp_path, minimum_area=2.0, smooth=smooth).geometry for smooth in (False, True))
    assert len(plain.exterior.coords) == 5 and len(smooth.exterior.coords) > 5
    assert smooth.within(plain.buffer(1e-6)) and smooth.area < plain.area


# --- grids


def test_bounds_are_those_of_all_four_corners():
    turned = Grid(CRS.from_string(UTM), Affine(1, 2, 100, -2, 1, 500), 10, 20)
    xs, ys = zip(*(turned.transform @ corner for corner in ((0, 0), (10, 0), (0, 20), (10, 20))), strict=True)
    assert turned.bounds == (min(xs), min(ys), max(xs), max(ys))


@pytest.mark.parametrize(("off", "same"), [(0.0, True), (0.49, True), (0.51, False), (-0.49, True), (-0.51, False)])
@pytest.mark.parametrize("side", ["left", "top"])
def test_areas_are_one_to_half_of_the_larger_pixel(off, same, side):
    coarse = grid_of(10, 10, 2.0)
    move = (2 * off, 0) if side == "left" else (0, 2 * off)
    fine = Grid(coarse.crs, Affine.translation(*move) @ Affine(1, 0, LEFT, 0, -1, TOP), 20, 20)
    assert coarse.covers_the_same(fine) == fine.covers_the_same(coarse) == same


def test_the_upright_grid_of_turned_pixels_holds_them_all(tmp_path):
    for degrees in (10, 30, 60, 80, 100, 170):
        transform = Affine.translation(LEFT, TOP) @ Affine.rotation(degrees) @ Affine.scale(2, -3)
        path = write_raster(tmp_path / f"{degrees}.tif", np.zeros((1, 20, 50), np.uint8), transform=transform)
        with rasterio.open(path) as dataset:
            grid, reason = place(dataset, str(path))
            own = Grid(dataset.crs, dataset.transform, 50, 20).bounds
        assert reason == "rotated pixels"
        left, bottom, right, top = grid.bounds
        assert left <= own[0] + 1e-6 and top >= own[3] - 1e-6 and right >= own[2] - 0.01 and bottom <= own[1] + 0.01
        assert right - own[2] < 3 and own[1] - bottom < 3
        # pixels keep their longer side where it lies: along x below 45 degrees, along y above
        steep = 45 < degrees < 135
        assert (grid.transform.a, -grid.transform.e) == pytest.approx((3, 2) if steep else (2, 3))


def test_windows_are_spread_from_edge_to_edge():
    grid = grid_of(100, 25)
    assert [(w.col_off, w.row_off, w.width, w.height) for w in windows_on(grid, 3, 30)] == [
        (0, 0, 25, 30),
        (0, 35, 25, 30),
        (0, 70, 25, 30),
    ]


def test_an_overview_is_as_large_as_its_longer_side_may_be(tmp_path):
    path = write_raster(tmp_path / "a.tif", ground(0, 40, 300))
    source = open_source(path, "before")
    with DateOnGrid(source, source.grid) as date:
        samples, valid = date.read_overview(100)
        assert samples.shape == (3, 13, 100) and valid.shape == (13, 100)
        assert date.read_overview(1000)[1].shape == (40, 300)
        assert date.read_overview(4)[1].shape == (1, 4)


def test_what_is_not_finite_in_any_band_is_not_valid_and_zero_in_all(tmp_path):
    values = np.ones((3, 4, 5), np.float32)
    values[1, 2, 3] = np.nan
    values[0, 0, 0] = np.inf
    source = open_source(write_raster(tmp_path / "a.tif", values), "before")
    with DateOnGrid(source, source.grid) as date:
        samples, valid = date.read(Window(0, 0, 5, 4))
    assert not valid[2, 3] and not valid[0, 0] and valid.sum() == 18
    assert (samples[:, ~valid] == 0).all() and (samples[:, valid] == 1).all()


@pytest.mark.parametrize("nodata", ["stated", "of the file"])
def test_no_data_counts_where_the_pixels_lie_on_the_grid(nodata, tmp_path):
    values = ground(0, 8, 9)
    values[:, 2, 3] = 7
    path = write_raster(tmp_path / "a.tif", values, **({} if nodata == "stated" else {"nodata": 7}))
    source = open_source(path, "before", nodata=7 if nodata == "stated" else None)
    with DateOnGrid(source, source.grid) as date:
        samples, valid = date.read(Window(1, 1, 8, 7))
    assert np.argwhere(~valid).tolist() == [[1, 2]]
    assert np.array_equal(samples[:, valid], values[:, 1:, 1:][:, valid])


def test_a_stated_no_data_value_counts_instead_of_that_of_the_file(tmp_path):
    values = np.full((3, 6, 6), 100, np.uint8)
    values[:, 0], values[:, 5] = 1, 2
    path = write_raster(tmp_path / "a.tif", values, nodata=1)
    source = open_source(path, "before", nodata=2)
    with DateOnGrid(source, grid_of(6, 6)) as date:
        _, valid = date.read(Window(0, 0, 6, 6))
    assert valid[:5].all() and not valid[5].any()


@pytest.mark.parametrize("lost", ["before", "after"])
def test_the_date_without_a_place_is_the_one_that_is_named(lost, tmp_path):
    files = {name: write_raster(tmp_path / f"{name}.tif", ground(0, 30, 40)) for name in ("before", "after")}
    write_raster(files[lost], ground(1, 30, 40), crs=None)
    with pytest.raises(DataError, match=rf"^{lost} \(.*{lost}\.tif\): has no CRS, but .*rio edit-info \S*{lost}\.tif"):
        common_grid(*(open_source(path, name) for name, path in files.items()))


# --- files


def test_the_state_of_a_file_is_its_size_its_time_and_that_of_all_that_it_reads(tmp_path):
    path = write_raster(tmp_path / "a.tif", ground(0, 8, 9))
    vrt = tmp_path / "a.vrt"
    rasterio.shutil.copy(path, vrt, driver="VRT")
    stamp = path.stat().st_mtime_ns
    before = [file_state(str(path)), file_state(str(vrt))]
    assert before == [file_state(str(path)), file_state(str(vrt))]
    os.utime(path, ns=(stamp, stamp + 10**9))
    touched = [file_state(str(path)), file_state(str(vrt))]
    assert all(now != then for now, then in zip(touched, before, strict=True))
    with path.open("ab") as stream:
        stream.write(b"more")
    os.utime(path, ns=(stamp, stamp))
    longer = [file_state(str(path)), file_state(str(vrt))]
    assert all(now != then for now, then in zip(longer, before, strict=True))


def test_one_no_data_value_is_taken_from_a_catalogue_only_where_all_bands_have_it(tmp_path):
    path = str(write_raster(tmp_path / "a.tif", ground(0, 8, 9)))
    one, other = StatedBand(nodata=0), StatedBand(nodata=5)
    assert open_source(path, "before", stated={path: (one, one, one)}).nodata == 0
    assert open_source(path, "before", stated={path: (one, one, other)}).nodata is None
    assert open_source(path, "before", nodata=9, stated={path: (one, one, one)}).nodata == 9


@pytest.mark.parametrize(
    ("numbers", "fits"), [((0.5, 1), True), ((0.5, 1) * 3, True), ((0, 1), False), ((1, 0) * 2, False)]
)
def test_scale_and_offset_are_a_pair_for_all_channels_or_one_for_each(numbers, fits, tmp_path):
    path = write_raster(tmp_path / "a.tif", ground(0, 8, 9))
    if fits:
        assert open_source(path, "before", scaling=numbers).scaling == ((0.5, 1.0),) * 3
        return
    with pytest.raises(OptionError, match="before_scaling: found"):
        open_source(path, "before", scaling=numbers)


def test_each_date_has_a_scaling_of_its_own(pair, tmp_path):
    options = SceneOptions(before_scaling=(2.0, 1.0), after_scaling=(3.0, -1.0), image_range=(0, 500))
    scene = open_scene(NetworkDetector(pointwise()), *pair, Outputs(tmp_path / "c.tif"), options)
    assert (scene.before.scaling, scene.after.scaling) == (((2.0, 1.0),) * 3, ((3.0, -1.0),) * 3)
    assert scene.tags["SCALE_OFFSET"] == str([[[2.0, 1.0]] * 3, [[3.0, -1.0]] * 3])


# --- values


def test_values_of_few_bits_fill_the_range_of_their_bits(tmp_path):
    values = (ground(0, 30, 30) // 16).astype(np.uint8)
    dates = [open_source(write_raster(tmp_path / f"{n}.tif", values, nbits=4), n) for n in ("before", "after")]
    assert value_range(*dates, tuple(map(look, dates))) == ((0.0, 15.0),) * 3


def test_the_range_is_the_first_and_the_99th_percentile_of_both_dates_valid_values(tmp_path):
    generator = np.random.default_rng(0)
    arrays = [generator.integers(low, low + 1000, (3, 50, 60)).astype(np.uint16) for low in (1, 3001)]
    arrays[1][:, :10] = 0
    files = [write_raster(tmp_path / f"{i}.tif", array, nodata=0) for i, array in enumerate(arrays)]
    dates = [open_source(path, name) for path, name in zip(files, ("before", "after"), strict=True)]
    found = value_range(*dates, tuple(map(look, dates)))
    for channel in range(3):
        values = np.concatenate((arrays[0][channel].ravel(), arrays[1][channel, 10:].ravel()))
        assert found[channel] == pytest.approx(np.percentile(values, (1, 99)))


# --- what is left out


def test_every_value_of_a_mask_but_zero_marks_and_no_pixel_beside_it(tmp_path):
    values = np.array([[[0, 1, -1], [np.nan, 0.5, 0]]], np.float32)
    mask = write_raster(tmp_path / "m.tif", values, nodata=1)
    grid = grid_of(4, 5)
    with Exclusion.of(MapOptions(mask=[str(mask)]), grid).open() as exclusion:
        kept = exclusion.kept(Window(0, 0, 5, 4))
    expected = np.ones((4, 5), bool)
    expected[:2, :3] = values[0] == 0
    assert np.array_equal(kept, expected)


@pytest.mark.parametrize(("left", "top"), [(200, 0), (-200, 0), (0, 200), (0, -200)])
def test_a_mask_that_lies_beside_the_scene_is_refused_on_every_side(left, top, tmp_path):
    mask = write_raster(tmp_path / "m.tif", np.zeros((1, 9, 9), np.uint8), left=LEFT + left, top=TOP + top)
    with pytest.raises(DataError, match="does not overlap the pixels"):
        Exclusion.of(MapOptions(mask=[str(mask)]), grid_of(40, 50))


# --- tiles of data sets


def test_a_tile_with_just_enough_data_on_both_dates_is_kept(tmp_path):
    arrays = [ground(seed, 16, 48, 4) for seed in (1, 2)]
    arrays[0][:, :8, :16] = 0  # half of the first tile on date 1
    arrays[1][:, :9, 16:32] = 0  # more than half of the second on date 2
    arrays[1][:, 8:, 32:40] = 0  # a quarter of the third on date 2
    data = {"photometric": "minisblack", "alpha": "unspecified", "nodata": 0}
    files = [write_raster(tmp_path / f"{n}.tif", date, **data) for n, date in zip("ba", arrays, strict=True)]
    label = write_raster(tmp_path / "l.tif", np.ones((1, 16, 48), np.uint8) * 255)
    tiles = cut_scene(*files, tmp_path / "out", label, TileOptions(size=16, minimum_valid=0.5))
    assert (tiles.written, tiles.without_data) == ({"all": 2}, 1)
    labels = [read(path) for path in sorted((tmp_path / "out" / "label").iterdir())]
    assert [int((values == 127).sum()) for values in labels] == [128, 64]


# --- registration


def test_the_shift_is_the_median_of_its_windows(tmp_path):
    """Some windows show another shift, as where a river moved."""
    scene = ground(3, 1200, 1200)
    before = scene[:, 50:1150, 50:1150]
    after = scene[:, 53:1153, 46:1146].copy()
    after[:, :340, :340] = scene[:, 68:408, 61:401]
    dates = [write_raster(tmp_path / f"{n}.tif", date) for n, date in (("b", before), ("a", after))]
    found = estimate_shift(*(open_source(path, name) for path, name in zip(dates, ("before", "after"), strict=True)))
    assert found == pytest.approx((4, -3), abs=0.06)


def test_pixels_without_data_take_no_part_in_registration(tmp_path):
    scene = ground(5, 400, 400)
    before, after = scene[:, 30:330, 30:330].copy(), scene[:, 24:324, 35:335].copy()
    for date in (before, after):
        date[:, 100:160, :] = 255  # the same stripe on both: it would say that nothing has moved
        date[:, :, 140:190] = 255
    files = [write_raster(tmp_path / f"{n}.tif", date, nodata=255) for n, date in (("b", before), ("a", after))]
    found = estimate_shift(*(open_source(path, name) for path, name in zip(files, ("before", "after"), strict=True)))
    assert found == pytest.approx((-5, 6), abs=0.3)


@pytest.mark.parametrize(("columns", "rows"), [(90, 0), (0, 90), (-90, 0), (0, -90)])
def test_windows_that_a_large_shift_leaves_nothing_of_are_passed_over(columns, rows, tmp_path):
    scene = ground(8, 500, 500)
    before = scene[:, 120:360, 120:360]
    after = scene[:, 120 - rows : 360 - rows, 120 - columns : 360 - columns]
    files = [write_raster(tmp_path / f"{n}.tif", date) for n, date in (("b", before), ("a", after))]
    found = estimate_shift(*(open_source(path, name) for path, name in zip(files, ("before", "after"), strict=True)))
    assert found == pytest.approx((columns, rows), abs=0.1)


def test_a_shift_that_few_windows_show_is_refused(tmp_path):
    scene = np.full((3, 400, 400), 90, np.uint8)
    scene[:, 20:100, 20:100] = ground(6, 80, 80)
    moved = np.roll(scene, (2, 3), (1, 2))
    files = [write_raster(tmp_path / f"{n}.tif", date) for n, date in (("b", scene), ("a", moved))]
    with pytest.raises(DataError, match=r"share only .* windows|too few valid pixels"):
        estimate_shift(*(open_source(path, name) for path, name in zip(files, ("before", "after"), strict=True)))


# --- archives


def test_a_worker_has_the_threads_of_its_plan(tmp_path, monkeypatch):
    from bitemporal.inference.bundle import save_bundle

    save_bundle(tmp_path / "bundle", pointwise())
    before = torch.get_num_threads()
    try:
        SceneWorker(Plan((str(tmp_path / "bundle"),), str(tmp_path / "out"), "cpu", threads=before + 1))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_forked_process_writes_outputs_although_this_one_has_written_some(tmp_path):
    """GDAL's threads stay behind where a process is forked."""
    settings = {"driver": "GTiff", "height": 600, "width": 600, "count": 1, "dtype": "uint8"}
    with rasterio.open(tmp_path / "plain.tif", "w", **settings) as raster:
        raster.write(np.ones((1, 600, 600), np.uint8))
    write_cog(tmp_path / "plain.tif", tmp_path / "here.tif", {})
    ended = run(lambda: write_cog(tmp_path / "plain.tif", tmp_path / "there.tif", {}), limit=20)
    assert ended.status == 0, ended.said
    assert (tmp_path / "there.tif").read_bytes() == (tmp_path / "here.tif").read_bytes()
