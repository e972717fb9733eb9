"""Write docs/models.md, the table of networks in README.md, and cards.json, from what the package knows.

    python benchmarks/models_page.py

A test fails when one of them differs from what this script writes.
"""

from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from bitemporal.models import list_models, model_card
from bitemporal.models.describe import (
    OVERVIEW,
    SCORES,
    card_rows,
    cost_rows,
    millions,
    overview_row,
    score_rows,
)
from bitemporal.models.facts import ModelFacts, all_facts, captions
from bitemporal.outputs import replacing, write_json

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/models.md"
README = ROOT / "README.md"
CARDS = ROOT / "src/bitemporal/models/cards.json"
START, END = "<!-- networks: written by benchmarks/models_page.py -->", "<!-- end of networks -->"


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]], text_columns: int) -> list[str]:
    """Lines of a Markdown table; the first columns hold text, the others numbers."""
    rule = ["---" if i < text_columns else "---:" for i in range(len(columns))]
    return ["| " + " | ".join(cells) + " |" for cells in (columns, tuple(rule), *rows)]


def linked(text: str) -> str:
    """Turn an address into a link."""
    return f"<{text}>" if text.startswith("http") else text


def card(facts: ModelFacts) -> list[str]:
    """The section of one network."""
    lines = [f"### {facts.name}", "", f"**{facts.card.title}**", ""]
    lines += [f"- {label}: {linked(text)}" if label else f"    - {text}" for label, text in card_rows(facts)]
    lines += ["", *table(("cost", "here", "Open-CD"), list(cost_rows(facts)), 1), ""]
    if facts.published:
        lines += [f"Published as {facts.name_in_paper}:", "", *table(SCORES, score_rows(facts), 3), ""]
    if facts.remark:
        lines += [facts.remark, ""]
    return lines


def page() -> str:
    """The text of docs/models.md."""
    everything, sources = all_facts(), captions()
    rows = [(f"[{row[0]}](#{row[0]})", *row[1:]) for row in map(overview_row, everything)]
    lines = [
        "# Networks",
        "",
        "Written by `benchmarks/models_page.py`; `bitemporal models` shows the same in a terminal. `bitemporal import` "
        "reads checkpoints of Open-CD and MTKD-CD for each of them.",
        "",
        *table(OVERVIEW, rows, 3),
        "",
        "The licence is that of the weights that `pretrained=True` fetches. GMAC: multiply-adds (1e9) per pair of "
        "512 x 512. CPU s: seconds per pair of 256 x 256 and of 512 x 512.",
        "",
        f"Here: {sources.measured}",
        "",
        f"Open-CD, in the cards: {sources.reference}.",
        "",
        f"Published scores, in the cards: {sources.published}",
        "",
        *(line for text in sources.missing for line in (text, "")),
        f"Miniatures for tests: {', '.join(facts.name for facts in all_facts('test_*'))}.",
        "",
        "## Cards",
        "",
        *(line for facts in everything for line in card(facts)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def readme_table() -> str:
    """The table of networks in the README: one row per paper."""
    by_paper = sorted(all_facts(), key=lambda facts: facts.card.paper)
    rows = []
    for paper, group in groupby(by_paper, key=lambda facts: facts.card.paper):
        family = list(group)
        names = ", ".join(f"`{facts.name}`" for facts in family)
        rows.append((names, sizes(family), f"[{cited(paper)}]({family[0].card.url})"))
    return "\n".join(table(("networks", "parameters", "paper"), rows, 3))


def sizes(family: list[ModelFacts]) -> str:
    """The smallest and the largest number of parameters."""
    counts = [facts.measured.parameters for facts in family if facts.measured]
    if len(counts) < len(family):
        return "not measured yet"
    return " to ".join(dict.fromkeys(map(millions, (min(counts), max(counts)))))


def cited(paper: str) -> str:
    """Authors and venue of a paper written as ``authors: title, venue year``."""
    authors = paper.split(":")[0].split(", ")
    shown = ", ".join(authors) if len(authors) <= 3 else f"{authors[0]} and others"
    return f"{shown}, {paper.rsplit(', ', 1)[1]}"


def with_table(readme: str) -> str:
    """The README with its table of networks replaced."""
    before, rest = readme.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n{readme_table()}\n{END}{after}"


def cards() -> dict[str, dict[str, object]]:
    """The cards of all networks in JSON types."""
    return {name: asdict(model_card(name)) for name in list_models()}


def main() -> None:
    """Write all files."""
    write_json(CARDS, cards())
    for path, text in ((PAGE, page()), (README, with_table(README.read_text(encoding="utf-8")))):
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
