"""A terminal for the command: a pseudo-terminal, and what a person would see on its screen."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

pyte = pytest.importorskip("pyte")
pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")
termios = pytest.importorskip("termios")

__all__ = ["Seen", "in_a_terminal"]

_MOST_SECONDS = 60


class Seen(NamedTuple):
    """What came of a command in a terminal.

    Attributes:
        status: its exit status.
        lines: the lines of the screen at the end.
        sent: all that was sent to the terminal, with its escape codes.
    """

    status: int
    lines: list[str]
    sent: str


def in_a_terminal(
    *arguments: str,
    folder: Path | None = None,
    columns: int = 80,
    answers: dict[str, str] | None = None,
    env: dict[str, str] | None = None,
) -> Seen:
    """Run the command in a terminal.

    Args:
        arguments: the arguments of the command.
        folder: the working directory.
        columns: how wide the terminal is.
        answers: what to type when a text appears.
        env: further variables.
    """
    rows = 500
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (rows, columns))
    environment = {key: it for key, it in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")}
    environment |= {"TERM": "xterm-256color", **(env or {})}
    process = subprocess.Popen(
        [sys.executable, "-m", "madcrow_events", *arguments],
        cwd=folder,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    sent, waiting = "", dict(answers or {})
    screen = pyte.Screen(columns, rows)
    stream, end = pyte.Stream(screen), time.monotonic() + _MOST_SECONDS
    with suppress(OSError):  # how Linux says that nobody has the terminal open any more
        while time.monotonic() < end:
            part = os.read(ours, 65536).decode(errors="replace")
            if not part:
                break
            sent += part
            stream.feed(part)
            for text in [it for it in waiting if it in sent]:
                os.write(ours, waiting.pop(text).encode())
    os.close(ours)
    status = process.wait(_MOST_SECONDS)
    lines = [it.rstrip() for it in screen.display]
    while lines and not lines[-1]:
        lines.pop()
    return Seen(status, lines, sent)
