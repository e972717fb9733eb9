"""Encoders of timm and segmentation-models-pytorch, and the fetching of their weights."""

from bitemporal import _torchvision as _torchvision  # isort: skip  (before timm, which imports torchvision)

import logging
import re
import threading
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

import timm
from huggingface_hub import constants
from segmentation_models_pytorch.encoders import get_encoder
from segmentation_models_pytorch.encoders.mix_transformer import MixVisionTransformerEncoder
from timm.layers import SplitAttn
from timm.models.vgg import VGG, cfgs
from torch import Tensor, nn

from bitemporal.errors import WeightsError
from bitemporal.models.layers import PooledBatchNorm2d, features_by_stage

_REACH_SECONDS = 5.0
TIMM_HUB = "timm's collection on the Hugging Face hub"

_Encoder = TypeVar("_Encoder")


def fetch_weights(build: Callable[[], _Encoder], encoder: str, source: str) -> _Encoder:
    """Build an encoder whose weights are fetched from the Hugging Face hub, or from its cache when offline.

    Args:
        build: Builds the encoder and loads its weights.
        encoder: Name of the encoder, for the error.
        source: Source of the weights, for the error.

    Raises:
        WeightsError: When the weights cannot be fetched or do not fit.
    """
    try:
        with _fetching, _cache_only_when_unreachable(), without_expected_noise():
            return build()
    # Fetching fails in many ways (network, proxy, disk, damaged file), and every library has its own errors for them.
    except Exception as error:
        raise WeightsError(
            f"pretrained weights of {encoder} are unavailable from {source} ({type(error).__name__}: {error}). "
            f"Connect to {constants.ENDPOINT} (or to a mirror, HF_ENDPOINT), or copy the Hugging Face cache of a "
            f"machine that has them (HF_HOME), or start without them (pretrained=False; leave --pretrained out)"
        ) from error


def timm_network(name: str, pretrained: bool, **options: Any) -> Any:  # noqa: ANN401  networks of timm differ in attributes
    """Build a network of timm.

    Args:
        name: Name in timm.
        pretrained: Fetch its weights.
        **options: Arguments of ``timm.create_model``.

    Raises:
        WeightsError: When the weights cannot be fetched.
    """
    build = partial(timm.create_model, name, pretrained=pretrained, **options)
    return fetch_weights(build, name.partition(".")[0], TIMM_HUB) if pretrained else build()


_HEAD = ("conv_head.", "bn2.", "head.", "head_", "norm_head.", "classifier.", "fc.", "fc_norm.", "pre_logits.")
"""Beginnings of the names of weights behind an encoder's last stage, which no network here has."""


_without_head: ContextVar[bool] = ContextVar("without_head", default=False)
_fetching = threading.RLock()  # the hub's client has one setting for all threads


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a message of timm says more than that the weights of a head were left out, where that is meant."""
    if not _without_head.get():
        return True
    left_out = re.match(r"Unexpected keys \((.*)\) found while loading pretrained weights", record.getMessage())
    return left_out is None or not all(name.startswith(_HEAD) for name in left_out[1].split(", "))


logging.getLogger("timm.models._builder").addFilter(_is_news)


@contextmanager
def without_expected_noise() -> Iterator[None]:
    """Keep timm from warning of the weights of a head that is left out on purpose; all else it says is heard."""
    token = _without_head.set(True)
    try:
        yield
    finally:
        _without_head.reset(token)


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
        return True  # the server answered
    except OSError:
        return False
    return True


class Pyramid(nn.ModuleList):
    """Stages of an encoder, run one after the other; each returns a level of features.

    A network that works between the stages iterates over them.
    """

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of every stage, from the finest to the coarsest, of images N x C x H x W."""
        return features_by_stage(self, images)


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
        whole = timm_network(name, pretrained, in_chans=in_channels, drop_path_rate=drop_path)
        self.conv_stem = whole.conv_stem
        self.bn1 = whole.bn1
        self.blocks = nn.Sequential(*whole.blocks[:3])
        self.channels: tuple[int, int, int] = tuple(stage["num_chs"] for stage in whole.feature_info[:3])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features at strides 2, 4 and 8 of images N x C x H x W."""
        return features_by_stage(self.blocks, self.bn1(self.conv_stem(images)))


_RESNETS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18_v1c": ("resnet18d", {"avg_down": False}),
    "resnest50": ("resnest50d", {}),
    "resnest101": ("resnest101e", {}),
    "test_resnet": (
        "resnet18d",
        {"avg_down": False, "layers": (1, 1, 1, 1), "channels": (8, 12, 16, 24), "stem_width": 4},
    ),
}
"""Name of each ResNet in timm, and its arguments there."""


def _shortcuts_of_v1c(state: dict[str, Tensor], _: nn.Module) -> dict[str, Tensor]:
    """Weights of timm's ``resnet18d`` for shortcuts that stride instead of averaging: their layers count from 0."""
    return {
        key.replace("downsample.1.", "downsample.0.").replace("downsample.2.", "downsample.1."): value
        for key, value in state.items()
    }


