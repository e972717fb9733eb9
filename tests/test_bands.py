"""Images of any bands: pairs, networks of any number of channels, bundles and scenes that know their bands."""

import hashlib
import json
import shutil
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from bitemporal.cli.execution import _warnings_in_one_line
from bitemporal.cli.main import main
from bitemporal.errors import BundleError, DataError, OptionError
from bitemporal.imagery import read_image
from bitemporal.imagery.inputs import Reading
from bitemporal.imagery.training_images import SeenImages, TrainingImages, pixel_size
from bitemporal.inference import Ensemble, NetworkDetector, OriginPartition, load
from bitemporal.inference.bundle import save_bundle
from bitemporal.method.car import CarPartition
from bitemporal.models import create_model, list_models, model_card
from bitemporal.pairs import PairFolder, check_pairs
from bitemporal.report import write_report
from bitemporal.run.augmentation import augment
from bitemporal.run.recipe import DistillRecipe
from remedies import follow_keywords, follow_options

rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")

SIDE = 32


def write_tiff(path, samples, pixel=10.0, **options):
    """Write C x H x W as GDAL does by default."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = samples.shape
    kind = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": samples.dtype}
    place = {"crs": "EPSG:32631", "transform": rasterio.Affine(pixel, 0, 5e5, 0, -pixel, 5e6)} if pixel else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", **kind, **place, **options) as target:
            target.write(samples)
    return path


def random_samples(count, dtype="uint16", low=0, high=4000, seed=0, side=SIDE):
    return np.random.default_rng(seed).integers(low, high, (count, side, side)).astype(dtype)


def write_pairs(root, bands, dtype="uint16", splits=(("train", 6), ("val", 3), ("test", 2)), pixel=10.0):
    """Pairs in which a square changes in the last band alone."""
    for split, count in splits:
        for i in range(count):
            before = random_samples(bands, dtype, 0, 200 if dtype == "uint8" else 2000, seed=i)
            after, label = before.copy(), np.zeros((SIDE, SIDE), np.uint8)
            side = (4, 8, 16)[i % 3]
            label[:side, :side] = 255
            after[-1, :side, :side] = 255 if dtype == "uint8" else 3000
            for name, samples in (("A", before), ("B", after)):
                write_tiff(root / split / name / f"{i}.tif", samples, pixel)
            (root / split / "label").mkdir(exist_ok=True)
            Image.fromarray(label).save(root / split / "label" / f"{i}.png")
    return root


def scaled(samples, ranges):
    """The range rule, written anew: H x W x C of samples C x H x W."""
    channels = []
    for band, (low, high) in zip(samples.astype(np.float64), ranges, strict=True):
        channels.append(np.clip(np.rint((band - low) * (255 / (high - low))), 0, 255))
    return np.stack(channels, axis=-1).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("samples", "image_range"),
    [
        (random_samples(3), (0, 3000)),
        (random_samples(4), (0, 3000)),
        (random_samples(13), (0, 3000)),
        (random_samples(4, "int16", -2000, 2000), (-1000, 1500)),
        (random_samples(5, "float32") / np.float32(4000), (0, 0.7)),
        (random_samples(6, "uint8", 0, 256), None),
        (random_samples(1, "uint32", 0, 2**32 - 1), (0, 2**32 - 1)),
        (random_samples(1, "int8", -100, 100), (-100, 100)),
    ],
    ids=lambda value: f"{value.dtype}-{len(value)}" if isinstance(value, np.ndarray) else "",
)
@pytest.mark.parametrize("options", [{}, {"compress": "lerc"}, {"interleave": "band", "compress": "deflate"}])
def test_any_bands_of_any_type_become_channels(tmp_path, samples, image_range, options):
    path = write_tiff(tmp_path / "x.tif", samples, **options)
    last_first = tuple(range(len(samples), 0, -1))
    ranges = [image_range or (0, 255)] * len(samples)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = read_image(path, image_range, last_first)
    assert np.array_equal(pixels, scaled(samples[::-1], ranges))
    assert np.array_equal(read_image(path, image_range, (1, 1)), scaled(samples[[0, 0]], ranges[:1] * 2))


@pytest.mark.parametrize("bands", [3, 4])
def test_webp_is_read_without_a_word_on_standard_error(tmp_path, bands, capfd):
    samples = np.repeat(random_samples(bands, "uint8", 0, 255, side=4), 16, axis=1).repeat(16, axis=2)
    path = write_tiff(tmp_path / "x.tif", samples, compress="webp", webp_lossless=True)
    assert np.array_equal(read_image(path, bands=(3, 2, 1)), samples[[2, 1, 0]].transpose(1, 2, 0))
    write_tiff(tmp_path / "13.tif", random_samples(13))
    read_image(tmp_path / "13.tif", (0, 3000), (4, 3, 2))
    assert capfd.readouterr().err == ""


def test_one_range_for_each_channel(tmp_path):
    samples = random_samples(4)
    path = write_tiff(tmp_path / "x.tif", samples)
    ranges = [(0, 1000), (500, 2500), (100, 4000), (0, 3000)]
    flat = [value for pair in ranges for value in pair]
    assert np.array_equal(read_image(path, flat, (1, 2, 3, 4)), scaled(samples, ranges))
    for wrong, bands in ((flat, None), (flat[:6], (1, 2, 3, 4)), (flat[:3], (1,)), ([0, 1, 5, 5], (1, 2))):
        with pytest.raises(OptionError, match="LOW below HIGH"):
            read_image(path, wrong, bands)
    grey = write_tiff(tmp_path / "grey.tif", samples[:1])
    with pytest.warns(UserWarning, match="grey image"):
        assert np.array_equal(read_image(grey, flat[:6]), scaled(samples[[0, 0, 0]], ranges[:3]))


def test_16_bit_png_with_alpha(tmp_path):
    samples = random_samples(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind = {"driver": "PNG", "width": SIDE, "height": SIDE, "count": 4, "dtype": "uint16"}
        with rasterio.open(tmp_path / "x.png", "w", **kind) as target:
            target.write(samples)
    with pytest.warns(UserWarning, match="alpha channel is dropped"):
        assert np.array_equal(read_image(tmp_path / "x.png", (0, 4000)), scaled(samples[:3], [(0, 4000)] * 3))
    pixels = read_image(tmp_path / "x.png", (0, 4000), (4, 1))
    assert np.array_equal(pixels, scaled(samples[[3, 0]], [(0, 4000)] * 2))


def test_bands_of_8_bit_images(tmp_path):
    samples = random_samples(4, "uint8", 0, 256)
    rgba = Image.fromarray(samples.transpose(1, 2, 0))
    rgba.save(tmp_path / "rgba.png")
    assert np.array_equal(read_image(tmp_path / "rgba.png", bands=(4, 2)), samples[[3, 1]].transpose(1, 2, 0))
    rgba.convert("RGB").quantize(16).save(tmp_path / "palette.png")
    with Image.open(tmp_path / "palette.png") as palette:
        expected = np.asarray(palette.convert("RGB"))[..., ::-1]
    assert np.array_equal(read_image(tmp_path / "palette.png", bands=(3, 2, 1)), expected)
    # red, green, blue and near infrared, as NAIP has it: the file names its colours
    path = write_tiff(tmp_path / "naip.tif", samples, photometric="RGB", alpha="NO")
    with pytest.warns(UserWarning, match="more bands than red, green and blue"):
        assert np.array_equal(read_image(path), samples[:3].transpose(1, 2, 0))
    assert np.array_equal(read_image(path, bands=(1, 2, 3, 4)), samples.transpose(1, 2, 0))


def test_what_cannot_be_read_is_said_by_its_true_reason(tmp_path, monkeypatch):
    path = write_tiff(tmp_path / "x.tif", random_samples(3))
    content = path.read_bytes()
    path.write_bytes(content[:-500])
    with pytest.raises(DataError, match="damaged or truncated"):
        read_image(path, (0, 1))
    lerc = write_tiff(tmp_path / "lerc.tif", random_samples(3), compress="lerc").read_bytes()
    tag = b"\x03\x01\x03\x00\x01\x00\x00\x00"  # 259 (compression), one short
    assert lerc.count(tag + b"\x47\x88") == 1
    path.write_bytes(lerc.replace(tag + b"\x47\x88", tag + b"\x42\xc3"))  # 49986: no compression that there is
    with pytest.raises(DataError, match=r"installed GDAL cannot decode.*codec") as error:
        read_image(path, (0, 1))
    assert "damaged" not in str(error.value)
    path.unlink()
    kind = {"driver": "GTiff", "width": 4, "height": 4, "count": 1, "dtype": "complex64"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", **kind) as target:
            target.write(np.ones((1, 4, 4), np.complex64))
    with pytest.raises(DataError, match="samples of type complex64"):
        read_image(path, (0, 1))
    webp = write_tiff(tmp_path / "webp.tif", random_samples(3, "uint8", 0, 255), compress="webp")
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(DataError, match=r"3 bands of 8 bits per sample in WebP compression.*bitemporal\[geo\]"):
        read_image(webp)


def test_a_cloud_optimised_geotiff_has_one_page(tmp_path):
    samples = np.repeat(random_samples(3, "uint8", 0, 255, side=8), 160, axis=1).repeat(160, axis=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind = {"driver": "COG", "width": 1280, "height": 1280, "count": 3, "dtype": "uint8"}
        with rasterio.open(tmp_path / "x.tif", "w", **kind) as target:
            target.write(samples)
        with rasterio.open(tmp_path / "x.tif") as written:
            assert written.overviews(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(read_image(tmp_path / "x.tif"), samples.transpose(1, 2, 0))


# --------------------------------------------------------------------------------------------- folders of pairs


@pytest.mark.parametrize("bands", [2, 4, 5, 13])
def test_pairs_of_other_bands_ask_for_them_and_the_remedy_works(tmp_path, bands, capsys):
    root = write_pairs(tmp_path / "set", bands, splits=(("train", 2),))
    command = ["data", "check", str(root), "--image-range", "0,3000"]
    assert main(command) == 1
    text = capsys.readouterr().out
    assert f"has {bands} bands" in text and "damaged" not in text
    assert len(follow_options(text, command)) == 1

    def call(**keywords):
        check_pairs(PairFolder(root, **({"image_range": (0, 3000)} | keywords))).raise_for_faults()

    follow_keywords(text, call)


def test_pairs_ask_for_a_range_and_the_remedy_works(tmp_path, capsys):
    root = write_pairs(tmp_path / "set", 3, splits=(("train", 2),))
    command = ["data", "check", str(root)]
    assert main(command) == 1
    text = capsys.readouterr().out
    assert "values" in text and text.count("->") == 1
    follow_options(text, command)


def test_a_folder_loads_the_chosen_bands(tmp_path):
    root = write_pairs(tmp_path / "set", 13, splits=(("train", 1),))
    ranges = (0, 3000, 100, 2000)
    folder = PairFolder(root, bands=(13, 2), image_range=ranges, label_values=(0, 255))
    pair = folder.pairs()[0]
    loaded = folder.load(pair)
    with rasterio.open(pair.after) as source:
        expected = scaled(source.read([13, 2]), [ranges[:2], ranges[2:]])
    assert np.array_equal(loaded.after, expected) and loaded.before.shape == (SIDE, SIDE, 2)
    with pytest.raises(DataError, match="has no band 14, but 13"):
        folder.with_reading((14,), (0, 1)).load(pair)
    for options in ({"bands": ()}, {"bands": (0, 1)}, {"bands": (1, 2), "image_range": (0, 1, 0, 1, 0, 1)}):
        with pytest.raises(OptionError):
            PairFolder(root, **options)


def test_a_label_of_several_bands_is_refused(tmp_path):
    root = write_pairs(tmp_path / "set", 3, "uint8", splits=(("train", 1),))
    (root / "train" / "label" / "0.png").unlink()
    write_tiff(root / "train" / "label" / "0.tif", random_samples(5, "uint8", 0, 2))
    assert "have several bands: band 1:" in check_pairs(PairFolder(root)).report()


# -------------------------------------------------------------------------------------------------- any channels


@pytest.mark.parametrize("channels", [1, 4, 13])
@pytest.mark.parametrize("name", list_models("test_*"))
def test_every_network_takes_any_number_of_channels(name, channels):
    torch.manual_seed(0)
    model = create_model(name, in_channels=channels)
    side = model.padded_size(model.card.minimum, model.card.minimum)[0]
    images = torch.randint(0, 256, (2, 2, channels, side, side), dtype=torch.uint8)
    before, after = (model.prepare(date) for date in images)
    sum(model.loss(model.outputs(before, after), torch.zeros(2, side, side, dtype=torch.int64)).values()).backward()
    assert NetworkDetector(model).probabilities(*images).shape == (2, 1, side, side)
    assert len(model.card.normalisation.mean) == channels


def test_further_channels_are_normalised_as_red_green_and_blue():
    card = model_card("tinycd")
    assert create_model("test_tinycd").card.normalisation == card.normalisation
    mean, std = card.normalisation.mean, card.normalisation.std
    wide = create_model("test_tinycd", in_channels=4).card.normalisation
    assert wide.mean == (*mean, mean[0]) and wide.std == (*std, std[0])
    with pytest.raises(OptionError, match="in_channels: found 0"):
        create_model("test_tinycd", in_channels=0)


def test_weights_of_three_channels_are_repeated(tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    whole = timm.create_model("test_resnet")
    torch.save(whole.state_dict(), tmp_path / "w.pt")
    model = create_model("siamese_unet", in_channels=4, encoder="test_resnet", weights=tmp_path / "w.pt")
    first = next(weight for weight in model.encoder.parameters() if weight.ndim == 4)
    theirs = next(weight for weight in whole.parameters() if weight.ndim == 4)
    assert first.shape[1] == 4 and torch.allclose(first, theirs[:, [0, 1, 2, 0]] * 0.75)


@pytest.mark.parametrize("recipe", ["standard", "changer", "none"])
@pytest.mark.parametrize("channels", [1, 4])
def test_augmentation_of_any_channels(recipe, channels):
    mask = torch.zeros(24, 24, dtype=torch.uint8)
    mask[:8, :8] = 1
    shades = torch.arange(channels, dtype=torch.uint8).view(-1, 1, 1) * 20 + 60
    dates = (shades + mask * 80)[None].expand(2, -1, -1, -1).contiguous()
    torch.manual_seed(0)
    moved = set()
    for _ in range(30):
        images, target = augment(dates, mask, recipe, 16)
        assert images.shape == (2, channels, 16, 16) and target.shape == (16, 16)
        valid = target != 255
        for image in images[:, :, valid]:
            # each channel keeps its place in the order: nothing is taken for saturation or hue
            assert (image.float().mean(1).diff() > 0).all()
            moved.add(int(image[0].max()))
    assert (moved <= {60, 140}) == (recipe == "none")


# --------------------------------------------------------------------------------- training, bundles, prediction


RANGES = (0, 3000, 0, 3000, 0, 2500, 100, 3100)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A distillation on four of five bands, each with a range of its own."""
    folder = tmp_path_factory.mktemp("bands")
    root = write_pairs(folder / "planet", 5)
    words = ["--bands", "3,2,1,5", "--image-range", ",".join(map(str, RANGES)), "--max-steps", "4", "--workers", "0"]
    words += ["--model", "test_tinycd", "--batch-size", "2", "--crop-size", "32", "--data", str(root)]
    assert main(["distill", "--out", str(folder / "run"), *words]) == 0
    return folder


