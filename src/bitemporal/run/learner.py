"""What a stage trains: a network, the loss it minimises, and how its parameters are updated."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bitemporal.method.loss import DistillationLoss
from bitemporal.models import ChangeModel, ModelCard, ModelOutput
from bitemporal.models.base import ParameterRule, TrainingDefaults
from bitemporal.pairs.batch import Batch
from bitemporal.run.recipe import TrainRecipe


class Learner(nn.Module):
    """A network with everything that is back-propagated through it.

    Attributes:
        model: The network that learns.
        distillation: The term that teachers add to its own loss; ``None`` without teachers.
    """

    def __init__(self, model: ChangeModel, distillation: DistillationLoss | None = None) -> None:
        """Put a network into training mode.

        Args:
            model: The network that learns.
            distillation: The term that teachers add to its own loss.
        """
        super().__init__()
        self.model = model.train()  # a network loaded from a bundle comes in eval mode
        self.distillation = distillation

    def outputs(self, batch: Batch) -> ModelOutput:
        """The network's single pass over a batch."""
        normalise = self.model.card.normalisation
        return self.model.outputs(normalise(batch.before), normalise(batch.after))

    def forward(self, before: Tensor, after: Tensor, target: Tensor) -> dict[str, Tensor]:
        """All terms of the loss for the fields of a ``Batch``; their sum is minimised."""
        batch = Batch(before, after, target)
        outputs = self.outputs(batch)
        terms = self.model.loss(outputs, target)
        if self.distillation is not None:
            terms = {**terms, "loss_distillation": self.distillation(self.model, outputs, batch)}
        return terms


@dataclass(frozen=True)
class Optimisation:
    """AdamW (betas 0.9, 0.999) under linear warm-up and decay to zero.

    Attributes:
        training: Peak learning rate, weight decay, rules for groups of parameters, schedule, limit of the gradient.
        steps: Steps of the whole stage.
        warmup_steps: Steps of warm-up, from 1e-6 of the peak.
    """

    training: TrainingDefaults
    steps: int
    warmup_steps: int

    @classmethod
    def of_recipe(cls, recipe: TrainRecipe, card: ModelCard, steps: int) -> "Optimisation":
        """Optimisation of a stage: what the recipe says, else the network's own defaults."""
        warmup_steps = min(1000, steps // 10) if recipe.warmup_steps is None else recipe.warmup_steps
        return cls(recipe.training(card), steps, warmup_steps)

    def factor(self, step: int) -> float:
        """Learning rate of a step (from 0) as a share of the peak."""
        if step < self.warmup_steps:
            return 1e-6 + (1 - 1e-6) * step / self.warmup_steps
        left = max(0.0, (self.steps - step) / max(1, self.steps - self.warmup_steps))
        return left if self.training.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2

    def parameter_groups(self, model: ChangeModel) -> list[dict[str, Any]]:
        """Trainable parameters by the rule that applies to them, each group with its peak learning rate as ``peak``.

        The longest match in a name wins.
        """
        training, plain = self.training, ParameterRule("")
        rules = sorted(training.rules, key=lambda rule: len(rule.match), reverse=True)
        groups: dict[ParameterRule, list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                rule = next((rule for rule in rules if rule.match in name), plain)
                groups.setdefault(rule, []).append(parameter)
        return [
            {
                "params": group,
                "lr": training.lr * rule.lr,
                "weight_decay": training.weight_decay * rule.weight_decay,
                "peak": training.lr * rule.lr,
            }
            for rule, group in groups.items()
        ]

    def optimiser(self, model: ChangeModel) -> torch.optim.AdamW:
        """The optimiser of a network."""
        return torch.optim.AdamW(self.parameter_groups(model), betas=(0.9, 0.999))

    def set_learning_rate(self, optimiser: torch.optim.Optimizer, step: int) -> None:
        """Give every group of parameters its learning rate at a step (from 0)."""
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * self.factor(step)
