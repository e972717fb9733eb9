"""ChangeStar on the segmentation networks FarSeg and UPerNet.

Zhuo Zheng, Ailong Ma, Liangpei Zhang, Yanfei Zhong: Change is Everywhere: Single-Temporal Supervised Object Change
Detection in Remote Sensing Imagery, ICCV 2021, https://arxiv.org/abs/2108.07002; FarSeg by the first four at CVPR 2020,
https://arxiv.org/abs/2011.09766; UPerNet by Tete Xiao and others at ECCV 2018, https://arxiv.org/abs/1807.10221.
Reference: Open-CD (Apache-2.0); the ImageNet weights of the encoder are timm's resnet18d (Apache-2.0).
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitemporal.losses import dice
from bitemporal.models.base import ChangeModel, ModelCard, ModelOutput, TrainingDefaults
from bitemporal.models.encoders import resnet_v1c
from bitemporal.models.layers import PooledBatchNorm2d, conv_module, segmentation_head, split_dates, stage_by_date
from bitemporal.models.pyramid import FeaturePyramid
from bitemporal.models.registry import register


class SceneRelation(nn.Module):
    """Weighs the pixels of a level by how well they go with the scene as a whole (foreground-scene relation)."""

    def __init__(self, scene_channels: int, channels: int) -> None:
        """Args: scene_channels: Channels of the scene. channels: Channels of the level and of the result."""
        super().__init__()
        self.scene = nn.Sequential(
            nn.Conv2d(scene_channels, channels, 1), nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 1)
        )
        self.content = conv_module(channels, channels)
        self.encode = conv_module(channels, channels)

    def forward(self, scene: Tensor, level: Tensor) -> Tensor:
        """Weighted features N x C x h x w from a scene N x S x 1 x 1 and a level N x C x h x w."""
        content = self.content(level)
        relation = self.scene(scene).flatten(2).transpose(1, 2) @ content.flatten(2)  # N x 1 x hw
        encoded: Tensor = self.encode(level)
        weighted: Tensor = torch.sigmoid(relation).unflatten(2, content.shape[-2:]) * encoded
        return weighted


class UpBlocks(nn.Sequential):
    """3 x 3 convolutions that each double the size, or a single one that does not."""

    def __init__(self, in_channels: int, out_channels: int, doublings: int) -> None:
        """Build the layers.

        Args:
            in_channels: Channels of the input.
            out_channels: Channels of the result.
            doublings: How often the size is doubled.
        """
        layers: list[nn.Module] = []
        for i in range(max(1, doublings)):
            layers.append(conv_module(out_channels if i else in_channels, out_channels, 3))
            if doublings:
                layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True))
        super().__init__(*layers)


class FarSeg(nn.Module):
    """FarSeg without its classifier: a feature pyramid, related to the scene, brought to one map."""

    def __init__(self, in_channels: Sequence[int], width: int) -> None:
        """Args: in_channels: Channels of the levels. width: Channels of the result; the pyramid has twice as many."""
        super().__init__()
        inner = 2 * width
        self.pyramid = FeaturePyramid(in_channels, inner, partial(nn.Conv2d, inner, inner, 3, padding=1))
        self.relate = nn.ModuleList(SceneRelation(in_channels[-1], inner) for _ in in_channels)
        self.decode = nn.ModuleList(UpBlocks(inner, width, doublings) for doublings in range(len(in_channels)))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Features at the size of the first of the levels, each of which has half the size of the one before."""
        scene = levels[-1].mean(dim=(2, 3), keepdim=True)
        steps = zip(self.relate, self.decode, self.pyramid(levels), strict=True)
        first, *others = (decode(relate(scene, level)) for relate, decode, level in steps)
        total: Tensor = sum(others, start=first)
        return total / len(levels)


