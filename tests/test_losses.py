"""Losses against formulas in numpy, and the treatment of ignored pixels."""

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax

from bitemporal.losses import (
    batch_balanced_contrastive,
    binary_cross_entropy,
    cross_entropy,
    dice,
    ohem_cross_entropy,
)

LOSSES = {cross_entropy: 2, binary_cross_entropy: 1, ohem_cross_entropy: 2}


def example(channels: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, channels, 12, 20, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 2, (3, 12, 20), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.3] = 255
    return logits, target


def true_class_losses(logits: torch.Tensor, target: torch.Tensor) -> np.ndarray:
    """Of the valid pixels, by scipy."""
    logs = log_softmax(logits.numpy(), axis=1)
    label = target.numpy()
    return -np.where(label == 1, logs[:, 1], logs[:, 0])[label != 255]


def test_cross_entropy_is_the_mean_over_valid_or_over_all_pixels():
    logits, target = example(2)
    losses = true_class_losses(logits, target)
    assert float(cross_entropy(logits, target)) == pytest.approx(losses.mean(), rel=1e-12)
    assert float(cross_entropy(logits, target, "all")) == pytest.approx(losses.sum() / target.numel(), rel=1e-12)


def test_binary_cross_entropy_is_the_mean_over_valid_or_over_all_pixels():
    logits, target = example(1)
    label = target.numpy()
    p = expit(logits.numpy()[:, 0])
    losses = -np.log(np.where(label == 1, p, 1 - p))[label != 255]
    assert float(binary_cross_entropy(logits, target)) == pytest.approx(losses.mean(), rel=1e-12)
    assert float(binary_cross_entropy(logits, target, "all")) == pytest.approx(losses.sum() / label.size, rel=1e-12)


@pytest.mark.parametrize("kept", [0, 10, 100, 140, 10_000])
def test_ohem_keeps_the_pixels_strictly_below_the_threshold(kept):
    logits, target = example(2)
    losses = true_class_losses(logits, target)
    probability = np.sort(np.exp(-losses))
    bound = max(0.7, probability[min(3 * kept, len(probability) - 1)])  # per image, over three images
    assert (bound > 0.7) == (kept >= 140)
    hard = losses[np.exp(-losses) < bound]
    assert len(hard) < len(losses)
    assert float(ohem_cross_entropy(logits, target, kept=kept)) == pytest.approx(hard.sum() / len(losses), rel=1e-12)
    everything = float(ohem_cross_entropy(logits, target, "all", kept=kept))
    assert everything == pytest.approx(hard.sum() / target.numel(), rel=1e-12)


def test_ohem_with_fewer_pixels_than_it_keeps_leaves_out_only_the_easiest():
    logits, target = example(2)
    losses = true_class_losses(logits, target)
    assert float(ohem_cross_entropy(logits, target)) == pytest.approx(
        (losses.sum() - losses.min()) / len(losses), rel=1e-12
    )


def test_ohem_counts_a_pixel_at_the_threshold_as_easy():
    logits = torch.zeros(1, 2, 1, 2)  # probability 0.5 for both
    target = torch.tensor([[[0, 1]]])
    assert float(ohem_cross_entropy(logits, target, threshold=0.5, kept=0)) == 0.0
    assert float(ohem_cross_entropy(logits, target, threshold=0.6, kept=0)) == pytest.approx(np.log(2))


def test_dice_is_of_the_changed_pixels_image_by_image():
    logits, target = example(1)
    target[1] = 255  # an image that counts nowhere
    expected = []
    for index in (0, 2):
        valid = target[index].numpy() != 255
        p, y = expit(logits.numpy()[index, 0])[valid], target[index].numpy()[valid]
        expected.append(1 - 2 * (p * y).sum() / ((p * p).sum() + (y * y).sum() + 2e-3))
    assert float(dice(logits, target)) == pytest.approx(np.mean(expected), rel=1e-12)


def test_dice_of_the_reference_is_of_the_unchanged_pixels_among_all():
    logits, target = example(1)
    expected = []
    for image, label in zip(logits.numpy()[:, 0], target.numpy(), strict=True):
        p, y = expit(image), label == 0
        expected.append(1 - 2 * (p * y).sum() / ((p * p).sum() + y.sum() + 2e-3))
    assert float(dice(logits, target, reference=True)) == pytest.approx(np.mean(expected), rel=1e-12)


