"""The boundary where damaged files become errors of ours, and the bounds of JSON and YAML."""

import csv
import json
import pickle
import re
import struct
import tracemalloc
import zipfile
import zlib

import pytest
import yaml

from bitemporal.errors import BundleError, DataError
from bitemporal.reading import json_keys, open_table, read_json, read_large_json, read_table, read_yaml, reading, why


@pytest.mark.parametrize(
    "error",
    [
        *(OSError("a"), ValueError("a"), KeyError("a"), TypeError("a"), IndexError("a"), AttributeError("a")),
        *(EOFError(), OverflowError("a"), RecursionError("a"), MemoryError(), RuntimeError("a")),
        *(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "a"), UnicodeEncodeError("utf-8", "\ud800", 0, 1, "a")),
        *(zipfile.BadZipFile("a"), pickle.UnpicklingError("a"), struct.error("a"), zlib.error("a"), csv.Error("a")),
        *(yaml.YAMLError("a"), yaml.scanner.ScannerError()),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_readers_raise_becomes_an_error_that_names_the_file(tmp_path, error):
    path = tmp_path / "x.json"
    with pytest.raises(BundleError) as raised, reading(path, BundleError, "expected a bundle"):
        raise error
    assert str(raised.value).startswith(f"{path}: cannot be read (")
    assert str(raised.value).endswith("); expected a bundle")
    assert raised.value.__cause__ is error
    assert "()" not in str(raised.value)


def test_errors_of_libraries_are_known_by_their_module(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    safetensors = pytest.importorskip("safetensors")
    for error in (rasterio.errors.RasterioError("a"), safetensors.SafetensorError("a")):
        assert not isinstance(error, OSError | ValueError | RuntimeError)
        with pytest.raises(DataError, match="x: cannot be read"), reading("x", DataError, "expected y"):
            raise error


def test_errors_of_ours_and_faults_of_the_program_pass():
    for error in (BundleError("a"), NameError("a"), ImportError("a"), KeyboardInterrupt(), StopIteration()):
        with pytest.raises(type(error)) as raised, reading("x", DataError, "expected y"):
            raise error
        assert raised.value is error or isinstance(error, StopIteration)


@pytest.mark.parametrize(("length", "shown"), [(160, "c" * 160), (161, "c" * 160 + "...")])
def test_the_reason_is_cut_after_160_characters(length, shown):
    assert why(ValueError("c" * length)) == shown


def test_the_reason_is_one_line_of_printable_text_of_bounded_length():
    with pytest.raises(DataError) as raised, reading("x", DataError, "y"):
        raise ValueError("a\n\x1b[31mb\ud800 " + "c" * 10_000)
    text = str(raised.value)
    assert text.isprintable() and len(text) < 400
    assert "a \\x1b[31mb\\ud800 c" in text


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    (tmp_path / "name.json").touch()
    with pytest.raises(DataError, match=r"nane.json: no such file \(did you mean .*name.json\?\); expected y"):
        with reading(tmp_path / "nane.json", DataError, "expected y"):
            read_json(tmp_path / "nane.json")


DAMAGED_JSON = {
    "brackets": "[" * 20_000,
    "objects": '{"a":' * 20_000,
    "just too deep": "[" * 101 + "]" * 101,
    "objects just too deep": '{"a":' * 101 + "1" + "}" * 101,
    "surrogate": '{"a": "\\ud800"}',
    "surrogate key": '{"\\udfff": 1}',
    "null character": '"a\\u0000b"',
    "empty": "",
    "bytes": b"\xff\xfe\x00",
    "digits": "1" * 5000,
}


def test_ordinary_json_and_names_that_are_no_utf8_are_read(tmp_path):
    path = tmp_path / "x.json"
    content = {
        "deep": json.loads("[" * 90 + "]" * 90),
        "name": b"caf\xe9".decode("utf-8", "surrogateescape"),
        "n": None,
    }
    path.write_text(json.dumps(content))
    assert read_json(path) == content


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
DAMAGED_YAML = {
    "billion laughs": LAUGHS,
    "billion laughs by merging": "a0: &a0 {x: 1}\n"
    + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 10)),
    "it holds itself": "a: &a [*a]",
    "brackets": "[" * 20_000,
    "braces": "{a: " * 5_000,
    "lists just too deep": "[" * 101 + "]" * 101,
    "mappings just too deep": "{a: " * 101 + "1" + "}" * 101,
    "more values than are read": "[" + "1," * 100_001 + "]",
    "indents": "\n".join(" " * n + "a:" for n in range(2_000)),
    "dashes": "- " * 5_000,
    "surrogate": '"\\ud800"',
    "date": "a: 2001-99-99",
    "unknown tag": "!!python/object/apply:os.system [ls]",
    "two documents": "a: 1\n---\nb: 2\n",
    "bytes": b"\x80\x81",
    "digits": "a: " + "1" * 5000,
    "key": "{[a]: 1}",
}


