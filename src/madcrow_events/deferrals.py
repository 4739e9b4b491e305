"""Blocks that hold emissions back until what they announce has succeeded."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import Context, copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from madcrow_events._moves import move_first
from madcrow_events.emissions import Emission, ScopeFields
from madcrow_events.emissions._frames import (
    CURRENT,
    Fields,
    Frame,
    Surroundings,
    current,
    enter,
    leave,
    surround,
)
from madcrow_events.emissions._outcomes import HeldBack
from madcrow_events.emissions._scopes import merge_scopes
from madcrow_events.exceptions import HandlerErrors
from madcrow_events.subscriptions._plan import NOBODY

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
        self._frame = _Held(dispatcher, scope)
        self._is_detached = False

    @property
    def pending(self) -> int:
        """How many emissions are held back now, those of nested blocks that ended well included."""
        return len(self._frame.held)

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


class _Held(Surroundings):
    """The frame of what is emitted in a block, and what it holds back."""

    # Defaults, because a server makes one for each request.
    _known: Mapping[str, str]
    _enclosing: _Held | None = None
    has_ended: bool = False
    is_open: bool = False

    def __init__(
        self, dispatcher: EventDispatcher, scope: Callable[[], ScopeFields] | None
    ) -> None:
        self._dispatcher = dispatcher
        self._scope = scope
        self.held: deque[Emission[Any]] = deque()

    def discard(self) -> int:
        """Drop what is held back now; return how many emissions that were."""
        number = 0
        taken: list[Emission[Any]] = []
        while self._take(taken):
            taken[0]._values.drop()
            number += 1
        return number

    def flush(self) -> None:
        """Emit what is held back now; see `Deferral.flush`."""
        raised = _Raised()
        taken: list[Any] = []
        while self.held:
            try:
                if self._take(taken):
                    taken[0].dispatcher._emit_held(taken[0])
            except BaseException as error:  # noqa: BLE001  # raised when all have gone out
                raised.add(error, taken)
        taken.clear()  # for this frame may be part of a traceback
        raised.again()

    async def flush_async(self) -> None:
        """Emit what is held back now, and await it; see `Deferral.flush_async`."""
        raised = _Raised()
        taken: list[Any] = []
        while self.held:
            try:
                if self._take(taken):
                    await self._emit_async(taken[0], raised)
            except BaseException as error:  # noqa: BLE001  # raised when all have gone out
                raised.add(error, taken)
        taken.clear()  # for this frame may be part of a traceback
        raised.again()

    async def _emit_async(self, emission: Emission[Any], raised: _Raised) -> None:
        dispatcher: Any = emission.dispatcher
        try:
            if raised.exit is not None:
                dispatcher._emit_held(emission)
            elif emission._values.awaiting:
                await dispatcher._emit_held_async(emission)
            else:
                try:
                    await dispatcher._admission.set_aside_async(emission)
                except BaseException as error:  # noqa: BLE001  # as above
                    raised.add(error, [])
                dispatcher._emit_held(emission)
        finally:
            del emission  # as in flush

    def _take(self, taken: list[Emission[Any]]) -> bool:
        """Put the first that is held back into a list; return whether there was one.

        One by one, for other threads may be adding and taking at the same time.
        """
        while True:
            taken.clear()
            try:
                move_first(self.held, taken)
            except IndexError:
                return False
            values: Any = taken[0]._values
            if values.process != os.getpid():
                values.drop()  # in this process, which was forked in the block: the parent has it
            elif values.state == "deferred":
                return True

    def _is_of(self, dispatcher: EventDispatcher | None) -> bool:
        return dispatcher is not None and dispatcher._admission is self._dispatcher._admission

    def _hold(self, emission: Emission[Any], frame: Frame, *, awaiting: bool) -> bool:
        """Hold an emission back, if it is one of those that the block is for.

        Args:
            emission: the emission, none of whose handlers has been called.
            frame: the innermost frame of its emitter.
            awaiting: whether its emitter awaits the async handlers.
        """
        if not (self.is_open and self._is_of(emission.dispatcher)):
            return False
        later = surround(frame)
        # What its handlers will emit is not held back by this block, or one that this one joined.
        own = tuple(other for other in later._deferrals if other._is_of(emission.dispatcher))
        later._deferrals = tuple(other for other in later._deferrals if other not in own)
        later._flushing = own
        plan, emission._plan = emission._plan, NOBODY
        emission._values = HeldBack(later, awaiting=awaiting)
        self.held.append(emission)
        if self.is_open:
            return True
        # It was closed in this very moment, by another thread, which may have taken it along.
        try:  # type: ignore[unreachable]  # mypy knows of no other thread
            self.held.remove(emission)
        except ValueError:
            return True
        emission._plan = plan
        return False

    def _holds(self, emission: Emission[Any]) -> bool:
        return emission in self.held

    # The block

    def begin(self, block: Deferral) -> None:
        """Hold emissions back from now on.

        Args:
            block: what a `with` holds as long as it goes on.

        Raises:
            RuntimeError: it has begun before.
        """
        if self.has_ended or self.is_open:
            raise RuntimeError("a deferral is good for one block: call deferred() again")
        before = current()
        if before is not None:
            surround(before, self)
            self._deferrals = around = tuple(it for it in self._deferrals if it.is_open)
            own = [deferral for deferral in around if self._is_of(deferral._dispatcher)]
            self._enclosing = own[-1] if own else None
        self._deferrals = (*self._deferrals, self)
        try:
            self.is_open = True
            enter(self, block)
        except BaseException:
            self.forsake()
            raise

    def begin_again(self) -> None:
        """Go on in another context, beyond the `with`."""
        self._token = CURRENT.set(self)

    def is_innermost(self) -> bool:
        """Whether it goes on, and no other block in it does."""
        return self._token is not None and CURRENT.get(None) is self

    def end(self, error: BaseException | None) -> _Held | None:
        """Hold nothing back any more; return what is to be flushed now, if anything is.

        Args:
            error: what the block has raised, if it did.
        """
        self.is_open, self.has_ended = False, True
        leave(self)
        # It would lead to itself, and be left for the garbage collector.
        self._deferrals = self._deferrals[:-1]
        return self._settle(error) if self.held else None

    def break_off(self) -> None:
        """Leave the block, if its end has not done so, and drop what is held back still."""
        leave(self)
        self.forsake()

    def forsake(self) -> None:
        """Drop what is held back: the end of the block was interrupted."""
        super().forsake()
        self.is_open, self.has_ended = False, True
        self._deferrals = ()
        self.discard()

    def _settle(self, error: BaseException | None) -> _Held | None:
        """Return the block whose emissions are to go out now that this one has ended, if any."""
        if error is not None:
            self.discard()
            return None
        if self._enclosing is None:
            return self
        deferral = self
        taken: list[Emission[Any]] = []
        while (outer := deferral._joined()) is not None:
            while deferral._take(taken):
                outer.held.append(taken[0])
            if outer.is_open:
                return None
            # Another thread has closed that in this very moment, and may have missed the last.
            deferral = outer
        return deferral

    def _inherited_fields(self) -> Fields:
        if self._scope is None:  # it has none, or has been asked
            known: Mapping[str, str] | None = vars(self).get("_known")
            return self._fields if known is None else known
        return self._scoped_fields

    def _scoped_fields(self) -> Mapping[str, str]:
        """Return the fields of its scope, asked for by the first event that needs them.

        Raises:
            InvalidOptionError: as for `event_scope`.
        """
        scope = self._scope
        if scope is not None:
            around = self._fields
            fields = merge_scopes(around() if callable(around) else around, scope())
            # Threads that ask at the same time all get what the first of them was told.
            vars(self).setdefault("_known", fields)
            self._scope = None  # which may hold a whole request, longer than that lasts
        return self._known

    def _joined(self) -> _Held | None:
        """Return the innermost block around it that goes on, though others have ended before it."""
        outer = self._enclosing
        while outer is not None and not outer.is_open:
            outer = outer._enclosing
        return outer


class _Raised:
    """What several emissions raised, for one raise after the last of them."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.exit: BaseException | None = None

    def add(self, error: BaseException, taken: list[Emission[Any]]) -> None:
        """Note what one of them raised.

        Args:
            error: what was raised.
            taken: the emission, which is dropped if it was interrupted before it went out.
        """
        for emission in taken:
            if emission.state == "deferred":
                emission._values.drop()
        if isinstance(error, Exception):
            self.errors.append(error)
        elif self.exit is None:
            self.exit = error

    def again(self) -> None:
        """Raise it; do nothing if there is none.

        Raises:
            BaseException: the first that is no `Exception`, with the others as its cause.
            Exception: the only one.
            HandlerErrors: there are several.
        """
        others: Exception | None = self.errors[0] if self.errors else None
        if len(self.errors) > 1:
            message = f"{len(self.errors)} of the emissions that were held back raised"
            others = HandlerErrors(message, self.errors)
        end = self.exit
        self.errors, self.exit = [], None  # for this frame is part of the traceback
        try:
            if end is not None and others is not None:
                raise end from others
            if end is not None:
                raise end
            if others is not None:
                raise others
        finally:
            del end, others
