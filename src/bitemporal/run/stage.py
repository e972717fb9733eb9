"""One stage: a network, its training and validation pairs, a folder; killed and started again, it goes on exactly."""

import importlib.util
import logging
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console
from safetensors.torch import load_file

import bitemporal
from bitemporal.errors import DataError, RecipeError
from bitemporal.files import clear_leftovers
from bitemporal.inference.bundle import save_bundle
from bitemporal.models import ChangeModel, ModelCard
from bitemporal.pairs import Pair, PairFolder
from bitemporal.run.callbacks import BEST, LAST, Checkpoints, MetricsCsv, ShowProgress, resume_step
from bitemporal.run.loading import (
    Batch,
    TrainingSamples,
    ValidationPairs,
    derive_seed,
    training_loader,
    validation_loader,
)
from bitemporal.run.processes import SpawnedProcesses
from bitemporal.run.recipe import TrainRecipe
from bitemporal.run.task import ChangeTask, Optimisation

_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
_VALIDATIONS_A_STAGE = 20
_NO_CONCERN = (
    ".*treespec, LeafSpec.*",  # between Lightning and torch
    ".*does not have many workers.*",  # the recipe says how many
    ".*smaller than the logging interval.*",  # metrics.csv has every row
    ".*resuming from a checkpoint that ended before the epoch ended.*",  # samples go by step: nothing is lost
)
"""Beginnings of Lightning's warnings that are expected here."""


@dataclass(frozen=True)
class Stage:
    """What is trained on what.

    Attributes:
        name: origin, teacher-small, student, ...
        folder: Where bundle, last.ckpt and metrics.csv go.
        train: Labelled training pairs.
        val: Labelled validation pairs, which choose the checkpoint.
        steps: Optimiser steps.
        stream: Name of the random stream; stages of one stream see the same samples and draw the same dropout.
    """

    name: str
    folder: Path
    train: list[Pair]
    val: list[Pair]
    steps: int
    stream: str

    @property
    def bundle(self) -> Path:
        """Where the trained network is, once the stage is finished."""
        return self.folder / "bundle"

    @property
    def finished(self) -> bool:
        """Whether the stage has been trained to its end."""
        return (self.bundle / "bundle.json").exists()


