"""SNUNet: what its dense decoder and its attention make of both dates."""

import torch
import torch.nn.functional as F

from bitemporal.models import create_model
from bitemporal.models.snunet import EnsembleChannelAttention


def images(batch: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    before, after = torch.randn(2, batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    return before, after


def test_only_date_2_reaches_the_deepest_level():
    torch.manual_seed(0)
    model = create_model("test_snunet").eval()
    seen = []
    model.deepest.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    before, after = images(2, 32, 48)
    with torch.no_grad():
        model(before, after)
        model(torch.zeros_like(before), after)
        model(before, torch.zeros_like(after))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


def test_attention_weighs_each_result_by_the_sum_of_all_and_by_its_place():
    """The same attention within every result, and another one for each of the concatenated channels."""
    torch.manual_seed(0)
    channels, count = 8, 4
    attention = EnsembleChannelAttention(channels, count).double()
    results = [torch.randn(2, channels, 6, 9, dtype=torch.float64) for _ in range(count)]

    def weights(part: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        squeeze, expand = part.squeeze[0].weight[:, :, 0, 0], part.expand.weight[:, :, 0, 0]
        pooled = (x.flatten(2).mean(2), F.adaptive_max_pool2d(x, 1)[:, :, 0, 0])
        return torch.sigmoid(sum(F.relu(p @ squeeze.T) @ expand.T for p in pooled))[:, :, None, None]

    output = attention(results)
    within = weights(attention.within, torch.stack(results).sum(0))
    across = weights(attention.across, torch.cat(results, 1))
    for place, result in enumerate(results):
        part = slice(place * channels, (place + 1) * channels)
        assert torch.allclose(output[:, part], across[:, part] * (result + within), atol=1e-12)
