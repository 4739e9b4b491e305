"""Completing an emission after its inline handlers, and emitting what a block held back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from madcrow_events.emissions._causes import is_announcement
from madcrow_events.emissions._emission import Emission, raise_failures
from madcrow_events.emissions._failures import Failures, HandlerFailure
from madcrow_events.emissions._frames import CURRENT, await_in_frame
from madcrow_events.emissions._lazy_asyncio import load_async_loop
from madcrow_events.emissions._lingering import empty_all_frames, empty_frames
from madcrow_events.emissions._loop import call_all
from madcrow_events.emissions._outcomes import NO_RESULT, HeldBack, Outcomes
from madcrow_events.emissions._plan import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    from madcrow_events.models import BaseEventContext

__all__ = [
    "abandon",
    "announce",
    "announce_async",
    "break_cycles",
    "complete",
    "complete_async",
    "emit_held_back",
    "emit_held_back_async",
]


def _load_start_handlers(*arguments: object) -> Any:
    """Load `start_handlers`, which imports asyncio, put it in this function's place and call it."""
    global _start_handlers  # noqa: PLW0603  # a function, loaded when first needed
    _start_handlers = load_async_loop().start_handlers
    return _start_handlers(*arguments)


_start_handlers: Callable[..., Any] = _load_start_handlers


def complete(emission: Emission) -> None:
    """Complete an emission whose inline handlers have run: start the later ones, announce failures.

    Raises:
        Exception: a handler failed, and the dispatcher raises failures.
        WouldDeadlockError: waiting for a place in the queue could never end.
    """
    policy: Any = emission.dispatcher
    plan = emission._plan
    if plan.later:
        emission._values.extend(plan.pending)
        policy._admission.start(emission, plan, emission._values)
    failed = emission._failures
    if failed is None:
        return
    # As in `_after_failures`: change both.
    failures = _own_failures(failed)
    if failures:
        policy._announce(emission, failures, None)
    if failed.observation is not None:
        failed.observation.leave()
    if failures:
        raised = break_cycles(emission, failures)
        if raised:
            event = emission.event
            del emission  # the traceback keeps this frame, and so the emission
            try:
                raise_failures(event, raised)
            finally:
                del failures, raised


def complete_async(
    emission: Emission, context: BaseEventContext | None
) -> Coroutine[Any, Any, None] | None:
    """Do as `complete`, for an emitter that awaits the async handlers.

    Args:
        emission: the emission.
        context: its context, if that is an instance of the signal's model.

    Returns:
        A coroutine that the emitter must await; None if nothing is left to do.
    """
    plan = emission._plan
    if not plan.later:
        return _after_failures(emission)
    emission._values.extend(plan.pending)
    if context is not None:
        context = emission._payload  # an `event_scope` may have put another model there
    if plan.queued:
        return _queue_and_join(emission, context)
    left: Coroutine[Any, Any, None] | None = _start_handlers(emission, context, _after_failures)
    if left is None and emission._failures is not None:
        return _after_failures(emission)
    return left


async def _queue_and_join(emission: Emission, context: BaseEventContext | None) -> None:
    policy: Any = emission.dispatcher
    await policy._admission.start_async(emission, emission._plan, emission._values)
    rest = None
    if emission._plan.awaited:
        rest = _start_handlers(emission, context, _after_failures)
    if rest is None and emission._failures is not None:
        rest = _after_failures(emission)
    del emission  # which the traceback of a failure may keep
    if rest is not None:
        await rest


async def _after_failures(emission: Emission) -> None:
    """Announce the failures of an emission, leave its observers, and raise if that is wanted."""
    policy: Any = emission.dispatcher
    failed: Any = emission._failures
    # As in `complete`: change both.
    failures = _own_failures(failed)
    if failures:
        await policy._announce_async(emission, failures, None)
    if failed.observation is not None:
        failed.observation.leave()
    if failures:
        raised = break_cycles(emission, failures)
        if raised:
            event = emission.event
            del emission  # the traceback keeps this frame, and so the emission
            try:
                raise_failures(event, raised)
            finally:
                del failures, raised


def _own_failures(failures: Failures) -> tuple[HandlerFailure, ...]:
    """Return the failures of handlers that the emitter called or awaited."""
    # Copied first: a failure enters `unawaited` before it enters `items`.
    items = tuple(failures.items)
    unawaited = failures.unawaited
    if not unawaited:
        return items
    return tuple(item for item in items if all(item is not other for other in unawaited))


def _raised(emission: Emission, failures: tuple[HandlerFailure, ...]) -> tuple[HandlerFailure, ...]:
    """Return the failures that the emitter gets, because the dispatcher or the handler says so."""
    policy, notes = emission.dispatcher, emission._failures
    if policy is None or policy.on_error == "raise":
        return failures
    # The emitter of an announcement is the dispatcher, which has another failure to raise.
    return notes.raising if notes and notes.raising and not is_announcement(emission) else ()


