"""Expected remarks of libraries stay unsaid, all else is heard, and no setting of the process is left changed."""

import logging
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from rasterio.errors import NotGeoreferencedWarning

from bitemporal.imagery import decode as decoding
from bitemporal.imagery.decode import decode

RNG = np.random.default_rng(0)


@pytest.fixture
def odd_files(tmp_path: Path) -> dict[Path, tuple[np.ndarray, tuple[int, ...] | None]]:
    """Files that libraries remark on, with samples and bands to read: a palette, a tag, a raster without a place."""
    palette = RNG.integers(0, 3, (16, 16), dtype=np.uint8)
    image = Image.fromarray(palette, "P")
    colours = np.array([(10, 20, 30), (40, 50, 60), (70, 80, 90)], np.uint8)
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "palette.png", transparency=bytes([0, 128, 255]))
    grey = RNG.integers(0, 255, (16, 16), dtype=np.uint8)
    tags = ImageFileDirectory_v2()
    tags.tagtype[305], tags[305] = 2, "x" * 40  # Software, cut below: its data lies beyond the end of the file
    Image.fromarray(grey).save(tmp_path / "tag.tif", tiffinfo=tags)
    content = (tmp_path / "tag.tif").read_bytes()
    at = content.index((305).to_bytes(2, "little") + (2).to_bytes(2, "little"))
    (tmp_path / "tag.tif").write_bytes(content[: at + 8] + (10**7).to_bytes(4, "little") + content[at + 12 :])
    bands = RNG.integers(0, 1000, (7, 16, 16), dtype=np.uint16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(tmp_path / "bands.tif", "w", "GTiff", 16, 16, 7, dtype="uint16") as target:
            target.write(bands)
    return {
        tmp_path / "palette.png": (colours[palette], (1, 2, 3)),
        tmp_path / "tag.tif": (grey, None),
        tmp_path / "bands.tif": (bands.transpose(1, 2, 0), None),
    }


def test_the_files_are_remarked_on(odd_files, caplog):
    """Else the tests below would show nothing."""
    palette, tag, bands = odd_files
    with pytest.warns(UserWarning, match="Palette images"):
        Image.open(palette).convert("RGB")
    with pytest.warns(UserWarning, match="Truncated File Read"):
        Image.open(tag)
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(bands):
        pass
    with pytest.raises(OSError):
        Image.open(bands)
    assert "More samples per pixel" in caplog.text


def test_many_threads_read_in_silence_and_leave_every_setting(odd_files, caplog, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # of a program that is careful in its own way
    jobs = list(odd_files.items()) * 40
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")

        def read(job):
            path, (expected, bands) = job
            assert np.array_equal(decode(path, bands).samples, expected)
            warnings.warn("of the program", UserWarning, stacklevel=1)

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(read, jobs))
        assert [str(one.message) for one in heard] == ["of the program"] * len(jobs)
    assert Image.MAX_IMAGE_PIXELS == 20
    assert not caplog.records
    logging.getLogger("PIL.TiffImagePlugin").error("More samples per pixel than anyone wants")
    assert caplog.records  # elsewhere it is heard


def test_threads_whose_reading_overlaps_do_not_silence_the_process(odd_files, monkeypatch):
    """One begins while the other reads, and ends after it: with filters that are put back, all would be ignored."""
    one_reads, both_read, one_ended = threading.Event(), threading.Event(), threading.Event()
    read = decoding.decode_with_pillow

    def overlapping(path, *others):
        if threading.current_thread().name == "first":
            one_reads.set()
            assert both_read.wait(20)
        else:
            both_read.set()
            assert one_ended.wait(20)
        return read(path, *others)

    monkeypatch.setattr(decoding, "decode_with_pillow", overlapping)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        palette = next(iter(odd_files))
        first = threading.Thread(target=decode, args=(palette, (1, 2, 3)), name="first")
        second = threading.Thread(target=decode, args=(palette, (1, 2, 3)), name="second")
        first.start()
        assert one_reads.wait(20)
        second.start()
        first.join()
        one_ended.set()
        second.join()
        with pytest.raises(UserWarning, match="of the program"):
            warnings.warn("of the program", UserWarning, stacklevel=1)


def test_files_are_read_where_warnings_are_errors(odd_files):
    calls = "; ".join(f"decode(Path({str(path)!r}), {bands})" for path, (_, bands) in odd_files.items())
    code = f"from pathlib import Path; from bitemporal.imagery.decode import decode; {calls}"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_the_package_changes_no_filters_for_a_while():
    """``catch_warnings`` is for programs: in a library, threads put back the filters of one another."""
    package = Path(decoding.__file__).parents[1]
    users = [path for path in package.rglob("*.py") if "catch_warnings" in path.read_text(encoding="utf-8")]
    # a command owns its process, and so does the worker of an archive
    assert {path.relative_to(package).as_posix() for path in users} <= {
        "cli/report.py",
        "scenes/archive.py",
        "imagery/quiet.py",
    }
