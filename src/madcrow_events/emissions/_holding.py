"""A block that holds emissions back, and emits them when it ends."""

from __future__ import annotations

import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from madcrow_events._forks import PROCESS
from madcrow_events._logs import log
from madcrow_events._moves import move_first, move_last
from madcrow_events.emissions._completion import emit_held_back, emit_held_back_async
from madcrow_events.emissions._frames import (
    CURRENT,
    NO_FIELDS,
    AmbientFrame,
    Fields,
    current,
    enter,
    leave,
    new_ambient_frame,
    run_in_frame,
)
from madcrow_events.emissions._outcomes import HeldBack
from madcrow_events.emissions._plan import NOBODY
from madcrow_events.emissions._scopes import merge_scopes
from madcrow_events.exceptions import HandlerErrors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from madcrow_events.emissions._emission import Emission
    from madcrow_events.emissions._frames import Frame
    from madcrow_events.emissions._policy import Policy
    from madcrow_events.emissions._scopes import ScopeFields

__all__ = ["DeferralFrame", "Raised"]

Move: TypeAlias = "Callable[[deque[Emission], list[Emission]], None]"
"""`move_first`, or `move_last`."""


class DeferralFrame(AmbientFrame):
    """The frame of a `deferred` block, with the emissions that it holds back."""

    # Defaults, because a server makes one for each request.
    _known: Mapping[str, str]
    _enclosing: DeferralFrame | None = None
    _later: AmbientFrame | None = None  # for all that is emitted directly in the block
    has_ended: bool = False
    is_open: bool = False

    def __init__(self, policy: Policy, scope: Callable[[], ScopeFields] | None) -> None:
        self._policy = policy
        self._scope = scope
        self.held_back: deque[Emission] = deque()

    def discard(self, keep: int = 0) -> int:
        """Drop emissions that are held back now; see `Deferral.discard`."""
        dropped: list[str] = []
        taken: list[Emission] = []
        while len(self.held_back) > keep and self._take(taken, move_last):
            taken[0]._values.drop()
            dropped.append(taken[0].event)
        taken.clear()
        for event in reversed(dropped):  # when all are dropped, because a line of the log may raise
            log(logging.DEBUG, "%s dropped with its deferred block", event)
        return len(dropped)

    def flush(self) -> None:
        """Emit the emissions that are held back now; see `Deferral.flush`."""
        raised = Raised()
        taken: list[Any] = []
        while self.held_back:
            try:
                if self._take(taken):
                    emit_held_back(taken[0])
            except BaseException as error:  # raised after the last emission
                raised.add(error, taken)
        taken.clear()  # a traceback may keep this frame
        raised.again()

    async def flush_async(self) -> None:
        """Emit the emissions that are held back now, and await them; see `Deferral.flush_async`."""
        raised = Raised()
        taken: list[Any] = []
        while self.held_back:
            try:
                if self._take(taken):
                    await self._emit_async(taken[0], raised)
            except BaseException as error:  # raised after the last emission
                raised.add(error, taken)
        taken.clear()  # a traceback may keep this frame
        raised.again()

    async def _emit_async(self, emission: Emission, raised: Raised) -> None:
        policy: Any = emission.dispatcher
        try:
            if raised.exit is not None:
                emit_held_back(emission)
            elif emission._values.awaiting:
                await emit_held_back_async(emission)
            else:
                try:
                    await policy._admission.acquire_async(emission)
                except BaseException as error:
                    raised.add(error, [])
                emit_held_back(emission)
        finally:
            del emission  # a traceback may keep this frame

    def _take(self, taken: list[Emission], move: Move = move_first) -> bool:
        """Move an emission that is held back into a list; return whether there was one.

        Only one at a time, because other threads may add and take at the same time.
        """
        while True:
            taken.clear()
            try:
                move(self.held_back, taken)
            except IndexError:
                return False
            values: Any = taken[0]._values
            if values.process is not PROCESS[0]:
                values.drop()  # this process was forked in the block; the parent emits it
            elif values.state == "deferred":
                return True

    def is_of(self, policy: Policy | None) -> bool:
        """Whether it is for the emissions of that dispatcher and of its siblings."""
        return policy is not None and policy._admission is self._policy._admission

    def hold(self, emission: Emission, frame: Frame, *, awaiting: bool) -> bool:
        """Hold an emission back; see `Holder.hold`."""
        if not (self.is_open and self.is_of(emission.dispatcher)):
            return False
        later = self._later if frame is self else None
        if later is None:
            later = new_ambient_frame(frame)
            # Neither this block nor one that it joins is to hold back what the handlers will emit.
            own = tuple(other for other in later.holders if other.is_of(emission.dispatcher))
            later.holders = tuple(other for other in later.holders if other not in own)
            later.flushing = own
            if frame is self and self.is_open:
                self._later = later
        plan, emission._plan = emission._plan, NOBODY
        emission._values = HeldBack(later, awaiting=awaiting)
        self.held_back.append(emission)
        if self.is_open:
            return True
        # Another thread has closed the block at this very moment, and may have taken the emission.
        try:  # type: ignore[unreachable]  # mypy knows of no other thread
            self.held_back.remove(emission)
        except ValueError:
            return True
        emission._plan = plan
        return False

    def holds(self, emission: Emission) -> bool:
        """Whether it holds back that emission now."""
        return emission in self.held_back

    # The block

    def begin(self, block: object) -> None:
        """Enter the block in its own `with`.

        Args:
            block: the object that the `with` statement keeps alive until it ends.

        Raises:
            RuntimeError: it has been entered before.
        """
        if self.has_ended or self.block is not None:
            raise RuntimeError("a deferral is good for one block: call deferred() again")
        if not self.is_open:
            self.open()
        elif (around := current()) is not None:  # it was resumed before, perhaps elsewhere
            fields = self.fields
            new_ambient_frame(around, self)
            others = (it for it in self.holders if it is not self)  # which a part may be around
            self.fields, self.holders = fields, (*others, self)
        try:
            enter(self, block)
        except BaseException:
            self.clean_up()
            raise

    def open(self) -> None:
        """Hold emissions back from now on, in this frame and in those of the parts."""
        if CURRENT.get(None) is None:  # nearly always
            self.holders = (self,)
        else:
            new_ambient_frame(current(), self)
            holders = tuple(it for it in self.holders if it.is_open)
            own = [it for it in holders if isinstance(it, DeferralFrame) and it.is_of(self._policy)]
            self._enclosing = own[-1] if own else None
            self.holders = (*holders, self)
        self.is_open = True

    def frame_of_part(self) -> AmbientFrame:
        """Return a new frame for a part of the block, inside of the frame of this context.

        Raises:
            RuntimeError: the block has ended.
        """
        if self.has_ended:
            raise RuntimeError("the deferred block has ended, and cannot be resumed")
        if not self.is_open:
            self.open()
        part = new_ambient_frame(current())
        part.holders = (*part.holders, self)
        if part.fields is NO_FIELDS:
            part.fields = self.lazy_fields()
        else:
            part.fields = partial(_merged, part.fields, self)
        return part

    def end(self, error: BaseException | None) -> DeferralFrame | None:
        """End the block; return the frame whose emissions are to be flushed now, if there is one.

        Args:
            error: the exception that the block has raised, or None.
        """
        self.is_open, self.has_ended = False, True
        if self._later is not None:
            self._later = None  # which refers to this
        if self.token is not None:
            leave(self)
        # Break the cycle of the frame and itself, so that no garbage collection is needed.
        self.holders = () if len(self.holders) == 1 else self.holders[:-1]
        self.before = None  # which may be a part of this
        return self._frame_to_flush(error) if self.held_back else None

    def break_off(self) -> None:
        """Leave the block, unless its end has done so, and drop the emissions still held back."""
        leave(self)
        self.clean_up()

    def clean_up(self) -> None:
        """Drop the emissions held back, after the end of the block was interrupted."""
        super().clean_up()
        self.is_open, self.has_ended = False, True
        self._later = None
        self.holders = ()
        self.discard()

    def _frame_to_flush(self, error: BaseException | None) -> DeferralFrame | None:
        """Return the frame whose emissions go out when this block has ended; None if none do."""
        if error is not None:
            self.discard()
            return None
        if self._enclosing is None:
            return self
        deferral = self
        taken: list[Emission] = []
        while (outer := deferral._joined()) is not None:
            while deferral._take(taken):
                outer.held_back.append(taken[0])
            if outer.is_open:
                return None
            # Another thread has closed the outer block meanwhile, and may have missed the last.
            deferral = outer
        return deferral

    def lazy_fields(self) -> Fields:
        if self._scope is None:  # there is no scope, or its fields are known
            known: Mapping[str, str] | None = vars(self).get("_known")
            return self.fields if known is None else known
        return self._scoped_fields

    def resolved_fields(self) -> Mapping[str, str]:
        fields = self.lazy_fields()
        return fields() if callable(fields) else fields

    def _scoped_fields(self) -> Mapping[str, str]:
        """Return the fields of its scope; the first event that needs them asks the scope.

        Raises:
            InvalidOptionError: `event_scope` would refuse a field.
        """
        scope = self._scope
        if scope is not None:
            around = self.fields
            known = around() if callable(around) else around
            # What the scope emits gets the fields around the block: asking again would never end.
            frame = new_ambient_frame(CURRENT.get(None))
            frame.fields = known
            fields = merge_scopes(known, run_in_frame(frame, scope))
            # Threads that ask at the same time all get the answer that the first of them got.
            vars(self).setdefault("_known", fields)
            self._scope = None  # it may keep a whole request alive
        return self._known

    def _joined(self) -> DeferralFrame | None:
        """Return the innermost enclosing block that goes on, past those that have ended."""
        outer = self._enclosing
        while outer is not None and not outer.is_open:
            outer = outer._enclosing
        return outer


