"""The last stage of a run: what has been trained is evaluated, compared and shown."""

from collections.abc import Mapping
from typing import Any

from bitemporal import __version__
from bitemporal.errors import RecipeError
from bitemporal.evaluation import (
    CONVENTIONS,
    Evaluation,
    Result,
    compare,
    draw_masks,
    evaluate,
    forward_passes,
    spread_by_car,
    verdict_sentence,
)
from bitemporal.inference import load
from bitemporal.inference.bundle import read_description, save_origin_partition
from bitemporal.inference.digests import weights_digest
from bitemporal.metrics import MAIN_METRICS
from bitemporal.outputs import write_json
from bitemporal.run.data import VAL, RunData
from bitemporal.run.folder import CONTROL, DETECTORS, O_P, ORIGIN, STUDENT, RunFolder, StageFolder, teacher_stage
from bitemporal.run.recipe import DistillRecipe
from bitemporal.run.scores import WEIGHTS_DIGEST
from bitemporal.tables import make_table, per_cent, print_table

_PAIRS_SHOWN = 6


def reach_verdict(
    recipe: DistillRecipe, run: RunFolder, data: RunData, overwrite: bool = False
) -> dict[str, Evaluation]:
    """Evaluate what has been trained on test, or on val where no labelled test split exists; write and print it.

    Args:
        recipe: Recipe of the run.
        run: Folder of the run.
        data: Pairs of the run.
        overwrite: Also replace files that are not an earlier output of a verdict.

    Returns:
        Evaluations by detector, as far as they have been trained.

    Raises:
        RecipeError: When nothing has been trained.
    """
    teachers = {part: run.teacher(part) for part in data.taught_parts}
    if run.stage(ORIGIN).finished and teachers and all(teacher.finished for teacher in teachers.values()):
        bundles = {part: teacher.bundle for part, teacher in teachers.items()}
        place, origin = run.stage(O_P).bundle, run.stage(ORIGIN).bundle
        save_origin_partition(place, origin, bundles, data.partition, overwrite=overwrite)
    trained = [name for name in DETECTORS if run.stage(name).finished]
    if not trained:
        raise RecipeError(f"stages: nothing has been trained in {run.path}; run origin first")
    results: dict[str, Result] = {}
    for name in trained:  # one after the other: large networks do not fit into memory all at once
        for split in dict.fromkeys((VAL, data.scored_split)):  # on val too, where thresholds may be chosen
            scores = evaluate(load(run.stage(name).bundle), data.folder, data.pairs[split], data.partition, split=split)
            digest = weights_digest(read_description(run.stage(name).bundle))
            results[name] = scores.named(name, _seed(run, name, recipe), model=recipe.model, **{WEIGHTS_DIGEST: digest})
            results[name].write(run.scores(split, name), overwrite)
    shown = {name: load(run.stage(name).bundle) for name in trained if name in (ORIGIN, STUDENT)}
    pairs = spread_by_car(data.folder, data.pairs[data.scored_split], _PAIRS_SHOWN)
    draw_masks(run.overview, shown, data.folder, pairs, overwrite=overwrite)
    comparison = compare(list(results.values()), CONTROL if CONTROL in results else None)
    evaluations = {name: result.evaluation for name, result in results.items()}
    content = {
        "protocol": {
            "split": data.scored_split,
            "pairs": len(data.pairs[data.scored_split]),
            "checkpoint_selection": _selection(run, data),
            "selection_pairs_are_test_pairs": data.scored_split == VAL,
            "partition": data.partition.describe(),
            "conventions": CONVENTIONS,
            "seed": recipe.seed,
            "bitemporal": __version__,
        },
        "verdict": verdict_sentence(comparison),
        "results": {name: evaluation.summary() for name, evaluation in evaluations.items()},
        "comparison": comparison.to_json(),
    }
    write_json(run.metrics, content)
    header, *rows = verdict_rows(evaluations, data)
    caption = f"per cent on {data.scored_split}; parts: {data.partition.describe()}"
    if data.scored_split == VAL:
        caption += ". The same pairs chose the checkpoints: these are not test scores"
    print_table(make_table(header, rows, caption=caption))
    print(content["verdict"])
    return evaluations


def _metadata(folder: StageFolder) -> dict[str, Any]:
    return dict(read_description(folder.bundle).get("metadata") or {}) if folder.finished else {}


def _seed(run: RunFolder, detector: str, recipe: DistillRecipe) -> int:
    """The seed that a detector was trained with, which is another run's where it was reused; of O-P, the origin's."""
    return int(_metadata(run.stage(ORIGIN if detector == O_P else detector)).get("seed", recipe.seed))


def _selection(run: RunFolder, data: RunData) -> str:
    """What has chosen the checkpoints of the run's stages."""
    stages = (ORIGIN, *map(teacher_stage, data.partition.names), CONTROL, STUDENT)
    chosen = {name: _metadata(run.stage(name)).get("selected_by") for name in stages}
    by_rule: dict[str, list[str]] = {}
    for name, rule in chosen.items():
        if rule is not None:
            by_rule.setdefault(rule, []).append(name)
    if len(by_rule) == 1:
        return next(iter(by_rule))
    return "; ".join(f"{', '.join(names)}: {rule}" for rule, names in by_rule.items())


def verdict_rows(evaluations: Mapping[str, Evaluation], data: RunData) -> list[list[str]]:
    """Rows of the closing table, its header first: one metric per row, one detector per column, in per cent."""
    summaries = {name: evaluation.summary() for name, evaluation in evaluations.items()}
    rows: dict[str, list[float]] = {}
    for metric in MAIN_METRICS:
        rows[f"{metric}, dataset"] = [summary["dataset"][metric] for summary in summaries.values()]
    rows["miou, image_mean"] = [summary["image_mean"]["miou"] for summary in summaries.values()]
    for part in data.partition.names:
        of_part = [summary["by_part"][part]["dataset"] for summary in summaries.values()]
        for metric in ("miou", "iou_changed"):
            rows[f"{metric}, dataset, {part}"] = [scores[metric] for scores in of_part]
    cells = [[name, *map(per_cent, values)] for name, values in rows.items()]
    passes = [forward_passes(evaluation, data.taught_parts) for evaluation in evaluations.values()]
    return [["metric, averaging", *evaluations], *cells, ["forward passes per pair", *passes]]
