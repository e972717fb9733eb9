"""Changer with feature exchange (ExchangeEx).

Sheng Fang, Kaiyu Li, Zhe Li: Changer: Feature Interaction Is What You Need for Change Detection, TGRS 2023,
https://arxiv.org/abs/2209.08290. Reference: Open-CD (Apache-2.0). The Mix Transformer and its ImageNet weights come
through segmentation-models-pytorch (weights: NVIDIA Source Code License for SegFormer, non-commercial), the ResNet and
the ResNeSt with theirs from timm (Apache-2.0).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitemporal.losses import ohem_cross_entropy
from bitemporal.models.base import ChangeModel, ModelCard, ModelOutput, ParameterRule, TrainingDefaults
from bitemporal.models.encoders import MIX_TRANSFORMERS, mix_transformer, resnet_v1c
from bitemporal.models.layers import (
    Fusion,
    MixFeedForward,
    fuse_both_dates,
    has_batch_norm,
    segmentation_head,
    split_dates,
    stage_by_date,
)
from bitemporal.models.registry import register


def exchange(joint: Tensor, dim: int) -> Tensor:
    """Swap every second slice of a dimension, the first one included, between the dates.

    Args:
        joint: Features of both dates, 2N x C x H x W, date 1 first.
        dim: 1 for channels, 3 for columns.
    """
    before, after = split_dates(joint)
    shape = [1] * joint.dim()
    shape[dim] = -1
    swapped = (torch.arange(joint.shape[dim], device=joint.device) % 2 == 0).view(shape)
    return torch.cat((torch.where(swapped, after, before), torch.where(swapped, before, after)))


class FlowAlignment(nn.Module):
    """Flow-based dual alignment fusion: each date is warped onto the other, and the differences are kept."""

    def __init__(self, channels: int) -> None:
        """Args: channels: Channels of one date."""
        super().__init__()
        both = 2 * channels
        self.flow = nn.Sequential(
            nn.Conv2d(both, both, 5, padding=2, groups=both),
            nn.InstanceNorm2d(both),
            nn.GELU(),
            nn.Conv2d(both, 4, 1, bias=False),
        )

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Differences N x 2C x H x W of features N x C x H x W."""
        flow_before, flow_after = self.flow(torch.cat((before, after), dim=1)).chunk(2, dim=1)
        return torch.cat((warp(before, flow_before) - after, warp(after, flow_after) - before), dim=1)


