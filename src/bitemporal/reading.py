"""The one boundary where a damaged file becomes an error of ours that names it; the content of JSON and YAML."""

import codecs
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import yaml

from bitemporal.errors import BitemporalError
from bitemporal.files import not_there, once_a_state, special_file

_FROM_DAMAGE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError, BufferError),
    *(RuntimeError, MemoryError, AssertionError),  # a RecursionError is a RuntimeError
)
"""What readers of files raise at damaged bytes, and checks of their content at values of another kind."""

_READERS = {
    *("_csv", "_lzma", "_pickle", "pickle", "struct", "tarfile", "zipfile", "zlib"),
    *("PIL", "pyarrow", "pyogrio", "pyproj", "rasterio", "safetensors", "shapely", "torch", "yaml"),
}
"""Modules whose own errors are a damaged file's."""

_LONGEST_REASON = 160
"""Characters of a library's text that an error of ours repeats."""


@contextmanager
def reading(path: object, failure: type[BitemporalError], expected: str) -> Iterator[None]:
    """Turn whatever a damaged file does to its reader into an error of ours that names the file.

    The block holds the reading of the file and of its fields alone, so that no fault of this package hides in it.
    Errors of ours pass. A pipe or a device is not read: it may never end.

    Args:
        path: The file, as the error names it; perhaps behind the name of an option.
        failure: Class of the error.
        expected: What should stand there, and the remedy.

    Raises:
        BitemporalError: Of the class ``failure``, with the library's own error as its cause.
    """
    if isinstance(path, str | Path) and (kind := special_file(path)):
        raise failure(f"{path}: is {kind}, expected a file; {expected}")
    try:
        yield
    except BitemporalError:
        raise
    except FileNotFoundError as error:
        found = not_there(path, "file") if isinstance(path, str | Path) else f"{path}: no such file"
        raise failure(f"{found}; {expected}") from error
    except Exception as error:
        if not isinstance(error, _FROM_DAMAGE) and type(error).__module__.partition(".")[0] not in _READERS:
            raise
        raise failure(f"{path}: cannot be read ({why(error)}); {expected}") from error


def why(error: BaseException) -> str:
    """What an error says, in one line that can be printed."""
    if type(error).__module__.startswith("rasterio") and error.__cause__ is not None:  # GDAL's own words
        error = error.__cause__
    match error:
        case OSError(strerror=str(reason)) if reason:
            text = reason
        case RecursionError():
            text = "it is nested too deeply"
        case MemoryError():
            text = "it needs more memory than this machine has"
        case KeyError(args=(name,)):
            text = f"it has no {name!r}"
        case json.JSONDecodeError():
            text = f"it is not valid JSON: {error}"
        case OverflowError():
            text = f"it holds a number that is too large: {error}"
        case _:
            text = " ".join(str(error).split()) or type(error).__name__
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: _LONGEST_REASON + 1])
    return shown if len(text) <= _LONGEST_REASON else f"{shown[:_LONGEST_REASON]}..."


@once_a_state
def check_zip(path: Path) -> None:
    """Refuse a file of ``torch.save`` with a wrong checksum, which torch does not look at; within ``reading``.

    Raises:
        ValueError: When a checksum is wrong; files of old versions of torch have none, and pass.
        OSError: When it cannot be read.
        zipfile.BadZipFile: When its table of contents is damaged.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"the checksum of its part {damaged} is wrong")


_MOST_BYTES = 2**28
_MOST_JSON_VALUES = 2**24  # a value takes some 60 bytes of memory, and 2 in the file
_MOST_YAML_BYTES = 2**18  # its parser takes seconds for so many, and recipes have a few thousand
_MOST_YAML_NODES = 100_000
_DEEPEST = 100
"""Bounds of JSON and YAML: bytes of a file, values, in YAML with its aliases written out, lists within lists."""

_MOST_TABLE_BYTES = 2**29  # a million rows of 500 characters
_LONGEST_LINE = 2**20
"""Bounds of tables and lists as text, in bytes."""


def _check_table(path: Path) -> None:
    """Refuse a table or a list as text that is far larger than any in use, or has far longer lines.

    Its size is looked at before it is read, and no line is kept.
    """
    size = path.stat().st_size
    _check_bytes(size, _MOST_TABLE_BYTES)
    if size <= _LONGEST_LINE:
        return
    with path.open("rb") as stream:
        while len(piece := stream.read(_LONGEST_LINE)) == _LONGEST_LINE:
            if b"\n" not in piece and b"\r" not in piece:
                raise ValueError(f"it has a line of more than {_LONGEST_LINE // 2**10:,} KiB")


def read_table(path: Path) -> bytes:
    """The bytes of a table or a list as text, of at most 512 MiB, and 1 MiB per line; within ``reading``.

    Raises:
        OSError: When it cannot be read.
        ValueError: When it is too large, or a line is too long.
    """
    _check_table(path)
    return _bytes_of(path, _MOST_TABLE_BYTES)


@contextmanager
def open_table(path: Path, encoding: str = "utf-8") -> Iterator[TextIO]:
    """Open a table to be read by ``csv``; raises what ``read_table`` raises."""
    _check_table(path)
    # file names need not be valid text
    with path.open(newline="", encoding=encoding, errors="surrogateescape") as stream:
        yield stream


def read_json(path: Path) -> Any:  # noqa: ANN401  whatever the file holds
    """The content of a JSON file; within ``reading``.

    Raises:
        OSError: When it cannot be read.
        ValueError: When it is not JSON, too large or too deep, or holds invalid text.
        RecursionError: When it is far too deep.
    """
    return parse_json(_bytes_of(path))


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401  whatever it holds
    """The content of JSON; raises what ``read_json`` raises."""
    content = parse_large_json(text)
    _check_values(content)
    return content


def read_large_json(path: Path) -> Any:  # noqa: ANN401  whatever the file holds
    """As ``read_json``, for a file with millions of numbers: its values are counted, but none is looked at."""
    return parse_large_json(_bytes_of(path))


def parse_large_json(text: str | bytes) -> Any:  # noqa: ANN401  whatever it holds
    """The content of JSON; see ``read_large_json``."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > _MOST_JSON_VALUES:
        raise ValueError(f"it has more than {_MOST_JSON_VALUES:,} values")
    return json.loads(text)


