"""The counts of every pair of an evaluation, and the scores that follow from them."""

import csv
import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitemporal.errors import DataError, MissingExtraError
from bitemporal.evaluation.bootstrap import Replicates, Resampling, estimate
from bitemporal.evaluation.counting import FATES, OBJECT_SIZES, SIZE_NAMES, TOLERANCE, ProbabilityCounts
from bitemporal.method.car import CarPartition
from bitemporal.metrics import AVERAGINGS, METRICS, Counts, image_metric, metrics
from bitemporal.outputs import replacing
from bitemporal.reading import open_table, reading
from bitemporal.tables import per_cent
from bitemporal.texts import as_cell, from_cell

if TYPE_CHECKING:
    import pandas as pd

CONVENTIONS = {
    "dataset": "one confusion matrix summed over all pairs; null if the metric's class occurs nowhere",
    "image_mean": "mean of the metric over all pairs; a ratio 0/0 of a pair counts 1 for its class",
    "image_mean_empty_0": "mean of the metric over all pairs; a metric with a ratio 0/0 counts 0 for the pair",
    "part": "by the label's CAR over valid pixels; a CAR equal to a threshold belongs to the lower part",
    "ignored": "label value 255 counts nowhere; a pair without a valid pixel counts in no metric",
    "boundary": f"changed pixels next to unchanged ones; found within {TOLERANCE} pixels; summed over all pairs",
    "objects": "changed pixels joined by sides or corners; found when half of one is predicted, invented when less "
    f"than half of a predicted one is changed; small up to {OBJECT_SIZES[0]} pixels, medium up to {OBJECT_SIZES[1]}",
    "intervals": "95 %, percentiles of 2000 bootstrap resamples of the pairs",
}
"""How the numbers are counted; written to every JSON file of scores."""

DECILES = 10
_BOUNDARY = ("boundary_predicted", "boundary_predicted_near", "boundary_true", "boundary_true_near")
_OBJECTS = tuple(f"objects_{fate}_{size}" for size in SIZE_NAMES for fate in FATES)
_CONFUSION = ("tn", "fp", "fn", "tp")
_COLUMNS = ("stem", "car", "part", "sent_to", *_CONFUSION, *_BOUNDARY, *_OBJECTS)


