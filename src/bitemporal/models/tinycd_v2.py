"""TinyCDv2 (TinyNet).

TinyCDv2: A Lighter and Stronger Network for Remote Sensing Change Detection; a network of Open-CD without a paper of
its own. Kaiyu Li and others: Open-CD: A Comprehensive Toolbox for Change Detection, 2024,
https://arxiv.org/abs/2407.15317. Reference: Open-CD (Apache-2.0); there are no pretrained weights. The inverted
residuals are torchvision's (MobileNetV2).
"""

from bitemporal import _torchvision as _torchvision  # isort: skip  (before timm, which imports torchvision)

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.ops import Conv2dNormActivation

from bitemporal.models.base import ChangeModel, ModelCard, ModelOutput, TrainingDefaults
from bitemporal.models.layers import date_weights, features_by_stage, initialise, segmentation_head
from bitemporal.models.pyramid import FeaturePyramid, LevelSum
from bitemporal.models.registry import register

Dates = tuple[Tensor, Tensor]
"""Features of date 1 and of date 2. They stay apart in evaluation too: the maps are large, and one joint batch took 1.4
times as long on the CPU."""


class PriorAttention(nn.Module):
    """Channels of both dates weighed by how much the dates differ in them over the whole image."""

    def __init__(self, channels: int) -> None:
        """Args: channels: Channels of one date."""
        super().__init__()
        self.weights = date_weights(channels, channels)

    def forward(self, dates: Dates) -> Dates:
        """Same shapes as the input."""
        before, after = dates
        difference = (before - after).abs().mean((2, 3), keepdim=True)
        of_before, of_after = (1.0 + self.weights(difference)).chunk(2, dim=1)
        return before * of_before, after * of_after


class StemBlock(nn.Module):
    """Inverted residual over each date, with attention to their difference inside."""

    def __init__(self, channels: int) -> None:
        """Args: channels: Channels of one date."""
        super().__init__()
        hidden = 4 * channels
        self.expand = nn.Sequential(
            Conv2dNormActivation(channels, hidden, 1, activation_layer=nn.ReLU6),
            Conv2dNormActivation(hidden, hidden, 3, groups=hidden, activation_layer=nn.ReLU6),
        )
        self.attention = PriorAttention(hidden)
        self.project = Conv2dNormActivation(hidden, channels, 1, activation_layer=None)

    def forward(self, dates: Dates) -> Dates:
        """Same shapes as the input."""
        before, after = dates
        of_before, of_after = self.attention((self.expand(before), self.expand(after)))
        return before + self.project(of_before), after + self.project(of_after)


