"""Readable report of a distillation run: table, training curves, masks without imagery, raw numbers.

    python benchmarks/gz/run_report.py RUN DATA OUT [--split val] [--pairs 10]

Copies metrics.json, the results of the split and every stage's metrics.csv of the run folder RUN to OUT, and draws
curves.png and masks.png (truth, origin, O-P, student). Imagery is left out, because the terms of many data sets forbid
passing it on.
"""

import argparse
import csv
import json
import shutil
from pathlib import Path

from matplotlib.figure import Figure

from bitemporal import PairFolder, load
from bitemporal.evaluation import draw_masks, spread_by_car
from bitemporal.outputs import replacing
from bitemporal.pairs import resolve_decoding

_DETECTORS = {"origin": "origin", "O-P": "o-p", "student": "student"}


def draw_curves(stages: dict[str, Path], path: Path) -> None:
    """Draw training loss and validation mIoU of every stage over its steps."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for name, folder in stages.items():
        with (folder / "metrics.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        losses.plot([int(r["step"]) for r in rows], [float(r["loss"]) for r in rows], label=name)
        validated = [r for r in rows if r["val_miou"]]
        scores.plot([int(r["step"]) for r in validated], [float(r["val_miou"]) for r in validated], marker=".")
    losses.set(xlabel="step of the stage", ylabel="training loss (all terms)")
    scores.set(xlabel="step of the stage", ylabel="dataset mIoU, validation")
    figure.legend(loc="outside lower center", ncols=len(stages), frameon=False, fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def write_table(metrics: dict[str, dict], path: Path) -> None:
    """Write the verdict as a Markdown table, in per cent."""
    results = metrics["results"]
    names = ("miou", "iou_changed", "f1_changed", "precision_changed", "recall_changed", "oa", "kappa")
    rows = [
        (f"{name}, {avg}", [r[avg][name] for r in results.values()])
        for avg in ("dataset", "image_mean")
        for name in names
    ]
    for part in next(iter(results.values()))["by_part"]:
        count = next(iter(results.values()))["by_part"][part]["pairs"]
        for name in ("miou", "iou_changed"):
            values = [r["by_part"][part]["dataset"][name] for r in results.values()]
            rows.append((f"{name}, dataset, {part} ({count} pairs)", values))
    lines = [f"| metric, averaging | {' | '.join(results)} |", "| --- |" + " ---: |" * len(results)]
    lines += [f"| {n} | {' | '.join('-' if v is None else f'{100 * v:.2f}' for v in vs)} |" for n, vs in rows]
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--pairs", type=int, default=10)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    stages = {p.parent.name: p.parent for p in sorted(options.run.glob("*/metrics.csv"))}
    for name, folder in stages.items():
        shutil.copyfile(folder / "metrics.csv", options.out / f"{name}.csv")
    for path in (
        options.run / "metrics.json",
        options.run / "recipe.yaml",
        *(options.run / "scores" / options.split).iterdir(),
    ):
        shutil.copyfile(path, options.out / path.name)
    draw_curves(stages, options.out / "curves.png")
    write_table(json.loads((options.run / "metrics.json").read_text()), options.out / "table.md")
    folder = resolve_decoding(PairFolder(options.data))
    detectors = {shown: load(options.run / name / "bundle") for shown, name in _DETECTORS.items()}
    pairs = spread_by_car(folder, folder.pairs(options.split), options.pairs)
    draw_masks(options.out / "masks.png", detectors, folder, pairs, imagery=False)


if __name__ == "__main__":
    main()
