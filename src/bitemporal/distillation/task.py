"""The student's training: task loss plus the distance to the teacher of each pair's part, from one pass."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bitemporal.car import CarPartition, change_area_ratios
from bitemporal.data.loading import Batch
from bitemporal.distillation.criteria import Compare, WeightedSum
from bitemporal.models import ChangeModel, ModelOutput
from bitemporal.recipe import RoutingCar, Weighting
from bitemporal.training.task import ChangeTask, Optimisation


class TeacherBank:
    """Frozen teachers, a network a part of the partition.

    Deliberately no ``nn.Module``: whatever holds it does not see the teachers' parameters, so they are in no
    optimiser, no checkpoint and no parameter count, and ``train()`` of the student cannot reach them.
    """

    def __init__(
        self,
        teachers: Mapping[str, ChangeModel],
        partition: CarPartition,
        weighting: Weighting = "hard",
        car: RoutingCar = "crop",
        frequencies: Mapping[str, float] | None = None,
    ) -> None:
        """Freeze the teachers.

        Args:
            teachers: Networks by name of their part; a part without one is not distilled.
            partition: Routes by CAR.
            weighting: How teachers share a pair.
            car: Whose CAR routes.
            frequencies: Share of the training pairs by part, for the weighting of that name.
        """
        self.partition, self.weighting, self.car = partition, weighting, car
        self.frequencies = frequencies
        self.teachers = {part: teacher.eval().requires_grad_(False) for part, teacher in teachers.items()}

    def to(self, device: torch.device) -> None:
        """Move the teachers to a device."""
        for teacher in self.teachers.values():
            teacher.to(device)

    def shares(self, batch: Batch) -> dict[str, Tensor]:
        """How much each teacher has to say of each sample, N; a sample without a valid pixel has none.

        Args:
            batch: Whose CARs route.
        """
        cars = (change_area_ratios(batch.target) if self.car == "crop" else batch.car).cpu().numpy()
        names = self.partition.names
        if self.weighting == "hard":
            table = np.eye(len(names))[self.partition.indices(cars)]
        elif self.weighting == "all":
            table = np.full((len(cars), len(names)), 1 / len(names))
        elif self.weighting in ("frequency", "calibrated") and self.frequencies is not None:
            table = np.tile([self.frequencies[name] for name in names], (len(cars), 1))
        else:
            table = _soft_parts(cars, self.partition.thresholds)
        table[np.isnan(cars)] = 0
        return {
            name: torch.from_numpy(table[:, i]).float()
            for i, name in enumerate(names)
            if name in self.teachers and table[:, i].any()
        }

    @torch.no_grad()
    def calibrate(self, part: str, outputs: ModelOutput, target: Tensor) -> None:
        """One step towards the shift of the log-odds with which as much is changed as in the labels."""
        teacher = self.teachers[part]
        odds = teacher.log_odds(outputs.logits.float()) + getattr(teacher, "teacher_shift", 0.0)
        size = tuple(odds.shape[-2:])
        valid = torch.nn.functional.interpolate((target != 255).float()[:, None], size=size, mode="area")
        changed = torch.nn.functional.interpolate((target == 1).float()[:, None], size=size, mode="area")
        probability = torch.sigmoid(odds)
        steps = getattr(teacher, "teacher_steps", 0)
        excess = (valid * probability - changed).sum() / valid.sum().clamp(min=1)
        slope = (valid * probability * (1 - probability)).sum() / valid.sum().clamp(min=1)
        step = (excess / slope.clamp(min=1e-2)).clamp(-1, 1) / (2 + 0.2 * steps)
        teacher.teacher_shift = getattr(teacher, "teacher_shift", 0.0) - float(step)
        teacher.teacher_steps = steps + 1
        if steps % 50 == 49:
            print(part, steps + 1, round(teacher.teacher_shift, 3), flush=True)

    @torch.no_grad()
    def outputs(self, part: str, batch: Batch, samples: Tensor) -> ModelOutput:
        """What a part's teacher says of its samples, in one batched pass."""
        teacher = self.teachers[part]
        normalise = teacher.card.normalisation
        return teacher.outputs(normalise(batch.before[samples]), normalise(batch.after[samples]))


def _soft_parts(cars: npt.NDArray[np.float64], thresholds: Sequence[float]) -> npt.NDArray[np.float64]:
    """Shares of the parts, N x parts: even at a threshold, whole half-way (in log CAR) to the next one."""
    logs = np.log(np.maximum(np.nan_to_num(cars), 1e-3))
    cuts = np.log(thresholds)
    width = np.log(2.0)  # from half the threshold to twice it
    above = np.clip((logs[:, None] - cuts) / (2 * width) + 0.5, 0, 1)
    ones, zeros = np.ones((len(cars), 1)), np.zeros((len(cars), 1))
    return np.maximum(np.hstack([ones, above]) - np.hstack([above, zeros]), 0)


def _select(outputs: ModelOutput, samples: Tensor) -> ModelOutput:
    return ModelOutput(outputs.logits[samples], {name: x[samples] for name, x in outputs.auxiliary.items()})


class DistillationTask(ChangeTask):
    """Trains a student on its own loss and on the teacher of each pair's part (JL1-CD paper, section on MTKD).

    The CAR that chooses the teacher is that of the augmented mask, on its valid pixels.
    """

    def __init__(
        self,
        model: ChangeModel,
        optimisation: Optimisation,
        seed: int,
        teachers: TeacherBank,
        compare: Compare,
        weight: float,
        ema: float | None = None,
    ) -> None:
        """Start a task.

        Args:
            model: The student, with the origin's weights.
            optimisation: How it learns.
            seed: As for any stage.
            teachers: Frozen teachers.
            compare: Distillation criterion.
            weight: lambda.
            ema: As for any stage.
        """
        super().__init__(model, optimisation, seed, ema)
        self.teachers, self.compare, self.weight = teachers, compare, weight

    def on_fit_start(self) -> None:
        """Bring the teachers to the student's device."""
        self.teachers.to(self.device)

    def loss_terms(self, batch: Batch) -> dict[str, Tensor]:
        """The student's own terms and ``loss_distillation``, both from its single pass."""
        outputs = self.outputs(batch)
        terms = self.model.loss(outputs, batch.target)
        return {**terms, "loss_distillation": self.weight * self._distance(outputs, batch)}

    def _distance(self, outputs: ModelOutput, batch: Batch) -> Tensor:
        sums: list[WeightedSum] = []
        for part, shares in self.teachers.shares(batch).items():
            samples = torch.nonzero(shares)[:, 0].to(batch.target.device)
            share = shares.to(batch.target.device)[samples]
            targets = self.teachers.outputs(part, batch, samples)
            teacher = self.teachers.teachers[part]
            if self.teachers.weighting == "calibrated":
                self.teachers.calibrate(part, targets, batch.target[samples])
            sums.append(
                self.compare(self.model, _select(outputs, samples), teacher, targets, batch.target[samples], share)
            )
        if not sums:
            return outputs.logits.sum() * 0.0  # in the graph, so that every step has the same terms
        weight = torch.stack([s.weight for s in sums]).sum()
        return torch.stack([s.total for s in sums]).sum() / weight.clamp(min=torch.finfo(weight.dtype).tiny)
