"""Every micro variant against the contract of models/base.py: a new family is tested without a line of its own.

The networks at full size are held to the reference by test_goldens.py.
"""

import re
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from bitemporal._torchvision import torchvision
from bitemporal.errors import InputSizeError, OptionError, UnknownModelError, WeightsError
from bitemporal.method.car import CarPartition
from bitemporal.method.loss import CRITERIA, DistillationLoss, view_for
from bitemporal.method.teachers import PartTeachers
from bitemporal.models import ChangeModel, create_model, encoders, list_models, model_card
from bitemporal.models.base import ParameterRule
from bitemporal.models.changer import exchange, warp
from bitemporal.models.encoders import fetch_weights
from bitemporal.pairs.batch import Batch
from bitemporal.run.learner import Learner

MICRO = list_models("test_*")
OTHER_LOSSES = {
    "test_changestar",
    "test_stanet",
}  # micro variants of networks whose losses are no plain means over pixels
every_model = pytest.mark.parametrize("name", list_models())
every_micro = pytest.mark.parametrize("name", MICRO)


def build(name: str, **options) -> ChangeModel:
    torch.manual_seed(0)
    return create_model(name, **options)


def pair(batch: int, height: int, width: int, channels: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    before, after = torch.randn(2, batch, channels, height, width, generator=generator)
    return before, after


def label(batch: int, height: int, width: int) -> Tensor:
    return torch.randint(0, 2, (batch, height, width), generator=torch.Generator().manual_seed(1))


def with_random_statistics(model: ChangeModel) -> ChangeModel:
    """In evaluation mode, with normalisation layers that do something."""
    generator = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def test_every_micro_variant_is_named_so_and_no_other_network_is():
    assert MICRO
    assert all(("micro" in model_card(name).title) == (name in MICRO) for name in list_models())


@every_micro
def test_micro_variants_are_small(name):
    assert sum(p.numel() for p in create_model(name).parameters()) < 50_000


@every_micro
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 64, 64), (2, 96, 160)])
def test_forward_gives_logits_at_input_size(name, batch, height, width):
    model = with_random_statistics(build(name))
    before, after = pair(batch, height, width)
    with torch.no_grad():
        logits = model(before, after)
        head = model.outputs(before, after).logits
        probability = model.probability(logits)
    assert logits.shape == (batch, model.num_logits, height, width)
    assert torch.isfinite(logits).all()
    assert probability.shape == (batch, 1, height, width)
    assert torch.equal(
        logits, F.interpolate(head, (height, width), mode="bilinear") if head.shape != logits.shape else head
    )


@every_micro
def test_the_smallest_size_of_the_card_trains_and_predicts_one_pair(name):
    model = build(name)
    side = model.card.minimum
    before, after = pair(1, side, side)
    loss = sum(model.train().loss(model.outputs(before, after), label(1, side, side)).values())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(model.eval()(before, after)).all()


@every_micro
def test_one_multiple_below_the_smallest_size_cannot_train_one_pair(name):
    model = build(name).train()
    side = model.card.minimum - model.card.multiple
    with pytest.raises((ValueError, RuntimeError)):
        model.outputs(*pair(1, side, side))


