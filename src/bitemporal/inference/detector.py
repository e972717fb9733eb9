"""The detector: images of two dates in, probabilities and masks of change out; no label, any size."""

import hashlib
import math
import os
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitemporal.errors import DataError, WeightsError
from bitemporal.imagery.inputs import Image, Images, as_pairs, check_images
from bitemporal.models import ChangeModel


@dataclass(frozen=True)
class Prediction:
    """What a detector says about one pair.

    Attributes:
        mask: H x W uint8, 1 changed, 0 unchanged; changed where ``probability`` exceeds 0.5.
        probability: Probability of change, H x W float32 in [0, 1].
        part: The CAR part that Origin-Partition sent the pair to; ``None`` for other detectors.
    """

    mask: npt.NDArray[np.uint8]
    probability: npt.NDArray[np.float32]
    part: str | None = None


class Answer(NamedTuple):
    """Probability of change of one pair, 1 x H x W in [0, 1], and the CAR part that it was sent to, if any."""

    probability: Tensor
    part: str | None = None


class Detector(ABC):
    """Anything that finds change between images of two dates. A detector of your own implements ``answers``."""

    @abstractmethod
    def answers(
        self, before: Sequence[Tensor], after: Sequence[Tensor], valid: Sequence[Tensor] | None = None
    ) -> list[Answer]:
        """Answer pairs, which may differ in size.

        Args:
            before: Images of date 1, each 3 x H x W, uint8 or float in 0..255, any height and width from 1 pixel.
            after: Images of date 2, each of the same shape as its partner.
            valid: Pixels that count, each H x W bool; all pixels by default. Only a detector that routes pairs by CAR
                needs them.

        Returns:
            One answer per pair, in order, on the detector's device.
        """

    @property
    def device(self) -> torch.device:
        """The device of the answers."""
        return torch.device("cpu")

    @property
    def multiple(self) -> int:
        """Height and width must be multiples of this to need no padding; tiles of a scene move by multiples of it."""
        return 1

    def identity(self) -> dict[str, Any]:
        """What the detector is, in JSON types. Results record it; an interrupted scene resumes only if it agrees."""
        return {"detector": f"{type(self).__module__}.{type(self).__qualname__}"}

    def probabilities(self, before: Tensor, after: Tensor) -> Tensor:
        """Probability of change of a batch of pairs of one size.

        Args:
            before: Images of date 1, N x 3 x H x W, uint8 or float in 0..255, any height and width from 1 pixel.
            after: Images of date 2, the same shape.

        Returns:
            N x 1 x H x W float32 in [0, 1], on the detector's device.

        Raises:
            DataError: When the images are not such tensors.
        """
        check_batch(before, after)
        if not len(before):
            return torch.empty(0, 1, *before.shape[-2:], device=self.device)
        return torch.stack([answer.probability for answer in self.answers(list(before), list(after))])

    @overload
    def predict(self, before: str | os.PathLike[str], after: Image) -> Prediction: ...

    @overload
    def predict(self, before: list[Any] | tuple[Any, ...], after: Images) -> list[Prediction]: ...

    @overload
    def predict(self, before: Images, after: Images) -> Prediction | list[Prediction]: ...

    def predict(self, before: Images, after: Images) -> Prediction | list[Prediction]:
        """Find what changed.

        Args:
            before: Date 1: a path, an array H x W x 3 or a tensor 3 x H x W, uint8 or float in 0..255; or a batch of
                them: a list, an array N x H x W x 3 or a tensor N x 3 x H x W. Images of a list may differ in size.
            after: Date 2: as many images, each of its partner's size.

        Returns:
            A prediction for one pair, a list of predictions for a batch. A batch is answered at once: give as many
            pairs as memory holds.

        Raises:
            DataError: When an image cannot be read or used, or the dates differ in number or size.
        """
        first, second, single = as_pairs(before, after)
        predictions = [_prediction(answer) for answer in self.answers(first, second)]
        return predictions[0] if single else predictions


def _prediction(answer: Answer) -> Prediction:
    probability = answer.probability[0].to("cpu", torch.float32).numpy()
    return Prediction((probability > 0.5).astype(np.uint8), probability, answer.part)


