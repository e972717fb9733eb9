"""Every layout in which data sets are released, in miniature: what is before, after and label, and what is not used."""

import errno
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bitemporal.cli.main import main
from bitemporal.errors import DataError, OptionError
from bitemporal.imagery.decode import decode
from bitemporal.imagery.places import place_of
from bitemporal.pairs import PairFolder, check_pairs, resolve_decoding
from bitemporal.pairs.partition import PartitionRow, read_partition
from bitemporal.pairs.split_lists import write_split
from remedies import follow_commands, follow_keywords, follow_options, follow_tools

BEFORE, AFTER, LABEL, OTHER = 10, 200, 255, 77
"""Grey values that tell the files apart, whatever their names."""


def put(path, kind, changed=None):
    """Write an image of one grey value, or a label whose left half is changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((8, 8) if kind == LABEL else (8, 8, 3), kind, np.uint8)
    if kind == LABEL:
        pixels[:, 4 if changed is None else changed :] = 0
    Image.fromarray(pixels).save(path)


def put_pair(root, before, after, label=None):
    """Write the files of one pair at paths below the root."""
    put(root / before, BEFORE)
    put(root / after, AFTER)
    if label:
        put(root / label, LABEL)


def put_names(root, folders, stems, ending=".png"):
    for stem in stems:
        put_pair(root, *(f"{folder}/{stem}{ending}" for folder in folders))


def stems_of(folder):
    return {split: [pair.stem for pair in folder.pairs(split)] for split in folder.splits}


def read_right(root, expected, labelled=True, **options):
    """Check that a folder has exactly these stems by split, each with the right file in each role, and no fault."""
    folder = PairFolder(root, **options)
    assert stems_of(folder) == expected
    check = check_pairs(folder)
    assert not [fault for fault in check.faults if labelled or fault.kind != "unlabelled"], check.report()
    folder = folder.with_decoding(check.decoding)
    for pair in folder.pairs():
        images = folder.load(pair)
        assert (images.before == BEFORE).all() and (images.after == AFTER).all(), pair
        if pair.label is not None:
            assert images.label.mean() == 0.5
    return folder, check


PATTERNS = {
    "jl1-cd": ("{split}/A/{i}.png", "{split}/B/{i}.png", "{split}/label/{i}.png", ("train", "test")),
    "sysu-cd": ("{split}/time1/{i}.png", "{split}/time2/{i}.png", "{split}/label/{i}.png", ("train", "val", "test")),
    "levir-cd": ("{split}/A/{split}_{i}.png", "{split}/B/{split}_{i}.png", "{split}/label/{split}_{i}.png", ("train",)),
    "levir-cd+": ("LEVIR-CD+/{split}/A/{i}.png", "LEVIR-CD+/{split}/B/{i}.png", "LEVIR-CD+/{split}/label/{i}.png", 2),
    "whu-cd": ("before/{i}.tif", "after/{i}.tif", "change label/{i}.tif", ("all",)),
    "clcd": ("CLCD/{split}/time1/{i}.png", "CLCD/{split}/time2/{i}.png", "CLCD/{split}/label/{i}.png", 3),
    "dsifn": ("{split}/t1/{i}.jpg", "{split}/t2/{i}.jpg", "{split}/mask/{i}.png", ("train", "val", "test")),
    "egy-bcd": ("EGY_BCD/{split}/A/{i}.png", "EGY_BCD/{split}/B/{i}.png", "EGY_BCD/{split}/label/{i}.png", 3),
    "gvlm": ("GVLM_CD/{i}_China/im1.png", "GVLM_CD/{i}_China/im2.png", "GVLM_CD/{i}_China/ref.png", ("all",)),
    "bright": (
        "pre-event/bata-explosion_{i:08}_pre_disaster.tif",
        "post-event/bata-explosion_{i:08}_post_disaster.tif",
        "target/bata-explosion_{i:08}_building_damage.tif",
        ("all",),
    ),
    "bright of dfc25": (
        "dfc25/{split}/pre-event/noto_{i:08}_pre_disaster.tif",
        "dfc25/{split}/post-event/noto_{i:08}_post_disaster.tif",
        "dfc25/{split}/target/noto_{i:08}_building_damage.tif",
        ("train", "val"),
    ),
    "xbd": (
        "{split}/images/santa-rosa_{i:08}_pre_disaster.png",
        "{split}/images/santa-rosa_{i:08}_post_disaster.png",
        "{split}/targets/santa-rosa_{i:08}_post_disaster_target.png",
        ("train", "test", "hold", "tier3"),
    ),
    "hi-ucd": (
        "Hi-UCD-S/{split}/image/2018/{i}.png",
        "Hi-UCD-S/{split}/image/2019/{i}.png",
        "Hi-UCD-S/{split}/mask/2018_2019/{i}.png",
        ("train", "val"),
    ),
    "hi-ucd mini": (
        "HiUCD_mini/{split}/image/2017/9/{i}.png",
        "HiUCD_mini/{split}/image/2018/9/{i}.png",
        "HiUCD_mini/{split}/mask_merge/2017_2018/9/{i}.png",
        ("train", "val"),
    ),
    "hrscd": ("images/2006/D14/{i}.tif", "images/2012/D14/{i}.tif", "labels/change/D14/{i}.tif", ("all",)),
    "hrcus-cd": ("{split}/A/{i}.tif", "{split}/B/{i}.tif", "{split}/label/{i}.tif", 3),
    "egy-bcd without splits": ("A/{i}.png", "B/{i}.png", "label/{i}.png", ("all",)),
    "gvlm cut by its scripts": ("GVLM-CD256/A/{i}.jpg", "GVLM-CD256/B/{i}.jpg", "GVLM-CD256/label/{i}.png", ("all",)),
    "a split below each folder": ("A/{split}/{i}.png", "B/{split}/{i}.png", "label/{split}/{i}.png", ("train", "val")),
    "an archive of one split": (
        "train/train/A/{i}.png",
        "train/train/B/{i}.png",
        "train/train/label/{i}.png",
        ("train",),
    ),
    "a folder of both dates": ("JPEGImages/{i}_1.jpg", "JPEGImages/{i}_2.jpg", "Annotations/{i}.png", ("all",)),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_releases(tmp_path, name):
    *paths, splits = PATTERNS[name]
    splits = ("train", "test", "val")[:splits] if isinstance(splits, int) else splits
    for split, i in itertools.product(splits, range(2)):
        put_pair(tmp_path, *(path.format(split=split, i=i) for path in paths))
    folder, check = read_right(tmp_path, stems_of(PairFolder(tmp_path)))
    assert set(folder.splits) == set(splits) and all(len(folder.pairs(split)) == 2 for split in splits)
    assert not check.warnings, check.warnings


def test_images_of_several_sensors_in_the_folder_of_each_pair(tmp_path, capsys):
    """GVLM 1.1 has three images of each date."""
    for site in ("Enshi_China", "Nippes_Haiti"):
        for date, kind in ((1, BEFORE), (2, AFTER)):
            for sensor in ("HR", "MS", "SAR"):
                put(tmp_path / "GVLM_1.1_8bit" / site / f"img{date}_{sensor}.tif", kind if sensor == "HR" else OTHER)
        put(tmp_path / "GVLM_1.1_8bit" / site / "label.tif", LABEL)
    command = ["data", "check", str(tmp_path)]
    assert main(command) == 1
    assert follow_options(capsys.readouterr().err, command) == [["--suffixes", "img1_HR,img2_HR,label"]]
    stems = ("img1_HR", "img2_HR", "label")
    read_right(tmp_path, {"all": ["Enshi_China", "Nippes_Haiti"]}, suffixes=stems)


def test_s2looking_takes_the_union_and_names_the_labels_of_dates(tmp_path):
    for split in ("train", "val", "test"):
        put_names(tmp_path / "S2Looking" / split, ("Image1", "Image2", "label"), ["1"])
        for extra in ("label1", "label2"):
            put(tmp_path / "S2Looking" / split / extra / "1.png", LABEL, changed=1)
    _, check = read_right(tmp_path, {split: ["1"] for split in ("train", "val", "test")})
    assert sum("label1: a folder of 1 image(s) that is not used" in warning for warning in check.warnings) == 3


@pytest.mark.parametrize("tail", ["", " of the later edition"])
def test_whu_cd_is_large_pairs(tmp_path, capsys, tail):
    """Masks of buildings of one date stand beside images, and tiles that no change label belongs to."""
    top = tmp_path / "Building change detection dataset" / "1. The two-period image data"
    (tmp_path / "Building change detection dataset" / "2. The shape file of the images" / "train").mkdir(parents=True)
    if not tail:
        put_pair(top, "before/before.tif", "after/after.tif", "change label/change_label.tif")
        for date in ("before", "after"):
            put(top / date / f"{date}_label.tif", LABEL, changed=1)
        expected = {"all": ["before"]}
    else:
        for split in ("train", "test"):
            images = (f"{year}/whole_image/{split}/image/{year}_{split}.tif" for year in (2012, 2016))
            put_pair(top, *images, f"change_label/{split}/change_label.tif")
            for year, i in itertools.product((2012, 2016), range(2)):
                put(top / f"{year}/whole_image/{split}/label/{year}_{split}.tif", LABEL, changed=1)
                put(top / f"{year}/splited_images/{split}/image/0_{i}.tif", OTHER)
                put(top / f"{year}/splited_images/{split}/label/0_{i}.tif", LABEL, changed=1)
        expected = {"train": ["2012_train"], "test": ["2012_test"]}
    _, check = read_right(tmp_path, expected)
    named = "\n".join(check.warnings)
    assert ("2016/splited_images: not used" if tail else "after_label.tif") in named and "shape file" in named
    command = ["data", "tiles", str(tmp_path), "-o", str(tmp_path.with_name(f"{tmp_path.name}-out")), "--size", "4"]
    assert main(command) == 0
    assert f"{8 if tail else 4} tiles of 4 x 4" in capsys.readouterr().out


def test_hi_ucd_of_three_years_takes_those_of_the_labels(tmp_path):
    for year, kind in ((2017, BEFORE), (2018, AFTER), (2019, OTHER)):
        put(tmp_path / f"train/image/{year}/1.png", kind)
    put(tmp_path / "train/mask/2017_2018/1.png", LABEL)
    read_right(tmp_path, {"train": ["1"]})
    put(tmp_path / "train/mask/2018_2019/1.png", LABEL)
    with pytest.raises(DataError, match="labels of several two years") as caught:
        PairFolder(tmp_path)
    assert follow_options(str(caught.value), ["data", "check", str(tmp_path)])
    read_right(tmp_path, {"train": ["1"]}, folders=("image/2017", "image/2018", "mask/2017_2018"))


def test_one_image_of_each_date_is_no_pair_by_that_alone(tmp_path):
    put_pair(tmp_path, "before/x.tif", "after/y.tif")
    assert {fault.kind for fault in check_pairs(PairFolder(tmp_path)).faults} >= {"partner"}


def test_svcd_names_the_folders_that_can_be_read(tmp_path):
    top = tmp_path / "ChangeDetectionDataset"
    for part in ("Real/subset", "Real/original", "Model/with_shift"):
        for split in ("train", "val", "test"):
            put_names(top / part / split, ("A", "B", "OUT"), ["00001"], ".jpg" if part == "Real/original" else ".png")
    with pytest.raises(DataError, match="Real/original") as caught:
        PairFolder(tmp_path)
    named = Path(str(caught.value).rpartition("for example ")[2])
    read_right(named, {split: ["00001"] for split in ("train", "val", "test")})
    read_right(top / "Real" / "subset", {split: ["00001"] for split in ("train", "val", "test")})


@pytest.mark.parametrize("tops", [("train", "test"), ("SECOND_train_set", "SECOND_total_test/test")])
def test_second_has_a_mask_of_classes_for_each_date(tmp_path, tops):
    for top in tops:
        put_names(tmp_path / top, ("im1", "im2"), ["00003"])
        for folder, value in (("label1", 1), ("label2", 3)):
            mask = np.ones((8, 8), np.uint8)
            mask[:, :2] = value
            (tmp_path / top / folder).mkdir()
            Image.fromarray(mask).save(tmp_path / top / folder / "00003.png")
    folder = PairFolder(tmp_path)
    assert folder.splits == ("train", "test")
    pair = folder.pairs("train")[0]
    assert (pair.label, pair.label_after) == (
        tmp_path / tops[0] / "label1" / "00003.png",
        tmp_path / tops[0] / "label2" / "00003.png",
    )
    assert resolve_decoding(folder).load(pair).label.mean() == 0.25
    pair.label_after.unlink()
    check = check_pairs(PairFolder(tmp_path))
    assert PairFolder(tmp_path).pairs("train")[0].label is None and check.faults


def test_oscd_has_labels_in_trees_of_their_own(tmp_path):
    images = tmp_path / "Onera Satellite Change Detection dataset - Images"
    cities = {"bercy": "Train", "paris": "Train", "lasvegas": "Test"}
    for city, split in cities.items():
        put_pair(images, f"{city}/pair/img1.png", f"{city}/pair/img2.png")
        for date in ("imgs_1", "imgs_2", "imgs_1_rect", "imgs_2_rect"):
            put(images / city / date / "B02.tif", OTHER)
        tree = tmp_path / f"Onera Satellite Change Detection dataset - {split} Labels" / city / "cm"
        put(tree / "cm.png", LABEL)
        put(tree / f"{city}-cm.tif", LABEL)
    read_right(tmp_path, {"train": ["bercy", "paris"], "test": ["lasvegas"]})
    for tree in tmp_path.glob("* Test Labels/*/cm/*"):
        tree.unlink()
    folder, _ = read_right(tmp_path, {"train": ["bercy", "paris"], "test": ["lasvegas"]}, labelled=False)
    assert folder.pairs("test")[0].label is None


def put_bands(folder, size=8, scene="", bands=("B02", "B8A", "B04", "B12"), date=0):
    """Write a file for each band, of 16 bits; values tell the band's place in the spectrum, the date and the column."""
    folder.mkdir(parents=True, exist_ok=True)
    order = [f"B{n:02}" for n in range(1, 9)] + ["B8A"] + [f"B{n:02}" for n in range(9, 13)]
    for band in bands:
        values = 1000 * order.index(band) + 100 * date + np.arange(size)
        image = Image.fromarray(np.broadcast_to(values, (size, size)).astype(np.uint16))
        image.save(folder / f"{scene}{band}.tif")


