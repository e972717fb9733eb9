"""One rule for what every command writes, tried with each of them in a folder of inputs and of other people's files.

A command that is new needs a line in ``COMMANDS_TRIED``.
"""

import hashlib
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bitemporal
from bitemporal import create_model, outputs
from bitemporal.cli.main import COMMANDS, main
from bitemporal.errors import OutputError
from bitemporal.inference import predict_files
from bitemporal.inference.bundle import read_description, save_bundle
from bitemporal.run.folder import RunFolder
from bitemporal.synthetic import write_scene
from remedies import follow_options
from test_files import full_disk

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
        Tried(f"predict placed/A placed/B --bundle {BUNDLE} -o out --probability maps"),
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
    for date, name in (("A", "before.tif"), ("B", "after.tif")):
        (folder / "placed" / date).mkdir(parents=True)
        shutil.copy(folder / name, folder / "placed" / date / "x.tif")
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


def test_a_recipe_of_the_users_is_never_rewritten(world, tmp_path, monkeypatch, capsys):
    folder = copied(world, tmp_path / "w", monkeypatch)
    (folder / "out").mkdir()
    own = "# mine\nmodel: test_tinycd\ndata: ../pairs\nmax_steps: 1\nbatch_size: 2\ncrop_size: 32\nworkers: 0\n"
    (folder / "out" / "recipe.yaml").write_text(own)
    standing = content(folder)
    command = "train --config out/recipe.yaml --out out".split()
    for words in (command, [*command, "--overwrite"]):
        assert status_of(words) == 1
        assert "your own recipes are never overwritten" in (said := capsys.readouterr().err)
        assert content(folder) == standing
    assert follow_options(said, command) == [["--out", "out-3"]]  # out-2 is a file of the test's
    assert content(folder)["out/recipe.yaml"] == standing["out/recipe.yaml"]


@pytest.mark.parametrize("added", ["", "# a comment of mine\n"])
def test_a_run_resumes_with_its_own_recipe(added, world, tmp_path, monkeypatch):
    folder = copied(world, tmp_path / "w", monkeypatch)
    recipe = folder / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text() + added)
    standing = content(folder)
    assert status_of("distill --config run/recipe.yaml --out run".split()) == 0
    after = content(folder)
    assert after.keys() == standing.keys() and after["run/recipe.yaml"] == standing["run/recipe.yaml"]


@pytest.mark.parametrize("data", ["out/origin", "out", "pairs"])
def test_a_run_never_writes_into_its_data(data, world, tmp_path, monkeypatch, capsys):
    folder = copied(world, tmp_path / "w", monkeypatch)
    place = "pairs/runs/x" if data == "pairs" else "out"
    if data != "pairs":
        shutil.copytree(folder / "pairs", folder / data)
    standing = content(folder)
    words = [*TRAINING.replace("--data pairs", f"--data {data}").split(), "--out", place]
    assert status_of(["train", *words, "--overwrite"]) == 1
    assert "never written to" in (said := capsys.readouterr().err)
    assert content(folder) == standing
    assert follow_options(said, ["train", *words])


@pytest.mark.parametrize(
    "words",
    [
        f"predict pairs/test/A pairs/test/B --bundle {BUNDLE} -o {BUNDLE}",
        f"predict pairs/test/A pairs/test/B --bundle {BUNDLE} -o out --probability {BUNDLE}/maps",
        f"predict a.png b.png --bundle {BUNDLE} -o {BUNDLE}/out.png",
    ],
)
def test_nothing_is_written_into_a_bundle_that_is_read(words, world, tmp_path, monkeypatch, capsys):
    folder = copied(world, tmp_path / "w", monkeypatch)
    standing = content(folder)
    assert status_of([*words.split(), "--overwrite"]) == 1
    assert "is read and never written to" in capsys.readouterr().err
    assert content(folder) == standing


@pytest.mark.parametrize("place", [".", "..", "./"])
@pytest.mark.parametrize(
    "words", [f"import {BUNDLE}/weights.safetensors --model test_tinycd -o", f"train {TRAINING} --out"]
)
def test_the_current_folder_as_an_output_is_refused_in_words(words, place, world, tmp_path, monkeypatch, capsys):
    folder = copied(world, tmp_path / "w", monkeypatch)
    (folder / "recipe.yaml").write_text("# mine\nmodel: test_fc\n")
    (tmp_path / "recipe.yaml").write_text("# mine\nmodel: test_fc\n")
    standing = content(tmp_path)
    assert status_of([*words.split(), place]) == 1
    assert content(tmp_path) == standing
    assert follow_options(capsys.readouterr().err, [*words.split(), place])


def test_a_run_that_is_written_is_left_alone_by_others(world, tmp_path, monkeypatch, capsys):
    folder = copied(world, tmp_path / "w", monkeypatch)
    standing = content(folder)
    with RunFolder("run").locked(), ThreadPoolExecutor(1) as other:
        for words in (
            f"distill {TRAINING} --out run",
            "distill --config run/recipe.yaml --out run",
            f"train {TRAINING} --out run",
            f"evaluate {BUNDLE} pairs -o run/scores/test/student.json",
        ):
            assert other.submit(status_of, words.split()).result() == 1, words
            assert "another run is writing it" in capsys.readouterr().err
    assert content(folder) == standing


