"""What an emission holds for each of its handlers: a value, or a mark of what became of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

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
        permits: the permits for the queue that are set aside for them.
    """

    loop: AbstractEventLoop | None = None
    exit: BaseException | None = None
    permits: Sequence[None] = ()
    _waiters: Waiters | None = None

    def is_pending(self, index: int) -> bool:
        """Whether a handler has not finished, and is not given up."""
        return self[index] is PENDING

    def settle(self, index: int, value: object = NO_RESULT) -> None:
        """Note what a handler returned; or that it gave nothing, so that nobody waits for it."""
        self[index] = value

    @property
    def waiters(self) -> Waiters:
        """Who waits for the last of them; made when somebody does."""
        made: Waiters = vars(self).setdefault("_waiters", Waiters(LOOK_EVERY))
        return made

    def forget_waiters(self) -> None:
        """Forget who waits: threads that do not exist in a forked child."""
        vars(self).pop("_waiters", None)

    def notify(self) -> None:
        """Let everyone who waits look again."""
        if self._waiters is not None:
            self._waiters.notify()


class HeldBack(Outcomes):
    """Stands in the place of the values of an emission that a `deferred` block holds back, or held.

    Attributes:
        state: whether it still may be emitted.
        awaiting: whether its emitter awaits the async handlers.
        frame: what it is emitted in when the block ends.
        process: the process that holds it back; a forked child leaves it to its parent.
    """

    state: Literal["deferred", "dropped"] = "deferred"

    def __init__(self, frame: AmbientFrame, *, awaiting: bool) -> None:
        super().__init__()
        self.frame = frame
        self.awaiting = awaiting
        self.process = os.getpid()

    def drop(self) -> None:
        """Give the emission up."""
        self.state = "dropped"
        self.notify()


def outcomes_of(emission: Emission) -> Any:
    """Return what an emission holds for its handlers; for what runs them elsewhere."""
    return emission._values
