"""Processes of a run: those that ``--devices`` starts for each stage, or those that ``torchrun`` has started."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from bitemporal.errors import BitemporalError, DeviceError
from bitemporal.run.recipe import Precision, TrainRecipe
from bitemporal.workers import check_processes, started_processes_end_with_this_one

_PRECISION: dict[Precision, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}

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
    """Raise what a started process has met as an error of this package, in place of the traceback it comes as.

    Such processes end with this one.

    Raises:
        BitemporalError: Of the class and with the text that the process has raised.
        DeviceError: When memory or shared memory was too small, or a process died.
    """
    try:
        with started_processes_end_with_this_one():
            yield
    except (ProcessRaisedException, RuntimeError) as error:  # with little shared memory, none can be started
        if known := _known_error(str(error)):
            raise known from error
        raise
    except ProcessExitedException as error:
        raise DeviceError(
            f"devices: a training process died ({error}), most often for lack of memory; use fewer devices or a "
            "smaller batch_size. A script that asks for several must start under `if __name__ == '__main__':`"
        ) from error


def _known_error(traceback: str) -> BitemporalError | None:
    """The error of this package that a traceback of another process ends with, or that stands for its last line."""
    _, _, last = traceback.rpartition("\nbitemporal.")
    name, _, text = last.partition(": ")
    module, _, name = f"bitemporal.{name}".rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    if isinstance(found, type) and issubclass(found, BitemporalError):
        # classes that stand elsewhere take other arguments
        kind: type[BitemporalError] = next(k for k in found.__mro__ if k.__module__ == BitemporalError.__module__)
        return kind(text.strip())
    last = traceback.strip().rpartition("\n")[2]
    if "OutOfMemoryError" in last:
        return DeviceError(f"devices: a device has too little memory; use a smaller batch_size or crop_size ({last})")
    if "shared memory" in last or "/dev/shm" in last:
        return DeviceError(
            f"devices: several processes need more shared memory than /dev/shm has ({last}); give a container more by "
            "--shm-size=1g, or use --devices 1"
        )
    return None


def make_fabric(recipe: TrainRecipe) -> Fabric:
    """Devices, processes and precision of a recipe.

    Raises:
        OptionError: When this machine can start no processes.
    """
    if recipe.devices > 1:
        check_processes("use --devices 1")
    devices, strategy = local_process_count(recipe), "ddp_spawn" if recipe.devices > 1 else "auto"
    if under_torchrun():
        strategy = "ddp"
    return Fabric(
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=devices,
        num_nodes=process_count(recipe) // devices,
        strategy=strategy,
        precision=_PRECISION[recipe.precision],
    )