def put_oscd(root, images, label_trees, cities, label="cm.png", size=8):
    for city, split in cities.items():
        for date in (1, 2):
            put_bands(root / images / city / f"imgs_{date}_rect", size, date=date)
            put_bands(root / images / city / f"imgs_{date}", size=4, scene=f"S2A_OPER_{date}_", bands=("B01", "B02"))
        (root / images / city / "dates.txt").write_text("date_1: 20160101\ndate_2: 20180101\n")
        place = root / label_trees.format(split=split) / city / "cm"
        place.mkdir(parents=True)
        changed = np.zeros((size, size), np.uint8)
        changed[:, : size // 2] = 1
        Image.fromarray(255 * changed).save(place / "cm.png")
        Image.fromarray(1 + changed).save(place / f"{city}-cm.tif")
        if label != "cm.png":
            (place / "cm.png").unlink()


ONERA = "Onera Satellite Change Detection dataset - "


@pytest.mark.parametrize(
    ("images", "trees", "label", "stated"),
    [
        ("images", "{split}_labels", "cm.png", ()),
        ("images", "{split}_labels", "tif", ("--label-values", "1,2")),
        (f"{ONERA}Images/{ONERA}Images", f"{ONERA}{{split}} Labels/{ONERA}{{split}} Labels", "cm.png", ()),
        ("onera dataset__images", "onera dataset__{split}_labels", "cm.png", ()),
        (f"images/{ONERA}Images", f"{{split}}_labels/{ONERA}{{split}} Labels", "cm.png", ()),
    ],
)
def test_oscd_in_bands(tmp_path, images, trees, label, stated):
    """The layouts of torchgeo, torchrs and the copies; values of the bands tell order and date."""
    put_oscd(tmp_path, images, trees, {"bercy": "train", "paris": "train", "rio": "test"}, label)
    keywords = {"label_values": (1, 2)} if stated else {}
    folder = PairFolder(tmp_path, bands=(3, 2, 1), image_range=(0, 12750), **keywords)
    assert stems_of(folder) == {"train": ["bercy", "paris"], "test": ["rio"]}
    folder = resolve_decoding(folder)
    for pair in folder.pairs():
        images_of = folder.load(pair)
        for date, image in ((1, images_of.before), (2, images_of.after)):
            # third, second and first of B02, B04, B8A, B12: places 8, 3 and 1 in the spectrum, 50 to a grey value
            expected = np.rint((1000 * np.array([8, 3, 1]) + 100 * date + np.arange(8)[:, None]) / 50)
            assert (image == expected).all()
        assert images_of.label.mean() == 0.5
    read = ["--bands", "3,2,1", "--image-range", "0,12750", *stated]
    assert main(["data", "check", str(tmp_path), *read]) == 0
    assert (
        main(
            [
                "data",
                "tiles",
                str(tmp_path),
                "-o",
                str(tmp_path.with_name(f"{tmp_path.name}-out")),
                "--size",
                "4",
                *stated,
            ]
        )
        == 0
    )
    tiles = resolve_decoding(
        PairFolder(tmp_path.with_name(f"{tmp_path.name}-out"), bands=(3, 2, 1), image_range=(0, 12750))
    )
    assert {split: len(tiles.pairs(split)) for split in tiles.splits} == {"train": 8, "test": 4}
    whole, part = folder.load(folder.pairs("test")[0]), tiles.load(tiles.pairs("test")[1])
    assert (part.after == whole.after[:4, 4:]).all() and (part.label == whole.label[:4, 4:]).all()


def test_a_run_learns_from_bands_in_files_of_their_own(tmp_path):
    put_oscd(tmp_path / "data", "images", "{split}_labels", {c: "train" for c in ("bercy", "paris", "rome")}, size=16)
    command = ["train", "--model", "test_fc", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    steps = ["--max-steps", "1", "--batch-size", "2", "--crop-size", "16", "--workers", "0"]
    assert main([*command, *steps, "--bands", "1,2,3,4", "--image-range", "0,12750"]) == 0
    bundle = next((tmp_path / "run").rglob("bundle.json")).parent
    scores = ["evaluate", str(bundle), str(tmp_path / "data"), "--split", "train", "-o", str(tmp_path / "s.json")]
    assert main(scores) == 0  # the bundle knows bands and range


def test_oscd_reads_pictures_until_bands_are_named(tmp_path, capsys):
    put_oscd(tmp_path, "images", "{split}_labels", {"bercy": "train", "rio": "test"})
    for city in ("bercy", "rio"):
        put_pair(tmp_path / "images", f"{city}/pair/img1.png", f"{city}/pair/img2.png")
    read_right(tmp_path, {"train": ["bercy"], "test": ["rio"]})
    command = ["data", "check", str(tmp_path)]
    assert main(command) == 0
    out = capsys.readouterr().out
    bands = ["--bands", "3,2,1", "--image-range", "0,12750"]
    assert follow_options(out, [*command, *bands]) == [["--folders", "imgs_1_rect,imgs_2_rect"]]
    folder = PairFolder(tmp_path, folders=("imgs_1_rect", "imgs_2_rect"), bands=(1,), image_range=(0, 12750))
    assert [pair.before.name for pair in folder.pairs()] == ["imgs_1_rect", "imgs_1_rect"]
    assert all(pair.label for pair in folder.pairs())


def test_cities_with_bands_and_labels_of_their_own_and_lists_of_one_line(tmp_path):
    for city in ("bercy", "paris", "rio"):
        for date in (1, 2):
            put_bands(tmp_path / city / f"imgs_{date}_rect", date=date)
        put(tmp_path / city / "cm" / "cm.png", LABEL)
    (tmp_path / "train.txt").write_text("bercy,paris\n")
    (tmp_path / "test.txt").write_text("rio\n")
    folder = PairFolder(tmp_path, bands=(1, 2), image_range=(0, 12750))
    assert stems_of(folder) == {"train": ["bercy", "paris"], "test": ["rio"]}
    assert not check_pairs(folder).faults and all(pair.label for pair in folder.pairs())


@pytest.mark.parametrize("names", [("before", "after"), ("march", "june")])
def test_folders_of_bands_are_one_pair(tmp_path, capsys, names):
    """Not a pair for each band."""
    for date, name in enumerate(names, 1):
        put_bands(tmp_path / "data" / name, date=date, scene="S2A_T31UDQ_")
    put(tmp_path / "data" / "label" / "change.png", LABEL)
    command = ["data", "check", str(tmp_path / "data"), "--bands", "3,2,1", "--image-range", "0,12750"]
    if names[0] == "march":
        assert main(command) == 1
        found = follow_options(capsys.readouterr().err, command)
        assert found == [["--folders", "june,march,label"]]  # by name; which is which, the user knows
    else:
        assert main(command) == 0
        folder = PairFolder(tmp_path / "data", bands=(1,), image_range=(0, 12750))
        assert [pair.stem for pair in folder.pairs()] == ["data"] and folder.pairs()[0].label is not None
    places = [str(tmp_path / "data" / name) for name in names]
    assert main(["data", "tiles", *places, "-o", str(tmp_path.with_name(f"{tmp_path.name}-out")), "--size", "4"]) == 0


def test_red_green_and_blue_are_taken_where_the_names_of_files_say_them(tmp_path, capsys):
    for date in (1, 2):
        put_bands(tmp_path / "rio" / f"imgs_{date}", bands=("B02", "B03", "B04", "B08"), date=date, scene="T49QHE_")
    put(tmp_path / "rio" / "cm" / "cm.png", LABEL)
    assert main(["data", "check", str(tmp_path), "--image-range", "0,12750"]) == 0
    assert "4 bands in separate files; B04, B03, B02 are used" in capsys.readouterr().out
    by_name, by_number = (PairFolder(tmp_path, image_range=(0, 12750), bands=bands) for bands in (None, (3, 2, 1)))
    for path in (by_name.pairs()[0].before, by_name.pairs()[0].after):
        assert (by_name.load_image(path) == by_number.load_image(path)).all()


@pytest.mark.parametrize("size", ["", "_10m"])
def test_bands_of_sentinel_2_in_jpeg_2000_are_an_image(tmp_path, size, capsys):
    """The files of a SAFE folder: lossless JPEG 2000 with the tile in front, next to a picture in colours."""
    rasterio = pytest.importorskip("rasterio")
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)}
    for date in (1, 2):
        safe, plain = tmp_path / "rio" / f"imgs_{date}", tmp_path / "plain" / "rio" / f"imgs_{date}"
        put_bands(plain, size=64, bands=("B02", "B03", "B04", "B08"), date=date)
        safe.mkdir(parents=True)
        for path in plain.iterdir():
            values = np.asarray(Image.open(path)).astype(np.uint16)
            name = safe / f"T32TQM_2020010{date}T100_{path.stem}{size}.jp2"
            profile = {"width": 64, "height": 64, "count": 1, "dtype": "uint16", "driver": "JP2OpenJPEG", **place}
            with rasterio.open(name, "w", QUALITY="100", REVERSIBLE="YES", **profile) as file:
                file.write(values, 1)
        Image.new("RGB", (64, 64)).save(safe / f"T32TQM_2020010{date}T100_TCI{size}.jp2")
    for city in (tmp_path / "rio", tmp_path / "plain" / "rio"):
        (city / "cm").mkdir()
        Image.fromarray(255 * np.eye(64, dtype=np.uint8)).save(city / "cm" / "cm.png")
    (tmp_path / "plain").rename(plain := tmp_path.with_name(f"{tmp_path.name}-plain"))
    assert main(["data", "check", str(tmp_path), "--image-range", "0,12750"]) == 0
    assert "4 bands in separate files; B04, B03, B02 are used" in capsys.readouterr().out
    ours, theirs = (PairFolder(root, image_range=(0, 12750)) for root in (tmp_path, plain))
    for date in ("before", "after"):
        assert (
            ours.load_image(getattr(ours.pairs()[0], date)) == theirs.load_image(getattr(theirs.pairs()[0], date))
        ).all()
    assert place_of(next(safe.glob("*B02*"))).transform[0] == 10


