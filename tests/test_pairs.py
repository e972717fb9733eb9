import errno
import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from bitemporal.errors import DataError, LabelError, OptionError
from bitemporal.imagery import read_image, read_mask
from bitemporal.imagery.decode import decode
from bitemporal.imagery.scale import to_channels
from bitemporal.method.car import CarPartition
from bitemporal.pairs import PairFolder, check_pairs, resolve_decoding

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"
needs_shared = [
    pytest.mark.shared,
    pytest.mark.skipif(not SHARED.is_dir(), reason="real pairs are not next to this checkout (../shared/data)"),
]
SIZE = (12, 16)


def photo(seed=0, size=SIZE):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def mask(*values, size=SIZE, dtype=np.uint8):
    """Equal stripes of the values, left to right."""
    columns = np.asarray(values, dtype=dtype)[np.arange(size[1]) * len(values) // size[1]]
    return np.broadcast_to(columns, size).copy()


def save(path, content, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = content if isinstance(content, Image.Image) else Image.fromarray(content)
    image.save(path, **options)
    return path


def folder(root, labels, splits=None):
    """Pairs with good images and the given labels: {stem: array, image, or None}."""
    for stem, label in labels.items():
        split = (splits or {}).get(stem)
        base = root / split if split else root
        save(base / "A" / f"{stem}.png", photo(1))
        save(base / "B" / f"{stem}.png", photo(2))
        if label is not None:
            save(base / "label" / f"{stem}.png", label)
    return root


def only_fault(scan):
    assert len(scan.faults) == 1, scan.report()
    return scan.faults[0]


def fault_of(scan, name):
    (fault,) = [fault for fault in scan.faults if fault.path.name == name]
    return fault


def snapshot(root):
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.rglob("*")) if p.is_file()}


# ------------------------------------------------------------------------------------------------------- layout


def test_splits_and_single_folder(tmp_path):
    root = folder(
        tmp_path / "set", {"a": mask(0, 255), "b": mask(0), "c": None}, {"a": "train", "b": "val", "c": "test"}
    )
    whole = PairFolder(root)
    assert whole.splits == ("train", "val", "test")
    assert [(p.split, p.stem, p.label is None) for p in whole.pairs()] == [
        ("train", "a", False),
        ("val", "b", False),
        ("test", "c", True),
    ]
    assert PairFolder(root / "val").splits == ("val",)
    (root / "val").rename(root / "mine")
    assert PairFolder(root / "mine").splits == ("all",)
    pair = whole.pairs("train")[0]
    assert pair.before == root / "train" / "A" / "a.png" and pair.after == root / "train" / "B" / "a.png"
    with pytest.raises(DataError, match=r"no split 'dev', only train, val, test"):
        whole.pairs("dev")


def test_stems_decide_and_extensions_may_differ(tmp_path):
    for folder_name, name in (("A", "Bäume 1.v2.JPG"), ("B", "Bäume 1.v2.tiff"), ("label", "Bäume 1.v2.Bmp")):
        save(tmp_path / folder_name / name, mask(0, 255) if folder_name == "label" else photo())
    # the same accented letter in its other spelling
    (tmp_path / "B" / "Bäume 1.v2.tiff").rename(tmp_path / "B" / "Ba\u0308ume 1.v2.tiff")
    pairs = PairFolder(tmp_path).pairs()
    assert [p.stem for p in pairs] == ["Bäume 1.v2"]
    assert resolve_decoding(PairFolder(tmp_path)).load(pairs[0]).label.mean() == 0.5


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp"])
def test_every_format(tmp_path, suffix):
    flat = np.full((9, 7, 3), 200, dtype=np.uint8)
    pixels = read_image(save(tmp_path / f"x.{suffix}", flat))
    assert pixels.shape == (9, 7, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - 200).max() <= 2  # jpg and webp are lossy


def test_wrong_layouts_say_what_was_found_and_expected(tmp_path):
    with pytest.raises(DataError, match="none: no such folder; expected ROOT"):
        PairFolder(tmp_path / "none")
    save(tmp_path / "x" / "imgs_1" / "a.png", photo())
    with pytest.raises(DataError, match=r"folder imgs_2 missing, found imgs_1; expected ROOT/\{train,val,test\}/"):
        PairFolder(tmp_path / "x")
    with pytest.raises(DataError, match="is a file, not a folder"):
        PairFolder(tmp_path / "x" / "imgs_1" / "a.png")
    save(tmp_path / "y" / "train" / "A" / "a.png", photo())
    with pytest.raises(DataError, match=r"folder B missing, found A"):
        PairFolder(tmp_path / "y")
    both = folder(tmp_path / "z", {"a": None, "b": None}, {"a": "train"})
    with pytest.raises(DataError, match="holds both splits"):
        PairFolder(both)


def test_clutter_is_left_out_and_said(tmp_path):
    root = folder(tmp_path, {"a": mask(0, 255)})
    for name in (".hidden.png", "Thumbs.db", "notes.txt"):
        (root / "A" / name).write_text("x")
    (root / "A" / "old.png").mkdir()
    scan = check_pairs(PairFolder(root))
    assert not scan.faults
    (warning,) = scan.warnings
    assert "A: 2 entries" in warning and "notes.txt" in warning and "old.png" in warning


