"""BAN on all its foundation models and side networks."""

import re
from collections.abc import Mapping

from torch import Tensor

from bitemporal.interop.opencd.bit import token_decoder
from bitemporal.interop.opencd.rules import (
    Family,
    Rules,
    fusion,
    mix_feed_forward,
    mix_transformer,
    mix_transformer_entries,
    resnet,
)

_SIDE = r"decode_head\.side_adapter_network\."
_DECODER = r"decode_head\.mask_decoder\."

_FOUNDATION: Rules = (
    (r"image_encoder\.(cls_token|pos_embed)", r"foundation.vit.\1"),
    (r"image_encoder\.patch_embed\.projection\.(\w+)", r"foundation.vit.patch_embed.proj.\1"),
    (r"image_encoder\.ln_pre\.(\w+)", r"foundation.vit.norm_pre.\1"),
    (r"image_encoder\.layers\.(\d+)\.ln([12])\.(\w+)", r"foundation.vit.blocks.\1.norm\2.\3"),
    (r"image_encoder\.layers\.(\d+)\.attn\.attn\.in_proj_(\w+)", r"foundation.vit.blocks.\1.attn.qkv.\2"),
    (r"image_encoder\.layers\.(\d+)\.attn\.attn\.out_proj\.(\w+)", r"foundation.vit.blocks.\1.attn.proj.\2"),
    (r"image_encoder\.layers\.(\d+)\.ffn\.layers\.0\.0\.(\w+)", r"foundation.vit.blocks.\1.mlp.fc1.\2"),
    (r"image_encoder\.layers\.(\d+)\.ffn\.layers\.1\.(\w+)", r"foundation.vit.blocks.\1.mlp.fc2.\2"),
)

_BRIDGES: Rules = (
    (rf"{_SIDE}conv_clips\.(\d)\.0\.(\w+)", r"bridges.\1.project.0.\2"),
    (rf"{_SIDE}conv_clips\.(\d)\.1\.conv\.(\w+)", r"bridges.\1.project.1.\2"),
    (rf"{_SIDE}clip_attns\.(\d)\.norm([12])\.(\w+)", r"bridges.\1.norm\2.\3"),
    (rf"{_SIDE}clip_attns\.(\d)\.attn\.attn\.([\w.]+)", r"bridges.\1.attention.\2"),
    *mix_feed_forward(rf"{_SIDE}clip_attns\.(\d)\.ffn\.", r"bridges.\1.feed"),
)

_MIX_TRANSFORMER: Rules = (
    *_FOUNDATION,
    *_BRIDGES,
    *mix_transformer(rf"{_SIDE}side_encoder\.", "side"),
    *fusion(_DECODER, "decoder.fusion"),
    *mix_feed_forward(rf"{_DECODER}discriminator\.", "decoder.discriminator"),
    (rf"{_DECODER}conv_seg\.(\w+)", r"decoder.classify.1.\1"),
)

_BIT: Rules = (
    *_FOUNDATION,
    *_BRIDGES,
    *resnet(rf"{_SIDE}side_encoder\.", "side"),
    *token_decoder(_DECODER),
    (rf"{_DECODER}conv_seg\.(\w+)", r"decoder.classify.\1"),
)


def _entries(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make the 1 x 1 convolutions of tokens linear; then as for every Mix Transformer."""
    return mix_transformer_entries(
        {
            key: value.flatten(1) if re.fullmatch(rf"{_SIDE}conv_clips\.\d\.1\.conv\.weight", key) else value
            for key, value in state_dict.items()
        }
    )


FAMILIES = {
    **{
        name: Family(_MIX_TRANSFORMER, _entries)
        for name in (
            "ban_b16_clip_mit_b0",
            "ban_b16_clip_mit_b1",
            "ban_b16_clip_mit_b2",
            "ban_b16_in21k_mit_b0",
            "ban_b32_georsclip_mit_b0",
            "ban_l14_clip_mit_b0",
            "ban_l14_clip_mit_b1",
            "ban_l14_clip_mit_b2",
        )
    },
    **{name: Family(_BIT, _entries) for name in ("ban_b16_clip_bit", "ban_l14_clip_bit")},
}
