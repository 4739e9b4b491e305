"""The call loops of blinker's `send` and `send_async`: the first failure ends them.

They return the handlers' values, so a background handler is called in its place, like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from madcrow_events._other_loops import check_for_awaiting
from madcrow_events._text import handler_name
from madcrow_events.emissions._chains import nest
from madcrow_events.emissions._completion import abandon
from madcrow_events.emissions._emission import Emission
from madcrow_events.emissions._frames import CURRENT, current
from madcrow_events.emissions._lazy_asyncio import load_async_loop
from madcrow_events.emissions._outcomes import NO_RESULT, Called
from madcrow_events.emissions._styles import BY_KEYWORDS, RECORDER

if TYPE_CHECKING:
    from collections.abc import Callable

    from madcrow_events.emissions._plan import Entry, Plan
    from madcrow_events.signals import EventSignal

__all__ = ["send", "send_async"]

_IS_ASYNC = "cannot send to the async {}: use send_async, or give _async_wrapper"
_IS_PLAIN = "cannot await {}, which is not async: use send, or give _sync_wrapper"


def _sent(
    signal: EventSignal[Any], plan: Plan, sender: object, keywords: dict[str, Any]
) -> Emission:
    """Make the emission of a `send`."""
    emission: Emission = Emission()
    emission.signal = signal
    emission.sender = sender
    emission.dispatcher = None
    emission._outer = emission._ambient = None
    emission.depth = 0
    emission._plan = plan
    emission._payload = keywords
    emission._values = []
    emission._failures = None
    emission._running = True
    innermost = current()
    if innermost is not None:
        nest(emission, innermost)
    return emission


def send(
    signal: EventSignal[Any],
    plan: Plan,
    sender: object,
    async_wrapper: Callable[[Any], Any] | None,
    keywords: dict[str, Any],
) -> list[tuple[Any, Any]]:
    """Call the handlers of a plan as blinker's `send` does: the first failure ends it.

    Raises:
        RuntimeError: a receiver is async and there is no `async_wrapper`.
    """
    results: list[tuple[Any, Any]] = []
    emission, token = _sent(signal, plan, sender, keywords), None
    innermost = CURRENT.get(None)
    try:
        token = CURRENT.set(emission)
        for entry in plan.entries_by_priority:
            is_async = entry.spec.is_async
            lacking = is_async and async_wrapper is None
            handler = _admitted(entry, emission, _IS_ASYNC if lacking else "")
            if handler is not None:
                if is_async and async_wrapper is not None:
                    receiver = _as_async_receiver(entry, handler, emission)
                    value = async_wrapper(receiver)(sender, **keywords)
                else:
                    value = entry.spec.invoke(handler, emission)
                if value is not NO_RESULT:
                    results.append((handler, value))
                    # With its handler: `send` calls the handlers in an order of its own.
                    emission._values.append(Called(handler, value))
                    continue
            emission._values.append(NO_RESULT)
        # Raises the end of a chain that is too deep, even if a handler has swallowed it.
        emission.raise_for_failures()
    finally:
        emission._running = False
        if token is None:  # interrupted as it was entered
            CURRENT.set(innermost)  # type: ignore[arg-type]  # None stands for no frame
        else:
            CURRENT.reset(token)
        abandon(emission)
    return results


async def send_async(
    signal: EventSignal[Any],
    plan: Plan,
    sender: object,
    sync_wrapper: Callable[[Any], Any] | None,
    keywords: dict[str, Any],
) -> list[tuple[Any, Any]]:
    """Await the handlers of a plan as blinker's `send_async` does, one after the other.

    Raises:
        RuntimeError: a receiver is not async and there is no `sync_wrapper`.
    """
    results: list[tuple[Any, Any]] = []
    emission, token = _sent(signal, plan, sender, keywords), None
    innermost = CURRENT.get(None)
    try:
        token = CURRENT.set(emission)
        for entry in plan.entries_by_priority:
            is_plain = not (entry.spec.is_async or entry.subscription.origin is RECORDER)
            lacking = is_plain and sync_wrapper is None
            handler = _admitted(entry, emission, _IS_PLAIN if lacking else "")
            if handler is not None:
                if entry.spec.is_async:
                    receiver = _as_async_receiver(entry, handler, emission)
                    value = await receiver(sender, **keywords)
                elif sync_wrapper is None or not is_plain:
                    value = entry.spec.invoke(handler, emission)
                else:
                    receiver = _as_receiver(entry, handler, emission)
                    value = await sync_wrapper(receiver)(sender, **keywords)
                if value is not NO_RESULT:
                    results.append((handler, value))
                    # With its handler: `send` calls the handlers in an order of its own.
                    emission._values.append(Called(handler, value))
                    continue
            emission._values.append(NO_RESULT)
        # Raises the end of a chain that is too deep, even if a handler has swallowed it.
        emission.raise_for_failures()
    finally:
        emission._running = False
        try:
            if token is None:  # interrupted as it was entered
                CURRENT.set(innermost)  # type: ignore[arg-type]  # None stands for no frame
            else:
                CURRENT.reset(token)
        except ValueError:  # left before its end, it is closed in another context
            pass
        abandon(emission)
    return results


def _admitted(entry: Entry, emission: Emission, refusal: str) -> Any:
    """Return the handler, and use up its `once`, if this emission is for it; else return None.

    Raises:
        RuntimeError: the emission is for the handler, but `refusal` says why it cannot be called;
            a `once` is then not used up.
    """
    handler = entry.match(emission)
    if handler is None or entry.is_used_up():
        return None
    if refusal:
        raise RuntimeError(f"{emission.event}: {refusal.format(handler_name(handler))}")
    return entry.take(handler, emission)


def _as_receiver(entry: Entry, handler: object, emission: Emission) -> Any:
    """Return a callable of blinker's form for a handler of any form."""
    if entry.spec.style == BY_KEYWORDS:
        return handler

    def receiver(_sender: object, **_context: object) -> Any:
        return entry.spec.invoke(handler, emission)

    return receiver


def _as_async_receiver(entry: Entry, handler: object, emission: Emission) -> Any:
    """Return an async callable of blinker's form, which keeps the timeout of the handler."""
    if entry.spec.style == BY_KEYWORDS and entry.subscription.timeout is None:
        return handler

    async def receiver(_sender: object, **_context: object) -> Any:
        if entry.subscription.timeout is None:
            return await entry.spec.invoke(handler, emission)
        check_for_awaiting(emission.event)
        return await load_async_loop().await_in_time(entry, handler, emission)

    return receiver
