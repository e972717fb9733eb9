"""BIT."""

from bitemporal.interop.opencd.rules import Rules, resnet, under

_BLOCK = {
    "attn.to_q": "attention.query",
    "attn.to_k": "attention.key",
    "attn.to_v": "attention.value",
    "attn.fc_out.0": "attention.output",
    "ff.0": "feed.0",
    "ff.3": "feed.2",  # without a dropout
    "norm1_": "norm_tokens",
    "norm*": "norm*",
}


def token_decoder(theirs: str, ours: str = "decoder") -> Rules:
    """Rules of Open-CD's ``BITHead`` without the classifier, which is ``bit.TokenDecoder`` here."""
    return {
        f"{theirs}.pre_process.1.conv": f"{ours}.reduce",
        f"{theirs}.conv_att.conv": f"{ours}.tokenise",
        f"{theirs}.enc_pos_embedding": f"{ours}.position",
        **under(f"{theirs}.encoder.0", f"{ours}.relate", _BLOCK),
        **under(f"{theirs}.decoder.*", f"{ours}.refine.*", _BLOCK),
    }


_BIT: Rules = {
    **resnet("backbone"),
    **token_decoder("decode_head"),
    "decode_head.conv_seg": "decoder.classify.1",
}

FAMILIES = {"bit_r18": _BIT}
