"""Images that lack pixels are errors that name the file, whatever their decoders make of them."""

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from bitemporal.errors import DataError
from bitemporal.imagery import read_image, read_mask, whole
from bitemporal.imagery.decode import decode
from bitemporal.imagery.decoded import FileFault
from bitemporal.imagery.tiff_layout import Incomplete
from bitemporal.imagery.whole import check_layout, check_whole

rasterio = pytest.importorskip("rasterio")


def picture(height=70, width=67):
    """An image whose last block is not grey, which is what libjpeg puts in the place of what is missing."""
    steps = np.random.default_rng(0).normal(0, 3, (height, width, 3))
    return (np.cumsum(steps, axis=0) + np.array([200, 90, 40])).clip(0, 255).astype(np.uint8)


def encoded(pixels, kind, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, rows, bits=8, colour=0, interlaced=0):
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def refused(tmp_path, name, content, words):
    """A file is refused as an image, as a label and by the check alone, and each error names it."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Incomplete, match=words):
        check_whole(path)
    with pytest.raises(DataError, match=rf"{re.escape(name)}: is damaged or truncated \(.*{words}"):
        decode(path)
    with pytest.raises(DataError, match=re.escape(name)):
        read_image(path, image_range=(0, 255))
    with pytest.raises(DataError, match=re.escape(name)):
        read_mask(path)


@pytest.mark.parametrize(("bits", "colour", "row"), [(8, 0, 64), (1, 0, 8), (16, 0, 128), (16, 2, 384), (8, 6, 256)])
@pytest.mark.parametrize("rows", [1, 63])
def test_a_png_that_lacks_rows_is_refused_although_it_is_closed_properly(tmp_path, bits, colour, row, rows):
    (tmp_path / "whole.png").write_bytes(png(64, 64, bytes(row + 1) * 64, bits, colour))
    assert decode(tmp_path / "whole.png").size == (64, 64)
    words = f"it holds {rows * (row + 1)} of {64 * (row + 1)} bytes of pixels"
    refused(tmp_path, "cut.png", png(64, 64, bytes(row + 1) * rows, bits, colour), words)


@pytest.mark.parametrize("pieces", [1, 3, 1000])
@pytest.mark.parametrize("cut", [1, 4])
def test_a_png_whose_pixels_have_no_checksum_is_refused(tmp_path, pieces, cut):
    pixels = b"".join(b"\0" + row.tobytes() for row in picture()[:64, :64, 0])
    squeezed = zlib.compress(pixels)

    def file(content):
        step = -(-len(content) // pieces)
        parts = [chunk(b"IDAT", content[at : at + step]) for at in range(0, len(content), step)]
        whole = png(64, 64, pixels, 8, 0)
        first = whole.index(b"IDAT") - 4
        return whole[:first] + b"".join(parts) + chunk(b"IEND", b"")

    for name, content in (
        ("whole.png", squeezed),
        ("more.png", squeezed + b"padding"),
        ("rows.png", zlib.compress(pixels * 2)),
    ):
        (tmp_path / name).write_bytes(file(content))
        check_whole(tmp_path / name)
        assert np.array_equal(decode(tmp_path / name).samples.reshape(64, 64), picture()[:64, :64, 0])
    refused(tmp_path, "cut.png", file(squeezed[:-cut]), "its pixels end before their checksum")
    refused(tmp_path, "other.png", file(squeezed[:-1] + bytes([squeezed[-1] ^ 1])), "cannot be inflated")


@pytest.mark.parametrize(("width", "height"), [(1, 1), (5, 1), (1, 5), (3, 2), (13, 9), (64, 64)])
def test_an_interlaced_png_is_followed_pass_by_pass(tmp_path, width, height):
    # where each of the seven passes begins, and its steps; as in the specification of PNG, table 8.1 and figure 8.1
    pattern = [
        "1646 2646".replace(" ", ""),
        "77777777",
        "56565656",
        "77777777",
        "36463646",
        "77777777",
        "56565656",
        "77777777",
    ]
    needed = 0
    for number in "1234567":
        lines = [sum(pattern[y % 8][x % 8] == number for x in range(width)) for y in range(height)]
        needed += sum(1 + length for length in lines if length)
    (tmp_path / "whole.png").write_bytes(png(width, height, bytes(needed), interlaced=1))
    assert decode(tmp_path / "whole.png").size == (height, width)
    refused(tmp_path, "cut.png", png(width, height, bytes(needed - 1), interlaced=1), f"{needed - 1} of {needed} bytes")


def test_a_png_without_its_end_or_with_wrong_checksums_is_refused(tmp_path):
    whole = encoded(picture(), "PNG")
    refused(tmp_path, "open.png", whole[:-12], "IEND, is missing")
    refused(tmp_path, "short.png", whole[: len(whole) // 2], "ends within the chunk IDAT")
    flipped = bytearray(whole)
    flipped[whole.index(b"IEND") + 4] ^= 1  # of the end's checksum
    refused(tmp_path, "end.png", bytes(flipped), "checksum of its chunk IEND is wrong")
    flipped = bytearray(png(64, 64, bytes(range(65)) * 64))
    flipped[flipped.index(b"IEND") - 5] ^= 1  # of the pixels' checksum
    refused(tmp_path, "pixels.png", bytes(flipped), "checksum of its chunk IDAT is wrong")


def test_a_tiny_png_that_claims_gigabytes_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: pytest.fail("decoded"))
    tall = png(24, 16_777_240, bytes(49) * 24, bits=16)
    assert len(tall) < 100
    refused(tmp_path, "tall.png", tall, r"it holds 1176 of 822084760 bytes of pixels")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}, {"subsampling": 0}])
def test_a_jpeg_that_is_cut_and_closed_is_refused(tmp_path, options):
    whole = encoded(picture(), "JPEG", quality=90, **options)
    (tmp_path / "whole.jpg").write_bytes(whole)
    (tmp_path / "padded.jpg").write_bytes(whole[:-2] + bytes(7) + whole[-2:])  # as some cameras do
    for name in ("whole.jpg", "padded.jpg"):
        check_whole(tmp_path / name)
        assert np.abs(decode(tmp_path / name).samples.astype(int) - picture()).mean() < 12
    for length in (len(whole) // 2, len(whole) * 3 // 4, len(whole) - 4):
        refused(tmp_path, f"cut{length}.jpg", whole[:length] + b"\xff\xd9", "premature end|scans are missing")
    refused(tmp_path, "open.jpg", whole[:-2], "its end is missing")


def test_a_progressive_jpeg_that_is_cut_between_two_scans_is_refused(tmp_path):
    whole = encoded(picture(), "JPEG", progressive=True)
    scans = [match.start() for match in re.finditer(b"\xff\xda", whole)]
    assert len(scans) > 3
    for scan in scans[1:]:
        refused(tmp_path, f"{scan}.jpg", whole[:scan] + b"\xff\xd9", "some of its scans are missing")


@pytest.mark.parametrize("accepts", [False, True])
def test_files_are_refused_also_where_a_program_lets_pillow_accept_truncated_ones(tmp_path, monkeypatch, accepts):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", accepts)
    for kind, suffix in (("PNG", "png"), ("JPEG", "jpg"), ("TIFF", "tif"), ("BMP", "bmp"), ("WEBP", "webp")):
        whole, path = encoded(picture(), kind), tmp_path / f"cut.{suffix}"
        for length in (len(whole) // 2, len(whole) - 5):
            path.write_bytes(whole[:length])
            with pytest.raises(FileFault, match=rf"cut.{suffix}: is damaged or truncated"):
                decode(path)


def tiff(path, pixels, **profile):
    bands, height, width = pixels.shape
    profile = {"driver": "GTiff", "width": width, "height": height, "count": bands, "dtype": pixels.dtype} | profile
    with rasterio.open(path, "w", **profile) as target:
        target.write(pixels)
    with rasterio.open(path) as source:
        return [int(source.get_tag_item(f"BLOCK_{name}_0_0", "TIFF", bidx=1)) for name in ("OFFSET", "SIZE")]


@pytest.mark.parametrize("compress", [None, "deflate", "lzw", "zstd", "packbits", "lerc"])
@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize(("dtype", "bands", "big"), [("uint8", 1, "NO"), ("uint16", 4, "YES"), ("float32", 2, "NO")])
def test_a_tiff_that_is_too_short_is_refused(tmp_path, compress, tiled, dtype, bands, big):
    pixels = np.stack([picture()[..., 0]] * bands).astype(dtype)
    blocks = {"tiled": True, "blockxsize": 32, "blockysize": 32} if tiled else {"blockysize": 16}
    tiff(tmp_path / "whole.tif", pixels, BIGTIFF=big, compress=compress, **blocks)
    check_whole(tmp_path / "whole.tif")
    assert np.array_equal(decode(tmp_path / "whole.tif").samples.reshape(70, 67, -1)[..., 0], pixels[0])
    refused(tmp_path, "cut.tif", (tmp_path / "whole.tif").read_bytes()[:-9], "1 of .* blocks of pixels are beyond")


def with_tag(path, tag, change):
    """Change the entry of a tag in a little-endian TIFF: 12 bytes with number, type, count and value."""
    content = bytearray(path.read_bytes())
    (place,) = struct.unpack_from("<I", content, 4)
    for entry in range(place + 2, place + 2 + 12 * struct.unpack_from("<H", content, place)[0], 12):
        if struct.unpack_from("<H", content, entry)[0] == tag:
            content[entry : entry + 12] = change(content, *struct.unpack_from("<HHII", content, entry))
            return bytes(content)
    raise KeyError(tag)


def test_a_tiff_whose_strips_lie_in_its_header_is_refused(tmp_path):
    tiff(tmp_path / "whole.tif", picture().transpose(2, 0, 1)[:1], blockysize=16)

    def to_zero(content, *entry):
        struct.pack_into("<I", content, entry[3] + 4, 0)
        return struct.pack("<HHII", *entry)

    refused(tmp_path, "zero.tif", with_tag(tmp_path / "whole.tif", 273, to_zero), "overlap its header")


def test_a_tiff_with_fewer_strips_than_rows_is_refused(tmp_path):
    tiff(tmp_path / "whole.tif", picture().transpose(2, 0, 1)[:1], blockysize=16)
    fewer = with_tag(tmp_path / "whole.tif", 273, lambda _, *entry: struct.pack("<HHII", *entry[:2], 3, entry[3]))
    refused(tmp_path, "offsets.tif", fewer, "it holds 3 of 5 blocks of pixels")
    fewer = with_tag(tmp_path / "whole.tif", 279, lambda _, *entry: struct.pack("<HHII", *entry[:2], 3, entry[3]))
    refused(tmp_path, "sizes.tif", fewer, "sizes of 3 of 5 blocks")

    def halved(content, *entry):
        struct.pack_into("<H" if entry[1] == 3 else "<I", content, entry[3], 100)
        return struct.pack("<HHII", *entry)

    refused(tmp_path, "short.tif", with_tag(tmp_path / "whole.tif", 279, halved), "1 of 5 blocks of pixels are too")


def test_blocks_that_a_geotiff_leaves_out_are_no_data_as_in_gdal(tmp_path):
    path = tmp_path / "sparse.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=70, height=70, count=3, dtype="uint8", nodata=7, sparse_ok=True, tiled=True,
        blockxsize=32, blockysize=32,
    ) as target:  # fmt: skip
        target.write(np.full((3, 32, 32), 5, np.uint8), window=rasterio.windows.Window(0, 0, 32, 32))
    expected = np.full((70, 70, 3), 7)
    expected[:32, :32] = 5
    assert np.array_equal(decode(path).samples, expected)


def test_a_tiff_whose_jpeg_is_cut_inside_is_refused(tmp_path):
    offset, size = tiff(tmp_path / "whole.tif", picture().transpose(2, 0, 1), compress="jpeg", photometric="ycbcr")
    check_whole(tmp_path / "whole.tif")
    content = bytearray((tmp_path / "whole.tif").read_bytes())
    content[offset + size // 2 : offset + size // 2 + 2] = b"\xff\xd9"
    refused(tmp_path, "cut.tif", bytes(content), "premature end")
    check_layout(tmp_path / "cut.tif")  # nothing is decoded


BYTES_OF = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value by its type, after the TIFF 6.0 and BigTIFF specifications."""


