"""``bitemporal predict``."""

import sys
from pathlib import Path

from bitemporal.cli.detector import DetectorOptions
from bitemporal.cli.outcome import Outcome
from bitemporal.texts import harmless


def predict(
    before_image: str,
    after_image: str,
    /,
    *,
    output: str,
    probability: str | None = None,
    detector: DetectorOptions,
    threshold: float = 0.5,
    batch_size: int = 4,
    suffixes: tuple[str, ...] | None = None,
    bands: tuple[int, ...] | None = None,
    image_range: tuple[float, ...] | None = None,
    overwrite: bool = False,
) -> Outcome:
    """Write the change mask of two images, or of every pair in two folders of images.

    Scenes and archives have their own commands: `bitemporal predict-scene` makes a georeferenced map from two
    rasters, and `bitemporal predict-archive` maps every scene of a manifest.

    Args:
        before_image: Image of date 1, or a folder of images.
        after_image: Image of date 2, or a folder of images with the same stems, or with stems that differ by a suffix.
        output: Mask to write, a PNG with 0 unchanged and 255 changed. For folders, the folder of the masks; there,
            georeferenced GeoTIFFs give GeoTIFFs with 0 unchanged, 1 changed, 255 no data.
        probability: Also write the probability of change, as a PNG with 0..255 for 0..1. For folders, a folder.
        detector: Which detector predicts, and how.
        threshold: Probability above which a pixel is changed. The masks' tags hold it, and evaluate reads it there.
        batch_size: Pairs predicted at once.
        suffixes: Suffixes of the stems in two folders, as in _pre,_post; by default those that all stems end in, where
            no stem is in both folders.
        bands: Bands of the images that become the detector's channels, counted from 1, as in 4,3,2; by default those
            that it was trained on.
        image_range: Values that map to 0 and 255, as in 0,4000, or such a pair for each channel, for images of more
            than 8 bits; by default those that it was trained on.
        overwrite: Also replace files that bitemporal did not write; never an image that is read.

    Returns:
        Status 1 when some pair could not be predicted.
    """
    from bitemporal.inference import predict_files
    from bitemporal.pairs.check import fault_lines

    report = predict_files(
        detector.load(),
        before_image,
        after_image,
        output,
        probability=probability,
        threshold=threshold,
        batch_size=batch_size,
        suffixes=suffixes,
        bands=bands,
        image_range=image_range,
        progress=sys.stderr.isatty(),
        overwrite=overwrite,
    )
    at = "" if threshold == 0.5 else f", changed where the probability exceeds {threshold:g}"
    print(f"{len(report.masks)} mask(s) written to {output}{at}")
    for note in report.notes:
        print(f"note: {harmless(note)}", file=sys.stderr)
    if report.faults:
        print(f"{len(report.faults)} fault(s), the images concerned were left out:", file=sys.stderr)
    faults = [(fault.path, fault.what, fault.remedy, "") for fault in report.faults]
    for line in fault_lines(faults, Path()):
        print(harmless(line), file=sys.stderr)
    return Outcome(
        {
            "masks": report.masks,
            "threshold": threshold,
            "notes": report.notes,
            "faults": [str(fault) for fault in report.faults],
        },
        status=1 if report.faults else 0,
    )
