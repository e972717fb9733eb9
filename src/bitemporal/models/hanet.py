"""HANet: hierarchical attention network.

Chengxi Han, Chen Wu, Haonan Guo, Meiqi Hu, Hongruixuan Chen: HANet: A Hierarchical Attention Network for Change
Detection With Bitemporal Very-High-Resolution Remote Sensing Images, JSTARS 2023,
https://doi.org/10.1109/JSTARS.2023.3264802. Reference: Open-CD (Apache-2.0).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitemporal.models.base import ChangeModel, ModelCard, ModelOutput, TrainingDefaults
from bitemporal.models.layers import (
    ShortcutBlock,
    both_dates,
    features_by_stage,
    initialise,
    segmentation_head,
    unscaled_attention,
    without_autocast,
)
from bitemporal.models.registry import register

LEVELS = 4


class Encoder(nn.Module):
    """Four feature extraction cells; every one works at half the size of the one before."""

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        """Args: in_channels: Channels of the image. widths: Channels of the levels."""
        super().__init__()
        self.stem = nn.Conv2d(in_channels, widths[0], 5, padding=2)
        inner = (widths[0], *widths[:-1])
        self.cells = nn.ModuleList(
            ShortcutBlock(a, b, kernel_size=1, bias=False) for a, b in zip(inner, widths, strict=True)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of images N x C x H x W at strides 1, 2, 4 and 8."""
        return features_by_stage(self.cells, self.stem(images), between=partial(F.avg_pool2d, kernel_size=2))


class ChannelAttention(nn.Module):
    """Every channel takes in the channels that it resembles least; residual."""

    def __init__(self) -> None:
        """One weight of the residual, 0 at first."""
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as the features N x C x H x W."""
        with without_autocast(x.device):  # the energies are sums over all pixels
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            pixels = x.flatten(2)
            attention = torch.softmax(-(pixels @ pixels.mT), dim=-1)
            return self.gamma * (attention @ pixels).view_as(x) + x


class AxisAttention(nn.Module):
    """Attention along rows, each by itself, or along columns when given transposed; residual."""

    def __init__(self, channels: int) -> None:
        """Args: channels: Channels of input and output."""
        super().__init__()
        self.projection = nn.Linear(channels, 3 * channels)
        # the reference draws three convolutions, for query, key and value
        nn.init.normal_(self.projection.weight, std=(2.0 / channels) ** 0.5)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as the features N x H x W x C (channels last); along W."""
        x = x.contiguous()  # once instead of at every use
        query, key, value = self.projection(x).chunk(3, dim=-1)
        return self.gamma * unscaled_attention(query, key, value) + x


class Level(nn.Module):
    """One size of the hierarchy: fuses the dates, then attends over channels, columns and rows."""

    def __init__(self, channels: int, hidden: int) -> None:
        """Build the layers.

        Args:
            channels: Channels of one date and of the result.
            hidden: Channels between which channel attention runs.
        """
        super().__init__()
        self.dilated = nn.ModuleList(
            nn.Conv2d(2 * channels, channels, 3, padding=dilation, dilation=dilation, groups=channels // 2)
            for dilation in (1, 2, 3, 4)
        )
        self.join = nn.Conv2d(4 * channels, channels, 1)
        self.channels = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1),
            nn.BatchNorm2d(hidden),
            nn.PReLU(),
            ChannelAttention(),
            nn.Conv2d(hidden, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.PReLU(),
        )
        self.columns = AxisAttention(channels)
        self.rows = AxisAttention(channels)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Features N x C x H x W from those of both dates, of the same shape."""
        dates = torch.cat((before, after), dim=1)
        x = self.join(torch.cat([conv(dates) for conv in self.dilated], dim=1))
        by_channels: Tensor = self.channels(x)
        with without_autocast(x.device):  # nothing scales the energies down: half precision is too coarse for them
            x = x.to(torch.promote_types(x.dtype, torch.float32)).permute(0, 3, 2, 1)
            by_axes: Tensor = self.rows(self.columns(x).transpose(1, 2)).permute(0, 3, 1, 2)
        return by_channels + by_axes


class HANet(ChangeModel):
    """Shared encoder; at each of four sizes both dates are fused and attended to, and all sizes are joined.

    The sampling that the paper trains with, which balances foreground and background, is not part of the network.
    """

    def __init__(self, in_channels: int = 3, width: int = 40, hidden: int = 32) -> None:
        """Build the network.

        Args:
            in_channels: Channels of one date.
            width: Channels at full size, an even number; every level doubles them.
            hidden: Channels between which channel attention runs.
        """
        super().__init__()
        self.widths = [width * 2**level for level in range(LEVELS)]
        self.encoder = Encoder(in_channels, self.widths)
        self.levels = nn.ModuleList(Level(channels, hidden) for channels in self.widths)
        self.reduce = nn.Conv2d(sum(self.widths), 2 * width, 1)
        initialise(self)
        self.head = segmentation_head(2 * width, self.num_logits)

    def outputs(self, before: Tensor, after: Tensor) -> ModelOutput:
        """Logits N x 2 x H x W at full size; no auxiliary output."""
        dates = both_dates(self.encoder, before, after)
        maps = [level(*features) for level, features in zip(self.levels, dates, strict=True)]
        return ModelOutput(self.head(self._joined(maps)))

    def _joined(self, maps: Sequence[Tensor]) -> Tensor:
        """One map at full size from the maps of all levels, the first of them at full size.

        The reference doubles the size of the deepest map, concatenates it with the next one, and so on, and reduces the
        channels of the result. Here every map is reduced first: convolution of single pixels and interpolation of
        single channels may change places, and the sum is the same, with a seventh of the channels at full size.
        """
        *finer, weight = self.reduce.weight.split(self.widths, dim=1)
        x = F.conv2d(maps[-1], weight)
        for level in reversed(range(LEVELS - 1)):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = x + F.conv2d(maps[level], finer[level], self.reduce.bias if level == 0 else None)
        return x


CARD = ModelCard(
    title="HANet",
    paper=(
        "Han, Wu, Guo, Hu, Chen: HANet: A Hierarchical Attention Network for Change Detection With Bitemporal "
        "Very-High-Resolution Remote Sensing Images, JSTARS 2023"
    ),
    url="https://doi.org/10.1109/JSTARS.2023.3264802",
    licence="none",
    multiple=8,
    minimum=16,
    training=TrainingDefaults(lr=1e-3, weight_decay=0.05, distillation_weight=1e-3),
    notes=(
        "No pretrained weights. Attention sees the whole input, padding too: sizes that are multiples of 8 but not of "
        "32 give different numbers from Open-CD, which pads to 32. The reference's c1_conv ... c4_conv, which it never "
        "uses, are left out."
    ),
)

register("hanet", CARD, HANet)
register("test_hanet", replace(CARD, title="HANet (micro)"), partial(HANet, width=4, hidden=8))