@pytest.mark.parametrize("kind", BYTES_OF)
def test_tags_that_repeat_a_file_many_times_are_refused_before_they_are_read(kind, tmp_path):
    each = 20_000

    def content(tags):
        entries = b"".join(struct.pack("<HHII", 40_000 + i, kind, each // BYTES_OF[kind], 8) for i in range(tags))
        return struct.pack("<2sHI", b"II", 42, 20_008) + bytes(each) + struct.pack("<H", tags) + entries + bytes(4)

    refused(tmp_path, "tags.tif", content(6), "its tags claim more than 4 times the size of the file")
    (tmp_path / "few.tif").write_bytes(content(4))
    check_whole(tmp_path / "few.tif")  # it has no pixels, which decoders refuse


def test_decoded_bytes_are_limited_by_the_header(tmp_path):
    with rasterio.open(
        tmp_path / "wide.tif", "w", driver="GTiff", width=20_000, height=20_000, count=4, dtype="float64",
        sparse_ok=True, tiled=True, blockxsize=2048, blockysize=2048,
    ):  # fmt: skip
        pass
    with pytest.raises(FileFault, match=r"20000 x 20000 pixels \(12.8 GB when decoded\), more than the 1.5 GB"):
        decode(tmp_path / "wide.tif")


def test_a_file_that_changes_is_looked_at_again(tmp_path, monkeypatch):
    import os

    from bitemporal import files

    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture(), "PNG"))
    monkeypatch.setattr(files, "_SETTLED", -1.0)  # as if it had been written long ago
    check_whole(path)
    state = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    with pytest.raises(Incomplete):
        check_whole(path)


