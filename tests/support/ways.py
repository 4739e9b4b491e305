"""Every way of emitting, and of being called.

A test is one story, told in every way. Its handlers are written as coroutines; where the way
calls plain handlers, each is run to its end in one go, and the whole story needs no event loop
if nothing in it is awaited.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import pytest

from madcrow_events import BaseEventContext, Emission, EventDispatcher, current_event

plain_and_async = pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])


class Happened(BaseEventContext):
    number: int = 0
    ready: bool = True


class Kind(NamedTuple):
    """What tells one way from another."""

    awaits: bool  # emit_async, not emit
    is_async: bool  # the handlers are
    suspends: bool  # each of them, before it does anything
    typed: bool  # the emission carries a model, and the handlers take it
    debug: bool  # the log is on

    def __str__(self) -> str:
        emits = "emit_async" if self.awaits else "emit"
        handlers = "async" if self.is_async else "plain"
        words = [emits, "suspending" if self.suspends else handlers]
        words.append("typed" if self.typed else "loose")
        return "-".join([*words, "logged"] if self.debug else words)


KINDS = [
    Kind(awaits, is_async, suspends, typed, debug)
    for awaits, is_async, suspends in (
        (False, False, False),
        (True, False, False),
        (True, True, False),
        (True, True, True),
    )
    for typed, debug in ((False, False), (True, False), (False, True))
]


def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never suspends, and return its value."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise AssertionError("this way was not to await anything")


class Way:
    """A way of emitting, and of being called."""

    def __init__(self, kind: Kind, dispatcher: EventDispatcher) -> None:
        self.kind = kind
        self.dispatcher = dispatcher
        self.signals = dispatcher.signals
        model = Happened if kind.typed else None
        self.signal = self.signals.signal("thing_happened", context=model)
        self.other = self.signals.signal("other_thing", context=model)

    @property
    def raising(self) -> Way:
        """The same way, through a dispatcher that raises."""
        return Way(self.kind, self.dispatcher.with_options(on_error="raise"))

    async def emit(self, event: Any = None, sender: Any = None, **context: Any) -> Emission[Any]:
        """Emit as the application would."""
        event = self.signal if event is None else event
        if not self.kind.awaits:
            return self._emit(event, sender, context)
        if self.kind.typed:
            return await self.dispatcher.emit_typed_async(event, Happened(**context), sender)
        return await self.dispatcher.emit_async(event, sender, **context)

    async def emit_inside(self, event: Any = None, **context: Any) -> Emission[Any]:
        """Emit as a handler of this kind would."""
        if self.kind.is_async:
            return await self.emit(event, **context)
        return self._emit(self.signal if event is None else event, None, context)

    def _emit(self, event: Any, sender: Any, context: dict[str, Any]) -> Emission[Any]:
        if self.kind.typed:
            return self.dispatcher.emit_typed(event, Happened(**context), sender)
        return self.dispatcher.emit(event, sender, **context)

    def handler(self, body: Callable[[Emission[Any]], Coroutine[Any, Any, Any]]) -> Any:
        """Make a handler of this kind, in whose place `body` gets the current emission."""

        async def called() -> Any:
            if self.kind.suspends:
                await asyncio.sleep(0)
            emission = current_event()
            assert emission is not None
            return await body(emission)

        if self.kind.is_async and self.kind.typed:

            async def handler(context: BaseEventContext) -> Any:
                return await called()

        elif self.kind.is_async:

            async def handler(sender: Any, **context: Any) -> Any:
                return await called()

        elif self.kind.typed:

            def handler(context: BaseEventContext) -> Any:
                return finished(called())

        else:

            def handler(sender: Any, **context: Any) -> Any:
                return finished(called())

        return handler

    def returning(self, value: Any) -> Any:
        """Make a handler that returns a value."""

        async def body(emission: Emission[Any]) -> Any:
            return value

        return self.handler(body)

    def failing(self, error: BaseException | type[BaseException] = ValueError) -> Any:
        """Make a handler that raises."""

        async def body(emission: Emission[Any]) -> None:
            raise error

        return self.handler(body)

    def owner(self, value: Any) -> Any:
        """Make an object with a method `handle` that is a handler of this kind."""

        class PlainOwner:
            def handle(self, sender: Any, **context: Any) -> Any:
                return value

        class AsyncOwner:
            async def handle(self, sender: Any, **context: Any) -> Any:
                if suspends:
                    await asyncio.sleep(0)
                return value

        suspends = self.kind.suspends
        return AsyncOwner() if self.kind.is_async else PlainOwner()

    def run(self, story: Coroutine[Any, Any, None]) -> None:
        """Tell a story; afterwards no task is left and the loop has nothing to complain of."""
        if not self.kind.awaits:
            finished(story)
            return
        complaints: list[str] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, problem: complaints.append(problem["message"]))
            await story
            assert asyncio.all_tasks() == {asyncio.current_task()}

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            pytest.fail("a KeyboardInterrupt went past the emitter")
        assert complaints == []


def in_every_way(story: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Tell a story in every way of emitting."""

    @functools.wraps(story)
    def test(way: Way, **fixtures: Any) -> None:
        way.run(story(way=way, **fixtures))

    return test
