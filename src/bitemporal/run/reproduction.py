"""The paper's experiments at full length: recipe, cost, and the published numbers next to the measured ones.

JL1-CD paper, arXiv 2502.13407: hyper-parameters of Table II, lengths of the authors' released configurations (200,000
steps for the origin, 100,000 for every teacher and the student; TTP 300, 200 and 100 epochs), three or two parts.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.benchmark import Timer

from bitemporal.errors import DataError, OptionError, RecipeError
from bitemporal.evaluation import Evaluation
from bitemporal.files import not_there
from bitemporal.metrics import PAPER_METRICS
from bitemporal.models import create_model, model_card
from bitemporal.models.facts import all_facts, model_facts
from bitemporal.pairs.batch import Batch
from bitemporal.run.augmentation import augment
from bitemporal.run.fit import check_fit, training_step
from bitemporal.run.folder import O_P, ORIGIN, STUDENT
from bitemporal.run.learner import Learner, Optimisation
from bitemporal.run.processes import make_fabric, process_count, under_torchrun
from bitemporal.run.recipe import DistillRecipe, RunOptions
from bitemporal.run.stages import DistillationRun
from bitemporal.synthetic import write_folder
from bitemporal.tables import make_table, per_cent

_PROBE_STEPS = 5
_CPU_PAIRS = 2
"""Pairs of the probe on a CPU: the fewest that batch normalisation takes."""
_DRY_PAIRS = {"train": 12, "val": 4, "test": 4}
_STRATEGIES = {ORIGIN: "origin", O_P: "O-P", STUDENT: "MTKD"}


@dataclass(frozen=True)
class Benchmark:
    """A data set of the paper.

    Attributes:
        title: Its name there.
        size: Side of its images in pixels.
        training_pairs: Number of pairs to learn from.
        validation_pairs: Number of pairs that choose checkpoints.
        test_pairs: Number of pairs that are scored.
        validation_share: Share of the released training pairs to set aside where the release has no val split.
        validate_every: Steps between validations.
    """

    title: str
    size: int
    training_pairs: int
    validation_pairs: int
    test_pairs: int
    validation_share: float
    validate_every: int


BENCHMARKS = {
    "jl1-cd": Benchmark("JL1-CD", 512, 3_900, 100, 1_000, 0.025, 2_500),
    "sysu-cd": Benchmark("SYSU-CD", 256, 12_000, 4_000, 4_000, 0.1, 5_000),
}
"""Data sets by their names on the command line."""

_EPOCHS = {"ttp": (300, 200, 100)}
"""Networks whose lengths are given in epochs: of the origin, of a teacher, of the student."""
_STEPS = (200_000, 100_000, 100_000)


def networks_of_paper() -> list[str]:
    """Registered names of the networks in the paper's tables."""
    return [facts.name for facts in all_facts() if facts.name_in_paper]


def paper_recipe(dataset: str, model: str, options: RunOptions | None = None) -> DistillRecipe:
    """The full-length recipe of one network on one data set.

    Args:
        dataset: ``jl1-cd`` or ``sysu-cd``.
        model: Registered name of a network of the paper's tables.
        options: What the paper leaves open.

    Raises:
        RecipeError: When the paper has no such data set or network, or its batch does not divide over the devices.
        PartitionError: When the paper has no such number of parts.
    """
    given = {name: value for name, value in asdict(options or RunOptions()).items() if value is not None}
    parts, devices = given["parts"], given["devices"]
    if dataset not in BENCHMARKS:
        raise RecipeError(f"dataset: found {dataset!r}, expected one of {', '.join(BENCHMARKS)}")
    if model not in networks_of_paper():
        raise RecipeError(
            f"model: {model!r} is not in the paper's tables, of which {', '.join(networks_of_paper())} are here "
            "(BAN-ViT-B-IN21K of Table III is not); train others with distill"
        )
    benchmark, defaults = BENCHMARKS[dataset], model_card(model).training
    if devices < 1 or defaults.batch_size % devices:
        raise RecipeError(
            f"devices: found {devices}, expected a number that divides the paper's batch of {defaults.batch_size} pairs"
        )
    lengths: Sequence[int] = _STEPS
    if model in _EPOCHS:
        lengths = [epochs * math.ceil(benchmark.training_pairs / defaults.batch_size) for epochs in _EPOCHS[model]]
    places = {"data": f"data/{dataset}", "out": f"runs/{dataset}-{model}{'' if parts == 3 else f'-{parts}-parts'}"}
    return DistillRecipe(
        model=model,
        pretrained=model_card(model).licence != "none",
        max_steps=lengths[0],
        teacher_steps=lengths[1],
        student_steps=lengths[2],
        paper=True,
        validate_every=benchmark.validate_every,
        crop_size=benchmark.size,
        validation_share=benchmark.validation_share,
        **(places | given),
    )


