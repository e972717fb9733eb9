"""``bitemporal data stats``."""

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.table import Table

from bitemporal.cli.outcome import Outcome
from bitemporal.imagery.marks import is_marked, mark
from bitemporal.method.car import PAPER_THRESHOLDS, CarPartition
from bitemporal.outputs import Kind, Output, check_outputs, replacing
from bitemporal.pairs import FolderCheck, PairOptions, check_pairs
from bitemporal.pairs.partition import PARTITION, write_partition
from bitemporal.tables import make_table, print_table

Cars = npt.NDArray[np.float64]

_QUANTILES = {0: "min", 5: "5 %", 25: "25 %", 50: "median", 75: "75 %", 95: "95 %", 100: "max"}
_LEAST = 1e-4  # left end of the picture's logarithmic axis
_TITLE = "change area ratios"
_HISTOGRAM = Kind("a histogram of CAR", lambda path: is_marked(path, _TITLE), (".png",))
_REMEDY = "choose another folder"
_BINS = np.array([-_LEAST, 0.0, *np.geomspace(_LEAST, 1.0, 41)])  # CAR 0, rarer than the least, and the others


def stats(
    path: str,
    /,
    *,
    output: str = "car-stats",
    parts: int | None = None,
    thresholds: tuple[float, ...] | None = None,
    pair_options: PairOptions,
    workers: int | None = None,
    overwrite: bool = False,
) -> Outcome:
    """Show how change is distributed over the pairs, and write their partition by change area ratio (CAR).

    Prints quantiles of CAR and the pairs of every part for each split, at the paper's thresholds (or the given ones)
    and at thresholds that give parts of equal size. Writes partition.csv (split, stem, car, part) and
    car_histogram.png. Only labels are read; the data is not moved, copied or changed.

    Args:
        path: Folder of pairs, ROOT/{train,val,test}/{A,B,label}, ROOT/{A,B,label}, or as data sets are released.
        output: Folder for partition.csv and car_histogram.png; must be outside the data.
        parts: Number of parts, 3 when left out. The paper has thresholds for 2 (0.10) and 3 (0.05, 0.20) parts; any
            other number takes those of equal pair counts.
        thresholds: CAR thresholds, as in 0.05,0.20, for any number of parts; instead of the paper's.
        pair_options: How the files of the pairs are read.
        workers: Processes that read files; as many as fit the folder and the machine when left out.
        overwrite: Also replace files of these names that are not an earlier output; never a file that is read.
    """
    table, picture = Path(output, "partition.csv"), Path(output, "car_histogram.png")
    written = [Output("output", table, PARTITION, _REMEDY), Output("output", picture, _HISTOGRAM, _REMEDY)]
    given: CarPartition | None = None
    if parts is None or parts in PAPER_THRESHOLDS or thresholds is not None:
        given = CarPartition.of_options(parts, thresholds) or CarPartition()
    folder = pair_options.pair_folder(path)
    check_outputs(written, [folder.root, *folder.files()], overwrite)
    check = check_pairs(folder, workers, progress=sys.stderr.isatty(), images=False)
    check.refuse_label_faults()
    cars = {
        split: np.array([r.car for r in check.records if r.split == split and not math.isnan(r.car)])
        for split in folder.splits
    }
    # the pairs that teachers would be trained on decide what equal means
    from_train = cars.get("train", np.array([])).size > 0
    count = len(given.names) if given else parts or 0
    equal = CarPartition.of_equal_counts(cars["train"] if from_train else np.concatenate(list(cars.values())), count)
    if check.decoding:
        print(check.decoding.describe())
    for warning in check.warnings:
        print(f"warning: {warning}")
    if check.faults:
        print(
            f"warning: {len(check.faults):,} fault(s) that do not affect the CAR of labels, such as missing partners; "
            f"`{pair_options.check_command(path)}` lists them"
        )
    print_table(_distribution(cars, check))
    named = {
        "the paper's thresholds" if thresholds is None else "given thresholds": given,
        f"thresholds of equal counts (from {'train' if from_train else 'all pairs'})": equal,
    }
    for name, partition in named.items():
        if partition is not None:
            print(f"\npairs per part at {name}: {partition.describe()}")
            print_table(_parts(partition, cars))
    chosen = given or equal
    write_partition(table, check.rows(chosen.part))
    save_histogram(picture, cars, given, equal)
    print(
        f"\nwritten to {output}: partition.csv ({len(check.records):,} pairs, {chosen.describe()}), car_histogram.png"
    )
    return Outcome(
        {
            "splits": {
                split: {
                    "pairs": sum(record.split == split for record in check.records),
                    "labelled": own.size,
                    "quantiles": dict(zip(_QUANTILES.values(), _quantiles(own), strict=True)) if own.size else None,
                    "mean": float(own.mean()) if own.size else None,
                    "car_0": int((own == 0).sum()),
                    "car_1": int((own == 1).sum()),
                }
                for split, own in cars.items()
            },
            "thresholds": {name: partition.thresholds for name, partition in named.items() if partition is not None},
            "pairs_by_part": {
                title: {
                    split: {name: int((partition.indices(own) == i).sum()) for i, name in enumerate(partition.names)}
                    for split, own in cars.items()
                }
                for title, partition in named.items()
                if partition is not None
            },
            "partition": table,
            "histogram": picture,
        }
    )


