"""``bitemporal data download``."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn
from rich.table import Table

from bitemporal.cli.outcome import Outcome
from bitemporal.datasets import download as fetching
from bitemporal.datasets.catalog import DATASETS, DatasetCard, Direct, Manual, check_command, dataset_card, manual_text
from bitemporal.datasets.layout import compare_with_card, find_splits


def download(name: str = "list", /, *, output: Path | None = None, revision: str | None = None) -> Outcome:
    """Fetch a known data set, or list them.

    Without a name, this prints the table of known data sets. For a data set that must be fetched by hand it prints
    where to get the files and how they are read. The exit status is then 1, because nothing was fetched. It is also 1
    when the number of pairs differs from the data set's card.

    Args:
        name: Data set to fetch; `list` prints the table.
        output: Folder to make; `data/NAME` by default.
        revision: Branch, tag or commit on the hub; the newest commit by default.
    """
    console = Console(markup=False)
    if name == "list":
        console.print(_table())
        return Outcome([_described(card) for card in DATASETS.values()])
    card = dataset_card(name)
    if isinstance(card.source, Manual):
        console.print(manual_text(card), soft_wrap=True)
        return Outcome({"by_hand": manual_text(card)}, status=1)
    console.print(f"{card.title}. Licence: {card.licence}.", soft_wrap=True)
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    # the hub client draws its own bars, which would overwrite these
    with Progress(*columns, console=console, disable=not isinstance(card.source, Direct)) as bars:
        tasks = {}

        def show(file: str, have: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(escape(file), total=total)
            bars.update(tasks[file], completed=have, total=total)

        folder = fetching.download(name, output, revision, show)
    splits = find_splits(folder)
    for split, folders in splits.items():
        console.print(f"{folder / split}: {folders.pairs:,} pairs", soft_wrap=True)
    if "val" not in splits:
        console.print("The data set has no validation split; take one from train, never from test.", soft_wrap=True)
    differences = compare_with_card(card, splits)
    for difference in differences:
        console.print(f"differs from the card: {difference}", soft_wrap=True)
    console.print(f"Labels: {card.label_coding}.\nCheck them by `{check_command(card, folder)}`.", soft_wrap=True)
    return Outcome(
        {
            "folder": folder,
            "splits": {split: folders.pairs for split, folders in splits.items()},
            "differences": differences,
        },
        status=1 if differences else 0,
    )


def _described(card: DatasetCard) -> dict[str, object]:
    return {
        "name": card.name,
        "title": card.title,
        "licence": card.licence,
        "pairs": card.pairs,
        "size": card.size,
        "metres_per_pixel": card.resolution,
        "splits": card.split_text,
        "download": card.source.how,
    }


def _table() -> Table:
    table = Table(title="Known data sets", caption="licences, label coding and notes: docs/datasets.md")
    for column in ("name", "pairs", "size", "m / pixel", "splits", "download"):
        table.add_column(column, justify="right" if column == "pairs" else "left", no_wrap=column == "name")
    for card in DATASETS.values():
        table.add_row(card.name, f"{card.pairs:,}", card.size, card.resolution, card.split_text, card.source.how)
    return table
