import json
import re
import weakref
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from bitemporal.cli.main import main
from bitemporal.imagery.decode import decode
from bitemporal.inference import load, predict_files, save_origin_partition
from bitemporal.inference.bundle import save_bundle
from bitemporal.method.car import CarPartition
from remedies import follow_options
from scene_files import LEFT, write_raster
from stub_networks import convolutional, images, pair_of_car, pointwise, register_stubs


@pytest.fixture
def bundles(tmp_path, monkeypatch):
    register_stubs(monkeypatch)
    save_bundle(tmp_path / "origin", pointwise())
    save_bundle(tmp_path / "small", convolutional(seed=30))
    return tmp_path


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


def contents(folder):
    return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def test_predict_writes_the_mask_of_two_images(bundles, capsys):
    before, after = pair_of_car(50, 17, 23)
    save(bundles / "a.png", before)
    save(bundles / "b.tif", after)
    target, chances = bundles / "new" / "mask.png", bundles / "chances.png"
    words = [str(bundles / "a.png"), str(bundles / "b.tif"), "--bundle", str(bundles / "origin"), "--device", "cpu"]
    for _ in range(2):  # an older mask is replaced
        assert main(["predict", *words, "-o", str(target), "--probability", str(chances)]) == 0
    assert str(target) in capsys.readouterr().out
    with Image.open(target) as mask, Image.open(chances) as probability:
        assert mask.format == probability.format == "PNG" and mask.mode == probability.mode == "L"
        found, chance = np.asarray(mask), np.asarray(probability)
    assert np.array_equal(found, np.where((after != before).all(-1), 255, 0))
    expected = load(bundles / "origin", "cpu").predict(before, after).probability
    assert abs(chance / 255 - expected).max() <= 0.5 / 255 + 1e-6
    assert [p.name for p in target.parent.iterdir()] == ["mask.png"]


def test_predict_of_folders_does_what_it_can_and_says_the_rest(bundles, capsys):
    cars = {"p1": 40, "p2": 0, "p3": 200, "p4": 10, "truncated": 5, "sizes": 5, "lonely": 5, "twice": 5}
    pairs = {stem: pair_of_car(c, 18, 22, seed=c) for c, stem in enumerate(cars, start=9)}
    for stem, (before, after) in pairs.items():
        save(bundles / "A" / f"{stem}.png", before)
        if stem != "lonely":
            save(bundles / "B" / f"{stem}.{'bmp' if stem == 'p3' else 'png'}", after)
    truncated = bundles / "B" / "truncated.png"
    truncated.write_bytes(truncated.read_bytes()[:-200])
    save(bundles / "B" / "sizes.png", pairs["sizes"][1][:-1])
    save(bundles / "A" / "twice.bmp", pairs["twice"][0])
    save(bundles / "A" / "p2.png", pairs["p2"][0][..., 0])
    (bundles / "A" / "notes.txt").write_text("no image")
    save(bundles / "B" / "gone.png", pairs["p1"][1])
    (bundles / "A" / "gone.png").symlink_to(bundles / "nowhere")
    inputs = contents(bundles / "A") | contents(bundles / "B")
    out = bundles / "masks"
    words = ["predict", str(bundles / "A"), str(bundles / "B"), "--bundle", str(bundles / "origin"), "-o", str(out)]
    assert main([*words, "--batch-size", "3", "--device", "cpu"]) == 1
    assert sorted(p.name for p in out.iterdir()) == ["p1.png", "p2.png", "p3.png", "p4.png"]
    detector = load(bundles / "origin", "cpu")
    for stem in ("p1", "p3", "p4"):
        expected = detector.predict(*pairs[stem]).mask
        assert np.array_equal(np.asarray(Image.open(out / f"{stem}.png")), expected * 255)
    errors = capsys.readouterr().err
    for word in ("truncated.png", "sizes", "lonely.png", "twice", "A/gone.png: is a broken link", "5 fault"):
        assert word in errors
    assert "notes.txt" not in errors and "p1" not in errors
    assert "p2.png: grey image" in errors
    assert contents(bundles / "A") | contents(bundles / "B") == inputs
    for path in bundles.glob("[AB]/*"):
        if path.stem not in ("p1", "p3", "p4"):
            path.unlink()
    assert main([*words, "--device", "cpu"]) == 0


def test_predict_needs_no_label_and_answers_pairs_of_different_sizes(bundles):
    for i, size in enumerate([(9, 12), (31, 18), (16, 16)]):
        for date in "AB":
            save(bundles / date / f"{i}.png", images(i, *size))
    save_origin_partition(bundles / "op", bundles / "origin", {"small": bundles / "small"}, CarPartition())
    words = [str(bundles / "A"), str(bundles / "B"), "--bundle", str(bundles / "op"), "-o", str(bundles / "out")]
    assert main(["predict", *words, "--device", "cpu"]) == 0
    assert {Image.open(p).size for p in (bundles / "out").iterdir()} == {(12, 9), (18, 31), (16, 16)}


