"""Kills commands that write scenes at many moments, and runs each again: ``python tests/scene_kills.py FOLDER KILLS``.

After every kill, what stands in an output's place is whole; after the second run, the bytes are those of an undisturbed
run, nothing is left over, and neither inputs nor neighbours have changed. Everything is imported once: each run is a
fork, so that many fit into little time.
"""

import csv
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from bitemporal.cli.main import main
from bitemporal.inference.bundle import save_bundle
from bitemporal.models import create_model
from bitemporal.scenes.manifest import read_manifest
from bitemporal.scenes.merging import merge_polygons
from scene_files import ground, write_raster

FOREIGN = ("mine.txt", ".hidden", ".c.tif.swp", "c.tif.bak", ".c.tif.backup.tmp", "x/mine.txt", "tiles-2/A/mine.txt")
"""Files of the user's among the outputs."""


def make_inputs(folder: Path) -> None:
    """Two dates, a bundle, a manifest of two scenes, and what other commands start from."""
    folder.mkdir(parents=True)
    before = ground(1, 200, 220)
    after = before.copy()
    after[:, 30:90, 40:120] = 255 - after[:, 30:90, 40:120]
    write_raster(folder / "before.tif", before)
    write_raster(folder / "after.tif", after)
    torch.manual_seed(0)
    save_bundle(folder / "bundle", create_model("test_fc").eval())
    rows = ["id,before,after", *(f"{name},before.tif,after.tif" for name in "xy")]
    (folder / "scenes.csv").write_text("\n".join(rows))
    assert main([*scene(folder, folder / "first"), "--quiet"]) == 0


def scene(inputs: Path, out: Path) -> list[str]:
    words = ["predict-scene", f"{inputs}/before.tif", f"{inputs}/after.tif", "--bundle", f"{inputs}/bundle"]
    words += ["--out", f"{out}/c.tif", "--probability", f"{out}/p.tif", "--polygons", f"{out}/a.gpkg"]
    words += ["--quicklook", f"{out}/q.png", "--summary", f"{out}/s.json", "--device", "cpu"]
    return [*words, "--tile", "48", "--overlap", "8", "--threshold", "0.45"]


def archive(inputs: Path, out: Path) -> list[str]:
    words = ["predict-archive", "--manifest", f"{inputs}/scenes.csv", "--bundle", f"{inputs}/bundle", "--out", f"{out}"]
    words += ["--polygons", "a.geojson", "--probability", "p.tif", "--merge", f"{out}/m.gpkg", "--device", "cpu"]
    return [*words, "--tile", "48", "--overlap", "8", "--threads", "1"]


def threshold(inputs: Path, out: Path) -> list[str]:
    words = ["threshold", f"{inputs}/first/p.tif", "--out", f"{out}/c.tif", "--polygons", f"{out}/a.parquet"]
    return [*words, "--summary", f"{out}/s.json", "--threshold", "0.47", "--smooth"]


def tiles(inputs: Path, out: Path) -> list[str]:
    return ["data", "tiles", f"{inputs}/before.tif", f"{inputs}/after.tif", "--out", f"{out}/tiles", "--size", "20"]


def merge(inputs: Path, out: Path) -> int:
    scenes = read_manifest(inputs / "scenes.csv") * 40
    return merge_polygons(out / "m.geojson", [(each, inputs / "first" / "a.gpkg") for each in scenes]) and 0


def _run(words: Callable[[Path, Path], list[str]]) -> Callable[[Path, Path], int]:
    return lambda inputs, out: main(words(inputs, out))


COMMANDS: dict[str, Callable[[Path, Path], int]] = {
    "predict-scene": _run(scene),
    "threshold": _run(threshold),
    "merge": merge,
    "data tiles": _run(tiles),
    "predict-archive": _run(archive),
}


def fork(work: Callable[[], int]) -> int:
    """Begin a piece of work in another process; gives its number."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        torch.set_num_threads(1)
        said = os.open(os.devnull, os.O_WRONLY)
        os.dup2(said, 1)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def end_of(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def content(folder: Path, without_times: bool = True) -> dict[str, object]:
    """Files and what is in them, apart from places, times, and what says whether an earlier run was gone on with."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file():
            found[name] = None
        elif without_times and path.name in ("s.json", "summary.json"):
            summary = json.loads(path.read_text().replace(str(folder), "OUT"))
            found[name] = {key: value for key, value in summary.items() if key not in ("seconds", "resumed")}
        elif without_times and path.name == "status.csv":
            with path.open(newline="") as stream:
                found[name] = [(row["id"], row["status"] != "failed", row["car"]) for row in csv.DictReader(stream)]
        else:
            found[name] = path.read_bytes()
    return found


def new_folder(folder: Path) -> Path:
    for name in FOREIGN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"my own {name}")
    return folder


def kill_often(name: str, folder: Path, kills: int, seed: int) -> int:
    """Kill a command at several moments; gives the number of kills that it did not survive to the end before.

    Raises:
        AssertionError: When something is not as it should be.
    """
    run, inputs, generator = COMMANDS[name], folder / "inputs", random.Random(seed)
    untouched = content(inputs, without_times=False)
    began = time.monotonic()
    assert end_of(fork(lambda: run(inputs, new_folder(folder / "whole")))) == 0, f"{name} fails undisturbed"
    length = time.monotonic() - began
    whole, hit = content(folder / "whole"), 0
    for number in range(kills):
        out = new_folder(folder / f"{name}-{number}".replace(" ", "-"))
        process = fork(lambda out=out: run(inputs, out))
        time.sleep(length * (number + generator.random()) / kills)
        os.kill(process, signal.SIGKILL)
        hit += end_of(process) == -signal.SIGKILL
        for path, found in content(out).items():
            if not any(part.startswith(".") for part in Path(path).parts) and path != "status.csv":
                assert found == whole.get(path), f"{name}, kill {number}: {path} is not whole"
        done = (out / "tiles").exists()  # a folder of tiles that is there is not made again
        code = end_of(fork(lambda out=out: run(inputs, out)))
        assert code == done, f"{name}, kill {number}: the second run ends with {code}"
        after = content(out)
        assert after.keys() == whole.keys(), f"{name}, kill {number}: {after.keys() ^ whole.keys()}"
        different = [path for path in whole if after[path] != whole[path]]
        assert not different, f"{name}, kill {number}: {different} differ"
    assert content(inputs, without_times=False) == untouched, f"{name}: an input has changed"
    return hit


if __name__ == "__main__":
    place, count, start = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    assert end_of(fork(lambda: make_inputs(place / "inputs") or 0)) == 0
    for command in sys.argv[4:] or COMMANDS:
        (place / "whole").exists() and (place / "whole").rename(place / f"whole-before-{command}".replace(" ", "-"))
        print(f"{command}: {kill_often(command, place, count, start)} of {count} kills hit", flush=True)
