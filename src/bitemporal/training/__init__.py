"""One stage of training: task, checkpoints, exact continuation."""

from bitemporal.training.stage import Stage, optimisation, run_stage
from bitemporal.training.task import ChangeTask, Optimisation

__all__ = ["ChangeTask", "Optimisation", "Stage", "optimisation", "run_stage"]
