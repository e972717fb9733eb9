import json
import math
import os
import pickle
import re
import shutil
import subprocess
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import huggingface_hub.errors
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from bitemporal import create_model, list_models
from bitemporal.errors import (
    BundleError,
    DataError,
    DeviceError,
    OptionError,
    OutputError,
    PartitionError,
    WeightsError,
)
from bitemporal.imagery.training_images import TrainingImages
from bitemporal.inference import (
    Answer,
    Detector,
    Ensemble,
    NetworkDetector,
    OriginPartition,
    Prediction,
    TestTimeAugmentation,
    load,
    loading,
    save_origin_partition,
)
from bitemporal.inference.bundle import load_network, save_bundle
from bitemporal.inference.combining import SlidingWindow
from bitemporal.inference.digests import with_digests
from bitemporal.method.car import CarPartition
from stub_networks import NORMALISATION, Passes, convolutional, images, pair_of_car, pointwise, register_stubs

pytestmark = pytest.mark.usefixtures("stubs")


def by_hand(model, before, after, multiple, minimum):
    """Probability of one pair, in numpy but for the network's own logits."""
    height, width = before.shape[:2]
    sides = [-(-max(side, minimum) // multiple) * multiple for side in (height, width)]
    padded = []
    for image in (before, after):
        values = (image.astype(np.float64) - NORMALISATION.mean) / NORMALISATION.std
        canvas = np.zeros((*sides, 3))
        canvas[:height, :width] = values
        padded.append(torch.from_numpy(canvas.transpose(2, 0, 1)[None].astype(np.float32)))
    with torch.no_grad():
        logits = model(*padded)[0].double().numpy()
    if len(logits) == 2:
        probability = np.exp(logits[1]) / np.exp(logits).sum(0)
    else:
        # 0.5 where the network's own sigmoid stands at its own threshold
        odds = np.exp(logits[0]) * (1 - model.threshold) / model.threshold
        probability = odds / (1 + odds)
    return probability[:height, :width]


# ---------------------------------------------------------------- how images are read

OWN = {"bands": (4, 2, 1), "image_range": (0.0, 100.0)}
EACH = {"bands": (4, 2, 1), "image_range": (0.0, 1.0, 0.0, 2.0, 0.0, 3.0)}


@pytest.mark.parametrize(
    ("known", "stated", "bands", "image_range"),
    [
        ({}, {}, None, None),
        ({}, {"image_range": (5.0, 6.0)}, None, (5.0, 6.0)),
        (OWN, {}, (4, 2, 1), (0.0, 100.0)),
        (OWN, {"image_range": (5.0, 6.0)}, (4, 2, 1), (5.0, 6.0)),
        (OWN, {"bands": (1, 2, 3)}, (1, 2, 3), (0.0, 100.0)),
        (OWN, {"bands": (2,)}, (2, 2, 2), (0.0, 100.0)),
        (EACH, {}, (4, 2, 1), EACH["image_range"]),
        (EACH, {"bands": (1, 2, 3)}, (1, 2, 3), None),  # the ranges are those of other bands
    ],
)
def test_images_are_read_as_stated_else_as_in_the_training(known, stated, bands, image_range):
    reading = NetworkDetector(pointwise(), trained_on=TrainingImages(**known)).reading(**stated)
    assert (reading.channels, reading.bands, reading.image_range) == (3, bands, image_range)


def test_a_detector_of_other_channels_takes_the_first_bands():
    detector = NetworkDetector(create_model("test_tinycd", in_channels=2))
    assert detector.reading().bands == (1, 2)
    with pytest.raises(OptionError, match=r"bands: found \(1, 2, 3\), expected 2, .*--bands 1,2"):
        detector.reading((1, 2, 3))


# ---------------------------------------------------------------- one network


@pytest.mark.parametrize("logits", [1, 2])
def test_any_size_equals_padding_by_hand(logits):
    model = convolutional(seed=3, logits=logits)
    detector = NetworkDetector(model)
    for height in range(1, 71):
        width = 1 + height * 29 % 70
        before, after = images(height, height, width), images(-height % 997, height, width)
        prediction = detector.predict(before, after)
        expected = by_hand(model, before, after, multiple=4, minimum=16)
        assert prediction.probability.shape == prediction.mask.shape == (height, width)
        assert prediction.probability.dtype == np.float32 and prediction.mask.dtype == np.uint8
        np.testing.assert_allclose(prediction.probability, expected, atol=2e-6)
        certain = abs(expected - 0.5) > 1e-5
        assert np.array_equal(prediction.mask[certain], (expected > 0.5)[certain])
        assert prediction.part is None


def test_size_without_padding_is_exactly_the_network():
    model = convolutional(seed=1)
    before, after = (torch.from_numpy(images(s, 32, 48, 3)).permute(0, 3, 1, 2) for s in (1, 2))
    normalise = model.card.normalisation
    with torch.no_grad():
        expected = model.probability(model(normalise(before), normalise(after)))
    assert torch.equal(NetworkDetector(model).probabilities(before, after), expected)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=6),
    st.integers(0, 1000),
)
def test_batches_of_any_sizes_equal_singles(sizes, seed):
    with pytest.MonkeyPatch.context() as patch:
        register_stubs(patch)
        detector = NetworkDetector(convolutional(seed=5))
    pairs = [(images(seed + i, *size), images(seed + 99 - i, *size)) for i, size in enumerate(sizes)]
    together = detector.predict([a for a, _ in pairs], [b for _, b in pairs])
    assert isinstance(together, list)
    for (before, after), found in zip(pairs, together, strict=True):
        np.testing.assert_allclose(found.probability, detector.predict(before, after).probability, atol=1e-5)


