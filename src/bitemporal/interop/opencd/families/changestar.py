"""ChangeStar on FarSeg and on UPerNet."""

from bitemporal.interop.opencd.rules import Rules, conv_module, resnet

_CHANGESTAR: Rules = {
    **resnet("backbone", "features.encoder"),
    "decode_head.changemixin.convs.0": "mix",
    "decode_head.conv_seg": "classify.1",
}

_HEAD = "decode_head.seg_head"
_FARSEG: Rules = {
    **_CHANGESTAR,
    "neck.lateral_convs.*.conv": "features.decoder.pyramid.lateral.*",
    "neck.fpn_convs.*.conv": "features.decoder.pyramid.refine.*",
    f"{_HEAD}._fsr.scene_encoder.*": "features.decoder.relate.*.scene",
    **conv_module(f"{_HEAD}._fsr.content_encoders.*.0", "features.decoder.relate.*.content"),
    **conv_module(f"{_HEAD}._fsr.feature_reencoders.*.0", "features.decoder.relate.*.encode"),
    # every second layer here doubles the size
    **conv_module(f"{_HEAD}._decoder.blocks.*.0.0", "features.decoder.decode.*.0"),
    **conv_module(f"{_HEAD}._decoder.blocks.*.1.0", "features.decoder.decode.*.2"),
    **conv_module(f"{_HEAD}._decoder.blocks.*.2.0", "features.decoder.decode.*.4"),
}

_UPERNET: Rules = {
    **_CHANGESTAR,
    **conv_module(f"{_HEAD}.psp_modules.*.1", "features.decoder.pool.project.*"),
    **conv_module(f"{_HEAD}.bottleneck", "features.decoder.pool.join"),
    **conv_module(f"{_HEAD}.lateral_convs.*", "features.decoder.lateral.*"),
    **conv_module(f"{_HEAD}.fpn_convs.*", "features.decoder.refine.*"),
    **conv_module(f"{_HEAD}.fpn_bottleneck", "features.decoder.join"),
}

FAMILIES = {"changestar_farseg": _FARSEG, "changestar_upernet": _UPERNET}
