"""`bitemporal data tiles`: put together again, tiles are what they were cut from."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image
from rasterio import features
from rasterio.transform import from_origin

from bitemporal.cli.main import main
from bitemporal.errors import DataError, LabelError, OptionError, OutputError
from bitemporal.imagery import LabelOptions
from bitemporal.pairs import PairFolder, check_pairs, resolve_decoding
from bitemporal.pairs.division import find_groups, group_by
from bitemporal.scenes.cutting import cut_pairs, cut_scene
from bitemporal.scenes.options import TileOptions
from scene_files import LEFT, TOP, UTM, ground, write_raster

SIZE = 16
OPTIONS = TileOptions(size=SIZE)
DATA = {"photometric": "minisblack", "alpha": "unspecified"}  # or GDAL takes the fourth band for alpha


def read_all(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        return source.read()


def whole(folder: Path, height: int, width: int) -> np.ndarray:
    """All tiles of a folder at their places on the ground, C x H x W; 99 where there is none."""
    tiles = sorted(folder.iterdir())
    with rasterio.open(tiles[0]) as tile:
        image = np.full((tile.count, height, width), 99, tile.dtypes[0])
    for path in tiles:
        with rasterio.open(path) as tile:
            assert tile.crs.to_string() == UTM
            column, row = (round(value) for value in ~tile.transform @ (LEFT, TOP))
            image[:, -row : tile.height - row, -column : tile.width - column] = tile.read()
    return image


@pytest.fixture
def scene(tmp_path):
    """Two dates of four bands and 16 bits, 50 x 40 pixels of 0.5 m."""
    arrays = [ground(seed, 50, 40, 4).astype(np.uint16) * 40 for seed in (1, 2)]
    before, after = (
        write_raster(tmp_path / f"{name}.tif", array, **DATA)
        for name, array in zip(("before", "after"), arrays, strict=True)
    )
    return before, after, arrays


def test_tiles_are_the_scene_cut(scene, tmp_path):
    before, after, arrays = scene
    label = np.zeros((1, 50, 40), np.uint8)
    label[:, 10:30, 5:20] = 1
    mask = write_raster(tmp_path / "label.tif", label)
    tiles = cut_scene(before, after, tmp_path / "out", mask, OPTIONS)
    assert tiles.written == {"all": 6}
    assert not tiles.ignores
    for name, array in zip("AB", arrays, strict=True):
        assert (whole(tmp_path / "out" / name, 48, 32) == array[:, :48, :32]).all()
    assert (whole(tmp_path / "out/label", 48, 32) == 255 * label[:, :48, :32]).all()
    folder = PairFolder(tmp_path / "out", bands=(3, 2, 1), image_range=(0, 10_000))
    assert not check_pairs(folder).faults
    assert {pair.stem for pair in folder.pairs()} >= {"before-00-00_0000_0000", "before-00-00_0002_0001"}


def test_scale_and_offset_go_into_the_tiles(scene, tmp_path):
    before, after, arrays = scene
    with rasterio.open(after, "r+") as file:
        file.scales, file.offsets = (0.0001,) * 4, (-0.1,) * 4
    cut_scene(before, after, tmp_path / "out", options=OPTIONS)
    assert (whole(tmp_path / "out/B", 48, 32) == arrays[1][:, :48, :32]).all()
    with rasterio.open(tmp_path / "out/B/before-00-00_0000_0000.tif") as tile:
        assert (tile.dtypes[0], tile.scales, tile.offsets) == ("uint16", (0.0001,) * 4, (-0.1,) * 4)


@pytest.mark.parametrize("ending", [".gpkg", ".geojson", ".parquet", ".shp"])
def test_polygons_become_labels(scene, tmp_path, ending):
    before, after, _ = scene
    shapes = [shapely.box(LEFT + 2, TOP - 9, LEFT + 8, TOP - 3), shapely.Point(LEFT + 13, TOP - 18).buffer(4)]
    table = geopandas.GeoDataFrame(geometry=shapes, crs=UTM).to_crs("EPSG:4326")
    file = tmp_path / f"changes{ending}"
    if ending == ".parquet":
        table.to_parquet(file)
    else:
        table.to_file(file)
    cut_scene(before, after, tmp_path / "out", file, OPTIONS)
    expected = features.rasterize(shapes, (50, 40), transform=from_origin(LEFT, TOP, 0.5, 0.5))
    differing = whole(tmp_path / "out/label", 48, 32)[0] != 255 * expected[:48, :32]
    assert differing.mean() < 0.01  # there and back through another CRS


def test_what_has_no_data_is_left_out_or_ignored(scene, tmp_path, capsys):
    before, _, arrays = scene
    array = arrays[1].copy()
    array[:, :, 20:28] = 0
    after = write_raster(tmp_path / "part.tif", array, nodata=0, **DATA)
    label = write_raster(tmp_path / "label.tif", np.ones((1, 50, 40), np.uint8))
    label_option = ["--label", str(label), "--size", str(SIZE), "--changed", "1"]
    assert main(["data", "tiles", str(before), str(after), "-o", str(tmp_path / "all"), *label_option]) == 0
    assert "3 tiles of 16 x 16 (all 3); 3 without enough data left out" in capsys.readouterr().out
    options = [*label_option, "--minimum-valid", "0.5"]
    assert main(["data", "tiles", str(before), str(after), "-o", str(tmp_path / "half"), *options]) == 0
    text = capsys.readouterr().out
    assert "6 tiles" in text
    stated = text.split("read them with ")[1].split()
    labels = whole(tmp_path / "half/label", 48, 32)[0]
    assert (labels[:, 20:28] == 127).all()
    assert (np.delete(labels, slice(20, 28), axis=1) == 255).all()
    # the printed option, typed as it is
    check = ["data", "check", str(tmp_path / "half"), *stated, "--bands", "1,2,3", "--image-range", "0,10000"]
    assert main(check) == 0


def test_dates_and_labels_are_brought_to_the_first_date(scene, tmp_path):
    before, _, _ = scene
    after = write_raster(tmp_path / "shifted.tif", ground(5, 60, 60, 4), left=LEFT - 4, top=TOP + 4, **DATA)
    fine = np.zeros((1, 100, 80), np.uint8)
    fine[:, 20:60] = 255
    label = write_raster(tmp_path / "fine.tif", fine, pixel=0.25)
    cut_scene(before, after, tmp_path / "out", label, OPTIONS)
    assert (whole(tmp_path / "out/B", 48, 32) == read_all(after)[:, 8:56, 8:40]).all()
    assert (whole(tmp_path / "out/label", 48, 32) == fine[:, :96:2, :64:2]).all()


def test_a_folder_of_pairs_is_cut_split_by_split(tmp_path, capsys):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, stem in (("train", "one"), ("train", "two"), ("val", "three")):
        for name in ("A", "B", "label"):
            shape = (40, 33) if name == "label" else (40, 33, 3)
            array = rng.integers(0, 2, shape, dtype=np.uint8) * 255
            (tmp_path / "in" / split / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / "in" / split / name / f"{stem}.png")
            arrays[split, name, stem] = array
    assert main(["data", "tiles", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--size", "16"]) == 0
    assert "12 tiles of 16 x 16 (train 8, val 4)" in capsys.readouterr().out
    for (split, name, stem), array in arrays.items():
        for row in range(2):
            for column in range(2):
                tile = np.asarray(Image.open(tmp_path / "out" / split / name / f"{stem}_{row:04d}_{column:04d}.png"))
                assert (tile == array[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]).all()
    assert not check_pairs(PairFolder(tmp_path / "out")).faults
    # overlapping ones
    cut = cut_pairs(resolve_decoding(PairFolder(tmp_path / "in")), tmp_path / "more", TileOptions(size=16, stride=8))
    assert cut.written == {"train": 24, "val": 12}


def test_refusals(scene, tmp_path, capsys):
    before, after, _ = scene
    with pytest.raises(DataError, match=r"no tile of 64 x 64; 1 image\(s\) are smaller than a tile"):
        cut_scene(before, after, tmp_path / "out", options=TileOptions(size=64))
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").touch()
    with pytest.raises(OutputError, match="not an empty folder"):
        cut_scene(before, after, tmp_path / "full", options=OPTIONS)
    classes = write_raster(tmp_path / "classes.tif", np.arange(2000, dtype=np.uint16).reshape(1, 50, 40) % 5)
    with pytest.raises(LabelError, match="changed"):
        cut_scene(before, after, tmp_path / "out", classes, OPTIONS)
    assert not (tmp_path / "out").exists()
    elsewhere = write_raster(tmp_path / "elsewhere.tif", np.zeros((1, 9, 9), np.uint8), left=0)
    with pytest.raises(DataError, match="does not overlap"):
        cut_scene(before, after, tmp_path / "out", elsewhere, OPTIONS)
    for wrong in ({"size": 0}, {"stride": 0}, {"minimum_valid": 1.5}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            TileOptions(**wrong)
    assert main(["data", "tiles", str(tmp_path), "-o", str(tmp_path / "out"), "--label", "x"]) == 1
    assert "leave it out" in capsys.readouterr().err


def test_neighbours_can_stay_together_by_their_names(tmp_path):
    """Tiles of a scene are named by blocks, which `data split` takes for scenes."""
    before, after = (write_raster(tmp_path / f"{n}.tif", ground(i, 96, 96)) for i, n in enumerate(("a", "b")))
    cut_scene(before, after, tmp_path / "out", options=TileOptions(size=4))
    stems = [path.stem for path in (tmp_path / "out/A").iterdir()]
    pattern = find_groups(stems)
    assert pattern is not None
    assert {group_by(pattern)(stem) for stem in stems} == {f"a-{r:02d}-{c:02d}" for r in range(3) for c in range(3)}


def test_options_that_nothing_would_read_are_refused(scene, tmp_path, capsys):
    before, after, _ = scene
    vector = tmp_path / "changed.gpkg"
    geopandas.GeoDataFrame(geometry=[shapely.box(LEFT, TOP - 9, LEFT + 9, TOP)], crs=UTM).to_file(vector)
    command = ["data", "tiles", str(before), str(after), "-o", str(tmp_path / "out"), "--size", str(SIZE)]
    for words, option in (
        (["--label", str(vector), "--changed", "1"], "--changed"),
        (["--label", str(vector), "--label-values", "0,1", "--label-band", "1"], "--label-values and --label-band"),
        (["--changed", "1"], "--changed"),
        (["--label", str(vector), "--bands", "1,2,3"], "--bands"),
        (["--label", str(vector), "--suffixes", "_a,_b"], "--suffixes"),
    ):
        assert main([*command, *words]) == 1
        assert f"leave {option} out" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    assert main([*command, "--label", str(vector)]) == 0


def test_what_a_label_calls_no_data_is_ignored_in_its_tiles(scene, tmp_path):
    before, after, _ = scene
    values = np.random.default_rng(0).choice(np.array([0, 1, 9], np.uint8), (1, 50, 40))
    label = write_raster(tmp_path / "label.tif", values, nodata=9)
    cut_scene(before, after, tmp_path / "out", label, TileOptions(size=SIZE, minimum_valid=0))
    expected = np.select([values[0] == 9, values[0] == 1], [127, 255], 0)[:48, :32]
    assert (whole(tmp_path / "out/label", 48, 32)[0] == expected).all()


def test_a_value_of_a_label_raster_that_no_rule_names_is_refused(scene, tmp_path):
    before, after, _ = scene
    values = np.zeros((1, 50, 40), np.uint8)
    values[0, 3, 4] = 9
    label = write_raster(tmp_path / "label.tif", values)
    with pytest.raises(LabelError, match=r"label\.tif: holds 9, but .*correct the file or the rule"):
        cut_scene(before, after, tmp_path / "out", label, OPTIONS, LabelOptions(label_values=(0, 1)))
    assert not (tmp_path / "out").exists()
    cut_scene(before, after, tmp_path / "out", label, OPTIONS, LabelOptions(label_values=(0, 1, 9)))


def test_a_label_of_another_size_than_its_pair_is_refused(tmp_path):
    for name, size in (("A", 20), ("B", 20), ("label", 18)):
        (tmp_path / "in" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((size, size), np.uint8)).save(tmp_path / "in" / name / "p.png")
    folder = PairFolder(tmp_path / "in", label_values=(0, 1))
    with pytest.raises(DataError, match=r"p\.png: is 18 x 18, but .* is 20 x 20"):
        cut_pairs(resolve_decoding(folder), tmp_path / "out", OPTIONS)
