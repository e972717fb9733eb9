"""How many steps the networks in a run folder were trained for, and whether the recipe fits them."""

from bitemporal.errors import BundleError, RecipeError
from bitemporal.inference.bundle import read_description
from bitemporal.remedies import as_option, free_name
from bitemporal.run.folder import CONTROL, ORIGIN, RunFolder, StageFolder
from bitemporal.run.recipe import STAGES, DistillRecipe, TrainRecipe
from bitemporal.run.same_recipe import STEPS_OF, recipe_then, steps_then


def trained_steps(folder: StageFolder, otherwise: int) -> int:
    """Steps that the network of a finished stage was trained for, if its bundle says so."""
    metadata = read_description(folder.bundle).get("metadata")
    steps = metadata.get("steps") if isinstance(metadata, dict) else None
    return steps if isinstance(steps, int) else otherwise


def is_trained(folder: StageFolder, steps: int) -> bool:
    """Whether a stage has its bundle, of a network that was trained for as many steps."""
    return folder.finished and trained_steps(folder, steps) >= steps


def check_lengths(recipe: TrainRecipe, folder: RunFolder) -> None:
    """Refuse to extend a stage that cannot be trained further, and a verdict on stages that are still to be extended.

    Args:
        recipe: The recipe now, which may have more steps than the stages.
        folder: The run folder; nothing in it is changed.

    Raises:
        BundleError: When a stage that has fewer steps than the recipe lacks its checkpoint.
        RecipeError: When the verdict is asked for, and such a stage is not trained before it.
    """
    names = folder.finished_stages() if isinstance(recipe, DistillRecipe) else [ORIGIN]
    short = [name for name in names if not _is_long_enough(name, recipe, folder)]
    for name in short:
        if not folder.stage(name).checkpoint.is_file():
            raise BundleError(_without_checkpoint(name, recipe, folder))
    if not isinstance(recipe, DistillRecipe) or "verdict" not in recipe.stage_names:
        return
    if waiting := [name for name in short if _word(name) not in recipe.stage_names]:
        chosen = recipe.stage_names | set(map(_word, waiting))
        stages = ",".join(name for name in STAGES if name in chosen)
        listed = " and ".join(_short_of(name, recipe, folder) for name in waiting)
        raise RecipeError(
            f"{folder.path}: {listed}, so the verdict would not match the steps of the recipe. Train further: "
            f"--stages {stages}{_as_then(waiting, recipe, folder, ', or resume the run with ')}"
        )


def _is_long_enough(name: str, recipe: TrainRecipe, folder: RunFolder) -> bool:
    stage = folder.stage(name)
    return not stage.finished or is_trained(stage, recipe.steps_of(name))


def _word(stage: str) -> str:
    """What ``stages`` of a recipe calls a stage."""
    return "teachers" if stage.startswith("teacher-") else stage


def _short_of(name: str, recipe: TrainRecipe, folder: RunFolder) -> str:
    steps = recipe.steps_of(name)
    return f"{name} has {trained_steps(folder.stage(name), steps)} of {steps} steps"


def _without_checkpoint(name: str, recipe: TrainRecipe, folder: RunFolder) -> str:
    """What to say of a stage that cannot be trained further, with the ways out."""
    reused = folder.reused.is_file()
    ways = [] if reused else ["restore the file from a backup"]
    ways += [_as_then([name], recipe, folder, "resume the run with ")]
    # only the control is trained again by a run that reuses the others
    new_run = as_option("out", str(free_name(folder.path)))
    ways += [f"start a new run with {new_run}{' and without --reuse' if reused and name != CONTROL else ''}"]
    listed = ", or ".join(filter(None, ways))
    return (
        f"{folder.stage(name).checkpoint}: not found{' (stages that were reused have none)' if reused else ''}; "
        f"{_short_of(name, recipe, folder)}, and cannot be trained further without it. "
        f"{listed[0].upper()}{listed[1:]}"
    )


def _as_then(names: list[str], recipe: TrainRecipe, folder: RunFolder, words: str) -> str:
    """Words, and the options that ask for the steps that the stages have; nothing where the run was to have more."""
    options: dict[str, int] = {}
    for name in names:
        field = STEPS_OF.get(_word(name), "max_steps")
        steps = trained_steps(folder.stage(name), recipe.steps_of(name))
        if not folder.recipe.is_file() or steps_then(recipe_then(folder), field) != steps:
            return ""
        options[field] = steps
    return words + " ".join(as_option(field, steps) for field, steps in options.items())