def optimisation(recipe: TrainRecipe, card: ModelCard, steps: int) -> Optimisation:
    """Optimisation of a stage: what the recipe says, else the model's own defaults."""
    defaults = card.training
    return Optimisation(
        lr=defaults.lr if recipe.lr is None else recipe.lr,
        weight_decay=defaults.weight_decay if recipe.weight_decay is None else recipe.weight_decay,
        rules=defaults.rules,
        steps=steps,
        warmup_steps=min(1000, steps // 10) if recipe.warmup_steps is None else recipe.warmup_steps,
        schedule=defaults.schedule,
        clip_norm=defaults.clip_norm,
    )


def check_fit(recipe: TrainRecipe, name: str, card: ModelCard) -> None:
    """Refuse what the network or the machine cannot do: crop size, batch over devices, precision, number of GPUs.

    Raises:
        RecipeError: Naming the field.
    """
    cuda = torch.cuda.is_available()
    if recipe.precision == "fp16" and not cuda:
        raise RecipeError("precision: fp16 needs a CUDA device, and there is none; use bf16 or fp32")
    if cuda and recipe.devices > torch.cuda.device_count():
        raise RecipeError(f"devices: found {recipe.devices}, but this machine has {torch.cuda.device_count()} GPU(s)")
    size, multiple, minimum = recipe.crop_size, card.multiple, card.minimum
    if size % multiple or size < minimum:
        raise RecipeError(
            f"crop_size: {size} pixels do not suit {name}, which needs a multiple of {multiple} and at least {minimum}"
        )
    batch_size = recipe.batch_size or card.training.batch_size
    if batch_size % recipe.devices:
        raise RecipeError(
            f"batch_size: {batch_size} pairs, the default of {name}, do not divide over {recipe.devices} devices; give "
            f"a multiple of {recipe.devices}"
        )


def run_stage(
    stage: Stage,
    recipe: TrainRecipe,
    folder: PairFolder,
    build: Callable[[], ChangeTask],
    console: Console | None = None,
) -> Path:
    """Train a stage to its end, unless that has been done.

    Args:
        stage: What is trained on what.
        recipe: Batch size, precision, devices, augmentation, seed.
        folder: Reads the pairs.
        build: Makes the task, with the network's initial weights.
        console: Where progress is shown; standard error by default.

    Returns:
        The bundle with the best weights on the validation pairs.

    Raises:
        DataError: When there are no training or validation pairs.
        RecipeError: When the recipe does not fit the network or the machine.
    """
    if stage.finished:
        return stage.bundle
    for split, pairs in (("training", stage.train), ("validation", stage.val)):
        if not pairs:
            raise DataError(f"{folder.root}: stage {stage.name} has no labelled {split} pairs")
    stage.folder.mkdir(parents=True, exist_ok=True)
    clear_leftovers(stage.folder)
    first_step = resume_step(stage.folder)
    pl.seed_everything(derive_seed(recipe.seed, stage.stream, "start") % 2**32, verbose=False)
    task = build()
    check_fit(recipe, task.model.name, task.model.card)
    show = console or Console(stderr=True)
    data = _StageData(stage, recipe, folder, task.model.card, first_step)
    if first_step:
        show.print(f"{stage.name}: goes on from step {first_step}", highlight=False)
    if first_step < stage.steps:
        trainer = _trainer(stage, recipe, task.optimisation, ShowProgress(stage.name, stage.steps, show))
        checkpoint = stage.folder / LAST if first_step else None
        with warnings.catch_warnings():
            for text in _NO_CONCERN:
                warnings.filterwarnings("ignore", text)
            try:
                trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
            except SystemExit as exit_of_lightning:  # what it makes of Ctrl-C
                show.print(
                    f"{stage.name}: started again with the same options, the run goes on from step "
                    f"{resume_step(stage.folder)}",
                    highlight=False,
                )
                raise KeyboardInterrupt from exit_of_lightning
    return _finish(stage, recipe, task.model)


class _StageData(pl.LightningDataModule):
    """The loaders of a stage."""

    def __init__(self, stage: Stage, recipe: TrainRecipe, folder: PairFolder, card: ModelCard, first_step: int) -> None:
        super().__init__()
        self.stage, self.recipe, self.folder, self.first_step = stage, recipe, folder, first_step
        self.batch_size = recipe.batch_size or card.training.batch_size
        self.augmentation = card.training.augmentation if recipe.augmentation == "model" else recipe.augmentation

    @property
    def _share(self) -> dict[str, int]:
        trainer = self.trainer
        return {"rank": trainer.global_rank, "world_size": trainer.world_size} if trainer else {}

    @property
    def _samples(self) -> TrainingSamples:
        seed = derive_seed(self.recipe.seed, self.stage.stream)
        return TrainingSamples(self.folder, self.stage.train, self.augmentation, self.recipe.crop_size, seed)

    def first_batches(self, samples: int) -> Iterable[Batch]:
        """The stage's first samples, or all where they are fewer, in every process; the same where a run goes on."""
        share = self.batch_size // self._share.get("world_size", 1)
        steps = math.ceil(min(samples, self.stage.steps * self.batch_size) / share)
        return training_loader(self._samples, first_step=0, steps=steps, batch_size=share, workers=self.recipe.workers)

    def train_dataloader(self) -> Any:  # noqa: ANN401  a loader of batches
        return training_loader(
            self._samples,
            first_step=self.first_step,
            steps=self.stage.steps,
            batch_size=self.batch_size,
            workers=self.recipe.workers,
            **self._share,
        )

    def val_dataloader(self) -> Any:  # noqa: ANN401  a loader of lists of batches
        return validation_loader(
            ValidationPairs(self.folder, self.stage.val),
            batch_size=self.batch_size,
            workers=self.recipe.workers,
            **self._share,
        )

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:  # noqa: ANN401  either
        """Move a batch, or the list of batches of a validation step."""
        return [b.to(device) for b in batch] if isinstance(batch, list) else batch.to(device)


def _trainer(stage: Stage, recipe: TrainRecipe, optimisation: Optimisation, progress: ShowProgress) -> pl.Trainer:
    cuda = torch.cuda.is_available()
    validate_every = min(recipe.validate_every or -(-stage.steps // _VALIDATIONS_A_STAGE), stage.steps)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    return pl.Trainer(
        accelerator="cuda" if cuda else "cpu",
        devices=recipe.devices,
        strategy=SpawnedProcesses() if recipe.devices > 1 else "auto",
        precision=_PRECISION[recipe.precision],  # type: ignore[arg-type]  # one of its literals
        sync_batchnorm=cuda and recipe.devices > 1,
        max_steps=stage.steps,
        gradient_clip_val=optimisation.clip_norm,
        val_check_interval=validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            MetricsCsv(stage.folder, validate_every),
            progress,
            Checkpoints(stage.folder),
        ],
        logger=_tensorboard(stage.folder),
        log_every_n_steps=10,
    )


def _tensorboard(folder: Path) -> TensorBoardLogger | Literal[False]:
    if importlib.util.find_spec("tensorboard") is None:
        return False
    return TensorBoardLogger(save_dir=folder, name="", version="tensorboard")


def _finish(stage: Stage, recipe: TrainRecipe, model: ChangeModel) -> Path:
    """Turn the best weights into the bundle; after this the stage counts as finished."""
    last = torch.load(stage.folder / LAST, map_location="cpu", weights_only=True)
    best = next(state["best"] for name, state in last["callbacks"].items() if name.startswith(Checkpoints.__name__))
    model.load_state_dict(load_file(stage.folder / BEST))
    metadata = {
        "stage": stage.name,
        "steps": stage.steps,
        "best_step": best["step"],
        "selected_by": "dataset mIoU on the validation pairs",
        "validation": {name: None if math.isnan(value) else value for name, value in best["metrics"].items()},
        "training_pairs": len(stage.train),
        "validation_pairs": len(stage.val),
        "seed": recipe.seed,
        "bitemporal": bitemporal.__version__,
    }
    save_bundle(stage.bundle, model, metadata)
    (stage.folder / BEST).unlink()
    return stage.bundle
