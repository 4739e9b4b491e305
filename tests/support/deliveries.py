"""Every way of delivering an event to one handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from madcrow_events import BaseEventContext, Emission, EventDispatcher, Subscription, current_event

__all__ = ["WAYS", "Delivers", "Happened", "Way"]


class Happened(BaseEventContext):
    number: int = 0


class Way(NamedTuple):
    """What tells one way from another."""

    awaits: bool  # deliver_async, not deliver
    is_async: bool  # the handler is
    suspends: bool = False  # before it does anything

    def __str__(self) -> str:
        twin = "deliver_async" if self.awaits else "deliver"
        kind = "suspending" if self.suspends else "async" if self.is_async else "plain"
        return f"{twin}-{kind}"


WAYS = [
    Way(awaits, is_async, suspends)
    for awaits in (False, True)
    for is_async, suspends in ((False, False), (True, False), (True, True))
]


class Delivers:
    """One way of delivering an event, with an event to deliver."""

    def __init__(self, way: Way, dispatcher: EventDispatcher) -> None:
        self.way = way
        self.dispatcher = dispatcher
        self.signals = dispatcher.signals
        self.signal = self.signals.signal("thing_happened", context=Happened)

    def __call__(self, bound: Subscription, context: Any = None, **given: Any) -> Emission[Any]:
        """Deliver an event to its end."""
        context = Happened() if context is None else context
        if not self.way.awaits:
            return self.dispatcher.deliver(bound, context, **given)
        return asyncio.run(self._deliver_async(bound, context, given))

    async def _deliver_async(
        self, bound: Subscription, context: Any, given: dict[str, Any]
    ) -> Emission[Any]:
        emission = await self.dispatcher.deliver_async(bound, context, **given)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return emission

    def bind(self, body: Callable[[Emission[Any]], Any], **options: Any) -> Subscription:
        """Bind a handler of this kind, in whose place `body` gets the current emission."""
        return self.signal.bind(self.handler(body), **options)

    def handler(self, body: Callable[[Emission[Any]], Any]) -> Any:
        def call() -> Any:
            emission = current_event()
            assert emission is not None
            return body(emission)

        def handler(context: Happened) -> Any:
            return call()

        async def async_handler(context: Happened) -> Any:
            if self.way.suspends:
                await asyncio.sleep(0)
            return call()

        return async_handler if self.way.is_async else handler

    def failing(self, error: BaseException) -> Any:
        """Make a handler that raises."""

        def fail(_emission: object) -> None:
            raise error

        return self.handler(fail)
