"""Ctrl-C reaches every process of a terminal: those that take a share of the work end in silence."""

import os
import signal
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress

import pytest

from bitemporal.workers import process_pool


def test_a_process_that_is_interrupted_while_it_starts_ends_in_silence(capfd):
    with process_pool(1, initializer=signal.raise_signal, initargs=(signal.SIGINT,)) as pool:
        assert isinstance(pool.submit(os.getpid).exception(), BrokenProcessPool)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("at_work", [True, False])
def test_a_process_that_is_interrupted_later_ends_in_silence(at_work, capfd):
    with process_pool(1) as pool:
        number = pool.submit(os.getpid).result()
        if at_work:
            error = pool.submit(signal.raise_signal, signal.SIGINT).exception()
            assert isinstance(error, SystemExit) and error.code == 130
        else:
            (process,) = pool._processes.values()
            while process.is_alive():  # one that still hands over its result goes on, until the next signal
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGINT)
                process.join(0.1)
            assert process.exitcode == 130
    assert capfd.readouterr() == ("", "")


def test_this_process_is_still_interrupted(capfd):
    with process_pool(1) as pool:
        pool.submit(os.getpid).result()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
