"""Pairs worth looking at: the worst, the best, the most improved and the most harmed by distillation."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from bitemporal.evaluation import Evaluation, coloured_errors
from bitemporal.imagery.scale import to_picture
from bitemporal.inference import Detector
from bitemporal.method.car import change_area_ratio
from bitemporal.metrics import image_metric
from bitemporal.pairs import Pair, PairFolder

PAIRS_PER_GROUP = 4
_SIDE = 320
"""Largest side of a picture in pixels."""


@dataclass(frozen=True)
class Card:
    """One pair of the gallery.

    Attributes:
        stem: Stem of the pair.
        car: CAR of its label.
        scores: mIoU of the pair by detector, in [0, 1].
        before: Data URL of the picture; empty without imagery.
        after: Data URL of the picture; empty without imagery.
        masks: Data URLs of the coloured masks by name: truth, then the detectors.
        width: Width of the images in pixels.
        height: Height of the images in pixels.
    """

    stem: str
    car: float
    scores: dict[str, float]
    before: str
    after: str
    masks: dict[str, str]
    width: int
    height: int


def choose(evaluations: Mapping[str, Evaluation]) -> dict[str, list[str]]:
    """Stems by group.

    Args:
        evaluations: Counts of ``student``, and of ``control`` for the groups that compare; else of any one detector.

    Returns:
        Groups ``worst`` and ``best`` by the pair's mIoU, and ``most improved`` and ``most harmed`` by student
        minus control, if both are there. No pair is in two groups, and pairs without change are never the best.
    """
    main = "student" if "student" in evaluations else next(iter(evaluations))
    own = evaluations[main]
    scores = image_metric("miou", own.counts)
    ranked = [i for i in np.argsort(scores, kind="stable") if np.isfinite(scores[i])]
    groups: dict[str, list[int]] = {}
    taken: set[int] = set()

    def take(name: str, order: Sequence[int]) -> None:
        groups[name] = [int(i) for i in order if int(i) not in taken][:PAIRS_PER_GROUP]
        taken.update(groups[name])

    if main == "student" and "control" in evaluations:
        gain = scores - image_metric("miou", evaluations["control"].counts)
        order = np.argsort(-gain, kind="stable")
        take("most improved", [i for i in order if gain[i] > 0])
        take("most harmed", [i for i in order[::-1] if gain[i] < 0])
    take("worst", ranked)
    take("best", [i for i in ranked[::-1] if own.cars[i] > 0])
    return {name: [own.stems[i] for i in members] for name, members in groups.items() if members}


def draw(
    stems: Sequence[str],
    detectors: Mapping[str, Detector],
    evaluations: Mapping[str, Evaluation],
    folder: PairFolder,
    pairs: Sequence[Pair],
    imagery: bool,
) -> list[Card]:
    """Predict the pairs and draw them.

    Args:
        stems: Stems of the pairs to show.
        detectors: Detectors by name.
        evaluations: Their counts, by the same names.
        folder: Reads the pairs.
        pairs: Labelled pairs of one split, in which the stems occur; other splits may have the same stems.
        imagery: Show before and after; not for data whose terms forbid passing imagery on.

    Raises:
        DataError: When a pair cannot be read.
    """
    known = {pair.stem: pair for pair in pairs}
    cards = []
    for stem in stems:
        images = folder.load(known[stem])
        assert images.label is not None
        masks = {"truth": coloured_errors((images.label == 1).astype(np.uint8), images.label)}
        scores = {}
        for name, detector in detectors.items():
            masks[name] = coloured_errors(detector.predict([images.before], [images.after])[0].mask, images.label)
            place = evaluations[name].stems.index(stem)
            scores[name] = float(image_metric("miou", evaluations[name].counts[place]))
        height, width = images.label.shape
        cards.append(
            Card(
                stem=stem,
                car=change_area_ratio(images.label),
                scores=scores,
                before=_picture(to_picture(images.before)) if imagery else "",
                after=_picture(to_picture(images.after)) if imagery else "",
                masks={name: _mask(mask) for name, mask in masks.items()},
                width=width,
                height=height,
            )
        )
    return cards


def _fitted(image: Image.Image, resampling: Image.Resampling) -> Image.Image:
    scale = min(1.0, _SIDE / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image if size == image.size else image.resize(size, resampling)


def _url(image: Image.Image, kind: str, **options: int | bool) -> str:
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _picture(pixels: npt.NDArray[np.uint8]) -> str:
    return _url(_fitted(Image.fromarray(pixels), Image.Resampling.LANCZOS), "JPEG", quality=82, optimize=True)


def _mask(pixels: npt.NDArray[np.uint8]) -> str:
    image = _fitted(Image.fromarray(pixels), Image.Resampling.NEAREST).quantize(8, dither=Image.Dither.NONE)
    return _url(image, "PNG", optimize=True)
