"""The call loops: order, isolation, depth, collection. Pure functions over plans.

`call_all` is the dispatcher's: it isolates each handler from the others. What
it does not call itself, because it is async or runs in the background, is
called in a branch of its own: `_async_calls` and `_workers` start those, and
`run_branch` here is what a thread does with one.
"""

from __future__ import annotations

import logging
import sys
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from madcrow_events._frames import (
    CURRENT,
    NO_RESULT,
    Branch,
    Called,
    Failures,
    Outcomes,
    emission_of,
    failures_of,
    running,
)
from madcrow_events._logs import LOGGER, handler_name, log_failure, type_name
from madcrow_events._signatures import BY_CONTEXT, BY_EMISSION, BY_KEYWORDS
from madcrow_events.emissions import Emission, HandlerFailure
from madcrow_events.exceptions import EmissionDepthError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from madcrow_events._frames import Frame
    from madcrow_events._subscriptions import Subscription
    from madcrow_events._tables import Segments
    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.models import BaseEventContext
    from madcrow_events.signals import EventSignal

__all__ = [
    "MAX_DEPTH",
    "call_all",
    "is_debugging",
    "is_failure",
    "keep_value",
    "log_call",
    "nest",
    "outermost",
    "pass_on_broken_chain",
    "record_in_branch",
    "run_branch",
]

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


