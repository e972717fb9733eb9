"""What a command ends with."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """The results of a command, for programs, and its exit status.

    Attributes:
        results: What ``--json`` prints: JSON types; NaN and infinity become null.
        status: 0 when all is well, 1 when the command found faults.
    """

    results: Any
    status: int = 0
