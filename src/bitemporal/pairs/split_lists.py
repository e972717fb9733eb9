"""Lists of pairs by split: text, CSV or JSON files with the names of one split, and tables of all splits."""

import csv
import io
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bitemporal.errors import DataError
from bitemporal.files import not_there, text_of
from bitemporal.outputs import Kind, replacing
from bitemporal.pairs.listing import entries, is_image
from bitemporal.pairs.names import DATE_WORDS, normal, split_name, split_of_list
from bitemporal.pairs.partition import PartitionRow
from bitemporal.reading import parse_json, read_table, reading
from bitemporal.texts import as_cell, few_of, from_cell

LIST_FOLDERS = ("list", "lists", "splits", "split", "imagesets", "txt")
"""Folders in which data sets keep their lists, in lower case."""

SPLITS_CSV = "splits.csv"
"""The table of splits that ``write_split`` writes."""

_TABLES = (SPLITS_CSV, "split.csv", "splits.json", "split.json")
"""Names of tables of all splits, in lower case."""

_ENDINGS = ((".txt", ".lst", ""), (".csv", ".tsv"), (".json",))
"""Of lists of one split; where there are several kinds, the first one decides."""

_COLUMNS = ("split", "stem")
_SPELT = {
    "split": ("split", "splits", "set", "subset", "phase"),
    "stem": ("stem", "name", "filename", "file", "path", "image", "imagename", "id", "imageid", "pair", "tile"),
}
"""Names of the columns, as ``normal`` gives them."""

HEADER_WORDS = {*_SPELT["stem"], *DATE_WORDS} - {"a", "b"}
"""Words of which one at least is in a line that names columns, as ``normal`` gives them."""


@dataclass
class SplitList:
    """The pairs of one split, as a file names them.

    Attributes:
        path: The file.
        split: The split.
        names: What the file has, in its order: stems, or names and paths of files.
    """

    path: Path
    split: str
    names: list[str]


def find_lists(folder: Path, used: Collection[str] = ()) -> list[Path]:
    """The files that say which pair is in which split: a table of all splits, or files named after splits.

    Args:
        folder: Where to look, and in its folders: those that are named after lists, then all others. The first place
            that has any decides.
        used: Names of folders that hold images.
    """
    folders = [name for name, is_folder in entries(folder) if is_folder and name not in used and name[0] != "."]
    known = [folder / name for name in folders if name.lower() in LIST_FOLDERS]
    inner = [path / name for path in known for name, is_folder in entries(path) if is_folder]
    for place in (folder, *known, *inner):
        if found := _lists_in(place):
            return found
    others = [found for name in folders if folder / name not in known and (found := _text_lists_in(folder / name))]
    return others[0] if len(others) == 1 else []


def is_list(name: str) -> bool:
    """Whether a file's name is that of a table of splits, or of a list of one split."""
    stem, ending = os.path.splitext(name)
    known = any(ending.lower() in endings for endings in _ENDINGS)
    return name.lower() in _TABLES or (known and split_of_list(stem) is not None)


def is_surely_list(path: Path, place: Path) -> bool:
    """Whether a file of ``find_lists`` can be nothing else, by its name and the folder that it is in.

    Args:
        path: The file.
        place: The folder of the pairs.
    """
    named = path.name.lower() in _TABLES or path.suffix.lower() in _ENDINGS[0]
    folders = {folder.name.lower() for folder in (path.parent, path.parent.parent)}
    return named and (path.parent == place or not folders.isdisjoint(LIST_FOLDERS))


def _lists_in(place: Path) -> list[Path]:
    names = [name for name, is_folder in entries(place) if not is_folder and name[0] != "." and is_list(name)]
    tables = sorted((name for name in names if name.lower() in _TABLES), key=lambda name: _TABLES.index(name.lower()))
    if tables:
        return [place / tables[0]]
    by_kind = ([n for n in names if os.path.splitext(n)[1].lower() in endings] for endings in _ENDINGS)
    return [place / name for name in next(filter(None, by_kind), [])]


def _text_lists_in(place: Path) -> list[Path]:
    """The text files of a folder of any name, where it can be listed."""
    try:
        return [path for path in _lists_in(place) if path.suffix.lower() == ".txt"]
    except DataError:
        return []


