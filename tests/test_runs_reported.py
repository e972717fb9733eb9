"""Runs side by side, and the report of a run with one network."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from bitemporal.cli.main import main
from bitemporal.errors import DataError
from bitemporal.inference.bundle import read_description
from bitemporal.report import write_report
from bitemporal.run import stages
from remedies import follow_commands
from test_pipeline import distill
from test_report import Page
from test_training import recipe

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def runs(tiny_pairs, tmp_path_factory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("runs")
    for name, options in (("weak", {"lambda": 0.1}), ("strong", {"lambda": 3.0})):
        distill(tiny_pairs, root / name, **options)()
    return root / "weak", root / "strong"


@pytest.fixture
def trained(tiny_pairs, tmp_path) -> Path:
    stages.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)
    return tmp_path / "run"


def test_runs_are_compared_by_the_results_of_their_detectors(runs, tmp_path, capsys):
    output = tmp_path / "all.json"
    assert main(["compare", *map(str, runs), "--baseline", "weak/student", "-o", str(output)]) == 0
    content = json.loads(output.read_text())
    detectors = [f"{run}/{name}" for run in ("weak", "strong") for name in ("origin", "o-p", "control", "student")]
    assert sorted(content["detectors"]) == sorted(detectors) and content["baseline"] == "weak/student"
    for name in detectors:
        run, detector = name.split("/")
        scored = json.loads((runs[0].parent / run / f"scores/test/{detector}.json").read_text())
        assert content["detectors"][name]["dataset"]["miou"]["value"] == scored["dataset"]["miou"]
    assert "strong/student" in capsys.readouterr().out


def test_a_run_is_compared_with_a_file_and_with_a_run_of_the_same_name(runs, tmp_path):
    file = runs[0] / "scores/test/student.json"
    output = tmp_path / "all.json"
    assert main(["compare", str(runs[1]), str(file), "-o", str(output)]) == 0
    assert {"strong/control", "student"} < {*json.loads(output.read_text())["detectors"]}
    shutil.copytree(runs[0], tmp_path / "other/weak")
    assert main(["compare", str(runs[0]), str(tmp_path / "other/weak"), "-o", str(output)]) == 0
    assert {f"{runs[0]}/student", f"{tmp_path}/other/weak/student"} < {*json.loads(output.read_text())["detectors"]}


def test_runs_are_compared_on_val_where_one_has_no_test_scores(runs, tmp_path):
    shutil.copytree(runs[1], tmp_path / "strong")
    shutil.rmtree(tmp_path / "strong/scores/test")
    output = tmp_path / "all.json"
    assert main(["compare", str(runs[0]), str(tmp_path / "strong"), "-o", str(output)]) == 0
    assert ", val, " in json.loads(output.read_text())["description"]
    shutil.rmtree(tmp_path / "strong/scores/val")
    with pytest.raises(DataError, match="finish the run: `bitemporal distill --config"):
        write_report(tmp_path / "strong")


def test_a_run_without_scores_says_how_to_score_it(trained, runs, capsys):
    assert main(["compare", str(trained), str(runs[0])]) == 1
    text = capsys.readouterr().err
    follow_commands(text)
    assert main(["compare", str(trained), str(runs[0])]) == 0


def test_a_trained_network_has_a_report(trained):
    page = Page(write_report(trained).read_text(encoding="utf-8"))
    text = "".join(page.texts)
    metadata = read_description(trained / "origin/bundle")["metadata"]
    found = dict(page.tables[0])
    assert found["mIoU"] == f"{100 * metadata['validation']['miou']:.2f}"
    assert f"best of 6 steps at step {metadata['best_step']}, by dataset mIoU" in text
    assert "Training loss" in text and "Validation mIoU" in text and "bitemporal train --config recipe.yaml" in text
    assert "Gallery" not in text
    follow_commands(text)  # and after it the scores are there
    text = "".join(Page(write_report(trained).read_text(encoding="utf-8")).texts)
    assert "Gallery" in text and "boundary F1" in text and "bitemporal train --config recipe.yaml" in text


def test_the_report_follows_the_options_about_labels(tiny_pairs, tmp_path, capsys):
    data = tmp_path / "pairs"
    shutil.copytree(tiny_pairs, data)
    for path in data.glob("*/label/*.png"):  # 1 and 2, which need a rule
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8) + 1).save(path)
    stages.train(recipe(data, tmp_path / "run", label_values=(1, 2)), QUIET)
    text = "".join(Page(write_report(tmp_path / "run").read_text(encoding="utf-8")).texts)
    assert "--label-values 1,2" in text
    follow_commands(text)


def test_validation_pairs_set_aside_are_no_pairs_to_score_on(tiny_pairs, tmp_path):
    data = tmp_path / "pairs"
    shutil.copytree(tiny_pairs / "train", data / "train")
    stages.train(recipe(data, tmp_path / "run", validation_share=0.3), QUIET)
    text = "".join(Page(write_report(tmp_path / "run").read_text(encoding="utf-8")).texts)
    assert "score it on other pairs" in text


def test_a_validation_without_change_has_its_loss_in_the_report(tiny_pairs, tmp_path):
    data = tmp_path / "pairs"
    shutil.copytree(tiny_pairs, data)
    for path in (data / "val/label").iterdir():
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(path)
    stages.train(recipe(data, tmp_path / "run"), QUIET)
    page = Page(write_report(tmp_path / "run").read_text(encoding="utf-8"))
    loss = read_description(tmp_path / "run/origin/bundle")["metadata"]["validation"]["loss"]
    assert dict(page.tables[0])["loss"] == f"{loss:.4f}"
    assert "Validation loss" in "".join(page.texts) and "by lowest loss on the validation pairs" in "".join(page.texts)


def test_a_validation_without_change_chooses_no_threshold(tiny_pairs, tmp_path):
    data = tmp_path / "pairs"
    shutil.copytree(tiny_pairs, data)
    for path in (data / "val/label").iterdir():
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(path)
    distill(data, tmp_path / "run")()
    page = Page(write_report(tmp_path / "run").read_text(encoding="utf-8"))
    rows = [row for table in page.tables for row in table if "none: the labels of val have no change" in row]
    assert len(rows) == 4 and all(row[-1] == "-" for row in rows)
    assert "chosen on val" not in "".join(text for text in page.texts if text.startswith("student: threshold"))


def test_an_unfinished_training_has_its_curves(trained):
    shutil.rmtree(trained / "origin/bundle")
    text = "".join(Page(write_report(trained).read_text(encoding="utf-8")).texts)
    assert "not been trained to its end" in text and "Training loss" in text
    (trained / "origin/metrics.csv").unlink()
    with pytest.raises(DataError, match="nothing has been trained so far"):
        write_report(trained)
