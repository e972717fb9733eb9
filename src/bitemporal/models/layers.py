"""Pieces that several families share."""

from collections.abc import Sequence

import torch
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
    count = before.shape[0]
    joint: Sequence[Tensor] = encoder(torch.cat((before, after)))
    return [(level[:count], level[count:]) for level in joint]
