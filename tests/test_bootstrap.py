"""Intervals: against formulas, against scipy, and by how often they cover."""

import numpy as np
import pytest
from scipy import stats

from bitemporal.evaluation.bootstrap import (
    Estimate,
    Replicates,
    Resampling,
    difference,
    estimate,
    mean_difference,
    significant,
)
from bitemporal.metrics import METRICS, image_metric, metrics


def matrices(random, images, quality=0.8):
    """Confusion counts of images of 1000 pixels."""
    changed = random.integers(0, 400, images)
    found = random.binomial(changed, quality)
    false = random.binomial(1000 - changed, 0.05)
    return np.stack([1000 - changed - false, false, changed - found, found], axis=-1)


def test_the_value_is_that_of_the_metrics():
    counts = matrices(np.random.default_rng(0), 50)
    resampling = Resampling.of(50, 200)
    for averaging in ("dataset", "image_mean", "image_mean_empty_0"):
        expected = metrics(counts, averaging)
        for name in METRICS:
            estimated = estimate(Replicates(counts[None]), name, averaging, resampling)
            assert estimated.value == pytest.approx(expected[name], abs=1e-12)
            assert estimated.low <= estimated.value <= estimated.high
    two = np.stack([counts, counts[::-1]])
    assert estimate(Replicates(two, (0, 1)), "oa", "image_mean", resampling).value == pytest.approx(
        metrics(counts, "image_mean")["oa"]
    )


def test_intervals_are_those_of_scipy():
    counts = matrices(np.random.default_rng(1), 80)
    values = image_metric("iou_changed", counts)
    expected = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=3).confidence_interval
    estimated = estimate(Replicates(counts[None]), "iou_changed", "image_mean", Resampling.of(80, 4000))
    width = expected.high - expected.low
    assert estimated.low == pytest.approx(expected.low, abs=0.08 * width)
    assert estimated.high == pytest.approx(expected.high, abs=0.08 * width)

    def dataset(*columns, axis):
        _, fp, fn, tp = (np.sum(c, axis=axis) for c in columns)
        return tp / (tp + fp + fn)

    expected = stats.bootstrap(
        tuple(counts.T), dataset, paired=True, vectorized=True, n_resamples=4000, method="percentile", rng=3
    ).confidence_interval
    estimated = estimate(Replicates(counts[None]), "iou_changed", "dataset", Resampling.of(80, 4000))
    width = expected.high - expected.low
    assert estimated.low == pytest.approx(expected.low, abs=0.08 * width)
    assert estimated.high == pytest.approx(expected.high, abs=0.08 * width)


def test_a_group_of_images_is_as_those_alone():
    counts = matrices(np.random.default_rng(2), 60)
    chosen = np.arange(60) % 3 == 0
    whole = estimate(Replicates(counts[None]), "miou", "image_mean", Resampling.of(60, 3000), chosen)
    alone = estimate(Replicates(counts[None, chosen]), "miou", "image_mean", Resampling.of(20, 3000))
    assert whole.value == pytest.approx(alone.value)
    assert whole.high - whole.low == pytest.approx(alone.high - alone.low, rel=0.2)
    none = estimate(Replicates(counts[None]), "miou", "dataset", Resampling.of(60, 50), np.zeros(60, bool))
    assert np.isnan(none).all()


def test_what_both_find_hard_is_no_difference():
    random = np.random.default_rng(3)
    counts = matrices(random, 60)
    better = counts.copy()
    gain = np.minimum(better[:, 2], 2)
    better[:, 2] -= gain
    better[:, 3] += gain
    resampling = Resampling.of(60)
    first, second = Replicates(better[None]), Replicates(counts[None])
    own = [estimate(r, "miou", "dataset", resampling) for r in (first, second)]
    estimated = difference(first, second, "miou", "dataset", resampling)
    assert own[1].high > own[0].low  # each for itself says nothing
    assert significant(estimated) and estimated.value == pytest.approx(own[0].value - own[1].value)
    assert difference(first, first, "miou", "dataset", resampling) == (0, 0, 0)


