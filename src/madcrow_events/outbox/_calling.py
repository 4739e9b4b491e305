"""Calling the handler of a run, delivery by delivery, and judging what came of it."""

from __future__ import annotations

import traceback
from asyncio import run_coroutine_threadsafe
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from sysconfig import get_paths
from time import monotonic
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pydantic_core import from_json

from madcrow_events._text import type_name
from madcrow_events.exceptions import HandlerTimeoutError
from madcrow_events.models import values_of
from madcrow_events.outbox._errors import (
    HandlerIdError,
    LeaseLostError,
    MalformedPayloadError,
    UnknownVersionError,
    WorkerDiedError,
)
from madcrow_events.outbox._retry import GiveUp, RetryLater, with_members
from madcrow_events.outbox._rows import Claimed, Failed, Lease, Settlement
from madcrow_events.outbox._senders import read
from madcrow_events.outbox._sessions import CALL, engine_for_handlers
from madcrow_events.outbox._tables import DEAD, HEAD

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection

    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.emissions import Emission
    from madcrow_events.models import BaseEventContext
    from madcrow_events.outbox._durable import DurableHandler
    from madcrow_events.outbox._statements import Statements
    from madcrow_events.signals import EventSignal

__all__ = ["Caller", "Ended", "Run", "place_of"]

_HOPELESS: Final = (GiveUp, MalformedPayloadError, WorkerDiedError)
"""What no further attempt can mend."""

_RUN_FOR: Final = 0.5
"""After how many seconds a run ends early, so that a crash repeats little."""

_CARRY_AGAIN: Final = 0.5
"""After how many seconds to carry again what could not be carried."""

_LOOK_AGAIN: Final = 60.0
"""After how many seconds to look again whether a version is known now."""


@dataclass(slots=True, eq=False)
class Run:
    """Claimed deliveries of one handler: one, or several of one lane in their order.

    Attributes:
        handler: the handler.
        handler_id: its id in the tables.
        token: the token of the lease.
        rows: the deliveries.
        valid_until: until when the lease is held for sure, by the monotonic clock of this process.
    """

    handler: DurableHandler
    handler_id: int
    token: int
    rows: list[Claimed]
    valid_until: float

    @property
    def is_valid(self) -> bool:
        """Whether nobody else can have taken the lease over."""
        return monotonic() < self.valid_until


@dataclass(slots=True, eq=False)
class Ended:
    """What came of a run.

    Attributes:
        run: the run.
        settlement: what is to be written down; None if nothing is.
        dead: the emission to announce, if its delivery is dead.
        done: how many deliveries were handled.
        error: what the last delivery failed with.
        is_lost: whether its lease was over before all of it was called.
    """

    run: Run
    settlement: Settlement | None
    dead: Emission | None = None
    done: int = 0
    error: BaseException | None = field(default=None, repr=False)
    is_lost: bool = False


