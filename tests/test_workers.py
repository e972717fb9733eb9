"""Other processes: what they do comes in order, and one that dies or hangs ends with an error, not for ever."""

import multiprocessing
import os
import signal
import subprocess
import sys
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from bitemporal import workers
from bitemporal.errors import OptionError
from bitemporal.pairs import PairFolder, check_pairs
from bitemporal.run.recipe import TrainRecipe
from bitemporal.run.stages import train
from bitemporal.workers import Process, Watch, check_workers, cpus, map_in_processes, sign_of_life

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the state of a process is read from /proc")


def children_are_stopped() -> bool:
    """Whether all processes that this one has started are frozen (proc(5): T is stopped by a signal)."""
    children = multiprocessing.active_children()
    states = [Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] for child in children]
    return bool(states) and set(states) == {"T"}


def assert_all_end() -> None:
    """No process is left that this one would wait for when it ends."""
    for child in multiprocessing.active_children():
        assert wait([child.sentinel], 30)  # `is_alive` may be wrong where the pool's thread has fetched its status


@pytest.fixture
def impatient(monkeypatch):
    """Processes hang as soon as all of them are stopped."""
    monkeypatch.setattr(workers, "SPAN", 0.05)
    monkeypatch.setattr(Watch, "is_over", lambda _: children_are_stopped())


def test_results_come_in_order():
    assert list(map_in_processes(abs, range(-50, 50), 2, 8)) == [*range(50, 0, -1), *range(50)]


@linux
def test_processes_that_hang_are_ended_with_the_remedy(impatient):
    with pytest.raises(OptionError, match=r"workers: no sign of life for .* minutes from 2 processes.*drive.*again"):
        list(map_in_processes(signal.raise_signal, [signal.SIGSTOP] * 2, 2, 1))
    assert_all_end()


def test_a_process_that_is_killed_is_an_error_with_the_remedy():
    with pytest.raises(OptionError, match=r"workers: one of 2 processes died.*memory; use fewer .workers=1, --workers"):
        list(map_in_processes(signal.raise_signal, [signal.SIGKILL] * 2, 2, 1))


@pytest.mark.parametrize("error", [OSError, TimeoutError])
def test_an_error_of_the_function_is_raised_as_it_is(error):
    missing = "/nowhere/at/all"
    if error is OSError:
        with pytest.raises(FileNotFoundError, match=missing):
            list(map_in_processes(Path.stat, [Path(missing)] * 2, 2, 1))
    else:
        with pytest.raises(TimeoutError, match="of a drive"):
            list(map_in_processes(raise_timeout, [1, 2], 2, 1))


def raise_timeout(_: int) -> None:
    raise TimeoutError("of a drive")


def test_no_process_stays_when_its_results_are_no_longer_wanted():
    results = map_in_processes(abs, range(100), 2, 1)
    assert next(results) == 0
    results.close()
    assert_all_end()


def test_silence_is_counted_in_spans(monkeypatch):
    clock, signs = [0.0], [0]
    monkeypatch.setattr(workers.time, "monotonic", lambda: clock[0])
    watch = Watch(lambda: signs[0])

    def after(seconds: float) -> bool:
        clock[0] += seconds
        return watch.is_over()

    assert not any(after(workers.SPAN) for _ in range(workers.SPANS - 1))
    assert after(workers.SPAN)
    signs[0] += 1
    assert not after(workers.SPAN)  # it lives
    assert not any(after(workers.SPAN) for _ in range(workers.SPANS - 1))
    assert after(workers.SPAN)
    watch = Watch(lambda: 0)
    assert not after(1000 * workers.SPAN)  # suspended together with this program, for hours
    assert not any(after(workers.SPAN / 100) for _ in range(10 * workers.SPANS))  # asked often: no span has passed


def give_signs(count: int) -> int:
    for _ in range(count):
        sign_of_life()
    return count


def test_a_process_tells_of_its_life():
    process = Process("do without", int)
    try:
        assert process.submit(give_signs, 3).result() == 3
        assert process.signs() == 3
        sign_of_life()  # in this process, which no one watches
        assert process.signs() == 3
    finally:
        process.stop()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_process_is_stopped_while_it_works():
    process = Process("do without", int)
    frozen = process.submit(signal.raise_signal, signal.SIGSTOP)
    process.submit(abs, 1)
    while not multiprocessing.active_children():  # it starts with its first work
        pass
    process.stop()
    with pytest.raises(BaseException):  # noqa: B017  broken or cancelled, as the moment decides
        frozen.result(60)


