"""BIT, the bitemporal image transformer.

Hao Chen, Zipeng Qi, Zhenwei Shi: Remote Sensing Image Change Detection with Transformers, TGRS 2021,
https://arxiv.org/abs/2103.00208. Reference: Open-CD (Apache-2.0); the ImageNet weights of the encoder are timm's
resnet18d (Apache-2.0).
"""

from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitemporal.models.base import ChangeModel, ModelCard, ModelOutput, TrainingDefaults
from bitemporal.models.encoders import resnet_v1c
from bitemporal.models.layers import both_dates, initialise, segmentation_head, split_dates
from bitemporal.models.registry import register


def _convolution(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv2d:
    """A convolution with bias, initialised as in the reference."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    initialise(convolution, zero_bias=True)
    return convolution


class TokenAttention(nn.Module):
    """Multi-head attention of many vectors to few tokens.

    The scale is that of the input's channels, not of a head's. Scores are linear in the vectors, and the output is
    linear in the weights; so the projections of queries and of the output, 2 C x E a vector, are folded into the keys
    and values of the few tokens, which leaves 2 C x heads x T a vector and no copy by head. The weights are those of
    the reference.
    """

    def __init__(self, channels: int, inner: int, heads: int) -> None:
        """Build the layers.

        Args:
            channels: Channels of vectors and tokens.
            inner: Channels of all heads together.
            heads: Number of heads.
        """
        super().__init__()
        self.heads = heads
        self.scale = channels**-0.5
        self.query = nn.Linear(channels, inner, bias=False)
        self.key = nn.Linear(channels, inner, bias=False)
        self.value = nn.Linear(channels, inner, bias=False)
        self.output = nn.Linear(inner, channels)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Attend from vectors N x L x C to tokens N x T x C; the result is N x L x C."""
        count = tokens.shape[1]
        by_head = (self.heads, -1)
        keys = self.key(tokens).unflatten(2, by_head) * self.scale
        keys = torch.einsum("nthd,hdc->nhtc", keys, self.query.weight.unflatten(0, by_head)).flatten(1, 2)
        values = self.value(tokens).unflatten(2, by_head)
        values = torch.einsum("nthd,chd->nhtc", values, self.output.weight.unflatten(1, by_head)).flatten(1, 2)
        # heads and tokens before vectors: a softmax over so few numbers is slow in the last dimension
        weights = (keys @ x.transpose(1, 2)).unflatten(1, (self.heads, count)).softmax(dim=2).flatten(1, 2)
        attended: Tensor = weights.transpose(1, 2) @ values + self.output.bias
        return attended


class Block(nn.Module):
    """Transformer block with normalisation first: attention to tokens, then two linear layers, both residual."""

    def __init__(self, channels: int, inner: int, heads: int, own_tokens: bool) -> None:
        """Build the block.

        Args:
            channels: Channels of vectors and tokens.
            inner: Channels of the heads together, and of the hidden layer.
            heads: Number of heads.
            own_tokens: The tokens are the vectors themselves; otherwise they have their own normalisation.
        """
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.norm_tokens = None if own_tokens else nn.LayerNorm(channels)
        self.attention = TokenAttention(channels, inner, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.feed = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(inplace=True), nn.Linear(inner, channels))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Refine vectors N x L x C by tokens N x T x C."""
        normalised = self.norm1(x)
        x = x + self.attention(normalised, normalised if self.norm_tokens is None else self.norm_tokens(tokens))
        fed: Tensor = self.feed(self.norm2(x))
        return x + fed


class TokenDecoder(nn.Module):
    """A few tokens per date attend to each other, then refine their date's pixels; logits from the difference."""

    def __init__(
        self, in_channels: int, classify: nn.Module, width: int = 32, heads: int = 8, depth: int = 8, tokens: int = 4
    ) -> None:
        """Build the decoder.

        Args:
            in_channels: Channels of the features.
            classify: Maps N x width x h x w to logits, point by point.
            width: Channels of pixels and tokens; the heads together have twice as many.
            heads: Number of heads.
            depth: Blocks that refine the pixels.
            tokens: Number of tokens per date.
        """
        super().__init__()
        self.reduce = _convolution(in_channels, width, 3)
        self.tokenise = _convolution(width, tokens, 1)
        self.position = nn.Parameter(torch.randn(1, 2 * tokens, width))
        self.relate = Block(width, 2 * width, heads, own_tokens=True)
        self.refine = nn.ModuleList(Block(width, 2 * width, heads, own_tokens=False) for _ in range(depth))
        self.classify = classify

    def forward(self, joint: Tensor) -> Tensor:
        """Logits N x K x 8h x 8w from features 2N x C x h x w of both dates, date 1 first."""
        x = F.interpolate(joint, scale_factor=2, mode="bilinear", align_corners=False)
        x = F.relu(self.reduce(x), inplace=True)
        pixels = x.flatten(2).transpose(1, 2).contiguous()  # once here, not in every block
        shares = F.relu(self.tokenise(x)).flatten(2).softmax(dim=-1)
        tokens = torch.cat(split_dates(shares @ pixels), dim=1) + self.position
        tokens = torch.cat(self.relate(tokens, tokens).chunk(2, dim=1))
        for block in self.refine:
            pixels = block(pixels, tokens)
        first, second = split_dates(pixels)
        difference = (first - second).abs().transpose(1, 2).unflatten(2, x.shape[-2:])
        # The reference resizes all channels and then classifies; both are linear, and this order is cheaper.
        return F.interpolate(self.classify(difference), scale_factor=4, mode="bilinear", align_corners=False)


class BIT(ChangeModel):
    """Three stages of a shared ResNet-18, then ``TokenDecoder``: logits at full size.

    The paper's last two convolutions are not part of it, as in the reference.
    """

    def __init__(
        self,
        encoder: str = "resnet18_v1c",
        pretrained: bool = False,
        in_channels: int = 3,
        width: int = 32,
        heads: int = 8,
        depth: int = 8,
        tokens: int = 4,
    ) -> None:
        """Build the network.

        Args:
            encoder: ResNet.
            pretrained: Fetch its ImageNet weights.
            in_channels: Channels of one date.
            width: Channels of pixels and tokens; the heads together have twice as many.
            heads: Number of heads.
            depth: Blocks that refine the pixels.
            tokens: Number of tokens per date.

        Raises:
            WeightsError: When pretrained weights cannot be fetched.
        """
        super().__init__()
        self.encoder, channels = resnet_v1c(encoder, pretrained, in_channels, stages=3, dense=True)
        classify = segmentation_head(width, self.num_logits)
        self.decoder = TokenDecoder(channels[-1], classify, width, heads, depth, tokens)

    def outputs(self, before: Tensor, after: Tensor) -> ModelOutput:
        """Logits N x 2 x H x W at full size; no auxiliary output."""
        coarsest = both_dates(self.encoder, before, after)[-1]
        return ModelOutput(self.decoder(torch.cat(coarsest)))


BIT_R18 = ModelCard(
    title="BIT",
    paper="Chen, Qi, Shi: Remote Sensing Image Change Detection with Transformers, TGRS 2021",
    url="https://arxiv.org/abs/2103.00208",
    licence="Apache-2.0 (timm resnet18d.ra2_in1k)",
    multiple=8,
    minimum=16,
    training=TrainingDefaults(lr=1e-3, weight_decay=0.05, distillation_weight=1e-4),
    notes=(
        "Tokens are means over the whole input, padding too: sizes that are multiples of 8 but not of 32 give "
        "different "
        "numbers from Open-CD, which pads to 32. The reference starts from weights of a ResNet-18 V1c; "
        "`pretrained=True` fetches those of timm's resnet18d, whose shortcuts differ."
    ),
)

register("bit_r18", BIT_R18, BIT)
register(
    "test_bit",
    replace(BIT_R18, title="BIT (micro)", licence="none"),
    partial(BIT, "test_resnet", width=16, heads=4, depth=2),
)
