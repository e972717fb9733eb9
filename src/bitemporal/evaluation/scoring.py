"""A detector, or masks of another program, over labelled pairs."""

import hashlib
import math
import os
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rich.progress import track

from bitemporal.errors import DataError, LabelError, OptionError
from bitemporal.evaluation.counting import ProbabilityCounts, count_probabilities, count_shapes
from bitemporal.evaluation.results import MaskSettings, Protocol, Result, program
from bitemporal.evaluation.scores import Evaluation
from bitemporal.files import not_there
from bitemporal.imagery.label_proposals import as_words
from bitemporal.imagery.masks import IGNORE, noted_threshold, read_predicted_mask
from bitemporal.imagery.training_images import look_at
from bitemporal.inference import Detector, OriginPartition
from bitemporal.inference.combining import SlidingWindow, TestTimeAugmentation
from bitemporal.inference.detector import check_detector
from bitemporal.inference.options import check_batch_size
from bitemporal.method.car import CarPartition, change_area_ratio
from bitemporal.metrics import confusion_counts
from bitemporal.pairs import Pair, PairFolder, check_pairs, resolve_decoding
from bitemporal.pairs.listing import list_images, shared_stem
from bitemporal.pairs.stems import match_labels


class LabelledAnswer(NamedTuple):
    """The label of a pair, and what a detector or another program says about it."""

    label: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]
    probability: npt.NDArray[np.float32] | None = None
    part: str | None = None


def evaluate(
    detector: Detector,
    folder: PairFolder,
    pairs: Sequence[Pair],
    partition: CarPartition | None = None,
    batch_size: int = 8,
    progress: bool = False,
    threshold: float = 0.5,
    split: str | None = None,
) -> Result:
    """Compare a detector's masks with the labels.

    Args:
        detector: Any detector.
        folder: Reads the pairs and decodes their labels; what the label values mean is resolved first. Where it states
            no bands or no range of values, those that the detector was trained on are taken; and where it states
            nothing about labels that need it, what was stated in the training, if those labels were of the same kind.
        pairs: Pairs to evaluate on; those without a label are left out and counted.
        partition: CAR parts to group the scores by; by default those of the detector if it is an Origin-Partition,
            else small <= 0.05 < medium <= 0.20 < large.
        batch_size: Pairs predicted at once.
        progress: Show a progress bar.
        threshold: Probability above which a pixel is changed.
        split: Split that the protocol names; that of the first pair by default.

    Returns:
        The scores with their protocol. ``Result.named`` gives them a name and a seed, for files and comparisons.

    Raises:
        DataError: When no pair has a label, or a pair cannot be used.
        OptionError: When the batch size is below 1, the threshold is not from 0 to below 1, or something else than a
            detector, a folder and its pairs is given.
    """
    check_batch_size(batch_size)
    check_detector(detector)
    settings = MaskSettings.of(detector, threshold)
    labelled = _labelled(folder, pairs)
    folder = _resolved(detector, folder_for(detector, folder))
    if detector.trained_on is not None:
        detector.warn_if_far(look_at(labelled[0].before, folder.bands))

    def answers() -> Iterator[LabelledAnswer]:
        for start in range(0, len(labelled), batch_size):
            images = [folder.load(pair) for pair in labelled[start : start + batch_size]]
            predictions = detector.predict([image.before for image in images], [image.after for image in images])
            for image, prediction in zip(images, predictions, strict=True):
                assert image.label is not None
                probability = prediction.probability
                yield LabelledAnswer(image.label, probability > threshold, probability, prediction.part)

    partition = partition or _own_partition(detector)
    return _count(answers(), labelled, len(pairs), folder, partition, settings, split, progress)


