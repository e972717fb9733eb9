"""Find what changed between two remote-sensing images."""

__version__ = "0.1.0"

from typing import TYPE_CHECKING

from bitemporal._lazy import on_first_use

if TYPE_CHECKING:
    from bitemporal.errors import BitemporalError
    from bitemporal.evaluation import Evaluation, Result, evaluate, plot_pair
    from bitemporal.evaluation.rasters import evaluate_raster
    from bitemporal.inference import Detector, Ensemble, OriginPartition, Prediction, TestTimeAugmentation, load
    from bitemporal.method.car import CarPartition, change_area_ratio
    from bitemporal.models import ChangeModel, create_model, list_models, register_model
    from bitemporal.pairs import PairFolder
    from bitemporal.run.recipe import DistillRecipe, TrainRecipe
    from bitemporal.run.stages import DistillationRun, train
    from bitemporal.scenes import predict_scene, threshold_scene

_NAMES = {
    "errors": ("BitemporalError",),
    "evaluation": ("Evaluation", "Result", "evaluate", "plot_pair"),
    "evaluation.rasters": ("evaluate_raster",),
    "inference": ("Detector", "Ensemble", "OriginPartition", "Prediction", "TestTimeAugmentation", "load"),
    "method.car": ("CarPartition", "change_area_ratio"),
    "models": ("ChangeModel", "create_model", "list_models", "register_model"),
    "pairs": ("PairFolder",),
    "run.recipe": ("DistillRecipe", "TrainRecipe"),
    "run.stages": ("DistillationRun", "train"),
    "scenes": ("predict_scene", "threshold_scene"),
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
    "evaluate_raster",
    "list_models",
    "load",
    "plot_pair",
    "predict_scene",
    "register_model",
    "threshold_scene",
    "train",
]

__getattr__, __dir__ = on_first_use(__name__, _NAMES)
