"""Speed of every network relative to Open-CD's: benchmarks/open_cd/speed.json and README.md.

    python benchmarks/open_cd/speed.py CHECKOUT [--pattern 'changer_*'] [--again]

CHECKOUT is a clone of https://github.com/likyoo/open-cd (measured: 790a197). The environment holds this package and
the dependencies of Open-CD: mmengine 0.10.7, mmcv-lite 2.1.0, mmsegmentation 1.2.2, mmpretrain 1.2.0, peft 0.13.2,
ftfy, regex. Both networks run in one process and take turns, so that other load on the machine affects both. A ratio
is the median of the ratios of neighbouring runs. Every network is measured in its own process, and the file is written
after each.
"""

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import torch

from bitemporal.models import create_model, list_models
from bitemporal.outputs import replacing, write_json

HERE = Path(__file__).resolve().parent
OUTPUT = HERE / "speed.json"
THREADS = 2
ROUNDS = 7
SECONDS_PER_RATIO = 20.0
"""No further round starts after this time, once there are three."""

CONFIGS = {
    "fc_ef": "fcsn/fc_ef_256x256_40k_levircd.py",
    "fc_siam_conc": "fcsn/fc_siam_conc_256x256_40k_levircd.py",
    "fc_siam_diff": "fcsn/fc_siam_diff_256x256_40k_levircd.py",
    "stanet_base": "stanet/stanet_base_256x256_40k_levircd.py",
    "stanet_bam": "stanet/stanet_bam_256x256_40k_levircd.py",
    "stanet_pam": "stanet/stanet_pam_256x256_40k_levircd.py",
    "ifn": "ifn/ifn_256x256_40k_levircd.py",
    "snunet_c16": "snunet/snunet_c16_256x256_40k_levircd.py",
    "snunet_c32": "snunet/snunet_c32_256x256_40k_levircd.py",
    "bit_r18": "bit/bit_r18_256x256_40k_levircd.py",
    "changestar_farseg": "changestar/changestar_farseg_1x96_256x256_40k_levircd.py",
    "changestar_upernet": "changestar/changestar_upernet_1x96_256x256_40k_levircd.py",
    "changeformer_mit_b0": "changeformer/changeformer_mit-b0_256x256_40k_levircd.py",
    "changeformer_mit_b1": "changeformer/changeformer_mit-b1_256x256_40k_levircd.py",
    "tinycd": "tinycd/tinycd_256x256_40k_levircd.py",
    "tinycd_v2_s": "tinycd_v2/tinycd_v2_s_256x256_40k_levircd.py",
    "tinycd_v2_b": "tinycd_v2/tinycd_v2_b_256x256_40k_levircd.py",
    "tinycd_v2_l": "tinycd_v2/tinycd_v2_l_256x256_40k_levircd.py",
    "hanet": "hanet/hanet_256x256_40k_levircd.py",
    "changer_mit_b0": "changer/changer_ex_mit-b0_512x512_40k_levircd.py",
    "changer_mit_b1": "changer/changer_ex_mit-b1_512x512_40k_levircd.py",
    "changer_r18": "changer/changer_ex_r18_512x512_40k_levircd.py",
    "changer_s50": "changer/changer_ex_s50_512x512_40k_levircd.py",
    "changer_s101": "changer/changer_ex_s101_512x512_40k_levircd.py",
    "lightcdnet_s": "lightcdnet/lightcdnet_s_256x256_40k_levircd.py",
    "lightcdnet_b": "lightcdnet/lightcdnet_b_256x256_40k_levircd.py",
    "lightcdnet_l": "lightcdnet/lightcdnet_l_256x256_40k_levircd.py",
    "cgnet": "cgnet/cgnet_256x256_40k_levircd.py",
    "ban_b16_clip_bit": "ban/ban_vit-b16-clip_bit_512x512_40k_levircd.py",
    "ban_b16_clip_mit_b0": "ban/ban_vit-b16-clip_mit-b0_512x512_40k_levircd.py",
    "ban_b16_clip_mit_b1": "ban/ban_vit-b16-clip_mit-b1_512x512_40k_levircd.py",
    "ban_b16_clip_mit_b2": "ban/ban_vit-b16-clip_mit-b2_512x512_40k_levircd.py",
    "ban_b16_in21k_mit_b0": "ban/ban_vit-b16-in21k_mit-b0_512x512_40k_levircd.py",
    "ban_b32_georsclip_mit_b0": "ban/ban_vit-b32-georsclip_mit-b0_512x512_40k_levircd.py",
    "ban_l14_clip_bit": "ban/ban_vit-l14-clip_bit_512x512_40k_levircd.py",
    "ban_l14_clip_mit_b0": "ban/ban_vit-l14-clip_mit-b0_512x512_40k_levircd.py",
    "ban_l14_clip_mit_b1": "ban/ban_vit-l14-clip_mit-b1_512x512_40k_levircd.py",
    "ban_l14_clip_mit_b2": "ban/ban_vit-l14-clip_mit-b2_512x512_40k_levircd.py",
    "ttp": "ttp/ttp_vit-sam-l_512x512_300e_levircd.py",
}
"""Open-CD's configuration file of each network, relative to ``configs``."""


