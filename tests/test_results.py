"""Result files, protocols and comparisons, in Python and on the command line."""

import csv
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from rasterio.rio.main import main_group
from rich.console import Console

from bitemporal.cli.main import main
from bitemporal.errors import DataError, OptionError
from bitemporal.evaluation import (
    compare,
    comparison_tables,
    evaluate,
    evaluate_masks,
    program,
    read_result,
    verdict_sentence,
)
from bitemporal.inference import NetworkDetector, compose, predict_files
from bitemporal.inference.bundle import save_bundle
from bitemporal.inference.combining import SlidingWindow
from bitemporal.method.car import CarPartition
from bitemporal.metrics import metrics
from bitemporal.pairs import PairFolder
from scene_files import write_raster
from stub_networks import convolutional, pointwise

pytestmark = pytest.mark.usefixtures("stubs")


@pytest.fixture
def data(tmp_path):
    """Twelve pairs in ``val``: some rows brighten, and the label says nearly so."""
    random = np.random.default_rng(0)
    for i in range(12):
        before = random.integers(0, 60, (20, 24, 3), dtype=np.uint8)
        truth = np.zeros((20, 24), np.uint8)
        truth[: i + (i > 3)] = 255
        wrong = random.random(truth.shape) < 0.15
        after = (before + np.where(((truth > 0) ^ wrong)[..., None], 100, 0)).astype(np.uint8)
        for name, image in (("A", before), ("B", after), ("label", truth)):
            folder = tmp_path / "pairs" / "val" / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"p{i}.png")
    return tmp_path / "pairs"


def result_of(data, detector, name="d", seed=0):
    folder = PairFolder(data)
    result = evaluate(detector, folder, folder.pairs("val"))
    return replace(result, name=name, seed=seed, origin={"source": "here"})


def test_a_result_is_read_as_it_was_written(data, tmp_path):
    result = result_of(data, NetworkDetector(pointwise()))
    counts = result.write(tmp_path / "out" / "r.json")
    again = read_result(tmp_path / "out" / "r.json")
    assert (again.name, again.seed, again.protocol, again.origin) == ("d", 0, result.protocol, {"source": "here"})
    for field in ("counts", "cars", "boundary", "objects"):
        assert np.array_equal(getattr(again.evaluation, field), getattr(result.evaluation, field))
    assert np.array_equal(again.evaluation.probabilities.total, result.evaluation.probabilities.total)
    assert again.evaluation.stems == result.evaluation.stems and again.evaluation.parts == result.evaluation.parts
    with counts.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    fp, fn, tp = (sum(int(row[name]) for row in rows) for name in ("fp", "fn", "tp"))
    content = json.loads((tmp_path / "out" / "r.json").read_text())
    assert content["dataset"]["iou_changed"] == pytest.approx(tp / (tp + fp + fn))
    low, high = content["intervals"]["dataset"]["iou_changed"]
    assert low < tp / (tp + fp + fn) < high
    assert len(content["by_decile"]) == 10 and sum(group["pairs"] for group in content["by_decile"]) == 12
    assert set(content["protocol"]) >= {
        *("data", "split", "pairs_hash", "tile", "stride", "threshold", "augmentation", "metric_version"),
    }


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"tile": 256, "stride": 128}, r"tile size: none and 256; stride of the tiles: none and 128"),
        ({"threshold": 0.4}, "threshold: 0.5 and 0.4"),
        ({"augmentation": "flips"}, "test-time augmentation: none and flips"),
        ({"metric_version": 1}, "version of the metrics"),
        ({"pairs_hash": "x" * 64}, "pairs or their labels: pairs/val, 12 pairs"),
        ({"image_range": (0.0, 4000.0)}, "range of the image values"),
    ],
)
def test_results_of_different_protocols_are_not_compared(data, change, what):
    result = result_of(data, NetworkDetector(pointwise()))
    other = replace(result, name="other", protocol=replace(result.protocol, **change))
    with pytest.raises(DataError, match="d and other: were evaluated under different protocols .*" + what):
        compare([result, other])