def evaluate_masks(
    masks: str | os.PathLike[str],
    folder: PairFolder,
    pairs: Sequence[Pair],
    partition: CarPartition | None = None,
    progress: bool = False,
    settings: MaskSettings | None = None,
    split: str | None = None,
) -> Result:
    """Compare masks that another program has written with the labels.

    Args:
        masks: Folder of images with the stems of the pairs: 0 unchanged, one other value changed. Of a palette the
            index counts, of colours any band, and any other than 0 is changed. Pixels that a GeoTIFF calls no data
            count nowhere.
        folder: Reads the labels.
        pairs: Pairs to evaluate on; those without a label are left out and counted.
        partition: CAR parts to group the scores by; small <= 0.05 < medium <= 0.20 < large by default.
        progress: Show a progress bar.
        settings: How the masks were made, for the protocol; by default from whole images, at 0.5, without
            augmentation. The threshold that the masks' own tags hold counts instead.
        split: Split that the protocol names; that of the first pair by default.

    Returns:
        The scores with their protocol; see ``evaluate``.

    Raises:
        DataError: When no pair has a label, or a mask is missing, there twice, unreadable, ambiguous, or of another
            size than its label, or when masks were made with several thresholds.
        OptionError: When the masks' tags hold another threshold than the settings state.
    """
    labelled = _labelled(folder, pairs)
    folder = resolve_decoding(folder)
    files = _files(Path(masks), [pair.stem for pair in folder.pairs()])
    if missing := [pair.stem for pair in labelled if pair.stem not in files]:
        raise DataError(
            f"{masks}: lacks masks of {len(missing)} labelled pair(s), first {missing[0]!r}; expected one for each"
        )

    def answers() -> Iterator[LabelledAnswer]:
        for pair in labelled:
            file, label = files[pair.stem], folder.load_label(pair)
            mask = read_predicted_mask(file)
            if mask.shape != label.shape:
                raise DataError(f"{file}: is {mask.shape}, but its label {label.shape}; expected the same size")
            yield LabelledAnswer(np.where(mask == IGNORE, np.uint8(IGNORE), label), mask == 1)

    partition, settings = partition or CarPartition(), settings or MaskSettings()
    noted = {noted_threshold(files[pair.stem]): files[pair.stem] for pair in labelled}
    if len(noted) > 1:
        listed = " and ".join(
            f"{file} {'of none' if value is None else f'of {value:g}'}" for value, file in noted.items()
        )
        raise DataError(
            f"{masks}: the masks' tags hold several thresholds, such as {listed}; predict all masks with the same one"
        )
    ((value, file),) = noted.items()
    settings = replace(settings, threshold=settings.threshold_of(value, file))
    return _count(answers(), labelled, len(pairs), folder, partition, settings, split, progress)


def folder_for(detector: Detector, folder: PairFolder) -> PairFolder:
    """The folder, its images read by the bands and the range that a detector was trained on, unless it states others.

    Raises:
        OptionError: When the stated ones do not fit the detector.
    """
    reading = detector.reading(folder.bands, folder.image_range)
    return folder.with_reading(reading.bands, reading.image_range)


def _resolved(detector: Detector, folder: PairFolder) -> PairFolder:
    """The folder with the meaning of its labels known, if need be as in the detector's training."""
    if folder.decoding is not None:
        return folder
    try:
        resolved = resolve_decoding(folder)
    except LabelError:
        alike = labels_as_trained(detector, folder)
        if alike is None:
            raise
        resolved = alike
    if told := describe_labels(detector, resolved):
        warnings.warn(told, UserWarning, stacklevel=3)
    return resolved


def labels_as_trained(detector: Detector, folder: PairFolder, split: str | None = None) -> PairFolder | None:
    """The folder, its labels read by the options that the labels of a detector's training were read by.

    Args:
        detector: The detector.
        folder: The folder, whose labels cannot be read without options.
        split: The split whose labels are read; all of them by default.

    Returns:
        ``None`` where the folder states options itself, the training had none, or its labels were of another kind.
    """
    known = None if detector.trained_on is None else detector.trained_on.labels
    if known is None or not known.options.stated() or folder.label_options.stated():
        return None
    try:
        alike = folder.with_labels(known.options)
    except OptionError:  # they are two masks here
        return None
    check = check_pairs(alike, images=False, splits=None if split is None else (split,))
    if check.decoding is None or any(fault.kind == "label" for fault in check.faults):
        return None
    cars = [record.car for record in check.records if not math.isnan(record.car)]
    # by the rule of other labels, nothing or everything may be changed
    one_class = not any(car > 0 for car in cars) or not any(car < 1 for car in cars)
    return None if one_class or not known.are_like(check.decoding) else alike.with_decoding(check.decoding)


def describe_labels(detector: Detector, folder: PairFolder) -> str:
    """One line of how labels are read, where the training of a detector has a say in it; empty where it has none."""
    known, decoding = None if detector.trained_on is None else detector.trained_on.labels, folder.decoding
    if known is None or decoding is None:
        return ""
    words = as_words(known.options.stated())
    if words and words == as_words(folder.label_options.stated()):
        return f"{decoding.describe()}; as in the detector's training ({words}), unless another rule is stated"
    if decoding.source == "found" and known.contradict(decoding):
        return (
            f"{decoding.describe()}; in the detector's training, such values were read by {words}: state it if these "
            "labels mean the same"
        )
    return ""


def _own_partition(detector: Detector) -> CarPartition:
    while isinstance(detector, SlidingWindow | TestTimeAugmentation):
        detector = detector.detector
    return detector.partition if isinstance(detector, OriginPartition) else CarPartition()


