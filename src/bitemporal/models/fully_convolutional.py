"""Fully convolutional networks with early fusion or two branches: FC-EF, FC-Siam-conc, FC-Siam-diff.

Rodrigo Caye Daudt, Bertrand Le Saux, Alexandre Boulch: Fully Convolutional Siamese Networks for Change Detection, ICIP
2018, https://arxiv.org/abs/1810.08462. Reference: Open-CD (Apache-2.0).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitemporal.models.base import ChangeModel, ModelCard, ModelOutput, TrainingDefaults
from bitemporal.models.layers import both_dates, features_by_stage, segmentation_head
from bitemporal.models.registry import register

Fusion = Literal["early", "concatenation", "difference"]


class Unit(nn.Sequential):
    """Convolution (transposed in the decoder), batch normalisation, ReLU, dropout of channels."""

    def __init__(self, convolution: type[nn.Conv2d | nn.ConvTranspose2d], in_channels: int, out_channels: int) -> None:
        """Args: convolution: Kind. in_channels: Channels of the input. out_channels: Channels of the output."""
        super().__init__(
            convolution(in_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.2),
        )


def units(convolution: type[nn.Conv2d | nn.ConvTranspose2d], channels: Sequence[int]) -> nn.Sequential:
    """Units one after another, with the widths from input to output."""
    return nn.Sequential(*(Unit(convolution, inner, outer) for inner, outer in pairwise(channels)))


class Encoder(nn.Module):
    """Four stages with 2, 2, 3 and 3 convolutions; every stage works at half the size of the one before."""

    def __init__(self, in_channels: int, width: int) -> None:
        """Args: in_channels: Channels of the image. width: Channels of the first stage; every stage doubles them."""
        super().__init__()
        a, b, c, d = (width * 2**i for i in range(4))
        self.stages = nn.ModuleList(
            units(nn.Conv2d, channels) for channels in ((in_channels, a, a), (a, b, b), (b, c, c, c), (c, d, d, d))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of images N x C x H x W at strides 1, 2, 4 and 8."""
        return features_by_stage(self.stages, x, between=partial(F.max_pool2d, kernel_size=2))


class Decoder(nn.Module):
    """Four stages from the deepest feature back to full size, each taking in the skip of its size."""

    def __init__(self, width: int, skip: int) -> None:
        """Args: width: Channels of the last stage. skip: Channels of a skip, in multiples of its stage's width."""
        super().__init__()
        a, b, c, d = (width * 2**i for i in range(4))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(n, n, 3, stride=2, padding=1, output_padding=1) for n in (d, c, b, a)
        )
        joined = 1 + skip
        self.stages = nn.ModuleList(
            [
                units(nn.ConvTranspose2d, (joined * d, d, d, c)),
                units(nn.ConvTranspose2d, (joined * c, c, c, b)),
                units(nn.ConvTranspose2d, (joined * b, b, a)),
                nn.Sequential(
                    Unit(nn.ConvTranspose2d, joined * a, a),
                    nn.ConvTranspose2d(a, a, 3, padding=1),
                ),
            ]
        )

    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """Features at full size from the deepest feature, stride 16, and the skips at strides 1, 2, 4 and 8."""
        for up, stage, skip in zip(self.up, self.stages, reversed(skips), strict=True):
            x = up(x)
            missing = (0, skip.shape[3] - x.shape[3], 0, skip.shape[2] - x.shape[2])
            x = F.pad(x, missing, mode="replicate")  # one row or column where the pooling rounded down
            x = stage(torch.cat((x, skip), dim=1))
        return x


class FullyConvolutional(ChangeModel):
    """U-Net over the concatenated dates, or over both dates with shared weights and fused skips."""

    def __init__(self, fusion: Fusion, in_channels: int = 3, width: int = 16) -> None:
        """Build the network.

        Args:
            fusion: Where and how the dates meet: ``early`` in the input (FC-EF), or in the skips by ``concatenation``
                (FC-Siam-conc) or absolute ``difference`` (FC-Siam-diff).
            in_channels: Channels of one date.
            width: Channels of the first stage.
        """
        super().__init__()
        self.fusion: Fusion = fusion
        self.encoder = Encoder(2 * in_channels if fusion == "early" else in_channels, width)
        self.decoder = Decoder(width, skip=2 if fusion == "concatenation" else 1)
        self.head = segmentation_head(width, self.num_logits)

    def outputs(self, before: Tensor, after: Tensor) -> ModelOutput:
        """Logits N x 2 x H x W at full size; no auxiliary output."""
        if self.fusion == "early":
            skips: list[Tensor] = self.encoder(torch.cat((before, after), dim=1))
            deepest = skips[-1]
        else:
            dates = both_dates(self.encoder, before, after)
            deepest = dates[-1][1]  # of date 2 alone, as in the paper's code
            skips = [
                torch.cat((first, second), dim=1) if self.fusion == "concatenation" else (first - second).abs()
                for first, second in dates
            ]
        return ModelOutput(self.head(self.decoder(F.max_pool2d(deepest, 2), skips)))


FC_EF = ModelCard(
    title="FC-EF",
    paper="Caye Daudt, Le Saux, Boulch: Fully Convolutional Siamese Networks for Change Detection, ICIP 2018",
    url="https://arxiv.org/abs/1810.08462",
    licence="none",
    multiple=1,
    minimum=16,
    stride=16,
    training=TrainingDefaults(lr=1e-3, weight_decay=0.05),
    notes="No pretrained weights. The JL1-CD paper does not distil this network; lambda is Open-CD's 1e-3.",
)

register("fc_ef", FC_EF, partial(FullyConvolutional, "early"))
register("fc_siam_conc", replace(FC_EF, title="FC-Siam-conc"), partial(FullyConvolutional, "concatenation"))
register("fc_siam_diff", replace(FC_EF, title="FC-Siam-diff"), partial(FullyConvolutional, "difference"))
register("test_fc", replace(FC_EF, title="FC-Siam-diff (micro)"), partial(FullyConvolutional, "difference", width=3))
