"""The command line of a typed function: its parameters are the options, its docstring is the help."""

import argparse
import contextlib
import dataclasses
import inspect
import itertools
import re
import reprlib
import types
import typing
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import docstring_parser
import yaml
from jsonargparse import ArgumentParser, Namespace
from jsonargparse._actions import ActionConfigFile

from bitemporal.cli.help import HelpFormatter, choices_of, plural
from bitemporal.cli.words import arrange, did_you_mean, nearest
from bitemporal.errors import RecipeError
from bitemporal.files import from_folder, not_there, options_from_folder
from bitemporal.reading import check_yaml_text, read_yaml, reading

T = TypeVar("T")

_SINGULARS: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    str: "a word",
    bool: "true or false",
    dict: "a mapping, as in '{name: value}'",
}
_LONGEST_VALUE = 200
"""Characters of a value that an error repeats."""

_MORE_NAMES = {"output": ("-o", "--out")}


_PATHS = {
    *("data", "out", "output", "splits", "reuse", "run", "manifest", "before", "after", "label", "masks", "bundle"),
    *("within", "mask", "summary", "path", "root", "before_image", "after_image", "checkpoint", "results", "merge"),
    *("probability", "polygons", "quicklook", "import", "model_options"),
}
"""Options that are paths, or have some; in a file of options, relative ones start at the folder of that file."""

_NAMES_IN_A_FOLDER = {"predict-archive": {"probability", "polygons", "quicklook"}}
"""Options of these names that are names of files in the output folder instead, by command."""