@pytest.mark.parametrize(
    ("before", "after", "output", "extra", "word"),
    [
        ("A/x.png", "B/x.png", "A/x.png", [], "inputs"),
        ("A/x.png", "B/x.png", "B/../B/x.png", [], "inputs"),
        ("A/x.png", "B/x.png", "link.png", [], "inputs"),
        ("A/x.png", "B/x.png", "m.png", ["--probability", "B/x.png"], "inputs"),
        ("A/x.png", "B/x.png", "m.png", ["--probability", "m.png"], "probability"),
        ("A/x.png", "B/x.png", "m.jpg", [], ".png"),
        ("A/x.png", "B/x.png", "A", [], ".png"),
        ("A/x.png", "B/x.png", "m.png", ["--batch-size", "0"], "batch_size"),
        ("A/x.png", "B", "m.png", [], "a folder"),
        ("A/x.png", "B/y.png", "m.png", [], "B/y.png: no such file or folder (did you mean "),
        ("A", "B", "A", [], "inputs"),
        ("photographs", "B", "photographs", [], "never written to"),
        ("A", "B", "B", [], "inputs"),
        ("A", "B", "out", ["--probability", "A"], "inputs"),
        ("A", "B", "out", ["--probability", "out"], "probability"),
        ("A", "B", "A/x.png", [], "expected a folder"),
        ("A", "B", "label", [], "label/x.png exists and is not a mask by bitemporal"),
        ("A", "B", "out", ["--probability", "label"], "label/x.png exists"),
        ("A/x.png", "B/x.png", "label/x.png", [], "label/x.png exists"),
        ("A/x.png", "B/x.png", "notes.png", [], "notes.png exists"),
        ("A", "empty", "out", [], "no two images"),
        ("A/x.png", "B/x.png", "m.png", ["--image-range", "4000,0"], "image_range"),
        ("A/x.png", "B/x.png", "m.png", ["--image-range", "0,nan"], "image_range"),
        ("A/x.png", "B/x.png", "m.png", ["--device", "meta"], "device"),
    ],
)
def test_predict_refuses_before_it_writes(bundles, monkeypatch, capsys, before, after, output, extra, word):
    monkeypatch.chdir(bundles)
    for date in "AB":
        save(bundles / date / "x.png", images(ord(date), 16, 16))
    save(bundles / "photographs" / "x.jpg", images(0, 16, 16))  # a mask would become x.png next to it
    (bundles / "link.png").symlink_to(bundles / "A" / "x.png")
    (bundles / "empty").mkdir()
    save(bundles / "label" / "x.png", images(0, 16, 16)[..., 0])
    (bundles / "notes.png").write_text("no image")
    files = contents(bundles)
    words = ["predict", before, after, "--bundle", "origin", "-o", output, "--device", "cpu", *extra]
    assert main(words) == 1
    assert word in capsys.readouterr().err
    assert contents(bundles) == files


def test_predict_of_two_images_that_cannot_be_used(bundles, capsys):
    save(bundles / "a.png", images(0, 16, 16))
    save(bundles / "b.png", images(0, 16, 15))
    words = [str(bundles / "a.png"), str(bundles / "b.png"), "--bundle", str(bundles / "origin")]
    assert main(["predict", *words, "-o", str(bundles / "m.png"), "--device", "cpu"]) == 1
    message = capsys.readouterr().err
    assert "16 x 16" in message and "16 x 15" in message and "Traceback" not in message
    assert not (bundles / "m.png").exists()


def test_folders_whose_stems_differ_by_a_suffix_are_paired_as_in_training(bundles, capsys):
    pairs = {f"joplin_{i}": pair_of_car(40 + i, 18, 22, seed=i) for i in range(2)}
    for stem, (before, after) in pairs.items():
        save(bundles / "A" / f"{stem}_pre_disaster.png", before)
        save(bundles / "B" / f"{stem}_post_disaster.png", after)
    words = ["predict", str(bundles / "A"), str(bundles / "B"), "--bundle", str(bundles / "origin"), "--device", "cpu"]
    assert main([*words, "-o", str(bundles / "out")]) == 0
    assert "_pre_disaster before, _post_disaster after" in capsys.readouterr().err
    for stem, (before, after) in pairs.items():
        with Image.open(bundles / "out" / f"{stem}.png") as mask:
            assert np.array_equal(np.asarray(mask), np.where((after != before).all(-1), 255, 0))
    (bundles / "A" / "joplin_1_pre_disaster.png").rename(bundles / "A" / "joplin_1.png")
    assert main([*words, "-o", str(bundles / "some"), "--suffixes", "_pre_disaster,_post_disaster"]) == 1
    faults = capsys.readouterr().err
    assert "joplin_1.png: does not end in the suffix" in faults and "joplin_1_post_disaster.png: no image" in faults
    assert [path.name for path in (bundles / "some").iterdir()] == ["joplin_0.png"]
    two = ["predict", *(str(path) for path in (bundles / "B").iterdir()), *words[3:], "-o", str(bundles / "m.png")]
    assert main([*two, "--suffixes", "_a,_b"]) == 1
    assert "leave the option out" in capsys.readouterr().err


