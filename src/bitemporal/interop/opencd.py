"""Checkpoints of Open-CD and MTKD-CD: their state dicts in the names of this package.

A family is a list of rename rules, tried in order; the first whose pattern matches the whole key decides. Every key of
the checkpoint must be used and every entry of the network filled.
"""

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from bitemporal.errors import WeightsError
from bitemporal.models import create_model

Rules = tuple[tuple[str, str], ...]
"""Pairs of a pattern that a whole key must match, and its replacement."""

_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"

# torchvision's EfficientNet-B4, features[0..3], to timm's; the blocks of its first stage do not expand
_EFFICIENTNET: Rules = (
    (r"backbone\._backbone\.0\.0\.(weight)", r"encoder.conv_stem.\1"),
    (rf"backbone\._backbone\.0\.1\.{_NORM}", r"encoder.bn1.\1"),
    (r"backbone\._backbone\.1\.(\d)\.block\.0\.0\.(weight)", r"encoder.blocks.0.\1.conv_dw.\2"),
    (rf"backbone\._backbone\.1\.(\d)\.block\.0\.1\.{_NORM}", r"encoder.blocks.0.\1.bn1.\2"),
    (r"backbone\._backbone\.1\.(\d)\.block\.1\.fc1\.(\w+)", r"encoder.blocks.0.\1.se.conv_reduce.\2"),
    (r"backbone\._backbone\.1\.(\d)\.block\.1\.fc2\.(\w+)", r"encoder.blocks.0.\1.se.conv_expand.\2"),
    (r"backbone\._backbone\.1\.(\d)\.block\.2\.0\.(weight)", r"encoder.blocks.0.\1.conv_pw.\2"),
    (rf"backbone\._backbone\.1\.(\d)\.block\.2\.1\.{_NORM}", r"encoder.blocks.0.\1.bn2.\2"),
    *(
        rule
        for theirs, ours in ((2, 1), (3, 2))
        for rule in (
            (rf"backbone\._backbone\.{theirs}\.(\d)\.block\.0\.0\.(weight)", rf"encoder.blocks.{ours}.\1.conv_pw.\2"),
            (rf"backbone\._backbone\.{theirs}\.(\d)\.block\.0\.1\.{_NORM}", rf"encoder.blocks.{ours}.\1.bn1.\2"),
            (rf"backbone\._backbone\.{theirs}\.(\d)\.block\.1\.0\.(weight)", rf"encoder.blocks.{ours}.\1.conv_dw.\2"),
            (rf"backbone\._backbone\.{theirs}\.(\d)\.block\.1\.1\.{_NORM}", rf"encoder.blocks.{ours}.\1.bn2.\2"),
            (
                rf"backbone\._backbone\.{theirs}\.(\d)\.block\.2\.fc1\.(\w+)",
                rf"encoder.blocks.{ours}.\1.se.conv_reduce.\2",
            ),
            (
                rf"backbone\._backbone\.{theirs}\.(\d)\.block\.2\.fc2\.(\w+)",
                rf"encoder.blocks.{ours}.\1.se.conv_expand.\2",
            ),
            (rf"backbone\._backbone\.{theirs}\.(\d)\.block\.3\.0\.(weight)", rf"encoder.blocks.{ours}.\1.conv_pwl.\2"),
            (rf"backbone\._backbone\.{theirs}\.(\d)\.block\.3\.1\.{_NORM}", rf"encoder.blocks.{ours}.\1.bn3.\2"),
        )
    ),
)

# convolution and PReLU alternate: entry i.0 is layer 2i, entry i.1 is layer 2i + 1
_MLP = tuple((f"{i}\\.{j}", str(2 * i + j)) for i in range(3) for j in range(2))

