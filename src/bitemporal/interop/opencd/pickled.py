"""Content of files of ``torch.save`` with every class and function in them replaced by one that does nothing.

No code that a file names is imported or run. What is left of a network that was pickled whole are its tensors.
"""

import pickle
import pickletools
import re
import threading
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from bitemporal.imagery.quiet import ignore_warnings

_one_at_a_time = threading.Lock()


class Inert:
    """Takes the place of a class or function: accepts any arguments, keeps its state, and does nothing."""

    dump_patches = False  # torch asks the classes of old files

    def __new__(cls, *args: object, **options: object) -> Self:
        """Take anything."""
        return super().__new__(cls)

    def __init__(self, *args: object, **options: object) -> None:
        """Take anything, and forget it."""
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        """Keep the state."""
        self.state = state


def load_inert(path: Path, names: list[str]) -> object:
    """Read a file of ``torch.save``.

    Args:
        path: The file.
        names: Full names of classes and functions to replace; all others are refused.

    Raises:
        pickle.UnpicklingError: When the file asks for another one.
        Exception: Of any kind, when it is damaged.
    """
    zipped = zipfile.is_zipfile(path)  # the format since torch 1.6, which can be mapped instead of read
    replaced: list[Any] = [(type(name.rpartition(".")[2], (Inert,), {}), name) for name in names]
    # the source of a class in an old file cannot be compared
    ignore_warnings(torch.serialization.SourceChangeWarning)
    with _one_at_a_time, torch.serialization.safe_globals(replaced):  # which holds for all threads
        content: object = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    return content


def outline(path: Path, names: list[str]) -> object:
    """Read a file with all that it names replaced; ``None`` where it is no file of ``torch.save``."""
    names = list(names)
    while True:
        try:
            return load_inert(path, names)
        except pickle.UnpicklingError as error:
            more = [name for name in code_names(path, str(error)) if name not in names]
            if not more:
                return None
            names += more
        except Exception:  # a damaged pickle can raise anything
            return None


def code_names(path: Path, message: str) -> list[str]:
    """Names of the code that a pickle would run, found without unpickling anything."""
    if zipfile.is_zipfile(path):
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


def saving_weights(path: Path, holders: Sequence[str]) -> str:
    """Python that saves the weights of a file alone, where its code can be run.

    Args:
        path: The file.
        holders: Keys that a state dict or a network may have in it, the likeliest first.
    """
    opcodes = _content_of(path)
    begin = [
        (name, argument) for name, argument in opcodes if name not in ("PROTO", "FRAME", "BINPUT", "MEMOIZE", "MARK")
    ]
    if not begin:
        return "torch.save(network.state_dict(), 'weights.pth')"
    texts = {argument for _, argument in opcodes}
    whole = ".state_dict()" if any(str(text).startswith(("torch.nn.modules", "module")) for text in texts) else ""
    loaded = f"torch.load({str(path)!r}, map_location='cpu', weights_only=False)"
    if begin[0] not in (("EMPTY_DICT", None), ("GLOBAL", "collections OrderedDict")):
        return f"torch.save({loaded}.state_dict(), 'weights.pth')"
    if held := next((key for key in holders if key in texts), ""):
        return f"torch.save({loaded}[{held!r}]{whole}, 'weights.pth')"
    return f"torch.save({{k: v for k, v in {loaded}.items() if isinstance(v, torch.Tensor)}}, 'weights.pth')"


def _content_of(path: Path) -> list[tuple[str, object]]:
    """Opcodes and arguments of the pickle that ``torch.save`` made of the content; none where it is another file."""
    found: list[list[tuple[str, object]]] = []
    with suppress(Exception):  # a damaged pickle can raise anything
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                return [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(archive.read(name))]
        with path.open("rb") as stream:
            for _ in range(4):  # torch before 1.6: two numbers, facts of the machine, the content
                found.append([(opcode.name, argument) for opcode, argument, _ in pickletools.genops(stream)])
    return found[3] if len(found) == 4 else []


def tensors_of(content: object) -> dict[str, Tensor] | None:
    """State dict of a network that was pickled whole, or ``None`` where the content is not one."""
    if not isinstance(content, Inert) or not isinstance(content.state, Mapping):
        return None
    state: Mapping[str, Any] = content.state
    if not all(isinstance(state.get(name), Mapping) for name in ("_parameters", "_buffers", "_modules")):
        return None
    own = {**state["_parameters"], **state["_buffers"]}
    tensors = {str(name): value.detach() for name, value in own.items() if isinstance(value, Tensor)}
    for name, module in state["_modules"].items():
        tensors |= {f"{name}.{key}": value for key, value in (tensors_of(module) or {}).items()}
    return tensors
