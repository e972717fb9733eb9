import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bitemporal import metrics as module
from bitemporal.metrics import AVERAGINGS, METRICS, confusion_counts, image_metric, metrics

one = st.integers(0, 60)
quadruples = st.tuples(one, one, one, one)
sets = st.lists(quadruples, min_size=1, max_size=5)


def by_hand(counts):
    """Textbook definitions in exact fractions; ``None`` for 0/0."""
    tn, fp, fn, tp = (int(c) for c in counts)
    total = tn + fp + fn + tp

    def ratio(above, below):
        return Fraction(above) / Fraction(below) if below else None

    classes = {
        "iou": (ratio(tp, tp + fp + fn), ratio(tn, tn + fp + fn)),
        "precision": (ratio(tp, tp + fp), ratio(tn, tn + fn)),
        "recall": (ratio(tp, tp + fn), ratio(tn, tn + fp)),
        "f1": (ratio(2 * tp, 2 * tp + fp + fn), ratio(2 * tn, 2 * tn + fp + fn)),
    }
    chance = ratio((tp + fp) * (tp + fn) + (tn + fp) * (tn + fn), total**2)
    agreed = ratio(tp + tn, total)
    kappa = None if chance is None else ratio(agreed - chance, 1 - chance)
    return classes, agreed, kappa


def expected(counts, empty):
    """Every metric by name, with ``empty`` for 0/0."""
    classes, agreed, kappa = by_hand(counts)
    filled = {name: [empty if v is None else float(v) for v in pair] for name, pair in classes.items()}
    return {
        **{f"{name}_changed": filled[name][0] for name in ("iou", "f1", "precision", "recall")},
        **{f"{name}_unchanged": filled[name][1] for name in ("iou", "f1", "precision", "recall")},
        "miou": sum(filled["iou"]) / 2,
        "macc": sum(filled["recall"]) / 2,
        "mprecision": sum(filled["precision"]) / 2,
        "mfscore": sum(filled["f1"]) / 2,
        "oa": empty if agreed is None else float(agreed),
        "kappa": empty if kappa is None else float(kappa),
    }


@given(sets)
def test_dataset_metrics_are_those_of_the_summed_matrix(counts):
    total = np.sum(counts, axis=0)
    wanted = expected(total, math.nan) if total.sum() else dict.fromkeys(METRICS, math.nan)
    assert metrics(counts, "dataset") == pytest.approx(wanted, nan_ok=True)


@given(sets)
def test_image_means_count_an_empty_class_as_one(counts):
    valid = [c for c in counts if sum(c)]
    rows = [expected(c, 1.0) for c in valid]
    wanted = {name: np.mean([row[name] for row in rows]) if rows else math.nan for name in METRICS}
    assert metrics(counts, "image_mean") == pytest.approx(wanted, nan_ok=True)
    for name in METRICS:
        each = image_metric(name, counts)
        assert list(each) == pytest.approx(
            [expected(c, 1.0)[name] if sum(c) else math.nan for c in counts], nan_ok=True
        )


@given(sets)
def test_image_means_with_empty_0_count_an_undefined_metric_as_zero(counts):
    rows = [expected(c, math.nan) for c in counts if sum(c)]
    wanted = {
        name: np.mean([0.0 if math.isnan(row[name]) else row[name] for row in rows]) if rows else math.nan
        for name in METRICS
    }
    assert metrics(counts, "image_mean_empty_0") == pytest.approx(wanted, nan_ok=True)


@given(quadruples)
def test_f1_and_iou_of_one_class_are_one_function(counts):
    values = metrics([counts], "dataset")
    if not math.isnan(values["iou_changed"]):
        assert values["f1_changed"] == pytest.approx(2 * values["iou_changed"] / (1 + values["iou_changed"]))
    precision, recall = values["precision_changed"], values["recall_changed"]
    if precision + recall > 0:
        assert values["f1_changed"] == pytest.approx(2 * precision * recall / (precision + recall))


@pytest.mark.parametrize("averaging", ["dataset", "image_mean", "image_mean_empty_0"])
def test_a_single_valid_pixel_counts_and_an_image_without_one_does_not(averaging):
    one = metrics([[0, 0, 0, 1], [0, 0, 0, 0]], averaging)
    assert one["iou_changed"] == one["oa"] == 1.0
    assert math.isnan(metrics([[0, 0, 0, 0]], averaging)["oa"])


