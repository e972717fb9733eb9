"""Synthetic scenes: exact change, believable difficulty, determinism, files."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage as ndi
from synthetic.difficulty import best_iou, measure

from bitemporal.cli.main import main
from bitemporal.errors import MissingExtraError, OptionError, OutputError
from bitemporal.pairs import PairFolder, check_pairs
from bitemporal.synthetic import (
    CHANGE_KINDS,
    CarDistribution,
    make_pair,
    make_scene,
    write_folder,
    write_scene,
)
from bitemporal.synthetic.buildings import Building, stamp_building
from bitemporal.synthetic.conditions import Conditions, draw_conditions, leaned, lit, sensed
from bitemporal.synthetic.ground import Grid, power_noise
from bitemporal.synthetic.layers import Layer

PLAIN = {
    "season": "summer",
    "gain": 1.0,
    "gamma": 1.0,
    "cast": (1.0, 1.0, 1.0),
    "saturation": 1.0,
    "shade": 0.4,
    "tilt": 0.0,
    "heading": 0.0,
    "haze": 0.0,
    "veil": 0.0,
    "blur": 0.01,
    "noise": 0.0,
}


# --- pairs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("car", [0.002, 0.02, 0.05, 0.11, 0.3, 0.5, 0.85])
def test_realised_car_is_the_wanted_one(car: float) -> None:
    for seed in range(3):
        pair = make_pair(seed, 128, car)
        changed = int(pair.label.sum())
        assert abs(changed - car * 128 * 128) <= max(1, 0.05 * car * 128 * 128)
        assert set(np.unique(pair.label)) == {0, 1}
        assert pair.kinds


@pytest.mark.parametrize("seed", range(6))
def test_car_zero_and_one_are_exact(seed: int) -> None:
    assert make_pair(seed, 64, 1.0).label.all()
    assert not make_pair(seed, 64, 0.0).label.any()


def test_shapes_and_types() -> None:
    scene = make_scene(3, 96, 160, 0.1)
    assert scene.before.shape == scene.after.shape == (96, 160, 3)
    assert scene.label.shape == (96, 160)
    assert scene.before.dtype == scene.after.dtype == scene.label.dtype == np.uint8


def test_equal_arguments_give_equal_pairs_and_other_seeds_others() -> None:
    first = make_pair(11, 96)
    make_pair(12, 96)
    again = make_pair(11, 96)
    for name in ("before", "after", "label"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert first.kinds == again.kinds
    assert not np.array_equal(first.before, make_pair(12, 96).before)


@pytest.mark.parametrize("kind", CHANGE_KINDS)
def test_every_kind_shows_where_the_label_says_and_nowhere_else(kind: str) -> None:
    # asked for no change, the same seed gives the same place under the same sky
    shown, elsewhere = [], []
    for seed in range(3):
        pair, still = make_pair(seed, 160, 0.08, kinds=[kind]), make_pair(seed, 160, 0.0, kinds=[kind])
        assert pair.kinds == (kind,)
        assert abs(pair.label.mean() - 0.08) < 0.004
        dates = ((pair.before, still.before), (pair.after, still.after))
        difference = np.max([np.abs(a.astype(int) - b).max(2) for a, b in dates], axis=0)
        changed = pair.label > 0
        shown.append((difference[ndi.binary_erosion(changed, iterations=2)] > 12).mean())
        elsewhere.append((difference[~ndi.binary_dilation(changed, iterations=4)] > 12).mean())
    # shadows, cars, and crops given up for building works differ, too
    assert min(shown) > 0.7 and np.median(elsewhere) < 0.12, (shown, elsewhere)


@pytest.mark.parametrize("seed", range(8))
def test_nothing_changed_but_the_images_differ(seed: int) -> None:
    pair = make_pair(seed, 128, 0.0)
    assert pair.kinds == ()
    assert not pair.label.any()
    assert np.abs(pair.before.astype(int) - pair.after).mean() > 4
    assert pair.before.std() > 10 and pair.after.std() > 5


def test_unusable_arguments_are_named() -> None:
    for arguments, word in (
        ({"seed": -1}, "seed"),
        ({"seed": 0, "size": 16}, "size"),
        ({"seed": 0, "car": 1.5}, "car"),
        ({"seed": 0, "car": math.nan}, "car"),
        ({"seed": 0, "gsd": 30.0}, "gsd"),
        ({"seed": 0, "kinds": ["bridge"]}, "bridge"),
        ({"seed": 0, "kinds": []}, "kinds"),
    ):
        with pytest.raises(OptionError, match=word):
            make_pair(**arguments)


# --- difficulty -----------------------------------------------------------------------------------------------------


def test_a_thresholded_difference_is_neither_enough_nor_hopeless() -> None:
    best = measure(pairs=48, size=160, seed=10_000)
    over_all = [by_part["all"] for by_part in best.values()]
    assert 0.1 < max(over_all) < 0.6, best
    assert max(iou for by_part in best.values() for iou in by_part.values()) < 0.6, best


def test_best_iou_is_that_of_the_best_threshold() -> None:
    rng = np.random.default_rng(0)
    difference = rng.integers(0, 256, 500).astype(np.uint8)
    label = (difference + rng.normal(0, 60, 500) > 150).astype(int)
    histogram = np.array([np.bincount(difference[label == value], minlength=256) for value in (0, 1)])
    by_definition = max(
        ((difference >= t) & (label == 1)).sum() / ((difference >= t) | (label == 1)).sum() for t in range(256)
    )
    assert best_iou(histogram) == pytest.approx(by_definition)


def test_default_distribution_fills_the_papers_parts() -> None:
    distribution, rng = CarDistribution(), np.random.default_rng(0)
    cars = np.array([distribution.draw(rng) for _ in range(2000)])
    small, medium, large = (cars <= 0.05).mean(), ((cars > 0.05) & (cars <= 0.2)).mean(), (cars > 0.2).mean()
    assert abs(small - 0.45) < 0.04 and abs(medium - 0.35) < 0.04 and abs(large - 0.20) < 0.04
    assert abs((cars == 0).mean() - 0.12) < 0.03 and 0 < (cars == 1).mean() < 0.05
    with pytest.raises(OptionError, match="above 0"):
        CarDistribution(0, 0, 0, 0, 0)
    with pytest.raises(OptionError, match="at least 0"):
        CarDistribution(small=-0.1)


# --- light, camera, noise -------------------------------------------------------------------------------------------


def _block(grid: Grid, height: float) -> Layer:
    layer = Layer.empty(grid.shape)
    building = Building(25.0, 25.0, 10.0, 10.0, 0.0, height, "metal", (0.5, 0.5, 0.5))
    stamp_building(layer, grid, building)
    layer.height[layer.height > 0] = height
    return layer


@pytest.mark.parametrize(("elevation", "length"), [(45.0, 8.0), (60.0, 8.0 / math.tan(math.radians(60)))])
def test_shadow_is_as_long_as_height_over_tangent_and_falls_north_at_noon(elevation: float, length: float) -> None:
    grid = Grid(100, 100, 0.5)
    block = _block(grid, 8.0)
    conditions = Conditions(azimuth=math.pi, elevation=math.radians(elevation), **PLAIN)
    image = lit(np.ones((*grid.shape, 3), np.float32), block.height, grid, conditions)[..., 1]
    column = image[:, grid.pixel(25.0, 25.0)[1]]
    dark = grid.y[(column < 0.6) & (block.height[:, grid.pixel(25.0, 25.0)[1]] == 0)]
    # the house reaches from 20 to 30 m
    assert dark.max() < 20.5
    assert abs((20.0 - dark.min()) - length) <= 1.0


def test_lean_is_height_times_tangent_of_the_tilt() -> None:
    grid = Grid(100, 100, 0.5)
    block = _block(grid, 20.0)
    conditions = Conditions(
        azimuth=math.pi, elevation=1.0, **(PLAIN | {"tilt": math.radians(6), "heading": math.pi / 2})
    )
    colour = np.zeros((*grid.shape, 3), np.float32)
    colour[block.height > 0] = (1, 0, 0)
    view = leaned(colour, block.height, block.height > 0, grid, conditions)
    roof = np.nonzero((view[..., 0] == 1).any(0))[0]
    roof_on_ground = np.nonzero(block.height.any(0))[0]
    shift = (roof.max() - roof_on_ground.max()) * grid.gsd
    assert abs(shift - 20.0 * math.tan(math.radians(6))) <= 0.5


def test_misregistration_moves_the_second_date_only_and_by_at_most_a_pixel_and_a_half() -> None:
    rng = np.random.default_rng(0)
    shifts = [np.hypot(*draw_conditions(rng, registered=False).shift) for _ in range(300)]
    assert max(shifts) <= 1.5 and np.median(shifts) > 0.4
    assert draw_conditions(rng, registered=True).shift == (0.0, 0.0)
    grid = Grid(64, 64, 0.5)
    smooth = np.repeat(power_noise(rng, grid.shape, 0.5, 30.0, 6.0, 1.0)[..., None], 3, axis=2) * 0.1 + 0.5
    still = Conditions(azimuth=3.0, elevation=1.0, **PLAIN)
    moved = Conditions(azimuth=3.0, elevation=1.0, shift=(1.0, 0.0), **PLAIN)
    first, second = (sensed(smooth.copy(), grid, c, np.random.default_rng(1)).astype(int) for c in (still, moved))
    assert np.abs(second[:, 1:] - first[:, :-1]).max() <= 1
    assert np.abs(second - first).max() > 2


# --- files ----------------------------------------------------------------------------------------------------------

CARS = [0.0, 0.03, 0.15, 0.4]


def _files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_a_folder_is_the_same_for_any_number_of_workers_and_passes_the_check(tmp_path: Path) -> None:
    pairs = {"train": 6, "val": 2, "test": 1}
    write_folder(tmp_path / "one", pairs, size=64, seed=7, cars=CARS)
    write_folder(tmp_path / "two", pairs, size=64, seed=7, cars=CARS, workers=2)
    one, two = _files(tmp_path / "one"), _files(tmp_path / "two")
    assert one == two
    assert len(one) == 3 * 9 + 1
    scan = check_pairs(PairFolder(tmp_path / "one"))
    scan.raise_for_faults()
    cars = {(record.split, record.stem): record.car for record in scan.records}
    assert len(cars) == 9
    assert cars["train", "synth_00000"] == 0.0
    assert abs(cars["train", "synth_00003"] - 0.4) < 0.01
    assert set(np.unique(np.array(Image.open(tmp_path / "one/train/label/synth_00003.png")))) == {0, 255}
    settings = json.loads((tmp_path / "one/synthetic.json").read_text())
    assert settings["seed"] == 7 and settings["size"] == 64 and settings["cars"] == CARS


def test_a_longer_set_begins_with_the_shorter_and_splits_share_no_pair(tmp_path: Path) -> None:
    write_folder(tmp_path / "short", {"train": 2, "val": 1}, size=32, seed=1)
    write_folder(tmp_path / "long", {"train": 4, "val": 1}, size=32, seed=1)
    short, long = _files(tmp_path / "short"), _files(tmp_path / "long")
    del short["synthetic.json"]
    assert short.items() <= long.items()
    images = [data for name, data in long.items() if "/A/" in name]
    assert len(set(images)) == len(images)


def test_small_splits_hold_every_part(tmp_path: Path) -> None:
    write_folder(tmp_path / "set", {"val": 15}, size=32)
    cars = [record.car for record in check_pairs(PairFolder(tmp_path / "set")).records]
    assert {int(np.searchsorted([0.05, 0.20], car)) for car in cars} == {0, 1, 2}


def test_a_folder_with_anything_else_is_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_folder(root, {"train": 1}, size=32)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    write_folder(root, {"train": 1}, size=32)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    with pytest.raises(OutputError, match="seed"):
        write_folder(root, {"train": 1}, size=32, seed=1)
    (root / "train/A/synth_00000.png").unlink()
    with pytest.raises(OutputError, match=r"train/A/synth_00000\.png"):
        write_folder(root, {"train": 1}, size=32)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"no synthetic\.json"):
        write_folder(other, {"train": 1}, size=32)
    with pytest.raises(OutputError, match="found a file"):
        write_folder(other / "notes.txt", {"train": 1}, size=32)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="size"):
        write_folder(tmp_path / "set", {"train": 1}, size=8)
    with pytest.raises(OptionError, match="cars"):
        write_folder(tmp_path / "set", {"train": 1}, cars=[2.0])
    with pytest.raises(OptionError, match="pairs"):
        write_folder(tmp_path / "set", {"train": 0})
    assert list(tmp_path.iterdir()) == []


def test_a_scene_is_georeferenced(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    paths = [tmp_path / "out" / f"{name}.tif" for name in ("before", "after", "label")]
    write_scene(*paths, seed=2, height=96, width=160, car=0.1, epsg=32650, origin=(500_000.0, 3_000_000.0))
    scene = make_scene(2, 96, 160, 0.1)
    for path, pixels in zip(paths, (scene.before, scene.after, scene.label * 255), strict=True):
        with rasterio.open(path) as file:
            assert file.crs.to_epsg() == 32650 and file.crs.linear_units == "metre"
            assert file.res == (0.5, 0.5)
            assert tuple(file.bounds) == (500_000.0, 3_000_000.0 - 48.0, 500_000.0 + 80.0, 3_000_000.0)
            assert np.array_equal(np.moveaxis(file.read(), 0, 2).squeeze(), pixels)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["after.tif", "before.tif", "label.tif"]


def test_without_rasterio_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(MissingExtraError, match=r"bitemporal\[geo\]"):
        write_scene(tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "c.tif", height=32, width=32)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "set"
    words = ["data", "synth", str(root), "--pairs", "10", "--size", "32", "--cars", "[0.1]", "--workers", "1"]
    assert main([*words, "--kinds", "[water, building]"]) == 0
    assert "6 train, 2 val, 2 test" in capsys.readouterr().out
    labels = [np.array(Image.open(path)) > 0 for path in sorted(root.glob("*/label/*.png"))]
    assert [round(float(label.mean()), 1) for label in labels] == [0.1] * 10
    assert json.loads((root / "synthetic.json").read_text())["kinds"] == ["building", "water"]
    assert main([*words[:3], "--pairs", "11", "--size", "32"]) == 1
    assert "differ" in capsys.readouterr().err
    assert main([*words[:3], "--scene", "64"]) == 1
    assert main(["data", "synth", str(tmp_path / "scene"), "--scene", "64"]) == 0
    assert sorted(path.name for path in (tmp_path / "scene").iterdir()) == ["after.tif", "before.tif", "label.tif"]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"pairs": {"train": 10**12}}, r"^pairs: .* GB are free"),
        ({"size": 0}, r"^size: found 0 x 0"),
        ({"size": 10**9}, r"^size: found"),
        ({"size": -64}, r"^size: found"),
        ({"gsd": math.nan}, r"^gsd: found"),
        ({"gsd": math.inf}, r"^gsd: found"),
    ],
)
def test_sets_that_cannot_be_made_here_are_refused_before_any_work(tmp_path, settings, message):
    with pytest.raises(OptionError, match=message):
        write_folder(tmp_path / "set", **settings)
    assert list(tmp_path.iterdir()) == []
