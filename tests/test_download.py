import contextlib
import hashlib
import http.server
import io
import json
import os
import re
import stat
import subprocess
import sys
import tarfile
import threading
import time
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest
from PIL import Image

from bitemporal.cli.main import main
from bitemporal.datasets import catalog
from bitemporal.datasets.catalog import Archive, Direct
from bitemporal.datasets.download import download, fetch_file
from bitemporal.datasets.layout import compare_with_card, find_splits
from bitemporal.datasets.unpack import ExtractLimits, is_archive, safe_extract
from bitemporal.errors import DownloadError, OptionError, OutputError
from bitemporal.outputs import locked

OUTSIDE = b"precious"
TAR_MODES = {".tar": "w", ".tar.gz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}


def tree(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def make_zip(path, members, mode=None):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (mode or stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)
    return path


def tar_member(name, content=b"", kind=tarfile.REGTYPE, link="", mode=0o644):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, link, mode, len(content)
    return info, content


def make_tar(path, members, mode="w"):
    with tarfile.open(path, mode, encoding="utf-8", errors="surrogateescape") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def place(tmp_path):
    """A folder to unpack in, next to a file that no archive may touch."""
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(OUTSIDE)
    return work


def refused(archive, place, text, limits=None):
    """The archive is refused, and afterwards nothing lies anywhere but the archive and the file outside."""
    with pytest.raises(DownloadError, match=text):
        safe_extract(archive, place / "target", limits)
    assert [p.name for p in place.iterdir()] == [archive.name]
    assert tree(place.parent / "outside") == {"file": OUTSIDE}
    assert {p.name for p in place.parent.iterdir()} == {"work", "outside"}


# honest archives


@pytest.mark.parametrize("suffix", [".zip", *TAR_MODES])
def test_an_honest_archive_unpacks(place, suffix):
    content = {"train/A/1.png": b"a" * 5000, "train/label/1.png": b"", "read me \u00e9.txt": b"text"}
    archive = place / f"set{suffix}"
    if suffix == ".zip":
        make_zip(archive, [("train/", b""), *content.items()])
    else:
        folder = tar_member("train", kind=tarfile.DIRTYPE)
        members = [folder, *(tar_member(f"./{name}", data) for name, data in content.items()), folder]
        make_tar(archive, members, TAR_MODES[suffix])
    assert is_archive(archive)
    safe_extract(archive, place / "new" / "target")
    assert tree(place / "new" / "target") == content
    assert [p.name for p in (place / "new").iterdir()] == ["target"]


def test_permissions_of_the_archive_are_not_taken_over(place):
    archive = make_tar(place / "a.tar", [tar_member("run", b"x", mode=0o4777)])
    safe_extract(archive, place / "target")
    assert not (place / "target" / "run").stat().st_mode & (stat.S_ISUID | stat.S_IXUSR)


def test_a_folder_that_holds_something_is_left_alone(place):
    archive = make_zip(place / "a.zip", [("x", b"1")])
    (place / "target").mkdir()
    (place / "target" / "mine").write_bytes(b"mine")
    with pytest.raises(OutputError, match="not an empty folder"):
        safe_extract(archive, place / "target")
    assert tree(place / "target") == {"mine": b"mine"}


def test_a_target_that_is_a_link_is_refused(place):
    archive = make_zip(place / "a.zip", [("x", b"1")])
    empty = place.parent / "outside" / "empty"
    empty.mkdir()
    (place / "target").symlink_to(empty)
    with pytest.raises(OutputError, match="not an empty folder"):
        safe_extract(archive, place / "target")
    assert not list(empty.iterdir())


# hostile archives

BAD_NAMES = [
    ("../outside/file", r"'\.\.'"),
    ("a/../../outside/file", r"'\.\.'"),
    ("a/..", r"'\.\.'"),
    ("..\\outside\\file", r"'\.\.'"),
    ("/etc/evil", "has an absolute name"),
    ("\\evil", "has an absolute name"),
    ("C:/evil", "has an absolute name"),
    ("C:evil", "has an absolute name"),
    ("a\nb", "has a control character"),
]


@pytest.mark.parametrize(("name", "text"), BAD_NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_elsewhere_are_refused(place, kind, name, text):
    if kind == "zip":
        archive = make_zip(place / "a.zip", [("good", b"1"), (name, b"evil")])
    else:
        archive = make_tar(place / "a.tar", [tar_member("good", b"1"), tar_member(name, b"evil")])
    refused(archive, place, text)


def test_an_absolute_name_does_not_write_there(place):
    evil = place.parent / "outside" / "evil"
    refused(make_zip(place / "a.zip", [(str(evil), b"evil")]), place, "has an absolute name")


@pytest.mark.parametrize("link", ["../../outside", "/etc", "good"])
def test_a_symbolic_link_in_a_tar_is_refused_before_anything_is_written_through_it(place, link):
    members = [tar_member("door", kind=tarfile.SYMTYPE, link=link), tar_member("door/file", b"evil")]
    refused(make_tar(place / "a.tar", members), place, "is a link")


def test_a_symbolic_link_in_a_zip_is_refused(place):
    refused(make_zip(place / "a.zip", [("door", b"../../outside")], stat.S_IFLNK | 0o777), place, "is a link")


@pytest.mark.parametrize("link", ["../../outside/file", "good"])
def test_a_hard_link_is_refused(place, link):
    members = [tar_member("good", b"1"), tar_member("hard", kind=tarfile.LNKTYPE, link=link)]
    refused(make_tar(place / "a.tar", members), place, "is a link")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_device_is_refused(place, kind):
    refused(make_tar(place / "a.tar", [tar_member("null", kind=kind)]), place, "or a device")
    (place / "a.tar").unlink()
    refused(make_zip(place / "a.zip", [("null", b"")], stat.S_IFCHR | 0o666), place, "or a device")


@pytest.mark.parametrize("names", [("x", "x"), ("x", "./x"), ("a//x", "a/x"), ("x/", "x"), ("x", "x/")])
def test_a_name_given_twice_is_refused(place, names):
    refused(
        make_zip(place / "a.zip", [(name, b"" if name.endswith("/") else b"1") for name in names]),
        place,
        "appears twice",
    )


def test_a_file_that_is_also_a_folder_is_refused(place):
    refused(make_tar(place / "a.tar", [tar_member("x", b"1"), tar_member("x/y", b"1")]), place, "cannot be unpacked")


def test_a_name_that_is_no_utf8_is_refused_and_the_message_can_be_printed(place):
    archive = make_tar(place / "a.tar", [tar_member(b"\xd1\xb5\xc1\xb7.png".decode("utf-8", "surrogateescape"), b"1")])
    refused(archive, place, "UTF-8")
    with pytest.raises(DownloadError) as caught:
        safe_extract(archive, place / "target")
    str(caught.value).encode("utf-8")


def test_a_zip_with_a_name_in_an_old_code_page_unpacks_inside(place):
    archive = make_zip(place / "a.zip", [("XX.png", b"1")])
    archive.write_bytes(archive.read_bytes().replace(b"XX.png", b"\xd1\xb5.png"))
    safe_extract(archive, place / "target")
    assert list(tree(place / "target").values()) == [b"1"]


def test_an_encrypted_zip_is_refused(place):
    archive = make_zip(place / "a.zip", [("x", b"1")])
    data = bytearray(archive.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(data)
    refused(archive, place, "is encrypted")


# bombs

SMALL = ExtractLimits(max_bytes=10_000_000, max_files=50, max_ratio=20, ratio_from=10_000)


def bomb(place, kind, size=1_000_000):
    zeros = bytes(size)
    if kind == "zip":
        return make_zip(place / "a.zip", [("x", b"1"), ("zeros", zeros)])
    return make_tar(place / "a.tar.xz", [tar_member("x", b"1"), tar_member("zeros", zeros)], "w:xz")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_bomb_by_ratio_is_refused(place, kind):
    refused(bomb(place, kind), place, "20 times", SMALL)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_bomb_by_size_is_refused(place, kind):
    refused(bomb(place, kind), place, "more than 500,000 bytes", ExtractLimits(max_bytes=500_000))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_bomb_by_number_of_files_is_refused(place, kind):
    names = [f"{i}.png" for i in range(51)]
    if kind == "zip":
        archive = make_zip(place / "a.zip", [(name, b"") for name in names])
    else:
        archive = make_tar(place / "a.tar", [tar_member(name) for name in names])
    refused(archive, place, "more than 50 files", SMALL)


def test_a_zip_that_lies_about_its_sizes_is_refused(place):
    archive = make_zip(place / "a.zip", [("zeros", bytes(1_000_000))])
    data = bytearray(archive.read_bytes())
    for place_of_size in (22, data.index(b"PK\1\2") + 24):
        data[place_of_size : place_of_size + 4] = (100).to_bytes(4, "little")
    archive.write_bytes(data)
    refused(archive, place, "cannot be unpacked", SMALL)


def test_a_tar_whose_headers_are_the_bomb_is_refused(place):
    info, content = tar_member("x", b"1")
    info.pax_headers = {"comment": "y" * 5_000_000}
    with tarfile.open(place / "a.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(content))
    refused(place / "a.tar.gz", place, "20 times", SMALL)


def test_labels_that_are_nearly_empty_are_no_bomb(place):
    archive = make_zip(place / "a.zip", [(f"{i}.bmp", bytes(66_000)) for i in range(50)])
    assert 50 * 66_000 > 100 * archive.stat().st_size
    safe_extract(archive, place / "target")
    assert len(tree(place / "target")) == 50


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(place, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    refused(make_zip(place / "a.zip", [("x", b"1" * 11)]), place, "needs 11 bytes, .* has 10 free")


# damage


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.xz"])
def test_a_cut_archive_leaves_nothing(place, suffix):
    archive = place / f"a{suffix}"
    content = os.urandom(50_000)
    if suffix == ".zip":
        make_zip(archive, [("x", content)])
    else:
        make_tar(archive, [tar_member("x", content)], TAR_MODES[suffix])
    archive.write_bytes(archive.read_bytes()[:30_000])
    refused(archive, place, "cannot be unpacked")


def test_a_damaged_zip_member_leaves_nothing(place):
    archive = make_zip(place / "a.zip", [("x", os.urandom(50_000))])
    data = bytearray(archive.read_bytes())
    data[20_000] ^= 255
    archive.write_bytes(data)
    refused(archive, place, "cannot be unpacked")


def test_a_zip_with_a_name_that_is_falsely_called_utf8_is_refused(place):
    archive = make_zip(place / "a.zip", [("\u00e9\u00e9.png", b"1")])
    archive.write_bytes(archive.read_bytes().replace("\u00e9\u00e9".encode(), b"\xd1\xb5\xff\xfe"))
    refused(archive, place, "cannot be unpacked")


@pytest.mark.parametrize(
    ("content", "text"), [(b"", "cannot"), (b"<html>not found", "cannot"), (b"Rar!\x1a\x07", "7-Zip")]
)
def test_what_is_no_archive_is_said(place, content, text):
    archive = place / "a.zip"
    archive.write_bytes(content)
    refused(archive, place, text)


# direct links


class RangeServer(http.server.BaseHTTPRequestHandler):
    files: ClassVar[dict] = {}
    ranges = True
    cut_after: int | None = None
    stalled = threading.Event()
    asked: ClassVar[list] = []

    def do_GET(self):
        content = self.files.get(self.path.lstrip("/"))
        self.asked.append((self.path, self.headers.get("Range")))
        if content is None:
            self.send_error(404)
            return
        start = 0
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted and self.ranges:
            start = int(wanted[1])
            if start >= len(content):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : self.cut_after])
        self.stalled.wait()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    RangeServer.files, RangeServer.ranges, RangeServer.cut_after, RangeServer.asked = {}, True, None, []
    RangeServer.stalled.set()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), RangeServer) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def served(server, content, name="set.bin"):
    RangeServer.files[name] = content
    return Archive(f"{server}/{name}", name, f"sha256:{hashlib.sha256(content).hexdigest()}")


def test_a_file_is_fetched_with_progress(server, tmp_path):
    content = os.urandom(3_000_000)
    seen = []
    fetch_file(served(server, content), tmp_path / "f", lambda *progress: seen.append(progress))
    assert tree(tmp_path) == {"f": content}
    assert seen[-1] == ("set.bin", 3_000_000, 3_000_000)
    assert [have for _, have, _ in seen] == sorted(have for _, have, _ in seen)


def test_a_file_that_is_there_is_verified_and_not_fetched_again(server, tmp_path):
    archive = served(server, b"content")
    (tmp_path / "f").write_bytes(b"content")
    fetch_file(archive, tmp_path / "f")
    assert RangeServer.asked == []
    (tmp_path / "f").write_bytes(b"changed")
    with pytest.raises(DownloadError, match="sha256"):
        fetch_file(archive, tmp_path / "f")
    assert not list(tmp_path.iterdir())


def test_a_file_link_works_too(tmp_path):
    source = tmp_path / "source.bin"
    source.write_bytes(b"content")
    digest = hashlib.md5(b"content").hexdigest()
    fetch_file(Archive(source.as_uri(), "source.bin", f"md5:{digest}"), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"content"


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_transfer_goes_on(server, tmp_path, ranges):
    content = os.urandom(200_000)
    archive = served(server, content)
    RangeServer.cut_after, RangeServer.ranges = 120_000, ranges
    with pytest.raises(OSError, match="ended after 120,000 of 200,000 bytes"):
        fetch_file(archive, tmp_path / "f")
    assert {name: len(data) for name, data in tree(tmp_path).items()} == {"f.part": 120_000}
    RangeServer.cut_after = None
    fetch_file(archive, tmp_path / "f")
    assert tree(tmp_path) == {"f": content}
    assert RangeServer.asked[-1][1] == "bytes=120000-"


def test_a_transfer_resumes_after_a_kill(server, tmp_path):
    content = os.urandom(5_000_000)
    archive = served(server, content)
    RangeServer.cut_after = 3_000_000
    RangeServer.stalled.clear()
    code = (
        "import sys; from pathlib import Path; from bitemporal.datasets.catalog import Archive; "
        "from bitemporal.datasets.download import fetch_file; fetch_file(Archive(*sys.argv[1:4]), Path(sys.argv[4]))"
    )
    words = [archive.url, archive.filename, archive.digest, str(tmp_path / "f")]
    part = tmp_path / "f.part"
    with subprocess.Popen([sys.executable, "-c", code, *words]) as process:
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
    RangeServer.stalled.set()
    RangeServer.cut_after = None
    have = part.stat().st_size
    assert 0 < have < len(content)
    fetch_file(archive, tmp_path / "f")
    assert tree(tmp_path) == {"f": content}
    assert RangeServer.asked[-1][1] == f"bytes={have}-"


@pytest.mark.parametrize("extra", [b"", b"more"])
def test_a_part_that_is_already_as_long_as_the_file_is_judged_by_the_checksum(server, tmp_path, extra):
    archive = served(server, b"content")
    (tmp_path / "f.part").write_bytes(b"content" + extra)
    with pytest.raises(DownloadError, match="sha256") if extra else contextlib.nullcontext():
        fetch_file(archive, tmp_path / "f")
    assert tree(tmp_path) == ({} if extra else {"f": b"content"})


def test_a_wrong_checksum_removes_the_file_and_says_both_sums(server, tmp_path):
    archive = Archive(served(server, b"content").url, "set.bin", "sha256:" + "0" * 64)
    digest = hashlib.sha256(b"content").hexdigest()
    with pytest.raises(DownloadError, match=rf"{digest} \(7 bytes\), expected {'0' * 64}"):
        fetch_file(archive, tmp_path / "f")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_too_small_for_a_file_is_said(server, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 6})())
    with pytest.raises(DownloadError, match=r"needs 7 bytes, .* has 6 free"):
        fetch_file(served(server, b"content"), tmp_path / "f")


# layouts


def png(value=0):
    out = io.BytesIO()
    Image.new("L", (8, 8), value).save(out, "png")
    return out.getvalue()


def files_of(split, pairs, names=("A", "B", "label"), pattern="{split}/{folder}/{i}.png"):
    return {
        pattern.format(split=split, folder=folder, i=f"{split}_{i}"): png(i) for folder in names for i in range(pairs)
    }


def write_tree(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (("A", "B", "label"), "{split}/{folder}/{i}.png"),
        (("A", "B", "label"), "{folder}/{split}/{i}.png"),
        (("A", "B", "label"), "JL1-CD/data/{split}/{folder}/{i}.png"),
        (("A", "B", "label"), "{split}/{folder}/{folder}/{i}.png"),
        (("A", "B", "label"), "{split}/inner/{folder}/{i}.png"),
        (("time1", "time2", "label"), "{split}/{folder}/{i}.png"),
        (("Image1", "Image2", "label"), "S2Looking/{split}/{folder}/{i}.png"),
        (("t1", "t2", "mask"), "{split}/{folder}/{i}.png"),
        (("A", "B", "OUT"), "ChangeDetectionDataset/Real/subset/{split}/{folder}/{i}.png"),
    ],
)
def test_splits_are_found_in_every_known_layout(tmp_path, names, pattern):
    for split, pairs in (("train", 3), ("val", 1), ("test", 2)):
        write_tree(tmp_path, files_of(split, pairs, names, pattern))
    hidden = pattern.format(split="train", folder=names[0], i="._train_9")
    junk = [f"{top}/train/{folder}/1.png" for top in ("__MACOSX", ".git") for folder in names]
    write_tree(tmp_path, dict.fromkeys((hidden, *junk), b""))
    splits = find_splits(tmp_path)
    assert {split: folders.pairs for split, folders in splits.items()} == {"train": 3, "val": 1, "test": 2}
    assert all(folders.odd == 0 for folders in splits.values())
    for split, folders in splits.items():
        for folder, name in zip((folders.before, folders.after, folders.label), names, strict=True):
            assert name in folder.parts and list(folder.glob(f"{split}_*.png"))


