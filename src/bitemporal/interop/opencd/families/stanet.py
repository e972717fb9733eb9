"""STANet with every attention."""

from bitemporal.interop.opencd.rules import Rules, conv_module, resnet

_BASE: Rules = {
    **resnet("backbone", "features.encoder"),
    **conv_module("decode_head.fpn_convs.*", "features.fusion.project.*"),
    **conv_module("decode_head.fpn_bottleneck.0", "features.fusion.join.0"),
    **conv_module("decode_head.fpn_bottleneck.2", "features.fusion.join.2"),
}
_BAM: Rules = {
    **_BASE,
    "decode_head.netA.Self_Att.gamma": None,
    "decode_head.netA.Self_Att.value_conv": "attention.attention.value",
    "decode_head.netA.Self_Att.*_conv": "attention.attention.*.0",
}
_PAM: Rules = {
    **_BASE,
    "decode_head.netA.Self_Att.stages.*.f_*": "attention.scales.*.*",
    "decode_head.netA.Self_Att.conv_bn.0": "attention.join",
}

FAMILIES = {"stanet_base": _BASE, "stanet_bam": _BAM, "stanet_pam": _PAM}