def test_what_does_not_change_scores_may_differ(data):
    result = result_of(data, NetworkDetector(pointwise()))
    other = replace(result, name="other", protocol=replace(result.protocol, data="elsewhere", car_thresholds=(0.1,)))
    found = compare([result, other])
    assert found.differences["other"]["miou", "dataset"] == (0, 0, 0)


def test_seeds_of_one_name_are_replicates(data):
    detectors = [NetworkDetector(pointwise(bias=bias)) for bias in (-50.0, -40.0, -95.0)]
    results = [result_of(data, d, "a", seed) for seed, d in enumerate(detectors)]
    other = result_of(data, NetworkDetector(pointwise(bias=5.0)), "b")
    shuffled = replace(
        other,
        evaluation=replace(
            other.evaluation, stems=other.evaluation.stems[::-1], counts=other.evaluation.counts[::-1].copy()
        ),
    )
    found = compare([other, *results], baseline="a")
    assert found.names == ("a", "b") and found.replicates["a"].seeds == (0, 1, 2)
    expected = np.mean([metrics(r.evaluation.counts, "dataset")["miou"] for r in results])
    assert found.scores["a"]["miou", "dataset"].value == pytest.approx(expected)
    # pairs belong together by their stems, whatever their order
    again = compare([*results, shuffled]).differences["b"]
    assert again["miou", "dataset"] == found.differences["b"]["miou", "dataset"]
    unknown = [replace(result, seed=None) for result in (other, results[0])]
    assert compare(unknown).replicates["b"].seeds == (-1,)
    with pytest.raises(DataError, match="b, b: found 2 results named b with seeds unknown, unknown"):
        compare([unknown[0], unknown[0]])
    with pytest.raises(DataError, match="a, a: found 2 results named a with seeds 0, 0"):
        compare([results[0], results[0]])
    with pytest.raises(OptionError, match="baseline: found 'c', expected one of"):
        compare(results, "c")
    networks = [replace(result, origin={"model": f"net{i}"}) for i, result in enumerate(results[:2])]
    with pytest.raises(DataError, match="a: found results of net0 and net1 under one name"):
        compare(networks)


def test_two_results_never_share_a_file(data, tmp_path):
    result = result_of(data, NetworkDetector(pointwise()))
    files = {result.write(tmp_path / name) for name in ("lr0.1.json", "lr0.2.json", "lr.json")}
    assert len(files) == 3 and read_result(tmp_path / "lr0.1.json").name == "d"


def test_a_negative_seed_is_refused(data):
    with pytest.raises(OptionError, match="seed: found -7, expected 0 or more"):
        replace(result_of(data, NetworkDetector(pointwise())), seed=-7)


def test_tables_fit_a_terminal_and_name_every_number(data):
    results = [result_of(data, NetworkDetector(pointwise(bias=b)), n) for n, b in (("first", -50.0), ("second", -40.0))]
    console = Console(width=80, record=True, file=StringIO())
    for table in comparison_tables(compare(results)):
        console.print(table)
    shown = console.export_text()
    assert "…" not in shown
    for heading in ("miou, dataset", "miou, image_mean", "miou, image_mean_empty_0", "miou, dataset, small"):
        assert sum(line.strip() == heading for line in shown.splitlines()) == 1


def test_the_verdict_says_what_the_interval_says(data):
    good = result_of(data, NetworkDetector(pointwise()))
    bad = result_of(data, NetworkDetector(pointwise(scale=0.0, bias=-9.0)))
    named = {name: replace(result, name=name) for name, result in (("student", good), ("control", bad))}
    told = verdict_sentence(compare([named["control"], named["student"]]))
    assert told.startswith("On these pairs this student is better than its control, but one seed may be chance")
    swapped = [replace(named["student"], name="control"), replace(named["control"], name="student")]
    assert "this student is worse than its control" in verdict_sentence(compare(swapped))

    origin = [replace(named["control"], name="origin"), named["student"]]
    assert verdict_sentence(compare(origin)).endswith("no control was trained as long without teachers.")

    def three_seeds(results):
        return compare([replace(result, seed=seed) for result in results for seed in range(3)])

    told = verdict_sentence(three_seeds([named["control"], named["student"]]))
    assert told.startswith("Distillation helped: student minus control is +") and "3 seeds" in told
    assert verdict_sentence(three_seeds(swapped)).startswith("Distillation hurt: student minus control is -")
    mixed = compare([named["control"], *(replace(named["student"], seed=seed) for seed in range(3))])
    assert "one seed may be chance" in verdict_sentence(mixed)
    same = [replace(good, name="control"), replace(good, name="student")]
    assert verdict_sentence(compare(same)).startswith("No difference could be shown")
    assert verdict_sentence(compare([named["control"]])).startswith("No verdict on distillation")


