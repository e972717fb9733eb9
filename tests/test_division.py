"""`bitemporal data split`: shares of every part, scenes on one side, and files that other commands read."""

import csv
import hashlib
import random
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bitemporal.cli.main import main
from bitemporal.errors import OptionError, PartitionError
from bitemporal.pairs import PairFolder
from bitemporal.pairs.division import divide, find_groups, group_by
from bitemporal.pairs.partition import PartitionRow
from bitemporal.pairs.split_lists import write_split

SPLITS = ("train", "val", "test")


def rows_of(parts: dict[str, int], split: str = "all") -> list[PartitionRow]:
    return [
        PartitionRow(split, f"{split}{part}{i}", float("nan") if not part else 0.1, part)
        for part, count in parts.items()
        for i in range(count)
    ]


@settings(max_examples=60, deadline=None)
@given(
    counts=st.tuples(*[st.integers(0, 60)] * 4),
    shares=st.tuples(*[st.floats(0.1, 1)] * 3),
    seed=st.integers(0, 3),
)
def test_every_part_is_divided_to_within_one_pair(counts, shares, seed):
    rows = rows_of(dict(zip(("small", "medium", "large", ""), counts, strict=True)))
    try:
        divided = divide(rows, shares, seed)
    except PartitionError:
        assert sum(counts) < 3
        return
    assert [(row.stem, row.part) for row in divided] == [(row.stem, row.part) for row in rows]
    for part, count in zip(("small", "medium", "large", ""), counts, strict=True):
        got = Counter(row.split for row in divided if row.part == part)
        quotas = {split: count * share / sum(shares) for split, share in zip(SPLITS, shares, strict=True)}
        raised = sum(max(0.0, 1 - quota) for quota in quotas.values()) if count >= 3 else 0.0
        for split, quota in quotas.items():
            assert got[split] >= (count >= 3)
            assert quota - 1 - raised - 1e-9 < got[split] < max(quota, count >= 3) + 1 + 1e-9
    shuffled = rows.copy()
    random.Random(seed).shuffle(shuffled)
    assert {(r.split, r.stem) for r in divide(shuffled, shares, seed)} == {(r.split, r.stem) for r in divided}


def test_scenes_are_whole_and_parts_balanced_as_far_as_they_allow():
    rng = np.random.default_rng(0)
    rows = [
        PartitionRow("all", f"scene{s}_{i // 4}_{i % 4}", 0.1, part)
        for s in range(60)
        for i, part in enumerate(rng.choice(["small", "medium", "large"], rng.integers(2, 17), p=[0.6, 0.3, 0.1]))
    ]
    together = group_by(r"(.*)_[0-9]+_[0-9]+")
    divided = divide(rows, (0.6, 0.2, 0.2), seed=1, group=together)
    splits_of = defaultdict(set)
    for row in divided:
        splits_of[row.stem.split("_")[0]].add(row.split)
    assert all(len(splits) == 1 for splits in splits_of.values())
    total = Counter(row.part for row in rows)
    for split, share in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
        got = Counter(row.part for row in divided if row.split == split)
        assert all(abs(got[part] / total[part] - share) < 0.05 for part in total)
    assert divided != divide(rows, (0.6, 0.2, 0.2), seed=2, group=together)


@pytest.mark.parametrize(
    ("stems", "scene"),
    [
        ([f"train_{s}_{r}_{c}" for s in range(5) for r in range(2) for c in range(2)], ("train_3_1_0", "train_3")),
        ([f"train_{s}_{i}" for s in range(1, 6) for i in range(16)], ("train_4_11", "train_4")),
        (
            [f"bern-{i:04d}" for i in range(4)] + [f"{c}-{i}" for c in ("ulm", "graz") for i in range(3)],
            ("ulm-2", "ulm"),
        ),
        ([f"train_{i}" for i in range(100)], None),
        ([f"synth_{i:05d}" for i in range(100)], None),
        ([f"{i}" for i in range(10)], None),
        ([f"a_{i}_{j}" for i in range(3) for j in range(2)] + ["other"], None),
        ([], None),
    ],
)
def test_tiles_are_recognised_by_their_names(stems, scene):
    pattern = find_groups(stems)
    assert (pattern is None) == (scene is None)
    if scene is not None:
        assert group_by(pattern)(scene[0]) == scene[1]


def test_val_and_test_on_disk_stay():
    rows = rows_of({"small": 40}) + rows_of({"small": 7}, "test")
    divided = divide(rows, (0.7, 0.1, 0.2))
    assert Counter(row.split for row in divided) == {"train": 35, "val": 5, "test": 7}
    assert all(row.split == "test" for row in divided[40:])


@pytest.mark.parametrize("shares", [(0.7, 0.3), (1.0, -0.1, 0.1), (float("nan"), 1, 1), (float("inf"), 1, 1)])
def test_unusable_shares_are_refused(shares):
    with pytest.raises(OptionError, match=r"shares: .* expected three of 0 or more"):
        divide(rows_of({"small": 9}), shares)


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(PartitionError, match="at least two splits"):
        divide(rows_of({"small": 9}), (1, 0, 0))
    with pytest.raises(PartitionError, match="at least two splits"):
        divide(rows_of({"small": 9}, "val") + rows_of({"small": 9}, "test"))
    with pytest.raises(PartitionError, match="1 group"):
        divide(rows_of({"small": 9}), group=lambda stem: "one")
    with pytest.raises(OptionError, match=r"group: '\(\.\*\)_x' does not match 1 stem\(s\), such as b;"):
        group_by("(.*)_x", ["a_x", "b"])
    with pytest.raises(OptionError, match=r"group: .*regular expression"):
        group_by("(")


