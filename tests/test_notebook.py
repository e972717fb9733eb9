"""The notebook of scenes runs."""

import json
from pathlib import Path

import matplotlib
import pytest

from bitemporal.inference.bundle import save_bundle
from bitemporal.models import create_model

NOTEBOOK = Path(__file__).resolve().parents[1] / "examples/scenes.ipynb"


def cells():
    return ["".join(c["source"]) for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == "code"]


@pytest.mark.full
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    """On a bundle that stands where the demo's student would; real scenes are looked for next to the checkout."""
    matplotlib.use("Agg")
    (tmp_path / "checkout").mkdir()
    shared = NOTEBOOK.parents[2] / "shared"
    if shared.is_dir():
        (tmp_path / "shared").symlink_to(shared)
    monkeypatch.chdir(tmp_path / "checkout")
    save_bundle("runs/demo/student/bundle", create_model("test_fc").eval())
    scope = {}
    for cell in cells():
        exec(cell, scope)
    work = Path("runs/notebook")
    assert {path.name for path in work.glob("*.tif")} >= {"change.tif", "probability.tif"}
    if shared.is_dir():
        assert (work / "paris.gpkg").is_file()
        assert (work / "hongkong.gpkg").is_file()


def test_the_notebook_is_kept_without_outputs():
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert not cell.get("outputs")