def test_results_that_cannot_be_used_are_errors_in_words(data, tmp_path):
    path = tmp_path / "r.json"
    counts = result_of(data, NetworkDetector(pointwise())).write(path)
    whole, table = path.read_text(), counts.read_text()
    for text, message in (
        ("{", "cannot be read .it is not valid JSON"),
        ("[]", "format is 'list'"),
        ('{"format": 99}', "format is 99, .*format 2"),
        ('{"format": 2}', "lacks a part of a result"),
        (whole.replace('"threshold": 0.5,', "", 1), "protocol without threshold.*lacks a part of a result"),
        (whole.replace('"seed": 0', '"seed": "0"'), "seed '0'.*lacks a part of a result"),
        (whole.replace('"seed": 0', '"seed": -7'), "lacks a part of a result .*seed"),
        (whole.replace('"pairs": 12', '"pairs": "12"', 1), "pairs '12'.*lacks a part of a result"),
        (whole.replace('"confusions": {', '"confusions": null, "x": {'), "lacks a part of a result"),
        (whole.replace('"unchanged": [', '"unchanged": [1, '), "three times 100 numbers"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=f"{path}.*{message}"):
            read_result(path)
    path.write_text(whole)
    for text, message in (
        ("stem,tn\na,1\n", "it has no 'fp'.*expected the columns stem,"),
        (table.replace("p1,", "p1,x"), "expected the columns stem,"),
        (table.replace("p1,", "p2,"), "a stem that occurs twice"),
        ("\n".join(table.splitlines()[:-1]) + "\n", "is not the file that was written with .*expects 12 pairs"),
        (table.replace(",medium,", ",large,", 1), "is not the file that was written with"),
    ):
        counts.write_text(text)
        with pytest.raises(DataError, match=message):
            read_result(path)
    counts.unlink()
    with pytest.raises(DataError, match="no such file"):
        read_result(path)


def predict_without_tags(detector, data, masks):
    """Masks as another program writes them: without the threshold in their tags."""
    predict_files(detector, data / "val" / "A", data / "val" / "B", masks)
    for path in masks.iterdir():
        Image.fromarray(np.array(Image.open(path))).save(path)


def test_masks_of_another_program_are_scored_as_the_detector_is(data, tmp_path):
    detector, folder = NetworkDetector(pointwise()), PairFolder(data)
    predict_without_tags(detector, data, tmp_path / "masks")
    ours, theirs = (
        evaluate(detector, folder, folder.pairs("val")),
        evaluate_masks(tmp_path / "masks", folder, folder.pairs("val")),
    )
    assert ours.protocol == theirs.protocol
    ours, theirs = ours.evaluation, theirs.evaluation
    assert np.array_equal(ours.counts, theirs.counts) and np.array_equal(ours.objects, theirs.objects)
    assert theirs.probabilities is None
    named = tmp_path / "named"  # after the pairs, with something around all of them
    named.mkdir()
    for path in (tmp_path / "masks").iterdir():
        shutil.copy(path, named / f"pred_{path.stem}_v1.png")
    assert np.array_equal(evaluate_masks(named, folder, folder.pairs("val")).evaluation.counts, ours.counts)
    (tmp_path / "masks" / "p3.png").unlink()
    with pytest.raises(DataError, match=r"lacks masks of 1 labelled pair.*'p3'"):
        evaluate_masks(tmp_path / "masks", folder, folder.pairs("val"))
    Image.new("L", (3, 4)).save(tmp_path / "masks" / "p3.png")
    with pytest.raises(DataError, match=r"p3.png: is \(4, 3\), but its label \(20, 24\)"):
        evaluate_masks(tmp_path / "masks", folder, folder.pairs("val"))
    (tmp_path / "masks" / "p3.png").write_text("no image")
    with pytest.raises(DataError, match=r"p3.png: holds no image of a known format"):
        evaluate_masks(tmp_path / "masks", folder, folder.pairs("val"))


CHANGED = np.arange(480).reshape(20, 24) % 3 == 0
"""A mask that no other turned or inverted one equals."""


def indexed(mask, *colours):
    image = Image.frombytes("P", mask.shape[::-1], mask.astype(np.uint8).tobytes())
    image.putpalette([channel for colour in colours for channel in colour])
    return image


def banded(mode, *bands):
    images = [Image.fromarray(np.broadcast_to(band, CHANGED.shape).astype(np.uint8)) for band in bands]
    return Image.merge(mode, images)


@pytest.fixture
def scored(tmp_path):
    """Confusion counts of one mask image against ``CHANGED``."""
    for name, image in (("A", np.zeros((20, 24, 3))), ("B", np.zeros((20, 24, 3))), ("label", 255 * CHANGED)):
        (tmp_path / "one" / name).mkdir(parents=True)
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / "one" / name / "p.png")
    (tmp_path / "masks").mkdir()
    folder = PairFolder(tmp_path / "one")

    def score(image, suffix="png"):
        image.save(tmp_path / "masks" / f"p.{suffix}")
        return evaluate_masks(tmp_path / "masks", folder, folder.pairs()).evaluation.counts.tolist()

    return score


