"""Pictures of masks: what was found, missed and falsely alarmed."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bitemporal.imagery.marks import is_marked, mark
from bitemporal.imagery.masks import IGNORE
from bitemporal.imagery.scale import to_picture
from bitemporal.inference import Detector
from bitemporal.method.car import change_area_ratio
from bitemporal.outputs import Kind, Output, check_outputs, replacing
from bitemporal.pairs import Pair, PairFolder

_HIT, _QUIET, _MISSED, _FALSE, _IGNORED = (255, 255, 255), (0, 0, 0), (220, 50, 47), (38, 120, 210), (128, 128, 128)
_LEGEND = {"changed, found": _HIT, "unchanged": _QUIET, "missed": _MISSED, "false alarm": _FALSE}
_CELL_INCHES = 1.5

_TITLE = "masks of detectors"
OVERVIEW = Kind("a picture of masks", lambda path: is_marked(path, _TITLE), (".png",))
"""What ``draw_masks`` writes."""


def coloured_errors(mask: npt.NDArray[np.uint8], label: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Colour the pixels of a predicted mask that are right and wrong.

    Args:
        mask: H x W, 0 or 1.
        label: Decoded change mask, H x W: 0, 1, or 255 to ignore.

    Returns:
        H x W x 3: white found, black unchanged, red missed, blue false alarm, grey ignored.
    """
    picture = np.zeros((*label.shape, 3), dtype=np.uint8)
    for colour, where in (
        (_HIT, (mask == 1) & (label == 1)),
        (_MISSED, (mask == 0) & (label == 1)),
        (_FALSE, (mask == 1) & (label == 0)),
        (_IGNORED, label == IGNORE),
    ):
        picture[where] = colour
    return picture


def spread_by_car(folder: PairFolder, pairs: Sequence[Pair], count: int) -> list[Pair]:
    """Labelled pairs at evenly spaced ranks of CAR, from the smallest to the largest."""
    cars = {pair.stem: change_area_ratio(label) for pair in pairs if (label := folder.load(pair).label) is not None}
    ranked = sorted((pair for pair in pairs if pair.stem in cars), key=lambda pair: (cars[pair.stem], pair.stem))
    ranks = np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int))
    return [ranked[rank] for rank in ranks]


def draw_masks(
    path: str | os.PathLike[str],
    detectors: Mapping[str, Detector],
    folder: PairFolder,
    pairs: Sequence[Pair],
    imagery: bool = True,
    overwrite: bool = False,
) -> None:
    """Draw pairs with their truth and the mask of each detector, one row per pair.

    Args:
        path: PNG file to write; it appears whole or not at all.
        detectors: Detectors by the name to show.
        folder: Reads the pairs.
        pairs: Labelled pairs to show.
        imagery: Show before and after too. Leave them out for data whose terms forbid passing imagery on.
        overwrite: Also replace a file that is not an earlier picture of this kind.

    Raises:
        OutputError: When it would replace another file, or cannot be written.
    """
    check_outputs([Output("path", Path(path), OVERVIEW)], [folder.root], overwrite)
    titles = [*(("before", "after") if imagery else ()), "truth", *detectors]
    figure = Figure(figsize=(_CELL_INCHES * len(titles), _CELL_INCHES * len(pairs) + 0.6), layout="constrained")
    axes = figure.subplots(len(pairs), len(titles), squeeze=False)
    for row, pair in zip(axes, pairs, strict=True):
        images = folder.load(pair)
        if images.label is None:
            raise ValueError(f"{pair.stem} has no label")  # the caller chooses labelled pairs
        masks = [detector.predict([images.before], [images.after])[0].mask for detector in detectors.values()]
        cells = [to_picture(images.before), to_picture(images.after)] if imagery else []
        cells += [coloured_errors((images.label == 1).astype(np.uint8), images.label)]
        cells += [coloured_errors(mask, images.label) for mask in masks]
        for axis, cell in zip(row, cells, strict=True):
            axis.imshow(cell, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(f"CAR {change_area_ratio(images.label):.3f}", fontsize=8)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    add_legend(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata=mark(_TITLE))


def add_legend(figure: Figure) -> None:
    """Say below a figure what the colours of ``coloured_errors`` mean."""
    patches = [
        Patch(facecolor=(red / 255, green / 255, blue / 255), edgecolor="grey", label=name)
        for name, (red, green, blue) in _LEGEND.items()
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize=8, frameon=False)
