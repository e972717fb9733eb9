"""ChangeFormer."""

from bitemporal.interop.opencd.rules import Rules, fusion, mix_transformer

_CHANGEFORMER: Rules = {
    **mix_transformer("backbone"),
    **fusion("decode_head", "head.fusion"),
    "decode_head.conv_seg": "head.classify.1",
}

FAMILIES = {"changeformer_mit_b0": _CHANGEFORMER, "changeformer_mit_b1": _CHANGEFORMER}
