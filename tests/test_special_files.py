"""A pipe, a device or a folder in the place of each file that a command reads: refused at once, by its name."""

import csv
import os
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from bitemporal.datasets.unpack import safe_extract
from bitemporal.errors import DownloadError
from forked import run_command
from test_every_command import TRAINING, world  # noqa: F401  a fixture

SCENE = "predict-scene before.tif after.tif --bundle bundle -o OUT/change.tif --device cpu"
TRAIN = f"train --model test_fc --out run {TRAINING}"
READ = {
    "manifest": ("scenes.csv", "predict-archive --manifest scenes.csv --bundle bundle -o OUT/archive --device cpu"),
    "items": ("scenes.json", "predict-archive --manifest scenes.json --bundle bundle -o OUT/archive --device cpu"),
    "table": ("scenes.parquet", "predict-archive --manifest scenes.parquet --bundle bundle -o OUT/archive"),
    "scene": ("before.tif", SCENE),
    "area": ("area.geojson", f"{SCENE} --within area.geojson"),
    "areas": ("area.gpkg", f"{SCENE} --within area.gpkg"),
    "mask": ("mask.tif", f"{SCENE} --mask mask.tif"),
    "image": ("pairs/train/A/pair_00.png", "data check pairs"),
    "label": ("pairs/train/label/pair_00.png", "data stats pairs -o OUT/stats"),
    "trained image": ("pairs/train/B/pair_00.png", TRAIN.replace("--out run", "--out OUT/run")),
    "predicted image": ("pairs/test/A/pair_00.png", "predict pairs/test/A pairs/test/B --bundle bundle -o OUT/masks"),
    "one image": ("one.png", "predict one.png one.png --bundle bundle -o OUT/mask.png"),
    "list": ("pairs/train/train.txt", "data check pairs/train"),
    "table of splits": ("pairs/train/splits.csv", "data check pairs/train"),
    "stated list": ("lists.csv", "data split pairs -o OUT/splits.csv --splits lists.csv"),
    "options": ("options.yaml", "data check --config options.yaml"),
    "recipe": ("options.yaml", "distill --config options.yaml"),
    "description": ("bundle/bundle.json", SCENE),
    "weights": ("bundle/weights.safetensors", SCENE),
    "checkpoint": ("bundle/weights.safetensors", "import bundle/weights.safetensors --model test_fc -o OUT/imported"),
    "pickled checkpoint": ("weights.pth", "import weights.pth --model test_fc -o OUT/imported"),
    "probability": ("chances.tif", "threshold chances.tif -o OUT/change.tif --threshold 0.4"),
    "evaluated raster": ("label.tif", "evaluate chances.tif label.tif -o OUT/scores.json --block 32"),
    "result": ("a.json", "compare a.json b.json"),
    "counts": ("a.confusions.csv", "compare a.json b.json"),
    "recipe of a run": ("run/recipe.yaml", "report run -o OUT/report.html"),
    "recipe of a run to resume": ("run/recipe.yaml", TRAIN),
    "partition of a run": ("run/partition.csv", "report run -o OUT/report.html"),
    "label of tiles": ("label.tif", "data tiles before.tif after.tif --label label.tif -o OUT/tiles --size 32"),
    "division of a run": ("run/splits.csv", TRAIN.replace("pairs", "pairs/train")),
    "curve of a run": ("run/origin/metrics.csv", "report run -o OUT/report.html"),
    "state of a run": ("run/origin/last.ckpt", TRAIN),
}
"""A file that a command reads, and the words of the command."""

UNSEEN = {"list", "table of splits", "label", "curve of a run"}
"""Files without which a command may do its work, where a folder stands in their place."""

NO_FILE = ("a pipe", "a device", "folder", "directory", "not a regular file", "has no recipe.yaml")


