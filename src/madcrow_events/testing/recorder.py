"""Recording emissions, to make assertions about them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Self, TypeAlias

from madcrow_events._names import HANDLER_FAILED, canonical_name, unknown_event
from madcrow_events._text import close_matches, handler_name, type_name
from madcrow_events._waiters import Waiters, check_seconds
from madcrow_events.emissions import Emission
from madcrow_events.emissions._contexts import keywords_of
from madcrow_events.emissions._outcomes import NO_RESULT
from madcrow_events.emissions._styles import RECORDER
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.models import BaseEventContext
from madcrow_events.signals import EventSignal, SignalRegistry, madcrow_signals
from madcrow_events.signals._models import matches
from madcrow_events.signals._old_names import old_names_in, present_name
from madcrow_events.signals._registry import declared_in, record
from madcrow_events.signals._subscribing import canonical_pattern, is_pattern, subscribe_as
from madcrow_events.subscriptions import Subscription
from madcrow_events.subscriptions._patterns import Pattern

Where: TypeAlias = Callable[[Mapping[str, Any]], object]
Event: TypeAlias = str | EventSignal[Any] | type[BaseEventContext]

__all__ = ["Recorder", "fake_events", "record_events"]

_FIRST = sys.maxsize  # priority

# How many emissions the message of a failed assertion lists, and characters of each value.
_SHOWN = 100
_SHOWN_LENGTH = 1000


class Recorder(AbstractContextManager["Recorder"]):
    """Records the emissions of a registry in a block, from every thread, task and dispatcher.

    `record_events` and `fake_events` make it, for one `with` or `async with` block. You can read it
    after the block, too. Its messages show the values of contexts, so use it in tests only.

    Attributes:
        is_open: whether the block has begun, and has not ended.
    """

    def __init__(
        self,
        patterns: tuple[Event, ...],
        signals: SignalRegistry,
        *,
        calls_handlers: bool = True,
    ) -> None:
        self._patterns = [
            signals.resolve(it).name if isinstance(it, EventSignal) else canonical_pattern(it)
            for it in patterns or ("*", HANDLER_FAILED)
        ]
        self._signals = signals
        self._calls_handlers = calls_handlers
        self._arrived = Waiters()
        # By identity, because an emission that several patterns match is recorded once.
        self._emissions: dict[int, Emission] = {}
        self._subscriptions: list[Subscription] = []
        self._has_begun = False
        self.is_open: bool = False

    def __enter__(self) -> Self:
        """Begin to record.

        Raises:
            RuntimeError: the recorder was used before.
            UnknownEventError: a name is that of no declared event.
        """
        if self._has_begun:
            raise RuntimeError("this recorder was used before: make a new one for each block")
        self._patterns = [
            it if is_pattern(it) else self._signals.resolve(it).name for it in self._patterns
        ]
        try:
            self._begin()
        except BaseException:
            self.close()
            raise
        return self

    def _begin(self) -> None:
        self._has_begun = self.is_open = True
        for pattern in self._patterns:
            self._subscriptions.append(
                subscribe_as(self._signals, pattern, self._record, {"priority": _FIRST}, RECORDER)
            )
        record(self._signals, self)

    async def __aenter__(self) -> Self:
        """Begin to record."""
        return self.__enter__()

    def __exit__(self, *exc_info: object) -> None:
        """Stop recording."""
        self.close()

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop recording."""
        self.close()

    def close(self) -> None:
        """Stop recording. A second call changes nothing."""
        self.is_open = False
        try:
            self._end()
        except BaseException:
            self._end()  # again, because an interrupt may have cut it short
            raise

    def _end(self) -> None:
        record(self._signals, self)
        for subscription in self._subscriptions:
            subscription.cancel()
        self._subscriptions.clear()

    def _is_faked(self, signal: EventSignal[Any], /) -> bool:
        return not self._calls_handlers and self._records(signal)

    def _records(self, signal: EventSignal[Any]) -> bool:
        return any(matches(signal, pattern) for pattern in self._patterns)

    def _record(self, emission: Emission) -> Any:
        self._emissions[id(emission)] = emission
        self._arrived.notify()
        return NO_RESULT  # keeps the recorder out of the results

    def _record_delivery(self, emission: Emission, /) -> None:
        if self._records(emission.signal):
            self._record(emission)

    @property
    def emissions(self) -> tuple[Emission, ...]:
        """The recorded emissions, in the order in which they began."""
        return tuple(list(self._emissions.values()))  # noqa: C414  # list() cannot be interrupted

    def clear(self) -> None:
        """Forget the emissions that were recorded so far."""
        self._emissions.clear()

    def assert_emitted(
        self,
        event: Event,
        /,
        *,
        times: int | None = None,
        where: Where | None = None,
        **fields: object,
    ) -> Emission:
        """Fail unless an event was emitted with these values in its context.

        Args:
            event: the name of the event, its signal, or its context class. A class also stands for
                the events whose models derive from it.
            times: exactly how often the event was emitted with these values; None, the default, for
                at least once.
            where: a function that gets the context as a mapping. Only emissions for which it
                returns something true count. If it raises, you get the exception.
            **fields: values of the context, by the names of the fields.

        Returns:
            The last of the emissions that count.

        Raises:
            AssertionError: no such emission was recorded; the message shows what was emitted. Or
                the assertion proves nothing, because the recorder does not record this event, or
                because the event's model has no such field.
            UnknownEventError: the event is not declared, or its signal belongs to another registry.
            InvalidOptionError: `times` is not a positive integer, or `where` is not a function.
        """
        if times is not None and (type(times) is not int or times < 1):
            raise InvalidOptionError(
                "times must be an int, 1 or more: for never there is assert_not_emitted",
                option="times",
            )
        wanted = self._wanted(event)
        found = self._matching(wanted, where, fields)
        if found and times in (None, len(found)):
            return found[-1]
        what = _described(wanted, where, fields)
        if times is None:
            raise AssertionError(f"{what} was not emitted.\n{self._told()}")
        raise AssertionError(
            f"{what} was emitted {_times(len(found))}, not {_times(times)}.\n{self._told()}"
        )

    def assert_not_emitted(
        self,
        event: Event,
        /,
        *,
        where: Where | None = None,
        **fields: object,
    ) -> None:
        """Fail if an event was emitted with these values in its context.

        Args:
            event: the name of the event, its signal, or its context class. A class also stands for
                the events whose models derive from it.
            where: as for `assert_emitted`.
            **fields: as for `assert_emitted`.

        Raises:
            AssertionError: such an emission was recorded. Or the assertion proves nothing, as for
                `assert_emitted`.
            UnknownEventError: the event is not declared, or its signal belongs to another registry.
            InvalidOptionError: `where` is not a function.
        """
        wanted = self._wanted(event)
        found = self._matching(wanted, where, fields)
        if found:
            what = _described(wanted, where, fields)
            raise AssertionError(f"{what} was emitted {_times(len(found))}.\n{self._told()}")

    def assert_handled_by(self, event: Event, handler: Callable[..., Any], /) -> None:
        """Fail unless a handler was called for an event, and returned without an exception.

        Args:
            event: the name of the event, its signal, or its context class. A class also stands for
                the events whose models derive from it.
            handler: the handler.

        Raises:
            AssertionError: the handler was not called, or it raised. The message names the handlers
                that were called. Or the recorder does not record this event.
            UnknownEventError: the event is not declared, or its signal belongs to another registry.
        """
        wanted = self._wanted(event)
        name, called_name = _shown(wanted), handler_name(handler)
        emissions = self._matching(wanted, None, {})
        called = [it.handler for emission in emissions for it in emission.results]
        if handler in called:
            return
        failures = [it for emission in emissions for it in emission.failures]
        for failure in failures:
            if failure.handler == handler:
                raise AssertionError(
                    f"{called_name} was called for {name}, and raised "
                    f"{type_name(type(failure.exception))}"
                ) from failure.exception
        others = sorted({handler_name(it) for it in called}) or ["nobody"]
        hint = ""
        if not self._calls_handlers:
            hint = " In a fake_events block handlers are not called."
        elif any(emission.pending for emission in emissions):
            hint = (
                " Some have not finished: drain() the dispatcher first, or await its drain_async()."
            )
        raise AssertionError(
            f"{name} was not handled by {called_name}, but by {', '.join(others)}.{hint}\n"
            f"{self._told()}"
        )

    def wait_for(
        self,
        event: Event,
        /,
        timeout: float | None = 5.0,
        *,
        where: Where | None = None,
        **fields: object,
    ) -> Emission:
        """Wait until another thread emits an event, unless it has been recorded already.

        Args:
            event: the name of the event, its signal, or its context class. A class also stands for
                the events whose models derive from it.
            timeout: how many seconds to wait at most; None for no limit.
            where: as for `assert_emitted`.
            **fields: as for `assert_emitted`.

        Returns:
            The last of the emissions that count.

        Raises:
            AssertionError: the event was not emitted in time. Or the assertion proves nothing, as
                for `assert_emitted`.
            UnknownEventError: the event is not declared, or its signal belongs to another registry.
            InvalidOptionError: the timeout is neither None nor a number of seconds above 0, or
                `where` is not a function.
        """
        check_seconds("timeout", timeout)
        wanted = self._wanted(event)
        self._arrived.wait(lambda: self._matching(wanted, where, fields), timeout)
        return self._awaited(wanted, timeout, where, fields)

    async def wait_for_async(
        self,
        event: Event,
        /,
        timeout: float | None = 5.0,
        *,
        where: Where | None = None,
        **fields: object,
    ) -> Emission:
        """Wait as `wait_for` does, while other tasks of the event loop go on.

        Args:
            event: the name of the event, its signal, or its context class. A class also stands for
                the events whose models derive from it.
            timeout: how many seconds to wait at most; None for no limit.
            where: as for `assert_emitted`.
            **fields: as for `assert_emitted`.

        Returns:
            The last of the emissions that count.

        Raises:
            AssertionError: as for `wait_for`.
            UnknownEventError: as for `wait_for`.
            InvalidOptionError: as for `wait_for`.
            EventLoopError: the event has not been recorded yet, and asyncio does not run here.
        """
        check_seconds("timeout", timeout)
        wanted = self._wanted(event)
        await self._arrived.wait_async(lambda: self._matching(wanted, where, fields), timeout)
        return self._awaited(wanted, timeout, where, fields)

    def _awaited(
        self,
        wanted: Pattern,
        timeout: float | None,
        where: Where | None,
        fields: Mapping[str, Any],
    ) -> Emission:
        found = self._matching(wanted, where, fields)
        if not found:
            raise AssertionError(
                f"{_described(wanted, where, fields)} was not emitted within {timeout} s.\n"
                f"{self._told()}"
            )
        return found[-1]

    def _wanted(self, event: Event) -> Pattern:
        """Return the name that an event has now, or the class that it was named by."""
        if isinstance(event, EventSignal):
            return self._signals.resolve(event).name
        if not isinstance(event, str):
            return canonical_pattern(event)
        name = canonical_name(event)
        signal: EventSignal[Any] | None = self._signals.get(name)
        return name if signal is None else signal.name

    def _matching(
        self, wanted: Pattern, where: Where | None, fields: Mapping[str, Any]
    ) -> list[Emission]:
        if where is not None and not callable(where):
            raise InvalidOptionError(
                "where must be a predicate over the context, such as "
                "lambda order: order['total'] > 3",
                option="where",
            )
        if isinstance(wanted, str):
            wanted = present_name(self._signals, wanted)  # it may change while somebody waits
        found = [emission for emission in self.emissions if matches(emission.signal, wanted)]
        self._refuse_what_always_holds(wanted, found, fields)
        return [emission for emission in found if _has(keywords_of(emission), fields, where)]

    def _refuse_what_always_holds(
        self, wanted: Pattern, found: list[Emission], fields: Mapping[str, Any]
    ) -> None:
        """Refuse assertions that prove nothing: misspelt names, and unrecorded events."""
        if not self._has_begun:
            raise AssertionError("nothing was recorded yet: use the recorder in a with block")
        if isinstance(wanted, str):
            declared = [self._signals[wanted]] if wanted in self._signals else []
            if not (found or declared or wanted == HANDLER_FAILED):
                raise unknown_event(wanted, self._signals, old_names_in(self._signals))
        else:
            declared = [it for it in declared_in(self._signals) if matches(it, wanted)]
            if not (found or declared):
                self._signals.resolve(wanted)  # which says so
        if not found and wanted not in self._patterns:
            missed = [it.name for it in declared if not self._records(it)]
            if missed or not declared:
                raise AssertionError(
                    f"{', '.join(missed) or wanted} is not recorded, only "
                    f"{', '.join(map(_shown, self._patterns))}: record it, too"
                )
        models = [it.context_model for it in declared if it.context_model is not None]
        known = {name for model in models for name in model.model_fields}.union(
            *(keywords_of(it) for it in found)
        )
        for field in fields.keys() - known if models else ():
            near = close_matches(field, known, 1)
            raise AssertionError(
                f"{type_name(models[0] if isinstance(wanted, str) else wanted)} has no field "
                f"{field}" + (f": did you mean {near[0]}?" if near else "")
            )

    def _told(self) -> str:
        emissions = self.emissions
        if not emissions:
            return "Nothing was emitted."
        lines = [shown(emission) for emission in emissions[:_SHOWN]]
        if len(emissions) > _SHOWN:
            lines.append(f"... and {len(emissions) - _SHOWN} more")
        return "\n  ".join(["Emitted, in this order:", *lines])


