"""ChangeFormer."""

from bitemporal.interop.opencd.rules import Family, Rules, fusion, mix_transformer, mix_transformer_entries

_CHANGEFORMER: Rules = (
    *mix_transformer(r"backbone\."),
    *fusion(r"decode_head\.", "head.fusion"),
    (r"decode_head\.conv_seg\.(\w+)", r"head.classify.1.\1"),
)

FAMILIES = {
    name: Family(_CHANGEFORMER, mix_transformer_entries) for name in ("changeformer_mit_b0", "changeformer_mit_b1")
}
