"""Distillation: criteria against formulas, and a test for each defect of the reference that could come back.

The defects F1 ... F17 are those found in the reference implementation (docs/reference-defects.md).
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import brentq
from torch.distributions import Bernoulli, kl_divergence

from bitemporal.method.calibration import Calibration
from bitemporal.method.car import CarPartition
from bitemporal.method.loss import CRITERIA, DistillationLoss, kl, valid_shares, view_for
from bitemporal.method.teachers import AllTeachers, PartTeachers, Target, Teachers, calibrate, log_odds
from bitemporal.models import ModelOutput, Normalisation, create_model
from bitemporal.models.base import TrainingDefaults
from bitemporal.pairs.batch import Batch
from bitemporal.run.fit import training_step
from bitemporal.run.learner import Learner, Optimisation
from bitemporal.run.processes import make_fabric
from bitemporal.run.recipe import TrainRecipe

OPTIMISATION = Optimisation(TrainingDefaults(lr=1e-3, weight_decay=0.0), steps=10, warmup_steps=0)
PARTITION = CarPartition()
SIZE = 32


def batch(cars: list[float], seed: int = 0, ignored: float = 0.0) -> Batch:
    """Random images whose masks have (nearly) the given CARs; a share of the rows is ignored."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, len(cars), 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    target = torch.zeros(len(cars), SIZE * SIZE, dtype=torch.int64)
    for mask, car in zip(target, cars, strict=True):
        mask[: round(car * SIZE * SIZE)] = 1
    target = target.view(-1, SIZE, SIZE)
    if ignored:
        target[:, -round(ignored * SIZE) :] = 255
    return Batch(images[0], images[1], target)


def networks(name: str = "test_tinycd", parts: tuple[str, ...] = PARTITION.names) -> dict[str, torch.nn.Module]:
    made = {}
    for seed, part in enumerate(parts, start=1):
        torch.manual_seed(seed)
        made[part] = create_model(name)
    return made


def learning(
    weight: float = 1.0, name: str = "mse", student: str = "test_tinycd", teacher: str = "test_tinycd"
) -> Learner:
    torch.manual_seed(0)
    network, teachers = create_model(student), networks(teacher)
    view = view_for(CRITERIA[name], network, teachers.values())
    return Learner(
        network, DistillationLoss(PartTeachers(teachers, view, PARTITION), CRITERIA[name].distance, weight, 2.0)
    )


def loss_terms(learner: Learner, pairs: Batch) -> dict[str, torch.Tensor]:
    return learner(pairs.before, pairs.after, pairs.target)


def distance_of(name: str, ours: torch.Tensor, theirs: torch.Tensor, label: torch.Tensor, temperature: float = 2.0):
    """The term for a student with some outputs and one teacher with others."""

    class Saying(Teachers):
        def targets(self, batch: Batch) -> list[Target]:
            return [Target(self.view(model, ModelOutput(theirs)), torch.arange(len(theirs)), 1.0)]

    model = create_model("test_fc" if ours.shape[1] == 2 else "test_tinycd")
    term = DistillationLoss(Saying({}, CRITERIA[name].view), CRITERIA[name].distance, 1.0, temperature)
    return term(model, ModelOutput(ours), Batch(label, label, label))


def gradients(weight: float, pairs: Batch) -> torch.Tensor:
    module = learning(weight)
    torch.manual_seed(3)
    sum(loss_terms(module, pairs).values()).backward()
    return torch.cat([p.grad.flatten() for p in module.model.parameters() if p.grad is not None])


def test_f1_weight_of_the_distillation_term_changes_the_gradients():
    pairs = batch([0.0, 0.1, 0.5, 0.9])
    without, little, much = (gradients(weight, pairs) for weight in (0.0, 1.0, 1e3))
    assert (much - without).norm() > 100 * (little - without).norm() > 0
    # the gradient of a weighted sum is linear in the weight
    assert torch.allclose(much - without, 1e3 * (little - without), rtol=1e-2, atol=1e-3 * float(much.abs().max()))


