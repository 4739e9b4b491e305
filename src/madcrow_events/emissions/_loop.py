"""The call loops: order, isolation, depth, collection. Pure functions over plans.

`call_all` is the dispatcher's: it isolates each handler from the others. What
it does not call itself, because it is async or runs in the background, is
called in a branch of its own: `_async_loop` and `_background` start those, and
`run_branch` here is what a thread does with one. The loop itself is one frame
with a part for each call style, for speed.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from madcrow_events._other_loops import check_for_awaiting
from madcrow_events._validation import check_complete, misfit_behind
from madcrow_events.emissions._chains import is_broken, nest, outermost, pass_on_broken_chain
from madcrow_events.emissions._failures import HandlerFailure, add_failure, failures_of, is_failure
from madcrow_events.emissions._frames import CURRENT, Branch, Frame, current, surroundings_of
from madcrow_events.emissions._observing import (
    KNOWN_LEVELS,
    is_debugging,
    log_skipped,
    watch,
    watching_handler,
)
from madcrow_events.emissions._outcomes import NO_RESULT, Outcomes
from madcrow_events.emissions._recording import keep_value, record_in_branch
from madcrow_events.emissions._styles import BY_CONTEXT, BY_EMISSION, BY_KEYWORDS, RECORDER
from madcrow_events.exceptions import EmissionDepthError
from madcrow_events.models import BaseEventContext, fill_loose

if TYPE_CHECKING:
    from collections.abc import Mapping

    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.emissions._emission import Emission
    from madcrow_events.signals import EventSignal
    from madcrow_events.subscriptions import Subscription
    from madcrow_events.subscriptions._plan import Plan, Segments

__all__ = [
    "call_all",
    "run_branch",
]


_NO_VALUES: Any = ()

# Bound here, for a method of an imported name is looked up the slow way at every call.
_inherited = CURRENT.get
_enter = CURRENT.set
_leave = CURRENT.reset
_known_levels = KNOWN_LEVELS
_DEBUG = logging.DEBUG


def call_all(  # noqa: C901, PLR0912, PLR0915  # one loop for each call style, in one frame, for speed
    emission: Emission[Any],
    dispatcher: EventDispatcher,
    signal: EventSignal[Any],
    sender: Any,
    payload: Any,
    context: BaseEventContext | None,
    keywords: dict[str, Any] | None,
    awaiting: bool = False,  # noqa: FBT001, FBT002  # a keyword would cost each emission
) -> bool:
    """Call every inline handler of an emission, whatever the others do, and collect the outcome.

    If there are other handlers, the emission has `Outcomes` and `Failures` when
    it returns, and it is for the dispatcher to start them. If a `deferred` block
    holds it back, nobody is called.

    Args:
        emission: the emission, made by the caller; one that was held back comes a second time.
        dispatcher: the policy.
        signal: what is emitted.
        sender: who emits; None for the signal itself.
        payload: the context as it was emitted: a model, or the keywords.
        context: the payload, if it is an instance of the signal's model.
        keywords: the payload, if it is keywords.
        awaiting: whether the emitter awaits the async handlers.

    Returns:
        Whether it is held back; then another thread may have begun with the rest by now.

    Raises:
        EventLoopError: its async handlers cannot be called here; none has been called.
        EmissionDepthError: it, or one below it, is nested too deep.
        QueueFullError: other handlers find no place to wait in; none has been called.
        DispatcherClosedError: nobody would call them any more; none has been called.
        BaseException: what a handler raised that is no `Exception`.
    """
    if sender is None:
        sender = signal
    plan = signal._table.plans.everyone
    if plan is None:
        plan = signal._table.plan_for(sender)
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
        if _is_held_back(emission, inherited, awaiting):
            return True
        if context is not None:
            context = emission._payload
    segments = planned = plan.segments
    values: list[Any]
    if plan.later:
        if awaiting and not plan.queued:
            if plan.inline:  # else nothing has been called when that turns out
                check_for_awaiting(signal.name)
            values = emission._values = Outcomes()
        else:
            values = dispatcher._admission.outcomes_for(emission, awaiting)
            # Made now, for several threads may have failures to note.
            failures_of(emission)
    elif segments:
        emission._values = values = []
    else:
        emission._values = values = _NO_VALUES
    if dispatcher._observers or (_known_levels.get(_DEBUG, True) and is_debugging()):
        watch(emission)
        segments = planned = _watched(plan)
    if not segments:
        return False
    call = token = None
    try:
        token = _enter(emission)
        emission._running = True
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
            except BaseException as error:  # _record lets through what is not a failure
                if not _came_from(call, _after(planned, len(values)), keywords):
                    raise  # between two handlers: a signal handler has raised it
                _record(emission, error)
                segments = _after(planned, len(values))
    finally:
        emission._running = False
        if token is None:  # interrupted as it was entered
            _enter(inherited)  # type: ignore[arg-type]  # None is the same as left empty
        else:
            _leave(token)
    if inherited is not None:
        pass_on_broken_chain(emission)
    return False


def _is_held_back(emission: Emission[Any], inherited: Frame, awaiting: bool) -> bool:  # noqa: FBT001  # as for call_all
    """Give an emission what stands around it; tell whether a `deferred` block holds it back.

    Raises:
        EmissionDepthError: it is nested too deep.
    """
    around = surroundings_of(inherited)
    if around is not None and around is inherited and around.is_forsaken():
        innermost = current()
        if innermost is None:
            return False
        inherited, around = innermost, surroundings_of(innermost)
    if around is not None and (fields := around._known_fields()):
        _fill(emission, fields)
    nest(emission, inherited)
    if around is None or not around._deferrals or emission.signal.is_muted:
        return False
    return any(
        deferral._hold(emission, inherited, awaiting=awaiting)
        for deferral in reversed(around._deferrals)
    )


def _fill(emission: Emission[Any], fields: Mapping[str, str]) -> None:
    """Fill in the fields of an `event_scope` that the emitter left out."""
    payload = emission._payload
    if type(payload) is dict:
        fill_loose(emission.signal.context_model, payload, fields)
        return
    try:
        emission._payload = payload._filled(fields)
    except AttributeError:
        check_complete(emission.event, payload)
        if hasattr(payload, "__pydantic_fields_set__"):
            raise
        # Its `__init__` does not call that of its base, and has given all fields.


def _came_from(call: Any, left: Segments, keywords: dict[str, Any] | None) -> bool:
    """Whether an exception came out of the first of the calls that are left, or its arguments."""
    if not left:
        return False
    style, calls = left[0]
    return calls[0] is call or (style == BY_KEYWORDS and keywords is None)


def _after(segments: Segments, number: int) -> Segments:
    """Return what is left of segments after so many calls."""
    for index, (style, calls) in enumerate(segments):
        if number < len(calls):
            return ((style, calls[number:]), *segments[index + 1 :])
        number -= len(calls)
    return ()


def _record(emission: Emission[Any], error: BaseException) -> None:
    """Note what the inline handler at hand raised, or let it through."""
    if not is_failure(error):
        raise error
    misfit = misfit_behind(emission.event, emission._payload, error)
    if misfit is not None:
        raise misfit
    failures_of(emission).has_failed = True
    # The end of a broken chain has been recorded already, by the outermost emission.
    is_new = not (isinstance(error, EmissionDepthError) and is_broken(outermost(emission)))
    index = len(emission._values)
    emission._values.append(NO_RESULT)
    if is_new:
        add_failure(emission, index, error)


def _watched(plan: Plan) -> Segments:
    """Return the inline calls of a plan, each with its observers around it."""
    if not plan.inline:
        return ()
    calls = tuple(
        entry._call if entry.origin is RECORDER else partial(_call_watched, entry)
        for entry in plan.subscriptions[: plan.inline]
    )
    return ((BY_EMISSION, calls),)


def _call_watched(subscription: Subscription, emission: Emission[Any]) -> Any:
    handler = subscription._admit(emission)
    if handler is None:
        log_skipped(emission, subscription.handler)
        return NO_RESULT
    with watching_handler(emission, handler):
        value = subscription._call_spec.invoke(handler, emission)
    return keep_value(subscription, handler, value)


# Branches


def run_branch(branch: Branch, subscription: Subscription, handler: Any) -> HandlerFailure | None:
    """Call a handler that nobody waits for, in its own context; return its failure, if any."""
    emission: Any = branch.emission
    try:
        with watching_handler(emission, handler):
            value = subscription._call_spec.invoke(handler, emission)
    except BaseException as error:  # noqa: BLE001  # there is no emitter to let it through to
        return record_in_branch(branch, error)
    emission._values[branch.index] = keep_value(subscription, handler, value)
    return None
