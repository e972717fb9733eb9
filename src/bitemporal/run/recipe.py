"""The recipe of a run: command line options, a YAML file, and ``recipe.yaml`` of a run folder have the same fields."""

import dataclasses
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from bitemporal.errors import BitemporalError, RecipeError
from bitemporal.files import from_folder, options_from_folder
from bitemporal.imagery.scale import RGB, check_bands, check_image_range
from bitemporal.method.car import CarPartition
from bitemporal.models.card import ModelCard, TrainingDefaults
from bitemporal.outputs import replacing
from bitemporal.pairs import PairOptions
from bitemporal.reading import read_yaml as read_yaml_file
from bitemporal.reading import reading
from bitemporal.run.folder import CONTROL, ORIGIN, STUDENT

if TYPE_CHECKING:
    from bitemporal.method.loss import Criterion

Precision = Literal["fp32", "bf16", "fp16"]

_PAPER = {"teacher_start": "scratch", "teachers": "part", "criterion": "mse"}
_PAPER_OPTIONS = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in _PAPER.items())
_DEFAULTS = {"teachers": "all", "criterion": "kl"}

_COMMAND_WORKERS = 2

_STEPS = 10**9
_MOST = {"batch_size": 2**16, "crop_size": 2**15, "devices": 2**16}
"""What no machine does more of; how much memory there is here is seen when a run begins."""

STAGES = ("origin", "teachers", "control", "student", "verdict")
"""Stages of a distillation run, in order."""


PATHS = ("data", "out", "splits", "reuse")
"""Fields of a recipe that are paths."""


