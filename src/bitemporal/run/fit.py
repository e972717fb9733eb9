"""One stage, from the network's initial weights to the bundle with the best ones.

``fit`` is the loop: resume, step, validate, keep the best, save. After each validation it writes ``best.safetensors``,
if the weights are the best so far, and then ``last.ckpt``, which holds everything else. A stage that is killed and
started again resumes at ``last.ckpt`` and repeats the steps since; ``train_stage`` skips a stage whose bundle is
complete. Whether the recipe allows it is checked before, in ``same_recipe.py``. On a CPU it ends with the same bundle
and the same ``metrics.csv`` as an uninterrupted one, byte for byte: every sample and every random draw is a function of
the seed and the step alone. A GPU may round differently.

A stage may be given more steps later. Steps below the old length keep the old length's schedule and validations, all
others have those of the new length, so that the weights do not depend on when the run was stopped in between.
``last.ckpt`` keeps the lengths.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer

import bitemporal
from bitemporal.errors import BundleError, DataError, DeviceError, RecipeError
from bitemporal.files import not_there, sha256
from bitemporal.imagery.masks import IGNORE
from bitemporal.inference import NetworkDetector
from bitemporal.inference.bundle import WEIGHTS, check_bundle, read_weights, save_bundle, write_weights
from bitemporal.metrics import MAIN_METRICS, confusion_counts, metrics
from bitemporal.models import ChangeModel, ModelCard
from bitemporal.outputs import clear_leftovers, replacing
from bitemporal.pairs import Pair, PairFolder
from bitemporal.pairs.batch import Batch
from bitemporal.reading import check_zip, reading
from bitemporal.run.data import training_images
from bitemporal.run.folder import StageFolder
from bitemporal.run.learner import Learner, Optimisation
from bitemporal.run.lengths import is_trained, trained_steps
from bitemporal.run.loading import (
    TrainingSamples,
    ValidationPairs,
    derive_seed,
    loading_processes,
    training_loader,
    validation_loader,
)
from bitemporal.run.processes import (
    errors_of_started_processes,
    is_first_process,
    local_process_count,
    make_fabric,
    process_count,
    wait_for_all_processes,
)
from bitemporal.run.progress import Loggers, MetricsTable, StageProgress
from bitemporal.run.recipe import TrainRecipe
from bitemporal.workers import check_workers, end_with_parent

_VALIDATIONS_PER_STAGE = 20
_ROWS_PER_VALIDATION = 5


@dataclass(frozen=True)
class Stage:
    """What is trained on what, and how.

    Attributes:
        name: origin, teacher-small, student, ...
        recipe: Recipe of the run.
        pairs: Reads the pairs.
        folder: Where the stage keeps its files.
        train: Labelled training pairs.
        val: Labelled validation pairs, which choose the checkpoint.
        steps: Optimiser steps.
        stream: Name of the random stream; stages of one stream see the same samples and draw the same dropout.
        absent: The class that no label of ``val`` has, if any. Its IoU is undefined, and the mean IoU stays at the same
            value for good; the checkpoint is then chosen by the validation loss.
    """

    name: str
    recipe: TrainRecipe
    pairs: PairFolder
    folder: StageFolder
    train: list[Pair]
    val: list[Pair]
    steps: int
    stream: str
    absent: Literal["changed", "unchanged"] | None = None

    @property
    def seed(self) -> int:
        """Seed of the stage's samples, and of what is random within its steps."""
        return derive_seed(self.recipe.seed, self.stream)

    @property
    def finished(self) -> bool:
        """Whether the stage has its bundle, of a network that was trained for as many steps as it should."""
        return is_trained(self.folder, self.steps)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Steps that the stage should have had at first, and after each extension; the last ones are ``steps``.

        Raises:
            BundleError: When the checkpoint to resume from is damaged, or was written by an earlier version.
        """
        if not self.folder.checkpoint.exists():
            return (self.steps,)
        known = read_checkpoint(self.folder.checkpoint).get("lengths")
        if known is None:  # a checkpoint from before stages could be extended
            known = [trained_steps(self.folder, self.steps)] if self.folder.finished else []
        return (*(length for length in known if length < self.steps), self.steps)

    @property
    def selection(self) -> str:
        """What chooses the checkpoint, in words."""
        if self.absent is None:
            return "dataset mIoU on the validation pairs"
        return f"lowest loss on the validation pairs, whose labels have no {self.absent} pixel"

    def samples(self, card: ModelCard) -> TrainingSamples:
        """The training samples of the stage, by number."""
        chosen = self.recipe.augmentation
        augmentation = card.training.augmentation if chosen == "model" else chosen
        return TrainingSamples(self.pairs, self.train, augmentation, self.recipe.crop_size, self.seed)


def check_fit(recipe: TrainRecipe, name: str, card: ModelCard) -> None:
    """Refuse what the network or the machine cannot do: crop size, batch over devices, precision, number of GPUs.

    Raises:
        RecipeError: When a field does not suit the network; the text names it.
        DeviceError: When the machine lacks what a field asks for.
        OptionError: When there would be more loading processes than the machine can be expected to run.
    """
    check_workers(recipe.workers or 0, least=0)
    cuda = torch.cuda.is_available()
    if recipe.precision == "fp16" and not cuda:
        raise DeviceError("precision: fp16 needs a CUDA device, and there is none; use bf16 or fp32")
    processes, devices = process_count(recipe), local_process_count(recipe)
    if cuda and devices > torch.cuda.device_count():
        raise DeviceError(
            f"devices: found {devices}, but this machine has {torch.cuda.device_count()} "
            f"GPU(s); use --devices {torch.cuda.device_count()}"
        )
    size, multiple, minimum = recipe.crop_size, card.multiple, card.minimum
    if size % multiple or size < minimum:
        raise RecipeError(
            f"crop_size: {size} pixels do not suit {name}, which needs a multiple of {multiple} and at least {minimum}"
        )
    batch_size = recipe.training(card).batch_size
    if batch_size % processes:
        raise RecipeError(
            f"batch_size: {batch_size} pairs, the default of {name}, do not divide over {processes} "
            f"devices; give a multiple of {processes}"
        )


def train_stage(stage: Stage, build: Callable[[], Learner], console: Console) -> Path:
    """Train a stage to its end, unless that has been done.

    Args:
        stage: What is trained on what, and how.
        build: Makes the learner, with the network's initial weights.
        console: Where progress is shown.

    Returns:
        The bundle with the best weights on the validation pairs.

    Raises:
        DataError: When there are no training or validation pairs.
        RecipeError: When the loss is not a finite number.
        BundleError: When the checkpoint to resume from is damaged.
    """
    if not stage.finished:
        _train(stage, build, console)
    if is_first_process():
        stage.folder.best.unlink(missing_ok=True)  # here, as a process can be killed between bundle and removal
    wait_for_all_processes(stage.recipe)
    return stage.folder.bundle


def _train(stage: Stage, build: Callable[[], Learner], console: Console) -> None:
    """Train a stage from where it stopped, and write its bundle."""
    for split, pairs in (("training", stage.train), ("validation", stage.val)):
        if not pairs:
            raise DataError(f"{stage.pairs.root}: stage {stage.name} has no labelled {split} pairs")
    stage.folder.path.mkdir(parents=True, exist_ok=True)
    if is_first_process():
        clear_leftovers(stage.folder.files())
    first_step, lengths = resume_step(stage.folder), stage.lengths
    Fabric.seed_everything(derive_seed(stage.recipe.seed, stage.stream, "start") % 2**32, verbose=False)
    learner = build()
    if first_step:
        console.print(f"{stage.name}: resumes at step {first_step}", highlight=False)
    if lengths[:-1]:
        console.print(_describe_extension(stage, lengths, learner.model.card), highlight=False, soft_wrap=True)
    if stage.absent is not None:
        console.print(
            f"{stage.name}: the validation labels have no {stage.absent} pixel, so the checkpoint with the lowest "
            "validation loss is kept, in place of that with the best mIoU",
            highlight=False,
            soft_wrap=True,
        )
    if first_step < stage.steps:
        fabric = make_fabric(stage.recipe)
        try:
            # a console cannot be sent to other processes; they make their own
            shown = console if stage.recipe.devices == 1 else None
            # as an argument of its own the learner is copied, or processes would share one set of weights
            launch: Callable[..., None] = fabric.launch
            with errors_of_started_processes():
                trained = fit if shown is not None else _fit_in_own_process
                launch(partial(trained, stage=stage, console=shown), learner)
        except KeyboardInterrupt:
            console.print(
                f"{stage.name}: run the same command again, and the run resumes at step {resume_step(stage.folder)}",
                highlight=False,
            )
            raise
    if is_first_process():
        _finish(stage, learner.model)


def _fit_in_own_process(fabric: Fabric, learner: Learner, stage: Stage, console: Console | None) -> None:
    end_with_parent()
    fit(fabric, learner, stage, console)


def fit(fabric: Fabric, learner: Learner, stage: Stage, console: Console | None = None) -> None:
    """Train a stage to its last step; every process runs this.

    Args:
        fabric: Devices, processes and precision.
        learner: The network with its initial weights, and its loss.
        stage: What is trained on what, and how.
        console: Where progress is shown; standard error by default.

    Raises:
        RecipeError: When the loss is not a finite number.
    """
    recipe, card, lengths = stage.recipe, learner.model.card, stage.lengths
    plans = {length: _Plan.of(recipe, card, length) for length in lengths}
    optimisation = plans[stage.steps].optimisation
    if learner.distillation is not None:
        learner.distillation.teachers.to(fabric.device)
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        learner.model = nn.SyncBatchNorm.convert_sync_batchnorm(learner.model)
    optimiser = optimisation.optimiser(learner.model)
    wrapped, wrapped_optimiser = fabric.setup(learner, optimiser)
    step, best = _resume(fabric, stage.folder, learner.model, optimiser)

    loading = {
        "batch_size": optimisation.training.batch_size,
        "workers": recipe.workers or 0,
        "rank": fabric.global_rank,
        "world_size": fabric.world_size,
    }
    training = training_loader(stage.samples(card), first_step=step, steps=stage.steps, **loading)
    validation = validation_loader(ValidationPairs(stage.pairs, stage.val), **loading)
    losses, table = _Losses(fabric.device), MetricsTable(stage.folder.metrics)
    console = console or Console(stderr=True, quiet=not fabric.is_global_zero)
    progress = StageProgress(stage.name, step, stage.steps, console, "mIoU" if stage.absent is None else "val loss")
    if fabric.is_global_zero:
        table.forget_after(step)
        loggers = Loggers(stage.folder.path)
    # with autocast's cache, both dates share a copy of each weight in half precision, and their gradients add up there
    uncached = torch.autocast("cpu", enabled=False, cache_enabled=False)
    with uncached, loading_processes(recipe.workers or 0), progress if fabric.is_global_zero else nullcontext():
        for batch in training:
            # by the step's number, so that a resumed run draws what an uninterrupted one draws
            torch.manual_seed(derive_seed(stage.seed, "step", step, fabric.global_rank))
            length = next(length for length in lengths if step < length)
            plan = plans[length]
            plan.optimisation.set_learning_rate(optimiser, step)
            batch = batch.to(fabric.device)
            losses.add(step, training_step(fabric, wrapped, wrapped_optimiser, batch, optimisation.training.clip_norm))
            step += 1
            validates = step % plan.validate_every == 0 or step == length
            if validates or step % plan.row_every == 0:
                learning_rate = optimiser.param_groups[0]["peak"] * plan.optimisation.factor(step)
                row: dict[str, str | int] = {"step": step, "lr": f"{learning_rate:.6g}", **losses.means()}
                progress.loss = float(row["loss"])
                scores = validate(fabric, learner.model, validation, stage.absent is not None) if validates else {}
                shown = MAIN_METRICS if stage.absent is None else (*MAIN_METRICS, "loss")
                row |= {f"val_{name}": f"{scores[name]:.6f}" if validates else "" for name in shown}
                if fabric.is_global_zero:
                    table.write(row)
                    loggers.write({name: float(value) for name, value in row.items() if value != ""}, step)
            if validates:
                # the best weights go first: if the process is killed before the checkpoint is written, it resumes at
                # the previous one, and arrives at the same best weights again
                score = scores["miou"] if stage.absent is None else -scores["loss"]
                score = -math.inf if math.isnan(score) else score
                if score >= best["score"]:  # of equal ones the later, which has been trained longer
                    digest = _save_best(fabric, stage.folder, learner.model)
                    best = {"score": score, "step": step, "metrics": scores, "sha256": digest}
                _save(fabric, stage.folder, learner.model, optimiser, step, best, lengths)
                progress.validated(step, scores["miou"] if stage.absent is None else scores["loss"])
            progress.advance(step)
    if fabric.is_global_zero:
        loggers.end()


def training_step(
    fabric: Fabric, network: nn.Module, optimiser: Optimizer, batch: Batch, clip_norm: float | None
) -> dict[str, Tensor]:
    """Take one step.

    Args:
        fabric: Devices and precision.
        network: The learner, set up by Fabric.
        optimiser: Its optimiser, set up by Fabric.
        batch: Pairs on the device.
        clip_norm: Largest norm of the gradient of all parameters together; ``None`` does not clip.

    Returns:
        Scalars on the device, so that nothing waits for it: the sum of all terms as ``loss``, and each of them.
    """
    optimiser.zero_grad()
    terms = network(batch.before, batch.after, batch.target)
    total = torch.stack([term.float() for term in terms.values()]).sum()
    fabric.backward(total)
    if clip_norm is not None:
        fabric.clip_gradients(network, optimiser, max_norm=clip_norm, error_if_nonfinite=False)
    optimiser.step()
    return {name: term.detach() for name, term in {"loss": total, **terms}.items()}


@torch.no_grad()
def validate(
    fabric: Fabric, model: ChangeModel, loader: Iterable[list[Batch]], with_loss: bool = False
) -> dict[str, float]:
    """Compare the masks of whole validation pairs with their labels, over all processes.

    Args:
        fabric: Devices, processes and precision.
        model: The network.
        loader: This process's share of the pairs.
        with_loss: Compute the loss too.

    Returns:
        ``MAIN_METRICS`` of the data set and, where it is asked for, ``loss``: the mean over the pairs of the network's
        own supervised loss.
    """
    counts, losses = np.zeros(4, np.int64), [0.0, 0.0]
    detector = NetworkDetector(model)  # in evaluation mode
    for batches in loader:
        for batch in batches:
            with fabric.autocast():
                answers = detector.answers(list(batch.before), list(batch.after))
            for answer, target in zip(answers, batch.target.numpy(), strict=True):
                counts += confusion_counts(answer.probability[0].cpu().numpy() > 0.5, target)
            for loss in _pair_losses(fabric, model, batch) if with_loss else ():
                losses = [losses[0] + loss, losses[1] + 1]
    model.train()
    values = metrics(_sum(fabric, torch.from_numpy(counts)).numpy(), "dataset")
    found = {name: values[name] for name in MAIN_METRICS}
    if with_loss:
        total, pairs = _sum(fabric, torch.tensor(losses)).tolist()
        found["loss"] = total / pairs if pairs else math.nan
    return found


def _sum(fabric: Fabric, values: Tensor) -> Tensor:
    """The sum over all processes, on the CPU."""
    return torch.as_tensor(fabric.all_reduce(values.to(fabric.device), reduce_op="sum")).cpu()


def _pair_losses(fabric: Fabric, model: ChangeModel, batch: Batch) -> Iterator[float]:
    """The network's own loss for each pair that has a valid pixel, whatever the pairs it shares a batch with."""
    for before, after, target in zip(batch.before, batch.after, batch.target, strict=True):
        if (target == IGNORE).all():
            continue
        with fabric.autocast():
            dates = [model.prepare(image[None].to(fabric.device)) for image in (before, after)]
            rows, columns = (padded - side for padded, side in zip(dates[0].shape[-2:], target.shape, strict=True))
            padded = F.pad(target[None].to(fabric.device), (0, columns, 0, rows), value=IGNORE)
            terms = model.loss(model.outputs(*dates), padded)
        yield float(torch.stack([term.float() for term in terms.values()]).sum())


