"""Damaged files for every reader: a fixed number here, as many as there is time for by ``make fuzz``."""

import sys

import pytest
import trial
from readers import Reader
from trial import fault, faults

from bitemporal.errors import DataError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is measured as Linux has it")


@pytest.mark.full
@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_are_errors_of_ours_that_name_them(tmp_path, seed):
    assert list(faults(tmp_path / "files", seed, 40)) == []


def _never_ends(path):
    while True:
        pass


def test_the_trial_notices_foreign_errors_errors_without_the_file_hunger_and_hangs(tmp_path, monkeypatch):
    file = tmp_path / "x.json"
    file.write_text("whole")

    def foreign(path):
        raise KeyError("a")

    def nameless(path):
        raise DataError("it is damaged")

    assert "KeyError" in fault(Reader(file, foreign), b"damaged")
    assert "does not name the file" in fault(Reader(file, nameless), b"damaged")
    assert fault(Reader(file, lambda path: None), b"damaged") is None
    monkeypatch.setattr(trial, "_MEMORY", 2**26)
    assert "uses 0." in fault(Reader(file, lambda path: b"x" * 2**28), b"damaged")
    monkeypatch.setattr(trial, "_SECONDS", 0.1)
    assert "Hangs" in fault(Reader(file, _never_ends), b"damaged")
    assert file.read_text() == "whole"
