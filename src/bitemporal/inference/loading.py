"""Load a detector: from a bundle folder of any kind, or by its id on the Hugging Face hub."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError

from bitemporal.errors import BundleError, RecipeError
from bitemporal.inference.bundle import ORIGIN_PARTITION, load_network, read_description
from bitemporal.inference.combining import Augmentation, Ensemble, SlidingWindow, TestTimeAugmentation, check_tiles
from bitemporal.inference.detector import Detector, NetworkDetector
from bitemporal.inference.origin_partition import ORIGIN, OriginPartition, read_partition_of

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def choose_device(device: str = "auto") -> torch.device:
    """A device by name; ``auto`` takes CUDA, else MPS, else the CPU.

    Raises:
        RecipeError: When there is no such device.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()  # "meta" can be named, but holds no values
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(
            f"device: {device!r} cannot be used here ({str(error).splitlines()[0]}); expected auto, cpu, cuda, cuda:N "
            "or mps"
        ) from error
    return chosen


def load(source: str | os.PathLike[str], device: str = "auto") -> Detector:
    """Load a detector.

    Args:
        source: Bundle folder of a network or of Origin-Partition; or ``owner/name`` on the Hugging Face hub, when no
            such path exists here. Only JSON and safetensors files are ever fetched or read: no pickle.
        device: ``auto`` (CUDA, else MPS, else CPU), or a device's name.

    Raises:
        BundleError: When the bundle is missing, damaged or of a newer format, or cannot be fetched.
        RecipeError: When there is no such device.
    """
    chosen = choose_device(device)
    folder = Path(source)
    if not folder.exists() and _HUB_ID.fullmatch(os.fspath(source)):
        folder = _fetch(os.fspath(source))
    # building networks draws initial weights; the caller's random numbers are none of our business
    with torch.random.fork_rng(devices=[]):
        if read_description(folder)["kind"] == ORIGIN_PARTITION:
            return _load_origin_partition(folder, chosen)
        return NetworkDetector(load_network(folder), chosen)


def compose(
    sources: Sequence[str | os.PathLike[str]],
    device: str = "auto",
    augmentation: Augmentation | None = None,
    scales: Sequence[float] = (1.0,),
    tile: int | None = None,
    stride: int | None = None,
) -> Detector:
    """Load one detector or an ensemble of several, with test-time augmentation and tiles if they are asked for.

    Args:
        sources: See ``load``; several are averaged.
        device: See ``load``.
        augmentation: See ``TestTimeAugmentation``.
        scales: See ``TestTimeAugmentation``.
        tile: See ``SlidingWindow``; ``None`` for whole images.
        stride: See there.

    Raises:
        BundleError: When a bundle cannot be had.
        RecipeError: When there is no bundle, no such device, a scale that is none, or tiles that no image can be cut
            into.
    """
    if not sources:
        raise RecipeError("bundle: none is given; expected one at least")
    check_tiles(tile, stride)
    members = [load(source, device) for source in sources]
    detector = members[0] if len(members) == 1 else Ensemble(members)
    if tile is not None:
        detector = SlidingWindow(detector, tile, stride)
    if augmentation is None and tuple(scales) == (1.0,):
        return detector
    return TestTimeAugmentation(detector, augmentation, scales)


def _load_origin_partition(folder: Path, device: torch.device) -> OriginPartition:
    partition, parts = read_partition_of(folder)
    specialists = {part: NetworkDetector(load_network(folder / part), device) for part in parts}
    return OriginPartition(NetworkDetector(load_network(folder / ORIGIN), device), specialists, partition)


def _fetch(repository: str) -> Path:
    try:
        return Path(snapshot_download(repository, allow_patterns=["*.json", "*.safetensors"]))
    # OSError: no connection, an answer other than 200, or nothing in the local cache
    except (OSError, HFValidationError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BundleError(
            f"{repository}: no such folder here, and not to be had from the Hugging Face hub (offline, or no such "
            f"repository: {reason}); give a bundle folder, or an id that is fetched already or can be reached"
        ) from error