class PriorFusion(nn.Module):
    """Features of both dates at half the size, and one map made of them."""

    def __init__(self, in_channels: int, channels: int, blocks: int) -> None:
        """Build the layers.

        Args:
            in_channels: Channels of the image.
            channels: Channels of one date, and of the map.
            blocks: Number of blocks.
        """
        super().__init__()
        self.stem = Conv2dNormActivation(in_channels, channels, 3, stride=2, activation_layer=nn.ReLU6)
        self.blocks = nn.Sequential(*(StemBlock(channels) for _ in range(blocks)))
        self.join = nn.Sequential(
            nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels),
            LayerNorm2d(2 * channels),
            nn.GELU(),
            # neighbours among the concatenated channels meet here: two of one date, as in the reference
            nn.Conv2d(2 * channels, channels, 3, padding=1, groups=channels),
        )

    def forward(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of date 1 and of date 2, N x C x H/2 x W/2 each, and the map, of the same shape."""
        stems = (self.stem(before), self.stem(after))
        first, second = (x + stem for x, stem in zip(self.blocks(stems), stems, strict=True))
        return first, second, self.join(torch.cat((first, second), dim=1))


class StripAttention(nn.Module):
    """Features weighed by what long strips in both directions gather around each pixel; residual."""

    def __init__(self, channels: int, length: int) -> None:
        """Args: channels: Channels of input and output. length: Length of a strip in pixels, odd."""
        super().__init__()
        self.strips = nn.Sequential(
            nn.Conv2d(channels, channels, 1),
            nn.Conv2d(channels, channels, (1, length), padding=(0, length // 2), groups=channels),
            nn.Conv2d(channels, channels, (length, 1), padding=(length // 2, 0), groups=channels),
        )
        self.value = nn.Conv2d(channels, channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        self.norm = LayerNorm2d(channels)
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as the input N x C x H x W."""
        gathered: Tensor = self.project(self.strips(x) * self.value(x))
        normalised: Tensor = self.norm(gathered)
        return x + self.scale * normalised


def stage(in_channels: int, channels: int, stride: int, expansion: int, blocks: int, strip: int) -> nn.Sequential:
    """Inverted residuals, the first of which may halve the size, and strip attention."""
    first = InvertedResidual(in_channels, channels, stride, expansion)
    others = (InvertedResidual(channels, channels, 1, expansion) for _ in range(blocks - 1))
    return nn.Sequential(first, *others, StripAttention(channels, strip))


class Head(nn.Module):
    """Sum of the pyramid's levels, weighed by the difference of the early features."""

    def __init__(self, early: int, width: int, classes: int) -> None:
        """Build the layers.

        Args:
            early: Channels of the early features of one date.
            width: Channels of the levels.
            classes: Number of logits.
        """
        super().__init__()
        self.sum = LevelSum(4, width)
        self.difference = nn.Conv2d(early, width, 1)
        initialise(self.difference, zero_bias=True)
        self.classify = segmentation_head(width, classes, dropout=0.0)

    def forward(self, before: Tensor, after: Tensor, levels: Sequence[Tensor]) -> Tensor:
        """Logits N x K x h x w at the size of the early features and of the finest level."""
        weights = torch.sigmoid(self.difference((before - after).abs()))
        logits: Tensor = self.classify(self.sum(levels) * (1.0 + weights))
        return logits


class TinyCDv2(ChangeModel):
    """The dates meet early, in one map of a few channels; a small encoder and a feature pyramid follow."""

    def __init__(
        self,
        widths: Sequence[int] = (16, 24, 32, 48),
        depths: Sequence[int] = (2, 2, 3, 1),
        strips: Sequence[int] = (41, 31, 21, 11),
        stem_blocks: int = 2,
        in_channels: int = 3,
    ) -> None:
        """Build the network.

        Args:
            widths: Channels of the four stages; those of the first are also those of the stem.
            depths: Inverted residuals of the four stages.
            strips: Length of the strips at the end of the four stages; odd.
            stem_blocks: Blocks over each date before the dates meet.
            in_channels: Channels of one date.
        """
        super().__init__()
        self.fusion = PriorFusion(in_channels, widths[0], stem_blocks)
        inner = (widths[0], *widths[:-1])
        self.stages = nn.ModuleList(
            stage(*arguments)
            for arguments in zip(inner, widths, (1, 2, 2, 2), (4, 6, 6, 6), depths, strips, strict=True)
        )
        initialise(self, zero_bias=True)
        self.pyramid = FeaturePyramid(widths, 24, refine=lambda: InvertedResidual(24, 24, 1, 1))
        self.head = Head(widths[0], 24, self.num_logits)

    def outputs(self, before: Tensor, after: Tensor) -> ModelOutput:
        """Logits N x 2 x H/2 x W/2; no auxiliary output."""
        first, second, x = self.fusion(before, after)
        levels = self.pyramid(features_by_stage(self.stages, x))
        return ModelOutput(self.head(first, second, levels))


TINYCD_V2_S = ModelCard(
    title="TinyCDv2-S",
    paper="Li and others: Open-CD: A Comprehensive Toolbox for Change Detection, 2024",
    url="https://arxiv.org/abs/2407.15317",
    licence="none",
    multiple=16,
    minimum=32,
    training=TrainingDefaults(lr=3e-3, weight_decay=0.05),
    notes=(
        "No pretrained weights. The JL1-CD paper does not distil this network; lambda is Open-CD's 1e-3. The attention "
        "between the dates sees the whole input, padding too: sizes that are multiples of 16 but not of 32 give "
        "different "
        "numbers from Open-CD, which pads to 32. A training batch of one pair, which Open-CD cannot take, is "
        "normalised by running statistics where features are pooled over the image."
    ),
)

register("tinycd_v2_s", TINYCD_V2_S, partial(TinyCDv2, (8, 16, 16, 24)))
register("tinycd_v2_b", replace(TINYCD_V2_S, title="TinyCDv2-B"), TinyCDv2)
register(
    "tinycd_v2_l",
    replace(TINYCD_V2_S, title="TinyCDv2-L"),
    partial(TinyCDv2, (24, 32, 40, 56), (2, 2, 6, 1), stem_blocks=4),
)
register(
    "test_tinycd_v2",
    replace(TINYCD_V2_S, title="TinyCDv2 (micro)"),
    partial(TinyCDv2, (8, 8, 16, 16), (1, 1, 1, 1), (11, 9, 7, 5), stem_blocks=1),
)
