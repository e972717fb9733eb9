"""Registry of change networks: one dict from names to cards and constructors."""

import difflib
import fnmatch
import importlib
import inspect
import pkgutil
import reprlib
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from bitemporal.errors import OptionError, UnknownModelError, WeightsError
from bitemporal.models.card import ModelCard
from bitemporal.own_networks import as_imported, import_entry_points, import_named_modules, names_modules
from bitemporal.reading import reading

if TYPE_CHECKING:
    from bitemporal.models.base import ChangeModel


class _Entry(NamedTuple):
    card: ModelCard
    build: "Callable[..., ChangeModel]"
    options: tuple[str, ...]


_Function = TypeVar("_Function", bound="Callable[..., ChangeModel]")

_OF_EVERY_NETWORK = ("in_channels", "pretrained", "reference_losses")

_REGISTRY: dict[str, _Entry] = {}


def register(name: str, card: ModelCard, build: "Callable[..., ChangeModel]", options: Sequence[str] = ()) -> None:
    """Register a network by its class; ``register_model`` registers a function.

    Args:
        name: Name for ``create_model``; names of micro variants for tests begin with ``test_``.
        card: What is known about it. A network whose card has no licence of weights (``none``) has no weights.
        build: Its class, or a ``partial`` of it. It is called with ``in_channels``, with the chosen options, and, for
            pretrained weights, with ``pretrained=True``.
        options: Names of the other arguments that a user may choose.

    Raises:
        ValueError: When the name is registered already.
    """
    if name in _REGISTRY:
        raise ValueError(f"a model named {name!r} is registered twice")
    _REGISTRY[name] = _Entry(card, build, tuple(options))


def register_model(card: ModelCard) -> Callable[[_Function], _Function]:
    """Register the decorated function ``f(in_channels=3, ...)``, which builds a network, under its own name.

    A user may choose all its other arguments. A network with pretrained weights also takes ``pretrained=False``.

    Args:
        card: What is known about the network, see ``register``.

    Raises:
        ValueError: When the name is registered already.
    """

    def decorate(function: _Function) -> _Function:
        options = [name for name in inspect.signature(function).parameters if name not in _OF_EVERY_NETWORK]
        register(function.__name__, card, function, options)
        return function

    return decorate


_loading = False
_lock = threading.RLock()  # another thread waits; a module that registers networks may ask for others


def is_loaded() -> bool:
    """Whether the networks have been imported, or have to be, because there are others than those of this package."""
    return _loading or names_modules()


def load_networks() -> None:
    """Import all modules that register networks, once: this package's, those of other packages, and the user's own."""
    global _loading
    with _lock:
        if _loading:
            return
        _loading = True
        try:
            for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
                importlib.import_module(f"bitemporal.models.{module.name}")
            import_entry_points()
            import_named_modules()
        except BaseException:
            _loading = False
            raise


def list_models(pattern: str = "*") -> list[str]:
    """Names of all registered networks that match a shell pattern, sorted; micro variants are named ``test_*``."""
    load_networks()
    return sorted(name for name in _REGISTRY if fnmatch.fnmatchcase(name, pattern))


def unknown_model(name: str, known: Collection[str]) -> UnknownModelError:
    """The error for a name that no network has."""
    near = difflib.get_close_matches(str(name).lower().replace("-", "_"), known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "`bitemporal models` lists all."
    return UnknownModelError(
        f"model {name!r} is not registered; {hint} A network of your own is registered by its module: "
        "--import my_module (BITEMPORAL_IMPORT=my_module in Python)"
    )


def registering_module(name: str) -> str:
    """What ``--import`` takes for the module that registers a network: its name, or its file.

    It is empty for the networks of this package, and for those of scripts.

    Raises:
        UnknownModelError: When no network has this name.
    """
    _, build, _ = _entry(name)
    module = str(getattr(build, "func", build).__module__)  # of a partial's function
    return "" if module.split(".")[0] in ("bitemporal", "__main__") else as_imported(module)


def _entry(name: str) -> _Entry:
    load_networks()
    if name not in _REGISTRY:
        raise unknown_model(name, _REGISTRY)
    return _REGISTRY[name]


def model_card(name: str) -> ModelCard:
    """Card of a registered network.

    Raises:
        UnknownModelError: When no network has this name; the text gives the nearest names.
    """
    return _entry(name).card


def create_model(
    name: str, pretrained: bool = False, in_channels: int = 3, reference_losses: bool = False, **options: object
) -> "ChangeModel":
    """Build a registered network.

    Args:
        name: Registered name, see ``list_models``.
        pretrained: Start the encoder from the weights that the card names; they are fetched by timm or
            segmentation-models-pytorch.
        in_channels: Channels of one date, as many as the images have bands. Pretrained weights are for three; timm and
            segmentation-models-pytorch repeat their filters for further channels.
        reference_losses: Compute the losses exactly as the reference (Open-CD) does, including its mistakes; the
            published numbers come from them. They are averaged over ignored pixels too.
        **options: The network's own options. ``weights``, where a network has this option, names a file to start from;
            like ``pretrained`` it is not part of the network's ``config``.

    Raises:
        UnknownModelError: When no network has this name; the text gives the nearest names.
        OptionError: When the network has no such option, or there is no channel.
        WeightsError: When pretrained weights do not exist or cannot be fetched.
    """
    card, build, known = _entry(name)
    if unknown := sorted(options.keys() - set(known)):
        expected = ", ".join(("reference_losses", *known))
        raise OptionError(f"model {name!r} takes no such option: {', '.join(unknown)}; expected {expected}")
    if in_channels < 1:
        raise OptionError(f"in_channels: found {in_channels}, expected 1 or more; 3 for red, green and blue")
    if pretrained and card.licence == "none":
        raise WeightsError(
            f"{name} has no pretrained weights to fetch. Start without them (pretrained=False; leave --pretrained "
            "out), or load a bundle or a checkpoint of the whole network, which hold its weights"
        )
    # networks without weights do not have this argument
    weights = {"pretrained": True} if pretrained else {}
    if options:  # of a recipe, a bundle or the command line: values of any kind
        with reading(f"model {name!r}", OptionError, f"its options {reprlib.repr(options)} are unusable; correct them"):
            model = build(in_channels=in_channels, **weights, **options)
    else:
        model = build(in_channels=in_channels, **weights)
    model.name = name
    card = model.card_of(card)
    model.card = replace(card, normalisation=card.normalisation.of_channels(in_channels))
    model.reference_losses = reference_losses
    # the source of the initial weights does not belong to the configuration: a bundle holds its own weights
    model.config = {"in_channels": in_channels} | {key: value for key, value in options.items() if key != "weights"}
    if reference_losses:
        model.config = {**model.config, "reference_losses": True}
    return model
