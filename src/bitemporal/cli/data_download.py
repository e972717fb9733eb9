"""``bitemporal data download``."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from bitemporal.datasets import download as fetching
from bitemporal.datasets.catalog import DATASETS, Direct, Manual, dataset_card, manual_text


def download(name: str = "list", /, *, output: Path | None = None, revision: str | None = None) -> int:
    """Fetch a known data set, or list them.

    Without a name, prints the table of known data sets. A set that has to be got by hand prints where it is and how to
    lay it out, and ends with exit status 1 since nothing was fetched; so does one whose counts differ from its card.

    Args:
        name: Data set to fetch; `list` prints the table.
        output: Folder to make, `data/NAME` when left out.
        revision: Branch, tag or commit to take from the hub; the newest when left out.
    """
    console = Console()
    if name == "list":
        console.print(_table())
        return 0
    card = dataset_card(name)
    if isinstance(card.source, Manual):
        console.print(escape(manual_text(card)), soft_wrap=True)
        return 1
    console.print(escape(f"{card.title}. Licence: {card.licence}."), soft_wrap=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    # the hub client draws its own bars, which would fight with these
    with Progress(*columns, console=console, disable=not isinstance(card.source, Direct)) as bars:
        tasks = {}

        def show(file: str, have: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file, total=total)
            bars.update(tasks[file], completed=have, total=total)

        folder = fetching.download(name, output, revision, show)
    found = fetching.find_splits(folder)
    for split, folders in found.items():
        console.print(escape(f"{folder / split}: {folders.pairs:,} pairs"), soft_wrap=True)
    if "val" not in found:
        console.print("No validation split is shipped; take one from train, never from test.", soft_wrap=True)
    complaints = fetching.compare_with_card(card, found)
    for complaint in complaints:
        console.print(escape(f"differs from the card: {complaint}"), soft_wrap=True)
    return 1 if complaints else 0


def _table() -> Table:
    table = Table(title="Known data sets", caption="licences, label coding and notes: docs/datasets.md")
    for column in ("name", "pairs", "size", "m / pixel", "splits", "download"):
        table.add_column(column, justify="right" if column == "pairs" else "left")
    for card in DATASETS.values():
        table.add_row(card.name, f"{card.pairs:,}", card.size, card.resolution, card.split_text, card.how)
    return table