class Caller:
    """Calls durable handlers.

    Args:
        dispatcher: the dispatcher.
        statements: the statements for the tables.
        engine: the engine for the sessions of handlers.
        owner: the outbox.
        read: makes the context of an event of some version, from its stored payload.
        loop: the event loop for async handlers; None for that of the dispatcher.
        keep: whether to keep what was handled.
    """

    def __init__(
        self,
        dispatcher: EventDispatcher,
        statements: Statements,
        engine: Any,
        owner: object,
        read: Callable[[EventSignal[Any], int, str], BaseEventContext],
        loop: AbstractEventLoop | None,
        *,
        keep: bool,
    ) -> None:
        self.dispatcher = dispatcher
        self._statements = statements
        self._engine = engine_for_handlers(engine)
        self.owner = owner
        self._read = read
        self._loop = loop
        self._keep = keep
        self.fail: Mapping[str, Exception] = {}
        """What handlers raise in a test, instead of being called."""

    def call(self, run: Run) -> Ended:
        """Call the handler for the deliveries of a run, until one fails or time is up."""
        started = monotonic()
        done: list[int] = []
        for claimed in run.rows:
            if not run.is_valid:
                return Ended(run, None, is_lost=True)
            if done and monotonic() - started > _RUN_FOR:
                return self._settled(run, done, _given_back(claimed))
            delivery = _Delivery(self, run, claimed)
            failed = delivery.call()
            if failed is not None:
                if isinstance(delivery.error, LeaseLostError):
                    return Ended(run, None, error=delivery.error, is_lost=True)
                return self._settled(run, done, failed, delivery)
            if delivery.is_settled:  # in the transaction of the handler, which is alone
                return Ended(run, None, done=1)
            done.append(claimed.event_seq)
        return self._settled(run, done, None)

    def call_all(self, runs: Sequence[Run]) -> list[Ended]:
        """Call the handler of one run, or have several runs carried together."""
        carry = runs[0].handler.carry
        if carry is None:
            return [self.call(run) for run in runs]
        if (error := self.fail.get(runs[0].handler.name)) is not None:
            return [self._carried(run, 0, error) for run in runs]
        outcomes = carry([run.rows for run in runs])
        return [self._carried(run, *it) for run, it in zip(runs, outcomes, strict=True)]

    def _carried(self, run: Run, count: int, error: BaseException | None) -> Ended:
        done = [it.event_seq for it in run.rows[:count]]
        if error is not None:
            delivery = _Delivery(self, run, run.rows[count])
            delivery.error = error
            return self._settled(run, done, delivery.failed(error), delivery)
        if count < len(run.rows):
            return self._settled(run, done, _given_back(run.rows[count], _CARRY_AGAIN))
        return self._settled(run, done, None)

    def give_back(self, run: Run, delay: float = 0.0) -> Ended:
        """Return the settlement of a run of which nothing was called.

        Args:
            run: the run.
            delay: after how many seconds it is due again.
        """
        return self._settled(run, [], _given_back(run.rows[0], delay))

    def time_out(self, run: Run) -> Ended:
        """Return the settlement of a run whose plain handler runs longer than it may."""
        delivery = _Delivery(self, run, run.rows[0])
        delivery.error = _timeout_of(run.handler)
        return self._settled(run, [], delivery.failed(delivery.error), delivery)

    def settle(self, connection: Connection, settlements: Sequence[Settlement]) -> set[Lease]:
        """Write down what came of runs; return the leases that are lost."""
        self._statements.lock(connection)
        return self._statements.settle(connection, settlements, keep=self._keep)

    def begin(self, connection: Connection) -> None:
        """Become the writer of a transaction, where there is one at a time."""
        self._statements.lock(connection)

    def settlement_for(self, run: Run, done: list[int], failed: Failed | None) -> Settlement:
        """Return what is to be written down of a run."""
        head = run.rows[0]
        last = done[-1] if failed is None else failed.event_seq
        # The head of the lane is gone, unless the last one has become it.
        leaves_head = failed is not None and failed.key is not None
        # Only what was claimed one by one goes on so.
        alone_until = head.alone_until if len(run.rows) == 1 else 0
        return Settlement(
            run.handler_id,
            head.event_seq,
            run.token,
            head.deliveries,
            head.key,
            tuple(done),
            failed,
            None if head.key is None or leaves_head else last,
            alone_until,
        )

    def _settled(
        self,
        run: Run,
        done: list[int],
        failed: Failed | None,
        delivery: _Delivery | None = None,
    ) -> Ended:
        is_dead = failed is not None and failed.is_dead
        return Ended(
            run,
            self.settlement_for(run, done, failed),
            dead=delivery.emission if is_dead and delivery is not None else None,
            done=len(done),
            error=None if delivery is None else delivery.error,
        )


