"""What scenes refuse: each refusal names the file or the option, before anything is written."""

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.windows import Window

from bitemporal.errors import DataError, OptionError, OutputError
from bitemporal.imagery import LabelOptions
from bitemporal.inference import NetworkDetector
from bitemporal.scenes import TileOptions, cut_scene, kinds, predict_scene, radiometry, threshold_scene
from bitemporal.scenes.bands import StatedBand
from bitemporal.scenes.exclusion import RasterOnGrid
from bitemporal.scenes.geography import _keeps_areas, hectares
from bitemporal.scenes.geometry import Grid
from bitemporal.scenes.grids import common_grid
from bitemporal.scenes.options import MapOptions
from bitemporal.scenes.polygons import _smoothed
from bitemporal.scenes.rasters import write_cog
from bitemporal.scenes.registration import estimate_shift
from bitemporal.scenes.sources import files_read, open_source
from bitemporal.scenes.values import look, value_range
from bitemporal.scenes.vectors import PolygonsOnGrid
from scene_files import LEFT, TOP, UTM, ground, write_raster
from stub_networks import pointwise, register_stubs


@pytest.fixture(autouse=True)
def _stubs(monkeypatch):
    register_stubs(monkeypatch)


def date(path: Path, array: np.ndarray, name: str = "before", **profile: object):
    return open_source(write_raster(path, array, **profile), name)


def grid_of(height: int, width: int, crs: str | None = UTM) -> Grid:
    place = Affine.identity() if crs is None else Affine(0.5, 0, LEFT, 0, -0.5, TOP)
    return Grid(None if crs is None else CRS.from_string(crs), place, width, height)


# --- dates


def test_images_without_a_place_have_one_size(tmp_path):
    first = date(tmp_path / "a.tif", ground(0, 20, 30), crs=None)
    second = date(tmp_path / "b.tif", ground(0, 20, 31), "after", crs=None)
    with pytest.raises(DataError, match=r"a\.tif\) is 20 x 30 .*b\.tif\) 20 x 31"):
        common_grid(first, second)
    assert common_grid(first, first).width == 30


def test_an_overlap_of_less_than_a_pixel_is_none(tmp_path):
    first = date(tmp_path / "a.tif", ground(0, 20, 30))
    second = date(tmp_path / "b.tif", ground(0, 20, 30), "after", left=LEFT + 14.8)
    with pytest.raises(DataError, match="overlap is less than a pixel"):
        common_grid(first, second, "intersection")
    assert common_grid(first, second, "union").width == 60


def test_files_of_a_date_are_one_or_one_for_each_band(tmp_path):
    files = [write_raster(tmp_path / f"{i}.tif", ground(i, 9, 9, 1)) for i in range(3)]
    colour = write_raster(tmp_path / "c.tif", ground(0, 9, 9))
    assert open_source(files, "before").channels == tuple((str(path), 1) for path in files)
    with pytest.raises(OptionError, match="before: found no file"):
        open_source([], "before")
    with pytest.raises(OptionError, match="bands: are chosen"):
        open_source(files, "before", bands=(1, 1, 1))
    with pytest.raises(OptionError, match="before: found 2 files"):
        open_source(files[:2], "before")
    with pytest.raises(DataError, match=r"c\.tif: has 3 bands; expected one"):
        open_source([*files[:2], colour], "before")
    for band in (0, 4):
        with pytest.raises(OptionError, match=rf"bands: .*c\.tif has no band {band}"):
            open_source(colour, "before", bands=(1, band, 3))


def test_tags_that_contradict_the_catalogue_count_and_are_told(tmp_path):
    path = write_raster(tmp_path / "a.tif", ground(0, 9, 9).astype(np.uint16))
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = (0.5,) * 3, (1.0,) * 3
    alike, other = (StatedBand(scale=scale, offset=1.0) for scale in (0.5, 0.25))
    assert not open_source(path, "before", stated={str(path): (alike,) * 3}).notes
    source = open_source(path, "before", stated={str(path): (other,) * 3})
    assert source.scaling == ((0.5, 1.0),) * 3
    (note,) = source.notes
    assert "its tags say scale 0.5 and offset 1, its catalogue 0.25 and 1" in note
    bare = write_raster(tmp_path / "b.tif", ground(0, 9, 9).astype(np.uint16))
    assert open_source(bare, "before", stated={str(bare): (other,) * 3}).scaling == ((0.25, 1.0),) * 3


