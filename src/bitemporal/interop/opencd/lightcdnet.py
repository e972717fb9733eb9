"""LightCDNet in its three sizes."""

from bitemporal.interop.opencd.rules import NORM, Family, Rules, conv_module

# The reference counts all units and attentions in one list: units 0-3, attention 4, units 5-12, attention 13, units
# 14-17, attention 18. Its outputs are the results of 3, 11 and 15.
_UNITS = (
    *((i, f"encoder.quarter.{i}") for i in range(4)),
    *((5 + i, f"encoder.eighth.{i}") for i in range(7)),
    (12, "encoder.eighth_last"),
    *((14 + i, f"encoder.sixteenth.{i}") for i in range(2)),
)
_ATTENTIONS = ((4, "encoder.quarter_attention"), (13, "encoder.eighth_attention"))

_RULES: Rules = (
    (r"backbone\.conv1\.([01])\.(\w+)", r"dates.stem.\1.\2"),
    (rf"backbone\.fusion_conv\.stages\.0\.([01])\.{NORM}", r"dates.expand.\1.\2"),
    # its units follow the expansion in one list, and are counted from 1
    *(
        (rf"backbone\.fusion_conv\.stages\.{i + 1}\.branch2\.(\d)\.{NORM}", rf"dates.blocks.{i}.branch2.\1.\2")
        for i in range(16)
    ),
    (rf"backbone\.fusion_conv\.single_conv\.([01])\.{NORM}", r"dates.project.\1.\2"),
    (rf"backbone\.fusion_conv\.time_attn\.mlp\.(\d)\.{NORM}", r"fusion.weights.\1.\2"),
    (rf"backbone\.fusion_conv\.final_conv\.([01])\.{NORM}", r"fusion.join.\1.\2"),
    *((rf"backbone\.stages\.{i}\.(branch[12])\.(\d)\.{NORM}", rf"{ours}.\1.\2.\3") for i, ours in _UNITS),
    *(
        rule
        for i, ours in _ATTENTIONS
        for rule in (
            (rf"backbone\.stages\.{i}\.cca\.(query|key|value)_conv\.(\w+)", rf"{ours}.\1.\2"),
            (rf"backbone\.stages\.{i}\.cca\.gamma\.scale", rf"{ours}.scale"),
        )
    ),
    (r"neck\.lateral_convs\.(\d)\.conv\.(\w+)", r"pyramid.lateral.\1.\2"),
    (r"neck\.fpn_convs\.(\d)\.conv\.(\w+)", r"pyramid.refine.\1.\2"),
    (r"decode_head\.scale_heads\.(\d)\.0\.conv\.(weight)", r"sum.project.\1.0.\2"),
    (rf"decode_head\.scale_heads\.(\d)\.0\.bn\.{NORM}", r"sum.project.\1.1.\2"),
    (r"decode_head\.conv_seg\.(\w+)", r"classify.1.\1"),
    *conv_module(r"auxiliary_head\.convs\.0", "auxiliary.0"),
    (r"auxiliary_head\.conv_seg\.(\w+)", r"auxiliary.1.1.\1"),
)

_UNUSED = (r"backbone\.stages\.(16|17|18)\..+",)

FAMILIES = {name: Family(_RULES, unused=_UNUSED) for name in ("lightcdnet_s", "lightcdnet_b", "lightcdnet_l")}
