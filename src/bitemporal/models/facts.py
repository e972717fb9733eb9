"""What is known about every network, in one place: its card, numbers measured here and of the reference, scores.

The numbers stand beside this file as JSON: ``measured.json`` (written by benchmarks/measure_models.py),
``reference_measured.json`` (Open-CD on two CPU cores) and ``published.json`` (tables of the JL1-CD paper).
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from bitemporal.models.base import ModelCard
from bitemporal.models.registry import list_models, model_card

MICRO = "test_"
"""How the names of the micro variants for tests begin."""


@dataclass(frozen=True)
class Measured:
    """Size and cost of a network; ``None`` where a number was not, or could not be, measured.

    Attributes:
        parameters: All of them.
        trainable: Those that are trained.
        gmac_512: Multiply-adds (1e9) of one pair of 512 x 512: convolutions, matrix products, attention.
        memory_gib: What a training step of 8 pairs of 256 x 256 adds to the memory of the process, in GiB.
        forward_256_s: Seconds of a forward pass of one pair of 256 x 256 on the CPU.
        forward_512_s: The same for 512 x 512.
        training_step_256_s: Seconds of a training step of 2 pairs of 256 x 256 on the CPU.
    """

    parameters: int
    trainable: int
    gmac_512: float | None = None
    memory_gib: float | None = None
    forward_256_s: float | None = None
    forward_512_s: float | None = None
    training_step_256_s: float | None = None


@dataclass(frozen=True)
class PublishedScore:
    """A row of a table of a paper, in per cent.

    Attributes:
        dataset: Data set.
        split: Its split.
        table: Number of the table.
        strategy: origin, O-P or MTKD.
        teachers: Number of teachers; ``None`` for origin.
        miou: Mean intersection over union of both classes.
        macc: Mean accuracy (recall) of both classes.
        mprecision: Mean precision of both classes.
        mfscore: Mean F score of both classes.
    """

    dataset: str
    split: str
    table: str
    strategy: str
    teachers: int | None
    miou: float
    macc: float
    mprecision: float
    mfscore: float


@dataclass(frozen=True)
class ModelFacts:
    """Everything known about one registered network.

    Attributes:
        name: Registered name.
        card: Its card.
        measured: Numbers of this package; ``None`` when it was not measured.
        reference: The same of Open-CD; ``None`` when Open-CD has no such network.
        name_in_paper: What the JL1-CD paper calls it; empty when it is not in its tables.
        published: Its scores there.
        remark: What to know about these scores.
    """

    name: str
    card: ModelCard
    measured: Measured | None
    reference: Measured | None
    name_in_paper: str
    published: tuple[PublishedScore, ...]
    remark: str

    @property
    def micro(self) -> bool:
        """Whether it is a miniature for tests."""
        return self.name.startswith(MICRO)


@dataclass(frozen=True)
class Captions:
    """What has to be said beside the numbers.

    Attributes:
        measured: How, where and on which commit the numbers of this package were measured.
        reference: The same of the reference's numbers.
        published: Source and metrics of the published scores, and what each strategy is.
        missing: Tables and rows of the paper that are not here.
    """

    measured: str
    reference: str
    published: str
    missing: tuple[str, ...]


@cache
def _stored(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(files("bitemporal.models").joinpath(name).read_text(encoding="utf-8"))
    return content


def model_facts(name: str) -> ModelFacts:
    """Join what is known about a registered network.

    Raises:
        UnknownModelError: With the nearest names.
    """
    card = model_card(name)
    measured = _stored("measured.json")["networks"].get(name)
    reference = _stored("reference_measured.json")["networks"].get(name)
    published = _stored("published.json")["networks"].get(name, {})
    return ModelFacts(
        name,
        card,
        _measured(measured) if measured else None,
        _measured(reference) if reference else None,
        published.get("name_in_paper", ""),
        tuple(PublishedScore(**score) for score in published.get("scores", ())),
        published.get("remark", ""),
    )


def _measured(stored: dict[str, Any]) -> Measured:
    return Measured(**{key: value for key, value in stored.items() if key != "commit"})


def all_facts(pattern: str = "*") -> list[ModelFacts]:
    """Facts of all registered networks whose names match a shell pattern, sorted by name.

    The micro variants for tests are among them only when the pattern names them: ``test_*``.
    """
    names = list_models(pattern)
    return [model_facts(name) for name in names if pattern.startswith(MICRO) or not name.startswith(MICRO)]


def captions() -> Captions:
    """What has to be said beside the numbers of every network."""
    measured, published = _stored("measured.json"), _stored("published.json")
    machine = measured["machine"]
    return Captions(
        measured=f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}, float32, random "
        f"weights. {measured['caption']}",
        reference=_stored("reference_measured.json")["caption"],
        published=f"{published['source']}. {published['metrics']} {published['strategies']}",
        missing=tuple(published["notes"]),
    )