class _OptionFile(ActionConfigFile):
    """Reads ``--config``."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        cfg: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        file = Path(str(values))
        try:
            content = _options_in(file, parser)
        except RecipeError as error:
            raise TypeError(str(error)) from error
        positional: set[str] = set()
        if isinstance(parser, _Parser):
            parser.option_files.append(file)
            positional = parser.positional  # which have been put among the words
        options = {name: value for name, value in content.items() if name not in positional}
        try:
            self.apply_config(parser, cfg, self.dest, yaml.safe_dump(options, sort_keys=False))
        except TypeError as error:
            raise TypeError(f"{file}: {error}") from error


def _options_in(file: Path, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """The options in a file, with paths that start at its folder.

    Raises:
        RecipeError: When the file holds no options.
    """
    if not file.is_file():
        raise RecipeError(f"{not_there(file, 'file')}; expected a YAML file of options")
    with reading(file, RecipeError, "expected options and their values in YAML"):
        content = read_yaml(file)
    if not isinstance(content, dict):
        raise RecipeError(f"{file}: holds {type(content).__name__}, expected options and their values")
    names = _NAMES_IN_A_FOLDER.get(parser.prog.rpartition(" ")[2], set())
    several = {action.dest for action in parser._actions if action.nargs == "+"}
    resolved = {
        name: value if name in names else _resolved(name, value, file.parent) for name, value in content.items()
    }
    single = {n: [v] for n, v in resolved.items() if n in several and v is not None and not isinstance(v, list)}
    return resolved | single


def _resolved(name: str, value: object, folder: Path) -> object:
    if name not in _PATHS or value is None:
        return value
    if name == "model_options":
        return options_from_folder(value, folder)
    if name == "import":  # or names of modules
        words = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
        return [from_folder(word, folder) if str(word).endswith(".py") else word for word in words]
    if name == "bundle" and isinstance(value, list):
        return [_resolved(name, one, folder) for one in value]
    if name == "bundle" and not (folder / str(value)).exists():  # an id on a hub
        return value
    return from_folder(value, folder)


class _Parser(ArgumentParser):
    """Names the nearest options where one is unknown, and says in plain words which values an option takes.

    Attributes:
        option_files: The files of options that it has read.
    """

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401  those of jsonargparse
        self.option_files: list[Path] = []
        super().__init__(**settings)

    @property
    def positional(self) -> set[str]:
        """Names of the positional arguments."""
        return {action.dest for action in self._actions if not action.option_strings}

    def arranged(self, words: Sequence[str]) -> list[str]:
        """Words in the order in which each is read as it was meant (see ``arrange``).

        Positional arguments that the command line lacks are taken from the files that ``--config`` names.

        Args:
            words: Words after those of the command.
        """
        self._check_words(words)
        finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        finder.add_argument("--config", action="append", nargs="?", default=[])
        in_files: dict[str, list[str]] = {}
        for file in filter(None, finder.parse_known_args(words)[0].config):
            with contextlib.suppress(RecipeError):  # said where the option is read
                content = _options_in(Path(file), self)
                for name in self.positional & content.keys():
                    value = content[name]
                    in_files[name] = list(map(str, value)) if isinstance(value, list) else [str(value)]
                    in_files[name] *= value is not None
        return arrange(self, words, in_files)

    def _check_words(self, words: Sequence[str]) -> None:
        """Refuse values that the parser, which reads them as YAML, would write out without end."""
        option = ""
        for word in words:
            name, _, value = word.partition("=") if word.startswith("--") else (option, "", word)
            option = name
            try:
                check_yaml_text(value)
            except ValueError as error:
                self.error(f"{name or reprlib.repr(value)}: found a value that cannot be read, as {error}; shorten it")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        known = [name for name in self._option_string_actions if name.startswith("--")]
        if unknown := re.match(r"unrecognized arguments: (--[^\s=]+)", message):
            message += did_you_mean(nearest(unknown[1], known))
        elif unknown := re.match(r".*Option '([^']+)' is not accepted", message, re.DOTALL):  # a key of a file
            message += did_you_mean(nearest(unknown[1], [action.dest for action in self._actions]))
        elif wrong := re.match(r"argument ([^:/]+)[^:]*: invalid (comma-separated .*) value: '?(.*?)'?$", message):
            message = f"{wrong[1]}: found {wrong[3]}, expected {wrong[2]}"
        elif wrong := re.search(r'Parser key "([^"]+)":\s*(?:.*(?:Got|Given) value: )?(.*)', message, re.DOTALL):
            actions = {action.dest: action for action in self._actions}
            action = actions[wrong[1]]
            name = action.option_strings[0] if action.option_strings else action.dest
            hint = getattr(action, "_typehint", action.type)
            found = wrong[2] if " value: " in message else f"a value that cannot be read ({wrong[2]})"
            if "surrogates not allowed" in message:
                found = "a value that is not UTF-8"
            if len(found) > _LONGEST_VALUE:
                found = f"{found[:_LONGEST_VALUE]}..."
            message = f"{name}: found {found}, expected {_words(hint)}"
        super().error(message, ex)


def _words(hint: object) -> str:
    """What people call the values of a type."""
    if typing.get_origin(hint) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(map(_words, kinds))
    return _SINGULARS.get(typing.get_origin(hint) or hint, str(hint))


def make_parser(prog: str, *functions: Callable[..., Any]) -> _Parser:
    """Make the parser of a function's command line and of its YAML file (``--config``).

    Positional-only parameters become positional arguments, all others options. A parameter that is a dataclass becomes
    a group of options, one per field, under the first line of the dataclass's docstring. A trailing underscore, which
    keeps a name off a keyword of Python, is not shown.

    Args:
        prog: Words of the command, as the help shows them.
        *functions: Functions with annotated parameters and a docstring in Google style; that of the first is the help.
    """
    description = docstring_parser.parse(functions[0].__doc__ or "").description
    # whole names only: --device must not be taken for --devices
    parser = _Parser(prog=prog, description=description, allow_abbrev=False, formatter_class=HelpFormatter)
    # by default, argparse takes -1e5, -inf and -25,0 for options
    parser._negative_number_matcher = re.compile(r"-(\d|\.|inf)")
    parser.add_argument(
        "--config",
        action=_OptionFile,
        help="YAML file with any of the options below. Relative paths in it start at its folder.",
    )
    printing = parser._option_string_actions["--print_config"]
    printing.metavar = "\b[=skip_default]"  # the backspace is jsonargparse's; the formatter takes it out
    printing.help = "Print all options as YAML and exit; with =skip_default, only those that were given."
    for title, documented, parameters in itertools.chain.from_iterable(map(_groups, functions)):
        group = parser.add_argument_group(title) if title else parser
        helps = {p.arg_name: p.description or "" for p in docstring_parser.parse(documented.__doc__ or "").params}
        for parameter in parameters:
            names, settings = _argument(parameter)
            group.add_argument(*names, help=helps.get(parameter.name, ""), **settings)
    return parser


def call(function: Callable[..., T], values: Namespace) -> T:
    """Call a function with the values that its parser has read."""
    arguments = OrderedDict(
        (p.name, call(p.annotation, values) if _is_group(p) else values[_shown_name(p)]) for p in _parameters(function)
    )
    bound = inspect.BoundArguments(inspect.signature(function), arguments)
    return function(*bound.args, **bound.kwargs)


def _groups(function: Callable[..., Any]) -> Iterator[tuple[str, object, list[inspect.Parameter]]]:
    """Title, documented object and parameters: the function's own without a title, then those of its dataclasses."""
    if dataclasses.is_dataclass(function):
        yield _title(function), function, list(_parameters(function))
        return
    parameters = list(_parameters(function))
    yield "", function, [parameter for parameter in parameters if not _is_group(parameter)]
    for group in filter(_is_group, parameters):
        for owner in filter(dataclasses.is_dataclass, reversed(inspect.getmro(group.annotation))):
            own = inspect.get_annotations(owner)
            yield _title(owner), owner, [field for field in _parameters(group.annotation) if field.name in own]


