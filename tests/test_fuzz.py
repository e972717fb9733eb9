"""Damaged files for every reader: a fixed number here, as many as there is time for by ``make fuzz``."""

import pytest
from readers import Reader
from trial import fault, faults

from bitemporal.errors import DataError


@pytest.mark.full
@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_are_errors_of_ours_that_name_them(tmp_path, seed):
    assert faults(tmp_path / "files", seed, 40) == []


def test_the_trial_notices_foreign_errors_and_errors_without_the_file(tmp_path):
    file = tmp_path / "x.json"
    file.write_text("whole")

    def foreign(path):
        raise KeyError("a")

    def nameless(path):
        raise DataError("it is damaged")

    assert "KeyError" in fault(Reader(file, foreign), b"damaged")
    assert "does not name the file" in fault(Reader(file, nameless), b"damaged")
    assert fault(Reader(file, lambda path: None), b"damaged") is None
    assert file.read_text() == "whole"
