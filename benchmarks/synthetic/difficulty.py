"""How well a thresholded image difference does on synthetic pairs: difficulty.json and README.md.

    python benchmarks/synthetic/difficulty.py [--pairs 200] [--size 256]

For every difference image, this is the best IoU of change over all thresholds. The threshold is chosen with the labels.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy import ndimage as ndi

from bitemporal import CarPartition
from bitemporal.method.car import change_area_ratio
from bitemporal.outputs import replacing, write_json
from bitemporal.synthetic import CarDistribution, make_pair

HERE = Path(__file__).resolve().parent


def differences(before: np.ndarray, after: np.ndarray) -> dict[str, np.ndarray]:
    """Classical difference images, in [0, 255]: grey and colour, raw and matched in mean and deviation, smoothed."""
    raw = [image.astype(np.float32) for image in (before, after)]
    matched = [(image - image.mean((0, 1))) / image.std((0, 1)) * 40 for image in raw]
    images = {}
    for name, dates in (("raw", raw), ("matched", matched)):
        for blur in (0, 2, 5):
            first, second = (ndi.gaussian_filter(d, (blur, blur, 0)) for d in dates) if blur else dates
            images[f"grey, {name}, blur {blur}"] = np.abs(first.mean(2) - second.mean(2))
            images[f"colour, {name}, blur {blur}"] = np.sqrt(((first - second) ** 2).mean(2))
    images["none: every pixel called changed"] = np.zeros(before.shape[:2])
    return {name: np.minimum(d, 255).astype(np.uint8) for name, d in images.items()}


def best_iou(histogram: np.ndarray) -> float:
    """Highest IoU of change over all thresholds, from the counts of unchanged and changed pixels by difference."""
    false, true = (np.cumsum(counts[::-1])[::-1] for counts in histogram)
    return float((true / (histogram[1].sum() + false)).max())


def measure(pairs: int, size: int, seed: int) -> dict[str, dict[str, float]]:
    """Best IoU of every difference image, over all pairs and by CAR part; the first pair has the given seed."""
    distribution, rng, partition = CarDistribution(), np.random.default_rng(seed), CarPartition()
    histograms: dict[str, np.ndarray] = {}
    for index in range(pairs):
        pair = make_pair(seed + index, size, distribution.draw(rng, index / pairs))
        part = partition.names.index(partition.part(change_area_ratio(pair.label)))
        for name, difference in differences(pair.before, pair.after).items():
            counts = histograms.setdefault(name, np.zeros((len(partition.names), 2, 256)))
            for value in (0, 1):
                counts[part, value] += np.bincount(difference[pair.label == value], minlength=256)
    return {
        name: {"all": best_iou(counts.sum(0))} | dict(zip(partition.names, map(best_iou, counts), strict=True))
        for name, counts in histograms.items()
    }


def page(content: dict) -> str:
    """The page with all differences."""
    lines = [
        "# Difficulty of synthetic pairs",
        "",
        "Written by `benchmarks/synthetic/difficulty.py`; raw numbers in `difficulty.json`. The numbers are the "
        "best IoU of change that a single threshold on the difference of both dates can reach when it is chosen with "
        "the labels.",
        "",
        f"{content['pairs']} pairs of {content['size']} x {content['size']}, seeds from {content['seed']}:",
        "",
        "| difference | all | small | medium | large |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, by_part in content["best_iou_changed"].items():
        lines.append(f"| {name} | {' | '.join(f'{value:.2f}' for value in by_part.values())} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, and write the JSON file and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=20_000)
    options = parser.parse_args()
    best = measure(options.pairs, options.size, options.seed)
    content = {"pairs": options.pairs, "size": options.size, "seed": options.seed, "best_iou_changed": best}
    write_json(HERE / "difficulty.json", content)
    with replacing(HERE / "README.md") as file:
        file.write_text(page(content))
    print(page(content))


if __name__ == "__main__":
    main()
