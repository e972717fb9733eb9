"""Runs a command: the options that every command has, errors in a line, and what becomes of its output."""

import errno
import io
import json
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from bitemporal.cli import signals
from bitemporal.cli.outcome import Outcome
from bitemporal.errors import BitemporalError, MissingExtraError
from bitemporal.files import without_nan
from bitemporal.own_networks import remember_modules
from bitemporal.remedies import as_option
from bitemporal.texts import harmless, harmless_in_terminal

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """Options of every command.

    Attributes:
        json: Print the results as JSON instead of text.
        quiet: Print nothing unless something is wrong; with --json, the results alone.
        verbose: Print the whole traceback of an error.
        import_: Modules or files (.py) to import first, as in my_networks or a.py,b.py, which register networks of
            your own.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    import_: tuple[str, ...] = ()


def execute(name: str, command: Callable[[], Outcome], options: CommonOptions, values: Mapping[str, Any]) -> int:
    """Run a command.

    Args:
        name: What messages call it.
        command: The function, with its arguments.
        options: Those of every command.
        values: Those of all its options, for the remedies of errors.

    Returns:
        The exit status.
    """
    # that it cannot keep its fonts, as where the home folder is read-only
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    shown, printed, said = sys.stdout, io.StringIO(), io.StringIO()
    with ExitStack() as streams:
        if options.json or options.quiet:
            streams.enter_context(redirect_stdout(printed))
        if options.quiet:
            streams.enter_context(redirect_stderr(said))
        outcome = _outcome(name, command, options, values)
    if options.quiet and outcome.status:
        sys.stderr.write(("" if options.json else printed.getvalue()) + said.getvalue())
    if options.json and outcome.results is not None:
        print(json.dumps(without_nan(outcome.results), indent=2, default=os.fspath, allow_nan=False), file=shown)
    return outcome.status


def _outcome(name: str, command: Callable[[], Outcome], options: CommonOptions, values: Mapping[str, Any]) -> Outcome:
    """What a command ends with; an error that is no fault of this package is a line."""
    try:
        remember_modules(options.import_)
        with _warnings_in_one_line():
            return command()
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, KeyboardInterrupt) or signals.received():  # whatever it became on its way
            print(f"{name}: {signals.told()}", file=sys.stderr)
            return Outcome(None, signals.status())
        found = _explanation(error, values)
        if found is None:
            raise
        if options.verbose:
            traceback.print_exc()
        for given in (value for value in values.values() if isinstance(value, str)):
            found = found.replace(given, harmless(given, lines=False)) if given.strip() else found
        print(f"{name}: {harmless(found)}", file=sys.stderr)
        return Outcome(None, 1)


def _explanation(error: Exception, values: Mapping[str, Any]) -> str | None:
    """What a user can do about an error; ``None`` for a fault of this package.

    Args:
        error: What a command has raised.
        values: Those of the command's options.
    """
    if isinstance(error, BitemporalError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and (missing := MissingExtraError.of(error)):
        return str(missing)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, without importing it
        reason = str(error).partition("\n")[0]
        return f"out of memory ({reason}){_less_memory(values)}"
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        name = os.path.basename(os.fsdecode(error.filename or ""))
        return (
            f"{name[:40]}...: a name of {len(os.fsencode(name))} bytes is too long for this disk; choose a shorter one"
        )
    if isinstance(error, OSError):
        return f"{error}; make sure that the file, the disk or the network is there (--verbose shows where it failed)"
    return None


def _less_memory(values: Mapping[str, Any]) -> str:
    """Options of a command with which it needs less memory; empty where it has none."""
    remedies = []
    for name, least, usual in (("batch_size", 1, 2), ("tile", 256, 1024)):
        if name in values and (smaller := max(least, (values[name] or usual) // 2)) != values[name]:
            remedies.append(as_option(name, smaller))
    if values.get("device", "cpu") != "cpu":
        remedies.append(as_option("device", "cpu"))
    return f"; try {', or '.join(remedies)}" if remedies else "; close other programs, or use a larger machine"


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Show warnings to users without the line of code that they come from."""
    usual = warnings.formatwarning

    def one_line(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        return (
            f"warning: {harmless(str(message))}\n"
            if category is UserWarning
            else usual(message, category, filename, lineno, line)
        )

    warnings.formatwarning = one_line
    try:
        yield
    finally:
        warnings.formatwarning = usual


class _Stream(io.FileIO):
    """A stream that drops what no one reads any more, so that a command behind ``| head`` still ends its work.

    So it does where the disk of its file is full; that is a fault, which is kept.
    """

    fault: OSError | None = None

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self.fault = error
            with open(os.devnull, "wb") as nothing:
                os.dup2(nothing.fileno(), self.fileno())
            return memoryview(data).nbytes


class _Terminal(io.TextIOWrapper):
    """Printed text in which no file name acts on the terminal.

    Colours and progress bars are this program's own; it draws them on terminals alone.
    """

    def write(self, text: str, /) -> int:
        if self.isatty():
            super().write(harmless_in_terminal(text, progress=self.fileno() == 2))
        else:
            super().write(harmless(text))
        return len(text)


def flush_output() -> bool:
    """Write what was printed; ``False``, with a line that says why, when it could not be written whole."""
    sys.stdout.flush()
    fault = getattr(getattr(sys.stdout.buffer, "raw", None), "fault", None)
    if fault is not None:
        print(f"bitemporal: standard output cannot be written ({fault}); free space there", file=sys.stderr)
    return fault is None


def outlive_readers() -> None:
    """Let this process continue when the reader of its output ends, or there is none."""
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:  # closed by the shell; else the next file opened would take its place
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
            continue
        if stream is not getattr(sys, f"__{name}__"):
            continue  # caught by a program around this one
        stream.flush()
        buffer = io.BufferedWriter(_Stream(stream.fileno(), "wb", closefd=False))
        lines = stream.isatty() or name == "stderr"
        # names of files need not be valid text
        kept = _Terminal(buffer, stream.encoding, "backslashreplace", line_buffering=lines)
        setattr(sys, name, kept)
