"""``bitemporal models``."""

import math
from dataclasses import asdict
from typing import Literal

from bitemporal.cli.outcome import Outcome
from bitemporal.models.describe import OVERVIEW, SCORES, card_rows, cost_rows, overview_row, score_rows
from bitemporal.models.facts import ModelFacts, all_facts, captions, model_facts
from bitemporal.tables import make_table, print_table

Order = Literal["name", "parameters", "gmac", "time"]

_FIELDS = {"parameters": "parameters", "gmac": "gmac_512", "time": "forward_256_s"}
"""Fields of ``Measured`` by which the table can be sorted."""


def models(
    name: str | None = None,
    /,
    *,
    pattern: str = "*",
    max_parameters: float | None = None,
    sort: Order = "name",
) -> Outcome:
    """List the networks, or describe one.

    Args:
        name: Network to describe: paper, licence, input, training, cost, published scores.
        pattern: List only networks whose names match, such as `changer_*`; `test_*` lists the micro variants for tests.
        max_parameters: List only networks with at most this many parameters, such as 5e6.
        sort: Order of the list: by name, number of parameters, multiply-adds, or time of a forward pass at 256 x 256.

    Returns:
        Status 1 when no network matches.
    """
    if name is not None:
        _describe(model_facts(name))
        return Outcome(asdict(model_facts(name)))
    networks = all_facts(pattern)
    if max_parameters is not None:
        unknown = [facts.name for facts in networks if facts.measured is None]
        networks = [facts for facts in networks if facts.measured and facts.measured.parameters <= max_parameters]
        if unknown:
            print(f"left out, not measured yet: {', '.join(unknown)}")
    if not networks:
        print("no network matches; `bitemporal models` lists them all")
        return Outcome([], status=1)
    if sort != "name":  # networks that were not measured come last
        networks.sort(key=lambda facts: getattr(facts.measured, _FIELDS[sort], None) or math.inf)
    caption = (
        "GMAC: multiply-adds (1e9) per pair of 512 x 512. CPU s: seconds per pair of 256 x 256 and of 512 x 512. "
        f"{captions().measured} One network: bitemporal models NAME"
    )
    print_table(make_table(OVERVIEW, map(overview_row, networks), "Networks", caption, text_columns=3))
    return Outcome([asdict(facts) for facts in networks])


def _describe(facts: ModelFacts) -> None:
    sources = captions()
    print_table(make_table(("", ""), card_rows(facts), f"{facts.name}: {facts.card.title}", text_columns=2))
    measured = f"here: {sources.measured}\nOpen-CD: {sources.reference}"
    print_table(make_table(("", "here", "Open-CD"), cost_rows(facts), "\nCost", measured))
    if not facts.published:
        print("\nNo published scores: the JL1-CD paper does not have this network.")
        return
    title = f"\nPublished scores, as {facts.name_in_paper}"
    notes = "\n".join(filter(None, (facts.remark, sources.published)))
    print_table(make_table(SCORES, score_rows(facts), title, notes, text_columns=3))
