"""A disk that is really full: a small file system in memory, where the system lets tests mount one."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """Mount a file system of so many bytes there; skips the test where that is not allowed."""
    folder.mkdir(exist_ok=True)
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mounting a small file system is not allowed here ({getattr(error, 'stderr', error)})")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def grow(folder: Path, size: int) -> None:
    """Give a small disk more space."""
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)
