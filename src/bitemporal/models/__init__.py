"""Change networks: one architecture family a file, all behind one contract and one registry."""

import importlib
import pkgutil

from bitemporal import _torchvision as _torchvision  # before timm, which imports torchvision
from bitemporal.models.base import ChangeModel, ModelCard, ModelOutput, Normalisation
from bitemporal.models.registry import create_model, list_models, model_card, register_model

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

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")  # a family registers its networks
