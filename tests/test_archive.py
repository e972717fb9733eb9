"""Archives: manifests of every form, processes and Ray, workers that die, scenes that are bad."""

import csv
import json
import os
import re
import subprocess
import sys
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas
import pytest

from bitemporal.cli.main import main
from bitemporal.errors import DataError, OptionError, OutputError
from bitemporal.inference.bundle import save_bundle
from bitemporal.models import create_model
from bitemporal.outputs import Output
from bitemporal.scenes import archive as archives
from bitemporal.scenes import status as status_module
from bitemporal.scenes.archive import ATTEMPTS, Plan, SceneWorker, predict_archive
from bitemporal.scenes.kinds import STATUS
from bitemporal.scenes.manifest import SceneFiles, read_manifest
from bitemporal.scenes.options import SceneOptions
from bitemporal.scenes.status import SceneStatus, StatusTable
from remedies import follow_tools
from scene_files import ground, write_raster
from small_disk import grow, small_disk


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A bundle, four scenes and a bad one, and their manifest."""
    folder = tmp_path_factory.mktemp("archive")
    network = create_model("test_fc").eval()
    save_bundle(folder / "bundle", network)
    rows = []
    for i in range(4):
        before = ground(i, 100 + 20 * i, 140)
        after = before.copy()
        after[:, 20:60, 30:90] = 255 - after[:, 20:60, 30:90]
        write_raster(folder / f"b{i}.tif", before)
        write_raster(folder / f"a{i}.tif", after)
        rows.append({"id": f"tile-{i}", "before": f"b{i}.tif", "after": f"a{i}.tif"})
    (folder / "bad.tif").write_text("no raster")
    rows.insert(2, {"id": "bad", "before": "bad.tif", "after": "a0.tif"})
    with (folder / "scenes.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["id", "before", "after"])
        writer.writeheader()
        writer.writerows(rows)
    return folder


def files(folder):
    """Bytes of all products; summaries hold times, and the status table does too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".json" and path.name != "status.csv"
    }


def test_a_manifest_on_processes_and_again(archive, tmp_path, capsys):
    out = tmp_path / "out"
    words = [
        "predict",
        "--manifest",
        str(archive / "scenes.csv"),
        "--bundle",
        str(archive / "bundle"),
        "--out",
        str(out),
    ]
    words += ["--probability", "p.tif", "--polygons", "areas.gpkg", "--tile", "96", "--overlap", "16", "--workers", "2"]
    assert main(words) == 1
    text = capsys.readouterr()
    assert "bad.tif: cannot be read" in text.err
    assert "4 of 5 scenes" in text.out
    products = {"change.tif", "change.qml", "p.tif", "p.qml", "areas.gpkg", "summary.json"}
    for i in range(4):
        assert {path.name for path in (out / f"tile-{i}").iterdir()} == products
    assert not (out / "bad").exists() or not list((out / "bad").iterdir())
    with (out / "status.csv").open() as stream:
        statuses = list(csv.DictReader(stream))
    assert [row["id"] for row in statuses] == ["tile-0", "tile-1", "bad", "tile-2", "tile-3"]
    assert [row["status"] for row in statuses] == ["done", "done", "failed", "done", "done"]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.name != "status.csv"}
    main(words)
    with (out / "status.csv").open() as stream:
        assert [row["status"] for row in csv.DictReader(stream)] == [
            "skipped",
            "skipped",
            "failed",
            "skipped",
            "skipped",
        ]
    assert before == {path: path.stat().st_mtime_ns for path in before}
    (out / "tile-1" / "p.tif").unlink()
    main(words)
    with (out / "status.csv").open() as stream:
        assert [row["status"] for row in csv.DictReader(stream)] == ["skipped", "done", "failed", "skipped", "skipped"]


def plan(archive, out):
    products = {"probability": "p.tif", "polygons": "a.gpkg"}
    return Plan(
        (str(archive / "bundle"),), str(out), "cpu", products=products, options=SceneOptions(tile=80, overlap=16)
    )


@pytest.fixture(scope="module")
def on_processes(archive, tmp_path_factory):
    out = tmp_path_factory.mktemp("local") / "out"
    predict_archive(plan(archive, out), read_manifest(archive / "scenes.csv"))
    return files(out)


