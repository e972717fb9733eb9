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
    from bitemporal.scenes import predict_scene, threshold_scene

# Imported on first use: a process that only reads labels should not load a training framework.
_PUBLIC = {
    "bitemporal.errors": ("BitemporalError",),
    "bitemporal.evaluation": ("Evaluation", "Result", "evaluate"),
    "bitemporal.inference": ("Detector", "Ensemble", "OriginPartition", "Prediction", "TestTimeAugmentation", "load"),
    "bitemporal.method.car": ("CarPartition", "change_area_ratio"),
    "bitemporal.models": ("ChangeModel", "create_model", "list_models", "register_model"),
    "bitemporal.pairs": ("PairFolder",),
    "bitemporal.run.recipe": ("DistillRecipe", "TrainRecipe"),
    "bitemporal.run.stages": ("DistillationRun", "train"),
    "bitemporal.scenes": ("predict_scene", "threshold_scene"),
}
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}

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
    "threshold_scene",
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
