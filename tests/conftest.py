"""What several test modules need."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bitemporal._torchvision  # noqa: F401  before torchmetrics, which tests import and which imports torchvision

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


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
