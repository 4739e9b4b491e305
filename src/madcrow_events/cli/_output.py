"""Writing what the command has found: as text for people, or as JSON."""

from __future__ import annotations

import json
import os
import shutil
import sys
from io import StringIO
from typing import TYPE_CHECKING, Any, Final, TextIO

from madcrow_events.cli._errors import CLOSED_PIPE, CommandError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Output"]

_UNLIMITED: Final = 10_000
"""The width of a pipe, in columns: each row is one line there, for other commands to read."""


class Output:
    """The standard output, which the application cannot write to any more.

    From here on, what the application prints goes to the standard error, so that it does not mix
    with what the command says.
    """

    def __init__(self) -> None:
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # it was closed before Python started
                setattr(sys, name, StringIO())
        sys.stdout.flush()
        self._is_terminal = sys.stdout.isatty()
        self._width = shutil.get_terminal_size().columns
        self._file: TextIO = sys.stdout
        self._process = os.getpid()
        try:
            number = sys.stdout.fileno()
            self._file = os.fdopen(
                os.dup(number), "w", encoding=sys.stdout.encoding, errors="backslashreplace"
            )
            os.dup2(sys.stderr.fileno(), number)
            # Another object than `sys.stderr`, because the application may close it.
            errors = os.dup(sys.stderr.fileno())
            sys.stdout = os.fdopen(errors, "w", buffering=1, encoding=sys.stderr.encoding)
        except OSError:  # a test or a program that calls this one has replaced it
            sys.stdout = sys.stderr

    def write(self, text: str) -> None:
        """Write a text.

        Raises:
            CommandError: its reader has gone, or there is no room.
        """
        if os.getpid() != self._process:  # the application has forked, and each would write
            return
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            # What is left in the buffer would be written again when the file is closed.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._file.fileno())
            os.close(nowhere)
            if isinstance(error, BrokenPipeError):
                raise CommandError("", CLOSED_PIPE) from error
            raise CommandError(f"the output cannot be written: {error.strerror}") from error

    def show(self, kind: str, record: Any, *, as_json: bool) -> None:
        """Write a record.

        Args:
            kind: which record it is, by the command that shows it.
            record: the record, of lists, dictionaries, texts and numbers.
            as_json: whether to write JSON.
        """
        if as_json:
            self.write(json.dumps(record, indent=2) + "\n")
        else:
            self.write(self.drawn(kind, record))

    def drawn(self, kind: str, record: Any) -> str:
        """Return a record as `show` writes it for people."""
        from madcrow_events.cli._drawing import DRAWINGS  # imports rich, which takes long

        console = self._console()
        console.print(DRAWINGS[kind](record, console.width), crop=False)
        drawn: StringIO = console.file  # type: ignore[assignment]
        return "".join(f"{line.rstrip()}\n" for line in drawn.getvalue().splitlines())

    def _console(self) -> Console:
        from rich.console import Console

        console = Console(
            file=StringIO(),
            force_terminal=self._is_terminal or None,  # or what FORCE_COLOR says
            width=self._width,
            height=25,  # without any, rich takes a dumb terminal to have 80 columns
            highlight=False,
            emoji=False,
            markup=False,
        )
        if not console.is_terminal:
            console.width = _UNLIMITED
        return console
