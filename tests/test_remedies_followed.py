"""Faulty input of many kinds, and what the error says to type about it: typed, it helps.

Remedies with more to them are followed where their error is tested.
"""

import os
import re
import shlex

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image

from bitemporal.cli import execution
from bitemporal.cli.main import main
from bitemporal.errors import BitemporalError, DataError
from bitemporal.inference.bundle import save_bundle
from bitemporal.models import create_model
from bitemporal.remedies import as_option, as_options, as_typed, free_name
from bitemporal.scenes import read_manifest
from bitemporal.scenes.exclusion import RasterOnGrid
from bitemporal.scenes.geometry import Grid
from bitemporal.scenes.grids import common_grid
from bitemporal.scenes.sources import open_source
from remedies import follow_commands, follow_options, follow_tools
from scene_files import LEFT, TOP, UTM, ground, write_raster

# --- words that can be pasted


@pytest.mark.parametrize("name", ["plain", "two words", "it's", "-dash", "$HOME", "a;b", "ü*"])
def test_a_path_is_one_word_and_no_option(name):
    (word,) = shlex.split(as_typed(name))
    assert os.path.normpath(word) == name and not word.startswith("-")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_steps", 6, ["--max-steps", "6"]),
        ("lambda_", 0.5, ["--lambda", "0.5"]),
        ("bands", (3, 2), ["--bands", "3,2"]),
        ("image_range", [-5.0, 3.0], ["--image-range", "-5.0,3.0"]),
        ("suffixes", ("-pre", "-post"), ["--suffixes=-pre,-post"]),
        ("name", "two words", ["--name", "two words"]),
        ("pretrained", True, ["--pretrained"]),
        ("model_options", {"encoder": "resnet34", "a": [1]}, ["--model-options", "{a: [1], encoder: resnet34}"]),
    ],
)
def test_a_field_is_an_option(name, value, words):
    assert shlex.split(as_option(name, value)) == words


def test_fields_that_are_not_given_are_left_out():
    values = {"lambda_": 0, "seed": 3, "pretrained": False, "reuse": None, "model_options": {}}
    assert as_options(values) == "--lambda 0 --seed 3 and without --pretrained --reuse --model-options"


def test_a_free_name_is_beside_what_is_there(tmp_path, monkeypatch):
    assert free_name(tmp_path / "x") == tmp_path / "x"
    (tmp_path / "x.tif").touch()
    (tmp_path / "x-2.tif").symlink_to("nowhere")
    assert free_name(tmp_path / "x.tif") == tmp_path / "x-3.tif"
    (tmp_path / "w").mkdir()
    monkeypatch.chdir(tmp_path / "w")
    assert free_name(".") == free_name("./") == tmp_path / "w-2" and free_name("..").parent == tmp_path.parent
    assert free_name("/").name


# --- folders of pairs


def write_images(*paths):
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8)).save(path)


