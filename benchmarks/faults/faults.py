"""Puts one fault at a time into a copy of the package, and runs the tests that execute its line: do they notice?

python benchmarks/faults/faults.py --map                                  which test runs which line (needs `coverage`)
python benchmarks/faults/faults.py --minutes 60 --seed 0 --rooms scenes run
python benchmarks/faults/faults.py --hand-made                            the faults of handmade.json
python benchmarks/faults/faults.py --hand-made --near                     the same without a map: on test files of NEAR
python benchmarks/faults/faults.py --again                                those that went unnoticed, with today's tests

Results stay in faults.json next to this file. A fault whose line has not changed is not tried again. What no test
notices is looked at by hand: `verdict` and `why` of its entry say what it does to a user. `--page` writes README.md
from the table. The map is kept in .map.json, which is not committed; of a module that has changed since, all tests
that run any line of it are taken.
"""

import argparse
import ast
import collections
import compileall
import ctypes
import functools
import hashlib
import importlib
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGE = ROOT / "src" / "bitemporal"
TABLE, PAGE, HAND_MADE, MAP = (HERE / name for name in ("faults.json", "README.md", "handmade.json", ".map.json"))
USAGE, NO_TESTS, OTHER_PACKAGE = 4, 5, 70
"""Exit codes: pytest's for a test that does not exist and for none at all, and one for another copy of the package."""
LIBRARIES = (
    "torch", "lightning_fabric", "rasterio", "scipy.stats", "sklearn.metrics", "geopandas", "shapely", "PIL.Image",
    "matplotlib.pyplot", "jsonargparse", "hypothesis", "safetensors.torch", "yaml", "rich", "skimage.measure", "jinja2",
    "huggingface_hub", "pyogrio", "pyarrow", "rasterio.warp", "rasterio.vrt", "rasterio.features",
)  # fmt: skip
"""What takes long to import is imported once, before each fault forks."""

_COMBINED = (
    "scenes.py::test_augmented_answers_are_means_over_the_views",
    "scenes.py::test_scales_see_images_of_other_sizes_and_answer_at_their_own",
    "scenes.py::test_combinations_look_at_the_same_pixels_as_what_they_combine",
    "scenes.py::test_no_part_is_named_where_members_disagree",
    "scenes.py::test_tiles_suit_every_member_at_every_scale",
    "results.py::test_tiles_are_averaged_where_they_overlap",
)
NEAR = {
    "evaluation/bootstrap.py": ("bootstrap.py", "reproduction.py", "evaluation.py"),
    "evaluation/counting.py": ("counting.py", "evaluation.py"),
    "evaluation/curves.py": ("evaluation.py", "counting.py", "results.py"),
    "evaluation/rasters.py": ("evaluate_rasters.py",),
    "evaluation/scores.py": ("evaluation.py", "counting.py", "metrics.py", "results.py"),
    "evaluation/scoring.py": ("evaluation.py", "results.py", "views.py", "inference.py"),
    "imagery/scale.py": ("radiometry.py", "opening.py", "bands.py"),
    "imagery/tiff_layout.py": ("whole.py", "opening.py", "special_files.py"),
    "imagery/whole.py": ("whole.py", "opening.py"),
    "inference/bundle.py": ("inference.py", "loading.py", "numbers.py", "outputs.py"),
    "inference/combining.py": (*_COMBINED, "inference.py"),
    "inference/detector.py": ("inference.py", "predict.py", *_COMBINED),
    "inference/digests.py": ("inference.py", "loading.py"),
    "inference/folders.py": ("predict.py", "inference.py", "bands.py"),
    "inference/loading.py": ("loading.py", "inference.py", "download.py"),
    "inference/origin_partition.py": ("inference.py", "evaluation.py", "bands.py"),
    "losses.py": ("losses.py",),
    "method/calibration.py": ("distillation.py",),
    "method/car.py": ("car.py",),
    "method/equal_counts.py": ("car.py",),
    "method": ("distillation.py", "car.py", "inference.py"),
    "metrics.py": ("metrics.py", "evaluation.py"),
    "models": ("models.py", "layers.py", "inference.py"),
    "pairs": ("pairs.py", "stems.py", "layouts.py", "lists.py", "repeated.py"),
    "reading.py": ("reading.py", "files.py", "special_files.py"),
    "run/augmentation.py": ("augmentation.py",),
    "run/data.py": ("extension.py", "training.py", "division.py", "selection.py", "pipeline.py"),
    "run/fit.py": ("training.py", "extension.py", "distillation.py", "recipes.py", "pipeline.py"),
    "run/learner.py": ("training.py", "recipes.py", "rule.py", "losses.py", "distillation.py"),
    "run/loading.py": ("training.py", "workers.py", "augmentation.py", "extension.py"),
    "run/reuse.py": ("reuse.py",),
    "run/same_recipe.py": ("extension.py", "recipes.py", "training.py", "reuse.py"),
    "run/stages.py": ("training.py", "extension.py", "reuse.py", "distillation.py", "recipes.py", "pipeline.py"),
    "files.py": ("files.py", "special_files.py"),
    "workers.py": ("workers.py",),
}
"""Test files, or tests, of a module or of its room, after `test_`; they are run whole where there is no map."""

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
SIGNS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult}
SAFETY = ("check", "refuse", "fsync", "sync", "lock", "clear", "raise", "close", "unlink")


