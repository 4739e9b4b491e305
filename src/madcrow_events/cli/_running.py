"""Running the command, and how it ends."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

import typer.main

from madcrow_events.cli._commands import COMMAND
from madcrow_events.cli._completion import join_at_colons
from madcrow_events.cli._errors import MISUSE, CommandError
from madcrow_events.cli._messages import say
from madcrow_events.exceptions import MadcrowEventsError

__all__ = ["run", "status_of"]


def run(arguments: Sequence[str]) -> NoReturn:
    """Run the command, and end the process.

    Args:
        arguments: the arguments, without the name of the command.

    Raises:
        SystemExit: always; the status says what came of it.
    """
    join_at_colons(os.environ)
    status = status_of(arguments)
    others = [it for it in threading.enumerate() if it is not threading.main_thread()]
    if all(it.daemon for it in others):
        sys.exit(status)
    # The interpreter would wait for a thread that the application has started, maybe for ever.
    sys.stderr.flush()
    os._exit(status)


def status_of(arguments: Sequence[str]) -> int:
    """Run the command, and return the status with which the process is to end.

    Args:
        arguments: the arguments, without the name of the command.
    """
    command = typer.main.get_command(COMMAND)
    try:
        command(_with_optional_values(arguments), "madcrow-events")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except CommandError as error:
        if str(error):
            say(f"madcrow-events: {error}")
        return error.status
    except MadcrowEventsError as error:
        say(f"madcrow-events: {error}")
        return MISUSE
    raise AssertionError("typer ends a command by SystemExit")  # pragma: no cover


def _with_optional_values(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with an empty value for each `--json` of `emit` that has none.

    typer has no options whose value may be left out.
    """
    given = [*arguments]
    if given[:1] != ["emit"]:
        return given
    filled: list[str] = []
    for at, argument in enumerate(given):
        filled.append(argument)
        following = given[at + 1] if at + 1 < len(given) else "--"
        is_option = following.startswith("-") and following != "-"
        if argument == "--json" and (is_option or "=" in following):
            filled.append("")
    return filled