def test_f1_total_that_is_back_propagated_holds_the_distillation_term():
    module = learning().train()
    before = {name: value.detach().clone() for name, value in module.model.named_parameters()}
    fabric = make_fabric(TrainRecipe(model="test_tinycd", data="-", out="-"))
    network, optimiser = fabric.setup(module, torch.optim.SGD(module.parameters(), lr=1e-3))
    pairs = batch([0.02, 0.5]).to(fabric.device)
    result = {name: float(value) for name, value in training_step(fabric, network, optimiser, pairs, None).items()}
    assert result["loss_distillation"] > 0
    total = result.pop("loss")
    assert total == pytest.approx(sum(result.values()), rel=1e-6)
    again = learning().train().to(fabric.device)
    sum(loss_terms(again, pairs).values()).backward()
    for name, value in again.model.named_parameters():  # one step of gradient descent on that sum
        if value.grad is not None:
            assert torch.allclose(
                before[name].to(fabric.device) - module.model.get_parameter(name), 1e-3 * value.grad, atol=1e-6
            )


def test_without_weight_the_student_takes_the_steps_of_the_control():
    pairs = batch([0.0, 0.1, 0.5])
    control = learning()
    torch.manual_seed(3)
    sum(control.model.loss(control.outputs(pairs), pairs.target).values()).backward()
    alone = torch.cat([p.grad.flatten() for p in control.model.parameters() if p.grad is not None])
    assert torch.equal(gradients(0.0, pairs), alone)


def test_f2_teachers_stay_in_eval_mode_and_do_not_drift():
    module = learning()
    before = {
        (part, name): value.clone()
        for part, teacher in module.distillation.teachers.networks.items()
        for name, value in teacher.state_dict().items()
    }
    module.train()
    for seed in range(3):
        sum(loss_terms(module, batch([0.0, 0.1, 0.5], seed)).values()).backward()
    for part, teacher in module.distillation.teachers.networks.items():
        assert not any(m.training for m in teacher.modules())
        for name, value in teacher.state_dict().items():
            assert torch.equal(value, before[part, name]), (part, name)


def test_f2_a_teacher_says_the_same_twice():
    module = learning()
    module.train()
    pairs = batch([0.5, 0.6])
    first, second = (module.distillation.teachers.targets(pairs)[0].values for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", ["test_tinycd", "test_changer", "test_fc"])
def test_f3_one_pair_in_a_part_is_no_trouble(name):
    module = learning(student=name, teacher=name).train()
    assert math.isfinite(float(loss_terms(module, batch([0.0, 0.1, 0.5, 0.7]))["loss_distillation"].detach()))


def test_f4_padding_does_not_choose_the_teacher():
    bank = PartTeachers(networks(), log_odds, PARTITION)
    unchanged = batch([0.0], ignored=0.5)
    assert list(bank.routes(unchanged.target)) == ["small"]
    target = torch.full((1, 10, 10), 255)
    target[0, 0] = torch.tensor([1] + [0] * 9)  # 1 of 10 valid pixels
    assert list(bank.routes(target)) == ["medium"]


def test_f5_a_car_at_the_threshold_belongs_to_the_lower_part():
    bank = PartTeachers(networks(), log_odds, PARTITION)
    target = torch.zeros(3, 10, 10, dtype=torch.int64)
    target[0].view(-1)[:5] = 1
    target[1].view(-1)[:20] = 1
    target[2].view(-1)[:21] = 1
    assert {part: samples.tolist() for part, samples in bank.routes(target).items()} == {
        "small": [0],
        "medium": [1],
        "large": [2],
    }


def test_mask_without_a_valid_pixel_has_no_teacher():
    module = learning()
    pairs = batch([0.3, 0.3])
    pairs.target[0] = 255
    assert torch.cat(list(module.distillation.teachers.routes(pairs.target).values())).tolist() == [1]
    pairs.target[1] = 255
    terms = loss_terms(module, pairs)
    assert float(terms["loss_distillation"].detach()) == 0.0
    sum(terms.values()).backward()


def test_f11_f12_teachers_are_in_no_optimiser_no_checkpoint_no_count():
    module = learning()
    alone = create_model("test_tinycd")
    assert len(module.state_dict()) == len(alone.state_dict())
    assert sum(p.numel() for p in module.parameters()) == sum(p.numel() for p in alone.parameters())
    optimised = {id(p) for group in OPTIMISATION.optimiser(module.model).param_groups for p in group["params"]}
    for teacher in module.distillation.teachers.networks.values():
        assert all(not p.requires_grad and id(p) not in optimised for p in teacher.parameters())


def test_f13_one_student_pass_and_one_batched_pass_a_part():
    module = learning().train()
    calls: list[tuple[str, int]] = []
    for name, network in {"student": module.model, **module.distillation.teachers.networks}.items():
        inner = network.outputs

        def counted(before, after, name=name, inner=inner):
            calls.append((name, len(before)))
            return inner(before, after)

        network.outputs = counted
    loss_terms(module, batch([0.0, 0.01, 0.1, 0.5, 0.6, 0.7]))
    assert sorted(calls) == [("large", 3), ("medium", 1), ("small", 2), ("student", 6)]


def test_f13_batch_norm_of_the_student_counts_one_pass_a_step():
    module = learning(student="test_changer", teacher="test_changer").train()
    counters = {n: b.clone() for n, b in module.model.named_buffers() if n.endswith("num_batches_tracked")}
    alone = learning(student="test_changer", teacher="test_changer").train()
    pairs = batch([0.0, 0.5])
    loss_terms(module, pairs)
    alone.model.loss(alone.outputs(pairs), pairs.target)
    assert counters
    for name, buffer in module.model.named_buffers():
        if name in counters:
            assert torch.equal(buffer, dict(alone.model.named_buffers())[name]), name


def test_f14_ignored_pixels_are_not_distilled():
    module = learning(student="test_fc", teacher="test_fc").eval()
    pairs = batch([0.3, 0.4], ignored=0.25)
    outputs = module.outputs(pairs)
    outputs.logits.retain_grad()
    module.distillation(module.model, outputs, pairs).backward()
    gradient = outputs.logits.grad
    assert (gradient[:, :, pairs.target[0] == 255] == 0).all()
    assert (gradient[:, :, pairs.target[0] != 255] != 0).any()


@pytest.mark.parametrize("name", ["test_fc", "test_tinycd"])
def test_distance_is_the_mean_over_all_parts_together(name):
    """(1 / |Z|) sum over the batch tensor, not a mean of the parts' means; every network sees its own normalisation."""
    module = learning(student=name, teacher=name).eval()
    networks = {"student": module.model, **module.distillation.teachers.networks}
    for i, network in enumerate(networks.values()):
        own = Normalisation(mean=(90.0 + 9 * i, 100.0, 110.0), std=(40.0, 50.0, 60.0 + 9 * i))
        network.card = replace(network.card, normalisation=own)

    def by_hand(part: str, dates: list[torch.Tensor]) -> torch.Tensor:
        own = networks[part].card.normalisation
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (own.mean, own.std))
        with torch.no_grad():
            return networks[part].outputs(*((date.float() - mean) / std for date in dates)).logits

    pairs = batch([0.0, 0.1, 0.5, 0.6])
    expected = []
    for i, part in enumerate(["small", "medium", "large", "large"]):
        dates = [pairs.before[i : i + 1], pairs.after[i : i + 1]]
        expected.append((by_hand("student", dates) - by_hand(part, dates)) ** 2)
    assert torch.allclose(
        module.distillation(module.model, module.outputs(pairs), pairs), torch.cat(expected).mean(), rtol=1e-4
    )


