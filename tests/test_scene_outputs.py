"""Outputs of scenes: nothing that is read and nothing foreign is changed, and runs keep out of each other's way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image

import bitemporal
from bitemporal.cli.main import main
from bitemporal.errors import OutputError
from bitemporal.inference import NetworkDetector
from bitemporal.inference.bundle import save_bundle
from bitemporal.models import create_model
from bitemporal.scenes import cut_scene, kinds, predict_scene, threshold_scene
from bitemporal.scenes.archive import Plan, SceneStatus, predict_archive
from bitemporal.scenes.manifest import read_manifest
from bitemporal.scenes.sources import files_read
from remedies import follow_options
from scene_files import UTM, ground, write_raster
from stub_networks import BRIGHTER, Passes, pointwise

pytestmark = pytest.mark.usefixtures("stubs")


@pytest.fixture
def pair(tmp_path):
    before = ground(0, 60, 70)
    after = before.copy()
    after[:, 10:30, 20:50] += 35
    (tmp_path / "in").mkdir()
    return write_raster(tmp_path / "in" / "before.tif", before), write_raster(tmp_path / "in" / "after.tif", after)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector") / "bundle"
    save_bundle(folder, create_model("test_fc").eval())
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def vrt(path: Path, source: Path) -> Path:
    """A raster of three bands that another one holds."""
    with rasterio.open(source) as raster:
        place, (height, width) = ",".join(map(str, raster.transform.to_gdal())), raster.shape
    band = '<VRTRasterBand dataType="Byte" band="{0}"><SimpleSource><SourceFilename relativeToVRT="1">{1}'
    band += "</SourceFilename><SourceBand>{0}</SourceBand></SimpleSource></VRTRasterBand>"
    bands = "".join(band.format(number, source.name) for number in (1, 2, 3))
    path.write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>{UTM}</SRS><GeoTransform>{place}</GeoTransform>'
        f"{bands}</VRTDataset>"
    )
    return path


ALL = {"probability": "p.tif", "polygons": "a.geojson", "quicklook": "q.png", "summary": "s.json"}


def run(pair, out: Path, bias: float = -20.0, polygons: str = "a.geojson", **options):
    others = {name: out / file for name, file in (ALL | {"polygons": polygons}).items()}
    detector = NetworkDetector(pointwise(scale=1.0, bias=bias))
    return predict_scene(detector, *pair, out / "c.tif", **others, **options)


@pytest.mark.parametrize("polygons", ["a.geojson", "a.gpkg", "a.parquet"])
@pytest.mark.parametrize("bias", [-20.0, -2000.0])
def test_earlier_outputs_are_replaced_without_a_word(polygons, bias, pair, tmp_path):
    first = run(pair, tmp_path / "out", bias, polygons)
    assert (first.polygons == 0) == (bias < -1000)
    before = content(tmp_path / "out")
    run(pair, tmp_path / "out", bias, polygons)
    after = content(tmp_path / "out")
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} <= {"s.json"}  # which holds times


@pytest.mark.parametrize("name", ["c.tif", "c.qml", "p.tif", "p.qml", "a.geojson", "a.qml", "q.png", "s.json"])
@pytest.mark.parametrize("foreign", ["text", "of the same format"])
def test_other_files_in_their_places_are_refused_and_stay(name, foreign, pair, tmp_path, monkeypatch):
    path = tmp_path / "out" / name
    path.parent.mkdir()
    path.write_text("mine")
    if foreign == "of the same format":
        match path.suffix:
            case ".tif":
                write_raster(path, np.ones((1, 60, 70), np.uint8 if name == "c.tif" else np.float32))
            case ".geojson":
                geopandas.GeoDataFrame({"id": [1]}, geometry=[shapely.box(0, 0, 1, 1)], crs=4326).to_file(path)
            case ".png":
                Image.new("RGB", (4, 4)).save(path)
            case ".json":
                path.write_text(json.dumps({"car": 0.5, "outputs": {}}))
            case ".qml":
                path.write_text(kinds.style("mask").replace("#e31a1c", "#0000ff"))
    before = path.read_bytes()
    model = pointwise(**BRIGHTER)
    passes = Passes(model)
    with pytest.raises(OutputError, match=rf"{name} exists and is not .* by bitemporal; it is not replaced"):
        predict_scene(
            NetworkDetector(model), *pair, path.parent / "c.tif", **{key: path.parent / ALL[key] for key in ALL}
        )
    assert not passes.sizes
    assert content(path.parent) == {name: before}
    run(pair, path.parent, overwrite=True)
    assert path.read_bytes() != before
    assert len(content(path.parent)) == 8


@pytest.mark.parametrize(
    "name", ["c.tif.aux.xml", "c.tif.ovr", "c.tif.msk", "p.tif.ovr", "q.png.aux.xml", "a.gpkg-wal", "a.gpkg-journal"]
)
def test_what_belongs_to_an_earlier_output_goes_with_it_and_nothing_else_does(name, pair, tmp_path):
    out, beside = tmp_path / "out", tmp_path / "out" / name
    out.mkdir()
    beside.write_text("mine, from before")
    with pytest.raises(OutputError, match=rf"{name} exists and is not a file that belongs to"):
        run(pair, out, polygons="a.gpkg")
    assert content(out) == {name: b"mine, from before"}
    beside.unlink()
    run(pair, out, polygons="a.gpkg")
    beside.write_text("kept by a viewer")
    run(pair, out, polygons="a.gpkg")
    assert not beside.exists()
    beside.write_text("older than the output")
    target = next(path for path in out.iterdir() if name.startswith(path.name) and path != beside)
    os.utime(beside, ns=(0, target.stat().st_mtime_ns - 10**9))
    with pytest.raises(OutputError, match="exists and is not a file that belongs to"):
        run(pair, out, polygons="a.gpkg")
    assert beside.read_text() == "older than the output"


def test_a_mask_does_not_take_the_place_of_probabilities(pair, tmp_path):
    out = tmp_path / "out"
    run(pair, out)
    before = content(out)
    with pytest.raises(OutputError, match=r"mask: .*p.tif exists and is not a change mask"):
        predict_scene(NetworkDetector(pointwise()), *pair, out / "p.tif")
    with pytest.raises(OutputError, match=r"p.tif is one of the inputs, which are never changed"):
        threshold_scene(out / "p.tif", out / "p.tif", overwrite=True)
    assert content(out) == before


@pytest.mark.parametrize("way", ["itself", "vrt", "nested vrt", "link", "hard link", "mask", "area", "sidecar"])
def test_nothing_that_is_read_is_replaced_even_when_told_to(way, pair, tmp_path):
    before, after = pair
    files, options, target = [before, after], {}, before
    if way == "vrt":
        files[0] = vrt(before.parent / "b.vrt", before)
    elif way == "nested vrt":
        files[0] = vrt(before.parent / "b.png", vrt(before.parent / "inner.tif", before))  # known by content, not name
    elif way == "link":
        target = tmp_path / "link.tif"
        target.symlink_to(before)
    elif way == "hard link":
        target = tmp_path / "link.tif"
        target.hardlink_to(before)
    elif way == "mask":
        target = write_raster(before.parent / "clouds.tif", np.zeros((1, 60, 70), np.uint8))
        options = {"mask": vrt(before.parent / "m.vrt", target)}
        options["mask"].write_text(
            options["mask"].read_text().partition('<VRTRasterBand dataType="Byte" band="2">')[0] + "</VRTDataset>"
        )
    elif way == "area":
        with rasterio.open(before) as raster:
            area = shapely.box(*raster.bounds)
        target = before.parent / "area.gpkg"
        geopandas.GeoDataFrame(geometry=[area], crs=UTM).to_file(target)
        options = {"within": target, "polygons": target}
        target = tmp_path / "c.tif"
    elif way == "sidecar":
        (before.parent / "before.tif.aux.xml").write_text("<PAMDataset/>")
        target = tmp_path / "c.tif"
        (tmp_path / "c.tif.aux.xml").symlink_to(before.parent / "before.tif.aux.xml")
    untouched = content(tmp_path)
    with pytest.raises(OutputError, match="is one of the inputs, which are never changed"):
        predict_scene(NetworkDetector(pointwise()), *files, target, overwrite=True, **options)
    assert content(tmp_path) == untouched


def test_what_vrts_read_is_found_however_deep(pair):
    folder, (before, _) = pair[0].parent, pair
    vrt(folder / "one.vrt", before)
    vrt(folder / "two.vrt", folder / "one.vrt")
    assert {path.name for path in files_read([folder / "two.vrt"])} == {"two.vrt", "one.vrt", "before.tif"}
    vrt(folder / "loop.vrt", before).write_text((folder / "loop.vrt").read_text().replace("before.tif", "loop.vrt"))
    assert files_read([folder / "loop.vrt", "https://example.org/x.tif", folder / "absent.tif"])


def test_nothing_is_written_into_a_bundle(bundle, pair):
    before = content(bundle)
    detector = bitemporal.load(bundle, "cpu")
    for options in ({}, {"overwrite": True}):
        with pytest.raises(OutputError, match=r"summary: .*bundle.json is inside .*bundle, which is read"):
            predict_scene(detector, *pair, pair[0].parent / "c.tif", summary=bundle / "bundle.json", **options)
    assert content(bundle) == before
    assert content(pair[0].parent).keys() == {"before.tif", "after.tif"}


def test_the_remedy_for_another_file_works(bundle, pair, tmp_path, capsys):
    (tmp_path / "c.tif").write_text("mine")
    words = ["predict-scene", *map(str, pair), "--bundle", str(bundle), "--out", str(tmp_path / "c.tif")]
    assert main(words) == 1
    assert follow_options(capsys.readouterr().err, words) == [["--overwrite"]]
    assert kinds.MASK.stands_at(tmp_path / "c.tif")


# --- archives


def manifest(folder: Path, *rows: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scenes.csv").write_text("\n".join(["id,before,after", *rows]))
    return folder / "scenes.csv"


@pytest.mark.parametrize("case", ["another's input", "another's vrt", "the manifest", "one folder twice", "a bundle"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_no_output_of_an_archive_is_read_or_written_for_another(case, overwrite, bundle, pair, tmp_path, capsys):
    before, after = pair
    out, bundles = tmp_path / "out", bundle
    good = f"x,{before},{after}"
    listed = manifest(tmp_path / "lists", good)
    if case.startswith("another's"):
        predict_scene(NetworkDetector(pointwise()), *pair, out / "x" / "change.tif")
        write_raster(out / "x" / "change.tif", read_three(before))
        taken = out / "x" / "change.tif"
        taken = vrt(out / "x" / "in.vrt", taken) if "vrt" in case else taken
        listed = manifest(tmp_path / "lists", good, f"y,{taken},{after}")
    elif case == "the manifest":
        listed = manifest(out, good).rename(out / "status.csv")
    elif case == "one folder twice":
        (out / "x").mkdir(parents=True)
        (out / "y").symlink_to(out / "x")
        listed = manifest(tmp_path / "lists", good, f"y,{before},{after}")
    else:
        (out / "x").mkdir(parents=True)
        bundles = out / "x" / "bundle"
        bundles.symlink_to(bundle)
        out = out / "x"
        listed = manifest(tmp_path / "lists", f"bundle,{before},{after}")
    untouched = content(tmp_path), content(bundle)
    words = ["predict-archive", "--manifest", str(listed), "--bundle", str(bundles), "--out", str(out)]
    assert main([*words, *(["--overwrite"] if overwrite else [])]) == 1
    assert "choose another" in capsys.readouterr().err
    assert (content(tmp_path), content(bundle)) == untouched


def read_three(path: Path) -> np.ndarray:
    with rasterio.open(path) as raster:
        return raster.read()


def test_the_header_of_the_table_is_what_it_is_known_by():
    from dataclasses import fields

    assert [field.name for field in fields(SceneStatus)] == kinds._STATUS


def test_a_table_of_scenes_with_a_status_of_their_own_is_no_table_of_results(bundle, pair, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "status.csv").write_text("id,status,note\nx,checked,mine\n")
    listed = manifest(tmp_path / "lists", f"x,{pair[0]},{pair[1]}")
    with pytest.raises(OutputError, match=r"status.csv exists and is not a table of an archive"):
        predict_archive(Plan((str(bundle),), str(tmp_path / "out"), "cpu"), read_manifest(listed))
    assert content(tmp_path / "out") == {"status.csv": b"id,status,note\nx,checked,mine\n"}


# --- tiles


def test_tiles_are_not_cut_into_what_is_read(pair, tmp_path):
    bands = tmp_path / "bands"
    bands.mkdir()
    for number in (2, 3, 4):
        write_raster(bands / f"B0{number}.tif", ground(number, 60, 70, 1))
    with pytest.raises(OutputError, match=r"is inside .*bands, which is read"):
        cut_scene(bands, bands, bands / "tiles")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists and is not an empty folder"):
        cut_scene(*pair, tmp_path / "mine")
    assert not (bands / "tiles").exists()
    assert content(tmp_path / "mine") == {"note.txt": b"mine"}


# --- runs at once


@pytest.mark.parametrize("kind", ["scene", "archives"])
def test_runs_of_one_output_at_once_leave_what_one_alone_leaves(kind, tmp_path):
    _run_script("scene_races.py", kind, str(tmp_path))


def test_a_run_begins_no_other_on_its_own_output(pair, tmp_path):
    class Nested(NetworkDetector):
        def answers(self, *words):
            with pytest.raises(OutputError, match=r"c.tif: another run is writing it"):
                predict_scene(NetworkDetector(pointwise()), *pair, tmp_path / "c.tif")
            return super().answers(*words)

    predict_scene(Nested(pointwise(**BRIGHTER)), *pair, tmp_path / "c.tif")


# --- kills


def test_a_kill_at_any_moment_loses_nothing_and_the_next_run_ends_the_same(tmp_path):
    _campaign(tmp_path, 2, "predict-scene", "threshold", "merge", "data tiles")


@pytest.mark.full
def test_a_kill_at_each_of_many_moments(tmp_path):
    _campaign(tmp_path, 60, "predict-scene", "threshold", "merge", "data tiles")
    _campaign(tmp_path / "archives", 12, "predict-archive")


def _campaign(folder: Path, kills: int, *commands: str) -> None:
    assert len(_run_script("scene_kills.py", str(folder), str(kills), "1", *commands)) == len(commands)


def _run_script(name: str, *words: str) -> list[str]:
    """Run a script next to this file, which imports everything once and forks; gives the lines that it prints."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name(name)), *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout.splitlines()