class _Delivery:
    """One call of a handler for one event."""

    def __init__(self, caller: Caller, run: Run, claimed: Claimed) -> None:
        self._caller = caller
        self._run = run
        self.claimed = claimed
        self.owner = caller.owner
        self.engine = caller._engine
        self.is_settled = False
        self.emission: Emission | None = None
        self.error: BaseException | None = None

    def call(self) -> Failed | None:
        """Call the handler; return None if it has handled the event, else how it goes on."""
        claimed, handler = self.claimed, self._run.handler
        if claimed.deliveries > handler.retry.attempts:
            self.error = WorkerDiedError(
                f"the worker has ended, or lost its lease, in one of {handler.retry.attempts} calls"
            )
            return self.failed(self.error)
        try:
            context = self._context()
            if (
                handler.when is not None
                and self._is_first
                and not handler.when(MappingProxyType(values_of(context)))
            ):
                return None
            started = monotonic()
            copy_context().run(self._deliver, context)
            took = monotonic() - started
        except (UnknownVersionError, HandlerIdError) as error:  # newer code may know better
            self.error = error
            return _given_back(claimed, _LOOK_AGAIN, error)
        except BaseException as error:  # exits of a handler, too: they are not for the worker
            self.error = error
            return self.failed(error)
        failures = self.emission.failures if self.emission is not None else ()
        if failures:
            self.error = failures[0].exception
        elif handler.timeout is not None and took > handler.timeout and not self.is_settled:
            self.error = _timeout_of(handler)  # a plain handler, which nobody has seen in time
        return None if self.error is None else self.failed(self.error)

    @property
    def _attempt(self) -> int:
        """Which call it is; those that have ended their process count, too."""
        return max(self.claimed.attempts + 1, self.claimed.deliveries)

    @property
    def _is_first(self) -> bool:
        # It may have been claimed before: that worker may have ended before it asked.
        return self.claimed.attempts == 0

    def _context(self) -> Any:
        claimed, caller, signal = self.claimed, self._caller, self._run.handler.signal
        if claimed.event not in {signal.name, *signal.formerly}:
            raise HandlerIdError(
                f"a delivery of {claimed.event} is for the id {self._run.handler.name}, which is "
                f"that of a handler of {signal.name} here: deploy the newest code everywhere, or "
                "give this one another id",
                handler=self._run.handler.bound.handler,
            )
        return caller._read(signal, claimed.version, claimed.payload)

    def _deliver(self, context: Any) -> None:
        claimed, caller, handler = self.claimed, self._caller, self._run.handler
        if handler.name in caller.fail:
            raise caller.fail[handler.name]
        CALL.set(self)
        headers = from_json(claimed.headers)
        given: dict[str, Any] = {
            "sender": read(claimed.sender) if claimed.sender is not None else None,
            "id": UUID(claimed.event_id),
            "correlation_id": _uuid(headers.get("correlation")),
            "causation_id": _uuid(headers.get("causation")),
            "scope": headers.get("scope"),
            "attempt": self._attempt,
            "origin": headers.get("origin"),
        }
        dispatcher = caller.dispatcher
        if handler.is_async and caller._loop is not None:
            if caller._loop.is_closed():
                raise LeaseLostError("the event loop of the worker is closed")
            waiting = run_coroutine_threadsafe(
                dispatcher.deliver_async(handler.bound, context, **given), caller._loop
            )
            self.emission = waiting.result()
        else:
            self.emission = dispatcher.deliver(handler.bound, context, **given)

    def failed(self, error: BaseException) -> Failed:
        claimed, handler = self.claimed, self._run.handler
        attempts = self._attempt - isinstance(error, WorkerDiedError)  # which has called nobody
        raised = [*with_members(error)]
        hopeless = (*_HOPELESS, *handler.retry.give_up_on)
        reasons = [it for it in raised if isinstance(it, hopeless)]
        is_dead = bool(reasons) or attempts >= handler.retry.attempts
        waits = [it.seconds for it in raised if isinstance(it, RetryLater)]
        delay = max(waits, default=0.0)
        if not waits and not is_dead:
            delay = handler.retry.wait_after(attempts)
        causes = [*reasons, *(it for it in raised if not isinstance(it, BaseExceptionGroup))]
        name = type_name(type(causes[0]))
        return Failed(
            claimed.event_seq,
            DEAD if is_dead else HEAD,
            None if is_dead and handler.on_dead == "continue" else claimed.key,
            int(delay * 1_000_000),
            attempts,
            max(1, claimed.deliveries),
            claimed.alone_until,
            name,
            f"{name}{place_of(causes[0].__traceback__)}",
        )

    # For the handler that takes a session

    def begin(self, connection: Connection) -> None:
        """Become the writer, where there is one at a time."""
        self._caller.begin(connection)

    def settle(self, connection: Connection) -> bool:
        """Write down that the event was handled; return whether the lease is still held."""
        settlement = self._caller.settlement_for(self._run, [self.claimed.event_seq], None)
        return not self._caller.settle(connection, [settlement])


def _timeout_of(handler: DurableHandler) -> HandlerTimeoutError:
    """Return the error of a handler that runs longer than it may."""
    return HandlerTimeoutError(
        f"{handler.name} has run longer than its timeout of {handler.timeout} seconds",
        event=handler.signal.name,
        handler=handler.bound.handler,
        timeout=handler.timeout or 0,
    )


def _given_back(claimed: Claimed, delay: float = 0.0, error: BaseException | None = None) -> Failed:
    """Return a delivery as it was before its claim, due after `delay` seconds."""
    is_head = claimed.head == claimed.event_seq
    return Failed(
        claimed.event_seq,
        HEAD,
        claimed.key,
        int(delay * 1_000_000),
        claimed.attempts,
        claimed.deliveries - 1 if is_head else claimed.deliveries,
        claimed.alone_until,
        None if error is None else type_name(type(error)),
        None if error is None else type_name(type(error)),
    )


def _uuid(text: str | None) -> UUID | None:
    return None if text is None else UUID(text)


_NOT_THE_APPLICATION: Final = (
    *(str(Path(path)) for name, path in get_paths().items() if "lib" in name),
    str(Path(__file__).parents[1]),
)


def place_of(traceback_: TracebackType | None) -> str:
    """Return where the application raised, such as " in shop.mail:17 send"; "" if nowhere.

    That is the innermost frame that belongs neither to a package that was installed, nor to the
    standard library, nor to this package. It has the name of the module, and no path of a machine.
    """
    place = ""
    for frame, line in traceback.walk_tb(traceback_):
        code = frame.f_code
        if not code.co_filename.startswith((*_NOT_THE_APPLICATION, "<")):
            module = frame.f_globals.get("__name__", "?")
            place = f" in {module}:{line} {code.co_qualname}"
    return place