KILL_IN_THE_MIDDLE = """
import os, pathlib, signal
from bitemporal.scenes.journal import Journal
original = Journal.write
def write(self, *words):
    original(self, *words)
    mark = pathlib.Path({mark!r})
    if "tile-1" in str(self.folder) and (not mark.exists() or {always!r}):
        mark.write_text(str(self.strips))
        os.kill(os.getpid(), signal.SIGKILL)
Journal.write = write
"""
"""Kills the process that has written the first strip of a scene, once; or each time."""


@pytest.mark.parametrize(
    ("engine", "always"),
    [
        ("local", False),
        pytest.param("local", True, marks=pytest.mark.full),
        ("ray", False),
        pytest.param("ray", True, marks=pytest.mark.full),
    ],
)
def test_a_worker_that_is_killed_loses_nothing_and_doubles_nothing(engine, always, archive, on_processes, tmp_path):
    """A worker of two dies in the middle of a scene; the products are the bytes of an undisturbed run."""
    if engine == "ray":
        pytest.importorskip("ray")
    out, mark = tmp_path / "out", tmp_path / "mark"
    # what every new Python process runs first
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nif os.environ.get('KILL_ONCE'):\n"
        "    import sys, importlib.abc, importlib.machinery\n"
        "    class Late(importlib.abc.MetaPathFinder):\n"
        "        def find_spec(self, name, path, target=None):\n"
        "            if name != 'bitemporal.scenes.archive': return None\n"
        "            sys.meta_path.remove(self)\n"
        "            spec = importlib.machinery.PathFinder.find_spec(name, path)\n"
        "            run = spec.loader.exec_module\n"
        "            def load(module):\n"
        "                run(module)\n"
        "                sys.modules[name] = module\n"
        "                exec(open(os.environ['KILL_ONCE']).read(), {})\n"
        "            spec.loader.exec_module = load\n"
        "            return spec\n"
        "    sys.meta_path.insert(0, Late())\n"
    )
    (tmp_path / "kill.py").write_text(KILL_IN_THE_MIDDLE.format(mark=str(mark), always=always))
    source = Path(__file__).resolve().parents[1] / "src"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{source}", "KILL_ONCE": str(tmp_path / "kill.py")}
    script = (
        "import json\n"
        "from dataclasses import asdict\n"
        "from bitemporal.scenes.archive import Plan, predict_archive\n"
        "from bitemporal.scenes.manifest import read_manifest\n"
        "from bitemporal.scenes.options import SceneOptions\n"
        "if __name__ == '__main__':\n"
        f"    plan = Plan(({str(archive / 'bundle')!r},), {str(out)!r}, 'cpu',\n"
        "        products={'probability': 'p.tif', 'polygons': 'a.gpkg'}, options=SceneOptions(tile=80, overlap=16))\n"
        f"    found = predict_archive(plan, read_manifest({str(archive / 'scenes.csv')!r}), {engine!r}, 2)\n"
        f"    open({str(tmp_path / 'statuses.json')!r}, 'w').write(json.dumps([asdict(status) for status in found]))\n"
    )
    (tmp_path / "run.py").write_text(script)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "run.py")], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert mark.exists()
    statuses = json.loads((tmp_path / "statuses.json").read_text())
    assert [row["id"] for row in statuses] == ["tile-0", "tile-1", "bad", "tile-2", "tile-3"]
    second = "failed" if always else "done"
    assert [row["status"] for row in statuses] == ["done", second, "failed", "done", "done"]
    assert ("its process died" in statuses[1]["error"]) == always
    expected = {name: content for name, content in on_processes.items() if not (always and name.startswith("tile-1"))}
    assert {name: content for name, content in files(out).items() if "/." not in name} == expected


@pytest.mark.parametrize(
    ("error", "before", "attempts"),
    [
        (RuntimeError("out of memory"), "b0.tif", 3),
        (DataError("b0.tif: is damaged"), "b0.tif", 1),
        (DataError("b0.tif: cannot be opened"), "https://example.org/b0.tif", 3),
    ],
)
@pytest.mark.parametrize("passes", [True, False])
def test_what_may_pass_is_tried_again(error, before, attempts, passes, archive, tmp_path, monkeypatch):
    calls = []

    def predict(*words):
        calls.append(words)
        if passes and len(calls) == 3:
            return False, {"car": 0.5, "changed_hectares": 2.0, "seconds": {"total": 1.0}}
        raise error

    monkeypatch.setattr(archives, "predict_unless_finished", predict)
    status = SceneWorker(plan(archive, tmp_path)).predict(SceneFiles("a", (before,), ("a0.tif",)))
    assert len(calls) == status.attempts == attempts
    assert status.status == ("done" if passes and attempts == 3 else "failed")
    assert (str(error) in status.error) == (status.status == "failed")


