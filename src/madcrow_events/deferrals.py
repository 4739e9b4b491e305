"""Blocks that hold emissions back until what they announce has succeeded (B4)."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Any

from madcrow_events._frames import CURRENT, NO_FIELDS, HeldBack, Surroundings, leave, surround
from madcrow_events._tables import NOBODY
from madcrow_events.emissions import merge_scopes
from madcrow_events.exceptions import HandlerErrors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

    from madcrow_events._frames import Entered, Fields, Frame
    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.emissions import Emission, ScopeFields

__all__ = ["Deferral"]


class Deferral:
    """Holds back what its dispatcher and its siblings emit in a `with` or `async with` block (B4).

    Made by `EventDispatcher.deferred`, and good for one block. When the block ends well the
    emissions go out, in their order; if it raises they are dropped, and nobody is called. Within
    another block of the same dispatcher it joins that one: its emissions wait for the outer end.

    What handles a transaction that does not end with a block calls `flush` and `discard` itself.
    """

    # Defaults, and no slots, because a server makes one for each of its requests.
    _enclosing: Deferral | None = None
    _entered: Entered | tuple[()] | None = None
    _open: bool = False
    _around: Fields
    _known: Mapping[str, str]

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
        own = tuple(other for other in later.deferrals if other._is_of(emission.dispatcher))
        later.deferrals = tuple(other for other in later.deferrals if other not in own)
        later.flushing = own
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
        if self._entered is not None:
            raise RuntimeError("a deferral is good for one block: call deferred() again")
        before = CURRENT.get(None)
        if before is None:
            surroundings = Surroundings(None, NO_FIELDS, (self,), None)
        else:
            surroundings = surround(before)
            around = tuple(deferral for deferral in surroundings.deferrals if deferral._open)
            own = [deferral for deferral in around if self._is_of(deferral._dispatcher)]
            self._enclosing = own[-1] if own else None
            surroundings.deferrals = (*around, self)
        if self._scope is not None:
            self._around = surroundings._fields
            surroundings._fields = self._fields
        self._open = True
        self._entered = surroundings, before, CURRENT.set(surroundings)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let the emissions go out, as `flush` does, or drop them if the block has raised."""
        ended = self._end(error)
        if ended is not None and ended._held:
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
        ended = self._end(error)
        if ended is not None and ended._held:
            await ended.flush_async()

    def _end(self, error: BaseException | None) -> Deferral | None:
        """Close the block; return that whose emissions are to go out now, if one's are."""
        entered, self._entered = self._entered, ()  # which would lead from here to here
        self._open = False
        assert entered  # noqa: S101  # it has been entered
        leave(entered)
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

    def _fields(self) -> Mapping[str, str]:
        """Return the fields of its scope, asked for by the first event that needs them.

        Raises:
            InvalidOptionError: as for `event_scope`.
        """
        if "_known" not in vars(self):
            assert self._scope is not None  # noqa: S101  # or nobody would ask
            fields = merge_scopes(self._around, self._scope())
            # Threads that ask at the same time all get what the first of them was told.
            vars(self).setdefault("_known", fields)
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
