"""Bundles: a folder that holds a trained network, ``bundle.json`` and ``weights.safetensors``; no pickle anywhere."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bitemporal.errors import BitemporalError, BundleError
from bitemporal.files import replacing_folder, write_json
from bitemporal.models import ChangeModel, Normalisation, create_model

FORMAT = 1
"""Version of the bundle layout."""

NETWORK = "network"
ORIGIN_PARTITION = "origin-partition"


def save_bundle(folder: str | os.PathLike[str], model: ChangeModel, metadata: dict[str, Any] | None = None) -> None:
    """Write a network as a bundle; the folder appears whole or not at all.

    Args:
        folder: Where; an existing bundle there is replaced.
        model: A network made by ``create_model``.
        metadata: Whatever else should be known about it (data, scores, version); JSON types only.
    """
    with replacing_folder(folder) as target:
        state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
        save_file(state, target / "weights.safetensors")
        description = {
            "format": FORMAT,
            "kind": NETWORK,
            "model": model.name,
            "config": dict(model.config),
            "normalisation": {"mean": model.card.normalisation.mean, "std": model.card.normalisation.std},
            "metadata": metadata or {},
        }
        write_json(target / "bundle.json", description)


def read_description(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read and check the ``bundle.json`` of a bundle of any kind.

    Raises:
        BundleError: When the folder is no bundle, or of a newer format.
    """
    path = Path(folder) / "bundle.json"
    if Path(folder).is_file():
        raise BundleError(f"{folder}: found a file, expected a bundle folder, as `bitemporal train` writes it")
    if not path.is_file():
        inside = sorted(str(found.parent) for found in Path(folder).glob("*/bundle/bundle.json"))
        remedy = f"; the bundles of this run are {', '.join(inside)}" if inside else ""
        raise BundleError(f"{path}: no such file; expected a bundle folder, as `bitemporal train` writes it{remedy}")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        kind, version = description["kind"], int(description["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: not the description of a bundle ({error!r}); write the bundle again") from error
    if version > FORMAT or kind not in (NETWORK, ORIGIN_PARTITION):
        raise BundleError(
            f"{path}: format {version} and kind {kind!r} are not known to this version, which reads formats up to "
            f"{FORMAT}; update bitemporal"
        )
    return dict(description)


def _normalisation(stored: dict[str, Any]) -> Normalisation:
    """Read stored values; ``TypeError``, ``KeyError`` or ``ValueError`` when they are not of the written form."""
    mean, std = (tuple(float(value) for value in stored[name]) for name in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3 or 0.0 in std or not all(map(math.isfinite, mean + std)):
        raise ValueError(f"normalisation: found {stored}, expected three numbers each, those of std not 0")
    return Normalisation(mean, std)


def load_network(folder: str | os.PathLike[str]) -> ChangeModel:
    """Build the network of a bundle, in eval mode on the CPU.

    Raises:
        BundleError: When files are missing or damaged, or the weights do not fit the network.
    """
    description = read_description(folder)
    if description["kind"] != NETWORK:
        raise BundleError(f"{folder}: holds {description['kind']}, expected one network; use `bitemporal.load`")
    weights = Path(folder) / "weights.safetensors"
    try:
        model = create_model(description["model"], pretrained=False, **description["config"])
        model.load_state_dict(load_file(weights))
        # those it was trained with, whatever the card says by now
        normalisation = _normalisation(description["normalisation"])
        model.card = replace(model.card, normalisation=normalisation)
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError, BitemporalError) as error:
        raise BundleError(f"{weights}: cannot be loaded ({error}); write or fetch the bundle again") from error
    return model.eval()
