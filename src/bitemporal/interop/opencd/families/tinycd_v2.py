"""TinyCDv2 in its three sizes."""

from bitemporal.interop.opencd.rules import Rules, conv_module, under

_BLOCK = "backbone.fusion_block.stem.*"
_LAYER = {
    "conv.3.conv": "conv.2",
    "conv.3.bn": "conv.3",
    "conv.*.conv": "conv.*.0",
    "conv.*.bn": "conv.*.1",
    "layer_scale": "scale",
    "global_": "strips",
    "v": "value",
    "proj": "project",
    "norm": "norm",
}

_TINYCD_V2: Rules = {
    **conv_module("backbone.conv1", "fusion.stem"),
    **conv_module(f"{_BLOCK}.conv.*", "fusion.blocks.*.expand.*"),
    f"{_BLOCK}.interact.fc_reduce": "fusion.blocks.*.attention.weights.0",
    f"{_BLOCK}.interact.bn": "fusion.blocks.*.attention.weights.1",
    f"{_BLOCK}.interact.fc_select": "fusion.blocks.*.attention.weights.3",
    **conv_module(f"{_BLOCK}.post_conv", "fusion.blocks.*.project"),
    "backbone.fusion_block.pseudo_fusion": "fusion.join",
    **under("backbone.layer1.*", "stages.0.*", _LAYER),
    **under("backbone.layer2.*", "stages.1.*", _LAYER),
    **under("backbone.layer3.*", "stages.2.*", _LAYER),
    **under("backbone.layer4.*", "stages.3.*", _LAYER),
    "neck.lateral_convs.*.conv": "pyramid.lateral.*",
    **conv_module("neck.fpn_convs.*.conv.0", "pyramid.refine.*.conv.0"),
    "neck.fpn_convs.*.conv.2.conv": "pyramid.refine.*.conv.1",
    "neck.fpn_convs.*.conv.2.bn": "pyramid.refine.*.conv.2",
    **conv_module("decode_head.scale_heads.*.0", "head.sum.project.*"),
    "decode_head.gen_diff_attn.conv": "head.difference",
    "decode_head.conv_seg": "head.classify.1",
}

FAMILIES = dict.fromkeys(("tinycd_v2_s", "tinycd_v2_b", "tinycd_v2_l"), _TINYCD_V2)
