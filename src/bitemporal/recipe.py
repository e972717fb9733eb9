"""Typed description of a run: command line options, YAML file and ``recipe.yaml`` of a run folder are all this."""

import dataclasses
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from bitemporal.car import CarPartition
from bitemporal.errors import RecipeError
from bitemporal.files import replacing

Precision = Literal["fp32", "bf16", "fp16"]
Criterion = Literal["mse", "kl", "confident"]
Weighting = Literal["hard", "soft", "all", "frequency", "calibrated"]
"""How teachers share a pair: one answers, neighbours of a threshold share it, or all do."""
RoutingCar = Literal["crop", "pair"]
Start = Literal["scratch", "origin"]
Sampling = Literal["uniform", "balanced"]
AugmentationChoice = Literal["model", "standard", "changer", "none"]

STAGES = ("origin", "teachers", "control", "student", "verdict")
"""Stages of a distillation run, in order."""


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """How one network is trained.

    Attributes:
        model: Registered name of the network, for example tinycd.
        data: Folder of pairs, ROOT/{train,val,test}/{A,B,label}.
        out: Run folder; started again with the same recipe, it goes on from where it stopped.
        model_options: Arguments of the network's class, as a YAML mapping.
        pretrained: Start the encoder from pretrained weights.
        max_steps: Optimiser steps (of the origin, in a distillation run).
        validate_every: Steps between validations; a twentieth of a stage by default.
        batch_size: Pairs a step, over all devices; the model's default when not given.
        crop_size: Height and width of the training crops, in pixels.
        lr: Peak learning rate of AdamW; the model's default when not given.
        weight_decay: Weight decay of AdamW; the model's default when not given.
        warmup_steps: Steps of linear warm-up; 1000, but at most a tenth of the stage, when not given.
        augmentation: The model's own recipe, standard, changer, or none.
        precision: Arithmetic of the forward and backward pass.
        devices: Number of devices (GPUs where there are any, else CPU processes).
        workers: Processes that load pairs, a device.
        seed: Seed of weights, sampling, augmentation and dropout.
        label_values: Values of unchanged, changed and, if any, ignored pixels, as in 1,2 or 0,1,255.
        label_threshold: Label values at or above this are changed.
        image_range: Values that map to 0 and 255, for images of more than 8 bits.
        validation_share: Share of the training pairs set aside for validation when there is no val split.
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
    augmentation: AugmentationChoice = "model"
    precision: Precision = "fp32"
    devices: int = 1
    workers: int = 2
    seed: int = 0
    label_values: tuple[int, ...] | None = None
    label_threshold: float | None = None
    image_range: tuple[float, float] | None = None
    validation_share: float = 0.1

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            RecipeError: Naming the field.
        """
        for name in ("max_steps", "validate_every", "batch_size", "crop_size", "devices"):
            _require(self, name, lambda v: v >= 1, "at least 1")
        _require(self, "lr", lambda v: 0 < v < math.inf, "a number above 0")
        for name in ("workers", "weight_decay", "warmup_steps"):
            _require(self, name, lambda v: 0 <= v < math.inf, "0 or more")
        _require(self, "validation_share", lambda v: 0 < v < 1, "between 0 and 1")
        if self.batch_size is not None and self.batch_size % self.devices:
            raise RecipeError(
                f"batch_size: {self.batch_size} pairs do not divide over {self.devices} devices; give a multiple"
            )

    def to_yaml(self, path: str | os.PathLike[str]) -> None:
        """Write the recipe, atomically; ``--config`` of the command reads it."""
        with replacing(path) as temporary:
            temporary.write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), encoding="utf-8")

    def to_dict(self) -> dict[str, Any]:
        """The fields under their command line names, as plain YAML types."""
        return {
            name.rstrip("_"): list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }


@dataclass(frozen=True, kw_only=True)
class DistillRecipe(TrainRecipe):
    """How origin, teachers, control and student are trained.

    Attributes:
        teacher_model: Registered name of the teachers' network; the student's when not given.
        teacher_steps: Optimiser steps of each teacher; half of max_steps when not given.
        student_steps: Optimiser steps of student and control; half of max_steps when not given.
        parts: Number of CAR parts, split at the paper's thresholds (2 or 3); 3 when nothing else is said.
        thresholds: CAR thresholds, as in 0.05,0.20, for any number of parts; instead of parts.
        lambda_: Weight of the distillation term; the model's default (paper, Table II) when not given.
        criterion: Distillation criterion: mse on raw outputs (the paper's), or kl between probabilities.
        temperature: Temperature of kl.
        teacher_start: Teachers start from scratch (the paper), or from the origin's weights.
        routing: A pair is taught by the teacher of its part (hard), by two near a threshold (soft), or by all.
        routing_car: CAR that chooses the teacher: of the augmented crop, or of the pair.
        sampling: Student and control see pairs uniformly, or the CAR parts equally often (balanced).
        ema: Decay of the running mean of student's and control's weights; none by default.
        stages: Stages to run, comma-separated; all of origin,teachers,control,student,verdict by default.
    """

    teacher_model: str | None = None
    teacher_steps: int | None = None
    student_steps: int | None = None
    parts: int | None = None
    thresholds: tuple[float, ...] | None = None
    lambda_: float | None = None
    criterion: Criterion = "mse"
    temperature: float = 2.0
    teacher_start: Start = "scratch"
    routing: Weighting = "hard"
    routing_car: RoutingCar = "crop"
    sampling: Sampling = "uniform"
    ema: float | None = None
    stages: str = ",".join(STAGES)

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            RecipeError: Naming the field.
        """
        super().__post_init__()
        for name in ("teacher_steps", "student_steps"):
            _require(self, name, lambda v: v >= 1, "at least 1")
        _require(self, "lambda_", lambda v: 0 <= v < math.inf, "0 or more")
        _require(self, "temperature", lambda v: 0 < v < math.inf, "a number above 0")
        unknown = [stage for stage in self.stage_names if stage not in STAGES]
        if unknown or not self.stage_names:
            raise RecipeError(f"stages: found {self.stages!r}, expected some of {','.join(STAGES)}, comma-separated")
        _ = self.partition

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages to run, in order."""
        named = [stage.strip() for stage in self.stages.split(",") if stage.strip()]
        return tuple(sorted(named, key=lambda stage: STAGES.index(stage) if stage in STAGES else -1))

    @property
    def partition(self) -> CarPartition:
        """The CAR partition of the run.

        Raises:
            PartitionError: When the thresholds are not increasing ratios.
            RecipeError: When parts are given besides.
        """
        if self.thresholds is None:
            return CarPartition.of_paper(3 if self.parts is None else self.parts)
        if self.parts is not None:
            raise RecipeError("parts and thresholds both say how to part the pairs; give one of them")
        return CarPartition(self.thresholds)