def test_pairs_in_jpeg_2000(tmp_path):
    """Images and labels in JPEG 2000, read as they were written; a damaged one is named."""
    pytest.importorskip("rasterio")
    rng = np.random.default_rng(0)
    pixels = {folder: rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for folder in ("A", "B")}
    pixels["label"] = 255 * (rng.random((32, 32)) < 0.3).astype(np.uint8)
    for folder, values in pixels.items():
        (tmp_path / folder).mkdir()
        Image.fromarray(values).save(tmp_path / folder / "x.JP2", "JPEG2000")
    folder = resolve_decoding(PairFolder(tmp_path))
    loaded = folder.load(folder.pairs()[0])
    assert (loaded.before == pixels["A"]).all() and (loaded.after == pixels["B"]).all()
    assert (loaded.label == (pixels["label"] > 0)).all()
    content = (tmp_path / "B" / "x.JP2").read_bytes()
    (tmp_path / "B" / "x.JP2").write_bytes(content[: len(content) // 2])
    (fault,) = check_pairs(PairFolder(tmp_path)).faults
    assert fault.path == tmp_path / "B" / "x.JP2" and "damaged or truncated" in str(fault)


CHANGED_XY = [[8, 8], [40, 8], [40, 24], [8, 24]]
"""Corners of what has changed, in pixels."""


def put_footprints(path):
    geopandas = pytest.importorskip("geopandas")
    shapely = pytest.importorskip("shapely")
    ground = shapely.Polygon([(5e5 + 3 * x, 5e6 - 3 * y) for x, y in CHANGED_XY])
    geopandas.GeoDataFrame(geometry=[ground], crs="EPSG:32632").to_crs("EPSG:4326").to_file(path)


def put_coco(path):
    image = {"id": 7, "file_name": "x.tif", "width": 64, "height": 64}
    annotation = {"image_id": 7, "segmentation": [list(itertools.chain(*CHANGED_XY))]}
    path.write_text(json.dumps({"images": [image], "annotations": [annotation]}))


def put_xview2(path):
    corners = ", ".join(f"{x} {y}" for x, y in [*CHANGED_XY, CHANGED_XY[0]])
    building = {"properties": {"subtype": "destroyed"}, "wkt": f"POLYGON (({corners}))"}
    whole = {"properties": {"subtype": "no-damage"}, "wkt": "POLYGON ((50 50, 60 50, 60 60, 50 50))"}
    metadata = {"width": 64, "height": 64}
    path.write_text(json.dumps({"features": {"xy": [building, whole]}, "metadata": metadata}))


@pytest.mark.parametrize(
    ("block", "images", "put_labels", "labels", "drawn"),
    [
        (0, ("A/x", "B/x"), put_footprints, "polygons/x.geojson", "label/x.png"),
        (1, ("A/x", "B/x"), put_coco, "annotations/instances_train.json", "label/x.png"),
        (
            2,
            ("images/x_pre_disaster", "images/x_post_disaster"),
            put_xview2,
            "labels/x_post_disaster.json",
            "targets/x_post_disaster_target.png",
        ),
    ],
    ids=["vector files", "COCO", "xView2"],
)
def test_polygons_are_drawn_as_the_page_shows(tmp_path, monkeypatch, capsys, block, images, put_labels, labels, drawn):
    rasterio = pytest.importorskip("rasterio")
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(3, 0, 5e5, 0, -3, 5e6)}
    for value, name in enumerate(images):
        path = tmp_path / f"{name}.tif"
        path.parent.mkdir(exist_ok=True)
        profile = {"driver": "GTiff", "count": 3, "height": 64, "width": 64, "dtype": "uint8", **place}
        with rasterio.open(path, "w", **profile) as file:
            file.write(np.full((3, 64, 64), 100 + value, np.uint8))
    (tmp_path / labels).parent.mkdir()
    put_labels(tmp_path / labels)
    said = main(["data", "check", str(tmp_path), *(["--folders", "A,B,polygons"] if block == 0 else [])])
    assert said == 1 and "docs/pairs.md#labels-that-are-polygons shows" in capsys.readouterr().out
    page = (Path(__file__).parent.parent / "docs/pairs.md").read_text(encoding="utf-8")
    section = page.partition("### Labels that are polygons\n")[2].partition("\n### ")[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(re.findall(r"```python\n(.*?)```", section, re.DOTALL)[block], labels, "exec"), {})
    expected = np.zeros((64, 64), np.uint8)
    expected[8:24, 8:40] = 255
    assert (np.asarray(Image.open(drawn)) == expected).all()
    assert main(["data", "check", str(tmp_path)]) == 0
    assert resolve_decoding(PairFolder(tmp_path)).load(PairFolder(tmp_path).pairs()[0]).label.sum() == 16 * 32


def test_tables_with_a_header_of_any_words_are_lists(tmp_path):
    put_names(tmp_path, ("2019", "2021", "gt"), ["x", "y", "z"])
    for split, stems in {"train": "xy", "valid": "z"}.items():
        lines = (f"2019/{stem}.png;2021/{stem}.png;gt/{stem}.png" for stem in stems)
        (tmp_path / f"{split}.csv").write_text("\r\n".join(["Image_T1;Image_T2;Mask", *lines]))
    read_right(tmp_path, {"train": ["x", "y"], "val": ["z"]})
    (tmp_path / "valid.csv").write_text("w.png;w.png\nz.png;z.png\n")  # no header: it names a file that is missing
    assert "1 of its 2 names have no file" in str(check_pairs(PairFolder(tmp_path)).faults)


def test_years_within_stems(tmp_path):
    """HRSCD's files, and tiles of cities: each stem says the year of its folder."""
    for i in range(2):
        put_pair(
            tmp_path / "hrscd",
            f"images_2006/D14/14-2005-03{i}0-6890-LA93-0M50-E080.tif",
            f"images_2012/D14/14-2012-03{i}0-6890-LA93-0M50-E080.tif",
            f"labels_change/D14/14-2005-03{i}0-6890-LA93-0M50-E080.tif",
        )
        for year in (2006, 2012):
            put(tmp_path / "hrscd" / f"labels_land_cover_{year}" / "D14" / f"14-{year}-03{i}0.tif", OTHER)
        put_pair(tmp_path / "tiles", f"2016/austin_2016_{i}.png", f"2018/austin_2018_{i}.png", f"change/austin_{i}.png")
    check_right(tmp_path / "hrscd", ["14-0300-6890-LA93-0M50-E080", "14-0310-6890-LA93-0M50-E080"])
    check_right(tmp_path / "tiles", ["austin_0", "austin_1"])


def check_right(root, stems):
    folder = resolve_decoding(PairFolder(root))
    assert [pair.stem for pair in folder.pairs()] == stems
    for pair in folder.pairs():
        loaded = folder.load(pair)
        assert (loaded.before == BEFORE).all() and (loaded.after == AFTER).all() and loaded.label.mean() == 0.5


def test_masks_of_both_dates_next_to_labels_are_not_taken_for_images(tmp_path, capsys):
    put_names(tmp_path, ("Image1", "Image2", "label"), ["x", "y"])
    for date, channel in (("label1", 2), ("label2", 0)):
        for stem in "xy":
            (tmp_path / date).mkdir(exist_ok=True)
            pixels = np.zeros((8, 8, 3), np.uint8)
            pixels[:, :4, channel] = 255
            Image.fromarray(pixels).save(tmp_path / date / f"{stem}.png")
    command = ["data", "check", str(tmp_path)]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "--folders Image1,Image2,label1" in text and "images after" not in text


def test_masks_next_to_images_of_a_split(tmp_path, capsys):
    for stem in "xy":
        put_pair(tmp_path / "train_images", f"{stem}_before.png", f"{stem}_after.png")
        put(tmp_path / "train_masks" / f"{stem}_mask.png", LABEL)
    assert main(["data", "check", str(tmp_path)]) == 1
    command = f"mv {tmp_path / 'train_masks'} {tmp_path / 'train_images' / 'label'}"
    assert f"`{command}`" in capsys.readouterr().out
    subprocess.run(command.split(), check=True)
    assert main(["data", "check", str(tmp_path)]) == 0
    assert all(pair.label for pair in PairFolder(tmp_path).pairs())


def test_splits_of_other_names_are_renamed_by_the_printed_command(tmp_path, capsys):
    for split in ("train_512", "val_512"):
        put_names(tmp_path / split, ("t1", "t2", "mask"), ["x", "y"])
    assert main(["data", "check", str(tmp_path)]) == 0
    command = f"mv {tmp_path / 'train_512'} {tmp_path / 'train'}"
    assert f"`{command}` renames train_512" in capsys.readouterr().out
    subprocess.run(command.split(), check=True)
    assert main(["data", "check", str(tmp_path)]) == 0
    assert "is called train" not in capsys.readouterr().out
    assert PairFolder(tmp_path).splits == ("train", "val_512")


def test_folders_without_labels_name_the_check(tmp_path, capsys):
    put_names(tmp_path, ("A", "B"), ["x"])
    assert main(["data", "stats", str(tmp_path)]) == 1
    assert f"`bitemporal data check {tmp_path}`" in capsys.readouterr().err


def test_folders_of_sentinel_2_are_cut_into_pairs(tmp_path, capsys):
    rasterio = pytest.importorskip("rasterio")
    for date, year in enumerate((2022, 2020)):  # the later one comes first by name
        name = f"S2{'AB'[date]}_MSIL2A_{year}0101T100000_N0400_R022_T32TQM_{year}0101T120000.SAFE"
        for bands, size, pixel in ((("B02", "B03", "B04", "TCI"), 10, 256), (("B02", "B05"), 20, 128)):
            for band in bands:
                path = tmp_path / name / "GRANULE" / "L2A" / "IMG_DATA" / f"R{size}m" / f"T32TQM_{band}_{size}m.jp2"
                path.parent.mkdir(parents=True, exist_ok=True)
                profile = {"driver": "JP2OpenJPEG", "height": pixel, "width": pixel, "count": 1, "dtype": "uint16"}
                place = {"crs": "EPSG:32632", "transform": rasterio.Affine(size, 0, 5e5, 0, -size, 5e6)}
                with rasterio.open(path, "w", QUALITY="100", REVERSIBLE="YES", **profile, **place) as file:
                    file.write(np.full((1, pixel, pixel), 1000 + 100 * (year - 2020), np.uint16))
    assert main(["data", "check", str(tmp_path)]) == 1
    text = capsys.readouterr().err
    follow_commands(text)
    folder = PairFolder(tmp_path.with_name(f"{tmp_path.name}-pairs"), bands=(3, 2, 1), image_range=(0, 5100))
    (pair,) = folder.pairs()
    assert (folder.load_image(pair.before) == 50).all()  # 1000 / 20
    assert (folder.load_image(pair.after) == 60).all()


def test_jpeg_2000_without_a_decoder_says_how_to_convert(tmp_path, monkeypatch):
    rasterio = pytest.importorskip("rasterio")
    Image.new("RGB", (8, 8)).save(tmp_path / "x.jp2")
    monkeypatch.setattr(rasterio.Env, "drivers", lambda settings: {"GTiff": "rw"})
    from bitemporal.scenes.sources import open_raster

    for read in (decode, lambda path: open_raster(str(path))):
        with pytest.raises(DataError, match="JPEG 2000, which the installed rasterio was built without") as error:
            read(tmp_path / "x.jp2")
        follow_tools(str(error.value).partition("; or, ")[2])
        assert decode(tmp_path / "x.tif").size == (8, 8)
        (tmp_path / "x.tif").unlink()
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(DataError, match=r"JPEG 2000, which cannot be read without rasterio; .*'bitemporal\[geo\]'"):
        decode(tmp_path / "x.jp2")


def test_other_bands_are_refused_because_bands_are_counted(tmp_path, capsys):
    for city in ("paris", "rio"):
        for date in (1, 2):
            put_bands(tmp_path / city / f"imgs_{date}", date=date)
    (tmp_path / "rio" / "imgs_2" / "B04.tif").unlink()
    words = "imgs_2: holds the bands B02, B8A, B12, expected B02, B04, B8A, B12 as in "
    with pytest.raises(DataError, match=words):
        PairFolder(tmp_path)
    places = [str(tmp_path / "rio" / f"imgs_{date}") for date in (1, 2)]
    assert main(["data", "tiles", *places, "-o", str(tmp_path.with_name(f"{tmp_path.name}-out")), "--size", "4"]) == 1
    assert words in capsys.readouterr().err
    with pytest.raises(DataError, match=words):
        PairFolder(tmp_path / "rio")


def test_bands_of_several_sizes(tmp_path, capsys):
    for date in (1, 2):
        put_bands(tmp_path / "rio" / f"imgs_{date}", bands=("B02", "B04", "B08"), date=date)
        put_bands(tmp_path / "rio" / f"imgs_{date}", size=4, bands=("B05",), date=date)
    put(tmp_path / "rio" / "cm" / "cm.png", LABEL)
    command = ["data", "check", str(tmp_path), "--bands", "1,2,3,4", "--image-range", "0,12750"]
    assert main(command) == 1
    assert follow_options(capsys.readouterr().out, command) == [["--bands", "1,2,4"]]
    with pytest.raises(DataError, match="has no band 5, but 4"):
        check_pairs(PairFolder(tmp_path, bands=(5,))).raise_for_faults()


def test_files_named_like_bands_are_not_always_bands(tmp_path):
    put_names(tmp_path, ("A", "B", "label"), ["block_B02", "lawn_B03"], ".tif")  # of two scenes
    read_right(tmp_path, {"all": ["block_B02", "lawn_B03"]})
    put_names(tmp_path / "one", ("A", "B", "label"), ["x_b1", "x_b2"], ".tif")
    read_right(tmp_path / "one", {"all": ["x_b1", "x_b2"]})


def test_xbd_takes_the_labels_after_and_names_those_before(tmp_path):
    for i in range(2):
        put_pair(tmp_path, *(f"images/x_{i}_{date}_disaster.png" for date in ("pre", "post")))
        put(tmp_path / "targets" / f"x_{i}_post_disaster_target.png", LABEL)
        put(tmp_path / "targets" / f"x_{i}_pre_disaster_target.png", LABEL, changed=8)
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"x_{i}_post_disaster.json").write_text("{}")
    _, check = read_right(tmp_path, {"all": ["x_0", "x_1"]})
    assert any("x_0_pre_disaster_target.png" in warning for warning in check.warnings)
    assert any("labels: a folder without images" in warning for warning in check.warnings)


