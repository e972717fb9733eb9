"""STANet: distances between features of both dates, optionally after self-attention over space and time.

Hao Chen, Zhenwei Shi: A Spatial-Temporal Attention-Based Method and a New Dataset for Remote Sensing Image Change
Detection, Remote Sensing 2020, https://doi.org/10.3390/rs12101662. Reference: Open-CD (Apache-2.0); the ImageNet
weights of the encoder are timm's resnet18d (Apache-2.0).
"""

from collections import OrderedDict
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from bitemporal.losses import batch_balanced_contrastive
from bitemporal.models.base import ChangeModel, ModelCard, ModelOutput, TrainingDefaults
from bitemporal.models.encoders import resnet_v1c
from bitemporal.models.layers import (
    Fusion,
    conv_module,
    split_dates,
    stage_by_date,
    unscaled_attention,
    without_autocast,
)
from bitemporal.models.registry import register

Attention = Literal["none", "bam", "pam"]
_EPSILON = 1e-6  # added to every difference, as in torch's PairwiseDistance


def join(in_channels: int, out_channels: int) -> nn.Sequential:
    """Joins the levels of one date: two 3 x 3 convolutions with dropout between."""
    return nn.Sequential(
        conv_module(in_channels, out_channels, 3), nn.Dropout(0.5), conv_module(out_channels, out_channels, 3)
    )