def check_batch(before: Tensor, after: Tensor) -> None:
    """Refuse tensors that are no batches of images of two dates.

    Raises:
        DataError: With what was expected.
    """
    for name, images in (("before", before), ("after", after)):
        if images.ndim != 4:
            raise DataError(f"{name}: found a tensor of shape {tuple(images.shape)}, expected N x 3 x H x W")
        check_images(images, name)
    if before.shape != after.shape:
        raise DataError(f"before is {tuple(before.shape)}, after {tuple(after.shape)}; both dates need one shape")


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode for a while; a model that is lent in the middle of its training gets every module's mode back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


_CPU_PIXELS = 2**16
"""A CPU takes images in batches of as many pixels: larger batches leave its caches (benchmarks/batches)."""


class NetworkDetector(Detector):
    """One network as a detector.

    Images are normalised, then padded right and bottom with zeros to the size that the network can take, and the
    answer is cropped. Weights, training mode and random number generators are left as they are.
    """

    def __init__(self, model: ChangeModel, device: str | torch.device | None = None) -> None:
        """Wrap a network.

        Args:
            model: A network made by ``create_model``.
            device: Where it is moved to; ``None`` leaves it where it is.
        """
        self.model = model if device is None else model.to(device)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    @property
    def multiple(self) -> int:
        """Of what the network takes as it is, and its output stride."""
        return math.lcm(self.model.card.multiple, self.model.card.stride)

    def identity(self) -> dict[str, Any]:
        """Name, arguments and a digest of the weights."""
        digest = hashlib.sha256()
        for name, value in self.model.state_dict().items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return {"model": self.model.name, "config": dict(self.model.config), "weights": digest.hexdigest()}

    def answers(
        self, before: Sequence[Tensor], after: Sequence[Tensor], valid: Sequence[Tensor] | None = None
    ) -> list[Answer]:
        """Answer pairs that may differ in size; one batched pass for each padded size, several small ones on a CPU."""
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, image in enumerate(before):
            groups[self.model.padded_size(*image.shape[-2:])].append(index)
        found: dict[int, Answer] = {}
        for (height, width), members in groups.items():
            on_cpu = self.device.type == "cpu"
            at_once = max(1, _CPU_PIXELS // (height * width)) if on_cpu else len(members)
            for start in range(0, len(members), at_once):
                found |= self._answer(members[start : start + at_once], before, after)
        return [found[i] for i in range(len(before))]

    def _answer(self, members: list[int], before: Sequence[Tensor], after: Sequence[Tensor]) -> dict[int, Answer]:
        """One batched pass over some pairs of one padded size."""
        maps = self._forward([before[i] for i in members], [after[i] for i in members])
        found = {}
        for i, probability in zip(members, maps, strict=True):
            height, width = before[i].shape[-2:]
            # a copy of its own: plain after inference mode, and free of the padded batch
            found[i] = Answer(probability[:, :height, :width].clone())
        return found

    def _prepare(self, images: list[Tensor]) -> Tensor:
        """Normalise, then pad: a zero is the mean colour, as in training."""
        height, width = self.model.padded_size(*images[0].shape[-2:])
        if len({(image.shape, image.dtype) for image in images}) > 1:
            return torch.cat([self._prepare([image]) for image in images])
        batch = torch.stack(list(images))
        # float64 is cut here, as not every accelerator has it
        values = self.model.card.normalisation((batch if batch.dtype == torch.uint8 else batch.float()).to(self.device))
        down, right = height - batch.shape[-2], width - batch.shape[-1]
        return F.pad(values, (0, right, 0, down)) if down or right else values

    def _forward(self, before: list[Tensor], after: list[Tensor]) -> Tensor:
        """Probabilities of images of one padded size, N x 1 x padded height x padded width."""
        with torch.inference_mode(), _evaluating(self.model):
            logits = self.model(self._prepare(before), self._prepare(after))
            probability = self.model.probability(logits.float())
        if not torch.isfinite(probability).all():
            raise WeightsError(
                f"{self.model.name}: the network gives values that are no numbers; its weights are damaged or its "
                "training diverged: fetch or train it again"
            )
        return probability
