"""The frames that handlers run in, and what an emission keeps of handlers that run by themselves.

A handler that the call loop calls runs in its emission; one that runs in a
task or thread of its own runs in a `Branch`; what a block adds to emissions
stands around them in `Surroundings`. The context variable `CURRENT` holds the
innermost frame. It is longer than other files because the frames, the walk
along them and the traces kept on them read each other's attributes.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar, Token
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeAlias

from madcrow_events._names import HANDLER_FAILED
from madcrow_events.emissions._ids import Trace
from madcrow_events._waiting import LOOK_EVERY, Listeners

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterator, Mapping

    from madcrow_events._background.backlog import Job
    from madcrow_events.deferrals import Deferral
    from madcrow_events.emissions._emission import Emission

__all__ = [
    "CURRENT",
    "NO_FIELDS",
    "NO_RESULT",
    "PENDING",
    "Branch",
    "Called",
    "Entered",
    "Fields",
    "Frame",
    "HeldBack",
    "Outcomes",
    "Surroundings",
    "cause_of",
    "emission_of",
    "enclosing",
    "enter",
    "frames",
    "is_announcing",
    "leave",
    "place",
    "running",
    "surround",
    "surroundings_of",
    "trace_of",
    "within",
]

Fields: TypeAlias = "Mapping[str, str] | Callable[[], Mapping[str, str]]"
"""What `event_scope` fills in, or what returns it, the same each time."""

NO_FIELDS: Mapping[str, str] = MappingProxyType({})

Frame: TypeAlias = "Emission[Any] | Branch | Surroundings"
"""What a handler runs in: the emission whose loop calls it, or a branch of its own; and what
stands around those."""

CURRENT: ContextVar[Frame] = ContextVar("madcrow_events.current")
"""The innermost frame of this context; left empty outside of any."""

NO_RESULT: Any = object()
"""Stands in an emission's values for a handler that was not called, or failed."""

PENDING: Any = object()
"""Stands there for a handler that has not finished, and does not keep the loop from going on."""


class Called(NamedTuple):
    """A value together with the weakly held handler that returned it."""

    handler: Any
    value: Any


class Outcomes(list[Any]):
    """The values of an emission with handlers that run in branches of their own.

    Attributes:
        loop: the event loop in which an emitter awaits some of them.
        exit: what a handler raised that no emission may swallow, or the emitter's cancellation.
        places: how many places in the queue are set aside for them.
    """

    loop: AbstractEventLoop | None = None
    exit: BaseException | None = None
    places: int = 0
    _listeners: Listeners | None = None

    @property
    def listeners(self) -> Listeners:
        """Who waits for the last of them; made when somebody does."""
        made: Listeners = vars(self).setdefault("_listeners", Listeners(LOOK_EVERY))
        return made

    def forget_listeners(self) -> None:
        """Forget who waits: threads that do not exist in a forked child."""
        vars(self).pop("_listeners", None)

    def tell(self) -> None:
        """Let everyone who waits look again."""
        if self._listeners is not None:
            self._listeners.tell()


class HeldBack(Outcomes):
    """Stands in the place of the values of an emission that a `deferred` block holds back, or held.

    Attributes:
        state: whether it still may be emitted.
        awaiting: whether its emitter awaits the async handlers.
        frame: what it is emitted in when the block ends.
        process: the process that holds it back; a forked child leaves it to its parent.
    """

    state: Literal["deferred", "dropped"] = "deferred"

    def __init__(self, frame: Surroundings, *, awaiting: bool) -> None:
        super().__init__()
        self.frame = frame
        self.awaiting = awaiting
        self.process = os.getpid()

    def drop(self) -> None:
        """Give the emission up."""
        self.state = "dropped"
        self.tell()


class Surroundings:
    """What stands around emissions without being a handler: a block, or a cause that is over.

    One holds all that outer ones held, and so is never directly inside of another. Its names are
    private because a block that users hold is one.
    """

    # Nothing runs in it, so that who looks for what runs looks further out.
    _running: ClassVar[bool] = False

    # Defaults, and no slots, because one is made for each block of a server's requests.
    _outer: Emission[Any] | Branch | None = None

    _fields: Fields = NO_FIELDS
    """What `event_scope` fills in, or what returns it, the same each time."""

    _deferrals: tuple[Deferral, ...] = ()
    """The blocks that may hold emissions back, the innermost last."""

    _flushing: tuple[Deferral, ...] = ()
    """The blocks that have held back what is emitted in them now."""

    _cause: Trace | None = None
    """The trace of what caused the emissions, if that is not the frame around."""

    _left: tuple[Frame | None] | None = None
    """What it was entered in, alone in a tuple, if it was left before a block that began in it."""

    def _inherited_fields(self) -> Fields:
        """Return what `event_scope` fills in, for what stands inside; it is not asked for yet."""
        return self._fields

    def _known_fields(self) -> Mapping[str, str]:
        """Return what `event_scope` fills in, asked for now if it was not known before."""
        fields = self._inherited_fields()
        return fields() if callable(fields) else fields


