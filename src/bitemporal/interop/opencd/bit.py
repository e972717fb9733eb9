"""BIT."""

from bitemporal.interop.opencd.rules import Family, Rules, resnet


def _block(theirs: str, ours: str) -> Rules:
    """Rules of a transformer block; the patterns have one group before those here, or none."""
    first = theirs.count(r"(\d)") + 1
    return (
        *(
            (rf"{theirs}attn\.to_{short}\.(\w+)", rf"{ours}.attention.{name}.\{first}")
            for short, name in (("q", "query"), ("k", "key"), ("v", "value"))
        ),
        (rf"{theirs}attn\.fc_out\.0\.(\w+)", rf"{ours}.attention.output.\{first}"),
        (rf"{theirs}ff\.0\.(\w+)", rf"{ours}.feed.0.\{first}"),
        (rf"{theirs}ff\.3\.(\w+)", rf"{ours}.feed.2.\{first}"),  # a dropout left out
        (rf"{theirs}norm1_\.(\w+)", rf"{ours}.norm_tokens.\{first}"),
        (rf"{theirs}(norm[12])\.(\w+)", rf"{ours}.\{first}.\{first + 1}"),
    )


def token_decoder(theirs: str, ours: str = "decoder") -> Rules:
    """Rules of Open-CD's ``BITHead`` without the classifier, which is ``bit.TokenDecoder`` here.

    Args:
        theirs: Pattern of its prefix, with the dot, without groups.
        ours: Prefix here.
    """
    return (
        (rf"{theirs}pre_process\.1\.conv\.(\w+)", rf"{ours}.reduce.\1"),
        (rf"{theirs}conv_att\.conv\.(\w+)", rf"{ours}.tokenise.\1"),
        (rf"{theirs}enc_pos_embedding", f"{ours}.position"),
        *_block(rf"{theirs}encoder\.0\.", f"{ours}.relate"),
        *_block(rf"{theirs}decoder\.(\d)\.", rf"{ours}.refine.\1"),
    )


_BIT: Rules = (
    *resnet(r"backbone\."),
    *token_decoder(r"decode_head\."),
    (r"decode_head\.conv_seg\.(\w+)", r"decoder.classify.1.\1"),
)

FAMILIES = {"bit_r18": Family(_BIT)}
