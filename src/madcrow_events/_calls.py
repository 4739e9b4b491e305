"""The call loops: order, isolation, depth, collection. Pure functions over plans.

`call_all` is the dispatcher's: it isolates each handler from the others. The
`send` loops are blinker's: they stop at the first failure.
"""

from __future__ import annotations

import logging
import sys
import time
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from madcrow_events._logs import LOGGER, handler_name, log_failure, type_name
from madcrow_events._signatures import ASYNC_RECEIVER, BY_CONTEXT, BY_EMISSION, BY_KEYWORDS
from madcrow_events.emissions import CURRENT, NO_RESULT, Emission, Failures, HandlerFailure, running
from madcrow_events.exceptions import EmissionDepthError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from madcrow_events._subscriptions import Subscription
    from madcrow_events._tables import Plan, Segments
    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.models import BaseEventContext
    from madcrow_events.signals import EventSignal

__all__ = ["MAX_DEPTH", "call_all", "send", "send_async"]

MAX_DEPTH = 64
"""How many emissions may be nested in each other (F5)."""

_NAMED_EVENTS = 6
_DEBUG = logging.DEBUG

# Bound here, for a method of an imported name is looked up the slow way at every call.
_inherited = CURRENT.get
_enter = CURRENT.set
_leave = CURRENT.reset
_is_enabled_for = LOGGER.isEnabledFor
# The logger's own memory of its answers, which it empties when a level changes: one look-up
# instead of a call. Where a Python has no such memory, the logger is asked each time.
_known_levels: dict[int, bool] = getattr(LOGGER, "_cache", {})


def call_all(  # noqa: C901, PLR0912  # one loop for each call style, in one frame, for speed
    dispatcher: EventDispatcher,
    signal: EventSignal[Any],
    sender: Any,
    payload: Any,
    context: BaseEventContext | None,
    keywords: dict[str, Any] | None,
) -> Emission[Any]:
    """Call every handler of an emission, whatever the others do, and collect what comes of it.

    Args:
        dispatcher: the policy.
        signal: what is emitted.
        sender: who emits; None for the signal itself.
        payload: the context as it was emitted: a model, or the keywords.
        context: the payload, if it is an instance of the signal's model.
        keywords: the payload, if it is keywords.

    Raises:
        EmissionDepthError: it, or one below it, is nested too deep (F5).
        BaseException: what a handler raised that is no `Exception` (F3).
    """
    if sender is None:
        sender = signal
    plan = signal._table.plans.everyone
    if plan is None:
        plan = signal._table.plan_for(sender)
    emission: Emission[Any] = Emission()
    emission.signal = signal
    emission.sender = sender
    emission.dispatcher = dispatcher
    emission.parent = None
    emission.depth = 0
    emission._plan = plan
    emission._payload = payload
    emission._failures = None
    emission._running = False
    inherited = _inherited(None)
    if inherited is not None:
        _nest(emission, inherited)
    segments = planned = plan.segments
    if _known_levels.get(_DEBUG, True) and _is_enabled_for(_DEBUG):
        segments = planned = _timed(emission)
    if not segments:
        emission._values = ()
        return emission
    emission._values = values = []
    emission._running = True
    token = _enter(emission)
    try:
        while True:
            # One try around the loops, not one in each: only a failure pays for its isolation.
            try:
                for style, calls in segments:
                    if style == BY_KEYWORDS:
                        if keywords is None:
                            keywords = emission._keywords()
                        for call in calls:
                            values.append(call(sender, **keywords))
                    elif style == BY_CONTEXT and context is not None:
                        for call in calls:
                            values.append(call(context))
                    elif style == BY_CONTEXT:
                        for call in calls:
                            values.append(call(emission._context_as(signal._models)))
                    else:
                        for call in calls:
                            values.append(call(emission))
                break
            except BaseException as error:  # noqa: BLE001  # _record lets through what is not a failure
                _record(emission, error)
                segments = _after(planned, len(values))
    finally:
        _leave(token)
        emission._running = False
    if inherited is not None:
        _pass_on_broken_chain(emission)
    return emission


