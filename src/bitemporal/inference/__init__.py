"""Detectors: bundle in, masks out; one network, or Origin-Partition."""

from bitemporal.inference.detector import Answer, Detector, NetworkDetector, Prediction
from bitemporal.inference.folders import FilesReport, predict_files
from bitemporal.inference.loading import choose_device, load
from bitemporal.inference.origin_partition import OriginPartition, save_origin_partition

__all__ = [
    "Answer",
    "Detector",
    "FilesReport",
    "NetworkDetector",
    "OriginPartition",
    "Prediction",
    "choose_device",
    "load",
    "predict_files",
    "save_origin_partition",
]
