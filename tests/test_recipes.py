"""Every recipe of recipes/ and the README's Python and commands run."""

import ast
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

from bitemporal.cli.main import COMMANDS, main
from bitemporal.run.recipe import DistillRecipe
from bitemporal.run.stages import DistillationRun
from scene_files import write_raster

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
SMALL = {"max_steps": 1, "teacher_steps": 1, "student_steps": 1, "validate_every": 1, "batch_size": 2, "crop_size": 32}


@pytest.fixture(scope="module")
def dry_run(tiny_pairs, tmp_path_factory) -> Path:
    """The demo's recipe with a micro network and one step per stage."""
    run = tmp_path_factory.mktemp("dry") / "run"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    recipe = f"--config={ROOT / 'recipes/demo.yaml'}"
    assert main(["distill", recipe, "--model=test_tinycd", f"--data={tiny_pairs}", f"--out={run}", *options]) == 0
    return run


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_dry_runs(path, tiny_pairs, tmp_path):
    said = yaml.safe_load(path.read_text())
    options = {("lambda_" if name == "lambda" else name): value for name, value in said.items()}
    options |= SMALL | {"model": "test_tinycd", "workers": 0, "stages": "origin,verdict"}
    full = {"model": "tinycd"} | {("lambda_" if name == "lambda" else name): value for name, value in said.items()}
    DistillRecipe(data="x", out="y", **full)  # as it stands, every field is usable
    results = DistillationRun(DistillRecipe(data=str(tiny_pairs), out=str(tmp_path), **options), Console(quiet=True))()
    assert list(results) == ["origin"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def test_python_of_the_readme_runs(dry_run, tiny_pairs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/demo").symlink_to(dry_run)
    (tmp_path / "runs/demo-pairs").symlink_to(tiny_pairs)
    for name, date in (("before.png", "A"), ("after.png", "B")):
        (tmp_path / name).symlink_to(tiny_pairs / "test" / date / "pair_00.png")
        # the same as a raster without a place
        with Image.open(tmp_path / name) as picture:
            write_raster((tmp_path / name).with_suffix(".tif"), np.asarray(picture).transpose(2, 0, 1), crs=None)
    (code,) = blocks("python")
    names: dict[str, object] = {"before": None, "after": None}
    runnable = code.replace("logits = network(before, after)", "")
    exec(compile(runnable, "README.md", "exec"), names)
    assert set(names["scores"]) >= {"dataset", "image_mean", "by_part"}
    assert (tmp_path / "change.tif").is_file()
    assert (tmp_path / "areas.gpkg").is_file()


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.stem)
def test_imports_of_the_documentation_work(path):
    text = path.read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    for code in (block for block in blocks if "import " in block):  # others may be fragments
        tree = ast.parse(code)
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(tree, path.name, "exec"), {})


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