def read_yaml(path: Path) -> Any:  # noqa: ANN401  whatever the file holds
    """The content of a YAML file, of plain types; within ``reading``.

    Raises:
        OSError: When it cannot be read.
        ValueError: When it is too large or too deep, also with its aliases written out, or holds invalid text.
        yaml.YAMLError: When it is no YAML.
        RecursionError: When it is far too deep.
    """
    raw = _bytes_of(path, _MOST_YAML_BYTES)
    try:
        text = raw.decode("utf-16" if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"its text is not UTF-8, at byte {error.start}: save it as UTF-8") from error
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_nodes(node)
        content = loader.construct_document(node)
    finally:
        loader.dispose()
    _check_values(content)
    for value in _texts(content):  # the parser of options reads them as YAML again
        check_yaml_text(value)
    return content


def check_yaml_text(text: str) -> None:
    """Refuse a text beyond the bounds of ``read_yaml`` where it is YAML, as the value of an option may be.

    A text that is not YAML passes, as most values are not.

    Raises:
        ValueError: When it is too deep, or has too many values with its aliases written out.
    """
    # each level takes a character of these, and what is written out more than once an alias
    if "*" not in text and sum(map(text.count, "[{-?:")) <= _DEEPEST:
        return
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        if (node := loader.get_single_node()) is not None:
            _check_nodes(node)
    except yaml.YAMLError:
        pass
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {_DEEPEST} levels") from error
    finally:
        if loader is not None:
            loader.dispose()


def json_keys(path: Path) -> set[str]:
    """Names of the values of a JSON file, none where it holds no object.

    Raises:
        OSError: When it cannot be read.
        ValueError: When it is no JSON.
        RecursionError: When it is far too deep.
    """
    content = read_json(path)
    return set(content) if isinstance(content, dict) else set()


def _bytes_of(path: Path, most: int = _MOST_BYTES) -> bytes:
    size = path.stat().st_size
    _check_bytes(size, most)
    with path.open("rb") as stream:
        raw = stream.read(max(size, 2**16) + 1)  # space for as many bytes is taken at once
    _check_bytes(len(raw), most)
    return raw


def _check_bytes(size: int, most: int) -> None:
    if size > most:
        raise ValueError(f"it is larger than {most // 2**10:,} KiB")


def _check_nodes(root: yaml.Node) -> None:
    """Count what aliases stand for before anything is made of it: a few lines can stand for billions of values."""
    stack, seen = [(root, 1)], 0
    while stack:
        node, depth = stack.pop()
        seen += 1
        if seen > _MOST_YAML_NODES or depth > _DEEPEST:
            raise ValueError(
                f"it is nested deeper than {_DEEPEST} levels, or has more than {_MOST_YAML_NODES:,} values with its "
                "aliases written out"
            )
        if isinstance(node, yaml.MappingNode):
            stack += ((part, depth + 1) for pair in node.value for part in pair)
        elif isinstance(node, yaml.SequenceNode):
            stack += ((part, depth + 1) for part in node.value)


def _check_values(content: object) -> None:
    """Refuse what later steps could not print, compare or write: very deep lists, and text that no file can hold."""
    stack = [(content, 1)]
    while stack:
        value, depth = stack.pop()
        if depth > _DEEPEST:
            raise ValueError(f"it is nested deeper than {_DEEPEST} levels")
        if isinstance(value, str):
            # names of files that are no valid text stand as surrogates from DC80 to DCFF
            if "\0" in value or not _is_text(value):
                raise ValueError(f"it holds the text {value[:50]!a}, which is not valid text")
        elif isinstance(value, dict):
            stack += ((part, depth + 1) for pair in value.items() for part in pair)
        elif isinstance(value, list | tuple | set):
            stack += ((part, depth + 1) for part in value)


def _texts(content: object) -> Iterator[str]:
    """Every text in lists and mappings."""
    stack = [content]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            stack += value.values()
        elif isinstance(value, list | tuple | set):
            stack += value


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
