"""Write docs/datasets.md from the catalogue of data sets.

    python benchmarks/datasets_page.py

A test fails when the page differs from what this script writes.
"""

from pathlib import Path

from bitemporal.datasets.catalog import DATASETS, DatasetCard, Direct, Hub, Manual, check_command, tiles_command
from bitemporal.outputs import replacing

PAGE = Path(__file__).resolve().parents[1] / "docs/datasets.md"
HEAD = """\
# Data sets

<!-- Written by benchmarks/datasets_page.py from src/bitemporal/datasets/catalog.yaml -->

`bitemporal data download` lists these data sets. `bitemporal data download NAME -o DIR` fetches one from the Hugging
Face hub or through direct links with checksums. For the others it says where to get the files and how they are read;
its exit status is then 1, because nothing was fetched. After an interruption run the same command again: finished files
are kept, and the download of a file behind a direct link resumes where it stopped.

Each is read as it is released, by the command that its section names. In paths, NAME stands for the name of a pair,
SPLIT for that of a split, BAND for that of a band.

Where a card says `not stated` or `not verified`, check before you rely on it.

| name | pairs | size | m / pixel | splits | download |
| --- | --- | --- | --- | --- | --- |
"""


def row(card: DatasetCard) -> str:
    """The data set's row of the table."""
    name = f"[{card.name}](#{card.name})"
    return f"| {name} | {card.pairs:,} | {card.size} | {card.resolution} | {card.split_text} | {card.source.how} |\n"


def section(card: DatasetCard) -> str:
    """The section about one data set."""
    size = "several sizes" if card.size == "varies" else f"{card.size} pixels"
    items = [
        f"Pairs: {card.pairs:,} of {size}, {card.resolution} m; {card.split_text}",
        f"Change: {card.changes}",
        f"Licence: {card.licence}",
        f"As released: {', '.join(f'`{place}`' for place in card.layout or card.folders)}",
        f"Labels: {card.label_coding}",
        f"Read by: `{check_command(card, 'ROOT')}`",
        *(f"Or with `{words}`, which {meaning}" for words, meaning in card.ways.items()),
        *([f"Cut into pairs by: `{tiles_command(card, 'ROOT')}`"] if card.tile else []),
        f"Download: {source(card)}",
        *(f"Also at {mirror}" for mirror in card.mirrors),
        *card.notes,
    ]
    listed = "\n".join(f"- {item}" for item in items)
    return f"\n## {card.name}\n\n**{card.title}.** {card.paper}. <{card.url}>\n\n{listed}\n"


def source(card: DatasetCard) -> str:
    """How to get the files."""
    match card.source:
        case Hub(repo_id):
            return f"`bitemporal data download {card.name}` (hub, data set `{repo_id}`; `--revision` pins a commit)"
        case Direct(archives):
            digests = ", ".join(f"`{archive.filename}` {archive.digest}" for archive in archives)
            return f"`bitemporal data download {card.name}` (direct links; {digests})"
        case Manual(text):
            return f"by hand, in a browser. {text}"


def page() -> str:
    """The text of docs/datasets.md."""
    cards = DATASETS.values()
    return HEAD + "".join(map(row, cards)) + "".join(map(section, cards))


if __name__ == "__main__":
    with replacing(PAGE) as temporary:
        temporary.write_text(page(), encoding="utf-8")
