"""The stages of a run, in the order of the JL1-CD paper (arXiv 2502.13407, sections on O-P and MTKD).

Origin, teachers, control, student, verdict. The paper has no control: it is the student's training without the
distillation term, so that the gain from distillation can be told apart from the gain from longer training.

A run that is started again walks through all stages. ``train_stage`` in ``run/fit.py`` skips a stage whose bundle is
complete, and resumes another one at its ``last.ckpt``. The verdict is computed again from the bundles.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from bitemporal.errors import BundleError, OptionError, RecipeError
from bitemporal.evaluation import Evaluation
from bitemporal.inference.bundle import load_network
from bitemporal.method.loss import DistillationLoss, view_for
from bitemporal.method.teachers import CALIBRATION_SAMPLES, AllTeachers, PartTeachers, Teachers, calibrate, log_odds
from bitemporal.models import ChangeModel, create_model, model_card
from bitemporal.run.data import TRAIN, VAL, prepare_data, say
from bitemporal.run.fit import Stage, check_fit, train_stage
from bitemporal.run.folder import CONTROL, ORIGIN, STUDENT, RunFolder, teacher_stage
from bitemporal.run.learner import Learner
from bitemporal.run.lengths import check_lengths, is_trained
from bitemporal.run.loading import training_loader
from bitemporal.run.networks import check_registered
from bitemporal.run.outputs import check_run_outputs, writes_recipe
from bitemporal.run.processes import is_first_process, make_fabric
from bitemporal.run.recipe import STAGES, DistillRecipe, TrainRecipe
from bitemporal.run.reuse import reuse_stages
from bitemporal.run.same_recipe import check_same_run
from bitemporal.run.verdict import reach_verdict


class TrainingRun:
    """A run folder with one stage: the origin."""

    def __init__(self, recipe: TrainRecipe, console: Console | None = None, overwrite: bool = False) -> None:
        """Open or start a run.

        Args:
            recipe: What to train, on what, how.
            console: Where progress is shown; standard error by default.
            overwrite: Also replace files that are not an earlier state of this run; never ``recipe.yaml`` or a file
                that is read.

        Raises:
            RecipeError: When the folder holds a run of another recipe, or the recipe does not suit a network.
            BundleError: When a stage cannot be extended.
            OutputError: When the run folder cannot be used.
            DataError: When the pairs cannot be used.
        """
        self.recipe, self.folder, self.overwrite = recipe, RunFolder(recipe.out), overwrite
        self.console = console or Console(stderr=True, quiet=not is_first_process())
        _check_networks(recipe)
        recipe.check_memory(model_card(recipe.model))
        with self.locked():
            check_same_run(recipe, self.folder)
            check_lengths(recipe, self.folder)
            if is_first_process():
                check_run_outputs(recipe, self.folder, overwrite)
            if isinstance(recipe, DistillRecipe) and recipe.reuse is not None:
                reuse_stages(recipe, self.folder, self.console)
            self.data = prepare_data(recipe, self.folder, self.console, overwrite)
            if is_first_process() and writes_recipe(recipe, self.folder):
                recipe.to_yaml(self.folder.recipe)

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes from writing into the run folder, as every stage does.

        Raises:
            OutputError: When another process is writing into it.
        """
        return lock_of(self.recipe)

    def origin(self) -> Path:
        """Train the origin on all training pairs.

        Returns:
            The bundle with the best weights on the validation pairs.
        """
        stage = self._stage(ORIGIN, stream=ORIGIN)
        return self._train(stage, partial(_new_learner, self.recipe, self.recipe.model))

    def _stage(self, name: str, stream: str, part: str | None = None) -> Stage:
        """A stage on all pairs, or on those of one part."""
        train, val = (self.data.pairs.get(split, []) for split in (TRAIN, VAL))
        if part is not None:
            train, val = self.data.of_part(TRAIN, part), self.data.of_part(VAL, part) or val
        return Stage(
            name,
            self.recipe,
            self.data.folder,
            self.folder.stage(name),
            train,
            val,
            self.recipe.steps_of(name),
            stream,
            self.data.absent_class(val),
        )

    def _train(self, stage: Stage, build: Callable[[], Learner]) -> Path:
        if stage.finished:
            say(self.console, f"{stage.name}: already finished")
        with self.locked():
            return train_stage(stage, build, self.console)


