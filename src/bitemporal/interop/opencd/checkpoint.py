"""Checkpoint files of Open-CD and MTKD-CD, read without running any code that they contain.

A file that mmengine saves during training also pickles its log: a class of its own and numpy arrays. Only these names
are accepted, and replaced by objects that do nothing. A file that asks for any other code is refused.
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
from bitemporal.files import not_there
from bitemporal.interop.opencd.conversion import known_share, misfits, unused_entries
from bitemporal.interop.opencd.families import FAMILIES
from bitemporal.models import ChangeModel, create_model, model_card

Part = Literal["student", "small", "medium", "large"]

_TEACHERS: dict[str, str] = {"small": "teacher_s.", "medium": "teacher_m.", "large": "teacher_l."}
"""Prefixes of the teachers in a checkpoint of multi-teacher distillation; the student's keys have none."""


class _Inert:
    """Takes the place of a pickled log: accepts any arguments and any state, and does nothing."""

    def __new__(cls, *args: object, **options: object) -> Self:
        return super().__new__(cls)

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


_LOG_NAMES = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",  # for the log's own statistics methods; never called, because it becomes an _Inert too
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.ndarray",
    "numpy.dtype",
)


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        path: The file.
        entries: Its state dict, on the CPU, mapped from the file if its format allows.
        others: Names of what else it holds, such as the state of an optimiser; no weights of the network.
        meta: Its own description: short texts and numbers.
    """

    path: Path
    entries: dict[str, Tensor]
    others: tuple[str, ...] = ()
    meta: dict[str, str | int | float | bool] = field(default_factory=dict)

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """State dicts of its networks under their plain names: the student (or the only network), then the teachers."""
        networks: dict[str, dict[str, Tensor]] = {"student": {}, **{part: {} for part in _TEACHERS}}
        for key, value in self.entries.items():
            part = next((part for part, prefix in _TEACHERS.items() if key.startswith(prefix)), "student")
            networks[part][key.removeprefix(_TEACHERS.get(part, ""))] = value
        return {part: entries for part, entries in networks.items() if entries}


@dataclass(frozen=True)
class Imported:
    """A network from a checkpoint.

    Attributes:
        model: The network, in eval mode on the CPU.
        checkpoint: The file that it comes from.
        entries: Number of entries that were used.
        unused: Keys that were left out because the reference never uses them.
        other_parts: Number of entries of each other network in the file, by part.
        provenance: Description of the file for the bundle; JSON types only.
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
        part: Network to take from a distillation checkpoint; in a checkpoint of one network it is ``student``.

    Raises:
        UnknownModelError: When no network has that name.
        WeightsError: When the file is not a checkpoint, would run code, holds moving averages, lacks the part, or does
            not fit the network. Every key that does not fit is listed.
    """
    model_card(name)
    checkpoint = read_checkpoint(path)
    parts = checkpoint.parts()
    if part not in parts:
        raise WeightsError(f"{path}: holds no part {part!r}; found {', '.join(parts)}; choose one of them (--part)")
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
        WeightsError: When the file is not a checkpoint, would run code, or holds moving averages.
    """
    path = Path(path)
    content = _load(path)
    others: tuple[str, ...] = ()
    meta: dict[str, str | int | float | bool] = {}
    if isinstance(content, Mapping) and "state_dict" in content:
        others = tuple(str(key) for key in content if key != "state_dict")
        said = content.get("meta")
        if isinstance(said, Mapping):
            meta = {str(key): value for key, value in said.items() if _is_short(value)}
        content = content["state_dict"]
    elif isinstance(content, Mapping) and "ema_state_dict" in content:
        raise WeightsError(
            f"{path}: holds only moving averages (ema_state_dict). To use them, save them again as "
            "{'state_dict': ...}, without the prefix 'module.' and the entry 'steps'"
        )
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(
            f"{path}: holds {type(content).__name__}, expected a state dict, or a dict with one under 'state_dict'"
        )
    wrong = [key for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if wrong:
        listed = ", ".join(f"{key} ({type(content[key]).__name__})" for key in wrong)
        raise WeightsError(
            f"{path}: expected a state dict (names and tensors), or a dict with one under 'state_dict'; these entries "
            f"are not tensors: {listed}. Save the state dict alone"
        )
    entries = dict(content)
    _refuse_averages(path, entries)
    if all(key.startswith("module.") for key in entries):  # saved from inside DistributedDataParallel
        entries = {key.removeprefix("module."): value for key, value in entries.items()}
    return Checkpoint(path, entries, others, meta)


def _refuse_averages(path: Path, entries: Mapping[str, Tensor]) -> None:
    averages = [key for key in entries if key.startswith("ema_")]
    if averages:
        raise WeightsError(
            f"{path}: holds moving averages (EMA) as well as the weights, as mmcv 1.x saves them: {len(averages)} "
            f"entries such as {averages[0]}. Choose one of the two: save the file again with it alone, under the plain "
            "names"
        )
    if "steps" in entries and any(key.startswith("module.") for key in entries):
        raise WeightsError(
            f"{path}: is an averaged model (EMA: entry 'steps', names under 'module.'). To use the averages, save them "
            "again without 'steps' and without the prefix 'module.'"
        )


def _is_short(value: object) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 200)


def _load(path: Path) -> object:
    if not path.is_file():
        raise WeightsError(f"{not_there(path, 'file')}; expected a checkpoint (.pth, .pt, .ckpt, .safetensors)")
    zipped = zipfile.is_zipfile(path)  # the format since torch 1.6, which can be mapped instead of read
    with torch.serialization.safe_globals([(_Inert, name) for name in _LOG_NAMES]):
        try:
            content: object = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except pickle.UnpicklingError as error:
            names = _code_names(path, zipped, str(error))
            if names:
                raise WeightsError(
                    f"{path}: refused, because reading it would run code ({', '.join(names)}); weights need none. If "
                    "you trust its source, save its weights alone there: "
                    f"torch.save({{'state_dict': torch.load('{path.name}', weights_only=False)['state_dict']}}, "
                    "'weights.pth')"
                ) from error
            raise _not_a_checkpoint(path) from error
        except Exception as error:  # a damaged pickle can raise anything
            raise _not_a_checkpoint(path) from error
    return content


def _not_a_checkpoint(path: Path) -> WeightsError:
    with path.open("rb") as stream:
        start = stream.read(24)
    return WeightsError(
        f"{path}: is not a PyTorch checkpoint, or is damaged ({path.stat().st_size} bytes, starting with {start!r}); "
        "expected a file written by torch.save. Fetch it again"
    )


def _code_names(path: Path, zipped: bool, message: str) -> list[str]:
    """Names of the code that a pickle would run, found without unpickling anything."""
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
        return "no other network here fits better"
    if wrong == 0:
        return f"all its entries fit {other}: use that one (--model {other})"
    return f"the nearest is {other}, where {wrong} entries do not fit"


def closest_network(entries: Mapping[str, Tensor]) -> tuple[str, int] | None:
    """The registered network that a state dict of Open-CD fits best.

    Args:
        entries: The checkpoint's ``state_dict`` entry.

    Returns:
        Its name and the number of entries that do not fit; ``None`` when no network knows half of the keys.
    """
    shares = {name: known_share(name, entries) for name in FAMILIES}
    most = max(shares.values())
    if most < 0.5:
        return None
    counts: dict[str, int] = {}
    for name, share in shares.items():
        if share == most:
            counts[name] = len(misfits(name, entries)[1])
            if counts[name] == 0:  # the others need not be built
                break
    return min(counts.items(), key=lambda item: item[1])
