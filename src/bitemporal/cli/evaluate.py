"""``bitemporal evaluate``."""

import sys
from pathlib import Path

from rich.console import Console

from bitemporal import evaluation
from bitemporal.errors import DataError, RecipeError
from bitemporal.evaluation.results import check_result_output, check_seed
from bitemporal.evaluation.scoring import check_threshold
from bitemporal.imagery.decode import SUFFIXES
from bitemporal.inference import Detector, OriginPartition, compose
from bitemporal.inference.bundle import ORIGIN, ORIGIN_PARTITION_BUNDLE, read_description
from bitemporal.inference.combining import Augmentation, SlidingWindow, TestTimeAugmentation, check_tiles
from bitemporal.method.car import CarPartition
from bitemporal.pairs import PairFolder, check_pairs


def evaluate(
    bundle: str,
    data: str,
    /,
    *,
    split: str | None = None,
    label_values: tuple[int, ...] | None = None,
    label_threshold: float | None = None,
    image_range: tuple[float, float] | None = None,
    parts: int | None = None,
    thresholds: tuple[float, ...] | None = None,
    threshold: float = 0.5,
    tta: Augmentation | None = None,
    scales: tuple[float, ...] = (1.0,),
    tile: int | None = None,
    stride: int | None = None,
    batch_size: int = 8,
    device: str = "auto",
    name: str | None = None,
    seed: int | None = None,
    output: str | None = None,
) -> None:
    """Compare a detector's masks with labels: the metrics over all pairs and by CAR part.

    Every file of the split is read and checked first. Of a folder of masks, --threshold, --tta, --scales, --tile and
    --stride state how they were made, and are written to the protocol alone; without them masks count as made from
    whole images, at 0.5, without augmentation.

    Args:
        bundle: Bundle folder of a network or of Origin-Partition, or owner/name on the Hugging Face hub; or a folder of
            masks that another program has written, 0 unchanged, another value changed, with the stems of the pairs.
        data: Folder of pairs, ROOT/{train,val,test}/{A,B,label} or ROOT/{A,B,label}.
        split: Split to evaluate on; test where it has labels, else val, else the only one.
        label_values: Values of unchanged, changed and, if any, ignored pixels, as in 1,2 or 0,1,255.
        label_threshold: Label values at or above this are changed.
        image_range: Values that map to 0 and 255, as in 0,4000, for images of more than 8 bits.
        parts: Number of CAR parts, split at the paper's thresholds (2 or 3).
        thresholds: CAR thresholds, as in 0.05,0.20, for any number of parts; instead of parts. Without either: those
            of an Origin-Partition bundle, else 0.05,0.20.
        threshold: Probability above which a pixel is changed.
        tta: Test-time augmentation: flips, rotations, or flips-rotations.
        scales: Sizes of the images for test-time augmentation, as in 0.75,1,1.25.
        tile: Side of the tiles that images are cut into; whole images by default.
        stride: From one tile to the next; that of the tile by default.
        batch_size: Pairs predicted at once.
        device: auto (CUDA, else MPS, else CPU), or a device's name.
        name: Of the detector in comparisons; results of one name and different seeds are replicates. By default the
            network and its stage.
        seed: That the detector was trained with; what the bundle says by default.
        output: JSON file to write: protocol, metrics, intervals; the counts of every pair go to a CSV file beside it.
            Earlier results are replaced, other files refused.
    """
    if output is not None:
        check_result_output(output)
    folder = PairFolder(data, label_values=label_values, label_threshold=label_threshold, image_range=image_range)
    chosen = _choose_split(folder) if split is None else split
    pairs = folder.pairs(chosen)
    show = sys.stderr.isatty()
    masks = _is_mask_folder(bundle)
    check_threshold(threshold)
    check_tiles(tile, stride)
    check_seed(seed)
    if not masks and Path(bundle).is_dir() and not any((Path(bundle) / name).exists() for name in _OF_DETECTORS):
        raise DataError(
            f"{bundle}: found neither bundle.json nor images ({', '.join(SUFFIXES)}), expected a bundle, or a folder "
            "of masks with the stems of the pairs"
        )
    detector = None if masks else compose([bundle], device, tta, scales, tile, stride)
    partition = _partition(detector, parts, thresholds)
    console = Console(highlight=False, markup=False)
    folder = _checked(folder, chosen, console)
    if detector is None:
        scores = evaluation.evaluate_masks(bundle, folder, pairs, partition, progress=show)
    else:
        scores = evaluation.evaluate(detector, folder, pairs, partition, batch_size, show, threshold)
    left_out = f"; {scores.unlabelled} without a label left out" if scores.unlabelled else ""
    console.print(f"{bundle} on {data}, split {chosen}: {len(scores.stems)} labelled pair(s){left_out}", soft_wrap=True)
    for table in evaluation.score_tables(scores):
        evaluation.print_table(table)
    print()
    evaluation.print_table(evaluation.interval_table(scores))
    if output is not None:
        protocol = evaluation.Protocol(
            data=Path(data).resolve().name,
            split=chosen,
            pairs_hash=scores.pairs_hash,
            pairs=len(scores.stems),
            labels=folder.decoding.rule() if folder.decoding else None,
            image_range=image_range,
            tile=tile,
            stride=(stride or tile) if tile else None,
            threshold=threshold,
            augmentation=tta,
            scales=tuple(scales),
            car_thresholds=partition.thresholds,
        )
        known_name, known_seed, model = _known(None if masks else bundle)
        result = evaluation.Result(
            name or known_name or Path(bundle).resolve().name,
            protocol,
            scores,
            known_seed if seed is None else seed,
            {"source": bundle, **({"model": model} if model else {}), **evaluation.program()},
        )
        counts = result.write(output)
        console.print(f"written to {output} and {counts}", soft_wrap=True)


