"""Many scenes, on the processes of one machine or on a Ray cluster; what is finished is not done again.

Workers hold the detector and predict one scene after another. There are two kinds of them, processes and Ray actors,
and one loop that hands out the scenes, replaces workers that die, and tries their scenes again.
"""

import os
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from bitemporal.errors import BitemporalError, MissingExtraError, OptionError
from bitemporal.files import without_links
from bitemporal.inference import Augmentation, Detector, choose_device, compose
from bitemporal.outputs import Output, check_outputs
from bitemporal.scenes.kinds import STATUS
from bitemporal.scenes.manifest import SceneFiles, with_own_folders
from bitemporal.scenes.merging import merge_polygons, merged_outputs
from bitemporal.scenes.options import SceneOptions
from bitemporal.scenes.outputs import Outputs, make_outputs
from bitemporal.scenes.prediction import predict_unless_finished
from bitemporal.scenes.sources import files_read, gdal_settings, is_remote
from bitemporal.scenes.status import SceneStatus, StatusTable
from bitemporal.workers import SPAN, Process, Watch, check_workers, hanging

Engine = Literal["local", "ray"]

ATTEMPTS = 3
"""How often a scene is tried when its worker dies, or fails in a way that may pass."""

_MOST_THREADS = 1024
"""No machine has more cores."""


@dataclass(frozen=True)
class Plan:
    """What every worker needs to know.

    Attributes:
        bundles: Folders or hub ids of the detectors; several are an ensemble.
        out: Folder of the output; every scene has its own folder in it.
        device: See ``load``.
        augmentation: See ``TestTimeAugmentation``.
        scales: See ``TestTimeAugmentation``.
        products: File names in a scene's folder by their kind: ``probability``, ``polygons``, ``quicklook``.
        options: How every scene is read, predicted and drawn.
        threads: CPU threads of one worker, the same number of which gives the same bytes on every engine; ``None`` for
            the cores of this machine divided by the number of workers.
        overwrite: Whether files in the places of outputs that are no earlier outputs of the same kind are replaced.
    """

    bundles: tuple[str, ...]
    out: str
    device: str = "auto"
    augmentation: Augmentation | None = None
    scales: tuple[float, ...] = (1.0,)
    products: Mapping[str, str] = field(default_factory=dict)
    options: SceneOptions = field(default_factory=SceneOptions)
    threads: int | None = 1
    overwrite: bool = False


