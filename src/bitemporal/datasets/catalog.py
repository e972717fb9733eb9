"""The catalogue of known change-detection data sets: what each is, how its labels are stored, where to get it.

The facts are in ``catalog.yaml`` next to this file.
"""

import difflib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from bitemporal.errors import DataError, OptionError
from bitemporal.imagery.label_rules import LabelOptions
from bitemporal.reading import read_yaml, reading
from bitemporal.remedies import as_typed


@dataclass(frozen=True)
class Hub:
    """A data set repository on the Hugging Face hub.

    Attributes:
        repo_id: ``owner/name``.
        revision: Branch, tag or commit; ``None`` takes the newest. ``source.json`` records the commit taken.
        how: The way of fetching it, in a few words.
    """

    how: ClassVar = "hub"
    repo_id: str
    revision: str | None = None


@dataclass(frozen=True)
class Archive:
    """One file behind a direct link.

    Attributes:
        url: https link that needs no login.
        filename: Name to store it under. An archive named after a split (``train.zip``) is unpacked into that split.
        digest: ``algorithm:hexadecimal`` as published, for example ``sha256:...``. ``md5:`` detects damage only.
    """

    url: str
    filename: str
    digest: str


@dataclass(frozen=True)
class Direct:
    """Archives behind direct links with published checksums; ``how`` is as in ``Hub``."""

    how: ClassVar = "direct, with checksums"
    archives: tuple[Archive, ...]


@dataclass(frozen=True)
class Manual:
    """A data set that the user fetches by hand; ``text`` says where, ``how`` is as in ``Hub``."""

    how: ClassVar = "by hand"
    text: str


_FOLDERS = 3  # before, after and labels
_LABEL_OPTIONS = ("label_band", "label_values", "changed", "label_threshold", "label_ignore")


def _typed(value: float | tuple[float, ...]) -> str:
    return ",".join(map(_typed, value)) if isinstance(value, tuple) else f"{value:g}"


@dataclass(frozen=True)
class DatasetCard:
    """What is known about one data set.

    Attributes:
        name: Name on the command line.
        title: Name in the literature.
        paper: Reference of the paper that introduced it.
        url: Page of the data set.
        pairs: Number of pairs, as released.
        size: Image size in pixels, width x height.
        resolution: Ground sampling distance, metres per pixel.
        changes: What counts as change.
        splits: Pairs per split as released; empty when the authors publish no split by pairs, or its size is not known.
        split_note: What is known of splits without sizes.
        licence: Terms of use, or "not stated".
        source: Where the files come from.
        folders: Names of the before, after and label folder as released; of two label folders where each date has its
            own mask of classes.
        layout: Paths of files as released, where splits do not hold these folders: NAME stands for that of a pair,
            SPLIT for that of a split, BAND for that of a band.
        label_values: Stored UNCHANGED,CHANGED or UNCHANGED,CHANGED,IGNORE, for the pair reader; else ``None``.
        changed: Stored values that are changed, for the pair reader; else ``None``.
        label_threshold: Stored values at or above it are changed, for the pair reader; else ``None``.
        label_ignore: Stored values that count nowhere; else ``None``.
        label_band: Band of the label files that holds the mask; else ``None``.
        label_note: How certain the label coding is, and how it is known.
        ways: Other options that read the data set, and what they do.
        tile: Side of the tiles that its large images are cut into; ``None`` where they are read as they are.
        notes: What to know before comparing numbers.
        mirrors: Other places where the authors keep the same files, for fetching by hand.
        aliases: Other names accepted on the command line.
    """

    name: str
    title: str
    paper: str
    url: str
    pairs: int
    size: str
    resolution: str
    changes: str
    licence: str
    source: Hub | Direct | Manual
    splits: dict[str, int] = field(default_factory=dict)
    split_note: str = ""
    folders: tuple[str, ...] = ("A", "B", "label")
    layout: tuple[str, ...] = ()
    label_values: tuple[int, ...] | None = None
    changed: tuple[int, ...] | None = None
    label_threshold: float | None = None
    label_ignore: tuple[float, ...] | None = None
    label_band: int | None = None
    label_note: str = ""
    ways: dict[str, str] = field(default_factory=dict)
    tile: int | None = None
    notes: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def label_options(self) -> LabelOptions:
        """What the pair reader has to be told about the labels."""
        return LabelOptions(**{name: getattr(self, name) for name in _LABEL_OPTIONS})

    @property
    def options(self) -> str:
        """Options of the command line that read the data set, as they are typed; may be empty."""
        stated = [(name, getattr(self, name)) for name in _LABEL_OPTIONS if getattr(self, name) is not None]
        return " ".join(f"--{name.replace('_', '-')} {_typed(value)}" for name, value in stated)

    @property
    def label_coding(self) -> str:
        """The label decoding in words."""
        decoding = self.label_options.decoding()
        coding = (decoding.of_dates() if len(self.folders) > _FOLDERS else decoding).rule()
        return f"{coding}; {self.label_note}" if self.label_note else coding

    @property
    def split_text(self) -> str:
        """The splits in words, as in ``train 4,000, test 1,000``."""
        counts = ", ".join(f"{name} {count:,}" for name, count in self.splits.items())
        return counts or self.split_note or "none by pairs"


