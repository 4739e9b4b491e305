"""The frames that handlers run in.

The frame of a handler that the call loop calls is its emission. A handler in a task or thread of
its own has a `Branch`. A block, such as that of `event_scope`, has an `AmbientFrame`, which
encloses the emissions in it. The context variable `CURRENT` has the innermost frame.
"""

from __future__ import annotations

import weakref
from contextvars import ContextVar, Token
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from typing_extensions import TypeVar

from madcrow_events._interrupts import is_interrupt
from madcrow_events._logs import set_frame_getter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from madcrow_events._background.job import Job
    from madcrow_events.emissions._emission import Emission
    from madcrow_events.emissions._ids import Ids
    from madcrow_events.emissions._policy import Policy

__all__ = [
    "CURRENT",
    "NO_FIELDS",
    "AmbientFrame",
    "Branch",
    "Fields",
    "Frame",
    "Holder",
    "ambient_frame_of",
    "await_in_frame",
    "current",
    "emission_of",
    "enclosing",
    "enter",
    "leave",
    "new_ambient_frame",
    "run_in_frame",
    "running",
    "waiting_frames",
]

ReturnedT = TypeVar("ReturnedT")

Fields: TypeAlias = "Mapping[str, str] | Callable[[], Mapping[str, str]]"
"""The fields that `event_scope` fills in, or a function that returns the same each time."""

NO_FIELDS: Mapping[str, str] = MappingProxyType({})

Frame: TypeAlias = "Emission | Branch | AmbientFrame"
"""The emission whose loop calls a handler, the handler's own branch, or a block around these."""

CURRENT: ContextVar[Frame] = ContextVar("madcrow_events.current")
"""The innermost frame of this context; empty outside of all frames."""

set_frame_getter(partial(CURRENT.get, None))


class Holder(Protocol):
    """A block that may hold emissions back until something has succeeded.

    Implemented by the block of `deferred`; called by the loop before the handlers of an emission,
    and by `Emission.wait` and `Emission.wait_async`.
    """

    is_open: bool
    """Whether it holds emissions back now."""

    def is_of(self, policy: Policy | None, /) -> bool:
        """Whether it is for the emissions of that dispatcher."""
        ...

    def hold(self, emission: Emission, frame: Frame, *, awaiting: bool) -> bool:
        """Hold an emission back if the block is open and for its dispatcher; return whether it did.

        Args:
            emission: the emission, none of whose handlers has been called.
            frame: the innermost frame of its emitter.
            awaiting: whether its emitter awaits the async handlers.
        """
        ...

    def holds(self, emission: Emission) -> bool:
        """Whether it holds back that emission now."""
        ...


class AmbientFrame:
    """A frame around emissions that is no handler: a block, or a cause that is over.

    A new one takes over the fields and holders of the ambient frame around it, and skips that frame
    in `_outer`, so an ambient frame is never directly inside of another.
    """

    # No handler, so that a search for the handler that runs goes on outside of it.
    _running: ClassVar[bool] = False

    # Defaults, and no slots, because one is made for each block of a server's requests.
    _outer: Emission | Branch | None = None

    fields: Fields = NO_FIELDS
    """The fields that `event_scope` fills in, or a function that returns the same each time."""

    holders: tuple[Holder, ...] = ()
    """The blocks that may hold emissions back, the innermost last."""

    flushing: tuple[Holder, ...] = ()
    """The blocks that have held the emissions in here back, and now emit them."""

    cause: Ids | None = None
    """The ids of the emission that caused what is emitted in this frame.

    Set where the enclosing handler's emission is not the cause: by `as_cause`, or when the causing
    handler is over; else None.
    """

    attempt: int = 1
    """Which call of the handler a delivery in this frame is."""

    origin: Mapping[str, str] | None = None
    """Where the event of a delivery in this frame came from, if another service has sent it."""

    announced: Emission | None = None
    """The emission whose failure is announced in this frame.

    Held here, so that the handlers of `handler_failed` can read it, in the background, too.
    """

    left: tuple[Frame | None] | None = None
    """Set if this frame was left while a block that began inside of it went on.

    A tuple with the frame to which that block goes back instead.
    """

    before: Frame | None = None
    """The frame that was current when this one was entered."""

    token: Token[Frame] | None = None
    """Resets `CURRENT` to the frame before; None while this frame is not entered."""

    around: Frame | None = None
    """The frame of the code that waits for the end of a delivery, in the frame of that delivery.

    Only checks of waits follow it. It is no frame around the delivery in any other way.
    """

    block: weakref.ref[Any] | None = None
    """The object that the `with` statement entered, until it has left this frame."""

    @property
    def _ambient(self) -> AmbientFrame:
        return self

    def is_cut_off(self) -> bool:
        """Whether the `with` is over, but an interrupted `__exit__` has not left this frame."""
        block = self.block  # another thread may be leaving the frame
        return block is not None and block() is None

    def clean_up(self) -> None:
        """Clean up after an `__exit__` that was interrupted; done once in each context."""
        self.token = None

    def lazy_fields(self) -> Fields:
        """Return the fields for frames inside of this one; a function if they are not known yet."""
        return self.fields

    def resolved_fields(self) -> Mapping[str, str]:
        """Return the fields that `event_scope` fills in; ask for them if they are not known yet."""
        fields = self.fields
        return fields() if callable(fields) else fields


