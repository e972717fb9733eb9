"""Bundles: folders that hold a trained detector; no pickle anywhere.

The bundle of a network is ``bundle.json`` and ``weights.safetensors``. The bundle of Origin-Partition is
``bundle.json`` and a sub-folder for each network: ``origin``, and one named after the part of each teacher. Digests
of all files are in ``bundle.json``; see ``digests.py``.
"""

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bitemporal.errors import BitemporalError, BundleError, PartitionError, UnknownModelError, WeightsError
from bitemporal.files import not_there
from bitemporal.imagery.training_images import TrainingImages
from bitemporal.inference.digests import DESCRIPTION, check_description, check_digest, with_digests
from bitemporal.method.car import CarPartition
from bitemporal.method.origin_partition import check_teachers
from bitemporal.models import ChangeModel, Normalisation, create_model
from bitemporal.models.finite import check_finite
from bitemporal.models.registry import registering_module
from bitemporal.outputs import Kind, Output, check_outputs, locked, replacing, replacing_folder, write_json
from bitemporal.own_networks import needs_module
from bitemporal.reading import json_keys, read_json, reading

NETWORK_BUNDLE = "network"
ORIGIN_PARTITION_BUNDLE = "origin-partition"

FORMATS = {NETWORK_BUNDLE: 1, ORIGIN_PARTITION_BUNDLE: 2}
"""Kinds of bundles, and the format of each that this version writes; it reads all formats up to it."""

ORIGIN = "origin"
"""Sub-folder of the origin in a bundle of Origin-Partition; the teachers' are named after their parts."""

WEIGHTS = "weights.safetensors"

_BELOW = ("bundle/bundle.json", "*/bundle/bundle.json")  # bundles below the folder of a stage, or of a run


def _is_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle of any kind, and holds nothing else; or is empty."""
    if not BUNDLE.holds_no_other(folder):
        return False
    return not any(folder.iterdir()) or {"format", "kind"} <= json_keys(folder / "bundle.json")


BUNDLE = Kind(
    "a bundle",
    _is_bundle,
    members=("bundle.json", "weights.safetensors", "*/bundle.json", "*/weights.safetensors"),
)
"""The folder of a network or of Origin-Partition."""


def write_weights(path: str | os.PathLike[str], model: ChangeModel, metadata: dict[str, str] | None = None) -> None:
    """Write the weights of a network; the file appears whole or not at all.

    Args:
        path: File to write.
        model: The network.
        metadata: Texts for the header of the file.

    Raises:
        OutputError: When it cannot be written.
        WeightsError: When a weight is NaN or infinite.
    """
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    try:
        check_finite(weights)
    except ValueError as error:
        raise WeightsError(
            f"the network is not written, because {error}; expected finite numbers: give an earlier state of it, or "
            "train it again with a lower lr"
        ) from None
    with replacing(path, SafetensorError) as temporary:
        save_file(weights, temporary, metadata)


def save_bundle(
    folder: str | os.PathLike[str],
    model: ChangeModel,
    metadata: dict[str, Any] | None = None,
    trained_on: TrainingImages | None = None,
    overwrite: bool = False,
) -> None:
    """Write a network as a bundle; the folder appears whole or not at all.

    Args:
        folder: Where to write; an existing bundle there is replaced.
        model: A network made by ``create_model``.
        metadata: Anything else worth keeping with it (data, scores, version); JSON types only.
        trained_on: The images that it was trained on. Whoever loads the bundle reads images by the same bands and
            range.
        overwrite: Also replace a folder that is not a bundle, if all its files are named as in a bundle.

    Raises:
        OutputError: When it cannot be written, or the folder holds something else.
        WeightsError: When a weight is NaN or infinite.
    """
    with _new_bundle(folder, (), overwrite) as target:
        write_weights(target / WEIGHTS, model)
        description = {
            "format": FORMATS[NETWORK_BUNDLE],
            "kind": NETWORK_BUNDLE,
            "model": model.name,
            "module": registering_module(model.name),
            "config": dict(model.config),
            "normalisation": {"mean": model.card.normalisation.mean, "std": model.card.normalisation.std},
            "trained_on": None if trained_on is None else trained_on.to_json(),
            "metadata": metadata or {},
        }
        write_json(target / DESCRIPTION, with_digests(description, target, [WEIGHTS]))


@contextmanager
def _new_bundle(folder: str | os.PathLike[str], reads: Iterable[Path], overwrite: bool) -> Iterator[Path]:
    with locked(Path(folder)):
        check_outputs([Output("folder", Path(folder), BUNDLE, "choose another folder")], reads, overwrite)
        with replacing_folder(folder) as target:
            yield target


def read_description(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read and check the ``bundle.json`` of a bundle of any kind.

    Raises:
        BundleError: When the folder is not a bundle, its format is newer than this version reads, or the file was
            changed since it was written.
    """
    path = Path(folder) / "bundle.json"
    if Path(folder).is_file():
        raise BundleError(f"{folder}: found a file, expected a bundle folder, as training writes it")
    if not Path(folder).exists():
        raise BundleError(f"{not_there(folder, 'folder')}; expected a bundle folder, as training writes it")
    if not path.is_file():
        inside = sorted({str(file.parent) for rule in _BELOW for file in Path(folder).glob(rule)})
        remedy = f"; give {' or '.join(inside)}" if inside else ""
        raise BundleError(f"{not_there(path, 'file')}; expected a bundle folder, as training writes it{remedy}")
    with reading(path, BundleError, "expected the description of a bundle; write or download the bundle again"):
        description = read_json(path)
        if not isinstance(description, dict):
            raise TypeError("it holds no fields")
        kind, version = _of(description, "kind", str, "a text"), _of(description, "format", int, "a number")
        if version < 1:
            raise ValueError(f"its field format holds {version}, expected 1 or more")
    if kind not in FORMATS or version > FORMATS[kind]:
        known = " and ".join(f"{name!r} up to format {newest}" for name, newest in FORMATS.items())
        raise BundleError(
            f"{path}: found kind {kind!r} of format {version}; this version reads {known}; update bitemporal"
        )
    check_description(description, path)
    with reading(path, BundleError, _REMEDY):
        for name in description.keys() & _FIELDS[kind].keys():
            _of(description, name, *_FIELDS[kind][name])
    return description


