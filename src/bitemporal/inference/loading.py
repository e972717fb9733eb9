"""Load a detector: from a bundle folder of any kind, or by its id on the Hugging Face hub."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError

from bitemporal.errors import BundleError, DeviceError, OptionError
from bitemporal.files import not_there
from bitemporal.inference.bundle import (
    ORIGIN,
    ORIGIN_PARTITION_BUNDLE,
    load_network,
    read_description,
    read_origin_partition,
    read_training_images,
)
from bitemporal.inference.combining import Ensemble, SlidingWindow, TestTimeAugmentation
from bitemporal.inference.detector import Detector, NetworkDetector
from bitemporal.inference.digests import DESCRIPTION
from bitemporal.inference.options import Augmentation, check_tiles
from bitemporal.inference.origin_partition import OriginPartition

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def choose_device(device: str = "auto") -> torch.device:
    """A device by its name; ``auto`` takes CUDA, else MPS, else the CPU.

    Raises:
        DeviceError: When the device is unavailable.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()  # "meta" can be named, but holds no values
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(
            f"device: {device!r} is unavailable here ({str(error).splitlines()[0]}); expected auto, cpu, cuda, cuda:N "
            "or mps"
        ) from error
    return chosen


def load(source: str | os.PathLike[str], device: str = "auto") -> Detector:
    """Load a detector.

    Args:
        source: Bundle folder of a network or of Origin-Partition. When no such path exists, ``owner/name`` on the
            Hugging Face hub. Only JSON and safetensors files are fetched and read, never a pickle.
        device: ``auto`` (CUDA, else MPS, else CPU), or the name of a device.

    Raises:
        BundleError: When the bundle is missing, damaged or of a newer format, or cannot be fetched.
        DeviceError: When the device is unavailable.
    """
    chosen = choose_device(device)
    folder = Path(source)
    if not folder.exists() and _HUB_ID.fullmatch(os.fspath(source)):
        folder = _fetch(os.fspath(source))
    # building a network draws initial weights; the caller's random numbers must not change
    with torch.random.fork_rng(devices=[]):
        if read_description(folder)["kind"] != ORIGIN_PARTITION_BUNDLE:
            detector: Detector = _network(folder, chosen)
        else:
            partition, parts = read_origin_partition(folder)
            networks = {name: _network(folder / name, chosen) for name in (ORIGIN, *parts)}
            detector = OriginPartition(networks.pop(ORIGIN), networks, partition)
    detector.source = folder
    return detector


def _network(folder: Path, device: torch.device) -> NetworkDetector:
    detector = NetworkDetector(load_network(folder), device, read_training_images(folder))
    try:
        detector.reading()
    except OptionError as error:
        raise BundleError(
            f"{folder / DESCRIPTION}: its field trained_on does not fit its network ({error}); write or download the "
            "bundle again"
        ) from error
    return detector


def compose(
    sources: Sequence[str | os.PathLike[str]],
    device: str = "auto",
    augmentation: Augmentation | None = None,
    scales: Sequence[float] = (1.0,),
    tile: int | None = None,
    stride: int | None = None,
) -> Detector:
    """Load one detector, or an ensemble of several, with test-time augmentation and tiles on request.

    Args:
        sources: Sources as ``load`` takes them; the answers of several are averaged.
        device: See ``load``.
        augmentation: See ``TestTimeAugmentation``.
        scales: See ``TestTimeAugmentation``.
        tile: See ``SlidingWindow``; ``None`` for whole images.
        stride: See ``SlidingWindow``.

    Raises:
        BundleError: When a bundle is missing, damaged or of a newer format, or cannot be fetched.
        DeviceError: When the device is unavailable.
        OptionError: When no bundle is given, a scale is out of range, or tile and stride do not go together.
    """
    if not sources:
        raise OptionError("bundle: found none, expected at least one")
    check_tiles(tile, stride)
    members = [load(source, device) for source in sources]
    detector = members[0] if len(members) == 1 else Ensemble(members)
    if tile is not None:
        detector = SlidingWindow(detector, tile, stride)
    if augmentation is None and tuple(scales) == (1.0,):
        return detector
    return TestTimeAugmentation(detector, augmentation, scales)


def _fetch(repository: str) -> Path:
    try:
        return Path(snapshot_download(repository, allow_patterns=["*.json", "*.safetensors"]))
    # OSError: no connection, an answer other than 200, or nothing in the local cache
    except (OSError, HFValidationError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BundleError(
            f"{not_there(repository, 'folder')}, and the Hugging Face hub did not provide {repository} (offline, or no "
            f"such repository: {reason}); give a bundle folder, or the id of a repository that can be "
            "reached or is cached"
        ) from error
