"""Speed and memory of whole scenes: benchmarks/scenes/scenes.json and README.md.

    python benchmarks/scenes/scenes.py [--models tinycd_v2_s tinycd] [--sides 2000 5000 10000 20000] [--work FOLDER]

A synthetic scene of 2000 x 2000 (``bitemporal data synth --scene``) is repeated to the requested sides. Each prediction
runs in its own process: two uint8 GeoTIFFs in, mask, probability and polygons out. The network's own
throughput is measured in the same process, interleaved with the prediction: from time to time a batch of tiles that is
already in memory goes through the bare network, and its time is subtracted from the total. A ratio of 1 means that
reading, blending and writing cost nothing. Memory is the peak of the process above what it needs for one pass of the
network. Linux only.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

from bitemporal.inference import NetworkDetector
from bitemporal.inference.detector import Answer
from bitemporal.models import create_model
from bitemporal.outputs import replacing, write_json
from bitemporal.scenes import predict_scene
from bitemporal.scenes.tiling import axis

HERE = Path(__file__).resolve().parent
THREADS = 2
TILE, OVERLAP, BATCH = 512, 64, 4
BLOCK = 2000
THRESHOLD = 0.9
"""High, because random weights would otherwise call half of the noise changed, in millions of polygons."""


def make_scene(folder: Path, side: int) -> tuple[Path, Path]:
    """Write both dates of a scene by repeating the block, tiled and deflated; give their paths."""
    block = folder / "block"
    if not block.is_dir():
        command = ["data", "synth", str(block), "--scene", str(BLOCK), "--seed", "0"]
        subprocess.run([sys.executable, "-m", "bitemporal.cli.main", *command], check=True)
    paths = []
    for date in ("before", "after"):
        path = folder / f"{date}-{side}.tif"
        paths.append(path)
        if path.is_file():
            continue
        with rasterio.open(block / f"{date}.tif") as source:
            samples, profile = source.read(), source.profile
        profile |= {"height": side, "width": side, "tiled": True, "blockxsize": 512, "blockysize": 512}
        profile |= {"compress": "deflate", "zlevel": 1, "bigtiff": "if_safer"}
        with rasterio.open(path, "w", **profile) as target:
            for top in range(0, side, 512):
                rows = np.arange(top, min(top + 512, side)) % BLOCK
                strip = np.tile(samples[:, rows], (1, 1, side // BLOCK + 1))[:, :, :side]
                target.write(strip, window=Window(0, top, side, len(rows)))
    return paths[0], paths[1]


def peak() -> float:
    """Peak memory of this process so far, in GiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**20


class Sampled(NetworkDetector):
    """A detector that times the bare network now and then."""

    def __init__(self, model: torch.nn.Module, size: tuple[int, int], every: int) -> None:
        """Time the bare network once in ``every`` batches."""
        super().__init__(model)
        self.dates, self.every = torch.randn(2, BATCH, 3, *size), every
        self.calls, self.tiles, self.own = 0, 0, []

    def answers(
        self,
        before: Sequence[torch.Tensor],
        after: Sequence[torch.Tensor],
        valid: Sequence[torch.Tensor] | None = None,
    ) -> list[Answer]:
        """Answer pairs; in some calls also time the bare network on as many tiles, one by one as on a CPU."""
        if self.calls % self.every == 0:
            start = time.perf_counter()
            with torch.inference_mode():
                for index in range(len(before)):
                    self.model(*self.dates[:, index : index + 1])
            self.own.append(time.perf_counter() - start)
            self.tiles += len(before)
        self.calls += 1
        return super().answers(before, after, valid)