def special(kind: str, path: Path) -> None:
    """Put something that is no file in the place of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case _:
            path.mkdir()


@pytest.fixture
def folder(world, tmp_path, monkeypatch):  # noqa: F811  the fixture
    """A copy of the world, which is the current folder."""
    shutil.copytree(world, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    return tmp_path / "w"


def command_of(name, folder):
    """The file and the words of a command that reads it; a stage that would resume has not ended."""
    file, line = READ[name]
    if name == "state of a run":
        shutil.rmtree("run/origin/bundle")
    return Path(file), line.replace("OUT", str(folder.parent)).split()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize("name", READ)
def test_what_is_no_file_is_refused_at_once(name, kind, folder):
    file, words = command_of(name, folder)
    special(kind, file)
    ended = run_command(words)
    assert ended.fault(seconds=5) is None, ended
    if kind == "folder" and name in UNSEEN and ended.status == 0:
        return
    assert ended.status == (2 if "--config" in words else 1), ended
    assert file.stem in ended.said or (file.parent.name or str(file)) in ended.said, ended.said
    assert kind == "folder" or any(word in ended.said for word in NO_FILE), ended.said


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="rights are given up as Linux has them")
@pytest.mark.parametrize("name", READ)
def test_a_file_that_may_not_be_read_is_named(name, folder):
    file, words = command_of(name, folder)
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        file.write_text("x")
    file.chmod(0)
    ended = run_command(words, rights=False)
    assert ended.fault(seconds=5) is None, ended
    assert ended.status == (2 if "--config" in words else 1), ended
    assert file.stem in ended.said or (file.parent.name or str(file)) in ended.said, ended.said


@pytest.mark.parametrize("name", [name for name, (file, _) in READ.items() if file.endswith((".csv", ".txt"))])
def test_a_field_that_is_longer_than_csv_allows_is_refused(name, folder):
    file, words = command_of(name, folder)
    text = file.read_text() if file.exists() else "split,stem\n"
    file.write_text(text + "x" * (csv.field_size_limit() + 1) + ",y\n")
    ended = run_command(words)
    assert ended.fault(seconds=5) is None, ended
    assert ended.status == 1 and file.name in ended.said, ended
    assert len(ended.said) < 3000


def test_a_checkpoint_of_another_network_and_one_without_its_weights_are_refused(folder, tmp_path):
    _, words = command_of("state of a run", folder)
    other = [word.replace("test_fc", "test_tinycd") for word in words]
    other[other.index("run")] = "other"
    assert run_command(other).status == 0
    shutil.copy("other/origin/last.ckpt", "run/origin/last.ckpt")
    kept = Path("run/origin/last.ckpt").read_bytes()
    ended = run_command(words)
    assert ended.fault() is None and ended.status == 1 and "last.ckpt" in ended.said, ended
    assert Path("run/origin/last.ckpt").read_bytes() == kept
    Path("run/origin/last.ckpt").unlink()  # as the error says
    assert run_command(words).status == 0
    shutil.rmtree("run/origin/bundle")
    Path("run/origin/best.safetensors").unlink(missing_ok=True)
    ended = run_command(words)
    assert ended.fault() is None and ended.status == 1 and "best" in ended.said, ended


def test_folders_that_lie_very_deep_are_refused(folder, tmp_path):
    deep = "a/" * 2000
    Path("deep.csv").write_text(f"id,before,after\n{deep}x,{deep}b.tif,after.tif\n")
    Path("deep.json").write_text(
        '{"type": "FeatureCollection", "features": ['
        + ", ".join(
            f'{{"id": "{n}", "properties": {{"datetime": "20{n}0-01-01", "tile": "{deep}"}}, '
            f'"assets": {{"visual": {{"href": "{deep}b.tif"}}}}}}'
            for n in (1, 2)
        )
        + "]}"
    )
    for name in ("deep.csv", "deep.json"):
        words = f"predict-archive --manifest {name} --bundle bundle -o {tmp_path}/{name}.out --device cpu".split()
        ended = run_command(words)
        assert ended.fault() is None and ended.status == 1, ended
    with zipfile.ZipFile("deep.zip", "w") as archive:
        archive.writestr(f"{deep}x", "x")
    with tarfile.open("deep.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(f"{deep}x"))
    for name in ("deep.zip", "deep.tar"):
        with pytest.raises(DownloadError, match="100 folders deep"):
            safe_extract(name, "unpacked")
        assert not Path("unpacked").exists()


def test_names_that_are_markup_are_names(folder, tmp_path):
    """Rich, which prints tables and progress, takes ``[/b]``, as of a folder called ``[``, for the end of bold text."""
    for split in ("train", "val", "test"):
        for file in Path("pairs", split).rglob("*.png"):
            file.rename(file.with_name(f"[b]{file.name}"))
    Path("[").mkdir()
    data = Path("pairs").rename("[/red]")
    shutil.copytree("bundle", "[bold]")
    for line in (
        f"data check {data}",
        f"data stats {data} -o [/i]stats",
        f"data split {data}/train -o [/i]splits.csv",
        f"train --model test_fc --out [/b]run {TRAINING.replace('pairs', str(data))}",
        f"predict {data}/test/A {data}/test/B --bundle [bold] -o [/u]masks --device cpu",
        f"evaluate [bold] {data} -o [/u]scores.json --name [/b]name --device cpu",
        "evaluate [/u]masks [/red] -o [/u]others.json --name [b]name",
        "compare [/u]scores.json [/u]others.json -o [/u]comparison.json",
        "report [/b]run -o [/b]report.html",
        "data check [/red] --splits [/b]none.csv",
    ):
        ended = run_command(line.split())
        assert ended.fault(seconds=30) is None, (line, ended)
        assert ended.status == ("none.csv" in line), (line, ended)
    assert "[/b]name" in run_command("compare [/u]scores.json [/u]others.json".split()).said
