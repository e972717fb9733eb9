"""LightCDNet.

Yuanjun Xing, Jiawei Jiang, Jun Xiang, Enping Yan, Yabin Song, Dengkui Mo: LightCDNet: Lightweight Change Detection
Network Based on VHR Images, GRSL 2023, https://ieeexplore.ieee.org/document/10214556. Criss-cross attention: Zilong
Huang and others: CCNet: Criss-Cross Attention for Semantic Segmentation, ICCV 2019, https://arxiv.org/abs/1811.11721.
Shuffling units: Ningning Ma and others: ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, ECCV
2018, https://arxiv.org/abs/1807.11164. Reference: Open-CD (Apache-2.0); there are no pretrained weights.
"""

from bitemporal import _torchvision as _torchvision  # isort: skip  (before timm, which imports torchvision)

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from bitemporal.losses import cross_entropy, ohem_cross_entropy
from bitemporal.models.base import ChangeModel, ModelCard, ModelOutput, TrainingDefaults
from bitemporal.models.layers import conv_module, date_weights, segmentation_head, without_autocast
from bitemporal.models.pyramid import FeaturePyramid, LevelSum
from bitemporal.models.registry import register

AUXILIARY_WEIGHT = 0.4


def interleave(first: Tensor, second: Tensor) -> Tensor:
    """Channels of both, N x C x H x W each, taken in turns: concatenation and shuffling in one copy."""
    return torch.stack((first, second), dim=2).flatten(1, 2)


class ShuffleUnit(nn.Module):
    """Unit of ShuffleNetV2; torchvision's gives the same numbers, and copies the map once more."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        """Build the layers.

        Args:
            in_channels: Channels of the input.
            out_channels: Channels of the output, the same if stride is 1.
            stride: 2 halves the size.
        """
        super().__init__()
        self.stride = stride
        half = out_channels // 2
        self.branch2 = nn.Sequential(
            *Conv2dNormActivation(in_channels if stride == 2 else half, half, kernel_size=1),
            nn.Conv2d(half, half, 3, stride=stride, padding=1, groups=half, bias=False),
            nn.BatchNorm2d(half),
            *Conv2dNormActivation(half, half, kernel_size=1),
        )
        if stride == 2:
            self.branch1 = nn.Sequential(
                nn.Conv2d(in_channels, in_channels, 3, stride=2, padding=1, groups=in_channels, bias=False),
                nn.BatchNorm2d(in_channels),
                *Conv2dNormActivation(in_channels, half, kernel_size=1),
            )

    def forward(self, x: Tensor) -> Tensor:
        """With stride 1 half of the channels stay unchanged; with stride 2 all pass both branches."""
        if self.stride == 2:
            return interleave(self.branch1(x), self.branch2(x))
        kept, worked = x.chunk(2, dim=1)
        return interleave(kept, self.branch2(worked))


class DateEncoder(nn.Module):
    """Shallow features of one date at half the size."""

    def __init__(self, in_channels: int, channels: int, blocks: int) -> None:
        """Build the layers.

        Args:
            in_channels: Channels of the image.
            channels: Channels of the features.
            blocks: Number of shuffling units.
        """
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stride=2, padding=1, bias=False), LayerNorm2d(channels), nn.GELU()
        )
        wide = 4 * channels
        self.expand = Conv2dNormActivation(channels, wide, kernel_size=1)
        self.blocks = nn.Sequential(*(ShuffleUnit(wide, wide) for _ in range(blocks)))
        self.project = Conv2dNormActivation(wide, channels, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """Features N x C x H/2 x W/2 of images N x C x H x W."""
        x: Tensor = self.stem(images)
        refined: Tensor = self.project(self.blocks(self.expand(x)))
        return x + refined


class TimeFusion(nn.Module):
    """Features of both dates, weighed by channel and date, in one map."""

    def __init__(self, channels: int) -> None:
        """Args: channels: Channels of one date, and of the map."""
        super().__init__()
        self.weights = date_weights(2 * channels, channels)
        self.join = Conv2dNormActivation(2 * channels, channels, kernel_size=1)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Fuse features N x C x H x W."""
        pooled = torch.cat((before.mean((2, 3), keepdim=True), after.mean((2, 3), keepdim=True)), dim=1)
        of_before, of_after = (1.0 + self.weights(pooled)).chunk(2, dim=1)
        fused: Tensor = self.join(interleave(before * of_before, after * of_after))
        return fused