# ------------------------------------------------------------------------------------------------- names and suffixes


@pytest.mark.parametrize(
    ("before", "after", "label"),
    [
        ("t1", "t2", "mask"),
        ("T1", "T2", "Label"),
        ("time1", "time2", "labels"),
        ("Time_1", "Time_2", "gt"),
        ("im1", "im2", "cd"),
        ("image1", "image2", "change"),
        ("date1", "date2", "masks"),
        ("BEFORE", "AFTER", "Mask"),
        ("pre", "post", "OUT"),
        ("a", "b", "ground truth"),
        ("2012", "2016", "change_label"),
    ],
)
def test_names_of_folders(tmp_path, before, after, label):
    put_names(tmp_path, (before, after, label), ["x", "y"])
    folder, check = read_right(tmp_path, {"all": ["x", "y"]})
    assert folder.notes == (f"{before} = before, {after} = after, {label} = label",) and not check.warnings


@pytest.mark.parametrize(
    ("name", "split"),
    [("training", "train"), ("Train", "train"), ("valid", "val"), ("validation", "val"), ("Testing", "test")],
)
def test_names_of_splits(tmp_path, name, split):
    put_names(tmp_path / name, ("A", "B", "label"), ["x"])
    folder, _ = read_right(tmp_path, {split: ["x"]})
    assert folder.notes == (f"{name} = split {split}",)


