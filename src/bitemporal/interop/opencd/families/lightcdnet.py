"""LightCDNet in its three sizes."""

from bitemporal.interop.opencd.rules import Rules, conv_module

_LIGHTCDNET: Rules = {
    "backbone.conv1": "dates.stem",
    "backbone.fusion_conv.stages.0": "dates.expand",
    # these units follow the expansion in one list
    **{f"backbone.fusion_conv.stages.{i + 1}": f"dates.blocks.{i}" for i in range(16)},
    "backbone.fusion_conv.single_conv": "dates.project",
    "backbone.fusion_conv.time_attn.mlp": "fusion.weights",
    "backbone.fusion_conv.final_conv": "fusion.join",
    # units 0-3, attention 4, units 5-12, attention 13, units 14-17, attention 18; the results of 3, 11 and 15 are used
    **{f"backbone.stages.{i}": f"encoder.quarter.{i}" for i in range(4)},
    **{f"backbone.stages.{i + 5}": f"encoder.eighth.{i}" for i in range(7)},
    "backbone.stages.12": "encoder.eighth_last",
    **{f"backbone.stages.{i + 14}": f"encoder.sixteenth.{i}" for i in range(2)},
    "backbone.stages.4.cca.*_conv": "encoder.quarter_attention.*",
    "backbone.stages.4.cca.gamma": "encoder.quarter_attention",
    "backbone.stages.13.cca.*_conv": "encoder.eighth_attention.*",
    "backbone.stages.13.cca.gamma": "encoder.eighth_attention",
    "backbone.stages.16": None,
    "backbone.stages.17": None,
    "backbone.stages.18": None,
    "neck.lateral_convs.*.conv": "pyramid.lateral.*",
    "neck.fpn_convs.*.conv": "pyramid.refine.*",
    **conv_module("decode_head.scale_heads.*.0", "sum.project.*"),
    "decode_head.conv_seg": "classify.1",
    **conv_module("auxiliary_head.convs.0", "auxiliary.0"),
    "auxiliary_head.conv_seg": "auxiliary.1.1",
}

FAMILIES = dict.fromkeys(("lightcdnet_s", "lightcdnet_b", "lightcdnet_l"), _LIGHTCDNET)
