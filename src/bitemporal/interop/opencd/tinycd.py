"""TinyCD: the reference's encoder is torchvision's EfficientNet-B4."""

from bitemporal.interop.opencd.rules import NORM, Family, Rules

# torchvision's EfficientNet-B4, features[0..3], to timm's; the blocks of its first stage do not expand
_EFFICIENTNET: Rules = (
    (r"backbone\._backbone\.0\.0\.(weight)", r"encoder.conv_stem.\1"),
    (rf"backbone\._backbone\.0\.1\.{NORM}", r"encoder.bn1.\1"),
    (r"backbone\._backbone\.1\.(\d)\.block\.0\.0\.(weight)", r"encoder.blocks.0.\1.conv_dw.\2"),
    (rf"backbone\._backbone\.1\.(\d)\.block\.0\.1\.{NORM}", r"encoder.blocks.0.\1.bn1.\2"),
    (r"backbone\._backbone\.1\.(\d)\.block\.1\.fc1\.(\w+)", r"encoder.blocks.0.\1.se.conv_reduce.\2"),
    (r"backbone\._backbone\.1\.(\d)\.block\.1\.fc2\.(\w+)", r"encoder.blocks.0.\1.se.conv_expand.\2"),
    (r"backbone\._backbone\.1\.(\d)\.block\.2\.0\.(weight)", r"encoder.blocks.0.\1.conv_pw.\2"),
    (rf"backbone\._backbone\.1\.(\d)\.block\.2\.1\.{NORM}", r"encoder.blocks.0.\1.bn2.\2"),
    *(
        rule
        for theirs, ours in ((2, 1), (3, 2))
        for rule in (
            (rf"backbone\._backbone\.{theirs}\.(\d)\.block\.0\.0\.(weight)", rf"encoder.blocks.{ours}.\1.conv_pw.\2"),
            (rf"backbone\._backbone\.{theirs}\.(\d)\.block\.0\.1\.{NORM}", rf"encoder.blocks.{ours}.\1.bn1.\2"),
            (rf"backbone\._backbone\.{theirs}\.(\d)\.block\.1\.0\.(weight)", rf"encoder.blocks.{ours}.\1.conv_dw.\2"),
            (rf"backbone\._backbone\.{theirs}\.(\d)\.block\.1\.1\.{NORM}", rf"encoder.blocks.{ours}.\1.bn2.\2"),
            (
                rf"backbone\._backbone\.{theirs}\.(\d)\.block\.2\.fc1\.(\w+)",
                rf"encoder.blocks.{ours}.\1.se.conv_reduce.\2",
            ),
            (
                rf"backbone\._backbone\.{theirs}\.(\d)\.block\.2\.fc2\.(\w+)",
                rf"encoder.blocks.{ours}.\1.se.conv_expand.\2",
            ),
            (rf"backbone\._backbone\.{theirs}\.(\d)\.block\.3\.0\.(weight)", rf"encoder.blocks.{ours}.\1.conv_pwl.\2"),
            (rf"backbone\._backbone\.{theirs}\.(\d)\.block\.3\.1\.{NORM}", rf"encoder.blocks.{ours}.\1.bn3.\2"),
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

FAMILIES = {"tinycd": Family(_TINYCD)}