def test_a_scene_that_kills_every_process_is_given_up(archive, tmp_path, monkeypatch):
    """Processes that die at once stand in."""
    tried = []

    class Dying:
        def submit(self, scene):
            tried.append(scene.id)
            future = Future()
            future.set_exception(BrokenProcessPool())
            return future

        def signs(self):
            return 0

        def stop(self):
            pass

    monkeypatch.setattr(archives, "_process", lambda _: Dying())
    statuses = predict_archive(plan(archive, tmp_path), [SceneFiles("a"), SceneFiles("b")])
    assert [(status.id, status.status, status.attempts) for status in statuses] == [
        ("a", "failed", ATTEMPTS), ("b", "failed", ATTEMPTS),
    ]  # fmt: skip
    assert sorted(tried) == ["a"] * ATTEMPTS + ["b"] * ATTEMPTS
    assert "its process died" in statuses[0].error


def test_a_scene_whose_process_hangs_fails_and_the_others_are_done(archive, tmp_path, monkeypatch):
    """Its process is ended, and another one takes the next scene."""
    stopped = []
    monkeypatch.setattr(archives, "SPAN", 0.001)
    monkeypatch.setattr(archives.Watch, "is_over", lambda watch: watch._sign() == "hangs")

    class Worker:
        scene = ""

        def submit(self, scene):
            self.scene, future = scene.id, Future()
            if scene.id != "b":
                future.set_result(SceneStatus(scene.id, "done"))
            return future

        def signs(self):
            return "hangs" if self.scene == "b" else 1

        def stop(self):
            stopped.append(self.scene)

    monkeypatch.setattr(archives, "_process", lambda _: Worker())
    statuses = predict_archive(plan(archive, tmp_path), [SceneFiles(name) for name in "abc"])
    assert [(status.id, status.status) for status in statuses] == [("a", "done"), ("b", "failed"), ("c", "done")]
    assert "no sign of life for 30 minutes from its process" in statuses[1].error
    assert stopped[0] == "b"


def test_a_scene_gives_signs_of_life(archive, tmp_path, monkeypatch):
    signs = []
    monkeypatch.setattr("bitemporal.scenes.strips.sign_of_life", lambda: signs.append("strip"))
    monkeypatch.setattr("bitemporal.scenes.products.sign_of_life", lambda: signs.append("product"))
    status = SceneWorker(plan(archive, tmp_path)).predict(read_manifest(archive / "scenes.csv")[0])
    assert status.status == "done"
    assert signs.count("strip") > 1 and signs.count("product") > 2


def test_manifests_of_every_form_name_the_same_scenes(tmp_path):
    expected = [
        SceneFiles("one", (str(tmp_path / "b.tif"),), ("https://example.org/a.tif",)),
        SceneFiles("two", (str(tmp_path / "r.tif"), "/data/g.tif", "s3://bucket/b.tif"), (str(tmp_path / "a.tif"),)),
    ]
    rows = [
        {"id": "one", "before": "b.tif", "after": "https://example.org/a.tif"},
        {"id": "two", "before": "r.tif; /data/g.tif;s3://bucket/b.tif", "after": "a.tif"},
    ]
    pandas.DataFrame(rows).to_csv(tmp_path / "m.csv", index=False)
    pandas.DataFrame(rows).to_parquet(tmp_path / "m.parquet")
    assert read_manifest(tmp_path / "m.csv") == read_manifest(tmp_path / "m.parquet") == expected


def test_files_a_band_may_be_a_list_in_parquet_and_tables_may_come_from_excel(tmp_path):
    bands = ["r.tif", "/data/g.tif", "b.tif"]
    pandas.DataFrame([{"id": "one", "before": bands, "after": bands}]).to_parquet(tmp_path / "m.parquet")
    text = f"id,before,after\none,{';'.join(bands)},{';'.join(bands)}\n"
    (tmp_path / "m.csv").write_text(text, encoding="utf-8-sig")
    files = (str(tmp_path / "r.tif"), "/data/g.tif", str(tmp_path / "b.tif"))
    expected = [SceneFiles("one", files, files)]
    assert read_manifest(tmp_path / "m.parquet") == read_manifest(tmp_path / "m.csv") == expected