def test_splits_of_other_names_are_splits(tmp_path, capsys):
    for name in ("train", "val", "test", "test_large", "holdout"):
        put_names(tmp_path / name, ("A", "B", "label"), [name])
    read_right(tmp_path, {name: [name] for name in ("train", "val", "test", "holdout", "test_large")})
    assert main(["data", "check", str(tmp_path)]) == 0
    assert "test_large" in capsys.readouterr().out


def test_two_names_of_one_split_stay_two_splits(tmp_path):
    for name in ("train", "val", "validation"):
        put_names(tmp_path / name, ("A", "B", "label"), [name])
    read_right(tmp_path, {"train": ["train"], "val": ["val"], "validation": ["validation"]})


@pytest.mark.parametrize("below", ["", "train/"])
def test_folders_option(tmp_path, below):
    put_names(tmp_path / below, ("march", "june", "truth"), ["x"])
    with pytest.raises(DataError, match="--folders"):
        PairFolder(tmp_path)
    split = "train" if below else "all"
    read_right(tmp_path, {split: ["x"]}, folders=("march", "june", "truth"))
    assert main(["data", "check", str(tmp_path), "--folders", "march,june,truth"]) == 0
    assert PairFolder(tmp_path, folders=("march", "june")).pairs()[0].label is None
    with pytest.raises(DataError, match="found no folders may and june, only"):
        PairFolder(tmp_path, folders=("may", "june"))
    with pytest.raises(OptionError, match="expected BEFORE,AFTER or BEFORE,AFTER,LABEL"):
        PairFolder(tmp_path, folders=("march",))


