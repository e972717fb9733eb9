"""All stages of a run: what they leave, skipping and continuing, and the closing table recomputed."""

import csv
import dataclasses
import hashlib
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from torch.distributions import Bernoulli, kl_divergence

from bitemporal.cli.main import main
from bitemporal.errors import BundleError, DataError, OptionError, OutputError, RecipeError, WeightsError
from bitemporal.evaluation import read_result
from bitemporal.inference import load
from bitemporal.inference.bundle import load_network, read_description
from bitemporal.method.loss import mse
from bitemporal.method.teachers import PartTeachers, raw_outputs
from bitemporal.run import stages
from bitemporal.run.recipe import STAGES, DistillRecipe, TrainRecipe
from bitemporal.run.stages import DistillationRun, train
from remedies import follow_options
from test_training import assert_equal, killed_after

QUIET = Console(quiet=True)
OPTIONS = {
    "model": "test_tinycd",
    "max_steps": 24,
    "teacher_steps": 24,
    "student_steps": 24,
    "validate_every": 3,
    "batch_size": 4,
    "crop_size": 32,
    "workers": 0,
    "lambda": 0.5,
}
SHORT = OPTIONS | {"max_steps": 2, "teacher_steps": 2, "student_steps": 2, "validate_every": 2}
NETWORKS = ("origin", "teacher-small", "teacher-medium", "teacher-large", "control", "student")


def arguments(data: Path, out: Path, options: dict[str, object] = OPTIONS) -> list[str]:
    return ["distill", f"--data={data}", f"--out={out}", *(f"--{k.replace('_', '-')}={v}" for k, v in options.items())]


def distill(data: Path, out: Path, **changes: object) -> DistillationRun:
    options = {("lambda_" if k == "lambda" else k): v for k, v in (SHORT | changes).items()}
    return DistillationRun(DistillRecipe(data=str(data), out=str(out), **options), QUIET)  # type: ignore[arg-type]  # any


def weights(run: Path, stage: str) -> dict[str, torch.Tensor]:
    return load_file(run / stage / "bundle/weights.safetensors")