class Fault(NamedTuple):
    """One change of one expression or statement.

    Attributes:
        module: Path of the module below the package.
        line: Its line.
        kind: What was changed, such as ``comparison``.
        before: The source of what was changed.
        after: What stands there instead.
        start: Place of it in the file, in characters.
    """

    module: str
    line: int
    kind: str
    before: str
    after: str
    start: int

    def key(self, source: str) -> str:
        """The same fault in the same line keeps its key when lines above it change."""
        line = source.splitlines()[self.line - 1]
        parts = (self.module, line.strip(), self.kind, self.before, self.after)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def faults_of(module: str, source: str) -> Iterator[Fault]:
    """All faults that can be put into a module."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    lines = source.splitlines(keepends=True)

    def place(line: int, column: int) -> int:  # columns of the syntax tree are bytes
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    for node in _executed(ast.parse(source)):
        for kind, after in _changes(node):
            start, end = place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)
            yield Fault(module, node.lineno, kind, source[start:end], after, start)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that are computed when the package works: no annotations, texts of errors, or imports for types."""
    skipped: tuple[str, ...] = ("annotation", "returns", "type_params")
    if isinstance(node, ast.Raise):
        yield node
        return
    if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name in skipped:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _executed(child)


def _changes(node: ast.AST) -> Iterator[tuple[str, str]]:
    def other(change: Callable[[Any], None]) -> str:
        copy = ast.parse(ast.unparse(node)).body[0]
        copy = copy.value if isinstance(copy, ast.Expr) and isinstance(node, ast.expr) else copy
        change(copy)
        text = ast.unparse(copy)
        return f"({text})" if isinstance(node, ast.expr) else text

    match node:
        case ast.Compare(ops=[operator]) if type(operator) in COMPARISONS:
            yield "comparison", other(lambda n: setattr(n, "ops", [COMPARISONS[type(operator)]()]))
        case ast.BinOp(op=operator) if type(operator) in SIGNS and not isinstance(node.left, ast.Constant | ast.List):
            yield "sign", other(lambda n: setattr(n, "op", SIGNS[type(operator)]()))
        case ast.BoolOp(op=operator):
            swapped = ast.And() if isinstance(operator, ast.Or) else ast.Or()
            yield "and/or", other(lambda n: setattr(n, "op", swapped))
        case ast.UnaryOp(op=ast.USub() | ast.Not()):
            yield "sign", f"({ast.unparse(node.operand)})"
        case ast.Constant(value=bool(value)):
            yield "constant", str(not value)
        case ast.Constant(value=int(value)):
            yield "off by one", str(value + 1)
        case ast.Constant(value=float(value)):
            yield "constant", repr(value * 2 if value else 0.5)
        case ast.IfExp():
            yield "condition", f"({ast.unparse(node.body)})"
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield "return", "return None"
        case ast.Raise():
            yield "safety", "pass"
        case ast.Expr(value=ast.Call() as call):
            name = ast.unparse(call.func).rpartition(".")[2].strip("_")
            yield ("safety" if name.startswith(SAFETY) else "dropped call"), "pass"
        case ast.Call(args=[first, second, *_]) if not isinstance(first, ast.Starred) and ast.dump(first) != ast.dump(
            second
        ):
            yield "arguments", other(lambda n: n.args.__setitem__(slice(0, 2), n.args[1::-1]))
        case ast.Call(keywords=[ast.keyword(arg=str())]) if node.args:
            yield "argument", other(lambda n: n.keywords.clear())