@every_micro
def test_sizes_it_cannot_take_are_refused_with_the_multiple_and_the_minimum(name):
    model = build(name).eval()
    card = model.card
    bad = [(card.minimum, card.minimum - card.multiple), (card.minimum - card.multiple, card.minimum)]
    if card.multiple > 1:
        bad += [(4 * card.minimum + 1, 4 * card.minimum), (4 * card.minimum, 4 * card.minimum + card.multiple // 2)]
    for height, width in bad:
        with pytest.raises(InputSizeError, match=rf"{height} x {width}.*multiples of {card.multiple} .*{card.minimum}"):
            model(*pair(1, height, width))


@pytest.mark.parametrize("name", ["fc_ef", "fc_siam_conc", "fc_siam_diff", "test_fc"])
@pytest.mark.parametrize(("height", "width"), [(17, 16), (31, 45), (65, 97)])
def test_networks_of_multiple_one_take_odd_sizes(name, height, width):
    model = with_random_statistics(build(name))
    assert model(*pair(1, height, width)).shape == (1, 2, height, width)


@every_micro
def test_dates_of_different_shape_are_refused(name):
    model = build(name)
    with pytest.raises(InputSizeError, match="both dates"):
        model(pair(1, 64, 64)[0], pair(1, 64, 96)[0])


@every_micro
def test_images_of_other_channels_are_refused(name):
    model = build(name)
    for wrong in (torch.zeros(1, 64, 64, 3), torch.zeros(1, 4, 64, 64), torch.zeros(64, 64)):
        with pytest.raises(InputSizeError, match="expected N x 3 x H x W"):
            model(wrong, wrong)


@every_micro
def test_every_parameter_gets_a_finite_gradient(name):
    model = build(name).train()
    before, after = pair(2, 64, 96)
    terms = model.loss(model.outputs(before, after), label(2, 64, 96))
    assert all(key.startswith("loss") and term.dim() == 0 for key, term in terms.items())
    sum(terms.values()).backward()
    for parameter_name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, parameter_name
        if parameter.grad is None:
            continue
        assert torch.isfinite(parameter.grad).all(), parameter_name


@every_micro
def test_a_few_steps_lower_the_loss(name):
    model = build(name).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    before, after = pair(2, 64, 64)
    target = torch.zeros(2, 64, 64, dtype=torch.int64)
    target[:, :32] = 1
    after = after + 2.0 * target[:, None]
    losses = []
    for _ in range(12):
        loss = sum(model.loss(model.outputs(before, after), target).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < 0.95 * losses[0]


@every_micro
def test_bfloat16_autocast_stays_near_float32(name):
    model = with_random_statistics(build(name))
    before, after = pair(2, 64, 64)
    with torch.no_grad():
        exact = model.outputs(before, after).logits
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model.outputs(before, after)
            losses = model.loss(outputs, label(2, 64, 64))
    assert (outputs.logits.float() - exact).abs().max() < 0.1 * exact.abs().max()
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in losses.values())


@every_micro
def test_evaluation_is_deterministic_and_training_drops(name):
    model = with_random_statistics(build(name))
    images = pair(2, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(*images), model(*images))
        drops = [m for m in model.modules() if isinstance(m, torch.nn.Dropout | torch.nn.Dropout2d) and m.p > 0]
        for module in drops:
            module.train()
        first = model(*images)
        assert all(torch.equal(first, model(*images)) for _ in range(5)) == (not drops)


@every_micro
def test_a_joint_batch_in_evaluation_equals_pairs_one_by_one(name):
    model = with_random_statistics(build(name)).double()
    before, after = (date.double() for date in pair(3, 64, 96))
    with torch.no_grad():
        together = model(before, after)
        alone = torch.cat([model(b[None], a[None]) for b, a in zip(before, after, strict=True)])
    assert torch.allclose(together, alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["fc_siam_conc", "fc_siam_diff", "test_fc", "test_tinycd", "tinycd"])
def test_siamese_encoders_give_each_date_its_own_features(name):
    model = with_random_statistics(build(name)).double()
    before, after = (date.double() for date in pair(2, 64, 96))
    calls = []
    model.encoder.register_forward_hook(lambda module, args, output: calls.append((args[0], output)))
    with torch.no_grad():
        model(before, after)
        (joint, features), *more = calls
        assert not more  # both dates in one pass
        assert torch.equal(joint, torch.cat((before, after)))
        alone = model.encoder(before), model.encoder(after)
    for level, first, second in zip(features, *alone, strict=True):
        assert torch.allclose(level, torch.cat((first, second)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "name",
    [
        "fc_siam_conc",
        "fc_siam_diff",
        "tinycd",
        "changer_mit_b0",
        "changer_r18",
        "changer_s50",
        "stanet_base",
        "test_bit",
        "test_changestar",
        "changestar_upernet",
    ],
)
def test_batch_norm_sees_one_date_at_a_time_in_training(name):
    model = build(name).train()
    batch_norms = [(key, module) for key, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]
    shared = [(key, m) for key, m in batch_norms if not key.startswith("decoder")]
    sizes = {key: [] for key, _ in shared}
    for key, module in shared:
        module.register_forward_hook(lambda module, args, output, key=key: sizes[key].append(len(args[0])))
    model.outputs(*pair(3, 64, 64))
    assert sizes
    assert all(size == [3, 3] for size in sizes.values())
    assert all(int(module.num_batches_tracked) == 2 for _, module in shared)


@every_micro
@pytest.mark.parametrize("reference", [False, True])
def test_ignored_pixels_pull_on_nothing(name, reference):
    """Gradients of full-size logits vanish under ignored pixels, and their labels' former value is irrelevant."""
    if reference and name == "test_changestar":
        pytest.skip("the reference's Dice loss pulls on them; see test_losses.py")
    model = build(name, reference_losses=reference)
    logits = model(*pair(1, 64, 64)).detach().requires_grad_()
    target = label(1, 64, 64)
    target[:, :, 40:] = 255
    outputs = model.outputs(*pair(1, 64, 64))
    outputs.logits = logits
    sum(model.loss(outputs, target).values()).backward()
    assert not logits.grad[..., 40:].any()
    assert logits.grad[..., :40].any()


@pytest.mark.parametrize("name", sorted(set(MICRO) - OTHER_LOSSES))
def test_the_reference_averages_over_ignored_pixels_too(name):
    target = label(1, 64, 64)
    target[:, :, 48:] = 255
    losses = {}
    for reference in (False, True):
        model = with_random_statistics(build(name, reference_losses=reference))
        with torch.no_grad():
            losses[reference] = sum(model.loss(model.outputs(*pair(1, 64, 64)), target).values())
    assert losses[True].item() == pytest.approx(0.75 * losses[False].item(), rel=1e-5)


def pairs_of_every_part() -> Batch:
    """Three pairs of 64 x 64 in 0..255, of small, medium and large CAR, the change visible; some pixels ignored."""
    generator = torch.Generator().manual_seed(4)
    before, after = torch.randint(60, 120, (2, 3, 3, 64, 64), generator=generator, dtype=torch.uint8)
    target = torch.zeros(3, 64, 64, dtype=torch.int64)
    for index, rows in enumerate((2, 8, 40)):
        target[index, :rows] = 1
    after[target[:, None].expand_as(after) == 1] += 100
    target[:, :, -4:] = 255
    return Batch(before, after, target)


def distillation(student: ChangeModel, networks: dict[str, ChangeModel], name: str) -> Learner:
    criterion = CRITERIA[name]
    teachers = PartTeachers(networks, view_for(criterion, student, networks.values()), CarPartition())
    return Learner(student, DistillationLoss(teachers, criterion.distance, lambda_=1.0, temperature=2.0))


def loss_terms(learner: Learner, batch: Batch) -> dict[str, torch.Tensor]:
    return learner(batch.before, batch.after, batch.target)


@every_micro
def test_origin_teachers_and_student_train(name):
    """A few steps through all stages: each lowers its loss, and the distillation term pulls on the student."""
    batch = pairs_of_every_part()

    def train(learner: Learner) -> list[float]:
        optimizer = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=3e-3)
        totals = []
        for step in range(8):
            torch.manual_seed(step)
            total = sum(loss_terms(learner, batch).values())
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            totals.append(total.item())
        return totals

    origin = build(name)
    fell = {"origin": train(Learner(origin))}
    teachers = {}
    for seed, part in enumerate(("small", "medium", "large")):
        torch.manual_seed(seed + 1)
        teachers[part] = create_model(name)
        fell[part] = train(Learner(teachers[part]))
    student = create_model(name)
    student.load_state_dict(origin.state_dict())
    learner = distillation(student, teachers, "mse")
    term = loss_terms(learner, batch)["loss_distillation"]
    gradients = torch.autograd.grad(term, [p for p in student.parameters() if p.requires_grad], allow_unused=True)
    assert term.item() > 0
    assert any(g is not None and g.abs().max() > 0 for g in gradients)
    fell["student"] = train(learner)
    assert all(min(losses[-3:]) < losses[0] for losses in fell.values()), fell


@every_micro
@pytest.mark.parametrize("name_of_criterion", ["mse", "kl"])
def test_it_learns_from_and_teaches_another_architecture(name, name_of_criterion):
    other = "test_tinycd" if name == "test_fc" else "test_fc"
    for student_name, teacher_name in ((name, other), (other, name)):
        student, teacher = build(student_name), build(teacher_name)
        learner = distillation(student, {part: teacher for part in ("small", "medium", "large")}, name_of_criterion)
        term = loss_terms(learner, pairs_of_every_part())["loss_distillation"]
        term.backward()
        assert torch.isfinite(term)
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in student.parameters())


@pytest.mark.parametrize("name", ["test_cgnet", "test_hanet", "test_snunet"])
def test_batch_norm_sees_one_date_at_a_time_in_the_encoder_and_both_fused_elsewhere(name):
    model = build(name).train()
    model.outputs(*pair(2, 32, 48))
    counts = {
        key: int(module.num_batches_tracked)
        for key, module in model.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    }
    assert all(count == (2 if key.startswith("encoder.") else 1) for key, count in counts.items()), counts


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in MICRO if model_card(name).compiles])
def test_compiled_it_gives_the_same(name):
    torch._dynamo.reset()  # it counts what other networks of this process made it compile again
    model = with_random_statistics(build(name))
    images = pair(2, 64, 96)
    with torch.no_grad():
        assert torch.allclose(torch.compile(model, fullgraph=True)(*images), model(*images), atol=1e-4)


