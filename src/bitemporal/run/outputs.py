"""What a run writes, and whether it may: an earlier state of the same run is replaced, a file of the user's is not."""

import csv
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from bitemporal.errors import OutputError
from bitemporal.evaluation.pictures import OVERVIEW
from bitemporal.evaluation.results import result_outputs
from bitemporal.files import without_links
from bitemporal.inference.bundle import BUNDLE
from bitemporal.outputs import Kind, Output, check_outputs, clear_leftovers
from bitemporal.pairs.partition import PARTITION
from bitemporal.reading import json_keys
from bitemporal.remedies import as_option, free_name
from bitemporal.run.fit import BEST_WEIGHTS, read_checkpoint
from bitemporal.run.folder import CONTROL, DETECTORS, O_P, ORIGIN, STUDENT, RunFolder, StageFolder, teacher_stage
from bitemporal.run.lengths import is_trained
from bitemporal.run.recipe import DistillRecipe, TrainRecipe, is_written_recipe
from bitemporal.run.same_recipe import MAY_CHANGE, recipe_then, same_value


def _is_best(path: Path) -> bool:
    try:
        with safe_open(path, "pt") as weights:
            return BEST_WEIGHTS.items() <= (weights.metadata() or {}).items()
    except SafetensorError:
        return False


def _is_metrics_table(path: Path) -> bool:
    with path.open(newline="", encoding="utf-8") as stream:
        return {"step", "lr", "loss"} <= {*next(csv.reader(stream), [])}


_BEST = Kind("the best weights of a stage", _is_best, (".safetensors",))
_METRICS_TABLE = Kind("a table of a stage's metrics", _is_metrics_table, (".csv",))
_VERDICT = Kind("the verdict of a run", lambda path: {"protocol", "verdict", "results"} <= json_keys(path), (".json",))
_REUSED = Kind("a record of reused stages", lambda path: json_keys(path) == {"run", "sha256"}, (".json",))


def check_run_outputs(recipe: TrainRecipe, run: RunFolder, overwrite: bool) -> None:
    """Refuse a run folder in which something of the user's would be replaced, before any work.

    Args:
        recipe: The recipe now.
        run: Its folder.
        overwrite: Whether files that are no earlier state of this run are replaced; ``recipe.yaml`` is not, even then.

    Raises:
        OutputError: Naming the file and the remedy.
        BundleError: When the checkpoint of a stage that would be resumed is not one.
    """
    remedy = other_folder(recipe, run)
    if run.path.exists() and not run.path.is_dir():
        raise OutputError(f"out: {run.path} is a file, expected a folder or a new name; {remedy}")
    if not _may_write_recipe(recipe, run):
        raise OutputError(
            f"out: {run.recipe} exists and was not written by bitemporal; your own recipes are never overwritten: "
            f"{remedy}, or move it"
        )
    stages = [run.stage(name) for name in _stages(recipe) if not is_trained(run.stage(name), recipe.steps_of(name))]
    outputs = [Output("out", run.partition, PARTITION, remedy)]
    outputs += [output for stage in stages for output in _of_stage(stage, remedy)]
    reads: list[str | Path] = [recipe.data, *([recipe.splits] if recipe.splits else []), *_weights(recipe)]
    if isinstance(recipe, DistillRecipe):
        if recipe.reuse is not None:
            reads += _of_source(RunFolder(recipe.reuse))
            outputs += [Output("out", run.reused, _REUSED, remedy)]
        if "verdict" in recipe.stage_names:
            outputs += _of_verdict(run, remedy)
    check_outputs(outputs, reads, overwrite)
    clear_leftovers([run.recipe, *(path for name in _stages(recipe) for path in run.stage(name).files())])
    for stage in stages:
        if stage.checkpoint.exists():
            read_checkpoint(stage.checkpoint)


def other_folder(recipe: TrainRecipe, run: RunFolder) -> str:
    """The remedy of a run folder that cannot be used: one that is free, and not inside the data."""
    data = without_links(recipe.data)
    inside = without_links(run.path).is_relative_to(data)
    free = free_name(data.parent / run.path.name if inside else run.path)
    return f"choose another folder, {as_option('out', str(free))}"


def writes_recipe(recipe: TrainRecipe, run: RunFolder) -> bool:
    """Whether the recipe is to be written: not where one of the user's own stands that says the same."""
    return not run.recipe.exists() or is_written_recipe(run.recipe)


def _may_write_recipe(recipe: TrainRecipe, run: RunFolder) -> bool:
    if writes_recipe(recipe, run):
        return not run.recipe.is_symlink()
    before, now = recipe_then(run), recipe.to_dict()
    return all(name in before and same_value(before[name], now[name]) for name in now if name not in MAY_CHANGE)


def _stages(recipe: TrainRecipe) -> Iterator[str]:
    """Names of the stages that may be trained, or taken from another run."""
    if not isinstance(recipe, DistillRecipe):
        yield ORIGIN
        return
    taken = {"origin", "teachers", "control"} if recipe.reuse is not None else set()
    for name in sorted(recipe.stage_names | taken):
        if name == "teachers":
            yield from map(teacher_stage, recipe.partition.names)
        elif name in (ORIGIN, CONTROL, STUDENT):
            yield name


def _of_stage(stage: StageFolder, remedy: str) -> Iterator[Output]:
    yield Output("out", stage.bundle, BUNDLE, remedy)
    yield Output("out", stage.best, _BEST, remedy)
    yield Output("out", stage.metrics, _METRICS_TABLE, remedy)


def _of_verdict(run: RunFolder, remedy: str) -> Iterator[Output]:
    yield Output("out", run.stage(O_P).bundle, BUNDLE, remedy)
    yield Output("out", run.metrics, _VERDICT, remedy)
    yield Output("out", run.overview, OVERVIEW, remedy)
    for split in ("val", "test"):
        for name in DETECTORS:
            yield from result_outputs(run.scores(split, name), "out", remedy)


def _of_source(source: RunFolder) -> list[Path]:
    """What is read of a run whose stages are reused."""
    stages = [path for name in source.finished_stages() for path in source.stage(name).files()]
    return [source.recipe, source.partition, source.splits, *stages]


def _weights(recipe: TrainRecipe) -> list[Path]:
    """Files that the options of the network name."""
    texts = [value for value in recipe.model_options.values() if isinstance(value, str)]
    return [path for path in map(Path, texts) if path.is_file()]
