"""The folder of a run: the only place that knows its names and its layout.

::

    RUN/recipe.yaml  reused.json  partition.csv  splits.csv  metrics.json  overview.png  report.html
    RUN/STAGE/bundle/  last.ckpt  best.safetensors  metrics.csv      STAGE: origin, teacher-PART, control, student
    RUN/o-p/bundle/                                                  Origin-Partition: origin and teachers together
    RUN/scores/SPLIT/DETECTOR.json                                   DETECTOR: origin, o-p, control, student
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from bitemporal.errors import OutputError
from bitemporal.outputs import locked

ORIGIN, CONTROL, STUDENT = "origin", "control", "student"
"""Names of the stages with one network."""

O_P = "o-p"
"""Name of Origin-Partition among the detectors of a run."""

DETECTORS = (ORIGIN, O_P, CONTROL, STUDENT)
"""Names of the detectors that a run compares, in the order of its tables."""


def teacher_stage(part: str) -> str:
    """Name of the stage that trains the teacher of a part, as in ``teacher-small``."""
    return f"teacher-{part}"


class StageFolder:
    """What one stage of a run leaves behind, or Origin-Partition, which is a bundle alone.

    Attributes:
        path: The folder.
        bundle: The trained network; it appears when the stage is finished.
        checkpoint: Everything that an interrupted stage needs to resume.
        best: Weights of the best validation so far; removed when the stage is finished.
        metrics: Losses and validation metrics by step.
    """

    def __init__(self, path: Path) -> None:
        """Name a folder, which need not exist."""
        self.path = path
        self.bundle = path / "bundle"
        self.checkpoint = path / "last.ckpt"
        self.best = path / "best.safetensors"
        self.metrics = path / "metrics.csv"

    def files(self) -> list[Path]:
        """What the stage writes."""
        return [self.bundle, self.checkpoint, self.best, self.metrics]

    @property
    def begun(self) -> bool:
        """Whether the stage has left something to resume from, or its bundle."""
        return self.checkpoint.is_file() or self.finished

    @property
    def finished(self) -> bool:
        """Whether the stage has been trained to its end, and its bundle can be loaded."""
        return (self.bundle / "bundle.json").is_file()


class RunFolder:
    """Where a run keeps what.

    Attributes:
        path: The folder.
        recipe: The recipe of the run.
        reused: What was copied from another run, with its digests, where ``reuse`` asks for it.
        partition: Split, CAR and part of every pair.
        splits: Split of every pair, where the run has set validation pairs aside.
        metrics: Scores and verdict.
        overview: Picture of a few pairs.
        report: The report.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Name a folder, which need not exist."""
        self.path = Path(path)
        self.recipe = self.path / "recipe.yaml"
        self.reused = self.path / "reused.json"
        self.partition = self.path / "partition.csv"
        self.splits = self.path / "splits.csv"
        self.metrics = self.path / "metrics.json"
        self.overview = self.path / "overview.png"
        self.report = self.path / "report.html"

    def stage(self, name: str) -> StageFolder:
        """Folder of a stage, as in ``origin`` or ``teacher-small``, or of Origin-Partition."""
        return StageFolder(self.path / name)

    def teacher(self, part: str) -> StageFolder:
        """Folder of the stage that trains the teacher of a part."""
        return self.stage(teacher_stage(part))

    def scores(self, split: str, detector: str) -> Path:
        """Result file of a detector, one of ``DETECTORS``, on a split."""
        return self.path / "scores" / split / f"{detector}.json"

    @classmethod
    def of_scores(cls, path: str | os.PathLike[str]) -> Self | None:
        """The run that a result file is written into, ``RUN/scores/SPLIT/DETECTOR.json``; ``None`` elsewhere."""
        places = Path(os.path.abspath(path)).parents
        if len(places) > 2 and places[1].name == "scores" and cls(places[2]).recipe.is_file():
            return cls(places[2])
        return None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing into the run; the lock ends with this process.

        Raises:
            OutputError: When another process holds it, the folder cannot be written to, or it is a file.
        """
        if self.path.is_file():
            raise OutputError(f"out: {self.path} is a file, expected a folder or a new name")
        with locked(self.path / "run"):
            yield

    def stages(self) -> list[str]:
        """Names of the stages that have begun to train, teachers between origin and control."""
        names = (path.parent.name for path in self.path.glob("*/metrics.csv"))
        rank = {ORIGIN: 0, CONTROL: 2, STUDENT: 3}
        return sorted(names, key=lambda name: (rank.get(name, 1), name))

    def files(self) -> list[Path]:
        """What the run itself writes, without its stages and scores."""
        files = [self.recipe, self.reused, self.partition, self.splits, self.metrics, self.overview, self.report]
        return [*files, self.stage(O_P).bundle]

    def finished_stages(self) -> list[str]:
        """Names of the stages that have their bundle."""
        names = (path.parents[1].name for path in self.path.glob("*/bundle/bundle.json"))
        return sorted(name for name in names if name != O_P)

    def has_checkpoint(self) -> bool:
        """Whether any stage has left something to resume from."""
        patterns = ("*/last.ckpt", "*/bundle/bundle.json")
        return any(path.is_file() for pattern in patterns for path in self.path.glob(pattern))
