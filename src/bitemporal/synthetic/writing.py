"""Synthetic pairs and scenes on disk."""

import json
import os
import shutil
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.progress import track

from bitemporal.errors import DataError, MissingExtraError, OptionError, OutputError
from bitemporal.imagery.training_images import SYNTHETIC, SYNTHETIC_SCENE
from bitemporal.outputs import NEW_FOLDER, Kind, Output, check_outputs, locked, replacing, replacing_folder
from bitemporal.reading import read_json, reading
from bitemporal.synthetic.changes import ChangeKind
from bitemporal.synthetic.pair import CarDistribution, check_settings, make_pair, make_scene
from bitemporal.workers import check_workers, map_in_processes

GENERATOR = 1
"""Increases whenever equal settings would give different pairs than before."""

GOLDEN = 0.5 * (5**0.5 - 1)

DEFAULT_PAIRS = {"train": 210, "val": 45, "test": 45}

UTM = 32649
"""EPSG code of the projection of scenes: WGS 84, UTM zone 49 north."""

ORIGIN = (480_000.0, 2_560_000.0)
"""Easting and northing in metres of the top left corner of a scene."""


_BYTES = 4
"""Bytes of the files of a pair, by pixel, at least."""


@dataclass(frozen=True)
class _Job:
    folder: Path
    stem: str
    seed: int
    size: int
    car: float
    gsd: float
    kinds: tuple[ChangeKind, ...] | None


def _jobs(
    folder: Path,
    pairs: Mapping[str, int],
    size: int,
    seed: int,
    cars: CarDistribution | Sequence[float],
    gsd: float,
    kinds: tuple[ChangeKind, ...] | None,
) -> list[_Job]:
    jobs = []
    for split, count in pairs.items():
        start = float(np.random.default_rng([seed, zlib.crc32(split.encode())]).random())
        for k in range(count):
            # by split and number within it, so that a larger set begins with the smaller one
            source = np.random.SeedSequence([seed, zlib.crc32(split.encode()), k])
            own, draw = source.spawn(2)
            if isinstance(cars, CarDistribution):
                # steps of the golden ratio fill the shares evenly, so that even a small split holds every part
                car = cars.draw(np.random.default_rng(draw), (start + k * GOLDEN) % 1.0)
            else:
                car = cars[k % len(cars)]
            number = int(own.generate_state(1, np.uint64)[0])
            jobs.append(_Job(folder / split, f"synth_{k:05d}", number, size, float(car), gsd, kinds))
    return jobs


def _write_pair(job: _Job) -> None:
    pair = make_pair(job.seed, job.size, job.car, job.gsd, job.kinds)
    for name, pixels in (("A", pair.before), ("B", pair.after), ("label", pair.label * np.uint8(255))):
        # noise compresses badly, so more effort would gain little
        Image.fromarray(pixels).save(job.folder / name / f"{job.stem}.png", compress_level=3)


