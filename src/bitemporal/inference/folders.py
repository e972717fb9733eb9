"""Predict from files to files: one pair, or two folders whose images match by stem.

Masks are written as PNG; in folders, those of GeoTIFFs with a place on the ground as GeoTIFF.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rich.progress import track

from bitemporal.errors import DataError, OptionError, OutputError
from bitemporal.files import not_there
from bitemporal.imagery.decode import decode
from bitemporal.imagery.decoded import FileFault
from bitemporal.imagery.inputs import Reading
from bitemporal.imagery.marks import THRESHOLD, is_marked, mark
from bitemporal.imagery.places import Place
from bitemporal.imagery.scale import image_notes, to_channels
from bitemporal.imagery.training_images import look_at
from bitemporal.inference.detector import Detector, check_detector
from bitemporal.inference.options import check_batch_size, check_threshold
from bitemporal.inference.places import NO_DATA, is_placed_mask, place_of_pair, write_placed
from bitemporal.outputs import Kind, Output, check_outputs, replacing
from bitemporal.pairs.folder import size_fault, unit_fault
from bitemporal.pairs.listing import Listing, list_images, shared_stem
from bitemporal.pairs.suffixes import Suffixes, match_folders, suffixes_option, telling_ends

_PLACE_LOST = (
    "is a GeoTIFF, but a PNG mask has no georeference; predict-scene, or predict-archive with a "
    "manifest of many pairs, writes georeferenced masks"
)


@dataclass(frozen=True)
class FilesReport:
    """The result of predicting files: masks that were written, and faults.

    Attributes:
        masks: The masks that were written.
        faults: One per image or pair that could not be predicted; as text, each is one line.
        notes: Conversions and other remarks; one line for all images that it concerns.
    """

    masks: tuple[Path, ...]
    faults: tuple[FileFault, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Job:
    before: Path
    after: Path
    mask: Path
    probability: Path | None
    place: Place | None = None


def predict_files(
    detector: Detector,
    before: str | os.PathLike[str],
    after: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    probability: str | os.PathLike[str] | None = None,
    threshold: float = 0.5,
    batch_size: int = 8,
    suffixes: tuple[str, ...] | None = None,
    bands: tuple[int, ...] | None = None,
    image_range: tuple[float, ...] | None = None,
    progress: bool = False,
    overwrite: bool = False,
) -> FilesReport:
    """Write the mask of one pair, or the masks of two folders of images with equal stems.

    Args:
        detector: Any detector.
        before: Image of date 1, or a folder of images.
        after: Image of date 2, or a folder of images.
        output: Mask to write, a PNG with 0 unchanged and 255 changed; for folders, the folder of the masks. There,
            images that are GeoTIFFs with a place on the ground give GeoTIFFs in the same place: 0 unchanged, 1 changed,
            255 where an image's no-data value stands. Earlier masks by bitemporal are replaced; each appears whole or
            not at all.
        probability: Where to write the probability of change as well, as PNG with 0..255 for 0..1; a folder for
            folders. Next to a mask that is a GeoTIFF it is one of floats in [0, 1].
        threshold: Probability above which a pixel is changed, from 0 to below 1; the masks' tags hold it.
        batch_size: Pairs predicted at once.
        suffixes: Suffixes of the stems before and after, for folders whose stems differ by them; by default those that
            all stems of each folder end in, where no stem is in both.
        bands: Bands of the images that become the detector's channels, counted from 1; by default those that it was
            trained on.
        image_range: Values that map to 0 and 255, or such a pair for each channel, for images of more than 8 bits; by
            default those that it was trained on.
        progress: Show a progress bar.
        overwrite: Also replace files that bitemporal did not write; never an image that is read.

    Returns:
        What was written and what was not; in folders, a fault in one pair does not stop the others.

    Raises:
        DataError: When inputs are missing; for one pair, also when it cannot be predicted.
        OptionError: When ``threshold``, ``batch_size``, ``suffixes``, ``bands`` or ``image_range`` has an unusable
            value.
        OutputError: When an output would replace an input or a file that bitemporal did not write, or has an
            unusable name.
    """
    check_batch_size(batch_size)
    check_threshold(threshold)
    check_detector(detector)
    reading = detector.reading(bands, image_range)
    first, second, masks = Path(before), Path(after), Path(output)
    maps = None if probability is None else Path(probability)
    for path in (first, second):
        if not path.exists():
            raise DataError(f"{not_there(path, 'file or folder')}; expected an image, or a folder of images")
    if first.is_dir() != second.is_dir():
        folder, other = (first, second) if first.is_dir() else (second, first)
        raise DataError(f"{folder} is a folder, but {other} is not; expected two images or two folders")
    faults: list[FileFault] = []
    matched: list[str] = []
    if first.is_dir():
        jobs, faults, matched = _jobs_of_folders(first, second, masks, maps, Suffixes.of_option(suffixes))
    else:
        if suffixes is not None:
            raise OptionError("suffixes: tell the images of two folders apart, found two images; leave the option out")
        jobs = [_Job(first, second, masks, maps)]
    images = [path for job in jobs for path in (job.before, job.after)]
    check_outputs(_outputs_of(jobs), (first, second, *images, *detector.folders), overwrite)
    written: list[Path] = []
    noted: dict[str, list[Path]] = defaultdict(list)
    batches = [jobs[start : start + batch_size] for start in range(0, len(jobs), batch_size)]
    for batch in track(batches, "predicting", disable=not progress):
        readable = []
        for job in batch:
            try:
                readable.append((job, *_read_pair(job, reading, noted)))
            except FileFault as fault:
                if not first.is_dir():
                    raise
                faults.append(fault)
        if detector.trained_on is not None and readable and not written:
            detector.warn_if_far(look_at(readable[0][0].before, reading.bands))
        written += _predict_batch(detector, readable, threshold, reading.bands)
    notes = [*matched, *(f"{len(paths)} image(s), such as {paths[0]}: {note}" for note, paths in noted.items())]
    return FilesReport(tuple(written), tuple(faults), tuple(notes))


def _jobs_of_folders(
    before: Path, after: Path, masks: Path, maps: Path | None, stated: Suffixes | None
) -> tuple[list[_Job], list[FileFault], list[str]]:
    """What to predict, what cannot be, and how the stems were matched where they differ."""
    for name, folder in (("output", masks), ("probability", maps)):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise OutputError(f"{name}: found the file {folder}, expected a folder, as before and after are folders")
    listed = list_images(before), list_images(after)
    first, second, suffixes = match_folders(*listed, stated)
    matched = (
        [] if suffixes is None else [f"images matched {suffixes.describe()}; masks are named after the remaining stem"]
    )
    matched += [
        f"images of {place}: {listing.matched}"
        for place, listing in ((before, first), (after, second))
        if listing.matched
    ]
    unmatched = [
        set(had.files.values()) - set(now.files.values()) for had, now in zip(listed, (first, second), strict=True)
    ]
    shared = [*first.duplicates.items(), *second.duplicates.items()]
    faults = [FileFault(paths[0], shared_stem(paths), "keep one of them") for _, paths in shared]
    faults += [
        FileFault(path, "does not end in the suffix of its folder", "rename it, or remove it")
        for paths in unmatched
        for path in sorted(paths)
    ]
    for mine, others, other in ((first.files, second.files, after), (second.files, first.files, before)):
        faults += [
            FileFault(mine[stem], f"no image of the same stem in {other}", "add that image, or remove this one")
            for stem in mine
            if stem not in others
        ]
    pairs = {
        stem: (path, second.files[stem])
        for stem, path in first.files.items()
        if stem in second.files and stem not in dict(shared)
    }
    jobs = []
    for stem, images in pairs.items():
        try:
            place = place_of_pair(*images)
        except FileFault as fault:
            faults.append(fault)
            continue
        name = f"{stem}.png" if place is None else f"{stem}.tif"
        jobs.append(_Job(*images, masks / name, maps / name if maps else None, place))
    if not pairs:
        ends = telling_ends(listed[0].files, listed[1].files)
        stated_by = f", which can be given as {suffixes_option(ends)}" if ends else ""
        raise DataError(
            f"{before} and {after}: no two images with the same stem, such as {_first(listed[0])} and "
            f"{_first(listed[1])}; expected image files with equal stems, or with stems that differ by two suffixes"
            f"{stated_by}"
        )
    return jobs, faults, matched


def _first(listing: Listing) -> str:
    return next((path.name for path in listing.files.values()), "no image")


_MASK = Kind("a mask", is_marked, (".png",))
_PLACED_MASK = Kind("a mask", is_placed_mask, (".tif",))


def _outputs_of(jobs: Sequence[_Job]) -> Iterator[Output]:
    for job in jobs:
        kind = _MASK if job.place is None else _PLACED_MASK
        yield Output("output", job.mask, kind)
        if job.probability is not None:
            yield Output("probability", job.probability, kind)


def _read_pair(
    job: _Job, reading: Reading, noted: dict[str, list[Path]]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    images, files = [], []
    for path in (job.before, job.after):
        decoded = decode(path, reading.bands)
        files.append(decoded.without_pixels())  # those of one date are gone before the other is decoded
        images.append(to_channels(decoded, reading.image_range))
        for note in (
            *image_notes(decoded, reading.image_range),
            *([_PLACE_LOST] if decoded.georeferenced and job.place is None else ()),
        ):
            noted[note].append(path)
        del decoded
    if unlike := unit_fault(*files):
        raise unlike
    before, after = images
    if fault := size_fault(job.before, {"before": before.shape[:2], "after": after.shape[:2]}):
        raise fault
    return before, after


def _predict_batch(
    detector: Detector,
    pairs: Sequence[tuple[_Job, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]],
    threshold: float,
    bands: tuple[int, ...] | None,
) -> list[Path]:
    predictions = detector.predict([before for _, before, _ in pairs], [after for _, _, after in pairs])
    told = {THRESHOLD: f"{threshold:g}"}
    for (job, _, _), prediction in zip(pairs, predictions, strict=True):
        mask = (prediction.probability > threshold).astype(np.uint8)
        if job.place is not None:
            images = job.before, job.after
            write_placed(mask, job.mask, job.place, images, NO_DATA, bands, told)
            if job.probability is not None:
                write_placed(prediction.probability, job.probability, job.place, images, np.nan, bands)
            continue
        _write_png(mask * np.uint8(255), job.mask, told)
        if job.probability is not None:
            _write_png(np.rint(prediction.probability * 255).astype(np.uint8), job.probability)
    return [job.mask for job, _, _ in pairs]


def _write_png(values: npt.NDArray[np.uint8], path: Path, told: Mapping[str, str] = MappingProxyType({})) -> None:
    signed = PngInfo()
    for keyword, text in (mark() | dict(told)).items():
        signed.add_text(keyword, text)
    with replacing(path) as temporary:
        Image.fromarray(values).save(temporary, format="PNG", pnginfo=signed)
