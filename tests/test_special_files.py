"""A pipe, a device or a folder in the place of each file that a command reads: refused at once, by its name."""

import os
import shutil
from pathlib import Path

import pytest

from forked import run_command
from test_every_command import TRAINING, words, world  # noqa: F401  a fixture

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


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize("name", READ)
def test_what_is_no_file_is_refused_at_once(name, kind, world, tmp_path, monkeypatch):  # noqa: F811  the fixture
    shutil.copytree(world, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    file, line = READ[name]
    if file.startswith("run/origin"):  # as a stage that has not ended
        shutil.rmtree("run/origin/bundle")
    special(kind, Path(file))
    ended = run_command(line.replace("OUT", str(tmp_path)).split(), limit=60)
    assert ended.fault(seconds=5) is None, ended
    if kind == "folder" and name in UNSEEN and ended.status == 0:
        return
    assert ended.status == (2 if "--config" in line else 1), ended
    assert Path(file).stem in ended.said or (Path(file).parent.name or file) in ended.said, ended.said
    assert kind == "folder" or any(word in ended.said for word in NO_FILE), ended.said
