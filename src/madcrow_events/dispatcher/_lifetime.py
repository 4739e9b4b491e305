"""When a dispatcher has nothing left to do, and when it ends."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Self

from madcrow_events._background.admission import Admission
from madcrow_events._copies import Unique
from madcrow_events.emissions._lazy_asyncio import running_loop
from madcrow_events.exceptions import InvalidOptionError, WouldDeadlockError
from madcrow_events.signals import SignalRegistry
from madcrow_events.signals._dispatching import dismiss

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from madcrow_events.dispatcher import EventDispatcher

__all__ = ["Lifetime"]


class Lifetime(Unique):
    """The part of `EventDispatcher` that is about handlers that run later."""

    __slots__ = ()

    _admission: Admission
    signals: SignalRegistry

    @property
    def dropped(self) -> int:
        """How many calls of handlers were dropped, under `overflow="drop"`."""
        return self._admission.dropped

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until no handler of this dispatcher and its siblings is pending.

        Args:
            timeout: how many seconds to wait at most; None for as long as it takes,
                0 to ask without waiting.

        Returns:
            Whether nothing is pending.

        Raises:
            WouldDeadlockError: a pending handler waits for the caller.
            InvalidOptionError: the timeout is no number of seconds.
        """
        return self._admission.drain(timeout)

    async def drain_async(self, timeout: float | None = None) -> bool:
        """Wait until no handler of this dispatcher and its siblings is pending; the loop goes on.

        Args:
            timeout: as for `drain`.

        Returns:
            Whether nothing is pending.

        Raises:
            WouldDeadlockError: a handler that is pending calls it.
            InvalidOptionError: the timeout is no number of seconds.
        """
        return await self._admission.drain_async(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Wait until no handler is pending, then refuse emissions with handlers that run later.

        This closes the siblings, too; a second call does nothing. Inline handlers, and
        async ones that the emitter awaits, are called as before.

        Args:
            timeout: as for `drain`; handlers that are still pending then go on.

        Returns:
            Whether nothing is pending.

        Raises:
            WouldDeadlockError: a pending handler waits for the caller.
            InvalidOptionError: the timeout is no number of seconds.
        """
        is_done = self._admission.close(timeout)
        dismiss(self.signals, self._is_sibling)
        return is_done

    def bind_loop(self, loop: AbstractEventLoop | None = None) -> AbstractContextManager[None]:
        """Choose the loop for async handlers whose emitter runs in none.

        Async handlers run in the loop of their emitter. If the emitter has none, as in a thread,
        they run in this loop. Without a binding they run in a loop of the dispatcher's own,
        where clients, pools and locks of the application fail. The siblings are bound, too.

        Args:
            loop: the application's loop; None for the one that runs here.

        Returns:
            A `with` block; at its end the binding ends, and the one before it counts again.

        Raises:
            InvalidOptionError: it is not an event loop, or is left out where none runs.
        """
        if loop is None:
            loop = running_loop()
        if loop is None or not hasattr(loop, "call_soon_threadsafe"):
            raise InvalidOptionError(
                "bind_loop takes an event loop: call it in a running one, or give it one",
                option="loop",
            )
        return self._admission.bound_loops.bind(loop)

    def _is_sibling(self, dispatcher: EventDispatcher) -> bool:
        return dispatcher._admission is self._admission

    def __enter__(self) -> Self:
        """Return the dispatcher, for `with EventDispatcher() as dispatcher:`."""
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        """Close the dispatcher; a `WouldDeadlockError` does not hide an exception of the block."""
        try:
            self.close()
        except WouldDeadlockError:
            if exc_type is None:
                raise

    async def __aenter__(self) -> Self:
        """Return the dispatcher, for `async with EventDispatcher() as dispatcher:`."""
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        """Wait in the loop until nothing is pending, and close the dispatcher."""
        try:
            await self._admission.close_async()
            dismiss(self.signals, self._is_sibling)
        except WouldDeadlockError:
            if exc_type is None:
                raise
