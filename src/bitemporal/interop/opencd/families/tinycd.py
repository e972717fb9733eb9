"""TinyCD: the reference's encoder is torchvision's EfficientNet-B4."""

from bitemporal.interop.opencd.rules import Rules, under

# torchvision's EfficientNet-B4, features[0..3], to timm's; the blocks of its first stage do not expand
_FIRST_STAGE = {
    "block.0.0": "conv_dw",
    "block.0.1": "bn1",
    "block.1.fc1": "se.conv_reduce",
    "block.1.fc2": "se.conv_expand",
    "block.2.0": "conv_pw",
    "block.2.1": "bn2",
}
_STAGE = {
    "block.0.0": "conv_pw",
    "block.0.1": "bn1",
    "block.1.0": "conv_dw",
    "block.1.1": "bn2",
    "block.2.fc1": "se.conv_reduce",
    "block.2.fc2": "se.conv_expand",
    "block.3.0": "conv_pwl",
    "block.3.1": "bn3",
}
_MIXING = {"_convmix.0": "mixing.conv", "_convmix.1": "mixing.act"}
# convolution and PReLU alternate
_MLP = {f"_linears.{i}.{j}": f"{2 * i + j}" for i in range(3) for j in range(2)}
_MASK = {
    **{f"_mixing.{theirs}": ours for theirs, ours in _MIXING.items()},
    **{f"_linear.{theirs}": f"mlp.{ours}" for theirs, ours in _MLP.items()},
}

_TINYCD: Rules = {
    "backbone._backbone.0.0": "encoder.conv_stem",
    "backbone._backbone.0.1": "encoder.bn1",
    **under("backbone._backbone.1.*", "encoder.blocks.0.*", _FIRST_STAGE),
    **under("backbone._backbone.2.*", "encoder.blocks.1.*", _STAGE),
    **under("backbone._backbone.3.*", "encoder.blocks.2.*", _STAGE),
    **under("backbone._first_mix", "image_mask", _MASK),
    "backbone._mixing_mask.2._convmix.0": "mixing.conv",
    "backbone._mixing_mask.2._convmix.1": "mixing.act",
    **under("backbone._mixing_mask.*", "masks.*", _MASK),
    "backbone._up.*._convolution": "up.*.refine",
    **under("backbone._classify", "classify", _MLP),
}

FAMILIES = {"tinycd": _TINYCD}
