"""Several pairs of one size as tensors."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Pairs of one size.

    Attributes:
        before: Images of date 1, N x 3 x H x W in 0..255.
        after: Images of date 2, the same shape.
        target: Decoded change masks, N x H x W int64: 0 unchanged, 1 changed, 255 ignored.
    """

    before: Tensor
    after: Tensor
    target: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        return Batch(self.before.to(device), self.after.to(device), self.target.to(device))

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.before)