@dataclass(frozen=True)
class Evaluation:
    """The counts of every pair.

    Attributes:
        stems: Stems of the labelled pairs, N.
        counts: Confusion counts TN, FP, FN, TP of each pair, N x 4 int64.
        cars: CAR of each pair's label, N float64 in [0, 1]; NaN where no pixel is valid.
        sent_to: The part that Origin-Partition sent each pair to, N; ``None`` for other detectors.
        boundary: See ``bitemporal.evaluation.counting.Shapes``, N x 4 int64.
        objects: See ``bitemporal.evaluation.counting.Shapes``, N x 3 x 3 int64.
        partition: Which CAR belongs to which part.
        probabilities: Probabilities of all pixels; ``None`` if only masks are known.
        unlabelled: Number of pairs left out because they have no label.
    """

    stems: tuple[str, ...]
    counts: Counts
    cars: npt.NDArray[np.float64]
    sent_to: tuple[str | None, ...]
    boundary: npt.NDArray[np.int64]
    objects: npt.NDArray[np.int64]
    partition: CarPartition
    probabilities: ProbabilityCounts | None = None
    unlabelled: int = 0

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """Name of the part of each pair's CAR, N; the empty string where no pixel is valid."""
        return tuple(self.partition.part(car) for car in self.cars)

    def __len__(self) -> int:
        """Number of labelled pairs."""
        return len(self.stems)

    def __repr__(self) -> str:
        """Number of pairs, and dataset mIoU in per cent."""
        return f"Evaluation({len(self)} pairs, dataset mIoU {per_cent(metrics(self.counts, 'dataset')['miou'])} %)"

    def to_frame(self) -> "pd.DataFrame":
        """Scores and counts of every pair.

        Returns:
            One row per pair, by its stem: ``car`` (NaN where no pixel is valid), ``part``, ``sent_to``; every metric of
            ``bitemporal.metrics.METRICS`` in [0, 1] as its image mean takes it (a ratio 0/0 is 1, NaN where no pixel is
            valid); then the counts, as in the file of ``write_confusions``.

        Raises:
            MissingExtraError: When pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise (MissingExtraError.of(error, "to_frame") or error) from error
        counts = np.hstack([self.counts, self.boundary, self.objects.reshape(len(self), -1)])
        return pd.DataFrame(
            {
                "car": self.cars,
                "part": self.parts,
                "sent_to": self.sent_to,
                **{name: image_metric(name, self.counts) for name in METRICS},
                **dict(zip((*_CONFUSION, *_BOUNDARY, *_OBJECTS), counts.T, strict=True)),
            },
            index=pd.Index(self.stems, name="stem"),
        )

    def summary(self, intervals: bool = False) -> dict[str, Any]:
        """All metrics: over all pairs, by CAR part and by CAR decile.

        Args:
            intervals: Add 95 % intervals.

        Returns:
            ``{"dataset": {metric: value}, "image_mean": ..., "image_mean_empty_0": ..., "boundary": ...,
            "objects": ..., "by_part": {part: {"pairs": n, "dataset": ..., ...}}, "by_decile": [{"car": [low, high],
            ...}]}``; see ``bitemporal.metrics`` for the metrics. Values are in [0, 1], NaN where undefined. Intervals
            stand next to the averagings as ``{"intervals": {averaging: {metric: [low, high]}}}``.
        """
        resampling = Resampling.of(len(self.stems)) if intervals else None
        parts = np.array(self.parts)
        by_part = {name: self._group(parts == name, resampling) for name in self.partition.names}
        by_decile = [
            {"car": [float(self.cars[chosen].min()), float(self.cars[chosen].max())]} | self._group(chosen, resampling)
            for chosen in car_deciles(self.cars)
        ]
        everything = self._group(np.ones(len(self.stems), np.bool_), resampling)
        del everything["pairs"]
        return {**everything, "by_part": by_part, "by_decile": by_decile}

    def _group(self, chosen: npt.NDArray[np.bool_], resampling: Resampling | None) -> dict[str, Any]:
        group: dict[str, Any] = {"pairs": int(chosen.sum())}
        group |= {averaging: metrics(self.counts[chosen], averaging) for averaging in AVERAGINGS}
        group["boundary"] = boundary_scores(self.boundary[chosen])
        group["objects"] = object_counts(self.objects[chosen])
        if resampling is not None:
            group["intervals"] = {
                averaging: {
                    name: list(estimate(self.replicates, name, averaging, resampling, chosen)[1:]) for name in METRICS
                }
                for averaging in AVERAGINGS
            }
        return group

    @property
    def replicates(self) -> Replicates:
        """The confusion counts, as of a detector with one seed."""
        return Replicates(self.counts[None])

    def write_confusions(self, path: str | os.PathLike[str]) -> None:
        """Write the counts, one line per pair; the file appears whole or not at all.

        Args:
            path: CSV file.

        Raises:
            OutputError: When it cannot be written.
        """
        rows = zip(
            self.stems,
            self.cars.tolist(),
            self.parts,
            self.sent_to,
            np.hstack([self.counts, self.boundary, self.objects.reshape(len(self.stems), -1)]).tolist(),
            strict=True,
        )
        with (
            replacing(path) as temporary,
            temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
        ):
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(_COLUMNS)
            for stem, car, part, sent_to, numbers in rows:
                writer.writerow(
                    [as_cell(stem), "" if np.isnan(car) else repr(car), as_cell(part), as_cell(sent_to or ""), *numbers]
                )


def read_confusions(
    path: str | os.PathLike[str], partition: CarPartition, probabilities: ProbabilityCounts | None
) -> Evaluation:
    """Read a file of ``Evaluation.write_confusions``.

    Args:
        path: CSV file.
        partition: Which CAR belongs to which part.
        probabilities: Probabilities of all pixels, if they are known.

    Raises:
        DataError: When the file is missing or holds something else.
    """
    source = Path(path)
    expected = f"expected the columns {','.join(_COLUMNS)}, next to the result that names them; evaluate again"
    with reading(source, DataError, expected):
        with open_table(source) as stream:
            rows = list(csv.DictReader(stream))
        numbers = np.array([[int(row[name]) for name in (*_CONFUSION, *_BOUNDARY, *_OBJECTS)] for row in rows])
        cars = np.array([float(row["car"] or "nan") for row in rows])
        stems = tuple(from_cell(row["stem"]) for row in rows)
        sent_to = tuple(from_cell(row["sent_to"]) or None for row in rows)
        if not rows or (numbers < 0).any():
            raise ValueError("no pair, or a count below 0")
        if len(set(stems)) < len(stems) or ((cars < 0) | (cars > 1)).any() or tuple(rows[0]) != _COLUMNS:
            raise ValueError("a stem that occurs twice, a CAR outside [0, 1], or other columns")
    return Evaluation(
        stems=stems,
        counts=numbers[:, :4],
        cars=cars,
        sent_to=sent_to,
        boundary=numbers[:, 4:8],
        objects=numbers[:, 8:].reshape(-1, 3, 3),
        partition=partition,
        probabilities=probabilities,
    )


def are_confusions(path: Path) -> bool:
    """Whether a file begins like those of ``Evaluation.write_confusions``.

    Raises:
        OSError: When it cannot be read.
    """
    with path.open(encoding="utf-8", errors="surrogateescape") as stream:
        return stream.readline(len(",".join(_COLUMNS)) + 1).rstrip("\n") == ",".join(_COLUMNS)


def car_deciles(cars: npt.NDArray[np.float64]) -> list[npt.NDArray[np.bool_]]:
    """Tenths of the pairs by the rank of their CAR; equal CARs stay together, so there may be fewer than ten groups."""
    known = cars[np.isfinite(cars)]
    if not len(known):
        return []
    bounds = np.unique(np.quantile(known, np.arange(1, DECILES) / DECILES, method="inverted_cdf"))
    numbers = np.searchsorted(bounds, cars, side="left")
    groups = [np.isfinite(cars) & (numbers == number) for number in range(len(bounds) + 1)]
    return [group for group in groups if group.any()]


def boundary_scores(counts: npt.NDArray[np.int64]) -> dict[str, float]:
    """Precision, recall and F1 of boundaries, from the summed counts N x 4; a ratio 0/0 is NaN.

    F1 is 0 if only the labels or only the masks have boundaries, and NaN if neither has.

    Csurka et al., What is a good evaluation measure for semantic segmentation?, BMVC 2013; here for the changed class
    over all pairs, with a tolerance in pixels.
    """
    predicted, predicted_near, true, true_near = (float(value) for value in counts.reshape(-1, 4).sum(0))
    precision = predicted_near / predicted if predicted else float("nan")
    recall = true_near / true if true else float("nan")
    f1 = 0.0 if predicted or true else float("nan")
    if precision + recall > 0:
        f1 = 2 * precision * recall / (precision + recall)
    return {"precision": precision, "recall": recall, "f1": f1}


def forward_passes(evaluation: Evaluation, teachers: Collection[str] | None) -> str:
    """How many networks a pair goes through: for Origin-Partition the origin, then the teacher of its part, if any.

    Args:
        evaluation: The counts of any detector.
        teachers: Parts that have a teacher; ``None`` if that is unknown.
    """
    if not any(evaluation.sent_to):
        return "1"
    if teachers is None:
        return "at most 2"
    if set(teachers) == set(evaluation.partition.names):
        return "2"
    second = sum(sent in teachers for sent in evaluation.sent_to) / len(evaluation.sent_to)
    return f"{1 + second:.2f} (at most 2)"


def object_counts(counts: npt.NDArray[np.int64]) -> dict[str, dict[str, int]]:
    """Objects found, missed and invented by size, from the summed counts N x 3 x 3."""
    total = counts.reshape(-1, 3, 3).sum(0).tolist()
    return {size: dict(zip(FATES, row, strict=True)) for size, row in zip(SIZE_NAMES, total, strict=True)}
