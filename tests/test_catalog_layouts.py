"""Every data set of the catalogue, in a miniature of the paths on its card, read by the commands printed for it."""

import csv
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from bitemporal.cli.main import main
from bitemporal.datasets.catalog import DATASETS, check_command, manual_text
from bitemporal.pairs import PairFolder

BEFORE, AFTER = 10, 200
LABELS = ("label", "mask", "out", "ref", "target", "cm", "change")
COLOURS = {"white": (255, 255, 255), "water": (0, 0, 255), "building": (128, 0, 0), "tree": (0, 255, 0)}
EXPECTED = {"xbd": 3 / 8, "bright": 2 / 8, "hi-ucd": 2 / 7}
"""Change area ratio where it is not that of a mask whose left half is changed."""


def columns(values, size):
    """An image whose eight columns have given values, as large as wanted."""
    return np.repeat(np.repeat(np.array([values] * 8, np.uint8), size // 8, 0), size // 8, 1)


def mask(name, path, size):
    """The content of a label file of a data set, from the data set's own description."""
    match name:
        case "xbd":  # no building, no, minor and major damage, destroyed; nothing has happened yet before
            return columns([0, 1, 1, 1, 0, 2, 3, 4] if "_post_" in path else [0, 1, 1, 1, 0, 1, 1, 1], size)
        case "bright":
            return columns([0, 1, 1, 0, 0, 1, 2, 3], size)
        case "hi-ucd":  # classes of both dates; unlabelled, unchanged and changed
            bands = [3, 3, 5, 5, 9, 9, 0, 2], [3, 3, 5, 5, 9, 3, 0, 8], [1, 1, 1, 1, 1, 2, 0, 2]
            return np.stack([columns(band, size) for band in bands], -1)
        case "second":
            classes = ["white"] * 4 + (["water"] * 4 if "label1" in path else ["building", "building", "tree", "tree"])
            return np.stack([columns([COLOURS[c][band] for c in classes], size) for band in range(3)], -1)
        case "dsifn":
            return columns([1] * 4 + [0] * 4, size)
        case _:
            return columns([255] * 4 + [0] * 4, size)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def miniature(card, root):
    """Write two pairs a split, where the card says that they are."""
    size = card.tile or 8
    splits = [*card.splits] or ["train", "val"]
    places = card.layout or [f"{split}/{folder}/NAME.png" for split in splits for folder in card.folders]
    trees = {"Train Labels": ["t0", "t1"], "Test Labels": ["s0", "s1"]}  # OSCD: each city in one of them
    for place in places:
        names = next((own for tree, own in trees.items() if tree in place), None)
        if names is None:
            names = ["t0", "t1", "s0", "s1"] if " - Images" in place else ["n0_0", "n1_0"]
        for split in splits if "SPLIT" in place else [""]:
            for name in names if "NAME" in place else [""]:
                for band in ("B02", "B03", "B04", "B08") if "BAND" in place else [""]:
                    path = place.replace("SPLIT", split).replace("NAME", name).replace("BAND", band)
                    parts = re.split(r"[/_. -]", path.lower())
                    second = {"b", "2", "im2", "img2", "t2", "time2", "image2", "post", "after", "2019"}
                    if any(word.rstrip("s12") in LABELS for word in parts) and "images" not in parts:
                        write(root / path, mask(card.name, path, size))
                    else:
                        value = AFTER if second & {*parts} else BEFORE
                        pixels = np.full((size, size) if band else (size, size, 3), value, np.uint8)
                        write(root / path, pixels.astype(np.uint16) * 10 if band else pixels)


def commands(card, root):
    """The commands that are printed for a data set, on its miniature."""
    printed = re.findall(r"`bitemporal ([^`]+)`", manual_text(card))
    return [[str(root) if word == "ROOT" else word for word in shlex.split(words)] for words in printed]


@pytest.mark.parametrize("card", DATASETS.values(), ids=lambda card: card.name)
def test_a_data_set_is_read_as_released(card, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the printed commands put tiles
    root = tmp_path / "data set"
    miniature(card, root)
    part = root / "ChangeDetectionDataset/Real/subset" if card.name == "svcd" else root  # as the card's notes say
    check, *others = commands(card, part)
    assert main(check) == 0, capsys.readouterr().out
    assert shlex.split(check_command(card, part))[1:] == check
    folder = PairFolder(part)
    pairs = folder.pairs()
    expected = {"whu-cd": 1, "gvlm": 2, "egy-bcd": 2, "bright": 2}.get(card.name, 2 * len(folder.splits))
    assert len(pairs) == expected and all(pair.label for pair in pairs)
    for pair in pairs:
        assert (folder.load_image(pair.before) == BEFORE).all() and (folder.load_image(pair.after) == AFTER).all()
    options = card.options.split()
    stats = ["data", "stats", str(part), "--output", str(tmp_path / "stats"), *options]
    assert main(stats) == 0, capsys.readouterr().err
    with (tmp_path / "stats" / "partition.csv").open() as file:
        cars = [float(row["car"]) for row in csv.DictReader(file)]
    assert cars == pytest.approx([EXPECTED.get(card.name, 0.5)] * len(pairs), abs=0.01)
    for words in card.ways:
        assert main(["data", "check", str(part), *words.split()]) == 0, capsys.readouterr()
    for tiles in others:
        assert main(tiles) == 0, capsys.readouterr().err
        assert len(PairFolder(tmp_path / "tiles")) == len(pairs)
        assert main(["data", "check", str(tmp_path / "tiles")]) == 0
    assert bool(others) == bool(card.tile)


def test_labels_are_wrong_without_the_options_of_the_card(tmp_path):
    """What the cards state has to be stated: the check refuses these labels, or asks."""
    for name in ("xbd", "bright", "hi-ucd"):
        miniature(DATASETS[name], tmp_path / name)
        assert main(["data", "check", str(tmp_path / name)]) == 1


def test_the_text_names_what_a_data_set_without_splits_of_known_size_has():
    assert DATASETS["xbd"].split_text == "train, tier3, test, hold"
    assert DATASETS["gvlm"].split_text == "none by pairs"
