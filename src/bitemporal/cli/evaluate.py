"""``bitemporal evaluate``."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bitemporal import evaluation
from bitemporal.cli.detector import PredictionOptions
from bitemporal.cli.outcome import Outcome
from bitemporal.errors import DataError, OptionError
from bitemporal.evaluation import MaskSettings, Result
from bitemporal.evaluation.results import check_seed, result_outputs
from bitemporal.imagery import LabelOptions
from bitemporal.imagery.decoded import SUFFIXES
from bitemporal.method.car import CarPartition
from bitemporal.outputs import check_outputs, locked
from bitemporal.pairs import PairFolder, PairOptions, check_pairs
from bitemporal.run.folder import RunFolder
from bitemporal.run.scores import WEIGHTS_DIGEST
from bitemporal.tables import print_table

if TYPE_CHECKING:
    from bitemporal.inference import Detector


def evaluate(
    bundle: str,
    data: str,
    /,
    *,
    split: str | None = None,
    pair_options: PairOptions,
    parts: int | None = None,
    thresholds: tuple[float, ...] | None = None,
    threshold: float | None = None,
    tile: int | None = None,
    stride: int | None = None,
    prediction: PredictionOptions,
    batch_size: int = 8,
    block: int = 1024,
    within: str | None = None,
    mask: list[str] | None = None,
    allow_vrt: bool = False,
    name: str | None = None,
    seed: int | None = None,
    output: str | None = None,
    overwrite: bool = False,
) -> Outcome:
    """Compare a detector's masks, or a predicted raster, with labels: the metrics over all pairs and by CAR part.

    Every file of the split is read and checked first. For a folder of masks, --threshold, --tta, --scales, --tile and
    --stride state how the masks were made, and are only written to the protocol. Without them, masks are assumed to
    be made from whole images, at threshold 0.5, without augmentation. Masks by bitemporal hold their threshold in their
    tags: it is used, and another --threshold is refused.

    A predicted raster, such as change.tif or probability.tif of `bitemporal predict-scene`, is compared with a label
    raster or the polygons of a vector file, on its own pixels. Its blocks take the place of pairs.

    Args:
        bundle: Bundle folder of a network or of Origin-Partition, or owner/name on the Hugging Face hub; or a folder of
            masks that another program has written, 0 unchanged, another value changed, with the stems of the pairs; or
            a predicted raster, a mask or probabilities.
        data: Folder of pairs, ROOT/{train,val,test}/{A,B,label}, ROOT/{A,B,label}, or as data sets are released; for a
            predicted raster, a label raster or a vector file with what has changed.
        split: Split to evaluate on; test where it has labels, else val, else the only one.
        pair_options: How the files of the pairs are read; bands and image_range are those of the bundle by default. So
            are options about labels, where labels need some and are of the same kind as those of the training.
        parts: Number of CAR parts that scores are grouped by, split at the paper's thresholds (2 or 3).
        thresholds: CAR thresholds, as in 0.05,0.20, for any number of parts; instead of parts. Without either: those
            of an Origin-Partition bundle, else 0.05,0.20.
        threshold: Probability above which a pixel is changed, 0.5 by default; of masks, the one in their tags.
        tile: Side of the tiles that images are cut into; whole images by default.
        stride: Pixels from one tile to the next; the tile's side by default.
        prediction: How masks are made.
        batch_size: Pairs predicted at once.
        block: Side in pixels of the blocks of a raster.
        within: Vector file with the polygons of the area of interest; pixels of a raster outside are left out.
        mask: Rasters of one band, such as cloud masks; pixels of a raster are left out where any of them is not 0.
        allow_vrt: Let VRTs among these rasters read files outside their own folder and remote addresses, and open
            formats that may refer to other files, such as HDF5. Only for files that you trust.
        name: The detector's name in comparisons; results of one name and different seeds are replicates. By default
            the network and its stage.
        seed: The seed that the detector was trained with; by default the one in the bundle.
        output: JSON file to write: protocol, metrics, intervals; the counts of every pair go to a CSV file next to it.
            Earlier results are replaced; other files are refused.
        overwrite: Also replace files that are not an earlier result; never a file that is read.
    """
    check_seed(seed)
    partition = CarPartition.of_options(parts, thresholds)
    settings = MaskSettings(
        threshold=threshold, tile=tile, stride=stride, augmentation=prediction.tta, scales=prediction.scales
    )
    show = sys.stderr.isatty()
    console = Console(highlight=False, markup=False)
    is_raster = _is_raster(bundle)
    reads = [path for path in (bundle, data, pair_options.splits, within, *(mask or [])) if path is not None]
    if is_raster:
        from bitemporal.scenes.sources import files_read  # needs the extra for rasters

        reads = [*map(str, files_read(reads, allow_vrt))]
    with _writing(output, reads, overwrite):
        _check_options_of_rasters(bundle, is_raster, split=split, within=within, mask=mask, allow_vrt=allow_vrt or None)
        if is_raster:
            of_pairs = [field.name for field in fields(PairOptions) if field not in fields(LabelOptions)]
            pair_options.refuse(f"{bundle} is a raster", of_pairs)
            from bitemporal import evaluate_raster  # needs the extra for rasters

            result = evaluate_raster(
                bundle, data, partition=partition, settings=settings, block=block, within=within, mask=mask,
                labels=pair_options, allow_vrt=allow_vrt, progress=show,
            )  # fmt: skip
        else:
            folder, how_to_check = pair_options.pair_folder(data), pair_options.check_command(data)
            chosen = _choose_split(folder) if split is None else split
            pairs = folder.pairs(chosen)
            if _is_mask_folder(bundle):
                folder = _checked(folder, chosen, how_to_check, console)
                result = evaluation.evaluate_masks(bundle, folder, pairs, partition, show, settings)
            else:
                from bitemporal.inference import compose

                detector = compose([bundle], prediction.device, prediction.tta, prediction.scales, tile, stride)
                folder = _checked(evaluation.folder_for(detector, folder), chosen, how_to_check, console, detector)
                at = settings.threshold_of(None, bundle)
                result = evaluation.evaluate(detector, folder, pairs, partition, batch_size, show, at)
        stated = {key: value for key, value in (("name", name), ("seed", seed)) if value is not None}
        result = result.named(**_describe(bundle) | stated, source=bundle)
        _show(result, bundle, data, console)
        if output is not None:
            counts = result.write(output, overwrite)
            console.print(f"written to {output} and {counts}", soft_wrap=True)
    return Outcome(result.to_json())


@contextmanager
def _writing(output: str | None, reads: list[str], overwrite: bool) -> Iterator[None]:
    """Check where the result goes before the work, and keep other runs from it, and from the run that it is of."""
    if output is None:
        yield
        return
    run = RunFolder.of_scores(output)
    with locked(Path(output)) if run is None else run.locked():
        check_outputs(result_outputs(output), reads, overwrite)
        yield


def _show(result: Result, bundle: str, data: str, console: Console) -> None:
    scores = result.evaluation
    counted = f"split {result.protocol.split}: {len(scores.stems)} labelled pair(s)"
    if result.protocol.block is not None:
        counted = f"{len(scores.stems)} block(s) of {result.protocol.block} pixels; {result.protocol.labels}"
    left_out = f"; {scores.unlabelled} without a label left out" if scores.unlabelled else ""
    console.print(f"{bundle} on {data}, {counted}{left_out}", soft_wrap=True)
    for table in evaluation.score_tables(scores):
        print_table(table)
    print()
    print_table(evaluation.interval_table(scores))


_RASTERS = (".tif", ".tiff", ".vrt", ".jp2")
"""Endings of rasters; a folder of such a name is not one."""


def _is_raster(source: str) -> bool:
    """Whether a source is a predicted raster, there or not."""
    path = Path(source)
    return path.is_file() or (path.suffix.lower() in _RASTERS and not path.is_dir())


def _check_options_of_rasters(source: str, is_raster: bool, **options: object) -> None:
    """Refuse options that are for rasters alone, or not for rasters.

    Raises:
        OptionError: When one is given that does not apply.
    """
    for name, value in options.items():
        if value is not None and is_raster == (name == "split"):
            why = f"{source} is a raster, which has none" if is_raster else f"is for rasters, and {source} is not one"
            raise OptionError(f"{name}: {why}; leave {name} out")


_OF_DETECTORS = ("bundle.json", "recipe.yaml", "bundle/bundle.json")
"""What a bundle, a run and a stage of a run hold."""


def _is_mask_folder(source: str) -> bool:
    """Whether a folder holds masks.

    Raises:
        DataError: When a folder holds neither a detector nor images.
    """
    folder = Path(source)
    if not folder.is_dir() or any((folder / name).exists() for name in _OF_DETECTORS):
        return False
    if not any(path.suffix.lower() in SUFFIXES for path in folder.iterdir()):
        raise DataError(
            f"{source}: found neither bundle.json nor images ({', '.join(SUFFIXES)}), expected a bundle, or a folder "
            "of masks with the stems of the pairs"
        )
    return True


def _describe(source: str) -> dict[str, Any]:
    """Name, seed and network of a bundle, as far as it tells them; for masks and on the hub, the name alone."""
    folder = Path(source)
    if not (folder / "bundle.json").is_file():
        return {"name": folder.stem if _is_raster(source) else folder.resolve().name}
    from bitemporal.inference.bundle import ORIGIN, ORIGIN_PARTITION_BUNDLE, read_description
    from bitemporal.inference.digests import weights_digest

    network = description = read_description(folder)
    if description["kind"] == ORIGIN_PARTITION_BUNDLE:
        network = read_description(folder / ORIGIN)
    metadata = network.get("metadata", {})
    stage = metadata.get("stage", "") if network is description else "o-p"
    return {
        "name": f"{network['model']} {stage}".strip(),
        "seed": metadata.get("seed"),
        "model": network["model"],
        WEIGHTS_DIGEST: weights_digest(description),
    }


def _checked(
    folder: PairFolder, split: str, how_to_check: str, console: Console, detector: "Detector | None" = None
) -> PairFolder:
    """Read all files first: their faults all at once, not one after an hour."""
    scan = check_pairs(folder, progress=sys.stderr.isatty(), splits=(split,))
    if detector is not None and any(fault.kind == "label" for fault in scan.faults):
        alike = evaluation.labels_as_trained(detector, folder, split)
        if alike is not None:
            folder, scan.decoding = alike, alike.decoding
            scan.faults = [fault for fault in scan.faults if fault.kind != "label"]
    if any(fault.kind not in ("partner", "unlabelled") for fault in scan.faults):
        scan.raise_for_faults()
    folder = folder.with_decoding(scan.decoding)
    told = "" if detector is None else evaluation.describe_labels(detector, folder)
    if scan.decoding:
        console.print(told or scan.decoding.describe(), soft_wrap=True)
    if partners := sum(fault.kind == "partner" for fault in scan.faults):
        console.print(
            f"{partners} file(s) of split {split} lack a partner or a label and are left out; "
            f"`{how_to_check}` lists them",
            soft_wrap=True,
        )
    return folder


def _choose_split(folder: PairFolder) -> str:
    labelled = [name for name in folder.splits if any(pair.label for pair in folder.pairs(name))]
    if not labelled:
        raise DataError(
            f"{folder.root}: no pair of {', '.join(folder.splits)} has a label; evaluation compares with labels: add "
            "them; a prediction alone needs none"
        )
    for name in ("test", "val"):
        if name in labelled:
            return name
    if len(folder.splits) == 1:
        return folder.splits[0]
    raise OptionError(
        f"split: {folder.root} has labels in {', '.join(labelled)}, and neither in test nor in val; choose "
        + " or ".join(f"--split {name}" for name in labelled)
    )
