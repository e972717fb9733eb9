"""BAN on all its foundation models and side networks."""

from bitemporal.interop.opencd.families.bit import token_decoder
from bitemporal.interop.opencd.rules import Rules, fusion, mix_feed_forward, mix_transformer, resnet

_SIDE = "decode_head.side_adapter_network"
_DECODER = "decode_head.mask_decoder"

_COMMON: Rules = {
    "image_encoder.cls_token": "foundation.vit.cls_token",
    "image_encoder.pos_embed": "foundation.vit.pos_embed",
    "image_encoder.patch_embed.projection": "foundation.vit.patch_embed.proj",
    "image_encoder.ln_pre": "foundation.vit.norm_pre",
    "image_encoder.layers.*.ln*": "foundation.vit.blocks.*.norm*",
    "image_encoder.layers.*.attn.attn.in_proj_*": "foundation.vit.blocks.*.attn.qkv.*",
    "image_encoder.layers.*.attn.attn.out_proj": "foundation.vit.blocks.*.attn.proj",
    "image_encoder.layers.*.ffn.layers.0.0": "foundation.vit.blocks.*.mlp.fc1",
    "image_encoder.layers.*.ffn.layers.1": "foundation.vit.blocks.*.mlp.fc2",
    f"{_SIDE}.conv_clips.*.0": "bridges.*.project.0",
    f"{_SIDE}.conv_clips.*.1.conv": "bridges.*.project.1",
    f"{_SIDE}.clip_attns.*.norm*": "bridges.*.norm*",
    f"{_SIDE}.clip_attns.*.attn.attn": "bridges.*.attention",
    **mix_feed_forward(f"{_SIDE}.clip_attns.*.ffn", "bridges.*.feed"),
}

_MIX_TRANSFORMER: Rules = {
    **_COMMON,
    **mix_transformer(f"{_SIDE}.side_encoder", "side"),
    **fusion(_DECODER, "decoder.fusion"),
    **mix_feed_forward(f"{_DECODER}.discriminator", "decoder.discriminator"),
    f"{_DECODER}.conv_seg": "decoder.classify.1",
}

_BIT: Rules = {
    **_COMMON,
    **resnet(f"{_SIDE}.side_encoder", "side"),
    **token_decoder(_DECODER),
    f"{_DECODER}.conv_seg": "decoder.classify",
}

FAMILIES = dict.fromkeys(("ban_b16_in21k_mit_b0", "ban_b32_georsclip_mit_b0"), _MIX_TRANSFORMER)
for clip in ("ban_b16_clip", "ban_l14_clip"):
    FAMILIES |= {f"{clip}_{side}": _MIX_TRANSFORMER for side in ("mit_b0", "mit_b1", "mit_b2")}
    FAMILIES[f"{clip}_bit"] = _BIT
