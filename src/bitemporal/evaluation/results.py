"""Results: scores of a detector, the protocol they were taken under, and the files that hold both."""

import hashlib
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any

import numpy as np

import bitemporal
from bitemporal.errors import DataError, OptionError, PartitionError
from bitemporal.evaluation.counting import BINS, ProbabilityCounts
from bitemporal.evaluation.curves import describe_curves
from bitemporal.evaluation.scores import CONVENTIONS, Evaluation, are_confusions, read_confusions
from bitemporal.inference.options import Augmentation, check_threshold, check_tiles
from bitemporal.method.car import CarPartition
from bitemporal.metrics import METRIC_VERSION
from bitemporal.outputs import Kind, Output, check_outputs, locked, write_json
from bitemporal.reading import json_keys, read_json, reading

if TYPE_CHECKING:
    import pandas as pd

    from bitemporal.inference import Detector

FORMAT = 2

DEFAULT_THRESHOLD = 0.5
"""Probability above which a pixel is changed, unless another is stated."""

_MUST_AGREE = {
    "pairs_hash": "pairs or their labels",
    "tile": "tile size",
    "stride": "stride of the tiles",
    "threshold": "threshold",
    "augmentation": "test-time augmentation",
    "scales": "scales of the test-time augmentation",
    "image_range": "range of the image values",
    "metric_version": "version of the metrics",
}
"""Fields that must agree for two scores to be comparable."""


@dataclass(frozen=True, kw_only=True)
class MaskSettings:
    """How masks were made from pairs.

    Attributes:
        threshold: Probability above which a pixel is changed, from 0 to below 1; by default the one in the masks' tags,
            or 0.5 where they have none.
        tile: Side in pixels of the tiles that images were cut into; ``None`` for whole images.
        stride: Pixels from one tile to the next, that of the tile by default; ``None`` for whole images.
        augmentation: Test-time augmentation.
        scales: Scales of the test-time augmentation.

    Raises:
        OptionError: When the threshold is outside its range, or tile and stride do not fit together.
    """

    threshold: float | None = None
    tile: int | None = None
    stride: int | None = None
    augmentation: Augmentation | None = None
    scales: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        """Check the threshold and the tiles."""
        if self.threshold is not None:
            check_threshold(self.threshold)
        check_tiles(self.tile, self.stride)
        if self.stride is None:
            object.__setattr__(self, "stride", self.tile)

    def threshold_of(self, noted: float | None, masks: str | os.PathLike[str]) -> float:
        """The threshold that masks were made with.

        Args:
            noted: The one in their tags, if they have one.
            masks: Their folder or file.

        Raises:
            OptionError: When these settings state another one than the tags.
        """
        if noted is None:
            return DEFAULT_THRESHOLD if self.threshold is None else self.threshold
        if self.threshold not in (None, noted):
            raise OptionError(
                f"threshold: found {self.threshold}, but the tags of {masks} say that it was made with {noted}, "
                "expected the same, as evaluate makes no masks; leave --threshold out (threshold=None), or make new "
                "masks with predict, predict-scene or threshold"
            )
        return noted

    @classmethod
    def of(cls, detector: "Detector", threshold: float = DEFAULT_THRESHOLD) -> "MaskSettings":
        """The settings of a detector, taken from the test-time augmentation and the tiles that it was composed with."""
        from bitemporal.inference.combining import SlidingWindow, TestTimeAugmentation  # here: comparing needs no torch

        settings: dict[str, Any] = {"threshold": threshold}
        while isinstance(detector, SlidingWindow | TestTimeAugmentation):
            if isinstance(detector, SlidingWindow):
                settings |= {"tile": detector.tile, "stride": detector.stride}
            else:
                settings |= {"augmentation": detector.augmentation, "scales": detector.scales}
            detector = detector.detector
        return cls(**settings)


@dataclass(frozen=True, kw_only=True)
class Protocol(MaskSettings):
    """The conditions under which scores were taken.

    Attributes:
        threshold: Probability above which a pixel is changed, from 0 to below 1.
        data: Name of the data set's folder.
        split: Split of the data set.
        pairs_hash: SHA-256 of the stems and decoded labels of all labelled pairs, in any order.
        pairs: Number of labelled pairs.
        labels: What the values of the label files mean.
        image_range: Values that became 0 and 255, for all channels or a pair for each.
        bands: Bands that became the channels; red, green and blue by default.
        car_thresholds: Thresholds of the CAR parts.
        block: Side in pixels of the blocks of a raster that took the place of pairs; ``None`` for pairs.
        metric_version: ``bitemporal.metrics.METRIC_VERSION``.
    """

    threshold: float = DEFAULT_THRESHOLD
    data: str
    split: str
    pairs_hash: str
    pairs: int
    labels: str | None = None
    image_range: tuple[float, ...] | None = None
    bands: tuple[int, ...] | None = None
    car_thresholds: tuple[float, ...] = CarPartition().thresholds
    block: int | None = None
    metric_version: int = METRIC_VERSION

    def conflicts(self, other: "Protocol") -> list[str]:
        """Why scores under another protocol cannot be compared with these; empty if they can."""
        return [
            f"{what}: {self._shown(name)} and {other._shown(name)}"
            for name, what in _MUST_AGREE.items()
            if getattr(self, name) != getattr(other, name)
        ]

    def _shown(self, name: str) -> str:
        if name == "pairs_hash":
            return f"{self.data}/{self.split}, {self.pairs} pairs, {self.pairs_hash[:8]}"
        value = getattr(self, name)
        return "none" if value is None else str(value)


