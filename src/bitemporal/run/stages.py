"""The whole road: origin, CAR partition, teachers, control, student, Origin-Partition, table.

JL1-CD paper (arXiv 2502.13407), sections on O-P and MTKD, with the control that the paper lacks: the student's
training with lambda = 0, so that what distillation gives is told apart from what longer training gives.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bitemporal import __version__
from bitemporal.errors import BundleError, DataError, RecipeError
from bitemporal.evaluation import (
    CONVENTIONS,
    Evaluation,
    Result,
    compare,
    draw_masks,
    evaluate,
    forward_passes,
    spread_by_car,
    verdict_sentence,
)
from bitemporal.files import clear_leftovers, write_json
from bitemporal.inference import Detector, load, save_origin_partition
from bitemporal.inference.bundle import load_network
from bitemporal.method.car import CarPartition
from bitemporal.method.loss import KL_WEIGHT, criterion
from bitemporal.method.teachers import DistillationTask, TeacherBank
from bitemporal.models import ChangeModel, create_model, model_card
from bitemporal.pairs import Pair, PairFolder, check_pairs
from bitemporal.pairs.partition import PartitionRow, read_partition, write_partition
from bitemporal.pairs.splits import stratified_split, write_split
from bitemporal.run.folder import RunFolder
from bitemporal.run.loading import derive_seed
from bitemporal.run.recipe import DistillRecipe, TrainRecipe, check_same_run
from bitemporal.run.stage import Stage, check_fit, optimisation, run_stage
from bitemporal.run.task import ChangeTask
from bitemporal.tables import print_table

ORIGIN_PARTITION = "o-p"
_PAIRS_SHOWN = 6

_METRICS = ("miou", "iou_changed", "f1_changed", "precision_changed", "recall_changed")


@dataclass(frozen=True)
class RunData:
    """The pairs of a run.

    Attributes:
        folder: Reads them.
        rows: Every pair with its CAR and part, under the split that this run uses it for.
        pairs: Labelled pairs by split.
        parts: Name of each pair's part, by split and stem.
    """

    folder: PairFolder
    rows: list[PartitionRow]
    pairs: dict[str, list[Pair]]
    parts: dict[tuple[str, str], str]

    def of_part(self, split: str, part: str) -> list[Pair]:
        """Labelled pairs of one part of a split."""
        return [pair for pair in self.pairs.get(split, []) if self.parts[split, pair.stem] == part]


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def prepare_data(recipe: TrainRecipe, partition: CarPartition, console: Console) -> RunData:
    """Check every file, measure CAR, make a validation split where there is none, and write ``partition.csv``.

    Raises:
        DataError: When files are faulty, or there is nothing to train on.
        RecipeError: When the run folder lies inside the data, or is a file.
    """
    _check_run_folder(recipe)
    folder = PairFolder(
        recipe.data,
        label_values=recipe.label_values,
        label_threshold=recipe.label_threshold,
        image_range=recipe.image_range,
    )
    run = Path(recipe.out)
    for written in (run, run / ORIGIN_PARTITION, run / "scores"):
        clear_leftovers(written)
    checked = RunFolder(run).has_checkpoint()  # a run that goes on has seen the images before
    scan = check_pairs(folder, progress=True, images=not checked)
    # a test split without labels can be predicted; it only gives no scores
    scan.faults = [fault for fault in scan.faults if (fault.kind, fault.path.name) != ("unlabelled", "test")]
    scan.raise_for_faults()
    for warning in scan.warnings:
        _say(console, f"warning: {warning}")
    if scan.decoding:
        _say(console, scan.decoding.describe())
    found = folder.splits
    source = "train" if "train" in found else found[0]
    if (source != "train" and len(found) > 1) or source == "test":
        raise DataError(f"{folder.root}: no folder train to learn from; found {', '.join(found)}")
    paths = {(pair.split, pair.stem): pair for pair in folder.pairs()}
    rows = scan.rows(partition.part)
    if "val" not in found:
        rows = stratified_split(rows, recipe.validation_share, seed=recipe.seed, source=source)
    if checked:
        _check_same_pairs(run / "partition.csv", rows)
    if "val" not in found:
        write_split(run / "splits.csv", rows)
        _say(
            console,
            f"no val split: {sum(row.split == 'val' for row in rows)} of the training pairs set aside, stratified by "
            f"CAR part (seed {recipe.seed}), listed in {run / 'splits.csv'}",
        )
    write_partition(run / "partition.csv", rows)
    pairs: dict[str, list[Pair]] = {}
    for row in rows:
        pair = paths.get((row.split, row.stem)) or paths[source, row.stem]
        split = "train" if row.split == source else row.split
        # of a label without a valid pixel nothing can be learned; in scores it stands as `evaluate` has it
        if pair.label is not None and (split != "train" or not math.isnan(row.car)):
            pairs.setdefault(split, []).append(pair)
    parts = {("train" if row.split == source else row.split, row.stem): row.part for row in rows}
    pairs = {split: listed for split, listed in pairs.items() if any(parts[split, pair.stem] for pair in listed)}
    counts = {split: Counter(parts[split, pair.stem] for pair in listed) for split, listed in pairs.items()}
    for split, count in sorted(counts.items(), key=lambda item: ("train", "val", "test").index(item[0])):
        told = ", ".join(f"{name} {count[name]}" for name in partition.names)
        _say(console, f"{split}: {sum(count.values())} labelled pairs ({told})")
    return RunData(folder.with_decoding(scan.decoding), rows, pairs, parts)


def _check_run_folder(recipe: TrainRecipe) -> None:
    run, data = Path(recipe.out), Path(recipe.data)
    if run.exists() and not run.is_dir():
        raise RecipeError(f"out: {run} is a file, expected a folder or a new name")
    if run.resolve().is_relative_to(data.resolve()):
        raise RecipeError(f"out: {run} lies inside the data folder {data}, which is never written to; name another one")


def _check_same_pairs(path: Path, rows: list[PartitionRow]) -> None:
    """Refuse to go on with other training or validation pairs; test pairs may come later.

    Raises:
        DataError: Naming the first pair that was added, removed, moved or labelled anew.
    """
    if not path.exists():
        return
    before, now = (
        {(row.split, row.stem, str(row.car)) for row in listed if row.split != "test"}
        for listed in (read_partition(path), rows)
    )
    if changed := sorted(before ^ now):
        split, stem, _ = changed[0]
        raise DataError(
            f"{path}: the training or validation pairs are not those that the run was started with, first {split}/"
            f"{stem}; bring them back, or give another --out to start anew"
        )


def _check_networks(recipe: TrainRecipe, names: set[str]) -> None:
    """Refuse, before any image is read, what no network could be built with.

    Raises:
        RecipeError: Naming the field.
        UnknownModelError: With the nearest names.
        WeightsError: When there are no pretrained weights.
    """
    if reserved := sorted({"in_channels", "pretrained"} & recipe.model_options.keys()):
        raise RecipeError(
            f"model_options: {', '.join(reserved)} cannot be set; pairs are RGB, and pretrained is an option"
        )
    for name in sorted(names):
        without_weights = recipe.pretrained and model_card(name).licence == "none"
        model = create_model(name, without_weights, **(recipe.model_options if name == recipe.model else {}))
        check_fit(recipe, name, model.card)


def _start(recipe: TrainRecipe, name: str) -> Callable[[], ChangeModel]:
    return lambda: create_model(
        name, pretrained=recipe.pretrained, **(recipe.model_options if name == recipe.model else {})
    )


def _supervised(recipe: TrainRecipe, stage: Stage, network: Callable[[], ChangeModel]) -> Callable[[], ChangeTask]:
    def build() -> ChangeTask:
        model = network()
        return ChangeTask(model, optimisation(recipe, model.card, stage.steps), derive_seed(recipe.seed, stage.stream))

    return build


def train(recipe: TrainRecipe, console: Console | None = None) -> Path:
    """Train one network on all training pairs; killed and called again, it goes on.

    Args:
        recipe: How.
        console: Where progress is shown; standard error by default.

    Returns:
        The bundle with the best weights on the validation pairs.
    """
    show = console or Console(stderr=True)
    _check_networks(recipe, {recipe.model})
    run = Path(recipe.out)
    check_same_run(recipe, RunFolder(run))
    data = prepare_data(recipe, CarPartition(), show)
    recipe.to_yaml(run / "recipe.yaml")
    stage = Stage(
        "origin", run / "origin", data.pairs.get("train", []), data.pairs.get("val", []), recipe.max_steps, "origin"
    )
    return run_stage(stage, recipe, data.folder, _supervised(recipe, stage, _start(recipe, recipe.model)), show)


class DistillationRun:
    """A run folder and the stages in it; a finished stage is never redone, a killed one goes on exactly."""

    def __init__(self, recipe: DistillRecipe, console: Console | None = None) -> None:
        """Open or start a run.

        Args:
            recipe: What to train, on what, how.
            console: Where progress is shown; standard error by default.

        Raises:
            RecipeError: When the folder holds a run of another recipe, or the crop does not suit a network.
            DataError: When the pairs cannot be used.
        """
        self.recipe, self.run = recipe, Path(recipe.out)
        self.console = console or Console(stderr=True)
        self.partition = recipe.partition
        self.teacher_model = recipe.teacher_model or recipe.model
        _check_networks(recipe, {recipe.model, self.teacher_model})
        check_same_run(recipe, RunFolder(self.run))
        self.data = prepare_data(recipe, self.partition, self.console)
        recipe.to_yaml(self.run / "recipe.yaml")

    def stages(self) -> dict[str, Stage]:
        """All stages by name; a part without training pairs has no teacher."""
        recipe, train, val = self.recipe, self.data.pairs.get("train", []), self.data.pairs.get("val", [])
        half = max(1, recipe.max_steps // 2)
        teacher_steps, student_steps = recipe.teacher_steps or half, recipe.student_steps or half
        stages = [Stage("origin", self.run / "origin", train, val, recipe.max_steps, "origin")]
        for part in self.partition.names:
            name = f"teacher-{part}"
            pairs, chosen_by = self.data.of_part("train", part), self.data.of_part("val", part)
            if not pairs:
                _say(self.console, f"{name}: no training pairs in this part; the origin answers for it")
                continue
            if not chosen_by:
                _say(self.console, f"{name}: no validation pairs in this part; all of them choose its checkpoint")
            stages.append(Stage(name, self.run / name, pairs, chosen_by or val, teacher_steps, name))
        for name in ("control", "student"):
            stages.append(Stage(name, self.run / name, train, val, student_steps, "student"))
        return {stage.name: stage for stage in stages}

    def __call__(self) -> dict[str, Evaluation]:
        """Run the stages that the recipe names.

        Returns:
            The evaluations of origin, O-P, control and student, as far as they exist; empty without the verdict.
        """
        stages, wanted = self.stages(), self.recipe.stage_names
        for stage in stages.values():
            if ("teachers" if stage.name.startswith("teacher-") else stage.name) in wanted:
                if stage.finished:
                    _say(self.console, f"{stage.name}: finished before")
                run_stage(stage, self.recipe, self.data.folder, self._builder(stage, stages), self.console)
        return self.verdict(stages) if "verdict" in wanted else {}

    def _builder(self, stage: Stage, stages: dict[str, Stage]) -> Callable[[], ChangeTask]:
        recipe = self.recipe
        if stage.name == "origin":
            return _supervised(recipe, stage, _start(recipe, recipe.model))
        teacher = stage.name.startswith("teacher-")
        if teacher and not recipe.teachers_start_from_origin:
            return _supervised(recipe, stage, _start(recipe, self.teacher_model))
        origin = self._bundle(stages["origin"])
        if teacher or stage.name == "control":
            return _supervised(recipe, stage, lambda: load_network(origin))

        def build() -> ChangeTask:
            student = load_network(origin)
            weight = recipe.lambda_
            if weight is None:
                weight = KL_WEIGHT if recipe.criterion == "kl" else student.card.training.distillation_weight
            teachers = self._teachers(stages)
            pairs = {part: len(stages[f"teacher-{part}"].train) for part in teachers}
            return DistillationTask(
                student,
                optimisation(recipe, student.card, stage.steps),
                derive_seed(recipe.seed, stage.stream),
                TeacherBank(
                    {part: load_network(bundle) for part, bundle in teachers.items()},
                    self.partition,
                    pairs if recipe.teachers == "all" else None,
                ),
                criterion(recipe.criterion, recipe.temperature),
                weight,
            )

        return build

    def _bundle(self, stage: Stage) -> Path:
        if not stage.finished:
            raise BundleError(
                f"{stage.bundle}: stage {stage.name} has not been trained to its end, and a later stage needs it; add "
                "it to --stages"
            )
        return stage.bundle

    def _teachers(self, stages: dict[str, Stage]) -> dict[str, Path]:
        return {
            name.removeprefix("teacher-"): self._bundle(s) for name, s in stages.items() if name.startswith("teacher-")
        }

    def verdict(self, stages: dict[str, Stage]) -> dict[str, Evaluation]:
        """Evaluate what has been trained on test, or on val where no labelled test split exists; write and print it."""
        bundles: dict[str, Path] = {}
        if stages["origin"].finished:
            bundles["origin"] = stages["origin"].bundle
        teachers = {name.removeprefix("teacher-"): s for name, s in stages.items() if name.startswith("teacher-")}
        if "origin" in bundles and teachers and all(stage.finished for stage in teachers.values()):
            bundles[ORIGIN_PARTITION] = self.run / ORIGIN_PARTITION / "bundle"
            save_origin_partition(
                bundles[ORIGIN_PARTITION],
                bundles["origin"],
                {part: stage.bundle for part, stage in teachers.items()},
                self.partition,
            )
        bundles |= {name: stages[name].bundle for name in ("control", "student") if stages[name].finished}
        if not bundles:
            raise RecipeError(f"stages: nothing has been trained in {self.run}; run origin first")
        split = "test" if self.data.pairs.get("test") else "val"
        folder, pairs = self.data.folder, self.data.pairs[split]
        results = {}
        for name, bundle in bundles.items():  # one after the other: large networks do not fit into memory all at once
            detector = load(bundle)
            results[name] = self._score(name, detector, split)
            if split == "test":  # thresholds may be chosen there
                self._score(name, detector, "val")
            del detector
        shown = {name: load(bundle) for name, bundle in bundles.items() if name in ("origin", "student")}
        draw_masks(self.run / "overview.png", shown, folder, spread_by_car(folder, pairs, _PAIRS_SHOWN))
        self._write(results, split, teachers)
        return {name: result.evaluation for name, result in results.items()}

    def _score(self, name: str, detector: Detector, split: str) -> Result:
        """Evaluate a detector, and write the result to ``scores/SPLIT/NAME.json``."""
        found = evaluate(detector, self.data.folder, self.data.pairs[split], self.partition, split=split)
        result = found.named(name, self.recipe.seed, model=self.recipe.model)
        result.write(self.run / "scores" / split / f"{name}.json")
        return result

    def _write(self, results: dict[str, Result], split: str, teachers: Collection[str]) -> None:
        comparison = compare(list(results.values()), "control" if "control" in results else None)
        evaluations = {name: result.evaluation for name, result in results.items()}
        protocol = {
            "split": split,
            "pairs": len(self.data.pairs[split]),
            "checkpoint_selection": "dataset mIoU on the validation pairs",
            "selection_pairs_are_test_pairs": split == "val",
            "partition": self.partition.describe(),
            "conventions": CONVENTIONS,
            "seed": self.recipe.seed,
            "bitemporal": __version__,
        }
        content = {
            "protocol": protocol,
            "verdict": verdict_sentence(comparison),
            "results": {name: found.summary() for name, found in evaluations.items()},
            "comparison": comparison.to_json(),
        }
        write_json(self.run / "metrics.json", content)
        print_table(verdict_table(evaluations, self.partition, split, teachers))
        print(content["verdict"])


def verdict_rows(results: dict[str, Evaluation], partition: CarPartition, teachers: Collection[str]) -> list[list[str]]:
    """Rows of the closing table, its header first: a metric a row, a detector a column, in per cent."""
    summaries = {name: result.summary() for name, result in results.items()}
    rows: dict[str, list[float]] = {}
    for metric in _METRICS:
        rows[f"{metric}, dataset"] = [summary["dataset"][metric] for summary in summaries.values()]
    rows["miou, image_mean"] = [summary["image_mean"]["miou"] for summary in summaries.values()]
    for part in partition.names:
        rows[f"miou, dataset, {part}"] = [s["by_part"][part]["dataset"]["miou"] for s in summaries.values()]
        rows[f"iou_changed, dataset, {part}"] = [
            s["by_part"][part]["dataset"]["iou_changed"] for s in summaries.values()
        ]
    cells = [[name, *("-" if math.isnan(v) else f"{100 * v:.2f}" for v in values)] for name, values in rows.items()]
    passes = ["forward passes a pair", *(forward_passes(result, teachers) for result in results.values())]
    return [["metric, averaging", *results], *cells, passes]


def verdict_table(
    results: dict[str, Evaluation], partition: CarPartition, split: str, teachers: Collection[str]
) -> Table:
    """The closing table: origin, O-P, control, student."""
    caption = f"per cent on {split}; parts: {partition.describe()}"
    if split == "val":
        caption += ". The same pairs chose the checkpoints: these are no test scores"
    table = Table(caption=caption, box=None, caption_justify="left")
    header, *rows = verdict_rows(results, partition, teachers)
    for column in header:
        table.add_column(column, justify="left" if column == header[0] else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