def test_symbolic_links(tmp_path):
    root = folder(tmp_path / "set", {"a": mask(0, 255), "b": mask(0)})
    (root / "A" / "a.png").rename(tmp_path / "elsewhere.png")
    (root / "A" / "a.png").symlink_to(tmp_path / "elsewhere.png")
    assert not check_pairs(PairFolder(root)).faults
    (root / "B" / "b.png").unlink()
    (root / "B" / "b.png").symlink_to(tmp_path / "gone.png")
    assert "broken link" in only_fault(check_pairs(PairFolder(root))).what


@pytest.mark.skipif(os.name != "posix", reason="this system has no device files")
def test_a_link_onto_itself_and_a_device_are_faults_like_others(tmp_path):
    root = folder(tmp_path / "set", {stem: mask(0, 255) for stem in ("good", "loop", "device")})
    loop, device = root / "A" / "loop.png", root / "label" / "device.png"
    for path, target in ((loop, loop.name), (device, os.devnull)):
        path.unlink()
        path.symlink_to(target)
    (root / "ring").symlink_to("ring")
    texts = {fault.path: fault.what for fault in check_pairs(PairFolder(root)).faults}
    assert texts.keys() == {loop, device}
    assert "cannot be opened" in texts[loop]
    assert "not a regular file" in texts[device]


def test_a_folder_that_may_not_be_listed_is_named(tmp_path, monkeypatch):
    root = folder(tmp_path / "set", {"a": mask(0, 255)})
    scandir = os.scandir

    def denied(path):  # modes do not hold for the administrator, who may run the tests
        if os.fspath(path) == os.fspath(root / "B"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(DataError, match="B: cannot be listed"):
        PairFolder(root)


def test_names_that_are_no_text(tmp_path):
    root = folder(tmp_path, {"a": mask(0, 255)})
    odd = b"\xff\xfe.png".decode("utf-8", "surrogateescape")
    try:
        save(root / "A" / odd, photo())
    except OSError:
        pytest.skip("this file system takes only valid text as names")
    scan = check_pairs(PairFolder(root))
    assert "no partner" in only_fault(scan).what
    scan.report().encode("utf-8")


# ------------------------------------------------------------------------------------------------ label codings


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (mask(0, 255), mask(255), "0 = unchanged, 255 = changed (found in 3 files)"),
        (mask(0, 1), mask(1), "0 = unchanged, 1 = changed (found in 3 files)"),
        (mask(0, 1).astype(bool), mask(1).astype(bool), "0 = unchanged, 255 = changed (found in 3 files)"),
        (mask(0, 255, dtype=np.uint16), mask(255, dtype=np.uint16), "255 = changed"),
    ],
)
def test_plain_codings_and_files_of_one_value(tmp_path, first, second, said):
    root = folder(tmp_path, {"a": first, "b": second, "c": np.zeros_like(first)})
    pairs = PairFolder(root)
    scan = check_pairs(pairs)
    assert not scan.faults and said in scan.decoding.describe()
    assert [r.car for r in scan.records] == [0.5, 1.0, 0.0]
    loaded = [resolve_decoding(pairs).load(pair).label for pair in pairs.pairs()]
    assert [set(np.unique(label)) for label in loaded] == [{0, 1}, {1}, {0}]
    assert loaded[0].dtype == np.uint8 and (loaded[0] == (mask(0, 1) > 0)).all()


def palette_image(indices, colours):
    image = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    image.putpalette([channel for colour in colours for channel in colour])
    return image


BLACK, WHITE, RED, BLUE = (0, 0, 0), (255, 255, 255), (128, 0, 0), (0, 0, 255)


@pytest.mark.parametrize(
    ("indices", "colours", "changed"),
    [
        (mask(0, 1), [BLACK, WHITE], 1),
        (mask(3, 2), [RED, RED, WHITE, BLACK], 2),  # colours speak for themselves, whatever the index
        (mask(0, 1), [BLACK, RED], 1),  # as in Pascal VOC
        (mask(0, 1), [BLUE, RED], 1),
    ],
)
def test_palettes_that_are_clear(tmp_path, indices, colours, changed):
    root = folder(tmp_path, {"a": palette_image(indices, colours)})
    pairs = PairFolder(root)
    scan = check_pairs(pairs)
    assert not scan.faults, scan.report()
    assert (resolve_decoding(pairs).load(pairs.pairs()[0]).label == (indices == changed)).all()
    assert scan.records[0].car == 0.5


@pytest.mark.parametrize(
    ("indices", "colours", "words"),
    [
        (mask(0, 2), [BLACK, BLUE, RED], ["index 2 = colour (128, 0, 0)", "index 0 = colour (0, 0, 0)"]),
        (mask(0, 1), [WHITE, BLACK], ["index 0 is white and index 1 black", "label_values=(0, 255)"]),
        # index 255 of Pascal VOC palettes is a border that does not count
        (mask(0, 255), [BLACK, RED, *[BLUE] * 253, (224, 224, 192)], ["(224, 224, 192)", "label_values"]),
    ],
)
def test_palettes_that_are_not(tmp_path, indices, colours, words):
    scan = check_pairs(PairFolder(folder(tmp_path, {"a": palette_image(indices, colours)})))
    fault = only_fault(scan)
    assert scan.decoding is None and fault.kind == "label"
    for word in words:
        assert word in fault.what + fault.remedy


