"""What the renaming tables of the families are made of."""

Rules = dict[str, str | tuple[str, ...] | None]
"""A table from the names of entries in the reference to their names here; the first pattern that matches decides.

A pattern stands for the entry of that name and for all entries below it; whatever follows the pattern is kept. Each
``*`` stands for one or more characters other than a dot, which take the place of the corresponding ``*`` in the name
here. Tensors whose shapes differ only by dimensions of size 1 fit each other: a 1 x 1 convolution there may be a linear
layer here. Beyond renaming:

- Entries that get the same name are concatenated along the first dimension, in the order of the table.
- With a tuple of names, the entry is split along the first dimension.
- ``None`` stands for layers whose results the reference does not use; the network here does not have them.
"""


def under(theirs: str, ours: str, rules: dict[str, str]) -> Rules:
    """The same rules below a prefix.

    Args:
        theirs: Prefix in the reference.
        ours: Prefix here.
        rules: Rules without the prefixes.
    """
    return {f"{theirs}.{key}": f"{ours}.{name}" for key, name in rules.items()}


def conv_module(theirs: str, ours: str) -> Rules:
    """Rules of an mmcv ``ConvModule`` with batch normalisation, which is ``Sequential(conv, norm, act)`` here."""
    return under(theirs, ours, {"conv": "0", "bn": "1"})


def mix_transformer(theirs: str, ours: str = "encoder") -> Rules:
    """Rules of mmseg's ``MixVisionTransformer``; its joint projections are query and key-value here."""
    block = {
        "norm*": "norm*",
        "attn.attn.out_proj": "attn.proj",
        "attn.sr": "attn.sr",
        "attn.norm": "attn.norm",
        "ffn.layers.0": "mlp.fc1",
        "ffn.layers.1": "mlp.dwconv.dwconv",
        "ffn.layers.4": "mlp.fc2",
    }
    return {
        f"{theirs}.layers.*.0.projection": f"{ours}.*.0.proj",
        f"{theirs}.layers.*.0.norm": f"{ours}.*.0.norm",
        f"{theirs}.layers.*.1.*.attn.attn.in_proj_*": (f"{ours}.*.1.*.attn.q.*", f"{ours}.*.1.*.attn.kv.*"),
        **under(f"{theirs}.layers.*.1.*", f"{ours}.*.1.*", block),
        f"{theirs}.layers.*.2": f"{ours}.*.2",
    }


def resnet(theirs: str, ours: str = "encoder") -> Rules:
    """Rules of mmseg's ``ResNetV1c`` and ``ResNeSt`` (deep stem), which are ``encoders.resnet_v1c`` here."""
    return {
        f"{theirs}.stem.7": f"{ours}.0.bn1",
        f"{theirs}.stem.*": f"{ours}.0.conv1.*",
        **{f"{theirs}.layer{i + 1}": f"{ours}.{i}.blocks" for i in range(4)},
    }


def fusion(theirs: str, ours: str) -> Rules:
    """Rules of the levels that SegFormer's head joins, which are ``layers.Fusion`` here."""
    return {
        **conv_module(f"{theirs}.convs.*", f"{ours}.project.*"),
        **conv_module(f"{theirs}.fusion_conv", f"{ours}.join"),
    }


def mix_feed_forward(theirs: str, ours: str) -> Rules:
    """Rules of Open-CD's ``MixFFN``, which is ``layers.MixFeedForward`` here, without a dropout."""
    return under(f"{theirs}.layers", f"{ours}.layers", {"0": "0", "1": "1", "4": "3"})
