"""``bitemporal completion``."""

import importlib
from typing import Literal

from bitemporal.cli.outcome import Outcome
from bitemporal.errors import MissingExtraError

_BASH = """\
_bitemporal() {{
    local words="${{COMP_WORDS[*]:1:COMP_CWORD-1}} " current="${{COMP_WORDS[COMP_CWORD]}}"
    case "$words" in
{cases}
    esac
    if [[ $current == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$current"))
    elif [[ -n $next ]]; then
        COMPREPLY=($(compgen -W "$next" -- "$current"))
    else
        COMPREPLY=($(compgen -f -- "$current"))
    fi
}}
complete -o filenames -F _bitemporal bitemporal
"""


def completion(shell: Literal["bash", "zsh"] = "bash", /) -> Outcome:
    """Print a script that lets a shell complete commands, options and file names.

    For bash: `eval "$(bitemporal completion bash)"` in ~/.bashrc; for zsh the same with `zsh`, in ~/.zshrc.

    Args:
        shell: The shell.
    """
    script = _BASH.format(cases="\n".join(_cases()))
    if shell == "zsh":
        script = f"autoload -U +X compinit bashcompinit\ncompinit\nbashcompinit\n{script}"
    print(script, end="")
    return Outcome({"script": script})


def _cases() -> list[str]:
    """What may follow the words that stand already, longer beginnings first."""
    from bitemporal.cli.execution import CommonOptions
    from bitemporal.cli.main import COMMANDS
    from bitemporal.cli.parser import make_parser

    cases = []
    for command in sorted(COMMANDS, key=len, reverse=True):
        module, name = COMMANDS[command].split(":")
        try:
            function = getattr(importlib.import_module(module), name)
        except MissingExtraError:  # the command itself says what to install
            continue
        parser = make_parser(command, function, CommonOptions)
        options = " ".join(sorted(parser._option_string_actions))
        cases.append(f'        "{command} "*) local options="{options}" next="" ;;')
    groups = sorted({command.split()[0] for command in COMMANDS if " " in command})
    for group in groups:
        own = " ".join(command.split()[1] for command in COMMANDS if command.startswith(f"{group} "))
        cases.append(f'        "{group} ") local options="--help" next="{own}" ;;')
    first = " ".join(dict.fromkeys(command.split()[0] for command in COMMANDS))
    return [*cases, f'        " ") local options="--help --version" next="{first}" ;;']