BLACK, WHITE, RED, BLUE = (0, 0, 0), (255, 255, 255), (128, 0, 0), (0, 0, 255)


@pytest.mark.parametrize(
    ("image", "suffix"),
    [
        (Image.fromarray(CHANGED), "png"),
        (Image.fromarray(CHANGED.astype(np.uint8)), "png"),
        (Image.fromarray(CHANGED.astype(np.uint16) << 8), "png"),
        (Image.fromarray(CHANGED * np.float32(0.9)), "tif"),
        (Image.fromarray(CHANGED * np.float32(-1)), "tif"),
        (indexed(CHANGED, BLACK, WHITE), "png"),
        (indexed(CHANGED, BLACK, BLACK), "png"),
        (indexed(CHANGED, BLUE, RED), "png"),
        (indexed(2 * CHANGED, BLACK, BLUE, (0, 0, 1)), "png"),
        (banded("RGB", 0, 0, CHANGED), "png"),
        (banded("RGBA", 0, CHANGED, 0, 255), "png"),
        (banded("RGBA", 255 * CHANGED, 0, 0, 100 * CHANGED), "png"),
        (banded("LA", CHANGED, 255), "png"),
        (banded("RGB", *3 * [255 * CHANGED]), "png"),
    ],
)
def test_masks_are_what_their_samples_say(scored, image, suffix):
    assert scored(image, suffix) == [[320, 0, 0, 160]]


@pytest.mark.parametrize(
    ("image", "suffix", "words"),
    [
        (banded("RGBA", 0, 0, 0, 255 * CHANGED), "png", "transparency and colours"),
        (banded("LA", 255, 255 * CHANGED), "png", "transparency and colours"),
        (indexed(CHANGED, WHITE, BLACK), "png", "palette image in which 0 is drawn white"),
        (indexed(np.zeros_like(CHANGED), WHITE), "png", "palette image in which 0 is drawn white"),
        (banded("CMYK", 0, 0, 0, 255 * CHANGED), "tif", "is a CMYK image"),
        (Image.fromarray(np.where(CHANGED, np.float32("nan"), np.float32(0))), "tif", "holds NaN"),
        (Image.fromarray(255 * CHANGED.astype(np.uint8)), "jpg", "values, as JPEG, JPEG 2000 and WebP compression"),
        (Image.fromarray(np.where(CHANGED, 200, 40).astype(np.uint8)), "png", "values from 40 to 200, as prob"),
        (Image.fromarray((CHANGED * np.arange(24)).astype(np.uint8)), "png", "values from 3 to 21 and 0, as prob"),
        (Image.fromarray(CHANGED * np.linspace(0.5, 1, 24, dtype=np.float32)), "tif", "and 0, as prob"),
        (banded("RGB", *3 * [CHANGED * np.arange(24)]), "png", "values from 3 to 21 and 0, as prob"),
    ],
)
def test_masks_that_could_mean_two_things_are_refused(scored, image, suffix, words):
    with pytest.raises(DataError, match=rf"p\.{suffix}: .*{words}.*; save the mask as one grey channel"):
        scored(image, suffix)


