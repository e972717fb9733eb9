"""TinyCDv2 in its three sizes."""

from collections.abc import Mapping

from torch import Tensor

from bitemporal.interop.opencd.rules import NORM, Family, Rules, conv_module

_BLOCK = r"backbone\.fusion_block\.stem\.(\d)"

_RULES: Rules = (
    *conv_module(r"backbone\.conv1", "fusion.stem"),
    (rf"{_BLOCK}\.conv\.([01])\.conv\.(weight)", r"fusion.blocks.\1.expand.\2.0.\3"),
    (rf"{_BLOCK}\.conv\.([01])\.bn\.{NORM}", r"fusion.blocks.\1.expand.\2.1.\3"),
    (rf"{_BLOCK}\.interact\.fc_reduce\.(weight)", r"fusion.blocks.\1.attention.weights.0.\2"),
    (rf"{_BLOCK}\.interact\.bn\.{NORM}", r"fusion.blocks.\1.attention.weights.1.\2"),
    (rf"{_BLOCK}\.interact\.fc_select\.(weight)", r"fusion.blocks.\1.attention.weights.3.\2"),
    (rf"{_BLOCK}\.post_conv\.conv\.(weight)", r"fusion.blocks.\1.project.0.\2"),
    (rf"{_BLOCK}\.post_conv\.bn\.{NORM}", r"fusion.blocks.\1.project.1.\2"),
    (r"backbone\.fusion_block\.pseudo_fusion\.([013])\.(\w+)", r"fusion.join.\1.\2"),
    *(
        rule
        for i in range(4)
        for rule in (
            (rf"backbone\.layer{i + 1}\.(\d)\.conv\.([01])\.conv\.(weight)", rf"stages.{i}.\1.conv.\2.0.\3"),
            (rf"backbone\.layer{i + 1}\.(\d)\.conv\.([01])\.bn\.{NORM}", rf"stages.{i}.\1.conv.\2.1.\3"),
            (rf"backbone\.layer{i + 1}\.(\d)\.conv\.3\.conv\.(weight)", rf"stages.{i}.\1.conv.2.\2"),
            (rf"backbone\.layer{i + 1}\.(\d)\.conv\.3\.bn\.{NORM}", rf"stages.{i}.\1.conv.3.\2"),
            (rf"backbone\.layer{i + 1}\.(\d)\.layer_scale", rf"stages.{i}.\1.scale"),
            (rf"backbone\.layer{i + 1}\.(\d)\.global_\.([012])\.(\w+)", rf"stages.{i}.\1.strips.\2.\3"),
            (rf"backbone\.layer{i + 1}\.(\d)\.v\.(\w+)", rf"stages.{i}.\1.value.\2"),
            (rf"backbone\.layer{i + 1}\.(\d)\.proj\.(\w+)", rf"stages.{i}.\1.project.\2"),
            (rf"backbone\.layer{i + 1}\.(\d)\.norm\.(\w+)", rf"stages.{i}.\1.norm.\2"),
        )
    ),
    (r"neck\.lateral_convs\.(\d)\.conv\.(\w+)", r"pyramid.lateral.\1.\2"),
    (r"neck\.fpn_convs\.(\d)\.conv\.0\.conv\.(weight)", r"pyramid.refine.\1.conv.0.0.\2"),
    (rf"neck\.fpn_convs\.(\d)\.conv\.0\.bn\.{NORM}", r"pyramid.refine.\1.conv.0.1.\2"),
    (r"neck\.fpn_convs\.(\d)\.conv\.2\.conv\.(weight)", r"pyramid.refine.\1.conv.1.\2"),
    (rf"neck\.fpn_convs\.(\d)\.conv\.2\.bn\.{NORM}", r"pyramid.refine.\1.conv.2.\2"),
    (r"decode_head\.scale_heads\.(\d)\.0\.conv\.(weight)", r"head.sum.project.\1.0.\2"),
    (rf"decode_head\.scale_heads\.(\d)\.0\.bn\.{NORM}", r"head.sum.project.\1.1.\2"),
    (r"decode_head\.gen_diff_attn\.conv\.(\w+)", r"head.difference.\1"),
    (r"decode_head\.conv_seg\.(\w+)", r"head.classify.1.\1"),
)


def _scales_by_pixel(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the scales of channels the two dimensions of pixels that they have here."""
    return {
        key: value[:, None, None] if key.endswith(".layer_scale") and value.dim() == 1 else value
        for key, value in state_dict.items()
    }


FAMILIES = {name: Family(_RULES, _scales_by_pixel) for name in ("tinycd_v2_s", "tinycd_v2_b", "tinycd_v2_l")}