def test_palettes_settled_by_options(tmp_path):
    red = folder(tmp_path / "red", {"a": palette_image(mask(0, 2), [BLACK, BLUE, RED])})
    settled = PairFolder(red, label_values=(0, 2))
    assert not check_pairs(settled).faults and settled.load(settled.pairs()[0]).label.mean() == 0.5
    refused = check_pairs(PairFolder(red, label_threshold=1))
    assert "a threshold does not apply to indices" in only_fault(refused).what
    inverse = folder(tmp_path / "inverse", {"a": palette_image(mask(0, 1, 1, 1), [WHITE, BLACK])})
    for values, car in (((0, 255), 0.25), ((255, 0), 0.75)):
        assert check_pairs(PairFolder(inverse, label_values=values)).records[0].car == car


@pytest.mark.parametrize(
    ("label", "found", "option"),
    [
        (mask(1, 2), ["1 (96 pixels)", "2 (96)"], "label_values=(1, 2) (--label-values 1,2)"),
        (mask(1), ["1 (192 pixels)"], "label_values=(0, 1)"),
        (mask(0, 1, 255, 255), ["255 (96 pixels)", "0 (48)", "1 (48)"], "label_values=(0, 1, 255)"),
        (mask(0, 0, 128, 255), ["0 (96 pixels)", "128 (48)", "255 (48)"], "label_values=(0, 128, 255)"),
        (mask(*range(0, 160, 10), size=(2, 16)), ["and 8 more"], "label_threshold=128 (--label-threshold 128)"),
        (mask(0, 65535, dtype=np.uint16), ["65535 (96)"], "label_values=(0, 65535)"),
    ],
)
def test_ambiguous_values_are_listed_with_the_option_that_settles_them(tmp_path, label, found, option):
    root = folder(tmp_path, {"a": label})
    pairs = PairFolder(root)
    scan = check_pairs(pairs, images=False)
    fault = only_fault(scan)
    assert scan.decoding is None and fault.kind == "label" and np.isnan(scan.records[0].car)
    for word in found:
        assert word in fault.what
    assert option in fault.remedy
    with pytest.raises(LabelError, match="labels"):
        resolve_decoding(pairs)
    with pytest.raises(DataError, match="1 fault"):
        scan.raise_for_faults()


def test_label_values_with_ignored_pixels(tmp_path):
    root = folder(tmp_path, {"a": mask(1, 2, 9, 9), "b": mask(9)})
    pairs = PairFolder(root, label_values=(1, 2, 9))
    scan = check_pairs(pairs)
    assert not scan.faults and scan.records[0].car == 0.5 and np.isnan(scan.records[1].car)
    assert (pairs.load(pairs.pairs()[0]).label == mask(0, 1, 255, 255)).all()
    assert "1 = unchanged, 2 = changed, 9 = ignored (by label_values; 2 files)" in scan.decoding.describe()


def test_a_value_beside_the_stated_ones_is_a_fault_of_its_file(tmp_path):
    root = folder(tmp_path, {"a": mask(1, 2), "b": mask(1, 2, 3, 3)})
    pairs = PairFolder(root, label_values=(1, 2))
    fault = only_fault(check_pairs(pairs))
    assert fault.path.name == "b.png" and "3 (96 pixels)" in fault.what and "(1, 2, 3)" in fault.remedy
    assert pairs.load(pairs.pairs()[0]).label.max() == 1
    with pytest.raises(LabelError, match=r"b\.png.*3 \(96 pixels\)"):
        pairs.load(pairs.pairs()[1])


@pytest.mark.parametrize("threshold", [127, 128, 129, 0.5])
def test_threshold_is_the_lowest_changed_value(tmp_path, threshold):
    values = (0, 127, 128, 255)
    pairs = PairFolder(folder(tmp_path, {"a": mask(*values)}), label_threshold=threshold)
    expected = [int(value >= threshold) for value in values]
    assert (pairs.load(pairs.pairs()[0]).label == mask(*expected)).all()
    assert check_pairs(pairs).records[0].car == sum(expected) / 4


def test_float_labels(tmp_path):
    save(tmp_path / "m.tif", mask(0.0, 1.0, dtype=np.float32))
    assert (read_mask(tmp_path / "m.tif") == mask(0, 1)).all()
    save(tmp_path / "p.tif", mask(0.0, 0.25, 0.5, 0.75, dtype=np.float32))
    with pytest.raises(LabelError, match="label_threshold"):
        read_mask(tmp_path / "p.tif")
    assert (read_mask(tmp_path / "p.tif", label_threshold=0.5) == mask(0, 0, 1, 1)).all()
    save(tmp_path / "n.tif", mask(0.0, np.nan, dtype=np.float32))
    with pytest.raises(LabelError, match="nan"):
        read_mask(tmp_path / "n.tif", label_threshold=0.5)


