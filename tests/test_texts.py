"""File names that act on terminals, spreadsheets and pages are harmless where they are shown."""

import csv
import io
import os
import subprocess
import sys

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bitemporal.cli.main import main
from bitemporal.inference.bundle import save_bundle
from bitemporal.models import create_model
from bitemporal.outputs import Output
from bitemporal.pairs.partition import PartitionRow, read_partition, write_partition
from bitemporal.pairs.split_lists import read_stated, write_split
from bitemporal.scenes.kinds import STATUS
from bitemporal.scenes.manifest import SceneFiles, with_own_folders
from bitemporal.scenes.status import SceneStatus, StatusTable
from bitemporal.synthetic import write_scene
from bitemporal.texts import as_cell, from_cell, harmless, harmless_in_terminal
from forked import run_command

CLIPBOARD = "\x1b]52;c;aGFja2Vk\x07"
"""What puts text on the clipboard, in some terminals."""

TURNED = "\u202egpj"
STEMS = (
    "a",
    f"b{CLIPBOARD}",
    f"c{TURNED}",
    "=1+1",
    "-d",
    "+e",
    "@f",
    "'g",
    "'=h",
    "\ti",
    "j\x9b2J",
    "[b]k",
    "l,m",
    'n"o',
)


@given(st.text())
def test_every_text_comes_back_from_its_cell(text):
    cell = as_cell(text)
    assert from_cell(cell) == text
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cell in (text, f"'{text}") or cell.startswith("'\\")
    assert harmless(cell, lines=False) == cell


def test_cells_that_a_person_wrote_are_taken_as_they_are():
    stems = ["-d", "=1", "a", "'g", "", "a\\x1b", "\\x1b", CLIPBOARD]
    assert [from_cell(stem) for stem in stems] == stems
    assert as_cell("a\x1b[2J\\n\u202e") == r"'\a\x1b[2J\\n\u202e"


def test_characters_that_act_become_their_escapes():
    assert harmless(f"a{CLIPBOARD}{TURNED}\n\tb\r\x9b\u2028") == (
        "a\\x1b]52;c;aGFja2Vk\\x07\\u202egpj\n\tb\\r\\x9b\\u2028"
    )
    assert harmless("a\nb", lines=False) == "a\\nb"
    assert harmless("für \u0e01 \U0001f600") == "für \u0e01 \U0001f600"
    drawn = "\x1b[1;31mred\x1b[0m \x1b[2J\r\x1b[2K"
    assert harmless_in_terminal(drawn) == "\x1b[1;31mred\x1b[0m \\x1b[2J\\r\\x1b[2K"
    assert harmless_in_terminal(drawn, progress=True) == "\x1b[1;31mred\x1b[0m \\x1b[2J\r\x1b[2K"


def test_tables_of_stems_are_read_back(tmp_path):
    rows = [PartitionRow("train", stem, 0.25, "large") for stem in STEMS]
    write_partition(tmp_path / "partition.csv", rows)
    assert read_partition(tmp_path / "partition.csv") == rows
    write_split(tmp_path / "splits.csv", rows)
    for name in ("partition.csv", "splits.csv"):
        with (tmp_path / name).open(newline="", encoding="utf-8") as stream:
            cells = [cell for row in csv.reader(stream) for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]


@pytest.fixture
def pairs(tmp_path):
    """Pairs with names that act."""
    noise = np.random.default_rng(0)
    root = tmp_path / f"data{CLIPBOARD}"
    for stem in STEMS:
        for place in ("A", "B", "label"):
            (root / place).mkdir(parents=True, exist_ok=True)
            pixels = noise.integers(0, 256, (16, 16, 3), np.uint8)
            if place == "label":
                pixels = np.where(pixels[..., 0] > 127, 255, 0).astype(np.uint8)
            Image.fromarray(pixels).save(root / place / f"{stem}.png")
    return root


def test_stems_that_spreadsheets_would_run_are_found_again_in_their_list(tmp_path):
    rows = [PartitionRow("train" if number % 2 else "val", stem, 0.5, "") for number, stem in enumerate(STEMS)]
    write_split(tmp_path / "splits.csv", rows)
    listed = {(part.split, stem) for part in read_stated(tmp_path / "splits.csv") for stem in part.names}
    assert listed == {(row.split, row.stem) for row in rows}


