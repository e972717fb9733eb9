import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import bitemporal
from bitemporal.cli.main import main
from bitemporal.errors import DataError, OptionError, OutputError
from bitemporal.evaluation import Evaluation, evaluate, read_result, score_tables
from bitemporal.inference import (
    Ensemble,
    NetworkDetector,
    OriginPartition,
    TestTimeAugmentation,
    load,
    predict_files,
    save_origin_partition,
)
from bitemporal.inference.bundle import save_bundle
from bitemporal.method.car import CarPartition
from bitemporal.metrics import AVERAGINGS, METRICS
from bitemporal.pairs import PairFolder, check_pairs
from bitemporal.scenes import predict_scene
from stub_networks import Passes, convolutional, pointwise

IGNORED = 128
SHOWN = [name for name in METRICS if not name.endswith("_unchanged")]


pytestmark = pytest.mark.usefixtures("stubs")


def write_pair(split, stem, changed_rows, *, height=20, width=16, label=True, ignored_columns=0, seed=0):
    """A pair of which some rows brighten, and a label that agrees with most of it; values 0, 255 and 128."""
    random = np.random.default_rng(seed)
    before = random.integers(0, 60, (height, width, 3), dtype=np.uint8)
    truth = np.zeros((height, width), np.uint8)
    truth[:changed_rows] = 255
    # the images say something else than the label in a tenth of all pixels
    wrong = random.random((height, width)) < 0.1
    seen = (truth > 0) ^ (wrong & (changed_rows not in (0, height)))
    after = (before + np.where(seen[..., None], 100, 0)).astype(np.uint8)
    if ignored_columns:
        truth[:, :ignored_columns] = IGNORED
    for name, image in (("A", before), ("B", after), ("label", truth)):
        if name != "label" or label:
            (split / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(split / name / f"{stem}.png")


@pytest.fixture
def data(tmp_path):
    """Eight pairs in ``test``: nothing changed, everything changed, ignored columns, all ignored, no label."""
    test = tmp_path / "data" / "test"
    for i, rows in enumerate((0, 1, 3, 8, 20)):
        write_pair(test, f"p{i}", rows, seed=i, height=20 + (4 if i == 3 else 0))
    write_pair(test, "q1", 5, ignored_columns=3, seed=11)
    write_pair(test, "q2", 5, ignored_columns=16, seed=12)
    write_pair(test, "q3", 9, label=False, seed=13)
    save_bundle(tmp_path / "bundle", pointwise())
    return tmp_path / "data"


def folder_of(data):
    return PairFolder(data, label_values=(0, 255, IGNORED))


# ------------------------------------------------- everything again, from the PNG files, pixel by pixel


def count(mask_file, label_file):
    mask, label = Image.open(mask_file), Image.open(label_file)
    tn = fp = fn = tp = 0
    for y in range(label.height):
        for x in range(label.width):
            true, found = label.getpixel((x, y)), mask.getpixel((x, y))
            if true == IGNORED:
                continue
            if true == 255:
                tp, fn = (tp + 1, fn) if found == 255 else (tp, fn + 1)
            else:
                fp, tn = (fp + 1, tn) if found == 255 else (fp, tn + 1)
    return tn, fp, fn, tp


def scores(tn, fp, fn, tp, empty):
    def ratio(a, b):
        return a / b if b else empty

    changed = {
        "iou": ratio(tp, tp + fp + fn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
    }
    unchanged = {
        "iou": ratio(tn, tn + fp + fn),
        "f1": ratio(2 * tn, 2 * tn + fp + fn),
        "precision": ratio(tn, tn + fn),
        "recall": ratio(tn, tn + fp),
    }
    total = tn + fp + fn + tp
    chance = ((tp + fp) * (tp + fn) + (tn + fn) * (tn + fp)) / total**2
    means = {name: (changed[name] + unchanged[name]) / 2 for name in changed}
    return {
        **{f"{name}_changed": value for name, value in changed.items()},
        **{f"{name}_unchanged": value for name, value in unchanged.items()},
        "miou": means["iou"],
        "macc": means["recall"],
        "mprecision": means["precision"],
        "mfscore": means["f1"],
        "oa": (tp + tn) / total,
        "kappa": ratio((tp + tn) / total - chance, 1 - chance),
    }


def expected_summary(rows):
    rows = [row for row in rows if sum(row)]
    if not rows:
        return {kind: dict.fromkeys(METRICS, math.nan) for kind in AVERAGINGS}
    of_images = [scores(*row, empty=1.0) for row in rows]
    # any 0/0 makes the whole metric of the image 0
    of_images_0 = [{k: 0.0 if math.isnan(v) else v for k, v in scores(*row, empty=math.nan).items()} for row in rows]
    return {
        "dataset": scores(*(sum(column) for column in zip(*rows, strict=True)), empty=math.nan),
        "image_mean": {name: sum(s[name] for s in of_images) / len(rows) for name in METRICS},
        "image_mean_empty_0": {name: sum(s[name] for s in of_images_0) / len(rows) for name in METRICS},
    }


def test_metrics_equal_those_counted_from_the_saved_masks(data, tmp_path):
    detector = load(tmp_path / "bundle", "cpu")
    folder = folder_of(data)
    partition = CarPartition((0.05, 0.2))
    evaluation = evaluate(detector, folder, folder.pairs("test"), partition, batch_size=3).evaluation
    predict_files(detector, data / "test" / "A", data / "test" / "B", tmp_path / "masks")
    stems = ["p0", "p1", "p2", "p3", "p4", "q1", "q2"]
    counts = [count(tmp_path / "masks" / f"{s}.png", data / "test" / "label" / f"{s}.png") for s in stems]
    assert evaluation.stems == tuple(stems) and evaluation.unlabelled == 1
    assert evaluation.counts.dtype == np.int64 and evaluation.counts.tolist() == [list(row) for row in counts]
    cars = [(fn + tp) / (tn + fp + fn + tp) if tn + fp + fn + tp else math.nan for tn, fp, fn, tp in counts]
    np.testing.assert_array_equal(evaluation.cars, cars)
    # 1 of 20 rows is 0.05 and small; the pair without a valid pixel is in no part
    assert evaluation.parts == ("small", "small", "medium", "large", "large", "large", "")
    summary = evaluation.summary()
    of_parts = {
        part: [c for c, p in zip(counts, evaluation.parts, strict=True) if p == part] for part in partition.names
    }
    for mine, rows in [(summary, counts), *((summary["by_part"][p], of_parts[p]) for p in partition.names)]:
        for kind, values in expected_summary(rows).items():
            assert mine[kind] == pytest.approx(values, abs=1e-12, nan_ok=True), kind
    assert {p: summary["by_part"][p]["pairs"] for p in partition.names} == {"small": 2, "medium": 1, "large": 3}
    assert 0 < summary["dataset"]["miou"] < 1 and summary["dataset"]["miou"] != summary["image_mean"]["miou"]
    assert evaluation.sent_to == (None,) * 7


@pytest.mark.parametrize(("averaging", "empty"), [("image_mean", 1.0), ("image_mean_empty_0", 0.0)])
def test_image_mean_miou_is_that_of_the_papers_scorers(averaging, empty, data, tmp_path):
    """Their rule, from the fact sheet: half the sum of both IoU, 1 (later 0) where a denominator is 0; the mean."""
    folder = folder_of(data)
    evaluation = evaluate(load(tmp_path / "bundle", "cpu"), folder, folder.pairs("test")).evaluation
    values = []
    for tn, fp, fn, tp in evaluation.counts.tolist():
        if tn + fp + fn + tp:
            above, below = (tp, tn), (tp + fp + fn, tn + fp + fn)
            values.append(empty if 0 in below else 0.5 * above[0] / below[0] + 0.5 * above[1] / below[1])
    assert empty in values
    assert evaluation.summary()[averaging]["miou"] == pytest.approx(sum(values) / len(values), abs=1e-12)


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_masks_are_what_is_above_the_threshold(data, threshold):
    folder, detector = folder_of(data), NetworkDetector(convolutional(seed=3))
    pairs = folder.pairs("test")
    counts = []
    for pair in pairs:
        if pair.label is not None:
            probability = detector.predict(pair.before, pair.after).probability
            label = np.asarray(Image.open(pair.label))
            changed = probability > threshold
            counts.append([int((changed == c)[label == v].sum()) for v, c in ((0, 0), (0, 1), (255, 0), (255, 1))])
    assert evaluate(detector, folder, pairs, threshold=threshold).evaluation.counts.tolist() == counts
    assert {tuple(row) for row in counts} != {
        tuple(row) for row in evaluate(detector, folder, pairs, threshold=0.3).evaluation.counts.tolist()
    }


def test_batch_size_and_order_do_not_matter(data):
    folder = folder_of(data)
    model = convolutional(seed=3)
    passes = Passes(model)
    pairs = folder.pairs("test")
    one = evaluate(NetworkDetector(model), folder, pairs, batch_size=1).evaluation
    assert passes.sizes == [1] * 7
    many = evaluate(NetworkDetector(model), folder, pairs[::-1], batch_size=100).evaluation
    assert sorted(passes.sizes[7:]) == [1, 6]  # two sizes
    assert many.stems == one.stems[::-1] and np.array_equal(many.counts[::-1], one.counts)


def test_origin_partition_is_evaluated_like_any_other_and_tells_where_pairs_went(data, tmp_path):
    folder = folder_of(data)
    detector = OriginPartition(
        NetworkDetector(pointwise()), {"small": NetworkDetector(pointwise(bias=1.0))}, CarPartition.of_paper(2)
    )
    evaluation = evaluate(detector, folder, folder.pairs("test")).evaluation
    assert evaluation.partition == CarPartition.of_paper(2)
    assert evaluation.sent_to[0] == "small" and evaluation.sent_to[4] == "large"
    # the teacher of small calls nearly everything changed; the origin answers for large
    assert evaluation.counts[0].tolist() == [0, 320, 0, 0]
    assert evaluation.counts[4].tolist() == [0, 0, 0, 320]


def strict_json(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(Path(path).read_text(), parse_constant=refuse)


def written(result, path):
    return replace(result, name="name", seed=3, origin={"bundle": "b"}).write(path)


def test_json_holds_protocol_and_summary_and_the_counts_are_beside_it(data, tmp_path):
    folder = folder_of(data)
    pairs = [pair for pair in folder.pairs("test") if pair.stem in ("p0", "q2", "q3", "p4")]
    result = evaluate(load(tmp_path / "bundle", "cpu"), folder, pairs)
    (tmp_path / "new").mkdir()
    for _ in range(2):
        written(result, tmp_path / "new" / "scores.json")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["scores.confusions.csv", "scores.json"]
    content = strict_json(tmp_path / "new" / "scores.json")
    assert content["protocol"].items() >= {"split": "test", "pairs": 3, "threshold": 0.5, "tile": None}.items()
    assert content["unlabelled_pairs_left_out"] == 1 and content["confusions"]["file"] == "scores.confusions.csv"
    assert read_result(tmp_path / "new" / "scores.json").evaluation.unlabelled == 1
    assert (content["name"], content["seed"], content["origin"]) == ("name", 3, {"bundle": "b"})
    rows = (tmp_path / "new" / "scores.confusions.csv").read_text().splitlines()
    assert [row.split(",")[:8] for row in rows] == [
        ["stem", "car", "part", "sent_to", "tn", "fp", "fn", "tp"],
        ["p0", "0.0", "small", "", "320", "0", "0", "0"],
        ["p4", "1.0", "large", "", "0", "0", "0", "320"],
        ["q2", "", "", "", "0", "0", "0", "0"],
    ]
    nothing = {averaging: dict.fromkeys(METRICS) for averaging in AVERAGINGS}
    assert content["by_part"]["medium"].items() >= {"pairs": 0, **nothing}.items()
    # no changed pixel in any pair: undefined for the data set, 1 for an image
    assert content["by_part"]["small"]["dataset"]["iou_changed"] is None
    assert content["by_part"]["small"]["image_mean"]["iou_changed"] == 1.0
    assert content["by_part"]["small"]["image_mean_empty_0"]["iou_changed"] == 0.0


def test_a_result_that_cannot_be_written(data, tmp_path):
    folder = folder_of(data)
    result = evaluate(load(tmp_path / "bundle", "cpu"), folder, folder.pairs("test"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"scores\.json: cannot be written"):
        written(result, tmp_path / "file" / "scores.json")


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 7])
def test_tables_show_every_number_and_fit_a_terminal(parts):
    thresholds = tuple(k / parts for k in range(1, parts))
    partition = CarPartition(thresholds)
    random = np.random.default_rng(parts)
    counts = random.integers(1, 1000, (40, 4))
    counts[:, 0] += 100_000
    cars = random.random(40)
    cars[cars > (parts - 1) / parts] = 0.0  # the last part is empty, unless it is the only one
    counts[7], cars[7] = 0, math.nan  # a label without a valid pixel
    evaluation = Evaluation(
        stems=tuple(map(str, range(40))),
        counts=counts,
        cars=cars,
        sent_to=(None,) * 40,
        boundary=np.zeros((40, 4), np.int64),
        objects=np.zeros((40, 3, 3), np.int64),
        partition=partition,
    )
    console = Console(width=80, record=True, file=io.StringIO())
    for table in score_tables(evaluation):
        console.print(table)
    text = console.export_text()
    summary = evaluation.summary()
    for name in SHOWN:
        line = " ".join(line for line in text.splitlines() if line.strip().startswith(name))
        for group in [summary, *summary["by_part"].values()]:
            for kind in ("dataset", "image_mean"):
                value = group[kind][name]
                assert ("- / -" if math.isnan(value) else f"{100 * value:.2f}") in line
    for name in partition.names:
        assert name in text
    assert "…" not in text
    assert "(39 pairs)" in text and "(40 pairs)" not in text


def test_nothing_to_compare_with_is_an_error(data, tmp_path):
    detector, folder = load(tmp_path / "bundle", "cpu"), folder_of(data)
    unlabelled = [pair for pair in folder.pairs("test") if pair.label is None]
    for pairs in (unlabelled, []):
        with pytest.raises(DataError, match="label"):
            evaluate(detector, folder, pairs)
    with pytest.raises(OptionError, match="batch_size"):
        evaluate(detector, folder, folder.pairs("test"), batch_size=0)


def test_paths_and_names_in_place_of_what_they_stand_for_are_answered_with_the_call_that_is_meant(data, tmp_path):
    bundle = tmp_path / "bundle"
    detector, folder = load(bundle, "cpu"), PairFolder(data, label_values=(0, 255, IGNORED))
    pairs = folder.pairs("test")
    names = {"bitemporal": bitemporal, "folder": folder, "network": detector.model}
    expected = evaluate(detector, folder, pairs).summary()["image_mean"]
    scene = (tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "change.tif")

    def follow(call, kind=OptionError):
        with pytest.raises(kind) as caught:
            call()
        return eval(str(caught.value).partition("; give ")[2], names)

    for wrong in (str(bundle), bundle, detector.model):
        given = follow(lambda wrong=wrong: evaluate(wrong, folder, pairs))
        assert evaluate(given, folder, pairs).summary()["image_mean"] == expected
        assert isinstance(follow(lambda wrong=wrong: Ensemble([detector, wrong])), NetworkDetector)
        assert isinstance(follow(lambda wrong=wrong: TestTimeAugmentation(wrong)), NetworkDetector)
        assert isinstance(follow(lambda wrong=wrong: OriginPartition(wrong, {}, CarPartition())), NetworkDetector)
        teachers = {"small": wrong}
        assert isinstance(follow(lambda t=teachers: OriginPartition(detector, t, CarPartition())), NetworkDetector)
        assert isinstance(follow(lambda wrong=wrong: predict_scene(wrong, *scene)), NetworkDetector)
        assert isinstance(follow(lambda wrong=wrong: predict_files(wrong, *scene)), NetworkDetector)
    with pytest.raises(OptionError, match=r"found PairFolder, expected a detector; give what bitemporal\.load returns"):
        evaluate(folder, detector, pairs)
    assert isinstance(follow(lambda: evaluate(detector, data, pairs)), PairFolder)
    assert isinstance(follow(lambda: evaluate(detector, str(data), pairs)), PairFolder)
    assert follow(lambda: evaluate(detector, folder, "test")) == pairs
    assert check_pairs(folder, splits=follow(lambda: check_pairs(folder, splits="test"))).records
    with pytest.raises(OptionError, match="found 'flip', expected one of None, 'flips'"):
        TestTimeAugmentation(detector, "flip")
    scales = follow(lambda: TestTimeAugmentation(detector, scales=2))
    assert TestTimeAugmentation(detector, scales=scales).scales == (2,)


# ---------------------------------------------------------------- command


VALUES = ["--label-values", "0,255,128", "--device", "cpu"]


def test_without_change_no_threshold_is_the_best(data, tmp_path, capsys):
    for path in (data / "test" / "label").iterdir():
        Image.fromarray(np.zeros_like(np.asarray(Image.open(path)))).save(path)
    target = tmp_path / "scores.json"
    assert main(["evaluate", str(tmp_path / "bundle"), str(data), "-o", str(target), *VALUES]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "best f1_changed undefined: no label has a changed pixel" in printed and "at 0.50" not in printed
    assert strict_json(target)["probabilities"]["best_f1"] == {"threshold": None, "f1_changed": None}


def test_evaluate_prints_a_table_and_writes_json(data, tmp_path, capsys):
    target = tmp_path / "out" / "scores.json"
    assert main(["evaluate", str(tmp_path / "bundle"), str(data), "-o", str(target), *VALUES]) == 0
    printed = capsys.readouterr().out
    folder = folder_of(data)
    summary = evaluate(load(tmp_path / "bundle", "cpu"), folder, folder.pairs("test")).summary()
    content = strict_json(target)
    assert content["dataset"] == pytest.approx(summary["dataset"])
    assert content["protocol"]["split"] == "test" and content["protocol"]["data"] == "data"
    assert content["probabilities"]["best_f1"]["f1_changed"] <= 1 and "95 % interval" in printed
    assert "split test" in printed and "7 labelled" in printed and "1 without a label" in printed
    for name in SHOWN:
        assert f"{100 * summary['dataset'][name]:.2f} / {100 * summary['image_mean'][name]:.2f}" in printed


def test_default_split_is_test_then_val_then_the_only_one(data, tmp_path, capsys):
    for i in range(2):
        write_pair(data / "val", f"v{i}", 2, seed=i)
        write_pair(data / "train", f"t{i}", 2, seed=i)
    words = ["evaluate", str(tmp_path / "bundle"), str(data), *VALUES]

    def used(*more):
        status = main([*words, *more])
        captured = capsys.readouterr()
        return captured.err if status else captured.out

    assert "split test" in used()
    assert "split train: 2 labelled" in used("--split", "train")
    for path in (data / "test" / "label").iterdir():
        path.unlink()
    assert "split val: 2 labelled" in used()
    assert "none of 8 pairs has a label" in used("--split", "test")
    for path in (data / "val" / "label").iterdir():
        path.unlink()
    assert "--split" in used()
    assert "holdout" in used("--split", "holdout")
    words[2] = str(data / "train")
    assert "split train: 2 labelled" in used()


def test_parts_of_the_command(data, tmp_path, capsys):
    save_origin_partition(tmp_path / "op", tmp_path / "bundle", {}, CarPartition((0.3,)))
    target = tmp_path / "scores.json"
    for bundle, more, thresholds in (
        ("bundle", [], [0.05, 0.2]),
        ("bundle", ["--parts", "2"], [0.1]),
        ("bundle", ["--thresholds", "0.01,0.5,0.6"], [0.01, 0.5, 0.6]),
        ("op", [], [0.3]),
        ("op", ["--parts", "3"], [0.05, 0.2]),
    ):
        assert main(["evaluate", str(tmp_path / bundle), str(data), "-o", str(target), *VALUES, *more]) == 0
        content = strict_json(target)
        assert content["protocol"]["car_thresholds"] == thresholds
        assert len(content["by_part"]) == len(thresholds) + 1
        sent_to = set(read_result(target).evaluation.sent_to)
        assert sent_to <= ({None} if bundle == "bundle" else {"small", "large"})
    both = ["--parts", "2", "--thresholds", "0.1"]
    assert main(["evaluate", str(tmp_path / "bundle"), str(data), *VALUES, *both]) == 1
    assert "parts" in capsys.readouterr().err


def test_all_faults_are_reported_at_once_before_anything_is_computed(data, tmp_path, capsys):
    for place in ("label/p1", "label/p3", "A/p2", "B/p4"):
        (data / "test" / f"{place}.png").write_bytes(b"no image")
    target = tmp_path / "scores.json"
    assert main(["evaluate", str(tmp_path / "bundle"), str(data), "-o", str(target), *VALUES]) == 1
    message = capsys.readouterr().err
    assert "Traceback" not in message
    for name in ("p1.png", "p2.png", "p3.png", "p4.png"):
        assert name in message
    assert not target.exists()


def test_output_that_is_a_folder_is_refused_at_once(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path / "no bundle"), str(tmp_path / "no data"), "-o", str(tmp_path)]) == 1
    assert "output" in capsys.readouterr().err


SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.mark.shared
def test_real_tiles_equal_counts_from_their_own_files(tmp_path):
    root = SHARED / "dsifn-tiles"
    if not root.is_dir():
        pytest.skip(f"{root} is not here: the real pairs do not travel with the repository")
    folder = PairFolder(root)
    detector = NetworkDetector(convolutional(seed=1))
    evaluation = evaluate(detector, folder, folder.pairs(), batch_size=4).evaluation
    predict_files(detector, root / "A", root / "B", tmp_path / "masks")
    for stem, row in zip(evaluation.stems, evaluation.counts.tolist(), strict=True):
        label = np.asarray(Image.open(next((root / "label").glob(f"{stem}.*"))).convert("L")) > 127
        mask = np.asarray(Image.open(tmp_path / "masks" / f"{stem}.png")) == 255
        assert row == [(~label & ~mask).sum(), (~label & mask).sum(), (label & ~mask).sum(), (label & mask).sum()]
