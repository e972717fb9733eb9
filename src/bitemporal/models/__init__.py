"""Change networks: one architecture family a file, all behind one contract and one registry."""

from typing import TYPE_CHECKING

from bitemporal._lazy import on_first_use

if TYPE_CHECKING:
    from bitemporal.models.base import ChangeModel, ModelOutput
    from bitemporal.models.card import ModelCard, Normalisation
    from bitemporal.models.registry import create_model, list_models, model_card, register_model

_NAMES = {
    "base": ("ChangeModel", "ModelOutput"),
    "card": ("ModelCard", "Normalisation"),
    "registry": ("create_model", "list_models", "model_card", "register_model"),
}

__all__ = [
    "ChangeModel",
    "ModelCard",
    "ModelOutput",
    "Normalisation",
    "create_model",
    "list_models",
    "model_card",
    "register_model",
]

__getattr__, __dir__ = on_first_use(__name__, _NAMES)
