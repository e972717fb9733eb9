"""Whole commands in copies of this process, in which everything is imported already: many runs fit into little time."""

import importlib
import os
import select
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bitemporal import create_model
from bitemporal.cli import main as command_line
from bitemporal.cli import signals
from bitemporal.inference.bundle import save_bundle
from bitemporal.synthetic import write_scene
from forked import run

SHORT = "--max-steps 4 --validate-every 2 --batch-size 2 --crop-size 32 --workers 1 --model test_tinycd --data pairs"
COMMANDS = {
    "check": "data check pairs --workers 2",
    "stats": "data stats pairs -o out/partition.csv",
    "split": "data split unsplit -o out/splits.csv",
    "tiles": "data tiles before.tif after.tif -o out/tiles --size 64",
    "synth": "data synth out/pairs --pairs 12 --size 32 --workers 1",
    "download": "data download jl1-cd -o out/set",
    "pair": "predict before.png after.png --bundle bundle -o out/mask.png --probability out/map.png",
    "predict": "predict pairs/test/A pairs/test/B --bundle bundle -o out/masks --probability maps",
    "scene": "predict-scene before.tif after.tif --bundle bundle -o out/change.tif --probability out/p.tif --tile 64 "
    "--overlap 16",
    "archive": "predict-archive --manifest scenes.csv --bundle bundle --out out/archive --tile 64 --overlap 16 "
    "--workers 1",
    "threshold": "threshold probability.tif -o out/change.tif --polygons out/areas.gpkg --threshold 0.4",
    "evaluate": "evaluate bundle pairs -o out/result.json",
    "train": f"train {SHORT} --out out/run",
    "distill": f"distill {SHORT} --teacher-steps 2 --student-steps 2 --out out/run",
    "reproduce": "reproduce jl1-cd --model fc_ef --data pairs --out out/run --workers 0",
    "report": "report trained -o out/report.html",
    "compare": "compare a.json b.json -o out/comparison.json",
    "import": "import bundle/weights.safetensors --model test_tinycd -o out/bundle",
    "models": "models --json",
    "completion": "completion bash",
}
"""Every command, in a folder of ``make_inputs``; all write below ``out`` alone."""

VARIES = {"summary.json", "status.csv", "recipe.yaml", "last.ckpt", "report.html"}
"""Files that hold times, or names of folders."""


@dataclass(frozen=True)
class Run:
    """A command in a copy of this process.

    Attributes:
        process: Its number; it leads a group of its own.
        errors: What it has written to standard error.
    """

    process: int
    errors: Path

    def end(self, seconds: float | None = None) -> int | None:
        """How it ends, as ``subprocess`` has it; ``None`` when it has not ended in time."""
        descriptor = os.pidfd_open(self.process)
        try:
            if not select.select([descriptor], [], [], seconds)[0]:
                return None
        finally:
            os.close(descriptor)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])

    def said(self) -> str:
        return self.errors.read_text(errors="replace")


def import_everything() -> None:
    """What the commands would import."""
    for place in command_line.COMMANDS.values():
        importlib.import_module(place.partition(":")[0])
    for name in ("lightning_fabric", "rasterio", "pyogrio", "pyarrow.parquet", "matplotlib.pyplot", "huggingface_hub"):
        importlib.import_module(name)


def start(name: str, folder: Path, begin: Callable[[], object] = lambda: None) -> Run:
    """Start a command in a copy of this process, in a folder of ``fresh``.

    Args:
        name: The command's name in ``COMMANDS``.
        folder: Where.
        begin: Called first in the copy, as to wait for others.
    """
    errors = folder.parent / f"{folder.name}-{name}.{len([*folder.parent.iterdir()])}.err"
    errors.touch()
    process = os.fork()
    if process:
        with suppress(OSError):  # it has done so itself, or has ended
            os.setpgid(process, process)
        return Run(process, errors)
    code = 70
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_APPEND), 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w") for number in (1, 2))
        _answer_signals_from_the_first_moment()
        _stand_in_for_what_is_large(folder)
        begin()
        sys.argv = ["bitemporal", *COMMANDS[name].split()]
        code = command_line.main()
        sys.stdout.flush()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        from multiprocessing.util import _exit_function

        _exit_function()
        os._exit(code)
    raise AssertionError


