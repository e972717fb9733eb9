"""Checkpoint files of Open-CD, MTKD-CD and other projects, read without running any code that they contain.

A file that mmengine saves during training also pickles its log: a class of its own and numpy arrays. These names are
replaced by objects that do nothing, and so are the classes of a network that was pickled whole, of which the tensors
are left. A file that asks for any other code is refused.
"""

import math
import os
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file
from torch import Tensor

from bitemporal.errors import WeightsError
from bitemporal.files import not_there, sha256
from bitemporal.interop.opencd.conversion import known_share, misfits, unused_entries
from bitemporal.interop.opencd.families import FAMILIES
from bitemporal.interop.opencd.pickled import code_names, load_inert, outline, saving_weights, tensors_of
from bitemporal.interop.opencd.projects import Recognised, in_opencd_names, recognise
from bitemporal.models import ChangeModel, create_model, model_card
from bitemporal.models.facts import all_facts
from bitemporal.models.finite import check_finite
from bitemporal.reading import check_zip, reading

Part = Literal["student", "small", "medium", "large"]

_TEACHERS: dict[str, str] = {"small": "teacher_s.", "medium": "teacher_m.", "large": "teacher_l."}
"""Prefixes of the teachers in a checkpoint of multi-teacher distillation; the student's keys have none."""


_LOG_NAMES = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",  # for the log's own statistics methods; never called, because it becomes inert too
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.ndarray",
    "numpy.dtype",
)


_AVERAGES = ("ema_state_dict", "state_dict_ema", "model_ema")

_HOLDERS = (
    "state_dict",
    "model_state_dict",
    "model_G_state_dict",
    "net_G_state_dict",
    "netG",
    "net_G",
    "model",
    "net",
    "network",
    "params",
    "weights",
    *_AVERAGES,
)
"""Where trainers keep the state dict, or the network, in a checkpoint; weights before their moving averages."""

_WRAPPERS = ("module.", "model.", "net.", "network.", "netG.", "net_G.", "_orig_mod.")
"""Prefixes of DataParallel, Lightning modules and compiled networks."""

_AVERAGED = ("ema.", "ema_model.", "model_ema.", "averaged_model.")
"""Prefixes of moving averages."""

_COUNTERS = ("steps", "n_averaged", "initted", "step")
"""Entries in which averaged models count."""

_NO_WEIGHTS = ("criterion", "loss", "metric", "train_", "val_", "valid_", "test_")
"""How the entries of a Lightning module begin that belong to losses and metrics."""

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")

_SHOWN = 10
"""So many names are shown at most."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        path: The file.
        entries: Its state dict, on the CPU, mapped from the file if its format allows, without the prefixes of
            wrappers.
        others: Names of what else it holds, such as the state of an optimiser; no weights of the network.
        meta: Its own description: short texts and numbers.
        held: Where in the file the state dict was found; empty where it is all that there is.
        averaged: The entries are moving averages of the weights.
    """

    path: Path
    entries: dict[str, Tensor]
    others: tuple[str, ...] = ()
    meta: dict[str, str | int | float | bool] = field(default_factory=dict)
    held: str = ""
    averaged: bool = False

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
    """Build a network with the weights of a checkpoint.

    Args:
        path: The file: a state dict, a whole network, or a dict with one of them under a usual name; or safetensors.
        name: Registered name of the same network here.
        part: Network to take from a distillation checkpoint; in a checkpoint of one network it is ``student``.

    Raises:
        UnknownModelError: When no network has that name.
        WeightsError: When the file is not a checkpoint, would run code, lacks the part, is of a network of another
            project that is not here, does not fit the network, or holds NaN or infinity. Keys that do
            not fit are listed, ten at most.
    """
    model_card(name)
    checkpoint = read_checkpoint(path)
    parts = checkpoint.parts()
    if part not in parts:
        choices = " or ".join(f"--part {found}" for found in parts)
        raise WeightsError(f"{path}: holds no part {part!r}; found {', '.join(parts)}; choose {choices}")
    entries = parts[part]
    model = create_model(name)
    known = recognise(entries)
    framework, unused = "Open-CD", list[str]()
    if _shapes(entries) == _shapes(model.state_dict()):
        framework, converted = "bitemporal", entries
    else:
        if known is not None:
            entries = _of_project(path, checkpoint, known, name, entries)
            framework = known.title
        if name not in FAMILIES or _is_own(entries, model):
            raise _not_own(path, part, name, entries, model)
        converted, problems = misfits(name, entries)
        if problems:
            raise WeightsError(
                f"{path}: its {part} is not Open-CD's {name}; {_hint(name, entries)}. {len(problems)} entries do not "
                "fit:" + "".join(f"\n  {line}" for line in _first(problems))
            )
        unused = unused_entries(name, entries)
    with reading(checkpoint.path, WeightsError, "expected finite weights: take a checkpoint of an earlier step"):
        check_finite(converted)
    model.load_state_dict(converted)
    if known is not None and known.normalisation is not None:
        model.card = replace(model.card, normalisation=known.normalisation)
    provenance = {
        "file": checkpoint.path.name,
        "sha256": sha256(checkpoint.path),
        "bytes": checkpoint.path.stat().st_size,
        "framework": framework,
        "part": part,
        "meta": checkpoint.meta,
        "unused": unused,
        "averaged": checkpoint.averaged,
    }
    others = {other: len(content) for other, content in parts.items() if other != part}
    return Imported(model.eval(), checkpoint, len(entries) - len(unused), unused, others, provenance)


