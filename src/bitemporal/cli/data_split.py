"""``bitemporal data split``."""

import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from bitemporal.cli.outcome import Outcome
from bitemporal.method.car import CarPartition
from bitemporal.outputs import Output, check_outputs
from bitemporal.pairs import PairOptions, check_pairs
from bitemporal.pairs.division import Group, describe_groups, divide, find_groups, group_by, undivided
from bitemporal.pairs.names import SPLITS
from bitemporal.pairs.partition import PartitionRow
from bitemporal.pairs.split_lists import DIVISION, write_split
from bitemporal.remedies import as_typed
from bitemporal.tables import make_table, print_table

_ALONE = ".*"


def split(
    path: str,
    /,
    *,
    output: str = "splits.csv",
    shares: tuple[float, ...] = (0.7, 0.15, 0.15),
    seed: int = 0,
    group: str | None = None,
    parts: int | None = None,
    thresholds: tuple[float, ...] | None = None,
    pair_options: PairOptions,
    workers: int | None = None,
    overwrite: bool = False,
) -> Outcome:
    """Divide the pairs of a folder into train, val and test, and write the division to a CSV file.

    Each part of CAR is divided by the shares. Tiles of one scene stay in one split. Pairs that are in val or test on
    disk stay there. Only labels are read; the data is not moved, copied or changed.

    Args:
        path: Folder of pairs.
        output: CSV file to write (split, stem), which --splits of other commands reads. Saved as splits.csv in the
            folder of pairs, it is read without that option.
        shares: Shares of train, val and test; 0 leaves a split out.
        seed: Seed of the division.
        group: Regular expression that matches whole stems of tiles and whose first group names their scene, as in
            '(.*)_[0-9]+_[0-9]+'. By default it is inferred if all names look like tiles; '.*' divides pair by pair.
        parts: Number of CAR parts, split at the paper's thresholds (2 or 3).
        thresholds: CAR thresholds, as in 0.05,0.20, for any number of parts; instead of parts.
        pair_options: How the files of the pairs are read.
        workers: Processes that read files; as many as fit the folder and the machine when left out.
        overwrite: Also replace a file that is not an earlier division; never a file that is read.
    """
    partition = CarPartition.of_options(parts, thresholds) or CarPartition()
    folder = pair_options.pair_folder(path)
    check_outputs([Output("output", Path(output), DIVISION)], folder.files(), overwrite)
    check = check_pairs(folder, workers, progress=sys.stderr.isatty(), images=False)
    check.refuse_label_faults()
    measured = check.rows(partition.part)
    stems = [row.stem for row in undivided(measured)]
    found = find_groups(stems) if group is None else group
    together = group_by(_ALONE if found is None else found, stems)
    rows = divide(measured, shares, seed, together)
    write_split(output, rows)
    if check.decoding:
        print(check.decoding.describe())
    if group is None and found is not None:
        print(f"{describe_groups(stems, found)} (--group '.*' divides pair by pair)")
    print_table(_overview(rows, partition, together))
    print(f"written to {output}; use it by --splits {as_typed(output)}")
    return Outcome({"division": output, "pairs": Counter(row.split for row in rows), "groups": found})


def _overview(rows: Sequence[PartitionRow], partition: CarPartition, group: Group) -> Table:
    lines = []
    for split in (*SPLITS, *sorted({row.split for row in rows} - {*SPLITS})):
        own = [row for row in rows if row.split == split]
        if not own:
            continue
        cars = [row.car for row in own if not math.isnan(row.car)]
        counts = [f"{sum(row.part == part for row in own):,}" for part in partition.names]
        mean = f"{sum(cars) / len(cars):.4f}" if cars else "-"
        lines.append((split, f"{len(own):,}", f"{len({group(row.stem) for row in own}):,}", *counts, mean))
    return make_table(("split", "pairs", "groups", *partition.names, "mean CAR"), lines)