def test_whole_files_are_read_once(tmp_path, monkeypatch):
    from bitemporal import files

    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture(), "PNG"))
    monkeypatch.setattr(files, "_SETTLED", -1.0)
    check_whole(path)
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("read again"))
    check_whole(path)


def test_a_jpeg_is_decoded_a_few_rows_at_a_time(tmp_path, monkeypatch):
    """In memory that does not grow with the image."""
    (tmp_path / "a.jpg").write_bytes(encoded(picture(70, 67), "JPEG"))
    windows = []

    class Noted(rasterio.windows.Window):
        def __init__(self, *place):
            windows.append(place)
            super().__init__(*place)

    monkeypatch.setattr(rasterio.windows, "Window", Noted)
    monkeypatch.setattr(whole, "_AT_ONCE", 20 * 67 * 3 + 5)
    check_whole(tmp_path / "a.jpg")
    assert list(dict.fromkeys(windows)) == [(0, 0, 67, 20), (0, 20, 67, 20), (0, 40, 67, 20), (0, 60, 67, 10)]


def test_a_jpeg_that_a_camera_has_padded_is_whole(tmp_path):
    content = encoded(picture(), "JPEG")
    (tmp_path / "padded.jpg").write_bytes(content[:-2] + bytes(40) + content[-2:])
    check_whole(tmp_path / "padded.jpg")


