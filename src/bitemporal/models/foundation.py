"""Frozen foundation models: the first blocks of timm's Vision Transformers, whose tokens other networks adapt.

CLIP: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021,
https://arxiv.org/abs/2103.00020. GeoRSCLIP: Zhang et al., RS5M and GeoRSCLIP, TGRS 2024,
https://arxiv.org/abs/2306.11300. ImageNet-21k: Steiner et al., How to train your ViT?, TMLR 2022,
https://arxiv.org/abs/2106.10270.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitemporal.models.encoders import timm_network

_ORIGINS: dict[str, tuple[str, tuple[int, ...]]] = {
    "clip_b16": ("vit_base_patch16_clip_quickgelu_224.openai", (2, 5, 8)),
    "clip_l14": ("vit_large_patch14_clip_quickgelu_336.openai", (5, 11, 17)),
    "georsclip_b32": ("vit_base_patch32_clip_quickgelu_224", (2, 5, 8)),  # timm does not have its weights
    "in21k_b16": ("vit_base_patch16_224.augreg_in21k", (5, 8, 11)),
    "test_vit": ("vit_base_patch16_clip_quickgelu_224", (0, 1, 2)),
}
"""Name of each model in timm, and the blocks, from 0, whose tokens are taken."""

_MICRO = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "num_heads": 2, "mlp_ratio": 2.0}


class FoundationModel(nn.Module):
    """Patch tokens after three blocks of a frozen Vision Transformer; the blocks after the last of them are not kept.

    Its parameters take no gradient, and nothing before it can: it runs without recording any.

    Attributes:
        channels: Channels of the tokens.
        grid: Rows and columns of the tokens.
    """

    def __init__(self, name: str, pretrained: bool, in_channels: int) -> None:
        """Build the model.

        Args:
            name: ``clip_b16`` and ``clip_l14`` (CLIP by OpenAI, ViT-B/16 at 224 and ViT-L/14 at 336 pixels),
                ``georsclip_b32`` (ViT-B/32 at 224; RemoteCLIP has the same architecture), ``in21k_b16`` (ViT-B/16
                at 224), or ``test_vit``, a miniature for tests.
            pretrained: Fetch its weights.
            in_channels: Channels of the image; with weights, timm adapts the first convolution.

        Raises:
            WeightsError: When the weights cannot be fetched.
        """
        super().__init__()
        name_in_timm, taps = _ORIGINS[name]
        # the weights are those of the whole network; without them the blocks after the last tap need not be built
        depth = {} if pretrained else {"depth": taps[-1] + 1}
        micro = _MICRO if name == "test_vit" else {}
        self.vit = timm_network(name_in_timm, pretrained, in_chans=in_channels, **depth, **micro)
        self.taps = self.vit.prune_intermediate_layers(list(taps), prune_norm=True, prune_head=True)
        self.channels: int = self.vit.embed_dim
        self.grid: tuple[int, int] = self.vit.patch_embed.grid_size
        if name == "in21k_b16":
            # As in the reference, whose configuration inherits it from CLIP: untrained, it only normalises.
            self.vit.norm_pre = nn.LayerNorm(self.channels, eps=1e-6)
        self.requires_grad_(requires_grad=False)
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """Tokens N x (rows * columns) x C of each of the blocks, for images N x C x H x W of any size."""
        size = self.vit.patch_embed.img_size
        resized = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        tokens: list[Tensor] = self.vit.forward_intermediates(
            resized, indices=self.taps, output_fmt="NLC", intermediates_only=True
        )
        return tokens