@pytest.mark.parametrize(("size", "passes_of"), [((256, 256), [1] * 5), ((128, 128), [4, 1]), ((300, 64), [3, 2])])
def test_a_cpu_takes_large_images_one_by_one(size, passes_of):
    model = convolutional(seed=1)
    passes = Passes(model)
    before, after = (images(seed, *size, count=5) for seed in (0, 1))
    found = NetworkDetector(model).predict(before, after)
    assert passes.sizes == passes_of
    for i, prediction in enumerate(found):
        alone = NetworkDetector(model).predict(before[i], after[i])
        np.testing.assert_allclose(prediction.probability, alone.probability, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_the_callers_tensors_stay_as_they_are(dtype):
    model = convolutional(seed=1)
    for height, width in ((32, 48), (30, 41)):
        given = [torch.from_numpy(images(seed, height, width)).permute(2, 0, 1).to(dtype) for seed in (1, 2)]
        kept = [image.clone() for image in given]
        NetworkDetector(model).answers([given[0]], [given[1]])
        NetworkDetector(model).probabilities(given[0][None], given[1][None])
        model.prepare(given[0][None])
        assert all(torch.equal(image, old) for image, old in zip(given, kept, strict=True))


def test_networks_of_unlike_multiples_share_the_least_common_one():
    class Twelve(Detector):
        multiple = 12

        def answers(self, before, after, valid=None):
            return []

    network = NetworkDetector(pointwise())
    assert network.multiple == 8
    for combined in (Ensemble([network, Twelve()]), OriginPartition(network, {"small": Twelve()}, CarPartition())):
        assert combined.multiple == 24
    assert TestTimeAugmentation(Ensemble([network, Twelve()]), None, (0.5, 1.0, 4 / 3)).multiple == 24 * 6


def test_scales_have_their_effect_without_augmentation(tmp_path):
    save_bundle(tmp_path / "bundle", convolutional(seed=3))
    before, after = images(1, 40, 56), images(2, 40, 56)
    found = loading.compose([tmp_path / "bundle"], "cpu", scales=(0.5,)).predict(before, after).probability
    expected = TestTimeAugmentation(load(tmp_path / "bundle", "cpu"), None, (0.5,)).predict(before, after).probability
    np.testing.assert_array_equal(found, expected)
    plain = loading.compose([tmp_path / "bundle"], "cpu").predict(before, after).probability
    assert abs(found - plain).max() > 0.01


@pytest.mark.parametrize("key", ["mean", "std"])
def test_a_bundle_answers_with_its_own_normalisation(key, tmp_path):
    """What the card says by now does not matter: the network was trained with the values of the bundle."""
    model = convolutional(seed=3)
    trained_with = replace(NORMALISATION, **{key: (30.0, 40.0, 50.0)})
    model.card = replace(model.card, normalisation=trained_with)
    save_bundle(tmp_path / "bundle", model)
    before, after = images(1, 32, 48), images(2, 32, 48)
    dates = [
        torch.from_numpy(
            ((date - np.array(trained_with.mean)) / trained_with.std).transpose(2, 0, 1)[None].astype(np.float32)
        )
        for date in (before, after)
    ]
    with torch.no_grad():
        expected = torch.softmax(model(*dates), 1)[0, 1].numpy()
    found = load(tmp_path / "bundle", "cpu").predict(before, after).probability
    np.testing.assert_allclose(found, expected, atol=1e-5)
    by_the_card = NetworkDetector(convolutional(seed=3)).predict(before, after).probability
    assert abs(by_the_card - expected).max() > 0.01


def test_members_of_an_ensemble_read_images_by_one_range():
    ranges = (None, (0.0, 100.0), (0.0, 200.0))
    bare, low, high = (NetworkDetector(pointwise(), trained_on=TrainingImages(image_range=r)) for r in ranges)
    assert len(Ensemble([bare, low, low]).members) == 3
    with pytest.raises(OptionError, match="its members take different images"):
        Ensemble([low, high])


def test_images_are_averaged_where_they_are_made_smaller():
    """Stripes whose bright columns lie between those that interpolation alone would look at."""
    seen = []

    class Noting(Detector):
        def answers(self, before, after, valid=None):
            seen.extend(before)
            return [Answer(torch.zeros(1, *image.shape[-2:])) for image in before]

    image = torch.tensor([255.0, 0.0, 0.0, 255.0]).repeat(8).expand(3, 32, 32)
    TestTimeAugmentation(Noting(), None, (0.25,)).answers([image], [image])
    assert seen[0].shape == (3, 8, 8) and seen[0].mean() == pytest.approx(127.5, abs=15)


@pytest.mark.parametrize("views", [("flips", (1.0,)), (None, (0.5,)), ("rotations", (1.0, 2.0))])
def test_valid_pixels_go_with_the_views(views):
    """In every view, what counts is where the image is not black."""
    seen = []

    class Noting(Detector):
        def answers(self, before, after, valid=None):
            for image, counted in zip(before, valid, strict=True):
                seen.append((image, counted))
            return [Answer(torch.zeros(1, *image.shape[-2:])) for image in before]

    image = torch.zeros(3, 16, 32)
    image[:, :8, 4:20] = 200.0
    TestTimeAugmentation(Noting(), *views).answers([image], [image], [image[0] > 0])
    assert len(seen) == (1 if views[0] is None else 4 * len(views[1]))
    for shown, counted in seen:
        assert counted.dtype == torch.bool and counted.shape == shown.shape[-2:] and 0 < counted.float().mean() < 1
        assert torch.equal(counted, shown[0] > 100)


def test_sizes_that_pad_alike_share_a_pass():
    model = convolutional(seed=2)
    passes = Passes(model)
    sizes = [(17, 20), (20, 18), (40, 40), (19, 17), (39, 37)]
    NetworkDetector(model).predict([images(0, *s) for s in sizes], [images(1, *s) for s in sizes])
    assert sorted(passes.sizes) == [2, 3]


def test_all_forms_of_input_give_one_answer(tmp_path):
    detector = NetworkDetector(convolutional(seed=7))
    before, after = images(1, 21, 33, 2), images(2, 21, 33, 2)
    paths = [[tmp_path / f"{date}{i}.png" for i in range(2)] for date in "ab"]
    for stack, files in zip((before, after), paths, strict=True):
        for image, file in zip(stack, files, strict=True):
            Image.fromarray(image).save(file)
    tensors = [torch.from_numpy(stack).permute(0, 3, 1, 2) for stack in (before, after)]
    read_only = before.copy()
    read_only.flags.writeable = False
    batches = [
        (list(before), list(after)),
        (before, after),
        (read_only, after[:, ::-1].copy()[:, ::-1]),
        (before.astype(np.float64), after.astype(">f4")),
        tuple(tensors),
        (tensors[0].double(), tensors[1].half()),
        (paths[0], [str(p) for p in paths[1]]),
        ((paths[0][0], before[1]), [after[0], tensors[1][1]]),
    ]
    expected = detector.predict(before[0], after[0]), detector.predict(before[1], after[1])
    for batch in batches:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            predictions = detector.predict(*batch)
        for found, single in zip(predictions, expected, strict=True):
            np.testing.assert_allclose(found.probability, single.probability, atol=1e-5)
    for single in ((before[0], after[0]), (tensors[0][0], tensors[1][0]), (paths[0][0], str(paths[1][0]))):
        found = detector.predict(*single)
        assert isinstance(found, Prediction)
        np.testing.assert_allclose(found.probability, expected[0].probability, atol=1e-5)
    assert detector.predict([], []) == []
    assert detector.probabilities(tensors[0][:0], tensors[1][:0]).shape == (0, 1, 21, 33)


GOOD = np.zeros((20, 20, 3), np.uint8)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (GOOD, GOOD[:19], ["20 x 20", "19 x 20"]),
        ([GOOD, GOOD], [GOOD, GOOD[:, :5]], ["pair 1", "20 x 5"]),
        (GOOD[..., 0], GOOD[..., 0], ["before", "(20, 20)", "H x W x 3"]),
        (GOOD, GOOD.transpose(2, 0, 1), ["after", "(3, 20, 20)", "channels last"]),
        (np.zeros((20, 20, 4), np.uint8), GOOD, ["alpha"]),
        (torch.zeros(20, 20, 3), torch.zeros(20, 20, 3), ["(20, 20, 3)", "3 x H x W"]),
        (torch.zeros(20, 20), torch.zeros(20, 20), ["(20, 20)"]),
        (GOOD.astype(np.uint16), GOOD, ["uint16", "uint8 or float"]),
        (torch.zeros(3, 4, 4, dtype=torch.int64), torch.zeros(3, 4, 4), ["int64"]),
        (np.full((4, 4, 3), np.nan), GOOD[:4, :4], ["NaN or infinity", "nan_to_num"]),
        (np.full((4, 4, 3), np.inf), GOOD[:4, :4], ["NaN or infinity", "nan_to_num"]),
        (GOOD[:4, :4], np.full((4, 4, 3), 256.0), ["after", "256", "0..255"]),
        (np.full((4, 4, 3), -1.5), GOOD[:4, :4], ["-1.5"]),
        (GOOD[:0], GOOD[:0], ["has no pixel", "0 x 20"]),
        (GOOD, [GOOD], ["one image", "batch of 1"]),
        ([GOOD], [GOOD, GOOD], ["batch of 1", "batch of 2"]),
        ([GOOD[None]], [GOOD[None]], ["before[0]", "one image"]),
        (7, GOOD, ["before", "int"]),
        ("nowhere.png", GOOD, ["nowhere.png"]),
        (str(Path(__file__).parent), GOOD, ["is a folder, expected an image"]),
    ],
)
def test_unusable_input_is_refused_in_words(before, after, words):
    with pytest.raises(DataError) as caught:
        NetworkDetector(convolutional(seed=0)).predict(before, after)
    for word in words:
        assert word in str(caught.value)


