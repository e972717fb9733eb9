"""Names under which data sets hold dates, labels and splits; case, ``-``, ``_`` and spaces make no difference."""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import product

_DATES = (
    *((f"{date}1", f"{date}2") for date in ("t", "time", "im", "img", "imgs", "image", "images", "date", "phase")),
    ("imgs1rect", "imgs2rect"),
    ("a", "b"),
    ("before", "after"),
    ("pre", "post"),
    ("old", "new"),
    ("preevent", "postevent"),
    ("predisaster", "postdisaster"),
)
_LABELS = (
    *("label", "labels", "mask", "masks", "out", "gt", "groundtruth", "ref", "reference", "target", "targets"),
    *(
        "change",
        "changes",
        "cd",
        "cm",
        "lbl",
        "changelabel",
        "changemask",
        "changemap",
        "cdlabel",
        "annotations",
        "anndir",
    ),
    *("buildingdamage", "maskmerge"),
)
_WORDS_AROUND = ("images", "image", "imgs", "img", "rgb", "photos", "tiles", "data")
_OF_LABELS = re.compile(r"(?!(binary|maps?)+$)(labels?|masks?|gt|groundtruth|changed?|changes|diff|b?cd|binary|maps?)+")
_LABELS_OF_DATES = (
    *((f"{label}1", f"{label}2") for label in ("label", "labels", "mask", "masks", "gt")),
    *(("labela", "labelb"), ("alabel", "blabel")),
)
_BOTH_DATES = ("images", "image", "imgs", "img", "jpegimages", "imgdir")
_SPLITS = {
    **dict.fromkeys(("train", "training", "secondtrainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing", "secondtotaltest"), "test"),
}
_LIST_ENDINGS = ("", "list", "set", "setlevel", "names", "ids", "pairs")

_YEAR = r"(19|20)\d\d"

YEARS = re.compile(r"((?:19|20)\d\d)[-_]((?:19|20)\d\d)")
"""Names of folders that hold labels of two years."""

SPLITS = ("train", "val", "test")
"""Names of splits, in order."""

DATES = ("A", "B")
"""Names of the dates' folders: before, after."""

LABEL = "label"
"""Name of the folder of change masks."""

LABEL_AFTER = "label_after"
"""Role of the second folder where there is one of classes for each date; ``LABEL`` is the first then."""


def normal(name: str) -> str:
    """A name in lower case, without ``-``, ``_`` and spaces."""
    return re.sub(r"[-_ ]", "", name.lower())


def split_name(name: str) -> str | None:
    """The split that a folder's name means (train, val or test); ``None`` for any other name."""
    return _SPLITS.get(normal(name))


def split_of_list(stem: str) -> str | None:
    """The split that a list file's stem means, as in ``train``, ``val_list`` or ``test_set``."""
    endings = (normal(stem).removesuffix(ending) for ending in _LIST_ENDINGS)
    return next((_SPLITS[name] for name in endings if name in _SPLITS), None)


def in_split_order(splits: Iterable[str]) -> list[str]:
    """Splits in the order train, val, test, and then the others by name."""
    return sorted(splits, key=lambda split: (SPLITS.index(split) if split in SPLITS else len(SPLITS), split))


def dates_among(names: Iterable[str]) -> list[tuple[str, str]]:
    """Every two names that stand for before and after together; ``A`` and ``B`` alone where they are among them."""
    given = sorted(names)
    if set(DATES) <= set(given):
        return [DATES]
    spelt: dict[str, list[str]] = {}
    for name in given:
        spelt.setdefault(normal(name), []).append(name)
    if found := _dates_of(spelt):
        return found
    # by the year alone: labels may have years too, as in HRSCD
    for years in (
        [name for name in given if re.fullmatch(_YEAR, name)],
        [name for name in given if any(re.fullmatch(_YEAR, word) for word in _without_words_around(normal(name)))],
    ):
        if len(years) == 2:
            return [(years[0], years[1])]
    return _dates_of({word: own for name, own in spelt.items() for word in _without_words_around(name)})


def _dates_of(spelt: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    return [pair for first, second in _DATES for pair in product(spelt.get(first, ()), spelt.get(second, ()))]


def _without_words_around(name: str) -> Iterator[str]:
    """What a name says next to a word for images, as ``t1`` in ``t1img`` and ``a`` in ``imagea``."""
    for word in _WORDS_AROUND:
        if word in (name[: len(word)], name[-len(word) :]) and name != word:
            yield name.removeprefix(word) if name.startswith(word) else name.removesuffix(word)


def missing_date(names: Iterable[str]) -> str | None:
    """The name that is missing next to the first that means one date; ``None`` without such a name."""
    partners = {word: other for pair in _DATES for word, other in (pair, pair[::-1])}
    for name in names:
        if partner := partners.get(normal(name)):
            swapped = f"{name[:-1]}{partner[-1]}" if name[:-1] and partner[:-1] == normal(name)[:-1] else partner
            return swapped.upper() if name.isupper() else swapped
    return None


def labels_among(names: Iterable[str]) -> list[str]:
    """The names that stand for change masks; ``label`` alone where it is among them."""
    given = list(names)
    if LABEL in given:
        return [LABEL]
    return [name for name in given if normal(name) in _LABELS] or [
        name for name in given if _OF_LABELS.fullmatch(normal(name))
    ]


def is_label(stem: str) -> bool:
    """Whether a stem is or ends in a word for labels, as ``bercy-cm`` does."""
    return normal(re.split(r"[-_. ]", stem)[-1]) in _LABELS


def labels_of_dates(names: Iterable[str]) -> tuple[str, str] | None:
    """The two names that stand for masks of classes, before and after."""
    by_word = {normal(name): name for name in names}
    return next(((by_word[a], by_word[b]) for a, b in _LABELS_OF_DATES if a in by_word and b in by_word), None)


def is_label_name(name: str) -> bool:
    """Whether a folder's name stands for change masks, or for the masks of one of two dates."""
    return bool(labels_among([name])) or any(normal(name) in both for both in _LABELS_OF_DATES)


def images_among(names: Iterable[str]) -> list[str]:
    """The names that stand for the images of both dates in one folder."""
    return [name for name in names if normal(name) in _BOTH_DATES]


DATE_ENDINGS = tuple(
    (before, after)
    for before, after in (
        ("pre_disaster", "post_disaster"),
        ("pre_event", "post_event"),
        *(pair for pair in _DATES if pair[0] not in ("predisaster", "preevent")),
        ("1", "2"),
    )
)
"""Ends of stems that stand for before and after, in lower case; ``-``, ``_``, ``.`` or a space precedes them."""

DATE_WORDS = tuple(word for pair in _DATES for word in pair)
"""Names that stand for one date, as ``normal`` gives them."""

LABEL_ENDINGS = _LABELS
"""Ends of stems that stand for a change mask, as ``normal`` gives them."""