def test_two_folders_for_one_role_are_settled_by_an_option(tmp_path):
    put_names(tmp_path, ("t1", "t2", "mask"), ["x"])
    put_names(tmp_path, ("t1", "t2", "gt"), ["x"])
    with pytest.raises(DataError, match="gt and mask") as caught:
        PairFolder(tmp_path)

    def call(**options):
        check_pairs(PairFolder(tmp_path, **options)).raise_for_faults()

    assert follow_keywords(str(caught.value), call) == [{"folders": ("t1", "t2", "gt")}]
    assert follow_options(str(caught.value), ["data", "check", str(tmp_path)])
    put_names(tmp_path, ("im1", "im2", "gt"), ["x"])
    with pytest.raises(DataError, match=r"found t1,t2 and im1,im2|found im1,im2 and t1,t2") as caught:
        PairFolder(tmp_path)
    assert follow_options(str(caught.value), ["data", "check", str(tmp_path)])


@pytest.mark.parametrize(
    ("before", "after", "label"),
    [
        ("x{}_pre_disaster", "x{}_post_disaster", "x{}_pre_disaster_target"),
        ("x{}_1", "x{}_2", "x{}_label"),
        ("x{}_A", "x{}_B", "x{}_mask"),
        ("x{}-before", "x{}-after", "x{}-gt"),
        ("x{}_t1", "x{}_t2", "x{}_change"),
        ("x{}_pre", "x{}_post", "x{}_building_damage"),
    ],
)
@pytest.mark.parametrize(
    "folders", [("A", "B", "label"), ("images", "images", "masks"), (".", ".", "."), (".", ".", "labels")]
)
def test_suffixes_are_found(tmp_path, before, after, label, folders):
    for i in range(3):
        put_pair(
            tmp_path, *(f"{f}/{name.format(i)}.png" for f, name in zip(folders, (before, after, label), strict=True))
        )
    folder, check = read_right(tmp_path, {"all": ["x0", "x1", "x2"]})
    (note,) = [note for note in folder.notes if "by suffix" in note]
    assert before.format("")[1:] in note and after.format("")[1:] in note and not check.warnings


@pytest.mark.parametrize(
    ("before", "after", "label"),
    [
        ("x{}_pre_disaster_{}", "x{}_post_disaster_{}", "x{}_post_disaster_{}"),
        ("x{}_pre_disaster_{}", "x{}_post_disaster_{}", "x{}_post_disaster_target_{}"),
        ("x{}_pre_disaster_{}", "x{}_post_disaster_{}", "x{}_post_disaster_{}_target"),
        ("x{}-t1-{}", "x{}-t2-{}", "x{}-{}"),
        ("x{}_before_{}", "x{}_after_{}", "x{}_mask_{}"),
    ],
)
@pytest.mark.parametrize("folders", [("A", "B", "label"), ("images", "images", "masks"), (".", ".", "labels")])
def test_suffixes_before_the_numbers_of_tiles(tmp_path, before, after, label, folders):
    """As xBD is cut into tiles: x_pre_disaster_0_1.png."""
    tiles = [(i, f"{row}_{column}") for i in range(2) for row in range(2) for column in range(2)]
    for tile in tiles:
        names = (name.format(*tile) for name in (before, after, label))
        put_pair(tmp_path, *(f"{folder}/{name}.png" for folder, name in zip(folders, names, strict=True)))
    mark = "-" if "-" in before else "_"
    expected = {"all": [f"x{i}{mark}{tile}" for i, tile in tiles]}
    folder, check = read_right(tmp_path, expected)
    assert any("before the numbers of tiles" in note for note in folder.notes) and not check.warnings
    ends = tuple(name.format("", "").rstrip("_-")[1:] for name in (before, after))
    read_right(tmp_path, expected, suffixes=ends)


def test_single_letters_and_digits_are_no_suffixes_before_the_numbers_of_tiles(tmp_path):
    for name in ("x_1_0", "x_2_0", "x_1_1", "x_2_1"):  # rows 1 and 2 of one image
        put(tmp_path / f"{name}.png", OTHER)
    with pytest.raises(DataError, match="do not say which are before"):
        PairFolder(tmp_path)


def test_suffixes_of_any_name_are_found_where_two_folders_differ_by_them(tmp_path):
    for i in range(3):
        put_pair(tmp_path, f"A/x{i}_2016-05.png", f"B/x{i}_2019-07.png", f"label/x{i}.png")
    read_right(tmp_path, {"all": ["x0", "x1", "x2"]})


def test_suffixes_option(tmp_path):
    for i in range(2):
        put_pair(tmp_path, f"x{i}-may.png", f"x{i}-june.png", f"x{i}-m.png")
    with pytest.raises(DataError, match="--suffixes"):
        PairFolder(tmp_path)
    read_right(tmp_path, {"all": ["x0", "x1"]}, suffixes=("-may", "-june", "-m"))
    assert main(["data", "check", str(tmp_path), "--suffixes=-may,-june,-m"]) == 0
    with pytest.raises(OptionError, match="expected BEFORE,AFTER or BEFORE,AFTER,LABEL"):
        PairFolder(tmp_path, suffixes=("-may", "-may"))
    for i in range(2):
        put_pair(tmp_path / "in", f"tiles/x{i}-may.png", f"tiles/x{i}-june.png", f"damage/x{i}.png")
    options = {"folders": ("tiles", "tiles", "damage"), "suffixes": ("-may", "-june", "")}
    read_right(tmp_path / "in", {"all": ["x0", "x1"]}, **options)
    command = ["data", "check", str(tmp_path / "in"), "--folders", "tiles,tiles,damage", "--suffixes=-may,-june,"]
    assert main(command) == 0


def test_suffixes_are_not_invented(tmp_path):
    put_pair(tmp_path, "A/kyoto.png", "B/osaka.png")
    put_pair(tmp_path, "A/nara.png", "B/tokyo.png")
    assert len(check_pairs(PairFolder(tmp_path)).faults) == 4
    put_names(tmp_path / "same", ("A", "B", "label"), ["x_1", "x_2"])
    read_right(tmp_path / "same", {"all": ["x_1", "x_2"]})


def test_a_missing_partner_is_a_fault_among_suffixes_too(tmp_path):
    for i in range(3):
        put_pair(tmp_path, f"A/x{i}_pre.png", f"B/x{i}_post.png", f"label/x{i}_target.png")
    (tmp_path / "B" / "x1_post.png").unlink()
    check = check_pairs(PairFolder(tmp_path))
    assert {fault.path.name for fault in check.faults} == {"x1_pre.png", "x1_target.png"}


# --------------------------------------------------------------------------------------------------------------- lists