def _shown(pattern: Pattern) -> str:
    return pattern if isinstance(pattern, str) else type_name(pattern)


def _has(context: Mapping[str, Any], fields: Mapping[str, Any], where: Where | None) -> bool:
    return all(
        name in context and _are_equal(name, context[name], value) for name, value in fields.items()
    ) and (where is None or bool(where(context)))


def _are_equal(name: str, found: object, expected: object) -> bool:
    if found is expected:
        return True
    try:
        return bool(found == expected)
    except Exception as error:
        raise AssertionError(
            f"values of {name} cannot be compared with ==: compare them in where="
        ) from error


def _times(number: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(number, f"{number} times")


def _described(wanted: Pattern, where: Where | None, fields: Mapping[str, Any]) -> str:
    parts = [_shown_value(name, value) for name, value in fields.items()]
    if where is not None:
        parts.append(f"where={handler_name(where)}")
    event = _shown(wanted)
    return f"{event}({', '.join(parts)})" if parts else event


def shown(emission: Emission) -> str:
    """Return an emission as a call, with the values of its context."""
    values = [_shown_value(name, value) for name, value in keywords_of(emission).items()]
    return f"{emission.event}({', '.join(values)})"


def _shown_value(name: str, value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # a broken repr must not hide the failure
        return f"{name}=<{type_name(type(value))} without a repr>"
    return f"{name}={text}" if len(text) <= _SHOWN_LENGTH else f"{name}={text[:_SHOWN_LENGTH]}..."


def record_events(*patterns: Event, signals: SignalRegistry = madcrow_signals) -> Recorder:
    """Return a recorder for a `with` or `async with` block. Handlers are called as usual.

    Deliveries are recorded as emissions are.

    Args:
        *patterns: names of events, patterns such as `order_*`, signals, or context classes, which
            also stand for the events whose models derive from them. Without any, all events are
            recorded. No pattern fits `handler_failed`: give that name besides the pattern.
        signals: the registry whose events are recorded.

    Returns:
        The recorder.

    Raises:
        InvalidEventNameError: a name or pattern is malformed.
        UnknownEventError: a signal belongs to another registry. If a name is not declared, the
            beginning of the block raises the error.

    Example:
        ```python
        from madcrow_events import emit_event, madcrow_signals
        from madcrow_events.testing import record_events

        madcrow_signals.signal("order_placed", "A customer placed an order.")
        with record_events() as events:
            emit_event("order_placed", order_id=7)
        events.assert_emitted("order_placed", times=1, order_id=7)
        events.assert_not_emitted("order_placed", order_id=8)
        ```
    """
    return Recorder(patterns, signals)


def fake_events(*patterns: Event, signals: SignalRegistry = madcrow_signals) -> Recorder:
    """Return a recorder for a `with` or `async with` block that keeps handlers from being called.

    The block holds for the whole process, and also for handlers that are subscribed in it, and for
    those that `EventDispatcher.deliver` would call.
    Background calls that were pending before the block still run.

    Args:
        *patterns: names of events, patterns such as `order_*`, signals, or context classes, as for
            `record_events`. Without any, no handler of any event is called. The handlers of events
            that you do not name are called.
        signals: the registry whose events are recorded.

    Returns:
        The recorder.

    Raises:
        InvalidEventNameError: as for `record_events`.
        UnknownEventError: as for `record_events`.

    Example:
        ```python
        from madcrow_events import emit_event, madcrow_signals
        from madcrow_events.testing import fake_events

        order_placed = madcrow_signals.signal("order_placed", "A customer placed an order.")
        order_placed.subscribe(lambda: print("this is not printed"))
        with fake_events("order_*") as events:
            emit_event("order_placed", order_id=7)
        events.assert_emitted(order_placed, order_id=7)
        ```
    """
    return Recorder(patterns, signals, calls_handlers=False)
