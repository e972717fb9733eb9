"""Many scenes: on the processes of one machine, or on a Ray cluster; what is finished is not done again."""

import csv
import json
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch

from bitemporal.errors import BitemporalError, DataError, MissingExtraError, RecipeError
from bitemporal.files import replacing
from bitemporal.inference import Augmentation, Detector, choose_device, compose
from bitemporal.scenes.manifest import SceneFiles
from bitemporal.scenes.options import SceneOptions
from bitemporal.scenes.outputs import Outputs
from bitemporal.scenes.prediction import is_remote, predict_unless_finished

Engine = Literal["local", "ray"]
Status = Literal["done", "skipped", "failed"]

_DIED = "its process died each time; see memory and devices"

ATTEMPTS = 3
"""How often a scene is tried when its process dies, or fails in a way that may pass."""


@dataclass(frozen=True)
class SceneStatus:
    """What became of one scene.

    Attributes:
        id: Of the scene.
        status: ``done``; ``skipped``, as an earlier run had finished it in the same way; or ``failed``.
        car: Changed pixels divided by valid ones.
        changed_hectares: Their area.
        seconds: Time it took.
        attempts: How often it was tried.
        error: Why it failed.
    """

    id: str
    status: Status
    car: float | None = None
    changed_hectares: float | None = None
    seconds: float | None = None
    attempts: int = 1
    error: str = ""


@dataclass(frozen=True)
class Plan:
    """What every worker needs to know.

    Attributes:
        bundles: Folders or hub ids of the detectors; several are an ensemble.
        out: Folder of the output; every scene has its own in it.
        device: See ``load``.
        augmentation: See ``TestTimeAugmentation``.
        scales: See ``TestTimeAugmentation``.
        products: File names in a scene's folder by what they are: ``probability``, ``polygons``, ``quicklook``.
        options: Of every scene.
        threads: CPU threads of one worker; the same number gives the same bytes on every engine.
    """

    bundles: tuple[str, ...]
    out: str
    device: str = "auto"
    augmentation: Augmentation | None = None
    scales: tuple[float, ...] = (1.0,)
    products: Mapping[str, str] = field(default_factory=dict)
    options: SceneOptions = field(default_factory=SceneOptions)
    threads: int = 1


class SceneWorker:
    """Holds the detector, and predicts scene after scene."""

    def __init__(self, plan: Plan) -> None:
        """Load the detector."""
        self.plan = plan
        torch.set_num_threads(plan.threads)
        self.detector: Detector = compose(plan.bundles, plan.device, plan.augmentation, plan.scales)

    def __call__(self, scene: SceneFiles) -> SceneStatus:
        """Predict one scene; whatever is wrong with it is part of the answer."""
        if scene.error:
            return SceneStatus(scene.id, "failed", error=scene.error)
        folder = Path(self.plan.out) / scene.id
        files = {name: folder / file for name, file in self.plan.products.items()}
        outputs = Outputs(mask=folder / "change.tif", summary=folder / "summary.json", **files)
        before, after = (date[0] if len(date) == 1 else date for date in (scene.before, scene.after))
        for attempt in range(1, ATTEMPTS + 1):
            try:
                finished, found = predict_unless_finished(self.detector, before, after, outputs, self.plan.options)
            except BitemporalError as error:
                problem = str(error)
                if not is_remote((*scene.before, *scene.after)):  # a connection may be better the next time
                    break
            # memory, a device, a network file system: another try may do
            except Exception as error:
                problem = f"{type(error).__name__}: {error} ({traceback.extract_tb(error.__traceback__)[-1]})"
            else:
                return SceneStatus(
                    scene.id,
                    "skipped" if finished else "done",
                    found["car"],
                    found["changed_hectares"],
                    0.0 if finished else found["seconds"]["total"],
                    attempt,
                )
        return SceneStatus(scene.id, "failed", attempts=attempt, error=problem)


