"""What all rows emit, and this package's side of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from madcrow_events import EventDispatcher, EventSignal, LoginEventContext, SignalRegistry

NAME = "user_logged_in"
SENDER = "sender"
KEYWORDS: dict[str, Any] = {
    "user_id": "123",
    "email": "user@example.com",
    "name": "User",
    "ip_address": "10.0.0.1",
}
CONTEXT = LoginEventContext(**KEYWORDS)


def keyword_handler() -> Any:
    """Make a handler that takes the context as keywords."""

    def handler(sender: Any, **context: Any) -> None:
        pass

    return handler


def context_handler() -> Any:
    """Make a handler that takes the context as one object."""

    def handler(context: LoginEventContext) -> None:
        pass

    return handler


def many(make: Callable[[], Any], number: int) -> list[Any]:
    """Make so many handlers."""
    return [make() for _ in range(number)]


def dispatcher_of(
    handlers: Iterable[Any] = (), **options: Any
) -> tuple[EventDispatcher, EventSignal[LoginEventContext]]:
    """Make a dispatcher whose one event has these handlers."""
    signals = SignalRegistry()
    signal = signals.signal(NAME, context=LoginEventContext)
    for handler in handlers:
        signal.subscribe(handler, **options)
    return EventDispatcher(signals), signal


def bare_loop(handlers: list[Any], sender: Any, **context: Any) -> list[Any]:
    """Call each handler with keywords, and collect what it returns: the least that is possible."""
    results = []
    for handler in handlers:
        try:
            results.append(handler(sender, **context))
        except Exception as error:
            results.append(error)
    return results


def bare_typed_loop(handlers: list[Any], context: Any) -> list[Any]:
    """Do the same with the context as one object."""
    results = []
    for handler in handlers:
        try:
            results.append(handler(context))
        except Exception as error:
            results.append(error)
    return results


def handlers_text(number: int) -> str:
    """Return how many handlers there are, as one says it."""
    return {0: "no handler", 1: "1 handler"}.get(number, f"{number:,} handlers")
