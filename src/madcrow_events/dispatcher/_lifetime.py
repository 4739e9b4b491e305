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
        """How many handlers were left out of a full queue so far, under `overflow="drop"`."""
        return self._admission.dropped

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until no handler of this dispatcher and its siblings is pending.

        A handler is pending if it runs later and has not ended. `drain` also waits for the handlers
        of events that pending handlers emit. It delivers batches at once, whatever their size.

        Args:
            timeout: how many seconds to wait at most; None, the default, waits without a limit, and
                0 only asks.

        Returns:
            Whether nothing is pending any more.

        Raises:
            WouldDeadlockError: the wait would never end. A pending handler calls `drain`, or needs
                the event loop that would have to stop here, or waits in one that does not run.
            InvalidOptionError: the timeout is neither None nor a number of seconds, 0 or more.

        Example:
            ```python
            from madcrow_events import get_event_dispatcher, madcrow_signals

            order_placed = madcrow_signals.signal("order_placed", "A customer placed an order.")


            @order_placed.on(background=True)
            def send_invoice() -> None:
                print("invoice sent")


            get_event_dispatcher().emit(order_placed)
            print(get_event_dispatcher().drain(timeout=10))
            ```

            ```text
            invoice sent
            True
            ```
        """
        return self._admission.drain(timeout)

    async def drain_async(self, timeout: float | None = None) -> bool:
        """Wait as `drain` does, while the event loop goes on with other tasks.

        Args:
            timeout: as for `drain`.

        Returns:
            Whether nothing is pending any more.

        Raises:
            WouldDeadlockError: the wait would never end. A pending handler calls `drain_async`, or
                waits in an event loop that does not run.
            EventLoopError: a handler is pending, and asyncio does not run here.
            InvalidOptionError: the timeout is neither None nor a number of seconds, 0 or more.
        """
        return await self._admission.drain_async(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Wait until no handler is pending, then refuse events whose handlers would run later.

        This closes the siblings, too. A second call changes nothing. A closed dispatcher still
        calls plain handlers, and async handlers that the emitter awaits.

        Args:
            timeout: as for `drain`. Handlers that are pending after that time go on.

        Returns:
            Whether nothing is pending any more.

        Raises:
            WouldDeadlockError: as for `drain`.
            InvalidOptionError: as for `drain`.
        """
        is_done = self._admission.close(timeout)
        dismiss(self.signals, self._is_sibling)
        return is_done

    def bind_loop(self, loop: AbstractEventLoop | None = None) -> AbstractContextManager[None]:
        """Choose the event loop for async handlers whose emitter does not run in one.

        An async handler runs in the event loop of its emitter. If the emitter runs in none, as in a
        thread, the handler runs in the loop that you bind here. Without a bound loop it runs in a
        loop of the dispatcher's own. There, clients, pools and locks of the application fail,
        because they belong to the application's loop. The siblings are bound, too.

        Args:
            loop: the application's event loop; None, the default, for the loop that runs here.

        Returns:
            A block for `with`. At its end, the dispatcher goes back to the loop that was bound
                before. Without `with`, the loop stays bound until it is closed.

        Raises:
            InvalidOptionError: this is no event loop; or none is given, and none runs here.

        Example:
            ```python
            import asyncio
            from threading import current_thread

            from madcrow_events import get_event_dispatcher, madcrow_signals

            order_placed = madcrow_signals.signal("order_placed", "A customer placed an order.")
            dispatcher = get_event_dispatcher()


            @order_placed.on()
            async def reserve_stock() -> None:
                print("reserved in", current_thread().name)


            async def serve() -> None:
                with dispatcher.bind_loop():
                    await asyncio.to_thread(dispatcher.emit, order_placed)
                    await dispatcher.drain_async()


            asyncio.run(serve())
            ```

            ```text
            reserved in MainThread
            ```
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
