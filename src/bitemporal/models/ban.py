"""BAN, the bitemporal adapter network: a frozen foundation model, and a trained side network that draws on it.

Kaiyu Li, Xiangyong Cao, Deyu Meng: A New Learning Paradigm for Foundation Model-based Remote Sensing Change Detection,
TGRS 2024, https://arxiv.org/abs/2312.01163. Reference: Open-CD (Apache-2.0). The foundation models come from timm (see
``foundation``), the Mix Transformer of the side network through segmentation-models-pytorch (weights: NVIDIA Source
Code License for SegFormer, non-commercial), its ResNet from timm.
"""

from bitemporal import _torchvision as _torchvision  # isort: skip  (before timm, which imports torchvision)

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from bitemporal.models.base import ChangeModel, ModelCard, ModelOutput, Normalisation, ParameterRule, TrainingDefaults
from bitemporal.models.bit import BIT_R18, TokenDecoder
from bitemporal.models.encoders import MIX_TRANSFORMERS, mix_transformer, resnet_v1c
from bitemporal.models.foundation import FoundationModel
from bitemporal.models.layers import Fusion, MixFeedForward, fuse_both_dates, has_batch_norm, stage_by_date
from bitemporal.models.registry import register


class Bridge(nn.Module):
    """Brings tokens of the foundation model into a level of the side network."""

    def __init__(self, foundation: FoundationModel, channels: int, heads: int) -> None:
        """Args: foundation: Source of the tokens. channels: Channels of the level. heads: Heads of the attention."""
        super().__init__()
        self.grid = foundation.grid
        projection = nn.Linear(foundation.channels, channels)
        nn.init.kaiming_uniform_(projection.weight, a=1)
        nn.init.zeros_(projection.bias)
        self.project = nn.Sequential(nn.LayerNorm(foundation.channels, eps=1e-6), projection)
        self.norm1 = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.norm2 = LayerNorm2d(channels, eps=1e-5)
        self.feed = MixFeedForward(channels, 4)  # four hidden channels, as in the reference, not four times as many

    def forward(self, level: Tensor, tokens: Tensor) -> Tensor:
        """Refine a level N x C x H x W by tokens N x L x D; the shape stays."""
        size = level.shape[-2:]
        general = self.project(tokens)
        pixels = self.norm1(level.flatten(2).transpose(1, 2))
        attended, _ = self.attention(pixels, general, general, need_weights=False)
        x = level + attended.transpose(1, 2).unflatten(2, size)
        x = x + self.feed(self.norm2(x))
        as_map = general.transpose(1, 2).unflatten(2, self.grid)
        refined: Tensor = x + F.interpolate(as_map, size=size, mode="bilinear", align_corners=False)
        return refined


class FusionDecoder(nn.Module):
    """Logits at stride 4 from the fused levels of both dates; follows a Mix Transformer."""

    def __init__(self, in_channels: Sequence[int], width: int, classes: int) -> None:
        """Args: in_channels: Channels of the levels. width: Channels of one date. classes: Number of logits."""
        super().__init__()
        self.fusion = Fusion(in_channels, width, width)
        self.discriminator = MixFeedForward(2 * width, 2 * width)
        self.classify = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(2 * width, classes, 1))

    def forward(self, joint: Sequence[Tensor]) -> Tensor:
        """Logits N x K x h x w from levels 2N x C x h x w, date 1 first."""
        x = torch.cat(fuse_both_dates(self.fusion, joint), dim=1)
        logits: Tensor = self.classify(x + self.discriminator(x))
        return logits


