"""The command itself: help of every command, options from YAML, unusable words, errors of the user's."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import bitemporal
from bitemporal.cli.main import COMMANDS, main


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"bitemporal {command}" in text
    assert "(type: " in text or "--" in text
    assert "<function" not in text and " at 0x" not in text


def test_overview_names_every_command(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert command in text


@pytest.mark.parametrize("words", [["data"], ["data", "--help"], ["data", "-h"]])
def test_a_group_names_its_commands(words, capsys):
    assert main(words) == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert (command in text) == command.startswith("data ")


def test_unknown_command_is_refused(capsys):
    assert main(["detect"]) == 2
    assert "no command 'detect'" in capsys.readouterr().err


def test_unknown_option_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "--model", "tinycd", "--data", "x", "--out", "y", "--steps", "3"])
    assert ended.value.code == 2


def test_numbers_are_read_from_words_and_from_yaml(tmp_path, capsys):
    (tmp_path / "options.yaml").write_text("label_values: [1, 2]\nmax_steps: 3\nlambda: 0.5\n")
    for given in (["--label-values=1,2"], [f"--config={tmp_path / 'options.yaml'}"]):
        words = ["distill", "--model=tinycd", f"--data={tmp_path / 'none'}", f"--out={tmp_path / 'run'}", *given]
        assert main(words) == 1  # no such folder: read that far
        assert str(tmp_path / "none") in capsys.readouterr().err


def test_wrong_count_of_numbers_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["data", "check", "x", "--image-range=1,2,3"])
    assert "2 comma-separated numbers" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--image-range", "-25,0"], ["--image-range=-25,0"], ["--image-range", "-.5,-.25"]])
def test_ranges_may_start_below_zero(option, tmp_path, capsys):
    assert main(["data", "check", str(tmp_path / "none"), *option]) == 1  # no such folder: read that far
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_an_interrupted_command_ends_without_a_traceback(monkeypatch, tmp_path, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("bitemporal.cli.data_check.PairFolder", interrupted)
    assert main(["data", "check", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "bitemporal data check: interrupted\n"


def test_version():
    done = subprocess.run([sys.executable, "-m", "bitemporal.cli.main", "--version"], capture_output=True, text=True)
    assert done.stdout.strip() == bitemporal.__version__


def test_public_names_are_these():
    assert sorted(bitemporal.__all__) == [
        "BitemporalError",
        "CarPartition",
        "ChangeModel",
        "Detector",
        "DistillRecipe",
        "DistillationRun",
        "Ensemble",
        "Evaluation",
        "OriginPartition",
        "PairFolder",
        "Prediction",
        "TestTimeAugmentation",
        "TrainRecipe",
        "__version__",
        "change_area_ratio",
        "create_model",
        "evaluate",
        "list_models",
        "load",
        "predict_scene",
        "register_model",
        "train",
    ]
    for name in bitemporal.__all__:
        assert getattr(bitemporal, name) is not None


def test_importing_the_package_loads_no_framework():
    code = "import sys, bitemporal; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("value", ["-9999", "-3.4028234663852886e+38", "-inf", "-.5", "-25,0"])
def test_negative_values_belong_to_their_option(value):
    from bitemporal.cli.main import _with_negative_numbers

    assert _with_negative_numbers(["a", "--nodata", value, "-o", "x"]) == ["a", f"--nodata={value}", "-o", "x"]


def test_extras_name_what_scenes_import():
    root = Path(__file__).resolve().parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = {
        re.split(r"[\[<>=]", word)[0].lower() for word in project["dependencies"] + extras["geo"] + extras["cluster"]
    }
    own = {"skimage": "scikit-image", "PIL": "pillow"}
    for file in (root / "src/bitemporal/scenes").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - {"bitemporal"}:
                assert own.get(module, module) in named, f"{file.name} imports {module}"