class Branch:
    """One handler that runs in a task or thread of its own; the frame of what it emits.

    Attributes:
        emission: what is handled; None when a detached one has finished, so that
            a chain of events without end does not keep its beginning.
        index: the handler's place among the subscriptions of the plan.
        detached: whether nobody awaits it; what it emits begins a chain (F5).
        broken: whether the chain below it has turned out to be too deep.
        is_announcing: whether a detached one is part of a `handler_failed` (F1).
        job: what a detached one is to the workers, until its failure is announced.
        task: the handler's, if tasks that handlers before it left behind may have the same branch.
        others: the branch of those tasks, made when they emit.
        unfinished: what an awaited one that has suspended belongs to; see `_async_calls`.
        trace: that of the emission, which a detached one outlives.
    """

    # Defaults, and no slots, because one is made for nearly every awaited handler.
    detached: bool = False
    is_announcing: bool = False
    job: Job | None = None
    task: Any = None
    others: Branch | None = None
    trace: Trace | None = None
    _running: bool = True

    def __init__(self, emission: Emission[Any], index: int) -> None:
        self.emission: Emission[Any] | None = emission
        self.index = index
        self._outer: Frame | None = emission._outer
        self.broken: bool = False
        self.unfinished: Any = None

    def detach(self, job: Job) -> None:
        """Let what the handler emits begin a chain of its own: nobody will await it."""
        self.is_announcing = is_announcing(job.emission)
        self.detached = self._running = True
        self.job = job
        self.trace = trace_of(job.emission)
        around = surroundings_of(job.emission)
        if around is not None:
            around, alone = Surroundings(), around
            around._fields, around._deferrals = alone._inherited_fields(), alone._deferrals
        self._outer = around

    def is_anothers(self) -> bool:
        """Tell whether the caller is a task that a handler before this one has left behind."""
        if self.task is None:
            return False
        import asyncio  # noqa: PLC0415  # there is a task, so it is loaded

        try:
            return asyncio.current_task() is not self.task
        except RuntimeError:  # in a thread without a loop
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
        if self.detached:
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


def emission_of(frame: Frame) -> Emission[Any] | None:
    """Return what is handled in a frame; None for a detached branch that has finished."""
    if isinstance(frame, Branch):
        return frame.emission
    return None if isinstance(frame, Surroundings) else frame


def enclosing(frame: Emission[Any] | Branch) -> Emission[Any] | Branch | None:
    """Return the frame that a frame is nested in, past what merely surrounds it."""
    outer = frame._outer
    return outer._outer if isinstance(outer, Surroundings) else outer


def surroundings_of(frame: Frame | None) -> Surroundings | None:
    """Return the innermost surroundings of a frame, which hold all that outer ones do."""
    while frame is not None and not isinstance(frame, Surroundings):
        frame = frame._outer
    return frame


def surround(inner: Frame | None, made: Surroundings | None = None) -> Surroundings:
    """Return new surroundings inside of a frame, for the caller to add to.

    Args:
        inner: the frame; None outside of any.
        made: what is to become the surroundings; made here if left out.
    """
    if made is None:
        made = Surroundings()
    if inner is None:
        return made
    if isinstance(inner, Surroundings):
        around: Surroundings | None = inner
        made._outer, made._cause = inner._outer, inner._cause
    else:
        around = surroundings_of(inner)
        made._outer = inner
    if around is not None:
        made._fields = around._inherited_fields()
        made._deferrals, made._flushing = around._deferrals, around._flushing
    return made


Entered: TypeAlias = "tuple[Surroundings, Frame | None, Token[Frame]]"
"""What `leave` needs to undo an `enter`: the frame, what was innermost before, and the token."""


def enter(frame: Surroundings) -> Entered:
    """Make a frame the innermost one of this context."""
    before = CURRENT.get(None)
    return frame, before, CURRENT.set(frame)


