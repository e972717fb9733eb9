"""Images of any bands: pairs, networks of any number of channels, bundles and scenes that know their bands."""

import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from bitemporal.cli.main import main
from bitemporal.errors import DataError, OptionError
from bitemporal.imagery import read_image
from bitemporal.models import create_model, list_models, model_card
from bitemporal.pairs import PairFolder, check_pairs
from bitemporal.run.augmentation import augment
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
        (random_samples(2, "uint32", 0, 2**32 - 1), (0, 2**32 - 1)),
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
    assert model.eval().change_probability(*images).shape == (2, 1, side, side)
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
