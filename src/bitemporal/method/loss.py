"""The distillation term of MTKD (JL1-CD paper, arXiv 2502.13407, section on MTKD).

The student minimises its own supervised loss plus lambda times the mean distance to its teachers::

    L = L_task(student, label) + lambda * (1 / |Z|) * sum over z in Z of d(z_student, z_teacher)

Z are the outputs for all valid pixels of a batch. In the paper, d is the squared difference of raw outputs (``mse``),
and each pair has one teacher. The default here goes further (``benchmarks/study``)::

    L = L_task + lambda * T^2 * sum over teachers t of w_t * mean over Z of KL(teacher_t / T || student / T)

with a share w_t for each teacher's part, all shares adding up to 1, and a temperature T (``kl``, ``AllTeachers``).

``DistillationLoss`` computes the second summand. The sum itself is taken in ``run/fit.py``, ``training_step``, over the
terms that ``run/learner.py``, ``Learner.forward`` lists.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bitemporal.errors import RecipeError
from bitemporal.imagery.masks import IGNORE
from bitemporal.method.teachers import Teachers, View, log_odds, raw_outputs
from bitemporal.models import ChangeModel, ModelOutput
from bitemporal.pairs.batch import Batch


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of each output, d = (z_student - z_teacher)^2 (JL1-CD paper, section on MTKD, its loss).

    Args:
        student: Raw outputs or log-odds, n x K x h x w.
        teacher: Those of the teacher, the same shape.
    """
    return (student - teacher) ** 2


def kl(student: Tensor, teacher: Tensor) -> Tensor:
    """Kullback-Leibler divergence KL(teacher || student) of the probability of change of each pixel.

    In the paper's code this term has weight 0 (paper, section on MTKD). For two logits it is the divergence of their
    softmax. For one logit it is that of the Bernoulli distribution; a softmax over one channel would always give 0.

    Args:
        student: Log-odds, n x 1 x h x w.
        teacher: Those of the teacher, the same shape.
    """
    probability = torch.sigmoid(teacher)
    changed = probability * (F.logsigmoid(teacher) - F.logsigmoid(student))
    unchanged = (1 - probability) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return changed + unchanged


class Criterion(NamedTuple):
    """How a student is compared with a teacher (paper, section on MTKD).

    Attributes:
        distance: Takes the outputs of student and teacher, n x K x h x w, and gives the distance of each element.
        view: Which outputs it compares, where both networks are of one architecture; else log-odds are compared.
        default_lambda: Lambda where none is given; ``None`` takes the network's own, from the paper's Table II.
    """

    distance: Callable[[Tensor, Tensor], Tensor]
    view: View
    default_lambda: float | None


CRITERIA = {
    "kl": Criterion(kl, log_odds, default_lambda=1.0),  # it then weighs about as much as a pixel's cross-entropy
    "mse": Criterion(mse, raw_outputs, default_lambda=None),
}
"""Criteria by their names in a recipe, the default first; a new one is a function above and an entry here."""


def criterion(name: str) -> Criterion:
    """The criterion of a name: ``mse`` is the paper's (section on MTKD), ``kl`` the default here.

    Raises:
        RecipeError: When there is no such criterion.
    """
    if name not in CRITERIA:
        raise RecipeError(f"criterion: found {name!r}, expected one of {', '.join(CRITERIA)}")
    return CRITERIA[name]


def view_for(chosen: Criterion, student: ChangeModel, teachers: Iterable[ChangeModel]) -> View:
    """Which outputs to compare: raw ones mean the same in networks of one architecture only, as the paper's are.

    The paper's section on MTKD has teachers and student of one architecture.
    """
    alike = all(teacher.name == student.name and teacher.config == student.config for teacher in teachers)
    return chosen.view if alike else log_odds


@dataclass(frozen=True)
class DistillationLoss:
    """The distillation term: lambda times the mean distance to the teachers (JL1-CD paper, section on MTKD).

    Outputs are divided by the temperature T, and the distance is multiplied by T^2 (Hinton, Vinyals, Dean: Distilling
    the Knowledge in a Neural Network, 2015). This leaves ``mse`` as it is.

    Attributes:
        teachers: Who teaches which pair.
        distance: See ``Criterion``.
        lambda_: Lambda.
        temperature: T.
    """

    teachers: Teachers
    distance: Callable[[Tensor, Tensor], Tensor]
    lambda_: float
    temperature: float = 1.0

    def __call__(self, student: ChangeModel, outputs: ModelOutput, batch: Batch) -> Tensor:
        """The term for a batch.

        Args:
            student: The network that learns.
            outputs: Its outputs for the batch, from the pass that its supervised loss comes from.
            batch: The pairs and their masks; ignored pixels do not count.

        Returns:
            A scalar; 0 where no pair of the batch has a teacher.
        """
        totals, counts = [], []
        for target in self.teachers.targets(batch):
            own = self.teachers.view(student, _select(outputs, target.samples))
            own, theirs = _at_common_size(own, target.values)
            distance = self.distance(own / self.temperature, theirs / self.temperature)
            valid = valid_shares(batch.target[target.samples], distance.shape[-2:])
            valid = valid.repeat(len(distance) // len(valid), 1, 1, 1)  # some networks answer several times per pair
            totals.append(target.share * (valid * distance).sum())
            counts.append(target.share * valid.sum() * distance.shape[1])
        if not totals:
            return outputs.logits.sum() * 0.0  # in the graph, so that every step has the same terms
        count = torch.stack(counts).sum()
        mean = torch.stack(totals).sum() / count.clamp(min=torch.finfo(count.dtype).tiny)
        return self.lambda_ * self.temperature**2 * mean


def valid_shares(target: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Share of valid label pixels under each output pixel, N x 1 x h x w float32 in [0, 1].

    The paper's code counts ignored pixels in |Z| (section on MTKD); here they count nowhere.

    Args:
        target: Decoded masks, N x H x W, 255 ignored.
        size: Height and width of the output.
    """
    valid = (target != IGNORE).float()[:, None]
    return valid if valid.shape[-2:] == tuple(size) else F.interpolate(valid, size=tuple(size), mode="area")


def _select(outputs: ModelOutput, samples: Tensor) -> ModelOutput:
    return ModelOutput(outputs.logits[samples], {name: x[samples] for name, x in outputs.auxiliary.items()})


def _at_common_size(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors at the larger of the two sizes, so that no detail is lost."""
    size = max(tuple(first.shape[-2:]), tuple(second.shape[-2:]))
    resized = [
        x if tuple(x.shape[-2:]) == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        for x in (first, second)
    ]
    return resized[0], resized[1]
