"""The parts of the wings above that emissions use, as protocols."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from madcrow_events.emissions._emission import Emission
    from madcrow_events.emissions._failures import HandlerFailure
    from madcrow_events.emissions._outcomes import Outcomes
    from madcrow_events.emissions._plan import Entry, Plan, Plans
    from madcrow_events.models import BaseEventContext
    from madcrow_events.observers import Observer

__all__ = ["Admission", "Policy", "Signal"]


class Admission(Protocol):
    """Admits handlers that run later, and starts them.

    Implemented by `_background`; called by the loops, by `Emission.wait`, and as blocks end.
    """

    def admit(
        self,
        emission: Emission,
        plan: Plan,
        outcomes: Outcomes,
        held_back: object,
        *,
        awaiting: bool,
    ) -> None:
        """Set permits aside for the handlers of an emission that are not called inline.

        Args:
            emission: the emission, none of whose handlers has been called.
            plan: its handlers.
            outcomes: its outcomes, which get the permits.
            held_back: its `HeldBack`, if a block held it back; else anything.
            awaiting: whether its emitter awaits the async handlers.

        Raises:
            QueueFullError: the queue lacks permits, and waiting for them is not wanted or could
                never end.
            DispatcherClosedError: the dispatcher has been closed.
            EventLoopError: the handlers cannot be called from here.
        """

    def start_alone(
        self,
        emission: Emission,
        outcomes: Outcomes,
        entry: Entry,
        payload: object,
        is_typed: bool,
    ) -> bool:
        """Start the only handler of an emission that nothing surrounds, if that is simple.

        Args:
            emission: the emission.
            outcomes: its outcomes.
            entry: the handler: `Plan.alone`.
            payload: the context: keywords, or an instance of the signal's model.
            is_typed: whether it is the latter.

        Returns:
            Whether it is started; if not, nothing has happened.
        """
        ...

    def start(self, emission: Emission, plan: Plan, outcomes: Outcomes) -> None:
        """Start the handlers that `emit` leaves for later."""

    async def start_async(self, emission: Emission, plan: Plan, outcomes: Outcomes) -> None:
        """Start the background handlers of `emit_async`."""

    def abandon(self, emission: Emission) -> None:
        """Give up the handlers of an emission that have not begun."""

    async def acquire_async(self, emission: Emission) -> None:
        """Wait for the permits of an emission that a block held back, and acquire them."""

    def release(self, permits: list[None]) -> None:
        """Release permits that were set aside and not used."""

    def check_waiting(self, emission: Emission) -> None:
        """Refuse to wait in a thread for handlers that wait for this thread."""

    def check_awaiting(self, emission: Emission) -> None:
        """Refuse to wait for handlers that cannot end."""

    def report_lost(self) -> None:
        """Record as failed the handlers that can never end."""


class Policy(Protocol):
    """The policy of a dispatcher.

    Implemented by `EventDispatcher`, which users hold: hence the underscores. Called by the loops,
    by observing, as blocks end, and by the jobs of the background.
    """

    on_error: Any
    log_tracebacks: bool
    _observers: list[Observer]

    @property
    def _admission(self) -> Admission: ...

    def _fit(
        self, signal: Any, context: Any, /
    ) -> tuple[BaseEventContext, BaseEventContext | None]:
        """Return the context to emit, as the signal's model if that was defined anew meanwhile.

        Returns:
            The context; and the same again, or None if it is a `GenericEventContext`.

        Raises:
            ContextTypeError: the signal carries another model now.
            ContextValidationError: the context does not fit the new model.
        """
        ...

    def _announce(
        self, emission: Emission, failures: tuple[HandlerFailure, ...], batch_size: int | None
    ) -> None:
        """Emit `handler_failed` for each failure."""

    async def _announce_async(
        self, emission: Emission, failures: tuple[HandlerFailure, ...], batch_size: int | None
    ) -> None:
        """Emit `handler_failed` for each failure, and await its async handlers."""


class Table(Protocol):
    """The plans of a signal; implemented by `subscriptions`."""

    plans: Plans

    def plan_for(self, sender: object, /) -> Plan:
        """Return the plan of an emission of `sender`."""
        ...

    def log_collected(self, event: str, /) -> None:
        """Write at DEBUG which handlers of this event no longer exist, each once."""


class Signal(Protocol):
    """A signal; implemented by `EventSignal`, called by the loops."""

    name: str

    @property
    def context_model(self) -> type[BaseEventContext] | None:
        """The model of its contexts."""

    @property
    def _table(self) -> Table: ...

    @property
    def _models(self) -> tuple[type[BaseEventContext], ...]:
        """The models that handlers of the context may ask for."""
        ...

    def _replaces(self, models: tuple[type[BaseEventContext], ...], /) -> bool:
        """Whether its model has replaced one of these, which was defined earlier."""
        ...
