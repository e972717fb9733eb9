"""``bitemporal models``."""

import sys
from collections.abc import Callable
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from bitemporal.models.describe import OVERVIEW, SCORES, card_rows, number_rows, overview_row, score_rows
from bitemporal.models.facts import Measured, ModelFacts, all_facts, captions, model_facts

Order = Literal["name", "parameters", "gmac", "time"]

_KEYS: dict[str, Callable[[Measured], float | None]] = {
    "parameters": lambda measured: measured.parameters,
    "gmac": lambda measured: measured.gmac_512,
    "time": lambda measured: measured.forward_256_s,
}

_WIDE = 180
"""Columns of a table that goes to a file or to another program."""


def models(
    name: str | None = None,
    /,
    *,
    pattern: str = "*",
    max_parameters: float | None = None,
    sort: Order = "name",
) -> int:
    """List the networks, or say everything about one.

    Args:
        name: Network to describe: paper, licence, input, training, what it costs, published scores.
        pattern: Only networks whose names match, as in `changer_*`; `test_*` shows the micro variants for tests.
        max_parameters: Only networks with at most as many parameters, as in 5e6.
        sort: Order of the table: by name, number of parameters, multiply-adds, or time of a forward pass at 256 x 256.

    Returns:
        1 when no network matches, else 0.
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    if name is not None:
        _describe(model_facts(name), console)
        return 0
    found = all_facts(pattern)
    if max_parameters is not None:
        unknown = [facts.name for facts in found if facts.measured is None]
        found = [f for f in found if f.measured is not None and f.measured.parameters <= max_parameters]
        if unknown:
            console.print(escape(f"left out, not measured yet: {', '.join(unknown)}"), soft_wrap=True)
    if not found:
        console.print("no network matches; `bitemporal models` lists them all")
        return 1
    console.print(_overview(sorted(found, key=lambda facts: _rank(facts, sort))))
    return 0


def _rank(facts: ModelFacts, order: Order) -> tuple[bool, float, str]:
    """Place in the table; what was not measured comes last."""
    if order == "name":
        return False, 0.0, facts.name
    value = _KEYS[order](facts.measured) if facts.measured else None
    return value is None, value or 0.0, facts.name


def _overview(found: list[ModelFacts]) -> Table:
    table = Table(
        title="Networks",
        caption="GMAC: multiply-adds (1e9) of a pair of 512 x 512. CPU s: seconds for a pair of 256 x 256 and of "
        f"512 x 512. {escape(captions().measured)} One network: bitemporal models NAME",
        box=None,
        title_justify="left",
        caption_justify="left",
    )
    for i, column in enumerate(OVERVIEW):
        numeric = 2 <= i < len(OVERVIEW) - 1
        table.add_column(column, justify="right" if numeric else "left", no_wrap=numeric or i == 0)
    for facts in found:
        table.add_row(*map(escape, overview_row(facts)))
    return table


def _describe(facts: ModelFacts, console: Console) -> None:
    said = captions()
    console.print(f"[bold]{escape(facts.name)}[/bold]: {escape(facts.card.title)}")
    card = Table(box=None, show_header=False)
    card.add_column(no_wrap=True)
    card.add_column()
    for label, text in card_rows(facts):
        card.add_row(label, escape(text))
    console.print(card)
    numbers = Table(title="What it costs", box=None, title_justify="left")
    numbers.add_column("")
    for column in ("here", "Open-CD"):
        numbers.add_column(column, justify="right", no_wrap=True)
    for label, here, theirs in number_rows(facts):
        numbers.add_row(label, here, theirs)
    console.print(Padding(numbers, (1, 0, 0, 0)))
    console.print(Padding(escape(f"here: {said.measured}"), (0, 1)))
    console.print(Padding(escape(f"Open-CD: {said.reference}"), (0, 1)))
    if not facts.published:
        console.print(Padding("No published scores: the JL1-CD paper does not have this network.", (1, 1, 0, 1)))
        return
    scores = Table(title=f"Published scores, as {escape(facts.name_in_paper)}", box=None, title_justify="left")
    for i, column in enumerate(SCORES):
        scores.add_column(column, justify="right" if i > 2 else "left", no_wrap=i > 2)
    for row in score_rows(facts):
        scores.add_row(*row)
    console.print(Padding(scores, (1, 0, 0, 0)))
    for said_of_scores in filter(None, (facts.remark, said.published)):
        console.print(Padding(escape(said_of_scores), (0, 1)))