def write_labels(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        label = np.zeros((16, 16), np.uint8)
        label[:4] = 255
        Image.fromarray(label).save(path)


def other_folders(root):
    write_images(root / "first/1.png", root / "second/1.png")
    write_labels(root / "label/1.png")
    return []


def one_date_is_named(root):
    write_images(root / "A/1.png", root / "later/1.png")
    write_labels(root / "label/1.png")
    return []


def wrong_folders(root):
    write_images(root / "x/1.png", root / "y/1.png")
    write_labels(root / "label/1.png")
    return ["--folders", "p,q"]


def ends_of_stems(root):
    for i in range(3):
        write_images(root / f"tile{i}_2019.png", root / f"tile{i}_2021.png")
        write_labels(root / f"tile{i}_gt.png")
    return []


def ends_with_a_dash(root):
    for i in range(3):
        write_images(root / f"tile{i}-may.png", root / f"tile{i}-june.png")
        write_labels(root / f"tile{i}-mask.png")
    return []


def pairs_and_label_in_files(root):
    for i in range(3):
        write_images(root / f"tile{i}_old.png", root / f"tile{i}_recent.png")
        write_labels(root / f"tile{i}_truth.png")
    return []


MAKERS = (other_folders, one_date_is_named, wrong_folders, ends_of_stems, ends_with_a_dash, pairs_and_label_in_files)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("name", ["pairs", "my pairs", "-pairs"])
def test_folders_and_suffixes_are_proposed(make, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["data", "check", f"./{name}", *make(tmp_path / name)]
    assert main(words) == 1
    printed = capsys.readouterr()
    assert follow_options(printed.out + printed.err, words)


def test_images_of_unequal_names_get_suffixes(tmp_path, capsys):
    write_images(tmp_path / "a/scene_may.png", tmp_path / "b/scene_june.png")
    save_bundle(tmp_path / "bundle", create_model("test_tinycd"))
    words = ["predict", str(tmp_path / "a"), str(tmp_path / "b"), "--bundle", str(tmp_path / "bundle")]
    words += ["-o", str(tmp_path / "masks")]
    assert main(words) == 1
    assert follow_options(capsys.readouterr().err, words) == [["--suffixes", "_may,_june"]]
    write_images(tmp_path / "c/other.png")  # nothing to propose
    assert main([*words[:2], str(tmp_path / "c"), *words[3:]]) == 1
    assert "--" not in capsys.readouterr().err


def test_the_check_that_lists_faults_reads_with_the_same_options(tmp_path, capsys):
    write_images(tmp_path / "p q/x/1.png", tmp_path / "p q/y/1.png", tmp_path / "p q/x/2.png")
    write_labels(tmp_path / "p q/z/1.png", tmp_path / "p q/z/2.png")
    words = [str(tmp_path / "p q"), "--folders", "x,y,z", "--changed", "255"]
    assert main(["data", "stats", *words, "-o", str(tmp_path / "out")]) == 0
    command = re.search("`bitemporal (.*?)`", capsys.readouterr().out)[1]
    assert main(shlex.split(command)) == 1  # because there are faults
    assert "no image of the same stem" in (text := capsys.readouterr().out) or "2.png" in text


def test_a_split_is_proposed(tmp_path, capsys):
    for split in ("train", "extra"):
        write_images(tmp_path / split / "A/1.png", tmp_path / split / "B/1.png")
        write_labels(tmp_path / split / "label/1.png")
    save_bundle(tmp_path / "bundle", create_model("test_tinycd"))
    words = ["evaluate", str(tmp_path / "bundle"), str(tmp_path)]
    assert main(words) == 1
    assert follow_options(capsys.readouterr().err, words) == [["--split", "train"], ["--split", "extra"]]


def test_smaller_groups_are_proposed(tmp_path, capsys):
    for i in range(6):
        write_images(tmp_path / f"A/one_{i}.png", tmp_path / f"B/one_{i}.png")
        write_labels(tmp_path / f"label/one_{i}.png")
    words = ["data", "split", str(tmp_path), "-o", str(tmp_path / "my splits.csv"), "--group", "(one)_."]
    assert main(words) == 1
    assert follow_options(capsys.readouterr().err, words) == [["--group", ".*"]]
    assert main(["data", "split", str(tmp_path), "-o", str(tmp_path / "my splits.csv"), "--group", ".*"]) == 0
    assert follow_options(capsys.readouterr().out, ["data", "check", str(tmp_path)])


def test_more_bands_than_colours_are_named(tmp_path, capsys):
    for name in "AB":
        (tmp_path / name).mkdir()
        write_raster(tmp_path / name / "1.tif", ground(1, 16, 16, 4), photometric="RGB")
    write_labels(tmp_path / "label/1.png")
    words = ["data", "check", str(tmp_path)]
    assert main(words) == 0
    assert follow_options(capsys.readouterr().out, words) == [["--bands", "4,3,2"]]


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        (["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"], "3,2,1"),
        (["B04", "B03", "B02", "B08"], "1,2,3"),
        ([None] * 10, "3,2,1"),
        ([None] * 13, "4,3,2"),
    ],
)
def test_bands_are_proposed_by_their_names(tmp_path, capsys, names, bands):
    """Ten bands of Sentinel-2 lack B01, so that red, green and blue are others than of thirteen."""
    for date in "AB":
        (tmp_path / date).mkdir()
        path = write_raster(tmp_path / date / "1.tif", ground(1, 16, 16, len(names)), photometric="MINISBLACK")
        with rasterio.open(path, "r+") as file:
            file.descriptions = names
    write_labels(tmp_path / "label/1.png")
    words = ["data", "check", str(tmp_path)]
    assert main(words) == 1
    assert follow_options(capsys.readouterr().out, words) == [["--bands", bands]]


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(-2016, -696, "-3000,0"), (-25, 3, "-30,10"), (10794, 59110, "0,60000")]
)
def test_a_range_is_proposed_for_all_files_at_once(tmp_path, capsys, low, high, expected):
    for date in "AB":
        (tmp_path / date).mkdir()
        for number in range(3):
            values = np.linspace(low + number, high - number, 256).reshape(1, 16, 16)
            dtype = "uint16" if low > 0 else "int16"
            write_raster(tmp_path / date / f"{number}.tif", values.astype(dtype))
    for number in range(3):
        write_labels(tmp_path / f"label/{number}.png")
    words = ["data", "check", str(tmp_path)]
    assert main(words) == 1
    assert follow_options(capsys.readouterr().out, words) == [["--image-range", expected]]


