"""Completing the names of events in a shell."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO

import typer  # noqa: TC002  # typer reads the annotation below

from madcrow_events.cli._application import load_application

__all__ = ["complete_event", "join_at_colons"]


def join_at_colons(variables: MutableMapping[str, str]) -> None:
    """Join the words of a line that bash has split at colons, as in `--app shop.main:create_app`.

    Args:
        variables: the environment, in which bash tells the words and the number of the current one.
    """
    words, joined = variables.get("COMP_WORDS", ""), 0
    while (shorter := re.sub(r"(\S)\s:\s(\S)", r"\1:\2", words, count=1)) != words:
        words, joined = shorter, joined + 1
    if joined:
        number = int(variables.get("COMP_CWORD", "0")) - 2 * joined
        variables.update(COMP_WORDS=words, COMP_CWORD=str(number))


def complete_event(context: typer.Context, incomplete: str) -> list[str]:
    """Return the events whose names begin as given, of the application that the line names.

    Args:
        context: what the line has so far.
        incomplete: the beginning of the name.
    """
    app, app_dir = context.params.get("app"), context.params.get("app_dir")
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), suppress(Exception):
        found = load_application(app, app_dir)
        return sorted(it for it in found.signals if it.startswith(incomplete))
    return []
