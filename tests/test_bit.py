"""BIT: its attention, whose projections are folded into the tokens, against the textbook's."""

import pytest
import torch

from bitemporal.models.bit import TokenAttention


@pytest.mark.parametrize(("channels", "inner", "heads", "count"), [(8, 12, 3, 4), (6, 6, 1, 2)])
def test_attention_is_that_of_every_head_with_the_scale_of_all_channels(channels, inner, heads, count):
    torch.manual_seed(0)
    attention = TokenAttention(channels, inner, heads).double()
    x = torch.randn(2, 15, channels, dtype=torch.float64)
    tokens = torch.randn(2, count, channels, dtype=torch.float64)
    width = inner // heads
    attended = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        query, key, value = (
            vectors @ layer.weight[part].T
            for vectors, layer in ((x, attention.query), (tokens, attention.key), (tokens, attention.value))
        )
        scores = query @ key.transpose(1, 2) / channels**0.5
        attended.append(scores.softmax(-1) @ value)
    expected = attention.output(torch.cat(attended, dim=-1))
    assert torch.allclose(attention(x, tokens), expected, rtol=1e-10, atol=1e-12)
