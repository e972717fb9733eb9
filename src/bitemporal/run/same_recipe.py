"""Whether a run may be resumed: with the recipe that it was started with, or with more steps."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bitemporal.errors import RecipeError
from bitemporal.files import options_from_folder
from bitemporal.remedies import as_option, as_options, free_name
from bitemporal.run.folder import CONTROL, ORIGIN, STUDENT, RunFolder
from bitemporal.run.recipe import DistillRecipe, TrainRecipe, read_yaml

MAY_CHANGE = {"out", "data", "stages", "devices", "workers"}
"""Fields of a recipe that may change when a run is resumed."""

STEPS_OF = {ORIGIN: "max_steps", "teachers": "teacher_steps", STUDENT: "student_steps", CONTROL: "student_steps"}
"""Fields that say how long stages are, by the stages as ``stages`` of a recipe calls them."""


def recipe_then(folder: RunFolder) -> dict[str, Any]:
    """The fields of the recipe in a run folder, with those that recipes of an earlier version lack.

    Raises:
        RecipeError: When the file cannot be read.
    """
    written = read_yaml(folder.recipe)
    if "validation_seed" not in written and folder.splits.is_file():
        written["validation_seed"] = written.get("seed")  # which chose the validation pairs then
    if "lambda" in written:  # of `distill`
        written.setdefault("paper", False)
    if "model_options" in written:  # whose paths started at the current folder then
        written["model_options"] = options_from_folder(written["model_options"], Path())
    return {"validation_seed": 0, **written}


def same_value(one: object, other: object) -> bool:
    """Whether a field has the same value in two recipes; NaN, which ``label_ignore`` may hold, counts as equal."""
    return one == other or repr(one) == repr(other)


def check_same_run(recipe: TrainRecipe, folder: RunFolder) -> None:
    """Refuse to resume a run that was started with another recipe, unless it only has more steps now.

    Args:
        recipe: The recipe now.
        folder: The run folder; nothing is checked where it holds no recipe, or no checkpoint to resume from.

    Raises:
        RecipeError: When fields differ; the text lists them. When a stage would get fewer steps, or more after others
            have learned from it.
    """
    if not folder.recipe.exists() or not folder.has_checkpoint():
        return
    before, now = recipe_then(folder), recipe.to_dict()
    differing = [
        name
        for name in dict.fromkeys([*now, *before])  # `train` in the folder of a `distill` run lacks fields
        if name not in {*MAY_CHANGE, *STEPS_OF.values()} and not same_value(before.get(name), now.get(name))
    ]
    if differing:
        listed = ", ".join(f"{name} ({before.get(name)!r} then, {now.get(name)!r} now)" for name in differing)
        same = as_options({name: before.get(name) for name in differing})
        raise RecipeError(
            f"{folder.recipe}: this run was started with a different recipe; {listed}. Resume it with the same "
            f"options ({same}), or start a new run with {_new_run(folder)}"
        )
    for stage, name in STEPS_OF.items():
        if name in now and stage != CONTROL:  # which is as long as the student
            _check_steps(name, stage, before, recipe, folder)


def _new_run(folder: RunFolder) -> str:
    return as_option("out", str(free_name(folder.path)))


def _check_steps(name: str, stage: str, before: Mapping[str, Any], recipe: TrainRecipe, folder: RunFolder) -> None:
    """Refuse fewer steps for a stage, and more where another stage has learned from it."""
    then, now = steps_then(before, name), recipe.steps_of(stage)
    if now < then:
        raise RecipeError(
            f"{folder.recipe}: {name}: this run was started with {then} steps, now there are {now}; a run can be "
            f"extended, not shortened. Resume it with {as_option(name, then)}, or start a new run with "
            f"{_new_run(folder)}"
        )
    if now > then and (learned := [other for other in _learners(stage, recipe, folder) if folder.stage(other).begun]):
        raise RecipeError(
            f"{folder.recipe}: {name}: {', '.join(learned)} learned from the result of {then} steps, which would not "
            f"match {now} steps. Resume the run with {as_option(name, then)}, or start a new run with "
            f"{_new_run(folder)}"
        )


def steps_then(before: Mapping[str, Any], name: str) -> int:
    """Steps that a recipe states, or that it has by default, by the name of the field."""
    steps, longest = before.get(name), before.get("max_steps")
    return int(steps) if isinstance(steps, int) else max(1, int(longest or 0) // 2)


def _learners(stage: str, recipe: TrainRecipe, folder: RunFolder) -> Iterable[str]:
    """Stages of a run that start from the network of a stage, or are taught by it."""
    if not isinstance(recipe, DistillRecipe) or stage == STUDENT:
        return ()
    if stage != ORIGIN:
        return (STUDENT,)
    teachers = sorted(path.name for path in folder.path.glob("teacher-*")) if recipe.teachers_start_from_origin else []
    return (*teachers, CONTROL, STUDENT)
