"""Detectors: bundle in, masks out; one network, Origin-Partition, ensembles, test-time augmentation."""

from bitemporal.inference.bundle import save_origin_partition
from bitemporal.inference.combining import Augmentation, Ensemble, TestTimeAugmentation
from bitemporal.inference.detector import Answer, Detector, NetworkDetector, Prediction
from bitemporal.inference.folders import FilesReport, predict_files
from bitemporal.inference.loading import choose_device, compose, load
from bitemporal.inference.origin_partition import OriginPartition

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
