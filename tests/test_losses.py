"""Losses against formulas in numpy, and the treatment of ignored pixels."""

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax

from bitemporal.losses import binary_cross_entropy, cross_entropy, ohem_cross_entropy

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


@pytest.mark.parametrize("kept", [0, 10, 100, 10_000])
def test_ohem_keeps_the_pixels_strictly_below_the_threshold(kept):
    logits, target = example(2)
    losses = true_class_losses(logits, target)
    probability = np.sort(np.exp(-losses))
    bound = max(0.7, probability[min(3 * kept, len(probability) - 1)])
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


@pytest.mark.parametrize("pixels", ["valid", "all"])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
class TestEveryLoss:
    def test_no_gradient_reaches_ignored_pixels(self, loss, pixels):
        logits, target = example(LOSSES[loss])
        logits.requires_grad_()
        loss(logits, target, pixels).backward()
        ignored = (target == 255)[:, None].expand_as(logits)
        assert logits.grad[ignored].abs().max() == 0
        assert logits.grad[~ignored].abs().min() >= 0
        assert logits.grad[~ignored].any()

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