def write_folder(
    root: str | os.PathLike[str],
    pairs: Mapping[str, int] | None = None,
    size: int = 256,
    seed: int = 0,
    cars: CarDistribution | Sequence[float] | None = None,
    gsd: float = 0.5,
    kinds: Sequence[ChangeKind] | None = None,
    workers: int = 1,
    progress: bool = False,
    overwrite: bool = False,
) -> None:
    """Write a set of pairs as ``ROOT/SPLIT/{A,B,label}/synth_00000.png``, labels 0 and 255.

    ``ROOT/synthetic.json`` holds all settings. The folder appears whole or not at all. If it already holds exactly this
    set, nothing is done.

    Args:
        root: Folder to write. It must be new or empty, or hold exactly this set.
        pairs: Number of pairs by split; 210 for train, 45 for val and 45 for test when ``None``.
        size: Height and width in pixels, at least 32.
        seed: At least 0. Equal settings give equal files, whatever the number of workers; a set with more pairs per
            split begins with those of the smaller set.
        cars: Distribution of change area ratios, or a list of them that every split repeats; the default
            ``CarDistribution`` when ``None``.
        gsd: Metres per pixel, in [0.2, 2].
        kinds: Kinds of change allowed; all when ``None``.
        workers: Processes to use, at least 1. With more than one, a script must call this under
            ``if __name__ == "__main__":``.
        progress: Whether to show a progress bar.
        overwrite: Also replace a set with other settings; never a folder that holds any other file.

    Raises:
        OutputError: When the folder holds anything else, or cannot be written.
        OptionError: When a setting is outside its range.
    """
    pairs = dict(DEFAULT_PAIRS if pairs is None else pairs)
    cars = CarDistribution() if cars is None else cars
    if not pairs or any(count < 0 for count in pairs.values()) or not sum(pairs.values()):
        raise OptionError(f"pairs: found {pairs}, expected the number of pairs by split, at least one in all")
    if not isinstance(cars, CarDistribution) and (not cars or any(not 0 <= car <= 1 for car in cars)):
        raise OptionError(f"cars: found {list(cars)}, expected change area ratios in [0, 1]")
    if seed < 0:
        raise OptionError(f"seed: found {seed}, expected at least 0")
    check_workers(workers)
    check_settings(seed, size, size, None, gsd, kinds)
    target = Path(root)
    existing = next(folder for folder in (target.absolute(), *target.absolute().parents) if folder.is_dir())
    free, needed = shutil.disk_usage(existing).free, sum(pairs.values()) * size**2 * _BYTES
    if needed > free:
        raise OptionError(
            f"pairs: {sum(pairs.values()):,} of {size} x {size} pixels take about {needed / 1e9:.3g} GB, but "
            f"{free / 1e9:.3g} GB are free in {existing}; write fewer or smaller ones, or choose another place"
        )
    settings: dict[str, Any] = {
        "generator": GENERATOR,
        "pairs": pairs,
        "size": size,
        "seed": seed,
        "cars": asdict(cars) if isinstance(cars, CarDistribution) else [float(car) for car in cars],
        "gsd": gsd,
        "kinds": None if kinds is None else sorted(set(kinds)),
    }
    chosen = None if kinds is None else tuple(sorted(set(kinds)))
    with locked(target):
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            fault = _fault(target, settings)
            if fault is None:
                return
            if not (overwrite and SYNTHETIC_SET.may_replace(target)):
                raise OutputError(fault)
        check_outputs([Output("root", target, SYNTHETIC_SET, "choose another folder")], (), overwrite)
        with replacing_folder(target) as folder:
            for split in pairs:
                for name in ("A", "B", "label"):
                    (folder / split / name).mkdir(parents=True)
            _run(_jobs(folder, pairs, size, seed, cars, gsd, chosen), workers, progress)
            (folder / SYNTHETIC).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


SYNTHETIC_SET = Kind(
    "an empty folder, or this set,",
    NEW_FOLDER.is_ours,
    members=(SYNTHETIC, *(f"*/{name}/synth_[0-9]*.png" for name in ("A", "B", "label"))),
)
"""The folder of a set: an earlier one with other settings is replaced when the user says so."""


def _run(jobs: Sequence[_Job], workers: int, progress: bool) -> None:
    def shown(done: Iterable[None]) -> Iterable[None]:
        return track(done, "drawing pairs", total=len(jobs)) if progress else done

    for _ in shown(map_in_processes(_write_pair, jobs, workers, chunk=4)):
        pass


def _fault(target: Path, settings: Mapping[str, Any]) -> str | None:
    """Why a folder, or file, is not exactly the set with these settings; ``None`` where it is."""
    if not target.is_dir():
        return f"{target}: found a file, expected a folder to write synthetic pairs into; choose another name"
    overwrite = ", or add --overwrite (overwrite=True in Python)" if SYNTHETIC_SET.may_replace(target) else ""
    try:
        with reading(target / SYNTHETIC, DataError, ""):
            present = read_json(target / SYNTHETIC)
    except DataError:
        present = None
    if not isinstance(present, dict):
        return (
            f"{target}: found files but no {SYNTHETIC}, expected an empty folder or one with synthetic pairs; "
            f"choose another name{overwrite}"
        )
    differing = sorted(key for key in settings.keys() | present.keys() if settings.get(key) != present.get(key))
    if differing:
        return (
            f"{target}: holds a synthetic set with other settings ({', '.join(differing)} differ); "
            f"choose another name{overwrite}"
        )
    expected = {
        Path(split, name, f"synth_{k:05d}.png")
        for split, count in settings["pairs"].items()
        for name in ("A", "B", "label")
        for k in range(count)
    } | {Path(SYNTHETIC)}
    files = {path.relative_to(target) for path in target.rglob("*") if path.is_file()}
    if files != expected:
        example = min(files ^ expected)
        return (
            f"{target}: differs from the set that its {SYNTHETIC} describes by {len(files ^ expected)} file(s), "
            f"such as {example}; choose another name{overwrite}"
        )
    return None


