"""How a command ends from outside: by Ctrl-C, by SIGTERM, or as its terminal closes.

The main thread is interrupted, puts everything in order, and the command ends. Where that takes longer than
``GRACE``, as within a long call of a library, or where a second signal comes, a thread ends the process at once. What
is written appears whole or not at all, so that nothing is half-written then either.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

GRACE = 2.0
"""Seconds that the main thread has."""

_SHOW_CURSOR = b"\x1b[?25h"

_handled: set[int] = set()
_received: int | None = None
_raised = False
_told = False
_ending = threading.Lock()
_wakeup: tuple[socket.socket, socket.socket] | None = None


def answer_signals() -> None:
    """End this process by signals from now on as this module says; but not by those that it was started to ignore."""
    global _wakeup
    if os.name != "posix":  # Ctrl-C raises KeyboardInterrupt there, and no other signal arrives
        return
    _wakeup = socket.socketpair()
    _wakeup[1].setblocking(False)
    signal.set_wakeup_fd(_wakeup[1].fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            _handled.add(number)
            signal.signal(number, _interrupt)
    os.register_at_fork(after_in_child=_forget)
    sys.unraisablehook = _unless_received(sys.unraisablehook)
    threading.excepthook = _unless_received(threading.excepthook)
    threading.Thread(target=_watch, args=(_wakeup[0],), name="signals", daemon=True).start()


def finish() -> None:
    """Let the process end by itself, or at once when a signal has come."""
    if _received is not None:
        end()
    _forget()


def received() -> bool:
    """Whether a signal has come, whatever has become of the main thread since."""
    return _received is not None


def status() -> int:
    """What shells report for a program that ends by the signal: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
    return 128 + (_received or signal.SIGINT)


def told() -> str:
    """What becomes of the command, in words."""
    global _told
    _told = True
    number = _received or signal.SIGINT
    return "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"


def end() -> NoReturn:
    """End this process now, with the processes that it has started and what it was writing; any thread may do so."""
    if not _ending.acquire(blocking=False):
        threading.Event().wait()  # another thread does
    line = b"" if _told else f"bitemporal: {told()}\n".encode()
    # by name: what has not been imported has nothing to end
    for name, tidy in (("multiprocessing.process", _end_processes), ("bitemporal.outputs", _remove_unfinished)):
        if name in sys.modules:
            with suppress(Exception):
                tidy()
    with suppress(OSError):
        os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + line)
    os._exit(status())


def _end_processes() -> None:
    import multiprocessing.util

    for process in multiprocessing.active_children():
        process.kill()
    util: Any = multiprocessing.util
    util._run_finalizers(0)  # else the system keeps their locks, and Python warns of it


def _remove_unfinished() -> None:
    from bitemporal.outputs import remove_unfinished

    remove_unfinished()


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _received, _raised
    _received = _received or number
    if not _raised:
        _raised = True
        raise KeyboardInterrupt


def _watch(stream: socket.socket) -> None:
    global _received
    number = _next(stream)
    _received = _received or number
    stream.settimeout(GRACE)
    with suppress(TimeoutError):
        _next(stream)
    end()


def _next(stream: socket.socket) -> int:
    """The next signal that ends a command; others have their own answers."""
    while True:
        (number,) = stream.recv(1)
        if number in _handled:
            return number


def _forget() -> None:
    """Signals end this process at once, silently: it is at its end, or does a share of the work for another."""
    for number in _handled:
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)


def _unless_received(hook: Callable[[Any], object]) -> Callable[[Any], None]:
    """Say nothing of what an interrupted piece of work meets."""

    def quiet(arguments: object) -> None:
        if _received is None:
            hook(arguments)

    return quiet