def test_seeds_that_differ_widen_the_interval():
    random = np.random.default_rng(4)
    counts = matrices(random, 60)
    same = Replicates(np.stack([counts] * 3), (0, 1, 2))
    apart = Replicates(np.stack([matrices(random, 60, quality) for quality in (0.6, 0.8, 0.95)]), (0, 1, 2))
    resampling = Resampling.of(60)
    narrow = estimate(same, "miou", "dataset", resampling)
    assert narrow == pytest.approx(estimate(Replicates(counts[None]), "miou", "dataset", resampling))
    wide = estimate(apart, "miou", "dataset", resampling)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    assert 0 <= wide.low and wide.high <= 1
    # seeds that are the same in both are compared one by one
    assert difference(apart, apart, "miou", "dataset", resampling) == (0, 0, 0)


def test_the_error_of_the_seeds_is_that_of_the_t_test():
    """Images that are all alike leave the seeds' error alone."""
    good = np.array([900, 50, 10, 40])
    worse = np.array([900, 50, 20, 30])
    first, second = (
        Replicates(np.stack([np.tile(row + np.array([0, 0, -k, k]), (30, 1)) for k in ks]), (0, 1, 2))
        for row, ks in ((good, (0, 3, 7)), (worse, (1, 0, 6)))
    )
    resampling = Resampling.of(30, 20_000)

    def by_seed(replicates):
        return [metrics(counts, "dataset")["iou_changed"] for counts in replicates.counts]

    paired = stats.ttest_rel(by_seed(first), by_seed(second)).confidence_interval()
    estimated = difference(first, second, "iou_changed", "dataset", resampling)
    assert estimated[1:] == pytest.approx((paired.low, paired.high), rel=0.01)
    own = stats.ttest_1samp(by_seed(first), 0).confidence_interval()
    assert estimate(first, "iou_changed", "dataset", resampling)[1:] == pytest.approx((own.low, own.high), rel=0.01)
    # other seeds: not paired; Welch's degrees of freedom are 3.6 here
    others = Replicates(second.counts, (3, 4, 5))
    apart = stats.ttest_ind(by_seed(first), by_seed(others), equal_var=False)
    margin = apart.confidence_interval().high - (np.mean(by_seed(first)) - np.mean(by_seed(others)))
    estimated = difference(first, others, "iou_changed", "dataset", resampling)
    whole = int(apart.df)
    assert (estimated.high - estimated.low) / 2 == pytest.approx(
        margin * stats.t.ppf(0.975, whole) / stats.t.ppf(0.975, apart.df), rel=0.01
    )


def test_the_mean_over_networks_has_the_error_of_each_ones_seeds():
    """Of two networks it is Welch's, with the second's sign turned; how far the networks lie apart adds nothing."""
    resampling, cells = Resampling.of(30, 20_000), []
    for start, spread in ((np.array([900, 50, 10, 40]), (0, 3, 7)), (np.array([800, 100, 50, 50]), (9, 0, 4, 30, 2))):
        seeds = tuple(range(len(spread)))
        counts = np.stack([np.tile(start + np.array([0, 0, k, -k]), (30, 1)) for k in spread])
        cells.append((Replicates(counts, seeds), Replicates(np.stack([np.tile(start, (30, 1))] * len(spread)), seeds)))
    estimated = mean_difference(cells, "iou_changed", "dataset", resampling)
    own = [
        [
            metrics(a, "dataset")["iou_changed"] - metrics(b, "dataset")["iou_changed"]
            for a, b in zip(x.counts, y.counts, strict=True)
        ]
        for x, y in cells
    ]
    assert estimated.value == pytest.approx((np.mean(own[0]) + np.mean(own[1])) / 2)
    welch = stats.ttest_ind(own[0], -np.array(own[1]), equal_var=False)
    margin = (welch.confidence_interval().high - welch.confidence_interval().low) / 4
    margin *= stats.t.ppf(0.975, int(welch.df)) / stats.t.ppf(0.975, welch.df)
    assert (estimated.value - estimated.low, estimated.high - estimated.value) == pytest.approx(
        (margin, margin), rel=0.01
    )


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_equal_detectors_are_called_different_as_rarely_as_stated(seeds):
    """Trainings of one kind, whose seeds differ more than their images tell."""
    random, resampling = np.random.default_rng(6), Resampling.of(60, 400)

    def trained():
        return np.stack([matrices(random, 60, quality) for quality in random.normal(0.8, 0.03, seeds)])

    stars = [
        significant(
            difference(
                Replicates(trained(), tuple(range(seeds))),
                Replicates(trained(), tuple(range(seeds))),
                "miou",
                "dataset",
                resampling,
            )
        )
        for _ in range(200)
    ]
    assert np.mean(stars) <= 0.1


