"""Eight of every command with one output at once: each ends well or is refused, and what is left is what one leaves."""

import os
import re
from pathlib import Path

import pytest

from command_runs import COMMANDS, content, fresh, make_inputs, start

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="processes that are waited for")

PROCESSES = 8
REFUSED = {
    "tiles": "another run is writing it|is not an empty folder",
    "download": "another run is writing it|is not an empty folder|another download",
}
"""What others are told while one makes a folder that must be new, and afterwards."""


@pytest.fixture(scope="module")
def inputs(tiny_pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tiny_pairs, tmp_path_factory.mktemp("inputs"))


def at_once(name: str, folder: Path, count: int) -> list[tuple[int | None, str]]:
    """Run a command so often, all begun at one moment; how each ends, and what it says."""
    waiting, begin = os.pipe()

    def wait() -> None:
        os.close(begin)
        os.read(waiting, 1)  # ends as the last writing end is closed

    runs = [start(name, folder, wait) for _ in range(count)]
    os.close(begin)
    ends = [(run.end(600), run.said()) for run in runs]
    os.close(waiting)
    return ends


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("stats", "pair", "tiles", "import") else [pytest.mark.full])
        for name in COMMANDS
    ],
)
def test_eight_at_once_leave_what_one_alone_leaves(name, inputs, tmp_path):
    alone, together = fresh(inputs, tmp_path / "alone"), fresh(inputs, tmp_path / "together")
    assert [code for code, _ in at_once(name, alone, 1)] == [0]
    ends = at_once(name, together, PROCESSES)
    print(name, sorted(str(code) for code, _ in ends))
    for code, said in ends:
        assert "Traceback" not in said, said
        assert code == 0 or (code == 1 and re.search(REFUSED.get(name, "another run is writing it"), said)), said
    assert 0 in [code for code, _ in ends], ends
    expected, found = content(alone), content(together)
    assert found.keys() == expected.keys()
    assert [file for file in found if found[file] != expected[file]] == []