def predict_archive(
    plan: Plan,
    scenes: Sequence[SceneFiles],
    engine: Engine = "local",
    workers: int = 1,
    report: Callable[[SceneStatus], None] = lambda status: None,
) -> list[SceneStatus]:
    """Predict many scenes; a bad one never stops the rest.

    Every scene gets the folder ``out/ID`` with ``change.tif``, ``summary.json`` and the other products. Scenes that an
    earlier run finished in the same way are left as they are; those that were interrupted go on where they stopped.

    Args:
        plan: Detector, output and options.
        scenes: What to predict.
        engine: Processes of this machine, or actors of a Ray cluster (``ray.init`` before the call chooses which; by
            default the one of ``RAY_ADDRESS``, or a new one on this machine).
        workers: Processes or actors.
        report: Called with every scene's status as it ends.

    Returns:
        A status for every scene, in their order; ``out/status.csv`` holds the same.

    Raises:
        RecipeError: When there is no worker, or the detector cannot be used.
        MissingExtraError: When Ray is not installed.
    """
    if workers < 1:
        raise RecipeError(f"workers: found {workers}, expected at least 1")
    # other processes and nodes start elsewhere
    bundles = tuple(str(Path(bundle).resolve()) if Path(bundle).exists() else bundle for bundle in plan.bundles)
    plan = replace(plan, bundles=bundles, out=str(Path(plan.out).resolve()))
    compose(plan.bundles, "cpu", plan.augmentation, plan.scales)  # a detector that cannot be had fails here, once
    if engine == "local":
        choose_device(plan.device)
    run = _on_ray if engine == "ray" else _on_processes
    found: dict[str, SceneStatus] = {}
    for status in run(plan, scenes, workers):
        found[status.id] = status
        report(status)
        _write_status(plan, scenes, found)
    for scene in scenes:
        if scene.id not in found:
            found[scene.id] = SceneStatus(scene.id, "failed", attempts=ATTEMPTS, error=_DIED)
            report(found[scene.id])
    _write_status(plan, scenes, found)
    return [found[scene.id] for scene in scenes]


def _write_status(plan: Plan, scenes: Sequence[SceneFiles], found: Mapping[str, SceneStatus]) -> None:
    with replacing(Path(plan.out) / "status.csv") as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(SceneStatus.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(asdict(found[scene.id]) for scene in scenes if scene.id in found)


_worker: SceneWorker | None = None
"""Of a process of the local engine."""


def _start(plan: Plan) -> None:
    global _worker
    _worker = SceneWorker(plan)


def _predict(scene: SceneFiles) -> SceneStatus:
    assert _worker is not None
    return _worker(scene)


def _on_processes(plan: Plan, scenes: Sequence[SceneFiles], workers: int) -> Iterator[SceneStatus]:
    """Processes of their own: one that dies takes down nothing but its scene's attempt."""
    waiting = [(scene, 1) for scene in reversed(scenes)]
    idle = [_process(plan) for _ in range(min(workers, len(scenes)))]
    running: dict[Future[SceneStatus], tuple[ProcessPoolExecutor, SceneFiles, int]] = {}
    try:
        while waiting or running:
            while waiting and idle:
                scene, attempt = waiting.pop()
                process = idle.pop()
                running[process.submit(_predict, scene)] = (process, scene, attempt)
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                process, scene, attempt = running.pop(future)
                try:
                    status = future.result()
                except BrokenProcessPool:
                    process.shutdown()
                    idle.append(_process(plan))
                    if attempt < ATTEMPTS:
                        waiting.append((scene, attempt + 1))
                    else:
                        yield SceneStatus(scene.id, "failed", attempts=attempt, error=_DIED)
                else:
                    idle.append(process)
                    yield replace(status, attempts=max(attempt, status.attempts))
    finally:
        for process in (*idle, *(process for process, _, _ in running.values())):
            process.shutdown(wait=False, cancel_futures=True)


def _process(plan: Plan) -> ProcessPoolExecutor:
    """A pool of one; it starts with the first scene."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_start, initargs=(plan,))


class _RayWorker:
    """A scene worker as Ray Data wants it: tables in, tables out."""

    def __init__(self, plan: Plan) -> None:
        self.worker = SceneWorker(plan)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        statuses = [self.worker(SceneFiles(**_scene(text))) for text in batch["scene"]]
        return {"status": [json.dumps(asdict(status)) for status in statuses]}


def _scene(text: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(text)
    return content | {name: tuple(content[name]) for name in ("before", "after")}


def _on_ray(plan: Plan, scenes: Sequence[SceneFiles], workers: int) -> Iterator[SceneStatus]:
    """Actors of Ray Data; one that dies is started again, and its scene goes on where its journal ends."""
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"engine: ray needs {error.name}, which is not installed; install it with `pip install bitemporal[cluster]`"
        ) from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    on_gpu = plan.device.startswith("cuda") or (plan.device == "auto" and ray.cluster_resources().get("GPU", 0) > 0)
    # a scene that kills every actor is given up after its attempts, and the rest goes on
    ray.data.DataContext.get_current().max_errored_blocks = -1
    rows = [{"scene": json.dumps(asdict(scene))} for scene in scenes]
    answers = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _RayWorker,
        fn_constructor_args=(plan,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=plan.threads,
        num_gpus=1 if on_gpu else 0,
        max_restarts=-1,
        max_task_retries=ATTEMPTS - 1,
    )
    try:
        for row in answers.iter_rows():
            yield SceneStatus(**json.loads(row["status"]))
    except ray.exceptions.RayError as error:
        raise DataError(
            f"engine: Ray gave up ({str(error).splitlines()[0]}); see `ray status`, and run again"
        ) from error


def threads_a_worker(workers: int) -> int:
    """CPU threads that each of several workers of one machine should use."""
    return max(1, (os.cpu_count() or 1) // workers)
