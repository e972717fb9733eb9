"""The detector: images of two dates in, probabilities and masks of change out; no label, any size."""

import hashlib
import math
import os
import warnings
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bitemporal.errors import DataError, OptionError, WeightsError
from bitemporal.imagery.inputs import Image, Images, Reading, as_pairs
from bitemporal.imagery.scale import RGB
from bitemporal.imagery.training_images import SeenImages, TrainingImages, look_at
from bitemporal.models import ChangeModel


@dataclass(frozen=True)
class Prediction:
    """A detector's prediction for one pair.

    Attributes:
        mask: H x W uint8, 1 changed, 0 unchanged; changed where ``probability`` exceeds 0.5.
        probability: Probability of change, H x W float32 in [0, 1].
        part: The CAR part that Origin-Partition sent the pair to; ``None`` for other detectors.
    """

    mask: npt.NDArray[np.uint8]
    probability: npt.NDArray[np.float32]
    part: str | None = None

    def __repr__(self) -> str:
        """Height and width, share of changed pixels, and part."""
        sent = "" if self.part is None else f", sent to {self.part}"
        return f"Prediction({' x '.join(map(str, self.mask.shape))}, {self.mask.mean():.1%} changed{sent})"


class Answer(NamedTuple):
    """Probability of change of one pair, 1 x H x W in [0, 1], and the CAR part that it was sent to, if any."""

    probability: Tensor
    part: str | None = None