class Run(NamedTuple):
    """What a test ran when it was mapped."""

    seconds: float
    lines: dict[str, set[int]]


class Coverage:
    """Which test runs which line of the package.

    Args:
        content: The content of .map.json.
        sources: The sources of the package's modules as they are now.
        files: Test files to take; all by default.
    """

    def __init__(self, content: dict[str, Any], sources: dict[str, str], files: Sequence[str] = ()) -> None:
        """Read the map."""
        self.sources = sources
        self.runs = collections.defaultdict(dict)
        for file in (file for name, file in content.items() if not files or name in files):
            for test, run in file["tests"].items():
                for module, lines in run["lines"].items():
                    self.runs[module][test] = (run["seconds"], set(lines), file["sources"].get(module))

    def tests_of(self, fault: Fault) -> dict[str, float]:
        """The tests that run the statement of a fault, the fastest first, and their seconds.

        Those of a file named after the module or its room come before others of the same speed.
        """
        source = self.sources[fault.module]
        lines = _statement(source, fault.line)
        words = {word.removesuffix("s") for word in fault.module.removesuffix(".py").replace("_", "/").split("/")}
        found = []
        for test, (seconds, run, mapped) in self.runs[fault.module].items():
            if not lines or mapped != _digest(source) or lines & run:
                name = test.partition(".py")[0].removeprefix("tests/test_")
                far = not words & {word.removesuffix("s") for word in name.split("_")}
                found.append((seconds * (3 if far else 1), test, seconds))
        return {test: seconds for _, test, seconds in sorted(found)}


def _digest(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def _statement(source: str, line: int) -> set[int]:
    """The lines of the statement at a line, or of its head; none when it runs at import."""
    found, inside = None, False
    for node in ast.walk(ast.parse(source)):  # from the outer to the inner
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0):
            body = getattr(node, "body", None)
            end = body[0].lineno - 1 if body else node.end_lineno
            if isinstance(node, ast.FunctionDef):
                inside = line > end or inside
            if line <= max(end, node.lineno):
                found = set(range(node.lineno, max(end, node.lineno) + 1))
    return found if found and inside else set()


def map_tests(files: Sequence[str], seconds: float) -> None:
    """Note in .map.json which lines each test of some files runs, each file in a process of its own."""
    for file in files:
        content = json.loads(MAP.read_text()) if MAP.is_file() else {}
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            found = Path(folder) / "map.json"
            began = time.monotonic()
            _run(_map, (found, file), seconds)
            if not found.is_file():
                print(f"{file}: not mapped in {seconds:.0f} s", flush=True)
                continue
            tests = json.loads(found.read_text())
        content[file] = {"sources": {name: _digest(source) for name, source in sources().items()}, "tests": tests}
        MAP.write_text(json.dumps(content))
        print(f"{file}: {len(tests)} tests, {time.monotonic() - began:.0f} s", flush=True)


