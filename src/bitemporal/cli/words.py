"""The words of a command line: which belong to an option, and which were meant where one is unknown."""

import difflib
from collections.abc import Container, Iterable, Sequence

from jsonargparse import ArgumentParser


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a sentence that names the nearest known words; empty where none is near."""
    near = difflib.get_close_matches(word, list(known), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def arrange(parser: ArgumentParser, words: Sequence[str]) -> list[str]:
    """Put words in an order in which each is read as it was meant.

    An option that takes several values takes all words up to the next option, except the last ones if the command still
    lacks positional arguments: in ``--bundle B before.png after.png``, the images are none of the bundles. Given
    repeatedly, such an option takes the values of all occurrences.

    Args:
        parser: Knows the options and the positional arguments.
        words: Words after those of the command.
    """
    options = parser._option_string_actions
    several = {name for name, action in options.items() if action.nargs == "+"}
    if not several or "--" in words:  # from where on all words are positional arguments, as they stand
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
    missing = _expected(parser, values) - len(positional)
    for option, run in reversed(runs):
        while missing > 0 and len(run) > 1:
            positional[run[-1]] = values[option].pop(run[-1])
            run.pop()
            missing -= 1
    ordered = [positional[key] for key in sorted(positional)]
    return [*ordered, *others, *(word for option, own in values.items() for word in (option, *own.values()))]


def _is_option(parser: ArgumentParser, word: str) -> bool:
    return len(word) > 1 and word.startswith("-") and not parser._negative_number_matcher.match(word)


def _expected(parser: ArgumentParser, given: Container[str]) -> int:
    """Number of positional arguments that words are kept for.

    Optional ones count too, unless an option stands in for them: ``--before`` for ``before_image``.
    """
    positional = [action.dest for action in parser._actions if not action.option_strings]
    return sum(f"--{name.partition('_')[0]}" not in given for name in positional)
