"""Every text of the package that says what to type, read from its source: commands, options and keywords must exist.

That they help is tested where each error is (``remedies.follow_options`` and its like); here no text can be forgotten.
"""

import ast
import contextlib
import functools
import importlib
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import bitemporal
from bitemporal.cli.execution import CommonOptions
from bitemporal.cli.main import COMMANDS
from bitemporal.cli.parser import make_parser
from bitemporal.cli.words import arrange
from test_architecture import MODULES, imports, module_name

PACKAGE = Path(bitemporal.__file__).parent
OPEN, CLOSE = "\N{LEFT DOUBLE QUOTATION MARK}", "\N{RIGHT DOUBLE QUOTATION MARK}"  # around what is put into a text
INSERTED = re.compile(rf"{OPEN}([^{CLOSE}]*){CLOSE}")
SHELL = re.compile(r"`((?:bitemporal|rio|python|pip) [^`]+)`")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")

QUOTED = re.compile(r"^(min|max|len|as_typed|as_option|as_options|shlex\.quote|\w+\.check_command)\(|:[.\d]*[dgf]$")
QUOTED_BEFORE = {
    "errors.py": {"extra"},
    "cli/evaluate.py": {"how_to_check"},
    "datasets/catalog.py": {"card.tile", "card.options"},
    "imagery/decoded.py": {"first"},
    "pairs/check.py": {"tiles", "command", "output", "label"},
    "run/reproduction.py": {"dataset"},
    "run/scores.py": {"command", "' '.join([bundle, data, *stated])", "split", "output"},
    "scenes/exclusion.py": {"crs"},
    "scenes/geometry.py": {"4326 if degrees else 3857", "numbers"},
    "scenes/grids.py": {"transform", "crs", "bounds", "grid.transform.a", "-grid.transform.e"},
}
"""What stands in commands and is no call that quotes: numbers, and names of what has been quoted just before."""

USAGE = {("cli/main.py", "`bitemporal COMMAND --help`"), ("datasets/catalog.py", "ROOT")}
"""Placeholders that are explained where they stand, in texts that are no remedies."""

ONLY_THE_USER_KNOWS = {
    ("report/gallery.py", "--data"),  # where the pairs have been moved to
    ("report/page.py", "--data"),
    ("run/reproduction.py", "--data"),
    ("own_networks.py", "--import"),
    ("models/registry.py", "--import"),
}
"""Options whose value no text can know."""

OF_OTHERS = {"--shm-size"}  # Docker's
OF_ANOTHER_COMMAND = {
    ("outputs.py", "--overwrite"),  # of commands that plan their outputs
    ("datasets/catalog.py", "--label-values"),  # of data check
    ("datasets/catalog.py", "--label-threshold"),
}


