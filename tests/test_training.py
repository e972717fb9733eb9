"""One stage: schedule, parameter groups, what is written, and exact continuation after a kill."""

import csv
import importlib.machinery
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from bitemporal.errors import BundleError, DataError, DeviceError, RecipeError
from bitemporal.inference import bundle as bundles
from bitemporal.inference.bundle import load_network, read_description
from bitemporal.metrics import MAIN_METRICS
from bitemporal.models import ChangeModel, ModelOutput, create_model, model_card, registry
from bitemporal.models.base import ParameterRule, TrainingDefaults
from bitemporal.outputs import _temporary_name
from bitemporal.pairs.batch import Batch
from bitemporal.run import fit, stages
from bitemporal.run.fit import BEST_WEIGHTS, resume_step
from bitemporal.run.folder import RunFolder, StageFolder
from bitemporal.run.learner import Learner, Optimisation
from bitemporal.run.processes import errors_of_started_processes, make_fabric
from bitemporal.run.progress import MetricsTable
from bitemporal.run.recipe import DistillRecipe, TrainRecipe
from bitemporal.run.same_recipe import check_same_run
from bitemporal.run.stages import DistillationRun
from conftest import write_pair
from stub_networks import NORMALISATION, convolutional, images, register_stubs

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
    return TrainRecipe(data=str(data), out=str(out), **(options | changes))  # type: ignore[arg-type]  # any


def distill_recipe(data: Path, out: Path, **changes: object) -> DistillRecipe:
    return DistillRecipe(**(vars(recipe(data, out)) | changes))  # type: ignore[arg-type]  # any


def weights(run: Path, stage: str = "origin") -> dict[str, torch.Tensor]:
    return load_file(run / stage / "bundle" / "weights.safetensors")


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_schedule_rises_linearly_then_decays_to_zero():
    factor = Optimisation(TrainingDefaults(lr=1.0, weight_decay=0.1), steps=110, warmup_steps=10).factor
    assert factor(0) == pytest.approx(1e-6)
    assert factor(5) == pytest.approx(0.5, abs=1e-5)
    assert factor(10) == 1.0
    assert factor(60) == pytest.approx(0.5)
    assert factor(110) == 0.0


def test_the_cosine_schedule_falls_along_half_a_wave():
    training = TrainingDefaults(lr=1.0, weight_decay=0.1, schedule="cosine")
    factor = Optimisation(training, steps=110, warmup_steps=10).factor
    assert [factor(step) for step in (10, 110)] == [1.0, 0.0]
    for step in (35, 60, 85):
        assert factor(step) == pytest.approx(np.cos(np.pi * (step - 10) / 200) ** 2)


def test_longest_rule_wins_and_every_parameter_is_in_one_group():
    model = create_model("test_tinycd")
    names = [name for name, _ in model.named_parameters()]
    first, inner = names[0].split(".")[0], names[0]
    rules = (ParameterRule(first, lr=10.0), ParameterRule(inner, weight_decay=0.0))
    groups = Optimisation(TrainingDefaults(1e-3, 0.05, rules), 10, 1).parameter_groups(model)
    found = {id(p): group for group in groups for p in group["params"]}
    assert len(found) == len(names) == sum(len(group["params"]) for group in groups)
    parameters = dict(model.named_parameters())
    assert found[id(parameters[inner])]["weight_decay"] == 0.0
    assert found[id(parameters[inner])]["lr"] == 1e-3
    other = next(name for name in names if name.startswith(first + ".") and inner not in name)
    assert found[id(parameters[other])]["lr"] == pytest.approx(1e-2)
    assert found[id(parameters[other])]["weight_decay"] == 0.05


def test_recipe_goes_before_the_networks_own_defaults(tmp_path):
    rules = (ParameterRule("head", lr=10.0),)
    card = replace(model_card("test_fc"), training=TrainingDefaults(lr=3e-4, weight_decay=0.07, rules=rules))
    own = Optimisation.of_recipe(recipe(tmp_path, tmp_path, batch_size=None), card, 30_000)
    assert own == Optimisation(TrainingDefaults(3e-4, 0.07, rules), steps=30_000, warmup_steps=1000)
    assert Optimisation.of_recipe(recipe(tmp_path, tmp_path), card, 50).warmup_steps == 5
    options = {"lr": 0.5, "weight_decay": 0.0, "batch_size": 3, "warmup_steps": 0}
    said = Optimisation.of_recipe(recipe(tmp_path, tmp_path, **options), card, 50)
    assert said == Optimisation(TrainingDefaults(0.5, 0.0, rules, batch_size=3), steps=50, warmup_steps=0)


