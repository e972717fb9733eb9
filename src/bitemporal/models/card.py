"""The card of a network: what is known about it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Augmentation = Literal["standard", "changer"]

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Normalisation:
    """Per-channel normalisation of 8-bit values, of RGB by default: ``(value - mean) / std``."""

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __call__(self, images: "Tensor") -> "Tensor":
        """Normalise images, ... x C x H x W in 0..255 of any type, to float32."""
        import torch  # here: cards are read without it

        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        values = images.to(torch.float32)
        # in place where the values are a copy already
        return (values - mean if values is images else values.sub_(mean)).div_(std)

    def of_channels(self, count: int) -> "Normalisation":
        """The normalisation of so many channels.

        Another number than these: channel i takes the values of channel i mod 3, as timm repeats the filters of red,
        green and blue for further channels. All values are in 0..255, as every band is scaled to that.
        """
        if count == len(self.mean):
            return self
        mean, std = (tuple(side[i % len(side)] for i in range(count)) for side in (self.mean, self.std))
        return Normalisation(mean, std)


@dataclass(frozen=True)
class ParameterRule:
    """Multipliers for the parameters whose full name contains ``match``; the longest match wins."""

    match: str
    lr: float = 1.0
    weight_decay: float = 1.0


@dataclass(frozen=True)
class TrainingDefaults:
    """How a network is trained by default: the values of the reference's configuration.

    Attributes:
        lr: Peak learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        rules: Multipliers of learning rate and weight decay for groups of parameters.
        batch_size: Pairs per step.
        augmentation: ``standard`` or ``changer`` (the paper's recipes; see ``bitemporal.run.augmentation``).
        clip_norm: Limit of the norm of the gradient over all parameters; ``None`` for no limit.
        schedule: Decay of the learning rate after the warm-up, to zero at the last step: ``linear`` (polynomial of
            power 1) or ``cosine``.
        distillation_weight: Weight lambda of the ``mse`` distillation term (JL1-CD paper v1, Table II).
    """

    lr: float
    weight_decay: float
    rules: tuple[ParameterRule, ...] = ()
    batch_size: int = 8
    augmentation: Augmentation = "standard"
    distillation_weight: float = 1e-3
    clip_norm: float | None = None
    schedule: Literal["linear", "cosine"] = "linear"


@dataclass(frozen=True)
class ModelCard:
    """What is known about a registered network.

    Attributes:
        title: Name in papers and tables.
        paper: Authors, title, venue.
        url: Address of the paper.
        licence: Licence of the weights that ``pretrained=True`` fetches; ``none`` when there are none.
        multiple: Height and width of the input must be multiples of this.
        minimum: Smallest height and width, with which one pair can be trained.
        stride: Number of pixels whose multiples shift the answer exactly as they shift the images, where ``multiple``
            is too small.
        training: Default recipe.
        normalisation: Normalisation of the input; ``of_channels`` gives that of another number of channels than three.
        exports: Whether ``torch.export`` accepts the network with dynamic batch, height and width.
        compiles: Whether ``torch.compile`` accepts it as one graph.
        notes: Deviations from the reference, and anything else that a user should know.
    """

    title: str
    paper: str
    url: str
    licence: str
    multiple: int
    minimum: int
    training: TrainingDefaults
    normalisation: Normalisation = Normalisation()
    stride: int = 1
    exports: bool = True
    compiles: bool = True
    notes: str = ""
