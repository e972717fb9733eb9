"""Numbers that no machine can follow, as the value of every option that is a number: refused, or done, at once."""

import importlib
import re

import pytest

from bitemporal.cli.execution import CommonOptions
from bitemporal.cli.main import COMMANDS
from bitemporal.cli.parser import _List, make_parser
from forked import run_command
from test_every_command import words, world  # noqa: F401  a fixture

NUMBERS = ("-1", "0", "nan", "inf", "1e18", "1000000000000000000", "9" * 40, "1e308", "-1e308", "1e-308")

SAME = {"distill": "train", "reproduce": "train", "predict-archive": "predict-scene"}
"""Commands that share options with a quicker one, which tries them."""


def options_of_numbers(command):
    """Options of a command that take a number or several, with how many where that is fixed."""
    module, name = COMMANDS[command].split(":")
    parser = make_parser(command, getattr(importlib.import_module(module), name), CommonOptions)
    for action in parser._actions:
        hint = getattr(action, "_typehint", None) or action.type
        if not action.option_strings:
            continue
        if isinstance(hint, _List):
            if {*hint.kinds} & {int, float}:
                yield action.option_strings[0], 2 if Ellipsis in hint.kinds else len(hint.kinds), Ellipsis in hint.kinds
        elif re.search(r"\b(int|float)\b", str(hint)):
            yield action.option_strings[0], 1, True


def values(count, one_suffices):
    for number in NUMBERS:
        if one_suffices:
            yield number
        if count > 1:
            yield ",".join([number] * count)
            yield ",".join(["0"] * (count - 1) + [number])


@pytest.mark.full
@pytest.mark.parametrize("command", COMMANDS)
def test_numbers_that_no_machine_can_follow(command, world, tmp_path, monkeypatch):  # noqa: F811  the fixture
    monkeypatch.chdir(world)
    faults = []
    tried = {option for option, *_ in options_of_numbers(SAME[command])} if command in SAME else set()
    for option, count, one_suffices in options_of_numbers(command):
        if option in tried:
            continue
        for number, value in enumerate(values(count, one_suffices)):
            line = [*words(command, tmp_path / f"{option}-{number}"), f"{option}={value}"]
            if (fault := run_command(line).fault()) is not None:
                faults.append(f"{' '.join(line)}: {fault}")
    assert faults == []
