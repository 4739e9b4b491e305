"""Blocks that hold emissions back until what they announce has succeeded."""

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
    """Holds back what its dispatcher and its siblings emit in a `with` or `async with` block.

    Made by `EventDispatcher.deferred`, and good for one block. When the block ends well the
    emissions go out, in their order; if it raises they are dropped, and nobody is called. Within
    another block of the same dispatcher it joins that one: its emissions wait for the outer end.

    What handles a transaction that does not end with a block calls `flush` and `discard` itself.
    """

    # Apart from the frame of its emissions: it lives no longer than its `with`, and so an
    # interrupt that cuts off `__exit__` is noticed.

    __slots__ = ("__weakref__", "_frame", "_is_detached")

    def __init__(
        self, dispatcher: EventDispatcher, scope: Callable[[], ScopeFields] | None = None
    ) -> None:
        self._frame = DeferralFrame(dispatcher, scope)
        self._is_detached = False

    @property
    def pending(self) -> int:
        """How many emissions are held back now, those of nested blocks that ended well included."""
        return len(self._frame.held_back)

    def discard(self) -> int:
        """Drop what is held back now; the block goes on, and may hold back more.

        Returns:
            How many emissions were dropped.
        """
        return self._frame.discard()

    def flush(self) -> None:
        """Emit what is held back now, as `emit` would; the block goes on.

        Every emission goes out, whatever comes of those before it; what their handlers emit goes
        out at once.

        Raises:
            Exception: what one of them raised, as `emit` would have.
            HandlerErrors: several of them raised.
            BaseException: what a handler raised that is no `Exception`.
        """
        self._frame.flush()

    async def flush_async(self) -> None:
        """Do as `flush`, and await the handlers of what was emitted by `emit_async`.

        A queue that is full is waited for, whatever the emissions were emitted by, unless the
        dispatcher's `overflow` is another than `"block"`.

        Raises:
            CancelledError: the caller was cancelled; what was left has gone out as by `flush`.
            Exception: as for `flush`.
            BaseException: as for `flush`.
        """
        await self._frame.flush_async()

    def __enter__(self) -> Self:
        """Hold emissions back from now on.

        Raises:
            RuntimeError: it has been entered before.
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
            self._frame.break_off()  # if that was interrupted before anything went out
            raise

    async def __aenter__(self) -> Self:
        """Hold emissions back from now on.

        Raises:
            RuntimeError: it has been entered before.
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
            self._frame.break_off()  # as above
            raise

    def detach(self) -> Context:
        """Let the block go on beyond its `with`, in a copy of the context variables.

        For what outlives its caller, as a response does that is made while it is sent. The `with`
        then does not end the block, unless it raises: run what is left of the block in the
        context, and at last `context.run(deferral.end)`.

        Returns:
            The copy; outside of it nothing is held back any more.

        Raises:
            RuntimeError: the block has not begun, has ended, or is detached, or a block in it
                goes on.
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
        """End a block that was detached, in its context, as the end of a `with` does.

        To drop what it holds back, call `discard` first. Ending it again does nothing.
        """
        self._is_detached = False
        self.__exit__(None, None, None)

    def __repr__(self) -> str:
        """Count what is held back."""
        return f"<Deferral {'open' if self._frame.is_open else 'closed'}, pending: {self.pending}>"
