"""Which pair is in which split, according to lists: what their lines mean, and what does not fit the files."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bitemporal.imagery.decoded import SUFFIXES, FileFault
from bitemporal.pairs.names import normal
from bitemporal.pairs.split_lists import HEADER_WORDS, SplitList
from bitemporal.pairs.stems import plain

_COMMENTS = ("#", "//")
_OTHER_ENCODINGS = ("cp1252", "gb18030")  # of lists that are not UTF-8, as Windows' programs write them


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


def assign(
    lists: Sequence[SplitList],
    stems: Mapping[str, Collection[str]],
    suffixes: Collection[str],
    file_stems: Mapping[str, str] | None = None,
) -> Assignment:
    """Bring pairs into the splits that lists name.

    Args:
        lists: The lists.
        stems: Stems of all files, by the split in whose folders they are.
        suffixes: Suffixes that were taken off stems; names in lists may have them.
        file_stems: Stems of pairs by those of their files, where they differ otherwise.
    """
    result = Assignment()
    places: dict[str, list[str]] = defaultdict(list)
    for split, own in stems.items():
        for stem in own:
            places[stem].append(split)
    known = _Known(places, suffixes, file_stems or {})
    named_by: dict[tuple[str, str], SplitList] = {}
    for one in lists:
        missing, twice = [], []
        lines: dict[str, int] = Counter(one.names)
        for number, name in enumerate(dict.fromkeys(one.names)):
            stem = known.stem_of(name)
            source = _source(places[stem], one.split) if stem else None
            if source is None:
                if not _says_nothing(name, number, one.names):
                    missing.append(name)
            elif (stem, source) not in named_by:
                named_by[stem, source] = one
                result.sources[one.split][stem] = source
            elif named_by[stem, source].split != one.split:  # else a line for each file of the pair
                twice.append((name, named_by[stem, source]))
        result.sources.setdefault(one.split, {})
        if missing or not one.names:
            result.faults.append((one.split, _missing(one, missing, found=bool(result.sources[one.split]))))
        if twice:
            shown, first = twice[0]
            other = first.split if first.path == one.path else first.path.name
            fault = FileFault(
                one.path,
                f"{len(twice)} of its names for {one.split} are in {other} too, such as {shown}",
                "name each pair for one split only: remove the lines from one of the two",
            )
            result.faults.append((one.split, fault))
        if again := [name for name, count in lines.items() if count > 1 and known.stem_of(name)]:
            result.warnings.append(f"{one.path}: names {len(again)} pair(s) more than once, such as {again[0]}")
    result.left = sorted(stem for stem, own in places.items() if not any((stem, split) in named_by for split in own))
    return result


def _says_nothing(line: str, number: int, lines: Sequence[str]) -> bool:
    """Whether a line that names no pair is a comment, or the names of columns in the first line."""
    if line.startswith(_COMMENTS):
        return True
    words = {normal(word) for word in _cells(line)}
    is_header = bool(words & HEADER_WORDS) or (
        len(words) > 1 and not _files(line) and len(lines) > 1 and all(map(_files, lines[1:]))
    )
    return number == 0 and is_header


def _cells(line: str) -> list[str]:
    return [word.strip().strip("\"'") for word in re.split(r"[\t,; ]", line)]


def _files(line: str) -> list[str]:
    """The cells of a line that are names of image files."""
    return [cell for cell in _cells(line) if os.path.splitext(cell)[1].lower() in SUFFIXES]


_LONGEST_NAME = 255
"""Characters that the name of a file may have."""


def _missing(one: SplitList, names: list[str], found: bool) -> FileFault:
    names = [f"{name[:100]}..." if len(name) > _LONGEST_NAME else name for name in names]
    if not names:
        return FileFault(one.path, "names no pair", "write one stem or file name per line, or remove the file")
    if not found:
        return FileFault(
            one.path,
            f"none of its {len(one.names)} lines names a pair of this folder, such as {names[0]}",
            "write one stem or file name per line, or remove the file if it is not a list of pairs",
        )
    shown = ", ".join(names[:3])
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


class _Known:
    """The stems of pairs, to find the one that a line means."""

    def __init__(self, stems: Collection[str], suffixes: Collection[str], file_stems: Mapping[str, str]) -> None:
        self._stems, self._suffixes, self._file_stems = stems, suffixes, file_stems
        by_plain: dict[str, list[str]] = defaultdict(list)
        for stem in stems:
            by_plain[plain(stem)].append(stem)
        self._by_plain = {word: own[0] for word, own in by_plain.items() if len(own) == 1}

    def stem_of(self, line: str) -> str:
        """The stem that a line means; empty without one."""
        readings = [*self._readings(line)]
        if not line.isascii():
            for encoding in _OTHER_ENCODINGS:
                raw = line.encode("utf-8", "surrogateescape")
                readings += self._readings(raw.decode(encoding, "replace"))
        exact = next((reading for reading in readings if reading in self._stems), "")
        return exact or next((self._by_plain[plain(one)] for one in readings if plain(one) in self._by_plain), "")

    def _readings(self, line: str) -> Iterator[str]:
        """The stems that a line may mean: the whole, else a column; a path's folders are dropped."""
        if line.startswith(_COMMENTS):
            yield line
            return
        columns = [column for mark in "\t,; " for column in line.split(mark) if column.strip()]
        files = [column for column in columns if os.path.splitext(column.strip(" \"'"))[1].lower() in SUFFIXES]
        for text in dict.fromkeys((line, *files, *(line.split(mark)[0] for mark in "\t,; "))):
            base = text.strip().strip("\"'").replace("\\", "/").rpartition("/")[2]
            stem, ending = os.path.splitext(base)
            for reading in (stem, base) if ending.lower() in SUFFIXES else (base,):
                yield reading
                yield from (reading.removesuffix(end) for end in self._suffixes if end and reading.endswith(end))
                if reading in self._file_stems:
                    yield self._file_stems[reading]