@dataclass(frozen=True)
class Text:
    """A text of the source, with what is put into it between quotation marks."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


def texts_of(source: str, file: str = "") -> Iterator[Text]:
    """All texts of a module but docstrings."""
    tree = ast.parse(source)
    skipped = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr | ast.Expr) and (isinstance(node, ast.JoinedStr) or is_text(node.value))
        for part in ast.walk(node)
        if part is not node
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if is_text(node):
            yield Text(file, node.lineno, node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = (
                part.value if isinstance(part, ast.Constant) else f"{OPEN}{inserted(part)}{CLOSE}"
                for part in node.values
            )
            yield Text(file, node.lineno, "".join(map(str, parts)))


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def inserted(part: ast.FormattedValue) -> str:
    shape = "" if part.format_spec is None else f":{ast.unparse(part.format_spec)[2:-1]}"
    return f"{ast.unparse(part.value)}{shape}"


@functools.cache
def all_texts() -> tuple[Text, ...]:
    return tuple(
        text
        for path in sorted(PACKAGE.rglob("*.py"))
        for text in texts_of(path.read_text(encoding="utf-8"), str(path.relative_to(PACKAGE)))
        if text.file not in ("cli/completion.py", "report/charts.py")  # a script for shells, and styles
    )


@functools.cache
def parser_of(command: str):
    module, name = COMMANDS[command].split(":")
    return make_parser(f"bitemporal {command}", getattr(importlib.import_module(module), name), CommonOptions)


@functools.cache
def options_of(command: str) -> dict[str, bool]:
    """Options of a command, and whether each takes a value."""
    actions = parser_of(command)._actions
    return {option: action.nargs != 0 for action in actions for option in action.option_strings}


@functools.cache
def choices_of(option: str) -> set[str]:
    """Words that some command takes as the value of an option."""
    found = {"cpu", "nan"}
    for command in COMMANDS:
        for action in parser_of(command)._actions:
            if option in action.option_strings:
                found |= set(re.findall(r"'(\w+)'", str(getattr(action, "_typehint", action.type))))
    return found


@functools.cache
def imported_by(module: str) -> frozenset[str]:
    return frozenset(imports(MODULES[module]))


@functools.cache
def modules_of(command: str) -> frozenset[str]:
    """Modules that a command's own module imports, over any number of others."""
    seen: set[str] = set()
    left = [COMMANDS[command].partition(":")[0], "bitemporal.cli.execution"]
    while left:
        module = left.pop()
        if module not in seen:
            seen.add(module)
            left += imported_by(module)
    # a package's names are looked up in its modules on first use
    return frozenset(seen | {other for other in MODULES if other.rpartition(".")[0] in seen and "cli" not in other})


def stands_for(inserted: re.Match[str]) -> str:
    """Words in place of what is put into a command."""
    return "1 1" if "join" in inserted[1] else "" if inserted[1] in ("card.options", "label") else "1"


def wrong_commands(text: Text) -> Iterator[str]:
    """What is wrong with the commands that a text has in backticks, or consists of."""
    commands = SHELL.findall(text.text)
    is_begun = re.match("bitemporal [a-z]", text.text) and OPEN in text.text and "`" not in text.text
    if is_begun:  # and what follows, such as further options, is added to it
        commands.append(text.text)
    for command in commands:
        if any(text.file == file and part in f"`{command}`" for file, part in USAGE):
            continue
        for part in INSERTED.findall(command):
            if not QUOTED.search(part) and part not in QUOTED_BEFORE.get(text.file, ()):
                yield f"{part} is not quoted for a shell in `{command}`"
        plain = INSERTED.sub(stands_for, command)
        if placeholder := re.search(r"(?<![\w:.'])[A-Z]{2,}(?![\w:])", plain):
            yield f"placeholder {placeholder[0]} in `{command}`"
        if plain.startswith("bitemporal ") and not command.startswith(f"bitemporal {OPEN}"):
            wrong = wrong_words(shlex.split(plain)[1:])
            yield from (one for one in wrong if not is_begun or "are required" not in one)


def wrong_words(words: list[str]) -> Iterator[str]:
    """What is wrong with the words of a command of this package."""
    name = next((name for name in (" ".join(words[:2]), words[0]) if name in COMMANDS), None)
    if name is None:
        yield f"no command {' '.join(words[:2])}"
        return
    rest = words[len(name.split()) :]
    for option in OPTION.findall(" ".join(rest)):
        if option not in options_of(name):
            yield f"{name} has no {option}"
            return
    if "--config" in rest:  # would be read
        return
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parser_of(name).parse_args(arrange(parser_of(name), rest))
    except SystemExit:
        yield f"`bitemporal {' '.join(words)}` is refused: {said.getvalue().strip().splitlines()[-1]}"