_TINYCD: Rules = (
    *_EFFICIENTNET,
    (r"backbone\._first_mix\._mixing\._convmix\.0\.(\w+)", r"image_mask.mixing.conv.\1"),
    (r"backbone\._first_mix\._mixing\._convmix\.1\.(\w+)", r"image_mask.mixing.act.\1"),
    *((rf"backbone\._first_mix\._linear\._linears\.{a}\.(\w+)", rf"image_mask.mlp.{b}.\1") for a, b in _MLP),
    (r"backbone\._mixing_mask\.([01])\._mixing\._convmix\.0\.(\w+)", r"masks.\1.mixing.conv.\2"),
    (r"backbone\._mixing_mask\.([01])\._mixing\._convmix\.1\.(\w+)", r"masks.\1.mixing.act.\2"),
    *((rf"backbone\._mixing_mask\.([01])\._linear\._linears\.{a}\.(\w+)", rf"masks.\1.mlp.{b}.\2") for a, b in _MLP),
    (r"backbone\._mixing_mask\.2\._convmix\.0\.(\w+)", r"mixing.conv.\1"),
    (r"backbone\._mixing_mask\.2\._convmix\.1\.(\w+)", r"mixing.act.\1"),
    (r"backbone\._up\.(\d)\._convolution\.(\d)\.(\w+)", r"up.\1.refine.\2.\3"),
    *((rf"backbone\._classify\._linears\.{a}\.(\w+)", rf"classify.{b}.\1") for a, b in _MLP),
)

# convAB is convolution B of stage A, from 1; the decoder's (suffix d) count down
_FULLY_CONVOLUTIONAL: Rules = (
    *(
        rule
        for stage, convolutions in enumerate((2, 2, 3, 3), start=1)
        for k in range(convolutions)
        for theirs, ours in (
            (f"{stage}{k + 1}", f"encoder.stages.{stage - 1}.{k}"),
            (f"{stage}{convolutions - k}d", f"decoder.stages.{4 - stage}.{k}"),
        )
        if theirs != "11d"
        for rule in (
            (rf"backbone\.conv{theirs}\.(\w+)", rf"{ours}.0.\1"),
            (rf"backbone\.bn{theirs}\.{_NORM}", rf"{ours}.1.\1"),
        )
    ),
    (r"backbone\.conv11d\.(\w+)", r"decoder.stages.3.1.\1"),  # the last one stands alone
    *((rf"backbone\.upconv{stage}\.(\w+)", rf"decoder.up.{4 - stage}.\1") for stage in range(1, 5)),
    (r"decode_head\.conv_seg\.(\w+)", r"head.1.\1"),
)

_CHANGER: Rules = (
    (r"backbone\.layers\.(\d)\.0\.projection\.(\w+)", r"encoder.\1.0.proj.\2"),
    (r"backbone\.layers\.(\d)\.0\.norm\.(\w+)", r"encoder.\1.0.norm.\2"),
    (r"backbone\.layers\.(\d)\.1\.(\d+)\.(norm[12])\.(\w+)", r"encoder.\1.1.\2.\3.\4"),
    (r"backbone\.layers\.(\d)\.1\.(\d+)\.attn\.(q|kv)\.(\w+)", r"encoder.\1.1.\2.attn.\3.\4"),
    (r"backbone\.layers\.(\d)\.1\.(\d+)\.attn\.attn\.out_proj\.(\w+)", r"encoder.\1.1.\2.attn.proj.\3"),
    (r"backbone\.layers\.(\d)\.1\.(\d+)\.attn\.(sr|norm)\.(\w+)", r"encoder.\1.1.\2.attn.\3.\4"),
    (r"backbone\.layers\.(\d)\.1\.(\d+)\.ffn\.layers\.0\.(\w+)", r"encoder.\1.1.\2.mlp.fc1.\3"),
    (r"backbone\.layers\.(\d)\.1\.(\d+)\.ffn\.layers\.1\.(\w+)", r"encoder.\1.1.\2.mlp.dwconv.dwconv.\3"),
    (r"backbone\.layers\.(\d)\.1\.(\d+)\.ffn\.layers\.4\.(\w+)", r"encoder.\1.1.\2.mlp.fc2.\3"),
    (r"backbone\.layers\.(\d)\.2\.(\w+)", r"encoder.\1.2.\2"),
    (r"decode_head\.convs\.(\d)\.conv\.(weight)", r"head.fusion.project.\1.0.\2"),
    (rf"decode_head\.convs\.(\d)\.bn\.{_NORM}", r"head.fusion.project.\1.1.\2"),
    (r"decode_head\.fusion_conv\.conv\.(weight)", r"head.fusion.join.0.\1"),
    (rf"decode_head\.fusion_conv\.bn\.{_NORM}", r"head.fusion.join.1.\1"),
    (r"decode_head\.neck_layer\.flow_make\.([03])\.(\w+)", r"head.alignment.flow.\1.\2"),
    (r"decode_head\.discriminator\.layers\.([01])\.(\w+)", r"head.discriminator.layers.\1.\2"),
    (r"decode_head\.discriminator\.layers\.4\.(\w+)", r"head.discriminator.layers.3.\1"),  # a dropout left out
    (r"decode_head\.conv_seg\.(\w+)", r"head.classify.1.\1"),
)