def test_a_bmp_that_lacks_a_byte_is_refused(tmp_path):
    for mode, bits in (("RGB", 24), ("L", 8), ("1", 1)):
        stream = io.BytesIO()
        Image.fromarray(picture(70, 67)).convert(mode).save(stream, "BMP")
        content = stream.getvalue()
        assert len(content) == struct.unpack_from("<I", content, 10)[0] + 70 * ((67 * bits + 31) // 32 * 4)
        (tmp_path / "whole.bmp").write_bytes(content)
        check_whole(tmp_path / "whole.bmp")
        refused(tmp_path, "cut.bmp", content[:-1], rf"it has {len(content) - 1} of {len(content)} bytes")


def jpeg2000(path, pixels, block=64, **options):
    """Write a lossless JPEG 2000 of tiles, one tile-part each."""
    bands = np.atleast_3d(pixels).transpose(2, 0, 1)
    profile = {"count": bands.shape[0], "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    lossless = {"QUALITY": "100", "REVERSIBLE": "YES", "BLOCKXSIZE": block, "BLOCKYSIZE": block}
    with rasterio.open(path, "w", driver="JP2OpenJPEG", **profile, **lossless, **options) as file:
        file.write(bands)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("bands", [1, 3])
def test_a_jpeg_2000_that_lacks_tiles_is_refused(tmp_path, dtype, bands):
    pixels = picture(150, 130)[..., :bands].astype(dtype) * np.array(1 if dtype == "uint8" else 256, dtype)
    jpeg2000(tmp_path / "whole.jp2", pixels)
    assert (np.atleast_3d(decode(tmp_path / "whole.jp2").samples) == pixels).all()
    content = (tmp_path / "whole.jp2").read_bytes()
    for end in (len(content) - 3, len(content) * 2 // 3, len(content) // 3):
        refused(tmp_path, "cut.jp2", content[:end], "beyond its end")
    first = content.index(b"jp2c") - 4
    refused(tmp_path, "cut.jp2", content[:first], "pixels are missing")
    # closed properly, without its last tile: the box reaches to the end, and the codestream ends where it should
    tiles = [at for at in range(len(content)) if content[at : at + 4] == b"\xff\x90\0\x0a"]
    closed = content[:first] + struct.pack(">I", 0) + content[first + 4 : tiles[-1]] + b"\xff\xd9"
    refused(tmp_path, "closed.jp2", closed, f"it holds {len(tiles) - 1} of {len(tiles)} tiles")
    wrong = bytearray(content)
    wrong[tiles[1] : tiles[1] + 2] = b"\0\0"
    refused(tmp_path, "wrong.jp2", bytes(wrong), "what follows one of its tiles is not another")
    refused(tmp_path, "cut.j2k.jp2", content[first + 8 : -40], "beyond its pixels")


def test_a_raster_of_jpeg_2000_that_lacks_tiles_is_refused(tmp_path):
    from bitemporal.scenes.sources import open_raster

    jpeg2000(tmp_path / "cut.jp2", picture(150, 130))
    with open_raster(str(tmp_path / "cut.jp2")) as dataset:
        assert (dataset.read().transpose(1, 2, 0) == picture(150, 130)).all()
    content = (tmp_path / "cut.jp2").read_bytes()
    (tmp_path / "cut.jp2").write_bytes(content[:-30])
    with pytest.raises(DataError, match=r"cut.jp2: .* damaged or truncated"):
        open_raster(str(tmp_path / "cut.jp2"))