FORMS = {
    "semicolons": b"id;before;after\r\none;b.tif;a.tif\r\n",
    "a mark, and capitals": "\ufeffID;Before;AFTER\none;b.tif;a.tif\n".encode(),
    "tabs": b"id\tbefore\tafter\none\tb.tif\ta.tif\n",
    "spaces in columns": b"id     before  after\n\none    b.tif   a.tif  \n",
    "vertical bars": b"id | before | after\none | b.tif | a.tif\n",
    "quoted fields": b'"after";"id";"before"\n"a.tif";"one";"b.tif"\n',
    "further columns": b'id,before,after,note\none,b.tif,a.tif,"cloudy, late"\n',
    "Unicode text of a spreadsheet": "id\tbefore\tafter\none\tb.tif\ta.tif\n".encode("utf-16"),
    "Unicode text without its mark": "id,before,after\none,b.tif,a.tif\n".encode("utf-16-le"),
    "the separator above, as Excel has it": b"sep=;\r\nid;before;after\r\none;b.tif;a.tif\r\n",
    "comments above": b"# scenes, as of May\n\nid,before,after\none,b.tif,a.tif\n",
    "old line ends": b"id,before,after\rone,b.tif,a.tif\r",
    "blanks around": b"id, before, after\n one, b.tif , a.tif\n,,\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_manifests_as_spreadsheets_and_people_write_them(form, tmp_path):
    expected = SceneFiles("one", (str(tmp_path / "b.tif"),), (str(tmp_path / "a.tif"),))
    for name in ("m.csv", "m.tsv", "m.TXT"):
        (tmp_path / name).write_bytes(FORMS[form])
        assert read_manifest(tmp_path / name) == [expected]


def test_paths_as_windows_writes_them(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.tif").write_bytes(b"")
    (tmp_path / "m.csv").write_text("id,before,after\none,old\\b.tif,new\\a.tif\n")
    (scene,) = read_manifest(tmp_path / "m.csv")
    assert scene.before == (str(tmp_path / "old" / "b.tif"),) and scene.after == (str(tmp_path / "new" / "a.tif"),)


def test_a_manifest_in_another_encoding_says_how_to_save_it(tmp_path):
    (tmp_path / "m.csv").write_bytes("id,before,after\none,zürich.tif,a.tif\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"neither UTF-8 nor UTF-16.*save it as `CSV UTF-8`") as refused:
        read_manifest(tmp_path / "m.csv")
    follow_tools(str(refused.value))
    (scene,) = read_manifest(tmp_path / "m-utf8.csv")
    assert scene.before == (str(tmp_path / "zürich.tif"),)


def test_capitals_in_the_columns_of_a_parquet_file(tmp_path):
    pandas.DataFrame([{"Id": "one", "BEFORE": "b.tif", "After": "a.tif"}]).to_parquet(tmp_path / "m.parquet")
    assert [scene.id for scene in read_manifest(tmp_path / "m.parquet")] == ["one"]
    pandas.DataFrame([{"scene": "one", "t1": "b.tif"}]).to_parquet(tmp_path / "m.parquet")
    with pytest.raises(DataError, match="found the columns scene, t1, expected"):
        read_manifest(tmp_path / "m.parquet")


def test_several_files_of_one_date_are_quoted_where_semicolons_separate_the_columns(tmp_path):
    (tmp_path / "m.csv").write_text('id;before;after\none;"r.tif;g.tif;b.tif";a.tif\ntwo;r.tif;g.tif;b.tif;a.tif\n')
    one, two = read_manifest(tmp_path / "m.csv")
    assert one.before == tuple(str(tmp_path / f"{band}.tif") for band in "rgb")
    assert "line 3 has 5 values for 3 columns" in two.error
    assert "double quotes" in two.error


def test_a_manifest_in_the_place_of_the_table_of_results_stays(archive, tmp_path):
    manifest = tmp_path / "status.csv"
    manifest.write_text("id,before,after\nx,b0.tif,a0.tif\n")
    with pytest.raises(OutputError, match=r"status\.csv is one of the inputs"):
        predict_archive(plan(archive, tmp_path), read_manifest(manifest))
    assert manifest.read_text().startswith("id,before")


def item(name, tile, date, assets):
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "properties": {"datetime": date, "grid:code": tile},
        "assets": {key: {"href": href} for key, href in assets.items()},
    }


def test_stac_items_are_paired_by_tile(tmp_path):
    path = tmp_path / "items.json"
    bands = {"B04": "r.tif", "B03": "g.tif", "B02": "b.tif", "visual": "v.tif"}
    items = [
        item("late", "MGRS-31UDQ", "2021-07-01T10:00:00Z", {k: f"late_{v}" for k, v in bands.items()}),
        item("early", "MGRS-31UDQ", "2018-07-01T10:00:00Z", {k: f"early_{v}" for k, v in bands.items()}),
        item("between", "MGRS-31UDQ", "2019-07-01T10:00:00Z", {k: f"between_{v}" for k, v in bands.items()}),
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    (scene,) = read_manifest(path)
    assert (scene.id, scene.error) == ("MGRS-31UDQ", "")
    assert (scene.before, scene.after) == ((str(tmp_path / "early_v.tif"),), (str(tmp_path / "late_v.tif"),))
    (scene,) = read_manifest(path, ["B04", "B03", "B02"])
    assert scene.before == tuple(str(tmp_path / f"early_{band}.tif") for band in "rgb")
    (scene,) = read_manifest(path, ["B8A"])
    assert "'early' has no assets B8A; it has B02, B03, B04, visual" in scene.error
    other = item("other", "MGRS-32", "2020-01-01T00:00:00Z", bands)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [*items, other]}))
    good, bad = read_manifest(path)
    assert (good.error, bad.id) == ("", "MGRS-32")
    assert "has items of only one date" in bad.error


