"""Import of checkpoints: stand-ins for Open-CD's and MTKD-CD's files, and files that have to be refused."""

import hashlib
import json
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from bitemporal.cli.main import main
from bitemporal.errors import WeightsError
from bitemporal.inference import load
from bitemporal.inference.bundle import load_network, save_bundle
from bitemporal.interop.opencd import conversion, convert, families, import_network, read_checkpoint, unused_entries
from bitemporal.interop.opencd.checkpoint import closest_network
from bitemporal.models import create_model
from remedies import follow_options
from test_goldens import GOLDENS, reference_input, reference_state

shared = [
    pytest.mark.shared,
    pytest.mark.skipif(not GOLDENS.is_dir(), reason=f"golden numbers are not at {GOLDENS}"),
]
TENSORS = {"backbone.conv.weight": torch.ones(2, 3), "decode_head.conv.bias": torch.zeros(2)}


def of_opencd(name: str):
    return pytest.param(name, marks=shared)


def run(*words: object) -> int:
    return main(["import", *map(str, words)])


def saved(path: Path, content: object, **options) -> Path:
    torch.save(content, path, **options)
    return path


def with_shared(test):
    for mark in shared:
        test = mark(test)
    return test


@pytest.mark.parametrize("form", ["wrapped", "raw", "distributed", "before torch 1.6"])
@pytest.mark.parametrize("name", [of_opencd("fc_ef"), of_opencd("tinycd")])
def test_a_checkpoint_becomes_a_bundle_that_answers_as_the_reference(name, form, tmp_path, capsys):
    state = reference_state(name)
    content = {
        "raw": state,
        "distributed": {"state_dict": {f"module.{key}": value for key, value in state.items()}},
    }.get(form, {"state_dict": state, "meta": {"iter": 3}, "optimizer": {"step": torch.ones(1)}})
    zipped = form != "before torch 1.6"
    file = saved(tmp_path / "x.pth", content, _use_new_zipfile_serialization=zipped)
    assert run(file, "--model", name, "-o", tmp_path / "bundle") == 0
    before, after, _ = reference_input(name)
    with torch.no_grad():
        found = load_network(tmp_path / "bundle").outputs(before, after).logits.numpy()
    expected = np.load(GOLDENS / f"{name}.npz")["raw0"]
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    text = capsys.readouterr().out
    assert f"{len(state)} entries of {file} (student) are {name}" in text
    assert ("left out, not weights: meta, optimizer" in text) == (form not in ("raw", "distributed"))


def distilled(name: str) -> dict[str, torch.Tensor]:
    """As multi-teacher distillation saves it: the student's plain keys, and three teachers; all weights differ."""
    state = reference_state(name)
    prefixes = {"": 1.0, "teacher_l.": 2.0, "teacher_m.": 3.0, "teacher_s.": 4.0}
    return {
        prefix + key: value * factor if value.is_floating_point() else value
        for prefix, factor in prefixes.items()
        for key, value in state.items()
    }


@pytest.mark.parametrize(
    ("part", "factor"), [(None, 1.0), ("student", 1.0), ("large", 2.0), ("medium", 3.0), ("small", 4.0)]
)
@with_shared
def test_each_part_of_a_distillation_checkpoint_can_be_taken(part, factor, tmp_path, capsys):
    file = saved(tmp_path / "x.pth", {"state_dict": distilled("fc_ef")})
    chosen = [] if part is None else ["--part", part]
    assert run(file, "--model", "fc_ef", "-o", tmp_path / "bundle", *chosen) == 0
    state = load_file(tmp_path / "bundle/weights.safetensors")
    for key, value in convert("fc_ef", reference_state("fc_ef")).items():
        assert torch.equal(state[key], value * factor if value.is_floating_point() else value), key
    text = capsys.readouterr().out
    for other in {"student", "small", "medium", "large"} - {part or "student"}:
        assert f"145 entries of another network in the file: --part {other}" in text


@with_shared
def test_a_part_that_is_not_there_is_refused_with_those_that_are(tmp_path, capsys):
    file = saved(tmp_path / "x.pth", reference_state("fc_ef"))
    assert run(file, "--model", "fc_ef", "-o", tmp_path / "bundle", "--part", "small") == 1
    assert "holds no part 'small'; found student;" in capsys.readouterr().err


