"""Which pairs choose the checkpoint, and how they do where their labels have one class only."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console

from bitemporal.cli.main import main
from bitemporal.errors import DataError, RecipeError
from bitemporal.inference.bundle import read_description
from bitemporal.metrics import MAIN_METRICS
from bitemporal.models import create_model, list_models
from bitemporal.pairs.batch import Batch
from bitemporal.pairs.partition import read_partition
from bitemporal.run import fit, stages
from bitemporal.run.fit import _pair_losses
from bitemporal.run.processes import make_fabric
from bitemporal.run.stages import DistillationRun
from conftest import write_pair
from remedies import follow_options
from test_training import distill_recipe, recipe

QUIET = Console(quiet=True)


def table(stage: Path) -> list[dict[str, str]]:
    with (stage / "metrics.csv").open() as stream:
        return [row for row in csv.DictReader(stream) if row["val_miou"]]


@pytest.fixture
def one_class(tiny_pairs, tmp_path):
    """The pairs with every validation label of one value."""

    def make(value: int) -> Path:
        data = tmp_path / f"pairs-{value}"
        shutil.copytree(tiny_pairs, data)
        for path in (data / "val/label").iterdir():
            Image.fromarray(np.full((32, 32), value, np.uint8)).save(path)
        return data

    return make


@pytest.mark.parametrize(("value", "absent"), [(0, "changed"), (255, "unchanged")])
def test_a_validation_split_of_one_class_chooses_by_its_loss(one_class, tmp_path, value, absent):
    said = Console(record=True, width=300)
    stages.train(recipe(one_class(value), tmp_path / "run", max_steps=20, validate_every=4, lr=0.02), said)
    rows = table(tmp_path / "run/origin")
    losses = {int(row["step"]): float(row["val_loss"]) for row in rows}
    assert len(set(losses.values())) > 1
    metadata = read_description(tmp_path / "run/origin/bundle")["metadata"]
    assert metadata["best_step"] == min(losses, key=losses.__getitem__)
    assert metadata["selected_by"] == f"lowest loss on the validation pairs, whose labels have no {absent} pixel"
    best = next(row for row in rows if int(row["step"]) == metadata["best_step"])
    for name, value in metadata["validation"].items():
        assert best[f"val_{name}"] == ("nan" if value is None else f"{value:.6f}"), name
    text = said.export_text()
    assert f"the validation labels have no {absent} pixel" in text
    shown = [float(loss) for loss in re.findall(r"val loss ([\d.]+)", text)]
    assert shown == pytest.approx(list(losses.values()), abs=5e-5)  # one value in the log and in the table


def test_the_validation_loss_is_the_mean_over_whole_pairs(one_class, tmp_path):
    """By hand, with torch's own cross-entropy, from the last checkpoint."""
    data = one_class(0)
    options = {"model": "test_fc", "max_steps": 4, "validate_every": 4}
    stages.train(recipe(data, tmp_path / "run", **options), QUIET)
    network = create_model("test_fc").eval()
    network.load_state_dict(torch.load(tmp_path / "run/origin/last.ckpt", weights_only=True)["model"])
    losses = []
    for path in sorted((data / "val/label").iterdir()):
        images = [np.asarray(Image.open(data / "val" / date / path.name)) for date in "AB"]
        before, after = (network.card.normalisation(torch.tensor(i).permute(2, 0, 1))[None] for i in images)
        with torch.no_grad():
            losses.append(float(F.cross_entropy(network(before, after), torch.zeros(1, 32, 32, dtype=torch.long))))
    assert float(table(tmp_path / "run/origin")[-1]["val_loss"]) == pytest.approx(np.mean(losses), abs=1e-5)


@pytest.mark.parametrize("name", list_models("test_*"))
def test_every_network_has_a_loss_in_evaluation_mode_for_any_size(name, tiny_pairs, tmp_path):
    network = create_model(name).eval()
    rng = torch.Generator().manual_seed(0)
    dates = torch.randint(0, 256, (2, 2, 3, 45, 70), dtype=torch.uint8, generator=rng)
    target = torch.zeros(2, 45, 70, dtype=torch.long)
    target[1] = 255
    with torch.no_grad():
        found = list(_pair_losses(make_fabric(recipe(tiny_pairs, tmp_path)), network, Batch(*dates, target)))
    assert len(found) == 1 and np.isfinite(found[0])


