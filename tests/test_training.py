"""One stage: schedule, parameter groups, what is written, and exact continuation after a kill."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from bitemporal import pipeline
from bitemporal.bundle import load_network, read_description
from bitemporal.errors import RecipeError
from bitemporal.models import create_model
from bitemporal.models.base import ParameterRule
from bitemporal.recipe import TrainRecipe
from bitemporal.training import Optimisation

QUIET = Console(quiet=True)


def recipe(data: Path, out: Path, **changes: object) -> TrainRecipe:
    options = {
        "model": "test_tinycd",
        "max_steps": 6,
        "validate_every": 2,
        "batch_size": 4,
        "crop_size": 32,
        "workers": 0,
    }
    return TrainRecipe(data=str(data), out=str(out), **(options | changes))  # type: ignore[arg-type]


def weights(run: Path, stage: str = "origin") -> dict[str, torch.Tensor]:
    return load_file(run / stage / "bundle" / "weights.safetensors")


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_schedule_rises_linearly_then_decays_to_zero():
    optimisation = Optimisation(lr=1.0, weight_decay=0.1, rules=(), steps=110, warmup_steps=10)
    assert optimisation.factor(0) == pytest.approx(1e-6)
    assert optimisation.factor(5) == pytest.approx(0.5, abs=1e-5)
    assert optimisation.factor(10) == 1.0
    assert optimisation.factor(60) == pytest.approx(0.5)
    assert optimisation.factor(110) == 0.0


def test_longest_rule_wins_and_every_parameter_is_in_one_group():
    model = create_model("test_tinycd")
    names = [name for name, _ in model.named_parameters()]
    first, inner = names[0].split(".")[0], names[0]
    rules = (ParameterRule(first, lr=10.0), ParameterRule(inner, weight_decay=0.0))
    groups = Optimisation(1e-3, 0.05, rules, 10, 1).parameter_groups(model)
    found = {id(p): group for group in groups for p in group["params"]}
    assert len(found) == len(names) == sum(len(group["params"]) for group in groups)
    parameters = dict(model.named_parameters())
    assert found[id(parameters[inner])]["weight_decay"] == 0.0
    assert found[id(parameters[inner])]["lr"] == 1e-3
    other = next(name for name in names if name.startswith(first + ".") and inner not in name)
    assert found[id(parameters[other])]["lr"] == pytest.approx(1e-2)
    assert found[id(parameters[other])]["weight_decay"] == 0.05


def test_run_leaves_bundle_checkpoint_and_metrics(tiny_pairs, tmp_path):
    bundle = pipeline.train(recipe(tiny_pairs, tmp_path / "run", max_steps=5), QUIET)
    assert not load_network(bundle).training
    metadata = read_description(bundle)["metadata"]
    assert metadata["training_pairs"] == 12
    with (tmp_path / "run/origin/metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows if row["val_miou"]] == [2, 4, 5]  # the last step too
    best = max((row for row in rows if row["val_miou"]), key=lambda row: float(row["val_miou"]))
    assert metadata["best_step"] == int(best["step"])
    assert metadata["validation"]["miou"] == pytest.approx(float(best["val_miou"]), abs=1e-6)
    assert float(rows[0]["loss"]) > 0
    assert (tmp_path / "run/origin/last.ckpt").exists()
    assert not list((tmp_path / "run/origin").glob(".*"))


def test_finished_stage_is_not_redone(tiny_pairs, tmp_path):
    bundle = pipeline.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)
    stamp = (bundle / "weights.safetensors").stat().st_mtime_ns
    pipeline.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)
    assert (bundle / "weights.safetensors").stat().st_mtime_ns == stamp


def test_another_recipe_in_the_same_folder_is_refused(tiny_pairs, tmp_path):
    pipeline.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)
    with pytest.raises(RecipeError, match=r"recipe.yaml: .*max_steps \(6 then, 7 now\)"):
        pipeline.train(recipe(tiny_pairs, tmp_path / "run", max_steps=7), QUIET)


def test_training_learns_a_bright_square(tiny_pairs, tmp_path):
    options = {"max_steps": 60, "validate_every": 30, "batch_size": 8, "augmentation": "none", "lr": 0.02}
    bundle = pipeline.train(recipe(tiny_pairs, tmp_path / "run", **options), QUIET)
    assert read_description(bundle)["metadata"]["validation"]["iou_changed"] > 0.5


def test_number_of_loading_processes_changes_nothing(tiny_pairs, tmp_path):
    for workers in (0, 2):
        pipeline.train(recipe(tiny_pairs, tmp_path / str(workers), max_steps=3, workers=workers), QUIET)
    assert_equal(weights(tmp_path / "0"), weights(tmp_path / "2"))


def test_another_seed_gives_other_weights(tiny_pairs, tmp_path):
    for seed in (0, 1):
        pipeline.train(recipe(tiny_pairs, tmp_path / str(seed), max_steps=3, seed=seed), QUIET)
    first, second = weights(tmp_path / "0"), weights(tmp_path / "1")
    assert any(not torch.equal(first[name], second[name]) for name in first)


COMMAND = [sys.executable, "-m", "bitemporal.cli.main"]


def killed_after(pattern: str, arguments: list[str], run: Path) -> None:
    """Start the command, and kill it without warning as soon as a file appears (again) in the run folder."""
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 300
    while process.poll() is None and not list(run.glob(pattern)):
        assert time.monotonic() < deadline, "the run never came so far"
        time.sleep(0.02)
    assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_killed_run_ends_with_the_same_weights(tiny_pairs, tmp_path, precision):
    options = {"max_steps": 60, "validate_every": 7, "precision": precision}
    pipeline.train(recipe(tiny_pairs, tmp_path / "whole", **options), QUIET)
    arguments = ["train", "--model=test_tinycd", f"--data={tiny_pairs}", f"--out={tmp_path / 'killed'}"]
    arguments += ["--max-steps=60", "--validate-every=7", "--batch-size=4", "--crop-size=32", "--workers=0"]
    killed_after("origin/last.ckpt", [*arguments, f"--precision={precision}"], tmp_path / "killed")
    assert not (tmp_path / "killed/origin/bundle").exists()
    (tmp_path / "killed/origin/.last.ckpt.1.tmp").write_bytes(b"half a checkpoint")
    pipeline.train(recipe(tiny_pairs, tmp_path / "killed", **options), QUIET)
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    last = [torch.load(tmp_path / run / "origin/last.ckpt", weights_only=True) for run in ("whole", "killed")]
    assert last[0]["global_step"] == last[1]["global_step"] == 60
    assert_equal(last[0]["state_dict"], last[1]["state_dict"])
    assert not list((tmp_path / "killed/origin").glob(".*"))
    tables = [(tmp_path / run / "origin/metrics.csv").read_text() for run in ("whole", "killed")]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"max_steps": 0}, "max_steps"),
        ({"lr": -1.0}, "lr"),
        ({"batch_size": 3, "devices": 2}, "batch_size"),
        ({"validation_share": 1.0}, "validation_share"),
    ],
)
def test_unusable_recipes_name_the_field(changes, field, tmp_path):
    with pytest.raises(RecipeError, match=f"^{field}: "):
        recipe(tmp_path, tmp_path, **changes)


def test_crop_that_does_not_suit_the_network_is_refused(tiny_pairs, tmp_path):
    with pytest.raises(RecipeError, match="crop_size: 33 pixels do not suit test_tinycd"):
        pipeline.train(recipe(tiny_pairs, tmp_path / "run", crop_size=33), QUIET)


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 is refused only without CUDA")
def test_fp16_without_cuda_is_refused(tiny_pairs, tmp_path):
    with pytest.raises(RecipeError, match="precision: fp16 needs a CUDA device"):
        pipeline.train(recipe(tiny_pairs, tmp_path / "run", precision="fp16"), QUIET)


@pytest.mark.full
def test_two_processes_train_as_one(tiny_pairs, tmp_path):
    """Two processes share each batch; without batch statistics between them the weights differ, the road holds."""
    bundle = pipeline.train(recipe(tiny_pairs, tmp_path / "run", devices=2), QUIET)
    assert read_description(bundle)["metadata"]["steps"] == 6
