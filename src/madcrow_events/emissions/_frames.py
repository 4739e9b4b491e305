"""The frames that handlers run in.

A handler that the call loop calls runs in its emission; one that runs in a
task or thread of its own runs in a `Branch`; what a block adds to emissions
stands around them in `AmbientFrame`. The context variable `CURRENT` holds the
innermost frame.
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
    "frames",
    "leave",
    "new_ambient_frame",
    "run_in_frame",
    "running",
]

ReturnedT = TypeVar("ReturnedT")

Fields: TypeAlias = "Mapping[str, str] | Callable[[], Mapping[str, str]]"
"""What `event_scope` fills in, or what returns it, the same each time."""

NO_FIELDS: Mapping[str, str] = MappingProxyType({})

Frame: TypeAlias = "Emission | Branch | AmbientFrame"
"""What a handler runs in: the emission whose loop calls it, or a branch of its own; and what
stands around those."""

CURRENT: ContextVar[Frame] = ContextVar("madcrow_events.current")
"""The innermost frame of this context; left empty outside of any."""

set_frame_getter(partial(CURRENT.get, None))


class Holder(Protocol):
    """What may hold emissions back until something has succeeded.

    Implemented by the block of `deferred`; called by the loop before the handlers of an emission,
    and by who waits for one.
    """

    is_open: bool
    """Whether it holds back what is emitted now."""

    def is_of(self, policy: Policy | None, /) -> bool:
        """Whether it is for what goes through a dispatcher."""
        ...

    def hold(self, emission: Emission, frame: Frame, *, awaiting: bool) -> bool:
        """Hold an emission back; return whether it is one of those that the holder is for.

        Args:
            emission: the emission, none of whose handlers has been called.
            frame: the innermost frame of its emitter.
            awaiting: whether its emitter awaits the async handlers.
        """
        ...

    def holds(self, emission: Emission) -> bool:
        """Whether it holds that emission back now."""
        ...


class AmbientFrame:
    """What stands around emissions without being a handler: a block, or a cause that is over.

    One holds all that outer ones held, and so is never directly inside of another.
    """

    # Nothing runs in it, so that who looks for what runs looks further out.
    _running: ClassVar[bool] = False

    # Defaults, and no slots, because one is made for each block of a server's requests.
    _outer: Emission | Branch | None = None

    fields: Fields = NO_FIELDS
    """What `event_scope` fills in, or what returns it, the same each time."""

    holders: tuple[Holder, ...] = ()
    """The blocks that may hold emissions back, the innermost last."""

    flushing: tuple[Holder, ...] = ()
    """The blocks that have held back what is emitted in them now."""

    cause: Ids | None = None
    """The ids of the emission that caused those in here, if that is not the enclosing frame."""

    left: tuple[Frame | None] | None = None
    """What it was entered in, alone in a tuple, if it was left before a block that began in it."""

    before: Frame | None = None
    """What it was entered in."""

    token: Token[Frame] | None = None
    """What undoes the entering; None outside of it."""

    block: weakref.ref[Any] | None = None
    """The block that a `with` has entered it by, as long as that has not left it."""

    def is_cut_off(self) -> bool:
        """Whether the `with` of its block is over, though its `__exit__` was interrupted."""
        return self.block is not None and self.block() is None

    def clean_up(self) -> None:
        """Clean up where `__exit__` could not."""
        self.token = self.block = None

    def lazy_fields(self) -> Fields:
        """Return what `event_scope` fills in, for what stands inside; it is not asked for yet."""
        return self.fields

    def resolved_fields(self) -> Mapping[str, str]:
        """Return what `event_scope` fills in, asked for now if it was not known before."""
        fields = self.lazy_fields()
        return fields() if callable(fields) else fields


class Branch:
    """One handler that runs in a task or thread of its own; the frame of what it emits.

    Attributes:
        emission: what is handled; None when a unawaited one has finished, so that
            a chain of events without end does not keep its beginning.
        index: the handler's place among the subscriptions of the plan.
        unawaited: whether nobody awaits it; what it emits begins a chain.
        broken: whether the chain below it has turned out to be too deep.
        is_announcing: whether a unawaited one is part of a `handler_failed`.
        job: what a unawaited one is to the workers, until its failure is announced.
        task: the handler's, if tasks that handlers before it left behind may have the same branch.
        others: the branch of those tasks, made when they emit.
        unfinished: what an awaited one that has suspended belongs to; see `_async_loop`.
        ids: the ids of the emission, kept by a unawaited branch, which outlives it.
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
        self.broken: bool = False
        self.unfinished: Any = None

    def is_anothers(self) -> bool:
        """Whether the caller is a task that a handler before this one has left behind."""
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
        """Return the branch of tasks that handlers before it have left behind."""
        if self.others is None:
            emission: Any = self.emission
            self.others = Branch(emission, self.index)
        return self.others

    def finish(self) -> None:
        """Stop being the frame of what its context still emits."""
        self._running = False
        if self.others is not None:
            self.others._running = False
        if self.unawaited:
            self.emission = None


