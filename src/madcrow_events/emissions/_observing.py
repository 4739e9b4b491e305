"""Observing emissions and handlers: by the observers of an application, and by the debug log.

An observer is somebody else's code on every path, so all that it raises is logged and goes no
further. The debug log is one more observer, while the logger is at DEBUG.
"""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from madcrow_events._logs import LOGGER, is_debugging, log, log_observer_failure
from madcrow_events._text import type_name
from madcrow_events._validation import fix_for_context
from madcrow_events.emissions._failures import failures_of, is_failure
from madcrow_events.emissions._plan import FAKED, NOBODY
from madcrow_events.emissions._styles import RECORDER
from madcrow_events.models import BaseEventContext

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from madcrow_events.emissions._emission import Emission
    from madcrow_events.emissions._plan import Subscribed
    from madcrow_events.emissions._policy import Policy
    from madcrow_events.observers import Observer

__all__ = [
    "KNOWN_LEVELS",
    "Observation",
    "is_debugging",
    "is_observed",
    "log_skipped",
    "observing_handler",
    "start_observing",
]

KNOWN_LEVELS: dict[int, bool] = getattr(LOGGER, "_cache", {})
"""The logger's own memory of its answers, which it empties when a level changes.

A look-up here is faster than a call. On a Python without this memory the logger is asked each time.
"""


def is_observed(dispatcher: Policy) -> bool:
    """Whether emissions and calls have observers now, the debug log included."""
    return bool(dispatcher._observers or (KNOWN_LEVELS.get(logging.DEBUG, True) and is_debugging()))


_observing: ContextVar[bool] = ContextVar("madcrow_events.observing", default=False)
"""Whether an observer is being entered or left: its own emissions are not observed."""


class Observation:
    """The observers of one emission, or of one call of a handler.

    The emission or call goes on as if there were no observers, whatever they raise or swallow.

    Args:
        dispatcher: the dispatcher that has the observers.
    """

    # No reference to the emission, which refers to this.
    __slots__ = ("_dispatcher", "_entered")

    def __init__(self, dispatcher: Policy) -> None:
        self._dispatcher = dispatcher
        self._entered: list[tuple[Observer, AbstractContextManager[object]]] = []

    def enter(self, emission: Emission, *handler: object) -> None:
        """Enter the observers, in their order.

        Args:
            emission: the emission.
            handler: the handler that is called; left out for the emission itself.
        """
        observing = _observing.get()
        observers: tuple[Observer, ...] = () if observing else tuple(self._dispatcher._observers)
        if is_debugging():
            observers = (*observers, _debug_log)
        try:
            _observing.set(True)
            for observer in observers:
                self._enter(observer, emission, handler)
        finally:
            _observing.set(observing)

    def _enter(self, observer: Observer, emission: Emission, handler: tuple[Any, ...]) -> None:
        try:
            around = (
                observer.handling(emission, *handler) if handler else observer.emission(emission)
            )
            around.__enter__()
        except BaseException as error:
            if not is_failure(error):
                raise
            self._log_failure(observer, error)
        else:
            self._entered.append((observer, around))

    def leave(self, error: BaseException | None = None) -> None:
        """Leave the observers, the last first; doing so again is no error.

        Args:
            error: the exception that ended the emission or the call, or None.
        """
        observing = _observing.get()
        try:
            _observing.set(True)
            self._leave(error)
        finally:
            _observing.set(observing)

    def _leave(self, error: BaseException | None) -> None:
        details = (None, None, None) if error is None else (type(error), error, error.__traceback__)
        while self._entered:
            observer, around = self._entered.pop()
            try:
                around.__exit__(*details)
            except BaseException as raised:
                if raised is error:
                    continue
                if not is_failure(raised):
                    self._leave(raised)
                    raise
                self._log_failure(observer, raised)

    def _log_failure(self, observer: Observer, error: BaseException) -> None:
        log_observer_failure(observer, error, tracebacks=self._dispatcher.log_tracebacks)


class _HandlerObservation(Observation):
    """The observers of one call of a handler, for a `with` block."""

    __slots__ = ("_emission", "_handler")

    def __init__(self, emission: Emission, handler: object) -> None:
        dispatcher: Any = emission.dispatcher
        super().__init__(dispatcher)
        self._emission = emission
        self._handler = handler

    def __enter__(self) -> None:
        try:
            self.enter(self._emission, self._handler)
        except BaseException as error:
            self.leave(error)
            raise

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the observers; an exception that they swallow is raised all the same."""
        self.leave(error)


def start_observing(emission: Emission) -> None:
    """Enter the observers of an emission, until its `observation` is left."""
    dispatcher: Any = emission.dispatcher
    failures_of(emission).observation = made = Observation(dispatcher)
    made.enter(emission)


def observing_handler(emission: Emission, handler: object) -> AbstractContextManager[object]:
    """Return a context manager to call a handler in: it enters the observers, if there are any."""
    dispatcher = emission.dispatcher
    if dispatcher is not None and is_observed(dispatcher):
        return _HandlerObservation(emission, handler)
    return nullcontext()


class _DebugLog:
    """Writes each emission, and each call of a handler with its time, at DEBUG."""

    def emission(self, emission: Emission, /) -> AbstractContextManager[object]:
        """Write that an event is emitted, and to how many handlers, or why to none."""
        event, sender = emission.event, type_name(type(emission.sender))
        emission.signal._table.log_collected(event)
        number = sum(it.origin is not RECORDER for it in emission._plan.subscriptions)
        if number > 1:
            log(logging.DEBUG, "%s emitted by %s to %d handlers", event, sender, number)
        elif number:
            log(logging.DEBUG, "%s emitted by %s to 1 handler", event, sender)
        elif emission._plan is NOBODY:
            log(logging.DEBUG, "%s emitted by %s, and muted", event, sender)
        elif emission._plan is FAKED or emission.signal.has_receivers_for(emission.sender):
            log(logging.DEBUG, "%s emitted by %s, and faked by a test", event, sender)
        elif emission.signal.subscriptions:
            log(logging.DEBUG, "%s emitted by %s: nobody listens to this sender", event, sender)
        else:
            log(logging.DEBUG, "%s emitted by %s: nobody listens", event, sender)
        payload = emission._payload
        if type(payload) is dict and isinstance(payload.get("context"), BaseEventContext):
            log(
                logging.DEBUG,
                "%s was emitted with a model as the keyword 'context': %s",
                event,
                fix_for_context(emission.signal.context_model, type(payload["context"])),
            )
        return nullcontext()

    @contextmanager
    def handling(self, emission: Emission, handler: object, /) -> Iterator[None]:
        """Write whether a call returned or raised, and how long it took."""
        started = time.perf_counter()
        outcome = "raised"
        try:
            yield
            outcome = "returned"
        finally:
            elapsed = (time.perf_counter() - started) * 1000
            name = emission.name_of(handler)
            log(
                logging.DEBUG,
                "handler %s of %s %s after %.3f ms",
                name,
                emission.event,
                outcome,
                elapsed,
            )


_debug_log = _DebugLog()


def log_skipped(emission: Emission, subscription: Subscribed) -> None:
    """Write at DEBUG that a handler was skipped: its subscription is not for this emission."""
    if is_debugging():
        log(logging.DEBUG, "handler %s of %s skipped", subscription.name, emission.event)