@with_shared
def test_the_bundle_says_where_it_is_from(tmp_path):
    meta = {"iter": 7, "experiment_name": "fc_ef_x", "cfg": "c" * 1000, "dataset_meta": {"classes": ["a"]}}
    file = saved(tmp_path / "best.pth", {"state_dict": distilled("fc_ef"), "meta": meta})
    assert run(file, "--model", "fc_ef", "-o", tmp_path / "bundle", "--part", "medium") == 0
    content = json.loads((tmp_path / "bundle/bundle.json").read_text())
    assert content["model"] == "fc_ef"
    imported = content["metadata"]["imported"]
    assert imported["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert imported["bytes"] == file.stat().st_size
    assert (imported["file"], imported["part"]) == ("best.pth", "medium")
    assert imported["meta"] == {"iter": 7, "experiment_name": "fc_ef_x"}
    assert str(tmp_path) not in json.dumps(content)


@with_shared
def test_entries_that_the_reference_never_uses_are_named(tmp_path, capsys):
    state = reference_state("lightcdnet_s")
    file = saved(tmp_path / "x.pth", state)
    assert run(file, "--model", "lightcdnet_s", "-o", tmp_path / "bundle") == 0
    text = capsys.readouterr().out
    unused = json.loads((tmp_path / "bundle/bundle.json").read_text())["metadata"]["imported"]["unused"]
    assert unused and set(unused) < set(state)
    named = [line.strip() for line in text.splitlines() if line.startswith("  ")]
    assert named == [*unused[:10], f"... and {len(unused) - 10} more, all of them in bundle.json"]
    assert f"left out, {len(unused)} entries that the reference holds and never uses" in text


@with_shared
def test_every_entry_that_does_not_fit_is_listed_and_nothing_is_written(tmp_path, capsys):
    whole = saved(tmp_path / "whole.pth", reference_state("fc_ef"))
    assert run(whole, "--model", "fc_ef", "-o", tmp_path / "bundle") == 0
    first = (tmp_path / "bundle/weights.safetensors").read_bytes()
    state = reference_state("fc_ef")
    del state["backbone.bn21.running_mean"]
    state["backbone.conv11.weight"] = state["backbone.conv11.weight"][:, :3]
    state["backbone.more.weight"] = torch.ones(1)
    capsys.readouterr()
    assert run(saved(tmp_path / "x.pth", state), "--model", "fc_ef", "-o", tmp_path / "bundle") == 1
    text = capsys.readouterr().err
    lines = [line.strip() for line in text.splitlines() if line.startswith("  ")]
    assert len(lines) == 3
    assert "not known: backbone.more.weight" in lines
    assert any(line.startswith("missing: ") and line.endswith("running_mean") for line in lines)
    assert any(line.endswith("is (16, 3, 3, 3), expected (16, 6, 3, 3)") for line in lines)
    assert (tmp_path / "bundle/weights.safetensors").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "whole.pth", "x.pth"]


@pytest.mark.parametrize(
    ("held", "asked"),
    [("fc_siam_diff", "tinycd"), ("fc_siam_conc", "fc_siam_diff"), ("changer_mit_b0", "changer_mit_b1")],
)
@with_shared
def test_the_wrong_name_is_answered_with_the_right_one(held, asked, tmp_path):
    file = saved(tmp_path / "x.pth", reference_state(held))
    with pytest.raises(WeightsError, match=rf"all its entries fit {held}: .* \(--model {held}\)"):
        import_network(file, asked)


@with_shared
def test_the_nearest_network_is_found_in_spite_of_a_lost_entry():
    state = reference_state("tinycd")
    state.pop("backbone._first_mix._mixing._convmix.0.bias")
    assert closest_network(state) == ("tinycd", 1)
    assert closest_network(TENSORS) is None


class Renamed(torch.nn.Module):
    """Entries of every kind that a renaming table can make."""

    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList([torch.nn.Conv2d(2, 3, 1), torch.nn.Conv2d(2, 3, 3)])
        self.query, self.values = torch.nn.Linear(4, 2), torch.nn.Linear(4, 6)
        self.joined = torch.nn.Linear(4, 7)


