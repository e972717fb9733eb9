"""Pieces that several families share."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def both_dates(encoder: nn.Module, before: Tensor, after: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Features of both dates from one shared encoder, level by level.

    In training each date passes alone, so that batch normalisation sees one date at a time, as in the reference; in
    evaluation both pass as one batch of 2N, which gives the same numbers faster.

    Args:
        encoder: Maps N x C x H x W to a sequence of feature maps.
        before: Images of date 1.
        after: Images of date 2.

    Returns:
        For each level the features of date 1 and of date 2.
    """
    if encoder.training:
        first: Sequence[Tensor] = encoder(before)
        second: Sequence[Tensor] = encoder(after)
        return list(zip(first, second, strict=True))
    joint: Sequence[Tensor] = encoder(torch.cat((before, after)))
    return [split_dates(level) for level in joint]


def split_dates(joint: Tensor) -> tuple[Tensor, Tensor]:
    """Both dates, N x ... each, of a joint batch 2N x ... with date 1 first."""
    count = joint.shape[0] // 2  # not chunk(2): an export could not leave N open
    return joint[:count], joint[count:]


def segmentation_head(channels: int, classes: int, dropout: float = 0.1) -> nn.Sequential:
    """Dropout of channels and a 1 x 1 convolution to the logits, initialised N(0, 0.01) as in the reference."""
    convolution = nn.Conv2d(channels, classes, 1)
    nn.init.normal_(convolution.weight, std=0.01)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return nn.Sequential(nn.Dropout2d(dropout) if dropout else nn.Identity(), convolution)


def conv_module(in_channels: int, out_channels: int, kernel_size: int = 1) -> nn.Sequential:
    """A convolution without bias, batch normalisation, ReLU; kaiming initialisation as in the reference.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        kernel_size: Odd; the size stays.
    """
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


class PooledBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation of features pooled over the whole image, N x C x 1 x 1.

    A batch of one has no variance there, and torch (and the reference) refuses to train on it; here such a batch is
    normalised by the running statistics, which it leaves as they are.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise N x C x 1 x 1."""
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)
