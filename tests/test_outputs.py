"""Outputs: what may be replaced, locks, and files that appear whole when a step fails or the process is killed."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bitemporal import outputs
from bitemporal.errors import OutputError
from bitemporal.outputs import (
    Kind,
    Output,
    also_read,
    check_outputs,
    clear_leftovers,
    locked,
    remove_unfinished,
    replacing,
    replacing_folder,
    write_json,
)

NOTE = Kind("a note", lambda path: path.read_text(encoding="utf-8").startswith("note"), (".txt",))
BOX = Kind("a box", lambda path: {file.name for file in path.iterdir()} <= {"a", "b"})
CHEST = Kind("a chest", lambda path: (path / "a.txt").is_file(), members=("a.txt", "*/b.txt"))


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def box(folder: Path, text: str = "old") -> Path:
    folder.mkdir(parents=True)
    for name in "ab":
        (folder / name).write_text(text)
    return folder


def check(path: Path, kind: Kind = NOTE, reads: tuple[Path, ...] = (), overwrite: bool = False) -> None:
    check_outputs([Output("output", path, kind)], reads, overwrite)


@pytest.mark.parametrize("standing", [None, "note of yesterday"])
def test_an_output_replaces_nothing_or_an_earlier_one_of_its_kind(standing, tmp_path):
    if standing is not None:
        (tmp_path / "n.txt").write_text(standing)
    check(tmp_path / "n.txt")


def test_an_output_does_not_replace_another_kind_unless_told(tmp_path):
    path = tmp_path / "n.txt"
    path.write_bytes(b"\xff\xfe my own")  # not even text
    with pytest.raises(OutputError, match=r"n\.txt exists and is not a note .*--overwrite"):
        check(path)
    check(path, overwrite=True)
    assert path.read_bytes() == b"\xff\xfe my own"


def test_a_link_to_nothing_is_of_another_kind(tmp_path):
    (tmp_path / "n.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(OutputError, match="exists and is not"):
        check(tmp_path / "n.txt")


@pytest.mark.parametrize("way", ["itself", "symbolic link", "hard link", "link to its folder", "inside a read folder"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_read_is_never_replaced(way, overwrite, tmp_path):
    source = tmp_path / "in" / "n.txt"
    source.parent.mkdir()
    source.write_text("note, an input")
    target, reads = tmp_path / "out.txt", source
    if way == "itself":
        target = source
    elif way == "symbolic link":
        target.symlink_to(source)
    elif way == "hard link":
        target.hardlink_to(source)
    elif way == "link to its folder":
        (tmp_path / "link").symlink_to(source.parent)
        target = tmp_path / "link" / "n.txt"
    else:
        target, reads = source.parent / "new.txt", source.parent
    with pytest.raises(OutputError, match="never"):
        check(target, reads=(reads,), overwrite=overwrite)


def test_a_folder_that_holds_an_input_is_not_replaced(tmp_path):
    folder = box(tmp_path / "box")
    with pytest.raises(OutputError, match=r"holds .*which is read"):
        check(folder, BOX, (folder / "a",), overwrite=True)


def test_a_folder_with_something_else_in_it_is_not_replaced(tmp_path):
    folder = box(tmp_path / "box")
    check(folder, BOX)
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not a box"):
        check(folder, BOX)


def test_two_outputs_of_one_name_are_refused(tmp_path):
    with pytest.raises(OutputError, match="is also the place of the mask"):
        check_outputs([Output("mask", tmp_path / "n.txt", NOTE), Output("other", tmp_path / "n.txt", NOTE)], ())


def test_two_outputs_of_one_place_are_refused_however_it_is_spelled(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    names = [Output("mask", tmp_path / "real" / "n.txt", NOTE), Output("other", tmp_path / "link" / "n.txt", NOTE)]
    with pytest.raises(OutputError, match="is also the place of the mask"):
        check_outputs(names, ())


@pytest.mark.parametrize(
    "foreign", ["mine.txt", "x/a.txt", "b.txt", "x/y/b.txt", "link to a folder", "link to nothing"]
)
def test_a_folder_is_replaced_only_where_all_of_its_files_are_members(foreign, tmp_path):
    folder = tmp_path / "chest"
    (folder / "x").mkdir(parents=True)
    for name in ("a.txt", "x/b.txt"):
        (folder / name).write_text("a member")
    assert CHEST.holds_no_other(folder)
    check(folder, CHEST)
    if foreign.startswith("link"):
        (folder / "mine").symlink_to(tmp_path if foreign.endswith("folder") else tmp_path / "gone")
    else:
        (folder / foreign).parent.mkdir(exist_ok=True)
        (folder / foreign).write_text("mine")
    assert not CHEST.holds_no_other(folder)
    (folder / "a.txt").rename(folder / "x" / "b.txt")  # now it is no chest, and holds other files
    with pytest.raises(OutputError, match="holds other files as well; it is not replaced"):
        check(folder, CHEST, overwrite=True)


def test_a_folder_of_members_alone_is_replaced_when_told(tmp_path):
    (tmp_path / "chest" / "x").mkdir(parents=True)
    (tmp_path / "chest" / "x" / "b.txt").write_text("a member")
    with pytest.raises(OutputError, match="--overwrite"):
        check(tmp_path / "chest", CHEST)
    check(tmp_path / "chest", CHEST, overwrite=True)


def test_what_the_command_itself_reads_is_never_replaced(tmp_path):
    note = tmp_path / "n.txt"
    note.write_text("note, a recipe")
    with also_read([note]):
        with also_read([tmp_path / "other.txt"]), pytest.raises(OutputError, match="never"):
            check(note, overwrite=True)
        with pytest.raises(OutputError, match="never"):
            check(note)
    check(note)


def test_endings_may_be_capitals(tmp_path):
    check(tmp_path / "N.TXT")


@pytest.mark.parametrize("name", ["n.csv", ".", "n.txt/below.txt"])
def test_names_that_cannot_be_written_are_refused(name, tmp_path):
    (tmp_path / "n.txt").write_text("note")
    with pytest.raises(OutputError, match="output: "):
        check(tmp_path / name)


@pytest.mark.parametrize("place", ["loop.txt", "loop.txt/n.txt", "circle/n.txt"])
def test_links_that_lead_to_themselves_are_refused_in_words(place, tmp_path):
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    (tmp_path / "circle").symlink_to("other")
    (tmp_path / "other").symlink_to("circle")
    with pytest.raises(OutputError, match=r"output: .*(is not replaced|is not a folder)"):
        check(tmp_path / place)
    with pytest.raises(OutputError, match=r"output: .*is one of the inputs|is not replaced"):
        check(tmp_path / "loop.txt", reads=[tmp_path / "loop.txt", tmp_path / "circle"])


def test_a_failing_second_rename_keeps_the_earlier_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "_exchange", lambda one, other: False)
    folder, rename = box(tmp_path / "box"), Path.rename

    def failing(self, target):
        if self.suffix == ".tmp":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputError, match="cannot be written"), replacing_folder(folder) as temporary:
        (temporary / "a").write_text("new")
    assert content(tmp_path) == {"box/a": "old", "box/b": "old"}


def test_an_earlier_folder_that_cannot_be_put_back_is_kept_for_the_next_run(tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "_exchange", lambda one, other: False)
    folder, rename, calls = box(tmp_path / "box"), Path.rename, []

    def failing(self, target):
        calls.append(target)
        if len(calls) > 1:
            raise OSError("no")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        with pytest.raises(OutputError, match="cannot be written"), replacing_folder(folder) as temporary:
            (temporary / "a").write_text("new")
    assert len(calls) == 3 and not folder.exists()
    clear_leftovers([folder])
    assert content(tmp_path) == {"box/a": "old", "box/b": "old"}


def test_an_interrupt_between_two_renames_puts_the_earlier_folder_back(tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "_exchange", lambda one, other: False)
    folder, rename = box(tmp_path / "box"), Path.rename

    def interrupted(self, target):
        if self.suffix == ".tmp":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing_folder(folder) as temporary:
        (temporary / "a").write_text("new")
    assert content(tmp_path) == {"box/a": "old", "box/b": "old"}


def test_an_error_in_a_new_folder_names_its_target(tmp_path):
    with pytest.raises(OutputError) as caught, replacing_folder(tmp_path / "box") as temporary:
        (temporary / "n.txt").write_text("a file")
        with replacing(temporary / "n.txt" / "below"):
            pass
    assert str(tmp_path / "box" / "n.txt") in str(caught.value)
    assert ".tmp" not in str(caught.value)
    assert content(tmp_path) == {}


def test_what_is_unfinished_is_removed_as_the_process_ends(tmp_path):
    (tmp_path / "n.txt").write_text("old")
    with pytest.raises(OutputError), replacing(tmp_path / "n.txt") as file:
        file.write_text("new")
        with pytest.raises(OutputError), replacing_folder(tmp_path / "box") as folder:
            remove_unfinished()
            assert not file.exists() and not folder.exists()
            assert outputs._publishing.locked()  # no thread puts an output in place any more
            outputs._publishing.release()  # the process would end here
            raise FileNotFoundError
    assert content(tmp_path) == {"n.txt": "old"}


def test_outputs_that_may_be_written_lose_the_leftovers_of_killed_runs(tmp_path):
    left, other = (outputs._temporary_name(tmp_path / name, "tmp") for name in ("n.txt", "other.txt"))
    for path in (left, other):
        path.write_text("half")
    (tmp_path / "n.txt").write_text("mine")
    with pytest.raises(OutputError):
        check(tmp_path / "n.txt")
    assert left.exists()
    check(tmp_path / "n.txt", overwrite=True)
    assert not left.exists() and other.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot swap two folders")
def test_two_folders_are_swapped_in_one_step(tmp_path, monkeypatch):
    folder = box(tmp_path / "box")
    monkeypatch.setattr(Path, "rename", lambda *_: pytest.fail("two steps"))
    with replacing_folder(folder) as temporary:
        (temporary / "a").write_text("new")
    assert content(tmp_path) == {"box/a": "new"}
    assert not outputs._exchange(tmp_path / "box", tmp_path / "absent")


def test_locks_go_after_what_they_guard(tmp_path, monkeypatch):
    """Or the next run would begin among files that are still there."""
    removed = []
    monkeypatch.setattr(outputs, "_remove", removed.append)
    names = [".a.lock", ".b.1.tmp", ".c.lock", ".d.2.tmp", ".e.lock"]
    monkeypatch.setattr(outputs, "_unfinished", {tmp_path / name for name in names})
    remove_unfinished()
    outputs._publishing.release()
    assert [path.suffix for path in removed] == [".tmp"] * 2 + [".lock"] * 3


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_is_replaced_as_a_whole(exchange, tmp_path, monkeypatch):
    if not exchange:
        monkeypatch.setattr(outputs, "_exchange", lambda one, other: False)
    folder = box(tmp_path / "box")
    with replacing_folder(folder) as temporary:
        (temporary / "a").write_text("new")
        assert content(folder) == {"a": "old", "b": "old"}
    assert content(tmp_path) == {"box/a": "new"}


def test_foreign_hidden_files_stay(tmp_path):
    foreign = [
        ".git",
        ".n.txt.swp",
        ".n.txt.12ab.bak",
        ".other.txt.12ab34cd.tmp",
        "n.txt.12ab34cd.tmp",
        ".n.txt.xyz.tmp",
        ".n.txt.4711.tmp",
        ".n.txt.20261128.old",
        ".n.txt.12ab34cd.tmp",
        ".n.txt.0123456789abcdef.tmp",
    ]
    for name in foreign:
        (tmp_path / name).write_text("mine")
    (leftover := outputs._temporary_name(tmp_path / "n.txt", "tmp")).write_text("a leftover")
    clear_leftovers([tmp_path / "n.txt"])
    assert set(content(tmp_path)) == set(foreign) and not leftover.exists()


def test_a_users_file_in_the_place_of_a_lock_stays(tmp_path):
    (tmp_path / ".n.txt.lock").write_text("mine")
    for _ in range(2):
        with locked(tmp_path / "n.txt"), ThreadPoolExecutor(1) as other:
            with pytest.raises(OutputError, match="another run is writing it"):
                other.submit(lambda: locked(tmp_path / "n.txt").__enter__()).result()
    assert content(tmp_path) == {".n.txt.lock": "mine"}


KILLED = """
import os, signal, sys
from pathlib import Path
from bitemporal import outputs
point, target = sys.argv[1], Path(sys.argv[2])
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if point == "while writing":
    with outputs.replacing_folder(target) as folder:
        (folder / "a").write_text("new")
        die()