def _map(target: Path, file: str) -> None:
    import coverage  # needed by nothing else of the project

    class Recorder:
        """Keeps the lines and the time of each test that passes."""

        def __init__(self) -> None:
            self.seconds: dict[str, float] = {}
            self.failed: set[str] = set()

        @pytest.hookimpl(hookwrapper=True)
        def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
            traced.switch_context(item.nodeid)
            began = time.monotonic()
            yield
            self.seconds[item.nodeid] = time.monotonic() - began
            traced.switch_context("")

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if not report.passed:
                self.failed.add(report.nodeid)

    traced = coverage.Coverage(data_file=str(target.with_suffix(".data")), include=[f"{PACKAGE}/*"], config_file=False)
    recorder = Recorder()
    traced.start()
    _pytest(PACKAGE.parent, [f"tests/{file}"], target.parent / "tmp", "-m not full", plugins=[recorder])
    traced.stop()
    data = traced.get_data()
    lines: dict[str, dict[str, list[int]]] = collections.defaultdict(dict)
    for path in data.measured_files():
        for line, tests in data.contexts_by_lineno(path).items():
            for test in tests:
                lines[test].setdefault(str(Path(path).relative_to(PACKAGE)), []).append(line)
    passed = {test: seconds for test, seconds in recorder.seconds.items() if test not in recorder.failed}
    content = {test: {"seconds": round(seconds, 3), "lines": lines[test]} for test, seconds in passed.items()}
    target.with_suffix(".part").write_text(json.dumps(content))
    target.with_suffix(".part").rename(target)
    os._exit(0)


def outcome(tests: Sequence[str], seconds: float, fault: Fault | None = None, source: str = "") -> tuple[str, str]:
    """Run tests on a copy of the package with a fault.

    Returns:
        ``unnoticed``, ``noticed`` or ``too slow``, and the test that failed.
    """
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        copy, failed = Path(folder) / "src", Path(folder) / "failed"
        shutil.copytree(ROOT / "src", copy)  # with what is compiled: times stay, so that it counts
        if fault is not None:
            faulty = source[: fault.start] + fault.after + source[fault.start + len(fault.before) :]
            (copy / "bitemporal" / fault.module).write_text(faulty, "utf-8")
        code = _run(_test, (copy, tests, failed), seconds)
        if code in (USAGE, NO_TESTS, OTHER_PACKAGE):
            # a fault can keep a test file from being imported; without one that is a mistake of this script
            if fault is None or code == OTHER_PACKAGE:
                raise RuntimeError(f"{tests}: no tests ran, or not on the copy of the package")
            return "noticed", "import"
        if code is None:
            return "too slow", ""
        by = failed.read_text() if failed.is_file() else "import"
    if code == 0:
        return "unnoticed", ""
    if fault is not None and "::" in by and not _passes(by):
        raise RuntimeError(f"{by}: fails without a fault")
    return "noticed", by


@functools.cache
def _passes(test: str) -> bool:
    return outcome([test], 600)[0] == "unnoticed"