def test_weight_decay_is_decoupled_from_the_gradient():
    """AdamW: without a gradient a weight shrinks by lr x decay; Adam would move it by about lr."""
    model = create_model("test_fc")
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    Optimisation(TrainingDefaults(0.1, 0.5), 10, 0).optimiser(model).step()
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.allclose(new, old * (1 - 0.1 * 0.5))


def test_moments_decay_as_documented():
    """The second step of AdamW by its formula, with betas 0.9 and 0.999."""
    model = create_model("test_fc")
    optimiser = Optimisation(TrainingDefaults(0.1, 0.0), 10, 0).optimiser(model)
    parameter = next(model.parameters())
    values = []
    for gradient in (1.0, -3.0):
        values.append(parameter.detach().clone())
        parameter.grad = torch.full_like(parameter, gradient)
        optimiser.step()
    mean = (0.9 * 0.1 * 1 + 0.1 * -3) / (1 - 0.9**2)
    square = (0.999 * 0.001 * 1 + 0.001 * 9) / (1 - 0.999**2)
    expected = values[1] - 0.1 * mean / (square**0.5 + 1e-8)
    assert torch.allclose(parameter, expected, rtol=1e-5, atol=1e-6)


def test_gradients_are_clipped_to_the_norm_of_the_card(tiny_pairs, tmp_path, monkeypatch):
    """So short a gradient is far below AdamW's epsilon, and moves no weight; without clipping every step moves one."""
    start = create_model("test_fc").state_dict()
    entry = registry._REGISTRY["test_fc"]
    card, build = entry.card, entry.build
    moved = {}
    for norm in (None, 1e-15):
        training = replace(card.training, clip_norm=norm, weight_decay=0.0)

        def build_equal(**arguments: Any) -> ChangeModel:
            model = build(**arguments)
            model.load_state_dict(start)
            return model

        changed = entry._replace(card=replace(card, training=training), build=build_equal)
        monkeypatch.setitem(registry._REGISTRY, "test_fc", changed)
        run = recipe(tiny_pairs, tmp_path / str(norm), model="test_fc", max_steps=2, lr=0.01, warmup_steps=0)
        stages.train(run, QUIET)
        after = weights(tmp_path / str(norm))
        names = [name for name, _ in create_model("test_fc").named_parameters()]
        moved[norm] = max(float((after[name] - start[name]).abs().max()) for name in names)
    assert moved[None] > 1e-3 and moved[1e-15] < 1e-6


def test_steps_see_the_pairs_as_the_recipe_says(tiny_pairs, tmp_path, monkeypatch):
    given, outputs = [], Learner.outputs

    def noted(learner: Learner, batch: Batch) -> ModelOutput:
        given.append(batch)
        return outputs(learner, batch)

    monkeypatch.setattr(Learner, "outputs", noted)
    raw = {Image.open(path).tobytes() for path in (tiny_pairs / "train/A").iterdir()}
    for augmentation, untouched in (("none", True), ("standard", False)):
        options = {"batch_size": 3, "max_steps": 2, "augmentation": augmentation}
        stages.train(recipe(tiny_pairs, tmp_path / augmentation, **options), QUIET)
        assert [len(batch) for batch in given] == [3, 3]
        found = {image.permute(1, 2, 0).numpy().tobytes() for batch in given for image in batch.before}
        assert (found <= raw) == untouched
        given.clear()


def test_precision_is_that_of_the_recipe(tiny_pairs, tmp_path, monkeypatch):
    outputs, kinds = Learner.outputs, []

    def noted(learner: Learner, batch: Batch) -> ModelOutput:
        kinds.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32)
        return outputs(learner, batch)

    monkeypatch.setattr(Learner, "outputs", noted)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for precision in ("fp32", "bf16"):
        stages.train(recipe(tiny_pairs, tmp_path / precision, max_steps=1, precision=precision), QUIET)
    assert kinds == [torch.float32, torch.bfloat16]