@pytest.mark.parametrize("where", ["file", "terminal"])
def test_names_do_not_act_on_what_shows_the_output_of_a_command(where, pairs, tmp_path):
    """On a terminal, colours alone are left of the control sequences."""
    (pairs / "A" / f"odd{CLIPBOARD}.png").write_bytes(b"")
    command = [sys.executable, "-m", "bitemporal", "data", "check", str(pairs)]
    if where == "file":
        shown = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
        assert b"\x1b" not in shown
    else:
        pty = pytest.importorskip("pty")
        ours, theirs = pty.openpty()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 65536):
                shown += chunk
        except OSError:  # its end has closed
            pass
        process.wait()
        os.close(ours)
    assert b"\\x1b]52" in shown
    assert b"\x1b]" not in shown and b"\x07" not in shown and "\u202e".encode() not in shown


def test_errors_and_warnings_are_harmless(tmp_path, capsys):
    assert main(["data", "check", str(tmp_path / f"no{CLIPBOARD}")]) != 0
    said = capsys.readouterr()
    assert "\\x1b]52" in said.err + said.out and "\x1b" not in said.err


def test_the_id_of_a_scene_is_printable():
    scenes = [SceneFiles(name, ("a.tif",), ("b.tif",)) for name in ("good", f"a{CLIPBOARD}", "a\nb", TURNED)]
    kept = with_own_folders(scenes)
    assert [bool(scene.error) for scene in kept] == [False, True, True, True]
    assert all(scene.error.isprintable() for scene in kept)


def test_cells_of_an_archive_do_not_act(tmp_path):
    ids, path = ("=1+1", "-x", "@y", "+z", f"w{CLIPBOARD}", "usual"), tmp_path / "status.csv"
    scenes = [SceneFiles(name, ("a.tif",), ("b.tif",)) for name in ids]
    for error in (f"=cmd|' /C calc'!A1{CLIPBOARD}", f"no{CLIPBOARD}{TURNED}\n.tif"):
        with StatusTable(Output("output", path, STATUS), scenes, overwrite=False) as table:
            for scene in reversed(scenes):
                table.add(SceneStatus(scene.id, "failed", error=error, warning=error))
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
        assert [from_cell(row["id"]) for row in rows] == [harmless(name) for name in ids]
        assert path.read_text().replace("\n", "").isprintable() and len(path.read_text().splitlines()) == len(ids) + 1
        assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values() if cell)
        assert {from_cell(row["error"]) for row in rows} == {harmless(error, lines=False)}


def test_tags_of_rasters_do_not_act_on_what_is_made_of_them(tmp_path, monkeypatch):
    """Neither names nor tags of the images reach an output, or the terminal, as they are."""
    monkeypatch.chdir(tmp_path)
    save_bundle(tmp_path / "bundle", create_model("test_fc"))
    names = [f"{date}{CLIPBOARD}{TURNED}.tif" for date in ("before", "after")]
    write_scene(tmp_path / names[0], tmp_path / names[1], tmp_path / "label.tif", height=32, width=32)
    for name in names:
        with rasterio.open(name, "r+") as image:
            image.update_tags(TIFFTAG_IMAGEDESCRIPTION=CLIPBOARD, TIFFTAG_DATETIME=CLIPBOARD, AREA=CLIPBOARD)
            image.set_band_description(1, f"red{CLIPBOARD}")
            image.units = [CLIPBOARD] * image.count
    outputs = "-o c.tif --probability p.tif --polygons g.gpkg --summary s.json --quicklook q.png".split()
    for words in (
        ["predict-scene", *names, "--bundle", "bundle", *outputs],
        ["predict-scene", *names, "--bundle", "bundle", "-o", "d.tif", "--polygons", "g.geojson"],
        ["data", "tiles", *names, "-o", "tiles", "--size", "16"],
        ["predict-scene", *names, "--bundle", "bundle", "-o", "e.tif", "--bands", "7,8,9"],
    ):
        ended = run_command(words)
        assert ended.status == ("7,8,9" in words), ended.said
        assert CLIPBOARD not in ended.said and TURNED not in ended.said
    made = [path for path in tmp_path.rglob("*") if path.is_file() and path.name not in names]
    assert len(made) > 10
    for path in made:
        assert b"\x1b]52" not in path.read_bytes() and "\u202e".encode() not in path.read_bytes(), path
    with rasterio.open("c.tif") as mask:
        assert "\\x1b]52" in str(mask.tags())


def test_bytes_of_a_table_do_not_change_for_usual_names(tmp_path):
    write_split(tmp_path / "a.csv", [PartitionRow("train", "tile_1", 0.5, "")])
    assert (tmp_path / "a.csv").read_text() == "split,stem\ntrain,tile_1\n"
    assert list(csv.reader(io.StringIO("'=a\n"))) == [["'=a"]]
