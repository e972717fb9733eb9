"""``bitemporal data stats``."""

import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from rich.console import Console
from rich.table import Table

from bitemporal.errors import DataError, RecipeError
from bitemporal.files import replacing
from bitemporal.method.car import PAPER_THRESHOLDS, CarPartition
from bitemporal.pairs import FolderCheck, PairFolder, check_pairs
from bitemporal.pairs.partition import write_partition

Cars = npt.NDArray[np.float64]

_QUANTILES = (0, 5, 25, 50, 75, 95, 100)
_LEAST = 1e-4  # left end of the picture's logarithmic axis; rarer change is shown in its first bar
_GIVEN, _EQUAL, _BARS = "#b2182b", "#1b7837", "#4575b4"


def stats(
    path: str,
    /,
    *,
    output: str = "car-stats",
    parts: int | None = None,
    thresholds: tuple[float, ...] | None = None,
    label_values: tuple[int, ...] | None = None,
    label_threshold: float | None = None,
    workers: int | None = None,
) -> None:
    """Show how change is distributed over the pairs, and write their partition by change area ratio (CAR).

    Prints quantiles of CAR and the pairs of every part for each split, at the paper's thresholds (or the given ones)
    and at thresholds that give parts of equal size. Writes partition.csv (split, stem, car, part) and
    car_histogram.png. Only labels are read; nothing of the data is moved, copied or changed.

    Args:
        path: Folder of pairs, ROOT/{train,val,test}/{A,B,label} or ROOT/{A,B,label}.
        output: Folder for partition.csv and car_histogram.png; must not lie inside the data.
        parts: Number of parts, 3 when left out. The paper has thresholds for 2 (0.10) and 3 (0.05, 0.20) parts; any
            other number takes those of equal pair counts.
        thresholds: CAR thresholds, as in 0.05,0.20, for any number of parts; instead of the paper's.
        label_values: Values of unchanged, changed and, if any, ignored pixels, as in 1,2 or 0,1,255.
        label_threshold: Label values at or above this are changed, values below unchanged; instead of label_values.
        workers: Processes that read files; as many as fit the folder and the machine when left out.
    """
    if parts is not None and thresholds is not None:
        raise RecipeError(f"parts: found {parts} beside thresholds {thresholds}, expected one of the two; drop one")
    if parts is not None and parts < 1:
        raise RecipeError(f"parts: found {parts}, expected a number of at least 1")
    target = _outside(Path(output), Path(path))
    given = None if thresholds is None else CarPartition(thresholds)
    folder = PairFolder(path, label_values=label_values, label_threshold=label_threshold)
    scan = check_pairs(folder, workers, progress=sys.stderr.isatty(), images=False)
    _refuse_label_faults(scan)
    cars = _cars(folder.splits, scan)
    base, base_name = _base(cars)
    count = len(given.names) if given else parts or 3
    equal = CarPartition.of_equal_counts(base, count)
    if given is None and count in PAPER_THRESHOLDS:
        given = CarPartition.of_paper(count)
    label = "given thresholds" if thresholds is not None else "the paper's thresholds"

    console = Console(highlight=False, markup=False, emoji=False)
    if scan.decoding:
        console.print(scan.decoding.describe(), soft_wrap=True)
    for warning in scan.warnings:
        console.print(f"warning: {warning}", soft_wrap=True)
    if scan.faults:
        console.print(
            f"warning: {len(scan.faults):,} fault(s) that do not touch the labels' CAR, such as missing partners; "
            f"`bitemporal data check {path}` lists them",
            soft_wrap=True,
        )
    console.print(_distribution(cars, scan))
    for title, partition in ((label, given), (f"thresholds of equal counts (from {base_name})", equal)):
        if partition is not None:
            console.print(f"\npairs a part at {title}: {partition.describe()}", soft_wrap=True)
            console.print(_parts(partition, cars))
    written = given or equal
    write_partition(target / "partition.csv", scan.rows(written.part))
    save_histogram(target / "car_histogram.png", cars, given, equal)
    console.print(
        f"\nwritten to {target}: partition.csv ({len(scan.records):,} pairs, {written.describe()}), car_histogram.png",
        soft_wrap=True,
    )


def _outside(target: Path, data: Path) -> Path:
    if target.resolve().is_relative_to(data.resolve()):
        raise RecipeError(
            f"output: {target} lies inside the data folder {data}, which is never written to; name a folder "
            "elsewhere by --output"
        )
    if target.exists() and not target.is_dir():
        raise RecipeError(f"output: {target} is a file, expected a folder (new or existing); name another by --output")
    return target


def _refuse_label_faults(scan: FolderCheck) -> None:
    """A distribution with holes would mislead.

    Raises:
        DataError: With the report of all unreadable and undecodable labels, or when there is no label.
    """
    faults = [fault for fault in scan.faults if fault.kind in ("file", "label")]
    if faults:
        raise DataError(FolderCheck(scan.root, faults=faults).report())
    if all(math.isnan(record.car) for record in scan.records):
        raise DataError(
            f"{scan.root}: found {len(scan.records)} pairs, none of them with a label that has a valid pixel; CAR is "
            "defined by labels, add change masks in the folder label"
        )


def _cars(splits: Sequence[str], scan: FolderCheck) -> dict[str, Cars]:
    values: dict[str, list[float]] = {split: [] for split in splits}
    for record in scan.records:
        if not math.isnan(record.car):
            values[record.split].append(record.car)
    return {split: np.asarray(own, dtype=np.float64) for split, own in values.items()}


