"""Whole scenes: two georeferenced rasters in, a change map and polygons out."""

import importlib
from typing import TYPE_CHECKING

from bitemporal.errors import MissingExtraError
from bitemporal.scenes.options import SceneOptions

if TYPE_CHECKING:
    from bitemporal.scenes.grids import Shift
    from bitemporal.scenes.outputs import Outputs
    from bitemporal.scenes.prediction import SceneResult, predict_scene
    from bitemporal.scenes.sources import Files

# imported on first use: all but the options needs the extra "geo"
_HOMES = {
    "Files": "sources",
    "Outputs": "outputs",
    "SceneResult": "prediction",
    "Shift": "grids",
    "predict_scene": "prediction",
}

__all__ = ["Files", "Outputs", "SceneOptions", "SceneResult", "Shift", "predict_scene"]


def __getattr__(name: str) -> object:
    """Import a public name from its module.

    Raises:
        MissingExtraError: When a library of the extra "geo" is not installed.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "bitemporal":
            raise
        raise MissingExtraError(
            f"scenes need {error.name}, which is not installed; install it with `pip install bitemporal[geo]`"
        ) from error
