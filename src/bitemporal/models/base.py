"""The contract of every change network: its input, its output, and the card that describes it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitemporal import _torchvision as _torchvision  # before timm, which imports torchvision
from bitemporal.errors import InputSizeError
from bitemporal.losses import Pixels, binary_cross_entropy, cross_entropy
from bitemporal.models.card import ModelCard, Normalisation, ParameterRule, TrainingDefaults

__all__ = ["ChangeModel", "ModelCard", "ModelOutput", "Normalisation", "ParameterRule", "TrainingDefaults"]


@dataclass
class ModelOutput:
    """The outputs of one pass, from which losses are computed.

    Attributes:
        logits: Output of the main head at the head's own stride, N x K x h x w, K being 1 or 2.
        auxiliary: Further outputs by name (deep supervision, the reverse time order), at their own strides.
    """

    logits: Tensor
    auxiliary: dict[str, Tensor] = field(default_factory=dict)


class ChangeModel(nn.Module, ABC):
    """Base of all change networks.

    ``create_model`` sets ``name``, ``config`` (the arguments that build the same network again) and ``card``.
    """

    card: ModelCard
    name: str
    config: Mapping[str, Any]

    num_logits: ClassVar[int] = 2
    """K: 2 for softmax over (unchanged, changed), 1 for a sigmoid."""

    threshold: float = 0.5
    """The network's own decision threshold on the sigmoid of a single logit."""

    def __init__(self, reference_losses: bool = False) -> None:
        """Build nothing yet.

        Args:
            reference_losses: Compute the losses exactly as the reference does; ``create_model`` sets it.
        """
        super().__init__()
        self.reference_losses = reference_losses

    @property
    def loss_pixels(self) -> Pixels:
        """Which pixels losses are averaged over."""
        return "all" if self.reference_losses else "valid"

    @abstractmethod
    def outputs(self, before: Tensor, after: Tensor) -> ModelOutput:
        """Head logits at the head's own stride, and the auxiliary outputs, which losses are computed from.

        Args:
            before: Normalised images of date 1, N x C x H x W.
            after: Normalised images of date 2, the same shape.
        """

    def loss(self, outputs: ModelOutput, target: Tensor) -> dict[str, Tensor]:
        """The network's own supervised loss terms, whose sum is minimised.

        Unless a network defines its own: cross-entropy of the main head, ``loss_ce`` (``loss_bce`` for a single logit),
        and of every auxiliary output with the same weight, ``loss_ce_NAME``.

        Args:
            outputs: What ``outputs`` returns.
            target: Decoded change masks, N x H x W int64: 0 unchanged, 1 changed, 255 ignore. Ignored pixels count
                nowhere.
        """
        name, criterion = ("ce", cross_entropy) if self.num_logits == 2 else ("bce", binary_cross_entropy)
        terms = {f"loss_{name}": criterion(outputs.logits, target, self.loss_pixels)}
        for head, logits in outputs.auxiliary.items():
            terms[f"loss_{name}_{head}"] = criterion(logits, target, self.loss_pixels)
        return terms

    def distillation_tensor(self, outputs: ModelOutput) -> Tensor:
        """The tensor that the paper's criterion compares between networks of one architecture: the main head's output.

        Its batch size is that of the outputs, or a multiple of it where a network has several answers per pair.
        """
        return outputs.logits

    def head_logits(self, before: Tensor, after: Tensor) -> Tensor:
        """The logits of ``outputs``, for prediction. A network that can skip its other heads overrides this."""
        return self.outputs(before, after).logits

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Logits at input size.

        Args:
            before: Normalised images of date 1, N x C x H x W.
            after: Normalised images of date 2, the same shape.

        Returns:
            N x K x H x W.

        Raises:
            InputSizeError: When the shapes differ, or the network does not accept the height or width.
        """
        self.check_size(before, after)
        logits = self.head_logits(before, after)
        if logits.shape[-2:] != before.shape[-2:]:
            logits = F.interpolate(logits, size=before.shape[-2:], mode="bilinear", align_corners=False)
        return logits

    def card_of(self, card: ModelCard) -> ModelCard:
        """The card of this network: the registered one, unless something in it depends on the arguments."""
        return card

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation mode; ``frozen_modules`` stay in evaluation mode."""
        super().train(mode)
        if mode:
            for module in self.frozen_modules():
                module.eval()
        return self

    def frozen_modules(self) -> list[nn.Module]:
        """Modules that are never trained, such as a foundation model under adapters; none by default."""
        return []

    def check_size(self, before: Tensor, after: Tensor) -> None:
        """Refuse an input that the network does not accept.

        Raises:
            InputSizeError: When it is refused; the text gives the multiple to pad to.
        """
        if before.shape != after.shape:
            raise InputSizeError(
                f"{self.name}: before is {tuple(before.shape)}, after {tuple(after.shape)}; both dates need one shape"
            )
        channels = int(self.config.get("in_channels", 3))
        if before.ndim < 3 or before.shape[-3] != channels:
            found = before.shape[-3] if before.ndim > 3 else 1
            raise InputSizeError(
                f"{self.name}: input is {tuple(before.shape)}, expected N x {channels} x H x W; permute channels that "
                f"come last, or make a network of other channels: `create_model({self.name!r}, in_channels={found})`"
            )
        height, width = before.shape[-2:]
        multiple, minimum = self.card.multiple, self.card.minimum
        if height % multiple or width % multiple or height < minimum or width < minimum:
            raise InputSizeError(
                f"{self.name}: input is {height} x {width}; height and width must be multiples of {multiple} and at "
                f"least {minimum}. Pad it right and bottom with zeros after normalisation "
                f"(`bitemporal.load(...).predict` does so)"
            )

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """The smallest height and width, in pixels, that the network accepts and that hold an image of this size."""
        multiple, minimum = self.card.multiple, self.card.minimum
        padded = [math.ceil(max(side, minimum) / multiple) * multiple for side in (height, width)]
        return padded[0], padded[1]

    def prepare(self, images: Tensor) -> Tensor:
        """Normalise images, then pad them right and bottom with zeros to the size that the network takes.

        A zero is the mean colour after normalisation, as in training.

        Args:
            images: N x C x H x W in 0..255, of any type.

        Returns:
            N x C x padded height x padded width, float32.
        """
        height, width = images.shape[-2:]
        padded_height, padded_width = self.padded_size(height, width)
        normalised = self.card.normalisation(images)
        if (padded_height, padded_width) == (height, width):
            return normalised
        return F.pad(normalised, (0, padded_width - width, 0, padded_height - height))

    def log_odds(self, logits: Tensor) -> Tensor:
        """Log-odds of change, N x 1 x h x w; 0 is the network's own decision threshold.

        Args:
            logits: N x K x h x w at any stride.
        """
        if logits.shape[1] == 2:
            return logits[:, 1:2] - logits[:, 0:1]
        return logits - math.log(self.threshold / (1.0 - self.threshold))

    def probability(self, logits: Tensor) -> Tensor:
        """Probability of change, N x 1 x H x W in [0, 1]; 0.5 is the network's own decision threshold."""
        return torch.sigmoid(self.log_odds(logits))
