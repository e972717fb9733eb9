"""The words of a command line: which belong to an option, and which were meant where one is unknown."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from jsonargparse import ArgumentParser


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """The known words, in small letters, that are nearest to one: at most three, none where none is near."""
    return difflib.get_close_matches(word.lower(), list(known), n=3)


def did_you_mean(near: Sequence[str]) -> str:
    """The end of a sentence that proposes words; empty where there are none."""
    return f"; did you mean {' or '.join(near)}?" if near else ""


def commands_meant(words: Sequence[str], commands: Iterable[str]) -> list[str]:
    """Commands, or groups of them, that may have been meant.

    Args:
        words: A command line that calls no command.
        commands: All commands, of one word or of two, the first of which is their group.
    """
    commands = list(commands)
    first, second = words[0], next((word for word in words[1:2] if not word.startswith("-")), "")
    members: dict[str, dict[str, str]] = {}  # of every group, by their second words
    for command in commands:
        group, _, member = command.partition(" ")
        if member:
            members.setdefault(group, {})[member] = command
    groups = nearest(first, members)
    inside = [members[group][near] for group in groups for near in nearest(second, members[group])]
    if inside:
        return inside
    if first not in members:  # the word of a member alone, as in `check`, is one too
        alone = {member: command for group in members.values() for member, command in group.items()}
        names = {command: command for command in commands} | {group: group for group in groups} | alone
        return list(dict.fromkeys(names[near] for near in nearest(first, names)))
    return nearest(second, (command for command in commands if " " not in command))


def arrange(
    parser: ArgumentParser, words: Sequence[str], in_files: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> list[str]:
    """Put words in an order in which each is read as it was meant.

    An option that takes several values takes all words up to the next option, except the last ones if the command still
    lacks positional arguments: in ``--bundle B before.png after.png``, the images are none of the bundles. Given
    repeatedly, such an option takes the values of all occurrences.

    An optional positional argument is lacking too, unless an option stands in for it, as ``--before`` does for
    ``before_image``.

    Args:
        parser: Knows the options and the positional arguments.
        words: Words after those of the command.
        in_files: Words of positional arguments that stand in for those that the command line lacks.
    """
    options = parser._option_string_actions
    several = {name for name, action in options.items() if action.nargs == "+"}
    if (
        not several and not in_files
    ) or "--" in words:  # from where on all words are positional arguments, as they stand
        return list(words)
    positional: dict[int, str] = {}
    values: dict[str, dict[int, str]] = {}  # of options that take several, by the place of the word
    runs: list[tuple[str, list[int]]] = []
    others: list[str] = []
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        name, equals, value = word.partition("=")
        if not _is_option(parser, word):
            positional[place - 1] = word
        elif name in several:
            option = options[name].option_strings[0]
            run = [place - 1] if equals else []
            values.setdefault(option, {}).update({place - 1: value} if equals else {})
            while not equals and place < len(words) and not _is_option(parser, words[place]):
                values[option][place] = words[place]
                run.append(place)
                place += 1
            runs.append((option, run))
        else:
            others.append(word)
            if name in options:
                takes_one = options[name].nargs is None
            else:  # an unknown option is refused with what may be its value
                takes_one = place < len(words) and not _is_option(parser, words[place])
            if takes_one and not equals and place < len(words):
                others.append(words[place])
                place += 1
    expected = [name for name in _positional(parser) if name not in in_files]
    missing = sum(f"--{name.partition('_')[0]}" not in values for name in expected) - len(positional)
    for option, run in reversed(runs):
        while missing > 0 and len(run) > 1:
            positional[run[-1]] = values[option].pop(run[-1])
            run.pop()
            missing -= 1
    ordered = [positional[key] for key in sorted(positional)]
    for name in _positional(parser)[len(ordered) :]:
        if name not in in_files:
            break
        ordered += in_files[name]
    return [*ordered, *others, *(word for option, own in values.items() for word in (option, *own.values()))]


def _is_option(parser: ArgumentParser, word: str) -> bool:
    return len(word) > 1 and word.startswith("-") and not parser._negative_number_matcher.match(word)


def _positional(parser: ArgumentParser) -> list[str]:
    """Names of the positional arguments, in order."""
    return [action.dest for action in parser._actions if not action.option_strings]
