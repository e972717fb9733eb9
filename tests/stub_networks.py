"""Two tiny networks for the tests of detectors: quick, and sensitive to what a detector could do wrong."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from bitemporal.models import ChangeModel, ModelCard, ModelOutput, Normalisation, create_model, registry
from bitemporal.models.base import TrainingDefaults

# a mean far from 0 tells padding before normalisation from padding after it
NORMALISATION = Normalisation(mean=(100.0, 120.0, 140.0), std=(50.0, 60.0, 70.0))


def _card(multiple: int, minimum: int) -> ModelCard:
    return ModelCard(
        title="Stub",
        paper="none",
        url="none",
        licence="none",
        multiple=multiple,
        minimum=minimum,
        training=TrainingDefaults(lr=1e-3, weight_decay=0.0),
        normalisation=NORMALISATION,
    )


class Convolutional(ChangeModel):
    """Sees neighbours, works at stride 4, and has batch statistics and dropout, which differ in training mode."""

    def __init__(self, in_channels: int = 3, logits: int = 2) -> None:
        super().__init__()
        self.num_logits = logits  # type: ignore[misc]  # one class serves both kinds here
        self.threshold = 0.3 if logits == 1 else 0.5
        self.body = nn.Sequential(
            nn.Conv2d(2 * in_channels, 8, 5, stride=4, padding=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5),
            nn.Conv2d(8, logits, 3, padding=1),
        )  # fmt: skip

    def outputs(self, before: Tensor, after: Tensor) -> ModelOutput:
        return ModelOutput(self.body(torch.cat([before, after], 1)))

    def loss(self, outputs: ModelOutput, target: Tensor) -> dict[str, Tensor]:
        return {"loss": outputs.logits.sum() * 0.0}


class Pointwise(ChangeModel):
    """Log-odds of a pixel: ``scale`` x how much brighter it became (0..255) + ``bias``."""

    num_logits = 1

    def __init__(self, in_channels: int = 3, scale: float = 1.0, bias: float = -50.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.bias = nn.Parameter(torch.tensor(bias))

    def outputs(self, before: Tensor, after: Tensor) -> ModelOutput:
        std = torch.tensor(NORMALISATION.std, device=before.device).view(3, 1, 1)
        return ModelOutput(((after - before) * std).mean(1, keepdim=True) * self.scale + self.bias)

    def loss(self, outputs: ModelOutput, target: Tensor) -> dict[str, Tensor]:
        return {"loss": outputs.logits.sum() * 0.0}


BRIGHTER = {"scale": 1.0, "bias": -20.0}
"""Options of ``pointwise`` by which a pixel is changed when it became brighter by more than 20."""


def register_stubs(patch: pytest.MonkeyPatch) -> None:
    """Register both for one test only: other tests go through all registered networks."""
    patch.setitem(registry._REGISTRY, "stub_convolutional", (_card(4, 16), Convolutional, ("logits",)))
    patch.setitem(registry._REGISTRY, "stub_pointwise", (_card(8, 8), Pointwise, ("scale", "bias")))


def convolutional(seed: int, logits: int = 2) -> ChangeModel:
    """A convolutional stub in eval mode whose batch statistics are not the initial ones."""
    generator = torch.Generator().manual_seed(seed)
    model = create_model("stub_convolutional", logits=logits)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=generator)
                value.copy_(noise.abs() + 0.5 if "var" in name else noise * 0.3)
    return model.eval()


def pointwise(scale: float = 1.0, bias: float = -50.0) -> ChangeModel:
    """A pointwise stub in eval mode."""
    return create_model("stub_pointwise", scale=scale, bias=bias).eval()


class Passes:
    """Counts the batched passes through a network, and their batch sizes."""

    def __init__(self, model: ChangeModel) -> None:
        self.sizes: list[int] = []
        model.register_forward_pre_hook(lambda _, inputs: self.sizes.append(len(inputs[0])))


def images(seed: int, height: int, width: int, count: int | None = None) -> npt.NDArray[np.uint8]:
    """Random RGB, (count x) height x width x 3."""
    shape = (height, width, 3) if count is None else (count, height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def pair_of_car(
    changed: int, height: int = 20, width: int = 20, seed: int = 0
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """A pair of which ``changed`` pixels, in random places, brighten by 100."""
    before = images(seed, height, width) // 4
    where = np.zeros(height * width, dtype=bool)
    where[np.random.default_rng(seed + 1).permutation(height * width)[:changed]] = True
    return before, before + np.where(where.reshape(height, width, 1), np.uint8(100), np.uint8(0))
