"""One stage of training: task, checkpoints, exact continuation."""

from bitemporal import _torchvision

_torchvision.make_importable()  # Lightning imports torchvision

from bitemporal.training.stage import Stage, optimisation, run_stage  # noqa: E402  needs the line above
from bitemporal.training.task import ChangeTask, Optimisation  # noqa: E402  needs the line above

__all__ = ["ChangeTask", "Optimisation", "Stage", "optimisation", "run_stage"]