def wrong_options(text: Text) -> Iterator[str]:
    """What is wrong with the options that a text names outside of commands."""
    sentences = SHELL.sub("", text.text)
    if text.text.startswith("bitemporal ") or " " not in text.text.strip():  # a command; a word that is looked for
        return
    commands = [command for command in COMMANDS if module_name(PACKAGE / text.file) in modules_of(command)]
    for match in OPTION.finditer(sentences):
        option = match.group()
        if (
            option in OF_OTHERS
            or (text.file, option) in OF_ANOTHER_COMMAND
            or sentences[match.start() - 1 : match.start()] == '"'
        ):
            continue
        having = [command for command in commands if option in options_of(command)]
        if not having:
            yield f"no command that can print this has {option}"
            continue
        if not options_of(having[0])[option] or (text.file, option) in ONLY_THE_USER_KNOWS:
            continue
        before, after = sentences[: match.start()], sentences[match.end() :]
        if re.search(rf"(without|[Ll]eave|no|instead of \S+ \()( {OPTION.pattern})* ?$", before):
            continue
        value = re.match(r"[ =]([^\s;,]\S*)", after)
        is_value = value and (
            value[1].startswith((OPEN, "'", '"'))
            or re.search(r"[\d_]|[,.]\w", value[1])
            or value[1].strip(",.;)") in choices_of(option)
        )
        if not is_value and not (after in ("", " ") and text.text.strip() == option):
            yield f"{option} has no value that could be typed"


def wrong_keywords(text: Text) -> Iterator[str]:
    """Keywords that are not called as the option after them."""
    for keyword, option in re.findall(r"(?<![\w-])([a-z][a-z_]*)=[^=]{1,60}? \((--[a-z-]+)", text.text):
        if f"--{keyword.replace('_', '-')}" != option:
            yield f"{keyword}= is not {option}"


def foreign_tools(text: Text) -> Iterator[str]:
    """Programs that an installation of this package does not bring along."""
    for tool in re.findall(r"\b(gdal[a-z_]\w*|ogr2ogr|magick|mogrify|exiftool|ffmpeg|sudo|apt|conda)\b", text.text):
        if re.search(rf"`{tool} ", text.text):
            yield f"{tool} is not installed along with this package"


CHECKS = (wrong_commands, wrong_options, wrong_keywords, foreign_tools)


@pytest.mark.parametrize("check", CHECKS)
def test_what_texts_say_to_type_exists(check):
    found = [f"{text}\n    {wrong}" for text in all_texts() for wrong in check(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("check", "file", "source", "wrong"),
    [
        (wrong_commands, "pairs/check.py", "f'say `bitemporal data chekc {as_typed(root)}`'", "no command data chekc"),
        (wrong_commands, "pairs/check.py", "f'`bitemporal data check {as_typed(root)} --fast`'", "has no --fast"),
        (wrong_commands, "pairs/check.py", "'write it with `bitemporal data stats`'", "is refused"),
        (wrong_commands, "pairs/check.py", "'`bitemporal data check x --bands`'", "is refused"),
        (wrong_commands, "pairs/check.py", "f'`bitemporal data check {root}`'", "root is not quoted"),
        (wrong_commands, "scenes/grids.py", "'`rio warp IN OUT`'", "placeholder IN"),
        (wrong_options, "pairs/check.py", "'choose another --foldres a,b'", "no command"),
        (wrong_options, "datasets/download.py", "'choose --bands 1,2,3'", "no command that can print this has --bands"),
        (wrong_options, "pairs/check.py", "'state them by folders (--folders)'", "no value"),
        (wrong_options, "pairs/check.py", "'--splits makes these decide'", "no value"),
        (wrong_keywords, "pairs/check.py", "'band=(1, 2) (--bands 1,2)'", "band= is not --bands"),
        (foreign_tools, "pairs/check.py", "'convert it with `gdal_translate -ot Float32`'", "gdal_translate"),
    ],
)
def test_what_is_wrong_is_found(check, file, source, wrong):
    (text,) = texts_of(f"text = {source}", file)
    assert wrong in " ".join(check(text))


@pytest.mark.parametrize(
    "source",
    [
        "text = f'`bitemporal data check {as_typed(root)} --bands 1,2,3` lists them'",
        "text = f'say --folders {names}, or leave --splits out, or train without --pretrained'",
        "text = 'image_range=(0, 3000) (--image-range 0,3000)'",
        '"""A docstring, `bitemporal data chekc`."""',
    ],
)
def test_what_is_right_is_not(source):
    assert not [wrong for text in texts_of(source, "pairs/check.py") for check in CHECKS for wrong in check(text)]