def test_a_renaming_table_renames_splits_joins_and_leaves_out(monkeypatch):
    rules = {
        "net.layer*.conv": "blocks.*",
        "net.all_*": ("query.*", "values.*"),
        "net.second": "joined",
        "net.first": "joined",
        "net.aid*": None,
        "net.*": "never reached",
    }
    monkeypatch.setitem(families.FAMILIES, "test_renamed", rules)
    monkeypatch.setattr(conversion, "create_model", lambda name: Renamed())
    torch.manual_seed(0)
    state = {
        "net.layer0.conv.weight": torch.rand(3, 2),  # linear there, a 1 x 1 convolution here
        "net.layer0.conv.bias": torch.rand(3),
        "net.layer1.conv.weight": torch.rand(3, 2, 3, 3),
        "net.layer1.conv.bias": torch.rand(3),
        "net.all_weight": torch.rand(8, 4),
        "net.all_bias": torch.rand(8),
        "net.first.weight": torch.rand(3, 4, 1, 1),
        "net.first.bias": torch.rand(3),
        "net.second.weight": torch.rand(4, 4, 1, 1),
        "net.second.bias": torch.rand(4),
        "net.aid2.weight": torch.rand(1),
    }
    converted = convert("test_renamed", state)
    Renamed().load_state_dict(converted)
    assert torch.equal(converted["blocks.0.weight"].flatten(1), state["net.layer0.conv.weight"])
    assert torch.equal(converted["blocks.1.weight"], state["net.layer1.conv.weight"])
    for kind in ("weight", "bias"):
        assert torch.equal(converted[f"query.{kind}"], state[f"net.all_{kind}"][:2])
        assert torch.equal(converted[f"values.{kind}"], state[f"net.all_{kind}"][2:])
        joined = torch.cat([state[f"net.second.{kind}"].flatten(), state[f"net.first.{kind}"].flatten()])
        assert torch.equal(converted[f"joined.{kind}"].flatten(), joined)
    assert unused_entries("test_renamed", state) == ["net.aid2.weight"]


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("net.all_weight", torch.rand(9, 4), r"query.weight is \(9, 4\), expected \(2, 4\)"),
        ("net.second.weight", torch.rand(4, 5), r"joined.weight is \(4, 5\), expected \(7, 4\)"),
        ("net.second.bias", torch.tensor(1.0), r"joined.bias is \(\), expected \(7,\)"),
        ("net.layer0.conv.more", torch.rand(1), "not in the network: blocks.0.more"),
        ("net.layers0.conv.weight.x.y", torch.rand(1), "not in the network: blocks.s0.weight.x.y"),
        ("net.layer.conv.weight", torch.rand(1), "not known: net.layer.conv.weight"),
    ],
)
def test_an_entry_that_cannot_be_renamed_split_or_joined_is_listed(key, value, problem, monkeypatch):
    rules = {"net.layer*.conv": "blocks.*", "net.all_*": ("query.*", "values.*"), "net.second": "joined"}
    monkeypatch.setitem(families.FAMILIES, "test_renamed", rules | {"net.first": "joined"})
    monkeypatch.setattr(conversion, "create_model", lambda name: Renamed())
    state = {"net.first.weight": torch.rand(3, 4), "net.first.bias": torch.rand(3), key: value}
    with pytest.raises(WeightsError, match=problem):
        convert("test_renamed", state)


def test_a_state_dict_of_no_network_here_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="no network here has such keys"):
        import_network(saved(tmp_path / "x.pth", TENSORS), "fc_ef")


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(b"mine")
    assert run(tmp_path / "x.pth", "--model", "fc_ef", "-o", tmp_path / "pictures") == 1
    assert "exists and is not a bundle by bitemporal, or holds other files as well" in capsys.readouterr().err
    assert (tmp_path / "pictures/a.png").read_bytes() == b"mine"


def test_unknown_networks_and_those_without_an_importer_are_refused(tmp_path, capsys):
    file = saved(tmp_path / "x.pth", TENSORS)
    assert run(file, "--model", "tinydc", "-o", tmp_path / "b") == 1
    assert "did you mean tinycd" in capsys.readouterr().err
    assert run(file, "--model", "test_fc", "-o", tmp_path / "b") == 1
    assert "no Open-CD checkpoint can be read for 'test_fc'" in capsys.readouterr().err


