"""Predicted rasters against label rasters and polygons: the right pixels, the same counts as pairs, clear errors."""

import json

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio import features
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.warp import reproject
from sklearn.metrics import confusion_matrix

from bitemporal.cli.main import main
from bitemporal.errors import DataError, LabelError, OptionError
from bitemporal.evaluation import MaskSettings, read_result
from bitemporal.evaluation.rasters import evaluate_raster
from bitemporal.imagery.label_rules import LabelOptions
from remedies import follow_options, follow_tools
from scene_files import LEFT, TOP, UTM, write_raster

SHAPE = (90, 130)
TRANSFORM = from_origin(LEFT, TOP, 0.5, 0.5)


@pytest.fixture
def predicted(tmp_path):
    """A mask with a border of no data, and probabilities of the same pixels."""
    probability = np.random.default_rng(0).random((1, *SHAPE)).astype(np.float32)
    probability[0, :, :7] = np.nan
    mask = (probability > 0.3).astype(np.uint8)
    mask[np.isnan(probability)] = 255
    return (
        write_raster(tmp_path / "change.tif", mask, nodata=255),
        write_raster(tmp_path / "probability.tif", probability, nodata=np.nan),
        mask[0],
        probability[0],
    )


def counts(result):
    """TN, FP, FN, TP of all blocks."""
    return result.evaluation.counts.sum(axis=0).ravel().tolist()


def expected_counts(mask, truth, valid):
    return confusion_matrix(truth[valid] != 0, mask[valid] == 1, labels=[False, True]).ravel().tolist()


@pytest.mark.parametrize("ending", [".gpkg", ".geojson", ".shp", ".parquet"])
def test_a_mask_against_polygons_within_an_area(ending, predicted, tmp_path):
    path, _, mask, _ = predicted
    changed = shapely.Polygon([TRANSFORM @ p for p in ((3.3, 4.1), (80.3, 9.2), (60.1, 70.2))])
    changed = changed.difference(shapely.Point(*(TRANSFORM @ (50, 25))).buffer(4.03))
    labels, area = (tmp_path / f"{name}{ending}" for name in ("labels", "area"))
    inside = shapely.Polygon([TRANSFORM @ p for p in ((20.3, -8.1), (120.3, 12.2), (90.1, 95.2), (1.2, 80.1))])
    crs = 4326 if ending == ".geojson" else 32651
    for file, polygon in ((labels, changed), (area, inside)):
        table = geopandas.GeoDataFrame(geometry=[polygon], crs=UTM)
        table = table if file == area else table.set_geometry(table.geometry.segmentize(0.5)).to_crs(crs)
        table.to_parquet(file) if ending == ".parquet" else table.to_file(file)
    kept, truth = (features.geometry_mask([p], SHAPE, TRANSFORM, invert=True) for p in (inside, changed))
    result = evaluate_raster(path, labels, within=str(area), block=40)
    assert counts(result) == expected_counts(mask, truth, kept & (mask != 255))
    assert result.protocol.block == 40
    assert result.protocol.labels == "polygons = changed, all others unchanged"
    blocks = {
        f"y{y}_x{x}"
        for y in (0, 40, 80)
        for x in (0, 40, 80, 120)
        if (kept & (mask != 255))[y : y + 40, x : x + 40].any()
    }
    assert set(result.evaluation.stems) == blocks


def test_a_label_raster_of_another_grid_is_brought_to_the_prediction(predicted, tmp_path):
    path, probabilities, mask, probability = predicted
    label = np.random.default_rng(1).choice([1, 2, 9], (1, 20, 25)).astype(np.uint8)
    corner = geopandas.GeoSeries([shapely.Point(TRANSFORM @ (20, 10))], crs=UTM).to_crs(3857)[0]
    file = write_raster(
        tmp_path / "label.tif", label, crs="EPSG:3857", pixel=2.0, left=corner.x, top=corner.y, nodata=9
    )
    truth = np.zeros(SHAPE, np.uint8)
    reproject(
        label[0], truth, src_transform=from_origin(corner.x, corner.y, 2.0, 2.0), src_crs="EPSG:3857",
        dst_transform=TRANSFORM, dst_crs=UTM, resampling=Resampling.nearest,
    )  # fmt: skip
    valid = np.isin(truth, (1, 2)) & (mask != 255)
    assert 0 < valid.sum() < mask.size / 2
    labels = LabelOptions(label_values=(1, 2))
    result = evaluate_raster(path, file, block=32, labels=labels)
    assert counts(result) == expected_counts(mask, truth == 2, valid)
    soft = evaluate_raster(probabilities, file, block=32, labels=labels, settings=MaskSettings(threshold=0.3))
    assert counts(soft) == counts(result)
    told = soft.evaluation.probabilities
    assert told.changed.sum() == (valid & (truth == 2)).sum()
    assert told.total.sum() == pytest.approx(probability[valid].sum(dtype=np.float64), rel=1e-6)
    assert result.evaluation.probabilities is None