def _answer_signals_from_the_first_moment() -> None:
    """Python's own answers, before the command has its own, are not what is tried."""
    ours = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, ours)
    for number in ours:  # a shell lets what it starts in the background ignore Ctrl-C, and so do commands
        signal.signal(number, signal.SIG_DFL)
    answer = signals.answer_signals

    def answer_and_listen() -> None:
        answer()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ours)

    signals.answer_signals = answer_and_listen


def _stand_in_for_what_is_large(folder: Path) -> None:
    """The hub is a folder, and the paper's experiment a miniature."""
    import huggingface_hub

    from bitemporal.datasets import catalog
    from bitemporal.run import reproduction

    class Hub:
        def dataset_info(self, *_: object, **__: object) -> object:
            return type("Info", (), {"sha": "a" * 40})()

    def snapshot(*_: object, local_dir: Path, **__: object) -> None:
        for path in (folder / "pairs").rglob("*.png"):
            target = local_dir / path.relative_to(folder / "pairs")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)

    huggingface_hub.HfApi, huggingface_hub.snapshot_download = Hub, snapshot
    card = catalog.dataset_card("jl1-cd")
    card.splits.clear()
    card.splits.update({"train": 12, "val": 6, "test": 6})
    full = reproduction.paper_recipe
    reproduction.paper_recipe = lambda *words: replace(
        full(*words), pretrained=False, max_steps=4, teacher_steps=2, student_steps=2, validate_every=2, crop_size=32,
        batch_size=2,
    )  # fmt: skip
    reproduction._seconds = lambda *_: 0.1


def make_inputs(pairs: Path, root: Path) -> Path:
    """What the commands read, made in a copy of this process, whose threads no later copy could take over.

    Args:
        pairs: A folder of pairs.
        root: Where to make them; returned.
    """
    import_everything()
    ended = run(lambda: _make_inputs(pairs, root), limit=300)
    assert ended.status == 0, ended.said
    return root


def _make_inputs(pairs: Path, root: Path) -> None:
    shutil.copytree(pairs, root / "pairs")
    save_bundle(root / "bundle", create_model("test_tinycd"))
    write_scene(root / "before.tif", root / "after.tif", root / "label.tif", height=160, width=160)
    (root / "scenes.csv").write_text("id,before,after\n" + "".join(f"s{n},before.tif,after.tif\n" for n in range(3)))
    shutil.copytree(pairs / "train", root / "unsplit" / "train")
    for date, name in (("A", "before"), ("B", "after")):
        shutil.copy(pairs / "test" / date / "pair_03.png", root / f"{name}.png")
    main = command_line.main
    for result in "ab":
        words = ["evaluate", f"{root}/bundle", f"{root}/pairs", "-o", f"{root}/{result}.json", "--name", result]
        assert main(words) == 0
    train = f"train {SHORT} --out {root}/trained".replace("data pairs", f"data {root}/pairs")
    assert main(train.split()) == 0
    words = ["predict-scene", f"{root}/before.tif", f"{root}/after.tif", "--bundle", f"{root}/bundle", "-o"]
    assert main([*words, f"{root}/mask.tif", "--probability", f"{root}/probability.tif"]) == 0


def fresh(inputs: Path, folder: Path) -> Path:
    """A folder with links to the inputs, and an empty one for what is written."""
    folder.mkdir()
    for path in inputs.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "out").mkdir()
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """All files below ``out``, and the bytes of those that hold no time."""
    files = (path for path in (folder / "out").rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): b"" if path.name in VARIES else path.read_bytes()
        for path in files
        if "tfevents" not in path.name  # a new one for each start
    }
