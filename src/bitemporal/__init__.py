"""Find what changed between two remote-sensing images."""

__version__ = "0.1.0"

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitemporal.errors import BitemporalError
    from bitemporal.evaluation import Evaluation, Result, evaluate
    from bitemporal.inference import Detector, Ensemble, OriginPartition, Prediction, TestTimeAugmentation, load
    from bitemporal.method.car import CarPartition, change_area_ratio
    from bitemporal.models import ChangeModel, create_model, list_models, register_model
    from bitemporal.pairs import PairFolder
    from bitemporal.run.recipe import DistillRecipe, TrainRecipe
    from bitemporal.run.stages import DistillationRun, train
    from bitemporal.scenes import predict_scene

# Imported on first use: a process that only reads labels should not load a training framework.
_HOMES = {
    "BitemporalError": "bitemporal.errors",
    "CarPartition": "bitemporal.method.car",
    "ChangeModel": "bitemporal.models",
    "Detector": "bitemporal.inference",
    "DistillRecipe": "bitemporal.run.recipe",
    "DistillationRun": "bitemporal.run.stages",
    "Ensemble": "bitemporal.inference",
    "Evaluation": "bitemporal.evaluation",
    "OriginPartition": "bitemporal.inference",
    "PairFolder": "bitemporal.pairs",
    "Prediction": "bitemporal.inference",
    "Result": "bitemporal.evaluation",
    "TestTimeAugmentation": "bitemporal.inference",
    "TrainRecipe": "bitemporal.run.recipe",
    "change_area_ratio": "bitemporal.method.car",
    "create_model": "bitemporal.models",
    "evaluate": "bitemporal.evaluation",
    "list_models": "bitemporal.models",
    "load": "bitemporal.inference",
    "predict_scene": "bitemporal.scenes",
    "register_model": "bitemporal.models",
    "train": "bitemporal.run.stages",
}

__all__ = [
    "BitemporalError",
    "CarPartition",
    "ChangeModel",
    "Detector",
    "DistillRecipe",
    "DistillationRun",
    "Ensemble",
    "Evaluation",
    "OriginPartition",
    "PairFolder",
    "Prediction",
    "Result",
    "TestTimeAugmentation",
    "TrainRecipe",
    "__version__",
    "change_area_ratio",
    "create_model",
    "evaluate",
    "list_models",
    "load",
    "predict_scene",
    "register_model",
    "train",
]


def __getattr__(name: str) -> object:
    """Import a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """All public names."""
    return sorted(__all__)
