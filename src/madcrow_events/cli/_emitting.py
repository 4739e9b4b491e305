"""Emitting one event from the command line, and what each handler made of it."""

from __future__ import annotations

import json
from contextlib import contextmanager, nullcontext, suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from madcrow_events._text import printable, text_of, type_name
from madcrow_events.cli._messages import waiting_for
from madcrow_events.cli._places import raised_at
from madcrow_events.subscriptions._identity import identity_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from madcrow_events.cli._context import Payload
    from madcrow_events.cli._explaining import ExplainedRecord
    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.emissions import Emission
    from madcrow_events.emissions._emission import HandlerResult
    from madcrow_events.emissions._failures import HandlerFailure
    from madcrow_events.signals import EventSignal

__all__ = ["CallRecord", "EmissionRecord", "RaisedRecord", "emit_and_wait"]

_LONGEST_VALUE = 1000  # characters


class RaisedRecord(TypedDict):
    """An exception that a handler raised."""

    type: str
    """The name of its class."""
    message: str
    """Its text."""
    file: str | None
    """The path of the file where it was raised."""
    line: int | None
    """The number of the line there."""


class CallRecord(TypedDict):
    """What came of one handler."""

    name: str
    """Its `id`, or else the dotted name of the function."""
    status: Literal["returned", "raised", "pending"]
    """`pending` if it had not ended when the command did."""
    value: Any
    """What it returned, as JSON if it is JSON, and else as its `repr`."""
    raised: RaisedRecord | None
    """What it raised."""
    milliseconds: float | None
    """How long it took."""


class EmissionRecord(TypedDict):
    """An emission, as `emit --json` shows it."""

    event: str
    """The name of the event."""
    ok: bool
    """Whether no handler failed, and none is pending."""
    handlers: list[CallRecord]
    """The handlers, in the order in which they began."""
    durable: list[str]
    """The ids of its durable handlers, which hear only of `outbox.emit(session, ...)`."""


class _Call:
    def __init__(self, emission: Emission, handler: Any) -> None:
        self.emission = emission
        self.handler = handler
        self.name = emission.name_of(handler)
        self.seconds: float | None = None
        self.error: BaseException | None = None


class _Watch:
    """An observer that takes the time of each call, and keeps the emissions."""

    def __init__(self) -> None:
        self.emissions: list[Emission] = []
        self.calls: list[_Call] = []

    def emission(self, emission: Emission, /) -> AbstractContextManager[object]:
        self.emissions.append(emission)
        return nullcontext()

    @contextmanager
    def handling(self, emission: Emission, handler: Any, /) -> Iterator[None]:
        call = _Call(emission, handler)
        self.calls.append(call)
        began = perf_counter()
        try:
            yield
        except BaseException as error:
            call.error = error
            raise
        finally:
            call.seconds = perf_counter() - began


def emit_and_wait(
    dispatcher: EventDispatcher,
    signal: EventSignal[Any],
    payload: Payload,
    expected: ExplainedRecord,
) -> EmissionRecord:
    """Emit an event, wait for all of its handlers, and return what came of each.

    Ctrl-C ends the wait, and leaves the handlers that have not ended pending.

    Args:
        dispatcher: the dispatcher that emits.
        signal: the event.
        payload: its context, or its fields.
        expected: the explanation of this emission.
    """
    watch = _Watch()
    # The failures are shown, each with its handler, whatever the dispatcher does with them.
    emitting = dispatcher.with_options(on_error="log", log_tracebacks=False)
    emitting.add_observer(watch)
    with waiting_for(f"emitting {signal.name}"):
        try:
            if payload.context is None:
                emitting.emit(signal, **payload.fields)
            else:
                emitting.emit_typed(signal, payload.context)
        except KeyboardInterrupt:
            raise
        except BaseException:  # of a handler with on_error="raise", or that exits
            if not watch.emissions:
                raise
        with suppress(KeyboardInterrupt):
            emitting.drain()
    emission = watch.emissions[0]
    returned = [*emission.results]
    calls = [it for it in watch.calls if it.emission is emission]
    rows = [_row(it, returned) for it in calls]
    unfit = (it for it in emission.failures if not any(_is_same(it, call) for call in calls))
    rows += [_record(emission.name_of(it.handler), error=it.exception) for it in unfit]
    rows += [_row_of_batch(emission.name_of(it.handler), it, watch.calls) for it in returned]
    listed = [row["name"] for row in rows]
    rows += [_record(it["name"]) for it in expected["called"] if it["name"] not in listed]
    ok = all(row["status"] == "returned" for row in rows)
    return {
        "event": emission.event,
        "ok": ok,
        "handlers": rows,
        "durable": expected["durable"],
    }


def _row(call: _Call, returned: list[HandlerResult]) -> CallRecord:
    if call.seconds is None:
        return _record(call.name)
    milliseconds = round(call.seconds * 1000, 3)
    if call.error is not None:
        return _record(call.name, milliseconds, error=call.error)
    # Two subscriptions of one handler are called in the order of their results.
    at = next((at for at, it in enumerate(returned) if _is_same(it, call)), None)
    value = None if at is None else returned.pop(at).value
    return {**_record(call.name, milliseconds), "status": "returned", "value": _as_json(value)}


def _row_of_batch(name: str, result: HandlerResult, calls: list[_Call]) -> CallRecord:
    """Return the row of a handler whose call was for the last emission of its batch."""
    seconds = next((it.seconds for it in calls if _is_same(result, it)), None)
    milliseconds = None if seconds is None else round(seconds * 1000, 3)
    return {**_record(name, milliseconds), "status": "returned", "value": _as_json(result.value)}


def _is_same(one: HandlerResult | HandlerFailure | _Call, other: _Call) -> bool:
    # Each access makes a bound method anew.
    return identity_key(one.handler) == identity_key(other.handler)


def _record(
    name: str, milliseconds: float | None = None, error: BaseException | None = None
) -> CallRecord:
    """Return the record of a handler that raised an exception, or that has not ended."""
    return {
        "name": name,
        "status": "pending" if error is None else "raised",
        "value": None,
        "raised": None if error is None else _raised(error),
        "milliseconds": milliseconds,
    }


def _raised(error: BaseException) -> RaisedRecord:
    file, line = raised_at(error) or (None, None)
    return {
        "type": type_name(type(error)),
        "message": printable(text_of(error), _LONGEST_VALUE),
        "file": file,
        "line": line,
    }


def _as_json(value: Any) -> Any:
    """Return a value if JSON has it, and else its `repr`."""
    try:
        json.dumps([[[[value]]]], allow_nan=False, indent=2)  # as deeply as it will be
    except Exception:  # also of classes that look like those of JSON
        return printable(_Shown(value), _LONGEST_VALUE)
    return value


class _Shown:
    """A value whose text is its `repr`."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __str__(self) -> str:
        try:
            return repr(self.value)
        except Exception:  # the application's
            return f"{type_name(type(self.value))} without a repr"
