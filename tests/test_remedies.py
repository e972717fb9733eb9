"""The helper that follows remedies: right ones pass, wrong ones fail."""

import numpy as np
import pytest
from PIL import Image

from bitemporal.imagery import read_mask
from remedies import follow_commands, follow_keywords, follow_options


@pytest.fixture
def pairs(tmp_path):
    """Pairs whose labels hold 1 and 2."""
    for name in ("A", "B", "label"):
        (tmp_path / name).mkdir()
        array = np.ones((8, 8), np.uint8) if name == "label" else np.zeros((8, 8, 3), np.uint8)
        array[:2] = 2
        Image.fromarray(array).save(tmp_path / name / "a.png")
    return tmp_path


def test_options_are_added_replaced_and_taken_out(pairs):
    tried = []
    command = ["data", "check", str(pairs), "--label-threshold", "5", "--workers=1"]
    text = (
        "state the values instead of label_threshold (--label-threshold): --label-values 1,2 --workers 1 (or "
        "--label-values 2,1)."
    )
    assert follow_options(text, command, tried.append) == tried
    assert tried == [["--label-values", "1,2", "--workers", "1"], ["--label-values", "2,1"]]


@pytest.mark.parametrize(
    "text",
    [
        "nothing to type here; try --label-values",
        "say --label-values UNCHANGED,CHANGED",
        "say --label-values 1,3",
        "say --label-values 1,2 --no-such-option",
        "the right one, --label-values 1,2, and a wrong one, --label-values 5,6",
    ],
)
def test_options_that_do_not_help_fail(pairs, text):
    with pytest.raises(AssertionError):
        follow_options(text, ["data", "check", str(pairs)])


def test_keywords(pairs):
    def call(**keywords):
        read_mask(pairs / "label" / "a.png", **keywords)

    text = "instead of label_threshold (--label-threshold), say label_values=(1, 2) (--label-values 1,2)."
    given = {"label_threshold": float("nan")}
    assert follow_keywords(text, call, given) == [{"label_values": (1, 2)}]
    for wrong in ("say nothing", "say label_values=(1, 3)", "say labels=(1, 2)"):
        with pytest.raises(Exception, match=r"keyword|holds"):
            follow_keywords(wrong, call)


def test_commands(pairs):
    assert follow_commands(f"type `bitemporal data check {pairs} --label-values 1,2`.") == [
        ["data", "check", str(pairs), "--label-values", "1,2"]
    ]
    for wrong in ("nothing", f"type `bitemporal data check {pairs}`"):
        with pytest.raises(AssertionError):
            follow_commands(wrong)
