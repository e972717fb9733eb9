"""Every reader of a file, with a whole file for it to start from, and a mutator of bytes.

``python tests/fuzz/trial.py SECONDS SEED`` tries damaged copies for so long, ``tests/test_fuzz.py`` a fixed number.
"""

import csv
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bitemporal.cli.main import main
from bitemporal.datasets.catalog import read_catalog
from bitemporal.datasets.unpack import safe_extract
from bitemporal.evaluation.results import read_result
from bitemporal.evaluation.scores import read_confusions
from bitemporal.imagery.decode import decode
from bitemporal.inference.bundle import load_network, read_description, read_training_images, save_bundle
from bitemporal.interop.opencd.checkpoint import read_checkpoint
from bitemporal.method.car import CarPartition
from bitemporal.models import create_model
from bitemporal.models.any_encoder import read_weights
from bitemporal.pairs.partition import read_partition
from bitemporal.pairs.split_lists import read_stated
from bitemporal.report.reading import read_cars, read_curve, read_kept, read_run
from bitemporal.run.fit import read_checkpoint as read_stage
from bitemporal.run.recipe import TrainRecipe

_WORDS = (
    b"1e999", b"-1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'"', b"[" * 200, b"\\ud800", b"\\u0000", b"\xff\xfe",
    b"\x80", b"\0", b"-1", b"9" * 400, b"1" * 5000, b"\n", b",", b";", b"\t", b"&a [*a]", b"<<: *a",
    b"!!python/name:os.system",
    b"[/b]", b"x" * 140_000, b"../../..", b"/dev/zero", b"=1+1",
)  # fmt: skip
"""What means something to one of the formats."""


def damaged(whole: bytes, rng: random.Random) -> bytes:
    """A copy of a file with one to four changes."""
    data = bytearray(whole)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data) + 1)
        match rng.randrange(8):
            case 0:
                del data[place:]
            case 1 if data:
                data[place % len(data)] ^= 1 << rng.randrange(8)
            case 2 if data:
                data[place % len(data)] = rng.randrange(256)
            case 3:
                del data[place : place + rng.randint(1, 64)]
            case 4:
                data[place:place] = data[place : place + rng.randint(1, 64)]
            case 5:
                data[place:place] = rng.choice(_WORDS)
            case 6:
                word = rng.choice(_WORDS)
                data[place : place + len(word)] = word[:400]
            case _:
                number = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, rng.getrandbits(64)))
                size = rng.choice((2, 4, 8))
                data[place : place + size] = (number % 256**size).to_bytes(size, rng.choice(("little", "big")))
    return bytes(data)


@dataclass(frozen=True)
class Reader:
    """A reader and a whole file for it.

    Attributes:
        file: The file that is damaged.
        read: Reads it; from the path of the damaged file, which lies where the whole one did.
    """

    file: Path
    read: Callable[[Path], object]


def readers(folder: Path) -> dict[str, Reader]:
    """Every reader by its name, with its whole files in a folder."""
    folder.mkdir(exist_ok=True)
    return dict(_all(folder))