def test_masks_are_listed_as_pairs_are(scored, tmp_path):
    mask = Image.fromarray(CHANGED)
    for other in ("p.txt", ".p.png", "Thumbs.db"):
        (tmp_path / "masks" / other).write_text("no image")
    assert scored(mask) == [[320, 0, 0, 160]]
    Image.fromarray(~CHANGED).save(tmp_path / "masks" / "p.tif")
    with pytest.raises(DataError, match=r"one stem, 2 files: p.png, p.tif; keep one"):
        scored(mask)
    (tmp_path / "masks" / "p.tif").unlink()
    for name in ("A", "B", "label"):
        (tmp_path / "one" / name / "p.png").rename(tmp_path / "one" / name / "caf\u00e9.png")
    (tmp_path / "masks" / "p.png").rename(tmp_path / "masks" / "cafe\u0301.png")  # as macOS writes it
    folder = PairFolder(tmp_path / "one")
    assert evaluate_masks(tmp_path / "masks", folder, folder.pairs()).evaluation.counts.tolist() == [[320, 0, 0, 160]]


def test_the_hash_tells_pairs_and_labels_apart(data):
    folder = PairFolder(data)
    pairs = folder.pairs("val")
    first = evaluate(NetworkDetector(pointwise()), folder, pairs).protocol.pairs_hash
    assert evaluate(NetworkDetector(convolutional(0)), folder, pairs).protocol.pairs_hash == first
    assert evaluate(NetworkDetector(pointwise()), folder, pairs[1:]).protocol.pairs_hash != first
    assert len(pairs) > 2 and evaluate(NetworkDetector(pointwise()), folder, pairs[::-1]).protocol.pairs_hash == first
    label = np.asarray(Image.open(data / "val" / "label" / "p5.png")).copy()
    label[-1, -1] = 255
    Image.fromarray(label).save(data / "val" / "label" / "p5.png")
    again = PairFolder(data)
    assert evaluate(NetworkDetector(pointwise()), again, again.pairs("val")).protocol.pairs_hash != first


def test_tiles_are_averaged_where_they_overlap():
    torch.manual_seed(0)
    images = torch.randint(0, 255, (2, 1, 3, 50, 70), dtype=torch.uint8)
    pixelwise = NetworkDetector(pointwise())
    whole = pixelwise.probabilities(*images)
    for tile, stride in ((32, 16), (32, None), (64, 64), (100, 7)):
        assert torch.allclose(SlidingWindow(pixelwise, tile, stride).probabilities(*images), whole, atol=1e-6)
    seeing = NetworkDetector(convolutional(0))
    found = SlidingWindow(seeing, 32, 16).probabilities(*images)
    total, times = torch.zeros(1, 50, 70), torch.zeros(1, 50, 70)
    for top in (0, 16, 18):
        for left in (0, 16, 32, 38):
            window = (..., slice(top, top + 32), slice(left, left + 32))
            total[window] += seeing.probabilities(images[0][window], images[1][window])[0]
            times[window] += 1
    assert torch.allclose(found[0], total / times, atol=1e-6)
    with pytest.raises(OptionError, match="stride: found 40, expected 1 to the tile's side, 32"):
        SlidingWindow(pixelwise, 32, 40)


