"""Training, evaluation, prediction of files and of scenes see the very same pixels of a file."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from bitemporal.evaluation import evaluate
from bitemporal.imagery import read_image
from bitemporal.inference import Detector, predict_files
from bitemporal.inference.detector import Answer
from bitemporal.pairs import PairFolder, check_pairs
from bitemporal.run.loading import TrainingSamples, ValidationPairs

rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")
SIZE = 64
RANGE = (300.0, 3300.0)


class Recording(Detector):
    """Says that nothing changed, and keeps what it was shown."""

    def __init__(self):
        self.seen = []

    def answers(self, before, after, valid=None):
        self.seen += zip(before, after, strict=True)
        return [Answer(torch.zeros(1, *image.shape[-2:])) for image in before]


def write_tiff(path, samples, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": len(samples), "height": SIZE, "width": SIZE, "dtype": samples.dtype}
    place = {"crs": "EPSG:32631", "transform": rasterio.Affine(10, 0, 0, 0, -10, 0)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", **profile, **place, **options) as target:
            target.write(samples)


@pytest.fixture(params=["uint8", "uint16", "float32"])
def pair(request, tmp_path):
    """A folder of one pair as rasterio writes it by default, and the range to read it with."""
    rng = np.random.default_rng(0)
    high = 255 if request.param == "uint8" else 4000
    for date in "AB":
        write_tiff(tmp_path / "set" / date / "p.tif", rng.integers(0, high, (3, SIZE, SIZE)).astype(request.param))
    (tmp_path / "set" / "label").mkdir()
    Image.fromarray(np.eye(SIZE, dtype=np.uint8) * 255).save(tmp_path / "set" / "label" / "p.png")
    return tmp_path / "set", None if request.param == "uint8" else RANGE


def test_every_path_gives_the_same_pixels(pair, tmp_path):
    scenes = pytest.importorskip("bitemporal.scenes")
    root, image_range = pair
    folder = PairFolder(root, image_range=image_range)
    check = check_pairs(folder)
    assert not check.faults, check.report()
    folder = folder.with_decoding(check.decoding)
    paths = root / "A" / "p.tif", root / "B" / "p.tif"
    loaded = folder.load(folder.pairs()[0])
    before, after = (torch.from_numpy(image.copy()).permute(2, 0, 1) for image in (loaded.before, loaded.after))
    assert before.dtype == torch.uint8 and len(before.unique()) > 250

    seen = {}
    for name, source in (
        ("training", TrainingSamples(folder, folder.pairs(), "none", SIZE, 0)),
        ("validation", ValidationPairs(folder, folder.pairs())),
    ):
        seen[name] = tuple(source[0][0])
    detector = Recording()
    evaluate(detector, folder, folder.pairs())
    predict_files(detector, *paths, tmp_path / "mask.png", image_range=image_range)
    detector.predict(*(read_image(path, image_range) for path in paths))
    if image_range is None:
        detector.predict(*paths)
    scenes.predict_scene(detector, *paths, tmp_path / "change.tif", image_range=image_range, tile=SIZE, overlap=0)
    seen |= dict(enumerate(detector.seen))
    assert len(seen) == (7 if image_range is None else 6)
    for name, images in seen.items():
        for image, expected in zip(images, (before, after), strict=True):
            rows, columns = ((side - SIZE) // 2 for side in image.shape[-2:])  # a tile may have a margin
            inner = image[:, rows : rows + SIZE, columns : columns + SIZE]
            assert inner.dtype == torch.uint8 and torch.equal(inner, expected), name


@pytest.mark.parametrize("compress", [None, "lzw", "deflate", "zstd", "lerc"])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("bands", [1, 3, 4])
def test_sound_tiffs_of_any_layout_are_read(tmp_path, bands, dtype, interleave, compress):
    samples = np.random.default_rng(0).integers(0, 250, (bands, SIZE, SIZE)).astype(dtype)
    options = {} if compress is None else {"compress": compress}
    if bands == 4:
        options["photometric"] = "RGB"  # else nothing says which of them are colours
    write_tiff(tmp_path / "x.tif", samples, interleave=interleave, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        pixels = read_image(tmp_path / "x.tif", (0, 255))
    assert np.array_equal(pixels, np.broadcast_to(samples[:3].transpose(1, 2, 0), pixels.shape))
    told = " ".join(str(warning.message) for warning in caught)
    assert ("grey" in told) == (bands == 1) and bool(told) == (bands != 3)
