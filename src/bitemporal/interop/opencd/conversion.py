"""State dicts of Open-CD and MTKD-CD in the names of this package.

Every key of the checkpoint must be used, or be known to be unused in the reference; every entry of the network must be
filled.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import torch
from torch import Tensor

from bitemporal.errors import WeightsError
from bitemporal.interop.opencd.families import FAMILIES
from bitemporal.interop.opencd.rules import Rules
from bitemporal.models import create_model


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*", r"([^.]+)") + r"(\..+)?")


def _names_here(rules: Rules, key: str) -> tuple[int, tuple[str, ...]] | None:
    """The place in the table of the rule for a key, and the names that it gives: none for an unused entry."""
    for place, (pattern, names) in enumerate(rules.items()):
        match = _compiled(pattern).fullmatch(key)
        if match:
            names = (names,) if isinstance(names, str) else names or ()
            return place, tuple((name.replace("*", "{}") + "{}").format(*match.groups("")) for name in names)
    return None


def unused_entries(name: str, state_dict: Mapping[str, Tensor]) -> list[str]:
    """Keys of layers that Open-CD's network holds without using their results; ``convert`` leaves them out.

    Args:
        name: Registered name of the same network here.
        state_dict: The checkpoint's ``state_dict`` entry.
    """
    rule_of = {key: _names_here(FAMILIES[name], key) for key in state_dict}
    return [key for key, rule in rule_of.items() if rule is not None and not rule[1]]


def known_share(name: str, state_dict: Mapping[str, Tensor]) -> float:
    """Share of the keys, in [0, 1], that the importer of a network knows; shapes are not looked at.

    Args:
        name: Registered name of a network in ``FAMILIES``.
        state_dict: The checkpoint's ``state_dict`` entry.
    """
    known = sum(_names_here(FAMILIES[name], key) is not None for key in state_dict)
    return known / max(len(state_dict), 1)


def misfits(name: str, state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Translate the state dict of an Open-CD network, and say what does not fit.

    Args:
        name: Registered name of the same network here.
        state_dict: The checkpoint's ``state_dict`` entry.

    Returns:
        The entries under their names here, and a line for every key left over, missing or of another shape. Without
        such a line, ``create_model(name)`` loads the entries strictly.

    Raises:
        WeightsError: When the network has no counterpart in Open-CD.
    """
    if name not in FAMILIES:
        few = ", ".join(sorted(FAMILIES)[:5])
        raise WeightsError(
            f"no Open-CD checkpoint can be read for {name!r}, but for {len(FAMILIES)} networks, such as {few}"
        )
    expected = {key: value.shape for key, value in create_model(name).state_dict().items()}
    pieces: dict[str, dict[int, Tensor]] = {}
    problems = []
    for key, value in state_dict.items():
        rule = _names_here(FAMILIES[name], key)
        if rule is None:
            problems.append(f"not known: {key}")
        else:
            place, names = rule
            for new, piece in _split(value, names, expected):
                pieces.setdefault(new, {})[place] = piece
    converted = {key: _joined(parts, expected.get(key)) for key, parts in pieces.items()}
    problems += [f"missing: {key}" for key in sorted(expected.keys() - converted.keys())]
    problems += [f"not in the network: {key}" for key in sorted(converted.keys() - expected.keys())]
    problems += [
        f"{key} is {tuple(converted[key].shape)}, expected {tuple(shape)}"
        for key, shape in expected.items()
        if key in converted and converted[key].shape != shape
    ]
    return converted, problems


def _split(value: Tensor, names: Sequence[str], expected: Mapping[str, torch.Size]) -> Iterator[tuple[str, Tensor]]:
    """The parts of an entry by their names; the whole entry for each name when it cannot be split as expected."""
    sizes = [expected[name][0] for name in names] if len(names) > 1 and expected.keys() >= set(names) else []
    fits = sizes and value.dim() and sum(sizes) == len(value)
    return zip(names, value.split(sizes) if fits else [value] * len(names), strict=True)


def _joined(parts: Mapping[int, Tensor], expected: torch.Size | None) -> Tensor:
    """One entry from its parts, in the shape expected if only dimensions of size 1 differ."""
    ordered = [parts[place] for place in sorted(parts)]
    alike = len({part.shape[1:] for part in ordered}) == 1 and ordered[0].dim()
    value = torch.cat(ordered) if len(ordered) > 1 and alike else ordered[0]
    if expected is not None and [n for n in value.shape if n != 1] == [n for n in expected if n != 1]:
        return value.reshape(expected)
    return value


def convert(name: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the state dict of an Open-CD network.

    Args:
        name: Registered name of the same network here.
        state_dict: The checkpoint's ``state_dict`` entry.

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
            f"do not fit: {'; '.join(problems[:10])}{'; ...' if len(problems) > 10 else ''}"
        )
    return converted
