"""The ``bitemporal`` command: every command is one typed function, its docstring the help text."""

import ast
import importlib
import importlib.util
import os
import sys
from functools import partial
from pathlib import Path

from bitemporal.cli import signals

COMMANDS: dict[str, str] = {
    "data check": "bitemporal.cli.data_check:check",
    "data stats": "bitemporal.cli.data_stats:stats",
    "data split": "bitemporal.cli.data_split:split",
    "data tiles": "bitemporal.cli.data_tiles:tiles",
    "data download": "bitemporal.cli.data_download:download",
    "data synth": "bitemporal.cli.data_synth:synth",
    "train": "bitemporal.cli.train:train",
    "distill": "bitemporal.cli.distill:distill",
    "predict": "bitemporal.cli.predict:predict",
    "predict-scene": "bitemporal.cli.predict_scene:predict_scene",
    "predict-archive": "bitemporal.cli.predict_archive:predict_archive",
    "threshold": "bitemporal.cli.threshold:threshold",
    "evaluate": "bitemporal.cli.evaluate:evaluate",
    "compare": "bitemporal.cli.compare:compare",
    "report": "bitemporal.cli.report:report",
    "reproduce": "bitemporal.cli.reproduce:reproduce",
    "models": "bitemporal.cli.models:models",
    "import": "bitemporal.cli.import_checkpoint:import_checkpoint",
    "completion": "bitemporal.cli.completion:completion",
}
"""Words of a command -> its module and function, imported only when the command is called."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Command line words; those of the process when ``None``.

    Returns:
        Exit status: 0 done, 1 the command found faults or met an error of the user's, 2 unusable arguments, 130
        interrupted, 143 and 129 ended by SIGTERM and SIGHUP.
    """
    try:
        if arguments is None:
            signals.answer_signals()  # before anything that takes time is imported
        return _run(arguments) if arguments is not None else _run_alone()
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, Exception) and not signals.received():
            raise
        # before a command runs, as while its module is imported
        sys.stdout.flush()
        print(f"bitemporal: {signals.told()}", file=sys.stderr)
        return signals.status()
    finally:
        if arguments is None:
            signals.finish()


def _run_alone() -> int:
    """Run the command of this process."""
    from bitemporal.cli.execution import flush_output, outlive_readers
    from bitemporal.workers import allow_processes

    outlive_readers()
    allow_processes()
    try:
        status = _run(sys.argv[1:])
    except SystemExit as ended:  # of help and typing errors
        status = ended.code if isinstance(ended.code, int) else 1
    return status if flush_output() else status or 1


def _run(words: list[str]) -> int:
    if words[:1] in (["--version"], ["version"]):
        from bitemporal import __version__

        print(__version__)
        return 0
    from bitemporal.cli.dispatch import which_predict
    from bitemporal.cli.execution import CommonOptions, execute
    from bitemporal.cli.parser import call, make_parser
    from bitemporal.errors import BitemporalError
    from bitemporal.outputs import also_read

    if words[:1] == ["help"]:  # a habit from other programs, as is `data help` below
        words = [*words[1:], "--help"]
    group = words[0] if words and any(command.startswith(f"{words[0]} ") for command in COMMANDS) else ""
    rest = words[1:] if group else words
    if rest[:1] == ["help"]:
        rest = [*rest[1:], "--help"]
    if not rest or rest[0] in ("-h", "--help"):
        print(_overview(group))
        return 0
    command = f"{group} {rest[0]}".strip()
    if command == "predict":
        command = which_predict(rest[1:])
    if command not in COMMANDS:
        print(
            f"bitemporal: {_refusal(command, [group, *rest] if group else rest)}\n\n{_overview(group)}", file=sys.stderr
        )
        return 2
    try:
        os.getcwd()
    except OSError:
        print(
            f"bitemporal {command}: the current folder no longer exists; change to one that does, as in `cd ~`",
            file=sys.stderr,
        )
        return 1
    module, name = COMMANDS[command].split(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except BitemporalError as error:  # an extra is missing
        print(f"bitemporal {command}: {error}", file=sys.stderr)
        return 1
    parser = make_parser(f"bitemporal {command}", function, CommonOptions)
    values = parser.parse_args(parser.arranged(rest[1:]))
    options = call(CommonOptions, values)
    with also_read([*parser.option_files, *(name for name in options.import_ if name.endswith(".py"))]):
        return execute(f"bitemporal {command}", partial(call, function, values), options, vars(values))


def _refusal(command: str, words: list[str]) -> str:
    """Why a command line calls no command, and what may have been meant."""
    from bitemporal.cli.words import commands_meant, did_you_mean, nearest

    if command.startswith("-"):
        meant = did_you_mean(nearest(command, ("--help", "--version")))
        return f"{command} is not a command{meant or '; options stand behind one, as in `bitemporal models --json`'}"
    return f"no command {command!r}{did_you_mean(commands_meant(words, COMMANDS))}"


def _overview(group: str = "") -> str:
    """The commands of a group, or all of them."""
    lines = ["usage: bitemporal COMMAND ...", "", "commands (`bitemporal COMMAND --help` explains one):"]
    for command in COMMANDS:
        if command.startswith(group):
            lines.append(f"  {command:<17}{_summary(command)}")
    return "\n".join(lines)


def _summary(command: str) -> str:
    """First line of a command's docstring, without importing its module."""
    module, name = COMMANDS[command].split(":")
    specification = importlib.util.find_spec(module)
    assert specification is not None and specification.origin is not None
    tree = ast.parse(Path(specification.origin).read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    return (ast.get_docstring(functions[name]) or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
