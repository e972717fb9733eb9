"""``bitemporal train``: one network, one stage."""

from bitemporal.run import stages
from bitemporal.run.recipe import TrainRecipe


def train(*, recipe: TrainRecipe) -> None:
    """Train one network on all training pairs.

    Killed and started again with the same options, the run goes on from its last validation and ends with the same
    weights as an uninterrupted one. The best weights on the validation pairs become OUT/origin/bundle.

    Args:
        recipe: How.
    """
    print(stages.train(recipe))