@dataclass(frozen=True, kw_only=True)
class TrainRecipe(PairOptions):
    """How one network is trained.

    Attributes:
        model: Registered name of the network, for example tinycd.
        data: Folder of pairs, ROOT/{train,val,test}/{A,B,label}, or as data sets are released.
        out: Run folder; with the same recipe, an interrupted run resumes there.
        model_options: Arguments of the network's class, as a YAML mapping.
        pretrained: Start the encoder from pretrained weights.
        max_steps: Optimiser steps (of the origin, in a distillation run). A larger number than before extends the run.
        validate_every: Steps between validations; a twentieth of a stage by default.
        batch_size: Pairs per step, over all devices; the model's default when not given.
        crop_size: Height and width of the training crops, in pixels.
        lr: Peak learning rate of AdamW; the model's default when not given.
        weight_decay: Weight decay of AdamW; the model's default when not given.
        warmup_steps: Steps of linear warm-up; 1000, but at most a tenth of the stage, when not given.
        augmentation: The model's own recipe, standard, changer, or none.
        precision: Arithmetic of the forward and backward pass.
        devices: Number of devices (GPUs where there are any, else CPU processes).
        workers: Processes per device that load pairs; when left out, 2 in a command, and none in Python.
        seed: Seed of weights, sampling, augmentation and dropout.
        validation_share: Share of the training pairs set aside for validation when there is no val split.
        validation_seed: Seed for choosing those pairs; runs with different seeds then share them.
    """

    model: str
    data: str
    out: str
    model_options: dict[str, Any] = field(default_factory=dict)
    pretrained: bool = False
    max_steps: int = 20_000
    validate_every: int | None = None
    batch_size: int | None = None
    crop_size: int = 256
    lr: float | None = None
    weight_decay: float | None = None
    warmup_steps: int | None = None
    augmentation: Literal["model", "standard", "changer", "none"] = "model"
    precision: Precision = "fp32"
    devices: int = 1
    workers: int | None = None
    seed: int = 0
    validation_share: float = 0.1
    validation_seed: int = 0

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            OptionError: Naming the field.
        """
        check_bands(self.bands)
        check_image_range(self.image_range, self.bands)
        for name, most in {"max_steps": _STEPS, "validate_every": _STEPS, **_MOST}.items():
            _require_between(self, name, 1, most)
        for name in ("seed", "validation_seed"):
            _require(self, name, lambda v: 0 <= v < 2**63, "a whole number from 0 to 2^63 - 1")
        _require(self, "lr", lambda v: 0 < v <= _LARGEST_RATE, f"a number above 0 and at most {_LARGEST_RATE:,}")
        for name in ("workers", "weight_decay"):
            _require(self, name, lambda v: 0 <= v < math.inf, "0 or more")
        _require_between(self, "warmup_steps", 0, _STEPS)
        _require(self, "validation_share", lambda v: 0 < v < 1, "between 0 and 1")
        if self.batch_size is not None and self.batch_size % self.devices:
            raise RecipeError(
                f"batch_size: {self.batch_size} pairs do not divide over {self.devices} devices; give a multiple"
            )

    def of_command(self) -> Self:
        """The recipe as a command runs it: with loading processes, where it does not say how many."""
        return self if self.workers is not None else dataclasses.replace(self, workers=_COMMAND_WORKERS)

    def check_memory(self, card: ModelCard) -> None:
        """Refuse crops that this machine cannot even hold as pixels.

        Args:
            card: The card of the network, for the number of pairs where the recipe gives none.

        Raises:
            RecipeError: Naming both fields.
        """
        if not hasattr(os, "sysconf"):  # Windows
            return
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        pairs = self.training(card).batch_size
        needed = pairs // self.devices * self.crop_size**2 * self.channels * 2 * 4
        if needed > memory:
            raise RecipeError(
                f"batch_size, crop_size: {pairs} pairs of {self.crop_size} x {self.crop_size} pixels take "
                f"{needed / 1e9:.3g} GB before any network sees them, and this machine has {memory / 1e9:.3g} GB; "
                "choose smaller ones"
            )

    @property
    def channels(self) -> int:
        """Channels of every network of the run: the bands, or red, green and blue."""
        return RGB if self.bands is None else len(self.bands)

    @property
    def partition(self) -> CarPartition:
        """The CAR partition of the run: the paper's three parts."""
        return CarPartition()

    def steps_of(self, stage: str) -> int:
        """Optimiser steps of a stage, by its name."""
        return self.max_steps

    def training(self, card: ModelCard) -> TrainingDefaults:
        """How a network is trained: as the recipe says, else by the network's own defaults."""
        given = {name: getattr(self, name) for name in ("lr", "weight_decay", "batch_size")}
        return dataclasses.replace(card.training, **{name: v for name, v in given.items() if v is not None})

    def to_yaml(self, path: str | os.PathLike[str]) -> None:
        """Write the recipe, atomically; ``--config`` of the command reads it.

        Paths are absolute, but for the run folder of a recipe that lies in it, which may be moved.
        """
        content = self.to_dict()
        if content["out"] == os.path.dirname(os.path.abspath(path)):
            content["out"] = "."
        with replacing(path) as temporary:
            temporary.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> Self:
        """Read a recipe that ``to_yaml`` wrote; relative paths start at its folder.

        Raises:
            RecipeError: When the file is missing or not YAML, or a field is unknown or has an unusable value.
        """
        fields = {field.name.rstrip("_"): field.name for field in dataclasses.fields(cls)}
        written = read_yaml(path)
        folder = _start_of_paths(Path(os.path.abspath(path)).parent, written.get("out"))
        content = {fields.get(name, name): value for name, value in _paths_from(folder, written).items()}
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--recipe", type=cls)
        remedy = "restore the file from a backup"
        try:
            with reading(Path(path), RecipeError, f"expected a recipe of this version; {remedy}"):
                recipe: Self = parser.instantiate_classes(parser.parse_object({"recipe": content})).recipe
        except (ArgumentError, BitemporalError) as error:
            raise RecipeError(f"{path}: not a recipe of this version ({error}); {remedy}") from error
        return recipe

    def to_dict(self) -> dict[str, Any]:
        """The fields under their command line names, as plain YAML types; paths are absolute."""
        content = {
            name.rstrip("_"): list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }
        return _paths_from(Path(), content)