def test_kl_is_the_divergence_of_the_softmax():
    ours, theirs = torch.randn(2, 2, 8, 8), torch.randn(2, 2, 8, 8)
    got = distance_of("kl", ours, theirs, torch.zeros(2, 8, 8, dtype=torch.int64))
    expected = 4 * F.kl_div(F.log_softmax(ours / 2, 1), F.softmax(theirs / 2, 1), reduction="sum") / (2 * 8 * 8)
    assert torch.allclose(got, expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["mse", "kl"])
def test_distance_is_the_mean_over_the_valid_pixels_alone(name):
    ours, theirs = torch.randn(2, 2, 8, 8), torch.randn(2, 2, 8, 8)
    label = torch.zeros(2, 8, 8, dtype=torch.int64)
    label[0, :, 5:] = label[1, :3] = 255
    got = distance_of(name, ours, theirs, label)
    o, t = (x.permute(0, 2, 3, 1)[label == 0] for x in (ours, theirs))
    divergence = 4 * F.kl_div(F.log_softmax(o / 2, 1), F.softmax(t / 2, 1), reduction="batchmean")
    expected = F.mse_loss(o, t) if name == "mse" else divergence
    assert float(got) == pytest.approx(float(expected), rel=1e-4)


def test_kl_of_one_channel_is_not_zero():
    got = kl(torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 2.0))
    p = 1 / (1 + math.exp(-2))
    expected = p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)
    assert got.shape == (1, 1, 4, 4)
    assert got.numpy() == pytest.approx(np.full((1, 1, 4, 4), expected), rel=1e-4)


