"""Runs commands, or any call, in a copy of this process: bounded in time and memory, without paying for its imports."""

import ctypes
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bitemporal.cli.main import main

MOST_MEMORY = 4 * 2**30
"""Bytes of address space that a copy may add to those of this process, so that the machine bears it."""


@dataclass(frozen=True)
class Ended:
    """How a call ended.

    Attributes:
        status: Its exit status; negative where a signal ended it, such as -9 where it took longer than it may.
        said: All that it printed.
        seconds: Of its processor, its own processes included.
        memory: Bytes that its largest process had more than this one.
    """

    status: int
    said: str
    seconds: float
    memory: int

    def fault(self, seconds: float = 15, memory: int = 3 * 2**29) -> str | None:
        """What is wrong with how it ended, ``None`` where nothing is."""
        if self.status == -signal.SIGKILL:
            return "it does not end"
        if self.status not in (0, 1, 2):
            return f"exit status {self.status}: {self.said[-300:]}"
        if "Traceback" in self.said:
            return f"traceback: {self.said.strip().splitlines()[-1]}"
        if self.seconds > seconds:
            return f"it takes {self.seconds:.0f} s"
        return f"it takes {self.memory / 2**30:.1f} GiB" if self.memory > memory else None


def run_command(words: Sequence[str], limit: int = 60, rights: bool = True) -> Ended:
    """Run a command in a copy of this process, perhaps without the right of root to read whatever it likes."""

    def call() -> int:
        if not rights:
            _give_up_rights()
        return main(list(words))

    return run(call, limit)


def _give_up_rights() -> None:
    """Give up all capabilities, as every user but root has none."""
    version, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(version, none):
        raise OSError(ctypes.get_errno(), "capset")


def run(call: Callable[[], object], limit: int = 60) -> Ended:
    """Run a call in a copy of this process, which is killed after so many seconds; an ``int`` is its exit status."""
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.stdout.flush(), sys.stderr.flush()
    with tempfile.TemporaryFile() as printed:
        child = os.fork()
        if child == 0:
            _run_and_exit(call, printed.fileno())
        status, usage = _wait(child, limit)
        printed.seek(0)
        said = printed.read().decode("utf-8", "backslashreplace")
    seconds = usage.ru_utime + usage.ru_stime
    return Ended(os.waitstatus_to_exitcode(status), said, seconds, (usage.ru_maxrss - held) * 1024)


def _run_and_exit(call: Callable[[], object], printed: int) -> None:
    status: object = 1
    try:
        os.setpgid(0, 0)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", errors="backslashreplace") for number in (1, 2))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MOST_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        status = call()
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 0 if status is None else 1)


def _wait(child: int, limit: int) -> tuple[int, resource.struct_rusage]:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            return status, usage
        time.sleep(0.005)
    os.killpg(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return status, usage
