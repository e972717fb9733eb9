"""``bitemporal compare``."""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bitemporal import evaluation
from bitemporal.cli.outcome import Outcome
from bitemporal.errors import DataError, OptionError
from bitemporal.evaluation.comparison import COMPARISON
from bitemporal.evaluation.results import counts_file
from bitemporal.outputs import Output, check_outputs, write_json
from bitemporal.run.folder import RunFolder
from bitemporal.run.scores import check_run, earlier_states, how_to_score, read_scores
from bitemporal.tables import print_table
from bitemporal.texts import harmless


def compare(
    results: list[str], /, *, baseline: str | None = None, output: str | None = None, overwrite: bool = False
) -> Outcome:
    """Compare detectors that were evaluated under one protocol: scores and differences, with 95 % intervals.

    Results of one name and different seeds are replicates of one detector. Intervals are bootstrapped over the pairs,
    and widened by the spread of the seeds where there are several; differences are taken on the same pairs, and seed
    by seed where both have the same ones. Results of different protocols are refused.

    A run folder stands for the results of its detectors, on test if all runs have scores there, else on val. They are
    named after run and detector, as in tinycd/student.

    Args:
        results: Files that `bitemporal evaluate -o` wrote, or run folders.
        baseline: Name of the detector that the others are compared with; by default that of the first result.
        output: JSON file to write everything to. An earlier comparison is replaced; any other file is refused.
        overwrite: Also replace a file that is not an earlier comparison; never a result that is read.
    """
    found = _read(results)
    earlier = list(_earlier_states(results, found))
    for told in earlier:
        print(f"warning: {harmless(told)}", file=sys.stderr)
    if len(found) < 2:
        raise OptionError(f"results: found {len(found)}, expected at least two: files, or run folders")
    if output is not None:
        files = [result.file for result in found if result.file is not None]
        read = [*files, *map(counts_file, files)]
        check_outputs([Output("output", Path(output), COMPARISON)], read, overwrite)
    comparison = evaluation.compare(found, baseline)
    for table in evaluation.comparison_tables(comparison):
        print_table(table)
        print()
    if output is not None:
        write_json(output, comparison.to_json() | {"earlier_states": earlier})
        print(f"written to {output}")
    return Outcome(comparison.to_json() | {"earlier_states": earlier})


def _earlier_states(places: list[str], results: list[evaluation.Result]) -> Iterator[str]:
    """What is said of results in runs whose networks were trained further since."""
    of_runs: dict[Path, dict[str, evaluation.Result]] = {}
    for result in results:
        run = None if result.file is None else RunFolder.of_scores(result.file)
        if run is not None and result.file is not None:
            of_runs.setdefault(run.path, {})[result.file.stem] = result
    given = {Path(place).absolute(): RunFolder(place) for place in places}  # named as they were
    for path, own in of_runs.items():
        yield from filter(None, [earlier_states(given.get(path, RunFolder(path)), own)])


def _read(places: list[str]) -> list[evaluation.Result]:
    """The results in files and run folders, those of runs named after run and detector."""
    runs = {place: RunFolder(place) for place in places if Path(place).is_dir()}
    scores = {place: _scores_of(run) for place, run in runs.items()}
    splits = [split for split in ("test", "val") if all(split in own for own in scores.values())]
    if runs and not splits:
        listed = ", ".join(f"{place} on {' and '.join(own)}" for place, own in scores.items())
        raise DataError(f"results: the runs have no split in common ({listed}); compare runs of the same data set")
    short = Counter(run.path.resolve().name for run in runs.values())
    results = []
    for place in places:
        if place in runs:
            name = runs[place].path.resolve().name
            name = name if short[name] == 1 else str(runs[place].path)
            own = scores[place][splits[0]]
            results += [result.named(f"{name}/{detector}", result.seed) for detector, result in own.items()]
        else:
            results.append(evaluation.read_result(place))
    return results


def _scores_of(run: RunFolder) -> dict[str, dict[str, evaluation.Result]]:
    check_run(run)
    scores = read_scores(run)
    if not scores:
        raise DataError(f"{run.path}: has no scores; {how_to_score(run)}")
    return scores