def test_run_leaves_bundle_checkpoint_and_metrics(tiny_pairs, tmp_path):
    bundle = stages.train(recipe(tiny_pairs, tmp_path / "run", max_steps=5, lr=0.01), QUIET)
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
    assert [float(row["lr"]) for row in rows] == pytest.approx([0.008, 0.006, 0.004, 0.002, 0.0])  # by step
    assert (tmp_path / "run/origin/last.ckpt").exists()
    assert not list((tmp_path / "run/origin").glob(".*"))


def test_last_row_of_metrics_can_be_recomputed_from_the_last_checkpoint(tiny_pairs, tmp_path):
    """Whole validation pairs of two sizes, in eval mode, changed above 0.5: by hand from the weights of that step."""
    data, rng = tmp_path / "pairs", np.random.default_rng(1)
    shutil.copytree(tiny_pairs, data)
    for i in range(3):
        write_pair(data, "val", f"wide_{i}", *rng.integers(0, 256, (2, 32, 64, 3), dtype=np.uint8), np.eye(32, 64) > 0)
    stages.train(recipe(data, tmp_path / "run", max_steps=20, validate_every=10, lr=0.02, augmentation="none"), QUIET)
    network = create_model("test_tinycd").eval()
    network.load_state_dict(torch.load(tmp_path / "run/origin/last.ckpt", weights_only=True)["model"])
    matrix = np.zeros((2, 2))
    for path in sorted((data / "val/label").iterdir()):
        images = [np.asarray(Image.open(data / "val" / date / path.name)) for date in "AB"]
        before, after = (network.card.normalisation(torch.tensor(i).permute(2, 0, 1))[None] for i in images)
        with torch.no_grad():
            found = (network(before, after)[0, 0] > 0).numpy()
        label = np.asarray(Image.open(path)) > 0
        matrix += [[np.sum((label == t) & (found == p)) for p in (0, 1)] for t in (0, 1)]
    ious = [matrix[c, c] / (matrix[c].sum() + matrix[:, c].sum() - matrix[c, c]) for c in (0, 1)]
    with (tmp_path / "run/origin/metrics.csv").open() as stream:
        row = list(csv.DictReader(stream))[-1]
    assert float(row["val_iou_changed"]) == pytest.approx(ious[1], abs=1e-6)
    assert float(row["val_miou"]) == pytest.approx(np.mean(ious), abs=1e-6)
    assert 0.0 < ious[1] < 1.0


def test_validation_scores_the_masks_of_whole_pairs_of_any_size(tmp_path, monkeypatch):
    """Images are normalised, then padded right and bottom; changed is the larger logit; ignored pixels do not count."""
    register_stubs(monkeypatch)
    model, counts, batches = convolutional(seed=3), np.zeros((2, 2)), []
    for seed, (height, width) in enumerate([(30, 41), (64, 48), (9, 70)]):
        before, after = images(seed, height, width), images(seed + 9, height, width)
        label = np.random.default_rng(seed).choice([0, 1, 255], (height, width))
        padded = np.zeros((2, 1, 3, -(-max(height, 16) // 4) * 4, -(-max(width, 16) // 4) * 4), np.float32)
        for date, image in zip(padded, (before, after), strict=True):
            date[0, :, :height, :width] = ((image - np.array(NORMALISATION.mean)) / NORMALISATION.std).transpose(
                2, 0, 1
            )
        with torch.no_grad():
            logits = model(*torch.from_numpy(padded))[0, :, :height, :width].numpy()
        np.add.at(counts, (label[label != 255], (logits[1] > logits[0])[label != 255].astype(int)), 1)
        dates = (torch.from_numpy(image.transpose(2, 0, 1)[None].copy()) for image in (before, after))
        batches.append([Batch(*dates, torch.from_numpy(label)[None])])
    ious = [counts[i, i] / (counts[i].sum() + counts[:, i].sum() - counts[i, i]) for i in (0, 1)]
    found = fit.validate(make_fabric(recipe(tmp_path, tmp_path / "run")), model, batches)
    assert found["miou"] == pytest.approx(np.mean(ious), abs=1e-6) and min(ious) > 0.05


def test_training_never_looks_at_the_test_split(tiny_pairs, tmp_path):
    data = tmp_path / "pairs"
    shutil.copytree(tiny_pairs, data)
    shutil.rmtree(data / "test")
    for name, root in (("with", tiny_pairs), ("without", data)):
        stages.train(recipe(root, tmp_path / name), QUIET)
    assert_equal(weights(tmp_path / "with"), weights(tmp_path / "without"))
    tables = [(tmp_path / run / "origin/metrics.csv").read_text() for run in ("with", "without")]
    assert tables[0] == tables[1]


def test_finished_stage_is_not_redone(tiny_pairs, tmp_path):
    bundle = stages.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)
    stamp = (bundle / "weights.safetensors").stat().st_mtime_ns
    stages.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)
    assert (bundle / "weights.safetensors").stat().st_mtime_ns == stamp


def test_another_recipe_in_the_same_folder_is_refused(tiny_pairs, tmp_path):
    stages.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)
    with pytest.raises(RecipeError, match=r"recipe.yaml: .*crop_size \(32 then, 16 now\).*\(--crop-size 32\)"):
        stages.train(recipe(tiny_pairs, tmp_path / "run", crop_size=16), QUIET)
    (tmp_path / "run/recipe.yaml").write_text("- no\n- recipe\n")
    with pytest.raises(RecipeError, match=r"recipe\.yaml: cannot be read"):
        stages.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)


