"""BIT."""

from bitemporal.interop.opencd.rules import Family, Rules, resnet


def _block(theirs: str, ours: str) -> Rules:
    """Rules of a transformer block; the patterns have one group before those here, or none."""
    first = theirs.count(r"(\d)") + 1
    block = rf"decode_head\.{theirs}\."
    return (
        *(
            (rf"{block}attn\.to_{short}\.(\w+)", rf"{ours}.attention.{name}.\{first}")
            for short, name in (("q", "query"), ("k", "key"), ("v", "value"))
        ),
        (rf"{block}attn\.fc_out\.0\.(\w+)", rf"{ours}.attention.output.\{first}"),
        (rf"{block}ff\.0\.(\w+)", rf"{ours}.feed.0.\{first}"),
        (rf"{block}ff\.3\.(\w+)", rf"{ours}.feed.2.\{first}"),  # a dropout left out
        (rf"{block}norm1_\.(\w+)", rf"{ours}.norm_tokens.\{first}"),
        (rf"{block}(norm[12])\.(\w+)", rf"{ours}.\{first}.\{first + 1}"),
    )


_BIT: Rules = (
    *resnet(r"backbone\.", "features.encoder"),
    (r"decode_head\.pre_process\.1\.conv\.(\w+)", r"features.reduce.conv.\1"),
    (r"decode_head\.conv_att\.conv\.(\w+)", r"tokenise.\1"),
    (r"decode_head\.enc_pos_embedding", "position"),
    *_block(r"encoder\.0", "relate"),
    *_block(r"decoder\.(\d)", r"refine.\1"),
    (r"decode_head\.conv_seg\.(\w+)", r"classify.1.\1"),
)

FAMILIES = {"bit_r18": Family(_BIT)}