@pytest.mark.parametrize("name", [name for name in MICRO if model_card(name).exports])
def test_export_leaves_batch_height_and_width_open(name):
    model = with_random_statistics(build(name))
    multiple = model.card.multiple
    least = -(-64 // multiple)
    open_sizes = {
        0: torch.export.Dim("batch", min=1, max=64),
        2: multiple * torch.export.Dim("rows", min=least, max=4096 // multiple),
        3: multiple * torch.export.Dim("columns", min=least, max=4096 // multiple),
    }
    exported = torch.export.export(model, pair(2, 96, 128), dynamic_shapes=(open_sizes, open_sizes)).module()
    for batch, height, width in ((1, 64, 64), (3, 160, 96)):
        images = pair(batch, height, width, seed=3)
        with torch.no_grad():
            assert torch.allclose(exported(*images), model(*images), atol=1e-5)


@every_micro
@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels_work(name, channels):
    model = build(name, in_channels=channels).eval()
    assert model.config["in_channels"] == channels
    assert model(*pair(1, 64, 64, channels)).shape == (1, model.num_logits, 64, 64)
    with pytest.raises(InputSizeError, match=rf"N x {channels} x H x W; .* in_channels={channels + 1}\)"):
        model(*pair(1, 64, 64, channels + 1))


@every_micro
def test_config_builds_the_same_network_again(name):
    model = build(name, reference_losses=True)
    again = create_model(name, **model.config)
    again.load_state_dict(model.state_dict())
    assert again.reference_losses
    images = pair(1, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(*images), again.eval()(*images))


@every_model
def test_pretrained_weights_that_cannot_be_had_are_an_error_at_once(name, monkeypatch):
    """Nothing is fetched here: the hub is taken to be out of reach and its cache to be empty."""
    asked = []
    monkeypatch.setattr(encoders, "_reachable", lambda url: asked.append(url) or False)

    def empty_cache(*args, pretrained=False, weights=None, **kwargs):
        assert encoders.constants.HF_HUB_OFFLINE
        raise FileNotFoundError("not in the cache")

    monkeypatch.setattr(encoders.timm, "create_model", empty_cache)
    monkeypatch.setattr(encoders, "get_encoder", empty_cache)
    offline = encoders.constants.HF_HUB_OFFLINE
    with pytest.raises(WeightsError, match=r"pretrained=False") as caught:
        create_model(name, pretrained=True)
    assert encoders.constants.HF_HUB_OFFLINE == offline
    if model_card(name).licence != "none":
        assert len(asked) == 1
        assert re.search(r"pretrained weights of \w+ .*not in the cache", str(caught.value))
    else:
        assert re.search(r"\w+ has no pretrained weights", str(caught.value))


def test_an_unknown_name_is_an_error_with_near_names():
    with pytest.raises(UnknownModelError, match="did you mean tinycd"):
        create_model("tinydc")
    with pytest.raises(UnknownModelError, match="did you mean tinycd"):
        create_model("TinyCD")
    with pytest.raises(UnknownModelError, match="did you mean fc_siam_diff"):
        create_model("FC-Siam-Diff")
    with pytest.raises(UnknownModelError, match="`bitemporal models` lists all"):
        model_card("qqq")


@every_model
def test_an_unknown_option_is_an_error(name):
    with pytest.raises(OptionError, match="wings"):
        create_model(name, wings=2)


@pytest.mark.parametrize("network", ["changer_mit_b0", "changeformer_mit_b0"])
def test_the_rules_pick_the_groups_of_the_reference(network):
    """Of models.md 1.5: no decay for names with ``norm`` (not the stages' last), ten times the rate in the head."""
    model = build(network)
    rules = model.card.training.rules
    groups: dict[ParameterRule | None, list[str]] = {}
    for name, _ in model.named_parameters():
        hits = sorted((rule for rule in rules if rule.match in name), key=lambda rule: len(rule.match))
        groups.setdefault(hits[-1] if hits else None, []).append(name)
        assert len(hits) < 2, name
    (no_decay,) = (names for rule, names in groups.items() if rule and rule.weight_decay == 0)
    (fast,) = (names for rule, names in groups.items() if rule and rule.lr == 10)
    norms = {name for name, module in model.named_modules() if isinstance(module, torch.nn.LayerNorm)}
    stage_norms = {f"encoder.{stage}.2" for stage in range(4)}
    assert {name.rsplit(".", 1)[0] for name in no_decay} == norms - stage_norms
    assert fast == [name for name, _ in model.named_parameters() if not name.startswith("encoder.")]


@every_micro
def test_cards_hold_the_recipe_of_the_reference(name):
    card = model_card(name)
    recipes = {
        "ban": (1e-4, 1e-4, "standard", 1e-3),
        "changer": (1e-4, 0.01, "changer", 1e-4),
        "changeformer": (6e-5, 0.01, "standard", 1e-3),
        "tinycd": (0.00356799066427741, 0.009449677083344786, "standard", 1e-5),
        "tinycd_v2": (3e-3, 0.05, "standard", 1e-3),
        "lightcdnet": (3e-3, 0.05, "standard", 5e-3),
        "fc": (1e-3, 0.05, "standard", 1e-3),
        "snunet": (1e-3, 0.05, "standard", 1e-4),
        "hanet": (1e-3, 0.05, "standard", 1e-3),
        "stanet": (1e-3, 0.05, "standard", 5e-3),
        "bit": (1e-3, 0.05, "standard", 1e-4),
        "changestar": (1e-3, 0.01, "standard", 1e-3),
        "ifn": (1e-3, 0.05, "standard", 1e-4),
        "cgnet": (5e-4, 0.0025, "standard", 1e-3),
        "ttp": (4e-4, 0.05, "standard", 5e-3),
        "siamese_unet": (1e-3, 0.05, "standard", 1e-3),
    }
    family = name.removeprefix("test_")
    expected = recipes[family] if family in recipes else recipes[family.split("_")[0]]
    training = card.training
    found = (training.lr, training.weight_decay, training.augmentation, training.distillation_weight)
    assert found == expected
    assert training.batch_size == (16 if name == "test_changestar" else 8)


def test_exchange_swaps_even_columns_or_channels_between_the_dates():
    joint = torch.arange(2 * 3 * 2 * 5.0).reshape(2, 3, 2, 5)
    before, after = joint
    columns = exchange(joint, 3)
    for w in range(5):
        assert torch.equal(columns[0, :, :, w], (after if w % 2 == 0 else before)[:, :, w])
        assert torch.equal(columns[1, :, :, w], (before if w % 2 == 0 else after)[:, :, w])
    channels = exchange(joint, 1)
    for c in range(3):
        assert torch.equal(channels[0, c], (after if c % 2 == 0 else before)[c])
        assert torch.equal(channels[1, c], (before if c % 2 == 0 else after)[c])


def test_warp_without_flow_is_the_identity_and_with_flow_shifts_columns_and_rows():
    height, width = 6, 9
    features = torch.rand(2, 3, height, width, dtype=torch.float64)
    still = torch.zeros(2, 2, height, width, dtype=torch.float64)
    assert torch.allclose(warp(features, still), features, atol=1e-12)
    flow = still.clone()
    flow[:, 0] = 2 * width / (width - 1)  # one column to the right
    shifted = warp(features, flow)
    assert torch.allclose(shifted[..., :-1], features[..., 1:], atol=1e-9)
    flow = still.clone()
    flow[:, 1] = -2 * height / (height - 1)  # one row up
    shifted = warp(features, flow)
    assert torch.allclose(shifted[..., 1:, :], features[..., :-1, :], atol=1e-9)


def test_the_efficientnet_stages_are_those_of_torchvision():
    """With the importer's rules, at a size whose features have odd sides, in training too, without dropped paths."""
    from bitemporal.interop.opencd.conversion import misfits

    theirs = torchvision.models.efficientnet_b4(weights=None, stochastic_depth_prob=0.0).features[:4]
    for name, parameter in theirs.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    ours = build("tinycd", drop_path=0.0).encoder
    state, problems = misfits("tinycd", {f"backbone._backbone.{k}": v for k, v in theirs.state_dict().items()})
    assert all(problem.startswith("missing: ") and "encoder." not in problem for problem in problems)
    ours.load_state_dict({key.removeprefix("encoder."): value for key, value in state.items()})
    images = pair(2, 72, 104)[0]
    for mode in (True, False):
        ours.train(mode), theirs.train(mode)
        expected = images
        output = ours(images)
        for i, stage in enumerate(theirs):
            expected = stage(expected)
            if i > 0:
                assert torch.allclose(output[i - 1], expected, atol=1e-4 * expected.abs().max().item())


def test_stochastic_depth_grows_as_in_torchvision():
    ours = [m.drop_prob for m in build("tinycd").modules() if type(m).__name__ == "DropPath"]
    theirs = [
        block.stochastic_depth.p
        for stage in torchvision.models.efficientnet_b4(weights=None).features[1:4]
        for block in stage
        if block.stochastic_depth.p > 0
    ]
    assert ours == pytest.approx(theirs)


def test_of_what_timm_says_only_the_expected_is_silenced(caplog, monkeypatch):
    monkeypatch.setattr("bitemporal.models.encoders._reachable", lambda url: True)
    state = timm.create_model("test_efficientnet").state_dict()

    def build(**more: torch.Tensor) -> Any:
        overlay = {"state_dict": {**state, **more}}
        options = {"features_only": True, "pretrained": True, "pretrained_cfg_overlay": overlay}
        return timm.create_model("test_efficientnet", **options)

    build()
    assert "Unexpected keys (conv_head" in caplog.text  # or there is nothing to silence any more
    caplog.clear()
    fetch_weights(build, "test_efficientnet", "a test")
    assert not caplog.records
    fetch_weights(partial(build, odd=torch.zeros(1)), "test_efficientnet", "a test")
    assert "odd" in caplog.text
    caplog.clear()
    build()
    assert caplog.records  # outside it is heard again