OTHER_VALUES = {
    "model": "test_fc", "model_options": {"reference_losses": True}, "pretrained": True, "validate_every": 3,
    "batch_size": 2, "crop_size": 16, "lr": 0.5, "weight_decay": 0.5, "warmup_steps": 1, "augmentation": "none",
    "precision": "bf16", "seed": 1, "validation_share": 0.2, "validation_seed": 1, "paper": True, "reuse": "other",
    "teacher_model": "test_fc", "teacher_start": "scratch", "parts": 2, "thresholds": (0.1,), "lambda_": 0.5,
    "criterion": "mse", "temperature": 3.0, "teachers": "part", "bands": (3, 2, 1), "image_range": (0.0, 99.0),
}  # fmt: skip


MAY_DIFFER = {"out", "data", "stages", "devices", "workers", "max_steps", "teacher_steps", "student_steps"}


@pytest.mark.parametrize("name", sorted({field.name for field in fields(DistillRecipe)} - MAY_DIFFER))
def test_a_run_resumes_with_the_same_value_of_every_field_alone(name, tmp_path):
    other = {name: OTHER_VALUES.get(name, "other")}
    for then, now in (({}, other), (other, {})):
        folder = begun(distill_recipe(tmp_path, tmp_path / "run", **then))
        check_same_run(distill_recipe(tmp_path, folder.path, **then), folder)
        with pytest.raises(RecipeError, match=rf"a different recipe; (.*, )?{name.rstrip('_')} \("):
            check_same_run(distill_recipe(tmp_path, folder.path, **now), folder)


def test_train_and_distill_do_not_resume_each_other(tmp_path):
    trained = begun(recipe(tmp_path, tmp_path / "trained"))
    with pytest.raises(RecipeError, match=r"a different recipe; .*criterion \(None then, 'kl' now\)"):
        check_same_run(distill_recipe(tmp_path, trained.path), trained)
    distilled = begun(distill_recipe(tmp_path, tmp_path / "distilled"))
    with pytest.raises(RecipeError, match=r"a different recipe; .*criterion \('kl' then, None now\)"):
        check_same_run(recipe(tmp_path, distilled.path), distilled)


def begun(recipe: TrainRecipe) -> RunFolder:
    """The folder of a run that has a checkpoint."""
    folder = RunFolder(recipe.out)
    recipe.to_yaml(folder.recipe)
    folder.stage("origin").path.mkdir(exist_ok=True)
    folder.stage("origin").checkpoint.write_bytes(b"checkpoint")
    return folder


def test_options_may_change_until_there_is_a_checkpoint(tiny_pairs, tmp_path):
    """What stopped before its first validation, for want of memory say, can be started with a smaller batch."""
    recipe(tiny_pairs, tmp_path / "run", batch_size=512, model="test_fc").to_yaml(tmp_path / "run/recipe.yaml")
    folder = tmp_path / "run/origin"
    _temporary_name(folder / "bundle", "tmp").mkdir(parents=True)
    (folder / "metrics.csv").write_text("step,lr,loss,loss_of_another_network\n1,1,1,1\n")
    stages.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)
    stages.train(recipe(tiny_pairs, tmp_path / "anew"), QUIET)
    assert_equal(weights(tmp_path / "run"), weights(tmp_path / "anew"))
    assert (folder / "metrics.csv").read_text() == (tmp_path / "anew/origin/metrics.csv").read_text()
    assert TrainRecipe(**yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())).batch_size == 4


