"""Archives: masks of the manifest, an area for all scenes, and the polygons of all scenes in one file."""

import geopandas
import numpy as np
import pandas
import pytest
import shapely
import torch
from affine import Affine
from rasterio import features

from bitemporal.cli.main import main
from bitemporal.errors import DataError, OutputError
from bitemporal.inference.bundle import save_bundle
from bitemporal.models import create_model
from bitemporal.scenes.archive import Plan, SceneWorker
from bitemporal.scenes.kinds import FIELDS, MERGED
from bitemporal.scenes.manifest import SceneFiles, read_manifest
from bitemporal.scenes.merging import merge_polygons, merged_outputs
from remedies import follow_options
from scene_files import LEFT, TOP, UTM, ground, read, write_raster


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Three scenes, one of them in the next zone of the projection and one of them bad, with a mask."""
    folder = tmp_path_factory.mktemp("archive")
    network = create_model("test_fc").eval()
    with torch.no_grad():  # probabilities of untrained networks hardly differ
        logits = network.state_dict()[list(network.state_dict())[-1]]
        shown = [torch.from_numpy(ground(seed, 60, 70)).float()[None] for seed in (0, 9, 2, 11)]
        output = torch.cat([network(network.prepare(a), network.prepare(b)) for a, b in (shown[:2], shown[2:])])
        logits -= output.median() if output.shape[1] == 1 else torch.tensor([0, (output[:, 1] - output[:, 0]).median()])
    save_bundle(folder / "bundle", network)
    places = {"west": {}, "east": {"crs": "EPSG:32651", "left": 300000.0}, "bad": {}}
    clouds = np.zeros((1, 60, 70), np.uint8)
    clouds[0, 10:30, :40] = 1
    for number, (name, place) in enumerate(places.items()):
        write_raster(folder / f"{name}-1.tif", ground(number, 60, 70), **place)
        write_raster(folder / f"{name}-2.tif", ground(number + 9, 60, 70), **place)
    write_raster(folder / "clouds.tif", clouds)
    (folder / "bad-2.tif").write_text("no raster")
    rows = ["ID;Before;After;Mask;Before_Date;After_Date"]
    rows += ["west;west-1.tif;west-2.tif;clouds.tif;2020-05-01;2021-06-02", "bad;bad-1.tif;bad-2.tif"]
    rows += ["east;east-1.tif;east-2.tif;;2020-05-03;"]
    (folder / "scenes.csv").write_text("\n".join(rows))
    return folder


def test_polygons_of_all_scenes_stand_in_one_file_and_a_manifest_names_masks(archive, tmp_path, capsys):
    merged, out = tmp_path / "all.gpkg", tmp_path / "out"
    words = ["predict-archive", "--manifest", str(archive / "scenes.csv"), "--bundle", str(archive / "bundle")]
    words += ["--out", str(out), "--merge", str(merged)]
    assert main(words) == 1
    text = capsys.readouterr().err
    assert "merge: the scenes have no polygons" in text
    assert not out.exists()
    words += ["--polygons", "areas.gpkg"]
    assert main(words) == 1  # for the bad scene
    table = geopandas.read_file(merged)
    parts = {name: geopandas.read_file(out / name / "areas.gpkg", layer="areas") for name in ("west", "east")}
    assert list(table.columns[:4]) == ["scene", "before_date", "after_date", "id"]
    assert table.crs == "EPSG:4326"
    dates = {"west": ("2020-05-01", "2021-06-02"), "east": ("2020-05-03", "")}
    for name, part in parts.items():
        mine = table[table.scene == name]
        assert len(mine) == len(part) > 5
        assert (mine.before_date == dates[name][0]).all()
        assert (mine.after_date.fillna("") == dates[name][1]).all()
        assert shapely.equals_exact(mine.geometry.values, part.to_crs(4326).geometry.values, tolerance=1e-9).all()
        for field in ("id", "area_m2", "pixels", "mean_probability", "max_probability", "confidence"):
            assert list(mine[field]) == list(part[field])
    assert len(table) == sum(map(len, parts.values()))
    hidden = read(archive / "clouds.tif") == 1
    assert np.array_equal(read(out / "west" / "change.tif") == 255, hidden)
    assert (read(out / "east" / "change.tif") != 255).all()
    # a run that is started again predicts nothing, and writes the same file
    before = merged.read_bytes()
    merged.unlink()
    assert main(words) == 1
    assert "west: skipped" in capsys.readouterr().out
    assert merged.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.gpkg", "out"]


def test_the_remedy_for_scenes_without_polygons_works(archive, tmp_path, capsys):
    manifest = tmp_path / "one.csv"
    manifest.write_text(f"id,before,after\nwest,{archive}/west-1.tif,{archive}/west-2.tif\n")
    words = ["predict-archive", "--manifest", str(manifest), "--bundle", str(archive / "bundle")]
    words += ["--out", str(tmp_path / "out"), "--merge", str(tmp_path / "all.geojson")]
    assert main(words) == 1
    assert follow_options(capsys.readouterr().err, words) == [["--polygons", "areas.gpkg"]]
    assert (tmp_path / "all.qml").exists()


def test_scenes_of_one_projection_keep_it_and_empty_ones_add_nothing(tmp_path):
    square = shapely.box(LEFT, TOP - 10, LEFT + 10, TOP)
    one = dict(zip(FIELDS, ([1], [100.0], [400], [0.75], [0.9], [0.5]), strict=True))
    files = []
    for ending in (".parquet", ".gpkg"):
        for name, rows in (("full", one), ("empty", {key: value[:0] for key, value in one.items()})):
            table = geopandas.GeoDataFrame(rows, geometry=[square][: len(rows["id"])], crs=UTM)
            path = tmp_path / f"{name}{ending}"
            table.to_parquet(path) if ending == ".parquet" else table.to_file(path)
            files.append((SceneFiles(f"{name}{ending}", before_date="2020"), path))
    for ending in (".parquet", ".gpkg", ".geojson"):
        target = tmp_path / "new" / f"all{ending}"
        assert merge_polygons(target, files) == 2
        table = geopandas.read_parquet(target) if ending == ".parquet" else geopandas.read_file(target)
        assert list(table.scene) == ["full.parquet", "full.gpkg"]
        assert table.crs == (4326 if ending == ".geojson" else UTM)
        assert MERGED.stands_at(target)
    assert merge_polygons(tmp_path / "none.gpkg", files[1:2]) == 0
    bare = tmp_path / "bare.parquet"
    geopandas.GeoDataFrame(one, geometry=[square]).to_parquet(bare)
    with pytest.raises(DataError, match="the scene bare has no georeference, others have one"):
        merge_polygons(tmp_path / "x.gpkg", [*files, (SceneFiles("bare"), bare)])
    assert not (tmp_path / "x.gpkg").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_merged_file_replaces_nothing_else(archive, tmp_path, capsys):
    own = tmp_path / "own.gpkg"
    geopandas.GeoDataFrame({"name": ["x"]}, geometry=[shapely.box(0, 0, 1, 1)], crs=UTM).to_file(own)
    before = own.read_bytes()
    words = ["predict-archive", "--manifest", str(archive / "scenes.csv"), "--bundle", str(archive / "bundle")]
    words += ["--out", str(tmp_path / "out"), "--polygons", "areas.gpkg", "--merge", str(own)]
    assert main(words) == 1
    text = capsys.readouterr().err
    assert "own.gpkg exists and is not a file of merged polygons by bitemporal" in text
    assert own.read_bytes() == before
    assert not (tmp_path / "out").exists()
    assert main([*words, "--overwrite"]) == 1  # for the bad scene
    assert MERGED.stands_at(own)
    words[-1] = str(tmp_path / "all.csv")
    assert main(words) == 1
    assert "all.csv, expected a name that ends in .gpkg or" in capsys.readouterr().err
    with pytest.raises(OutputError, match=r"is in the folder of a scene"):
        merged_outputs(tmp_path / "west" / "areas.gpkg", "areas.gpkg", [SceneFiles("west")], tmp_path)


def test_stac_items_bring_their_dates(tmp_path):
    import json

    items = [
        {
            "id": date,
            "properties": {"tile": "31U", "datetime": f"{date}T10:00:00Z"},
            "assets": {"visual": {"href": f"{date}.tif"}},
        }
        for date in ("2021-05-01", "2020-05-01")
    ]
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    (scene,) = read_manifest(tmp_path / "items.json")
    assert (scene.before_date, scene.after_date) == ("2020-05-01T10:00:00Z", "2021-05-01T10:00:00Z")


def test_a_parquet_manifest_lists_masks_and_dates(tmp_path):
    rows = {"id": ["a"], "before": ["b.tif"], "after": ["c.tif"], "mask": [["m.tif", "n.tif"]], "after_date": [None]}
    pandas.DataFrame(rows).to_parquet(tmp_path / "m.parquet")
    (scene,) = read_manifest(tmp_path / "m.parquet")
    assert scene.mask == (str(tmp_path / "m.tif"), str(tmp_path / "n.tif"))
    assert scene.after_date == ""


def test_an_area_and_masks_of_all_scenes_join_those_of_one(archive, tmp_path):
    from bitemporal.scenes.options import SceneOptions

    area = shapely.box(LEFT + 3.1, TOP - 20.1, LEFT + 30.1, TOP - 2.1)
    geopandas.GeoDataFrame(geometry=[area], crs=UTM).to_file(tmp_path / "area.gpkg")
    options = SceneOptions(within=str(tmp_path / "area.gpkg"))
    worker = SceneWorker(Plan((str(archive / "bundle"),), str(tmp_path), options=options))
    west, _, east = read_manifest(archive / "scenes.csv")
    assert worker.predict(west).status == "done"
    inside = features.geometry_mask([area], (60, 70), Affine(0.5, 0, LEFT, 0, -0.5, TOP), invert=True)
    assert np.array_equal(read(tmp_path / "west" / "change.tif") != 255, inside & (read(archive / "clouds.tif") == 0))
    assert worker.predict(west).status == "skipped"
    status = worker.predict(east)
    assert status.status == "failed"
    assert "does not overlap the pixels" in status.error
