"""``bitemporal distill``: the whole road to a distilled student and its verdict."""

from bitemporal.run.recipe import DistillRecipe
from bitemporal.run.stages import DistillationRun


def distill(*, recipe: DistillRecipe) -> None:
    """Train origin, teachers, control and student, and compare them with Origin-Partition.

    Finished stages are skipped, a killed one goes on from its last validation. The run ends with a table (also
    OUT/metrics.json) of origin, O-P, control and student on the test split, or on val where there is no test split.

    Args:
        recipe: What to train, on what, how.
    """
    DistillationRun(recipe)()
