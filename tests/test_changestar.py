"""ChangeStar: both time orders, what prediction leaves out, and UPerNet on a single pair."""

import pytest
import torch

from bitemporal.models import create_model


def pair(batch: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    before, after = torch.randn(2, batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    return before, after


def test_the_reversed_output_is_that_of_the_dates_in_the_other_order():
    torch.manual_seed(0)
    model = create_model("test_changestar").double().eval()
    before, after = (date.double() for date in pair(2, 64, 96))
    with torch.no_grad():
        forwards, backwards = model.outputs(before, after), model.outputs(after, before)
    assert torch.allclose(forwards.auxiliary["reversed"], backwards.logits, rtol=1e-9, atol=1e-9)
    assert torch.allclose(forwards.logits, backwards.auxiliary["reversed"], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(forwards.logits, backwards.logits, rtol=1e-3)


def test_prediction_computes_one_time_order_and_training_both():
    model = create_model("test_changestar").eval()
    calls = []
    model.mix.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        model(*pair(1, 64, 64))
        assert len(calls) == 1
        model.outputs(*pair(1, 64, 64))
    assert len(calls) == 3


def test_distillation_compares_both_time_orders_pair_by_pair():
    model = create_model("test_changestar").eval()
    with torch.no_grad():
        outputs = model.outputs(*pair(3, 64, 64))
    compared = model.distillation_tensor(outputs)
    assert compared.shape == (6, 1, 16, 16)
    assert torch.equal(compared[1], outputs.logits[1])
    assert torch.equal(compared[4], outputs.auxiliary["reversed"][1])


@pytest.mark.parametrize(
    ("name", "kinds"), [("changestar_farseg", {"loss_bce", "loss_dice"}), ("changestar_upernet", {"loss_bce"})]
)
def test_both_time_orders_have_every_loss(name, kinds):
    model = create_model(name)
    target = torch.zeros(2, 64, 64, dtype=torch.int64)
    target[:, :20] = 1
    outputs = model.outputs(*pair(2, 64, 64))
    good = torch.where(target == 1, 9.0, -9.0)[:, None]
    outputs.logits, outputs.auxiliary["reversed"] = good, -good
    losses = {key: value.item() for key, value in model.loss(outputs, target).items()}
    assert losses.keys() == kinds | {f"{kind}_reversed" for kind in kinds}
    assert all((value > 0.5) == key.endswith("_reversed") for key, value in losses.items()), losses


def test_upernet_trains_on_one_pair_of_its_smallest_size():
    model = create_model("changestar_upernet").train()
    before, after = pair(1, 64, 64)
    sum(model.loss(model.outputs(before, after), torch.ones(1, 64, 64, dtype=torch.int64)).values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.eval()(before, after).shape == (1, 1, 64, 64)
