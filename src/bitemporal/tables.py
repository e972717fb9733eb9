"""Tables for people: made in one way, and printed whole at any width."""

import math
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def make_table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]] = (),
    title: str | None = None,
    caption: str | None = None,
    text_columns: int = 1,
) -> Table:
    """A table without lines.

    Args:
        header: Names of the columns; all empty for a table without a header.
        rows: Cells as they are printed.
        title: Printed above.
        caption: Printed below.
        text_columns: Number of columns that begin at the left; the others hold numbers and end at the right.
    """
    table = Table(
        title=title,
        caption=caption,
        box=None,
        show_header=any(header),
        title_justify="left",
        caption_justify="left",
    )
    for place, name in enumerate(header):
        table.add_column(name, justify="left" if place < text_columns else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def print_table(table: Table) -> None:
    """Print a table whole, even if the terminal is narrower: a wrapped line can be read, a cut number cannot."""
    console = Console(highlight=False, markup=False)
    needed = Measurement.get(console, console.options.update(max_width=sys.maxsize), table).maximum
    Console(highlight=False, markup=False, width=max(console.width, needed)).print(table)


def per_cent(value: float, sign: bool = False) -> str:
    """A share in per cent with two digits, such as 12.34; a dash where it is undefined.

    Args:
        value: The share; 1 is 100 per cent.
        sign: Write the sign of positive values too.
    """
    if not math.isfinite(value):
        return "-"
    return f"{100 * value:{'+' if sign else ''}.2f}"