def test_values_of_other_types_are_brought_in_as_the_error_says():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    detector = NetworkDetector(convolutional(seed=0))
    expected = detector.predict(image, image[::-1]).probability
    foreign = [
        image.astype(np.int64),
        image.astype(">u2"),
        torch.from_numpy(image).permute(2, 0, 1).int(),
        Image.fromarray(image[..., 0].astype(np.uint16)),
    ]
    for values in foreign:
        with pytest.raises(DataError) as caught:
            detector.predict(values, image[::-1])
        (given,) = re.findall(r"give (.+?);", str(caught.value))
        code, _, values_are = given.partition(" of values = ")
        names = {"torch": torch, "numpy": np, "values": values, "image": values}
        names["values"] = eval(values_are, names) if values_are else values
        converted = eval(code, names)
        if converted.ndim == 2:  # the network needs three bands, which another error says
            assert (converted == image[..., 0]).all()
        else:
            assert (detector.predict(converted, image[::-1]).probability == expected).all()
    (scaling,) = re.findall(r"as in (.+) for values of 0..3000", str(caught.value))
    scaled = eval(scaling, {"values": image.astype(np.uint16) * 10})
    assert np.allclose(scaled, image * 0.85)
    detector.predict(scaled, image)


def test_core_refuses_what_is_no_batch():
    detector = NetworkDetector(convolutional(seed=0))
    image = torch.zeros(1, 3, 8, 8)
    for before, after in (
        (image[0], image[0]),
        (image[:, :1], image[:, :1]),
        (image, image[..., :4]),
        (image - 1, image),
    ):
        for each in (detector, OriginPartition(detector, {}, CarPartition())):
            with pytest.raises(DataError):
                each.probabilities(before, after)