class Evil:
    """Makes a file when it is unpickled by anything that runs code."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle 2", "pickle 5"])
def test_a_file_that_would_run_code_is_refused_and_does_not_run_it(how, tmp_path, capsys):
    file, marker = tmp_path / "x.pth", tmp_path / "marker"
    content = {"state_dict": TENSORS, "meta": {"hook": Evil(marker)}}
    if how in ("zip", "legacy"):
        torch.save(content, file, _use_new_zipfile_serialization=how == "zip")
    else:
        file.write_bytes(pickle.dumps({"state_dict": {}, "meta": Evil(marker)}, protocol=int(how[-1])))
    assert run(file, "--model", "fc_ef", "-o", tmp_path / "bundle") == 1
    text = capsys.readouterr().err
    assert "refused, because reading it would run code" in text
    assert "system" in text
    assert "save its weights alone there: torch.save(" in text
    assert not marker.exists()
    assert not (tmp_path / "bundle").exists()
    pickle.loads(pickle.dumps(Evil(marker)))
    assert marker.exists()  # so the file would indeed have run it


def test_the_names_let_through_for_logs_do_nothing(tmp_path):
    """By getattr and a class that torch allows, a file could reach a method; here it only reaches an empty object."""

    class Reaching:
        def __reduce__(self):
            return getattr, (OrderedDict, "fromkeys")

    assert callable(pickle.loads(pickle.dumps(Reaching())))
    with pytest.raises(WeightsError, match=r"x\.pth: .*method \(getattr\)"):
        read_checkpoint(saved(tmp_path / "x.pth", {**TENSORS, "method": Reaching()}))


def test_a_checkpoint_of_mmengine_with_its_log_is_read(tmp_path, monkeypatch):
    """The log of mmengine is pickled as a class, numpy arrays and, by getattr, static methods."""
    module = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self):
            self._log_history = np.arange(3.0)
            self.best = np.float64(0.7)

        def __getstate__(self):
            return self.__dict__ | {"statistics_methods": {"mean": HistoryBuffer.mean}}

        @staticmethod
        def mean():
            raise AssertionError("called")

    for thing in (HistoryBuffer, HistoryBuffer.mean):
        thing.__module__ = module.__name__
        thing.__qualname__ = thing.__qualname__.split(".<locals>.")[1]
    module.HistoryBuffer = HistoryBuffer
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    hub = {"log_scalars": {"train/loss": HistoryBuffer()}}
    meta = {"epoch": 1, "time": "now", "best": np.float64(0.5)}
    file = saved(tmp_path / "x.pth", {"state_dict": TENSORS, "meta": meta, "message_hub": hub})
    named = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    assert {"mmengine.logging.history_buffer.HistoryBuffer", "builtins.getattr", "numpy.ndarray"} <= set(named)
    checkpoint = read_checkpoint(file)
    assert checkpoint.entries.keys() == TENSORS.keys()
    assert torch.equal(checkpoint.entries["backbone.conv.weight"], torch.ones(2, 3))
    assert checkpoint.others == ("meta", "message_hub")
    assert checkpoint.meta == {"epoch": 1, "time": "now"}


NOT_CHECKPOINTS = {
    "a web page": b"<!DOCTYPE html><html>",
    "nothing": b"",
    "noise": bytes(range(256)) * 8,
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n",
}


@pytest.mark.parametrize("kind", NOT_CHECKPOINTS)
def test_what_is_no_checkpoint_is_said_to_be_none(kind, tmp_path):
    file = tmp_path / "x.pth"
    file.write_bytes(NOT_CHECKPOINTS[kind])
    with pytest.raises(WeightsError, match=r"not a PyTorch checkpoint, .* Download it again") as caught:
        read_checkpoint(file)
    assert str(file) in str(caught.value)


def test_a_truncated_checkpoint_and_another_archive_are_refused(tmp_path):
    whole = saved(tmp_path / "whole.pth", TENSORS).read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("readme.txt", "weights elsewhere")
    for name in ("half.pth", "other.pth"):
        with pytest.raises(WeightsError, match=r"not a PyTorch checkpoint, .* Download it again"):
            read_checkpoint(tmp_path / name)
    for path in (tmp_path, tmp_path / "none.pth"):
        with pytest.raises(WeightsError, match=r"(no such file|is a folder, not a file)"):
            read_checkpoint(path)


def test_one_bit_that_has_changed_in_a_checkpoint_is_noticed(tmp_path):
    tensors = {**TENSORS, "big": torch.arange(1000.0)}
    path = saved(tmp_path / "x.pth", tensors)
    assert read_checkpoint(path).entries.keys() == tensors.keys()
    content = bytearray(path.read_bytes())
    content[content.index(tensors["big"].numpy().tobytes()) + 400] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.pth: .*the checksum of its part .*Download it again"):
        read_checkpoint(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_finite_numbers_are_not_imported(tmp_path, value):
    state = create_model("fc_ef").state_dict()
    name = next(iter(state))
    state[name].view(-1)[3] = value
    with pytest.raises(WeightsError, match=rf"x\.pth: .*{name} holds NaN or infinity in 1 of"):
        import_network(saved(tmp_path / "x.pth", state), "fc_ef")


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_checkpoint_that_is_a_pipe_or_a_device_is_refused_at_once(tmp_path, ending):
    os.mkfifo(tmp_path / f"pipe.{ending}")
    (tmp_path / f"zero.{ending}").symlink_to("/dev/zero")
    for name, kind in (("pipe", "a pipe"), ("zero", "a device")):
        with pytest.raises(WeightsError, match=rf"{name}\.{ending}: is {kind}, not a file"):
            read_checkpoint(tmp_path / f"{name}.{ending}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"state_dict": {**TENSORS, "epoch": 3}}, r"epoch \(int\)"),
        ({"mine": TENSORS, "epoch": 3}, r"x\.pth: .*: mine \(dict\), epoch \(int\)"),
        ({f"value{i}": i for i in range(30)}, r"value8 \(int\), \.\.\. and 21 more"),
        ({"state_dict": {}}, "expected a state dict"),
        ([torch.ones(1)], "holds list, expected a state dict"),
    ],
)
def test_what_is_no_state_dict_is_refused_by_the_entry(content, said, tmp_path):
    with pytest.raises(WeightsError, match=said):
        read_checkpoint(saved(tmp_path / "x.pth", content))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"state_dict": {**TENSORS, "ema_backbone_conv_weight": torch.ones(2, 3)}}, "EMA.* such as ema_backbone_conv"),
    ],
)
def test_moving_averages_are_never_taken_for_the_weights_unasked(content, said, tmp_path):
    with pytest.raises(WeightsError, match=said):
        read_checkpoint(saved(tmp_path / "x.pth", content))


@with_shared
def test_averages_that_mmengine_put_in_the_place_of_the_weights_are_pointed_out(tmp_path, capsys):
    state = reference_state("fc_ef")
    averaged = {"state_dict": state, "ema_state_dict": {f"module.{key}": value for key, value in state.items()}}
    assert run(saved(tmp_path / "x.pth", averaged), "--model", "fc_ef", "-o", tmp_path / "bundle") == 0
    assert "these weights are the moving averages" in capsys.readouterr().out


WRAPPED = {
    "BIT_CD's trainer": {"epoch_id": 3, "model_G_state_dict": TENSORS, "optimizer_G_state_dict": {"state": {}}},
    "a key of its own": {"net": TENSORS},
    "Lightning": {
        "state_dict": {**{f"model.{key}": value for key, value in TENSORS.items()}, "criterion.weight": torch.ones(2)},
        "hyper_parameters": {"lr": 0.1},
        "pytorch-lightning_version": "2.4.0",
    },
    "Lightning around DistributedDataParallel": {"state_dict": {f"net.module.{k}": v for k, v in TENSORS.items()}},
    "a compiled network": {f"_orig_mod.{key}": value for key, value in TENSORS.items()},
    "weights next to their averages": {**TENSORS, **{f"ema.{key}": value + 1 for key, value in TENSORS.items()}},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_the_state_dict_is_found_where_trainers_keep_it(kind, tmp_path):
    checkpoint = read_checkpoint(saved(tmp_path / "x.pth", WRAPPED[kind]))
    assert not checkpoint.averaged
    assert checkpoint.entries.keys() == TENSORS.keys()
    assert all(torch.equal(checkpoint.entries[key], value) for key, value in TENSORS.items())


@pytest.mark.parametrize(
    "content",
    [
        {"module." + key: value for key, value in TENSORS.items()} | {"steps": torch.tensor(3)},
        {"module." + key: value for key, value in TENSORS.items()} | {"n_averaged": torch.tensor(3)},
        {"state_dict": {"ema_model." + key: value for key, value in TENSORS.items()}},
        {"ema_state_dict": {"module." + key: value for key, value in TENSORS.items()}, "meta": {}},
    ],
)
def test_averages_are_taken_where_there_is_nothing_else_and_said_to_be_averages(content, tmp_path):
    checkpoint = read_checkpoint(saved(tmp_path / "x.pth", content))
    assert checkpoint.averaged
    assert checkpoint.entries.keys() == TENSORS.keys()


def snunet_state(width: int) -> dict[str, torch.Tensor]:
    """Random weights under the names of SNUNet's own code, Siam-NestedUNet."""
    random = torch.Generator().manual_seed(1)
    state = {}

    def layer(name, *shape, bias=True):
        state[f"{name}.weight"] = torch.randn(*shape, generator=random) * 0.1
        if bias:
            state[f"{name}.bias"] = torch.randn(shape[0], generator=random) * 0.1

    widths = [width * 2**level for level in range(5)]
    for column in range(5):
        for level in range(5 - column):
            below = widths[level + 1] if level < 4 else 0
            first = 3 if level == 0 else widths[level - 1]
            into = first if column == 0 else (column + 1) * widths[level] + below
            for i, channels in ((1, into), (2, widths[level])):
                layer(f"conv{level}_{column}.conv{i}", widths[level], channels, 3, 3)
                norm = f"conv{level}_{column}.bn{i}"
                for kind in ("weight", "bias", "running_mean"):
                    state[f"{norm}.{kind}"] = torch.randn(widths[level], generator=random) * 0.1 + (kind == "weight")
                state[f"{norm}.running_var"] = torch.rand(widths[level], generator=random) + 0.5
                state[f"{norm}.num_batches_tracked"] = torch.tensor(1)
            if level and level + column < 5:
                layer(f"Up{level}_{column}.up", widths[level], widths[level], 2, 2)
    for name, channels, inner in (("ca", 4 * width, width // 4), ("ca1", width, width // 4)):
        layer(f"{name}.fc1", inner, channels, 1, 1, bias=False)
        layer(f"{name}.fc2", channels, inner, 1, 1, bias=False)
    layer("conv_final", 2, 4 * width, 1, 1)
    return state


def snunet_logits(state, before, after):
    """The network of the paper with channel attention, written down from its figure; images as they are, 0..255."""

    def convolve(name, x, padding=0):
        return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), padding=padding)

    def norm(name, x):
        mean, var, weight, bias = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias)

    def block(name, x):
        straight = convolve(f"{name}.conv1", x, 1)
        inner = convolve(f"{name}.conv2", norm(f"{name}.bn1", straight).relu(), 1)
        return (norm(f"{name}.bn2", inner) + straight).relu()

    def attention(name, x):
        pooled = (x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True))
        return sum(convolve(f"{name}.fc2", convolve(f"{name}.fc1", p).relu()) for p in pooled).sigmoid()

    def pyramid(x, levels):
        found = [block("conv0_0", x)]
        for level in range(1, levels):
            found.append(block(f"conv{level}_0", F.max_pool2d(found[-1], 2)))
        return found

    first, second = pyramid(before, 4), pyramid(after, 5)
    rows = [[a, b] for a, b in zip(first, second, strict=False)]
    below = second[1:]
    for column in range(1, 5):
        for level in range(5 - column):
            name = f"Up{level + 1}_{column - 1}.up"
            raised = F.conv_transpose2d(below[level], state[f"{name}.weight"], state[f"{name}.bias"], stride=2)
            rows[level].append(block(f"conv{level}_{column}", torch.cat([*rows[level], raised], 1)))
        below = [rows[level][-1] for level in range(1, 5 - column)]
    results = rows[0][2:]
    joined = torch.cat(results, 1)
    return convolve(
        "conv_final", attention("ca", joined) * (joined + attention("ca1", sum(results)).repeat(1, 4, 1, 1))
    )


