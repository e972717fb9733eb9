"""Processes of a run: those that ``--devices`` starts for each stage, or those that ``torchrun`` has started."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric

from bitemporal.run.folder import StageFolder
from bitemporal.run.progress import loggers_for
from bitemporal.run.recipe import TrainRecipe

_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def under_torchrun() -> bool:
    """Whether ``torchrun`` has started this process, and others like it."""
    return torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()


def is_first_process() -> bool:
    """Whether this process is the one that writes what a run leaves behind outside the training loop."""
    return not under_torchrun() or os.environ["RANK"] == "0"


def process_count(recipe: TrainRecipe) -> int:
    """Number of processes that share a batch."""
    return int(os.environ["WORLD_SIZE"]) if under_torchrun() else recipe.devices


def wait_for_all_processes() -> None:
    """Wait until every process that ``torchrun`` has started arrives here."""
    if under_torchrun() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def make_fabric(recipe: TrainRecipe, folder: StageFolder | None = None) -> Fabric:
    """Devices, processes and precision of a recipe, with the loggers of a stage's folder."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # what it says otherwise stands in the recipe
    devices, nodes, strategy = recipe.devices, 1, "ddp_spawn" if recipe.devices > 1 else "auto"
    if under_torchrun():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes, strategy = process_count(recipe) // devices, "ddp"
    return Fabric(
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        precision=_PRECISION[recipe.precision],  # type: ignore[arg-type]  # one of its literals
        loggers=[] if folder is None else loggers_for(folder.path),
    )


@contextmanager
def gradients_of_both_dates_in_full_precision() -> Iterator[None]:
    """Without autocast's cache of weights in half precision, through which the gradients of both dates would add up."""
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(cached)
