"""Writes the report of a run."""

import math
import os
import warnings
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from bitemporal.errors import BitemporalError, DataError
from bitemporal.evaluation import hash_pairs
from bitemporal.inference import load
from bitemporal.outputs import Kind, Output, check_outputs, replacing
from bitemporal.pairs import Pair, PairFolder, resolve_decoding
from bitemporal.report.gallery import Card, choose, draw
from bitemporal.report.reading import FinishedRun, read_run, reads_of_run
from bitemporal.report.sections import sections
from bitemporal.run.folder import CONTROL, STUDENT
from bitemporal.run.recipe import DistillRecipe
from bitemporal.tables import per_cent
from bitemporal.texts import harmless

_TITLE = "bitemporal report</title>"
_HEAD = 2000
"""Characters within which a report has its title."""


def write_report(
    run: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    imagery: bool = True,
    overwrite: bool = False,
) -> Path:
    """Write the report of a run.

    Args:
        run: Folder of a run of ``bitemporal distill`` with its verdict, or of ``bitemporal train``.
        output: HTML file; ``report.html`` in the run folder by default.
        data: Folder of the pairs, if it is no longer where the recipe says.
        imagery: Show before and after; not for data whose terms forbid passing imagery on.
        overwrite: Also replace a file that is not an earlier report.

    Returns:
        The file. If pairs cannot be shown, or scores are of an earlier state of the run, the file and a warning say so.

    Raises:
        DataError: When the run has no verdict yet, or a file cannot be read.
        RecipeError: When the recipe cannot be read, or names no network.
        OutputError: When the output cannot be written, does not end in ``.html``, or would replace another file.
    """
    finished = read_run(run)
    target = Path(output) if output is not None else finished.folder.report
    check_outputs([Output("output", target, _REPORT)], reads_of_run(finished, data), overwrite)
    cards, missing = _gallery(finished, data, imagery) if finished.results else ({}, "")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["per_cent"] = per_cent
    environment.tests["finite"] = lambda value: math.isfinite(value)
    template = resources.files("bitemporal.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    text = environment.from_string(template).render(sections(finished), gallery=cards, gallery_missing=missing)
    with replacing(target) as temporary:
        temporary.write_text(harmless(text), encoding="utf-8", errors="replace")  # file names need not be valid text
    if finished.earlier:
        warnings.warn(finished.earlier, UserWarning, stacklevel=2)
    if missing:
        reason = f"{target}: shows no pictures: {missing}".encode(errors="backslashreplace").decode()
        warnings.warn(reason, UserWarning, stacklevel=2)
    return target


def _is_report(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as stream:
        return _TITLE in stream.read(_HEAD)


_REPORT = Kind("a report", _is_report, (".html",))


def _gallery(run: FinishedRun, data: str | os.PathLike[str] | None, imagery: bool) -> tuple[dict[str, list[Card]], str]:
    """Cards by group, or why there are none."""
    shown = [name for name in (CONTROL, STUDENT) if name in run.results] or list(run.results)[:1]
    evaluations = {name: run.results[name].evaluation for name in shown}
    try:
        recipe = DistillRecipe.from_yaml(run.folder.recipe)
        folder = resolve_decoding(recipe.pair_folder(data or recipe.data))
        pairs = _scored_pairs(run, folder)
        detectors = {name: load(run.folder.stage(name).bundle) for name in shown}
        return {
            group: draw(stems, detectors, evaluations, folder, pairs, imagery)
            for group, stems in choose(evaluations).items()
        }, ""
    except BitemporalError as error:
        return {}, str(error)


def _scored_pairs(run: FinishedRun, folder: PairFolder) -> list[Pair]:
    """The pairs that the run was scored on.

    Raises:
        DataError: When the folder does not hold them, with the labels that were scored.
    """
    split = _split_on_disk(run.split, folder)
    known = {pair.stem: pair for pair in folder.pairs(split)}
    protocol, stems = run.any_result.protocol, run.any_result.evaluation.stems
    expected = "expected the labelled pairs that the run was scored on; name their folder with --data"
    if missing := [stem for stem in stems if stem not in known]:
        raise DataError(f"{folder.root}: found no pair {missing[0]!r} among {len(known)} of split {split}, {expected}")
    pairs = [known[stem] for stem in stems]
    if unlabelled := [pair for pair in pairs if pair.label is None]:
        raise DataError(f"{unlabelled[0].before}: has no label, {expected}")
    if hash_pairs(folder, pairs) != protocol.pairs_hash:
        raise DataError(
            f"{folder.root}: the labels of split {split} are not those that the run was scored on, although "
            f"their pairs have the same names; {expected}"
        )
    return pairs


def _split_on_disk(split: str, folder: PairFolder) -> str:
    """The folder of a run's split: pairs set aside for val are still among the others."""
    if split in folder.splits:
        return split
    if split == "val" and "train" in folder.splits:
        return "train"
    if len(folder.splits) > 1:
        raise DataError(
            f"{folder.root}: found the splits {', '.join(folder.splits)}, expected {split}, which was scored; name the "
            "folder that has it with --data"
        )
    return folder.splits[0]
