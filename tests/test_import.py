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
from safetensors.torch import load_file

from bitemporal.cli.main import main
from bitemporal.errors import WeightsError
from bitemporal.inference.bundle import load_network
from bitemporal.interop.opencd import conversion, convert, families, import_network, read_checkpoint, unused_entries
from bitemporal.interop.opencd.checkpoint import closest_network
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
    named = [line.strip() for line in text.splitlines() if line.startswith("  ")]
    assert named
    assert set(named) < set(state)
    assert f"left out, {len(named)} entries that the reference holds and never uses" in text
    assert json.loads((tmp_path / "bundle/bundle.json").read_text())["metadata"]["imported"]["unused"] == named


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
    assert "exists and is not a bundle; choose another" in capsys.readouterr().err
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
    with pytest.raises(WeightsError, match=r"x\.pth: .*method \(_Inert\)"):
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
    with pytest.raises(WeightsError, match=r"not a PyTorch checkpoint, .* Fetch it again") as caught:
        read_checkpoint(file)
    assert str(file) in str(caught.value)


def test_a_truncated_checkpoint_and_another_archive_are_refused(tmp_path):
    whole = saved(tmp_path / "whole.pth", TENSORS).read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("readme.txt", "weights elsewhere")
    for name in ("half.pth", "other.pth"):
        with pytest.raises(WeightsError, match=r"not a PyTorch checkpoint, .* Fetch it again"):
            read_checkpoint(tmp_path / name)
    for path in (tmp_path, tmp_path / "none.pth"):
        with pytest.raises(WeightsError, match="no such file"):
            read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"state_dict": {**TENSORS, "epoch": 3}}, r"epoch \(int\)"),
        ({"model": TENSORS, "epoch": 3}, r"x\.pth: .*: model \(dict\), epoch \(int\)"),
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
        ({"module.a": torch.ones(1), "steps": torch.tensor(3)}, "averaged model"),
        ({"ema_state_dict": TENSORS, "meta": {}}, "only moving averages .*save them again"),
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
