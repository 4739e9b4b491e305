"""Blocks that hold emissions back until what they announce has succeeded (B4)."""

from __future__ import annotations

import os
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from madcrow_events.emissions._frames import CURRENT, Fields, Frame, Surroundings, leave, surround
from madcrow_events.emissions._outcomes import HeldBack
from madcrow_events.emissions._scopes import merge_scopes
from madcrow_events.exceptions import HandlerErrors
from madcrow_events.subscriptions._plan import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Context, Token
    from types import TracebackType
    from typing import Self

    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.emissions import Emission, ScopeFields

__all__ = ["Deferral"]


class Deferral(Surroundings):
    """Holds back what its dispatcher and its siblings emit in a `with` or `async with` block (B4).

    Made by `EventDispatcher.deferred`, and good for one block. When the block ends well the
    emissions go out, in their order; if it raises they are dropped, and nobody is called. Within
    another block of the same dispatcher it joins that one: its emissions wait for the outer end.

    What handles a transaction that does not end with a block calls `flush` and `discard` itself.
    """

    # It is itself the frame of what is emitted in it, for a server makes one for each request.
    _before: Frame | None = None
    _token: Token[Frame] | None = None
    _known: Mapping[str, str]
    _enclosing: Deferral | None = None
    _has_begun: bool = False
    _is_detached: bool = False
    _has_ended: bool = False
    _open: bool = False

    def __init__(
        self, dispatcher: EventDispatcher, scope: Callable[[], ScopeFields] | None = None
    ) -> None:
        self._dispatcher = dispatcher
        self._scope = scope
        self._held: deque[Emission[Any]] = deque()

    @property
    def pending(self) -> int:
        """How many emissions are held back now, those of nested blocks that ended well included."""
        return len(self._held)

    def discard(self) -> int:
        """Drop what is held back now; the block goes on, and may hold back more.

        Returns:
            How many emissions were dropped.
        """
        number = 0
        while (emission := self._next()) is not None:
            emission._values.drop()
            number += 1
        return number

    def flush(self) -> None:
        """Emit what is held back now, as `emit` would; the block goes on.

        Every emission goes out, whatever comes of those before it; what their handlers emit goes
        out at once.

        Raises:
            Exception: what one of them raised, as `emit` would have.
            HandlerErrors: several of them raised.
            BaseException: what a handler raised that is no `Exception`.
        """
        raised = _Raised()
        while (emission := self._next()) is not None:
            dispatcher: Any = emission.dispatcher
            try:
                dispatcher._emit_held(emission)
            except BaseException as error:  # noqa: BLE001  # raised when all have gone out
                raised.add(error)
        raised.again()

    async def flush_async(self) -> None:
        """Do as `flush`, and await the handlers of what was emitted by `emit_async`.

        A queue that is full is waited for, whatever the emissions were emitted by, unless the
        dispatcher's `overflow` is another than `"block"`.

        Raises:
            CancelledError: the caller was cancelled; what was left has gone out as by `flush`.
            Exception: as for `flush`.
            BaseException: as for `flush`.
        """
        raised = _Raised()
        while (emission := self._next()) is not None:
            dispatcher: Any = emission.dispatcher
            try:
                if raised.exit is not None:
                    dispatcher._emit_held(emission)
                elif emission._values.awaiting:
                    await dispatcher._emit_held_async(emission)
                else:
                    try:
                        await dispatcher._workers.set_aside_async(emission)
                    except BaseException as error:  # noqa: BLE001  # likewise
                        raised.add(error)
                    dispatcher._emit_held(emission)
            except BaseException as error:  # noqa: BLE001  # raised when all have gone out
                raised.add(error)
        raised.again()

    def _next(self) -> Emission[Any] | None:
        # Popped one by one, for other threads may be adding and taking at the same time.
        while True:
            try:
                emission = self._held.popleft()
            except IndexError:
                return None
            held: Any = emission._values
            if held.process == os.getpid():
                return emission
            held.drop()  # in this process, which was forked in the block: the parent has it

    def _is_of(self, dispatcher: EventDispatcher | None) -> bool:
        return dispatcher is not None and dispatcher._workers is self._dispatcher._workers

    def _hold(self, emission: Emission[Any], frame: Frame, *, awaiting: bool) -> bool:
        """Hold an emission back, if it is one of those that the block is for.

        Args:
            emission: the emission, none of whose handlers has been called.
            frame: the innermost frame of its emitter.
            awaiting: whether its emitter awaits the async handlers.
        """
        if not (self._open and self._is_of(emission.dispatcher)):
            return False
        later = surround(frame)
        # What its handlers will emit is not held back by this block, or one that this one joined.
        own = tuple(other for other in later._deferrals if other._is_of(emission.dispatcher))
        later._deferrals = tuple(other for other in later._deferrals if other not in own)
        later._flushing = own
        plan, emission._plan = emission._plan, NOBODY
        emission._values = HeldBack(later, awaiting=awaiting)
        self._held.append(emission)
        if self._open:
            return True
        # It was closed in this very moment, by another thread, which may have taken it along.
        try:  # type: ignore[unreachable]  # mypy knows of no other thread
            self._held.remove(emission)
        except ValueError:
            return True
        emission._plan = plan
        return False

    def _holds(self, emission: Emission[Any]) -> bool:
        return emission in self._held

    # The block

    def __enter__(self) -> Self:
        """Hold emissions back from now on.

        Raises:
            RuntimeError: it has been entered before.
        """
        if self._has_begun:
            raise RuntimeError("a deferral is good for one block: call deferred() again")
        self._before = before = CURRENT.get(None)
        if before is not None:
            surround(before, self)
            self._deferrals = around = tuple(it for it in self._deferrals if it._open)
            own = [deferral for deferral in around if self._is_of(deferral._dispatcher)]
            self._enclosing = own[-1] if own else None
        self._deferrals = (*self._deferrals, self)
        self._has_begun = self._open = True
        self._token = CURRENT.set(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let the emissions go out, as `flush` does, or drop them if the block has raised."""
        if (self._is_detached and error is None) or self._has_ended:
            return
        self._leave()
        if self._held:
            ended = self._settle(error)
            if ended is not None:
                ended.flush()

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
        if (self._is_detached and error is None) or self._has_ended:
            return
        self._leave()
        if self._held:
            ended = self._settle(error)
            if ended is not None:
                await ended.flush_async()

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
        if self._token is None or self._is_detached or CURRENT.get(None) is not self:
            raise RuntimeError(
                "detach() is called once, directly in its block: with dispatcher.deferred() as ..."
            )
        context = copy_context()
        leave((self, self._before, self._token))
        context.run(self._enter_again)
        self._is_detached = True
        return context

    def _enter_again(self) -> None:
        self._token = CURRENT.set(self)

    def end(self) -> None:
        """End a block that was detached, in its context, as the end of a `with` does.

        To drop what it holds back, call `discard` first. Ending it again does nothing.
        """
        self._is_detached = False
        self.__exit__(None, None, None)

    def _leave(self) -> None:
        """Hold nothing back any more."""
        self._open, self._has_ended = False, True
        assert self._token is not None  # noqa: S101  # it has been entered
        leave((self, self._before, self._token))
        # It would lead to itself, and be left for the garbage collector.
        self._token, self._deferrals = None, self._deferrals[:-1]

    def _settle(self, error: BaseException | None) -> Deferral | None:
        """Return the block whose emissions are to go out now that this one has ended, if any."""
        if error is not None:
            self.discard()
            return None
        if self._enclosing is None:
            return self
        deferral = self
        while (outer := deferral._joined()) is not None:
            while (emission := deferral._next()) is not None:
                outer._held.append(emission)
            if outer._open:
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

    def _joined(self) -> Deferral | None:
        """Return the innermost block around it that goes on, though others have ended before it."""
        outer = self._enclosing
        while outer is not None and not outer._open:
            outer = outer._enclosing
        return outer

    def __repr__(self) -> str:
        """Count what is held back."""
        return f"<Deferral {'open' if self._open else 'closed'}, pending: {self.pending}>"


class _Raised:
    """What several emissions raised, for one raise after the last of them."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.exit: BaseException | None = None

    def add(self, error: BaseException) -> None:
        """Note what one of them raised."""
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
        if self.exit is not None and others is not None:
            raise self.exit from others
        if self.exit is not None:
            raise self.exit
        if others is not None:
            raise others