def leave(entered: Entered) -> None:
    """Undo an `enter`, in whatever order, and as far as possible in another context.

    A generator runs in the context of whoever asks it for its next value, so that its blocks
    may end in another context than they began in, or before a block that began later.
    """
    frame, back, token = entered
    current = CURRENT.get(None)
    try:
        CURRENT.reset(token)
    except ValueError:  # it is another context
        pass
    else:
        if current is frame and not (isinstance(back, Surroundings) and back._left):
            return  # the last to begin is the first to end, as nearly always
    while isinstance(back, Surroundings) and back._left is not None:
        (back,) = back._left
    if current is not frame:
        # A block that began in it goes on, and must not come back to it.
        frame._left = (back,)
        back = current
    while isinstance(back, Surroundings) and back._left is not None:
        (back,) = back._left
    if back is not CURRENT.get(None):
        CURRENT.set(back)  # type: ignore[arg-type]  # None is the same as left empty


@contextmanager
def within(frame: Surroundings) -> Iterator[None]:
    """Let the block run in a frame."""
    entered = enter(frame)
    try:
        yield
    finally:
        leave(entered)


def trace_of(emission: Emission[Any]) -> Trace:
    """Return the trace of an emission, made with those of its causes if need be."""
    try:
        return emission._trace
    except AttributeError:
        pass
    # A loop, for where a trace is needed the stack may be nearly full.
    untraced: list[Emission[Any]] = []
    cause: Any = emission
    while not isinstance(cause, Trace | None):
        untraced.append(cause)
        cause = _cause_of(cause)
    for caused in reversed(untraced):
        cause = _traced(caused, Trace(cause))
    return emission._trace


_claims: dict[int, Trace] = {}
"""Traces that are being given to emissions, by the id of the emission."""


def _traced(emission: Emission[Any], trace: Trace) -> Trace:
    """Give an emission its trace, or return that which another thread was faster to give it."""
    # Without a lock, under which a finalizer could wait for a thread that wants it: one of those
    # who claim at the same time wins, and who claims later finds the trace in its place.
    winner = _claims.setdefault(id(emission), trace)
    present: Trace | None = getattr(emission, "_trace", None)
    if present is None:
        present = emission._trace = winner
    _claims.pop(id(emission), None)
    return present


def cause_of(emission: Emission[Any]) -> Trace | None:
    """Return the trace of the emission whose handler caused this one, also if that is over."""
    cause = _cause_of(emission)
    return cause if isinstance(cause, Trace | None) else trace_of(cause)


def _cause_of(emission: Emission[Any]) -> Emission[Any] | Trace | None:
    """Return the same, or the emission itself as long as it has no trace."""
    around = emission._outer
    if isinstance(around, Surroundings) and around._cause is not None:
        return around._cause
    frame = enclosing(emission)
    if isinstance(frame, Branch):
        if frame.trace is not None:
            return frame.trace
        frame = frame.emission  # which only a detached branch outlives
    return getattr(frame, "_trace", frame)


def place(emission: Emission[Any], inherited: Frame) -> None:
    """Put an emission where it belongs among the frames: below what runs, caused by what is over.

    A task that a handler started inherits the handler's frame, and may outlive it.
    """
    innermost: Any = inherited._outer if isinstance(inherited, Surroundings) else inherited
    outer: Any = running(innermost)
    if outer is None and isinstance(innermost, Branch) and innermost.job is not None:
        outer = innermost  # a worker announces a failure
    cause = None
    if innermost is not None and innermost is not outer:
        handled = emission_of(innermost)
        cause = trace_of(handled) if handled is not None else innermost.trace
    if isinstance(outer, Branch) and outer.is_anothers():
        outer = outer.of_others()
    if outer is inherited:
        emission._outer = outer
    elif isinstance(inherited, Surroundings) and outer is inherited._outer:
        emission._outer = inherited
    else:
        emission._outer = surround(inherited)
        emission._outer._outer = outer
        emission._outer._cause = emission._outer._cause or cause


def is_announcing(emission: Emission[Any]) -> bool:
    """Tell whether an emission is a `handler_failed`, or was caused by one, however far up (F1)."""
    frame: Emission[Any] | Branch | None = emission
    while frame is not None:
        if isinstance(frame, Branch):
            if frame.detached:
                return frame.is_announcing
            frame = frame.emission
        elif frame.event == HANDLER_FAILED:
            return True
        else:
            frame = enclosing(frame)
    return False
