"""Tries damaged files on the readers: nothing but errors of ours that name the file, in bounded time and memory."""

import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from readers import Reader, damaged, readers

from bitemporal.errors import BitemporalError

_SECONDS = 5
"""Of the processor; a reader that takes longer hangs."""

_MEMORY = 2 * 2**30
"""Bytes that a reader may use; the limits of headers are 1.5 GB."""

_ADDRESSES = 8 * 2**30
"""Bytes that it may ask for, used or not, so that the machine bears it."""


class Hangs(Exception):
    """A reader took longer than it may."""


@contextmanager
def _bounded() -> Iterator[None]:
    """Let this process take no more time and memory than a reader may."""

    def late(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGPROF, late)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + _ADDRESSES, limits[1]))
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGPROF, before)


def _peak() -> int:
    """Most bytes of memory that this process has used since the peak was last forgotten."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def fault(reader: Reader, content: bytes) -> str | None:
    """What is wrong with how a reader takes a file of some content; ``None`` where nothing is."""
    _forget_peak()
    held = _peak()
    wrong = _fault(reader, content)
    used = _peak() - held
    return wrong if wrong is not None or used <= _MEMORY else f"uses {used / 2**30:.1f} GiB"


def _fault(reader: Reader, content: bytes) -> str | None:
    whole = reader.file.read_bytes()
    reader.file.write_bytes(content)
    try:
        with _bounded(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(reader.file)
    except BitemporalError as error:
        named = reader.file.name in str(error) or reader.file.parent.name in str(error)
        return None if named else f"does not name the file: {error}"
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "bitemporal" in f.filename]
        last = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        return f"{type(error).__module__}.{type(error).__name__} at {last}: {str(error)[:200]}"
    finally:
        reader.file.write_bytes(whole)
    return None


def faults(folder: Path, seed: int, tries: int) -> Iterator[str]:
    """Faults of every reader over so many damaged files each, one of each kind."""
    found = set()
    for name, reader in readers(folder).items():
        whole, rng = reader.file.read_bytes(), random.Random(f"{name} {seed}")
        for number in range(tries):
            wrong = fault(reader, damaged(whole, rng))
            if wrong is not None and (kind := (name, wrong.partition(": ")[0])) not in found:
                found.add(kind)
                yield f"{name}, seed {seed}, file {number}: {wrong}"


if __name__ == "__main__":
    import tempfile

    end, seed = time.monotonic() + float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        while time.monotonic() < end:
            for line in faults(Path(scratch) / "files", seed, 50):
                wrong += 1
                print(line, flush=True)
            seed += 1
    print(f"up to seed {seed}: {wrong} faults")
    sys.exit(bool(wrong))
