"""Weights that hold numbers: NaN and infinity make every mask empty or full, without a word."""

from collections.abc import Mapping

import torch
from torch import Tensor


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not all finite numbers.

    Args:
        weights: Tensors by name; those of whole numbers always pass.

    Raises:
        ValueError: Naming the first tensor that holds NaN or infinity.
    """
    for name, values in weights.items():
        if (values.is_floating_point() or values.is_complex()) and not bool(torch.isfinite(values).all()):
            broken = int((~torch.isfinite(values)).sum())
            raise ValueError(f"{name} holds NaN or infinity in {broken} of {values.numel()} numbers")
