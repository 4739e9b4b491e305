"""The outcome of each handler of an emission: its value, or a mark that says why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from madcrow_events._forks import PROCESS
from madcrow_events._waiters import LOOK_EVERY, Waiters

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Sequence

    from madcrow_events.emissions._emission import Emission
    from madcrow_events.emissions._frames import AmbientFrame

__all__ = ["NO_RESULT", "PENDING", "Called", "HeldBack", "Outcomes", "outcomes_of"]

NO_RESULT: Any = object()
"""Stands in an emission's values for a handler that was not called, or failed."""


PENDING: Any = object()
"""Stands in an emission's values for a handler that has not finished.

Only for a handler that the call loop does not call itself.
"""


class Called(NamedTuple):
    """A value together with the handler that returned it.

    For a handler that its subscription holds weakly, and for `send`, which calls handlers in
    another order than `plan.subscriptions`.
    """

    handler: Any
    value: Any


class Outcomes(list[Any]):
    """The values of an emission with handlers that run in branches of their own.

    Attributes:
        loop: the event loop in which an emitter awaits some of them.
        exit: an exception for the emitter: an exit by a handler, the emitter's own cancellation, or
            the error that says that the emitter gave an incomplete context.
        permits: the queue's permits that are set aside for these handlers.
    """

    loop: AbstractEventLoop | None = None
    exit: BaseException | None = None
    permits: Sequence[None] = ()
    _waiters: Waiters | None = None

    def is_pending(self, index: int) -> bool:
        """Whether a handler has neither finished nor been given up."""
        return self[index] is PENDING

    def settle(self, index: int, value: object = NO_RESULT) -> None:
        """Set the outcome of a handler: its value, or that there is none."""
        self[index] = value

    @property
    def waiters(self) -> Waiters:
        """The waiters for the last of these handlers; made when somebody waits."""
        made: Waiters = vars(self).setdefault("_waiters", Waiters(LOOK_EVERY))
        return made

    def forget_waiters(self) -> None:
        """Forget the waiters: in a forked child their threads do not exist."""
        vars(self).pop("_waiters", None)

    def notify(self) -> None:
        """Wake all waiters, so that they look again."""
        if self._waiters is not None:
            self._waiters.notify()


class HeldBack(Outcomes):
    """Stands for the values of an emission that a `deferred` block holds back or has dropped.

    Attributes:
        state: whether it may still be emitted.
        awaiting: whether its emitter awaits the async handlers.
        frame: the frame in which it is emitted when the block ends.
        process: stands for the process that holds it back; a forked child drops it.
    """

    state: Literal["deferred", "dropped"] = "deferred"

    def __init__(self, frame: AmbientFrame, *, awaiting: bool) -> None:
        self.frame = frame
        self.awaiting = awaiting
        self.process = PROCESS[0]

    def drop(self) -> None:
        """Give the emission up."""
        self.state = "dropped"
        self.notify()


def outcomes_of(emission: Emission) -> Any:
    """Return the outcomes of an emission; for the wings above, which run handlers."""
    return emission._values
