"""Runs that write one output at once: ``python tests/scene_races.py scene|archives FOLDER``. All is imported once."""

import csv
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from bitemporal import load, predict_scene
from bitemporal.errors import OutputError
from bitemporal.scenes import archive, read_manifest
from scene_kills import end_of, fork, make_inputs

RIGHT, REFUSED, WRONG = 10, 20, 30
"""What a process ends with."""


def at_once(works: list[Callable[[], int]]) -> Counter[int]:
    """Do pieces of work in a process each, which all begin together; gives how often each ended with what."""
    begin = time.time() + 0.5

    def wait_and(work: Callable[[], int]) -> int:
        time.sleep(max(0.0, begin - time.time()))
        return work()

    return Counter(map(end_of, [fork(lambda work=work: wait_and(work)) for work in works]))


def predict(inputs: Path, out: Path, mask: str, right: bytes | None = None) -> int:
    """Predict a scene three times, and again when refused."""
    detector, ended = load(inputs / "bundle", "cpu"), REFUSED
    for _ in range(3):
        try:
            predict_scene(
                detector, inputs / "before.tif", inputs / "after.tif", out / mask, probability=out / "p.tif",
                summary=out / "s.json", tile=48, overlap=8, threshold=0.45,
            )  # fmt: skip
        except OutputError as error:
            assert "another run is writing it" in str(error), error
            continue
        ended = RIGHT
        if right is not None and (out / "p.tif").read_bytes() != right:
            return WRONG
    return ended


def race_of_scenes(inputs: Path, folder: Path) -> None:
    assert at_once([lambda: predict(inputs, folder / "alone", "c.tif")]) == {RIGHT: 1}
    right, out = (folder / "alone" / "p.tif").read_bytes(), folder / "out"
    masks = ["c.tif", "d.tif"] * 4  # another mask, and the same probabilities
    found = at_once([lambda mask=mask: predict(inputs, out, mask, right) for mask in masks])
    assert found.keys() <= {RIGHT, REFUSED} and found[RIGHT], found
    assert {path.name for path in out.iterdir()} - {"c.tif", "c.qml", "d.tif", "d.qml"} == {"p.tif", "p.qml", "s.json"}
    for path in out.glob("*.tif"):
        alone = folder / "alone" / ("p.tif" if path.name == "p.tif" else "c.tif")
        assert path.read_bytes() == alone.read_bytes(), path


def in_this_process(plan: archive.Plan) -> archive._Worker:
    """A worker of an archive that starts no process."""
    worker = archive.SceneWorker(plan)

    def submit(scene: archive.SceneFiles) -> Future[archive.SceneStatus]:
        future: Future[archive.SceneStatus] = Future()
        future.set_result(worker.predict(scene))
        return future

    return archive._Worker(submit, lambda: 0, lambda: None)


def race_of_archives(inputs: Path, folder: Path) -> None:
    archive._process = in_this_process
    manifests = []
    for name, ids in (("one", "wxy"), ("two", "xyz"), ("three", "yxw")):
        manifests.append(inputs / f"{name}.csv")
        rows = ["id,before,after", *(f"{each},before.tif,after.tif" for each in ids), f"bad-{name},no.tif,no.tif"]
        manifests[-1].write_text("\n".join(rows))

    def run(manifest: Path, out: Path) -> int:
        options = archive.SceneOptions(tile=48, overlap=8, threshold=0.45)
        products = {"polygons": "a.geojson"}
        plan = archive.Plan((str(inputs / "bundle"),), str(out), "cpu", products=products, options=options)
        statuses = archive.predict_archive(plan, read_manifest(manifest), merge=out / "m.gpkg")
        return RIGHT if [each.status for each in statuses].count("failed") == 1 else WRONG

    assert at_once([lambda: run(manifests[0], folder / "alone")]) == {RIGHT: 1}
    out = folder / "out"
    assert at_once([lambda manifest=manifest: run(manifest, out) for manifest in manifests]) == {RIGHT: 3}
    with (out / "status.csv").open(newline="") as stream:
        rows = {row["id"]: row for row in csv.DictReader(stream)}
    assert rows.keys() == {*"wxyz", "bad-one", "bad-two", "bad-three"}
    for name, row in rows.items():
        assert row["status"] in (("failed",) if name.startswith("bad") else ("done", "skipped")), row
        if not name.startswith("bad"):
            for file in ("change.tif", "a.geojson"):
                assert (out / name / file).read_bytes() == (folder / "alone" / "w" / file).read_bytes()
    assert not list(out.rglob(".*"))


if __name__ == "__main__":
    place = Path(sys.argv[2])
    os.environ["HF_HUB_OFFLINE"] = "1"
    assert end_of(fork(lambda: make_inputs(place / "inputs") or 0)) == 0
    {"scene": race_of_scenes, "archives": race_of_archives}[sys.argv[1]](place / "inputs", place)