def test_a_perfect_prediction_has_no_dice_loss_but_the_whole_of_the_references():
    target = example(1)[1].clamp(max=1)
    perfect = torch.where(target == 1, 30.0, -30.0)[:, None]
    assert float(dice(perfect, target)) == pytest.approx(0, abs=1e-4)
    assert float(dice(-perfect, target)) == pytest.approx(1, abs=1e-4)
    assert float(dice(perfect, target, reference=True)) == pytest.approx(1, abs=1e-4)


def test_the_contrastive_loss_is_balanced_between_the_classes():
    logits, target = example(1)
    distances = logits.abs()
    d, label = distances.numpy()[:, 0], target.numpy()
    unchanged, changed = (d**2)[label == 0], (np.maximum(2 - d, 0) ** 2)[label == 1]
    expected = unchanged.mean() + changed.mean()
    assert float(batch_balanced_contrastive(distances, target)) == pytest.approx(expected, rel=1e-12)
    expected = unchanged.sum() / ((label != 1).sum() + 255) + changed.sum() / ((label == 1).sum() + 255)
    assert float(batch_balanced_contrastive(distances, target, reference=True)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss", [dice, batch_balanced_contrastive])
class TestLossesOfOneClass:
    def test_ignored_pixels_and_their_logits_count_nowhere(self, loss):
        logits, target = example(1)
        ignored = (target == 255)[:, None]
        assert torch.equal(loss(torch.where(ignored, logits + 5, logits), target), loss(logits, target))

    def test_zero_and_differentiable_when_nothing_is_valid(self, loss):
        logits, target = example(1)
        logits.requires_grad_()
        value = loss(logits, torch.full_like(target, 255))
        value.backward()
        assert value.item() == 0
        assert not logits.grad.any()

    @pytest.mark.parametrize("label", [0, 1])
    def test_finite_when_a_class_is_absent(self, loss, label):
        logits, target = example(1)
        assert torch.isfinite(loss(logits, torch.full_like(target, label)))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_is_summed_in_float32(self, loss, dtype):
        logits, target = example(1)
        logits = logits.to(dtype)
        value = loss(logits, target)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(loss(logits.double(), target).item(), rel=1e-5)


@pytest.mark.parametrize("pixels", ["valid", "all"])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
class TestEveryLoss:
    def test_no_gradient_reaches_ignored_pixels(self, loss, pixels):
        logits, target = example(LOSSES[loss])
        logits.requires_grad_()
        loss(logits, target, pixels).backward()
        ignored = (target == 255)[:, None].expand_as(logits)
        assert logits.grad[ignored].abs().max() == 0
        pulled = logits.grad.abs().amax(1)[target != 255] > 0
        # but for the easy pixels that hard example mining leaves out
        assert pulled.all() if loss is not ohem_cross_entropy else pulled.any()

    def test_changing_ignored_logits_changes_nothing(self, loss, pixels):
        logits, target = example(LOSSES[loss])
        other = torch.where((target == 255)[:, None], logits + 5, logits)
        assert torch.equal(loss(other, target, pixels), loss(logits, target, pixels))

    def test_is_zero_and_differentiable_when_nothing_is_valid(self, loss, pixels):
        logits, target = example(LOSSES[loss])
        logits.requires_grad_()
        value = loss(logits, torch.full_like(target, 255), pixels)
        value.backward()
        assert value.item() == 0
        assert logits.grad is not None
        assert not logits.grad.any()

    def test_logits_at_a_coarser_stride_are_resized_to_the_label(self, loss, pixels):
        logits, _ = example(LOSSES[loss])
        target = example(LOSSES[loss], seed=1)[1].repeat_interleave(4, 1).repeat_interleave(4, 2)
        resized = torch.nn.functional.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
        assert torch.allclose(loss(logits, target, pixels), loss(resized, target, pixels), rtol=1e-12)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_logits_are_summed_in_float32(self, loss, pixels, dtype):
        logits, target = example(LOSSES[loss])
        logits = logits.to(dtype)
        value = loss(logits, target, pixels)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(loss(logits.double(), target, pixels).item(), rel=1e-5)


def test_a_batch_with_no_ignored_pixel_has_one_mean():
    for loss, channels in LOSSES.items():
        logits, target = example(channels)
        target = target.clamp(max=1)
        assert torch.allclose(loss(logits, target, "valid"), loss(logits, target, "all"), rtol=1e-12)