def test_codings_that_differ_between_files_are_an_error(tmp_path):
    root = folder(tmp_path, {"a": mask(0, 1), "b": mask(0, 255), "c": mask(255), "d": mask(0)})
    fault = only_fault(check_pairs(PairFolder(root)))
    assert "1 files hold 0/1 (such as a.png), 2 hold 0/255 (such as b.png)" in fault.what
    assert "label_threshold=1" in fault.remedy
    assert [r.car for r in check_pairs(PairFolder(root, label_threshold=1)).records] == [0.5, 0.5, 1.0, 0.0]


def test_codings_that_differ_between_splits_are_an_error(tmp_path):
    root = folder(tmp_path, {"a": mask(0, 1), "b": mask(0, 255)}, {"a": "train", "b": "val"})
    assert "mix two codings" in only_fault(check_pairs(PairFolder(root))).what
    assert not check_pairs(PairFolder(root), splits=("val",)).faults


def test_colour_labels(tmp_path):
    grey = np.repeat(mask(0, 255)[..., None], 3, axis=-1)
    pairs = PairFolder(folder(tmp_path / "grey", {"a": grey}))
    scan = check_pairs(pairs)
    assert not scan.faults and "equal channels" in scan.warnings[0]
    assert resolve_decoding(pairs).load(pairs.pairs()[0]).label.mean() == 0.5
    red = grey.copy()
    red[..., 1:] = 0
    fault = only_fault(check_pairs(PairFolder(folder(tmp_path / "red", {"a": red}))))
    assert "(255, 0, 0)" in fault.what and "(0, 0, 0)" in fault.what and "--unchanged-colours 0,0,0" in fault.remedy
    with pytest.raises(LabelError, match=r"\(255, 0, 0\)"):
        read_mask(tmp_path / "red" / "label" / "a.png", label_values=(0, 255))
    among_others = check_pairs(PairFolder(folder(tmp_path / "mixed", {"a": red, "b": grey})))
    assert fault_of(among_others, "a.png").kind == "label" and "1 of 2 labels" in among_others.faults[0].what
    assert np.isnan(among_others.records[0].car) and among_others.records[1].car == 0.5
    alpha = np.dstack([grey, np.full(SIZE, 255, np.uint8)])
    assert read_mask(save(tmp_path / "alpha.png", alpha)).mean() == 0.5
    alpha[..., 3] = mask(0, 255)
    with pytest.raises(LabelError, match="label_band=4"):
        read_mask(save(tmp_path / "through.png", alpha))


