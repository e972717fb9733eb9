"""What only LightCDNet does, criss-cross attention and early supervision; and what it shares with TinyCDv2."""

import pytest
import torch
import torch.nn.functional as F

from bitemporal._torchvision import torchvision
from bitemporal.models import create_model, list_models
from bitemporal.models.lightcdnet import CrissCrossAttention, ShuffleUnit

NAMES = list_models("*lightcdnet*")


@pytest.mark.parametrize(("height", "width"), [(3, 5), (6, 2)])
def test_criss_cross_attention_is_that_of_the_paper(height, width):
    """Pixel by pixel: a softmax over the rest of its column and its row, applied twice."""
    torch.manual_seed(0)
    attention = CrissCrossAttention(16).double()
    torch.nn.init.constant_(attention.scale, 0.7)
    x = torch.randn(2, 16, height, width, dtype=torch.float64)

    def once(x):
        query, key, value = attention.query(x), attention.key(x), attention.value(x)
        result = x.clone()
        for n in range(len(x)):
            for i in range(height):
                for j in range(width):
                    seen = [(k, j) for k in range(height) if k != i] + [(i, k) for k in range(width)]
                    scores = torch.stack([query[n, :, i, j] @ key[n, :, k, m] for k, m in seen])
                    values = torch.stack([value[n, :, k, m] for k, m in seen])
                    result[n, :, i, j] += 0.7 * scores.softmax(0) @ values
        return result

    with torch.no_grad():
        assert torch.allclose(attention(x), once(once(x)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_shuffling_unit_is_that_of_torchvision(stride):
    theirs = torchvision.models.shufflenetv2.InvertedResidual(12, 12, stride)
    ours = ShuffleUnit(12, 12, stride)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 12, 7, 10)
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("name", NAMES)
def test_prediction_skips_the_auxiliary_head_and_gives_the_same(name):
    model = create_model(name).eval()
    before, after = torch.randn(2, 1, 3, 32, 48)
    with torch.no_grad():
        expected = model.outputs(before, after).logits
        model.auxiliary.register_forward_hook(lambda *_: pytest.fail("computed for nothing"))
        assert torch.equal(model.head_logits(before, after), expected)
        model(before, after)


def test_the_early_loss_is_two_fifths_of_the_cross_entropy_of_the_fused_map():
    model = create_model("test_lightcdnet")
    outputs = model.outputs(*torch.randn(2, 2, 3, 32, 32))
    target = torch.randint(0, 2, (2, 32, 32))
    early = F.interpolate(outputs.auxiliary["early"], (32, 32), mode="bilinear")
    assert torch.allclose(model.loss(outputs, target)["loss_early"], 0.4 * F.cross_entropy(early, target))


@pytest.mark.parametrize("name", [*NAMES, *list_models("*tinycd_v2*")])
def test_a_batch_of_one_pair_leaves_the_pooled_statistics_and_a_larger_one_moves_them(name):
    model = create_model(name).train()
    pooled = [m for m in model.modules() if type(m).__name__ == "PooledBatchNorm2d"]
    before = [m.running_mean.clone() for m in pooled]
    model.outputs(*torch.randn(2, 1, 3, 32, 32))
    assert all(torch.equal(m.running_mean, old) for m, old in zip(pooled, before, strict=True))
    model.outputs(*torch.randn(2, 2, 3, 32, 32))
    assert pooled
    assert not any(torch.equal(m.running_mean, old) for m, old in zip(pooled, before, strict=True))


@pytest.mark.parametrize("name", [*NAMES, *list_models("*tinycd_v2*")])
def test_layers_over_one_date_are_normalised_date_by_date(name):
    model = create_model(name).train()
    shared = model.dates if "lightcdnet" in name else model.fusion
    seen = {}
    for key, module in shared.named_modules():
        if type(module) is torch.nn.BatchNorm2d:
            module.register_forward_hook(lambda m, args, output, key=key: seen.setdefault(key, []).append(len(args[0])))
    model.outputs(*torch.randn(2, 3, 3, 32, 48))
    assert seen
    assert all(sizes == [3, 3] for sizes in seen.values())
