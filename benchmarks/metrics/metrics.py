"""Speed of counting and of scores with intervals: benchmarks/metrics/metrics.json and README.md.

    python benchmarks/metrics/metrics.py [--pairs 1000] [--side 512]

Masks and labels are smooth noise, held in memory; some have no change. One thread. Three things are timed: counting
confusion, boundaries and objects of every pair; all metrics by part and decile with intervals; the comparison of two
detectors.
"""

import argparse
import platform
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from bitemporal.evaluation import Evaluation, Protocol, Result, compare
from bitemporal.evaluation.counting import count_shapes
from bitemporal.method.car import CarPartition, change_area_ratio
from bitemporal.metrics import confusion_counts
from bitemporal.outputs import replacing, write_json

HERE = Path(__file__).resolve().parent
_DIFFERENT = 50
"""Number of masks that are drawn. All pairs are rotated and shifted copies of them."""


def draw(side: int) -> list[np.ndarray]:
    """Draw masks of different change area ratios."""
    random = np.random.default_rng(0)
    masks = []
    for i in range(_DIFFERENT):
        field = gaussian_filter(random.random((side, side)), 4 + i % 5)
        masks.append((field > np.quantile(field, 1 - (i / _DIFFERENT) ** 3)).astype(np.uint8))
    return masks


def page(content: dict) -> str:
    """The page with all times."""
    return (
        "# Speed of the metrics\n\n"
        "Written by `benchmarks/metrics/metrics.py`; raw numbers in `metrics.json`. One thread; masks in memory."
        "\n\n"
        f"{content['pairs']} pairs of {content['side']} x {content['side']} on {content['machine']}:\n\n"
        "| what | seconds |\n| --- | ---: |\n"
        f"| confusion matrices alone | {content['confusion_s']:.2f} |\n"
        f"| confusion matrices, boundaries and objects | {content['counting_s']:.2f} |\n"
        f"| all metrics over all pairs, by part and decile, with intervals | {content['summary_s']:.2f} |\n"
        f"| comparison of two detectors with intervals | {content['comparison_s']:.2f} |\n"
    )


def main() -> None:
    """Measure, and write the numbers and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--side", type=int, default=512)
    options = parser.parse_args()
    masks = draw(options.side)
    pairs = [
        (np.rot90(masks[i % _DIFFERENT], i // _DIFFERENT), np.roll(masks[i % _DIFFERENT], i % 17, axis=i % 2))
        for i in range(options.pairs)
    ]
    start = time.perf_counter()
    counts = np.stack([confusion_counts(mask, label) for mask, label in pairs])
    confusion = time.perf_counter() - start
    shapes = [count_shapes(mask, label) for mask, label in pairs]
    cars = np.array([change_area_ratio(label) for _, label in pairs])
    counting = time.perf_counter() - start
    evaluation = Evaluation(
        stems=tuple(map(str, range(options.pairs))),
        counts=counts,
        cars=cars,
        sent_to=(None,) * options.pairs,
        boundary=np.stack([s.boundary for s in shapes]),
        objects=np.stack([s.objects for s in shapes]),
        partition=CarPartition(),
    )
    start = time.perf_counter()
    evaluation.summary(intervals=True)
    summary = time.perf_counter() - start
    protocol = Protocol(data="", split="", pairs_hash="", pairs=options.pairs)
    start = time.perf_counter()
    compare([Result(name, protocol, evaluation) for name in ("a", "b")])
    comparison = time.perf_counter() - start
    content = {
        "machine": f"{platform.machine()}, numpy {np.__version__}",
        "pairs": options.pairs,
        "side": options.side,
        "confusion_s": round(confusion, 2),
        "counting_s": round(counting, 2),
        "summary_s": round(summary, 2),
        "comparison_s": round(comparison, 2),
    }
    write_json(HERE / "metrics.json", content)
    with replacing(HERE / "README.md") as file:
        file.write_text(page(content))
    print(content)


if __name__ == "__main__":
    main()
