"""Whole scenes: two georeferenced rasters in, a change map and polygons out."""

from bitemporal.errors import MissingExtraError

try:
    from bitemporal.scenes.archive import Plan, SceneStatus, predict_archive
    from bitemporal.scenes.grids import Shift
    from bitemporal.scenes.manifest import read_manifest
    from bitemporal.scenes.options import DateOptions, MapOptions, SceneOptions
    from bitemporal.scenes.outputs import Outputs
    from bitemporal.scenes.prediction import SceneResult, predict_scene
    from bitemporal.scenes.sources import Files
    from bitemporal.scenes.threshold import ThresholdResult, threshold_scene
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] == "bitemporal":
        raise
    raise MissingExtraError(
        f"scenes need {error.name}, which is not installed; install it with `pip install bitemporal[geo]`"
    ) from error

__all__ = [
    "DateOptions",
    "Files",
    "MapOptions",
    "Outputs",
    "Plan",
    "SceneOptions",
    "SceneResult",
    "SceneStatus",
    "Shift",
    "ThresholdResult",
    "predict_archive",
    "predict_scene",
    "read_manifest",
    "threshold_scene",
]