def _after(segments: Segments, number: int) -> Segments:
    """Return what is left of segments after so many calls."""
    for index, (style, calls) in enumerate(segments):
        if number < len(calls):
            return ((style, calls[number:]), *segments[index + 1 :])
        number -= len(calls)
    return ()


def _record(emission: Emission[Any], error: BaseException) -> None:
    """Note what the handler at hand raised, or let it through (F1, F3)."""
    if not isinstance(error, Exception) and not _is_cancellation(error):
        raise error
    handler = emission._plan.subscriptions[len(emission._values)].handler
    failures = emission._failures
    if failures is None:
        failures = emission._failures = Failures()
    # The end of a broken chain has been recorded already, by the outermost emission.
    is_new = not (isinstance(error, EmissionDepthError) and _chain_is_broken(_outermost(emission)))
    emission._values.append(NO_RESULT)
    if is_new:
        _add_failure(emission, failures, HandlerFailure(handler, error))


def _add_failure(emission: Emission[Any], failures: Failures, failure: HandlerFailure) -> None:
    failures.items.append(failure)
    dispatcher = emission.dispatcher
    tracebacks = dispatcher is not None and dispatcher.log_tracebacks
    log_failure(emission.event, failure.handler, failure.exception, tracebacks=tracebacks)


def _is_cancellation(error: BaseException) -> bool:
    # Looked up, not imported: who never loaded asyncio cannot have raised its error.
    module = sys.modules.get("asyncio.exceptions")
    return module is not None and isinstance(error, module.CancelledError)


def _nest(emission: Emission[Any], inherited: Emission[Any]) -> None:
    """Place an emission under the one whose handler made it.

    Raises:
        EmissionDepthError: the chain is too deep, or was, under the same handler (F5).
    """
    parent = running(inherited)
    if parent is None:
        return
    emission.parent = parent
    emission.depth = parent.depth + 1
    outermost = _outermost(parent)
    if emission.depth < MAX_DEPTH and not _chain_is_broken(outermost):
        return
    error = _depth_error(emission)
    if not _chain_is_broken(outermost):
        _break_chain(outermost, error)
    raise error


def _outermost(emission: Emission[Any]) -> Emission[Any]:
    while emission.parent is not None and emission.parent._running:
        emission = emission.parent
    return emission


def _chain_is_broken(outermost: Emission[Any]) -> bool:
    # A chain is what happens under one handler of the outermost emission.
    failures = outermost._failures
    return failures is not None and failures.broken_at == len(outermost._values)


def _pass_on_broken_chain(emission: Emission[Any]) -> None:
    """Fail an emission inside a broken chain too, so that the chain unwinds to its outermost."""
    if emission._failures is not None and _chain_is_broken(_outermost(emission)):
        raise _depth_error(emission)


def _break_chain(outermost: Emission[Any], error: EmissionDepthError) -> None:
    """Record the end of a chain in its outermost emission, once for that emission."""
    failures = outermost._failures
    if failures is None:
        failures = outermost._failures = Failures()
    index = len(outermost._values)
    if failures.broken_at < 0:
        handler = outermost._plan.subscriptions[index].handler
        _add_failure(outermost, failures, HandlerFailure(handler, error))
    failures.broken_at = index


def _depth_error(emission: Emission[Any]) -> EmissionDepthError:
    names: list[str] = []
    ancestor: Emission[Any] | None = emission
    while ancestor is not None and len(names) < _NAMED_EVENTS:
        names.insert(0, ancestor.event)
        ancestor = ancestor.parent
    return EmissionDepthError(
        f"emissions are nested more than {MAX_DEPTH} deep, the last of them "
        f"{' > '.join(names)}: let one of these handlers stop emitting",
        events=tuple(names),
    )


def _timed(emission: Emission[Any]) -> Segments:
    """Log an emission, and return its calls so wrapped that each is logged with its time."""
    subscriptions = emission._plan.subscriptions
    LOGGER.debug(
        "%s emitted by %s to %d handlers",
        emission.event,
        type_name(type(emission.sender)),
        len(subscriptions),
    )
    return ((BY_EMISSION, tuple(partial(_call_timed, entry) for entry in subscriptions)),)


