"""HANet, whose query, key and value of an axis are one linear projection here."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from bitemporal.interop.opencd.rules import NORM, Family, Rules

_CELLS = ("conv0", "conv2", "conv4", "conv5")


def _level(theirs: int) -> Rules:
    """Rules of a level, which the reference counts from 1."""
    ours = f"levels.{theirs - 1}"
    return (
        *((rf"backbone\.conv6_{theirs}_{i + 1}\.(\w+)", rf"{ours}.dilated.{i}.\1") for i in range(4)),
        (rf"backbone\.conv{theirs}_1\.(\w+)", rf"{ours}.join.\1"),
        (rf"backbone\.cam_attention_{theirs}\.attn\.(\d)\.{NORM}", rf"{ours}.channels.\1.\2"),
        (rf"backbone\.cam_attention_{theirs}\.attn\.3\.(gamma)", rf"{ours}.channels.3.\1"),
        (rf"backbone\.row_attention_{theirs}\.(gamma|projection\.\w+)", rf"{ours}.rows.\1"),
        (rf"backbone\.col_attention_{theirs}\.(gamma|projection\.\w+)", rf"{ours}.columns.\1"),
    )


_HANET: Rules = (
    (r"backbone\.conv0_0\.(\w+)", r"encoder.stem.\1"),
    *(
        rule
        for index, cell in enumerate(_CELLS)
        for rule in (
            (rf"backbone\.{cell}\.(conv[12])\.(\w+)", rf"encoder.cells.{index}.\1.\2"),
            (rf"backbone\.{cell}\.bn([12])\.{NORM}", rf"encoder.cells.{index}.norm\1.\2"),
        )
    ),
    *(rule for level in range(1, 5) for rule in _level(level)),
    (r"backbone\.conv6\.(\w+)", r"reduce.\1"),
    (r"decode_head\.conv_seg\.(\w+)", r"head.1.\1"),
)


def _entries(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join the three projections of every axis, which are 1 x 1 convolutions, into one."""
    entries = dict(state_dict)
    for key in state_dict:
        query = re.fullmatch(r"(.*\.(?:row|col)_attention_\d)\.query_conv\.(weight|bias)", key)
        if query:
            axis, kind = query.groups()
            names = [f"{axis}.{part}_conv.{kind}" for part in ("query", "key", "value")]
            found = [state_dict[name] for name in names if name in state_dict]
            parts = [part.flatten(1) if kind == "weight" else part for part in found]
            if len(parts) == 3 and len({part.shape for part in parts}) == 1:  # what is left is reported by its name
                entries[f"{axis}.projection.{kind}"] = torch.cat(parts)
                for name in names:
                    del entries[name]
    return entries


FAMILIES = {"hanet": Family(_HANET, _entries, unused=(r"backbone\.c[1-4]_conv\.(weight|bias)",))}
