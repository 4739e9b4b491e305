"""Completing the names of events in a shell."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO

import typer  # noqa: TC002  # typer reads the annotation below

from madcrow_events.cli._application import load_application
from madcrow_events.cli._errors import CommandError

__all__ = ["complete_event"]


def complete_event(context: typer.Context, incomplete: str) -> list[str]:
    """Return the events whose names begin as given, of the application that the line names.

    Args:
        context: what the line has so far.
        incomplete: the beginning of the name.
    """
    app, app_dir = context.params.get("app"), context.params.get("app_dir")
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), suppress(CommandError):
        found = load_application(app, app_dir)
        return sorted(it for it in found.signals if it.startswith(incomplete))
    return []