def test_a_bundle_knows_the_images_of_its_training(run):
    bundle = run / "run" / "student" / "bundle"
    stored = json.loads((bundle / "bundle.json").read_text())
    assert stored["config"]["in_channels"] == 4 and len(stored["normalisation"]["mean"]) == 4
    told = stored["trained_on"]
    assert told["bands"] == [3, 2, 1, 5] and told["image_range"] == list(RANGES) and told["value_type"] == "uint16"
    assert told["pixel_size"] == pytest.approx(10, rel=0.01) and told["data"] == "planet" and not told["synthetic"]
    digest = hashlib.sha256()
    for stem in range(6):
        digest.update(str(stem).encode() + (run / "planet" / "train" / "label" / f"{stem}.png").read_bytes())
    assert told["data_hash"] == digest.hexdigest()
    for name in ("student", "o-p"):
        detector = load(run / "run" / name / "bundle")
        assert detector.channels == 4 and detector.reading() == Reading(4, (3, 2, 1, 5), RANGES)


def test_every_path_takes_the_bands_and_ranges_of_the_bundle(run, tmp_path, capsys, monkeypatch):
    bundle, date = str(run / "run" / "student" / "bundle"), run / "planet" / "test"
    paths = [date / name / "0.tif" for name in "AB"]
    pairs = list(zip(RANGES[::2], RANGES[1::2], strict=True))
    expected = []
    for path in paths:
        with rasterio.open(path) as source:
            expected.append(scaled(source.read([3, 2, 1, 5]), pairs))
    seen = []
    answers = NetworkDetector.answers

    def recording(self, before, after, valid=None):
        seen.append((before[0], after[0]))
        return answers(self, before, after, valid)

    monkeypatch.setattr(NetworkDetector, "answers", recording)
    detector = load(bundle)
    reference = detector.predict(*expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_path = detector.predict(*paths)
    assert np.array_equal(reference.probability, by_path.probability)
    assert main(["predict", *map(str, paths), "--bundle", bundle, "-o", str(tmp_path / "m.png")]) == 0
    assert main(["evaluate", bundle, str(run / "planet"), "-o", str(tmp_path / "e.json"), "--batch-size", "1"]) == 0
    assert "unlike" not in capsys.readouterr().err
    protocol = json.loads((tmp_path / "e.json").read_text())["protocol"]
    assert protocol["bands"] == [3, 2, 1, 5] and protocol["image_range"] == list(RANGES)
    assert len(seen) == 5  # array, paths, file, two pairs of test
    for dates in seen[:4]:
        for image, right in zip(dates, expected, strict=True):
            assert np.array_equal(image.permute(1, 2, 0).numpy(), right)


def test_what_does_not_fit_the_bundle_is_refused_and_the_remedy_works(run, tmp_path, capsys):
    bundle, root = str(run / "run" / "origin" / "bundle"), run / "planet" / "test"
    command = ["predict", str(root / "A"), str(root / "B"), "--bundle", bundle, "-o", str(tmp_path / "m")]
    command += ["--bands", "1,2,3", "--image-range", "0,3000"]
    assert main(command) == 1
    text = capsys.readouterr().err
    assert "found (1, 2, 3), expected 4" in text
    assert follow_options(text, command) == [["--bands", "3,2,1,5"]]
    narrow = write_pairs(tmp_path / "narrow", 3, splits=(("test", 1),))
    with pytest.raises(DataError, match="has no band 5, but 3, counted from 1; give files of at least 4 bands"):
        load(bundle).predict(narrow / "test" / "A" / "0.tif", narrow / "test" / "B" / "0.tif")
    detector = load(bundle)
    image = np.zeros((32, 32, 4), np.uint8)
    assert detector.predict(image, image).mask.shape == (32, 32)
    assert detector.predict([Image.fromarray(image)], [Image.fromarray(image)])[0].mask.shape == (32, 32)
    tensors = torch.zeros(2, 4, 16, 20)
    assert detector.probabilities(tensors, tensors).shape == (2, 1, 16, 20)
    for wrong in (image[..., :3], tensors[:, :3], Image.fromarray(image[..., :3])):
        with pytest.raises(DataError, match=r"4 channels (first|last)"):
            detector.predict(wrong, wrong)
    words = r"different images \(4 channels, bands 3,2,1,5 of values 0,3000.*; 3 channels, red, green and blue\)"
    with pytest.raises(OptionError, match=words):
        Ensemble([detector, NetworkDetector(create_model("test_tinycd"))])
    with pytest.raises(OptionError, match="3 channels, the origin of 4"):
        OriginPartition(detector, {"small": NetworkDetector(create_model("test_tinycd"))}, CarPartition())


def test_bundles_of_earlier_versions_load(run, tmp_path):
    shutil.copytree(run / "run" / "origin" / "bundle", tmp_path / "old")
    path = tmp_path / "old" / "bundle.json"
    stored = json.loads(path.read_text())
    del stored["trained_on"], stored["sha256"]
    path.write_text(json.dumps(stored))
    detector = load(tmp_path / "old")
    assert detector.trained_on is None and detector.reading() == Reading(4, (1, 2, 3, 4), None)
    for damaged in ("text", {"bands": ["x"]}, {"pixel_size": [1]}):
        path.write_text(json.dumps(stored | {"trained_on": damaged}))
        with pytest.raises(BundleError, match="trained_on"):
            load(tmp_path / "old")


def test_a_run_resumes_with_the_same_bands_only(run, capsys):
    recipe = DistillRecipe.from_yaml(run / "run" / "recipe.yaml")
    assert recipe.bands == (3, 2, 1, 5) and recipe.image_range == RANGES and recipe.channels == 4
    words = ["--bands", "3,2,1", "--image-range", "0,3000", "--max-steps", "4", "--workers", "0"]
    words += ["--model", "test_tinycd", "--batch-size", "2", "--crop-size", "32", "--data", str(run / "planet")]
    assert main(["distill", "--out", str(run / "run"), *words]) == 1
    assert "bands ([3, 2, 1, 5] then, [3, 2, 1] now)" in capsys.readouterr().err


def test_the_report_of_four_channels_has_pictures(run):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = write_report(run / "run").read_text()
    assert text.count("data:image/jpeg") >= 2


# ------------------------------------------------------------------------------------- far outside of the training


@pytest.mark.parametrize(
    ("crs", "latitude", "step", "metres"),
    [
        ("EPSG:32631", 45, 10, 10),
        ("EPSG:2229", 34, 1, 0.3048),  # feet of the US survey
        ("EPSG:3857", 60, 2, 1),  # Web Mercator doubles lengths at 60 degrees
        ("EPSG:4326", 60, 1e-4, 11.13 * 0.5**0.5),  # degrees of longitude are half as long there
    ],
)
@pytest.mark.parametrize("up", [1, -1])
def test_pixel_sizes_are_metres_on_the_ground(crs, latitude, step, metres, up):
    pyproj = pytest.importorskip("pyproj")
    longitude = -118 if crs == "EPSG:2229" else 3
    x, y = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(longitude, latitude)
    transform = rasterio.Affine(step, 0, x - 50 * step, 0, -up * step, y + up * 50 * step)
    assert pixel_size(rasterio.CRS.from_string(crs), transform, 100, 100) == pytest.approx(metres, rel=0.01)
    assert pixel_size(None, transform, 100, 100) is None


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({}, None),
        ({"pixel_size": 1.9}, None),
        ({"pixel_size": 0.13}, None),
        ({"pixel_size": None}, None),
        ({"pixel_size": 10.0}, "pixels of 10 m, trained on 0.5 m"),
        ({"pixel_size": 0.1}, "pixels of 0.1 m, trained on 0.5 m"),
        ({"value_type": "uint16"}, "uint16 values, trained on uint8"),
        ({"synthetic": False}, "images not marked as synthetic, trained on synthetic pairs alone"),
        ({"bands": (3, 2, 1)}, "bands 3,2,1, trained on red, green and blue"),
        ({"pixel_size": 10.0, "value_type": "float32"}, "0.5 m; float32 values"),
    ],
)
def test_images_far_outside_of_the_training(seen, words):
    known = {"value_type": "uint8", "pixel_size": 0.5, "synthetic": True}
    text = TrainingImages(**known, data="demo").far_from(SeenImages(**known | seen))
    if words is None:
        assert text == ""
    else:
        assert words in text and "pairs demo" in text and "\n" not in text
    assert TrainingImages(synthetic=True).far_from(SeenImages(synthetic=True, pixel_size=3.0)) == ""


