"""Follows the remedies that errors print, to the letter: what a text says to type is typed, and has to succeed.

A remedy is one of three things, and a text may name several, as alternatives:

- options, ``--label-band 3 --changed 1,2``: options that follow each other are one remedy. They are added to the
  command that failed, in place of the same options there;
- keywords of Python, ``label_band=3, changed=(1, 2)``: passed to the function that failed, in the same way;
- a command in backticks, ```bitemporal data check FOLDER```.

``instead of label_threshold (--label-threshold)`` takes that keyword or option out of the call that failed. ``without
--paper`` and ``leave --paper out`` do so too: each is a remedy of its own, or, after ``and``, a part of the one before.

In a test::

    command = ["data", "check", str(folder)]
    assert main(command) == 1
    text = capsys.readouterr().out
    assert follow_options(text, command) == [["--changed", "1,2"]]  # every alternative is tried
    follow_keywords(text, lambda **options: check_pairs(PairFolder(folder, **options)).raise_for_faults())

and ``follow_commands(text)`` for commands, ``follow_tools(text)`` for those of rasterio and Python. A remedy that
fails, or none in the text, fails the test. A placeholder, such as ``--label-values UNCHANGED,CHANGED``, is typed as
well, and fails. ``then`` is called after each remedy with its words or keywords, to check more than the exit status.
"""

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bitemporal.cli.main import COMMANDS, main
from bitemporal.cli.parser import make_parser

_COMMAND = re.compile(r"`bitemporal ([^`]+)`")
_WORD = r"(?:'[^']*'|[^\s`;()']*[^\s`;:(),.'])"  # what a person would type, without the sentence's own marks
_PYTHON = r"(?:(?:float)?\((?:[^()]|\([^()]*\))*\)|'[^']*'|\"[^\"]*\"|-?[\w.]*\w)"
_OPTION = r"--[a-z][a-z-]*"
_KEYWORD = rf"(?<![\w-])[a-z][a-z_]*={_PYTHON}"
_INSTEAD = re.compile(r"instead of ([a-z_]+) \((--[a-z-]+)\)")


def follow_options(
    text: str, command: Sequence[str], then: Callable[[list[str]], object] = lambda words: None
) -> list[list[str]]:
    """Run a command again with each remedy of options that the text names.

    Args:
        text: What the command printed.
        command: Words of the command that failed, without ``bitemporal``.
        then: Called after each remedy with its words.

    Returns:
        The words of every remedy.
    """
    takes_value = _options_of(command)
    one = "|".join(rf"{name}[ =]{_WORD}" if value else rf"{name}(?![\w-])" for name, value in takes_value.items())
    sentences = _COMMAND.sub("", text)
    if unknown := set(re.findall(r"(?<!\S)\(?(--[a-z-]+)", sentences)) - {*takes_value}:
        raise AssertionError(f"the text names {unknown}, which `bitemporal {command[0]}` does not have: {text}")
    given = rf"(?<![\w./-])(?:{one})(?: (?:{one}))*"
    taken_out = rf"(?P<out>without(?: {_OPTION})+|[Ll]eave {_OPTION} out)"
    remedies: dict[str, list[str]] = {}
    replaced = {option for _, option in _INSTEAD.findall(text)}
    alone = taken_out.replace("<out>", "<alone>")
    for match in re.finditer(rf"(?P<given>{given})(?: and {taken_out})?|{alone}", sentences):
        words = shlex.split(match["given"] or "")
        left_out = {*re.findall(_OPTION, match["out"] or match["alone"] or "")}
        remedies[match.group()] = words
        names = {word.partition("=")[0] for word in words}
        _run([*_without(command, replaced | names | left_out, takes_value), *words], text)
        then(words)
    assert remedies, f"the text names no option to try: {text}"
    return [*remedies.values()]


def follow_keywords(
    text: str,
    call: Callable[..., object],
    given: Mapping[str, Any] | None = None,
    then: Callable[[dict[str, Any]], object] = lambda keywords: None,
) -> list[dict[str, Any]]:
    """Call a function again with each remedy of keywords that the text names.

    Args:
        text: Text of the error.
        call: What failed; takes keywords, and raises when it fails.
        given: Keywords of the call that failed.
        then: Called after each remedy with its keywords.

    Returns:
        The keywords of every remedy.
    """
    runs = [match.group() for match in re.finditer(rf"{_KEYWORD}(?:, {_KEYWORD})*", text)]
    names = {"__builtins__": {}, "dict": dict, "float": float}  # float('nan') has no literal
    remedies: list[dict[str, Any]] = [eval(f"dict({run})", names) for run in dict.fromkeys(runs)]
    assert remedies, f"the text names no keyword to try: {text}"
    replaced = {keyword for keyword, _ in _INSTEAD.findall(text)}
    for keywords in remedies:
        call(**{name: value for name, value in (given or {}).items() if name not in replaced} | keywords)
        then(keywords)
    return remedies


def follow_commands(text: str) -> list[list[str]]:
    """Run each ``bitemporal`` command that the text has in backticks.

    Returns:
        The words of every command, without ``bitemporal``.
    """
    commands = [shlex.split(words) for words in _COMMAND.findall(text)]
    assert commands, f"the text names no command to try: {text}"
    for words in commands:
        _run(words, text)
    return commands


def follow_tools(text: str) -> list[list[str]]:
    """Run each command of rasterio (``rio``) and Python that the text has in backticks.

    Returns:
        The words of every command.
    """
    commands = [shlex.split(words) for words in re.findall(r"`((?:rio|python) [^`]+)`", text)]
    assert commands, f"the text names no command of rio or python to try: {text}"
    for program, *words in commands:
        if program == "rio":
            from rasterio.rio.main import main_group  # here: folders of pairs need no rasterio

            main_group(words, standalone_mode=False)
        else:
            subprocess.run([sys.executable, *words], check=True)
    return commands


def _run(words: Sequence[str], text: str) -> None:
    try:
        status = main(list(words))
    except SystemExit as ended:  # words that the parser refuses
        status = ended.code
    assert status == 0, f"`bitemporal {' '.join(words)}` ends with {status}, although the text says so: {text}"


def _options_of(command: Sequence[str]) -> dict[str, bool]:
    """Options of a command, and whether each takes a value."""
    name = next(name for name in (" ".join(command[:2]), command[0]) if name in COMMANDS)
    module, function = COMMANDS[name].split(":")
    parser = make_parser(name, getattr(importlib.import_module(module), function))
    return {option: action.nargs != 0 for action in parser._actions for option in action.option_strings}


def _without(command: Sequence[str], options: set[str], takes_value: dict[str, bool]) -> list[str]:
    """A command without some options and their values."""
    kept: list[str] = []
    words = iter(command)
    for word in words:
        name, has_value, _ = word.partition("=")
        if name not in options:
            kept.append(word)
        elif takes_value.get(name) and not has_value:
            next(words)
    return kept