def read_catalog(path: str | os.PathLike[str]) -> dict[str, DatasetCard]:
    """Read a catalogue file.

    Args:
        path: YAML: by name of the data set, the fields of its card. ``source`` has one entry, ``hub``, ``direct`` or
            ``manual``, which holds the fields of that class.

    Returns:
        Every card by its name, in the order of the file.

    Raises:
        DataError: When a field is unknown or missing; the text names the file, the data set and the field.
    """
    with reading(Path(path), DataError, "expected the fields of each data set's card in YAML; correct it"):
        return {str(n): _card(f"{path}: {n}", str(n), fields) for n, fields in read_yaml(Path(path)).items()}


def _card(where: str, name: str, fields: dict[str, Any]) -> DatasetCard:
    try:
        match fields.get("source"):
            case {"hub": hub}:
                source: Hub | Direct | Manual = Hub(**hub)
            case {"direct": {"archives": archives}}:
                source = Direct(tuple(Archive(**archive) for archive in archives))
            case {"manual": manual}:
                source = Manual(**manual)
            case other:
                raise DataError(f"{where}: source: found {other!r}, expected hub, manual, or direct with archives")
        plain: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in fields.items()}
        return DatasetCard(**{"name": name, **plain, "source": source})
    except TypeError as error:  # its text names the class and the field
        raise DataError(f"{where}: {error}; correct the field's name, or add the field") from error


DATASETS = read_catalog(Path(__file__).with_name("catalog.yaml"))
"""Every card by its name."""


def dataset_card(name: str) -> DatasetCard:
    """The card of a data set.

    Args:
        name: Name or alias. Case is ignored, and ``_`` is read as ``-``.

    Raises:
        OptionError: When no data set of that name is known; the text suggests similar names.
    """
    names = {alias: card for card in DATASETS.values() for alias in (card.name, *card.aliases)}
    wanted = name.strip().lower().replace("_", "-")
    if wanted in names:
        return names[wanted]
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(DATASETS)};"
    raise OptionError(f"no data set named {name!r}; {hint} `bitemporal data download` lists all")


def check_command(card: DatasetCard, root: str | os.PathLike[str]) -> str:
    """The command that checks a data set, with the options that read it."""
    return " ".join(filter(None, ("bitemporal data check", as_typed(root), card.options)))


def tiles_command(card: DatasetCard, root: str | os.PathLike[str]) -> str:
    """The command that cuts a data set of large images into pairs."""
    return f"bitemporal data tiles {as_typed(root)} -o tiles --size {card.tile} {card.options}".rstrip()


def manual_text(card: DatasetCard) -> str:
    """Where to get a data set by hand and how its files are read, as text of several lines."""
    where = card.source.text if isinstance(card.source, Manual) else " or ".join((card.url, *card.mirrors))
    places = card.layout or [f"{split}/{{{','.join(card.folders)}}}/NAME.*" for split in card.splits]
    lines = [
        f"{card.title}: get the files by hand, in a browser. {where}",
        f"Licence: {card.licence}.",
        "Unpack them into a folder ROOT, where they are read as released (NAME is the name of a pair):",
        *(f"  ROOT/{place}" for place in places),
        f"Pairs: {card.split_text}. Labels: {card.label_coding}.",
        f"Then run `{check_command(card, 'ROOT')}`.",
        *(f"Or with `{words}`, which {meaning}." for words, meaning in card.ways.items()),
    ]
    if card.tile:
        lines.append(f"`{tiles_command(card, 'ROOT')}` cuts its images into pairs of {card.tile} x {card.tile} pixels.")
    return "\n".join(lines)