def test_one_line_warns_on_every_path(tmp_path):
    """A detector of 0.5 m and 8 bits, trained on synthetic pairs, sees Sentinel-2."""
    trained_on = TrainingImages(value_type="uint8", pixel_size=0.5, synthetic=True, data="synth")
    save_bundle(tmp_path / "bundle", create_model("test_tinycd"), trained_on=trained_on)
    root = write_pairs(tmp_path / "s2", 3, splits=(("test", 2),))
    before, after = root / "test" / "A", root / "test" / "B"
    line = (
        "these images are unlike the training data (pairs synth): pixels of 10 m, trained on 0.5 m; "
        "uint16 values, trained on uint8; images not marked as synthetic, trained on synthetic pairs alone; "
        "expect worse masks"
    )
    words = ["--image-range", "0,3000"]
    for command in (
        ["predict", str(before), str(after), "--bundle", str(tmp_path / "bundle"), "-o", str(tmp_path / "m")],
        ["evaluate", str(tmp_path / "bundle"), str(root)],
    ):
        with pytest.warns(UserWarning) as told:
            assert main([*command, *words]) == 0
        assert [str(warning.message) for warning in told] == [line]
    for path in (before / "0.png", after / "0.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    with pytest.warns(UserWarning, match=r"\): images not marked as synthetic"):
        load(tmp_path / "bundle").predict([str(before / "0.png")], [after / "0.png"])
    (before / "0.png").unlink()
    (after / "0.png").unlink()
    (root / "synthetic.json").write_text("{}")
    with pytest.warns(UserWarning, match=r"uint16 values, trained on uint8; expect"):
        assert main(["evaluate", str(tmp_path / "bundle"), str(root), *words]) == 0