def test_training_learns_a_bright_square(tiny_pairs, tmp_path):
    options = {"max_steps": 60, "validate_every": 30, "batch_size": 8, "augmentation": "none", "lr": 0.02}
    bundle = stages.train(recipe(tiny_pairs, tmp_path / "run", **options), QUIET)
    assert read_description(bundle)["metadata"]["validation"]["iou_changed"] > 0.5


def test_number_of_loading_processes_changes_nothing(tiny_pairs, tmp_path):
    for workers in (0, 2):
        stages.train(recipe(tiny_pairs, tmp_path / str(workers), max_steps=3, workers=workers), QUIET)
    assert_equal(weights(tmp_path / "0"), weights(tmp_path / "2"))


def test_another_seed_gives_other_weights(tiny_pairs, tmp_path):
    for seed in (0, 1):
        stages.train(recipe(tiny_pairs, tmp_path / str(seed), max_steps=3, seed=seed), QUIET)
    first, second = weights(tmp_path / "0"), weights(tmp_path / "1")
    assert any(not torch.equal(first[name], second[name]) for name in first)


class Crash(Exception):
    """The process ends here."""


def scored(
    patch: pytest.MonkeyPatch, scores: dict[int, float], crashes: set[int]
) -> dict[int, dict[str, torch.Tensor]]:
    """Have the validation of each step score as given, or crash once; return the weights at each step."""
    seen: dict[int, dict[str, torch.Tensor]] = {}
    step_taken, steps = fit.training_step, [0]

    def counted(*arguments: Any) -> dict[str, torch.Tensor]:
        steps[0] += 1
        return step_taken(*arguments)

    def started(folder: StageFolder) -> int:
        steps[0] = resume_step(folder)
        return steps[0]

    def validated(fabric: object, model: ChangeModel, loader: object, with_loss: bool) -> dict[str, float]:
        if steps[0] in crashes:
            crashes.remove(steps[0])
            raise Crash
        seen[steps[0]] = {name: value.clone() for name, value in model.state_dict().items()}
        return dict.fromkeys(MAIN_METRICS, scores[steps[0]])

    patch.setattr(fit, "resume_step", started)
    patch.setattr(fit, "training_step", counted)
    patch.setattr(fit, "validate", validated)
    return seen


@pytest.mark.parametrize("crashes", [set(), {4}, {8}, {10}])
def test_best_validation_gives_the_bundle_wherever_the_run_stopped(tiny_pairs, tmp_path, monkeypatch, crashes):
    seen = scored(monkeypatch, {2: 0.3, 4: 0.6, 6: 0.5, 8: 0.6, 10: float("nan")}, set(crashes))
    for crash in crashes:
        with pytest.raises(Crash):
            stages.train(recipe(tiny_pairs, tmp_path / "run", max_steps=10), QUIET)
        assert resume_step(StageFolder(tmp_path / "run/origin")) == crash - 2
    bundle = stages.train(recipe(tiny_pairs, tmp_path / "run", max_steps=10), QUIET)
    assert read_description(bundle)["metadata"]["best_step"] == 8  # of two equal ones the later
    assert_equal(weights(tmp_path / "run"), seen[8])


@pytest.mark.parametrize("file", ["last.ckpt", "best.safetensors"])
def test_crash_in_the_middle_of_writing_leaves_the_file_before(tiny_pairs, tmp_path, monkeypatch, file):
    owner, name = (torch, "save") if file == "last.ckpt" else (bundles, "save_file")
    write, calls = getattr(owner, name), []

    def half(first: Any, second: Any, *others: Any) -> None:  # (content, path)
        calls.append(second)
        if len(calls) == 2:
            Path(second).write_bytes(b"half")
            raise Crash
        write(first, second, *others)

    monkeypatch.setattr(owner, name, half)
    seen = scored(monkeypatch, {2: 0.3, 4: 0.6, 6: 0.5}, set())
    with pytest.raises(Crash):
        stages.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)
    assert resume_step(StageFolder(tmp_path / "run/origin")) == 2
    assert_equal(load_file(tmp_path / "run/origin/best.safetensors"), seen[4 if file == "last.ckpt" else 2])
    stages.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)
    assert_equal(weights(tmp_path / "run"), seen[4])


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


