"""Lists of pairs by split: text files with a name per line, and a CSV with the columns split and stem."""

import csv
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bitemporal.errors import DataError
from bitemporal.files import not_there
from bitemporal.imagery.decode import SUFFIXES, FileFault
from bitemporal.outputs import replacing
from bitemporal.pairs.listing import entries
from bitemporal.pairs.names import split_name, split_of_list
from bitemporal.pairs.partition import PartitionRow

LIST_FOLDERS = ("list", "lists", "splits", "split")
"""Folders in which data sets keep their lists, in lower case."""

SPLITS_CSV = "splits.csv"
"""The table of splits that is used where it lies beside the folders of images."""

_LIST_ENDING = ".txt"
_COLUMNS = ("split", "stem")


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


@dataclass
class Assignment:
    """Which pair goes where, according to lists.

    Attributes:
        sources: By split: the split that a stem comes from, by stem.
        left: Stems that no list names.
        faults: Names without a pair, and names in two lists, with the split concerned.
        warnings: What is usable but worth knowing.
    """

    sources: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    left: list[str] = field(default_factory=list)
    faults: list[tuple[str, FileFault]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def find_lists(folder: Path) -> list[Path]:
    """The files that say which pair is in which split: ``splits.csv``, or text files named after splits.

    Args:
        folder: Where to look, and in its folders ``list`` and ``splits``; the first place that has any decides.
    """
    listed = entries(folder)
    if (SPLITS_CSV, False) in listed:
        return [folder / SPLITS_CSV]
    places = [folder, *(folder / name for name, is_folder in listed if is_folder and name.lower() in LIST_FOLDERS)]
    for place in places:
        files = [place / name for name, is_folder in entries(place) if not is_folder and name[0] != "."]
        found = [path for path in files if path.name.lower() == SPLITS_CSV] or [
            path for path in files if path.suffix.lower() == _LIST_ENDING and split_of_list(path.stem)
        ]
        if found:
            return found
    return []


def read_stated(path: str | os.PathLike[str]) -> list[SplitList]:
    """The lists of an option: a CSV with the columns split and stem, or a folder of text files.

    Raises:
        DataError: When there is no such file or folder, or it holds no list.
    """
    place = Path(path)
    if not place.is_dir():
        return read_lists([place])
    paths = find_lists(place)
    if not paths:
        raise DataError(
            f"{place}: found no list, expected {SPLITS_CSV} with the columns {','.join(_COLUMNS)}, or text files named "
            "train.txt, val.txt and test.txt with a name per line"
        )
    return read_lists(paths)


def read_lists(paths: Sequence[Path]) -> list[SplitList]:
    """Read files of lists, as ``find_lists`` gives them.

    Raises:
        DataError: When a file cannot be read, or a CSV lacks a column.
    """
    lists: list[SplitList] = []
    for path in paths:
        text = _read(path)
        if path.suffix.lower() == _LIST_ENDING:
            lines = text.strip().splitlines()
            names = [name.strip() for name in (lines[0].split(",") if len(lines) == 1 else lines)]  # OSCD has one line
            lists.append(SplitList(path, split_of_list(path.stem) or path.stem, [name for name in names if name]))
        else:
            lists += _of_table(path, text)
    merged: dict[tuple[str, Path], SplitList] = {}
    for one in lists:
        merged.setdefault((one.split, one.path), SplitList(one.path, one.split, [])).names.extend(one.names)
    return list(merged.values())


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        found = f"{path}: cannot be read ({error.strerror})" if path.exists() else not_there(path, "file or folder")
        raise DataError(
            f"{found}, expected a list of pairs: a CSV with the columns {','.join(_COLUMNS)}, or a text file with a "
            "name per line"
        ) from error
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"  # as Windows' editors save text
    return raw.decode(encoding, "surrogateescape")


def _of_table(path: Path, text: str) -> Iterator[SplitList]:
    reader = csv.DictReader(text.splitlines(), delimiter=";" if ";" in text.partition("\n")[0] else ",")
    columns = {name.strip().lower(): name for name in reader.fieldnames or ()}
    if missing := [column for column in _COLUMNS if column not in columns]:
        raise DataError(
            f"{path}: found the columns {', '.join(columns) or 'of an empty file'}, expected {' and '.join(_COLUMNS)}; "
            f"{' and '.join(missing)} missing"
        )
    for row in reader:
        split, stem = ((row[columns[column]] or "").strip() for column in _COLUMNS)
        if split and stem:
            yield SplitList(path, split_name(split) or split, [stem])


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
        writer.writerows(sorted({(row.split, row.stem) for row in rows}))


def assign(lists: Sequence[SplitList], stems: Mapping[str, Collection[str]], suffixes: Collection[str]) -> Assignment:
    """Bring pairs into the splits that lists name.

    Args:
        lists: The lists.
        stems: Stems of all files, by the split in whose folders they are.
        suffixes: Suffixes that were taken off stems; names in lists may have them.
    """
    result = Assignment()
    places: dict[str, list[str]] = defaultdict(list)
    for split, own in stems.items():
        for stem in own:
            places[stem].append(split)
    named_by: dict[tuple[str, str], SplitList] = {}
    for one in lists:
        missing, twice, again = [], [], []
        for name in one.names:
            stem = next((reading for reading in _readings(name, suffixes) if reading in places), "")
            source = _source(places[stem], one.split) if stem else None
            if source is None:
                missing.append(name)
            elif (stem, source) not in named_by:
                named_by[stem, source] = one
                result.sources[one.split][stem] = source
            elif named_by[stem, source].split == one.split:
                again.append(name)
            else:
                twice.append((name, named_by[stem, source]))
        result.sources.setdefault(one.split, {})
        if missing:
            result.faults.append((one.split, _missing(one, missing)))
        if twice:
            shown, first = twice[0]
            other = first.split if first.path == one.path else first.path.name
            fault = FileFault(
                one.path,
                f"{len(twice)} of its names for {one.split} are in {other} too, such as {shown}",
                "name each pair for one split only: remove the lines from one of the two",
            )
            result.faults.append((one.split, fault))
        if again:
            result.warnings.append(f"{one.path}: names {len(again)} pair(s) more than once, such as {again[0]}")
    result.left = sorted(stem for stem, own in places.items() if not any((stem, split) in named_by for split in own))
    return result


def _missing(one: SplitList, names: list[str]) -> FileFault:
    if len(names) == len(set(one.names)):
        return FileFault(
            one.path,
            f"none of its {len(names)} lines names a pair of this folder, such as {names[0]}",
            "write one stem or file name per line, or remove the file if it is no list of pairs",
        )
    shown = ", ".join(list(dict.fromkeys(names))[:3])
    return FileFault(
        one.path,
        f"{len(names)} of its {len(one.names)} names have no file, such as {shown}",
        "add their files, or remove the lines",
    )


def _source(places: Sequence[str], split: str) -> str | None:
    """The split in whose folders a listed stem is: its own, else the only one, else train."""
    if split in places:
        return split
    if len(places) == 1:
        return places[0]
    return "train" if "train" in places else None


def _readings(name: str, suffixes: Collection[str]) -> Iterator[str]:
    """The stems that a line may mean: of the whole line, else of its first column; a path's folders are dropped."""
    for text in dict.fromkeys((name, name.split("\t")[0], name.split(",")[0], name.split(" ")[0])):
        base = text.strip().strip("\"'").replace("\\", "/").rpartition("/")[2]
        stem, ending = os.path.splitext(base)
        for reading in (stem, base) if ending.lower() in SUFFIXES else (base,):
            yield reading
            yield from (reading.removesuffix(suffix) for suffix in suffixes if suffix and reading.endswith(suffix))
