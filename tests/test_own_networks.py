"""Networks of the user's own modules in every command: --import, BITEMPORAL_IMPORT, entry points."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bitemporal.cli.main import main
from bitemporal.own_networks import MODULES_VARIABLE, needs_module

CODE = """
from bitemporal import register_model
from bitemporal.models import create_model, model_card

@register_model(model_card("test_tinycd"))
def {name}(in_channels=3):
    return create_model("test_tinycd", in_channels=in_channels)
"""


def bitemporal(*words: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as what is imported stays."""
    command = [sys.executable, "-m", "bitemporal", *words]
    environment = os.environ | variables
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300)


@pytest.fixture
def module(tmp_path):
    (tmp_path / "my_networks.py").write_text(CODE.format(name="my_network"))
    return tmp_path


@pytest.mark.parametrize("name", ["my_networks", "my_networks.py"])
def test_a_network_of_a_module_or_a_file_is_described(name, module):
    done = bitemporal("models", "my_network", "--import", name, "--json", folder=module)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "my_network"


def test_it_is_trained_and_predicts(module, tiny_pairs):
    options = ["--max-steps", "1", "--batch-size", "2", "--crop-size", "32", "--workers", "0"]
    words = ["train", "--import", "my_networks", "--model", "my_network", "--data", str(tiny_pairs), "--out", "r"]
    done = bitemporal(*words, *options, folder=module)
    assert done.returncode == 0, done.stderr
    pair = [str(tiny_pairs / f"test/{date}/pair_00.png") for date in "AB"]
    words = ["predict", "--bundle", "r/origin/bundle", *pair, "-o", "m.png"]
    alone = bitemporal(*words, folder=module)
    assert alone.returncode == 1 and "model 'my_network' is not registered" in alone.stderr
    remedy = re.search(r"--import \S+", alone.stderr).group().split()  # followed to the letter:
    assert bitemporal(*words, *remedy, folder=module).returncode == 0
    assert bitemporal(*words, "--import", "my_networks.py", folder=module).returncode == 0
    assert bitemporal(*words, folder=module, **{MODULES_VARIABLE: "my_networks"}).returncode == 0


def test_what_is_made_of_a_run_names_its_module_and_never_runs_it(module, tiny_pairs):
    (module / "nets").mkdir()
    mark = "import pathlib\npathlib.Path('ran').touch()\n"
    (module / "nets/mine.py").write_text(mark + CODE.format(name="my_network").replace("test_tinycd", "test_fc"))
    options = ["--max-steps", "1", "--batch-size", "2", "--crop-size", "32", "--workers", "0", "--out", "r"]
    words = ["train", "--model", "my_network", "--data", str(tiny_pairs), *options]
    done = bitemporal(*words, "--import", "nets/mine.py", folder=module)
    assert done.returncode == 0, done.stderr
    (module / "ran").unlink()
    assert json.loads((module / "r/origin/bundle/bundle.json").read_text())["module"] == "nets/mine.py"
    for command in (["report", "r"], ["evaluate", "r/origin/bundle", str(tiny_pairs)], words):
        alone = bitemporal(*command, folder=module)
        assert alone.returncode == 1 and not (module / "ran").exists()
        assert "nets/mine.py registers it, whose code runs only if you ask for it" in alone.stderr
        remedy = re.search(r"--import \S+", alone.stderr).group().split()
        done = bitemporal(*command, *remedy, folder=module)
        assert done.returncode == 0, done.stderr
        (module / "ran").unlink()
    scored = bitemporal("compare", "r", "r", folder=module)
    command = re.search(r"`bitemporal (.*)`", scored.stderr).group(1).split()
    assert not (module / "ran").exists() and bitemporal(*command, folder=module).returncode == 0
    (module / "ran").unlink()
    assert "seeds 0, 0" in bitemporal("compare", "r", "r", folder=module).stderr  # read, as a result needs no network
    assert not (module / "ran").exists()


def test_the_module_that_a_foreign_bundle_names_is_quoted():
    told = needs_module("theirs", "a; rm -rf \x1b[31m~")
    assert "--import 'a; rm -rf" in told and "\x1b" not in told


def test_the_entry_points_of_an_installed_package_are_imported(module):
    package = module / "site/my_package-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[bitemporal.models]\nmine = my_package\n")
    (module / "site/my_package.py").write_text(CODE.format(name="packaged"))
    path = os.pathsep.join([str(module / "site"), os.environ.get("PYTHONPATH", "")])
    done = bitemporal("models", "--pattern", "pack*", "--json", folder=module, PYTHONPATH=path)
    assert [network["name"] for network in json.loads(done.stdout)] == ["packaged"], done.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none_such", ["there is no module none_such; expected one of the current folder"]),
        ("broken.none_such", ["broken.none_such fails", "ZeroDivisionError: division by zero, broken.py line 2"]),
        ("needs", ["importing needs fails", "No module named 'none_such'", "needs.py line 1", "install"]),
        ("./broken", ["./broken is not a module name", "nets/my_networks.py"]),
        ("my-networks", ["my-networks is not a module name"]),
        ("syntax.py", ["SyntaxError", "syntax.py, line 1"]),
        ("none_such.py", ["none_such.py", "no such file"]),
        ("breken.py", ["breken.py: no such file", "correct the path"]),
        ("broken.py", ["broken.py", "ZeroDivisionError", "broken.py line 2"]),
        ("json.py", ["json.py", "rename the file"]),
    ],
)
def test_what_cannot_be_imported_is_one_line(name, words, module, monkeypatch, capsys):
    monkeypatch.setenv(MODULES_VARIABLE, "")
    monkeypatch.chdir(module)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (module / "broken.py").write_text("\n1 / 0\n")
    (module / "needs.py").write_text("import none_such\n")
    (module / "syntax.py").write_text("def f(:\n")
    (module / "json.py").write_text("")
    assert main(["models", "--import", name]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and all(word in said for word in words)