def predict_archive(
    plan: Plan,
    scenes: Sequence[SceneFiles],
    engine: Engine = "local",
    workers: int = 1,
    report: Callable[[SceneStatus], None] = lambda status: None,
    merge: str | os.PathLike[str] | None = None,
) -> list[SceneStatus]:
    """Predict many scenes; a bad one never stops the rest.

    Every scene gets the folder ``out/ID`` with ``change.tif``, ``summary.json`` and the other products. Scenes that an
    earlier run finished in the same way are left as they are; interrupted ones resume where they stopped. Several runs
    may share an output: of a scene that another one is writing, a worker waits for the end.

    Args:
        plan: Detector, output and options.
        scenes: Scenes to predict.
        engine: Processes of this machine, or actors of a Ray cluster (``ray.init`` before the call chooses which; by
            default the one of ``RAY_ADDRESS``, or a new one on this machine).
        workers: Number of processes or actors.
        report: Called with every scene's status as it ends.
        merge: File for the polygons of all scenes that are finished, with the scene and its dates; see
            ``merge_polygons``. It is rebuilt at the end of every run.

    Returns:
        A status for every scene, in their order; ``out/status.csv`` holds the same, and after these rows those of
        other scenes from other runs.

    Raises:
        DataError: When polygons cannot be merged.
        OptionError: When there is no worker, or nothing that could be merged.
        OutputError: Before any scene is predicted, when an output of a scene is an input of any, the manifest, or an
            output of another one, or when it would replace another file; later, when a table or the merged file cannot
            be written.
        BitemporalError: When the detector cannot be used.
        MissingExtraError: When Ray is not installed.
    """
    if engine == "local":
        check_workers(workers)
    elif workers < 1:
        raise OptionError(f"workers: found {workers}, expected at least 1")
    if plan.threads is not None and not 1 <= plan.threads <= _MOST_THREADS:
        raise OptionError(f"threads: found {plan.threads}, expected 1 to {_MOST_THREADS} per worker; use --threads 1")
    scenes = with_own_folders(scenes)
    table = Output("output", without_links(plan.out) / "status.csv", STATUS)
    merged = [] if merge is None else merged_outputs(merge, plan.products.get("polygons"), scenes, Path(plan.out))
    # other processes and nodes start elsewhere
    bundles = tuple(str(without_links(bundle)) if Path(bundle).exists() else bundle for bundle in plan.bundles)
    threads = plan.threads or max(1, (os.cpu_count() or 1) // workers)
    options = replace(
        plan.options,
        within=plan.options.within and str(without_links(plan.options.within)),
        mask=plan.options.mask
        and [mask if is_remote([mask]) else str(without_links(mask)) for mask in plan.options.mask],
    )
    plan = replace(plan, bundles=bundles, out=str(without_links(plan.out)), options=options, threads=threads)
    compose(plan.bundles, "cpu", plan.augmentation, plan.scales)  # a detector that cannot be used fails here, once
    _check_outputs(plan, scenes, [table, *merged])
    if engine == "ray":
        start = _ray_actors(plan)
    else:
        choose_device(plan.device)  # a device that is unavailable fails here, not with each scene
        start = partial(_process, plan)
    statuses: dict[int, SceneStatus] = {}
    told: set[str] = set()
    with StatusTable(table, scenes, plan.overwrite) as rows:
        for place, status in _spread(scenes, start, workers, rows.write_when_due):
            if status.warning and status.warning not in told:
                told.add(status.warning)
                warnings.warn(f"{status.id}: {status.warning}", UserWarning, stacklevel=2)
            statuses[place] = status
            report(status)
            rows.add(status)
    if merge is not None:
        finished = [scene for place, scene in enumerate(scenes) if statuses[place].status != "failed"]
        if finished:
            files = [Path(plan.out) / scene.id / plan.products["polygons"] for scene in finished]
            merge_polygons(Path(merge), list(zip(finished, files, strict=True)), plan.overwrite)
    return [statuses[place] for place in range(len(scenes))]


def _outputs(plan: Plan, scene: SceneFiles) -> Outputs:
    """The files of a scene."""
    folder = Path(plan.out) / scene.id
    files = {name: str(folder / file) for name, file in plan.products.items()}
    return make_outputs(folder / "change.tif", plan.overwrite, summary=folder / "summary.json", **files)


def _check_outputs(plan: Plan, scenes: Sequence[SceneFiles], others: Sequence[Output]) -> None:
    """Refuse outputs of any scene that are read for any of them, or would lose something else.

    Raises:
        OutputError: Naming the output.
    """
    usable = [scene for scene in scenes if not scene.error]
    outputs = [output for scene in usable for output in _outputs(plan, scene).planned(f" of {scene.id}")]
    inputs = {file for scene in scenes for file in (*scene.before, *scene.after, *scene.mask, scene.manifest) if file}
    with gdal_settings():
        files = (*sorted(inputs), *plan.options.exclusion_files(), *filter(os.path.exists, plan.bundles))
        read = files_read(files, plan.options.allow_vrt)
        check_outputs((*others, *outputs), read, plan.overwrite)


class SceneWorker:
    """Holds the detector, and predicts scene after scene."""

    def __init__(self, plan: Plan) -> None:
        """Load the detector."""
        self.plan = plan
        torch.set_num_threads(plan.threads or 1)
        self.detector: Detector = compose(plan.bundles, plan.device, plan.augmentation, plan.scales)

    def predict(self, scene: SceneFiles) -> SceneStatus:
        """Predict one scene; whatever is wrong with it is part of the answer."""
        if scene.error:
            return SceneStatus(scene.id, "failed", error=scene.error)
        masks = [*(self.plan.options.mask or ()), *scene.mask]
        options = replace(self.plan.options, mask=masks or None)
        outputs = _outputs(self.plan, scene)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always", UserWarning)
                    finished, summary = predict_unless_finished(
                        self.detector, scene.before, scene.after, outputs, options, scene.stated
                    )
            except BitemporalError as error:
                problem = str(error)
                if not is_remote((*scene.before, *scene.after, *masks)):  # a connection may be better the next time
                    break
            # memory, a device, a network file system: another try may do
            except Exception as error:
                problem = f"{type(error).__name__}: {error} ({traceback.extract_tb(error.__traceback__)[-1]})"
            else:
                return SceneStatus(
                    scene.id,
                    "skipped" if finished else "done",
                    summary["car"],
                    summary["changed_hectares"],
                    0.0 if finished else summary["seconds"]["total"],
                    attempt,
                    warning="; ".join(dict.fromkeys((*scene.warnings, *(str(told.message) for told in caught)))),
                )
        return SceneStatus(scene.id, "failed", attempts=attempt, error=problem)


class _Worker(NamedTuple):
    """A scene worker in another process, perhaps on another machine.

    Attributes:
        submit: Predicts a scene. The future has an exception only if the worker died, or could not start.
        signs: Gives another number whenever the worker has got on.
        stop: Ends the worker, and frees what it holds.
    """

    submit: Callable[[SceneFiles], Future[SceneStatus]]
    signs: Callable[[], int]
    stop: Callable[[], None]


class _Job(NamedTuple):
    """The scene of a worker."""

    worker: _Worker
    place: int
    attempt: int
    watch: Watch


def _spread(
    scenes: Sequence[SceneFiles], start: Callable[[], _Worker], workers: int, meanwhile: Callable[[], float]
) -> Iterator[tuple[int, SceneStatus]]:
    """Predict scenes on several workers, with the place of each; if one dies or hangs, only an attempt is lost.

    Args:
        scenes: The scenes.
        start: Starts a worker.
        workers: Number of workers.
        meanwhile: Called before every wait; gives the seconds after which it must be called again.
    """
    waiting = [(place, 1) for place in reversed(range(len(scenes)))]
    idle = [start() for _ in range(min(workers, len(scenes)))]
    running: dict[Future[SceneStatus], _Job] = {}
    try:
        while waiting or running:
            while waiting and idle:
                (place, attempt), worker = waiting.pop(), idle.pop()
                running[worker.submit(scenes[place])] = _Job(worker, place, attempt, Watch(worker.signs))
            while idle:  # no scene waits: make room for workers that could not start yet
                idle.pop().stop()
            ended = wait(running, min(SPAN, meanwhile()), FIRST_COMPLETED).done
            for future in [future for future, job in running.items() if job.watch.is_over() and future not in ended]:
                worker, place, attempt, _ = running.pop(future)
                worker.stop()
                idle.append(start())
                yield (
                    place,
                    SceneStatus(scenes[place].id, "failed", attempts=attempt, error=str(hanging("its process"))),
                )
            for future in ended:
                worker, place, attempt, _ = running.pop(future)
                if (death := future.exception()) is None:
                    idle.append(worker)
                    yield place, replace(future.result(), attempts=max(attempt, future.result().attempts))
                    continue
                worker.stop()
                idle.append(start())
                if attempt < ATTEMPTS:
                    waiting.append((place, attempt + 1))
                else:
                    reason = next(iter(str(death).splitlines()), type(death).__name__)
                    problem = f"its process died each time ({reason}); check memory and devices"
                    yield place, SceneStatus(scenes[place].id, "failed", attempts=attempt, error=problem)
    finally:
        for worker in (*idle, *(job.worker for job in running.values())):
            worker.stop()


def _process(plan: Plan) -> _Worker:
    """A worker in its own process, which starts with the first scene."""
    process = Process("free some space there", _load, plan)
    return _Worker(partial(process.submit, _predict), process.signs, process.stop)


_loaded: SceneWorker | None = None
"""The worker of this process."""


def _load(plan: Plan) -> None:
    global _loaded
    _loaded = SceneWorker(plan)


def _predict(scene: SceneFiles) -> SceneStatus:
    assert _loaded is not None
    return _loaded.predict(scene)


def _ray_actors(plan: Plan) -> Callable[[], _Worker]:
    """Start workers as actors of a Ray cluster, each on a GPU of its own where there are any.

    Raises:
        MissingExtraError: When Ray is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise (MissingExtraError.of(error, "engine: ray") or error) from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    on_gpu = plan.device.startswith("cuda") or (plan.device == "auto" and ray.cluster_resources().get("GPU", 0) > 0)
    actor = ray.remote(SceneWorker).options(num_cpus=plan.threads, num_gpus=1 if on_gpu else 0)

    def start() -> _Worker:
        handle = actor.remote(plan)
        # Ray itself watches its nodes
        return _Worker(lambda scene: handle.predict.remote(scene).future(), count().__next__, partial(ray.kill, handle))

    return start
