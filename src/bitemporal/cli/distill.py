"""``bitemporal distill``."""

from bitemporal.run.recipe import DistillRecipe
from bitemporal.run.stages import DistillationRun


def distill(*, recipe: DistillRecipe) -> None:
    """Train origin, teachers, control and student, and compare them with Origin-Partition.

    A run that was killed resumes when it is started again with the same options: finished stages are skipped, and the
    interrupted stage continues from its last validation. The run ends with a table of the scores of origin, O-P,
    control and student, which OUT/metrics.json holds too. They are scored on the test split, or on val where there is
    no test split.

    Args:
        recipe: What is trained, on which pairs, and how.
    """
    DistillationRun(recipe)()
