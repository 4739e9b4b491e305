"""Blocks that hold emissions back until the work that these announce has succeeded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from madcrow_events.emissions import ScopeFields
from madcrow_events.emissions._frames import AmbientFrame, enter, leave
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

    __slots__ = ("__weakref__", "_frame")

    def __init__(
        self, dispatcher: EventDispatcher, scope: Callable[[], ScopeFields] | None = None
    ) -> None:
        self._frame = DeferralFrame(dispatcher, scope)

    @property
    def pending(self) -> int:
        """How many emissions the block holds back, also those of inner blocks that have ended."""
        return len(self._frame.held_back)

    def discard(self, *, keep: int = 0) -> int:
        """Drop the emissions that the block holds back now. The block goes on.

        Args:
            keep: how many emissions stay, beginning with the first. The value that `pending` had at
                a savepoint drops what was emitted since.

        Returns:
            How many emissions were dropped.
        """
        return self._frame.discard(keep)

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
        try:
            ended = self._frame.end(error)
            if ended is not None:
                await ended.flush_async()
        except BaseException:
            self._frame.break_off()  # as in `__exit__`
            raise

    def resumed(self) -> AbstractContextManager[None]:
        """Step into the block again: hold back what is emitted in the `with` of the result, too.

        Use it for work that goes on elsewhere, such as a response that is made while it is sent.
        You may resume an open block in any context, task or thread, as often as you like, before
        its own `with` or inside of it. The first part opens the block, and the end of its own
        `with` ends it. The end of a part, by an exception or without, lets nothing go out and
        drops nothing.

        Returns:
            A context manager for one `with`.

        Raises:
            RuntimeError: the part begins after the block has ended, or is entered a second time.

        Example:
            ```python
            from madcrow_events import emit_event, get_event_dispatcher, madcrow_signals, on_event

            madcrow_signals.signal("page_sent", "A page was sent to a reader.")
            on_event("page_sent")(lambda page: print("handled:", page))

            block = get_event_dispatcher().deferred()
            for page in (1, 2):
                with block.resumed():
                    emit_event("page_sent", page=page)
            with block:
                print("the last part")
            ```

            ```text
            the last part
            handled: 1
            handled: 2
            ```
        """
        return _Part(self._frame)

    def __repr__(self) -> str:
        """Show whether the block is open, and how many emissions it holds back."""
        return f"<Deferral {'open' if self._frame.is_open else 'closed'}, pending: {self.pending}>"


class _Part:
    """A part of a deferred block; see `Deferral.resumed`."""

    __slots__ = ("__weakref__", "_block", "_frame")

    def __init__(self, block: DeferralFrame) -> None:
        self._block = block
        self._frame: AmbientFrame | None = None

    def __enter__(self) -> None:
        if self._frame is not None:
            raise RuntimeError("resumed() is good for one `with`: call it again")
        self._frame = self._block.frame_of_part()
        enter(self._frame, self)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._frame is not None  # noqa: S101  # it has been entered
        leave(self._frame)