def _shapes(entries: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in entries.items()}


def _is_own(entries: Mapping[str, Tensor], model: ChangeModel) -> bool:
    """Whether most entries have this project's own names of a network."""
    return 2 * len(entries.keys() & model.state_dict().keys()) >= len(entries)


def _not_own(
    path: str | os.PathLike[str], part: Part, name: str, entries: Mapping[str, Tensor], model: ChangeModel
) -> WeightsError:
    """The error for entries that are not this project's own of a network, which alone could be read."""
    found, expected = _shapes(entries), _shapes(model.state_dict())
    problems = [
        *(
            f"{key} is {found[key]}, expected {shape}"
            for key, shape in expected.items()
            if found.get(key, shape) != shape
        ),
        *(f"missing: {key}" for key in expected if key not in found),
        *(f"not in the network: {key}" for key in found if key not in expected),
    ]
    if other := _own_network(found):
        remedy = f"all its entries fit {other}: use that one (--model {other})"
    elif _is_own(entries, model):
        remedy = f"it is a {name} of other options, such as channels; use the bundle that its training wrote"
    else:
        remedy = f"no Open-CD checkpoint can be read for {name!r}, only weights of bitemporal"
    return WeightsError(
        f"{path}: its {part} is not {name} as it is here; {remedy}. {len(problems)} entries do not fit:"
        + "".join(f"\n  {line}" for line in _first(problems))
    )