def whole_network(state, monkeypatch, marker: Path | None = None):
    """A network of a module of its own that holds these entries."""
    package = types.ModuleType("their_models")

    class Net(torch.nn.Module):
        def __setstate__(self, content):
            if marker is not None:
                marker.touch()
            super().__setstate__(content)

    Net.__module__, Net.__qualname__, package.Net = package.__name__, "Net", Net
    monkeypatch.setitem(sys.modules, package.__name__, package)
    root = Net()
    for key, value in state.items():
        *path, last = key.split(".")
        module = root
        for name in path:
            if name not in dict(module.named_children()):
                module.add_module(name, Net())
            module = getattr(module, name)
        if last.startswith(("running", "num")):
            module.register_buffer(last, value)
        else:
            module.register_parameter(last, torch.nn.Parameter(value))
    return root


@pytest.mark.parametrize("form", ["state dict", "whole", "whole, in DataParallel, under a key"])
def test_snunet_of_its_own_code_answers_as_it_does_there(form, tmp_path, monkeypatch, capsys):
    state = snunet_state(16)
    marker = tmp_path / "marker"
    network = whole_network(state, monkeypatch, marker)
    content = {"state dict": state, "whole, parallel, under a key": {"net": torch.nn.DataParallel(network)}}
    file = saved(tmp_path / "x.pt", content.get(form, network))
    monkeypatch.delitem(sys.modules, "their_models")  # its code is elsewhere
    assert run(file, "--model", "snunet_c16", "-o", tmp_path / "b") == 0, capsys.readouterr().err
    assert not marker.exists()
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3), np.uint8)
    expected = snunet_logits(state, *(torch.from_numpy(image).permute(2, 0, 1)[None].float() for image in images))
    found = load(tmp_path / "b", "cpu").predict(*images).probability
    np.testing.assert_allclose(found, expected.softmax(1)[0, 1].numpy(), atol=2e-5)
    assert run(file, "--model", "snunet_c32", "-o", tmp_path / "c") == 1
    text = capsys.readouterr().err
    follow_options(text, ["import", str(file), "--model", "snunet_c32", "-o", str(tmp_path / "c")])


