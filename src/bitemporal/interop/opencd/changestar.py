"""ChangeStar on FarSeg and on UPerNet."""

from bitemporal.interop.opencd.rules import NORM, Family, Rules, conv_module, resnet

_CHANGESTAR: Rules = (
    *resnet(r"backbone\.", "features.encoder"),
    (rf"decode_head\.changemixin\.convs\.0\.([01])\.{NORM}", r"mix.\1.\2"),
    (r"decode_head\.conv_seg\.(\w+)", r"classify.1.\1"),
)


def _modules(theirs: str, ours: str) -> Rules:
    """Rules of mmcv's ``ConvModule``s that are numbered by the first group of both patterns."""
    return ((rf"{theirs}\.conv\.(weight)", rf"{ours}.0.\2"), (rf"{theirs}\.bn\.{NORM}", rf"{ours}.1.\2"))


_RELATION = r"decode_head\.seg_head\._fsr\."
_FARSEG: Rules = (
    (r"neck\.lateral_convs\.(\d)\.conv\.(\w+)", r"features.decoder.pyramid.lateral.\1.\2"),
    (r"neck\.fpn_convs\.(\d)\.conv\.(\w+)", r"features.decoder.pyramid.refine.\1.\2"),
    (rf"{_RELATION}scene_encoder\.(\d)\.([02])\.(\w+)", r"features.decoder.relate.\1.scene.\2.\3"),
    *_modules(rf"{_RELATION}content_encoders\.(\d)\.0", r"features.decoder.relate.\1.content"),
    *_modules(rf"{_RELATION}feature_reencoders\.(\d)\.0", r"features.decoder.relate.\1.encode"),
    *(  # every second layer doubles the size
        rule
        for i in range(3)
        for rule in _modules(
            rf"decode_head\.seg_head\._decoder\.blocks\.(\d)\.{i}\.0", rf"features.decoder.decode.\1.{2 * i}"
        )
    ),
)

_UPERNET: Rules = (
    *_modules(r"decode_head\.seg_head\.psp_modules\.(\d)\.1", r"features.decoder.pool.project.\1"),
    *conv_module(r"decode_head\.seg_head\.bottleneck", "features.decoder.pool.join"),
    *_modules(r"decode_head\.seg_head\.lateral_convs\.(\d)", r"features.decoder.lateral.\1"),
    *_modules(r"decode_head\.seg_head\.fpn_convs\.(\d)", r"features.decoder.refine.\1"),
    *conv_module(r"decode_head\.seg_head\.fpn_bottleneck", "features.decoder.join"),
)

FAMILIES = {
    "changestar_farseg": Family((*_CHANGESTAR, *_FARSEG)),
    "changestar_upernet": Family((*_CHANGESTAR, *_UPERNET)),
}
