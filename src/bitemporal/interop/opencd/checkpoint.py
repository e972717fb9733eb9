"""Checkpoint files of Open-CD and MTKD-CD, read without running any code that stands in them.

A file that mmengine saved during training pickles its log too: a class of its own and numpy arrays. Only their names
are let through, as objects that do nothing; whatever else asks for code is refused.
"""

import hashlib
import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from bitemporal.errors import WeightsError
from bitemporal.interop.opencd.conversion import FAMILIES, known_share, misfits, unused_entries
from bitemporal.models import ChangeModel, create_model, model_card

Part = Literal["student", "small", "medium", "large"]

_TEACHERS: dict[str, str] = {"small": "teacher_s.", "medium": "teacher_m.", "large": "teacher_l."}
"""Prefixes of the teachers in a checkpoint of multi-teacher distillation; the student's keys have none."""


class _Inert:
    """What a pickled log becomes: takes any arguments and any state, and does nothing."""

    def __new__(cls, *args: object, **options: object) -> Self:
        return super().__new__(cls)

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


_LOG_NAMES = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",  # of the log's own statistics methods; never called, since it is an _Inert too
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.ndarray",
    "numpy.dtype",
)


@dataclass(frozen=True)
class Checkpoint:
    """What stands in a checkpoint file.

    Attributes:
        path: The file.
        entries: Its state dict, on the CPU, mapped from the file where its format allows.
        beside: Names of what else it holds, such as the state of an optimiser; no weights of the network.
        meta: What it says of itself: short texts and numbers.
    """

    path: Path
    entries: dict[str, Tensor]
    beside: tuple[str, ...] = ()
    meta: dict[str, str | int | float | bool] = field(default_factory=dict)

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """State dicts of the networks in it, in plain names: the student (or the only one), then the teachers."""
        found: dict[str, dict[str, Tensor]] = {"student": {}, **{part: {} for part in _TEACHERS}}
        for key, value in self.entries.items():
            part = next((part for part, prefix in _TEACHERS.items() if key.startswith(prefix)), "student")
            found[part][key.removeprefix(_TEACHERS.get(part, ""))] = value
        return {part: entries for part, entries in found.items() if entries}


@dataclass(frozen=True)
class Imported:
    """A network from a checkpoint.

    Attributes:
        model: In eval mode on the CPU.
        checkpoint: Where it is from.
        entries: Number of entries that were used.
        unused: Keys that were left out because the reference never uses them.
        other_parts: Number of entries of each other network in the file, by part.
        provenance: For the bundle; JSON types only.
    """

    model: ChangeModel
    checkpoint: Checkpoint
    entries: int
    unused: list[str]
    other_parts: dict[str, int]
    provenance: dict[str, Any]


