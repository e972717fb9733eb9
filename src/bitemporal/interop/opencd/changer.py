"""Changer on all its encoders."""

from bitemporal.interop.opencd.rules import NORM, Family, Rules, mix_transformer, mix_transformer_entries

_HEAD: Rules = (
    (r"decode_head\.convs\.(\d)\.conv\.(weight)", r"head.fusion.project.\1.0.\2"),
    (rf"decode_head\.convs\.(\d)\.bn\.{NORM}", r"head.fusion.project.\1.1.\2"),
    (r"decode_head\.fusion_conv\.conv\.(weight)", r"head.fusion.join.0.\1"),
    (rf"decode_head\.fusion_conv\.bn\.{NORM}", r"head.fusion.join.1.\1"),
    (r"decode_head\.neck_layer\.flow_make\.([03])\.(\w+)", r"head.alignment.flow.\1.\2"),
    (r"decode_head\.discriminator\.layers\.([01])\.(\w+)", r"head.discriminator.layers.\1.\2"),
    (r"decode_head\.discriminator\.layers\.4\.(\w+)", r"head.discriminator.layers.3.\1"),  # a dropout left out
    (r"decode_head\.conv_seg\.(\w+)", r"head.classify.1.\1"),
)

FAMILIES = {"changer_mit_b0": Family((*mix_transformer(r"backbone\."), *_HEAD), mix_transformer_entries)}
