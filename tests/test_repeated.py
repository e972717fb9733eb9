"""The same pixels where they should not be: in two splits, and at both dates."""

import os
import shutil

import numpy as np
from PIL import Image

from bitemporal.cli.main import main
from bitemporal.pairs import PairFolder, check_pairs


def put_pairs(root, seeds, ending="png"):
    for seed in seeds:
        noise = np.random.default_rng(seed).integers(0, 256, (2, 16, 16, 3), np.uint8)
        for name, pixels in (("A", noise[0]), ("B", noise[1]), ("label", (noise[0, ..., 0] > 200) * np.uint8(255))):
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / name / f"{seed}.{ending if name != 'label' else 'png'}")


def repeated(root):
    return [warning for warning in check_pairs(PairFolder(root)).warnings if "same pixels" in warning]


def test_pairs_in_two_splits_are_named(tmp_path, capsys):
    put_pairs(tmp_path / "train", range(4))
    put_pairs(tmp_path / "test", range(4, 7))
    assert not repeated(tmp_path)
    for name in ("A", "B", "label"):  # under another name, in another format
        Image.open(tmp_path / "train" / name / "3.png").save(tmp_path / "test" / name / "copy.tif")
    assert main(["data", "check", str(tmp_path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "split test: 1 of its pairs hold the same pixels as pairs of train, such as copy, in train as 3" in out


def test_a_split_that_is_a_link_to_another_one_is_named(tmp_path):
    put_pairs(tmp_path / "train", range(4))
    put_pairs(tmp_path / "test", range(4, 7))
    os.symlink("test", tmp_path / "val")
    (warning,) = repeated(tmp_path)
    assert "split test: 3 of its pairs" in warning and "pairs of val" in warning


def test_pairs_of_one_date_alone_in_common_are_other_pairs(tmp_path):
    put_pairs(tmp_path / "train", [0])
    put_pairs(tmp_path / "val", [1])
    shutil.copy(tmp_path / "train" / "A" / "0.png", tmp_path / "val" / "A" / "1.png")
    assert not repeated(tmp_path)


def test_a_date_that_is_a_copy_of_the_other_is_named(tmp_path):
    put_pairs(tmp_path, range(3))
    for seed in (0, 1):
        shutil.copy(tmp_path / "A" / f"{seed}.png", tmp_path / "B" / f"{seed}.png")
    (warning,) = repeated(tmp_path)
    assert warning.startswith("2 files: holds the same pixels") and "B/0.png" in warning


def test_images_of_one_value_show_no_place(tmp_path):
    for split in ("train", "val"):
        put_pairs(tmp_path / split, [0 if split == "train" else 1])
        for name in "AB":
            Image.new("RGB", (16, 16)).save(next((tmp_path / split / name).iterdir()))
    assert not repeated(tmp_path)
