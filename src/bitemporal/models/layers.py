"""Blocks that several families share."""

from bitemporal import _torchvision as _torchvision  # isort: skip  (before timm, which imports torchvision)

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

_LARGE_IMAGES, _LARGE_FEATURES = 2**16, 2**21
"""From this number of pixels, or of values, in a batch of one date, a CPU is faster with one date after the other."""


def _one_by_one(encoder: nn.Module, date: Tensor) -> bool:
    """Whether the dates pass an encoder one after the other, not as one batch."""
    if encoder.training:
        return True
    if torch.compiler.is_compiling() or date.device.type != "cpu":  # in an export the sizes are dynamic
        return False
    return date.shape[0] * date.shape[-2] * date.shape[-1] >= _LARGE_IMAGES or date.numel() >= _LARGE_FEATURES


def both_dates(encoder: nn.Module, before: Tensor, after: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Features of both dates from one shared encoder, level by level.

    In training each date passes alone, so that batch normalisation sees one date at a time, as in the reference; in
    evaluation both pass as one batch of 2N where that is faster, which gives the same numbers.

    Args:
        encoder: Maps N x C x H x W to a sequence of feature maps.
        before: Images of date 1.
        after: Images of date 2.

    Returns:
        For each level the features of date 1 and of date 2.
    """
    if _one_by_one(encoder, before):
        first: Sequence[Tensor] = encoder(before)
        second: Sequence[Tensor] = encoder(after)
        return list(zip(first, second, strict=True))
    joint: Sequence[Tensor] = encoder(torch.cat((before, after)))
    return [split_dates(level) for level in joint]


def stage_by_date(stage: nn.Module, joint: Tensor) -> Tensor:
    """Both dates through one stage of a shared encoder, where something happens between its stages.

    As ``both_dates``: in training each date passes alone, so that batch normalisation sees one date at a time; in
    evaluation both pass at once where that is faster.

    Args:
        stage: Maps N x C x H x W to features.
        joint: Both dates, 2N x C x H x W, date 1 first.
    """
    dates = split_dates(joint)
    if _one_by_one(stage, dates[0]):
        return torch.cat([stage(date) for date in dates])
    features: Tensor = stage(joint)
    return features


def has_batch_norm(module: nn.Module) -> bool:
    """Whether batch normalisation makes the features of one image depend on the rest of the batch in training."""
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


def split_dates(joint: Tensor) -> tuple[Tensor, Tensor]:
    """Both dates, N x ... each, of a joint batch 2N x ... with date 1 first."""
    count = joint.shape[0] // 2  # not chunk(2), which would fix N in an export
    return joint[:count], joint[count:]


def features_by_stage(
    stages: Iterable[nn.Module], x: Tensor, between: Callable[[Tensor], Tensor] | None = None
) -> list[Tensor]:
    """Features after each of the stages, which run one after the other.

    Args:
        stages: The stages of an encoder, from the finest to the coarsest.
        x: Input of the first stage.
        between: What the features pass on their way to the next stage, such as pooling.
    """
    features: list[Tensor] = []
    for stage in stages:
        x = stage(between(x) if between and features else x)
        features.append(x)
    return features


def segmentation_head(channels: int, classes: int, dropout: float = 0.1) -> nn.Sequential:
    """Dropout of channels and a 1 x 1 convolution to the logits, initialised N(0, 0.01) as in the reference."""
    convolution = nn.Conv2d(channels, classes, 1)
    nn.init.normal_(convolution.weight, std=0.01)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return nn.Sequential(nn.Dropout2d(dropout) if dropout else nn.Identity(), convolution)


def initialise(module: nn.Module, zero_bias: bool = False) -> None:
    """Kaiming initialisation of all convolutions in a module, as in the reference.

    Args:
        module: A convolution, or a module that holds some.
        zero_bias: Set their biases to 0 too.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if zero_bias and part.bias is not None:
                nn.init.zeros_(part.bias)


def conv_module(in_channels: int, out_channels: int, kernel_size: int = 1) -> nn.Sequential:
    """A convolution without bias, batch normalisation, ReLU; kaiming initialisation as in the reference.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Height and width of the kernel, odd; the size of the map stays.
    """
    module: nn.Sequential = Conv2dNormActivation(in_channels, out_channels, kernel_size)
    initialise(module)
    return module


class ShortcutBlock(nn.Module):
    """Two convolutions with a shortcut from the first convolution's result, before its normalisation."""

    def __init__(self, in_channels: int, channels: int, kernel_size: int = 3, bias: bool = True) -> None:
        """Build the layers.

        Args:
            in_channels: Channels of the input.
            channels: Channels of the output.
            kernel_size: Kernel of the second convolution, odd.
            bias: Whether the second convolution has a bias.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, bias=bias)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Features N x C x H x W at the size of the input."""
        shortcut = self.conv1(x)
        refined = self.norm2(self.conv2(F.relu(self.norm1(shortcut), inplace=True)))
        return F.relu(refined + shortcut, inplace=True)


def rescaled_levels(channels: Sequence[int]) -> tuple[nn.ModuleList, list[int]]:
    """Layers that make a pyramid of four maps of one size: 4, 2, 1 and 1/2 times that size (ViTDet's, of one map).

    Args:
        channels: Channels of the maps, from the one that becomes the finest.

    Returns:
        The layers, one per map, and the channels of their results.
    """
    a, b, c, d = channels
    layers = [
        nn.Sequential(
            nn.ConvTranspose2d(a, a // 2, 2, stride=2),
            LayerNorm2d(a // 2, eps=1e-5),
            nn.GELU(),
            nn.ConvTranspose2d(a // 2, a // 4, 2, stride=2),
        ),
        nn.ConvTranspose2d(b, b // 2, 2, stride=2),
        nn.Identity(),
        nn.MaxPool2d(2),
    ]
    return nn.ModuleList(layers), [a // 4, b // 2, c, d]


class PooledBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation of features pooled over the whole image, N x C x 1 x 1.

    A batch of one has no variance there, and torch (and the reference) refuses to train on it; here such a batch is
    normalised by the running statistics, which stay unchanged.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise N x C x 1 x 1."""
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


def date_weights(in_channels: int, channels: int) -> nn.Sequential:
    """A bottleneck that gives the weights in (0, 1) of the channels of both dates, N x 2C x 1 x 1.

    Args:
        in_channels: Channels of the features pooled over the whole image, N x in_channels x 1 x 1.
        channels: C, of one date.
    """
    hidden = max(channels // 16, 8)
    return nn.Sequential(
        nn.Conv2d(in_channels, hidden, 1, bias=False),
        PooledBatchNorm2d(hidden),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, 2 * channels, 1, bias=False),
        nn.Sigmoid(),
    )


class Fusion(nn.Module):
    """Brings feature maps of several strides to one map at the finest one's size, as in SegFormer's head."""

    def __init__(
        self,
        in_channels: Sequence[int],
        width: int,
        out_channels: int,
        join: Callable[[int, int], nn.Module] = conv_module,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: Channels of the levels.
            width: Channels of each projected level.
            out_channels: Channels of the result.
            join: Builds what joins the concatenated levels, from its numbers of input and output channels.
        """
        super().__init__()
        self.project = nn.ModuleList(conv_module(channels, width) for channels in in_channels)
        self.join = join(width * len(in_channels), out_channels)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Fuse feature maps from the finest to the coarsest."""
        size = levels[0].shape[-2:]
        maps = [project(level) for project, level in zip(self.project, levels, strict=True)]
        maps = [maps[0], *(F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in maps[1:])]
        fused: Tensor = self.join(torch.cat(maps, dim=1))
        return fused


def fuse_both_dates(fusion: Fusion, joint: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Fused map of each date, from levels 2N x C x h x w with date 1 first.

    In training its batch normalisation sees one date at a time, as in the reference.
    """
    if fusion.training:
        before, after = zip(*(split_dates(level) for level in joint), strict=True)
        return fusion(before), fusion(after)
    return split_dates(fusion(joint))


class MixFeedForward(nn.Module):
    """Feed-forward layers of SegFormer on maps: 1 x 1, depth-wise 3 x 3, GELU, 1 x 1; without the residual."""

    def __init__(self, channels: int, hidden: int) -> None:
        """Args: channels: Channels of input and output. hidden: Channels of the hidden layers."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            nn.GELU(),
            nn.Conv2d(hidden, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as the input N x C x H x W."""
        refined: Tensor = self.layers(x)
        return refined


class ChannelAttention(nn.Module):
    """Weights of channels from their means and maxima, as in CBAM: one shared bottleneck for both, without bias."""

    def __init__(self, channels: int, hidden: int) -> None:
        """Args: channels: Channels of the input. hidden: Channels of the bottleneck."""
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(channels, hidden, 1, bias=False), nn.ReLU(inplace=True))
        self.expand = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Weights N x C x 1 x 1 in (0, 1) of features N x C x H x W."""
        pooled = self.squeeze(x.mean(dim=(2, 3), keepdim=True)) + self.squeeze(x.amax(dim=(2, 3), keepdim=True))
        return torch.sigmoid(self.expand(pooled))  # the expansion is linear: once, of the sum


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Context in which autocast leaves operations in the precision of their inputs."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()  # an export then meets no context at all


_FEW_ENERGIES = 2**26
"""Up to this number of energies (256 MiB), a CPU is faster with all at once than with a fused kernel on padded ones."""


def unscaled_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention ``softmax(query key^T) value`` without the usual scale, in linear memory where the lengths are large.

    Args:
        query: N x L x D, or N x heads x L x D.
        key: N x S x D, or N x heads x S x D.
        value: N x S x E, or N x heads x S x E; E not below D.

    Returns:
        N x L x E, or N x heads x L x E.
    """
    if query.dim() == 3:  # fused kernels need exactly one dimension of heads
        return unscaled_attention(query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1)).squeeze(1)
    missing = value.shape[-1] - query.shape[-1]
    if missing and query.device.type == "cpu":  # its fused kernel takes one width only; zeros change no energy
        energies = query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]
        if not torch.compiler.is_compiling() and energies <= _FEW_ENERGIES:
            return torch.softmax(query @ key.mT, dim=-1) @ value
        query, key = F.pad(query, (0, missing)), F.pad(key, (0, missing))
    return F.scaled_dot_product_attention(query, key, value, scale=1.0)
