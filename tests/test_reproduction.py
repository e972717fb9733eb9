"""The paper's experiments: recipes, cost, published numbers, and a dry run of everything."""

import tempfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from bitemporal.cli.main import main
from bitemporal.errors import DataError, RecipeError
from bitemporal.models import model_card
from bitemporal.models.facts import all_facts
from bitemporal.pairs.batch import Batch
from bitemporal.run import reproduction, stages
from bitemporal.run.reproduction import RunOptions

QUIET = Console(quiet=True)
QUICK = ("fc_siam_diff", "lightcdnet_s")
"""Networks that have a dry run in every run of the tests, as tinycd has."""


def test_every_network_of_the_papers_table_has_a_recipe():
    names = reproduction.networks_of_paper()
    assert len(names) == len([f for f in all_facts() if f.published])
    for name in names:
        for dataset, size in (("jl1-cd", 512), ("sysu-cd", 256)):
            recipe = reproduction.paper_recipe(dataset, name)
            assert recipe.crop_size == size and recipe.seed == 0 and recipe.batch_size is None
            assert recipe.partition.thresholds == (0.05, 0.20)
            assert recipe.pretrained == (model_card(name).licence != "none")
            lengths = recipe.max_steps, recipe.teacher_steps, recipe.student_steps
            assert (recipe.teacher_start, recipe.teachers, recipe.criterion) == ("scratch", "part", "mse")
            if name == "ttp":  # epochs of 3,900 or 12,000 pairs in batches of 8
                epoch = {"jl1-cd": 488, "sysu-cd": 1500}[dataset]
                assert lengths == (300 * epoch, 200 * epoch, 100 * epoch)
            else:
                assert lengths == (200_000, 100_000, 100_000)
    assert reproduction.paper_recipe("jl1-cd", "tinycd", RunOptions(parts=2)).partition.thresholds == (0.10,)


def test_the_networks_have_the_lambda_of_the_papers_table():
    # fact sheet, Table II; the others are not distilled there
    table = {
        "STANet-Base": 5e-3,
        "IFN": 1e-4,
        "SNUNet-c16": 1e-4,
        "BIT": 1e-4,
        "ChangeStar-FarSeg": 1e-3,
        "ChangeStar-UPerNet": 1e-4,
        "ChangeFormer-b0": 1e-3,
        "ChangeFormer-b1": 5e-4,
        "TinyCD": 1e-5,
        "HANet": 1e-3,
        "Changer-b0": 1e-4,
        "Changer-b1": 1e-3,
        "Changer-r18": 1e-3,
        "Changer-s50": 1e-5,
        "LightCDNet-s": 5e-3,
        "CGNet": 1e-3,
        "BAN-ViT-L": 1e-3,
        "TTP": 5e-3,
    }
    found = {f.name_in_paper: f.card.training.distillation_weight for f in all_facts() if f.name_in_paper}
    assert {name: found[name] for name in table} == table
    none = {"FC-EF", "FC-Siam-Conc", "FC-Siam-Diff", "BAN-ViT-B"}
    assert found.keys() - table.keys() == none and {found[name] for name in none} == {1e-3}


def test_what_the_paper_does_not_have_is_refused():
    with pytest.raises(RecipeError, match="model: 'tinycd_v2_s' is not in the paper's tables"):
        reproduction.paper_recipe("jl1-cd", "tinycd_v2_s")
    with pytest.raises(RecipeError, match=r"ttp are here \(BAN-ViT-B-IN21K of Table III is not\); train others"):
        reproduction.paper_recipe("jl1-cd", "ban_b16_in21k_mit_b0")
    with pytest.raises(RecipeError, match="dataset: found 'levir-cd', expected one of jl1-cd, sysu-cd"):
        reproduction.paper_recipe("levir-cd", "tinycd")


def test_the_cost_is_that_of_the_steps(monkeypatch):
    monkeypatch.setattr(reproduction, "_CPU_PAIRS", 8)
    recipe = reproduction.paper_recipe("sysu-cd", "fc_ef", RunOptions(workers=2))
    seconds = iter((0.5, 0.1, 0.4))
    monkeypatch.setattr(reproduction, "_seconds", lambda *_: next(seconds))
    cost = reproduction.estimate_cost(recipe, "sysu-cd")
    validation = 4000 / 8 * 0.1
    assert cost.hours["origin"] == pytest.approx((200_000 * 0.5 + 40 * validation) / 3600)
    assert cost.hours["3 teachers"] == pytest.approx(3 * (100_000 * 0.5 + 20 * validation) / 3600)
    assert cost.hours["control"] == pytest.approx((100_000 * 0.5 + 20 * validation) / 3600)
    assert cost.hours["student"] == pytest.approx((100_000 * 0.6 + 20 * validation) / 3600)
    assert cost.total_hours == pytest.approx(sum(cost.hours.values()))
    seconds = iter(
        (0.5, 0.1, 0.4)
    )  # each of two devices takes every step, with half of the batch, and half of the validation pairs
    two = reproduction.estimate_cost(
        reproduction.paper_recipe("sysu-cd", "fc_ef", RunOptions(workers=2, devices=2)), "sysu-cd"
    )
    assert two.hours["origin"] == pytest.approx((2 * 200_000 * 0.5 + 40 * 4000 / 4 * 0.1) / 3600)
    seconds = iter((0.5, 0.1, 4.0))  # two processes load a batch in 2 s
    assert reproduction.estimate_cost(recipe, "sysu-cd").hours["control"] > 100_000 * 2 / 3600


