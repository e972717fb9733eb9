"""U-Net with a shared encoder for both dates: any encoder of timm or segmentation-models-pytorch.

Isaac Corley, Caleb Robinson, Anthony Ortiz: A Change Detection Reality Check, ICLR 2024 workshop Machine Learning for
Remote Sensing, https://arxiv.org/abs/2402.06994, where it is on a par with networks made for change detection. Not in
Open-CD. The decoder is that of segmentation-models-pytorch (MIT); weights have the licences of their encoders.
"""

from bitemporal import _torchvision as _torchvision  # isort: skip  (before timm, which imports torchvision)

from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import torch
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn

from bitemporal.errors import OptionError
from bitemporal.models.any_encoder import WeightsFile, accepted_sizes, any_encoder
from bitemporal.models.base import ChangeModel, ModelCard, ModelOutput, TrainingDefaults
from bitemporal.models.layers import both_dates, has_batch_norm, split_dates
from bitemporal.models.registry import register

Fusion = Literal["difference", "concatenation", "both"]

_DATES: dict[Fusion, int] = {"difference": 1, "concatenation": 2, "both": 3}
"""How many times the channels of one date the fused features have."""


class SiameseUNet(ChangeModel):
    """Shared encoder, fusion of both dates at every level, U-Net decoder; two logits at full size."""

    def __init__(
        self,
        encoder: str = "resnet18",
        fusion: Fusion = "difference",
        pretrained: bool = False,
        weights: WeightsFile | None = None,
        in_channels: int = 3,
        width: int = 16,
        finest: int | None = None,
    ) -> None:
        """Build the network.

        Args:
            encoder: Name in timm, or where timm has none of that name, in segmentation-models-pytorch.
            fusion: What the decoder gets of both dates: the absolute ``difference`` of their features, their
                ``concatenation``, or ``both``.
            pretrained: Fetch the encoder's weights.
            weights: File with the encoder's weights, instead: safetensors, or of ``torch.save`` with nothing but
                tensors; in the names of its library, or, for timm, the same entries in the same order.
            in_channels: Channels of one date.
            width: Channels of the decoder at full size; every coarser level has twice as many, up to 16 times.
            finest: Number of the encoder's levels to use, from the finest; all by default.

        Raises:
            OptionError: When neither library has the encoder, it does not suit, or the fusion is unknown.
            WeightsError: When weights cannot be fetched or do not fit.
        """
        super().__init__()
        if fusion not in get_args(Fusion):
            raise OptionError(f"fusion: found {fusion!r}, expected one of {', '.join(get_args(Fusion))}")
        self.fusion: Fusion = fusion
        self.encoder_name = encoder
        self.encoder = any_encoder(encoder, in_channels, pretrained, weights, finest)
        self.joint = not has_batch_norm(self.encoder)
        self.multiple, self.minimum = accepted_sizes(self.encoder, in_channels)
        levels = self.encoder.levels
        # strides between the image and the finest features, at which the decoder works without a skip
        self.empty_strides = [stride for stride in (2, 4, 8) if stride < levels.strides[0]]
        channels = [0] * len(self.empty_strides) + [_DATES[fusion] * count for count in levels.channels]
        widths = [width * 2 ** min(level, 4) for level in range(len(channels))]
        self.decoder = UnetDecoder([in_channels, *channels], widths[::-1], n_blocks=len(channels))
        self.classify = nn.Conv2d(width, self.num_logits, 3, padding=1)
        initialize_decoder(self.decoder)
        initialize_head(self.classify)

    def card_of(self, card: ModelCard) -> ModelCard:
        """The registered card, with what depends on the encoder."""
        return replace(
            card,
            multiple=self.multiple,
            minimum=self.minimum,
            normalisation=self.encoder.levels.normalisation,
            licence=card.licence if card.licence == "none" else self.encoder.levels.licence,
        )

    def outputs(self, before: Tensor, after: Tensor) -> ModelOutput:
        """Logits N x 2 x H x W; no auxiliary output."""
        if self.joint:
            levels = [split_dates(level) for level in self.encoder(torch.cat((before, after)))]
        else:
            levels = both_dates(self.encoder, before, after)
        batch, _, height, width = before.shape
        empty = [before.new_empty(batch, 0, height // stride, width // stride) for stride in self.empty_strides]
        fused = [self._fuse(first, second) for first, second in levels]
        return ModelOutput(self.classify(self.decoder([before, *empty, *fused])))

    def _fuse(self, before: Tensor, after: Tensor) -> Tensor:
        if self.fusion == "difference":
            return (before - after).abs()
        if self.fusion == "concatenation":
            return torch.cat((before, after), dim=1)
        return torch.cat((before, after, (before - after).abs()), dim=1)


CARD = ModelCard(
    title="Siamese U-Net",
    paper="Corley, Robinson, Ortiz: A Change Detection Reality Check, ICLR 2024 workshop ML4RS",
    url="https://arxiv.org/abs/2402.06994",
    licence="Apache-2.0 (timm/resnet18.a1_in1k), or that of the encoder",
    multiple=32,
    minimum=64,
    training=TrainingDefaults(lr=1e-3, weight_decay=0.05),
    notes="Takes any encoder of timm or segmentation-models-pytorch that takes images of any size: encoder=NAME. "
    "Multiple, minimum, normalisation and licence are given here for resnet18; those of a network that has been built "
    "are its encoder's (network.card). Not in Open-CD.",
)

register("siamese_unet", CARD, SiameseUNet, ("encoder", "fusion", "weights"))
register(
    "test_siamese_unet",
    replace(CARD, title="Siamese U-Net (micro)", licence="none", multiple=8, minimum=16),
    partial(SiameseUNet, "test_byobnet", width=2, finest=3),
    ("fusion",),
)