def test_a_teacher_whose_part_has_no_change_in_val_is_chosen_by_loss_and_the_others_are_not(tiny_pairs, tmp_path):
    data = tmp_path / "pairs"
    shutil.copytree(tiny_pairs, data)
    for stem in ("pair_01", "pair_02"):  # the pairs of the small part that have some
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(data / f"val/label/{stem}.png")
    DistillationRun(distill_recipe(data, tmp_path / "run"), QUIET)()
    chosen = {
        name: read_description(tmp_path / "run" / name / "bundle")["metadata"]["selected_by"]
        for name in ("origin", "teacher-small", "teacher-medium", "student")
    }
    assert {name for name, rule in chosen.items() if rule.startswith("lowest loss")} == {"teacher-small"}
    said = json.loads((tmp_path / "run/metrics.json").read_text())["protocol"]["checkpoint_selection"]
    assert "teacher-small: lowest loss" in said and "origin, teacher-medium, teacher-large, control, student: d" in said


STAGES = ("origin", "teacher-small", "teacher-medium", "teacher-large", "control", "student")


@pytest.mark.parametrize("changed", [False, True])
def test_every_stage_of_a_distillation_is_chosen_in_the_same_way_and_a_tie_goes_to_the_later_step(
    one_class, tiny_pairs, tmp_path, monkeypatch, changed
):
    monkeypatch.setattr(fit, "validate", lambda *arguments: dict.fromkeys((*MAIN_METRICS, "loss"), 0.5))
    steps = {"max_steps": 3, "teacher_steps": 3, "student_steps": 3, "validate_every": 1}
    data = tiny_pairs if changed else one_class(0)
    said = Console(record=True, width=300)
    DistillationRun(distill_recipe(data, tmp_path / "run", **steps), said)()
    for name in STAGES:
        metadata = read_description(tmp_path / "run" / name / "bundle")["metadata"]
        assert metadata["best_step"] == 3, name
        assert metadata["selected_by"].startswith("dataset mIoU" if changed else "lowest loss"), name
        told = f"{name}: the validation labels have no changed pixel, so the checkpoint with the lowest validation loss"
        assert (told in said.export_text(clear=False)) == (not changed), name


def splits(run: Path) -> str:
    return (run / "splits.csv").read_text()


@pytest.fixture
def without_val(tiny_pairs, tmp_path) -> Path:
    shutil.copytree(tiny_pairs, tmp_path / "pairs")
    shutil.rmtree(tmp_path / "pairs/val")
    return tmp_path / "pairs"


def test_runs_of_several_seeds_have_the_same_validation_pairs(without_val, tmp_path):
    short = {"max_steps": 1, "validation_share": 0.4}
    said = Console(record=True, width=300)
    for seed in (0, 1):
        stages.train(recipe(without_val, tmp_path / f"run{seed}", seed=seed, **short), said)
    stages.train(recipe(without_val, tmp_path / "other", validation_seed=1, **short), QUIET)
    assert splits(tmp_path / "run0") == splits(tmp_path / "run1") != splits(tmp_path / "other")
    assert "(validation_seed 0)" in said.export_text()


@pytest.mark.parametrize("seed", [0, 3])
def test_a_run_of_an_earlier_version_keeps_its_validation_pairs(without_val, tmp_path, seed, capsys):
    """Its recipe had no validation_seed: the seed chose the pairs."""
    run = tmp_path / "run"
    stages.train(recipe(without_val, run, seed=seed, validation_seed=seed, max_steps=1), QUIET)
    before = splits(run)
    lines = (run / "recipe.yaml").read_text().splitlines(keepends=True)
    (run / "recipe.yaml").write_text("".join(line for line in lines if not line.startswith("validation_seed")))
    words = [f"--data={without_val}", f"--out={run}", "--max-steps=1", "--validate-every=2", "--batch-size=4"]
    command = ["train", "--model=test_tinycd", *words, "--crop-size=32", "--workers=0", f"--seed={seed}"]
    assert main(command) == (0 if seed == 0 else 1)
    if seed:
        text = capsys.readouterr().err
        assert "validation_seed (3 then, 0 now)" in text
        assert follow_options(text, command) == [["--validation-seed", "3"], ["--out", f"{run}-2"]]
    assert splits(run) == before