class BAN(ChangeModel):
    """Frozen foundation model and a trained side network; bridges carry tokens from the first into the second.

    The foundation model sees the input resized to its own size. After a Mix Transformer comes ``FusionDecoder`` (logits
    at stride 4), after a ResNet BIT's ``TokenDecoder`` (logits at full size).
    """

    def __init__(
        self,
        foundation: str,
        side: str,
        pretrained: bool = False,
        in_channels: int = 3,
        width: int = 128,
    ) -> None:
        """Build the network.

        Args:
            foundation: Frozen Vision Transformer.
            side: Side network.
            pretrained: Fetch the weights of the foundation model, and the ImageNet weights of the side network.
            in_channels: Channels of one date.
            width: Channels of one date in the decoder: 128 in the reference with a Mix Transformer, 32 with a ResNet.

        Raises:
            WeightsError: When pretrained weights do not exist or cannot be fetched.
        """
        super().__init__()
        self.foundation = FoundationModel(foundation, pretrained, in_channels)
        self.decoder: FusionDecoder | TokenDecoder
        if side in MIX_TRANSFORMERS:
            self.side, channels = mix_transformer(side, pretrained, in_channels)
            self.decoder = FusionDecoder(channels, width, self.num_logits)
        else:
            self.side, channels = resnet_v1c(side, pretrained, in_channels, stages=3, dense=True)
            self.decoder = TokenDecoder(channels[-1], nn.Conv2d(width, self.num_logits, 1), width)
        self.batch_statistics = has_batch_norm(self.side)
        # as many heads as the stage of a Mix Transformer has; the last three stages have a bridge
        self.bridges = nn.ModuleList(Bridge(self.foundation, c, heads=c // channels[0]) for c in channels[-3:])

    def frozen_modules(self) -> list[nn.Module]:
        """The foundation model."""
        return [self.foundation]

    def outputs(self, before: Tensor, after: Tensor) -> ModelOutput:
        """Logits N x 2 x H/4 x W/4, or at full size with a ResNet; no auxiliary output."""
        x = torch.cat((before, after))
        tokens = self.foundation(x)
        levels = []
        plain = len(self.side) - len(self.bridges)  # number of the finest stages, which have no bridge
        for index, stage in enumerate(self.side):
            x = stage_by_date(stage, x) if self.batch_statistics else stage(x)
            if index >= plain:
                x = self.bridges[index - plain](x, tokens[index - plain])
            levels.append(x)
        return ModelOutput(self.decoder(levels) if isinstance(self.decoder, FusionDecoder) else self.decoder(x))


_CLIP_B16 = "Apache-2.0 (timm vit_base_patch16_clip_224.openai; OpenAI's own release: MIT)"
_CLIP_L14 = "Apache-2.0 (timm vit_large_patch14_clip_336.openai; OpenAI's own release: MIT)"


def _card(foundation: str, side: str, licence: str, pixels: int = 224, notes: str = "") -> ModelCard:
    """The card of BAN on a Mix Transformer.

    Args:
        foundation: Name of the foundation model.
        side: Name of the Mix Transformer, such as MiT-b0.
        licence: Licence of the foundation model's weights.
        pixels: Height and width to which the foundation model resizes the input.
        notes: Further notes.
    """
    weights = f"smp-hub/{side.lower().replace('-', '_')}.imagenet"
    return ModelCard(
        title=f"BAN ({foundation}, {side})",
        paper="Li, Cao, Meng: A New Learning Paradigm for Foundation Model-based Remote Sensing Change Detection, "
        "TGRS 2024",
        url="https://arxiv.org/abs/2312.01163",
        licence=f"{licence}; NVIDIA Source Code License for SegFormer, non-commercial ({weights})",
        multiple=32,
        minimum=64,
        training=TrainingDefaults(
            lr=1e-4,
            weight_decay=1e-4,
            # in the decoder its rule wins, the longer match: ten times the rate, and norms decay, as in the reference
            rules=(ParameterRule("norm", weight_decay=0.0), ParameterRule("decoder", lr=10.0)),
            clip_norm=0.01,
        ),
        normalisation=Normalisation(mean=(122.7709, 116.7460, 104.0937), std=(68.5005, 66.6322, 70.3232)),  # CLIP's
        notes=f"The foundation model is frozen and sees any input resized to {pixels} x {pixels} pixels: predict large "
        f"images in windows of the size trained on, as the reference does. {notes}",
    )


def _card_with_bit(foundation: str, licence: str, pixels: int = 224) -> ModelCard:
    """The card of BAN on BIT's ResNet."""
    card = _card(foundation, "BIT", licence, pixels, BIT_R18.notes)
    return replace(card, licence=f"{licence}; {BIT_R18.licence}", multiple=8, minimum=16)


register(
    "ban_b16_in21k_mit_b0",
    _card(
        "ImageNet-21k ViT-B/16",
        "MiT-b0",
        "Apache-2.0 (timm vit_base_patch16_224.augreg_in21k)",
        notes="As in the reference, a normalisation that these weights were not trained with precedes the blocks, and "
        "the input is normalised as for CLIP.",
    ),
    partial(BAN, "in21k_b16", "mit_b0"),
)
register(
    "ban_b32_georsclip_mit_b0",
    replace(
        _card(
            "GeoRSCLIP ViT-B/32",
            "MiT-b0",
            "none",
            notes="timm does not have the weights of GeoRSCLIP: they come with a bundle or a checkpoint of the whole "
            "network, or load those of the Vision Transformer alone into `foundation.vit`. BAN on RemoteCLIP ViT-B/32 "
            "is the same network with other weights.",
        ),
        licence="none",
    ),
    partial(BAN, "georsclip_b32", "mit_b0"),
)
for clip, title, licence, pixels in (
    ("b16", "CLIP ViT-B/16", _CLIP_B16, 224),
    ("l14", "CLIP ViT-L/14", _CLIP_L14, 336),
):
    for size in ("b0", "b1", "b2"):
        register(
            f"ban_{clip}_clip_mit_{size}",
            _card(title, f"MiT-{size}", licence, pixels),
            partial(BAN, f"clip_{clip}", f"mit_{size}"),
        )
    register(
        f"ban_{clip}_clip_bit",
        _card_with_bit(title, licence, pixels),
        partial(BAN, f"clip_{clip}", "resnet18_v1c", width=32),
    )
register(
    "test_ban",
    replace(_card("", "MiT-b0", ""), title="BAN (micro)", licence="none"),
    partial(BAN, "test_vit", "test_mit", width=16),
)
register(
    "test_ban_bit",
    replace(_card_with_bit("", ""), title="BAN (micro, BIT)", licence="none"),
    partial(BAN, "test_vit", "test_resnet", width=8),
)