def _merged(around: Fields, block: DeferralFrame) -> Mapping[str, str]:
    """Return the fields around a part of a block, together with those of the block, which win."""
    return {**(around() if callable(around) else around), **block.resolved_fields()}


class Raised:
    """The exceptions of several emissions, to be raised together after the last of them."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.exit: BaseException | None = None

    def add(self, error: BaseException, taken: list[Emission]) -> None:
        """Note the exception of an emission.

        Args:
            error: the exception.
            taken: the emission, in a list; it is dropped if an interrupt kept it from going out.
        """
        for emission in taken:
            if emission.state == "deferred":
                emission._values.drop()
        if isinstance(error, Exception):
            self.errors.append(error)
        elif self.exit is None:
            self.exit = error

    def again(self) -> None:
        """Raise the exceptions noted; do nothing if there are none.

        Raises:
            BaseException: the first that is no `Exception`, with the others as its cause.
            Exception: the only exception.
            HandlerErrors: there are several exceptions.
        """
        others: Exception | None = self.errors[0] if self.errors else None
        if len(self.errors) > 1:
            message = f"{len(self.errors)} of the emissions that were held back raised"
            others = HandlerErrors(message, self.errors)
        end = self.exit
        self.errors, self.exit = [], None  # the traceback keeps this frame
        try:
            if end is not None and others is not None:
                raise end from others
            if end is not None:
                raise end
            if others is not None:
                raise others
        finally:
            del end, others
