"""Facts about the networks as rows of text, the same in the terminal and in docs/models.md."""

from bitemporal.models.facts import Measured, ModelFacts

OVERVIEW = ("name", "title", "licence of weights", "parameters", "GMAC 512", "CPU s 256", "CPU s 512")
"""Columns of ``overview_row``."""

SCORES = ("data set", "table", "strategy", "mIoU", "mAcc", "mPrecision", "mFscore")
"""Columns of ``score_rows``."""


def overview_row(facts: ModelFacts) -> tuple[str, ...]:
    """One line about a network; a dash stands for a number that was not measured."""
    return (
        facts.name,
        facts.card.title,
        facts.card.licence.split(" (")[0],
        millions(facts.measured.parameters) if facts.measured else "-",
        _number(facts.measured, "gmac_512", ".2f"),
        _number(facts.measured, "forward_256_s", ".3f"),
        _number(facts.measured, "forward_512_s", ".3f"),
    )


def card_rows(facts: ModelFacts) -> list[tuple[str, str]]:
    """Label and text of everything on the card of a network."""
    card, training = facts.card, facts.card.training
    normalisation = card.normalisation
    rows = [
        ("paper", card.paper),
        ("url", card.url),
        ("licence of weights", card.licence),
        ("input", f"multiples of {card.multiple}, at least {card.minimum} x {card.minimum}"),
        ("normalisation", f"mean {_values(normalisation.mean)}, std {_values(normalisation.std)} of 0..255"),
        ("optimiser", f"AdamW, learning rate {training.lr:g}, weight decay {training.weight_decay:g}"),
        *(
            ("", f"name contains {rule.match!r}: learning rate x {rule.lr:g}, weight decay x {rule.weight_decay:g}")
            for rule in training.rules
        ),
        ("schedule", f"warm-up, then {training.schedule} to zero"),
        ("batch", f"{training.batch_size} pairs"),
        ("augmentation", training.augmentation),
        ("lambda", f"{training.distillation_weight:g} (weight of the distillation term, criterion mse)"),
        ("exports, compiles", ", ".join("yes" if able else "no" for able in (card.exports, card.compiles))),
    ]
    if training.clip_norm is not None:
        rows.append(("gradient norm", f"clipped at {training.clip_norm:g}"))
    if card.notes:
        rows.append(("notes", card.notes))
    return rows


_COSTS = (
    ("parameters", "parameters", ","),
    ("trainable", "trainable", ","),
    ("GMAC per pair of 512 x 512", "gmac_512", ".3f"),
    ("GiB per training step of 8 pairs of 256 x 256", "memory_gib", ".2f"),
    ("CPU s per pair of 256 x 256", "forward_256_s", ".3f"),
    ("CPU s per pair of 512 x 512", "forward_512_s", ".3f"),
    ("CPU s per training step of 2 pairs of 256 x 256", "training_step_256_s", ".3f"),
)
"""Label, field of ``Measured`` and format of every cost."""


def cost_rows(facts: ModelFacts) -> list[tuple[str, str, str]]:
    """What a network costs: label, number measured here, number of Open-CD."""
    return [
        (label, _number(facts.measured, field, form), _number(facts.reference, field, form))
        for label, field, form in _COSTS
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


def _number(measured: Measured | None, field: str, form: str) -> str:
    value = getattr(measured, field, None)
    return "-" if value is None else format(value, form)


def _values(channels: tuple[float, ...]) -> str:
    return " / ".join(f"{value:g}" for value in channels)
