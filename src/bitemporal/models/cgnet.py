"""CGNet: change guiding network.

Chengxi Han, Chen Wu, Haonan Guo, Meiqi Hu, Jiepan Li, Hongruixuan Chen: Change Guiding Network: Incorporating Change
Prior to Guide Change Detection in Remote Sensing Imagery, JSTARS 2023, https://doi.org/10.1109/JSTARS.2023.3310208.
Reference: Open-CD (Apache-2.0); the encoder and its ImageNet weights are timm's VGG-16 with batch normalisation
(BSD-3-Clause).
"""

from bitemporal import _torchvision as _torchvision  # isort: skip  (before timm, which imports torchvision)

from collections import OrderedDict
from dataclasses import replace
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from bitemporal.models.base import ChangeModel, ModelCard, ModelOutput, TrainingDefaults
from bitemporal.models.encoders import Pyramid, vgg
from bitemporal.models.layers import both_dates, unscaled_attention, without_autocast
from bitemporal.models.registry import register


def resize(x: Tensor, size: torch.Size) -> Tensor:
    """Bring a map to a height and width, bilinearly, corner pixels on corner pixels."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class ChangeGuide(nn.Module):
    """Attention over all pixels, in which those that the change prior calls changed weigh more; residual."""

    def __init__(self, channels: int) -> None:
        """Args: channels: Channels of input and output."""
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, prior: Tensor) -> Tensor:
        """Guided features N x C x H x W.

        Args:
            x: Features N x C x H x W.
            prior: Logits of change, N x 1 x h x w.
        """
        dtype = torch.promote_types(x.dtype, torch.float32)
        with without_autocast(x.device):  # nothing scales the energies down: half precision is too coarse for them
            x = x.to(dtype)
            guide = 1.0 + torch.sigmoid(resize(prior.to(dtype), x.shape[-2:]))
            query, key, value = (
                (project(x) * guide).flatten(2).mT.contiguous() for project in (self.query, self.key, self.value)
            )
            attended = unscaled_attention(query, key, value).mT.reshape(x.shape)
            return self.gamma * attended + x


class Decoder(nn.Module):
    """Fuses the dates level by level, makes a first map of the deepest level, and lets it guide the way up."""

    def __init__(self, channels: tuple[int, int, int, int], hidden: int) -> None:
        """Args: channels: Channels of the levels of one date. hidden: Channels before a map."""
        super().__init__()
        a, b, c, d = channels
        self.fuse = nn.ModuleList(Conv2dNormActivation(2 * width, width) for width in channels)
        self.prior = nn.Sequential(Conv2dNormActivation(d, hidden), nn.Conv2d(hidden, 1, 3, padding=1))
        self.guides = nn.ModuleList(ChangeGuide(width) for width in (d, c, b))
        self.join = nn.ModuleList(
            [Conv2dNormActivation(d + c, c), Conv2dNormActivation(c + b, b), Conv2dNormActivation(b + a, a)]
        )
        self.classify = nn.Sequential(Conv2dNormActivation(a, hidden), nn.Conv2d(hidden, 1, 1))

    def forward(self, levels: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Final map and prior, both N x 1 x h x w at the size of the finest level.

        Args:
            levels: Features of date 1 and date 2 by level, from the finest to the coarsest.
        """
        fused = [
            fuse(torch.cat((after, before), dim=1))  # date 2 first, as in the reference
            for fuse, (before, after) in zip(self.fuse, levels, strict=True)
        ]
        *finer, x = fused
        prior = self.prior(resize(x, fused[0].shape[-2:]))
        for guide, join, level in zip(self.guides, self.join, reversed(finer), strict=True):
            x = join(torch.cat((resize(guide(x, prior), level.shape[-2:]), level), dim=1))
        return self.classify(x), prior


class CGNet(ChangeModel):
    """Shared VGG-16, whose deepest features give a first map of changes that guides attention in the decoder."""

    num_logits: ClassVar[int] = 1

    def __init__(self, encoder: str = "vgg16_bn", pretrained: bool = False, in_channels: int = 3) -> None:
        """Build the network.

        Args:
            encoder: VGG with batch normalisation.
            pretrained: Fetch its ImageNet weights.
            in_channels: Channels of one date.

        Raises:
            WeightsError: When pretrained weights cannot be fetched.
        """
        super().__init__()
        stages, (hidden, *channels) = vgg(encoder, pretrained, in_channels)
        # The first stage's features are not used by themselves. The deepest ones are taken before their ReLU: the
        # reference cuts VGG there, and the cuts at the finer levels are followed by ReLUs that work in place.
        deepest = nn.Sequential(OrderedDict(list(stages[4].named_children())[:-1]))
        self.encoder = Pyramid([nn.Sequential(stages[0], stages[1]), stages[2], stages[3], deepest])
        a, b, c, d = channels
        self.decoder = Decoder((a, b, c, d), hidden)

    def outputs(self, before: Tensor, after: Tensor) -> ModelOutput:
        """Logits N x 1 x H x W at full size, and as auxiliary output ``prior``, the first map, at full size too."""
        logits, prior = self.decoder(both_dates(self.encoder, before, after))
        size = before.shape[-2:]
        return ModelOutput(resize(logits, size), {"prior": resize(prior, size)})

    def head_logits(self, before: Tensor, after: Tensor) -> Tensor:
        """Logits N x 1 x H x W without the auxiliary output."""
        logits, _ = self.decoder(both_dates(self.encoder, before, after))
        return resize(logits, before.shape[-2:])


CARD = ModelCard(
    title="CGNet",
    paper=(
        "Han, Wu, Guo, Hu, Li, Chen: Change Guiding Network: Incorporating Change Prior to Guide Change Detection in "
        "Remote Sensing Imagery, JSTARS 2023"
    ),
    url="https://doi.org/10.1109/JSTARS.2023.3310208",
    licence="BSD-3-Clause (timm vgg16_bn.tv_in1k)",
    multiple=16,
    minimum=32,
    training=TrainingDefaults(lr=5e-4, weight_decay=0.0025, distillation_weight=1e-3),
    notes=(
        "Attention runs over all pixels at stride 4 and sees padding too: sizes that are multiples of 16 but not of "
        "32 give different numbers from Open-CD, which pads to 32. The reference's up_layer2, up_layer3 and up_layer4, "
        "which it never uses, are left out."
    ),
)

register("cgnet", CARD, CGNet)
register("test_cgnet", replace(CARD, title="CGNet (micro)", licence="none"), partial(CGNet, "test_vgg_bn"))