def warp(features: Tensor, flow: Tensor) -> Tensor:
    """Sample features N x C x H x W at positions displaced by a flow N x 2 x H x W (columns, rows).

    The flow is divided by width and height and added to coordinates in [-1, 1], so that a flow of 1 is half a pixel;
    outside is 0.
    """
    height, width = features.shape[-2:]
    # half precision cannot distinguish the columns of a wide map
    dtype = torch.promote_types(features.dtype, torch.float32)
    x = _coordinates(width, flow.device, dtype).view(1, 1, -1) + flow[:, 0].to(dtype) / width
    y = _coordinates(height, flow.device, dtype).view(1, -1, 1) + flow[:, 1].to(dtype) / height
    grid = torch.stack((x, y), dim=-1)
    return F.grid_sample(features.to(dtype), grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def _coordinates(count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Coordinates from -1 to 1; ``linspace`` would fix the size in an export."""
    return torch.arange(count, device=device, dtype=dtype) * (2.0 / (count - 1)) - 1.0


class Head(nn.Module):
    """Fusion of levels by date, alignment of the dates, logits."""

    def __init__(self, in_channels: Sequence[int], width: int, classes: int) -> None:
        """Build the layers.

        Args:
            in_channels: Channels of the levels.
            width: Channels of both dates together.
            classes: Number of logits.
        """
        super().__init__()
        self.fusion = Fusion(in_channels, width, width // 2)
        self.alignment = FlowAlignment(width // 2)
        self.discriminator = MixFeedForward(width, width)
        self.classify = segmentation_head(width, classes)

    def forward(self, joint: Sequence[Tensor]) -> Tensor:
        """Logits N x K x h x w from levels 2N x C x h x w, date 1 first."""
        x = self.alignment(*fuse_both_dates(self.fusion, joint))
        logits: Tensor = self.classify(x + self.discriminator(x))
        return logits


class Changer(ChangeModel):
    """Shared encoder whose dates exchange columns after stage 2 and channels after stages 3 and 4."""

    def __init__(
        self,
        encoder: str = "mit_b0",
        pretrained: bool = False,
        in_channels: int = 3,
        width: int = 128,
    ) -> None:
        """Build the network.

        Args:
            encoder: Mix Transformer, ResNet or ResNeSt.
            pretrained: Fetch its ImageNet weights.
            in_channels: Channels of one date.
            width: Channels of the head.

        Raises:
            WeightsError: When pretrained weights cannot be fetched.
        """
        super().__init__()
        if encoder in MIX_TRANSFORMERS:
            self.encoder, channels = mix_transformer(encoder, pretrained, in_channels)
        else:
            self.encoder, channels = resnet_v1c(encoder, pretrained, in_channels)
        self.batch_statistics = has_batch_norm(self.encoder)
        self.head = Head(channels, width, self.num_logits)

    def outputs(self, before: Tensor, after: Tensor) -> ModelOutput:
        """Logits N x 2 x H/4 x W/4; no auxiliary output."""
        x = torch.cat((before, after))
        levels = []
        for stage, exchanged_dim in zip(self.encoder, (None, 3, 1, 1), strict=True):
            x = stage_by_date(stage, x) if self.batch_statistics else stage(x)
            if exchanged_dim is not None:
                x = exchange(x, exchanged_dim)
            levels.append(x)
        return ModelOutput(self.head(levels))

    def loss(self, outputs: ModelOutput, target: Tensor) -> dict[str, Tensor]:
        """Cross-entropy with online hard example mining, ``loss_ce``."""
        return {"loss_ce": ohem_cross_entropy(outputs.logits, target, self.loss_pixels)}


CHANGER_MIT_B0 = ModelCard(
    title="Changer (ExchangeEx, MiT-b0)",
    paper="Fang, Li, Li: Changer: Feature Interaction Is What You Need for Change Detection, TGRS 2023",
    url="https://arxiv.org/abs/2209.08290",
    licence="NVIDIA Source Code License for SegFormer, non-commercial (smp-hub/mit_b0.imagenet)",
    multiple=32,
    minimum=64,
    training=TrainingDefaults(
        lr=1e-4,
        weight_decay=0.01,
        # the norm that ends a stage, encoder.i.2, is not named so and decays, as in the reference
        rules=(ParameterRule("norm", weight_decay=0.0), ParameterRule("head", lr=10.0)),
        augmentation="changer",
        distillation_weight=1e-4,
    ),
    notes="Without pretrained weights the transformer starts as in SegFormer's own code.",
)
CHANGER_MIT_B1 = replace(
    CHANGER_MIT_B0,
    title="Changer (ExchangeEx, MiT-b1)",
    licence="NVIDIA Source Code License for SegFormer, non-commercial (smp-hub/mit_b1.imagenet)",
    training=replace(CHANGER_MIT_B0.training, distillation_weight=1e-3),
)
CHANGER_R18 = replace(
    CHANGER_MIT_B0,
    title="Changer (ExchangeEx, ResNet-18)",
    licence="Apache-2.0 (timm resnet18d.ra2_in1k)",
    training=TrainingDefaults(lr=5e-3, weight_decay=0.05, augmentation="changer", distillation_weight=1e-3),
    notes=(
        "The reference starts the encoder from scratch. pretrained=True loads weights of a ResNet-18 whose shortcuts "
        "average before they stride."
    ),
)
_RESNEST_NOTES = (
    "The reference starts the encoder from scratch, and cannot train on one pair per step, where the attention of "
    "the encoder has one value per channel to normalise: here it is normalised by the running statistics."
)
CHANGER_S50 = replace(
    CHANGER_R18,
    title="Changer (ExchangeEx, ResNeSt-50)",
    licence="Apache-2.0 (timm resnest50d.in1k)",
    training=replace(CHANGER_R18.training, distillation_weight=1e-5),
    notes=_RESNEST_NOTES,
)
CHANGER_S101 = replace(
    CHANGER_R18,
    title="Changer (ExchangeEx, ResNeSt-101)",
    licence="Apache-2.0 (timm resnest101e.in1k)",
    notes=_RESNEST_NOTES,
)

register("changer_mit_b0", CHANGER_MIT_B0, Changer)
register("changer_mit_b1", CHANGER_MIT_B1, partial(Changer, "mit_b1"))
register("changer_r18", CHANGER_R18, partial(Changer, "resnet18_v1c"))
register("changer_s50", CHANGER_S50, partial(Changer, "resnest50", width=256))
register("changer_s101", CHANGER_S101, partial(Changer, "resnest101", width=256))
register(
    "test_changer",
    replace(CHANGER_MIT_B0, title="Changer (micro)", licence="none"),
    partial(Changer, "test_mit", width=16),
)
