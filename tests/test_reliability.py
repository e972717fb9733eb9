"""docs/reliability.md: every command has its row, every promise its test."""

import ast
import re
from pathlib import Path

import pytest

from bitemporal.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/\w+\.py)::(\w+)`( \(full\))?", PAGE)
CELLS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.splitlines() if line.startswith("| ")]
PROMISES = {cells[0]: cells for cells in ([cell.strip("| ") for cell in row] for row in CELLS)
            if re.fullmatch(r"[A-Z]\d+", cells[0])}  # fmt: skip
ROWS = {cells[0].strip("| `"): cells[1:] for cells in CELLS if cells[0].strip("| ").startswith("`")}


def test_every_command_has_a_row_of_promises_that_exist():
    assert [*ROWS] == [*COMMANDS]
    for command, cells in ROWS.items():
        assert len(cells) == 5, command
        for cell in cells:
            named = re.findall(r"\b[A-Z]\d+\b", cell)
            assert named and {*named} <= PROMISES.keys(), (command, cell)


def test_every_promise_names_a_test():
    assert len(NAMED) > 50
    for number, cells in PROMISES.items():
        assert number.startswith("N") or re.search(r"`tests/\w+\.py::test_\w+`", cells[-1]), number


@pytest.mark.parametrize(("file", "name", "full"), sorted({*NAMED}))
def test_every_named_test_exists(file, name, full):
    functions = {
        node.name: node for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }  # fmt: skip
    assert name in functions
    always_full = any(ast.unparse(decorator) == "pytest.mark.full" for decorator in functions[name].decorator_list)
    assert always_full == bool(full)
