"""What a stage writes and shows while it trains: ``metrics.csv``, progress, and loggers of other projects."""

import csv
import importlib
import math
import os
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bitemporal.errors import DataError
from bitemporal.outputs import replacing, unwritable
from bitemporal.reading import open_table, reading


class MetricsTable:
    """``metrics.csv``: mean losses since the row before, learning rate, and the metrics of each validation."""

    def __init__(self, path: Path) -> None:
        """Name the file."""
        self.path = path

    def forget_after(self, step: int) -> None:
        """Drop the rows of steps that will be taken again; with step 0 the whole file, which may have other columns."""
        if not self.path.exists():
            return
        if step == 0:
            self.path.unlink()
            return
        remedy = "expected a table in CSV; restore it from a backup, or remove the file, and its curve is left out"
        with reading(self.path, DataError, remedy), open_table(self.path) as stream:
            header, *rows = csv.reader(stream)
            # the last row is cut short where the machine itself has stopped
            kept = [row for row in rows if len(row) == len(header) and int(row[0]) <= step]
        with replacing(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([header, *kept])

    def write(self, row: Mapping[str, object]) -> None:
        """Append a row; the first one decides the columns.

        Raises:
            OutputError: When it cannot be written.
        """
        new = not self.path.exists()
        try:
            with self.path.open("a", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, list(row))
                if new:
                    writer.writeheader()
                writer.writerow(row)
        except OSError as error:
            raise unwritable(self.path, error) from error


class StageProgress:
    """A progress bar with loss, score and time left; in a log file, a line at every validation instead."""

    def __init__(self, name: str, first_step: int, steps: int, console: Console, score: str = "mIoU") -> None:
        """Start the clock.

        Args:
            name: Name of the stage.
            first_step: Step that the stage starts or resumes at.
            steps: Steps of the whole stage.
            console: Where to show.
            score: What chooses the checkpoint: mIoU, or val loss.
        """
        self.name, self.first_step, self.steps, self.console = name, first_step, steps, console
        self.loss, self.score, self._score_name = math.nan, math.nan, score
        self._started = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),  # gives way on a narrow terminal
            MofNCompleteColumn(),
            TextColumn(f"loss {{task.fields[loss]}}  {score} {{task.fields[score]}}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            expand=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=steps, completed=first_step, loss="-", score="-")

    def __enter__(self) -> "StageProgress":
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the terminal back."""
        self._bar.stop()

    def advance(self, step: int) -> None:
        """Show how many steps are done, with the latest loss and score."""
        loss, score = ("-" if math.isnan(value) else f"{value:.4f}" for value in (self.loss, self.score))
        self._bar.update(self._task, completed=step, loss=loss, score=score)

    def validated(self, step: int, score: float) -> None:
        """Show the result of a validation."""
        self.score = score
        self.advance(step)
        if not self.console.is_terminal:
            seconds = time.monotonic() - self._started
            left = seconds / max(1, step - self.first_step) * (self.steps - step)
            self.console.print(
                f"{self.name:<16} step {step}/{self.steps}  loss {self.loss:.4f}  {self._score_name} {score:.4f}  "
                f"{left / 60:.1f} min left",
                highlight=False,
                soft_wrap=True,
            )


class Loggers:
    """Other projects' logs of a stage: each row of ``metrics.csv`` goes there too.

    TensorBoard where it is installed; MLflow and Weights & Biases where they are installed and their own environment
    variables ask for them (``MLFLOW_TRACKING_URI``, ``WANDB_PROJECT``).
    """

    def __init__(self, folder: Path) -> None:
        """Begin a log of each; MLflow and Weights & Biases name it after the folders of run and stage."""
        self._write: list[Callable[[dict[str, float], int], object]] = []
        self._end: list[Callable[[], object]] = []
        name = f"{folder.parent.name}/{folder.name}"
        if find_spec("tensorboard") is not None:
            tensorboard = TensorBoardLogger(root_dir=folder, name="", version="tensorboard")
            self._write.append(tensorboard.log_metrics)
            self._end.append(lambda: tensorboard.finalize("success"))
        if find_spec("mlflow") is not None and os.environ.get("MLFLOW_TRACKING_URI"):
            mlflow = importlib.import_module("mlflow")
            mlflow.start_run(run_name=name, nested=True)
            self._write.append(mlflow.log_metrics)
            self._end.append(mlflow.end_run)
        if find_spec("wandb") is not None and os.environ.get("WANDB_PROJECT"):
            run = importlib.import_module("wandb").init(group=folder.parent.name, name=name, reinit=True)
            self._write.append(run.log)
            self._end.append(run.finish)

    def write(self, metrics: dict[str, float], step: int) -> None:
        """Log the numbers of a step."""
        for write in self._write:
            write(metrics, step)

    def end(self) -> None:
        """End the logs of a stage that was trained to its end."""
        for end in self._end:
            end()
