"""Pairs divided into train, val and test: the parts of CAR in equal shares, tiles of one scene on one side.

``bitemporal data split`` and the validation pairs that a run sets aside are both divided here.

scikit-learn's ``StratifiedGroupKFold`` would be worse here: its folds are of equal size, and its choice depends on
the order of the pairs and on a random number generator.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from bitemporal.errors import OptionError, PartitionError
from bitemporal.pairs.names import SPLITS
from bitemporal.pairs.partition import PartitionRow

_TILES = (r"(.+?)(?:[_-]\d+){2}", r"(.+?)[_-]\d+")
"""Names of tiles: a scene, then row and column, or one running number."""

_FEWEST_SCENES = 3

Group = Callable[[str], str]
"""From the stem of a pair to what it must stay together with."""


def group_by(pattern: str, stems: Iterable[str] = ()) -> Group:
    """Group pairs by a regular expression.

    Args:
        pattern: Matches whole stems; its first group, or all of it, names the scene that a pair is a tile of.
        stems: Stems that it has to match.

    Raises:
        OptionError: When it is no regular expression, or does not match every stem.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise OptionError(
            f"group: found {pattern!r}, expected a regular expression such as '(.*)_[0-9]+_[0-9]+' ({error})"
        ) from error

    if unmatched := sorted(stem for stem in stems if compiled.fullmatch(stem) is None):
        raise OptionError(
            f"group: {pattern!r} does not match {len(unmatched)} stem(s), such as {unmatched[0]}; expected a regular "
            "expression that matches whole stems, and whose first group names the scene, as in '(.*)_[0-9]+_[0-9]+'"
        )

    def group(stem: str) -> str:
        match = compiled.fullmatch(stem)
        return stem if match is None else match[1 if compiled.groups else 0] or ""

    return group


def find_groups(stems: Iterable[str]) -> str | None:
    """A pattern for ``group_by`` under which names look like tiles of several scenes; ``None`` when there is none."""
    names = set(stems)
    for pattern in _TILES:
        scenes = Counter(match[1] for match in map(re.compile(pattern).fullmatch, names) if match)
        if scenes.total() == len(names) and len(scenes) >= _FEWEST_SCENES and 2 * len(scenes) <= len(names):
            return pattern
    return None


def describe_groups(stems: Sequence[str], pattern: str) -> str:
    """One line that says which scenes a pattern of ``find_groups`` sees in the names of pairs."""
    group = group_by(pattern)
    return (
        f"names look like tiles of {len(set(map(group, stems))):,} scenes, such as {stems[0]} of {group(stems[0])}: "
        "tiles of a scene stay in the same split"
    )


def undivided(rows: Iterable[PartitionRow]) -> list[PartitionRow]:
    """The rows that ``divide`` divides: all whose split is neither val nor test."""
    return [row for row in rows if row.split not in SPLITS[1:]]


