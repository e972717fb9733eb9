"""STANet: what the template of test_models.py does not know about attention and distances."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bitemporal.models import create_model
from bitemporal.models.stanet import BlockAttention, feature_distance


def attended_pixel_by_pixel(attention: BlockAttention, joint: torch.Tensor, blocks: int) -> torch.Tensor:
    """Each pixel against all pixels of both dates in its own block."""
    query, key, value = (project(joint) for project in (attention.query, attention.key, attention.value))
    count, (height, width) = len(joint) // 2, joint.shape[-2:]
    result = torch.empty_like(joint)
    for pair in range(count):
        for row in range(height):
            for column in range(width):
                top, left = row // (height // blocks), column // (width // blocks)
                rows = slice(top * (height // blocks), (top + 1) * (height // blocks))
                columns = slice(left * (width // blocks), (left + 1) * (width // blocks))
                keys = torch.cat([key[date, :, rows, columns].flatten(1) for date in (pair, count + pair)], dim=1)
                values = torch.cat([value[date, :, rows, columns].flatten(1) for date in (pair, count + pair)], dim=1)
                for date in (pair, count + pair):
                    scores = query[date, :, row, column] @ keys / query.shape[1] ** 0.5
                    result[date, :, row, column] = values @ scores.softmax(0)
    return result


@pytest.mark.parametrize(("blocks", "normalise"), [(1, False), (2, True), (4, True)])
def test_attention_is_among_the_pixels_of_both_dates_in_a_block(blocks, normalise):
    torch.manual_seed(0)
    attention = BlockAttention(16, blocks, normalise).double().eval()
    joint = torch.randn(4, 16, 4, 8, dtype=torch.float64)
    with torch.no_grad():
        output = attention(3 * joint)
        expected = attended_pixel_by_pixel(attention, 3 * joint, blocks)
    assert torch.allclose(output, expected, rtol=1e-9, atol=1e-12)


class LargestTensor(TorchDispatchMode):
    """Keeps the size of the largest result of any operation."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.numel = max([self.numel, *sizes])
        return result


def test_attention_over_a_large_image_never_holds_all_its_weights():
    attention = BlockAttention(16, 1, False).eval()
    joint = torch.randn(2, 16, 72, 72)
    with torch.no_grad(), LargestTensor() as largest:
        attention(joint)
    assert largest.numel < (2 * 72 * 72) ** 2 / 100


def test_normalisation_inside_the_attention_sees_both_dates_at_once():
    model = create_model("test_stanet").train()
    sizes = []
    for scale in model.attention.scales:
        scale.key[1].register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    model.outputs(torch.randn(3, 3, 64, 64), torch.randn(3, 3, 64, 64))
    assert sizes == [6] * 4


def test_distances_are_euclidean_over_channels_even_when_small_in_half_precision():
    before, after = torch.randn(2, 2, 5, 3, 4, dtype=torch.float64)
    expected = torch.stack([torch.dist(b, a) for b, a in zip(before[:, :, 1, 2], after[:, :, 1, 2], strict=True)])
    assert torch.allclose(feature_distance(before, after)[:, 0, 1, 2], expected, rtol=1e-5)
    half = before.to(torch.bfloat16)
    assert feature_distance(half, half).max() < 1e-5  # the tiny number that is added to every difference
    assert feature_distance(half, half).dtype == torch.float32


def test_a_distance_of_one_is_the_threshold_and_the_margin_is_clear():
    model = create_model("test_stanet")
    distances = torch.linspace(0, 6, 25).view(1, 1, 5, 5)
    probability = model.probability(distances).flatten()
    assert model.probability(torch.ones(1, 1, 1, 1)).item() == 0.5
    assert (probability.diff() >= 0).all()
    assert model.probability(torch.zeros(1, 1, 1, 1)).item() < 0.05
    assert model.probability(torch.full((1, 1, 1, 1), 2.0)).item() > 0.95


def test_log_odds_are_what_the_loss_charges_less_for_the_better_class():
    """Up to the margin: the loss of one pixel called unchanged, less that of the same pixel called changed."""
    model = create_model("test_stanet")
    for distance in (0.0, 0.3, 1.0, 1.7, 2.0):
        outputs = model.outputs(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))
        outputs.logits = torch.full((1, 1, 1, 1), distance)
        unchanged, changed = (model.loss(outputs, torch.full((1, 1, 1), label))["loss_bcl"] for label in (0, 1))
        assert model.log_odds(outputs.logits).item() == pytest.approx((unchanged - changed).item(), abs=1e-5)
