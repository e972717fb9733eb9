"""Stems of one pair that are spelt differently: leading zeros, capitals, words before and after."""

import numpy as np
import pytest
from PIL import Image

from bitemporal.pairs import PairFolder, check_pairs

SPELLINGS = {
    "leading zeros of labels": ("{}", "{}", "{:04}"),
    "leading zeros of a date": ("{:02}", "{}", "{}"),
    "capitals": ("Img_{}", "IMG_{}", "img_{}"),
    "a suffix of labels": ("{}", "{}", "{}_label"),
    "an extension kept": ("{}", "{}", "{}.jpg"),
    "a prefix of labels": ("tile {}", "tile {}", "mask_tile {}"),
    "both around labels": ("{}", "{}", "gt_{}_v2"),
    "words of dates": ("before_{}", "After_{}", "{}"),
    "words everywhere": ("A_{}", "B_{}", "label_{}"),
    "numbers of images": ("t1-x{}", "t2-x{}", "mask-x{}"),
    "zeros of labels among suffixes": ("{}_pre", "{}_post", "{:03}"),
}


def put(path, value):
    """Write an image by which it is known: its grey value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(path)


def put_pairs(root, stems, numbers=range(8, 12)):
    for number in numbers:
        for place, stem, value in zip(("A", "B", "label"), stems, (0, 100, 0), strict=True):
            put(root / place / f"{stem.format(number)}.png", value + number)


@pytest.mark.parametrize("case", SPELLINGS)
def test_files_of_one_pair_are_found(tmp_path, case):
    put_pairs(tmp_path, SPELLINGS[case])
    folder = PairFolder(tmp_path, label_threshold=9)
    check = check_pairs(folder)
    assert not check.faults and len(folder) == 4 and folder.notes, check.report()
    for pair in folder.pairs():
        images = folder.load(pair)
        number = images.before[0, 0, 0]
        assert images.after[0, 0, 0] == 100 + number and images.label[0, 0] == (number >= 9)


@pytest.mark.parametrize(
    "places",
    [
        ("images/pre_{}", "images/post_{}", "label/{}"),
        ("before_{}", "after_{}", "mask_{}"),
        ("imgs/T1-a_{}", "imgs/T2-a_{}", "imgs/label-a_{}"),
    ],
)
def test_words_before_the_stems_of_one_folder(tmp_path, places):
    for number in range(3):
        for place, value in zip(places, (0, 100, 255 * (number > 1)), strict=True):
            put(tmp_path / f"{place.format(number)}.png", value + number * (value < 200))
    folder = PairFolder(tmp_path, label_threshold=100)
    assert not check_pairs(folder).faults and len(folder) == 3
    for number, pair in enumerate(folder.pairs()):
        images = folder.load(pair)
        assert (images.before[0, 0, 0], images.after[0, 0, 0]) == (number, 100 + number)
        assert images.label[0, 0] == (number > 1)


def test_one_pair_is_enough_for_a_word(tmp_path):
    put_pairs(tmp_path, ("x", "x", "x_mask"), [9])
    assert len(PairFolder(tmp_path).pairs()) == 1 and PairFolder(tmp_path).pairs()[0].label is not None


@pytest.mark.parametrize(
    "stems",
    [
        (["1", "01"], ["1", "2"]),  # both spellings in one folder
        (["kyoto_1", "nara_1"], ["osaka_01", "tokyo_01"]),
        (["scene1_0", "scene1_1"], ["scene2_0", "scene2_1"]),  # no words for dates
    ],
)
def test_nothing_is_invented(tmp_path, stems):
    for place, names in zip(("A", "B"), stems, strict=True):
        for name in names:
            put(tmp_path / place / f"{name}.png", 9)
    folder = PairFolder(tmp_path)
    assert len(folder) == len({*stems[0]} & {*stems[1]})
    assert [fault for fault in check_pairs(folder).faults if fault.kind == "partner"]


def test_lists_may_have_the_names_of_the_files(tmp_path):
    put_pairs(tmp_path, ("before_{}", "after_{}", "label_{}"))
    (tmp_path / "train.txt").write_text("before_8.png\nafter_9.png\n")
    (tmp_path / "val.txt").write_text("label_10.png\n11\n")
    folder = PairFolder(tmp_path)
    assert not folder.list_faults
    assert {split: [pair.stem for pair in folder.pairs(split)] for split in folder.splits} == {
        "train": ["8", "9"],
        "val": ["10", "11"],
    }