def test_evaluate_and_compare_on_the_command_line(data, tmp_path, capsys):
    for seed, bias in enumerate((-50.0, -52.0)):
        save_bundle(tmp_path / f"b{seed}", pointwise(bias=bias), {"stage": "student", "seed": seed})
    save_bundle(tmp_path / "c", pointwise(scale=0.0, bias=-9.0), {"stage": "control", "seed": 0})
    files = []
    for bundle in ("b0", "b1", "c"):
        files.append(str(tmp_path / f"{bundle}.json"))
        assert main(["evaluate", str(tmp_path / bundle), str(data), "-o", files[-1]]) == 0
    name = read_result(files[0]).name
    assert name.endswith(" student") and [read_result(f).seed for f in files] == [0, 1, 0]
    capsys.readouterr()
    assert main(["compare", *files, "--baseline", read_result(files[2]).name, "-o", str(tmp_path / "all.json")]) == 0
    shown = capsys.readouterr().out
    assert "95 % interval" in shown and "*" in shown
    content = json.loads((tmp_path / "all.json").read_text())
    assert content["detectors"][name]["seeds"] == [0, 1]
    difference = content["detectors"][name]["difference"]["dataset"]["miou"]
    assert difference["low"] > 0 and difference["low"] < difference["value"] < difference["high"]
    options = ["--tile", "16", "--stride", "8", "--tta", "flips", "--threshold", "0.4", "--name", "tiled"]
    assert main(["evaluate", str(tmp_path / "b0"), str(data), *options, "-o", str(tmp_path / "t.json")]) == 0
    protocol = read_result(tmp_path / "t.json").protocol
    assert (protocol.tile, protocol.stride, protocol.augmentation, protocol.threshold) == (16, 8, "flips", 0.4)
    assert main(["compare", files[0], str(tmp_path / "t.json")]) == 1
    assert "different protocols (tile size: none and 16; stride" in capsys.readouterr().err
    before = Path(files[2]).read_bytes()
    assert main(["compare", *files, "-o", files[2]]) == 1
    assert "c.json is one of the inputs" in capsys.readouterr().err
    assert Path(files[2]).read_bytes() == before
    save_bundle(tmp_path / "d", convolutional(0), {"stage": "student", "seed": 1})
    options = ["--name", name, "-o", str(tmp_path / "d.json")]
    assert main(["evaluate", str(tmp_path / "d"), str(data), *options]) == 0
    assert main(["compare", files[0], str(tmp_path / "d.json")]) == 1
    told = capsys.readouterr().err
    assert "under one name" in told and "expected seeds of one detector" in told
    assert f"{files[0]}, {tmp_path / 'd.json'}: found" in told
    assert main(["compare", files[0], files[2], str(tmp_path / "t.json")]) == 1
    told = capsys.readouterr().err
    assert f"{files[0]} (" in told and f"{tmp_path / 't.json'} (tiled)" in told
    assert main(["compare", files[0], files[0]]) == 1
    assert f"{files[0]}, {files[0]}: found 2 results named {name} with seeds 0, 0" in capsys.readouterr().err
    assert main(["compare", files[0]]) == 1
    predict_files(compose([tmp_path / "b0"], "cpu"), data / "val" / "A", data / "val" / "B", tmp_path / "masks")
    assert main(["evaluate", str(tmp_path / "masks"), str(data), "-o", str(tmp_path / "m.json")]) == 0
    assert read_result(tmp_path / "m.json").name == "masks"
    assert np.array_equal(read_result(tmp_path / "m.json").evaluation.counts, read_result(files[0]).evaluation.counts)


