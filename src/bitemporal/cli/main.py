"""The ``bitemporal`` command: every command is one typed function, its docstring the help text."""

import importlib
import inspect
import sys
import typing
from collections.abc import Callable
from typing import Any

import docstring_parser
from jsonargparse import ArgumentParser

from bitemporal.errors import BitemporalError

COMMANDS: dict[str, str] = {
    "data check": "bitemporal.cli.data_check:check",
    "data stats": "bitemporal.cli.data_stats:stats",
    "data download": "bitemporal.cli.data_download:download",
    "data synth": "bitemporal.cli.data_synth:synth",
    "train": "bitemporal.cli.train:train",
    "distill": "bitemporal.cli.distill:distill",
    "predict": "bitemporal.cli.predict:predict",
    "evaluate": "bitemporal.cli.evaluate:evaluate",
}
"""Command line words -> module and function, imported only when called."""

_SHORT = {"output": "-o"}


def _function(command: str) -> Callable[..., int | None]:
    module, name = COMMANDS[command].split(":")
    function: Callable[..., int | None] = getattr(importlib.import_module(module), name)
    return function


def _parser(command: str, function: Callable[..., Any]) -> tuple[ArgumentParser, dict[str, str]]:
    """The parser of one command, and its argument name for every parameter.

    Positional-only parameters become positional arguments, all others options; a trailing underscore, which keeps a
    parameter off a keyword of Python, is not shown.
    """
    documentation = docstring_parser.parse(function.__doc__ or "")
    helps = {p.arg_name: (p.description or "").replace("%", "%%") for p in documentation.params}
    parser = ArgumentParser(prog=f"bitemporal {command}", description=documentation.description, exit_on_error=True)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    hints = typing.get_type_hints(function)
    names: dict[str, str] = {}
    for parameter in inspect.signature(function).parameters.values():
        name = names[parameter.name] = parameter.name.rstrip("_")
        required = parameter.default is inspect.Parameter.empty
        options: dict[str, Any] = {"type": hints[parameter.name], "help": helps.get(parameter.name, "")}
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            if not required:
                options |= {"nargs": "?", "default": parameter.default}
            parser.add_argument(name, **options)
            continue
        options |= {"required": True} if required else {"default": parameter.default}
        if hints[parameter.name] is bool:
            options |= {"action": "store_true"}
            del options["type"]
        short = [_SHORT[name]] if name in _SHORT else []
        parser.add_argument(*short, f"--{name.replace('_', '-')}", dest=name, **options)
    return parser, names


def _overview() -> str:
    lines = ["usage: bitemporal COMMAND ...", "", "commands (`bitemporal COMMAND --help` explains one):"]
    for command in COMMANDS:
        summary = docstring_parser.parse(_function(command).__doc__ or "").short_description
        lines.append(f"  {command:<16}{summary}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Command line words; those of the process when ``None``.

    Returns:
        Exit status: 0 done, 1 the command found faults or met an error of the user's, 2 unusable arguments.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        from bitemporal import __version__

        print(__version__)
        return 0
    command = next((c for c in (" ".join(words[:2]), words[0]) if c in COMMANDS), None)
    if command is None:
        print(f"bitemporal: no command {' '.join(words[:2])!r}\n\n{_overview()}", file=sys.stderr)
        return 2
    function = _function(command)
    parser, names = _parser(command, function)
    values = parser.parse_args(words[len(command.split()) :])
    positional, keyword = [], {}
    for parameter in inspect.signature(function).parameters.values():
        value = values[names[parameter.name]]
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            positional.append(value)
        else:
            keyword[parameter.name] = value
    try:
        return function(*positional, **keyword) or 0
    except BitemporalError as error:
        print(f"bitemporal {command}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
