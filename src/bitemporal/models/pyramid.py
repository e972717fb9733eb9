"""Feature pyramid and the sum of its levels, which TinyCDv2 and LightCDNet share.

Tsung-Yi Lin and others: Feature Pyramid Networks for Object Detection, CVPR 2017, https://arxiv.org/abs/1612.03144.
Reference: Open-CD's ``TinyFPN``, ``TinyHead`` and ``DS_FPNHead`` (Apache-2.0).
"""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from bitemporal.models.layers import conv_module


class FeaturePyramid(nn.Module):
    """Every level is added to the next finer one, from coarse to fine, and refined."""

    def __init__(self, in_channels: Sequence[int], width: int, refine: Callable[[], nn.Module]) -> None:
        """Build the pyramid, initialised as in the reference.

        Args:
            in_channels: Channels of the levels, from the finest to the coarsest.
            width: Channels of every level of the result.
            refine: Builds the layer that follows the sum at a level; it keeps the number of channels.
        """
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in in_channels)
        self.refine = nn.ModuleList(refine() for _ in in_channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Refined levels N x C x h x w from levels with any number of channels; sizes stay."""
        sums = [lateral(level) for lateral, level in zip(self.lateral, levels, strict=True)]
        for fine in range(len(sums) - 2, -1, -1):
            sums[fine] = sums[fine] + F.interpolate(sums[fine + 1], size=sums[fine].shape[-2:], mode="nearest")
        return [refine(x) for refine, x in zip(self.refine, sums, strict=True)]


class LevelSum(nn.Module):
    """A 1 x 1 convolution per level, and their sum at the size of the finest level."""

    def __init__(self, levels: int, width: int) -> None:
        """Args: levels: Number of levels. width: Channels of each, and of the result."""
        super().__init__()
        self.project = nn.ModuleList(conv_module(width, width) for _ in range(levels))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Sum of levels N x C x h x w, from the finest to the coarsest."""
        projected: list[Tensor] = [project(level) for project, level in zip(self.project, levels, strict=True)]
        total = projected[0]
        for x in projected[1:]:
            total = total + F.interpolate(x, size=total.shape[-2:], mode="bilinear", align_corners=False)
        return total