def _call_timed(subscription: Subscription, emission: Emission[Any]) -> Any:
    name = handler_name(subscription.handler)
    started = time.perf_counter()
    outcome = "raised"
    try:
        value = subscription._call(emission)
        outcome = "skipped" if value is NO_RESULT else "returned"
    finally:
        elapsed = (time.perf_counter() - started) * 1000
        LOGGER.debug("handler %s of %s %s after %.3f ms", name, emission.event, outcome, elapsed)
    return value


@contextmanager
def _sending(
    signal: EventSignal[Any], plan: Plan, sender: Any, keywords: dict[str, Any]
) -> Iterator[Emission[Any]]:
    """Make the emission of a `send` the current one."""
    emission: Emission[Any] = Emission()
    emission.signal = signal
    emission.sender = sender
    emission.dispatcher = None
    emission.parent = None
    emission.depth = 0
    emission._plan = plan
    emission._payload = keywords
    emission._values = []
    emission._failures = None
    emission._running = True
    inherited = _inherited(None)
    if inherited is not None:
        _nest(emission, inherited)
    token = _enter(emission)
    try:
        yield emission
        # A handler that swallowed the end of a too deep chain does not hide it.
        emission.raise_for_failures()
    finally:
        # A send_async that nobody awaits to its end is closed in another context.
        with suppress(ValueError):
            _leave(token)
        emission._running = False


def send(
    signal: EventSignal[Any],
    plan: Plan,
    sender: Any,
    async_wrapper: Callable[[Any], Any] | None,
    keywords: dict[str, Any],
) -> list[tuple[Any, Any]]:
    """Call the handlers of a plan as blinker's `send` does: the first failure ends it.

    Raises:
        RuntimeError: a receiver is async and there is no `async_wrapper`.
    """
    results: list[tuple[Any, Any]] = []
    with _sending(signal, plan, sender, keywords) as emission:
        for subscription in plan.subscriptions:
            handler = subscription._admit(emission)
            if handler is not None:
                if subscription._shape is ASYNC_RECEIVER:
                    if async_wrapper is None:
                        raise RuntimeError(
                            f"{signal.name}: cannot send to the async {handler_name(handler)}: "
                            "use send_async, or give _async_wrapper"
                        )
                    value = async_wrapper(handler)(sender, **keywords)
                else:
                    value = subscription._shape.invoke(handler, emission)
                results.append((handler, value))
            emission._values.append(NO_RESULT)
    return results


async def send_async(
    signal: EventSignal[Any],
    plan: Plan,
    sender: Any,
    sync_wrapper: Callable[[Any], Any] | None,
    keywords: dict[str, Any],
) -> list[tuple[Any, Any]]:
    """Await the handlers of a plan as blinker's `send_async` does, one after the other.

    Raises:
        RuntimeError: a receiver is not async and there is no `sync_wrapper`.
    """
    results: list[tuple[Any, Any]] = []
    with _sending(signal, plan, sender, keywords) as emission:
        for subscription in plan.subscriptions:
            handler = subscription._admit(emission)
            if handler is not None:
                if subscription._shape is ASYNC_RECEIVER:
                    value = await handler(sender, **keywords)
                else:
                    if sync_wrapper is None:
                        raise RuntimeError(
                            f"{signal.name}: cannot await {handler_name(handler)}, which is not "
                            "async: use send, or give _sync_wrapper"
                        )
                    receiver = _as_receiver(subscription, handler, emission)
                    value = await sync_wrapper(receiver)(sender, **keywords)
                results.append((handler, value))
            emission._values.append(NO_RESULT)
    return results


def _as_receiver(subscription: Subscription, handler: Any, emission: Emission[Any]) -> Any:
    """Return a callable of blinker's form for a handler of any form."""
    if subscription._shape.style == BY_KEYWORDS:
        return handler

    def receiver(_sender: Any, **_context: Any) -> Any:
        return subscription._shape.invoke(handler, emission)

    return receiver
