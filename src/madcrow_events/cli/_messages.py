"""What the command says beside its output: messages, and what it waits for."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

__all__ = ["PATIENCE", "say", "waiting_for"]

PATIENCE: Final = 1.0
"""After how many seconds the bar appears."""


def say(message: str) -> None:
    """Write a message for the user to the standard error."""
    with suppress(ValueError, OSError):  # the application may have closed it
        print(message, file=sys.stderr, flush=True)  # noqa: T201  # a command prints


@contextmanager
def waiting_for(what: str) -> Iterator[None]:
    """Return a `with` block during which a terminal shows what is waited for.

    Where the standard error is no terminal, nothing is shown.

    Args:
        what: what takes long, such as `importing shop`.
    """
    if not sys.stderr.isatty():
        yield
        return
    ended = threading.Event()
    painter = threading.Thread(target=_paint, args=(what, ended), daemon=True)
    painter.start()
    try:
        yield
    finally:
        ended.set()
        painter.join()


def _paint(what: str, ended: threading.Event) -> None:
    if ended.wait(PATIENCE):
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn()
    # What the application prints meanwhile appears above the bar.
    bar = Progress(*columns, console=Console(file=sys.stderr), transient=True)
    bar.add_task(what, total=None)
    with bar:
        ended.wait()
