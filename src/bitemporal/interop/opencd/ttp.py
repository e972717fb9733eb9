"""TTP: mmpretrain's ViTSAM with the layers that peft puts around its projections."""

from bitemporal.interop.opencd.rules import NORM, Family, Rules

_ENCODER = r"backbone\.vision_encoder\.base_model\.model\."
_LAYER = rf"{_ENCODER}layers\.(\d+)\."

_RULES: Rules = (
    (rf"{_ENCODER}pos_embed", r"encoder.pos_embed"),
    (rf"{_ENCODER}patch_embed\.projection\.(\w+)", r"encoder.patch_embed.\1"),
    (rf"{_LAYER}ln([12])\.(\w+)", r"encoder.blocks.\1.norm\2.\3"),
    (rf"{_LAYER}attn\.(rel_pos_[hw]|proj\.\w+)", r"encoder.blocks.\1.attn.\2"),
    (rf"{_LAYER}attn\.qkv\.base_layer\.(\w+)", r"encoder.blocks.\1.attn.qkv.\2"),
    (rf"{_LAYER}attn\.qkv\.lora_A\.default\.weight", r"encoder.blocks.\1.attn.qkv.down"),
    (rf"{_LAYER}attn\.qkv\.lora_B\.default\.weight", r"encoder.blocks.\1.attn.qkv.up"),
    (rf"{_LAYER}ffn\.layers\.0\.0\.(\w+)", r"encoder.blocks.\1.mlp.fc1.\2"),
    (rf"{_LAYER}ffn\.layers\.1\.(\w+)", r"encoder.blocks.\1.mlp.fc2.\2"),
    (rf"{_LAYER}down_channel\.(weight)", r"encoder.blocks.\1.fusion.gate.\2"),
    (rf"{_LAYER}soft_ffn\.([02])\.(\w+)", r"encoder.blocks.\1.fusion.mix.\2.\3"),
    (rf"{_ENCODER}channel_reduction\.(\d)\.(\w+)", r"encoder.neck.\1.\2"),
    (r"neck\.necks\.1\.fpn1\.(\d)\.(\w+)", r"neck.scale.0.\1.\2"),
    (r"neck\.necks\.1\.fpn2\.0\.(\w+)", r"neck.scale.1.\1"),
    *(
        (rf"neck\.necks\.1\.{theirs}\.(\d)\.{part}\.(\w+)", rf"neck.project.\1.{ours}.{layer}.\2")
        for ours, theirs in enumerate(("lateral_convs", "fpn_convs"))
        for layer, part in enumerate(("conv", "ln"))
    ),
    (r"decode_head\.convs\.(\d)\.conv\.(weight)", r"head.project.\1.0.\2"),
    (rf"decode_head\.convs\.(\d)\.bn\.{NORM}", r"head.project.\1.1.\2"),
    (r"decode_head\.fusion_conv\.conv\.(weight)", r"head.join.0.\1"),
    (rf"decode_head\.fusion_conv\.bn\.{NORM}", r"head.join.1.\1"),
    (r"decode_head\.conv_seg\.(\w+)", r"head.classify.1.\1"),
)


FAMILIES = {"ttp": Family(_RULES)}
