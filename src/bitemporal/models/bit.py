"""BIT, the bitemporal image transformer.

Hao Chen, Zipeng Qi, Zhenwei Shi: Remote Sensing Image Change Detection with Transformers, TGRS 2021,
https://arxiv.org/abs/2103.00208. Reference: Open-CD (Apache-2.0); the ImageNet weights of the encoder are timm's
resnet18d (Apache-2.0).
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitemporal.losses import cross_entropy
from bitemporal.models.base import ChangeModel, ModelCard, ModelOutput, TrainingDefaults
from bitemporal.models.encoders import ResNetName, resnet_v1c
from bitemporal.models.layers import segmentation_head, split_dates, stage_by_date
from bitemporal.models.registry import register_model


class Reduction(nn.Module):
    """The coarsest level at twice its size, with few channels."""

    def __init__(self, in_channels: int, width: int) -> None:
        """Args: in_channels: Of the level. width: Channels of the result."""
        super().__init__()
        self.conv = _convolution(in_channels, width, 3)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Features N x C x 2h x 2w from levels whose last one has height h and width w."""
        x = F.interpolate(levels[-1], scale_factor=2, mode="bilinear", align_corners=False)
        return F.relu(self.conv(x), inplace=True)


def _convolution(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv2d:
    """A convolution with bias, initialised as in the reference."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


class TokenAttention(nn.Module):
    """Multi-head attention of many vectors to few tokens.

    The scale is that of the input's channels, not of a head's. Scores are linear in the vectors, and the output is
    linear in the weights; so the projections of queries and of the output, 2 C x E a vector, are folded into the keys
    and values of the few tokens, which leaves 2 C x heads x T a vector and no copy by head. The weights are those of
    the reference.
    """

    def __init__(self, channels: int, inner: int, heads: int) -> None:
        """Args: channels: Of vectors and tokens. inner: Of all heads together. heads: Number of heads."""
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
        keys = torch.einsum("nthd,hdc->ncht", keys, self.query.weight.unflatten(0, by_head)).flatten(2)
        values = self.value(tokens).unflatten(2, by_head)
        values = torch.einsum("nthd,chd->nhtc", values, self.output.weight.unflatten(1, by_head)).flatten(1, 2)
        weights = (x @ keys).unflatten(2, (self.heads, count)).softmax(dim=-1).flatten(2)
        attended: Tensor = weights @ values + self.output.bias
        return attended


class Block(nn.Module):
    """Transformer block with normalisation first: attention to tokens, then two linear layers, both residual."""

    def __init__(self, channels: int, inner: int, heads: int, own_tokens: bool) -> None:
        """Build the block.

        Args:
            channels: Of vectors and tokens.
            inner: Of the heads together, and of the hidden layer.
            heads: Number of heads.
            own_tokens: The tokens are the vectors themselves; otherwise they have a normalisation of their own.
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


class BIT(ChangeModel):
    """Three stages of a shared ResNet-18; few tokens a date, which see each other and then refine their date's pixels.

    Logits at full size. Of the two classes' logits the paper's last two convolutions are not part, as in the reference.
    """

    def __init__(
        self,
        encoder: ResNetName = "resnet18_v1c",
        pretrained: bool = False,
        in_channels: int = 3,
        width: int = 32,
        heads: int = 8,
        depth: int = 8,
        tokens: int = 4,
        reference_losses: bool = False,
    ) -> None:
        """Build the network.

        Args:
            encoder: ResNet.
            pretrained: Fetch its ImageNet weights.
            in_channels: Channels of one date.
            width: Channels of pixels and tokens; the heads together have twice as many.
            heads: Number of heads.
            depth: Blocks that refine the pixels.
            tokens: Number of tokens a date.
            reference_losses: See ``ChangeModel``.

        Raises:
            WeightsError: When pretrained weights cannot be fetched.
        """
        super().__init__(reference_losses)
        stages, widths = resnet_v1c(encoder, pretrained, in_channels, stages=3, dense=True)
        self.features = nn.Sequential(OrderedDict(encoder=stages, reduce=Reduction(widths[-1], width)))
        self.tokenise = _convolution(width, tokens, 1)
        self.position = nn.Parameter(torch.randn(1, 2 * tokens, width))
        self.relate = Block(width, 2 * width, heads, own_tokens=True)
        self.refine = nn.ModuleList(Block(width, 2 * width, heads, own_tokens=False) for _ in range(depth))
        self.classify = segmentation_head(width, self.num_logits)

    def outputs(self, before: Tensor, after: Tensor) -> ModelOutput:
        """Logits N x 2 x H x W at full size; no auxiliary output."""
        features = stage_by_date(self.features, torch.cat((before, after)))
        pixels = features.flatten(2).transpose(1, 2)
        shares = F.relu(self.tokenise(features)).flatten(2).softmax(dim=-1)
        tokens = torch.cat(split_dates(shares @ pixels), dim=1) + self.position
        tokens = torch.cat(self.relate(tokens, tokens).chunk(2, dim=1))
        for block in self.refine:
            pixels = block(pixels, tokens)
        first, second = split_dates(pixels)
        difference = (first - second).abs().transpose(1, 2).unflatten(2, features.shape[-2:])
        # The reference resizes all channels and then classifies; both are linear, and this order is cheaper.
        logits = F.interpolate(self.classify(difference), scale_factor=4, mode="bilinear", align_corners=False)
        return ModelOutput(logits)

    def loss(self, outputs: ModelOutput, target: Tensor) -> dict[str, Tensor]:
        """Cross-entropy, ``loss_ce``."""
        return {"loss_ce": cross_entropy(outputs.logits, target, self.loss_pixels)}


BIT_R18 = ModelCard(
    title="BIT",
    paper="Chen, Qi, Shi: Remote Sensing Image Change Detection with Transformers, TGRS 2021",
    url="https://arxiv.org/abs/2103.00208",
    licence="Apache-2.0 (timm resnet18d.ra2_in1k)",
    multiple=8,
    minimum=16,
    training=TrainingDefaults(lr=1e-3, weight_decay=0.05, distillation_weight=1e-4),
    notes=(
        "Tokens are means over the whole input, padding too: sizes that are multiples of 8 but not of 32 give other "
        "numbers than Open-CD, which pads to 32. The reference starts from weights of a ResNet-18 V1c; "
        "`pretrained=True` fetches those of timm's resnet18d, whose shortcuts differ."
    ),
)
MICRO = replace(BIT_R18, title="BIT (micro)", licence="none")


@register_model(BIT_R18)
def bit_r18(pretrained: bool = False, in_channels: int = 3, reference_losses: bool = False) -> BIT:
    """BIT on ResNet-18, 2.99 M parameters."""
    return BIT(pretrained=pretrained, in_channels=in_channels, reference_losses=reference_losses)


@register_model(MICRO)
def test_bit(pretrained: bool = False, in_channels: int = 3, reference_losses: bool = False) -> BIT:
    """BIT on a miniature ResNet with two blocks, for tests."""
    return BIT("test_resnet", pretrained, in_channels, 16, heads=4, depth=2, reference_losses=reference_losses)