class BlockAttention(nn.Module):
    """Self-attention inside each block of an image, among the pixels of both dates."""

    def __init__(self, channels: int, blocks: int, normalise: bool) -> None:
        """Build the projections.

        Args:
            channels: Channels of input and output; queries and keys have an eighth.
            blocks: The image is cut into as many by as many blocks, whatever its size.
            normalise: Batch normalisation of queries and keys.
        """
        super().__init__()
        self.blocks = blocks
        self.scale = (channels // 8) ** -0.5

        def projection() -> nn.Sequential:
            convolution = nn.Conv2d(channels, channels // 8, 1)
            return nn.Sequential(convolution, *([nn.BatchNorm2d(channels // 8)] if normalise else []))

        self.query, self.key = projection(), projection()
        self.value = nn.Conv2d(channels, channels, 1)

    def forward(self, joint: Tensor) -> Tensor:
        """Attended features 2N x C x h x w of features of both dates, date 1 first; ``blocks`` divides h and w."""
        query, key, value = (self._tokens(project(joint)) for project in (self.query, self.key, self.value))
        return self._map(unscaled_attention(query * self.scale, key, value), joint.shape)

    def _tokens(self, x: Tensor) -> Tensor:
        """Pixels by block, (N blocks^2) x (both dates' pixels of the block) x C."""
        joint, channels, height, width = x.shape
        s = self.blocks
        x = x.reshape(2, joint // 2, channels, s, height // s, s, width // s)
        return x.permute(1, 3, 5, 0, 4, 6, 2).flatten(3, 5).flatten(0, 2)

    def _map(self, tokens: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of ``_tokens``."""
        joint, _, height, width = shape
        s = self.blocks
        x = tokens.reshape(joint // 2, s, s, 2, height // s, width // s, tokens.shape[-1])
        return x.permute(3, 0, 6, 1, 4, 2, 5).reshape(joint, tokens.shape[-1], height, width)


class BasicAttention(nn.Module):
    """Basic spatial-temporal attention module (BAM): every pixel attends to all pixels of both dates."""

    def __init__(self, channels: int) -> None:
        """Args: channels: Channels of input and output."""
        super().__init__()
        self.attention = BlockAttention(channels, blocks=1, normalise=False)
        self.attention.apply(_initialise)

    def forward(self, joint: Tensor) -> Tensor:
        """Refine features of both dates, 2N x C x h x w."""
        attended: Tensor = self.attention(joint)
        return attended + joint


class PyramidAttention(nn.Module):
    """Pyramid spatial-temporal attention module (PAM): attention inside 1, 4, 16 and 64 blocks of the image."""

    def __init__(self, channels: int) -> None:
        """Args: channels: Channels of input and output."""
        super().__init__()
        self.scales = nn.ModuleList(BlockAttention(channels, blocks, normalise=True) for blocks in (1, 2, 4, 8))
        self.join = nn.Conv2d(4 * channels, channels, 1, bias=False)
        self.apply(_initialise)

    def forward(self, joint: Tensor) -> Tensor:
        """Attended features of both dates, 2N x C x h x w; h and w are multiples of 8."""
        joint = joint.to(torch.promote_types(joint.dtype, torch.float32))
        with without_autocast(joint.device):  # means over many pixels, nearly equal: half precision loses what differs
            joined: Tensor = self.join(torch.cat([attention(joint) for attention in self.scales], dim=1))
        return joined


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


def feature_distance(before: Tensor, after: Tensor) -> Tensor:
    """Euclidean distances N x 1 x h x w over the channels of features N x C x h x w, in float32 at least."""
    dtype = torch.promote_types(before.dtype, torch.float32)  # half precision would round the small differences away
    differences = before.to(dtype) - after.to(dtype) + _EPSILON
    distances: Tensor = torch.linalg.vector_norm(differences, dim=1, keepdim=True)
    return distances


class STANet(ChangeModel):
    """Shared ResNet-18, self-attention over both dates, distances between the dates at stride 4.

    The only output are distances, at least 0, not logits: 0 is unchanged, the loss pushes changed pixels to 2 and
    beyond, and 1 is the decision threshold. With ``reference_losses=True`` the contrastive loss is that of Open-CD,
    which adds 255 to the numbers of unchanged and changed pixels and counts ignored pixels as unchanged ones.
    """

    num_logits: ClassVar[int] = 1

    def __init__(
        self,
        attention: Attention = "pam",
        encoder: str = "resnet18_v1c",
        pretrained: bool = False,
        in_channels: int = 3,
        width: int = 96,
        channels: int = 256,
    ) -> None:
        """Build the network.

        Args:
            attention: Over the features of both dates.
            encoder: ResNet.
            pretrained: Fetch its ImageNet weights.
            in_channels: Channels of one date.
            width: Channels of each level before they are joined.
            channels: Channels of the features that are compared.

        Raises:
            WeightsError: When pretrained weights cannot be fetched.
        """
        super().__init__()
        stages, widths = resnet_v1c(encoder, pretrained, in_channels)
        self.features = nn.Sequential(OrderedDict(encoder=stages, fusion=Fusion(widths, width, channels, join)))
        modules = {"none": nn.Identity, "bam": BasicAttention, "pam": PyramidAttention}
        self.attention = modules[attention](channels)

    def outputs(self, before: Tensor, after: Tensor) -> ModelOutput:
        """Distances N x 1 x H/4 x W/4; no auxiliary output."""
        joint = self.attention(stage_by_date(self.features, torch.cat((before, after))))
        return ModelOutput(feature_distance(*split_dates(joint)))

    def loss(self, outputs: ModelOutput, target: Tensor) -> dict[str, Tensor]:
        """Batch-balanced contrastive loss, ``loss_bcl``."""
        return {"loss_bcl": batch_balanced_contrastive(outputs.logits, target, reference=self.reference_losses)}

    def log_odds(self, logits: Tensor) -> Tensor:
        """Log-odds of change of distances d, 4 (d - 1).

        Up to the margin of 2 this is d^2 - (2 - d)^2: by how much less the loss charges for calling a pixel changed
        than for calling it unchanged. A distance of 0 has a probability of change of 0.018, 1 of 0.5, 2 of 0.982.
        """
        return 4.0 * (logits - 1.0)


_ATTENTION_NOTES = (
    "Attention sees the whole input, padding too. Its time grows with the square of the number of pixels, its memory "
    "does not. "
)

STANET_BASE = ModelCard(
    title="STANet (base)",
    paper=(
        "Chen, Shi: A Spatial-Temporal Attention-Based Method and a New Dataset for Remote Sensing Image Change "
        "Detection, Remote Sensing 2020"
    ),
    url="https://doi.org/10.3390/rs12101662",
    licence="Apache-2.0 (timm resnet18d.ra2_in1k)",
    multiple=32,
    minimum=64,
    training=TrainingDefaults(lr=1e-3, weight_decay=0.05, distillation_weight=5e-3),
    notes=(
        "The outputs are distances: 1 is the threshold. They are resized to the input's size and compared with the "
        "threshold there; Open-CD compares first and resizes the decisions. The reference starts from weights of "
        "a ResNet-18 V1c; `pretrained=True` fetches those of timm's resnet18d, whose shortcuts differ."
    ),
)
# Table II has STANet-Base only; its weight stands for all three, whose distances are on one scale.
STANET_PAM = replace(STANET_BASE, title="STANet (PAM)", notes=_ATTENTION_NOTES + STANET_BASE.notes)

register("stanet_base", STANET_BASE, partial(STANet, "none"))
register("stanet_bam", replace(STANET_PAM, title="STANet (BAM)"), partial(STANet, "bam"))
register("stanet_pam", STANET_PAM, STANet)
register(
    "test_stanet",
    replace(STANET_PAM, title="STANet (PAM, micro)", licence="none"),
    partial(STANet, "pam", "test_resnet", width=8, channels=16),
)
