"""A delivery calls a handler as an emission would that reached it alone (K2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madcrow_events import (
    BaseEventContext,
    Emission,
    EventDispatcher,
    GenericEventContext,
    SignalRegistry,
    current_event,
)

Called = Callable[..., Any]


class Placed(BaseEventContext):
    order_id: int
    note: str = "none"


class PlacedAbroad(Placed):
    country: str = "NO"


def in_each_form(heard: Called) -> dict[str, Called]:
    """Return a handler of each form, which hands on what it is called with."""

    def keywords(sender: Any, **context: Any) -> Any:
        return heard(sender, context)

    def partly(sender: Any, order_id: int, **rest: Any) -> Any:
        return heard(sender, order_id, rest)

    def context(context: Placed) -> Any:
        return heard(context)

    def either(context: PlacedAbroad | Placed) -> Any:
        return heard(context)

    def base(context: BaseEventContext) -> Any:
        return heard(context)

    def emission(emission: Emission[Placed]) -> Any:
        return heard(emission.context, emission.sender, emission.fields)

    def both(emission: Emission[Any], context: Placed) -> Any:
        return heard(emission.event, context)

    def fields(sender: Any, order_id: int, note: str = "left out") -> Any:
        return heard(sender, order_id, note)

    def one_field(note: str) -> Any:
        return heard(note)

    def bare() -> Any:
        return heard()

    forms: tuple[Called, ...] = (
        *(keywords, partly, context, either, base, emission, both, fields, one_field, bare),
    )
    return {form.__name__: form for form in forms}


FORMS = sorted(in_each_form(lambda *_: None))

contexts = st.one_of(
    st.builds(Placed, order_id=st.integers(), note=st.text(max_size=3)),
    st.builds(PlacedAbroad, order_id=st.integers(), country=st.sampled_from(["NO", "SE"])),
    st.builds(
        partial(GenericEventContext, event_type="placed"),
        data=st.dictionaries(
            st.sampled_from(["order_id", "note", "colour"]), st.integers() | st.text(max_size=2)
        ),
    ),
)


def awaiting(form: str, heard: Called) -> Called:
    """Return an async handler of a form."""
    plain = in_each_form(heard)[form]

    async def call(*arguments: Any, **keywords: Any) -> Any:
        await asyncio.sleep(0)
        return plain(*arguments, **keywords)

    call.__wrapped__ = plain  # type: ignore[attr-defined]  # whose signature is read
    return call


@pytest.mark.guarantee("K2")
@given(
    form=st.sampled_from(FORMS),
    context=contexts,
    sender=st.none() | st.integers(),
    fails=st.booleans(),
    is_async=st.booleans(),
    awaits=st.booleans(),
)
def test_a_delivery_calls_a_handler_as_an_emission_does(
    form: str,
    context: BaseEventContext,
    sender: int | None,
    fails: bool,
    is_async: bool,
    awaits: bool,
) -> None:
    """With the same arguments, results and failures, for plain and async handlers."""

    def heard(*arguments: Any) -> Any:
        emission = current_event()
        assert emission is not None
        calls.append((arguments, emission.event, emission.sender, emission.context))
        if fails:
            raise LookupError("on purpose")
        return len(arguments)

    calls: list[Any] = []
    signals = SignalRegistry()
    signal = signals.signal("placed", context=Placed)
    handler = awaiting(form, heard) if is_async else in_each_form(heard)[form]
    with EventDispatcher(signals, log_tracebacks=False) as dispatcher:
        with signal.subscribe(handler):
            emitted = asyncio.run(dispatcher.emit_typed_async(signal, context, sender))
        before, calls = calls, []
        bound = signal.bind(handler)
        if awaits:
            delivered = asyncio.run(dispatcher.deliver_async(bound, context, sender=sender))
        else:
            delivered = dispatcher.deliver(bound, context, sender=sender)
    assert calls == before
    assert delivered.results == emitted.results
    assert [(it.handler, type(it.exception), str(it.exception)) for it in delivered.failures] == [
        (it.handler, type(it.exception), str(it.exception)) for it in emitted.failures
    ]
    assert (delivered.ok, delivered.state, delivered.pending) == (emitted.ok, "done", 0)
