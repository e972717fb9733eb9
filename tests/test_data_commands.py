import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bitemporal.cli.data_stats import save_histogram
from bitemporal.cli.main import main
from bitemporal.method.car import CarPartition
from bitemporal.pairs.partition import read_partition
from conftest import write_pair

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"
needs_shared = [
    pytest.mark.shared,
    pytest.mark.skipif(not SHARED.is_dir(), reason="real pairs are not next to this checkout (../shared/data)"),
]


def make(root, split, changed_of_100, values=(0, 255)):
    """Pairs of 10 x 10 pixels of which so many are changed; ``None`` unlabelled."""
    base = root / split if split else root
    for name in ("A", "B", "label"):
        (base / name).mkdir(parents=True, exist_ok=True)
    for index, changed in enumerate(changed_of_100):
        for name in ("A", "B"):
            Image.new("RGB", (10, 10), (index, 0, 0)).save(base / name / f"p{index:02}.png")
        if changed is not None:
            label = np.full(100, values[0], np.uint8)
            label[:changed] = values[1]
            Image.fromarray(label.reshape(10, 10)).save(base / "label" / f"p{index:02}.png")
    return root


def snapshot(root):
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.rglob("*")) if p.is_file()}


def run(capsys, *words):
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def row(text, first):
    """Words of the table row that starts with ``first``."""
    (line,) = [line for line in text.splitlines() if re.match(rf"\s*{re.escape(first)}\s", line)]
    return line.strip()[len(first) :].split()


# -------------------------------------------------------------------------------------------------------- check


def test_check_of_a_sound_set(tmp_path, capsys):
    root = make(make(tmp_path, "train", [0, 5, 30]), "val", [10])
    status, out, _ = run(capsys, "data", "check", root)
    assert status == 0 and "labels: 0 = unchanged, 255 = changed (found in 4 files)" in out and "no faults" in out
    assert row(out, "train")[:5] == ["3", "3", "10", "x", "10"] and row(out, "val")[0] == "1"
    assert row(out, "train")[5:] == ["2", "0.1167"]


def test_check_of_a_faulty_set(tmp_path, capsys):
    root = make(make(tmp_path, "train", [0, 5, None]), "test", [None])
    (root / "train" / "B" / "p00.png").write_bytes(b"")
    Image.new("RGB", (9, 10)).save(root / "train" / "A" / "p01.png")
    before = snapshot(root)
    status, out, _ = run(capsys, "data", "check", root, "--workers", 1)
    assert status == 1 and snapshot(root) == before
    assert "4 faults" in out
    for words in (
        "train/A/p02.png: has no label",
        "train/B/p00.png: is empty",
        "train/A/p01.png: before is 10 x 9, after is 10 x 10",
        "test: no pair of split test has a label: fine for prediction",
        "  -> ",
    ):
        assert words in out, out


