import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bitemporal.errors import PartitionError
from bitemporal.method.car import CarPartition, change_area_ratio, change_area_ratios
from bitemporal.pairs.partition import PartitionRow, read_partition, write_partition

masks = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.sampled_from([0, 1, 255])
)
cars = st.one_of(st.sampled_from([0.0, 0.05, 0.1, 0.2, 1.0]), st.floats(0, 1))


def counted(mask, ignore=255):
    """CAR by counting pixels one by one."""
    pixels = [int(pixel) for pixel in np.asarray(mask).ravel() if pixel != ignore]
    return sum(pixel != 0 for pixel in pixels) / len(pixels) if pixels else math.nan


@given(masks)
def test_car_is_changed_over_valid_pixels(mask):
    expected = counted(mask)
    assert change_area_ratio(mask) == pytest.approx(expected, abs=0, nan_ok=True)
    assert change_area_ratio(torch.from_numpy(mask)) == pytest.approx(expected, abs=0, nan_ok=True)
    assert change_area_ratio(mask.tolist()) == pytest.approx(expected, abs=0, nan_ok=True)


@given(masks, st.sampled_from([None, 1, 255]))
def test_car_ignores_the_given_value(mask, ignore):
    assert change_area_ratio(mask, ignore) == pytest.approx(counted(mask, ignore), abs=0, nan_ok=True)


@given(hnp.arrays(bool, (3, 5)))
def test_car_of_booleans(mask):
    assert change_area_ratio(mask) == change_area_ratio(torch.from_numpy(mask)) == mask.sum() / 15
    assert change_area_ratios(torch.from_numpy(mask)[None]).item() == mask.sum() / 15


def test_car_of_nothing_valid():
    assert math.isnan(change_area_ratio(np.full((4, 4), 255)))
    assert math.isnan(change_area_ratio(np.zeros((0, 4))))
    assert change_area_ratio(np.full((4, 4), 255), ignore=None) == 1.0


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 5), st.just(3), st.just(7)), elements=st.sampled_from([0, 1, 255])),
    st.sampled_from([torch.uint8, torch.int64, torch.int32]),
)
def test_batch_equals_single(batch, dtype):
    cars = change_area_ratios(torch.from_numpy(batch).to(dtype))
    assert cars.dtype == torch.float64 and cars.shape == (len(batch),)
    np.testing.assert_array_equal(cars.numpy(), [counted(mask) for mask in batch])


