"""``partition.csv``: the CAR and the part of every pair of a folder."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitemporal.errors import PartitionError
from bitemporal.files import not_there
from bitemporal.outputs import Kind, replacing
from bitemporal.reading import open_table, reading
from bitemporal.texts import as_cell, from_cell

_COLUMNS = ["split", "stem", "car", "part"]


@dataclass(frozen=True)
class PartitionRow:
    """One line of a ``partition.csv``: the pair's split and stem, its CAR in [0, 1] (NaN unlabelled), its part."""

    split: str
    stem: str
    car: float
    part: str


def _is_partition(path: Path) -> bool:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return next(csv.reader(stream), []) == _COLUMNS


PARTITION = Kind("a partition by CAR", _is_partition, (".csv",))
"""What ``write_partition`` writes."""


def write_partition(path: str | os.PathLike[str], rows: Sequence[PartitionRow]) -> None:
    """Write a ``partition.csv`` (split, stem, car, part); the file appears whole or not at all."""
    # file names need not be valid text
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for row in rows:
            car = "" if np.isnan(row.car) else repr(float(row.car))
            writer.writerow([as_cell(row.split), as_cell(row.stem), car, as_cell(row.part)])


def read_partition(path: str | os.PathLike[str]) -> list[PartitionRow]:
    """Read a ``partition.csv``.

    Raises:
        PartitionError: When the file is missing, lacks a column, or has a CAR that is not in [0, 1].
    """
    source = Path(path)
    if not source.is_file():
        raise PartitionError(f"{not_there(source, 'file')}; expected the table that data stats, and every run, writes")
    # spreadsheets put a mark before the first column
    with (
        reading(source, PartitionError, "expected split,stem,car,part; write the file again, as data stats does"),
        open_table(source, "utf-8-sig") as stream,
    ):
        reader = csv.DictReader(stream)
        missing = {*_COLUMNS} - set(reader.fieldnames or ())
        if missing:
            raise PartitionError(f"{source}: column(s) {sorted(missing)} missing, expected split,stem,car,part")
        rows = []
        for line in reader:
            if None in line.values() or None in line:
                raise PartitionError(
                    f"{source}, line {reader.line_num}: expected the {len(reader.fieldnames or ())} columns of the "
                    "first line; write the file again, as data stats does"
                )
            try:
                car = float(line["car"]) if line["car"] else float("nan")
            except ValueError:
                car = -1.0
            if not (np.isnan(car) or 0.0 <= car <= 1.0):
                raise PartitionError(
                    f"{source}, line {reader.line_num}: car is {line['car']!r}, expected a number in [0, 1] or nothing"
                )
            rows.append(PartitionRow(from_cell(line["split"]), from_cell(line["stem"]), car, from_cell(line["part"])))
    return rows