class Detector(ABC):
    """Anything that finds change between images of two dates. A detector of your own implements ``answers``.

    Attributes:
        members: Detectors that it asks, if it is built from others.
        source: Folder that it was loaded from; ``None`` where it was made from others, or in memory.
    """

    members: Sequence["Detector"] = ()
    source: Path | None = None

    def __repr__(self) -> str:
        """The kind of detector, with its members."""
        return f"{type(self).__name__}({', '.join(map(repr, self.members))})"

    @abstractmethod
    def answers(
        self, before: Sequence[Tensor], after: Sequence[Tensor], valid: Sequence[Tensor] | None = None
    ) -> list[Answer]:
        """Answer pairs, which may differ in size.

        Args:
            before: Images of date 1, each C x H x W, uint8 or float in 0..255, any height and width from 1 pixel.
            after: Images of date 2, each of the same shape as its partner.
            valid: Pixels that count, each H x W bool; all pixels by default. Only a detector that routes pairs by CAR
                needs them.

        Returns:
            One answer per pair, in order, on the detector's device.
        """

    @property
    def device(self) -> torch.device:
        """The device of the answers: that of the first member, else the CPU."""
        return self.members[0].device if self.members else torch.device("cpu")

    @property
    def multiple(self) -> int:
        """Height and width must be multiples of this to need no padding; tiles of a scene move by multiples of it.

        It is the least common multiple of the members' multiples, 1 without members.
        """
        return math.lcm(*(member.multiple for member in self.members))

    @property
    def channels(self) -> int:
        """Channels of the images that it takes: those of the first member, else 3."""
        return self.members[0].channels if self.members else RGB

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders that it and its members were loaded from, which nothing is written into."""
        own = () if self.source is None else (self.source,)
        return (*own, *(folder for member in self.members for folder in member.folders))

    @property
    def trained_on(self) -> TrainingImages | None:
        """What is known of the images that it was trained on: that of the first member that knows it."""
        return next((member.trained_on for member in self.members if member.trained_on is not None), None)

    def reading(self, bands: Sequence[int] | None = None, image_range: Sequence[float] | None = None) -> Reading:
        """How images are read for this detector: as stated, else as those that it was trained on.

        Args:
            bands: Bands that become its channels, counted from 1; a single one fills all. By default those that it was
                trained on, else the first ones where it has not three channels.
            image_range: Values that become 0 and 255, or such a pair for each channel; by default those of the
                training, unless they belong to other bands.

        Raises:
            OptionError: When bands or range do not fit the channels.
        """
        known, channels = self.trained_on or TrainingImages(), self.channels
        if bands is None:
            bands = known.bands or (None if channels == RGB else range(1, channels + 1))
        elif len(bands) == 1:
            bands = (*bands,) * channels
        if bands is not None and len(bands) != channels:
            fitting = ",".join(map(str, known.bands or range(1, channels + 1)))
            raise OptionError(
                f"bands: found {tuple(bands)}, expected {channels}, as many as the channels of the detector, as in "
                f"--bands {fitting}"
            )
        chosen = None if bands is None else tuple(bands)
        if image_range is None and known.image_range and (len(known.image_range) == 2 or chosen == known.bands):
            image_range = known.image_range
        return Reading(channels, chosen, None if image_range is None else tuple(image_range))

    def identity(self) -> dict[str, Any]:
        """What the detector is, in JSON types. Results record it; an interrupted scene resumes only if it agrees."""
        return {"detector": f"{type(self).__module__}.{type(self).__qualname__}"}

    def probabilities(self, before: Tensor, after: Tensor) -> Tensor:
        """Probability of change of a batch of pairs of one size.

        Args:
            before: Images of date 1, N x C x H x W, uint8 or float in 0..255, any height and width from 1 pixel.
            after: Images of date 2, the same shape.

        Returns:
            N x 1 x H x W float32 in [0, 1], on the detector's device.

        Raises:
            DataError: When the images are not such tensors.
        """
        first, second, single = as_pairs(before, after, self.reading())
        if single:
            raise DataError(f"before: found a tensor of shape {tuple(before.shape)}, expected N x C x H x W")
        if not first:
            return torch.empty(0, 1, *before.shape[-2:], device=self.device)
        return torch.stack([answer.probability for answer in self.answers(first, second)])

    def warn_if_far(self, seen: SeenImages) -> None:
        """Warn in one line where images are far outside of those of the training: pixel size, bands, values."""
        if self.trained_on is not None and (text := self.trained_on.far_from(seen)):
            warnings.warn(text, UserWarning, stacklevel=3)

    @overload
    def predict(self, before: str | os.PathLike[str], after: Image) -> Prediction: ...

    @overload
    def predict(self, before: list[Any] | tuple[Any, ...], after: Images) -> list[Prediction]: ...

    @overload
    def predict(self, before: Images, after: Images) -> Prediction | list[Prediction]: ...

    def predict(self, before: Images, after: Images) -> Prediction | list[Prediction]:
        """Find what changed.

        Args:
            before: Date 1: a path, an image of Pillow, an array H x W x C or a tensor C x H x W, uint8 or float in
                0..255, with as many channels as the detector; or a batch of them: a list, an array N x H x W x C or a
                tensor N x C x H x W. Images of a list may differ in size. Files are read by the bands and the range
                that the detector was trained on; ``bitemporal.imagery.read_image`` takes others.
            after: Date 2: as many images, each of its partner's size.

        Returns:
            A prediction for one pair, a list of predictions for a batch. A batch is answered at once: give as many
            pairs as memory holds.

        Raises:
            DataError: When an image cannot be read or used, or the dates differ in number or size.
        """
        reading = self.reading()
        first, second, single = as_pairs(before, after, reading)
        if self.trained_on is not None and (path := _first_path(before)) is not None:
            self.warn_if_far(look_at(path, reading.bands))
        predictions = [_prediction(answer) for answer in self.answers(first, second)]
        return predictions[0] if single else predictions


def _first_path(images: Images) -> Path | None:
    first = images[0] if isinstance(images, list | tuple) and images else images
    return Path(first) if isinstance(first, str | os.PathLike) else None


def _prediction(answer: Answer) -> Prediction:
    probability = answer.probability[0].to("cpu", torch.float32).numpy()
    return Prediction((probability > 0.5).astype(np.uint8), probability, answer.part)


_CPU_PIXELS = 2**16
"""Pixels per pass on a CPU: larger batches leave its caches (benchmarks/batches)."""


def check_detector(found: object, name: str = "detector") -> None:
    """Refuse what is no detector, such as the path of a bundle.

    Args:
        found: What was given.
        name: What the message calls it.

    Raises:
        OptionError: When it is no detector.
    """
    if isinstance(found, Detector):
        return
    remedy = "give what bitemporal.load returns"
    if isinstance(found, str | os.PathLike):
        remedy = f"give bitemporal.load({os.fspath(found)!r})"
    elif isinstance(found, ChangeModel):
        remedy = "give bitemporal.inference.NetworkDetector(network)"
    shown = repr(os.fspath(found)) if isinstance(found, str | os.PathLike) else type(found).__name__
    raise OptionError(f"{name}: found {shown}, expected a detector; {remedy}")


class NetworkDetector(Detector):
    """One network as a detector.

    Images are normalised and padded as in training (``ChangeModel.prepare``), and the answer is cropped. Weights and
    random number generators stay as they are. Several threads may use one detector: a prediction changes nothing in it.
    """

    def __init__(
        self,
        model: ChangeModel,
        device: str | torch.device | None = None,
        trained_on: TrainingImages | None = None,
    ) -> None:
        """Wrap a network, and put it into evaluation mode.

        Args:
            model: A network made by ``create_model``.
            device: Device to move it to; ``None`` leaves it where it is.
            trained_on: What is known of the images that it was trained on.
        """
        self._trained_on = trained_on
        self.model = (model if device is None else model.to(device)).eval()

    def __repr__(self) -> str:
        """Network, channels and device."""
        return f"{type(self).__name__}({self.model.name}, {self.channels} channels, {self.device})"

    @property
    def device(self) -> torch.device:
        """The network's device."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    @property
    def channels(self) -> int:
        """The network's channels."""
        return int(self.model.config.get("in_channels", RGB))

    @property
    def trained_on(self) -> TrainingImages | None:
        """What is known of the images that the network was trained on."""
        return self._trained_on

    @property
    def multiple(self) -> int:
        """The least common multiple of the network's input multiple and its stride."""
        return math.lcm(self.model.card.multiple, self.model.card.stride)

    def identity(self) -> dict[str, Any]:
        """The network's name and arguments, and a digest of its weights."""
        digest = hashlib.sha256()
        for name, value in self.model.state_dict().items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return {"model": self.model.name, "config": dict(self.model.config), "weights": digest.hexdigest()}

    def answers(
        self, before: Sequence[Tensor], after: Sequence[Tensor], valid: Sequence[Tensor] | None = None
    ) -> list[Answer]:
        """Answer pairs, which may differ in size: one pass per padded size, several small ones on a CPU.

        Raises:
            OptionError: When the network has been put into training mode meanwhile.
            WeightsError: When its output is not finite.
        """
        pairs_of_size: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, image in enumerate(before):
            pairs_of_size[self.model.padded_size(*image.shape[-2:])].append(index)
        answers: dict[int, Answer] = {}
        for (height, width), pairs in pairs_of_size.items():
            on_cpu = self.device.type == "cpu"
            per_pass = max(1, _CPU_PIXELS // (height * width)) if on_cpu else len(pairs)
            for start in range(0, len(pairs), per_pass):
                batch = pairs[start : start + per_pass]
                maps = self._padded_maps([before[i] for i in batch], [after[i] for i in batch])
                for i, padded in zip(batch, maps, strict=True):
                    rows, columns = before[i].shape[-2:]
                    # a copy is a plain tensor again after inference mode, and does not keep the padded batch alive
                    answers[i] = Answer(padded[:, :rows, :columns].clone())
        return [answers[i] for i in range(len(before))]

    def _padded_maps(self, before: list[Tensor], after: list[Tensor]) -> Tensor:
        """Probabilities N x 1 x padded height x padded width of pairs that share a padded size."""
        if self.model.training:
            raise OptionError(
                f"{self.model.name}: the network is in training mode, expected evaluation mode, which the "
                "detector had set; call its eval() before a prediction"
            )
        with torch.inference_mode():
            logits = self.model(self._prepare(before), self._prepare(after))
            probability = self.model.probability(logits.float())
        if not torch.isfinite(probability).all():
            raise WeightsError(
                f"{self.model.name}: the network's output is not finite; its weights are damaged or its training "
                "diverged: download it or train it again"
            )
        return probability

    def _prepare(self, images: list[Tensor]) -> Tensor:
        """One batch of images that share a padded size."""
        if len({(image.shape, image.dtype) for image in images}) > 1:
            return torch.cat([self._prepare([image]) for image in images])
        batch = torch.stack(images)
        # float64 is converted here, as not every accelerator has it
        return self.model.prepare((batch if batch.dtype == torch.uint8 else batch.float()).to(self.device))