@pytest.mark.parametrize("name", ["grid:code", "s2:mgrs_tile", "tile", "tile_id"])
def test_stac_items_may_name_their_tile_and_date_in_other_ways(name, tmp_path):
    items = [item(year, "T1", None, {"visual": f"{year}.tif"}) for year in ("2021", "2018")]
    for year in items:
        year["properties"] = {name: "T1", "datetime": None, "start_datetime": f"{year['id']}-07-01T00:00:00Z"}
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    (scene,) = read_manifest(tmp_path / "items.json")
    assert (scene.id, scene.error) == ("T1", "")
    assert (scene.before, scene.after) == ((str(tmp_path / "2018.tif"),), (str(tmp_path / "2021.tif"),))


def test_a_line_that_cannot_be_used_is_one_failed_scene(archive, tmp_path):
    (archive / "holes.csv").write_text("id,before,after\nfirst,b0.tif,\nsecond,b1.tif,a1.tif\n")
    statuses = predict_archive(plan(archive, tmp_path / "out"), read_manifest(archive / "holes.csv"))
    assert [(status.id, status.status) for status in statuses] == [("first", "failed"), ("second", "done")]
    assert "line 2 has no after" in statuses[0].error


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id,before\na,b.tif\n", r"found the columns id, before \(separated by commas\), .* before and after"),
        ("scene;date1;date2\na;b;c\n", r"found the columns scene, date1, date2 \(separated by semicolons\)"),
        ("ID;Before;After;Id\na;b;c;d\n", "the column id twice"),
        ("id,before,after\n", "lists no scene"),
    ],
)
def test_manifests_that_cannot_be_used_are_errors(content, words, tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=words):
        read_manifest(path)


@pytest.mark.parametrize("name", ["..", ".hidden", "a/b", "a\\b"])
def test_ids_that_name_no_folder_of_their_own_are_faults_of_their_scenes(name, tmp_path):
    (tmp_path / "m.csv").write_text(f"id,before,after\n{name},b.tif,c.tif\ngood,b.tif,c.tif\n")
    bad, good = read_manifest(tmp_path / "m.csv")
    assert "cannot name a folder" in bad.error and not good.error


def test_scenes_without_an_id_are_named_after_their_file_or_their_line(tmp_path):
    text = 'after,before\na.tif,x/one.tif\n\na.tif,"r.tif;g.tif"\n\na.tif,y/two.tif\na.tif,z/two.tif\n'
    (tmp_path / "m.csv").write_text(text)
    assert [scene.id for scene in read_manifest(tmp_path / "m.csv")] == ["one", "r", "line-6", "line-7"]
    (tmp_path / "m.csv").write_text("id,before,after\nr,b.tif,a.tif\n,r.tif,a.tif\n,s.tif,a.tif\n")
    assert [scene.id for scene in read_manifest(tmp_path / "m.csv")] == ["r", "line-3", "s"]
    pandas.DataFrame({"before": ["one.tif", "x/one.tif"], "after": ["a.tif"] * 2}).to_parquet(tmp_path / "m.parquet")
    assert [scene.id for scene in read_manifest(tmp_path / "m.parquet")] == ["row-1", "row-2"]


def test_lines_in_messages_are_those_of_the_file(tmp_path):
    text = '\nid,before,after,note\n\none,b.tif,a.tif,"two\nlines"\ntwo,b.tif,,\n'
    (tmp_path / "m.csv").write_text(text)
    one, two = read_manifest(tmp_path / "m.csv")
    assert (one.row, two.row) == ("line 4", "line 6")
    assert "m.csv: line 6 has no after" in two.error


