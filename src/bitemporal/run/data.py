"""The pairs of a run: checked, measured, divided into splits and parts."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal

from rich.console import Console

from bitemporal.errors import DataError
from bitemporal.imagery.training_images import TrainingImages, TrainingLabels, look_at
from bitemporal.method.car import CarPartition
from bitemporal.outputs import Output, check_outputs
from bitemporal.pairs import FolderCheck, Pair, PairFolder, check_pairs
from bitemporal.pairs.division import describe_groups, divide, find_groups, group_by
from bitemporal.pairs.partition import PartitionRow, read_partition, write_partition
from bitemporal.pairs.split_lists import DIVISION, read_stated, write_split
from bitemporal.reading import reading
from bitemporal.remedies import as_option, free_name
from bitemporal.run.folder import RunFolder
from bitemporal.run.processes import is_first_process
from bitemporal.run.recipe import TrainRecipe

TRAIN, VAL, TEST = "train", "val", "test"

_LOOKED_AT = 8
"""Pairs whose files are asked for value type and pixel size."""


def say(console: Console, text: str) -> None:
    """Print a line as it is, whatever brackets stand in it."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class RunData:
    """The pairs of a run.

    Attributes:
        folder: Reads them.
        pairs: Labelled pairs by the split that the run uses them for: train, val and, where there is one, test.
        parts: Name of each pair's CAR part, by split and stem; empty where a label has no valid pixel.
        cars: CAR of each pair's label, by split and stem; NaN where it has no valid pixel.
        partition: Which CAR belongs to which part.
    """

    folder: PairFolder
    pairs: dict[str, list[Pair]]
    parts: dict[tuple[str, str], str]
    cars: dict[tuple[str, str], float]
    partition: CarPartition

    def of_part(self, split: str, part: str) -> list[Pair]:
        """Labelled pairs of one part of a split."""
        return [pair for pair in self.pairs.get(split, []) if self.parts[split, pair.stem] == part]

    def absent_class(self, pairs: Iterable[Pair]) -> Literal["changed", "unchanged"] | None:
        """The class that no label of some validation pairs has, if any."""
        cars = {car for pair in pairs if not math.isnan(car := self.cars[VAL, pair.stem])}
        return "changed" if cars == {0.0} else "unchanged" if cars == {1.0} else None

    @property
    def taught_parts(self) -> list[str]:
        """Parts that have training pairs, and so a teacher."""
        return [part for part in self.partition.names if self.of_part(TRAIN, part)]

    @property
    def scored_split(self) -> str:
        """The split that the verdict is about: test, or val where no labelled test split exists."""
        return TEST if self.pairs.get(TEST) else VAL


def prepare_data(recipe: TrainRecipe, run: RunFolder, console: Console, overwrite: bool = False) -> RunData:
    """Check every file, measure CAR, set validation pairs aside where there are none, and write ``partition.csv``.

    Args:
        recipe: Recipe of the run.
        run: Its folder, whose other files ``check_run_outputs`` has looked at.
        console: Where to say what is found.
        overwrite: Whether a ``splits.csv`` of the user's is replaced.

    Raises:
        DataError: When files are faulty, there is nothing to train on, or a run would be resumed with other pairs.
        OutputError: When validation pairs are set aside, and a file of the user's stands where they are listed.
    """
    resumes = run.has_checkpoint()
    folder, check = _check(recipe, images=not resumes, console=console)  # a run that resumes has read the images before
    source = _training_split(folder)
    rows = check.rows(recipe.partition.part)
    sets_aside = VAL not in folder.splits
    if sets_aside and is_first_process():
        remedy = f"choose another folder, {as_option('out', str(free_name(run.path)))}"
        read = [folder.root, *folder.files()]
        check_outputs([Output("out", run.splits, DIVISION, remedy)], read, overwrite)
    recorded = sets_aside and resumes and run.splits.is_file()
    if recorded:
        rows = _as_recorded(rows, source, run.splits)
    elif sets_aside:
        rows = _set_aside(rows, source, recipe, console)
    if resumes:
        _check_same_pairs(run, rows)
    if is_first_process():
        write_partition(run.partition, rows)
        if sets_aside:
            write_split(run.splits, rows)
    if sets_aside:
        count = sum(row.split == VAL for row in rows)
        how = "" if recorded else f", stratified by CAR part (validation_seed {recipe.validation_seed})"
        say(console, f"no val split: {count} of the training pairs set aside{how}, listed in {run.splits}")
    data = _collect(folder, rows, source, recipe.partition)
    for split in (s for s in (TRAIN, VAL, TEST) if s in data.pairs):
        counts = Counter(data.parts[split, pair.stem] for pair in data.pairs[split])
        by_part = ", ".join(f"{name} {counts[name]}" for name in data.partition.names)
        say(console, f"{split}: {counts.total()} labelled pairs ({by_part})")
    return data


