"""Digests of a bundle: SHA-256 of each of its files, kept in ``bundle.json`` and checked when it is read.

``bundle.json`` cannot hold the digest of its own bytes: its entry is that of the description without the digests, as
JSON with sorted keys. Bundles of earlier versions have none.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bitemporal.errors import BundleError
from bitemporal.files import sha256, without_nan
from bitemporal.reading import reading

DESCRIPTION = "bundle.json"
_DIGESTS = "sha256"
_OF_EARLIER_VERSIONS = {
    *("format", "kind", "model", "module", "config", "normalisation", "trained_on", "metadata"),
    *("thresholds", "parts", "teachers", "specialists"),
}
"""Fields of descriptions without digests. Another one may be the name of the digests, with a bit that changed."""

_REMEDY = "write or download the bundle again"


def with_digests(description: Mapping[str, Any], folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """A description with the digests of itself and of other files.

    Args:
        description: The description without them.
        folder: Folder of the files.
        names: The files, relative to the folder.
    """
    digests = {DESCRIPTION: _of_description(description)} | {name: sha256(folder / name) for name in names}
    return {**description, _DIGESTS: digests}


def check_description(description: Mapping[str, Any], path: Path) -> None:
    """Refuse a description that was changed since it was written.

    Raises:
        BundleError: When it was.
    """
    if _DIGESTS in description:
        with reading(path, BundleError, f"expected it as it was written; {_REMEDY}"):
            if description[_DIGESTS][DESCRIPTION] != _of_description(description):
                raise ValueError(f"its SHA-256 is not that under {_DIGESTS}: it is damaged, or was edited")
    elif unknown := sorted(description.keys() - _OF_EARLIER_VERSIONS):
        raise BundleError(f"{path}: has no {_DIGESTS}, and an unknown field {unknown[0]!r}; {_REMEDY}")


def check_digest(description: Mapping[str, Any], folder: Path, name: str) -> None:
    """Refuse a file of a bundle that was changed since it was written.

    Args:
        description: The bundle's.
        folder: The bundle.
        name: The file, relative to the folder.

    Raises:
        BundleError: When it was, or cannot be read.
    """
    if _DIGESTS in description:
        path = folder / name
        with reading(path, BundleError, f"expected the file as it was written; {_REMEDY}"):
            found, expected = sha256(path), description[_DIGESTS][name]
            if found != expected:
                raise ValueError(f"its SHA-256 is {found}, and in {DESCRIPTION} {expected}: it is damaged")


def weights_digest(description: Mapping[str, Any]) -> str:
    """One digest of all weights of a bundle, by which a later state of it is known; empty where it has none."""
    digests = description.get(_DIGESTS)
    weights = [(name, digests[name]) for name in sorted(digests) if name != DESCRIPTION] if digests else []
    own = [(name, digest) for name, digest in weights if name.endswith(".safetensors")]
    return hashlib.sha256(json.dumps(own).encode()).hexdigest() if own else ""


def _of_description(description: Mapping[str, Any]) -> str:
    content = {name: value for name, value in description.items() if name != _DIGESTS}
    return hashlib.sha256(json.dumps(without_nan(content), sort_keys=True).encode()).hexdigest()