def test_floats_up_to_one_are_warned_of_and_black_images_are_not():
    detector = NetworkDetector(convolutional(seed=0))
    with pytest.warns(UserWarning, match="multiply by 255"):
        detector.predict(np.full((5, 5, 3), 0.7), np.zeros((5, 5, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.predict(np.zeros((5, 5, 3)), np.ones((5, 5, 3), np.uint8))


def test_network_and_random_numbers_are_left_alone(tmp_path):
    model = convolutional(seed=4).train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    save_bundle(tmp_path / "bundle", model)
    torch.manual_seed(11)
    generator = torch.get_rng_state()
    detector = NetworkDetector(model)
    probability = detector.probabilities(torch.full((2, 3, 9, 9), 90.0), torch.zeros(2, 3, 9, 9))
    load(tmp_path / "bundle", "cpu")
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not probability.requires_grad and not probability.is_inference()
    answer = detector.answers([torch.full((3, 9, 9), 90.0)], [torch.zeros(3, 9, 9)])[0]
    assert not answer.probability.is_inference()
    assert torch.equal(
        probability,
        NetworkDetector(convolutional(seed=4)).probabilities(torch.full((2, 3, 9, 9), 90.0), torch.zeros(2, 3, 9, 9)),
    )


def test_a_detector_puts_its_network_into_evaluation_mode_once():
    model = convolutional(seed=4).train()
    detector = NetworkDetector(model)
    assert not any(module.training for module in model.modules())
    model.train()  # as a training loop around it may do
    with pytest.raises(OptionError, match=r"training mode.*eval\(\)"):
        detector.predict(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9, 3), np.uint8))
    model.eval()
    detector.predict(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9, 3), np.uint8))


@pytest.mark.parametrize("name", list_models("test_*"))
def test_threads_that_share_a_detector_get_what_one_thread_gets(name, tmp_path):
    """Of every family, alone and under Origin-Partition and test-time augmentation; from arrays and from files."""
    torch.manual_seed(0)
    networks = [NetworkDetector(create_model(name)) for _ in range(2)]
    routed = OriginPartition(networks[0], {"large": networks[1]}, CarPartition())
    detector = Ensemble([networks[0], TestTimeAugmentation(routed, "flips")])
    rng = np.random.default_rng(3)
    side = max(32, networks[0].model.card.minimum)
    pairs = [tuple(rng.integers(0, 256, (2, side + k, side, 3), dtype=np.uint8)) for k in range(6)]
    for number, dates in enumerate(pairs[:3]):
        for date, image in zip("ab", dates, strict=True):
            Image.fromarray(image).save(tmp_path / f"{number}{date}.png")
        pairs[number] = (tmp_path / f"{number}a.png", tmp_path / f"{number}b.png")
    alone = [detector.predict(*pair) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pair: detector.predict(*pair), pairs * 2))
    for one, two in zip(alone * 2, together, strict=True):
        assert np.array_equal(one.probability, two.probability)


@pytest.mark.parametrize("combined", ["ensemble", "ways", "tiles", "origin-partition"])
def test_a_combination_answers_where_its_networks_are_even_an_empty_batch(combined):
    network = NetworkDetector(pointwise().to("meta"))
    detector = {
        "ensemble": Ensemble([network]),
        "ways": TestTimeAugmentation(network, "flips"),
        "tiles": SlidingWindow(network, 64),
        "origin-partition": OriginPartition(network, {}, CarPartition((0.1,))),
    }[combined]
    empty = torch.zeros(0, 3, 20, 30, dtype=torch.uint8)
    probabilities = detector.probabilities(empty, empty)
    assert probabilities.shape == (0, 1, 20, 30)
    assert probabilities.device == detector.device == torch.device("meta")


def test_network_of_no_numbers_is_no_empty_mask():
    model = convolutional(seed=4)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(WeightsError, match="stub_convolutional"):
        NetworkDetector(model).predict(GOOD, GOOD)


# ---------------------------------------------------------------- Origin-Partition


def teachers(*parts):
    return {part: NetworkDetector(convolutional(seed=20 + i)) for i, part in enumerate(parts)}


@pytest.mark.parametrize(
    ("changed", "part"),
    [(0, "small"), (20, "small"), (21, "medium"), (80, "medium"), (81, "large"), (400, "large")],
)
def test_part_ends_at_its_threshold(changed, part):
    """400 pixels: 20 are 0.05 exactly, 80 are 0.20; the network pads to 24 x 24, which must not count."""
    detector = OriginPartition(
        NetworkDetector(pointwise()), teachers("small", "medium", "large"), CarPartition((0.05, 0.20))
    )
    before, after = pair_of_car(changed)
    prediction = detector.predict(before, after)
    assert prediction.part == part
    expected = detector.teachers[part].predict(before, after)
    assert np.array_equal(prediction.probability, expected.probability)


def test_mask_routes_not_the_probability():
    """All pixels at 0.38, below the network's threshold: the mask is empty, so the part is small."""
    detector = OriginPartition(NetworkDetector(pointwise(bias=-100.5)), {}, CarPartition())
    before, after = pair_of_car(400)
    prediction = detector.predict(before, after)
    assert prediction.part == "small" and not prediction.mask.any()
    np.testing.assert_allclose(prediction.probability, 1 / (1 + np.exp(0.5)), atol=1e-4)