def import_network(path: str | os.PathLike[str], name: str, part: Part = "student") -> Imported:
    """Build a network with the weights of an Open-CD or MTKD-CD checkpoint.

    Args:
        path: The file; a raw state dict, or a dict with one under ``state_dict``.
        name: Registered name of the same network here.
        part: Which network of a distillation checkpoint; a checkpoint of one network is all ``student``.

    Raises:
        UnknownModelError: When no network has that name.
        WeightsError: When the file is no checkpoint, would run code, holds moving averages, lacks the part, or does not
            fit the network; every key that does not fit is listed.
    """
    model_card(name)
    checkpoint = read_checkpoint(path)
    parts = checkpoint.parts()
    if part not in parts:
        raise WeightsError(f"{path}: holds no part {part!r}; found {', '.join(parts)}; take one of them (--part)")
    entries = parts[part]
    converted, problems = misfits(name, entries)
    if problems:
        raise WeightsError(
            f"{path}: its {part} is not Open-CD's {name}; {_hint(name, entries)}. {len(problems)} entries do not fit:"
            + "".join(f"\n  {line}" for line in problems)
        )
    model = create_model(name)
    model.load_state_dict(converted)
    unused = unused_entries(name, entries)
    provenance = {
        "file": checkpoint.path.name,
        "sha256": _sha256(checkpoint.path),
        "bytes": checkpoint.path.stat().st_size,
        "framework": "Open-CD",
        "part": part,
        "meta": checkpoint.meta,
        "unused": unused,
    }
    others = {other: len(content) for other, content in parts.items() if other != part}
    return Imported(model.eval(), checkpoint, len(entries) - len(unused), unused, others, provenance)


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint file without running code from it.

    Args:
        path: A raw state dict, or a dict with one under ``state_dict``, saved by ``torch.save``.

    Raises:
        WeightsError: When the file is no checkpoint, would run code, or holds moving averages.
    """
    path = Path(path)
    content = _load(path)
    beside: tuple[str, ...] = ()
    meta: dict[str, str | int | float | bool] = {}
    if isinstance(content, Mapping) and "state_dict" in content:
        beside = tuple(str(key) for key in content if key != "state_dict")
        said = content.get("meta")
        if isinstance(said, Mapping):
            meta = {str(key): value for key, value in said.items() if _is_short(value)}
        content = content["state_dict"]
    elif isinstance(content, Mapping) and "ema_state_dict" in content:
        raise WeightsError(
            f"{path}: holds moving averages only (ema_state_dict); save them again as {{'state_dict': ...}} with the "
            "prefix 'module.' and the entry 'steps' taken away, if it is them you want"
        )
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(
            f"{path}: holds {type(content).__name__}, expected a state dict, or a dict with one under 'state_dict'"
        )
    strange = [key for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if strange:
        listed = ", ".join(f"{key} ({type(content[key]).__name__})" for key in strange)
        raise WeightsError(
            f"{path}: expected a state dict, names with a tensor each, or a dict with one under 'state_dict'; these "
            f"entries are none: {listed}"
        )
    entries = dict(content)
    _refuse_averages(path, entries)
    if all(key.startswith("module.") for key in entries):  # saved from inside DistributedDataParallel
        entries = {key.removeprefix("module."): value for key, value in entries.items()}
    return Checkpoint(path, entries, beside, meta)


def _refuse_averages(path: Path, entries: Mapping[str, Tensor]) -> None:
    averages = [key for key in entries if key.startswith("ema_")]
    if averages:
        raise WeightsError(
            f"{path}: holds moving averages (EMA) beside the weights, as mmcv 1.x saved them: {len(averages)} entries "
            f"such as {averages[0]}. Which of the two is wanted has to be decided: save the file again with one of "
            "them, under the plain names"
        )
    if "steps" in entries and any(key.startswith("module.") for key in entries):
        raise WeightsError(
            f"{path}: is an averaged model (EMA: entry 'steps', names under 'module.'); if the averages are wanted, "
            "save them again without 'steps' and without the prefix 'module.'"
        )


def _is_short(value: object) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 200)


def _load(path: Path) -> object:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; expected a checkpoint (.pth) of Open-CD or MTKD-CD")
    zipped = zipfile.is_zipfile(path)  # the format since torch 1.6, which can be mapped instead of read
    with torch.serialization.safe_globals([(_Inert, name) for name in _LOG_NAMES]):
        try:
            content: object = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except pickle.UnpicklingError as error:
            names = _asked_for(path, zipped, str(error))
            if names:
                raise WeightsError(
                    f"{path}: refused, because reading it would run code ({', '.join(names)}); weights need none. If "
                    "you trust where it is from, save its weights alone there: "
                    f"torch.save({{'state_dict': torch.load('{path.name}', weights_only=False)['state_dict']}}, "
                    "'weights.pth')"
                ) from error
            raise _no_checkpoint(path) from error
        except Exception as error:  # a damaged pickle can raise anything
            raise _no_checkpoint(path) from error
    return content


def _no_checkpoint(path: Path) -> WeightsError:
    with path.open("rb") as stream:
        start = stream.read(24)
    return WeightsError(
        f"{path}: is no PyTorch checkpoint, or a damaged one ({path.stat().st_size} bytes, beginning {start!r}); "
        "expected a file of torch.save. Fetch it again"
    )


def _asked_for(path: Path, zipped: bool, message: str) -> list[str]:
    """Names of the code that a pickle asks for; found without unpickling anything."""
    if zipped:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    named = re.findall(r"GLOBAL (\S+)", message)
    if named:
        return [str(named[0])]
    names: list[str] = []
    texts: list[str] = []
    with path.open("rb") as stream, suppress(Exception):  # a damaged pickle can raise anything
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in ("GLOBAL", "INST"):
                names.append(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                names.append(".".join(texts[-2:]))
            elif isinstance(argument, str):
                texts.append(argument)
    return names


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _hint(name: str, entries: Mapping[str, Tensor]) -> str:
    best = closest_network(entries)
    if best is None:
        return "no network here has such keys"
    other, wrong = best
    if other == name:
        return "no other network here is nearer"
    if wrong == 0:
        return f"all its entries fit {other}: name that one (--model {other})"
    return f"nearest is {other}, where {wrong} entries do not fit"


def closest_network(entries: Mapping[str, Tensor]) -> tuple[str, int] | None:
    """The registered network that a state dict of Open-CD fits best.

    Args:
        entries: As in the checkpoint's ``state_dict`` entry.

    Returns:
        Its name and the number of entries that do not fit; ``None`` when no network knows half of the keys.
    """
    shares = {family: known_share(name, entries) for name, family in FAMILIES.items()}
    most = max(shares.values())
    if most < 0.5:
        return None
    counts: dict[str, int] = {}
    for name, family in FAMILIES.items():
        if shares[family] == most:
            counts[name] = len(misfits(name, entries)[1])
            if counts[name] == 0:  # the others need not be built
                break
    return min(counts.items(), key=lambda item: item[1])