def _is_scene(path: Path) -> bool:
    import rasterio

    with rasterio.open(path, driver="GTiff") as file:  # as no other format, which could name other files
        return str(file.tags().get("TIFFTAG_IMAGEDESCRIPTION")) == SYNTHETIC_SCENE


def _is_scene_folder(folder: Path) -> bool:
    return SCENE_FOLDER.holds_no_other(folder) and all(map(_is_scene, folder.iterdir()))


_SCENE = Kind("a synthetic scene", _is_scene, (".tif", ".tiff"))
SCENE_FOLDER = Kind(
    "the folder of a synthetic scene", _is_scene_folder, members=("before.tif", "after.tif", "label.tif")
)
"""What ``data synth --scene`` makes."""


def write_scene(
    before: str | os.PathLike[str],
    after: str | os.PathLike[str],
    label: str | os.PathLike[str],
    seed: int = 0,
    height: int = 1024,
    width: int = 1024,
    car: float | None = None,
    gsd: float = 0.5,
    kinds: Sequence[ChangeKind] | None = None,
    epsg: int = UTM,
    origin: tuple[float, float] = ORIGIN,
    overwrite: bool = False,
) -> None:
    """Write one pair as three georeferenced GeoTIFFs on one grid.

    Args:
        before: File of the first date, three bands of uint8.
        after: File of the second date.
        label: File of the change mask, one band: 0 unchanged, 255 changed.
        seed: See ``make_scene``, as for the next five.
        height: Pixels.
        width: Pixels.
        car: Wanted change area ratio.
        gsd: Metres per pixel.
        kinds: Kinds of change allowed.
        epsg: EPSG code of a coordinate reference system in metres.
        origin: Easting and northing of the top left corner of the top left pixel.
        overwrite: Also replace files that are not an earlier synthetic scene.

    Raises:
        OutputError: When a file of another kind would be replaced, or a file cannot be written.
        MissingExtraError: When rasterio is not installed.
        OptionError: When an argument is outside its range.
    """
    try:
        import rasterio
    except ModuleNotFoundError as error:
        raise (MissingExtraError.of(error, "writing GeoTIFFs") or error) from error
    written = {"before": before, "after": after, "label": label}
    check_outputs([Output(name, Path(path), _SCENE) for name, path in written.items()], (), overwrite)
    scene = make_scene(seed, height, width, car, gsd, kinds)
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "dtype": "uint8",
        "crs": rasterio.crs.CRS.from_epsg(epsg),
        "transform": rasterio.transform.from_origin(origin[0], origin[1], gsd, gsd),
        "compress": "deflate",
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
    }
    images: list[tuple[str | os.PathLike[str], npt.NDArray[np.uint8]]] = [
        (before, scene.before),
        (after, scene.after),
        (label, (scene.label * np.uint8(255))[..., None]),
    ]
    for path, pixels in images:
        bands = pixels.shape[2]
        photometric = "RGB" if bands == 3 else "MINISBLACK"
        # in memory first: GDAL says nothing of a disk that is full
        with replacing(path) as temporary, rasterio.MemoryFile() as memory:
            with memory.open(count=bands, photometric=photometric, **profile) as file:
                file.update_tags(TIFFTAG_IMAGEDESCRIPTION=SYNTHETIC_SCENE)
                file.write(np.moveaxis(pixels, 2, 0))
            temporary.write_bytes(memory.getbuffer())