@pytest.mark.parametrize("content", [b'{"kind": "network"}', b"no JSON", bytes([137, 80, 78, 71, 255]), b"[1]"])
def test_what_an_evaluation_or_comparison_did_not_write_is_not_overwritten(data, tmp_path, capsys, content):
    save_bundle(tmp_path / "b", pointwise())
    ours, theirs = tmp_path / "ours.json", tmp_path / "theirs.json"
    evaluating = ["evaluate", str(tmp_path / "b"), str(data), "-o"]
    for _ in range(2):  # the second replaces the first
        assert main([*evaluating, str(ours)]) == 0
    theirs.write_bytes(content)
    for words in ([*evaluating, str(theirs)], ["compare", str(ours), str(ours), "-o", str(theirs)]):
        assert main(words) == 1
        assert f"output: {theirs} exists and is not a" in capsys.readouterr().err
        assert theirs.read_bytes() == content
    counts = tmp_path / "new.confusions.csv"
    counts.write_bytes(content)
    assert main([*evaluating, str(tmp_path / "new.json")]) == 1
    assert f"output: {counts} exists and is not a table" in capsys.readouterr().err
    assert counts.read_bytes() == content and not (tmp_path / "new.json").exists()
    for words in ([*evaluating, str(tmp_path / "new")], ["compare", str(ours), str(ours), "-o", str(tmp_path / "new")]):
        assert main(words) == 1
        assert "expected a name that ends in .json" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_what_is_no_detector_is_told_apart(data, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["evaluate", str(tmp_path / "empty"), str(data)]) == 1
    told = capsys.readouterr().err
    assert "neither bundle.json nor images" in told and "a folder of masks" in told
    save_bundle(tmp_path / "run" / "student" / "bundle", pointwise())
    (tmp_path / "run" / "recipe.yaml").touch()
    for folder in (tmp_path / "run", tmp_path / "run" / "student"):
        assert main(["evaluate", str(folder), str(data)]) == 1
        meant = capsys.readouterr().err.strip().rpartition("; give ")[2]
        assert meant == str(tmp_path / "run/student/bundle")
    assert main(["evaluate", meant, str(data)]) == 0
    for path in (data / "val" / "label").iterdir():
        path.unlink()
    (data / "val" / "label").rmdir()
    shutil.copytree(data / "val", data / "train")
    assert main(["evaluate", str(tmp_path / "run/student/bundle"), str(data)]) == 1
    assert f"{data}: no pair of train, val has a label" in capsys.readouterr().err