class CrissCrossAttention(nn.Module):
    """Each pixel attends to its column and its row, twice with the same weights, so that it sees the whole image."""

    def __init__(self, channels: int) -> None:
        """Args: channels: Channels of input and output."""
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as the input N x C x H x W."""
        return self.once(self.once(x))

    def once(self, x: Tensor) -> Tensor:
        """One pass. A pixel is in its column and in its row; it attends to itself in the row only."""
        height = x.shape[2]
        # by column N x W x H x C, by row N x H x W x C
        query, key, value = (layer(x).permute(0, 3, 2, 1) for layer in (self.query, self.key, self.value))
        with without_autocast(x.device):
            # the scores are not scaled, hence large: in half precision they would be a tenth off
            query, key = (y.to(torch.promote_types(y.dtype, torch.float32)) for y in (query, key))
            columns = query @ key.mT
            rows = query.transpose(1, 2) @ key.transpose(1, 2).mT
            itself = torch.arange(height, device=x.device)
            columns = columns.masked_fill_(itself[:, None] == itself, -torch.inf)
            attention = torch.cat((columns.transpose(1, 2), rows), dim=-1).softmax(dim=-1).to(value.dtype)
        gathered = (attention[..., :height].transpose(1, 2) @ value).transpose(1, 2)
        gathered = gathered + attention[..., height:] @ value.transpose(1, 2)
        attended: Tensor = x + self.scale * gathered.permute(0, 3, 1, 2)
        return attended


def stage(in_channels: int, channels: int, blocks: int) -> nn.Sequential:
    """Shuffling units, the first of which halves the size."""
    others = (ShuffleUnit(channels, channels) for _ in range(blocks - 1))
    return nn.Sequential(ShuffleUnit(in_channels, channels, stride=2), *others)


class Encoder(nn.Module):
    """Three stages over the fused map, strides 4, 8 and 16, with criss-cross attention between them.

    What goes to the pyramid is not what goes to the next stage: the features before the attention, and in the second
    stage those before its last unit. This follows from the indices of the reference, and so it was trained. They also
    leave the last two units and the last attention of its third stage unused; these are not here.
    """

    def __init__(self, channels: int, widths: Sequence[int], depths: Sequence[int]) -> None:
        """Build the layers.

        Args:
            channels: Channels of the fused map.
            widths: Channels of the stages.
            depths: Units of the stages that are used.
        """
        super().__init__()
        quarter, eighth, sixteenth = widths
        self.quarter = stage(channels, quarter, depths[0])
        self.quarter_attention = CrissCrossAttention(quarter)
        self.eighth = stage(quarter, eighth, depths[1] - 1)
        self.eighth_last = ShuffleUnit(eighth, eighth)
        self.eighth_attention = CrissCrossAttention(eighth)
        self.sixteenth = stage(eighth, sixteenth, depths[2])

    def forward(self, fused: Tensor) -> list[Tensor]:
        """Features at strides 4, 8 and 16 of a map at stride 2."""
        quarter = self.quarter(fused)
        eighth = self.eighth(self.quarter_attention(quarter))
        sixteenth = self.sixteenth(self.eighth_attention(self.eighth_last(eighth)))
        return [quarter, eighth, sixteenth]


class LightCDNet(ChangeModel):
    """The dates meet early, supervised there; a small encoder and a feature pyramid follow."""

    def __init__(
        self,
        widths: Sequence[int] = (48, 96, 192),
        depths: Sequence[int] = (4, 8, 2),
        date_blocks: int = 4,
        early: int = 24,
        pyramid: int = 48,
        in_channels: int = 3,
    ) -> None:
        """Build the network.

        Args:
            widths: Channels of the three stages, multiples of 2 and at least 8.
            depths: Shuffling units of the three stages.
            date_blocks: Shuffling units over each date before the dates meet.
            early: Channels of one date, and of the fused map.
            pyramid: Channels of the pyramid.
            in_channels: Channels of one date.
        """
        super().__init__()
        self.dates = DateEncoder(in_channels, early, date_blocks)
        self.fusion = TimeFusion(early)
        self.encoder = Encoder(early, widths, depths)
        self.pyramid = FeaturePyramid(
            (early, *widths), pyramid, refine=lambda: nn.Conv2d(pyramid, pyramid, 3, padding=1)
        )
        self.sum = LevelSum(4, pyramid)
        self.classify = segmentation_head(pyramid, self.num_logits, dropout=0.0)
        self.auxiliary = nn.Sequential(
            conv_module(early, early, kernel_size=3), segmentation_head(early, self.num_logits, dropout=0.0)
        )

    def fused(self, before: Tensor, after: Tensor) -> Tensor:
        """The map in which the dates meet, N x C x H/2 x W/2."""
        # each date alone in evaluation too: the maps are large, and one joint batch took 1.4 times as long on the CPU
        fused: Tensor = self.fusion(self.dates(before), self.dates(after))
        return fused

    def main_head(self, fused: Tensor) -> Tensor:
        """Logits of the main head from the fused map."""
        levels = self.pyramid([fused, *self.encoder(fused)])
        logits: Tensor = self.classify(self.sum(levels))
        return logits

    def head_logits(self, before: Tensor, after: Tensor) -> Tensor:
        """Logits of the main head; the auxiliary head is not computed."""
        return self.main_head(self.fused(before, after))

    def outputs(self, before: Tensor, after: Tensor) -> ModelOutput:
        """Logits N x 2 x H/2 x W/2; auxiliary ``early``, of the same shape, from the fused map alone."""
        fused = self.fused(before, after)
        return ModelOutput(self.main_head(fused), {"early": self.auxiliary(fused)})

    def loss(self, outputs: ModelOutput, target: Tensor) -> dict[str, Tensor]:
        """Cross-entropy with hard example mining, ``loss_ce``, and 0.4 times that of the early map, ``loss_early``."""
        early = cross_entropy(outputs.auxiliary["early"], target, self.loss_pixels)
        return {
            "loss_ce": ohem_cross_entropy(outputs.logits, target, self.loss_pixels),
            "loss_early": AUXILIARY_WEIGHT * early,
        }


LIGHTCDNET_S = ModelCard(
    title="LightCDNet-s",
    paper=(
        "Xing, Jiang, Xiang, Yan, Song, Mo: LightCDNet: Lightweight Change Detection Network Based on VHR Images, "
        "GRSL 2023"
    ),
    url="https://ieeexplore.ieee.org/document/10214556",
    licence="none",
    multiple=16,
    minimum=32,
    training=TrainingDefaults(lr=3e-3, weight_decay=0.05, distillation_weight=5e-3),
    notes=(
        "No pretrained weights. The last two units and the last criss-cross attention of Open-CD's third stage, whose "
        "results it does not use, are left out, and so are their parameters. The attention between the dates sees the "
        "whole input, padding too: sizes that are multiples of 16 but not of 32 give different numbers from Open-CD, "
        "which pads to 32. A training batch of one pair, which Open-CD cannot take, is normalised by running "
        "statistics "
        "where features are pooled over the image."
    ),
)
# the paper distils the small one only
LIGHTCDNET_B = replace(LIGHTCDNET_S, title="LightCDNet-b", training=TrainingDefaults(lr=3e-3, weight_decay=0.05))

register("lightcdnet_s", LIGHTCDNET_S, LightCDNet)
register("lightcdnet_b", LIGHTCDNET_B, partial(LightCDNet, (116, 232, 464), date_blocks=8))
register(
    "lightcdnet_l", replace(LIGHTCDNET_B, title="LightCDNet-l"), partial(LightCDNet, (176, 352, 704), date_blocks=16)
)
register(
    "test_lightcdnet",
    replace(LIGHTCDNET_S, title="LightCDNet (micro)"),
    partial(LightCDNet, (16, 16, 32), (1, 2, 1), date_blocks=1, early=8, pyramid=16),
)
