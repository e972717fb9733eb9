"""State dicts of Open-CD and MTKD-CD in the names of this package.

Every key of the checkpoint must be used, or be known to be unused in the reference; every entry of the network must be
filled.
"""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from bitemporal.errors import WeightsError
from bitemporal.interop.opencd import (
    ban,
    bit,
    cgnet,
    changeformer,
    changer,
    changestar,
    fully_convolutional,
    hanet,
    ifn,
    lightcdnet,
    snunet,
    stanet,
    tinycd,
    tinycd_v2,
    ttp,
)
from bitemporal.interop.opencd.rules import Family, Rules
from bitemporal.models import create_model

FAMILIES: dict[str, Family] = {
    **fully_convolutional.FAMILIES,
    **tinycd.FAMILIES,
    **changer.FAMILIES,
    **ttp.FAMILIES,
    **tinycd_v2.FAMILIES,
    **snunet.FAMILIES,
    **lightcdnet.FAMILIES,
    **changeformer.FAMILIES,
    **ifn.FAMILIES,
    **stanet.FAMILIES,
    **bit.FAMILIES,
    **changestar.FAMILIES,
    **ban.FAMILIES,
    **hanet.FAMILIES,
    **cgnet.FAMILIES,
}
"""How the checkpoints of each network are read, by its registered name."""


def _rename(rules: Rules, key: str) -> str | None:
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(replacement)
    return None


def _renamed(rules: Rules, state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Entries under their new names, and the keys that no rule knows."""
    renamed: dict[str, Tensor] = {}
    unknown: list[str] = []
    for key, value in state_dict.items():
        name = _rename(rules, key)
        if name is None:
            unknown.append(key)
        else:
            renamed[name] = value
    return renamed, unknown


def _matches(patterns: Iterable[str], key: str) -> bool:
    return any(re.fullmatch(pattern, key) for pattern in patterns)


def unused_entries(name: str, state_dict: Mapping[str, Tensor]) -> list[str]:
    """Keys of layers that Open-CD's network holds without using their results; ``convert`` leaves them out.

    Args:
        name: Registered name of the same network here.
        state_dict: As in the checkpoint's ``state_dict`` entry.
    """
    family = FAMILIES[name]
    return [key for key in family.prepare(state_dict) if _matches(family.unused, key)]


def misfits(name: str, state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Translate the state dict of an Open-CD network, and say what does not fit.

    Args:
        name: Registered name of the same network here.
        state_dict: As in the checkpoint's ``state_dict`` entry.

    Returns:
        The entries under their names here, and a line for every key left over, missing or of another shape; without
        such a line, ``create_model(name)`` loads the entries strictly.

    Raises:
        WeightsError: When the network has no counterpart in Open-CD.
    """
    if name not in FAMILIES:
        raise WeightsError(f"no Open-CD checkpoint can be read for {name!r}; known are {', '.join(sorted(FAMILIES))}")
    rules, prepare, unused = FAMILIES[name]
    used = {key: value for key, value in prepare(state_dict).items() if not _matches(unused, key)}
    converted, unknown = _renamed(rules, used)
    expected = create_model(name).state_dict()
    problems = [f"not known: {key}" for key in unknown]
    problems += [f"missing: {key}" for key in sorted(expected.keys() - converted.keys())]
    problems += [f"not in the network: {key}" for key in sorted(converted.keys() - expected.keys())]
    problems += [
        f"{key} is {tuple(converted[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in converted and converted[key].shape != value.shape
    ]
    return converted, problems


def known_share(name: str, state_dict: Mapping[str, Tensor]) -> float:
    """Share of the keys, in [0, 1], that the importer of a network knows; shapes are not looked at.

    Args:
        name: Registered name of a network in ``FAMILIES``.
        state_dict: As in the checkpoint's ``state_dict`` entry.
    """
    rules, prepare, unused = FAMILIES[name]
    entries = prepare(state_dict)
    known = sum(_matches(unused, key) or _rename(rules, key) is not None for key in entries)
    return known / max(len(entries), 1)


def convert(name: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the state dict of an Open-CD network.

    Args:
        name: Registered name of the same network here.
        state_dict: As in the checkpoint's ``state_dict`` entry.

    Returns:
        A state dict that ``create_model(name)`` loads strictly; ``unused_entries`` are left out.

    Raises:
        WeightsError: When the network has no counterpart in Open-CD, or listing the keys that are left over or missing
            and the shapes that do not fit.
    """
    converted, problems = misfits(name, state_dict)
    if problems:
        raise WeightsError(
            f"the state dict is not that of Open-CD's {name}; check the name of the network. {len(problems)} entries "
            f"do not fit: {'; '.join(problems)}"
        )
    return converted
