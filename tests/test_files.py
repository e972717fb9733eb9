"""Files on real disks: permissions that the umask grants, disks that are full."""

import os
import resource
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

from bitemporal import create_model
from bitemporal.cli.main import main
from bitemporal.errors import OutputError
from bitemporal.files import not_there
from bitemporal.inference.bundle import save_bundle
from bitemporal.outputs import replacing, replacing_folder, write_json
from bitemporal.synthetic import write_folder


@contextmanager
def full_disk(free: int):
    """No file may grow beyond so many bytes: to a writer this looks like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def umask(mask: int):
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


def modes(folder):
    return {path.name: oct(path.stat().st_mode & 0o777) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("mask", "expected"), [(0o022, "0o644"), (0o002, "0o664"), (0o077, "0o600")])
def test_files_have_the_permissions_that_the_umask_grants(mask, expected, tmp_path):
    with umask(mask):
        save_bundle(tmp_path / "bundle", create_model("test_tinycd"))
        write_json(tmp_path / "a.json", {})
        with replacing(tmp_path / "strict") as temporary:  # as libraries do that write a private file, then rename it
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o400))
            temporary.chmod(0o600)
    found = modes(tmp_path)
    assert set(found) == {"weights.safetensors", "bundle.json", "a.json", "strict"}
    assert set(found.values()) == {expected}


def train(data, out, *more):
    words = ["train", "--model", "test_tinycd", "--data", str(data), "--out", str(out), "--max-steps", "2"]
    return main([*words, "--validate-every", "1", "--batch-size", "2", "--crop-size", "32", "--workers", "0", *more])


def test_all_files_of_a_run_have_the_permissions_that_the_umask_grants(tiny_pairs, tmp_path):
    with umask(0o027):
        assert train(tiny_pairs, tmp_path / "r") == 0
    assert "weights.safetensors" in modes(tmp_path)
    assert set(modes(tmp_path).values()) == {"0o640"}


@pytest.mark.parametrize(("free", "file"), [(0, "partition.csv"), (60_000, "best.safetensors"), (250_000, "last.ckpt")])
def test_a_disk_that_is_full_while_training_is_one_line(free, file, tiny_pairs, tmp_path, capsys):
    out = tmp_path / "r"
    with full_disk(free):
        assert train(tiny_pairs, out) == 1
    said = capsys.readouterr().err
    assert f"{file}: cannot be written" in said.splitlines()[-1] and "free space" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert not list(out.rglob("*.tmp"))
    assert train(tiny_pairs, out) == 0  # the remedy: with more space, the same command again


def test_a_disk_that_is_full_while_a_bundle_is_written_names_the_bundle(tmp_path):
    model = create_model("test_tinycd")
    with full_disk(1000), pytest.raises(OutputError, match=r"/bundle/weights.safetensors: cannot be written"):
        save_bundle(tmp_path / "bundle", model)
    assert not list(tmp_path.iterdir())


def test_a_bundle_that_is_there_stays_when_the_disk_is_full(tmp_path):
    save_bundle(tmp_path / "bundle", create_model("test_tinycd"))
    before = (tmp_path / "bundle/weights.safetensors").read_bytes()
    with full_disk(1000), pytest.raises(OutputError):
        save_bundle(tmp_path / "bundle", create_model("test_bit"))
    assert (tmp_path / "bundle/weights.safetensors").read_bytes() == before


def test_a_disk_that_is_full_while_pairs_are_drawn(tmp_path):
    for workers in (1, 2):
        with full_disk(500), pytest.raises(OutputError, match=r"/pairs: cannot be written"):
            write_folder(tmp_path / "pairs", {"train": 4}, size=32, workers=workers)
        assert not list(tmp_path.iterdir())


def write_text(path):
    path.write_text("x" * 5000, encoding="utf-8")


def write_picture(path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")


def write_checkpoint(path):
    torch.save(torch.zeros(5000), path)


@pytest.mark.parametrize("write", [write_text, write_picture, write_checkpoint])
def test_a_full_disk_keeps_what_stood_there(write, tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    with full_disk(1000), pytest.raises(OutputError, match="file: cannot be written"):
        with replacing(target, RuntimeError) as temporary:
            write(temporary)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_of_a_folder_that_cannot_be_written_is_named_by_its_place(tmp_path):
    with full_disk(2), pytest.raises(OutputError, match=f"{tmp_path}/folder/a.json: cannot"):
        with replacing_folder(tmp_path / "folder") as folder:
            write_json(folder / "a.json", {"long": "text"})


def test_a_path_that_is_not_there_is_said_absolutely_with_names_like_it(tmp_path, monkeypatch):
    (tmp_path / "demo-pairs" / "train").mkdir(parents=True)
    (tmp_path / "scenes.csv").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    assert (
        not_there("demo_pairs", "folder")
        == f"{tmp_path}/demo_pairs: no such folder (did you mean {tmp_path}/demo-pairs?)"
    )
    assert not_there("Demo-Pairs/train", "folder").endswith(f"(did you mean {tmp_path}/demo-pairs/train?)")
    assert not_there("./x/../scene.CSV", "file").startswith(f"{tmp_path}/scene.CSV: no such file (did you mean ")
    assert not_there("zzz", "file") == f"{tmp_path}/zzz: no such file"
    assert not_there("zzz/a.png", "file") == f"{tmp_path}/zzz/a.png: no such file ({tmp_path} has no zzz)"
    assert not_there("demo-pairs", "file") == f"{tmp_path}/demo-pairs: is a folder, not a file"
    assert not_there("scenes.csv", "folder") == f"{tmp_path}/scenes.csv: is a file, not a folder"
    assert not_there("link", "file") == f"{tmp_path}/link: is a broken link"


def test_a_name_that_no_file_system_takes_is_said_to_be_missing(tmp_path):
    assert "no such file" in not_there(tmp_path / ("x" * 300), "file")
