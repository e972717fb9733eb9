"""``bitemporal compare``."""

from bitemporal import evaluation
from bitemporal.errors import OptionError
from bitemporal.files import check_output, json_keys, write_json
from bitemporal.tables import print_table


def compare(results: list[str], /, *, baseline: str | None = None, output: str | None = None) -> None:
    """Compare detectors that were evaluated under one protocol: scores and differences, with 95 % intervals.

    Results of one name and different seeds are replicates of one detector. Intervals are bootstrapped over the pairs,
    and widened by the spread of the seeds where there are several; differences are taken on the same pairs, and seed
    by seed where both have the same ones. Results of different protocols are refused.

    Args:
        results: Files that `bitemporal evaluate -o` wrote.
        baseline: Name of the detector that the others are compared with; by default that of the first file.
        output: JSON file to write everything to. An earlier comparison is replaced, another file refused.
    """
    if len(results) < 2:
        raise OptionError(f"results: found {len(results)}, expected at least two files")
    if output is not None:
        check_output(output, ".json", lambda path: {"baseline", "detectors"} <= json_keys(path), "comparison")
    comparison = evaluation.compare([evaluation.read_result(path) for path in results], baseline)
    for table in evaluation.comparison_tables(comparison):
        print_table(table)
        print()
    if output is not None:
        write_json(output, comparison.to_json())
        print(f"written to {output}")
