"""The rows of a manifest that is a table: csv as spreadsheets and people write it, or parquet."""

import csv
import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet

from bitemporal.errors import DataError
from bitemporal.files import text_of
from bitemporal.reading import read_table, reading
from bitemporal.remedies import free_name
from bitemporal.texts import few_of

COLUMNS = ("before", "after")
"""Columns that a manifest needs; capitals do not matter."""

FURTHER = ("id", "mask", "before_date", "after_date")
"""Columns that it may have; any others are left alone."""

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", " ": "spaces", "|": "vertical bars"}
"""Between the columns of a csv file; the first one that gives the columns above is the file's."""


_NO_HEADER = ("#", "sep=")
"""Beginnings of lines above the header: comments, and the separator as Excel writes it."""


@dataclass(frozen=True)
class Row:
    """One row of a manifest.

    Attributes:
        values: Values by the lower-case name of their column.
        place: Where it stands: its line in a text file, the header being the first as a rule, else its number.
        fault: What is wrong with the row as a whole; empty where nothing is.
    """

    values: dict[str, Any]
    place: str
    fault: str = ""


def read_rows(file: Path) -> list[Row]:
    """Read the rows below the header; blank ones are left out.

    Args:
        file: A file that ends in ``.parquet``, or text in UTF-8 or UTF-16 whose columns are separated
            by commas, semicolons, tabs, spaces or vertical bars.

    Raises:
        DataError: When it cannot be read, or lacks a column.
    """
    if file.suffix.lower() == ".parquet":
        with reading(file, DataError, "expected a parquet file"):
            table = pyarrow.parquet.read_table(file)
            names = _check_header(file, table.column_names, "")
            return [
                Row(dict(zip(names, row.values(), strict=True)), f"row {number}")
                for number, row in enumerate(table.to_pylist(), start=1)
            ]
    with reading(file, DataError, f"expected a table as text in UTF-8: save it as `CSV UTF-8`{_conversion(file)}"):
        return _read_csv(file)


def _conversion(file: Path) -> str:
    """The command that writes a table of Windows-1252, as older spreadsheets do, in UTF-8."""
    source, target = (json.dumps(os.fspath(path)) for path in (file, free_name(file.with_stem(f"{file.stem}-utf8"))))
    code = f'from pathlib import Path; Path({target}).write_text(Path({source}).read_text("cp1252"), "utf-8")'
    return f", or, if a Windows program wrote it, `python -c {shlex.quote(code)}` converts it"


def _read_csv(file: Path) -> list[Row]:
    text = text_of(read_table(file))
    if not text.isascii() and any("\udc80" <= letter <= "\udcff" for letter in text):
        raise ValueError("it is neither UTF-8 nor UTF-16")
    if "\0" in text:
        raise ValueError("it holds null characters")
    header = next(
        (line for line in _LINE.finditer(text) if line[0].strip() and not line[0].startswith(_NO_HEADER)), None
    )
    if header is None:
        return []
    begin, first = header.start(), header[0].strip()
    columns = {separator: next(_split(first, separator), (1, [""]))[1] for separator in _SEPARATORS}
    fitting = [separator for separator, names in columns.items() if {*COLUMNS} <= {name.casefold() for name in names}]
    separator = fitting[0] if fitting else max(columns, key=lambda separator: len(columns[separator]))
    lines = _split(text, separator, begin)
    names = _check_header(file, next(lines, (1, [""]))[1], f" (separated by {_SEPARATORS[separator]})")
    return [
        Row(dict(zip(names, fields, strict=False)), f"line {number}", _fault(fields, names, separator))
        for number, fields in lines
    ]


_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z")


def _split(text: str, separator: str, begin: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of the lines that hold any, without the blanks around them and empty ones at the end.

    Args:
        text: The table; it is not copied, as it may be large.
        separator: Of the columns.
        begin: Character where the first line begins that counts.
    """
    above = sum(1 for _ in _LINE.finditer(text, 0, begin))
    lines = (line[0] for line in _LINE.finditer(text, begin))
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    number = above + 1
    for line in reader:
        fields = [field.strip() for field in line]
        if any(fields):
            yield number, _without_empty_end(fields)
        number = above + reader.line_num + 1  # quoted fields may span lines


def _without_empty_end(fields: list[str]) -> list[str]:
    while not fields[-1]:
        fields = fields[:-1]
    return fields


def _check_header(file: Path, header: Sequence[str], how: str) -> list[str]:
    names = [str(name).strip().casefold() for name in header]
    twice = [name for name, count in Counter(names).items() if count > 1 and name in COLUMNS + FURTHER]
    if twice:
        raise DataError(f"{file}: found the column {twice[0]} twice; leave one of them out")
    if not set(COLUMNS) <= set(names):
        raise DataError(
            f"{file}: found the columns {few_of([*map(str, header)])}{how}, expected a first line with before and "
            "after, and id if the scenes have names: name the columns so"
        )
    return names


def _fault(line: Sequence[str], names: Sequence[str], separator: str) -> str:
    if len(line) <= len(names):
        return ""
    return (
        f"has {len(line)} values for {len(names)} columns; put values that hold {_SEPARATORS[separator]}, such as "
        "several files of one date, in double quotes"
    )
