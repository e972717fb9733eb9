"""Commands that a signal ends at any moment leave nothing half-written; run again, they end as if nothing had been."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_runs import COMMANDS, Run, content, fresh, make_inputs, start
from small_disk import grow, small_disk

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="signals, and processes that are waited for")

RESUMED = {"scene", "archive", "train", "distill", "reproduce", "download"}
"""Commands that resume where they were ended: what they keep for that is no product yet."""


@pytest.fixture(scope="module")
def inputs(tiny_pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read."""
    return make_inputs(tiny_pairs, tmp_path_factory.mktemp("inputs"))


def run(name: str, folder: Path) -> float:
    """Run a command to its end; its seconds."""
    began = time.monotonic()
    process = start(name, folder)
    code = process.end(300)
    assert code == 0, (code, process.said())
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


def check_end(process: Run, name: str, number: signal.Signals, after: float, whole_group: bool) -> int:
    """End a command by a signal, and check how it ends; gives its status."""
    code = process.end(after)
    if code is None:
        began = time.monotonic()
        (os.killpg if whole_group else os.kill)(process.process, number)
        code = process.end(60)
        assert code is not None, "it does not end"
        if number != signal.SIGKILL:
            assert time.monotonic() - began < 10  # twice what is promised, as tests share the machine
    # at its very end a command is ended by the signal itself, with nothing left to do
    assert code in (0, 128 + number, -number), (code, process.said())
    assert "Traceback" not in process.said(), process.said()
    began = time.monotonic()
    while left := [*group(process.process)]:
        assert time.monotonic() < began + 20, left  # four times what is promised
        time.sleep(0.05)
    print(f"{name} {number.name} {code} {time.monotonic() - began:.2f}", flush=True)
    return code


def check_ended(name: str, inputs: Path, tmp_path: Path, moments: list[tuple[signal.Signals, float, bool]]) -> None:
    """End a command at moments, shares of the time that it takes; then run it again."""
    undisturbed = fresh(inputs, tmp_path / "undisturbed")
    seconds, expected = run(name, undisturbed), content(undisturbed)
    for turn, (number, share, whole_group) in enumerate(moments):
        folder = fresh(inputs, tmp_path / str(turn))
        check_end(start(name, folder), name, number, share * seconds, whole_group)
        found = content(folder)
        if name not in RESUMED:
            visible = {file: data for file, data in found.items() if "/." not in file}
            assert visible.items() <= expected.items(), (number, share)
            if number != signal.SIGKILL:
                assert visible == found, (number, share)
        if found == expected:  # the signal came at the very end
            continue
        if name == "tiles" and (folder / "out" / "tiles").exists():
            assert visible == expected  # whole, and not made again
            continue
        run(name, folder)
        again = content(folder)
        assert again.keys() == expected.keys(), (number, share)
        assert [file for file in again if again[file] != expected[file]] == [], (number, share)


@pytest.mark.parametrize("name", ["synth", "evaluate", "train"])
def test_a_command_ends_by_a_signal(name, inputs, tmp_path):
    """A new process, which the signal meets while it imports."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bitemporal", *COMMANDS[name].split()],
        cwd=fresh(inputs, tmp_path / name),
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.DEVNULL,
        stderr=(tmp_path / "errors").open("w"),
        start_new_session=True,
    )
    check_end(Run(process.pid, tmp_path / "errors"), name, signal.SIGTERM, 2.0, whole_group=name == "train")


@pytest.mark.full
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_by_every_signal_at_any_moment(name, inputs, tmp_path):
    chance = random.Random(os.environ.get("BITEMPORAL_SEED", "0") + name)
    signals = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL] * int(
        os.environ.get("BITEMPORAL_KILLS", "3")
    )
    check_ended(name, inputs, tmp_path, [(number, chance.random(), chance.random() < 0.5) for number in signals])


@pytest.mark.full
@pytest.mark.parametrize("free", [20_000, 400_000])
@pytest.mark.parametrize("name", ["reproduce", "download"])
def test_a_command_on_a_full_disk_ends_in_a_line_and_resumes_with_space(name, free, inputs, tmp_path):
    undisturbed, folder = fresh(inputs, tmp_path / "undisturbed"), fresh(inputs, tmp_path / "small")
    run(name, undisturbed)
    expected = content(undisturbed)
    free = min(free, sum(map(len, expected.values())) // 2)
    with small_disk(folder / "out", free):
        process = start(name, folder)
        code, said = process.end(300), process.said()
        assert code == 1 and "Traceback" not in said, said
        assert "No space left" in said.splitlines()[-1], said
        grow(folder / "out", 2**28)
        run(name, folder)
        assert content(folder) == expected
