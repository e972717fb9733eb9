"""Every recipe of recipes/ runs, and the README names every command and file that exists."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from bitemporal.cli.main import COMMANDS
from bitemporal.run.recipe import DistillRecipe
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
