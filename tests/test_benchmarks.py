"""Pages of benchmarks are what their scripts write from the raw numbers next to them."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from bitemporal.models import list_models
from conftest import SHARED

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name.replace("/", "_"), BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the golden files are not next to this checkout")
def test_networks_are_compared_with_the_configurations_of_their_goldens():
    configs = script("open_cd/speed").CONFIGS
    goldens = {path.stem: json.loads(path.read_text())["config"] for path in (SHARED / "goldens").glob("*.json")}
    assert {name: path.partition("/")[2] for name, path in configs.items()} == goldens


@pytest.mark.parametrize(
    "name", ["batches/batches", "metrics/metrics", "open_cd/speed", "scenes/scenes", "synthetic/difficulty"]
)
def test_pages_are_those_of_the_raw_numbers(name):
    raw = BENCHMARKS / f"{name}.json"
    assert (raw.parent / "README.md").read_text() == script(name).page(json.loads(raw.read_text()))


def test_speed_is_compared_for_networks_that_are_here():
    content = json.loads((BENCHMARKS / "open_cd/speed.json").read_text())
    assert set(content["networks"]) <= set(list_models())


def test_every_benchmark_has_a_page_and_a_script_and_is_listed():
    index = (BENCHMARKS / "README.md").read_text()
    folders = [path for path in BENCHMARKS.iterdir() if path.is_dir() and path.name != "__pycache__"]
    for folder in folders:
        assert (folder / "README.md").is_file() and [*folder.glob("*.py")], folder.name
        assert f"]({folder.name}/README.md)" in index, folder.name
    for path in BENCHMARKS.glob("*.py"):
        assert f"`{path.name}`" in index, path.name


def test_the_tables_of_the_study_are_those_of_its_raw_numbers():
    study = script("study/page")
    page = study.PAGE.read_text()
    scores = study.read_scores()
    assert study.filled(page, scores) == page
    # a mean over the seeds, by hand
    (network, method), counts = next(iter(scores["gz"].cells.items()))
    tn, fp, fn, tp = counts.counts.sum(1).T
    expected = 100 * ((tp / (tp + fp + fn) + tn / (tn + fp + fn)) / 2).mean()
    rows = [[cell.strip() for cell in line.split("|")] for line in study.score_table(scores["gz"]).splitlines()]
    cell = next(row for row in rows if row[1] == method)[rows[0].index(network)]
    assert float(cell.split()[0]) == round(float(expected), 2)