def test_one_fault_of_many_files_is_said_once(tmp_path, capsys):
    shape = (8, 8, 3)
    for i in range(9):
        write_pair(tmp_path, "train", f"p{i}", np.zeros(shape, np.uint8), np.ones(shape, np.uint8), np.eye(8))
        if i:
            (tmp_path / f"train/B/p{i}.png").unlink()
    assert main(["data", "check", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert f"{tmp_path}: 16 faults" in said  # image and label of each of 8 pairs
    assert [f"A/p{i}.png: has no partner in B" in said for i in range(1, 9)] == [True] * 3 + [False] * 5
    assert "  and 5 more files: has no partner in B\n" in said
    assert main(["data", "check", str(tmp_path), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["faults"]) == 16


def test_check_with_label_options(tmp_path, capsys):
    root = make(tmp_path, "", [0, 50], values=(1, 2))
    status, out, _ = run(capsys, "data", "check", root)
    assert status == 1 and "1 (150 pixels), 2 (50)" in out and "--label-values 1,2" in out
    status, out, _ = run(capsys, "data", "check", root, "--label-values", "1,2")
    assert status == 0 and "1 = unchanged, 2 = changed (by label_values" in out and row(out, "all")[-1] == "0.2500"
    status, out, _ = run(capsys, "data", "check", root, "--label-threshold", "2")
    assert status == 0 and "below 2 = unchanged" in out and row(out, "all")[-1] == "0.2500"
    deep = np.full((10, 10), 3000, np.uint16)
    Image.fromarray(deep).save(root / "A" / "p00.png")
    status, out, _ = run(capsys, "data", "check", root, "--label-values", "1,2")
    assert status == 1 and "--image-range" in out
    status, out, _ = run(capsys, "data", "check", root, "--label-values", "1,2", "--image-range", "0,3000")
    assert status == 0 and "warning: 1 file: grey image" in out


def test_check_of_no_set_and_of_bad_options(tmp_path, capsys):
    status, _, err = run(capsys, "data", "check", tmp_path)
    assert status == 1 and "expected ROOT/{train,val,test}/{A,B,label}" in err
    root = make(tmp_path, "", [5])
    status, _, err = run(capsys, "data", "check", root, "--label-values", "1,2", "--label-threshold", "3")
    assert status == 1 and "both given" in err


# -------------------------------------------------------------------------------------------------------- stats


def test_stats_counts_and_partition_file(tmp_path, capsys):
    changed = [0, 0, 5, 6, 20, 21, 40, 60, 100]
    root = make(make(tmp_path / "set", "train", changed), "test", [None, 10])
    before = snapshot(root)
    out_folder = tmp_path / "stats"
    status, out, _ = run(capsys, "data", "stats", root, "-o", out_folder)
    assert status == 0 and snapshot(root) == before
    assert row(out.split("pairs per part")[0], "pairs") == ["9", "2"] and row(out, "labelled") == ["9", "1"]
    assert row(out, "CAR 0") == ["2", "(22.2%)", "0", "(0.0%)"] and row(out, "CAR 1") == ["1", "(11.1%)", "0", "(0.0%)"]
    assert row(out, "CAR median") == ["0.2000", "0.1000"]
    assert row(out, "CAR 25 %")[0] == "0.0500" and row(out, "CAR max")[0] == "1.0000"
    papers, equal = out.split("pairs per part at ")[1:]
    assert papers.startswith("the paper's thresholds: small <= 0.05 < medium <= 0.2 < large")
    assert [row(papers, part)[0] for part in ("small", "medium", "large")] == ["3", "2", "4"]
    assert "equal counts (from train)" in equal
    assert [row(equal, part)[0] for part in ("small", "medium", "large")] == ["3", "3", "3"]
    rows = read_partition(out_folder / "partition.csv")
    assert [(r.split, r.stem) for r in rows] == [("train", f"p{i:02}") for i in range(9)] + [
        ("test", "p00"),
        ("test", "p01"),
    ]
    assert [r.car for r in rows[:9]] == [c / 100 for c in changed] and np.isnan(rows[9].car)
    assert [r.part for r in rows] == [*["small"] * 3, *["medium"] * 2, *["large"] * 4, "", "medium"]
    assert "1 fault(s)" in out and "data check" in out  # one test pair lacks its label
    with Image.open(out_folder / "car_histogram.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 300
    assert sorted(p.name for p in out_folder.iterdir()) == ["car_histogram.png", "partition.csv"]


def test_stats_as_json_hold_what_is_printed(tmp_path, capsys):
    root = make(make(make(tmp_path / "set", "train", [0, 5, 6, 21, 100, 100]), "test", [None, 10]), "val", [None])
    status, out, _ = run(capsys, "data", "stats", root, "-o", tmp_path / "stats", "--json")
    found = json.loads(out)
    splits = found["splits"]
    assert status == 0 and [splits[name]["pairs"] for name in ("train", "val", "test")] == [6, 1, 2]
    assert (splits["train"]["car_0"], splits["train"]["car_1"], splits["test"]["car_0"]) == (1, 2, 0)
    assert splits["val"]["quantiles"] is None and splits["val"]["mean"] is None
    papers, equal = (found["pairs_by_part"][name] for name in found["thresholds"])
    assert papers["train"] == {"small": 2, "medium": 1, "large": 3} and sum(papers["val"].values()) == 0
    assert sum(equal["train"].values()) == 6


def test_stats_with_other_parts(tmp_path, capsys):
    root = make(tmp_path / "set", "", [0, 10, 11, 50])
    for words, parts in (
        (["--parts", "2"], ["small", "small", "large", "large"]),
        (["--thresholds", "0.3"], ["small", "small", "small", "large"]),
        (["--parts", "4"], ["part1", "part2", "part3", "part4"]),  # the paper has none: equal counts
        (["--parts", "1"], ["all"] * 4),
    ):
        status, _, err = run(capsys, "data", "stats", root, "-o", tmp_path / "out", *words)
        assert status == 0, err
        assert [r.part for r in read_partition(tmp_path / "out" / "partition.csv")] == parts
    for words, message in (
        (["--parts", "2", "--thresholds", "0.3"], "expected one of the two"),
        (["--thresholds", "0.3,0.1"], "increasing"),
        (["--parts", "0"], "at least 1"),
    ):
        status, _, err = run(capsys, "data", "stats", root, "-o", tmp_path / "out", *words)
        assert status == 1 and message in err


def test_stats_writes_to_the_current_directory_by_default(tmp_path, capsys, monkeypatch):
    root = make(tmp_path / "set", "", [0, 10])
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "data", "stats", root)[0] == 0
    assert (tmp_path / "car-stats" / "partition.csv").is_file()


@pytest.mark.parametrize("output", ["set", "set/stats", "set/A/x/y", "link/stats"])
def test_stats_never_writes_into_the_data(tmp_path, capsys, output):
    root = make(tmp_path / "set", "", [0, 10])
    (tmp_path / "link").symlink_to(root)
    before = snapshot(root)
    status, _, err = run(capsys, "data", "stats", root, "-o", tmp_path / output)
    assert (
        status == 1 and "which is read and never written to; choose another folder" in err and snapshot(root) == before
    )


def test_stats_refuses_labels_it_cannot_read(tmp_path, capsys):
    root = make(tmp_path / "set", "", [0, 10, 20], values=(0, 255))
    (root / "label" / "p01.png").write_bytes(b"")
    status, _, err = run(capsys, "data", "stats", root, "-o", tmp_path / "out")
    assert status == 1 and "label/p01.png: is empty" in err and not (tmp_path / "out").exists()
    unlabelled = make(tmp_path / "plain", "", [None])
    status, _, err = run(capsys, "data", "stats", unlabelled, "-o", tmp_path / "out")
    assert status == 1 and "none of them with a label" in err


def test_histogram_of_extreme_sets(tmp_path):
    for name, values in (("zeros", [0.0] * 5), ("ones", [1.0]), ("one", [0.3]), ("tiny", [1e-7, 0.0])):
        save_histogram(tmp_path / f"{name}.png", {"all": np.array(values), "test": np.array([])}, CarPartition(), None)
        with Image.open(tmp_path / f"{name}.png") as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        bars = np.flatnonzero((abs(pixels - (69, 117, 180)).sum(-1) < 30).sum(0) > 40)
        groups = np.split(bars, np.flatnonzero(np.diff(bars) > 1) + 1)
        middles = [group.mean() / pixels.shape[1] for group in groups]
        assert len(middles) == 1, name  # one bar, and no plot of the split without pairs
        assert (middles[0] < 0.2) == (max(values) < 1e-4) and (middles[0] > 0.9) == (max(values) == 1), middles


def test_histogram_shows_the_thresholds(tmp_path):
    """Red pixels of the paper's thresholds stand where a logarithmic axis from 0.01 % to 100 % has 5 % and 20 %."""
    save_histogram(tmp_path / "x.png", {"all": np.array([0.0, 0.5])}, CarPartition((0.05, 0.2)), None)
    pixels = np.asarray(Image.open(tmp_path / "x.png").convert("RGB")).astype(int)
    red = (pixels[..., 0] > 150) & (pixels[..., 1] < 60) & (pixels[..., 2] < 80)
    columns = np.flatnonzero(red.sum(0) > 100)
    groups = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    assert len(groups) == 2
    bar = (abs(pixels - (69, 117, 180)).sum(-1) < 30).sum(0) > 100
    left = np.flatnonzero(bar)[-1]  # right end of the bar that holds 0.5
    first, second = (group.mean() for group in groups)
    decade = (second - first) / np.log10(0.2 / 0.05)
    edge = np.geomspace(1e-4, 1, 41)
    end = edge[np.searchsorted(edge, 0.5)]
    assert left - second == pytest.approx(decade * np.log10(end / 0.2), abs=3)


class TestRealPairs:
    pytestmark = needs_shared

    def test_stats_of_guangzhou(self, tmp_path, capsys):
        status, out, _ = run(capsys, "data", "stats", SHARED / "gz", "-o", tmp_path / "out")
        assert status == 0 and row(out, "labelled") == ["433", "99"] and row(out, "CAR 1")[:2] == ["5", "(1.2%)"]
        counts = [int(row(out.split("equal counts")[1], part)[0]) for part in ("small", "medium", "large")]
        assert sum(counts) == 433 and max(counts) - min(counts) <= 1
        rows = read_partition(tmp_path / "out" / "partition.csv")
        some = rows[17]
        with Image.open(SHARED / "gz" / some.split / "label" / f"{some.stem}.png") as label:
            assert some.car == label.histogram()[255] / label.width / label.height

    def test_check_of_an_odd_pair(self, capsys):
        status, out, _ = run(capsys, "data", "check", SHARED / "odd-files" / "rgba")
        assert status == 1 and "alpha channel is dropped" in out and "after is 383 x 768" in out
