"""Stems that differ by a fixed suffix, as in ``x_pre_disaster.png`` and ``x_post_disaster.png``.

The numbers of a tile may follow the suffix: ``x_pre_disaster_0_1.png`` is read as ``x_0_1_pre_disaster.png``.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product, takewhile
from pathlib import Path

from bitemporal.errors import OptionError
from bitemporal.pairs.listing import Listing
from bitemporal.pairs.names import DATE_ENDINGS, DATES, LABEL, LABEL_ENDINGS, normal
from bitemporal.pairs.stems import match_prefixes, match_spelling, words_at_the_end
from bitemporal.remedies import as_option

_SEPARATORS = "_-. "
_PART = re.compile(r"[_\-. ][^_\-. ]*")


@dataclass(frozen=True)
class Suffixes:
    """The suffixes that the stems of one pair differ by.

    Attributes:
        before: Suffix of images before.
        after: Suffix of images after.
        label: Suffix of change masks; ``None`` where it is found by ``label_suffix``.
        within: Whether the numbers of tiles follow the suffixes.
    """

    before: str
    after: str
    label: str | None = None
    within: bool = False

    @classmethod
    def of_option(cls, suffixes: Sequence[str] | None) -> "Suffixes | None":
        """The suffixes stated by an option.

        Raises:
            OptionError: When there are not two or three different ones.
        """
        if suffixes is None:
            return None
        if len(suffixes) not in (2, 3) or len(set(suffixes)) < len(suffixes):
            raise OptionError(
                f"suffixes: found {','.join(suffixes)}, expected BEFORE,AFTER or BEFORE,AFTER,LABEL, all different, "
                f"for example {suffixes_option(('_pre', '_post', '_mask'))}"
            )
        return cls(suffixes[0], suffixes[1], suffixes[2] if len(suffixes) == 3 else None)

    def describe(self) -> str:
        """The suffixes in words."""
        label = "" if self.label is None else f", {self.label or 'no suffix'} label"
        within = ", before the numbers of tiles" if self.within else ""
        return f"by suffix: {self.before or 'no suffix'} before, {self.after or 'no suffix'} after{label}{within}"

    def at_the_end(self, listing: Listing) -> Listing:
        """The files of a folder by stems whose suffix stands at the end, behind the numbers of a tile."""
        return _renamed(listing, (self.before, self.after)) if self.within else listing


def _renamed(listing: Listing, suffixes: Sequence[str]) -> Listing:
    """The files of a folder by their stems, with what has a digit moved to before the suffix, or a word for labels."""

    def moved(stem: str) -> str:
        words = next((word for word in suffixes if word in stem), None) or _word_of_label(stem)
        head, _, rest = stem.rpartition(words) if words else (stem, "", "")
        parts = _PART.findall(rest)
        if not head or "".join(parts) != rest:
            return stem
        numbers = [part for part in parts if any(map(str.isdigit, part))]
        return "".join([head, *numbers, words, *(part for part in parts if part not in numbers)])

    files: dict[str, list[Path]] = {}
    for stem, path in listing.files.items():
        files.setdefault(moved(stem), []).extend(listing.duplicates.get(stem, [path]))
    shared = {stem: paths for stem, paths in files.items() if len(paths) > 1}
    return Listing({stem: paths[0] for stem, paths in files.items()}, shared, list(listing.ignored))


def _word_of_label(stem: str) -> str:
    """The last part of a stem that is a word for labels, as ``_mask`` in ``x_mask_0_1``; else nothing."""
    return next((part for part in reversed(_PART.findall(stem)) if normal(part[1:]) in LABEL_ENDINGS), "")


def without_suffix(listing: Listing, suffix: str) -> Listing:
    """The files of a folder by their stems without a suffix; files that do not end in it are ignored by name."""
    if not suffix:
        return listing
    known = Listing(ignored=list(listing.ignored))
    for stem, path in listing.files.items():
        if stem.endswith(suffix) and stem != suffix:
            known.files[stem[: -len(suffix)]] = path
        else:
            known.ignored.append(path.name)
    known.duplicates = {
        stem[: -len(suffix)]: paths for stem, paths in listing.duplicates.items() if stem.endswith(suffix)
    }
    return known


def match_folders(
    before: Listing, after: Listing, stated: Suffixes | None = None
) -> tuple[Listing, Listing, Suffixes | None]:
    """Bring the images of two folders under the stems of their pairs.

    Where no stem is in both folders, and all stems of each end in one suffix, the stems without it pair them; where all
    begin with a word for their date, the stems without it do. Capitals and leading zeros make no difference where all
    stems of a folder have a counterpart that way.

    Args:
        before: Images of date 1.
        after: Images of date 2.
        stated: Suffixes that decide instead.

    Returns:
        Both listings by the stems of pairs, and the suffixes that were taken off, if any.
    """
    suffixes = stated and _stated(stated, [*before.files, *after.files])
    if suffixes is None and before.files and after.files and not before.files.keys() & after.files.keys():
        suffixes = _suffixes_of(before.files, after.files) or _within(before, after)
        if suffixes is None:
            before, after = match_prefixes(before, after)
    if suffixes is None:
        return before, match_spelling(after, before.files), None
    first, second = suffixes.at_the_end(before), suffixes.at_the_end(after)
    return without_suffix(first, suffixes.before), without_suffix(second, suffixes.after), suffixes


def _stated(suffixes: Suffixes, stems: Iterable[str]) -> Suffixes:
    """Stated suffixes, which may stand before the numbers of tiles where no stem ends in one."""
    ends = tuple(end for end in (suffixes.before, suffixes.after) if end)
    return suffixes if any(stem.endswith(ends) for stem in stems) else replace(suffixes, within=True)


def _within(before: Listing, after: Listing) -> Suffixes | None:
    """The known suffixes before the numbers of tiles that pair the stems of two folders."""
    for suffixes in _spelt_within(before.files, after.files):
        bases = []
        for listing, end in ((before, suffixes.before), (after, suffixes.after)):
            stems = suffixes.at_the_end(listing).files
            bases.append({stem[: -len(end)] for stem in stems if all(other.endswith(end) for other in stems)})
        if bases[0] & bases[1]:
            return suffixes
    return None


def _spelt_within(before: Iterable[str], after: Iterable[str]) -> Iterator[Suffixes]:
    """Known suffixes, as stems spell them, that the number of a tile follows."""
    first, second = list(before), list(after)
    for words in DATE_ENDINGS:
        if len(words[0]) == 1:
            continue  # _1_ and _a_ may as well be the row of a tile
        pattern, other = (re.compile(rf"[_\-. ]{word}(?=[_\-. ]\w*\d)", re.IGNORECASE) for word in words)
        found = (
            next(filter(None, map(pattern.search, first)), None),
            next(filter(None, map(other.search, second)), None),
        )
        if found[0] and found[1]:
            yield Suffixes(found[0].group(), found[1].group(), within=True)
    years = [*map(_shared_years, (first, second))]
    for early, late in product(*years):
        if early not in years[1] and late not in years[0]:
            yield Suffixes(early, late, within=True)


def _shared_years(stems: Sequence[str]) -> list[str]:
    """The years before the number of a tile that all stems have, as ``_2016`` in ``x_2016_0``."""
    found = [{*re.findall(r"[_\-. ](?:19|20)\d\d(?=[_\-. ]\w*\d)", stem)} for stem in stems]
    return sorted(set.intersection(*found)) if found else []


def _suffixes_of(before: Iterable[str], after: Iterable[str]) -> Suffixes | None:
    """The suffix of each of two sets of stems."""
    first, second = list(before), list(after)
    for ending in DATE_ENDINGS:
        known = _ending(first, ending[0]), _ending(second, ending[1])
        if known[0] and known[1] and {s[: -len(known[0])] for s in first} & {s[: -len(known[1])] for s in second}:
            return Suffixes(*known)
    if min(len(first), len(second)) < 2:  # any two stems differ by some suffix
        return None
    ends = _shared_end(first), _shared_end(second)
    for i in (i for i, letter in enumerate(ends[0]) if letter in _SEPARATORS):
        for j in (j for j, letter in enumerate(ends[1]) if letter in _SEPARATORS):
            one, two = ends[0][i:], ends[1][j:]
            if one != two and {s[: -len(one)] for s in first} == {s[: -len(two)] for s in second}:
                return Suffixes(one, two)
    return None


def _ending(stems: Sequence[str], word: str) -> str:
    """The suffix that is a separator and a word, in any case, if all stems end in the same; else nothing."""
    suffix = stems[0][-len(word) - 1 :]
    fits = suffix[:1] in _SEPARATORS and suffix[1:].lower() == word
    return suffix if suffix and fits and all(s.endswith(suffix) and s != suffix for s in stems) else ""


def suffixes_option(suffixes: Sequence[str]) -> str:
    """Suffixes as the keyword and the option that state them."""
    return f"suffixes={tuple(suffixes)!r} ({as_option('suffixes', suffixes)})"


def ends_of_one_folder(stems: Iterable[str]) -> tuple[str, ...]:
    """The two or three ends after a separator that most stems of one folder share, each next to others of its base."""
    ends_by_base: dict[str, set[str]] = {}
    for stem in stems:
        for place in (i for i, letter in enumerate(stem) if i and letter in _SEPARATORS):
            ends_by_base.setdefault(stem[:place], set()).add(stem[place:])
    counts = Counter(tuple(sorted(ends)) for ends in ends_by_base.values() if len(ends) in (2, 3))
    nothing: tuple[str, ...] = ()
    ends = max(counts, key=lambda ends: (counts[ends] * len(ends), ends), default=nothing)
    return tuple(sorted(ends, key=lambda end: normal(end.lstrip(_SEPARATORS)) in LABEL_ENDINGS))  # labels come last


def telling_ends(before: Iterable[str], after: Iterable[str]) -> tuple[str, ...]:
    """The ends of stems of two folders without which most stems of the smaller one, of the first fifty, are in both."""
    first, second = list(islice(before, 50)), list(islice(after, 50))
    counts: Counter[tuple[str, str]] = Counter()
    for one, other in product(first, second):
        shared = sum(1 for _ in takewhile(lambda letters: letters[0] == letters[1], zip(one, other, strict=False)))
        # the letter at which they part may be a separator, or come some letters after one
        cut = max(one.rfind(mark, 1, shared + 1) for mark in _SEPARATORS)
        if cut > 0 and one[:cut] == other[:cut] and other[cut : cut + 1] in _SEPARATORS and one[cut:] != other[cut:]:
            counts[one[cut:], other[cut:]] += 1
    best, count = max(counts.items(), key=lambda item: item[1], default=((), 0))
    return best if 2 * count >= min(len(first), len(second)) else ()


def _shared_end(stems: Sequence[str]) -> str:
    """The longest suffix that all stems share."""
    letters = zip(*(reversed(stem) for stem in stems), strict=False)
    return "".join(column[0] for column in takewhile(lambda column: len(set(column)) == 1, letters))[::-1]


def label_suffix(labels: Iterable[str], stems: Collection[str], dates: Suffixes) -> str:
    """The suffix of labels: what most of them have beyond the stem of a pair.

    Where there are labels of both dates, as in xBD, those of the date after are taken.

    Args:
        labels: Stems of labels.
        stems: Stems of pairs.
        dates: Suffixes of the images.
    """
    bases = ((label, _base_of(label, stems)) for label in labels)
    counts = Counter(label[len(base) :] for label, base in bases if base is not None)
    for suffix in [suffix for suffix in counts if suffix.startswith(dates.before)]:
        if dates.after + suffix.removeprefix(dates.before) in counts:
            del counts[suffix]
    return max(counts, key=lambda suffix: (counts[suffix], suffix), default="")


def _base_of(label: str, stems: Collection[str]) -> str | None:
    """The longest of the stems that a label begins with."""
    return next((label[:end] for end in range(len(label), 0, -1) if label[:end] in stems), None)


def part_folder(listing: Listing, stated: Suffixes | None) -> tuple[Suffixes, dict[str, Listing]] | None:
    """Tell the images before, after and the labels of one folder apart by the ends of their stems.

    Args:
        listing: All files of the folder.
        stated: Suffixes that decide; without them, known ends do (``_pre``, ``_post``, ``_1``, ``_2``, ...).

    Returns:
        The suffixes, and the files under the names ``A``, ``B`` and, if any, ``label``, by the stems of pairs; ``None``
        when the stems have no such ends, or beginnings, or some stem has none of them.
    """
    suffixes = _stated(stated, listing.files) if stated else _known_suffixes(listing)
    if suffixes is None:
        listing = words_at_the_end(listing)
        suffixes = _known_suffixes(listing)
    if suffixes is None:
        return None
    how = listing.matched
    listing = suffixes.at_the_end(listing)
    ends = dict(zip((*DATES, LABEL), (suffixes.before, suffixes.after, suffixes.label), strict=True))
    by_length = sorted((len(end), role, end) for role, end in ends.items() if end is not None)
    parted = {role: Listing(matched=how) for _, role, _ in by_length}
    for stem, path in listing.files.items():
        # the longest end decides: _post_target ends in _target, and so would x_target end in nothing
        fits = next(((role, n) for n, role, end in reversed(by_length) if stem.endswith(end) and stem != end), None)
        if fits is None:
            listing.ignored.append(path.name)
            continue
        role, length = fits
        base = stem[: len(stem) - length]
        parted[role].files[base] = path
        if stem in listing.duplicates:
            parted[role].duplicates[base] = listing.duplicates[stem]
    if not all(parted[date].files for date in DATES):
        return None
    parted[DATES[0]].ignored = listing.ignored
    return suffixes, {role: parted[role] for role in (*DATES, LABEL) if role in parted}


def _known_suffixes(listing: Listing) -> Suffixes | None:
    """Suffixes, of the known ones, that account for all stems of a folder."""
    at_end = _known_ends(listing.files)
    if at_end is not None:
        return at_end
    for suffixes in _spelt_within(listing.files, listing.files):
        known = _known_ends(suffixes.at_the_end(listing).files)
        if known is not None:
            return replace(known, within=True)
    return None


def _known_ends(stems: Iterable[str]) -> Suffixes | None:
    """Suffixes, of the known ones, that all stems end in."""
    given = list(stems)
    for words in DATE_ENDINGS:
        for mark in _SEPARATORS:
            before, after = (_spelt(given, mark + word) for word in words)
            if not before or not after:
                continue
            first, second = ({s[: -len(end)] for s in given if s.endswith(end)} for end in (before, after))
            rest = [stem for stem in given if not stem.endswith((before, after))]
            dates = Suffixes(before, after)
            if first & second and all(_is_label(stem, first | second, dates) for stem in rest):
                return replace(dates, label=label_suffix(rest, first | second, dates)) if rest else dates
    return None


def _spelt(stems: Iterable[str], end: str) -> str:
    """An end as the first stem that has it, in any case, spells it; nothing without one."""
    return next((stem[-len(end) :] for stem in stems if stem.lower().endswith(end)), "")


def _is_label(stem: str, bases: Collection[str], dates: Suffixes) -> bool:
    """Whether a stem is that of a pair and a word for labels, as in ``x_mask`` and ``x_post_disaster_target``."""
    base = _base_of(stem, bases)
    suffix = "" if base is None else stem[len(base) :].removeprefix(dates.before).removeprefix(dates.after)
    return suffix[:1] in _SEPARATORS and normal(suffix.lstrip(_SEPARATORS)) in LABEL_ENDINGS