class PyramidPooling(nn.Module):
    """The features, joined with their means over grids of 1, 2, 3 and 6 cells per side (PSPNet)."""

    def __init__(self, in_channels: int, width: int) -> None:
        """Args: in_channels: Channels of the input. width: Channels of each grid and of the result."""
        super().__init__()
        self.cells = (1, 2, 3, 6)
        project = [conv_module(in_channels, width) for _ in self.cells]
        project[0][1] = PooledBatchNorm2d(width)  # a single cell: training on one pair must work
        self.project = nn.ModuleList(project)
        self.join = conv_module(in_channels + len(self.cells) * width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same size."""
        maps = [x]
        for cells, project in zip(self.cells, self.project, strict=True):
            grid = project(F.adaptive_avg_pool2d(x, cells))
            maps.append(F.interpolate(grid, size=x.shape[-2:], mode="bilinear", align_corners=False))
        joined: Tensor = self.join(torch.cat(maps, dim=1))
        return joined


class UPerNet(nn.Module):
    """UPerNet without its classifier: pyramid pooling on top of a feature pyramid, all levels joined."""

    def __init__(self, in_channels: Sequence[int], width: int) -> None:
        """Args: in_channels: Channels of the levels. width: Channels of the result and of all between."""
        super().__init__()
        self.pool = PyramidPooling(in_channels[-1], width)
        self.lateral = nn.ModuleList(conv_module(channels, width) for channels in in_channels[:-1])
        self.refine = nn.ModuleList(conv_module(width, width, 3) for _ in in_channels[:-1])
        self.join = conv_module(len(in_channels) * width, width, 3)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Features at the size of the first of the levels."""
        maps = [lateral(level) for lateral, level in zip(self.lateral, levels[:-1], strict=True)]
        maps.append(self.pool(levels[-1]))
        for fine in range(len(maps) - 2, -1, -1):
            maps[fine] = maps[fine] + _resize(maps[fine + 1], maps[fine])
        refined = [refine(x) for refine, x in zip(self.refine, maps[:-1], strict=True)]
        coarser = [_resize(x, refined[0]) for x in (*refined[1:], maps[-1])]
        joined: Tensor = self.join(torch.cat((refined[0], *coarser), dim=1))
        return joined


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class ChangeStar(ChangeModel):
    """Shared segmentation network whose features of both dates, in both orders, give the change (ChangeMixin 1x96).

    The main output is date 1 to date 2; the auxiliary output ``reversed`` is date 2 to date 1. With
    ``reference_losses=True`` the Dice loss of FarSeg is the reference's, which rewards the unchanged pixels instead of
    the changed ones, and counts ignored pixels.
    """

    num_logits: ClassVar[int] = 1

    def __init__(
        self,
        segmentation: Literal["farseg", "upernet"] = "farseg",
        encoder: str = "resnet18_v1c",
        pretrained: bool = False,
        in_channels: int = 3,
        width: int = 128,
        inner: int = 96,
    ) -> None:
        """Build the network.

        Args:
            segmentation: Network that extracts the features; FarSeg is trained with a Dice loss too.
            encoder: ResNet under it.
            pretrained: Fetch its ImageNet weights.
            in_channels: Channels of one date.
            width: Channels of the features.
            inner: Channels before the classifier.

        Raises:
            WeightsError: When pretrained weights cannot be fetched.
        """
        super().__init__()
        self.with_dice = segmentation == "farseg"
        stages, widths = resnet_v1c(encoder, pretrained, in_channels)
        decoder = FarSeg(widths, width) if segmentation == "farseg" else UPerNet(widths, width)
        self.features = nn.Sequential(OrderedDict(encoder=stages, decoder=decoder))
        self.mix = nn.Sequential(
            nn.Conv2d(2 * width, inner, 3, padding=1), nn.BatchNorm2d(inner), nn.ReLU(inplace=True)
        )
        self.classify = segmentation_head(inner, self.num_logits)

    def _change(self, first: Tensor, second: Tensor) -> Tensor:
        """Logits of the change from one date to another, from their features."""
        logits: Tensor = self.classify(self.mix(torch.cat((first, second), dim=1)))
        return logits

    def _features(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        return split_dates(stage_by_date(self.features, torch.cat((before, after))))

    def outputs(self, before: Tensor, after: Tensor) -> ModelOutput:
        """Logits N x 1 x H/4 x W/4, and the same of the other time order as ``reversed``."""
        first, second = self._features(before, after)
        return ModelOutput(self._change(first, second), {"reversed": self._change(second, first)})

    def head_logits(self, before: Tensor, after: Tensor) -> Tensor:
        """The logits of ``outputs``, without the other time order."""
        return self._change(*self._features(before, after))

    def distillation_tensor(self, outputs: ModelOutput) -> Tensor:
        """Both time orders, 2N x 1 x H/4 x W/4."""
        return torch.cat((outputs.logits, outputs.auxiliary["reversed"]))

    def loss(self, outputs: ModelOutput, target: Tensor) -> dict[str, Tensor]:
        """Binary cross-entropy ``loss_bce``, with FarSeg also ``loss_dice``, and the same of the ``reversed`` order."""
        terms = super().loss(outputs, target)
        if self.with_dice:
            for suffix, logits in (("", outputs.logits), ("_reversed", outputs.auxiliary["reversed"])):
                terms[f"loss_dice{suffix}"] = dice(logits, target, reference=self.reference_losses)
        return terms


_ENCODER_NOTE = (
    "The reference starts from weights of a ResNet-18 V1c; `pretrained=True` fetches those of timm's resnet18d, whose "
    "shortcuts differ."
)

CHANGESTAR_FARSEG = ModelCard(
    title="ChangeStar 1x96 (FarSeg)",
    paper=(
        "Zheng, Ma, Zhang, Zhong: Change is Everywhere: Single-Temporal Supervised Object Change Detection in Remote "
        "Sensing Imagery, ICCV 2021"
    ),
    url="https://arxiv.org/abs/2108.07002",
    licence="Apache-2.0 (timm resnet18d.ra2_in1k)",
    multiple=32,
    minimum=64,
    training=TrainingDefaults(lr=1e-3, weight_decay=0.01, batch_size=16, distillation_weight=1e-3),
    notes="The scene is the mean of the whole input, padding too. " + _ENCODER_NOTE,
)
CHANGESTAR_UPERNET = replace(
    CHANGESTAR_FARSEG,
    title="ChangeStar 1x96 (UPerNet)",
    training=TrainingDefaults(lr=1e-3, weight_decay=0.05, distillation_weight=1e-4),
    notes="Features are pooled over the whole input, padding too. " + _ENCODER_NOTE,
)

register("changestar_farseg", CHANGESTAR_FARSEG, ChangeStar)
register("changestar_upernet", CHANGESTAR_UPERNET, partial(ChangeStar, "upernet"))
register(
    "test_changestar",
    replace(CHANGESTAR_FARSEG, title="ChangeStar (FarSeg, micro)", licence="none"),
    partial(ChangeStar, "farseg", "test_resnet", width=8, inner=8),
)
