"""What a notebook shows of pairs, detectors and results: tables, figures and texts."""

import builtins
import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import bitemporal
from bitemporal.errors import DataError, MissingExtraError, OptionError
from bitemporal.evaluation import evaluate, plot_pair
from bitemporal.inference import Ensemble, NetworkDetector, OriginPartition, Prediction
from bitemporal.method.car import CarPartition
from bitemporal.models import create_model
from bitemporal.pairs import PairFolder, check_pairs, resolve_decoding
from bitemporal.pairs.folder import PairImages


@pytest.fixture(scope="module")
def folder(tiny_pairs) -> PairFolder:
    return resolve_decoding(PairFolder(tiny_pairs))


@pytest.fixture(scope="module")
def detector() -> NetworkDetector:
    torch.manual_seed(0)
    return NetworkDetector(create_model("test_fc"), "cpu")


@pytest.fixture(scope="module")
def result(folder, detector):
    return evaluate(detector, folder, folder.pairs("test"), split="test").named("fc", 3)


def test_scores_of_every_pair_are_a_table(result, folder, detector, tmp_path):
    """IoU and CAR from the PNG labels, counts from the file."""
    frame = result.to_frame()
    assert list(frame.index) == [pair.stem for pair in folder.pairs("test")] and frame.index.name == "stem"
    for pair in folder.pairs("test"):
        label = np.asarray(Image.open(pair.label)) > 0
        found = detector.predict(pair.before, pair.after).mask > 0
        union = (label | found).sum()
        row = frame.loc[pair.stem]
        assert row["iou_changed"] == pytest.approx((label & found).sum() / union if union else 1.0)
        assert row["car"] == label.mean() and row["detector"] == "fc" and row["seed"] == 3
        assert row["part"] == ("small" if label.mean() <= 0.05 else "medium" if label.mean() <= 0.2 else "large")
    assert frame["miou"].mean() == pytest.approx(result.summary()["image_mean"]["miou"])
    result.evaluation.write_confusions(tmp_path / "counts.csv")
    with (tmp_path / "counts.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for name in rows[0]:
        if name not in ("stem", "car", "part", "sent_to"):
            assert frame[name].tolist() == [int(row[name]) for row in rows], name
    assert list(result.evaluation.to_frame().columns) == [c for c in frame.columns if c not in ("detector", "seed")]


def test_without_pandas_the_extra_is_named(result, monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments, **options):
        if name == "pandas":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtraError, match=r"bitemporal\[geo\]"):
        result.to_frame()


def test_a_folder_has_a_length_and_can_be_gone_through(folder):
    assert len(folder) == 24
    assert list(folder) == folder.pairs()
    assert repr(folder) == f"PairFolder({str(folder.root)!r}, train 12, val 6, test 6)"


def test_texts_say_what_a_thing_is(result, detector, folder):
    assert repr(detector) == "NetworkDetector(test_fc, 3 channels, cpu)"
    assert repr(Ensemble([detector, detector])) == f"Ensemble({detector!r}, {detector!r})"
    assert repr(OriginPartition(detector, {}, CarPartition())) == f"OriginPartition({detector!r})"
    mask = np.zeros((8, 16), np.uint8)
    mask[0] = 1
    prediction = Prediction(mask, mask.astype(np.float32), "small")
    assert repr(prediction) == "Prediction(8 x 16, 12.5% changed, sent to small)"
    score = f"{100 * result.summary()['dataset']['miou']:.2f}"
    assert repr(result.evaluation) == f"Evaluation(6 pairs, dataset mIoU {score} %)" and len(result.evaluation) == 6
    pair = PairImages(np.zeros((8, 16, 3), np.uint8), np.zeros((8, 16, 3), np.uint8), mask)
    assert repr(pair) == "PairImages(8 x 16 x 3, 12.5% changed)"
    assert repr(replace(pair, label=np.full_like(mask, 255))) == "PairImages(8 x 16 x 3, all ignored)"
    assert repr(replace(pair, label=None)) == "PairImages(8 x 16 x 3, no label)"
    assert repr(check_pairs(folder)) == f"FolderCheck({str(folder.root)!r}, 24 pairs, 0 faults, 0 warnings)"
    assert repr(result) == f"Result('fc', seed 3, pairs/test, {result.evaluation!r})"


def titles(figure) -> list[str]:
    return [axis.get_title() for axis in figure.axes]


def shown(figure, title: str) -> np.ndarray:
    (axis,) = (axis for axis in figure.axes if axis.get_title() == title)
    return np.asarray(axis.get_images()[0].get_array())


def test_a_pair_is_drawn_from_whatever_it_is_given_as(folder, detector, tmp_path):
    pair = folder.pairs("test")[3]
    images = folder.load(pair)
    prediction = detector.predict(pair.before, pair.after)
    figure = bitemporal.plot_pair(pair, prediction=prediction, folder=folder)
    assert titles(figure) == ["before", "after", "label", "prediction", "probability"]
    assert np.array_equal(shown(figure, "before"), images.before)
    assert np.array_equal(shown(figure, "after"), images.after)
    assert np.array_equal(shown(figure, "probability"), prediction.probability)
    errors = shown(figure, "prediction")
    hit = (prediction.mask == 1) & (images.label == 1)
    assert np.array_equal((errors == 255).all(-1), hit)
    figure.savefig(tmp_path / "pair.png")
    assert Image.open(tmp_path / "pair.png").size[0] > 500
    opened = [Image.open(path) for path in (pair.before, pair.after)]
    tensors = [torch.from_numpy(image).permute(2, 0, 1) for image in (images.before, images.after)]
    for first, second in ((pair.before, str(pair.after)), opened, tensors, (images.before, images.after)):
        alone = plot_pair(first, second, pair.label, prediction.mask)
        assert titles(alone) == ["before", "after", "label", "prediction"]
        for title in ("before", "after", "label", "prediction"):
            assert np.array_equal(shown(alone, title), shown(figure, title))
    for whole in (pair, images):
        assert np.array_equal(shown(plot_pair(whole), "label"), shown(figure, "label"))
    assert titles(plot_pair(images.before, images.after)) == ["before", "after"]


def test_ignored_pixels_of_a_label_are_drawn_grey():
    image, label = np.zeros((2, 2, 3), np.uint8), np.array([[0, 1], [255, 255]], np.uint8)
    drawn = shown(plot_pair(image, image, label), "label").astype(int)
    assert drawn[0].tolist() == [[0] * 3, [255] * 3]
    assert (np.ptp(drawn[1], axis=-1) == 0).all() and ((drawn[1] > 50) & (drawn[1] < 205)).all()


def test_images_of_other_channels_are_drawn_as_far_as_people_see_them():
    rng = np.random.default_rng(0)
    five, one = rng.integers(0, 256, (8, 8, 5), np.uint8), rng.integers(0, 256, (8, 8, 1), np.uint8)
    assert np.array_equal(shown(plot_pair(five, five), "before"), five[..., :3])
    assert np.array_equal(shown(plot_pair(one, one), "before"), np.repeat(one, 3, -1))


def test_what_cannot_be_drawn_is_named(folder):
    pair = folder.pairs("test")[0]
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(OptionError, match="after: not given"):
        plot_pair(image)
    with pytest.raises(OptionError, match="leave after out"):
        plot_pair(pair, image)
    with pytest.raises(DataError, match="label: found 4 x 8, expected 8 x 8"):
        plot_pair(image, image, np.zeros((4, 8), np.uint8))
    with pytest.raises(DataError, match="sizes differ"):
        plot_pair(image, image[:4])
