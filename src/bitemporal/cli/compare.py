"""``bitemporal compare``."""

from pathlib import Path

from rich.console import Console

from bitemporal import evaluation
from bitemporal.errors import RecipeError
from bitemporal.files import write_json


def compare(results: list[str], /, *, baseline: str | None = None, output: str | None = None) -> None:
    """Compare detectors that were evaluated under one protocol: scores and differences, with 95 % intervals.

    Results of one name and different seeds are replicates of one detector. Intervals are bootstrapped over the pairs,
    and widened by the spread of the seeds where there are several; differences are taken on the same pairs, and seed
    by seed where both have the same ones. Results of different protocols are refused.

    Args:
        results: Files that `bitemporal evaluate -o` wrote.
        baseline: Name that the others are compared with; that of the first file by default.
        output: JSON file to write everything to.
    """
    if len(results) < 2:
        raise RecipeError(f"results: found {len(results)}, expected two files at least")
    if output is not None and Path(output).is_dir():
        raise RecipeError(f"output: found the folder {output}, expected the name of a JSON file")
    if output is not None and Path(output).resolve() in {Path(path).resolve() for path in results}:
        raise RecipeError(f"output: found {output}, one of the results that are compared; expected a new file")
    found = evaluation.compare([evaluation.read_result(path) for path in results], baseline)
    console = Console(highlight=False, markup=False)
    for table in evaluation.comparison_tables(found):
        console.print(table)
        console.print()
    if output is not None:
        write_json(output, found.to_json())
        console.print(f"written to {output}", soft_wrap=True)
