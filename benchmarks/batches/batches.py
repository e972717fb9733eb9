"""Is a CPU faster with pairs in batches or one by one? Writes benchmarks/batches/batches.json and README.md.

    python benchmarks/batches/batches.py [--threads 2] [--seconds 1.5]

Forward passes with random weights take turns: a batch, then the same pairs one by one, several times. The ratio is the
median over the turns of batch time to single time, so that other load on the machine affects both.
"""

import argparse
import platform
import statistics
import time
from pathlib import Path

import torch

from bitemporal.models import create_model
from bitemporal.outputs import replacing, write_json

HERE = Path(__file__).resolve().parent
NETWORKS = ("tinycd_v2_s", "tinycd", "fc_siam_diff", "changer_mit_b0", "siamese_unet")
SIZES = (64, 128, 256, 512)
BATCH = 4


def ratio(model: torch.nn.Module, size: int, seconds: float) -> float:
    """Time of a batch divided by the time of its pairs one by one."""
    dates = torch.randn(2, BATCH, 3, size, size)
    ratios = []
    with torch.inference_mode():
        model(*dates)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(ratios) < 3:
            first = time.perf_counter()
            model(*dates)
            second = time.perf_counter()
            for i in range(BATCH):
                model(*dates[:, i : i + 1])
            ratios.append((second - first) / (time.perf_counter() - second))
    return statistics.median(ratios)


def page(content: dict) -> str:
    """The page with all ratios."""
    batch = content["batch"]
    lines = [
        "# Batches on a CPU",
        "",
        "Written by `benchmarks/batches/batches.py`; raw numbers in `batches.json`. The numbers are the time of "
        f"one forward pass of a batch of {batch} pairs, divided by the time of {batch} passes of one pair each. "
        "Above 1, the batch is slower.",
        "",
        f"Machine: {content['machine']}; random weights.",
        "",
        "| network | " + " | ".join(f"{size} px" for size in SIZES) + " |",
        "| --- |" + " ---: |" * len(SIZES),
    ]
    for name, row in content["ratios"].items():
        lines.append(f"| `{name}` | " + " | ".join(f"{ratio:.2f}" for ratio in row.values()) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, and write the numbers and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.5, help="least time per network and size")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = {}
    for name in NETWORKS:
        model = create_model(name).eval()
        rows[name] = {size: round(ratio(model, size, options.seconds), 2) for size in SIZES}
        print(name, rows[name], flush=True)
    machine = f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}"
    content = {"machine": machine, "batch": BATCH, "ratios": rows}
    write_json(HERE / "batches.json", content)
    with replacing(HERE / "README.md") as file:
        file.write_text(page(content))


if __name__ == "__main__":
    main()
