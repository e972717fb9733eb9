"""Stems that differ by a fixed suffix, as in ``x_pre_disaster.png`` and ``x_post_disaster.png``."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from bitemporal.errors import OptionError
from bitemporal.pairs.listing import Listing
from bitemporal.pairs.names import DATE_ENDINGS, DATES, LABEL, LABEL_ENDINGS, normal

_SEPARATORS = "_-. "


@dataclass(frozen=True)
class Suffixes:
    """The suffixes that the stems of one pair differ by.

    Attributes:
        before: Suffix of images before.
        after: Suffix of images after.
        label: Suffix of change masks; ``None`` where it is found by ``label_suffix``.
    """

    before: str
    after: str
    label: str | None = None

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
                "for example suffixes=('_pre', '_post', '_mask') (--suffixes _pre,_post,_mask)"
            )
        return cls(*suffixes)

    def describe(self) -> str:
        """The suffixes in words."""
        label = "" if self.label is None else f", {self.label or 'no suffix'} label"
        return f"by suffix: {self.before or 'no suffix'} before, {self.after or 'no suffix'} after{label}"


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

    Where no stem is in both folders, and all stems of each end in one suffix, the stems without it pair them.

    Args:
        before: Images of date 1.
        after: Images of date 2.
        stated: Suffixes that decide instead.

    Returns:
        Both listings by the stems of pairs, and the suffixes that were taken off, if any.
    """
    suffixes = stated
    if suffixes is None and before.files and after.files and not before.files.keys() & after.files.keys():
        suffixes = _suffixes_of(before.files, after.files)
    if suffixes is None:
        return before, after, None
    return without_suffix(before, suffixes.before), without_suffix(after, suffixes.after), suffixes


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
        when the stems have no such ends, or some stem has none of them.
    """
    suffixes = stated or _known_suffixes(listing.files)
    if suffixes is None:
        return None
    ends = dict(zip((*DATES, LABEL), (suffixes.before, suffixes.after, suffixes.label), strict=True))
    by_length = sorted((len(end), role, end) for role, end in ends.items() if end is not None)
    parted = {role: Listing() for _, role, _ in by_length}
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


def _known_suffixes(stems: Iterable[str]) -> Suffixes | None:
    """Suffixes, of the known ones, that account for all stems."""
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