@dataclass(frozen=True)
class Result:
    """Scores of one detector under one protocol.

    Attributes:
        name: The detector's name; results of one name and different seeds are replicates.
        protocol: The conditions.
        evaluation: The counts of every pair.
        seed: The seed that the detector was trained with, if it is known.
        origin: Where the scores come from, in JSON types: network, bundle, version, commit.
        file: The file that the result was read from.

    Raises:
        OptionError: When the seed is below 0.
    """

    name: str
    protocol: Protocol
    evaluation: Evaluation
    seed: int | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    file: Path | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        """Name, seed, data and split, and the scores."""
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"Result({self.name!r}{seed}, {self.protocol.data}/{self.protocol.split}, {self.evaluation!r})"

    def to_frame(self) -> "pd.DataFrame":
        """Scores and counts of every pair; see ``Evaluation.to_frame``.

        Returns:
            The same rows with the columns ``detector`` and ``seed`` in front, so that those of several results can
            stand in one table.

        Raises:
            MissingExtraError: When pandas is not installed.
        """
        frame = self.evaluation.to_frame()
        frame.insert(0, "detector", self.name)
        frame.insert(1, "seed", self.seed)
        return frame

    def summary(self, intervals: bool = False) -> dict[str, Any]:
        """All metrics: over all pairs, by CAR part and by CAR decile; see ``Evaluation.summary``."""
        return self.evaluation.summary(intervals)

    def named(self, name: str, seed: int | None = None, **origin: str) -> "Result":
        """The same scores under the name, seed and origin that files and comparisons show.

        Args:
            name: The detector's name.
            seed: The seed that it was trained with, if it is known.
            **origin: What else should be known, such as ``model`` and ``source``.

        Raises:
            OptionError: When the seed is below 0.
        """
        return replace(self, name=name, seed=seed, origin={**origin, **self.origin})

    def __str__(self) -> str:
        """What messages call it."""
        return self.name if self.file is None else f"{self.file} ({self.name})"

    def __post_init__(self) -> None:
        """Check the seed."""
        check_seed(self.seed)

    def write(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write the result and, next to it, the counts of every pair.

        Args:
            path: JSON file, ``.json``; the counts go to a CSV file of the same name that ends in ``.confusions.csv``
                instead. NaN is written as null.
            overwrite: Also replace files that are not an earlier result.

        Returns:
            The CSV file.

        Raises:
            OutputError: When a file cannot be written, the name has another ending, a file that is no earlier result
                would be replaced, or another run is writing this one.
        """
        target, counts = Path(path), counts_file(Path(path))
        with locked(target):  # two files, which belong together
            check_outputs(result_outputs(path), (), overwrite)
            self.evaluation.write_confusions(counts)
            digest = hashlib.sha256(counts.read_bytes()).hexdigest()
            write_json(target, self.to_json() | {"confusions": {"file": counts.name, "sha256": digest}})
        return counts

    def to_json(self) -> dict[str, Any]:
        """The result in JSON types, without the counts of every pair."""
        return {
            "format": FORMAT,
            "name": self.name,
            "seed": self.seed,
            "protocol": asdict(self.protocol),
            "origin": self.origin,
            "unlabelled_pairs_left_out": self.evaluation.unlabelled,
            "conventions": CONVENTIONS,
            **self.evaluation.summary(intervals=True),
            "probabilities": None
            if self.evaluation.probabilities is None
            else describe_curves(self.evaluation.probabilities),
        }


def counts_file(result: Path) -> Path:
    """The file of the counts of every pair, next to that of a result."""
    return result.with_name(f"{result.stem}.confusions.csv")


_RESULT = Kind("a result of an evaluation", lambda path: {"protocol", "confusions"} <= json_keys(path), (".json",))
_COUNTS = Kind("a table of an evaluation's counts", are_confusions, (".csv",))


def result_outputs(path: str | os.PathLike[str], option: str = "output", remedy: str = Output.remedy) -> list[Output]:
    """The files that a result is written to.

    Args:
        path: The JSON file.
        option: The option or argument that names it.
        remedy: What to do instead where it cannot be written.
    """
    counts = Output(option, counts_file(Path(path)), _COUNTS, remedy)
    return [Output(option, Path(path), _RESULT, remedy), counts]


def check_seed(seed: int | None) -> None:
    """Refuse a negative seed.

    Raises:
        OptionError: When it is below 0.
    """
    if seed is not None and seed < 0:
        raise OptionError(f"seed: found {seed}, expected 0 or more, or none if it is unknown")


def read_result(path: str | os.PathLike[str]) -> Result:
    """Read a result file and the counts next to it.

    Raises:
        DataError: When a file is missing, damaged, or no result of this version.
    """
    source = Path(path)
    expected = "expected a result that evaluate has written"
    with reading(source, DataError, expected):
        content = read_json(source)
    version = content.get("format") if isinstance(content, dict) else type(content).__name__
    if version != FORMAT:
        raise DataError(f"{source}: format is {version!r}, {expected} of format {FORMAT}; evaluate again")
    try:
        with reading(source, DataError, "lacks a part of a result: evaluate again"):
            protocol = _read_protocol(content["protocol"])
            partition = CarPartition(protocol.car_thresholds)
            curves = content["probabilities"]
            probabilities = None if curves is None else _read_probabilities(curves["counts"])
            counts = source.with_name(Path(content["confusions"]["file"]).name)
            digest = content["confusions"]["sha256"]
            name, seed = _of(content, "name", str), _of(content, "seed", int | None)
            origin, unlabelled = _of(content, "origin", dict), int(content.get("unlabelled_pairs_left_out", 0))
            check_seed(seed)
    except (PartitionError, OptionError) as error:
        raise DataError(f"{source}: lacks a part of a result ({error}); evaluate again") from error
    if protocol.metric_version != METRIC_VERSION:
        raise DataError(
            f"{source}: has metrics of version {protocol.metric_version}, expected {METRIC_VERSION}, which counts "
            "differently; evaluate again"
        )
    evaluation = read_confusions(counts, partition, probabilities)
    with reading(counts, DataError, "it belongs next to the result that names it; evaluate again"):
        found = hashlib.sha256(counts.read_bytes()).hexdigest()
    if found != digest or len(evaluation.stems) != protocol.pairs:
        raise DataError(
            f"{counts}: is not the file that was written with {source}, which expects {protocol.pairs} pairs and "
            f"SHA-256 {digest}; evaluate again"
        )
    evaluation = replace(evaluation, unlabelled=unlabelled)
    return Result(name, protocol, evaluation, seed, origin, source)


def _of(content: dict[str, Any], name: str, kind: type | UnionType) -> Any:  # noqa: ANN401  of the given kind, which may be a union
    """A field of a file, which must be of some type."""
    if not isinstance(content[name], kind):
        raise ValueError(f"{name} {content[name]!r}")
    return content[name]


def _read_protocol(content: dict[str, Any]) -> Protocol:
    for name, kind in (("data", str), ("split", str), ("pairs", int), ("car_thresholds", list), ("pairs_hash", str)):
        _of(content, name, kind)
    if absent := sorted(_MUST_AGREE.keys() - content.keys()):
        raise ValueError(f"protocol without {', '.join(absent)}")
    known = {entry.name for entry in fields(Protocol)}
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items() if k in known}
    return Protocol(**given)


def _read_probabilities(content: dict[str, Any]) -> ProbabilityCounts:
    counts = [np.array(content[name]) for name in ("unchanged", "changed", "total")]
    if any(values.shape != (BINS,) or values.dtype.kind not in "if" or not (values >= 0).all() for values in counts):
        raise ValueError(f"probabilities: expected three times {BINS} numbers, none below 0")
    return ProbabilityCounts(*counts)


def check_comparable(results: Sequence[Result]) -> None:
    """Refuse results of different protocols.

    Raises:
        DataError: Naming the first two that differ, and in what.
    """
    for other in results[1:]:
        if conflicts := results[0].protocol.conflicts(other.protocol):
            raise DataError(
                f"{results[0]} and {other}: were evaluated under different protocols "
                f"({'; '.join(conflicts)}), so their scores cannot be compared; evaluate both under one protocol"
            )


def program() -> dict[str, str | None]:
    """Version of this package, and the commit of its source tree, if any; "-dirty" if the tree has changed since."""
    commit = _git("log", "-1", "--format=%H")
    if commit and _git("status", "--porcelain"):
        commit += "-dirty"
    return {"bitemporal": bitemporal.__version__, "commit": commit or None}


def _git(*words: str) -> str:
    """Output of git for the package's folder; empty without git, or if the folder is in no source tree."""
    command = ["git", "-C", str(Path(bitemporal.__file__).resolve().parent), *words, "--", "."]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
