"""Commands that a signal ends at any moment leave nothing half-written; run again, they end as if nothing had been."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bitemporal import create_model
from bitemporal.cli.main import main
from bitemporal.inference.bundle import save_bundle
from bitemporal.synthetic import write_scene

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")

SHORT = (
    "--model test_tinycd --data pairs --out out/run --max-steps 4 --validate-every 2 --batch-size 2 --crop-size 32 "
    "--workers 1"
)
COMMANDS = {
    "check": "data check pairs --workers 2",
    "stats": "data stats pairs -o out/partition.csv",
    "split": "data split unsplit -o out/splits.csv",
    "tiles": "data tiles before.tif after.tif -o out/tiles --size 64",
    "synth": "data synth out/pairs --pairs 12 --size 32 --workers 2",
    "predict": "predict pairs/test/A pairs/test/B --bundle bundle -o out/masks",
    "scene": "predict-scene before.tif after.tif --bundle bundle -o out/change.tif --probability out/p.tif --tile 64 "
    "--overlap 16",
    "archive": "predict-archive --manifest scenes.csv --bundle bundle --out out/archive --tile 64 --overlap 16 "
    "--workers 2",
    "evaluate": "evaluate bundle pairs -o out/result.json",
    "train": f"train {SHORT}",
    "distill": f"distill {SHORT} --teacher-steps 2 --student-steps 2",
    "report": "report trained -o out/report.html",
    "compare": "compare a.json b.json -o out/comparison.json",
    "models": "models --json",
}
RESUMED = {"scene", "archive", "train", "distill"}
"""Commands that go on where they were ended: what they keep for that is no product yet."""

VARIES = {"summary.json", "status.csv", "recipe.yaml", "last.ckpt", "report.html"}
"""Files that hold times, or names of folders."""


@pytest.fixture(scope="module")
def inputs(tiny_pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read."""
    root = tmp_path_factory.mktemp("inputs")
    shutil.copytree(tiny_pairs, root / "pairs")
    save_bundle(root / "bundle", create_model("test_tinycd"))
    write_scene(root / "before.tif", root / "after.tif", root / "label.tif", height=160, width=160)
    (root / "scenes.csv").write_text("id,before,after\n" + "".join(f"s{n},before.tif,after.tif\n" for n in range(3)))
    shutil.copytree(tiny_pairs / "train", root / "unsplit" / "train")
    for result in "ab":
        words = ["evaluate", f"{root}/bundle", f"{root}/pairs", "-o", f"{root}/{result}.json", "--name", result]
        assert main(words) == 0
    return root


def command(name: str, folder: Path) -> subprocess.Popen:
    words = COMMANDS[name].split()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        [sys.executable, "-m", "bitemporal", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def fresh(inputs: Path, folder: Path) -> Path:
    folder.mkdir()
    for path in inputs.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "out").mkdir()
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """All files below ``out``, and the bytes of those that hold no time."""
    files = (path for path in (folder / "out").rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): b"" if path.name in VARIES else path.read_bytes()
        for path in files
        if "tfevents" not in path.name  # a new one for each start
    }


def run(name: str, folder: Path) -> float:
    """Run a command to its end; its seconds."""
    began = time.monotonic()
    process = command(name, folder)
    said = process.communicate(timeout=300)[1].decode()
    assert process.returncode == 0, said
    return time.monotonic() - began


def group(leader: int) -> Iterator[int]:
    """Living processes of a group."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, process_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(process_group) == leader and state != "Z":
            yield int(stat.parent.name)


def end(name: str, folder: Path, number: signal.Signals, after: float, whole_group: bool) -> None:
    """Start a command, end it by a signal, and check how it ends."""
    process = command(name, folder)
    try:
        said = process.communicate(timeout=after)[1].decode()
    except subprocess.TimeoutExpired:
        began = time.monotonic()
        os.killpg(process.pid, number) if whole_group else process.send_signal(number)
        said = process.communicate(timeout=60)[1].decode()
        if number != signal.SIGKILL:
            assert time.monotonic() - began < 10  # twice what is promised, as tests share the machine
    # Python itself answers in its first moments
    assert process.returncode in (0, 128 + number, -number), said
    early = "site" in said or "<frozen" in said
    assert "Traceback" not in said or (early and number == signal.SIGINT and after < 0.5), said
    deadline = time.monotonic() + 20
    while left := [*group(process.pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def check_ended(name: str, inputs: Path, tmp_path: Path, moments: list[tuple[signal.Signals, float, bool]]) -> None:
    """End a command at moments, shares of the time that it takes; then run it again."""
    undisturbed = fresh(inputs, tmp_path / "undisturbed")
    seconds, expected = run(name, undisturbed), content(undisturbed)
    for turn, (number, share, whole_group) in enumerate(moments):
        folder = fresh(inputs, tmp_path / str(turn))
        end(name, folder, number, share * seconds, whole_group)
        found = content(folder)
        if name not in RESUMED:
            visible = {file: data for file, data in found.items() if "/." not in file}
            assert visible.items() <= expected.items(), (number, share)
            if number != signal.SIGKILL:
                assert visible == found, (number, share)
        if found == expected:  # the signal came at the very end
            continue
        run(name, folder)
        again = content(folder)
        assert again.keys() == expected.keys(), (number, share)
        assert [file for file in again if again[file] != expected[file]] == [], (number, share)


@pytest.mark.parametrize("name", ["synth", "evaluate", "train"])
def test_a_command_ends_by_a_signal(name, inputs, tmp_path):
    end(name, fresh(inputs, tmp_path / name), signal.SIGTERM, 2.0, whole_group=name == "train")


@pytest.mark.full
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_by_every_signal_at_any_moment(name, inputs, tmp_path):
    if name == "report":
        words = COMMANDS["train"].replace("out/run", str(inputs / "trained")).replace("pairs", str(inputs / "pairs"))
        assert main(words.split()) == 0
    chance = random.Random(os.environ.get("BITEMPORAL_SEED", "0") + name)
    signals = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL] * int(
        os.environ.get("BITEMPORAL_KILLS", "3")
    )
    check_ended(name, inputs, tmp_path, [(number, chance.random(), chance.random() < 0.5) for number in signals])
