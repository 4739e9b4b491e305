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
    """A block that holds back what a dispatcher and its siblings emit in it.

    `EventDispatcher.deferred` makes it, for one `with` or `async with`. If the block ends without
    an exception, the emissions go out in the order in which they were emitted. If it raises, they
    are dropped, and no handler is called. An inner block of the same dispatcher joins the outer
    one: its emissions wait for the end of the outer block.

    If your transaction does not end together with a block, call `flush` and `discard` yourself.
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
        """How many emissions the block holds back, also those of inner blocks that have ended."""
        return len(self._frame.held_back)

    def discard(self) -> int:
        """Drop the emissions that the block holds back now. The block goes on.

        Returns:
            How many emissions were dropped.
        """
        return self._frame.discard()

    def flush(self) -> None:
        """Emit what the block holds back now, as `emit` does. The block goes on.

        Every emission goes out, even if one before it raises. Events that their handlers emit are
        not held back.

        Raises:
            Exception: one emission raised it, for the reasons that `EventDispatcher.emit` lists.
            HandlerErrors: several emissions raised.
            BaseException: a handler raised it, such as a `KeyboardInterrupt`.
        """
        self._frame.flush()

    async def flush_async(self) -> None:
        """Emit what the block holds back now, and await async handlers. The block goes on.

        Handlers are awaited if the event was emitted by `emit_async` or `emit_typed_async`. Those
        of other events are started. If the queue is full, and the dispatcher has
        `overflow="block"`, this waits for a free place.

        Raises:
            CancelledError: the caller was cancelled. The remaining emissions have gone out, as by
                `flush`.
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

        Use it for work that outlives its caller, such as a response that is made while it is sent.
        Run the rest of the work in the context that this returns, and then
        `context.run(deferral.end)`. The end of the `with` does not end the block, unless the code
        in the `with` raises.

        Returns:
            The copy of the context variables. Outside of it, nothing is held back any more.

        Raises:
            RuntimeError: `detach` is not called directly in its block, is called twice, or is
                called while an inner block is open.
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
        """End a detached block, as the end of a `with` does.

        Call it in the context that `detach` has returned. To drop the emissions that the block
        holds back, call `discard` first. A second call changes nothing.

        Raises:
            Exception: as for `flush`.
            BaseException: as for `flush`.
        """
        self._is_detached = False
        self.__exit__(None, None, None)

    def __repr__(self) -> str:
        """Show whether the block is open, and how many emissions it holds back."""
        return f"<Deferral {'open' if self._frame.is_open else 'closed'}, pending: {self.pending}>"
