"""IFN: its frozen encoder, its threshold and its five answers."""

import pytest
import torch
import torchvision

from bitemporal.models import create_model, encoders
from bitemporal.models.base import ModelOutput


def images(batch: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    before, after = torch.randn(2, batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    return before, after


def test_the_encoder_is_frozen_and_all_else_is_trained():
    model = create_model("test_ifn").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.5)
    target = torch.randint(0, 2, (2, 32, 48))
    sum(model.loss(model.outputs(*images(2, 32, 48)), target).values()).backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if not name.startswith("encoder.")}
    assert not any(module.training for module in model.encoder.modules())
    assert model.decoder.training


def test_both_dates_pass_the_encoder_at_once_in_training_too():
    """It has no batch statistics that could mix them."""
    model = create_model("test_ifn").train()
    sizes = []
    model.encoder.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    model.outputs(*images(3, 32, 48))
    assert sizes == [6]


def test_a_pixel_is_changed_from_a_sigmoid_of_three_tenths():
    model = create_model("test_ifn")
    logits = torch.logit(torch.tensor([0.29, 0.3, 0.31], dtype=torch.float64)).view(1, 1, 1, 3)
    probability = model.probability(logits).flatten()
    assert probability[1].item() == pytest.approx(0.5)
    assert (probability > 0.5).tolist() == [False, False, True] or probability[1].item() != 0.5


def test_every_size_answers_and_counts_the_same():
    model = create_model("test_ifn").eval()
    target = torch.randint(0, 2, (1, 32, 48))
    with torch.no_grad():
        outputs = model.outputs(*images(1, 32, 48))
    assert outputs.logits.shape == (1, 1, 32, 48)
    strides = {"aux1": 16, "aux2": 8, "aux3": 4, "aux4": 2}
    assert {name: 32 // x.shape[2] for name, x in outputs.auxiliary.items()} == strides
    assert all(32 * x.shape[3] == 48 * x.shape[2] for x in outputs.auxiliary.values())
    certain = ModelOutput(torch.full((1, 1, 32, 48), 3.0), {name: torch.full((1, 1, 2, 3), 3.0) for name in strides})
    terms = model.loss(certain, target)
    assert len(terms) == 5
    assert len({value.item() for value in terms.values()}) == 1


def test_prediction_gives_the_last_answer():
    torch.manual_seed(0)
    model = create_model("test_ifn").eval()
    pair = images(1, 32, 48)
    with torch.no_grad():
        assert torch.equal(model(*pair), model.outputs(*pair).logits)


@pytest.mark.parametrize(("name", "batch_norm"), [("vgg16", False), ("vgg16_bn", True)])
def test_the_stages_of_vgg_are_those_of_torchvision(name, batch_norm):
    """Each ends after the last ReLU before a pooling; layers keep their number."""
    theirs = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"], batch_norm).eval()
    stages, channels = encoders.vgg(name, pretrained=False, in_channels=3)
    stages.eval()
    state = {name.split(".", 1)[1]: value for name, value in stages.state_dict().items()}
    theirs.load_state_dict(state)
    assert channels == [64, 128, 256, 512, 512]
    x = images(1, 32, 48)[0]
    with torch.no_grad():
        found = iter(stages(x))
        for layer in theirs:
            if isinstance(layer, torch.nn.MaxPool2d):
                assert torch.allclose(next(found), x, atol=1e-6)
            x = layer(x)
    assert next(found, None) is None


def test_pretrained_weights_fill_the_encoder(monkeypatch):
    """A stand-in for timm's fetched network: nothing is fetched here."""
    asked = []

    def fetched(name, pretrained, in_chans, num_classes):
        asked.append((name, pretrained))
        vgg = encoders.VGG([4, "M", 6, "M", 8, "M", 8, "M", 8, "M"], num_classes, in_chans, mlp_ratio=1 / 4096)
        torch.nn.init.constant_(vgg.features[0].weight, 0.25)
        return vgg

    monkeypatch.setattr(encoders, "_reachable", lambda url: True)
    monkeypatch.setattr(encoders.timm, "create_model", fetched)
    model = create_model("ifn", pretrained=True)
    assert asked == [("vgg16", True)]
    assert (model.encoder[0][0].weight == 0.25).all()
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
