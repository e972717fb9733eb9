"""Registry of change networks: plain functions under a decorator, one dict."""

import difflib
import fnmatch
from collections.abc import Callable
from typing import TypeVar

from bitemporal.errors import OptionError, UnknownModelError
from bitemporal.models.base import ChangeModel, ModelCard

_Entry = TypeVar("_Entry", bound=Callable[..., ChangeModel])
_REGISTRY: dict[str, tuple[Callable[..., ChangeModel], ModelCard]] = {}


def register_model(card: ModelCard) -> Callable[[_Entry], _Entry]:
    """Register an entry function ``f(pretrained=False, in_channels=3, **overrides)`` under its own name."""

    def register(entry: _Entry) -> _Entry:
        if entry.__name__ in _REGISTRY:
            raise ValueError(f"a model named {entry.__name__!r} is registered twice")
        _REGISTRY[entry.__name__] = (entry, card)
        return entry

    return register


def list_models(pattern: str = "*") -> list[str]:
    """Names of all registered networks that match a shell pattern, sorted; micro variants are named ``test_*``."""
    return sorted(name for name in _REGISTRY if fnmatch.fnmatchcase(name, pattern))


def _entry(name: str) -> tuple[Callable[..., ChangeModel], ModelCard]:
    if name not in _REGISTRY:
        near = difflib.get_close_matches(str(name).lower().replace("-", "_"), _REGISTRY, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(list_models())}"
        raise UnknownModelError(f"model {name!r} is not registered; {hint}")
    return _REGISTRY[name]


def model_card(name: str) -> ModelCard:
    """Card of a registered network.

    Raises:
        UnknownModelError: When no network has this name; the text gives the nearest names.
    """
    return _entry(name)[1]


def create_model(name: str, pretrained: bool = False, in_channels: int = 3, **overrides: object) -> ChangeModel:
    """Build a registered network.

    Args:
        name: Registered name, see ``list_models``.
        pretrained: Start the encoder from the weights that the card names; they are fetched by timm or
            segmentation-models-pytorch.
        in_channels: Channels of one date.
        **overrides: Arguments of the network's entry function. ``weights``, where a network has this argument, names a
            file to start from; like ``pretrained`` it is not part of the network's ``config``.

    Raises:
        UnknownModelError: When no network has this name; the text gives the nearest names.
        OptionError: When an override is not an argument of the network.
        WeightsError: When pretrained weights do not exist or cannot be fetched.
    """
    entry, card = _entry(name)
    try:
        model = entry(pretrained=pretrained, in_channels=in_channels, **overrides)
    except TypeError as error:
        if overrides and "unexpected keyword" in str(error):
            raise OptionError(f"model {name!r} takes no such option: {error}") from error
        raise
    model.name = name
    model.card = model.card_of(card)
    # the source of the initial weights does not belong to the configuration: a bundle holds its own weights
    model.config = {"in_channels": in_channels} | {key: v for key, v in overrides.items() if key != "weights"}
    return model