@pytest.mark.parametrize(("model", "precision"), [("test_fc", "fp32"), ("test_tinycd", "bf16")])  # test_fc drops out
def test_killed_run_ends_with_the_same_weights(tiny_pairs, tmp_path, model, precision):
    options = {"model": model, "max_steps": 60, "validate_every": 7, "precision": precision}
    stages.train(recipe(tiny_pairs, tmp_path / "whole", **options), QUIET)
    arguments = ["train", f"--model={model}", f"--data={tiny_pairs}", f"--out={tmp_path / 'killed'}"]
    arguments += ["--max-steps=60", "--validate-every=7", "--batch-size=4", "--crop-size=32", "--workers=0"]
    killed_after("origin/last.ckpt", [*arguments, f"--precision={precision}"], tmp_path / "killed")
    assert not (tmp_path / "killed/origin/bundle").exists()
    _temporary_name(tmp_path / "killed/origin/last.ckpt", "tmp").write_bytes(b"half a checkpoint")
    half = _temporary_name(tmp_path / "killed/origin/bundle", "tmp")
    half.mkdir()
    (half / "weights.safetensors").write_bytes(b"half a bundle")
    stages.train(recipe(tiny_pairs, tmp_path / "killed", **options), QUIET)
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    last = [torch.load(tmp_path / run / "origin/last.ckpt", weights_only=True) for run in ("whole", "killed")]
    assert last[0]["step"] == last[1]["step"] == 60
    assert_equal(last[0]["model"], last[1]["model"])
    for first, second in zip(*(state["optimiser"]["state"].values() for state in last), strict=True):
        assert_equal(first, second)
    assert not list((tmp_path / "killed/origin").glob(".*"))
    for file in ("metrics.csv", "bundle/bundle.json", "bundle/weights.safetensors"):
        assert (tmp_path / "whole/origin" / file).read_bytes() == (tmp_path / "killed/origin" / file).read_bytes(), file


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
        stages.train(recipe(tiny_pairs, tmp_path / "run", crop_size=33), QUIET)


def test_default_batch_must_divide_over_the_devices_too(tiny_pairs, tmp_path):
    with pytest.raises(RecipeError, match=r"batch_size: 8 pairs, the default of test_tinycd, .* over 3 devices"):
        stages.train(recipe(tiny_pairs, tmp_path / "run", batch_size=None, devices=3), QUIET)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 is refused only without CUDA")
def test_fp16_without_cuda_is_refused(tiny_pairs, tmp_path):
    with pytest.raises(DeviceError, match="precision: fp16 needs a CUDA device"):
        stages.train(recipe(tiny_pairs, tmp_path / "run", precision="fp16"), QUIET)


