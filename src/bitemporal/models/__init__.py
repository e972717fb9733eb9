"""Change networks: one architecture family a file, all behind one contract and one registry."""

from bitemporal import _torchvision

_torchvision.make_importable()

from bitemporal.models import changer, fully_convolutional, tinycd  # noqa: E402  registers the families
from bitemporal.models.base import ChangeModel, ModelCard, ModelOutput, Normalisation  # noqa: E402
from bitemporal.models.registry import create_model, list_models, model_card, register_model  # noqa: E402

__all__ = [
    "ChangeModel",
    "ModelCard",
    "ModelOutput",
    "Normalisation",
    "changer",
    "create_model",
    "fully_convolutional",
    "list_models",
    "model_card",
    "register_model",
    "tinycd",
]