def _labelled(folder: PairFolder, pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs that have a label.

    Raises:
        DataError: When none has one.
        OptionError: When these are no folder and pairs of it.
    """
    if not isinstance(folder, PairFolder):
        remedy = f"PairFolder({os.fspath(folder)!r})" if isinstance(folder, str | os.PathLike) else "PairFolder(root)"
        raise OptionError(f"folder: found {folder!r}, expected a folder of pairs; give bitemporal.{remedy}")
    if isinstance(pairs, str):
        raise OptionError(f"pairs: found {pairs!r}, expected pairs; give folder.pairs({pairs!r})")
    labelled = [pair for pair in pairs if pair.label is not None]
    if not labelled:
        raise DataError(
            f"{folder.root}: none of {len(pairs)} pairs has a label; evaluation compares with labels: add them; "
            "a prediction alone needs none"
        )
    return labelled


def _count(
    answers: Iterable[LabelledAnswer],
    labelled: Sequence[Pair],
    pairs: int,
    folder: PairFolder,
    partition: CarPartition,
    settings: MaskSettings,
    split: str | None,
    progress: bool,
) -> Result:
    """Count the answers to labelled pairs, and put the counts under their protocol."""
    answered = zip((pair.stem for pair in labelled), answers, strict=True)
    shown = track(answered, "evaluating", total=len(labelled), disable=not progress)
    evaluation, digest = count_answers(shown, partition, pairs - len(labelled))
    protocol = Protocol(
        **vars(settings),
        data=folder.root.resolve().name,
        split=split or labelled[0].split,
        pairs_hash=digest,
        pairs=len(labelled),
        labels=folder.decoding.rule() if folder.decoding else None,
        image_range=folder.image_range,
        bands=folder.bands,
        car_thresholds=partition.thresholds,
    )
    return Result("detector", protocol, evaluation, origin=program())


def count_answers(
    answers: Iterable[tuple[str, LabelledAnswer]], partition: CarPartition, unlabelled: int = 0
) -> tuple[Evaluation, str]:
    """Count answers, each under the stem of its pair.

    Args:
        answers: Stems and answers.
        partition: CAR parts to group the scores by.
        unlabelled: Number of pairs without a label, which were left out.

    Returns:
        The counts, and a hash of stems and labels in any order.
    """
    stems, counts, cars, sent_to, shapes, digests = [], [], [], [], [], []
    probabilities: ProbabilityCounts | None = None
    for stem, answer in answers:
        stems.append(stem)
        digests.append(_digest(stem, answer.label))
        counts.append(confusion_counts(answer.mask, answer.label))
        cars.append(change_area_ratio(answer.label))
        sent_to.append(answer.part)
        shapes.append(count_shapes(answer.mask, answer.label))
        if answer.probability is not None:
            more = count_probabilities(answer.probability, answer.label)
            probabilities = more if probabilities is None else probabilities + more
    evaluation = Evaluation(
        stems=tuple(stems),
        counts=np.stack(counts),
        cars=np.array(cars, np.float64),
        sent_to=tuple(sent_to),
        boundary=np.stack([counted.boundary for counted in shapes]),
        objects=np.stack([counted.objects for counted in shapes]),
        partition=partition,
        probabilities=probabilities,
        unlabelled=unlabelled,
    )
    return evaluation, _hash_of(digests)


def hash_pairs(folder: PairFolder, pairs: Iterable[Pair]) -> str:
    """What the protocol of scores on some pairs has as ``pairs_hash``; all labels are read.

    Args:
        folder: Reads the labels; what their values mean must be known (see ``resolve_decoding``).
        pairs: Labelled pairs, in any order.

    Raises:
        DataError: When a label is missing, or cannot be read.
    """
    return _hash_of([_digest(pair.stem, folder.load_label(pair)) for pair in pairs])


def _digest(stem: str, label: npt.NDArray[np.uint8]) -> bytes:
    name = f"{stem} {label.shape}".encode(errors="surrogateescape")
    return hashlib.sha256(name + label.tobytes()).digest()


def _hash_of(digests: list[bytes]) -> str:
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def _files(folder: Path, stems: Collection[str]) -> dict[str, Path]:
    """Masks by stem, listed as the folders of labels are: what all have around the stems of pairs is left out."""
    if not folder.is_dir():
        raise DataError(f"{not_there(folder, 'folder')}; expected one of masks")
    listing = match_labels(list_images(folder), stems)
    for paths in listing.duplicates.values():
        raise DataError(f"{paths[0]}: {shared_stem(paths)}; keep one mask per stem")
    return listing.files
