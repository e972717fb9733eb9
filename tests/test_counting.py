"""Boundaries, objects and probabilities, against slow countings of the definitions and against other libraries."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, precision_recall_curve
from torchmetrics.functional.classification import binary_calibration_error

from bitemporal.evaluation.counting import BINS, OBJECT_SIZES, TOLERANCE, count_probabilities, count_shapes
from bitemporal.evaluation.curves import calibration, threshold_curve
from bitemporal.evaluation.scores import boundary_scores, car_deciles


def blobs(seed, shape=(40, 52), ignored=True):
    """A mask and a label of overlapping rectangles and speckle."""
    random = np.random.default_rng(seed)
    images = []
    for _ in range(2):
        image = np.zeros(shape, np.uint8)
        for _ in range(random.integers(0, 6)):
            y, x = (random.integers(0, n) for n in shape)
            image[y : y + random.integers(1, 16), x : x + random.integers(1, 16)] = 1
        image ^= random.random(shape) < 0.01
        images.append(image)
    mask, label = images
    label[random.random(shape) < 0.3] |= mask[random.random(shape) < 0.3][0] if mask.any() else 0
    if ignored:
        label[:, : random.integers(0, 9)] = 255
    return mask, label


def edge_pixels(changed, valid):
    height, width = changed.shape
    found = set()
    for y, x in zip(*np.nonzero(changed), strict=True):
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        if any(0 <= a < height and 0 <= b < width and valid[a, b] and not changed[a, b] for a, b in around):
            found.add((int(y), int(x)))
    return found


def near(point, others):
    return any((point[0] - y) ** 2 + (point[1] - x) ** 2 <= TOLERANCE**2 for y, x in others)


def objects_of(changed):
    left, found = {(int(y), int(x)) for y, x in zip(*np.nonzero(changed), strict=True)}, []
    while left:
        stack, members = [left.pop()], []
        while stack:
            y, x = stack.pop()
            members.append((y, x))
            for a, b in itertools.product((-1, 0, 1), repeat=2):
                if (y + a, x + b) in left:
                    left.remove((y + a, x + b))
                    stack.append((y + a, x + b))
        found.append(members)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_boundaries_and_objects_are_those_of_the_definitions(seed):
    mask, label = blobs(seed, ignored=seed % 2 == 0)
    valid = label != 255
    predicted, true = (mask != 0) & valid, (label == 1) & valid
    ours, theirs = edge_pixels(predicted, valid), edge_pixels(true, valid)
    shapes = count_shapes(mask, label)
    assert shapes.boundary.tolist() == [
        len(ours),
        sum(near(point, theirs) for point in ours),
        len(theirs),
        sum(near(point, ours) for point in theirs),
    ]
    expected = np.zeros((3, 3), int)
    for members in objects_of(true):
        size = sum(len(members) > bound for bound in OBJECT_SIZES)
        hits = sum(bool(predicted[point]) for point in members)
        expected[size, 0 if 2 * hits >= len(members) else 1] += 1
    for members in objects_of(predicted):
        size = sum(len(members) > bound for bound in OBJECT_SIZES)
        if 2 * sum(bool(true[point]) for point in members) < len(members):
            expected[size, 2] += 1
    assert shapes.objects.tolist() == expected.tolist()


def test_what_is_counted_at_the_edges():
    label = np.zeros((12, 12), np.uint8)
    assert count_shapes(label, label).boundary.tolist() == [0, 0, 0, 0]
    label[:] = 1  # an image's edge is no boundary
    assert count_shapes(label, label).boundary.tolist() == [0, 0, 0, 0]
    label[:, 6:] = 255  # nor is that of what is ignored
    assert count_shapes(label, label).boundary.tolist() == [0, 0, 0, 0]
    label[:, 6:] = 0
    moved = np.roll(label, TOLERANCE, axis=1)
    moved[:, :TOLERANCE] = 1
    assert boundary_scores(count_shapes(moved, label).boundary[None])["f1"] == 1
    moved = np.roll(moved, 1, axis=1)
    moved[:, 0] = 1
    assert boundary_scores(count_shapes(moved, label).boundary[None])["f1"] == 0
    nothing = np.zeros_like(label)
    for prediction, truth in ((nothing, label), (label, nothing)):
        assert boundary_scores(count_shapes(prediction, truth).boundary[None])["f1"] == 0
    assert np.isnan(boundary_scores(count_shapes(nothing, nothing).boundary[None])["f1"])
    big = np.zeros((80, 80), np.uint8)
    big[10:50, 10:50] = 1
    assert count_shapes(big, big).objects.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]


@pytest.fixture
def probabilities():
    random = np.random.default_rng(5)
    label = (random.random((3, 64, 64)) < 0.2).astype(np.uint8)
    probability = np.clip(random.normal(0.3 + 0.35 * label, 0.2), 0, 0.9999).astype(np.float32)
    label[:, :5] = 255
    counts = [count_probabilities(p, t) for p, t in zip(probability, label, strict=True)]
    valid = label != 255
    return counts[0] + counts[1] + counts[2], probability[valid], label[valid]


def test_the_curve_is_that_of_every_threshold(probabilities):
    counts, probability, label = probabilities
    curve = threshold_curve(counts)
    for i, threshold in enumerate(curve.thresholds):
        above = (probability > np.float32(threshold)) | (threshold == 0)
        assert curve.recall[i] == pytest.approx((above & (label == 1)).sum() / (label == 1).sum())
        if above.any():
            assert curve.precision[i] == pytest.approx((above & (label == 1)).sum() / above.sum())
    assert curve.f1[curve.best] == np.nanmax(curve.f1)
    # scikit-learn on values that are the bins' upper ends
    binned = np.ceil(probability.astype(np.float64).round(6) * BINS)
    assert curve.average_precision == pytest.approx(average_precision_score(label, binned), abs=2e-4)
    precision, recall, _ = precision_recall_curve(label, binned)
    assert np.abs(np.interp(curve.recall[::-1], recall[::-1], precision[::-1]) - curve.precision[::-1])[5:].max() < 2e-2


def test_calibration_is_that_of_torchmetrics(probabilities):
    counts, probability, label = probabilities
    found = calibration(counts)
    expected = binary_calibration_error(torch.from_numpy(probability), torch.from_numpy(label).long(), n_bins=10)
    assert found.expected_error == pytest.approx(float(expected), abs=1e-5)
    assert found.pixels.sum() == len(label)


def test_a_decision_at_a_half_is_that_of_the_bins():
    probability = np.array([[0.5, np.nextafter(np.float32(0.5), np.float32(1)), 0.0, 1.0]], np.float32)
    counts = count_probabilities(probability, np.array([[1, 1, 0, 0]], np.uint8))
    curve = threshold_curve(counts)
    assert curve.recall[50] == 0.5
    assert counts.unchanged[0] == 1 and counts.unchanged[-1] == 1


def test_deciles_are_tenths_and_keep_equal_ratios_together():
    cars = np.concatenate([np.zeros(30), np.linspace(0.01, 0.9, 70), [np.nan]])
    groups = car_deciles(cars)
    assert sum(group.sum() for group in groups) == 100 and not any(group[-1] for group in groups)
    assert groups[0].sum() == 30 and [group.sum() for group in groups[1:]] == [10] * 7
    assert car_deciles(np.array([np.nan])) == []
    assert [group.sum() for group in car_deciles(np.array([0.2, 0.1]))] == [1, 1]


def test_a_probability_at_a_threshold_is_not_above_it():
    """Every hundredth, in the arithmetic of `probability > threshold`."""
    label = np.ones((1, 1), np.uint8)
    for k in range(100):
        probability = np.full((1, 1), k / 100, np.float32)
        curve = threshold_curve(count_probabilities(probability, label))
        recall = [float((probability > float(threshold)).mean()) for threshold in curve.thresholds]
        expected = [1.0, *recall[1:]]  # at threshold 0 everything is predicted
        assert curve.recall.tolist() == expected


def test_without_change_there_is_no_best_threshold():
    curve = threshold_curve(count_probabilities(np.linspace(0, 1, 50).reshape(5, 10), np.zeros((5, 10), np.uint8)))
    assert np.isnan(curve.f1).all() and np.isnan(curve.average_precision) and curve.best is None


@pytest.mark.parametrize(("hits", "found"), [(0, False), (3, False), (4, False), (5, True), (10, True)])
def test_an_object_is_found_from_half_of_its_pixels_on(hits, found):
    label, mask = np.zeros((3, 30), np.uint8), np.zeros((3, 30), np.uint8)
    label[1, 10:20] = 1
    mask[1, 20 - hits : 20] = 1
    assert count_shapes(mask, label).objects[0].tolist() == [int(found), int(not found), 0]
    # the other way round, what is predicted is invented below a half
    assert count_shapes(label, mask).objects[0].tolist() == [int(hits > 0), 0, int(not found)]
    assert count_shapes(label, mask).objects[1:].sum() == 0


def test_of_equal_scores_the_threshold_next_to_a_half_is_the_best():
    probability, label = np.array([[0.105, 0.905]], np.float32), np.array([[0, 1]], np.uint8)
    curve = threshold_curve(count_probabilities(probability, label))
    assert curve.f1[11:91].tolist() == [1.0] * 80 and curve.thresholds[curve.best] == 0.5
    assert curve.average_precision == 1.0


@pytest.mark.parametrize("pixels, row", [(64, 0), (65, 1), (1024, 1), (1025, 2)])
def test_an_object_at_the_limit_of_a_size_belongs_to_the_smaller_one(pixels, row):
    label = (np.arange(40 * 40) < pixels).reshape(40, 40)
    expected = np.zeros((3, 3), int)
    expected[row, 0] = 1
    assert count_shapes(label, label.astype(np.uint8)).objects.tolist() == expected.tolist()


def test_deciles_of_twelve_pairs_end_at_the_ranks_that_reach_each_tenth():
    """1.2 of 12 pairs are a tenth, which the second one reaches; 10.8 are nine tenths, which the eleventh reaches."""
    groups = car_deciles(np.arange(12) / 20)
    assert [int(group.sum()) for group in groups] == [2, 1, 1, 1, 1, 2, 1, 1, 1, 1]