def is_written_recipe(path: Path) -> bool:
    """Whether a file is a recipe as ``to_yaml`` writes it, without comments or another hand's layout."""
    try:
        text = path.read_text(encoding="utf-8")
        content = read_yaml_file(path)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return False
    known = isinstance(content, dict) and content.keys() >= _ALWAYS
    return known and text == yaml.safe_dump(content, sort_keys=False)


_LARGEST_RATE = 1_000_000
"""Far beyond every rate with which a network learns; float32 could not hold much larger ones."""

_ALWAYS = {"model", "data", "out", "max_steps", "crop_size", "precision", "seed", "validation_share"}
"""Fields of every recipe that ``to_yaml`` has written, in this version or an earlier one."""


def _paths_from(folder: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a recipe with absolute paths, also in the network's options; relative ones start at a folder."""
    paths = {name: from_folder(fields[name], folder) for name in PATHS if name in fields}
    options = {name: options_from_folder(fields[name], folder) for name in ("model_options",) if name in fields}
    return fields | paths | options


def _start_of_paths(folder: Path, out: object) -> Path:
    """Where the relative paths of a recipe start: at its folder, or where the command of an earlier version was called.

    Such a version wrote ``out: runs/x`` to ``.../runs/x/recipe.yaml``.
    """
    parts = Path(str(out or ".")).parts
    return folder.parents[len(parts) - 1] if parts and folder.parts[-len(parts) :] == parts else folder


@dataclass(frozen=True, kw_only=True)
class DistillRecipe(TrainRecipe):
    """How origin, teachers, control and student are trained.

    Attributes:
        paper: Settings of the JL1-CD paper: teacher_start scratch, teachers part, criterion mse, and lambda of its
            Table II. It cannot be combined with other values of these.
        reuse: Folder of a finished run. Origin, teachers and validation split are copied from there, and the control
            where it would be the same; only the rest is trained, for another lambda, criterion, temperature, teachers,
            seed or student_steps. Everything else must be as in that run.
        teacher_model: Registered name of the teachers' network; the student's when not given.
        teacher_start: Teachers start from the origin's weights (origin) or, as in the paper, like the origin (scratch);
            from the origin by default, unless the teachers are another network.
        teacher_steps: Optimiser steps of each teacher; half of max_steps when not given.
        student_steps: Optimiser steps of student and control; half of max_steps when not given.
        parts: Number of CAR parts, split at the paper's thresholds (2 or 3); 3 by default.
        thresholds: CAR thresholds, as in 0.05,0.20, for any number of parts; instead of parts.
        lambda_: Weight of the distillation term; when not given, 1 for kl, and for mse the model's default (paper,
            Table II).
        criterion: Distillation criterion: kl between probabilities (default), or mse on raw outputs (the paper's).
        temperature: Temperature of kl; mse does not depend on it.
        teachers: Who teaches a pair: every teacher, calibrated and weighted by the size of its part (all, the default);
            or, as in the paper, the teacher of the pair's part alone (part).
        stages: Stages to run, comma-separated; all of origin,teachers,control,student,verdict by default.
    """

    paper: bool = False
    reuse: str | None = None
    teacher_model: str | None = None
    teacher_start: Literal["origin", "scratch"] | None = None
    teacher_steps: int | None = None
    student_steps: int | None = None
    parts: int | None = None
    thresholds: tuple[float, ...] | None = None
    lambda_: float | None = None
    criterion: str | None = None
    temperature: float = 2.0
    teachers: Literal["all", "part"] | None = None
    stages: str = ",".join(STAGES)

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            RecipeError: Naming the field.
        """
        super().__post_init__()
        for name, value in _PAPER.items() if self.paper else ():
            self._set(name, value)
        if self.paper and self.lambda_ is not None:
            raise RecipeError(
                f"paper: its lambda is that of its Table II, but lambda is {self.lambda_}; leave one of them out, or "
                f"replace paper by {_PAPER_OPTIONS}"
            )
        for name, value in _DEFAULTS.items():
            if getattr(self, name) is None:
                self._set(name, value)
        for name in ("teacher_steps", "student_steps"):
            _require_between(self, name, 1, _STEPS)
        _require(self, "lambda_", lambda v: 0 <= v < math.inf, "0 or more")
        _ = self.chosen_criterion
        _require(self, "temperature", lambda v: 1e-3 <= v <= 1e3, "a number from 0.001 to 1000")
        if self.teacher_start == "origin" and self.teacher_model not in (None, self.model):
            raise RecipeError(
                f"teacher_start: found origin, but the teachers are {self.teacher_model} and the origin is "
                f"{self.model}, whose weights do not fit; leave it out, or give scratch"
            )
        if not self.stage_names or not self.stage_names <= set(STAGES):
            raise RecipeError(f"stages: found {self.stages!r}, expected some of {','.join(STAGES)}, comma-separated")
        _ = self.partition

    def _set(self, name: str, value: str) -> None:
        """Give a field its value, unless it has another one."""
        if getattr(self, name) not in (None, value):
            raise RecipeError(
                f"paper: its {name} is {value}, but {name} is {getattr(self, name)}; leave one of them out"
            )
        object.__setattr__(self, name, value)

    @property
    def chosen_criterion(self) -> "Criterion":
        """The criterion of the recipe."""
        from bitemporal.method.loss import criterion  # here: options are explained without torch

        return criterion(self.criterion or _DEFAULTS["criterion"])

    def steps_of(self, stage: str) -> int:
        """Optimiser steps of a stage, by its name."""
        if stage == ORIGIN:
            return self.max_steps
        given = self.student_steps if stage in (CONTROL, STUDENT) else self.teacher_steps
        return given or max(1, self.max_steps // 2)

    @property
    def stage_names(self) -> set[str]:
        """Names of the stages to run."""
        return {stage.strip() for stage in self.stages.split(",")} - {""}

    @property
    def teachers_start_from_origin(self) -> bool:
        """Whether the teachers start from the origin's weights."""
        if self.teacher_start is None:
            return self.teacher_model in (None, self.model)
        return self.teacher_start == "origin"

    @property
    def partition(self) -> CarPartition:
        """The CAR partition of the run.

        Raises:
            OptionError: When parts and thresholds are given.
            PartitionError: When the thresholds are not increasing ratios.
        """
        return CarPartition.of_options(self.parts, self.thresholds) or CarPartition()


def _require_between(recipe: TrainRecipe, name: str, least: int, most: int) -> None:
    _require(recipe, name, lambda value: least <= value <= most, f"at least {least} and at most {most:,}")


def _require(recipe: TrainRecipe, name: str, holds: Callable[[Any], bool], expected: str) -> None:
    value = getattr(recipe, name)
    if value is not None and not holds(value):
        raise RecipeError(f"{name.rstrip('_')}: found {value}, expected {expected}")


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of a recipe file as they stand there, unchecked.

    Raises:
        RecipeError: When the file is missing, or does not hold named values in YAML.
    """
    with reading(Path(path), RecipeError, "expected a recipe in YAML; restore it from a backup or remove it"):
        content = read_yaml_file(Path(path))
        if not isinstance(content, dict):
            raise TypeError(f"it holds {type(content).__name__}, not named values")
        return {str(name): value for name, value in content.items()}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Run.

    Attributes:
        data: Folder of the pairs; data/DATASET by default.
        out: Run folder; runs/DATASET-MODEL by default.
        parts: Number of CAR parts: 3, or 2 as in the paper's Table V.
        devices: Number of GPUs.
        precision: Arithmetic of the forward and backward pass.
        workers: Processes that load pairs, per device.
        seed: Seed of weights, sampling, augmentation and dropout; the paper gives none.
    """

    data: str | None = None
    out: str | None = None
    parts: int = 3
    devices: int = 1
    precision: Precision = "fp32"
    workers: int = 4
    seed: int = 0