def _run(function: Callable[..., None], arguments: tuple[Any, ...], seconds: float) -> int | None:
    """The exit code of a function in a process that has not imported the package yet, or None after its time.

    Whatever it started has ended when this returns, in sessions of their own or not.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans become children of this process
    running = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    running.start()
    try:
        running.join(seconds)
        return running.exitcode
    finally:
        while left := _children():
            for child in left:
                os.kill(child, signal.SIGKILL)  # its own children come here then
                if child != running.pid:
                    os.waitpid(child, 0)
            running.join()


_PR_SET_CHILD_SUBREAPER = 36


def _children() -> list[int]:
    """The children of this process that run or have not been waited for."""
    return [
        int(child) for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()
    ]


def _test(copy: Path, tests: Sequence[str], failed: Path) -> None:
    class Recorder:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                failed.write_text(report.nodeid)

    code = _pytest(copy, tests, copy.parent / "tmp", plugins=[Recorder()])
    module = sys.modules.get("bitemporal")
    if module is not None and not Path(str(module.__file__)).is_relative_to(copy):
        os._exit(OTHER_PACKAGE)
    os._exit(code)


def _pytest(package: Path, tests: Sequence[str], folder: Path, *options: str, plugins: list[object]) -> int:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(ROOT)
    os.environ |= {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    sys.path[:] = [str(package), *(path for path in sys.path if Path(path).resolve() != ROOT / "src")]
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    arguments = ["-q", "-x", "-p", "no:cacheprovider", f"--basetemp={folder}", *options, *tests]
    if plugins and "-m not full" in options:
        arguments.remove("-x")
    return int(pytest.main(arguments, plugins=plugins))


def sources() -> dict[str, str]:
    """The source of every module of the package."""
    return {str(path.relative_to(PACKAGE)): path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py"))}


def judge_nearby(fault: Fault, source: str, seconds: float) -> dict[str, Any]:
    """Try a fault on the test files of NEAR."""
    files = next(files for prefix, files in NEAR.items() if fault.module.startswith(prefix))
    tests = [f"tests/test_{name}" for name in files]
    result, by = outcome(tests, seconds, fault, source)
    return {**fault._asdict(), "tests": len(tests), "left out": 0, "by": by, "result": result}


def judge(fault: Fault, coverage: Coverage, seconds: float) -> dict[str, Any]:
    """Try a fault: first on the fastest tests that run its line, then on the others, as long as its time lasts."""
    tests = coverage.tests_of(fault)
    entry = {**fault._asdict(), "tests": len(tests), "left out": 0, "by": "", "result": "no test"}
    first, rest, left, spent = [], [], 0, 0.0
    for test, took in tests.items():
        spent += took
        if spent > seconds:
            left += 1
        elif spent < 5 or not first:
            first.append(test)
        else:
            rest.append(test)
    for part in (first, rest):
        if part:
            allowed = 60 + 8 * sum(tests[test] for test in part)
            entry["result"], entry["by"] = outcome(part, allowed, fault, coverage.sources[fault.module])
            if entry["result"] != "unnoticed":
                return entry
    return {**entry, "left out": left}


def campaign(rooms: list[str], minutes: float, seed: int, seconds: float) -> None:
    """Try faults of some rooms, in random order, room by room in turn, until the time is over."""
    end = time.monotonic() + 60 * minutes
    modules = sources()
    generator = random.Random(seed)
    waiting = []
    for room in rooms:
        found = [fault for name in modules if name.startswith(room) for fault in faults_of(name, modules[name])]
        generator.shuffle(found)
        waiting.append(found)
    table = read(TABLE)
    while any(waiting) and time.monotonic() < end:
        for found in waiting:
            while found and found[-1].key(modules[found[-1].module]) in table:
                found.pop()
            if found and time.monotonic() < end:
                table = keep(found.pop(), Coverage(read(MAP), modules), seconds, "sample")


def keep(fault: Fault, coverage: Coverage, seconds: float, stratum: str, near: bool = False) -> dict[str, Any]:
    """Try a fault and add it to the table, which others may have written to meanwhile."""
    source = coverage.sources[fault.module]
    seen = judge_nearby(fault, source, seconds) if near else judge(fault, coverage, seconds)
    entry = {**seen, "stratum": stratum, "verdict": "", "why": ""}
    table = read(TABLE)
    table[fault.key(source)] = entry
    TABLE.write_text(json.dumps(table, indent=1) + "\n")
    print(
        f"{entry['result']:10} {fault.module}:{fault.line} {fault.kind}: {fault.before!r} -> {fault.after!r}"
        f" ({entry['tests']} tests, by {entry['by']})",
        flush=True,
    )
    return table


def hand_made(rooms: list[str], seconds: float, near: bool) -> None:
    """Try the faults of handmade.json in some rooms that are not in the table."""
    modules = sources()
    listed = json.loads(HAND_MADE.read_text())
    for item in (item for room in rooms for item in listed if item["module"].startswith(room)):
        source = modules[item["module"]]
        if source.count(item["before"]) != 1:
            print(f"{item['module']}: not there, or more than once: {item['before']!r}", flush=True)
            continue
        start = source.index(item["before"])
        differs = next((i for i, (a, b) in enumerate(zip(item["before"], item["after"], strict=False)) if a != b), 0)
        line = source.count("\n", 0, start + differs) + 1
        fault = Fault(item["module"], line, item["kind"], item["before"], item["after"], start)
        if fault.key(source) not in read(TABLE):
            keep(fault, Coverage(read(MAP), modules), seconds, "hand-made", near)


def again(seconds: float, files: Sequence[str]) -> None:
    """Try those again that went unnoticed and have no verdict yet; those noticed now are ``closed since``."""
    coverage = Coverage(read(MAP), sources(), files)
    for key, entry in read(TABLE).items():
        if entry["result"] == "noticed" or entry["verdict"]:
            continue
        source = coverage.sources.get(entry["module"], "")
        near = [f for f in faults_of(entry["module"], source) if f.key(source) == key]
        if not near and source.count(entry["before"]) == 1:
            start = source.index(entry["before"])
            line = source.count("\n", 0, start) + 1
            near = [Fault(entry["module"], line, entry["kind"], entry["before"], entry["after"], start)]
        if not near:
            print(f"gone: {entry['module']}:{entry['line']} {entry['before']!r}", flush=True)
            continue
        seen = judge(near[0], coverage, seconds)
        table = read(TABLE)
        table[key]["by"] = seen["by"]
        if seen["result"] == "noticed":
            table[key]["verdict"] = "closed since"
        TABLE.write_text(json.dumps(table, indent=1) + "\n")
        print(f"{seen['result']:10} {near[0].module}:{near[0].line} {near[0].before!r} (by {seen['by']})", flush=True)


def read(path: Path) -> dict[str, Any]:
    """The content of a table, empty when there is none."""
    return json.loads(path.read_text()) if path.is_file() else {}


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, after Wilson."""
    z, share = 1.959964, hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return middle - half, middle + half


