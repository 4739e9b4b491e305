"""The async call loop: handlers that are awaited, each in a task of its own.

It imports asyncio, and so it is loaded only when the first async handler is called. Each way of
calling a handler has its own frame, for speed.
"""

from __future__ import annotations

import asyncio
import math
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from madcrow_events._clock import calling_later, is_frozen
from madcrow_events._other_loops import event_loop_error, other_library
from madcrow_events._validation import misfit_behind
from madcrow_events.emissions._chains import outermost, pass_on_broken_chain
from madcrow_events.emissions._contexts import context_as, keywords_of
from madcrow_events.emissions._failures import HandlerFailure, failures_of
from madcrow_events.emissions._frames import CURRENT, Branch, emission_of
from madcrow_events.emissions._observing import log_skipped, observing_handler
from madcrow_events.emissions._outcomes import NO_RESULT, PENDING, Outcomes
from madcrow_events.emissions._recording import keep_value, record_in_branch
from madcrow_events.emissions._styles import BY_CONTEXT, BY_KEYWORDS, BY_OPTIONS
from madcrow_events.emissions._unfinished import (
    Unfinished,
    keep_exit,
    keep_interrupt,
    record,
    record_unbegun_task,
)
from madcrow_events.exceptions import HandlerTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from madcrow_events.emissions._emission import Emission
    from madcrow_events.emissions._plan import Entry, Segments
    from madcrow_events.models import BaseEventContext

__all__ = ["await_branch", "await_in_time", "start_handlers"]

_SIDE_BY_SIDE = 512
"""How many handlers of events that cause themselves run side by side in a chain.

The number is halved with each level, and is 8 at least.

Beyond this number an emission awaits its handlers one after the other. Two handlers that each emit
their own event double at every level. This way they end at the 64th level, having taken 37 MiB. If
all of them ran side by side, they would take 3 GiB and crash the process long before.
"""

_innermost = CURRENT.get
_enter = CURRENT.set
_leave = CURRENT.reset
_Task = asyncio.Task
_modules = sys.modules
_get_running_loop = asyncio._get_running_loop
_EAGERLY: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


def start_handlers(
    emission: Emission,
    context: BaseEventContext | None,
    after_failures: Callable[[Emission], Coroutine[Any, Any, None]],
) -> Coroutine[Any, Any, None] | None:
    """Start the awaited handlers of an emission in order; those of a nested one as it is awaited.

    Args:
        emission: the emission, whose inline handlers have run.
        context: its context, if that is an instance of the signal's model.
        after_failures: awaited at the end of the coroutine, if a handler has failed.

    Returns:
        A coroutine that the emitter must await; None if all handlers are done. A nested emission
        always has one, because its handlers may have to wait for each other.

    Raises:
        ContextValidationError: the emitter gave an incomplete context.
        BaseException: a handler raised an exit, such as `KeyboardInterrupt`.
    """
    if emission.depth:
        return _join(emission, _await_nested(emission, context), after_failures)
    unfinished = _start(emission, context, emission._plan.to_await, emission._plan.inline)
    if unfinished is not None:
        return _join(emission, unfinished.join(), after_failures)
    if emission._values._waiters is not None:
        emission._values.notify()
    return None


async def _join(
    emission: Emission,
    joining: Coroutine[Any, Any, None],
    after_failures: Callable[[Emission], Coroutine[Any, Any, None]],
) -> None:
    """Await the handlers of an emission that have suspended.

    Raises:
        CancelledError: the emitter was cancelled, and the handlers with it.
        EmissionDepthError: the emission belongs to a chain that is too deep.
        ContextValidationError: the emitter gave an incomplete context.
        BaseException: a handler raised an exit, such as `KeyboardInterrupt`.
    """
    values = emission._values
    await joining
    if values.exit is not None:
        raise values.exit  # its emitter abandons the handlers that have not begun
    if values._waiters is not None:
        values.notify()
    if emission._failures is not None:
        rest = after_failures(emission)
        del emission  # which the traceback of a failure may keep
        await rest


