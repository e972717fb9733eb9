"""State dicts of Open-CD and MTKD-CD in the names of this package.

Every key of the checkpoint must be used, or be known to be unused in the reference; every entry of the network must be
filled.
"""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from bitemporal.errors import WeightsError
from bitemporal.interop.opencd import changer, fully_convolutional, tinycd
from bitemporal.interop.opencd.rules import Family, Rules
from bitemporal.models import create_model

FAMILIES: dict[str, Family] = {
    **fully_convolutional.FAMILIES,
    **tinycd.FAMILIES,
    **changer.FAMILIES,
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
    if problems:
        raise WeightsError(
            f"the state dict is not that of Open-CD's {name}; check the name of the network. {len(problems)} entries "
            f"do not fit: {'; '.join(problems)}"
        )
    return converted
