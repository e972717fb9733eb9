"""Change networks: one architecture family a file, all behind one contract and one registry."""

from bitemporal import _torchvision

_torchvision.make_importable()

from bitemporal.models import (  # noqa: E402  after the remedy; registers the families
    ban,
    bit,
    cgnet,
    changeformer,
    changer,
    changestar,
    fully_convolutional,
    hanet,
    ifn,
    lightcdnet,
    siamese_unet,
    snunet,
    stanet,
    tinycd,
    tinycd_v2,
    ttp,
)
from bitemporal.models.base import ChangeModel, ModelCard, ModelOutput, Normalisation  # noqa: E402  after the remedy
from bitemporal.models.registry import create_model, list_models, model_card, register_model  # noqa: E402  after the remedy

__all__ = [
    "ChangeModel",
    "ModelCard",
    "ModelOutput",
    "Normalisation",
    "ban",
    "bit",
    "cgnet",
    "changeformer",
    "changer",
    "changestar",
    "create_model",
    "fully_convolutional",
    "hanet",
    "ifn",
    "lightcdnet",
    "list_models",
    "model_card",
    "register_model",
    "siamese_unet",
    "snunet",
    "stanet",
    "tinycd",
    "tinycd_v2",
    "ttp",
]