FOREIGN = {
    "BIT_CD's base_resnet18": (["resnet.conv1.weight 64 3 7 7", "conv_pred.weight 32 512 3 3"], "bit_r18"),
    "BIT_CD's base_transformer_pos_s4_dd8_dedim8": (
        ["resnet.conv1.weight 64 3 7 7", "conv_pred.weight 32 256 3 3", "pos_embedding 1 8 32"]
        + [f"transformer_decoder.layers.{i}.0.fn.fn.to_q.weight 64 32" for i in range(8)],
        "bit_r18",
    ),
    "BIT_CD's base_transformer_pos_s4_dd8": (
        ["resnet.conv1.weight 64 3 7 7", "conv_pred.weight 32 256 3 3", "pos_embedding 1 8 32"]
        + [f"transformer_decoder.layers.{i}.0.fn.fn.to_q.weight 512 32" for i in range(8)],
        "bit_r18",
    ),
    "ChangeFormer's ChangeFormerV6": (["Tenc_x2.patch_embed2.proj.weight 128 64 7 7"], "changeformer_mit_b1"),
    "ChangeFormer's ChangeFormerV5": (["Tenc_x2.patch_embed2.proj.weight 128 64 4 4"], "changeformer_mit_b1"),
    "ChangeFormer's ChangeFormerV3": (["Tenc.x 1", "TDec.pix_shuffle_conv.weight 1"], "changeformer_mit_b1"),
    "ChangeFormer's SiamUnet_conc": (
        ["conv11.weight 16 3 3 3", "conv11d.weight 16 2 3 3", "upconv4.weight 1", "conv43d.weight 384 128 3 3"],
        "fc_siam_conc",
    ),
    "ChangeFormer's Unet": (
        ["conv11.weight 16 6 3 3", "conv11d.weight 16 2 3 3", "upconv4.weight 1", "conv43d.weight 256 128 3 3"],
        "fc_ef",
    ),
    "ChangeFormer's DTCDSCN": (["firstconv.weight 64 3 7 7", "encoder1.0.conv1.weight 1"], "`bitemporal models`"),
    "SNUNet's Siam_NestedUNet_Conc": (
        ["conv0_0.conv1.weight 32 3 3 3", "Up1_0.up.weight 1", "conv_final.weight 2 8 1 1", "final1.weight 2 32 1 1"],
        "snunet_c32",
    ),
}


