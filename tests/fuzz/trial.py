"""Tries damaged files on the readers: nothing but errors of ours that name the file, in bounded time and memory."""

import random
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

_SECONDS = 20
"""A reader that takes longer hangs."""


class Hangs(Exception):
    """A reader took longer than it may."""


@contextmanager
def _in_time() -> Iterator[None]:
    def late(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fault(reader: Reader, content: bytes) -> str | None:
    """What is wrong with how a reader takes a file of some content; ``None`` where nothing is."""
    whole = reader.file.read_bytes()
    reader.file.write_bytes(content)
    try:
        with _in_time(), warnings.catch_warnings():
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
