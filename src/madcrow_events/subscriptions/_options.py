"""The options of every way to subscribe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from madcrow_events._text import close_matches, printable
from madcrow_events._waiters import check_seconds
from madcrow_events.batches import Batch
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.subscriptions._kinds import is_async

__all__ = [
    "ANY",
    "AnySender",
    "BoundOptions",
    "SingleOptions",
    "SubscriptionOptions",
    "check_options",
]


_LONGEST_ID: Final = 128


class AnySender(Enum):
    """The type of `ANY`."""

    ANY = "ANY"

    def __repr__(self) -> str:
        """Return the name by which it is imported."""
        return "ANY"

    # Tables are keyed by it; that of Enum is written in Python, and takes ten times as long.
    if not TYPE_CHECKING:  # pragma: no branch  # type checkers know that of Enum
        __hash__ = object.__hash__


ANY: Final[Literal[AnySender.ANY]] = AnySender.ANY
"""Stands for every sender. It is the default of the option `sender`."""


class BoundOptions(TypedDict, total=False):
    """The options of `EventSignal.bind`: all of them but `background` and `batch`."""

    sender: Any
    priority: int
    once: bool
    when: Callable[[Mapping[str, Any]], object] | None
    weak: bool | None
    timeout: float | None
    id: str | None
    on_error: Literal["raise"] | None


class SingleOptions(BoundOptions, total=False):
    """The options of handlers that take one event at a time: all of them but `batch`."""

    background: bool


class SubscriptionOptions(SingleOptions, total=False):
    """The options of every way to subscribe.

    Attributes:
        sender: only emissions of this sender reach the handler. `ANY`, the default, stands for
            every sender. Senders are compared by identity, plain values by type and value.
        priority: handlers with a higher number run earlier; 0 by default. Handlers with the same
            number run in the order in which they were subscribed.
        once: whether the first call ends the subscription; False by default.
        when: a function that gets the fields of the context as a read-only mapping. If it returns
            something false, the handler is not called. None, the default, for every emission.
        weak: whether the subscription ends when nothing else refers to the handler. None, the
            default, means True for bound methods, and False for other handlers.
        timeout: after how many seconds an async handler is cancelled; None, the default, for no
            limit.
        background: whether the handler runs later, while the emitter goes on; False by default.
        id: a name for the handler in logs and metrics, such as `welcome-mail`: 1 to 128 printable
            characters, unique within the event or pattern. None, the default, for the function's
            own name.
        on_error: `"raise"` to raise a failure of the handler to its emitter, whatever the
            dispatcher does with failures. None, the default, leaves that to the dispatcher.
        batch: the limits of the lists of contexts that the handler takes, in the background. None,
            the default, for one call for each emission.
    """

    batch: Batch | None


def check_options(options: SubscriptionOptions, *others: str) -> None:
    """Refuse options that are unknown or impossible.

    Args:
        options: the options.
        others: which other options the caller has, for the message.

    Raises:
        InvalidOptionError: an option is unknown or has an impossible value.
    """
    unknown = set(options) - set(SubscriptionOptions.__annotations__)
    if unknown:
        known = sorted([*SubscriptionOptions.__annotations__, *others])
        name = min(unknown)
        near = close_matches(name, known, 1)
        fix = f"did you mean '{near[0]}'? The options are" if near else "use one of"
        message = f"no option is called '{printable(name)}': {fix} {', '.join(known)}"
        raise InvalidOptionError(message, option=name)
    priority: object = options.get("priority", 0)
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise InvalidOptionError("priority must be an int, such as 10", option="priority")
    when: object = options.get("when")
    if when is not None and (not callable(when) or is_async(when)):
        raise InvalidOptionError(
            "when must be a plain function, which gets the fields as a mapping, such as "
            "lambda fields: fields['is_admin']",
            option="when",
        )
    for name in ("once", "background"):
        if not isinstance(options.get(name, False), bool):
            raise InvalidOptionError(f"{name} must be True or False", option=name)
    check_seconds("timeout", options.get("timeout"))
    given: object = options.get("id")
    if given is not None and not (
        isinstance(given, str) and 0 < len(given) <= _LONGEST_ID and given.isprintable()
    ):
        raise InvalidOptionError(
            f"id must be a text of 1 to {_LONGEST_ID} printable characters, such as "
            "'welcome-mail', or None",
            option="id",
        )
    _check_on_error(options)
    batch: object = options.get("batch")
    if not isinstance(batch, Batch | None):
        raise InvalidOptionError(
            "batch must be a Batch, such as Batch(max_size=100, max_wait=1.0), or None",
            option="batch",
        )
    if batch is not None and options.get("once"):
        raise InvalidOptionError(
            "a handler that is called once gets one context: leave out once, or batch",
            option="batch",
        )
    if not isinstance(options.get("weak"), bool | None):
        raise InvalidOptionError("weak must be True, False or None", option="weak")


def _check_on_error(options: SubscriptionOptions) -> None:
    on_error: object = options.get("on_error")
    if on_error is None:
        return
    if on_error != "raise":
        raise InvalidOptionError(
            "on_error must be 'raise', or None to leave its failures to the dispatcher",
            option="on_error",
        )
    for later in ("background", "batch"):
        if options.get(later):
            raise InvalidOptionError(
                "a handler in the background has no emitter to raise to, because that has gone on: "
                f"leave out on_error, or {later}",
                option="on_error",
            )
