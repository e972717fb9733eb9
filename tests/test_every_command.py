"""What holds for every command alike: its JSON, its silence, and packages that are not installed."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import rasterio

from bitemporal import errors
from bitemporal.cli.main import COMMANDS, main
from bitemporal.errors import MissingExtraError
from bitemporal.inference.bundle import save_bundle
from bitemporal.models import create_model
from bitemporal.synthetic import write_scene
from scene_files import write_raster

TRAINING = "--data pairs --max-steps 2 --batch-size 2 --crop-size 32 --workers 0"

WORDS = {
    "data check": "pairs",
    "data stats": "pairs -o OUT/stats",
    "data split": "pairs/train -o OUT/splits.csv",
    "data tiles": "before.tif after.tif --label label.tif -o OUT/tiles --size 32",
    "data download": "list",
    "data synth": "OUT/synth --pairs 3 --size 32 --workers 1",
    "train": f"--model test_fc --out OUT/run {TRAINING}",
    "distill": f"--model test_fc --out OUT/run --teacher-steps 2 --student-steps 2 {TRAINING}",
    "predict": "pairs/test/A pairs/test/B --bundle bundle -o OUT/masks --device cpu",
    "predict-scene": "before.tif after.tif --bundle bundle -o OUT/change.tif --device cpu",
    "predict-archive": "--manifest scenes.csv --bundle bundle -o OUT/archive --device cpu",
    "threshold": "chances.tif -o OUT/change.tif --threshold 0.4",
    "evaluate": "chances.tif label.tif -o OUT/scores.json --block 32",
    "compare": "a.json b.json -o OUT/comparison.json",
    "report": "run -o OUT/report.html",
    "reproduce": "jl1-cd --model fc_ef --dry-run",
    "models": "",
    "import": "bundle/weights.safetensors --model test_fc -o OUT/imported",
    "completion": "bash",
}
"""Words of every command that do its work; OUT is a new folder."""

FAULTY = {
    "data download": "nothing",
    "data synth": "OUT/synth --pairs 1",
    "reproduce": "jl1-cd --model nothing",
    "models": "nothing",
    "compare": "a.json",
}
"""Words of an error; by default those above with inputs that are not there."""


@pytest.fixture(scope="module")
def world(tiny_pairs, tmp_path_factory):
    """A folder with all that the words above name."""
    folder = tmp_path_factory.mktemp("world")
    shutil.copytree(tiny_pairs, folder / "pairs")
    write_scene(*(folder / f"{name}.tif" for name in ("before", "after", "label")), 0, 64, 64, 0.2)
    with rasterio.open(folder / "label.tif") as label:
        chances = np.random.default_rng(0).random((1, 64, 64), np.float32)
        write_raster(folder / "chances.tif", chances, None, transform=label.transform)
        with rasterio.open(folder / "chances.tif", "r+") as target:
            target.crs = label.crs
    save_bundle(folder / "bundle", create_model("test_fc"))
    (folder / "scenes.csv").write_text("before,after\nbefore.tif,after.tif\n")
    with contextlib.chdir(folder):
        for name in "ab":
            assert main(f"evaluate pairs/test/label pairs -o {name}.json --name {name} --quiet".split()) == 0
        assert main([*words("train", "."), "--quiet"]) == 0
    return folder


def words(command, out, table=WORDS):
    return [*command.split(), *table[command].replace("OUT", str(out)).split()]


def words_of_an_error(command, out):
    if command in FAULTY:
        return words(command, out, FAULTY)
    return [
        re.sub(r"^(pairs|before|chances|scenes|run|bundle/weights|jl1-cd|bash)", r"no-\1", word)
        for word in words(command, out)
    ]


def test_every_command_stands_here():
    assert WORDS.keys() == COMMANDS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_one_document_and_quiet_is_silent(command, world, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(world)
    assert main([*words(command, tmp_path / "json"), "--json"]) == 0
    assert isinstance(json.loads(capfd.readouterr().out), dict | list)
    assert main([*words(command, tmp_path / "quiet"), "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--json", "--quiet"])
def test_an_error_leaves_standard_output_empty(command, option, world, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(world)
    try:
        status = main([*words_of_an_error(command, tmp_path / "new"), option])
    except SystemExit as ended:  # of the parser
        status = ended.code
    said = capfd.readouterr()
    assert status == (2 if command == "completion" else 1)  # a shell that it does not know is a typing error
    assert not said.out and (f"bitemporal {command}: " in said.err or status == 2)
    assert "Traceback" not in said.err


PACKAGES_OF_NAMES = {"skimage": "scikit-image"}


def test_packages_of_extras_are_those_that_the_project_names():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for name, extra in errors._EXTRAS.items():
        named = [re.split(r"[>=\[]", text)[0] for text in project["optional-dependencies"][extra]]
        assert PACKAGES_OF_NAMES.get(name, name) in named
    listed = {
        re.split(r"[>=\[]", text)[0] for extra in ("geo", "cluster", "track")
        for text in project["optional-dependencies"][extra]
    }  # fmt: skip
    assert listed - {"bitemporal"} == {PACKAGES_OF_NAMES.get(name, name) for name in errors._EXTRAS}


NEEDS_GEO = {"data tiles", "predict-scene", "predict-archive", "threshold", "evaluate"}
MORE_WORDS = {
    "data synth": "OUT/synth --scene 64",
    "predict-archive": WORDS["predict-archive"] + " --engine ray",
}
"""Ways of commands that need an extra, where the words above need none."""


@pytest.mark.parametrize(
    ("packages", "commands"),
    [
        ("rasterio affine geopandas pandas pyarrow pyogrio pyproj skimage shapely", {*NEEDS_GEO, "data synth"}),
        pytest.param("pandas geopandas pyogrio", NEEDS_GEO, marks=pytest.mark.full),
        pytest.param("ray tensorboard", {"predict-archive"}, marks=pytest.mark.full),
    ],
)
def test_every_command_without_the_packages_of_extras(packages, commands, world, tmp_path):
    """It does its work, or says what to install; a package that is not there is no traceback."""
    calls = [words(command, tmp_path / command.replace(" ", "-"), WORDS | MORE_WORDS) for command in COMMANDS]
    script = (
        "import contextlib, io, json, sys\n"
        f"sys.modules.update(dict.fromkeys({packages.split()!r}))\n"
        "from bitemporal.cli.main import main\n"
        "found = []\n"
        f"for words in {calls!r}:\n"
        "    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):\n"
        "        try: status = main(words)\n"
        "        except SystemExit as ended: status = ended.code\n"
        "    found.append([status, said.getvalue()])\n"
        "print(json.dumps(found))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=world, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command, (status, said) in zip(COMMANDS, json.loads(done.stdout), strict=True):
        missing = re.search(
            r"needs (\w+), which is not installed; install it with `pip install 'bitemporal\[(\w+)\]'`", said
        )
        assert (status == 1) == (command in commands) == (missing is not None), (command, said)
        if missing:
            assert missing[1] in packages.split() and errors._EXTRAS[missing[1]] == missing[2]


def test_public_names_without_the_packages_of_extras():
    script = (
        "import sys; sys.modules['rasterio'] = None\n"
        "import bitemporal\n"
        "try: bitemporal.evaluate_raster\n"
        "except bitemporal.errors.MissingExtraError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "evaluate_raster needs rasterio" in done.stdout and "'bitemporal[geo]'" in done.stdout


def test_a_package_of_no_extra_is_no_missing_extra():
    assert MissingExtraError.of(ModuleNotFoundError("No module named 'x'", name="x")) is None