def frames() -> Iterator[Frame]:
    """Yield the frames of the present context, the innermost first."""
    frame = CURRENT.get(None)
    while frame is not None:
        yield frame
        frame = frame._outer


def running(frame: Frame | None) -> Frame | None:
    """Return the frame or the nearest around it that has not finished.

    A task started by a handler inherits the frame in its context, and may
    outlive it.
    """
    while frame is not None and not frame._running:
        frame = frame._outer
    return frame


def emission_of(frame: Frame) -> Emission | None:
    """Return what is handled in a frame; None for a unawaited branch that has finished."""
    if isinstance(frame, Branch):
        return frame.emission
    return None if isinstance(frame, AmbientFrame) else frame


def enclosing(frame: Emission | Branch) -> Emission | Branch | None:
    """Return the frame that a frame is nested in, past what merely surrounds it."""
    outer = frame._outer
    return outer._outer if isinstance(outer, AmbientFrame) else outer


def ambient_frame_of(frame: Frame | None) -> AmbientFrame | None:
    """Return the innermost surroundings of a frame, which hold all that outer ones do."""
    while frame is not None and not isinstance(frame, AmbientFrame):
        frame = frame._outer
    return frame


def new_ambient_frame(inner: Frame | None, made: AmbientFrame | None = None) -> AmbientFrame:
    """Return new surroundings inside of a frame, for the caller to add to.

    Args:
        inner: the frame; None outside of any.
        made: what is to become the surroundings; made here if left out.
    """
    if made is None:
        made = AmbientFrame()
    if inner is None:
        return made
    if isinstance(inner, AmbientFrame):
        ambient: AmbientFrame | None = inner
        made._outer, made.cause = inner._outer, inner.cause
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
        CURRENT.set(frame)  # type: ignore[arg-type]  # None is the same as left empty
        cut_off.clean_up()
    return frame


def _entered(frame: Frame | None) -> Frame | None:
    """Return the frame, or the one that came back when it was left before those in it."""
    while isinstance(frame, AmbientFrame) and frame.left is not None:
        (frame,) = frame.left
    return frame


def enter(frame: AmbientFrame, block: object) -> None:
    """Make a frame the innermost one of this context.

    Args:
        frame: the frame.
        block: what a `with` holds as long as it goes on.
    """
    frame.before = before = CURRENT.get(None)
    frame.block = weakref.ref(block)
    try:
        frame.token = CURRENT.set(frame)
    except BaseException:  # interrupted as it was entered
        CURRENT.set(before)  # type: ignore[arg-type]  # as above
        frame.clean_up()
        raise


def leave(frame: AmbientFrame) -> None:
    """Undo an `enter`, in whatever order, and as far as possible in another context.

    A generator runs in the context of whoever asks it for its next value, so that its blocks
    may end in another context than they began in, or before a block that began later.
    """
    try:
        _leave(frame)
    except BaseException:
        _leave(frame)  # once more, for that was interrupted
        raise


def _leave(frame: AmbientFrame) -> None:
    back, token = frame.before, frame.token
    if token is None:
        return
    current = CURRENT.get(None)
    try:
        CURRENT.reset(token)
    except ValueError:  # it is another context
        pass
    except RuntimeError as error:  # that was done, and what came after it was interrupted
        if is_interrupt(error):
            raise
        frame.token = frame.block = None
        return
    else:
        if current is frame and not (isinstance(back, AmbientFrame) and back.left):
            frame.token = frame.block = None
            return  # the last to begin is the first to end, as nearly always
    back = _entered(back)
    if current is not frame:
        # A block that began in it goes on, and must not come back to it.
        frame.left = (back,)
        back = _entered(current)
    if back is not CURRENT.get(None):
        CURRENT.set(back)  # type: ignore[arg-type]  # as above
    frame.token = frame.block = None


def run_in_frame(
    frame: AmbientFrame, function: Callable[..., ReturnedT], *arguments: object
) -> ReturnedT:
    """Return what a function returns that is called in a frame."""
    before, token = CURRENT.get(None), None
    try:
        token = CURRENT.set(frame)
        return function(*arguments)
    finally:
        if token is None:  # interrupted as it was entered
            CURRENT.set(before)  # type: ignore[arg-type]  # as above
        else:
            CURRENT.reset(token)
        del arguments  # which the traceback of a failure would keep


async def await_in_frame(
    frame: AmbientFrame, function: Callable[..., Awaitable[ReturnedT]], *arguments: object
) -> ReturnedT:
    """Await what a function returns that is called in a frame."""
    before, token = CURRENT.get(None), None
    try:
        token = CURRENT.set(frame)
        return await function(*arguments)
    finally:
        try:
            if token is None:
                CURRENT.set(before)  # type: ignore[arg-type]  # as above
            else:
                CURRENT.reset(token)
        except ValueError:  # it is closed in another context, with its loop
            pass
        del arguments  # as above
