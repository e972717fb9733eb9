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


def test_the_page_of_speed_compared_with_open_cd_is_current():
    folder = BENCHMARKS / "open_cd"
    content = json.loads((folder / "speed.json").read_text())
    assert (folder / "speed.md").read_text() == script("open_cd/speed").table(content)
    assert set(content["networks"]) <= set(list_models())


def test_the_page_of_whole_scenes_is_current():
    folder = BENCHMARKS / "scenes"
    content = json.loads((folder / "scenes.json").read_text())
    assert (folder / "README.md").read_text() == script("scenes/scenes").page(content)


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
