"""Blocks that hold emissions back until the work that these announce has succeeded."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Self

from madcrow_events.emissions import ScopeFields
from madcrow_events.emissions._frames import leave
from madcrow_events.emissions._holding import DeferralFrame

if TYPE_CHECKING:
    from madcrow_events.dispatcher import EventDispatcher

__all__ = ["Deferral"]


class Deferral:
    """Holds back what a dispatcher and its siblings emit in a `with` or `async with` block.

    Made by `EventDispatcher.deferred`, for one block. When the block ends without an exception,
    the emissions go out in their order. If it raises, they are dropped, and no handler is called.
    A block inside of another one of the same dispatcher joins it: its emissions wait for the end
    of the outer block.

    Code whose transaction does not end with a block calls `flush` and `discard` itself.
    """

    # Its frame is another object: this one lives no longer than its `with`, so that an interrupt
    # that cuts off `__exit__` is noticed.

    __slots__ = ("__weakref__", "_frame", "_is_detached")

    def __init__(
        self, dispatcher: EventDispatcher, scope: Callable[[], ScopeFields] | None = None
    ) -> None:
        self._frame = DeferralFrame(dispatcher, scope)
        self._is_detached = False

    @property
    def pending(self) -> int:
        """How many emissions are held back, including those of nested blocks that have ended."""
        return len(self._frame.held_back)

    def discard(self) -> int:
        """Drop the emissions that are held back now; the block goes on, and may hold back more.

        Returns:
            How many emissions were dropped.
        """
        return self._frame.discard()

    def flush(self) -> None:
        """Emit what is held back now, as `emit` does; the block goes on.

        Every emission goes out, even if one before it raises. Events that their handlers emit
        go out at once.

        Raises:
            Exception: one of the emissions raised it, as `emit` does.
            HandlerErrors: several of them raised.
            BaseException: a handler raised it, and it is not an `Exception`.
        """
        self._frame.flush()

    async def flush_async(self) -> None:
        """Emit what is held back now, and await the handlers of events from `emit_async`.

        The block goes on. If the queue is full and the dispatcher's `overflow` is `"block"`, it
        waits for a place, also for what was emitted by `emit`.

        Raises:
            CancelledError: the caller was cancelled; the rest has gone out as by `flush`.
            Exception: as for `flush`.
            BaseException: as for `flush`.
        """
        await self._frame.flush_async()

    def __enter__(self) -> Self:
        """Hold emissions back from now on.

        Raises:
            RuntimeError: the block has been entered before.
        """
        self._frame.begin(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let the emissions go out, as `flush` does, or drop them if the block has raised."""
        if (self._is_detached and error is None) or self._frame.has_ended:
            return
        try:
            ended = self._frame.end(error)
            if ended is not None:
                ended.flush()
        except BaseException:
            self._frame.break_off()  # if an interrupt came before anything went out
            raise

    async def __aenter__(self) -> Self:
        """Hold emissions back from now on.

        Raises:
            RuntimeError: the block has been entered before.
        """
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let the emissions go out, as `flush_async` does, or drop them if the block has raised."""
        if (self._is_detached and error is None) or self._frame.has_ended:
            return
        try:
            ended = self._frame.end(error)
            if ended is not None:
                await ended.flush_async()
        except BaseException:
            self._frame.break_off()  # as in `__exit__`
            raise

    def detach(self) -> Context:
        """Let the block go on after its `with`, in a copy of the context variables.

        For work that outlives its caller, such as a response that is made while it is sent. The
        end of the `with` then does not end the block, unless the `with` raises. Run the rest of
        the block in the context that is returned, and then `context.run(deferral.end)`.

        Returns:
            The copy; outside of it nothing is held back any more.

        Raises:
            RuntimeError: the block has not begun, has ended, or is detached; or a block in it
                has not ended.
        """
        if self._is_detached or not self._frame.is_innermost():
            raise RuntimeError(
                "detach() is called once, directly in its block: with dispatcher.deferred() as ..."
            )
        context = copy_context()
        leave(self._frame)
        context.run(self._frame.begin_again)
        self._is_detached = True
        return context

    def end(self) -> None:
        """End a detached block, as the end of a `with` does; call it in the block's context.

        To drop the emissions that it holds back, call `discard` first. A second call does nothing.
        """
        self._is_detached = False
        self.__exit__(None, None, None)

    def __repr__(self) -> str:
        """Show whether the block is open, and how many emissions it holds back."""
        return f"<Deferral {'open' if self._frame.is_open else 'closed'}, pending: {self.pending}>"
