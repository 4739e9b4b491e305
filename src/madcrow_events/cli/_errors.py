"""What ends the command early, and the statuses it ends with."""

from __future__ import annotations

from typing import Final

__all__ = ["APPLICATION", "CLOSED_PIPE", "FOUND", "INTERRUPTED", "MISUSE", "CommandError"]

FOUND: Final = 1
"""The status if something is wrong with the events: a finding, a refused plugin, a failure."""

MISUSE: Final = 2
"""The status if an argument is wrong, or something that the command needs is missing."""

APPLICATION: Final = 3
"""The status if the application raised an exception while it was imported."""

INTERRUPTED: Final = 130
"""The status after Ctrl-C, as shells have it: 128 and the number of the signal."""

CLOSED_PIPE: Final = 141
"""The status if the reader of the output has gone, as shells have it."""


class CommandError(Exception):
    """A message for the user, and the status with which the command ends.

    Attributes:
        status: the status.
    """

    def __init__(self, message: str, status: int = MISUSE) -> None:
        super().__init__(message)
        self.status = status
