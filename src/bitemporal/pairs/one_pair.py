"""The folder of one pair: its images, or the folders of their bands, and its label."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bitemporal.errors import DataError
from bitemporal.imagery.band_files import band_files
from bitemporal.pairs.listing import entries, list_images
from bitemporal.pairs.names import DATES, LABEL, LABEL_AFTER, dates_among, is_label, labels_among, labels_of_dates

_MOST_IMAGES = 12  # in the folder of one pair
_RECTIFIED = "rect"  # how OSCD names bands that were resampled to one grid, next to the original ones


def files_of_pair(
    folder: Path, stated: Sequence[str] | None = None, stems: Sequence[str] | None = None
) -> dict[str, Path] | None:
    """The images and labels of a folder that holds one pair, or whose folder ``pair`` does (OSCD).

    An image is a file, or a folder of files with one band each (see ``band_files``).

    Args:
        folder: The folder.
        stated: Names of the folders of bands before and after, and, if any, that of the label.
        stems: Stems of the images before and after, and, if any, of the label, instead of the usual ones.

    Returns:
        Paths by ``A``, ``B`` and, if any, ``label`` and ``label_after``; ``None`` when there is no pair.
    """
    if stems is not None:
        files = images_in(folder)
        named = {role: files[stem] for role, stem in zip((*DATES, LABEL), stems, strict=False) if stem in files}
        return named if {*DATES} <= named.keys() else None
    roles = _in_files(folder) if stated is None else None
    if roles is None:
        roles = _in_bands(folder, stated)
    if roles is not None and LABEL not in roles:
        names = labels_among(_folders_in(folder)) if stated is None else stated[2:3]
        label = label_below(folder / names[0]) if len(names) == 1 else label_among(images_in(folder))
        roles |= {} if label is None else {LABEL: label}
    return roles


def _in_files(folder: Path) -> dict[str, Path] | None:
    for place in (folder, folder / "pair"):
        files = images_in(place)
        dates = dates_among(files) if len(files) <= _MOST_IMAGES else []
        if len(dates) != 1:
            continue
        roles = dict(zip(DATES, dates[0], strict=True))
        labels, two = labels_among(files), labels_of_dates(files)
        if len(labels) == 1:
            roles[LABEL] = labels[0]
        elif two is not None:
            roles |= {LABEL: two[0], LABEL_AFTER: two[1]}
        return {role: files[stem] for role, stem in roles.items()}
    return None


def _in_bands(folder: Path, stated: Sequence[str] | None) -> dict[str, Path] | None:
    if stated is None:
        names = _folders_in(folder)
        dates = dates_among(name for name in names if name.endswith(_RECTIFIED)) or dates_among(names)
    else:
        dates = [(stated[0], stated[1])]
    places = [folder / name for name in dates[0]] if len(dates) == 1 else []
    return dict(zip(DATES, places, strict=True)) if places and all(map(band_files, places)) else None


def bands_of_pair(folder: Path) -> tuple[str, str] | None:
    """Names of the folders of bands in the folder of one pair, before and after; ``None`` without them."""
    roles = _in_bands(folder, None)
    return None if roles is None else (roles[DATES[0]].name, roles[DATES[1]].name)


def _folders_in(folder: Path) -> list[str]:
    try:
        return [name for name, is_folder in entries(folder) if is_folder]
    except DataError:  # it may not be needed
        return []


def images_in(folder: Path) -> dict[str, Path]:
    """Images of a folder by stem; none where it is missing or cannot be listed, as it may not be needed."""
    try:
        return list_images(folder).files if folder.is_dir() else {}
    except DataError:
        return {}


def label_below(folder: Path) -> Path | None:
    """The only image below a folder whose name says that it is a label."""
    return label_among(list_images(folder, below=True).files) if folder.is_dir() else None


def label_among(files: Mapping[str, Path]) -> Path | None:
    """The only image whose name says that it is a label, as ``cm.png`` or else ``bercy-cm.tif`` (OSCD).

    Args:
        files: Images by stem.
    """
    labels = labels_among(files) or [stem for stem in files if is_label(stem)]
    return files[labels[0]] if len(labels) == 1 else None
