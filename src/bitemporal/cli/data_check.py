"""``bitemporal data check``."""

import math
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bitemporal.pairs import FolderCheck, PairFolder, PairRecord, check_pairs


def check(
    path: str,
    /,
    *,
    label_values: tuple[int, ...] | None = None,
    label_threshold: float | None = None,
    image_range: tuple[float, float] | None = None,
    workers: int | None = None,
) -> int:
    """Read every file of a folder of pairs and list every fault with its remedy.

    Prints what the label values were taken to mean, the pairs of every split, warnings, and faults. The exit status
    is 1 when there is any fault. Nothing is changed on disk.

    Args:
        path: Folder of pairs, ROOT/{train,val,test}/{A,B,label} or ROOT/{A,B,label}.
        label_values: Values of unchanged, changed and, if any, ignored pixels, as in 1,2 or 0,1,255.
        label_threshold: Label values at or above this are changed, values below unchanged; instead of label_values.
        image_range: Values that map to 0 and 255, as in 0,4000, for images of more than 8 bits.
        workers: Processes that read files; as many as fit the folder and the machine when left out.
    """
    folder = PairFolder(path, label_values=label_values, label_threshold=label_threshold, image_range=image_range)
    scan = check_pairs(folder, workers, progress=sys.stderr.isatty())
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(scan.decoding.describe() if scan.decoding else _undecoded(scan), soft_wrap=True)
    console.print(_overview(folder.splits, scan))
    for warning in scan.warnings:
        console.print(f"warning: {warning}", soft_wrap=True)
    console.print(scan.report() if scan.faults else f"{path}: no faults", soft_wrap=True)
    return 1 if scan.faults else 0


def _undecoded(scan: FolderCheck) -> str:
    if any(record.labelled for record in scan.records):
        return "labels: their values cannot be decoded, see the faults"
    return "labels: none"


def _sizes(records: Sequence[PairRecord]) -> str:
    sizes = sorted({(record.height, record.width) for record in records if record.height})
    if not sizes:
        return "-"
    if len(sizes) == 1:
        return f"{sizes[0][0]} x {sizes[0][1]}"
    heights, widths = zip(*sizes, strict=True)
    return f"{min(heights)}-{max(heights)} x {min(widths)}-{max(widths)}"


def _overview(splits: Sequence[str], scan: FolderCheck) -> Table:
    table = Table("split", box=None, pad_edge=False)
    for column in ("pairs", "labelled", "height x width", "with change", "mean CAR"):
        table.add_column(column, justify="right")
    for split in splits:
        records = [record for record in scan.records if record.split == split]
        cars = [record.car for record in records if not math.isnan(record.car)]
        table.add_row(
            split,
            f"{len(records):,}",
            f"{sum(record.labelled for record in records):,}",
            _sizes(records),
            f"{sum(car > 0 for car in cars):,}" if cars else "-",
            f"{sum(cars) / len(cars):.4f}" if cars else "-",
        )
    return table
