"""Time Travelling Pixels (TTP): the image encoder of SAM under low-rank adapters, with exchange between the dates.

Keyan Chen, Chengyang Liu, Wenyuan Li, Zili Liu, Hao Chen, Haotian Zhang, Zhengxia Zou, Zhenwei Shi: Time Travelling
Pixels: Bitemporal Features Integration with Foundation Model for Remote Sensing Image Change Detection, IGARSS 2024,
https://arxiv.org/abs/2312.16202. Reference: Open-CD (Apache-2.0); the encoder and its weights are timm's SAM ViT-L
(Kirillov et al.: Segment Anything, ICCV 2023; Apache-2.0).
"""

from bitemporal import _torchvision as _torchvision  # isort: skip  (before timm, which imports torchvision)

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from timm.models.vision_transformer_sam import Attention as SamAttention
from timm.models.vision_transformer_sam import Block as SamBlock
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from bitemporal.models.base import ChangeModel, ModelCard, ModelOutput, TrainingDefaults
from bitemporal.models.encoders import timm_network
from bitemporal.models.layers import conv_module, initialise, rescaled_levels, segmentation_head, split_dates
from bitemporal.models.registry import register


class LoraLinear(nn.Linear):
    """A frozen linear layer with a trainable low-rank update and a trainable bias (LoRA, Hu et al., ICLR 2022).

    ``W x + bias + alpha / rank * B A dropout(x)``. ``A`` starts at random, ``B`` at zero: first it is as it was.
    """

    ALPHA = 32.0
    DROPOUT = 0.01

    def __init__(self, base: nn.Linear, rank: int) -> None:
        """Args: base: Layer whose weight and bias are taken over. rank: Rank of the update."""
        super().__init__(base.in_features, base.out_features, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.down = nn.Parameter(torch.empty(rank, base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)
        self.scale = self.ALPHA / rank

    def forward(self, x: Tensor) -> Tensor:
        """Project ... x C."""
        update = F.linear(F.linear(F.dropout(x, self.DROPOUT, self.training), self.down), self.up)
        return super().forward(x) + self.scale * update


def partition(x: Tensor, side: int, fill: Tensor) -> Tensor:
    """Cut maps N x H x W x C into windows n x side x side x C.

    Args:
        x: The maps.
        side: Side of a window.
        fill: C values that the maps are padded with right and bottom.
    """
    count, height, width, channels = x.shape
    rows, columns = _windows(height, side), _windows(width, side)
    x = F.pad(x, (0, 0, 0, columns * side - width, 0, rows * side - height))
    within = torch.arange(rows * side, device=x.device)[:, None] < height
    within = within & (torch.arange(columns * side, device=x.device) < width)
    x = torch.where(within[..., None], x, fill.to(x.dtype))
    windows = x.reshape(count, rows, side, columns, side, channels).transpose(2, 3)
    return windows.reshape(count * rows * columns, side, side, channels)


def join(windows: Tensor, count: int, height: int, width: int) -> Tensor:
    """Put the windows of ``partition`` together again to maps N x H x W x C, without the padding."""
    side, channels = windows.shape[2:]
    rows, columns = _windows(height, side), _windows(width, side)
    x = windows.reshape(count, rows, columns, side, side, channels).transpose(2, 3)
    return x.reshape(count, rows * side, columns * side, channels)[:, :height, :width].contiguous()


def _windows(length: int, side: int) -> int:
    if torch.compiler.is_exporting():
        return length // side + 1  # always some padding: an export would fix whether there is any
    return -(-length // side)


def relative_positions(table: Tensor, count: int) -> Tensor:
    """Embeddings of the distances between positions of one axis, count x count x C.

    Args:
        table: Embeddings of the distances from 1 - n to n - 1, (2n - 1) x C; resized linearly where n is not ``count``.
        count: Positions.
    """
    # changes nothing where n is count; testing for that would fix the size in an export
    resized = F.interpolate(table.T[None], size=2 * count - 1, mode="linear")[0].T
    position = torch.arange(count, device=table.device)
    return resized[position[:, None] - position[None, :] + count - 1]


class Attention(nn.Module):
    """Self-attention of SAM, over everything or in windows, with decomposed relative positions."""

    def __init__(self, attention: SamAttention, window: int, rank: int) -> None:
        """Wrap an attention of timm.

        Args:
            attention: Attention of timm; its layers are taken over.
            window: Side of the windows in tokens; 0 attends to everything.
            rank: Rank of the update of the joint projection.
        """
        super().__init__()
        self.qkv = LoraLinear(attention.qkv, rank)
        self.proj: nn.Linear = attention.proj
        self.rel_pos_h: nn.Parameter = attention.rel_pos_h
        self.rel_pos_w: nn.Parameter = attention.rel_pos_w
        self.heads: int = attention.num_heads
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """Attend within tokens N x H x W x C."""
        count, height, width, _ = x.shape
        qkv = self.qkv(x)
        if not self.window:
            attended = self._attend(qkv)
        else:
            # The padding of the windows is attended to, as in the reference: zeros, whose projection is the bias.
            # Here it costs only the attention itself.
            windows = self._attend(partition(qkv, self.window, self.qkv.bias))
            attended = join(windows, count, height, width)
        projected: Tensor = self.proj(attended)
        return projected

    def _attend(self, qkv: Tensor) -> Tensor:
        """From projections n x h x w x 3C to n x h x w x C."""
        height, width = qkv.shape[1:3]
        query, key, value = qkv.unflatten(3, (3, self.heads, -1)).permute(3, 0, 4, 1, 2, 5)  # n x heads x h x w x c
        rows = relative_positions(self.rel_pos_h, height).to(query.dtype)
        columns = relative_positions(self.rel_pos_w, width).to(query.dtype)
        of_rows = torch.einsum("nahwc,hkc->nahwk", query, rows).unsqueeze(-1)
        of_columns = torch.einsum("nahwc,wkc->nahwk", query, columns).unsqueeze(-2)
        query, key, value = (part.flatten(2, 3) for part in (query, key, value))
        if self.training:
            bias = (of_rows + of_columns).flatten(4, 5).flatten(2, 3)
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        else:
            # The order of the reference's additions. With the random weights of the golden numbers the encoder is
            # chaotic: the last bits decide, and the fused attention above, as exact and slightly faster, misses them.
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
            scores = scores.unflatten(3, (height, width)).unflatten(2, (height, width))
            scores = scores.add_(of_rows).add_(of_columns).flatten(4, 5).flatten(2, 3)
            attended = scores.softmax(dim=-1) @ value
        tokens: Tensor = attended.transpose(1, 2).flatten(2).unflatten(1, (height, width))
        return tokens


class TimeFusion(nn.Module):
    """Each date takes up the other where a gate over both is open; date 2 sees date 1 after its update."""

    def __init__(self, channels: int) -> None:
        """Args: channels: Channels of one date."""
        super().__init__()
        self.gate = nn.Conv2d(2 * channels, 1, 1, bias=False)
        nn.init.constant_(self.gate.weight, 1.0 / (2 * channels))
        self.mix = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU(), nn.Conv2d(channels, channels, 1))

    def forward(self, joint: Tensor) -> Tensor:
        """Fuse tokens 2N x H x W x C, date 1 first."""
        before, after = split_dates(joint.permute(0, 3, 1, 2))
        gate = torch.sigmoid(self.gate(torch.cat((before, after), dim=1)))
        before = before + self.mix(after * gate)
        after = after + self.mix(before * gate)
        return torch.cat((before, after)).permute(0, 2, 3, 1)


class Block(nn.Module):
    """Transformer block of SAM; a windowed one ends with the exchange between the dates."""

    def __init__(self, block: SamBlock, rank: int) -> None:
        """Args: block: Block of timm; its layers are taken over. rank: Rank of the adapters."""
        super().__init__()
        self.norm1: nn.LayerNorm = block.norm1
        self.attn = Attention(block.attn, block.window_size, rank)
        self.norm2: nn.LayerNorm = block.norm2
        self.mlp: nn.Module = block.mlp
        # the reference's authors wonder whether the global blocks were meant; the published weights have it so
        self.fusion = TimeFusion(block.attn.qkv.in_features) if block.window_size else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as the tokens 2N x H x W x C, date 1 first."""
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        fused: Tensor = self.fusion(x)
        return fused


_MICRO = {
    "patch_size": 8,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "mlp_ratio": 2,
    "window_size": 3,
    "global_attn_indexes": (1,),
    "neck_chans": 8,
}


def _sam(name: str, pretrained: bool, in_channels: int) -> VisionTransformerSAM:
    """SAM's image encoder, with position embeddings for images of 512 x 512 (64 x 64 for the miniature)."""
    micro = name == "test_samvit"
    size = 64 if micro else 512
    whole: VisionTransformerSAM = timm_network(
        "samvit_base_patch16" if micro else name,
        pretrained,
        in_chans=in_channels,
        num_classes=0,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),  # as in SAM and the reference; timm has 1e-5
        **({} if pretrained else {"img_size": size}),
        **(_MICRO if micro else {}),
    )
    if pretrained:
        _resize_positions(whole, size // whole.patch_embed.patch_size[0])
    return whole


def _resize_positions(whole: VisionTransformerSAM, side: int) -> None:
    """Resize the position embeddings of an encoder, held for another size, to side x side tokens."""
    whole.pos_embed = nn.Parameter(position_embeddings(whole.pos_embed.detach(), side, side))
    for block in whole.blocks:
        if not block.window_size:
            for axis in ("rel_pos_h", "rel_pos_w"):
                table = getattr(block.attn, axis).detach()
                resized = F.interpolate(table.T[None], size=2 * side - 1, mode="linear")[0].T
                setattr(block.attn, axis, nn.Parameter(resized.contiguous()))


def position_embeddings(embeddings: Tensor, height: int, width: int) -> Tensor:
    """Resize position embeddings 1 x h x w x C to another number of tokens; bicubic, as the reference does."""
    maps = embeddings.permute(0, 3, 1, 2).to(torch.promote_types(embeddings.dtype, torch.float32))
    maps = F.interpolate(maps, size=(height, width), mode="bicubic", align_corners=False)
    return maps.permute(0, 2, 3, 1).to(embeddings.dtype)


class Encoder(nn.Module):
    """SAM's image encoder for both dates; only the adapters, their biases and, optionally, time fusion are trained."""

    def __init__(self, name: str, pretrained: bool, in_channels: int, rank: int, train_time_fusion: bool) -> None:
        """Build the encoder.

        Args:
            name: Name of the encoder.
            pretrained: Fetch SAM's weights.
            in_channels: Channels of one date.
            rank: Rank of the adapters.
            train_time_fusion: Whether time fusion is trained.

        Raises:
            WeightsError: When the weights do not exist or cannot be fetched.
        """
        super().__init__()
        whole = _sam(name, pretrained, in_channels).requires_grad_(False)
        self.patch_embed, self.pos_embed, self.neck = whole.patch_embed.proj, whole.pos_embed, whole.neck
        self.channels: int = whole.num_features
        blocks = [Block(block, rank) for block in whole.blocks]
        for block in blocks:
            block.attn.qkv.bias.requires_grad_(True)
            block.fusion.requires_grad_(train_time_fusion)
        self.blocks = nn.Sequential(*blocks)

    def forward(self, joint: Tensor) -> Tensor:
        """Features 2N x C x H/16 x W/16 of images 2N x C x H x W, date 1 first."""
        x = self.patch_embed(joint).permute(0, 2, 3, 1)
        x = x + position_embeddings(self.pos_embed, x.shape[1], x.shape[2])
        features: Tensor = self.neck(self.blocks(x).permute(0, 3, 1, 2))
        return features


class SimplePyramid(nn.Module):
    """Five levels from one map (ViTDet's simple feature pyramid): 4, 2, 1, 1/2 and 1/4 times its size."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Args: in_channels: Channels of the map. out_channels: Channels of every level."""
        super().__init__()
        self.scale, channels = rescaled_levels([in_channels] * 4)
        self.project = nn.ModuleList(
            nn.Sequential(
                _convolution_and_norm(level, out_channels, 1), _convolution_and_norm(out_channels, out_channels, 3)
            )
            for level in channels
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Levels of a map N x C x H x W, from the finest to the coarsest."""
        levels = [project(scale(x)) for scale, project in zip(self.scale, self.project, strict=True)]
        return [*levels, levels[-1][..., ::2, ::2]]


def _convolution_and_norm(in_channels: int, out_channels: int, side: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, side, padding=side // 2, bias=False)
    initialise(convolution)
    return nn.Sequential(convolution, LayerNorm2d(out_channels, eps=1e-5))


class Head(nn.Module):
    """Brings all levels to one fixed size and classifies pixel by pixel."""

    def __init__(self, channels: int, levels: int, classes: int, side: int) -> None:
        """Build the layers.

        Args:
            channels: Channels of each level.
            levels: Number of levels.
            classes: Number of logits.
            side: Side of the logits.
        """
        super().__init__()
        self.project = nn.ModuleList(conv_module(channels, channels) for _ in range(levels))
        self.join = conv_module(levels * channels, channels)
        self.classify = segmentation_head(channels, classes, dropout=0.0)
        self.size = (side, side)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Logits N x K x side x side."""
        maps = [
            F.interpolate(project(level), size=self.size, mode="bilinear", align_corners=False)
            for project, level in zip(self.project, levels, strict=True)
        ]
        logits: Tensor = self.classify(self.join(torch.cat(maps, dim=1)))
        return logits


class TTP(ChangeModel):
    """SAM's encoder for both dates at once, a simple feature pyramid over their concatenation, an MLP head.

    The encoder is frozen; low-rank adapters of its attention with their biases, the layers of time fusion, the
    pyramid and the head are trained.
    """

    def __init__(
        self,
        encoder: str = "samvit_large_patch16",
        pretrained: bool = False,
        in_channels: int = 3,
        rank: int = 16,
        width: int = 256,
        side: int = 128,
        train_time_fusion: bool = True,
    ) -> None:
        """Build the network.

        Args:
            encoder: SAM encoder of timm.
            pretrained: Fetch SAM's weights. Without them the frozen encoder stays random: only for loading trained
                weights afterwards, and for tests.
            in_channels: Channels of one date.
            rank: Rank of the adapters.
            width: Channels of pyramid and head.
            side: Height and width of the head's logits, whatever the size of the input.
            train_time_fusion: Train the layers that mix the dates. In the reference they are frozen together with the
                encoder, at the random values they start from (its adapter library freezes all layers that it does not
                know): the published numbers come from ``False``.

        Raises:
            WeightsError: When pretrained weights cannot be fetched.
        """
        super().__init__()
        self.encoder = Encoder(encoder, pretrained, in_channels, rank, train_time_fusion)
        self.neck = SimplePyramid(2 * self.encoder.channels, width)
        self.head = Head(width, 5, self.num_logits, side)

    def outputs(self, before: Tensor, after: Tensor) -> ModelOutput:
        """Logits N x 2 x 128 x 128, whatever the size of the input; no auxiliary output."""
        # no batch statistics in the encoder: one batch in training too
        features = torch.cat(split_dates(self.encoder(torch.cat((before, after)))), dim=1)
        return ModelOutput(self.head(self.neck(features)))


CARD = ModelCard(
    title="TTP (SAM ViT-L)",
    paper="Chen, Liu, Li, Liu, Chen, Zhang, Zou, Shi: Time Travelling Pixels: Bitemporal Features Integration with "
    "Foundation Model for Remote Sensing Image Change Detection, IGARSS 2024",
    url="https://arxiv.org/abs/2312.16202",
    licence="Apache-2.0 (timm/samvit_large_patch16.sa1b)",
    multiple=16,
    minimum=96,
    training=TrainingDefaults(lr=4e-4, weight_decay=0.05, schedule="cosine", distillation_weight=5e-3),
    notes="Made for 512 x 512. At other sizes the position embeddings are resized at every pass (bicubic; relative "
    "positions linearly), as in the reference; the logits are 128 x 128 whatever the input, so that larger images come "
    "out coarser: predict them in tiles of 512. The encoder is frozen: train with pretrained=True. The layers that mix "
    "the dates are trained, which the reference does not do (train_time_fusion=False).",
)

register("ttp", CARD, TTP, ("train_time_fusion",))
register(
    "test_ttp",
    replace(CARD, title="TTP (micro)", licence="none", multiple=8, minimum=48),
    partial(TTP, "test_samvit", rank=2, width=16, side=32),
    ("train_time_fusion",),
)