def test_jpeg_labels(tmp_path):
    root = folder(tmp_path, {"a": None, "b": None})
    disc = (np.hypot(*np.mgrid[-6:6, -8:8]) < 5).astype(np.uint8) * 255
    save(root / "label" / "a.jpg", disc, quality=60)
    save(root / "label" / "b.jpg", np.zeros(SIZE, np.uint8), quality=60)
    fault = only_fault(check_pairs(PairFolder(root)))
    assert "JPEG 2000 or WebP compression (2 files)" in fault.what and "more" in fault.what
    assert "--label-threshold 128" in fault.remedy
    settled = PairFolder(root, label_threshold=128)
    assert not check_pairs(settled).faults
    assert (settled.load(settled.pairs()[0]).label == disc // 255).mean() > 0.95
    # a JPEG that came through unharmed is as good as a PNG
    save(root / "label" / "a.jpg", np.repeat(np.repeat([[0, 255]], 8, 1), 8, 0).astype(np.uint8), quality=100)
    (root / "label" / "b.jpg").unlink()
    assert set(np.unique(read_mask(root / "label" / "a.jpg"))) == {0, 1}


def test_options_that_make_no_sense(tmp_path):
    root = folder(tmp_path, {"a": mask(0, 255)})
    for options, words in (
        ({"label_values": (0,)}, "two or three different values"),
        ({"label_values": (1, 1)}, "two or three different values"),
        ({"label_values": (0, 255), "label_threshold": 128}, "both given"),
        ({"label_threshold": float("nan")}, "finite"),
        ({"image_range": (5, 5)}, "LOW below HIGH"),
        ({"image_range": (0, float("inf"))}, "finite"),
    ):
        with pytest.raises(OptionError, match=words):
            PairFolder(root, **options)
    with pytest.raises(OptionError, match="workers"):
        check_pairs(PairFolder(root), workers=0)


def test_1_bit_labels_obey_the_options(tmp_path):
    root = folder(tmp_path, {"a": mask(0, 1, 1, 1).astype(bool)})
    for options, car in (
        ({"label_values": (0, 1)}, 0.75),
        ({"label_values": (1, 0)}, 0.25),
        ({"label_values": (0, 255)}, 0.75),
        ({"label_values": (255, 0)}, 0.25),
        ({"label_threshold": 128}, 0.75),
    ):
        pairs = PairFolder(root, **options)
        assert check_pairs(pairs).records[0].car == car == pairs.load(pairs.pairs()[0]).label.mean()


# --------------------------------------------------------------------------------------------------- image kinds


def test_conversions_warn(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)
    with pytest.warns(UserWarning, match=r"g\.png: grey image"):
        pixels = read_image(save(tmp_path / "g.png", grey))
    assert (pixels == grey[..., None]).all() and pixels.shape == (*SIZE, 3)
    rgba = np.random.default_rng(0).integers(0, 256, (*SIZE, 4), dtype=np.uint8)
    with pytest.warns(UserWarning, match="alpha channel is dropped"):
        assert (read_image(save(tmp_path / "rgba.png", rgba)) == rgba[..., :3]).all()
    with pytest.warns(UserWarning, match="palette"):
        pixels = read_image(save(tmp_path / "p.png", palette_image(mask(0, 1), [RED, BLUE])))
    assert (pixels[0, 0] == RED).all() and (pixels[0, -1] == BLUE).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(save(tmp_path / "rgb.png", photo()))


def test_a_scan_gathers_conversions_in_one_line_and_loading_is_silent(tmp_path):
    root = folder(tmp_path, {"a": mask(0, 255), "b": mask(0)})
    for stem in "ab":
        save(root / "A" / f"{stem}.png", mask(0, 100))
    pairs = PairFolder(root)
    scan = check_pairs(pairs)
    assert not scan.faults and scan.warnings == ["2 files: grey image, repeated to three channels (such as A/a.png)"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve_decoding(pairs).load(pairs.pairs()[0]).before.shape == (*SIZE, 3)


@pytest.mark.parametrize(("suffix", "dtype"), [("png", np.uint16), ("tif", np.uint16), ("tif", np.float32)])
def test_deep_grey_images_need_a_range(tmp_path, suffix, dtype):
    samples = np.array([[0, 500, 1000, 2000, 3000, 5000]], dtype=dtype)
    path = save(tmp_path / f"x.{suffix}", samples)
    with pytest.raises(DataError, match=r"values 0 to 5000.*--image-range 0,3000 \(image_range=\(0, 3000\)\)"):
        read_image(path)
    with pytest.warns(UserWarning, match="grey"):
        pixels = read_image(path, (1000, 3000))
    assert (pixels[0, :, 0] == [0, 0, 0, 128, 255, 255]).all()
    assert (read_image(save(tmp_path / "8.png", photo()), (1000, 3000)) == np.asarray(photo())).all()


def png16(path, samples):
    """A 16-bit RGB PNG, written by the specification."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


def test_deep_colour_images_are_not_silently_cut_to_8_bits(tmp_path):
    samples = np.random.default_rng(0).integers(0, 4000, (6, 7, 3)).astype(np.uint16)
    path = png16(tmp_path / "deep.png", samples)
    with Image.open(path) as plain:
        assert plain.mode == "RGB"  # what makes the trap
    with pytest.raises(DataError, match="16 bits per sample"):
        read_image(path)
    pytest.importorskip("rasterio", reason="needs the extra geo")
    assert (read_image(path, (0, 4000)) == np.rint(samples * (255 / 4000))).all()


def test_deep_tiff_of_three_bands(tmp_path):
    rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")
    samples = np.random.default_rng(0).integers(0, 4000, (3, 6, 7)).astype(np.uint16)
    kind = {"height": 6, "width": 7, "count": 3, "dtype": "uint16", "photometric": "RGB"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for interleave in ("pixel", "band"):
            with rasterio.open(tmp_path / "x.tif", "w", driver="GTiff", interleave=interleave, **kind) as target:
                target.write(samples)
            with pytest.raises(DataError, match="16 bits"):
                read_image(tmp_path / "x.tif")
            expected = np.rint(samples.transpose(1, 2, 0) * (255 / 4000))
            assert (read_image(tmp_path / "x.tif", (0, 4000)) == expected).all()
        kind |= {"count": 5, "photometric": "MINISBLACK"}
        with rasterio.open(tmp_path / "five.tif", "w", driver="GTiff", **kind) as target:
            target.write(np.zeros((5, 6, 7), np.uint16))
    with pytest.raises(DataError, match=r"five\.tif: has 5 bands.*--bands 3,2,1"):
        read_image(tmp_path / "five.tif", (0, 4000))


def test_without_rasterio_the_extra_is_named(tmp_path, monkeypatch):
    rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")
    paths = [png16(tmp_path / "deep.png", np.zeros((6, 7, 3), np.uint16))]
    for dtype in ("uint16", "float64"):
        paths.append(tmp_path / f"{dtype}.tif")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.open(paths[-1], "w", driver="GTiff", height=6, width=7, count=3, dtype=dtype) as target:
                target.write(np.zeros((3, 6, 7), dtype))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    for path in paths:
        with pytest.raises(DataError, match=rf"{path.name}: .*rasterio.*bitemporal\[geo\].*convert"):
            read_image(path, (0, 4000))


def test_orientation_is_said_not_followed(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    with pytest.warns(UserWarning, match="EXIF orientation ignored"):
        assert read_image(save(tmp_path / "x.png", photo(), exif=exif)).shape == (*SIZE, 3)
    with pytest.warns(UserWarning, match="orientation tag applied"):
        assert read_image(save(tmp_path / "x.tif", photo(), tiffinfo={274: 6})).shape == (*SIZE[::-1], 3)


def test_animations_and_wrong_extensions_are_said(tmp_path):
    path = tmp_path / "x.png"
    photo().save(path, save_all=True, append_images=[photo(1)])
    with pytest.warns(UserWarning, match="first is used"):
        assert (read_image(path) == np.asarray(photo())).all()
    photo().save(tmp_path / "y.png", format="BMP")
    with pytest.warns(UserWarning, match="content is BMP, although the extension says PNG"):
        read_image(tmp_path / "y.png")


# ------------------------------------------------------------------------------------------------------- damage


def bomb(width, height):
    stream = io.BytesIO()
    Image.new("L", (1, 1)).save(stream, "PNG")
    data = bytearray(stream.getvalue())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_truncated_files_are_faults(tmp_path, suffix):
    whole = save(tmp_path / f"whole.{suffix}", photo(0, (64, 64))).read_bytes()
    for share in (0.02, 0.3, 0.9):
        (tmp_path / f"cut.{suffix}").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError, match=rf"cut\.{suffix}: .*(truncated|no image|header|cannot be read here)"):
            read_image(tmp_path / f"cut.{suffix}")


def test_damage_never_escapes_as_another_error(tmp_path):
    generator = np.random.default_rng(0)
    for suffix in ("png", "jpg", "bmp", "tif", "webp"):
        refused = 0
        whole = np.frombuffer(save(tmp_path / f"w.{suffix}", photo(0, (32, 32))).read_bytes(), np.uint8)
        for _ in range(60):
            broken = whole.copy()
            broken[generator.integers(0, min(len(broken), 200), 4)] = generator.integers(0, 256, 4)
            (tmp_path / f"b.{suffix}").write_bytes(broken.tobytes())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    read_image(tmp_path / f"b.{suffix}")
                except DataError as error:
                    refused += 1
                    assert f"b.{suffix}" in str(error)
        assert refused >= 6, suffix  # a tenth at least


def test_files_that_are_no_images(tmp_path):
    for name, content, words in (
        ("empty.png", b"", "empty"),
        ("text.jpg", b"hello world", "no image of a known format"),
        ("page.tif", b"<html>not found</html>", "no image of a known format"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=words):
            read_image(tmp_path / name)
    photo().save(tmp_path / "really.png", format="GIF")
    with pytest.raises(DataError, match="no image of a known format"):
        read_image(tmp_path / "really.png")
    with pytest.raises(DataError, match=r"missing\.png: no such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(DataError, match="is a folder, expected an image"):
        read_image(tmp_path)


def test_decompression_bombs_are_refused_by_their_header(tmp_path, monkeypatch):
    before = Image.MAX_IMAGE_PIXELS
    (tmp_path / "bomb.png").write_bytes(bomb(40_000, 20_000))
    with pytest.raises(DataError, match=r"20000 x 40000 pixels \(800 Mpx\), more than the 512 Mpx"):
        read_image(tmp_path / "bomb.png")
    # WHU-CD's scene is above Pillow's own limit, and no bomb; this one only lacks its pixels
    (tmp_path / "scene.png").write_bytes(bomb(32_507, 15_354))
    monkeypatch.setattr(PngImageFile, "load", lambda self: None)
    from bitemporal.imagery import decode as decoding

    monkeypatch.setattr(decoding, "check_whole", lambda path: None)
    assert decoding.decode(tmp_path / "scene.png").size == (15_354, 32_507)
    assert before == Image.MAX_IMAGE_PIXELS


# ------------------------------------------------------------------------------------------- one report of all


@pytest.fixture
def faulty(tmp_path):
    """A set with one fault of every kind, and two good pairs."""
    root = folder(
        tmp_path / "set",
        {name: mask(0, 255) for name in ("good1", "good2", "lonely", "size", "cut", "bomb", "twice", "deep", "colour")}
        | {"nolabel": None, "test1": None},
        dict.fromkeys(
            ("good1", "good2", "lonely", "size", "cut", "bomb", "twice", "deep", "colour", "nolabel"), "train"
        )
        | {"test1": "test"},
    )
    train = root / "train"
    (train / "B" / "lonely.png").unlink()
    save(train / "label" / "orphan.png", mask(0, 255))
    save(train / "B" / "size.png", photo(0, (11, 16)))
    (train / "A" / "cut.png").write_bytes((train / "A" / "cut.png").read_bytes()[:300])
    (train / "B" / "bomb.png").write_bytes(bomb(60_000, 60_000))
    save(train / "A" / "twice.jpg", photo())
    save(train / "A" / "deep.png", mask(0, 4000, dtype=np.uint16))
    save(train / "label" / "colour.png", photo())
    return root


def test_one_report_holds_every_fault(faulty):
    before = snapshot(faulty)
    scan = check_pairs(PairFolder(faulty))
    kinds = {
        "lonely.png": "partner",
        "orphan.png": "partner",
        "nolabel.png": "partner",
        "size.png": "size",
        "cut.png": "file",
        "bomb.png": "file",
        "twice.jpg": "duplicate",
        "deep.png": "file",
        "colour.png": "label",
        "test": "unlabelled",
    }
    # the label of a pair whose image is missing stands alone too
    lonely = [fault for fault in scan.faults if fault.path.name == "lonely.png"]
    assert sorted(str(f.path.parent.name) for f in lonely) == ["A", "label"]
    found = {fault.path.name: fault.kind for fault in scan.faults}
    assert found == kinds
    assert "12 x 16, after is 11 x 16, label is 12 x 16" in fault_of(scan, "size.png").what
    with pytest.raises(DataError) as caught:
        scan.raise_for_faults()
    for fault in scan.faults:
        assert fault.path.name in str(caught.value) and fault.remedy in str(caught.value)
        assert fault.what in str(caught.value) and fault.remedy
    assert scan.decoding is not None and scan.decoding.rule() == "0 = unchanged, 255 = changed"
    assert {r.stem: r.car for r in scan.records}["good1"] == 0.5
    assert snapshot(faulty) == before


def test_good_pairs_of_a_faulty_set_still_load(faulty):
    pairs = resolve_decoding(PairFolder(faulty))
    by_stem = {pair.stem: pair for pair in pairs.pairs()}
    assert "twice" not in by_stem and "lonely" not in by_stem and "orphan" not in by_stem
    assert pairs.load(by_stem["good1"]).label.mean() == 0.5
    assert pairs.load(by_stem["test1"]).label is None
    for stem, words in (("size", "11 x 16"), ("cut", "truncated"), ("bomb", "bomb"), ("deep", "image_range")):
        with pytest.raises(DataError, match=words):
            pairs.load(by_stem[stem])


def test_any_number_of_workers_finds_the_same(faulty, capsys):
    one, two = (check_pairs(PairFolder(faulty), workers=n, progress=n == 2) for n in (1, 2))
    assert capsys.readouterr().err == ""  # no terminal, no bar
    assert repr(one.records) == repr(two.records) and one.report() == two.report()
    assert repr(one) == repr(two) and one.warnings == two.warnings and one.decoding == two.decoding


def test_sizes_are_compared_even_where_one_file_is_unreadable(tmp_path):
    root = folder(tmp_path, {"a": mask(0, 255, size=(10, 16))})
    (root / "B" / "a.png").write_bytes(b"")
    kinds = {fault.kind: fault.what for fault in check_pairs(PairFolder(root)).faults}
    assert kinds["size"] == "before is 12 x 16, label is 10 x 16 (height x width)" and "empty" in kinds["file"]


def test_unlabelled_pairs_serve_prediction(tmp_path):
    pairs = PairFolder(folder(tmp_path, {"a": None, "b": None}))
    assert [pair.label for pair in pairs.pairs()] == [None, None]
    assert pairs.load(pairs.pairs()[0]).label is None and pairs.decoding is None
    scan = check_pairs(pairs)
    assert only_fault(scan).kind == "unlabelled" and "fine for prediction" in scan.faults[0].what
    assert scan.records[0].labelled is False and np.isnan(scan.records[0].car) and scan.decoding is None


def test_empty_folders(tmp_path):
    (tmp_path / "A").mkdir()
    (tmp_path / "B").mkdir()
    scan = check_pairs(PairFolder(tmp_path))
    assert only_fault(scan).kind == "folder" and scan.records == []


def test_labels_that_say_the_same_everywhere_are_warned_of(tmp_path):
    root = folder(tmp_path, {"a": mask(0), "b": mask(0), "c": mask(0, 255)}, {"a": "train", "b": "train", "c": "val"})
    assert any("split train: no pixel of its 2 labels" in warning for warning in check_pairs(PairFolder(root)).warnings)
    zero = check_pairs(PairFolder(root), splits=("train",))
    assert "0 = unchanged, and nothing else (found in 2 files)" in zero.decoding.describe()
    full = folder(tmp_path / "full", {"a": mask(255)})
    assert any("every valid pixel" in warning for warning in check_pairs(PairFolder(full)).warnings)


def test_labels_only_reads_no_image(tmp_path):
    root = folder(tmp_path, {"a": mask(0, 0, 0, 255)})
    (root / "A" / "a.png").write_bytes(b"")
    scan = check_pairs(PairFolder(root), images=False)
    assert not scan.faults and scan.records[0].car == 0.25 and (scan.records[0].height, scan.records[0].width) == SIZE


def test_rows_of_the_partition(tmp_path):
    root = folder(tmp_path, {"a": mask(0), "b": mask(*[0] * 3, 255), "c": None, "d": mask(*[0] * 7, 255)})
    rows = check_pairs(PairFolder(root)).rows(CarPartition().part)
    assert [(r.split, r.stem, r.part) for r in rows] == [
        ("all", "a", "small"),
        ("all", "b", "large"),
        ("all", "c", ""),
        ("all", "d", "medium"),
    ]
    assert np.isnan(rows[2].car) and rows[3].car == 0.125


def test_a_folder_travels_to_other_processes(tmp_path):
    pairs = resolve_decoding(PairFolder(folder(tmp_path, {"a": mask(0, 1)})))
    copy = pickle.loads(pickle.dumps(pairs))
    assert copy.decoding == pairs.decoding and copy.load(copy.pairs()[0]).label.mean() == 0.5


def test_decoding_is_resolved_once_and_explicitly(tmp_path, monkeypatch):
    pairs = PairFolder(folder(tmp_path, {"a": mask(0, 1), "b": None}))
    check_pairs(pairs)
    labelled, unlabelled = pairs.pairs()
    assert pairs.decoding is None  # neither a check nor resolving changes the folder that it is given
    with pytest.raises(LabelError, match=r"a\.png: .*resolve_decoding\(folder\)"):
        pairs.load(labelled)
    assert pairs.load(unlabelled).label is None
    resolved = resolve_decoding(pairs)
    assert pairs.decoding is None and resolved.decoding.changed == (1,)
    assert resolved.load(labelled).label.mean() == 0.5
    monkeypatch.setattr("bitemporal.pairs.check.check_pairs", None)  # a known decoding is not looked for again
    assert resolve_decoding(resolved) is resolved
    stated = PairFolder(tmp_path, label_values=(0, 1))
    assert resolve_decoding(stated) is stated and stated.load(labelled).label.mean() == 0.5


def test_reading_processes_start_without_torch():
    code = "import sys, bitemporal.pairs.check; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --------------------------------------------------------------------------------------------------- real pairs


class TestRealPairs:
    pytestmark = needs_shared

    @pytest.mark.parametrize(
        ("name", "count", "zeros"), [("levir-tiles", 48, 35), ("dsifn-tiles", 10, 0), ("airchange", 2, 1)]
    )
    def test_sound_sets(self, name, count, zeros):
        scan = check_pairs(PairFolder(SHARED / name), workers=1)
        assert not scan.faults and len(scan.records) == count
        assert sum(record.car == 0 for record in scan.records) == zeros
        assert scan.decoding.describe() == f"labels: 0 = unchanged, 255 = changed (found in {count} files)"
        for record in scan.records:
            with Image.open(next((SHARED / name / "label").glob(f"{record.stem}.*"))) as label:
                assert record.car == pytest.approx(label.histogram()[255] / (label.width * label.height), abs=0)

    def test_guangzhou(self):
        pairs = PairFolder(SHARED / "gz")
        scan = check_pairs(pairs, workers=1, images=False)
        assert [sum(r.split == split for r in scan.records) for split in ("train", "val")] == [433, 99]
        cars = [record.car for record in scan.records]
        assert max(cars) == 1.0 and min(cars) == pytest.approx(0.009, abs=5e-4)  # "from 0.9 % to 100 %"

    def test_rgba_pair_of_unequal_size(self):
        pairs = PairFolder(SHARED / "odd-files" / "rgba")
        scan = check_pairs(pairs)
        assert {fault.kind for fault in scan.faults} == {"unlabelled", "size"}
        assert any("RGBA" in warning for warning in scan.warnings)

    def test_sentinel_2_scene(self):
        scene = SHARED / "oscd-scenes" / "paris"
        with pytest.raises(LabelError, match=r"1 \(158,662 pixels\), 2 \(458\).*label_values=\(1, 2\)"):
            read_mask(scene / "paris-cm.tif")
        label = read_mask(scene / "paris-cm.tif", label_values=(1, 2))
        assert label.sum() == 458
        band = next((scene / "imgs_1").glob("*B04.tif"))
        with pytest.raises(DataError, match="16 bits"):
            read_image(band)
        with pytest.warns(UserWarning, match="grey"):
            assert read_image(band, (0, 3000)).shape == (*label.shape, 3)
        folder = PairFolder(scene, bands=(3, 2, 1), image_range=(0, 3000), label_values=(1, 2))
        assert not check_pairs(folder).faults
        images = folder.load(folder.pairs()[0])
        assert images.label is not None and images.label.sum() == 458
        with pytest.warns(UserWarning, match="grey"):
            assert (read_image(band, (0, 3000))[..., 0] == images.before[..., 0]).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_arrays_of_a_pair_can_be_written_to(mode, tmp_path):
    """As torch.from_numpy and augmentation in place expect."""
    for name in ("A", "B", "label"):
        (tmp_path / name).mkdir()
        image = Image.fromarray(np.eye(8, dtype=np.uint8) * 255)
        (image if name == "label" else image.convert(mode)).save(tmp_path / name / "0.png")
    folder = resolve_decoding(PairFolder(tmp_path))
    images = folder.load(folder.pairs()[0])
    for array in (images.before, images.after, images.label):
        assert array.flags.writeable and array.flags.c_contiguous


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_large_images_are_converted_some_rows_at_a_time(tmp_path, monkeypatch, mode):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (23, 17, 3), np.uint8)).convert(mode)
    path = tmp_path / f"a.{'tif' if mode == 'CMYK' else 'png'}"
    picture.save(path)
    for pixels_at_once in (1, 40, 17 * 23, 10**6):
        monkeypatch.setattr("bitemporal.imagery.scale._PIXELS_AT_ONCE", pixels_at_once)
        with warnings.catch_warnings(action="ignore"):
            found = read_image(path)
        assert np.array_equal(found, np.array(Image.open(path).convert("RGB")))


def test_an_image_is_copied_once(tmp_path):
    Image.new("RGB", (4000, 4000)).save(tmp_path / "a.png")
    decoded = decode(tmp_path / "a.png")
    tracemalloc.start()
    pixels = to_channels(decoded)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pixels.nbytes == 48_000_000 <= peak < 90_000_000