def resnet_v1c(
    name: str, pretrained: bool, in_channels: int, stages: int = 4, dense: bool = False
) -> tuple[Pyramid, list[int]]:
    """The stages of a ResNet-18 with a deep stem (V1c), or of a ResNeSt, at strides 4, 8, 16 and 32.

    Args:
        name: ``resnet18_v1c``, ``resnest50``, ``resnest101``, or ``test_resnet``, a miniature for tests.
        pretrained: Fetch ImageNet weights. For ``resnet18_v1c`` those of timm's ``resnet18d``, which differs in the
            shortcuts only: it averages before their 1 x 1 convolution, where V1c strides.
        in_channels: Channels of the image; with weights, timm adapts the first convolution.
        stages: Number of stages to keep.
        dense: The third stage does not stride, so that its features are at stride 8.

    Returns:
        The stages, and the channels of each.

    Raises:
        WeightsError: When the weights cannot be fetched.
    """
    name_in_timm, arguments = _RESNETS[name]
    if arguments:
        arguments = {**arguments, "pretrained_filter_fn": _shortcuts_of_v1c}
    whole = timm_network(name_in_timm, pretrained, in_chans=in_channels, **arguments)
    for module in whole.modules():
        if isinstance(module, SplitAttn):  # one value per channel and image: training on one pair must work
            pooled = PooledBatchNorm2d(module.bn1.num_features)
            pooled.load_state_dict(module.bn1.state_dict())
            module.bn1 = pooled
    layers = [whole.layer1, whole.layer2, whole.layer3, whole.layer4][:stages]
    if dense:
        layers[2][0].conv1.stride = layers[2][0].downsample[0].stride = (1, 1)
    stem = {"conv1": whole.conv1, "bn1": whole.bn1, "act1": whole.act1, "maxpool": whole.maxpool}
    first = nn.Sequential(OrderedDict(stem | {"blocks": layers[0]}))
    others = (nn.Sequential(OrderedDict(blocks=layer)) for layer in layers[1:])
    return Pyramid([first, *others]), [info["num_chs"] for info in whole.feature_info[1:]][:stages]


_TEST_VGG: list[int | str] = [8, "M", 12, "M", 16, "M", 16, "M", 16, "M"]


def vgg(name: str, pretrained: bool, in_channels: int) -> tuple[Pyramid, list[int]]:
    """The five stages of a VGG-16 at strides 1, 2, 4, 8 and 16, without its last pooling and its classifier.

    A stage ends with a ReLU, and the next one begins with the pooling; layers keep their number in VGG's ``features``.

    Args:
        name: Name in timm (``vgg16`` has no batch normalisation), or ``test_vgg`` and ``test_vgg_bn``, miniatures for
            tests.
        pretrained: Fetch the ImageNet weights.
        in_channels: Channels of the image; with weights, timm adapts the first convolution.

    Returns:
        The stages, and the channels of each.

    Raises:
        WeightsError: When the weights cannot be fetched.
    """
    micro = name.startswith("test_")
    if pretrained:
        whole = timm_network(name, pretrained, in_chans=in_channels, num_classes=0)
    else:
        norm = nn.BatchNorm2d if name.endswith("_bn") else None
        # a classifier of one hidden unit: it is dropped, and at full size it would hold 100 M parameters
        widths = _TEST_VGG if micro else cfgs[name.removesuffix("_bn")]
        whole = VGG(widths, num_classes=0, in_chans=in_channels, mlp_ratio=1 / 4096, norm_layer=norm)
    layers = whole.features
    pools = [index for index, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    stages = Pyramid(layers[start:end] for start, end in zip([0, *pools], pools, strict=False))
    return stages, [info["num_chs"] for info in whole.feature_info[: len(stages)]]


MIX_TRANSFORMERS = ("mit_b0", "mit_b1", "mit_b2", "test_mit")


def mix_transformer(name: str, pretrained: bool, in_channels: int) -> tuple[Pyramid, list[int]]:
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
        WeightsError: When the weights cannot be fetched.
    """
    if name == "test_mit":
        encoder = _test_mit(in_channels)
    else:
        build = partial(get_encoder, name, in_channels=in_channels, weights="imagenet" if pretrained else None)
        encoder = fetch_weights(build, name, f"smp-hub/{name}.imagenet") if pretrained else build()
    for module in encoder.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6  # as in the reference; smp has 1e-5 in the patch embeddings and the reduced keys
    stages = Pyramid(
        nn.Sequential(*(getattr(encoder, f"{part}{stage}") for part in ("patch_embed", "block", "norm")))
        for stage in (1, 2, 3, 4)
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