if point == "while writing a file":
    with outputs.replacing(target / "a") as file:
        file.write_text("new")
        die()
if point == "between the renames":
    outputs._exchange = lambda one, other: False
    rename, calls = Path.rename, []
    def second(self, to):
        calls.append(to)
        return die() if len(calls) == 2 else rename(self, to)
    Path.rename = second
if point == "after the exchange":
    outputs._sync_folder = die
with outputs.replacing_folder(target) as folder:
    (folder / "a").write_text("new")
"""


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ("while writing", "old"),
        ("while writing a file", "old"),
        ("between the renames", "old"),
        ("after the exchange", "new"),
    ],
)
def test_a_kill_at_any_step_loses_nothing_and_the_next_run_tidies_up(point, expected, tmp_path):
    folder = box(tmp_path / "box")
    ended = subprocess.run([sys.executable, "-c", KILLED, point, str(folder)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert list(tmp_path.rglob(".*"))  # leftovers
    clear_leftovers([folder, folder / "a"])
    assert (folder / "a").read_text() == expected
    assert {path.name for path in tmp_path.iterdir()} == {"box"}
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_what_a_living_run_is_writing_stays(tmp_path):
    target = tmp_path / "n.txt"
    with replacing(target) as temporary:
        temporary.write_text("note")
        clear_leftovers([target])
        assert temporary.exists()
    with replacing_folder(tmp_path / "box") as folder:
        clear_leftovers([tmp_path / "box"])
        assert folder.exists()


def test_content_is_on_the_disk_before_its_name_and_the_name_after_it(tmp_path, monkeypatch):
    steps, sync, replace = [], os.fsync, Path.replace

    def noted_sync(descriptor: int) -> None:
        file = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        steps.append("folder" if file.is_dir() else file.read_text())
        sync(descriptor)

    def noted_replace(self: Path, target: Path) -> Path:
        steps.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    with replacing(tmp_path / "n.txt") as temporary:
        temporary.write_text("all of it")
    assert steps == ["all of it", "replace", "folder"]
    steps.clear()
    with replacing_folder(tmp_path / "box") as temporary:
        (temporary / "a").write_text("new")
    assert steps[-1] == "folder"


def test_numbers_that_json_does_not_know_are_null(tmp_path):
    write_json(tmp_path / "a.json", {"a": float("nan"), "b": [1.5, float("inf"), (-float("inf"), None)]})
    assert json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail) == {
        "a": None,
        "b": [1.5, None, [None, None]],
    }


def test_a_link_is_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "n.txt").symlink_to(tmp_path / "disk" / "real.txt")
    with replacing(tmp_path / "n.txt") as temporary:
        temporary.write_text("note")
    assert (tmp_path / "n.txt").is_symlink()
    assert (tmp_path / "disk" / "real.txt").read_text() == "note"


def test_long_names_can_be_written(tmp_path):
    target = tmp_path / ("ä" * 120 + ".txt")  # 244 bytes of the 255 that a name may have
    with replacing(target) as temporary:
        temporary.write_text("note")
    assert target.read_text() == "note"


def test_threads_may_write_one_file(tmp_path):
    def write(number: int) -> None:
        with replacing(tmp_path / "n.txt") as temporary:
            temporary.write_text(f"note {number}" * 1000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(64)))
    found = (tmp_path / "n.txt").read_text()
    assert found in {f"note {number}" * 1000 for number in range(64)}
    assert len(list(tmp_path.iterdir())) == 1


HOLDER = """
import sys, time
from pathlib import Path
from bitemporal.outputs import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_keeps_others_out_and_ends_with_its_process(tmp_path):
    target = tmp_path / "scene.tif"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(target)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(OutputError, match="another run is writing it"), locked(target):
            pass
        holder.kill()
    with locked(target):
        assert os.listdir(tmp_path) == [".scene.tif.lock"]
    assert os.listdir(tmp_path) == []


