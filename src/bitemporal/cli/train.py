"""``bitemporal train``."""

from bitemporal.run import stages
from bitemporal.run.processes import is_first_process
from bitemporal.run.recipe import TrainRecipe


def train(*, recipe: TrainRecipe) -> None:
    """Train one network on all training pairs.

    A run that was killed resumes from its last validation when it is started again with the same options, and ends
    with the same weights as an uninterrupted run. OUT/origin/bundle holds the weights with the best score on the
    validation pairs.

    Args:
        recipe: What is trained, on which pairs, and how.
    """
    bundle = stages.train(recipe)
    if is_first_process():
        print(bundle)
