"""Emitting in the simplest and most frequent cases, in one function.

The emission is inside of no handler, and of no block but `event_scope`. Its handlers all take
keywords, or all take the context; or its only handler is a plain one that runs later.
`emit_the_short_way` does here what `_loop.call_all` and `_completion.complete` do, and leaves out
the questions whose answer is known. In all other cases it does nothing and returns None.

This saves a tenth of an emission to one handler, and a third of one to a handler that runs later.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from madcrow_events._logs import writing
from madcrow_events.emissions._completion import abandon, complete
from madcrow_events.emissions._contexts import fill
from madcrow_events.emissions._emission import Emission
from madcrow_events.emissions._frames import CURRENT, AmbientFrame
from madcrow_events.emissions._loop import call_rest
from madcrow_events.emissions._observing import KNOWN_LEVELS, is_debugging
from madcrow_events.emissions._outcomes import Outcomes
from madcrow_events.models import fill_loose

if TYPE_CHECKING:
    from madcrow_events.emissions._frames import Frame
    from madcrow_events.emissions._policy import Policy, Signal

__all__ = ["emit_the_short_way"]

# As in `_loop`.
_innermost: Any = CURRENT.get
_enter: Any = CURRENT.set
_leave = CURRENT.reset
_DEBUG = logging.DEBUG


def emit_the_short_way(  # noqa: C901, PLR0912  # in one frame, for speed
    policy: Policy, signal: Signal, payload: Any, is_typed: bool
) -> Emission | None:
    """Emit an event to handlers that take its context as it is given, or to one that runs later.

    Args:
        policy: the dispatcher.
        signal: the signal, which is also the sender.
        payload: the context: keywords, or an instance of the signal's model.
        is_typed: whether it is the latter.

    Returns:
        The emission; None if it must go the long way, and nothing has happened.

    Raises:
        BaseException: as for `EventDispatcher.emit` and `emit_typed`.
    """
    plan = signal._table.plans.everyone
    if (
        plan is None
        or ((calls := plan.by_context if is_typed else plan.by_keywords) is None and not plan.alone)
        or policy._observers
        or (KNOWN_LEVELS.get(_DEBUG, True) and is_debugging())
    ):
        return None
    innermost = _innermost(None)
    if innermost is not None and (
        calls is None or (payload := _with_scope_fields(innermost, signal, payload)) is None
    ):
        return None
    emission: Emission = Emission()  # made as at the start of `call_all`: change both
    emission.signal = signal  # type: ignore[assignment]  # as in `call_all`
    emission.sender = signal
    emission.dispatcher = policy  # type: ignore[assignment]  # as in `call_all`
    emission._outer = emission._ambient = innermost
    emission._failures = None
    emission.depth = 0
    emission._plan = plan
    emission._payload = payload
    emission._running = False
    if calls is None:
        return _start_alone(emission, payload, is_typed)
    if not calls:
        emission._values = ()
        return emission
    emission._values = values = []
    call = token = failed = None
    try:
        try:
            try:
                token = _enter(emission)
                emission._running = True
                if is_typed:
                    for call in calls:
                        values.append(call(payload))  # noqa: PERF401  # those before a failure count
                else:
                    for call in calls:
                        values.append(call(signal, **payload))
            except BaseException as error:
                failed = error
            if failed is not None:  # as in `call_all`
                call_rest(emission, failed, call, plan.segments)
        finally:
            failed = None
            emission._running = False
            if token is None:  # interrupted as it was entered
                _enter(innermost)
            else:
                _leave(token)
        if emission._failures is not None:
            complete(emission)  # type: ignore[unreachable]  # a handler may have failed
            # The traceback of a failure keeps what this frame names alive.
            kept, emission = [emission], None  # pyright: ignore[reportAssignmentType]
            return kept.pop()
    except BaseException as error:
        abandon(emission, error)
        emission = None  # type: ignore[assignment]  # or the traceback keeps it
        raise
    return emission


def _start_alone(emission: Emission, payload: object, is_typed: bool) -> Emission | None:
    """Start the only handler of an emission, which runs later; return None if that is not simple.

    Raises:
        BaseException: as for `EventDispatcher.emit`.
    """
    policy: Any = emission.dispatcher
    plan = emission._plan
    outcomes = emission._values = Outcomes(plan.pending)
    try:
        if policy._admission.start_alone(emission, outcomes, plan.alone, payload, is_typed):
            return emission
    except BaseException as error:
        abandon(emission, error)
        del emission  # or the traceback keeps it
        raise
    return None


def _with_scope_fields(innermost: Frame, signal: Signal, payload: Any) -> Any:
    """Return the context with the fields of the scope around it; None if it is more than a scope.

    In the order of `_loop._enter_enclosing`, and without its calls: change both.

    Args:
        innermost: the innermost frame.
        signal: the signal.
        payload: the context.

    Raises:
        BaseException: as for `_loop.call_all`.
    """
    if (
        type(innermost) is not AmbientFrame
        or innermost._outer is not None
        or innermost.holders
        or ((block := innermost.block) is not None and block() is None)  # as `is_cut_off`
        or callable(fields := innermost.fields)  # not asked for yet
        or writing() is not None
    ):
        return None
    if type(payload) is not dict:
        return fill(signal, payload, fields) if fields else payload
    fill_loose(signal.context_model, payload, fields)
    return payload