def test_blocks_are_counted_as_pairs_of_the_same_pixels(predicted, tmp_path):
    from PIL import Image

    path, _, mask, _ = predicted
    truth = np.zeros(SHAPE, np.uint8)
    truth[10:70, 20:70] = 255
    label = write_raster(tmp_path / "label.tif", truth[None])
    data, masks = tmp_path / "data", tmp_path / "masks"
    masks.mkdir()
    for name in ("A", "B", "label"):
        (data / name).mkdir(parents=True)
    for y in range(0, 80, 40):
        for x in range(7, 127, 40):
            for name in ("A", "B", "label"):
                Image.fromarray(truth[y : y + 40, x : x + 40]).save(data / name / f"y{y}_x{x}.png")
            Image.fromarray((mask[y : y + 40, x : x + 40] == 1).astype(np.uint8)).save(masks / f"y{y}_x{x}.png")
    part = write_raster(tmp_path / "part.tif", mask[None, :80, 7:127], left=LEFT + 3.5, nodata=255)
    assert main(["evaluate", str(masks), str(data), "-o", str(tmp_path / "pairs.json")]) == 0
    words = ["evaluate", str(part), str(label), "--block", "40", "-o", str(tmp_path / "raster.json")]
    assert main(words) == 0
    first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("pairs", "raster"))
    assert first["boundary"] == second["boundary"]
    assert first["objects"] == second["objects"]
    for averaging in ("dataset", "image_mean"):
        assert first[averaging] == pytest.approx(second[averaging], nan_ok=True, rel=1e-12)
    parts = [{part: entry["dataset"] for part, entry in content["by_part"].items()} for content in (first, second)]
    assert parts[0] == parts[1]
    cars = [sorted(read_result(tmp_path / f"{name}.json").evaluation.cars) for name in ("pairs", "raster")]
    assert cars[0] == cars[1]
    assert second["protocol"]["block"] == 40
    assert read_result(tmp_path / "raster.json").protocol.block == 40
    assert path.exists()


def test_a_mask_keeps_the_threshold_that_it_was_made_with(predicted, tmp_path, capsys):
    from bitemporal.scenes import threshold_scene

    _, probabilities, mask, _ = predicted
    threshold_scene(probabilities, tmp_path / "new.tif", threshold=0.3)
    label = write_raster(tmp_path / "label.tif", (mask == 1).astype(np.uint8)[None])
    result = evaluate_raster(tmp_path / "new.tif", label)
    assert result.protocol.threshold == 0.3
    assert counts(result)[1:3] == [0, 0]
    assert main(["evaluate", str(tmp_path / "new.tif"), str(label)]) == 0
    assert "1 block(s) of 1024 pixels; 0 = unchanged, 1 = changed" in capsys.readouterr().out
    command = ["evaluate", str(tmp_path / "new.tif"), str(label), "--threshold"]
    assert main([*command, "0.3"]) == 0
    capsys.readouterr()
    assert main([*command, "0.5"]) == 1  # also when it is what counts without tags
    text = capsys.readouterr().err
    assert f"threshold: found 0.5, but the tags of {tmp_path / 'new.tif'} say that it was made with 0.3" in text
    assert follow_options(text, [*command, "0.5"]) == [[]]
    with pytest.raises(OptionError, match="leave --threshold out"):
        evaluate_raster(tmp_path / "new.tif", label, settings=MaskSettings(threshold=0.4))
    assert evaluate_raster(probabilities, label, settings=MaskSettings(threshold=0.4)).protocol.threshold == 0.4


