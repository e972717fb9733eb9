"""Sweeps: a run that takes origin, teachers and partition from another one."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from safetensors.torch import load_file

from bitemporal.cli.main import main
from bitemporal.errors import BundleError, DataError, OutputError, RecipeError
from bitemporal.evaluation import read_result
from bitemporal.inference.bundle import read_description
from bitemporal.report import write_report
from bitemporal.run import reuse, stages
from bitemporal.run.recipe import DistillRecipe
from remedies import follow_commands, follow_options
from test_pipeline import SHORT, arguments, distill, fingerprint
from test_training import assert_equal, under_torchrun

TEACHERS = ("teacher-small", "teacher-medium", "teacher-large")
QUIET = Console(quiet=True)


def weights(run: Path, stage: str) -> dict:
    return load_file(run / stage / "bundle/weights.safetensors")


@pytest.fixture(scope="module")
def first(tiny_pairs, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("sweep") / "first"
    distill(tiny_pairs, run)()
    return run


@pytest.mark.parametrize(
    ("changes", "control"),
    [
        ({"lambda": 2.0}, True),
        ({"criterion": "mse", "temperature": 1.0, "teachers": "part"}, True),
        ({"seed": 5}, False),
    ],
)
def test_a_reused_run_is_the_run_that_trains_everything(first, tiny_pairs, tmp_path, changes, control):
    """With the same seed, origin and teachers would come out the same; only they are not trained again."""
    before = fingerprint(first)
    trained, train_stage = [], stages.train_stage

    def noted(stage, build, console):
        trained.extend([] if stage.finished else [stage.name])
        return train_stage(stage, build, console)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "train_stage", noted)
        results = distill(tiny_pairs, tmp_path / "reused", reuse=str(first), **changes)()
    assert trained == (["student"] if control else ["control", "student"])
    assert list(results) == ["origin", "o-p", "control", "student"]
    assert fingerprint(first) == before
    copied = json.loads((tmp_path / "reused/reused.json").read_text())
    assert copied["run"] == str(first) and list(copied["sha256"]) == ["origin", *TEACHERS, *["control"] * control]
    for stage, digests in copied["sha256"].items():
        bundle = tmp_path / "reused" / stage / "bundle"
        assert fingerprint(bundle) == {str(bundle / file): digest for file, digest in digests.items()}
    if "seed" not in changes:
        distill(tiny_pairs, tmp_path / "whole", **changes)()
        for stage in ("origin", *TEACHERS, "control", "student"):
            assert_equal(weights(tmp_path / "whole", stage), weights(tmp_path / "reused", stage))
    recipe = yaml.safe_load((tmp_path / "reused/recipe.yaml").read_text())
    assert recipe["reuse"] == str(first)


def test_results_carry_the_seed_that_their_weights_were_trained_with(first, tiny_pairs, tmp_path):
    distill(tiny_pairs, tmp_path / "run", reuse=str(first), seed=5)()
    seeds = {
        name: read_result(tmp_path / f"run/scores/test/{name}.json").seed
        for name in ("origin", "o-p", "control", "student")
    }
    assert seeds == {"origin": 0, "o-p": 0, "control": 5, "student": 5}


def test_the_new_run_stands_alone(first, tiny_pairs, tmp_path):
    shutil.copytree(first, tmp_path / "first")
    words = [*arguments(tiny_pairs, tmp_path / "run", SHORT | {"lambda": 3.0}), f"--reuse={tmp_path / 'first'}"]
    assert main(words) == 0
    shutil.rmtree(tmp_path / "first")
    assert main(words) == 0  # resumes
    text = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert f"reuse: {tmp_path / 'first'}" in text
    assert main(["compare", *(str(tmp_path / f"run/scores/test/{name}.json") for name in ("control", "student"))]) == 0


def test_a_run_killed_while_it_copied_copies_again(first, tiny_pairs, tmp_path, monkeypatch):
    copy, calls = reuse._copy_stage, []

    def crashing(*folders):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return copy(*folders)

    monkeypatch.setattr(reuse, "_copy_stage", crashing)
    with pytest.raises(KeyboardInterrupt):
        distill(tiny_pairs, tmp_path / "run", reuse=str(first))
    assert not (tmp_path / "run/reused.json").exists()
    distill(tiny_pairs, tmp_path / "run", reuse=str(first), stages="student")()
    assert (tmp_path / "run/student/bundle").is_dir()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 0.5}, "lr (None there, 0.5 here)"),
        ({"max_steps": 4}, "max_steps (2 there, 4 here)"),
        ({"parts": 2}, "parts (None there, 2 here)"),
        ({"paper": True, "lambda": None}, "teacher_start (None there, 'scratch' here)"),
        ({"validation_seed": 3}, "validation_seed (0 there, 3 here)"),
        ({"bands": (3, 2, 1)}, "bands (None there, [3, 2, 1] here)"),
    ],
)
def test_what_concerns_origin_and_teachers_must_not_differ(first, tiny_pairs, tmp_path, changes, words):
    with pytest.raises(RecipeError, match=re.escape(words)):
        distill(tiny_pairs, tmp_path / "run", reuse=str(first), **changes)
    assert not (tmp_path / "run").exists()


def test_the_remedy_for_what_differs_works(first, tiny_pairs, tmp_path, capsys):
    command = [*arguments(tiny_pairs, tmp_path / "run", SHORT | {"crop_size": 16}), f"--reuse={first}"]
    assert main(command) == 1
    assert follow_options(capsys.readouterr().err, command, lambda _: shutil.rmtree(tmp_path / "run")) == [
        ["--crop-size", "32"],
        [],  # without --reuse
    ]


def test_what_is_no_finished_run_is_named(first, tiny_pairs, tmp_path):
    with pytest.raises(DataError, match=r"reuse: .*/nowhere"):
        distill(tiny_pairs, tmp_path / "run", reuse=str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"has no recipe\.yaml"):
        distill(tiny_pairs, tmp_path / "run", reuse=str(tiny_pairs))
    with pytest.raises(RecipeError, match=r"reuse \(None then"):  # a run cannot reuse itself
        distill(tiny_pairs, first, reuse=str(first))
    shutil.copytree(first, tmp_path / "half")
    shutil.rmtree(tmp_path / "half/teacher-medium")
    with pytest.raises(
        RecipeError, match=r"teacher-medium has not been trained to its end; .*`bitemporal distill --c"
    ) as caught:
        distill(tiny_pairs, tmp_path / "run", reuse=str(tmp_path / "half"))
    assert not (tmp_path / "run").exists()
    follow_commands(str(caught.value))
    distill(tiny_pairs, tmp_path / "run", reuse=str(tmp_path / "half"), stages="student")()


def test_a_stage_of_another_run_is_not_replaced(first, tiny_pairs, tmp_path):
    distill(tiny_pairs, tmp_path / "run", stages="origin", seed=9)()
    (tmp_path / "run/recipe.yaml").unlink()
    before = fingerprint(tmp_path / "run")
    with pytest.raises(OutputError, match="holds a different stage"):
        distill(tiny_pairs, tmp_path / "run", reuse=str(first))
    assert fingerprint(tmp_path / "run") == before


def test_a_copy_that_differs_is_refused(first, tiny_pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(reuse.shutil, "copyfile", lambda source, target: Path(target).write_bytes(b"other"))
    with pytest.raises(OutputError, match="the copy differs from"):
        distill(tiny_pairs, tmp_path / "run", reuse=str(first))
    assert not (tmp_path / "run/origin/bundle").exists()


def test_the_pairs_must_be_those_of_the_other_run(first, tiny_pairs, tmp_path):
    shutil.copytree(tiny_pairs, tmp_path / "pairs")
    for folder in ("A", "B", "label"):
        (tmp_path / f"pairs/train/{folder}/pair_04.png").unlink()
    with pytest.raises(
        DataError, match=r"first train/pair_04; .*start a new run with --out .*run-2 and without --reuse"
    ):
        distill(tmp_path / "pairs", tmp_path / "run", reuse=str(first))
    assert not (tmp_path / "run/student").exists()


def test_a_validation_split_goes_along(tiny_pairs, tmp_path):
    shutil.copytree(tiny_pairs, tmp_path / "pairs")
    shutil.rmtree(tmp_path / "pairs/val")
    options = {"validation_share": 0.25, "validation_seed": 7}
    distill(tmp_path / "pairs", tmp_path / "first", **options)()
    distill(tmp_path / "pairs", tmp_path / "run", reuse=str(tmp_path / "first"), seed=1, **options)()
    for name in ("splits.csv", "partition.csv"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_reused_stages_cannot_be_extended_and_nothing_is_changed(first, tiny_pairs, tmp_path, capsys):
    run = tmp_path / "run"
    command = [*arguments(tiny_pairs, run, SHORT | {"lambda": 3.0}), f"--reuse={first}"]
    assert main(command) == 0
    before = fingerprint(run)
    capsys.readouterr()
    steps = str(SHORT["student_steps"])
    longer = [*command, "--student-steps=9"]
    assert main(longer) == 1
    text = capsys.readouterr().err
    assert f"(stages that were reused have none); control has {steps} of 9 steps, and cannot be trained" in text
    assert fingerprint(run) == before
    # or in another folder, where the control is trained anew
    assert follow_options(text, longer) == [["--student-steps", steps], ["--out", f"{run}-2"]]
    copied = json.loads(run.with_name(f"{run.name}-2").joinpath("reused.json").read_text())["sha256"]
    assert "control" not in copied and {"origin", *TEACHERS} == {*copied}


def test_reused_teachers_cannot_be_extended_before_the_student_begins(first, tiny_pairs, tmp_path):
    options = {"reuse": str(first), "seed": 5}
    distill(tiny_pairs, tmp_path / "run", stages="control", **options)()
    with pytest.raises(
        BundleError, match=r"teacher-.* has . of 8 steps, .*start a new run with --out .*-2 and without --reuse"
    ):
        distill(tiny_pairs, tmp_path / "run", teacher_steps=8, **options)


@pytest.mark.full
def test_two_processes_reuse_and_extend_as_one(first, tiny_pairs, tmp_path):
    """With two processes of torchrun, and with two that the run starts: the same weights."""
    for steps in (2, 4):
        changes = SHORT | {"lambda": 3.0, "seed": 5, "student_steps": steps, "stages": "student"}
        words = [*arguments(tiny_pairs, tmp_path / "torchrun", changes), f"--reuse={first}"]
        under_torchrun(words)
        distill(tiny_pairs, tmp_path / "spawned", reuse=str(first), devices=2, **changes)()
    assert_equal(weights(tmp_path / "torchrun", "student"), weights(tmp_path / "spawned", "student"))
    metadata = read_description(tmp_path / "torchrun/student/bundle")["metadata"]
    assert (metadata["steps"], metadata["extended_from"]) == (4, [2])
    assert {*json.loads((tmp_path / "torchrun/reused.json").read_text())["sha256"]} == {"origin", *TEACHERS}


def test_the_papers_settings_are_one_option(tiny_pairs, tmp_path):
    base = {"model": "test_tinycd", "data": str(tmp_path / "d"), "out": str(tmp_path / "o")}
    paper = DistillRecipe(paper=True, **base)
    assert (paper.teacher_start, paper.teachers, paper.criterion, paper.lambda_) == ("scratch", "part", "mse", None)
    assert DistillRecipe(**base).criterion == "kl" and DistillRecipe(**base).teachers == "all"
    assert DistillRecipe(paper=True, teachers="part", criterion="mse", **base) == paper
    paper.to_yaml(tmp_path / "recipe.yaml")
    assert DistillRecipe.from_yaml(tmp_path / "recipe.yaml") == paper
    run = distill(tiny_pairs, tmp_path / "run", paper=True, **{"lambda": None})
    run.origin()
    run.teachers()
    assert run.student_learner().distillation.lambda_ == 1e-5  # TinyCD's in Table II


@pytest.mark.parametrize(
    "contradiction",
    [{"teacher_start": "origin"}, {"teachers": "all"}, {"criterion": "kl"}, {"lambda_": 0.5}],
)
def test_the_papers_settings_and_others_contradict_each_other(contradiction):
    (name,) = contradiction
    with pytest.raises(RecipeError, match=rf"^paper: its {name.rstrip('_')} is .*leave one of them out"):
        DistillRecipe(model="test_tinycd", data="d", out="o", paper=True, **contradiction)


def test_the_remedy_for_another_lambda_than_the_papers_works(tiny_pairs, tmp_path, capsys):
    command = [*arguments(tiny_pairs, tmp_path / "run", SHORT | {"lambda": 0.5}), "--stages=origin"]
    assert main([*command, "--paper"]) == 1
    text = capsys.readouterr().err
    assert follow_options(text, command) == [["--teacher-start", "scratch", "--teachers", "part", "--criterion", "mse"]]
