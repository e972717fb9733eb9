"""``bitemporal data check``."""

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table

from bitemporal.cli.outcome import Outcome
from bitemporal.pairs import FolderCheck, PairOptions, PairRecord, check_pairs
from bitemporal.tables import make_table, print_table
from bitemporal.texts import harmless


def check(
    path: str,
    /,
    *,
    pair_options: PairOptions,
    workers: int | None = None,
) -> Outcome:
    """Read every file of a folder of pairs and list every fault with its remedy.

    Prints what the label values were taken to mean, the pairs of every split, warnings, and faults. The exit status
    is 1 when there is any fault. Nothing is changed on disk.

    Args:
        path: Folder of pairs, ROOT/{train,val,test}/{A,B,label}, ROOT/{A,B,label}, or as data sets are released.
        pair_options: How the files of the pairs are read.
        workers: Processes that read files; as many as fit the folder and the machine when left out.
    """
    folder = pair_options.pair_folder(path)
    checked = check_pairs(folder, workers, progress=sys.stderr.isatty())
    for note in folder.notes:
        print(f"layout: {harmless(note, lines=False)}")
    print(checked.decoding.describe() if checked.decoding else _undecoded(checked))
    print_table(_overview(folder.splits, checked))
    for warning in checked.warnings:
        print(f"warning: {harmless(warning, lines=False)}")
    print(checked.report() if checked.faults else f"{harmless(path, lines=False)}: no faults")
    return Outcome(
        {
            "layout": folder.notes,
            "labels": checked.decoding.describe() if checked.decoding else None,
            "splits": {split: _numbers(split, checked) for split in folder.splits},
            "warnings": checked.warnings,
            "faults": [asdict(fault) for fault in checked.faults],
        },
        status=1 if checked.faults else 0,
    )


def _numbers(split: str, checked: FolderCheck) -> dict[str, object]:
    records = [record for record in checked.records if record.split == split]
    cars = [record.car for record in records if not math.isnan(record.car)]
    return {
        "pairs": len(records),
        "labelled": sum(record.labelled for record in records),
        "with_change": sum(car > 0 for car in cars),
        "mean_car": sum(cars) / len(cars) if cars else None,
    }


def _undecoded(checked: FolderCheck) -> str:
    if any(record.labelled for record in checked.records):
        return "labels: their values cannot be decoded, see the faults"
    return "labels: none"


def _overview(splits: Sequence[str], checked: FolderCheck) -> Table:
    rows = []
    for split in splits:
        records = [record for record in checked.records if record.split == split]
        cars = [record.car for record in records if not math.isnan(record.car)]
        rows.append(
            (
                split,
                f"{len(records):,}",
                f"{sum(record.labelled for record in records):,}",
                _sizes(records),
                _with_change(cars, sum(record.labelled for record in records)),
                f"{sum(cars) / len(cars):.4f}" if cars else "-",
            )
        )
    return make_table(("split", "pairs", "labelled", "height x width", "with change", "mean CAR"), rows)


def _with_change(cars: Sequence[float], labelled: int) -> str:
    """Labels with change; of how many, where others cannot be decoded or have no valid pixel."""
    count = f"{sum(car > 0 for car in cars):,}"
    return "-" if not cars else count if len(cars) == labelled else f"{count} of {len(cars):,}"


def _sizes(records: Sequence[PairRecord]) -> str:
    heights = {record.height for record in records if record.height}
    widths = {record.width for record in records if record.height}
    return " x ".join(_span(sides) for sides in (heights, widths)) if heights else "-"


def _span(sides: set[int]) -> str:
    return f"{min(sides)}" if len(sides) == 1 else f"{min(sides)}-{max(sides)}"
