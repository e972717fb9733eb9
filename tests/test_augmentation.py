"""Augmentation of a pair and its mask together."""

import colorsys
import math

import numpy as np
import pytest
import torch

from bitemporal.losses import cross_entropy
from bitemporal.method.car import change_area_ratio
from bitemporal.run import augmentation
from bitemporal.run.augmentation import (
    augment,
    photometric_distortion,
    random_crop,
    random_quarter_turn_and_flip,
    random_rotation,
)

SIZE = 48


def marked_pair(size: int = SIZE) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose values say where change is: 200 where the mask is 1, 100 elsewhere; after is 10 brighter."""
    mask = torch.zeros(size, size, dtype=torch.uint8)
    mask[5:20, 8:30] = 1
    before = torch.where(mask == 1, 200, 100).to(torch.uint8).expand(3, -1, -1)
    return torch.stack([before, before + 10]), mask


@pytest.mark.parametrize("recipe", ["standard", "changer", "none"])
@pytest.mark.parametrize("crop", [32, 48, 64])
def test_shapes_types_and_values(recipe, crop):
    dates, mask = augment(*marked_pair(), recipe, crop)
    assert dates.shape == (2, 3, crop, crop)
    assert dates.dtype == mask.dtype == torch.uint8
    assert mask.shape == (crop, crop)
    assert set(mask.unique().tolist()) <= {0, 1, 255}
    assert type(dates) is type(mask) is torch.Tensor


@pytest.mark.parametrize("recipe", ["standard", "changer"])
def test_half_of_the_pairs_are_rotated(recipe):
    rotated = 0
    for seed in range(200):
        torch.manual_seed(seed)
        rotated += bool((augment(*marked_pair(), recipe, SIZE)[1] == 255).any())
    assert 70 < rotated < 130


@pytest.mark.parametrize("recipe", ["standard", "changer"])
def test_mask_follows_both_images(recipe):
    """Where the mask says changed, both dates must still be bright: geometry is shared, photometry mild."""
    for seed in range(30):
        torch.manual_seed(seed)
        dates, mask = augment(*marked_pair(), recipe, SIZE)
        inside, outside = dates[:, :, mask == 1].float(), dates[:, :, mask == 0].float()
        if inside.numel():
            share = (inside > 150).float().mean(), (outside < 150).float().mean()
            assert min(share) > 0.9  # the rest are interpolated edges


def test_rotation_uncovers_ignored_pixels_and_nothing_else():
    torch.manual_seed(1)
    dates, mask = marked_pair()
    turned, turned_mask = augment_rotation(dates, mask)
    uncovered = (turned == 0).all(0).all(0)
    assert (turned_mask == 255).sum() > 50
    # bilinear edges may be dark without being uncovered, uncovered pixels are always ignored
    assert (turned_mask[uncovered] == 255).float().mean() > 0.95


def augment_rotation(dates, mask, degrees=45.0):
    from torchvision import tv_tensors

    turned, turned_mask = random_rotation(tv_tensors.Image(dates), tv_tensors.Mask(mask[None]), degrees)
    return turned.as_subclass(torch.Tensor), turned_mask.as_subclass(torch.Tensor)[0]


def test_padding_of_rotation_counts_in_no_car_and_no_loss():
    """Defect F4 of the reference: 255 counted as change when a teacher was chosen."""
    mask = torch.zeros(64, 64, dtype=torch.uint8)
    torch.manual_seed(2)
    _, turned = augment_rotation(torch.full((2, 3, 64, 64), 100, dtype=torch.uint8), mask)
    assert (turned == 255).any()
    assert change_area_ratio(turned) == 0.0
    logits = torch.randn(1, 2, 64, 64)
    changed = logits.clone()
    changed[:, :, turned == 255] += 100.0
    target = turned[None].long()
    assert torch.equal(cross_entropy(logits, target), cross_entropy(changed, target))


def test_all_unchanged_pairs_stay_so():
    for seed in range(20):
        torch.manual_seed(seed)
        _, mask = augment(
            torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8), torch.zeros(SIZE, SIZE, dtype=torch.uint8), "standard", 32
        )
        assert change_area_ratio(mask) == 0.0


def test_small_images_are_padded_with_ignored_pixels():
    dates, mask = random_crop(marked_pair(16)[0], marked_pair(16)[1][None], 32)
    assert (mask[0, 16:] == 255).all()
    assert (mask[0, :, 16:] == 255).all()
    assert (dates[:, :, 16:] == 0).all()


def test_crops_prefer_both_classes():
    mask = torch.zeros(256, 256, dtype=torch.uint8)
    mask[100:160, 100:160] = 1
    dates = torch.zeros(2, 3, 256, 256, dtype=torch.uint8)
    torch.manual_seed(0)
    shares = [float((random_crop(dates, mask[None], 64)[1] == 1).float().mean()) for _ in range(60)]
    # a uniformly drawn crop holds 25..75 % of change in about one of six cases, ten tries in far more
    assert sum(0.25 < share < 0.75 for share in shares) > 20


def test_crops_with_three_quarters_of_one_class_are_avoided_too():
    """A quarter of the columns of a crop has changed, except in two places of nine, where it is half of them."""
    mask = torch.tensor([1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0], dtype=torch.uint8).expand(1, 4, 12)
    shares = []
    for seed in range(50):
        torch.manual_seed(seed)
        shares.append(float(random_crop(mask.expand(2, 3, 4, 12), mask, 4)[1].float().mean()))
    assert set(shares) == {0.25, 0.5} and shares.count(0.5) > 35


def test_crops_reach_every_place():
    pixels = torch.arange(36, dtype=torch.uint8).view(1, 6, 6)
    corners = set()
    for seed in range(200):
        torch.manual_seed(seed)
        corners.add(int(random_crop(pixels.expand(2, 3, 6, 6), torch.zeros(1, 6, 6), 4)[0][0, 0, 0, 0]))
    assert corners == {6 * top + left for top in range(3) for left in range(3)}


def test_pairs_are_flipped_every_way_equally_often():
    """By a quarter turn and a flip as by all mirrored views; in the standard recipe, pairs that are not rotated."""
    mask = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 0]], dtype=torch.uint8).repeat_interleave(8, 0)
    mask = mask.repeat_interleave(8, 1)
    dates = torch.zeros(2, 3, 24, 24, dtype=torch.uint8)
    found = []
    for seed in range(600):
        torch.manual_seed(seed)
        found.append((random_quarter_turn_and_flip(dates, mask[None])[1][0], augment(dates, mask, "standard", 24)[1]))
    mirrored = [torch.rot90(mask.flip(-1), turns) for turns in range(4)]
    flipped = [mask, mask.flip(-1), mask.flip(-2), mask.flip(-1, -2)]
    for seen, views in zip(zip(*found, strict=True), (mirrored, flipped), strict=True):
        counts = [sum(torch.equal(one, view) for one in seen) for view in views]
        assert all(0.19 < count / sum(counts) < 0.31 for count in counts)
        assert 200 < sum(counts)


@pytest.mark.parametrize("recipe, largest", [("standard", 90), ("changer", 20)])
def test_pairs_are_rotated_as_far_as_the_recipe_says(recipe, largest):
    """A blob right of the centre turns around it; seen from the horizontal axis, as flips do not change that."""
    mask = torch.zeros(65, 65, dtype=torch.uint8)
    mask[29:36, 53:60] = 1
    angles = []
    for seed in range(150):
        torch.manual_seed(seed)
        seen = augment(torch.zeros(2, 3, 65, 65, dtype=torch.uint8), mask, recipe, 65)[1]
        if (seen == 255).any():  # rotated
            down, right = (seen == 1).nonzero().double().mean(0) - 32
            angles.append(math.degrees(math.atan2(abs(down), abs(right))))
    assert 0.9 * largest < max(angles) < largest + 1.5 and min(angles) < 0.1 * largest


def test_rotation_interpolates_the_dates_and_never_the_mask():
    torch.manual_seed(1)
    stripes = (torch.arange(32) // 4 % 2).to(torch.uint8).expand(32, 32)
    dates, mask = augment_rotation(255 * stripes.expand(2, 3, 32, 32), stripes)
    assert set(mask.unique().tolist()) == {0, 1, 255}
    assert len(dates.unique()) > 20


def test_changer_exchanges_the_dates_half_the_time():
    exchanged = 0
    for seed in range(200):
        torch.manual_seed(seed)
        dates = torch.stack([torch.full((3, 8, 8), 50), torch.full((3, 8, 8), 200)]).to(torch.uint8)
        result, mask = augment(dates, torch.zeros(8, 8, dtype=torch.uint8), "changer", 8)
        valid = mask != 255
        exchanged += bool(result[0][:, valid].float().mean() > result[1][:, valid].float().mean())
    assert 70 < exchanged < 130


def test_photometric_distortion_is_mild_and_its_own_for_every_date():
    grey = torch.full((3, 8, 8), 128, dtype=torch.uint8)
    results = []
    for seed in range(100):
        torch.manual_seed(seed)
        results.append(float(photometric_distortion(grey).float().mean()))
    assert min(results) >= (128 - 10) * 0.8 - 2
    assert max(results) <= (128 + 10) * 1.2 + 2
    assert len({round(r) for r in results}) > 20
    torch.manual_seed(5)
    dates, _ = augment(torch.stack([grey, grey]), torch.zeros(8, 8, dtype=torch.uint8), "standard", 8)
    assert not torch.equal(dates[0], dates[1])


STEPS = {
    # chances in their order: brightness, contrast first, (contrast), saturation, hue, (contrast)
    "brightness": (True, False, False, False, False),
    "contrast first": (False, True, True, False, False),
    "contrast last": (False, False, False, False, True),
    "saturation": (False, False, True, False, False),
    "hue": (False, False, False, True, False),
}


@pytest.mark.parametrize("step", STEPS)
def test_each_photometric_step_spans_its_range_and_no_more(step, monkeypatch):
    colour = (100, 150, 120)
    image = torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1).expand(3, 2, 2).contiguous()
    found = []
    torch.manual_seed(0)
    for _ in range(300):
        chances = iter(STEPS[step])
        monkeypatch.setattr(augmentation, "_chance", lambda probability, chances=chances: next(chances))
        after = photometric_distortion(image)[:, 0, 0].numpy().astype(float)
        assert next(chances, None) is None
        if step == "brightness":
            assert np.ptp(after - colour) <= 1
            found.append((after - colour).mean())
        elif step.startswith("contrast"):
            found.append((after / colour).mean())
        elif step == "saturation":
            found.append(np.ptp(after) / np.ptp(colour))
        else:
            hues = [colorsys.rgb_to_hsv(*(np.array(values) / 255))[0] for values in (after, colour)]
            found.append(360 * (hues[0] - hues[1]))
    low, high = {"brightness": (-10, 10), "hue": (-20, 20)}.get(step, (0.8, 1.2))
    slack = (high - low) / 20
    assert low - slack <= min(found) <= low + 2 * slack
    assert high - 2 * slack <= max(found) <= high + slack


def test_two_channels_have_neither_saturation_nor_hue(monkeypatch):
    asked = []
    monkeypatch.setattr(augmentation, "_chance", lambda probability: asked.append(probability))
    photometric_distortion(torch.zeros(2, 4, 4, dtype=torch.uint8))
    assert asked == [0.5] * 3