def _require(recipe: TrainRecipe, name: str, holds: Callable[[Any], bool], expected: str) -> None:
    value = getattr(recipe, name)
    if value is not None and not holds(value):
        raise RecipeError(f"{name.rstrip('_')}: found {value}, expected {expected}")


_MAY_DIFFER = {"out", "data", "stages", "devices", "workers"}
"""Fields that may change between the start and the continuation of a run."""


def has_checkpoint(run: Path) -> bool:
    """Whether any stage of a run folder has left something to go on from."""
    return any(path.is_file() for pattern in ("*/last.ckpt", "*/bundle/bundle.json") for path in run.glob(pattern))


def check_same_run(recipe: TrainRecipe, path: str | os.PathLike[str]) -> None:
    """Refuse to go on with a run that was started with another recipe.

    Args:
        recipe: The recipe now.
        path: ``recipe.yaml`` of the run folder; nothing is checked where there is none, or no checkpoint to go on
            from.

    Raises:
        RecipeError: Lists the fields that differ.
    """
    target = Path(path)
    if not target.exists() or not has_checkpoint(target.parent):
        return
    try:
        before = dict(yaml.safe_load(target.read_text(encoding="utf-8")))
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise RecipeError(f"{target}: not a recipe in YAML ({error}); remove it or use another run folder") from error
    now = recipe.to_dict()
    differing = [
        f"{name} ({before.get(name)!r} then, {now.get(name)!r} now)"
        for name in dict.fromkeys([*now, *before])  # `train` in the folder of a `distill` run lacks fields
        if name not in _MAY_DIFFER and before.get(name) != now.get(name)
    ]
    if differing:
        raise RecipeError(
            f"{target}: this run was started with another recipe; {', '.join(differing)}. "
            "Give the same options to go on with it, or another --out to start anew"
        )


GridChoice = Literal["before", "intersection", "union"]
Routing = Literal["tile", "scene"]


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """How a scene is read, predicted and drawn.

    Attributes:
        grid: The area of the result, in pixels of date 1: all of date 1 (before), what both dates cover
            (intersection), or what any of them covers (union).
        bands: Bands to use of a file with several, from 1, in the order red, green, blue, as in 3,2,1.
        nodata: Value that stands for no data, instead of what the files say.
        image_range: Values that map to 0 and 255, as in 0,4000, or such a pair for each of three channels; by default
            0 and 255 for 8 bits, else percentiles 1 and 99 of both dates together.
        register: Estimate a global shift between the dates, and undo it.
        tile: Most pixels of a tile's side; 512 by default, or more where the network needs it.
        overlap: Pixels that neighbouring tiles share at least, beside the band in which they are blended.
        batch_size: Tiles predicted at once.
        threshold: Probability above which a pixel is changed.
        routing: What Origin-Partition takes the CAR of: each tile, or the whole scene, which runs the origin first.
        minimum_area: Square metres below which a polygon is left out.
        smooth: Cut the corners of the polygons' stairs.
    """

    grid: GridChoice = "before"
    bands: tuple[int, ...] | None = None
    nodata: float | None = None
    image_range: tuple[float, ...] | None = None
    register: bool = False
    tile: int | None = None
    overlap: int = 64
    batch_size: int = 4
    threshold: float = 0.5
    routing: Routing = "tile"
    minimum_area: float = 0.0
    smooth: bool = False

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            RecipeError: When one cannot be used.
        """
        for name, least in (("tile", 1), ("overlap", 0), ("batch_size", 1), ("minimum_area", 0)):
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise RecipeError(f"{name}: found {value}, expected at least {least}")
        for name, choices in (("grid", get_args(GridChoice)), ("routing", get_args(Routing))):
            if getattr(self, name) not in choices:
                raise RecipeError(f"{name}: found {getattr(self, name)!r}, expected one of {', '.join(choices)}")
        if not 0 <= self.threshold < 1:
            raise RecipeError(f"threshold: found {self.threshold:g}, expected a probability from 0 to below 1")
