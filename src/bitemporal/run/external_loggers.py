"""MLflow and Weights & Biases as loggers of Lightning Fabric; both are imported on first use."""

import importlib
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import Logger


class _StageLogger(Logger):
    """Logs one stage as one run of another project's library.

    The library is imported and its run is opened at the first metrics, in the process that logs them.
    """

    library: str

    def __init__(self, folder: Path) -> None:
        """Log the stage of a folder, under the names of run and stage."""
        self._folder = folder
        self._run: Any = None  # of an optional library without types

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return self._folder.parent.name

    @property
    def version(self) -> str:
        """Name of the stage."""
        return self._folder.name

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  as Fabric declares it
        """The recipe is in the run folder."""

    def _library(self) -> Any:  # noqa: ANN401  an optional library without types
        return importlib.import_module(self.library)


class MLflowLogger(_StageLogger):
    """Reports to the MLflow server of ``MLFLOW_TRACKING_URI``."""

    library = "mlflow"

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Report numbers of a step."""
        client = self._library()
        if self._run is None:
            self._run = client.start_run(run_name=f"{self.name}/{self.version}", nested=True)
        client.log_metrics(metrics, step=step)

    def finalize(self, status: str) -> None:
        """Close the run."""
        if self._run is not None:
            self._library().end_run()


class WandbLogger(_StageLogger):
    """Reports to the Weights & Biases project of ``WANDB_PROJECT``."""

    library = "wandb"

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Report numbers of a step."""
        if self._run is None:
            self._run = self._library().init(group=self.name, name=f"{self.name}/{self.version}", reinit=True)
        self._run.log(metrics, step=step)

    def finalize(self, status: str) -> None:
        """Close the run."""
        if self._run is not None:
            self._run.finish()