DAMAGED = [("x.json", read_json, *case) for case in DAMAGED_JSON.items()]
DAMAGED += [("x.yaml", read_yaml, *case) for case in DAMAGED_YAML.items()]


@pytest.mark.parametrize("file, read, what, text", DAMAGED, ids=[f"{file} {what}" for file, _, what, _ in DAMAGED])
def test_text_that_later_steps_could_not_bear_is_refused(tmp_path, file, read, what, text):
    path = tmp_path / file
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=rf"{re.escape(file)}: cannot be read"), reading(path, DataError, "expected y"):
        read(path)


def test_yaml_is_what_pyyaml_reads_with_aliases_and_merging(tmp_path):
    path = tmp_path / "x.yaml"
    text = "a: &a {x: 1, y: [1.5, true, null, 2020-01-01]}\nb: *a\nc: {<<: *a, z: é}\n"
    path.write_text(text)
    assert read_yaml(path) == yaml.safe_load(text)
    path.write_text("")
    assert read_yaml(path) is None


def test_yaml_that_its_parser_would_take_minutes_for_is_refused_by_its_size(tmp_path, monkeypatch):
    path = tmp_path / "x.yaml"
    path.write_text("a: 1 #".ljust(2**18))
    assert read_yaml(path) == {"a": 1}
    monkeypatch.setattr(yaml, "SafeLoader", None)
    path.write_text("a: 1 #".ljust(2**18 + 1))
    with pytest.raises(DataError, match=r"x.yaml: cannot be read \(it is larger than 256 KiB\)"):
        with reading(path, DataError, "expected y"):
            read_yaml(path)


def test_texts_in_yaml_are_bounded_as_the_values_that_they_may_stand_for(tmp_path):
    path = tmp_path / "x.yaml"
    for name in ("billion laughs", "it holds itself", "brackets"):
        path.write_text(json.dumps({"model_options": DAMAGED_YAML[name]}))
        with pytest.raises(DataError, match=r"nested deeper than 100 levels"), reading(path, DataError, "y"):
            read_yaml(path)
    path.write_text("a: 'see [1], {b: [*c]} - and: [[]]'\n")
    assert read_yaml(path) == {"a": "see [1], {b: [*c]} - and: [[]]"}


def test_only_objects_have_names(tmp_path):
    for text, names in (('{"a": 1, "b": 2}', {"a", "b"}), ('["a", "b"]', set()), ('"ab"', set()), ("[{}]", set())):
        (tmp_path / "x.json").write_text(text)
        assert json_keys(tmp_path / "x.json") == names


@pytest.fixture
def memory():
    """Peak of the memory that Python's objects took since, in bytes."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize("read", [read_table, lambda path: next(iter(open_table(path).__enter__())), read_json])
def test_a_file_that_is_far_too_large_is_refused_by_its_size(tmp_path, memory, read):
    path = tmp_path / "huge"
    with path.open("wb") as stream:
        stream.write(b"before,after\n")
        stream.truncate(10**12)  # takes no space
    with pytest.raises(ValueError, match=r"larger than .* KiB"):
        read(path)
    assert memory() < 2**20


def test_a_line_that_never_ends_is_refused_without_keeping_it(tmp_path, memory):
    path = tmp_path / "line.csv"
    with path.open("wb") as stream:
        stream.write(b"before,after\n")
        stream.truncate(2**26)
    for read in (read_table, lambda path: open_table(path).__enter__()):
        with pytest.raises(ValueError, match="a line of more than 1,024 KiB"):
            read(path)
    assert memory() < 2**23


def test_lines_may_be_long_and_many(tmp_path):
    path = tmp_path / "lines.csv"
    for end in (b"\n", b"\r\n", b"\r"):
        path.write_bytes((b"x" * 500_000 + end) * 5)
        assert read_table(path) == path.read_bytes()
        with open_table(path) as stream:
            assert len([*stream]) == 5


@pytest.mark.parametrize("read", [read_json, read_large_json])
def test_json_of_too_many_values_is_refused_before_they_are_made(tmp_path, memory, read):
    path = tmp_path / "many.json"
    path.write_bytes(b"[" + b"[]," * 2**23 + b"0]")
    with pytest.raises(ValueError, match="more than 16,777,216 values"):
        read(path)
    assert memory() < 2**27
