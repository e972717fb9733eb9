"""What became of the scenes of an archive, and the table that says so."""

import csv
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, fields, replace
from types import TracebackType
from typing import Any, Literal, Self

from bitemporal.errors import OutputError
from bitemporal.outputs import Output, check_outputs, replacing
from bitemporal.reading import open_table, reading
from bitemporal.scenes.kinds import STATUS
from bitemporal.scenes.manifest import SceneFiles
from bitemporal.scenes.outputs import locked_together
from bitemporal.texts import as_cell, from_cell, harmless

Status = Literal["done", "skipped", "failed"]

_SHARE = 0.01
"""Share of the time that writing the table may take: it is written as a whole, and may have many thousands of rows."""

_LATER = 3600.0
"""Seconds to the next look at a table that has no new row."""


@dataclass(frozen=True)
class SceneStatus:
    """The outcome of one scene.

    Attributes:
        id: Name of the scene.
        status: ``done``; ``skipped``, when an earlier run had finished it in the same way; or ``failed``.
        car: Changed pixels divided by valid ones.
        changed_hectares: Area of the changed pixels.
        seconds: Time it took.
        attempts: How often it was tried.
        error: Why it failed.
        warning: What makes its comparison doubtful, and in what its images are far outside of those that the detector
            was trained on.
    """

    id: str
    status: Status
    car: float | None = None
    changed_hectares: float | None = None
    seconds: float | None = None
    attempts: int = 1
    error: str = ""
    warning: str = ""


def _harmless(text: str) -> str:
    """Text as the table has it: what a manifest calls a scene or a file may act on the terminal that shows it."""
    return harmless(text, lines=False)


class StatusTable:
    """The table of an output, which other runs may be writing too; to be used as a context.

    It is replaced as a whole, so that it is true and complete at any moment but for the rows of the last moments: these
    wait until the last write has taken no more than ``_SHARE`` of the time. What waits at the end is written then.
    """

    def __init__(self, table: Output, scenes: Sequence[SceneFiles], overwrite: bool) -> None:
        """Begin without rows.

        Args:
            table: The table.
            scenes: Scenes of this run, whose rows come first.
            overwrite: Whether another file in its place is replaced.
        """
        self._table, self._overwrite = table, overwrite
        self._order: dict[str, list[int]] = {}
        for place, scene in enumerate(scenes):
            self._order.setdefault(_harmless(scene.id), []).append(place)
        self._statuses: dict[str, list[SceneStatus]] = {}
        self._waiting: set[str] = set()
        self._due = 0.0

    def add(self, status: SceneStatus) -> None:
        """Add the row of a scene that has ended."""
        name, error, warning = map(_harmless, (status.id, status.error, status.warning))
        status = replace(status, id=name, error=error, warning=warning)
        self._statuses.setdefault(status.id, []).append(status)
        self._waiting.add(status.id)

    def write_when_due(self) -> float:
        """Write the rows that wait, if it is time; gives the seconds until it is.

        A table that cannot be written now is tried again, as the scenes themselves may still be written.
        """
        if not self._waiting:
            return _LATER
        if (left := self._due - time.monotonic()) > 0:
            return left
        began = time.monotonic()
        with suppress(OutputError):
            self._write()
        ended = time.monotonic()
        self._due = ended + (ended - began) / _SHARE
        return self._due - ended if self._waiting else _LATER

    def __enter__(self) -> Self:
        """Begin.

        Raises:
            OutputError: When an earlier table is damaged.
        """
        self._earlier_rows()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write what waits.

        Raises:
            OutputError: When it cannot be written, unless another error is on its way.
        """
        if self._waiting:
            with nullcontext() if kind is None else suppress(OutputError):
                self._write()

    def _earlier_rows(self) -> list[dict[str, Any]]:
        """Rows of the table as it stands, but for those that wait to be replaced."""
        path = self._table.path
        if not STATUS.stands_at(path):
            return []
        with reading(path, OutputError, "expected the table of an archive: move it away and start again"):
            with open_table(path) as stream:
                return [row for row in csv.DictReader(stream) if from_cell(row["id"]) not in self._waiting]

    def _write(self) -> None:
        """Put the rows that wait into the table, in place of earlier ones of the same scenes.

        Raises:
            OutputError: When it cannot be written.
        """
        path, names = self._table.path, [field.name for field in fields(SceneStatus)]
        with locked_together([path], wait=True):
            check_outputs([self._table], (), self._overwrite)
            rows = self._earlier_rows()
            for status in (status for name in self._waiting for status in self._statuses[name]):
                cells = asdict(status)
                rows.append({name: as_cell(cell) if isinstance(cell, str) else cell for name, cell in cells.items()})
            places = {name: iter(places) for name, places in self._order.items()}
            last = sum(map(len, self._order.values()))
            rows.sort(key=lambda row: next(places.get(from_cell(row["id"]), iter(())), last))
            with (
                replacing(path) as temporary,
                temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
            ):
                writer = csv.DictWriter(stream, names, lineterminator="\n", extrasaction="ignore")
                writer.writeheader()
                writer.writerows(rows)
        self._waiting.clear()