STARTERS = {
    "pool": """for _ in map_in_processes(hold, [write] * 2, 2, 1): pass""",
    "process of an archive": """Process("", int).submit(hold, write).result()""",
    "training processes that still import": """with errors_of_started_processes(): spawn(print, (Slow(),))""",
    "loading processes": """next(iter(Loader([write] * 2, [[0], [1]], hold, 2)))""",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a pipe that processes inherit")
@pytest.mark.parametrize("starter", STARTERS)
def test_processes_end_with_the_one_that_started_them(starter, tmp_path):
    """Every process holds an end of one pipe; its reader sees the end of the last of them."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time\n"
        "from torch.multiprocessing.spawn import spawn\n"
        "from bitemporal.run.loading import Loader\n"
        "from bitemporal.run.processes import errors_of_started_processes\n"
        "from bitemporal.workers import Process, map_in_processes\n"
        f"write = {str(pipe)!r}\n"
        "def hold(path):\n"
        "    end = os.open(path if isinstance(path, str) else path[0], os.O_WRONLY)\n"
        "    os.write(end, b'.')\n"
        "    time.sleep(1000)\n"
        "class Slow:\n"  # as a library that takes long to import
        "    def __reduce__(self): return hold, (write,)\n"
        f"if __name__ == '__main__':\n    {STARTERS[starter]}"
    )
    with subprocess.Popen([sys.executable, script]) as process, pipe.open("rb", buffering=0) as read:
        try:
            assert read.read(1) == b"."
        finally:
            process.kill()
        assert wait([read], 30)
        while read.read(1):
            assert wait([read], 30)


def test_a_library_call_starts_no_process_unasked(tmp_path, tiny_pairs, monkeypatch):
    """The script has no guard: a process that it started would run it again, and die of it."""
    from bitemporal.pairs import check

    monkeypatch.setattr(multiprocessing.Process, "start", lambda _: pytest.fail("a process"))
    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "start", lambda _: pytest.fail("a process"))
    monkeypatch.setattr(multiprocessing.get_context("fork").Process, "start", lambda _: pytest.fail("a process"))
    monkeypatch.setattr(check, "_SMALL", 1)
    check_pairs(PairFolder(tiny_pairs))
    recipe = TrainRecipe(
        model="test_tinycd", data=str(tiny_pairs), out=str(tmp_path), max_steps=1, batch_size=1, crop_size=32
    )
    train(recipe)
    assert recipe.of_command().workers == 2


def test_a_command_takes_processes_for_a_large_folder(tiny_pairs, monkeypatch):
    from bitemporal.pairs import check

    monkeypatch.setattr(check, "_SMALL", 1)
    monkeypatch.setattr(check, "cpus", lambda: 3)
    monkeypatch.setattr(workers, "_unasked", True)
    taken = []
    monkeypatch.setattr(
        check, "map_in_processes", lambda read, pairs, count, _: taken.append(count) or map(read, pairs)
    )
    check_pairs(PairFolder(tiny_pairs))
    assert taken == [3]


def test_more_processes_than_can_be_meant_are_refused_before_any_work(monkeypatch):
    check_workers(32)
    with pytest.raises(OptionError, match=rf"found 100000, expected 1 to .* processes.*use --workers {cpus()}"):
        check_workers(100_000)
    with pytest.raises(OptionError, match="found 0, expected 1 to"):
        check_workers(0)
    check_workers(0, least=0)
    monkeypatch.setattr(workers, "cpus", lambda: 64)
    check_workers(256)
    with pytest.raises(OptionError, match="1 to 256"):
        check_workers(257)


def test_a_system_without_room_for_a_process_is_an_error_with_the_remedy(monkeypatch):
    def no_room(*_):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(workers.SpawnProcess, "start", no_room)
    with pytest.raises(OptionError, match=r"workers: 2 processes cannot be started.*unavailable.*--workers 1"):
        list(map_in_processes(abs, [1, 2], 2, 1))
