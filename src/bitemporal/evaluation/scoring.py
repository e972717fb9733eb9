"""A detector over labelled pairs: confusion counts of every pair, kept, and the metrics that follow from them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.progress import track

from bitemporal import __version__
from bitemporal.car import CarPartition, change_area_ratio
from bitemporal.errors import DataError, RecipeError
from bitemporal.files import write_json
from bitemporal.inference.detector import Detector
from bitemporal.metrics import Counts, confusion_counts, metrics
from bitemporal.pairs import Pair, PairFolder

CONVENTIONS = {
    "dataset": "one confusion matrix summed over all pairs; a metric whose class occurs nowhere is null",
    "image_mean": "mean over the metrics of every pair; a ratio 0/0 of a pair counts 1",
    "changed": "probability of change above 0.5",
    "part": "of the label's CAR over valid pixels; a CAR equal to a threshold belongs to the lower part",
    "ignored": "label value 255 counts nowhere; a pair without a valid pixel counts in no metric",
}
"""How the numbers were counted, as every JSON file of scores says."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation counted.

    Attributes:
        stems: Stems of the labelled pairs, N.
        counts: Confusion counts TN, FP, FN, TP of each pair, N x 4 int64.
        cars: CAR of each pair's label, N float64 in [0, 1]; NaN where no pixel is valid.
        parts: Name of the part of each pair's CAR, N; the empty string where that is NaN.
        sent_to: The part that Origin-Partition sent each pair to, N; ``None`` for other detectors.
        partition: Which CAR belongs to which part.
        unlabelled: Number of pairs that were left out for want of a label.
    """

    stems: tuple[str, ...]
    counts: Counts
    cars: npt.NDArray[np.float64]
    parts: tuple[str, ...]
    sent_to: tuple[str | None, ...]
    partition: CarPartition
    unlabelled: int = 0

    def summary(self) -> dict[str, Any]:
        """All metrics, over all pairs and by CAR part.

        Returns:
            ``{"dataset": {metric: value}, "image_mean": {metric: value}, "by_part": {part: {"pairs": n,
            "dataset": ..., "image_mean": ...}}}``; see ``bitemporal.metrics`` for the metrics. Values are in [0, 1],
            NaN where undefined.
        """
        parts = np.array(self.parts)
        by_part = {}
        for name in self.partition.names:
            chosen = self.counts[parts == name]
            by_part[name] = {"pairs": len(chosen), **_both(chosen)}
        return {**_both(self.counts), "by_part": by_part}

    def to_json(self, path: str | os.PathLike[str], protocol: Mapping[str, Any] | None = None) -> None:
        """Write the protocol, the summary and the counts of every pair; the file appears whole or not at all.

        Args:
            path: Where. NaN is written as null.
            protocol: What else should be known: detector, data, split; JSON types only.

        Raises:
            DataError: When the file cannot be written.
        """
        content = {
            "protocol": {
                **(protocol or {}),
                "pairs": len(self.stems),
                "unlabelled_pairs_left_out": self.unlabelled,
                "thresholds": list(self.partition.thresholds),
                "partition": self.partition.describe(),
                "conventions": CONVENTIONS,
                "bitemporal": __version__,
            },
            **self.summary(),
            "images": self._images(),
        }
        write_json(path, content)

    def _images(self) -> list[dict[str, Any]]:
        rows = zip(self.stems, self.cars.tolist(), self.parts, self.sent_to, self.counts.tolist(), strict=True)
        return [
            {"stem": stem, "car": car, "part": part or None, "sent_to": sent_to}
            | dict(zip(("tn", "fp", "fn", "tp"), counts, strict=True))
            for stem, car, part, sent_to, counts in rows
        ]


def _both(counts: Counts) -> dict[str, dict[str, float]]:
    return {"dataset": metrics(counts, "dataset"), "image_mean": metrics(counts, "image_mean")}


def evaluate(
    detector: Detector,
    folder: PairFolder,
    pairs: Sequence[Pair],
    partition: CarPartition = CarPartition(),  # noqa: B008  frozen
    batch_size: int = 8,
    progress: bool = False,
) -> Evaluation:
    """Compare a detector's masks with the labels.

    Args:
        detector: Any detector.
        folder: Reads the pairs and decodes their labels.
        pairs: Pairs to evaluate on; those without a label are left out and counted.
        partition: CAR parts that the metrics are told apart by; by the paper's thresholds 0.05 and 0.20.
        batch_size: Pairs predicted at once.
        progress: Show a progress bar.

    Raises:
        DataError: When no pair has a label, or a pair cannot be used.
        RecipeError: When the batch size is below 1.
    """
    if batch_size < 1:
        raise RecipeError(f"batch_size: found {batch_size}, expected at least 1")
    labelled = [pair for pair in pairs if pair.label is not None]
    if not labelled:
        raise DataError(
            f"{folder.root}: none of {len(pairs)} pairs has a label; evaluation compares with labels: add them, or use "
            "`bitemporal predict`, which needs none"
        )
    counts, cars, sent_to = [], [], []
    batches = [labelled[start : start + batch_size] for start in range(0, len(labelled), batch_size)]
    for batch in track(batches, "evaluating", disable=not progress):
        images = [folder.load(pair) for pair in batch]
        labels = [image.label for image in images if image.label is not None]
        predictions = detector.predict([image.before for image in images], [image.after for image in images])
        for prediction, label in zip(predictions, labels, strict=True):
            counts.append(confusion_counts(prediction.mask, label))
            cars.append(change_area_ratio(label))
            sent_to.append(prediction.part)
    return Evaluation(
        stems=tuple(pair.stem for pair in labelled),
        counts=np.stack(counts),
        cars=np.array(cars, dtype=np.float64),
        parts=tuple(partition.part(car) for car in cars),
        sent_to=tuple(sent_to),
        partition=partition,
        unlabelled=len(pairs) - len(labelled),
    )