def test_worked_example():
    """Ten pixels: 4 TN, 1 FP, 2 FN, 3 TP."""
    prediction = [[0, 0, 0, 0, 1, 0, 0, 1, 1, 1]]
    target = [[0, 0, 0, 0, 0, 1, 1, 1, 1, 1]]
    counts = confusion_counts(prediction, target)
    assert counts.tolist() == [4, 1, 2, 3] and counts.dtype == np.int64
    values = metrics([counts], "dataset")
    assert values["iou_changed"] == pytest.approx(3 / 6)
    assert values["miou"] == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert values["precision_changed"] == pytest.approx(3 / 4)
    assert values["recall_changed"] == pytest.approx(3 / 5)
    assert values["macc"] == pytest.approx((3 / 5 + 4 / 5) / 2)
    assert values["mprecision"] == pytest.approx((3 / 4 + 4 / 6) / 2)
    assert values["mfscore"] == pytest.approx((6 / 9 + 8 / 11) / 2)
    assert values["oa"] == pytest.approx(0.7)
    # chance: 0.4 * 0.5 changed and 0.6 * 0.5 unchanged
    assert values["kappa"] == pytest.approx((0.7 - 0.5) / 0.5)


images = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.uint8, shape, elements=st.integers(0, 1)),
        hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 255])),
    )
)


@given(images)
def test_counts_pixel_by_pixel(pair):
    prediction, target = pair
    wanted = [0, 0, 0, 0]
    for p, t in zip(prediction.ravel(), target.ravel(), strict=True):
        if t != 255:
            wanted[2 * int(t) + int(p)] += 1
    assert confusion_counts(prediction, target).tolist() == wanted
    assert confusion_counts(prediction.astype(bool), target).tolist() == wanted
    assert confusion_counts(prediction * np.uint8(255), target.astype(np.int64)).tolist() == wanted


def test_ignore_and_booleans():
    assert confusion_counts([1, 1, 0], [255, 1, 0]).tolist() == [1, 0, 0, 1]
    assert confusion_counts([1, 1, 0], [9, 1, 0], ignore=9).tolist() == [1, 0, 0, 1]
    assert confusion_counts([True, False], np.array([True, True])).tolist() == [0, 0, 1, 1]
    assert confusion_counts(np.zeros((0, 4)), np.zeros((0, 4))).tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match=r"\(2, 2\), target \(2, 3\)"):
        confusion_counts(np.zeros((2, 2)), np.zeros((2, 3)))


def test_the_averagings_differ_where_they_should():
    """A perfect empty image counts 1 in the mean over images and nothing in the summed matrix's changed class."""
    counts = [[100, 0, 0, 0], [0, 0, 50, 50]]
    assert metrics(counts, "image_mean")["iou_changed"] == pytest.approx((1 + 0.5) / 2)
    assert metrics(counts, "dataset")["iou_changed"] == pytest.approx(0.5)


def test_released_scorer_of_the_paper():
    """Mean of both IoU, 1 as soon as a denominator is 0, averaged over images (fact sheet of the paper's code)."""
    counts = [[9, 0, 0, 0], [0, 0, 0, 7], [5, 1, 2, 3], [0, 4, 0, 0]]

    def released(tn, fp, fn, tp):
        if tp + fp + fn == 0 or tn + fp + fn == 0:
            return 1.0
        return 0.5 * tp / (tp + fp + fn) + 0.5 * tn / (tn + fp + fn)

    assert metrics(counts, "image_mean")["miou"] == pytest.approx(np.mean([released(*c) for c in counts]))


def test_classes_that_do_not_occur():
    values = metrics([[10, 0, 0, 0]], "dataset")
    assert math.isnan(values["iou_changed"]) and math.isnan(values["miou"]) and values["oa"] == 1.0
    assert all(math.isnan(value) for value in metrics([], "dataset").values())
    assert all(math.isnan(value) for value in metrics(np.zeros((3, 4)), "image_mean").values())


@given(sets)
def test_ranges(counts):
    for averaging in AVERAGINGS:
        for name, value in metrics(counts, averaging).items():
            assert math.isnan(value) or (-1 - 1e-9 if name == "kappa" else 0) <= value <= 1 + 1e-9


def test_huge_counts():
    """A continent of pixels: the squares in kappa are beyond 64-bit integers."""
    counts = [40_000_000_000, 1_000_000_000, 2_000_000_000, 3_000_000_000]
    wanted = expected(counts, math.nan)
    assert metrics([counts], "dataset") == pytest.approx(wanted)


def test_unknown_metric():
    with pytest.raises(ValueError, match="iou_changed"):
        image_metric("iou", [[1, 1, 1, 1]])
    assert set(metrics([[1, 1, 1, 1]], "dataset")) == set(METRICS) == set(module.METRICS)