def test_dates_without_a_valid_pixel_have_no_range(tmp_path):
    dates = [
        date(tmp_path / f"{name}.tif", np.zeros((3, 9, 9), np.uint16), name, nodata=0) for name in ("before", "after")
    ]
    with pytest.raises(DataError, match="no valid pixel"):
        value_range(*dates, tuple(map(look, dates)))


@pytest.mark.parametrize(("scale", "other"), [(1e-4, True), (1.0, False)])
def test_the_range_of_the_training_is_not_taken_for_another_unit(scale, other, tmp_path):
    values = np.random.default_rng(0).integers(0, 5000, (3, 40, 40)).astype(np.uint16)
    files = [write_raster(tmp_path / f"{name}.tif", values) for name in ("before", "after")]
    dates = [
        open_source(path, name, scaling=(scale, 0.5)) for path, name in zip(files, ("before", "after"), strict=True)
    ]
    looks = tuple(map(look, dates))
    if not other:
        assert value_range(*dates, looks, of_training=(0, 3000)) == ((0.0, 3000.0),) * 3
        return
    with pytest.warns(UserWarning, match="trained on 0 to 3000"):
        found = value_range(*dates, looks, of_training=(0, 3000))
    assert np.allclose(found, np.percentile(values * scale + 0.5, (1, 99), axis=(1, 2)).T)


def test_dates_with_too_few_valid_pixels_cannot_be_registered(tmp_path):
    array = ground(0, 100, 100)
    array[:, :, :60] = 0
    dates = [date(tmp_path / f"{name}.tif", array, name, nodata=0) for name in ("before", "after")]
    with pytest.raises(DataError, match="too few valid pixels"):
        estimate_shift(*dates)


@pytest.mark.parametrize(
    ("scaling", "option"),
    [
        (((0.5, 1.0),) * 3, "--before-scaling 0.5,1 (before_scaling=(0.5, 1))"),
        (((0.5, 1.0), (0.5, 1.0), (0.25, 1.0)), "--before-scaling 0.5,1,0.5,1,0.25,1 "),
    ],
)
def test_the_option_of_a_scaling_states_each_channel_only_where_they_differ(scaling, option, tmp_path):
    assert radiometry._option("before", scaling).startswith(option)
    path = write_raster(tmp_path / "a.tif", ground(0, 9, 9).astype(np.uint16))
    numbers = tuple(map(float, option.split()[1].split(",")))
    assert open_source(path, "before", scaling=numbers).scaling == scaling


# --- outputs and options


def test_geojson_needs_a_place(tmp_path):
    files = [write_raster(tmp_path / f"{n}.tif", ground(0, 9, 9), crs=None) for n in "ba"]
    for name in ("p.geojson", "p.json"):
        with pytest.raises(OutputError, match=rf"polygons: .*{name} is GeoJSON"):
            predict_scene(NetworkDetector(pointwise()), *files, tmp_path / "c.tif", polygons=tmp_path / name)
    assert not (tmp_path / "c.tif").exists()


@pytest.mark.parametrize("area", [-1, float("nan")])
def test_a_least_area_below_nothing_is_refused(area):
    with pytest.raises(OptionError, match="minimum_area: found"):
        MapOptions(minimum_area=area)
    assert MapOptions(minimum_area=0).minimum_area == 0


def test_what_gdal_cannot_copy_is_an_error_of_files(tmp_path):
    path = write_raster(tmp_path / "a.tif", ground(0, 9, 9, 1))
    with pytest.raises(OSError, match="absent"):
        write_cog(path, tmp_path / "absent" / "c.tif", {})


# --- masks and labels


def test_masks_have_a_place_like_the_scene_or_its_size(tmp_path):
    placed = write_raster(tmp_path / "placed.tif", ground(0, 9, 9, 1))
    bare = write_raster(tmp_path / "bare.tif", ground(0, 9, 9, 1), crs=None)
    with pytest.raises(DataError, match=r"mask: .*bare\.tif: has no CRS"):
        RasterOnGrid(bare, grid_of(9, 9), "mask")
    with pytest.raises(DataError, match=r"mask: .*placed\.tif: has the CRS"):
        RasterOnGrid(placed, grid_of(9, 9, None), "mask")
    with pytest.raises(DataError, match=r"bare\.tif: is 9 x 9, but the other pixels are 9 x 10"):
        RasterOnGrid(bare, grid_of(9, 10, None), "mask")
    with pytest.raises(DataError, match=r"colour\.tif has 3 bands"):
        RasterOnGrid(write_raster(tmp_path / "colour.tif", ground(0, 9, 9)), grid_of(9, 9), "mask")
    with RasterOnGrid(tmp_path / "colour.tif", grid_of(9, 9), "label", band=2) as raster:
        assert np.array_equal(raster.read(Window(0, 0, 9, 9))[0], ground(0, 9, 9)[1])


