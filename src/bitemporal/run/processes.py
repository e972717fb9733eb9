"""Several processes for one stage."""

from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers.multiprocessing import _MultiProcessingLauncher


class _Launcher(_MultiProcessingLauncher):
    """Lightning's own, under a name of this package.

    A new process unpickles this object first, and so imports this package before Lightning; the package's remedy for a
    torchvision that does not fit torch has to come before Lightning's import of torchvision.
    """


class SpawnedProcesses(DDPStrategy):
    """Distributed data parallel training in processes that end with the stage."""

    def __init__(self) -> None:
        """Processes are spawned: the calling one goes on alone to the next stage, and reads the results from disk."""
        super().__init__(start_method="spawn")

    def _configure_launcher(self) -> None:
        self._launcher = _Launcher(self, start_method="spawn")