def test_with_a_val_split_an_earlier_recipe_resumes_whatever_its_seed(tiny_pairs, tmp_path):
    run = tmp_path / "run"
    stages.train(recipe(tiny_pairs, run, seed=3, max_steps=1), QUIET)
    lines = (run / "recipe.yaml").read_text().splitlines(keepends=True)
    (run / "recipe.yaml").write_text("".join(line for line in lines if not line.startswith("validation_seed")))
    stages.train(recipe(tiny_pairs, run, seed=3, max_steps=1), QUIET)
    with pytest.raises(RecipeError, match=r"seed \(3 then, 0 now\)"):
        stages.train(recipe(tiny_pairs, run, max_steps=1), QUIET)


@pytest.fixture
def scenes(tmp_path) -> Path:
    """Four tiles of each of five scenes in one split, the first tile of each with change."""
    root, rng = tmp_path / "scenes", np.random.default_rng(0)
    for scene in range(5):
        for tile in range(4):
            label = np.zeros((32, 32), np.uint8)
            label[:8] = tile == 0
            images = rng.integers(60, 120, (2, 32, 32, 3), dtype=np.uint8)
            write_pair(root, "train", f"s{scene}_{tile // 2}_{tile % 2}", *images, label)
    return root


def validation_stems(run: Path) -> set[str]:
    return {line.partition(",")[2] for line in splits(run).splitlines() if line.startswith("val,")}


def test_validation_pairs_set_aside_are_whole_scenes(scenes, tmp_path):
    said = Console(record=True, width=300)
    run = tmp_path / "run"
    stages.train(recipe(scenes, run, max_steps=1, validation_share=0.2), said)
    stems = validation_stems(run)
    assert len(stems) == 4 and len({stem.partition("_")[0] for stem in stems}) == 1
    assert "names look like tiles of 5 scenes, such as s0_0_0 of s0: tiles of a scene stay in the same split" in (
        said.export_text()
    )
    rows = read_partition(run / "partition.csv")
    assert {row.stem for row in rows if row.split == "val"} == stems and len(rows) == 20
    # the same scenes as `bitemporal data split`, which has the same seed
    assert main(["data", "split", str(scenes), "-o", str(tmp_path / "s.csv"), "--shares", "0.8,0.2,0"]) == 0
    assert (tmp_path / "s.csv").read_text() == splits(run)
    # and another division is stated by --splits, as the line says
    words = ["data", "split", str(scenes), "-o", str(tmp_path / "s.csv"), "--shares", "0.8,0.2,0", "--group", ".*"]
    assert main(words) == 0
    stages.train(recipe(scenes, tmp_path / "pairs", max_steps=1, splits=str(tmp_path / "s.csv")), QUIET)
    assert not (tmp_path / "pairs/splits.csv").exists()


def test_a_run_that_resumes_keeps_the_split_it_has_recorded(scenes, tmp_path):
    """As an earlier version chose it, pair by pair and under the name of the split on disk."""
    scenes.joinpath("train").rename(tmp_path / "tiles")
    data, run = tmp_path / "tiles", tmp_path / "run"
    stages.train(recipe(data, run, max_steps=1), QUIET)
    chosen = {"s0_0_0", "s3_1_1"}
    for name in ("splits.csv", "partition.csv"):
        header, *lines = (run / name).read_text().splitlines()
        cells = [line.split(",", 2) for line in lines]
        lines = [",".join(["val" if stem in chosen else "all", stem, *more]) for _, stem, *more in cells]
        (run / name).write_text("\n".join([header, *sorted(lines)]) + "\n")
    before = splits(run)
    said = Console(record=True, width=300)
    stages.train(recipe(data, run, max_steps=2), said)
    assert splits(run) == before and validation_stems(run) == chosen
    assert "2 of the training pairs set aside, listed in" in said.export_text()
    assert read_description(run / "origin/bundle")["metadata"]["validation_pairs"] == 2
    for folder in ("A", "B", "label"):
        (data / folder / "s1_0_0.png").unlink()
    with pytest.raises(DataError, match="not those that the run was started with, first all/s1_0_0"):
        stages.train(recipe(data, run, max_steps=2), QUIET)


def test_too_few_pairs_to_set_one_aside_are_an_error(scenes, tmp_path):
    for folder in ("A", "B", "label"):
        for path in sorted((scenes / "train" / folder).iterdir())[1:]:
            path.unlink()
    with pytest.raises(DataError, match=r"found 1 pair\(s\) of split train .* add labelled pairs, or a split val"):
        stages.train(recipe(scenes, tmp_path / "run"), QUIET)