# --- another threshold


def test_a_threshold_makes_the_masks_and_is_noted_in_them(bundles, capsys):
    for stem in ("x", "y"):
        for folder, image in zip("AB", pair_of_car(40, 20, 30, seed=ord(stem)), strict=True):
            save(bundles / "pairs" / folder / f"{stem}.png", image)
            (bundles / "placed" / folder).mkdir(parents=True, exist_ok=True)
            write_raster(bundles / "placed" / folder / f"{stem}.tif", image.transpose(2, 0, 1))
        label = np.zeros((20, 30), np.uint8)
        label[:5] = 255
        save(bundles / "pairs" / "label" / f"{stem}.png", label)
    words = ["predict", *(str(bundles / "pairs" / name) for name in "AB"), "--bundle", str(bundles / "small")]
    words += ["--device", "cpu", "--json"]
    chances = {
        stem: load(bundles / "small", "cpu")
        .predict(*(bundles / "pairs" / name / f"{stem}.png" for name in "AB"))
        .probability
        for stem in "xy"
    }
    threshold = float(f"{np.median(chances['x']):.3g}")  # many pixels on either side
    assert main([*words, "--threshold", str(threshold), "-o", str(bundles / "out")]) == 0
    assert json.loads(capsys.readouterr().out)["threshold"] == threshold
    for stem, chance in chances.items():
        with Image.open(bundles / "out" / f"{stem}.png") as mask:
            assert np.array_equal(np.asarray(mask), np.where(chance > threshold, 255, 0))
            assert mask.info["THRESHOLD"] == str(threshold)
    assert main(["evaluate", str(bundles / "out"), str(bundles / "pairs"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["protocol"]["threshold"] == threshold
    typed = ["evaluate", str(bundles / "out"), str(bundles / "pairs"), "--threshold"]
    assert main([*typed, str(threshold)]) == 0
    capsys.readouterr()
    assert main([*typed, "0.9"]) == 1
    text = capsys.readouterr().err
    assert f"threshold: found 0.9, but the tags of {bundles / 'out'}" in text and f"made with {threshold}" in text
    assert follow_options(text, [*typed, "0.9"])
    capsys.readouterr()
    assert main([*words, "-o", str(bundles / "usual")]) == 0
    assert json.loads(capsys.readouterr().out)["threshold"] == 0.5
    (bundles / "usual" / "x.png").replace(bundles / "out" / "x.png")
    assert main(["evaluate", str(bundles / "out"), str(bundles / "pairs")]) == 1
    assert "several thresholds" in capsys.readouterr().err
    words[1:3] = [str(bundles / "placed" / name) for name in "AB"]
    assert main([*words, "--threshold", str(threshold), "-o", str(bundles / "map")]) == 0
    with rasterio.open(bundles / "map" / "x.tif") as mask:
        assert float(mask.tags()["THRESHOLD"]) == threshold
        assert np.array_equal(mask.read(1), chances["x"] > threshold)


@pytest.mark.parametrize("value", ["1", "-0.1", "1.5"])
def test_a_threshold_is_a_probability(bundles, value, capsys):
    words = ["predict", "a.png", "b.png", "--bundle", str(bundles / "small"), "-o", str(bundles / "m.png")]
    assert main([*words, f"--threshold={value}"]) == 1
    assert f"threshold: found {float(value):g}, expected a probability from 0 to below 1" in capsys.readouterr().err


# --- tiles that lie on the ground


@pytest.fixture
def tiles(bundles):
    """Two folders of GeoTIFFs, one with no data, and a PNG; and their images by stem."""
    contents = {}
    for number, stem in enumerate(("0", "1")):
        before, after = pair_of_car(60 * (number + 1), 20, 30, seed=number)
        if stem == "1":
            before[:5, :7] = 0
            after[9, 9] = 0
        for name, image in (("A", before), ("B", after)):
            (bundles / name).mkdir(exist_ok=True)
            options = {"left": LEFT + 15 * number, "nodata": 0} if stem == "1" else {}
            write_raster(bundles / name / f"{stem}.tif", image.transpose(2, 0, 1), **options)
        contents[stem] = before, after
    for name in ("A", "B"):
        save(bundles / name / "bare.png", contents["0"][0])
    return contents


def test_tiles_give_masks_in_their_place(bundles, tiles, capsys):
    words = ["predict", str(bundles / "A"), str(bundles / "B"), "--bundle", str(bundles / "origin")]
    words += ["-o", str(bundles / "out"), "--probability", str(bundles / "chances")]
    for _ in range(2):  # earlier masks are replaced
        assert main(words) == 0
    text = capsys.readouterr()
    assert "no georeference" not in text.out + text.err
    assert {path.name for path in (bundles / "out").iterdir()} == {"0.tif", "1.tif", "bare.png"}
    detector = load(bundles / "origin", "cpu")
    for stem, (before, after) in tiles.items():
        expected = detector.predict(before, after)
        missing = np.zeros((20, 30), bool)
        if stem == "1":
            missing = (before == 0).all(axis=2) | (after == 0).all(axis=2)
            assert missing.sum() == 36
        with (
            rasterio.open(bundles / "A" / f"{stem}.tif") as image,
            rasterio.open(bundles / "out" / f"{stem}.tif") as mask,
            rasterio.open(bundles / "chances" / f"{stem}.tif") as chances,
        ):
            for written in (mask, chances):
                assert (written.crs, written.transform, written.shape) == (image.crs, image.transform, image.shape)
            assert mask.nodata == 255
            assert np.array_equal(mask.read(1), np.where(missing, 255, expected.mask))
            assert np.array_equal(chances.read(1), np.where(missing, np.nan, expected.probability), equal_nan=True)


def test_tiles_in_different_places_and_files_of_others_stay_untouched(bundles, tiles, capsys):
    write_raster(bundles / "B" / "1.tif", tiles["1"][1].transpose(2, 0, 1), left=LEFT + 16)
    words = ["predict", str(bundles / "A"), str(bundles / "B"), "--bundle", str(bundles / "origin")]
    words += ["-o", str(bundles / "out")]
    assert main(words) == 1
    assert (
        "1.tif: and its image after cover different pixels on the ground, expected the same" in capsys.readouterr().err
    )
    assert {path.name for path in (bundles / "out").iterdir()} == {"0.tif", "bare.png"}
    write_raster(bundles / "out" / "0.tif", np.zeros((1, 3, 3), np.uint8))
    label = (bundles / "out" / "0.tif").read_bytes()
    assert main(words) == 1
    assert "0.tif exists and is not a mask by bitemporal" in capsys.readouterr().err
    assert (bundles / "out" / "0.tif").read_bytes() == label


def test_folders_whose_stems_are_spelt_differently(bundles, capsys):
    for number in range(3):
        for name, stem in (("A", f"{number}"), ("B", f"{number:03}")):
            (bundles / name).mkdir(exist_ok=True)
            save(bundles / name / f"{stem}.png", np.full((16, 16, 3), 90, np.uint8))
    words = [str(bundles / "A"), str(bundles / "B"), "--bundle", str(bundles / "origin"), "--device", "cpu"]
    assert main(["predict", *words, "-o", str(bundles / "out")]) == 0
    assert {path.name for path in (bundles / "out").iterdir()} == {"0.png", "1.png", "2.png"}
    assert "leading zeros" in capsys.readouterr().err


def test_one_fault_of_many_images_is_said_once(bundles, capsys):
    before, after = pair_of_car(50, 17, 23)
    for i in range(9):
        save(bundles / f"A/{i}.png", before)
        if i < 2:
            save(bundles / f"B/{i}.png", after)
        elif i < 7:
            save(bundles / f"B/{i}.png", after[:9])
    words = ["predict", str(bundles / "A"), str(bundles / "B"), "--bundle", str(bundles / "origin"), "--device", "cpu"]
    assert main([*words, "-o", str(bundles / "masks")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "7 fault(s), the images concerned were left out:"
    assert sum("before is " in line for line in lines) == 4  # three files, and the number of the others
    assert any(re.match(r"  and 2 more files: before is ", line) for line in lines)
    assert sum(line.startswith("    -> ") for line in lines) == 2
    assert main([*words, "-o", str(bundles / "again"), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["faults"]) == 7


def test_pixels_of_one_date_are_gone_before_the_other_is_decoded(bundles, monkeypatch):
    for name in ("a.png", "b.png"):
        save(bundles / name, np.full((20, 20, 3), 90, np.uint8))
    kept = []

    def watched(path, bands=None):
        assert not any(pixels() is not None for pixels in kept)
        decoded = decode(path, bands)
        kept.append(weakref.ref(decoded.pixels))
        return decoded

    monkeypatch.setattr("bitemporal.inference.folders.decode", watched)
    predict_files(load(bundles / "small", "cpu"), bundles / "a.png", bundles / "b.png", bundles / "m.png")
    assert len(kept) == 2
