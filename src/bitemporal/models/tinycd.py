"""TinyCD.

Andrea Codegoni, Gabriele Lombardi, Alessandro Ferrari: TINYCD: A (Not So) Deep Learning Model For Change Detection,
Neural Computing and Applications 2022, https://arxiv.org/abs/2207.13159. Reference: Open-CD (Apache-2.0); the encoder
and its ImageNet weights are timm's EfficientNet-B4 (Apache-2.0).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from bitemporal.models.base import ChangeModel, ModelCard, ModelOutput, TrainingDefaults
from bitemporal.models.encoders import EfficientNetStem
from bitemporal.models.layers import both_dates
from bitemporal.models.registry import register


class Mixing(nn.Module):
    """Mix and attention mask block, the mixing half: channel i of both dates becomes channel i of the output."""

    def __init__(self, channels: int) -> None:
        """Args: channels: Channels of one date."""
        super().__init__()
        self.conv = nn.Conv2d(2 * channels, channels, 3, padding=1, groups=channels)
        self.act = nn.PReLU()
        self.norm = nn.InstanceNorm2d(channels)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Mix features N x C x H x W of both dates."""
        # Two depth-wise convolutions give the sum that one grouped convolution over interleaved channels gives, faster.
        of_before, of_after = self.conv.weight.split(1, dim=1)
        mixed = F.conv2d(before, of_before, self.conv.bias, padding=1, groups=self.conv.groups)
        mixed = mixed + F.conv2d(after, of_after, padding=1, groups=self.conv.groups)
        normalised: Tensor = self.norm(self.act(mixed))
        return normalised


class PixelMLP(nn.Sequential):
    """1 x 1 convolutions, each followed by PReLU, the last one too."""

    def __init__(self, channels: Sequence[int]) -> None:
        """Args: channels: Widths from input to output."""
        steps = ((nn.Conv2d(inner, outer, 1), nn.PReLU()) for inner, outer in pairwise(channels))
        super().__init__(*(layer for step in steps for layer in step))


class MaskBlock(nn.Module):
    """Mix and attention mask block: one weight per pixel from both dates."""

    def __init__(self, channels: Sequence[int]) -> None:
        """Args: channels: Channels of one date, then the widths of the pixel-wise MLP, ending in 1."""
        super().__init__()
        self.mixing = Mixing(channels[0])
        self.mlp = PixelMLP(channels)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Mask N x 1 x H x W from features of both dates."""
        mask: Tensor = self.mlp(self.mixing(before, after))
        return mask


class UpMask(nn.Module):
    """Doubles the size, weighs by a mask, refines."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Args: in_channels: Channels of the input. out_channels: Channels of the output."""
        super().__init__()
        self.refine = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels),
            nn.PReLU(),
            nn.InstanceNorm2d(in_channels),
            nn.Conv2d(in_channels, out_channels, 1),
            nn.PReLU(),
            nn.InstanceNorm2d(out_channels),
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Refine features N x C x h x w under a mask N x 1 x 2h x 2w."""
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        refined: Tensor = self.refine(x * mask)
        return refined


class TinyCD(ChangeModel):
    """Shared encoder, mixing of both dates at four scales, decoder guided by masks; one logit at full size."""

    num_logits: ClassVar[int] = 1

    def __init__(
        self,
        encoder: Literal["efficientnet_b4", "test_efficientnet"] = "efficientnet_b4",
        pretrained: bool = False,
        in_channels: int = 3,
        width: int = 64,
        drop_path: float = 0.2,
    ) -> None:
        """Build the network.

        Args:
            encoder: EfficientNet of timm.
            pretrained: Fetch its ImageNet weights.
            in_channels: Channels of one date.
            width: Channels of the decoder.
            drop_path: Stochastic depth of the encoder, as the rate at the last block of the whole EfficientNet.

        Raises:
            WeightsError: When pretrained weights cannot be fetched.
        """
        super().__init__()
        self.encoder = EfficientNetStem(encoder, pretrained, in_channels, drop_path)
        half, quarter, eighth = self.encoder.channels
        self.image_mask = MaskBlock((in_channels, 10, 5, 1))
        self.masks = nn.ModuleList([MaskBlock((c, c // 2, c // 4, 1)) for c in (half, quarter)])
        self.mixing = Mixing(eighth)
        self.up = nn.ModuleList([UpMask(eighth, width), UpMask(width, width), UpMask(width, width // 2)])
        self.classify = PixelMLP((width // 2, width // 4, 1))

    def outputs(self, before: Tensor, after: Tensor) -> ModelOutput:
        """Logits N x 1 x H x W at full size; no auxiliary output."""
        features = both_dates(self.encoder, before, after)
        masks = [
            self.masks[1](*features[1]),
            self.masks[0](*features[0]),
            self.image_mask(before, after),
        ]
        x = self.mixing(*features[2])
        for up, mask in zip(self.up, masks, strict=True):
            x = up(x, mask)
        return ModelOutput(self.classify(x))


CARD = ModelCard(
    title="TinyCD",
    paper="Codegoni, Lombardi, Ferrari: TINYCD: A (Not So) Deep Learning Model For Change Detection, NCAA 2022",
    url="https://arxiv.org/abs/2207.13159",
    licence="Apache-2.0 (timm efficientnet_b4.ra2_in1k)",
    multiple=8,
    minimum=16,
    training=TrainingDefaults(lr=0.00356799066427741, weight_decay=0.009449677083344786, distillation_weight=1e-5),
    notes=(
        "The single logit passes a learned PReLU, as in the reference. Instance normalisation sees the whole input, "
        "padding too: sizes that are multiples of 8 but not of 32 give different numbers from Open-CD, which pads "
        "to 32."
    ),
)

register("tinycd", CARD, TinyCD, ("drop_path",))
register(
    "test_tinycd",
    replace(CARD, title="TinyCD (micro)", licence="Apache-2.0 (timm test_efficientnet.r160_in1k)"),
    partial(TinyCD, "test_efficientnet", width=16),
    ("drop_path",),
)