def _all(folder: Path) -> Iterator[tuple[str, Reader]]:
    torch.manual_seed(0)
    model = create_model("test_fc")
    bundle = folder / "bundle"
    save_bundle(bundle, model)
    yield "bundle.json", Reader(bundle / "bundle.json", lambda path: _bundle(path.parent))
    yield "weights of a bundle", Reader(bundle / "weights.safetensors", lambda path: load_network(path.parent))

    state = folder / "state.pth"
    torch.save({"state_dict": model.state_dict(), "meta": {"epoch": 1}}, state)
    yield "checkpoint", Reader(state, read_checkpoint)
    old = folder / "old.pth"
    torch.save({"a.weight": torch.zeros(2)}, old, _use_new_zipfile_serialization=False)
    yield "checkpoint before torch 1.6", Reader(old, read_checkpoint)
    encoder = folder / "encoder.pth"
    torch.save({"a.weight": torch.zeros(2)}, encoder)
    yield "weights of an encoder", Reader(encoder, read_weights)
    last = folder / "last.ckpt"
    best = {"score": 0.5, "step": 1, "metrics": {}}
    torch.save({"format": 2, "step": 1, "model": {}, "optimiser": {}, "precision": {}, "best": best}, last)
    yield "last.ckpt", Reader(last, read_stage)

    recipe = folder / "recipe.yaml"
    TrainRecipe(model="test_fc", data="d", out="r", model_options={"a": [1, 2]}).to_yaml(recipe)
    yield "recipe.yaml", Reader(recipe, TrainRecipe.from_yaml)
    catalog = folder / "catalog.yaml"
    catalog.write_text("a: {title: A, source: {manual: {text: t}}}\n", encoding="utf-8")
    yield "catalog.yaml", Reader(catalog, read_catalog)

    partition = folder / "partition.csv"
    partition.write_text("split,stem,car,part\ntrain,a,0.25,small\nval,b,,\n", encoding="utf-8")
    yield "partition.csv", Reader(partition, read_partition)
    for name, text in (
        ("splits.csv", "split,stem\ntrain,a\nval,b\n"),
        ("train.txt", "a.png\nb.png\n"),
        ("splits.json", '{"train": ["a", {"name": "b"}], "val": ["c"]}'),
    ):
        (folder / name).write_text(text, encoding="utf-8")
        yield name, Reader(folder / name, read_stated)
    metrics = folder / "metrics.csv"
    metrics.write_text("step,loss,val_miou,val_loss\n1,0.5,0.25,0.5\n2,0.5,,\n", encoding="utf-8")
    yield "metrics.csv", Reader(metrics, read_curve)
    confusions = folder / "confusions.csv"
    _write_confusions(confusions)
    yield "confusions.csv", Reader(confusions, lambda path: read_confusions(path, CarPartition(), None))
    result = folder / "result.json"
    result.write_text(json.dumps({"format": 2, "name": "a", "seed": 0, "protocol": {"pairs": 1, "tile": None}}))
    yield "result.json", Reader(result, read_result)

    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    for ending in ("png", "jpg", "tif", "bmp", "webp"):
        image = folder / f"image.{ending}"
        Image.fromarray(pixels).save(image)
        yield image.name, Reader(image, lambda path: decode(path))
    for method in ("tiff_deflate", "tiff_lzw", "jpeg", "packbits"):
        image = folder / f"{method}.tif"
        Image.fromarray(pixels).save(image, compression=method)
        yield image.name, Reader(image, lambda path: decode(path))
    yield from _archives(folder)
    yield from _of_a_run(folder / "whole")
    yield from _of_scenes(folder)


def _archives(folder: Path) -> Iterator[tuple[str, Reader]]:
    """Archives of data sets."""
    content = folder / "content"
    (content / "A").mkdir(parents=True, exist_ok=True)
    (content / "A" / "a.txt").write_text("a" * 100)

    def unpack(path: Path) -> None:
        try:
            safe_extract(path, folder / "unpacked")
        finally:
            shutil.rmtree(folder / "unpacked", ignore_errors=True)

    for kind, ending in (
        ("zip", "zip"),
        ("tar", "tar"),
        ("gztar", "tar.gz"),
        ("bztar", "tar.bz2"),
        ("xztar", "tar.xz"),
    ):
        archive = Path(shutil.make_archive(str(folder / "archive"), kind, content))
        assert archive.name == f"archive.{ending}"
        yield archive.name, Reader(archive, unpack)


