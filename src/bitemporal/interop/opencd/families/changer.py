"""Changer on all its encoders."""

from bitemporal.interop.opencd.rules import Rules, fusion, mix_feed_forward, mix_transformer, resnet

_HEAD: Rules = {
    **fusion("decode_head", "head.fusion"),
    "decode_head.neck_layer.flow_make": "head.alignment.flow",
    **mix_feed_forward("decode_head.discriminator", "head.discriminator"),
    "decode_head.conv_seg": "head.classify.1",
}

_MIX_TRANSFORMER: Rules = {**mix_transformer("backbone"), **_HEAD}
_RESNET: Rules = {**resnet("backbone"), **_HEAD}

FAMILIES = {
    **dict.fromkeys(("changer_mit_b0", "changer_mit_b1"), _MIX_TRANSFORMER),
    **dict.fromkeys(("changer_r18", "changer_s50", "changer_s101"), _RESNET),
}
