"""Changer on all its encoders."""

from bitemporal.interop.opencd.rules import (
    Family,
    Rules,
    fusion,
    mix_feed_forward,
    mix_transformer,
    mix_transformer_entries,
    resnet,
)

_HEAD: Rules = (
    *fusion(r"decode_head\.", "head.fusion"),
    (r"decode_head\.neck_layer\.flow_make\.([03])\.(\w+)", r"head.alignment.flow.\1.\2"),
    *mix_feed_forward(r"decode_head\.discriminator\.", "head.discriminator"),
    (r"decode_head\.conv_seg\.(\w+)", r"head.classify.1.\1"),
)

FAMILIES = {
    **{
        name: Family((*mix_transformer(r"backbone\."), *_HEAD), mix_transformer_entries)
        for name in ("changer_mit_b0", "changer_mit_b1")
    },
    **{name: Family((*resnet(r"backbone\."), *_HEAD)) for name in ("changer_r18", "changer_s50", "changer_s101")},
}
