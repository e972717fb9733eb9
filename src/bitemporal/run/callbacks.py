"""What is written and shown while a stage trains: checkpoints, metrics.csv, progress."""

import csv
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import STEP_OUTPUT
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file

from bitemporal.errors import BundleError
from bitemporal.files import replacing
from bitemporal.run.task import VALIDATION_METRICS, ChangeTask

LAST = "last.ckpt"
BEST = "best.safetensors"
METRICS = "metrics.csv"
_ROWS_A_VALIDATION = 5


def _task(module: pl.LightningModule) -> ChangeTask:
    if not isinstance(module, ChangeTask):
        raise TypeError(f"these callbacks serve ChangeTask, not {type(module).__name__}")
    return module


def _losses(outputs: STEP_OUTPUT) -> Mapping[str, Any]:
    """What ``ChangeTask.training_step`` returned."""
    if not isinstance(outputs, Mapping):
        raise TypeError(f"expected the losses of a step, found {type(outputs).__name__}")
    return outputs


class Checkpoints(pl.Callback):
    """At every validation: the best weights so far (by dataset mIoU), and everything needed to go on.

    The best weights are written first: were the process killed between the two, it would go on from the previous
    ``last.ckpt`` and come to the same best weights again.
    """

    def __init__(self, folder: Path) -> None:
        """Write into a stage's folder."""
        self.folder = folder
        self.best: dict[str, Any] = {"score": -math.inf, "step": -1, "metrics": {}}

    def state_dict(self) -> dict[str, Any]:
        """The best score so far, for ``last.ckpt``."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best score so far."""
        self.best = state_dict["best"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        """Have the last step validated too, wherever the interval falls."""
        trainer.should_stop = trainer.global_step >= trainer.max_steps

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the best, then the last."""
        task = _task(pl_module)
        score = -1.0 if math.isnan(task.validation_score) else task.validation_score
        if score > self.best["score"]:
            self.best = {"score": score, "step": trainer.global_step, "metrics": task.validation_metrics}
            if trainer.is_global_zero:
                self._save_best(task)
        if trainer.is_global_zero:
            with replacing(self.folder / LAST) as temporary:
                trainer.save_checkpoint(temporary)
        else:  # every process takes part, the first one writes
            trainer.save_checkpoint(self.folder / LAST)

    def _save_best(self, task: ChangeTask) -> None:
        state = {name: value.detach().cpu().contiguous() for name, value in task.model.state_dict().items()}
        with replacing(self.folder / BEST) as temporary:
            save_file(state, temporary)


class MetricsCsv(pl.Callback):
    """``metrics.csv``: mean losses since the last row, learning rate, and the metrics of each validation."""

    def __init__(self, folder: Path, validate_every: int) -> None:
        """Write into a stage's folder, some rows between two validations."""
        self.path, self.validate_every = folder / METRICS, validate_every
        self.every = max(1, validate_every // _ROWS_A_VALIDATION)
        self._sums: dict[str, float] = {}
        self._steps = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop rows of steps that will be taken again after a kill."""
        if not (trainer.is_global_zero and self.path.exists()):
            return
        if trainer.global_step == 0:  # nothing is gone on with, and the columns may have been others
            self.path.unlink()
            return
        with self.path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream))
        kept = rows[:1] + [row for row in rows[1:] if row and row[0].isdigit() and int(row[0]) <= trainer.global_step]
        with replacing(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(kept)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        """Add up the losses; write a row when it is time and no validation follows, which writes its own."""
        values = {"loss": _losses(outputs)["loss"], **_losses(outputs)["terms"]}
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        self._steps += 1
        validates = trainer.global_step % self.validate_every == 0 or trainer.global_step == trainer.max_steps
        if trainer.global_step % self.every == 0 and not validates:
            self._write(trainer, {})

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write a row with the metrics of the validation."""
        self._write(trainer, _task(pl_module).validation_metrics)

    def _write(self, trainer: pl.Trainer, validation: dict[str, float]) -> None:
        losses = {name: f"{total / self._steps:.6g}" for name, total in self._sums.items() if self._steps}
        self._sums, self._steps = {}, 0
        if not trainer.is_global_zero or not losses:
            return
        row = {"step": trainer.global_step, "lr": f"{trainer.optimizers[0].param_groups[0]['lr']:.6g}", **losses}
        row |= {f"val_{name}": f"{validation[name]:.6f}" if validation else "" for name in VALIDATION_METRICS}
        new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)


class ShowProgress(pl.Callback):
    """A progress bar with loss, mIoU and time left; in a log file, a line at every validation instead."""

    def __init__(self, name: str, steps: int, console: Console) -> None:
        """Show a stage's progress on a console."""
        self.name, self.steps, self.console = name, steps, console
        self._bar: Progress | None = None
        self._loss, self._miou = math.nan, math.nan
        self._started, self._first_step = 0.0, 0

    def __getstate__(self) -> dict[str, Any]:
        """Without the console, which holds a lock; processes of a several-device run make their own."""
        return self.__dict__ | {"console": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In another process, show on its standard error."""
        self.__dict__.update(state | {"console": Console(stderr=True)})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar."""
        self._started, self._first_step = time.monotonic(), trainer.global_step
        if not (trainer.is_global_zero and self.console.is_terminal):
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),  # gives way on a narrow terminal
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  mIoU {task.fields[miou]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self.console,
            expand=True,
        )
        self._bar.add_task(self.name, total=self.steps, completed=trainer.global_step, loss="-", miou="-")
        self._bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        """Advance."""
        loss = float(_losses(outputs)["loss"])
        self._loss = loss if math.isnan(self._loss) else 0.95 * self._loss + 0.05 * loss
        self._update(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the new mIoU."""
        self._miou = _task(pl_module).validation_score
        self._update(trainer)
        if trainer.is_global_zero and self._bar is None:
            done = trainer.global_step - self._first_step
            left = (time.monotonic() - self._started) / max(1, done) * (self.steps - trainer.global_step)
            self.console.print(
                f"{self.name:<16} step {trainer.global_step}/{self.steps}  loss {self._loss:.4f}  "
                f"mIoU {self._miou:.4f}  {left / 60:.1f} min left",
                highlight=False,
                soft_wrap=True,
            )

    def _update(self, trainer: pl.Trainer) -> None:
        if self._bar is not None:
            task = self._bar.task_ids[0]
            loss, miou = ("-" if math.isnan(value) else f"{value:.4f}" for value in (self._loss, self._miou))
            self._bar.update(task, completed=trainer.global_step, loss=loss, miou=miou)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the terminal back."""
        if self._bar is not None:
            self._bar.stop()


def resume_step(folder: Path) -> int:
    """Step that ``last.ckpt`` of a stage's folder goes on from; 0 without one.

    Raises:
        BundleError: When the file is damaged.
    """
    path = folder / LAST
    if not path.exists():
        return 0
    try:
        return int(torch.load(path, map_location="cpu", weights_only=True)["global_step"])
    except Exception as error:  # whatever the bytes of a damaged file make the reader do
        raise BundleError(
            f"{path}: found a damaged file ({type(error).__name__}), expected the checkpoint of a run; remove it to "
            "train this stage anew, or bring back a copy"
        ) from error