class DistillationRun(TrainingRun):
    """A run folder and the stages in it: origin, teachers, control, student and verdict."""

    recipe: DistillRecipe

    def __call__(self) -> dict[str, Evaluation]:
        """Run the stages that the recipe names.

        Returns:
            The evaluations of origin, O-P, control and student, as far as they exist; empty without the verdict.
        """
        stages = {
            "origin": self.origin,
            "teachers": self.teachers,
            "control": self.control,
            "student": self.student,
        }
        with self.locked():
            for name, stage in stages.items():
                if name in self.recipe.stage_names:
                    stage()
            return self.verdict() if "verdict" in self.recipe.stage_names and is_first_process() else {}

    def teachers(self) -> None:
        """Train a teacher for each part, on the training pairs of that part alone (paper, section on O-P)."""
        network = self.recipe.teacher_model or self.recipe.model
        if self.recipe.teachers_start_from_origin:
            build = self._origin_learner
        else:
            build = partial(_new_learner, self.recipe, network)
        for part in self.data.partition.names:
            name = teacher_stage(part)
            if part not in self.data.taught_parts:
                say(self.console, f"{name}: no training pairs in this part; the origin answers for it")
                continue
            if not self.data.of_part(VAL, part):
                say(self.console, f"{name}: no validation pairs in this part; all of them choose its checkpoint")
            stage = self._stage(name, stream=name, part=part)
            self._train(stage, build)

    def control(self) -> None:
        """Train the origin further without teachers, as long as the student."""
        self._train(self._student_stage(CONTROL), self._origin_learner)

    def student(self) -> None:
        """Train the origin further with the distillation term (paper, section on MTKD)."""
        self._train(self._student_stage(STUDENT), self.student_learner)

    def verdict(self) -> dict[str, Evaluation]:
        """Evaluate what has been trained, write scores, table and picture, and print the verdict.

        Returns:
            The evaluations of origin, O-P, control and student, as far as they exist.
        """
        with self.locked():
            return reach_verdict(self.recipe, self.folder, self.data, self.overwrite)

    def student_learner(self) -> Learner:
        """The student as it starts: the origin's weights, its own loss, and the distillation term of its teachers."""
        recipe, student = self.recipe, self._trained(ORIGIN)
        chosen = recipe.chosen_criterion
        lambda_ = chosen.default_lambda if recipe.lambda_ is None else recipe.lambda_
        if lambda_ is None:
            lambda_ = student.card.training.distillation_weight
        teachers = self._teachers(student)
        return Learner(student, DistillationLoss(teachers, chosen.distance, lambda_, recipe.temperature))

    def _teachers(self, student: ChangeModel) -> Teachers:
        networks = {part: self._trained(teacher_stage(part)) for part in self.data.taught_parts}
        view = view_for(self.recipe.chosen_criterion, student, networks.values())
        if self.recipe.teachers == "part":
            return PartTeachers(networks, view, self.data.partition)
        teachers = AllTeachers(networks, view, {part: len(self.data.of_part(TRAIN, part)) for part in networks})
        if view is log_odds:  # raw outputs are compared as they are
            self._calibrate(teachers, student)
        return teachers

    def _calibrate(self, teachers: AllTeachers, student: ChangeModel) -> None:
        """Calibrate the teachers with the first samples that the student will see."""
        device = make_fabric(self.recipe).device
        teachers.to(device)
        stage, size = self._student_stage(STUDENT), self.recipe.training(student.card).batch_size
        batches = training_loader(
            stage.samples(student.card),
            first_step=0,
            steps=min(-(-CALIBRATION_SAMPLES // size), stage.lengths[0]),  # the same after an extension
            batch_size=size,
            workers=self.recipe.workers or 0,
        )
        teachers.shifts = calibrate(teachers.networks, (batch.to(device) for batch in batches))
        teachers.to(torch.device("cpu"))  # each process of the stage moves them to a device of its own
        torch.cuda.empty_cache()

    def _student_stage(self, name: str) -> Stage:
        """Student and control see the same samples and draw the same dropout."""
        return self._stage(name, stream=STUDENT)

    def _origin_learner(self) -> Learner:
        """The origin's network with its weights, and its own loss."""
        return Learner(self._trained(ORIGIN))

    def _trained(self, stage: str) -> ChangeModel:
        """The network that a stage has trained.

        Raises:
            BundleError: When the stage is not finished.
        """
        folder = self.folder.stage(stage)
        if not is_trained(folder, self.recipe.steps_of(stage)):
            needed = "teachers" if stage.startswith("teacher-") else stage
            chosen = self.recipe.stage_names | {needed}
            raise BundleError(
                f"{folder.bundle}: stage {stage} has not been trained to its end, and a later stage needs it; run it "
                f"as well: --stages {','.join(name for name in STAGES if name in chosen)}"
            )
        return load_network(folder.bundle)


def train(recipe: TrainRecipe, console: Console | None = None, overwrite: bool = False) -> Path:
    """Train one network on all training pairs; interrupted and called again, it resumes.

    Args:
        recipe: How.
        console: Where progress is shown; standard error by default.
        overwrite: See ``TrainingRun``.

    Returns:
        The bundle with the best weights on the validation pairs.

    Raises:
        BitemporalError: See ``TrainingRun``.
    """
    with lock_of(recipe):
        return TrainingRun(recipe, console, overwrite).origin()


def distill(recipe: DistillRecipe, console: Console | None = None, overwrite: bool = False) -> dict[str, Evaluation]:
    """Run the stages that a recipe names; interrupted and called again, it resumes.

    Args:
        recipe: How.
        console: Where progress is shown; standard error by default.
        overwrite: See ``TrainingRun``.

    Returns:
        See ``DistillationRun``.

    Raises:
        BitemporalError: See ``TrainingRun``.
    """
    with lock_of(recipe):
        return DistillationRun(recipe, console, overwrite)()


def lock_of(recipe: TrainRecipe) -> AbstractContextManager[None]:
    """The lock of a run's folder, which the first of its processes holds."""
    return RunFolder(recipe.out).locked() if is_first_process() else nullcontext()


def _new_learner(recipe: TrainRecipe, name: str) -> Learner:
    """A network with initial weights; the options of the recipe are those of its own network."""
    options = recipe.model_options if name == recipe.model else {}
    return Learner(create_model(name, pretrained=recipe.pretrained, in_channels=recipe.channels, **options))


def _check_networks(recipe: TrainRecipe) -> None:
    """Refuse, before any image is read, what no network could be built with.

    Raises:
        RecipeError: When a field does not suit a network; the text names it.
        OptionError: When a network has no such option.
        DeviceError: When the machine lacks what a field asks for.
        UnknownModelError: When there is no such network; the text gives the nearest names.
        WeightsError: When there are no pretrained weights.
    """
    if reserved := sorted({"in_channels", "pretrained"} & recipe.model_options.keys()):
        raise RecipeError(
            f"model_options: {', '.join(reserved)} cannot be set there; pretrained is an option, and in_channels is "
            "the number of the bands that are read, 3 by default"
        )
    names = {recipe.model}
    if isinstance(recipe, DistillRecipe) and recipe.teacher_model is not None:
        names.add(recipe.teacher_model)
    places = [recipe.out, recipe.reuse if isinstance(recipe, DistillRecipe) else None]
    check_registered(sorted(names), (RunFolder(place) for place in places if place is not None))
    for name in sorted(names):
        # networks are built here to check their options; asking for weights that do not exist is an error of its own
        asks_in_vain = recipe.pretrained and model_card(name).licence == "none"
        options = recipe.model_options if name == recipe.model else {}
        try:
            card = create_model(name, pretrained=asks_in_vain, in_channels=recipe.channels, **options).card
        except OptionError as error:
            raise RecipeError(f"model_options: {error}") from error
        check_fit(recipe, name, card)
