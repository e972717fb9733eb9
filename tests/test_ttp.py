"""TTP against a second implementation, written as plain functions after the reference's code; what of it is trained."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bitemporal.models import create_model, ttp
from bitemporal.models.ttp import LoraLinear


def random_micro(**options) -> torch.nn.Module:
    """The micro variant in double precision, every entry at random, of a size that keeps the numbers tame."""
    model = create_model("test_ttp", **options).double().eval()
    generator = torch.Generator().manual_seed(0)
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            scale = 1 / math.sqrt(value[0].numel()) if value.dim() > 1 else 0.1
            value.copy_(noise * scale + (1.0 if value.dim() == 1 and "weight" in key else 0.0))
            if key.endswith("running_var"):
                value.abs_().add_(0.5)
    return model


def relative(table: Tensor, count: int) -> Tensor:
    resized = F.interpolate(table.T[None], 2 * count - 1, mode="linear")[0].T
    return torch.stack([torch.stack([resized[i - j + count - 1] for j in range(count)]) for i in range(count)])


def attention(x: Tensor, w: dict[str, Tensor], heads: int) -> Tensor:
    """Every pair of tokens in full: n x h x w x C."""
    count, height, width, channels = x.shape
    size = channels // heads
    qkv = x @ w["qkv.weight"].T + w["qkv.bias"] + 32 / len(w["qkv.down"]) * (x @ w["qkv.down"].T @ w["qkv.up"].T)
    q, k, v = qkv.reshape(count, height * width, 3, heads, size).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) / math.sqrt(size)
    grid = q.reshape(count, heads, height, width, size)
    of_rows = torch.einsum("nahwc,hkc->nahwk", grid, relative(w["rel_pos_h"], height))
    of_columns = torch.einsum("nahwc,wkc->nahwk", grid, relative(w["rel_pos_w"], width))
    scores = scores.reshape(count, heads, height, width, height, width)
    scores = scores + of_rows[..., None] + of_columns[..., None, :]
    scores = scores.reshape(count, heads, height * width, height * width)
    y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(count, height, width, channels)
    return y @ w["proj.weight"].T + w["proj.bias"]


def windowed(x: Tensor, w: dict[str, Tensor], heads: int, side: int) -> Tensor:
    """Window by window, over tokens padded with zeros before they are projected."""
    height, width = x.shape[1:3]
    padded = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
    result = torch.zeros_like(padded)
    for top in range(0, padded.shape[1], side):
        for left in range(0, padded.shape[2], side):
            window = padded[:, top : top + side, left : left + side]
            result[:, top : top + side, left : left + side] = attention(window, w, heads)
    return result[:, :height, :width]


def block(x: Tensor, w: dict[str, Tensor], heads: int, side: int) -> Tensor:
    channels = x.shape[-1]

    def of(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in w.items() if key.startswith(prefix)}

    y = F.layer_norm(x, (channels,), w["norm1.weight"], w["norm1.bias"], 1e-6)
    x = x + (windowed(y, of("attn."), heads, side) if side else attention(y, of("attn."), heads))
    y = F.layer_norm(x, (channels,), w["norm2.weight"], w["norm2.bias"], 1e-6)
    x = x + F.gelu(y @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"]) @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"]
    if side:
        gate, mix = w["fusion.gate.weight"].flatten(1), [w[f"fusion.mix.{i}.weight"].flatten(1) for i in (0, 2)]

        def mixed(z: Tensor) -> Tensor:
            return F.gelu(z @ mix[0].T + w["fusion.mix.0.bias"]) @ mix[1].T + w["fusion.mix.2.bias"]

        first, second = x.chunk(2)
        share = torch.sigmoid(torch.cat((first, second), -1) @ gate.T)
        first = first + mixed(second * share)
        second = second + mixed(first * share)  # of the updated date 1
        x = torch.cat((first, second))
    return x


def norm2d(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0)
    return (x - mean) / (variance + eps).sqrt() * weight[:, None, None] + bias[:, None, None]


def network(model: torch.nn.Module, before: Tensor, after: Tensor) -> Tensor:
    w = model.state_dict()
    x = F.conv2d(torch.cat((before, after)), w["encoder.patch_embed.weight"], w["encoder.patch_embed.bias"], stride=8)
    positions = w["encoder.pos_embed"].permute(0, 3, 1, 2)
    x = (x + F.interpolate(positions, x.shape[-2:], mode="bicubic")).permute(0, 2, 3, 1)
    for i, side in enumerate((3, 0)):
        prefix = f"encoder.blocks.{i}."
        x = block(x, {k.removeprefix(prefix): v for k, v in w.items() if k.startswith(prefix)}, 2, side)
    x = F.conv2d(x.permute(0, 3, 1, 2), w["encoder.neck.0.weight"])
    x = norm2d(x, w["encoder.neck.1.weight"], w["encoder.neck.1.bias"], 1e-6)
    x = F.conv2d(x, w["encoder.neck.2.weight"], padding=1)
    x = norm2d(x, w["encoder.neck.3.weight"], w["encoder.neck.3.bias"], 1e-6)
    x = torch.cat(x.chunk(2), 1)

    def of(name: str) -> tuple[Tensor, Tensor]:
        return w[f"{name}.weight"], w[f"{name}.bias"]

    finest = F.gelu(norm2d(F.conv_transpose2d(x, *of("neck.scale.0.0"), stride=2), *of("neck.scale.0.1"), 1e-5))
    levels = [
        F.conv_transpose2d(finest, *of("neck.scale.0.3"), stride=2),
        F.conv_transpose2d(x, *of("neck.scale.1"), stride=2),
        x,
        F.max_pool2d(x, 2),
    ]
    for i, level in enumerate(levels):
        y = norm2d(F.conv2d(level, w[f"neck.project.{i}.0.0.weight"]), *of(f"neck.project.{i}.0.1"), 1e-5)
        y = F.conv2d(y, w[f"neck.project.{i}.1.0.weight"], padding=1)
        levels[i] = norm2d(y, *of(f"neck.project.{i}.1.1"), 1e-5)
    levels.append(F.max_pool2d(levels[-1], 1, stride=2))

    def unit(y: Tensor, name: str) -> Tensor:
        y = F.conv2d(y, w[f"{name}.0.weight"])
        mean, variance = w[f"{name}.1.running_mean"], w[f"{name}.1.running_var"]
        return F.relu(F.batch_norm(y, mean, variance, *of(f"{name}.1")))

    maps = [F.interpolate(unit(y, f"head.project.{i}"), (32, 32), mode="bilinear") for i, y in enumerate(levels)]
    return F.conv2d(unit(torch.cat(maps, 1), "head.join"), *of("head.classify.1"))


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 64, 64), (2, 72, 96), (1, 96, 80)])
def test_it_computes_what_the_reference_computes(batch, height, width):
    """At tokens that fill the windows of 3 x 3 and that do not, where positions are resized and where not."""
    model = random_micro()
    generator = torch.Generator().manual_seed(1)
    before, after = torch.randn(2, batch, 3, height, width, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        found, expected = model.outputs(before, after).logits, network(model, before, after)
    assert expected.std() > 0.01
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-10)


def test_fused_attention_in_training_gives_the_same_as_the_plain_one_in_evaluation(monkeypatch):
    monkeypatch.setattr(LoraLinear, "DROPOUT", 0.0)
    encoder = random_micro().encoder
    images = torch.randn(2, 3, 72, 96, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(encoder.train()(images), encoder.eval()(images), rtol=1e-9, atol=1e-10)


def trained(model: torch.nn.Module) -> dict[str, int]:
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("time_fusion", [True, False])
def test_of_the_encoder_only_adapters_biases_and_time_fusion_are_trained(time_fusion):
    encoder = {
        name.removeprefix("encoder.blocks.")
        for name in trained(create_model("test_ttp", train_time_fusion=time_fusion))
        if name.startswith("encoder.")
    }
    adapters = {f"{i}.attn.qkv.{part}" for i in (0, 1) for part in ("bias", "down", "up")}
    fusion = {
        f"0.fusion.{part}" for part in ("gate.weight", "mix.0.weight", "mix.0.bias", "mix.2.weight", "mix.2.bias")
    }
    assert encoder == (adapters | fusion if time_fusion else adapters)


def test_it_has_the_numbers_of_parameters_of_the_reference():
    """Those of models.md 15: 353.26 M, of which the reference trains 6.210 M."""
    with torch.device("meta"):
        model = create_model("ttp", train_time_fusion=False)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(353.26e6, abs=5e3)
    assert sum(trained(model).values()) == pytest.approx(6.210e6, abs=500)


def test_adapters_start_as_nothing():
    model = create_model("test_ttp").eval()
    images = torch.randn(2, 3, 64, 64)
    before = model.encoder(images)
    for module in model.modules():
        if isinstance(module, LoraLinear):
            assert module.down.abs().max() > 0
            module.down.data.normal_(std=10.0)
    assert torch.equal(model.encoder(images), before)


def test_weights_of_sam_are_resized_from_1024_pixels(monkeypatch):
    """Nothing is fetched: timm builds a miniature at random instead, at the size of SAM's weights."""
    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    torch.manual_seed(0)
    sam = ttp.timm_network("samvit_base_patch16", False, img_size=1024, num_classes=0, norm_layer=norm, **ttp._MICRO)
    sam.pos_embed.data.normal_()
    for i in (0, 1):
        sam.blocks[i].attn.rel_pos_h.data.normal_()
        sam.blocks[i].attn.rel_pos_w.data.normal_()
    asked = []
    monkeypatch.setattr(ttp, "timm_network", lambda *asked_for, **options: asked.append(asked_for) or sam)
    kept = {key: value.clone() for key, value in sam.state_dict().items()}
    encoder = ttp.Encoder("samvit_large_patch16", True, 3, 2, True)
    assert asked == [("samvit_large_patch16", True)]
    state = encoder.state_dict()
    for key, value in kept.items():
        ours = key.replace("patch_embed.proj", "patch_embed")
        if key == "pos_embed":
            value = F.interpolate(value.permute(0, 3, 1, 2), (64, 64), mode="bicubic").permute(0, 2, 3, 1)
        elif key.startswith("blocks.1.attn.rel_pos"):
            value = F.interpolate(value.T[None], 127, mode="linear")[0].T
        assert torch.equal(state[ours], value), key
    assert not encoder.pos_embed.requires_grad
    assert not encoder.blocks[1].attn.rel_pos_h.requires_grad