def test_batch_is_routed_as_by_hand_in_few_passes():
    origin = pointwise()
    names = CarPartition((0.02, 0.1, 0.5)).names
    models = {name: convolutional(seed=i) for i, name in enumerate(names) if name != "part3"}
    pairs = [pair_of_car(c, seed=c) for c in (0, 30, 300, 100, 5, 40, 39, 400, 150)]
    expected = []
    for before, after in pairs:  # image by image, with counted pixels
        first = by_hand(origin, before, after, multiple=8, minimum=8)
        car = int((first > 0.5).sum()) / first.size
        name = names[sum(car > limit for limit in (0.02, 0.1, 0.5))]
        model = models.get(name)
        expected.append((name, by_hand(model, before, after, 4, 16) if model else first))
    assert {name for name, _ in expected} == set(names)  # all parts occur, also the empty one
    passes = {name: Passes(model) for name, model in {"origin": origin, **models}.items()}
    detector = OriginPartition(
        NetworkDetector(origin), {n: NetworkDetector(m) for n, m in models.items()}, CarPartition((0.02, 0.1, 0.5))
    )
    found = detector.predict([a for a, _ in pairs], [b for _, b in pairs])
    for prediction, (name, probability) in zip(found, expected, strict=True):
        assert prediction.part == name
        np.testing.assert_allclose(prediction.probability, probability, atol=2e-6)
    assert passes["origin"].sizes == [9]
    for name in models:
        assert passes[name].sizes == [sum(part == name for part, _ in expected)]


def test_batch_of_five_equals_five_singles_whatever_their_order():
    detector = OriginPartition(NetworkDetector(pointwise()), teachers("small", "large"), CarPartition())
    pairs = [pair_of_car(c, 24, 16, seed=c) for c in (3, 60, 200, 9, 300)]
    singles = [detector.predict(*pair) for pair in pairs]
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 1, 3]):
        before, after = (torch.from_numpy(np.stack([pairs[i][k] for i in order])).permute(0, 3, 1, 2) for k in (0, 1))
        batch = detector.probabilities(before, after)
        assert batch.shape == (5, 1, 24, 16)
        for i, probability in zip(order, batch, strict=True):
            np.testing.assert_allclose(probability[0].numpy(), singles[i].probability, atol=1e-5)


def test_detector_of_ones_own_serves_as_origin():
    class Everything(Detector):
        def answers(self, before, after, valid=None):
            return [Answer(torch.ones(1, *image.shape[-2:])) for image in before]

    sizes = [(5, 6), (7, 8), (5, 6)]
    batch = [images(i, *size) for i, size in enumerate(sizes)]
    alone = Everything().predict(batch, batch)
    routed = OriginPartition(Everything(), {}, CarPartition.of_paper(2)).predict(batch, batch)
    assert [p.mask.shape for p in alone] == [p.mask.shape for p in routed] == sizes
    assert all(p.mask.all() for p in (*alone, *routed))
    assert [p.part for p in routed] == ["large"] * 3


def test_a_pair_without_a_valid_pixel_goes_to_the_first_part():
    detector = OriginPartition(NetworkDetector(pointwise()), {}, CarPartition.of_paper(2))
    before, after = (torch.from_numpy(image).permute(2, 0, 1) for image in pair_of_car(400))
    valid = torch.zeros(before.shape[-2:], dtype=torch.bool)
    assert [answer.part for answer in detector.answers([before] * 2, [after] * 2, [valid, ~valid])] == [
        "small",
        "large",
    ]


def test_the_detector_of_the_documentation_works():
    page = (Path(__file__).parents[1] / "docs/inference.md").read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "(Detector)" in block)
    names = {}
    exec(code, names)
    sizes = [(5, 6), (7, 8), (5, 6)]
    batch = [images(i, *size) for i, size in enumerate(sizes)]
    detector = Ensemble([names["Brightness"]()])
    assert [p.mask.sum() for p in detector.predict(batch, batch)] == [0, 0, 0]
    assert detector.predict(np.zeros((4, 5, 3), np.uint8), np.full((4, 5, 3), 255, np.uint8)).mask.all()
    assert detector.probabilities(*torch.zeros(2, 3, 3, 9, 7, dtype=torch.uint8)).shape == (3, 1, 9, 7)


def test_teacher_of_no_part_is_refused(tmp_path):
    with pytest.raises(PartitionError, match="medium"):
        OriginPartition(NetworkDetector(pointwise()), teachers("medium"), CarPartition.of_paper(2))
    save_bundle(tmp_path / "a", pointwise())
    with pytest.raises(PartitionError, match="medium"):
        save_origin_partition(tmp_path / "b", tmp_path / "a", {"medium": tmp_path / "a"}, CarPartition.of_paper(2))


# ---------------------------------------------------------------- bundles


@pytest.fixture
def bundles(tmp_path):
    save_bundle(tmp_path / "origin", pointwise())
    for i, part in enumerate(("small", "large")):
        save_bundle(tmp_path / part, convolutional(seed=30 + i))
    return tmp_path