def training_images(folder: PairFolder, pairs: Sequence[Pair]) -> TrainingImages:
    """What is known of the images of training pairs, for the bundle of the network that learns from them.

    Value type and pixel size are those of a few of them: the pairs of a folder are alike.
    """
    few = [look_at(pair.before, folder.bands) for pair in pairs[:: max(1, len(pairs) // _LOOKED_AT)]]
    sizes = [seen.pixel_size for seen in few if seen.pixel_size is not None]
    digest = hashlib.sha256()
    for pair in sorted(pairs, key=lambda pair: (pair.split, pair.stem)):
        digest.update(pair.stem.encode(errors="surrogateescape"))
        if pair.label is not None:
            with reading(pair.label, DataError, "expected a label: restore or fetch it again"):
                digest.update(pair.label.read_bytes())
    return TrainingImages(
        value_type=Counter(seen.value_type for seen in few).most_common(1)[0][0],
        pixel_size=median(sizes) if sizes else None,
        synthetic=all(seen.synthetic for seen in few),
        bands=folder.bands,
        image_range=folder.image_range,
        data=folder.root.resolve().name,
        data_hash=digest.hexdigest(),
        labels=None if folder.decoding is None else TrainingLabels(folder.label_options, folder.decoding.seen),
    )


def _check(recipe: TrainRecipe, images: bool, console: Console) -> tuple[PairFolder, FolderCheck]:
    """Read every file once."""
    folder = recipe.pair_folder(recipe.data)
    chosen = [split for split in (TRAIN, VAL, TEST) if split in folder.splits] or list(folder.splits)
    check = check_pairs(folder, progress=True, images=images, splits=chosen)
    # a test split without labels can be predicted; it only gives no scores
    check.faults = [fault for fault in check.faults if (fault.kind, fault.split) != ("unlabelled", TEST)]
    check.raise_for_faults()
    for note in folder.notes:
        say(console, f"layout: {note}")
    for warning in check.warnings:
        say(console, f"warning: {warning}")
    for split in (split for split in folder.splits if split not in chosen):
        say(console, f"split {split}: {len(folder.pairs(split))} pairs, not used; evaluate can score them")
    if check.decoding:
        say(console, check.decoding.describe())
    return folder.with_decoding(check.decoding), check


def _training_split(folder: PairFolder) -> str:
    """The split on disk to learn from: train, or the only one where a folder has no splits."""
    splits = folder.splits
    source = TRAIN if TRAIN in splits else splits[0]
    if (source != TRAIN and len(splits) > 1) or source == TEST:
        raise DataError(
            f"{folder.root}: found the split(s) {', '.join(splits)}, expected a split train to learn from; rename a "
            "folder or a list to train, or name a CSV with the columns split and stem that says which pairs it has "
            "(splits)"
        )
    return source


def _set_aside(rows: list[PartitionRow], source: str, recipe: TrainRecipe, console: Console) -> list[PartitionRow]:
    """Divide the pairs of a split into train and val.

    Args:
        rows: The pairs.
        source: The split on disk to learn from.
        recipe: Says how many become validation pairs, and which.
        console: Where to say that tiles of one scene stay together.

    Raises:
        DataError: When there are not enough labelled pairs.
    """
    # pairs without a part can neither be learned from nor choose a checkpoint
    measured = [row for row in rows if row.split == source and row.part]
    if len(measured) < 2:
        raise DataError(
            f"{recipe.data}: found {len(measured)} pair(s) of split {source} whose label has a valid pixel, expected "
            "two or more, some of which are set aside for validation; add labelled pairs, or a split val"
        )
    stems = [row.stem for row in measured]
    pattern = find_groups(stems)
    group = str if pattern is None else group_by(pattern)
    if pattern is not None:
        say(console, f"{describe_groups(stems, pattern)} (a file of splits states another division)")
    shares = (1 - recipe.validation_share, recipe.validation_share, 0)
    sides = {group(row.stem): row.split for row in divide(measured, shares, recipe.validation_seed, group)}
    return [replace(row, split=sides.get(group(row.stem), TRAIN)) if row.split == source else row for row in rows]


def _as_recorded(rows: list[PartitionRow], source: str, splits: Path) -> list[PartitionRow]:
    """The pairs in the splits that a run has recorded; those that it does not name stay where they are."""
    recorded = {stem: listed.split for listed in read_stated(splits) if listed.split != TEST for stem in listed.names}
    return [replace(row, split=recorded.get(row.stem.strip(), source)) if row.split == source else row for row in rows]


def _collect(folder: PairFolder, rows: list[PartitionRow], source: str, partition: CarPartition) -> RunData:
    """Labelled pairs under the split that the run uses them for; splits without a CAR are left out."""
    on_disk = {(pair.split, pair.stem): pair for pair in folder.pairs()}
    pairs: dict[str, list[Pair]] = {}
    parts: dict[tuple[str, str], str] = {}
    cars: dict[tuple[str, str], float] = {}
    for row in rows:
        split = TRAIN if row.split == source else row.split
        pair = on_disk.get((row.split, row.stem)) or on_disk[source, row.stem]
        parts[split, row.stem], cars[split, row.stem] = row.part, row.car
        # nothing can be learned from a label without a valid pixel; in scores it stands as `evaluate` has it
        if pair.label is not None and (split != TRAIN or not math.isnan(row.car)):
            pairs.setdefault(split, []).append(pair)
    with_car = {split: own for split, own in pairs.items() if any(parts[split, pair.stem] for pair in own)}
    return RunData(folder, with_car, parts, cars, partition)


def _check_same_pairs(run: RunFolder, rows: list[PartitionRow]) -> None:
    """Refuse to resume with other training or validation pairs; test pairs may come later.

    Raises:
        DataError: When a pair was added, removed, moved or relabelled; the text names the first.
    """
    if not run.partition.exists():
        return
    before, now = (
        {(row.split, row.stem, str(row.car)) for row in listed if row.split != TEST}
        for listed in (read_partition(run.partition), rows)
    )
    if changed := sorted(before ^ now):
        split, stem, _ = changed[0]
        raise DataError(
            f"{run.partition}: the training or validation pairs are not those that the run was started with, first "
            f"{split}/{stem}; restore them, or start a new run with {as_option('out', str(free_name(run.path)))}"
            f"{' and without --reuse' if run.reused.is_file() else ''}"
        )
