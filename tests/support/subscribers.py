"""A model, senders and handlers to subscribe."""

from __future__ import annotations

from typing import Any

from madcrow_events import BaseEventContext, EventDispatcher


class OrderPlaced(BaseEventContext):
    order_id: int


class Collector:
    """An object whose method is a handler."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def handle(self, sender: Any, **context: Any) -> None:
        self.seen.append(sender)


class Sender:
    """A sender that can be held weakly."""


def emitted(dispatcher: EventDispatcher, sender: Any = None, **context: Any) -> list[Any]:
    emission = dispatcher.emit("thing_happened", sender, **context)
    assert emission.ok, emission.failures
    return [result.value for result in emission.results]
