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
from madcrow_events._validation import misfit_behind
from madcrow_events.emissions._chains import is_broken, nest, outermost, pass_on_broken_chain
from madcrow_events.emissions._contexts import context_as, fill, keywords_of
from madcrow_events.emissions._failures import HandlerFailure, add_failure, failures_of, is_failure
from madcrow_events.emissions._frames import CURRENT, Branch, Frame, ambient_frame_of, current
from madcrow_events.emissions._observing import (
    KNOWN_LEVELS,
    is_debugging,
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
    from madcrow_events.emissions._emission import Emission
    from madcrow_events.emissions._plan import Entry, Plan, Segments
    from madcrow_events.emissions._policy import Policy, Signal

__all__ = ["call_all", "run_branch"]

_NO_VALUES: Any = ()

# Bound here, for a method of an imported name is looked up the slow way at every call.
_innermost = CURRENT.get
_enter = CURRENT.set
_leave = CURRENT.reset
_known_levels = KNOWN_LEVELS
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
    """Call every inline handler of an emission, whatever the others do, and collect the outcome.

    If there are other handlers, the emission has `Outcomes` and `Failures` when
    it returns, and `go_on` starts them.

    Args:
        emission: the emission, made by the caller; one that was held back comes a second time.
        policy: the dispatcher.
        signal: what is emitted.
        sender: who emits; None for the signal itself.
        payload: the context as it was emitted: a model, or the keywords.
        context: the payload, if it is an instance of the signal's model.
        keywords: the payload, if it is keywords.
        awaiting: whether the emitter awaits the async handlers.

    Returns:
        Whether handlers are to be started, or failures to be told. For an emission that a block
        holds back that is not so now; another thread may have begun with it.

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
    emission.signal = signal  # type: ignore[assignment]  # which implements `Signal`
    emission.sender = sender
    emission.dispatcher = policy  # type: ignore[assignment]  # which implements `Policy`
    emission._outer = None
    emission.depth = 0
    emission._plan = plan
    emission._payload = payload
    emission._failures = None
    emission._running = False
    innermost = _innermost(None)
    if innermost is not None:
        if _is_held_back(emission, innermost, awaiting):
            return False
        if context is not None:
            context = emission._payload
    segments = planned = plan.segments
    values: list[Any]
    later = plan.later
    if later:
        if awaiting and not plan.queued:
            if plan.inline:  # else nothing has been called when that turns out
                check_for_awaiting(signal.name)
            values = emission._values = Outcomes()
        else:
            values = _admit(emission, policy, plan, awaiting)
            # Made now, for several threads may have failures to note.
            failures_of(emission)
    elif segments:
        emission._values = values = []
    else:
        emission._values = values = _NO_VALUES
    if policy._observers or (_known_levels.get(_DEBUG, True) and is_debugging()):
        start_observing(emission)
        segments = planned = _observed(plan)
    if not segments:
        return later or emission._failures is not None
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
                break
            except BaseException as error:  # _record lets through what is not a failure
                if not _came_from(call, _after(planned, len(values)), keywords):
                    raise  # between two handlers: a signal handler has raised it
                _record(emission, error)
                segments = _after(planned, len(values))
    finally:
        emission._running = False
        if token is None:  # interrupted as it was entered
            _enter(innermost)  # type: ignore[arg-type]  # None is the same as left empty
        else:
            _leave(token)
    if innermost is not None:
        pass_on_broken_chain(emission)
    return later or emission._failures is not None


def _admit(emission: Emission, policy: Policy, plan: Plan, awaiting: bool) -> Outcomes:
    """Return the outcomes of an emission with handlers that run later, which may."""
    held_back = getattr(emission, "_values", None)
    # The emission's from the start, so that no place is lost if this is interrupted.
    outcomes = emission._values = Outcomes()
    try:
        policy._admission.admit(emission, plan, outcomes, held_back, awaiting=awaiting)
    except MadcrowEventsError:
        emission._values = held_back  # which is dropped, if a block has held it back
        raise
    return outcomes


def _is_held_back(emission: Emission, innermost: Frame, awaiting: bool) -> bool:
    """Give an emission what stands around it; tell whether a `deferred` block holds it back.

    Raises:
        EmissionDepthError: it is nested too deep.
    """
    ambient = ambient_frame_of(innermost)
    if ambient is not None and ambient is innermost and ambient.is_cut_off():
        uncut = current()
        if uncut is None:
            return False
        innermost, ambient = uncut, ambient_frame_of(uncut)
    if ambient is not None and (fields := ambient.resolved_fields()):
        fill(emission, fields)
    nest(emission, innermost)
    if ambient is None or not ambient.holders or emission._plan is NOBODY:  # muted
        return False
    return any(
        holder.hold(emission, innermost, awaiting=awaiting) for holder in reversed(ambient.holders)
    )


def _came_from(call: object, left: Segments, keywords: dict[str, Any] | None) -> bool:
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


def _record(emission: Emission, error: BaseException) -> None:
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


def _observed(plan: Plan) -> Segments:
    """Return the inline calls of a plan, each with its observers around it."""
    if not plan.inline:
        return ()
    calls = tuple(
        partial(_call_unobserved if it.subscription.origin is RECORDER else _call_observed, it)
        for it in plan.entries[: plan.inline]
    )
    return ((BY_EMISSION, calls),)


def _call_unobserved(entry: Entry, emission: Emission) -> Any:
    handler = entry.admit(emission)
    return NO_RESULT if handler is None else entry.spec.invoke(handler, emission)


def _call_observed(entry: Entry, emission: Emission) -> Any:
    handler = entry.admit(emission)
    if handler is None:
        log_skipped(emission, entry.subscription.handler)
        return NO_RESULT
    with observing_handler(emission, handler):
        value = entry.spec.invoke(handler, emission)
    return keep_value(entry, handler, value)


# Branches


def run_branch(branch: Branch, entry: Entry, handler: object) -> HandlerFailure | None:
    """Call a handler that nobody waits for, in its own context; return its failure, if any."""
    emission: Any = branch.emission
    try:
        with observing_handler(emission, handler):
            value = entry.spec.invoke(handler, emission)
    except BaseException as error:  # there is no emitter to let it through to
        return record_in_branch(branch, error)
    emission._values[branch.index] = keep_value(entry, handler, value)
    return None
