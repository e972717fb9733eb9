"""What the values of change masks mean: stated by rule, or proposed from what the files hold.

Each proposal is typed as it is printed, on the command line and in Python. It has to succeed, and to leave both changed
and unchanged pixels. What a rule makes of a mask is compared with a formula on the array that was written.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from bitemporal.cli.main import main
from bitemporal.errors import DataError, LabelError, OptionError
from bitemporal.evaluation import evaluate
from bitemporal.imagery import read_mask
from bitemporal.inference import load
from bitemporal.pairs import PairFolder, check_pairs, resolve_decoding
from remedies import follow_keywords, follow_options
from scene_files import write_raster

SIZE = (12, 16)
BLACK, WHITE, RED, GREEN, BLUE, GREY = (0, 0, 0), (255,) * 3, (255, 0, 0), (0, 255, 0), (0, 0, 255), (128,) * 3


def stripes(*values, dtype=np.uint8):
    """Vertical stripes, one for each value, of equal width up to rounding."""
    return np.array(values, dtype)[np.arange(SIZE[1]) * len(values) // SIZE[1]][None].repeat(SIZE[0], 0)


def colours(*values):
    return np.array(values, np.uint8)[stripes(*range(len(values)))]


def palette(indices, *table):
    image = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    image.putpalette([part for colour in table for part in colour])
    return image


def geotiff(path, bands, **profile):
    rasterio = pytest.importorskip("rasterio")
    bands = np.asarray(bands)
    shape = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **profile) as target:
        target.write(bands)


def pairs(root, *labels):
    """Pairs with the given labels: arrays, images, or stacks of bands, which become GeoTIFFs."""
    for name in ("A", "B", "label"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for number, label in enumerate(labels):
        for name in "AB":
            Image.fromarray(np.full((*SIZE, 3), 50 + number, np.uint8)).save(root / name / f"{number}.png")
        if isinstance(label, list):
            geotiff(root / "label" / f"{number}.tif", label)
        else:
            image = label if isinstance(label, Image.Image) else Image.fromarray(label)
            image.save(root / "label" / f"{number}.{'tif' if image.mode == 'CMYK' else 'png'}")
    return root


def decoded(root, **options):
    folder = resolve_decoding(PairFolder(root, **options))
    return [folder.load(pair).label for pair in folder.pairs()]


def proposals(root, capsys, *given):
    """What a check proposes, each proposal typed on the command line and in Python.

    Returns:
        By the words of each proposal, the decoded masks of all pairs.
    """
    command = ["data", "check", str(root), *given]
    assert main(command) == 1
    text = capsys.readouterr().out
    typed = follow_options(text, command)
    masks = {}

    def read(**keywords):
        check = check_pairs(PairFolder(root, **keywords))
        check.raise_for_faults()
        labels = decoded(root, **keywords)
        for record, label in zip(check.records, labels, strict=True):  # counts and pixels say the same
            valid = label[label != 255]
            assert math.isnan(record.car) if not valid.size else record.car == pytest.approx((valid == 1).mean())
        masks[len(masks)] = labels

    one = ("label_threshold", "label_band")
    stated = {name[2:].replace("-", "_"): value for name, value in zip(given[::2], given[1::2], strict=True)}
    numbers = {name: tuple(yaml.safe_load(f"[{value}]")) for name, value in stated.items()}
    follow_keywords(text, read, {name: value[0] if name in one else value for name, value in numbers.items()})
    assert len(masks) == len(typed)
    for labels in masks.values():
        every = np.concatenate([label.ravel() for label in labels])
        assert {0, 1} <= {*every.tolist()} <= {0, 1, 255}
    return {" ".join(words): masks[number] for number, words in enumerate(typed)}


VALUES = {
    "damage classes": ([0, 1, 2, 3, 4], "--changed 1,2,3,4", lambda v: v > 0),
    "damage above none": ([0, 1, 2, 3, 4], "--changed 2,3,4", lambda v: v > 1),
    "classes with nodata": (
        [0, 1, 2, 3, 255],
        "--changed 1,2,3 --label-ignore 255",
        lambda v: np.where(v == 255, 255, v > 0),
    ),
    "1 and 2": ([1, 2], "--label-values 1,2", lambda v: v == 2),
    "2 and 1": ([1, 2], "--label-values 2,1", lambda v: v == 1),
    "0 and 2": ([0, 2], "--label-values 0,2", lambda v: v == 2),
    "0, 1 and 2": ([0, 1, 2], "--changed 1,2", lambda v: v > 0),
    "0 no data": ([0, 1, 2], "--label-values 1,2,0", lambda v: np.where(v == 0, 255, v == 2)),
    "2 no data": ([0, 1, 2], "--label-values 0,1,2", lambda v: np.where(v == 2, 255, v == 1)),
    "grey ignored": ([0, 128, 255], "--label-values 0,255,128", lambda v: np.where(v == 128, 255, v == 255)),
    "grey changed": ([0, 128, 255], "--changed 128,255", lambda v: v > 0),
    "grey unchanged": ([0, 128, 255], "--changed 255", lambda v: v == 255),
    "1 and 255 alone": ([1, 255], "--label-values 1,255", lambda v: v == 255),
    "255 ignored": ([0, 1, 255], "--label-values 0,1,255", lambda v: np.where(v == 255, 255, v == 1)),
    "255 changed": ([0, 1, 255], "--label-threshold 1", lambda v: v > 0),
    "shades": ([0, 60, 120, 180, 255], "--label-threshold 128", lambda v: v >= 128),
    "classes drawn lighter": ([0, 60, 120, 180, 240], "--changed 60,120,180,240", lambda v: v > 0),
    "per cent": ([*range(0, 101, 2)], "--label-threshold 50", lambda v: v >= 50),
}


@pytest.mark.parametrize("case", VALUES)
def test_values(tmp_path, capsys, case):
    values, option, rule = VALUES[case]
    label = np.array(values, np.uint8)[np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) % len(values)]
    proposed = proposals(pairs(tmp_path, label), capsys)
    assert (proposed[option][0] == rule(label.astype(int))).all(), proposed.keys()


DEEP = {
    "negative nodata": ([0, 1, -9999], np.int16, "--label-ignore -9999", lambda v: np.where(v < 0, 255, v == 1)),
    "nodata is unchanged": ([1, -9999], np.int16, "--label-values -9999,1", lambda v: v == 1),
    "classes and nodata": (
        [0, 1, 2, 3, -1],
        np.int16,
        "--changed 1,2,3 --label-ignore -1",
        lambda v: np.where(v < 0, 255, v > 0),
    ),
    "loss and gain": ([-1, 0, 1], np.int16, "--changed -1,1", lambda v: v != 0),
    "least int32": (
        [0, 255, -(2**31)],
        np.int32,
        "--label-ignore -2147483648",
        lambda v: np.where(v < 0, 255, v == 255),
    ),
    "uint16": ([0, 65535], np.uint16, "--label-values 0,65535", lambda v: v > 0),
    "floats": ([0, 0.25, 0.5, 1], np.float32, "--label-threshold 0.5", lambda v: v >= 0.5),
    "floats and nan": (
        [0, 0.25, 0.5, 1, np.nan],
        np.float32,
        "--label-threshold 0.5 --label-ignore nan",
        lambda v: np.where(np.isnan(v), 255, v >= 0.5),
    ),
    "nan": ([0, 1, np.nan], np.float64, "--label-ignore nan", lambda v: np.where(np.isnan(v), 255, v == 1)),
    "infinite": ([0, 1, np.inf], np.float32, "--label-ignore inf", lambda v: np.where(v > 1, 255, v)),
    "least float": (
        [0, 1, np.finfo(np.float32).min],
        np.float32,
        "--label-ignore -3.4028234663852886e+38",
        lambda v: np.where(v < 0, 255, v),
    ),
    "nan is unchanged": ([1, np.nan], np.float32, "--changed 1", lambda v: v == 1),
}


@pytest.mark.parametrize("case", DEEP)
def test_values_of_geotiffs(tmp_path, capsys, case):
    values, dtype, option, rule = DEEP[case]
    label = stripes(*values, dtype=dtype)
    proposed = proposals(pairs(tmp_path, [label]), capsys)
    with np.errstate(invalid="ignore"):
        assert (proposed[option][0] == rule(label)).all(), proposed.keys()


PALETTES = {
    "three classes": ([palette(stripes(0, 1, 2), BLACK, RED, BLUE)], "--changed 1,2", [stripes(0, 1, 1)]),
    "index 0 and 2": ([palette(stripes(0, 2), BLACK, RED, BLUE)], "--label-values 0,2", [stripes(0, 1)]),
    "colours that change places": (
        [palette(stripes(0, 1), BLACK, RED), palette(stripes(0, 1, 1), RED, BLACK)],
        "--unchanged-colours 0,0,0",
        [stripes(0, 1), stripes(1, 0, 0)],
    ),
    "an unchanged tile in one colour": (
        [palette(stripes(0, 1, 2), WHITE, RED, BLUE), palette(stripes(0), WHITE, RED, BLUE)],
        "--changed 1,2",
        [stripes(0, 1, 1), stripes(0)],
    ),
    "a palette of greys": (
        [palette(stripes(2, 1, 0, 3), *((v,) * 3 for v in (100, 255, 0, 30)))],
        "--label-threshold 128",
        [stripes(0, 1, 0, 0)],
    ),
    "white is index 0": ([palette(stripes(0, 1, 1), WHITE, BLACK)], "--label-values 0,255", [stripes(1, 0, 0)]),
    "black is changed": ([palette(stripes(0, 1, 1), WHITE, BLACK)], "--label-values 255,0", [stripes(0, 1, 1)]),
}


@pytest.mark.parametrize("case", PALETTES)
def test_palettes(tmp_path, capsys, case):
    labels, option, expected = PALETTES[case]
    proposed = proposals(pairs(tmp_path, *labels), capsys)
    assert [label.tolist() for label in proposed[option]] == [label.tolist() for label in expected], proposed.keys()


def test_a_threshold_on_a_palette_leads_out_of_the_circle(tmp_path, capsys):
    """Each option that does not fit names one that does."""
    root = pairs(tmp_path, palette(stripes(0, 1, 2, 3), BLACK, RED, GREEN, BLUE))
    for given in (("--label-threshold", "128"), ("--label-threshold", "1"), ("--label-values", "0,1")):
        assert (proposals(root, capsys, *given)["--changed 1,2,3"][0] == stripes(0, 1, 1, 1)).all()


@pytest.mark.parametrize("background", [0, 215])
def test_a_web_palette_of_black_and_white_is_read_by_colour(tmp_path, background):
    """As `convert("P")` writes it; a file without change has one index alone."""
    table = [RED] * 256
    table[background], table[225] = BLACK, WHITE
    masks = [stripes(0, 1), stripes(0), stripes(1)]
    root = pairs(tmp_path, *(palette(np.where(m, 225, background).astype(np.uint8), *table) for m in masks))
    assert not check_pairs(PairFolder(root)).faults
    assert [label.tolist() for label in decoded(root)] == [mask.tolist() for mask in masks]
    assert [record.car for record in check_pairs(PairFolder(root)).records] == [0.5, 0.0, 1.0]


def rgba(image, alpha):
    return np.dstack([image, alpha.astype(np.uint8)])


COLOURS = {
    "red on black": ([colours(BLACK, RED)], "--unchanged-colours 0,0,0", [stripes(0, 1)]),
    "classes on white": (
        [colours(WHITE, RED, GREEN, BLUE), colours(WHITE)],
        "--unchanged-colours 255,255,255",
        [stripes(0, 1, 1, 1), stripes(0)],
    ),
    "black or white": ([colours(WHITE, BLACK, RED)], "--unchanged-colours 0,0,0", [stripes(1, 0, 1)]),
    "white or black": ([colours(WHITE, BLACK, RED)], "--unchanged-colours 255,255,255", [stripes(0, 1, 1)]),
    "neither": ([colours(GREEN, GREEN, RED)], "--unchanged-colours 0,255,0", [stripes(0, 0, 1)]),
    "with a grey tile": (
        [colours(WHITE, RED), stripes(255)],
        "--unchanged-colours 255,255,255",
        [stripes(0, 1), stripes(0)],
    ),
    "with a palette": (
        [colours(WHITE, RED), palette(stripes(0, 1), BLUE, WHITE)],
        "--unchanged-colours 255,255,255",
        [stripes(0, 1), stripes(1, 0)],
    ),
    "on transparent ground": (
        [rgba(colours(BLACK, RED), stripes(0, 255))],
        "--unchanged-colours 0,0,0",
        [stripes(0, 1)],
    ),
    "another colour space": (
        [Image.fromarray(colours(BLACK, RED)).convert("CMYK")],
        "--unchanged-colours 0,0,0",
        [stripes(0, 1)],
    ),
    "by transparency alone": ([rgba(colours(RED), stripes(0, 255))], "--label-band 4", [stripes(0, 1)]),
    "grey and transparent": ([np.dstack([stripes(255), stripes(0, 255)])], "--label-band 2", [stripes(0, 1)]),
    "class numbers in bands": (
        [np.dstack([stripes(1, 5, 3, 7), stripes(2, 5, 3, 7), stripes(2, 1, 1, 1)])],
        "--label-band 3 --label-values 1,2",
        [stripes(1, 0, 0, 0)],
    ),
    "no data, unchanged, changed in band 3": (
        [np.dstack([stripes(0, 4, 3), stripes(0, 5, 3), stripes(0, 2, 1)])],
        "--label-band 3 --label-values 1,2,0",
        [stripes(255, 1, 0)],
    ),
}


@pytest.mark.parametrize("case", COLOURS)
def test_colours_and_bands(tmp_path, capsys, case):
    labels, option, expected = COLOURS[case]
    proposed = proposals(pairs(tmp_path, *labels), capsys)
    assert [label.tolist() for label in proposed[option]] == [label.tolist() for label in expected], proposed.keys()


def test_bands_of_geotiffs(tmp_path, capsys):
    """Five bands, and three of 16 bits: no colours."""
    classes = stripes(*range(8), dtype=np.uint16)
    five = proposals(
        pairs(tmp_path / "five", [classes, classes, classes, stripes(0, 1, dtype=np.uint16), classes]), capsys
    )
    assert (five["--label-band 4"][0] == stripes(0, 1)).all()
    deep = [classes * 300, classes * 200, stripes(0, 255, dtype=np.uint16)]
    three = proposals(pairs(tmp_path / "three", deep), capsys)
    assert (three["--label-band 3"][0] == stripes(0, 1)).all()


def test_a_fourth_band_that_is_no_transparency_is_not_passed_over(tmp_path, capsys):
    root = pairs(tmp_path, stripes(0))
    (root / "label" / "0.png").unlink()
    bands = [stripes(0)] * 3 + [stripes(0, 1)]
    geotiff(root / "label" / "0.tif", bands, photometric="RGB", alpha="NO")
    assert (proposals(root, capsys)["--label-band 4"][0] == stripes(0, 1)).all()
    geotiff(root / "label" / "0.tif", [stripes(0, 255)] * 3 + [stripes(9)], photometric="RGB", alpha="NO")
    assert (decoded(root)[0] == stripes(0, 1)).all()


@pytest.mark.parametrize(("suffix", "mode"), [("jpg", "RGB"), ("jpg", "CMYK"), ("webp", "RGB")])
@pytest.mark.parametrize("background", [BLACK, WHITE])
def test_colours_blurred_by_compression(tmp_path, capsys, background, suffix, mode):
    disc = np.hypot(*np.mgrid[-32:32, -32:32]) < 20
    image = np.where(disc[..., None], np.uint8(BLUE), np.uint8(background))
    root = pairs(tmp_path)
    for name in ("A", "B"):
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(root / name / "0.png")
    Image.fromarray(image).convert(mode).save(root / "label" / f"0.{suffix}", quality=80)
    ((option, (label,)),) = proposals(root, capsys).items()
    assert option.startswith("--label-band") and "--label-threshold 128" in option
    assert ((label == 1) == (disc if background == BLACK else ~disc)).mean() > 0.97


def test_what_is_no_mask_gets_no_option(tmp_path, capsys):
    """A photograph among the labels has to go; no rule makes a mask of it."""
    photo = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    root = pairs(tmp_path, photo, stripes(0, 255))
    for suffix in ("png", "jpg"):
        Image.fromarray(photo).save(root / "label" / f"0.{suffix}", quality=90)
        assert main(["data", "check", str(root)]) == 1
        text = capsys.readouterr().out
        assert f"label/0.{suffix}" in text and "one grey channel" in text and "--label" not in text
        (root / "label" / f"0.{suffix}").unlink()


def test_one_value_everywhere(tmp_path, capsys):
    """There are only readings that leave one answer; both are named, and both can be typed."""
    command = ["data", "check", str(pairs(tmp_path, stripes(1)))]
    assert main(command) == 1
    text = capsys.readouterr().out
    assert follow_options(text, command) == [["--label-values", "0,1"], ["--label-values", "1,2"]]


def test_codings_mixed_between_files(tmp_path, capsys):
    root = pairs(tmp_path, stripes(0, 1), stripes(0, 255), stripes(0))
    proposed = proposals(root, capsys)
    assert [label.mean() for label in proposed["--label-threshold 1"]] == [0.5, 0.5, 0]


@pytest.mark.parametrize(
    ("given", "label", "option", "expected"),
    [
        # what is stated to be ignored stays ignored
        (
            ("--label-values", "0,1,255"),
            stripes(0, 1, 2, 255),
            "--changed 1,2 --label-ignore 255",
            stripes(0, 1, 1, 255),
        ),
        (
            ("--label-values", "0,1", "--label-ignore", "255"),
            stripes(0, 1, 2, 255),
            "--changed 1,2 --label-ignore 255",
            stripes(0, 1, 1, 255),
        ),
        (("--label-ignore", "9"), colours(BLACK, RED), "--unchanged-colours 0,0,0", stripes(0, 1)),
        (("--label-values", "0,1"), colours(BLACK, RED), "--unchanged-colours 0,0,0", stripes(0, 1)),
        (("--label-threshold", "1"), colours(BLACK, RED), "--unchanged-colours 0,0,0", stripes(0, 1)),
        (("--changed", "1", "--label-band", "1"), stripes(0, 5), "--label-values 0,5", None),
        (
            ("--label-ignore", "0"),
            np.dstack([stripes(0, 4, 3), stripes(0, 5, 3), stripes(0, 2, 1)]),
            "--label-band 3 --label-ignore 0 --label-values 1,2",
            stripes(255, 1, 0),
        ),
    ],
)
def test_options_that_do_not_fit(tmp_path, capsys, given, label, option, expected):
    root = pairs(tmp_path, label)
    if expected is None:  # nothing is changed, which is said with what would be
        assert main(["data", "check", str(root), *given]) == 0
        assert [option.split()] == follow_options(capsys.readouterr().out, ["data", "check", str(root), *given])
    else:
        assert (proposals(root, capsys, *given)[option][0] == expected).all()


PHOTO = np.random.default_rng(0).integers(9, 256, (*SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("label", "remedies"), [(colours(RED, BLUE), [["--unchanged-colours", "255,0,0"]]), (PHOTO, [])]
)
def test_a_colour_that_no_label_has(tmp_path, capsys, label, remedies):
    command = ["data", "check", str(pairs(tmp_path, label)), "--unchanged-colours", "1,2,3"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "by unchanged_colours, every valid pixel is changed, and all labels hold (" in text
    assert "one grey channel" in text if not remedies else follow_options(text, command) == remedies


def test_a_value_beside_the_stated_ones(tmp_path, capsys):
    """The proposals fit all files, not the one in which the value was found."""
    root = pairs(tmp_path, stripes(0, 1, 2, 3), stripes(0, 1))
    proposed = proposals(root, capsys, "--label-values", "0,1")
    assert [label.mean() for label in proposed["--changed 1,2,3"]] == [0.75, 0.5]


def test_a_value_that_no_label_has(tmp_path, capsys):
    command = ["data", "check", str(pairs(tmp_path, stripes(0, 1, 2, 3))), "--changed", "7"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "by changed, no pixel is changed, and all labels hold 0 (48 pixels), 1 (48)" in text
    assert ["--changed", "1,2,3"] in follow_options(text, command)


# ------------------------------------------------------------------------------------ two masks, one of each date


def of_dates(tmp_path, before, after, **options):
    """One label that is two masks."""
    paths = []
    for name, label in (("label1", before), ("label2", after)):
        path = tmp_path / f"{name}.{'tif' if isinstance(label, list) else 'png'}"
        if isinstance(label, list):
            geotiff(path, label)
        else:
            (label if isinstance(label, Image.Image) else Image.fromarray(label)).save(path)
        paths.append(path)
    return read_mask(paths[0], label_after=paths[1], **options)


DIFFERENCES = {
    "classes": (stripes(0, 1, 1, 2), stripes(0, 2, 1, 1), {}, stripes(0, 1, 0, 1)),
    "colours": (colours(WHITE, RED, BLUE), colours(WHITE, GREEN, BLUE), {}, stripes(0, 1, 0)),
    "palettes of other orders": (
        palette(stripes(0, 1, 2), WHITE, RED, BLUE),
        palette(stripes(2, 0, 1), RED, GREEN, WHITE),
        {},
        stripes(0, 0, 1),
    ),
    "a palette and colours": (palette(stripes(0, 1), WHITE, RED), colours(WHITE, BLUE), {}, stripes(0, 1)),
    "grey and colours": (stripes(255, 0), colours(WHITE, BLUE), {}, stripes(0, 1)),
    "no data": (stripes(1, 255, 2, 2), stripes(2, 1, 255, 2), {"label_ignore": (255,)}, stripes(1, 255, 255, 0)),
    "a band": (
        np.dstack([stripes(1, 2, 3), stripes(0, 0, 1), stripes(9, 9, 9)]),
        np.dstack([stripes(3, 3, 3), stripes(0, 1, 1), stripes(8, 8, 8)]),
        {"label_band": 2},
        stripes(0, 1, 0),
    ),
    "nan": (
        [stripes(0, 1, np.nan, dtype=np.float32)],
        [stripes(1, 1, np.nan, dtype=np.float32)],
        {"label_ignore": (math.nan,)},
        stripes(1, 0, 255),
    ),
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_two_masks_are_compared(tmp_path, case):
    before, after, options, expected = DIFFERENCES[case]
    assert (of_dates(tmp_path, before, after, **options) == expected).all()


def second(root, before, after, split="train"):
    """Pairs in the layout of SECOND: a mask of classes for each date."""
    for number, masks in enumerate(zip(before, after, strict=True)):
        photos = [np.full((*SIZE, 3), 60 + number, np.uint8)] * 2
        for name, array in zip(("im1", "im2", "label1", "label2"), (*photos, *masks), strict=True):
            (root / split / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / split / name / f"{number}.png")
    return root


def test_a_folder_with_a_mask_of_classes_for_each_date(tmp_path, capsys):
    root = second(
        tmp_path,
        [colours(WHITE, RED, RED, BLUE), colours(WHITE), colours(GREEN, WHITE)],
        [colours(WHITE, BLUE, RED, GREEN), colours(WHITE), colours(RED, WHITE)],
    )
    folder = PairFolder(root)
    check = check_pairs(folder)
    assert not check.faults, check.report()
    assert check.decoding.describe() == "labels: changed where the masks of both dates differ (found in 3 files)"
    assert folder.decoding == check.decoding  # nothing is to be found out
    masks = [folder.load(pair).label for pair in folder.pairs()]
    assert [mask.tolist() for mask in masks] == [stripes(*values).tolist() for values in ((0, 1, 0, 1), (0,), (1, 0))]
    assert [record.car for record in check.records] == [mask.mean() for mask in masks]
    assert main(["data", "check", str(root), "--unchanged-colours", "255,255,255"]) == 1
    assert "unchanged_colours: says what the values of one mask mean" in capsys.readouterr().err
    pairs(tmp_path / "test", stripes(0, 255))
    mixed = check_pairs(PairFolder(tmp_path))
    assert mixed.decoding is None and "3 of 4 labels are two masks" in mixed.report()


def test_two_masks_that_cannot_be_compared(tmp_path):
    nan = [stripes(0, np.nan, dtype=np.float32)]
    with pytest.raises(LabelError, match="NaN") as error:
        of_dates(tmp_path, nan, nan)
    follow_keywords(str(error.value), lambda **keywords: of_dates(tmp_path, nan, nan, **keywords))
    with pytest.raises(OptionError, match="leave changed out"):
        of_dates(tmp_path, stripes(0), stripes(1), changed=(1,))
    with pytest.raises(DataError, match=r"12 x 16 and 6 x 16"):
        of_dates(tmp_path, stripes(0), stripes(1)[:6])


# ---------------------------------------------------------------------------------------- options and their use


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"changed": (1,), "label_values": (0, 1)}, "label_values=0,1 and changed=1 are both given"),
        ({"changed": ()}, "changed: found no value"),
        ({"changed": (1, 2), "label_ignore": (2,)}, "label_ignore: found 2, which changed has as well"),
        ({"changed_colours": (255, 0)}, "changed_colours: found 255,0, expected three numbers"),
        ({"unchanged_colours": (0, 0, 256)}, "from 0 to 255"),
        ({"unchanged_colours": (0, 0, 0), "label_band": 1}, "label_band: does not apply to colours"),
        ({"changed_colours": (0, 0, 0), "label_ignore": (1,)}, "label_ignore: does not apply to colours"),
        ({"label_band": 0}, "label_band: found 0"),
    ],
)
def test_options_that_contradict_each_other(tmp_path, options, words):
    with pytest.raises(OptionError, match=words):
        PairFolder(pairs(tmp_path, stripes(0, 1)), **options)


def test_changed_colours(tmp_path):
    root = pairs(tmp_path, colours(BLACK, RED, GREEN, BLUE), palette(stripes(0, 1), RED, BLUE), stripes(0, 255))
    folder = PairFolder(root, changed_colours=(*RED, *GREEN))
    expected = [stripes(0, 1, 1, 0), stripes(1, 0), stripes(0)]
    assert [label.tolist() for label in decoded(root, changed_colours=(*RED, *GREEN))] == [e.tolist() for e in expected]
    said = check_pairs(folder).decoding.describe()
    assert (
        "colour (255, 0, 0) or colour (0, 255, 0) = changed, all others unchanged (by changed_colours; 3 files)" in said
    )


@pytest.mark.parametrize("changed", [(1,), (255,), (1, 255)])
def test_the_set_pixels_of_1_bit_labels_are_1_or_255(tmp_path, changed):
    root = pairs(tmp_path, stripes(0, 1).astype(bool))
    assert (decoded(root, changed=changed)[0] == stripes(0, 1)).all()


def test_a_band_that_a_label_lacks(tmp_path, capsys):
    root = pairs(tmp_path, np.dstack([stripes(0, 1)] * 3), stripes(0, 1))
    command = ["data", "check", str(root), "--label-band", "3"]
    assert main(command) == 1
    text = capsys.readouterr().out
    assert "label/1.png: has 1 band, not the band 3 that label_band names" in text
    assert follow_options(text, command) == [["--label-band", "1"]]
    assert (decoded(root, label_band=1)[1] == stripes(0, 1)).all()


def test_all_commands_read_labels_in_the_same_way(tmp_path, capsys):
    """Statistics, training, its report and evaluation; the rule is recorded, and a run that resumes compares it."""
    classes = [stripes(*[0] * 6, 1, n % 3 + 1, 255) for n in range(6)]
    root = pairs(tmp_path / "pairs", *classes)
    options = ["--changed", "2,3", "--label-ignore", "255,nan"]
    masks = [np.where(label == 255, 255, label > 1) for label in classes]
    cars = [(mask == 1).sum() / (mask != 255).sum() for mask in masks]
    config = tmp_path / "rule.yaml"
    config.write_text("changed: [2, 3]\nlabel_ignore: 255\n")
    assert main(["data", "stats", str(root), f"--out={tmp_path / 'stats'}", f"--config={config}"]) == 0
    run = [
        "train",
        "--model=test_tinycd",
        f"--data={root}",
        f"--out={tmp_path / 'run'}",
        "--max-steps=1",
        "--workers=0",
    ]
    assert main([*run, "--crop-size=32", *options]) == 0
    said = "2 or 3 = changed, all others unchanged, 255 or nan = ignored"
    assert said in capsys.readouterr().err
    for folder in ("stats", "run"):
        lines = (tmp_path / folder / "partition.csv").read_text().splitlines()[1:]
        rows = sorted((line.split(",")[1], float(line.split(",")[2])) for line in lines)
        assert [car for _, car in rows] == pytest.approx(cars)
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert recipe["changed"] == [2, 3] and recipe["label_ignore"][0] == 255
    assert main([*run, "--crop-size=32", *options]) == 0  # NaN in a recipe equals NaN
    bundle = str(tmp_path / "run" / "origin" / "bundle")
    assert main(["evaluate", bundle, str(root), "--device=cpu", f"--output={tmp_path / 'e.json'}", *options]) == 0
    assert said in (tmp_path / "e.json").read_text()
    assert main([*run, "--crop-size=32", "--changed", "3", *options[2:]]) == 1
    assert "changed ([2, 3] then, [3] now)" in capsys.readouterr().err


def test_the_proposals_hold_wherever_labels_are_read(tmp_path, capsys):
    """Damage classes, refused by each command and by the library, with the same proposals."""
    label = stripes(0, 1, 2, 3)
    root = pairs(tmp_path / "pairs", *[label] * 4)
    detector = ["train", "--model=test_tinycd", f"--data={root}", f"--out={tmp_path / 'run'}", "--changed=2,3"]
    short = ["--max-steps=1", "--workers=0", "--crop-size=32"]
    assert main([*detector, *short]) == 0
    capsys.readouterr()
    commands = (
        ["data", "stats", str(root), "--out", str(tmp_path / "stats")],
        ["evaluate", str(tmp_path / "other" / "origin" / "bundle"), str(root), "--device=cpu"],
        ["train", "--model=test_tinycd", f"--data={root}", f"--out={tmp_path / 'third'}", *short],
    )
    plain = pairs(tmp_path / "plain", *[stripes(0, 1)] * 4)
    assert main([*detector[:2], f"--data={plain}", f"--out={tmp_path / 'other'}", *short]) == 0
    capsys.readouterr()
    for command in commands:
        assert main(command) == 1
        text = capsys.readouterr().err
        if command[0] == "train":
            text = text.partition(" if every")[0]  # one run, one rule
            assert follow_options(text, command) == [["--changed", "1,2,3"]]
        else:
            assert follow_options(text, command) == [["--changed", "1,2,3"], ["--changed", "2,3"]]
    path = root / "label" / "0.png"
    for read in (lambda **options: decoded(root, **options), lambda **options: read_mask(path, **options)):
        with pytest.raises(LabelError) as error:
            read()
        assert follow_keywords(str(error.value), read) == [{"changed": (1, 2, 3)}, {"changed": (2, 3)}]
    assert main(["train", f"--config={tmp_path / 'run' / 'recipe.yaml'}", "--changed=1,2,3"]) == 1
    assert "changed ([2, 3] then, [1, 2, 3] now)" in capsys.readouterr().err


@pytest.mark.parametrize("value", [1, 255])
def test_a_value_that_labels_call_no_data_is_ignored(value, tmp_path):
    stored = np.array([[[0, value, 7, 7], [value, 0, 0, 7]]], np.uint8)
    path = write_raster(tmp_path / "a.tif", stored, nodata=7)
    assert read_mask(path).tolist() == [[0, 1, 255, 255], [1, 0, 0, 255]]
    assert read_mask(path, changed=(7,)).tolist() == [[0, 0, 1, 1], [0, 0, 0, 1]]  # a rule that names it decides
    assert (read_mask(write_raster(tmp_path / "b.tif", np.full((1, 2, 4), 7, np.uint8), nodata=7)) == 255).all()
    other = write_raster(tmp_path / "c.tif", stored[:, ::-1], nodata=0)
    known = (stored[:, ::-1] != 0) & (stored != 7)
    differing = read_mask(path, label_after=other)
    assert (differing == np.where(known, stored != stored[:, ::-1], 255)[0]).all()


@pytest.mark.parametrize(("values", "nodata"), [((0, 1), 0), ((0, 255), 0), ((0, 255), 255), ((0, 1), 1)])
def test_labels_of_one_value_besides_no_data_are_refused_with_remedies_that_work(values, nodata, tmp_path, capsys):
    for name in ("A", "B", "label"):
        (tmp_path / name).mkdir()
        for i in range(2):
            array = np.tile(np.array(values, np.uint8), (1, 4, 2)) if name == "label" else np.zeros((3, 4, 4), np.uint8)
            write_raster(tmp_path / name / f"{i}.tif", array, nodata=nodata if name == "label" else None)
    command = ["data", "check", str(tmp_path)]
    assert main(command) == 1
    text = capsys.readouterr().out
    assert "declares as no data" in text
    assert ["--label-values", ",".join(map(str, values))] in follow_options(text, command)
    folder = resolve_decoding(PairFolder(tmp_path, label_values=values))
    assert (folder.load_label(folder.pairs()[0]) == np.tile([0, 1], (4, 2))).all()


@pytest.mark.parametrize(("changed", "unchanged"), [(255, 0), (1, 0)])
def test_inverted_masks_are_doubted(tmp_path, capsys, changed, unchanged):
    """0 where something has changed, as annotation tools invert masks: the rule that is found fits, and is wrong."""
    label = stripes(unchanged, *[changed] * 7)
    root = pairs(tmp_path, label, label)
    command = ["data", "check", str(root)]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "88% of the valid pixels are changed" in text
    assert follow_options(text, command) == [["--label-values", f"{changed},{unchanged}"]]
    assert (decoded(root, label_values=(changed, unchanged))[0] == (label == unchanged)).all()
    assert not check_pairs(PairFolder(root, label_values=(changed, unchanged))).warnings


def test_what_is_grey_among_colours_says_nothing(tmp_path, capsys):
    """One mask of a set of colours is white alone: nothing is counted by the grey value."""
    root = pairs(tmp_path, colours(WHITE, WHITE), colours(WHITE, RED), colours(WHITE, GREEN))
    proposed = proposals(root, capsys)
    assert check_pairs(PairFolder(root)).decoding is None
    assert [label.mean() for label in proposed["--unchanged-colours 255,255,255"]] == [0, 0.5, 0.5]
    with pytest.raises(LabelError, match="colour images"):
        resolve_decoding(PairFolder(root))


def test_counts_say_of_how_many_labels_they_are(tmp_path, capsys):
    root = pairs(tmp_path, stripes(0, 1), stripes(0, 1), stripes(0, 7))
    assert main(["data", "check", str(root), "--label-values", "0,1"]) == 1
    out = capsys.readouterr().out
    assert "2 of 2" in out and "(by label_values; 2 files)" in out


def trained_with(root: Path, run: Path, *options: str) -> str:
    """A bundle of a network that was trained on pairs, for a step."""
    short = ["--max-steps=1", "--workers=0", "--crop-size=32", "--batch-size=2"]
    assert main(["train", "--model=test_tinycd", f"--data={root}", f"--out={run}", *short, *options]) == 0
    return str(run / "origin" / "bundle")


@pytest.mark.parametrize(
    ("label", "other", "options"),
    [
        (stripes(0, 1, 2, 3), stripes(0, 0, 1, 2), ["--changed", "1,2,3"]),
        (stripes(0, 1, 2, 3), stripes(0, 3, 3, 2), ["--changed", "2,3", "--label-ignore", "1,nan"]),
        (stripes(1, 2), stripes(1, 1, 2), ["--label-values", "1,2"]),
        (stripes(0, 60, 200, 255), stripes(0, 0, 60, 255), ["--label-threshold", "128"]),
        (np.stack([stripes(0, 9), stripes(7, 8), stripes(0, 1)], -1),) * 2 + (["--label-band", "3"],),
        (np.stack([stripes(0, 255), stripes(0, 9), stripes(0, 1)], -1),) * 2 + (["--unchanged-colours", "0,0,0"],),
    ],
)
def test_a_bundle_remembers_how_labels_were_read(label, other, options, tmp_path, capsys):
    """The scores of a command without options are those of one with the options of the training."""
    root = pairs(tmp_path / "pairs", *[label] * 4)
    bundle = trained_with(root, tmp_path / "run", *options)
    words = ["evaluate", bundle, str(pairs(tmp_path / "more", *[other] * 2)), "--device=cpu"]
    for name, given in (("stated", options), ("remembered", [])):
        assert main([*words, f"--output={tmp_path / name}.json", *given]) == 0
        told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("labels:")]
        assert len(told) == 1 and f"as in the detector's training ({' '.join(options)})" in told[0]
    stated, remembered = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("stated", "remembered"))
    assert stated["protocol"] == remembered["protocol"] and stated["dataset"] == remembered["dataset"]
    # and in the library
    folder = PairFolder(tmp_path / "more")
    with pytest.warns(UserWarning, match="as in the detector's training"):
        result = evaluate(load(bundle, "cpu"), folder, folder.pairs())
    assert result.protocol.pairs_hash == stated["protocol"]["pairs_hash"]


@pytest.mark.parametrize(
    ("other", "proposal"),
    [
        (stripes(0, 1, 2, 3, 4), ["--changed", "1,2,3,4"]),  # a class that the training did not have
        (stripes(0, 2), ["--label-values", "0,2"]),  # nothing would be changed by the rule
        (np.stack([stripes(0, 255), stripes(0, 9), stripes(0, 1)], -1), ["--unchanged-colours", "0,0,0"]),
    ],
)
def test_other_labels_than_those_of_the_training_get_proposals_as_before(other, proposal, tmp_path, capsys):
    bundle = trained_with(pairs(tmp_path / "pairs", *[stripes(0, 1, 2, 3)] * 4), tmp_path / "run", "--changed=1,3")
    words = ["evaluate", bundle, str(pairs(tmp_path / "more", *[other] * 2)), "--device=cpu"]
    capsys.readouterr()
    assert main(words) == 1
    assert proposal in follow_options(capsys.readouterr().err, words)


def test_plain_labels_are_read_as_they_are_whatever_the_training_had(tmp_path, capsys):
    bundle = trained_with(pairs(tmp_path / "pairs", *[stripes(0, 1, 2, 3)] * 4), tmp_path / "run", "--changed=2,3")
    for values, doubted in (((0, 255), False), ((0, 1), True), ((0, 0), False)):
        root = pairs(tmp_path / str(values[1]), *[stripes(values[0], *values)] * 2)
        words = ["evaluate", bundle, str(root), "--device=cpu"]
        assert main(words) == 0
        told = " ".join(line for line in capsys.readouterr().out.splitlines() if line.startswith("labels:"))
        assert "0 = unchanged" in told and ("such values were read by --changed 2,3" in told) == doubted
        if doubted:  # and the option that is named can be typed
            assert follow_options(told, words) == [["--changed", "2,3"]]
    damaged = json.loads((Path(bundle) / "bundle.json").read_text())
    damaged["trained_on"]["labels"]["options"] = {"changed": [1], "label_threshold": 3}
    del damaged["sha256"]  # it would be found by that already
    (Path(bundle) / "bundle.json").write_text(json.dumps(damaged))
    assert main(words) == 1
    assert "trained_on is malformed" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_masks_that_compression_has_touched_a_little(tmp_path, capsys, ending):
    """0, 1 and 255 alone: 1 is what compression has made of 0, and neither changed nor to be ignored."""
    label = np.zeros((64, 64), np.uint8)
    label[16:36, 16:40] = 255
    for name in ("A", "B", "label"):
        (tmp_path / name).mkdir()
        Image.fromarray(label).save(tmp_path / name / f"x.{ending}", quality=90 if ending == "jpg" else 60)
    values = {*np.unique(np.asarray(Image.open(tmp_path / "label" / f"x.{ending}"))).tolist()}
    assert len(values) > 2
    assert list(proposals(tmp_path, capsys)) == ["--label-threshold 128"]
    assert (decoded(tmp_path, label_threshold=128)[0] == (label == 255)).all()


def test_a_threshold_lies_between_all_values(tmp_path, capsys):
    """Probabilities, of which each pixel has one of its own: more than a check keeps."""
    levels = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    for name in ("A", "B", "label"):
        (tmp_path / name).mkdir()
        image = Image.fromarray(levels) if name == "label" else Image.new("RGB", (64, 64))
        image.save(tmp_path / name / ("x.tif" if name == "label" else "x.png"))
    assert list(proposals(tmp_path, capsys)) == ["--label-threshold 0.5"]