def _start(  # noqa: C901, PLR0912, PLR0915  # one loop for all styles, in one frame, for speed
    emission: Emission,
    context: BaseEventContext | None,
    segments: Segments,
    index: int,
) -> Unfinished | None:
    """Start handlers in order, each in its task; return those that have not finished at once.

    Args:
        emission: the emission that they handle.
        context: its context, if that is an instance of the signal's model.
        segments: their calls.
        index: the place of the first handler among the emission's values.

    Raises:
        ContextValidationError: the emitter gave an incomplete context.
        BaseException: a handler raised an exit, and none has suspended.
        EventLoopError: asyncio does not run here.
    """
    loop = _get_running_loop()
    if loop is None:
        raise event_loop_error(emission.event, other_library())
    if "trio" in _modules and other_library():  # as a guest in the thread of an asyncio loop
        raise event_loop_error(emission.event, "trio")
    values, sender = emission._values, emission.sender
    unfinished: Unfinished | None = None
    if emission._failures is not None and emission._failures.observation is not None:
        number = sum(len(calls) for _, calls in segments)
        entries: tuple[Any, ...] = emission._plan.entries[index : index + number]
        segments = ((BY_OPTIONS, entries),)
    # In a dictionary, because a class takes them fastest. With a name, because asyncio takes time
    # to make one up.
    make: Any = _Task
    options = {"loop": loop, "name": emission.signal.name, **_EAGERLY}
    if loop.get_task_factory() is not None:
        # The application's task factory is to make these tasks, too.
        make, options = loop.create_task, {"name": emission.signal.name}
    branch = Branch(emission, index)
    first = index
    innermost = _innermost(None)
    is_used = False
    argument: Any
    token = None
    try:
        token = _enter(branch)
        for style, calls in segments:
            run: Any = _with_argument
            if style == BY_KEYWORDS:
                run, argument = _with_keywords, keywords_of(emission)
            elif style == BY_OPTIONS:
                run, argument = _with_options, emission
            elif style != BY_CONTEXT:
                argument = emission
            elif context is not None:
                argument = context
            else:
                run, argument = _with_model, emission
            for call in calls:
                # Handlers that finish at once share a branch: each ends before the next begins.
                if is_used:
                    branch = Branch(emission, index)
                    first = index
                    _enter(branch)
                branch.index = index
                index += 1
                running = run(call, sender, argument, values, branch)
                task = make(running, **options)
                if task.done():
                    if values[branch.index] is PENDING:
                        record_unbegun_task(values, branch, task)
                    is_used = branch.broken
                    if is_used:
                        branch.finish()  # a task that the handler left behind begins a chain
                        if values.exit is not None:
                            break
                    continue
                if unfinished is None:
                    unfinished = Unfinished(emission, loop)
                if first != branch.index:
                    branch.task = task
                branch.unfinished = unfinished
                unfinished.left += 1
                unfinished.started.append((task, branch))
                is_used = True
            else:
                continue
            break
        if not is_used:
            branch._running = False
    except BaseException as error:
        if unfinished is not None:
            keep_exit(values, error)  # so that the handlers know whose cancellation it is
            unfinished.cancel()
            values.loop = None
        misfit = misfit_behind(emission.event, emission._payload, error)
        if misfit is not None:
            raise misfit from None
        raise
    finally:
        if token is None:  # interrupted as it was entered
            _enter(innermost)  # type: ignore[arg-type]  # None stands for no frame
        else:
            _leave(token)
    if unfinished is not None:
        unfinished.have_begun = "eager_start" in options
    elif is_used and values.exit is not None:
        raise values.exit
    return unfinished


# The coroutines of the tasks. They call the handler themselves, so that a task which is cancelled
# before it begins leaves no coroutine behind. Each style has its own, because one more frame would
# take time.


async def _with_keywords(
    call: Any, sender: Any, keywords: dict[str, Any], values: Outcomes, branch: Branch
) -> None:
    try:
        try:
            values[branch.index] = await call(sender, **keywords)
        except BaseException as error:  # _record keeps an exit for the emitter
            record(values, branch, error)
        if branch.unfinished is not None:
            branch.unfinished.leave(branch)
    except BaseException as error:  # raised again to the emitter
        keep_interrupt(values, branch, error)


async def _with_argument(
    call: Any, _sender: object, argument: Any, values: Outcomes, branch: Branch
) -> None:
    try:
        try:
            values[branch.index] = await call(argument)
        except BaseException as error:
            record(values, branch, error)
        if branch.unfinished is not None:
            branch.unfinished.leave(branch)
    except BaseException as error:  # raised again to the emitter
        keep_interrupt(values, branch, error)


