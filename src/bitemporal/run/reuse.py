"""Stages taken from a finished run: ``reuse`` of a recipe, for sweeps that train the student alone.

The files are copied and their digests compared, so that the new run stands alone; the other run is only read.
``reused.json``, written last, says what comes from where. A run that was killed before copies again.
"""

import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from bitemporal.errors import DataError, OutputError, RecipeError
from bitemporal.files import not_there, sha256
from bitemporal.inference.bundle import check_bundle
from bitemporal.outputs import replacing, replacing_folder, write_json
from bitemporal.pairs.partition import read_partition
from bitemporal.remedies import as_option, as_options, as_typed, free_name
from bitemporal.run.folder import CONTROL, ORIGIN, RunFolder, StageFolder, teacher_stage
from bitemporal.run.lengths import is_trained
from bitemporal.run.processes import is_first_process, wait_for_all_processes
from bitemporal.run.recipe import DistillRecipe
from bitemporal.run.same_recipe import MAY_CHANGE, recipe_then, same_value

_OF_THE_DISTILLATION = {"lambda", "criterion", "temperature", "teachers"}
"""Fields that concern the student alone; runs that differ in nothing else have the same control."""

_OF_THE_STUDENT = {*_OF_THE_DISTILLATION, "seed", "student_steps"}
"""Fields that concern neither the origin nor the teachers."""

_MAY_DIFFER = {*_OF_THE_STUDENT, *MAY_CHANGE, "reuse", "paper"}
_BUNDLE_FILES = ("bundle.json", "weights.safetensors")


def reuse_stages(recipe: DistillRecipe, folder: RunFolder, console: Console) -> None:
    """Copy origin, teachers, partition and validation split of the run that a recipe names, unless that has been done.

    The control is copied too, where it would be the same: if nothing but lambda, criterion, temperature and teachers
    differs.

    Args:
        recipe: Recipe of the new run.
        folder: Its folder.
        console: Where to say what is copied.

    Raises:
        RecipeError: When the other run was made with other fields than the recipe has, or is not finished.
        DataError: When it is no run.
        OutputError: When the new run's folder holds another stage of one of these names.
    """
    done = folder.reused.is_file()
    wait_for_all_processes(recipe)  # all of them look before the first one writes
    if recipe.reuse is None or done:
        return
    source = RunFolder(recipe.reuse)
    names = _stages(recipe, source)
    if is_first_process():
        copied = {name: _copy_stage(source.stage(name), folder.stage(name)) for name in names}
        for file, target in ((source.partition, folder.partition), (source.splits, folder.splits)):
            if file.is_file():
                _copy_file(file, target)
        write_json(folder.reused, {"run": str(source.path.resolve()), "sha256": copied})
        console.print(
            f"reused from {source.path}: {', '.join(names)}; their seeds and steps are those of that run",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    wait_for_all_processes(recipe)


def _stages(recipe: DistillRecipe, source: RunFolder) -> list[str]:
    """Names of the stages to copy."""
    if not source.path.is_dir():
        raise DataError(f"reuse: {not_there(source.path, 'folder')}; expected the folder of a finished run")
    if not source.recipe.is_file():
        raise DataError(f"reuse: {source.path} has no recipe.yaml, expected the folder of a finished run")
    before, now = recipe_then(source), recipe.to_dict()
    differing = [name for name in now if not same_value(before.get(name), now[name])]
    if other := [name for name in differing if name not in _MAY_DIFFER and not _is_same_length(name, before, recipe)]:
        listed = ", ".join(f"{name} ({before.get(name)!r} there, {now[name]!r} here)" for name in other)
        remedy = f"Give the same ({as_options({name: before.get(name) for name in other})})"
        if now["paper"] and not before.get("paper"):
            remedy = "Leave --paper out, or reuse a run that was made with it"
        raise RecipeError(
            f"reuse: {source.path} was made with different values of {listed}; only "
            f"{', '.join(sorted(_OF_THE_STUDENT))} "
            f"may differ. {remedy}, or leave --reuse out to train all stages"
        )
    pairs = read_partition(source.partition)
    taught = {row.part for row in pairs if row.split not in ("val", "test")}
    names = [ORIGIN, *(teacher_stage(part) for part in recipe.partition.names if part in taught)]
    if missing := [name for name in names if not is_trained(source.stage(name), recipe.steps_of(name))]:
        raise RecipeError(
            f"reuse: in {source.path}, {', '.join(missing)} has not been trained to its end; finish that run first: "
            f"`bitemporal distill --config {as_typed(source.recipe)}`"
        )
    same_control = not {*differing} & (_OF_THE_STUDENT - _OF_THE_DISTILLATION)
    has_control = is_trained(source.stage(CONTROL), recipe.steps_of(CONTROL))
    return [*names, CONTROL] if same_control and has_control else names


def _is_same_length(name: str, before: dict[str, Any], recipe: DistillRecipe) -> bool:
    """Whether a number of steps is the same, once stated and once by default."""
    half = max(1, recipe.max_steps // 2)
    return name == "teacher_steps" and (before.get(name) or half) == recipe.steps_of(name)


def _copy_stage(source: StageFolder, target: StageFolder) -> dict[str, str]:
    """Copy a stage's bundle and its table; the digests of the bundle's files."""
    check_bundle(source.bundle)
    digests = {name: _digest(source.bundle / name) for name in _BUNDLE_FILES}
    if target.begun and any(_digest(target.bundle / name) != digest for name, digest in digests.items()):
        raise OutputError(
            f"{target.path}: holds a different stage from {source.path}; "
            f"give a new folder, {as_option('out', str(free_name(target.path.parent)))}"
        )
    with replacing_folder(target.bundle) as temporary:
        for name in _BUNDLE_FILES:
            shutil.copyfile(source.bundle / name, temporary / name)
            if _digest(temporary / name) != digests[name]:
                raise OutputError(
                    f"{target.bundle / name}: the copy differs from {source.bundle / name}; check the disk, and "
                    "start the run again"
                )
    if source.metrics.is_file():
        _copy_file(source.metrics, target.metrics)
    return digests


def _copy_file(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def _digest(path: Path) -> str:
    """SHA-256 of a file; the empty string where there is none."""
    return sha256(path) if path.is_file() else ""