_REMEDY = "write or download the bundle again"

_METADATA: dict[str, tuple[Any, str]] = {"metadata": (dict, "a mapping")}
_FIELDS: dict[str, dict[str, tuple[Any, str]]] = {
    NETWORK_BUNDLE: {
        "model": (str, "a name"),
        "module": (str | None, "a name"),
        "config": (dict, "a mapping"),
        "normalisation": (dict, "a mapping"),
        "trained_on": (dict | None, "a mapping"),
        **_METADATA,
    },
    ORIGIN_PARTITION_BUNDLE: {
        "thresholds": (list, "a list of numbers"),
        "parts": (list, "a list of names"),
        "teachers": (list, "a list of names"),
        "specialists": (list, "a list of names"),
        **_METADATA,
    },
}
"""The type of each field of a description by its kind, and that type in words; any may be missing here."""


def _of(description: Mapping[str, Any], name: str, kind: Any, expected: str) -> Any:  # noqa: ANN401  as it is stored
    """A field of a description.

    Raises:
        KeyError: When it is missing.
        TypeError: When it is of another type.
    """
    value = description[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"its field {name} holds {repr(value)[:50]}, expected {expected}")
    return value


def _normalisation(stored: dict[str, Any], channels: int) -> Normalisation:
    """Read the stored values; ``TypeError``, ``KeyError`` or ``ValueError`` when they are malformed."""
    mean, std = (tuple(float(value) for value in stored[name]) for name in ("mean", "std"))
    if {len(mean), len(std)} != {channels} or min(std) <= 0.0 or not all(map(math.isfinite, mean + std)):
        raise ValueError(f"normalisation: found {stored}, expected {channels} numbers each, those of std above 0")
    return Normalisation(mean, std)


def read_training_images(folder: str | os.PathLike[str]) -> TrainingImages | None:
    """The images that the network of a bundle was trained on; ``None`` where earlier versions did not record them.

    Raises:
        BundleError: When the description is damaged.
    """
    stored = read_description(folder).get("trained_on")
    with reading(
        Path(folder) / "bundle.json", BundleError, "trained_on is malformed; write or download the bundle again"
    ):
        return None if stored is None else TrainingImages.of_json(stored)


def load_network(folder: str | os.PathLike[str]) -> ChangeModel:
    """Build the network of a bundle, in eval mode on the CPU.

    Raises:
        BundleError: When files are missing or damaged, or the weights do not fit the network.
    """
    description = read_description(folder)
    if description["kind"] != NETWORK_BUNDLE:
        raise BundleError(
            f"{folder}: found a bundle of {description['kind']}, expected one network; use "
            f"`bitemporal.load({str(folder)!r})`"
        )
    path, weights = (Path(folder) / name for name in (DESCRIPTION, WEIGHTS))
    remedy = _REMEDY
    try:
        with reading(path, BundleError, f"expected in model and config a network that this version builds; {remedy}"):
            model = create_model(description["model"], pretrained=False, **description["config"])
        # the values it was trained with, whatever the card says by now
        with reading(path, BundleError, f"expected in normalisation mean and std, numbers; {remedy}"):
            normalisation = _normalisation(description["normalisation"], model.config["in_channels"])
            model.card = replace(model.card, normalisation=normalisation)
    except UnknownModelError as error:
        # the bundle of a network of one's own says which module registers it
        module = description.get("module")
        told = needs_module(description["model"], str(module)) if module else str(error)
        raise BundleError(f"{folder}: {told}") from error
    except BundleError:
        raise
    except BitemporalError as error:
        raise BundleError(f"{path}: the network of its config cannot be built ({error}); {remedy}") from error
    check_digest(description, Path(folder), WEIGHTS)
    read_weights(model, weights, f"expected the weights of that network; {remedy}")
    return model.eval()