def test_values_that_could_mean_two_things_are_refused_with_a_remedy_that_works(predicted, tmp_path, capsys):
    path, _, _, _ = predicted
    classes = write_raster(tmp_path / "classes.tif", np.random.default_rng(1).integers(0, 4, (1, *SHAPE), np.uint8))
    words = ["evaluate", str(path), str(classes)]
    assert main(words) == 1
    assert follow_options(capsys.readouterr().err, words)
    with pytest.raises(LabelError, match=r"classes.tif"):
        evaluate_raster(path, classes)
    undeclared = write_raster(tmp_path / "undeclared.tif", np.array([[[0, 1, 255]]], np.uint8))
    with pytest.raises(DataError, match=r"declares it") as caught:
        evaluate_raster(undeclared, classes)
    follow_tools(str(caught.value))
    evaluate_raster(undeclared, write_raster(tmp_path / "l.tif", np.array([[[0, 1, 0]]], np.uint8)))


@pytest.mark.parametrize("nodata", [0, 255])
def test_a_label_that_calls_a_meaning_no_data_is_refused_with_remedies_that_work(nodata, predicted, tmp_path, capsys):
    path, _, mask, _ = predicted
    truth = mask == 1
    label = write_raster(tmp_path / "label.tif", (255 * truth).astype(np.uint8)[None], nodata=nodata)
    words = ["evaluate", str(path), str(label)]
    assert main(words) == 1
    text = capsys.readouterr().err
    assert "label.tif" in text and f"{nodata} (" in text and "declares as no data" in text
    assert ["--label-values", "0,255"] in follow_options(text, words)
    assert counts(evaluate_raster(path, label, labels=LabelOptions(label_values=(0, 255)))) == expected_counts(
        mask, truth, mask != 255
    )
    # what is no data counts nowhere
    found = evaluate_raster(path, label, labels=LabelOptions(label_ignore=(nodata,)))
    assert counts(found) == expected_counts(mask, truth, (mask != 255) & (255 * truth != nodata))


def test_no_data_of_a_label_counts_nowhere(predicted, tmp_path):
    path, _, mask, _ = predicted
    label = np.random.default_rng(3).choice(np.array([0, 1, 255], np.uint8), (1, *SHAPE))
    found = evaluate_raster(path, write_raster(tmp_path / "label.tif", label, nodata=255))
    assert counts(found) == expected_counts(mask, label[0] == 1, (mask != 255) & (label[0] != 255))


@pytest.mark.parametrize("turn", [Affine.rotation(30), Affine.translation(0, SHAPE[0]) @ Affine.scale(1, -1)])
def test_a_prediction_whose_pixels_are_turned_is_scored_on_them(turn, tmp_path):
    rng = np.random.default_rng(4)
    mask, truth = (rng.integers(0, 2, (1, *SHAPE), np.uint8) for _ in range(2))
    place = {"transform": TRANSFORM @ turn}
    path, label = (write_raster(tmp_path / f"{n}.tif", a, **place) for n, a in (("mask", mask), ("label", truth)))
    found = evaluate_raster(path, label)
    assert counts(found) == expected_counts(mask, truth, np.ones(mask.shape, bool))


def test_options_that_nothing_would_read_are_refused(predicted, tmp_path, capsys):
    path, _, mask, _ = predicted
    vector = tmp_path / "changed.gpkg"
    geopandas.GeoDataFrame(geometry=[shapely.box(LEFT + 3, TOP - 9, LEFT + 9, TOP - 3)], crs=UTM).to_file(vector)
    raster = write_raster(tmp_path / "label.tif", (mask == 1).astype(np.uint8)[None])
    for label, words, name in (
        (vector, ["--changed", "1"], "changed"),
        (vector, ["--label-band", "1"], "label_band"),
        (raster, ["--bands", "1,2,3"], "bands"),
        (raster, ["--folders", "a,b"], "folders"),
    ):
        assert main(["evaluate", str(path), str(label), *words]) == 1
        assert f"{name}: does not apply" in (text := capsys.readouterr().err)
        assert f"leave {words[0]} out" in text
        assert main(["evaluate", str(path), str(label)]) == 0