def test_origin_partition_bundle_stands_alone(bundles):
    partition = CarPartition((0.04, 0.3))
    sources = {part: bundles / part for part in ("small", "large")}
    for _ in range(2):  # the second replaces the first
        save_origin_partition(bundles / "op", bundles / "origin", sources, partition, {"data": "x"})
    pairs = [pair_of_car(c, 17, 19, seed=c) for c in (0, 50, 200)]
    before, after = [a for a, _ in pairs], [b for _, b in pairs]
    detectors = {part: load(path, "cpu") for part, path in sources.items()}
    expected = OriginPartition(load(bundles / "origin", "cpu"), detectors, partition).predict(before, after)
    for path in (bundles / "origin", *sources.values()):
        shutil.rmtree(path)
    moved = bundles / "elsewhere"
    (bundles / "op").rename(moved)
    detector = load(moved, "cpu")
    assert isinstance(detector, OriginPartition) and detector.partition == partition
    for a, b in zip(detector.predict(before, after), expected, strict=True):
        assert a.part == b.part and np.array_equal(a.probability, b.probability)
    assert {p.part for p in expected} == {"small", "medium", "large"}
    description = json.loads((moved / "bundle.json").read_text())
    assert description["kind"] == "origin-partition" and description["thresholds"] == [0.04, 0.3]
    assert sorted(p.relative_to(moved).as_posix() for p in moved.rglob("*") if p.is_file()) == [
        "bundle.json", "large/bundle.json", "large/weights.safetensors", "origin/bundle.json",
        "origin/weights.safetensors", "small/bundle.json", "small/weights.safetensors",
    ]  # fmt: skip


def test_origin_partition_needs_whole_networks_and_leaves_the_old_bundle(bundles):
    save_origin_partition(bundles / "op", bundles / "origin", {}, CarPartition())
    old = (bundles / "op" / "bundle.json").read_bytes()
    (bundles / "small" / "weights.safetensors").unlink()
    for origin, small in (("op", "large"), ("nowhere", "large"), ("origin", "small")):
        with pytest.raises(BundleError):
            save_origin_partition(bundles / "op", bundles / origin, {"small": bundles / small}, CarPartition())
    assert (bundles / "op" / "bundle.json").read_bytes() == old
    assert sorted(p.name for p in bundles.iterdir()) == ["large", "op", "origin", "small"]


@pytest.mark.parametrize("name", ["origin", "small"])
def test_origin_partition_never_replaces_what_it_is_made_of(bundles, name):
    before = {path.name: path.read_bytes() for path in (bundles / name).iterdir()}
    with pytest.raises(OutputError, match=rf"{name}\b.*; choose another folder"):
        save_origin_partition(
            bundles / name, bundles / "origin", {"small": bundles / "small"}, CarPartition(), overwrite=True
        )
    assert {path.name: path.read_bytes() for path in (bundles / name).iterdir()} == before


def test_origin_partition_bundle_of_format_1_is_read(bundles):
    """Format 1 listed the teachers under another key."""
    save_origin_partition(bundles / "op", bundles / "origin", {"small": bundles / "small"}, CarPartition())
    path = bundles / "op" / "bundle.json"
    description = json.loads(path.read_text())
    assert description["format"] == 2
    del description["sha256"]  # there was none
    path.write_text(json.dumps(description | {"format": 1, "specialists": description.pop("teachers")}))
    assert "teachers" not in json.loads(path.read_text())
    assert set(load(bundles / "op", "cpu").teachers) == {"small"}


def _edit(**fields):
    def edit(folder):
        path = folder / "bundle.json"
        description = json.loads(path.read_text()) | fields
        del description["sha256"]  # as in bundles of earlier versions: what is wrong is found without it
        path.write_text(json.dumps(description))

    return edit


def _cut(share):
    def cut(folder):
        path = folder / "weights.safetensors"
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return cut


def _claim_more(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes().replace(b"data_offsets", b"data_offsetz", 1))


DAMAGE = {
    "empty weights": _cut(0),
    "half the weights": _cut(0.5),
    "most of the weights": _cut(0.99),
    "another header": _claim_more,
    "huge header": lambda f: (f / "weights.safetensors").write_bytes(b"\xff" * 64),
    "no weights": lambda f: (f / "weights.safetensors").unlink(),
    "no description": lambda f: (f / "bundle.json").unlink(),
    "description cut": lambda f: (f / "bundle.json").write_text('{"format": 1, "ki'),
    "description no text": lambda f: (f / "bundle.json").write_bytes(b"\xff\xfe\x00"),
    "description a list": lambda f: (f / "bundle.json").write_text("[1, 2]"),
    "newer format": _edit(format=99),
    "other kind": _edit(kind="ensemble"),
    "other model": _edit(model="no_such_model"),
    "other weights": _edit(model="stub_pointwise", config={}),
    "other option": _edit(config={"logits": 1}),
    "options no mapping": _edit(config=3),
    "option of another type": _edit(config={"logits": "two"}),
    "model no name": _edit(model=["stub_convolutional"]),
    "unknown option": _edit(config={"depth": 3}),
    "normalisation a list": _edit(normalisation=[0.0, 1.0]),
    "normalisation of two channels": _edit(normalisation={"mean": [0.0, 0.0], "std": [1.0, 1.0]}),
    "normalisation without std": _edit(normalisation={"mean": [0.0, 0.0, 0.0]}),
    "normalisation by zero": _edit(normalisation={"mean": [0.0, 0.0, 0.0], "std": [1.0, 0.0, 1.0]}),
    "normalisation beyond floats": _edit(normalisation={"mean": [0.0, 0.0, 0.0], "std": [1.0, 10**400, 1.0]}),
    "normalisation without numbers": _edit(normalisation={"mean": [0.0, "nan", 0.0], "std": [1.0, 1.0, 1.0]}),
    "normalisation in words": _edit(normalisation={"mean": "abc", "std": "abc"}),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", ["network", "origin-partition"])
def test_damaged_bundle_is_a_clear_error(bundles, damage, kind):
    folder = bundles / "small"
    if kind == "origin-partition":
        save_origin_partition(bundles / "op", bundles / "origin", {"small": folder}, CarPartition())
        folder = bundles / "op" / "small"
    load(folder, "cpu")
    DAMAGE[damage](folder)
    with pytest.raises(BundleError) as caught:
        load(bundles / "op" if kind == "origin-partition" else folder, "cpu")
    assert str(folder) in str(caught.value)


def flipped(path, place=-7, bit=0):
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def digest_of(path):
    return subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]