class Branch:
    """The frame of one handler that runs in a task or thread of its own.

    Attributes:
        emission: the emission that is handled; None after an unawaited handler has finished, so
            that a chain of events without end does not keep its beginning.
        index: the handler's place among the subscriptions of the plan.
        unawaited: whether no emitter waits for the handler; its emissions begin a chain.
        broken: whether what is emitted below it is refused: the chain is too deep, or an exception
            for the emitter, such as an exit, has ended the handler.
        is_announcing: whether an unawaited handler handles a `handler_failed`, or what one caused.
        job: the job of an unawaited handler, until its failure is announced.
        task: the handler's task, if earlier handlers may have left tasks behind in this branch.
        others: the branch of all other tasks than that, made when one of them emits.
        unfinished: the unfinished tasks of the emission, for an awaited handler that has suspended.
        ids: the ids of the emission, for an unawaited branch, which may outlive it.
    """

    # Defaults, and no slots, because one is made for nearly every awaited handler.
    unawaited: bool = False
    is_announcing: bool = False
    job: Job | None = None
    task: Any = None
    others: Branch | None = None
    ids: Ids | None = None
    _running: bool = True

    def __init__(self, emission: Emission, index: int) -> None:
        self.emission: Emission | None = emission
        self.index = index
        self._outer: Frame | None = emission._outer
        self._ambient: AmbientFrame | None = emission._ambient
        self.broken: bool = False
        self.unfinished: Any = None

    def is_anothers(self) -> bool:
        """Whether the caller is another task than the handler's own.

        That is one that an earlier handler has left behind, or one that this handler has started.
        """
        if self.task is None:
            return False
        import asyncio  # there is a task, so it is loaded

        try:
            return asyncio.current_task() is not self.task
        except RuntimeError as error:  # in a thread without a loop
            if is_interrupt(error):
                raise
            return False

    def of_others(self) -> Branch:
        """Return the branch for what those other tasks emit."""
        if self.others is None:
            emission: Any = self.emission
            self.others = Branch(emission, self.index)
        return self.others

    def stop(self) -> None:
        """Mark the handler as ended; a thread that it leaves behind is no longer inside of it."""
        self._running = False

    def finish(self) -> None:
        """Do as `stop`, and let the emission go if no emitter waits for the handler."""
        self._running = False
        if self.others is not None:
            self.others._running = False
        if self.unawaited:
            self.emission = None


def waiting_frames() -> Iterator[Frame]:
    """Yield the frames of the present context, the innermost first, for checks of waits.

    Inside of a delivery, the frames of the code that waits for its end follow.
    """
    frame = CURRENT.get(None)
    while frame is not None:
        yield frame
        outer = frame._outer
        frame = frame.around if outer is None and isinstance(frame, AmbientFrame) else outer


def running(frame: Frame | None) -> Frame | None:
    """Return the frame itself or the nearest frame around it that has not finished.

    A task started by a handler inherits the frame in its context, and may outlive it.
    """
    while frame is not None and not frame._running:
        frame = frame._outer
    return frame


def emission_of(frame: Frame) -> Emission | None:
    """Return the emission that is handled in a frame; None for a finished unawaited branch."""
    if isinstance(frame, Branch):
        return frame.emission
    return None if isinstance(frame, AmbientFrame) else frame


def enclosing(frame: Emission | Branch) -> Emission | Branch | None:
    """Return the emission or branch that a frame is nested in, past an ambient frame."""
    outer = frame._outer
    return outer._outer if isinstance(outer, AmbientFrame) else outer


