"""What the rename rules of the families are made of.

A family is a list of rename rules, tried in order; the first whose pattern matches the whole key decides.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

Rules = tuple[tuple[str, str], ...]
"""Pairs of a pattern that a whole key must match, and its replacement."""

NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"


def same_entries(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries as they are."""
    return dict(state_dict)


class Family(NamedTuple):
    """How the checkpoints of one network are read.

    Attributes:
        rules: Rename rules.
        prepare: What happens to the entries before they are renamed.
        unused: Patterns of whole keys (after ``prepare``) of layers that the reference holds but whose results it does
            not use; the network here does not have them.
    """

    rules: Rules
    prepare: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = same_entries
    unused: tuple[str, ...] = ()


def conv_module(theirs: str, ours: str) -> Rules:
    """Rules of an mmcv ``ConvModule`` with batch normalisation, which is ``Sequential(conv, norm, act)`` here.

    Args:
        theirs: Pattern of its prefix, without groups.
        ours: Prefix here.
    """
    return ((rf"{theirs}\.conv\.(weight|bias)", rf"{ours}.0.\1"), (rf"{theirs}\.bn\.{NORM}", rf"{ours}.1.\1"))


def mix_transformer(theirs: str, ours: str = "encoder") -> Rules:
    """Rules of mmseg's ``MixVisionTransformer``, after ``mix_transformer_entries``.

    Args:
        theirs: Pattern of its prefix, with the dot, without groups.
        ours: Prefix of the stages here.
    """
    block = rf"{theirs}layers\.(\d)\.1\.(\d+)\."
    return (
        (rf"{theirs}layers\.(\d)\.0\.projection\.(\w+)", rf"{ours}.\1.0.proj.\2"),
        (rf"{theirs}layers\.(\d)\.0\.norm\.(\w+)", rf"{ours}.\1.0.norm.\2"),
        (rf"{block}(norm[12])\.(\w+)", rf"{ours}.\1.1.\2.\3.\4"),
        (rf"{block}attn\.(q|kv)\.(\w+)", rf"{ours}.\1.1.\2.attn.\3.\4"),
        (rf"{block}attn\.attn\.out_proj\.(\w+)", rf"{ours}.\1.1.\2.attn.proj.\3"),
        (rf"{block}attn\.(sr|norm)\.(\w+)", rf"{ours}.\1.1.\2.attn.\3.\4"),
        (rf"{block}ffn\.layers\.0\.(\w+)", rf"{ours}.\1.1.\2.mlp.fc1.\3"),
        (rf"{block}ffn\.layers\.1\.(\w+)", rf"{ours}.\1.1.\2.mlp.dwconv.dwconv.\3"),
        (rf"{block}ffn\.layers\.4\.(\w+)", rf"{ours}.\1.1.\2.mlp.fc2.\3"),
        (rf"{theirs}layers\.(\d)\.2\.(\w+)", rf"{ours}.\1.2.\2"),
    )


def mix_transformer_entries(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split the joint projections into query and key-value, and make the 1 x 1 convolutions of the MLPs linear."""
    entries: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        projection = re.fullmatch(r"(.*\.layers\.\d\.1\.\d+\.attn)\.attn\.in_proj_(weight|bias)", key)
        if projection and len(value) % 3 == 0:
            third = len(value) // 3
            prefix, kind = projection.groups()
            entries[f"{prefix}.q.{kind}"] = value[:third]
            entries[f"{prefix}.kv.{kind}"] = value[third:]
        elif re.fullmatch(r".*\.layers\.\d\.1\.\d+\.ffn\.layers\.[04]\.weight", key):
            entries[key] = value.flatten(1)
        else:
            entries[key] = value
    return entries


def resnet(theirs: str, ours: str = "encoder") -> Rules:
    """Rules of mmseg's ``ResNetV1c`` and ``ResNeSt`` (deep stem), which are ``encoders.resnet_v1c`` here.

    Args:
        theirs: Pattern of its prefix, with the dot, without groups.
        ours: Prefix of the stages here.
    """
    return (
        (rf"{theirs}stem\.([01346])\.{NORM}", rf"{ours}.0.conv1.\1.\2"),
        (rf"{theirs}stem\.7\.{NORM}", rf"{ours}.0.bn1.\1"),
        *((rf"{theirs}layer{i + 1}\.(.+)", rf"{ours}.{i}.blocks.\1") for i in range(4)),
    )


def fusion(theirs: str, ours: str) -> Rules:
    """Rules of the levels that SegFormer's head joins, which are ``layers.Fusion`` here.

    Args:
        theirs: Pattern of the head's prefix, with the dot, without groups.
        ours: Prefix here.
    """
    return (
        (rf"{theirs}convs\.(\d)\.conv\.(weight)", rf"{ours}.project.\1.0.\2"),
        (rf"{theirs}convs\.(\d)\.bn\.{NORM}", rf"{ours}.project.\1.1.\2"),
        *conv_module(rf"{theirs}fusion_conv", f"{ours}.join"),
    )


def mix_feed_forward(theirs: str, ours: str) -> Rules:
    """Rules of Open-CD's ``MixFFN``, which is ``layers.MixFeedForward`` here, a dropout left out.

    Args:
        theirs: Pattern of its prefix, with the dot, and with groups, if any, named in ``ours`` from 1.
        ours: Prefix here.
    """
    group = re.compile(theirs).groups + 1
    return (
        (rf"{theirs}layers\.([01])\.(\w+)", rf"{ours}.layers.\{group}.\{group + 1}"),
        (rf"{theirs}layers\.4\.(\w+)", rf"{ours}.layers.3.\{group}"),
    )