def test_probabilities_that_points_place_are_refused_with_the_command_that_warps_them(tmp_path):
    path = tmp_path / "p.tif"
    corners = ((0, 0), (0, 20), (20, 0), (20, 20))
    points = [GroundControlPoint(row, column, LEFT + column, TOP - row) for row, column in corners]
    with rasterio.open(path, "w", driver="GTiff", height=20, width=20, count=1, dtype="float32") as target:
        target.write(np.full((1, 20, 20), 0.5, np.float32))
        target.gcps = points, CRS.from_string(UTM)
    with pytest.raises(DataError, match=r"p\.tif: has ground control points; .*rio warp .*p-north-up\.tif"):
        threshold_scene(path, tmp_path / "c.tif")


def test_tiles_without_enough_data_are_told_with_the_share_that_they_have(tmp_path):
    arrays = [ground(seed, 16, 32) for seed in (1, 2)]
    arrays[1][:, :4, :] = 0
    files = [write_raster(tmp_path / f"{n}.tif", array, nodata=0) for n, array in zip("ba", arrays, strict=True)]
    with pytest.raises(DataError, match=r"2 tile\(s\) have less than 90% .*--minimum-valid 0\.75") as caught:
        cut_scene(*files, tmp_path / "out", options=TileOptions(size=16, minimum_valid=0.9))
    assert "smaller than a tile" not in str(caught.value)
    assert cut_scene(*files, tmp_path / "out", options=TileOptions(size=16, minimum_valid=0.75)).written == {"all": 2}
    with pytest.raises(OptionError):
        cut_scene(*files, tmp_path / "more", None, TileOptions(size=16), LabelOptions(changed=(1,)))


# --- vector files

POLYGON = shapely.box(LEFT + 1, TOP - 3, LEFT + 2, TOP - 1)


def covered(path: Path, crs: str | None = UTM) -> int:
    return int(PolygonsOnGrid(path, grid_of(10, 10, crs), "within").covers(Window(0, 0, 10, 10)).sum())


@pytest.mark.parametrize("form", ["geometry", "feature", "collection"])
def test_geojson_of_every_form_is_read(form, tmp_path):
    geometry = shapely.geometry.mapping(POLYGON)
    feature = {"type": "Feature", "geometry": geometry, "properties": {"a": 1}}
    crs = {"crs": {"type": "name", "properties": {"name": UTM}}}
    content = {
        "geometry": geometry,
        "feature": feature,
        "collection": {"type": "FeatureCollection", "features": [feature]},
    }
    (tmp_path / "a.geojson").write_text(json.dumps(content[form] | crs))
    assert covered(tmp_path / "a.geojson") == 2 * 4


@pytest.mark.parametrize(
    "content", ['{"type": "Topology"}', '{"type": "FeatureCollection"}', '{"type": "Feature", "a": [}']
)
def test_geojson_of_no_known_form_is_refused(content, tmp_path):
    (tmp_path / "a.geojson").write_text(content)
    with pytest.raises(DataError, match=r"within: .*a\.geojson"):
        covered(tmp_path / "a.geojson")


def test_polygons_and_pixels_have_a_place_both_or_neither(tmp_path):
    table = geopandas.GeoDataFrame(geometry=[POLYGON], crs=UTM)
    table.to_parquet(tmp_path / "placed.parquet")
    table.set_crs(None, allow_override=True).to_parquet(tmp_path / "bare.parquet")
    assert covered(tmp_path / "placed.parquet") == 8
    with pytest.raises(DataError, match=r"placed\.parquet: the raster has no CRS, but the file has"):
        covered(tmp_path / "placed.parquet", None)
    with pytest.raises(DataError, match=r"bare\.parquet: the file has no CRS, but the pixels have"):
        covered(tmp_path / "bare.parquet")


@pytest.mark.parametrize("shape", ["line", "point", "both"])
def test_shapes_that_cover_no_pixel_are_refused(shape, tmp_path):
    shapes = {"line": [POLYGON.exterior], "point": [POLYGON.centroid], "both": [POLYGON, POLYGON.centroid]}[shape]
    geopandas.GeoDataFrame(geometry=[*shapes, None], crs=UTM).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="expected polygons, as only these cover pixels"):
        covered(tmp_path / "a.parquet")