_OF_DETECTORS = ("bundle.json", "recipe.yaml")
"""What a bundle and a run hold."""


def _is_mask_folder(source: str) -> bool:
    folder = Path(source)
    return (
        folder.is_dir()
        and not any((folder / name).exists() for name in _OF_DETECTORS)
        and any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())
    )


def _known(bundle: str | None) -> tuple[str | None, int | None, str | None]:
    """Name, seed and network that a bundle tells of itself."""
    if bundle is None or not Path(bundle).is_dir():
        return None, None, None
    described = read_description(Path(bundle))
    if described["kind"] == ORIGIN_PARTITION_BUNDLE:
        network = read_description(Path(bundle) / ORIGIN)
        return f"{network['model']} o-p", network.get("metadata", {}).get("seed"), network["model"]
    metadata = described.get("metadata", {})
    model = described["model"]
    return f"{model} {metadata.get('stage', '')}".strip(), metadata.get("seed"), model


def _checked(folder: PairFolder, split: str, console: Console) -> PairFolder:
    """Read all files first: their faults all at once, not one after an hour."""
    scan = check_pairs(folder, progress=sys.stderr.isatty(), splits=(split,))
    if any(fault.kind not in ("partner", "unlabelled") for fault in scan.faults):
        scan.raise_for_faults()
    if scan.decoding:
        console.print(scan.decoding.describe(), soft_wrap=True)
    if partners := sum(fault.kind == "partner" for fault in scan.faults):
        console.print(
            f"{partners} file(s) of split {split} lack a partner or a label and are left out; "
            f"`bitemporal data check {folder.root}` lists them",
            soft_wrap=True,
        )
    return folder.with_decoding(scan.decoding)


def _choose_split(folder: PairFolder) -> str:
    for name in ("test", "val"):
        if name in folder.splits and any(pair.label for pair in folder.pairs(name)):
            return name
    if len(folder.splits) == 1:
        return folder.splits[0]
    labelled = [name for name in folder.splits if any(pair.label for pair in folder.pairs(name))]
    if not labelled:
        raise DataError(
            f"{folder.root}: no pair of {', '.join(folder.splits)} has a label; evaluation compares with labels: add "
            "them, or use `bitemporal predict`, which needs none"
        )
    raise RecipeError(
        f"split: {folder.root} has labels in {', '.join(labelled)}, and neither in test nor in val; name one by --split"
    )


def _partition(detector: Detector | None, parts: int | None, thresholds: tuple[float, ...] | None) -> CarPartition:
    if parts is not None and thresholds is not None:
        raise RecipeError(f"parts: found {parts} beside thresholds {thresholds}, expected one of the two; drop one")
    if thresholds is not None:
        return CarPartition(thresholds)
    if parts is not None:
        return CarPartition.of_paper(parts)
    while isinstance(detector, (SlidingWindow, TestTimeAugmentation)):
        detector = detector.detector
    return detector.partition if isinstance(detector, OriginPartition) else CarPartition()
