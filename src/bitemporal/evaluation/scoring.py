"""A detector over labelled pairs: what is counted of every pair, kept, and the metrics that follow from it."""

import csv
import hashlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.progress import track

from bitemporal.errors import DataError, RecipeError
from bitemporal.evaluation.bootstrap import Replicates, Resampling, estimate
from bitemporal.evaluation.counting import (
    OBJECT_SIZES,
    SIZE_NAMES,
    TOLERANCE,
    ProbabilityCounts,
    count_probabilities,
    count_shapes,
)
from bitemporal.files import replacing
from bitemporal.imagery.decode import FileFault, decode
from bitemporal.inference.detector import Detector
from bitemporal.method.car import CarPartition, change_area_ratio
from bitemporal.metrics import AVERAGINGS, METRICS, Averaging, Counts, confusion_counts, metrics
from bitemporal.pairs import Pair, PairFolder, resolve_decoding
from bitemporal.pairs.listing import list_images

CONVENTIONS = {
    "dataset": "one confusion matrix summed over all pairs; a metric whose class occurs nowhere is null",
    "image_mean": "mean over the metrics of every pair; a ratio 0/0 of a pair counts 1 for its class",
    "image_mean_empty_0": "mean over the metrics of every pair; a metric with a ratio 0/0 counts 0 for the pair",
    "part": "of the label's CAR over valid pixels; a CAR equal to a threshold belongs to the lower part",
    "ignored": "label value 255 counts nowhere; a pair without a valid pixel counts in no metric",
    "boundary": f"changed pixels beside unchanged ones; found within {TOLERANCE} pixels; summed over all pairs",
    "objects": "changed pixels joined by sides or corners; found when half of one is predicted, invented when less "
    f"than half of a predicted one is changed; small up to {OBJECT_SIZES[0]} pixels, medium up to {OBJECT_SIZES[1]}",
    "intervals": "95 %, percentiles of 2000 bootstrap resamples of the pairs",
}
"""How the numbers were counted, as every JSON file of scores says."""

PAPER_PARTITION = CarPartition()
DECILES = 10
_BOUNDARY = ("boundary_predicted", "boundary_predicted_near", "boundary_true", "boundary_true_near")
_OBJECTS = tuple(f"objects_{fate}_{size}" for size in SIZE_NAMES for fate in ("found", "missed", "invented"))
_CONFUSION = ("tn", "fp", "fn", "tp")
_COLUMNS = ("stem", "car", "part", "sent_to", *_CONFUSION, *_BOUNDARY, *_OBJECTS)


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation counted.

    Attributes:
        stems: Stems of the labelled pairs, N.
        counts: Confusion counts TN, FP, FN, TP of each pair, N x 4 int64.
        cars: CAR of each pair's label, N float64 in [0, 1]; NaN where no pixel is valid.
        parts: Name of the part of each pair's CAR, N; the empty string where that is NaN.
        sent_to: The part that Origin-Partition sent each pair to, N; ``None`` for other detectors.
        boundary: See ``bitemporal.evaluation.counting.Shapes``, N x 4 int64.
        objects: See there, N x 3 x 3 int64.
        partition: Which CAR belongs to which part.
        pairs_hash: SHA-256 of all stems and decoded labels: the same pairs have the same one, in any order.
        probabilities: Of all pixels; ``None`` where only masks are known.
        unlabelled: Number of pairs that were left out for want of a label.
    """

    stems: tuple[str, ...]
    counts: Counts
    cars: npt.NDArray[np.float64]
    parts: tuple[str, ...]
    sent_to: tuple[str | None, ...]
    boundary: npt.NDArray[np.int64]
    objects: npt.NDArray[np.int64]
    partition: CarPartition
    pairs_hash: str
    probabilities: ProbabilityCounts | None = None
    unlabelled: int = 0

    def summary(self, intervals: bool = False) -> dict[str, Any]:
        """All metrics: over all pairs, by CAR part and by CAR decile.

        Args:
            intervals: With 95 % intervals.

        Returns:
            ``{"dataset": {metric: value}, "image_mean": ..., "image_mean_empty_0": ..., "boundary": ...,
            "objects": ..., "by_part": {part: {"pairs": n, "dataset": ..., ...}}, "by_decile": [{"car": [low, high],
            ...}]}``; see ``bitemporal.metrics`` for the metrics. Values are in [0, 1], NaN where undefined. Intervals
            stand beside the averagings as ``{"intervals": {averaging: {metric: [low, high]}}}``.
        """
        resampling = Resampling.of(len(self.stems)) if intervals else None
        parts = np.array(self.parts)
        by_part = {name: self._of(parts == name, resampling) for name in self.partition.names}
        by_decile = [
            {"car": [float(self.cars[chosen].min()), float(self.cars[chosen].max())]} | self._of(chosen, resampling)
            for chosen in car_deciles(self.cars)
        ]
        everything = self._of(np.ones(len(self.stems), np.bool_), resampling)
        del everything["pairs"]
        return {**everything, "by_part": by_part, "by_decile": by_decile}

    def _of(self, chosen: npt.NDArray[np.bool_], resampling: Resampling | None) -> dict[str, Any]:
        found: dict[str, Any] = {"pairs": int(chosen.sum())}
        found |= {averaging: metrics(self.counts[chosen], averaging) for averaging in AVERAGINGS}
        found["boundary"] = boundary_scores(self.boundary[chosen])
        found["objects"] = object_counts(self.objects[chosen])
        if resampling is not None:
            found["intervals"] = {
                averaging: {name: self._interval(name, averaging, resampling, chosen) for name in METRICS}
                for averaging in AVERAGINGS
            }
        return found

    def _interval(
        self, metric: str, averaging: Averaging, resampling: Resampling, chosen: npt.NDArray[np.bool_]
    ) -> list[float]:
        return list(estimate(self.replicates, metric, averaging, resampling, chosen)[1:])

    @property
    def replicates(self) -> Replicates:
        """The confusion counts as those of one seed."""
        return Replicates(self.counts[None])

    def write_confusions(self, path: str | os.PathLike[str]) -> None:
        """Write what was counted of every pair, a line each; the file appears whole or not at all.

        Args:
            path: CSV file.

        Raises:
            DataError: When it cannot be written.
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
                writer.writerow([stem, "" if np.isnan(car) else repr(car), part, sent_to or "", *numbers])