def test_commands_show_a_warning_in_one_line():
    def formatted():
        return warnings.formatwarning("look out", UserWarning, "file.py", 3, "code")

    assert "code" in formatted()
    with _warnings_in_one_line():
        assert formatted() == "warning: look out\n"
    assert "code" in formatted()


# -------------------------------------------------------------------------------------------------------- scenes


@pytest.fixture
def seen(monkeypatch):
    """Images of date 2 that networks are asked about."""
    seen = []
    answers = NetworkDetector.answers

    def recording(self, before, after, valid=None):
        seen.extend(after)
        return answers(self, before, after, valid)

    monkeypatch.setattr(NetworkDetector, "answers", recording)
    return seen


def test_a_scene_takes_the_bands_and_ranges_of_the_bundle(run, tmp_path, seen):
    scenes = pytest.importorskip("bitemporal.scenes")
    bundle = run / "run" / "o-p" / "bundle"
    detector = load(bundle)
    before, after = (write_tiff(tmp_path / f"{i}.tif", random_samples(5, seed=i)) for i in range(2))
    out, quicklook, probability = tmp_path / "c.tif", tmp_path / "q.png", tmp_path / "p.tif"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        scenes.predict_scene(detector, before, after, out, quicklook=quicklook, probability=probability)
    expected = scaled(random_samples(5, seed=1)[[2, 1, 0, 4]], list(zip(RANGES[::2], RANGES[1::2], strict=True)))
    assert np.array_equal(seen[0].permute(1, 2, 0).numpy()[:SIDE, :SIDE], expected)
    with rasterio.open(out) as written:
        assert written.tags()["AFTER"] == "1.tif:3, 1.tif:2, 1.tif:1, 1.tif:5"
    with Image.open(quicklook) as picture:  # the first three channels as red, green and blue
        middle = SIDE + 8
        assert np.array_equal(np.asarray(picture)[:, middle : middle + SIDE], expected[..., :3])
    words = [str(probability), "-o", str(tmp_path / "t.tif"), "--quicklook", str(tmp_path / "t.png")]
    assert main(["threshold", *words, "--before", str(before), "--after", str(after)]) == 0
    assert (tmp_path / "t.png").read_bytes() == quicklook.read_bytes()
    # a file for each channel
    files = [
        [write_tiff(tmp_path / f"{name}{band}.tif", random_samples(5, seed=i)[[band]]) for band in (2, 1, 0, 4)]
        for i, name in enumerate("ab")
    ]
    seen.clear()
    scenes.predict_scene(detector, *files, tmp_path / "d.tif")
    assert np.array_equal(seen[0].permute(1, 2, 0).numpy()[:SIDE, :SIDE], expected)
    with pytest.raises(OptionError, match="found 3 files, expected one raster, or 4 of one band each"):
        scenes.predict_scene(detector, files[0][:3], files[1][:3], tmp_path / "e.tif")
    # a stated range, and bands in another order
    seen.clear()
    scenes.predict_scene(detector, before, after, tmp_path / "f.tif", bands=(1, 2, 3, 5), image_range=(0, 4000))
    stated = scaled(random_samples(5, seed=1)[[0, 1, 2, 4]], [(0, 4000)] * 4)
    assert np.array_equal(seen[0].permute(1, 2, 0).numpy()[:SIDE, :SIDE], stated)