def test_stems_without_partners_are_counted(tmp_path):
    write_tree(tmp_path, files_of("train", 5))
    (tmp_path / "train" / "label" / "train_0.png").unlink()
    (tmp_path / "train" / "B" / "train_1.png").rename(tmp_path / "train" / "B" / "other.png")
    split = find_splits(tmp_path)["train"]
    assert (split.pairs, split.odd) == (3, 3)


def test_a_second_place_of_a_split_is_a_split_of_its_own(tmp_path):
    write_tree(tmp_path, files_of("train", 1))
    write_tree(tmp_path, files_of("train", 2, pattern="old/{split}/{folder}/{i}.png"))
    splits = find_splits(tmp_path)
    assert {split: folders.pairs for split, folders in splits.items()} == {"train": 1, "old": 2}
    assert "old: found 2 pairs, but JL1-CD has no such split" in compare_with_card(
        catalog.dataset_card("jl1-cd"), splits
    )


def test_images_below_a_folder_of_images_belong_to_no_split(tmp_path):
    write_tree(tmp_path, files_of("train", 2))
    write_tree(tmp_path, {"train/A/thumbnails/train_0.png": png(), "train/sample/A/x.png": png()})
    split = find_splits(tmp_path)["train"]
    assert (split.before, split.pairs, split.odd) == (tmp_path / "train" / "A", 2, 0)