def break_cycles(
    emission: Emission, failures: Collection[HandlerFailure]
) -> tuple[HandlerFailure, ...]:
    """Break the reference cycle of an emission, its failures and the frames in their tracebacks.

    Returns:
        The failures that the emitter gets.
    """
    raised = _raised(emission, tuple(failures))
    others = failures
    if raised:
        ids = {id(it) for it in raised}
        empty_frames([it.exception for it in failures if id(it) in ids], Emission)
        others = [it for it in failures if id(it) not in ids]
    empty_all_frames(others, Emission)
    return raised


def abandon(emission: Emission | None, error: BaseException | None = None) -> None:
    """Give up the handlers that have not begun; doing so again is no error.

    Args:
        emission: the emission; None if its emitter has deleted its own reference to it already.
        error: the exception that goes through to the emitter; observers get it, too.
    """
    if emission is None:
        return
    values = getattr(emission, "_values", None)
    if isinstance(values, HeldBack):
        values.drop()
    elif isinstance(values, list):
        # If an exception has cut the loop off, the handlers that were not called have no result.
        values.extend([NO_RESULT] * (len(emission._plan.subscriptions) - len(values)))
    if type(values) is Outcomes and emission.dispatcher is not None:
        emission.dispatcher._admission.abandon(emission)
        values.notify()
    failures = getattr(emission, "_failures", None)
    if failures is not None:
        if failures.observation is not None:
            failures.observation.leave(error)
        break_cycles(emission, failures.items)
    if error is not None:
        empty_frames((error,), Emission)


# For jobs, which do not know dispatchers


def announce(
    emission: Emission, failures: tuple[HandlerFailure, ...], batch_size: int | None = None
) -> None:
    """Emit `handler_failed` for each failure of a handler that no emitter waits for.

    Args:
        emission: the emission that it handled; the last one of a batch.
        failures: its failures.
        batch_size: how many emissions its batch had; None for a handler without batches.
    """
    policy: Any = emission.dispatcher
    policy._announce(emission, failures, batch_size)


async def announce_async(
    emission: Emission, failures: tuple[HandlerFailure, ...], batch_size: int | None = None
) -> None:
    """Do as `announce`, where async handlers can be awaited."""
    policy: Any = emission.dispatcher
    await policy._announce_async(emission, failures, batch_size)


# Emissions that a block held back


def emit_held_back(emission: Emission) -> None:
    """Emit an emission that was held back, as `emit` would have."""
    held_back: Any = emission._values
    before, token = CURRENT.get(None), None
    try:
        try:
            token = CURRENT.set(held_back.frame)
            # Not unpacked into variables, which the traceback of a failure would keep.
            if call_all(
                emission,
                emission.dispatcher,  # type: ignore[arg-type]  # only dispatchers hold back
                emission.signal,
                emission.sender,
                *_payload_again(emission),
            ):
                complete(emission)
        finally:  # as in `run_in_frame`
            if token is None:
                CURRENT.set(before)  # type: ignore[arg-type]  # None stands for no frame
            else:
                CURRENT.reset(token)
    except BaseException as error:
        abandon(emission, error)
        raise
    finally:
        _end_holding_back(emission, held_back)
        del emission, held_back  # which the traceback of a failure may keep


async def emit_held_back_async(emission: Emission) -> None:
    """Emit an emission that was held back, as `emit_async` would have."""
    held_back = emission._values
    try:
        await await_in_frame(held_back.frame, _emit_again_async, emission)
    except BaseException as error:
        abandon(emission, error)
        raise
    finally:
        _end_holding_back(emission, held_back)
        del emission, held_back  # which the traceback of a failure may keep


async def _emit_again_async(emission: Emission) -> None:
    payload, context, keywords = _payload_again(emission)
    policy: Any = emission.dispatcher
    try:
        left = call_all(
            emission,
            policy,
            emission.signal,
            emission.sender,
            payload,
            context,
            keywords,
            True,
        )
        if left:
            rest = complete_async(emission, context)
            if rest is not None:
                await rest
    finally:
        del emission  # which the traceback of a failure may keep


def _payload_again(
    emission: Emission,
) -> tuple[Any, BaseEventContext | None, dict[str, Any] | None]:
    """Return payload, context and keywords of an emission that was held back, for `call_all`."""
    payload = emission._payload
    if type(payload) is dict:
        return payload, None, payload
    if type(payload) is emission.signal.context_model:
        return payload, payload, None
    policy: Any = emission.dispatcher
    return (*policy._fit(emission.signal, payload), None)


def _end_holding_back(emission: Emission, held_back: HeldBack) -> None:
    """Clean up after an emission was held back.

    It is dropped if it did not go out, unused permits are released, and waiters are notified.
    """
    if emission._values is held_back:  # no handler was called: it was nested too deep, for example
        emission._plan = NOBODY
        held_back.drop()
    admission = None if emission.dispatcher is None else emission.dispatcher._admission
    if held_back.permits and admission is not None:  # for handlers that no longer exist
        admission.release(held_back.permits)  # type: ignore[arg-type]  # it is a list
    held_back.notify()