def _quantiles(cars: Cars) -> list[float]:
    values: list[float] = np.percentile(cars, list(_QUANTILES)).tolist()
    return values


def _distribution(cars: Mapping[str, Cars], check: FolderCheck) -> Table:
    """One column per split, so that any number of figures fits a narrow terminal."""
    columns = [["pairs", "labelled", *(f"CAR {name}" for name in _QUANTILES.values()), "CAR mean", "CAR 0", "CAR 1"]]
    for split, values in cars.items():
        labelled = [record.labelled for record in check.records if record.split == split]
        column = [f"{len(labelled):,}", f"{sum(labelled):,}"]
        if values.size:
            column += [f"{value:.4f}" for value in (*_quantiles(values), values.mean())]
            column += [_share((values == end).sum(), values.size) for end in (0, 1)]
        columns.append(column + ["-"] * (len(columns[0]) - len(column)))
    return make_table(["", *cars], zip(*columns, strict=True))


def _parts(partition: CarPartition, cars: Mapping[str, Cars]) -> Table:
    parts = {split: partition.indices(own) for split, own in cars.items()}
    rows = (
        [name, *(_share((own == index).sum(), own.size) for own in parts.values())]
        for index, name in enumerate(partition.names)
    )
    return make_table(["part", *cars], rows)


def _share(count: int, total: int) -> str:
    return f"{count:,} ({count / max(total, 1):.1%})"


def save_histogram(
    path: str | os.PathLike[str],
    cars: Mapping[str, Cars],
    given: CarPartition | None,
    equal: CarPartition | None,
) -> None:
    """Save a picture of the CAR distribution, one histogram per split with labels.

    Bars show the share of the split's labelled pairs over CAR on a logarithmic axis. CAR 0 has a bar of its own at the
    left, which names its share, and is cut off where it is more than twice as high as any other.

    Args:
        path: PNG file; appears whole or not at all.
        cars: CAR of the labelled pairs by split, in [0, 1].
        given: Partition whose thresholds are drawn as full lines.
        equal: Partition whose thresholds are drawn dashed.
    """
    from matplotlib.figure import Figure  # here, as it takes longer to import than a help text should
    from matplotlib.ticker import PercentFormatter

    shown = {split: values for split, values in cars.items() if values.size}
    figure = Figure(figsize=(8, 1.1 + 1.9 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), squeeze=False, sharex=True)[:, 0]
    for axis, (split, values) in zip(axes, shown.items(), strict=True):
        binned = np.where(values == 0, -_LEAST / 2, values)
        heights, _, _ = axis.hist(binned, _BINS, weights=np.full(values.size, 1 / values.size), color="#4575b4")
        unchanged, top = heights[0], min(heights[0], 2 * heights[1:].max()) or heights[0]
        axis.set_ylim(0, 1.2 * max(top, *heights[1:]))
        axis.annotate(f" {unchanged:.0%} at CAR 0", (0, top), va="bottom", fontsize="small")
        axis.set_ylabel(f"{split}\n{values.size:,} pairs")
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        for name, partition, colour, style in (
            ("thresholds", given, "#b2182b", "-"),
            ("equal counts", equal, "#1b7837", "--"),
        ):
            if partition is None:
                continue
            for threshold in partition.thresholds:
                axis.axvline(threshold, color=colour, linestyle=style, label=f"{name}: {partition.describe()}")
    axes[-1].set_xscale("symlog", linthresh=_LEAST, linscale=0.25)
    axes[-1].set_xlim(-_LEAST, 1)
    ticks = [-_LEAST / 2, 1e-4, 1e-3, 1e-2, 1e-1, 1]
    axes[-1].set_xticks(ticks, ["0", *(f"{100 * tick:g} %" for tick in ticks[1:])])
    axes[-1].minorticks_off()
    axes[-1].set_xlabel("change area ratio (logarithmic)")
    figure.suptitle("share of each split's labelled pairs by change area ratio", fontsize="medium")
    lines = dict(zip(*axes[0].get_legend_handles_labels()[::-1], strict=True))  # one for all lines of a name
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata=mark(_TITLE))
