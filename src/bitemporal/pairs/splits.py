"""A validation split taken from the training pairs, stratified by CAR part and repeatable.

JL1-CD ships train and test only. Choosing checkpoints on the test split would spoil it, so a seeded share of every CAR
part of train becomes ``val``, and the outcome is a file that can be published with the results.

scikit-learn's ``train_test_split(stratify=...)`` would be worse here: its choice depends on the order of the pairs and
on a random number generator, and it refuses parts of one pair.
"""

import csv
import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from bitemporal.errors import PartitionError
from bitemporal.outputs import replacing
from bitemporal.pairs.partition import PartitionRow


def stratified_split(
    rows: Sequence[PartitionRow],
    fraction: float = 0.1,
    seed: int = 0,
    source: str = "train",
) -> list[PartitionRow]:
    """Move a share of every CAR part of one split to the new split ``val``.

    The choice depends on the seed and the set of stems alone, not on the order of the rows, the platform or a random
    number library. Every part with two pairs or more gives at least one and keeps at least one; the rest is shared
    in proportion to the parts' sizes (largest remainder). Unlabelled rows (CAR NaN) and all other splits stay.

    Args:
        rows: The pairs with their parts, as ``read_partition`` gives them.
        fraction: Share of the labelled ``source`` rows to move, in (0, 1).
        seed: Another seed gives another choice.
        source: Split that gives.

    Returns:
        All rows in their order, with ``split`` changed where a row was moved.

    Raises:
        PartitionError: When ``source`` is the test or the val split, has no rows, a stem twice, or no part of two
            rows; when there is a val split already; when ``fraction`` is not in (0, 1).
    """
    parts: dict[str, list[str]] = {}
    for row in _eligible(rows, source):
        parts.setdefault(row.part, []).append(row.stem)
    sizes = {part: len(stems) for part, stems in sorted(parts.items())}
    quotas = _quotas(sizes, _wanted(sizes, fraction, source))
    moved: set[str] = set()
    for part, quota in quotas.items():
        moved.update(sorted(parts[part], key=lambda stem: _rank(seed, stem))[:quota])
    return [replace(row, split="val") if row.split == source and row.stem in moved else row for row in rows]


def _eligible(rows: Sequence[PartitionRow], source: str) -> list[PartitionRow]:
    """The labelled rows of the split that gives."""
    if source in ("test", "val"):
        raise PartitionError(
            f"source: found {source!r}, expected a split to train on, such as train; test is never used to choose "
            "anything, and val is what is made"
        )
    splits = Counter(row.split for row in rows)
    if splits["val"]:
        raise PartitionError(
            f"split 'val' already has {splits['val']} rows; use it as it is, or remove it before making another"
        )
    if not splits[source]:
        raise PartitionError(f"split {source!r} has no rows; found {dict(splits) or 'none at all'}")
    own = [row for row in rows if row.split == source]
    twice = [stem for stem, times in Counter(row.stem for row in own).items() if times > 1]
    if twice:
        raise PartitionError(f"split {source!r} names {len(twice)} stem(s) more than once, first {min(twice)!r}")
    return [row for row in own if row.part and not math.isnan(row.car)]


def _wanted(sizes: dict[str, int], fraction: float, source: str) -> int:
    """How many rows to move: the fraction, but one of every part of two or more, and never a whole part."""
    if not any(size >= 2 for size in sizes.values()):
        counted = ", ".join(f"{size} labelled {part}" for part, size in sizes.items()) or "no labelled pair"
        raise PartitionError(
            f"split {source!r}: found {counted}, expected a CAR part of at least two, one of which can be set aside; "
            "add labelled pairs, or a val split"
        )
    if not 0.0 < fraction < 1.0:
        raise PartitionError(f"fraction: found {fraction}, expected a number between 0 and 1, for example 0.1")
    least, most = sum(size >= 2 for size in sizes.values()), sum(size - 1 for size in sizes.values())
    return min(max(round(fraction * sum(sizes.values())), least), most)


def _quotas(sizes: dict[str, int], wanted: int) -> dict[str, int]:
    """How many pairs each part gives: in proportion to its size, at least one of two or more, at most all but one."""
    shares = {part: wanted * size / sum(sizes.values()) for part, size in sizes.items()}
    quotas = {part: min(max(math.floor(shares[part]), 1), size - 1) for part, size in sizes.items()}
    while missing := wanted - sum(quotas.values()):
        step = 1 if missing > 0 else -1
        free = [part for part, size in sizes.items() if 1 <= quotas[part] + step < size]
        quotas[max(free, key=lambda part: (step * (shares[part] - quotas[part]), part))] += step
    return quotas


def _rank(seed: int, stem: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{stem}".encode("utf-8", "surrogateescape")).digest()


def write_split(path: str | os.PathLike[str], rows: Iterable[PartitionRow]) -> None:
    """Write which pair is in which split, as CSV with the columns split, stem, in sorted order.

    The file depends on the assignment alone and appears whole or not at all.
    """
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("split", "stem"))
        writer.writerows(sorted({(row.split, row.stem) for row in rows}))