def read_confusions(
    path: str | os.PathLike[str], partition: CarPartition, pairs_hash: str, probabilities: ProbabilityCounts | None
) -> Evaluation:
    """Read what ``Evaluation.write_confusions`` wrote.

    Args:
        path: CSV file.
        partition: Which CAR belongs to which part.
        pairs_hash: Of the pairs.
        probabilities: Of all pixels, if they are known.

    Raises:
        DataError: When the file is missing or holds something else.
    """
    source = Path(path)
    try:
        with source.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
            rows = list(csv.DictReader(stream))
        numbers = np.array([[int(row[name]) for name in (*_CONFUSION, *_BOUNDARY, *_OBJECTS)] for row in rows])
        cars = np.array([float(row["car"] or "nan") for row in rows])
        stems, sent_to = tuple(row["stem"] for row in rows), tuple(row["sent_to"] or None for row in rows)
        if not rows or (numbers < 0).any():
            raise ValueError("no pair, or a count below 0")
        if len(set(stems)) < len(stems) or ((cars < 0) | (cars > 1)).any() or tuple(rows[0]) != _COLUMNS:
            raise ValueError("a stem that occurs twice, a CAR that is no ratio, or other columns")
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error}); it belongs beside the result that names it") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{source}: found something else than counts of pairs ({type(error).__name__}: {error}), expected the "
            f"columns {','.join(_COLUMNS)}; evaluate again"
        ) from error
    return Evaluation(
        stems=stems,
        counts=numbers[:, :4],
        cars=cars,
        parts=tuple(partition.part(car) for car in cars),
        sent_to=sent_to,
        boundary=numbers[:, 4:8],
        objects=numbers[:, 8:].reshape(-1, 3, 3),
        partition=partition,
        pairs_hash=pairs_hash,
        probabilities=probabilities,
    )


def are_confusions(path: Path) -> bool:
    """Whether a file begins as what ``Evaluation.write_confusions`` writes.

    Raises:
        OSError: When it cannot be read.
    """
    with path.open(encoding="utf-8", errors="surrogateescape") as stream:
        return stream.readline(len(",".join(_COLUMNS)) + 1).rstrip("\n") == ",".join(_COLUMNS)


def car_deciles(cars: npt.NDArray[np.float64]) -> list[npt.NDArray[np.bool_]]:
    """Pairs by tenths of the ranks of their CAR; equal CARs stay together, so there may be fewer than ten groups."""
    known = cars[np.isfinite(cars)]
    if not len(known):
        return []
    bounds = np.unique(np.quantile(known, np.arange(1, DECILES) / DECILES, method="inverted_cdf"))
    numbers = np.searchsorted(bounds, cars, side="left")
    groups = [np.isfinite(cars) & (numbers == number) for number in range(len(bounds) + 1)]
    return [group for group in groups if group.any()]


