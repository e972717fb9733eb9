"""Any encoder of timm or segmentation-models-pytorch as a pyramid of features, by its name."""

import difflib
import inspect
import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from segmentation_models_pytorch.encoders import get_encoder
from timm.layers import Format
from torch import Tensor, nn

from bitemporal.errors import RecipeError, WeightsError
from bitemporal.models.base import Normalisation
from bitemporal.models.encoders import TIMM_HUB, fetch_weights
from bitemporal.models.layers import rescaled_levels

WeightsFile = str | os.PathLike[str]

_PROBLEMS_TOLD = 20


@dataclass(frozen=True)
class Levels:
    """What an encoder gives, and what its pretrained weights are.

    Attributes:
        channels: Of the levels, from the finest to the coarsest.
        strides: Of the levels, in pixels; those of a Vision Transformer of patch 14 begin with 3.5.
        normalisation: Of the images that the weights expect.
        licence: Of the weights.
    """

    channels: Sequence[int]
    strides: Sequence[float]
    normalisation: Normalisation
    licence: str


class TimmEncoder(nn.Module):
    """Encoder of timm; a plain Vision Transformer, whose blocks all have one stride, becomes a pyramid of four levels.

    Attributes:
        levels: What it gives.
    """

    def __init__(
        self,
        name: str,
        in_channels: int,
        pretrained: bool = False,
        weights: WeightsFile | None = None,
        finest: int | None = None,
    ) -> None:
        """Build the encoder.

        Args:
            name: In timm.
            in_channels: Channels of the image; timm adapts weights for three.
            pretrained: Fetch its weights.
            weights: File with the weights of the whole network, instead.
            finest: Number of levels to keep, the finest ones; all by default. timm drops the layers behind them in
                most networks, not in the likes of EfficientNet.

        Raises:
            WeightsError: When the file does not fit.
        """
        super().__init__()
        with torch.device("meta"):  # takes no memory: only to see what the network is made of
            whole = timm.create_model(name)
        reductions = [info["reduction"] for info in getattr(whole.feature_info, "info", whole.feature_info)]
        plain = len(set(reductions)) == 1
        if plain:
            indices = [len(reductions) * part // 4 - 1 for part in (1, 2, 3, 4)]
        else:
            # the last features of each stride; those at full size cost much and tell little
            indices = list({stride: i for i, stride in enumerate(reductions) if stride > 1}.values())[:finest]
        any_size = {"dynamic_img_size": True, "strict_img_size": False}
        taken = inspect.signature(type(whole).__init__).parameters
        build = partial(
            timm.create_model,
            name,
            in_chans=in_channels,
            features_only=True,
            out_indices=indices,
            **{key: value for key, value in any_size.items() if key in taken},
        )
        if weights is None:
            self.body = build(pretrained=pretrained)
        else:
            state = _weights_of_timm(whole, whole.pretrained_cfg, weights)
            self.body = build(pretrained=True, pretrained_cfg_overlay={"state_dict": state})
            for module in self.body.modules():
                getattr(module, "pretrained_cfg", {}).pop("state_dict", None)  # timm would keep them
        self.channels_last = getattr(self.body, "output_fmt", None) == Format.NHWC
        channels: list[int] = self.body.feature_info.channels()
        strides: list[float] = self.body.feature_info.reduction()
        self.rescale: nn.ModuleList | None = None
        if plain:
            self.rescale, channels = rescaled_levels(channels)
            strides = [stride * factor for stride, factor in zip(strides, (0.25, 0.5, 1.0, 2.0), strict=True)]
        config = whole.pretrained_cfg
        mean, std = (tuple(255.0 * value for value in config[key]) for key in ("mean", "std"))
        licence = f"{config.get('license') or 'not stated'} ({config.get('hf_hub_id') or name})"
        self.levels = Levels(channels, strides, Normalisation(mean, std), licence)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of images N x C x H x W, from the finest to the coarsest."""
        maps: list[Tensor] = self.body(images)
        if self.channels_last:
            maps = [features.permute(0, 3, 1, 2) for features in maps]
        if self.rescale is not None:
            maps = [rescale(features) for rescale, features in zip(self.rescale, maps, strict=True)]
        return maps


class SmpEncoder(nn.Module):
    """Encoder of segmentation-models-pytorch.

    Attributes:
        levels: What it gives.
    """

    def __init__(
        self, name: str, in_channels: int, pretrained: bool = False, weights: WeightsFile | None = None
    ) -> None:
        """Build the encoder.

        Args:
            name: In segmentation-models-pytorch.
            in_channels: Channels of the image; weights for three are adapted.
            pretrained: Fetch its weights: those of ImageNet, where there are several.
            weights: File with its weights, instead.

        Raises:
            WeightsError: When the file does not fit.
        """
        super().__init__()
        origins = smp_encoders[name]["pretrained_settings"]
        origin = "imagenet" if "imagenet" in origins else next(iter(origins))
        if weights is None:
            self.body = get_encoder(name, in_channels=in_channels, weights=origin if pretrained else None)
        else:
            self.body = get_encoder(name)
            state = read_weights(weights)
            expected = self.body.state_dict()
            try:
                self.body.load_state_dict(state)  # leaves the classifier out
            except (RuntimeError, KeyError) as error:
                raise _misfit(weights, f"{name} in segmentation-models-pytorch", state, expected) from error
            self.body.set_in_channels(in_channels, pretrained=True)
        # first comes the image itself; encoders without features at stride 2 give none, of no channels, there
        self.kept = [i for i, channels in enumerate(self.body.out_channels) if i > 0 and channels > 0]
        self.levels = Levels(
            [self.body.out_channels[i] for i in self.kept],
            [2.0**i for i in self.kept],
            Normalisation(),
            f"not stated ({origins[origin]['repo_id']})",
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of images N x C x H x W, from the finest to the coarsest."""
        maps: list[Tensor] = self.body(images)
        return [maps[i] for i in self.kept]


def any_encoder(
    name: str, in_channels: int, pretrained: bool, weights: WeightsFile | None, finest: int | None = None
) -> TimmEncoder | SmpEncoder:
    """Build an encoder by its name: timm's, or where timm has none of that name, that of segmentation-models-pytorch.

    Args:
        name: The name; one of timm may have the tag of its weights, ``resnet18.a1_in1k``.
        in_channels: Channels of the image.
        pretrained: Fetch its weights.
        weights: File with its weights, instead: safetensors, or of ``torch.save``.
        finest: Number of levels to keep, of an encoder of timm.

    Raises:
        RecipeError: When neither library has it, it gives no features, or two sources of weights are named.
        WeightsError: When the weights cannot be fetched, or the file does not fit.
    """
    if pretrained and weights is not None:
        raise RecipeError(f"weights: {weights} are named, and pretrained=True would fetch others; choose one of both")
    in_timm = timm.is_model(name)
    if not in_timm and name not in smp_encoders:
        near = [
            f"{', '.join(names)} of {library}"
            for library, known in (("timm", timm.list_models()), ("segmentation-models-pytorch", list(smp_encoders)))
            if (names := difflib.get_close_matches(name, known, n=3))
        ]
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists most of them"
        raise RecipeError(f"encoder: neither timm nor segmentation-models-pytorch has {name!r}; {hint}")

    def build() -> TimmEncoder | SmpEncoder:
        if in_timm:
            return TimmEncoder(name, in_channels, pretrained, weights, finest)
        return SmpEncoder(name, in_channels, pretrained, weights)

    if pretrained:
        return fetch_weights(build, name, TIMM_HUB if in_timm else "smp-hub on the Hugging Face hub")
    try:
        return build()
    except WeightsError:
        raise
    # networks that are no encoders fail in their own ways
    except Exception as error:
        raise RecipeError(
            f"encoder: {name!r} cannot be built with features for a decoder ({type(error).__name__}: {error}); choose "
            f"another"
        ) from error


def has_batch_norm(module: nn.Module) -> bool:
    """Whether what it gives for one image in training depends on the others of the batch."""
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


def accepted_sizes(encoder: TimmEncoder | SmpEncoder, in_channels: int) -> tuple[int, int]:
    """Multiple that height and width must have, and the smallest of them with which one pair can be trained.

    Found by trying, for some encoders take fewer sizes than their strides allow: those with fixed windows want
    multiples of them, and those with positions for one size take nothing else.

    Raises:
        RecipeError: When the encoder takes one size only.
    """
    stride = math.ceil(max(encoder.levels.strides))
    refusal: Exception | None = None
    encoder.eval()
    try:
        for multiple in (stride, 7 * stride, 8 * stride):  # windows have 7 or 8 tokens a side
            for smallest in [multiple * count for count in ((1, 2, 3, 4) if multiple == stride else (1,))]:
                try:
                    positions, _ = (
                        _coarsest(encoder, in_channels, smallest, smallest + more) for more in (0, multiple)
                    )
                except Exception as error:  # every network refuses in its own way
                    refusal = error
                    continue
                # one value a channel has no variance: batch normalisation cannot train on it
                return multiple, smallest + multiple if positions == 1 and has_batch_norm(encoder) else smallest
    finally:
        encoder.train()
    raise RecipeError(
        f"encoder: takes images of one size only ({refusal}); choose one that takes any, such as a convolutional one"
    )


@torch.no_grad()
def _coarsest(encoder: TimmEncoder | SmpEncoder, in_channels: int, height: int, width: int) -> int:
    """Positions in the coarsest features of an image of that size."""
    *_, features = encoder(torch.zeros(1, in_channels, height, width))
    return int(features[0, 0].numel())


def read_weights(path: WeightsFile) -> dict[str, Tensor]:
    """Read a state dict from a safetensors file, or one of ``torch.save`` that holds tensors only.

    Raises:
        WeightsError: When there is none.
    """
    file = Path(path)
    if not file.is_file():
        raise WeightsError(f"{file}: no such file; expected the weights of an encoder (.safetensors, .pth)")
    try:
        if file.suffix == ".safetensors":
            content: object = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    # damaged files and those with code in them raise anything
    except Exception as error:
        raise WeightsError(
            f"{file}: cannot be read as weights ({type(error).__name__}: {error}); expected a safetensors file, or "
            f"one of torch.save that holds tensors only"
        ) from error
    while isinstance(content, Mapping):
        inner = next((content[key] for key in ("state_dict", "model") if key in content), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(
            f"{file}: holds no state dict; expected names and tensors, as module.state_dict() gives them"
        )
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _weights_of_timm(whole: nn.Module, config: Mapping[str, Any], path: WeightsFile) -> dict[str, Tensor]:
    """Weights from a file in the names of a network of timm (on the meta device), the classifier left out.

    Files of other libraries are understood where timm knows how to translate them, or where their entries are the same
    ones in the same order under other names.
    """
    state, expected = read_weights(path), whole.state_dict()
    if state.keys() != expected.keys():
        translate = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
        if _same_entries(state, expected):
            state = dict(zip(expected, state.values(), strict=True))
        elif translate is not None:
            with suppress(Exception):  # made for the files it knows, and for no others
                state = dict(translate(dict(state), whole))
    names = config.get("classifier") or ()
    classifier = tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names))
    state, expected = (
        {key: value for key, value in entries.items() if not key.startswith(classifier)}
        for entries in (state, expected)
    )
    if {key: value.shape for key, value in state.items()} != {key: value.shape for key, value in expected.items()}:
        raise _misfit(path, f"{config['architecture']} in timm", state, expected)
    return state


def _misfit(
    path: WeightsFile, network: str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> WeightsError:
    problems = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    problems += [f"missing: {key}" for key in expected if key not in state]
    problems += [f"not in the encoder: {key}" for key in state if key not in expected]
    told = "; ".join(problems[:_PROBLEMS_TOLD]) + ("; ..." if len(problems) > _PROBLEMS_TOLD else "")
    return WeightsError(f"{path}: is not of {network}. {len(problems)} entries do not fit: {told}")


def _same_entries(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> bool:
    """Whether the entries are the same in number, order, kind (weight, bias, ...) and shape."""
    return len(theirs) == len(ours) and all(
        a.rpartition(".")[2] == b.rpartition(".")[2] and theirs[a].shape == ours[b].shape
        for a, b in zip(theirs, ours, strict=True)
    )