def measure(name: str, before: Path, after: Path, out: Path) -> dict[str, object]:
    """Predict one scene and return its times and memory."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)  # the same weights, so that an interrupted measurement resumes
    model = create_model(name).eval()
    with rasterio.open(before) as source:
        rows, columns = (axis(side, TILE, OVERLAP, NetworkDetector(model).multiple) for side in source.shape)
    size = rows.tile, columns.tile
    detector = Sampled(model, size, max(1, rows.count * columns.count // 100))
    for _ in range(3):
        NetworkDetector(model).probabilities(*torch.randint(0, 256, (2, BATCH, 3, *size), dtype=torch.uint8))
    base = peak()
    result = predict_scene(
        detector,
        before,
        after,
        out / "change.tif",
        probability=out / "probability.tif",
        polygons=out / "areas.gpkg",
        tile=TILE,
        overlap=OVERLAP,
        batch_size=BATCH,
        threshold=THRESHOLD,
    )
    memory = peak() - base
    own = result.tiles * sum(detector.own) / detector.tiles
    seconds, prediction = (result.seconds[what] - sum(detector.own) for what in ("total", "prediction"))
    pixels = rows.length * columns.length
    return {
        "tiles": result.tiles,
        "tile": list(size),
        "seconds": round(seconds, 2),
        "prediction_s": round(prediction, 2),
        "writing_s": result.seconds["writing"],
        "network_s": round(own, 2),
        "ratio": round(own / seconds, 3),
        "prediction_ratio": round(own / prediction, 3),
        "megapixels_per_second": round(pixels / 1e6 / seconds, 3),
        "memory_gib": round(memory, 3),
        "process_gib": round(base + memory, 3),
        "polygons": result.polygons,
    }


def page(content: dict) -> str:
    """The text of README.md."""
    lines = [
        "# Whole scenes: speed and memory",
        "",
        "Written by `benchmarks/scenes/scenes.py`; raw numbers in `scenes.json`. Input: two uint8 GeoTIFFs "
        "(deflate). Output: mask, probability and polygons. *Ratio*: time of the bare network for the same number of "
        "tiles, sampled while the scene is predicted, divided by the total time. *Prediction*: the same ratio without "
        "writing the products at the end. *Memory*: peak above what the process needs for one pass of the network. "
        "With random weights hardly anything passes the threshold, so there are few polygons.",
        "",
        f"Machine: {content['machine']}. Tiles up to {TILE}, overlap {OVERLAP}, {BATCH} per batch. Random weights.",
        "",
        "| network | side | tiles | seconds | Mpx/s | ratio | prediction | memory GiB | process GiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, sides in content["networks"].items():
        for side, row in sorted(sides.items(), key=lambda pair: int(pair[0])):
            numbers = (
                f"{row['seconds']:.0f}",
                *(f"{row[key]:.2f}" for key in ("megapixels_per_second", "ratio", "prediction_ratio")),
                *(f"{row[key]:.2f}" for key in ("memory_gib", "process_gib")),
            )
            lines.append(f"| {name} | {side} | {row['tiles']} | " + " | ".join(numbers) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tinycd_v2_s", "tinycd"])
    parser.add_argument("--sides", nargs="+", type=int, default=[2000, 5000, 10000, 20000])
    parser.add_argument("--work", type=Path, default=Path("runs/scenes-benchmark"), help="for scenes and products")
    parser.add_argument("--output", type=Path, default=HERE / "scenes.json")
    parser.add_argument(
        "--measure", nargs=3, metavar=("BEFORE", "AFTER", "OUT"), help="measure one scene, in this process"
    )
    options = parser.parse_args()
    if options.measure:
        before, after, out = map(Path, options.measure)
        print(json.dumps(measure(options.models[0], before, after, out)))
        return
    content = json.loads(options.output.read_text()) if options.output.is_file() else {"networks": {}}
    content["machine"] = f"{platform.machine()}, {THREADS} threads, torch {torch.__version__}"
    for side in options.sides:
        scene = make_scene(options.work, side)
        for name in options.models:
            words = [*map(str, scene), str(options.work / "out")]
            command = [sys.executable, __file__, "--models", name, "--measure", *words]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{name} at {side} failed:\n{done.stderr}")
            numbers = json.loads(done.stdout.splitlines()[-1])
            print(name, side, numbers, flush=True)
            content["networks"].setdefault(name, {})[str(side)] = numbers
            write_json(options.output, content)
            with replacing(
                HERE / "README.md" if options.output.parent == HERE else options.output.with_suffix(".md")
            ) as f:
                f.write_text(page(content))


if __name__ == "__main__":
    main()
