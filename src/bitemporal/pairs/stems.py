"""Stems that mean the same pair although they are spelt differently: capitals, leading zeros, words around them."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import takewhile

from bitemporal.pairs.listing import Listing
from bitemporal.pairs.names import DATE_ENDINGS, DATE_WORDS, LABEL_ENDINGS, normal

_SEPARATORS = "_-. "
_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")


def plain(stem: str) -> str:
    """A stem in lower case, its numbers without leading zeros."""
    return _ZEROS.sub("", stem.casefold())


def match_spelling(own: Listing, known: Collection[str]) -> Listing:
    """Bring files under stems that differ from theirs by capitals and leading zeros alone.

    Args:
        own: Files of a folder.
        known: Stems of pairs.

    Returns:
        The files by the known stems, where these account for all of them, or they for all of these; else as they are.
    """
    exact = sum(stem in known for stem in own.files)
    if exact in (len(own.files), len(known)):
        return own
    by_plain = {plain(stem): stem for stem in known}
    if len(by_plain) < len(known) or len({*map(plain, own.files)}) < len(own.files):
        return own
    names = {stem: by_plain[plain(stem)] for stem in own.files if plain(stem) in by_plain}
    if len(names) not in (len(own.files), len(known)):
        return own
    return _renamed(own, names, "capitals and leading zeros make no difference")


def match_prefixes(before: Listing, after: Listing) -> tuple[Listing, Listing]:
    """Bring the images of two folders under what follows the words for their dates: ``before_x``, ``after_x``."""
    for first, second in DATE_ENDINGS:
        begins = _beginning(before.files, first), _beginning(after.files, second)
        if all(begins) and _rests(before, begins[0]) & _rests(after, begins[1]):
            return _without_prefix(before, begins[0]), _without_prefix(after, begins[1])
    return before, after


def words_at_the_end(listing: Listing) -> Listing:
    """The files of a folder by stems whose word for a date or for labels stands at the end: ``pre_x`` as ``x_pre``."""
    names = {}
    for stem in listing.files:
        end = next((i for i, letter in enumerate(stem) if letter in _SEPARATORS), 0)
        word = normal(stem[:end])
        if len(word) > 1 and (word in DATE_WORDS or word in LABEL_ENDINGS) and stem[end + 1 :]:
            names[stem] = f"{stem[end + 1 :]}{stem[end]}{stem[:end]}"
    if not names or len({*names.values(), *(listing.files.keys() - names.keys())}) < len(listing.files):
        return listing
    return _renamed(listing, names, "such words stand before the stem")


def match_labels(labels: Listing, known: Collection[str]) -> Listing:
    """Bring labels under the stems of pairs that theirs have something around: ``label_x``, ``x_mask``, ``x.jpg``.

    Args:
        labels: The labels.
        known: Stems of pairs.

    Returns:
        The labels by the stems of pairs where all have the same around them; else as they are.
    """
    stems = list(labels.files)
    if any(stem in known for stem in stems):
        return match_spelling(labels, known)
    for start, end in _surroundings(stems):
        names = {stem: stem[len(start) : len(stem) - len(end)] for stem in stems if len(stem) > len(start + end)}
        hits = sum(name in known for name in names.values())
        if hits == len(stems) or (hits == len(known) and hits > 1):
            around = " and ".join(filter(None, (start and f"{start} before", end and f"{end} after")))
            return _renamed(labels, names, f"{around} the stem")
    return match_spelling(labels, known)


def _surroundings(stems: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Beginnings and ends that all stems share, up to or from a separator; of a single stem, words for labels."""
    if not stems:
        return
    shared = _shared_beginning(stems), _shared_beginning([stem[::-1] for stem in stems])[::-1]
    starts = [shared[0][: i + 1] for i, letter in enumerate(shared[0]) if letter in _SEPARATORS]
    ends = [shared[1][i:] for i, letter in reversed([*enumerate(shared[1])]) if letter in _SEPARATORS]
    if len(stems) == 1:
        starts, ends = (
            [affix for affix in affixes if normal(affix.strip(_SEPARATORS)) in LABEL_ENDINGS]
            for affixes in (starts, ends)
        )
    yield from (("", end) for end in ends)
    yield from ((start, "") for start in starts)
    yield from ((start, end) for start in starts for end in ends)


def _shared_beginning(stems: Sequence[str]) -> str:
    letters = takewhile(lambda column: len({*column}) == 1, zip(*stems, strict=False))
    return "".join(column[0] for column in letters)


def _beginning(stems: Iterable[str], word: str) -> str:
    """The prefix that is a word, in any case, and a separator, if all stems begin with the same; else nothing."""
    given = list(stems)
    prefix = given[0][: len(word) + 1] if given else ""
    fits = prefix[:-1].lower() == word and prefix[-1:] in _SEPARATORS
    return prefix if prefix and fits and all(s.startswith(prefix) and s != prefix for s in given) else ""


def _rests(listing: Listing, prefix: str) -> set[str]:
    return {stem[len(prefix) :] for stem in listing.files}


def _without_prefix(listing: Listing, prefix: str) -> Listing:
    names = {stem: stem[len(prefix) :] for stem in listing.files}
    return _renamed(listing, names, f"{prefix} before the stem")


def _renamed(listing: Listing, names: dict[str, str], how: str) -> Listing:
    """The files under other stems."""
    return Listing(
        {names.get(stem, stem): path for stem, path in listing.files.items()},
        {names.get(stem, stem): paths for stem, paths in listing.duplicates.items()},
        listing.ignored,
        how,
    )