def page(table: dict[str, dict[str, Any]], population: dict[str, int]) -> str:
    """The page of a table.

    Args:
        table: What was tried.
        population: How many faults there are in each room.
    """
    lines = ["# Faults that tests notice", "", *INTRODUCTION, ""]
    for stratum, title, words in STRATA:
        entries = [entry for entry in table.values() if entry["stratum"] == stratum]
        if not entries:
            continue
        rooms: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        for entry in entries:
            rooms[_room(entry["module"])][entry["verdict"] or entry["result"]] += 1
        rows = [[room, *_row(counts, population, room)] for room, counts in sorted(rooms.items())]
        total = sum(rooms.values(), collections.Counter())
        rows.append(["all", *_row(total, {"all": sum(population.values())}, "all")])
        lines += [f"## {title}", "", *words, ""]
        lines += ["| room | faults there are | tried | " + " | ".join(OUTCOMES) + " | noticed then | noticed now |"]
        lines += ["| --- |" + " ---: |" * (len(OUTCOMES) + 4)]
        lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows] + [""]
    lines += ["## What went unnoticed", "", "| where | fault | outcome | why |", "| --- | --- | --- | --- |"]
    missed = [entry for entry in table.values() if entry["result"] != "noticed"]
    for entry in sorted(missed, key=lambda e: (e["module"], e["line"])):
        change = " → ".join("`" + _short(entry[side]) + "`" for side in ("before", "after"))
        outcome, why = entry["verdict"] or entry["result"], entry["why"] or _seen(entry)
        lines.append(f"| {entry['module']}:{entry['line']} | {entry['kind']}: {change} | {outcome} | {why} |")
    return "\n".join(lines) + "\n"


OUTCOMES = ("noticed", "closed since", "no consequence", "unnoticed", "too slow", "no test")

STRATA = (
    (
        "sample",
        "A random sample",
        [
            "Drawn from all one-place faults of the rooms below, room by room in turn, the scenes several times as",
            "often as the others: a stratified sample. The share of *all* is that of the faults tried, not weighted by",
            "the size of the rooms.",
        ],
    ),
    (
        "hand-made",
        "Faults made by hand",
        [
            "`handmade.json`: what an attacker would try at hard spots (a threshold ignored, a mask of no data",
            "ignored, dates swapped, a lock or a rollback dropped, a setting recorded and not followed). They are no",
            "sample of anything, so the intervals say only how many there are. Most of the list, above all of scenes,",
            "run and imagery, has not been tried yet. Those outside scenes and outputs.py ran on the test files that",
            "NEAR in `faults.py` names, or on one of them; what these leave unnoticed, others may notice. Some were",
            "made up where faults had just gone unnoticed (augmentation, rasters): there, *noticed then* is low.",
        ],
    ),
)

