"""Several detectors compared on the same pairs, with intervals."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitemporal.errors import DataError, OptionError
from bitemporal.evaluation.bootstrap import Estimate, Replicates, Resampling, difference, estimate, significant
from bitemporal.evaluation.results import Result, check_comparable
from bitemporal.method.car import CarPartition
from bitemporal.metrics import AVERAGINGS, METRICS, Averaging
from bitemporal.outputs import Kind
from bitemporal.reading import json_keys
from bitemporal.remedies import as_option

COMPARISON = Kind("a comparison", lambda path: {"baseline", "detectors"} <= json_keys(path), (".json",))
"""The JSON file of a comparison."""


@dataclass(frozen=True)
class Comparison:
    """Detectors over the same pairs.

    Attributes:
        names: Names of the detectors, the baseline first.
        replicates: Confusion counts of each detector, for each of its seeds.
        scores: Scores by detector, then by metric and averaging.
        differences: Differences to the baseline, for all other detectors.
        by_part: Differences of dataset mIoU by CAR part.
        partition: The CAR parts, those of the first result.
        description: The conditions in one line.
    """

    names: tuple[str, ...]
    replicates: dict[str, Replicates]
    scores: dict[str, dict[tuple[str, Averaging], Estimate]]
    differences: dict[str, dict[tuple[str, Averaging], Estimate]]
    by_part: dict[str, dict[str, Estimate]]
    partition: CarPartition
    description: str

    def to_json(self) -> dict[str, Any]:
        """The comparison in JSON types."""

        def plain(values: dict[tuple[str, Averaging], Estimate]) -> dict[str, Any]:
            return {
                averaging: {metric: values[metric, averaging]._asdict() for metric in METRICS}
                for averaging in AVERAGINGS
            }

        return {
            "description": self.description,
            "baseline": self.names[0],
            "detectors": {
                name: {
                    "seeds": list(self.replicates[name].seeds),
                    **plain(self.scores[name]),
                    "difference": plain(self.differences[name]) if name in self.differences else None,
                    "difference_by_part": {part: value._asdict() for part, value in self.by_part[name].items()}
                    if name in self.by_part
                    else None,
                }
                for name in self.names
            },
        }


def compare(results: Sequence[Result], baseline: str | None = None) -> Comparison:
    """Compare detectors that were evaluated under one protocol.

    Args:
        results: Results of one name are seeds of one detector.
        baseline: Name of the detector that the others are compared with; the first one by default.

    Raises:
        DataError: When protocols differ, a seed occurs twice, or results of one name are of different networks.
        OptionError: When there is no result, or no detector of the baseline's name.
    """
    if not results:
        raise OptionError("results: none is given; expected one at least")
    check_comparable(results)
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[result.name].append(result)
    first = results[0].name if baseline is None else baseline
    if first not in groups:
        raise OptionError(f"baseline: found {first!r}, expected one of {', '.join(groups)}")
    names = (first, *(name for name in groups if name != first))
    replicates = {name: _replicates(name, groups[name], results[0]) for name in names}
    evaluation = results[0].evaluation
    resampling = Resampling.of(len(evaluation.stems))
    parts = np.array(evaluation.parts)
    base = replicates[first]
    return Comparison(
        names=names,
        replicates=replicates,
        scores={name: {key: estimate(own, *key, resampling) for key in _KEYS} for name, own in replicates.items()},
        differences={
            name: {key: difference(replicates[name], base, *key, resampling) for key in _KEYS} for name in names[1:]
        },
        by_part={
            name: {
                part: difference(replicates[name], base, "miou", "dataset", resampling, parts == part)
                for part in evaluation.partition.names
                if (parts == part).any()
            }
            for name in names[1:]
        },
        partition=evaluation.partition,
        description=_describe(results),
    )


_KEYS: tuple[tuple[str, Averaging], ...] = tuple((metric, averaging) for averaging in AVERAGINGS for metric in METRICS)


def _replicates(name: str, group: Sequence[Result], reference: Result) -> Replicates:
    ordered = sorted(group, key=lambda result: -1 if result.seed is None else result.seed)
    other = as_option("name", f"{name}-2")
    seeds = tuple(-1 if result.seed is None else result.seed for result in ordered)
    if len(set(seeds)) < len(seeds):
        raise DataError(
            f"{_files(ordered)}: found {len(seeds)} results named {name} with seeds {', '.join(map(_seed, seeds))}, "
            f"expected each seed once; give different detectors different names, as evaluate does with {other}"
        )
    if len(networks := sorted({str(r.origin["model"]) for r in group if "model" in r.origin})) > 1:
        raise DataError(
            f"{_files(ordered)}: found results of {' and '.join(networks)} under one name, {name}, expected seeds of "
            f"one detector; give them different names, as evaluate does with {other}"
        )
    for result in group:
        if set(result.evaluation.stems) != set(reference.evaluation.stems):
            raise DataError(f"{result}: was evaluated on different pairs from {reference}; evaluate both again")
    places = {stem: i for i, stem in enumerate(reference.evaluation.stems)}
    counts = []
    for result in ordered:
        order = np.argsort([places[stem] for stem in result.evaluation.stems])
        counts.append(result.evaluation.counts[order])
    return Replicates(np.stack(counts), seeds)


def _files(results: Sequence[Result]) -> str:
    return ", ".join(str(result.file or result.name) for result in results)


def _seed(seed: int) -> str:
    return "unknown" if seed < 0 else str(seed)


def _describe(results: Sequence[Result]) -> str:
    protocol = results[0].protocol
    data = " and ".join(dict.fromkeys(result.protocol.data for result in results))
    tiles = "whole images" if protocol.tile is None else f"tiles of {protocol.tile}, stride {protocol.stride}"
    views = protocol.augmentation or "none"
    return (
        f"{data}, {protocol.split}, {protocol.pairs} pairs, {tiles}, threshold {protocol.threshold:g}, "
        f"test-time augmentation {views}"
    )


def seed_count(comparison: Comparison, name: str) -> str:
    """How many seeds a detector of a comparison has, in words."""
    count = len(comparison.replicates[name].seeds)
    return f"{count} seed{'' if count == 1 else 's'}"


def verdict_sentence(comparison: Comparison, detector: str = "student") -> str:
    """What a comparison shows about a detector and the baseline, in a sentence.

    Args:
        comparison: If its baseline is the control, the sentence is about distillation.
        detector: Name of the detector.
    """
    baseline = comparison.names[0]
    if detector not in comparison.differences:
        return f"No verdict on distillation: no {detector} was compared with a control."
    difference = comparison.differences[detector]["miou", "dataset"]
    if not np.isfinite(difference.low):
        return f"No verdict: the difference of {detector} and {baseline} has no interval on these pairs."
    value, low, high = (f"{100 * number:+.2f}" for number in difference)
    measured = (
        f"{detector} minus {baseline} is {value} points of dataset mIoU, 95 % interval {low} to {high} "
        f"({comparison.description}; {seed_count(comparison, detector)})."
    )
    if baseline != "control":
        measured += " This says nothing about distillation: no control was trained as long without teachers."
    if not significant(difference):
        return f"No difference could be shown: {measured}"
    better = "better" if difference.value > 0 else "worse"
    if any(len(comparison.replicates[name].seeds) == 1 for name in (detector, baseline)):
        return f"On these pairs this {detector} is {better} than its {baseline}, but one seed may be chance: {measured}"
    if baseline != "control":
        return f"The {detector} is {better} than its {baseline}: {measured}"
    return f"Distillation {'helped' if difference.value > 0 else 'hurt'}: {measured}"
