"""The help text of a command: types in plain words, and choices as ``{a,b,c}``."""

import argparse
import types
import typing
from pathlib import Path

from jsonargparse import DefaultHelpFormatter

_PLURALS: dict[object, str] = {int: "integers", float: "numbers", str: "names"}
_NAMES: dict[object, str] = {
    int: "integer",
    float: "number",
    str: "text",
    Path: "text",
    dict: "mapping, as in '{name: value}'",
}


def plural(kind: object) -> str:
    """What several values of a type are called: integers, numbers, names, or names of ``{a,b,c}``."""
    return _PLURALS.get(kind) or f"names of {choices_of(kind)}"


def without_none(hint: object) -> object:
    """A type without ``None``, where one other type is left."""
    kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return kinds[0] if is_union and len(kinds) == 1 else hint


def choices_of(hint: object) -> str:
    """The choices of a type as ``{a,b,c}``; empty where it is no choice of words."""
    kind = without_none(hint)
    return f"{{{','.join(map(str, typing.get_args(kind)))}}}" if typing.get_origin(kind) is typing.Literal else ""


def plain_type(hint: object) -> str:
    """What the help calls the values of a type; choices say it themselves, as ``{a,b,c}``."""
    kind = without_none(hint)
    if choices_of(kind):
        return ""
    return _NAMES.get(typing.get_origin(kind) or kind) or str(kind)


class HelpFormatter(DefaultHelpFormatter):
    """Says types, choices and defaults as a person would type them."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = super()._get_help_string(action)
        if not self._get_type_str(action):
            text = text.replace(", type: %(type)s", "").replace("type: %(type)s, ", "")
            text = text.replace(" (type: %(type)s)", "")
        default = action.default
        if default is None or default is False or default in ((), {}):  # what then happens is in the text
            return text.replace(", default: %(default)s", "").replace(" (default: %(default)s)", "")
        return text.replace("%(default)s", ",".join(map(str, default))) if isinstance(default, tuple) else text

    def _get_type_str(self, action: argparse.Action) -> str | None:
        hint = getattr(action, "_typehint", action.type)
        return None if hint is None else plain_type(hint)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # jsonargparse joins --print_config and [=flags] by a backspace
        return super()._format_action_invocation(action).replace(" \b", "")
