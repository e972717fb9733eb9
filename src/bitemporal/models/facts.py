"""What is known about every network: its card, its cost here and in the reference, its published scores.

The numbers are JSON files in this folder: ``measured.json`` (written by benchmarks/measure_models.py),
``reference_measured.json`` (Open-CD on two CPU cores) and ``published.json`` (tables of the JL1-CD paper). A copy of
the cards is kept next to them in ``cards.json`` (written by benchmarks/models_page.py).
"""

import fnmatch
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from bitemporal.models import registry
from bitemporal.models.card import ModelCard, Normalisation, ParameterRule, TrainingDefaults

MICRO = "test_"
"""Prefix of the names of the micro variants for tests."""


@dataclass(frozen=True)
class Measured:
    """Size and cost of a network; ``None`` where a number was not, or could not be, measured.

    Attributes:
        parameters: Number of parameters.
        trainable: Number of parameters that are trained.
        gmac_512: Multiply-adds (1e9) of one pair of 512 x 512: convolutions, matrix products, attention.
        memory_gib: Memory that a training step of 8 pairs of 256 x 256 adds to the process, in GiB.
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
        dataset: Title of the data set.
        split: Split of the data set.
        table: Number of the table.
        strategy: origin, O-P or MTKD.
        teachers: Number of teachers; ``None`` for the origin.
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
        measured: Its cost here; ``None`` when it was not measured.
        reference: Its cost in Open-CD; ``None`` when Open-CD has no such network.
        name_in_paper: Its name in the JL1-CD paper; empty when it is not in the tables.
        published: Its scores in the JL1-CD paper.
        remark: A remark on these scores.
    """

    name: str
    card: ModelCard
    measured: Measured | None
    reference: Measured | None
    name_in_paper: str
    published: tuple[PublishedScore, ...]
    remark: str


@dataclass(frozen=True)
class Captions:
    """Where the numbers come from.

    Attributes:
        measured: How and where the costs here were measured.
        reference: How and where the costs of Open-CD were measured.
        published: Source and metrics of the published scores, and the meaning of each strategy.
        missing: Tables and rows of the paper that are not included.
    """

    measured: str
    reference: str
    published: str
    missing: tuple[str, ...]


def cards() -> dict[str, ModelCard]:
    """Cards of all networks by name.

    Those of this package are read from ``cards.json``, without importing a network, unless networks are imported
    already or come from elsewhere too.
    """
    if registry.is_loaded():
        return {name: registry.model_card(name) for name in registry.list_models()}
    return {name: _card(**stored) for name, stored in _stored("cards.json").items()}


def _card(training: dict[str, Any], normalisation: dict[str, Any], **fields: Any) -> ModelCard:  # noqa: ANN401  fields of the JSON, each of its own type
    rules = tuple(ParameterRule(**rule) for rule in training["rules"])
    values = Normalisation(**{name: tuple(side) for name, side in normalisation.items()})
    return ModelCard(training=TrainingDefaults(**training | {"rules": rules}), normalisation=values, **fields)


@cache
def _stored(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(files("bitemporal.models").joinpath(name).read_text(encoding="utf-8"))
    return content


def model_facts(name: str) -> ModelFacts:
    """Collect what is known about a registered network.

    Raises:
        UnknownModelError: When no network has this name; the text gives the nearest names.
    """
    known = cards()
    if name not in known:
        raise registry.unknown_model(name, known)
    return _facts(name, known[name])


def _facts(name: str, card: ModelCard) -> ModelFacts:
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

    Micro variants for tests are included only when the pattern asks for them: ``test_*``.
    """
    return [
        _facts(name, card)
        for name, card in sorted(cards().items())
        if fnmatch.fnmatchcase(name, pattern) and (pattern.startswith(MICRO) or not name.startswith(MICRO))
    ]


def captions() -> Captions:
    """Where the numbers of all networks come from."""
    measured, published = _stored("measured.json"), _stored("published.json")
    machine = measured["machine"]
    return Captions(
        measured=f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}, float32, random "
        f"weights. {measured['caption']}",
        reference=_stored("reference_measured.json")["caption"],
        published=f"{published['source']}. {published['metrics']} {published['strategies']}",
        missing=tuple(published["notes"]),
    )
