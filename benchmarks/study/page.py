"""Gathers the results of `study.py`, draws the pictures and writes the tables of `benchmarks/study/README.md`.

    python benchmarks/study/page.py --gather runs/study [--synthetic PATH]   # from the work folder to this one
    python benchmarks/study/page.py                                         # tables and intervals, from raw numbers

`confusions.csv.gz` has the confusion counts of every pair, `probabilities.csv` the scores that do not depend on the
threshold, `losses.csv.gz` the training curves, and `seconds.csv` the time of every run (since it was last resumed).
"""

import argparse
import csv
import gzip
import io
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from bitemporal.evaluation import draw_masks, spread_by_car
from bitemporal.evaluation.bootstrap import Estimate, Replicates, Resampling, estimate, mean_difference, significant
from bitemporal.inference import load
from bitemporal.method.car import CarPartition
from bitemporal.outputs import replacing
from bitemporal.pairs import PairFolder, resolve_decoding

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
CONFUSIONS, LOSSES, SECONDS = HERE / "confusions.csv.gz", HERE / "losses.csv.gz", HERE / "seconds.csv"
PROBABILITIES = HERE / "probabilities.csv"
OF_PROBABILITIES = ("average_precision", "best_f1", "best_threshold", "calibration_error")
PICTURED = ("siamese_unet", 0)
ALL = "all"

TITLES = {"gz": "CD_Data_GZ, validation part, 99 pairs", "synthetic": "synthetic pairs, test part, 200 pairs"}
CONTROLS = ("control", "control-balanced", "control-ema")
NOT_STUDENTS = ("origin", "o-p-scratch", "o-p-warm", *CONTROLS)
DEFAULT = "kl-warm-calibrated"
CHOSEN_WITH = (0, 1, 2)
"""Seeds that were used to choose the default. The others were trained afterwards."""
DIRECTLY = (
    ("o-p-warm", "o-p-scratch"),
    ("kl-warm", "kl"),
    (DEFAULT, "kl-warm"),
    (DEFAULT, "kl-warm-frequency"),
    (DEFAULT, "kl"),
    (DEFAULT, "mse-paper"),
    (DEFAULT, "o-p-scratch"),
)
"""Choices behind the package's default, each compared with its alternative."""


def control_of(method: str) -> str:
    """The control of a student: the same training without the teachers."""
    kind = method.rpartition("-")[2]
    return f"control-{kind}" if f"control-{kind}" in CONTROLS else "control"


def origin_partition_of(method: str) -> str:
    """O-P with a student's teachers."""
    return "o-p-warm" if "warm" in method else "o-p-scratch"


def gather(work: Path) -> None:
    """Copy the raw numbers of a work folder into this folder."""
    confusions, probabilities, losses, seconds = [], [], [], []
    for path in sorted(work.glob("*/*/seed*/scores/*.confusions.csv")):
        data, network, seed, _, name = path.relative_to(work).parts
        method = name.removesuffix(".confusions.csv")
        start = [data, network, method, seed.removeprefix("seed")]
        curves = json.loads(path.with_name(f"{method}.json").read_text())["probabilities"]
        best = curves["best_f1"]
        numbers = [curves["average_precision"], best["f1_changed"], best["threshold"]]
        numbers.append(curves["expected_calibration_error"])
        probabilities.append([*start, *(f"{number:.6f}" for number in numbers)])
        with path.open(newline="") as stream:
            for row in csv.DictReader(stream):
                counts = (row[name] for name in ("tn", "fp", "fn", "tp"))
                confusions.append([*start, row["stem"], f"{float(row['car']):.4f}", row["part"], *counts])
    for path in sorted(work.glob("*/*/seed*/*/*/metrics.csv")):
        data, network, seed, run, stage, _ = path.relative_to(work).parts
        with path.open(newline="") as stream:
            for row in csv.DictReader(stream):
                start = [data, network, seed.removeprefix("seed"), run, stage]
                losses.append([*start, row["step"], row["loss"], row.get("loss_distillation", "")])
    for path in sorted(work.glob("*/*/seed*/*/done")):
        data, network, seed, run, _ = path.relative_to(work).parts
        taken = json.loads(path.read_text())["seconds"]
        seconds.append([data, network, seed.removeprefix("seed"), run, taken])
    head = ["data", "network", "method", "seed", "stem", "car", "part", "tn", "fp", "fn", "tp"]
    _write(CONFUSIONS, head, confusions)
    _write(LOSSES, ["data", "network", "seed", "run", "stage", "step", "loss", "loss_distillation"], losses)
    _write(SECONDS, ["data", "network", "seed", "run", "seconds"], seconds)
    _write(PROBABILITIES, ["data", "network", "method", "seed", *OF_PROBABILITIES], probabilities)


