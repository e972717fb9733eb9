"""Reading a whole folder of pairs once, in several processes, keeping only what a report needs."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bitemporal.errors import DataError
from bitemporal.imagery.decode import FileFault, check_range, conversion, decode
from bitemporal.imagery.masks import IGNORE, LabelDecoding, LabelObservation, LabelSummary, Value, observe
from bitemporal.pairs.folder import SIZE_REMEDY, Fault, FaultKind, FolderScan, Pair, PairRecord, describe_sizes, shown

_SMALL = 2000  # pairs below which starting processes costs more than it saves
_MOST_WORKERS = 8  # reading from one disk gains nothing beyond
_CHUNK = 32
_STATED = LabelDecoding(0, 1, IGNORE)  # coding of the counts that `observe` returns under a stated decoding


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one worker returns of one pair; no pixels."""

    size: tuple[int, int]
    label: LabelObservation | None
    faults: tuple[tuple[Path, str, str, FaultKind], ...]
    notes: tuple[tuple[str, Path], ...]


def _read(
    pair: Pair, *, stated: LabelDecoding | None, image_range: tuple[float, float] | None, images: bool
) -> _Reading:
    """Read the files of one pair, one after the other."""
    sizes: dict[str, tuple[int, int]] = {}
    faults: list[tuple[Path, str, str, FaultKind]] = []
    notes: list[tuple[str, Path]] = []
    for name, path in (("before", pair.before), ("after", pair.after)) if images else ():
        try:
            decoded = decode(path)
            sizes[name] = decoded.size
            check_range(decoded, image_range)
            notes += [(note, path) for note in (*decoded.notes, *conversion(decoded.image))]
        except FileFault as fault:
            faults.append((path, fault.what, fault.remedy, "file"))
    label = None
    if pair.label is not None:
        try:
            label = observe(pair.label, stated)
            sizes["label"] = label.height, label.width
            notes += [(note, pair.label) for note in label.notes]
            if label.fault is not None:
                faults.append((pair.label, *label.fault, "label"))
        except FileFault as fault:
            faults.append((pair.label, fault.what, fault.remedy, "file"))
    if len(set(sizes.values())) > 1:
        described = describe_sizes([sizes.get(name) for name in ("before", "after", "label")])
        faults.append((pair.before, described, SIZE_REMEDY, "size"))
    size = next(iter(sizes.values()), (0, 0))
    return _Reading(size, label, tuple(faults), tuple(notes))


def _cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # what a container or batch system really grants; Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _readings(pairs: Sequence[Pair], read: Callable[[Pair], _Reading], workers: int | None) -> Iterator[_Reading]:
    """Readings in the order of the pairs."""
    count = workers or (1 if len(pairs) < _SMALL else min(_cpus(), _MOST_WORKERS))
    if count == 1 or len(pairs) < 2:
        yield from map(read, pairs)
        return
    # forking a process that already runs torch's threads can hang
    executor = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield from executor.map(read, pairs, chunksize=_CHUNK)
    except BrokenProcessPool as error:
        raise DataError(
            f"a process that reads the pairs died ({error}), most often for lack of memory; use fewer workers "
            "(workers=1, --workers 1). A script that asks for several must start under `if __name__ == '__main__':`"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _tracked(readings: Iterator[_Reading], total: int, progress: bool) -> Iterator[_Reading]:
    console = Console(stderr=True)
    if not progress or not console.is_terminal:  # elsewhere even a bar that vanishes leaves an empty line
        yield from readings
        return
    columns = (TextColumn("reading pairs"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield from bar.track(readings, total=total)


def scan_pairs(
    scan: FolderScan,
    pairs: Sequence[Pair],
    stated: LabelDecoding | None,
    image_range: tuple[float, float] | None,
    workers: int | None,
    progress: bool,
    images: bool,
) -> None:
    """Read pairs and add what is found to a scan.

    Args:
        scan: Gets records, faults, warnings and the decoding.
        pairs: To read, by split.
        stated: Decoding that options state.
        image_range: See ``PairFolder``.
        workers: See ``PairFolder.scan``.
        progress: See ``PairFolder.scan``.
        images: See ``PairFolder.scan``.

    Raises:
        DataError: When ``workers`` is below 1 or a worker process dies.
    """
    if workers is not None and workers < 1:
        raise DataError(f"workers: found {workers}, expected at least 1, or nothing for as many as fit")
    read = partial(_read, stated=stated, image_range=image_range, images=images)
    summary = LabelSummary()
    notes: dict[str, tuple[int, Path]] = {}
    seen: list[tuple[tuple[int, int], tuple[tuple[Value, int], ...]]] = []
    for pair, reading in zip(pairs, _tracked(_readings(pairs, read, workers), len(pairs), progress), strict=True):
        scan.faults += [Fault(*fault) for fault in reading.faults]
        for note, path in reading.notes:
            number, first = notes.get(note, (0, path))
            notes[note] = number + 1, first
        counts: tuple[tuple[Value, int], ...] = ()
        if pair.label is not None and reading.label is not None:
            summary.add(pair.label, reading.label)
            # more than three values never resolve, and keeping 256 of every file would fill the memory
            counts = reading.label.counts if reading.label.distinct <= 3 else ()
        seen.append((reading.size, counts))
    scan.warnings += [
        f"{number:,} {'file' if number == 1 else 'files'}: {note} (such as {shown(path, scan.root)})"
        for note, (number, path) in notes.items()
    ]
    coding: LabelDecoding | None
    if stated is not None:
        coding = _STATED
        scan.decoding = replace(stated, files=summary.files)
    else:
        coding, faults = summary.resolve()
        scan.decoding = coding
        scan.faults += [Fault(path, fault.what, fault.remedy, "label") for path, fault in faults]
    tallies = []
    for pair, (size, counts) in zip(pairs, seen, strict=True):
        changed, valid = coding.tally(counts) if coding is not None else (0, 0)
        tallies.append((pair, changed, valid))
        car = changed / valid if valid else float("nan")
        scan.records.append(PairRecord(pair.split, pair.stem, *size, car, pair.label is not None))
    if coding is not None:
        scan.warnings += _odd_splits(tallies)


def _odd_splits(tallies: Sequence[tuple[Pair, int, int]]) -> Iterator[str]:
    """Remarks on splits whose labels say the same everywhere."""
    for split in dict.fromkeys(pair.split for pair, _, _ in tallies):
        own = [(changed, valid) for pair, changed, valid in tallies if pair.split == split and pair.label is not None]
        changed, valid = sum(c for c, _ in own), sum(v for _, v in own)
        if own and valid and changed in (0, valid):
            what = "no pixel" if changed == 0 else "every valid pixel"
            yield (
                f"split {split}: {what} of its {len(own):,} labels is changed; training on it teaches one answer only, "
                "and its scores say little"
            )
