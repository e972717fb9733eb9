"""Ctrl-C, SIGTERM and a closing terminal end every command soon, in a line, with nothing half-written."""

import os
import re
import signal
import subprocess
import sys
import time
from multiprocessing.connection import wait
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")

SECONDS = 5.0
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
READY = "import os\nos.write(1, b'.')\n"

COUNT = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
FOREVER = f"""
import os, sqlite3, threading
threading.Timer(0.1, os.write, (1, b".")).start()
sqlite3.connect(":memory:").execute({COUNT!r})
"""
"""A call that Python cannot interrupt."""

STATES = {
    "at work": f"{READY}while True: pass",
    "in a long call": FOREVER,
    "in a call that swallows it": f"""
import time
try:
    {READY.replace(chr(10), chr(10) + "    ")}
    time.sleep(1000)
except BaseException:
    time.sleep(1000)
""",
    "in a call that turns it into another error": f"""
import time
try:
    {READY.replace(chr(10), chr(10) + "    ")}
    time.sleep(1000)
except BaseException as error:
    raise ImportError("this library cannot be used") from error
""",
    "where errors are only printed": f"""
import time
class Closed:
    def __del__(self):
        {READY.replace(chr(10), chr(10) + "        ")}
        time.sleep(1000)
Closed()
time.sleep(1000)
""",
    "while threads are in long calls": f"""
import threading, time
threading.Thread(target=exec, args=({FOREVER!r},)).start()
time.sleep(1000)
""",
    "in a progress bar": f"""
import sys, time
from rich.console import Console
from rich.progress import track
for _ in track(range(10), console=Console(file=sys.stderr, force_terminal=True), transient=True):
    {READY.replace(chr(10), chr(10) + "    ")}
    time.sleep(1000)
""",
}


def start(words: list[str], **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "bitemporal", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        **options,
    )


def start_in_state(tmp_path: Path, code: str, **options) -> subprocess.Popen:
    """A command that runs the code, up to where it is ready."""
    module = tmp_path / "state.py"
    module.write_text(code)
    process = start(["models", "--import", str(module)], **options)
    assert process.stdout.read(1) == b"."
    return process


def end_by(process: subprocess.Popen, number: signal.Signals, group: bool = False) -> str:
    """Send the signal, and check how the process ends; what it says."""
    began = time.monotonic()
    os.killpg(process.pid, number) if group else process.send_signal(number)
    try:
        said = process.communicate(timeout=4 * SECONDS)[1].decode()
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == STATUS[number], said
    assert "Traceback" not in said and "Error" not in said and "Exception" not in said and "leaked" not in said, said
    assert time.monotonic() - began < 2 * SECONDS  # double, as tests share the machine
    return said


@pytest.mark.parametrize("state", STATES)
def test_a_command_ends_in_a_line_whatever_it_does(state, tmp_path):
    process = start_in_state(tmp_path, STATES[state])
    said = end_by(process, signal.SIGTERM)
    assert re.search(r"bitemporal( models)?: ended by SIGTERM$", said.splitlines()[-1])


@pytest.mark.parametrize(("number", "told"), [(signal.SIGINT, "interrupted"), (signal.SIGHUP, "ended by SIGHUP")])
def test_every_signal_has_its_status(number, told, tmp_path):
    said = end_by(start_in_state(tmp_path, STATES["at work"]), number)
    assert said == f"bitemporal models: {told}\n"


def test_a_second_signal_does_not_wait(tmp_path):
    code = f"from bitemporal.cli import signals\nsignals.GRACE = 1000\n{FOREVER}"
    process = start_in_state(tmp_path, code)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=4 * SECONDS)[1].decode()
    assert process.returncode in (130, 143)  # where both wait, the system gives the lower one first
    assert said.count("\n") == 1


def test_a_signal_that_is_ignored_at_the_start_stays_ignored(tmp_path):
    """As after `nohup`."""
    ignore = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    process = start_in_state(tmp_path, STATES["at work"], **ignore)
    process.send_signal(signal.SIGHUP)
    end_by(process, signal.SIGTERM)


@pytest.mark.parametrize("group", [True, False])
def test_processes_end_with_a_command(group, tmp_path):
    """They hold an end of a pipe; its reader sees the end of the last of them."""
    (tmp_path / "waiting.py").write_text(
        f"def hold(_):\n    import time\n    {READY.replace(chr(10), chr(10) + '    ')}\n    time.sleep(1000)\n"
    )
    code = "import bitemporal.workers, waiting\nlist(bitemporal.workers.map_in_processes(waiting.hold, [1, 2], 2, 1))"
    process = start_in_state(
        tmp_path, code, env=os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    )
    stdout = os.dup(process.stdout.fileno())
    end_by(process, signal.SIGINT, group)
    while wait([stdout], 4 * SECONDS):
        if not os.read(stdout, 1):
            break
    else:
        pytest.fail("a process stays")
    os.close(stdout)


@pytest.mark.parametrize("state", ["at work", "in a long call"])
def test_nothing_is_half_written(state, tmp_path):
    (tmp_path / "product").mkdir()
    (tmp_path / "product" / "old").touch()
    (tmp_path / "file").write_text("old")
    body = STATES[state].replace("\n", "\n    ")
    code = f"""
from bitemporal.outputs import locked, replacing, replacing_folder
from pathlib import Path
folder = Path({str(tmp_path)!r})
with locked(folder / "run"), replacing(folder / "file") as new, replacing_folder(folder / "product") as other:
    new.write_text("half")
    (other / "half").touch()
    {body}
"""
    process = start_in_state(tmp_path, code)
    end_by(process, signal.SIGTERM)
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"file", "product", "state.py"}
    assert (tmp_path / "file").read_text() == "old" and (tmp_path / "product" / "old").exists()
