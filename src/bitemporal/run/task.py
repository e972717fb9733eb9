"""What one training step and one validation of a stage compute."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from bitemporal.errors import RecipeError
from bitemporal.metrics import confusion_counts, metrics, selection_score
from bitemporal.models import ChangeModel, ModelOutput
from bitemporal.models.base import ParameterRule
from bitemporal.run.loading import Batch, derive_seed

VALIDATION_METRICS = ("miou", "iou_changed", "f1_changed", "precision_changed", "recall_changed")


@dataclass(frozen=True)
class Optimisation:
    """AdamW (betas 0.9, 0.999) under linear warm-up and decay to zero.

    Attributes:
        lr: Peak learning rate.
        weight_decay: Weight decay.
        rules: Multipliers for groups of parameters.
        steps: Steps of the whole stage.
        warmup_steps: Steps of warm-up, from 1e-6 of the peak.
        schedule: Decay after the warm-up, ``linear`` (polynomial of power 1) or ``cosine``.
        clip_norm: Largest norm of the gradient of all parameters together; ``None`` does not clip.
    """

    lr: float
    weight_decay: float
    rules: tuple[ParameterRule, ...]
    steps: int
    warmup_steps: int
    schedule: Literal["linear", "cosine"] = "linear"
    clip_norm: float | None = None

    def factor(self, step: int) -> float:
        """Learning rate of a step (from 0) as a share of the peak."""
        if step < self.warmup_steps:
            return 1e-6 + (1 - 1e-6) * step / self.warmup_steps
        left = max(0.0, (self.steps - step) / max(1, self.steps - self.warmup_steps))
        return left if self.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2

    def parameter_groups(self, model: ChangeModel) -> list[dict[str, Any]]:
        """Trainable parameters by the rule that applies to them; the longest match in a name wins."""
        plain = ParameterRule("")
        rules = sorted(self.rules, key=lambda rule: len(rule.match), reverse=True)
        groups: dict[ParameterRule, list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                rule = next((rule for rule in rules if rule.match in name), plain)
                groups.setdefault(rule, []).append(parameter)
        return [
            {"params": group, "lr": self.lr * rule.lr, "weight_decay": self.weight_decay * rule.weight_decay}
            for rule, group in groups.items()
        ]


class ChangeTask(pl.LightningModule):
    """Trains one network with its own supervised loss, and measures it on whole validation pairs."""

    def __init__(self, model: ChangeModel, optimisation: Optimisation, seed: int) -> None:
        """Start a task.

        Args:
            model: The network that learns.
            optimisation: How.
            seed: Decides what is random within a step (dropout, stochastic depth), step by step.
        """
        super().__init__()
        self.model = model.train()  # a network loaded from a bundle comes in eval mode
        self.optimisation = optimisation
        self.seed = seed
        self._counts = torch.zeros(4, dtype=torch.int64)
        self.validation_score = float("nan")
        self.validation_metrics: dict[str, float] = {}

    def outputs(self, batch: Batch) -> ModelOutput:
        """The network's single pass over a batch."""
        normalise = self.model.card.normalisation
        return self.model.outputs(normalise(batch.before), normalise(batch.after))

    def loss_terms(self, batch: Batch) -> dict[str, Tensor]:
        """All terms of the loss; their sum is what is back-propagated."""
        return self.model.loss(self.outputs(batch), batch.target)

    def configure_optimizers(self) -> Any:  # noqa: ANN401  Lightning takes many forms
        """AdamW and its schedule, counted in steps."""
        optimiser = torch.optim.AdamW(self.optimisation.parameter_groups(self.model), betas=(0.9, 0.999))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self.optimisation.factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed every step by its number, so that a continued run draws what an uninterrupted one draws."""
        torch.manual_seed(derive_seed(self.seed, "step", self.global_step, self.global_rank))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """One step: the sum of all loss terms under ``loss``, each of them under ``terms``.

        Raises:
            RecipeError: When the loss is not a finite number.
        """
        terms = self.loss_terms(batch)
        total = torch.stack([term.float() for term in terms.values()]).sum()
        if not torch.isfinite(total):
            values = ", ".join(f"{name} {float(term.detach()):g}" for name, term in terms.items())
            raise RecipeError(
                f"step {self.global_step}: the loss is not a finite number ({values}); "
                "training cannot go on. Lower lr or lambda, or use another precision; an earlier checkpoint is kept"
            )
        self.log("loss", total.detach(), batch_size=len(batch))
        return {"loss": total, "terms": {name: term.detach() for name, term in terms.items()}}

    def on_validation_epoch_start(self) -> None:
        """Start counting."""
        self._counts = torch.zeros(4, dtype=torch.int64)

    def validation_step(self, batches: list[Batch], batch_idx: int) -> None:
        """Count the confusion of whole pairs."""
        for batch in batches:
            masks = self.model.change_probability(batch.before, batch.after)[:, 0] > 0.5
            for mask, target in zip(masks.cpu().numpy(), batch.target.cpu().numpy(), strict=True):
                self._counts += torch.from_numpy(confusion_counts(mask, target))

    def on_validation_epoch_end(self) -> None:
        """Sum the counts over all devices, and keep the score that chooses the checkpoint."""
        reduced = self.trainer.strategy.reduce(self._counts.to(self.device), reduce_op="sum")
        counts = torch.as_tensor(reduced).cpu().numpy()
        self.validation_score = selection_score(counts)
        values = metrics(counts, "dataset")
        self.validation_metrics = {name: values[name] for name in VALIDATION_METRICS}
        self.log_dict({f"val_{name}": value for name, value in self.validation_metrics.items()})