def test_a_lock_is_one_however_its_output_is_spelled(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with locked(tmp_path / "real" / "n.txt"):
        with locked(tmp_path / "link" / "n.txt"):  # the block that holds it may take it again
            pass
        with pytest.raises(OutputError, match="another run"), locked(tmp_path / "link" / "n.txt", again=False):
            pass
        with ThreadPoolExecutor(1) as pool:
            taken = pool.submit(lambda: locked(tmp_path / "link" / "n.txt").__enter__())
            assert isinstance(taken.exception(), OutputError)
    with locked(tmp_path / "link" / "n.txt", again=False):
        pass
    assert content(tmp_path) == {}


def test_folders_that_a_lock_needed_go_with_it_unless_something_came_of_them(tmp_path):
    with locked(tmp_path / "new" / "deep" / "n.txt"):
        assert (tmp_path / "new" / "deep").is_dir()
    assert os.listdir(tmp_path) == []
    with locked(tmp_path / "new" / "deep" / "n.txt"):
        (tmp_path / "new" / "n.txt").write_text("note")
    assert content(tmp_path) == {"new/n.txt": "note"}
    assert os.listdir(tmp_path / "new") == ["n.txt"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs the list of open files of Linux")
def test_no_file_stays_open(tmp_path):
    """An archive takes five locks and writes five files for each of thousands of scenes."""
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        with locked(tmp_path / "n.txt"), replacing(tmp_path / "n.txt") as file, replacing_folder(tmp_path / "b") as box:
            file.write_text("note")
            (box / "a").write_text("new")
        with pytest.raises(OutputError), locked(tmp_path / "n.txt"), replacing(tmp_path / "n.txt"):
            raise OSError("no")
        with locked(tmp_path / "n.txt"), pytest.raises(OutputError), locked(tmp_path / "n.txt", again=False):
            pass
        clear_leftovers([tmp_path / "n.txt"])
        assert len(os.listdir("/proc/self/fd")) == before, number
    assert not outputs._HELD and not outputs._unfinished


FORKER = """
import os, sys, time
from pathlib import Path
from bitemporal.outputs import locked
with locked(Path(sys.argv[1])):
    if os.fork() == 0:
        print(os.getpid(), flush=True)  # by the child, once it has let go of the lock
    time.sleep(60)
"""


def test_a_process_that_was_forked_does_not_keep_the_lock(tmp_path):
    target = tmp_path / "scene.tif"
    with subprocess.Popen([sys.executable, "-c", FORKER, str(target)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        holder.kill()
        try:
            holder.wait()
            os.kill(child, 0)  # it lives
            with locked(target):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


RACER = """
import os, sys
from pathlib import Path
from bitemporal.errors import OutputError
from bitemporal.outputs import locked
target, inside = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(400):
    try:
        with locked(target):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            inside.unlink()
    except OutputError:
        pass
"""


def test_eight_processes_are_never_inside_one_lock_together(tmp_path):
    command = [sys.executable, "-c", RACER, str(tmp_path / "scene.tif"), str(tmp_path / "inside")]
    racers = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(8)]
    said = [racer.communicate()[1] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 8, said
    assert os.listdir(tmp_path) == []
