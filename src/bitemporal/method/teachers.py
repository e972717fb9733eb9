"""The teachers of MTKD, and what they say about a batch (JL1-CD paper, arXiv 2502.13407, section on MTKD).

There are two kinds. In the paper, a pair is taught by the teacher of the part that the CAR of its change mask belongs
to: ``PartTeachers``. The default here is that every teacher teaches every pair: ``AllTeachers``. A teacher that has
learned from pairs with little change finds little in any pair, so those teachers are calibrated first (``calibrate``).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from bitemporal.method.calibration import Calibration
from bitemporal.method.car import CarPartition, change_area_ratios
from bitemporal.models import ChangeModel, ModelOutput
from bitemporal.pairs.batch import Batch

View = Callable[[ChangeModel, ModelOutput], Tensor]
"""Which tensor of a network's outputs is compared between teacher and student, N x K x h x w float32."""


def log_odds(network: ChangeModel, outputs: ModelOutput) -> Tensor:
    """Log-odds of change, N x 1 x h x w float32: they mean the same for every network.

    The paper (section on MTKD) compares networks of one architecture only, by their raw outputs.
    """
    return network.log_odds(outputs.logits.float())


def raw_outputs(network: ChangeModel, outputs: ModelOutput) -> Tensor:
    """The raw output z of the head, N x K x h x w float32, as the paper's loss compares it (section on MTKD)."""
    return network.distillation_tensor(outputs).float()


class Target(NamedTuple):
    """What one teacher says about some samples of a batch (paper, section on MTKD).

    Attributes:
        values: The teacher's log-odds or raw outputs, n x K x h x w float32.
        samples: Numbers of the samples in the batch, n int64.
        share: Weight of this teacher among the others.
    """

    values: Tensor
    samples: Tensor
    share: float


@dataclass(eq=False)
class Teachers(ABC):
    """Frozen networks, one for each part of the partition (paper, section on MTKD).

    Deliberately not an ``nn.Module``: whatever holds it does not see the teachers' parameters. They are in no
    optimiser, no checkpoint and no parameter count, and ``train()`` of the student cannot reach them.

    Attributes:
        networks: The teachers by the name of their part; a part may lack one.
        view: Which of their outputs the student is compared with.
    """

    networks: Mapping[str, ChangeModel]
    view: View

    def __post_init__(self) -> None:
        """Freeze the teachers."""
        for network in self.networks.values():
            network.eval().requires_grad_(False)

    def to(self, device: torch.device) -> None:
        """Move the teachers to a device."""
        for network in self.networks.values():
            network.to(device)

    @abstractmethod
    def targets(self, batch: Batch) -> list[Target]:
        """What the teachers say about a batch: at most one batched pass per teacher (paper, section on MTKD)."""

    @torch.no_grad()
    def _values(self, part: str, batch: Batch, samples: Tensor) -> Tensor:
        network = self.networks[part]
        normalise = network.card.normalisation
        return self.view(network, network.outputs(normalise(batch.before[samples]), normalise(batch.after[samples])))


@dataclass(eq=False)
class PartTeachers(Teachers):
    """The paper's teachers: each teaches the pairs of its part (JL1-CD paper, section on MTKD).

    Pairs of a part without a teacher are not taught.

    Attributes:
        partition: Which CAR belongs to which part.
    """

    partition: CarPartition

    def routes(self, target: Tensor) -> dict[str, Tensor]:
        """Numbers of the samples that each teacher teaches; teachers without samples are left out.

        The CAR is that of the augmented mask, over its valid pixels (JL1-CD paper, section on MTKD). A mask without a
        valid pixel has no CAR and no teacher.

        Args:
            target: Decoded masks, N x H x W, 255 ignored.
        """
        parts = torch.as_tensor(self.partition.indices(change_area_ratios(target).cpu().numpy()), device=target.device)
        routes = {part: torch.nonzero(parts == i)[:, 0] for i, part in enumerate(self.partition.names)}
        return {part: samples for part, samples in routes.items() if len(samples) and part in self.networks}

    def targets(self, batch: Batch) -> list[Target]:
        """What the teacher of each pair's part says about the pair (JL1-CD paper, section on MTKD)."""
        routes = self.routes(batch.target)
        return [Target(self._values(part, batch, samples), samples, 1.0) for part, samples in routes.items()]


@dataclass(eq=False)
class AllTeachers(Teachers):
    """Every teacher teaches every pair, weighted by the number of training pairs of its part.

    Not in the paper, whose teachers teach their part alone (section on MTKD); ``benchmarks/study`` compares both.

    Attributes:
        training_pairs: Number of training pairs of each teacher's part.
        shifts: What is added to each teacher's log-odds, see ``calibrate``; nothing by default.
    """

    training_pairs: Mapping[str, int]
    shifts: Mapping[str, float] = field(default_factory=dict)

    def targets(self, batch: Batch) -> list[Target]:
        """What every teacher says about every pair."""
        everything = torch.arange(len(batch), device=batch.target.device)
        return [
            Target(self._values(part, batch, everything) + self.shifts.get(part, 0.0), everything, pairs)
            for part, pairs in self.training_pairs.items()
        ]


CALIBRATION_SAMPLES = 128
"""Number of training samples that teachers are calibrated with."""


@torch.no_grad()
def calibrate(networks: Mapping[str, ChangeModel], batches: Iterable[Batch]) -> dict[str, float]:
    """Find the constant to add to each teacher's log-odds, so that it finds as much change as there is.

    Not in the paper, where a teacher sees pairs of its own part only (section on MTKD).

    Args:
        networks: Teachers by the name of their part.
        batches: Training samples of all parts, on the teachers' device.

    Returns:
        The shift of each teacher's log-odds.
    """
    calibrations = {part: Calibration() for part in networks}
    for batch in batches:
        for part, network in networks.items():
            normalise = network.eval().card.normalisation
            outputs = network.outputs(normalise(batch.before), normalise(batch.after))
            calibrations[part].add(log_odds(network, outputs), batch.target)
    return {part: calibration.shift() for part, calibration in calibrations.items()}
