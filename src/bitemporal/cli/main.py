"""The ``bitemporal`` command: every command is one typed function, its docstring the help text."""

import dataclasses
import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

import docstring_parser
from jsonargparse import ArgumentParser, Namespace

from bitemporal.cli.dispatch import which_predict
from bitemporal.errors import BitemporalError

COMMANDS: dict[str, str] = {
    "data check": "bitemporal.cli.data_check:check",
    "data stats": "bitemporal.cli.data_stats:stats",
    "data download": "bitemporal.cli.data_download:download",
    "data synth": "bitemporal.cli.data_synth:synth",
    "train": "bitemporal.cli.train:train",
    "distill": "bitemporal.cli.distill:distill",
    "predict": "bitemporal.cli.predict:predict",
    "predict-scene": "bitemporal.cli.predict_scene:predict_scene",
    "predict-archive": "bitemporal.cli.predict_archive:predict_archive",
    "evaluate": "bitemporal.cli.evaluate:evaluate",
    "compare": "bitemporal.cli.compare:compare",
    "report": "bitemporal.cli.report:report",
    "reproduce": "bitemporal.cli.reproduce:reproduce",
    "models": "bitemporal.cli.models:models",
    "import": "bitemporal.cli.import_checkpoint:import_checkpoint",
}
"""Command line words -> module and function, imported only when called."""

_SHORT = {"output": ("-o", "--out")}


def _function(command: str) -> Callable[..., int | None]:
    module, name = COMMANDS[command].split(":")
    function: Callable[..., int | None] = getattr(importlib.import_module(module), name)
    return function


@dataclasses.dataclass(frozen=True)
class _Option:
    """One word of the command line; ``name`` is that of the parameter or field, without a trailing underscore."""

    name: str
    hint: Any
    default: Any
    help: str
    positional: bool


def _helps(documented: object) -> dict[str, str]:
    documentation = docstring_parser.parse(documented.__doc__ or "")
    return {p.arg_name: (p.description or "").replace("%", "%%") for p in documentation.params}


def _options(function: Callable[..., Any]) -> dict[str, list[_Option]]:
    """The options of every parameter: one, or one a field where the parameter is a dataclass.

    Positional-only parameters become positional arguments, all others options; a trailing underscore, which keeps a
    name off a keyword of Python, is not shown.
    """
    hints, helps = typing.get_type_hints(function), _helps(function)
    found: dict[str, list[_Option]] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            field_hints = typing.get_type_hints(hint)
            field_helps = {
                k: v
                for c in reversed(typing.cast("type[Any]", hint).__mro__)
                if dataclasses.is_dataclass(c)
                for k, v in _helps(c).items()
            }
            found[name] = [
                _Option(
                    f.name.rstrip("_"),
                    field_hints[f.name],
                    inspect.Parameter.empty
                    if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
                    else (f.default if f.default_factory is dataclasses.MISSING else f.default_factory()),
                    field_helps.get(f.name, ""),
                    False,
                )
                for f in dataclasses.fields(hint)
            ]
        else:
            positional = parameter.kind is inspect.Parameter.POSITIONAL_ONLY
            found[name] = [_Option(name.rstrip("_"), hint, parameter.default, helps.get(name, ""), positional)]
    return found


@dataclasses.dataclass(frozen=True)
class _Numbers:
    """A reader of ``1,2`` (command line) and ``[1, 2]`` (YAML); ``length`` is ``None`` for any number of numbers."""

    kind: type[int] | type[float]
    length: int | None

    def __call__(self, value: str | Sequence[Any]) -> tuple[Any, ...]:
        words = value.strip("[]() ").split(",") if isinstance(value, str) else list(value)
        if self.length not in (None, len(words)):
            raise ValueError(f"expected {self}, found {value!r}")
        return tuple(self.kind(word) for word in words)

    def __repr__(self) -> str:
        """What messages and the help say."""
        count = "" if self.length is None else f"{self.length} "
        return f"{count}comma-separated {'integers' if self.kind is int else 'numbers'}"


def _numbers(hint: object) -> _Numbers | None:
    """The reader for a tuple of numbers; ``None`` for other types."""
    choices = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    tuples = [choice for choice in choices if typing.get_origin(choice) is tuple]
    if not tuples:
        return None
    kinds = typing.get_args(tuples[0])
    return _Numbers(kinds[0], None if kinds[-1] is Ellipsis else len(kinds))