def _write(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    def put(stream: TextIO) -> None:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)

    with replacing(path) as temporary:
        if path.suffix != ".gz":
            with temporary.open("w", newline="") as plain:
                put(plain)
            return
        # without name and time, so that equal numbers give equal files
        with temporary.open("wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed:
            with io.TextIOWrapper(packed, newline="") as stream:
                put(stream)


@dataclass(frozen=True)
class Scores:
    """Counts on one data set.

    Attributes:
        cells: Counts of all seeds, by network and method.
        parts: Part of every pair.
        resampling: Resampling of the pairs, the same for all cells.
    """

    cells: dict[tuple[str, str], Replicates]
    parts: npt.NDArray[np.str_]
    resampling: Resampling

    @property
    def networks(self) -> list[str]:
        """Networks in the order of the study."""
        return list(dict.fromkeys(network for network, _ in self.cells))

    @property
    def methods(self) -> list[str]:
        """Methods, students last."""
        methods = list(dict.fromkeys(method for _, method in self.cells))
        return sorted(methods, key=lambda m: (NOT_STUDENTS.index(m) if m in NOT_STUDENTS else len(NOT_STUDENTS), m))

    def having(self, *methods: str) -> list[str]:
        """Networks that have all of these methods."""
        return [network for network in self.networks if all((network, method) in self.cells for method in methods)]

    def minus(self, first: str, second: str, network: str, part: str | None = None) -> Estimate:
        """Difference in dataset mIoU of two methods on the same seeds, for one network or the mean of all with both."""
        networks = self.having(first, second) if network == ALL else [network]
        pairs = [_paired(self.cells[n, first], self.cells[n, second]) for n in networks]
        chosen = None if part is None else self.parts == part
        return mean_difference(pairs, "miou", "dataset", self.resampling, chosen)

    def of_seeds(self, seeds: Collection[int]) -> "Scores":
        """The scores of some seeds alone."""
        cells = {key: some for key, every in self.cells.items() if (some := _of_seeds(every, seeds)).seeds}
        return Scores(cells, self.parts, self.resampling)


def _of_seeds(replicates: Replicates, seeds: Collection[int]) -> Replicates:
    chosen = [place for place, seed in enumerate(replicates.seeds) if seed in seeds]
    return Replicates(replicates.counts[chosen], tuple(replicates.seeds[place] for place in chosen))


def _paired(first: Replicates, second: Replicates) -> tuple[Replicates, Replicates]:
    shared = set(first.seeds) & set(second.seeds)
    return _of_seeds(first, shared), _of_seeds(second, shared)


def read_scores() -> dict[str, Scores]:
    """Scores by data set, from the raw counts."""
    rows: dict[str, dict[tuple[str, str], dict[int, dict[str, list[int]]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(dict))
    )
    parts: dict[str, dict[str, str]] = defaultdict(dict)
    with gzip.open(CONFUSIONS, "rt", newline="") as stream:
        for row in csv.DictReader(stream):
            counts = [int(row[name]) for name in ("tn", "fp", "fn", "tp")]
            rows[row["data"]][row["network"], row["method"]][int(row["seed"])][row["stem"]] = counts
            parts[row["data"]][row["stem"]] = row["part"]
    scores = {}
    for data, cells in rows.items():
        stems = sorted(parts[data])
        replicates = {
            key: Replicates(np.array([[seeds[s][stem] for stem in stems] for s in sorted(seeds)]), tuple(sorted(seeds)))
            for key, seeds in cells.items()
        }
        scores[data] = Scores(replicates, np.array([parts[data][stem] for stem in stems]), Resampling.of(len(stems)))
    return scores


def _cell(value: Estimate, sign: bool = True) -> str:
    shown = f"{100 * value.value:{'+' if sign else ''}.2f}"
    form = "+.2f" if sign else ".1f"
    mark = "**" if sign and significant(value) else ""
    return f"{mark}{shown}{mark} [{100 * value.low:{form}}, {100 * value.high:{form}}]"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "| --- |" + " ---: |" * (len(head) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def score_table(scores: Scores) -> str:
    """Dataset mIoU of every method."""
    rows = []
    for method in scores.methods:
        cells = [scores.cells.get((network, method)) for network in scores.networks]
        shown = [
            "" if c is None else _cell(estimate(c, "miou", "dataset", scores.resampling), False) + f" ({len(c.seeds)})"
            for c in cells
        ]
        rows.append([method, *shown])
    return _table(["mIoU, dataset", *scores.networks], rows)


def control_table(scores: Scores) -> str:
    """Every detector minus its control: the contribution of the teachers."""
    rows = []
    for method in scores.methods:
        control = control_of(method)
        if method == control:
            continue
        have = scores.having(method, control)
        if not have:
            continue
        cells = [_cell(scores.minus(method, control, n)) if n in have else "" for n in scores.networks]
        rows.append([method, *cells, f"{_cell(scores.minus(method, control, ALL))} ({len(have)})"])
    return _table(["minus its control", *scores.networks, "all that have it"], rows)


def origin_partition_table(scores: Scores) -> str:
    """Students minus O-P with the same teachers."""
    rows = []
    for method in scores.methods:
        other = origin_partition_of(method)
        have = scores.having(method, other)
        if method in NOT_STUDENTS or not have or any(word in method for word in ("tinycd", "two", "equal")):
            continue
        cells = [_cell(scores.minus(method, other, n)) if n in have else "" for n in scores.networks]
        rows.append([method, *cells, f"{_cell(scores.minus(method, other, ALL))} ({len(have)})"])
    return _table(["minus O-P", *scores.networks, "all that have it"], rows)


def direct_table(scores: Scores) -> str:
    """Choices behind the default, each against its alternative."""
    rows = []
    for first, second in DIRECTLY:
        have = scores.having(first, second)
        if not have:
            continue
        cells = [_cell(scores.minus(first, second, n)) if n in have else "" for n in scores.networks]
        rows.append([f"{first} - {second}", *cells, f"{_cell(scores.minus(first, second, ALL))} ({len(have)})"])
    return _table(["difference", *scores.networks, "all that have both"], rows)


def seed_table(scores: Scores) -> str:
    """The default minus its control, for the seeds that were used to choose it and for the others."""
    control = control_of(DEFAULT)
    every = sorted({seed for cell in scores.cells.values() for seed in cell.seeds})
    rows = []
    for seeds in (CHOSEN_WITH, tuple(seed for seed in every if seed not in CHOSEN_WITH)):
        some = scores.of_seeds(seeds)
        cells = [_cell(some.minus(DEFAULT, control, network)) for network in (*scores.networks, ALL)]
        rows.append([f"seeds {', '.join(map(str, seeds))}", *cells])
    return _table([f"{DEFAULT} - {control}", *scores.networks, "all"], rows)


def part_table(scores: Scores) -> str:
    """Students minus their controls by CAR part, over all networks."""
    names = [name for name in CarPartition().names if (scores.parts == name).any()]
    rows = []
    for method in scores.methods:
        control = control_of(method)
        if method == control or not scores.having(method, control):
            continue
        rows.append([method, *(_cell(scores.minus(method, control, ALL, part)) for part in names)])
    heads = [f"{name} ({(scores.parts == name).sum()} pairs)" for name in names]
    return _table(["minus its control", *heads], rows)


def probability_table(data: str) -> str:
    """Scores that do not depend on a threshold, students minus their controls; mean over the seeds."""
    names = ("average_precision", "best_f1", "calibration_error")
    values: dict[tuple[str, str], dict[int, npt.NDArray[np.float64]]] = defaultdict(dict)
    with PROBABILITIES.open(newline="") as stream:
        for row in csv.DictReader(stream):
            if row["data"] == data:
                values[row["network"], row["method"]][int(row["seed"])] = np.array([float(row[n]) for n in names])
    networks = list(dict.fromkeys(network for network, _ in values))
    rows = []
    for method in dict.fromkeys(method for _, method in values):
        control = control_of(method)
        cells = []
        for network in networks:
            ours, theirs = values.get((network, method), {}), values.get((network, control), {})
            shared = sorted(ours.keys() & theirs.keys())
            mean = 100 * np.mean([ours[s] - theirs[s] for s in shared], axis=0) if shared else None
            cells.append("" if mean is None else " / ".join(f"{value:+.1f}" for value in mean))
        if method != control and any(cells):
            rows.append([method, *cells])
    return _table(["AP / best F1 / ECE, minus its control", *networks], rows)


def draw_differences(by_data: dict[str, Scores], path: Path) -> None:
    """Draw students minus their controls as a forest plot, by network and over all; wide intervals leave the frame."""
    colours = {name: f"C{i}" for i, name in enumerate(sorted({n for s in by_data.values() for n in s.networks}))}
    tall = max(len(_compared(scores)) for scores in by_data.values())
    figure = Figure(figsize=(6.2 * len(by_data), 1.2 + 0.42 * tall), layout="constrained")
    axes = figure.subplots(1, len(by_data), squeeze=False)[0]
    for axis, (data, scores) in zip(axes, by_data.items(), strict=True):
        methods, widest = _compared(scores)[::-1], 0.0
        series = [*scores.networks, ALL]
        for number, network in enumerate(series):
            ys, values = [], []
            for row, method in enumerate(methods):
                if network != ALL and network not in scores.having(method, control_of(method)):
                    continue
                ys.append(row + 0.32 - 0.64 * number / (len(series) - 1))
                values.append(scores.minus(method, control_of(method), network))
            points = np.array(values).reshape(-1, 3) * 100
            spread = np.abs(points[:, 1:].T - points[:, 0])
            style = {"color": "black", "elinewidth": 2, "marker": "D"}
            if network != ALL:
                style = {"color": colours[network], "marker": "o"}
            widest = max(widest, np.abs(points[:, 0]).max(initial=0))
            axis.errorbar(points[:, 0], ys, xerr=spread, linestyle="", markersize=4, label=network, **style)
        axis.axvline(0, color="grey", linewidth=0.8)
        axis.set_xlim(-1.7 * widest, 1.7 * widest)
        axis.set_yticks(range(len(methods)), methods)
        axis.set_title(TITLES[data], fontsize=10)
        axis.set_xlabel("points of dataset mIoU above its control, 95 % interval")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _compared(scores: Scores) -> list[str]:
    return [m for m in scores.methods if m not in CONTROLS and scores.having(m, control_of(m))]


def draw_curves(path: Path) -> None:
    """Draw the training loss of the stages, and the distillation term's share of the students' loss."""
    with gzip.open(LOSSES, "rt", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["data"] == "gz" and row["seed"] == "0"]
    networks = list(dict.fromkeys(row["network"] for row in rows))
    figure = Figure(figsize=(3.3 * len(networks), 5.6), layout="constrained")
    axes = figure.subplots(2, len(networks), squeeze=False, sharex="col")
    for column, network in enumerate(networks):
        curves: dict[tuple[str, str], list[tuple[float, float, float]]] = defaultdict(list)
        for row in rows:
            if row["network"] == network:
                share = float(row["loss_distillation"] or "nan") / float(row["loss"])
                curves[row["run"], row["stage"]].append((float(row["step"]), float(row["loss"]), share))
        for (run, stage), points in curves.items():
            steps, losses, shares = zip(*points, strict=True)
            if run in ("origin", "control") or (run == "teachers-scratch"):
                axes[0, column].plot(steps, losses, label=stage)
            elif run.removeprefix("student-") in ("mse-paper", "mse-0.03", "mse-0.3", "kl", DEFAULT):
                axes[1, column].plot(steps, shares, label=run.removeprefix("student-"))
        axes[0, column].set_title(network, fontsize=10)
        axes[1, column].set_ylim(0, 1)
        axes[1, column].set_xlabel("step of the stage")
    axes[0, 0].set_ylabel("training loss")
    axes[1, 0].set_ylabel("distillation's share of the loss")
    for row in axes:
        row[-1].legend(fontsize=7, frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def draw_pairs(work: Path, root: Path, path: Path, student: str) -> None:
    """Draw synthetic pairs with the masks of one cell's detectors."""
    network, seed = PICTURED
    cell = work / "synthetic" / network / f"seed{seed}"
    bundles = {
        "origin": cell / "origin" / "origin" / "bundle",
        "O-P": cell / origin_partition_of(student),
        "control": cell / control_of(student) / "control" / "bundle",
        "student": cell / f"student-{student}" / "student" / "bundle",
    }
    folder = resolve_decoding(PairFolder(str(root)))
    pairs = spread_by_car(folder, folder.pairs("test"), 8)
    draw_masks(path, {name: load(bundle, "cpu") for name, bundle in bundles.items()}, folder, pairs)


def fill(page: str, name: str, text: str) -> str:
    """Replace the text between the markers of a name."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    if page.count(start) != 1 or page.count(end) != 1:
        raise ValueError(f"{PAGE}: expected {start.strip()} and {end} once each")
    head, rest = page.split(start)
    return f"{head}{start}\n{text}\n\n{end}{rest.split(end)[1]}"


def filled(page: str, by_data: dict[str, Scores]) -> str:
    """The page with all tables replaced, from the raw numbers."""
    tables = {
        "scores": score_table,
        "controls": control_table,
        "origin-partition": origin_partition_table,
        "directly": direct_table,
        "parts": part_table,
    }
    for data, scores in by_data.items():
        for name, table in tables.items():
            page = fill(page, f"{name}, {data}", table(scores))
        page = fill(page, f"probabilities, {data}", probability_table(data))
    return fill(page, "seeds, gz", seed_table(by_data["gz"]))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gather", type=Path, help="work folder of study.py")
    parser.add_argument("--synthetic", type=Path, help="its synthetic pairs, to draw the masks of some of them")
    parser.add_argument("--student", default=DEFAULT, help="the student to draw")
    options = parser.parse_args()
    if options.gather:
        gather(options.gather)
        if options.synthetic:
            draw_pairs(options.gather, options.synthetic, HERE / "masks.png", options.student)
    by_data = read_scores()
    page = filled(PAGE.read_text(encoding="utf-8"), by_data)
    with replacing(PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8")
    draw_differences(by_data, HERE / "differences.png")
    draw_curves(HERE / "curves.png")


if __name__ == "__main__":
    main()
