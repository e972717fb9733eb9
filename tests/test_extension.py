"""More steps for a run that has been started with fewer."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

from bitemporal.cli.main import main
from bitemporal.errors import BundleError, RecipeError
from bitemporal.inference.bundle import read_description
from bitemporal.run import fit, stages
from bitemporal.run.stages import DistillationRun
from remedies import follow_commands, follow_options
from test_pipeline import SHORT, distill, fingerprint
from test_pipeline import arguments as words_of_distill
from test_training import Crash, assert_equal, distill_recipe, recipe, scored, weights

QUIET = Console(quiet=True)


def table(run: Path) -> list[dict[str, str]]:
    with (run / "origin/metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_learning_rates_are_those_of_the_old_length_and_then_of_the_new_one(tiny_pairs, tmp_path, capsys):
    options = {"lr": 0.01, "warmup_steps": 2, "validate_every": None}
    stages.train(recipe(tiny_pairs, tmp_path / "run", **options), QUIET)
    said = Console(record=True, width=300)
    stages.train(recipe(tiny_pairs, tmp_path / "run", max_steps=12, **options), said)
    rates = [float(row["lr"]) for row in table(tmp_path / "run")]
    # linear decay to 0 at step 6 after 2 steps of warm-up; from step 6 on that to 0 at step 12
    assert rates == pytest.approx(
        [0.005, 0.01, 0.0075, 0.005, 0.0025, 0.0] + [0.01 * n / 10 for n in range(5, -1, -1)], abs=1e-7
    )
    text = said.export_text()
    assert "origin: extended from 6 to 12 steps" in text and "at 60% of the peak" in text
    metadata = read_description(tmp_path / "run/origin/bundle")["metadata"]
    assert (metadata["steps"], metadata["extended_from"]) == (12, [6])


@pytest.mark.parametrize("stopped_at", [4, 6, 8, 12])
def test_weights_do_not_depend_on_when_the_run_was_stopped(tiny_pairs, tmp_path, monkeypatch, stopped_at):
    """Killed before, at or after the old end, or never: the same bytes."""
    stages.train(recipe(tiny_pairs, tmp_path / "whole"), QUIET)
    stages.train(recipe(tiny_pairs, tmp_path / "whole", max_steps=12), QUIET)
    validate, calls = fit.validate, []

    def crashing(*arguments):
        calls.append(1)
        if 2 * len(calls) == stopped_at:
            raise Crash
        return validate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(fit, "validate", crashing)
        try:
            stages.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)
            stages.train(recipe(tiny_pairs, tmp_path / "run", max_steps=12), QUIET)
        except Crash:
            pass
    stages.train(recipe(tiny_pairs, tmp_path / "run", max_steps=12), QUIET)
    for file in ("metrics.csv", "bundle/weights.safetensors", "bundle/bundle.json"):
        assert (tmp_path / "whole/origin" / file).read_bytes() == (tmp_path / "run/origin" / file).read_bytes(), file


def test_best_weights_from_before_the_extension_are_kept(tiny_pairs, tmp_path, monkeypatch):
    seen = scored(monkeypatch, {2: 0.3, 4: 0.6, 6: 0.5, 8: 0.4, 10: 0.4}, set())
    stages.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)
    bundle = stages.train(recipe(tiny_pairs, tmp_path / "run", max_steps=10), QUIET)
    assert read_description(bundle)["metadata"]["best_step"] == 4
    assert_equal(weights(tmp_path / "run"), seen[4])


def test_the_old_bundle_stands_until_the_new_one_does(tiny_pairs, tmp_path, monkeypatch):
    scored(monkeypatch, {step: step / 10 for step in range(2, 12, 2)}, {8})
    stages.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)
    before = weights(tmp_path / "run")
    with pytest.raises(Crash):
        stages.train(recipe(tiny_pairs, tmp_path / "run", max_steps=10), QUIET)
    assert_equal(weights(tmp_path / "run"), before)
    assert (
        read_description(stages.train(recipe(tiny_pairs, tmp_path / "run", max_steps=10), QUIET))["metadata"][
            "best_step"
        ]
        == 10
    )


def arguments(data: Path, run: Path, *words: str) -> list[str]:
    short = ["--max-steps=6", "--validate-every=2", "--batch-size=4", "--crop-size=32", "--workers=0"]
    return ["train", "--model=test_tinycd", f"--data={data}", f"--out={run}", *short, *words]


def test_fewer_steps_are_refused_with_the_option_that_helps(tiny_pairs, tmp_path, capsys):
    assert main(arguments(tiny_pairs, tmp_path / "run")) == 0
    shorter = arguments(tiny_pairs, tmp_path / "run", "--max-steps=4")
    assert main(shorter) == 1
    text = capsys.readouterr().err
    assert "max_steps: this run was started with 6 steps, now there are 4; a run can be extended, not shortened" in text
    assert follow_options(text, shorter) == [["--max-steps", "6"], ["--out", str(tmp_path / "run-2")]]


def test_without_its_checkpoint_a_finished_stage_is_kept(tiny_pairs, tmp_path, capsys):
    bundle = stages.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)
    before = (bundle / "weights.safetensors").read_bytes()
    (tmp_path / "run/origin/last.ckpt").unlink()
    written = (tmp_path / "run/recipe.yaml").read_bytes()
    with pytest.raises(BundleError, match=r"last\.ckpt: not found; origin has 6 of 8 steps, and cannot be"):
        stages.train(recipe(tiny_pairs, tmp_path / "run", max_steps=8), QUIET)
    assert (bundle / "weights.safetensors").read_bytes() == before
    assert (tmp_path / "run/recipe.yaml").read_bytes() == written
    longer = arguments(tiny_pairs, tmp_path / "run", "--max-steps=8", "--validate-every=2")
    assert main(longer) == 1
    assert follow_options(capsys.readouterr().err, longer) == [["--max-steps", "6"], ["--out", str(tmp_path / "run-2")]]
    (tmp_path / "run/recipe.yaml").unlink()  # nothing tells what the run was to have
    with pytest.raises(BundleError, match=r"Restore the file from a backup, or start a new run with --out .*run-3"):
        stages.train(recipe(tiny_pairs, tmp_path / "run", max_steps=8), QUIET)


def test_without_its_best_weights_a_stage_is_trained_anew_as_the_error_says(tiny_pairs, tmp_path):
    bundle = stages.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)
    before = (bundle / "weights.safetensors").read_bytes()
    shutil.rmtree(bundle)
    with pytest.raises(BundleError, match="expected the best weights of stage origin") as caught:
        stages.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)
    Path(re.search(r"remove (\S+) to train", str(caught.value))[1]).unlink()
    stages.train(recipe(tiny_pairs, tmp_path / "run"), QUIET)
    assert (bundle / "weights.safetensors").read_bytes() == before


def test_a_checkpoint_from_before_stages_could_be_extended(tiny_pairs, tmp_path):
    for name in ("new", "old"):
        stages.train(recipe(tiny_pairs, tmp_path / name), QUIET)
    path = tmp_path / "old/origin/last.ckpt"
    content = torch.load(path, weights_only=True)
    assert content.pop("lengths") == [6]
    torch.save(content, path)
    for name in ("new", "old"):
        stages.train(recipe(tiny_pairs, tmp_path / name, max_steps=8), QUIET)
    assert_equal(weights(tmp_path / "new"), weights(tmp_path / "old"))


def test_student_and_control_are_extended_together_and_others_not_behind_their_back(tiny_pairs, tmp_path):
    steps = {"max_steps": 2, "teacher_steps": 2, "student_steps": 2}

    def run(**changes: object) -> DistillationRun:
        return DistillationRun(distill_recipe(tiny_pairs, tmp_path / "run", **(steps | changes)), QUIET)

    run()()
    run(student_steps=4)()
    for stage, length in (("origin", 2), ("teacher-small", 2), ("control", 4), ("student", 4)):
        assert read_description(tmp_path / "run" / stage / "bundle")["metadata"]["steps"] == length
    for name, learned in (
        ("max_steps", "teacher-large, teacher-medium, teacher-small, control, student"),
        ("teacher_steps", "student"),
    ):
        with pytest.raises(RecipeError, match=f"{name}: {learned} learned from the result of 2 steps"):
            run(student_steps=4, **{name: 3})
    # the control alone would be compared with a shorter student
    shutil.rmtree(tmp_path / "run/student")
    shutil.rmtree(tmp_path / "run/control")
    run(student_steps=4, teacher_steps=3, stages="teachers")()
    assert read_description(tmp_path / "run/teacher-small/bundle")["metadata"]["steps"] == 3
    with pytest.raises(BundleError, match="stage teacher-small has not been trained to its end"):
        run(student_steps=4, teacher_steps=5, stages="student")()


def test_scores_from_before_an_extension_are_said_to_be_earlier(tiny_pairs, tmp_path, monkeypatch, capsys):
    steps = {"max_steps": 2, "teacher_steps": 2, "student_steps": 2}
    place = tmp_path / "run"
    DistillationRun(distill_recipe(tiny_pairs, place, **steps), QUIET)()
    shutil.copytree(place, tmp_path / "other")
    both = ["compare", str(place), str(tmp_path / "other"), "--json"]

    def earlier() -> str:
        """What compare and report say alike."""
        capsys.readouterr()
        assert main(both) == 0
        out, err = capsys.readouterr()
        assert main(["report", str(place), "--json"]) == 0
        reported = capsys.readouterr()
        said = [line for line in json.loads(reported.out)["warnings"] if "earlier state" in line]
        assert json.loads(out)["earlier_states"] == said and all(line in err and line in reported.err for line in said)
        assert ("earlier state" in (place / "report.html").read_text()) is bool(said)
        return "".join(said)

    assert not earlier()
    DistillationRun(distill_recipe(tiny_pairs, place, **steps | {"student_steps": 4}, stages="student"), QUIET)()
    text = earlier()
    assert "the scores of student are of an earlier state" in text
    (command,) = follow_commands(text)  # which trains the control as long, and reaches the verdict
    assert "--stages" in command
    assert not earlier()


def test_a_length_by_default_and_the_same_one_stated_are_equal(tiny_pairs, tmp_path):
    for given in ({}, {"student_steps": 2}, {"teacher_steps": 2}):
        DistillationRun(distill_recipe(tiny_pairs, tmp_path / "run", max_steps=4, stages="origin", **given), QUIET)()


def test_the_verdict_is_not_about_stages_that_are_still_to_be_extended(tiny_pairs, tmp_path, capsys):
    run = tmp_path / "run"
    distill(tiny_pairs, run)()
    before = fingerprint(run)
    longer = words_of_distill(tiny_pairs, run, SHORT | {"student_steps": 4})
    assert main([*longer, "--stages=verdict"]) == 1
    text = capsys.readouterr().err
    assert "control has 2 of 4 steps and student has 2 of 4 steps" in text
    assert fingerprint(run) == before
    assert main([*longer, "--stages=student,verdict"]) == 1  # and not of a student that is longer than its control
    assert "control has 2 of 4 steps, so the verdict" in capsys.readouterr().err
    assert fingerprint(run) == before
    shutil.copytree(run, tmp_path / "copy")
    ways = [["--stages", "control,student,verdict"], ["--student-steps", "2"]]
    for way in ways:  # each from where the message stood: after the first, the run is longer
        shutil.rmtree(run)
        shutil.copytree(tmp_path / "copy", run)
        assert follow_options(" ".join(way), [*longer, "--stages=verdict"]) == [way]
        assert " ".join(way) in text
    assert scored_steps(run) == {"control": 2, "student": 2}


def test_a_verdict_on_an_extension_that_was_interrupted_is_refused(tiny_pairs, tmp_path, monkeypatch, capsys):
    """The old bundle still stands, and recipe.yaml has the new steps."""
    run, steps = tmp_path / "run", {"max_steps": 2, "validate_every": 1, "stages": "origin"}
    DistillationRun(distill_recipe(tiny_pairs, run, **steps), QUIET)()
    with monkeypatch.context() as patch, pytest.raises(Crash):
        scored(patch, {3: 0.5, 4: 0.5}, {4})
        DistillationRun(distill_recipe(tiny_pairs, run, **(steps | {"max_steps": 4})), QUIET)()
    command = ["distill", f"--config={run / 'recipe.yaml'}", "--stages=verdict"]
    assert main(command) == 1
    text = capsys.readouterr().err
    assert "origin has 2 of 4 steps" in text
    assert follow_options(text, command) == [["--stages", "origin,verdict"]]
    assert read_description(run / "origin/bundle")["metadata"]["steps"] == 4


def scored_steps(run: Path) -> dict[str, int]:
    return {n: read_description(run / n / "bundle")["metadata"]["steps"] for n in ("control", "student")}
