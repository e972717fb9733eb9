"""Size and cost of every registered network: src/bitemporal/models/measured.json.

    python benchmarks/measure_models.py [--pattern 'changer_*'] [--kinds size memory time] [--again]

Every network is measured in its own processes, one after another. The file is written after each network, and a network
that it already holds is not measured again. Nothing else should run on the machine. Linux only, because the memory of a
process is limited and read.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bitemporal.models import ChangeModel, create_model, list_models
from bitemporal.outputs import write_json

OUTPUT = Path(__file__).resolve().parents[1] / "src/bitemporal/models/measured.json"
CAPTION = (
    "Multiply-adds include those on zeros that pad queries and keys for a fused attention kernel (CGNet, STANet). "
    "Times are medians of up to five runs after a warm-up run. A training step is forward pass, loss, backward pass "
    "and AdamW. Memory is what such a step adds to the process, including the weights of the network."
)
THREADS = 2
GIB = 2**30
REPETITIONS = 5
SECONDS_PER_NUMBER = 15.0
"""No further repetition of a measurement starts after this time."""


def pair(batch: int, side: int) -> tuple[Tensor, Tensor]:
    """Two dates of noise, batch x 3 x side x side."""
    return torch.randn(batch, 3, side, side), torch.randn(batch, 3, side, side)


def multiply_adds(model: ChangeModel, side: int) -> int:
    """Multiply-adds of a forward pass of one pair: convolutions, matrix products and attention.

    Fake tensors have shapes only. Attention is split into its matrix products, since the counter does not know
    the CPU's fused kernel.
    """
    model.eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FakeTensorMode(allow_non_fake_inputs=True), counter:
        model(*pair(1, side))
    return counter.get_total_flops() // 2


def training_step(model: ChangeModel, batch: int, side: int) -> Callable[[], None]:
    """A function that makes one step: forward pass, loss, backward pass, AdamW."""
    before, after = pair(batch, side)
    target = torch.randint(0, 2, (batch, side, side))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        sum(model.loss(model.outputs(before, after), target).values()).backward()
        optimizer.step()

    return step


def median_seconds(run: Callable[[], object]) -> float:
    """Median time of a few runs after a warm-up run."""
    run()
    taken: list[float] = []
    while len(taken) < REPETITIONS and sum(taken) < SECONDS_PER_NUMBER:
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return round(statistics.median(taken), 4)


def forward_seconds(model: ChangeModel, side: int) -> float:
    """Time of a forward pass of one pair."""
    images = pair(1, side)
    model.eval()
    with torch.inference_mode():
        return median_seconds(lambda: model(*images))


def measure_size(name: str) -> dict[str, object]:
    """Number of parameters and of multiply-adds."""
    model = create_model(name)
    parameters = list(model.parameters())
    return {
        "parameters": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "gmac_512": round(multiply_adds(model, 512) / 1e9, 3),
    }


def peak_memory() -> int:
    """Peak memory of this process so far, in bytes. ``getrusage`` may report that of the parent process instead."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def measure_memory(name: str) -> dict[str, object]:
    """Peak memory of a training step of 8 pairs of 256 x 256, over that of the process before the network is built."""
    create_model("test_fc")  # memory that only the first network of a process costs
    before = peak_memory()
    training_step(create_model(name), 8, 256)()
    return {"memory_gib": round((peak_memory() - before) / GIB, 3)}


def measure_time(name: str) -> dict[str, object]:
    """Seconds of forward passes and of a training step."""
    model = create_model(name)
    return {
        "forward_256_s": forward_seconds(model, 256),
        "forward_512_s": forward_seconds(model, 512),
        "training_step_256_s": median_seconds(training_step(model, 2, 256)),
    }


MEASUREMENTS: dict[str, tuple[Callable[[str], dict[str, object]], tuple[str, ...]]] = {
    "size": (measure_size, ("parameters", "trainable", "gmac_512")),
    "memory": (measure_memory, ("memory_gib",)),
    "time": (measure_time, ("forward_256_s", "forward_512_s", "training_step_256_s")),
}
"""Measurements, each with the names of its numbers. Each runs in its own process."""


def measure(name: str, kinds: list[str], limit_gib: float) -> dict[str, object]:
    """Numbers of a network; null for those that need more memory than the limit."""
    numbers: dict[str, object] = {}
    for kind in kinds:
        _, keys = MEASUREMENTS[kind]
        command = [sys.executable, __file__, "--measure", kind, "--pattern", name, "--limit-gib", str(limit_gib)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            numbers |= json.loads(done.stdout.splitlines()[-1])
        elif kind != "size" and ("can't allocate memory" in done.stderr or "MemoryError" in done.stderr):
            numbers |= dict.fromkeys(keys)
        else:
            raise RuntimeError(f"{name}: measuring its {kind} failed:\n{done.stderr}")
    return numbers


def machine() -> dict[str, object]:
    """The machine and versions that the numbers depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": len(models),
        "threads": THREADS,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit of this checkout, with ``-dirty`` when files differ from it."""
    command = ["git", "-C", str(OUTPUT.parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def measure_all(pattern: str, kinds: list[str], limit_gib: float, again: bool, output: Path) -> None:
    """Measure all networks that match, and write the file after each."""
    content = json.loads(output.read_text()) if output.is_file() else {"networks": {}}
    if content["networks"] and content["machine"] != machine():
        sys.exit(f"{output} is from another machine: {content['machine']}; remove it to measure everything here")
    kept = content["networks"]
    names = [name for name in list_models(pattern) if not name.startswith("test_")]
    for i, name in enumerate(names):
        known = kept.get(name, {})
        needed = [kind for kind in kinds if again or not set(MEASUREMENTS[kind][1]) <= set(known)]
        if not needed:
            continue
        print(f"{i + 1}/{len(names)} {name}", end=": ", flush=True)
        numbers = measure(name, needed, limit_gib)
        print(json.dumps(numbers), flush=True)
        kept[name] = known | numbers | {"commit": commit()}
        write_json(output, {"caption": CAPTION, "machine": machine(), "networks": dict(sorted(kept.items()))})


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pattern", default="*", help="networks to measure, as a shell pattern")
    parser.add_argument("--kinds", nargs="+", choices=list(MEASUREMENTS), default=list(MEASUREMENTS))
    parser.add_argument(
        "--limit-gib", type=float, default=16.0, help="memory limit of a measurement; its numbers are null beyond it"
    )
    parser.add_argument("--again", action="store_true", help="measure again what the file already holds")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument(
        "--measure", choices=list(MEASUREMENTS), help="measure one kind of one network, in this process"
    )
    options = parser.parse_args()
    if options.measure is None:
        measure_all(options.pattern, options.kinds, options.limit_gib, options.again, options.output)
        return
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    limit = int(options.limit_gib * GIB)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    run, _ = MEASUREMENTS[options.measure]
    print(json.dumps(run(options.pattern)))


if __name__ == "__main__":
    main()
