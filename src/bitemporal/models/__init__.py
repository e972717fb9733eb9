"""Change networks: one architecture family a file, all behind one contract and one registry."""

from bitemporal import _torchvision as _torchvision  # before timm, which imports torchvision
from bitemporal.models import (  # registers the families
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
from bitemporal.models.base import ChangeModel, ModelCard, ModelOutput, Normalisation
from bitemporal.models.registry import create_model, list_models, model_card, register_model

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