def killed(words: list[str], at: int) -> bool:
    """Run a command in a copy of this process that is killed when it has made so many temporary files."""
    process = os.fork()
    if process == 0:
        make, left = outputs._make_temporary, iter(range(at))

        def make_and_die(*arguments):
            made = make(*arguments)
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return made

        outputs._make_temporary = make_and_die
        try:
            status_of(words)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("words", "points"),
    [
        ("data stats pairs -o out", (0, 1)),
        ("data split flat -o out.csv", (0,)),
        ("data synth out --pairs 3 --size 32 --workers 1", (0,)),
        ("data synth out --scene 64", (0, 1, 3)),
        (f"train {TRAINING} --out out", (0, 1, 2, 3, 4)),
        (f"predict pairs/test/A pairs/test/B --bundle {BUNDLE} -o out --probability maps", (0, 1)),
        (f"evaluate {BUNDLE} pairs -o out.json", (0, 1)),
        ("compare run/scores/test/control.json run/scores/test/student.json -o out.json", (0,)),
        ("report run -o out.html", (0,)),
        (f"import {BUNDLE}/weights.safetensors --model test_tinycd -o out", (0, 1, 2)),
    ],
)
def test_what_a_killed_command_leaves_is_gone_after_the_next_run(words, points, world, tmp_path, monkeypatch, capsys):
    alone = copied(world, tmp_path / "alone", monkeypatch)
    assert status_of(words.split()) == 0, capsys.readouterr().err
    folder = copied(world, tmp_path / "w", monkeypatch)
    for point in points:
        assert killed(words.split(), point), f"it makes no more than {point} temporary files"
        assert {*content(folder)} - {*content(alone)}, "it leaves something"
    assert status_of(words.split()) == 0, capsys.readouterr().err
    assert content(folder).keys() == content(alone).keys()


def test_threads_may_predict_the_same_files_into_one_folder(world, tmp_path, monkeypatch):
    folder = copied(world, tmp_path / "w", monkeypatch)
    for date, image in (("A", "before.tif"), ("B", "after.tif")):
        shutil.copytree(folder / "pairs" / "test" / date, folder / date)
        for number in range(4):
            shutil.copy(folder / image, folder / date / f"scene{number}.tif")
    expected = predict_files(bitemporal.load(BUNDLE, "cpu"), "A", "B", "alone")

    def predict(_: int) -> int:
        return len(predict_files(bitemporal.load(BUNDLE, "cpu"), "A", "B", "out", probability="maps").masks)

    with ThreadPoolExecutor(4) as pool:
        assert {*pool.map(predict, range(8))} == {len(expected.masks)}
    assert content(folder / "out") == content(folder / "alone")


def test_a_folder_with_the_names_of_a_bundle_is_not_replaced_unasked(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "bundle.json").write_text('{"apples": 3}')
    (folder / "weights.safetensors").write_bytes(b"mine")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(OutputError, match="is not a bundle"):
        save_bundle(folder, create_model("test_tinycd"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    save_bundle(folder, create_model("test_tinycd"), overwrite=True)
    assert read_description(folder)["model"] == "test_tinycd"


NOT_FILLED = {
    "data download": "asks a server first",
    "reproduce": "times steps at full size first",
    "predict-archive": "the limit that stands in for a full disk holds for the memory that its processes share, too",
}
"""Commands that the test of full disks leaves out, and why."""


@pytest.mark.parametrize("tried", [case for case in TRIED if not case.id.startswith(tuple(NOT_FILLED))])
def test_a_full_disk_ends_a_command_in_a_line_and_changes_nothing_else(tried, world, tmp_path, monkeypatch, capsys):
    folder = copied(world, tmp_path / "w", monkeypatch)
    standing = content(folder)
    for free in (0, 20):
        with full_disk(free):
            status = status_of(tried.words.split())
        said = capsys.readouterr().err
        assert status == 1 and "cannot be written" in said.splitlines()[-1] and "Traceback" not in said, said
        after = content(folder)
        assert {name: after[name] for name in standing} == standing
    assert status_of(tried.words.split()) == 0, capsys.readouterr().err


LOCKED = {
    "data synth out --pairs 3 --size 32 --workers 1": "out",
    "data synth out --scene 64": "out",
    f"predict-scene before.tif after.tif --bundle {BUNDLE} {MAP}": "out.gpkg",
    f"threshold probability.tif {MAP} --threshold 0.4": "out.gpkg",
    f"evaluate {BUNDLE} pairs -o out.json": "out.json",
    f"import {BUNDLE}/weights.safetensors --model test_tinycd -o out": "out",
}


@pytest.mark.parametrize("words", LOCKED)
def test_an_output_that_another_run_is_writing_is_left_alone(words, world, tmp_path, monkeypatch, capsys):
    folder = copied(world, tmp_path / "w", monkeypatch)
    standing = content(folder)
    with outputs.locked(folder / LOCKED[words]), ThreadPoolExecutor(1) as other:
        assert other.submit(status_of, words.split()).result() == 1
    assert "another run is writing it" in capsys.readouterr().err
    assert content(folder) == standing
