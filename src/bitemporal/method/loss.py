"""How far a student's output is from a teacher's."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bitemporal.models import ChangeModel, ModelOutput
from bitemporal.run.recipe import Criterion


class WeightedSum(NamedTuple):
    """A sum over elements and the weight of what was summed: the mean over several groups is sums over weights."""

    total: Tensor
    weight: Tensor


def valid_weights(target: Tensor, size: tuple[int, int] | torch.Size, ignore: int = 255) -> Tensor:
    """Share of valid label pixels under each output pixel.

    Args:
        target: Decoded masks, N x H x W, 255 ignored.
        size: Height and width of the output.
        ignore: Value of pixels that count nowhere.

    Returns:
        N x 1 x h x w float32 in [0, 1]; all ones when nothing is ignored.
    """
    valid = (target != ignore).float()[:, None]
    return valid if valid.shape[-2:] == tuple(size) else F.interpolate(valid, size=tuple(size), mode="area")


def _common_size(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors at the larger of the two sizes, so that no detail is thrown away."""
    size = max(tuple(first.shape[-2:]), tuple(second.shape[-2:]))
    resized = [
        x if tuple(x.shape[-2:]) == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        for x in (first, second)
    ]
    return resized[0], resized[1]


def _log_odds(model: ChangeModel, outputs: ModelOutput) -> Tensor:
    return model.log_odds(outputs.logits.float())


def mean_squared_error(
    student: ChangeModel,
    outputs: ModelOutput,
    teacher: ChangeModel,
    targets: ModelOutput,
    label: Tensor,
    shift: float = 0.0,
) -> WeightedSum:
    """Squared differences of raw outputs, as in the paper: (1 / |Z|) sum (z_student - z_teacher)^2.

    Networks of one architecture are compared by their raw distillation tensors at the head's own stride, others by
    log-odds of change at the larger of the two sizes.

    Args:
        student: The network that learns.
        outputs: Its outputs.
        teacher: The network that teaches.
        targets: Its outputs, of the same pairs.
        label: Decoded masks, N x H x W; ignored pixels do not count.
        shift: Added to the teacher's log-odds of change; raw outputs of one architecture are compared as they are.
    """
    if student.name == teacher.name and student.config == teacher.config:
        ours = student.distillation_tensor(outputs).float()
        theirs = teacher.distillation_tensor(targets).float()
    else:
        ours, theirs = _common_size(_log_odds(student, outputs), _log_odds(teacher, targets) + shift)
    weights = valid_weights(label, ours.shape[-2:])
    weights = weights.repeat(len(ours) // len(label), 1, 1, 1)  # networks that answer several times a pair
    return WeightedSum((weights * (ours - theirs) ** 2).sum(), weights.sum() * ours.shape[1])


def kullback_leibler(
    student: ChangeModel,
    outputs: ModelOutput,
    teacher: ChangeModel,
    targets: ModelOutput,
    label: Tensor,
    shift: float = 0.0,
    *,
    temperature: float,
) -> WeightedSum:
    """T^2 KL(teacher || student) between the probabilities of change at a temperature, a pixel.

    For two logits this is the KL divergence of their softmax; for one logit that of the Bernoulli distribution, where
    the reference's softmax over a single channel is identically zero.

    Args:
        student: The network that learns.
        outputs: Its outputs.
        teacher: The network that teaches.
        targets: Its outputs, of the same pairs.
        label: Decoded masks, N x H x W; ignored pixels do not count.
        shift: Added to the teacher's log-odds of change.
        temperature: T; log-odds are divided by it.
    """
    ours, theirs = _common_size(_log_odds(student, outputs), _log_odds(teacher, targets) + shift)
    ours, theirs = ours / temperature, theirs / temperature
    probability = torch.sigmoid(theirs)
    divergence = probability * (F.logsigmoid(theirs) - F.logsigmoid(ours))
    divergence = divergence + (1 - probability) * (F.logsigmoid(-theirs) - F.logsigmoid(-ours))
    weights = valid_weights(label, ours.shape[-2:])
    return WeightedSum((weights * divergence).sum() * temperature**2, weights.sum())


KL_WEIGHT = 1.0
"""Lambda of ``kl`` where none is given: the term then weighs about as much as a pixel's cross-entropy."""

Compare = Callable[[ChangeModel, ModelOutput, ChangeModel, ModelOutput, Tensor, float], WeightedSum]
"""Takes what ``mean_squared_error`` takes."""


def criterion(name: Criterion, temperature: float) -> Compare:
    """The criterion of a name.

    Args:
        name: ``mse`` or ``kl``.
        temperature: Of ``kl``.
    """
    return mean_squared_error if name == "mse" else partial(kullback_leibler, temperature=temperature)