def without_compiled_operators() -> None:
    """Let Open-CD import mmcv-lite. Of mmcv's operators only criss-cross attention is used, which is plain torch."""
    import mmcv

    source = Path(mmcv.__file__).parent / "ops/cc_attention.py"
    spec = importlib.util.spec_from_file_location("mmcv.ops.cc_attention", source)
    attention = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(attention)
    operators = types.ModuleType("mmcv.ops")
    operators.__spec__, operators.__path__ = ModuleSpec("mmcv.ops", None), []
    operators.CrissCrossAttention = attention.CrissCrossAttention
    operators.__file__ = str(source.parent / "__init__.py")
    operators.__getattr__ = lambda name: type(name, (), {})
    sys.modules["mmcv.ops"] = operators
    sys.modules.setdefault("mmdet", types.SimpleNamespace(__version__="3.3.0", __spec__=ModuleSpec("mmdet", None)))


def reference(name: str, checkout: Path) -> torch.nn.Module:
    """Open-CD's network, without pretrained weights and with batch normalisation for one process."""
    sys.path.insert(0, str(checkout))
    without_compiled_operators()
    import torchvision.models

    torchvision.models.vgg16 = _without_weights(torchvision.models.vgg16)  # IFN's encoder would download its weights
    import opencd.models  # noqa: F401  registers the networks
    from mmengine.config import Config
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import init_default_scope
    from opencd.registry import MODELS

    config = Config.fromfile(checkout / "configs" / CONFIGS[name]).model

    def strip(part: object) -> None:
        if isinstance(part, dict):
            for key in ("pretrained", "init_cfg"):
                if key in part:
                    part[key] = None
            for value in part.values():
                strip(value)
        elif isinstance(part, list | tuple):
            for value in part:
                strip(value)

    strip(config)
    init_default_scope("opencd")
    return revert_sync_batchnorm(MODELS.build(config))


def _without_weights(build: Callable[..., torch.nn.Module]) -> Callable[..., torch.nn.Module]:
    return lambda **_: build(weights=None)


