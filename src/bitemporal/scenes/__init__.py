"""Whole scenes: two georeferenced rasters in, a change map and polygons out."""

from typing import TYPE_CHECKING

from bitemporal._lazy import on_first_use

if TYPE_CHECKING:
    from bitemporal.scenes.archive import Plan, predict_archive
    from bitemporal.scenes.cutting import Tiles, cut_pairs, cut_scene
    from bitemporal.scenes.grids import Shift
    from bitemporal.scenes.manifest import read_manifest
    from bitemporal.scenes.options import DateOptions, MapOptions, SceneOptions, TileOptions
    from bitemporal.scenes.outputs import Outputs
    from bitemporal.scenes.prediction import SceneResult, predict_scene
    from bitemporal.scenes.sources import Files
    from bitemporal.scenes.status import SceneStatus
    from bitemporal.scenes.threshold import ThresholdResult, threshold_scene

_NAMES = {
    "archive": ("Plan", "predict_archive"),
    "cutting": ("Tiles", "cut_pairs", "cut_scene"),
    "grids": ("Shift",),
    "manifest": ("read_manifest",),
    "options": ("DateOptions", "MapOptions", "SceneOptions", "TileOptions"),
    "outputs": ("Outputs",),
    "prediction": ("SceneResult", "predict_scene"),
    "sources": ("Files",),
    "status": ("SceneStatus",),
    "threshold": ("ThresholdResult", "threshold_scene"),
}

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
    "TileOptions",
    "Tiles",
    "cut_pairs",
    "cut_scene",
    "predict_archive",
    "predict_scene",
    "read_manifest",
    "threshold_scene",
]

__getattr__, __dir__ = on_first_use(__name__, _NAMES)
