"""``bitemporal train``."""

from bitemporal.cli.outcome import Outcome
from bitemporal.run.recipe import TrainRecipe


def train(*, recipe: TrainRecipe, overwrite: bool = False) -> Outcome:
    """Train one network on all training pairs.

    A run that was killed resumes from its last validation when it is started again with the same options, and ends
    with the same weights as an uninterrupted run. OUT/origin/bundle holds the weights with the best score on the
    validation pairs.

    Args:
        recipe: What is trained, on which pairs, and how.
        overwrite: Also replace files that are not an earlier state of this run; never recipe.yaml or a file that is
            read.
    """
    from bitemporal.run import stages  # here, as in every command: options are explained without torch
    from bitemporal.run.processes import is_first_process

    bundle = stages.train(recipe.of_command(), overwrite=overwrite)
    if not is_first_process():
        return Outcome(None)
    print(bundle)
    return Outcome({"bundle": bundle})