@pytest.mark.parametrize("place", ["list", "splits", "lists", "."])
@pytest.mark.parametrize("names", ["{}.png", "{}", "A/{}.png", "A/{}.png B/{}.png label/{}.png", "{}.jpg\t1"])
def test_lists_are_splits(tmp_path, place, names):
    put_names(tmp_path, ("A", "B", "label"), [f"x {i}" if " " not in names else f"x{i}" for i in range(6)])
    stems = sorted(path.stem for path in (tmp_path / "A").iterdir())
    (tmp_path / place).mkdir(exist_ok=True)
    for split, own in (("train", stems[:3]), ("val", stems[3:4]), ("test", stems[4:])):
        lines = [names.replace("{}", stem) for stem in own]
        (tmp_path / place / f"{split}.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(lines).encode() + b"\r\n\n")
    folder, check = read_right(tmp_path, {"train": stems[:3], "val": stems[3:4], "test": stems[4:]})
    assert not check.warnings and "train.txt" in folder.notes[-1]


def test_lists_of_other_names(tmp_path):
    put_names(tmp_path, ("A", "B", "label"), ["a", "b", "c"])
    for name, stem in (("train_list", "a"), ("Validation", "b"), ("test_set", "c")):
        (tmp_path / f"{name}.txt").write_text(f"{stem}\n")
    read_right(tmp_path, {"train": ["a"], "val": ["b"], "test": ["c"]})


def test_lists_of_stems_without_their_suffixes(tmp_path):
    for stem in ("a", "b"):
        put_pair(
            tmp_path,
            f"pre-event/{stem}_pre_disaster.tif",
            f"post-event/{stem}_post_disaster.tif",
            f"target/{stem}_building_damage.tif",
        )
    (tmp_path / "train.txt").write_text("a_pre_disaster.tif\n")
    (tmp_path / "val.txt").write_text("b\n")
    read_right(tmp_path, {"train": ["a"], "val": ["b"]})


def test_faults_of_lists(tmp_path, capsys):
    put_names(tmp_path, ("A", "B", "label"), ["a", "b", "c", "d"])
    (tmp_path / "list").mkdir()
    for split, text in (("train", "a\na\ngone.png\nb\n"), ("val", "b\nc\n"), ("demo", "a\n")):
        (tmp_path / "list" / f"{split}.txt").write_text(text)
    assert main(["data", "check", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    for words in (
        "list/train.txt: 1 of its 4 names have no file, such as gone.png",
        "list/val.txt: 1 of its names for val are in train.txt too, such as b",
        "names 1 pair(s) more than once, such as a",
        "1 pair(s) are in no list and left out, such as d",
        "demo.txt not used",
    ):
        assert words in out, out
    (tmp_path / "list" / "val.txt").write_text("nothing\nof this\n")
    faults = check_pairs(PairFolder(tmp_path)).faults
    assert any("none of its 2 lines names a pair" in fault.what for fault in faults)
    with pytest.raises(DataError):
        check_pairs(PairFolder(tmp_path)).raise_for_faults()


@pytest.mark.parametrize("stated", [False, True])
def test_splits_of_a_run_can_be_used_again(tmp_path, stated):
    put_names(tmp_path / "train", ("A", "B", "label"), ["a", "b", "c"])
    put_names(tmp_path / "test", ("A", "B", "label"), ["a"])
    table = tmp_path / ("mine.csv" if stated else "splits.csv")
    rows = [("train", "a"), ("val", "b"), ("train", "c"), ("test", "a")]
    write_split(table, [PartitionRow(split, stem, 0.5, "large") for split, stem in rows])
    expected = {"train": ["a", "c"], "val": ["b"], "test": ["a"]}
    folder, _ = read_right(tmp_path, expected, splits=str(table) if stated else None)
    assert folder.pairs("test")[0].before == tmp_path / "test" / "A" / "a.png"
    assert folder.pairs("val")[0].before == tmp_path / "train" / "A" / "b.png"
    options = ["--splits", str(table)] if stated else []
    assert main(["data", "check", str(tmp_path), *options]) == 0


def test_a_table_of_splits_with_other_columns_or_none(tmp_path):
    put_names(tmp_path, ("A", "B", "label"), ["a", "b"])
    table = tmp_path / "own.csv"
    table.write_text("Split;Stem\nTraining;a\nval;b.png\n")
    read_right(tmp_path, {"train": ["a"], "val": ["b"]}, splits=str(table))
    table.write_text("name,part\na,train\n")
    with pytest.raises(DataError, match=r"found the columns name, part, expected split and stem"):
        PairFolder(tmp_path, splits=str(table))
    with pytest.raises(DataError, match="no such file"):
        PairFolder(tmp_path, splits=str(tmp_path / "none.csv"))


def test_lists_beside_split_folders_are_named_and_can_decide(tmp_path, capsys):
    put_names(tmp_path / "train", ("A", "B", "label"), ["a", "b"])
    put_names(tmp_path / "test", ("A", "B", "label"), ["c"])
    (tmp_path / "list").mkdir()
    for split, text in (("train", "a"), ("val", "b"), ("test", "c")):
        (tmp_path / "list" / f"{split}.txt").write_text(text)
    command = ["data", "check", str(tmp_path)]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "test.txt, train.txt, val.txt not used" in out
    assert follow_options(out, command) == [["--splits", str(tmp_path / "list")]]
    read_right(tmp_path, {"train": ["a"], "val": ["b"], "test": ["c"]}, splits=str(tmp_path / "list"))


# ------------------------------------------------------------------------------------------------------------ not used


def test_everything_that_is_not_used_is_named(tmp_path, capsys):
    for place in (tmp_path / "single", tmp_path / "set" / "train", tmp_path / "set" / "test"):
        put_names(place, ("A", "B", "label"), ["x"])
        put(place / "edges" / "x.png", LABEL)
        put(place / "loose.png", OTHER)
        (place / "old.zip").write_bytes(b"")
        (place / "classes.txt").write_text("x")
        (place / "empty").mkdir()
    for root in (tmp_path / "single", tmp_path / "set"):
        assert main(["data", "check", str(root)]) == 0
        out = capsys.readouterr().out
        assert "no faults" in out
        for name in ("edges", "loose.png", "old.zip", "classes.txt", "empty"):
            assert name in out, out
    put(tmp_path / "set" / "top.png", OTHER)
    put_names(tmp_path / "single" / "validation 2", ("A", "B", "label"), ["x"])
    assert main(["data", "check", str(tmp_path / "set")]) == 0
    assert "top.png" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path / "single")]) == 0
    out = capsys.readouterr().out
    assert "validation 2: holds pairs of its own" in out
    assert follow_commands(out)
    assert follow_options(out, ["data", "check", str(tmp_path / "single")]) == [["--folders", "A,B,edges"]]


def test_litter_and_papers_are_not_named(tmp_path):
    put_names(tmp_path, ("A", "B", "label"), ["x"])
    for name in (".DS_Store", "Thumbs.db", "README.md", "LICENSE", "source.json", "synthetic.json"):
        (tmp_path / name).write_text("x")
    for name in ("__MACOSX", "@eaDir", "System Volume Information", "A/@eaDir", "A/.ipynb_checkpoints"):
        (tmp_path / name).mkdir()
    folder = PairFolder(tmp_path)
    assert not check_pairs(folder).warnings
    assert folder.notes == ("LICENSE, README.md ignored, as read-me, licence or similar",)


def test_a_folder_around_the_data_is_looked_through(tmp_path, capsys):
    put_names(tmp_path / "LEVIR" / "train", ("A", "B", "label"), ["x"])
    (tmp_path / "docs").mkdir()
    _, check = read_right(tmp_path, {"train": ["x"]})
    assert any("docs" in warning for warning in check.warnings)
    assert main(["data", "check", str(tmp_path)]) == 0
    assert f"layout: pairs found in {tmp_path / 'LEVIR'}" in capsys.readouterr().out


@pytest.mark.parametrize("split", ["", "train"])
def test_a_folder_that_may_not_be_listed_and_is_not_needed_is_named(tmp_path, monkeypatch, split):
    put_names(tmp_path / split, ("A", "B", "label"), ["x"])
    (tmp_path / "lost+found").mkdir()
    scandir = os.scandir

    def denied(path):  # modes do not hold for the administrator, who may run the tests
        if Path(path).name == "lost+found":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    _, check = read_right(tmp_path, {split or "all": ["x"]})
    assert any("lost+found" in warning for warning in check.warnings)