def test_processes_that_cannot_be_started_are_done_without(tmp_path, monkeypatch, capsys):
    for i in range(2):
        write_images(tmp_path / f"A/{i}.png", tmp_path / f"B/{i}.png")
        write_labels(tmp_path / f"label/{i}.png")

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("multiprocessing.Lock", full)
    words = ["data", "check", str(tmp_path), "--workers", "2"]
    assert main(words) == 1
    text = capsys.readouterr().err.replace("--shm-size=1g", "")  # of Docker
    assert follow_options(text, words) == [["--workers", "1"]]


def test_tiles_that_are_too_large_or_too_empty(tmp_path, capsys):
    write_raster(tmp_path / "a.tif", ground(1, 40, 50))
    write_raster(tmp_path / "b.tif", np.where(np.arange(50) < 20, 0, ground(2, 40, 50)).astype(np.uint8))
    images = [str(tmp_path / "a.tif"), str(tmp_path / "b.tif")]
    words = ["data", "tiles", *images, "-o", str(tmp_path / "large")]
    assert main(words) == 1
    assert follow_options(capsys.readouterr().err, words) == [["--size", "40"]]
    words = ["data", "tiles", *images, "-o", str(tmp_path / "empty"), "--size", "40", "--nodata", "0"]
    assert main(words) == 1
    assert follow_options(capsys.readouterr().err, words) == [["--minimum-valid", "0.5"]]


# --- rasters


@pytest.fixture(params=["plain", "two words", "-dash"])
def place(request, tmp_path, monkeypatch):
    """A folder whose files have odd names, and the name as one would type it there."""
    monkeypatch.chdir(tmp_path)
    return lambda name: f"./{request.param} {name}" if " " in request.param else f"./{request.param}{name}"


GRID = Grid(rasterio.CRS.from_string(UTM), Affine(0.5, 0, LEFT, 0, -0.5, TOP), 80, 60)


def test_a_mask_gets_a_place_or_loses_it(place):
    write_raster(place("m.tif"), np.ones((1, 60, 80), np.uint8), crs=None, transform=Affine(0.5, 0, LEFT, 0, -0.5, TOP))
    with pytest.raises(DataError) as caught:
        RasterOnGrid(place("m.tif"), GRID, "mask")
    follow_tools(str(caught.value))
    RasterOnGrid(place("m.tif"), GRID, "mask").close()
    plain = Grid(None, Affine.identity(), 80, 60)
    with pytest.raises(DataError) as caught:
        RasterOnGrid(place("m.tif"), plain, "mask")
    follow_tools(str(caught.value))
    RasterOnGrid(place("m.tif"), plain, "mask").close()


def test_pixels_of_another_size_are_brought_to_those_of_date_1(place):
    write_raster(place("a.tif"), ground(1, 60, 80))
    coarse = Affine(40, 0, LEFT, 0, -40, TOP)
    write_raster(place("b.tif"), ground(2, 4, 4), transform=coarse)
    before, after = open_source(place("a.tif"), "before"), open_source(place("b.tif"), "after")
    with pytest.raises(DataError, match="times larger or smaller") as caught:
        common_grid(before, after)
    ((_, _, _, written, *_),) = follow_tools(str(caught.value))
    brought = open_source(written, "after")
    assert common_grid(before, brought) == before.grid == brought.grid