def under_torchrun(arguments: list[str]) -> str:
    """What a command prints in two processes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, *COMMAND[1:], *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=300).stdout


@pytest.mark.full
def test_two_processes_train_as_one(tiny_pairs, tmp_path):
    """Two processes share each batch, whether the run or torchrun has started them."""
    for name in ("run", "again"):
        bundle = stages.train(recipe(tiny_pairs, tmp_path / name, devices=2), QUIET)
        assert read_description(bundle)["metadata"]["steps"] == 6
    assert_equal(weights(tmp_path / "run"), weights(tmp_path / "again"))
    arguments = ["train", "--model=test_tinycd", f"--data={tiny_pairs}", f"--out={tmp_path / 'torchrun'}"]
    arguments += ["--max-steps=6", "--validate-every=2", "--batch-size=4", "--crop-size=32", "--workers=0"]
    assert under_torchrun(arguments).splitlines() == [str(tmp_path / "torchrun/origin/bundle")]
    assert_equal(weights(tmp_path / "run"), weights(tmp_path / "torchrun"))
    tables = [(tmp_path / run / "origin/metrics.csv").read_text() for run in ("run", "torchrun")]
    assert tables[0] == tables[1]


STARTED = "\n\n-- Process 1 terminated with the following error:\nTraceback (most recent call last):\n  File ...\n"


@pytest.mark.parametrize(
    ("raised", "kind", "words"),
    [
        (
            ProcessRaisedException(f"{STARTED}bitemporal.errors.RecipeError: lr: found 0\n", 1, 7),
            RecipeError,
            "lr: found 0",
        ),
        (
            ProcessRaisedException(f"{STARTED}bitemporal.imagery.decoded.FileFault: a.png: broken; copy it\n", 1, 7),
            DataError,
            "a.png: broken; copy it",
        ),
        (
            ProcessRaisedException(f"{STARTED}torch.OutOfMemoryError: CUDA out of memory. Tried to ...\n", 1, 7),
            DeviceError,
            "smaller batch_size",
        ),
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2>"), DeviceError, "--shm-size=1g"),
        (ProcessExitedException("process 1 terminated with signal SIGKILL", 1, 7, -9), DeviceError, "SIGKILL"),
        (ProcessRaisedException(f"{STARTED}KeyError: 'a bug'\n", 1, 7), ProcessRaisedException, "a bug"),
        (RuntimeError("a bug"), RuntimeError, "a bug"),
    ],
)
def test_what_a_started_process_meets_is_an_error_of_this_package(raised, kind, words):
    with pytest.raises(kind, match=re.escape(words)) as caught, errors_of_started_processes():
        raise raised
    assert kind in (ProcessRaisedException, RuntimeError) or "\n" not in str(caught.value)


@pytest.mark.parametrize(("library", "variable"), [("mlflow", "MLFLOW_TRACKING_URI"), ("wandb", "WANDB_PROJECT")])
def test_loggers_of_other_projects_get_the_rows_where_their_variables_ask_for_it(
    tiny_pairs, tmp_path, monkeypatch, library, variable
):
    """With a stand-in for the library that has the few functions which are used."""
    seen: list[Any] = []
    run = types.SimpleNamespace(
        log=lambda metrics, step: seen.append((step, metrics)), finish=lambda: seen.append("end")
    )
    stand_in = types.ModuleType(library)
    stand_in.__spec__ = importlib.machinery.ModuleSpec(library, None)
    stand_in.start_run = lambda run_name, nested: seen.append(run_name) or run
    stand_in.log_metrics = lambda metrics, step: seen.append((step, metrics))
    stand_in.end_run = lambda: seen.append("end")
    stand_in.init = lambda group, name, reinit: seen.append(name) or run
    monkeypatch.setitem(sys.modules, library, stand_in)
    stages.train(recipe(tiny_pairs, tmp_path / "unasked", max_steps=2), QUIET)
    assert not seen
    monkeypatch.setenv(variable, "somewhere")
    stages.train(recipe(tiny_pairs, tmp_path / "run", max_steps=4), QUIET)
    with (tmp_path / "run/origin/metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert seen[0] == "run/origin" and seen[-1] == "end"
    for (step, metrics), row in zip(seen[1:-1], rows, strict=True):
        assert step == metrics["step"] == int(row["step"])
        assert metrics == {name: float(value) for name, value in row.items() if value}


FAKE_MLFLOW = """
def start_run(run_name, nested):
    print("run", run_name, flush=True)
    return run_name

def log_metrics(metrics, step):
    print("metrics at", step, flush=True)

def end_run():
    print("end", flush=True)