INTRODUCTION = [
    "Written by `benchmarks/faults/faults.py --page` from `faults.json`. Faults were put into copies of the package,",
    "one at a time. The tests that run the statement (by `coverage`, the fastest first, as long as the time allowed)",
    "noticed it or not.",
    "",
    "- closed since: no test noticed it, and one does now.",
    "- no consequence: looked at by hand; no user could tell.",
    "- too slow: the tests took over eight times as long; a fault may have made them hang, nothing else is known.",
    "- no test: no test of those mapped runs the statement; it counts as unnoticed.",
    "",
    "The faults that were tried are few; the first column of each table says how many there are.",
    "",
    "*Noticed then* is the share of the faults with a consequence that tests noticed when they were first tried, and",
    "*noticed now* the share with the tests of today; both with their 95 % interval (Wilson). Those that were too slow",
    "count nowhere. Tests were written for faults that had been seen, so *noticed now* says nothing about others; and",
    "as some were written while the campaign ran, *noticed then* is a little too high for the tests at its beginning.",
]


def _room(module: str) -> str:
    return module.partition("/")[0]


def _row(counts: collections.Counter[str], population: dict[str, int], room: str) -> list[object]:
    then, now = counts["noticed"], counts["noticed"] + counts["closed since"]
    matter = now + counts["unnoticed"] + counts["no test"]
    shares = [_share(hits, matter) for hits in (then, now)]
    return [population.get(room, ""), counts.total(), *(counts[name] for name in OUTCOMES), *shares]


def _share(hits: int, count: int) -> str:
    if not count:
        return ""
    low, high = wilson(hits, count)
    return f"{100 * hits / count:.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def _seen(entry: dict[str, Any]) -> str:
    by = entry["by"].partition("[")[0].rpartition("/")[2]
    return f"noticed by `{by}`" if entry["verdict"] == "closed since" and by else ""


def _short(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|").replace("`", "'")
    return text if len(text) <= 90 else text[:87] + "..."


def main() -> None:
    """Run the campaign, or write the page."""
    global TABLE
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", nargs="+", default=["scenes", "run", "evaluation", "method", "inference", "pairs"])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=120, help="of tests per fault; of a test file for --map")
    parser.add_argument("--map", nargs="*", metavar="FILE", help="map these test files, or all that are not mapped")
    parser.add_argument("--hand-made", action="store_true")
    parser.add_argument("--near", action="store_true", help="with --hand-made: run the test files of NEAR, not the map")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--tests", nargs="+", default=(), metavar="FILE", help="with --again: these files alone")
    parser.add_argument("--table", type=Path, default=TABLE, help="where the results stay")
    parser.add_argument("--page", action="store_true", help="only write README.md from faults.json")
    options = parser.parse_args()
    TABLE = options.table
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what a fault has started ends too
    if not options.page:
        compileall.compile_dir(PACKAGE, quiet=2)
        for name in LIBRARIES:
            importlib.import_module(name)
    if options.map is not None:
        every = [path.name for path in sorted((ROOT / "tests").glob("test_*.py")) if path.name not in read(MAP)]
        map_tests(options.map or every, options.seconds)
    elif options.hand_made:
        hand_made(options.rooms, options.seconds, options.near)
    elif options.again:
        again(options.seconds, options.tests)
    elif not options.page:
        campaign(options.rooms, options.minutes, options.seed, options.seconds)
    if options.page:
        population = collections.Counter(_room(name) for name, text in sources().items() for _ in faults_of(name, text))
        PAGE.write_text(page(read(TABLE), population), "utf-8")


if __name__ == "__main__":
    main()