def test_scenes_of_one_id_fail_and_repeated_ones_are_done_once(archive, tmp_path, capsys):
    (archive / "twice.csv").write_text(
        "id,before,after\na,b0.tif,a0.tif\nb,b1.tif,a1.tif\na,b2.tif,a2.tif\nb,b1.tif,a1.tif\n../c,b3.tif,a3.tif\n"
    )
    words = ["predict-archive", "--manifest", str(archive / "twice.csv"), "--bundle", str(archive / "bundle")]
    assert (
        main([*words, "--out", str(tmp_path / "out"), "--polygons", "p.gpkg", "--merge", str(tmp_path / "m.gpkg")]) == 1
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b", "status.csv"]
    status = pandas.read_csv(tmp_path / "out/status.csv")
    assert list(zip(status.id, status.status, strict=True)) == [
        ("a", "failed"), ("b", "done"), ("a", "failed"), ("../c", "failed"),
    ]  # fmt: skip
    assert all("2 scenes have the id 'a' (line 2, line 4)" in error for error in status.error[[0, 2]])
    assert "repeats this scene (line 5)" in status.warning[1]
    # the scenes of a list that is made in Python too
    scenes = [SceneFiles("x", ("b.tif",), ("a.tif",)), SceneFiles("x", ("c.tif",), ("a.tif",))]
    ended = predict_archive(plan(archive, tmp_path / "other"), scenes)
    assert [scene.status for scene in ended] == ["failed"] * 2


def test_an_item_without_a_tile_is_one_failed_scene(tmp_path):
    good = [item(year, "T1", f"{year}-01-01", {"visual": f"{year}.tif"}) for year in ("2021", "2018")]
    bad = item("lost", None, "2020-01-01", {"visual": "x.tif"})
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [bad, *good]}))
    lost, scene = read_manifest(tmp_path / "items.json")
    assert (lost.id, scene.id, scene.error) == ("lost", "T1", "")
    assert "'lost' has no tile or no date" in lost.error


def test_an_item_without_a_name_has_that_of_its_place(tmp_path):
    good = [item(year, "T1", f"{year}-01-01", {"visual": f"{year}.tif"}) for year in ("2021", "2018")]
    bad = [item(None, None, "2020-01-01", {"visual": "x.tif"}) for _ in range(2)]
    content = {"type": "FeatureCollection", "features": [bad[0], *good, bad[1]]}
    (tmp_path / "items.json").write_text(json.dumps(content))
    assert sorted(scene.id for scene in read_manifest(tmp_path / "items.json")) == ["T1", "item-1", "item-4"]


