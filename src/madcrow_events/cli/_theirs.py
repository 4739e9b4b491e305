"""Calling code of the application: what it raises is shown as its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from madcrow_events._text import printable, text_of, type_name
from madcrow_events.cli._errors import APPLICATION, INTERRUPTED, CommandError
from madcrow_events.cli._places import Line, lines_to, raised_at

__all__ = ["ApplicationError", "theirs"]

ReturnedT = TypeVar("ReturnedT")

_MOST_LINES: Final = 20
"""How many lines are shown that led to an exception."""


class ApplicationError(CommandError):
    """Code of the application raised an exception.

    Attributes:
        error: the exception.
        line: where it was raised, or None.
    """

    def __init__(self, message: str, error: BaseException) -> None:
        super().__init__(f"{message}\n{_way(error)}".rstrip(), APPLICATION)
        self.error = error
        self.line: Line | None = raised_at(error)


def theirs(doing: str, act: Callable[[], ReturnedT]) -> ReturnedT:
    """Return what code of the application returns.

    Args:
        doing: what the code is called for, such as `importing shop`.
        act: calls it.

    Raises:
        CommandError: it was interrupted, or an error of the command itself.
        ApplicationError: it raised an exception. The message has the lines that led to it.
    """
    try:
        return act()
    except CommandError:
        raise
    except KeyboardInterrupt as error:
        line = raised_at(error)
        where = f"while {doing}" if line is None else f"at {line}"
        raise CommandError(f"interrupted {where}", INTERRUPTED) from error
    except SystemExit as error:
        raise ApplicationError(
            f"{doing} ended the process, with {_code_of(error)}", error
        ) from error
    except BaseException as error:
        kind, text = type_name(type(error)), "\n".join(map(printable, text_of(error).splitlines()))
        message = f"{doing} raised {kind}{f': {text}' if text else ''}"
        raise ApplicationError(message, error) from error


def _code_of(error: SystemExit) -> str:
    is_status = error.code is None or isinstance(error.code, int)
    return f"status {error.code or 0}" if is_status else f"the message: {printable(error.code)}"


def _way(error: BaseException) -> str:
    """Return the lines that led to an exception, one below the other."""
    lines = [f"  {line}, in {function}" for line, function in lines_to(error)]
    left_out = ["  ..."] if len(lines) > _MOST_LINES else []
    return "\n".join(left_out + lines[-_MOST_LINES:])