def _mix_transformer_entries(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split the joint projections into query and key-value, and make the 1 x 1 convolutions of the MLPs linear."""
    entries: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        projection = re.fullmatch(r"(backbone\.layers\..*\.attn)\.attn\.in_proj_(weight|bias)", key)
        if projection and len(value) % 3 == 0:
            third = len(value) // 3
            prefix, kind = projection.groups()
            entries[f"{prefix}.q.{kind}"] = value[:third]
            entries[f"{prefix}.kv.{kind}"] = value[third:]
        elif re.fullmatch(r"backbone\.layers\..*\.ffn\.layers\.[04]\.weight", key):
            entries[key] = value.flatten(1)
        else:
            entries[key] = value
    return entries


def _same_entries(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(state_dict)


_FAMILIES: dict[str, tuple[Rules, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]]] = {
    "fc_ef": (_FULLY_CONVOLUTIONAL, _same_entries),
    "fc_siam_conc": (_FULLY_CONVOLUTIONAL, _same_entries),
    "fc_siam_diff": (_FULLY_CONVOLUTIONAL, _same_entries),
    "tinycd": (_TINYCD, _same_entries),
    "changer_mit_b0": (_CHANGER, _mix_transformer_entries),
}
"""For each network its rules, and what happens to the entries before they are renamed."""


def _rename(rules: Rules, key: str) -> str | None:
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(replacement)
    return None


def _renamed(rules: Rules, state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Entries under their new names, and the keys that no rule knows."""
    renamed: dict[str, Tensor] = {}
    unknown: list[str] = []
    for key, value in state_dict.items():
        name = _rename(rules, key)
        if name is None:
            unknown.append(key)
        else:
            renamed[name] = value
    return renamed, unknown


def convert(name: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the state dict of an Open-CD network.

    Args:
        name: Registered name of the same network here.
        state_dict: As in the checkpoint's ``state_dict`` entry.

    Returns:
        A state dict that ``create_model(name)`` loads strictly.

    Raises:
        WeightsError: When the network has no counterpart in Open-CD, or listing the keys that are left over or missing
            and the shapes that do not fit.
    """
    if name not in _FAMILIES:
        raise WeightsError(f"no Open-CD checkpoint can be read for {name!r}; known are {', '.join(sorted(_FAMILIES))}")
    rules, prepare = _FAMILIES[name]
    converted, unknown = _renamed(rules, prepare(state_dict))
    expected = create_model(name).state_dict()
    problems = [f"not known: {key}" for key in unknown]
    problems += [f"missing: {key}" for key in sorted(expected.keys() - converted.keys())]
    problems += [f"not in the network: {key}" for key in sorted(converted.keys() - expected.keys())]
    problems += [
        f"{key} is {tuple(converted[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in converted and converted[key].shape != value.shape
    ]
    if problems:
        raise WeightsError(
            f"the state dict is not that of Open-CD's {name}; check the name of the network. {len(problems)} entries "
            f"do not fit: {'; '.join(problems)}"
        )
    return converted
