"""Origin-Partition (JL1-CD paper, arXiv 2502.13407, section on O-P) as a detector like any other.

The origin's predicted mask gives a CAR; the specialist of that CAR's part gives the answer.
"""

import math
import os
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bitemporal.errors import BundleError, PartitionError
from bitemporal.files import replacing_folder, write_json
from bitemporal.imagery.masks import IGNORE
from bitemporal.inference.bundle import FORMAT, NETWORK, ORIGIN_PARTITION, read_description
from bitemporal.inference.detector import Answer, Detector
from bitemporal.method.car import CarPartition, change_area_ratios

ORIGIN = "origin"
"""Sub-folder of the origin's bundle; the specialists' are named after their parts."""


class OriginPartition(Detector):
    """An origin and a specialist for each CAR part.

    The whole batch goes through the origin at once, then each part's images through their specialist at once: at most
    one batched pass a part (and padded size). A part without a specialist gets the origin's answer.
    """

    def __init__(self, origin: Detector, specialists: Mapping[str, Detector], partition: CarPartition) -> None:
        """Put the detector together.

        Args:
            origin: Detector trained on all pairs.
            specialists: Detectors by part name; parts may be missing.
            partition: Which CAR belongs to which part.

        Raises:
            PartitionError: When a specialist's name is no part of the partition.
        """
        _check_parts(specialists, partition)
        self.origin = origin
        self.specialists = dict(specialists)
        self.partition = partition

    @property
    def device(self) -> torch.device:
        """That of the origin."""
        return self.origin.device

    @property
    def multiple(self) -> int:
        """The least that serves all its networks."""
        return math.lcm(self.origin.multiple, *(specialist.multiple for specialist in self.specialists.values()))

    def identity(self) -> dict[str, Any]:
        """Those of its networks, and the thresholds."""
        return {
            "origin": self.origin.identity(),
            "specialists": {part: detector.identity() for part, detector in self.specialists.items()},
            "thresholds": list(self.partition.thresholds),
        }

    def answers(
        self, before: Sequence[Tensor], after: Sequence[Tensor], valid: Sequence[Tensor] | None = None
    ) -> list[Answer]:
        """Answer pairs that may differ in size; each answer names the part that the pair was sent to."""
        first = self.origin.answers(before, after, valid)
        masks = [(answer.probability > 0.5).to(torch.uint8) for answer in first]
        if valid is not None:
            masks = [mask.masked_fill(~v.to(mask.device), IGNORE) for mask, v in zip(masks, valid, strict=True)]
        cars = [float(change_area_ratios(mask)[0]) for mask in masks]
        # without a valid pixel there is no CAR, and any part's answer will do
        parts = [self.partition.names[max(index, 0)] for index in self.partition.indices(cars)]
        found = [Answer(a.probability, part) for a, part in zip(first, parts, strict=True)]
        members: dict[str, list[int]] = defaultdict(list)
        for index, part in enumerate(parts):
            members[part].append(index)
        for part, indices in members.items():
            if part not in self.specialists:
                continue
            second = self.specialists[part].answers(
                [before[i] for i in indices],
                [after[i] for i in indices],
                None if valid is None else [valid[i] for i in indices],
            )
            for i, answer in zip(indices, second, strict=True):
                found[i] = Answer(answer.probability.to(first[i].probability.device), part)
        return found


def _check_parts(specialists: Mapping[str, object], partition: CarPartition) -> None:
    unknown = sorted(set(specialists) - set(partition.names))
    if unknown:
        raise PartitionError(
            f"specialists: found {unknown}, expected parts of {partition.describe()}; name them after the parts"
        )


def save_origin_partition(
    folder: str | os.PathLike[str],
    origin_bundle: str | os.PathLike[str],
    specialist_bundles: Mapping[str, str | os.PathLike[str]],
    partition: CarPartition,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Write an Origin-Partition detector as one self-contained bundle; the folder appears whole or not at all.

    Args:
        folder: Where; an existing bundle there is replaced.
        origin_bundle: Bundle of the origin, copied.
        specialist_bundles: Bundles of the specialists by part name, copied; parts may be missing.
        partition: Which CAR belongs to which part.
        metadata: Whatever else should be known about it; JSON types only.

    Raises:
        PartitionError: When a specialist's name is no part of the partition.
        BundleError: When a bundle is missing or holds no network.
    """
    _check_parts(specialist_bundles, partition)
    sources = {ORIGIN: Path(origin_bundle)} | {part: Path(path) for part, path in specialist_bundles.items()}
    for source in sources.values():
        kind = read_description(source)["kind"]
        if kind != NETWORK or not (source / "weights.safetensors").is_file():
            raise BundleError(f"{source}: found {kind}, expected one network with its weights.safetensors")

    with replacing_folder(folder) as target:
        for name, source in sources.items():
            (target / name).mkdir()
            for file in ("bundle.json", "weights.safetensors"):
                shutil.copyfile(source / file, target / name / file)
        description = {
            "format": FORMAT,
            "kind": ORIGIN_PARTITION,
            "thresholds": list(partition.thresholds),
            "parts": list(partition.names),
            "specialists": [name for name in partition.names if name in specialist_bundles],
            "metadata": metadata or {},
        }
        write_json(target / "bundle.json", description)


def read_partition_of(folder: str | os.PathLike[str]) -> tuple[CarPartition, tuple[str, ...]]:
    """Partition of an Origin-Partition bundle, and the parts that have a specialist.

    Raises:
        BundleError: When its description is damaged.
    """
    description = read_description(folder)
    try:
        partition = CarPartition(tuple(float(t) for t in description["thresholds"]))
        specialists = tuple(description["specialists"])
        _check_parts(dict.fromkeys(specialists), partition)
    except (KeyError, TypeError, ValueError, PartitionError) as error:
        raise BundleError(
            f"{Path(folder) / 'bundle.json'}: thresholds and specialists cannot be read ({error!r}); write the bundle "
            "again"
        ) from error
    return partition, specialists
