"""TTP: mmpretrain's ViTSAM with the layers that peft puts around its projections."""

from bitemporal.interop.opencd.rules import Rules, conv_module, under

_ENCODER = "backbone.vision_encoder.base_model.model"
_LAYER = {
    "ln*": "norm*",
    "attn.qkv.base_layer": "attn.qkv",
    "attn.qkv.lora_A.default.weight": "attn.qkv.down",
    "attn.qkv.lora_B.default.weight": "attn.qkv.up",
    "attn": "attn",
    "ffn.layers.0.0": "mlp.fc1",
    "ffn.layers.1": "mlp.fc2",
    "down_channel": "fusion.gate",
    "soft_ffn": "fusion.mix",
}

_TTP: Rules = {
    f"{_ENCODER}.pos_embed": "encoder.pos_embed",
    f"{_ENCODER}.patch_embed.projection": "encoder.patch_embed",
    **under(f"{_ENCODER}.layers.*", "encoder.blocks.*", _LAYER),
    f"{_ENCODER}.channel_reduction": "encoder.neck",
    "neck.necks.1.fpn1": "neck.scale.0",
    "neck.necks.1.fpn2.0": "neck.scale.1",
    **under("neck.necks.1.lateral_convs.*", "neck.project.*.0", {"conv": "0", "ln": "1"}),
    **under("neck.necks.1.fpn_convs.*", "neck.project.*.1", {"conv": "0", "ln": "1"}),
    **conv_module("decode_head.convs.*", "head.project.*"),
    **conv_module("decode_head.fusion_conv", "head.join"),
    "decode_head.conv_seg": "head.classify.1",
}

FAMILIES = {"ttp": _TTP}