@dataclass(frozen=True)
class Cost:
    """What a run takes, from timed steps.

    Attributes:
        device: What was timed.
        step_s: Seconds per training step.
        forward_s: Seconds per forward pass of a batch.
        loading_s: Seconds to load and augment a batch in one process.
        hours: Hours of each stage, summed over all devices.
    """

    device: str
    step_s: float
    forward_s: float
    loading_s: float
    hours: dict[str, float]

    @property
    def total_hours(self) -> float:
        """Hours of all stages."""
        return sum(self.hours.values())

    def __str__(self) -> str:
        """What was timed."""
        return (
            f"{self.device}; step {self.step_s:.3f} s, forward pass {self.forward_s:.3f} s, loading "
            f"{self.loading_s:.3f} s a batch, in one process"
        )


def estimate_cost(recipe: DistillRecipe, dataset: str) -> Cost:
    """Time a few steps of a network on this machine, and work out what the whole run takes.

    The network has random weights and the pairs are noise, which costs the same. A step waits for the slower of network
    and loading. On a CPU, whose time grows as the batch does, a few pairs are timed in place of a batch: it may not fit
    the memory.

    Args:
        recipe: Recipe of the run.
        dataset: ``jl1-cd`` or ``sysu-cd``.

    Raises:
        RecipeError: When the run would be refused, as for a batch that does not divide over the devices.
    """
    benchmark = BENCHMARKS[dataset]
    check_fit(recipe, recipe.model, model_card(recipe.model))
    fabric = make_fabric(replace(recipe, devices=1))  # one device stands for all, except under torchrun
    fabric.launch()
    processes = process_count(recipe)
    learner = Learner(create_model(recipe.model))
    card = learner.model.card
    per_device = recipe.training(card).batch_size // processes
    on_gpu = fabric.device.type == "cuda"
    probed = per_device if on_gpu else min(per_device, _CPU_PAIRS)
    size = recipe.crop_size
    images = torch.randint(0, 256, (2, probed, 3, size, size), dtype=torch.uint8)
    target = (torch.rand(probed, size, size) < 0.1).long()
    batch = Batch(images[0], images[1], target).to(fabric.device)
    optimisation = Optimisation.of_recipe(recipe, card, recipe.max_steps)
    network, optimiser = fabric.setup(learner, optimisation.optimiser(learner.model))

    def step() -> None:
        training_step(fabric, network, optimiser, batch, optimisation.training.clip_norm)

    @torch.no_grad()
    def forward() -> None:
        with fabric.autocast():
            learner.outputs(batch)

    def load() -> None:
        for first, second, label in zip(*images, target.to(torch.uint8), strict=True):
            augment(torch.stack([first, second]), label, card.training.augmentation, size)

    step_s, forward_s, loading_s = (_seconds(work) * per_device / probed for work in (step, forward, load))
    slowest = max(step_s, loading_s / max(1, recipe.workers or 0))
    validation = forward_s * benchmark.validation_pairs / per_device
    half = recipe.max_steps // 2

    def hours(steps: int, more: float = 0.0) -> float:
        times = steps / (recipe.validate_every or max(1, steps // 20))
        # every device takes each step, and its share of the validation pairs
        return (steps * max(slowest, step_s + more) * processes + times * validation) / 3600

    teachers = len(recipe.partition.names)
    return Cost(
        device=torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads",
        step_s=step_s,
        forward_s=forward_s,
        loading_s=loading_s,
        hours={
            "origin": hours(recipe.max_steps),
            f"{teachers} teachers": teachers * hours(recipe.teacher_steps or half),
            "control": hours(recipe.student_steps or half),
            "student": hours(recipe.student_steps or half, forward_s),
            "verdict": 5 * forward_s * (benchmark.test_pairs + benchmark.validation_pairs) / per_device / 3600,
        },
    )


def _seconds(work: Callable[[], None]) -> float:
    """Seconds per call: the mean of several calls, after two that warm up."""
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return timer.timeit(_PROBE_STEPS).mean


def cost_table(cost: Cost) -> Table:
    """The estimate as a table."""
    unit = "GPU hours" if torch.cuda.is_available() else "CPU hours"
    rows = [[stage, f"{hours:,.1f}"] for stage, hours in (*cost.hours.items(), ("in all", cost.total_hours))]
    return make_table(("stage", unit), rows)


def check_data(recipe: DistillRecipe, dataset: str) -> None:
    """Refuse to begin without pairs.

    Raises:
        DataError: When their folder is not there.
    """
    if not Path(recipe.data).is_dir():
        raise DataError(
            f"{not_there(recipe.data, 'folder')}; expected the pairs of {BENCHMARKS[dataset].title}: "
            f"`bitemporal data download {dataset}`, or name their folder by --data"
        )


def dry_run(recipe: DistillRecipe, console: Console | None = None) -> dict[str, Evaluation]:
    """Every stage of a recipe for two steps on a few tiny synthetic pairs, in a temporary folder.

    Args:
        recipe: See ``paper_recipe``; its run folder is not touched.
        console: Where progress is shown; standard error by default.

    Raises:
        OptionError: Under torchrun.
    """
    if under_torchrun():  # each process would make a temporary folder of its own
        raise OptionError("dry_run: found under torchrun, expected a single process: start it without torchrun")
    card = model_card(recipe.model)
    size = card.multiple * math.ceil(max(card.minimum, 64) / card.multiple)
    with tempfile.TemporaryDirectory(prefix="bitemporal-dry-run-") as folder:
        pairs = Path(folder) / "pairs"
        write_folder(pairs, _DRY_PAIRS, size=size, seed=0)
        tiny = replace(
            recipe,
            data=str(pairs),
            out=str(Path(folder) / "run"),
            pretrained=False,
            max_steps=2,
            teacher_steps=2,
            student_steps=2,
            validate_every=2,
            crop_size=size,
            batch_size=2 * recipe.devices,
            workers=0,
        )
        return DistillationRun(tiny, console)()


def paper_table(evaluations: dict[str, Evaluation], recipe: DistillRecipe, dataset: str) -> Table:
    """Measured scores next to the published ones, in per cent.

    Args:
        evaluations: Evaluations of origin, O-P, control and student.
        recipe: Recipe of the run.
        dataset: ``jl1-cd`` or ``sysu-cd``.
    """
    facts, title = model_facts(recipe.model), BENCHMARKS[dataset].title
    published = [score for score in facts.published if score.dataset == title and score.split == "test"]
    note = "" if published else f" The paper's numbers for {title} are unavailable."
    rows = []
    for name, evaluation in evaluations.items():
        summary = evaluation.summary()
        for averaging in ("image_mean", "image_mean_empty_0", "dataset"):
            rows.append([name, averaging, *(per_cent(summary[averaging][metric]) for metric in PAPER_METRICS)])
        for score in published:
            if score.strategy == _STRATEGIES.get(name) and score.teachers in (None, len(recipe.partition.names)):
                numbers = (f"{getattr(score, metric):.2f}" for metric in PAPER_METRICS)
                rows.append([name, f"published, Table {score.table}", *numbers])
    return make_table(
        ("detector", "averaging", *PAPER_METRICS),
        rows,
        title=f"{facts.name_in_paper or recipe.model} on {title}",
        caption="per cent; the paper's averaging is image_mean (an empty class counts 1), and its convention for 0/0 "
        f"is known for mIoU only; image_mean_empty_0 is that of a later scorer by its authors.{note}",
        text_columns=2,
    )
