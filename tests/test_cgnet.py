"""CGNet: where VGG is cut, how the prior guides, and the order of the dates."""

import torch
import torch.nn.functional as F

from bitemporal.models import create_model
from bitemporal.models.cgnet import ChangeGuide


def images(batch: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    before, after = torch.randn(2, batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    return before, after


def test_only_the_deepest_features_are_taken_before_their_relu():
    torch.manual_seed(0)
    model = create_model("test_cgnet").eval()
    with torch.no_grad():
        levels = model.encoder(images(1, 64, 96)[0])
    assert [64 // level.shape[2] for level in levels] == [2, 4, 8, 16]
    assert [bool((level < 0).any()) for level in levels] == [False, False, False, True]


def test_the_guide_is_unscaled_attention_gated_by_the_prior():
    torch.manual_seed(0)
    guide = ChangeGuide(16).double()
    guide.gamma.data.fill_(0.7)
    x = torch.randn(2, 16, 4, 6, dtype=torch.float64)
    prior = 3 * torch.randn(2, 1, 12, 20, dtype=torch.float64)
    gate = 1 + torch.sigmoid(F.interpolate(prior, (4, 6), mode="bilinear", align_corners=True))
    query, key, value = ((project(x) * gate).flatten(2) for project in (guide.query, guide.key, guide.value))
    energy = query.transpose(1, 2) @ key  # pixel by pixel
    expected = 0.7 * (value @ torch.softmax(energy, dim=-1).transpose(1, 2)).view_as(x) + x
    assert torch.allclose(guide(x, prior), expected, atol=1e-12)


def test_the_guide_keeps_its_precision_under_autocast():
    torch.manual_seed(0)
    guide = ChangeGuide(16)
    guide.gamma.data.fill_(1.0)
    x, prior = 20 * torch.randn(1, 16, 8, 12), torch.randn(1, 1, 16, 24)
    with torch.no_grad():
        exact = guide(x, prior)
        with torch.autocast("cpu", torch.bfloat16):
            output = guide(x, prior)
    assert output.dtype == torch.float32
    assert torch.allclose(output, exact, atol=1e-4)


def test_date_2_comes_first_where_the_dates_are_fused():
    model = create_model("test_cgnet").eval()
    seen = []
    model.decoder.fuse[0].register_forward_hook(lambda module, args, output: seen.append(args[0]))
    before, after = images(1, 32, 48)
    with torch.no_grad():
        model(before, after)
        first = model.encoder(after)[0]
    assert torch.allclose(seen[0][:, : first.shape[1]], first, atol=1e-6)


def test_both_maps_are_at_full_size_and_prediction_gives_the_final_one():
    torch.manual_seed(0)
    model = create_model("test_cgnet").eval()
    pair = images(1, 32, 48)
    with torch.no_grad():
        outputs = model.outputs(*pair)
        logits, prior = model.decoder([(model.encoder(pair[0])[i], model.encoder(pair[1])[i]) for i in range(4)])
        assert torch.equal(model(*pair), outputs.logits)
    for full, small in ((outputs.logits, logits), (outputs.auxiliary["prior"], prior)):
        assert full.shape == (1, 1, 32, 48)
        assert small.shape == (1, 1, 16, 24)
        corners = torch.tensor([0, -1])  # stay what they are when they are aligned
        assert torch.allclose(full[..., corners, :][..., corners], small[..., corners, :][..., corners], atol=1e-5)
