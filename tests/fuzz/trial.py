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
"""Bytes that a reader may ask for; the limits of headers are 1.5 GB."""


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
    resource.setrlimit(resource.RLIMIT_AS, (held + _MEMORY, limits[1]))
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGPROF, before)


def _is_hungry(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, is that of memory that was not given."""
    while error is not None:
        if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


def fault(reader: Reader, content: bytes) -> str | None:
    """What is wrong with how a reader takes a file of some content; ``None`` where nothing is."""
    whole = reader.file.read_bytes()
    reader.file.write_bytes(content)
    try:
        with _bounded(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(reader.file)
    except BitemporalError as error:
        if _is_hungry(error):
            return f"takes more than {_MEMORY / 2**30:g} GiB: {error}"
        named = reader.file.name in str(error) or reader.file.parent.name in str(error)
        return None if named else f"does not name the file: {error}"
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "bitemporal" in f.filename]
        last = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        return f"{type(error).__module__}.{type(error).__name__} at {last}: {str(error)[:200]}"
    finally:
        reader.file.write_bytes(whole)
    return None


def faults(folder: Path, seed: int, tries: int) -> list[str]:
    """Faults of every reader over so many damaged files each."""
    found: dict[str, str] = {}
    for name, reader in readers(folder).items():
        whole, rng = reader.file.read_bytes(), random.Random(f"{name} {seed}")
        for number in range(tries):
            content = damaged(whole, rng)
            if (wrong := fault(reader, content)) is not None:
                key = f"{name}: {wrong.partition(': ')[0]}"
                found.setdefault(key, f"{name}, seed {seed}, file {number}: {wrong}")
    return list(found.values())


if __name__ == "__main__":
    import tempfile

    end, seed = time.monotonic() + float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    wrong: set[str] = set()
    with tempfile.TemporaryDirectory() as scratch:
        while time.monotonic() < end:
            for line in faults(Path(scratch) / "files", seed, 50):
                if line not in wrong:
                    wrong.add(line)
                    print(line, flush=True)
            seed += 1
    print(f"up to seed {seed}: {len(wrong)} faults")
    sys.exit(bool(wrong))