def ambient_frame_of(frame: Frame | None) -> AmbientFrame | None:
    """Return the innermost ambient frame from a frame outwards; it has all that outer ones have."""
    return None if frame is None else frame._ambient


def new_ambient_frame(inner: Frame | None, made: AmbientFrame | None = None) -> AmbientFrame:
    """Return a new ambient frame inside of a frame; it begins with the fields and holders of that.

    Args:
        inner: the frame that encloses it; None outside of all frames.
        made: the object that becomes the ambient frame; made here if left out.
    """
    if made is None:
        made = AmbientFrame()
    if inner is None:
        return made
    if isinstance(inner, AmbientFrame):
        ambient: AmbientFrame | None = inner
        made._outer, made.cause = inner._outer, inner.cause
        if inner.announced is not None:
            made.announced = inner.announced
    else:
        ambient = ambient_frame_of(inner)
        made._outer = inner
    if ambient is not None:
        made.fields = ambient.lazy_fields()
        made.holders, made.flushing = ambient.holders, ambient.flushing
    return made


def current() -> Frame | None:
    """Return the innermost frame of this context, past blocks that an interrupt has cut off."""
    frame = CURRENT.get(None)
    while isinstance(frame, AmbientFrame) and frame.is_cut_off():
        cut_off, frame = frame, _entered(frame.before)
        CURRENT.set(frame)  # type: ignore[arg-type]  # None stands for no frame
        cut_off.clean_up()
    return frame


def _entered(frame: Frame | None) -> Frame | None:
    """Return the frame; if it has been left already, the frame that replaced it."""
    while isinstance(frame, AmbientFrame) and frame.left is not None:
        (frame,) = frame.left
    return frame


def enter(frame: AmbientFrame, block: object) -> None:
    """Make a frame the innermost one of this context.

    Args:
        frame: the frame.
        block: the object that the `with` statement keeps alive until it ends.
    """
    frame.before = before = CURRENT.get(None)
    frame.block = weakref.ref(block)
    try:
        frame.token = CURRENT.set(frame)
    except BaseException:  # interrupted as it was entered
        CURRENT.set(before)  # type: ignore[arg-type]  # None stands for no frame
        frame.clean_up()
        raise


def leave(frame: AmbientFrame) -> None:
    """Undo an `enter`, in any order, and as far as possible in another context.

    A generator runs in the context of the code that asks for its next value. So a block in it may
    end in another context than it began in, or before a block that began later.
    """
    try:
        back, token = frame.before, frame.token
        if token is None:
            return
        current = CURRENT.get(None)
        try:
            CURRENT.reset(token)
        except ValueError:  # entered in another context
            pass
        except RuntimeError as error:  # reset already, by a call that was interrupted after it
            if is_interrupt(error):
                raise
            frame.token = frame.block = None
            return
        else:
            if current is frame and not (isinstance(back, AmbientFrame) and back.left):
                frame.token = frame.block = None
                return  # the usual case: the last block to begin ends first
        back = _entered(back)
        if current is not frame:
            # A block that began inside of this one goes on; at its end it must not restore this
            # one.
            frame.left = (back,)
            back = _entered(current)
        if back is not CURRENT.get(None):
            CURRENT.set(back)  # type: ignore[arg-type]  # None stands for no frame
        frame.token = frame.block = None
    except BaseException:
        leave(frame)  # once more, because it was interrupted
        raise


def run_in_frame(
    frame: AmbientFrame, function: Callable[..., ReturnedT], *arguments: object
) -> ReturnedT:
    """Call a function in a frame; return its result."""
    before, token = CURRENT.get(None), None
    try:
        token = CURRENT.set(frame)
        return function(*arguments)
    finally:
        if token is None:  # interrupted as it was entered
            CURRENT.set(before)  # type: ignore[arg-type]  # None stands for no frame
        else:
            CURRENT.reset(token)
        del arguments  # the traceback of a failure would keep them


async def await_in_frame(
    frame: AmbientFrame, function: Callable[..., Awaitable[ReturnedT]], *arguments: object
) -> ReturnedT:
    """Call an async function in a frame and await it; return its result."""
    before, token = CURRENT.get(None), None
    try:
        token = CURRENT.set(frame)
        return await function(*arguments)
    finally:
        try:
            if token is None:
                CURRENT.set(before)  # type: ignore[arg-type]  # None stands for no frame
            else:
                CURRENT.reset(token)
        except ValueError:  # the coroutine is closed in another context, with its loop
            pass
        del arguments  # the traceback of a failure would keep them
