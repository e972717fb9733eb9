"""Detectors: bundle in, masks out; one network, Origin-Partition, ensembles, test-time augmentation."""

from typing import TYPE_CHECKING

from bitemporal._lazy import on_first_use

if TYPE_CHECKING:
    from bitemporal.inference.bundle import save_origin_partition
    from bitemporal.inference.combining import Ensemble, TestTimeAugmentation
    from bitemporal.inference.detector import Answer, Detector, NetworkDetector, Prediction
    from bitemporal.inference.folders import FilesReport, predict_files
    from bitemporal.inference.loading import choose_device, compose, load
    from bitemporal.inference.options import Augmentation
    from bitemporal.inference.origin_partition import OriginPartition

_NAMES = {
    "bundle": ("save_origin_partition",),
    "combining": ("Ensemble", "TestTimeAugmentation"),
    "detector": ("Answer", "Detector", "NetworkDetector", "Prediction"),
    "folders": ("FilesReport", "predict_files"),
    "loading": ("choose_device", "compose", "load"),
    "options": ("Augmentation",),
    "origin_partition": ("OriginPartition",),
}

__all__ = [
    "Answer",
    "Augmentation",
    "Detector",
    "Ensemble",
    "FilesReport",
    "NetworkDetector",
    "OriginPartition",
    "Prediction",
    "TestTimeAugmentation",
    "choose_device",
    "compose",
    "load",
    "predict_files",
    "save_origin_partition",
]

__getattr__, __dir__ = on_first_use(__name__, _NAMES)
