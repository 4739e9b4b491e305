"""The frames that handlers run in, and what an emission keeps of handlers that run by themselves.

A handler that the call loop calls runs in its emission; one that runs in a
task or thread of its own runs in a `Branch`. The context variable `CURRENT`
holds the innermost frame.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from madcrow_events._names import HANDLER_FAILED
from madcrow_events._waiting import LOOK_EVERY, Listeners

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Iterator

    from madcrow_events._jobs import Job
    from madcrow_events.emissions import Emission, HandlerFailure

__all__ = [
    "CURRENT",
    "NO_RESULT",
    "PENDING",
    "Branch",
    "Called",
    "Failures",
    "Frame",
    "Outcomes",
    "emission_of",
    "failures_of",
    "frames",
    "is_announcing",
    "running",
]

Frame: TypeAlias = "Emission[Any] | Branch"
"""What a handler runs in: the emission whose loop calls it, or a branch of its own."""

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


class Failures:
    """What went wrong in one emission; made when first needed.

    `broken_at` is how many handlers of an outermost emission had finished when
    the chain under the next one turned out to be too deep (F5), or -1.
    `told_depth` is whether that, or the same of a branch, stands among the items.
    `nested` counts the awaited handlers below it of events that cause themselves. `detached` are
    those of the items that the emitter does not answer for.
    """

    __slots__ = ("broken_at", "detached", "items", "nested", "told_depth")

    def __init__(self) -> None:
        self.items: list[HandlerFailure] = []
        self.detached: list[HandlerFailure] = []
        self.broken_at: int = -1
        self.told_depth: bool = False
        self.nested: int = 0


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
    """

    # Defaults, and no slots, because one is made for nearly every awaited handler.
    detached: bool = False
    is_announcing: bool = False
    job: Job | None = None
    task: Any = None
    others: Branch | None = None
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
        self._outer = None

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
    return frame.emission if isinstance(frame, Branch) else frame


def is_announcing(emission: Emission[Any]) -> bool:
    """Tell whether an emission is a `handler_failed`, or was caused by one, however far up (F1)."""
    frame: Frame | None = emission
    while frame is not None:
        if isinstance(frame, Branch):
            if frame.detached:
                return frame.is_announcing
            frame = frame.emission
        elif frame.event == HANDLER_FAILED:
            return True
        else:
            frame = frame._outer
    return False


def failures_of(emission: Emission[Any]) -> Failures:
    """Return what is noted of an emission's failures, made if need be."""
    failures = emission._failures
    if failures is None:
        failures = emission._failures = Failures()
    return failures
