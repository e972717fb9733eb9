"""Several pairs of one size as tensors."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Pairs of one size.

    A batch goes from one process to another as bytes through a pipe. Tensors would go through shared memory, and hang
    where that is small, as in most containers.

    Attributes:
        before: Images of date 1, N x C x H x W in 0..255.
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

    def __reduce__(self) -> tuple[Callable[..., "Batch"], tuple[npt.NDArray[np.generic], ...]]:
        """The batch as arrays, masks in a byte a pixel."""
        return _of_arrays, (self.before.numpy(), self.after.numpy(), self.target.to(torch.uint8).numpy())


def _of_arrays(before: npt.NDArray[np.generic], after: npt.NDArray[np.generic], target: npt.NDArray[np.uint8]) -> Batch:
    return Batch(torch.from_numpy(before), torch.from_numpy(after), torch.from_numpy(target).long())
