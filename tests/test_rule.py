"""One rule for what every command writes, tried with each of them in a folder of inputs and of other people's files.

A command that is new needs a line in ``COMMANDS_TRIED``.
"""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bitemporal.cli.main import COMMANDS, main
from bitemporal.synthetic import write_scene

TRAINING = "--data pairs --max-steps 1 --batch-size 2 --crop-size 32 --workers 0 --model test_tinycd"
BUNDLE = "run/student/bundle"
MAP = "-o out.tif --polygons out.gpkg"


@dataclass(frozen=True)
class Tried:
    """A command in the folder of the test.

    Attributes:
        words: Its words; none of them is an absolute path.
        outputs: What it writes; found out by a run when ``None``.
        overwrites: Whether it ends well with --overwrite where all its outputs are files of someone else.
        has_overwrite: Whether it has that option.
        again: Whether it replaces what it has written; else it reads that the next time.
    """

    words: str
    outputs: tuple[str, ...] | None = None
    overwrites: bool = True
    has_overwrite: bool = True
    again: bool = True


READS_ALONE = {"data check": "data check pairs", "models": "models", "completion": "completion bash"}
"""Commands that write nothing."""

RUN_FILES = ("out/partition.csv", "out/origin/metrics.csv", "out/scores/test/student.json", "out/recipe.yaml")

