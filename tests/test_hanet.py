"""HANet: its attentions and the order of reducing and enlarging, against the formulas of the reference."""

import torch
import torch.nn.functional as F

from bitemporal.models import create_model
from bitemporal.models.hanet import AxisAttention, ChannelAttention, HANet


def test_attention_of_an_axis_is_softmax_attention_of_every_row_by_itself():
    torch.manual_seed(0)
    attention = AxisAttention(4).double()
    attention.gamma.data.fill_(0.7)
    x = torch.randn(2, 5, 7, 4, dtype=torch.float64)
    output = attention(x)
    for image in range(2):
        for row in range(5):
            pixels = x[image, row]
            query, key, value = (pixels @ w.T + b for w, b in parts(attention))
            expected = 0.7 * torch.softmax(query @ key.T, dim=-1) @ value + pixels
            assert torch.allclose(output[image, row], expected, atol=1e-12)


def parts(attention: AxisAttention) -> list[tuple[torch.Tensor, torch.Tensor]]:
    projection = attention.projection
    return list(zip(projection.weight.chunk(3), projection.bias.chunk(3), strict=True))


def test_a_pixel_reaches_its_column_and_then_all_rows():
    """A change at one pixel spreads down its column by the columns' attention, and from there along every row."""
    torch.manual_seed(0)
    level = create_model("test_hanet").levels[0].eval().double()
    before, after = 0.1 * torch.randn(2, 1, 4, 24, 40, dtype=torch.float64)  # small, or softmax drops most pixels
    moved = after.clone()
    moved[..., 12, 20] += 1.0

    def changed(columns: float, rows: float) -> torch.Tensor:
        level.columns.gamma.data.fill_(columns)
        level.rows.gamma.data.fill_(rows)
        with torch.no_grad():
            return (level(before, after) - level(before, moved)).abs().amax(dim=(0, 1)) > 1e-9

    near = changed(0, 0)
    column, row = torch.zeros(2, 24, 40, dtype=torch.bool)
    reach = 4  # of the fusion; the convolutions around channel attention, besides those of the axes, reach 2 further
    column[:, 20 - reach : 20 + reach + 1] = True
    row[12 - reach : 12 + reach + 1] = True
    assert not near[12].all()
    assert not near[:, 20].all()
    assert torch.equal(changed(1, 0), near | column)
    assert torch.equal(changed(0, 1), near | row)
    assert changed(1, 1).all()


def test_channel_attention_prefers_the_channels_that_resemble_least():
    attention = ChannelAttention().double()
    attention.gamma.data.fill_(0.7)
    x = 0.1 * torch.randn(2, 5, 6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pixels = x.flatten(2)
    energy = pixels @ pixels.transpose(1, 2)
    weights = torch.softmax(energy.amax(-1, keepdim=True) - energy, dim=-1)
    assert torch.allclose(attention(x), 0.7 * (weights @ pixels).view_as(x) + x, atol=1e-12)


def test_attention_keeps_its_precision_under_autocast():
    """Energies of several hundred: bfloat16 would round them to whole numbers and more."""
    torch.manual_seed(0)
    level = create_model("test_hanet").levels[0].eval()
    for attention in (level.columns, level.rows, level.channels[3]):
        attention.gamma.data.fill_(1.0)
    joined = 8 * torch.randn(1, 4, 16, 24)
    level.join.register_forward_hook(lambda module, args, output: joined)
    level.channels.register_forward_hook(lambda module, args, output: torch.zeros_like(output))
    dates = torch.randn(2, 1, 4, 16, 24)
    with torch.no_grad():
        exact = level(*dates)
        with torch.autocast("cpu", torch.bfloat16):
            found = level(*dates)
    assert found.dtype == torch.float32
    assert torch.allclose(found, exact, atol=1e-4)


def test_reducing_before_enlarging_gives_what_the_reference_computes():
    """It enlarges the deepest map, appends it to the next one, and so on, and reduces the channels at full size."""
    torch.manual_seed(0)
    model = HANet(width=4, hidden=8).double()
    maps = [torch.randn(2, c, 16 // s, 24 // s, dtype=torch.float64) for c, s in ((4, 1), (8, 2), (16, 4), (32, 8))]
    joined = maps[-1]
    for level in reversed(maps[:-1]):
        joined = torch.cat((level, F.interpolate(joined, scale_factor=2, mode="bilinear", align_corners=False)), dim=1)
    assert torch.allclose(model._joined(maps), model.reduce(joined), atol=1e-12)