def test_a_date_without_a_place_gets_that_of_the_other(place):
    write_raster(place("a.tif"), ground(1, 60, 80))
    write_raster(place("b.tif"), ground(2, 60, 80), crs=None, transform=Affine.identity())
    with pytest.raises(DataError) as caught:
        common_grid(open_source(place("a.tif"), "before"), open_source(place("b.tif"), "after"))
    follow_tools(str(caught.value))
    common_grid(open_source(place("a.tif"), "before"), open_source(place("b.tif"), "after"))


def test_one_layer_of_several_is_written_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shapes = geopandas.GeoDataFrame(geometry=[shapely.box(LEFT, TOP - 20, LEFT + 20, TOP)], crs=UTM)
    for layer in ("one", "other"):
        shapes.to_file("two layers.gpkg", layer=layer)
    write_raster("p.tif", np.random.default_rng(0).random((1, 60, 80)).astype(np.float32))
    words = ["threshold", "p.tif", "-o", "c.tif", "--within"]
    assert main([*words, "two layers.gpkg"]) == 1
    exec(re.search("`(geopandas.*?)`", capsys.readouterr().err)[1], {"geopandas": geopandas})
    assert main([*words, "one.gpkg"]) == 0


@pytest.mark.parametrize(
    ("assets", "expected"),
    [
        (["B02", "B03", "B04", "B08"], ["--assets", "B04,B03,B02"]),
        (["image", "thumbnail"], ["--assets", "image"]),
        (["nir", "pan", "swir"], ["--assets", "nir,pan,swir"]),
    ],
)
def test_assets_are_proposed(assets, expected, tmp_path):
    import json

    items = [
        {
            "type": "Feature",
            "id": date,
            "properties": {"datetime": f"{date}-05-01T00:00:00Z", "grid:code": "T1"},
            "assets": {name: {"href": f"{name}.{'png' if name == 'thumbnail' else 'tif'}"} for name in assets},
        }
        for date in ("2020", "2021")
    ]
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    scenes = read_manifest(tmp_path / "items.json", ("no_such",))
    text = scenes[0].error
    assert shlex.split(re.search(r"as in (--assets \S+)", text)[1]) == expected
    assert not read_manifest(tmp_path / "items.json", expected[1].split(","))[0].error


# --- commands


def test_a_run_that_has_not_begun_is_trained_as_it_says(tiny_pairs, tmp_path, monkeypatch, capsys):
    from bitemporal.run.recipe import TrainRecipe

    monkeypatch.chdir(tmp_path)
    (tmp_path / "-my run").mkdir()
    recipe = TrainRecipe(
        model="test_tinycd", data=str(tiny_pairs), out=str(tmp_path / "-my run"), max_steps=1, crop_size=32, workers=0
    )
    recipe.to_yaml(tmp_path / "-my run/recipe.yaml")
    assert main(["report", "./-my run"]) == 1
    follow_commands(capsys.readouterr().err)
    assert main(["report", "./-my run"]) == 0


def test_pretrained_weights_that_do_not_exist_are_not_asked_for(tiny_pairs, tmp_path, capsys):
    words = ["train", "--model=test_fc", f"--data={tiny_pairs}", f"--out={tmp_path / 'run'}", "--max-steps=1"]
    words += ["--crop-size=32", "--workers=0", "--pretrained"]
    assert main(words) == 1
    assert follow_options(capsys.readouterr().err, words) == [[]]