async def _with_model(
    call: Any, _sender: object, emission: Emission, values: Outcomes, branch: Branch
) -> None:
    try:
        try:
            values[branch.index] = await call(context_as(emission.signal._models, emission))
        except BaseException as error:
            record(values, branch, error)
        if branch.unfinished is not None:
            branch.unfinished.leave(branch)
    except BaseException as error:  # raised again to the emitter
        keep_interrupt(values, branch, error)


async def _with_options(
    entry: Entry,
    _sender: object,
    emission: Emission,
    values: Outcomes,
    branch: Branch,
) -> None:
    try:
        try:
            values[branch.index] = await _await_by_options(entry, emission)
        except BaseException as error:
            record(values, branch, error)
        if branch.unfinished is not None:
            branch.unfinished.leave(branch)
    except BaseException as error:  # raised again to the emitter
        keep_interrupt(values, branch, error)


async def _await_nested(emission: Emission, context: BaseEventContext | None) -> None:
    """Await the handlers of an emission that was made by a handler of another emission."""
    plan = emission._plan
    root: Any = emission_of(outermost(emission))
    root_notes = failures_of(root)
    counted = plan.awaited if _causes_itself(emission) else 0
    root_notes.nested += counted
    rounds: list[Segments] = [plan.to_await]
    if counted and root_notes.nested > max(8, _SIDE_BY_SIDE >> emission.depth):
        rounds = [((style, (call,)),) for style, calls in plan.to_await for call in calls]
    index = plan.inline
    try:
        for segments in rounds:
            unfinished = _start(emission, context, segments, index)
            if unfinished is not None:
                await unfinished.join()
            if emission._values.exit is not None:
                return
            index += 1  # if there are several rounds, each has one call
    finally:
        root_notes.nested -= counted
    pass_on_broken_chain(emission)


def _causes_itself(emission: Emission) -> bool:
    ancestor = emission.parent
    while ancestor is not None and ancestor.signal is not emission.signal:
        ancestor = ancestor.parent
    return ancestor is not None


async def _await_by_options(entry: Entry, emission: Emission) -> Any:
    """Await a handler, as the options of its subscription say; return the value to keep for it."""
    handler = entry.admit(emission)
    if handler is None:
        log_skipped(emission, entry.subscription)
        return NO_RESULT
    with observing_handler(emission, handler):
        value = await _await_with_timeout(entry, handler, emission)
    return keep_value(entry, handler, value)


async def await_in_time(
    entry: Entry,
    handler: object,
    emission: Emission,
    batch: list[Any] | None = None,
) -> Any:
    """Await an async handler, cancelled after its timeout.

    Args:
        entry: the handler's entry in the plan.
        handler: the handler.
        emission: the emission that it handles; the last one of a batch.
        batch: the items of a batch; None for a handler that takes one emission.

    Raises:
        HandlerTimeoutError: the handler took longer.
        Exception: the handler raised it.
    """
    with observing_handler(emission, handler):
        return await _await_with_timeout(entry, handler, emission, batch)


async def _await_with_timeout(
    entry: Entry,
    handler: object,
    emission: Emission,
    batch: list[Any] | None = None,
) -> Any:
    spec = entry.spec
    if batch is None:
        coroutine = spec.invoke(handler, emission)
    else:
        coroutine = spec.invoke_batch(handler, batch)
    seconds = entry.subscription.timeout
    if seconds is None:
        return await coroutine
    cause: Exception | None = None
    value = None
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            if is_frozen():
                with calling_later(
                    asyncio.get_running_loop(), seconds, partial(limit.reschedule, -math.inf)
                ):
                    value = await coroutine
            else:
                value = await coroutine
    except Exception as error:
        if not limit.expired():
            raise
        cause = error
    if limit.expired():  # even if the handler swallowed the cancellation and returned
        raise HandlerTimeoutError(
            f"{emission.name_of(handler)} of {emission.event} took longer than its timeout of "
            f"{seconds} s, and was cancelled",
            event=emission.event,
            handler=handler,
            timeout=seconds,
        ) from cause
    return value


async def await_branch(branch: Branch, entry: Entry, handler: object) -> HandlerFailure | None:
    """Await a handler that no emitter waits for, in its own context; return its failure, if any."""
    emission: Any = branch.emission
    try:
        value = await await_in_time(entry, handler, emission)
    except GeneratorExit:
        raise
    except BaseException as error:  # no emitter is there to raise it to
        return record_in_branch(branch, error)
    emission._values[branch.index] = keep_value(entry, handler, value)
    return None