@pytest.mark.parametrize("share", [(1, 20), (1, 5), (1, 10)])
@pytest.mark.parametrize("side", [20, 100, 320])
def test_masks_exactly_at_a_threshold_fall_below_it(share, side):
    """1/20 of the pixels is the small part's end in both versions, with no rounding in the way."""
    mask = np.zeros(side * side, dtype=np.uint8)
    mask[: side * side * share[0] // share[1]] = 1
    limit = share[0] / share[1]
    partition = CarPartition((limit,))
    for ratio in (change_area_ratio(mask), change_area_ratios(torch.from_numpy(mask)[None]).item()):
        assert partition.part(ratio) == "small"
    mask[-1] = 1
    for ratio in (change_area_ratio(mask), change_area_ratios(torch.from_numpy(mask)[None]).item()):
        assert partition.part(ratio) == "large"


# ----------------------------------------------------------------------------------------------------- partition


def test_the_papers_parts_end_at_their_thresholds():
    partition = CarPartition()
    for car, part in (
        (0.0, "small"),
        (0.05, "small"),
        (np.nextafter(0.05, 1), "medium"),
        (0.2, "medium"),
        (np.nextafter(0.2, 1), "large"),
        (1.0, "large"),
        (math.nan, ""),
    ):
        assert partition.part(car) == part
    assert CarPartition.of_paper(3) == partition and CarPartition.of_paper(2).thresholds == (0.1,)
    assert CarPartition.of_paper(2).part(0.1) == "small" and CarPartition.of_paper(2).part(0.11) == "large"
    with pytest.raises(PartitionError, match="found 4"):
        CarPartition.of_paper(4)


@given(st.lists(st.floats(0, 1, exclude_max=True), max_size=4, unique=True), st.lists(cars | st.just(math.nan)))
def test_a_part_is_the_number_of_thresholds_below(thresholds, values):
    partition = CarPartition(tuple(sorted(thresholds)))
    indices = partition.indices(values)
    expected = [-1 if math.isnan(car) else sum(car > limit for limit in thresholds) for car in values]
    assert indices.tolist() == expected and indices.dtype == np.int64
    assert len(partition.names) == len(set(partition.names)) == len(thresholds) + 1


def test_names_and_rule():
    assert CarPartition(()).names == ("all",)
    assert CarPartition((0.1,)).names == ("small", "large")
    assert CarPartition((0.1, 0.2, 0.3)).names == ("part1", "part2", "part3", "part4")
    assert CarPartition().describe() == "small <= 0.05 < medium <= 0.2 < large"
    assert CarPartition((0.04370123456,)).describe() == "small <= 0.04370123456 < large"


@pytest.mark.parametrize("bad", [(0.2, 0.05), (0.1, 0.1), (1.0,), (-0.1,), (math.nan,), ("x",), (None,), 0.05])
def test_bad_thresholds(bad):
    with pytest.raises(PartitionError, match="thresholds"):
        CarPartition(bad)


def squares(values, thresholds):
    counts = [0] * (len(thresholds) + 1)
    for car in values:
        counts[sum(car > limit for limit in thresholds)] += 1
    return sum(count**2 for count in counts), counts


@settings(deadline=None)
@given(st.lists(cars, min_size=1, max_size=12), st.integers(1, 4))
def test_equal_counts_are_as_equal_as_ties_allow(values, parts):
    partition = CarPartition.of_equal_counts([*values, math.nan], parts)
    distinct = sorted(set(values))
    wanted = min(parts, len(distinct))
    found, counts = squares(values, partition.thresholds)
    assert len(counts) == wanted and min(counts) > 0
    assert found == min(squares(values, cut)[0] for cut in itertools.combinations(distinct[:-1], wanted - 1))


@given(st.integers(3, 200), st.integers(1, 6))
def test_equal_counts_without_ties_differ_by_one_at_most(count, parts):
    values = np.random.default_rng(count).permutation(count) / count
    _, counts = squares(values, CarPartition.of_equal_counts(values, parts).thresholds)
    assert max(counts) - min(counts) <= 1 and len(counts) == min(parts, count)


def test_equal_counts_where_most_pairs_have_no_change():
    values = [0.0] * 35 + [0.01 * i for i in range(1, 14)]
    partition = CarPartition.of_equal_counts(values, 3)
    assert sorted(squares(values, partition.thresholds)[1]) == [6, 7, 35]
    assert partition.thresholds[0] == 0.0 and len(str(partition.thresholds[1])) <= 4  # short enough to type
    assert CarPartition.of_equal_counts([1.0] * 70 + [0.1] * 30, 2).part(0.1) == "small"


def test_equal_counts_of_nothing():
    for values, parts in (([], 3), ([math.nan], 3), ([0.5], 0)):
        with pytest.raises(PartitionError, match="expected at least 1 part and 1 pair"):
            CarPartition.of_equal_counts(values, parts)


# ------------------------------------------------------------------------------------------------- partition.csv


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.builds(
            PartitionRow,
            st.sampled_from(["train", "all"]),
            st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
            | st.sampled_from(["a,b", 'q"', "\udcff"]),
            st.floats(0, 1) | st.just(math.nan),
            st.sampled_from(["small", ""]),
        ),
        max_size=5,
    )
)
def test_partition_file_keeps_every_bit(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("p") / "new" / "partition.csv"
    write_partition(path, rows)
    found = read_partition(path)
    assert [(r.split, r.stem, r.part) for r in found] == [(r.split, r.stem, r.part) for r in rows]
    np.testing.assert_array_equal([r.car for r in found], [r.car for r in rows])
    assert [p.name for p in path.parent.iterdir()] == ["partition.csv"]


def test_partition_file_is_plain_text(tmp_path):
    write_partition(
        tmp_path / "p.csv", [PartitionRow("train", "x", 0.05, "small"), PartitionRow("t", "y", math.nan, "")]
    )
    assert (tmp_path / "p.csv").read_bytes() == b"split,stem,car,part\ntrain,x,0.05,small\nt,y,,\n"


def test_partition_file_appears_whole_or_not_at_all(tmp_path):
    write_partition(tmp_path / "p.csv", [PartitionRow("train", "x", 0.05, "small")])
    before = (tmp_path / "p.csv").read_bytes()
    with pytest.raises(TypeError):
        write_partition(
            tmp_path / "p.csv", [PartitionRow("train", "x", 0.1, "small"), PartitionRow("train", "y", "?", "")]
        )
    assert (tmp_path / "p.csv").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_partition_file_of_a_spreadsheet(tmp_path):
    (tmp_path / "p.csv").write_bytes("\ufeffsplit,stem,car,part\r\ntrain,x,0.5,large\r\n".encode())
    assert read_partition(tmp_path / "p.csv") == [PartitionRow("train", "x", 0.5, "large")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("split,stem,part\n", "car"),
        ("", "missing"),
        ("split,stem,car,part\ntrain,x,1.5,large\n", "line 2: car is '1.5'"),
        ("split,stem,car,part\ntrain,x,high,large\n", "line 2: car is 'high'"),
        ("split,stem,car,part\ntrain,x,inf,large\n", "line 2"),
        ("split,stem,car,part\ntrain,x,0.1,small\ntrain,x,0.1\n", "line 3: expected the 4 columns"),
        ("split,stem,car,part\ntrain,x,0.1,small,more\n", "line 2: expected the 4 columns"),
    ],
)
def test_broken_partition_files(tmp_path, text, words):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(PartitionError, match=words):
        read_partition(tmp_path / "p.csv")
    with pytest.raises(PartitionError, match=r"none\.csv: .*data stats"):
        read_partition(tmp_path / "none.csv")
