"""How far an `event_scope` reaches, how it is written, and what it refuses (B5)."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    ContextValidationError,
    Emission,
    EventDispatcher,
    EventSignal,
    InvalidOptionError,
    SignalRegistry,
    current_event,
    event_scope,
    request_fields,
)
from support.inside import current_frame
from support.scopes import (
    FIELDS,
    NOTHING,
    Placed,
    WithRequired,
    fields_of,
    generic,
    loose,
    loose_async,
    typed,
    typed_async,
)
from support.waiting import LIMIT

pytestmark = pytest.mark.guarantee("B5")


# What is refused


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("request", "event_scope fills in no field called 'request': did you mean 'request_id'?"),
        ("ipaddress", "did you mean 'ip_address'?"),
        ("colour", "it takes request_id, user_agent, ip_address"),
        ("timestamp", "it takes request_id, user_agent, ip_address"),
        ("forged\nline", "no field called 'forged\\nline'"),
    ],
)
def test_a_name_that_is_no_field_is_refused(name: str, message: str) -> None:
    """The message says what to write instead, and shows no value."""
    block: Any = event_scope
    with pytest.raises(InvalidOptionError) as caught, block(**{name: "canary"}):
        raise AssertionError
    assert message in str(caught.value)
    assert "canary" not in str(caught.value)
    assert caught.value.option == name
    assert current_frame() is None


@pytest.mark.parametrize("value", [17_171_717, b"canary", ["canary"], True])
def test_a_value_that_is_no_text_is_refused(value: Any) -> None:
    """The message names the type and the fix, and shows no value."""
    with pytest.raises(InvalidOptionError) as caught, event_scope(ip_address=value):
        raise AssertionError
    kind = type(value).__name__
    assert str(caught.value).startswith(f"ip_address must be text or None, not {kind}")
    assert "write str(...)" in str(caught.value)
    assert "canary" not in str(caught.value)
    assert "17171717" not in str(caught.value)
    assert caught.value.option == "ip_address"


def test_a_refused_block_leaves_the_outer_one(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Its fields are filled in as before."""
    with event_scope(**FIELDS):
        with pytest.raises(InvalidOptionError), event_scope(user_agent="other", ip_address=1):
            raise AssertionError
        assert fields_of(typed(dispatcher)) == FIELDS


# How far it reaches


