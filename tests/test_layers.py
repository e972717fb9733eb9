"""Pieces that several families share: the ways that are taken for speed give the same numbers."""

import pytest
import torch
from torch import nn

from bitemporal.models import layers


@pytest.mark.parametrize("few_energies", [0, 2**26])
@pytest.mark.parametrize("heads", [(), (3,)])
def test_attention_without_scale_is_softmax_attention(few_energies, heads, monkeypatch):
    monkeypatch.setattr(layers, "_FEW_ENERGIES", few_energies)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, *heads, length, width, dtype=torch.float64, generator=generator)
        for length, width in ((7, 4), (9, 4), (9, 10))
    )
    weights = torch.exp(query @ key.mT)
    expected = weights @ value / weights.sum(-1, keepdim=True)
    assert torch.allclose(layers.unscaled_attention(query, key, value), expected, atol=1e-12)


class Sizes(nn.Module):
    """Keeps the sizes of the batches that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        self.seen.append(len(x))
        return [self.norm(x)]


@pytest.mark.parametrize(
    ("training", "side", "passes"), [(False, 64, [4]), (False, 256, [2, 2]), (True, 64, [2, 2]), (True, 256, [2, 2])]
)
def test_dates_pass_alone_in_training_and_where_images_are_large(training, side, passes):
    encoder = Sizes().train(training)
    before, after = torch.randn(2, 2, 3, side, side)
    ((first, second),) = layers.both_dates(encoder, before, after)
    assert encoder.seen == passes
    if not training:
        assert torch.allclose(first, encoder.norm(before), atol=1e-6)
        assert torch.allclose(second, encoder.norm(after), atol=1e-6)