def _of_a_run(folder: Path) -> Iterator[tuple[str, Reader]]:
    """Every file of a distilled run, which a report reads together."""
    pairs, run, rng = folder / "pairs", folder / "run", np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        for number in range(count):
            label = np.zeros((32, 32), np.uint8)
            label[: 4 * (number % 3) + 1, :20] = 255
            images = {"A": rng.integers(0, 255, (32, 32, 3), np.uint8), "label": label}
            for name, array in {**images, "B": 255 - images["A"]}.items():
                (pairs / split / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(pairs / split / name / f"{number}.png")
    words = (
        f"distill --model test_fc --data {pairs} --out {run} --max-steps 1 --batch-size 2 --crop-size 32 --workers 0"
    )
    if not run.exists():
        assert main([*words.split(), "--quiet"]) == 0
    for file in sorted(run.rglob("*")):
        if file.suffix in (".csv", ".json", ".yaml"):
            yield f"run: {file.relative_to(run)}", Reader(file, lambda _: _read_run(run))


def _read_run(run: Path) -> None:
    read = read_run(run)
    read_cars(read.folder)
    for stage in read.folder.finished_stages():
        read_kept(read.folder, stage)
        read_curve(read.folder.stage(stage).metrics)


def _bundle(folder: Path) -> None:
    read_description(folder)
    read_training_images(folder)
    load_network(folder)


def _write_confusions(path: Path) -> None:
    from bitemporal.evaluation.scores import _COLUMNS

    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([_COLUMNS, ["a", "0.5", "medium", "", *([1] * (len(_COLUMNS) - 4))]])


def _of_scenes(folder: Path) -> Iterator[tuple[str, Reader]]:
    """Readers that need the extra geo."""
    import geopandas
    import rasterio
    import shapely
    from rasterio.transform import from_origin

    from bitemporal.scenes.geometry import Grid
    from bitemporal.scenes.manifest import read_manifest
    from bitemporal.scenes.sources import gdal_settings, open_source
    from bitemporal.scenes.vectors import PolygonsOnGrid

    item = {
        "id": "i",
        "properties": {"datetime": "2020-01-01T00:00:00Z", "tile": "t"},
        "assets": {"visual": {"href": "a.tif", "bands": [{"name": "red", "scale": 1.0, "nodata": 0}]}},
    }
    later = {**item, "properties": {"datetime": "2021-01-01T00:00:00Z", "tile": "t"}}
    for name, text in (
        ("manifest.csv", "id,before,after,mask\ns,a.tif,b.tif,m.tif\n"),
        ("manifest.tsv", "id\tbefore\tafter\ns\ta.tif\tb.tif\n"),
        ("items.json", json.dumps({"type": "FeatureCollection", "features": [item, later]})),
    ):
        (folder / name).write_text(text, encoding="utf-8")
        yield name, Reader(folder / name, read_manifest)

    transform = from_origin(480000, 2560000, 0.5, 0.5)
    raster = folder / "scene.tif"
    values = np.random.default_rng(0).integers(0, 255, (3, 32, 32), np.uint8)
    profile = {"driver": "GTiff", "width": 32, "height": 32, "count": 3, "dtype": "uint8", "compress": "deflate"}
    with rasterio.open(raster, "w", crs="EPSG:32649", transform=transform, **profile) as file:
        file.write(values)

    def scene(path: Path) -> None:
        from bitemporal.scenes.grids import DateOnGrid, common_grid

        with gdal_settings():
            source = open_source(path, "before")
            with DateOnGrid(source, common_grid(source, source)) as date:
                date.read_overview(32)

    yield "raster", Reader(raster, scene)
    yield from _of_journal(folder / "work")
    grid = Grid(rasterio.crs.CRS.from_epsg(32649), transform, 32, 32)
    shapes = geopandas.GeoDataFrame(geometry=[shapely.box(480000, 2559990, 480010, 2560000)], crs="EPSG:32649")
    for ending in ("geojson", "gpkg", "parquet", "shp"):
        area = folder / f"area.{ending}"
        shapes.to_parquet(area) if ending == "parquet" else shapes.to_file(area)
        yield area.name, Reader(area, lambda path: PolygonsOnGrid(path, grid, "within"))


def _of_journal(folder: Path) -> Iterator[tuple[str, Reader]]:
    """The state of an unfinished scene; one that is damaged is begun anew."""
    import rasterio

    from bitemporal.scenes.journal import Journal

    folder.mkdir(exist_ok=True)
    journal = Journal.__new__(Journal)
    journal.folder, journal.raster, journal.key = folder, folder / "probability.tif", "key"
    profile = {"driver": "GTiff", "width": 32, "height": 32, "count": 1, "dtype": "float32", "tiled": True}
    with rasterio.open(journal.raster, "w", blockxsize=16, blockysize=16, **profile) as file:
        file.write(np.zeros((1, 32, 32), np.float32))
    notes = folder / "journal.npz"
    np.savez(notes, key="key", strips=1, carried=np.zeros((2, 32), np.float32), tallies=json.dumps({"done": 1}))
    assert journal._resume()
    for file in (journal.raster, notes):
        yield f"journal: {file.name}", Reader(file, lambda _: journal._resume())