def _own_network(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The network here that has these entries, under these names and of these shapes."""
    size = sum(math.prod(shape) for key, shape in shapes.items() if not key.endswith(_BUFFERS))
    alike = (facts.name for facts in all_facts() if facts.measured and facts.measured.parameters == size)
    return next((name for name in alike if _shapes(create_model(name).state_dict()) == shapes), None)


def _of_project(
    path: str | os.PathLike[str], checkpoint: Checkpoint, known: Recognised, name: str, entries: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Entries of another project's network in Open-CD's names.

    Raises:
        WeightsError: When it is another network than the one here, in whatever it differs.
    """
    held = f" (under {checkpoint.held!r})" if checkpoint.held else ""
    if not known.nearest:
        raise WeightsError(
            f"{path}: holds {known.title}{held}, expected one of the networks that `bitemporal models` lists"
        )
    if known.differs:
        raise WeightsError(
            f"{path}: holds {known.title}{held}; it differs from {known.nearest} in {known.differs}, so that its "
            f"weights cannot be used here. Train {known.nearest} instead (--model {known.nearest})"
        )
    if name != known.nearest:
        raise WeightsError(f"{path}: holds {known.title}{held}, not {name}: use --model {known.nearest}")
    return in_opencd_names(entries)


def _first(lines: Iterable[str]) -> list[str]:
    """At most ten lines, and how many more there are."""
    lines = list(lines)
    return lines if len(lines) <= _SHOWN else [*lines[: _SHOWN - 1], f"... and {len(lines) - _SHOWN + 1} more"]


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint file without running code from it.

    Args:
        path: A state dict, a whole network, or a dict with one of them under a usual name (``state_dict``,
            ``model_G_state_dict``, ``model``, ...), saved by ``torch.save``; or a safetensors file.

    Raises:
        WeightsError: When the file is not a checkpoint, would run code, or holds moving averages besides the weights
            under names that do not tell which are which.
    """
    path = Path(path)
    content = _load(path)
    others: tuple[str, ...] = ()
    meta: dict[str, str | int | float | bool] = {}
    held = ""
    if isinstance(content, Mapping):
        held = next((key for key in _HOLDERS if _holds_weights(content.get(key))), "")
    if held and isinstance(content, Mapping):
        others = tuple(str(key) for key in content if key != held)
        said = content.get("meta")
        if isinstance(said, Mapping):
            meta = {str(key): value for key, value in said.items() if _is_short(value)}
        content = content[held]
    network = tensors_of(content)
    content = content if network is None else network
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(
            f"{path}: holds {type(content).__name__}, expected a state dict, or a dict with one under 'state_dict'"
        )
    wrong = [key for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if wrong:
        listed = ", ".join(_first(f"{key} ({type(content[key]).__name__})" for key in wrong))
        if _is_of_optimiser(content):
            raise WeightsError(
                f"{path}: holds the state of an optimiser but no weights of a network ({listed}); give the file in "
                "which its trainer keeps the network"
            )
        raise WeightsError(
            f"{path}: expected a state dict (names and tensors), or a dict with one under 'state_dict'; these entries "
            f"are not tensors: {listed}. Save the state dict alone, where the network was made: "
            "torch.save(network.state_dict(), 'weights.pth')"
        )
    entries, averaged, left = _unwrapped(path, dict(content))
    return Checkpoint(path, entries, (*others, *left), meta, held, averaged or held in _AVERAGES)


def _is_of_optimiser(content: Mapping[Any, Any]) -> bool:
    """Whether a file without weights holds an optimiser, alone or under a name."""
    held = (content, *(one for value in content.values() for one in (value if isinstance(value, list) else [value])))
    return any(isinstance(one, Mapping) and {"state", "param_groups"} <= one.keys() for one in held)


def _holds_weights(value: object) -> bool:
    is_state = isinstance(value, Mapping) and any(isinstance(entry, Tensor) for entry in value.values())
    return is_state or bool(tensors_of(value))


def _unwrapped(path: Path, entries: dict[str, Tensor]) -> tuple[dict[str, Tensor], bool, list[str]]:
    """Entries without the prefixes of wrappers, whether they are moving averages, and the names of what is left out."""
    mixed = [key for key in entries if key.startswith("ema_") and not key.startswith(_AVERAGED)]
    if mixed:
        raise WeightsError(
            f"{path}: holds moving averages (EMA) as well as the weights, as mmcv 1.x saves them: {len(mixed)} "
            f"entries such as {mixed[0]}, under names that do not tell which are which. Choose one of the two: save "
            "the file again with it alone, under the plain names"
        )
    left: list[str] = []
    averaged = False
    averages = {key for key in entries if key.startswith(_AVERAGED)}
    if averages and len(averages) < len(set(entries) - {*_COUNTERS}):
        left.append(f"{len(averages)} moving averages such as {min(averages)}")
        entries = {key: value for key, value in entries.items() if key not in averages}
    while True:
        counters = {key for key in entries if key in _COUNTERS}
        names = [key for key in entries if key not in counters]
        weights = [key for key in names if not key.startswith(_NO_WEIGHTS)]
        prefix = next((p for p in (*_WRAPPERS, *_AVERAGED) if weights and all(k.startswith(p) for k in weights)), "")
        if not prefix:
            return entries, averaged, left
        averaged |= prefix in _AVERAGED or bool(counters)
        left += _first(key for key in names if not key.startswith(prefix))
        entries = {key.removeprefix(prefix): entries[key] for key in weights}


def _is_short(value: object) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 200)


def _load(path: Path) -> object:
    if not path.is_file():
        raise WeightsError(f"{not_there(path, 'file')}; expected a checkpoint (.pth, .pt, .ckpt, .safetensors)")
    if path.suffix == ".safetensors" or _begins_as_safetensors(path):
        with reading(path, WeightsError, "it is not a safetensors file, or is damaged. Download it again"):
            return load_file(path)
    with reading(path, WeightsError, "it is damaged. Download it again"):
        check_zip(path)
    try:
        return load_inert(path, list(_LOG_NAMES))
    except pickle.UnpicklingError as error:
        names = code_names(path, str(error))
        if not names:
            raise _not_a_checkpoint(path) from error
        content = outline(path, [*_LOG_NAMES, *names])
        within = content.values() if isinstance(content, Mapping) else ()
        if any(tensors_of(value) for value in (content, *within)):
            return content  # a network that was pickled whole: its tensors need no code
        raise WeightsError(
            f"{path}: refused, because reading it would run code ({', '.join(_first(names))}); weights need none. If "
            f"you trust its source, save its weights alone there: {saving_weights(path, _HOLDERS)}"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise _not_a_checkpoint(path) from error


def _begins_as_safetensors(path: Path) -> bool:
    """Whether a file begins with the length of a header in JSON, and the header."""
    with path.open("rb") as stream:
        start = stream.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _not_a_checkpoint(path: Path) -> WeightsError:
    with path.open("rb") as stream:
        start = stream.read(24)
    return WeightsError(
        f"{path}: is not a PyTorch checkpoint, or is damaged ({path.stat().st_size} bytes, starting with {start!r}); "
        "expected a file written by torch.save. Download it again"
    )


def _hint(name: str, entries: Mapping[str, Tensor]) -> str:
    if own := _own_network(_shapes(entries)):
        return f"all its entries fit {own}: use that one (--model {own})"
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