def test_the_folder_named_label_holds_the_labels(tmp_path):
    write_tree(tmp_path, files_of("train", 1) | {"train/mask/train_0.png": png()})
    assert find_splits(tmp_path)["train"].label == tmp_path / "train" / "label"


def test_what_cannot_be_arranged_is_no_split(tmp_path):
    write_tree(tmp_path, files_of("train", 2, pattern="{folder}/{i}.png"))
    write_tree(tmp_path, {"list/train.txt": b"train_0", "list/val.txt": b"train_1"})
    assert find_splits(tmp_path) == {}


def test_differences_from_the_card_are_reported(tmp_path):
    write_tree(tmp_path, files_of("train", 2) | files_of("val", 1))
    (tmp_path / "train" / "label" / "train_0.png").unlink()
    differences = compare_with_card(catalog.dataset_card("jl1-cd"), find_splits(tmp_path))
    assert differences == [
        "train: found 1 pairs, expected 4,000",
        "train: 1 stems lack an image or a label",
        "test: found 0 pairs, expected 1,000",
        "val: found 1 pairs, but JL1-CD has no such split",
    ]


# whole data sets


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the hub: fill it with files; ``broken`` makes the transfer fail after the first file."""

    class Hub:
        files: ClassVar[dict] = {}
        broken = False
        revisions: ClassVar[list] = []

        def dataset_info(self, repo_id, *, revision, timeout):
            assert repo_id == "circleLZY/JL1-CD"
            Hub.revisions.append(revision)
            return type("Info", (), {"sha": COMMIT})()

        @staticmethod
        def snapshot_download(repo_id, *, repo_type, revision, local_dir):
            assert (repo_id, repo_type, revision) == ("circleLZY/JL1-CD", "dataset", COMMIT)
            write_tree(local_dir, {".cache/huggingface/download/x.metadata": b"note", ".gitattributes": b"lfs"})
            for name, content in Hub.files.items():
                if not (local_dir / name).exists():
                    write_tree(local_dir, {name: content})
                if Hub.broken:
                    raise ConnectionError("the line went dead")

    Hub.files, Hub.revisions = {}, []
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr("huggingface_hub.snapshot_download", Hub.snapshot_download)
    return Hub


@pytest.fixture
def small_card(monkeypatch):
    card = catalog.dataset_card("jl1-cd")
    monkeypatch.setitem(card.splits, "train", 4)
    monkeypatch.setitem(card.splits, "test", 2)
    return card


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


WHOLE = files_of("train", 4) | files_of("test", 2)
AS_ON_HUB = {
    "folders": WHOLE,
    "one archive": {"JL1-CD.zip": zipped({f"JL1-CD/{name}": content for name, content in WHOLE.items()})},
    "an archive a split": {
        f"{split}.zip": zipped(
            {name.removeprefix(f"{split}/"): c for name, c in WHOLE.items() if name.startswith(split)}
        )
        for split in ("train", "test")
    },
    "an archive a folder": {
        f"data/{split}/{folder}.zip": zipped(
            {Path(name).name: c for name, c in WHOLE.items() if name.startswith(f"{split}/{folder}/")}
        )
        for split in ("train", "test")
        for folder in ("A", "B", "label")
    },
}


@pytest.mark.parametrize("packed", AS_ON_HUB)
def test_jl1_cd_is_laid_out_alike_however_the_hub_packs_it(tmp_path, hub, small_card, packed):
    hub.files = {"README.md": b"card", **AS_ON_HUB[packed]}
    folder = download("jl1-cd", tmp_path / "new" / "set")
    record = json.loads((folder / "source.json").read_text())
    (folder / "source.json").unlink()
    assert tree(folder) == {**WHOLE, "other/README.md": b"card"}
    assert record == {
        "data_set": "jl1-cd",
        "hub": "circleLZY/JL1-CD",
        "commit": COMMIT,
        "pairs": {"train": 4, "test": 2},
        "differs": [],
    }
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["set"]


def test_a_revision_is_passed_on(tmp_path, hub, small_card):
    hub.files = WHOLE
    download("jl1-cd", tmp_path / "a")
    download("jl1-cd", tmp_path / "b", revision="v1")
    assert hub.revisions == [None, "v1"]


def test_the_command_reports_what_was_found(tmp_path, hub, small_card, capsys):
    hub.files = WHOLE
    assert main(["data", "download", "jl1-cd", "-o", str(tmp_path / "set")]) == 0
    printed = capsys.readouterr().out
    assert "train: 4 pairs" in printed and "test: 2 pairs" in printed and "never from test" in printed
    assert f"`bitemporal data check {tmp_path / 'set'} --label-values 0,255`" in printed
    small_card.splits["train"] = 5
    assert main(["data", "download", "jl1-cd", "-o", str(tmp_path / "again")]) == 1
    assert "differs from the card: train: found 4 pairs, expected 5" in capsys.readouterr().out


def test_without_a_network_nothing_is_left_and_the_remedy_is_named(tmp_path, hub, monkeypatch):
    def offline(self, repo_id, **_):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(hub, "dataset_info", offline)
    with pytest.raises(DownloadError) as caught:
        download("jl1-cd", tmp_path / "set")
    text = str(caught.value)
    for piece in ("circleLZY/JL1-CD", "huggingface.co", "no route to host", "{A,B,label}", "drive.google.com"):
        assert piece in text
    assert not list(tmp_path.iterdir())


def test_a_broken_transfer_keeps_what_came_and_goes_on(tmp_path, hub, small_card):
    hub.files, hub.broken = AS_ON_HUB["an archive a split"], True
    with pytest.raises(DownloadError, match=r"the line went dead.*kept in .*set\.download"):
        download("jl1-cd", tmp_path / "set")
    assert [p.name for p in tmp_path.iterdir()] == ["set.download"]
    hub.broken = False
    folder = download("jl1-cd", tmp_path / "set")
    assert (folder / "test" / "label" / "test_1.png").read_bytes() == png(1)
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_files_that_look_like_no_pairs_are_kept_and_named(tmp_path, hub):
    hub.files = {"data/train-00000.parquet": b"PAR1"}
    with pytest.raises(DownloadError, match=r"holds data \(1 files\).*files are kept"):
        download("jl1-cd", tmp_path / "set")
    assert not (tmp_path / "set").exists()
    assert (tmp_path / "set.download" / "data" / "train-00000.parquet").read_bytes() == b"PAR1"


def test_a_hostile_archive_from_the_hub_does_no_harm(tmp_path, hub):
    hub.files = {"set.zip": zipped({"../../../evil": b"evil"})}
    with pytest.raises(DownloadError, match="refused"):
        download("jl1-cd", tmp_path / "deep" / "deeper" / "set")
    assert list(tree(tmp_path)) == [
        "deep/deeper/set.download/.bitemporal-download",
        "deep/deeper/set.download/.cache/huggingface/download/x.metadata",
        "deep/deeper/set.download/.gitattributes",
        "deep/deeper/set.download/set.zip",
    ]


def test_a_target_that_holds_something_is_left_alone(tmp_path, hub):
    write_tree(tmp_path, {"set/mine": b"mine"})
    with pytest.raises(OutputError, match="not an empty folder"):
        download("jl1-cd", tmp_path / "set")
    assert tree(tmp_path) == {"set/mine": b"mine"} and hub.revisions == []


def test_a_folder_of_the_users_is_not_taken_for_an_unfinished_download(tmp_path, hub, small_card):
    hub.files = WHOLE
    write_tree(tmp_path, {"set.download/mine": b"mine"})
    with pytest.raises(OutputError, match=r"set\.download exists and is not an unfinished download"):
        download("jl1-cd", tmp_path / "set")
    assert tree(tmp_path) == {"set.download/mine": b"mine"} and hub.revisions == []


def test_two_downloads_into_one_folder_are_refused(tmp_path, hub, small_card):
    with locked(tmp_path / "set"), ThreadPoolExecutor(1) as other:
        with pytest.raises(OutputError, match="another run is writing it"):
            other.submit(download, "jl1-cd", tmp_path / "set").result()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_target_is_taken(tmp_path, hub, small_card):
    hub.files = WHOLE
    (tmp_path / "set").mkdir()
    assert find_splits(download("jl1-cd", tmp_path / "set"))["test"].pairs == 2


def test_a_set_got_by_hand_is_an_error_with_the_text(tmp_path):
    with pytest.raises(DownloadError, match=r"by hand(.|\n)*github.com/liumency/SYSU-CD(.|\n)*\{time1,time2,label\}"):
        download("sysu-cd", tmp_path / "set")


def test_a_revision_of_what_has_none_is_an_error(tmp_path):
    with pytest.raises(OptionError, match="revision: found 'v1'"):
        download("levir-cd", tmp_path / "set", revision="v1")


@pytest.fixture
def levir(monkeypatch, server):
    card = catalog.dataset_card("levir-cd")
    archives = tuple(
        served(server, zipped(files_of(split, pairs, pattern="{folder}/{i}.png")), f"{split}.zip")
        for split, pairs in (("train", 3), ("val", 1), ("test", 2))
    )
    # the card is frozen; only its source is exchanged for one on this machine
    monkeypatch.setitem(card.__dict__, "source", Direct(archives))
    return card


def test_levir_cd_is_fetched_over_its_direct_links(tmp_path, levir):
    folder = download("levir-cd", tmp_path / "set")
    expected = files_of("train", 3) | files_of("val", 1) | files_of("test", 2)
    record = json.loads((folder / "source.json").read_text())
    (folder / "source.json").unlink()
    assert tree(folder) == expected
    assert record["pairs"] == {"train": 3, "val": 1, "test": 2}
    assert record["archives"][0]["digest"] == levir.source.archives[0].digest


def test_a_direct_link_that_fails_names_the_host_and_goes_on_later(tmp_path, levir):
    content = RangeServer.files.pop("val.zip")
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:\d+/val\.zip \(HTTPError: .*404(.|\n)*justchenhao"):
        download("levir-cd", tmp_path / "set")
    assert list(tree(tmp_path)) == ["set.download/.bitemporal-download", "set.download/train.zip"]
    RangeServer.files["val.zip"] = content
    download("levir-cd", tmp_path / "set")
    assert [path for path, _ in RangeServer.asked].count("/train.zip") == 1


def test_a_tampered_archive_is_never_unpacked(tmp_path, levir):
    RangeServer.files["train.zip"] = zipped({"A/evil.png": b"evil"})
    with pytest.raises(DownloadError, match="must not be trusted"):
        download("levir-cd", tmp_path / "set")
    assert not list(tmp_path.iterdir())
