"""What is particular to Changer on encoders with batch normalisation; the rest is in test_models.py."""

import pytest
import torch

from bitemporal.models import create_model


@pytest.mark.parametrize("name", ["changer_r18", "changer_s50"])
@pytest.mark.parametrize("pairs", [1, 2])
def test_the_smallest_size_of_the_card_trains_one_pair_and_two(name, pairs):
    torch.manual_seed(0)
    model = create_model(name).train()
    side = model.card.minimum
    before, after = torch.randn(2, pairs, 3, side, side)
    target = torch.randint(0, 2, (pairs, side, side))
    loss = sum(model.loss(model.outputs(before, after), target).values())
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("name", ["test_changer", "changer_r18"])
def test_the_next_stage_sees_exchanged_features(name):
    """Columns after stage 2, channels after stage 3, every second from the first on; nothing after stage 1."""
    torch.manual_seed(0)
    model = create_model(name).eval()
    inputs, outputs = [], []
    for stage in model.encoder:
        stage.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
        stage.register_forward_hook(lambda module, args, output: outputs.append(output))
    levels = []
    model.head.register_forward_hook(lambda module, args, output: levels.extend(args[0]))
    with torch.no_grad():
        model.outputs(*torch.randn(2, 1, 3, 64, 96))
    assert len(inputs) == 4  # both dates at once
    for stage, (level, output) in enumerate(zip(levels, outputs, strict=True)):
        expected = output.clone()
        if stage == 1:
            expected[0, ..., ::2], expected[1, ..., ::2] = output[1, ..., ::2], output[0, ..., ::2]
        elif stage > 1:
            expected[0, ::2], expected[1, ::2] = output[1, ::2], output[0, ::2]
        assert torch.equal(level, expected)
        if stage < 3:
            assert torch.equal(inputs[stage + 1], level)
