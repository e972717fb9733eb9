"""Facts of the networks as rows of text, the same for the terminal and for docs/models.md."""

from collections.abc import Callable

from bitemporal.models.base import ParameterRule
from bitemporal.models.facts import Measured, ModelFacts

OVERVIEW = ("name", "title", "parameters", "GMAC 512", "CPU s 256", "CPU s 512", "licence of weights")
"""Columns of ``overview_row``."""

SCORES = ("data set", "table", "strategy", "mIoU", "mAcc", "mPrecision", "mFscore")
"""Columns of ``score_rows``."""


def overview_row(facts: ModelFacts) -> tuple[str, ...]:
    """One line about a network; numbers that were not measured are dashes."""
    measured = facts.measured or Measured(0, 0)
    return (
        facts.name,
        facts.card.title,
        millions(measured.parameters) if facts.measured else "-",
        _number(measured.gmac_512, "{:.2f}"),
        _number(measured.forward_256_s, "{:.3f}"),
        _number(measured.forward_512_s, "{:.3f}"),
        facts.card.licence.split(" (")[0],
    )


def card_rows(facts: ModelFacts) -> list[tuple[str, str]]:
    """The card of a network: label and text."""
    card, training = facts.card, facts.card.training
    normalisation = card.normalisation
    rows = [
        ("paper", card.paper),
        ("url", card.url),
        ("licence of weights", card.licence),
        ("input", f"multiples of {card.multiple}, at least {card.minimum} x {card.minimum}"),
        ("normalisation", f"mean {_list(normalisation.mean)}, std {_list(normalisation.std)} of 0..255"),
        ("optimiser", f"AdamW, learning rate {training.lr:g}, weight decay {training.weight_decay:g}"),
        *(("", _rule(rule)) for rule in training.rules),
        ("schedule", f"warm-up, then {training.schedule} to zero"),
        ("batch", f"{training.batch_size} pairs"),
        ("augmentation", training.augmentation),
        ("lambda", f"{training.distillation_weight:g} (weight of the distillation term, criterion mse)"),
        ("exports, compiles", f"{_yes(card.exports)}, {_yes(card.compiles)}"),
    ]
    if training.clip_norm is not None:
        rows.append(("gradient norm", f"clipped at {training.clip_norm:g}"))
    if card.notes:
        rows.append(("notes", card.notes))
    return rows


_NUMBERS: tuple[tuple[str, Callable[[Measured], str]], ...] = (
    ("parameters", lambda m: f"{m.parameters:,}"),
    ("trainable", lambda m: f"{m.trainable:,}"),
    ("GMAC, a pair of 512 x 512", lambda m: _number(m.gmac_512, "{:.3f}")),
    ("GiB, training step, 8 pairs of 256 x 256", lambda m: _number(m.memory_gib, "{:.2f}")),
    ("CPU s, a pair of 256 x 256", lambda m: _number(m.forward_256_s, "{:.3f}")),
    ("CPU s, a pair of 512 x 512", lambda m: _number(m.forward_512_s, "{:.3f}")),
    ("CPU s, training step, 2 pairs of 256 x 256", lambda m: _number(m.training_step_256_s, "{:.3f}")),
)


def number_rows(facts: ModelFacts) -> list[tuple[str, str, str]]:
    """What a network costs: label, here, Open-CD."""
    return [
        (label, text(facts.measured) if facts.measured else "-", text(facts.reference) if facts.reference else "-")
        for label, text in _NUMBERS
    ]


def score_rows(facts: ModelFacts) -> list[tuple[str, ...]]:
    """Published scores of a network, in per cent."""
    return [
        (
            f"{score.dataset} {score.split}",
            score.table,
            score.strategy if score.teachers is None else f"{score.strategy}, {score.teachers} teachers",
            *(f"{value:.2f}" for value in (score.miou, score.macc, score.mprecision, score.mfscore)),
        )
        for score in facts.published
    ]


def millions(count: int) -> str:
    """A number of parameters, in millions."""
    return f"{count / 1e6:.3g} M"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _list(values: tuple[float, ...]) -> str:
    return " / ".join(f"{value:g}" for value in values)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _rule(rule: ParameterRule) -> str:
    return f"where the name has {rule.match!r}: learning rate x {rule.lr:g}, weight decay x {rule.weight_decay:g}"
