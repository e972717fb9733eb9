"""Whole scenes: two georeferenced rasters in, a change map and polygons out."""

from bitemporal.errors import MissingExtraError

try:
    from bitemporal.recipe import SceneOptions
    from bitemporal.scenes.grids import Shift
    from bitemporal.scenes.outputs import Outputs
    from bitemporal.scenes.prediction import SceneResult, predict_scene
    from bitemporal.scenes.sources import Files
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] == "bitemporal":
        raise
    raise MissingExtraError(
        f"scenes need {error.name}, which is not installed; install it with `pip install bitemporal[geo]`"
    ) from error

__all__ = ["Files", "Outputs", "SceneOptions", "SceneResult", "Shift", "predict_scene"]
