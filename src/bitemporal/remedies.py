"""Words of remedies, as they are typed in a shell: what an error says to type can be pasted."""

import itertools
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

import yaml


def as_typed(path: str | os.PathLike[str]) -> str:
    """A path, quoted where a shell needs it; one that begins with a dash would be an option, and gets ``./``."""
    text = os.fspath(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def free_name(path: str | os.PathLike[str]) -> Path:
    """A name for something new: the given one, or, where something has it, the first of NAME-2, NAME-3, ..."""
    given = Path(path)
    if given.name in ("", ".."):  # the current folder, or one above it
        given = Path(os.path.abspath(given))
    if not given.name:  # the root of the file system
        given = Path("out")
    numbered = (given.with_name(f"{given.stem}-{number}{given.suffix}") for number in itertools.count(2))
    return next(name for name in itertools.chain([given], numbered) if not os.path.lexists(name))


def as_option(name: str, value: object) -> str:
    """A field and its value as an option; a value that is true is an option alone."""
    option = f"--{name.rstrip('_').replace('_', '-')}"
    if value is True:
        return option
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    elif isinstance(value, Mapping):
        value = yaml.safe_dump(dict(value), default_flow_style=True, width=float("inf")).strip()
    typed = shlex.quote(str(value))
    # a value that begins with a dash, and is no number, would be taken for an option
    is_dashed = typed.startswith("-") and not typed[1:2].isdigit() and not typed.startswith(("-.", "-inf"))
    return f"{option}={typed}" if is_dashed else f"{option} {typed}"


def as_options(values: Mapping[str, object]) -> str:
    """Fields and their values as options: ``--crop-size 32 --lr 0.1 and without --pretrained``.

    Args:
        values: By name; ``None``, ``False`` and what is empty stand for an option that is not given.
    """
    given = {name: value for name, value in values.items() if value not in (None, {}, [], ()) and value is not False}
    parts = [" ".join(as_option(name, value) for name, value in given.items())]
    if left_out := [as_option(name, True) for name in values if name not in given]:
        parts.append(f"without {' '.join(left_out)}")
    return " and ".join(filter(None, parts))
