"""``bitemporal reproduce``."""

from bitemporal.errors import RecipeError
from bitemporal.run import reproduction
from bitemporal.run.recipe import Precision
from bitemporal.tables import print_table


def reproduce(
    dataset: str,
    /,
    *,
    model: str,
    data: str | None = None,
    out: str | None = None,
    parts: int = 3,
    devices: int = 1,
    precision: Precision = "fp32",
    workers: int = 4,
    seed: int = 0,
    estimate: bool = False,
    dry_run: bool = False,
) -> None:
    """Repeat the paper's experiment with one network, at full length, beside its published numbers.

    First a few steps are timed, and what the whole run takes is said. Killed and started again with the same options,
    the run goes on from its last validation.

    Args:
        dataset: jl1-cd or sysu-cd.
        model: Network of the paper's tables other than BAN-ViT-B-IN21K, as `bitemporal models` names it.
        data: Folder of the pairs; data/DATASET by default.
        out: Run folder; runs/DATASET-MODEL by default.
        parts: Number of CAR parts: 3, or 2.
        devices: Number of GPUs.
        precision: Arithmetic of the forward and backward pass.
        workers: Processes that load pairs, a device.
        seed: Seed of weights, sampling, augmentation and dropout.
        estimate: Say what it takes, and train nothing.
        dry_run: Every stage for two steps on a few tiny synthetic pairs, in a temporary folder; the numbers mean
            nothing.
    """
    if estimate and dry_run:
        raise RecipeError("estimate: found beside dry_run, expected one of the two; drop one")
    recipe = reproduction.paper_recipe(dataset, model, data, out, parts, devices, precision, workers, seed)
    if dry_run:
        found = reproduction.dry_run(recipe)
        print("after two steps on a few tiny synthetic pairs; the measured numbers mean nothing")
        print_table(reproduction.paper_table(found, recipe, dataset))
        return
    if not estimate:
        reproduction.check_data(recipe, dataset)
    print("timing a few steps at full size", flush=True)
    cost = reproduction.estimate_cost(recipe, dataset)
    print(cost)
    print_table(reproduction.cost_table(cost))
    if not estimate:
        print_table(reproduction.paper_table(reproduction.reproduce(recipe, dataset), recipe, dataset))