@pytest.mark.parametrize("title", FOREIGN)
def test_networks_of_other_projects_are_named_with_the_nearest_one_here(title, tmp_path):
    entries, nearest = FOREIGN[title]
    state = {name: torch.zeros([int(n) for n in shape]) for name, *shape in map(str.split, entries)}
    file = saved(tmp_path / "best_ckpt.pt", {"best_val_acc": np.float64(0.9), "model_G_state_dict": state})
    with pytest.raises(WeightsError) as caught:
        import_network(file, "bit_r18")
    text = str(caught.value)
    assert f"holds {title} (under 'model_G_state_dict')" in text or title.endswith("DTCDSCN")
    assert nearest in text
    assert "_Inert" not in text and len(text) < 600


def test_own_weights_and_checkpoints_are_imported(tmp_path):
    model = create_model("test_tinycd")
    save_bundle(tmp_path / "b", model)
    torch.save({"format": 3, "step": 5, "model": model.state_dict(), "optimiser": {}}, tmp_path / "last.ckpt")
    for file in (tmp_path / "b" / "weights.safetensors", tmp_path / "last.ckpt"):
        imported = import_network(file, "test_tinycd")
        assert imported.provenance["framework"] == "bitemporal"
        for key, value in model.state_dict().items():
            assert torch.equal(imported.model.state_dict()[key], value)
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(WeightsError, match="not a safetensors file"):
        read_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": TENSORS, "hook": "EVIL"},
        {"model_G_state_dict": TENSORS, "hook": "EVIL"},
        {**TENSORS, "hook": "EVIL"},
    ],
)
def test_the_remedy_for_a_file_with_code_works_as_it_is_printed(content, tmp_path, monkeypatch):
    marker = tmp_path / "marker"
    content = {
        key: Evil(marker) if value == "EVIL" else value for key, value in content.items() if isinstance(key, str)
    }
    file = saved(tmp_path / "x.pth", content)
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(file)
    monkeypatch.chdir(tmp_path)
    exec(str(caught.value).partition("alone there: ")[2], {"torch": torch})
    assert marker.exists()  # the remedy is for those who trust the file
    assert read_checkpoint("weights.pth").entries.keys() == TENSORS.keys()