def test_a_small_share_takes_one_of_every_part_and_one_scene_at_least():
    divided = divide(rows_of({"small": 70, "medium": 20, "large": 2, "": 0}), (0.9, 0.1, 0), seed=3)
    assert Counter(r.part for r in divided if r.split == "val") == {"small": 7, "medium": 2, "large": 1}
    scenes = [PartitionRow("all", f"s{scene}_{tile}", 0.1, "medium") for scene in range(3) for tile in range(4)]
    divided = divide(scenes, (0.9, 0.1, 0), group=group_by("(s[0-9])_.*"))
    assert Counter(r.split for r in divided) == {"train": 8, "val": 4}


def test_an_empty_split_gets_the_scene_that_costs_least():
    """Two scenes of six pairs and one of two: a tenth is nearest to the small one."""
    sizes = {"a": 6, "b": 6, "c": 2}
    scenes = [PartitionRow("all", f"{scene}_{tile}", 0.1, "medium") for scene, n in sizes.items() for tile in range(n)]
    for seed in range(5):
        divided = divide(scenes, (0.95, 0.05, 0), seed, group_by("(.)_.*"))
        assert {r.stem[0] for r in divided if r.split == "val"} == {"c"}


def test_the_choice_stays_the_same_from_release_to_release():
    """Published results rely on it. Of six, 4.2 and 1.8: the fourth and the sixth by SHA-256; of four, the third."""
    divided = divide(rows_of({"small": 6, "medium": 4}, "train"), (0.7, 0.3, 0), seed=1)
    small, medium = (
        sorted((f"train{part}{i}" for i in range(n)), key=lambda s: hashlib.sha256(f"1\0{s}".encode()).digest())
        for part, n in (("small", 6), ("medium", 4))
    )
    assert {r.stem for r in divided if r.split == "val"} == {small[3], small[5], medium[2]}


def test_choosing_is_not_biased_to_a_place():
    rows = rows_of({"small": 40})
    drawn = [divide(rows, (0.75, 0.25, 0), seed) for seed in range(300)]
    times = Counter(row.stem for divided in drawn for row in divided if row.split == "val")
    # 300 draws at 1 in 4: mean 75, standard deviation 7.5
    assert min(times.values()) > 40 and max(times.values()) < 110 and len(times) == 40


def test_a_written_division_names_every_pair_in_any_order(tmp_path):
    # stems of train and test overlap, as in JL1-CD-like sets that count from 1
    disk = [PartitionRow(split, f"{i}, \u00e9 \udce9", 0.1, "medium") for split in ("train", "test") for i in range(40)]
    divided = divide(disk, (0.9, 0.1, 0), seed=4)
    path = tmp_path / "new" / "split.csv"
    write_split(path, divided)
    assert path.read_bytes().startswith(b"split,stem\n")
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        rows = [(line["split"], line["stem"]) for line in csv.DictReader(stream)]
    assert rows == sorted((r.split, r.stem) for r in divided)
    assert [p.name for p in path.parent.iterdir()] == ["split.csv"]
    again = tmp_path / "again.csv"
    write_split(again, reversed(divided))
    assert again.read_bytes() == path.read_bytes()


@pytest.fixture
def tiles(tmp_path):
    """Tiles of six scenes in one split; two tiles have changed by half."""
    root = tmp_path / "data"
    for folder in ("A", "B", "label"):
        (root / folder).mkdir(parents=True)
    for scene in range(6):
        for tile in range(4):
            label = np.zeros((8, 8), np.uint8)
            label[:4] = 255 * (tile == 0)
            for folder, array in (
                ("A", np.zeros((8, 8, 3), np.uint8)),
                ("B", np.zeros((8, 8, 3), np.uint8)),
                ("label", label),
            ):
                Image.fromarray(array).save(root / folder / f"s{scene}_{tile // 2}_{tile % 2}.png")
    return root


def test_the_command_writes_what_other_commands_read(tiles, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in tiles.rglob("*")}
    file = tmp_path / "my.csv"
    assert main(["data", "split", str(tiles), "-o", str(file), "--shares", "0.5,0.25,0.25"]) == 0
    text = capsys.readouterr().out
    assert "tiles of 6 scenes" in text
    with file.open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == 24
    folder = PairFolder(tiles, splits=str(file))
    for split, scenes in zip(SPLITS, (3, 1, 2), strict=True):
        stems = {pair.stem for pair in folder.pairs(split)}
        assert stems == {line["stem"] for line in lines if line["split"] == split}
        assert len(stems) % 4 == 0
        assert abs(len(stems) // 4 - scenes) <= 1
    assert {path: path.stat().st_mtime_ns for path in tiles.rglob("*")} == before
    assert main(["data", "split", str(tiles), "-o", str(file), "--group", ".*", "--seed", "3"]) == 0  # an own file
    assert "scenes" not in capsys.readouterr().out
    assert main(["data", "check", str(tiles), "--splits", str(file)]) == 0
    other = tmp_path / "other.csv"
    other.write_text("name,value\n")
    assert main(["data", "split", str(tiles), "-o", str(other)]) == 1
    assert "is not a division into splits" in capsys.readouterr().err
    assert other.read_text() == "name,value\n"


def test_inside_the_data_it_is_read_without_an_option(tiles, capsys):
    assert main(["data", "split", str(tiles), "-o", str(tiles / "splits.csv")]) == 0
    assert set(PairFolder(tiles).splits) == {*SPLITS}
    assert main(["data", "split", str(tiles), "-o", str(tiles / "splits.csv")]) == 1
    assert "splits.csv is one of the inputs, which are never changed" in capsys.readouterr().err
