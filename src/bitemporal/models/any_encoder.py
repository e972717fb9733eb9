"""Any encoder of timm or segmentation-models-pytorch as a pyramid of features, by its name."""

from bitemporal import _torchvision as _torchvision  # isort: skip  (before timm, which imports torchvision)

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

from bitemporal.errors import OptionError, WeightsError
from bitemporal.files import not_there
from bitemporal.models.base import Normalisation
from bitemporal.models.encoders import TIMM_HUB, fetch_weights, without_expected_noise
from bitemporal.models.finite import check_finite
from bitemporal.models.layers import has_batch_norm, rescaled_levels
from bitemporal.reading import check_zip, reading

WeightsFile = str | os.PathLike[str]

_PROBLEMS_LISTED = 20


@dataclass(frozen=True)
class Levels:
    """The levels of features that an encoder returns, and the facts about its pretrained weights.

    Attributes:
        channels: Channels of the levels, from the finest to the coarsest.
        strides: Strides of the levels, in pixels; a Vision Transformer of patch 14 has a finest stride of 3.5.
        normalisation: Normalisation of the images that the weights expect.
        licence: Licence of the weights.
    """

    channels: Sequence[int]
    strides: Sequence[float]
    normalisation: Normalisation
    licence: str


class TimmEncoder(nn.Module):
    """Encoder of timm. A plain Vision Transformer, all of one stride, becomes a pyramid of four levels.

    Attributes:
        levels: The levels that it returns.
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
            name: Name in timm.
            in_channels: Channels of the image; timm adapts weights for three.
            pretrained: Fetch its weights.
            weights: File with the weights of the whole network, instead of fetching them.
            finest: Keep only this number of levels, the finest ones; all by default. timm drops the layers behind them
                in most networks, but not in those like EfficientNet.

        Raises:
            WeightsError: When the file does not fit.
        """
        super().__init__()
        with torch.device("meta"):  # without memory: only its structure is of interest
            whole = timm.create_model(name)
        reductions = [info["reduction"] for info in getattr(whole.feature_info, "info", whole.feature_info)]
        plain = len(set(reductions)) == 1
        if plain:
            indices = [len(reductions) * part // 4 - 1 for part in (1, 2, 3, 4)]
        else:
            # the last features of each stride; those at full size cost much and contribute little
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
            with without_expected_noise():
                self.body = build(pretrained=True, pretrained_cfg_overlay={"state_dict": state})
            for module in self.body.modules():
                getattr(module, "pretrained_cfg", {}).pop("state_dict", None)  # or timm keeps them in memory
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
        levels: The levels that it returns.
    """

    def __init__(
        self, name: str, in_channels: int, pretrained: bool = False, weights: WeightsFile | None = None
    ) -> None:
        """Build the encoder.

        Args:
            name: Name in segmentation-models-pytorch.
            in_channels: Channels of the image; weights for three are adapted.
            pretrained: Fetch its weights: those of ImageNet where there are several.
            weights: File with its weights, instead of fetching them.

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
        # the first entry is the image itself; an encoder without features at stride 2 has 0 channels there
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
    """Build an encoder by its name in timm or, where timm has no such name, in segmentation-models-pytorch.

    Args:
        name: The name; in timm it may include the tag of the weights, as in ``resnet18.a1_in1k``.
        in_channels: Channels of the image.
        pretrained: Fetch its weights.
        weights: File with its weights, instead of fetching them: safetensors, or written by ``torch.save``.
        finest: Keep only this number of levels of an encoder of timm, the finest ones.

    Raises:
        OptionError: When neither library has it, it returns no features, or two sources of weights are given.
        WeightsError: When the weights cannot be fetched, or the file does not fit.
    """
    if pretrained and weights is not None:
        raise OptionError(
            f"weights: found both {weights} and pretrained=True, expected one source; drop one of the two"
        )
    in_timm = timm.is_model(name)
    if not in_timm and name not in smp_encoders:
        near = [
            f"{', '.join(names)} of {library}"
            for library, known in (("timm", timm.list_models()), ("segmentation-models-pytorch", list(smp_encoders)))
            if (names := difflib.get_close_matches(name, known, n=3))
        ]
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists those of timm"
        raise OptionError(f"encoder: neither timm nor segmentation-models-pytorch has {name!r}; {hint}")

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
    # a network that is not an encoder fails in its own way
    except Exception as error:
        raise OptionError(
            f"encoder: {name!r} cannot be built as an encoder ({type(error).__name__}: {error}); choose another"
        ) from error


def accepted_sizes(encoder: TimmEncoder | SmpEncoder, in_channels: int) -> tuple[int, int]:
    """The multiple for height and width, in pixels, and the smallest size with which one pair can be trained.

    Both are found by trying, because some encoders accept fewer sizes than their strides allow: fixed windows need
    multiples of the window, and position embeddings may fit one size only.

    Raises:
        OptionError: When the encoder accepts one size only.
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
                except Exception as error:  # every network refuses a size in its own way
                    refusal = error
                    continue
                # one value per channel has no variance, and batch normalisation cannot train on it
                return multiple, smallest + multiple if positions == 1 and has_batch_norm(encoder) else smallest
    finally:
        encoder.train()
    raise OptionError(
        f"encoder: accepts images of one size only ({refusal}); choose one that accepts any, such as a convolutional "
        "one"
    )


@torch.no_grad()
def _coarsest(encoder: TimmEncoder | SmpEncoder, in_channels: int, height: int, width: int) -> int:
    """Number of positions in the coarsest features of an image of this size."""
    *_, features = encoder(torch.zeros(1, in_channels, height, width))
    return int(features[0, 0].numel())


def read_weights(path: WeightsFile) -> dict[str, Tensor]:
    """Read a state dict from a safetensors file, or from a file of ``torch.save`` that holds tensors only.

    Raises:
        WeightsError: When the file is missing or damaged, holds no state dict, or NaN or infinity.
    """
    file = Path(path)
    if not file.is_file():
        raise WeightsError(f"{not_there(file, 'file')}; expected the weights of an encoder (.safetensors, .pth)")
    # files with code in them are refused by torch
    with reading(file, WeightsError, "expected a safetensors file, or a file of torch.save that holds tensors only"):
        if file.suffix == ".safetensors":
            content: object = load_file(file)
        else:
            check_zip(file)
            content = torch.load(file, map_location="cpu", weights_only=True)
    while isinstance(content, Mapping):
        inner = next((content[key] for key in ("state_dict", "model") if key in content), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(
            f"{file}: found no state dict; expected names and tensors, as module.state_dict() returns them"
        )
    weights = {str(key).removeprefix("module."): value for key, value in content.items()}
    with reading(file, WeightsError, "expected finite weights: download the file again"):
        check_finite(weights)
    return weights


def _weights_of_timm(whole: nn.Module, config: Mapping[str, Any], path: WeightsFile) -> dict[str, Tensor]:
    """Weights from a file under the names of a network of timm (on the meta device), without the classifier.

    A file of another library is accepted where timm can translate it, or where it has the same entries in the same
    order under other names.
    """
    state, expected = read_weights(path), whole.state_dict()
    if state.keys() != expected.keys():
        translate = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
        if _same_entries(state, expected):
            state = dict(zip(expected, state.values(), strict=True))
        elif translate is not None:
            with suppress(Exception):  # it fails on files that it was not written for
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
    listed = "; ".join(problems[:_PROBLEMS_LISTED]) + ("; ..." if len(problems) > _PROBLEMS_LISTED else "")
    return WeightsError(f"{path}: does not fit {network}. {len(problems)} entries differ: {listed}")


def _same_entries(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> bool:
    """Whether both have the same number, order, kinds (weight, bias, ...) and shapes of entries."""
    return len(theirs) == len(ours) and all(
        a.rpartition(".")[2] == b.rpartition(".")[2] and theirs[a].shape == ours[b].shape
        for a, b in zip(theirs, ours, strict=True)
    )
