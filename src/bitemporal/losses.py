"""Supervised losses: cross-entropy over two logits or one, and online hard example mining.

All take logits at any stride, resize them to the label and compute in float32. Ignored pixels (255) add nothing;
``pixels`` says whether they count in the denominator, as they do in the reference (Open-CD).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bitemporal.car import IGNORE

Pixels = Literal["valid", "all"]
"""What a loss is averaged over: the valid pixels (right), or all of them as in the reference (models of Open-CD
divide by ignored pixels too)."""

OHEM_THRESHOLD = 0.7
OHEM_KEPT = 100_000


def cross_entropy(logits: Tensor, target: Tensor, pixels: Pixels = "valid") -> Tensor:
    """Mean cross-entropy over two classes.

    Args:
        logits: N x 2 x h x w at any stride; resized bilinearly to the target.
        target: N x H x W int64: 0, 1, or 255 to ignore.
        pixels: Average over ``valid`` pixels (0 when there are none), or over ``all`` as the reference does.

    Returns:
        Scalar float32.
    """
    return _average(_cross_entropy_map(_resize(logits, target), target), target, pixels)


def binary_cross_entropy(logits: Tensor, target: Tensor, pixels: Pixels = "valid") -> Tensor:
    """Mean binary cross-entropy of a single logit.

    Args:
        logits: N x 1 x h x w at any stride; resized bilinearly to the target.
        target: N x H x W int64: 0, 1, or 255 to ignore.
        pixels: Average over ``valid`` pixels (0 when there are none), or over ``all`` as the reference does.

    Returns:
        Scalar float32.
    """
    resized = _resize(logits, target).squeeze(1)
    ignored = target == IGNORE
    changed = target.masked_fill(ignored, 0).to(resized.dtype)
    losses = F.binary_cross_entropy_with_logits(resized, changed, reduction="none")
    return _average(losses.masked_fill(ignored, 0.0), target, pixels)


def ohem_cross_entropy(
    logits: Tensor,
    target: Tensor,
    pixels: Pixels = "valid",
    threshold: float = OHEM_THRESHOLD,
    kept: int = OHEM_KEPT,
) -> Tensor:
    """Cross-entropy of the hard pixels only (online hard example mining).

    A pixel is hard when its probability of the true class lies strictly below ``threshold``; the threshold rises
    until ``kept`` pixels an image are hard. Easy pixels add nothing but count in the denominator, as in the reference.

    Args:
        logits: N x 2 x h x w at any stride; resized bilinearly to the target.
        target: N x H x W int64: 0, 1, or 255 to ignore.
        pixels: Divide by the number of ``valid`` pixels (0 when there are none), or of ``all`` as the reference does.
        threshold: Probability of the true class from which a pixel is easy.
        kept: Pixels an image that are kept at least, on average over the batch.

    Returns:
        Scalar float32.
    """
    losses = _cross_entropy_map(_resize(logits, target), target)
    with torch.no_grad():
        probability = torch.exp(-losses)
        valid = probability[target != IGNORE]
        bound = torch.tensor(threshold, device=losses.device, dtype=losses.dtype)
        if valid.numel() > 0:
            rank = min(kept * len(target), valid.numel() - 1)  # counted from 0: so many lie below it
            bound = bound.maximum(valid.kthvalue(rank + 1).values)
    return _average(losses * (probability < bound), target, pixels)


def _resize(logits: Tensor, target: Tensor) -> Tensor:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # half precision up, double stays
    if logits.shape[-2:] != target.shape[-2:]:
        logits = F.interpolate(logits, size=target.shape[-2:], mode="bilinear", align_corners=False)
    return logits


def _cross_entropy_map(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")


def _average(losses: Tensor, target: Tensor, pixels: Pixels) -> Tensor:
    if pixels == "all":
        return losses.mean()
    return losses.sum() / (target != IGNORE).sum().clamp(min=1)
