"""The networks against numbers of the reference implementation (Open-CD), made from known weights on a known input."""

import importlib.util
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bitemporal.errors import WeightsError
from bitemporal.interop.opencd import convert, unused_entries
from bitemporal.interop.opencd.families import FAMILIES
from bitemporal.models import ChangeModel, create_model

GOLDENS = Path(__file__).resolve().parents[1].parent / "shared" / "goldens"
TOO_BIG_FOR_EVERY_RUN = re.compile("ban_l14_.*|ttp")


# Rounding adds up over many layers: what float32 may differ by, where it is more than 1e-5 (float64 is held to that).
FLOAT32_TOLERANCE = {"changer_s101": 3e-5}

# Unscaled attention with scores in the hundreds makes the float32 goldens of these inexact themselves; where they are
# off most, noise of 2e-7 on the features moves the output most.
GOLDEN_IS_ROUNDED = {"lightcdnet_s": 3e-5, "lightcdnet_l": 3e-5}

# Float32 here rounds as the reference does and agrees with these goldens; in double precision their rounding shows.
FLOAT64_TOLERANCE = {"ban_b16_clip_bit": 3e-5, "ban_b32_georsclip_mit_b0": 3e-5}

# With the golden's random weights TTP's encoder is chaotic: the reference's own arithmetic in float64, or on another
# number of threads, is off by up to a third of the largest logit. Its numbers are met in float32 on two threads,
# because the order of operations is the reference's; test_ttp.py holds the network to a second implementation.
FLOAT32_ONLY = {"ttp"}


def case(name: str) -> object:
    return pytest.param(name, marks=[pytest.mark.full] if TOO_BIG_FOR_EVERY_RUN.fullmatch(name) else [])


NAMES = [case(path.stem) for path in sorted(GOLDENS.glob("*.json")) if path.stem in FAMILIES]

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not GOLDENS.is_dir(), reason=f"golden numbers are not at {GOLDENS}"),
]


def fill():
    spec = importlib.util.spec_from_file_location("fill", GOLDENS / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def description(name: str) -> dict:
    return json.loads((GOLDENS / f"{name}.json").read_text())


def reference_state(name: str) -> dict[str, Tensor]:
    golden = description(name)
    array = fill().array
    return {
        key: torch.zeros(shape, dtype=torch.int64)
        if dtype == "int64"
        else torch.from_numpy(array(golden["seed"], key, tuple(shape), golden["gain"]))
        for key, shape, dtype in golden["state_dict"]
    }


def reference_input(name: str) -> tuple[Tensor, Tensor, Tensor]:
    golden = description(name)
    batch, _, height, width = golden["input"]
    images, label = map(torch.from_numpy, fill().inputs(golden["seed"], height, width, batch))
    return images[:, :3], images[:, 3:], label


def imported(name: str) -> ChangeModel:
    model = create_model(name, reference_losses=True)
    model.load_state_dict(convert(name, reference_state(name)))
    return model.eval()


# the goldens are float32 themselves: in double precision what is left is their rounding
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-5)])
@pytest.mark.parametrize("name", NAMES)
def test_imported_weights_give_the_reference_outputs_and_losses(name, dtype, tolerance, request):
    if dtype == torch.float32:
        tolerance = FLOAT32_TOLERANCE.get(name, tolerance)
    if dtype == torch.float64:
        tolerance = FLOAT64_TOLERANCE.get(name, tolerance)
    tolerance = max(tolerance, GOLDEN_IS_ROUNDED.get(name, 0))
    if dtype == torch.float64 and name in FLOAT32_ONLY:
        pytest.skip("the golden numbers are float32, and chaotic")
    if name in FLOAT32_ONLY:
        request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
        torch.set_num_threads(2)
    model = imported(name).to(dtype)
    before, after, label = reference_input(name)
    with torch.no_grad():
        outputs = model.outputs(before.to(dtype), after.to(dtype))
        full = model(before.to(dtype), after.to(dtype))
        losses = model.loss(outputs, label)
    golden = np.load(GOLDENS / f"{name}.npz")
    compared = [(outputs.logits, golden["raw0"])]
    if "raw1" in golden:
        compared.append((outputs.auxiliary["reversed"], golden["raw1"]))
    if "full" in golden and not name.startswith("stanet"):  # its map was thresholded before it was resized
        compared.append((full, golden["full"]))
    for found, expected in compared:
        assert found.shape == expected.shape
        assert np.abs(found.numpy() - expected).max() <= tolerance * np.abs(expected).max()
    expected = description(name)["losses"]
    assert float(sum(losses.values())) == pytest.approx(expected.pop("loss"), rel=1e-5)
    assert sorted(map(float, losses.values())) == pytest.approx(sorted(expected.values()), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_of_the_reference_is_needed_and_none_is_lost(name):
    reference = reference_state(name)
    converted = convert(name, reference)
    used = set(reference) - set(unused_entries(name, reference))
    assert sum(v.numel() for v in converted.values()) == sum(reference[key].numel() for key in used)
    assert converted.keys() == create_model(name).state_dict().keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_an_extra_and_a_misshapen_entry_are_named(name):
    state = reference_state(name)
    unused = unused_entries(name, state)
    keys = [key for key, value in state.items() if value.dim() == 4 and key not in unused]
    del state[keys[-1]]
    state[keys[0]] = state[keys[0]][:, :, :1]
    state["teacher.conv.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        convert(name, state)
    text = str(caught.value)
    assert "not known: teacher.conv.weight" in text
    assert "missing: " in text
    assert ", expected (" in text
    assert f"Open-CD's {name}" in text


def test_a_checkpoint_of_another_network_is_refused():
    with pytest.raises(WeightsError, match="tinycd"):
        convert("tinycd", reference_state("fc_ef"))
    with pytest.raises(WeightsError, match="no Open-CD checkpoint can be read for 'test_fc'"):
        convert("test_fc", reference_state("fc_ef"))