def read_stated(path: str | os.PathLike[str]) -> list[SplitList]:
    """The lists of an option: a table, a list, or a folder of either.

    Raises:
        DataError: When there is no such file or folder, or it holds no list, or names no pair.
    """
    place = Path(path)
    paths = find_lists(place) if place.is_dir() else [place]
    if not paths:
        raise DataError(
            f"{place}: found no list, expected {SPLITS_CSV} with the columns {','.join(_COLUMNS)}, or text files named "
            "train.txt, val.txt and test.txt with a name per line"
        )
    lists = read_lists(paths)
    if not any(one.names for one in lists):
        raise DataError(f"{place}: names no pair, expected the pairs of each split; write it again, or leave it out")
    return lists


def read_lists(paths: Sequence[Path]) -> list[SplitList]:
    """Read files of lists, as ``find_lists`` gives them.

    Raises:
        DataError: When a file cannot be read, or a table lacks a column.
    """
    lists: list[SplitList] = []
    for path in paths:
        text = _read(path)
        split = split_of_list(path.stem)
        is_table = path.suffix.lower() in _ENDINGS[1] and (split is None or path.name.lower() in _TABLES)
        if path.suffix.lower() == ".json":
            lists += _of_json(path, text)
        elif is_table:
            with reading(path, DataError, f"expected a table with the columns {','.join(_COLUMNS)}; correct it"):
                lists += _of_table(path, text)
        else:
            names = text.strip().splitlines()
            if len(names) == 1 and not any(map(is_image, names[0].split(","))):  # OSCD has all in one line
                names = names[0].split(",")
            lists.append(SplitList(path, split or path.stem, [name.strip() for name in names if name.strip()]))
    merged: dict[tuple[str, Path], SplitList] = {}
    for one in lists:
        merged.setdefault((one.split, one.path), SplitList(one.path, one.split, [])).names.extend(one.names)
    return list(merged.values())


def _read(path: Path) -> str:
    what = f"a list of pairs: a CSV with the columns {','.join(_COLUMNS)}, or a text file with a name per line"
    if not path.exists():
        raise DataError(f"{not_there(path, 'file or folder')}, expected {what}")
    with reading(path, DataError, f"expected {what}"):
        return text_of(path.read_bytes() if path.suffix.lower() == ".json" else read_table(path))


def _of_table(path: Path, text: str) -> Iterator[SplitList]:
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    found = list(reader.fieldnames or ())
    columns = {column: _column(found, spelt) for column, spelt in _SPELT.items()}
    if missing := [column for column, name in columns.items() if name is None]:
        raise DataError(
            f"{path}: found the columns {few_of(found) or 'of an empty file'}, expected {' and '.join(_COLUMNS)}; "
            f"{' and '.join(missing)} missing: name the columns so"
        )
    for row in reader:
        split, stem = (from_cell((row[columns[column] or ""] or "").strip()) for column in _COLUMNS)
        if split and stem:
            yield SplitList(path, split_name(split) or split, [stem])


def _is_division(path: Path) -> bool:
    with path.open(newline="", encoding="utf-8") as stream:
        return next(csv.reader(stream), []) == [*_COLUMNS]


DIVISION = Kind("a division into splits", _is_division, (".csv",))
"""What ``write_split`` writes."""


def write_split(path: str | os.PathLike[str], rows: Iterable[PartitionRow]) -> None:
    """Write which pair is in which split, as CSV with the columns split, stem, in sorted order.

    The file depends on the assignment alone and appears whole or not at all.
    """
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(
            (as_cell(split), as_cell(stem)) for split, stem in sorted({(row.split, row.stem) for row in rows})
        )


def _column(found: Sequence[str], spelt: Sequence[str]) -> str | None:
    """The column that has the first of some names."""
    by_word = {normal(name.strip()): name for name in reversed(found)}
    return next((by_word[word] for word in spelt if word in by_word), None)


def _of_json(path: Path, text: str) -> Iterator[SplitList]:
    """A list of names, or objects with names, of one split; or an object with such a list for each split."""
    with reading(path, DataError, "expected a list of names in JSON; correct it"):
        content = parse_json(text)
    if isinstance(content, dict) and any(split_name(str(key)) for key in content):
        for key, value in content.items():
            if split := split_name(str(key)):
                yield SplitList(path, split, list(_names_in(value)))
        return
    split = split_of_list(path.stem) or path.stem
    images = content.get("images", content) if isinstance(content, dict) else content  # as COCO has them
    yield SplitList(path, split, list(_names_in(images)))


def _names_in(value: object) -> Iterator[str]:
    """Names in a list of names, or of objects with a name each."""
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict):
            name = _column([str(key) for key in item if isinstance(item[key], str)], (*_SPELT["stem"], *DATE_WORDS))
            item = item[name] if name else item
        if isinstance(item, str | int):
            yield str(item)
