"""Processes of a run: those that ``--devices`` starts for each stage, or those that ``torchrun`` has started."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric
from torch.multiprocessing.spawn import ProcessRaisedException

from bitemporal import errors
from bitemporal.run.recipe import TrainRecipe

_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}

# on import, and so in every process; what it says otherwise stands in the recipe
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def under_torchrun() -> bool:
    """Whether ``torchrun`` has started this process, and others like it."""
    return torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()


def is_first_process() -> bool:
    """Whether this process is the one that writes what a run leaves behind outside the training loop."""
    return not under_torchrun() or os.environ["RANK"] == "0"


def process_count(recipe: TrainRecipe) -> int:
    """Number of processes that share a batch."""
    return int(os.environ["WORLD_SIZE"]) if under_torchrun() else recipe.devices


def local_process_count(recipe: TrainRecipe) -> int:
    """Number of those processes on this machine, each with a device of its own."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if under_torchrun() else recipe.devices


def wait_for_all_processes(recipe: TrainRecipe) -> None:
    """Wait until every process that ``torchrun`` has started arrives here."""
    if under_torchrun():
        fabric = make_fabric(recipe)
        fabric.launch()  # connects the processes, unless a stage has done so before
        fabric.barrier()


@contextmanager
def errors_of_started_processes() -> Iterator[None]:
    """Raise an error of this package that a started process has met, in place of the traceback it comes as.

    Raises:
        BitemporalError: Of the class and with the text that the process has raised.
    """
    try:
        yield
    except ProcessRaisedException as error:
        _, _, last = str(error).rpartition(f"\n{errors.__name__}.")
        name, _, text = last.partition(": ")
        if not hasattr(errors, name):
            raise
        raise getattr(errors, name)(text.strip()) from error


def make_fabric(recipe: TrainRecipe) -> Fabric:
    """Devices, processes and precision of a recipe."""
    devices, strategy = local_process_count(recipe), "ddp_spawn" if recipe.devices > 1 else "auto"
    if under_torchrun():
        strategy = "ddp"
    return Fabric(
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=devices,
        num_nodes=process_count(recipe) // devices,
        strategy=strategy,
        precision=_PRECISION[recipe.precision],  # type: ignore[arg-type]  # one of its literals
    )