@pytest.mark.parametrize("bands", [3, 4, 13])
def test_scenes_of_other_bands_name_those_to_choose_and_the_remedy_works(run, tmp_path, capsys, bands):
    pytest.importorskip("bitemporal.scenes")
    files = [str(write_tiff(tmp_path / f"{i}.tif", random_samples(bands, seed=i))) for i in range(2)]
    save_bundle(tmp_path / "rgb", create_model("test_tinycd"))
    for bundle in (run / "run" / "origin" / "bundle", tmp_path / "rgb"):
        command = ["predict-scene", *files, "--bundle", str(bundle), "-o", str(tmp_path / "c.tif")]
        status = main(command)
        text = capsys.readouterr().err
        if (bands, bundle.name) == (3, "bundle"):
            assert status == 1 and "has no band 5; it has 3" in text and "at least 4 bands" in text
        elif (bands, bundle.name) in ((3, "rgb"), (13, "bundle")):
            assert status == 0
        else:
            assert status == 1
            follow_options(text, command)


def test_scenes_and_archives_warn_of_images_far_outside(run, tmp_path, capsys):
    scenes = pytest.importorskip("bitemporal.scenes")
    bundle = run / "run" / "origin" / "bundle"
    files = [write_tiff(tmp_path / f"{i}.tif", random_samples(5, seed=i), pixel=0.5) for i in range(2)]
    with pytest.warns(UserWarning, match=r"pixels of 0\.5 m, trained on 10 m; expect"):
        scenes.predict_scene(load(bundle), *files, tmp_path / "c.tif")
    manifest = tmp_path / "m.csv"
    manifest.write_text("id,before,after\n" + "".join(f"{name},0.tif,1.tif\n" for name in "ab"))
    command = ["predict-archive", "--manifest", str(manifest), "--bundle", str(bundle), "-o", str(tmp_path / "out")]
    with pytest.warns(UserWarning) as told:
        assert main(command) == 0
    assert [str(warning.message)[:31] for warning in told if "trained" in str(warning.message)] == [
        "a: these images are unlike the training"[:31]
    ]
    assert (tmp_path / "out" / "status.csv").read_text().count("pixels of 0.5 m") == 2


def test_synthetic_scenes_are_no_real_images(tmp_path):
    from bitemporal.synthetic import write_scene

    scenes = pytest.importorskip("bitemporal.scenes")
    names = [tmp_path / f"{name}.tif" for name in ("before", "after", "label")]
    write_scene(*names, height=64, width=64)
    trained_on = TrainingImages(value_type="uint8", pixel_size=0.5, synthetic=True)
    detector = NetworkDetector(create_model("test_tinycd"), trained_on=trained_on)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        scenes.predict_scene(detector, *names[:2], tmp_path / "c.tif")
    real = [write_tiff(tmp_path / f"{i}.tif", random_samples(3, "uint8", 0, 255, seed=i), 0.5) for i in range(2)]
    with pytest.warns(UserWarning, match=": images not marked as synthetic, trained on synthetic pairs alone"):
        scenes.predict_scene(detector, *real, tmp_path / "d.tif")
