"""ChangeFormer as Open-CD has it: a Siamese SegFormer.

Wele Gedara Chaminda Bandara, Vishal M. Patel: A Transformer-Based Siamese Network for Change Detection, IGARSS 2022,
https://arxiv.org/abs/2201.01293. Reference: Open-CD (Apache-2.0), whose network is not the paper's: SegFormer's encoder
on each date and SegFormer's head on the concatenated levels. The Mix Transformer and its ImageNet weights come through
segmentation-models-pytorch (weights: NVIDIA Source Code License for SegFormer, non-commercial).
"""

from collections import OrderedDict
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from bitemporal.models.base import ChangeModel, ModelCard, ModelOutput, ParameterRule, TrainingDefaults
from bitemporal.models.encoders import mix_transformer
from bitemporal.models.layers import Fusion, segmentation_head, split_dates
from bitemporal.models.registry import register


class ChangeFormer(ChangeModel):
    """Shared Mix Transformer; the levels of both dates are concatenated and fused at stride 4."""

    def __init__(
        self,
        encoder: str = "mit_b0",
        pretrained: bool = False,
        in_channels: int = 3,
        width: int = 256,
    ) -> None:
        """Build the network.

        Args:
            encoder: Mix Transformer.
            pretrained: Fetch its ImageNet weights.
            in_channels: Channels of one date.
            width: Channels of the head.

        Raises:
            WeightsError: When pretrained weights cannot be fetched.
        """
        super().__init__()
        self.encoder, channels = mix_transformer(encoder, pretrained, in_channels)
        fusion = Fusion([2 * c for c in channels], width, width)
        self.head = nn.Sequential(OrderedDict(fusion=fusion, classify=segmentation_head(width, self.num_logits)))

    def outputs(self, before: Tensor, after: Tensor) -> ModelOutput:
        """Logits N x 2 x H/4 x W/4; no auxiliary output."""
        joint = self.encoder(torch.cat((before, after)))  # no batch normalisation: one batch in training too
        return ModelOutput(self.head([torch.cat(split_dates(level), dim=1) for level in joint]))


CHANGEFORMER_MIT_B0 = ModelCard(
    title="ChangeFormer (MiT-b0)",
    paper="Bandara, Patel: A Transformer-Based Siamese Network for Change Detection, IGARSS 2022",
    url="https://arxiv.org/abs/2201.01293",
    licence="NVIDIA Source Code License for SegFormer, non-commercial (smp-hub/mit_b0.imagenet)",
    multiple=32,
    minimum=64,
    training=TrainingDefaults(
        lr=6e-5,
        weight_decay=0.01,
        # the norm that ends a stage, encoder.i.2, is not named so and decays, as in the reference
        rules=(ParameterRule("norm", weight_decay=0.0), ParameterRule("head", lr=10.0)),
    ),
    notes=(
        "The network of Open-CD, a Siamese SegFormer: not the difference modules and the decoder of the paper. Without "
        "pretrained weights the transformer starts as in SegFormer's own code."
    ),
)
CHANGEFORMER_MIT_B1 = replace(
    CHANGEFORMER_MIT_B0,
    title="ChangeFormer (MiT-b1)",
    licence="NVIDIA Source Code License for SegFormer, non-commercial (smp-hub/mit_b1.imagenet)",
    training=replace(CHANGEFORMER_MIT_B0.training, distillation_weight=5e-4),
)

register("changeformer_mit_b0", CHANGEFORMER_MIT_B0, ChangeFormer)
register("changeformer_mit_b1", CHANGEFORMER_MIT_B1, partial(ChangeFormer, "mit_b1"))
register(
    "test_changeformer",
    replace(CHANGEFORMER_MIT_B0, title="ChangeFormer (micro)", licence="none"),
    partial(ChangeFormer, "test_mit", width=16),
)
