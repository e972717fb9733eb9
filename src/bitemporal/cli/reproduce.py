"""``bitemporal reproduce``."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from bitemporal.cli.outcome import Outcome
from bitemporal.errors import OptionError
from bitemporal.run.folder import RunFolder
from bitemporal.run.recipe import RunOptions
from bitemporal.tables import print_table

if TYPE_CHECKING:
    from bitemporal.evaluation import Evaluation


def reproduce(
    dataset: str,
    /,
    *,
    model: str,
    run: RunOptions,
    estimate: bool = False,
    dry_run: bool = False,
    overwrite: bool = False,
) -> Outcome:
    """Repeat the paper's experiment with one network, at full length, and compare with its published scores.

    A few steps are timed first, to estimate how long the whole run takes. A run that was killed resumes from its last
    validation when it is started again with the same options.

    Args:
        dataset: jl1-cd or sysu-cd.
        model: Network from the paper's tables, other than BAN-ViT-B-IN21K, as `bitemporal models` names it.
        run: Where the run reads and writes, and how.
        estimate: Only estimate how long the run takes; train nothing.
        dry_run: Run every stage for two steps on a few tiny synthetic pairs, in a temporary folder. The scores mean
            nothing.
        overwrite: Also replace files that are not an earlier state of this run; never recipe.yaml or a file that is
            read.
    """
    from bitemporal.run import reproduction
    from bitemporal.run.outputs import check_run_outputs
    from bitemporal.run.stages import distill

    if estimate and dry_run:
        raise OptionError("estimate: found together with dry_run, expected one of the two; drop one")
    recipe = reproduction.paper_recipe(dataset, model, run)
    if dry_run:
        measured = reproduction.dry_run(recipe)
        print("after two steps on a few tiny synthetic pairs; the measured scores mean nothing")
        print_table(reproduction.paper_table(measured, recipe, dataset))
        return Outcome({"scores": _as_json(measured)})
    if not estimate:
        reproduction.check_data(recipe, dataset)
        check_run_outputs(recipe, RunFolder(recipe.out), overwrite)
    print("timing a few steps at full size", flush=True)
    cost = reproduction.estimate_cost(recipe, dataset)
    print(cost)
    print_table(reproduction.cost_table(cost))
    scores = None if estimate else distill(recipe, overwrite=overwrite)  # under torchrun, one process has them
    if scores:
        print_table(reproduction.paper_table(scores, recipe, dataset))
    return Outcome({"cost": asdict(cost), "scores": _as_json(scores or {})})


def _as_json(scores: "Mapping[str, Evaluation]") -> dict[str, object]:
    return {name: evaluation.summary() for name, evaluation in scores.items()}
