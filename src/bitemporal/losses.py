"""Supervised losses: cross-entropy over two logits or one, online hard example mining, Dice, contrastive.

All take logits at any stride, resize them to the label and compute in float32. Ignored pixels (255) add nothing;
``pixels`` says whether they count in the denominator, as they do in the reference (Open-CD).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bitemporal.imagery.masks import IGNORE

Pixels = Literal["valid", "all"]
"""What a loss is averaged over: the valid pixels (right), or all of them as in the reference (models of Open-CD
divide by ignored pixels too)."""

OHEM_THRESHOLD = 0.7
OHEM_KEPT = 100_000
DICE_EPSILON = 1e-3
CONTRASTIVE_MARGIN = 2.0


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
    until ``kept`` pixels per image are hard. Easy pixels add nothing but count in the denominator, as in the reference.

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


def dice(logits: Tensor, target: Tensor, reference: bool = False) -> Tensor:
    """Dice loss of the changed pixels, ``1 - 2 <p, y> / (<p, p> + <y, y>)``, image by image (V-Net).

    Fausto Milletari, Nassir Navab, Seyed-Ahmad Ahmadi: V-Net: Fully Convolutional Neural Networks for Volumetric
    Medical Image Segmentation, 3DV 2016, https://arxiv.org/abs/1606.04797.

    Args:
        logits: N x 1 x h x w at any stride; resized bilinearly to the target.
        target: N x H x W int64: 0, 1, or 255 to ignore.
        reference: As mmsegmentation 1.2.2 computes it: y marks the unchanged pixels, so that a perfect prediction has
            the largest loss, and ignored pixels count as ones that y does not mark.

    Returns:
        Scalar float32, the mean over images; images without a valid pixel do not count (0 when there are no others).
    """
    predicted = torch.sigmoid(_resize(logits, target).squeeze(1)).flatten(1)
    label = target.flatten(1)
    valid = label != IGNORE
    if not reference:
        predicted = predicted.masked_fill(~valid, 0.0)
    wanted = (label == (0 if reference else 1)).to(predicted.dtype)
    squares = (predicted**2).sum(1) + wanted.sum(1) + 2 * DICE_EPSILON
    losses = 1.0 - 2.0 * (predicted * wanted).sum(1) / squares
    if reference:
        return losses.mean()
    counts = valid.any(1)
    return losses.masked_fill(~counts, 0.0).sum() / counts.sum().clamp(min=1)


def batch_balanced_contrastive(distances: Tensor, target: Tensor, reference: bool = False) -> Tensor:
    """Contrastive loss of STANet: the mean of d^2 over unchanged pixels plus that of max(2 - d, 0)^2 over changed ones.

    Hao Chen, Zhenwei Shi: A Spatial-Temporal Attention-Based Method and a New Dataset for Remote Sensing Image Change
    Detection, Remote Sensing 2020, equation 13; without its factor 1/2, as in the reference.

    Args:
        distances: N x 1 x h x w, at least 0, at any stride; resized bilinearly to the target.
        target: N x H x W int64: 0, 1, or 255 to ignore.
        reference: As Open-CD computes it: ignored pixels count as unchanged ones in the denominator, and both
            denominators are larger by 255 (the value to ignore, passed in the place of a small number).

    Returns:
        Scalar float32; a class without pixels adds 0.
    """
    resized = _resize(distances, target).squeeze(1)
    unchanged, changed = target == 0, target == 1
    of_unchanged = (resized**2).masked_fill(~unchanged, 0.0).sum()
    of_changed = (F.relu(CONTRASTIVE_MARGIN - resized) ** 2).masked_fill(~changed, 0.0).sum()
    if reference:
        return of_unchanged / ((~changed).sum() + IGNORE) + of_changed / (changed.sum() + IGNORE)
    return of_unchanged / unchanged.sum().clamp(min=1) + of_changed / changed.sum().clamp(min=1)


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