def test_other_architectures_are_compared_by_log_odds_at_the_larger_size():
    student, teacher = create_model("test_tinycd"), create_model("test_changer")
    ours, theirs = torch.randn(1, 1, 32, 32), torch.randn(1, 2, 8, 8)
    label = torch.zeros(1, 32, 32, dtype=torch.int64)
    view = view_for(CRITERIA["mse"], student, [teacher])

    class Saying(Teachers):
        def targets(self, batch: Batch) -> list[Target]:
            return [Target(self.view(teacher, ModelOutput(theirs)), torch.arange(1), 1.0)]

    term = DistillationLoss(Saying({}, view), CRITERIA["mse"].distance, 1.0)
    got = term(student, ModelOutput(ours), Batch(label, label, label))
    odds = F.interpolate(theirs[:, 1:] - theirs[:, :1], size=(32, 32), mode="bilinear", align_corners=False)
    assert torch.allclose(got, ((ours - odds) ** 2).mean(), rtol=1e-4)


@pytest.mark.parametrize("name", ["mse", "kl"])
@pytest.mark.parametrize(("student", "teacher"), [("test_tinycd", "test_changer"), ("test_changer", "test_fc")])
def test_any_student_learns_from_any_teacher(name, student, teacher):
    module = learning(name=name, student=student, teacher=teacher).train()
    terms = loss_terms(module, batch([0.0, 0.1, 0.5]))
    terms["loss_distillation"].backward()
    assert sum(float(p.grad.abs().sum()) for p in module.model.parameters() if p.grad is not None) > 0


@pytest.mark.parametrize("thresholds", [(0.1,), (0.05, 0.2), (0.02, 0.05, 0.2, 0.5)])
def test_any_number_of_parts(thresholds):
    partition = CarPartition(thresholds)
    bank = PartTeachers(networks(parts=partition.names), log_odds, partition)
    cars = [0.0, *[t + 0.01 for t in thresholds]]
    routed = bank.routes(batch(cars).target)
    assert [samples.tolist() for samples in routed.values()] == [[i] for i in range(len(cars))]


def test_all_teachers_teach_every_pair_as_much_as_their_part_has_pairs():
    """The term is the mean over the teachers of torch's own divergence, weighted by their training pairs."""
    trained_on = {"small": 1, "medium": 3, "large": 4}
    teachers, pairs = AllTeachers(networks(), log_odds, trained_on), batch([0.0, 0.1, 0.5])
    torch.manual_seed(0)
    student = create_model("test_tinycd")
    module = Learner(student, DistillationLoss(teachers, kl, 1.0, 2.0)).eval()
    found = float(loss_terms(module, pairs)["loss_distillation"].detach())

    def bernoulli(network):
        dates = [network.card.normalisation(date) for date in (pairs.before, pairs.after)]
        with torch.no_grad():
            return Bernoulli(logits=network.eval().outputs(*dates).logits / 2)

    each = {part: 4 * float(kl_divergence(bernoulli(t), bernoulli(student)).mean()) for part, t in networks().items()}
    assert found == pytest.approx(np.average(list(each.values()), weights=[trained_on[p] for p in each]), rel=1e-4)
    teachers.shifts["large"] = -0.7
    moved = bernoulli(networks()["large"]).logits - 0.7 / 2
    each["large"] = 4 * float(kl_divergence(Bernoulli(logits=moved), bernoulli(student)).mean())
    found = float(loss_terms(module, pairs)["loss_distillation"].detach())
    assert found == pytest.approx(np.average(list(each.values()), weights=[trained_on[p] for p in each]), rel=1e-4)
    assert found != pytest.approx(np.mean(list(each.values())), rel=1e-3)
    by_part = learning(name="kl").eval()
    assert float(loss_terms(by_part, pairs)["loss_distillation"].detach()) != pytest.approx(found, rel=1e-3)


