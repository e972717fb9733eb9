"""The student's training: task loss plus the distance to the teachers, from one pass."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from bitemporal.method.calibration import Calibration
from bitemporal.method.car import CarPartition, change_area_ratios
from bitemporal.method.loss import Compare, WeightedSum
from bitemporal.models import ChangeModel, ModelOutput
from bitemporal.run.loading import Batch
from bitemporal.run.task import ChangeTask, Optimisation

CALIBRATION_SAMPLES = 128
"""Of the student's first ones, by which teachers are calibrated."""


class TeacherBank:
    """Frozen teachers, a network a part of the partition.

    Deliberately no ``nn.Module``: whatever holds it does not see the teachers' parameters, so they are in no
    optimiser, no checkpoint and no parameter count, and ``train()`` of the student cannot reach them.
    """

    def __init__(
        self,
        teachers: Mapping[str, ChangeModel],
        partition: CarPartition,
        pairs: Mapping[str, int] | None = None,
    ) -> None:
        """Freeze the teachers.

        Args:
            teachers: Networks by name of their part; a part may lack one.
            partition: Routes by CAR.
            pairs: Training pairs of each teacher: every teacher teaches every pair, as much as its part has pairs.
                Without it, as in the paper, the teacher of a pair's part teaches it alone, and a pair whose part lacks
                one is not taught.
        """
        self.partition, self.pairs = partition, pairs
        self.shifts = dict.fromkeys(teachers, 0.0)
        self.teachers = {part: teacher.eval().requires_grad_(False) for part, teacher in teachers.items()}

    def to(self, device: torch.device) -> None:
        """Move the teachers to a device."""
        for teacher in self.teachers.values():
            teacher.to(device)

    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Find what must be added to each teacher's log-odds for it to find as much change in these pairs as there is.

        Args:
            batches: Of all parts, on the teachers' device.
        """
        found = {part: Calibration() for part in self.teachers}
        for batch in batches:
            for part, teacher in self.teachers.items():
                logits = self.outputs(part, batch, torch.arange(len(batch))).logits
                found[part].add(teacher.log_odds(logits.float()), batch.target)
        self.shifts = {part: calibration.shift() for part, calibration in found.items()}

    def route(self, target: Tensor) -> dict[str, Tensor]:
        """Numbers of the samples that each teacher teaches; teachers of none are left out.

        Args:
            target: Decoded masks, N x H x W, 255 ignored; the CAR is that of the valid pixels, and a mask without one
                has no part.
        """
        if self.pairs is not None:
            return {name: torch.arange(len(target)) for name in self.teachers}
        parts = torch.as_tensor(self.partition.indices(change_area_ratios(target).cpu().numpy()))
        routes = {name: torch.nonzero(parts == i)[:, 0] for i, name in enumerate(self.partition.names)}
        return {name: samples for name, samples in routes.items() if len(samples) and name in self.teachers}

    @torch.no_grad()
    def outputs(self, part: str, batch: Batch, samples: Tensor) -> ModelOutput:
        """What a part's teacher says of its samples, in one batched pass."""
        teacher = self.teachers[part]
        normalise = teacher.card.normalisation
        return teacher.outputs(normalise(batch.before[samples]), normalise(batch.after[samples]))


def _select(outputs: ModelOutput, samples: Tensor) -> ModelOutput:
    return ModelOutput(outputs.logits[samples], {name: x[samples] for name, x in outputs.auxiliary.items()})


class DistillationTask(ChangeTask):
    """Trains a student on its own loss and on what teachers say of the same pixels (JL1-CD paper, section on MTKD).

    Where the CAR chooses the teacher, it is that of the augmented mask, on its valid pixels.
    """

    def __init__(
        self,
        model: ChangeModel,
        optimisation: Optimisation,
        seed: int,
        teachers: TeacherBank,
        compare: Compare,
        weight: float,
    ) -> None:
        """Start a task.

        Args:
            model: The student, with the origin's weights.
            optimisation: How it learns.
            seed: As for any stage.
            teachers: Frozen teachers.
            compare: Distillation criterion.
            weight: lambda.
        """
        super().__init__(model, optimisation, seed)
        self.teachers, self.compare, self.weight = teachers, compare, weight

    def on_fit_start(self) -> None:
        """Bring the teachers to the student's device; those that teach pairs of other parts are calibrated first."""
        self.teachers.to(self.device)
        if self.teachers.pairs is not None:
            # the stage's own data; Lightning sets the attribute, but does not declare it to type checkers
            batches = self.trainer.datamodule.first_batches(CALIBRATION_SAMPLES)  # type: ignore[attr-defined]
            self.teachers.calibrate(batch.to(self.device) for batch in batches)

    def loss_terms(self, batch: Batch) -> dict[str, Tensor]:
        """The student's own terms and ``loss_distillation``, both from its single pass."""
        outputs = self.outputs(batch)
        terms = self.model.loss(outputs, batch.target)
        return {**terms, "loss_distillation": self.weight * self._distance(outputs, batch)}

    def _distance(self, outputs: ModelOutput, batch: Batch) -> Tensor:
        sums: list[WeightedSum] = []
        for part, samples in self.teachers.route(batch.target).items():
            samples = samples.to(batch.target.device)
            targets = self.teachers.outputs(part, batch, samples)
            teacher = self.teachers.teachers[part]
            found = self.compare(
                self.model,
                _select(outputs, samples),
                teacher,
                targets,
                batch.target[samples],
                self.teachers.shifts[part],
            )
            share = 1 if self.teachers.pairs is None else self.teachers.pairs[part]
            sums.append(WeightedSum(share * found.total, share * found.weight))
        if not sums:
            return outputs.logits.sum() * 0.0  # in the graph, so that every step has the same terms
        weight = torch.stack([s.weight for s in sums]).sum()
        return torch.stack([s.total for s in sums]).sum() / weight.clamp(min=torch.finfo(weight.dtype).tiny)