# --- what is known of outputs


def test_a_geopackage_of_more_than_our_layer_is_not_ours(tmp_path):
    columns = {name: [1.0] for name in kinds.FIELDS}
    table = geopandas.GeoDataFrame(columns, geometry=[POLYGON], crs=UTM)
    table.to_file(tmp_path / "ours.gpkg", layer="ours")
    assert kinds.POLYGONS.stands_at(tmp_path / "ours.gpkg")
    table.to_file(tmp_path / "two.gpkg", layer="two")
    table.to_file(tmp_path / "two.gpkg", layer="mine")
    assert not kinds.POLYGONS.stands_at(tmp_path / "two.gpkg")
    table.assign(more=1).to_file(tmp_path / "more.gpkg", layer="more")
    assert not kinds.POLYGONS.stands_at(tmp_path / "more.gpkg")
    (tmp_path / "no.gpkg").write_bytes(b"SQLite format 3\0" + bytes(100))
    assert not kinds.POLYGONS.stands_at(tmp_path / "no.gpkg")


def test_rasters_of_others_or_of_another_type_are_not_ours(tmp_path):
    for name, kind, dtype in (("m.tif", kinds.MASK, np.uint8), ("p.tif", kinds.PROBABILITY, np.float32)):
        path = write_raster(tmp_path / name, np.zeros((1, 9, 9), dtype))
        assert not kind.stands_at(path)
        with rasterio.open(path, "r+") as raster:
            raster.update_tags(SOFTWARE="bitemporal 0.0")
        assert kind.stands_at(path)
        other = kinds.PROBABILITY if kind is kinds.MASK else kinds.MASK
        assert not other.stands_at(path)


def test_an_empty_geojson_is_ours_by_its_name(tmp_path):
    empty = {"type": "FeatureCollection", "name": "areas", "features": []}
    for name, ours in (("areas.geojson", True), ("others.geojson", False)):
        (tmp_path / name).write_text(json.dumps(empty))
        assert kinds.POLYGONS.stands_at(tmp_path / name) == ours


def test_what_lies_beside_an_output_is_a_part_of_it_unless_it_is_older(tmp_path):
    import os

    output = write_raster(tmp_path / "m.tif", np.zeros((1, 9, 9), np.uint8))
    with rasterio.open(output, "r+") as raster:
        raster.update_tags(SOFTWARE="bitemporal 0.0")
    beside = tmp_path / "m.tif.aux.xml"
    beside.write_text("<PAMDataset/>")
    part = kinds.kind_of_sidecar(beside, output, kinds.MASK)
    stamp = output.stat().st_mtime_ns
    for later, belongs in ((0, True), (10**9, True), (-(10**9), False)):
        os.utime(beside, ns=(stamp, stamp + later))
        assert part.stands_at(beside) == belongs


# --- files that are read


def test_archives_are_read_by_the_archive(tmp_path):
    archive = tmp_path / "a.zip"
    archive.write_bytes(b"PK")
    read = files_read(
        [f"/vsizip/{archive}/deep/b.tif", f"/vsisubfile/0_10,{tmp_path}/a.zip", "https://x/y.tif", "/vsis3/b/c"]
    )
    assert read and all(path.samefile(archive) for path in read)


# --- shapes and areas


def test_smooth_shapes_are_valid_and_about_as_large():
    ring = shapely.Polygon([(0, 0), (4, 0), (4, 4), (0, 4)], [[(0, 2), (2, 1), (2, 3)]])
    for shape in (ring, shapely.box(0, 0, 6, 6)):
        smooth = _smoothed(shape)
        assert smooth.is_valid
        assert smooth.area == pytest.approx(shape.area, rel=0.2)


@pytest.mark.parametrize(("left", "kept"), [(250_000, True), (-550_000, False)])
def test_a_projection_is_judged_in_the_middle_of_the_scene(left, kept):
    """500 km of UTM: areas are true to 1 % next to its meridian at 500,000 m, and not 1,000 km from it."""
    grid = Grid(CRS.from_string(UTM), Affine(500, 0, left, 0, -500, 4_000_000), 1000, 10)
    assert _keeps_areas(grid) == kept


def test_areas_of_images_without_a_place_are_unknown():
    assert hectares(grid_of(4, 5, None), np.array([1, 2, 3, 4])) is None
    assert hectares(grid_of(4, 5), np.array([1, 2, 3, 4])) == pytest.approx(10 * 0.25 / 1e4, rel=1e-3)
