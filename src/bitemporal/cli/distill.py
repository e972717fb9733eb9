"""``bitemporal distill``."""

from bitemporal.cli.outcome import Outcome
from bitemporal.errors import DataError
from bitemporal.reading import read_json, reading
from bitemporal.run.folder import RunFolder
from bitemporal.run.recipe import DistillRecipe


def distill(*, recipe: DistillRecipe, overwrite: bool = False) -> Outcome:
    """Train origin, teachers, control and student, and compare them with Origin-Partition.

    A run that was killed resumes when it is started again with the same options: finished stages are skipped, and the
    interrupted stage continues from its last validation. The run ends with a table of the scores of origin, O-P,
    control and student, which OUT/metrics.json holds too. They are scored on the test split, or on val where there is
    no test split.

    Args:
        recipe: What is trained, on which pairs, and how.
        overwrite: Also replace files that are not an earlier state of this run; never recipe.yaml or a file that is
            read.
    """
    from bitemporal.run import stages
    from bitemporal.run.processes import is_first_process

    stages.distill(recipe.of_command(), overwrite=overwrite)
    run = RunFolder(recipe.out)
    if not is_first_process():
        return Outcome(None)
    scores = None
    if run.metrics.exists():
        with reading(run.metrics, DataError, "expected the scores of the run: remove it and start the same again"):
            scores = read_json(run.metrics)
    return Outcome({"run": run.path, "metrics": scores})