@pytest.mark.parametrize("under", [None, "net"])
def test_the_remedy_for_a_whole_network_of_an_old_torch_works_where_its_code_is(under, tmp_path, monkeypatch):
    network = whole_network(snunet_state(4), monkeypatch)
    network.activation = torch.nn.ReLU()  # some class of torch, as every network has
    content = network if under is None else {under: network, "epoch": 3}
    file = saved(tmp_path / "x.pt", content, _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match=r"their_models\.Net") as caught:
        read_checkpoint(file)
    monkeypatch.chdir(tmp_path)
    exec(str(caught.value).partition("alone there: ")[2], {"torch": torch})
    assert read_checkpoint("weights.pth").entries.keys() == network.state_dict().keys()


def test_never_more_than_ten_names_are_listed(tmp_path):
    state = {f"their.layer{i}.weight": torch.ones(1) for i in range(50)}
    with pytest.raises(WeightsError) as caught:
        import_network(saved(tmp_path / "x.pth", state), "fc_ef")
    assert len(str(caught.value).splitlines()) == 11


def test_the_parts_of_a_distillation_checkpoint_are_proposed_as_options(tmp_path, capsys):
    state = {f"module.{key}": value for key, value in create_model("test_tinycd").state_dict().items()}
    command = ["import", str(saved(tmp_path / "x.pth", state)), "--model", "test_tinycd", "-o", str(tmp_path / "b")]
    assert main([*command, "--part", "small"]) == 1
    assert follow_options(capsys.readouterr().err, [*command, "--part", "small"]) == [["--part", "student"]]


def test_a_bundle_that_holds_the_checkpoint_is_not_replaced(tmp_path, capsys):
    model = create_model("test_tinycd")
    save_bundle(tmp_path / "b", model)
    file = saved(tmp_path / "b" / "x.pth", model.state_dict())
    assert run(file, "--model", "test_tinycd", "-o", tmp_path / "b") == 1
    text = capsys.readouterr().err
    assert file.is_file()
    follow_options(text, ["import", str(file), "--model", "test_tinycd", "-o", str(tmp_path / "b")])


OWN = {
    "model. and module.": lambda state: {"state_dict": {f"model.module.{key}": value for key, value in state.items()}},
    "module. and model.": lambda state: {f"module.model.{key}": value for key, value in state.items()},
    "averages under a key": lambda state: {"state_dict_ema": {f"module.{key}": value for key, value in state.items()}},
    "weights before averages": lambda state: {
        "state_dict": state,
        "state_dict_ema": {key: torch.zeros_like(value) for key, value in state.items()},
    },
}


@pytest.mark.parametrize("kind", [*OWN, "safetensors", "safetensors of another name", "a whole network"])
def test_own_weights_are_found_in_what_trainers_write(kind, tmp_path, capsys):
    model = create_model("test_tinycd")
    state, file = model.state_dict(), tmp_path / "x.pth"
    if kind.startswith("safetensors"):
        file = tmp_path / ("x.bin" if kind.endswith("name") else "x.safetensors")
        save_file(state, file, {"format": "pt", "epoch": "3"})
    else:
        torch.save(OWN[kind](state) if kind in OWN else model, file)
    assert run(file, "--model", "test_tinycd", "-o", tmp_path / "b") == 0, capsys.readouterr().err
    stored = load_file(tmp_path / "b/weights.safetensors")
    assert stored.keys() == state.keys() and all(torch.equal(stored[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    ("holds", "asked"), [("snunet_c32", "snunet_c16"), ("tinycd", "bit_r18"), ("fc_ef", "test_fc")]
)
def test_own_weights_of_another_network_name_it(holds, asked, tmp_path, capsys):
    file = saved(tmp_path / "x.pth", {"state_dict": create_model(holds).state_dict()})
    command = ["import", str(file), "--model", asked, "-o", str(tmp_path / "b")]
    assert main(command) == 1
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 11
    assert follow_options(text, command) == [["--model", holds]]


def test_own_weights_of_other_options_list_what_differs(tmp_path, capsys):
    file = saved(tmp_path / "x.pth", create_model("test_tinycd", in_channels=4).state_dict())
    assert run(file, "--model", "test_tinycd", "-o", tmp_path / "b") == 1
    text = capsys.readouterr().err
    assert "a test_tinycd of other options" in text
    assert "encoder.conv_stem.weight is (24, 4, 3, 3), expected (24, 3, 3, 3)" in text


@pytest.mark.parametrize("under", [None, "optimizer", "optimizer_states"])
def test_a_file_of_an_optimiser_alone_is_named_as_that(under, tmp_path, capsys):
    state = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}
    content = state if under is None else {under: [state] if under.endswith("s") else state, "epoch": 3}
    assert run(saved(tmp_path / "x.pth", content), "--model", "test_tinycd", "-o", tmp_path / "b") == 1
    assert "holds the state of an optimiser but no weights" in capsys.readouterr().err