def divide(
    rows: Sequence[PartitionRow], shares: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 0, group: Group = str
) -> list[PartitionRow]:
    """Divide pairs into train, val and test.

    Pairs whose split is val or test stay there; all others are divided among the splits that do not exist yet. Each
    part of CAR, unlabelled pairs being one more, is divided by the shares: to within one pair where every pair stands
    alone, else as closely as whole groups allow. A part of as many pairs as there are splits has one in each of them,
    if groups allow it, and no split is empty. The choice depends on the seed and the set of stems alone.

    Args:
        rows: The pairs with their parts.
        shares: Shares of train, val and test, each 0 or more, their sum above 0. Those of splits that exist already
            are left out, and the others keep their proportion.
        seed: Another seed gives another choice.
        group: Pairs with the same value stay in one split.

    Returns:
        All rows in their order, with ``split`` changed.

    Raises:
        OptionError: When the shares are not usable.
        PartitionError: When there is nothing to divide, or there are fewer groups than splits.
    """
    wanted = _wanted(rows, shares)
    free = undivided(rows)
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for row in free:
        groups[group(row.stem)][row.part] += 1
    if len(groups) < len(wanted):
        remedy = "add pairs"
        if len(groups) < len(free):
            remedy = "give a pattern of smaller groups (--group '.*' divides pair by pair)"
        raise PartitionError(
            f"shares: found {len(groups)} group(s) of {len(free)} pair(s), expected one for each of "
            f"{', '.join(wanted)} at least; {remedy}"
        )
    totals = Counter(row.part for row in free)
    in_groups = Counter(part for counts in groups.values() for part in counts)
    # what each split still lacks of each part
    lacks: dict[str, dict[str, float]] = {split: {} for split in wanted}
    for part, count in totals.items():
        for split, number in _targets(wanted, count, in_groups[part]).items():
            lacks[split][part] = number
    chosen: dict[str, str] = {}

    def put(name: str, split: str) -> None:
        for part, count in groups[name].items():
            lacks[split][part] -= count
            if name in chosen:
                lacks[chosen[name]][part] += count
        chosen[name] = split

    for name in sorted(groups, key=lambda name: (-groups[name].total(), _rank(seed, name))):
        put(name, min(wanted, key=partial(_excess, groups[name], totals, lacks)))
    for empty in [split for split in wanted if split not in chosen.values()]:
        held = Counter(chosen.values())
        movable = [name for name, split in chosen.items() if held[split] > 1]
        put(min(movable, key=lambda name: _excess_of_move(groups[name], totals, lacks, chosen[name], empty)), empty)
    return [row if row.split in SPLITS[1:] else replace(row, split=chosen[group(row.stem)]) for row in rows]


def _targets(shares: Mapping[str, float], count: int, groups: int) -> dict[str, float]:
    """Pairs of one part for each split: by the shares, and at least one where the part is in so many groups.

    Args:
        shares: Shares of the splits, whose sum is 1.
        count: Pairs of the part.
        groups: Groups that have any of them.
    """
    least: set[str] = set()
    while groups >= len(shares):
        rest = (count - len(least)) / sum(share for split, share in shares.items() if split not in least)
        if not (below := {split for split, share in shares.items() if split not in least and share * rest < 1 - 1e-9}):
            return {split: 1.0 if split in least else share * rest for split, share in shares.items()}
        least |= below
    return {split: share * count for split, share in shares.items()}


def _wanted(rows: Sequence[PartitionRow], shares: Sequence[float]) -> dict[str, float]:
    """The share of each split that is to be made."""
    given = ",".join(f"{share:g}" for share in shares)
    if len(shares) != len(SPLITS) or not all(0 <= share < float("inf") for share in shares):
        raise OptionError(
            f"shares: found {given}, expected three of 0 or more, of train, val and test, as in 0.7,0.15,0.15"
        )
    exist = {row.split for row in rows} & {*SPLITS[1:]}
    new = {split: share for split, share in zip(SPLITS, shares, strict=True) if share and split not in exist}
    if len(new) < 2 or all(row.split in exist for row in rows):
        raise PartitionError(
            f"shares: found {given} for pairs of which {', '.join(sorted(exist)) or 'no split'} exist already; "
            "expected shares above 0 for at least two splits that do not exist yet: give such shares, name a folder "
            "without these splits, or move splits.csv out of the folder if it made them"
        )
    return {split: share / sum(new.values()) for split, share in new.items()}


def _excess(counts: Counter[str], totals: Counter[str], lacks: Mapping[str, Mapping[str, float]], split: str) -> float:
    """By how much the squares of what a split lacks, as shares of the parts, grow with a group of these counts."""
    return sum(
        ((lacks[split][part] - count) ** 2 - lacks[split][part] ** 2) / totals[part] ** 2
        for part, count in counts.items()
    )


def _excess_of_move(
    counts: Counter[str], totals: Counter[str], lacks: Mapping[str, Mapping[str, float]], split: str, target: str
) -> float:
    """Likewise, when a group leaves one split for another."""
    leaving = Counter({part: -count for part, count in counts.items()})
    return _excess(counts, totals, lacks, target) + _excess(leaving, totals, lacks, split)


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest()