def test_it_holds_for_what_handlers_emit(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Also in their own blocks, through several levels, and not after they returned."""
    inner: list[dict[str, Any]] = []
    signals.signal("second_thing")
    signals.signal("third_thing")

    def second() -> None:
        inner.append(fields_of(dispatcher.emit("third_thing")))
        with event_scope(user_agent="second's"):
            inner.append(fields_of(dispatcher.emit("third_thing", ip_address="given")))

    signal.subscribe(lambda: dispatcher.emit("second_thing"))
    signals["second_thing"].subscribe(second)
    with event_scope(request_id="1"):
        typed(dispatcher)
        after = fields_of(typed(dispatcher))
    first = {**NOTHING, "request_id": "1"}
    assert inner[:2] == [first, {**first, "user_agent": "second's", "ip_address": "given"}]
    assert after == first


def test_a_block_that_a_handler_leaves_open_ends_with_the_handler(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """The emitter goes on as before, and closing it later disturbs nothing."""
    opened: list[Any] = []

    def handler() -> None:
        block = event_scope(request_id="handler's")
        block.__enter__()
        opened.append(block)

    with signal.subscribe(handler):
        typed(dispatcher)
    assert fields_of(typed(dispatcher)) == NOTHING
    opened[0].__exit__(None, None, None)
    assert fields_of(typed(dispatcher)) == NOTHING
    assert current_event() is None


async def test_tasks_have_the_block_that_they_were_started_in(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Also when it is over, and whatever other tasks do meanwhile."""
    go = asyncio.Event()

    async def later() -> list[dict[str, Any]]:
        await go.wait()
        before = fields_of(loose(dispatcher))
        with event_scope(user_agent="task's"):
            inside = fields_of(await dispatcher.emit_typed_async(signal, Placed()))
        return [before, inside, fields_of(typed(dispatcher))]

    tasks = []
    for number in range(5):
        with event_scope(request_id=str(number)):
            tasks.append(asyncio.create_task(later()))
    go.set()
    for number, task in enumerate(tasks):
        own = {**NOTHING, "request_id": str(number)}
        assert await task == [own, {**own, "user_agent": "task's"}, own]
    assert fields_of(typed(dispatcher)) == NOTHING


async def test_threads_have_it_if_they_get_the_context_variables(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """As those of `to_thread` do; a thread without them begins without a block."""
    seen: list[dict[str, Any]] = []

    def emit() -> None:
        seen.append(fields_of(typed(dispatcher)))

    with event_scope(**FIELDS):
        await asyncio.to_thread(emit)
        bare = threading.Thread(target=contextvars.Context().run, args=(emit,))
        copied = threading.Thread(target=contextvars.copy_context().run, args=(emit,))
        for thread in (bare, copied):
            thread.start()
            thread.join()
    assert seen == [FIELDS, NOTHING, FIELDS]


@pytest.mark.parametrize("is_async", [False, True], ids=["thread", "loop"])
@pytest.mark.parametrize("fails", [False, True], ids=["", "fails"])
def test_background_handlers_have_it_after_it_is_over(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    is_async: bool,
    fails: bool,
) -> None:
    """For what they emit, and for the announcement of their failure."""
    over = threading.Event()
    inner: list[dict[str, Any]] = []
    announced: list[dict[str, Any]] = []

    def work() -> None:
        assert over.wait(LIMIT)
        inner.append(fields_of(dispatcher.emit("inner_thing")))
        if fails:
            raise ValueError

    async def async_work() -> None:
        work()

    def hear(emission: Emission[Any]) -> None:
        announced.append(fields_of(emission))

    signals.signal("inner_thing")
    signals.subscribe("handler_failed", hear)
    signal.subscribe(async_work if is_async else work, background=True)
    with event_scope(**FIELDS):
        typed(dispatcher)
    over.set()
    assert dispatcher.drain(LIMIT)
    assert inner == [FIELDS]
    assert announced == ([FIELDS] if fails else [])


def failing_inline(signal: EventSignal[Any]) -> None:
    @signal.on()
    def fail() -> None:
        raise ValueError


def failing_async(signal: EventSignal[Any]) -> None:
    @signal.on()
    async def fail() -> None:
        raise ValueError


def failing_later(signal: EventSignal[Any]) -> None:
    @signal.on()
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError


@pytest.mark.parametrize("subscribe", [failing_inline, failing_async, failing_later])
@pytest.mark.parametrize("emitting", [loose, typed, loose_async, typed_async])
def test_announcements_of_failures_have_it(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    subscribe: Callable[[EventSignal[Any]], None],
    emitting: Any,
) -> None:
    """They are events of the same request."""
    announced: list[dict[str, Any]] = []

    def hear(emission: Emission[Any]) -> None:
        announced.append(fields_of(emission))

    signals.subscribe("handler_failed", hear)
    subscribe(signal)
    with event_scope(**FIELDS):
        emitting(dispatcher)
    assert dispatcher.drain(LIMIT)
    assert announced == [FIELDS]


@pytest.mark.parametrize("emitting", [loose, typed, generic])
def test_what_is_held_back_has_the_block_that_it_was_emitted_in(
    signal: EventSignal[Any], dispatcher: EventDispatcher, emitting: Any
) -> None:
    """Not that in which the deferral ends; its handlers emit in the same block."""
    inner: list[dict[str, Any]] = []
    dispatcher.signals.signal("inner_thing")

    def handler() -> None:
        inner.append(fields_of(dispatcher.emit("inner_thing")))

    signal.subscribe(handler)
    with event_scope(request_id="around", user_agent="around"):
        with dispatcher.deferred():
            with event_scope(request_id="inside"):
                first = emitting(dispatcher)
            second = emitting(dispatcher)
            assert fields_of(first)["request_id"] == "inside"
            assert inner == []
        third = emitting(dispatcher)
    around = {**NOTHING, "request_id": "around", "user_agent": "around"}
    inside = {**around, "request_id": "inside"}
    assert [fields_of(emission) for emission in (first, second, third)] == [inside, around, around]
    assert inner == [inside, around, around]


def test_held_back_keywords_are_validated_with_it(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """At once, and with what the block fills in."""
    signals.signal("needs_request", context=WithRequired)
    strict = dispatcher.with_options(validate=True)
    with strict.deferred():
        with event_scope(request_id="1"):
            emission = strict.emit("needs_request")
        with pytest.raises(ContextValidationError):
            strict.emit("needs_request")
    assert emission.state == "done"
    assert emission.context["request_id"] == "1"


async def test_signal_send_is_blinkers_and_has_none(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """What its handlers emit with a dispatcher has it again."""
    heard: list[dict[str, Any]] = []
    inner: list[dict[str, Any]] = []
    signal = signals.signal("sent_thing")
    signals.signal("inner_thing")

    def handler(sender: Any, **context: Any) -> None:
        heard.append(context)
        inner.append(fields_of(dispatcher.emit("inner_thing")))

    async def async_handler(sender: Any, **context: Any) -> None:
        handler(sender, **context)

    with event_scope(**FIELDS):
        with signal.subscribe(handler):
            signal.send("me", number=1)
        with signal.subscribe(async_handler):
            await signal.send_async("me", number=1)
    assert heard == [{"number": 1}] * 2
    assert inner == [FIELDS] * 2


def test_dispatchers_and_registries_share_it(signals: SignalRegistry) -> None:
    """It belongs to the code around, not to a dispatcher."""
    others = [SignalRegistry(strict=False), signals]
    signals.signal("order_placed")
    with event_scope(**FIELDS):
        for registry in others:
            assert fields_of(EventDispatcher(registry).emit("order_placed")) == FIELDS


# How it is written


def test_it_is_good_for_one_block() -> None:
    """Entering it again is refused, for its first block would never end."""
    block = event_scope(request_id="1")
    with block, pytest.raises(RuntimeError, match="call event_scope"):
        block.__enter__()
    assert current_frame() is None


def scoped(number: int, dispatcher: EventDispatcher) -> Iterator[Any]:
    yield fields_of(loose(dispatcher))["request_id"]
    with event_scope(request_id=f"generator {number}"):
        while True:
            yield fields_of(loose(dispatcher))["request_id"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1), (1, 2, 0)])
def test_blocks_of_generators_may_end_in_any_order(
    signal: EventSignal[Any], dispatcher: EventDispatcher, order: tuple[int, ...]
) -> None:
    """While one is suspended its block stands around the code that goes on; then nothing does."""
    with event_scope(request_id="around"):
        generators = [scoped(number, dispatcher) for number in range(3)]
        assert [next(generator) for generator in generators] == ["around"] * 3
        for number, generator in enumerate(generators):
            assert next(generator) == f"generator {number}"
        for number in order:
            generators[number].close()
        assert fields_of(loose(dispatcher))["request_id"] == "around"
    assert fields_of(loose(dispatcher)) == NOTHING


def test_the_last_open_block_counts_while_earlier_ones_end(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """It began later, and so it is the innermost until it ends."""
    first, second = (event_scope(request_id=str(number)) for number in (1, 2))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert fields_of(loose(dispatcher))["request_id"] == "2"
    with event_scope(user_agent="inner"):
        assert fields_of(loose(dispatcher))["request_id"] == "2"
    assert fields_of(loose(dispatcher))["request_id"] == "2"
    second.__exit__(None, None, None)
    assert fields_of(loose(dispatcher)) == NOTHING


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_blocks_of_generators_may_end_in_another_context(
    signal: EventSignal[Any], dispatcher: EventDispatcher, order: tuple[int, ...]
) -> None:
    """As those of a fixture do, which is torn down in a copy of the context it was set up in."""
    generators = [scoped(number, dispatcher) for number in range(2)]

    def begin() -> None:
        for generator in generators:
            next(generator)
            next(generator)

    def end() -> dict[str, Any]:
        for number in order:
            generators[number].close()
        return fields_of(loose(dispatcher))

    begun = contextvars.copy_context()
    begun.run(begin)
    assert begun.copy().run(end) == NOTHING


async def test_an_async_generator_may_end_in_another_task(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """The block ends there without an error, and is of no concern to that task."""

    async def stream() -> Any:
        with event_scope(request_id="stream"):
            yield fields_of(loose(dispatcher))["request_id"]

    streaming = stream()
    assert await asyncio.create_task(anext(streaming)) == "stream"

    async def close() -> dict[str, Any]:
        with event_scope(request_id="closer"):
            await streaming.aclose()
            return fields_of(loose(dispatcher))

    assert (await asyncio.create_task(close()))["request_id"] == "closer"
    assert fields_of(loose(dispatcher)) == NOTHING


# As the cause of something


def test_a_block_of_a_cause_fills_in_what_its_own_block_did(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """In place of the fields around; a block inside adds to those."""
    with event_scope(request_id="cause's"):
        cause = typed(dispatcher)
    plain = typed(dispatcher)
    with event_scope(request_id="around", user_agent="around"):
        with cause.as_cause():
            assert fields_of(typed(dispatcher)) == {**NOTHING, "request_id": "cause's"}
            with event_scope(ip_address="inside"):
                inside = {**NOTHING, "request_id": "cause's", "ip_address": "inside"}
                assert fields_of(typed(dispatcher)) == inside
        with plain.as_cause():
            assert fields_of(typed(dispatcher)) == NOTHING
        assert fields_of(typed(dispatcher))["request_id"] == "around"


def test_a_field_that_the_emitter_gave_is_not_handed_on_to_what_it_caused(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """It belongs to that one context."""
    inner: list[dict[str, Any]] = []
    dispatcher.signals.signal("inner_thing")
    signal.subscribe(lambda: inner.append(fields_of(dispatcher.emit("inner_thing"))))
    with event_scope(request_id="1"):
        typed(dispatcher, request_id="2", ip_address="given")
    assert inner == [{**NOTHING, "request_id": "1"}]


# What a request says of itself


@pytest.mark.parametrize(
    ("request_id", "is_taken"),
    [
        ("r-17", True),
        ("A.b_c-9" * 18, True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("two words", False),
        ("line\nbreak", False),
        ("line\n", False),
        ("é", False),
        (None, False),
    ],
)
def test_the_id_of_a_request_is_a_sound_one(request_id: str | None, is_taken: bool) -> None:
    """Whatever else it claims, it gets a new one, different each time."""
    first, second = (request_fields(request_id=request_id)["request_id"] for _ in range(2))
    assert (first == second == request_id) is is_taken
    assert is_taken or (len(str(first)) == 32 and first != second)


def test_what_a_request_says_of_its_client_is_cut(dispatcher: EventDispatcher) -> None:
    """The fields are those of a scope; what is empty is left out."""
    with event_scope(**request_fields(ip_address="192.0.2.7", user_agent="x" * 300)):
        context = dispatcher.emit_typed(
            dispatcher.signals.signal("order_placed", context=BaseEventContext), BaseEventContext()
        ).context
    assert (context.ip_address, context.user_agent) == ("192.0.2.7", "x" * 256)
    empty = request_fields(ip_address="", user_agent="")
    assert (empty["ip_address"], empty["user_agent"]) == (None, None)