def test_what_is_undefined_for_some_seeds_has_no_difference():
    """The precision of a detector that finds nothing with one of its seeds."""
    counts = matrices(np.random.default_rng(8), 20)
    nothing = np.stack(
        [counts[:, 0] + counts[:, 1], 0 * counts[:, 0], counts[:, 2] + counts[:, 3], 0 * counts[:, 0]], -1
    )
    first = Replicates(np.stack([counts, nothing, counts]), (0, 1, 2))
    second = Replicates(np.stack([counts] * 3), (0, 1, 2))
    estimated = difference(first, second, "precision_changed", "dataset", Resampling.of(20, 100))
    assert np.isnan(estimated).all()
    assert np.isfinite(difference(first, second, "recall_changed", "dataset", Resampling.of(20, 100))).all()


def test_few_images_have_no_interval():
    counts = matrices(np.random.default_rng(7), 8)
    counts[4:] = 0  # without a valid pixel
    resampling = Resampling.of(8)
    for found in (
        estimate(Replicates(counts[None]), "miou", "dataset", resampling),
        difference(Replicates(counts[None]), Replicates(counts[None]), "miou", "dataset", resampling),
    ):
        assert np.isfinite(found.value) and np.isnan(found[1:]).all() and not significant(found)


def test_five_images_have_an_interval():
    estimated = estimate(Replicates(matrices(np.random.default_rng(8), 5)[None]), "miou", "dataset", Resampling.of(5))
    assert estimated.low < estimated.value < estimated.high


def test_other_seeds_draw_other_resamples_and_equal_ones_the_same():
    first, again, other = (Resampling.of(20, 50, seed).images for seed in (3, 3, 4))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_an_interval_stays_where_its_metric_can_be():
    """Two seeds of which one is right and one is wrong in every pixel: their spread reaches beyond both."""
    counts = np.array([[[50, 0, 0, 50]] * 10, [[0, 50, 50, 0]] * 10])
    replicates = Replicates(counts, (0, 1))
    for metric, lowest in (("iou_changed", 0.0), ("kappa", -1.0)):
        assert estimate(replicates, metric, "dataset", Resampling.of(10))[1:] == (lowest, 1.0)


@pytest.mark.parametrize(
    "low, high, expected",
    [(0.1, 0.3, True), (-0.3, -0.1, True), (-0.1, 0.1, False), (0.0, 0.1, False), (-0.1, 0.0, False)],
)
def test_a_difference_is_significant_where_its_interval_leaves_zero_out(low, high, expected):
    assert significant(Estimate((low + high) / 2, low, high)) is expected


@pytest.mark.parametrize("seeds", [1, 4])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(seeds):
    random = np.random.default_rng(5)
    truth = metrics(matrices(random, 100_000), "image_mean")["iou_changed"]
    hits = 0
    for _ in range(200):
        counts = np.stack([matrices(random, 40) for _ in range(seeds)])
        estimated = estimate(
            Replicates(counts, tuple(range(seeds))), "iou_changed", "image_mean", Resampling.of(40, 400, seed=1)
        )
        hits += estimated.low <= truth <= estimated.high
    assert 0.88 <= hits / 200 <= 1.0


def test_what_is_undefined_has_no_interval():
    nothing = np.tile([100, 0, 0, 0], (5, 1))
    estimated = estimate(Replicates(nothing[None]), "iou_changed", "dataset", Resampling.of(5, 50))
    assert np.isnan(estimated).all() and not significant(estimated)


def test_a_score_that_few_resamples_have_has_no_interval():
    """One image of forty has changed pixels: about a third of all resamples lack it, and have no recall."""
    counts = np.tile([100, 0, 0, 0], (40, 1))
    counts[0] = [50, 0, 20, 30]
    resampling = Resampling.of(40, 400)
    share = (resampling.images[:, 0] > 0).mean()
    assert 0.5 < share < 0.95
    estimated = estimate(Replicates(counts[None]), "recall_changed", "dataset", resampling)
    assert estimated.value == pytest.approx(0.6) and np.isnan(estimated[1:]).all() and not significant(estimated)