def test_bundles_carry_the_digest_of_every_file(bundles):
    save_origin_partition(bundles / "op", bundles / "origin", {"small": bundles / "small"}, CarPartition())
    for folder in (bundles / "small", bundles / "op"):
        digests = json.loads((folder / "bundle.json").read_text())["sha256"]
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert digests.keys() == files
        assert all(digests[name] == digest_of(folder / name) for name in files - {"bundle.json"})


@pytest.mark.parametrize(
    "name", ["small/weights.safetensors", "small/bundle.json", "origin/bundle.json", "bundle.json"]
)
def test_one_bit_that_has_changed_is_noticed(bundles, name):
    save_origin_partition(bundles / "op", bundles / "origin", {"small": bundles / "small"}, CarPartition())
    number = re.search(rb"\d(?=\.\d)", (bundles / "op" / name).read_bytes()) if name.endswith("json") else None
    flipped(bundles / "op" / name, number.start() if number else -7)
    with pytest.raises(BundleError, match=rf"{name}: cannot be read \(its SHA-256 is"):
        load(bundles / "op", "cpu")
    if "small" in name:
        with pytest.raises(BundleError, match=r"its SHA-256 is"):
            load(bundles / "op" / "small", "cpu")
        with pytest.raises(BundleError, match=r"its SHA-256 is"):
            save_origin_partition(bundles / "new", bundles / "op" / "small", {}, CarPartition())


def without_digests(folder):
    description = json.loads((folder / "bundle.json").read_text())
    del description["sha256"]
    (folder / "bundle.json").write_text(json.dumps(description))


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("bit", [0, 1, 2, 5])
def test_a_bit_that_has_changed_in_the_name_of_the_digests_is_noticed(bundles, place, bit):
    file = bundles / "small" / "bundle.json"
    flipped(file, file.read_bytes().index(b'"sha256"') + 1 + place, bit)
    flipped(bundles / "small" / "weights.safetensors")
    with pytest.raises(BundleError, match=r"bundle.json: (has no sha256, and an unknown field|cannot be read)"):
        load(bundles / "small", "cpu")


def test_bundles_without_digests_load_and_their_copies_have_them(bundles):
    for name in ("origin", "small"):
        without_digests(bundles / name)
        load(bundles / name, "cpu")
    save_origin_partition(bundles / "op", bundles / "origin", {"small": bundles / "small"}, CarPartition())
    load(bundles / "op", "cpu")
    flipped(bundles / "op" / "small" / "weights.safetensors")
    with pytest.raises(BundleError, match=r"small/weights.safetensors: .*its SHA-256 is"):
        load(bundles / "op", "cpu")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_no_finite_numbers_are_neither_written_nor_read(bundles, value):
    model = load_network(bundles / "small")
    name, weights = next((name, weights) for name, weights in model.state_dict().items() if weights.is_floating_point())
    weights.view(-1)[0] = value
    with pytest.raises(WeightsError, match=rf"{name} holds NaN or infinity in 1 of"):
        save_bundle(bundles / "new", model)
    assert not (bundles / "new").exists()
    without_digests(bundles / "small")
    save_file(model.state_dict(), bundles / "small" / "weights.safetensors")
    with pytest.raises(BundleError, match=rf"weights.safetensors: cannot be read \({name} holds NaN or infinity"):
        load(bundles / "small", "cpu")


@pytest.mark.parametrize("name", ["weights.safetensors", "bundle.json"])
@pytest.mark.parametrize("has_digests", [False, True])
def test_bundles_whose_files_are_pipes_devices_or_folders_are_refused_at_once(bundles, name, has_digests):
    if not has_digests:
        without_digests(bundles / "small")
    path = bundles / "small" / name
    for number, make in enumerate((os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero"))):
        path.rename(bundles / f"moved{number}")
        make(path)
        with pytest.raises(BundleError, match=name):
            load(bundles / "small", "cpu")


@pytest.mark.parametrize(
    "fields",
    [
        {"thresholds": [0.2, 0.1]},
        {"thresholds": ["x"]},
        {"thresholds": None},
        {"teachers": ["huge"]},
        {"teachers": ["../origin"]},
        {"teachers": 3},
        {"teachers": ["medium"]},
    ],
)
def test_damaged_origin_partition_is_a_clear_error(bundles, fields):
    save_origin_partition(bundles / "op", bundles / "origin", {"small": bundles / "small"}, CarPartition())
    _edit(**fields)(bundles / "op")
    with pytest.raises(BundleError, match="op"):
        load(bundles / "op", "cpu")


FORGED = [
    *[("format", value) for value in (None, "1", True, 0, -1, 1e999, [1], 10**400)],
    *[("kind", value) for value in (None, 1, ["network"])],
    *[("model", value) for value in (None, 3, {}, "../../x", "\x1b[31m")],
    *[("config", value) for value in (None, [], 1, {"a": 1}, {"in_channels": "x"}, {"in_channels": 10**12})],
    *[("normalisation", value) for value in (None, [], {"mean": [0.0] * 3}, {"mean": [0.0] * 3, "std": [1, 1, -1]})],
    ("normalisation", {"mean": [0.0, 0.0, 1e999], "std": [1.0] * 3}),
    ("normalisation", {"mean": [0.0, 0.0, 10**400], "std": [1.0] * 3}),
    *[("trained_on", value) for value in (3, [], "x", {"bands": [0, 1, 2]}, {"bands": [1, 2]}, {"bands": 3})],
    *[("trained_on", {"image_range": value}) for value in ([1.0], [2.0, 1.0], [0.0, 1e999], "x", [None, None])],
    *[("trained_on", {"value_type": value}) for value in (3, "no type", [])],
    *[("trained_on", {"pixel_size": value}) for value in (-1.0, 1e999, "x", [])],
    *[("trained_on", {name: 3}) for name in ("synthetic", "data", "data_hash", "labels")],
    *[("metadata", value) for value in (None, 3, [])],
    ("module", 3),
]


def _forged(folder, field, value, files):
    description = json.loads((folder / "bundle.json").read_text())
    del description["sha256"]
    content = with_digests(description | {field: value}, folder, files)
    (folder / "bundle.json").write_text(json.dumps(content))


@pytest.mark.parametrize(("field", "value"), FORGED)
def test_a_field_of_another_kind_is_named_although_the_sums_match(bundles, field, value):
    _forged(bundles / "small", field, value, ["weights.safetensors"])
    with pytest.raises(BundleError) as caught:
        load(bundles / "small", "cpu")
    said = str(caught.value)
    assert str(bundles / "small") in said and (field in said.replace("bundle.json", ""))
    assert "again" in said or "update bitemporal" in said or "model" in said


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("thresholds", value) for value in (None, 3, {}, ["x"], [1e999], [0.5, 0.1], [10**400, 1])],
        *[("teachers", value) for value in (None, "small", {"small": 1}, ["../small"], [["small"]])],
        *[("parts", value) for value in (None, 3, {})],
    ],
)
def test_a_field_of_another_kind_of_origin_partition_is_named(bundles, field, value):
    save_origin_partition(bundles / "op", bundles / "origin", {"small": bundles / "small"}, CarPartition())
    files = [f"{name}/{file}" for name in ("origin", "small") for file in ("bundle.json", "weights.safetensors")]
    _forged(bundles / "op", field, value, files)
    with pytest.raises(BundleError, match=rf"op/bundle.json.*{field}"):
        load(bundles / "op", "cpu")