def step_of(parameters: list[torch.nn.Parameter], loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
    """A function that makes one training step: forward pass, loss, backward pass, AdamW."""
    optimizer = torch.optim.AdamW(parameters)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def compare(ours: Callable[[], object], theirs: Callable[[], object]) -> dict[str, object]:
    """Median seconds of both, and the ratios of neighbouring runs with their median."""
    ours(), theirs()
    times: list[tuple[float, float]] = []
    begin = time.perf_counter()
    while len(times) < 3 or (len(times) < ROUNDS and time.perf_counter() - begin < SECONDS_PER_RATIO):
        row = []
        order = (ours, theirs) if len(times) % 2 == 0 else (theirs, ours)
        for run in order:
            start = time.perf_counter()
            run()
            row.append(time.perf_counter() - start)
        times.append((row[0], row[1]) if order[0] is ours else (row[1], row[0]))
    ratios = sorted(a / b for a, b in times)
    return {
        "ours_s": round(statistics.median(a for a, _ in times), 4),
        "open_cd_s": round(statistics.median(b for _, b in times), 4),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def measure(name: str, checkout: Path, kinds: list[str]) -> dict[str, object]:
    """The ratios of one network."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    theirs, ours = reference(name, checkout), create_model(name)
    ratios: dict[str, object] = {}
    for side in (256, 512):
        if f"forward_{side}" not in kinds:
            continue
        theirs.eval(), ours.eval()
        before, after = torch.randn(2, 1, 3, side, side)
        both = torch.cat((before, after), dim=1)
        meta = {"img_shape": (side, side), "ori_shape": (side, side), "pad_shape": (side, side)}
        with torch.inference_mode():
            ratios[f"forward_{side}"] = compare(
                lambda before=before, after=after: ours(before, after),
                lambda both=both, meta=meta: theirs.encode_decode(both, [dict(meta)]),
            )
    if "step_256" in kinds:
        ratios["step_256"] = training(ours, theirs)
    return ratios


def training(ours: torch.nn.Module, theirs: torch.nn.Module) -> dict[str, object]:
    """Compare training steps of two pairs of 256 x 256."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    theirs.train(), ours.train()
    before, after = torch.randn(2, 2, 3, 256, 256)
    target = torch.randint(0, 2, (2, 256, 256))
    both = torch.cat((before, after), dim=1)
    meta = {"img_shape": (256, 256), "ori_shape": (256, 256), "pad_shape": (256, 256)}
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label[None]), metainfo=meta) for label in target]

    def loss_of_theirs() -> torch.Tensor:
        total, _ = theirs.parse_losses(theirs.loss(both, samples))
        return total

    return compare(
        step_of(
            [p for p in ours.parameters() if p.requires_grad],
            lambda: sum(ours.loss(ours.outputs(before, after), target).values()),
        ),
        step_of([p for p in theirs.parameters() if p.requires_grad], loss_of_theirs),
    )


KINDS = ("forward_256", "forward_512", "step_256")


def page(content: dict) -> str:
    """The page with all ratios."""
    lines = [
        "# Speed compared with Open-CD",
        "",
        "Written by `benchmarks/open_cd/speed.py`. The numbers are the time here divided by the time in Open-CD "
        f"{content['open_cd']}; both take turns in one process. Each is the median of the ratios of neighbouring runs, "
        "with their range in brackets. Below 1, this package is faster. Forward passes are of one pair; training steps "
        "(forward pass, loss, backward pass, AdamW) are of two pairs of 256 x 256. Float32, random weights.",
        "",
        f"Machine: {content['machine']}.",
        "",
        "| network | forward 256 | forward 512 | training step 256 |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, row in content["networks"].items():
        cells = [
            f"{row[kind]['ratio']:.2f} ({row[kind]['ratios'][0]:.2f} - {row[kind]['ratios'][-1]:.2f})"
            if kind in row
            else "-"
            for kind in KINDS
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--pattern", default="*", help="networks to measure, as a shell pattern")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--again", action="store_true", help="measure again what the file already holds")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--measure", action="store_true", help="measure one network, in this process")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.pattern, options.checkout, options.kinds)))
        return
    content = json.loads(options.output.read_text()) if options.output.is_file() else {"networks": {}}
    command = ["git", "-C", str(options.checkout), "describe", "--always"]
    content["open_cd"] = subprocess.run(command, capture_output=True, text=True).stdout.strip() or "790a197"
    content["machine"] = f"{platform.machine()}, {THREADS} threads, torch {torch.__version__}"
    for name in list_models(options.pattern):
        kept = content["networks"].get(name, {})
        kinds = [kind for kind in options.kinds if options.again or kind not in kept]
        if name not in CONFIGS or not kinds:
            continue
        words = [sys.executable, __file__, str(options.checkout), "--measure", "--pattern", name, "--kinds", *kinds]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name}: measuring failed:\n{done.stderr}")
        ratios = json.loads(done.stdout.splitlines()[-1])
        print(name, {kind: (row["ratio"], row["ours_s"]) for kind, row in ratios.items()}, flush=True)
        content["networks"][name] = kept | ratios
        content["networks"] = dict(sorted(content["networks"].items()))
        write_json(options.output, content)
        with replacing(options.output.with_name("README.md")) as temporary:
            temporary.write_text(page(content))


if __name__ == "__main__":
    main()