def read_weights(model: ChangeModel, path: Path, expected: str) -> None:
    """Give a network the weights of a file.

    Args:
        model: The network.
        path: The file.
        expected: What should stand there, and the remedy, for errors.

    Raises:
        BundleError: When it is missing or damaged, does not fit the network, or holds NaN or infinity.
    """
    with reading(path, BundleError, expected):
        weights = load_file(path)
        check_finite(weights)
        model.load_state_dict(weights)


def check_bundle(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the description of a network's bundle, and check its files.

    Raises:
        BundleError: When it is not the bundle of a network, or a file is missing or was changed since it was written.
    """
    description = read_description(folder)
    kind = description["kind"]
    if kind != NETWORK_BUNDLE or not (Path(folder) / WEIGHTS).is_file():
        raise BundleError(f"{folder}: found {kind}, expected one network with its {WEIGHTS}")
    check_digest(description, Path(folder), WEIGHTS)
    return description


def save_origin_partition(
    folder: str | os.PathLike[str],
    origin_bundle: str | os.PathLike[str],
    teacher_bundles: Mapping[str, str | os.PathLike[str]],
    partition: CarPartition,
    metadata: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write an Origin-Partition detector as one self-contained bundle; the folder appears whole or not at all.

    Args:
        folder: Where to write; an existing bundle there is replaced.
        origin_bundle: Bundle of the origin, copied.
        teacher_bundles: Bundles of the teachers by the name of their part, copied; parts may be missing.
        partition: Which CAR belongs to which part.
        metadata: Anything else worth keeping with it; JSON types only.
        overwrite: Also replace a folder that is not a bundle, if all its files are named as in a bundle.

    Raises:
        OutputError: When it cannot be written, or the folder holds something else.
        PartitionError: When a teacher's name is not a part of the partition.
        BundleError: When a bundle is missing, damaged, or not that of a network.
    """
    check_teachers(teacher_bundles, partition)
    sources = {ORIGIN: Path(origin_bundle)} | {part: Path(path) for part, path in teacher_bundles.items()}
    for source in sources.values():
        check_bundle(source)

    with _new_bundle(folder, sources.values(), overwrite) as target:
        for name, source in sources.items():
            (target / name).mkdir()
            for file in (DESCRIPTION, WEIGHTS):
                shutil.copyfile(source / file, target / name / file)
        description = {
            "format": FORMATS[ORIGIN_PARTITION_BUNDLE],
            "kind": ORIGIN_PARTITION_BUNDLE,
            "thresholds": list(partition.thresholds),
            "parts": list(partition.names),
            "teachers": [name for name in partition.names if name in teacher_bundles],
            "metadata": metadata or {},
        }
        files = [f"{name}/{file}" for name in sources for file in (DESCRIPTION, WEIGHTS)]
        write_json(target / DESCRIPTION, with_digests(description, target, files))


def read_origin_partition(folder: str | os.PathLike[str]) -> tuple[CarPartition, tuple[str, ...]]:
    """Partition of an Origin-Partition bundle, and the parts that have a teacher.

    Raises:
        BundleError: When its description is damaged, or a file of its networks was changed since it was written.
    """
    description = read_description(folder)
    path = Path(folder) / DESCRIPTION
    try:
        with reading(path, BundleError, "thresholds or teachers are malformed: write the bundle again"):
            partition = CarPartition(tuple(float(threshold) for threshold in description["thresholds"]))
            # format 1 called the teachers specialists
            teachers = tuple(map(str, description["specialists" if int(description["format"]) == 1 else "teachers"]))
            check_teachers(teachers, partition)
    except PartitionError as error:
        raise BundleError(
            f"{path}: its thresholds or teachers are malformed ({error}); write the bundle again"
        ) from error
    for name in (ORIGIN, *teachers):
        for file in (DESCRIPTION, WEIGHTS):
            check_digest(description, Path(folder), f"{name}/{file}")
    return partition, teachers