def test_weights_of_other_shapes_or_values_are_named_although_the_sums_match(bundles):
    path = bundles / "small" / "weights.safetensors"
    whole = load_file(path)
    name = next(iter(whole))
    for changed in (whole[name] * math.nan, whole[name] * math.inf, torch.zeros(*whole[name].shape, 2)):
        save_file(whole | {name: changed}, path)
        _forged(bundles / "small", "metadata", {}, ["weights.safetensors"])
        with pytest.raises(BundleError, match=r"weights\.safetensors"):
            load(bundles / "small", "cpu")
    path.write_bytes((10**11).to_bytes(8, "little") + path.read_bytes()[8:])  # a header of 100 GB
    _forged(bundles / "small", "metadata", {}, ["weights.safetensors"])
    with pytest.raises(BundleError, match=r"weights\.safetensors"):
        load(bundles / "small", "cpu")


class Malice:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickles_are_never_read(bundles, monkeypatch):
    marker = bundles / "opened"
    for name in ("pytorch_model.bin", "weights.pt", "weights.ckpt", "weights.pkl"):
        (bundles / "small" / name).write_bytes(pickle.dumps(Malice(marker)))

    def refuse(*_, **__):
        raise AssertionError("a pickle was opened")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads")):
        monkeypatch.setattr(module, name, refuse)
    load(bundles / "small", "cpu")
    save_origin_partition(bundles / "op", bundles / "origin", {"small": bundles / "small"}, CarPartition())
    assert {p.name for p in (bundles / "op" / "small").iterdir()} == {"bundle.json", "weights.safetensors"}
    (bundles / "small" / "weights.safetensors").unlink()
    with pytest.raises(BundleError):
        load(bundles / "small", "cpu")
    shutil.copy(bundles / "small" / "weights.pt", bundles / "small" / "weights.safetensors")
    with pytest.raises(BundleError):
        load(bundles / "small", "cpu")
    assert not marker.exists()


@pytest.mark.parametrize(
    "failure",
    [
        huggingface_hub.errors.LocalEntryNotFoundError("no connection and nothing in the cache"),
        huggingface_hub.errors.OfflineModeIsEnabled("offline mode is on"),
        ConnectionError("name or service not known"),
        huggingface_hub.errors.HFValidationError("bad id"),
    ],
)
def test_hub_out_of_reach_is_a_clear_error(monkeypatch, failure):
    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(loading, "snapshot_download", fail)
    with pytest.raises(BundleError) as caught:
        load("someone/change-net", "cpu")
    assert "someone/change-net" in str(caught.value) and "Hugging Face" in str(caught.value)


def test_hub_id_fetches_json_and_safetensors_only(bundles, monkeypatch):
    asked = []

    def fetch(repository, allow_patterns):
        asked.append((repository, tuple(allow_patterns)))
        return str(bundles / "small")

    monkeypatch.setattr(loading, "snapshot_download", fetch)
    assert isinstance(load("someone/change-net", "cpu"), NetworkDetector)
    assert asked == [("someone/change-net", ("*.json", "*.safetensors"))]
    monkeypatch.chdir(bundles.parent)  # a path that exists is never looked up elsewhere
    load(f"{bundles.name}/small", "cpu")
    with pytest.raises(BundleError, match="nowhere: no such folder"):
        load(bundles / "nowhere", "cpu")
    with pytest.raises(BundleError, match="found a file"):
        load(bundles / "small" / "weights.safetensors", "cpu")
    assert len(asked) == 1


@pytest.mark.parametrize("device", ["cud", "cuda:77", "gpu", "meta"])
def test_device_that_is_not_there(bundles, device):
    with pytest.raises(DeviceError, match=device):
        load(bundles / "small", device)