def _title(group: object) -> str:
    return (docstring_parser.parse(group.__doc__ or "").short_description or "").rstrip(".")


def _parameters(component: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    """Parameters of a function, or fields of a dataclass, with annotations and defaults evaluated."""
    hints, fields = typing.get_type_hints(component), getattr(component, "__dataclass_fields__", {})
    for name, parameter in inspect.signature(component).parameters.items():
        factory = fields[name].default_factory if name in fields else dataclasses.MISSING
        default = parameter.default if factory is dataclasses.MISSING else factory()
        yield parameter.replace(annotation=hints[name], default=default)


def _is_group(parameter: inspect.Parameter) -> bool:
    return dataclasses.is_dataclass(parameter.annotation)


def _shown_name(parameter: inspect.Parameter) -> str:
    return parameter.name.rstrip("_")


def _argument(parameter: inspect.Parameter) -> tuple[list[str], dict[str, Any]]:
    """What ``add_argument`` needs to know: names, and settings other than the help."""
    name, hint, required = _shown_name(parameter), parameter.annotation, parameter.default is parameter.empty
    choices = (hint, *typing.get_args(hint))
    tuples = [choice for choice in choices if typing.get_origin(choice) is tuple]
    settings: dict[str, Any] = {} if required else {"default": parameter.default}
    if hint is bool:
        settings["action"] = "store_true"
    elif list[str] in choices:
        settings |= {"type": str, "nargs": "+"}
    else:
        settings["type"] = _List(typing.get_args(tuples[0])) if tuples else hint
    if listed := choices_of(hint):
        settings["metavar"] = listed
    if parameter.kind is parameter.POSITIONAL_ONLY:
        return [name], settings if required else settings | {"nargs": "?"}
    return [f"--{name.replace('_', '-')}", *_MORE_NAMES.get(name, ())], settings | {"dest": name, "required": required}


@dataclasses.dataclass(frozen=True)
class _List:
    """Reads ``1,2`` (command line), ``[1, 2]``, ``1`` (YAML); ``kinds`` are the arguments of a tuple's annotation."""

    kinds: tuple[Any, ...]

    def __call__(self, value: str | float | Sequence[Any]) -> tuple[Any, ...]:
        if isinstance(value, int | float):
            value = str(value)
        words = value.strip("[]() ").split(",") if isinstance(value, str) else value
        if Ellipsis not in self.kinds and len(words) != len(self.kinds):
            raise ValueError(f"expected {self}, found {value!r}")
        kind = str if choices_of(self.kinds[0]) else self.kinds[0]  # what uses them refuses other words
        return tuple(kind(str(word).strip()) for word in words)

    def __repr__(self) -> str:
        """What the help and the errors say."""
        count = "" if Ellipsis in self.kinds else f"{len(self.kinds)} "
        return f"{count}comma-separated {plural(self.kinds[0])}"
