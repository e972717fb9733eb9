"""Encoders of timm and segmentation-models-pytorch, and the fetching of their weights."""

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, TypeVar

import timm
from huggingface_hub import constants
from segmentation_models_pytorch.encoders import get_encoder
from segmentation_models_pytorch.encoders.mix_transformer import MixVisionTransformerEncoder
from torch import Tensor, nn

from bitemporal.errors import WeightsError

_REACH_SECONDS = 5.0

_Encoder = TypeVar("_Encoder")


def fetch_weights(build: Callable[[], _Encoder], encoder: str, source: str) -> _Encoder:
    """Build an encoder whose weights are fetched from the Hugging Face hub, or from its cache when offline.

    Args:
        build: Builds the encoder and loads its weights.
        encoder: Its name, for the error.
        source: Where the weights are, for the error.

    Raises:
        WeightsError: When the weights cannot be fetched or do not fit.
    """
    try:
        with _cache_only_when_unreachable():
            return build()
    # Fetching fails in many ways (network, proxy, disk, damaged file), and every library has own classes for them.
    except Exception as error:
        raise WeightsError(
            f"pretrained weights of {encoder} could not be had from {source} ({type(error).__name__}: {error}). "
            f"Connect to {constants.ENDPOINT} (or to a mirror, HF_ENDPOINT), or copy the Hugging Face cache of a "
            f"machine that has them (HF_HOME), or start without them (pretrained=False)"
        ) from error


@contextmanager
def _cache_only_when_unreachable() -> Iterator[None]:
    """Keep the hub's client from retrying for a minute on a machine without network."""
    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = offline or not _reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


def _reachable(url: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_REACH_SECONDS).close()
    except urllib.error.HTTPError:
        return True  # it answered
    except OSError:
        return False
    return True


class EfficientNetStem(nn.Module):
    """First stages of an EfficientNet of timm, strides 2, 4 and 8; the deeper stages are not kept."""

    def __init__(self, name: str, pretrained: bool, in_channels: int, drop_path: float) -> None:
        """Build the stages.

        Args:
            name: Name in timm.
            pretrained: Fetch the ImageNet weights.
            in_channels: Channels of the image; with weights, timm adapts the first convolution.
            drop_path: Rate of stochastic depth at the last block of the whole network; earlier blocks have less.

        Raises:
            WeightsError: When the weights cannot be fetched.
        """
        super().__init__()
        build = partial(timm.create_model, name, pretrained=pretrained, in_chans=in_channels, drop_path_rate=drop_path)
        whole = fetch_weights(build, name, "timm's collection on the Hugging Face hub") if pretrained else build()
        self.conv_stem = whole.conv_stem
        self.bn1 = whole.bn1
        self.blocks = nn.Sequential(*whole.blocks[:3])
        self.channels: tuple[int, int, int] = tuple(stage["num_chs"] for stage in whole.feature_info[:3])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features at strides 2, 4 and 8 of images N x C x H x W."""
        x = self.bn1(self.conv_stem(images))
        features = []
        for stage in self.blocks:
            x = stage(x)
            features.append(x)
        return features


MixTransformerName = Literal["mit_b0", "test_mit"]


def mix_transformer(name: MixTransformerName, pretrained: bool, in_channels: int) -> tuple[nn.ModuleList, list[int]]:
    """The four stages of a Mix Transformer (SegFormer), strides 4, 8, 16 and 32.

    A stage is ``Sequential(patch embedding, blocks, norm)`` and maps N x C x H x W to its features. No batch
    normalisation: both dates may pass as one batch in training too.

    Args:
        name: Name in segmentation-models-pytorch, or ``test_mit``, a miniature for tests.
        pretrained: Fetch the ImageNet weights.
        in_channels: Channels of the image; with weights, the first convolution is adapted.

    Returns:
        The stages, and the channels of each.

    Raises:
        WeightsError: When the weights do not exist or cannot be fetched.
    """
    if name == "test_mit":
        if pretrained:
            raise WeightsError("test_mit has no pretrained weights; build it without them (pretrained=False)")
        encoder = _test_mit(in_channels)
    else:
        build = partial(get_encoder, name, in_channels=in_channels, weights="imagenet" if pretrained else None)
        encoder = fetch_weights(build, name, f"smp-hub/{name}.imagenet") if pretrained else build()
    for module in encoder.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6  # as in the reference; smp has 1e-5 in the patch embeddings and the reduced keys
    stages = nn.ModuleList(
        [
            nn.Sequential(encoder.patch_embed1, encoder.block1, encoder.norm1),
            nn.Sequential(encoder.patch_embed2, encoder.block2, encoder.norm2),
            nn.Sequential(encoder.patch_embed3, encoder.block3, encoder.norm3),
            nn.Sequential(encoder.patch_embed4, encoder.block4, encoder.norm4),
        ]
    )
    return stages, list(encoder.out_channels[2:])


def _test_mit(in_channels: int) -> MixVisionTransformerEncoder:
    widths = [8, 12, 16, 24]
    return MixVisionTransformerEncoder(
        out_channels=[in_channels, 0, *widths],
        in_chans=in_channels,
        embed_dims=widths,
        num_heads=[1, 2, 2, 4],
        mlp_ratios=[2, 2, 2, 2],
        qkv_bias=True,
        depths=[1, 1, 1, 1],
        sr_ratios=[8, 4, 2, 1],
        drop_path_rate=0.1,
    )