def test_a_label_that_is_stored_south_up_is_turned(predicted, tmp_path):
    path, _, mask, _ = predicted
    truth = (mask == 1).astype(np.uint8)
    transform = from_origin(LEFT, TOP, 0.5, 0.5) @ Affine.translation(0, SHAPE[0]) @ Affine.scale(1, -1)
    label = write_raster(tmp_path / "label.tif", truth[None, ::-1], transform=transform)
    assert counts(evaluate_raster(path, label)) == expected_counts(mask, truth, mask != 255)


def test_what_a_mask_marks_counts_nowhere(predicted, tmp_path):
    path, _, mask, _ = predicted
    truth, clouds = np.random.default_rng(5).integers(0, 2, (2, *SHAPE), np.uint8)
    label, hidden = (write_raster(tmp_path / f"{n}.tif", a[None]) for n, a in (("label", truth), ("clouds", clouds)))
    found = evaluate_raster(path, label, mask=(str(hidden),))
    assert counts(found) == expected_counts(mask, truth, (mask != 255) & (clouds == 0))


def test_the_band_of_a_label_raster_that_is_named_is_read(predicted, tmp_path):
    path, _, mask, _ = predicted
    bands = np.random.default_rng(6).integers(0, 2, (2, *SHAPE), np.uint8)
    label = write_raster(tmp_path / "label.tif", bands)
    for band in (1, 2):
        found = evaluate_raster(path, label, labels=LabelOptions(label_band=band))
        assert counts(found) == expected_counts(mask, bands[band - 1], mask != 255)


def test_values_of_a_label_raster_that_no_rule_names_are_refused(predicted, tmp_path):
    path, _, mask, _ = predicted
    label = (mask == 1).astype(np.int16)[None]
    label[0, 40, 50] = 7
    other = write_raster(tmp_path / "other.tif", label)
    with pytest.raises(LabelError, match=r"other.tif: .*\b7\b"):
        evaluate_raster(path, other, labels=LabelOptions(label_values=(0, 1)))
    heights = write_raster(tmp_path / "heights.tif", np.arange(mask.size, dtype=np.int16).reshape(1, *SHAPE))
    with pytest.raises(DataError, match=r"heights.tif: holds more than 1000 values; expected a change mask"):
        evaluate_raster(path, heights)


def test_rasters_that_do_not_fit_are_refused(predicted, tmp_path):
    path, _, mask, _ = predicted
    label = (mask == 1).astype(np.uint8)[None]
    far = write_raster(tmp_path / "far.tif", label, left=LEFT + 1e4)
    far_area = tmp_path / "far.gpkg"
    geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=UTM).to_file(far_area)
    cases = [
        ((path, far), {}, DataError, r"label: .*far.tif does not overlap the pixels"),
        ((path, far_area), {}, DataError, r"label: .*far.gpkg does not overlap the pixels"),
        ((path, tmp_path), {}, DataError, r"label: .* is a folder, but"),
        ((path, path), {"within": str(far_area)}, DataError, r"within: .*far.gpkg does not overlap"),
        ((tmp_path / "absent.tif", path), {}, DataError, rf"{tmp_path}/absent.tif: no such file"),
        ((path, tmp_path / "absent.tif"), {}, DataError, rf"label: {tmp_path}/absent.tif: no such file"),
        (
            (write_raster(tmp_path / "p.tif", label + 1.5), path),
            {},
            DataError,
            r"p.tif: holds .*; expected probabilities",
        ),
        ((path, path), {"block": 0}, OptionError, r"block: found 0"),
    ]
    for files, options, error, text in cases:
        with pytest.raises(error, match=text):
            evaluate_raster(*files, **options)


def test_options_of_rasters_and_of_pairs_are_told_apart(predicted, tmp_path, capsys):
    path, *_ = predicted
    assert main(["evaluate", str(path), str(path), "--split", "test"]) == 1
    assert "split: " in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path), str(tmp_path), "--within", "a.gpkg"]) == 1
    assert "within: is for rasters" in capsys.readouterr().err