def boundary_scores(counts: npt.NDArray[np.int64]) -> dict[str, float]:
    """Precision, recall and F1 of boundaries, of the summed counts N x 4; a ratio 0/0 is NaN.

    F1 is 0 where only one side has boundaries, and NaN where neither has.

    Csurka et al., What is a good evaluation measure for semantic segmentation?, BMVC 2013; here of the changed class
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
    """How many networks a pair goes through: for Origin-Partition the origin, and a teacher where its part has one.

    Args:
        evaluation: Of any detector.
        teachers: Parts that have one; ``None`` where that is not known.
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
    """Objects found, missed and invented by size, of the summed counts N x 3 x 3."""
    total = counts.reshape(-1, 3, 3).sum(0).tolist()
    return {
        size: dict(zip(("found", "missed", "invented"), row, strict=True))
        for size, row in zip(SIZE_NAMES, total, strict=True)
    }


class _Counter:
    """Counts pairs one after another."""

    def __init__(self) -> None:
        self.rows: list[tuple[Counts, float, str | None, npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
        self.probabilities: ProbabilityCounts | None = None
        self.digests: list[bytes] = []

    def add(
        self,
        stem: str,
        label: npt.NDArray[np.uint8],
        mask: npt.NDArray[Any],
        probability: npt.NDArray[np.float32] | None = None,
        sent_to: str | None = None,
    ) -> None:
        name = f"{stem} {label.shape}".encode(errors="surrogateescape")
        self.digests.append(hashlib.sha256(name + label.tobytes()).digest())
        shapes = count_shapes(mask, label)
        self.rows.append(
            (confusion_counts(mask, label), change_area_ratio(label), sent_to, shapes.boundary, shapes.objects)
        )
        if probability is not None:
            found = count_probabilities(probability, label)
            self.probabilities = found if self.probabilities is None else self.probabilities + found

    def result(self, pairs: Sequence[Pair], partition: CarPartition, unlabelled: int) -> Evaluation:
        counts, cars, sent_to, boundary, objects = zip(*self.rows, strict=True)
        return Evaluation(
            stems=tuple(pair.stem for pair in pairs),
            counts=np.stack(counts),
            cars=np.array(cars, dtype=np.float64),
            parts=tuple(partition.part(car) for car in cars),
            sent_to=tuple(sent_to),
            boundary=np.stack(boundary),
            objects=np.stack(objects),
            partition=partition,
            pairs_hash=hashlib.sha256(b"".join(sorted(self.digests))).hexdigest(),
            probabilities=self.probabilities,
            unlabelled=unlabelled,
        )


def check_threshold(threshold: float) -> None:
    """Refuse a threshold above which there is no probability, or below which there is none.

    Raises:
        RecipeError: When it is not from 0 to below 1.
    """
    if not 0 <= threshold < 1:
        raise RecipeError(f"threshold: found {threshold:g}, expected a probability from 0 to below 1")


def evaluate(
    detector: Detector,
    folder: PairFolder,
    pairs: Sequence[Pair],
    partition: CarPartition = PAPER_PARTITION,
    batch_size: int = 8,
    progress: bool = False,
    threshold: float = 0.5,
) -> Evaluation:
    """Compare a detector's masks with the labels.

    Args:
        detector: Any detector.
        folder: Reads the pairs and decodes their labels; what the label values mean is resolved first.
        pairs: Pairs to evaluate on; those without a label are left out and counted.
        partition: CAR parts that the metrics are told apart by; by the paper's thresholds 0.05 and 0.20.
        batch_size: Pairs predicted at once.
        progress: Show a progress bar.
        threshold: Probability above which a pixel is changed.

    Raises:
        DataError: When no pair has a label, or a pair cannot be used.
        RecipeError: When the batch size is below 1, or the threshold no probability.
    """
    if batch_size < 1:
        raise RecipeError(f"batch_size: found {batch_size}, expected at least 1")
    check_threshold(threshold)
    labelled = _labelled(folder, pairs)
    folder = resolve_decoding(folder)
    counter = _Counter()
    batches = [labelled[start : start + batch_size] for start in range(0, len(labelled), batch_size)]
    for batch in track(batches, "evaluating", disable=not progress):
        images = [folder.load(pair) for pair in batch]
        predictions = detector.predict([image.before for image in images], [image.after for image in images])
        for pair, image, prediction in zip(batch, images, predictions, strict=True):
            assert image.label is not None
            mask = prediction.probability > threshold
            counter.add(pair.stem, image.label, mask, prediction.probability, prediction.part)
    return counter.result(labelled, partition, len(pairs) - len(labelled))


def evaluate_masks(
    masks: str | os.PathLike[str],
    folder: PairFolder,
    pairs: Sequence[Pair],
    partition: CarPartition = PAPER_PARTITION,
    progress: bool = False,
) -> Evaluation:
    """Compare masks that another program has written with the labels.

    Args:
        masks: Folder of images with the stems of the pairs: 0 unchanged, one other value changed. Of a palette the
            index counts, of colours any band, and any other than 0 is changed.
        folder: Reads the labels.
        pairs: Pairs to evaluate on; those without a label are left out and counted.
        partition: CAR parts that the metrics are told apart by.
        progress: Show a progress bar.

    Raises:
        DataError: When no pair has a label, or a mask is missing, there twice, unreadable, ambiguous, or of another
            size than its label.
    """
    labelled = _labelled(folder, pairs)
    folder = resolve_decoding(folder)
    files = _files(Path(masks))
    if missing := [pair.stem for pair in labelled if pair.stem not in files]:
        raise DataError(
            f"{masks}: lacks masks of {len(missing)} labelled pair(s), first {missing[0]!r}; expected one for each"
        )
    counter = _Counter()
    for pair in track(labelled, "evaluating", disable=not progress):
        label = folder.load_label(pair)
        mask = _read_mask(files[pair.stem])
        if mask.shape != label.shape:
            raise DataError(f"{files[pair.stem]}: is {mask.shape}, but its label {label.shape}; expected the same size")
        counter.add(pair.stem, label, mask)
    return counter.result(labelled, partition, len(pairs) - len(labelled))


_REMEDY = "write the mask as one grey channel, 0 unchanged and 255 changed, as PNG"


def _files(folder: Path) -> dict[str, Path]:
    """Masks by stem, listed as the folders of pairs are."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one of masks")
    listing = list_images(folder)
    for paths in listing.duplicates.values():
        names = ", ".join(path.name for path in paths)
        raise DataError(f"{paths[0]}: one stem, {len(paths)} files: {names}; keep one mask a stem")
    return listing.files


def _read_mask(path: Path) -> npt.NDArray[np.bool_]:
    try:
        decoded = decode(path)
        image = decoded.image
        samples = np.asarray(image)
        if image.mode == "P":
            return _of_palette(image)
        if decoded.depth > 8 and samples.ndim > 2:  # Pillow drops the lower half of each sample
            raise FileFault(f"is a colour image of {decoded.depth} bits a sample", _REMEDY)
        if image.format in ("JPEG", "MPO") and len(values := np.unique(samples)) > 2:
            raise FileFault(f"holds {len(values)} values, as JPEG compression blurs 0 and others", _REMEDY)
        if samples.ndim > 2:
            return _of_colours(samples, image.mode)
        if np.isnan(samples).any():
            raise FileFault("holds NaN, which is neither changed nor unchanged", _REMEDY)
        return _of_grey(samples)
    except FileFault as fault:
        raise DataError(f"{path}: {fault.what}; {fault.remedy}") from None


def _of_grey(samples: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Pixels that are not 0, if all of these are alike: probabilities and class numbers are no mask."""
    changed: npt.NDArray[np.bool_] = samples != 0
    others = samples[changed]
    if others.size and (least := others.min()) != (most := others.max()):
        raise FileFault(
            f"holds values from {least:g} to {most:g}{'' if changed.all() else ' beside 0'}, as probabilities or class "
            "numbers do",
            _REMEDY,
        )
    return changed


def _of_palette(image: Image.Image) -> npt.NDArray[np.bool_]:
    """Indices that are not 0, whatever their colours, unless black and white say the opposite."""
    changed: npt.NDArray[np.bool_] = np.asarray(image) != 0
    seen = np.asarray(image.convert("RGB"))
    black_and_white = np.isin(seen, (0, 255)).all() and (seen == seen[..., :1]).all()
    if black_and_white and seen.any() and ((seen[..., 0] > 0) != changed).any():
        raise FileFault("is a palette image in which 0 is drawn white, or another index black", _REMEDY)
    return changed


def _of_colours(samples: npt.NDArray[np.uint8], mode: str) -> npt.NDArray[np.bool_]:
    """Pixels with any colour, unless transparency says something else; shades of grey as those of one channel."""
    if mode not in ("RGB", "RGBX", "RGBA", "LA"):
        raise FileFault(f"is a {mode} image", _REMEDY)
    colours, alpha = (samples[..., :-1], samples[..., -1]) if mode[-1] == "A" else (samples[..., :3], None)
    grey = (colours == colours[..., :1]).all()
    changed = _of_grey(colours[..., 0]) if grey else np.max(colours, axis=-1) > 0
    if alpha is not None and alpha.min() != alpha.max() and ((alpha > 0) != changed).any():
        raise FileFault("is an image whose transparency and colours do not tell the same pixels apart", _REMEDY)
    return changed


def _labelled(folder: PairFolder, pairs: Sequence[Pair]) -> list[Pair]:
    labelled = [pair for pair in pairs if pair.label is not None]
    if not labelled:
        raise DataError(
            f"{folder.root}: none of {len(pairs)} pairs has a label; evaluation compares with labels: add them, or use "
            "`bitemporal predict`, which needs none"
        )
    return labelled
