"""What several test modules need."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bitemporal._torchvision  # noqa: F401  before torchmetrics, which tests import and which imports torchvision
from bitemporal.cli import execution

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks whose answers are known by formula, under names of their own."""
    from stub_networks import register_stubs  # here: most tests need no torch

    register_stubs(monkeypatch)


@pytest.fixture(autouse=True)
def errors_name_options_of_their_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test makes fail: an error may name only options that the command at hand has."""
    explain = execution._explanation

    def checked(error: Exception, values: Mapping[str, Any]) -> str | None:
        text = explain(error, values)
        # not those of other programs, of commands in backticks, or of another command that the text names
        sentences = re.sub(r"`[^`]*`|as evaluate does with --\S+|--shm-size", "", text or "")
        named = {name.replace("-", "_") for name in re.findall(r"(?<!\S)\(?--([a-z][a-z-]*)", sentences)}
        unknown = named - {*values} - ({"out"} if "output" in values else set())
        assert not unknown, f"the error names options that the command does not have, {unknown}: {text}"
        return text

    monkeypatch.setattr(execution, "_explanation", checked)


def write_pair(root: Path, split: str, stem: str, before: np.ndarray, after: np.ndarray, label: np.ndarray) -> None:
    """Write one pair, label 0/255, as PNG."""
    for name, array in (("A", before), ("B", after), ("label", (label * 255).astype(np.uint8))):
        folder = root / split / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / f"{stem}.png")


@pytest.fixture(scope="session")
def tiny_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 32 x 32 pairs: a bright square appears; every CAR part stands in train and val."""
    root = tmp_path_factory.mktemp("tiny") / "pairs"
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6), ("test", 6)):
        for i in range(count):
            before = rng.integers(60, 120, (32, 32, 3), dtype=np.uint8)
            after = before + rng.integers(0, 10, (32, 32, 3), dtype=np.uint8)
            label = np.zeros((32, 32), dtype=np.uint8)
            side = (0, 4, 6, 11, 13, 20)[i % 6]  # CAR 0, .016, .035, .118, .165, .39
            top, left = rng.integers(0, 33 - side, 2)
            label[top : top + side, left : left + side] = 1
            after[label == 1] = 220
            write_pair(root, split, f"pair_{i:02d}", before, after, label)
    return root
