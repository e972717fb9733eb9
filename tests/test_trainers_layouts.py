"""Folders as people lay them out for trainers: img_dir and ann_dir, more than two dates, before beside after."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bitemporal.cli.main import main
from bitemporal.pairs import PairFolder, resolve_decoding
from remedies import follow_options, follow_tools

RNG = np.random.default_rng(0)
IMAGE, OTHER = (RNG.integers(0, 256, (8, 8, 3), np.uint8) for _ in range(2))
LABEL = np.pad(np.full((8, 3), 255, np.uint8), ((0, 0), (0, 5)))


def put(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def put_names(root, folders):
    """An image of each date, and the label, as x.png in folders of these names."""
    for name in folders:
        put(root / name / "x.png", LABEL if name == "label" else RNG.integers(0, 256, (8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    "dates", ["img_dir/{split}/{date}/x.png", "img_dir/{date}/{split}/x.png", "img_dir/{split}/x_{date}.png"]
)
def test_img_dir_and_ann_dir_are_read(tmp_path, dates):
    for split in ("train", "val"):
        for date, image in (("A", IMAGE), ("B", OTHER)):
            put(tmp_path / dates.format(split=split, date=date), image)
        put(tmp_path / "ann_dir" / split / "x.png", LABEL)
    folder = PairFolder(tmp_path)
    assert folder.splits == ("train", "val") and not folder.warnings
    for pair in folder:
        assert pair.stem == "x" and pair.label == tmp_path / "ann_dir" / pair.split / "x.png"
        assert pair.before == tmp_path / dates.format(split=pair.split, date="A")
        assert pair.after == tmp_path / dates.format(split=pair.split, date="B")


def test_a_third_date_in_img_dir_is_read_by_the_printed_option(tmp_path, capsys):
    for split in ("train", "val"):
        for date in "ABC":
            put(tmp_path / "img_dir" / split / date / "x.png", OTHER)
        put(tmp_path / "ann_dir" / split / "x.png", LABEL)
    command = ["data", "check", str(tmp_path)]
    assert main(command) == 0
    assert follow_options(capsys.readouterr().out, command) == [["--folders", "A,C,ann_dir"]]
    folder = PairFolder(tmp_path, folders=("A", "C", "ann_dir"))
    assert [pair.after for pair in folder] == [tmp_path / f"img_dir/{split}/C/x.png" for split in ("train", "val")]
    assert all(pair.label is not None for pair in folder)


@pytest.mark.parametrize("folder", ["", "train"])
def test_a_third_date_beside_labels_is_read_by_the_printed_option(tmp_path, folder, capsys):
    put_names(tmp_path / folder, ("A", "B", "C", "label"))
    command = ["data", "check", str(tmp_path)]
    assert main(command) == 0
    assert follow_options(capsys.readouterr().out, command) == [["--folders", "A,C,label"]]
    pair = PairFolder(tmp_path, folders=("A", "C", "label")).pairs()[0]
    assert pair.after == tmp_path / folder / "C" / "x.png" and pair.label is not None


def test_three_years_are_named_by_two(tmp_path, capsys):
    put_names(tmp_path, ("2010", "2015", "2020", "label"))
    command = ["data", "check", str(tmp_path)]
    assert main(command) == 1
    assert follow_options(capsys.readouterr().err, command) == [["--folders", "2010,2015,label"]]


@pytest.mark.parametrize("layout", ["x.png", "train/x.png", "val/sub dir/x.png", "images/x.png", "images/train/x.jpg"])
@pytest.mark.parametrize("parts", [2, 3])
def test_before_beside_after_is_cut_by_the_printed_command(tmp_path, layout, parts, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with_label = layout.startswith("images") and parts == 2
    whole = np.concatenate([IMAGE, OTHER, np.repeat(LABEL[..., None], 3, axis=2)][:parts], axis=1)
    put(Path("it's") / layout, whole)
    if with_label:
        put(Path("it's") / layout.replace("images", "label").replace("jpg", "png"), LABEL)
    assert main(["data", "check", "it's"]) == 1
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    follow_tools(text)
    if not layout.endswith(".jpg"):  # which blurs labels
        assert main(["data", "check", "it's-cut"]) == (0 if with_label or parts == 3 else 1)  # they have no labels
    (pair,) = PairFolder(Path("it's-cut"))
    assert (pair.label is not None) == (with_label or parts == 3)
    if layout.endswith(".png"):
        loaded = resolve_decoding(PairFolder(Path("it's-cut"))).load(pair)
        assert np.array_equal(loaded.before, IMAGE) and np.array_equal(loaded.after, OTHER)
        assert loaded.label is None or np.array_equal(loaded.label == 1, LABEL > 0)


def test_folders_that_hold_no_pairs_are_not_said_to_hold_some(tmp_path, capsys):
    for place in ("one/train", "two/train"):
        put(tmp_path / place / "x.png", IMAGE)
    assert main(["data", "check", str(tmp_path)]) == 1
    assert "hold pairs" not in capsys.readouterr().err
