"""Calling one handler of one event, as if nothing else were there.

A delivery is an emission with one handler, in a frame of its own: what happens to run around it is
neither its parent nor its cause, and neither fills in its context nor holds anything back. Only
checks of waits know of it, because it waits for the delivery.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from madcrow_events._other_loops import check_for_awaiting
from madcrow_events.emissions._completion import abandon
from madcrow_events.emissions._emission import Emission
from madcrow_events.emissions._frames import (
    CURRENT,
    NO_FIELDS,
    AmbientFrame,
    Branch,
    current,
)
from madcrow_events.emissions._ids import Ids, check_id
from madcrow_events.emissions._lazy_asyncio import load_async_loop
from madcrow_events.emissions._lingering import empty_frames
from madcrow_events.emissions._loop import call_rest, observed_calls
from madcrow_events.emissions._observing import is_observed, start_observing
from madcrow_events.emissions._outcomes import Outcomes
from madcrow_events.emissions._recording import record_in_branch
from madcrow_events.emissions._scopes import merge_scopes
from madcrow_events.exceptions import HandlerCancelledError, InvalidOptionError

if TYPE_CHECKING:
    from uuid import UUID

    from madcrow_events.emissions._plan import Plan
    from madcrow_events.emissions._policy import Policy
    from madcrow_events.signals import EventSignal

__all__ = ["deliver", "deliver_async", "is_awaited", "lose_delivery", "new_delivery"]


def new_delivery(
    policy: Policy,
    signal: EventSignal[Any],
    context: object,
    plan: Plan,
    *,
    sender: object,
    id: UUID | None,  # noqa: A002  # as the attribute of the emission
    correlation_id: UUID | None,
    causation_id: UUID | None,
    scope: Mapping[str, Any] | None,
    attempt: int,
    origin: Mapping[str, str] | None,
) -> Emission:
    """Return the emission of a delivery, whose handler is yet to be called.

    Args:
        policy: the dispatcher.
        signal: the signal of the event.
        context: its context, which fits the signal.
        plan: the call of the handler.
        sender: its sender; None for the signal itself.
        id: its id; None to make one when it is needed.
        correlation_id: the id of the first emission in its chain of causes; None for its own.
        causation_id: the id of the emission that caused it; None if no other did.
        scope: the fields of an `event_scope` for what the handler emits, or None.
        attempt: which call of this handler for this event it is.
        origin: what another service has said of the event, or None.

    Raises:
        InvalidOptionError: an id is no UUID, `event_scope` would refuse a field, the attempt is no
            positive int, or the origin is no mapping of texts.
    """
    frame = AmbientFrame()
    frame.fields = _scope_fields(scope)
    frame.around = current()
    frame.attempt = _checked_attempt(attempt)
    frame.origin = _checked_origin(origin)
    given = {"id": id, "correlation_id": correlation_id, "causation_id": causation_id}
    for option, value in given.items():
        check_id(option, value)
    emission: Emission = Emission()
    emission.signal = signal
    emission.sender = signal if sender is None else sender
    emission.dispatcher = policy  # type: ignore[assignment]  # it implements `Policy`
    emission._outer = emission._ambient = frame
    emission.depth = 0
    emission._plan = plan
    emission._payload = context
    emission._values = Outcomes(plan.pending) if plan.awaited else []
    emission._failures = None
    emission._running = False
    has_root = correlation_id is not None and correlation_id != id
    root = Ids.given(cast("UUID", correlation_id)) if has_root else None
    emission._ids = Ids(root, emission) if id is None else Ids.given(id, root, emission)
    frame.cause = None if causation_id is None else Ids.given(causation_id, root)
    return emission


def _scope_fields(scope: object) -> Mapping[str, str]:
    if scope is None:
        return NO_FIELDS
    if not (isinstance(scope, Mapping) and all(isinstance(name, str) for name in scope)):
        raise InvalidOptionError(
            "scope must be a mapping of the fields of an event_scope, such as "
            "{'request_id': 'r-1'}, or None",
            option="scope",
        )
    return merge_scopes(NO_FIELDS, dict(scope))  # type: ignore[arg-type]  # checked there


def _checked_attempt(attempt: object) -> int:
    if type(attempt) is int and attempt > 0:
        return attempt
    raise InvalidOptionError(
        "attempt must be a positive int, 1 for the first call of the handler", option="attempt"
    )


def _checked_origin(origin: object) -> Mapping[str, str] | None:
    if origin is None:
        return None
    if isinstance(origin, Mapping) and all(
        isinstance(name, str) and isinstance(value, str) for name, value in origin.items()
    ):
        return MappingProxyType(dict(origin))
    raise InvalidOptionError(
        "origin must be a mapping of texts, such as {'source': '/shop', 'id': '17'}, or None",
        option="origin",
    )


def is_awaited(emission: Emission) -> bool:
    """Whether the handler of a delivery is async."""
    return bool(emission._plan.awaited)


def deliver(emission: Emission) -> None:
    """Call the plain handler of a delivery.

    Raises:
        BaseException: the handler raised an exit, such as `KeyboardInterrupt`.
    """
    try:
        _observe(emission)
        _call(emission)
        _end(emission)
    except BaseException as error:
        abandon(emission, error)
        raise
    finally:
        _let_go(emission)
        del emission  # which the traceback of a failure may keep


async def deliver_async(emission: Emission) -> None:
    """Call the handler of a delivery, and await it if it is async.

    Raises:
        EventLoopError: the handler is async, and asyncio does not run here.
        CancelledError: the caller was cancelled, and the handler with it.
        BaseException: the handler raised an exit, such as `KeyboardInterrupt`.
    """
    try:
        if not is_awaited(emission):
            deliver(emission)
            return
        check_for_awaiting(emission.event)
        _observe(emission)
        rest = load_async_loop().start_handlers(emission, None, _end_async)
        if rest is None:
            _end(emission)
        else:
            await rest
    except BaseException as error:
        abandon(emission, error)
        raise
    finally:
        _let_go(emission)
        del emission  # which the traceback of a failure may keep


def lose_delivery(emission: Emission, reason: str) -> None:
    """Report the async handler of a delivery as failed, unless its end is known.

    Args:
        emission: the emission of the delivery, whose event loop has ended.
        reason: the text of the `HandlerCancelledError`.
    """
    if emission.ok and not emission.results:
        record_in_branch(Branch(emission, 0), HandlerCancelledError(reason))
    abandon(emission)
    _let_go(emission)


def _let_go(emission: Emission) -> None:
    """Forget the code that has waited, so that a chain of deliveries keeps no beginning alive."""
    frame: Any = emission._outer
    frame.around = None


def _observe(emission: Emission) -> None:
    policy: Any = emission.dispatcher
    if is_observed(policy):
        start_observing(emission)


def _call(emission: Emission) -> None:
    """Call a plain handler in the frame of the delivery; as `_loop.call_all` does."""
    segments, values = observed_calls(emission._plan), emission._values
    innermost = CURRENT.get(None)
    call = token = failed = None
    try:
        try:
            token = CURRENT.set(emission)
            emission._running = True
            for _, calls in segments:
                for call in calls:
                    values.append(call(emission))
        except BaseException as error:
            failed = error
        if failed is not None:  # outside of the `except`, as in `call_all`
            call_rest(emission, failed, call, segments)
    finally:
        failed = None  # or its traceback, which has this frame, keeps it
        emission._running = False
        if token is None:  # interrupted as it was entered
            CURRENT.set(innermost)  # type: ignore[arg-type]  # None stands for no frame
        else:
            CURRENT.reset(token)


def _end(emission: Emission) -> None:
    """Leave the observers, and break the cycles of the failure, which the caller gets."""
    failed = emission._failures
    if failed is None:
        return
    if failed.observation is not None:
        failed.observation.leave()
    empty_frames([failure.exception for failure in failed.items], Emission)


async def _end_async(emission: Emission) -> None:
    _end(emission)
