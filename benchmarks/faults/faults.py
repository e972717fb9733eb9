"""Puts one fault at a time into a copy of the package, and runs the tests of its module: do they notice?

python benchmarks/faults/faults.py --minutes 60 --seed 0 --rooms scenes run

Results stay in faults.json next to this file. A fault whose line has not changed is not tried again. What no test
notices is looked at by hand: `verdict` and `why` of its entry say what it does to a user. `--page` writes README.md
from the table.
"""

import argparse
import ast
import collections
import functools
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lightning_fabric  # noqa: F401  what takes long to import is imported once, before each fault forks
import pytest
import rasterio  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.metrics  # noqa: F401
import torch  # noqa: F401

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TABLE, PAGE = HERE / "faults.json", HERE / "README.md"
NO_TESTS, OTHER_PACKAGE = 5, 70
"""Exit codes: that of pytest when it has found no test, and one for an import of another copy of the package."""

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


def tests_of(module: str) -> list[str]:
    """The test files that import a module by its name; of a module that none names, those that name its room."""
    name = "bitemporal." + module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    importing: dict[str, set[str]] = collections.defaultdict(set)
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                for imported in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                    importing[imported].add(path.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    importing[alias.name].add(path.name)
    while name not in importing and "." in name:
        name = name.rpartition(".")[0]
    # those that are named after the module or its room come first
    words = set(module.removesuffix(".py").replace("_", "/").split("/"))
    return sorted(importing[name], key=lambda file: (not words & set(file[5:-3].split("_")), file))[:6]


def outcome(tests: list[str], seconds: float, fault: Fault | None = None, source: str = "") -> str:
    """``unnoticed`` when the tests pass on a copy of the package with the fault, ``noticed``, or ``too slow``."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        copy = Path(folder) / "src"
        shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
        if fault is not None:
            faulty = source[: fault.start] + fault.after + source[fault.start + len(fault.before) :]
            (copy / "bitemporal" / fault.module).write_text(faulty, "utf-8")
        running = multiprocessing.get_context("fork").Process(target=_test, args=(copy, tests))
        running.start()
        running.join(seconds)
        if running.exitcode is None:
            os.killpg(running.pid, signal.SIGKILL)  # pytest, in a session of its own, and what it started
            running.join()
            return "too slow"
        if running.exitcode in (NO_TESTS, OTHER_PACKAGE):
            raise RuntimeError(f"{tests}: no tests ran, or not on the copy of the package")
        return "unnoticed" if running.exitcode == 0 else "noticed"


@functools.cache
def is_usable(test: str, seconds: float) -> bool:
    """Whether a test file passes without a fault, in the time that it may take."""
    return outcome([test], seconds) == "unnoticed"


def _test(copy: Path, tests: list[str]) -> None:
    """Run tests on a copy of the package, in a process that has not imported the package yet."""
    os.setsid()
    os.chdir(ROOT)
    os.environ |= {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    sys.path[:] = [str(copy), *(path for path in sys.path if Path(path).resolve() != ROOT / "src")]
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    files = [f"tests/{name}" for name in tests]
    found = pytest.main(["-q", "-x", "-p", "no:cacheprovider", f"--basetemp={copy.parent / 'tmp'}", *files])
    module = sys.modules.get("bitemporal")
    if module is not None and not Path(str(module.__file__)).is_relative_to(copy):
        os._exit(OTHER_PACKAGE)
    os._exit(int(found))


def campaign(rooms: list[str], minutes: float, seed: int, seconds: float) -> None:
    """Try faults of some rooms, in random order, room by room in turn, until the time is over."""
    end = time.monotonic() + 60 * minutes
    table = json.loads(TABLE.read_text()) if TABLE.is_file() else {}
    package = ROOT / "src" / "bitemporal"
    sources = {str(path.relative_to(package)): path.read_text("utf-8") for path in sorted(package.rglob("*.py"))}
    generator = random.Random(seed)
    waiting = []
    for room in rooms:
        found = [f for name in sources if name.startswith(room) for f in faults_of(name, sources[name])]
        generator.shuffle(found)
        waiting.append(found)
    while any(waiting) and time.monotonic() < end:
        for found in waiting:
            while found and (key := found[-1].key(sources[found[-1].module])) in table:
                found.pop()
            if not found or time.monotonic() >= end:
                continue
            fault = found.pop()
            tests = [test for test in tests_of(fault.module) if is_usable(test, seconds)]
            result = outcome(tests, 2 * seconds * len(tests), fault, sources[fault.module]) if tests else "no test"
            table[key] = {**fault._asdict(), "tests": tests, "result": result, "seed": seed, "verdict": "", "why": ""}
            TABLE.write_text(json.dumps(table, indent=1) + "\n")
            print(
                f"{result:10} {fault.module}:{fault.line} {fault.kind}: {fault.before!r} -> {fault.after!r}", flush=True
            )


def page(table: dict[str, dict[str, Any]]) -> str:
    """The page of a table."""
    kinds: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for entry in table.values():
        kinds[entry["module"].partition("/")[0]][entry["verdict"] or entry["result"]] += 1
    columns = ("noticed", "closed since", "no consequence", "unnoticed", "too slow", "no test")
    rows = [[room, *(counts[name] for name in columns)] for room, counts in sorted(kinds.items())]
    rows.append(["all", *(sum(counts[name] for counts in kinds.values()) for name in columns)])
    lines = ["# Faults that tests notice", "", *INTRODUCTION, ""]
    lines += ["| room | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    missed = [entry for entry in table.values() if entry["result"] not in ("noticed",)]
    lines += ["", "| where | fault | outcome | why |", "| --- | --- | --- | --- |"]
    for entry in sorted(missed, key=lambda e: (e["module"], e["line"])):
        change = " → ".join("`" + _short(entry[side]) + "`" for side in ("before", "after"))
        outcome = entry["verdict"] or entry["result"]
        lines.append(f"| {entry['module']}:{entry['line']} | {entry['kind']}: {change} | {outcome} | {entry['why']} |")
    return "\n".join(lines) + "\n"


INTRODUCTION = [
    "Written by `benchmarks/faults/faults.py --page` from `faults.json`. A random sample of one-place faults was put",
    "into copies of the package, one at a time; the test files that import the module, at most six, noticed it or not.",
    "",
    "The sample is as large as the table says: a small one tells nothing about the share of faults that are noticed.",
    "",
    "- closed since: no test noticed it, and one does now.",
    "- no consequence: looked at by hand; no user could tell.",
    "- too slow: the tests took over twice their time; a fault may have made them hang, nothing else is known.",
    "- no test: no test file of the module passes in its time without a fault; nothing is known.",
]


def _short(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|").replace("`", "'")
    return text if len(text) <= 90 else text[:87] + "..."


def main() -> None:
    """Run the campaign, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", nargs="+", default=["scenes", "run", "evaluation", "method", "inference", "pairs"])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=120, help="longer test files are left out")
    parser.add_argument("--page", action="store_true", help="only write README.md from faults.json")
    options = parser.parse_args()
    if not options.page:
        campaign(options.rooms, options.minutes, options.seed, options.seconds)
    if TABLE.is_file():
        PAGE.write_text(page(json.loads(TABLE.read_text())), "utf-8")


if __name__ == "__main__":
    main()