def test_a_few_pairs_stand_for_a_batch_on_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(reproduction, "_seconds", lambda *_: 0.1)
    seen = []
    monkeypatch.setattr(reproduction, "Batch", lambda *tensors: seen.extend(tensors) or Batch(*tensors))
    cost = reproduction.estimate_cost(reproduction.paper_recipe("sysu-cd", "fc_ef"), "sysu-cd")
    assert {len(tensor) for tensor in seen} == {2}
    assert (cost.step_s, cost.forward_s, cost.loading_s) == pytest.approx((0.4, 0.4, 0.4))


def test_a_probe_times_this_machine():
    recipe = replace(reproduction.paper_recipe("sysu-cd", "tinycd"), crop_size=64, batch_size=2)
    cost = reproduction.estimate_cost(recipe, "sysu-cd")
    assert min(cost.forward_s, cost.step_s, cost.loading_s, cost.total_hours) > 0


@pytest.mark.parametrize("devices", [3, 16])
def test_a_run_that_would_be_refused_has_no_cost(devices, capsys, monkeypatch):
    monkeypatch.setattr(reproduction, "_seconds", lambda *_: 1.0)
    assert main(["reproduce", "jl1-cd", "--model", "fc_ef", "--devices", str(devices), "--estimate"]) == 1
    said = capsys.readouterr()
    assert f"devices: found {devices}, expected a number that divides the paper's batch of 8 pairs" in said.err
    assert "hours" not in said.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--parts", "4", "--estimate"], "parts: found 4, expected 2 or 3"),
        (["--estimate", "--dry-run"], "estimate: found together with dry_run"),
    ],
)
def test_options_that_say_nothing_are_refused(options, words, capsys):
    assert main(["reproduce", "jl1-cd", "--model", "fc_ef", *options]) == 1
    assert words in capsys.readouterr().err


def test_the_command_estimates_and_names_the_missing_data(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seconds = iter((0.5, 0.1, 0.4))
    monkeypatch.setattr(reproduction, "_seconds", lambda *_: next(seconds))
    assert main(["reproduce", "sysu-cd", "--model", "fc_ef", "--estimate"]) == 0
    assert "hours" in capsys.readouterr().out
    # without a look at the clock
    assert main(["reproduce", "sysu-cd", "--model", "fc_ef"]) == 1
    text = capsys.readouterr().err
    assert "data/sysu-cd: no such folder" in text
    assert "expected the pairs of SYSU-CD: `bitemporal data download sysu-cd`" in text
    assert not (tmp_path / "runs").exists()


def test_published_numbers_stand_beside_the_measured_ones(tmp_path):
    recipe = reproduction.paper_recipe("jl1-cd", "tinycd", RunOptions(out=str(tmp_path / "run")))
    found = reproduction.dry_run(recipe, QUIET)
    assert list(found) == ["origin", "o-p", "control", "student"]
    text = Console(width=160, record=True)
    text.begin_capture()
    text.print(reproduction.paper_table(found, recipe, "jl1-cd"))
    lines = text.end_capture().splitlines()
    published = {line.split()[0]: line.split()[-4:] for line in lines if "published" in line}
    # fact sheet, Table III
    assert published == {
        "origin": ["71.04", "78.77", "83.05", "77.74"],
        "o-p": ["72.22", "79.93", "83.49", "78.76"],
        "student": ["72.55", "80.98", "83.17", "79.26"],
    }
    for name, evaluation in found.items():
        for averaging in ("image_mean", "image_mean_empty_0", "dataset"):
            own = next(line for line in lines if line.split()[:2] == [name, averaging])
            assert f"{100 * evaluation.summary()[averaging]['miou']:.2f}" in own
    assert not (tmp_path / "run").exists()
    unchanged = replace(found["origin"], counts=np.full((4, 4), [64, 0, 0, 0]))
    text.begin_capture()
    text.print(reproduction.paper_table({"origin": unchanged}, recipe, "jl1-cd"))
    shown = text.end_capture()
    assert "origin dataset - - - -" in " ".join(shown.split()) and "nan" not in shown


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK else [pytest.mark.full])
        for name in reproduction.networks_of_paper()
        if name != "tinycd"
    ],
)
def test_a_dry_run_of_every_recipe(name, tmp_path):
    recipe = reproduction.paper_recipe("jl1-cd", name, RunOptions(out=str(tmp_path / "run")))
    found = reproduction.dry_run(recipe, QUIET)
    assert set(found) >= {"origin", "control", "student"}
    assert all(len(evaluation.stems) == 4 for evaluation in found.values())
    assert not (tmp_path / "run").exists()


def test_a_killed_dry_run_is_in_nobodys_way(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    recipe = reproduction.paper_recipe("jl1-cd", "fc_ef", RunOptions(out=str(tmp_path / "runs" / "a")))

    train_stage = stages.train_stage

    def killed_after_the_origin(stage, *others):
        if stage.name != "origin":
            raise KeyboardInterrupt
        return train_stage(stage, *others)

    monkeypatch.setattr(stages, "train_stage", killed_after_the_origin)
    for seed in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            reproduction.dry_run(replace(recipe, seed=seed), QUIET)
    assert [path.name for path in tmp_path.rglob("*")] == ["temporary"]


def test_data_that_are_not_there(tmp_path):
    recipe = reproduction.paper_recipe("jl1-cd", "tinycd", RunOptions(data=str(tmp_path / "no")))
    with pytest.raises(DataError, match="bitemporal data download jl1-cd"):
        reproduction.check_data(recipe, "jl1-cd")