def _is_words(hint: object) -> bool:
    """Whether an option takes words, one after the other."""
    choices = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return list[str] in choices


def _parser(command: str, function: Callable[..., Any]) -> ArgumentParser:
    description = docstring_parser.parse(function.__doc__ or "").description
    parser = ArgumentParser(prog=f"bitemporal {command}", description=description, exit_on_error=True)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    for option in (o for group in _options(function).values() for o in group):
        required = option.default is inspect.Parameter.empty
        settings: dict[str, Any] = {"type": _numbers(option.hint) or option.hint, "help": option.help}
        if option.positional:
            if _is_words(option.hint):
                settings |= {"nargs": "+", "type": str}
            elif not required:
                settings |= {"nargs": "?", "default": option.default}
            parser.add_argument(option.name, **settings)
            continue
        settings |= {"required": True} if required else {"default": option.default}
        if option.hint is bool:
            settings |= {"action": "store_true"}
            del settings["type"]
        if _is_words(option.hint):
            settings |= {"nargs": "+", "type": str}
        words = (f"--{option.name.replace('_', '-')}", *_SHORT.get(option.name, ()))
        parser.add_argument(*words, dest=option.name, **settings)
    return parser


_NEGATIVE_FIRST = re.compile(r"-[\d.][^,]*,.*")


def _is_negative(word: str) -> bool:
    """Whether a word is a negative number, perhaps with an exponent, or begins several."""
    try:
        return word.startswith("-") and float(word) <= 0
    except ValueError:
        return _NEGATIVE_FIRST.fullmatch(word) is not None


def _with_negative_numbers(words: Sequence[str]) -> list[str]:
    """Tie a value such as ``-25,0`` to its option, since argparse takes it for an option of its own."""
    tied: list[str] = []
    for word in words:
        if tied and tied[-1].startswith("--") and "=" not in tied[-1] and _is_negative(word):
            tied[-1] += f"={word}"
        else:
            tied.append(word)
    return tied


def _overview(group: str = "") -> str:
    """The commands whose first word is ``group``, or all."""
    lines = ["usage: bitemporal COMMAND ...", "", "commands (`bitemporal COMMAND --help` explains one):"]
    for command in (c for c in COMMANDS if not group or c.split()[0] == group):
        summary = docstring_parser.parse(_function(command).__doc__ or "").short_description
        lines.append(f"  {command:<16}{summary}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Command line words; those of the process when ``None``.

    Returns:
        Exit status: 0 done, 1 the command found faults or met an error of the user's, 2 unusable arguments, 130
        interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        from bitemporal import __version__

        print(__version__)
        return 0
    groups = {c.split()[0] for c in COMMANDS if " " in c}
    if words[0] in groups and (len(words) == 1 or words[1] in ("-h", "--help")):
        print(_overview(words[0]))
        return 0
    command = next((c for c in (" ".join(words[:2]), words[0]) if c in COMMANDS), None)
    if command == "predict":
        command = which_predict(words[1:])
        words[0] = command
    if command is None:
        print(f"bitemporal: no command {' '.join(words[:2])!r}\n\n{_overview()}", file=sys.stderr)
        return 2
    function = _function(command)
    values = _parser(command, function).parse_args(_with_negative_numbers(words[len(command.split()) :]))
    try:
        positional, keyword = _arguments(function, values)
        return function(*positional, **keyword) or 0
    except BitemporalError as error:
        print(f"bitemporal {command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"bitemporal {command}: interrupted", file=sys.stderr)
        return 130  # what shells say of a program that Ctrl-C ended


def _arguments(function: Callable[..., Any], values: Namespace) -> tuple[list[Any], dict[str, Any]]:
    positional: list[Any] = []
    keyword: dict[str, Any] = {}
    hints = typing.get_type_hints(function)
    for name, options in _options(function).items():
        if dataclasses.is_dataclass(hints[name]):
            fields = [f.name for f in dataclasses.fields(hints[name])]
            given = {f: values[o.name] for f, o in zip(fields, options, strict=True)}
            keyword[name] = typing.cast("type[Any]", hints[name])(**given)
        elif options[0].positional:
            positional.append(values[options[0].name])
        else:
            keyword[name] = values[options[0].name]
    return positional, keyword


if __name__ == "__main__":
    sys.exit(main())