@dataclass(frozen=True)
class _Plan:
    """Schedule, validations and rows of a stage of some length."""

    optimisation: Optimisation
    validate_every: int
    row_every: int

    @classmethod
    def of(cls, recipe: TrainRecipe, card: ModelCard, steps: int) -> "_Plan":
        validate_every = min(recipe.validate_every or -(-steps // _VALIDATIONS_PER_STAGE), steps)
        rows = max(1, validate_every // _ROWS_PER_VALIDATION)
        return cls(Optimisation.of_recipe(recipe, card, steps), validate_every, rows)


def _describe_extension(stage: Stage, lengths: tuple[int, ...], card: ModelCard) -> str:
    *_, old, new = lengths
    share = Optimisation.of_recipe(stage.recipe, card, new).factor(old)
    return (
        f"{stage.name}: extended from {old} to {new} steps; up to step {old}, the learning rate is that of a schedule "
        f"of {old} steps, which ends at 0; from there on it is that of {new} steps, at {share:.0%} of the peak"
    )


class _Losses:
    """Sums of the losses since the last row, kept on the device: asking for them at every step would wait for it."""

    def __init__(self, device: torch.device) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps = 0
        self.first_bad_step = torch.tensor(math.inf, device=device)

    def add(self, step: int, terms: Mapping[str, Tensor]) -> None:
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.double()
        self.steps += 1
        bad_step = torch.where(torch.isfinite(terms["loss"]), math.inf, float(step))
        self.first_bad_step = torch.minimum(self.first_bad_step, bad_step)

    def means(self) -> dict[str, str]:
        """Mean losses per step as text, and a new beginning.

        Raises:
            RecipeError: When the loss of a step was not a finite number.
        """
        means = {name: f"{float(total) / self.steps:.6g}" for name, total in self.sums.items()}
        if math.isfinite(first := float(self.first_bad_step)):
            terms = ", ".join(f"{name} {value}" for name, value in means.items())
            raise RecipeError(
                f"step {first:.0f}: the loss is not a finite number ({terms}), so training cannot continue. Lower "
                "lr or lambda, or use another precision; an earlier checkpoint is kept"
            )
        self.sums, self.steps = {}, 0
        return means


CHECKPOINT_FORMAT = 2
"""Version of ``last.ckpt``; the first one was a checkpoint of PyTorch Lightning."""

_ANEW = "remove it to train this stage from the beginning, or restore it from a backup"


BEST_WEIGHTS = {"bitemporal": "best weights of a stage"}
"""What the header of ``best.safetensors`` says."""


def _save_best(fabric: Fabric, folder: StageFolder, model: ChangeModel) -> str:
    """Write the best weights; the digest of their file, which the first process alone has."""
    if not fabric.is_global_zero:
        return ""
    write_weights(folder.best, model, BEST_WEIGHTS)
    return sha256(folder.best)


def _save(
    fabric: Fabric,
    folder: StageFolder,
    model: ChangeModel,
    optimiser: Optimizer,
    step: int,
    best: dict[str, Any],
    lengths: tuple[int, ...],
) -> None:
    """Write everything that is needed to resume."""
    if fabric.is_global_zero:
        content = {
            "format": CHECKPOINT_FORMAT,
            "step": step,
            "model": model.state_dict(),
            "optimiser": optimiser.state_dict(),
            "precision": fabric.strategy.precision.state_dict(),
            "best": best,
            "lengths": list(lengths),
        }
        with replacing(folder.checkpoint, RuntimeError) as temporary:  # by which torch says that a disk is full
            torch.save(content, temporary)
    fabric.barrier()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read and check what a stage resumes from.

    Raises:
        BundleError: When the file is damaged, or was written by an earlier version.
    """
    with reading(path, BundleError, f"expected the checkpoint of a run; {_ANEW}"):
        check_zip(path)
        content = dict(torch.load(path, map_location="cpu", weights_only=True))
        known = content.get("format")
    if known != CHECKPOINT_FORMAT:
        raise BundleError(
            f"{path}: found a checkpoint of another version of bitemporal, expected format {CHECKPOINT_FORMAT}; finish "
            "the stage with the version that wrote it, or remove the file to train the stage from the beginning"
        )
    with reading(path, BundleError, f"expected the checkpoint of a run; {_ANEW}"):
        whole = isinstance(content["step"], int) and {"score", "step", "metrics"} <= content["best"].keys()
        if not whole or not all(isinstance(content[name], dict) for name in ("model", "optimiser", "precision")):
            raise ValueError("a part of it is of another kind")
    return content


def resume_step(folder: StageFolder) -> int:
    """Step at which a stage resumes; 0 where it has left no checkpoint.

    Raises:
        BundleError: When the checkpoint is damaged, or was written by an earlier version.
    """
    return int(read_checkpoint(folder.checkpoint)["step"]) if folder.checkpoint.exists() else 0


def _resume(
    fabric: Fabric, folder: StageFolder, model: ChangeModel, optimiser: Optimizer
) -> tuple[int, dict[str, Any]]:
    """Bring everything to where the checkpoint left it: the step, and the best validation so far."""
    if not folder.checkpoint.exists():
        return 0, {"score": -math.inf, "step": -1, "metrics": {}}
    content = read_checkpoint(folder.checkpoint)
    with reading(folder.checkpoint, BundleError, f"expected the checkpoint of {model.name}; {_ANEW}"):
        model.load_state_dict(content["model"])
        optimiser.load_state_dict(content["optimiser"])
        fabric.strategy.precision.load_state_dict(content["precision"])
    return content["step"], content["best"]


def _finish(stage: Stage, model: ChangeModel) -> None:
    """Turn the best weights into the bundle; after this the stage counts as finished."""
    best, lengths = read_checkpoint(stage.folder.checkpoint)["best"], stage.lengths
    # where the best weights are those from before the stage was extended, the bundle has kept them
    weights = stage.folder.best if stage.folder.best.exists() else stage.folder.bundle / WEIGHTS
    if not weights.is_file():
        raise BundleError(
            f"{not_there(weights, 'file')}; expected the best weights of stage {stage.name}: restore them from a "
            f"backup, or remove {stage.folder.checkpoint} to train the stage from the beginning"
        )
    remedy = (
        f"restore it from a backup, or remove it and {stage.folder.checkpoint} to train the stage from the beginning"
    )
    expected = f"expected the best weights of stage {stage.name}: {remedy}"
    read_weights(model, weights, expected)
    if weights != stage.folder.best:
        check_bundle(stage.folder.bundle)
    elif (digest := sha256(weights)) != best.get("sha256", digest):  # earlier versions kept none
        raise BundleError(f"{weights}: its SHA-256 is not that in {stage.folder.checkpoint}: it is damaged; {expected}")
    metadata = {
        "stage": stage.name,
        "steps": stage.steps,
        "best_step": best["step"],
        "selected_by": stage.selection,
        "validation": {name: None if math.isnan(value) else value for name, value in best["metrics"].items()},
        "training_pairs": len(stage.train),
        "validation_pairs": len(stage.val),
        "seed": stage.recipe.seed,
        "bitemporal": bitemporal.__version__,
    }
    if lengths[:-1]:
        metadata["extended_from"] = list(lengths[:-1])
    # what may be replaced has been settled before the training
    save_bundle(stage.folder.bundle, model, metadata, training_images(stage.pairs, stage.train), overwrite=True)
