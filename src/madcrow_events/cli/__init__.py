"""The command `madcrow-events`, which shows what is declared, who listens, and what is wrong.

It needs the extra `cli`.
"""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command with the arguments of this process, and end the process.

    Raises:
        SystemExit: always; the status says what came of it.
    """
    try:
        import rich
        import typer
    except ModuleNotFoundError as error:
        print(  # noqa: T201  # there is nothing else to say it with
            f"madcrow-events: {error.name} is missing: pip install 'madcrow-events[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    del rich, typer
    from madcrow_events.cli._running import run

    run(sys.argv[1:])