@pytest.mark.parametrize("stride", [1, 4])
def test_a_calibrated_network_finds_as_much_change_as_there_is(stride):
    """The shift is the root that scipy finds."""
    generator = torch.Generator().manual_seed(0)
    calibration, values, weights, changed = Calibration(), [], [], 0.0
    for car in (0.0, 0.1, 0.6):
        pairs = batch([car, car / 2], ignored=0.25)
        odds = 3 * torch.randn(2, 1, SIZE // stride, SIZE // stride, generator=generator) - 4
        calibration.add(odds, pairs.target)
        blocks = pairs.target.view(2, SIZE // stride, stride, SIZE // stride, stride)
        weights.append((blocks != 255).double().mean((2, 4)).flatten())
        values.append(odds.double().flatten())
        changed += float((blocks == 1).double().mean((2, 4)).sum())
    values, weights = torch.cat(values), torch.cat(weights)
    expected = brentq(lambda shift: float(weights @ torch.sigmoid(values + shift)) - changed, -20, 20)
    assert calibration.shift() == pytest.approx(expected, abs=0.01)
    assert abs(expected) > 0.5


@pytest.mark.parametrize("value", [0, 1, 255])
def test_pairs_of_one_kind_shift_nothing(value):
    calibration = Calibration()
    assert calibration.shift() == 0.0
    calibration.add(torch.randn(1, 1, SIZE // 4, SIZE // 4), torch.full((1, SIZE, SIZE), value))
    assert calibration.shift() == 0.0


def test_teachers_of_other_priors_are_brought_together():
    """Three copies of one network, two of which find more or less change by a constant."""
    copies = {part: networks()["small"] for part in PARTITION.names}
    for part, constant in (("medium", 1.5), ("large", -2.0)):
        outputs = copies[part].outputs
        copies[part].outputs = lambda *dates, outputs=outputs, constant=constant: ModelOutput(
            outputs(*dates).logits + constant
        )
    shifts = calibrate(copies, [batch([0.0, 0.1, 0.5]), batch([0.3])])
    assert shifts["small"] - shifts["medium"] == pytest.approx(1.5, abs=0.02)
    assert shifts["small"] - shifts["large"] == pytest.approx(-2.0, abs=0.02)


def test_log_odds_beyond_the_histogram_count_as_its_ends():
    """Saturated pixels are sure, however far the shift moves them: they are no less pixels than the others."""
    calibration, label = Calibration(), torch.zeros(1, 10, 10, dtype=torch.int64)
    label[0, :5] = 1
    odds = torch.full((1, 1, 10, 10), 1.0)
    odds[0, 0, :2], odds[0, 0, 8:] = 50.0, -50.0
    calibration.add(odds, label)
    # 20 pixels are surely changed, 20 surely not; 30 of the other 60 must be
    assert calibration.shift() == pytest.approx(-1.0, abs=0.01)
    assert calibration.pixels.sum() == 100


@pytest.mark.parametrize("odds, changed, shift", [(100.0, 1, -20.0), (-100.0, 99, 20.0)])
def test_a_network_that_is_sure_of_the_opposite_is_shifted_as_far_as_a_shift_goes(odds, changed, shift):
    calibration, label = Calibration(), torch.zeros(1, 10, 10, dtype=torch.int64)
    label.view(-1)[:changed] = 1
    calibration.add(torch.full((1, 1, 10, 10), odds), label)
    assert calibration.shift() == shift


def test_the_shift_is_added_to_the_teachers_log_odds_in_mse_across_architectures():
    pairs, student = batch([0.0, 0.1, 0.5]), create_model("test_changer").eval()
    teacher = networks(parts=("large",))
    view = view_for(CRITERIA["mse"], student, teacher.values())
    teachers = AllTeachers(teacher, view, {"large": 1}, {"large": -0.7})
    dates = [student.card.normalisation(date) for date in (pairs.before, pairs.after)]
    with torch.no_grad():
        ours = student.outputs(*dates)
        theirs = teacher["large"].outputs(*dates).logits.float() - 0.7  # one logit: log-odds but for the threshold
    assert teacher["large"].threshold == 0.5 and student.card.normalisation == teacher["large"].card.normalisation
    odds = ours.logits[:, 1:].float() - ours.logits[:, :1].float()
    size = max(odds.shape[-1], theirs.shape[-1])
    odds, theirs = (
        F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False) if x.shape[-1] < size else x
        for x in (odds, theirs)
    )
    found = DistillationLoss(teachers, CRITERIA["mse"].distance, 1.0)(student, ours, pairs)
    assert float(found) == pytest.approx(float(((odds - theirs) ** 2).mean()), rel=1e-4)


def test_part_without_a_teacher_is_not_distilled():
    bank = PartTeachers({"large": networks()["large"]}, log_odds, PARTITION)
    assert {part: samples.tolist() for part, samples in bank.routes(batch([0.0, 0.5]).target).items()} == {"large": [1]}


def test_valid_weights_are_shares_of_valid_pixels():
    target = torch.zeros(1, 8, 8, dtype=torch.int64)
    target[:, :, 6:] = 255
    weights = valid_shares(target, (2, 2))
    assert torch.allclose(weights, torch.tensor([[[[1.0, 0.5], [1.0, 0.5]]]]))