def _base(cars: Mapping[str, Cars]) -> tuple[Cars, str]:
    """The pairs that teachers would be trained on decide what equal means."""
    if "train" in cars and cars["train"].size:
        return cars["train"], "train"
    return np.concatenate(list(cars.values())), "all splits" if len(cars) > 1 else next(iter(cars))


def _distribution(cars: Mapping[str, Cars], scan: FolderCheck) -> Table:
    """A column a split, so that any number of figures fits a narrow terminal."""
    names = ["min" if q == 0 else "max" if q == 100 else "median" if q == 50 else f"{q} %" for q in _QUANTILES]
    columns: list[list[str]] = [["pairs", "labelled", *(f"CAR {name}" for name in names), "CAR mean", "CAR 0", "CAR 1"]]
    for split, values in cars.items():
        records = [record for record in scan.records if record.split == split]
        column = [f"{len(records):,}", f"{sum(record.labelled for record in records):,}"]
        if values.size:
            column += [f"{value:.4f}" for value in (*np.percentile(values, _QUANTILES), values.mean())]
            column += [_share(int((values == end).sum()), values.size) for end in (0, 1)]
        else:
            column += ["-"] * (len(_QUANTILES) + 3)
        columns.append(column)
    return _table("", list(cars), zip(*columns, strict=True))


def _share(count: int, total: int) -> str:
    return f"{count:,} ({count / max(total, 1):.1%})"


def _parts(partition: CarPartition, cars: Mapping[str, Cars]) -> Table:
    counts = {split: np.bincount(partition.indices(own), minlength=len(partition.names)) for split, own in cars.items()}
    rows = (
        (name, *(_share(int(counts[split][index]), own.size) for split, own in cars.items()))
        for index, name in enumerate(partition.names)
    )
    return _table("part", list(cars), rows)


def _table(first: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(first, box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def save_histogram(
    path: str | os.PathLike[str],
    cars: Mapping[str, Cars],
    given: CarPartition | None,
    equal: CarPartition | None,
) -> None:
    """Save a picture of the CAR distribution, a row of axes for every split with labels.

    CAR 0 has a bar of its own beside a logarithmic axis; bars show the share of the split's labelled pairs. The bar
    of CAR 0 names its share, and is cut off where it is more than twice as high as any other.

    Args:
        path: PNG file; appears whole or not at all.
        cars: CAR of the labelled pairs by split, in [0, 1].
        given: Partition whose thresholds are drawn as full lines.
        equal: Partition whose thresholds are drawn dashed.
    """
    shown = {split: values for split, values in cars.items() if values.size}
    figure = Figure(figsize=(8, 1.1 + 1.9 * len(shown)), layout="constrained")
    axes = figure.subplots(
        len(shown), 2, squeeze=False, sharey="row", sharex="col", gridspec_kw={"width_ratios": [1, 14], "wspace": 0.02}
    )
    edges = np.geomspace(_LEAST, 1.0, 41)
    for (zero, rest), (split, values) in zip(axes, shown.items(), strict=True):
        changed = np.clip(values[values > 0], _LEAST, 1.0)
        heights = np.histogram(changed, edges)[0] / values.size
        rest.bar(edges[:-1], heights, np.diff(edges), align="edge", color=_BARS, edgecolor="white", linewidth=0.4)
        unchanged = float((values == 0).mean())
        top = 1.18 * max(min(unchanged, 2.0 * heights.max()) or unchanged, heights.max())
        zero.set_ylim(0, top)
        zero.bar([0], [unchanged], width=0.6, color=_BARS, alpha=0.55)  # leaves the axes where it dwarfs all others
        cut = unchanged > top
        text = f"↑\n{unchanged:.0%}" if cut else f"{unchanged:.0%}"
        zero.text(0, 0.84 * top if cut else unchanged + 0.02 * top, text, ha="center", fontsize="small")
        _style(zero, rest)
        zero.set_ylabel(f"{split}\n{values.size:,} pairs")
        for partition, colour, line in ((given, _GIVEN, "-"), (equal, _EQUAL, "--")):
            for limit in partition.thresholds if partition else ():
                (rest if limit > 0 else zero).axvline(max(limit, 0.35 if limit == 0 else _LEAST), color=colour, ls=line)
    lines = [
        (name, partition, colour, style)
        for name, partition, colour, style in (
            ("thresholds", given, _GIVEN, "-"),
            ("equal counts", equal, _EQUAL, "--"),
        )
        if partition and partition.thresholds
    ]
    figure.suptitle("share of each split's labelled pairs by change area ratio", x=0.01, ha="left", fontsize="medium")
    handles = [axes[0, 1].plot([], [], color=colour, ls=style)[0] for _, _, colour, style in lines]
    texts = [f"{name}: {', '.join(f'{100 * t:g} %' for t in p.thresholds)}" for name, p, _, _ in lines if p]
    figure.legend(handles, texts, loc="outside lower center", ncols=2, frameon=False)
    axes[-1, 1].set_xlabel("change area ratio (logarithmic; pairs without any change have the bar at 0)")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def _style(zero: Axes, rest: Axes) -> None:
    def percent(value: float, _: int) -> str:
        return f"{100 * value:g} %"

    zero.set_xlim(-0.5, 0.5)
    zero.set_xticks([0], ["0"])
    rest.set_xscale("log")
    rest.set_xlim(_LEAST, 1.0)
    rest.xaxis.set_major_formatter(FuncFormatter(percent))
    rest.xaxis.set_minor_formatter(NullFormatter())
    zero.yaxis.set_major_formatter(FuncFormatter(percent))
    rest.tick_params(axis="y", left=False)
    for axes in (zero, rest):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    rest.spines["left"].set_visible(False)
