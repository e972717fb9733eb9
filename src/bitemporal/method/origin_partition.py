"""Origin-Partition (O-P): which teacher answers for a pair at test time.

JL1-CD paper (arXiv 2502.13407), section on Origin-Partition: the origin M_O predicts a mask, the CAR of that mask
selects one of the teachers M_S, M_M and M_L, and that teacher's prediction is the answer. A CAR equal to a threshold
belongs to the part below it (``CarPartition.part``). For a part without a teacher the origin answers. The detector that
applies this rule is ``bitemporal.inference.OriginPartition``.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from bitemporal.errors import PartitionError
from bitemporal.imagery.masks import IGNORE
from bitemporal.method.car import CarPartition, change_area_ratios


def route(probabilities: Sequence[Tensor], partition: CarPartition, valid: Sequence[Tensor] | None = None) -> list[str]:
    """Parts whose teachers answer for some pairs (JL1-CD paper, section on Origin-Partition).

    Args:
        probabilities: The origin's probability of change of each pair, any shape, in [0, 1]; above 0.5 is changed.
        partition: Which CAR belongs to which part.
        valid: Pixels that count, a bool tensor of each pair's shape; all pixels by default.

    Returns:
        One name of a part per pair.
    """
    masks = [(probability > 0.5).to(torch.uint8) for probability in probabilities]
    if valid is not None:
        masks = [mask.masked_fill(~counts.to(mask.device), IGNORE) for mask, counts in zip(masks, valid, strict=True)]
    return [route_car(float(change_area_ratios(mask[None])[0]), partition) for mask in masks]


def route_car(car: float, partition: CarPartition) -> str:
    """Part whose teacher answers for a pair (JL1-CD paper, section on Origin-Partition).

    Args:
        car: CAR of the mask that the origin predicts, in [0, 1]; NaN when the pair has no valid pixel.
        partition: Which CAR belongs to which part.

    Returns:
        The name of the part. It is the first part when the CAR is NaN: no pixel depends on it.
    """
    return partition.part(car) or partition.names[0]


def check_teachers(parts: Iterable[str], partition: CarPartition) -> None:
    """Refuse teachers that are not named after parts (JL1-CD paper, section on Origin-Partition).

    Raises:
        PartitionError: When a name is not a part of the partition.
    """
    if unknown := sorted(set(parts) - set(partition.names)):
        raise PartitionError(
            f"teachers: found {unknown}, expected parts of {partition.describe()}; name each teacher after its part"
        )