def call_all(  # noqa: C901, PLR0912, PLR0915  # one loop for each call style, in one frame, for speed
    dispatcher: EventDispatcher,
    signal: EventSignal[Any],
    sender: Any,
    payload: Any,
    context: BaseEventContext | None,
    keywords: dict[str, Any] | None,
    awaiting: bool = False,  # noqa: FBT001, FBT002  # a keyword would cost each emission
) -> Emission[Any]:
    """Call every inline handler of an emission, whatever the others do, and collect the outcome.

    If there are other handlers, the emission has `Outcomes` and `Failures` when
    it returns, and it is for the dispatcher to start them.

    Args:
        dispatcher: the policy.
        signal: what is emitted.
        sender: who emits; None for the signal itself.
        payload: the context as it was emitted: a model, or the keywords.
        context: the payload, if it is an instance of the signal's model.
        keywords: the payload, if it is keywords.
        awaiting: whether the emitter awaits the async handlers.

    Raises:
        EmissionDepthError: it, or one below it, is nested too deep (F5).
        QueueFullError: other handlers find no place to wait in; none has been called.
        DispatcherClosedError: likewise, for nobody would call them.
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
    emission._outer = None
    emission.depth = 0
    emission._plan = plan
    emission._payload = payload
    emission._failures = None
    emission._running = False
    inherited = _inherited(None)
    if inherited is not None:
        nest(emission, inherited)
    segments = planned = plan.segments
    if _known_levels.get(_DEBUG, True) and _is_enabled_for(_DEBUG):
        segments = planned = _timed(emission)
    values: list[Any]
    if plan.later:
        if awaiting and not plan.queued:
            values = Outcomes()
        else:
            values = dispatcher._workers.outcomes_for(emission, awaiting)
            # Made now, for several threads may have failures to note.
            emission._failures = Failures()
        emission._values = values
        if not segments:
            return emission
    elif segments:
        emission._values = values = []
    else:
        emission._values = ()
        return emission
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
        pass_on_broken_chain(emission)
    return emission


def _after(segments: Segments, number: int) -> Segments:
    """Return what is left of segments after so many calls."""
    for index, (style, calls) in enumerate(segments):
        if number < len(calls):
            return ((style, calls[number:]), *segments[index + 1 :])
        number -= len(calls)
    return ()


def _record(emission: Emission[Any], error: BaseException) -> None:
    """Note what the inline handler at hand raised, or let it through (F1, F3)."""
    if not is_failure(error):
        emission._abandon()
        raise error
    failures_of(emission)
    # The end of a broken chain has been recorded already, by the outermost emission.
    is_new = not (isinstance(error, EmissionDepthError) and _is_broken(outermost(emission)))
    index = len(emission._values)
    emission._values.append(NO_RESULT)
    if is_new:
        _add_failure(emission, index, error)


def _add_failure(
    emission: Emission[Any], index: int, error: BaseException, *, detached: bool = False
) -> HandlerFailure:
    plan, dispatcher = emission._plan, emission.dispatcher
    called = plan.by_priority if dispatcher is None else plan.subscriptions
    failure = HandlerFailure(called[index].handler, error)
    failures = failures_of(emission)
    if detached:
        failures.detached.append(failure)
    failures.items.append(failure)
    tracebacks = dispatcher is not None and dispatcher.log_tracebacks
    log_failure(emission.event, failure.handler, error, tracebacks=tracebacks)
    return failure


def is_failure(error: BaseException) -> bool:
    """Tell whether a plain handler that raises it has failed; else it goes through (F3)."""
    # Looked up, not imported: who never loaded asyncio cannot have raised its error.
    cancelled_error = getattr(sys.modules.get("asyncio.exceptions"), "CancelledError", Exception)
    return isinstance(error, (Exception, cancelled_error))


def nest(emission: Emission[Any], inherited: Frame) -> None:
    """Place an emission under the one whose handler made it.

    Raises:
        EmissionDepthError: the chain is too deep, or was, under the same handler (F5).
    """
    frame = running(inherited)
    if frame is None:
        if isinstance(inherited, Branch) and inherited.job is not None:
            emission._outer = inherited  # a worker announces a failure
        return
    if isinstance(frame, Branch) and frame.is_anothers():
        frame = frame.of_others()
    emission._outer = frame
    parent = emission.parent
    if parent is None:  # a handler that nobody awaits begins a chain of its own
        return
    emission.depth = parent.depth + 1
    root = outermost(frame)
    if emission.depth < MAX_DEPTH and not _is_broken(root):
        return
    error = _depth_error(emission)
    if not _is_broken(root):
        _break_chain(root, error)
    raise error


def outermost(frame: Frame) -> Frame:
    """Return the frame that a chain began in: the outermost emission, or a branch of it.

    A chain is what happens under one handler of the outermost emission.
    """
    while True:
        outer = frame._outer
        if outer is None or not outer._running or (isinstance(outer, Branch) and outer.detached):
            return frame
        frame = outer


def _is_broken(root: Frame) -> bool:
    if isinstance(root, Branch):
        return root.broken
    failures = root._failures
    return failures is not None and failures.broken_at == len(root._values)


def pass_on_broken_chain(emission: Emission[Any]) -> None:
    """Fail an emission inside a broken chain too, so that the chain unwinds to its outermost.

    Raises:
        EmissionDepthError: it is inside of one.
    """
    if emission._failures is not None and emission.depth and _is_broken(outermost(emission)):
        emission._abandon()
        raise _depth_error(emission)


def _break_chain(root: Frame, error: EmissionDepthError) -> None:
    """Record the end of a chain in its outermost emission, once for that emission."""
    emission = emission_of(root)
    assert emission is not None  # noqa: S101  # it runs
    failures = failures_of(emission)
    index = len(emission._values)
    if isinstance(root, Branch):
        index = root.index
        root.broken = True
    else:
        failures.broken_at = index
    if not failures.told_depth:
        failures.told_depth = True
        _add_failure(emission, index, error)


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
    plan = emission._plan
    LOGGER.debug(
        "%s emitted by %s to %d handlers",
        emission.event,
        type_name(type(emission.sender)),
        len(plan.subscriptions),
    )
    inline = plan.subscriptions[: plan.inline]
    return ((BY_EMISSION, tuple(partial(_call_timed, entry) for entry in inline)),)


def _call_timed(subscription: Subscription, emission: Emission[Any]) -> Any:
    with log_call(subscription, emission) as outcome:
        value = subscription._call(emission)
        outcome.append("skipped" if value is NO_RESULT else "returned")
    return value


def is_debugging() -> bool:
    """Tell whether calls are to be logged."""
    return _known_levels.get(_DEBUG, True) and _is_enabled_for(_DEBUG)


@contextmanager
def log_call(subscription: Subscription, emission: Emission[Any]) -> Iterator[list[str]]:
    """Log a call with its time, at DEBUG, and with what is added to the list."""
    name = handler_name(subscription.handler)
    started = time.perf_counter()
    outcome = ["raised"]
    try:
        yield outcome
    finally:
        elapsed = (time.perf_counter() - started) * 1000
        LOGGER.debug(
            "handler %s of %s %s after %.3f ms", name, emission.event, outcome[-1], elapsed
        )


# Branches


def run_branch(branch: Branch, subscription: Subscription, handler: Any) -> HandlerFailure | None:
    """Call a handler that nobody waits for, in its own context; return its failure, if any."""
    emission: Any = branch.emission
    try:
        if is_debugging():
            with log_call(subscription, emission) as outcome:
                value = subscription._shape.invoke(handler, emission)
                outcome.append("returned")
        else:
            value = subscription._shape.invoke(handler, emission)
    except BaseException as error:  # noqa: BLE001  # there is no emitter to let it through to
        return record_in_branch(branch, error)
    emission._values[branch.index] = keep_value(subscription, handler, value)
    return None


def keep_value(subscription: Subscription, handler: Any, value: Any) -> Any:
    """Return what an emission's values hold for what a handler returned."""
    return Called(handler, value) if subscription.weak else value


def record_in_branch(branch: Branch, error: BaseException) -> HandlerFailure | None:
    """Note what a handler raised in its branch; return the failure, unless it is told already."""
    emission: Any = branch.emission
    failures_of(emission)  # also if it is not told again: `pass_on_broken_chain` looks for it
    failure = None
    if not (isinstance(error, EmissionDepthError) and _is_broken(outermost(branch))):
        failure = _add_failure(emission, branch.index, error, detached=branch.detached)
    # Last, for whoever waits looks at the values.
    emission._values[branch.index] = NO_RESULT
    return failure
