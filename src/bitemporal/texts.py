"""Text that others have written, such as file names, made harmless where it is shown: in terminals and in tables."""

import re
import unicodedata
from collections.abc import Sequence

_TURNING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that turn the direction of the text around them."""

_ENDING = "\u2028\u2029"
"""Ends of lines and paragraphs, besides the control characters."""

_CONTROLS = [chr(code) for code in range(0xA0) if unicodedata.category(chr(code)) == "Cc"]
_ESCAPES = {ord(letter): repr(letter)[1:-1] for letter in (*_CONTROLS, *_TURNING, *_ENDING)}
_ESCAPES_IN_LINES = {code: text for code, text in _ESCAPES.items() if chr(code) not in "\n\t"}

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of cells that spreadsheets run."""


def harmless(text: str, lines: bool = True) -> str:
    r"""Text without characters that act on a terminal, or turn the direction of other text; each becomes its escape.

    Args:
        text: Any text.
        lines: Leave line breaks and tabs as they are.

    Returns:
        The text, with ``\x1b`` in place of the control character.
    """
    return text.translate(_ESCAPES_IN_LINES if lines else _ESCAPES)


_ESCAPED = "\\"
"""After a ``'``, it begins a cell whose control characters are written as their escapes."""

_QUOTED = (*_FORMULA, _ESCAPED, "'")
_ESCAPE = re.compile(r"\\(\\|[nrt]|x[0-9a-f]{2}|u[0-9a-f]{4})")
_LETTERS = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}


def as_cell(text: str) -> str:
    r"""Text as a cell of a CSV file that a terminal may show and a spreadsheet open.

    What a spreadsheet would run gets a ``'`` in front. Characters that act on a terminal become their escapes, after
    ``'\``. So does what begins with ``'`` and would be read as such a cell; ``from_cell`` gives every text back.
    """
    if any(ord(letter) in _ESCAPES for letter in text):
        return f"'{_ESCAPED}" + text.replace("\\", "\\\\").translate(_ESCAPES)
    is_quoted = text.startswith("'") and text[1:].startswith(_QUOTED)
    return f"'{text}" if is_quoted or text.startswith(_FORMULA) else text


def from_cell(cell: str) -> str:
    """The text of a cell that ``as_cell`` wrote, or that a person wrote without the ``'``."""
    if cell.startswith(f"'{_ESCAPED}"):
        return _ESCAPE.sub(lambda escape: _LETTERS.get(escape[1]) or chr(int(escape[1][1:], 16)), cell[2:])
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_QUOTED) else cell


_COLOURS = re.compile(r"(\x1b\[[0-9;]*m)")
_COLOURS_AND_PROGRESS = re.compile(r"(\x1b\[[0-9;]*m|\x1b\[2K|\x1b\[1A|\x1b\[\?25[lh]|\r)")


def harmless_in_terminal(text: str, progress: bool = False) -> str:
    """Printed text, of whose control characters colours alone are left.

    Args:
        text: What is printed, with line breaks.
        progress: Leave also what draws progress bars.
    """
    pieces = (_COLOURS_AND_PROGRESS if progress else _COLOURS).split(text)
    return "".join(piece if place % 2 else harmless(piece) for place, piece in enumerate(pieces))


def few_of(names: Sequence[str]) -> str:
    """The first names in words."""
    return f"{', '.join(names[:10])}{', ...' if names[10:] else ''}"