def test_folders_below_those_of_dates_are_read_together(tmp_path):
    for city in ("osaka", "kyoto"):
        put_names(tmp_path, (f"A/{city}", f"B/{city}", f"label/{city}"), [f"{city}_1"])
    read_right(tmp_path, {"all": ["kyoto_1", "osaka_1"]})
    put_names(tmp_path, ("A/nara", "B/nara", "label/nara"), ["osaka_1"])
    faults = check_pairs(PairFolder(tmp_path)).faults
    assert {fault.kind for fault in faults} == {"duplicate"} and len(faults) == 3


def test_images_without_any_order(tmp_path):
    for i in range(3):
        put(tmp_path / f"{i}.png", OTHER)
    with pytest.raises(DataError, match="found 3 images whose names do not say which"):
        PairFolder(tmp_path)


def test_a_run_takes_the_splits_of_lists_and_says_what_it_leaves(tmp_path, capsys):
    data, run = tmp_path / "data", tmp_path / "run"
    put_names(data, ("t1", "t2", "mask"), ["a", "b", "c", "d", "e"])
    (data / "list").mkdir()
    for split, names in {"train": "a\nb\n", "val": "c\n", "test": "d\n"}.items():
        (data / "list" / f"{split}.txt").write_text(names)
    (data / "edges").mkdir()
    steps = ["--max-steps", "1", "--batch-size", "2", "--crop-size", "16", "--workers", "0"]
    assert main(["train", "--model", "test_fc", "--data", str(data), "--out", str(run), *steps]) == 0
    out = capsys.readouterr().err
    assert "layout: t1 = before, t2 = after, mask = label" in out and "layout: splits by list/test.txt" in out
    assert "edges" in out and "1 pair(s) are in no list and left out, such as e" in out
    assert {(row.split, row.stem) for row in read_partition(run / "partition.csv")} == {
        ("train", "a"),
        ("train", "b"),
        ("val", "c"),
        ("test", "d"),
    }


def test_a_run_leaves_splits_of_other_names_alone(tmp_path, capsys):
    data = tmp_path / "data"
    for name in ("train", "val", "test_large"):
        put_names(data / name, ("A", "B", "label"), ["a", "b"])
    (data / "test_large" / "label" / "a.png").unlink()
    steps = ["--max-steps", "1", "--batch-size", "2", "--crop-size", "16", "--workers", "0"]
    assert main(["train", "--model", "test_fc", "--data", str(data), "--out", str(tmp_path / "run"), *steps]) == 0
    assert "split test_large: 2 pairs, not used" in capsys.readouterr().err
    rows = read_partition(tmp_path / "run" / "partition.csv")
    assert {row.split for row in rows} == {"train", "val"}


def test_folders_without_a_split_to_learn_from(tmp_path, capsys):
    data = tmp_path / "data"
    for name in ("osaka", "kyoto"):
        put_names(data / name, ("A", "B", "label"), [name])
    assert main(["train", "--model", "test_fc", "--data", str(data), "--out", str(tmp_path / "run")]) == 1
    assert "expected a split train to learn from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "after", "label"),
    [
        ("T1_img", "T2_img", "GT_CD"),
        ("imgA", "imgB", "change_masks"),
        ("image_A", "image_B", "label_cd"),
        ("before_images", "after_images", "Change Map"),
        ("pre-img", "post-img", "binary_mask"),
        ("old", "new", "diff"),
    ],
)
def test_words_for_images_around_those_for_dates(tmp_path, before, after, label):
    put_names(tmp_path, (before, after, label), ["x", "y"])
    read_right(tmp_path, {"all": ["x", "y"]})


def test_masks_of_something_else_are_no_labels_by_themselves(tmp_path):
    put_names(tmp_path, ("A", "B", "building mask"), ["x"])
    put(tmp_path / "maps" / "x.png", OTHER)
    assert PairFolder(tmp_path).pairs()[0].label is None


def test_names_of_dates_that_nobody_knows(tmp_path, capsys):
    """The masks are told by what they hold; which date is first is left to the user."""
    for name, kind in (("gamma", BEFORE), ("beta", AFTER), ("alpha", LABEL)):
        put(tmp_path / name / "x.png", kind)
    command = ["data", "check", str(tmp_path)]
    assert main(command) == 1
    text = capsys.readouterr().err
    assert "that of the images before first" in text
    assert follow_options(text, command) == [["--folders", "beta,gamma,alpha"]]


@pytest.mark.parametrize("part", ["A", "label"])
def test_a_part_of_the_pairs_names_the_folder_around(tmp_path, part):
    put_names(tmp_path, ("A", "B", "label"), ["x", "y"])
    with pytest.raises(DataError, match=rf"{part} is a part of the pairs in {tmp_path}: name that folder"):
        PairFolder(tmp_path / part)


def test_a_third_date_is_not_proposed_as_labels(tmp_path, capsys):
    put_names(tmp_path, ("t1", "t2", "mask"), ["x"])
    put(tmp_path / "t3" / "x.png", OTHER)
    assert main(["data", "check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "t3: a folder of 1 image(s) that is not used; if it holds images of another date" in out
    assert "--folders t1,t3" in out and "as labels" not in out


def test_other_dates_beside_those_that_are_read(tmp_path, capsys):
    """Two data sets in one folder: the other dates are no labels, and the remedy reads them."""
    put_names(tmp_path, ("A", "B", "label"), ["x"])
    for name in ("time1", "time2", "mask"):
        put(tmp_path / name / "x.png", LABEL if name == "mask" else OTHER)
    command = ["data", "check", str(tmp_path)]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert follow_options(text, command) == [["--folders", "time1,time2,mask"]]
    other = PairFolder(tmp_path, folders=("time1", "time2", "mask")).pairs()[0]
    assert other.before == tmp_path / "time1" / "x.png" and other.label == tmp_path / "mask" / "x.png"


def test_pictures_of_no_pair_are_not_proposed_as_labels(tmp_path, capsys):
    put_names(tmp_path, ("A", "B", "label"), ["x"])
    put(tmp_path / "figures" / "overview.png", OTHER)
    assert main(["data", "check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "figures: a folder of 1 image(s) that is not used; move it elsewhere" in out and "--folders" not in out


@pytest.mark.parametrize("label", ["imgs/label", "labels"])
def test_labels_within_the_folder_of_images_or_beside_it(tmp_path, label):
    put_names(tmp_path / "train", ("imgs/A", "imgs/B", label), ["x"])
    put_names(tmp_path / "val", ("imgs/A", "imgs/B", label), ["y"])
    read_right(tmp_path, {"train": ["x"], "val": ["y"]})


def test_folders_without_anything_to_read_say_what_there_is(tmp_path):
    put_names(tmp_path / "set" / "train", ("A", "B", "label"), ["x"])
    (tmp_path / "set" / "val").mkdir()
    with pytest.raises(DataError, match=r"val: is empty.*fill or remove it"):
        PairFolder(tmp_path / "set")
    (tmp_path / "packed").mkdir()
    for split in ("train", "val"):
        (tmp_path / "packed" / f"{split}.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"found the archives train\.zip, val\.zip.*unpack them"):
        PairFolder(tmp_path / "packed")


def test_labels_in_files_that_are_not_read_are_named(tmp_path):
    put_names(tmp_path, ("A", "B"), ["x", "y"])
    (tmp_path / "label").mkdir()
    for stem in "xy":
        np.save(tmp_path / "label" / f"{stem}.npy", np.zeros((8, 8)))
    (fault,) = check_pairs(PairFolder(tmp_path)).faults
    assert fault.kind == "unlabelled" and "x.npy, y.npy there are no images" in fault.remedy


def test_a_misspelt_folder_of_labels_is_named(tmp_path):
    put_names(tmp_path / "train", ("march", "june", "truth"), ("0", "1"))
    put_names(tmp_path / "test", ("march", "june"), ("2",))  # a split may have no labels
    with pytest.raises(DataError, match="no folder trut in") as error:
        PairFolder(tmp_path, folders=("march", "june", "trut"))
    follow_keywords(str(error.value), lambda **options: PairFolder(tmp_path, **options))


@pytest.mark.parametrize("folder", ["", "images"])
def test_a_pipe_among_images_without_pairs_is_not_opened(tmp_path, monkeypatch, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    os.mkfifo(tmp_path / folder / "a.png")
    monkeypatch.setattr(Image, "open", lambda path: pytest.fail(f"{path} would be waited for"))
    with pytest.raises(DataError):
        PairFolder(tmp_path)
