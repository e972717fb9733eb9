"""``bitemporal models``, the facts behind it, their measurement, and the pages made from them."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import measure_models
import models_page
import pytest
import torch
import torch.nn.functional as F

from bitemporal.cli import models as command
from bitemporal.cli.main import main
from bitemporal.models import create_model, list_models
from bitemporal.models.facts import Measured, all_facts, captions, model_facts
from conftest import SHARED

REAL = [name for name in list_models() if not name.startswith("test_")]
STORED = Path(measure_models.OUTPUT).parent


def stored(name: str) -> dict:
    return json.loads((STORED / f"{name}.json").read_text())["networks"]


def output(capsys, *words: str) -> str:
    assert main(["models", *words]) == 0
    return capsys.readouterr().out


def first_words(text: str) -> list[str]:
    """What begins a line and names a network."""
    return [line.split()[0] for line in text.splitlines() if line.split() and line.split()[0] in list_models()]


def test_the_table_has_a_line_for_every_network_and_none_for_the_micro_variants(capsys):
    assert first_words(output(capsys)) == REAL
    assert first_words(output(capsys, "--pattern", "fc_*")) == ["fc_ef", "fc_siam_conc", "fc_siam_diff"]
    assert first_words(output(capsys, "--pattern", "test_fc*")) == ["test_fc"]


@pytest.fixture
def three(monkeypatch):
    """Three networks of known cost, one never measured."""
    costs = {"tinycd": (300, 5.0, 0.3), "fc_ef": (200, 9.0, 0.1), "snunet_c16": (100, 7.0, None)}
    known = [
        replace(model_facts(name), measured=Measured(p, p, gmac_512=g, forward_256_s=t))
        for name, (p, g, t) in costs.items()
    ]
    known.append(replace(model_facts("fc_siam_diff"), measured=None))
    monkeypatch.setattr(command, "all_facts", lambda pattern: sorted(known, key=lambda facts: facts.name))


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("name", ["fc_ef", "fc_siam_diff", "snunet_c16", "tinycd"]),
        ("parameters", ["snunet_c16", "fc_ef", "tinycd", "fc_siam_diff"]),
        ("gmac", ["tinycd", "snunet_c16", "fc_ef", "fc_siam_diff"]),
        ("time", ["fc_ef", "tinycd", "fc_siam_diff", "snunet_c16"]),
    ],
)
def test_networks_are_sorted_with_those_not_measured_last(order, names, three, capsys):
    assert first_words(output(capsys, "--sort", order)) == names


def test_networks_with_more_parameters_are_left_out_and_unmeasured_ones_named(three, capsys):
    text = output(capsys, "--max-parameters", "2e2", "--sort", "parameters")
    assert first_words(text) == ["snunet_c16", "fc_ef"]
    assert "left out, not measured yet: fc_siam_diff" in text


def test_nothing_that_matches_and_unknown_names_end_with_status_1(capsys):
    assert main(["models", "--pattern", "qqq*"]) == 1
    assert "no network matches" in capsys.readouterr().out
    assert main(["models", "tinydc"]) == 1
    assert "did you mean tinycd" in capsys.readouterr().err


def unwrapped(text: str) -> str:
    return re.sub(r"\s+", "", text)


@pytest.mark.parametrize("name", list_models())
def test_the_card_of_a_network_holds_all_that_is_known(name, capsys):
    text = unwrapped(output(capsys, name))
    facts = model_facts(name)
    card, training = facts.card, facts.card.training
    said = [card.title, card.paper, card.url, card.licence, card.notes]
    said += [f"multiples of {card.multiple}, at least {card.minimum} x {card.minimum}"]
    said += [f"learning rate {training.lr:g}", f"weight decay {training.weight_decay:g}", training.augmentation]
    said += [f"{training.batch_size} pairs", f"lambda {training.distillation_weight:g}"]
    said += [rule.match for rule in training.rules]
    if facts.reference:
        said += [f"{facts.reference.parameters:,}", f"{facts.reference.forward_512_s:.3f}", captions().reference]
    if facts.published:
        said += [f"{score.miou:.2f}" for score in facts.published] + [captions().published, facts.remark]
    for words in said:
        assert unwrapped(words) in text, words
    assert ("Nopublishedscores" in text) == (not facts.published)


def test_published_scores_are_those_of_the_paper():
    scores = {(s.strategy, s.teachers): s for s in model_facts("changer_mit_b1").published}
    assert scores.keys() == {("origin", None), ("O-P", 3), ("MTKD", 3), ("O-P", 2), ("MTKD", 2)}
    assert scores["MTKD", 2].miou == 76.77
    assert scores["MTKD", 2].table == "V"
    origin = scores["origin", None]
    assert (origin.miou, origin.macc, origin.mprecision, origin.mfscore) == (75.94, 81.99, 87.74, 81.93)
    assert [s.strategy for s in model_facts("fc_ef").published] == ["origin", "O-P"]
    assert not model_facts("test_fc").published


needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the fact sheets are not at {SHARED}")


@pytest.mark.shared
@needs_shared
def test_every_row_of_the_tables_is_here_once():
    text = (SHARED / "paper.md").read_text()
    table = text[text.index("## 6. Table III") : text.index("### 6.1")]
    expected = Counter(re.findall(r"\d\d\.\d\d / \d\d\.\d\d / \d\d\.\d\d / \d\d\.\d\d", table))
    absent = next(line for line in table.splitlines() if line.startswith("| BAN-ViT-B-IN21K"))
    expected -= Counter(re.findall(r"\d\d\.\d\d / \d\d\.\d\d / \d\d\.\d\d / \d\d\.\d\d", absent))
    counter = Counter()
    keys = ("miou", "macc", "mprecision", "mfscore")
    for network in stored("published").values():
        rows = [row for row in network["scores"] if row["table"] == "III"]
        counter.update(" / ".join(f"{row[key]:.2f}" for key in keys) for row in rows)
        line = next(line for line in table.splitlines() if line.startswith(f"| {network['name_in_paper']} |"))
        strategies = [cell for cell in zip(("origin", "O-P", "MTKD"), line.split("|")[2:5], strict=True)]
        assert [row["strategy"] for row in rows] == [name for name, cell in strategies if " / " in cell]
    assert counter == expected
    two = text[text.index("## 8. Table V") : text.index("**Table VI")]
    rows = re.findall(r"\| (O-P|MTKD) \| 2 \|" + r" (\d\d\.\d\d) \([^|]*\|" * 4, two)
    expected = Counter((strategy, *map(float, values)) for strategy, *values in rows)
    assert len(rows) == 8
    assert expected == Counter(
        (row["strategy"], *(row[key] for key in keys))
        for network in stored("published").values()
        for row in network["scores"]
        if row["table"] == "V"
    )


@pytest.mark.shared
@needs_shared
def test_numbers_of_the_reference_are_those_measured_and_belong_to_known_networks():
    rows = re.findall(
        r"^\| (\w+) \|" + r" ([\d.,]+) \|" * 6, (SHARED / "models_measured.md").read_text(), flags=re.MULTILINE
    )
    keys = ("parameters", "trainable", "gmac_512", "forward_256_s", "forward_512_s", "training_step_256_s")
    expected = {name: {k: float(v.replace(",", "")) for k, v in zip(keys, row, strict=True)} for name, *row in rows}
    assert stored("reference_measured") == expected
    goldens = {path.stem for path in (SHARED / "goldens").glob("*.json")}
    assert stored("reference_measured").keys() == goldens
    assert stored("published").keys() <= goldens
    assert set(REAL) - goldens == {"siamese_unet"}  # of our own


def parameters(name: str) -> tuple[int, int]:
    everything = list(create_model(name).parameters())
    return sum(p.numel() for p in everything), sum(p.numel() for p in everything if p.requires_grad)


@pytest.mark.parametrize(
    "name",
    [
        n if (stored("measured")[n]["parameters"] < 5e6) else pytest.param(n, marks=pytest.mark.full)
        for n in stored("measured")
    ],
)
def test_measured_sizes_are_those_of_the_networks(name):
    measured = model_facts(name).measured
    assert (measured.parameters, measured.trainable) == parameters(name)
    assert measured.gmac_512 == pytest.approx(measure_models.multiply_adds(create_model(name), 512) / 1e9, abs=1e-3)


def test_multiply_adds_are_those_of_the_convolutions():
    """Counted from shapes, by hooks."""
    counted = []

    def count(module, args, result):
        spread = args[0] if isinstance(module, torch.nn.ConvTranspose2d) else result
        inner, outer = module.in_channels, module.out_channels
        each = module.kernel_size[0] * module.kernel_size[1] * inner * outer // module.groups
        counted.append(spread.shape[0] * spread.shape[2] * spread.shape[3] * each)

    model = create_model("test_fc").eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(*measure_models.pair(1, 64))
    assert measure_models.multiply_adds(create_model("test_fc"), 64) == sum(counted)


def test_attention_counts_with_both_its_products():
    class Attention(torch.nn.Module):
        def forward(self, before, after):
            tokens = before.reshape(1, 2, 48, 32)  # a size that the fused kernel of the CPU takes
            return F.scaled_dot_product_attention(tokens, tokens, tokens)

    assert measure_models.multiply_adds(Attention(), 32) == 2 * 2 * 48 * 48 * 32


@pytest.fixture
def measuring(monkeypatch, tmp_path):
    """Measurement of two networks without measuring; what was asked for, and the file."""
    asked = []

    def measure(name, kinds, limit_gib):
        asked.append((name, tuple(kinds)))
        return {key: 1 for kind in kinds for key in measure_models.MEASUREMENTS[kind][1]}

    monkeypatch.setattr(measure_models, "measure", measure)
    monkeypatch.setattr(measure_models, "list_models", lambda pattern: ["fc_ef", "test_fc", "tinycd"])
    return asked, tmp_path / "measured.json"


def test_what_was_measured_is_not_measured_again(measuring):
    asked, file = measuring
    measure_models.measure_all("*", ["size"], 16, False, file)
    assert asked == [("fc_ef", ("size",)), ("tinycd", ("size",))]
    asked.clear()
    measure_models.measure_all("*", ["size", "time"], 16, False, file)
    assert asked == [("fc_ef", ("time",)), ("tinycd", ("time",))]
    asked.clear()
    measure_models.measure_all("*", ["size", "time"], 16, False, file)
    assert not asked
    measure_models.measure_all("*", ["time"], 16, True, file)
    assert asked == [("fc_ef", ("time",)), ("tinycd", ("time",))]
    assert json.loads(file.read_text())["networks"]["fc_ef"]["gmac_512"] == 1


def test_numbers_of_two_machines_are_never_mixed(measuring, monkeypatch):
    _, file = measuring
    measure_models.measure_all("*", ["size"], 16, False, file)
    before = file.read_bytes()
    monkeypatch.setattr(measure_models, "machine", lambda: {"processor": "another"})
    with pytest.raises(SystemExit, match="another machine"):
        measure_models.measure_all("*", ["time"], 16, True, file)
    assert file.read_bytes() == before


@pytest.mark.full
def test_a_network_is_measured_in_processes_and_null_is_what_exceeds_the_limit():
    numbers = measure_models.measure("test_tinycd", list(measure_models.MEASUREMENTS), 16)
    assert numbers.keys() == {key for _, keys in measure_models.MEASUREMENTS.values() for key in keys}
    assert numbers["parameters"] == parameters("test_tinycd")[0]
    # at least the maps at full size of one layer, kept for the backward pass: 8 pairs, 3 channels, float32
    assert 8 * 3 * 256 * 256 * 4 / 2**30 < numbers["memory_gib"] < 16
    assert 0 < numbers["forward_256_s"]
    assert measure_models.measure("fc_ef", ["memory"], 0.75) == {"memory_gib": None}


def test_the_page_and_the_table_of_the_readme_are_current():
    assert models_page.PAGE.read_text() == models_page.page(), "run benchmarks/models_page.py"
    readme = models_page.README.read_text()
    assert readme == models_page.with_table(readme), "run benchmarks/models_page.py"


def test_the_copy_of_the_cards_is_current():
    current = json.loads(json.dumps(models_page.cards()))
    stored_cards = json.loads(models_page.CARDS.read_text())
    assert {name: current.get(name) for name in stored_cards} == stored_cards, "run benchmarks/models_page.py"
    assert set(REAL) <= set(stored_cards), "run benchmarks/models_page.py"


def test_the_page_and_the_readme_name_every_network():
    page, table = models_page.page(), models_page.readme_table()
    for facts in all_facts():
        assert f"\n### {facts.name}\n" in page
        assert facts.card.paper in page
        assert f"`{facts.name}`" in table
        assert facts.card.url in table