def test_tables_are_whole_where_the_output_is_narrow(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    name = "a_detector_with_a_name_that_alone_is_wider_than_the_terminal"
    results = [result_of(data, NetworkDetector(pointwise(bias=bias)), name + str(bias)) for bias in (-50.0, -52.0)]
    files = [result.write(tmp_path / f"{i}.json").with_name(f"{i}.json") for i, result in enumerate(results)]
    assert main(["compare", *map(str, files)]) == 0
    save_bundle(tmp_path / "b", pointwise())
    assert main(["evaluate", str(tmp_path / "b"), str(data)]) == 0
    shown = capsys.readouterr().out
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown and name + "-52.0" in shown
    metric = results[0].evaluation.summary()["by_part"]["large"]["image_mean_empty_0"]["miou"]
    assert metric > 0 and "medium objects" in shown


def test_a_result_of_other_metrics_or_of_no_partition_is_refused(data, tmp_path):
    path = tmp_path / "r.json"
    result_of(data, NetworkDetector(pointwise())).write(path)
    whole = json.loads(path.read_text())
    for field, value, words in (
        ("metric_version", 1, "has metrics of version 1, expected 2"),
        ("car_thresholds", [0.3, 0.1], "lacks a part of a result"),
    ):
        path.write_text(json.dumps(whole | {"protocol": whole["protocol"] | {field: value}}))
        with pytest.raises(DataError, match=rf"r.json: {words}"):
            read_result(path)


def test_a_run_is_no_folder_of_masks(data, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    for name in ("overview.png", "recipe.yaml"):
        (tmp_path / "run" / name).touch()
    assert main(["evaluate", str(tmp_path / "run"), str(data)]) == 1
    told = capsys.readouterr().err
    assert "lacks masks" not in told and "bundle" in told


def test_a_commit_tells_whether_the_source_has_changed_since(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.setattr("bitemporal.__file__", str(package / "__init__.py"))
    assert program()["commit"] is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "elsewhere").touch()
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert program()["commit"] == commit
    (package / "__init__.py").write_text("changed = True")
    assert program()["commit"] == f"{commit}-dirty"


def test_how_masks_were_made_is_stated_in_the_protocol(data, tmp_path, capsys):
    save_bundle(tmp_path / "b", pointwise())
    predict_without_tags(compose([tmp_path / "b"], "cpu"), data, tmp_path / "masks")
    made = ["--tile", "16", "--stride", "8", "--tta", "flips", "--scales", "1,1.25", "--threshold", "0.4"]
    found = {}
    for name, source, options in (("silent", "masks", []), ("stated", "masks", made), ("ours", "b", made)):
        path = tmp_path / f"{name}.json"
        assert main(["evaluate", str(tmp_path / source), str(data), *options, "-o", str(path)]) == 0
        found[name] = read_result(path)
    silent, stated = found["silent"].protocol, found["stated"].protocol
    assert stated == found["ours"].protocol
    assert silent == replace(stated, tile=None, stride=None, augmentation=None, scales=(1.0,), threshold=0.5)
    assert np.array_equal(found["silent"].evaluation.counts, found["stated"].evaluation.counts)
    capsys.readouterr()
    for options, words in (
        (["--threshold", "40"], "threshold: found 40, expected a probability"),
        (["--stride", "8"], "stride: found 8 without a tile"),
        (["--tile", "8", "--stride", "16"], "stride: found 16, expected 1 to the tile's side, 8"),
        (["--tile", "0"], "tile: found 0, expected 1 or more"),
        (["--seed", "-7"], "seed: found -7, expected 0 or more"),
    ):
        assert main(["evaluate", str(tmp_path / "masks"), str(data), *options]) == 1
        assert words in capsys.readouterr().err


def test_parts_of_a_partition_come_from_the_ratios(data, tmp_path):
    folder = PairFolder(data)
    result = evaluate(NetworkDetector(pointwise()), folder, folder.pairs("val"), CarPartition((0.3,)))
    found = result.evaluation
    assert result.protocol.car_thresholds == (0.3,)
    result.write(tmp_path / "r.json")
    again = read_result(tmp_path / "r.json").evaluation
    assert again.partition == CarPartition((0.3,)) and again.parts == found.parts


@pytest.mark.parametrize("nodata", [255, 9])
def test_what_masks_and_labels_call_no_data_is_not_scored(tmp_path, nodata):
    rng = np.random.default_rng(0)
    truth, predicted = (rng.choice(np.array([0, 1, nodata], np.uint8), (1, 20, 24)) for _ in range(2))
    for name, array in (
        ("A", np.zeros((3, 20, 24), np.uint8)),
        ("B", np.zeros((3, 20, 24), np.uint8)),
        ("label", truth),
    ):
        (tmp_path / "data" / name).mkdir(parents=True)
        write_raster(tmp_path / "data" / name / "p.tif", array, nodata=nodata if name == "label" else None)
    (tmp_path / "masks").mkdir()
    write_raster(tmp_path / "masks/p.tif", predicted, nodata=nodata)
    assert (
        main(["evaluate", str(tmp_path / "masks"), str(tmp_path / "data"), "--output", str(tmp_path / "r.json")]) == 0
    )
    folder = PairFolder(tmp_path / "data")
    counts = evaluate_masks(tmp_path / "masks", folder, folder.pairs()).evaluation.counts.ravel().tolist()
    valid = (truth != nodata) & (predicted != nodata)
    expected = [((truth == t) & (predicted == p) & valid).sum() for t in (0, 1) for p in (0, 1)]
    assert counts == expected


def test_masks_whose_no_data_is_not_said_or_is_0_are_refused_with_a_remedy_that_works(tmp_path):
    for name in ("A", "B", "label"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("L" if name == "label" else "RGB", (3, 1)).save(tmp_path / "data" / name / "p.png")
    (tmp_path / "my masks").mkdir()
    folder = PairFolder(tmp_path / "data")
    for values, nodata, expected in (((0, 1, 255), None, [1, 1, 0, 0]), ((0, 1, 1), 0, [1, 2, 0, 0])):
        path = write_raster(tmp_path / "my masks/p.tif", np.array([[values]], np.uint8), nodata=nodata)
        with pytest.raises(DataError, match=r"p.tif: .*`rio edit-info") as caught:
            evaluate_masks(tmp_path / "my masks", folder, folder.pairs())
        (command,) = re.findall(r"`rio ([^`]+)`", str(caught.value))
        assert CliRunner().invoke(main_group, shlex.split(command)).exit_code == 0
        counts = evaluate_masks(path.parent, folder, folder.pairs()).evaluation.counts
        assert counts.ravel().tolist() == expected
