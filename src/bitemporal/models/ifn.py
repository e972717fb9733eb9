"""IFN (DSIFN): deeply supervised image fusion network.

Chenxiao Zhang, Peng Yue, Deodato Tapete, Liangcun Jiang, Boyi Shangguan, Li Huang, Guangchao Liu: A deeply supervised
image fusion network for change detection in high resolution bi-temporal remote sensing images, ISPRS Journal of
Photogrammetry and Remote Sensing 2020, https://doi.org/10.1016/j.isprsjprs.2020.06.003. Reference: Open-CD
(Apache-2.0); the encoder and its ImageNet weights are timm's VGG-16 (BSD-3-Clause).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from bitemporal.models.base import ChangeModel, ModelCard, ModelOutput, TrainingDefaults
from bitemporal.models.encoders import vgg
from bitemporal.models.layers import ChannelAttention, both_dates
from bitemporal.models.registry import register


class Unit(nn.Sequential):
    """Convolution, PReLU, batch normalisation, in this order."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Args: in_channels: Channels of the input. out_channels: Channels of the output."""
        super().__init__(nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.PReLU(), nn.BatchNorm2d(out_channels))


class SpatialAttention(nn.Module):
    """Weights of pixels from the mean and the maximum over channels, as in CBAM."""

    def __init__(self) -> None:
        """One 7 x 7 convolution."""
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Weights N x 1 x H x W in (0, 1) of features N x C x H x W."""
        pooled = torch.cat((x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)), dim=1)
        return torch.sigmoid(self.conv(pooled))


class Stage(nn.Module):
    """One size of the decoder: fuses the features of both dates with the deeper stage's."""

    def __init__(self, channels: Sequence[int], deeper: int = 0) -> None:
        """Build a stage.

        Args:
            channels: Channels of both dates and the deeper stage together, then the widths of the units.
            deeper: Channels of the deeper stage's result, which is brought to this size; 0 for the deepest stage.
        """
        super().__init__()
        self.up = nn.ConvTranspose2d(deeper, deeper, 2, stride=2) if deeper else None
        self.channel_attention = ChannelAttention(channels[0], max(1, channels[0] // 8)) if deeper else None
        self.units = nn.Sequential(*(Unit(inner, outer) for inner, outer in pairwise(channels)))
        self.spatial_attention = SpatialAttention()
        self.norm = nn.BatchNorm2d(channels[-1])

    def forward(self, dates: Sequence[Tensor], deeper: Tensor | None) -> Tensor:
        """Features N x C x H x W.

        Args:
            dates: Features of both dates, N x C x H x W.
            deeper: Result of the deeper stage at half the size.
        """
        if self.up is None or self.channel_attention is None:
            x = torch.cat(tuple(dates), dim=1)
        else:
            x = torch.cat((self.up(deeper), *dates), dim=1)
            x = self.channel_attention(x) * x
        x = self.units(x)
        normalised: Tensor = self.norm(self.spatial_attention(x) * x)
        return normalised


class IFN(ChangeModel):
    """Frozen VGG-16, whose features of both dates are fused from the coarsest to full size; every size is supervised.

    The encoder is never trained, with or without pretrained weights. A pixel is changed above a
    probability of 0.3, as in the reference, which sets no threshold and so gets the default of its library.
    """

    num_logits: ClassVar[int] = 1
    threshold: float = 0.3

    def __init__(self, encoder: str = "vgg16", pretrained: bool = False, in_channels: int = 3) -> None:
        """Build the network.

        Args:
            encoder: VGG without batch normalisation.
            pretrained: Fetch its ImageNet weights.
            in_channels: Channels of one date.

        Raises:
            WeightsError: When pretrained weights cannot be fetched.
        """
        super().__init__()
        self.encoder, (a, b, c, d, e) = vgg(encoder, pretrained, in_channels)
        self.encoder.requires_grad_(False).eval()
        self.decoder = nn.ModuleList(
            [
                Stage((2 * e, e, e)),
                Stage((e + 2 * d, d, c, c), deeper=e),
                Stage((c + 2 * c, c, b, b), deeper=c),
                Stage((b + 2 * b, b, a, a), deeper=b),
                Stage((a + 2 * a, a, a // 2, a // 4), deeper=a),
            ]
        )
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 1) for width in (e, c, b, a, a // 4))

    def outputs(self, before: Tensor, after: Tensor) -> ModelOutput:
        """Logits N x 1 x H x W at full size; ``aux1`` ... ``aux4`` are those at strides 16, 8, 4 and 2."""
        features = self._features(before, after)
        logits = [head(x) for head, x in zip(self.heads, features, strict=True)]
        return ModelOutput(logits[-1], {f"aux{i + 1}": answer for i, answer in enumerate(logits[:-1])})

    def head_logits(self, before: Tensor, after: Tensor) -> Tensor:
        """Logits N x 1 x H x W without the auxiliary outputs."""
        logits: Tensor = self.heads[-1](self._features(before, after)[-1])
        return logits

    def _features(self, before: Tensor, after: Tensor) -> list[Tensor]:
        """Features of the decoder's stages, from the deepest to full size."""
        levels = both_dates(self.encoder, before, after)
        features: list[Tensor] = []
        for stage, dates in zip(self.decoder, reversed(levels), strict=True):
            features.append(stage(dates, features[-1] if features else None))
        return features

    def frozen_modules(self) -> list[nn.Module]:
        """The encoder."""
        return [self.encoder]


CARD = ModelCard(
    title="IFN",
    paper=(
        "Zhang, Yue, Tapete, Jiang, Shangguan, Huang, Liu: A deeply supervised image fusion network for change "
        "detection in high resolution bi-temporal remote sensing images, ISPRS Journal 2020"
    ),
    url="https://doi.org/10.1016/j.isprsjprs.2020.06.003",
    licence="BSD-3-Clause (timm vgg16.tv_in1k)",
    multiple=16,
    minimum=32,
    training=TrainingDefaults(lr=1e-3, weight_decay=0.05, distillation_weight=1e-4),
    notes=(
        "The encoder is frozen: without pretrained (or imported) weights it stays as it was drawn. Channel attention "
        "sees the whole input, padding too: sizes that are multiples of 16 but not of 32 give different numbers "
        "from Open-CD, which pads to 32. The reference's ca1, bn_ca1 and bn_ca2, which it never uses, are left out."
    ),
)

register("ifn", CARD, IFN)
register("test_ifn", replace(CARD, title="IFN (micro)", licence="none"), partial(IFN, "test_vgg"))
