"""The example of docs/add-a-model.md is a complete network: registered as it stands, and checked."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import bitemporal
from bitemporal.inference.bundle import load_network, save_bundle
from bitemporal.models import create_model, list_models, registry

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "add-a-model.md"
NAMES = ["feature_difference", "test_feature_difference"]


def example() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return code


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """The example as a module; the registry is as before afterwards."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    path = tmp_path / "feature_difference.py"
    path.write_text(example(), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("feature_difference", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def pair(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 2, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_it_is_short_and_registers_what_the_page_names(registered):
    assert example().count("\n") < 80
    assert set(list_models()) >= set(NAMES)
    assert f"Save this as `src/bitemporal/models/{NAMES[0]}.py`" in PAGE.read_text(encoding="utf-8")


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", NAMES)
def test_forward_gives_logits_at_input_size_and_sees_differences_only(name):
    model = create_model(name).eval()
    before, after = pair(48, 20)
    with torch.no_grad():
        logits = model(before, after)
        assert logits.shape == (2, 2, 48, 20)
        assert torch.allclose(logits, model(after, before), atol=1e-6)
        unchanged = model(before, before)
        assert torch.allclose(unchanged, unchanged[:1, :, :1, :1].expand_as(unchanged))
        four_channels = torch.randn(2, 1, 4, 8, 8)
        assert create_model(name, in_channels=4).eval()(*four_channels).shape == (1, 2, 8, 8)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", NAMES)
def test_it_learns_where_the_change_is(name):
    torch.manual_seed(0)
    model = create_model(name).train()
    before, after = pair(32, 32)
    target = torch.zeros(2, 32, 32, dtype=torch.int64)
    target[:, :16] = 1
    after = torch.where(target[:, None] == 1, -before, before + 0.01 * after)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        terms = model.loss(model.outputs(before, after), target)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
    assert list(terms) == ["loss_ce"]
    probability = model.eval().probability(model(before, after))[:, 0]
    assert ((probability > 0.5) == (target == 1)).float().mean() > 0.9


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_gives_the_same_network(name, tmp_path):
    model = create_model(name).eval()
    save_bundle(tmp_path / "bundle", model)
    with torch.no_grad():
        assert torch.equal(load_network(tmp_path / "bundle")(*pair(16, 24)), model(*pair(16, 24)))
    images = np.random.default_rng(0).integers(0, 256, (2, 30, 41, 3), dtype=np.uint8)
    assert bitemporal.load(tmp_path / "bundle").predict(*images).mask.shape == (30, 41)


@pytest.mark.full
def test_it_passes_the_tests_that_every_network_gets(tmp_path):
    """In a process of its own, where the tests are collected with the example registered."""
    (tmp_path / "feature_difference.py").write_text(example(), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "feature_difference", "tests/test_models.py", "-k", NAMES[1]]
    missing_line = "--deselect=tests/test_models.py::test_cards_hold_the_recipe_of_the_reference"
    python_path = [str(tmp_path), *(p for p in sys.path if p)]
    result = subprocess.run(
        [*command, missing_line],
        cwd=ROOT,
        env={"PYTHONPATH": ":".join(python_path), "PATH": "", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert re.search(r"\b[2-9]\d passed", result.stdout)
