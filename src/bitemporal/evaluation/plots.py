"""A pair and a prediction as a figure of matplotlib."""

import os
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from bitemporal.errors import DataError, OptionError
from bitemporal.evaluation.pictures import add_legend, coloured_errors
from bitemporal.imagery import read_image, read_mask
from bitemporal.imagery.inputs import Image, Reading, as_pairs
from bitemporal.imagery.scale import RGB, to_picture
from bitemporal.inference import Prediction
from bitemporal.pairs import Pair, PairFolder, PairImages, resolve_decoding


def plot_pair(
    before: Pair | PairImages | Image,
    after: Image | None = None,
    label: str | os.PathLike[str] | npt.NDArray[np.uint8] | None = None,
    prediction: Prediction | npt.NDArray[np.uint8] | None = None,
    *,
    folder: PairFolder | None = None,
) -> Figure:
    """Draw a pair side by side: before, after, its label, and what a detector has predicted.

    Args:
        before: Image of date 1: a path, an image of Pillow, an array H x W x C or a tensor C x H x W, in 0..255; or a
            whole pair, a ``Pair`` of a folder or the ``PairImages`` that ``PairFolder.load`` gives.
        after: Image of date 2; none where ``before`` is a whole pair.
        label: Change mask, H x W: 0 unchanged, 1 changed, 255 ignored, or the path of one. By default that of the pair.
        prediction: What a detector has predicted, or a mask H x W of 0 and 1. Next to a label, its pixels are coloured:
            found, missed and falsely alarmed. A ``Prediction`` shows its probabilities too.
        folder: Reads a ``Pair`` as the folder is read; by default its images are read as they are, and the label as its
            own values say.

    Returns:
        A figure: ``savefig`` writes it, and a notebook shows it as the last value of a cell.

    Raises:
        OptionError: When a date is missing, or given twice.
        DataError: When an image cannot be used, or sizes differ.
        LabelError: When the values of a label cannot be decoded.
    """
    images = _pair_images(before, after, folder)
    known = images.label if label is None else label if isinstance(label, np.ndarray) else read_mask(label)
    cells: dict[str, npt.NDArray[Any]] = {"before": to_picture(images.before), "after": to_picture(images.after)}
    mask = prediction.mask if isinstance(prediction, Prediction) else prediction
    for name, array in (("label", known), ("prediction", mask)):
        if array is not None and array.shape != images.before.shape[:2]:
            raise DataError(
                f"{name}: found {' x '.join(map(str, array.shape))}, expected "
                f"{' x '.join(map(str, images.before.shape[:2]))}, as before and after have"
            )
    if known is not None:
        cells["label"] = coloured_errors((known == 1).astype(np.uint8), known)
    if mask is not None:
        cells["prediction"] = coloured_errors(mask, mask if known is None else known)
    if isinstance(prediction, Prediction):
        cells["probability"] = prediction.probability
    figure = Figure(figsize=(2.5 * len(cells), 3.1), layout="constrained")
    for axis, (title, cell) in zip(figure.subplots(1, len(cells), squeeze=False)[0], cells.items(), strict=True):
        axis.imshow(cell, interpolation="nearest", cmap="gray", vmin=0, vmax=1 if title == "probability" else 255)
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    if known is not None and mask is not None:
        add_legend(figure)
    return figure


def _pair_images(before: Pair | PairImages | Image, after: Image | None, folder: PairFolder | None) -> PairImages:
    """Both dates as arrays H x W x C uint8, and the label of a whole pair."""
    if isinstance(before, Pair | PairImages):
        if after is not None:
            raise OptionError("after: before is a whole pair, which has its own; leave after out")
        if isinstance(before, PairImages):
            return before
        if folder is not None:
            return resolve_decoding(folder).load(before)
        label = None if before.label is None else read_mask(before.label, label_after=before.label_after)
        return replace(_pair_images(before.before, before.after, None), label=label)
    if after is None:
        raise OptionError("after: not given; expected the image of date 2 next to that of date 1, or a whole pair")
    first, second = (_as_read(image) for image in (before, after))
    channels = {_channel_count(image) for image in (first, second)}
    reading = Reading(channels=channels.pop() if len(channels) == 1 else RGB)
    dates, others, single = as_pairs(first, second, reading)
    if not single:
        raise DataError("before: found a batch, expected one image")
    before_array, after_array = (
        tensors[0].clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy() for tensors in (dates, others)
    )
    return PairImages(before_array, after_array, None)


def _as_read(image: Image) -> Image:
    return read_image(image) if isinstance(image, str | os.PathLike) else image


def _channel_count(image: Image) -> int:
    """Channels of an image that is no file; of Pillow's, those of RGB."""
    if isinstance(image, np.ndarray):
        return int(image.shape[-1])
    return int(image.shape[-3]) if isinstance(image, torch.Tensor) and image.ndim > 2 else RGB