"""


@pytest.mark.full
def test_one_of_two_processes_shows_and_reports_what_happens(tiny_pairs, tmp_path, monkeypatch, capfd):
    (tmp_path / "mlflow.py").write_text(FAKE_MLFLOW, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "-")
    stages.train(recipe(tiny_pairs, tmp_path / "run", devices=2, max_steps=2), QUIET)
    said = capfd.readouterr()
    assert said.out.splitlines() == ["run run/origin", "metrics at 1", "metrics at 2", "end"]
    assert re.fullmatch(r"origin +step 2/2  loss .*\n", said.err)


@pytest.mark.full
def test_torchrun_resumes_between_last_step_and_bundle(tiny_pairs, tmp_path):
    """The other process does not look for the bundle before the first one has written it."""
    origin = tmp_path / "run/origin"
    DistillationRun(distill_recipe(tiny_pairs, tmp_path / "run", stages="origin"), QUIET)()
    save_file(load_file(origin / "bundle/weights.safetensors"), origin / "best.safetensors", BEST_WEIGHTS)
    shutil.rmtree(origin / "bundle")
    arguments = ["distill", f"--config={tmp_path / 'run/recipe.yaml'}", "--stages=origin,control"]
    under_torchrun(arguments)
    assert (tmp_path / "run/control/bundle/bundle.json").is_file()


@pytest.mark.full
def test_torchrun_estimates_the_cost_too():
    assert "PU hours" in under_torchrun(["reproduce", "sysu-cd", "--model=tinycd", "--estimate"])


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.full)])
def test_a_loss_that_is_no_number_ends_the_stage(tiny_pairs, tmp_path, devices):
    options = {"lr": 1e6, "warmup_steps": 0, "max_steps": 20, "devices": devices}
    with pytest.raises(RecipeError, match=r"^step \d+: the loss is not a finite number .* checkpoint is kept$"):
        stages.train(recipe(tiny_pairs, tmp_path / "run", **options), QUIET)


def test_a_process_killed_before_it_has_cleared_up_leaves_nothing_for_good(tiny_pairs, tmp_path):
    stages.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)
    best = tmp_path / "run/origin/best.safetensors"
    assert not best.exists()
    best.touch()
    stages.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)
    assert not best.exists()


def test_a_row_that_was_cut_short_is_not_taken_for_an_earlier_one(tmp_path):
    table = MetricsTable(tmp_path / "metrics.csv")
    for step in (1, 2):
        table.write({"step": step, "loss": "0.5"})
    whole = table.path.read_bytes()
    with table.path.open("a", encoding="utf-8") as stream:
        stream.write("1")  # of step 12
    table.forget_after(2)
    assert table.path.read_bytes() == whole


def test_ctrl_c_says_where_the_run_resumes(tiny_pairs, tmp_path, monkeypatch):
    def interrupt(self: object, step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(fit.StageProgress, "advance", interrupt)
    said = Console(record=True, file=io.StringIO())
    with pytest.raises(KeyboardInterrupt):
        stages.train(recipe(tiny_pairs, tmp_path / "run"), said)
    assert "resumes at step 2" in said.export_text()


@pytest.mark.parametrize("file", ["last.ckpt", "best.safetensors"])
def test_one_bit_that_has_changed_is_noticed_when_a_run_goes_on(tiny_pairs, tmp_path, monkeypatch, file):
    scored(monkeypatch, {2: 0.3, 4: 0.6, 6: 0.5}, {6})
    with pytest.raises(Crash):
        stages.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)
    path = tmp_path / "run/origin" / file
    content = bytearray(path.read_bytes())
    place = content.index(max(weights_in(content), key=len)) + 100 if file == "last.ckpt" else len(content) - 7
    content[place] ^= 1
    path.write_bytes(content)
    monkeypatch.undo()
    scored(monkeypatch, {2: 0.3, 4: 0.6, 6: 0.5}, set())
    with pytest.raises(BundleError, match=rf"{file}: .*(checksum of its part|SHA-256)"):
        stages.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)
    assert path.read_bytes() == content


def weights_in(checkpoint: bytes) -> list[bytes]:
    """The bytes of the tensors in a file of torch.save."""
    content = torch.load(io.BytesIO(checkpoint), weights_only=True)["model"]
    return [value.numpy().tobytes() for value in content.values()]


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other"])
def test_a_damaged_checkpoint_is_named_and_kept(tmp_path, damage):
    path = tmp_path / "last.ckpt"
    torch.save({"format": 2, "step": 3, "weights": torch.zeros(1000)} if damage != "other" else [1, 2], path)
    whole = path.read_bytes()
    damaged = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"step 3", "other": whole}[damage]
    path.write_bytes(damaged)
    with pytest.raises(BundleError, match=r"last\.ckpt: cannot be read"):
        resume_step(StageFolder(tmp_path))
    assert path.read_bytes() == damaged


def test_the_checkpoint_of_an_earlier_version_is_refused_and_kept(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"global_step": 3, "pytorch-lightning_version": "2.6.6", "state_dict": {}}, path)
    before = path.read_bytes()
    with pytest.raises(BundleError, match=r"last\.ckpt: found a checkpoint of another version .* remove the file"):
        resume_step(StageFolder(tmp_path))
    assert path.read_bytes() == before