def test_what_is_no_manifest(tmp_path):
    with pytest.raises(DataError, match=r"none.csv: no such file"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "m.xlsx").write_text("x")
    with pytest.raises(DataError, match=r"ends in .csv, .tsv, .txt, .parquet or .json"):
        read_manifest(tmp_path / "m.xlsx")
    (tmp_path / "m.json").write_text("[1, 2]")
    with pytest.raises(DataError, match="is not a STAC item collection"):
        read_manifest(tmp_path / "m.json")
    (tmp_path / "m.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"m.parquet: cannot be read .*expected a parquet file"):
        read_manifest(tmp_path / "m.parquet")


def test_one_scene_from_the_command_line(archive, tmp_path, capsys):
    bundle = str(archive / "bundle")
    out = tmp_path / "c.tif"
    images = [str(archive / "b0.tif"), str(archive / "a0.tif")]
    words = ["--bundle", bundle, "--tile", "96", "--overlap", "16", "--device", "cpu"]
    assert main(["predict", *images, *words, "-o", str(out), "--polygons", str(tmp_path / "a.gpkg")]) == 0
    text = capsys.readouterr().out
    assert "valid pixels (CAR" in text
    assert str(tmp_path / "a.gpkg") in text
    single = []
    for name in ("b0", "a0"):
        import rasterio

        with rasterio.open(archive / f"{name}.tif") as source:
            bands = source.read()
        single.append([str(write_raster(tmp_path / f"{name}_{i}.tif", bands[i : i + 1])) for i in range(3)])
    other = tmp_path / "d.tif"
    assert main(["predict", "--before", *single[0], "--after", *single[1], *words, "-o", str(other)]) == 0
    with rasterio.open(out) as one, rasterio.open(other) as two:
        assert np.array_equal(one.read(), two.read())
    twice = [
        "predict",
        *images,
        "--bundle",
        bundle,
        bundle,
        "--tta",
        "flips",
        "--scales",
        "1,0.5",
        "-o",
        str(tmp_path / "e.tif"),
    ]
    assert main(twice) == 0
    with rasterio.open(tmp_path / "e.tif") as source:
        content = json.loads(source.tags()["DETECTOR"])
    assert (content["augmentation"], content["scales"], len(content["detector"]["ensemble"])) == (
        "flips",
        [1.0, 0.5],
        2,
    )


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["b.tif", "a.tif", "--before", "x.tif", "-o", "c.tif"], 1, ("before: ", "--before", "both")),
        (["b.tif", "-o", "c.tif"], 1, ("after: ", "--after", "neither")),
        (["b.png", "a.png", "-o", "c.png", "--polygons", "a.gpkg"], 2, ("--polygons a.gpkg",)),
        (["--manifest", "m.csv", "b.tif", "-o", "out"], 2, ("b.tif",)),
        (["--manifest", "m.csv", "-o", "out", "--summary", "s.json"], 2, ("--summary s.json",)),
        (["--manifest", "m.csv", "-o", "out", "--engine", "dask"], 2, ("engine", "dask", "local", "ray")),
        (["--manifest", "m.csv", "-o", "out", "--polygons", "x/a.gpkg"], 1, ("polygons: ", "x/a.gpkg", "file name")),
    ],
)
def test_options_that_do_not_go_together_are_refused(words, status, said, archive, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        assert main(["predict", *words, "--bundle", str(archive / "bundle")]) == status
    except SystemExit as ended:  # the parser refuses options that the command does not have
        assert ended.code == status
    error = capsys.readouterr().err
    assert "Traceback" not in error and all(word in error for word in said)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", ["predict-archive --manifest scenes.csv -o out", "predict-scene b0.tif a0.tif -o c.tif"]
)
def test_a_missing_extra_is_named_by_the_command(words, archive):
    script = "import sys; sys.modules['rasterio'] = None\nfrom bitemporal.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", script, *words.split(), "--bundle", "bundle"]
    done = subprocess.run(command, cwd=archive, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (
        f"bitemporal {words.split()[0]}: bitemporal.scenes" in done.stderr
        and " needs rasterio, " in done.stderr
        and "bitemporal[geo]" in done.stderr
    )


def test_no_worker_is_refused_by_the_command(archive, tmp_path, capsys):
    words = ["--manifest", str(archive / "scenes.csv"), "--bundle", str(archive / "bundle"), "--workers", "0"]
    assert main(["predict-archive", *words, "-o", str(tmp_path / "out")]) == 1
    assert "bitemporal predict-archive: workers: found 0" in capsys.readouterr().err


def test_no_worker_is_refused(archive, tmp_path):
    with pytest.raises(OptionError, match="workers: found 0"):
        predict_archive(plan(archive, tmp_path), [], workers=0)


def test_scenes_that_fail_in_the_same_way_are_said_once(archive, tmp_path, capsys):
    rows = "".join(f"s{i},{archive}/none{i}.tif,{archive}/a0.tif\n" for i in range(9))
    (tmp_path / "scenes.csv").write_text(f"id,before,after\n{rows}s9,{archive}/b0.tif,{archive}/bad.tif\n")
    words = ["--manifest", str(tmp_path / "scenes.csv"), "--bundle", str(archive / "bundle"), "--device", "cpu"]
    assert main(["predict-archive", *words, "-o", str(tmp_path / "out")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "s0", "s1", "s2", "and 6 more scenes in the same way; status.csv has them all", "s9",
    ]  # fmt: skip


def rows_of(table):
    with table.open(newline="") as stream:
        return [(row["id"], row["status"]) for row in csv.DictReader(stream)]


def test_a_long_table_takes_little_time_and_no_row_waits_for_ever(tmp_path, monkeypatch):
    """A clock of the test's own: a scene takes a second, writing the table 0.1 ms a row."""
    clock, writing, count = [0.0], [], 10_000
    scenes = [SceneFiles(f"s{number:05}", ("b.tif",), ("a.tif",)) for number in range(count)]
    table = StatusTable(Output("output", tmp_path / "status.csv", STATUS), scenes, False)
    monkeypatch.setattr(status_module.time, "monotonic", lambda: clock[0])
    write = StatusTable._write

    def timed(self):
        writing.append(1e-4 * len(self._statuses))
        clock[0] += writing[-1]
        if len(writing) % 40 == 1:  # else as if
            write(self)
        self._waiting.clear()

    monkeypatch.setattr(StatusTable, "_write", timed)
    with table:
        for scene in scenes[:-1]:
            clock[0] += 1.0
            table.add(SceneStatus(scene.id, "done"))
            table.write_when_due()
        assert sum(writing) < 0.011 * clock[0]
        assert len(writing) > 150  # and yet often: a row waits for two minutes at most
        table.add(SceneStatus(scenes[-1].id, "failed"))
        waits = table.write_when_due()
        assert 0 < waits < 120
        clock[0] += waits  # no scene ends meanwhile
        done = len(writing)
        assert table.write_when_due() > 60 and len(writing) == done + 1
        assert table.write_when_due() > 60 and len(writing) == done + 1


def test_the_table_is_written_at_once_and_as_the_run_ends_or_fails(tmp_path, monkeypatch):
    scenes = [SceneFiles(name, ("b.tif",), ("a.tif",)) for name in "abc"]
    path = tmp_path / "status.csv"
    path.write_text(",".join(SceneStatus.__dataclass_fields__) + "\nother,done,,,,1,,\na,failed,,,,1,,\n")
    with pytest.raises(KeyboardInterrupt), StatusTable(Output("output", path, STATUS), scenes, False) as table:
        monkeypatch.setattr(status_module, "_SHARE", 1e-9)
        table.add(SceneStatus("c", "done"))
        table.write_when_due()
        assert rows_of(path) == [("a", "failed"), ("c", "done"), ("other", "done")]
        table.add(SceneStatus("a", "done"))
        assert table.write_when_due() > 1
        assert rows_of(path) == [("a", "failed"), ("c", "done"), ("other", "done")]
        raise KeyboardInterrupt
    assert rows_of(path) == [("a", "done"), ("c", "done"), ("other", "done")]


@pytest.mark.parametrize(
    "free", [0, pytest.param(40_000, marks=pytest.mark.full), pytest.param(900_000, marks=pytest.mark.full), 1_300_000]
)  # for not even the table; for the table; for a part of a scene; for some scenes
def test_an_archive_on_a_full_disk_names_what_failed_and_resumes_with_space(free, archive, tmp_path, capsys):
    names = [f"tile-{number}" for number in range(4)]
    rows = ["id,before,after", *(f"{name},{archive}/b{name[-1]}.tif,{archive}/a{name[-1]}.tif" for name in names)]
    (tmp_path / "scenes.csv").write_text("\n".join(rows))
    words = ["predict-archive", "--manifest", str(tmp_path / "scenes.csv"), "--bundle", str(archive / "bundle")]
    words += ["--probability", "p.tif", "--polygons", "a.gpkg", "--tile", "96", "--overlap", "16"]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    whole, disk = files(tmp_path / "whole"), tmp_path / "disk"
    capsys.readouterr()
    with small_disk(disk, free or 40_000):
        if not free:
            with suppress(OSError), (disk / "mine").open("wb", buffering=0) as stream:
                while True:
                    stream.write(bytes(4096))
        assert main([*words, "--out", str(disk / "out")]) == 1
        said = capsys.readouterr()
        assert "Traceback" not in said.err + said.out
        failed = [name for name in names if f"{name}: failed: " in said.out]
        assert failed and all(re.search(f"{name}: failed: .*cannot be written", said.out) for name in failed)
        if (table := disk / "out" / "status.csv").exists():
            assert rows_of(table) == [(name, "failed" if name in failed else "done") for name in names]
        else:
            assert "status.csv: cannot be written" in said.err.splitlines()[-1]
        assert free or not table.exists()
        found = {
            path: data for path, data in files(disk / "out").items() if not path.startswith(".") and "/." not in path
        }
        assert found.items() <= whole.items()
        grow(disk, 2**26)
        assert main([*words, "--out", str(disk / "out")]) == 0
        assert files(disk / "out") == whole
        assert [name for name, _ in rows_of(disk / "out" / "status.csv")] == names


def test_a_damaged_table_is_refused_before_any_work(tmp_path):
    path = tmp_path / "status.csv"
    path.write_text(",".join(SceneStatus.__dataclass_fields__) + "\na,done,,,,1,," + "x" * 200_000 + "\n")
    with pytest.raises(OutputError, match=r"status.csv: .*expected the table of an archive: move it away"):
        StatusTable(Output("output", path, STATUS), [], False).__enter__()
