"""What is particular to BAN: the frozen foundation model, what it is shown, and what is trained around it."""

import pytest
import torch
from torch import Tensor

from bitemporal.errors import WeightsError
from bitemporal.models import create_model, list_models, model_card
from bitemporal.run.learner import Learner, Optimisation

MICRO = list_models("test_ban*")
FULL_SIZE = list_models("ban_*")
every_micro = pytest.mark.parametrize("name", MICRO)


def pair(batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    before, after = torch.randn(2, batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    return before, after


def optimisation(name: str) -> Optimisation:
    return Optimisation(model_card(name).training, 10, 0)


@every_micro
def test_training_leaves_the_foundation_model_frozen_and_changes_all_else(name):
    torch.manual_seed(0)
    model = create_model(name)
    assert not model.foundation.training
    Learner(model)
    assert model.training
    assert not any(module.training for module in model.foundation.modules())
    assert all(module.training for part in (model.side, model.bridges, model.decoder) for module in part.modules())
    optimiser = torch.optim.AdamW(optimisation(name).parameter_groups(model))
    optimised = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    start = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    for _ in range(2):  # the first step leaves what still starts at zero behind another zero
        loss = sum(model.loss(model.outputs(*pair(2, 64, 64)), torch.ones(2, 64, 64, dtype=torch.int64)).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for key, parameter in model.named_parameters():
        frozen = key.startswith("foundation.")
        assert parameter.requires_grad != frozen, key
        assert (id(parameter) in optimised) != frozen, key
        assert torch.equal(parameter, start[key]) == frozen, key


@every_micro
@pytest.mark.parametrize("training", [False, True])
def test_the_foundation_model_sees_both_dates_once_resized_and_records_nothing(name, training):
    model = create_model(name).train(training)
    before, after = pair(3, 64, 128)
    seen = []
    model.foundation.vit.patch_embed.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    tokens = []
    model.foundation.register_forward_hook(lambda module, args, output: tokens.extend(output))
    model.outputs(before.clone().requires_grad_(), after)
    (images,) = seen
    size = model.foundation.vit.patch_embed.img_size
    assert images.shape == (6, 3, *size)
    resized = [
        torch.nn.functional.interpolate(date, size, mode="bilinear", align_corners=False) for date in pair(3, 64, 128)
    ]
    assert torch.allclose(images, torch.cat(resized), atol=1e-6)
    assert len(tokens) == 3
    assert not any(level.requires_grad for level in tokens)


def test_tokens_are_those_after_the_blocks_before_any_final_norm():
    model = create_model("test_ban").eval()
    vit = model.foundation.vit
    images = pair(2, 32, 32)[0]
    x = torch.cat((vit.cls_token.expand(2, -1, -1), vit.patch_embed(images)), dim=1) + vit.pos_embed
    x = vit.norm_pre(x)
    for block, tokens in zip(vit.blocks, model.foundation(images), strict=True):
        x = block(x)
        assert torch.allclose(tokens, x[:, 1:], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "blocks", "size", "channels"),
    [
        ("ban_b16_clip_bit", 9, 224, 768),
        ("ban_b16_in21k_mit_b0", 12, 224, 768),
        ("ban_b32_georsclip_mit_b0", 9, 224, 768),
        pytest.param("ban_l14_clip_mit_b0", 18, 336, 1024, marks=pytest.mark.full),
    ],
)
def test_only_the_blocks_that_are_used_are_built(name, blocks, size, channels):
    model = create_model(name)
    vit = model.foundation.vit
    assert len(vit.blocks) == blocks
    assert model.foundation.taps[-1] == blocks - 1
    assert vit.patch_embed.img_size == (size, size)
    assert model.foundation.channels == channels
    assert {key.split(".")[0] for key in vit.state_dict()} == {
        "cls_token",
        "pos_embed",
        "patch_embed",
        "norm_pre",
        "blocks",
    }
    assert not any(parameter.requires_grad for parameter in vit.parameters())


@every_micro
def test_the_rules_pick_the_groups_of_the_reference(name):
    """Of models.md 1.5: ten times the rate in the decoder; no decay for names with ``norm`` elsewhere."""
    model = create_model(name)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    groups = {
        (round(group["lr"] / 1e-4, 6), round(group["weight_decay"] / 1e-4, 6)): {names[id(p)] for p in group["params"]}
        for group in optimisation(name).parameter_groups(model)
    }
    assert groups.keys() == {(10, 1), (1, 0), (1, 1)}
    assert groups[10, 1] == {key for key in names.values() if key.startswith("decoder.")}
    bridges = {f"bridges.{i}.norm{j}.{kind}" for i in range(3) for j in (1, 2) for kind in ("weight", "bias")}
    assert {key for key in groups[1, 0] if key.startswith("bridges.")} == bridges
    assert model.card.training.clip_norm == 0.01


@every_micro
def test_batch_norm_sees_one_date_at_a_time_in_training(name):
    model = create_model(name).train()
    batch_norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    sizes = []
    for module in batch_norms:
        module.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    model.outputs(*pair(3, 64, 64))
    assert sizes == [3] * 2 * len(batch_norms)
    assert batch_norms


@pytest.mark.parametrize("name", FULL_SIZE)
def test_inputs_are_normalised_as_for_clip(name):
    normalisation = model_card(name).normalisation
    # of CLIP's own preprocessing, for values in 0..1
    assert [mean / 255 for mean in normalisation.mean] == pytest.approx([0.48145466, 0.4578275, 0.40821073], abs=1e-6)
    assert [std / 255 for std in normalisation.std] == pytest.approx([0.26862954, 0.26130258, 0.27577711], abs=1e-6)


def test_georsclip_says_where_its_weights_come_from():
    with pytest.raises(WeightsError, match=r"georsclip_mit_b0 has no pretrained weights.*bundle or a checkpoint"):
        create_model("ban_b32_georsclip_mit_b0", pretrained=True)
