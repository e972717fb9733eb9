"""SNUNet-CD with the ensemble channel attention module (ECAM).

Sheng Fang, Kaiyu Li, Jinyuan Shao, Zhe Li: SNUNet-CD: A Densely Connected Siamese Network for Change Detection of VHR
Images, GRSL 2022, https://doi.org/10.1109/LGRS.2021.3056416. Reference: Open-CD (Apache-2.0).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitemporal.models.base import ChangeModel, ModelCard, ModelOutput, TrainingDefaults
from bitemporal.models.layers import (
    ChannelAttention,
    ShortcutBlock,
    both_dates,
    features_by_stage,
    initialise,
    segmentation_head,
)
from bitemporal.models.registry import register

LEVELS = 5


class Encoder(nn.Module):
    """The levels that both dates pass; every level works at half the size of the one before."""

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        """Args: in_channels: Channels of the image. widths: Channels of the levels."""
        super().__init__()
        inner = (in_channels, *widths[:-1])
        self.levels = nn.ModuleList(ShortcutBlock(a, b) for a, b in zip(inner, widths, strict=True))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of images N x C x H x W at strides 1, 2, 4 and 8."""
        return features_by_stage(self.levels, x, between=partial(F.max_pool2d, kernel_size=2))


class Node(nn.Module):
    """A node of the dense decoder: joins all earlier nodes of its level with the one below in the column before."""

    def __init__(self, channels: int, below: int, earlier: int) -> None:
        """Build the layers.

        Args:
            channels: Channels of the level.
            below: Channels of the level below.
            earlier: Number of features that the level has so far.
        """
        super().__init__()
        self.up = nn.ConvTranspose2d(below, below, 2, stride=2)
        self.block = ShortcutBlock(channels * earlier + below, channels)

    def forward(self, earlier: Sequence[Tensor], below: Tensor) -> Tensor:
        """Features N x C x H x W from those of the level so far, and the one below, N x C' x H/2 x W/2."""
        refined: Tensor = self.block(torch.cat((*earlier, self.up(below)), dim=1))
        return refined


class Column(nn.Module):
    """The nodes of one column, from full size down; every column has one level less than the column before."""

    def __init__(self, widths: Sequence[int], earlier: int) -> None:
        """Build the layers.

        Args:
            widths: Channels of the levels of the column before.
            earlier: Number of features that every level has so far.
        """
        super().__init__()
        self.nodes = nn.ModuleList(Node(channels, below, earlier) for channels, below in pairwise(widths))

    def forward(self, levels: Sequence[Sequence[Tensor]], below: Sequence[Tensor]) -> list[Tensor]:
        """Results of the nodes.

        Args:
            levels: All features so far by level.
            below: Features of the previous column, from the second level on.
        """
        return [node(earlier, deeper) for node, earlier, deeper in zip(self.nodes, levels, below, strict=False)]


class EnsembleChannelAttention(nn.Module):
    """Joins the four results of the decoder: channels are weighed in their sum, and in their concatenation."""

    def __init__(self, channels: int, count: int) -> None:
        """Args: channels: Channels of one result. count: Number of results."""
        super().__init__()
        self.within = ChannelAttention(channels, max(1, channels // 4))
        self.across = ChannelAttention(count * channels, max(1, count * channels // 16))

    def forward(self, results: Sequence[Tensor]) -> Tensor:
        """Features N x (count C) x H x W of results N x C x H x W."""
        joined = torch.cat(tuple(results), dim=1)
        total = results[0]
        for result in results[1:]:
            total = total + result
        within: Tensor = self.within(total)
        across: Tensor = self.across(joined)
        return across * (joined + within.repeat(1, len(results), 1, 1))


class SNUNet(ChangeModel):
    """UNet++ whose first column holds both dates, so that every node of the decoder sees the early features of both."""

    def __init__(self, in_channels: int = 3, width: int = 16) -> None:
        """Build the network.

        Args:
            in_channels: Channels of one date.
            width: Channels at full size; every level doubles them.
        """
        super().__init__()
        widths = [width * 2**level for level in range(LEVELS)]
        self.encoder = Encoder(in_channels, widths[:-1])
        self.deepest = ShortcutBlock(widths[-2], widths[-1])
        self.columns = nn.ModuleList(Column(widths[: LEVELS - i], earlier=2 + i) for i in range(LEVELS - 1))
        self.attention = EnsembleChannelAttention(width, LEVELS - 1)
        initialise(self)
        self.head = segmentation_head(width * (LEVELS - 1), self.num_logits)

    def outputs(self, before: Tensor, after: Tensor) -> ModelOutput:
        """Logits N x 2 x H x W at full size; no auxiliary output."""
        levels = [list(dates) for dates in both_dates(self.encoder, before, after)]
        below = [after_features for _, after_features in levels[1:]]
        below.append(self.deepest(F.max_pool2d(levels[-1][1], 2)))  # of date 2 alone, as in the paper's code
        for column in self.columns:
            results = column(levels, below)
            for level, result in zip(levels, results, strict=False):
                level.append(result)
            below = results[1:]
        return ModelOutput(self.head(self.attention(levels[0][2:])))


PADDING = (
    "Channel attention sees the whole input, padding too: sizes that are multiples of 16 but not of 32 give different "
    "numbers from Open-CD, which pads to 32."
)
SNUNET_C16 = ModelCard(
    title="SNUNet-CD (c16)",
    paper=(
        "Fang, Li, Shao, Li: SNUNet-CD: A Densely Connected Siamese Network for Change Detection of VHR Images, "
        "GRSL 2022"
    ),
    url="https://doi.org/10.1109/LGRS.2021.3056416",
    licence="none",
    multiple=16,
    minimum=32,
    training=TrainingDefaults(lr=1e-3, weight_decay=0.05, distillation_weight=1e-4),
    notes=f"No pretrained weights. {PADDING}",
)
SNUNET_C32 = replace(
    SNUNET_C16,
    title="SNUNet-CD (c32)",
    training=replace(SNUNET_C16.training, distillation_weight=1e-3),
    notes=f"No pretrained weights. The JL1-CD paper does not distil this size; lambda is Open-CD's 1e-3. {PADDING}",
)

register("snunet_c16", SNUNET_C16, SNUNet)
register("snunet_c32", SNUNET_C32, partial(SNUNet, width=32))
register("test_snunet", replace(SNUNET_C16, title="SNUNet-CD (micro)"), partial(SNUNet, width=2))
