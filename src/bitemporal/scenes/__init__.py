"""Whole scenes: two georeferenced rasters in, a change map and polygons out."""

import importlib
from typing import TYPE_CHECKING

from bitemporal.errors import MissingExtraError
from bitemporal.scenes.options import SceneOptions

if TYPE_CHECKING:
    from bitemporal.scenes.archive import Plan, SceneStatus, predict_archive, threads_per_worker
    from bitemporal.scenes.grids import Shift
    from bitemporal.scenes.manifest import read_manifest
    from bitemporal.scenes.outputs import Outputs
    from bitemporal.scenes.prediction import SceneResult, predict_scene
    from bitemporal.scenes.sources import Files

# imported on first use: all but the options needs the extra "geo"
_HOMES = {
    "Files": "sources",
    "Outputs": "outputs",
    "Plan": "archive",
    "SceneResult": "prediction",
    "SceneStatus": "archive",
    "Shift": "grids",
    "predict_archive": "archive",
    "predict_scene": "prediction",
    "read_manifest": "manifest",
    "threads_per_worker": "archive",
}

__all__ = [
    "Files",
    "Outputs",
    "Plan",
    "SceneOptions",
    "SceneResult",
    "SceneStatus",
    "Shift",
    "predict_archive",
    "predict_scene",
    "read_manifest",
    "threads_per_worker",
]


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