def fingerprint(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def whole(tiny_pairs, tmp_path_factory) -> Path:
    """An uninterrupted run, by the command line."""
    before = fingerprint(tiny_pairs)
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert main(arguments(tiny_pairs, run)) == 0
    assert fingerprint(tiny_pairs) == before  # nothing of the user's is moved, changed or deleted
    return run


def test_run_folder_holds_every_stage(whole):
    for stage in NETWORKS:
        assert (whole / stage / "bundle/bundle.json").exists()
        assert (whole / stage / "last.ckpt").exists()
        assert (whole / stage / "metrics.csv").exists()
        assert read_description(whole / stage / "bundle")["metadata"]["stage"] == stage
    assert (whole / "recipe.yaml").exists()
    assert sorted(p.name for p in (whole / "o-p/bundle").iterdir()) == [
        "bundle.json",
        "large",
        "medium",
        "origin",
        "small",
    ]
    assert not [p for p in whole.rglob(".*") if p.is_file()]
    assert not [p for p in whole.rglob("*") if p.suffix in {".pth", ".pt", ".bin", ".pkl"}]


def test_partition_says_what_the_labels_hold(whole, tiny_pairs):
    with (whole / "partition.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 24
    for row in rows:
        label = np.asarray(Image.open(tiny_pairs / row["split"] / "label" / f"{row['stem']}.png")) > 0
        assert float(row["car"]) == label.mean()
        assert row["part"] == ("small" if label.mean() <= 0.05 else "medium" if label.mean() <= 0.2 else "large")


def test_teachers_of_another_network_cannot_start_from_the_origin(tiny_pairs, tmp_path):
    with pytest.raises(RecipeError, match=r"teacher_start: found origin, but the teachers are test_fc"):
        distill(tiny_pairs, tmp_path, teacher_model="test_fc", teacher_start="origin")


def test_teachers_that_start_from_the_origin_need_it(tiny_pairs, tmp_path, capsys):
    command = [*arguments(tiny_pairs, tmp_path), "--stages=teachers"]
    assert main(command) == 1
    text = capsys.readouterr().err.splitlines()[-1]
    assert "stage origin has not been trained" in text
    assert follow_options(text, command) == [["--stages", "origin,teachers"]]


def test_teachers_learn_from_their_part_alone(whole):
    metadata = {s: read_description(whole / s / "bundle")["metadata"] for s in NETWORKS}
    assert {s: (m["training_pairs"], m["validation_pairs"]) for s, m in metadata.items()} == {
        "origin": (12, 6),
        "teacher-small": (6, 3),
        "teacher-medium": (4, 2),
        "teacher-large": (2, 1),
        "control": (12, 6),
        "student": (12, 6),
    }


@pytest.mark.parametrize("teacher_start", [None, "origin", "scratch"])
def test_student_starts_from_the_origin_and_teachers_where_the_recipe_says(tiny_pairs, tmp_path, teacher_start):
    """With a learning rate of (nearly) nothing, every stage ends where it started."""
    distill(tiny_pairs, tmp_path, lr=1e-20, weight_decay=0.0, teacher_start=teacher_start)()
    trainable = [name for name, _ in load_network(tmp_path / "origin/bundle").named_parameters()]
    origin, student, control, teacher = (
        weights(tmp_path, s) for s in ("origin", "student", "control", "teacher-large")
    )
    for name in trainable:
        assert torch.allclose(origin[name], student[name], atol=1e-9)
        assert torch.allclose(origin[name], control[name], atol=1e-9)
    from_origin = all(torch.allclose(origin[name], teacher[name], atol=1e-9) for name in trainable)
    assert from_origin == (teacher_start != "scratch")
    counters = [name for name in origin if name.endswith("num_batches_tracked")]
    assert counters
    for name in counters:  # as many steps in train mode again, although bundles are loaded in eval mode
        assert student[name] == control[name] == 2 * origin[name] > 0


def test_distillation_makes_the_difference_to_the_control(whole, tiny_pairs, tmp_path):
    student, control = weights(whole, "student"), weights(whole, "control")
    assert any(not torch.equal(student[name], control[name]) for name in student)
    distill(tiny_pairs, tmp_path, **{"lambda": 0.0})()
    assert_equal(weights(tmp_path, "student"), weights(tmp_path, "control"))


@pytest.mark.parametrize(("teachers", "given", "weight"), [("all", None, 1.0), ("part", 0.25, 0.25)])
def test_student_is_taught_as_the_recipe_says(whole, tiny_pairs, tmp_path, monkeypatch, teachers, given, weight):
    """Temperature, lambda and teachers, against torch's own divergence."""
    monkeypatch.setattr(stages, "calibrate", lambda networks, batches: dict.fromkeys(networks, 0.0))
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run/recipe.yaml").unlink()
    run = distill(tiny_pairs, tmp_path / "run", teachers=teachers, temperature=3.0, **{"lambda": given})
    learner = run.student_learner()
    dates = torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    target = torch.zeros(3, 32, 32, dtype=torch.int64)
    target[:, :16] = 1
    found = learner.eval()(dates[0], dates[1], target)["loss_distillation"].detach()
    outputs = {}
    shares = {"teacher-large": 1.0}
    if teachers == "all":
        shares = {f"teacher-{part}": len(run.data.of_part("train", part)) for part in run.data.partition.names}
        assert len(set(shares.values())) > 1
    for stage in ("origin", *shares):
        network = load_network(whole / stage / "bundle")
        with torch.no_grad():
            logits = network.outputs(*map(network.card.normalisation, dates)).logits
        outputs[stage] = Bernoulli(logits=logits / 3)
    each = [float(kl_divergence(outputs[teacher], outputs["origin"]).mean()) for teacher in shares]
    assert float(found) == pytest.approx(weight * 9 * np.average(each, weights=list(shares.values())), rel=1e-3)


@pytest.mark.parametrize(("teachers", "samples"), [("all", [8]), ("part", [])])
def test_teachers_are_calibrated_by_the_students_samples_if_they_teach_other_parts(
    tiny_pairs, tmp_path, monkeypatch, teachers, samples
):
    seen, shifts = [], {}
    calibrate = stages.calibrate

    def spied(networks, batches):
        batches = list(batches)
        seen.append(sum(len(batch) for batch in batches))
        shifts.update(calibrate(networks, batches))
        return shifts

    monkeypatch.setattr(stages, "calibrate", spied)
    distill(tiny_pairs, tmp_path, teachers=teachers, stages="origin,teachers,student")()
    assert seen == samples  # two steps of four
    assert all(shift != 0 for shift in shifts.values()) and len(shifts) == 3 * len(samples)


def test_the_papers_criterion_has_the_papers_lambda(whole, tiny_pairs, tmp_path):
    """TinyCD's of its Table II."""
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run/recipe.yaml").unlink()
    run = distill(tiny_pairs, tmp_path / "run", criterion="mse", teachers="part", **{"lambda": None})
    term = run.student_learner().distillation
    assert term.lambda_ == 1e-5 and term.distance is mse
    assert isinstance(term.teachers, PartTeachers) and term.teachers.view is raw_outputs


def test_table_can_be_recomputed_from_masks(whole, tiny_pairs):
    """Every number from PNG labels and one network at a time, in plain numpy."""
    reported = json.loads((whole / "metrics.json").read_text())
    assert reported["protocol"]["split"] == "test"
    assert list(reported["results"]) == ["origin", "o-p", "control", "student"]
    labels = {p.stem: np.asarray(Image.open(p)) > 0 for p in sorted((tiny_pairs / "test/label").iterdir())}

    def mask(bundle: Path, stem: str) -> np.ndarray:
        images = [tiny_pairs / "test" / date / f"{stem}.png" for date in "AB"]
        return load(bundle, device="cpu").predict(*images).mask.astype(bool)

    for name in ("origin", "o-p", "control", "student"):
        matrix, per_image = np.zeros((2, 2)), []
        for stem, label in labels.items():
            if name == "o-p":  # by hand: the origin's CAR chooses the teacher
                car = mask(whole / "origin/bundle", stem).mean()
                part = "small" if car <= 0.05 else "medium" if car <= 0.2 else "large"
                predicted = mask(whole / f"teacher-{part}/bundle", stem)
            else:
                predicted = mask(whole / name / "bundle", stem)
            own = np.array([[np.sum((label == t) & (predicted == p)) for p in (0, 1)] for t in (0, 1)])
            ious = [own[c, c] / d if (d := own[c].sum() + own[:, c].sum() - own[c, c]) else 1.0 for c in (0, 1)]
            per_image.append(np.mean(ious))
            matrix += own
        iou = matrix[1, 1] / (matrix[1].sum() + matrix[0, 1])
        assert reported["results"][name]["dataset"]["iou_changed"] == pytest.approx(iou)
        assert reported["results"][name]["image_mean"]["miou"] == pytest.approx(np.mean(per_image))


def test_finished_run_is_not_redone(whole, tiny_pairs, capsys):
    stamps = {stage: (whole / stage / "bundle/weights.safetensors").stat().st_mtime_ns for stage in NETWORKS}
    assert main(arguments(tiny_pairs, whole)) == 0
    assert stamps == {stage: (whole / stage / "bundle/weights.safetensors").stat().st_mtime_ns for stage in NETWORKS}
    assert "student" in capsys.readouterr().out


@pytest.mark.parametrize("stage", [pytest.param(s, marks=() if s == "student" else pytest.mark.full) for s in NETWORKS])
def test_killed_in_any_stage_the_run_ends_the_same(whole, tiny_pairs, tmp_path, stage):
    run = tmp_path / "run"
    killed_after(f"{stage}/last.ckpt", arguments(tiny_pairs, run), run)
    assert not (run / stage / "bundle").exists()
    assert main(arguments(tiny_pairs, run)) == 0
    for name in NETWORKS:
        assert_equal(weights(whole, name), weights(run, name))
        assert (whole / name / "metrics.csv").read_text() == (run / name / "metrics.csv").read_text()
    assert json.loads((whole / "metrics.json").read_text()) == json.loads((run / "metrics.json").read_text())


def test_stages_can_be_run_one_by_one(whole, tiny_pairs, tmp_path):
    for stage in STAGES:
        assert main([*arguments(tiny_pairs, tmp_path / "run"), f"--stages={stage}"]) == 0
    assert_equal(weights(whole, "student"), weights(tmp_path / "run", "student"))


def test_student_without_teachers_names_what_is_missing(tiny_pairs, tmp_path):
    with pytest.raises(BundleError, match="stage teacher-small has not been trained"):
        distill(tiny_pairs, tmp_path, stages="origin,student")()
    assert (tmp_path / "origin/bundle").exists()


def test_two_parts_and_another_teacher(tiny_pairs, tmp_path):
    run = distill(tiny_pairs, tmp_path, parts=2, teacher_model="test_fc", criterion="kl")
    assert list(run()) == ["origin", "o-p", "control", "student"]
    assert {p.name for p in tmp_path.iterdir() if p.name.startswith("teacher-")} == {"teacher-small", "teacher-large"}
    assert read_description(tmp_path / "teacher-large/bundle")["model"] == "test_fc"
    assert read_description(tmp_path / "student/bundle")["model"] == "test_tinycd"


def test_part_without_pairs_gets_the_origins_answer(tiny_pairs, tmp_path):
    results = distill(tiny_pairs, tmp_path, thresholds=(0.05, 0.2, 0.9))()
    assert not (tmp_path / "teacher-part4").exists()
    assert set(results["o-p"].sent_to) <= {"part1", "part2", "part3", "part4"}


def test_missing_val_is_made_from_train_and_test_is_left_alone(tiny_pairs, tmp_path):
    data = tmp_path / "pairs"
    shutil.copytree(tiny_pairs, data)
    shutil.rmtree(data / "val")
    distill(data, tmp_path / "run", stages="origin", validation_share=0.25)()
    with (tmp_path / "run/splits.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    chosen = [row["stem"] for row in rows if row["split"] == "val"]
    assert len(chosen) == 3
    assert len([row for row in rows if row["split"] == "test"]) == 6
    metadata = read_description(tmp_path / "run/origin/bundle")["metadata"]
    assert (metadata["training_pairs"], metadata["validation_pairs"]) == (9, 3)


def test_recipe_of_a_run_repeats_it(whole, tiny_pairs, tmp_path):
    recipe = yaml.safe_load((whole / "recipe.yaml").read_text())
    assert recipe["lambda"] == 0.5
    assert main(["distill", f"--config={whole / 'recipe.yaml'}", f"--out={tmp_path / 'again'}", "--stages=origin"]) == 0
    assert_equal(weights(whole, "origin"), weights(tmp_path / "again", "origin"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": "origin,pupil"}, "stages: found 'origin,pupil'"),
        ({"lambda": -1.0}, "lambda: found -1.0"),
        ({"parts": 7}, "parts: found 7"),
        ({"crop_size": 33}, "crop_size: 33 pixels"),
    ],
)
def test_unusable_options_name_the_field(tiny_pairs, tmp_path, changes, message, capsys):
    assert main([*arguments(tiny_pairs, tmp_path / "run", SHORT | changes)]) == 1
    assert message in capsys.readouterr().err


def test_nothing_to_evaluate_is_said(tiny_pairs, tmp_path):
    with pytest.raises(RecipeError, match="nothing has been trained"):
        distill(tiny_pairs, tmp_path, stages="verdict")()


@pytest.mark.parametrize("val", [True, False])
def test_going_on_with_other_pairs_is_refused(tiny_pairs, tmp_path, val):
    data = tmp_path / "pairs"
    shutil.copytree(tiny_pairs, data)
    if not val:
        shutil.rmtree(data / "val")
    distill(data, tmp_path / "run", stages="origin")()
    (data / "test").rename(tmp_path / "later")
    distill(data, tmp_path / "run")  # test pairs choose nothing
    for folder in ("A", "B", "label"):
        shutil.copy(data / f"train/{folder}/pair_00.png", data / f"train/{folder}/more.png")
    before = fingerprint(tmp_path / "run")
    with pytest.raises(DataError, match=r"partition\.csv: .* first train/"):
        distill(data, tmp_path / "run")
    assert fingerprint(tmp_path / "run") == before


def test_a_label_without_a_valid_pixel_is_scored_as_evaluate_does_it(tiny_pairs, tmp_path):
    data = tmp_path / "pairs"
    shutil.copytree(tiny_pairs, data)
    for split in ("train", "test"):
        Image.fromarray(np.full((32, 32), 255, dtype=np.uint8)).save(data / split / "label" / "pair_01.png")
    distill(data, tmp_path / "run", stages="origin,verdict", label_values=(0, 1, 255))()
    origin = tmp_path / "run/origin/bundle"
    assert read_description(origin)["metadata"]["training_pairs"] == 11
    words = [str(origin), str(data), "--label-values=0,1,255", "--name=again", f"-o={tmp_path / 'again.json'}"]
    assert main(["evaluate", *words]) == 0
    files = [tmp_path / "run/scores/test/origin.json", tmp_path / "again.json"]
    ours, theirs = (read_result(file) for file in files)
    assert ours.protocol == theirs.protocol and len(ours.evaluation.stems) == 6
    assert np.array_equal(ours.evaluation.counts, theirs.evaluation.counts)
    assert main(["compare", *map(str, files)]) == 0


def test_the_table_counts_the_passes_of_a_partition_with_and_without_a_teacher(tiny_pairs, tmp_path, capsys):
    results = distill(tiny_pairs, tmp_path, thresholds=(0.05, 0.2, 0.9))()
    sent = [part in ("part1", "part2", "part3") for part in results["o-p"].sent_to]
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "forward passes" in line)
    assert line.split()[-7:] == ["1", f"{1 + np.mean(sent):.2f}", "(at", "most", "2)", "1", "1"]


def test_train_leaves_the_recipe_of_a_distillation_alone(tiny_pairs, tmp_path):
    run = distill(tiny_pairs, tmp_path, stages="origin", **{"lambda": 0.5})
    run()
    fields = {field.name: getattr(run.recipe, field.name) for field in dataclasses.fields(TrainRecipe)}
    with pytest.raises(RecipeError, match=r"lambda \(0\.5 then, None now\)"):
        train(TrainRecipe(**fields), QUIET)
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text())["lambda"] == 0.5


def test_test_split_alone_is_not_trained_on(tiny_pairs, tmp_path):
    data = tmp_path / "pairs"
    shutil.copytree(tiny_pairs / "test", data / "test")
    with pytest.raises(DataError, match="expected a split train"):
        distill(data, tmp_path / "run")


def test_unlabelled_test_split_gives_no_scores_but_stops_nothing(tiny_pairs, tmp_path):
    data = tmp_path / "pairs"
    shutil.copytree(tiny_pairs, data)
    shutil.rmtree(data / "test/label")
    results = distill(data, tmp_path / "run", stages="origin,verdict")()
    protocol = json.loads((tmp_path / "run/metrics.json").read_text())["protocol"]
    assert protocol["split"] == "val"
    assert protocol["selection_pairs_are_test_pairs"] is True
    assert len(results["origin"].stems) == 6


def test_faulty_pairs_stop_the_run_before_it_starts(tiny_pairs, tmp_path):
    data = tmp_path / "pairs"
    shutil.copytree(tiny_pairs, data)
    (data / "train/A/pair_00.png").write_bytes(b"no picture")
    (data / "val/B/pair_01.png").unlink()
    with pytest.raises(DataError) as error:
        distill(data, tmp_path / "run")
    assert "pair_00.png" in str(error.value)
    assert "pair_01" in str(error.value)
    assert not (tmp_path / "run/origin").exists()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"lambda": math.inf}, "lambda"),
        ({"temperature": math.inf}, "temperature"),
        ({"parts": 2, "thresholds": (0.1,)}, "parts and thresholds"),
        ({"model_options": {"in_channels": 4}}, "in_channels"),
        ({"model_options": {"wings": 4}}, "wings"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_is_read(tmp_path, changes, word):
    with pytest.raises(OptionError, match=word):
        distill(tmp_path / "no data", tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_weights_that_do_not_exist_are_refused_before_anything_is_read(tmp_path):
    with pytest.raises(WeightsError, match="pretrained"):
        distill(tmp_path / "no data", tmp_path / "run", model="test_fc", pretrained=True)


def test_nothing_is_written_into_the_data(tiny_pairs, tmp_path):
    before = fingerprint(tiny_pairs)
    (tmp_path / "file").write_text("mine")
    for out in (tiny_pairs, tiny_pairs / "train/run"):
        with pytest.raises(OutputError, match=r"is inside .*never written to"):
            distill(tiny_pairs, out)
    with pytest.raises(OutputError, match="is a file"):
        distill(tiny_pairs, tmp_path / "file")
    assert fingerprint(tiny_pairs) == before
    assert (tmp_path / "file").read_text() == "mine"
