"""The call loop of a dispatcher: inline handlers in order, each isolated from the others.

`call_all` leaves the later handlers to others: `_async_loop` starts async handlers that the emitter
awaits, `_background` all the rest, which `run_branch` calls in a thread. The loop is one stack
frame with a part for each call style, for speed.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from madcrow_events._other_loops import check_for_awaiting
from madcrow_events._validation import misfit_behind
from madcrow_events.emissions._chains import is_broken, nest, outermost, pass_on_broken_chain
from madcrow_events.emissions._contexts import context_as, fill, keywords_of
from madcrow_events.emissions._failures import (
    HandlerFailure,
    add_failure,
    failures_of,
    is_failure,
)
from madcrow_events.emissions._frames import (
    CURRENT,
    AmbientFrame,
    Branch,
    Frame,
    ambient_frame_of,
    current,
)
from madcrow_events.emissions._observing import (
    KNOWN_LEVELS,
    is_debugging,
    is_observed,
    log_skipped,
    observing_handler,
    start_observing,
)
from madcrow_events.emissions._outcomes import NO_RESULT, Outcomes
from madcrow_events.emissions._plan import NOBODY
from madcrow_events.emissions._recording import keep_value, record_in_branch
from madcrow_events.emissions._styles import BY_CONTEXT, BY_EMISSION, BY_KEYWORDS, RECORDER
from madcrow_events.exceptions import EmissionDepthError, MadcrowEventsError
from madcrow_events.models import BaseEventContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from madcrow_events.emissions._emission import Emission
    from madcrow_events.emissions._plan import Entry, Plan, Segments
    from madcrow_events.emissions._policy import Policy, Signal

__all__ = ["call_all", "call_rest", "observed_calls", "run_branch"]

_NO_VALUES: Any = ()

# Bound here, because looking up a method of an imported name takes time at every call.
_innermost = CURRENT.get
_enter = CURRENT.set
_leave = CURRENT.reset
_DEBUG = logging.DEBUG


def call_all(  # noqa: C901, PLR0912, PLR0915  # one loop for each call style, in one frame, for speed
    emission: Emission,
    policy: Policy,
    signal: Signal,
    sender: object,
    payload: object,
    context: BaseEventContext | None,
    keywords: dict[str, Any] | None,
    awaiting: bool = False,  # a keyword would cost each emission
) -> bool:
    """Call all inline handlers of an emission, even if some fail, and collect the outcome.

    If it has other handlers, it has `Outcomes` when this returns; `complete` or `complete_async`
    starts them.

    Args:
        emission: the emission, made by the caller; an emission that was held back comes twice.
        policy: the dispatcher.
        signal: the signal of the emission.
        sender: its sender; None for the signal itself.
        payload: its context as it was emitted: a model, or the keywords.
        context: the payload, if it is an instance of the signal's model.
        keywords: the payload, if it is keywords.
        awaiting: whether the emitter awaits the async handlers.

    Returns:
        Whether handlers are left to be started, or failures to be announced. False for an emission
        that a block holds back: another thread may be emitting it already.

    Raises:
        EventLoopError: its async handlers cannot be called here; no handler has been called.
        EmissionDepthError: it is nested too deep, or an emission below it is.
        QueueFullError: the queue has no place for its other handlers; no handler has been called.
        DispatcherClosedError: its other handlers can no longer run; no handler has been called.
        ContextValidationError: the emitter gave an incomplete context; the handlers after the one
            that failed for it have not been called.
        BaseException: a handler raised an exit, such as `KeyboardInterrupt`.
    """
    if sender is None:
        sender = signal
    plan = signal._table.plans.everyone
    if plan is None:
        plan = signal._table.plan_for(sender)
    # As in `_short_way`, for the emissions that never come here: change both.
    emission.signal = signal  # type: ignore[assignment]  # it implements `Signal`
    emission.sender = sender
    emission.dispatcher = policy  # type: ignore[assignment]  # it implements `Policy`
    emission._outer = emission._ambient = None
    emission.depth = 0
    emission._plan = plan
    emission._payload = payload
    emission._failures = None
    emission._running = False
    innermost = _innermost(None)
    if innermost is not None:
        if _enter_enclosing(emission, innermost, awaiting):
            return False
        if context is not None:
            context = emission._payload  # perhaps a copy, in which `fill` has completed it
    segments = plan.segments
    values: list[Any]
    later = plan.later
    if later:
        if awaiting and not plan.queued:
            if plan.inline:  # else `start_handlers` finds out, before any handler is called
                check_for_awaiting(signal.name)
            values = emission._values = Outcomes()
        else:
            values = _admit(emission, policy, plan, awaiting)
    elif segments:
        emission._values = values = []
    else:
        emission._values = values = _NO_VALUES
    if policy._observers or (KNOWN_LEVELS.get(_DEBUG, True) and is_debugging()):
        start_observing(emission)
        segments = observed_calls(plan)
    if not segments:
        return later or emission._failures is not None
    call = token = failed = None
    try:
        try:
            token = _enter(emission)
            emission._running = True
            # One try around the loops, not one in each: only a failure pays for its isolation.
            for style, calls in segments:
                if style == BY_KEYWORDS:
                    if keywords is None:
                        call = keywords_of
                        keywords = keywords_of(emission)
                    for call in calls:
                        values.append(call(sender, **keywords))
                elif style == BY_CONTEXT and context is not None:
                    for call in calls:
                        values.append(call(context))
                elif style == BY_CONTEXT:
                    for call in calls:
                        values.append(call(context_as(signal._models, emission)))
                else:
                    for call in calls:
                        values.append(call(emission))
        except BaseException as error:
            failed = error
        if failed is not None:  # outside of the `except`, which the next handlers would see
            call_rest(emission, failed, call, segments)
    finally:
        failed = None  # or its traceback, which has this frame, keeps it
        emission._running = False
        if token is None:  # interrupted as it was entered
            _enter(innermost)  # type: ignore[arg-type]  # None stands for no frame
        else:
            _leave(token)
    if innermost is not None:
        pass_on_broken_chain(emission)
    return later or emission._failures is not None


def _admit(emission: Emission, policy: Policy, plan: Plan, awaiting: bool) -> Outcomes:
    """Have the later handlers of an emission admitted; return its outcomes.

    Raises:
        MadcrowEventsError: as for `Admission.admit`.
    """
    held_back = getattr(emission, "_values", None)
    # Stored at once, so that no permit is lost if this is interrupted.
    outcomes = emission._values = Outcomes()
    try:
        policy._admission.admit(emission, plan, outcomes, held_back, awaiting=awaiting)
    except MadcrowEventsError:
        emission._values = held_back  # which `emit_held_back` then drops
        raise
    return outcomes


def _enter_enclosing(emission: Emission, innermost: Frame, awaiting: bool) -> bool:
    """Put an emission into the frames around it; return whether a `deferred` block holds it back.

    In this order: leave blocks that an interrupt has cut off, fill in the fields of the scope, nest
    the emission in its frames, and ask the blocks, the innermost first.

    Raises:
        EmissionDepthError: the emission is nested too deep.
    """
    # In `_short_way._with_scope_fields`, too, for an emission in a scope only: change both.
    # As by `ambient_frame_of`, without its calls.
    ambient = innermost if isinstance(innermost, AmbientFrame) else innermost._ambient
    if ambient is not None and ambient is innermost and ambient.is_cut_off():
        uncut = current()
        if uncut is None:
            return False
        innermost, ambient = uncut, ambient_frame_of(uncut)
    if ambient is not None and (fields := ambient.resolved_fields()):
        emission._payload = fill(emission.signal, emission._payload, fields)
    nest(emission, innermost)
    if ambient is None or not ambient.holders:
        return False
    if emission._plan is NOBODY:  # it is muted: nothing is to be called later either
        return False
    for holder in reversed(ambient.holders):  # `any` takes longer
        if holder.hold(emission, innermost, awaiting=awaiting):
            return True
    return False


def call_rest(emission: Emission, error: BaseException, call: object, segments: Segments) -> None:
    """Record the failure of an inline handler, and call the handlers after it.

    Args:
        emission: the emission; its frame runs.
        error: what was raised.
        call: what was called last, or None.
        segments: the inline calls of the emission, of which some have an outcome.

    Raises:
        BaseException: the error, which is no failure of that handler; or that of a later one.
    """
    values = emission._values
    while True:
        left = _after(segments, len(values))
        if not _came_from(call, left):
            raise error  # an interrupt, such as Ctrl-C, between two handlers
        _record(emission, error)
        try:
            for style, calls in _after(left, 1):
                for call in calls:  # noqa: PLR1704  # what was called last
                    values.append(_call_as(style, call, emission))
        except BaseException as another:
            error = another
        else:
            return


def _call_as(style: int, call: Callable[..., Any], emission: Emission) -> Any:
    if style == BY_KEYWORDS:
        return call(emission.sender, **keywords_of(emission))
    if style == BY_CONTEXT:
        return call(context_as(emission.signal._models, emission))
    return call(emission)


def _came_from(call: object, left: Segments) -> bool:
    """Whether an exception came out of the first call that is left, or from its arguments.

    A call that has returned has its value in the emission, and so is no longer left. If what was
    called last is not the first one left, an interrupt of the process came between two calls.
    """
    if not left:
        return False
    _, calls = left[0]
    return calls[0] is call or call is keywords_of


def _after(segments: Segments, number: int) -> Segments:
    """Return the calls that are left after the first `number`."""
    if not number:
        return segments
    for index, (style, calls) in enumerate(segments):
        if number < len(calls):
            return ((style, calls[number:]), *segments[index + 1 :])
        number -= len(calls)
    return ()


def _record(emission: Emission, error: BaseException) -> None:
    """Note the failure of the current inline handler; raise any other exception again.

    Raises:
        ContextValidationError: the handler failed because the emitter gave an incomplete context.
        BaseException: it raised an exit.
    """
    if not (isinstance(error, Exception) or is_failure(error)):
        raise error
    if type(emission._payload) is not dict:
        misfit = misfit_behind(emission.event, emission._payload, error)
        if misfit is not None:
            raise misfit
    failures_of(emission).has_failed = True
    # The outermost emission has recorded the end of a broken chain already.
    is_new = not (issubclass(type(error), EmissionDepthError) and is_broken(outermost(emission)))
    index = len(emission._values)
    emission._values.append(NO_RESULT)
    if is_new:
        add_failure(emission, index, error)


def observed_calls(plan: Plan) -> Segments:
    """Return the inline calls of a plan, each of which enters the observers."""
    if not plan.inline:
        return ()
    calls = tuple(
        partial(_call_unobserved if it.subscription.origin is RECORDER else _call_observed, it)
        for it in plan.entries[: plan.inline]
    )
    return ((BY_EMISSION, calls),)


def _call_unobserved(entry: Entry, emission: Emission) -> Any:
    """Call a recorder of tests, which observers are not told of."""
    handler = entry.admit(emission)
    return NO_RESULT if handler is None else entry.spec.invoke(handler, emission)


def _call_observed(entry: Entry, emission: Emission) -> Any:
    handler = entry.admit(emission)
    if handler is None:
        log_skipped(emission, entry.subscription)
        return NO_RESULT
    with observing_handler(emission, handler):
        value = entry.spec.invoke(handler, emission)
    return keep_value(entry, handler, value)


# Branches


def run_branch(branch: Branch, entry: Entry, handler: object) -> HandlerFailure | None:
    """Call a handler that no emitter waits for, in its branch; return its failure, if any."""
    emission: Any = branch.emission
    try:
        if is_observed(emission.dispatcher):
            with observing_handler(emission, handler):
                value = entry.spec.invoke(handler, emission)
        else:
            value = entry.spec.invoke(handler, emission)
    except BaseException as error:  # no emitter is there to raise it to
        return record_in_branch(branch, error)
    emission._values[branch.index] = keep_value(entry, handler, value)
    return None
