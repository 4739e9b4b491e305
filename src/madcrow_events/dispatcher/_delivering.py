"""Calling one handler for one event, as the workers of queues do."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from typing_extensions import TypeVar

from madcrow_events._background.admission import Admission
from madcrow_events._other_loops import event_loop_error, greenlets, other_library
from madcrow_events._text import type_name
from madcrow_events._validation import check_complete
from madcrow_events.dispatcher._announcing import announce, announce_async
from madcrow_events.dispatcher._fitting import fitting, refuse_second_context
from madcrow_events.emissions import Emission, ScopeFields
from madcrow_events.emissions._delivery import (
    deliver,
    deliver_async,
    is_awaited,
    lose_delivery,
    new_delivery,
)
from madcrow_events.emissions._lazy_asyncio import running_loop
from madcrow_events.emissions._plan import FAKED
from madcrow_events.exceptions import InvalidOptionError, WouldDeadlockError
from madcrow_events.models import BaseEventContext
from madcrow_events.signals import SignalRegistry
from madcrow_events.signals._binding import is_faked, signal_of
from madcrow_events.signals._registry import record_delivery
from madcrow_events.subscriptions import PatternSubscription, Subscription
from madcrow_events.subscriptions._bound import plan_delivery

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


__all__ = ["Delivering"]

ContextT = TypeVar("ContextT", bound=BaseEventContext)


class Delivering:
    """The part of `EventDispatcher` that calls one handler for one event."""

    __slots__ = ()

    _admission: Admission
    signals: SignalRegistry

    def deliver(
        self,
        bound: Subscription,
        context: ContextT,
        *,
        sender: object = None,
        id: UUID | None = None,  # noqa: A002  # as the attribute of the emission
        correlation_id: UUID | None = None,
        causation_id: UUID | None = None,
        scope: ScopeFields | Mapping[str, str | None] | None = None,
        attempt: int = 1,
        origin: Mapping[str, str] | None = None,
    ) -> Emission[ContextT]:
        """Call one handler for one event, and wait for its end.

        The observers see it as an emission with one handler. A failure is logged, and recorded in
        `failures`. It is not raised, whatever `on_error` says, and not announced as
        `handler_failed`: call `announce` if it is final.

        What runs around the call does not count. A `deferred` block does not hold the event back,
        an `event_scope` does not fill it in, and the emission is not nested in another one. The
        options `sender`, `when` and `once`, and `muted` blocks are not asked.

        Args:
            bound: what `EventSignal.bind` returned, or another active subscription to one event.
            context: an instance of the event's model, or a `GenericEventContext` whose `event_type`
                is the event's name.
            sender: the sender for the handler; None, the default, stands for the signal.
            id: the id of the emission; None, the default, to make one. Give the id of the event
                that is delivered.
            correlation_id: the id of the first emission in the chain of causes; None, the default,
                for the emission itself.
            causation_id: the id of the emission that caused this one; None, the default, if no
                other did.
            scope: the fields of an `event_scope`, for the events that the handler emits.
            attempt: which call of this handler for this event it is, for `Emission.attempt`.
            origin: what another service has said of the event, for `Emission.origin`.

        Returns:
            The emission, whose handler has ended.

        Raises:
            ContextTypeError: the context is of another model, or the sender is a context.
            ContextValidationError: the context lacks fields. Or it is of an older model that a
                reload has replaced, and does not fit the new one.
            UnknownEventError: the subscription belongs to another registry, or its event was
                removed.
            InvalidOptionError: the subscription has ended, or is none to one event at a time. Or an
                id is no UUID, a scope has no such field, the attempt is no positive int, or the
                origin is no mapping of texts.
            DispatcherClosedError: the dispatcher is closed.
            WouldDeadlockError: the handler is async, and the event loop that runs here would stop;
                await `deliver_async`. Or the loop that the dispatcher is bound to does not run.
            EventLoopError: the handler is async, and another library takes the place of asyncio
                here.
            BaseException: the handler raised an exit, such as `KeyboardInterrupt`.

        Example:
            ```python
            from uuid import UUID

            from madcrow_events import BaseEventContext, get_event_dispatcher, madcrow_signals


            @madcrow_signals.event
            class OrderPlaced(BaseEventContext):
                order_id: int


            def send_invoice(context: OrderPlaced) -> None:
                raise ConnectionError("no route to the mail server")


            bound = madcrow_signals[OrderPlaced].bind(send_invoice, id="invoice")
            delivery = get_event_dispatcher().deliver(
                bound,
                OrderPlaced(order_id=7),
                id=UUID("0197c1a2-4d5e-7f60-8a9b-0c1d2e3f4a5b"),
            )
            print(delivery.id, type(delivery.failures[0].exception).__name__)
            ```

            ```text
            0197c1a2-4d5e-7f60-8a9b-0c1d2e3f4a5b ConnectionError
            ```
        """
        emission = self._new_delivery(
            bound,
            context,
            sender=sender,
            id=id,
            correlation_id=correlation_id,
            causation_id=causation_id,
            scope=scope,
            attempt=attempt,
            origin=origin,
        )
        if is_awaited(emission):
            loop = self._loop_for(emission)
            work = partial(deliver_async, emission)
            instead = self._admission.await_delivery(emission, loop, work)
            if instead:
                reason = f"the event loop of {bound.name} {instead} before the handler had ended"
                lose_delivery(emission, reason)
            del work
        else:
            deliver(emission)
        # The traceback of a failure keeps what this frame names alive.
        kept, emission = [emission], None  # type: ignore[assignment]
        return kept.pop()

    async def deliver_async(
        self,
        bound: Subscription,
        context: ContextT,
        *,
        sender: object = None,
        id: UUID | None = None,  # noqa: A002  # as the attribute of the emission
        correlation_id: UUID | None = None,
        causation_id: UUID | None = None,
        scope: ScopeFields | Mapping[str, str | None] | None = None,
        attempt: int = 1,
        origin: Mapping[str, str] | None = None,
    ) -> Emission[ContextT]:
        """Call one handler for one event as `deliver` does, and await it if it is async.

        A plain handler is called in place.

        Args:
            bound: as for `deliver`.
            context: as for `deliver`.
            sender: as for `deliver`.
            id: as for `deliver`.
            correlation_id: as for `deliver`.
            causation_id: as for `deliver`.
            scope: as for `deliver`.
            attempt: as for `deliver`.
            origin: as for `deliver`.

        Returns:
            The emission, whose handler has ended.

        Raises:
            CancelledError: the caller was cancelled, and the handler with it.
            EventLoopError: the handler is async, and asyncio does not run here.
            MadcrowEventsError: as for `deliver`.
            BaseException: the handler raised an exit, such as `KeyboardInterrupt`.
        """
        emission = self._new_delivery(
            bound,
            context,
            sender=sender,
            id=id,
            correlation_id=correlation_id,
            causation_id=causation_id,
            scope=scope,
            attempt=attempt,
            origin=origin,
        )
        await deliver_async(emission)
        kept, emission = [emission], None  # type: ignore[assignment]  # as in `deliver`
        return kept.pop()

    def announce(self, emission: Emission[Any]) -> None:
        """Emit `handler_failed` for each failure of a delivery, which announces none itself.

        A worker calls it when it has settled the delivery, and only if no further attempt follows.
        Failures of other emissions are announced already, so do not give these. In a `deferred`
        block, the announcement is held back as any emission there.

        Args:
            emission: what `deliver` or `deliver_async` has returned.

        Raises:
            UnknownEventError: the event belongs to another registry.
        """
        self.signals.resolve(emission.signal)
        announce(self, emission, emission.failures)  # type: ignore[arg-type]  # it is a dispatcher

    async def announce_async(self, emission: Emission[Any]) -> None:
        """Announce failures as `announce` does, and await the async handlers of `handler_failed`.

        Args:
            emission: as for `announce`.

        Raises:
            UnknownEventError: the event belongs to another registry.
        """
        self.signals.resolve(emission.signal)
        await announce_async(self, emission, emission.failures)  # type: ignore[arg-type]  # as above

    def _new_delivery(
        self,
        bound: Subscription,
        context: Any,
        *,
        sender: object,
        id: UUID | None,  # noqa: A002  # as above
        correlation_id: UUID | None,
        causation_id: UUID | None,
        scope: Mapping[str, Any] | None,
        attempt: int,
        origin: Mapping[str, str] | None,
    ) -> Emission[Any]:
        """Return the emission of a delivery, and check all that the caller has given.

        Raises:
            MadcrowEventsError: as for `deliver`.
        """
        handler = _handler_of(bound)
        signal = signal_of(self.signals, bound)
        self._admission.check_open(signal.name)
        refuse_second_context(signal, sender)
        fits, _ = fitting(signal, context)
        check_complete(signal.name, fits)
        dispatcher: Any = self
        emission = new_delivery(
            dispatcher,
            signal,
            fits,
            FAKED if is_faked(signal) else plan_delivery(bound, handler),
            sender=sender,
            id=id,
            correlation_id=correlation_id,
            causation_id=causation_id,
            scope=scope,
            attempt=attempt,
            origin=origin,
        )
        record_delivery(self.signals, emission)
        return emission

    def _loop_for(self, emission: Emission[Any]) -> AbstractEventLoop | None:
        """Return the loop for an async handler whose caller waits in a thread.

        Raises:
            EventLoopError: another library takes the place of asyncio here.
            WouldDeadlockError: the handler could not run as long as the caller waits.
        """
        event = emission.event
        library, threads = other_library(), greenlets()
        loop = self._admission.bound_loops.loop
        if library or (loop is None and threads == "eventlet"):
            raise event_loop_error(event, library or threads)
        if running_loop() is not None:
            raise WouldDeadlockError(
                f"{event} is delivered to an async handler, and deliver() would stop the event "
                "loop that runs here: await deliver_async()"
            )
        if loop is not None and not loop.is_running():
            raise WouldDeadlockError(
                f"{event} is delivered to an async handler in an event loop that does not run: "
                "run the loop that the dispatcher is bound to"
            )
        return self._admission.loop_for_threads()


def _handler_of(bound: object) -> Any:
    """Return the handler of a subscription that can be delivered to.

    Raises:
        InvalidOptionError: it is no subscription, or has ended, or is one to many events, or to
            many at a time.
    """
    if not isinstance(bound, Subscription):
        problem = f"not {type_name(type(bound))}: bind the handler, as in signal.bind(handler)"
    elif isinstance(bound, PatternSubscription):
        problem = f"and '{bound.event}' may be many events: bind {bound.name} to each of them"
    elif bound.batch is not None:
        problem = f"and {bound.name} takes batches: bind a handler of single events"
    else:
        handler = bound.handler
        if bound.active and handler is not None:
            return handler
        problem = f"and that of {bound.name} to {bound.event} has ended: bind the handler again"
    raise InvalidOptionError(f"deliver takes a subscription, {problem}", option="bound")
