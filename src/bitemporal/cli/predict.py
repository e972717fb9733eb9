"""``bitemporal predict``."""

import sys

from rich.console import Console

from bitemporal.inference import load, predict_files


def predict(
    before: str,
    after: str,
    /,
    *,
    bundle: str,
    output: str,
    probability: str | None = None,
    batch_size: int = 8,
    device: str = "auto",
    image_range: tuple[float, float] | None = None,
) -> int:
    """Find what changed between two images, or between two folders of images with equal stems.

    Args:
        before: Image of date 1, or a folder of images.
        after: Image of date 2, or a folder of images.
        bundle: Bundle folder of a network or of Origin-Partition, or owner/name on the Hugging Face hub.
        output: Mask to write, a PNG with 0 unchanged and 255 changed; for folders, the folder of the masks.
        probability: Where to write probabilities of change too, a PNG with 0..255 for 0..1; a folder for folders.
        batch_size: Pairs predicted at once.
        device: auto (CUDA, else MPS, else CPU), or a device's name.
        image_range: Values that map to 0 and 255, as in 0,4000, for images of more than 8 bits.

    Returns:
        1 when a pair of the folders could not be predicted, else 0.
    """
    detector = load(bundle, device)
    report = predict_files(
        detector,
        before,
        after,
        output,
        probability=probability,
        batch_size=batch_size,
        image_range=image_range,
        progress=sys.stderr.isatty(),
    )
    Console(soft_wrap=True, highlight=False, markup=False).print(f"{len(report.masks)} mask(s) written to {output}")
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    for note in report.notes:
        errors.print(f"note: {note}")
    if not report.faults:
        return 0
    errors.print(f"{len(report.faults)} fault(s), the images concerned were left out:")
    for fault in report.faults:
        errors.print(f"  {fault}")
    return 1