COMMANDS_TRIED: dict[str, list[Tried]] = {
    "data stats": [Tried("data stats pairs -o out")],
    "data split": [
        Tried("data split flat -o out.csv"),
        Tried("data split flat -o flat/splits.csv", overwrites=False, again=False),
    ],
    "data download": [
        Tried("data download jl1-cd -o out", ("out/a.txt", "out.download/a.txt"), has_overwrite=False),
    ],
    "data synth": [
        Tried("data synth out --pairs 3 --size 32 --workers 1"),
        Tried("data synth out --scene 64"),
    ],
    "train": [Tried(f"train {TRAINING} --out out", overwrites=False)],
    "distill": [Tried(f"distill {TRAINING} --out out", overwrites=False)],
    "reproduce": [Tried("reproduce jl1-cd --model tinycd --data pairs --out out", RUN_FILES, overwrites=False)],
    "predict": [
        Tried(f"predict pairs/test/A pairs/test/B --bundle {BUNDLE} -o out --probability maps"),
        Tried(f"predict a.png b.png --bundle {BUNDLE} -o out.png --probability maps.png"),
        Tried(f"predict before.tif after.tif --bundle {BUNDLE} -o out.png"),
    ],
    "predict-scene": [
        Tried(f"predict-scene before.tif after.tif --bundle {BUNDLE} {MAP} --probability maps.tif --summary out.json")
    ],
    "predict-archive": [
        Tried(f"predict-archive --manifest scenes.csv --bundle {BUNDLE} -o out --polygons c.gpkg --merge all.gpkg"),
    ],
    "threshold": [Tried(f"threshold probability.tif {MAP} --threshold 0.4")],
    "data tiles": [
        Tried("data tiles before.tif after.tif --label label.tif -o out --size 32", again=False, has_overwrite=False)
    ],
    "evaluate": [Tried(f"evaluate {BUNDLE} pairs -o out.json")],
    "compare": [Tried("compare run/scores/test/control.json run/scores/test/student.json -o out.json")],
    "report": [Tried("report run -o out.html"), Tried("report run")],
    "import": [Tried(f"import {BUNDLE}/weights.safetensors --model test_tinycd -o out")],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A folder of inputs, and of neighbours that are no concern of any command."""
    folder = tmp_path_factory.mktemp("world")
    home = Path.cwd()
    os.chdir(folder)
    try:
        assert main("data synth pairs --pairs 9 --size 32 --workers 1 --quiet".split()) == 0
        assert main(f"distill {TRAINING} --out run --quiet".split()) == 0
    finally:
        os.chdir(home)
    shutil.copytree(folder / "pairs" / "train", folder / "flat")
    write_scene(folder / "before.tif", folder / "after.tif", folder / "label.tif", height=64, width=64)
    (folder / "scenes.csv").write_text("id,before,after\nx,before.tif,after.tif\n")
    scene = [str(folder / name) for name in ("before.tif", "after.tif")]
    made = ["-o", str(folder / "change.tif"), "--probability", str(folder / "probability.tif")]
    assert main(["predict-scene", *scene, "--bundle", str(folder / BUNDLE), *made, "--quiet"]) == 0
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / name)
    for name in ("notes.txt", ".hidden", ".out.swp", ".out.json.12ab.bak", "out.aux.xml", "out-2", "pairs/.DS_Store"):
        (folder / name).write_text(f"mine, {name}")
    return folder


def content(folder: Path) -> dict[str, str]:
    """The digest of every file, and the names of the folders."""
    paths = [path for path in sorted(folder.rglob("*")) if "tensorboard" not in path.parts]  # new names each time
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in paths
    }


def copied(world: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(world, target)
    monkeypatch.chdir(target)
    return target


def foreign(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"mine, {name}")


def status_of(words: list[str]) -> int:
    try:
        return main([*words, "--quiet"])
    except SystemExit as ended:
        return int(str(ended.code))


TRIED = [pytest.param(tried, id=tried.words) for cases in COMMANDS_TRIED.values() for tried in cases]


def test_every_command_is_tried():
    assert {*COMMANDS_TRIED} | {*READS_ALONE} == {*COMMANDS}
    assert all(
        tried.words.startswith(f"{command} ") and cases for command, cases in COMMANDS_TRIED.items() for tried in cases
    )


@pytest.mark.parametrize("command", READS_ALONE.values())
def test_a_command_that_only_reads_changes_nothing(command, world, tmp_path, monkeypatch):
    folder = copied(world, tmp_path / "w", monkeypatch)
    before = content(folder)
    assert status_of(command.split()) == 0
    assert content(folder) == before


@pytest.mark.parametrize("tried", TRIED)
def test_every_command_keeps_what_it_did_not_write(tried, world, tmp_path, monkeypatch, capsys):
    words, before = tried.words.split(), content(world)
    outputs = tried.outputs
    if outputs is None:
        folder = copied(world, tmp_path / "alone", monkeypatch)
        if words == ["report", "run"]:
            (folder / "run" / "report.html").unlink(missing_ok=True)
        assert status_of(words) == 0, capsys.readouterr().err
        after = content(folder)
        assert {name: after[name] for name in before} == before
        outputs = tuple(name for name in after.keys() - before.keys() if after[name] != "folder")
        assert status_of(words) == (0 if tried.again else 1), "an earlier output is replaced, or the same run is found"
        assert content(folder).keys() == after.keys()
    assert outputs
    shutil.rmtree(tmp_path / "alone", ignore_errors=True)
    # a file of someone else in the place of each output, one at a time
    for number, name in enumerate(sorted(outputs)):
        folder = copied(world, tmp_path / str(number), monkeypatch)
        foreign(folder, [name])
        standing = content(folder)
        assert status_of(words) == 1, name
        assert name.partition("/")[0] in capsys.readouterr().err
        assert content(folder) == standing, name
        shutil.rmtree(folder)
    if not tried.has_overwrite:
        return
    # all of them, and the user says so; and neighbours in the folders of the outputs
    folder = copied(world, tmp_path / "told", monkeypatch)
    foreign(folder, list(outputs))
    standing = content(folder)
    assert status_of([*words, "--overwrite"]) == (0 if tried.overwrites else 1), capsys.readouterr().err
    after = content(folder)
    assert {name: after[name] for name in standing if name not in outputs} == {
        name: digest for name, digest in standing.items() if name not in outputs
    }
    assert after.keys() == standing.keys()
    assert not tried.overwrites or all(after[name] != standing[name] for name in outputs)