def test_options_that_need_less_memory_are_those_of_the_command(tmp_path, monkeypatch, capsys):
    write_images(tmp_path / "a.png", tmp_path / "b.png")
    save_bundle(tmp_path / "bundle", create_model("test_tinycd"))
    words = ["predict", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--bundle", str(tmp_path / "bundle")]
    words += ["-o", str(tmp_path / "m.png"), "--batch-size", "8"]
    full = True

    def memory(*_, **__):
        nonlocal full
        if full:
            raise MemoryError("all of it")

    monkeypatch.setattr(execution, "remember_modules", memory)
    assert main(words) == 1
    text, full = capsys.readouterr().err, False
    assert follow_options(text, words) == [["--batch-size", "4"], ["--device", "cpu"]]
    full = True
    assert main(["data", "check", str(tmp_path)]) == 1
    assert "--" not in capsys.readouterr().err


def test_an_output_that_is_taken_gets_another_name(tmp_path, capsys):
    from safetensors.torch import save_file

    save_file(create_model("test_tinycd").state_dict(), tmp_path / "x.safetensors")
    (tmp_path / "my bundle").mkdir()
    (tmp_path / "my bundle/notes.txt").touch()
    words = ["import", str(tmp_path / "x.safetensors"), "--model", "test_tinycd", "-o", str(tmp_path / "my bundle")]
    assert main(words) == 1
    assert follow_options(capsys.readouterr().err, words) == [["--output", str(tmp_path / "my bundle-2")]]


@pytest.mark.parametrize("words", [["data", "download", "levr-cd"], ["models", "--max-parameters", "1"]])
def test_lists_are_printed(words, capsys):
    main(words)
    printed = capsys.readouterr()
    follow_commands(printed.out + printed.err)


# --- what is not there

NOT_THERE = {
    "data check": "nowhere",
    "data stats": "nowhere -o out",
    "data split": "nowhere",
    "data tiles": "nowhere -o out",
    "train": "--model test_fc --data nowhere --out out",
    "distill": "--model test_fc --data nowhere --out out",
    "predict": "nowhere nowhere --bundle {bundle} -o out.png",
    "predict-scene": "nowhere nowhere --bundle {bundle} -o out.tif",
    "predict-archive": "--manifest nowhere.csv --bundle {bundle} -o out",
    "threshold": "nowhere -o out.tif",
    "evaluate": "{bundle} nowhere",
    "compare": "nowhere nowhere2",
    "report": "nowhere",
    "import": "nowhere --model test_fc -o out",
    "reproduce": "jl1-cd --model tinycd --data nowhere",
}


@pytest.mark.parametrize("command", NOT_THERE)
def test_a_path_that_is_not_there_is_named_from_the_root(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_bundle(tmp_path / "bundle", create_model("test_fc"))
    words = [*command.split(), *NOT_THERE[command].format(bundle="bundle").split()]
    assert main(words) == 1
    assert str(tmp_path / "nowhere") in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "data check pairs --splits nowhere",
        "train --config nowhere",
        "evaluate nowhere pairs",
        "evaluate nowhere.tif label.tif",
        "evaluate p.tif nowhere.gpkg",
        "threshold p.tif -o c.tif --within nowhere.gpkg",
        "threshold p.tif -o c.tif --mask nowhere.tif",
        "distill --model test_fc --data pairs --out out --reuse nowhere",
        "data check pairs --import nowhere.py",
    ],
)
def test_an_option_that_names_nothing_says_where(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        write_images(tmp_path / "pairs" / split / "A/1.png", tmp_path / "pairs" / split / "B/1.png")
        write_labels(tmp_path / "pairs" / split / "label/1.png")
    write_raster("p.tif", np.random.default_rng(0).random((1, 60, 80)).astype(np.float32))
    write_raster("label.tif", np.ones((1, 60, 80), np.uint8))
    try:
        status = main(words.split())
    except SystemExit as ended:
        status = ended.code
    assert status
    printed = capsys.readouterr()
    assert str(tmp_path / "nowhere") in printed.err + printed.out


def test_images_and_bundles_of_the_library_that_are_not_there(tmp_path, monkeypatch):
    from bitemporal import load

    monkeypatch.chdir(tmp_path)
    save_bundle(tmp_path / "bundle", create_model("test_fc"))
    write_images(tmp_path / "a.png")
    for call in (lambda: load("nowhere", "cpu"), lambda: load("bundle", "cpu").predict("a.png", "nowhere.png")):
        with pytest.raises(BitemporalError, match=re.escape(str(tmp_path / "nowhere"))):
            call()
