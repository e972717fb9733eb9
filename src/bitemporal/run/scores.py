"""Scores that a run folder holds: those of its verdict, or of an evaluation written there."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from bitemporal.errors import BundleError, DataError
from bitemporal.evaluation import Result, read_result
from bitemporal.files import not_there
from bitemporal.inference.digests import DESCRIPTION, weights_digest
from bitemporal.pairs import PairOptions
from bitemporal.pairs.partition import read_partition
from bitemporal.reading import read_json, reading
from bitemporal.remedies import as_option, as_typed
from bitemporal.run.folder import DETECTORS, ORIGIN, RunFolder
from bitemporal.run.networks import recorded_module
from bitemporal.run.recipe import STAGES, read_yaml

WEIGHTS_DIGEST = "weights_sha256"
"""Name, among what results say of their origin, of the digest of the weights that were scored."""

_SPLITS = ("test", "val")
"""Splits that a run is scored on, the one that its verdict is about first."""


def read_scores(run: RunFolder) -> dict[str, dict[str, Result]]:
    """Results of a run by split, test first, and then by detector; splits without any are left out.

    Raises:
        DataError: When a result is damaged.
    """
    found = {
        split: {name: read_result(file) for name in DETECTORS if (file := run.scores(split, name)).is_file()}
        for split in _SPLITS
    }
    return {split: results for split, results in found.items() if results}


def earlier_states(run: RunFolder, results: Mapping[str, Result]) -> str:
    """What is said of results that are of an earlier state of their networks; empty where all are of the present one.

    Args:
        run: The run.
        results: Results by detector. Those of earlier versions do not tell.
    """
    earlier = []
    for name, result in results.items():
        then, path = result.origin.get(WEIGHTS_DIGEST), run.stage(name).bundle / DESCRIPTION
        if then and path.is_file():
            with reading(path, BundleError, "expected the description of a bundle; train the stage again"):
                now = weights_digest(dict(read_json(path)))
            earlier += [name] if now and now != then else []
    if not earlier:
        return ""
    names = " and ".join(earlier)
    return (
        f"{run.path}: the scores of {names} are of an earlier state of the run, which has been trained further "
        "since then; "
        f"{how_to_score(run)}"
    )


def check_run(run: RunFolder) -> dict[str, Any]:
    """The fields of a run's recipe.

    Raises:
        DataError: When the folder holds no run.
        RecipeError: When the recipe cannot be read.
    """
    if not run.path.is_dir():
        raise DataError(f"{not_there(run.path, 'folder')}; expected the folder of a run")
    if not run.recipe.is_file():
        raise DataError(f"{run.path}: has no recipe.yaml; expected the folder of a run, as train and distill make it")
    return read_yaml(run.recipe)


def is_distillation(recipe: dict[str, Any]) -> bool:
    """Whether a recipe is one of ``bitemporal distill``, and not of ``bitemporal train``."""
    return "lambda" in recipe


def how_to_score(run: RunFolder) -> str:
    """The command that scores a run which has no scores yet, as the end of a sentence."""
    recipe = check_run(run)
    module = recorded_module(recipe.get("model"), run)
    imported = [as_option("import", module)] if module else []
    if is_distillation(recipe):
        begun = f"bitemporal distill --config {as_typed(run.recipe)} --out {as_typed(run.path)}"
        all_stages = [] if "verdict" in str(recipe.get("stages")) else [as_option("stages", STAGES)]
        command = " ".join([begun, *all_stages, *imported])
        return f"finish the run: `{command}` reaches its verdict"
    rows = read_partition(run.partition) if run.partition.is_file() else []
    labelled = {row.split for row in rows if not math.isnan(row.car)}
    split = next((split for split in _SPLITS if split in labelled), None)
    if split is None or (split == "val" and run.splits.is_file()):
        return "score it on other pairs, by evaluate; the run has none that took no part in training"
    stated = [
        as_option(field.name, recipe[field.name])
        for field in dataclasses.fields(PairOptions)
        if recipe.get(field.name) is not None
    ] + imported
    bundle, data, output = (
        as_typed(path) for path in (run.stage(ORIGIN).bundle, recipe["data"], run.scores(split, ORIGIN))
    )
    return f"score it: `bitemporal evaluate {' '.join([bundle, data, *stated])} --split {split} -o {output}`"
